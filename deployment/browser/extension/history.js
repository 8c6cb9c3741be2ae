// The pages that were tagged, newest first, in IndexedDB: on this computer, and each page once.

export const MAX_ENTRIES = 10_000;

/** Keeps a page, {url, title, tags, time}; beyond MAX_ENTRIES the oldest ones go. */
export async function record(entry) {
  const store = await open("readwrite");
  store.put(entry);
  let surplus = await result(store.count()) - MAX_ENTRIES;
  if (surplus <= 0) return finished(store);
  const oldest = store.index("time").openCursor();
  oldest.onsuccess = () => {
    if (surplus-- <= 0 || !oldest.result) return;
    oldest.result.delete();
    oldest.result.continue();
  };
  return finished(store);
}

/** The pages with a tag that has `part` in it, newest first; all pages for "". */
export async function search(part = "") {
  const entries = await result((await open("readonly")).index("time").getAll());
  const wanted = part.trim().toLowerCase();
  return entries.reverse().filter(({ tags }) => !wanted || tags.some((tag) => tag.toLowerCase().includes(wanted)));
}

export async function wipe() {
  const store = await open("readwrite");
  store.clear();
  return finished(store);
}

let database;

async function open(mode) {
  database ??= new Promise((resolve, reject) => {
    const request = indexedDB.open("tagwright", 1);
    request.onupgradeneeded = () => request.result.createObjectStore("pages", { keyPath: "url" }).createIndex("time", "time");
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
  return (await database).transaction("pages", mode).objectStore("pages");
}

function result(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

function finished({ transaction }) {
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = () => reject(transaction.error);
  });
}
