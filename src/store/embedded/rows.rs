//! The rows of head chunks in sorted order, day by day and column by column: what a flush writes.
//!
//! Sorting moves (timestamp, partition, seq, chunk, row) only; a column's values are gathered when its turn comes. Where they repeat, each distinct
//! value gets a number for the whole head, so that texts are compared once for each batch that has them. This module must not know files.

use std::hash::Hash;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array as _, ArrayRef, AsArray as _, Float64Array, Int64Array, StringArray, UInt32Array,
    new_null_array,
};
use arrow::compute::{interleave, take};
use arrow::datatypes::{DataType, Float64Type, Int64Type, SchemaRef};
use arrow::error::ArrowError;
use hashbrown::HashMap;

use crate::common::error::{Error, Result};
use crate::record::value::ValueType;
use crate::store::embedded::schema::{self, SYSTEM_COLUMNS};
use crate::store::embedded::segment::index::is_too_many;
use crate::store::embedded::segment::write::{NO_VALUE, Outline, RowSource, Words};
use crate::store::embedded::snapshot::{HeadChunk, HeadColumn};
use crate::store::embedded::spill;

const DAY_NS: i64 = 86_400_000_000_000;
/// Values after which to look whether those that batches hold once repeat from batch to batch.
const TRIAL_VALUES: usize = 1_024;

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
    /// For each column of `schema` after those of the system.
    fields: Vec<FieldRows>,
    rows: Vec<Row>,
    /// For each row of each chunk its place in `rows`.
    places: Vec<Vec<u32>>,
}

/// What is known of a field's column over all chunks.
#[derive(Default)]
struct FieldRows {
    outline: Outline,
    /// The distinct values and, for each chunk, the number of each of its values among them; `None` where values do not repeat.
    words: Option<(ArrayRef, Vec<Vec<u32>>)>,
}

