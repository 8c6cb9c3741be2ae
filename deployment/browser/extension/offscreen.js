import { tagging } from "./engine.js";

const tag = tagging();

chrome.runtime.onMessage.addListener((message, _, respond) => {
  if (message.to !== "offscreen") return false;
  tag(message.text).then(respond, (error) => respond({ error: error.message }));
  return true; // the answer comes later
});
