//! One scenario for every store: the records and questions of `tests/scenarios`, and excerpts of real logs, asked of two stores and compared field
//! by field. What a store calls approximate is compared as such.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use crate::common::cancel::Cancel;
use crate::query::parser::{Context, parse};
use crate::query::{
    Expr, Field, FieldsAnswer, FieldsRequest, Histogram, HistogramRequest, Match, Order,
    SearchRequest, Selection, StatsAnswer, StatsRequest, Term, TimeRange, stats, time,
};
use crate::record::{Aliases, Position, QueuedBatch, Record, SOURCE, Value};
use crate::store::embedded::{EmbeddedStore, EmbeddedStoreOptions};
use crate::store::memory::{MemoryStore, MemoryStoreOptions};
use crate::store::{DeadLetterPage, DeadLetterRequest, Store};
use crate::wire::json::RecordDefaults;
use crate::wire::native::decode::{Body, BodyDecoder, DecodeOptions, Hint};

/// 2025-03-23T00:00:00Z: when the records arrive.
pub const ARRIVAL_NS: i64 = 1_742_688_000_000_000_000;

/// A line of a file of questions.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    ask: String,
    #[serde(default)]
    q: String,
    limit: Option<usize>,
    order: Option<String>,
    start: Option<String>,
    end: Option<String>,
    fields: Option<Vec<String>>,
    interval: Option<String>,
    #[serde(default)]
    by: By,
    by_limit: Option<usize>,
    top: Option<usize>,
    #[serde(default)]
    agg: Vec<String>,
    #[serde(default)]
    sort: Vec<String>,
    n: Option<usize>,
    before: Option<usize>,
    after: Option<usize>,
}

/// One field for histograms, a list for stats.
#[derive(Debug, Default, Deserialize)]
#[serde(untagged)]
enum By {
    #[default]
    Nothing,
    One(String),
    Many(Vec<String>),
}

/// What a store answered.
#[derive(Debug)]
enum Answer {
    Records(Vec<Record>, Option<u64>),
    Histogram(Histogram),
    Fields(FieldsAnswer),
    Stats(StatsAnswer),
    Letters(DeadLetterPage),
}

/// A set of records with the questions about them.
pub struct Scenario {
    pub name: &'static str,
    pub batches: Vec<QueuedBatch>,
    questions: Vec<Question>,
}

fn file(path: &str) -> Option<Vec<u8>> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).ok()
}

fn questions(path: &str) -> Vec<Question> {
    let text = String::from_utf8(file(path).unwrap()).unwrap();
    let lines = text.lines().filter(|line| !line.is_empty());
    lines
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}")))
        .collect()
}

fn batch(
    decoder: &mut BodyDecoder,
    first_seq: u64,
    bytes: &[u8],
    source: Option<&str>,
) -> QueuedBatch {
    let body = Body {
        bytes,
        hint: Hint::Unknown,
        defaults: RecordDefaults {
            arrival_ns: ARRIVAL_NS,
            source,
            level: None,
        },
    };
    QueuedBatch {
        first: Position {
            partition: 0,
            seq: first_seq,
        },
        batch: decoder.decode(&body).unwrap().batch,
    }
}

impl Scenario {
    /// Records of every awkward shape.
    pub fn awkward() -> Self {
        let bytes = file("tests/scenarios/records.ndjson").unwrap();
        let mut decoder = BodyDecoder::new(DecodeOptions::default());
        Self {
            name: "awkward",
            batches: vec![batch(&mut decoder, 0, &bytes, None)],
            questions: questions("tests/scenarios/questions.ndjson"),
        }
    }

    /// Windows, Zeek, nginx, Apache and Kafka's broker in one stream: at most so many lines of each, of the whole files where they are there.
    pub fn real(lines_max: usize) -> Self {
        let mut decoder = BodyDecoder::new(DecodeOptions::default());
        let mut batches = Vec::new();
        let mut seq = 0;
        let names = [
            "windows-security.ndjson",
            "zeek.ndjson",
            "nginx-plus.ndjson",
            "apache-access.log",
            "kafka-broker.log",
        ];
        for name in names {
            let shared = file(&format!("../shared/data/{name}.zst"))
                .or_else(|| file(&format!("../../shared/data/{name}.zst")));
            let Some(bytes) = shared.or_else(|| file(&format!("tests/data/{name}.zst"))) else {
                continue;
            };
            let mut plain = Vec::new();
            std::io::copy(&mut zstd::Decoder::new(&bytes[..]).unwrap(), &mut plain).unwrap();
            let end = memchr::memchr_iter(b'\n', &plain)
                .nth(lines_max - 1)
                .map_or(plain.len(), |at| at + 1);
            let source = name.split(['-', '.']).next();
            // Several batches, as a queue would give them.
            for part in plain[..end]
                .split_inclusive(|b| *b == b'\n')
                .collect::<Vec<_>>()
                .chunks(500)
            {
                let queued = batch(&mut decoder, seq, &part.concat(), source);
                seq = queued.next_seq();
                batches.push(queued);
            }
        }
        Self {
            name: "real",
            batches,
            questions: questions("tests/scenarios/real.ndjson"),
        }
    }
}

