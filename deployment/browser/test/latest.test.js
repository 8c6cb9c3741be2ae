import assert from "node:assert/strict";
import { test } from "node:test";
import { latest } from "../page/latest.js";

test("runs never overlap, and what was asked for meanwhile is run once, last", async () => {
  let state = 0, running = 0;
  const seen = [];
  const ask = latest(async () => {
    assert.equal(++running, 1);
    const mine = state;
    await new Promise((resolve) => setTimeout(resolve, 5));
    seen.push(mine);
    running -= 1;
  });
  const first = ask();
  for (state = 1; state < 9; state++) ask();
  await first;
  assert.deepEqual(seen, [0, 9]);
});

test("a run that fails does not stop the next one", async () => {
  let fails = true;
  const ask = latest(async () => {
    if (fails) throw new Error("no");
  });
  await assert.rejects(ask());
  fails = false;
  await ask();
});
