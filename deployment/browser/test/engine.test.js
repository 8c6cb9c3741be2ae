import assert from "node:assert/strict";
import { mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { before, test } from "node:test";
import { chooseEngine } from "../extension/engine.js";

const MANIFEST = {
  format: 1, kind: "multilabel", labels: ["b", "a"], thresholds: [0.5, 0.5], fields: ["title", "body"], template: "{title}\n\n{body}",
};
const HUB_MODEL = "someone/books";
let folder;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), "engine-"));
  await writeFile(join(folder, "tagwright.json"), JSON.stringify(MANIFEST));
});

/** A Firefox that answers as its engine does, and keeps what it was asked. */
function firefox(asked = []) {
  return {
    asked,
    trial: {
      ml: {
        createEngine: async (request) => { asked.push(request); },
        runEngine: async (request) => {
          asked.push(request);
          return { output: [[{ label: "a", score: 0.9 }, { label: "b", score: 0.2 }]], metrics: {} };
        },
      },
    },
  };
}

const loadPacked = async () => ({ manifest: MANIFEST, scores: async () => [Float32Array.of(0.1, 0.2)] });
const neverLoaded = () => assert.fail("the packed model was loaded");

test("Firefox's own engine is used where it is there and the model is published", async () => {
  const api = firefox();
  const engine = await chooseEngine(api, HUB_MODEL, folder, neverLoaded);
  assert.equal(engine.name, "Firefox");
  assert.deepEqual(await engine.scores({ title: " a  title " }), Float32Array.of(0.2, 0.9)); // in the order of the labels
  assert.equal(api.asked[0].modelId, HUB_MODEL);
  assert.deepEqual(api.asked[1], { args: [["a title"]], options: { top_k: null } });
});

test("an engine that the last background page left is used again", async () => {
  const api = firefox();
  api.trial.ml.createEngine = async () => { throw new Error("Engine already created"); };
  assert.equal((await chooseEngine(api, HUB_MODEL, folder, neverLoaded)).name, "Firefox");
});

for (const [what, api, hubModel] of [
  ["in Chromium", undefined, HUB_MODEL],
  ["without the permission", {}, HUB_MODEL],
  ["where the model is not published", firefox(), ""],
]) {
  test(`${what} the packed model is used`, async () => {
    const engine = await chooseEngine(api, hubModel, folder, loadPacked);
    assert.equal(engine.name, "WASM");
    assert.deepEqual(await engine.scores("a"), Float32Array.of(0.1, 0.2));
    assert.deepEqual(api?.asked ?? [], []);
  });
}

test("where Firefox refuses the model the packed one is used", async (context) => {
  context.mock.method(console, "warn", () => {});
  const api = firefox();
  api.trial.ml.createEngine = async () => { throw new Error("Trial ML API is disabled"); };
  assert.equal((await chooseEngine(api, HUB_MODEL, folder, loadPacked)).name, "WASM");
});
