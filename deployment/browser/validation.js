// `npm run validation -- --model FOLDER --reference FILE`: how far Node agrees with PyTorch in fp32, per format and per label.
// deployment/browser/reference.py writes the reference.

import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { decide } from "./src/decisions.js";
import { FORMATS, formatsOf, readManifest, TaggerError } from "./src/manifest.js";
import { Tagger } from "./src/tagger.js";

// The least share of equal decisions (text × label) and of equal tag sets (texts) that a format may have.
const BARS = {
  fp32: { decisions: 1, sets: 1 },
  int8: { decisions: 0.999, sets: 0.97 },
  q4: { decisions: 0.997, sets: 0 },
};
const USAGE = `usage: npm run validation -- --model FOLDER --reference FILE
  --format int8,q4,fp32    which formats (default: those that the model folder has)
  --bar int8=0.999,0.97    another bar for a format: share of equal decisions, of equal tag sets; may be repeated
  --worst 10               how many labels to list, those with most decisions that differ first`;

async function main() {
  const { values } = parseArgs({
    options: {
      model: { type: "string" }, reference: { type: "string" }, format: { type: "string" },
      bar: { type: "string", multiple: true, default: [] }, worst: { type: "string", default: "10" },
    },
  });
  if (!values.model || !values.reference) throw new TaggerError(USAGE);
  const bars = { ...BARS, ...Object.fromEntries(values.bar.map(parseBar)) };
  const rows = parseReference(await readFile(values.reference, "utf8"), values.reference);
  let isBelow = false;
  for (const format of values.format?.split(",") ?? formatsOf(await readManifest(values.model))) {
    const tagger = await Tagger.load(values.model, { format });
    checkWidths(rows, tagger.labels.length, values.reference);
    const started = performance.now();
    const scores = [];
    for (const { text } of rows) scores.push(...await tagger.scores([text])); // singly, as a page does; a batch moves int8 a little
    const milliseconds = (performance.now() - started) / rows.length;
    await tagger.dispose();
    const found = compare(rows.map((row) => row.scores), scores, tagger.manifest);
    isBelow = report(format, found, bars[format], milliseconds, Number(values.worst)) || isBelow;
  }
  if (isBelow) process.exitCode = 1;
}

function parseBar(text) {
  const [, format, decisions, sets] = text.match(/^(\w+)=([\d.]+)(?:,([\d.]+))?$/) ?? [];
  if (!(format in FORMATS)) throw new TaggerError(`--bar ${text}: not of the form int8=0.999,0.97\n${USAGE}`);
  return [format, { decisions: Number(decisions), sets: Number(sets ?? BARS[format].sets) }];
}

/** The rows of a reference file; an error that names the line where one is damaged. */
export function parseReference(content, name) {
  const lines = content.split("\n");
  if (lines.at(-1) === "") lines.pop();
  if (!lines.length) throw new TaggerError(`${name}: no rows; deployment/browser/reference.py writes them`);
  return lines.map((line, index) => {
    const place = `${name}, line ${index + 1}`;
    let row;
    try {
      row = JSON.parse(line);
    } catch (error) {
      throw new TaggerError(`${place}: no JSON (${error.message}); write the file again with deployment/browser/reference.py`);
    }
    const isText = typeof row?.text === "string" || (typeof row?.text === "object" && row.text !== null);
    if (!isText || !Array.isArray(row.scores) || !row.scores.every((score) => score >= 0 && score <= 1)) {
      throw new TaggerError(`${place}: needs "text", a string or fields, and "scores", numbers from 0 to 1`);
    }
    return row;
  });
}

function checkWidths(rows, labels, name) {
  const line = 1 + rows.findIndex((row) => row.scores.length !== labels);
  if (line) {
    throw new TaggerError(`${name}, line ${line}: ${rows[line - 1].scores.length} scores, but the model has ${labels} labels; `
      + "write the file again with deployment/browser/reference.py and this model");
  }
}

/** How two lists of scores agree: shares of equal decisions and tag sets, differences of scores, and decisions per label. */
export function compare(expected, found, manifest) {
  const labels = manifest.labels.map((label) => ({ label, expected: 0, found: 0, differ: 0 }));
  let sets = 0, sum = 0, worst = 0;
  expected.forEach((row, number) => {
    const [before, after] = [row, found[number]].map((scores) => new Set(decide(Float32Array.from(scores), manifest).given));
    let isEqual = true;
    labels.forEach((label, index) => {
      const difference = Math.abs(row[index] - found[number][index]);
      sum += difference;
      worst = Math.max(worst, difference);
      label.expected += before.has(index);
      label.found += after.has(index);
      if (before.has(index) !== after.has(index)) {
        label.differ += 1;
        isEqual = false;
      }
    });
    sets += isEqual;
  });
  const pairs = expected.length * labels.length;
  const differ = labels.reduce((total, label) => total + label.differ, 0);
  return { rows: expected.length, decisions: 1 - differ / pairs, sets: sets / expected.length, mean: sum / pairs, worst, labels };
}

/** Prints how a format fares; returns whether it is below its bar. */
function report(format, found, bar, milliseconds, worst) {
  const percent = (share) => `${(100 * share).toFixed(3)} %`;
  const isBelow = found.decisions < bar.decisions || found.sets < bar.sets;
  console.log(`${format}: ${isBelow ? "BELOW ITS BAR" : "ok"}, ${found.rows} rows, ${milliseconds.toFixed(1)} ms a text`);
  console.log(`  equal decisions  ${percent(found.decisions)} (at least ${percent(bar.decisions)})`);
  console.log(`  equal tag sets   ${percent(found.sets)} (at least ${percent(bar.sets)})`);
  console.log(`  scores differ by ${found.mean.toExponential(1)} on average, ${found.worst.toExponential(1)} at worst`);
  const differing = found.labels.filter((label) => label.differ).sort((a, b) => b.differ - a.differ).slice(0, worst);
  for (const { label, expected, found: given, differ } of differing) {
    console.log(`  ${label}: ${differ} decisions differ; PyTorch gives it to ${expected} rows, ${format} to ${given}`);
  }
  return isBelow;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await main().catch((error) => {
    console.error(`error: ${error.message}`);
    process.exitCode = 1;
  });
}
