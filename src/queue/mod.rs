//! WRITE 2, a boundary: the durable queue between the edge and the store.
//!
//! **Contract**, held by every implementation and checked by `contract`:
//! - `append` returns `Ok` only when the batch would survive a power cut (as far as the configured durability promises it). On this machine
//!   a batch is there whole or not at all, and its entries get consecutive positions in one partition. Kafka spreads a batch over
//!   partitions by source, and can end with a part of it written: the error says so (`outcome_unknown`, `partly_stored`), and never
//!   `Ok`. Within a partition the entries of a batch keep their order.
//! - [`Appended::covers`] is what a store must have made searchable for the whole batch to be found.
//! - A full queue answers `queue_full` (`Unavailable`, with retry-after); it never waits without end.
//! - The same idempotency key and body hash within the window: nothing is stored, the first answer comes back. Another body hash: `Conflict`.
//!   Two such calls at once: the second waits for the first.
//! - `read(from)` gives what lies at or after the checkpoint, in order for each partition, each batch consecutive positions of one
//!   partition (the first one is trimmed by the reader if the checkpoint lies inside it); it gives only what is durable. It waits up to
//!   `wait` when there is nothing. Kafka regroups the entries: its batches are not those appended. A batch without entries at a position
//!   says that nothing to store lies before it: it moves the store's checkpoint there.
//! - Indexers that share a queue (Kafka's consumer group) are given different partitions; `read` then begins a partition where it was
//!   released or where `from` is, whichever is later.
//! - `release(up_to)` allows the queue to forget what is covered. What is not released is never forgotten (by Kafka: within its retention).
//! - `subscribe` sees every batch after it became durable, in order for each partition; a slow subscriber is told that it lagged. Who
//!   subscribes and then reads `backlog().end` is given everything from that mark on.

#[cfg(test)]
pub(crate) mod contract;
pub mod embedded;
pub mod idempotency;
pub mod kafka;
pub mod memory;
mod recent;

pub use embedded::{EmbeddedQueue, EmbeddedQueueOptions};
pub use idempotency::IdempotencyOptions;
pub use kafka::{KafkaQueue, KafkaQueueOptions};
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
    /// For each partition touched the `seq` after the batch's last entry there.
    pub covers: Checkpoint,
    /// `Some`: the key was known; this is the answer stored with it, and nothing was appended.
    pub replayed: Option<Bytes>,
}

impl Appended {
    /// Entries one after the other in one partition.
    fn in_a_row(first: Position, count: u32) -> Self {
        Self {
            first,
            count,
            covers: Checkpoint::up_to(first.partition, first.seq + u64::from(count)),
            replayed: None,
        }
    }
}

/// How full the queue is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// The next position to be given out, for each partition.
    pub end: Checkpoint,
    pub released: Checkpoint,
    /// 0 for Kafka: what lies there is not ours alone.
    pub size_bytes: u64,
    /// 0: no limit of ours.
    pub size_bytes_max: u64,
    /// `fsync`, `interval`, `os`, `memory`, `kafka`.
    pub durability: &'static str,
    /// Set when the queue refuses everything: why.
    pub fault: Option<String>,
    /// Why it promises less than it could.
    pub degraded: Vec<String>,
    /// Other processes index from it too: what this one leaves, they take.
    pub is_shared: bool,
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

    /// Tells other readers of the queue of a record that the store could not take and that is a dead letter in its place now. Only Kafka has
    /// other readers.
    async fn note_poison(&self, _letter: &QueuedBatch) -> Result<()> {
        Ok(())
    }

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
        covers: Checkpoint::default(),
        ..Appended::in_a_row(first, 0)
    }
}
