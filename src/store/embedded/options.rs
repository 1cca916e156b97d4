//! The limits of the embedded store.

use std::time::Duration;

use crate::store::embedded::columns::ColumnLimits;
use crate::store::embedded::merge::MergeOptions;
use crate::store::embedded::segment::write::SegmentOptions;
use crate::store::embedded::store::ReadOptions;

/// Memory: the head being filled and the one being flushed hold at most `2 × head_bytes_max` and what one `write` brings; a flush adds a few mebibytes
/// of one column, the segment's compressed pages (about a tenth of the head) and its token index while that is built; so does a merge, of a row group.
#[derive(Clone, Debug)]
pub struct EmbeddedStoreOptions {
    /// Rows in memory that start a flush. Default: 131,072.
    pub head_rows_max: usize,
    /// Bytes in memory that start a flush; so do texts of four times as many bytes, had each row its own. Default: 32 MiB.
    pub head_bytes_max: usize,
    /// Age of the oldest row in memory that starts a flush. Default: 5 min.
    pub head_age_max: Duration,
    pub columns: ColumnLimits,
    pub segment: SegmentOptions,
    pub merge: MergeOptions,
    /// Bytes of dead letters kept; the oldest go first. Default: 64 MiB.
    pub dead_letters_bytes_max: u64,
    /// Segments whose file stays open and whose footer stays in memory. Default: 256.
    pub segments_open_max: usize,
    /// Writes that may wait for the writer thread. Default: 16.
    pub writes_waiting_max: usize,
    /// How long a write waits for room in memory before it is refused. Default: 30 s.
    pub write_wait_max: Duration,
    pub read: ReadOptions,
}

impl Default for EmbeddedStoreOptions {
    fn default() -> Self {
        Self {
            head_rows_max: 131_072,
            head_bytes_max: 32 << 20,
            head_age_max: Duration::from_secs(300),
            columns: ColumnLimits::default(),
            segment: SegmentOptions::default(),
            merge: MergeOptions::default(),
            dead_letters_bytes_max: 64 << 20,
            segments_open_max: 256,
            writes_waiting_max: 16,
            write_wait_max: Duration::from_secs(30),
            read: ReadOptions::default(),
        }
    }
}
