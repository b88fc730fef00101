// The inputs on which the float model and the file are furthest apart.

const MOST = 6;  // shown at once

function samplesOf(side) {
  const cards = side.samples.map((sample) => element('article', {
    class: 'panel'},
    element('h3', {}, `Input ${sample.number}`),
    element('p', {}, `off by ${percent(sample.distance)} of the range`),
    sample.inputs.map((shown) => inputOf(shown, sample.inputs.length > 1)),
    sample.answers.map(answerOf)));
  const parts = [element('div', {class: 'samples'}, cards.slice(0, MOST))];
  if (cards.length > MOST) parts.push(folded(`${cards.length - MOST} more`,
    element('div', {class: 'samples'}, cards.slice(MOST))));
  return element('div', {}, parts);
}

function inputOf(shown, several) {
  const parts = several ? [element('p', {}, shown.name)] : [];
  if (shown.form === 'picture') parts.push(pictureOf(shown));
  else if (shown.form === 'curves') parts.push(curvesOf(shown));
  else parts.push(element('p', {class: 'tokens', tabindex: 0,
    'aria-label': shown.form}, shown.data.map((value) =>
      typeof value === 'number' ? short(value) : value).join(' ')));
  if (shown.note) parts.push(element('p', {class: 'do'}, shown.note));
  return parts;
}

function pictureOf(shown) {
  const canvas = element('canvas', {width: shown.width, height: shown.height,
    role: 'img', 'aria-label': `Picture of ${shown.shape.join(' × ')}`});
  const bytes = Uint8ClampedArray.from(atob(shown.data),
    (character) => character.charCodeAt(0));
  canvas.getContext('2d').putImageData(
    new ImageData(bytes, shown.width, shown.height), 0, 0);
  return canvas;
}

function curvesOf(shown) {
  const rows = shown.data.flatMap((curve, number) =>
    curve.map((value, at) => ({at, value, curve: `${number + 1}`})));
  return chart('Curves of the input', {
    data: {values: rows}, height: 90, mark: {type: 'line', strokeWidth: 1.2},
    encoding: {
      x: {field: 'at', type: 'quantitative', title: null},
      y: {field: 'value', type: 'quantitative', title: null,
        scale: {zero: false}},
      color: {field: 'curve', type: 'nominal', legend: null}},
  });
}

function answerOf(answer) {
  const rows = answer.places.map((place, k) => ({cells: [whole(place),
    short(answer.float_model[k]), short(answer.file[k])]}));
  const verdict = answer.changed === null ? null : answer.changed
    ? element('p', {class: 'wrong'}, 'They decide differently.')
    : element('p', {class: 'fine'}, 'They decide alike.');
  return [table(`Answers, ${answer.name}`, [['entry', true], ['float', true],
    ['file', true]], rows), verdict];
}