impl SortedRows {
    pub fn new(chunks: Vec<Arc<HeadChunk>>, columns_max: usize) -> Result<Self> {
        let chunks = spill::within(chunks, columns_max)?;
        let mut rows = Vec::with_capacity(chunks.iter().map(|chunk| chunk.n_rows()).sum());
        for (index, chunk) in chunks.iter().enumerate() {
            let timestamps = schema::timestamps(&chunk.system)?;
            let seqs = schema::seqs(&chunk.system)?;
            let partitions = schema::partitions(&chunk.system)?;
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
        let mut places: Vec<Vec<u32>> =
            chunks.iter().map(|chunk| vec![0; chunk.n_rows()]).collect();
        u32_of(rows.len())?;
        for (sorted, row) in (0..).zip(&rows) {
            let of_chunk = places.get_mut(row.chunk as usize);
            if let Some(place) = of_chunk.and_then(|places| places.get_mut(row.row as usize)) {
                *place = sorted;
            }
        }
        let union = Union::of(&chunks);
        let fields = union.columns.iter().skip(SYSTEM_COLUMNS.len());
        let fields = fields.map(|indices| field_rows(&columns_of(&chunks, indices)));
        Ok(Self {
            fields: fields.collect(),
            schema: union.schema,
            columns: union.columns,
            chunks,
            rows,
            places,
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

    /// Some of the rows with the columns that they have.
    pub fn part(&self, rows: &Range<usize>) -> Result<PartRows<'_>> {
        let mut spans: Vec<Range<u32>> = vec![0..0; self.chunks.len()];
        for row in self.rows.get(rows.clone()).unwrap_or_default() {
            if let Some(span) = spans.get_mut(row.chunk as usize) {
                if span.start == span.end {
                    *span = row.row..row.row + 1;
                }
                span.start = span.start.min(row.row);
                span.end = span.end.max(row.row + 1);
            }
        }
        let has_values = |column: &usize| {
            let places = self.columns.get(*column).into_iter().flatten();
            let mut parts = self.chunks.iter().zip(places).zip(&spans);
            parts.any(|((chunk, place), span)| {
                *column < SYSTEM_COLUMNS.len()
                    || place
                        .and_then(|at| chunk.field(at))
                        .is_some_and(|field| 0 < field.n_in_rows(span))
            })
        };
        let columns: Vec<usize> = (0..self.columns.len()).filter(has_values).collect();
        let schema = self.schema.project(&columns).map_err(gather_failed)?;
        Ok(PartRows {
            all: self,
            schema: Arc::new(schema),
            columns,
            spans,
            row_group: 0..0,
            gathered: None,
        })
    }
}

/// Rows of a [`SortedRows`] that go to one segment.
pub struct PartRows<'a> {
    all: &'a SortedRows,
    schema: SchemaRef,
    /// For each column of `schema`: its index among all.
    columns: Vec<usize>,
    /// For each chunk, where the part's rows in it lie, and maybe others between them.
    spans: Vec<Range<u32>>,
    row_group: Range<usize>,
    gathered: Option<Gathered>,
}

/// For each row of the row group, where a column's value is: (chunk, number), or (number of chunks, 0).
struct Gathered {
    column: usize,
    sources: Vec<ArrayRef>,
    places: Vec<(usize, usize)>,
}

impl PartRows<'_> {
    /// Calls `visit(row, chunk, number)` with each value of a field's column in `rows`; `row` counts from their start.
    fn each_value(
        &self,
        column: usize,
        rows: &Range<usize>,
        mut visit: impl FnMut(usize, usize, u32),
    ) {
        let all = self.all;
        let chunks = all
            .columns
            .get(column)
            .map(|indices| columns_of(&all.chunks, indices));
        let chunks = chunks.unwrap_or_default().into_iter().enumerate();
        for (((chunk, field), span), places) in chunks.zip(&self.spans).zip(&all.places) {
            let Some(field) = field else { continue };
            for (row, number) in field.in_rows(span.clone()) {
                let place = places
                    .get(row as usize)
                    .map_or(usize::MAX, |place| *place as usize);
                if rows.contains(&place) {
                    visit(place - rows.start, chunk, number);
                }
            }
        }
    }

    fn gather(&self, column: usize) -> Gathered {
        let all = self.all;
        let n_chunks = all.chunks.len();
        let mut sources: Vec<ArrayRef> = Vec::with_capacity(n_chunks + 1);
        let data_type = all.schema.field(column).data_type();
        let mut places = vec![(n_chunks, 0); self.row_group.len()];
        if column < SYSTEM_COLUMNS.len() {
            sources.extend(
                all.chunks
                    .iter()
                    .filter_map(|chunk| chunk.system.columns().get(column))
                    .cloned(),
            );
            let rows = all.rows.get(self.row_group.clone()).unwrap_or_default();
            for (place, row) in places.iter_mut().zip(rows) {
                *place = (row.chunk as usize, row.row as usize);
            }
        } else {
            let indices = all.columns.get(column).map_or(&[][..], Vec::as_slice);
            sources.extend(columns_of(&all.chunks, indices).into_iter().map(|field| {
                field.map_or_else(
                    || new_null_array(data_type, 0),
                    |field| Arc::clone(&field.values),
                )
            }));
            self.each_value(column, &self.row_group, |row, chunk, number| {
                if let Some(place) = places.get_mut(row) {
                    *place = (chunk, number as usize);
                }
            });
        }
        sources.push(new_null_array(data_type, 1));
        Gathered {
            column,
            sources,
            places,
        }
    }
}

impl RowSource for PartRows<'_> {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn begin_row_group(&mut self, rows: Range<usize>) -> Result<()> {
        self.row_group = rows;
        self.gathered = None;
        Ok(())
    }

    fn column(&mut self, column: usize, rows: Range<usize>) -> Result<ArrayRef> {
        let column = self.columns.get(column).copied().unwrap_or(usize::MAX);
        let gathered = match self
            .gathered
            .take()
            .filter(|gathered| gathered.column == column)
        {
            Some(gathered) => gathered,
            None => self.gather(column),
        };
        let start = rows.start.saturating_sub(self.row_group.start);
        let places = gathered
            .places
            .get(start..start + rows.len())
            .unwrap_or_default();
        let sources: Vec<_> = gathered.sources.iter().map(AsRef::as_ref).collect();
        let values = interleave(&sources, places).map_err(gather_failed)?;
        self.gathered = Some(gathered);
        Ok(values)
    }

    fn words(&mut self, column: usize, rows: Range<usize>) -> Result<Option<Words>> {
        let column = self.columns.get(column).copied().unwrap_or(usize::MAX);
        let field = column.checked_sub(SYSTEM_COLUMNS.len());
        let field = field.and_then(|at| self.all.fields.get(at));
        let Some((values, chunk_words)) = field.and_then(|field| field.words.as_ref()) else {
            return Ok(None);
        };
        // Only what occurs in these rows, in the order of its first row there or nearly so.
        let mut own = vec![NO_VALUE; values.len()];
        let mut used: Vec<u32> = Vec::new();
        let mut numbers = vec![NO_VALUE; rows.len()];
        self.each_value(column, &rows, |row, chunk, number| {
            let word = chunk_words
                .get(chunk)
                .and_then(|words| words.get(number as usize));
            let (Some(word), Some(place)) = (word, numbers.get_mut(row)) else {
                return;
            };
            if let Some(own) = own.get_mut(*word as usize) {
                if *own == NO_VALUE {
                    // Bounded by `is_too_many`.
                    *own = used.len() as u32;
                    used.push(*word);
                }
                *place = *own;
            }
        });
        let values = take(values, &UInt32Array::from(used), None).map_err(gather_failed)?;
        let numbers = numbers.into();
        Ok(Some(Words { numbers, values }))
    }

    fn outline(&self, column: usize, _rows: &Range<usize>) -> Outline {
        let column = self.columns.get(column).copied().unwrap_or(usize::MAX);
        let Some(at) = column.checked_sub(SYSTEM_COLUMNS.len()) else {
            let n_rows = self.spans.iter().map(|span| span.len()).sum();
            return Outline {
                n_values: n_rows,
                size_bytes: n_rows * 8,
                has_repeats: false,
            };
        };
        let all = self
            .all
            .fields
            .get(at)
            .map(|field| field.outline)
            .unwrap_or_default();
        let indices = self.all.columns.get(column).map_or(&[][..], Vec::as_slice);
        let columns = columns_of(&self.all.chunks, indices);
        let here = columns.into_iter().zip(&self.spans);
        let here = here.filter_map(|(field, span)| Some(field?.n_in_rows(span)));
        all.of_part(here.sum(), all.n_values)
    }
}

