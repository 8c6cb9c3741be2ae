/** The models that the service has: which one answers, activating another, going back to the one before. */

import { call, Fault, Unreachable } from "./api.js";
import { announce, find, make, plural, say, size } from "./dom.js";

const TIMEOUT = 300_000; // milliseconds: a model may first have to be fetched from a bucket
const SCORES = { accuracy: "accuracy", micro_f1: "micro-F1" }; // of a model with both, the first

let known = null; // the checksum of the active model that was shown last
let onActive = null;

/** `active` is called with the active model's full entry, or null, whenever it has changed. */
export function start(active) {
  onActive = active;
  find("previous").addEventListener("click", ({ target }) => activate(target.dataset.model, target));
}

/** Ask which models there are, and show them. */
export async function refresh() {
  try {
    const { active, previous, models } = await call("v1/models");
    const checksum = models.find(({ name }) => name === active)?.checksum ?? null;
    find("model-list").replaceChildren(...models.map(card));
    find("previous").hidden = previous === null;
    find("previous").dataset.model = previous ?? "";
    find("previous").textContent = `Back to ${previous}`;
    find("no-models").hidden = models.length > 0;
    say(find("models-error"), "");
    if (known === null || checksum !== known) {
      onActive(active && await call(`v1/models/${encodeURIComponent(active)}`));
      known = checksum;
    }
  } catch (error) {
    if (error instanceof Unreachable) return; // the page calls again when the service is back
    if (!(error instanceof Fault)) throw error;
    say(find("models-error"), error.message);
  }
}

function card(model) {
  const facts = [plural(model.labels, "label"), model.kind, size(model.bytes), score(model.metrics)].filter(Boolean);
  const item = make("li", { className: "item" },
    make("div", { className: "row" }, make("h3", {}, model.name), model.active ? badge() : button(model)),
    make("p", {}, model.title), make("p", { className: "faint small" }, facts.join(" · ")));
  if (model.refused) item.append(make("p", { className: "error" }, `Refused: ${model.refused}`));
  return item;
}

function badge() {
  return make("span", { className: "badge succeeded" }, "Active");
}

function button(model) {
  const verb = model.refused ? "Try again" : "Use";
  const use = make("button", { type: "button", ariaLabel: `${verb}: ${model.name}` }, verb);
  use.addEventListener("click", () => activate(model.name, use));
  return use;
}

/** What the network that answers (int8) scored on test rows, where the model says so. */
function score(metrics) {
  const scores = metrics["ONNX int8"] ?? {};
  const key = Object.keys(SCORES).find((name) => name in scores);
  return key && `${SCORES[key]} ${scores[key].toFixed(3)}`;
}

async function activate(name, clicked) {
  clicked.disabled = true;
  announce(`Loading ${name}`);
  let fault = "";
  try {
    await call(`v1/models/${encodeURIComponent(name)}/activate`, { method: "POST", privileged: true, timeout: TIMEOUT });
    announce(`${name} is active now`);
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    fault = error.message;
  } finally {
    clicked.disabled = false;
  }
  await refresh();
  find("models-title").focus(); // the button that was clicked has gone
  if (fault) say(find("models-error"), fault);
}