fn cancel() -> Cancel {
    Cancel::after(Duration::from_secs(120))
}

fn selection(question: &Question) -> Selection {
    let aliases = Aliases::default();
    let context = Context {
        aliases: &aliases,
        now_ns: ARRIVAL_NS,
    };
    let ns = |text: &String| time::parse_time(text, ARRIVAL_NS).unwrap();
    Selection {
        range: TimeRange {
            start_ns: question.start.as_ref().map(ns),
            end_ns: question.end.as_ref().map(ns),
        },
        filter: parse(&question.q, context).unwrap_or_else(|e| panic!("{question:?}: {e}")),
        positions: None,
    }
}

fn search_request(question: &Question) -> SearchRequest {
    SearchRequest {
        selection: selection(question),
        order: match question.order.as_deref() {
            Some("asc") => Order::Ascending,
            _ => Order::Descending,
        },
        limit: question.limit.unwrap_or(100),
        after: None,
        wants_total: true,
        fields: question.fields.clone(),
    }
}

async fn ask(store: &dyn Store, question: &Question) -> Answer {
    match question.ask.as_str() {
        "search" => {
            let answer = store
                .search(search_request(question), cancel())
                .await
                .unwrap();
            assert!(
                answer.partial_reasons.is_empty(),
                "{:?}",
                answer.partial_reasons
            );
            let total = answer.total.unwrap();
            assert!(total.is_exact);
            Answer::Records(answer.records, Some(total.value))
        }
        "pages" => pages(store, question).await,
        "context" => context(store, question).await,
        "histogram" => {
            let (By::One(_) | By::Nothing) = &question.by else {
                panic!("{question:?}");
            };
            let request = HistogramRequest {
                selection: selection(question),
                interval_ns: time::parse_interval(question.interval.as_deref().unwrap()).unwrap(),
                by: match &question.by {
                    By::One(by) => Some(by.clone()),
                    _ => None,
                },
                by_limit: question.by_limit.unwrap_or(10),
            };
            Answer::Histogram(store.histogram(request, cancel()).await.unwrap())
        }
        "fields" => {
            let request = FieldsRequest {
                selection: selection(question),
                top: question.top.unwrap_or(10),
                fields: question.fields.clone(),
            };
            Answer::Fields(store.fields(request, cancel()).await.unwrap())
        }
        "stats" => {
            let By::Many(by) = &question.by else {
                panic!("{question:?}");
            };
            let asked =
                stats::parse(by, &question.agg, &question.sort, &Aliases::default()).unwrap();
            let request = StatsRequest {
                selection: selection(question),
                by: asked.by,
                aggregates: asked.aggregates,
                sort: asked.sort,
                limit: question.limit.unwrap_or(100),
            };
            Answer::Stats(store.stats(request, cancel()).await.unwrap())
        }
        "dead_letters" => {
            let request = DeadLetterRequest {
                q: question.q.clone(),
                limit: question.limit.unwrap_or(10),
                before: None,
            };
            Answer::Letters(store.dead_letters(request).await.unwrap())
        }
        other => panic!("`{other}` cannot be asked"),
    }
}

/// All pages, one after the other.
async fn pages(store: &dyn Store, question: &Question) -> Answer {
    let mut request = search_request(question);
    let mut all = Vec::new();
    let mut first_total = None;
    loop {
        let answer = store.search(request.clone(), cancel()).await.unwrap();
        let total = answer.total.unwrap().value;
        assert_eq!(total, *first_total.get_or_insert(total), "{question:?}");
        all.extend(answer.records);
        request.after = all.last().map(|record: &Record| record.key);
        if !answer.has_more {
            return Answer::Records(all, first_total);
        }
    }
}

/// The neighbours of the nth record, of its source.
async fn context(store: &dyn Store, question: &Question) -> Answer {
    let everything = SearchRequest {
        limit: question.n.unwrap() + 1,
        ..search_request(question)
    };
    let found = store.search(everything.clone(), cancel()).await.unwrap();
    let record = found.records.last().unwrap();
    let again = store.get(record.key, cancel()).await.unwrap();
    assert_eq!(
        again.map(sorted).as_ref(),
        Some(&sorted(record.clone())),
        "{question:?}"
    );
    let source = record.fields.iter().find(|(key, _)| &**key == SOURCE);
    let matcher = match source.map(|(_, value)| value.as_value_ref().text().into_owned()) {
        Some(text) => Match::Exact(text),
        None => Match::Exists,
    };
    let term = Expr::Term(Term {
        field: Field::Addresses(vec![SOURCE.to_owned()]),
        matcher,
    });
    let filter = match source {
        Some(_) => term,
        None => Expr::Not(Box::new(term)),
    };
    let mut records = Vec::new();
    for (order, limit) in [
        (Order::Descending, question.before),
        (Order::Ascending, question.after),
    ] {
        let request = SearchRequest {
            selection: Selection {
                filter: filter.clone(),
                ..everything.selection.clone()
            },
            order,
            limit: limit.unwrap_or(10),
            after: Some(record.key),
            wants_total: false,
            fields: None,
        };
        records.extend(store.search(request, cancel()).await.unwrap().records);
    }
    Answer::Records(records, None)
}

