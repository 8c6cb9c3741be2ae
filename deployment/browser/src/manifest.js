// What a model folder says of itself: tagwright.json, as tagwright/bundle.py writes it.

import { locate, readJson } from "#platform";
import { compose, tidy } from "./text.js";

/** The formats that a model folder may have: their files, and what transformers.js calls them. */
export const FORMATS = {
  int8: { file: "onnx/model_quantized.onnx", dtype: "q8" },
  q4: { file: "onnx/model_q4.onnx", dtype: "q4" },
  fp32: { file: "onnx/model.onnx", dtype: "fp32" },
};
const MANIFEST_FORMAT = 1;

/** What went wrong and what to do about it. */
export class TaggerError extends Error {}

export async function readManifest(folder) {
  const manifest = await readJson(locate(folder), "tagwright.json").catch((error) => {
    throw new TaggerError(`${folder}/tagwright.json: damaged; copy the model folder again (${error.message})`);
  });
  if (manifest === null) {
    throw new TaggerError(`${folder}: no model folder (it has no tagwright.json); \`tagwright quantize\` makes one`);
  }
  if (manifest.format !== MANIFEST_FORMAT) {
    throw new TaggerError(`${folder}/tagwright.json: format ${manifest.format}, this version reads ${MANIFEST_FORMAT}`);
  }
  return manifest;
}

/** The formats that the model folder has. */
export function formatsOf(manifest) {
  return Object.keys(FORMATS).filter((format) => FORMATS[format].file in manifest.files);
}

/** What the model reads of a text: a string, or an object with the model's fields (a missing one counts as empty). */
export function inputText(text, { fields, template }) {
  if (typeof text === "string") return tidy(text);
  const unknown = Object.keys(text).filter((name) => !fields.includes(name));
  if (unknown.length) throw new TaggerError(`unknown fields ${unknown.join(", ")}; this model reads ${fields.join(", ")}`);
  return compose(template, Object.fromEntries(fields.map((name) => [name, text[name] || ""])));
}
