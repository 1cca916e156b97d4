//! `logyard generate`: realistic synthetic logs to a server or to stdout, as fast as it goes or at a rate.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::mpsc;

use crate::loadgen::args::{self, OutputFormat};
use crate::loadgen::client::HttpClient;
use crate::loadgen::push::{Outcome, Target, push_with_retry};
use crate::loadgen::report::{Progress, human_bytes, human_count, out_line, warn_line};
use crate::loadgen::shape::{LineTimes, LineWriter, ShapeKind};

/// Lines made when neither `--count` nor `--rate` is given.
const COUNT_DEFAULT: u64 = 100_000;
/// The span of the lines when they go to stdout and none is given: fixed, so that the bytes are.
const STDOUT_START_NS: i64 = 1_742_428_800_000_000_000;
const STDOUT_SPAN_NS: i64 = 86_400_000_000_000;
/// The span that ends now when they go to a server and none is given.
const SERVER_SPAN_NS: i64 = 3_600_000_000_000;
/// Bytes written to stdout at once.
const STDOUT_CHUNK_BYTES: usize = 1 << 20;
/// Reasons of refused batches that are shown.
const REASONS_MAX: usize = 5;

const EXAMPLES: &str = "Examples:
  logyard generate --count 1M
  logyard generate --rate 500/s --shape access
  logyard generate --count 1M --shape wide --stdout > events.ndjson";

#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct GenerateArgs {
    /// Lines to make, as 1000, 10k or 2M [default: 100k; without end when --rate is given]
    #[arg(long, value_name = "N", value_parser = args::count)]
    pub count: Option<u64>,
    /// Lines a second, as 500/s or 20k/s [default: as fast as it goes]
    #[arg(long, value_name = "N/s", value_parser = args::rate)]
    pub rate: Option<f64>,
    /// What the lines look like
    #[arg(long, value_enum, default_value_t)]
    pub shape: ShapeKind,
    /// Same seed, shape, count and time span: same bytes
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// The server to send to
    #[arg(long, value_name = "URL", default_value = crate::loadgen::DEFAULT_URL, conflicts_with = "stdout")]
    pub to: String,
    /// Write the lines to stdout instead of sending them
    #[arg(long)]
    pub stdout: bool,
    /// Time of the first line: RFC 3339, or relative as in -1d [default: an hour ago; the time of sending when --rate is
    /// given; 2025-03-20 for --stdout]
    #[arg(long, value_name = "TIME", value_parser = args::instant, allow_hyphen_values = true)]
    pub start: Option<i64>,
    /// Time after the last line [default: now; a day after --start for --stdout]
    #[arg(long, value_name = "TIME", value_parser = args::instant, allow_hyphen_values = true)]
    pub end: Option<i64>,
    /// Requests in flight at once
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub concurrency: usize,
    /// Lines in one request; fewer at a low --rate
    #[arg(long, value_name = "N", default_value_t = 2_000)]
    pub batch_lines: u64,
    /// How long one request may take
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = args::duration)]
    pub timeout: Duration,
    /// How long a batch is sent again (429, 502, 503, 504, no answer) before it counts as not accepted
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = args::duration)]
    pub retry_for: Duration,
    /// How to report at the end
    #[arg(long, value_enum, default_value_t)]
    pub output: OutputFormat,
}

impl GenerateArgs {
    fn line_count(&self) -> Option<u64> {
        match (self.count, self.rate) {
            (None, None) => Some(COUNT_DEFAULT),
            (count, _) => count,
        }
    }

    fn times(&self) -> anyhow::Result<LineTimes> {
        let now_ns = || {
            i64::try_from(jiff::Timestamp::now().as_nanosecond()).context("the clock is past 2262")
        };
        let is_spanless = self.start.is_none() && self.end.is_none();
        if self.rate.is_some() && is_spanless {
            return Ok(LineTimes::Now);
        }
        let (start_ns, end_ns) = match (self.start, self.end) {
            (Some(start), Some(end)) => (start, end),
            (Some(start), None) if self.stdout => (start, start.saturating_add(STDOUT_SPAN_NS)),
            (Some(start), None) => (start, now_ns()?),
            (None, Some(end)) => (end.saturating_sub(SERVER_SPAN_NS), end),
            (None, None) if self.stdout => (STDOUT_START_NS, STDOUT_START_NS + STDOUT_SPAN_NS),
            (None, None) => {
                let now = now_ns()?;
                (now - SERVER_SPAN_NS, now)
            }
        };
        ensure!(start_ns < end_ns, "--start must lie before --end");
        let count = self
            .line_count()
            .context("--start and --end need --count: lines without end have no span")?;
        Ok(LineTimes::Spread {
            start_ns,
            end_ns,
            count,
        })
    }

    /// At a rate, a request holds at most a tenth of a second of lines, so that they flow.
    fn lines_per_batch(&self) -> u64 {
        let per_tick = self.rate.map_or(u64::MAX, |rate| (rate / 10.0) as u64);
        self.batch_lines.min(per_tick).max(1)
    }
}

