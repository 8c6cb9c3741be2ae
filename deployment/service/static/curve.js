/** The curve of a training run: losses and scores by epoch, drawn as SVG, told in words and given as a table. */

import { make } from "./dom.js";

const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT] = [260, 180];
const FRAME = { left: 46, right: WIDTH - 12, top: 12, bottom: HEIGHT - 42 };
const SCORES = { micro_f1: "Micro-F1", accuracy: "Accuracy" }; // which of them a task has is by its kind
const LINES = { train_loss: "training", valid_loss: "validation" };

/** Draw `curve`, [{epoch, train_loss, valid_loss, and one of SCORES}, …] with null for what was not measured, into `place`. */
export function drawCurve(place, curve, title) {
  place.className = "curve";
  const wasOpen = place.querySelector("details")?.open ?? false;
  const score = Object.keys(SCORES).find((key) => key in curve[0]);
  const charts = [chart(curve, ["train_loss", "valid_loss"], "Loss", title), chart(curve, [score], SCORES[score], title)];
  place.replaceChildren(make("div", { className: "charts" }, ...charts), table(curve, score, title, wasOpen));
}

function chart(curve, keys, name, title) {
  const measured = (key) => curve.filter((point) => Number.isFinite(point[key]));
  const lines = keys.map((key) => measured(key).map((point) => [point.epoch, point[key]]));
  const epochs = curve.map(({ epoch }) => epoch);
  const values = lines.flat().map(([, value]) => value);
  const [first, last] = [Math.min(...epochs), Math.max(...epochs, Math.min(...epochs) + 1)];
  const ticks = niceTicks(Math.min(...values, name === "Loss" ? Infinity : 0), Math.max(...values));
  const x = (epoch) => FRAME.left + (FRAME.right - FRAME.left) * (epoch - first) / (last - first);
  const y = (value) => FRAME.bottom - (FRAME.bottom - FRAME.top) * (value - ticks[0]) / (ticks.at(-1) - ticks[0]);
  const svg = draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": words(name, keys, lines, title) });
  for (const tick of ticks) {
    svg.append(draw("line", { class: "grid", x1: FRAME.left, x2: FRAME.right, y1: y(tick), y2: y(tick) }),
      draw("text", { x: FRAME.left - 6, y: y(tick) + 4, "text-anchor": "end" }, String(+tick.toPrecision(6))));
  }
  const step = Math.ceil((last - first) / 8);
  for (let epoch = first; epoch <= last; epoch += step) {
    svg.append(draw("text", { x: x(epoch), y: FRAME.bottom + 17, "text-anchor": "middle" }, String(epoch)));
  }
  const middle = (FRAME.top + FRAME.bottom) / 2;
  svg.append(
    draw("line", { class: "axis", x1: FRAME.left, x2: FRAME.right, y1: FRAME.bottom, y2: FRAME.bottom }),
    draw("line", { class: "axis", x1: FRAME.left, x2: FRAME.left, y1: FRAME.top, y2: FRAME.bottom }),
    draw("text", { x: (FRAME.left + FRAME.right) / 2, y: HEIGHT - 6, "text-anchor": "middle" }, "Epoch"),
    draw("text", { transform: `translate(12 ${middle}) rotate(-90)`, "text-anchor": "middle" }, name));
  lines.forEach((line, index) => {
    const points = line.map(([epoch, value]) => `${x(epoch)},${y(value)}`).join(" ");
    svg.append(draw("polyline", { class: keys[index], points }),
      ...line.map(([epoch, value]) => draw("circle", { class: keys[index], cx: x(epoch), cy: y(value), r: 3 })));
  });
  const legend = keys.map((key) => make("span", { className: `key ${key}` }, LINES[key] ?? "validation"));
  return make("figure", {}, make("figcaption", {}, `${name}: `, ...legend), svg);
}

/** What the chart shows, for those who do not see it. */
function words(name, keys, lines, title) {
  const told = lines.map((line, index) => {
    if (line.length === 0) return `${LINES[keys[index]]} not measured`;
    const [[from, start], [to, end]] = [line[0], line.at(-1)];
    return `${LINES[keys[index]] ?? "validation"} ${start.toFixed(3)} in epoch ${from}, ${end.toFixed(3)} in epoch ${to}`;
  });
  return `${title}. ${name} by epoch: ${told.join("; ")}. The table below has every value.`;
}

function table(curve, score, title, open) {
  const heads = ["Epoch", "Training loss", "Validation loss", SCORES[score]];
  const cell = (value) => make("td", {}, Number.isFinite(value) ? value.toFixed(4) : "–");
  const rows = curve.map((point) => make("tr", {}, make("th", { scope: "row" }, String(point.epoch)),
    cell(point.train_loss), cell(point.valid_loss), cell(point[score])));
  return make("details", { open }, make("summary", {}, "Values as a table"),
    make("table", {}, make("caption", { className: "spoken" }, title),
      make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, head)))),
      make("tbody", {}, ...rows)));
}

/** Round numbers, four to seven of them, that reach from at most `low` to at least `high`. */
function niceTicks(low, high) {
  if (!Number.isFinite(low) || !Number.isFinite(high)) return [0, 1];
  const rough = (high - low || Math.abs(high) || 1) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 2.5, 5, 10].find((factor) => factor * power >= rough);
  const start = Math.floor(low / step);
  const count = Math.max(1, Math.ceil(high / step) - start);
  return Array.from({ length: count + 1 }, (_, index) => (start + index) * step);
}

function draw(tag, attributes, text = "") {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.textContent = text;
  return element;
}
