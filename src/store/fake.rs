//! A store for the tests of others: it keeps what is written, and fails on command. It answers no questions.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio::sync::watch;

use crate::common::cancel::Cancel;
use crate::common::error::{Error, ErrorKind, Result};
use crate::query::{
    FieldsAnswer, FieldsRequest, Histogram, HistogramRequest, SearchAnswer, SearchRequest,
    StatsAnswer, StatsRequest, TimeRange,
};
use crate::record::{
    Checkpoint, DeadLetter, EntryRef, Position, QueuedBatch, Record, RecordKey, ValueRef,
};
use crate::store::{
    DeadLetterPage, DeadLetterRequest, RetentionReport, RetentionRules, Store, Usage, VerifyReport,
};

/// Keeps the message of every entry by its seq, and does what messages say: `poison` is refused, `panic` panics.
pub(crate) struct FakeStore {
    entries: Mutex<BTreeMap<u64, String>>,
    searchable: watch::Sender<Checkpoint>,
    durable: watch::Sender<Checkpoint>,
    /// The next writes fail with these.
    failures: Mutex<Vec<Error>>,
    n_writes: Mutex<u32>,
}

impl FakeStore {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            entries: Mutex::default(),
            searchable: watch::Sender::default(),
            durable: watch::Sender::default(),
            failures: Mutex::default(),
            n_writes: Mutex::default(),
        })
    }

    pub fn fail_next(&self, n: usize, kind: ErrorKind) {
        let mut failures = self.failures.lock().unwrap();
        failures.extend((0..n).map(|_| Error::new(kind, "test", "on purpose")));
    }

    pub fn fail_no_more(&self) {
        self.failures.lock().unwrap().clear();
    }

    pub fn n_writes(&self) -> u32 {
        *self.n_writes.lock().unwrap()
    }

    pub fn texts(&self) -> Vec<String> {
        self.entries.lock().unwrap().values().cloned().collect()
    }
}

fn not_here<T>() -> Result<T> {
    Err(Error::internal("the fake store only writes"))
}

#[async_trait]
impl Store for FakeStore {
    async fn write(&self, batches: Vec<QueuedBatch>) -> Result<()> {
        *self.n_writes.lock().unwrap() += 1;
        let failure = self.failures.lock().unwrap().pop();
        if let Some(error) = failure {
            return Err(error);
        }
        let mut new = Vec::new();
        let mut up_to = self.searchable.borrow().clone();
        for queued in &batches {
            assert!(
                queued.first.seq <= up_to.next_seq(0),
                "a gap or a wrong order"
            );
            for (seq, entry) in (queued.first.seq..).zip(queued.batch.entries()) {
                let text = match entry {
                    EntryRef::Record(record) => match record.field("message") {
                        Some(ValueRef::Str(text)) => text.to_owned(),
                        other => panic!("{other:?}"),
                    },
                    EntryRef::DeadLetter(letter) => {
                        let raw = String::from_utf8(letter.raw.to_vec()).unwrap();
                        format!("{}: {raw}", letter.code)
                    }
                };
                assert_ne!(text, "panic", "on purpose");
                if text == "poison" {
                    return Err(Error::invalid("test", "a poison record"));
                }
                let position = Position { partition: 0, seq };
                if !up_to.covers(position) {
                    new.push((seq, text));
                    up_to.advance(0, seq + 1);
                }
            }
        }
        self.entries.lock().unwrap().extend(new);
        self.searchable.send_replace(up_to);
        Ok(())
    }

    fn searchable(&self) -> watch::Receiver<Checkpoint> {
        self.searchable.subscribe()
    }

    fn durable(&self) -> watch::Receiver<Checkpoint> {
        self.durable.subscribe()
    }

    async fn flush(&self) -> Result<()> {
        let searchable = self.searchable.borrow().clone();
        self.durable.send_replace(searchable);
        Ok(())
    }

    fn version(&self, _: &TimeRange) -> u64 {
        0
    }

    async fn search(&self, _: SearchRequest, _: Cancel) -> Result<SearchAnswer> {
        not_here()
    }

    async fn histogram(&self, _: HistogramRequest, _: Cancel) -> Result<Histogram> {
        not_here()
    }

    async fn fields(&self, _: FieldsRequest, _: Cancel) -> Result<FieldsAnswer> {
        not_here()
    }

    async fn stats(&self, _: StatsRequest, _: Cancel) -> Result<StatsAnswer> {
        not_here()
    }

    async fn get(&self, _: RecordKey, _: Cancel) -> Result<Option<Record>> {
        not_here()
    }

    async fn dead_letters(&self, _: DeadLetterRequest) -> Result<DeadLetterPage> {
        not_here()
    }

    async fn dead_letters_by_position(&self, _: Vec<Position>) -> Result<Vec<DeadLetter>> {
        not_here()
    }

    async fn delete_dead_letters(&self, _: Vec<Position>) -> Result<u64> {
        not_here()
    }

    async fn expire(&self, _: RetentionRules, _: i64, _: bool) -> Result<RetentionReport> {
        not_here()
    }

    async fn usage(&self) -> Result<Usage> {
        not_here()
    }

    async fn verify(&self) -> Result<VerifyReport> {
        not_here()
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}
