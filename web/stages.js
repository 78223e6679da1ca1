// F-scores by stage and class, and flips by class and epoch. A stage is PLG, the labels, or the predictions of an epoch.

import { count, el, put, short } from "./dom.js";
import { MOST_ROWS, cells, marks, rowBars } from "./rowplot.js";

const MODALITIES = ["audio", "visual"];

/** The split that the person chose stays when another version is shown. */
let chosen = null;

/** The names of the classes, in order. */
export const classNames = (found) => found.classes.filter((row) => row.modality === "audio").map((row) => row.class);

/** The predictions of a split that the labels are compared with: those of this epoch, or else of the last one that was scored. */
export function parserOf(split, epoch) {
  const parsers = split.stages.filter((stage) => stage.stage === "parser");
  return parsers.find((stage) => stage.epoch === epoch) || parsers.at(-1) || null;
}

const some = (rows, all, which) => (all > rows ? ` The ${short(rows)} of ${count(all, "class", "classes")} ${which}; the table has more.` : "");

/** The section of the F-scores, with a switch if several splits have truth. */
export function stageScores(found) {
  const splits = found.quality.filter((split) => split.stages.length > 0);
  if (splits.length === 0) return null;
  if (!splits.some((split) => split.split === chosen)) chosen = (splits.find((split) => split.split === "val") || splits[0]).split;
  const body = el("div", { class: "grid-of-plots of-classes" });
  const buttons = splits.map((split) => el("button", { type: "button", "data-split": split.split, onclick: () => { chosen = split.split; fill(); } }, split.split));
  function fill() {
    for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.split === chosen));
    const split = splits.find((own) => own.split === chosen);
    put(body, MODALITIES.map((modality) => byClass(found, split, modality)), MODALITIES.map((modality) => byEpoch(found, split, modality)));
  }
  fill();
  return el("section", { id: "stage-scores", "aria-label": "F-scores by stage and class" },
    el("div", { class: "section-head" }, el("h2", {}, "F-scores by stage and class"),
      splits.length > 1 ? el("div", { class: "switch", role: "group", "aria-label": "Split" }, buttons) : null), body);
}

/** The classes that are labelled or true in a stage, those with the lowest F of the labels first. */
function order(found, split, modality) {
  const labels = split.stages.find((stage) => stage.stage === "labels") || split.stages[0];
  return classNames(found)
    .map((name, at) => ({ name, at, by: labels[modality][at] ?? null }))
    .filter(({ at }) => split.stages.some((stage) => (stage[modality][at] ?? null) !== null))
    .sort((a, b) => (a.by ?? 101) - (b.by ?? 101) || a.at - b.at);
}

const STAGES = { plg: "PLG, before denoising", labels: "labels of this version" };

function byClass(found, split, modality) {
  const parser = parserOf(split, found.epoch);
  const shown = [...split.stages.filter((stage) => stage.stage !== "parser"), ...(parser ? [parser] : [])];
  const classes = order(found, split, modality);
  if (classes.length === 0) return null;
  return marks({
    title: `F by class: ${modality}, ${split.split}`,
    about: `Segment level, counts summed over ${count(split.videos, "video")}${split.videos < split.videos_in_all ? ` of ${short(split.videos_in_all, 9)}` : ""}. Weakest class first.${some(MOST_ROWS, classes.length, "with the lowest F")}`,
    series: shown.map((stage) => (stage.stage === "parser"
      ? { name: `parser, epoch ${stage.epoch}${partOf(stage, split)}`, kind: "diamond" }
      : { name: STAGES[stage.stage], kind: stage.stage === "plg" ? "ring" : `dot ${modality}` })),
    rows: classes.map(({ name, at }) => ({ name, values: shown.map((stage) => stage[modality][at] ?? null) })),
    rowLabel: "class", unit: " %",
  });
}

const partOf = (stage, split) => (stage.videos < split.videos ? `, which predicts ${short(stage.videos, 9)} of the videos` : "");

function byEpoch(found, split, modality) {
  const parsers = split.stages.filter((stage) => stage.stage === "parser");
  if (parsers.length === 0) return null;
  const trainings = new Map(found.epochs.map((row) => [row.epoch, row.training]));
  const before = (nth) => (nth > 0 ? trainings.get(parsers[nth - 1].epoch) : null);
  const labels = split.stages.filter((stage) => stage.stage !== "parser");
  const columns = [
    ...labels.map((stage) => ({ name: stage.stage === "plg" ? "PLG" : "labels", title: STAGES[stage.stage], gap: false, wide: true })),
    ...parsers.map((stage, nth) => ({ name: stage.epoch, title: `epoch ${stage.epoch}${partOf(stage, split)}`, gap: nth === 0 || before(nth) !== trainings.get(stage.epoch) })),
  ];
  const stages = [...labels, ...parsers];
  const classes = order(found, split, modality);
  const values = stages.flatMap((stage) => classes.map(({ at }) => stage[modality][at] ?? null)).filter((value) => value !== null);
  if (values.length === 0) return null;
  const low = Math.floor(Math.min(...values) / 10) * 10;
  const high = Math.max(low + 10, Math.ceil(Math.max(...values) / 10) * 10);
  const protocols = [...new Set(parsers.map((stage) => stage.protocol))].join(" and ");
  return cells({
    title: `F by class and stage: ${modality}, ${split.split}`,
    about: `PLG, the labels, and the predictions of each epoch (protocol ${protocols}). A gap separates trainings.${some(MOST_ROWS, classes.length, "with the lowest F of the labels")}`,
    series: [{ name: "F", kind: modality }],
    columns,
    rows: classes.map(({ name, at }) => ({ name, values: stages.map((stage) => [stage[modality][at] ?? null]) })),
    rowLabel: "class", columnLabel: "epoch", unit: " %",
    // A score of the lowest shade is still a score, so that its cell is drawn.
    scale: { low, high, shade: (value) => 0.02 + 0.98 * (value - low) / (high - low) },
  });
}

/** The flips of each modality by class and epoch; by class alone if only one epoch flipped labels. `series` names set and cleared labels. */
export function flipsByClass(found, series) {
  const { epochs, tracks, tracks_in_all: all } = found.flips;
  const less = all > tracks.length ? ` The ${short(tracks.length)} of ${short(all)} tracks with the most flips.` : "";
  return MODALITIES.map((modality) => {
    const own = tracks.filter((track) => track.modality === modality);
    if (own.length === 0) return null;
    const about = `Most flips first.${less}${some(MOST_ROWS, own.length, "with the most flips")}`;
    if (epochs.length === 1) {
      return rowBars({ title: `Labels that PLD changed in epoch ${epochs[0].epoch}, by class: ${modality}`, about, series,
        rows: own.map((track) => ({ name: track.class, values: [track.set[0], track.unset[0]] })), rowLabel: "class" });
    }
    const most = Math.max(1, ...own.flatMap((track) => [...track.set, ...track.unset]));
    return cells({
      title: `Labels that PLD changed, by class and epoch: ${modality}`, about: `${about} The upper half of a cell is for labels that were set, the lower half for labels that were cleared.`, series,
      columns: epochs.map((row) => ({ name: row.epoch, title: `epoch ${row.epoch}`, gap: false })),
      rows: own.map((track) => ({ name: track.class, values: track.set.map((set, at) => [set, track.unset[at]]) })),
      rowLabel: "class", columnLabel: "epoch",
      // The root makes small counts visible beside large ones.
      scale: { low: 0, high: most, shade: (value) => Math.sqrt(value / most) },
    });
  });
}
