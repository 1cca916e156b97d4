// Building the page. Text becomes text nodes, always: nothing that a log holds can become markup.

export const $ = (id) => document.getElementById(id);

/**
 * An element: `h("button", {class: "x", onclick: f, "aria-label": "…"}, "text", child, …)`.
 * Children that are null, undefined or false are left out.
 */
export function h(name, attributes, ...children) {
  return fill(document.createElement(name), attributes, children);
}

const SVG = "http://www.w3.org/2000/svg";

export function svg(name, attributes, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat()) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child);
  }
  return element;
}

let toastTimer = 0;

/** A short word at the page's edge. */
export function toast(text) {
  const element = document.getElementById("toast");
  element.textContent = text;
  element.classList.add("shown");
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => element.classList.remove("shown"), 2200);
}

/** Copies, on pages without the clipboard's permission (plain http) too. */
export async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = h("textarea", { class: "offscreen" });
    area.value = text;
    (document.querySelector("dialog[open]") ?? document.body).append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    if (!done) return toast("The browser did not let us copy");
  }
  toast(`Copied ${what}`);
}

const number = new Intl.NumberFormat("en");
export const formatCount = (count) => number.format(count);

/** `1.2k`, `3.4M`: for axes and badges. */
export function shortCount(count) {
  if (count < 1000) return String(count);
  const [divisor, unit] = count < 1e6 ? [1e3, "k"] : count < 1e9 ? [1e6, "M"] : [1e9, "G"];
  const value = count / divisor;
  return (value < 10 ? value.toFixed(1).replace(/\.0$/, "") : Math.round(value)) + unit;
}
