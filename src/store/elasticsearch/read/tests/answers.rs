//! Answers that are not whole, late, or refused: a server that says what the test tells it to.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::{Value as Json, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::common::cancel::Cancel;
use crate::common::error::{ErrorKind, Result};
use crate::query::{HistogramRequest, Order, SearchAnswer, SearchRequest, StatsRequest};
use crate::record::{Position, RecordKey};
use crate::store::elasticsearch::address::Address;
use crate::store::elasticsearch::client::ClientOptions;
use crate::store::elasticsearch::read::tests::filter_of;
use crate::store::elasticsearch::{ElasticsearchOptions, ElasticsearchStore, QueueIdentity, read};

const NOON_NS: i64 = 1_742_472_000_000_000_000;

/// What came in: method and path, body.
type Asked = (String, Json);
type Answers = dyn Fn(&str, &Json) -> Option<(u16, Json)> + Send + Sync;

struct Fake {
    asked: Arc<Mutex<Vec<Asked>>>,
    /// Connections that the other side closed while it waited for an answer.
    left: Arc<Mutex<usize>>,
    store: ElasticsearchStore,
}

/// `answers` gives status and body; `None` is silence.
async fn fake(
    answers: impl Fn(&str, &Json) -> Option<(u16, Json)> + Send + Sync + 'static,
) -> Fake {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (asked, left) = (
        Arc::<Mutex<Vec<Asked>>>::default(),
        Arc::<Mutex<usize>>::default(),
    );
    let answers: Arc<Answers> = Arc::new(answers);
    tokio::spawn({
        let (asked, left) = (Arc::clone(&asked), Arc::clone(&left));
        async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(
                    stream,
                    Arc::clone(&answers),
                    Arc::clone(&asked),
                    Arc::clone(&left),
                ));
            }
        }
    });
    let client = ClientOptions::new(Address::parse(&format!("elasticsearch://{address}")).unwrap());
    let options = ElasticsearchOptions::new(client, QueueIdentity("test".to_owned()));
    let store = ElasticsearchStore::connect(options).await.unwrap();
    Fake { asked, left, store }
}

async fn serve(
    mut stream: TcpStream,
    answers: Arc<Answers>,
    asked: Arc<Mutex<Vec<Asked>>>,
    left: Arc<Mutex<usize>>,
) {
    let mut read = Vec::new();
    loop {
        let (head, body) = loop {
            let end = read.windows(4).position(|w| w == b"\r\n\r\n");
            if let Some(end) = end {
                let head = String::from_utf8_lossy(&read[..end]).into_owned();
                let length = head.lines().find_map(|line| {
                    let (name, value) = line.split_once(':')?;
                    name.eq_ignore_ascii_case("content-length")
                        .then(|| value.trim().parse::<usize>().unwrap())
                });
                let whole = end + 4 + length.unwrap_or(0);
                if whole <= read.len() {
                    let body = serde_json::from_slice(&read[end + 4..whole]).unwrap_or_default();
                    read.drain(..whole);
                    break (head, body);
                }
            }
            let mut chunk = [0; 4096];
            match stream.read(&mut chunk).await {
                Ok(n) if 0 < n => read.extend_from_slice(&chunk[..n]),
                _ => return,
            }
        };
        let line = head.lines().next().unwrap_or_default();
        let what = line.trim_end_matches(" HTTP/1.1").to_owned();
        let answer = match what.as_str() {
            "GET /" => Some((
                200,
                json!({"version": {"number": "8.19.9"}, "cluster_uuid": "x", "tagline": "You Know, for Search"}),
            )),
            // The store's own look at its state.
            state if state.contains("/logyard-") => {
                Some((404, json!({"error": "index_not_found_exception"})))
            }
            _ => {
                asked.lock().push((what.clone(), body));
                let last = asked.lock().last().cloned().unwrap();
                answers(&last.0, &last.1)
            }
        };
        let Some((status, json)) = answer else {
            let mut byte = [0; 1];
            if matches!(stream.read(&mut byte).await, Ok(0) | Err(_)) {
                *left.lock() += 1;
            }
            return;
        };
        let json = json.to_string();
        let head = format!(
            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            json.len()
        );
        stream
            .write_all(format!("{head}{json}").as_bytes())
            .await
            .unwrap();
    }
}

