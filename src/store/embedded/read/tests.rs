//! Answers over head and segments equal the naive ones, whatever was flushed when and however small pages and segments are.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

use crate::common::cancel::Cancel;
use crate::query::{
    Aggregate, AggregateKind, Expr, FieldsRequest, GroupBy, HistogramRequest, Order, SearchRequest,
    Selection, StatsAnswer, StatsRequest, TimeRange,
};
use crate::record::{
    BatchBuilder, Flags, Position, QueuedBatch, Record, RecordKey, Value, ValueRef,
};
use crate::store::embedded::columns::ColumnLimits;
use crate::store::embedded::segment::write::SegmentOptions;
use crate::store::embedded::{EmbeddedStore, EmbeddedStoreOptions};
use crate::store::memory::{MemoryStore, MemoryStoreOptions};
use crate::store::{Store, contract, testing};

const SEEDS: u64 = 10;
const QUESTIONS: usize = 40;

fn cancel() -> Cancel {
    Cancel::after(Duration::from_secs(60))
}

fn options(rng: &mut SmallRng) -> EmbeddedStoreOptions {
    let is_small = rng.random_bool(0.7);
    EmbeddedStoreOptions {
        columns: ColumnLimits {
            columns_max: if rng.random_bool(0.3) { 8 } else { 1_000 },
            chunk_rows_max: if rng.random() { 16 } else { 16_384 },
            ..ColumnLimits::default()
        },
        segment: SegmentOptions {
            row_group_rows_max: if is_small { 64 } else { 262_144 },
            page_rows_max: if is_small { 8 } else { 8_192 },
            ..SegmentOptions::default()
        },
        ..EmbeddedStoreOptions::default()
    }
}

struct Stores {
    _folder: tempfile::TempDir,
    embedded: EmbeddedStore,
    naive: MemoryStore,
    records: Vec<Record>,
}

/// The same random records in an embedded store, some of them flushed, and in the naive one.
async fn filled(rng: &mut SmallRng) -> Stores {
    let folder = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(folder.path(), options(rng)).unwrap();
    let naive = MemoryStore::new(MemoryStoreOptions::default());
    let mut all: Vec<Record> = Vec::new();
    for _ in 0..rng.random_range(1..6) {
        let count = rng.random_range(1..120);
        let records = testing::records(rng, all.len() as u64, count);
        let batches = vec![testing::batch(&records)];
        store.write(batches.clone()).await.unwrap();
        naive.write(batches).await.unwrap();
        all.extend(records);
        if rng.random_bool(0.5) {
            store.flush().await.unwrap();
        }
    }
    Stores {
        _folder: folder,
        embedded: store,
        naive,
        records: all,
    }
}

fn sorted(mut record: Record) -> Record {
    record.fields.sort_by(|a, b| a.0.cmp(&b.0));
    record
}

fn sorted_all(records: Vec<Record>) -> Vec<Record> {
    records.into_iter().map(sorted).collect()
}

#[test]
fn the_contract_holds() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let n_stores = AtomicUsize::new(0);
    runtime.block_on(contract::check(|| {
        let path = folder
            .path()
            .join(n_stores.fetch_add(1, Ordering::Relaxed).to_string());
        async move {
            std::fs::create_dir(&path).unwrap();
            let store = EmbeddedStore::open(&path, EmbeddedStoreOptions::default()).unwrap();
            Arc::new(store) as Arc<dyn Store>
        }
    }));
}

