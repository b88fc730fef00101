// Error by tensor: what one operator does alone, and what has added up.

function tensorsOf(side) {
  const names = side.tensors.map((tensor) => tensor.name);
  const rows = [];
  side.tensors.forEach((tensor, place) => {
    for (const kind of ['isolated', 'accumulated']) {
      if (known(tensor[kind])) rows.push({place, at: at(names, place), kind, snr: tensor[kind],
        name: tensor.name, operator: tensor.operator,
        units: short(tensor.units), rim: percent(tensor.rim),
        clipped: percent(tensor.clipped)});
    }
  });
  const first = side.tensors.findIndex((tensor) => tensor.wrong);
  const marks = first < 0 ? [] : [{place: first,
    at: at(names, first)}];
  const x = inOrder(names, 'tensors, in the order of the network');
  const line = chart('Signal to noise of each tensor', {
    title: 'Signal to noise in dB; higher is better'
      + (first < 0 ? '' : '; the line marks where it goes wrong'),
    height: 220,
    layer: [
      {data: {values: rows}, mark: {type: 'line', point: {size: 50}},
        encoding: {
          x, y: {field: 'snr', type: 'quantitative', title: null},
          color: {field: 'kind', type: 'nominal', title: null, scale: {
            domain: ['isolated', 'accumulated'],
            range: ['var(--first)', 'var(--second)']}},
          tooltip: [{field: 'name', title: 'tensor'}, {field: 'operator'},
            {field: 'kind'}, {field: 'snr', title: 'dB', format: '.1f'},
            {field: 'units', title: 'max units'},
            {field: 'rim', title: 'at the rim'},
            {field: 'clipped', title: 'clipped'}]}},
      ...(marks.length ? [{data: {values: marks},
        mark: {type: 'rule', color: 'var(--mark)', strokeWidth: 2,
          strokeDash: [4, 3]},
        encoding: {x: {...x}}}] : []),
    ],
  }, {count: names.length});
  const listed = table('All tensors', [['tensor'], ['written by'],
    ['isolated', true], ['accumulated', true], ['max units', true],
    ['at the rim', true], ['clipped', true]], side.tensors.map((tensor) => ({
    class: tensor.wrong ? 'marked' : null,
    cells: [tensor.name + (tensor.wrong ? ' ← goes wrong here' : ''),
      tensor.operator, decibels(tensor.isolated),
      decibels(tensor.accumulated), short(tensor.units),
      percent(tensor.rim), percent(tensor.clipped)]})));
  return element('div', {}, line,
    folded(`All ${names.length} tensors as a table`, listed));
}
