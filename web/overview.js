// The overview: counts, scores, flips, losses, thresholds, classes and versions.

import * as api from "./api.js";
import { count, el, put, short, when } from "./dom.js";
import { bars, lines, table } from "./plot.js";
import { classNames, flipsByClass, parserOf, stageScores } from "./stages.js";

const AGAIN = 1500;

export async function show(main, _, still) {
  put(main, el("h1", { class: "hidden" }, "Overview"), el("p", { class: "wait" }, "Reading the store"));
  let timer = 0;
  let found = await api.overview();
  if (!still()) return null;
  fill();
  if (found.version < found.latest) ask();

  function fill() {
    const open = [...main.querySelectorAll("details[open]")].map((node) => node.closest(".plot")?.getAttribute("aria-label"));
    const place = scrollY;
    put(main, el("h1", { class: "hidden" }, "Overview"), ...render(found));
    for (const plot of main.querySelectorAll(".plot")) if (open.includes(plot.getAttribute("aria-label"))) plot.querySelector("details").open = true;
    scrollTo(0, place);
  }

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
    stageScores(found),
    flipSection(found),
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
  return found.quality.map((split) => {
    const parser = parserOf(split, found.epoch);
    const shown = [...split.stages.filter((stage) => stage.stage !== "parser"), ...(parser ? [parser] : [])];
    return bars({
      title: `Quality on ${split.split}`,
      about: `F-scores against the dense truth, segment level, ${count(split.videos, "video")}${split.videos < split.videos_in_all ? ` of ${short(split.videos_in_all, 9)}` : ""}.`,
      series: shown.map((stage) => (stage.stage === "parser" ? { name: `parser, epoch ${stage.epoch}`, kind: "parser" } : { name: STAGES[stage.stage][0], kind: STAGES[stage.stage][1] })),
      xLabel: "", yLabel: "F, %", grouped: true,
      bars: LEVELS.map(([key, name]) => ({ name, values: shown.map((stage) => stage.scores.segment[key]) })),
    });
  });
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
  const of = (name, key, points) => ({ name, kind: kinds[key], points });
  const series = LEVELS.map(([key, name]) => of(name, key, rows.flatMap((row) => {
    const value = row.metrics.find(([own]) => own === `val.${protocol}.segment.${key}`)?.[1];
    return value === undefined ? [] : [[row.epoch, value, row.training]];
  })));
  const plot = (own, about) => lines({ title: "Parser by epoch", about, series: own, xLabel: "epoch", yLabel: "%", whole: true });
  // Epochs from outside have no row in table `epochs`. Their predictions were scored for this page.
  const other = found.quality.find((split) => split.stages.some((stage) => stage.stage === "parser"));
  const parsers = other?.stages.filter((stage) => stage.stage === "parser") || [];
  const scored = LEVELS.map(([key, name]) => of(name, key, parsers.map((stage) => [stage.epoch, stage.scores.segment[key], 1])));
  return [
    series.some((own) => own.points.length) ? plot(series, `F-scores of the parser on val, segment level, protocol ${protocol}.${trainings > 1 ? " A gap separates trainings." : ""}`) :
      other ? plot(scored, `F-scores of the predictions on ${other.split}, segment level.`) : null,
    rows.some((row) => row.loss !== null) ? lines({ title: "Training loss by epoch", about: "Weighted sum of the losses, mean over the videos.", series: [{ name: "loss", kind: "plain", points: rows.filter((row) => row.loss !== null).map((row) => [row.epoch, row.loss, row.training]) }], xLabel: "epoch", zero: true, whole: true }) : null,
  ];
}

const FLIPS = [{ name: "set by PLD", kind: "on" }, { name: "cleared by PLD", kind: "off" }];

function flips(found) {
  const { epochs } = found.flips;
  if (epochs.length < 2) return [];
  return [bars({ title: "Labels that PLD changed, by epoch", series: FLIPS, xLabel: "epoch", yLabel: "labels",
    bars: epochs.map((row) => ({ name: String(row.epoch), title: `Epoch ${row.epoch}`, values: row.flips })) })];
}

function flipSection(found) {
  const plots = flipsByClass(found, FLIPS);
  return plots.some(Boolean) ? el("section", { id: "flips", "aria-label": "Labels that PLD changed" },
    el("div", { class: "section-head" }, el("h2", {}, "Labels that PLD changed")), el("div", { class: "grid-of-plots of-classes" }, plots)) : null;
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
  const names = classNames(found);
  for (const split of found.quality) {
    const today = split.stages.find((stage) => stage.stage === "labels");
    for (const modality of ["audio", "visual"]) today?.[modality].forEach((score, at) => {
      const key = `${names[at]}/${modality}`;
      scores.set(key, { ...scores.get(key), [split.split]: score });
    });
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
