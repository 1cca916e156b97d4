//! No gap and no double, on a fresh tail, a slow one and a resumed one.

use super::*;
use crate::cache::NoCache;
use crate::common::metrics::Metrics;
use crate::query::{Expr, Field, Match, Term, TimeRange};
use crate::queue::{MemoryQueue, MemoryQueueOptions, Queue as _};
use crate::record::{Batch, BatchBuilder, Flags, ValueRef};
use crate::search::SearchOptions;
use crate::store::Store as _;
use crate::store::memory::{MemoryStore, MemoryStoreOptions};

struct Rig {
    queue: Arc<MemoryQueue>,
    store: Arc<MemoryStore>,
    searcher: Arc<Searcher>,
}

impl Rig {
    fn new() -> Self {
        let options = MemoryQueueOptions {
            subscriber_batches_max: 4,
            ..MemoryQueueOptions::default()
        };
        let queue = Arc::new(MemoryQueue::new(options));
        let store = Arc::new(MemoryStore::new(MemoryStoreOptions::default()));
        let searcher = Searcher::new(
            store.clone(),
            queue.clone(),
            Arc::new(NoCache),
            Arc::new(Metrics::new()),
            SearchOptions::default(),
        );
        Self {
            queue,
            store,
            searcher: Arc::new(searcher),
        }
    }

    /// Two records, `even` and `odd`, times falling.
    async fn append(&self) {
        self.queue.append(pair(), None).await.unwrap();
    }

    /// What the indexer does.
    async fn index(&self) {
        let from = self.store.searchable().borrow().clone();
        let batches = self
            .queue
            .read(&from, usize::MAX, Duration::ZERO)
            .await
            .unwrap();
        self.store.write(batches).await.unwrap();
    }

    async fn tail(&self, filter: Expr, backfill: usize, resume: Option<&str>) -> Tail {
        let request = TailRequest {
            selection: Selection {
                range: TimeRange::default(),
                filter,
                positions: None,
            },
            backfill,
            resume: resume.map(|id| place_after(id).unwrap()),
        };
        self.searcher.tail(request).await.unwrap()
    }
}

fn pair() -> Batch {
    let mut builder = BatchBuilder::new(0);
    for text in ["even", "odd"] {
        builder.begin_record();
        builder.field("message", ValueRef::Str(text));
        builder.end_record(0, 0, Flags::default());
    }
    builder.finish()
}

fn odd() -> Expr {
    Expr::Term(Term {
        field: Field::Any,
        matcher: Match::Exact("odd".to_owned()),
    })
}

/// The next records, at least `count` of them: their positions, and the last id.
async fn take(tail: &mut Tail, count: usize) -> (Vec<u64>, String) {
    let mut seqs = Vec::new();
    let mut id = String::new();
    while seqs.len() < count {
        let next = tokio::time::timeout(Duration::from_secs(10), tail.recv());
        for told in next.await.unwrap().unwrap().unwrap() {
            seqs.push(told.record.key.position.seq);
            id = told.id;
        }
    }
    (seqs, id)
}

#[tokio::test]
async fn new_records_follow_the_backfill() {
    let rig = Rig::new();
    for _ in 0..3 {
        rig.append().await;
    }
    rig.index().await;
    let mut tail = rig.tail(odd(), 2, None).await;
    rig.append().await;
    assert_eq!(take(&mut tail, 3).await, (vec![3, 5, 7], "0-7".to_owned()));
    rig.append().await;
    rig.index().await;
    assert_eq!(take(&mut tail, 1).await.0, [9]);
    let mut without = rig.tail(Expr::All, 0, None).await;
    rig.append().await;
    assert_eq!(take(&mut without, 2).await.0, [10, 11]);
}

#[tokio::test]
async fn the_backfill_waits_for_what_is_not_indexed_yet() {
    let rig = Rig::new();
    rig.append().await;
    let mut tail = rig.tail(Expr::All, 10, None).await;
    rig.append().await;
    rig.index().await;
    assert_eq!(take(&mut tail, 4).await.0, [0, 1, 2, 3]);
}

