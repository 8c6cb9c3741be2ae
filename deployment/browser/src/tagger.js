// Tags texts with an exported model folder, in Node and in browsers. Nothing is fetched from anywhere but that folder.

import { AutoModel, AutoTokenizer, env, Tensor } from "@huggingface/transformers";
import { DEVICE, locate, prepare } from "#platform";
import { decide, probabilities } from "./decisions.js";
import { FORMATS, formatsOf, inputText, readManifest, TaggerError } from "./manifest.js";

const MAX_BATCH = 32; // texts
const MAX_BATCH_TOKENS = 2048; // padding included

env.allowRemoteModels = false;
env.allowLocalModels = true;
env.useBrowserCache = false; // the page has a service worker for that, the extension its own files

export class Tagger {
  #model;
  #tokenizer;
  #before; // the special tokens before and behind every text
  #behind;

  /**
   * Load a model folder: in Node a path, in a browser an address on the page's own site.
   *
   * `device` is "cpu" in Node; in browsers "wasm" (the default) or "webgpu". Browsers also take `runtime`, the address of the
   * folder with onnxruntime's WASM files, and `onProgress`, called with the number of bytes of the network that are there.
   */
  static async load(folder, { format = "int8", device = DEVICE, runtime, onProgress } = {}) {
    if (!(format in FORMATS)) throw new TaggerError(`unknown format "${format}"; there are ${Object.keys(FORMATS).join(", ")}`);
    const manifest = await readManifest(folder);
    const { file, dtype } = FORMATS[format];
    if (!formatsOf(manifest).includes(format)) {
      throw new TaggerError(`${folder}: has no ${file}; \`tagwright quantize ${manifest.task}\` makes it, or take another format`);
    }
    const place = locate(folder);
    env.fetch = prepare({ device, runtime, file, onProgress });
    try {
      const tokenizer = await AutoTokenizer.from_pretrained(place);
      return new Tagger(manifest, tokenizer, await AutoModel.from_pretrained(place, { dtype, device }));
    } catch (error) {
      throw new TaggerError(`${folder}: cannot be loaded as ${format} on ${device}. Is a file missing or damaged? Copy the whole `
        + `model folder again, or make it with \`tagwright quantize ${manifest.task} --force\`. (${error.message})`, { cause: error });
    }
  }

  constructor(manifest, tokenizer, model) {
    this.manifest = manifest;
    this.labels = manifest.labels;
    this.#tokenizer = tokenizer;
    this.#model = model;
    const content = tokenizer.encode("a", { add_special_tokens: false });
    const whole = tokenizer.encode("a");
    const start = whole.findIndex((_, index) => content.every((id, offset) => whole[index + offset] === id));
    this.#before = whole.slice(0, start);
    this.#behind = whole.slice(start + content.length);
  }

  /**
   * For each text its labels above their thresholds, best first, as {label, score}; of a multiclass model its one best.
   *
   * A text is a string, or an object with the model's fields (`manifest.fields`; a missing one counts as empty).
   */
  async tag(texts) {
    return (await this.scores(texts)).map((scores) => (
      decide(scores, this.manifest).given.map((index) => ({ label: this.labels[index], score: scores[index] }))));
  }

  /** The probability of every label: for each text a Float32Array in the order of `labels`. */
  async scores(texts) {
    if (!Array.isArray(texts)) throw new TypeError("texts must be an array of texts; wrap a single one: [text]");
    const ids = texts.map((text) => this.encode(text));
    const results = new Array(texts.length);
    for (const batch of batches(ids.map((row) => row.length))) {
      const logits = await this.#logits(batch.map((index) => ids[index]));
      batch.forEach((index, row) => { results[index] = probabilities(logits[row], this.manifest.kind); });
    }
    return results;
  }

  /** The numbers of the text's tokens, at most `manifest.max_length`; the closing special token stays. */
  encode(text) {
    const content = this.#tokenizer.encode(inputText(text, this.manifest), { add_special_tokens: false });
    const room = this.manifest.max_length - this.#before.length - this.#behind.length;
    return [...this.#before, ...content.slice(0, room), ...this.#behind];
  }

  /** Free the memory that the network holds, which in WASM no garbage collector does. */
  async dispose() {
    await this.#model.dispose();
  }

  async #logits(rows) {
    const longest = Math.max(...rows.map((row) => row.length));
    const shape = [rows.length, longest];
    const ids = new BigInt64Array(rows.length * longest).fill(BigInt(this.manifest.pad_id));
    const mask = new BigInt64Array(rows.length * longest);
    rows.forEach((row, number) => {
      ids.set(row.map(BigInt), number * longest);
      mask.fill(1n, number * longest, number * longest + row.length);
    });
    const { logits } = await this.#model({
      input_ids: new Tensor("int64", ids, shape), attention_mask: new Tensor("int64", mask, shape),
    });
    const width = this.labels.length;
    return rows.map((_, row) => logits.data.slice(row * width, (row + 1) * width));
  }
}

/** Indices of texts in batches of like length, so that little is padding; shortest first, the last of a batch its longest. */
export function* batches(lengths) {
  let batch = [];
  for (const index of [...lengths.keys()].sort((a, b) => lengths[a] - lengths[b])) {
    if (batch.length && (batch.length === MAX_BATCH || (batch.length + 1) * lengths[index] > MAX_BATCH_TOKENS)) {
      yield batch;
      batch = [];
    }
    batch.push(index);
  }
  if (batch.length) yield batch;
}
