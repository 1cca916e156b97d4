//! What the disk adds to the contract: restarts, crashes, damage, full and failing disks.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use logyard_wal::sim::SimDisk;
use logyard_wal::{BlockRef, Disk, Durability, Log, LogOptions, RealDisk};

use crate::common::error::ErrorKind;
use crate::common::metrics::Metrics;
use crate::queue::contract::{Keeps, Limits, batch, check_all, from, key, read_all};
use crate::queue::embedded::{EmbeddedQueue, EmbeddedQueueOptions};
use crate::queue::{Idempotency, IdempotencyOptions, Queue};

const DIR: &str = "/queue";

fn options() -> EmbeddedQueueOptions {
    EmbeddedQueueOptions {
        log: LogOptions {
            segment_size_bytes: 4096,
            ..LogOptions::default()
        },
        recent_size_bytes_max: 2000,
        disk_check_interval: Duration::from_millis(20),
        ..EmbeddedQueueOptions::default()
    }
}

fn open(disk: &SimDisk) -> EmbeddedQueue {
    open_with(disk, options())
}

fn open_with(disk: &SimDisk, options: EmbeddedQueueOptions) -> EmbeddedQueue {
    let metrics = Arc::new(Metrics::new());
    let disk = Arc::new(disk.clone());
    EmbeddedQueue::open_blocking(disk, Path::new(DIR), options, metrics).unwrap()
}

/// About `n` segments of one-entry batches, the last `0..n` with keys `k0..`.
async fn fill(queue: &EmbeddedQueue, n: u64) {
    for i in 0..n {
        let name = format!("k{i}");
        let appended = queue.append(batch(&name, 1, 1 << 20), key(&name, 1)).await;
        assert_eq!(appended.unwrap().first.seq, i);
    }
}

async fn is_replayed(queue: &EmbeddedQueue, name: &str) -> bool {
    let appended = queue.append(batch(name, 1, 1), key(name, 1)).await.unwrap();
    appended.replayed.is_some()
}

fn segments(disk: &SimDisk) -> Vec<PathBuf> {
    let names = disk.file_names();
    let in_queue = names
        .into_iter()
        .filter(|p| p.parent() == Some(Path::new(DIR)));
    in_queue.collect()
}

#[tokio::test]
async fn the_contract_holds_on_disk() {
    check_all(Keeps::Batches, |limits: Limits| async move {
        let options = EmbeddedQueueOptions {
            log: LogOptions {
                size_bytes_max: limits.size_bytes_max as u64,
                ..LogOptions::default()
            },
            subscriber_batches_max: limits.subscriber_batches_max,
            ..options()
        };
        let queue = open_with(&SimDisk::new(), options);
        let queue: Arc<dyn Queue> = Arc::new(queue);
        queue
    })
    .await;
}

#[tokio::test]
async fn everything_is_there_after_a_restart_and_after_a_power_cut() {
    let disk = SimDisk::new();
    let queue = open(&disk);
    for count in [2, 3, 100] {
        queue.append(batch("b", count, 50), None).await.unwrap();
    }
    let before = read_all(&queue, 0).await;
    let backlog = queue.backlog();
    assert_eq!((&backlog.end, before.len()), (&from(105), 3));
    disk.crash(0);
    let old = queue;
    let queue = open(&disk);
    assert_eq!(read_all(&queue, 0).await, before);
    // What was written before the power cut, plus the mark that ends the segment.
    let after = queue.backlog();
    assert_eq!(after.size_bytes, backlog.size_bytes + 48);
    assert_eq!((after.end, after.durability), (from(105), "fsync"));
    drop(old);
    queue.close().await.unwrap();
    drop(queue);
    let queue = open(&disk);
    assert_eq!(read_all(&queue, 0).await, before);
    let appended = queue.append(batch("b", 1, 1), None).await.unwrap();
    assert_eq!(appended.first.seq, 105);
}

#[tokio::test]
async fn keys_survive_a_restart_with_their_batch_and_without() {
    let disk = SimDisk::new();
    let queue = open(&disk);
    fill(&queue, 6).await;
    queue.release(&from(4)).await.unwrap();
    assert_eq!(segments(&disk).len(), 2, "four segments are gone");
    disk.crash(0);
    let old = queue;
    let queue = open(&disk);
    for i in 0..6 {
        assert!(is_replayed(&queue, &format!("k{i}")).await, "k{i}");
    }
    assert!(!is_replayed(&queue, "new").await);
    drop((old, queue));
    // A second restart finds them again: the ledger itself is kept.
    let queue = open(&disk);
    assert!(is_replayed(&queue, "k0").await && is_replayed(&queue, "new").await);
}

