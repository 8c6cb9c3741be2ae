// For the parity test: `node test/scores.js MODEL_FOLDER FORMAT` reads a JSON list of texts and writes their token numbers,
// scores and tags.

import { text } from "node:stream/consumers";
import { Tagger } from "../src/tagger.js";

const [folder, format] = process.argv.slice(2);
const texts = JSON.parse(await text(process.stdin));
const tagger = await Tagger.load(folder, { format });
const scores = (await tagger.scores(texts)).map((row) => [...row]);
process.stdout.write(JSON.stringify({ ids: texts.map((item) => tagger.encode(item)), scores, tags: await tagger.tag(texts) }));
