/** Small things that every part of the page needs. Text reaches the page as text only, never as markup. */

const count = new Intl.NumberFormat("en");

/** An element with properties (a `dataset` or `aria…` one too) and children, which are elements or strings. */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  Object.assign(element, properties);
  element.append(...children);
  return element;
}

export const find = (id) => document.getElementById(id);

/** Set an element's text and hide it where there is none; the same text again changes nothing, and so is not read out again. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
  element.hidden = text === "";
}

/** Let a screen reader say it, when it has finished what it is saying. */
export function announce(text) {
  find("spoken").textContent = text;
}

export const number = (value) => count.format(value);
export const percent = (share) => `${Math.round(100 * share)} %`;
export const plural = (n, one, many = `${one}s`) => `${number(n)} ${n === 1 ? one : many}`;

export function size(bytes) {
  for (const [unit, name] of [[1e9, "GB"], [1e6, "MB"], [1e3, "kB"]]) {
    if (bytes >= unit) return `${(bytes / unit).toFixed(bytes < 10 * unit ? 1 : 0)} ${name}`;
  }
  return plural(bytes, "byte");
}

export function duration(seconds) {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}