#[tokio::test]
async fn search_and_get_equal_the_naive_answers() {
    for seed in 0..SEEDS {
        let mut rng = SmallRng::seed_from_u64(seed);
        let stores = filled(&mut rng).await;
        for number in 0..QUESTIONS {
            let request = testing::search_request(&mut rng, &stores.records);
            let mut expected = stores
                .naive
                .search(request.clone(), cancel())
                .await
                .unwrap();
            let mut answer = stores
                .embedded
                .search(request.clone(), cancel())
                .await
                .unwrap();
            answer.records = sorted_all(answer.records);
            expected.records = sorted_all(expected.records);
            assert_eq!(
                answer, expected,
                "seed {seed} question {number}: {request:?}"
            );
        }
        for record in &stores.records {
            let found = stores.embedded.get(record.key, cancel()).await.unwrap();
            assert_eq!(
                found.map(sorted),
                Some(sorted(record.clone())),
                "seed {seed}"
            );
        }
        let nowhere = RecordKey {
            timestamp_ns: testing::BASE_NS,
            position: Position {
                partition: 0,
                seq: 1 << 40,
            },
        };
        assert_eq!(stores.embedded.get(nowhere, cancel()).await.unwrap(), None);
    }
}

#[tokio::test]
async fn histograms_equal_the_naive_ones() {
    for seed in 0..SEEDS {
        let mut rng = SmallRng::seed_from_u64(1_000 + seed);
        let stores = filled(&mut rng).await;
        for number in 0..QUESTIONS {
            let seconds = [1, 7, 60, 3_600, 86_400];
            let request = HistogramRequest {
                selection: testing::selection(&mut rng, stores.records.len() as u64),
                interval_ns: seconds.choose(&mut rng).unwrap() * 1_000_000_000,
                by: rng.random::<bool>().then(|| testing::address(&mut rng)),
                by_limit: rng.random_range(0..5),
            };
            let answer = stores
                .embedded
                .histogram(request.clone(), cancel())
                .await
                .unwrap();
            let expected = stores
                .naive
                .histogram(request.clone(), cancel())
                .await
                .unwrap();
            assert_eq!(
                answer, expected,
                "seed {seed} question {number}: {request:?}"
            );
        }
    }
}

#[tokio::test]
async fn field_summaries_equal_the_naive_ones() {
    for seed in 0..SEEDS {
        let mut rng = SmallRng::seed_from_u64(2_000 + seed);
        let stores = filled(&mut rng).await;
        for number in 0..QUESTIONS {
            let request = FieldsRequest {
                selection: testing::selection(&mut rng, stores.records.len() as u64),
                top: rng.random_range(0..6),
                fields: rng
                    .random_bool(0.3)
                    .then(|| vec![testing::address(&mut rng)]),
            };
            let answer = stores
                .embedded
                .fields(request.clone(), cancel())
                .await
                .unwrap();
            let expected = stores
                .naive
                .fields(request.clone(), cancel())
                .await
                .unwrap();
            assert_eq!(
                answer, expected,
                "seed {seed} question {number}: {request:?}"
            );
        }
    }
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
        AggregateKind::Percentile(0.0),
        AggregateKind::Percentile(37.5),
        AggregateKind::Percentile(99.0),
        AggregateKind::Distinct,
    ];
    let aggregates: Vec<Aggregate> = (0..rng.random_range(1..4))
        .map(|index| Aggregate {
            label: index.to_string(),
            kind: kinds.choose(rng).unwrap().clone(),
            field: testing::address(rng),
        })
        .collect();
    // Sums of doubles differ in their last digits with the order of adding: only what is exact may sort.
    let is_exact = |aggregate: &Aggregate| {
        matches!(
            aggregate.kind,
            AggregateKind::Count | AggregateKind::CountField | AggregateKind::Distinct
        )
    };
    let mut sort: Vec<(usize, bool)> = Vec::new();
    for (index, aggregate) in aggregates.iter().enumerate() {
        if is_exact(aggregate) && rng.random() {
            sort.push((by.len() + index, rng.random()));
        }
    }
    if !by.is_empty() && rng.random() {
        sort.push((rng.random_range(0..by.len()), rng.random()));
    }
    StatsRequest {
        selection: testing::selection(rng, n_records),
        by,
        aggregates,
        sort,
        limit: *[1, 3, 1_000].choose(rng).unwrap(),
    }
}

