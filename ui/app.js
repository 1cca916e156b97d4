// The page: its state, the questions it asks, and what each control does.

import { address, get } from "./api.js";
import { pickTime, showContext, showHelp } from "./dialogs.js";
import { $, copy, formatCount, h, shortCount } from "./dom.js";
import { fieldPanel } from "./fields.js";
import { histogram, stackOf } from "./histogram.js";
import { classOf, ORDER } from "./levels.js";
import { drawHead, logList, ROWS_MAX, setColumns } from "./logs.js";
import { condition, narrow, words } from "./query.js";
import * as states from "./state.js";
import { liveTail } from "./tail.js";
import { describeRange, formatInstant } from "./time.js";

const PAGE = 100;
const LIVE_ROWS_MAX = 1000;
const LIVE_CHART_MS = 5000;
const WIDE = matchMedia("(min-width: 900px)");

let state = states.read();
let cursor = null;
let asking = new AbortController();
let highlighted = words(state.q);
let levelCounts = new Map();
let liveTimer = 0;

const shared = {
  state: () => state,
  words: () => highlighted,
  onFilter,
  onColumn,
  onContext: (record) => showContext(record.id, shared),
  linkOf: (record) => location.origin + states.toAddress({ ...state, isLive: false, id: record.id }),
};
const chart = histogram({ isUtc: () => state.isUtc, onZoom });
const rows = logList($("logs"), shared);
const panel = fieldPanel(shared);
const tail = liveTail({
  isPaused: () => scrollY > 120 || rows.hasOpen() || $("context").open,
  onRecords: showArrived,
  onHeld: (count) => {
    $("arrived").hidden = count === 0;
    $("arrived").textContent = `${formatCount(count)} new ${count === 1 ? "log" : "logs"} ↑`;
  },
  onState: (name) => $("live").classList.toggle("lost", name === "lost"),
});

const nearEnd = new IntersectionObserver(
  (entries) => {
    if (entries.some((entry) => entry.isIntersecting)) loadMore();
  },
  { rootMargin: "600px" },
);

// --- State and its controls ---

/** Changes the state and asks anew. */
function go(change, { isReplacing = false, fresh = false } = {}) {
  state = { ...state, ...change };
  states.write(state, isReplacing);
  drawControls();
  search(fresh);
}

/** Changes how things look, without a question. */
function look(change) {
  state = { ...state, ...change };
  states.write(state, true);
  drawControls();
  rows.redraw();
  chart.redraw();
  panel.redraw();
}

function drawControls() {
  if ($("q").value !== state.q) $("q").value = state.q;
  $("clear").hidden = $("q").value === "";
  $("time").textContent = describeRange(state.start, state.end, state.isUtc);
  $("live").setAttribute("aria-pressed", String(state.isLive));
  $("zone").textContent = state.isUtc ? "UTC" : "Local";
  $("wrap").checked = state.isWrapped;
  $("logs").classList.toggle("wrapped", state.isWrapped);
  document.title = state.q ? `${state.q} · Logyard` : "Logyard";
  setColumns(state.columns, [$("head"), $("logs")]);
  drawHead(state.columns, state.isUtc, onColumn);
  drawLevels();
  drawSources();
  drawExports();
}

function drawLevels() {
  const isShown = (name) => name !== "other" && (levelCounts.has(name) || state.levels.some((level) => classOf(level) === name));
  const toggle = (name) => {
    const isOn = state.levels.some((level) => classOf(level) === name);
    go({ levels: isOn ? state.levels.filter((level) => classOf(level) !== name) : [...state.levels, name] });
  };
  $("levels").replaceChildren(
    ...ORDER.filter(isShown).map((name) =>
      h("button", {
        type: "button", class: `chip lv-${name}`, onclick: () => toggle(name),
        "aria-pressed": String(state.levels.some((level) => classOf(level) === name)),
      }, name, levelCounts.has(name) && h("span", { class: "faint" }, shortCount(levelCounts.get(name)))),
    ),
  );
}

function drawSources() {
  const label = state.sources.length === 0 ? "All sources" : state.sources.join(", ");
  const list = h("div", { class: "menu" }, h("p", { class: "faint" }, "Loading…"));
  const menu = h("details", { class: "dropdown" }, h("summary", { title: label, class: state.sources.length ? "on" : "" }, label), list);
  menu.addEventListener("toggle", () => menu.open && loadSources(list));
  $("sources").replaceChildren(menu);
}

