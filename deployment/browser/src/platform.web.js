// What differs between Node and browsers, for browsers: a model folder is an address, and onnxruntime is a WASM file.

import { env } from "@huggingface/transformers";

export const DEVICE = "wasm";
// The build with WebGPU is twice as large, so it is loaded only where it is used.
const RUNTIMES = { wasm: "ort-wasm-simd-threaded", webgpu: "ort-wasm-simd-threaded.asyncify" };

/** transformers.js takes an address with a host for a hub's; a path is what it loads as it is. */
export function locate(folder) {
  const url = new URL(folder, self.location.href);
  if (url.origin !== self.location.origin) {
    throw new Error(`${url}: the model folder must lie on the page's own site (${self.location.origin}); copy it there`);
  }
  return url.pathname.replace(/\/$/, "");
}

/** A JSON file of the model folder, null where there is none. */
export async function readJson(folder, name) {
  const response = await fetch(`${folder}/${name}`);
  return response.ok ? response.json() : null;
}

/** Sets onnxruntime up and gives the `fetch` to load the model with. */
export function prepare({ device, runtime = "/ort/", file, onProgress }) {
  const base = new URL(runtime, self.location.href);
  env.useWasmCache = false;
  env.backends.onnx.wasm.wasmPaths = {
    mjs: new URL(`${RUNTIMES[device]}.mjs`, base).href, wasm: new URL(`${RUNTIMES[device]}.wasm`, base).href,
  };
  return async (url, options) => {
    const response = await fetch(url, options);
    return onProgress && response.ok && String(url).endsWith(file) ? counted(response, onProgress) : response;
  };
}

function counted(response, onProgress) {
  let loaded = 0;
  const counter = new TransformStream({
    transform(chunk, controller) {
      loaded += chunk.byteLength;
      onProgress(loaded);
      controller.enqueue(chunk);
    },
  });
  return new Response(response.body.pipeThrough(counter), response);
}
