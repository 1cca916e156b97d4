//! The handlers over HTTP, with a queue and a store that keep everything in memory.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    reason = "a broken test should stop, and its tables may be long"
)]

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use std::io::Write as _;
use tower::ServiceExt as _;

use logyard::common::metrics::Metrics;
use logyard::intake::{IntakeOptions, IntakeState, routes};
use logyard::queue::Queue as _;
use logyard::queue::memory::{MemoryQueue, MemoryQueueOptions};
use logyard::record::{
    Batch, BatchBuilder, Checkpoint, DeadLetterRef, EntryRef, Position, QueuedBatch, ValueRef,
};
use logyard::store::memory::{MemoryStore, MemoryStoreOptions};
use logyard::store::{DeadLetterRequest, Store as _};
use std::sync::Arc;
use std::time::Duration;

struct Setup {
    router: Router,
    queue: Arc<MemoryQueue>,
    store: Arc<MemoryStore>,
}

fn setup_with(options: IntakeOptions) -> Setup {
    setup_on(
        Arc::new(MemoryQueue::new(MemoryQueueOptions::default())),
        options,
    )
}

fn setup_on(queue: Arc<MemoryQueue>, options: IntakeOptions) -> Setup {
    let store = Arc::new(MemoryStore::new(MemoryStoreOptions::default()));
    let state = IntakeState::new(
        queue.clone(),
        store.clone(),
        Arc::new(Metrics::new()),
        options,
    );
    Setup {
        router: routes(state),
        queue,
        store,
    }
}

impl Setup {
    fn entries(&self) -> u64 {
        self.queue.backlog().end.next_seq(0)
    }

    async fn batches(&self) -> Vec<Batch> {
        let from = Checkpoint::default();
        let batches = self
            .queue
            .read(&from, usize::MAX, Duration::ZERO)
            .await
            .unwrap();
        batches.into_iter().map(|queued| queued.batch).collect()
    }

    /// Makes the store hold dead letters at positions that the queue does not use.
    async fn keep_letters(&self, seq: u64, raws: &[&str]) {
        let mut builder = BatchBuilder::new(7);
        for raw in raws {
            builder.dead_letter(DeadLetterRef {
                code: "invalid_json",
                reason: "why",
                source: Some("web"),
                raw: raw.as_bytes(),
            });
        }
        let first = Position { partition: 0, seq };
        let batch = builder.finish();
        self.store
            .write(vec![QueuedBatch { first, batch }])
            .await
            .unwrap();
    }

    async fn letters(&self) -> Vec<u64> {
        let request = DeadLetterRequest {
            limit: 100,
            ..DeadLetterRequest::default()
        };
        let page = self.store.dead_letters(request).await.unwrap();
        page.letters
            .iter()
            .map(|letter| letter.position.seq)
            .collect()
    }
}

fn setup() -> Setup {
    setup_with(IntakeOptions::default())
}

