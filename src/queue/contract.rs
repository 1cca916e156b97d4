//! The contract of the queue as tests: every implementation runs [`check_all`].

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::broadcast::error::RecvError;

use crate::common::error::ErrorKind;
use crate::queue::{Idempotency, Queue};
use crate::record::{Batch, BatchBuilder, Checkpoint, Flags, QueuedBatch, ValueRef};

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

/// `new_queue` makes an empty queue with these limits, one partition, and no memory of earlier ones.
pub(crate) async fn check_all<F, Q>(new_queue: F)
where
    F: Fn(Limits) -> Q,
    Q: Future<Output = Arc<dyn Queue>>,
{
    batches_come_back_whole_and_in_order(&*new_queue(ROOMY).await).await;
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
    a_full_queue_says_so_until_something_is_released(
        &*new_queue(Limits {
            size_bytes_max: 256 << 10,
            ..ROOMY
        })
        .await,
    )
    .await;
}

/// A batch of `count` entries with `len` bytes of text each.
pub(crate) fn batch(name: &str, count: u32, len: usize) -> Batch {
    let mut builder = BatchBuilder::new(1);
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

async fn batches_come_back_whole_and_in_order(queue: &dyn Queue) {
    assert!(read_all(queue, 0).await.is_empty());
    let mut expected = Vec::new();
    let mut seq = 0;
    for count in [3, 1, 200, 2] {
        let batch = batch("b", count, 20);
        expected.push((seq, batch.as_bytes().clone()));
        let appended = queue.append(batch, None).await.unwrap();
        assert_eq!((appended.first.partition, appended.first.seq), (0, seq));
        assert_eq!((appended.count, appended.replayed), (count, None));
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
    let backlog = queue.backlog();
    assert_eq!((backlog.end, backlog.fault), (from(206), None));
    let empty = queue.append(batch("none", 0, 0), None).await.unwrap();
    assert_eq!((empty.first.seq, empty.count), (206, 0));
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
    assert_eq!(read_all(queue, 0).await.len(), 2);
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
    assert_eq!((n_new, read_all(&*queue, 0).await.len()), (1, 1));
}

async fn released_batches_are_forgotten_and_no_others(queue: &dyn Queue) {
    for _ in 0..4 {
        queue.append(batch("b", 2, 100), None).await.unwrap();
    }
    queue.release(&from(5)).await.unwrap();
    queue.release(&from(4)).await.unwrap();
    assert_eq!(queue.backlog().released, from(5));
    // Entry 5 is in the batch at 4.
    let seqs: Vec<_> = read_all(queue, 5)
        .await
        .iter()
        .map(|(seq, _)| *seq)
        .collect();
    assert_eq!(seqs, [4, 6]);
    queue.release(&from(1000)).await.unwrap();
    assert_eq!(queue.backlog().released, from(8));
    assert_eq!(
        queue
            .append(batch("b", 1, 1), None)
            .await
            .unwrap()
            .first
            .seq,
        8
    );
    assert_eq!(read_all(queue, 8).await.len(), 1);
}

async fn subscribers_see_every_batch(queue: &dyn Queue) {
    queue.append(batch("before", 1, 1), None).await.unwrap();
    let mut subscriber = queue.subscribe();
    for _ in 0..10 {
        queue.append(batch("b", 2, 1), None).await.unwrap();
    }
    for i in 0..10 {
        assert_eq!(subscriber.recv().await.unwrap().first.seq, 1 + i * 2);
    }
    assert!(subscriber.is_empty());
}

async fn a_slow_subscriber_is_told(queue: &dyn Queue) {
    let mut subscriber = queue.subscribe();
    for _ in 0..10 {
        queue.append(batch("b", 1, 1), None).await.unwrap();
    }
    assert_eq!(subscriber.recv().await.err(), Some(RecvError::Lagged(6)));
    assert_eq!(subscriber.recv().await.unwrap().first.seq, 6);
}

async fn concurrent_appends_share_no_position(queue: Arc<dyn Queue>) {
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
    assert_eq!(read_all(queue, 0).await.len(), 1);
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
