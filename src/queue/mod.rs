//! WRITE 2, a boundary: the durable queue between the edge and the store.
//!
//! **Contract**, held by every implementation and checked by `contract`:
//! - `append` returns `Ok` only when the batch would survive a power cut (as far as the configured durability promises it). A batch is
//!   there whole or not at all. Entries get consecutive positions in one partition, in the order of appends that were acknowledged.
//! - A full queue answers `queue_full` (`Unavailable`, with retry-after); it never waits without end.
//! - The same idempotency key and body hash within the window: nothing is stored, the first answer comes back. Another body hash: `Conflict`.
//!   Two such calls at once: the second waits for the first.
//! - `read(from)` gives what lies at or after the checkpoint, in order for each partition, whole batches (the first one is trimmed by the
//!   reader if the checkpoint lies inside it); it gives only what is durable. It waits up to `wait` when there is nothing.
//! - `release(up_to)` allows the queue to forget what is covered. What is not released is never forgotten.
//! - `subscribe` sees every batch after it became durable, in order; a slow subscriber is told that it lagged.

#[cfg(test)]
pub(crate) mod contract;
pub mod embedded;
pub mod idempotency;
pub mod memory;
mod recent;

pub use embedded::{EmbeddedQueue, EmbeddedQueueOptions};
pub use idempotency::IdempotencyOptions;
pub use memory::{MemoryQueue, MemoryQueueOptions};

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::broadcast;

use crate::common::error::{Error, Result};
use crate::record::{Batch, Checkpoint, Position, QueuedBatch};

/// What makes a retry recognisable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idempotency {
    pub key: String,
    /// xxh3-128 of the decompressed body and of the parameters that change its meaning.
    pub body_hash: u128,
    /// The answer's wire-independent part, given back on a replay.
    pub answer: Bytes,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Position of the first entry.
    pub first: Position,
    pub count: u32,
    /// `Some`: the key was known; this is the answer stored with it, and nothing was appended.
    pub replayed: Option<Bytes>,
}

/// How full the queue is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// The next position to be given out, for each partition.
    pub end: Checkpoint,
    pub released: Checkpoint,
    pub size_bytes: u64,
    pub size_bytes_max: u64,
    /// `fsync`, `interval`, `os`, `memory`, `kafka`.
    pub durability: &'static str,
    /// Set when the queue refuses everything: why.
    pub fault: Option<String>,
}

#[async_trait]
pub trait Queue: Send + Sync + 'static {
    async fn append(&self, batch: Batch, idempotency: Option<Idempotency>) -> Result<Appended>;

    async fn read(
        &self,
        from: &Checkpoint,
        max_bytes: usize,
        wait: Duration,
    ) -> Result<Vec<QueuedBatch>>;

    async fn release(&self, up_to: &Checkpoint) -> Result<()>;

    fn subscribe(&self) -> broadcast::Receiver<QueuedBatch>;

    fn backlog(&self) -> Backlog;

    /// Refuses new appends and makes everything acknowledged durable; reading and releasing go on, so that the indexer can drain.
    /// Files are let go of when the queue is dropped. Idempotent.
    async fn close(&self) -> Result<()>;
}

fn queue_full(size_bytes: u64, size_bytes_max: u64) -> Error {
    Error::unavailable(
        "queue_full",
        format!(
            "the queue holds {size_bytes} of at most {size_bytes_max} bytes that are not indexed yet; try again, or raise `queue.size_bytes_max`"
        ),
    )
}

fn stopping() -> Error {
    Error::unavailable("stopping", "the server is stopping; send the same again")
}

/// The answer to a batch without entries, which is not stored.
fn nothing_appended(first: Position) -> Appended {
    Appended {
        first,
        count: 0,
        replayed: None,
    }
}
