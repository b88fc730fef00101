// Where a file goes.

function targetsOf(side) {
  const counts = (pairs) => pairs.map(([name, count]) =>
    count > 1 ? `${name} ×${count}` : name).join(', ') || '–';
  return element('div', {}, table('Targets', [['target'], ['runs'],
    ['kernels'], ['accelerated'], ['falls back or is refused'],
    ['median ms', true]], side.targets.map((target) => ({cells: [
    element('span', {title: target.summary}, target.name),
    element('span', {class: target.runs ? 'fine' : 'wrong'},
      target.runs ? 'yes' : 'no'),
    target.kernels || '–', counts(target.accelerated), counts(target.left),
    short(target.latency_ms)]}))),
  side.targets.filter((target) => target.findings.length).map((target) =>
    folded(`What stands against ${target.name}`, element('ul', {},
      target.findings.map((text) => element('li', {}, text))))));
}
