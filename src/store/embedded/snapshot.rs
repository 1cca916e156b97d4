//! What a question sees: one immutable, consistent view of all rows. Taking one clones a few `Arc`s.
//!
//! Each row is in exactly one head chunk or one segment of a snapshot. Segments of a snapshot stay readable for as long as it lives, even after
//! they were merged or dropped.

use std::sync::Arc;

use arrow::array::RecordBatch;

use crate::record::DeadLetter;
use crate::store::embedded::schema::Columns;
use crate::store::embedded::segment::Segment;

#[derive(Clone, Default)]
pub struct Snapshot {
    /// Rows that are only in memory and in the queue, in order of arrival.
    pub head: Vec<Arc<HeadChunk>>,
    /// Ordered by day, then by first key, then by id. Segments of one day may overlap.
    pub segments: Arc<[Arc<Segment>]>,
    /// Dead letters not yet in the catalog, in order of arrival.
    pub head_letters: Vec<Arc<[DeadLetter]>>,
    /// Why answers from this snapshot may be incomplete: one sentence for each quarantined segment.
    pub partial_reasons: Arc<[String]>,
}

/// Rows in memory. **Not sorted by time**: rows stand in order of arrival, ascending by (partition, seq) within each partition.
pub struct HeadChunk {
    pub batch: RecordBatch,
    pub columns: Arc<Columns>,
    pub min_timestamp_ns: i64,
    pub max_timestamp_ns: i64,
    /// Latest arrival of a row in it.
    pub max_arrival_ns: i64,
    /// Memory that the batch holds.
    pub size_bytes: usize,
}

impl HeadChunk {
    pub fn n_rows(&self) -> usize {
        self.batch.num_rows()
    }
}
