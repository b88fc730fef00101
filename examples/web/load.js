import {getGlobalLiteRtPromise, loadAndCompile, loadLiteRt, Tensor} from '@litertjs/core';

/** Loads a file for 'wasm' or 'webgpu'; `run` takes pixels, and gives scores. */
export async function load(url, accelerator = 'wasm') {
  await (getGlobalLiteRtPromise() ??
         loadLiteRt('node_modules/@litertjs/core/wasm/'));
  const file = new Uint8Array(await (await fetch(url)).arrayBuffer());
  const model = await loadAndCompile(file, {accelerator});
  const [{shape}] = model.getInputDetails();
  const run = async (pixels) => {
    const input = new Tensor(pixels, shape);
    const [output] = await model.run([input]);
    const scores = await output.data();
    input.delete();
    output.delete();
    return scores;
  };
  return {run, shape, bytes: file.length, whole: model.isFullyAccelerated};
}
