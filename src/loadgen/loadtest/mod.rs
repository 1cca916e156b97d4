//! `logyard loadtest`: an open loop of writes, its own record of what was acknowledged, and a comparison with what the
//! server gives back. Latencies count from the instant a request was *due*, so a server that stalls cannot hide it.

mod ledger;
mod lines;
mod marker;
mod process;
mod readback;
mod summary;

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::loadgen::args::{self, OutputFormat};
use crate::loadgen::client::HttpClient;
use crate::loadgen::fetch::{self, Asker, Knowledge};
use crate::loadgen::loadtest::ledger::{Fate, Ledger, Plan};
use crate::loadgen::loadtest::lines::Lines;
use crate::loadgen::loadtest::marker::MarkerTally;
use crate::loadgen::loadtest::summary::Summary;
use crate::loadgen::push::{Outcome, Target, push, push_with_retry};
use crate::loadgen::report::{Latency, Progress, warn_line};
use crate::loadgen::rng::Rng;
use crate::loadgen::shape::{LineTimes, ShapeKind};

/// Batches whose turn comes later than this after the end are not sent: the server is too slow for the rate.
const LATE_MAX: Duration = Duration::from_secs(5);
/// Reasons of refused or unanswered batches that are shown.
const REASONS_MAX: usize = 5;

const EXAMPLES: &str = "Examples:
  logyard loadtest --rate 20k/s --duration 30s
  logyard loadtest --rate 50k/s --duration 1m --queries 4 --pid $(pidof logyard) --output json

Exit code 1 when a promise is broken: an acknowledged line is missing, a line is there twice, a refused line is there at
all, a record differs from what was sent, an answer to a query cannot be true, a marker is never found.";

#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct LoadtestArgs {
    /// The server to test
    #[arg(long, value_name = "URL", default_value = crate::loadgen::DEFAULT_URL)]
    pub to: String,
    /// Lines a second
    #[arg(long, value_name = "N/s", default_value = "10k/s", value_parser = args::rate)]
    pub rate: f64,
    /// Requests a second, instead of --rate
    #[arg(long, value_name = "N/s", value_parser = args::rate, conflicts_with = "rate")]
    pub requests: Option<f64>,
    /// How long to send
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = args::duration)]
    pub duration: Duration,
    /// Lines in one request
    #[arg(long, value_name = "N", default_value_t = 500)]
    pub batch_lines: u64,
    /// What the lines look like: app, wide or repetitive
    #[arg(long, value_enum, default_value_t)]
    pub shape: ShapeKind,
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Names under which lines are numbered
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub producers: u64,
    /// Requests in flight at most; the wait for a free place counts as latency
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub max_in_flight: usize,
    /// Send a refused or unanswered batch again for this long, with the same idempotency key
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = args::duration)]
    pub retry_for: Duration,
    /// Questions asked at the same time, checked as `fetch` does
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub queries: usize,
    /// Send a marker record this often and measure when it can be found; 0s: none
    #[arg(long, value_name = "TIME", default_value = "200ms", value_parser = args::duration)]
    pub marker_every: Duration,
    /// How long acknowledged lines may take to be found
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = args::duration)]
    pub settle: Duration,
    /// How long one request may take
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = args::duration)]
    pub timeout: Duration,
    /// Tell the CPU time and memory of this process (the server's), and its CPU time as a multiple of `zstd -1`
    #[arg(long, value_name = "PID")]
    pub pid: Option<u32>,
    /// Append what became of each batch to this file, as JSON lines
    #[arg(long, value_name = "FILE")]
    pub ledger: Option<PathBuf>,
    /// Do not read back what was stored
    #[arg(long)]
    pub no_check: bool,
    /// How to report at the end
    #[arg(long, value_enum, default_value_t)]
    pub output: OutputFormat,
}

impl LoadtestArgs {
    fn plan(&self) -> anyhow::Result<Plan> {
        ensure!(0 < self.batch_lines, "--batch-lines must be above 0");
        ensure!(0 < self.producers, "--producers must be above 0");
        ensure!(0 < self.max_in_flight, "--max-in-flight must be above 0");
        ensure!(
            self.shape.is_json(),
            "--shape {} cannot carry numbers; take app, wide or repetitive",
            self.shape.name()
        );
        let n_batches = (self.requests_per_s() * self.duration.as_secs_f64()).round() as u64;
        Ok(Plan {
            n_batches: n_batches.max(1),
            batch_lines: self.batch_lines,
            n_producers: self.producers,
        })
    }

    fn requests_per_s(&self) -> f64 {
        self.requests.unwrap_or(self.rate / self.batch_lines as f64)
    }
}

/// What the writers share.
struct Writers {
    client: HttpClient,
    run: String,
    retry_for: Duration,
    lines: Lines,
    ledger: Mutex<Ledger>,
    written: Mutex<Written>,
    ledger_file: Option<Mutex<std::fs::File>>,
    progress: Progress,
}

