// Counts over time, stacked by level. Drag to zoom, click a bar to look into it.

import { $, formatCount, h, shortCount, svg } from "./dom.js";
import { classOf, ORDER } from "./levels.js";
import { formatSpan, formatTick } from "./time.js";

const HEIGHT = 96;
const AXIS = 18;
const LEFT = 40;
const DRAG_MIN = 5;

/** `{isUtc, onZoom(fromMs, toMs)}` → an object with `show(answer)` and `clear(text)`. */
export function histogram(options) {
  const container = $("chart");
  let answer = null;
  const redraw = () => answer && draw(container, answer, options);
  let width = 0;
  new ResizeObserver(() => {
    if (container.clientWidth !== width) {
      width = container.clientWidth;
      redraw();
    }
  }).observe(container);
  return {
    show(newAnswer) {
      answer = { ...newAnswer, interval_ms: Number(newAnswer.interval_ms) };
      redraw();
    },
    clear(text) {
      answer = null;
      container.replaceChildren(h("p", { class: "faint" }, text));
    },
    redraw,
  };
}

/** Counts by class, in the order of the stack: the most severe stand at the bottom. */
export function stackOf(bucket) {
  const stack = new Map();
  let rest = bucket.count;
  for (const [level, count] of Object.entries(bucket.by ?? {})) {
    const name = classOf(level);
    stack.set(name, (stack.get(name) ?? 0) + count);
    rest -= count;
  }
  if (rest > 0) stack.set("other", (stack.get("other") ?? 0) + rest);
  return ORDER.filter((name) => stack.has(name)).map((name) => [name, stack.get(name)]);
}

/** The next round number: few different ones, so that the scale does not jump with every answer. */
function niceCeiling(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1)));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((factor) => factor * power).find((nice) => nice >= value);
}

function draw(container, answer, options) {
  const isUtc = options.isUtc();
  const buckets = answer.buckets.map((bucket) => ({ ...bucket, startMs: Date.parse(bucket.start), stack: stackOf(bucket) }));
  const width = Math.max(container.clientWidth, 200);
  if (buckets.length === 0) {
    container.replaceChildren(h("p", { class: "faint" }, "Nothing in this time range"));
    return;
  }
  const top = niceCeiling(Math.max(...buckets.map((bucket) => bucket.count), 1));
  const plotWidth = width - LEFT - 4;
  const step = plotWidth / buckets.length;
  const gap = step > 6 ? 1.5 : step > 3 ? 0.5 : 0;
  const y = (count) => (count / top) * (HEIGHT - 6);

  const bars = buckets.flatMap((bucket, index) => {
    let above = HEIGHT;
    return bucket.stack.map(([name, count]) => {
      const height = Math.max(y(count), 0.75);
      above -= height;
      return svg("rect", { class: `lv-${name}`, x: LEFT + index * step, y: above, width: Math.max(step - gap, 0.75), height });
    });
  });
  const grid = [0.5, 1].filter((share) => Number.isInteger(top * share)).map((share) =>
    svg("g", { class: "grid" },
      svg("line", { x1: LEFT, x2: width, y1: HEIGHT - y(top * share), y2: HEIGHT - y(top * share) }),
      svg("text", { x: LEFT - 6, y: HEIGHT - y(top * share) + 4, "text-anchor": "end" }, shortCount(top * share)),
    ),
  );
  const brush = svg("rect", { class: "brush", x: 0, y: 0, width: 0, height: HEIGHT });
  const chart = svg("svg", {
    width, height: HEIGHT + AXIS, role: "img",
    "aria-label": `${formatCount(answer.total)} logs in ${buckets.length} bars of ${intervalName(answer.interval_ms)}`,
  },
    grid, bars, ticks(buckets, answer.interval_ms, step, width, isUtc),
    svg("line", { class: "base", x1: LEFT, x2: width, y1: HEIGHT, y2: HEIGHT }), brush);
  const tip = h("div", { class: "tip", hidden: true });
  container.replaceChildren(chart, tip, h("span", { class: "interval" }, `per ${intervalName(answer.interval_ms)}`));
  interact({ chart, tip, brush, buckets, step, width, intervalMs: answer.interval_ms, isUtc, onZoom: options.onZoom });
}

function ticks(buckets, intervalMs, step, width, isUtc) {
  const every = Math.max(1, Math.ceil(86 / step));
  return buckets
    .map((bucket, index) => [bucket, index])
    .filter(([, index]) => index % every === 0 && LEFT + index * step < width - 130)
    .map(([bucket, index]) =>
      svg("text", { class: "tick", x: LEFT + index * step, y: HEIGHT + 13 }, formatTick(bucket.startMs, intervalMs, isUtc)),
    );
}

export function intervalName(ms) {
  for (const [size, unit] of [[86_400_000, "day"], [3_600_000, "hour"], [60_000, "minute"], [1000, "second"]]) {
    if (ms >= size && ms % size === 0) return ms === size ? unit : `${ms / size} ${unit}s`;
  }
  return `${ms} ms`;
}

function interact({ chart, tip, brush, buckets, step, width, intervalMs, isUtc, onZoom }) {
  const indexAt = (x) => Math.min(buckets.length - 1, Math.max(0, Math.floor((x - LEFT) / step)));
  const xOf = (event) => event.clientX - chart.getBoundingClientRect().left;
  let from = null;

  chart.addEventListener("pointermove", (event) => {
    const x = xOf(event);
    if (from !== null) {
      brush.setAttribute("x", Math.min(from, x));
      brush.setAttribute("width", Math.abs(x - from));
    }
    const bucket = buckets[indexAt(x)];
    tip.replaceChildren(
      h("strong", {}, formatSpan(bucket.startMs, bucket.startMs + intervalMs, isUtc)),
      h("span", {}, `${formatCount(bucket.count)} logs`),
      bucket.stack.map(([name, count]) => h("span", { class: `key lv-${name}` }, `${name} ${formatCount(count)}`)),
    );
    tip.hidden = false;
    tip.style.left = `${Math.min(Math.max(x - tip.offsetWidth / 2, 0), width - tip.offsetWidth)}px`;
  });
  chart.addEventListener("pointerleave", () => (tip.hidden = true));
  chart.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    from = xOf(event);
    chart.setPointerCapture(event.pointerId);
  });
  const end = (event) => {
    if (from === null) return;
    const [a, b] = [from, xOf(event)].sort((left, right) => left - right);
    from = null;
    brush.setAttribute("width", 0);
    if (event.type === "pointercancel") return;
    const isClick = b - a < DRAG_MIN;
    const first = indexAt(a);
    const last = isClick ? first : indexAt(b);
    onZoom(buckets[first].startMs, buckets[last].startMs + intervalMs);
  };
  chart.addEventListener("pointerup", end);
  chart.addEventListener("pointercancel", end);
}
