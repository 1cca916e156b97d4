//! The contract of the queue as tests: every implementation runs [`check_all`].
//!
//! What is appended as one batch comes back as one from queues that keep batches; Kafka keeps entries, which come back in other groups.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::broadcast::error::RecvError;

use crate::common::error::ErrorKind;
use crate::queue::{Appended, Idempotency, Queue};
use crate::record::{
    Batch, BatchBuilder, Checkpoint, EntryRef, Flags, Position, QueuedBatch, ValueRef,
};

/// What a test asks of a new, empty queue.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    pub size_bytes_max: usize,
    pub subscriber_batches_max: usize,
}

const ROOMY: Limits = Limits {
    size_bytes_max: 16 << 20,
    subscriber_batches_max: 64,
};
const NO_WAIT: Duration = Duration::ZERO;

/// What a queue keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keeps {
    Batches,
    /// Entries of concurrent batches may lie between each other, and its size is not bounded by us.
    Entries,
}

/// `new_queue` makes an empty queue with these limits, one partition, and no memory of earlier ones.
pub(crate) async fn check_all<F, Q>(keeps: Keeps, new_queue: F)
where
    F: Fn(Limits) -> Q,
    Q: Future<Output = Arc<dyn Queue>>,
{
    entries_come_back_in_order(&*new_queue(ROOMY).await).await;
    if keeps == Keeps::Batches {
        batches_come_back_whole(&*new_queue(ROOMY).await).await;
        batches_lie_one_after_the_other(new_queue(ROOMY).await).await;
    }
    reading_waits_for_news(new_queue(ROOMY).await).await;
    a_known_key_is_answered_as_before(&*new_queue(ROOMY).await).await;
    the_second_of_two_equal_requests_waits(new_queue(ROOMY).await).await;
    released_batches_are_forgotten_and_no_others(&*new_queue(ROOMY).await).await;
    subscribers_see_every_batch(&*new_queue(ROOMY).await).await;
    concurrent_appends_share_no_position(new_queue(ROOMY).await).await;
    a_closed_queue_refuses_and_is_read_on(&*new_queue(ROOMY).await).await;
    a_slow_subscriber_is_told(
        &*new_queue(Limits {
            subscriber_batches_max: 4,
            ..ROOMY
        })
        .await,
    )
    .await;
    if keeps == Keeps::Batches {
        let limits = Limits {
            size_bytes_max: 256 << 10,
            ..ROOMY
        };
        a_full_queue_says_so_until_something_is_released(&*new_queue(limits).await).await;
    }
}

/// A batch of `count` entries with `len` bytes of text each.
pub(crate) fn batch(name: &str, count: u32, len: usize) -> Batch {
    batch_at(1, name, count, len)
}

fn batch_at(arrival_ns: i64, name: &str, count: u32, len: usize) -> Batch {
    let mut builder = BatchBuilder::new(arrival_ns);
    for i in 0..count {
        let message = format!("{name} {i} {}", "x".repeat(len));
        builder.begin_record();
        builder.field("message", ValueRef::Str(&message));
        builder.end_record(i64::from(i), 3, Flags::default());
    }
    builder.finish()
}

pub(crate) fn key(name: &str, body_hash: u128) -> Option<Idempotency> {
    Some(Idempotency {
        key: name.to_owned(),
        body_hash,
        answer: Bytes::from(format!("answer to {name}")),
    })
}

pub(crate) fn from(seq: u64) -> Checkpoint {
    let mut checkpoint = Checkpoint::default();
    checkpoint.advance(0, seq);
    checkpoint
}

/// (first seq, bytes) of every batch from `seq` on.
pub(crate) async fn read_all(queue: &dyn Queue, seq: u64) -> Vec<(u64, Bytes)> {
    let mut found = Vec::new();
    let mut checkpoint = from(seq);
    loop {
        let batches = queue.read(&checkpoint, 10_000, NO_WAIT).await.unwrap();
        let Some(last) = batches.last() else {
            return found;
        };
        checkpoint.advance(0, last.next_seq());
        found.extend(batches.iter().map(summary));
    }
}