/// What the writers measured.
#[derive(Clone, Debug)]
pub struct Written {
    /// Of acknowledged batches, from the instant they were due.
    latency: Latency,
    /// Of acknowledged batches, from the instant they were sent.
    service_time: Latency,
    size_bytes: u64,
    retries: u64,
    reasons: Vec<String>,
}

/// Tests. True when no promise was broken.
pub async fn loadtest(args: LoadtestArgs) -> anyhow::Result<bool> {
    let plan = args.plan()?;
    let client = HttpClient::new(&args.to, args.timeout)?;
    let reply = client
        .get("/status", &[])
        .await
        .context("is the server up?")?;
    ensure!(
        reply.status.is_success(),
        "/status answers {}",
        reply.status.as_u16()
    );
    let cpu_before_s = args.pid.map(process::cpu_s).transpose()?;
    let run = format!("{:012x}", rand::random::<u64>() >> 16);
    let start_ns =
        i64::try_from(jiff::Timestamp::now().as_nanosecond()).context("the clock is past 2262")?;
    let times = LineTimes::Spread {
        start_ns,
        end_ns: start_ns.saturating_add(i64::try_from(args.duration.as_nanos())?.max(1)),
        count: plan.n_lines(),
    };
    let mut lines = Lines::new(run.clone(), plan, args.shape, args.seed, times);

    let stop = Arc::new(AtomicBool::new(false));
    let interrupt = tokio::spawn(stop_on_interrupt(stop.clone()));
    let background = Background::start(&args, &client, &run);
    let writers = Arc::new(make_writers(&args, &client, &run, &lines)?);
    let started = Instant::now();
    send_all(&args, plan, &writers, &stop).await?;
    let elapsed = started.elapsed();
    writers.progress.finish();

    let (written, ledger) = (
        writers.written.lock().clone(),
        writers.ledger.lock().clone(),
    );
    let mut summary = Summary::new(&args, &run, elapsed, written, ledger);
    background.finish(&mut summary).await?;
    if !args.no_check {
        check_stored(&client, &args, &mut lines, &mut summary).await?;
    }
    if let (Some(pid), Some(before_s)) = (args.pid, cpu_before_s) {
        summary.cpu_s = Some(process::cpu_s(pid)? - before_s);
        summary.memory_bytes = Some(process::memory_bytes(pid)?);
        // Nothing else runs any more, so this may hold the thread.
        summary.yardstick = Some(process::zstd_yardstick_blocking(
            &mut lines,
            plan.n_batches,
        )?);
    }
    interrupt.abort();
    summary.print()?;
    Ok(summary.broken().is_empty())
}

async fn stop_on_interrupt(stop: Arc<AtomicBool>) {
    if tokio::signal::ctrl_c().await.is_ok() {
        stop.store(true, Ordering::Relaxed);
    }
}

/// What goes on beside the writing.
struct Background {
    is_over: Arc<AtomicBool>,
    markers: Option<JoinHandle<anyhow::Result<MarkerTally>>>,
    queries: Vec<JoinHandle<fetch::Tally>>,
}

impl Background {
    fn start(args: &LoadtestArgs, client: &HttpClient, run: &str) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let markers = (!args.marker_every.is_zero()).then(|| {
            tokio::spawn(marker::run(
                client.clone(),
                run.to_owned(),
                args.marker_every,
                args.settle,
                is_over.clone(),
            ))
        });
        let queries = (0..args.queries as u64)
            .map(|number| {
                tokio::spawn(keep_asking(
                    client.clone(),
                    args.seed + number,
                    is_over.clone(),
                ))
            })
            .collect();
        Self {
            is_over,
            markers,
            queries,
        }
    }

    async fn finish(self, summary: &mut Summary) -> anyhow::Result<()> {
        self.is_over.store(true, Ordering::Relaxed);
        for query in self.queries {
            summary
                .queries
                .merge(query.await.context("a task that asks")?)?;
        }
        if let Some(markers) = self.markers {
            summary.markers = Some(markers.await.context("the task that sends markers")??);
        }
        Ok(())
    }
}

fn make_writers(
    args: &LoadtestArgs,
    client: &HttpClient,
    run: &str,
    lines: &Lines,
) -> anyhow::Result<Writers> {
    let ledger_file = match &args.ledger {
        Some(path) => {
            let file = std::fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .with_context(|| format!("open {}", path.display()))?;
            Some(Mutex::new(file))
        }
        None => None,
    };
    Ok(Writers {
        client: client.clone(),
        run: run.to_owned(),
        retry_for: args.retry_for,
        lines: lines.clone(),
        ledger: Mutex::new(Ledger::new(lines.plan)),
        written: Mutex::new(Written {
            latency: Latency::new()?,
            service_time: Latency::new()?,
            size_bytes: 0,
            retries: 0,
            reasons: Vec::new(),
        }),
        ledger_file,
        progress: Progress::new(Some(lines.plan.n_lines()), "lines"),
    })
}

