//! Every way in which a server can fail: nothing is lost, nothing is doubled, and every call ends in time.

use std::time::{Duration, Instant};

use crate::common::cancel::Cancel;
use crate::common::error::ErrorKind;
use crate::record::{QueuedBatch, ValueRef};
use crate::store::Store;
use crate::store::contract::{DAY_NS, Line, NOON_NS, batch};
use crate::store::elasticsearch::address::Address;
use crate::store::elasticsearch::client::{Client, ClientOptions, Method};
use crate::store::elasticsearch::tests::fake::{Fake, Fault, silent_server};

fn records(first: u64, count: u64) -> QueuedBatch {
    let texts: Vec<String> = (first..first + count)
        .map(|seq| format!("line {seq}"))
        .collect();
    let fields: Vec<[(&str, ValueRef<'_>); 1]> = texts
        .iter()
        .map(|text| [("message", ValueRef::Str(text))])
        .collect();
    let lines: Vec<Line<'_>> = fields.iter().map(|fields| (NOON_NS, &fields[..])).collect();
    batch(first, NOON_NS, &lines)
}

/// As the indexer does: the same again until it is taken.
async fn write_until_taken(store: &dyn Store, batches: Vec<QueuedBatch>) -> usize {
    let started = Instant::now();
    for tries in 1.. {
        match store.write(batches.clone()).await {
            Ok(()) => return tries,
            Err(error) => {
                assert!(
                    matches!(
                        error.kind,
                        ErrorKind::Unavailable | ErrorKind::Busy | ErrorKind::Timeout
                    ),
                    "{error:?} would bury records"
                );
                assert!(started.elapsed() < Duration::from_secs(20), "{error}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
    unreachable!()
}

fn seqs(fake: &Fake) -> Vec<u64> {
    let mut seqs: Vec<u64> = fake
        .records()
        .iter()
        .map(|record| record["logyard.seq"].as_u64().unwrap())
        .collect();
    seqs.sort_unstable();
    seqs
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_fails_every_record_is_stored_once() {
    let faults = [
        Fault::Status(429, "busy"),
        Fault::Status(503, "starting"),
        Fault::Status(502, "proxy"),
        Fault::Status(500, "bug"),
        Fault::Status(401, "who are you"),
        Fault::Status(404, "a wrong path on the way"),
        Fault::Items(vec![
            (0, 429, "es_rejected_execution_exception"),
            (3, 503, "unavailable_shards_exception"),
        ]),
        Fault::Items(vec![(2, 403, "cluster_block_exception")]),
        Fault::Items(vec![(1, 404, "index_not_found_exception")]),
        Fault::Hang,
        Fault::HangAfter,
        Fault::CutAfter,
        Fault::Garbage,
        Fault::TooFew,
    ];
    for fault in faults {
        let fake = Fake::start().await;
        let store = fake.store().await;
        write_until_taken(&store, vec![records(0, 2)]).await;
        fake.fail([fault.clone(), fault.clone()]);
        write_until_taken(&store, vec![records(2, 6)]).await;
        write_until_taken(&store, vec![records(8, 1)]).await;
        assert_eq!(seqs(&fake), (0..9).collect::<Vec<u64>>(), "{fault:?}");
        assert!(fake.letters().is_empty(), "{fault:?}");
        assert_eq!(store.searchable().borrow().next_seq(0), 9, "{fault:?}");
        assert!(fake.held.lock().faults.is_empty(), "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_for_itself_becomes_a_dead_letter_whole() {
    let fake = Fake::start().await;
    let store = fake.store().await;
    write_until_taken(&store, vec![records(0, 1)]).await;
    fake.fail([Fault::Items(vec![
        (1, 400, "document_parsing_exception"),
        (2, 429, "es_rejected_execution_exception"),
        (4, 409, "version_conflict_engine_exception"),
    ])]);
    assert_eq!(write_until_taken(&store, vec![records(1, 6)]).await, 1);
    assert_eq!(
        seqs(&fake),
        [0, 1, 3, 4, 6],
        "5 was there already, said the server"
    );
    let letters = fake.letters();
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0]["seq"], 2);
    assert_eq!(letters[0]["reason"], "document_parsing_exception: as told");
    use base64::Engine as _;
    let raw = base64::engine::general_purpose::STANDARD
        .decode(letters[0]["raw"].as_str().unwrap())
        .unwrap();
    let raw: serde_json::Value = serde_json::from_slice(&raw).unwrap();
    assert_eq!(raw["message"], "line 2");
    assert_eq!(raw["timestamp"], "2025-03-20T12:00:00.000Z");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bulk_that_is_too_large_is_sent_in_parts() {
    let fake = Fake::start().await;
    let store = fake.store().await;
    write_until_taken(&store, vec![records(0, 1)]).await;
    fake.fail([Fault::TooLargeBeyond(3)]);
    assert_eq!(write_until_taken(&store, vec![records(1, 10)]).await, 1);
    assert_eq!(seqs(&fake), (0..11).collect::<Vec<u64>>());
    fake.held.lock().faults.clear();
    fake.fail([Fault::TooLargeBeyond(0)]);
    let error = store.write(vec![records(11, 1)]).await.unwrap_err();
    assert_eq!(
        error.kind,
        ErrorKind::Unavailable,
        "not even its dead letter is taken"
    );
    fake.held.lock().faults.clear();
    write_until_taken(&store, vec![records(11, 1)]).await;
    assert_eq!(seqs(&fake).len(), 12);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_was_dropped_is_made_again() {
    let fake = Fake::start().await;
    let store = fake.store().await;
    write_until_taken(&store, vec![records(0, 3)]).await;
    {
        let mut held = fake.held.lock();
        held.indices.remove("logs-2025.03.20");
        held.mappings.remove("logs-2025.03.20");
        held.aliases.retain(|_, index| !index.starts_with("logs-"));
    }
    assert_eq!(write_until_taken(&store, vec![records(3, 3)]).await, 1);
    assert_eq!(seqs(&fake), [3, 4, 5]);
    let held = fake.held.lock();
    let mapping = &held.mappings["logs-2025.03.20"]["properties"];
    assert_eq!(
        mapping["message"]["type"], "text",
        "with the fields that the records need"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn several_bulks_are_under_way_at_once_and_no_more() {
    let fake = Fake::start().await;
    let mut options = fake.options();
    options.bulk_bytes_max = 2_000;
    options.bulks_in_flight_max = 3;
    options.client.compress = true;
    let store = crate::store::elasticsearch::ElasticsearchStore::connect(options)
        .await
        .unwrap();
    fake.held.lock().delay = Duration::from_millis(20);
    let next_day: Line<'_> = (NOON_NS + DAY_NS, &[]);
    write_until_taken(
        &store,
        vec![records(0, 100), batch(100, NOON_NS, &[next_day])],
    )
    .await;
    assert_eq!(seqs(&fake).len(), 101);
    let held = fake.held.lock();
    assert_eq!(held.in_work.1, 3);
    assert!(20 < held.bulks.len(), "{:?}", held.bulks);
    assert!(
        held.encodings
            .iter()
            .any(|encoding| encoding.as_deref() == Some("gzip"))
    );
    let state = &held.indices["logyard-state"]["partition/logs-/fake/0"];
    assert_eq!(state["next"], 101);
    assert_eq!(
        state["days"],
        serde_json::json!({"20167": 99, "20168": 100})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_server_is_answered_for_at_once_and_found_again() {
    let fake = Fake::start().await;
    let store = fake.store().await;
    write_until_taken(&store, vec![records(0, 1)]).await;
    fake.held.lock().is_down = true;
    for _ in 0..3 {
        assert_eq!(
            store.write(vec![records(1, 1)]).await.unwrap_err().kind,
            ErrorKind::Unavailable
        );
    }
    let n_requests = fake.held.lock().n_requests;
    let started = Instant::now();
    let error = store.write(vec![records(1, 1)]).await.unwrap_err();
    assert!(
        started.elapsed() < Duration::from_millis(100),
        "{:?}",
        started.elapsed()
    );
    assert!(error.message.contains("it is tried again in"), "{error}");
    assert_eq!(fake.held.lock().n_requests, n_requests);
    fake.held.lock().is_down = false;
    write_until_taken(&store, vec![records(1, 1)]).await;
    assert_eq!(seqs(&fake), [0, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_without_shards_leaves_the_breaker_closed() {
    for (body, is_open) in [
        (
            r#"{"error":{"type":"search_phase_execution_exception","reason":"all shards failed"}}"#,
            false,
        ),
        (
            r#"{"error":{"type":"master_not_discovered_exception","reason":null}}"#,
            true,
        ),
    ] {
        let fake = Fake::start().await;
        let client = Client::new(fake.options().client).unwrap();
        fake.held.lock().refusal = Some((503, body.to_owned()));
        for _ in 0..3 {
            let error = client
                .admin(Method::POST, "/x/_search", None)
                .await
                .unwrap_err();
            assert_eq!(error.code, "elasticsearch_unavailable");
        }
        fake.held.lock().refusal = None;
        let answer = client.admin(Method::GET, "/", None).await;
        assert_eq!(answer.is_err(), is_open, "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clusters_behind_one_cache_have_versions_of_their_own() {
    let versions = async |cluster: &str| {
        let fake = Fake::start().await;
        fake.held.lock().cluster = Some(cluster.to_owned());
        let store = fake.store().await;
        write_until_taken(&store, vec![records(0, 2)]).await;
        store.version(&crate::query::TimeRange::default())
    };
    assert_eq!(versions("a").await, versions("a").await);
    assert_ne!(versions("a").await, versions("b").await);
}

fn client(address: &str) -> Client {
    let mut options = ClientOptions::new(Address::parse(address).unwrap());
    options.first_byte_timeout = Duration::from_millis(200);
    options.response_bytes_max = 100_000;
    options.tries_max = 2;
    Client::new(options).unwrap()
}

#[tokio::test]
async fn a_silent_server_is_cut() {
    let half = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"half\":";
    for head in [&b""[..], half] {
        let address = silent_server(head).await;
        let started = Instant::now();
        let client = client(&format!("elasticsearch://{address}"));
        let error = client.admin(Method::GET, "/", None).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Timeout, "{error}");
        assert!(started.elapsed() < Duration::from_secs(2));
        let cancel = Cancel::after(Duration::from_millis(50));
        let error = client
            .ask(Method::GET, "/", None, &cancel)
            .await
            .unwrap_err();
        assert_eq!(
            (error.kind, error.code),
            (ErrorKind::Timeout, "query_timeout")
        );
        let cancel = Cancel::after(Duration::from_secs(30));
        cancel.cancel();
        let error = client
            .ask(Method::GET, "/", None, &cancel)
            .await
            .unwrap_err();
        assert_eq!(error.kind, ErrorKind::Cancelled);
    }
}

#[tokio::test]
async fn an_answer_without_end_is_refused() {
    let endless: &'static [u8] = Vec::leak(
        [
            &b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n"[..],
            &vec![b'x'; 200_000],
        ]
        .concat(),
    );
    let address = silent_server(endless).await;
    let error = client(&format!("elasticsearch://{address}"))
        .admin(Method::GET, "/", None)
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::TooLarge);
}

#[tokio::test]
async fn another_host_answers_for_one_that_is_gone() {
    let fake = Fake::start().await;
    let gone = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let client = client(&format!("elasticsearch://{gone},{}", fake.address));
    for _ in 0..12 {
        assert!(
            client
                .admin(Method::GET, "/", None)
                .await
                .unwrap()
                .is_success()
        );
    }
}

#[tokio::test]
async fn credentials_are_sent_as_they_are_meant() {
    let fake = Fake::start().await;
    let address = format!("elasticsearch://elastic:p%40ss@{}", fake.address);
    let mut options = ClientOptions::new(Address::parse(&address).unwrap());
    Client::new(options.clone())
        .unwrap()
        .admin(Method::GET, "/", None)
        .await
        .unwrap();
    options.api_key = Some("a2V5OnNlY3JldA==".to_owned());
    Client::new(options.clone())
        .unwrap()
        .admin(Method::GET, "/", None)
        .await
        .unwrap();
    let sent = fake.held.lock().authorizations.clone();
    assert_eq!(
        sent,
        [
            Some("Basic ZWxhc3RpYzpwQHNz".to_owned()),
            Some("ApiKey a2V5OnNlY3JldA==".to_owned())
        ]
    );
    assert!(!format!("{options:?}").contains("a2V5"));
}

#[tokio::test]
async fn old_servers_are_refused_by_name() {
    for (answer, expected) in [
        (r#"{"version":{"number":"7.17.0"}}"#, "Elasticsearch 7.17.0"),
        (
            r#"{"version":{"number":"1.3.0","distribution":"opensearch"}}"#,
            "OpenSearch 1.3.0",
        ),
    ] {
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{answer}",
            answer.len()
        );
        let address = silent_server(Vec::leak(head.into_bytes())).await;
        let error = client(&format!("elasticsearch://{address}"))
            .server()
            .await
            .unwrap_err();
        assert!(error.message.contains(expected), "{error}");
    }
}