fn summary(queued: &QueuedBatch) -> (u64, Bytes) {
    (queued.first.seq, queued.batch.as_bytes().clone())
}

/// (position, message) of every entry.
pub(crate) fn entries_of(queued: &QueuedBatch) -> Vec<(Position, String)> {
    let Position { partition, seq } = queued.first;
    (seq..)
        .zip(queued.batch.entries())
        .map(|(seq, entry)| {
            let text = match entry {
                EntryRef::Record(record) => match record.field("message") {
                    Some(ValueRef::Str(text)) => text.to_owned(),
                    other => panic!("{other:?}"),
                },
                EntryRef::DeadLetter(letter) => {
                    format!("{}: {}", letter.code, String::from_utf8_lossy(letter.raw))
                }
            };
            (Position { partition, seq }, text)
        })
        .collect()
}

/// (seq, message) of every entry from `seq` on.
pub(crate) async fn read_entries(queue: &dyn Queue, seq: u64) -> Vec<(u64, String)> {
    let mut found = Vec::new();
    let mut checkpoint = from(seq);
    loop {
        let batches = queue.read(&checkpoint, 10_000, NO_WAIT).await.unwrap();
        if batches.is_empty() {
            return found;
        }
        for queued in &batches {
            assert_eq!(queued.first.partition, 0);
            let next_seq = checkpoint.next_seq(0);
            let entries = entries_of(queued).into_iter();
            // The first batch may begin before what was asked for.
            let entries = entries.map(|(position, text)| (position.seq, text));
            found.extend(entries.filter(|(at, _)| next_seq <= *at));
            checkpoint.advance(0, queued.next_seq());
        }
    }
}

fn messages(name: &str, count: u32, len: usize) -> Vec<String> {
    (0..count)
        .map(|i| format!("{name} {i} {}", "x".repeat(len)))
        .collect()
}

async fn entries_come_back_in_order(queue: &dyn Queue) {
    assert!(read_entries(queue, 0).await.is_empty());
    let mut expected = Vec::new();
    for count in [3, 1, 200, 2] {
        let seq = expected.len() as u64;
        let appended = queue.append(batch("b", count, 20), None).await.unwrap();
        let first = Position { partition: 0, seq };
        assert_eq!(appended, Appended::in_a_row(first, count));
        let texts = messages("b", count, 20).into_iter();
        expected.extend((seq..).zip(texts));
    }
    for seq in [0, 2, 3, 206, 2] {
        let rest = expected.get(seq..).unwrap_or_default();
        assert_eq!(read_entries(queue, seq as u64).await, rest, "from {seq}");
    }
    let backlog = queue.backlog();
    assert_eq!((backlog.end.next_seq(0), backlog.fault), (206, None));
    let empty = queue.append(batch("none", 0, 0), None).await.unwrap();
    assert_eq!((empty.first.seq, empty.count), (206, 0));
    assert_eq!(empty.covers, Checkpoint::default());
    assert_eq!(read_entries(queue, 0).await.len(), 206);
}

async fn batches_come_back_whole(queue: &dyn Queue) {
    let mut expected = Vec::new();
    let mut seq = 0;
    for count in [3, 1, 200, 2] {
        let batch = batch("b", count, 20);
        expected.push((seq, batch.as_bytes().clone()));
        queue.append(batch, None).await.unwrap();
        seq += u64::from(count);
    }
    assert_eq!(read_all(queue, 0).await, expected);
    // From inside a batch: that batch, whole.
    assert_eq!(read_all(queue, 2).await, expected);
    assert_eq!(read_all(queue, 3).await, expected[1..]);
    assert_eq!(read_all(queue, 206).await, []);
    // One at least, whatever its size.
    let one = queue.read(&from(0), 1, NO_WAIT).await.unwrap();
    assert_eq!(one.len(), 1);
    assert_eq!(read_all(queue, 0).await.len(), 4);
}

