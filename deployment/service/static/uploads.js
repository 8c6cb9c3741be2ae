/** Files to tag: dropped or chosen, sent one after the other, each a job as soon as it has arrived. */

import { call, Fault } from "./api.js";
import { announce, find, make, percent, say, size } from "./dom.js";
import { refresh } from "./jobs.js";

let sending = Promise.resolve();

export function start() {
  const drop = find("drop");
  find("file").addEventListener("change", ({ target }) => {
    take(target.files);
    target.value = ""; // so that the same file can be chosen again
  });
  for (const name of ["dragover", "drop"]) {
    document.addEventListener(name, (event) => event.preventDefault()); // beside the zone, the browser would open the file
  }
  drop.addEventListener("dragover", () => drop.classList.add("over"));
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", ({ dataTransfer }) => {
    drop.classList.remove("over");
    take(dataTransfer.files);
  });
}

function take(files) {
  for (const file of files) {
    const row = line(file);
    find("uploads").append(row.item);
    sending = sending.then(() => send(file, row));
  }
}

async function send(file, { item, progress, share, fault, button, abort }) {
  if (abort.signal.aborted) return;
  const form = new FormData();
  const column = find("column").value.trim();
  if (column) form.append("text", column); // before the file, so that the service knows it when the file's rows come in
  form.append("file", file);
  try {
    announce(`Sending ${file.name}`);
    const job = await call("v1/jobs/tag", { method: "POST", form, signal: abort.signal, progress: (part) => {
      progress.value = part;
      share.textContent = percent(part);
    } });
    item.remove();
    announce(`${file.name} has been sent`);
    await refresh();
  } catch (error) {
    if (abort.signal.aborted) return;
    if (!(error instanceof Fault)) throw error;
    progress.hidden = true;
    share.textContent = "not sent";
    say(fault, error.message);
    button.textContent = "Dismiss";
    button.ariaLabel = `Dismiss ${file.name}`;
  }
}

function line(file) {
  const abort = new AbortController();
  const progress = make("progress", { max: 1, value: 0, ariaLabel: `Upload of ${file.name}` });
  const share = make("span", { className: "faint small" }, "waiting");
  const fault = make("p", { className: "error", role: "alert", hidden: true });
  const button = make("button", { type: "button", ariaLabel: `Cancel the upload of ${file.name}` }, "Cancel");
  const item = make("li", { className: "item" },
    make("div", { className: "row" }, make("span", { className: "name" }, file.name),
      make("span", { className: "faint small" }, size(file.size)), share, button), progress, fault);
  button.addEventListener("click", () => {
    abort.abort();
    item.remove();
    find("file").focus();
  });
  return { item, progress, share, fault, button, abort };
}
