// The audit: a person judges a random sample of segments, and sees precision and recall of the labels so far.

import * as api from "./api.js";
import { info } from "./app.js";
import { clock, count, el, put, toast } from "./dom.js";
import { author, showSaved, showWaiting } from "./edits.js";
import * as outbox from "./outbox.js";

const STRATA = [["class", "Class"], ["modality", "Modality"], ["rule", "Rule"], ["all", "Nothing"]];
const SPLITS = [["", "All"], ["train", "train"], ["val", "val"], ["test", "test"]];
const SAYS = { yes: "Yes", no: "No", unsure: "Unsure" };
const NAMES = ["version", "by", "count", "seed", "split"];

let last = new URLSearchParams();
/** The sample that is judged now: `{saved(entry, answer), refused(entry, error)}`. */
let shownSample = null;

// Verdicts without an answer outlive the page that sent them.
outbox.handle("verdict", {
  send: (entry) => api.judge(entry.request),
  done(entry, answer, rest) {
    const took = performance.now() - entry.clicked;
    document.getElementById("version").textContent = `v${answer.version}`;
    if (entry.again) showSaved(`Version ${answer.version} saved`, "The server did not answer at first.");
    else showSaved(`Version ${answer.version} saved in ${took.toFixed(0)} ms`, `Verdict to durable commit: ${took.toFixed(1)} ms, of which the server took ${answer.milliseconds.toFixed(1)} ms.`, took);
    if (rest.length > 0) showWaiting();
    shownSample?.saved(entry);
  },
  refused(entry, error) {
    showSaved("");
    const now = error?.status === 409 ? error.body.now[0].verdict : entry.request.verdicts[0].before;
    if (error) toast(error.status === 409 ? `Another person judged this segment meanwhile: ${SAYS[now] || "withdrawn"}. Your verdict was not saved.` : `Not saved: ${error.message}`, "error");
    shownSample?.refused(entry, now);
  },
});

/** The address of the audit as it was last shown. */
export function address() {
  const text = last.toString();
  return text ? `#/audit?${text}` : "#/audit";
}

function requestOf(parameters) {
  const request = {};
  for (const name of NAMES) if (parameters.get(name)) request[name] = parameters.get(name);
  return request;
}

export async function show(main, { parameters }, still) {
  last = new URLSearchParams(parameters);
  return parameters.get("version") ? judge(main, requestOf(parameters), still) : choose(main, requestOf(parameters), still);
}

const percent = (estimate) => estimate === null ? "not known yet"
  : `${(100 * estimate.value).toFixed(1)} % (${(100 * estimate.low).toFixed(1)} to ${(100 * estimate.high).toFixed(1)})`;

const card = (id, name, value, about) => el("div", { class: "card figure" }, el("span", { class: "figure-name" }, name), el("b", { id }, value), el("span", { class: "faint" }, about));
const figure = (id, name, estimate) => estimate === null ? card(id, name, "–", "not known yet")
  : card(id, name, `${(100 * estimate.value).toFixed(1)} %`, `${(100 * estimate.low).toFixed(1)} to ${(100 * estimate.high).toFixed(1)} %; ${estimate.more_to_halve} more verdicts halve this interval`);

/** The estimates of a version: figures for all segments, and a table of the strata. */
function fill(box, { version, report }) {
  const all = report?.rows[0];
  box.dataset.version = version;
  if (!all) {
    put(box, el("p", { class: "faint" }, "There are no verdicts yet."));
    return;
  }
  const cells = (row) => [el("th", { scope: "row" }, row.name), ...[row.segments, row.set, row.verdicts].map((value) => el("td", { class: "number" }, value)),
    el("td", {}, percent(row.precision)), el("td", { class: "number" }, row.precision ? `+${row.precision.more_to_halve}` : "–"),
    el("td", {}, percent(row.recall)), el("td", { class: "number" }, row.recall ? `+${row.recall.more_to_halve}` : "–")];
  put(box,
    el("div", { class: "figures" }, figure("precision", "Precision", all.precision), figure("recall", "Recall within the weak label", all.recall),
      card("verdicts", "Verdicts", all.verdicts, report.unsure ? `and ${report.unsure} unsure` : "")),
    el("details", {}, el("summary", {}, `By ${report.by}, version ${version}, intervals of 95 %`),
      el("div", { class: "scroll" }, el("table", { class: "estimates" },
        el("thead", {}, el("tr", {}, ["", "Segments", "Labelled", "Verdicts", "Precision", "To halve", "Recall", "To halve"].map((name) => el("th", { scope: "col" }, name)))),
        el("tbody", {}, report.rows.map((row) => el("tr", {}, cells(row))))))),
    report.gone.length ? el("p", { class: "warning" }, `Versions ${report.gone.join(", ")}, which verdicts were made on, are gone: the estimates assume that their labels were those of now.`) : null);
}

