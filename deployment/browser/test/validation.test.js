import assert from "node:assert/strict";
import { test } from "node:test";
import { compare, parseReference } from "../validation.js";

const ROW = '{"text": "a", "scores": [0.9, 0.1]}';

test("rows are strings or fields with scores", () => {
  assert.equal(parseReference(`${ROW}\n{"text": {"title": "b"}, "scores": [0, 1]}\n`, "rows").length, 2);
});

for (const [what, line] of Object.entries({
  "half a line": '{"text": "a", "sco',
  "no text": '{"scores": [0.9, 0.1]}',
  "scores that are no probabilities": '{"text": "a", "scores": [0.9, 7]}',
  "a blank line": "",
  "NaN": '{"text": "a", "scores": [NaN, 0.1]}',
})) {
  test(`${what}: an error that names the line`, () => {
    assert.throws(() => parseReference(`${ROW}\n${line}\n${ROW}\n`, "rows"), /rows, line 2: /);
  });
}

test("an empty file is an error", () => assert.throws(() => parseReference("", "rows"), /no rows/));

test("agreement is counted over decisions, tag sets and labels", () => {
  const manifest = { kind: "multilabel", thresholds: [0.5, 0.5], labels: ["a", "b"] };
  const found = compare([[0.9, 0.1], [0.9, 0.4]], [Float32Array.of(0.9, 0.1), Float32Array.of(0.9, 0.6)], manifest);
  assert.deepEqual([found.decisions, found.sets], [0.75, 0.5]);
  assert.deepEqual(found.labels[1], { label: "b", expected: 0, found: 1, differ: 1 });
  assert.ok(Math.abs(found.worst - 0.2) < 1e-6 && Math.abs(found.mean - 0.05) < 1e-6);
});
