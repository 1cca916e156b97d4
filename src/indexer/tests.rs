//! The indexer between the queue in memory and a store that fails on command.

use super::*;
use crate::cache::{CacheKey, CacheStats, Days, Looked, NoCache, Stamp};
use crate::common::error::ErrorKind;
use crate::queue::{MemoryQueue, MemoryQueueOptions};
use crate::record::{BatchBuilder, Flags, ValueRef};
use crate::store::fake::FakeStore;

struct Bench {
    queue: Arc<MemoryQueue>,
    store: Arc<FakeStore>,
    indexer: Indexer,
    next_seq: u64,
}

impl Bench {
    fn new() -> Self {
        let queue = Arc::new(MemoryQueue::new(MemoryQueueOptions::default()));
        let store = FakeStore::new();
        let indexer = start(&queue, &store);
        Self {
            queue,
            store,
            indexer,
            next_seq: 0,
        }
    }

    async fn append(&mut self, messages: &[&str]) {
        let mut builder = BatchBuilder::new(5);
        for message in messages {
            builder.begin_record();
            builder.field("message", ValueRef::Str(message));
            builder.field("http.status", ValueRef::Int(500));
            builder.field("http.took", ValueRef::Float(1.5));
            builder.end_record(1_000_000_000, 0, Flags::default());
        }
        let batch = builder.finish();
        self.next_seq += u64::from(batch.len());
        self.queue.append(batch, None).await.unwrap();
    }

    async fn settle(&self) {
        let mut end = Checkpoint::default();
        end.advance(0, self.next_seq);
        let limit = Duration::from_secs(20);
        let mut searchable = self.store.searchable();
        let wait = searchable.wait_for(|checkpoint| checkpoint.includes(&end));
        tokio::time::timeout(limit, wait).await.unwrap().unwrap();
    }
}

fn start(queue: &Arc<MemoryQueue>, store: &Arc<FakeStore>) -> Indexer {
    start_with(queue, store, Arc::new(NoCache))
}

fn start_with(queue: &Arc<MemoryQueue>, store: &Arc<FakeStore>, cache: Arc<dyn Cache>) -> Indexer {
    let options = IndexerOptions {
        retry_min: Duration::from_millis(1),
        retry_max: Duration::from_millis(10),
        write_interval: Duration::from_millis(10),
        ..IndexerOptions::default()
    };
    let metrics = Arc::new(Metrics::new());
    let queue: Arc<dyn Queue> = Arc::<MemoryQueue>::clone(queue);
    let store: Arc<dyn Store> = Arc::<FakeStore>::clone(store);
    Indexer::start(queue, store, cache, options, metrics)
}