async fn reading_waits_for_news(queue: Arc<dyn Queue>) {
    let started = Instant::now();
    let wait = Duration::from_millis(50);
    let nothing = queue.read(&from(0), 1000, wait).await.unwrap();
    assert!(nothing.is_empty() && wait <= started.elapsed());
    let reader = tokio::spawn({
        let queue = Arc::clone(&queue);
        async move { queue.read(&from(0), 1000, Duration::from_secs(30)).await }
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    queue.append(batch("b", 1, 1), None).await.unwrap();
    assert_eq!(reader.await.unwrap().unwrap().len(), 1);
}

async fn a_known_key_is_answered_as_before(queue: &dyn Queue) {
    let first = queue.append(batch("a", 2, 9), key("k", 1)).await.unwrap();
    assert_eq!(first.replayed, None);
    let again = queue.append(batch("a", 2, 9), key("k", 1)).await.unwrap();
    assert_eq!((again.first, again.count), (first.first, 2));
    assert_eq!(again.replayed.unwrap(), "answer to k");
    let other = queue.append(batch("b", 1, 9), key("k", 2)).await;
    let error = other.unwrap_err();
    assert_eq!(
        (error.kind, error.code),
        (ErrorKind::Conflict, "idempotency_conflict")
    );
    queue
        .append(batch("a", 2, 9), key("other", 1))
        .await
        .unwrap();
    assert_eq!(read_entries(queue, 0).await.len(), 4);
}

async fn the_second_of_two_equal_requests_waits(queue: Arc<dyn Queue>) {
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let queue = Arc::clone(&queue);
            tokio::spawn(async move { queue.append(batch("a", 2, 9), key("k", 1)).await })
        })
        .collect();
    let mut n_new = 0;
    for task in tasks {
        let appended = task.await.unwrap().unwrap();
        n_new += u32::from(appended.replayed.is_none());
        assert_eq!((appended.first.seq, appended.count), (0, 2));
    }
    assert_eq!((n_new, read_entries(&*queue, 0).await.len()), (1, 2));
}

async fn released_batches_are_forgotten_and_no_others(queue: &dyn Queue) {
    for _ in 0..4 {
        queue.append(batch("b", 2, 100), None).await.unwrap();
    }
    queue.release(&from(5)).await.unwrap();
    queue.release(&from(4)).await.unwrap();
    assert_eq!(queue.backlog().released.next_seq(0), 5);
    let seqs: Vec<_> = read_entries(queue, 5)
        .await
        .iter()
        .map(|(seq, _)| *seq)
        .collect();
    assert_eq!(seqs, [5, 6, 7]);
    queue.release(&from(1000)).await.unwrap();
    assert_eq!(queue.backlog().released.next_seq(0), 8);
    assert_eq!(
        queue
            .append(batch("b", 1, 1), None)
            .await
            .unwrap()
            .first
            .seq,
        8
    );
    assert_eq!(read_entries(queue, 8).await.len(), 1);
}

async fn subscribers_see_every_batch(queue: &dyn Queue) {
    queue.append(batch("before", 1, 1), None).await.unwrap();
    let mut subscriber = queue.subscribe();
    let seam = queue.backlog().end;
    let mut expected = Vec::new();
    for i in 0..10 {
        let name = format!("b{i}");
        queue.append(batch(&name, 2, 1), None).await.unwrap();
        expected.extend(messages(&name, 2, 1));
    }
    let mut seen = Vec::new();
    while seen.len() < expected.len() {
        let received = tokio::time::timeout(Duration::from_secs(20), subscriber.recv());
        let queued = received.await.unwrap().unwrap();
        let entries = entries_of(&queued).into_iter();
        let entries = entries.filter(|(position, _)| !seam.covers(*position));
        seen.extend(entries.map(|(_, text)| text));
    }
    assert_eq!(seen, expected);
    assert!(subscriber.is_empty());
}

