// The live tail: server-sent events, gathered and handed over once a frame, held back while the reader looks elsewhere.

import { address } from "./api.js";
import { parse } from "./json.js";

/** Records held back at most; the oldest fall out, the server has them still. */
const HELD_MAX = 1000;
const BACKFILL = 100;

/**
 * `{isPaused(), onRecords(records, newest first), onHeld(count), onState("open" | "lost")}`.
 * The browser reconnects by itself, with the last event's id, so nothing is missed or doubled.
 */
export function liveTail(options) {
  let source = null;
  let held = [];
  let isDue = false;

  const flush = () => {
    if (options.isPaused()) return options.onHeld(held.length);
    if (held.length !== 0) options.onRecords(held.reverse());
    held = [];
    options.onHeld(0);
  };
  const tick = () => {
    isDue = false;
    flush();
  };
  return {
    start(parameters) {
      this.stop();
      source = new EventSource(address("/logs/tail", { ...parameters, backfill: BACKFILL }));
      source.onopen = () => options.onState("open");
      source.onerror = () => options.onState("lost");
      source.onmessage = (event) => {
        held.push(parse(event.data));
        if (held.length > HELD_MAX) held.splice(0, held.length - HELD_MAX);
        if (!isDue) {
          isDue = true;
          // Hidden pages get no frames; a timer keeps the count right there too.
          setTimeout(tick, 50);
        }
      };
    },
    flush,
    stop() {
      source?.close();
      source = null;
      held = [];
    },
  };
}
