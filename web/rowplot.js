// Plots with one row for each class, so that the names of 25 classes and more can be read: marks, bars and cells.

import { el, put, short, svg } from "./dom.js";
import { card, hover, responsive, ticks } from "./plot.js";

/** The most rows that are drawn. The table has all rows. */
export const MOST_ROWS = 60;
const ROW = 20;
const HEAD = 22;
const FOOT = 22;
// Widths of a letter of a number (11 px) and of a name (12 px), in a wide font.
const LETTER = 6.3;
const NAME_LETTER = 7.2;
const GAP = 6;
const WIDE = 40;

/** The width of the names, and the names cut to it. */
function labels(names, width) {
  const longest = Math.max(0, ...names.map((name) => name.length));
  const room = Math.max(48, Math.min(longest * NAME_LETTER + 10, width * 0.38, 190));
  const letters = Math.floor((room - 8) / NAME_LETTER);
  return { room, cut: names.map((name) => (name.length > letters ? `${name.slice(0, Math.max(1, letters - 1))}…` : name)) };
}

/** The picture with the names, and `y` of the middle of each row. */
function frame(title, names, width, height) {
  const { room, cut } = labels(names, width);
  const picture = svg("svg", { class: "rows", width, height, role: "img", "aria-label": `${title}. The table has all numbers.` });
  const y = (row) => HEAD + (row + 0.5) * ROW;
  const band = svg("rect", { class: "band", x: 0, width, height: ROW, visibility: "hidden" });
  picture.append(band, svg("g", {}, cut.map((name, row) => svg("text", { class: "row-name", x: room - 8, y: y(row) + 4, "text-anchor": "end" }, name))));
  const mark = (row) => {
    band.setAttribute("visibility", row === null ? "hidden" : "visible");
    if (row !== null) band.setAttribute("y", HEAD + row * ROW);
  };
  const at = (place) => { const row = Math.floor((place - HEAD) / ROW); return row >= 0 && row < names.length ? row : null; };
  return { picture, room, y, mark, at };
}

function axis(picture, x, values, height, unit) {
  for (const value of values) {
    picture.append(svg("line", { class: "grid", x1: x(value), x2: x(value), y1: HEAD - 4, y2: height - FOOT + 4 }));
    for (const place of [HEAD - 9, height - FOOT + 16]) picture.append(svg("text", { class: "tick", x: x(value), y: place, "text-anchor": "middle" }, `${short(value)}${unit}`));
  }
}

function symbol(kind, x, y) {
  if (kind.includes("ring")) return svg("circle", { class: `symbol ${kind}`, cx: x, cy: y, r: 5 });
  if (kind.includes("diamond")) return svg("path", { class: `symbol ${kind}`, d: `M${x} ${y - 5.5}L${x + 5.5} ${y}L${x} ${y + 5.5}L${x - 5.5} ${y}Z` });
  return svg("circle", { class: `symbol ${kind}`, cx: x, cy: y, r: 4 });
}

/** Marks on a line for each row. `rows` are `{name, values}` with one value or null per entry of `series` (`{name, kind}`). */
export function marks({ title, about, series, rows, rowLabel, unit = "" }) {
  const { node, box, tip } = card(title, about, series, rowTable([rowLabel, ...series.map((own) => own.name)], rows));
  const drawn = rows.slice(0, MOST_ROWS);
  const values = drawn.flatMap((row) => row.values.filter((value) => value !== null));
  const low = Math.floor(Math.min(...values, 100) / 10) * 10;
  const high = Math.max(low + 10, Math.ceil(Math.max(...values, 0) / 10) * 10);
  const height = HEAD + drawn.length * ROW + FOOT;
  responsive(box, (width) => {
    const { picture, room, y, mark, at } = frame(title, drawn.map((row) => row.name), width, height);
    const x = (value) => room + 8 + (value - low) / (high - low) * (width - room - 32);
    axis(picture, x, ticks(low, high), height, unit);
    drawn.forEach((row, nth) => {
      const found = row.values.filter((value) => value !== null);
      if (found.length > 1) picture.append(svg("line", { class: "span", x1: x(Math.min(...found)), x2: x(Math.max(...found)), y1: y(nth), y2: y(nth) }));
      row.values.forEach((value, own) => { if (value !== null) picture.append(symbol(series[own].kind, x(value), y(nth))); });
    });
    hover(box, tip, picture, width, (place, high) => {
      const row = at(high);
      if (row === null) return null;
      return { x: place, y: y(row), row, title: drawn[row].name, lines: series.map((own, nth) => [own.name, shown(drawn[row].values[nth], unit), own.kind]) };
    }, (found) => mark(found ? found.row : null));
    put(box, picture, tip);
  });
  return node;
}

/** Stacked bars, one for each row. `rows` and `series` are those of `marks`. */
export function rowBars({ title, about, series, rows, rowLabel }) {
  const { node, box, tip } = card(title, about, series, rowTable([rowLabel, ...series.map((own) => own.name)], rows));
  const drawn = rows.slice(0, MOST_ROWS);
  const most = Math.max(1, ...drawn.map((row) => row.values.reduce((a, b) => a + b, 0)));
  const height = HEAD + drawn.length * ROW + FOOT;
  responsive(box, (width) => {
    const { picture, room, y, mark, at } = frame(title, drawn.map((row) => row.name), width, height);
    const x = (value) => room + value / most * (width - room - 24);
    axis(picture, x, ticks(0, most).filter(Number.isInteger), height, "");
    drawn.forEach((row, nth) => {
      let base = 0;
      row.values.forEach((value, own) => {
        if (value > 0) picture.append(svg("rect", { class: `bar ${series[own].kind}`, x: x(base), width: Math.max(1, x(base + value) - x(base)), y: y(nth) - 6, height: 12, rx: 1.5 }));
        base += value;
      });
    });
    hover(box, tip, picture, width, (place, high) => {
      const row = at(high);
      if (row === null) return null;
      return { x: place, y: y(row), row, title: drawn[row].name, lines: series.map((own, nth) => [own.name, shown(drawn[row].values[nth], ""), own.kind]) };
    }, (found) => mark(found ? found.row : null));
    put(box, picture, tip);
  });
  return node;
}

