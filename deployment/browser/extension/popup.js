// The tags of the page that the popup was opened on.

import { tagRow } from "../page/tag-row.js";

const find = (id) => document.getElementById(id);
const ENGINE_PERMISSION = { permissions: ["trialML"] };

async function main() {
  const [tab] = await chrome.tabs.query({ active: true, lastFocusedWindow: true });
  find("page").textContent = tab.title;
  const { url, title } = tab;
  const found = await chrome.runtime.sendMessage({ to: "background", tab: { url, title } });
  find("status").textContent = describe(found);
  if (!found.given) return;
  find("given").replaceChildren(...found.given.map(tagRow));
  find("others").replaceChildren(...found.others.map(tagRow));
  find("others-title").hidden = !found.others.length;
  find("timing").textContent = `${found.milliseconds.toFixed(1)} ms, ${found.engine}`;
}

function describe({ error, given }) {
  if (error) return `The page could not be tagged: ${error}`;
  if (!given) return "Only pages of sites are tagged.";
  return given.length ? "" : "No label reaches its threshold.";
}

find("history").addEventListener("click", () => {
  chrome.tabs.create({ url: chrome.runtime.getURL("history.html") });
  window.close();
});

// A permission may only be asked for at a click. The engine is chosen when the background starts anew.
find("own-engine").hidden = !__HUB_MODEL__ || !globalThis.browser || await browser.permissions.contains(ENGINE_PERMISSION);
find("own-engine").addEventListener("click", async () => {
  if (await browser.permissions.request(ENGINE_PERMISSION)) browser.runtime.reload();
});

await main();