#[tokio::test]
async fn keys_of_what_is_released_after_the_close_are_kept() {
    let disk = SimDisk::new();
    let queue = open(&disk);
    fill(&queue, 3).await;
    queue.close().await.unwrap();
    queue.release(&from(3)).await.unwrap();
    drop(queue);
    assert_eq!(segments(&disk).len(), 1, "two segments are gone");
    let queue = open(&disk);
    for i in 0..3 {
        assert!(is_replayed(&queue, &format!("k{i}")).await, "k{i}");
    }
}

#[tokio::test]
async fn the_ledger_lets_go_of_keys_out_of_the_window() {
    let disk = SimDisk::new();
    let options = EmbeddedQueueOptions {
        idempotency: IdempotencyOptions {
            keys_max: 2,
            ..IdempotencyOptions::default()
        },
        ..options()
    };
    let queue = open_with(&disk, options.clone());
    for i in 0..40 {
        let name = format!("k{i}");
        let with_long_answer = key(&name, 1).map(|key| Idempotency {
            answer: vec![b'x'; 200 << 10].into(),
            ..key
        });
        let batch = batch(&name, 1, 1 << 20);
        queue.append(batch, with_long_answer).await.unwrap();
        queue.release(&queue.backlog().end).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let names = disk.file_names();
    let n_kept = names
        .iter()
        .filter(|p| p.parent() == Some(Path::new("/queue/ledger")));
    assert!(n_kept.count() <= 3, "{names:?}");
    drop(queue);
    let queue = open_with(&disk, options);
    assert!(is_replayed(&queue, "k39").await && !is_replayed(&queue, "k3").await);
}

#[tokio::test]
async fn damage_in_the_middle_costs_its_batch_alone() {
    let disk = SimDisk::new();
    let queue = open(&disk);
    for name in ["a", "b", "c"] {
        queue.append(batch(name, 2, 100), None).await.unwrap();
    }
    let before = read_all(&queue, 0).await;
    queue.close().await.unwrap();
    drop(queue);
    let path = segments(&disk).remove(0);
    let mut bytes = disk.bytes(&path);
    let at = bytes.windows(3).position(|w| w == b"b 1").unwrap();
    bytes[at] ^= 1;
    disk.set_bytes(&path, &bytes);
    let queue = open(&disk);
    assert_eq!(
        read_all(&queue, 0).await,
        [before[0].clone(), before[2].clone()]
    );
    assert_eq!(read_all(&queue, 2).await, [before[2].clone()]);
    assert_eq!(queue.backlog().end, from(6));
}

#[tokio::test]
async fn what_another_version_left_is_refused_before_anything_is_added() {
    let disk = SimDisk::new();
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let (mut log, _) = Log::open(shared, Path::new(DIR), options().log, None).unwrap();
    log.append_group(&[BlockRef {
        payload: b"LYB1 and what that version has after it",
        meta: b"",
        n_entries: 3,
    }])
    .unwrap();
    drop(log);
    let open = |next_seq_min| {
        let mut options = options();
        options.log.next_seq_min = next_seq_min;
        let metrics = Arc::new(Metrics::new());
        EmbeddedQueue::open_blocking(Arc::new(disk.clone()), Path::new(DIR), options, metrics)
    };
    let refused = open(0).err().unwrap();
    assert_eq!(refused.code, "queue_of_another_version");
    // What the store has already is not needed again.
    let queue = open(3).unwrap();
    queue.append(batch("b", 1, 1), None).await.unwrap();
    let found = read_all(&queue, 3).await;
    assert_eq!(found.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), [3]);
    let read = queue.read(&from(0), 100, Duration::ZERO).await;
    assert_eq!(read.unwrap_err().code, "queue_of_another_version");
}

#[tokio::test]
async fn damage_at_the_end_does_not_block_what_comes_after() {
    let disk = SimDisk::new();
    let queue = open(&disk);
    queue.append(batch("a", 2, 100), None).await.unwrap();
    queue.close().await.unwrap();
    drop(queue);
    let path = segments(&disk).remove(0);
    let mut bytes = disk.bytes(&path);
    bytes[200] ^= 1;
    disk.set_bytes(&path, &bytes);
    let queue = open(&disk);
    assert!(read_all(&queue, 0).await.is_empty());
    queue.append(batch("b", 1, 1), None).await.unwrap();
    let found = read_all(&queue, 0).await;
    assert_eq!(found.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), [2]);
}

