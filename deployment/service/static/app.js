/** The page's start, and what holds it together: which model is active, and whether the service is there. */

import { service } from "./api.js";
import { announce, find, say } from "./dom.js";
import * as jobs from "./jobs.js";
import * as models from "./models.js";
import * as tagging from "./tagging.js";
import * as training from "./training.js";
import * as uploads from "./uploads.js";

const FIRST_WAIT = 1000; // milliseconds; doubled up to the last
const LAST_WAIT = 16_000;

let waiting = false;

tagging.start(models.refresh);
models.start(tagging.show);
jobs.start(models.refresh);
uploads.start();
training.start();
service.addEventListener("unreachable", waitForService);
models.refresh();
jobs.refresh();

/** Look until the service answers again, then bring the page up to date. */
async function waitForService() {
  if (waiting) return;
  waiting = true;
  await sleep(FIRST_WAIT); // where it does answer here, but not elsewhere, the page must not ask without end
  for (let wait = FIRST_WAIT; !(await isThere()); wait = Math.min(2 * wait, LAST_WAIT)) {
    say(find("down"), "The service does not answer. This page tries again on its own; what you typed stays here.");
    await sleep(wait);
  }
  waiting = false;
  if (!find("down").hidden) announce("The service answers again");
  say(find("down"), "");
  await models.refresh();
  tagging.ask(0);
  await jobs.refresh();
}

const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

async function isThere() {
  try {
    return (await fetch("healthz", { cache: "no-store", signal: AbortSignal.timeout(5000) })).ok;
  } catch {
    return false;
  }
}
