import assert from "node:assert/strict";
import { mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { batches, Tagger } from "../src/tagger.js";

async function folderWith(manifest) {
  const folder = await mkdtemp(join(tmpdir(), "tagger-"));
  await writeFile(join(folder, "tagwright.json"), manifest);
  return folder;
}

const manifest = (changes) => JSON.stringify({ format: 1, task: "books", files: {}, labels: [], ...changes });

test("batches hold texts of like length, at most 32 texts and 2,048 tokens with padding", () => {
  const lengths = Array.from({ length: 100 }, (_, index) => (index * 37) % 256 + 2);
  const found = [...batches(lengths)];
  assert.deepEqual(found.flat().sort((a, b) => a - b), [...lengths.keys()]);
  for (const batch of found) {
    assert.ok(batch.length <= 32 && batch.length * lengths[batch.at(-1)] <= 2048);
    assert.equal(lengths[batch.at(-1)], Math.max(...batch.map((index) => lengths[index])));
  }
});

test("a text longer than a batch may be still gets one", () => assert.deepEqual([...batches([5000])], [[0]]));

test("a folder without a model is refused with what makes one", async () => {
  await assert.rejects(Tagger.load("/nowhere"), /no model folder .*tagwright quantize/);
});

test("a damaged manifest is refused", async () => {
  await assert.rejects(Tagger.load(await folderWith('{"format": ')), /damaged; copy the model folder again/);
});

test("a manifest of another version is refused", async () => {
  await assert.rejects(Tagger.load(await folderWith(manifest({ format: 2 }))), /format 2, this version reads 1/);
});

test("a format that the folder lacks is refused with what makes it", async () => {
  await assert.rejects(Tagger.load(await folderWith(manifest()), { format: "q4" }), /has no onnx\/model_q4.onnx; `tagwright quantize books`/);
});

test("an unknown format is refused with those that there are", async () => {
  await assert.rejects(Tagger.load("/nowhere", { format: "int3" }), /unknown format "int3"; there are int8, q4, fp32/);
});

test("a missing file of the network is an error that says what to do", async () => {
  const folder = await folderWith(manifest({ files: { "onnx/model_quantized.onnx": "" } }));
  await assert.rejects(Tagger.load(folder), /Copy the whole model folder again/);
});
