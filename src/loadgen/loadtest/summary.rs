//! What a load test tells at its end: one table or one JSON object, and the promises that were broken.

use std::time::Duration;

use comfy_table::Cell;
use serde_json::{Value as Json, json};

use crate::loadgen::args::OutputFormat;
use crate::loadgen::fetch::{self, latency_table};
use crate::loadgen::loadtest::ledger::{Fate, Ledger, Verdict};
use crate::loadgen::loadtest::marker::MarkerTally;
use crate::loadgen::loadtest::process::ZstdYardstick;
use crate::loadgen::loadtest::{LoadtestArgs, Written};
use crate::loadgen::report::{self, Latency, human_bytes, human_count, out_line, warn_line};

pub struct Summary {
    args: LoadtestArgs,
    run: String,
    elapsed: Duration,
    written: Written,
    pub ledger: Ledger,
    pub queries: fetch::Tally,
    pub markers: Option<MarkerTally>,
    /// From the last answer until everything acknowledged was found.
    pub settled: Option<Duration>,
    pub verdict: Option<Verdict>,
    /// Ways of reading that do not agree.
    pub disagreements: Vec<String>,
    /// Records that differ from what was sent, the first few.
    pub differences: Vec<String>,
    pub cpu_s: Option<f64>,
    /// Resident: (at the end, highest).
    pub memory_bytes: Option<(u64, u64)>,
    pub yardstick: Option<ZstdYardstick>,
}

impl Summary {
    pub fn new(
        args: &LoadtestArgs,
        run: &str,
        elapsed: Duration,
        written: Written,
        ledger: Ledger,
    ) -> Self {
        Self {
            args: args.clone(),
            run: run.to_owned(),
            elapsed,
            written,
            ledger,
            queries: fetch::Tally::default(),
            markers: None,
            settled: None,
            verdict: None,
            disagreements: Vec::new(),
            differences: Vec::new(),
            cpu_s: None,
            memory_bytes: None,
            yardstick: None,
        }
    }

    /// Promises that were not kept.
    pub fn broken(&self) -> Vec<String> {
        let mut broken = self
            .verdict
            .as_ref()
            .map(Verdict::broken)
            .unwrap_or_default();
        broken.extend(self.disagreements.iter().cloned());
        if self.queries.n_wrong != 0 {
            broken.push(format!(
                "{} answers to queries cannot be true",
                self.queries.n_wrong
            ));
        }
        if let Some(markers) = &self.markers
            && markers.n_never != 0
        {
            broken.push(format!(
                "{} acknowledged markers were never found",
                markers.n_never
            ));
        }
        broken
    }

    fn unsent(&self) -> u64 {
        self.ledger.n_lines(Fate::Unsent)
    }

    fn seconds(&self) -> f64 {
        self.elapsed.as_secs_f64().max(1e-9)
    }

    /// The server's CPU time as a multiple of what `zstd -1` needs for the same bytes.
    fn zstd_multiple(&self) -> Option<f64> {
        let yardstick = self.yardstick.filter(|yardstick| 0.0 < yardstick.cpu_s)?;
        Some(self.cpu_s? / yardstick.cpu_s)
    }