/// What became of the lines.
#[derive(Clone, Debug, Default)]
struct Tally {
    sent: u64,
    size_bytes: u64,
    accepted: u64,
    dead_lettered: u64,
    refused: u64,
    unknown: u64,
    retries: u64,
    reasons: Vec<String>,
}

/// Makes lines. True when the server accepted every one that was asked for.
pub async fn generate(args: GenerateArgs) -> anyhow::Result<bool> {
    ensure!(0 < args.batch_lines, "--batch-lines must be above 0");
    ensure!(0 < args.concurrency, "--concurrency must be above 0");
    let stop = Arc::new(AtomicBool::new(false));
    let watcher = tokio::spawn(stop_on_interrupt(stop.clone()));
    let result = if args.stdout {
        to_stdout(args, stop).await
    } else {
        to_server(args, stop).await
    };
    watcher.abort();
    result
}

async fn stop_on_interrupt(stop: Arc<AtomicBool>) {
    if tokio::signal::ctrl_c().await.is_ok() {
        stop.store(true, Ordering::Relaxed);
    }
}

async fn to_stdout(args: GenerateArgs, stop: Arc<AtomicBool>) -> anyhow::Result<bool> {
    let thread = std::thread::Builder::new()
        .name("generate".to_owned())
        .spawn(move || to_stdout_blocking(&args, &stop))
        .context("start the thread `generate`")?;
    let (sender, done) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("generate-join".to_owned())
        .spawn(move || sender.send(thread.join()))
        .context("start the thread `generate-join`")?;
    match done.await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) | Err(_) => anyhow::bail!("the thread `generate` ended badly"),
    }
}

fn to_stdout_blocking(args: &GenerateArgs, stop: &AtomicBool) -> anyhow::Result<bool> {
    let mut writer = LineWriter::new(args.shape, args.seed, args.times()?);
    let count = args.line_count();
    let mut pace = Pace::new(args.rate);
    let n_batch = args.lines_per_batch();
    let mut stdout = std::io::stdout().lock();
    let mut buffer = Vec::with_capacity(2 * STDOUT_CHUNK_BYTES);
    let mut index = 0;
    while count.is_none_or(|count| index < count) && !stop.load(Ordering::Relaxed) {
        let n_lines = count.map_or(n_batch, |count| n_batch.min(count - index));
        for _ in 0..n_lines {
            writer.write(index, &mut buffer);
            index += 1;
        }
        if args.rate.is_some() || STDOUT_CHUNK_BYTES <= buffer.len() {
            if !write_chunk(&mut stdout, &mut buffer)? {
                return Ok(true);
            }
            std::thread::sleep(pace.wait_for(index));
        }
    }
    write_chunk(&mut stdout, &mut buffer)?;
    Ok(count.is_none_or(|count| index == count))
}

/// False when the reader has gone, as `head` does: there is nobody left to write for.
fn write_chunk(stdout: &mut impl std::io::Write, buffer: &mut Vec<u8>) -> anyhow::Result<bool> {
    let written = stdout.write_all(buffer).and_then(|()| stdout.flush());
    buffer.clear();
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("write to stdout"),
    }
}

/// When line n is due.
struct Pace {
    rate: Option<f64>,
    started: Instant,
}

impl Pace {
    fn new(rate: Option<f64>) -> Self {
        Self {
            rate,
            started: Instant::now(),
        }
    }

    fn wait_for(&mut self, index: u64) -> Duration {
        let Some(rate) = self.rate else {
            return Duration::ZERO;
        };
        let due = Duration::from_secs_f64(index as f64 / rate);
        due.saturating_sub(self.started.elapsed())
    }
}

/// A body on its way to the server.
struct Batch {
    number: u64,
    n_lines: u64,
    body: Bytes,
}

