// For the parity test: `node test/scores.js MODEL_FOLDER FORMAT` reads a JSON list of texts and writes what the model reads of
// them, their token numbers, scores and tags.

import { text } from "node:stream/consumers";
import { inputText } from "../src/manifest.js";
import { Tagger } from "../src/tagger.js";

const [folder, format] = process.argv.slice(2);
const texts = JSON.parse(await text(process.stdin));
const tagger = await Tagger.load(folder, { format });
process.stdout.write(JSON.stringify({
  texts: texts.map((item) => inputText(item, tagger.manifest)),
  ids: texts.map((item) => tagger.encode(item)),
  scores: (await tagger.scores(texts)).map((row) => [...row]),
  tags: await tagger.tag(texts),
}));
