// The overview: counts, scores, flips, losses, thresholds, classes and versions.

import * as api from "./api.js";
import { count, el, put, short, when } from "./dom.js";
import { bars, lines, table } from "./plot.js";

const AGAIN = 1500;

export async function show(main, _, still) {
  put(main, el("h1", { class: "hidden" }, "Overview"), el("p", { class: "wait" }, "Reading the store"));
  let timer = 0;
  let found = await api.overview();
  if (!still()) return null;
  fill();
  if (found.version < found.latest) ask();

  function fill() { put(main, el("h1", { class: "hidden" }, "Overview"), ...render(found)); }

  async function ask() {
    clearTimeout(timer);
    try {
      const next = await api.overview();
      if (!still()) return;
      if (next.version > found.version) {
        found = next;
        fill();
      }
      if (next.version < next.latest) timer = setTimeout(ask, AGAIN);
    } catch { timer = setTimeout(ask, 4 * AGAIN); }
  }

  return { leave: () => clearTimeout(timer), newVersion: ask, newIndex: ask };
}

/** The sections of an overview. The report uses them, too. */
export function render(found, inReport = false) {
  return [
    el("p", { class: "of-version", "data-version": found.version }, `Version ${found.version}`,
      found.versions.length ? `, ${when(found.versions.at(-1).committed_at)}` : "",
      found.latest > found.version ? el("span", { class: "faint" }, ` – version ${found.latest} is being read`) : ""),
    cards(found),
    el("div", { class: "grid-of-plots" }, quality(found), sweeps(found), epochs(found), flips(found), losses(found), versions(found)),
    classes(found, inReport),
    versionList(found),
  ];
}

function cards(found) {
  const sum = (list, of) => list.reduce((total, own) => total + of(own), 0);
  const of = (modality) => found.classes.filter((row) => row.modality === modality);
  const share = (part, whole) => (whole ? `${(100 * part / whole).toFixed(1)} %` : "–");
  const videos = sum(found.splits, (row) => row.videos);
  const reviewed = sum(found.splits, (row) => row.reviewed);
  const card = (name, value, about, kind = "") => el("div", { class: `card figure ${kind}` }, el("span", { class: "figure-name" }, name), el("b", {}, value), el("span", { class: "faint" }, about));
  const labels = (modality) => {
    const [set, all] = [sum(of(modality), (row) => row.set), sum(of(modality), (row) => row.labels)];
    return card(`${modality === "audio" ? "Audio" : "Visual"} labels set`, short(set, 6), `${share(set, all)} of ${short(all, 9)}`, modality);
  };
  return el("div", { class: "figures" },
    card("Videos", short(videos, 9), found.splits.map((row) => `${row.split} ${short(row.videos, 9)}`).join(", ")),
    labels("audio"), labels("visual"),
    card("Flipped by PLD", short(sum(found.classes, (row) => row.flipped), 9), found.epoch === null ? "no epoch yet" : `parser of epoch ${found.epoch}`),
    card("Reviewed", short(reviewed, 9), `${share(reviewed, videos)} of the videos, ${count(sum(found.classes, (row) => row.user), "label")}`),
    card("Rejected rows", short(found.rejects, 9), `${count(sum(found.splits, (row) => row.without_labels), "video")} without labels`));
}

const LEVELS = [["audio", "A"], ["visual", "V"], ["audio_visual", "AV"], ["type_av", "Type@AV"], ["event_av", "Event@AV"]];
const STAGES = { plg: ["PLG alone", "faint-bar"], labels: ["labels today", "plain"] };

function quality(found) {
  return found.quality.map((split) => bars({
    title: `Label quality on ${split.split}`,
    about: `F-scores against the dense truth, segment level, ${count(split.videos, "video")}${split.videos < split.videos_in_all ? ` of ${short(split.videos_in_all)}` : ""}.`,
    series: split.stages.map((stage) => ({ name: STAGES[stage.stage][0], kind: STAGES[stage.stage][1] })),
    xLabel: "", yLabel: "F, %", grouped: true,
    bars: LEVELS.map(([key, name]) => ({ name, values: split.stages.map((stage) => stage.scores.segment[key]) })),
  }));
}

function sweeps(found) {
  return found.sweeps.map((sweep) => {
    const scored = sweep.steps.some((step) => step.score !== null);
    return lines({
      title: `Thresholds: ${sweep.modality}`,
      about: `One threshold for all classes, on ${short(sweep.videos)} videos of ${sweep.split}. The band marks the thresholds of today.`,
      series: [
        { name: scored ? `F of ${sweep.modality} segments, %` : "", kind: sweep.modality, points: scored ? sweep.steps.map((step) => [step.threshold, step.score]) : [] },
        { name: "labels set, %", kind: "faint-line", points: sweep.steps.map((step) => [step.threshold, step.set]) },
      ],
      xLabel: "threshold", yLabel: "%", zero: true,
      marks: [{ from: sweep.today[0], to: sweep.today[1], name: "today" }],
    });
  });
}

