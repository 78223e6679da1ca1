// The page of one video: player, timeline, corrections, history.

import * as api from "./api.js";
import { info } from "./app.js";
import { el, put, toast, when } from "./dom.js";
import * as edits from "./edits.js";
import { onStall } from "./outbox.js";
import { askClass } from "./classes.js";
import { address, link, neighbour } from "./list.js";
import { Timeline, runs } from "./timeline.js";

const SPEEDS = [0.25, 0.5, 0.75, 1, 1.25, 1.5, 2, 3, 4];

export async function show(main, { name }, still) {
  // As the server gave it, with the corrections that it saved since.
  let stored = await api.video(name);
  if (!still()) return null;
  // With the corrections that are not saved yet. This is what is drawn.
  let video = edits.withUnsaved(stored);
  const readOnly = Boolean(info()?.read_only);
  const timeline = new Timeline({ edit, seek, confirm }, readOnly);
  let player = null;
  let stopAt = null;
  let frame = 0;
  let historyOpen = false;

  const button = (text, keys, action, attributes) => el("button", { type: "button", title: keys ? `${text} (${keys})` : text, onclick: action, ...attributes }, text);
  const undoButton = button("Undo", "z", () => takeBack("undo"), { id: "undo" });
  const redoButton = button("Redo", "Shift z", () => takeBack("redo"), { id: "redo" });
  const note = el("input", { type: "text", id: "note", maxlength: 2000, placeholder: "Note for the next save", "aria-label": "Note for the next save" });
  const speed = el("select", { "aria-label": "Speed", onchange: () => { if (player) player.playbackRate = Number(speed.value); } },
    SPEEDS.map((own) => el("option", { value: String(own), selected: own === 1 }, `${own}×`)));
  const playButton = button("Play", "Space", toggle, { id: "play", class: "primary" });
  const facts = el("p", { class: "facts" });
  const missing = el("div", {});
  const historyBox = el("details", { class: "history", ontoggle: () => { historyOpen = historyBox.open; if (historyOpen) loadHistory(); } }, el("summary", {}, "History of this video"), el("div", { id: "history" }));
  const stage = el("div", { class: "stage" });

  put(main,
    el("div", { class: "video-head" },
      el("a", { class: "back", href: address(), title: "Back to the list (l)" }, "‹ Videos"),
      el("h1", { id: "video-name" }, video.video),
      el("span", { class: "grow" }),
      button("‹ Previous", "p", () => go(-1)), button("Next ›", "n", () => go(1))),
    facts, missing, stage,
    el("div", { class: "tools" },
      el("div", { class: "group", id: "player-tools" }, playButton, button("This event", "e", playEvent), speed),
      el("div", { class: "group" }, button("‹ Event", ",", () => jump(-1)), button("Event ›", ".", () => jump(1))),
      el("div", { class: "group" }, button("−", "-", () => timeline.zoomBy(0.5), { "aria-label": "Zoom out" }), button("+", "+", () => timeline.zoomBy(2), { "aria-label": "Zoom in" })),
      readOnly ? null : el("div", { class: "group" }, button("Add class", "a", addClass, { id: "add-class" }), undoButton, redoButton),
      readOnly ? null : note),
    timeline.node, timeline.detail, legend(), historyBox);
  document.title = `${video.video} – vaplan`;

  makePlayer();
  refresh(stored);
  const forget = edits.onSave((event) => {
    edits.showStacks(undoButton, redoButton);
    if (event.saved) {
      edits.touched(stored, event.edits);
      stored.version = Math.max(stored.version, event.saved.version);
    } else draw();
    // The labels that follow from a withdrawal, and the rules, are known to the server only.
    if (edits.waiting().length === 0) reload();
  });
  const forgetStall = onStall(draw);
  if (matchMedia("(pointer: fine)").matches) timeline.view.focus({ preventScroll: true });

  function draw() {
    video = edits.withUnsaved(stored);
    timeline.set(video);
  }

  function refresh(next) {
    stored = next;
    draw();
    const tracks = (modality) => video.tracks.filter((track) => track.modality === modality).length;
    put(facts, el("span", { class: "tag" }, video.split), ` ${video.segments} segments of ${video.segment_seconds} s`,
      ` · weak label: ${video.weak_labels.join(", ") || "none"}`,
      video.epoch === null ? "" : ` · parser of epoch ${video.epoch}`,
      ` · ${tracks("audio")} audio and ${tracks("visual")} visual tracks`,
      el("span", { class: "faint", id: "shown-version" }, ` · version ${video.version}`));
    put(missing, video.missing.map(([modality, reasons]) => el("p", { class: "warning" }, `No ${modality} labels${reasons.length ? `: ${reasons.join("; ")}` : ""}`)));
    edits.showStacks(undoButton, redoButton);
    if (historyOpen) loadHistory();
  }

  async function reload() {
    try {
      const next = await api.video(name);
      if (still() && next.version >= stored.version && edits.waiting().length === 0) refresh(next);
    } catch (error) {
      if (!still()) return;
      draw();
      toast(error.message, "error");
    }
  }

  async function loadHistory() {
    try {
      const { versions } = await api.history(name);
      put(historyBox.querySelector("#history"), versions.length === 0 ? el("p", { class: "faint" }, "No version changed a label.") : el("ol", { class: "versions" }, versions.map((row) => el("li", {},
        el("b", {}, `Version ${row.version}`), `, ${when(row.committed_at)}`, row.author ? `, by ${row.author}` : "", row.note ? `: “${row.note}”` : "",
        row.author ? null : el("span", { class: "faint command", title: row.command }, row.command),
        el("ul", {}, row.changes.map((change) => el("li", {}, el("span", { class: `tag ${change.modality}` }, `${change.modality} ${change.class}`),
          ` ${change.to ? "set" : "cleared"} by ${change.rule} in ${spans(change.segments)}`)))))));
    } catch (error) { toast(error.message, "error"); }
  }

  // Corrections

  function send(list, clicked, kind, weak) {
    const text = note.value;
    note.value = "";
    return edits.save(list, { version: stored.version, note: text, clicked, kind, weak }).then((done) => {
      if (!done && text) note.value = text;
      return done;
    });
  }

  function edit(at, list, clicked = performance.now()) {
    if (readOnly) return toast("The server is read-only");
    const track = video.tracks[at];
    const sent = send(list.map((own) => ({ video: video.video, modality: track.modality, class: track.class, ...own })), clicked);
    // The request leaves first, and the browser draws while the server commits.
    queueMicrotask(draw);
    return sent;
  }

  /** Makes the labels of a track those of a person, as they are. */
  function confirm(at) {
    const track = video.tracks[at];
    if (track) edit(at, runs(track.labels).map(([letter, start, end]) => ({ start, end, label: letter === "1" })));
  }

  /** Adds a class to the weak label, and labels it, as one version. */
  async function addClass() {
    if (readOnly || document.querySelector("dialog[open]")) return;
    const asked = await askClass(video, info()?.index.classes || [], video.tracks[timeline.cursor.track]?.modality, selected());
    if (!asked || !still()) return;
    const { name, modalities, start, end } = asked;
    const list = modalities.map((modality) => ({ video: video.video, modality, class: name, start, end, label: true }));
    const done = await send(list, performance.now(), "edit", [{ video: video.video, class: name, present: true }]);
    if (!done || !still()) return;
    await reload();
    const at = video.tracks.findIndex((track) => track.class === name && (modalities.length === 0 || modalities.includes(track.modality)));
    if (at >= 0) timeline.moveTo(at, Math.min(start, video.segments - 1), Math.min(end, video.segments));
    timeline.view.focus({ preventScroll: true });
  }

  async function takeBack(what) {
    if (readOnly) return;
    const done = await edits[what](() => stored.version);
    if (done && !done.videos.includes(video.video) && still()) location.hash = link(done.videos[0]);
  }

  const selected = () => ({ start: timeline.cursor.start, end: timeline.cursor.end });

  // Player

  function makePlayer() {
    const tools = main.querySelector("#player-tools");
    if (!video.media) {
      tools.hidden = true;
      if (info()?.media) put(stage, el("p", { class: "faint" }, "There is no media file of this video. The timeline works without it."));
      return;
    }
    player = el(video.media, { src: api.mediaUrl(video.video), preload: "auto", playsinline: true, controls: video.media === "audio", "aria-label": `Media of ${video.video}` });
    player.addEventListener("error", () => { put(stage, el("p", { class: "warning" }, "The browser cannot play the media file. The timeline works without it.")); tools.hidden = true; player = null; timeline.play(null); });
    for (const event of ["play", "pause", "seeked", "ended", "loadedmetadata"]) player.addEventListener(event, tick);
    if (video.media === "video") player.addEventListener("click", toggle);
    put(stage, player);
  }

  function tick() {
    cancelAnimationFrame(frame);
    if (!player || !still()) return;
    playButton.textContent = player.paused ? "Play" : "Pause";
    timeline.play(player.currentTime, !player.paused);
    if (stopAt !== null && player.currentTime >= stopAt) {
      player.pause();
      player.currentTime = stopAt;
      stopAt = null;
    }
    if (!player.paused) frame = requestAnimationFrame(tick);
  }

  function toggle() {
    stopAt = null;
    if (!player) return;
    if (player.paused) player.play().catch((error) => toast(error.message, "error"));
    else player.pause();
  }

  function seek(seconds) {
    stopAt = null;
    if (player) player.currentTime = Math.max(0, seconds);
    timeline.play(player ? seconds : null);
  }

  function playEvent() {
    const event = timeline.event() || selected();
    if (!player) return;
    player.currentTime = event.start * video.segment_seconds;
    stopAt = event.end * video.segment_seconds;
    player.play().catch((error) => toast(error.message, "error"));
  }

  function jump(direction) {
    const event = timeline.toEvent(direction);
    if (event) seek(event.start * video.segment_seconds);
  }

  function faster(by) {
    const at = SPEEDS.indexOf(Number(speed.value));
    speed.value = String(SPEEDS[Math.min(SPEEDS.length - 1, Math.max(0, at + by))]);
    if (player) player.playbackRate = Number(speed.value);
  }

  async function go(step) {
    const next = await neighbour(video.video, step);
    if (!still()) return;
    if (next === null) toast(step > 0 ? "This is the last video of the list" : "This is the first video of the list");
    else location.hash = link(next);
  }

  const keys = {
    " ": toggle, e: playEvent, ",": () => jump(-1), ".": () => jump(1), s: () => faster(-1), d: () => faster(1),
    n: () => go(1), p: () => go(-1), l: () => { location.hash = address(); },
    ArrowUp: () => timeline.stepTrack(-1), ArrowDown: () => timeline.stepTrack(1),
    "+": () => timeline.zoomBy(2), "=": () => timeline.zoomBy(2), "-": () => timeline.zoomBy(0.5), 0: () => timeline.zoomBy(0),
    h: () => { historyBox.open = !historyBox.open; },
    c: () => confirm(timeline.cursor.track), a: addClass,
  };

  return {
    leave() {
      forget();
      forgetStall();
      cancelAnimationFrame(frame);
      player?.pause();
      timeline.leave();
      document.title = "vaplan";
    },
    newVersion(version) {
      if (version > stored.version && edits.waiting().length === 0) reload();
    },
    key(event) {
      const onButton = ["BUTTON", "A", "SUMMARY"].includes(event.target.tagName);
      if (event.key.toLowerCase() === "z") takeBack(event.shiftKey ? "redo" : "undo");
      else if (event.key === "ArrowLeft" || event.key === "ArrowRight") timeline.step(event.key === "ArrowLeft" ? -1 : 1, event.shiftKey);
      else if (event.key === "Enter" && !onButton) {
        const track = video.tracks[timeline.cursor.track];
        if (track) edit(timeline.cursor.track, [{ ...selected(), label: track.labels[timeline.cursor.start] !== "1" }]);
      } else if ((event.key === "Backspace" || event.key === "Delete") && video.tracks.length) edit(timeline.cursor.track, [{ ...selected(), label: null }]);
      else if (keys[event.key] && !(onButton && event.key === " ")) keys[event.key]();
      else return false;
      return true;
    },
  };
}

function legend() {
  const item = (kind, text) => el("li", {}, el("span", { class: `key ${kind}`, "aria-hidden": "true" }), text);
  return el("ul", { class: "legend", "aria-label": "Legend" }, item("audio", "audio label"), item("visual", "visual label"), item("user", "set by a person"), item("unsaved", "not saved yet"),
    item("flip", "flipped by PLD"), item("score", "score"), item("threshold", "threshold"), item("parser", "parser"), item("truth", "truth"));
}

/** Segments as text: `0 to 3, 7`. */
function spans(segments) {
  const found = [];
  for (const at of segments) {
    const last = found.at(-1);
    if (last && last[1] + 1 === at) last[1] = at;
    else found.push([at, at]);
  }
  const text = found.slice(0, 12).map(([start, end]) => (start === end ? `${start}` : `${start} to ${end}`)).join(", ");
  return `${segments.length === 1 ? "segment" : "segments"} ${text}${found.length > 12 ? ", …" : ""}`;
}
