//! The rows of head chunks in sorted order, column by column: what a flush writes.
//!
//! Sorting moves (timestamp, partition, seq, chunk, row) only; a column's values are gathered when its turn comes. This module must not know files.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, AsArray as _, new_null_array};
use arrow::compute::{concat, interleave};
use arrow::datatypes::{DataType, Float64Type, Int64Type, SchemaRef};
use hashbrown::{HashMap, HashSet};
use xxhash_rust::xxh3::xxh3_64;

use crate::common::error::{Error, Result};
use crate::record::value::ValueType;
use crate::store::embedded::schema::{self, SYSTEM_COLUMNS};
use crate::store::embedded::segment::write::{Outline, RowSource};
use crate::store::embedded::snapshot::HeadChunk;
use crate::store::embedded::spill;

const DAY_NS: i64 = 86_400_000_000_000;
/// From this mean length on, stretches of rows that lie together are copied as a whole instead of row by row.
const RUN_ROWS_MIN: usize = 64;
/// Rows looked at to decide on a dictionary, and how many of them in a row.
const SAMPLE_ROWS: usize = 2_048;
const SAMPLE_STRETCH_ROWS: usize = 256;

/// The UTC day of a time, in days since 1970-01-01.
pub fn day_of(timestamp_ns: i64) -> i32 {
    // 1677 to 2262 in days fits.
    i32::try_from(timestamp_ns.div_euclid(DAY_NS)).unwrap_or(0)
}

/// A row's place and sort key.
#[derive(Clone, Copy)]
struct Row {
    timestamp_ns: i64,
    seq: u64,
    partition: u32,
    chunk: u32,
    row: u32,
}

pub struct SortedRows {
    chunks: Vec<Arc<HeadChunk>>,
    schema: SchemaRef,
    /// For each column of `schema`: its index in each chunk.
    columns: Vec<Vec<Option<usize>>>,
    /// For each column of `schema`, over all rows.
    outlines: Vec<Outline>,
    rows: Vec<Row>,
    /// Stretches of `rows` that lie side by side in a chunk, in order.
    runs: Vec<Range<usize>>,
}

impl SortedRows {
    pub fn new(chunks: Vec<Arc<HeadChunk>>, columns_max: usize) -> Result<Self> {
        let chunks = spill::within(chunks, columns_max)?;
        let mut rows = Vec::with_capacity(chunks.iter().map(|chunk| chunk.n_rows()).sum());
        for (index, chunk) in chunks.iter().enumerate() {
            let timestamps = schema::timestamps(&chunk.batch)?;
            let seqs = schema::seqs(&chunk.batch)?;
            let partitions = schema::partitions(&chunk.batch)?;
            let keys = timestamps.iter().zip(seqs).zip(partitions);
            for (row, ((timestamp_ns, seq), partition)) in keys.enumerate() {
                rows.push(Row {
                    timestamp_ns: *timestamp_ns,
                    seq: *seq,
                    partition: *partition,
                    chunk: u32_of(index)?,
                    row: u32_of(row)?,
                });
            }
        }
        let key = |row: &Row| (row.timestamp_ns, row.partition, row.seq);
        if !rows.is_sorted_by_key(key) {
            rows.sort_unstable_by_key(key);
        }
        let mut start = 0;
        let runs = rows.chunk_by(|a, b| a.chunk == b.chunk && a.row + 1 == b.row);
        let runs = runs.map(|run| {
            let range = start..start + run.len();
            start = range.end;
            range
        });
        let runs = runs.collect();
        let union = Union::of(&chunks);
        let outlines = union.columns.iter();
        let outlines = outlines.map(|places| outline_of(&chunks, places));
        Ok(Self {
            schema: union.schema,
            outlines: outlines.collect(),
            columns: union.columns,
            chunks,
            rows,
            runs,
        })
    }

