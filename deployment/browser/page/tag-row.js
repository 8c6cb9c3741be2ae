/** A label as a list item with a bar; `threshold` is shown where one is given. */
export function tagRow({ label, score, threshold }) {
  const row = element("li", "tag");
  if (threshold !== undefined) row.title = `threshold ${threshold.toFixed(2)}`;
  const track = element("div", "track", { ariaHidden: "true" });
  track.append(element("div", "bar"));
  track.firstChild.style.width = `${100 * score}%`;
  row.append(element("span", "name", { textContent: label }), track,
    element("span", "score", { textContent: `${Math.round(100 * score)} %` }));
  return row;
}

export function element(tag, className, properties = {}) {
  return Object.assign(document.createElement(tag), { className }, properties);
}
