// Chromium's background is a service worker, in which onnxruntime cannot load its WASM, and which ends when idle: the model
// lives in a page out of sight.

import { start } from "./background.js";

let opening;

start(async (text) => {
  await openModelPage();
  const answer = await chrome.runtime.sendMessage({ to: "offscreen", text });
  if (answer.error) throw new Error(answer.error);
  return answer;
});

async function openModelPage() {
  if (await chrome.offscreen.hasDocument()) return;
  opening ??= chrome.offscreen.createDocument({
    url: "offscreen.html", reasons: ["WORKERS"], justification: "runs the model, which a service worker cannot",
  }).finally(() => { opening = undefined; });
  await opening;
}
