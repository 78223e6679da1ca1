// The timeline of a video: one row per modality and class, with curve, threshold, labels, truth and prediction.

import { clock, el, put, short, svg } from "./dom.js";

const CURVE = 34;
const LABEL = 20;
const LINE = 5;
const GAP = 3;
const EDGE = 7;
const RULER = 18;
const LEAST = 3;

/** Runs of equal letters in a text, as `[letter, start, end]`. */
export function runs(text) {
  const found = [];
  for (let at = 0; at < text.length;) {
    let end = at + 1;
    while (end < text.length && text[end] === text[at]) end += 1;
    found.push([text[at], at, end]);
    at = end;
  }
  return found;
}

/** The same text with another letter from `start` to `end`. */
export const replaced = (text, start, end, letter) => text.slice(0, start) + letter.repeat(end - start) + text.slice(end);

/**
 * A timeline. `handlers` has `edit(track, edits)`, where an edit is `{start, end, label}`, `seek(seconds)`, `cursor(at)` and
 * `confirm(track)`.
 */
export class Timeline {
  constructor(handlers, readOnly) {
    this.handlers = handlers;
    this.readOnly = readOnly;
    this.zoom = 1;
    this.cursor = { track: 0, start: 0, end: 1, anchor: 0 };
    this.time = null;
    this.detail = el("p", { class: "detail", role: "status", "aria-live": "polite", id: "detail" });
    this.names = el("div", { class: "names" });
    this.canvas = el("div", { class: "canvas" });
    this.view = el("div", { class: "view", tabindex: 0, role: "application", id: "timeline",
      "aria-label": "Timeline of labels. Arrow keys move, Enter sets or clears, question mark lists all keys.", "aria-describedby": "detail" }, this.canvas);
    this.node = el("div", { class: "timeline" }, this.names, this.view);
    this.resize = new ResizeObserver(() => this.draw());
    this.resize.observe(this.view);
  }

  leave() { this.resize.disconnect(); }

  /** Shows another state of the video. */
  set(video) {
    this.video = video;
    const most = Math.max(0, video.tracks.length - 1);
    this.cursor.track = Math.min(this.cursor.track, most);
    this.cursor.end = Math.min(this.cursor.end, Math.max(1, video.segments));
    this.cursor.start = Math.min(this.cursor.start, this.cursor.end - 1);
    this.draw();
  }

  get width() {
    const room = Math.max(60, this.view.clientWidth);
    const least = this.video.segments * LEAST;
    return Math.max(room, least) * this.zoom;
  }

  x(segment) { return segment * this.width / Math.max(1, this.video.segments); }

  zoomBy(factor) {
    const middle = (this.view.scrollLeft + this.view.clientWidth / 2) / this.width;
    this.zoom = factor === 0 ? 1 : Math.min(64, Math.max(1, this.zoom * factor));
    this.draw();
    this.view.scrollLeft = middle * this.width - this.view.clientWidth / 2;
  }

  draw() {
    if (!this.video || this.view.clientWidth === 0) return;
    const { tracks, segments } = this.video;
    put(this.names, el("div", { class: "ruler-name" }), tracks.map((track, at) => this.name(track, at)));
    if (segments === 0) {
      put(this.canvas, el("p", { class: "faint" }, "No features were readable, so there are no segments."));
      return;
    }
    this.rows = tracks.map((track, at) => this.row(track, at));
    this.head = el("div", { class: "playhead", "aria-hidden": "true" });
    put(this.canvas, this.ruler(), this.rows, this.head);
    this.canvas.style.width = `${this.width}px`;
    this.showCursor(false);
    this.play(this.time);
  }

