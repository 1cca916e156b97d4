// JSON without loss: numbers that a double cannot hold keep their text. Names are data, never properties of ours:
// `__proto__` is a field like any other.

/** A number whose digits matter. */
export class ExactNumber {
  constructor(text) {
    this.text = text;
  }
  toString() {
    return this.text;
  }
  valueOf() {
    return Number(this.text);
  }
}

export function parse(text) {
  return JSON.parse(text, (_, value, context) => {
    const isExact = typeof value !== "number" || !context || String(value) === context.source;
    return isExact ? value : new ExactNumber(context.source);
  });
}

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof ExactNumber);

/** `[address, value]` of every leaf; empty objects are leaves. */
export function leaves(record, prefix = "", out = []) {
  for (const [name, value] of Object.entries(record)) {
    const address = prefix + name;
    if (isObject(value) && Object.keys(value).length !== 0) leaves(value, `${address}.`, out);
    else out.push([address, value]);
  }
  return out;
}

/** The value at a dotted address, nested or sent under the dotted name. */
export function at(record, address) {
  if (!isObject(record)) return undefined;
  if (Object.hasOwn(record, address)) return record[address];
  for (let dot = address.indexOf("."); dot !== -1; dot = address.indexOf(".", dot + 1)) {
    const head = address.slice(0, dot);
    if (Object.hasOwn(record, head)) {
      const found = at(record[head], address.slice(dot + 1));
      if (found !== undefined) return found;
    }
  }
  return undefined;
}

/** A value as one line of text; nothing for null. */
export function plain(value) {
  if (value === undefined || value === null) return "";
  if (typeof value === "string") return value;
  if (value instanceof ExactNumber) return value.text;
  return typeof value === "object" && value !== null ? stringify(value, 0) : String(value);
}

/** JSON text, indented by two when `indent` is given; exact numbers keep their digits. */
export function stringify(value, indent, depth = 0) {
  if (value instanceof ExactNumber) return value.text;
  if (typeof value !== "object" || value === null) return JSON.stringify(value) ?? "null";
  const isArray = Array.isArray(value);
  const entries = isArray ? value : Object.entries(value);
  const [open, close] = isArray ? "[]" : "{}";
  if (entries.length === 0) return open + close;
  const line = indent ? `\n${" ".repeat(indent * (depth + 1))}` : "";
  const end = indent ? `\n${" ".repeat(indent * depth)}` : "";
  const colon = indent ? ": " : ":";
  const parts = entries.map((entry) =>
    isArray
      ? stringify(entry, indent, depth + 1)
      : JSON.stringify(entry[0]) + colon + stringify(entry[1], indent, depth + 1),
  );
  return open + line + parts.join(`,${line}`) + end + close;
}
