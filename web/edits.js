// Saves corrections one after another, keeps what undoes them, and asks if labels changed meanwhile.

import * as api from "./api.js";
import { dialog, el, put, toast } from "./dom.js";

const KEY = "vaplan.undo";
const MOST = 200;
const LATENCIES = 1000;

const listeners = new Set();
let queue = Promise.resolve();
let waiting = 0;
let undos = [];
let redos = [];
const latencies = [];

try {
  const kept = JSON.parse(sessionStorage.getItem(KEY) || "{}");
  undos = kept.undos || [];
  redos = kept.redos || [];
} catch { /* A damaged memory of undo is an empty one. */ }

function keep() {
  undos = undos.slice(-MOST);
  redos = redos.slice(-MOST);
  try { sessionStorage.setItem(KEY, JSON.stringify({ undos, redos })); } catch { /* The page works without it. */ }
}

/** Calls `listener` with `{saved, video}` after each save, and with `{failed}` after one that was not made. */
export function onSave(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

const tell = (event) => listeners.forEach((listener) => listener(event));

export const author = () => localStorage.getItem("vaplan.author") || "";
export const setAuthor = (name) => localStorage.setItem("vaplan.author", name.trim());
export const pending = () => waiting;
export const canUndo = () => undos.length > 0;
export const canRedo = () => redos.length > 0;

/** Time from the click to the answer that the version is durable, in milliseconds. */
export function latency() {
  const sorted = [...latencies].sort((a, b) => a - b);
  const at = (share) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
  return { count: sorted.length, last: latencies.at(-1), p50: at(0.5), p99: at(0.99), max: sorted.at(-1) };
}

/**
 * Saves edits as one version. `seen` returns the version that the person looks at; it is asked when the turn of this save
 * comes, because an earlier save makes a new version. `weak` are changes of weak labels in the same version. Resolves to the answer, or to null if nothing was saved.
 */
export function save(edits, { seen, note, clicked = performance.now(), kind = "edit", weak = [] }) {
  waiting += 1;
  showWaiting();
  const turn = queue.then(() => send(edits, weak, seen(), note, clicked, kind));
  queue = turn.catch(() => null);
  return turn.catch((error) => {
    tell({ failed: error });
    toast(`Not saved: ${error.message}`, "error");
    return null;
  }).finally(() => {
    waiting -= 1;
    if (waiting === 0 && document.getElementById("saved").dataset.state === "saving") showSaved("");
  });
}

async function send(edits, weak, version, note, clicked, kind) {
  const request = { version, edits, weak, note: note || null, author: author() || null };
  let answer;
  for (;;) {
    try {
      answer = await api.save(request);
      break;
    } catch (error) {
      if (error.status !== 409) throw error;
      const resend = await askConflict(error.body);
      if (!resend) {
        tell({ conflict: error.body });
        return null;
      }
      request.version = error.body.version;
      clicked = performance.now();
    }
  }
  const took = performance.now() - clicked;
  if (answer.saved) {
    latencies.push(took);
    if (latencies.length > LATENCIES) latencies.shift();
  }
  if (answer.undo.length + answer.undo_weak.length > 0) {
    const entry = { edits: answer.undo, weak: answer.undo_weak, version: answer.version };
    if (kind === "undo") redos.push(entry);
    else undos.push(entry);
    if (kind === "edit") redos = [];
    keep();
  }
  document.getElementById("version").textContent = `v${answer.version}`;
  showSaved(answer.saved ? `Version ${answer.version} saved in ${took.toFixed(0)} ms` : "Nothing changed",
    `Click to durable commit: ${took.toFixed(1)} ms, of which the server took ${answer.milliseconds.toFixed(1)} ms. ` +
    quantiles(), took);
  tell({ saved: answer, edits });
  return answer;
}

function quantiles() {
  const { count, p50, p99 } = latency();
  return count > 1 ? `${count} saves: p50 ${p50.toFixed(0)} ms, p99 ${p99.toFixed(0)} ms.` : "";
}

export function showWaiting() {
  const box = document.getElementById("saved");
  box.dataset.state = "saving";
  box.textContent = "Saving";
}

export function showSaved(text, title = "", took = null) {
  const box = document.getElementById("saved");
  box.dataset.state = text ? "saved" : "";
  box.textContent = text;
  box.title = title;
  if (took !== null) box.dataset.milliseconds = took.toFixed(2);
}

/** Takes the last save back, as a version of its own. Returns the videos that it touches. */
export function undo(seen) { return again(undos, "undo", seen, "undo of version"); }

/** Makes the last save again that was taken back. */
export function redo(seen) { return again(redos, "redo", seen, "redo of version"); }

async function again(stack, kind, seen, note) {
  const entry = stack.pop();
  keep();
  if (!entry) {
    toast(kind === "undo" ? "There is nothing to undo" : "There is nothing to redo");
    return null;
  }
  const version = Math.max(entry.version, seen() || 0);
  const weak = entry.weak || [];
  const done = await save(entry.edits, { seen: () => version, note: `${note} ${entry.version}`, kind, weak });
  if (!done) {
    stack.push(entry);
    keep();
    return null;
  }
  return { ...done, videos: [...new Set([...entry.edits, ...weak].map((edit) => edit.video))] };
}

const say = (label) => label.rule === "user" ? `${label.label ? "set" : "clear"} by a person` : `${label.label ? "set" : "clear"} (${label.rule})`;
const wants = (label) => label === null ? "withdraw" : label ? "set" : "clear";

function askConflict(conflict) {
  return new Promise((resolve) => {
    let answer = false;
    const rows = conflict.tracks.flatMap((track) => track.segments.map((segment, nth) => el("tr", {},
      el("td", {}, track.video), el("td", {}, `${track.modality} ${track.class}`), el("td", { class: "number" }, segment),
      el("td", {}, track.seen?.[nth] ? say(track.seen[nth]) : "unknown"),
      el("td", {}, track.now[nth] ? say(track.now[nth]) : "gone"),
      el("td", {}, wants(track.wanted[nth])))));
    const versions = conflict.versions.map((row) => el("li", {},
      `Version ${row.version}`, row.author ? ` by ${row.author}` : "", row.note ? `: ${row.note}` : `: ${row.command}`));
    const box = dialog("These labels changed while you looked at them",
      el("p", {}, `You saw version ${conflict.seen}; the store is at version ${conflict.version}. Nothing was saved.`),
      el("ul", { class: "versions" }, versions),
      el("div", { class: "scroll" }, el("table", { id: "conflict" },
        el("thead", {}, el("tr", {}, ["Video", "Track", "Segment", "You saw", "Now", "You want"].map((name) => el("th", { scope: "col" }, name)))),
        el("tbody", {}, rows))),
      el("div", { class: "actions" },
        el("button", { type: "button", onclick: () => box.close() }, "Keep what is there now"),
        el("button", { type: "button", class: "primary", id: "resend", onclick: () => { answer = true; box.close(); } }, "Save mine over it")));
    box.addEventListener("close", () => resolve(answer));
  });
}

/** Asks for the name that versions get. */
export function askAuthor(fallback, done) {
  const input = el("input", { type: "text", maxlength: 100, value: author(), placeholder: fallback || "", "aria-label": "Author" });
  const box = dialog("Author of your corrections",
    el("p", {}, "Each save is a store version with this name. Leave it empty to use the name that the server has."),
    el("form", { onsubmit: (event) => { event.preventDefault(); setAuthor(input.value); box.close(); done(); } },
      input, el("div", { class: "actions" }, el("button", { class: "primary" }, "Use this name"))));
  input.focus();
}

/** Shows the number of saves in a node, for the page of a video. */
export function showStacks(undoButton, redoButton) {
  undoButton.disabled = !canUndo();
  redoButton.disabled = !canRedo();
  put(undoButton, `Undo${undos.length ? ` (${undos.length})` : ""}`);
  put(redoButton, `Redo${redos.length ? ` (${redos.length})` : ""}`);
}
