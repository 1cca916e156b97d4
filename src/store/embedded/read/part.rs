//! A part: one head chunk or one open segment, read the same way. Columns of chosen rows come in batches; the place of a key is found
//! without reading more than a page or two.
//!
//! Rows are named by their index in the part. In a segment that order is the order of keys; in a head chunk it is not. Must not know filters.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{AsArray as _, RecordBatch};
use arrow::datatypes::{TimestampNanosecondType, UInt8Type, UInt32Type, UInt64Type};
use parquet::arrow::arrow_reader::{RowSelection, RowSelector};
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use roaring::RoaringBitmap;

use crate::common::cancel::Cancel;
use crate::common::error::{Error, Result};
use crate::query::Order;
use crate::record::{Flags, Position, RecordKey};
use crate::store::embedded::schema::{self, Columns};
use crate::store::embedded::segment::{SegmentMeta, SegmentReader};
use crate::store::embedded::snapshot::HeadChunk;

/// Rows of a batch: about a page, and a few milliseconds of work.
pub const BATCH_ROWS: usize = 8_192;
/// Text of a batch: fewer rows where rows are long.
const BATCH_BYTES: u64 = 4 << 20;

#[derive(Clone)]
pub enum Part {
    Head(Arc<HeadChunk>),
    Segment(Arc<SegmentReader>, SegmentMeta),
}

/// Some rows of some columns.
pub struct Chunk<'a> {
    /// The columns asked for, in ascending order of their index.
    pub batch: &'a RecordBatch,
    /// The row's index in the part, for each row of the batch.
    pub rows: &'a [u32],
}

impl Part {
    pub fn columns(&self) -> &Columns {
        match self {
            Self::Head(chunk) => &chunk.columns,
            Self::Segment(reader, _) => reader.columns(),
        }
    }

    pub fn n_rows(&self) -> u32 {
        match self {
            Self::Head(chunk) => u32::try_from(chunk.n_rows()).unwrap_or(u32::MAX),
            Self::Segment(_, meta) => u32::try_from(meta.n_rows).unwrap_or(u32::MAX),
        }
    }

    /// True if rows stand in the order of their keys.
    pub fn is_sorted(&self) -> bool {
        matches!(self, Self::Segment(..))
    }

    /// No row has a smaller (larger) key.
    pub fn bounds(&self) -> (RecordKey, RecordKey) {
        match self {
            Self::Head(chunk) => head_bounds(chunk),
            Self::Segment(_, meta) => (meta.min_key, meta.max_key),
        }
    }

    /// The column's array type is text and so on: its place in a batch of `columns`.
    pub fn place(columns: &[usize], index: usize) -> Option<usize> {
        columns.binary_search(&index).ok()
    }

    /// Reads `columns` (ascending, each once) of `rows`, in order of rows.
    pub fn read(
        &self,
        columns: &[usize],
        rows: &RoaringBitmap,
        cancel: &Cancel,
        visit: &mut dyn FnMut(Chunk<'_>) -> Result<()>,
    ) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        match self {
            Self::Head(chunk) => read_head(chunk, columns, rows, cancel, visit),
            Self::Segment(reader, _) => read_segment(reader, columns, rows, cancel, visit),
        }
    }

    /// The keys of `rows`, in order of rows.
    pub fn keys(&self, rows: &RoaringBitmap, cancel: &Cancel) -> Result<Vec<(RecordKey, u32)>> {
        let mut keys = Vec::with_capacity(usize::try_from(rows.len()).unwrap_or(0));
        let columns = [schema::TIMESTAMP, schema::SEQ, schema::PARTITION];
        self.read(&columns, rows, cancel, &mut |chunk| {
            let system = SystemColumns::of(chunk.batch)?;
            keys.extend(
                chunk
                    .rows
                    .iter()
                    .enumerate()
                    .filter_map(|(at, row)| Some((system.key(at)?, *row))),
            );
            Ok(())
        })?;
        Ok(keys)
    }

    /// How many rows of a segment have a key below `key`: the first row at or after it.
    pub fn lower_bound(&self, key: RecordKey, cancel: &Cancel) -> Result<u32> {
        let Self::Segment(reader, meta) = self else {
            return Err(Error::internal("the rows of the head are not sorted"));
        };
        if key <= meta.min_key {
            return Ok(0);
        }
        if meta.max_key < key {
            return Ok(self.n_rows());
        }
        let page = page_of_time(reader, key.timestamp_ns)?;
        let mut first = self.n_rows();
        let rows = RoaringBitmap::from_sorted_iter(page.clone()).unwrap_or_default();
        self.read(&[schema::TIMESTAMP], &rows, cancel, &mut |chunk| {
            let times = schema_times(chunk.batch)?;
            let before = times.partition_point(|time| *time < key.timestamp_ns);
            if let Some(row) = chunk.rows.get(before) {
                first = first.min(*row);
            }
            Ok(())
        })?;
        if key.position == Position::default() {
            return Ok(first);
        }
        // Rows of the same instant: seldom more than a few.
        let mut step = 64;
        while first < self.n_rows() {
            let end = self.n_rows().min(first.saturating_add(step));
            let rows = RoaringBitmap::from_sorted_iter(first..end).unwrap_or_default();
            let keys = self.keys(&rows, cancel)?;
            let before = keys.partition_point(|(other, _)| *other < key);
            if let Some((_, row)) = keys.get(before) {
                return Ok(*row);
            }
            first = end;
            step = (step * 4).min(65_536);
        }
        Ok(first)
    }

