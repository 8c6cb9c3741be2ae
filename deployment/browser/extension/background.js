// Tags each page that has loaded, shows how many tags it has on the icon, and keeps it in the history. `tag` differs between
// browsers: chromium.js and firefox.js.

import { record } from "./history.js";
import { pageText } from "./page-text.js";

export function start(tag) {
  let last = Promise.resolve();

  chrome.tabs.onUpdated.addListener((_, changes, tab) => {
    if (tab.status !== "complete" || !(changes.status || changes.title || changes.url)) return;
    last = last.then(() => visit(tab)).catch((error) => console.warn(error));
  });

  chrome.runtime.onMessage.addListener((message, _, respond) => {
    if (message.to !== "background") return false;
    tagsOf(message.tab).then(respond, (error) => respond({ error: error.message }));
    return true; // the answer comes later
  });

  async function visit(tab) {
    const found = await tagsOf(tab).catch((error) => ({ error: error.message }));
    await show(tab, found);
    if (found.given) {
      await record({ url: tab.url, title: tab.title, tags: found.given.map(({ label }) => label), time: Date.now() });
    }
  }

  async function tagsOf(tab) {
    const text = pageText(tab.url, tab.title);
    return text === null ? {} : tag(text);
  }
}

async function show({ id: tabId }, { given = [], error }) {
  const tags = given.map(({ label }) => label).join(", ");
  const title = error ? `Tagwright: ${error}` : tags ? `Tagwright: ${tags}` : "Tagwright";
  await chrome.action.setBadgeBackgroundColor({ color: "#2563eb" });
  await chrome.action.setBadgeText({ tabId, text: error ? "!" : given.length ? String(given.length) : "" });
  await chrome.action.setTitle({ tabId, title });
}
