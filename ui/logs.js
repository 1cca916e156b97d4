// The list of logs: one line each, newest first, opened to all its fields. Rows are made from text nodes alone.

import { $, copy, h } from "./dom.js";
import { at, leaves, plain, stringify } from "./json.js";
import { classOf } from "./levels.js";
import { formatInstant } from "./time.js";

/** Rows kept at most; beyond them the search must be narrowed, or live rows fall off at the end. */
export const ROWS_MAX = 5000;
const STANDARD = new Set(["id", "timestamp", "level", "source", "message"]);

/**
 * `options`: `state()`, `words()`, `onFilter(address, text, isNegated)`, `onColumn(address)`, `onContext(record)`, `linkOf(record)`.
 * Answers an object that shows records in the element `list`.
 */
export function logList(list, options) {
  /** Records by row element. */
  const records = new WeakMap();
  /** Stamps of other years are longer; then every row's column of times is wider. */
  const fit = (newRecords) => {
    const isWide = newRecords.some((record) => formatInstant(plain(record.timestamp), true).length > 20);
    document.body.classList.toggle("years", isWide || (document.body.classList.contains("years") && list.childElementCount !== 0));
  };
  let seen = new Set();

  const make = (record) => {
    const row = rowOf(record, options);
    records.set(row, record);
    return row;
  };
  const toggle = (row, isOpen = !row.classList.contains("open")) => {
    row.classList.toggle("open", isOpen);
    row.querySelector(".line").setAttribute("aria-expanded", String(isOpen));
    row.querySelector(".detail")?.remove();
    if (isOpen) row.append(detailOf(records.get(row), options));
  };
  list.addEventListener("click", (event) => {
    const line = event.target.closest(".line");
    // A drag that marked text is no click.
    if (line && list.contains(line) && String(getSelection()) === "") toggle(line.parentElement);
  });

  return {
    toggle,
    count: () => list.childElementCount,
    hasOpen: () => list.querySelector(".row.open") !== null,
    replace(newRecords) {
      list.replaceChildren();
      fit(newRecords);
      seen = new Set(newRecords.map((record) => record.id));
      list.replaceChildren(...newRecords.map(make));
    },
    append(newRecords) {
      fit(newRecords);
      const fresh = newRecords.filter((record) => !seen.has(record.id));
      for (const record of fresh) seen.add(record.id);
      list.append(...fresh.map(make));
    },
    /** Newest first; answers how many were new. */
    prepend(newRecords) {
      fit(newRecords);
      const fresh = newRecords.filter((record) => !seen.has(record.id));
      for (const record of fresh) seen.add(record.id);
      list.prepend(...fresh.map((record) => {
        const row = make(record);
        row.classList.add("new");
        return row;
      }));
      return fresh.length;
    },
    /** Drops the oldest rows beyond `max`. */
    trim(max) {
      while (list.childElementCount > max) {
        seen.delete(records.get(list.lastElementChild)?.id);
        list.lastElementChild.remove();
      }
    },
    /** Draws every row anew, for another time zone or other columns. */
    redraw() {
      for (const row of [...list.children]) {
        const isOpen = row.classList.contains("open");
        const fresh = make(records.get(row));
        row.replaceWith(fresh);
        if (isOpen) toggle(fresh, true);
      }
    },
    /** Moves the selection by rows. */
    move(by) {
      const rows = [...list.children];
      const now = rows.findIndex((row) => row.classList.contains("selected"));
      const next = rows[Math.min(rows.length - 1, Math.max(0, now === -1 ? 0 : now + by))];
      rows[now]?.classList.remove("selected");
      if (next) {
        next.classList.add("selected");
        next.querySelector(".line").focus({ preventScroll: true });
        next.scrollIntoView({ block: "nearest" });
      }
    },
  };
}

/** The widths of the grid's columns, shared by head and rows. */
export function setColumns(columns, elements) {
  const extra = columns.map(() => "minmax(70px, 130px)").join(" ");
  for (const element of elements) element.style.setProperty("--extra", extra);
}

