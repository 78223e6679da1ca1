// Makes elements. Text from the store is always set as text, never parsed as HTML.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "class") node.setAttribute("class", value);
    else if (name === "style") Object.assign(node.style, value);
    else if (name === "value" || name === "checked" || name === "selected") node[name] = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : String(child));
  }
  return node;
}

/** An HTML element with attributes, listeners (`onclick`) and children. */
export function el(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** An SVG element. */
export function svg(tag, attributes, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

/** Replaces the children of a node. */
export function put(node, ...children) {
  node.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
}

/** A number with few digits, for people. */
export function short(value, digits = 3) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (Number.isInteger(value)) return (value || 0).toLocaleString("en");
  return (Number(value.toPrecision(digits)) || 0).toLocaleString("en", { maximumSignificantDigits: digits });
}

/** A count with its noun. */
export const count = (value, one, many = `${one}s`) => `${short(value, 9)} ${value === 1 ? one : many}`;

/** Milliseconds since 1970 as local date and time. */
export function when(milliseconds) {
  return new Date(milliseconds).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
}

/** Seconds as `1:02.5`. */
export function clock(seconds) {
  const minutes = Math.floor(seconds / 60);
  const rest = seconds - 60 * minutes;
  return `${minutes}:${rest < 10 ? "0" : ""}${rest.toFixed(1)}`;
}

/** Shows a message for a while. An error stays longer. */
export function toast(text, kind = "note") {
  const box = document.getElementById("toasts");
  const item = el("div", { class: `toast ${kind}` }, text);
  item.append(el("button", { type: "button", class: "quiet", "aria-label": "Dismiss", onclick: () => item.remove() }, "×"));
  box.append(item);
  setTimeout(() => item.remove(), kind === "error" ? 12000 : 4000);
}

/** A modal dialog; it is removed when it is closed. */
export function dialog(title, ...children) {
  const box = el("dialog", { "aria-label": title },
    el("form", { method: "dialog", class: "dialog-head" }, el("h2", {}, title),
      el("button", { class: "quiet round", "aria-label": "Close" }, "×")),
    ...children);
  box.addEventListener("close", () => box.remove());
  box.addEventListener("click", (event) => { if (event.target === box) box.close(); });
  document.body.append(box);
  box.showModal();
  return box;
}
