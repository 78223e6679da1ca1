// The frame of the page: routes, header, help, and the version of the store.

import * as api from "./api.js";
import * as audit from "./audit.js";
import { askAuthor, author } from "./edits.js";
import { dialog, el, put, toast } from "./dom.js";
import * as list from "./list.js";
import * as outbox from "./outbox.js";
import * as overview from "./overview.js";
import * as video from "./video.js";

const KEYS = [
  ["Everywhere", [
    ["?", "this help"], ["1", "overview"], ["2", "list of videos"], ["3", "audit"],
  ]],
  ["List", [
    ["/", "search"], ["j, ↓ and k, ↑", "next and previous row"], ["Enter", "open the video"], ["[ and ]", "previous and next page"],
  ]],
  ["Video: player", [
    ["Space", "play or pause"], ["e", "play only this event"], [", and .", "previous and next event"],
    ["s and d", "slower and faster, 0.25 to 4"], ["n and p", "next and previous video of the list"], ["l", "back to the list"],
  ]],
  ["Video: labels", [
    ["← →", "move the cursor by a segment"], ["Shift ← →", "select segments"], ["↑ ↓", "other track"],
    ["Enter", "set or clear the selected labels"], ["Backspace", "withdraw: back to thresholds and denoising"],
    ["c", "confirm all labels of the track"], ["a", "add a class to the weak label, and label it"], ["z", "undo"], ["Shift z", "redo"], ["+, − and 0", "zoom"], ["h", "history"],
  ]],
  ["Audit", [
    ["y", "yes, the event occurs"], ["n", "no"], ["u", "unsure"], ["Space", "play the segment"],
    ["← →", "previous and next segment"], ["o", "next segment without a verdict"], ["z", "undo"],
  ]],
  ["Mouse or finger", [
    ["click", "set or clear a label"], ["drag", "set or clear several"], ["drag the end of an event", "move its edge"],
    ["Alt and click", "withdraw"], ["click a curve", "jump to that time"],
  ]],
];

const AGAIN = 1500;
const pages = { overview, videos: list, video, audit };
const main = document.getElementById("main");
let state = null;
let current = null;
let shown = null;

/** What the server said about the store last. */
export const info = () => state;

function help() {
  if (document.querySelector("dialog[open]")) return;
  const box = dialog("Keys", el("div", { class: "keys" }, KEYS.map(([title, keys]) => el("section", {}, el("h3", {}, title),
    el("dl", {}, keys.map(([key, what]) => [el("dt", {}, el("kbd", {}, key)), el("dd", {}, what)]))))));
  box.id = "help-dialog";
}

function route() {
  const [path, search = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [page, ...rest] = path.split("/");
  const parameters = new URLSearchParams(search);
  if (page === "videos") return { page, parameters };
  if (page === "audit") return { page, parameters };
  if (page === "video") return { page, parameters, name: decodeURIComponent(rest.join("/")) };
  return { page: "overview", parameters };
}

async function show() {
  const next = route();
  current?.leave?.();
  current = null;
  for (const link of document.querySelectorAll("header nav a")) {
    const own = link.dataset.page === next.page || (next.page === "video" && link.dataset.page === "videos");
    if (own) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const turn = shown = {};
  main.dataset.page = next.page;
  try {
    const page = await pages[next.page].show(main, next, () => shown === turn);
    if (shown === turn) current = page;
    else page?.leave?.();
  } catch (error) {
    if (shown !== turn) return;
    if (error.status === 503) {
      // A large store is read for some seconds after the start of the server.
      put(main, el("p", { class: "wait" }, "Reading the store"));
      setTimeout(() => { if (shown === turn) show(); }, AGAIN);
    } else put(main, el("div", { class: "failed" }, el("h1", {}, "This page cannot be shown"), el("p", {}, error.message),
      error.status === 401 ? el("p", {}, "Open the URL that `vaplan serve` printed in the terminal.") : null));
  }
}

async function look() {
  if (document.hidden) return;
  try {
    const before = state;
    state = await api.info();
    outbox.answered(state.store);
    document.getElementById("version").textContent = `v${state.version}`;
    const store = document.getElementById("store");
    store.textContent = state.store.split("/").filter(Boolean).at(-1) || state.store;
    store.title = state.store;
    showAuthor();
    document.body.classList.toggle("read-only", state.read_only);
    if (before && state.version > before.version) current?.newVersion?.(state.version);
    if (before?.index.version !== state.index.version) current?.newIndex?.(state.index.version);
  } catch (error) {
    outbox.unanswered(error);
    document.getElementById("version").textContent = error.status === 401 ? "new token" : "no answer";
    if (error.status === 401 && !state) put(main, el("div", { class: "failed" }, el("h1", {}, "The token is missing"), el("p", {}, error.message)));
  }
}

function showAuthor() {
  const button = document.getElementById("author");
  button.textContent = state?.read_only ? "Read-only" : author() || state?.author || "No author";
  button.disabled = Boolean(state?.read_only);
}

function typing(target) {
  return target instanceof HTMLElement && (target.isContentEditable || /^(INPUT|SELECT|TEXTAREA)$/.test(target.tagName));
}

document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || document.querySelector("dialog[open]")) return;
  if (typing(event.target)) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  if (event.altKey || ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() !== "z")) return;
  if (event.key === "?") help();
  else if (event.key === "1") location.hash = "#/";
  else if (event.key === "2") location.hash = list.address();
  else if (event.key === "3") location.hash = audit.address();
  else if (!current?.key?.(event)) return;
  event.preventDefault();
});

document.getElementById("help").addEventListener("click", help);
document.getElementById("author").addEventListener("click", () => askAuthor(state?.author, showAuthor));
window.addEventListener("hashchange", show);
document.addEventListener("visibilitychange", look);
window.addEventListener("unhandledrejection", (event) => toast(event.reason?.message || String(event.reason), "error"));

// The token has done its work once the cookie is there. It must not stay in the address bar or the history.
if (location.search) history.replaceState(null, "", location.pathname + location.hash);
await look();
await show();
setInterval(look, 2500);
