/** Talks to the service: its problem JSON becomes a Problem, no answer becomes Unreachable, and a call that needs the token
 *  asks for it. */

import { find, plural } from "./dom.js";

const TOKEN = "tagwright-token";
const TIMEOUT = 20_000; // milliseconds
const NO_ANSWER = "The service does not answer.";
const ADVICE = {
  401: "Try again with the service's token.",
  403: "Try again with the service's token, or from the computer that the service runs on.",
  404: "It may have been removed meanwhile; reload the page to see what is there.",
  410: "Results are kept for a limited time: tag the file again.",
  413: "Shorten the text, or split the file into smaller ones.",
  415: "Send a file of one of the kinds that are listed.",
  422: "Correct it and try again.",
  500: "This is a fault of the service; its log says more.",
};

/** Fires "unreachable" when a call gets no answer. */
export const service = new EventTarget();

/** A call that failed for a reason that the visitor is told: `message`. */
export class Fault extends Error {}

/** The service gave no answer. */
export class Unreachable extends Fault {}

/** The service answered with problem JSON (RFC 9457); `retryAfter` is in seconds, or null. */
export class Problem extends Fault {
  constructor(status, { title, detail, errors }, retryAfter) {
    const faults = (errors ?? []).map(({ field, message }) => `${field}: ${message}`);
    const what = [title, detail, ...faults].filter(Boolean).map(sentence);
    const wait = retryAfter === null ? "" : `Try again in ${plural(retryAfter, "second")}.`;
    super([...new Set(what), wait || ADVICE[status]].filter(Boolean).join(" "));
    Object.assign(this, { status, retryAfter });
  }
}

/** Call the service; returns its JSON, null where the answer has none.
 *
 *  `json` or `form` is the body; `privileged` calls carry the token and ask for it where the service refuses; `progress` is
 *  told the share of a form that has been sent. Throws Problem, Unreachable, or what `signal` was aborted with.
 */
export async function call(path, { method = "GET", json, form, privileged = false, progress, signal, timeout = TIMEOUT } = {}) {
  for (;;) {
    const headers = new Headers({ Accept: "application/json" });
    if (json !== undefined) headers.set("Content-Type", "application/json");
    const token = privileged && sessionStorage.getItem(TOKEN);
    if (token) headers.set("Authorization", `Bearer ${token}`);
    const answer = form
      ? await upload(path, headers, form, progress, signal)
      : await request(path, { method, headers, body: JSON.stringify(json), cache: "no-store" }, signal, timeout);
    const body = content(answer);
    if (answer.status < 400) return body;
    const problem = new Problem(answer.status, body, answer.retryAfter);
    if (!privileged || ![401, 403].includes(answer.status)) throw problem;
    sessionStorage.removeItem(TOKEN);
    const given = await askForToken(problem, Boolean(token));
    if (given === null) throw problem;
    sessionStorage.setItem(TOKEN, given);
  }
}

async function request(path, options, signal, timeout) {
  const limit = AbortSignal.timeout(timeout);
  try {
    const response = await fetch(path, { ...options, signal: signal ? AbortSignal.any([signal, limit]) : limit });
    return read(response.status, await response.text(), (name) => response.headers.get(name));
  } catch (error) {
    if (signal?.aborted) throw error;
    throw unreachable(NO_ANSWER);
  }
}

/** By XMLHttpRequest, since fetch does not tell how much has been sent. */
function upload(path, headers, form, progress, signal) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", path);
    headers.forEach((value, name) => request.setRequestHeader(name, value));
    request.upload.onprogress = ({ loaded, total }) => progress?.(total ? loaded / total : 0);
    request.onload = () => resolve(read(request.status, request.responseText, (name) => request.getResponseHeader(name)));
    request.onerror = () => reject(unreachable(
      "The upload broke off: the service stopped, or refused the file before it had all of it (is it too large?)."));
    request.onabort = () => reject(signal.reason);
    signal?.addEventListener("abort", () => request.abort());
    request.send(form);
  });
}

function read(status, text, header) {
  const seconds = parseInt(header("Retry-After"), 10);
  return { status, text, type: header("Content-Type") ?? "", retryAfter: Number.isNaN(seconds) ? null : seconds };
}

/** The answer's JSON. A gateway's own page instead of it means that the service behind is not there. */
function content({ status, text, type }) {
  if (/[/+]json\b/.test(type)) return JSON.parse(text);
  if ([502, 503, 504].includes(status)) throw unreachable(NO_ANSWER);
  return status < 400 ? null : { title: `The service answered with status ${status}` };
}

function unreachable(text) {
  service.dispatchEvent(new Event("unreachable"));
  return new Unreachable(text);
}

/** Ask for the token in a dialog; null where the visitor has none. */
function askForToken(problem, refused) {
  const dialog = find("token-dialog");
  find("token-why").textContent = (refused ? "The token was not accepted. " : "") + problem.message;
  find("token-form").reset();
  dialog.returnValue = "cancel"; // what Escape leaves
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      resolve(dialog.returnValue === "go" ? find("token").value : null);
      find("token-form").reset();
    }, { once: true });
  });
}

function sentence(text) {
  return /[.!?…]$/.test(text) ? text : `${text}.`;
}
