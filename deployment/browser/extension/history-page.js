// The history: search by tag, export, wipe.

import { search, wipe } from "./history.js";

const SHOWN = 200; // of what was found
const find = (id) => document.getElementById(id);
const dates = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

async function show() {
  const found = await search(find("tag").value);
  find("entries").replaceChildren(...found.slice(0, SHOWN).map(entry));
  const more = found.length > SHOWN ? `, the newest ${SHOWN} shown` : "";
  find("count").textContent = `${found.length.toLocaleString("en")} ${found.length === 1 ? "page" : "pages"}${more}`;
}

function entry({ url, title, tags, time }) {
  const link = element("a", { href: url, textContent: title || url, rel: "noreferrer" });
  const when = element("time", { dateTime: new Date(time).toISOString(), textContent: dates.format(time) });
  const chips = tags.map((tag) => {
    const chip = element("button", { type: "button", className: "chip", textContent: tag });
    chip.addEventListener("click", () => {
      find("tag").value = tag;
      show();
    });
    return chip;
  });
  const row = element("li", {});
  row.append(link, when, ...chips);
  return row;
}

function element(tag, properties) {
  return Object.assign(document.createElement(tag), properties);
}

async function download() {
  const file = new Blob([JSON.stringify(await search(), null, 2)], { type: "application/json" });
  const link = element("a", { href: URL.createObjectURL(file), download: "tagwright-history.json" });
  link.click();
  URL.revokeObjectURL(link.href);
}

find("tag").addEventListener("input", show);
find("tools").addEventListener("submit", (event) => event.preventDefault());
find("export").addEventListener("click", download);
find("wipe").addEventListener("click", () => find("sure").showModal());
find("sure").addEventListener("close", async () => {
  if (find("sure").returnValue !== "wipe") return;
  await wipe();
  await show();
});
await show();