    /// The rows of a segment whose time lies in [start, end).
    pub fn rows_of_time(
        &self,
        start_ns: Option<i64>,
        end_ns: Option<i64>,
        cancel: &Cancel,
    ) -> Result<Range<u32>> {
        let bound = |time: Option<i64>, open: u32| {
            time.map_or(Ok(open), |timestamp_ns| {
                let position = Position::default();
                let key = RecordKey {
                    timestamp_ns,
                    position,
                };
                self.lower_bound(key, cancel)
            })
        };
        let start = bound(start_ns, 0)?;
        let end = bound(end_ns, self.n_rows())?;
        Ok(start..end.max(start))
    }

    /// The best key that any row of the part can have in `order`.
    pub fn best_key(&self, order: Order) -> RecordKey {
        let (min, max) = self.bounds();
        match order {
            Order::Descending => max,
            Order::Ascending => min,
        }
    }
}

fn head_bounds(chunk: &HeadChunk) -> (RecordKey, RecordKey) {
    let key = |timestamp_ns, partition, seq| RecordKey {
        timestamp_ns,
        position: Position { partition, seq },
    };
    (
        key(chunk.min_timestamp_ns, 0, 0),
        key(chunk.max_timestamp_ns, u32::MAX, u64::MAX),
    )
}

fn read_head(
    chunk: &HeadChunk,
    columns: &[usize],
    rows: &RoaringBitmap,
    cancel: &Cancel,
    visit: &mut dyn FnMut(Chunk<'_>) -> Result<()>,
) -> Result<()> {
    let mut iter = rows.iter();
    let mut numbers = vec![0; BATCH_ROWS.min(chunk.n_rows())];
    loop {
        cancel.check()?;
        let rows = fill(&mut numbers, &mut iter);
        if rows.is_empty() {
            return Ok(());
        }
        let batch = chunk.read(columns, rows)?;
        visit(Chunk {
            batch: &batch,
            rows,
        })?;
    }
}

/// The next rows, as many as there are places. (`next_many` of the bitmap loses count in full runs of 65,536: roaring 0.12.0.)
fn fill<'a>(places: &'a mut [u32], rows: &mut impl Iterator<Item = u32>) -> &'a [u32] {
    let mut n_filled = 0;
    for (place, row) in places.iter_mut().zip(rows) {
        *place = row;
        n_filled += 1;
    }
    places.get(..n_filled).unwrap_or_default()
}

