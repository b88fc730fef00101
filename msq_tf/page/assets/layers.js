// The network as bars in order, and what is known of the layer picked.

function rowsOf(side) {
  const names = side.layers.map((layer) => layer.name);
  return side.layers.map((layer, place) => ({place, at: at(names, place),
    name: layer.name, kind: layer.kind, bits: layer.bits, width: width(layer),
    stored: layer.stored_bytes, ideal: layer.ideal_bytes,
    share: percent(layer.share)}));
}

const TOLD = [{field: 'name', title: 'layer'}, {field: 'kind'},
  {field: 'width'}, {field: 'stored', title: 'bytes', format: ','},
  {field: 'ideal', title: 'ideal bytes', format: ','},
  {field: 'share', title: 'of the whole'}];

const openers = [];  // what opens a layer, by side

function layersOf(side) {
  const rows = rowsOf(side);
  const names = side.layers.map((layer) => layer.name);
  const detail = element('div', {class: 'panel detail', 'aria-live': 'polite'});
  const choice = element('select', {'aria-label': 'Layer',
    onchange: () => pick(Number(choice.value))},
    names.map((name, k) => element('option', {value: k}, `${k + 1}. ${name}`)));
  const buttons = [];

  function pick(place) {
    const layer = side.layers[place];
    if (!layer) return;
    choice.value = place;
    buttons.forEach((button, k) => button.closest('tr')
      .setAttribute('aria-selected', k === place));
    clear(detail);
    detail.append(...detailOf(layer));
    detail.dataset.layer = place;
    drawAll(detail);
  }

  const x = inOrder(names, 'layers, in the order of the network');
  const options = {count: rows.length, click: (row) => pick(row.place)};
  const bits = chart('Width of each layer', {
    data: {values: rows}, title: 'Width in bits',
    mark: {type: 'bar', cursor: 'pointer'},
    encoding: {x, tooltip: TOLD,
      y: {field: 'bits', type: 'quantitative', title: null,
        axis: {values: [2, 4, 8, 16, 32]}},
      color: {field: 'width', type: 'nominal', scale: WIDTHS, legend: null}},
  }, options);
  const bytes = chart('Bytes of each layer', {
    data: {values: rows},
    title: 'Stored bytes, and the ideal as a line',
    encoding: {x, tooltip: TOLD},
    layer: [
      {mark: {type: 'bar', cursor: 'pointer'}, encoding: {
        y: {field: 'stored', type: 'quantitative', title: null},
        color: {field: 'width', type: 'nominal', scale: WIDTHS, legend: null}}},
      {mark: {type: 'tick', thickness: 2, color: 'var(--ink)'},
        encoding: {y: {field: 'ideal', type: 'quantitative'}}},
    ],
  }, options);
  const listed = table('All layers; a name opens it above', [['layer'],
    ['read by'], ['width', true], ['elements', true], ['stored', true],
    ['ideal', true], ['share', true], ['dead', true], ['at the ends', true]],
    side.layers.map((layer, k) => {
      const button = element('button', {type: 'button',
        onclick: () => { pick(k); choice.focus(); }}, layer.name);
      buttons.push(button);
      return {cells: [button, layer.kind, width(layer), whole(layer.size),
        whole(layer.stored_bytes), whole(layer.ideal_bytes),
        percent(layer.share), deadOf(layer), percent(layer.rim)]};
    }));
  const step = (by) => () => pick(
    (Number(choice.value) + by + names.length) % names.length);
  const content = element('div', {}, bits, bytes,
    element('div', {class: 'pick'},
      element('label', {}, 'Layer ', choice),
      element('button', {type: 'button', onclick: step(-1)}, 'Previous'),
      element('button', {type: 'button', onclick: step(1)}, 'Next')),
    detail, folded(`All ${names.length} layers as a table`, listed));
  pick(heaviest(side));
  openers[sides.indexOf(side)] = pick;
  return content;
}

function heaviest(side) {
  let best = 0;
  side.layers.forEach((layer, k) => {
    if (layer.stored_bytes > side.layers[best].stored_bytes) best = k;
  });
  return best;
}

const deadOf = (layer) => known(layer.dead)
  ? `${whole(layer.dead)} of ${whole(layer.channels)}` : '–';

function detailOf(layer) {
  const rows = [['width', width(layer)], ['stored as', layer.type],
    ['read by', layer.kind],
    ['shape', layer.shape.join(' × ') || whole(layer.size)],
    ['stored bytes', whole(layer.stored_bytes)],
    ['ideal bytes', whole(layer.ideal_bytes)],
    ['share of the whole', percent(layer.share)]];
  if (known(layer.entropy)) rows.push(
    ['information in a code', `${short(layer.entropy)} bits`]);
  if (known(layer.dead)) rows.push(['dead channels', deadOf(layer)]);
  if (known(layer.rim)) rows.push(
    ['codes at the ends of the grid', percent(layer.rim)]);
  if (layer.scale_count) rows.push(['scales', whole(layer.scale_count)]);
  if (known(layer.sensitivity)) rows.push(
    ['sensitivity', short(layer.sensitivity)]);
  if (known(layer.measured)) rows.push(
    ['measured damage, alone', short(layer.measured)]);
  if (known(layer.predicted)) rows.push(
    ['predicted damage', short(layer.predicted)]);
  const parts = [element('h3', {}, layer.name), facts(rows), nextOf(layer)];
  if (layer.why.length) parts.push(element('h3', {}, 'Why this width'),
    element('ul', {}, layer.why.map((text) => element('li', {}, text))));
  if (layer.remarks.length) parts.push(element('ul', {class: 'findings'},
    layer.remarks.map((text) => element('li', {}, text))));
  const charts = element('div', {class: 'charts'});
  if (layer.codes.length) charts.append(chart('Histogram of the codes', {
    data: {values: layer.codes.map(([code, count]) => ({code, count}))},
    title: 'How often each code occurs',
    mark: {type: 'bar', color: 'var(--first)'},
    encoding: {
      x: {field: 'code', type: 'quantitative', title: 'code',
        axis: {tickMinStep: 1, format: 'd'}, scale: {padding: 8}},
      y: {field: 'count', type: 'quantitative', title: null},
      tooltip: [{field: 'code'}, {field: 'count', format: ','}]},
  }));
  if (layer.scales.length > 1) charts.append(chart('Scales', {
    data: {values: layer.scales.map((scale) => ({scale}))},
    title: 'Scales of the channels',
    mark: {type: 'bar', color: 'var(--second)'},
    encoding: {
      x: {field: 'scale', bin: {maxbins: 24}, title: 'scale',
        axis: {format: '.1e', labelOverlap: true}},
      y: {aggregate: 'count', title: null}},
  }));
  if (charts.childElementCount) parts.push(charts);
  return parts.filter(known);
}

function nextOf(layer) {
  if (!known(layer.next_bits)) return null;
  let text = `At ${layer.next_bits} bits its codes would need `
    + `${whole(layer.next_saves)} bytes less`;
  if (known(layer.next_noise)) text += `, its weights would be off by ${
    percent(layer.next_noise)} more`;
  if (known(layer.next_cost)) text += `, and the loss is predicted to rise by ${
    short(layer.next_cost)}`;
  return element('p', {}, `${text}.`);
}