fn sorted(mut record: Record) -> Record {
    record.fields.sort_by(|a, b| a.0.cmp(&b.0));
    record
}

/// Writes the scenario into both stores, asks both everything, and lists what differs.
pub async fn differences(scenario: &Scenario, store: &dyn Store, truth: &dyn Store) -> Vec<String> {
    for batch in &scenario.batches {
        for store in [store, truth] {
            store.write(vec![batch.clone()]).await.unwrap();
        }
    }
    let mut found = Vec::new();
    for question in &scenario.questions {
        let (answer, expected) = (ask(store, question).await, ask(truth, question).await);
        if let Err(what) = same(&answer, &expected) {
            found.push(format!("{}: {question:?}\n  {what}", scenario.name));
        }
    }
    found
}

fn same(answer: &Answer, expected: &Answer) -> Result<(), String> {
    match (answer, expected) {
        (Answer::Records(a, total), Answer::Records(b, expected)) => {
            equal("total", total, expected)?;
            let all = |records: &[Record]| records.iter().cloned().map(sorted).collect::<Vec<_>>();
            for (a, b) in all(a).iter().zip(&all(b)) {
                equal("record", a, b)?;
            }
            equal("number of records", &a.len(), &b.len())
        }
        (Answer::Histogram(a), Answer::Histogram(b)) => equal("histogram", a, b),
        (Answer::Letters(a), Answer::Letters(b)) => equal("dead letters", a, b),
        (Answer::Fields(a), Answer::Fields(b)) => same_fields(a, b),
        (Answer::Stats(a), Answer::Stats(b)) => same_stats(a, b),
        _ => Err("answers of different kinds".to_owned()),
    }
}

fn equal<T: PartialEq + std::fmt::Debug>(what: &str, a: &T, b: &T) -> Result<(), String> {
    if a == b {
        Ok(())
    } else {
        Err(format!("{what}: {a:?}\n  instead of {b:?}"))
    }
}

fn same_fields(a: &FieldsAnswer, b: &FieldsAnswer) -> Result<(), String> {
    equal("total", &a.total, &b.total)?;
    equal("reasons", &a.partial_reasons, &b.partial_reasons)?;
    let names = |answer: &FieldsAnswer| {
        answer
            .fields
            .iter()
            .map(|f| f.name.clone())
            .collect::<Vec<_>>()
    };
    equal("names", &names(a), &names(b))?;
    for (a, b) in a.fields.iter().zip(&b.fields) {
        equal(&a.name, &(&a.types, a.count), &(&b.types, b.count))?;
        if a.is_distinct_exact && b.is_distinct_exact {
            equal(&a.name, &(a.distinct, &a.top), &(b.distinct, &b.top))?;
        }
    }
    Ok(())
}

fn same_stats(a: &StatsAnswer, b: &StatsAnswer) -> Result<(), String> {
    equal("number of groups", &a.n_groups, &b.n_groups)?;
    equal("reasons", &a.partial_reasons, &b.partial_reasons)?;
    let by = |answer: &StatsAnswer| {
        answer
            .groups
            .iter()
            .map(|g| g.by.clone())
            .collect::<Vec<_>>()
    };
    equal("groups", &by(a), &by(b))?;
    let is_exact = a.approximate.is_empty() && b.approximate.is_empty();
    for (a, b) in a.groups.iter().zip(&b.groups) {
        let is_same = |(a, b): (&Value, &Value)| match (a, b) {
            (Value::Float(a), Value::Float(b)) => (a - b).abs() <= 1e-9 * a.abs().max(b.abs()),
            // The least of 1 and 1.0 is either.
            #[expect(clippy::cast_precision_loss, reason = "equal numbers of two types")]
            (Value::Int(a), Value::Float(b)) | (Value::Float(b), Value::Int(a)) => *a as f64 == *b,
            (a, b) => a == b,
        };
        if is_exact && !a.values.iter().zip(&b.values).all(is_same) {
            return Err(format!("{a:?}\n  instead of {b:?}"));
        }
    }
    Ok(())
}

/// The naive store, which every other must equal.
pub fn truth() -> Arc<dyn Store> {
    Arc::new(MemoryStore::new(MemoryStoreOptions::default()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_store_answers_the_scenarios() {
    for scenario in [Scenario::awkward(), Scenario::real(150)] {
        let folder = tempfile::tempdir().unwrap();
        let embedded = EmbeddedStore::open(folder.path(), EmbeddedStoreOptions::default()).unwrap();
        let found = differences(&scenario, &embedded, &*truth()).await;
        assert!(
            found.is_empty(),
            "{} differ:\n{}",
            found.len(),
            found.join("\n")
        );
    }
}