#[tokio::test]
async fn a_failing_disk_fails_everybody_and_loses_nothing() {
    let disk = SimDisk::new();
    let queue = open(&disk);
    queue.append(batch("a", 2, 100), None).await.unwrap();
    disk.fail_at(2, io::ErrorKind::Other);
    for _ in 0..2 {
        let failed = queue
            .append(batch("b", 1, 1), key("k", 1))
            .await
            .unwrap_err();
        assert_eq!(
            (failed.kind, failed.code),
            (ErrorKind::Unavailable, "queue_failed")
        );
    }
    assert!(queue.backlog().fault.unwrap().contains("restart"));
    assert_eq!(read_all(&queue, 0).await.len(), 1);
    drop(queue);
    disk.crash(0);
    let queue = open(&disk);
    assert_eq!(queue.backlog().fault, None);
    assert_eq!(read_all(&queue, 0).await.len(), 1);
    // Its batch never became durable, so the key is free.
    assert!(!is_replayed(&queue, "k").await);
}

#[tokio::test]
async fn a_full_disk_refuses_and_the_queue_resumes_alone() {
    for by_failed_write in [false, true] {
        let disk = SimDisk::new();
        disk.set_capacity(Some(100 << 20));
        let queue = open(&disk);
        queue.append(batch("a", 1, 100), None).await.unwrap();
        if by_failed_write {
            disk.fail_at(1, io::ErrorKind::StorageFull);
        } else {
            disk.set_other_bytes(95 << 20);
            tokio::time::sleep(Duration::from_millis(60)).await;
        }
        let error = queue.append(batch("b", 1, 1), None).await.unwrap_err();
        assert_eq!(
            (error.kind, error.code),
            (ErrorKind::Unavailable, "disk_full")
        );
        assert!(error.retry_after_s.is_some());
        disk.set_other_bytes(0);
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(queue.backlog().fault, None);
        let appended = queue.append(batch("c", 1, 1), None).await.unwrap();
        assert_eq!(appended.first.seq, 1);
        disk.crash(0);
        assert_eq!(read_all(&open(&disk), 0).await.len(), 2);
        drop(queue);
    }
}

#[tokio::test]
async fn positions_begin_where_the_store_is_when_the_directory_was_lost() {
    let mut options = options();
    options.log.next_seq_min = 500;
    let queue = open_with(&SimDisk::new(), options);
    assert_eq!(queue.backlog().end, from(500));
    let appended = queue.append(batch("a", 1, 1), None).await.unwrap();
    assert_eq!(appended.first.seq, 500);
    assert_eq!(read_all(&queue, 0).await.len(), 1);
}

#[tokio::test]
async fn weaker_durability_syncs_by_itself() {
    let disk = SimDisk::new();
    let mut options = options();
    options.log.durability = Durability::Interval(Duration::from_millis(30));
    let queue = open_with(&disk, options);
    queue.append(batch("a", 1, 1), None).await.unwrap();
    tokio::time::sleep(Duration::from_millis(120)).await;
    assert_eq!(queue.backlog().durability, "interval");
    disk.crash(0);
    assert_eq!(read_all(&open(&disk), 0).await.len(), 1);
    drop(queue);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_clients_on_the_real_disk() {
    let temp = tempfile::tempdir().unwrap();
    let open = || {
        let metrics = Arc::new(Metrics::new());
        let dir = temp.path().join("queue");
        EmbeddedQueue::open_blocking(Arc::new(RealDisk), &dir, options(), metrics)
    };
    let queue = Arc::new(open().unwrap());
    let error = open().err().unwrap();
    assert!(error.to_string().contains("another process"), "{error}");
    let clients: Vec<_> = (0..16)
        .map(|client| {
            let queue = Arc::clone(&queue);
            tokio::spawn(async move {
                for i in 0..20 {
                    let batch = batch(&format!("{client}/{i}"), 5, 100);
                    queue.append(batch, None).await.unwrap();
                }
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    let before = read_all(&*queue, 0).await;
    assert_eq!((before.len(), queue.backlog().end), (320, from(1600)));
    drop(Arc::into_inner(queue).unwrap());
    assert_eq!(read_all(&open().unwrap(), 0).await, before);
}
