//! `logyard fetch`: asks a server many questions, checks that each answer can be true, and tells how long they took.

mod asker;
pub mod check;
mod kinds;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::json;

use crate::loadgen::args::{self, OutputFormat};
use crate::loadgen::client::HttpClient;
use crate::loadgen::report::{self, Progress, out_line, warn_line};
use crate::loadgen::rng::Rng;

pub use asker::{Asker, Tally};
pub use kinds::{ALL as ALL_KINDS, Kind, Knowledge, ask};

/// Questions asked when neither `--count` nor `--duration` is given.
const COUNT_DEFAULT: u64 = 1_000;

const EXAMPLES: &str = "Examples:
  logyard fetch --count 1000
  logyard fetch --kinds newest,histogram --duration 30s --concurrency 16
  logyard fetch --script queries.txt --output json";

#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct FetchArgs {
    /// The server to ask
    #[arg(long, value_name = "URL", default_value = crate::loadgen::DEFAULT_URL)]
    pub from: String,
    /// Questions to ask [default: 1000; without end when --duration is given]
    #[arg(long, value_name = "N", value_parser = args::count)]
    pub count: Option<u64>,
    /// How long to ask
    #[arg(long, value_name = "TIME", value_parser = args::duration)]
    pub duration: Option<Duration>,
    /// Questions in flight at once
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub concurrency: usize,
    /// Kinds of questions [default: all]
    #[arg(long, value_enum, value_delimiter = ',')]
    pub kinds: Vec<Kind>,
    /// Ask what this file says instead: one path with its query on each line, `#` begins a comment
    #[arg(long, value_name = "FILE")]
    pub script: Option<PathBuf>,
    /// Same seed and same stored logs: same questions
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Ask the store each time, never the cache
    #[arg(long)]
    pub no_cache: bool,
    /// Do not look into the answers: for measuring the server, not its truth
    #[arg(long)]
    pub unchecked: bool,
    /// How long one answer may take
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = args::duration)]
    pub timeout: Duration,
    /// How to report at the end
    #[arg(long, value_enum, default_value_t)]
    pub output: OutputFormat,
}

/// What to ask.
enum Plan {
    Random(Knowledge, Vec<Kind>),
    Script(Vec<String>),
}

/// Asks. True when there were answers and none was wrong or missing.
pub async fn fetch(args: FetchArgs) -> anyhow::Result<bool> {
    ensure!(0 < args.concurrency, "--concurrency must be above 0");
    let mut asker = Asker {
        client: HttpClient::new(&args.from, args.timeout)?,
        tally: Tally::default(),
        is_cache_bypassed: args.no_cache,
        is_unchecked: false,
    };
    let plan = Arc::new(make_plan(&args, &mut asker).await?);
    asker.tally = Tally::default();
    asker.is_unchecked = args.unchecked;

    let count = match (args.count, args.duration) {
        (None, None) => Some(COUNT_DEFAULT),
        (count, _) => count,
    };
    let deadline = args.duration.map(|duration| Instant::now() + duration);
    let progress = Arc::new(Progress::new(count, "questions"));
    let next = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let interrupt = tokio::spawn({
        let stop = stop.clone();
        async move {
            if tokio::signal::ctrl_c().await.is_ok() {
                stop.store(true, Ordering::Relaxed);
            }
        }
    });
    let started = Instant::now();
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..args.concurrency {
        let (plan, next, stop, progress) =
            (plan.clone(), next.clone(), stop.clone(), progress.clone());
        let (mut asker, seed) = (asker.clone(), args.seed);
        workers.spawn(async move {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let is_over = count.is_some_and(|count| count <= index)
                    || deadline.is_some_and(|deadline| deadline <= Instant::now())
                    || stop.load(Ordering::Relaxed);
                if is_over {
                    return asker.tally;
                }
                ask_one(&plan, &mut asker, seed, index).await;
                progress.advance(1, 0);
            }
        });
    }
    let mut tally = Tally::default();
    while let Some(ended) = workers.join_next().await {
        tally.merge(ended.context("a task that asks")?)?;
    }
    interrupt.abort();
    progress.finish();
    print_report(&args, &tally, started.elapsed())?;
    Ok(0 < tally.n_answers() && tally.n_wrong == 0 && tally.n_failed == 0)
}

