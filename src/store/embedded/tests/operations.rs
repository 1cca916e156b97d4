//! Any sequence of writes, repeats, flushes, merges, clean-ups, restarts and crashes gives what the model says.

use proptest::prelude::*;

use super::*;
use crate::store::RetentionRules;

#[derive(Clone, Debug)]
enum Operation {
    Write(u64),
    /// The last batches once more, as a queue does after a restart.
    Repeat(usize),
    Flush,
    Merge,
    /// Stop in order, start again.
    Reopen,
    /// Vanish, start again, replay from the durable checkpoint.
    Crash,
    /// Drop what is older than this many days, as of day 5; sources that begin with `k` half as long.
    Expire(i64),
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        6 => (1..40_u64).prop_map(Operation::Write),
        1 => (1..4_usize).prop_map(Operation::Repeat),
        2 => Just(Operation::Flush),
        1 => Just(Operation::Merge),
        1 => Just(Operation::Reopen),
        1 => Just(Operation::Crash),
        1 => (1..6_i64).prop_map(Operation::Expire),
    ]
}

/// The store, what should be in it, and the queue before it.
struct Bench {
    folder: tempfile::TempDir,
    store: EmbeddedStore,
    source: Source,
    queue: Vec<QueuedBatch>,
    model: Model,
}

impl Bench {
    fn new(seed: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            store: EmbeddedStore::open(folder.path(), small()).unwrap(),
            folder,
            source: Source::new(seed),
            queue: Vec::new(),
            model: Model::new(),
        }
    }

    async fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Write(n) => {
                let batch = self.source.batch(*n);
                self.model.extend(expected([&batch]));
                self.queue.push(batch.clone());
                self.store.write(vec![batch]).await.unwrap();
            }
            Operation::Repeat(n) => {
                let from = self.queue.len().saturating_sub(*n);
                self.store.write(self.queue[from..].to_vec()).await.unwrap();
            }
            Operation::Flush => self.store.flush().await.unwrap(),
            Operation::Merge => merge_all(&self.store.disk),
            Operation::Reopen => {
                self.store.close().await.unwrap();
                self.store = EmbeddedStore::open(self.folder.path(), small()).unwrap();
            }
            Operation::Crash => self.crash().await,
            Operation::Expire(days) => self.expire(*days),
        }
    }

    async fn crash(&mut self) {
        let elsewhere = tempfile::tempdir().unwrap();
        let empty = EmbeddedStore::open(elsewhere.path(), small()).unwrap();
        // Dropped without `close`: nothing in memory is written.
        drop(std::mem::replace(&mut self.store, empty));
        self.store = EmbeddedStore::open(self.folder.path(), small()).unwrap();
        self.store.write(self.queue.clone()).await.unwrap();
    }

    fn expire(&mut self, days: i64) {
        let age = |days: i64| Some(Duration::from_nanos((days * DAY_NS) as u64));
        let rules = RetentionRules {
            by_source: vec![("text 1*".to_owned(), age(days).map(|age| age / 2))],
            age_max: age(days),
            size_bytes_max: None,
        };
        let now_ns = 5 * DAY_NS;
        // Nothing else may change the segments between the dry run and the real one.
        merge_all(&self.store.disk);
        let snapshot = self.store.snapshot();
        let before = contents(&snapshot);
        drop(snapshot);
        let planned = self.store.disk.expire(&rules, now_ns, true).unwrap();
        assert_eq!(
            contents(&self.store.snapshot()),
            before,
            "a dry run changed something"
        );
        let report = self.store.disk.expire(&rules, now_ns, false).unwrap();
        let after = contents(&self.store.snapshot());
        // A flush may end between the two.
        assert!(planned.records <= report.records, "{planned:?} {report:?}");
        assert_eq!(report.records as usize, before.len() - after.len());
        assert_eq!(
            report.details.iter().map(|(_, n, _)| n).sum::<u64>(),
            report.records
        );
        for (key, (_, _, fields)) in &before {
            let is_short =
                matches!(fields.get("source"), Some(Value::Str(s)) if s.starts_with("text 1"));
            let age_ns = days * DAY_NS / if is_short { 2 } else { 1 };
            // How late a record goes is the contract's to check, on one segment: here the age of what it was merged with decides.
            let is_young = now_ns - age_ns <= key.timestamp_ns;
            let is_kept = after.contains_key(key);
            assert!(is_kept || !is_young, "too young to go: {key:?}");
        }
        self.model.clone_from(&after);
        // What went must not come back with a repeat: it is covered by the checkpoint.
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 12,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_sequence_keeps_exactly_what_was_written(
        seed in any::<u64>(),
        operations in proptest::collection::vec(operation(), 1..25),
    ) {
        run(async {
            let mut bench = Bench::new(seed);
            for operation in &operations {
                bench.apply(operation).await;
                let found = contents(&bench.store.snapshot());
                assert_eq!(found, bench.model, "after {operation:?}");
            }
            let cancel = crate::common::cancel::Cancel::after(Duration::from_secs(60));
            let report = bench.store.disk.verify(&cancel).unwrap();
            assert!(report.faults.is_empty(), "{:?}", report.faults);
        });
    }
}