  name(track, at) {
    const height = this.height(track);
    const set = [...track.labels].filter((letter) => letter === "1").length;
    const user = [...track.rules].filter((letter) => letter === "u").length;
    return el("div", { class: `track-name ${track.modality}`, style: { height: `${height}px` } },
      el("span", { class: "class", title: track.class }, track.class),
      el("span", { class: "modality" }, track.modality === "audio" ? "audio" : "visual", el("span", { class: "faint" }, ` ${set}/${track.labels.length}`)),
      this.readOnly ? null : el("button", { type: "button", class: "confirm", "aria-pressed": String(user === track.labels.length),
        "aria-label": `Confirm the labels of ${track.modality} ${track.class}`, title: "Confirm: these labels are right (c)",
        onclick: () => this.handlers.confirm(at) }, "✓"));
  }

  height(track) {
    return GAP + CURVE + GAP + LABEL + (track.truth ? GAP + LINE : 0) + (track.probabilities ? GAP + LINE : 0) + 8;
  }

  ruler() {
    const { segments, segment_seconds: length } = this.video;
    const node = svg("svg", { class: "ruler", width: this.width, height: RULER, "aria-hidden": "true" });
    const each = this.width / segments;
    const steps = [1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600];
    const step = steps.find((own) => own * each / length >= 44) || steps.at(-1);
    for (let second = 0; second <= segments * length + 1e-9; second += step) {
      const x = Math.min(this.width - 1, second / length * each);
      const last = second + step > segments * length + 1e-9;
      node.append(svg("line", { x1: x, x2: x, y1: 12, y2: RULER }),
        svg("text", { x: last ? x - 2 : x + (second === 0 ? 1 : 0), y: 10, "text-anchor": second === 0 ? "start" : last ? "end" : "middle" }, second >= 60 ? clock(second).replace(".0", "") : `${second}${second === 0 ? " s" : ""}`));
    }
    node.addEventListener("pointerdown", (event) => this.handlers.seek(event.offsetX / each * length));
    return node;
  }

  row(track, at) {
    const height = this.height(track);
    const node = svg("svg", { class: `row ${track.modality}`, width: this.width, height, "data-track": at, "aria-hidden": "true" });
    let y = GAP;
    node.append(this.curve(track, y));
    y += CURVE + GAP;
    node.append(this.labels(track, y));
    track.y = y;
    y += LABEL;
    if (track.truth) {
      y += GAP;
      node.append(this.line(track.truth, y, "truth", "truth"));
      y += LINE;
    }
    if (track.probabilities) {
      y += GAP;
      const found = track.probabilities.map((value) => value !== null && value >= 0.5 ? "1" : "0").join("");
      node.append(this.line(found, y, "parser", "parser"));
    }
    node.append(svg("rect", { class: "cursor", y: track.y - 2, height: LABEL + 4, rx: 4, visibility: "hidden" }));
    this.listen(node, track, at);
    return node;
  }

  /** The curve of scores above the threshold, and the probability of the parser. */
  curve(track, top) {
    const group = svg("g", { class: "curve" });
    const { scores, threshold } = track;
    const known = scores.filter(Number.isFinite);
    const low = Math.min(...bounds(known, 0), threshold ?? Infinity);
    const high = Math.max(...bounds(known, 1), threshold ?? -Infinity);
    const span = high - low || 1;
    const y = (value) => top + CURVE - 2 - (value - low) / span * (CURVE - 4);
    let path = "";
    scores.forEach((value, at) => { path += `${at === 0 ? "M" : "L"}${this.x(at).toFixed(1)} ${y(value).toFixed(1)}H${this.x(at + 1).toFixed(1)}`; });
    if (path) {
      group.append(svg("path", { class: "area", d: `${path}V${top + CURVE}H0Z` }), svg("path", { class: "score", d: path }));
    }
    if (track.probabilities) {
      let line = "";
      track.probabilities.forEach((value, at) => {
        if (value === null) return;
        line += `${line ? "L" : "M"}${this.x(at + 0.5).toFixed(1)} ${(top + CURVE - 2 - value * (CURVE - 4)).toFixed(1)}`;
      });
      group.append(svg("path", { class: "probability", d: line }));
    }
    if (threshold !== null) group.append(svg("line", { class: "threshold", x1: 0, x2: this.width, y1: y(threshold), y2: y(threshold) }));
    return group;
  }

