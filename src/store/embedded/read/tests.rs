//! Answers over head and segments equal the naive ones, whatever was flushed when and however small pages and segments are.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

use crate::common::blocking::{BlockingPool, BlockingPoolOptions};
use crate::common::cancel::Cancel;
use crate::query::{
    CompiledSelection, Histogram, HistogramBucket, HistogramRequest, Order, SearchAnswer,
    SearchRequest, Selection, Total,
};
use crate::record::Record;
use crate::record::value::ValueType;
use crate::record::{Position, RecordKey, Value, key};
use crate::store::embedded::columns::ColumnLimits;
use crate::store::embedded::read::context::Context;
use crate::store::embedded::read::materialize::is_wanted;
use crate::store::embedded::read::stats::StatsLimits;
use crate::store::embedded::read::{fields, histogram, search, stats};
use crate::store::embedded::segment::write::SegmentOptions;
use crate::store::embedded::{EmbeddedStore, EmbeddedStoreOptions};
use crate::store::testing;

const SEEDS: u64 = 10;
const QUESTIONS: usize = 40;

fn cancel() -> Cancel {
    Cancel::after(Duration::from_secs(60))
}

fn context() -> Context {
    let options = BlockingPoolOptions {
        threads_count: 2,
        ..BlockingPoolOptions::default()
    };
    Context {
        pool: BlockingPool::start(options).unwrap(),
        stats: StatsLimits::default(),
    }
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

/// A store with random records, some of them flushed.
async fn filled(rng: &mut SmallRng) -> (tempfile::TempDir, EmbeddedStore, Vec<Record>) {
    let folder = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(folder.path(), options(rng)).unwrap();
    let mut all: Vec<Record> = Vec::new();
    for _ in 0..rng.random_range(1..6) {
        let count = rng.random_range(1..120);
        let records = testing::records(rng, all.len() as u64, count);
        store.write(vec![testing::batch(&records)]).await.unwrap();
        all.extend(records);
        if rng.random_bool(0.5) {
            store.flush().await.unwrap();
        }
    }
    (folder, store, all)
}

fn sorted(mut record: Record) -> Record {
    record.fields.sort_by(|a, b| a.0.cmp(&b.0));
    record
}

fn naive_search(records: &[Record], request: &SearchRequest) -> SearchAnswer {
    let selection = CompiledSelection::new(&request.selection).unwrap();
    let mut matched: Vec<&Record> = records
        .iter()
        .filter(|record| selection.matches(record.key.position, *record))
        .collect();
    matched.sort_by_key(|record| record.key);
    if request.order == Order::Descending {
        matched.reverse();
    }
    let total = matched.len() as u64;
    if let Some(after) = request.after {
        matched.retain(|record| match request.order {
            Order::Ascending => after < record.key,
            Order::Descending => record.key < after,
        });
    }
    let has_more = request.limit < matched.len();
    matched.truncate(request.limit);
    let records = matched.into_iter().map(|record| {
        let mut record = sorted(record.clone());
        record.fields.retain(|(key, value)| {
            let is_json = value.as_value_ref().value_type() == ValueType::Json;
            is_wanted(&key::address(key), is_json, request.fields.as_deref())
        });
        record
    });
    SearchAnswer {
        records: records.collect(),
        total: request.wants_total.then_some(Total {
            value: total,
            is_exact: true,
        }),
        has_more,
        partial_reasons: Vec::new(),
    }
}

#[tokio::test]
async fn search_and_get_equal_the_naive_answers() {
    let context = context();
    for seed in 0..SEEDS {
        let mut rng = SmallRng::seed_from_u64(seed);
        let (_folder, store, records) = filled(&mut rng).await;
        let snapshot = store.snapshot();
        for number in 0..QUESTIONS {
            let request = testing::search_request(&mut rng, &records);
            let expected = naive_search(&records, &request);
            let mut answer = search::search(&context, &snapshot, &request, &cancel()).unwrap();
            answer.records = answer.records.into_iter().map(sorted).collect();
            assert_eq!(
                answer, expected,
                "seed {seed} question {number}: {request:?}"
            );
        }
        for record in &records {
            let found = search::get(&context, &snapshot, record.key, &cancel()).unwrap();
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
        let found = search::get(&context, &snapshot, nowhere, &cancel()).unwrap();
        assert_eq!(found, None);
    }
}

fn matching<'a>(records: &'a [Record], selection: &Selection) -> Vec<&'a Record> {
    let selection = CompiledSelection::new(selection).unwrap();
    let matches = |record: &&Record| selection.matches(record.key.position, *record);
    records.iter().filter(matches).collect()
}

/// The value that counts at an address: see `read::values`.
fn value_of<'a>(record: &'a Record, address: &str) -> Option<&'a Value> {
    let fields = record.fields.iter();
    let held = fields.filter(|(k, v)| key::address(k) == address && *v != Value::Null);
    held.min_by(|a, b| a.0.cmp(&b.0)).map(|(_, value)| value)
}

fn naive_histogram(records: &[Record], request: &HistogramRequest) -> Histogram {
    let mut buckets: BTreeMap<i64, Vec<Option<String>>> = BTreeMap::new();
    let mut overall: BTreeMap<String, u64> = BTreeMap::new();
    for record in matching(records, &request.selection) {
        let time = record.key.timestamp_ns;
        let start = time.div_euclid(request.interval_ns) * request.interval_ns;
        let value = request.by.as_ref().and_then(|by| value_of(record, by));
        let value = value.map(|value| value.as_value_ref().text().into_owned());
        if let Some(value) = &value {
            *overall.entry(value.clone()).or_default() += 1;
        }
        buckets.entry(start).or_default().push(value);
    }
    let mut order: Vec<(String, u64)> = overall.into_iter().collect();
    order.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    order.truncate(request.by_limit);
    let total = buckets.values().map(|values| values.len() as u64).sum();
    let buckets = buckets.into_iter().map(|(start_ns, values)| {
        let mut by = Vec::new();
        if request.by.is_some() {
            let mut rest = values.len() as u64;
            for (value, _) in &order {
                let count = values.iter().filter(|v| v.as_ref() == Some(value)).count() as u64;
                if 0 < count {
                    by.push((Some(value.clone()), count));
                    rest -= count;
                }
            }
            if 0 < rest {
                by.push((None, rest));
            }
        }
        HistogramBucket {
            start_ns,
            count: values.len() as u64,
            by,
        }
    });
    Histogram {
        buckets: buckets.collect(),
        total,
        partial_reasons: Vec::new(),
    }
}

#[tokio::test]
async fn histograms_equal_the_naive_ones() {
    let context = context();
    for seed in 0..SEEDS {
        let mut rng = SmallRng::seed_from_u64(1_000 + seed);
        let (_folder, store, records) = filled(&mut rng).await;
        let snapshot = store.snapshot();
        for number in 0..QUESTIONS {
            let seconds = [1, 7, 60, 3_600, 86_400];
            let request = HistogramRequest {
                selection: testing::selection(&mut rng, records.len() as u64),
                interval_ns: seconds.choose(&mut rng).unwrap() * 1_000_000_000,
                by: rng.random::<bool>().then(|| testing::address(&mut rng)),
                by_limit: rng.random_range(0..5),
            };
            let answer =
                histogram::histogram(&context, &snapshot, request.clone(), &cancel()).unwrap();
            let expected = naive_histogram(&records, &request);
            assert_eq!(
                answer, expected,
                "seed {seed} question {number}: {request:?}"
            );
        }
    }
}