fn post(path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Request<Body> {
    let mut request = Request::post(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body.into()).unwrap()
}

async fn send(router: &Router, request: Request<Body>) -> (StatusCode, Value) {
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn lines_are_stored_or_named_in_the_answer() {
    let setup = setup();
    let body = "{\"a\":1}\nnot json\n{\"a\":3}\n";
    let (status, answer) = send(&setup.router, post("/logs", &[], body)).await;
    assert_eq!(status, StatusCode::CREATED);
    assert_eq!(
        answer,
        json!({
            "accepted": 2, "dead_lettered": 1,
            "errors": [{"line": 2, "code": "invalid_json", "reason": "expected a value at column 1", "excerpt": "not json"}],
            "durability": "memory", "position": "0-0", "replayed": false
        })
    );
    assert_eq!(setup.entries(), 3);
}

#[tokio::test]
async fn what_is_refused_is_not_stored_and_says_why() {
    let setup = setup_with(IntakeOptions {
        body_bytes_max: 1000,
        ..IntakeOptions::default()
    });
    let long = "x".repeat(1001);
    let zeros = zstd::bulk::compress(&vec![b'0'; 40 << 20], 1).unwrap();
    let long_key = "k".repeat(256);
    let gzip_body = ("content-encoding", "gzip");
    for (path, headers, body, status, code) in [
        ("/logs", vec![], b"".to_vec(), 400, "empty_body"),
        ("/logs", vec![], b"{\"a\":".to_vec(), 400, "invalid_json"),
        (
            "/logs?sourc=x",
            vec![],
            b"x".to_vec(),
            400,
            "unknown_parameter",
        ),
        (
            "/logs?wait_for=x",
            vec![],
            b"x".to_vec(),
            400,
            "invalid_parameter",
        ),
        (
            "/logs",
            vec![gzip_body],
            b"{}".to_vec(),
            400,
            "invalid_compression",
        ),
        (
            "/logs",
            vec![gzip_body],
            gzip(b"x")[..9].to_vec(),
            400,
            "invalid_compression",
        ),
        (
            "/logs",
            vec![("content-encoding", "zstd")],
            zeros[..900].to_vec(),
            413,
            "suspicious_compression",
        ),
        (
            "/logs",
            vec![("content-length", "1001")],
            b"x".to_vec(),
            413,
            "body_too_large",
        ),
        ("/logs", vec![], long.into_bytes(), 413, "body_too_large"),
        (
            "/logs",
            vec![("content-encoding", "br")],
            b"x".to_vec(),
            415,
            "unsupported_encoding",
        ),
        (
            "/logs",
            vec![gzip_body, gzip_body],
            gzip(b"x"),
            415,
            "unsupported_encoding",
        ),
        (
            "/logs",
            vec![("content-type", "multipart/form-data; boundary=x")],
            b"x".to_vec(),
            415,
            "unsupported_media_type",
        ),
        (
            "/logs",
            vec![("idempotency-key", &long_key)],
            b"x".to_vec(),
            400,
            "invalid_idempotency_key",
        ),
    ] {
        let (got, answer) = send(&setup.router, post(path, &headers, body)).await;
        assert_eq!(got.as_u16(), status, "{code}: {answer}");
        assert_eq!(answer["error"]["code"], code, "{answer}");
    }
    assert_eq!(setup.entries(), 0);
    let (status, _) = send(&setup.router, post("/logs", &[], "good again")).await;
    assert_eq!(status, StatusCode::CREATED);
}

#[tokio::test]
async fn a_compressed_body_is_the_same_as_a_plain_one() {
    let setup = setup();
    let plain = "{\"message\":\"hello\"}\n".repeat(10_000);
    let zstd = zstd::bulk::compress(plain.as_bytes(), 1).unwrap();
    for (encoding, body) in [
        ("identity", plain.clone().into_bytes()),
        ("gzip", gzip(plain.as_bytes())),
        ("zstd", zstd),
    ] {
        let request = post("/logs", &[("content-encoding", encoding)], body);
        let (status, answer) = send(&setup.router, request).await;
        assert_eq!(
            (status.as_u16(), &answer["accepted"]),
            (201, &json!(10_000)),
            "{encoding}"
        );
    }
}

#[tokio::test]
async fn a_retry_with_the_same_key_answers_as_the_first_and_stores_nothing() {
    let setup = setup();
    let key = [("idempotency-key", "abc")];
    let body = "{\"a\":1}\nbroken\n";
    let (_, first) = send(&setup.router, post("/logs", &key, body)).await;
    let retry = post(
        "/logs",
        &[key[0], ("content-encoding", "gzip")],
        gzip(body.as_bytes()),
    );
    let (status, mut second) = send(&setup.router, retry).await;
    assert_eq!(status, StatusCode::CREATED);
    assert_eq!(second["replayed"], true);
    second["replayed"] = false.into();
    assert_eq!(first, second);
    assert_eq!(setup.entries(), 2);
    for (path, body) in [("/logs", "{\"a\":2}"), ("/logs?source=x", body)] {
        let (status, answer) = send(&setup.router, post(path, &key, body)).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
    }
}

#[tokio::test]
async fn an_empty_array_is_no_fault_and_stores_nothing() {
    let setup = setup();
    let (status, answer) = send(&setup.router, post("/logs", &[], "[]")).await;
    assert_eq!(status, StatusCode::CREATED);
    assert_eq!(
        (&answer["accepted"], &answer["position"]),
        (&json!(0), &Value::Null)
    );
    assert_eq!(setup.entries(), 0);
}

#[tokio::test]
async fn waiting_for_the_index_ends_with_it_or_with_the_limit() {
    let setup = setup_with(IntakeOptions {
        indexed_wait: Duration::from_millis(600),
        ..IntakeOptions::default()
    });
    let request = || post("/logs?wait_for=indexed", &[], "x\ny\n");
    let (status, answer) = send(&setup.router, request()).await;
    assert_eq!((status.as_u16(), &answer["indexed"]), (201, &json!(false)));
    let router = setup.router.clone();
    let waiting = tokio::spawn(async move { send(&router, request()).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    // Entries 0 and 1 are of the first request, 2 and 3 of the one that waits.
    setup.keep_letters(0, &["0", "1", "2"]).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!waiting.is_finished());
    setup.keep_letters(3, &["3"]).await;
    let (_, answer) = waiting.await.unwrap();
    assert_eq!(answer["indexed"], true);
}

#[tokio::test]
async fn too_much_at_once_waits_and_is_then_refused_with_a_time_to_come_back() {
    let setup = setup_with(IntakeOptions {
        in_flight_bytes_max: 4096,
        admission_wait: Duration::from_millis(20),
        ..IntakeOptions::default()
    });
    // A body that never ends holds its memory.
    let endless = Body::from_stream(futures::stream::pending::<Result<Vec<u8>, std::io::Error>>());
    let first = setup.router.clone();
    let request = post("/logs", &[("content-length", "4000")], endless);
    let _held = tokio::spawn(async move { first.oneshot(request).await });
    tokio::time::sleep(Duration::from_millis(10)).await;
    let response = setup
        .router
        .clone()
        .oneshot(post("/logs", &[], "x"))
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()["retry-after"], "2");
}

#[tokio::test]
async fn the_defaults_and_the_mode_of_durability_are_passed_on() {
    let setup = setup();
    let request = post("/logs?source=web&level=INFO", &[], "hello");
    let response = setup.router.clone().oneshot(request).await.unwrap();
    assert_eq!(response.headers()["x-durability"], "memory");
    let batches = setup.batches().await;
    let EntryRef::Record(record) = batches[0].entries().next().unwrap() else {
        panic!()
    };
    for (key, value) in [("source", "web"), ("level", "INFO"), ("message", "hello")] {
        assert_eq!(record.field(key), Some(ValueRef::Str(value)));
    }
}

#[tokio::test]
async fn letters_that_are_records_now_move_and_the_others_stay() {
    let setup = setup();
    let raws = ["{\"a\":1}", "{broken", "{\"b\":1}"];
    setup.keep_letters(103, &raws).await;
    let body = r#"{"ids":["0-103","0-104","0-999","garbage","0-103"]}"#;
    let (status, answer) = send(&setup.router, post("/dead-letters/replay", &[], body)).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(
        [&answer["replayed"], &answer["failed"], &answer["not_found"]],
        [1, 1, 2]
    );
    assert_eq!(
        answer["results"][0],
        json!({"id": "0-103", "outcome": "replayed", "position": "0-0"})
    );
    assert_eq!(answer["results"][1]["code"], "invalid_json");
    assert_eq!(setup.letters().await, [105, 104]);
    let batches = setup.batches().await;
    assert_eq!(batches[0].arrival_ns(), 7);

    let all = post("/dead-letters/replay", &[], r#"{"q":"","as":"text"}"#);
    let (_, answer) = send(&setup.router, all).await;
    assert_eq!(answer["replayed"], 2, "{answer}");
    assert!(setup.letters().await.is_empty());
}

#[tokio::test]
async fn a_replay_broken_off_before_its_deletion_does_not_double() {
    let mut setup = setup();
    for _ in 0..2 {
        // The same letter again, as after a crash between the append and the deletion.
        setup = setup_on(setup.queue, IntakeOptions::default());
        setup.keep_letters(103, &["{\"a\":1}"]).await;
        let request = post("/dead-letters/replay", &[], r#"{"ids":["0-103"]}"#);
        let (_, answer) = send(&setup.router, request).await;
        assert_eq!(answer["results"][0]["position"], "0-0");
    }
    assert_eq!(setup.entries(), 1);
}

#[tokio::test]
async fn a_replay_must_say_what() {
    let setup = setup();
    for body in [
        "",
        "{}",
        r#"{"ids":[],"q":"x"}"#,
        r#"{"id":[]}"#,
        r#"{"q":"","as":"xml"}"#,
        "[]",
    ] {
        let (status, answer) = send(&setup.router, post("/dead-letters/replay", &[], body)).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
        assert_eq!(answer["error"]["code"], "invalid_replay", "{body}");
    }
}
