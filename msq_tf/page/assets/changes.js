// Two sides, layer by layer.

// Opens a pair of layers that correspond, each on its side.
function openPair(place) {
  const {first, second} = page.pairs[place];
  [first, second].forEach((layer, side) => {
    if (known(layer) && openers[side]) openers[side](layer);
  });
  document.querySelector('#layers .detail')?.scrollIntoView();
}

function changesOf() {
  const [one, two] = sides;
  const layerRows = page.pairs.map(({first, second}) => {
    const a = known(first) ? one.layers[first] : null;
    const b = known(second) ? two.layers[second] : null;
    return {name: (a || b).name, a, b};
  });
  const names = layerRows.map((row) => row.name);
  const both = layerRows.flatMap(({name, a, b}, place) => [
    ...(a ? [{place, at: at(names, place), name,
      side: 'first', bits: a.bits,
      bytes: a.stored_bytes}] : []),
    ...(b ? [{place, at: at(names, place), name,
      side: 'second', bits: b.bits,
      bytes: b.stored_bytes}] : [])]);
  const x = inOrder(names, 'layers that correspond');
  const color = {field: 'side', type: 'nominal', title: null, scale: {
    domain: ['first', 'second'], range: ['var(--first)', 'var(--second)']}};
  const bars = (field, title) => chart(title, {
    data: {values: both}, title, mark: {type: 'bar', cursor: 'pointer'},
    encoding: {x, xOffset: {field: 'side'}, color,
      y: {field, type: 'quantitative', title: null},
      tooltip: [{field: 'name', title: 'layer'}, {field: 'side'},
        {field, format: ','}]},
  }, {count: 2 * names.length, click: (row) => openPair(row.place)});
  const arrow = (a, b, field) => {
    const left = a ? whole(a[field]) : '–';
    const right = b ? whole(b[field]) : '–';
    return left === right ? left : `${left} → ${right}`;
  };
  const parts = [
    page.changes.length ? element('ul', {class: 'findings'},
      page.changes.map((text) => element('li', {}, text))) : null,
    bars('bits', 'Width in bits'), bars('bytes', 'Stored bytes'),
    errorsOf(one, two),
    folded('All layers as a table', table('Layers that correspond; a name '
      + 'opens both below',
      [['layer'], ['bits', true], ['stored bytes', true], ['dead', true]],
      layerRows.map(({name, a, b}, place) => ({
        class: a && b && a.bits === b.bits ? null : 'marked',
        cells: [element('button', {type: 'button',
          onclick: () => openPair(place)}, name), arrow(a, b, 'bits'),
        arrow(a, b, 'stored_bytes'), arrow(a, b, 'dead')]})))),
  ];
  return element('div', {}, parts.filter(known));
}

function errorsOf(one, two) {
  const names = page.tensor_pairs.map(({first, second}) =>
    (known(first) ? one.tensors[first] : two.tensors[second]).name);
  const rows = page.tensor_pairs.flatMap(({first, second}, place) =>
    [[one, first, 'first'], [two, second, 'second']].flatMap(
      ([side, index, name]) => {
        const tensor = known(index) ? side.tensors[index] : null;
        return tensor && known(tensor.accumulated) ? [{place,
          at: at(names, place), side: name, name: tensor.name,
          snr: tensor.accumulated}] : [];
      }));
  if (!rows.length) return null;
  return chart('Accumulated error of both', {
    data: {values: rows}, height: 200,
    title: 'Signal to noise in dB, all that has added up',
    mark: {type: 'line', point: true},
    encoding: {x: inOrder(names, 'tensors that correspond'),
      y: {field: 'snr', type: 'quantitative', title: null},
      color: {field: 'side', type: 'nominal', title: null, scale: {
        domain: ['first', 'second'],
        range: ['var(--first)', 'var(--second)']}},
      tooltip: [{field: 'name', title: 'tensor'}, {field: 'side'},
        {field: 'snr', title: 'dB', format: '.1f'}]},
  }, {count: names.length});
}