async function choose(main, request, still) {
  const { version, report } = await api.auditReport({ by: request.by, split: request.split });
  if (!still()) return null;
  const box = el("section", { "aria-label": "Estimates" });
  fill(box, { version, report });
  const select = (name, label, options) => el("label", {}, el("span", {}, label), el("select", { name },
    options.map(([value, text]) => el("option", { value, selected: (request[name] || options[0][0]) === value }, text))));
  const number = (name, label, value, min, max) => el("label", {}, el("span", {}, label),
    el("input", { type: "number", name, value: request[name] || value, min, max, step: 1, required: true }));
  const draw = el("button", { class: "primary", id: "draw" }, "Draw a sample");
  const form = el("form", { id: "sample-form", class: "filters" },
    number("count", "Segments", "200", 1, 2000), select("by", "Strata", STRATA), select("split", "Split", SPLITS), number("seed", "Seed", "1", 0, 4294967295), draw);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    draw.disabled = true;
    try {
      const asked = Object.fromEntries(new FormData(form));
      const sample = await api.auditSample(asked);
      if (!still()) return;
      if (sample.segments.length === 0) toast("There is no segment without a verdict");
      else location.hash = `#/audit?${new URLSearchParams({ version: sample.version, ...asked })}`;
    } catch (error) {
      toast(error.message, "error");
    } finally {
      draw.disabled = false;
    }
  });
  put(main, el("h1", {}, "Audit"),
    el("p", {}, "How good are the labels where there is no dense truth? A random sample of segments is drawn, half of them labelled. ",
      "You see or hear each segment, and say whether the event occurs. Labels are not shown, so that they do not lead you."),
    form, el("h2", {}, "Estimates so far"), box);
  return { leave() {} };
}

