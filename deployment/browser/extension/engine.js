// What computes the scores: Firefox's own engine where it can be had and the model is published, else the packed model in WASM.

import { decide } from "../src/decisions.js";
import { inputText, readManifest } from "../src/manifest.js";
import { Tagger } from "../src/tagger.js";

const MODEL = "/model";
const NEXT_BEST = 4;

/**
 * An engine for the model in `folder`: its name, the model's manifest, and `scores(text)`.
 *
 * `hubModel` is the model's name on the hub, "" where it has none. Firefox's engine also wants the permission trialML, which
 * the user gives in the popup, and two preferences that are off by default; it loads models of few publishers only. So whatever
 * it does not do, the packed model does.
 */
export async function chooseEngine(api, hubModel, folder, loadTagger) {
  if (hubModel && api?.trial?.ml) {
    try {
      return await firefoxEngine(api.trial.ml, hubModel, folder);
    } catch (error) {
      console.warn(`Firefox's own engine cannot be used: ${error.message}`);
    }
  }
  const tagger = await loadTagger(folder);
  return { name: "WASM", manifest: tagger.manifest, scores: async (text) => (await tagger.scores([text]))[0] };
}

async function firefoxEngine(ml, hubModel, folder) {
  const manifest = await readManifest(folder);
  try {
    await ml.createEngine({ modelHub: "huggingface", taskName: "text-classification", modelId: hubModel, dtype: "q8" });
  } catch (error) {
    if (!/already created/.test(error.message)) throw error; // it outlives the background page, which sleeps when idle
  }
  return {
    name: "Firefox",
    manifest,
    async scores(text) {
      const answer = await ml.runEngine({ args: [[inputText(text, manifest)]], options: { top_k: null } });
      const [row] = answer.output ?? answer;
      const byLabel = new Map(row.map(({ label, score }) => [label, score]));
      return Float32Array.from(manifest.labels, (label) => byLabel.get(label));
    },
  };
}

/** A function from a page's text to its tags and the next best; the model is loaded once, at the first text. */
export function tagging() {
  let engine;
  return async (text) => {
    engine ??= chooseEngine(globalThis.browser, __HUB_MODEL__, MODEL, (folder) => Tagger.load(folder, { format: __FORMAT__ }));
    const { name, manifest, scores } = await engine.catch((error) => {
      engine = undefined; // the next page tries again
      throw error;
    });
    const started = performance.now();
    const found = await scores({ [manifest.fields[0]]: text });
    const milliseconds = performance.now() - started;
    const { given, others } = decide(found, manifest);
    const named = (index) => ({ label: manifest.labels[index], score: found[index] });
    return { given: given.map(named), others: others.slice(0, NEXT_BEST).map(named), milliseconds, engine: name };
  };
}
