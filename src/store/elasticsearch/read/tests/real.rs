//! Answers of a real server, compared with those of the naive store: the scenarios, and random questions about random records.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

use crate::common::cancel::Cancel;
use crate::query::{
    Aggregate, AggregateKind, FieldsAnswer, FieldsRequest, GroupBy, HistogramRequest, Order,
    SearchRequest, StatsAnswer, StatsRequest, stats,
};
use crate::record::{Aliases, BatchBuilder, Flags, Position, QueuedBatch, Record, Value, ValueRef};
use crate::store::elasticsearch::ElasticsearchStore;
use crate::store::elasticsearch::read::ReadLimits;
use crate::store::elasticsearch::read::tests::filter_of;
use crate::store::elasticsearch::tests::server::Server;
use crate::store::scenario::{Scenario, differences, truth};
use crate::store::{Store, testing};

/// Random questions are asked for so long.
const RANDOM_MAX: Duration = Duration::from_secs(60);

fn cancel() -> Cancel {
    Cancel::after(Duration::from_secs(60))
}

async fn store(server: &Server, limits: ReadLimits) -> Arc<ElasticsearchStore> {
    let mut options = server.options();
    options.read = limits;
    Arc::new(ElasticsearchStore::connect(options).await.unwrap())
}

/// Small portions, and the server does whatever it can.
fn tight() -> ReadLimits {
    ReadLimits {
        portion_records: 7,
        exact_records_max: 0,
        ..ReadLimits::default()
    }
}