fn assert_same_stats(answer: &StatsAnswer, expected: &StatsAnswer, context: &str) {
    assert_eq!(answer.n_groups, expected.n_groups, "{context}");
    assert_eq!(answer.groups.len(), expected.groups.len(), "{context}");
    assert!(answer.approximate.is_empty(), "{context}");
    for (group, other) in answer.groups.iter().zip(&expected.groups) {
        assert_eq!(group.by, other.by, "{context}");
        for (value, other) in group.values.iter().zip(&other.values) {
            let is_same = match (value, other) {
                (Value::Float(a), Value::Float(b)) => (a - b).abs() <= 1e-9 * a.abs().max(b.abs()),
                // The least of 1 and 1.0 is either.
                (Value::Int(a), Value::Float(b)) | (Value::Float(b), Value::Int(a)) => {
                    *a as f64 == *b
                }
                (a, b) => a == b,
            };
            assert!(is_same, "{group:?} {other:?}: {context}");
        }
    }
}

#[tokio::test]
async fn stats_equal_the_naive_ones() {
    for seed in 0..SEEDS {
        let mut rng = SmallRng::seed_from_u64(3_000 + seed);
        let stores = filled(&mut rng).await;
        for number in 0..QUESTIONS {
            let request = stats_request(&mut rng, stores.records.len() as u64);
            let answer = stores
                .embedded
                .stats(request.clone(), cancel())
                .await
                .unwrap();
            let expected = stores.naive.stats(request.clone(), cancel()).await.unwrap();
            let context = format!("seed {seed} question {number}: {request:?}");
            assert_same_stats(&answer, &expected, &context);
        }
    }
}

/// Records whose field `number` counts from 0, a millisecond apart.
fn numbered(rows: u64) -> QueuedBatch {
    let mut builder = BatchBuilder::new(0);
    for row in 0..rows {
        builder.begin_record();
        let level = if row % 3 == 0 { "error" } else { "info" };
        builder.field("level", ValueRef::Str(level));
        builder.field("number", ValueRef::Int(row as i64));
        builder.end_record(row as i64 * 1_000_000, 3, Flags::default());
    }
    let first = Position {
        partition: 0,
        seq: 0,
    };
    let batch = builder.finish();
    QueuedBatch { first, batch }
}

/// More rows than one container of a row set holds (65,536), in the head and in a segment of several row groups.
#[tokio::test]
async fn many_rows_are_answered_whole() {
    const ROWS: u64 = 150_000;
    let folder = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(folder.path(), EmbeddedStoreOptions::default()).unwrap();
    store.write(vec![numbered(ROWS)]).await.unwrap();
    for is_flushed in [false, true] {
        if is_flushed {
            store.flush().await.unwrap();
        }
        let selection = || Selection {
            range: TimeRange::default(),
            filter: Expr::All,
            positions: None,
        };
        let number = |kind, label: &str| Aggregate {
            label: label.to_owned(),
            kind,
            field: "number".to_owned(),
        };
        let request = StatsRequest {
            selection: selection(),
            by: Vec::new(),
            aggregates: vec![
                number(AggregateKind::Sum, "sum"),
                number(AggregateKind::CountField, "count"),
            ],
            sort: Vec::new(),
            limit: 10,
        };
        let stats = store.stats(request, cancel()).await.unwrap();
        let sum = (ROWS * (ROWS - 1) / 2) as i64;
        assert_eq!(
            stats.groups[0].values,
            [Value::Int(sum), Value::Int(ROWS as i64)],
            "flushed: {is_flushed}"
        );
        let mut request = SearchRequest {
            selection: selection(),
            order: Order::Ascending,
            limit: 10_000,
            after: None,
            wants_total: true,
            fields: None,
        };
        let mut n_read = 0;
        loop {
            let answer = store.search(request.clone(), cancel()).await.unwrap();
            assert_eq!(answer.total.unwrap().value, ROWS);
            n_read += answer.records.len() as u64;
            request.after = answer.records.last().map(|record| record.key);
            if !answer.has_more {
                break;
            }
        }
        assert_eq!(n_read, ROWS, "flushed: {is_flushed}");
    }
    store.close().await.unwrap();
}
