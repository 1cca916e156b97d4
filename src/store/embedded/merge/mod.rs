//! Background merges: many small segments of a day become one, so that questions open few files.
//!
//! **Policy.** Segments of a day are sorted into tiers by row count, each tier eight times the one before. Eight or more segments of one tier are merged,
//! in the order of time, up to `rows_max` rows and `size_bytes_max` bytes. A full head makes segments of one tier below the limit, so at full load each row
//! is written twice in all: once by the flush, once by a merge. Small flushes climb more tiers, at little cost.
//!
//! A merge costs as much as the flushes before it. So while heads are flushed one after the other, it waits for a pause, or until there are 64 segments or
//! as many as one may hold: a burst is not slowed, questions never open many files for long, and nothing is rewritten more often than it would be.
//!
//! One merge at a time, on the thread `store-merge` at low priority. It stops within one column's work when the store closes or retention needs the
//! segments; nothing has changed then. The swap is one transaction of the catalog.

pub mod source;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use arrow::array::BooleanArray;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use parking_lot::Mutex;

use crate::common::error::{Error, ErrorKind, Result};
use crate::store::embedded::catalog::Change;
use crate::store::embedded::disk::{Disk, sync_folder};
use crate::store::embedded::merge::source::MergedRows;
use crate::store::embedded::segment::write::{NewSegment, write_segment};
use crate::store::embedded::segment::{Segment, SegmentMeta, SegmentReader};

const TIER_FACTOR: u64 = 8;
/// After a failure, or when there was nothing to do.
const PAUSE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MergeOptions {
    /// Segments of one tier that start a merge. Default: 8.
    pub segments_min: usize,
    /// The same while heads are being flushed one after the other. Default: 64.
    pub segments_busy_min: usize,
    /// So long after a flush the next one is no longer expected at once. Default: 5 s.
    pub busy_after_flush: Duration,
    /// Segments merged at a time. Default: 64.
    pub segments_max: usize,
    /// Rows of a merged segment. Default: 4 Mi.
    pub rows_max: u64,
    /// Bytes on disk of a merged segment. Default: 1 GiB.
    pub size_bytes_max: u64,
    /// Bytes of text, uncompressed, in a row group of a merged segment: bounds the memory of a merge. Default: 64 MiB.
    pub row_group_bytes_max: u64,
}

impl Default for MergeOptions {
    fn default() -> Self {
        Self {
            segments_min: 8,
            segments_busy_min: 64,
            busy_after_flush: Duration::from_secs(5),
            segments_max: 64,
            rows_max: 4 << 20,
            size_bytes_max: 1 << 30,
            row_group_bytes_max: 64 << 20,
        }
    }
}

/// Who may change existing segments: one merge or one clean-up at a time, and a clean-up comes first.
#[derive(Default)]
pub struct Turn {
    lock: Mutex<()>,
    is_closing: AtomicBool,
    n_urgent: AtomicUsize,
}

impl Turn {
    /// For retention: a running merge gives way.
    pub fn urgent<R>(&self, work: impl FnOnce() -> R) -> R {
        self.n_urgent.fetch_add(1, Ordering::SeqCst);
        let guard = self.lock.lock();
        self.n_urgent.fetch_sub(1, Ordering::SeqCst);
        let result = work();
        drop(guard);
        result
    }

    pub fn close(&self) {
        self.is_closing.store(true, Ordering::SeqCst);
    }

    /// For merges: an error when the store closes or retention waits.
    fn check(&self) -> Result<()> {
        self.check_open()?;
        if 0 < self.n_urgent.load(Ordering::SeqCst) {
            return Err(stopped());
        }
        Ok(())
    }

    /// An error when the store closes.
    pub fn check_open(&self) -> Result<()> {
        if self.is_closing.load(Ordering::SeqCst) {
            return Err(stopped());
        }
        Ok(())
    }
}

fn stopped() -> Error {
    let what = "the rewriting of segments was stopped; nothing has changed";
    Error::new(ErrorKind::Cancelled, "store_closing", what)
}

/// Starts the merge thread. `wake` says that there is a new segment.
pub fn start(disk: Arc<Disk>, wake: Receiver<()>) -> Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name("store-merge".to_owned())
        .spawn(move || {
            // Without the lower priority merges are as correct, just more noticeable.
            let _ = rustix::process::nice(10);
            let options = disk.options.merge;
            // What the last run left may be mergeable.
            let mut is_pause_awaited = true;
            loop {
                let wait = match is_pause_awaited {
                    true => options.busy_after_flush,
                    false => PAUSE,
                };
                match wake.recv_timeout(wait) {
                    Ok(()) => {
                        is_pause_awaited = true;
                        merge_tiers(&disk, options.segments_busy_min);
                    }
                    Err(RecvTimeoutError::Timeout) => {
                        is_pause_awaited = false;
                        merge_all(&disk);
                    }
                    Err(RecvTimeoutError::Disconnected) => break,
                }
            }
        })
        .map_err(|error| Error::internal("cannot start a thread").with_source(error))
}

/// Merges until no tier is full.
pub fn merge_all(disk: &Disk) {
    merge_tiers(disk, disk.options.merge.segments_min);
}

/// Merges until no tier has `segments_min` segments, or as many as one may hold.
fn merge_tiers(disk: &Disk, segments_min: usize) {
    loop {
        let guard = disk.turn.lock.lock();
        let result = disk
            .turn
            .check()
            .and_then(|()| disk.merge_once(segments_min));
        drop(guard);
        match result {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) if error.kind == ErrorKind::Cancelled => break,
            Err(error) => {
                tracing::warn!(%error, "a merge of segments failed; it will be tried again");
                break;
            }
        }
    }
}

