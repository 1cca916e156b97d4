//! What questions on the embedded store cost, in milliseconds in process, warm: the nine of the design's table, on generated lines.
//!
//! `cargo bench --bench store_read -- [LINES] [FOLDER]`: 1,000,000 lines by default, spread over one day; a folder keeps the store for the next run.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a broken bench should stop"
)]

use std::future::Future;
use std::path::Path;
use std::time::{Duration, Instant};

use logyard::common::cancel::Cancel;
use logyard::common::error::Result;
use logyard::query::{
    Aggregate, AggregateKind, Expr, Field, GroupBy, HistogramRequest, Match, Order, SearchRequest,
    Selection, StatsRequest, Term, TimeRange, text,
};
use logyard::record::{BatchBuilder, Flags, Position, QueuedBatch, ValueRef};
use logyard::store::Store;
use logyard::store::embedded::{EmbeddedStore, EmbeddedStoreOptions};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const DAY_NS: i64 = 86_400_000_000_000;
/// 2025-03-20
const START_NS: i64 = 20_167 * DAY_NS;
const BATCH_LINES: usize = 10_000;
const RUNS: usize = 7;

const SERVICES: [&str; 10] = [
    "frontend", "backend", "auth", "billing", "search", "mailer", "gateway", "orders", "stock",
    "worker",
];
const WORDS: [&str; 16] = [
    "request",
    "completed",
    "cache",
    "lookup",
    "database",
    "query",
    "returned",
    "rows",
    "session",
    "opened",
    "message",
    "queued",
    "retry",
    "scheduled",
    "payload",
    "accepted",
];

fn main() {
    let args: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    let n_lines: usize = args.first().map_or(1_000_000, |a| a.parse().unwrap());
    let temporary = tempfile::tempdir().unwrap();
    let folder = args.get(1).map_or(temporary.path(), Path::new);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        std::fs::create_dir_all(folder).unwrap();
        let store = EmbeddedStore::open(folder, EmbeddedStoreOptions::default()).unwrap();
        if store.usage().await.unwrap().records == 0 {
            let start = Instant::now();
            fill(&store, n_lines).await;
            println!(
                "wrote {n_lines} lines in {:.1} s",
                start.elapsed().as_secs_f64()
            );
        }
        let usage = store.usage().await.unwrap();
        println!(
            "{} records, {} segments, {:.1} MB",
            usage.records,
            usage.segments,
            usage.disk_bytes as f64 / 1e6
        );
        ask_searches(&store).await;
        ask_aggregates(&store).await;
        store.close().await.unwrap();
    });
}

async fn fill(store: &EmbeddedStore, n_lines: usize) {
    let mut rng = SmallRng::seed_from_u64(7);
    let step_ns = DAY_NS / n_lines as i64;
    let mut seq = 0;
    while seq < n_lines {
        let mut builder = BatchBuilder::new(START_NS);
        for index in seq..n_lines.min(seq + BATCH_LINES) {
            line(&mut builder, &mut rng, START_NS + index as i64 * step_ns);
        }
        let first = Position {
            partition: 0,
            seq: seq as u64,
        };
        let batch = builder.finish();
        store
            .write(vec![QueuedBatch { first, batch }])
            .await
            .unwrap();
        seq += BATCH_LINES;
    }
    store.flush().await.unwrap();
}

fn line(builder: &mut BatchBuilder, rng: &mut SmallRng, time: i64) {
    let level = match rng.random_range(0..100) {
        0..6 => "ERROR",
        6..16 => "WARN",
        16..90 => "INFO",
        _ => "DEBUG",
    };
    let mut message = String::new();
    for _ in 0..12 {
        message.push_str(WORDS[rng.random_range(0..WORDS.len())]);
        message.push(' ');
    }
    if rng.random_bool(0.06) {
        message.push_str("timeout after 30 s ");
    }
    if rng.random_bool(0.001) {
        message.push_str("connection closed by peer ");
    }
    message.push_str(&format!("id={:08x}", rng.random::<u32>()));
    builder.begin_record();
    builder.field("level", ValueRef::Str(level));
    let service = SERVICES[rng.random_range(0..SERVICES.len())];
    builder.field("source", ValueRef::Str(service));
    builder.field(
        "host",
        ValueRef::Str(&format!("host-{:03}", rng.random_range(0..200))),
    );
    builder.field(
        "user_id",
        ValueRef::Str(&format!("u{}", rng.random_range(0..100_000))),
    );
    let trace = format!("{:016x}{:016x}", rng.random::<u64>(), rng.random::<u64>());
    builder.field("trace_id", ValueRef::Str(&trace));
    let duration = (rng.random::<f64>().powi(4) * 50_000.0).round() / 10.0;
    builder.field("duration_ms", ValueRef::Float(duration + 0.5));
    let status = [200, 200, 200, 200, 201, 204, 301, 404, 500, 503][rng.random_range(0..10)];
    builder.field("http.status", ValueRef::Int(status));
    builder.field("message", ValueRef::Str(&message));
    builder.end_record(time, 9, Flags::default());
}

fn words(field: Option<&str>, text: &str) -> Expr {
    Expr::Term(Term {
        field: field.map_or(Field::Any, |field| Field::Addresses(vec![field.to_owned()])),
        matcher: Match::Words {
            text: text.to_owned(),
            tokens: text::tokens(text),
        },
    })
}

