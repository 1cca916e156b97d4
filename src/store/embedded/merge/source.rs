//! The rows of several segments as one sorted stream, column by column, for a merge or for a rewrite that leaves rows out.
//!
//! Memory: the sort keys of one row group, a few thousand keys of each input, and of one column three slices and a page of each input. The inputs are
//! sorted, so the rows of a row group are one stretch of each input; a column reads just the pages of that stretch, one after the other.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray as _, BooleanArray, RecordBatch, new_empty_array, new_null_array,
};
use arrow::compute::{concat_batches, interleave};
use arrow::datatypes::SchemaRef;
use hashbrown::HashMap;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, RowSelection, RowSelector};

use crate::common::error::{Error, Result};
use crate::record::value::ValueType;
use crate::record::{Position, RecordKey};
use crate::store::embedded::schema::{self, ColumnInfo, SYSTEM_COLUMNS};
use crate::store::embedded::segment::SegmentReader;
use crate::store::embedded::segment::write::{Outline, RowSource};
use crate::store::embedded::spill;

/// Keys read at a time.
const BATCH_ROWS: usize = 8_192;
/// Rows of a column read at a time, at least.
const FEED_ROWS_MIN: usize = 256;

pub struct MergedRows {
    inputs: Vec<Input>,
    schema: SchemaRef,
    /// For each column of `schema`: its index in each input.
    columns: Vec<Vec<Option<usize>>>,
    /// For each column of `schema`, over all rows.
    outlines: Vec<Outline>,
    /// The next key of each input, smallest first.
    next: BinaryHeap<Reverse<(RecordKey, usize)>>,
    window: Window,
    open: Option<OpenColumn>,
    /// Of all inputs, with those that are left out.
    n_rows: usize,
}

struct Input {
    reader: Arc<SegmentReader>,
    /// Which rows are kept; `None`: all.
    keep: Option<BooleanArray>,
    keys: KeyCursor,
    /// Columns whose values move to the overflow column.
    spilled: Vec<ColumnInfo>,
}

/// The rows of the current row group.
#[derive(Default)]
struct Window {
    rows: Range<usize>,
    /// (input, row of the input less the start of its stretch).
    order: Vec<(usize, usize)>,
    /// For each input: its rows from the first to the last that is in the window.
    stretches: Vec<Range<usize>>,
}

/// A column of the current row group, of which some slices were given.
struct OpenColumn {
    column: usize,
    /// The row of the merged segment that comes next.
    next_row: usize,
    feeds: Vec<Feed>,
}

/// One input's stretch of a column.
struct Feed {
    values: FeedValues,
    /// Rows of the stretch that were taken.
    n_taken: usize,
}

enum FeedValues {
    /// The input does not have the column.
    Nulls,
    Batches {
        batches: ParquetRecordBatchReader,
        /// Read and not yet taken.
        rest: Option<RecordBatch>,
    },
}

struct KeyCursor {
    batches: ParquetRecordBatchReader,
    batch: Option<RecordBatch>,
    /// Row of the input that the batch begins with.
    batch_start: usize,
    at: usize,
}

impl MergedRows {
    /// `keep`: for each input the rows that stay, `None` for all.
    pub fn new(
        readers: Vec<(Arc<SegmentReader>, Option<BooleanArray>)>,
        columns_max: usize,
    ) -> Result<Self> {
        let mut inputs = Vec::with_capacity(readers.len());
        let mut n_rows = 0;
        for (reader, keep) in readers {
            let row_groups = reader.metadata().row_groups().iter();
            let counts = row_groups.map(|row_group| usize::try_from(row_group.num_rows()));
            n_rows += counts.map(|count| count.unwrap_or(0)).sum::<usize>();
            inputs.push(Input {
                keys: KeyCursor::new(&reader)?,
                reader,
                keep,
                spilled: Vec::new(),
            });
        }
        let (schema, columns) = union(&mut inputs, columns_max);
        let outlines = columns.iter().map(|places| outline_of(&inputs, places));
        let mut merged = Self {
            schema,
            outlines: outlines.collect(),
            columns,
            next: BinaryHeap::with_capacity(inputs.len()),
            window: Window::default(),
            open: None,
            n_rows,
            inputs,
        };
        for index in 0..merged.inputs.len() {
            merged.advance(index)?;
        }
        Ok(merged)
    }

    /// Puts the next kept row of an input into the race.
    fn advance(&mut self, index: usize) -> Result<()> {
        let Some(input) = self.inputs.get_mut(index) else {
            return Ok(());
        };
        while let Some((row, key)) = input.keys.peek(&input.reader)? {
            let is_kept = |keep: &BooleanArray| row < keep.len() && keep.value(row);
            if input.keep.as_ref().is_none_or(is_kept) {
                self.next.push(Reverse((key, index)));
                break;
            }
            input.keys.at += 1;
        }
        Ok(())
    }

