//! Writing twice, dead letters, retention, versions, and the end of a question.

use std::time::Duration;

use crate::common::cancel::Cancel;
use crate::common::error::ErrorKind;
use crate::query::{Expr, TimeRange};
use crate::record::{BatchBuilder, Checkpoint, DeadLetterRef, Flags, QueuedBatch, ValueRef};
use crate::store::contract::{
    DAY_NS, Line, NOON_NS, at, batch, count, everything, request, search,
};
use crate::store::{DeadLetterRequest, RetentionRules, Store};

use ValueRef::Str;

pub async fn the_same_batch_twice_leaves_one_copy(store: &dyn Store) {
    let lines: Vec<Line<'_>> = (0..10).map(|index| (NOON_NS + index, &[][..])).collect();
    let whole = batch(0, NOON_NS, &lines);
    let (head, tail) = lines.split_at(6);
    store.write(vec![batch(0, NOON_NS, head)]).await.unwrap();
    assert_eq!(store.searchable().borrow().next_seq(0), 6);
    store
        .write(vec![whole.clone(), whole.clone()])
        .await
        .unwrap();
    store.write(vec![batch(6, NOON_NS, tail)]).await.unwrap();
    store.flush().await.unwrap();
    store.write(vec![whole]).await.unwrap();
    store.write(Vec::new()).await.unwrap();
    assert_eq!(count(store, Expr::All).await, 10);
    assert_eq!(store.usage().await.unwrap().records, 10);
    let mut covered = Checkpoint::default();
    covered.advance(0, 10);
    assert_eq!(*store.searchable().borrow(), covered);
    assert_eq!(*store.durable().borrow(), covered);

    let mut other_partition = batch(3, NOON_NS, &lines);
    other_partition.first.partition = 7;
    store.write(vec![other_partition]).await.unwrap();
    assert_eq!(count(store, Expr::All).await, 20);
    assert_eq!(store.searchable().borrow().next_seq(7), 13);
}

fn letters() -> QueuedBatch {
    let mut builder = BatchBuilder::new(NOON_NS);
    builder.begin_record();
    builder.end_record(NOON_NS, 0, Flags::default());
    for (code, source, raw) in [
        ("invalid_json", Some("web"), &b"{broken"[..]),
        ("invalid_json", None, b"[1,\xff"),
        ("too_long", Some("db"), b"very long"),
    ] {
        builder.dead_letter(DeadLetterRef {
            code,
            reason: "expected `:` at column 14",
            source,
            raw,
        });
    }
    QueuedBatch {
        first: at(0),
        batch: builder.finish(),
    }
}

pub async fn dead_letters_are_kept_found_and_deleted(store: &dyn Store) {
    store.write(vec![letters()]).await.unwrap();
    store.write(vec![letters()]).await.unwrap();
    let ask = async |q: &str, limit, before| {
        let request = DeadLetterRequest {
            q: q.to_owned(),
            limit,
            before,
        };
        let page = store.dead_letters(request).await.unwrap();
        let seqs: Vec<u64> = page
            .letters
            .iter()
            .map(|letter| letter.position.seq)
            .collect();
        (seqs, page.total, page.has_more)
    };
    assert_eq!(ask("", 10, None).await, (vec![3, 2, 1], 3, false));
    assert_eq!(ask("", 2, None).await, (vec![3, 2], 3, true));
    assert_eq!(ask("", 2, Some(at(2))).await, (vec![1], 3, false));
    assert_eq!(ask("JSON column", 10, None).await, (vec![2, 1], 2, false));
    assert_eq!(ask("broken web", 10, None).await, (vec![1], 1, false));
    assert_eq!(ask("broken db", 10, None).await, (vec![], 0, false));
    assert_eq!(
        count(store, Expr::All).await,
        1,
        "no search shows a dead letter"
    );

    let asked = vec![at(2), at(9), at(1)];
    let found = store.dead_letters_by_position(asked.clone()).await.unwrap();
    assert_eq!(found.len(), 2);
    assert_eq!(
        (found[0].position, &found[0].raw[..]),
        (at(2), &b"[1,\xff"[..])
    );
    assert_eq!(
        (found[1].source.as_deref(), found[1].arrival_ns),
        (Some("web"), NOON_NS)
    );
    assert_eq!(found[1].reason, "expected `:` at column 14");

    assert_eq!(store.delete_dead_letters(asked.clone()).await.unwrap(), 2);
    assert_eq!(store.delete_dead_letters(asked).await.unwrap(), 0);
    store.flush().await.unwrap();
    store.write(vec![letters()]).await.unwrap();
    assert_eq!(ask("", 10, None).await, (vec![3], 1, false));
    assert_eq!(store.usage().await.unwrap().dead_letters, 1);
}

