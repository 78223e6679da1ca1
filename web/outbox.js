// Requests that change the store, sent one after another. A request without an answer is kept, and is sent again when the
// server answers: the page never shows as saved what may not be in the store.

import { count, el, put } from "./dom.js";

const KEY = "vaplan.unsaved";
/** Statuses after which nobody knows whether the store has the change, or after which the same request can succeed. */
const OPEN = [0, 401, 502, 503, 504];

const handlers = {};
const listeners = new Set();
let entries = [];
let store = null;
let sending = false;
let run = Promise.resolve();
let kept = false;
/** Why the first entry is not saved: `{status, message}`; null while entries are sent. */
let problem = null;

try {
  entries = JSON.parse(sessionStorage.getItem(KEY) || "[]");
  kept = entries.length > 0;
  if (kept) problem = { status: 0, message: "the page was closed before the server answered" };
} catch { /* A damaged memory has no request that could be sent. */ }

/**
 * Says how requests of a kind are handled: `send(entry)` resolves to the answer. Then `done(entry, answer, rest)` is called, or
 * `refused(entry, error)` if the server refused the request; `error` is null if the person discarded it. `answer` is null if the person kept what the store has.
 */
export function handle(kind, handler) { handlers[kind] = handler; }

/** Calls `listener` when requests stop being answered, and when they are answered again or discarded. */
export function onStall(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** The requests of a kind without an answer, the oldest first. */
export const waiting = (kind) => entries.filter((entry) => entry.kind === kind);
export const stalled = () => problem !== null;

/** Sends a request after those before it. `entry` is `{kind, request, ..}`. Resolves to the answer, or to null if nothing was saved. */
export function post(entry) {
  return new Promise((resolve) => {
    // A function is not kept when the page is closed, so that only the page that sent the request hears of it.
    entries.push({ ...entry, store, resolve });
    if (problem) show();
    else if (!sending) run = pump();
  });
}

/** Resolves when no request is under way: all were answered, or the first one is stalled. */
export const idle = () => run;

async function pump() {
  sending = true;
  try {
    while (entries.length > 0 && !problem) await sendFirst();
  } finally {
    sending = false;
    show();
  }
}

async function sendFirst() {
  const [entry] = entries;
  const handler = handlers[entry.kind];
  let answer = null;
  let refusal = null;
  try {
    answer = await handler.send(entry);
  } catch (error) {
    if (OPEN.includes(error.status) || error.body?.kind === "read_only") {
      entry.again = true;
      problem = { status: error.status, message: error.message };
      return;
    }
    refusal = error;
  }
  entries.shift();
  if (refusal) handler.refused(entry, refusal);
  else handler.done(entry, answer, entries);
  entry.resolve?.(answer);
}

/** Sends the requests again that were not answered. */
export function retry() {
  if (!problem || sending) return;
  if (entries.some((entry) => entry.store !== null && store !== null && entry.store !== store)) return;
  problem = null;
  say("saving", "Saving");
  show();
  run = pump();
}

function say(state, text) {
  const saved = document.getElementById("saved");
  saved.dataset.state = state;
  saved.textContent = text;
}

/** Forgets the requests that were not answered. */
export function discard() {
  if (!problem || sending) return;
  const gone = entries;
  entries = [];
  problem = null;
  say("", "");
  // The latest first, so that each gives back what was there before it.
  for (const entry of gone.reverse()) {
    handlers[entry.kind].refused(entry, null);
    entry.resolve?.(null);
  }
  show();
}

/** The server answered, and serves this store: requests that it did not answer are sent again. */
export function answered(path) {
  store = path;
  if (problem && (problem.status === 0 || problem.status === 401)) retry();
  if (problem) show();
}

/** The server did not answer, or the token is wrong: from now on, an answer means that the server is back. */
export function unanswered(error) {
  if (!problem || sending || ![0, 401].includes(error.status)) return;
  problem = { status: error.status, message: error.message };
  show();
}

// The page may be closed while a request is under way. Whether the store has the change is found out by sending it again.
window.addEventListener("pagehide", keep);
window.addEventListener("beforeunload", (event) => { if (problem) event.preventDefault(); });

function keep() {
  kept = entries.length > 0;
  try {
    if (kept) sessionStorage.setItem(KEY, JSON.stringify(entries.map(({ resolve, ...entry }) => ({ ...entry, again: true }))));
    else sessionStorage.removeItem(KEY);
  } catch { /* The page works without a memory; the requests then last as long as the page. */ }
}

function advice() {
  const port = location.port || "80";
  const other = entries.find((entry) => entry.store !== null && store !== null && entry.store !== store);
  if (other) return `The server now serves ${store}, and these changes belong to ${other.store}: serve that store with --port ${port}.`;
  if (problem.status === 401) return "The server has a new token. Open the URL that it printed in this browser, in any tab. This page then saves what is not saved.";
  if (problem.status === 0) return `${sentence(problem.message)} Start it again with --port ${port}, and open the URL that it prints in this browser, in any tab. This page then saves what is not saved.`;
  return sentence(problem.message);
}

/** A message as a sentence: with a capital letter, and a full stop unless it ends as a question. */
const sentence = (text) => `${text.charAt(0).toUpperCase()}${text.slice(1)}${/[.?!]$/.test(text) ? "" : "."}`;

function show() {
  const box = document.getElementById("unsaved");
  const before = !box.hidden;
  box.hidden = !problem;
  document.body.classList.toggle("stalled", Boolean(problem));
  if (problem) {
    const what = count(entries.length, "change");
    put(box,
      el("p", {}, el("b", {}, `${what} ${entries.length === 1 ? "is" : "are"} not saved. `), advice()),
      el("div", { class: "group" },
        el("button", { type: "button", class: "primary", id: "try-again", onclick: retry }, "Try again"),
        el("button", { type: "button", id: "discard", onclick: discard }, `Discard ${what}`)));
    say("unsaved", "Not saved");
  }
  if (problem || kept) keep();
  if (problem || before) listeners.forEach((listener) => listener());
}

if (problem) show();
