//! Real logs of five systems mixed in one index: none is refused, and each value is found in its field, whatever its type.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand::seq::IteratorRandom;
use serde_json::{Value as Json, json};

use crate::query::number::is_number;
use crate::record::leaves::any_leaf;
use crate::record::{EntryRef, Position, QueuedBatch, RecordKey, RecordRef, ValueRef, key};
use crate::store::elasticsearch::client::Method;
use crate::store::elasticsearch::names::{Kind, TEXT_UNITS_MAX, names_of, own};
use crate::store::elasticsearch::tests::server::Server;
use crate::store::elasticsearch::{ElasticsearchOptions, ElasticsearchStore};
use crate::store::scenario::Scenario;
use crate::store::{DeadLetterRequest, Store};

/// Values looked up one by one.
const SAMPLES: usize = 3_000;
const SAMPLES_AT_ONCE: usize = 250;
const FIELDS_AT_ONCE: usize = 200;

/// All corpora, a batch of one after a batch of the other, so that types collide from the beginning.
fn mixed() -> Vec<QueuedBatch> {
    let batches = Scenario::real(usize::MAX).batches;
    let mut shuffled: Vec<(usize, QueuedBatch)> = Vec::new();
    let count = batches.len();
    for (index, queued) in batches.into_iter().enumerate() {
        // A fixed permutation.
        shuffled.push((index * 7_919 % count.max(1), queued));
    }
    shuffled.sort_by_key(|(place, queued)| (*place, queued.first));
    let mut seq = 0;
    shuffled
        .into_iter()
        .map(|(_, queued)| {
            let queued = QueuedBatch {
                first: Position { partition: 0, seq },
                batch: queued.batch,
            };
            seq = queued.next_seq();
            queued
        })
        .collect()
}

/// Each value of a record as it should be found: address, type, and what a term query asks for.
fn values(record: &RecordRef<'_>) -> Vec<(String, Kind, Json)> {
    let mut values = Vec::new();
    for field in record.fields() {
        let address = key::address(field.key).into_owned();
        match field.value {
            ValueRef::Json(text) => {
                any_leaf(text, |inner, value| {
                    let ends = inner
                        .match_indices('.')
                        .map(|(at, _)| at)
                        .chain([inner.len()]);
                    push_value(&mut values, address.clone(), value);
                    if !inner.is_empty() {
                        for end in ends {
                            push_value(&mut values, format!("{address}.{}", &inner[..end]), value);
                        }
                    }
                    false
                });
            }
            value => push_value(&mut values, address, value),
        }
    }
    values
}

fn push_value(values: &mut Vec<(String, Kind, Json)>, address: String, value: ValueRef<'_>) {
    let found = match value {
        ValueRef::Null | ValueRef::Json(_) => return,
        ValueRef::Bool(value) => (Kind::Bool, json!(value)),
        ValueRef::Int(value) => (Kind::Long, json!(value)),
        ValueRef::Float(value) => (Kind::Double, json!(value)),
        ValueRef::Number(text) => (Kind::Number, json!(text.parse::<f64>().unwrap())),
        ValueRef::Str(text) => {
            if is_number(text) && text.parse::<f64>().unwrap().is_finite() {
                values.push((
                    address.clone(),
                    Kind::Numeric,
                    json!(text.parse::<f64>().unwrap()),
                ));
            }
            if TEXT_UNITS_MAX < text.encode_utf16().count() {
                return;
            }
            (Kind::Text, json!(text))
        }
    };
    values.push((address, found.0, found.1));
}

struct Mixed {
    store: Arc<ElasticsearchStore>,
    /// Field name → type, over all indices.
    mapped: BTreeMap<String, String>,
}

impl Mixed {
    async fn search(&self, path: &str, body: &Json) -> Json {
        let inner = self.store.inner();
        let separator = if path.contains('?') { '&' } else { '?' };
        let pattern = inner.options.pattern();
        let path = format!("/{pattern}/{path}{separator}ignore_unavailable=true");
        let answer = inner
            .client
            .admin(Method::POST, &path, Some(body))
            .await
            .unwrap();
        answer.expect("answer a test").unwrap()
    }

    /// The names that the mapping has for values of this type here.
    fn names(&self, address: &str, kind: Kind) -> Vec<String> {
        let mut names = names_of(address, kind);
        names.retain(|name| {
            let ty = self.mapped.get(name).map(String::as_str);
            match name.contains('~') {
                true => ty.is_some(),
                false => ty.and_then(Kind::of_plain_type) == Some(kind),
            }
        });
        for name in &mut names {
            if name == "message" {
                name.push_str(".keyword");
            }
        }
        names
    }

    /// For each address and type the number of records that have such a value is the number of those that are found.
    async fn compare_counts(&self, expected: &BTreeMap<(String, Kind), u64>) {
        let all: Vec<_> = expected.iter().collect();
        for chunk in all.chunks(FIELDS_AT_ONCE) {
            let mut filters = serde_json::Map::new();
            for (index, ((address, kind), _)) in chunk.iter().enumerate() {
                let exists = self
                    .names(address, *kind)
                    .into_iter()
                    .map(|name| json!({"exists": {"field": name}}));
                filters.insert(index.to_string(), json!({"bool": {"should": exists.collect::<Vec<_>>(), "minimum_should_match": 1}}));
            }
            let body = json!({"size": 0, "aggs": {"of": {"filters": {"filters": filters}}}});
            let answer = self.search("_search", &body).await;
            for (index, ((address, kind), count)) in chunk.iter().enumerate() {
                let found = answer.pointer(&format!("/aggregations/of/buckets/{index}/doc_count"));
                assert_eq!(
                    found,
                    Some(&json!(count)),
                    "`{address}` as {kind:?}, in {:?}",
                    self.names(address, *kind)
                );
            }
        }
    }

