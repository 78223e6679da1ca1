// Saves corrections one after another, keeps what undoes them, and asks if labels changed meanwhile.

import * as api from "./api.js";
import { dialog, el, put, toast } from "./dom.js";
import * as outbox from "./outbox.js";
import { replaced } from "./timeline.js";

const KEY = "vaplan.undo";
const MOST = 200;
const LATENCIES = 1000;

const listeners = new Set();
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

/** Calls `listener` with `{saved, edits}` after each save, and with `{failed}` or `{conflict}` after one that was not made. */
export function onSave(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

const tell = (event) => listeners.forEach((listener) => listener(event));

export const author = () => localStorage.getItem("vaplan.author") || "";
export const setAuthor = (name) => localStorage.setItem("vaplan.author", name.trim());
/** The corrections without an answer, the oldest first. */
export const waiting = () => outbox.waiting("save");
export const canUndo = () => undos.length > 0;
export const canRedo = () => redos.length > 0;

/** Time from the click to the answer that the version is durable, in milliseconds. */
export function latency() {
  const sorted = [...latencies].sort((a, b) => a - b);
  const at = (share) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
  return { count: sorted.length, last: latencies.at(-1), p50: at(0.5), p99: at(0.99), max: sorted.at(-1) };
}

/**
 * Saves edits as one version. `version` is the one that the person looks at. `weak` are changes of weak labels in the same version.
 * Resolves to the answer, or to null if nothing was saved. A save without an answer is kept, and resolves when it is answered.
 */
export function save(edits, { version, note, clicked = performance.now(), kind = "edit", weak = [] }) {
  if (!outbox.stalled()) showWaiting();
  const request = { version, edits, weak, note: note || null, author: author() || null };
  return outbox.post({ kind: "save", does: kind, clicked, request });
}

async function send(entry) {
  for (;;) {
    try {
      return await api.save(entry.again ? { ...entry.request, again: true } : entry.request);
    } catch (error) {
      if (error.status !== 409) throw error;
      if (!await askConflict(error.body)) {
        entry.conflict = error.body;
        return null;
      }
      entry.request.version = error.body.version;
      entry.clicked = performance.now();
    }
  }
}

function done(entry, answer, rest) {
  if (answer === null) {
    showSaved("");
    tell({ conflict: entry.conflict });
    return;
  }
  const took = performance.now() - entry.clicked;
  if (answer.saved && !entry.again) {
    latencies.push(took);
    if (latencies.length > LATENCIES) latencies.shift();
  }
  if (answer.undo.length + answer.undo_weak.length > 0) {
    const undo = { edits: answer.undo, weak: answer.undo_weak, version: answer.version };
    if (entry.does === "undo") redos.push(undo);
    else undos.push(undo);
    if (entry.does === "edit") redos = [];
    keep();
  }
  // The person made the later corrections of the same labels on top of this one, and saw the version that it made.
  for (const later of rest) if (later.kind === "save" && overlap(entry.request, later.request)) later.request.version = answer.version;
  document.getElementById("version").textContent = `v${answer.version}`;
  if (entry.again) showSaved(answer.saved ? `Version ${answer.version} saved` : "Saved before", "The server did not answer at first.");
  else showSaved(answer.saved ? `Version ${answer.version} saved in ${took.toFixed(0)} ms` : "Nothing changed",
    `Click to durable commit: ${took.toFixed(1)} ms, of which the server took ${answer.milliseconds.toFixed(1)} ms. ` +
    quantiles(), took);
  if (rest.length > 0) showWaiting();
  tell({ saved: answer, edits: entry.request.edits });
}

/** Whether two corrections touch a label in common. A change of a weak label touches all labels of the class. */
function overlap(one, other) {
  const whole = (request) => request.weak.map(({ video, class: name }) => ({ video, class: name, start: 0, end: Infinity }));
  const [spans, others] = [one, other].map((request) => [...request.edits, ...whole(request)]);
  return spans.some((a) => others.some((b) => a.video === b.video && a.class === b.class && a.start < b.end && b.start < a.end &&
    (a.modality === b.modality || !a.modality || !b.modality)));
}

function refused(entry, error) {
  showSaved("");
  if (error) toast(`Not saved: ${error.message}`, "error");
  tell({ failed: entry });
}

outbox.handle("save", { send, done, refused });

/** A video as the server gave it, with the corrections without an answer: `unsaved` of a track has their segments. */
export function withUnsaved(video) {
  const tracks = video.tracks.map((track) => ({ ...track, unsaved: [] }));
  for (const { request } of waiting()) {
    for (const [track, edit] of touched({ ...video, tracks }, request.edits)) track.unsaved.push(edit);
  }
  return { ...video, tracks };
}

/** Makes edits on the tracks of a video, and returns each track with the edit that touches it. */
export function touched(video, edits) {
  return edits.filter((own) => own.video === video.video).flatMap((edit) => {
    const track = video.tracks.find((own) => own.modality === edit.modality && own.class === edit.class);
    if (!track) return [];
    const { start, end, label } = edit;
    // The label of a user is known before the server answers. After a withdrawal, only the server knows it.
    if (label !== null) {
      track.labels = replaced(track.labels, start, end, label ? "1" : "0");
      track.rules = replaced(track.rules, start, end, "u");
    }
    return [[track, edit]];
  });
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
export const undo = (seen) => again("undo", seen);

/** Makes the last save again that was taken back. */
export const redo = (seen) => again("redo", seen);

async function again(kind, seen) {
  // A correction that is under way is the one to take back.
  await outbox.idle();
  if (outbox.stalled()) {
    toast(`There are changes that are not saved: ${kind} waits for them`);
    return null;
  }
  // A save replaces the lists, so that they are looked up after the wait.
  const stack = () => (kind === "undo" ? undos : redos);
  const entry = stack().pop();
  keep();
  if (!entry) {
    toast(kind === "undo" ? "There is nothing to undo" : "There is nothing to redo");
    return null;
  }
  const version = Math.max(entry.version, seen() || 0);
  const weak = entry.weak || [];
  const done = await save(entry.edits, { version, note: `${kind} of version ${entry.version}`, kind, weak });
  if (!done) {
    stack().push(entry);
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