async fn a_slow_subscriber_is_told(queue: &dyn Queue) {
    let mut subscriber = queue.subscribe();
    for arrival_ns in 0..10 {
        // Entries of different arrivals never share a batch.
        let batch = batch_at(arrival_ns, "b", 1, 1);
        queue.append(batch, None).await.unwrap();
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    while subscriber.len() < 10 {
        assert!(Instant::now() < deadline, "{} came", subscriber.len());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(subscriber.recv().await.err(), Some(RecvError::Lagged(6)));
    assert_eq!(subscriber.recv().await.unwrap().first.seq, 6);
}

async fn concurrent_appends_share_no_position(queue: Arc<dyn Queue>) {
    let names: Vec<String> = (1..50).map(|count| format!("b{count}")).collect();
    let tasks: Vec<_> = (1..)
        .zip(names.clone())
        .map(|(count, name)| {
            let queue = Arc::clone(&queue);
            tokio::spawn(async move { queue.append(batch(&name, count, 3), None).await })
        })
        .collect();
    let mut covers = Checkpoint::default();
    for task in tasks {
        covers.advance_all(&task.await.unwrap().unwrap().covers);
    }
    let found = read_entries(&*queue, 0).await;
    assert_eq!(covers.next_seq(0), found.len() as u64);
    for (seq, (at, _)) in (0..).zip(&found) {
        assert_eq!(*at, seq);
    }
    for (count, name) in (1..).zip(&names) {
        let of_batch = found.iter().map(|(_, text)| text.clone());
        let of_batch = of_batch.filter(|text| text.starts_with(&format!("{name} ")));
        assert_eq!(of_batch.collect::<Vec<_>>(), messages(name, count, 3));
    }
}

async fn batches_lie_one_after_the_other(queue: Arc<dyn Queue>) {
    let tasks: Vec<_> = (1..50)
        .map(|count| {
            let queue = Arc::clone(&queue);
            tokio::spawn(async move { queue.append(batch("b", count, 3), None).await })
        })
        .collect();
    let mut ranges = Vec::new();
    for task in tasks {
        let appended = task.await.unwrap().unwrap();
        ranges.push((appended.first.seq, appended.count));
    }
    ranges.sort_unstable();
    let mut seq = 0;
    for (first, count) in &ranges {
        assert_eq!(*first, seq);
        seq += u64::from(*count);
    }
    let found = read_all(&*queue, 0).await;
    let firsts: Vec<_> = found.iter().map(|(seq, _)| *seq).collect();
    assert_eq!(
        firsts,
        ranges.iter().map(|(seq, _)| *seq).collect::<Vec<_>>()
    );
}

async fn a_closed_queue_refuses_and_is_read_on(queue: &dyn Queue) {
    queue.append(batch("b", 2, 1), None).await.unwrap();
    queue.close().await.unwrap();
    queue.close().await.unwrap();
    let error = queue.append(batch("b", 1, 1), None).await.unwrap_err();
    assert_eq!(
        (error.kind, error.code),
        (ErrorKind::Unavailable, "stopping")
    );
    assert_eq!(read_entries(queue, 0).await.len(), 2);
    queue.release(&from(2)).await.unwrap();
}

async fn a_full_queue_says_so_until_something_is_released(queue: &dyn Queue) {
    for _ in 0..3 {
        let error = loop {
            match queue.append(batch("b", 10, 1000), None).await {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(
            (error.kind, error.code),
            (ErrorKind::Unavailable, "queue_full")
        );
        assert!(error.retry_after_s.is_some());
        let backlog = queue.backlog();
        assert!(0 < backlog.size_bytes && backlog.size_bytes <= backlog.size_bytes_max);
        queue.release(&backlog.end).await.unwrap();
    }
    let error = queue
        .append(batch("b", 10, 100_000), None)
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind, error.code),
        (ErrorKind::TooLarge, "batch_too_large")
    );
}
