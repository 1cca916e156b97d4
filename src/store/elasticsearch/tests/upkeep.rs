//! Several processes on one cluster, limits, restarts and the cleaner, against a real server.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::query::{Expr, Field, Match, Term, TimeRange};
use crate::record::{BatchBuilder, DeadLetterRef, Position, QueuedBatch, ValueRef};
use crate::store::contract::{
    DAY_NS, Line, NOON_NS, batch, count, everything, records, request, search, sorted,
};
use crate::store::elasticsearch::client::Method;
use crate::store::elasticsearch::indices::list;
use crate::store::elasticsearch::lease::Lease;
use crate::store::elasticsearch::tests::server::Server;
use crate::store::elasticsearch::{ElasticsearchOptions, ElasticsearchStore, QueueIdentity};
use crate::store::{DeadLetterRequest, RetentionRules, Store};

use ValueRef::{Bool, Float, Int, Str};

async fn connect(options: &ElasticsearchOptions) -> Arc<ElasticsearchStore> {
    Arc::new(ElasticsearchStore::connect(options.clone()).await.unwrap())
}

fn of_partition(partition: u32, mut queued: QueuedBatch) -> QueuedBatch {
    queued.first = Position {
        partition,
        ..queued.first
    };
    queued
}

fn days(count: u64) -> Option<Duration> {
    Some(Duration::from_secs(count * 86_400))
}

