// Elements made from data. Text is only ever set as text: nothing that stands
// in a file becomes markup.

const page = JSON.parse(document.getElementById('data').textContent);
const sides = page.sides;

// An element: attributes, listeners as functions ('onclick'), children.
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === 'function') made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? '' : String(value));
  }
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined) continue;
    made.append(typeof child === 'object' ? child : String(child));
  }
  return made;
}

const known = (value) => value !== null && value !== undefined;
const whole = (value) => known(value) ? value.toLocaleString('en') : '–';

// A number as a person reads it: three digits that count.
function short(value) {
  if (!known(value)) return '–';
  if (value === 0) return '0';
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-3) return value.toExponential(2);
  return String(Number(value.toPrecision(3)));
}

function percent(share) {
  if (!known(share)) return '–';
  return `${Number((100 * share).toPrecision(3))} %`;
}

const decibels = (value) => known(value) ? `${value.toFixed(1)} dB` : '–';
const width = (layer) => layer.type.startsWith('FLOAT') ? 'float'
  : `${layer.bits} bits`;

function facts(rows) {
  return element('dl', {class: 'facts'}, rows.map(([what, figure]) =>
    element('div', {}, element('dt', {}, what), element('dd', {}, figure))));
}

// A table; `columns` are [head, is a number]. A row is {cells, ...attributes}.
function table(caption, columns, rows) {
  const cell = (value, k) => element('td',
    {class: columns[k][1] ? 'number' : null}, value);
  return element('div', {class: 'table', tabindex: 0, role: 'region',
    'aria-label': caption},
    element('table', {}, element('caption', {}, caption),
      element('thead', {}, element('tr', {}, columns.map(([head, number]) =>
        element('th', {scope: 'col', class: number ? 'number' : null}, head)))),
      element('tbody', {}, rows.map(({cells, ...attributes}) =>
        element('tr', attributes, cells.map(cell))))));
}

function findings(side, section) {
  const found = side.findings[section] || [];
  if (!found.length) return null;
  return element('ul', {class: 'findings'},
    found.map((text) => element('li', {}, text)));
}

function folded(summary, ...children) {
  return element('details', {}, element('summary', {}, summary), ...children);
}
