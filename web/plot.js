// Plots as SVG, each with a tooltip and a table behind it.

import { el, put, short, svg } from "./dom.js";

const HEIGHT = 220;
const LEFT = 46;
const RIGHT = 12;
const TOP = 12;
const BOTTOM = 30;

/** About five round numbers from `low` to `high`. */
export function ticks(low, high) {
  const rough = (high - low) / 5 || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((own) => own * power).find((own) => own >= rough);
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9); at * step <= high + step * 1e-9; at += 1) found.push(at * step);
  return found;
}

/** The frame of a plot: title, what it shows, its keys (`{name, kind}`), a box for the picture, and the table. */
export function card(title, about, keys, table) {
  const box = el("div", { class: "plot-box" });
  const tip = el("div", { class: "tip", hidden: true, "aria-hidden": "true" });
  box.append(tip);
  const node = el("section", { class: "card plot", "aria-label": title },
    el("h3", {}, title), about ? el("p", { class: "about" }, about) : null,
    keys.length > 1 ? el("ul", { class: "keys-of-plot" }, keys.map((key) => el("li", {}, el("span", { class: `key ${key.kind}`, "aria-hidden": "true" }), key.name))) : null,
    box, el("details", { class: "behind" }, el("summary", {}, "Table"), table));
  return { node, box, tip };
}

/** A table of rows of text and numbers. */
export function table(head, rows) {
  return el("div", { class: "scroll" }, el("table", {},
    el("thead", {}, el("tr", {}, head.map((name, at) => el("th", { scope: "col", class: at > 0 ? "number" : "" }, name)))),
    el("tbody", {}, rows.map((row) => el("tr", {}, row.map((value, at) => el("td", { class: at > 0 ? "number" : "" }, typeof value === "number" ? short(value, 4) : value ?? "–")))))));
}

/** Draws again when the width of the box changes. */
export function responsive(box, draw) {
  let width = 0;
  new ResizeObserver(() => {
    const now = Math.floor(box.clientWidth);
    if (now > 0 && now !== width) draw(width = now);
  }).observe(box);
}