async fn to_server(args: GenerateArgs, stop: Arc<AtomicBool>) -> anyhow::Result<bool> {
    let client = HttpClient::new(&args.to, args.timeout)?;
    let writer = LineWriter::new(args.shape, args.seed, args.times()?);
    let count = args.line_count();
    let (batches, receiver) = mpsc::channel(args.concurrency);
    let receiver = Arc::new(tokio::sync::Mutex::new(receiver));
    let tally = Arc::new(Mutex::new(Tally::default()));
    let progress = Arc::new(Progress::new(count, "lines"));
    // Two runs with the same seed are two runs: the server must not take the second for a retry of the first.
    let run: u64 = rand::random();
    let path = match args.shape.default_source() {
        Some(source) => format!("/logs?source={source}"),
        None => "/logs".to_owned(),
    };
    let started = Instant::now();
    let producer = tokio::spawn(produce(args.clone(), writer, batches, stop.clone()));
    let mut senders = tokio::task::JoinSet::new();
    for _ in 0..args.concurrency {
        let (client, receiver, tally) = (client.clone(), receiver.clone(), tally.clone());
        let (progress, path, stop) = (progress.clone(), path.clone(), stop.clone());
        let (retry_for, media_type) = (args.retry_for, args.shape.media_type());
        senders.spawn(async move {
            loop {
                let next = receiver.lock().await.recv().await;
                let Some(batch) = next else { return };
                let (n_lines, size_bytes) = (batch.n_lines, batch.body.len() as u64);
                // After Ctrl-C what is under way is finished, but nobody waits for a server that is away.
                let patience = if stop.load(Ordering::Relaxed) {
                    Duration::ZERO
                } else {
                    retry_for
                };
                let key = format!("generate-{run:016x}-{}", batch.number);
                let target = Target {
                    client: &client,
                    path: &path,
                    media_type,
                };
                let (outcome, retries) = push_with_retry(target, &key, batch.body, patience).await;
                tally.lock().add(outcome, retries, n_lines, size_bytes);
                progress.advance(n_lines, size_bytes);
            }
        });
    }
    producer.await.context("the task that makes lines")?;
    while let Some(ended) = senders.join_next().await {
        ended.context("a task that sends lines")?;
    }
    progress.finish();
    let tally = tally.lock().clone();
    tally.report(&args, started.elapsed())?;
    let is_complete = count.is_none_or(|count| tally.sent == count);
    Ok(is_complete && tally.accepted == tally.sent)
}

async fn produce(
    args: GenerateArgs,
    mut writer: LineWriter,
    batches: mpsc::Sender<Batch>,
    stop: Arc<AtomicBool>,
) {
    let count = args.line_count();
    let n_batch = args.lines_per_batch();
    let mut pace = Pace::new(args.rate);
    let (mut index, mut number) = (0, 0);
    let mut capacity = 0;
    while count.is_none_or(|count| index < count) && !stop.load(Ordering::Relaxed) {
        let n_lines = count.map_or(n_batch, |count| n_batch.min(count - index));
        let mut body = Vec::with_capacity(capacity);
        for _ in 0..n_lines {
            writer.write(index, &mut body);
            index += 1;
        }
        capacity = body.len() + body.len() / 16;
        let body = Bytes::from(body);
        let batch = Batch {
            number,
            n_lines,
            body,
        };
        if batches.send(batch).await.is_err() {
            return;
        }
        number += 1;
        let wait = pace.wait_for(index);
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }
}

impl Tally {
    fn add(&mut self, outcome: Outcome, retries: u64, n_lines: u64, size_bytes: u64) {
        self.sent += n_lines;
        self.size_bytes += size_bytes;
        self.retries += retries;
        let reason = match outcome {
            Outcome::Acked {
                accepted,
                dead_lettered,
                replayed: _,
            } => {
                self.accepted += accepted;
                self.dead_lettered += dead_lettered;
                (accepted + dead_lettered != n_lines).then(|| {
                    format!(
                        "sent {n_lines} lines, the server counts {}",
                        accepted + dead_lettered
                    )
                })
            }
            Outcome::Refused { status, reason } => {
                self.refused += n_lines;
                Some(format!("{status}: {reason}"))
            }
            Outcome::Unknown { reason } => {
                self.unknown += n_lines;
                Some(reason)
            }
        };
        if let Some(reason) = reason
            && self.reasons.len() < REASONS_MAX
            && !self.reasons.contains(&reason)
        {
            self.reasons.push(reason);
        }
    }

    fn report(&self, args: &GenerateArgs, elapsed: Duration) -> anyhow::Result<()> {
        let seconds = elapsed.as_secs_f64().max(1e-9);
        let (lines_per_s, bytes_per_s) =
            (self.sent as f64 / seconds, self.size_bytes as f64 / seconds);
        if args.output == OutputFormat::Json {
            return out_line(
                &json!({
                    "shape": args.shape.name(), "seed": args.seed, "to": args.to,
                    "sent": self.sent, "accepted": self.accepted, "dead_lettered": self.dead_lettered,
                    "refused": self.refused, "unknown": self.unknown, "retries": self.retries,
                    "size_bytes": self.size_bytes, "elapsed_s": seconds,
                    "lines_per_s": lines_per_s, "bytes_per_s": bytes_per_s, "reasons": self.reasons,
                })
                .to_string(),
            );
        }
        out_line(&format!(
            "{} lines sent ({}) in {seconds:.2} s: {} lines/s, {}/s",
            self.sent,
            human_bytes(self.size_bytes),
            human_count(lines_per_s),
            human_bytes(bytes_per_s as u64),
        ))?;
        out_line(&format!(
            "{} accepted, {} dead-lettered, {} refused, {} unknown, {} requests sent again",
            self.accepted, self.dead_lettered, self.refused, self.unknown, self.retries
        ))?;
        for reason in &self.reasons {
            warn_line(&format!("not accepted: {reason}"));
        }
        Ok(())
    }
}