pub async fn old_records_go_and_new_ones_stay(store: &dyn Store) {
    let named = |text| [("message", Str(text))];
    let (old, new) = (named("old"), named("new"));
    // Old in both senses; then an old time that arrived lately.
    let first: &[Line<'_>] = &[(NOON_NS - 10 * DAY_NS, &old)];
    let late: &[Line<'_>] = &[(NOON_NS - 10 * DAY_NS, &new), (NOON_NS, &new)];
    store
        .write(vec![batch(0, NOON_NS - 10 * DAY_NS, first)])
        .await
        .unwrap();
    store.flush().await.unwrap();
    store.write(vec![batch(1, NOON_NS, late)]).await.unwrap();
    store.flush().await.unwrap();
    let rules = RetentionRules {
        age_max: Some(Duration::from_secs(3 * 86_400)),
        ..RetentionRules::default()
    };
    let planned = store.expire(rules.clone(), NOON_NS, true).await.unwrap();
    assert_eq!(planned.records, 1, "{planned:?}");
    assert_eq!(
        count(store, Expr::All).await,
        3,
        "a dry run changes nothing"
    );
    let done = store.expire(rules.clone(), NOON_NS, false).await.unwrap();
    assert_eq!(done.records, 1, "{done:?}");
    let left = search(store, request(everything(), 10)).await;
    assert!(
        left.records
            .iter()
            .all(|record| record.key.position != at(0))
    );
    assert_eq!(left.records.len(), 2);
    let again = store.expire(rules, NOON_NS, false).await.unwrap();
    assert_eq!(again.records, 0);
    store
        .write(vec![batch(0, NOON_NS - 10 * DAY_NS, first)])
        .await
        .unwrap();
    assert_eq!(
        count(store, Expr::All).await,
        2,
        "what is gone does not come back"
    );
}

pub async fn retention_by_source_spares_the_others(store: &dyn Store) {
    let from = |text| [("source", Str(text))];
    let (web, db, audit) = (from("web-1"), from("db"), from("audit"));
    let then = NOON_NS - 5 * DAY_NS;
    let lines: &[Line<'_>] = &[
        (then, &web),
        (then, &db),
        (then, &audit),
        (then, &[]),
        (NOON_NS, &web),
    ];
    store.write(vec![batch(0, then, lines)]).await.unwrap();
    store.flush().await.unwrap();
    let days = |count: u64| Some(Duration::from_secs(count * 86_400));
    let rules = RetentionRules {
        by_source: vec![
            ("audit".to_owned(), None),
            ("web-*".to_owned(), days(2)),
            ("*b".to_owned(), days(30)),
        ],
        age_max: days(4),
        size_bytes_max: None,
    };
    store.expire(rules, NOON_NS, false).await.unwrap();
    let left = search(store, request(everything(), 10)).await;
    let seqs: Vec<u64> = left
        .records
        .iter()
        .map(|record| record.key.position.seq)
        .collect();
    assert_eq!(seqs, [1, 2, 4]);
}

pub async fn the_version_follows_every_change(store: &dyn Store) {
    let all = TimeRange::default();
    let day = TimeRange {
        start_ns: Some(NOON_NS),
        end_ns: Some(NOON_NS + 1),
    };
    let before = (store.version(&all), store.version(&day));
    assert_eq!(
        before,
        (store.version(&all), store.version(&day)),
        "it rests when nothing changes"
    );
    let line: &[Line<'_>] = &[(NOON_NS, &[])];
    store.write(vec![batch(0, NOON_NS, line)]).await.unwrap();
    let written = (store.version(&all), store.version(&day));
    assert!(before.0 != written.0 && before.1 != written.1);
    let rules = RetentionRules {
        age_max: Some(Duration::from_secs(1)),
        ..RetentionRules::default()
    };
    store.flush().await.unwrap();
    let flushed = (store.version(&all), store.version(&day));
    let report = store
        .expire(rules, NOON_NS + 5 * DAY_NS, false)
        .await
        .unwrap();
    assert_eq!(report.records, 1);
    let expired = (store.version(&all), store.version(&day));
    assert!(flushed.0 != expired.0 && flushed.1 != expired.1);
}

pub async fn a_question_ends_when_its_time_is_over(store: &dyn Store) {
    let line: &[Line<'_>] = &[(NOON_NS, &[])];
    store.write(vec![batch(0, NOON_NS, line)]).await.unwrap();
    let late = Cancel::after(Duration::ZERO);
    let error = store
        .search(request(everything(), 1), late)
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::Timeout);
    let gone = Cancel::after(Duration::from_secs(30));
    gone.cancel();
    let error = store
        .search(request(everything(), 1), gone)
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::Cancelled);
}