    /// Takes the next `rows.len()` rows in order.
    fn fill_window(&mut self, rows: Range<usize>) -> Result<()> {
        let mut window = Window {
            order: Vec::with_capacity(rows.len()),
            stretches: vec![0..0; self.inputs.len()],
            rows,
        };
        while window.order.len() < window.rows.len() {
            let Some(Reverse((_, index))) = self.next.pop() else {
                return Err(Error::internal("a merge ran out of rows"));
            };
            if let (Some(input), Some(stretch)) =
                (self.inputs.get_mut(index), window.stretches.get_mut(index))
            {
                let row = input.keys.batch_start + input.keys.at;
                if stretch.start == stretch.end {
                    *stretch = row..row;
                }
                stretch.end = row + 1;
                window.order.push((index, row - stretch.start));
                input.keys.at += 1;
            }
            self.advance(index)?;
        }
        self.window = window;
        Ok(())
    }

    /// The values of the slice `rows`: of each input those up to its last row in there, then all woven together.
    fn weave(&self, open: &mut OpenColumn, rows: &Range<usize>) -> Result<ArrayRef> {
        let data_type = self.schema.field(open.column).data_type();
        let is_overflow = self.is_overflow(open.column);
        let start = self.window.rows.start;
        let order = self
            .window
            .order
            .get(rows.start - start..rows.end - start)
            .unwrap_or_default();
        let mut ends: Vec<usize> = open.feeds.iter().map(|feed| feed.n_taken).collect();
        for (index, row) in order {
            // An input's rows come in ascending order.
            if let Some(end) = ends.get_mut(*index) {
                *end = row + 1;
            }
        }
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(open.feeds.len());
        let mut starts = Vec::with_capacity(open.feeds.len());
        for ((input, feed), end) in self.inputs.iter().zip(&mut open.feeds).zip(ends) {
            let n_rows = end - feed.n_taken;
            starts.push(feed.n_taken);
            feed.n_taken = end;
            arrays.push(match &mut feed.values {
                _ if n_rows == 0 => new_empty_array(data_type),
                FeedValues::Nulls => new_null_array(data_type, n_rows),
                FeedValues::Batches { batches, rest } => {
                    let batch = input.take(batches, rest, n_rows)?;
                    if is_overflow {
                        input.overflow_of(&batch)?
                    } else {
                        let values = batch.columns().first().cloned();
                        values.ok_or_else(|| Error::internal("a column was not read"))?
                    }
                }
            });
        }
        if let [array] = arrays.as_slice()
            && array.len() == order.len()
        {
            return Ok(Arc::clone(array));
        }
        let places: Vec<(usize, usize)> = order
            .iter()
            .map(|(index, row)| (*index, row - starts.get(*index).copied().unwrap_or(0)))
            .collect();
        let arrays: Vec<_> = arrays.iter().map(AsRef::as_ref).collect();
        interleave(&arrays, &places)
            .map_err(|error| Error::internal("cannot merge a column").with_source(error))
    }

    fn is_overflow(&self, column: usize) -> bool {
        self.schema.field(column).name() == schema::OVERFLOW
            && column + 1 == self.schema.fields().len()
    }

    /// Readers of each input's stretch; a slice will have about `slice_rows`.
    fn open(&self, column: usize, slice_rows: usize) -> Result<OpenColumn> {
        let no_places = Vec::new();
        let places = self.columns.get(column).unwrap_or(&no_places);
        // Two slices in all inputs together, whatever their number.
        let batch_rows = (2 * slice_rows / self.inputs.len().max(2)).max(FEED_ROWS_MIN);
        let mut feeds = Vec::with_capacity(self.inputs.len());
        for ((input, stretch), place) in self.inputs.iter().zip(&self.window.stretches).zip(places)
        {
            let columns = if self.is_overflow(column) {
                input.overflow_columns()
            } else {
                place.iter().copied().collect()
            };
            let values = if columns.is_empty() || stretch.is_empty() {
                FeedValues::Nulls
            } else {
                FeedValues::Batches {
                    batches: read_rows(&input.reader, &columns, stretch, batch_rows)?,
                    rest: None,
                }
            };
            feeds.push(Feed { values, n_taken: 0 });
        }
        Ok(OpenColumn {
            column,
            next_row: self.window.rows.start,
            feeds,
        })
    }
}

