//! A queue in memory, for `--in-memory`: nothing touches the disk, everything is gone with the process. Bounded in bytes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{broadcast, watch};

use crate::common::error::{Error, ErrorKind, Result};
use crate::queue::idempotency::{Claimed, IdempotencyOptions, Window, now_ms};
use crate::queue::recent::Recent;
use crate::queue::{Appended, Backlog, Idempotency, Queue, nothing_appended, queue_full, stopping};
use crate::record::{Batch, Checkpoint, Position, QueuedBatch};

#[derive(Clone, Debug)]
pub struct MemoryQueueOptions {
    /// Appends are refused beyond this. Default 64 MiB.
    pub size_bytes_max: usize,
    /// A subscriber that is this many batches behind loses the oldest and is told so. Default 1024.
    pub subscriber_batches_max: usize,
    pub idempotency: IdempotencyOptions,
}

impl Default for MemoryQueueOptions {
    fn default() -> Self {
        Self {
            size_bytes_max: 64 << 20,
            subscriber_batches_max: 1024,
            idempotency: IdempotencyOptions::default(),
        }
    }
}

pub struct MemoryQueue {
    options: MemoryQueueOptions,
    window: Arc<Window>,
    state: Mutex<State>,
    end: watch::Sender<u64>,
    subscribers: broadcast::Sender<QueuedBatch>,
}

struct State {
    batches: Recent,
    end_seq: u64,
    released: u64,
    is_closed: bool,
}

impl MemoryQueue {
    pub fn new(options: MemoryQueueOptions) -> Self {
        Self {
            window: Window::new(options.idempotency.clone()),
            state: Mutex::new(State {
                // The bound is kept by refusing, so nothing is ever pushed out.
                batches: Recent::new(usize::MAX, 0),
                end_seq: 0,
                released: 0,
                is_closed: false,
            }),
            end: watch::Sender::new(0),
            subscribers: broadcast::Sender::new(options.subscriber_batches_max.max(1)),
            options,
        }
    }

    /// Each change leaves the state whole, so a panic of another holder changes nothing.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, batch: Batch) -> Result<Position> {
        let mut state = self.lock();
        if state.is_closed {
            return Err(stopping());
        }
        let size_bytes = batch.as_bytes().len();
        if self.options.size_bytes_max < size_bytes {
            return Err(Error::new(
                ErrorKind::TooLarge,
                "batch_too_large",
                format!(
                    "a batch of {size_bytes} bytes is larger than the queue of {} bytes; send less at once",
                    self.options.size_bytes_max
                ),
            ));
        }
        if self.options.size_bytes_max < state.batches.size_bytes() + size_bytes {
            return Err(queue_full(
                state.batches.size_bytes() as u64,
                self.options.size_bytes_max as u64,
            ));
        }
        let first = Position {
            partition: 0,
            seq: state.end_seq,
        };
        let queued = QueuedBatch { first, batch };
        state.end_seq = queued.next_seq();
        state.batches.push(queued.clone());
        // The end moves first: who subscribes and then reads the end misses nothing. Under the lock, so that subscribers see the order of
        // positions. Without subscribers there is nobody to tell.
        self.end.send_replace(state.end_seq);
        let _ = self.subscribers.send(queued);
        Ok(first)
    }
}

#[async_trait]
impl Queue for MemoryQueue {
    async fn append(&self, batch: Batch, idempotency: Option<Idempotency>) -> Result<Appended> {
        if batch.is_empty() {
            let first = Position {
                partition: 0,
                seq: self.lock().end_seq,
            };
            return Ok(nothing_appended(first));
        }
        let claim = match idempotency {
            None => None,
            Some(idempotency) => match self.window.claim(idempotency).await? {
                Claimed::Replayed(appended) => return Ok(appended),
                Claimed::New(claim) => Some(claim),
            },
        };
        let count = batch.len();
        let first = self.push(batch)?;
        if let Some(claim) = claim {
            claim.complete(first, count, now_ms());
        }
        Ok(Appended::in_a_row(first, count))
    }

    async fn read(
        &self,
        from: &Checkpoint,
        max_bytes: usize,
        wait: Duration,
    ) -> Result<Vec<QueuedBatch>> {
        let seq = from.next_seq(0);
        let mut end = self.end.subscribe();
        // The sender lives as long as `self`; when the time is over there is nothing to read.
        let _ = tokio::time::timeout(wait, end.wait_for(|end| seq < *end)).await;
        let state = self.lock();
        let from = seq.max(state.released);
        Ok(state.batches.read(from, max_bytes).unwrap_or_default())
    }

    async fn release(&self, up_to: &Checkpoint) -> Result<()> {
        let mut state = self.lock();
        let seq = up_to.next_seq(0).min(state.end_seq);
        state.released = state.released.max(seq);
        state.batches.release(seq);
        Ok(())
    }

    fn subscribe(&self) -> broadcast::Receiver<QueuedBatch> {
        self.subscribers.subscribe()
    }

    fn backlog(&self) -> Backlog {
        let state = self.lock();
        let mut backlog = Backlog {
            size_bytes: state.batches.size_bytes() as u64,
            size_bytes_max: self.options.size_bytes_max as u64,
            durability: "memory",
            ..Backlog::default()
        };
        backlog.end.advance(0, state.end_seq);
        backlog.released.advance(0, state.released);
        backlog
    }

    async fn close(&self) -> Result<()> {
        self.lock().is_closed = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::contract::{Keeps, Limits, check_all};

    #[tokio::test]
    async fn the_contract_holds_in_memory() {
        check_all(Keeps::Batches, |limits: Limits| async move {
            let queue = MemoryQueue::new(MemoryQueueOptions {
                size_bytes_max: limits.size_bytes_max,
                subscriber_batches_max: limits.subscriber_batches_max,
                ..MemoryQueueOptions::default()
            });
            let queue: Arc<dyn Queue> = Arc::new(queue);
            queue
        })
        .await;
    }
}
