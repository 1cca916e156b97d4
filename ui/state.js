// The whole state of the page is in its URL: what is searched, when, which columns, live or not.

import { DEFAULT_START } from "./time.js";

const LISTS = { levels: "level", sources: "source", columns: "column" };

/** State from the address bar. */
export function read() {
  const url = new URLSearchParams(location.search);
  const start = url.get("start") ?? DEFAULT_START;
  const state = {
    q: url.get("q") ?? "",
    start: start === "" ? "all" : start,
    end: url.get("end") ?? "",
    isLive: url.get("live") === "1",
    isUtc: url.get("zone") === "utc",
    isWrapped: url.get("wrap") === "1",
    id: url.get("id") ?? "",
  };
  for (const [name, parameter] of Object.entries(LISTS)) {
    state[name] = url.getAll(parameter).filter((value) => value !== "");
  }
  return state;
}

/** The page's address for a state. */
export function toAddress(state) {
  const url = new URLSearchParams();
  if (state.q) url.set("q", state.q);
  if (state.start !== DEFAULT_START) url.set("start", state.start);
  if (state.end) url.set("end", state.end);
  for (const [name, parameter] of Object.entries(LISTS)) {
    for (const value of state[name]) url.append(parameter, value);
  }
  if (state.isLive) url.set("live", "1");
  if (state.isUtc) url.set("zone", "utc");
  if (state.isWrapped) url.set("wrap", "1");
  if (state.id) url.set("id", state.id);
  const text = url.toString();
  return text ? `/ui?${text}` : "/ui";
}

/** Puts a state into the address bar; as a step that "back" undoes, unless it replaces. */
export function write(state, isReplacing) {
  const address = toAddress(state);
  if (address === location.pathname + location.search) return;
  history[isReplacing ? "replaceState" : "pushState"](null, "", address);
}

/** The parameters of a question to the server. */
export function parameters(state) {
  return {
    q: state.q,
    start: state.start === "all" ? "" : state.start,
    end: state.end,
    level: state.levels,
    source: state.sources,
  };
}