impl RowSource for MergedRows {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn begin_row_group(&mut self, rows: Range<usize>) -> Result<()> {
        self.open = None;
        self.fill_window(rows)
    }

    fn column(&mut self, column: usize, rows: Range<usize>) -> Result<ArrayRef> {
        let mut open = match self.open.take().filter(|open| open.column == column) {
            Some(open) => open,
            None => self.open(column, rows.len())?,
        };
        if open.next_row != rows.start || self.window.rows.end < rows.end {
            return Err(Error::internal("slices of a column out of order"));
        }
        let values = self.weave(&mut open, &rows)?;
        open.next_row = rows.end;
        self.open = Some(open);
        Ok(values)
    }

    fn outline(&self, column: usize, rows: &Range<usize>) -> Outline {
        let all = self.outlines.get(column).copied().unwrap_or_default();
        all.of_part(rows.len(), self.n_rows)
    }
}

/// From what the inputs' footers say of a column; a dictionary as most of their rows have it.
fn outline_of(inputs: &[Input], places: &[Option<usize>]) -> Outline {
    let mut outline = Outline::default();
    let (mut n_with, mut n_without) = (0, 0);
    for (input, place) in inputs.iter().zip(places) {
        let Some(place) = place else { continue };
        let n_values = n_values(&input.reader, *place);
        outline.n_values += usize::try_from(n_values).unwrap_or(usize::MAX);
        for row_group in input.reader.metadata().row_groups() {
            let Some(chunk) = row_group.columns().get(*place) else {
                continue;
            };
            let text_bytes = chunk.unencoded_byte_array_data_bytes();
            let size_bytes = text_bytes.unwrap_or(chunk.uncompressed_size());
            outline.size_bytes += usize::try_from(size_bytes).unwrap_or(0);
            match chunk.dictionary_page_offset() {
                Some(_) => n_with += row_group.num_rows(),
                None => n_without += row_group.num_rows(),
            }
        }
    }
    outline.has_repeats = n_without < n_with;
    outline
}

impl Input {
    /// The next `n_rows` rows.
    fn take(
        &self,
        batches: &mut ParquetRecordBatchReader,
        rest: &mut Option<RecordBatch>,
        n_rows: usize,
    ) -> Result<RecordBatch> {
        let mut pieces = Vec::new();
        let mut n_left = n_rows;
        while 0 < n_left {
            let batch = match rest.take() {
                Some(batch) => batch,
                None => batches
                    .next()
                    .ok_or_else(|| {
                        self.reader
                            .error("has too few rows", "the reader gave no more")
                    })?
                    .map_err(|error| self.reader.error("cannot be read", error))?,
            };
            let n_here = n_left.min(batch.num_rows());
            if n_here < batch.num_rows() {
                *rest = Some(batch.slice(n_here, batch.num_rows() - n_here));
            }
            pieces.push(batch.slice(0, n_here));
            n_left -= n_here;
        }
        match pieces.as_slice() {
            [piece] => Ok(piece.clone()),
            [first, ..] => concat_batches(&first.schema(), &pieces)
                .map_err(|error| Error::internal("cannot join batches").with_source(error)),
            [] => Err(Error::internal("no rows were asked for")),
        }
    }

    /// What the overflow column is made of: the columns that are spilled into it, and that of the input itself.
    fn overflow_columns(&self) -> Vec<usize> {
        let mut indices: Vec<usize> = self.spilled.iter().map(|info| info.index).collect();
        indices.extend(self.reader.columns().overflow());
        indices
    }

    /// `batch` has the [`Self::overflow_columns`].
    fn overflow_of(&self, batch: &RecordBatch) -> Result<ArrayRef> {
        // Columns come back in ascending order of index; the overflow column has the highest.
        let columns = batch.columns();
        let spilled: Vec<(&ColumnInfo, &ArrayRef)> = self.spilled.iter().zip(columns).collect();
        if spilled.is_empty() {
            return columns
                .first()
                .cloned()
                .ok_or_else(|| Error::internal("no overflow column"));
        }
        let old = self
            .reader
            .columns()
            .overflow()
            .and_then(|_| columns.last());
        let old = old.and_then(|array| array.as_string_opt::<i32>());
        Ok(Arc::new(spill::join(old, &spilled, batch.num_rows())))
    }
}

impl KeyCursor {
    fn new(reader: &SegmentReader) -> Result<Self> {
        let columns = [schema::TIMESTAMP, schema::SEQ, schema::PARTITION];
        let row_groups = (0..reader.metadata().num_row_groups()).collect();
        Ok(Self {
            batches: reader.read(&columns, row_groups, None, BATCH_ROWS)?,
            batch: None,
            batch_start: 0,
            at: 0,
        })
    }

