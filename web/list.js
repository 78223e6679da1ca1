// The list of videos: filters, queues, pages.

import * as api from "./api.js";
import { el, put, short } from "./dom.js";
import { info } from "./app.js";

const ORDERS = [
  ["name", "By name"], ["near", "Nearest to a threshold"], ["parser", "PLG against parser"], ["av", "Audio against visual"],
  ["pld", "Flipped by PLD"], ["loss", "Highest forward loss"], ["wrong", "Against the truth"],
  ["gain", "Classes that gain most from review"],
];
const NAMES = ["q", "class", "modality", "split", "rule", "differs", "reviewed", "unreviewed_first", "order", "page"];
const ROWS = 50;

let last = new URLSearchParams();
let shownRows = { names: [], page: 0, total: 0 };

/** The address of the list as it was last shown. */
export function address() {
  const text = last.toString();
  return text ? `#/videos?${text}` : "#/videos";
}

function filterOf(parameters) {
  const filter = {};
  for (const name of NAMES) if (parameters.get(name)) filter[name] = parameters.get(name);
  return { ...filter, rows: ROWS };
}

/** The video before or after one in the list, over the borders of pages; null at the end of the list. */
export async function neighbour(name, step) {
  if (!shownRows.names.includes(name)) await load(0);
  const at = shownRows.names.indexOf(name);
  if (at < 0) return shownRows.names[0] ?? null;
  const next = shownRows.names[at + step];
  if (next !== undefined) return next;
  const page = shownRows.page + step;
  if (page < 0 || page * ROWS >= shownRows.total) return null;
  await load(page);
  return (step > 0 ? shownRows.names[0] : shownRows.names.at(-1)) ?? null;
}

async function load(page) {
  last.set("page", page);
  remember(await api.videos(filterOf(last)));
}

function remember(found) {
  shownRows = { names: found.list.map((row) => row.video), page: found.page, total: found.total };
}

function select(name, label, options, parameters, go) {
  return el("label", {}, el("span", {}, label), el("select", { name, onchange: go },
    options.map(([value, text]) => el("option", { value, selected: (parameters.get(name) || "") === value }, text))));
}

