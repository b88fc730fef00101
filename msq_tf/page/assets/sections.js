// The sections: what each means, what to do, and the page from top to bottom.

const SECTIONS = [
  {id: 'layers', title: 'Layers', make: layersOf,
    means: 'Each bar is a weight, in the order of the network: its width, the '
      + 'bytes that it takes, and as a line the bytes that its codes need at '
      + 'that width. Click a bar, or choose a layer, to see its codes.',
    todo: 'Look first at tall bars of bytes: a narrower width pays there. '
      + 'Bytes far above the line are a container that is too wide. Dead '
      + 'channels can be removed from the model. Many codes at the ends of the '
      + 'grid mean that large weights were clipped.'},
  {id: 'search', title: 'The search', make: searchOf,
    means: 'What the search decided, step by step, and at what price. Damage '
      + 'is the increase of the loss that a narrower width was predicted to '
      + 'bring, and what was measured.',
    todo: 'If the metric falls with a decision and does not come back, train '
      + 'longer between decisions or keep that layer wider (`min_bits`). '
      + 'Points far above the others were predicted badly: widen those '
      + 'layers.'},
  {id: 'tensors', title: 'Error by tensor', make: tensorsOf,
    means: 'The float model against the file on real inputs, tensor by tensor. '
      + 'With the quantized model at hand the float one has the weights that '
      + 'training moved, before they are rounded; without it those that the '
      + 'codes stand for, and the error is that of activations alone. '
      + 'Isolated: only this operator is quantized. Accumulated: all that '
      + 'came before, too. 20 dB is an error of a tenth, 40 dB of a '
      + 'hundredth.',
    todo: 'A dip of the isolated line is a layer that its width or its range '
      + 'does not suit: give it more bits, or another range. An accumulated '
      + 'line that sinks without a dip is many small errors: all widths are '
      + 'too narrow. Values at the rim stand at an end of their range, and '
      + 'clipped ones lie beyond it in float: calibrate on inputs like '
      + 'these.'},
  {id: 'samples', title: 'Where the answers differ most', make: samplesOf,
    means: 'The inputs on which the float model and the file are furthest '
      + 'apart, and both answers.',
    todo: 'If they have something in common, such as dark pictures or a rare '
      + 'word, add such inputs to the training and to representative_data. If '
      + 'they are odd ones of no use, the file may be good enough.'},
  {id: 'targets', title: 'Where it runs', make: targetsOf,
    means: 'What each target runs, which kernels take it, and which operators '
      + 'fall back.',
    todo: 'For a target that refuses the file, export for that target. What '
      + 'falls back costs time: another operator in the model may avoid it.'},
];

function fill() {
  document.getElementById('head').append(element('h1', {}, page.title),
    element('div', {class: sides.length > 1 ? 'sides two' : 'sides'},
      sides.map((side, k) => element('div', {},
        sides.length > 1 ? element('h2', {},
          `${k ? 'Second' : 'First'}: ${side.name}`) : null,
        facts(side.facts), findings(side, 'head')))));
  const main = document.getElementById('main');
  const nav = document.getElementById('nav');
  const add = (id, title, ...children) => {
    nav.append(element('a', {href: `#${id}`}, title));
    main.append(element('section', {id, 'aria-labelledby': `${id}-title`},
      element('h2', {id: `${id}-title`}, title), ...children));
  };
  const words = ({means, todo}) => [element('p', {}, means),
    element('p', {class: 'do'}, element('b', {}, 'What to do: '), todo)];
  if (sides.length > 1) add('changes', 'What changed', ...words({
    means: 'The two side by side, matched by layer: what changed in bits, '
      + 'bytes, error and answers. Click a bar to open that layer of both.',
    todo: 'A layer whose error rose with fewer bits paid for the bytes it '
      + 'saved; one whose error stayed gave them for nothing.'}), changesOf());
  for (const section of SECTIONS) {
    add(section.id, section.title, ...words(section),
      element('div', {class: sides.length > 1 ? 'sides two' : 'sides'},
        sides.map((side) => sideOf(side, section))));
  }
  drawAll();
}

function sideOf(side, section) {
  const parts = sides.length > 1 ? [element('h3', {}, side.name)] : [];
  const missing = side.missing[section.id];
  if (missing) parts.push(element('p', {class: 'missing'},
    `Left out: ${missing}`));
  else parts.push(findings(side, section.id), section.make(side));
  return element('div', {'data-section': section.id}, parts.filter(known));
}

fill();
window.addEventListener('beforeprint', () => {
  for (const part of document.querySelectorAll('details')) part.open = true;
});