  labels(track, top) {
    const group = svg("g", { class: "labels" });
    group.append(svg("rect", { class: "ground", x: 0, y: top, width: this.width, height: LABEL, rx: 3 }));
    const each = this.width / this.video.segments;
    if (each >= 6) {
      let grid = "";
      for (let at = 1; at < this.video.segments; at += 1) grid += `M${this.x(at).toFixed(1)} ${top}v${LABEL}`;
      group.append(svg("path", { class: "grid", d: grid }));
    }
    for (const [letter, start, end] of runs(track.labels)) {
      if (letter === "1") group.append(svg("rect", { class: "label", x: this.x(start) + 0.5, y: top, width: this.x(end) - this.x(start) - 1, height: LABEL, rx: 3 }));
    }
    for (const [letter, start, end] of runs(track.rules)) {
      const middle = (from) => (this.x(from) + this.x(from + 1)) / 2;
      if (letter === "u") group.append(svg("rect", { class: "user", x: this.x(start) + 1, y: top + 1, width: this.x(end) - this.x(start) - 2, height: LABEL - 2, rx: 3 }));
      if (letter === "d") {
        for (let at = start; at < end; at += 1) {
          const [x, y, size] = [middle(at), top + LABEL / 2, Math.min(5, each / 2)];
          group.append(svg("path", { class: `flip ${track.labels[at] === "1" ? "on" : ""}`, d: `M${x} ${y - size}l${size} ${size}l${-size} ${size}l${-size} ${-size}Z` }));
        }
      }
    }
    // Above the border of a user label: what is not saved must not look as if it were.
    for (const { start, end } of track.unsaved || []) group.append(svg("rect", { class: "unsaved", x: this.x(start) + 1, y: top + 1, width: this.x(end) - this.x(start) - 2, height: LABEL - 2, rx: 3 }));
    return group;
  }

  line(text, top, kind, title) {
    const group = svg("g", { class: kind }, svg("title", {}, title));
    group.append(svg("rect", { class: "rail", x: 0, y: top + LINE / 2 - 0.5, width: this.width, height: 1 }));
    for (const [letter, start, end] of runs(text)) {
      if (letter === "1") group.append(svg("rect", { x: this.x(start) + 0.5, y: top, width: this.x(end) - this.x(start) - 1, height: LINE, rx: 2 }));
    }
    return group;
  }

  segmentAt(offset) {
    const at = Math.floor(offset / this.width * this.video.segments);
    return Math.min(this.video.segments - 1, Math.max(0, at));
  }

  /** The border of an event near a place, as the segment after it; null if there is none. */
  edgeAt(track, offset) {
    const at = Math.round(offset / this.width * this.video.segments);
    const each = this.width / this.video.segments;
    if (each < 3 * EDGE || Math.abs(offset - this.x(at)) > EDGE || at <= 0 || at >= this.video.segments) return null;
    return track.labels[at - 1] !== track.labels[at] ? at : null;
  }

