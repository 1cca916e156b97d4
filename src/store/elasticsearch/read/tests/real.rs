//! Answers of a real server, compared with those of the naive store: the scenarios, and random questions about random records.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

use crate::common::cancel::Cancel;
use crate::query::{
    Aggregate, AggregateKind, FieldsRequest, GroupBy, HistogramRequest, StatsAnswer, StatsRequest,
};
use crate::record::{Record, Value};
use crate::store::elasticsearch::ElasticsearchStore;
use crate::store::elasticsearch::read::ReadLimits;
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
    check(Scenario::real(2_000), ReadLimits::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs real servers: scripts/dev-stack up, then scripts/test"]
async fn real_logs_are_answered_as_everywhere_by_the_server() {
    let limits = ReadLimits {
        exact_records_max: 0,
        ..ReadLimits::default()
    };
    check(Scenario::real(1_000), limits).await;
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