fn selection(filter: Expr) -> Selection {
    Selection {
        range: TimeRange::default(),
        filter,
        positions: None,
    }
}

fn search(filter: Expr, limit: usize, wants_total: bool) -> SearchRequest {
    SearchRequest {
        selection: selection(filter),
        order: Order::Descending,
        limit,
        after: None,
        wants_total,
        fields: None,
    }
}

fn histogram(filter: Expr, by: Option<&str>) -> HistogramRequest {
    HistogramRequest {
        selection: selection(filter),
        interval_ns: DAY_NS / 24,
        by: by.map(str::to_owned),
        by_limit: 10,
    }
}

fn stats(filter: Expr, by: Option<&str>, kind: AggregateKind, field: &str) -> StatsRequest {
    let by: Vec<GroupBy> = by
        .map(|by| GroupBy::Field(by.to_owned()))
        .into_iter()
        .collect();
    StatsRequest {
        selection: selection(filter),
        sort: vec![(by.len(), true)],
        by,
        aggregates: vec![Aggregate {
            label: "value".to_owned(),
            kind,
            field: field.to_owned(),
        }],
        limit: 10,
    }
}

fn cancel() -> Cancel {
    Cancel::after(Duration::from_secs(600))
}

/// Prints the least and the middle time of some runs after one that warms up.
async fn time<T, F: Future<Output = Result<T>>>(
    name: &str,
    ask: impl Fn() -> F,
    show: impl Fn(&T) -> String,
) {
    let shown = show(&ask().await.unwrap());
    let mut times = Vec::new();
    for _ in 0..RUNS {
        let start = Instant::now();
        ask().await.unwrap();
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    println!(
        "{name:<40} {:>9.2} ms  median {:>9.2} ms   {shown}",
        times[0],
        times[RUNS / 2]
    );
}

async fn ask_searches(store: &EmbeddedStore) {
    let newest = store
        .search(search(Expr::All, 1, false), cancel())
        .await
        .unwrap();
    let field = |name: &str| {
        let fields = &newest.records[0].fields;
        let found = fields.iter().find(|(key, _)| &**key == name).unwrap();
        found.1.as_value_ref().text().into_owned()
    };
    let trace = field("trace_id");
    let searches = [
        (
            "one trace id, any field",
            search(words(None, &trace), 100, true),
        ),
        (
            "one trace id, its field",
            search(words(Some("trace_id"), &trace), 100, true),
        ),
        (
            "count of a word in 6 %",
            search(words(None, "timeout"), 0, true),
        ),
        (
            "count of a word in 6 %, its field",
            search(words(Some("message"), "timeout"), 0, true),
        ),
        (
            "phrase in 0.1 %",
            search(words(None, "connection closed"), 100, true),
        ),
        (
            "phrase in 0.1 %, its field",
            search(words(Some("message"), "connection closed"), 100, true),
        ),
        (
            "newest 50 with a word",
            search(words(None, "timeout"), 50, false),
        ),
        (
            "newest 50 with a word and the total",
            search(words(None, "timeout"), 50, true),
        ),
        (
            "newest 100 of all and the total",
            search(Expr::All, 100, true),
        ),
    ];
    for (name, request) in searches.into_iter().chain(scans()) {
        let ask = || store.search(request.clone(), cancel());
        time(name, ask, |a| {
            format!("{} records, total {:?}", a.records.len(), a.total)
        })
        .await;
    }
}

fn scans() -> [(&'static str, SearchRequest); 2] {
    [
        (
            "regex over the messages",
            search(
                Expr::Term(Term {
                    field: Field::Addresses(vec!["message".to_owned()]),
                    matcher: Match::Regex("id=00ff..".to_owned()),
                }),
                100,
                true,
            ),
        ),
        (
            "not a word, http.status >= 500",
            search(
                Expr::Not(Box::new(words(None, "timeout"))).and(Expr::Term(Term {
                    field: Field::Addresses(vec!["http.status".to_owned()]),
                    matcher: Match::Range {
                        low: std::ops::Bound::Included("500".to_owned()),
                        high: std::ops::Bound::Unbounded,
                    },
                })),
                100,
                true,
            ),
        ),
    ]
}

async fn ask_aggregates(store: &EmbeddedStore) {
    let histograms = [
        ("histogram by hour", histogram(Expr::All, None)),
        (
            "histogram by hour of a word",
            histogram(words(None, "timeout"), None),
        ),
        ("level by hour", histogram(Expr::All, Some("level"))),
    ];
    for (name, request) in histograms {
        let ask = || store.histogram(request.clone(), cancel());
        time(name, ask, |a| {
            format!("{} buckets, total {}", a.buckets.len(), a.total)
        })
        .await;
    }
    let p99 = AggregateKind::Percentile(99.0);
    let error = words(Some("level"), "error");
    let questions = [
        (
            "p99 of duration by service",
            stats(Expr::All, Some("source"), p99, "duration_ms"),
        ),
        (
            "distinct users",
            stats(Expr::All, None, AggregateKind::Distinct, "user_id"),
        ),
        (
            "top 10 hosts of the errors",
            stats(error, Some("host"), AggregateKind::Count, ""),
        ),
    ];
    for (name, request) in questions {
        let ask = || store.stats(request.clone(), cancel());
        let shown = |a: &logyard::query::StatsAnswer| {
            format!("{} groups, first {:?}", a.n_groups, a.groups.first())
        };
        time(name, ask, shown).await;
    }
}
