/** The list of jobs: each is drawn once and then brought up to date in place, so that focus and open curves stay. */

import { call, Fault, Unreachable } from "./api.js";
import { drawCurve } from "./curve.js";
import { announce, duration, find, make, number, plural, say } from "./dom.js";

const BUSY = 1000; // milliseconds between two looks while a job goes on
const IDLE = 10_000;
const SHOWN = 6; // the newest ones; the rest at a click
const STATES = { queued: "Waiting", running: "Running", succeeded: "Done", failed: "Failed", cancelled: "Cancelled" };

const cards = new Map(); // id -> what `card` returned
let timer = null;
let asked = 0; // questions so far; the answer to an older one than the last shown is thrown away
let answered = 0;
let all = false;
let onTrained = null;

/** `trained` is called when a training job has ended. */
export function start(trained) {
  onTrained = trained;
  find("older").addEventListener("click", () => {
    all = true;
    refresh();
  });
  document.addEventListener("visibilitychange", () => document.hidden || refresh());
}

/** Ask for the jobs and show them; again from time to time for as long as the page is seen and the service answers. */
export async function refresh() {
  clearTimeout(timer);
  if (document.hidden) return;
  const question = ++asked;
  let pause = IDLE;
  try {
    const { jobs } = await call("v1/jobs");
    if (question < answered) return;
    answered = question;
    show(jobs);
    say(find("jobs-error"), "");
    if (jobs.some(isOpen)) pause = BUSY;
  } catch (error) {
    if (error instanceof Unreachable) return; // the page calls again when the service is back
    if (!(error instanceof Fault)) throw error;
    say(find("jobs-error"), error.message);
  }
  clearTimeout(timer);
  timer = setTimeout(refresh, pause);
}

function show(jobs) {
  const shown = all ? jobs : jobs.slice(0, SHOWN);
  const ids = new Set(shown.map(({ id }) => id));
  for (const [id, { item }] of cards) {
    if (!ids.has(id)) {
      item.remove();
      cards.delete(id);
    }
  }
  shown.forEach((job, place) => {
    const before = cards.get(job.id)?.job;
    if (!before) cards.set(job.id, card(job));
    const { item } = cards.get(job.id);
    const list = find("job-list");
    if (list.children[place] !== item) list.insertBefore(item, list.children[place] ?? null);
    update(cards.get(job.id), job);
    if (before && isOpen(before) && !isOpen(job)) {
      announce(`${title(job)}: ${STATES[job.state]}`);
      if (job.kind === "train") onTrained();
    }
  });
  find("no-jobs").hidden = jobs.length > 0;
  say(find("older"), jobs.length > shown.length ? `Show ${plural(jobs.length - shown.length, "older job")}` : "");
}

function card(job) {
  const parts = {
    heading: make("h3", { id: `job-${job.id}` }),
    state: make("span", { className: "badge" }),
    progress: make("progress", {}),
    facts: make("p", { className: "faint small" }),
    message: make("p", {}),
    error: make("p", { className: "error" }),
    curve: make("div", {}),
    download: make("a", { className: "button", download: "" }, "Download the result"),
    remove: make("button", { type: "button" }),
  };
  parts.progress.setAttribute("aria-labelledby", parts.heading.id);
  parts.remove.addEventListener("click", () => remove(job.id));
  const item = make("li", { className: "item" },
    make("div", { className: "row" }, parts.heading, parts.state), parts.progress, parts.facts,
    parts.message, parts.error, parts.curve, make("div", { className: "buttons" }, parts.download, parts.remove));
  return { item, parts, points: 0, cancelling: false };
}

function update(shown, job) {
  const { parts } = shown;
  shown.job = job;
  parts.heading.textContent = title(job);
  say(parts.state, STATES[job.state]);
  parts.state.className = `badge ${job.state}`;
  parts.progress.hidden = job.state !== "running";
  const { done, total } = job.progress;
  if (total) Object.assign(parts.progress, { max: total, value: done });
  else parts.progress.removeAttribute("value");
  say(parts.facts, facts(job));
  say(parts.message, job.message ?? "");
  say(parts.error, job.error ?? "");
  const points = job.curve?.length ?? 0;
  if (points !== shown.points) drawCurve(parts.curve, job.curve, title(job));
  shown.points = points;
  parts.download.hidden = !job.result;
  parts.download.href = `v1/jobs/${encodeURIComponent(job.id)}/result`;
  const verb = isOpen(job) ? "Cancel" : "Remove";
  parts.remove.textContent = shown.cancelling && isOpen(job) ? "Cancelling …" : verb;
  parts.remove.disabled = shown.cancelling && isOpen(job);
  parts.remove.ariaLabel = `${verb} ${title(job)}`;
  parts.download.ariaLabel = `Download the result of ${title(job)}`;
}

function title(job) {
  return `${job.kind === "train" ? "Train" : "Tag"} ${job.name}`;
}

function facts(job) {
  const { done, total, unit } = job.progress;
  const { rows, written, rejected } = job.counts ?? {};
  const out = typeof rejected === "object" ? Object.values(rejected).reduce((sum, n) => sum + n, 0) : rejected; // by reason
  const parts = [new Date(job.created).toLocaleString("en", { dateStyle: "medium", timeStyle: "short" })];
  if (job.state === "running") {
    parts.unshift(`${number(done)}${total ? ` of ${number(total)}` : ""} ${unit}`);
    if (job.eta_seconds !== null) parts.splice(1, 0, `about ${duration(job.eta_seconds)} left`);
  } else if (job.started && job.finished) {
    parts.push(`took ${duration((new Date(job.finished) - new Date(job.started)) / 1000)}`);
  }
  if (!isOpen(job) && written !== undefined) {
    parts.unshift(`${number(written)} of ${plural(rows, "row")} tagged${out ? `, ${number(out)} rejected` : ""}`);
  }
  return parts.join(" · ");
}

function isOpen({ state }) {
  return state === "queued" || state === "running";
}

async function remove(id) {
  const shown = cards.get(id);
  const { job } = shown;
  if (!confirm(isOpen(job) ? `Cancel "${title(job)}"?` : `Remove "${title(job)}" with its files?`)) return;
  try {
    await call(`v1/jobs/${encodeURIComponent(id)}`, { method: "DELETE", privileged: true });
    shown.cancelling = true;
    announce(isOpen(job) ? "Cancelling" : "Removed");
    find("jobs-title").focus(); // the button that was clicked goes
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    await refresh();
    say(find("jobs-error"), error.message);
    return;
  }
  await refresh();
}