fn request(q: &str) -> SearchRequest {
    SearchRequest {
        selection: filter_of(q),
        order: Order::Descending,
        limit: 10,
        after: None,
        wants_total: true,
        fields: None,
    }
}

async fn search(fake: &Fake, q: &str) -> Result<SearchAnswer> {
    read::search(
        fake.store.inner(),
        request(q),
        Cancel::after(Duration::from_secs(10)),
    )
    .await
}

fn hit(seq: u64, user: &str) -> Json {
    let key = RecordKey {
        timestamp_ns: NOON_NS + i64::try_from(seq).unwrap(),
        position: Position { partition: 0, seq },
    };
    json!({"_id": key.to_id(), "_index": "logs-2025.03.20", "_source": {"user": user}})
}

fn found(hits: &[Json], doubtful: u64) -> Json {
    json!({
        "timed_out": false, "_shards": {"total": 2, "failed": 0},
        "hits": {"total": {"value": hits.len()}, "hits": hits},
        "aggregations": {"doubtful": {"doc_count": doubtful}},
    })
}

fn caps() -> Json {
    json!({"fields": {"user": {"keyword": {}}}})
}

#[tokio::test]
async fn a_part_that_fails_makes_the_answer_partial() {
    let fake = fake(|path, _| match path.contains("_field_caps") {
        true => Some((200, caps())),
        false => {
            let mut answer = found(&[hit(1, "Bob")], 0);
            answer["_shards"] = json!({"total": 2, "failed": 1, "failures": [
                {"index": "logs-2025.03.19", "reason": {"type": "circuit_breaking_exception", "reason": "data too large"}},
            ]});
            Some((200, answer))
        }
    })
    .await;
    let answer = search(&fake, "user:=Bob").await.unwrap();
    assert_eq!(answer.records.len(), 1);
    assert_eq!(
        answer.partial_reasons,
        [
            "a part of index logs-2025.03.19 did not answer: circuit_breaking_exception: data too large"
        ]
    );
}

#[tokio::test]
async fn a_new_index_that_cannot_be_asked_yet_is_waited_for() {
    let n_asked = Mutex::new(0);
    let fake = fake(move |path, _| match path.contains("_field_caps") {
        true => Some((200, caps())),
        false => {
            let mut answer = found(&[hit(1, "Bob")], 0);
            *n_asked.lock() += 1;
            if *n_asked.lock() < 4 {
                answer["_shards"] = json!({"total": 2, "failed": 1, "failures": [
                    {"index": "logs-2025.03.20", "reason": {"type": "no_shard_available_action_exception", "reason": "[search]"}},
                ]});
            }
            Some((200, answer))
        }
    })
    .await;
    let answer = search(&fake, "user:=Bob").await.unwrap();
    assert_eq!(answer.records.len(), 1);
    assert!(answer.partial_reasons.is_empty());
    assert!(answer.total.is_none_or(|total| total.is_exact));
}

#[tokio::test]
async fn what_the_server_refuses_is_asked_more_simply_and_judged_here() {
    let fake = fake(|path, body| {
        let text = body.to_string();
        Some(match path {
            _ if path.contains("_field_caps") => (200, caps()),
            _ if path.contains("_pit") => (200, json!({"id": "p"})),
            _ if text.contains("regexp") => (
                400,
                json!({"error": {"type": "search_phase_execution_exception", "reason": "all shards failed",
                    "caused_by": {"type": "too_complex_to_determinize_exception", "reason": "too complex"}}}),
            ),
            _ if text.contains("search_after") => (200, found(&[], 0)),
            // What only exists is doubtful.
            _ => (200, found(&[hit(3, "Bob"), hit(2, "Eve"), hit(1, "Bobby")], 3)),
        })
    })
    .await;
    let answer = search(&fake, "user:/^B.b/").await.unwrap();
    let seqs: Vec<u64> = answer
        .records
        .iter()
        .map(|record| record.key.position.seq)
        .collect();
    assert_eq!(seqs, [3, 1]);
    let total = answer.total.unwrap();
    assert_eq!((total.value, total.is_exact), (2, true));
    let asked = fake.asked.lock();
    let patterns = asked
        .iter()
        .filter(|(_, body)| body.to_string().contains("regexp"))
        .count();
    assert_eq!(patterns, 1, "{asked:?}");
    assert!(
        asked
            .iter()
            .any(|(path, _)| path.starts_with("DELETE /_pit")),
        "{asked:?}"
    );
}