/// Starts each batch when it is due, whatever became of those before it.
async fn send_all(
    args: &LoadtestArgs,
    plan: Plan,
    writers: &Arc<Writers>,
    stop: &AtomicBool,
) -> anyhow::Result<()> {
    let places = Arc::new(Semaphore::new(args.max_in_flight));
    let interval = Duration::from_secs_f64(1.0 / args.requests_per_s());
    let started = tokio::time::Instant::now();
    let mut sending = tokio::task::JoinSet::new();
    for batch in 0..plan.n_batches {
        let due = started + interval.mul_f64(batch as f64);
        tokio::time::sleep_until(due).await;
        let place = places
            .clone()
            .acquire_owned()
            .await
            .context("wait for a free place")?;
        let is_too_late = args.duration + LATE_MAX < started.elapsed();
        if is_too_late || stop.load(Ordering::Relaxed) {
            break;
        }
        let writers = writers.clone();
        sending.spawn(async move {
            let _place = place;
            write_batch(&writers, batch, due.into_std()).await
        });
        while let Some(ended) = sending.try_join_next() {
            ended.context("a task that writes")??;
        }
    }
    while let Some(ended) = sending.join_next().await {
        ended.context("a task that writes")??;
    }
    Ok(())
}

async fn write_batch(writers: &Writers, batch: u64, due: Instant) -> anyhow::Result<()> {
    let mut body = Vec::new();
    writers.lines.clone().batch(batch, &mut body);
    let size_bytes = body.len() as u64;
    let key = format!("loadtest-{}-{batch}", writers.run);
    let sent = Instant::now();
    let (target, body) = (Target::ndjson(&writers.client), Bytes::from(body));
    let (outcome, retries) = if writers.retry_for.is_zero() {
        (push(target, &key, body).await, 0)
    } else {
        push_with_retry(target, &key, body, writers.retry_for).await
    };
    let answered = Instant::now();
    let fate = writers.ledger.lock().note(batch, &outcome);
    if let Some(file) = &writers.ledger_file {
        let line =
            serde_json::json!({"run": writers.run, "batch": batch, "fate": format!("{fate:?}")});
        writeln!(file.lock(), "{line}").context("write the ledger")?;
    }
    let mut written = writers.written.lock();
    written.size_bytes += size_bytes;
    written.retries += retries;
    if fate == Fate::Acked {
        written.latency.record(answered - due);
        written.service_time.record(answered - sent);
    }
    if let Outcome::Refused { reason, .. } | Outcome::Unknown { reason } = outcome
        && written.reasons.len() < REASONS_MAX
        && !written.reasons.contains(&reason)
    {
        written.reasons.push(reason);
    }
    drop(written);
    writers
        .progress
        .advance(writers.lines.plan.batch_lines, size_bytes);
    Ok(())
}

/// One asker of random questions, as `fetch` has them, until the test is over.
async fn keep_asking(client: HttpClient, seed: u64, is_over: Arc<AtomicBool>) -> fetch::Tally {
    let mut asker = Asker {
        client,
        tally: fetch::Tally::default(),
        is_cache_bypassed: false,
        is_unchecked: false,
    };
    let mut known = None;
    let mut index = 0;
    while !is_over.load(Ordering::Relaxed) {
        // What the store holds changes all the time; it is looked at anew now and then.
        if index % 50 == 0 || known.is_none() {
            known = Knowledge::learn(&mut asker).await;
        }
        index += 1;
        let Some(known) = &known else {
            tokio::time::sleep(Duration::from_millis(200)).await;
            continue;
        };
        let mut rng = Rng::of_line(seed, index);
        let kind = rng.pick(&fetch::ALL_KINDS);
        // What cannot be checked has been counted by the asker already.
        let _ = fetch::ask(kind, &mut asker, &mut rng, known).await;
    }
    asker.tally
}

async fn check_stored(
    client: &HttpClient,
    args: &LoadtestArgs,
    lines: &mut Lines,
    summary: &mut Summary,
) -> anyhow::Result<()> {
    let n_acked = summary.ledger.n_lines(Fate::Acked);
    let (n_found, settled) = readback::settle(client, &lines.run, n_acked, args.settle).await?;
    summary.settled = Some(settled);
    if n_found < n_acked {
        warn_line(&format!(
            "{n_found} of {n_acked} acknowledged lines found after {} s",
            settled.as_secs()
        ));
    }
    let stored = readback::stream(client, lines)
        .await
        .context("read back what is stored")?;
    summary.disagreements = readback::cross_check(client, lines, &stored)
        .await
        .context("read back by counts and pages")?;
    summary.differences.clone_from(&stored.differences);
    summary.verdict = Some(summary.ledger.verdict(&stored));
    Ok(())
}