async function loadSources(list) {
  try {
    const answer = await get("/logs/stats", { ...states.parameters(state), source: [], by: "source", agg: "count", sort: "-count", limit: 100 });
    const counts = new Map(answer.groups.filter(({ by }) => by.source).map((group) => [String(group.by.source), group.count]));
    for (const source of state.sources) if (!counts.has(source)) counts.set(source, 0);
    const toggle = (source) =>
      go({ sources: state.sources.includes(source) ? state.sources.filter((other) => other !== source) : [...state.sources, source] });
    list.replaceChildren(
      ...[...counts].map(([source, count]) =>
        h("label", {},
          h("input", { type: "checkbox", checked: state.sources.includes(source), onchange: () => toggle(source) }),
          h("span", { class: "text", title: source }, source), h("span", { class: "faint" }, shortCount(count))),
      ),
      state.sources.length !== 0 && h("button", { type: "button", class: "wide", onclick: () => go({ sources: [] }) }, "All sources"),
    );
    if (counts.size === 0) list.replaceChildren(h("p", { class: "faint" }, "No sources in this time range"));
  } catch (error) {
    list.replaceChildren(h("p", { class: "failure" }, error.message));
  }
}

function drawExports() {
  const link = (format) => {
    const href = address("/logs", { ...states.parameters(state), format, limit: "all" });
    return h("a", { href, download: `logs.${format}`, title: `Everything found, as ${format.toUpperCase()}` }, format.toUpperCase());
  };
  $("exports").replaceChildren(link("csv"), link("ndjson"));
}

// --- Asking ---

async function search(fresh = false) {
  asking.abort();
  asking = new AbortController();
  const { signal } = asking;
  tail.stop();
  clearInterval(liveTimer);
  highlighted = words(state.q);
  document.body.classList.add("asking");
  const options = { signal, fresh };
  const parameters = states.parameters(state);
  const charted = askChart(parameters, options);
  try {
    if (state.isLive) await startLive(parameters, options);
    else await askList(parameters, options);
    showProblem(null);
    document.body.classList.remove("failed");
    await charted;
    if ($("fields").classList.contains("shown")) await askFields(parameters, options);
  } catch (error) {
    if (error.name !== "AbortError") fail(error);
  } finally {
    if (asking.signal === signal) document.body.classList.remove("asking");
  }
}

async function askList(parameters, options) {
  const answer = await get("/logs", { ...parameters, limit: PAGE }, options);
  rows.replace(answer.logs);
  cursor = answer.next_cursor;
  $("more").hidden = cursor === null;
  $("arrived").hidden = true;
  const { value, relation } = answer.total ?? { value: answer.logs.length, relation: "gte" };
  $("count").textContent = `${relation === "eq" ? "" : "over "}${formatCount(value)} ${value === 1 ? "log" : "logs"}`;
  $("took").textContent = `${formatMs(answer.took_ms)}${answer.cache === "hit" ? " · from the cache" : ""}`;
  $("notice").replaceChildren(answer.partial ? h("p", { class: "failure" }, `This answer is not complete: ${answer.partial_reasons?.join("; ") || "a part of the store could not be read; see /status"}`) : "");
  if (value === 0) await explainNothing(parameters, options);
}