#[tokio::test]
async fn what_is_queued_becomes_searchable_once_and_in_order() {
    let mut bench = Bench::new();
    let mut expected = Vec::new();
    for i in 0..200 {
        let messages = [format!("{i} a"), format!("{i} b")];
        bench.append(&messages.each_ref().map(String::as_str)).await;
        expected.extend(messages);
        if i % 50 == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    bench.settle().await;
    assert_eq!(bench.store.texts(), expected);
    let n_writes = bench.store.n_writes();
    assert!(
        n_writes < 100,
        "{n_writes} writes: nothing was put together"
    );
    assert_eq!(bench.indexer.status(), IndexerStatus::default());
}

#[tokio::test]
async fn a_failing_store_is_tried_again_until_it_works() {
    let mut bench = Bench::new();
    bench.store.fail_next(5, ErrorKind::Internal);
    bench.store.fail_next(3, ErrorKind::Unavailable);
    bench.append(&["a", "b"]).await;
    bench.settle().await;
    assert_eq!(bench.store.texts(), ["a", "b"]);
    assert_eq!(bench.indexer.status().paused, None);
}

#[tokio::test]
async fn poison_becomes_a_dead_letter_and_the_rest_goes_on() {
    let mut bench = Bench::new();
    bench.append(&["a", "poison", "b", "c", "panic"]).await;
    bench.append(&["poison"]).await;
    bench.append(&["d"]).await;
    bench.settle().await;
    let dead = |message: &str| {
        format!(
            r#"indexing_failed: {{"timestamp":"1970-01-01T00:00:01Z","message":"{message}","http":{{"status":500,"took":1.5}}}}"#
        )
    };
    let expected = [
        "a",
        &dead("poison"),
        "b",
        "c",
        &dead("panic"),
        &dead("poison"),
        "d",
    ];
    assert_eq!(bench.store.texts(), expected);
    assert_eq!(bench.indexer.status().dead_lettered, 3);
}

#[tokio::test]
async fn a_store_that_blames_everything_buries_nothing() {
    let mut bench = Bench::new();
    // Enough failures for halving down to one entry and for its dead letter, several times over.
    bench.store.fail_next(12, ErrorKind::Corrupt);
    bench.append(&["a", "b", "c", "d"]).await;
    bench.settle().await;
    assert_eq!(bench.store.texts(), ["a", "b", "c", "d"]);
    assert_eq!(bench.indexer.status().dead_lettered, 0);
}

#[tokio::test]
async fn only_what_is_durable_is_released() {
    let mut bench = Bench::new();
    bench.append(&["a", "b", "c"]).await;
    bench.settle().await;
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert_eq!(bench.queue.backlog().released.next_seq(0), 0);
    bench.store.flush().await.unwrap();
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(bench.queue.backlog().released.next_seq(0), 3);
}

#[tokio::test]
async fn stopping_drains_the_queue_and_makes_it_durable() {
    let mut bench = Bench::new();
    for _ in 0..20 {
        bench.append(&["a", "b"]).await;
    }
    bench.queue.close().await.unwrap();
    bench.indexer.stop(Duration::from_secs(10)).await.unwrap();
    bench.indexer.stop(Duration::from_secs(10)).await.unwrap();
    assert_eq!(bench.store.texts().len(), 40);
    assert_eq!(bench.queue.backlog().released.next_seq(0), 40);
    assert_eq!(bench.queue.backlog().size_bytes, 0);
}

#[tokio::test]
async fn stopping_ends_in_time_and_the_next_start_goes_on() {
    let mut bench = Bench::new();
    bench.append(&["a"]).await;
    bench.settle().await;
    bench.store.fail_next(1_000_000, ErrorKind::Unavailable);
    bench.append(&["b"]).await;
    let started = Instant::now();
    bench
        .indexer
        .stop(Duration::from_millis(100))
        .await
        .unwrap();
    assert!(started.elapsed() < Duration::from_secs(2));
    assert_eq!(bench.store.texts(), ["a"]);
    bench.store.fail_no_more();
    bench.indexer = start(&bench.queue, &bench.store);
    bench.settle().await;
    assert_eq!(bench.store.texts(), ["a", "b"]);
}

/// A cache that remembers only what it was told, and what was searchable then.
struct ToldCache {
    store: Arc<FakeStore>,
    told: Mutex<Vec<(Vec<i64>, Checkpoint)>>,
}

#[async_trait::async_trait]
impl Cache for ToldCache {
    async fn get(&self, _key: CacheKey, _days: Days) -> Looked {
        unreachable!("the indexer asks nothing")
    }

    async fn put(
        &self,
        _key: CacheKey,
        _stamp: Stamp,
        _answer: bytes::Bytes,
        _time_to_live: Duration,
    ) {
        unreachable!("the indexer answers nothing")
    }

    async fn raise(&self, days: &[i64]) {
        let searchable = self.store.searchable().borrow().clone();
        self.told.lock().unwrap().push((days.to_vec(), searchable));
    }

    fn heeds_raises(&self) -> bool {
        true
    }

    fn stats(&self) -> CacheStats {
        CacheStats::default()
    }
}

#[tokio::test]
async fn the_cache_is_told_the_days_of_a_write_after_it() {
    const DAY_NS: i64 = 86_400_000_000_000;
    let queue = Arc::new(MemoryQueue::new(MemoryQueueOptions::default()));
    let store = FakeStore::new();
    let cache = Arc::new(ToldCache {
        store: store.clone(),
        told: Mutex::default(),
    });
    let indexer = start_with(&queue, &store, cache.clone());
    let mut builder = BatchBuilder::new(5);
    for time_ns in [3 * DAY_NS, -1, 3 * DAY_NS + 1] {
        builder.begin_record();
        builder.field("message", ValueRef::Str("x"));
        builder.end_record(time_ns, 0, Flags::default());
    }
    queue.append(builder.finish(), None).await.unwrap();
    indexer.stop(Duration::from_secs(20)).await.unwrap();
    let mut end = Checkpoint::default();
    end.advance(0, 3);
    assert_eq!(*cache.told.lock().unwrap(), [(vec![-1, 3], end)]);
}