#[tokio::test]
async fn a_slow_tail_goes_on_from_the_store() {
    let rig = Rig::new();
    let mut tail = rig.tail(Expr::All, 0, None).await;
    for _ in 0..20 {
        rig.append().await;
    }
    rig.index().await;
    rig.append().await;
    rig.index().await;
    assert_eq!(take(&mut tail, 42).await.0, (0..42).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_tail_resumes_behind_any_id() {
    let rig = Rig::new();
    let mut tail = rig.tail(Expr::All, 0, None).await;
    for _ in 0..10 {
        rig.append().await;
    }
    rig.index().await;
    assert_eq!(take(&mut tail, 20).await.0.len(), 20);
    for seen in 1..20_u64 {
        let id = format!("0-{}", seen - 1);
        let mut tail = rig.tail(Expr::All, 5, Some(&id)).await;
        let (rest, last) = take(&mut tail, 20 - usize::try_from(seen).unwrap()).await;
        assert_eq!(rest, (seen..20).collect::<Vec<_>>());
        assert_eq!(last, "0-19");
    }
    let mut beyond = rig.tail(Expr::All, 0, Some("0-999")).await;
    rig.append().await;
    let (seqs, _) = take(&mut beyond, 2).await;
    assert_eq!(seqs, [20, 21], "an id beyond the end is its end");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_doubled_while_all_move() {
    let rig = Arc::new(Rig::new());
    let mut tail = rig.tail(odd(), 3, None).await;
    let moving = tokio::spawn({
        let rig = Arc::clone(&rig);
        async move {
            for round in 0..300 {
                rig.append().await;
                if round % 7 == 0 {
                    rig.index().await;
                }
            }
            rig.index().await;
        }
    });
    let mut all = Vec::new();
    while all.len() < 300 {
        let (seqs, id) = take(&mut tail, 1).await;
        all.extend(seqs);
        if all.len() % 5 == 0 {
            tail = rig.tail(odd(), 3, Some(&id)).await;
        }
    }
    moving.await.unwrap();
    assert_eq!(all, (0..300).map(|index| 2 * index + 1).collect::<Vec<_>>());
}

#[test]
fn an_id_names_every_partition() {
    let mut next = Checkpoint::up_to(0, 5);
    assert_eq!(id_of(&next), "0-4");
    next.advance(2, 0);
    next.advance(7, 1);
    assert_eq!(id_of(&next), "0-4.2-.7-0");
    assert_eq!(place_after("0-4.2-.7-0"), Some(next));
    for bad in ["", "x", "0-1.", "0-1.x", "-", "0"] {
        assert_eq!(place_after(bad), None, "{bad}");
    }
}

/// A queue of several partitions is a queue in memory whose batches a test puts where it likes.
#[tokio::test]
async fn a_tail_over_several_partitions_resumes_in_each() {
    let store = Arc::new(MemoryStore::new(MemoryStoreOptions::default()));
    let (sender, receiver) = mpsc::channel(8);
    let searcher = Arc::new(Searcher::new(
        store.clone(),
        Arc::new(MemoryQueue::new(MemoryQueueOptions::default())),
        Arc::new(NoCache),
        Arc::new(Metrics::new()),
        SearchOptions::default(),
    ));
    let selection = Selection {
        range: TimeRange::default(),
        filter: odd(),
        positions: None,
    };
    let seam = Checkpoint([(0, 0), (1, 4)].into());
    let mut follower = Follower {
        searcher,
        compiled: Arc::new(CompiledSelection::new(&selection).unwrap()),
        selection,
        next: seam.clone(),
        told: seam,
        sender,
    };
    let mut tail: Tail = receiver;
    let mut ids = Vec::new();
    for (partition, seq) in [(1, 4), (0, 0), (1, 6)] {
        let queued = QueuedBatch {
            first: Position { partition, seq },
            batch: pair(),
        };
        store.write(vec![queued.clone()]).await.unwrap();
        assert!(follower.live(&queued).await.is_ok());
        for told in tail.recv().await.unwrap().unwrap() {
            ids.push(told.id);
        }
    }
    assert_eq!(ids, ["0-.1-5", "0-1.1-5", "0-1.1-7"]);
    // Broken off after the first: the rest comes from the store.
    follower.next = place_after(&ids[0]).unwrap();
    follower.told = follower.next.clone();
    let seam = Checkpoint([(0, 2), (1, 8)].into());
    assert!(follower.catch_up(&seam).await.is_ok());
    let (mut seen, _) = take(&mut tail, 2).await;
    seen.sort_unstable();
    assert_eq!(seen, [1, 7]);
}
