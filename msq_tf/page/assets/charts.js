// Charts by Vega-Lite, in colours of the page: they are variables of its style,
// so that a change of scheme, or paper, needs nothing drawn again.

const ROOM = 14;  // pixels that a bar takes at least
const drawn = new Map();  // specification and click of each chart's element

const CONFIG = {
  background: null,
  font: 'system-ui, sans-serif',
  view: {stroke: null},
  axis: {
    labelColor: 'var(--soft)', titleColor: 'var(--soft)',
    gridColor: 'var(--line)', domainColor: 'var(--line)',
    tickColor: 'var(--line)', titleFontWeight: 'normal', labelLimit: 110,
  },
  legend: {labelColor: 'var(--ink)', titleColor: 'var(--soft)',
    labelLimit: 200, orient: 'top', titleFontWeight: 'normal'},
  title: {color: 'var(--ink)', anchor: 'start', fontSize: 13},
  header: {labelColor: 'var(--ink)', titleColor: 'var(--soft)'},
  text: {color: 'var(--ink)'},
};

const WIDTHS = {
  domain: ['2 bits', '3 bits', '4 bits', '5 bits', '6 bits', '7 bits',
    '8 bits', 'float'],
  range: ['var(--b2)', 'var(--b2)', 'var(--b4)', 'var(--b4)', 'var(--b4)',
    'var(--b8)', 'var(--b8)', 'var(--float)'],
};

// A place for a chart; `count` bars ask for room, `click` takes a datum.
function chart(label, spec, {count = 0, click = null} = {}) {
  const place = element('div', {class: 'chart', tabindex: 0, role: 'group',
    'aria-label': label});
  drawn.set(place, {spec, count, click});
  return place;
}

function draw(place) {
  const {spec, count, click} = drawn.get(place);
  const space = Math.max(200, place.clientWidth - 4);
  if (!place.clientWidth || place.dataset.space === String(space)) return;
  place.dataset.space = space;
  const sized = {
    width: Math.max(space, ROOM * count), height: 190,
    autosize: {type: 'fit', contains: 'padding'}, ...spec, config: CONFIG,
  };
  vegaEmbed(place, sized, {actions: false, mode: 'vega-lite',
    renderer: 'svg', ast: true})
    .then(({view}) => {
      place.dataset.ready = 'yes';
      if (click) view.addEventListener('click', (event, item) => {
        if (item && item.datum) click(item.datum);
      });
    })
    .catch((error) => {
      console.error(error);
      place.textContent = 'This chart could not be drawn; the table has the '
        + 'same figures.';
    });
}

// Draws what is in an element that stands in the page by now.
function drawAll(within = document) {
  for (const place of within.querySelectorAll('.chart')) draw(place);
}

// Lets go of the charts of an element that is about to be emptied.
function clear(within) {
  for (const place of within.querySelectorAll('.chart')) drawn.delete(place);
  within.replaceChildren();
}

let waiting = 0;
window.addEventListener('resize', () => {
  clearTimeout(waiting);
  waiting = setTimeout(drawAll, 200);
});
document.addEventListener('toggle', (event) => drawAll(event.target), true);

// An axis of layers or tensors in their order, named where there is room.
// Names are data here as everywhere, and in no expression.
function inOrder(names, title) {
  const few = names.length <= 24;
  return {field: 'at', type: 'ordinal', sort: {field: 'place', op: 'min'},
    axis: {title: few ? null : title, labels: few, ticks: few,
      labelAngle: -40}};
}

// What stands at a place of that axis: the end of a name, which tells it apart.
function at(names, place) {
  const name = names[place];
  return `${place + 1} ${name.length <= 16 ? name : '…' + name.slice(-15)}`;
}