function rowOf(record, options) {
  const state = options.state();
  const level = plain(record.level);
  const message = h("span", { class: "message" });
  message.append(...marked(messageOf(record), options.words()));
  return h("div", { class: `row lv-${classOf(level)}`, role: "listitem" },
    h("div", { class: "line", role: "button", tabindex: "0", "aria-expanded": "false" },
      h("time", { datetime: plain(record.timestamp), title: `${plain(record.timestamp)} (UTC)` }, formatInstant(plain(record.timestamp), state.isUtc)),
      h("span", { class: "level" }, level || "–"),
      h("span", { class: "source", title: plain(record.source) }, plain(record.source) || "–"),
      state.columns.map((address) => {
        const text = plain(at(record, address));
        return h("span", { class: "column", title: text }, text);
      }),
      message,
    ),
  );
}

/** The message; for a record without one, its other fields. */
function messageOf(record) {
  const message = plain(record.message);
  if (message !== "") return message;
  return leaves(record)
    .filter(([address]) => !STANDARD.has(address))
    .slice(0, 12)
    .map(([address, value]) => `${address}=${plain(value)}`)
    .join(" ");
}

/** Longest text whose words are marked; beyond it marking would cost more than it tells. */
const MARKED_MAX = 4000;

/** Text nodes and `<mark>`s. */
function marked(text, words) {
  if (words.length === 0 || text.length > MARKED_MAX) return [text];
  const wanted = new Set(words);
  const out = [];
  for (const piece of text.split(/([\p{L}\p{N}]+)/u)) {
    if (piece === "") continue;
    out.push(wanted.has(piece.toLowerCase()) ? h("mark", {}, piece) : piece);
  }
  return out;
}

function detailOf(record, options) {
  const body = h("div", { class: "detail-body" });
  const show = (isJson) => {
    tabs[0].setAttribute("aria-selected", String(!isJson));
    tabs[1].setAttribute("aria-selected", String(isJson));
    body.replaceChildren(isJson ? h("pre", { class: "json", tabindex: "0" }, stringify(record, 2)) : tableOf(record, options));
  };
  const tabs = [
    h("button", { type: "button", role: "tab", onclick: () => show(false) }, "Fields"),
    h("button", { type: "button", role: "tab", onclick: () => show(true) }, "JSON"),
  ];
  const detail = h("div", { class: "detail" },
    h("div", { class: "detail-bar" },
      h("div", { role: "tablist", class: "tabs" }, tabs),
      h("span", { class: "grow" }),
      options.onContext && h("button", { type: "button", onclick: () => options.onContext(record) }, "Show surrounding"),
      h("button", { type: "button", onclick: () => copy(stringify(record, 2), "the record as JSON") }, "Copy JSON"),
      h("button", { type: "button", onclick: () => copy(options.linkOf(record), "a link to this record") }, "Copy link"),
    ),
    body,
  );
  show(false);
  return detail;
}

function tableOf(record, options) {
  const rows = leaves(record).map(([address, value]) => {
    const text = plain(value);
    const isFilterable = address !== "id" && address !== "timestamp" && text !== "" && !Array.isArray(value);
    const isColumn = options.state().columns.includes(address);
    const action = (label, glyph, onclick) =>
      h("button", { type: "button", class: "act", "aria-label": `${label}: ${address}`, title: label, onclick }, glyph);
    return h("tr", {},
      h("td", { class: "acts" },
        isFilterable && action("Only logs with this value", "+", () => options.onFilter(address, text, false)),
        isFilterable && action("Only logs without this value", "−", () => options.onFilter(address, text, true)),
        !STANDARD.has(address) && action(isColumn ? "Remove the column" : "Show as a column", isColumn ? "▤" : "▥", () => options.onColumn(address)),
      ),
      h("th", { scope: "row" }, address),
      h("td", { class: value === null ? "value faint" : "value" }, value === null ? "null" : text),
    );
  });
  return h("table", { class: "record" }, h("tbody", {}, rows));
}

/** The line above the list. */
export function drawHead(columns, isUtc, onRemove) {
  $("head").replaceChildren(
    h("span", {}, isUtc ? "Time (UTC)" : "Time"),
    h("span", {}, "Level"),
    h("span", {}, "Source"),
    ...columns.map((address) =>
      h("span", { class: "column", title: address }, h("button", { type: "button", class: "plain", title: `Remove the column ${address}`, onclick: () => onRemove(address) }, address, " ✕")),
    ),
    h("span", {}, "Message"),
  );
}
