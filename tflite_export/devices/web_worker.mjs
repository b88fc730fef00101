// Runs a TFLite file in LiteRT.js on Node, as devices/web.py asks for it:
//   node web_worker.mjs PACKAGES FOLDER
// FOLDER has request.json, model.tflite and in.bin; answer.json and out.bin
// come there.
import {readFileSync, writeFileSync} from 'node:fs';
import {createRequire} from 'node:module';
import path from 'node:path';
import {pathToFileURL} from 'node:url';
import v8 from 'node:v8';
import vm from 'node:vm';

// LiteRT.js is made for browsers: what it takes from one.
globalThis.self = globalThis;
globalThis.GPUBuffer ??= class {};
globalThis.importScripts = (file) => {
  globalThis.require = createRequire(file);
  globalThis.__filename = file;
  globalThis.__dirname = path.dirname(file);
  vm.runInThisContext(readFileSync(file, 'utf8'), {filename: file});
};
const TYPES = {
  float32: Float32Array,
  int32: Int32Array,
  uint8: Uint8Array,
};

async function run(litert, script, model, request, input) {
  await litert.loadLiteRt(script);
  const started = performance.now();
  const compiled = await litert.loadAndCompile(model, {accelerator: 'wasm'});
  const loaded = performance.now() - started;
  const outputs = [];
  let offset = 0;
  let least = Infinity;
  for (let batch = 0; batch < request.batches; ++batch) {
    const tensors = {};
    for (const {names, dtype, shape, bytes} of request.inputs) {
      const data = new TYPES[dtype](input.slice(offset, offset + bytes));
      offset += bytes;
      for (const name of names) {
        tensors[name] = new litert.Tensor(data, shape);
      }
    }
    const begun = performance.now();
    const results = await compiled.run(tensors);
    least = Math.min(least, performance.now() - begun);
    for (const name of request.outputs) {
      outputs.push(await results[name].data());
    }
    for (const tensor of Object.values(tensors)) tensor.delete();
    for (const tensor of Object.values(results)) tensor.delete();
  }
  const whole = compiled.isFullyAccelerated;
  compiled.delete();
  litert.unloadLiteRt();
  return {outputs, whole, loaded, least};
}

const [packages, folder] = process.argv.slice(2);
const request = JSON.parse(
    readFileSync(path.join(folder, 'request.json'), 'utf8'));
const input = new Uint8Array(readFileSync(path.join(folder, 'in.bin'))).buffer;
const model = new Uint8Array(
    readFileSync(path.join(folder, 'model.tflite')));
const core = path.join(packages, 'node_modules', '@litertjs', 'core');
const litert = await import(
    pathToFileURL(path.join(core, 'dist', 'index.js')).href);
if (!(await litert.supportsFeature('relaxedSimd'))) {
  // Before Node 21 there is a switch for what browsers have since 2023.
  v8.setFlagsFromString('--experimental-wasm-relaxed-simd');
}
const answer = {kernels: {}};
const parts = [];
for (const [name, file] of Object.entries(request.kernels)) {
  try {
    const {outputs, whole, loaded, least} = await run(
        litert, path.join(core, 'wasm', file), model, request, input);
    answer.kernels[name] = {
      whole, loaded, least, bytes: outputs.map((array) => array.byteLength),
    };
    for (const array of outputs) {
      parts.push(Buffer.from(array.buffer, array.byteOffset, array.byteLength));
    }
  } catch (error) {
    answer.reason = `${name}: ${error?.message ?? error}`;
    break;
  }
}
writeFileSync(path.join(folder, 'out.bin'), Buffer.concat(parts));
writeFileSync(path.join(folder, 'answer.json'), JSON.stringify(answer));
process.exit(0);