    /// The key that comes next, with its row.
    fn peek(&mut self, reader: &SegmentReader) -> Result<Option<(usize, RecordKey)>> {
        while self
            .batch
            .as_ref()
            .is_none_or(|batch| batch.num_rows() <= self.at)
        {
            self.batch_start += self.batch.as_ref().map_or(0, RecordBatch::num_rows);
            self.at = 0;
            let next = self.batches.next().transpose();
            self.batch = next.map_err(|error| reader.error("cannot be read", error))?;
            if self.batch.is_none() {
                return Ok(None);
            }
        }
        let Some(batch) = &self.batch else {
            return Ok(None);
        };
        let at = self.at;
        let key = || {
            Some(RecordKey {
                timestamp_ns: *schema::timestamps(batch).ok()?.get(at)?,
                position: Position {
                    partition: *schema::partitions(batch).ok()?.get(at)?,
                    seq: *schema::seqs(batch).ok()?.get(at)?,
                },
            })
        };
        let key = key().ok_or_else(|| reader.error("has no keys", "a column is missing"))?;
        Ok(Some((self.batch_start + at, key)))
    }
}

/// A reader for some columns of the rows `rows` of a segment.
pub fn read_rows(
    reader: &SegmentReader,
    columns: &[usize],
    rows: &Range<usize>,
    batch_rows: usize,
) -> Result<ParquetRecordBatchReader> {
    let mut row_groups = Vec::new();
    let mut selectors: Vec<RowSelector> = Vec::new();
    let mut start = 0;
    for (index, row_group) in reader.metadata().row_groups().iter().enumerate() {
        let end = start + usize::try_from(row_group.num_rows()).unwrap_or(0);
        let (first, last) = (rows.start.max(start), rows.end.min(end));
        if first < last {
            row_groups.push(index);
            selectors.push(RowSelector::skip(first - start));
            selectors.push(RowSelector::select(last - first));
            selectors.push(RowSelector::skip(end - last));
        }
        start = end;
    }
    let selection = RowSelection::from(selectors);
    reader.read(columns, row_groups, Some(selection), batch_rows)
}

/// The columns of all inputs side by side; what exceeds `columns_max` is noted in `Input::spilled`.
fn union(inputs: &mut [Input], columns_max: usize) -> (SchemaRef, Vec<Vec<Option<usize>>>) {
    let n_inputs = inputs.len();
    let mut counts: HashMap<(Arc<str>, ValueType), u64, ahash::RandomState> = HashMap::default();
    let mut order: Vec<(Arc<str>, ValueType)> = Vec::new();
    for input in inputs.iter() {
        for info in input.reader.columns().fields() {
            let field = (Arc::clone(&info.key), info.value_type);
            let n_values = n_values(&input.reader, info.index);
            let count = counts.entry(field.clone()).or_insert_with(|| {
                order.push(field);
                0
            });
            *count += n_values;
        }
    }
    if columns_max < counts.len() {
        let kept = spill::keep(counts, columns_max);
        order.retain(|field| kept.contains(field));
    }
    let index_of: HashMap<_, usize, ahash::RandomState> = order
        .iter()
        .cloned()
        .enumerate()
        .map(|(index, field)| (field, index))
        .collect();
    let mut places: Vec<Vec<Option<usize>>> = vec![vec![None; n_inputs]; order.len()];
    let mut has_overflow = false;
    for (input_index, input) in inputs.iter_mut().enumerate() {
        has_overflow |= input.reader.columns().overflow().is_some();
        for info in input.reader.columns().fields() {
            let column = index_of.get(&(Arc::clone(&info.key), info.value_type));
            match column.and_then(|column| places.get_mut(*column)?.get_mut(input_index)) {
                Some(place) => *place = Some(info.index),
                None => input.spilled.push(info.clone()),
            }
        }
        has_overflow |= !input.spilled.is_empty();
    }
    let fields = order.iter().map(|(key, value_type)| (&**key, *value_type));
    let schema = Arc::new(schema::schema_of(fields, has_overflow));
    let mut columns: Vec<_> = (0..SYSTEM_COLUMNS.len())
        .map(|index| vec![Some(index); n_inputs])
        .collect();
    columns.append(&mut places);
    if has_overflow {
        columns.push(vec![None; n_inputs]);
    }
    (schema, columns)
}

/// Values other than null of a column.
fn n_values(reader: &SegmentReader, column: usize) -> u64 {
    let row_groups = 0..reader.metadata().num_row_groups();
    let counts = row_groups.filter_map(|row_group| reader.n_values(row_group, column));
    counts.sum()
}
