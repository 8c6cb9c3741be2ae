// Keeps the model off the thread that draws the page. Requests are {id, method, argument}, answers {id, result} or {id, error}.

import { decide } from "../src/decisions.js";
import { Tagger } from "../src/tagger.js";

const NEXT_BEST = 4; // labels not given that are shown greyed
let tagger;

const methods = {
  async load({ folder, ...options }) {
    await tagger?.dispose();
    tagger = undefined;
    tagger = await Tagger.load(folder, { ...options, onProgress: (loaded) => self.postMessage({ loaded }) });
    await tagger.scores([""]); // the first run sets things up, and would make the first text look slow
    return tagger.manifest;
  },

  async tag(text) {
    const started = performance.now();
    const [scores] = await tagger.scores([text]);
    const milliseconds = performance.now() - started;
    const { given, others } = decide(scores, tagger.manifest);
    const { labels, thresholds, kind } = tagger.manifest;
    const named = (index) => (
      { label: labels[index], score: scores[index], threshold: kind === "multiclass" ? undefined : thresholds[index] });
    return { given: given.map(named), others: others.slice(0, NEXT_BEST).map(named), milliseconds };
  },
};

self.onmessage = async ({ data: { id, method, argument } }) => {
  try {
    self.postMessage({ id, result: await methods[method](argument) });
  } catch (error) {
    self.postMessage({ id, error: error.message });
  }
};