function axes(node, width, { x, y, xs, ys, xLabel, yLabel }) {
  for (const value of ys) {
    node.append(svg("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value) }),
      svg("text", { class: "tick", x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, short(value)));
  }
  for (const [value, text] of xs) node.append(svg("text", { class: "tick", x: x(value), y: HEIGHT - 14, "text-anchor": "middle" }, text));
  node.append(svg("text", { class: "axis", x: width - RIGHT, y: HEIGHT - 1, "text-anchor": "end" }, xLabel));
  if (yLabel) node.append(svg("text", { class: "axis", x: LEFT, y: TOP - 3 }, yLabel));
}

/** The picture that a finger touched last. */
let touched = null;
document.addEventListener("pointerdown", (event) => {
  if (!touched || touched.node.contains(event.target)) return;
  touched.hide();
  touched = null;
}, true);

/**
 * Shows a tooltip under the pointer. `find(x, y)` gives `{x, y, title, lines}` or null, and `mark` draws what was found. Without
 * `y`, the tooltip stays at the top.
 */
export function hover(box, tip, node, width, find, mark) {
  const hide = () => { tip.hidden = true; mark(null); };
  const move = (event) => {
    const bounds = node.getBoundingClientRect();
    const scale = width / bounds.width;
    const found = find((event.clientX - bounds.left) * scale, (event.clientY - bounds.top) * scale);
    if (!found) return hide();
    put(tip, el("b", {}, found.title), found.lines.map(([name, value, kind]) => el("div", {}, el("span", { class: `key ${kind || ""}` }), `${name} `, el("b", {}, value))));
    tip.hidden = false;
    mark(found);
    // Beside the pointer: right of it if there is room, and above it near the end of a high picture.
    const right = found.x + 12;
    tip.style.left = `${right + tip.offsetWidth <= width ? right : Math.max(0, found.x - 12 - tip.offsetWidth)}px`;
    if (found.y === undefined) return;
    const below = found.y + 14;
    tip.style.top = `${below + tip.offsetHeight <= bounds.height ? below : Math.max(0, found.y - 14 - tip.offsetHeight)}px`;
  };
  node.addEventListener("pointermove", move);
  node.addEventListener("pointerdown", (event) => {
    move(event);
    if (event.pointerType !== "mouse") touched = { node, hide };
  });
  // A finger leaves when it is lifted. What it touched stays until another place is touched.
  node.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") hide(); });
}

function tooltip(box, tip, node, width, nearest) {
  const line = svg("line", { class: "hair", y1: TOP, y2: HEIGHT - BOTTOM, visibility: "hidden" });
  node.append(line);
  hover(box, tip, node, width, nearest, (found) => {
    line.setAttribute("visibility", found ? "visible" : "hidden");
    if (found) for (const end of ["x1", "x2"]) line.setAttribute(end, found.x);
  });
}

/**
 * Lines over numbers. A series is `{name, kind, points: [[x, y, group]]}`, with a gap between groups; a mark is `{from, to, name}` on the x axis.
 */
export function lines({ title, about, series, xLabel, yLabel, marks = [], zero = false, whole = false }) {
  const shown = series.filter((own) => own.points.length > 0);
  const all = [...new Set(shown.flatMap((own) => own.points.map(([at]) => at)))].sort((a, b) => a - b);
  const value = (own, at) => own.points.find(([x]) => x === at)?.[1];
  const { node, box, tip } = card(title, about, shown, table([xLabel, ...shown.map((own) => own.name)], all.map((at) => [whole ? String(at) : at, ...shown.map((own) => value(own, at))])));
  const numbers = shown.flatMap((own) => own.points.map(([, y]) => y));
  const xLow = all[0];
  const xHigh = all.at(-1);
  let low = zero ? 0 : Math.min(...numbers);
  let high = Math.max(...numbers);
  const room = (high - low) * 0.08 || Math.abs(high) * 0.1 || 1;
  high += room;
  if (!zero) low -= room;
  responsive(box, (width) => {
    const x = (at) => LEFT + (xHigh === xLow ? 0.5 : (at - xLow) / (xHigh - xLow)) * (width - LEFT - RIGHT);
    const y = (at) => TOP + (1 - (at - low) / (high - low)) * (HEIGHT - TOP - BOTTOM);
    const picture = svg("svg", { width, height: HEIGHT, role: "img", "aria-label": `${title}. The table has all numbers.` });
    const xTicks = ticks(xLow, xHigh).filter((at) => !whole || Number.isInteger(at)).map((at) => [at, short(at)]);
    for (const mark of marks) {
      picture.append(svg("rect", { class: "mark", x: x(mark.from) - 1, width: Math.max(2, x(mark.to) - x(mark.from) + 2), y: TOP, height: HEIGHT - TOP - BOTTOM }),
        svg("text", { class: "mark-name", x: Math.min(x(mark.to) + 5, width - 60), y: TOP + 22 }, mark.name));
    }
    axes(picture, width, { x, y, xs: xTicks.length ? xTicks : [[xLow, short(xLow)]], ys: ticks(low, high), xLabel, yLabel });
    for (const own of shown) {
      picture.append(svg("path", { class: `line ${own.kind}`, d: own.points.map(([at, value, group], nth) => `${nth && own.points[nth - 1][2] === group ? "L" : "M"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`).join("") }));
      if (own.points.length <= 40) for (const [at, value] of own.points) picture.append(svg("circle", { class: `dot ${own.kind}`, cx: x(at), cy: y(value), r: own.points.length === 1 ? 4 : 2.5 }));
    }
    tooltip(box, tip, picture, width, (place) => {
      const at = all.reduce((best, own) => (Math.abs(x(own) - place) < Math.abs(x(best) - place) ? own : best), all[0]);
      return { x: x(at), title: `${xLabel} ${short(at, 4)}`, lines: shown.filter((own) => value(own, at) !== undefined).map((own) => [own.name, short(value(own, at), 4), own.kind]) };
    });
    put(box, picture, tip);
  });
  return node;
}

/** Bars, stacked or (`grouped`) side by side. `bars` are `{name, title, values}`, with one value per entry of `series` (`{name, kind}`). */
export function bars({ title, about, series, bars: list, xLabel, yLabel, grouped = false }) {
  const { node, box, tip } = card(title, about, series, table([xLabel, ...series.map((own) => own.name)], list.map((bar) => [bar.title || bar.name, ...bar.values])));
  const top = (bar) => bar.values.reduce((a, b) => (grouped ? Math.max(a, b) : a + b), 0);
  const high = Math.max(1, ...list.map(top)) * 1.05;
  responsive(box, (width) => {
    const each = (width - LEFT - RIGHT) / Math.max(1, list.length);
    const x = (at) => LEFT + (at + 0.5) * each;
    const y = (at) => TOP + (1 - at / high) * (HEIGHT - TOP - BOTTOM);
    const picture = svg("svg", { width, height: HEIGHT, role: "img", "aria-label": `${title}. The table has all numbers.` });
    const every = Math.ceil(list.length / Math.max(1, Math.floor((width - LEFT - RIGHT) / 46)));
    axes(picture, width, { x, y, xs: list.map((bar, at) => [at, bar.name]).filter((_, at) => at % every === 0), ys: ticks(0, high), xLabel, yLabel });
    list.forEach((bar, at) => {
      const room = Math.min(each * 0.8, grouped ? 60 : 36);
      const wide = Math.max(1, grouped ? room / series.length : room);
      let base = 0;
      bar.values.forEach((value, nth) => {
        const left = x(at) - room / 2 + (grouped ? nth * wide : 0);
        if (value > 0) picture.append(svg("rect", { class: `bar ${series[nth].kind}`, x: left, width: Math.max(1, wide - (grouped ? 2 : 0)), y: y(base + value), height: Math.max(0.5, y(base) - y(base + value)), rx: 1.5 }));
        if (!grouped) base += value;
      });
    });
    tooltip(box, tip, picture, width, (place) => {
      const at = Math.floor((place - LEFT) / each);
      const bar = list[at];
      return bar ? { x: x(at), title: bar.title || bar.name, lines: series.map((own, nth) => [own.name, short(bar.values[nth], 4), own.kind]) } : null;
    });
    put(box, picture, tip);
  });
  return node;
}