/// A field's column in each chunk; `indices` has its index there.
fn columns_of<'a>(
    chunks: &'a [Arc<HeadChunk>],
    indices: &[Option<usize>],
) -> Vec<Option<&'a HeadColumn>> {
    let parts = chunks.iter().zip(indices);
    parts.map(|(chunk, index)| chunk.field((*index)?)).collect()
}

fn field_rows(columns: &[Option<&HeadColumn>]) -> FieldRows {
    let present = || columns.iter().copied().flatten();
    let n_values: usize = present().map(HeadColumn::n_values).sum();
    let n_kept: usize = present().map(|column| column.values.len()).sum();
    let mut outline = Outline {
        n_values,
        size_bytes: present().map(size_bytes_of_rows).sum(),
        has_repeats: false,
    };
    let Some(first) = present().next() else {
        return FieldRows::default();
    };
    let mut numbering = Numbering {
        n_values,
        n_kept,
        ..Numbering::default()
    };
    let words = match first.values.data_type() {
        DataType::Utf8 => numbering.words(
            columns,
            |column| column.values.as_string::<i32>().into_iter().flatten(),
            |words| Arc::new(StringArray::from_iter_values(words)),
        ),
        DataType::Int64 => numbering.words(
            columns,
            |column| {
                column
                    .values
                    .as_primitive::<Int64Type>()
                    .values()
                    .iter()
                    .copied()
            },
            |words| Arc::new(Int64Array::from(words)),
        ),
        DataType::Float64 => numbering.words(
            columns,
            |column| {
                let values = column.values.as_primitive::<Float64Type>().values();
                values.iter().map(|value| value.to_bits())
            },
            |words| {
                let words = words.into_iter().map(f64::from_bits);
                Arc::new(Float64Array::from_iter_values(words))
            },
        ),
        _ => None,
    };
    outline.has_repeats = numbering.has_repeats();
    FieldRows { outline, words }
}

