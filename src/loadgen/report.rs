//! What the tools show: progress while they run, tables and JSON at their end. Progress goes to stderr, results to stdout.

use std::io::{IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use comfy_table::{Cell, CellAlignment, Table, presets};
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

/// Between two plain progress lines when stderr is no terminal.
const PLAIN_INTERVAL: Duration = Duration::from_secs(5);

/// A bar on a terminal, a line every few seconds elsewhere.
pub struct Progress {
    bar: ProgressBar,
    is_terminal: bool,
    unit: &'static str,
    total: Option<u64>,
    started: Instant,
    done: AtomicU64,
    bytes: AtomicU64,
    /// Milliseconds after `started` at which the next plain line is due.
    next_plain_ms: AtomicU64,
}

impl Progress {
    /// `total` is what `advance` will have summed up to, where that is known.
    pub fn new(total: Option<u64>, unit: &'static str) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let bar = match total {
            Some(total) => ProgressBar::new(total),
            None => ProgressBar::no_length(),
        };
        let template = match total {
            Some(_) => "{elapsed_precise} {wide_bar} {human_pos}/{human_len} {msg}",
            None => "{elapsed_precise} {spinner} {human_pos} {msg}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        if !is_terminal {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        Self {
            bar,
            is_terminal,
            unit,
            total,
            started: Instant::now(),
            done: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            next_plain_ms: AtomicU64::new(PLAIN_INTERVAL.as_millis() as u64),
        }
    }

    pub fn advance(&self, count: u64, size_bytes: u64) {
        let done = self.done.fetch_add(count, Ordering::Relaxed) + count;
        let bytes = self.bytes.fetch_add(size_bytes, Ordering::Relaxed) + size_bytes;
        let elapsed = self.started.elapsed();
        let speed = done as f64 / elapsed.as_secs_f64().max(1e-3);
        if self.is_terminal {
            self.bar.set_position(done);
            self.bar.set_message(format!(
                "{}, {} {}/s",
                human_bytes(bytes),
                human_count(speed),
                self.unit
            ));
            return;
        }
        let now_ms = elapsed.as_millis() as u64;
        let due_ms = self.next_plain_ms.load(Ordering::Relaxed);
        let next_ms = now_ms + PLAIN_INTERVAL.as_millis() as u64;
        let is_due = due_ms <= now_ms
            && self
                .next_plain_ms
                .compare_exchange(due_ms, next_ms, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if is_due {
            let of = self
                .total
                .map(|total| format!(" of {total}"))
                .unwrap_or_default();
            warn_line(&format!(
                "{done}{of} {}, {}, {}/s",
                self.unit,
                human_bytes(bytes),
                human_count(speed)
            ));
        }
    }

    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// A line on stderr. A closed stderr is nobody's loss.
pub fn warn_line(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// A line on stdout.
pub fn out_line(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{text}").context("write to stdout")
}

pub fn human_bytes(bytes: u64) -> String {
    let value = bytes as f64;
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", value / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", value / 1e6),
        _ => format!("{:.2} GB", value / 1e9),
    }
}

pub fn human_count(value: f64) -> String {
    match value {
        v if v < 1e3 => format!("{v:.1}"),
        v if v < 1e6 => format!("{:.1}k", v / 1e3),
        v => format!("{:.2}M", v / 1e6),
    }
}

/// Latencies in microseconds, from 1 µs to 10 minutes, with three digits.
#[derive(Clone, Debug)]
pub struct Latency {
    histogram: Histogram<u64>,
}

const LATENCY_MAX_US: u64 = 600_000_000;

impl Latency {
    pub fn new() -> anyhow::Result<Self> {
        let histogram =
            Histogram::new_with_bounds(1, LATENCY_MAX_US, 3).context("make a latency histogram")?;
        Ok(Self { histogram })
    }

    pub fn record(&mut self, latency: Duration) {
        let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.histogram.saturating_record(us.max(1));
    }

    pub fn merge(&mut self, other: &Self) -> anyhow::Result<()> {
        self.histogram
            .add(&other.histogram)
            .context("merge latency histograms")
    }

    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// Milliseconds at a quantile between 0 and 1; 0 when nothing was recorded.
    pub fn quantile_ms(&self, quantile: f64) -> f64 {
        if self.histogram.is_empty() {
            return 0.0;
        }
        self.histogram.value_at_quantile(quantile) as f64 / 1e3
    }

    pub fn max_ms(&self) -> f64 {
        self.histogram.max() as f64 / 1e3
    }

    pub fn json(&self) -> serde_json::Value {
        json!({
            "count": self.count(),
            "p50_ms": self.quantile_ms(0.5),
            "p90_ms": self.quantile_ms(0.9),
            "p99_ms": self.quantile_ms(0.99),
            "p999_ms": self.quantile_ms(0.999),
            "max_ms": self.max_ms(),
        })
    }

    /// p50, p90, p99 and max for a table.
    pub fn cells(&self) -> Vec<Cell> {
        [
            self.quantile_ms(0.5),
            self.quantile_ms(0.9),
            self.quantile_ms(0.99),
            self.max_ms(),
        ]
        .into_iter()
        .map(|ms| number_cell(format!("{ms:.2}")))
        .collect()
    }
}

pub fn number_cell(text: impl ToString) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

pub fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(header.iter().map(|name| Cell::new(*name)));
    table
}