async fn check(scenario: Scenario, limits: ReadLimits) {
    let server = Server::new();
    let store = store(&server, limits).await;
    let found = differences(&scenario, &*store, &*truth()).await;
    server.clean().await;
    assert!(
        found.is_empty(),
        "{} differ:\n{}",
        found.len(),
        found.join("\n")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs real servers: scripts/dev-stack up, then scripts/test"]
async fn awkward_records_are_answered_as_everywhere() {
    check(Scenario::awkward(), ReadLimits::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs real servers: scripts/dev-stack up, then scripts/test"]
async fn awkward_records_are_answered_as_everywhere_by_the_server() {
    check(Scenario::awkward(), tight()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs real servers: scripts/dev-stack up, then scripts/test"]
async fn real_logs_are_answered_as_everywhere() {
    check(Scenario::real(800), ReadLimits::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs real servers: scripts/dev-stack up, then scripts/test"]
async fn real_logs_are_answered_as_everywhere_by_the_server() {
    let limits = ReadLimits {
        exact_records_max: 0,
        ..ReadLimits::default()
    };
    check(Scenario::real(500), limits).await;
}

/// Records of one shape, as most logs are: no arrays, one type for each field.
fn plain(records: u64) -> QueuedBatch {
    let mut builder = BatchBuilder::new(testing::BASE_NS);
    for row in 0..records {
        let index = i64::try_from(row).unwrap();
        builder.begin_record();
        let level = if row % 3 == 0 { "ERROR" } else { "info" };
        builder.field("level", ValueRef::Str(level));
        builder.field("source", ValueRef::Str(["web", "db"][row as usize % 2]));
        let message = format!("request {row} of user-{} closed in {row} ms", row % 7);
        builder.field("message", ValueRef::Str(&message));
        builder.field("http.status", ValueRef::Int(200 + index % 5 * 100));
        builder.field("share", ValueRef::Float(0.5 + row as f64));
        builder.field("ok", ValueRef::Bool(row % 4 == 0));
        builder.field("ip", ValueRef::Str(&format!("10.0.{}.1", row % 9)));
        builder.end_record(
            testing::BASE_NS + index * 1_000_000_000,
            3,
            Flags::default(),
        );
    }
    QueuedBatch {
        first: Position::default(),
        batch: builder.finish(),
    }
}

fn search_request(q: &str, limit: usize) -> SearchRequest {
    SearchRequest {
        selection: filter_of(q),
        order: Order::Descending,
        limit,
        after: None,
        wants_total: true,
        fields: None,
    }
}

async fn check_search(store: &dyn Store, naive: &dyn Store, q: &str) {
    let request = search_request(q, 50);
    let answer = store
        .search(request.clone(), cancel())
        .await
        .unwrap_or_else(|e| panic!("{q}: {e}"));
    let expected = naive.search(request, cancel()).await.unwrap();
    assert_eq!(answer.total, expected.total, "{q}");
    assert_eq!(sorted(answer.records), sorted(expected.records), "{q}");
}

async fn check_histograms(store: &dyn Store, naive: &dyn Store, q: &str) {
    for by in [
        None,
        Some("level"),
        Some("http.status"),
        Some("share"),
        Some("ok"),
    ] {
        let request = HistogramRequest {
            selection: filter_of(q),
            interval_ns: 60_000_000_000,
            by: by.map(str::to_owned),
            by_limit: 3,
        };
        let answer = store
            .histogram(request.clone(), cancel())
            .await
            .unwrap_or_else(|e| panic!("{q} {by:?}: {e}"));
        assert_eq!(
            answer,
            naive.histogram(request, cancel()).await.unwrap(),
            "{q} {by:?}"
        );
    }
}

async fn check_fields(store: &dyn Store, naive: &dyn Store, q: &str) {
    let request = FieldsRequest {
        selection: filter_of(q),
        top: 3,
        fields: None,
    };
    let answer = store
        .fields(request.clone(), cancel())
        .await
        .unwrap_or_else(|e| panic!("{q}: {e}"));
    let expected = naive.fields(request, cancel()).await.unwrap();
    let shown = |answer: &FieldsAnswer| {
        answer
            .fields
            .iter()
            .map(|f| (f.name.clone(), f.types.clone(), f.count))
            .collect::<Vec<_>>()
    };
    assert_eq!(shown(&answer), shown(&expected), "{q}");
    for (field, other) in answer.fields.iter().zip(&expected.fields) {
        assert!(!field.is_distinct_exact || field == other, "{q}: {field:?}");
    }
}

async fn check_stats(store: &dyn Store, naive: &dyn Store, q: &str) {
    let asked = stats::parse(
        &["level".to_owned(), "time(1m)".to_owned()],
        &[
            "count",
            "count(ip)",
            "sum(http.status)",
            "avg(share)",
            "min(http.status)",
            "max(share)",
            "p50(share)",
            "distinct(ip)",
        ]
        .map(str::to_owned),
        &[],
        &Aliases::default(),
    )
    .unwrap();
    let request = StatsRequest {
        selection: filter_of(q),
        by: asked.by,
        aggregates: asked.aggregates,
        sort: asked.sort,
        limit: 100,
    };
    let answer = store
        .stats(request.clone(), cancel())
        .await
        .unwrap_or_else(|e| panic!("{q}: {e}"));
    let expected = naive.stats(request.clone(), cancel()).await.unwrap();
    assert!(
        is_same(&answer, &expected, &request),
        "{q}: {answer:?}\n{expected:?}"
    );
    if expected.n_groups != 0 {
        assert_eq!(answer.approximate, ["p50(share)", "distinct(ip)"], "{q}");
    }
    for group in &answer.groups {
        let (Value::Float(median), Value::Int(distinct)) = (&group.values[6], &group.values[7])
        else {
            panic!("{q}: {group:?}");
        };
        assert!(
            0.0 < *median && (1..=9).contains(distinct),
            "{q}: {group:?}"
        );
    }
}

/// With no candidate allowed, whatever is not left to the server alone is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs real servers: scripts/dev-stack up, then scripts/test"]
async fn ordinary_questions_about_ordinary_records_are_left_to_the_server() {
    let server = Server::new();
    let limits = ReadLimits {
        candidates_max: 0,
        exact_records_max: 0,
        ..ReadLimits::default()
    };
    let (store, naive) = (store(&server, limits).await, truth());
    for store in [&*store as &dyn Store, &*naive] {
        store.write(vec![plain(500)]).await.unwrap();
    }
    let questions = [
        "",
        "closed",
        "\"user 3\"",
        "level:error",
        "level:>=warn",
        "NOT level:info",
        "http.status:500",
        "http.status:>=400",
        "http.status:[200 TO 400}",
        "share:>100.5",
        "share:3.5",
        "ok:true",
        "ip:10.0.3.0/24",
        "source:=web",
        "source:w*",
        "mess*",
        "message:req*",
        "http.status:5*",
        "message:*ser-3*",
        "message:/^request 4\\d+ /",
        "ip:*",
        "nothing:*",
        "nothing:5",
        "service:web -closed",
        "500",
        "true",
        "source:(web OR db) AND (ok:true OR http.status:300)",
    ];
    for q in questions {
        check_search(&*store, &*naive, q).await;
        check_histograms(&*store, &*naive, q).await;
        check_fields(&*store, &*naive, q).await;
        check_stats(&*store, &*naive, q).await;
    }
    server.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs real servers: scripts/dev-stack up, then scripts/test"]
async fn too_many_candidates_are_refused_with_advice() {
    let server = Server::new();
    let limits = ReadLimits {
        candidates_max: 100,
        portion_records: 10,
        ..ReadLimits::default()
    };
    let store = store(&server, limits).await;
    store.write(vec![plain(300)]).await.unwrap();
    let mut request = search_request("/no such text$/", 5);
    let answer = store.search(request.clone(), cancel()).await.unwrap();
    assert_eq!(
        answer.total.map(|t| (t.value, t.is_exact)),
        Some((0, true)),
        "the words decide"
    );
    request.selection = filter_of("/[0-9] ms$/");
    let answer = store.search(request.clone(), cancel()).await.unwrap();
    assert_eq!(answer.records.len(), 5);
    assert!(answer.has_more);
    assert_eq!(
        answer.total.map(|t| (t.value, t.is_exact)),
        Some((0, false)),
        "at least none is sure"
    );
    request.limit = 0;
    let error = store.search(request.clone(), cancel()).await.unwrap_err();
    assert_eq!(error.code, "too_many_candidates");
    assert!(error.message.contains("300 records"), "{error}");
    request.selection = filter_of("/[0-9] MS$/");
    request.limit = 5;
    let error = store.search(request, cancel()).await.unwrap_err();
    assert_eq!(error.code, "too_many_candidates");
    let request = HistogramRequest {
        selection: filter_of("/[0-9] ms$/"),
        interval_ns: 60_000_000_000,
        by: None,
        by_limit: 3,
    };
    let error = store.histogram(request, cancel()).await.unwrap_err();
    assert_eq!(error.code, "too_many_candidates");
    server.clean().await;
}

fn sorted(records: Vec<Record>) -> Vec<Record> {
    let each = records.into_iter().map(|mut record| {
        record.fields.sort_by(|a, b| a.0.cmp(&b.0));
        record
    });
    each.collect()
}

fn stats_request(rng: &mut SmallRng, n_records: u64) -> StatsRequest {
    let by: Vec<GroupBy> = (0..rng.random_range(0..3))
        .map(|_| match rng.random_range(0..3) {
            0 => GroupBy::Time(*[1_000_000_000, 60_000_000_000].choose(rng).unwrap()),
            _ => GroupBy::Field(testing::address(rng)),
        })
        .collect();
    let kinds = [
        AggregateKind::Count,
        AggregateKind::CountField,
        AggregateKind::Sum,
        AggregateKind::Avg,
        AggregateKind::Min,
        AggregateKind::Max,
        AggregateKind::Percentile(37.5),
        AggregateKind::Distinct,
    ];
    let n_aggregates = rng.random_range(1..4);
    let mut aggregates = Vec::new();
    for index in 0..n_aggregates {
        aggregates.push(Aggregate {
            label: format!("{index}"),
            kind: kinds.choose(rng).unwrap().clone(),
            field: testing::address(rng),
        });
    }
    StatsRequest {
        selection: testing::selection(rng, n_records),
        aggregates,
        sort: match by.is_empty() {
            true => Vec::new(),
            false => vec![(rng.random_range(0..by.len()), rng.random())],
        },
        by,
        limit: *[1, 3, 1_000].choose(rng).unwrap(),
    }
}

/// Estimates aside, which must be called so.
fn is_same(answer: &StatsAnswer, expected: &StatsAnswer, request: &StatsRequest) -> bool {
    let numbers = |(index, (a, b)): (usize, (&Value, &Value))| match (a, b) {
        _ if answer
            .approximate
            .contains(&request.aggregates[index].label) =>
        {
            true
        }
        (Value::Float(a), Value::Float(b)) => (a - b).abs() <= 1e-9 * a.abs().max(b.abs()),
        #[expect(clippy::cast_precision_loss, reason = "equal numbers of two types")]
        (Value::Int(a), Value::Float(b)) | (Value::Float(b), Value::Int(a)) => *a as f64 == *b,
        (a, b) => a == b,
    };
    answer.n_groups == expected.n_groups
        && answer.groups.len() == expected.groups.len()
        && answer
            .groups
            .iter()
            .zip(&expected.groups)
            .all(|(a, b)| a.by == b.by && a.values.iter().zip(&b.values).enumerate().all(numbers))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs real servers: scripts/dev-stack up, then scripts/test"]
async fn random_questions_are_answered_as_by_the_naive_store() {
    let started = Instant::now();
    let server = Server::new();
    let mut n_asked = 0;
    let first_seed = rand::random_range(0..1_000_000);
    for seed in first_seed.. {
        if RANDOM_MAX < started.elapsed() {
            break;
        }
        let mut rng = SmallRng::seed_from_u64(seed);
        let limits = if rng.random() {
            tight()
        } else {
            ReadLimits::default()
        };
        let (store, naive) = (store(&server, limits).await, truth());
        let mut records: Vec<Record> = Vec::new();
        for _ in 0..rng.random_range(1..4) {
            let count = rng.random_range(1..150);
            let more = testing::records(&mut rng, records.len() as u64, count);
            let batches = vec![testing::batch(&more)];
            store.write(batches.clone()).await.unwrap();
            naive.write(batches).await.unwrap();
            records.extend(more);
        }
        let mut number = 0;
        while number < 60 && started.elapsed() < RANDOM_MAX {
            let context = format!("seed {seed} question {number}");
            ask_at_random(&mut rng, &records, &*store, &*naive, &context).await;
            number += 1;
        }
        n_asked += number;
        server.clean().await;
    }
    println!("{n_asked} questions from seed {first_seed} on");
}

async fn ask_at_random(
    rng: &mut SmallRng,
    records: &[Record],
    store: &dyn Store,
    naive: &dyn Store,
    context: &str,
) {
    let n_records = records.len() as u64;
    match rng.random_range(0..6) {
        0..3 => {
            let request = testing::search_request(rng, records);
            let mut answer = store.search(request.clone(), cancel()).await.unwrap();
            let mut expected = naive.search(request.clone(), cancel()).await.unwrap();
            answer.records = sorted(answer.records);
            expected.records = sorted(expected.records);
            // What follows an empty page is no question that anyone asks.
            if request.limit == 0 {
                answer.has_more = expected.has_more;
            }
            assert_eq!(answer, expected, "{context}: {request:?}");
        }
        3 => {
            let request = HistogramRequest {
                selection: testing::selection(rng, n_records),
                interval_ns: [1, 7, 60, 3_600, 86_400].choose(rng).unwrap() * 1_000_000_000,
                by: rng.random::<bool>().then(|| testing::address(rng)),
                by_limit: rng.random_range(0..5),
            };
            let answer = store.histogram(request.clone(), cancel()).await.unwrap();
            let expected = naive.histogram(request.clone(), cancel()).await.unwrap();
            assert_eq!(answer, expected, "{context}: {request:?}");
        }
        4 => {
            let request = FieldsRequest {
                selection: testing::selection(rng, n_records),
                top: rng.random_range(0..6),
                fields: rng.random_bool(0.3).then(|| vec![testing::address(rng)]),
            };
            let answer = store.fields(request.clone(), cancel()).await.unwrap();
            let expected = naive.fields(request.clone(), cancel()).await.unwrap();
            assert_eq!(answer, expected, "{context}: {request:?}");
        }
        _ => {
            let request = stats_request(rng, n_records);
            let answer = store.stats(request.clone(), cancel()).await.unwrap();
            let expected = naive.stats(request.clone(), cancel()).await.unwrap();
            assert!(
                is_same(&answer, &expected, &request),
                "{context}: {request:?}\n{answer:?}\n{expected:?}"
            );
        }
    }
}
