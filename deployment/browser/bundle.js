// What the page's and the extension's build share: the model folder's files, and onnxruntime's.

import { cp, mkdir, stat } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { FORMATS, formatsOf, readManifest } from "./src/manifest.js";

export const MODEL = resolve(process.env.TAGWRIGHT_MODEL ?? join(import.meta.dirname, "../../data/work/scifi/best"));
export const RUNTIME = join(import.meta.dirname, "node_modules/onnxruntime-web/dist");
const DESCRIPTION = ["tagwright.json", "config.json", "tokenizer.json", "tokenizer_config.json"];

/** The model's manifest, and the bytes of each of its formats. */
export async function readModel() {
  const manifest = await readManifest(MODEL);
  const sizes = {};
  for (const format of formatsOf(manifest)) sizes[format] = (await stat(join(MODEL, FORMATS[format].file))).size;
  return { manifest, sizes };
}

export async function copyModel(out, formats) {
  for (const name of [...DESCRIPTION, ...formats.map((format) => FORMATS[format].file)]) {
    await mkdir(dirname(join(out, name)), { recursive: true });
    await cp(join(MODEL, name), join(out, name));
  }
}

/** onnxruntime's WASM files: `builds` are "" for the plain one and ".asyncify" for the one with WebGPU. */
export async function copyRuntime(out, builds) {
  await mkdir(out, { recursive: true });
  for (const build of builds) {
    for (const ending of ["mjs", "wasm"]) {
      const name = `ort-wasm-simd-threaded${build}.${ending}`;
      await cp(join(RUNTIME, name), join(out, name));
    }
  }
}
