// The report: an overview and some videos in one file, without a server.

import { el, put } from "./dom.js";
import { render } from "./overview.js";
import { Timeline } from "./timeline.js";

const { overview, videos, store } = JSON.parse(document.getElementById("data").textContent);
const main = document.getElementById("main");

put(main, el("h1", {}, `vaplan report of ${store}`), render(overview, true));
for (const video of videos) {
  const timeline = new Timeline({ edit() {}, seek() {}, confirm() {} }, true);
  main.append(el("section", { class: "card report-video" }, el("h3", {}, video.video),
    el("p", { class: "about" }, `${video.split}, ${video.segments} segments of ${video.segment_seconds} s, weak label: ${video.weak_labels.join(", ") || "none"}`),
    timeline.node, timeline.detail));
  timeline.set(video);
}