    async fn look_up(&self, samples: &[(RecordKey, String, Kind, Json)]) {
        for chunk in samples.chunks(SAMPLES_AT_ONCE) {
            let filters: serde_json::Map<String, Json> = chunk
                .iter()
                .enumerate()
                .map(|(index, (key, address, kind, value))| {
                    let terms: Vec<Json> = self
                        .names(address, *kind)
                        .into_iter()
                        .map(|name| json!({"term": {name: {"value": value}}}))
                        .collect();
                    let one = json!({"bool": {"filter": [{"ids": {"values": [key.to_id()]}}], "should": terms, "minimum_should_match": 1}});
                    (index.to_string(), one)
                })
                .collect();
            let body = json!({"size": 0, "aggs": {"of": {"filters": {"filters": filters}}}});
            let answer = self.search("_search", &body).await;
            for (index, sample) in chunk.iter().enumerate() {
                let found = answer.pointer(&format!("/aggregations/of/buckets/{index}/doc_count"));
                assert_eq!(found, Some(&json!(1)), "{sample:?}");
            }
        }
    }
}

/// What should be found.
#[derive(Default)]
struct Expected {
    total: u64,
    counts: BTreeMap<(String, Kind), u64>,
    /// Records with a text that is too long for its field.
    long: u64,
    /// One value of each record.
    samples: Vec<(RecordKey, String, Kind, Json)>,
}

impl Expected {
    fn of(batches: &[QueuedBatch], random: &mut SmallRng) -> Self {
        let mut expected = Self::default();
        for queued in batches {
            for (seq, entry) in (queued.first.seq..).zip(queued.batch.entries()) {
                if let EntryRef::Record(record) = entry {
                    expected.add(&record, Position { partition: 0, seq }, random);
                }
            }
        }
        expected
    }

    fn add(&mut self, record: &RecordRef<'_>, position: Position, random: &mut SmallRng) {
        self.total += 1;
        let values = values(record);
        let fields: std::collections::BTreeSet<(String, Kind)> = values
            .iter()
            .map(|(address, kind, _)| (address.clone(), *kind))
            .collect();
        for field in fields {
            *self.counts.entry(field).or_default() += 1;
        }
        let is_long = |value| matches!(value, ValueRef::Str(text) if TEXT_UNITS_MAX < text.encode_utf16().count());
        self.long += u64::from(record.fields().any(|field| is_long(field.value)));
        if let Some((address, kind, value)) = values.into_iter().choose(random) {
            let key = RecordKey {
                timestamp_ns: record.timestamp_ns,
                position,
            };
            self.samples.push((key, address, kind, value));
        }
    }
}

async fn check_mixed(options: ElasticsearchOptions) {
    let batches = mixed();
    let store = Arc::new(ElasticsearchStore::connect(options).await.unwrap());
    for portion in batches.chunks(8) {
        store.write(portion.to_vec()).await.unwrap();
    }
    let mut random = SmallRng::seed_from_u64(7);
    let Expected {
        total,
        counts: expected,
        long,
        samples,
    } = Expected::of(&batches, &mut random);
    let samples = samples.into_iter().choose_multiple(&mut random, SAMPLES);
    let letters = store
        .dead_letters(DeadLetterRequest {
            limit: 3,
            ..DeadLetterRequest::default()
        })
        .await
        .unwrap();
    let refused: Vec<_> = letters
        .letters
        .iter()
        .filter(|letter| letter.code == "indexing_failed")
        .collect();
    assert!(refused.is_empty(), "{refused:?}");
    assert_eq!(store.usage().await.unwrap().records, total);

    let mut mixed = Mixed {
        store: store.clone(),
        mapped: BTreeMap::new(),
    };
    let caps = mixed.search("_field_caps?fields=*", &json!({})).await;
    for (name, types) in caps["fields"].as_object().unwrap() {
        let types: Vec<&String> = types.as_object().unwrap().keys().collect();
        // Where days disagree, a name is of no use to this test; they agree because later days prefer what earlier ones have.
        assert_eq!(types.len(), 1, "{name} is {types:?}");
        mixed.mapped.insert(name.clone(), types[0].clone());
    }
    mixed.compare_counts(&expected).await;
    mixed.look_up(&samples).await;
    let marked = mixed
        .search(
            "_count",
            &json!({"query": {"exists": {"field": own::LONG}}}),
        )
        .await;
    assert_eq!(marked["count"], json!(long));
    let report = store.verify().await.unwrap();
    assert_eq!(
        (report.records, report.faults),
        (total, Vec::<String>::new())
    );
    println!(
        "{total} records, {} addresses with types, 0 refused",
        expected.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs real servers: scripts/dev-stack up, then scripts/test"]
async fn real_logs_of_five_systems_are_stored_whole_in_one_mapping() {
    let server = Server::new();
    check_mixed(server.options()).await;
    server.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs real servers: scripts/dev-stack up, then scripts/test"]
async fn so_they_are_with_logsdb() {
    let server = Server::new();
    let mut options = server.options();
    options.logsdb = true;
    check_mixed(options).await;
    server.clean().await;
}