function formatMs(took) {
  const ms = Number(took);
  if (Number.isNaN(ms)) return "";
  return ms < 10 ? `${ms.toFixed(1)} ms` : ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

async function askChart(parameters, options) {
  try {
    const range = await closedRange(parameters, options);
    const answer = await get("/logs/histogram", { ...parameters, ...range, interval: "auto", by: "level" }, options);
    levelCounts = new Map();
    for (const bucket of answer.buckets) {
      for (const [name, count] of stackOf(bucket)) levelCounts.set(name, (levelCounts.get(name) ?? 0) + count);
    }
    drawLevels();
    chart.show(answer);
  } catch (error) {
    // What is wrong with the question the list says; the chart only steps back.
    if (error.name !== "AbortError") chart.clear(error.status === 400 ? "" : error.message);
  }
}

/** All time is from the oldest to the newest match: the width of the bars follows from that. */
async function closedRange(parameters, options) {
  if (parameters.start !== "") return {};
  const edge = async (order) => (await get("/logs", { ...parameters, order, limit: 1, total: false }, options)).logs[0]?.timestamp;
  const [start, newest] = await Promise.all([edge("asc"), edge("desc")]);
  if (start === undefined || newest === undefined) return {};
  return { start, end: parameters.end || new Date(Date.parse(newest) + 1).toISOString() };
}

async function askFields(parameters, options) {
  panel.wait();
  try {
    panel.show(await get("/logs/fields", { ...parameters, top: 5 }, options));
  } catch (error) {
    if (error.name !== "AbortError") panel.fail(error.message);
  }
}

async function loadMore() {
  if (cursor === null || $("more").disabled) return;
  if (rows.count() >= ROWS_MAX) {
    $("more").hidden = true;
    $("notice").replaceChildren(h("p", { class: "faint" }, `The list ends at ${formatCount(ROWS_MAX)} logs. Narrow the search or the time, or take the CSV.`));
    return;
  }
  $("more").disabled = true;
  try {
    const { signal } = asking;
    const answer = await get("/logs", { ...states.parameters(state), limit: PAGE, cursor, total: false }, { signal });
    rows.append(answer.logs);
    cursor = answer.next_cursor;
    $("more").hidden = cursor === null;
  } catch (error) {
    if (error.name !== "AbortError") fail(error);
  } finally {
    $("more").disabled = false;
    // Observed anew, for it tells only changes: the button may be in sight still.
    nearEnd.unobserve($("more"));
    nearEnd.observe($("more"));
  }
}

/** The tail gives no reason when it refuses a question; so the question is put to the list first, for its count alone. */
async function startLive(parameters, options) {
  await get("/logs", { ...parameters, limit: 0 }, options);
  rows.replace([]);
  cursor = null;
  $("more").hidden = true;
  $("count").textContent = "Waiting for logs…";
  $("took").textContent = "";
  $("notice").replaceChildren();
  scrollTo(0, 0);
  const { q, level, source } = parameters;
  tail.start({ q, level, source });
  liveTimer = setInterval(() => askChart(states.parameters(state), { signal: asking.signal }), LIVE_CHART_MS);
}

function showArrived(records) {
  rows.prepend(records);
  rows.trim(LIVE_ROWS_MAX);
  $("count").textContent = `Live: the newest ${formatCount(rows.count())}`;
}

// --- What is wrong, or not there ---

function fail(error) {
  showProblem(error);
  document.body.classList.add("failed");
  rows.replace([]);
  cursor = null;
  $("more").hidden = true;
  $("count").textContent = "";
  $("took").textContent = "";
  const hint = error.status === 0 ? h("button", { type: "button", onclick: () => search(true) }, "Try again") : "";
  $("notice").replaceChildren(hint);
}

/** The message; for a fault in the search, with the place under it. Positions count bytes of UTF-8. */
function showProblem(error) {
  const box = $("problem");
  $("q").removeAttribute("aria-invalid");
  box.hidden = error === null;
  if (error === null) return box.replaceChildren();
  const parts = [h("p", {}, error.message)];
  if (error.position !== null && error.position !== undefined && (error.parameter ?? "q") === "q" && state.q !== "") {
    const before = new TextDecoder().decode(new TextEncoder().encode(state.q).slice(0, error.position));
    parts.push(h("pre", {}, h("span", {}, state.q), "\n", `${" ".repeat([...before].length)}^`));
    $("q").setAttribute("aria-invalid", "true");
    if (document.activeElement === $("q")) $("q").setSelectionRange(before.length, before.length);
  }
  box.replaceChildren(...parts);
}

async function explainNothing(parameters, options) {
  const newestOf = async (question) => (await get("/logs", { ...question, limit: 1, total: false }, options)).logs[0];
  const { q, level, source } = parameters;
  const match = await newestOf({ q, level, source });
  if (match) {
    const stamp = String(match.timestamp);
    const around = () => {
      const ms = Date.parse(stamp);
      go({ start: new Date(ms - 3_600_000).toISOString(), end: new Date(ms + 1000).toISOString() });
    };
    return showNothing("Nothing in this time range",
      h("p", {}, `The newest match is from ${formatInstant(stamp, state.isUtc)}.`),
      h("p", {}, h("button", { type: "button", class: "primary", onclick: around }, "Show the hour before it"), " ", h("button", { type: "button", onclick: () => go({ start: "all", end: "" }) }, "Show all time")));
  }
  if (q || level.length || source.length) {
    const any = await newestOf({});
    if (any) {
      return showNothing("Nothing matches",
        h("p", {}, "No log of any time matches this search and these filters."),
        h("p", {}, h("button", { type: "button", class: "primary", onclick: () => go({ q: "", levels: [], sources: [] }) }, "Clear search and filters")));
    }
  }
  const command = `curl ${location.origin}/logs -d '{"level": "INFO", "source": "demo", "message": "hello, yard"}'`;
  showNothing("No logs yet",
    h("p", {}, "Send the first one: any JSON, NDJSON or plain text will do."),
    h("div", { class: "command" }, h("code", {}, command), h("button", { type: "button", onclick: () => copy(command, "the command") }, "Copy")),
    h("p", {}, "Or make some: ", h("code", {}, `logyard generate --to ${location.origin}`)),
    h("p", {}, h("button", { type: "button", class: "primary", onclick: () => go({ isLive: true, q: "", levels: [], sources: [] }) }, "Watch them arrive")));
}

function showNothing(title, ...children) {
  $("notice").replaceChildren(h("div", { class: "nothing" }, h("h2", {}, title), ...children));
}

// --- What people do ---

function onFilter(fieldAddress, text, isNegated) {
  $("context").close();
  go({ q: narrow(state.q, condition(fieldAddress, text, isNegated)), id: "" });
}

function onColumn(fieldAddress) {
  const has = state.columns.includes(fieldAddress);
  look({ columns: has ? state.columns.filter((column) => column !== fieldAddress) : [...state.columns, fieldAddress] });
}

function onZoom(fromMs, toMs) {
  go({ start: new Date(fromMs).toISOString(), end: new Date(toMs).toISOString(), isLive: false });
}

function setTheme(name) {
  document.documentElement.dataset.theme = name;
  try {
    localStorage.setItem("logyard-theme", name);
  } catch {
    // Private windows keep nothing; the choice then lasts as long as the page.
  }
}

function toggleFields(isShown) {
  $("fields").classList.toggle("shown", isShown);
  $("fields-open").setAttribute("aria-expanded", String(isShown));
}

function wire() {
  $("search").addEventListener("submit", (event) => {
    event.preventDefault();
    go({ q: $("q").value.trim(), id: "" });
  });
  $("q").addEventListener("input", () => ($("clear").hidden = $("q").value === ""));
  $("clear").addEventListener("click", () => {
    $("q").value = "";
    $("q").focus();
    go({ q: "" });
  });
  $("time").addEventListener("click", () => pickTime(state, (start, end) => go({ start, end, isLive: false })));
  $("refresh").addEventListener("click", () => search(true));
  $("live").addEventListener("click", () => go({ isLive: !state.isLive }));
  $("zone").addEventListener("click", () => look({ isUtc: !state.isUtc }));
  $("wrap").addEventListener("change", () => look({ isWrapped: $("wrap").checked }));
  $("theme").addEventListener("click", () => {
    const isDark = (document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
    setTheme(isDark ? "light" : "dark");
  });
  $("help-open").addEventListener("click", openHelp);
  $("more").addEventListener("click", loadMore);
  nearEnd.observe($("more"));
  $("arrived").addEventListener("click", () => {
    for (const row of document.querySelectorAll("#logs .row.open")) rows.toggle(row, false);
    scrollTo(0, 0);
    tail.flush();
  });
  addEventListener("scroll", () => state.isLive && scrollY === 0 && tail.flush(), { passive: true });
  $("fields-open").addEventListener("click", () => {
    toggleFields(!$("fields").classList.contains("shown"));
    if ($("fields").classList.contains("shown")) askFields(states.parameters(state), { signal: asking.signal });
  });
  $("context").addEventListener("close", () => {
    if (state.id !== "") look({ id: "" });
  });
  addEventListener("popstate", () => {
    state = states.read();
    drawControls();
    search();
  });
  document.addEventListener("click", (event) => {
    for (const menu of document.querySelectorAll("details.dropdown[open]")) if (!menu.contains(event.target)) menu.open = false;
  });
  document.addEventListener("keydown", onKey);
}

const openHelp = () => showHelp((example) => go({ q: example }));

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const target = event.target;
  if (event.key === "Escape" && target === $("q")) return target.blur();
  if (document.querySelector("dialog[open]")) return;
  if (target.matches("input, textarea, select")) return;
  const line = target.closest?.(".line");
  const actions = {
    "/": () => { $("q").focus(); $("q").select(); },
    j: () => rows.move(1),
    k: () => rows.move(-1),
    r: () => search(true),
    l: () => go({ isLive: !state.isLive }),
    "?": openHelp,
    Escape: () => { for (const row of document.querySelectorAll("#logs .row.open")) rows.toggle(row, false); },
  };
  if (line && (event.key === "Enter" || event.key === " ")) actions[event.key] = () => line.click();
  const action = actions[event.key];
  if (!action) return;
  event.preventDefault();
  action();
}

try {
  const theme = localStorage.getItem("logyard-theme");
  if (theme) document.documentElement.dataset.theme = theme;
} catch {
  // Private windows keep nothing; the system's choice holds.
}
wire();
toggleFields(WIDE.matches);
drawControls();
search();
if (state.id) showContext(state.id, shared);