/// Numbers the distinct values of a column.
#[derive(Default)]
struct Numbering {
    /// Of all rows.
    n_values: usize,
    /// Of all chunks: those that batches share are counted once for each batch.
    n_kept: usize,
    n_seen: usize,
    n_distinct: usize,
}

impl Numbering {
    /// As [`Self::run`] for the `values` of each chunk's column; `array` makes the distinct ones what the column has.
    fn words<'a, T: Hash + Eq + Copy, I: Iterator<Item = T>>(
        &mut self,
        columns: &[Option<&'a HeadColumn>],
        values: impl Fn(&'a HeadColumn) -> I,
        array: impl Fn(Vec<T>) -> ArrayRef,
    ) -> Option<(ArrayRef, Vec<Vec<u32>>)> {
        let chunks = columns
            .iter()
            .map(|column| column.iter().flat_map(|column| values(column)));
        let (words, numbers) = self.run(chunks)?;
        Some((array(words), numbers))
    }

    /// The distinct values, and for each chunk the number of each of its values; `None` if they do not repeat enough.
    fn run<T: Hash + Eq + Copy>(
        &mut self,
        chunks: impl Iterator<Item = impl Iterator<Item = T>>,
    ) -> Option<(Vec<T>, Vec<Vec<u32>>)> {
        let mut words: Vec<T> = Vec::new();
        let mut known: HashMap<T, u32, ahash::RandomState> = HashMap::default();
        let mut numbers = Vec::new();
        for values in chunks {
            let mut of_chunk = Vec::new();
            for value in values {
                self.n_seen += 1;
                let number = *known.entry(value).or_insert_with(|| {
                    words.push(value);
                    // Bounded by `is_too_many`.
                    words.len() as u32 - 1
                });
                of_chunk.push(number);
                self.n_distinct = words.len();
                if self.is_vain() {
                    return None;
                }
            }
            numbers.push(of_chunk);
        }
        Some((words, numbers))
    }

    fn is_vain(&self) -> bool {
        let is_unique_in_batches = self.n_values < 2 * self.n_kept;
        is_too_many(self.n_distinct, self.n_values)
            || (is_unique_in_batches
                && self.n_seen == TRIAL_VALUES
                && self.n_seen * 3 < self.n_distinct * 4)
    }

    /// At most three distinct values for four rows, as far as was seen.
    fn has_repeats(&self) -> bool {
        let n_distinct = self.n_kept * self.n_distinct / self.n_seen.max(1);
        0 < self.n_seen && n_distinct * 4 <= self.n_values * 3
    }
}

/// Of the values of all rows, had each row its own.
fn size_bytes_of_rows(column: &HeadColumn) -> usize {
    match column.values.data_type() {
        DataType::Utf8 => {
            let offsets = column.values.as_string::<i32>().value_offsets();
            let size_of = |number: &u32| {
                let number = *number as usize;
                let bounds = offsets.get(number).zip(offsets.get(number + 1));
                bounds.map_or(0, |(start, end)| usize::try_from(end - start).unwrap_or(0))
            };
            column.numbers.iter().map(size_of).sum()
        }
        DataType::Boolean => column.n_values() / 8 + 1,
        _ => column.n_values() * 8,
    }
}

fn gather_failed(error: ArrowError) -> Error {
    Error::internal("cannot gather a column").with_source(error)
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