    fn json(&self) -> Json {
        json!({
            "run": self.run, "seed": self.args.seed, "shape": self.args.shape.name(), "to": self.args.to,
            "elapsed_s": self.seconds(), "size_bytes": self.written.size_bytes,
            "lines": {
                "acked": self.ledger.n_lines(Fate::Acked), "refused": self.ledger.n_lines(Fate::Refused),
                "unknown": self.ledger.n_lines(Fate::Unknown), "mangled": self.ledger.n_lines(Fate::Mangled),
                "unsent": self.unsent(),
            },
            "acked_lines_per_s": self.ledger.n_lines(Fate::Acked) as f64 / self.seconds(),
            "retries": self.written.retries,
            "reasons": self.written.reasons,
            "ack_latency": self.written.latency.json(),
            "service_time": self.written.service_time.json(),
            "ack_to_searchable": self.markers.as_ref().map(|markers| markers.lag.json()),
            "markers_never_found": self.markers.as_ref().map(|markers| markers.n_never),
            "markers_not_acked": self.markers.as_ref().map(|markers| markers.n_not_acked),
            "settled_s": self.settled.map(|settled| settled.as_secs_f64()),
            "queries": (0 < self.args.queries).then(|| self.queries.json()),
            "verdict": self.verdict.as_ref().map(Verdict::json),
            "differences": self.differences,
            "server": self.cpu_s.map(|cpu_s| json!({
                "cpu_s": cpu_s,
                "cpu_s_per_gb": cpu_s / (self.written.size_bytes as f64 / 1e9).max(1e-9),
                "zstd_1_cpu_s": self.yardstick.map(|yardstick| yardstick.cpu_s),
                "zstd_1_ratio": self.yardstick.map(|y| y.size_bytes as f64 / (y.compressed_bytes as f64).max(1.0)),
                "multiple_of_zstd_1": self.zstd_multiple(),
                "memory_bytes": self.memory_bytes.map(|(now, _)| now),
                "memory_bytes_peak": self.memory_bytes.map(|(_, peak)| peak),
            })),
            "broken": self.broken(),
        })
    }

    pub fn print(&self) -> anyhow::Result<()> {
        if self.args.output == OutputFormat::Json {
            return out_line(&self.json().to_string());
        }
        self.print_lines()?;
        let mut table = report::table(&["what", "count", "p50 ms", "p90 ms", "p99 ms", "max ms"]);
        let mut row = |name: &str, latency: &Latency| {
            let mut cells = vec![Cell::new(name), report::number_cell(latency.count())];
            cells.extend(latency.cells());
            table.add_row(cells);
        };
        row("due to acknowledged", &self.written.latency);
        row("sent to acknowledged", &self.written.service_time);
        if let Some(markers) = &self.markers {
            row("acknowledged to searchable", &markers.lag);
        }
        out_line(&table.to_string())?;
        if 0 < self.args.queries {
            out_line(&latency_table(&self.queries).to_string())?;
        }
        self.print_server()?;
        for line in self
            .written
            .reasons
            .iter()
            .map(|reason| format!("not acknowledged: {reason}"))
        {
            warn_line(&line);
        }
        for line in self.queries.told.iter().chain(&self.differences) {
            warn_line(line);
        }
        let broken = self.broken();
        if broken.is_empty() && self.verdict.is_some() {
            out_line("every acknowledged line is stored once, as it was sent")?;
        }
        for promise in broken {
            warn_line(&format!("BROKEN: {promise}"));
        }
        Ok(())
    }

    fn print_lines(&self) -> anyhow::Result<()> {
        let acked = self.ledger.n_lines(Fate::Acked);
        out_line(&format!(
            "run {}: {acked} lines acknowledged in {:.1} s ({}/s, {} sent), {} refused, {} unknown, {} not sent",
            self.run,
            self.seconds(),
            human_count(acked as f64 / self.seconds()),
            human_bytes(self.written.size_bytes),
            self.ledger.n_lines(Fate::Refused),
            self.ledger.n_lines(Fate::Unknown),
            self.unsent(),
        ))?;
        if let (Some(verdict), Some(settled)) = (&self.verdict, self.settled) {
            out_line(&format!(
                "{} stored (all found after {:.1} s), {} lost, {} duplicates, {} altered",
                verdict.stored,
                settled.as_secs_f64(),
                verdict.lost,
                verdict.duplicates,
                verdict.altered
            ))?;
        }
        Ok(())
    }

    fn print_server(&self) -> anyhow::Result<()> {
        let (Some(cpu_s), Some((now, peak))) = (self.cpu_s, self.memory_bytes) else {
            return Ok(());
        };
        let multiple = self
            .zstd_multiple()
            .map(|multiple| format!(", {multiple:.1} times `zstd -1`"))
            .unwrap_or_default();
        out_line(&format!(
            "server: {cpu_s:.2} CPU-seconds, {:.2} for each GB{multiple}; memory {} (at most {})",
            cpu_s / (self.written.size_bytes as f64 / 1e9).max(1e-9),
            human_bytes(now),
            human_bytes(peak)
        ))
    }
}
