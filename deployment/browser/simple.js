// `npm run simple [-- MODEL_FOLDER]`: tags a few texts and prints what they get.

import { Tagger } from "./src/tagger.js";

const TEXTS = [
  "Who built the first robot?",
  "Which planet do the sandworms live on?",
  "Why do time travellers never meet themselves?",
  "How long can I keep a soup in the fridge?",
];

async function main() {
  const folder = process.argv[2] ?? process.env.TAGWRIGHT_MODEL ?? "../../data/work/scifi/best";
  const tagger = await Tagger.load(folder);
  const { examples, fields } = tagger.manifest;
  const texts = [...examples, ...TEXTS];
  const started = performance.now();
  const found = await tagger.tag(texts);
  const milliseconds = performance.now() - started;
  const titles = texts.map((text) => (typeof text === "string" ? text : text[fields[0]]));
  const width = Math.min(60, Math.max(...titles.map((title) => title.length)));
  titles.forEach((title, row) => {
    const tags = found[row].map(({ label, score }) => `${label} ${score.toFixed(2)}`).join(", ");
    console.log(`${title.slice(0, width).padEnd(width)}  ${tags || "(no tag)"}`);
  });
  console.log(`\n${texts.length} texts in ${milliseconds.toFixed(1)} ms`);
}

await main().catch((error) => {
  console.error(`error: ${error.message}`);
  process.exitCode = 1;
});
