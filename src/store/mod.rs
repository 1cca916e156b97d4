//! WRITE 4 and READ 1, a boundary: where records are kept and questions are answered.
//!
//! **Contract**, held by every implementation and checked by `contract`:
//! - `write` makes all entries of the batches searchable before it returns; batches (or parts of them) whose positions are already covered are left out,
//!   so the same batch twice leaves one copy. Rows and the durable checkpoint become durable together, or neither (`durable`).
//! - No entry is refused for its shape, its types or its age. Dead-letter entries go to the dead letters.
//! - Every answer equals what `query::evaluate` says record by record, on one consistent snapshot.
//! - Every call ends soon after its `Cancel` says so.
//! - `version` changes whenever an answer about that time range could change; it may change more often. It changes after the change can be
//!   seen by a search, and before the call that made it returns.

mod answer;
#[cfg(test)]
pub mod contract;
pub mod elasticsearch;
pub mod embedded;
#[cfg(test)]
pub(crate) mod fake;
pub mod memory;
#[cfg(test)]
pub(crate) mod scenario;
#[cfg(test)]
pub mod testing;

use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::common::cancel::Cancel;
use crate::common::error::Result;
use crate::query::{
    FieldsAnswer, FieldsRequest, Histogram, HistogramRequest, SearchAnswer, SearchRequest,
    StatsAnswer, StatsRequest, TimeRange,
};
use crate::record::{Checkpoint, DeadLetter, Position, QueuedBatch, Record, RecordKey};

/// A page of dead letters, newest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeadLetterPage {
    pub letters: Vec<DeadLetter>,
    pub total: u64,
    pub has_more: bool,
}

#[derive(Clone, Debug, Default)]
pub struct DeadLetterRequest {
    /// Tokens that must all stand in reason, code, source or raw text; empty: all.
    pub q: String,
    pub limit: usize,
    /// Only letters before this position.
    pub before: Option<Position>,
}

/// What the store holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Usage {
    pub records: u64,
    pub dead_letters: u64,
    pub segments: u64,
    /// Bytes on disk, indexes included.
    pub disk_bytes: u64,
    /// Records and bytes in memory, searchable but not yet durable in the store (they are in the queue still).
    pub head_records: u64,
    pub head_bytes: u64,
    pub oldest_ns: Option<i64>,
    pub newest_ns: Option<i64>,
    /// Why the store works in a reduced way: quarantined segments, …
    pub degraded: Vec<String>,
}

/// How long records are kept. Age counts from the later of the record's time and its arrival.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RetentionRules {
    /// First match wins; `*` in a pattern is any run of characters. A `None` age keeps for ever.
    pub by_source: Vec<(String, Option<Duration>)>,
    /// For sources that no pattern matches.
    pub age_max: Option<Duration>,
    /// Oldest segments go until the store is smaller than this.
    pub size_bytes_max: Option<u64>,
}

/// What a clean-up removed, or would remove.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RetentionReport {
    pub records: u64,
    pub bytes: u64,
    pub segments_dropped: u64,
    pub segments_rewritten: u64,
    /// One line for each rule and day that something goes from: (what, records, bytes).
    pub details: Vec<(String, u64, u64)>,
}

/// What a full check of the stored bytes found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VerifyReport {
    pub segments: u64,
    pub bytes: u64,
    pub records: u64,
    /// One sentence for each fault, with file and place.
    pub faults: Vec<String>,
}

#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Returns when everything in `batches` is searchable; bounded memory: waits while a flush is behind.
    async fn write(&self, batches: Vec<QueuedBatch>) -> Result<()>;

    /// What is searchable.
    fn searchable(&self) -> watch::Receiver<Checkpoint>;

    /// What would survive a crash of this process without the queue.
    fn durable(&self) -> watch::Receiver<Checkpoint>;

    /// Told once, before the queue takes anything: it gives out positions from here on. A store that others can reach too notes it, so that it can tell
    /// records of its own queue from those of a copy. May block.
    fn positions_begin(&self, next: Position) -> Result<()> {
        let _ = next;
        Ok(())
    }

    /// Makes everything searchable durable.
    async fn flush(&self) -> Result<()>;

    fn version(&self, range: &TimeRange) -> u64;

    async fn search(&self, request: SearchRequest, cancel: Cancel) -> Result<SearchAnswer>;

    async fn histogram(&self, request: HistogramRequest, cancel: Cancel) -> Result<Histogram>;

    async fn fields(&self, request: FieldsRequest, cancel: Cancel) -> Result<FieldsAnswer>;

    async fn stats(&self, request: StatsRequest, cancel: Cancel) -> Result<StatsAnswer>;

    async fn get(&self, key: RecordKey, cancel: Cancel) -> Result<Option<Record>>;

    async fn dead_letters(&self, request: DeadLetterRequest) -> Result<DeadLetterPage>;

    /// Those that exist, in the order asked for.
    async fn dead_letters_by_position(&self, positions: Vec<Position>) -> Result<Vec<DeadLetter>>;

    /// How many of them existed and are gone for good.
    async fn delete_dead_letters(&self, positions: Vec<Position>) -> Result<u64>;

    /// Applies the rules as of `now_ns`; `dry_run` only reports.
    async fn expire(
        &self,
        rules: RetentionRules,
        now_ns: i64,
        dry_run: bool,
    ) -> Result<RetentionReport>;

    async fn usage(&self) -> Result<Usage>;

    async fn verify(&self) -> Result<VerifyReport>;

    /// Flushes and lets go of files. Idempotent.
    async fn close(&self) -> Result<()>;
}
