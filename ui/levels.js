// Levels: which words mean the same, in which order they stand, which colour class they have.

const SYNONYMS = new Map(
  Object.entries({
    emerg: "fatal", emergency: "fatal", panic: "fatal", alert: "fatal", crit: "fatal", critical: "fatal", fatal: "fatal",
    0: "fatal", 1: "fatal", 2: "fatal",
    err: "error", error: "error", 3: "error", severe: "error",
    warn: "warn", warning: "warn", 4: "warn",
    notice: "notice", 5: "notice",
    info: "info", information: "info", informational: "info", 6: "info",
    debug: "debug", dbg: "debug", 7: "debug", verbose: "debug",
    trace: "trace",
  }),
);

/** Most severe first; `other` holds what has no level or one of its own. */
export const ORDER = ["fatal", "error", "warn", "notice", "info", "debug", "trace", "other"];

/** The class of a level's text. */
export function classOf(level) {
  return SYNONYMS.get(String(level ?? "").trim().toLowerCase()) ?? "other";
}