async fn raw(store: &ElasticsearchStore, method: Method, path: &str, body: Option<&Json>) -> Json {
    let answer = store
        .inner()
        .client
        .admin(method, path, body)
        .await
        .unwrap();
    answer.expect("serve a test").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs real servers: scripts/dev-stack up, then scripts/test"]
async fn indexers_that_add_fields_at_once_agree() {
    let server = Server::new();
    let options = server.options();
    let mut writers = Vec::new();
    for partition in 0..4_u32 {
        let store = connect(&options).await;
        writers.push(tokio::spawn(async move {
            for round in 0..6_u64 {
                let names: Vec<String> = (0..20)
                    .map(|name| format!("f{}", name + round * 10))
                    .collect();
                // Each partition believes in another type of the same fields.
                let value = |name: u64| match (u64::from(partition) + name) % 4 {
                    0 => Int(5),
                    1 => Str("5"),
                    2 => Bool(true),
                    _ => Float(5.5),
                };
                let fields: Vec<(&str, ValueRef<'_>)> = (0..)
                    .zip(&names)
                    .map(|(index, name)| (name.as_str(), value(index)))
                    .collect();
                let line: Line<'_> = (NOON_NS, &fields);
                let queued = of_partition(partition, batch(round, NOON_NS, &[line]));
                store.write(vec![queued]).await.unwrap();
            }
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let store = connect(&options).await;
    assert_eq!(count(&*store, Expr::All).await, 24);
    assert_eq!(store.usage().await.unwrap().dead_letters, 0);
    let found = search(&*store, request(everything(), 100)).await.records;
    for record in found {
        let (partition, round) = (record.key.position.partition, record.key.position.seq);
        for (key, value) in &record.fields {
            let name = key[1..].parse::<u64>().unwrap() - round * 10;
            let expected = match (u64::from(partition) + name) % 4 {
                0 => Int(5),
                1 => Str("5"),
                2 => Bool(true),
                _ => Float(5.5),
            };
            assert_eq!(value.as_value_ref(), expected, "{key}");
        }
    }
    server.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs real servers: scripts/dev-stack up, then scripts/test"]
async fn what_one_process_writes_another_knows() {
    let server = Server::new();
    let options = server.options();
    let (first, second) = (connect(&options).await, connect(&options).await);
    let line: Line<'_> = (NOON_NS, &[("message", Str("x"))]);
    let range = TimeRange::default();
    let before = second.version(&range);
    first
        .write(vec![batch(0, NOON_NS, &[line, line])])
        .await
        .unwrap();
    let mut seen = second.searchable();
    tokio::time::timeout(
        Duration::from_secs(10),
        seen.wait_for(|checkpoint| checkpoint.next_seq(0) == 2),
    )
    .await
    .unwrap()
    .unwrap();
    assert_ne!(second.version(&range), before);
    assert_eq!(
        second.version(&range),
        first.version(&range),
        "caches can be shared"
    );
    // A writer that has not heard of it leaves out what is there.
    second
        .write(vec![batch(0, NOON_NS, &[line, line, line])])
        .await
        .unwrap();
    assert_eq!(count(&*first, Expr::All).await, 3);
    // After a restart it goes on where it was.
    drop((first, second));
    let again = connect(&options).await;
    assert_eq!(again.searchable().borrow().next_seq(0), 3);

    let mut foreign = options.clone();
    foreign.queue = QueueIdentity("another".to_owned());
    let refused = ElasticsearchStore::connect(foreign).await.err().unwrap();
    assert_eq!(refused.code, "store_of_another_queue");
    assert!(
        refused.message.contains("elasticsearch_index_prefix"),
        "{refused}"
    );
    server.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs real servers: scripts/dev-stack up, then scripts/test"]
async fn past_the_field_limit_records_are_kept_and_found() {
    let server = Server::new();
    let mut options = server.options();
    options.fields_max = 60;
    let store = connect(&options).await;
    let names: Vec<String> = (0..200).map(|index| format!("name.{index}")).collect();
    let fields: Vec<(&str, ValueRef<'_>)> = (0..)
        .zip(&names)
        .map(|(index, name)| {
            (
                name.as_str(),
                if index % 2 == 0 {
                    Int(index)
                } else {
                    Str("some text")
                },
            )
        })
        .collect();
    let few: Vec<(&str, ValueRef<'_>)> = vec![("name.1", Int(7)), ("late", Str("late text"))];
    let lines: [Line<'_>; 2] = [(NOON_NS, &fields), (NOON_NS + 1, &few)];
    store.write(vec![batch(0, NOON_NS, &lines)]).await.unwrap();
    store.write(vec![batch(2, NOON_NS, &lines)]).await.unwrap();
    let found = search(&*store, request(everything(), 10)).await.records;
    let mut expected = records(0, &lines);
    expected.extend(records(2, &lines));
    expected.sort_by_key(|record| record.key);
    assert_eq!(sorted(found), sorted(expected));
    assert_eq!(store.usage().await.unwrap().dead_letters, 0);
    let index = &list(store.inner()).await.unwrap()[0].name;
    let overflow = json!({"query": {"term": {"logyard.overflow": "name.199=some text"}}});
    let counted = raw(
        &store,
        Method::POST,
        &format!("/{index}/_count"),
        Some(&overflow),
    )
    .await;
    assert_eq!(counted["count"], 2);
    server.clean().await;
}

fn letter(seq: u64, raw: &[u8]) -> QueuedBatch {
    let mut builder = BatchBuilder::new(NOON_NS + i64::try_from(seq).unwrap());
    builder.dead_letter(DeadLetterRef {
        code: "invalid_json",
        reason: "why",
        source: None,
        raw,
    });
    QueuedBatch {
        first: Position { partition: 0, seq },
        batch: builder.finish(),
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs real servers: scripts/dev-stack up, then scripts/test"]
async fn the_oldest_dead_letters_make_room() {
    let server = Server::new();
    let mut options = server.options();
    options.dead_letters_bytes_max = 50_000;
    let store = connect(&options).await;
    let raw = vec![b'x'; 3_000];
    for seq in 0..30 {
        store.write(vec![letter(seq, &raw)]).await.unwrap();
    }
    let page = store
        .dead_letters(DeadLetterRequest {
            limit: 100,
            ..DeadLetterRequest::default()
        })
        .await
        .unwrap();
    let seqs: Vec<u64> = page
        .letters
        .iter()
        .map(|letter| letter.position.seq)
        .collect();
    let oldest = *seqs.last().unwrap();
    assert_eq!(seqs, (oldest..30).rev().collect::<Vec<_>>());
    assert!((18..26).contains(&oldest), "{oldest}");
    server.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs real servers: scripts/dev-stack up, then scripts/test"]
async fn whole_indices_go_by_age_and_by_size_and_foreign_ones_stay() {
    let server = Server::new();
    let options = server.options();
    let store = connect(&options).await;
    let foreign = format!("{}1999.99.99", options.index_prefix);
    raw(&store, Method::PUT, &format!("/{foreign}"), None).await;
    for (seq, day) in (0..).zip([9, 6, 3, 0]) {
        let then = NOON_NS - day * DAY_NS;
        store
            .write(vec![batch(seq, then, &[(then, &[("source", Str("web"))])])])
            .await
            .unwrap();
    }
    let far = i64::MIN + 7;
    store
        .write(vec![batch(4, NOON_NS - 9 * DAY_NS, &[(far, &[])])])
        .await
        .unwrap();
    let names = async || -> Vec<String> {
        let indices = list(store.inner()).await.unwrap();
        let short = |name: &String| name.trim_start_matches(&options.index_prefix).to_owned();
        indices.iter().map(|index| short(&index.name)).collect()
    };
    assert_eq!(
        names().await,
        [
            "other",
            "2025.03.11",
            "2025.03.14",
            "2025.03.17",
            "2025.03.20"
        ]
    );
    let rules = RetentionRules {
        age_max: days(5),
        ..RetentionRules::default()
    };
    let planned = store.expire(rules.clone(), NOON_NS, true).await.unwrap();
    assert_eq!(
        (planned.records, planned.segments_dropped),
        (3, 3),
        "{planned:?}"
    );
    let done = store.expire(rules, NOON_NS, false).await.unwrap();
    assert_eq!((done.records, done.segments_dropped), (3, 3), "{done:?}");
    assert_eq!(names().await, ["2025.03.17", "2025.03.20"]);
    let rules = RetentionRules {
        size_bytes_max: Some(1),
        ..RetentionRules::default()
    };
    let done = store.expire(rules, NOON_NS, false).await.unwrap();
    assert_eq!(done.records, 1);
    assert_eq!(
        names().await,
        ["2025.03.20"],
        "the newest stays whatever its size"
    );
    raw(&store, Method::GET, &format!("/{foreign}"), None).await;
    // A late record of a day whose index is gone.
    let then = NOON_NS - 9 * DAY_NS;
    store
        .write(vec![batch(5, NOON_NS, &[(then, &[("new", Int(5))])])])
        .await
        .unwrap();
    assert_eq!(count(&*store, Expr::All).await, 2);
    let mut asked = everything();
    asked.filter = Expr::Term(Term {
        field: Field::Addresses(vec!["new".to_owned()]),
        matcher: Match::Exact("5".to_owned()),
    });
    assert_eq!(search(&*store, request(asked, 5)).await.records.len(), 1);
    server.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs real servers: scripts/dev-stack up, then scripts/test"]
async fn a_record_that_arrives_while_its_index_goes_is_spared() {
    let server = Server::new();
    let options = server.options();
    let store = connect(&options).await;
    let then = NOON_NS - 9 * DAY_NS;
    store
        .write(vec![batch(0, then, &[(then, &[])])])
        .await
        .unwrap();
    let index = list(store.inner()).await.unwrap()[0].name.clone();
    // As a bulk of another indexer that was not refreshed yet: no search sees it.
    let fresh = json!({"logyard.ns": then, "logyard.arrival_ns": NOON_NS, "logyard.digits": 0});
    raw(
        &store,
        Method::PUT,
        &format!("/{index}/_create/fresh"),
        Some(&fresh),
    )
    .await;
    let rules = RetentionRules {
        age_max: days(5),
        ..RetentionRules::default()
    };
    let done = store.expire(rules, NOON_NS, false).await.unwrap();
    assert_eq!(done.records, 1, "{done:?}");
    let left = raw(&store, Method::GET, &format!("/{index}/_doc/fresh"), None).await;
    assert_eq!(left["found"], true);
    // And the index is open again.
    store
        .write(vec![batch(1, NOON_NS, &[(then, &[])])])
        .await
        .unwrap();
    assert_eq!(store.usage().await.unwrap().records, 2);
    let faults = store.verify().await.unwrap().faults;
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert!(faults[0].contains("document fresh"), "{faults:?}");
    server.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs real servers: scripts/dev-stack up, then scripts/test"]
async fn one_cleaner_works_at_a_time() {
    let server = Server::new();
    let mut options = server.options();
    options.cleaner_lease = Duration::from_secs(4);
    let store = connect(&options).await;
    let then = NOON_NS - 9 * DAY_NS;
    store
        .write(vec![batch(0, then, &[(then, &[])])])
        .await
        .unwrap();
    let index = list(store.inner()).await.unwrap()[0].name.clone();
    let rules = RetentionRules {
        age_max: days(5),
        ..RetentionRules::default()
    };
    let mut lease = Lease::take(store.inner()).await.unwrap().unwrap();
    assert!(Lease::take(store.inner()).await.unwrap().is_none());
    let done = store.expire(rules.clone(), NOON_NS, false).await.unwrap();
    assert_eq!(done.records, 0, "another is at work");
    // It vanishes while an index is closed to writers.
    lease.renew(Some(&index)).await.unwrap();
    raw(&store, Method::PUT, &format!("/{index}/_block/write"), None).await;
    store
        .write(vec![batch(1, NOON_NS, &[(then, &[])])])
        .await
        .unwrap_err();
    tokio::time::sleep(Duration::from_millis(4_200)).await;
    let nothing = RetentionRules {
        age_max: days(500),
        ..RetentionRules::default()
    };
    store.expire(nothing, NOON_NS, false).await.unwrap();
    store
        .write(vec![batch(1, NOON_NS, &[(then, &[])])])
        .await
        .unwrap();
    assert_eq!(lease.renew(None).await.unwrap_err().code, "lease_lost");
    let done = store.expire(rules, NOON_NS, false).await.unwrap();
    assert_eq!(done.records, 1, "the one that arrived late stays");
    server.clean().await;
}