function epochs(found) {
  const rows = found.epochs;
  const names = [...new Set(rows.flatMap((row) => row.metrics.map(([name]) => name)))].filter((name) => name.startsWith("val.") && name.includes(".segment."));
  const protocol = names.find((name) => name.startsWith("val.fused."))?.split(".")[1] ?? names[0]?.split(".")[1];
  const trainings = new Set(rows.map((row) => row.training)).size;
  const kinds = { audio: "audio", visual: "visual", audio_visual: "both", type_av: "plain", event_av: "parser" };
  const series = LEVELS.map(([key, name]) => ({ name, kind: kinds[key], points: rows.flatMap((row) => {
    const value = row.metrics.find(([own]) => own === `val.${protocol}.segment.${key}`)?.[1];
    return value === undefined ? [] : [[row.epoch, value, row.training]];
  }) }));
  return [
    series.some((own) => own.points.length) ? lines({ title: "Parser by epoch", about: `F-scores of the parser on val, segment level, protocol ${protocol}.${trainings > 1 ? " A gap separates trainings." : ""}`, series, xLabel: "epoch", yLabel: "%", whole: true }) : null,
    rows.some((row) => row.loss !== null) ? lines({ title: "Training loss by epoch", about: "Weighted sum of the losses, mean over the videos.", series: [{ name: "loss", kind: "plain", points: rows.filter((row) => row.loss !== null).map((row) => [row.epoch, row.loss, row.training]) }], xLabel: "epoch", zero: true, whole: true }) : null,
  ];
}

function flips(found) {
  if (found.flips.length === 0) return [];
  const last = found.flips.at(-1);
  const series = [{ name: "set by PLD", kind: "on" }, { name: "cleared by PLD", kind: "off" }];
  return [
    bars({ title: "Labels that PLD changed, by epoch", series, xLabel: "epoch", yLabel: "labels", bars: found.flips.map((row) => ({ name: String(row.epoch), title: `Epoch ${row.epoch}`, values: row.flips })) }),
    bars({ title: `Labels that PLD changed in epoch ${last.epoch}, by class`, series, xLabel: "class", yLabel: "labels",
      bars: last.classes.slice(0, 25).map((row) => ({ name: row.class.slice(0, 7), title: `${row.modality} ${row.class}`, values: row.flips })) }),
  ];
}

function losses(found) {
  if (!found.losses) return [];
  const { width, bars: [audio, visual] } = found.losses;
  return [bars({ title: "Highest forward loss of each track", about: "A track is one class and modality of a video. A high loss means that the parser contradicts a label.",
    series: [{ name: "audio", kind: "audio" }, { name: "visual", kind: "visual" }], xLabel: "loss", yLabel: "tracks",
    bars: audio.map((count, at) => ({ name: (at * width).toFixed(1), title: `loss ${(at * width).toFixed(2)} to ${((at + 1) * width).toFixed(2)}`, values: [count, visual[at]] })) })];
}

function versions(found) {
  const counted = found.versions.filter((row) => row.changed !== null).slice(-60);
  if (counted.length < 2) return [];
  return [bars({ title: "Labels changed by version", about: counted.length < found.versions_in_all ? `The last ${counted.length} of ${short(found.versions_in_all)} versions.` : null,
    series: [{ name: "labels", kind: "plain" }], xLabel: "version", yLabel: "labels",
    bars: counted.map((row) => ({ name: String(row.version), title: `Version ${row.version}, ${when(row.committed_at)}`, values: [row.changed] })) })];
}

function classes(found, inReport) {
  const scores = new Map();
  for (const split of found.quality) {
    const today = split.stages.find((stage) => stage.stage === "labels");
    today?.classes.forEach((row) => scores.set(`${row.class}/audio`, { ...scores.get(`${row.class}/audio`), [split.split]: row.audio }));
    today?.classes.forEach((row) => scores.set(`${row.class}/visual`, { ...scores.get(`${row.class}/visual`), [split.split]: row.visual }));
  }
  const splits = found.quality.map((split) => split.split);
  const link = (row) => (inReport ? row.class : el("a", { href: `#/videos?order=gain&class=${encodeURIComponent(row.class)}&modality=${row.modality}&unreviewed_first=true` }, row.class));
  const rows = found.classes.filter((row) => row.videos > 0).sort((a, b) => b.gain - a.gain);
  const head = ["Class", "Modality", "Videos", "Reviewed", "Set", "PLD", "≠ parser", "≠ other", "Near", ...splits.map((split) => `F ${split}`)];
  return el("section", { class: "card" }, el("h3", {}, "Classes"),
    el("p", { class: "about" }, "Classes that gain most from review come first: unreviewed videos with flips, disagreement with the parser, or a score within 2 % of the threshold."),
    el("div", { class: "scroll tall" }, el("table", { class: "classes-table" },
      el("thead", {}, el("tr", {}, head.map((name, at) => el("th", { scope: "col", class: at > 1 ? "number" : "" }, name)))),
      el("tbody", {}, rows.map((row) => {
        const own = scores.get(`${row.class}/${row.modality}`);
        const number = (value) => el("td", { class: `number ${value ? "" : "zero"}` }, short(value, 9));
        return el("tr", {}, el("td", {}, link(row)), el("td", {}, el("span", { class: `tag ${row.modality}` }, row.modality)),
          number(row.videos), number(row.reviewed), el("td", { class: "number" }, row.labels ? `${(100 * row.set / row.labels).toFixed(1)} %` : "–"),
          number(row.flipped), number(row.parser), number(row.other), number(row.near),
          splits.map((split) => el("td", { class: "number" }, own?.[split] === null || own?.[split] === undefined ? "–" : own[split].toFixed(1))));
      })))));
}

function versionList(found) {
  const rows = [...found.versions].reverse().slice(0, 50);
  return el("section", { class: "card" }, el("h3", {}, "Versions"),
    table(["Version", "Time", "Labels changed", "Author", "Note or command"], rows.map((row) => [
      String(row.version), when(row.committed_at), row.changed, row.author, el("span", { class: "command", title: row.command }, row.note || row.command)])));
}
