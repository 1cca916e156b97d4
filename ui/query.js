// Adding conditions to a search: the query language's quoting. Knows its grammar only as far as that needs.

/** A value as the language takes it behind `:=`; plain when it needs no quotes. */
export function quote(text) {
  return /^[\p{L}\p{N}_.-]+$/u.test(text) && !/^(AND|OR|NOT|-.*)$/.test(text) ? text : `"${escape(text)}"`;
}

const escape = (text) => text.replace(/[\\"]/g, "\\$&");

/** A field's name as the language takes it before the colon. */
export function fieldName(address) {
  return /^[\p{L}_@$][\p{L}\p{N}_.@$-]*$/u.test(address) && !/^(AND|OR|NOT)$/.test(address) ? address : `"${escape(address)}"`;
}

/** `field:="value"`, or its negation. */
export function condition(address, text, isNegated) {
  return `${isNegated ? "-" : ""}${fieldName(address)}:=${quote(text)}`;
}

/** The search `q` narrowed by a condition. Adding one that is there already, or its opposite, does what one would expect. */
export function narrow(q, added) {
  const trimmed = q.trim();
  if (trimmed === "") return added;
  const opposite = added.startsWith("-") ? added.slice(1) : `-${added}`;
  const padded = ` ${trimmed} `;
  if (padded.includes(` ${added} `)) return trimmed;
  if (padded.includes(` ${opposite} `)) return padded.replace(` ${opposite} `, ` ${added} `).trim();
  return /\bOR\b/.test(trimmed) ? `(${trimmed}) ${added}` : `${trimmed} ${added}`;
}

/** The words of a search that a message may show: bare words, phrases and values, lower case, for highlighting. */
export function words(q) {
  const found = [];
  const pattern = /(-|NOT\s+)?(?:[\w.@$-]+:)?(=|>=|<=|>|<)?(?:"((?:[^"\\]|\\.)*)"|([^\s()"]+))/gu;
  for (const [, isNegated, comparison, phrase, word] of q.matchAll(pattern)) {
    if (isNegated || (comparison && comparison !== "=")) continue;
    const text = (phrase ?? word ?? "").replace(/\\(.)/g, "$1");
    if (/^(AND|OR|NOT)$/.test(text) || /[*[{/]/.test(text)) continue;
    found.push(...(text.match(/[\p{L}\p{N}]+/gu) ?? []).filter((token) => token.length > 1));
  }
  return [...new Set(found.map((token) => token.toLowerCase()))].slice(0, 20);
}
