// The page: a box for each of the model's fields, and its labels as you type.

import { latest } from "./latest.js";
import { element, tagRow } from "./tag-row.js";

const MAX_CHARACTERS = 20_000; // of all fields together
const PAUSE = 120; // milliseconds without a key before the text is tagged
const LINES = { title: 2, body: 5 };
const MODEL = new URL("model", document.baseURI).href;
const RUNTIME = new URL("ort/", document.baseURI).href;
const SIZES = __SIZES__; // bytes of each format that the build found in the model folder

const find = (id) => document.getElementById(id);
const worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
const waiting = new Map();
let onLoaded = () => {};
let manifest = null;
let loaded = null; // the choice that is loaded
let timer;

worker.onmessage = ({ data }) => {
  if ("loaded" in data) return onLoaded(data.loaded);
  const { resolve, reject } = waiting.get(data.id);
  waiting.delete(data.id);
  if ("error" in data) reject(new Error(data.error));
  else resolve(data.result);
};

function call(method, argument) {
  const id = crypto.randomUUID();
  return new Promise((resolve, reject) => {
    waiting.set(id, { resolve, reject });
    worker.postMessage({ id, method, argument });
  });
}

const refresh = latest(async () => {
  try {
    if (find("format").value !== loaded) await load(find("format").value);
    await tag();
  } catch (error) {
    say(error.message, true);
  }
});

async function load(choice) {
  const [format, device] = choice.split(" ");
  const total = SIZES[format];
  loaded = null;
  find("timing").textContent = "";
  say(`Loading the model (${megabytes(total)}) …`);
  find("progress").value = 0;
  find("progress").hidden = false;
  onLoaded = (bytes) => {
    find("progress").value = bytes / total;
    if (bytes >= total) say("Starting the model …");
  };
  try {
    manifest = await call("load", { folder: MODEL, runtime: RUNTIME, format, device });
  } finally {
    find("progress").hidden = true;
  }
  loaded = choice;
  describe();
}

async function tag() {
  const fields = Object.fromEntries(boxes().map((box) => [box.name, box.value]));
  const length = boxes().reduce((sum, box) => sum + box.value.length, 0);
  if (!boxes().some((box) => box.value.trim())) {
    clear();
    return say(`Nothing to tag yet: type a ${manifest.fields[0]}${manifest.examples.length ? ", or click one of the examples" : ""}.`);
  }
  if (length > MAX_CHARACTERS) {
    clear();
    return say(`That is ${length.toLocaleString("en")} characters; please shorten it to at most `
      + `${MAX_CHARACTERS.toLocaleString("en")}.`, true);
  }
  const { given, others, milliseconds } = await call("tag", fields);
  show(given, others);
  say(given.length ? "" : "No label reaches its threshold for this text.");
  find("timing").textContent = `Tagged in ${milliseconds.toFixed(1)} ms among ${manifest.labels.length} labels, on this computer.`;
}

function describe() {
  document.title = `Tagwright: ${manifest.title}`;
  find("title").textContent = manifest.title;
  const names = boxes().map((box) => box.name);
  if (names.join() === manifest.fields.join()) return;
  find("form").replaceChildren(...manifest.fields.map(field));
  find("examples").hidden = !manifest.examples.length;
  find("examples").querySelector("ul").replaceChildren(...manifest.examples.map(example));
  boxes()[0].focus();
}

function field(name) {
  const box = element("textarea", "", { name, id: `field-${name}`, rows: LINES[name] ?? 3, spellcheck: false });
  box.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(refresh, PAUSE);
  });
  const label = element("label", "field", { textContent: name[0].toUpperCase() + name.slice(1) });
  label.append(box);
  return label;
}

function example(values) {
  const button = element("button", "", { type: "button", textContent: values[manifest.fields[0]] });
  button.addEventListener("click", () => {
    for (const box of boxes()) box.value = values[box.name] ?? "";
    refresh();
  });
  const item = element("li", "");
  item.append(button);
  return item;
}

function show(given, others) {
  find("given").replaceChildren(...given.map(tagRow));
  find("others").replaceChildren(...others.map(tagRow));
  find("others-title").hidden = !others.length;
  find("others-title").textContent = manifest.kind === "multiclass" ? "Next best" : "Next best, below their thresholds";
}

function boxes() {
  return [...find("form").querySelectorAll("textarea")];
}

function clear() {
  show([], []);
  find("timing").textContent = "";
}

function say(text, isError = false) {
  find("status").textContent = text;
  find("status").classList.toggle("error", isError);
}

function megabytes(bytes) {
  return `${(bytes / 1e6).toFixed(1)} MB`;
}

/** A graphics card is worth it for fp32 and q4 only: int8 has no kernels there. */
async function offerFormats() {
  const formats = Object.keys(SIZES);
  const choices = formats.map((format) => [format, "wasm", "on the processor"]);
  if (await navigator.gpu?.requestAdapter().catch(() => null)) {
    choices.push(...formats.filter((format) => format !== "int8").map((format) => [format, "webgpu", "on the graphics card"]));
  }
  find("format").replaceChildren(...choices.map(([format, device, where]) => (
    new Option(`${format}, ${megabytes(SIZES[format])}, ${where}`, `${format} ${device}`))));
}

/** What is loaded from now on is kept for use without a network; the page works without that too. */
async function keepForOffline() {
  if (!import.meta.env.PROD || !navigator.serviceWorker) return;
  try {
    const controlled = new Promise((resolve) => {
      navigator.serviceWorker.addEventListener("controllerchange", resolve, { once: true });
      setTimeout(resolve, 3000); // after a forced reload there is none
    });
    await navigator.serviceWorker.register(new URL("service-worker.js", document.baseURI));
    if (!navigator.serviceWorker.controller) await controlled;
  } catch (error) {
    console.warn(`The page will not work offline: ${error.message}`);
  }
}

find("format").addEventListener("change", refresh);
find("form").addEventListener("submit", (event) => event.preventDefault());
await Promise.all([offerFormats(), keepForOffline()]);
await refresh();
