// The normalisation of texts that the model was trained with: the same as `tidy` and `compose` in tagwright/text.py.

// Control characters, and surrogates that are no half of a pair (with the flag u a whole pair is one character).
const UNPRINTABLE = /[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]/gu;
// What Python's str.split() takes for white space and UNPRINTABLE has left over. JavaScript's \s also has U+FEFF.
const SPACES = /[\t \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+/g;

/** NFC, no control characters or lone surrogates, single spaces, at most one blank line in a row. */
export function tidy(text) {
  const lines = text.replace(/\r\n?/g, "\n").replace(UNPRINTABLE, " ").normalize("NFC").split("\n");
  return lines.map((line) => line.replace(SPACES, " ").replace(/^ | $/g, "")).join("\n")
    .replace(/\n{3,}/g, "\n\n").replace(/^\n+|\n+$/g, "");
}

/** The template (Python's: {name}, and {{ }} for braces) filled with the fields, tidied. */
export function compose(template, fields) {
  return tidy(template.replace(/\{\{|\}\}|\{([^{}]*)\}/g, (place, name) => (name === undefined ? place[0] : fields[name])));
}