async fn make_plan(args: &FetchArgs, asker: &mut Asker) -> anyhow::Result<Plan> {
    if let Some(file) = &args.script {
        let text = tokio::fs::read_to_string(file)
            .await
            .with_context(|| format!("read {}", file.display()))?;
        let paths: Vec<String> = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(str::to_owned)
            .collect();
        ensure!(!paths.is_empty(), "{} holds no path", file.display());
        for path in &paths {
            ensure!(
                path.starts_with('/'),
                "`{path}` in {} does not begin with `/`",
                file.display()
            );
        }
        return Ok(Plan::Script(paths));
    }
    let known = Knowledge::learn(asker).await.with_context(|| {
        format!(
            "learn what {} holds: {}",
            asker.client.base(),
            asker.tally.told.first().map_or(
                "it holds no logs; `logyard generate` makes some",
                String::as_str
            )
        )
    })?;
    let kinds = if args.kinds.is_empty() {
        kinds::ALL.to_vec()
    } else {
        args.kinds.clone()
    };
    Ok(Plan::Random(known, kinds))
}

async fn ask_one(plan: &Plan, asker: &mut Asker, seed: u64, index: u64) {
    // What cannot be checked has been counted by the asker already.
    match plan {
        Plan::Random(known, kinds) => {
            let mut rng = Rng::of_line(seed, index);
            let kind = rng.pick(kinds);
            let _ = ask(kind, asker, &mut rng, known).await;
        }
        Plan::Script(paths) => {
            let Some(path) = paths.get((index % paths.len() as u64) as usize) else {
                return;
            };
            if let Ok(answer) = asker.get("script", path).await
                && answer.get("logs").is_some()
            {
                let expect = check::Expect {
                    is_ascending: path.contains("order=asc"),
                    ..check::Expect::default()
                };
                if !path.contains("fields=") && !path.contains("limit=0") {
                    asker.check(path, check::list(&answer, &expect));
                }
            }
        }
    }
}

/// A table of latencies for each kind.
pub fn latency_table(tally: &Tally) -> comfy_table::Table {
    let mut table = report::table(&[
        "question",
        "answers",
        "p50 ms",
        "p90 ms",
        "p99 ms",
        "max ms",
        "cache hits",
        "bytes",
    ]);
    for (name, kind) in &tally.kinds {
        let mut row = vec![
            comfy_table::Cell::new(name),
            report::number_cell(kind.latency.count()),
        ];
        row.extend(kind.latency.cells());
        row.push(report::number_cell(kind.cache_hits));
        row.push(report::number_cell(report::human_bytes(kind.size_bytes)));
        table.add_row(row);
    }
    table
}

fn print_report(args: &FetchArgs, tally: &Tally, elapsed: Duration) -> anyhow::Result<()> {
    let seconds = elapsed.as_secs_f64().max(1e-9);
    let per_s = tally.n_answers() as f64 / seconds;
    if args.output == OutputFormat::Json {
        let mut answer = tally.json();
        if let Some(answer) = answer.as_object_mut() {
            answer.insert("from".to_owned(), json!(args.from));
            answer.insert("seed".to_owned(), json!(args.seed));
            answer.insert("elapsed_s".to_owned(), json!(seconds));
            answer.insert("answers_per_s".to_owned(), json!(per_s));
        }
        return out_line(&answer.to_string());
    }
    out_line(&latency_table(tally).to_string())?;
    out_line(&format!(
        "{} answers in {seconds:.2} s ({per_s:.0}/s): {} wrong, {} too busy, {} without answer",
        tally.n_answers(),
        tally.n_wrong,
        tally.n_busy,
        tally.n_failed
    ))?;
    for line in &tally.told {
        warn_line(line);
    }
    Ok(())
}