#[tokio::test]
async fn a_field_that_changed_meanwhile_is_looked_up_again() {
    // The server finds too much, until the mapping has been read again.
    let n_caps = Mutex::new(0);
    let fake = fake(move |path, body| {
        Some(match path {
            _ if path.contains("_field_caps") => {
                *n_caps.lock() += 1;
                let types = match *n_caps.lock() {
                    1 => json!({"user": {"keyword": {}}}),
                    _ => json!({"user": {"keyword": {}}, "user~long": {"long": {}}}),
                };
                (200, json!({"fields": types}))
            }
            _ if body.to_string().contains("user~long") => (200, found(&[hit(1, "Bob")], 0)),
            _ => (200, found(&[hit(2, "7"), hit(1, "Bob")], 0)),
        })
    })
    .await;
    let answer = search(&fake, "NOT user:=7").await.unwrap();
    assert_eq!(answer.records.len(), 1);
    assert_eq!(answer.total.unwrap().value, 1);

    // It never ends: every record is judged.
    let wrong = super::answers::fake(|path, body| {
        Some(match path {
            _ if path.contains("_field_caps") => (200, caps()),
            _ if path.contains("_pit") => (200, json!({"id": "p"})),
            _ if body.get("search_after").is_some() => (200, found(&[], 0)),
            _ if body.to_string().contains("\"user\"") => {
                (200, found(&[hit(2, "7"), hit(1, "Bob")], 0))
            }
            _ => (200, found(&[hit(2, "7"), hit(1, "Bob")], 2)),
        })
    })
    .await;
    let answer = search(&wrong, "NOT user:=7").await.unwrap();
    assert_eq!(answer.records.len(), 1);
    assert_eq!(answer.records[0].key.position.seq, 1);
    assert_eq!(answer.total.unwrap().value, 1);
}

#[tokio::test]
async fn late_answers_are_errors_and_the_server_is_told_the_limit() {
    let late = fake(|path, _| match path.contains("_field_caps") {
        true => Some((200, caps())),
        false => Some((200, json!({"timed_out": true, "hits": {"hits": []}}))),
    })
    .await;
    let error = search(&late, "user:=Bob").await.unwrap_err();
    assert_eq!(
        (error.kind, error.code),
        (ErrorKind::Timeout, "query_timeout")
    );
    let asked = late.asked.lock();
    let (_, body) = asked.last().unwrap();
    let timeout = body["timeout"].as_str().unwrap().trim_end_matches("ms");
    assert!(
        (1..=10_000).contains(&timeout.parse::<u64>().unwrap()),
        "{body}"
    );
}

#[tokio::test]
async fn a_caller_that_leaves_closes_the_connection() {
    let silent = fake(|path, _| match path.contains("_field_caps") {
        true => Some((200, caps())),
        false => None,
    })
    .await;
    let cancel = Cancel::after(Duration::from_millis(200));
    let started = Instant::now();
    let error = read::search(silent.store.inner(), request("user:=Bob"), cancel)
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::Timeout);
    assert!(started.elapsed() < Duration::from_secs(5));

    let cancel = Cancel::after(Duration::from_secs(30));
    let guard = cancel.guard();
    let asking = read::search(silent.store.inner(), request("user:=Bob"), cancel);
    let leaving = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        drop(guard);
    };
    let (answer, ()) = tokio::join!(asking, leaving);
    assert_eq!(answer.unwrap_err().kind, ErrorKind::Cancelled);
    for _ in 0..100 {
        if 2 <= *silent.left.lock() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{} connections were closed", *silent.left.lock());
}