/**
 * Cells of rows and columns. `columns` are `{name, title, gap, wide}`, with room before a column that has a `gap`; `rows` are
 * `{name, values}`, with one list of values per column, and one value or null per entry of `series` (`{name, kind}`). The parts of
 * a cell stand above each other. `scale` is `{low, high, shade}`: `shade` gives 0 to 1 for a value.
 */
export function cells({ title, about, series, columns, rows, rowLabel, columnLabel, scale, unit = "" }) {
  const head = [rowLabel, ...columns.flatMap((column) => series.map((own) => (series.length > 1 ? `${column.title}: ${own.name}` : column.title)))];
  const { node, box, tip } = card(title, about, [], rowTable(head, rows.map((row) => ({ name: row.name, values: row.values.flat() }))));
  box.before(el("ul", { class: "keys-of-plot" }, series.map((own) => el("li", {}, series.length > 1 ? own.name : null,
    el("span", { class: "faint" }, `${short(scale.low)}${unit}`), el("span", { class: `ramp ${own.kind}`, "aria-hidden": "true" }), el("span", { class: "faint" }, `${short(scale.high)}${unit}`)))));
  const drawn = rows.slice(0, MOST_ROWS);
  const height = HEAD + drawn.length * ROW + FOOT;
  responsive(box, (width) => {
    const { picture, room, mark, at } = frame(title, drawn.map((row) => row.name), width, height);
    const widths = spread(columns, width - room - 6);
    const lefts = [];
    columns.reduce((left, column, nth) => { lefts[nth] = left + (column.gap ? GAP : 0); return lefts[nth] + widths[nth]; }, room);
    const every = stepOf(columns, Math.min(...widths));
    columns.forEach((column, nth) => {
      if (Number.isInteger(column.name) && column.name % every !== 0) return;
      for (const place of [HEAD - 7, height - FOOT + 14]) picture.append(svg("text", { class: "tick", x: lefts[nth] + widths[nth] / 2, y: place, "text-anchor": "middle" }, column.name));
    });
    for (const place of [HEAD - 7, height - FOOT + 14]) picture.append(svg("text", { class: "axis", x: room - 8, y: place, "text-anchor": "end" }, columnLabel));
    const part = (ROW - (series.length > 1 ? 4 : 2)) / series.length;
    drawn.forEach((row, line) => columns.forEach((_, nth) => row.values[nth].forEach((value, own) => {
      if (value === null) return;
      const shade = scale.shade(value);
      const between = widths[nth] > 6 ? 1 : 0;
      picture.append(svg("rect", { class: `cell ${series[own].kind} ${shade > 0 ? "" : "none"}`, x: lefts[nth], width: Math.max(0.5, widths[nth] - between), y: HEAD + line * ROW + 1 + own * part, height: part,
        "fill-opacity": shade > 0 ? (0.1 + 0.9 * shade).toFixed(2) : null }));
    })));
    const outline = svg("rect", { class: "outline", height: ROW, visibility: "hidden" });
    picture.append(outline);
    hover(box, tip, picture, width, (place, high) => {
      const row = at(high);
      const column = lefts.findIndex((left, nth) => place >= left && place < left + widths[nth]);
      if (row === null || column < 0) return null;
      const values = drawn[row].values[column];
      return { x: lefts[column] + widths[column] / 2, y: HEAD + (row + 0.5) * ROW, row, column, title: `${drawn[row].name}, ${columns[column].title}`, lines: series.map((own, nth) => [own.name, shown(values[nth], unit), own.kind]) };
    }, (found) => {
      mark(found ? found.row : null);
      outline.setAttribute("visibility", found ? "visible" : "hidden");
      if (!found) return;
      outline.setAttribute("x", lefts[found.column] - 1);
      outline.setAttribute("width", widths[found.column] + 1);
      outline.setAttribute("y", HEAD + found.row * ROW);
    });
    put(box, picture, tip);
  });
  return node;
}

/** The widths of columns: a `wide` column has room for its name, and the others share what is left. */
function spread(columns, width) {
  const wide = columns.filter((column) => column.wide);
  const left = width - columns.filter((column) => column.gap).length * GAP - wide.length * WIDE;
  const each = Math.min(WIDE, left / Math.max(1, columns.length - wide.length));
  return columns.map((column) => (column.wide ? WIDE : each));
}

/** Every how many numbers a column is named, so that the names have room: 1, 2, 5, 10 and so on. */
function stepOf(columns, each) {
  const longest = Math.max(...columns.filter((column) => !column.wide).map((column) => String(column.name).length), 1);
  const least = (longest * LETTER + 6) / each;
  return [1, 2, 5, 10, 20, 50, 100, 200, 500].find((step) => step >= least) || 1000;
}

const shown = (value, unit) => (value === null ? "–" : `${short(value, 4)}${unit}`);

function rowTable(head, rows) {
  return el("div", { class: "scroll" }, el("table", {},
    el("thead", {}, el("tr", {}, head.map((name, at) => el("th", { scope: "col", class: at > 0 ? "number" : "" }, name)))),
    el("tbody", {}, rows.map((row) => el("tr", {}, el("th", { scope: "row" }, row.name), row.values.map((value) => el("td", { class: "number" }, shown(value, ""))))))));
}
