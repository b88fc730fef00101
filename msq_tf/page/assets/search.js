// The search, replayed.

function searchOf(side) {
  const search = side.search;
  const names = new Map(side.layers.map((layer) => [layer.key, layer.name]));
  const sizes = new Map(side.layers.map((layer) => [layer.key, layer.size]));
  const parts = [replayOf(side, search, names, sizes)];
  if (search.moves.length) parts.push(sizeOf(search, sizes));
  if (search.points.length) parts.push(chart('Metric over epochs', {
    data: {values: search.points}, title: `${search.metric} over epochs`,
    mark: {type: 'line', point: true, color: 'var(--first)'},
    encoding: {
      x: {field: 'epoch', type: 'quantitative', axis: {tickMinStep: 1}},
      y: {field: 'value', type: 'quantitative', scale: {zero: false},
        title: null},
      tooltip: [{field: 'epoch'}, {field: 'value', format: '.4g'}]},
  }));
  if (search.points.length > 1) parts.push(chart('Metric against bytes', {
    data: {values: search.points},
    title: `${search.metric} against bytes of the codes, epoch by epoch`,
    height: 200,
    encoding: {
      x: {field: 'bytes', type: 'quantitative', scale: {zero: false},
        title: 'bytes of the codes'},
      y: {field: 'value', type: 'quantitative', scale: {zero: false},
        title: null},
      order: {field: 'epoch'},
      tooltip: [{field: 'epoch'}, {field: 'bytes', format: ','},
        {field: 'value', format: '.4g'}]},
    layer: [{mark: {type: 'line', color: 'var(--line)'}},
      {mark: {type: 'point', filled: true, size: 70, color: 'var(--first)'}}],
  }));
  parts.push(damageOf(search));
  if (search.moves.length) parts.push(folded(
    `All ${search.moves.length} decisions`, table('Decisions, in order',
      [['step', true], ['epoch', true], ['layer'], ['bits', true],
        ['predicted cost', true], ['in words']],
      search.moves.map((move) => ({cells: [whole(move.step),
        move.epoch.toFixed(2), names.get(move.key) || move.key,
        `${move.old} → ${move.new}`, short(move.cost), move.text]})))));
  return element('div', {}, parts.filter(known));
}

// Bits over steps as lines, and a slider over the decisions.
function replayOf(side, search, names, sizes) {
  const moves = search.moves;
  const keys = Object.keys(search.start);
  const last = moves.length ? moves[moves.length - 1].step : 1;
  const rows = [];
  for (const key of keys) {
    let bits = search.start[key];
    const name = names.get(key) || key;
    rows.push({step: 0, bits, name});
    for (const move of moves) {
      if (move.key === key) rows.push({step: move.step, bits: bits = move.new,
        name});
    }
    rows.push({step: last * 1.02, bits, name});
  }
  const lines = chart('Bits of every layer over training steps', {
    data: {values: rows}, title: 'Bits over steps; a line for each layer',
    height: 220,
    mark: {type: 'line', interpolate: 'step-after', strokeWidth: 2,
      opacity: 0.7, strokeJoin: 'round'},
    encoding: {
      x: {field: 'step', type: 'quantitative', title: 'training step'},
      y: {field: 'bits', type: 'quantitative', title: null,
        axis: {tickMinStep: 1}, scale: {zero: true}},
      color: {field: 'name', type: 'nominal', sort: null,
        legend: keys.length <= 12 ? {title: null, columns: 4} : null},
      tooltip: [{field: 'name', title: 'layer'}, {field: 'bits'},
        {field: 'step'}]},
  });
  if (!moves.length) return element('div', {}, lines);
  const listed = keys.map((key) => names.get(key) || key);
  const told = element('p', {'aria-live': 'polite'});
  const bars = element('div', {});
  const slider = element('input', {type: 'range', min: 0, max: moves.length,
    value: moves.length, 'aria-label': 'Decision', oninput: () => show()});
  function show() {
    const count = Number(slider.value);
    const bits = {...search.start};
    for (const move of moves.slice(0, count)) bits[move.key] = move.new;
    let stored = 0;
    for (const key of keys) stored += (sizes.get(key) || 0) * bits[key] / 8;
    const move = moves[count - 1];
    told.textContent = (move ? `${count} of ${moves.length}: ${move.text}`
      : 'Before the first decision') + `. Codes: ${whole(Math.ceil(stored))} `
      + 'bytes.';
    clear(bars);
    bars.append(chart('Bits of each layer at this decision', {
      data: {values: keys.map((key, place) => ({place, at: at(listed, place),
        bits: bits[key], name: listed[place], width: `${bits[key]} bits`}))},
      height: 110, mark: 'bar',
      encoding: {
        x: inOrder(listed, 'layers, in the order of the network'),
        y: {field: 'bits', type: 'quantitative', title: null,
          scale: {domain: [0, 8]}},
        color: {field: 'width', type: 'nominal', scale: WIDTHS, legend: null},
        tooltip: [{field: 'name', title: 'layer'}, {field: 'bits'}]},
    }, {count: keys.length}));
    drawAll(bars);
  }
  show();
  return element('div', {}, lines, element('div', {class: 'panel'},
    element('label', {}, 'Replay the decisions ', slider), told, bars));
}

// Bytes of the codes after each decision.
function sizeOf(search, sizes) {
  const bits = {...search.start};
  const bytes = () => Object.entries(bits).reduce((sum, [key, width]) =>
    sum + (sizes.get(key) || 0) * width / 8, 0);
  const rows = [{step: 0, bytes: bytes()}];
  for (const move of search.moves) {
    bits[move.key] = move.new;
    rows.push({step: move.step, bytes: bytes()});
  }
  rows.push({step: rows[rows.length - 1].step * 1.02, bytes: bytes()});
  return chart('Bytes over steps', {
    data: {values: rows}, title: 'Bytes of the codes over steps',
    mark: {type: 'line', interpolate: 'step-after', color: 'var(--second)'},
    encoding: {
      x: {field: 'step', type: 'quantitative', title: 'training step'},
      y: {field: 'bytes', type: 'quantitative', title: null},
      tooltip: [{field: 'step'}, {field: 'bytes', format: ',.0f'}]},
  });
}

function damageOf(search) {
  if (!search.damage.length) return null;
  return element('div', {}, damageChart(search),
    element('p', {class: 'do'}, `Damage ${search.damage_of}.`));
}

function damageChart(search) {
  return chart('Predicted against measured damage', {
    data: {values: search.damage}, height: 220,
    title: 'Predicted against measured damage',
    encoding: {
      x: {field: 'predicted', type: 'quantitative', title: 'predicted'},
      y: {field: 'measured', type: 'quantitative', title: 'measured'},
      tooltip: [{field: 'name'}, {field: 'predicted', format: '.3g'},
        {field: 'measured', format: '.3g'}]},
    mark: {type: 'point', filled: true, size: 80, color: 'var(--first)'},
  });
}
