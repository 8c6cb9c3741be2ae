/** Tags while the visitor types: a box for each of the model's fields, bars for the answer. */

import { call, Fault, Unreachable } from "./api.js";
import { announce, find, make, percent, plural, say } from "./dom.js";

const PAUSE = 250; // milliseconds without a key before the text is sent
const NEXT_BEST = 5;
const LINES = { title: 2, body: 7 };
const NOTHING = "Nothing to tag yet: type or paste a text, or choose an example.";

let model = null; // the active one, with fields and examples
let timer = null;
let latest = null; // the newest question's AbortController: older ones are aborted, so no late answer to them is shown
let onOtherModel = null;

/** `otherModel` is called when an answer comes from another model than the one shown. */
export function start(otherModel) {
  onOtherModel = otherModel;
  find("text").addEventListener("input", () => ask(PAUSE));
  find("text").addEventListener("submit", (event) => event.preventDefault());
}

/** Show the active model, null where there is none; what is typed stays where the fields are the same. */
export function show(active) {
  const same = active && model && String(active.fields) === String(model.fields);
  model = active;
  say(find("active-title"), active ? active.title : "No model is active: choose one under Models, or train one.");
  find("result").hidden = active === null;
  if (!same) find("text").replaceChildren(...(active?.fields ?? []).flatMap(box));
  find("examples").hidden = !active?.examples.length;
  find("examples").querySelector("ul").replaceChildren(...(active?.examples ?? []).map(example));
  if (active) ask(0);
}

/** Tag what is in the boxes, after a pause. */
export function ask(pause) {
  clearTimeout(timer);
  latest?.abort();
  timer = setTimeout(tag, pause);
}

async function tag() {
  const fields = Object.fromEntries([...find("text").elements].map((box) => [box.name, box.value]));
  if (!model || !Object.values(fields).some((value) => value.trim())) {
    draw([], []);
    say(find("text-error"), "");
    say(find("hint"), NOTHING);
    say(find("source"), "");
    return;
  }
  const question = (latest = new AbortController());
  const started = performance.now();
  try {
    const json = { texts: [fields], top: NEXT_BEST };
    const answer = await call("v1/tags", { method: "POST", json, signal: question.signal });
    const { tags, next } = answer.results[0];
    draw(tags, next);
    say(find("text-error"), "");
    say(find("hint"), tags.length ? "" : "No tag reaches its threshold for this text.");
    say(find("source"), `${answer.model.name}, ${Math.round(performance.now() - started)} ms`);
    announce(tags.length ? `${plural(tags.length, "tag")}: ${tags.map(({ label }) => label).join(", ")}` : "No tag");
    if (answer.model.checksum !== model.checksum) onOtherModel();
  } catch (error) {
    if (question.signal.aborted) return;
    draw([], []);
    say(find("hint"), "");
    say(find("source"), "");
    if (error instanceof Unreachable) return; // said for the whole page, which asks again when the service is back
    if (!(error instanceof Fault)) throw error;
    say(find("text-error"), error.message);
    if (error.retryAfter !== null) ask(1000 * error.retryAfter);
  }
}

function draw(tags, next) {
  find("given").replaceChildren(...tags.map(bar));
  find("next").replaceChildren(...next.map(bar));
  find("others").hidden = next.length === 0;
}

function bar({ label, score }) {
  const filled = make("span", { className: "bar" });
  filled.style.width = `${100 * score}%`;
  return make("li", { className: "tag" },
    make("span", { className: "name" }, label), make("span", { className: "track", ariaHidden: "true" }, filled),
    make("span", { className: "score" }, percent(score)));
}

function box(name) {
  const label = make("label", { className: "field", htmlFor: `field-${name}` }, name);
  const area = make("textarea", { id: `field-${name}`, name, rows: LINES[name] ?? 4, spellcheck: false });
  return [label, area];
}

function example(values) {
  const button = make("button", { type: "button", className: "example" }, values[model.fields[0]] ?? "");
  button.addEventListener("click", () => {
    for (const box of find("text").elements) box.value = values[box.name] ?? "";
    ask(0);
  });
  return make("li", {}, button);
}