#[tokio::test]
async fn too_many_buckets_are_counted_page_by_page() {
    for status in [400, 503] {
        let fake = fake(move |path, body| {
            let text = body.to_string();
            let groups = |at: i64, after: bool| {
                let bucket = json!({"key": {"0": at, "1.0": "Bob"}, "doc_count": 2});
                let mut groups = json!({"buckets": [bucket]});
                if after {
                    groups["after_key"] = json!({"0": at, "1.0": "Bob"});
                }
                json!({"aggregations": {"groups": groups}})
            };
            Some(match path {
                _ if path.contains("_field_caps") => (200, caps()),
                _ if path.contains("_pit") => (200, json!({"id": "p"})),
                _ if text.contains("composite") => (200, groups(NOON_NS / 1_000_000, true)),
                _ if text.contains("\"sure\"") => (
                    status,
                    json!({"error": {"type": "search_phase_execution_exception", "reason": "",
                        "caused_by": {"type": "too_many_buckets_exception", "reason": "Trying to create too many buckets"}}}),
                ),
                _ => (200, json!({"hits": {"total": {"value": 1}, "hits": [hit(5, "Eve")]}})),
            })
        })
        .await;
        let request = HistogramRequest {
            selection: filter_of(""),
            interval_ns: 60_000_000_000,
            by: Some("user".to_owned()),
            by_limit: 5,
        };
        let cancel = Cancel::after(Duration::from_secs(10));
        let answer = read::histogram(fake.store.inner(), request, cancel)
            .await
            .unwrap();
        // Two by the server, and one of those that it cannot add up.
        assert_eq!(answer.total, 3, "{status}");
        assert_eq!(answer.buckets.len(), 1);
        let by = |name: &str, count| (Some(name.to_owned()), count);
        assert_eq!(answer.buckets[0].by, [by("Bob", 2), by("Eve", 1)]);
    }
}

#[tokio::test]
async fn a_server_without_indices_holds_nothing() {
    let empty = fake(|path, _| {
        Some(match path {
            _ if path.contains("_field_caps") => (200, json!({"indices": [], "fields": {}})),
            _ if path.contains("_pit") => (
                404,
                json!({"error": {"type": "index_not_found_exception", "reason": "no such index"}}),
            ),
            _ => (200, json!({"_shards": {"total": 0, "failed": 0}, "hits": {"total": {"value": 0}, "hits": []}})),
        })
    })
    .await;
    let answer = search(&empty, "user:=Bob").await.unwrap();
    assert_eq!(
        (
            answer.records.len(),
            answer.total.unwrap().value,
            answer.has_more
        ),
        (0, 0, false)
    );
    let request = StatsRequest {
        selection: filter_of(""),
        by: Vec::new(),
        aggregates: Vec::new(),
        sort: Vec::new(),
        limit: 10,
    };
    let stats = read::stats(
        empty.store.inner(),
        request,
        Cancel::after(Duration::from_secs(5)),
    )
    .await
    .unwrap();
    assert_eq!(stats.n_groups, 1);
}

#[tokio::test]
async fn a_refused_snapshot_is_not_taken_for_an_empty_store() {
    let fake = fake(|path, _| {
        Some(match path {
            _ if path.contains("_field_caps") => (200, caps()),
            _ if path.contains("_pit") => (404, json!({"error": {"type": "index_not_found_exception", "reason": "no such index [logs-other]"}})),
            _ => (200, found(&[], 0)),
        })
    })
    .await;
    let request = HistogramRequest {
        selection: filter_of(""),
        interval_ns: 60_000_000_000,
        by: None,
        by_limit: 5,
    };
    let cancel = Cancel::after(Duration::from_secs(10));
    let error = read::histogram(fake.store.inner(), request, cancel)
        .await
        .unwrap_err();
    assert_eq!(error.code, "elasticsearch_refused");
}
