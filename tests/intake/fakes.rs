//! A queue and a store that keep what the handlers give them, and know nothing else.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{broadcast, watch};

use logyard::common::cancel::Cancel;
use logyard::common::error::{Error, ErrorKind, Result};
use logyard::queue::{Appended, Backlog, Idempotency, Queue};
use logyard::record::{Batch, Checkpoint, DeadLetter, Position, QueuedBatch, Record, RecordKey};
use logyard::store::{
    DeadLetterPage, DeadLetterRequest, RetentionReport, RetentionRules, Store, Usage, VerifyReport,
};

/// Body hash, answer and position of a key's first request.
type Known = HashMap<String, (u128, Bytes, Position)>;

#[derive(Default)]
pub struct FakeQueue {
    state: Mutex<(Vec<Batch>, Known)>,
}

impl FakeQueue {
    pub fn entries(&self) -> u64 {
        self.batches()
            .iter()
            .map(|batch| u64::from(batch.len()))
            .sum()
    }

    pub fn batches(&self) -> Vec<Batch> {
        self.state.lock().unwrap().0.clone()
    }
}

#[async_trait]
impl Queue for FakeQueue {
    async fn append(&self, batch: Batch, idempotency: Option<Idempotency>) -> Result<Appended> {
        let first = Position {
            partition: 0,
            seq: self.entries(),
        };
        let mut state = self.state.lock().unwrap();
        let count = batch.len();
        if let Some(idempotency) = idempotency {
            if let Some((hash, answer, first)) = state.1.get(&idempotency.key) {
                if *hash != idempotency.body_hash {
                    return Err(Error::new(
                        ErrorKind::Conflict,
                        "idempotency_conflict",
                        "other body",
                    ));
                }
                return Ok(Appended {
                    first: *first,
                    count,
                    replayed: Some(answer.clone()),
                });
            }
            let known = (idempotency.body_hash, idempotency.answer, first);
            state.1.insert(idempotency.key, known);
        }
        state.0.push(batch);
        Ok(Appended {
            first,
            count,
            replayed: None,
        })
    }

    async fn read(&self, _: &Checkpoint, _: usize, _: Duration) -> Result<Vec<QueuedBatch>> {
        Ok(Vec::new())
    }

    async fn release(&self, _: &Checkpoint) -> Result<()> {
        Ok(())
    }

    fn subscribe(&self) -> broadcast::Receiver<QueuedBatch> {
        broadcast::Sender::new(1).subscribe()
    }

    fn backlog(&self) -> Backlog {
        Backlog {
            durability: "memory",
            ..Backlog::default()
        }
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}

#[derive(Default)]
pub struct FakeStore {
    pub letters: Mutex<Vec<DeadLetter>>,
    pub searchable: watch::Sender<Checkpoint>,
}

impl FakeStore {
    pub fn positions(&self) -> Vec<u64> {
        let letters = self.letters.lock().unwrap();
        letters.iter().map(|letter| letter.position.seq).collect()
    }
}

fn not_here<T>() -> Result<T> {
    Err(Error::internal("the intake asks no such thing of a store"))
}

#[async_trait]
impl Store for FakeStore {
    fn searchable(&self) -> watch::Receiver<Checkpoint> {
        self.searchable.subscribe()
    }

    async fn dead_letters(&self, request: DeadLetterRequest) -> Result<DeadLetterPage> {
        let mut letters = self.letters.lock().unwrap().clone();
        letters.sort_by_key(|letter| std::cmp::Reverse(letter.position));
        letters.retain(|letter| request.before.is_none_or(|before| letter.position < before));
        let total = letters.len() as u64;
        let has_more = request.limit < letters.len();
        letters.truncate(request.limit);
        Ok(DeadLetterPage {
            letters,
            total,
            has_more,
        })
    }

    async fn dead_letters_by_position(&self, positions: Vec<Position>) -> Result<Vec<DeadLetter>> {
        let letters = self.letters.lock().unwrap();
        let find = |position: &Position| letters.iter().find(|l| l.position == *position).cloned();
        Ok(positions.iter().filter_map(find).collect())
    }

    async fn delete_dead_letters(&self, positions: Vec<Position>) -> Result<u64> {
        let mut letters = self.letters.lock().unwrap();
        let before = letters.len();
        letters.retain(|letter| !positions.contains(&letter.position));
        Ok((before - letters.len()) as u64)
    }

    async fn write(&self, _: Vec<QueuedBatch>) -> Result<()> {
        not_here()
    }

    fn durable(&self) -> watch::Receiver<Checkpoint> {
        self.searchable.subscribe()
    }

    async fn flush(&self) -> Result<()> {
        not_here()
    }

    fn version(&self, _: &logyard::query::TimeRange) -> u64 {
        0
    }

    async fn search(
        &self,
        _: logyard::query::SearchRequest,
        _: Cancel,
    ) -> Result<logyard::query::SearchAnswer> {
        not_here()
    }

    async fn histogram(
        &self,
        _: logyard::query::HistogramRequest,
        _: Cancel,
    ) -> Result<logyard::query::Histogram> {
        not_here()
    }

    async fn fields(
        &self,
        _: logyard::query::FieldsRequest,
        _: Cancel,
    ) -> Result<logyard::query::FieldsAnswer> {
        not_here()
    }

    async fn stats(
        &self,
        _: logyard::query::StatsRequest,
        _: Cancel,
    ) -> Result<logyard::query::StatsAnswer> {
        not_here()
    }

    async fn get(&self, _: RecordKey, _: Cancel) -> Result<Option<Record>> {
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
