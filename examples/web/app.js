// The page: a picture goes in, a class comes out.
import {isWebGPUSupported} from '@litertjs/core';

import {load} from './load.js';

const $ = (id) => document.getElementById(id);
const canvas = $('picture');
const pen = canvas.getContext('2d', {willReadFrequently: true});
const about = await (await fetch('model.json')).json();
let model;

/** The picture as the model was trained on it: [height, width, channels]. */
function pixels() {
  const [, height, width, channels] = model.shape;
  const small = new OffscreenCanvas(width, height).getContext('2d');
  small.imageSmoothingQuality = 'high';
  small.drawImage(canvas.source ?? canvas, 0, 0, width, height);
  const {data} = small.getImageData(0, 0, width, height);
  const values = new Float32Array(height * width * channels);
  for (let i = 0; i < height * width; ++i) {
    const rgb = data.subarray(4 * i, 4 * i + 3);
    const grey = Math.round(0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]);
    for (let c = 0; c < channels; ++c) {
      const value = channels === 1 ? grey : rgb[c];
      values[channels * i + c] = about.scale * value + about.offset;
    }
  }
  return values;
}

async function classify() {
  const input = pixels();
  const begun = performance.now();
  const scores = await model.run(input);
  const taken = performance.now() - begun;
  const order = [...scores.keys()].sort((a, b) => scores[b] - scores[a]);
  const name = (k) => about.labels[k] ?? `class ${k}`;
  $('class').textContent = name(order[0]);
  $('scores').textContent = order.slice(0, 3)
      .map((k) => `${name(k)} ${scores[k].toFixed(2)}`).join(', ');
  $('time').textContent = taken.toFixed(1);
  // For who looks at all of them.
  document.body.dataset.scores = JSON.stringify([...scores]);
  document.body.dataset.runs = 1 + Number(document.body.dataset.runs ?? 0);
}

let waiting = Promise.resolve();
/** One after the other, whatever happens on the page meanwhile. */
function soon(work) {
  waiting = waiting.then(work).then(
      () => $('error').textContent = '',
      (error) => $('error').textContent = String(error?.message ?? error));
  return waiting;
}

async function start() {
  model = await load(about.file, $('accelerator').value);
  $('bytes').textContent = model.bytes.toLocaleString('en');
  $('whole').textContent =
      model.whole ? 'all on the accelerator' : 'some on builtin kernels';
  await classify();
}

async function show(file) {
  const picture = await createImageBitmap(file);
  canvas.source = picture;
  pen.drawImage(picture, 0, 0, canvas.width, canvas.height);
  await classify();
}

function clear() {
  canvas.source = undefined;
  pen.fillStyle = '#000';
  pen.fillRect(0, 0, canvas.width, canvas.height);
}

canvas.onpointerdown = (event) => {
  canvas.setPointerCapture(event.pointerId);
  canvas.source = undefined;
  pen.strokeStyle = '#fff';
  pen.lineWidth = 22;
  pen.lineCap = pen.lineJoin = 'round';
  pen.beginPath();
  pen.moveTo(event.offsetX, event.offsetY);
};
canvas.onpointermove = (event) => {
  if (!event.buttons) return;
  pen.lineTo(event.offsetX, event.offsetY);
  pen.stroke();
};
canvas.onpointerup = () => soon(classify);
canvas.ondragover = (event) => {
  event.preventDefault();
  canvas.classList.add('over');
};
canvas.ondragleave = () => canvas.classList.remove('over');
canvas.ondrop = (event) => {
  event.preventDefault();
  canvas.classList.remove('over');
  const [file] = event.dataTransfer.files;
  if (file) soon(() => show(file));
};
$('file').onchange = (event) => {
  const [file] = event.target.files;
  if (file) soon(() => show(file));
};
$('clear').onclick = () => {
  clear();
  soon(classify);
};
$('accelerator').onchange = () => soon(start);

clear();
if (isWebGPUSupported() && await navigator.gpu.requestAdapter()) {
  $('accelerator').querySelector('[value=webgpu]').disabled = false;
}
soon(start);
