// The side panel: which fields the found logs have, and their most frequent values.

import { $, formatCount, h, shortCount } from "./dom.js";
import { plain } from "./json.js";

const MARKS = { string: "a", integer: "1", float: ".5", number: "1", boolean: "✓", array: "[]", null: "∅", timestamp: "t", object: "{}" };

/** `{state(), onFilter(address, text, isNegated), onColumn(address)}` → `show(answer)`, `fail(text)`, `wait()`. */
export function fieldPanel(options) {
  const panel = $("fields");
  const list = h("div", { class: "field-list" });
  const find = h("input", { type: "search", placeholder: "Find a field", "aria-label": "Find a field" });
  panel.append(find, list);
  const open = new Set();
  let answer = null;

  const draw = () => {
    if (!answer) return;
    const wanted = find.value.trim().toLowerCase();
    const fields = answer.fields.filter((field) => field.name.toLowerCase().includes(wanted));
    list.replaceChildren(...fields.map((field) => entryOf(field, answer.total, open, options)));
    if (fields.length === 0) list.append(h("p", { class: "faint" }, wanted ? "No field of this name" : "No fields"));
  };
  find.addEventListener("input", draw);
  return {
    redraw: draw,
    show(newAnswer) {
      answer = newAnswer;
      panel.classList.remove("waiting");
      draw();
    },
    wait: () => panel.classList.add("waiting"),
    fail(text) {
      answer = null;
      panel.classList.remove("waiting");
      list.replaceChildren(h("p", { class: "faint" }, text));
    },
  };
}

function entryOf(field, total, open, options) {
  const type = field.types?.[0] ?? "";
  const details = h("details", { class: "field", open: open.has(field.name) },
    h("summary", {},
      h("span", { class: "type", title: (field.types ?? []).join(", ") }, MARKS[type] ?? "?"),
      h("span", { class: "name", title: field.name }, field.name),
      h("span", { class: "faint", title: `${formatCount(field.count)} logs have it` }, shortCount(field.count)),
    ),
  );
  const fill = () => details.append(valuesOf(field, total, options));
  if (details.open) fill();
  details.addEventListener("toggle", () => {
    details.querySelector(".values")?.remove();
    if (details.open) {
      open.add(field.name);
      fill();
    } else {
      open.delete(field.name);
    }
  });
  return details;
}

function valuesOf(field, total, options) {
  const isColumn = options.state().columns.includes(field.name);
  const isStandard = ["timestamp", "level", "source", "message"].includes(field.name);
  const share = (count) => (field.count === 0 ? 0 : Math.min(100, (count / field.count) * 100));
  const values = (field.top ?? []).map(({ value, count }) => {
    const text = plain(value);
    const bar = h("span", { class: "bar" });
    bar.style.width = `${share(count)}%`;
    return h("div", { class: "value" },
      h("div", { class: "value-line" },
        h("span", { class: "text", title: text }, text === "" ? "(empty)" : text),
        h("span", { class: "faint" }, `${share(count).toFixed(share(count) < 10 ? 1 : 0)}%`),
        text !== "" && h("button", { type: "button", class: "act", "aria-label": `Only logs with ${field.name} ${text}`, title: "Only logs with this value", onclick: () => options.onFilter(field.name, text, false) }, "+"),
        text !== "" && h("button", { type: "button", class: "act", "aria-label": `Only logs without ${field.name} ${text}`, title: "Only logs without this value", onclick: () => options.onFilter(field.name, text, true) }, "−"),
      ),
      h("div", { class: "track" }, bar),
    );
  });
  const of = total ? ` in ${((field.count / total) * 100).toFixed(0)}% of the logs` : "";
  return h("div", { class: "values" },
    h("p", { class: "faint" }, `${field.distinct_is_exact === false ? "about " : ""}${formatCount(field.distinct)} ${field.distinct === 1 ? "value" : "values"}${of}`),
    values,
    !isStandard && h("button", { type: "button", onclick: () => options.onColumn(field.name) }, isColumn ? "Remove the column" : "Show as a column"),
  );
}
