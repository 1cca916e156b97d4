// The windows above the page: time range, help, surrounding logs.

import { get } from "./api.js";
import { $, h } from "./dom.js";
import { logList, setColumns } from "./logs.js";
import { fromInput, PRESETS, toInput, toMs } from "./time.js";

function open(dialog, title, ...children) {
  const close = () => dialog.close();
  dialog.replaceChildren(
    h("div", { class: "dialog-bar" }, h("h2", {}, title), h("span", { class: "grow" }), h("button", { type: "button", class: "plain", "aria-label": "Close", onclick: close }, "✕")),
    ...children,
  );
  // A click beside the window closes it.
  dialog.onclick = (event) => {
    if (event.target === dialog) close();
  };
  if (!dialog.open) dialog.showModal();
}

/** Asks for a range; `onPick(start, end)`. */
export function pickTime(state, onPick) {
  const dialog = $("picker");
  const pick = (start, end) => {
    dialog.close();
    onPick(start, end);
  };
  const initial = (value, fallbackMs) => {
    const ms = value === "all" || value === "" ? fallbackMs : toMs(value);
    return toInput(Number.isNaN(ms) ? fallbackMs : ms, state.isUtc);
  };
  const from = h("input", { type: "datetime-local", step: "1", id: "from" });
  const to = h("input", { type: "datetime-local", step: "1", id: "to" });
  from.value = initial(state.start, Date.now() - 3_600_000);
  to.value = initial(state.end, Date.now());
  open(dialog, "Time range",
    h("div", { class: "presets" },
      PRESETS.map(([value, label]) =>
        h("button", { type: "button", "aria-pressed": String(state.end === "" && state.start === value), onclick: () => pick(value, "") }, label),
      ),
    ),
    h("form", {
      class: "absolute",
      onsubmit: (event) => {
        event.preventDefault();
        pick(fromInput(from.value, state.isUtc) || "all", fromInput(to.value, state.isUtc));
      },
    },
      h("label", { for: "from" }, `From${state.isUtc ? " (UTC)" : ""}`), from,
      h("label", { for: "to" }, `To${state.isUtc ? " (UTC)" : ""}, not included`), to,
      h("button", { type: "submit", class: "primary" }, "Apply"),
    ),
  );
}

const EXAMPLES = [
  ["timeout", "the word, in any field"],
  ['"connection closed"', "these words in a row"],
  ["level:error", "a field's word"],
  ["service:=checkout", "a field's exact value"],
  ["http.status:>=500", "a number in a range; also [200 TO 299}"],
  ["message:time*out", "a pattern; /regular expressions/ too"],
  ["client_ip:10.0.0.0/8", "an address in a network"],
  ["trace_id:*", "the field is there"],
  ["timeout AND NOT (level:debug OR -user:bob)", "together; a blank means AND"],
];
const KEYS = [
  ["/", "to the search"], ["j k", "next, previous log"], ["Enter", "open, close a log"],
  ["r", "refresh"], ["l", "live"], ["Esc", "close, leave the search"], ["?", "this window"],
];

export function showHelp(onTry) {
  const dialog = $("help");
  open(dialog, "How to search",
    h("table", { class: "examples" }, h("tbody", {},
      EXAMPLES.map(([example, what]) =>
        h("tr", {},
          h("td", {}, h("button", { type: "button", class: "code", title: "Search for this", onclick: () => { dialog.close(); onTry(example); } }, example)),
          h("td", {}, what),
        ),
      ),
    )),
    h("h3", {}, "Keys"),
    h("div", { class: "keys" }, KEYS.map(([key, what]) => h("span", {}, h("kbd", {}, key), ` ${what}`))),
  );
}

/** What stood before and after a record. */
export async function showContext(id, options) {
  const dialog = $("context");
  const list = h("div", { role: "list" });
  const rows = logList(list, { ...options, onContext: null });
  const notice = h("p", { class: "faint" }, "Loading…");
  const counts = { before: 10, after: 10 };
  const more = (side, text) =>
    h("button", { type: "button", class: "wide", hidden: true, onclick: () => { counts[side] += 20; load(); } }, text);
  const earlier = more("before", "Earlier ones");
  const later = more("after", "Later ones");
  let isEverySource = false;
  const scope = h("input", { type: "checkbox", id: "scope" });
  open(dialog, "Surrounding logs",
    h("div", { class: "context-bar" }, scope, h("label", { for: "scope" }, "of every source"), h("span", { class: "faint" }, "oldest first")),
    h("div", { class: "context-list" }, notice, earlier, list, later),
  );

  const load = async () => {
    try {
      const answer = await get(`/logs/${encodeURIComponent(id)}/context`, { ...counts, scope: isEverySource ? "all" : "" });
      notice.hidden = true;
      setColumns(options.state().columns, [list]);
      rows.replace([...answer.before, answer.log, ...answer.after]);
      earlier.hidden = answer.before.length < counts.before;
      later.hidden = answer.after.length < counts.after;
      const here = list.children[answer.before.length];
      here.classList.add("here");
      here.scrollIntoView({ block: "center" });
    } catch (error) {
      notice.hidden = false;
      notice.className = "failure";
      notice.textContent = error.message;
    }
  };
  scope.addEventListener("change", () => {
    isEverySource = scope.checked;
    load();
  });
  await load();
}
