// What differs between Node and browsers, for Node: a model folder is a path, and onnxruntime reads it by itself.

import { readFile } from "node:fs/promises";
import { join, resolve } from "node:path";

export const DEVICE = "cpu";

export function locate(folder) {
  return resolve(folder);
}

/** A JSON file of the model folder, null where there is none. */
export async function readJson(folder, name) {
  try {
    return JSON.parse(await readFile(join(folder, name), "utf8"));
  } catch (error) {
    if (error.code === "ENOENT" || error.code === "ENOTDIR") return null;
    throw error;
  }
}

export function prepare() {
  return fetch;
}