fn read_segment(
    reader: &SegmentReader,
    columns: &[usize],
    rows: &RoaringBitmap,
    cancel: &Cancel,
    visit: &mut dyn FnMut(Chunk<'_>) -> Result<()>,
) -> Result<()> {
    let (row_groups, selection) = selection_of(reader, rows);
    let batch_rows = batch_rows(reader, columns);
    let mut iter = rows.iter();
    let mut numbers = vec![0; batch_rows];
    for batch in reader.read(columns, row_groups, selection, batch_rows)? {
        cancel.check()?;
        let batch = batch.map_err(|error| reader.error("cannot be read", error))?;
        let places = numbers.get_mut(..batch.num_rows()).unwrap_or_default();
        let rows = fill(places, &mut iter);
        if rows.len() != batch.num_rows() {
            return Err(Error::internal("a segment gave more rows than asked for"));
        }
        visit(Chunk {
            batch: &batch,
            rows,
        })?;
    }
    if iter.next().is_some() {
        return Err(Error::internal("a segment gave fewer rows than asked for"));
    }
    Ok(())
}

/// The row groups that hold `rows`, and which of their rows these are.
fn selection_of(
    reader: &SegmentReader,
    rows: &RoaringBitmap,
) -> (Vec<usize>, Option<RowSelection>) {
    let starts = reader.row_group_starts();
    let n_rows = reader.metadata().file_metadata().num_rows();
    let n_rows = u64::try_from(n_rows).unwrap_or(0);
    let mut row_groups = Vec::new();
    let mut selectors: Vec<RowSelector> = Vec::new();
    let mut is_whole = true;
    for (index, start) in starts.iter().enumerate() {
        let end = starts.get(index + 1).copied().unwrap_or(n_rows);
        let (start, end) = (row_of(*start), row_of(end));
        let mut iter = rows.range(start..end);
        let mut at = start;
        while let Some(run) = iter.next_range() {
            let (from, to) = (*run.start(), run.end() + 1);
            if row_groups.last() != Some(&index) {
                row_groups.push(index);
            }
            if at < from {
                selectors.push(RowSelector::skip((from - at) as usize));
                is_whole = false;
            }
            selectors.push(RowSelector::select((to - from) as usize));
            at = to;
        }
        if start < at && at < end {
            selectors.push(RowSelector::skip((end - at) as usize));
            is_whole = false;
        }
        if row_groups.last() == Some(&index) && at == start {
            row_groups.pop();
        }
    }
    let selection = (!is_whole).then(|| RowSelection::from(selectors));
    (row_groups, selection)
}

fn row_of(row: u64) -> u32 {
    u32::try_from(row).unwrap_or(u32::MAX)
}

fn batch_rows(reader: &SegmentReader, columns: &[usize]) -> usize {
    let metadata = reader.metadata();
    let mut bytes = 0;
    for row_group in metadata.row_groups() {
        for column in columns {
            if let Some(chunk) = row_group.columns().get(*column) {
                bytes += u64::try_from(chunk.uncompressed_size()).unwrap_or(0);
            }
        }
    }
    let n_rows = u64::try_from(metadata.file_metadata().num_rows()).unwrap_or(0);
    let row_bytes = (bytes / n_rows.max(1)).max(1);
    usize::try_from(BATCH_BYTES / row_bytes).map_or(BATCH_ROWS, |rows| rows.clamp(64, BATCH_ROWS))
}

/// The rows of the first page that reaches `timestamp_ns`.
fn page_of_time(reader: &SegmentReader, timestamp_ns: i64) -> Result<Range<u32>> {
    let metadata = reader.metadata();
    let starts = reader.row_group_starts();
    let indices = metadata.column_index().zip(metadata.offset_index());
    let (column_index, offset_index) =
        indices.ok_or_else(|| Error::corrupt("a segment has no page index"))?;
    let n_rows = u64::try_from(metadata.file_metadata().num_rows()).unwrap_or(0);
    for (group, start) in starts.iter().enumerate() {
        let end = starts.get(group + 1).copied().unwrap_or(n_rows);
        let index = column_index
            .get(group)
            .and_then(|g| g.get(schema::TIMESTAMP));
        let pages = offset_index
            .get(group)
            .and_then(|g| g.get(schema::TIMESTAMP));
        let (Some(ColumnIndexMetaData::INT64(index)), Some(pages)) = (index, pages) else {
            return Err(Error::corrupt("a segment has no page index of its time"));
        };
        let page = index
            .max_values()
            .partition_point(|max| *max < timestamp_ns);
        let locations = pages.page_locations();
        let Some(location) = locations.get(page) else {
            continue;
        };
        let row = |first: i64| row_of(start + u64::try_from(first).unwrap_or(0));
        let next = locations
            .get(page + 1)
            .map(|next| row(next.first_row_index));
        return Ok(row(location.first_row_index)..next.unwrap_or(row_of(end)));
    }
    Ok(row_of(n_rows)..row_of(n_rows))
}

fn schema_times(batch: &RecordBatch) -> Result<&[i64]> {
    batch
        .columns()
        .first()
        .and_then(|column| column.as_primitive_opt::<TimestampNanosecondType>())
        .map(|column| &**column.values())
        .ok_or_else(|| Error::corrupt("the first column is not the time"))
}

/// The system columns at the start of a batch: time, seq and partition, and the other two if they were asked for.
pub struct SystemColumns<'a> {
    pub times: &'a [i64],
    seqs: &'a [u64],
    partitions: &'a [u32],
    digits: Option<&'a [u8]>,
    flags: Option<&'a [u32]>,
}

impl<'a> SystemColumns<'a> {
    pub fn of(batch: &'a RecordBatch) -> Result<Self> {
        let column = |index: usize| batch.columns().get(index);
        let seqs = column(schema::SEQ).and_then(|c| c.as_primitive_opt::<UInt64Type>());
        let partitions = column(schema::PARTITION).and_then(|c| c.as_primitive_opt::<UInt32Type>());
        let (Some(seqs), Some(partitions)) = (seqs, partitions) else {
            return Err(Error::corrupt(
                "the system columns are not where they should be",
            ));
        };
        let digits =
            column(schema::TIMESTAMP_DIGITS).and_then(|c| c.as_primitive_opt::<UInt8Type>());
        let flags = column(schema::FLAGS).and_then(|c| c.as_primitive_opt::<UInt32Type>());
        Ok(Self {
            times: schema_times(batch)?,
            seqs: seqs.values(),
            partitions: partitions.values(),
            digits: digits.map(|column| &**column.values()),
            flags: flags.map(|column| &**column.values()),
        })
    }

    pub fn key(&self, at: usize) -> Option<RecordKey> {
        Some(RecordKey {
            timestamp_ns: *self.times.get(at)?,
            position: Position {
                partition: *self.partitions.get(at)?,
                seq: *self.seqs.get(at)?,
            },
        })
    }

    pub fn digits(&self, at: usize) -> u8 {
        self.digits.and_then(|d| d.get(at)).copied().unwrap_or(0)
    }

    pub fn flags(&self, at: usize) -> Flags {
        Flags(self.flags.and_then(|f| f.get(at)).copied().unwrap_or(0))
    }
}

/// `rows` of a part as a bitmap.
pub fn all_rows(rows: Range<u32>) -> RoaringBitmap {
    let mut all = RoaringBitmap::new();
    all.insert_range(rows);
    all
}