  listen(node, track, at) {
    const inLabels = (event) => event.offsetY >= track.y - 3 && event.offsetY <= track.y + LABEL + 3;
    node.addEventListener("pointermove", (event) => {
      if (this.drag) return;
      node.classList.toggle("edge", inLabels(event) && !this.readOnly && this.edgeAt(track, event.offsetX) !== null);
      node.classList.toggle("hot", inLabels(event) && !this.readOnly);
      this.say(at, this.segmentAt(event.offsetX));
    });
    node.addEventListener("pointerleave", () => this.say(this.cursor.track, this.cursor.start));
    node.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      const segment = this.segmentAt(event.offsetX);
      this.moveTo(at, segment, segment + 1);
      if (!inLabels(event)) {
        this.handlers.seek(event.offsetX / this.width * this.video.segments * this.video.segment_seconds);
        return;
      }
      if (this.readOnly) return;
      event.preventDefault();
      this.view.focus({ preventScroll: true });
      const edge = event.altKey ? null : this.edgeAt(track, event.offsetX);
      const wanted = event.altKey ? null : track.labels[segment] !== "1";
      this.drag = { at, edge, start: segment, wanted, before: track.labels, pointer: event.pointerId, clicked: performance.now() };
      node.setPointerCapture(event.pointerId);
      this.dragTo(event.offsetX);
    });
    node.addEventListener("pointermove", (event) => { if (this.drag?.pointer === event.pointerId) this.dragTo(event.offsetX); });
    node.addEventListener("pointerup", (event) => { if (this.drag?.pointer === event.pointerId) this.drop(); });
    node.addEventListener("pointercancel", () => this.cancelDrag());
  }

  /** The edit that a drag means so far. */
  dragTo(offset) {
    const { drag } = this;
    const segment = this.segmentAt(offset);
    if (drag.edge === null) {
      drag.edit = { start: Math.min(drag.start, segment), end: Math.max(drag.start, segment) + 1, label: drag.wanted };
    } else {
      // An edge moves to the border that is nearest to the pointer. The event grows or shrinks by what lies between.
      const border = Math.min(this.video.segments, Math.max(0, Math.round(offset / this.width * this.video.segments)));
      const eventIsLeft = drag.before[drag.edge - 1] === "1";
      const [start, end] = [Math.min(drag.edge, border), Math.max(drag.edge, border)];
      drag.edit = start === end ? null : { start, end, label: (border > drag.edge) === eventIsLeft };
    }
    const track = this.video.tracks[drag.at];
    const shown = drag.edit && drag.edit.label !== null ? replaced(drag.before, drag.edit.start, drag.edit.end, drag.edit.label ? "1" : "0") : drag.before;
    const fresh = this.labels({ ...track, labels: shown }, track.y);
    this.rows[drag.at].querySelector("g.labels").replaceWith(fresh);
    if (drag.edit) this.moveTo(drag.at, drag.edit.start, drag.edit.end);
  }

  drop() {
    const { drag } = this;
    this.drag = null;
    if (drag.edit) this.handlers.edit(drag.at, [drag.edit], drag.clicked);
    else this.draw();
  }

  cancelDrag() {
    this.drag = null;
    this.draw();
  }

  moveTo(track, start, end) {
    this.cursor = { track, start, end, anchor: start };
    this.showCursor();
  }

  /** Moves the cursor by segments. With `extend`, the selection grows from where it began. */
  step(by, extend) {
    const { cursor, video } = this;
    if (!video.tracks.length || !video.segments) return;
    if (!extend) {
      const at = Math.min(video.segments - 1, Math.max(0, (by > 0 ? cursor.end - 1 : cursor.start) + by));
      Object.assign(cursor, { start: at, end: at + 1, anchor: at });
    } else {
      const head = cursor.start < cursor.anchor ? cursor.start : cursor.end - 1;
      const to = Math.min(video.segments - 1, Math.max(0, head + by));
      Object.assign(cursor, { start: Math.min(cursor.anchor, to), end: Math.max(cursor.anchor, to) + 1 });
    }
    this.showCursor();
  }

  stepTrack(by) {
    this.cursor.track = Math.min(this.video.tracks.length - 1, Math.max(0, this.cursor.track + by));
    this.showCursor();
  }

  showCursor(scroll = true) {
    const { track, start, end } = this.cursor;
    this.rows?.forEach((row, at) => {
      const box = row.querySelector(".cursor");
      box.setAttribute("visibility", at === track ? "visible" : "hidden");
      if (at !== track) return;
      box.setAttribute("x", this.x(start) - 1);
      box.setAttribute("width", this.x(end) - this.x(start) + 2);
      if (!scroll) return;
      const { scrollLeft, clientWidth } = this.view;
      if (this.x(start) < scrollLeft) this.view.scrollLeft = this.x(start) - 20;
      else if (this.x(end) > scrollLeft + clientWidth) this.view.scrollLeft = this.x(end) - clientWidth + 20;
    });
    [...this.names.querySelectorAll(".track-name")].forEach((name, at) => name.classList.toggle("current", at === track));
    this.say(track, start, end);
    this.handlers.cursor?.(this.cursor);
  }

  /** Says what is known about a segment: the label, the rule that set it, and why. */
  say(at, segment, end = segment + 1) {
    const track = this.video?.tracks[at];
    if (!track || segment >= track.labels.length) return;
    const length = this.video.segment_seconds;
    const place = end > segment + 1 ? `segments ${segment} to ${end - 1}` : `segment ${segment}`;
    const parts = [el("b", {}, `${track.modality} ${track.class}`), `, ${place} (${clock(segment * length)} to ${clock(end * length)}): `];
    if (end === segment + 1) parts.push(...this.why(track, segment));
    else parts.push(`${[...track.labels.slice(segment, end)].filter((letter) => letter === "1").length} of ${end - segment} labels are set`);
    put(this.detail, parts);
  }

  why(track, segment) {
    const parts = [el("b", {}, track.labels[segment] === "1" ? "set" : "not set")];
    const rule = track.rules[segment];
    const [score, threshold] = [track.scores[segment], track.threshold];
    const compared = threshold === null ? "" : `score ${short(score, 4)} is ${score > threshold ? "above" : "not above"} the threshold ${short(threshold, 4)}`;
    if (rule === "u") parts.push(" by a person");
    else if (rule === "d") {
      const flip = track.flips.find((own) => own.segment === segment);
      parts.push(" by PLD");
      if (flip) {
        parts.push(` after epoch ${flip.epoch}`);
        if (flip.loss !== null) parts.push(`: forward loss ${short(flip.loss)}${flip.base !== null ? ` is above ${short(flip.alpha)} × ${short(flip.base)}, the mean of the ${flip.k} smallest losses` : ""}`);
      }
    } else parts.push(rule === "i" ? " by another program (imported)" : " by PLG");
    if (compared) parts.push(rule === "g" || rule === "i" ? `: ${compared}` : `; ${compared}`);
    if (track.unsaved?.some((own) => own.start <= segment && segment < own.end)) parts.push(el("b", { class: "bad" }, ", not saved yet"));
    const probability = track.probabilities?.[segment];
    if (probability !== undefined && probability !== null) parts.push(`; parser ${probability.toFixed(2)}`);
    if (track.truth) parts.push(`; truth: ${track.truth[segment] === "1" ? "happens" : "does not happen"}`);
    return parts;
  }

  /** Shows the time of the player; null hides it. */
  play(seconds, follow = false) {
    this.time = seconds;
    if (!this.head) return;
    this.head.hidden = seconds === null;
    if (seconds === null) return;
    const x = seconds / this.video.segment_seconds * this.width / Math.max(1, this.video.segments);
    this.head.style.transform = `translateX(${Math.min(x, this.width)}px)`;
    if (follow && (x < this.view.scrollLeft || x > this.view.scrollLeft + this.view.clientWidth)) this.view.scrollLeft = x - 40;
  }

  /** The event (run of set labels) of the current track at or around a segment; null if there is none. */
  event(segment = this.cursor.start) {
    const track = this.video.tracks[this.cursor.track];
    const found = track && runs(track.labels).find(([letter, start, end]) => letter === "1" && start <= segment && segment < end);
    return found ? { start: found[1], end: found[2] } : null;
  }

  /** Moves the cursor to the next (1) or previous (-1) event of the track. */
  toEvent(direction) {
    const track = this.video.tracks[this.cursor.track];
    if (!track) return null;
    const events = runs(track.labels).filter(([letter]) => letter === "1");
    const found = direction > 0 ? events.find(([, start]) => start > this.cursor.start) : events.findLast(([, start]) => start < this.cursor.start);
    if (!found) return null;
    this.moveTo(this.cursor.track, found[1], found[2]);
    return { start: found[1], end: found[2] };
  }
}

/** The smallest (0) or largest (1) number of a list, without the limits of a call with many arguments. */
function bounds(values, which) {
  if (values.length === 0) return [0];
  return [values.reduce((best, value) => (which ? Math.max(best, value) : Math.min(best, value)))];
}