    /// Stretches of rows of the same UTC day.
    pub fn days(&self) -> Vec<(i32, Range<usize>)> {
        let mut start = 0;
        self.rows
            .chunk_by(|a, b| day_of(a.timestamp_ns) == day_of(b.timestamp_ns))
            .map(|rows| {
                let range = start..start + rows.len();
                start = range.end;
                (
                    rows.first().map_or(0, |row| day_of(row.timestamp_ns)),
                    range,
                )
            })
            .collect()
    }

    fn gather(&self, column: usize, rows: &Range<usize>) -> Result<ArrayRef> {
        let data_type = self.schema.field(column).data_type();
        let no_places = Vec::new();
        let places = self.columns.get(column).unwrap_or(&no_places);
        let arrays: Vec<Option<&ArrayRef>> = self
            .chunks
            .iter()
            .zip(places)
            .map(|(chunk, place)| chunk.batch.columns().get((*place)?))
            .collect();
        if arrays.iter().all(Option::is_none) {
            return Ok(new_null_array(data_type, rows.len()));
        }
        let runs = self.runs_of(rows);
        let gathered = if RUN_ROWS_MIN * runs.len() <= rows.len() {
            let pieces: Vec<ArrayRef> = runs
                .iter()
                .filter_map(|run| {
                    let range = run.start.max(rows.start)..run.end.min(rows.end);
                    let first = self.rows.get(range.start)?;
                    Some((first, range.len()))
                })
                .map(|(first, len)| match arrays.get(first.chunk as usize) {
                    Some(Some(array)) => array.slice(first.row as usize, len),
                    _ => new_null_array(data_type, len),
                })
                .collect();
            match pieces.as_slice() {
                [piece] => return Ok(Arc::clone(piece)),
                _ => concat(&pieces.iter().map(AsRef::as_ref).collect::<Vec<_>>()),
            }
        } else {
            let null = new_null_array(data_type, 1);
            let present: Vec<_> = arrays
                .iter()
                .map(|array| array.map_or(&*null, |array| &**array))
                .collect();
            let has_column: Vec<bool> = arrays.iter().map(Option::is_some).collect();
            let indices: Vec<(usize, usize)> = self
                .rows
                .get(rows.clone())
                .unwrap_or_default()
                .iter()
                .map(|row| {
                    let chunk = row.chunk as usize;
                    let is_present = has_column.get(chunk).is_some_and(|is| *is);
                    (chunk, if is_present { row.row as usize } else { 0 })
                })
                .collect();
            interleave(&present, &indices)
        };
        gathered.map_err(|error| Error::internal("cannot gather a column").with_source(error))
    }

    /// The stretches that reach into `rows`.
    fn runs_of(&self, rows: &Range<usize>) -> &[Range<usize>] {
        let first = self.runs.partition_point(|run| run.end <= rows.start);
        let end = self.runs.partition_point(|run| run.start < rows.end);
        self.runs.get(first..end).unwrap_or_default()
    }
}

impl RowSource for SortedRows {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn begin_row_group(&mut self, _rows: Range<usize>) -> Result<()> {
        Ok(())
    }

    fn column(&mut self, column: usize, rows: Range<usize>) -> Result<ArrayRef> {
        self.gather(column, &rows)
    }

    /// Of all days at once: which rows of a chunk are of which day is not looked at.
    fn outline(&self, column: usize, rows: &Range<usize>) -> Outline {
        let all = self.outlines.get(column).copied().unwrap_or_default();
        all.of_part(rows.len(), self.rows.len())
    }
}

/// The outline of a column over all chunks; `places` has its index in each.
fn outline_of(chunks: &[Arc<HeadChunk>], places: &[Option<usize>]) -> Outline {
    let mut outline = Outline::default();
    let mut sample = Sample::default();
    for (chunk, place) in chunks.iter().zip(places) {
        let array = place.and_then(|place| chunk.batch.columns().get(place));
        if let Some(array) = array {
            outline.n_values += array.len() - array.null_count();
            outline.size_bytes += values_size_bytes(array);
            sample.add(array, SAMPLE_ROWS.div_ceil(chunks.len()));
        }
    }
    outline.has_repeats = sample.has_repeats();
    outline
}

