import assert from "node:assert/strict";
import { test } from "node:test";
import { decide, probabilities } from "../src/decisions.js";

test("multilabel: each label by its own threshold, best first", () => {
  const manifest = { kind: "multilabel", thresholds: [0.5, 0.5, 0.9, 0.1] };
  assert.deepEqual(decide(Float32Array.of(0.6, 0.7, 0.8, 0.05), manifest), { given: [1, 0], others: [2, 3] });
});

test("a score that is the threshold in float32 reaches it", () => {
  assert.deepEqual(decide(Float32Array.of(0.3), { kind: "multilabel", thresholds: [0.3] }).given, [0]);
  assert.ok(Math.fround(0.35) < 0.35);
  assert.deepEqual(decide(Float32Array.of(0.35), { kind: "multilabel", thresholds: [0.35] }).given, [0]);
});

test("multiclass: exactly one, the first of equal ones, whatever its score", () => {
  const manifest = { kind: "multiclass", thresholds: [0.5, 0.5, 0.5] };
  assert.deepEqual(decide(Float32Array.of(0.2, 0.4, 0.4), manifest), { given: [1], others: [2, 0] });
});

test("probabilities do not overflow", () => {
  assert.deepEqual([...probabilities(Float32Array.of(-200, 0, 200), "multilabel")], [0, 0.5, 1]);
  assert.deepEqual([...probabilities(Float32Array.of(1000, 1000), "multiclass")], [0.5, 0.5]);
});
