// Asks for a class that the weak label of a video lacks, and for the segments to label with the class.

import { dialog, el, toast } from "./dom.js";

/**
 * Asks for a class. Resolves to `{name, modalities, start, end}`, or to null. `modality` and `selection` are what the person
 * looks at: the dialog proposes to label these segments.
 */
export function askClass(video, classes, modality, selection) {
  const others = classes.filter((name) => !video.weak_labels.includes(name));
  if (others.length === 0) {
    toast("The weak label of this video has every class of the store");
    return Promise.resolve(null);
  }
  return new Promise((resolve) => {
    let answer = null;
    const most = Math.max(1, video.segments);
    const number = (name, label, value, min, max) => el("label", {}, el("span", {}, label),
      el("input", { type: "number", name, value: String(value), min, max, step: 1, required: true }));
    const check = (name, label) => el("label", { class: "check" },
      el("input", { type: "checkbox", name, checked: (modality || "audio") === name }), el("span", {}, label));
    const form = el("form", { id: "add-class-form", class: "stacked" },
      el("label", {}, el("span", {}, "Class"), el("select", { name: "class", required: true }, others.map((name) => el("option", { value: name }, name)))),
      el("fieldset", {}, el("legend", {}, "Label these segments with it"), check("audio", "Audio"), check("visual", "Visual"),
        number("first", "First segment", selection.start, 0, most - 1), number("last", "Last segment", selection.end - 1, 0, most - 1)),
      el("div", { class: "actions" }, el("button", { type: "button", onclick: () => box.close() }, "Cancel"),
        el("button", { class: "primary", id: "add-class-save" }, "Add and label")));
    const box = dialog("Add a class to the weak label",
      el("p", {}, "Labels exist only for the classes of the weak label. The weak label and the labels change in one version, and one undo takes both back. ",
        "Thresholds and denoising decide the other segments of the class."), form);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const data = new FormData(form);
      const [start, end] = [Number(data.get("first")), Number(data.get("last")) + 1];
      if (start >= end) {
        toast("The last segment is before the first one", "error");
        return;
      }
      answer = { name: data.get("class"), modalities: ["audio", "visual"].filter((own) => data.has(own)), start, end };
      box.close();
    });
    box.addEventListener("close", () => resolve(answer));
    form.querySelector("select").focus();
  });
}