export async function show(main, { parameters }, still) {
  last = new URLSearchParams(parameters);
  const rows = el("tbody", {});
  const count = el("p", { class: "count", role: "status" }, "Loading");
  const pager = el("div", { class: "pager" });
  let asking = null;
  let timer = 0;
  let at = -1;

  const form = el("form", { id: "filters", class: "filters", role: "search", onsubmit: (event) => { event.preventDefault(); change(); } });
  const go = () => change();
  const search = el("input", { type: "search", name: "q", value: last.get("q") || "", placeholder: "Name of a video", "aria-label": "Search by name",
    oninput: () => { clearTimeout(timer); timer = setTimeout(change, 150); } });
  const classes = info()?.index.classes || [];
  put(form,
    el("label", { class: "wide" }, el("span", {}, "Queue"), el("select", { name: "order", onchange: go },
      ORDERS.map(([value, text]) => el("option", { value, selected: (last.get("order") || "name") === value }, text)))),
    el("label", { class: "wide" }, el("span", {}, "Search"), search),
    select("class", "Class", [["", "Any"], ...classes.map((name) => [name, name])], last, go),
    select("modality", "Modality", [["", "Any"], ["audio", "Audio"], ["visual", "Visual"]], last, go),
    select("split", "Split", [["", "Any"], ["train", "train"], ["val", "val"], ["test", "test"]], last, go),
    select("rule", "Set by", [["", "Any"], ["plg", "PLG only"], ["pld", "PLD flipped"], ["user", "A person"]], last, go),
    select("differs", "Differs", [["", "Any"], ["parser", "PLG and parser"], ["av", "Audio and visual"], ["truth", "Labels and truth"]], last, go),
    select("reviewed", "Reviewed", [["", "Any"], ["false", "Not yet"], ["true", "Yes"]], last, go));
  const first = el("label", { class: "check" }, el("input", { type: "checkbox", name: "unreviewed_first", form: "filters", checked: last.get("unreviewed_first") === "true", onchange: go }),
    el("span", {}, "Unreviewed first"));

  function change(page = 0) {
    last = new URLSearchParams();
    for (const [name, value] of new FormData(form)) {
      if (name === "unreviewed_first") last.set(name, "true");
      else if (value && !(name === "order" && value === "name")) last.set(name, value);
    }
    if (page > 0) last.set("page", page);
    history.replaceState(null, "", address());
    ask();
  }

  async function ask(atLeast) {
    asking?.abort();
    const own = asking = new AbortController();
    try {
      const found = await api.videos({ ...filterOf(last), at_least: atLeast }, own.signal);
      if (own.signal.aborted || !still()) return;
      remember(found);
      fill(found);
    } catch (error) {
      if (own.signal.aborted || !still()) return;
      count.textContent = error.message;
      put(rows);
    }
  }

  function fill(found) {
    const before = found.page * found.rows;
    count.textContent = found.total === 0 ? `No video of ${short(found.videos)} fits` :
      `${short(before + 1, 9)}–${short(before + found.list.length, 9)} of ${short(found.total)} videos` +
      (found.total < found.videos ? ` (${short(found.videos)} in all)` : "") + `, version ${found.version}`;
    count.dataset.version = found.version;
    put(rows, found.list.map((row) => line(row)));
    mark(found.list.length > 0 ? Math.min(Math.max(at, 0), found.list.length - 1) : -1, false);
    const button = (text, label, page, enabled) => el("button", { type: "button", disabled: !enabled, "aria-label": label, onclick: () => change(page) }, text);
    const pages = Math.ceil(found.total / found.rows);
    put(pager, pages > 1 ? [
      button("‹ Previous", "Previous page", found.page - 1, found.page > 0),
      el("span", {}, `Page ${short(found.page + 1)} of ${short(pages)}`),
      button("Next ›", "Next page", found.page + 1, found.page + 1 < pages)] : []);
    pager.dataset.page = found.page;
    pager.dataset.pages = pages;
  }

  function line(row) {
    const number = (name, value, extra) => el("td", { class: `number ${value ? "" : "zero"} ${extra || ""}`, "data-name": name }, value);
    return el("tr", { onclick: (event) => { if (event.target.tagName !== "A") location.hash = link(row.video); } },
      el("td", { class: "name" }, el("a", { href: link(row.video) }, row.video),
        row.user > 0 ? el("span", { class: "tag user", title: `${row.user} labels set by a person` }, "reviewed") : null),
      el("td", { "data-name": "split" }, row.split),
      el("td", { class: "classes", "data-name": "classes" }, row.classes.map((name) => el("span", { class: "tag" }, name)),
        row.classes.length === 0 ? el("span", { class: "faint" }, "no labels") : null),
      number("audio", row.set[0], "audio"), number("visual", row.set[1], "visual"), number("A≠V", row.av), number("PLD", row.pld),
      number("≠ parser", row.parser ?? "–"), number("≠ truth", row.wrong),
      el("td", { class: "number", "data-name": "distance" }, row.near === null ? "–" : `${short(100 * row.near, 2)} %`),
      el("td", { class: "number", "data-name": "loss" }, row.loss === null ? "–" : row.loss.toFixed(2)));
  }

  function mark(to, scroll = true) {
    rows.children[at]?.removeAttribute("aria-selected");
    at = to;
    const row = rows.children[at];
    if (!row) return;
    row.setAttribute("aria-selected", "true");
    if (scroll) row.scrollIntoView({ block: "nearest" });
  }

  const head = [["Video", "", ""], ["Split", "", ""], ["Classes", "", "The weak label"], ["Audio", "number", "Audio labels that are set"],
    ["Visual", "number", "Visual labels that are set"], ["A≠V", "number", "Segments in which audio and visual labels differ"],
    ["PLD", "number", "Labels that PLD flipped"], ["≠ parser", "number", "Segments in which PLG and the parser differ"],
    ["≠ truth", "number", "Segments in which label and truth differ"], ["Distance", "number", "Distance of the nearest score from its threshold"],
    ["Loss", "number", "Highest forward loss"]];
  put(main, el("h1", { class: "hidden" }, "Videos"), form, el("div", { class: "bar" }, count, first, pager),
    el("div", { class: "scroll" }, el("table", { class: "list", "aria-label": "Videos" },
      el("thead", {}, el("tr", {}, head.map(([name, kind, title]) => el("th", { scope: "col", class: kind, title: title || null }, name)))), rows)));
  await ask();
  return {
    leave: () => { asking?.abort(); clearTimeout(timer); },
    newIndex: () => ask(),
    key: (event) => {
      const pages = Number(pager.dataset.pages || 1);
      const page = Number(pager.dataset.page || 0);
      if (event.key === "/") search.focus();
      else if (event.key === "j" || event.key === "ArrowDown") mark(Math.min(at + 1, rows.children.length - 1));
      else if (event.key === "k" || event.key === "ArrowUp") mark(Math.max(at - 1, 0));
      else if (event.key === "Enter" && at >= 0 && event.target.tagName !== "A" && event.target.tagName !== "BUTTON") rows.children[at].querySelector("a").click();
      else if (event.key === "]" && page + 1 < pages) change(page + 1);
      else if (event.key === "[" && page > 0) change(page - 1);
      else return false;
      return true;
    },
  };
}

/** The address of a video. */
export const link = (name) => `#/video/${encodeURIComponent(name)}`;