/// Hashes of some of a column's values.
#[derive(Default)]
struct Sample {
    n_values: usize,
    hashes: HashSet<u64, ahash::RandomState>,
}

impl Sample {
    /// About `n_rows` rows in stretches that lie evenly in the array.
    fn add(&mut self, array: &ArrayRef, n_rows: usize) {
        let n_stretches = n_rows.div_ceil(SAMPLE_STRETCH_ROWS).max(1);
        let stride = array.len().div_ceil(n_stretches).max(1);
        for start in (0..array.len()).step_by(stride) {
            let len = SAMPLE_STRETCH_ROWS.min(stride).min(array.len() - start);
            let stretch = array.slice(start, len);
            self.n_values += stretch.len() - stretch.null_count();
            match stretch.data_type() {
                DataType::Utf8 => {
                    let texts = stretch.as_string::<i32>().iter().flatten();
                    self.hashes
                        .extend(texts.map(|text| xxh3_64(text.as_bytes())));
                }
                DataType::Int64 => {
                    let values = stretch.as_primitive::<Int64Type>().iter().flatten();
                    self.hashes.extend(values.map(i64::cast_unsigned));
                }
                DataType::Float64 => {
                    let values = stretch.as_primitive::<Float64Type>().iter().flatten();
                    self.hashes.extend(values.map(f64::to_bits));
                }
                _ => {}
            }
        }
    }

    /// At most three distinct values for four.
    fn has_repeats(&self) -> bool {
        !self.hashes.is_empty() && self.hashes.len() * 4 <= self.n_values * 3
    }
}

fn values_size_bytes(array: &ArrayRef) -> usize {
    match array.data_type() {
        DataType::Utf8 => {
            let offsets = array.as_string::<i32>().value_offsets();
            let ends = offsets.first().zip(offsets.last());
            ends.map_or(0, |(first, last)| {
                usize::try_from(last - first).unwrap_or(0)
            })
        }
        DataType::Boolean => array.len() / 8 + 1,
        _ => (array.len() - array.null_count()) * 8,
    }
}

/// The columns of several chunks side by side.
pub struct Union {
    pub schema: SchemaRef,
    /// For each column of `schema`: its index in each chunk.
    pub columns: Vec<Vec<Option<usize>>>,
    /// Field columns, the overflow column not counted.
    pub n_fields: usize,
}

impl Union {
    pub fn of(chunks: &[Arc<HeadChunk>]) -> Self {
        let mut fields: Vec<(Arc<str>, ValueType)> = Vec::new();
        let mut places: Vec<Vec<Option<usize>>> = Vec::new();
        let mut by_key: HashMap<(Arc<str>, ValueType), usize, ahash::RandomState> =
            HashMap::default();
        for (chunk_index, chunk) in chunks.iter().enumerate() {
            for info in chunk.columns.fields() {
                let entry = by_key.entry((Arc::clone(&info.key), info.value_type));
                let column = *entry.or_insert_with(|| {
                    fields.push((Arc::clone(&info.key), info.value_type));
                    places.push(vec![None; chunks.len()]);
                    fields.len() - 1
                });
                if let Some(place) = places.get_mut(column).and_then(|p| p.get_mut(chunk_index)) {
                    *place = Some(info.index);
                }
            }
        }
        let overflow: Vec<_> = chunks
            .iter()
            .map(|chunk| chunk.columns.overflow())
            .collect();
        let has_overflow = overflow.iter().any(Option::is_some);
        let schema = schema::schema_of(
            fields.iter().map(|(key, value_type)| (&**key, *value_type)),
            has_overflow,
        );
        let mut columns: Vec<Vec<Option<usize>>> = (0..SYSTEM_COLUMNS.len())
            .map(|index| vec![Some(index); chunks.len()])
            .collect();
        columns.append(&mut places);
        if has_overflow {
            columns.push(overflow);
        }
        Self {
            schema: Arc::new(schema),
            columns,
            n_fields: fields.len(),
        }
    }
}

fn u32_of(index: usize) -> Result<u32> {
    u32::try_from(index).map_err(|_| Error::internal("a head of 4 billion rows"))
}