impl Disk {
    /// Merges one group of segments, if there is one to merge. The caller holds the turn.
    fn merge_once(&self, segments_min: usize) -> Result<bool> {
        let snapshot = self.view.snapshot();
        let options = &self.options.merge;
        let Some(group) = plan(&snapshot.segments, segments_min, options) else {
            return Ok(false);
        };
        drop(snapshot);
        let inputs: Vec<_> = group.into_iter().map(|segment| (segment, None)).collect();
        self.rewrite(&inputs, &mut || self.turn.check())?;
        Ok(true)
    }

    /// Puts one segment in the place of several of the same day, with the rows that stay. Returns it; `None` if no row stays. The caller
    /// holds the turn.
    pub fn rewrite(
        &self,
        inputs: &[(Arc<Segment>, Option<BooleanArray>)],
        check: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Option<SegmentMeta>> {
        let removed: Vec<u64> = inputs.iter().map(|(segment, _)| segment.meta.id).collect();
        let mut readers = Vec::with_capacity(inputs.len());
        let mut n_rows = 0;
        for (segment, keep) in inputs {
            n_rows += match keep {
                Some(keep) => keep.true_count(),
                None => usize::try_from(segment.meta.n_rows).unwrap_or(0),
            };
            readers.push((segment.open()?, keep.clone()));
        }
        let mut written = Vec::new();
        if 0 < n_rows {
            written.push(self.write_merged(inputs, readers, n_rows, check)?);
        }
        sync_folder(self.segments_folder())
            .and_then(|()| self.point("merge_before_commit"))
            .inspect_err(|_| self.remove_files(&written))?;
        // After a failed commit nobody knows whether the file counts; the next start does.
        self.catalog.commit(&Change {
            add: &written,
            remove: &removed,
            ..Change::default()
        })?;
        self.point("merge_after_commit")?;
        self.view.replace(&removed, &written);
        Ok(written.pop())
    }

    fn write_merged(
        &self,
        inputs: &[(Arc<Segment>, Option<BooleanArray>)],
        readers: Vec<(Arc<SegmentReader>, Option<BooleanArray>)>,
        n_rows: usize,
        check: &mut dyn FnMut() -> Result<()>,
    ) -> Result<SegmentMeta> {
        let bytes_per_row = readers
            .iter()
            .map(|(reader, _)| text_bytes_per_row(reader))
            .max();
        let row_group_rows =
            self.options.merge.row_group_bytes_max / bytes_per_row.unwrap_or(1).max(1);
        let mut rows = MergedRows::new(readers, self.options.columns.columns_max)?;
        let arrivals = inputs
            .iter()
            .map(|(segment, _)| segment.meta.max_arrival_ns);
        let new = NewSegment {
            folder: self.segments_folder(),
            id: self.next_segment_id(),
            day: inputs.first().map_or(0, |(segment, _)| segment.meta.day),
            rows: 0..n_rows,
            max_arrival_ns: arrivals.max().unwrap_or(i64::MIN),
            row_group_rows: usize::try_from(row_group_rows)
                .unwrap_or(usize::MAX)
                .max(1_024),
        };
        let mut check = || {
            self.point("merge_column")?;
            check()
        };
        write_segment(&new, &mut rows, &self.options.segment, &mut check)
    }
}

/// The segments to merge next, in order of time; `None` if no tier of any day has `segments_min` of them, or as many as one segment may hold if those are
/// `options.segments_min`.
fn plan(
    segments: &[Arc<Segment>],
    segments_min: usize,
    options: &MergeOptions,
) -> Option<Vec<Arc<Segment>>> {
    let mut tiers: BTreeMap<(i32, u32), Vec<&Arc<Segment>>> = BTreeMap::new();
    for segment in segments {
        let meta = &segment.meta;
        // One that can take no second of its size is done.
        let is_small =
            meta.n_rows <= options.rows_max / 2 && meta.size_bytes <= options.size_bytes_max / 2;
        if is_small {
            let tier = meta.n_rows.max(1).ilog(TIER_FACTOR);
            tiers.entry((meta.day, tier)).or_default().push(segment);
        }
    }
    // The smallest first: they cost least and help most.
    let mut tiers: Vec<_> = tiers.into_iter().collect();
    tiers.sort_by_key(|((_, tier), _)| *tier);
    for (_, tier) in tiers {
        let (mut n_rows, mut n_bytes) = (0, 0);
        let n_segments = tier.len();
        let group: Vec<_> = tier
            .into_iter()
            .take(options.segments_max)
            .take_while(|segment| {
                n_rows += segment.meta.n_rows;
                n_bytes += segment.meta.size_bytes;
                n_rows <= options.rows_max && n_bytes <= options.size_bytes_max
            })
            .collect();
        let is_full = group.len() < n_segments && options.segments_min <= group.len();
        if 2 <= group.len() && (segments_min <= group.len() || is_full) {
            return Some(group.into_iter().map(Arc::clone).collect());
        }
    }
    None
}

/// Uncompressed text of a row, on average over the segment's widest row group.
fn text_bytes_per_row(reader: &SegmentReader) -> u64 {
    let row_groups = reader.metadata().row_groups();
    let per_row = row_groups.iter().map(|row_group| {
        let sizes = row_group.columns().iter();
        let sizes = sizes.filter_map(|chunk| chunk.unencoded_byte_array_data_bytes());
        sizes.sum::<i64>() / row_group.num_rows().max(1)
    });
    u64::try_from(per_row.max().unwrap_or(0)).unwrap_or(0)
}
