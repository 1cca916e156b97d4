// Instants and ranges: what the server understands, what people read. Instants are RFC 3339 text, so nothing below a
// millisecond is lost on the way through the page.

export const PRESETS = [
  ["-5m", "Last 5 minutes"],
  ["-15m", "Last 15 minutes"],
  ["-1h", "Last hour"],
  ["-3h", "Last 3 hours"],
  ["-12h", "Last 12 hours"],
  ["-24h", "Last 24 hours"],
  ["-3d", "Last 3 days"],
  ["-7d", "Last 7 days"],
  ["-30d", "Last 30 days"],
  ["all", "All time"],
];
export const DEFAULT_START = "-1h";

const pad = (number, width = 2) => String(number).padStart(width, "0");
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/** The parts of an instant in local time or UTC; `fraction` is the text behind the second's point. */
function parts(date, isUtc) {
  return isUtc
    ? [date.getUTCFullYear(), date.getUTCMonth(), date.getUTCDate(), date.getUTCHours(), date.getUTCMinutes(), date.getUTCSeconds()]
    : [date.getFullYear(), date.getMonth(), date.getDate(), date.getHours(), date.getMinutes(), date.getSeconds()];
}

/** `Nov 23 02:15:03.123`, with the year when it is not this one. */
export function formatInstant(rfc3339, isUtc) {
  const date = new Date(rfc3339);
  if (Number.isNaN(date.getTime())) return String(rfc3339);
  const [year, month, day, hour, minute, second] = parts(date, isUtc);
  const fraction = (/\.(\d+)/.exec(rfc3339)?.[1] ?? "").padEnd(3, "0").slice(0, 3);
  const years = year === parts(new Date(), isUtc)[0] ? "" : `${year} `;
  return `${years}${MONTHS[month]} ${pad(day)} ${pad(hour)}:${pad(minute)}:${pad(second)}.${fraction}`;
}

/** For an axis: as much as the width of a bucket asks for. */
export function formatTick(ms, intervalMs, isUtc) {
  const [, month, day, hour, minute, second] = parts(new Date(ms), isUtc);
  const isMidnight = hour === 0 && minute === 0 && second === 0;
  if (intervalMs >= 86_400_000 || isMidnight) return `${MONTHS[month]} ${pad(day)}`;
  return intervalMs < 60_000 ? `${pad(hour)}:${pad(minute)}:${pad(second)}` : `${pad(hour)}:${pad(minute)}`;
}

/** `Nov 23 02:15:00 – 02:20:00` */
export function formatSpan(fromMs, toMs, isUtc) {
  const a = parts(new Date(fromMs), isUtc);
  const b = parts(new Date(toMs), isUtc);
  const clock = (p) => `${pad(p[3])}:${pad(p[4])}:${pad(p[5])}`;
  const day = (p) => `${MONTHS[p[1]]} ${pad(p[2])}`;
  const isSameDay = day(a) === day(b) && a[0] === b[0];
  return isSameDay ? `${day(a)} ${clock(a)} – ${clock(b)}` : `${day(a)} ${clock(a)} – ${day(b)} ${clock(b)}`;
}

/** What a range is called on its button. */
export function describeRange(start, end, isUtc) {
  const preset = end === "" && PRESETS.find(([value]) => value === (start || "all"));
  if (preset) return preset[1];
  if (end === "" && start.startsWith("-")) return `Last ${start.slice(1)}`;
  const name = (value, open) => {
    if (value === "" || value === "all") return open;
    return Number.isNaN(Date.parse(value)) ? value : formatInstant(value, isUtc).replace(/:00\.000$|\.000$/, "");
  };
  return `${name(start, "beginning")} – ${name(end, "now")}`;
}

/** For `<input type="datetime-local">`. */
export function toInput(ms, isUtc) {
  const [year, month, day, hour, minute, second] = parts(new Date(ms), isUtc);
  return `${pad(year, 4)}-${pad(month + 1)}-${pad(day)}T${pad(hour)}:${pad(minute)}:${pad(second)}`;
}

/** RFC 3339 from such an input; empty when it is. */
export function fromInput(text, isUtc) {
  if (!text) return "";
  const ms = Date.parse(isUtc ? `${text}Z` : text);
  return Number.isNaN(ms) ? "" : new Date(ms).toISOString().replace(".000Z", "Z");
}

const UNITS = { s: 1e3, m: 60e3, h: 3600e3, d: 86_400e3, w: 604_800e3 };

/** Milliseconds since 1970 of a range's end, where the page can tell. */
export function toMs(value) {
  if (value === "" || value === "now") return Date.now();
  const relative = /^(?:now)?-(\d+)([smhdw])$/.exec(value);
  if (relative) return Date.now() - Number(relative[1]) * UNITS[relative[2]];
  return Date.parse(value);
}