async function judge(main, request, still) {
  const sample = await api.auditSample(request);
  if (!still()) return null;
  const { segments } = sample;
  const readOnly = Boolean(info()?.read_only);
  const undos = [];
  let at = Math.max(0, segments.findIndex((own) => own.verdict === null));
  let player = null;
  let shown = null;
  let asking = false;
  let askAgain = false;

  const button = (text, key, action, attributes) => el("button", { type: "button", title: `${text} (${key})`, onclick: action, ...attributes }, text);
  const progress = el("progress", { max: segments.length, "aria-label": "Segments judged" });
  const said = el("p", { id: "progress", class: "count", role: "status" });
  const stage = el("div", { class: "stage" });
  const question = el("h2", { id: "question", "aria-live": "polite" });
  const place = el("p", { class: "facts", id: "place" });
  const estimates = el("section", { "aria-label": "Estimates", id: "estimates" });
  const answers = el("div", { class: "group answers" }, button("Yes", "y", () => say("yes"), { id: "yes", disabled: readOnly }),
    button("No", "n", () => say("no"), { id: "no", disabled: readOnly }), button("Unsure", "u", () => say("unsure"), { id: "unsure", disabled: readOnly }));
  const playButton = button("Play", "Space", play, { id: "play-segment" });

  put(main,
    el("div", { class: "video-head" }, el("a", { class: "back", href: "#/audit" }, "‹ Audit"), el("h1", { class: "hidden" }, "Audit"), said, progress, el("span", { class: "grow" })),
    question, place, stage,
    el("div", { class: "tools" }, answers, el("div", { class: "group" }, playButton),
      el("div", { class: "group" }, button("‹ Previous", "←", () => go(at - 1)), button("Next ›", "→", () => go(at + 1)), button("Next open", "o", () => go(open(at + 1)))),
      readOnly ? null : el("div", { class: "group" }, button("Undo", "z", takeBack, { id: "undo-verdict" }))),
    el("h2", {}, "Estimates so far"), estimates);
  const mine = shownSample = {
    saved(entry) {
      const nth = placeOf(entry);
      if (nth < 0) return;
      if (entry.remember) undos.push({ nth, before: entry.request.verdicts[0].before });
      if (unsaved().length > 0) return;
      describe();
      report();
    },
    refused(entry, now) {
      const nth = placeOf(entry);
      if (nth < 0) return;
      segments[nth].verdict = now;
      go(nth);
      report();
    },
  };
  // The sample is as the store has it. Verdicts without an answer are not in the store, or nobody knows.
  for (const entry of unsaved()) if (placeOf(entry) >= 0) segments[placeOf(entry)].verdict = entry.request.verdicts[0].verdict;
  const forget = outbox.onStall(describe);
  draw();
  report();

  function unsaved() { return outbox.waiting("verdict"); }

  /** Whether the verdict on a segment was not saved, because the server does not answer. */
  function waits(nth) { return outbox.stalled() && unsaved().some((entry) => placeOf(entry) === nth); }

  function placeOf(entry) {
    const { video, modality, class: name, segment } = entry.request.verdicts[0];
    return segments.findIndex((own) => own.video === video && own.modality === modality && own.class === name && own.segment === segment);
  }

  function draw() {
    const own = segments[at];
    describe();
    media(own, own.segment * own.seconds, (own.segment + 1) * own.seconds);
  }

  /** Says what is asked and how far the sample is, without playing the segment again. */
  function describe() {
    const own = segments[at];
    const judged = segments.filter((one) => one.verdict !== null).length;
    const unsure = segments.filter((one) => one.verdict === "unsure").length;
    said.textContent = `${judged} of ${count(segments.length, "segment")} judged${unsure ? `, ${unsure} unsure` : ""}${outbox.stalled() && unsaved().length ? `, ${unsaved().length} not saved` : ""}`;
    progress.value = judged;
    const [onset, offset] = [own.segment * own.seconds, (own.segment + 1) * own.seconds];
    put(question, "Is ", el("b", {}, own.class), own.modality === "audio" ? " heard in this segment?" : " seen in this segment?");
    put(place, el("span", { class: `tag ${own.modality}` }, own.modality), ` segment ${own.segment} (${clock(onset)} to ${clock(offset)}) of ${own.video}`,
      ` · ${at + 1} of ${segments.length}`, own.verdict ? ` · your verdict: ${SAYS[own.verdict]}` : "", waits(at) ? el("b", { class: "bad" }, ", not saved yet") : "");
    for (const node of answers.children) node.setAttribute("aria-pressed", String(node.id === own.verdict));
  }

  function media(own, onset, offset) {
    if (shown !== own.video || !player) {
      player?.pause();
      player = null;
      shown = own.video;
      playButton.disabled = !own.media;
      if (!own.media) {
        put(stage, el("p", { class: "faint" }, info()?.media ? "There is no media file of this video." : "Start `vaplan serve` with --media DIR to see and hear the segments."));
        return;
      }
      player = el(own.media, { src: api.mediaUrl(own.video), preload: "auto", playsinline: true, "aria-label": `Media of ${own.video}` });
      player.addEventListener("error", () => { put(stage, el("p", { class: "warning" }, "The browser cannot play the media file.")); player = null; playButton.disabled = true; });
      player.addEventListener("timeupdate", stop);
      put(stage, player);
    }
    // Sound would lead a person who judges the pictures.
    player.muted = own.modality === "visual";
    player.dataset.onset = onset;
    player.dataset.offset = offset;
    play();
  }

  function play() {
    if (!player) return;
    player.currentTime = Number(player.dataset.onset);
    player.play().catch(() => { /* A browser may wait for the first click or key before it plays. */ });
    requestAnimationFrame(stop);
  }

  function stop() {
    if (!player || player.paused) return;
    if (player.currentTime >= Number(player.dataset.offset)) player.pause();
    else requestAnimationFrame(stop);
  }

  /** The next segment without a verdict; the same place if there is none. */
  function open(from) {
    const found = segments.findIndex((own, nth) => nth >= from && own.verdict === null);
    const first = found >= 0 ? found : segments.findIndex((own) => own.verdict === null);
    return first >= 0 ? first : Math.min(from, segments.length - 1);
  }

  function go(to) {
    if (to < 0 || to >= segments.length || !still()) return;
    at = to;
    draw();
  }

  function say(verdict) {
    if (readOnly) return;
    const [nth, before] = [at, segments[at].verdict];
    if (before !== verdict) {
      save(nth, verdict, before, true);
    }
    go(open(nth + 1));
    if (segments.every((own) => own.verdict !== null)) toast("Every segment of the sample is judged");
  }

  /** Saves a verdict as a version. The page goes on at once, and comes back to the segment if the server refuses the verdict. */
  function save(nth, verdict, before, remember) {
    const own = segments[nth];
    const { video, modality, segment } = own;
    own.verdict = verdict;
    if (!outbox.stalled()) showWaiting();
    const request = { version: sample.version, by: sample.by, author: author() || null, verdicts: [{ video, modality, class: own.class, segment, verdict, before }] };
    outbox.post({ kind: "verdict", clicked: performance.now(), remember, request });
  }

  async function takeBack() {
    // A verdict that is under way is the one to take back.
    await outbox.idle();
    if (outbox.stalled()) return toast("There are changes that are not saved: undo waits for them");
    const entry = undos.pop();
    if (!entry) return toast("There is nothing to undo");
    save(entry.nth, entry.before, segments[entry.nth].verdict, false);
    go(entry.nth);
  }

  /** Shows the estimates of the latest version. One request at a time; a later verdict asks once more. */
  async function report() {
    if (asking) {
      askAgain = true;
      return;
    }
    asking = true;
    try {
      const found = await api.auditReport({ by: sample.by, split: request.split });
      if (still()) fill(estimates, found);
    } catch (error) {
      if (still()) put(estimates, el("p", { class: "warning" }, error.message));
    }
    asking = false;
    if (askAgain && still()) {
      askAgain = false;
      report();
    }
  }

  const keys = { y: () => say("yes"), n: () => say("no"), u: () => say("unsure"), " ": play, ArrowLeft: () => go(at - 1), ArrowRight: () => go(at + 1), o: () => go(open(at + 1)), z: takeBack };
  return {
    leave() {
      forget();
      if (shownSample === mine) shownSample = null;
      player?.pause();
    },
    key(event) {
      const onButton = ["BUTTON", "A", "SUMMARY"].includes(event.target.tagName);
      const action = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
      if (!action || (onButton && event.key === " ")) return false;
      action();
      return true;
    },
  };
}
