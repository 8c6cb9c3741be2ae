/** Starts a training run: a task that the service has, or a task file with its rows. */

import { call, Fault } from "./api.js";
import { find, say } from "./dom.js";
import { refresh } from "./jobs.js";

export function start() {
  const form = find("train");
  form.addEventListener("change", choose);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    submit(form);
  });
  choose(); // a reload may keep the choice
}

function choose() {
  const named = find("train").elements.source.value === "named";
  find("named").hidden = !named;
  find("own").hidden = named;
  find("task-name").required = named;
  find("task-file").required = find("data-file").required = !named;
}

async function submit(form) {
  const [button, bar] = [form.querySelector("[type=submit]"), find("train-upload")];
  const named = form.elements.source.value === "named";
  button.disabled = true;
  bar.hidden = named;
  say(find("train-error"), "");
  find("train-started").hidden = true;
  try {
    const body = named ? { json: { task: find("task-name").value.trim(), settings: settings() } } : { form: files() };
    const progress = (share) => (bar.value = share);
    await call("v1/jobs/train", { method: "POST", privileged: true, progress, ...body });
    await refresh();
    find("train-started").hidden = false;
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    say(find("train-error"), error.message);
  } finally {
    button.disabled = false;
    bar.hidden = true;
  }
}

/** What the visitor has set; the task's own values stand for the rest. */
function settings() {
  const set = ["epochs", "seed"].filter((name) => find(name).value !== "");
  return Object.fromEntries(set.map((name) => [name, find(name).valueAsNumber]));
}

function files() {
  const form = new FormData();
  form.append("settings", JSON.stringify(settings()));
  form.append("task", find("task-file").files[0]);
  form.append("data", find("data-file").files[0]);
  return form;
}
