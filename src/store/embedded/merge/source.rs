//! The rows of several segments as one sorted stream, column by column, for a merge or for a rewrite that leaves rows out.
//!
//! Memory: the sort keys of one row group, a few thousand keys of each input, and one column of one row group. The inputs are sorted, so the rows of a
//! row group are one stretch of each input; a column reads just the pages of that stretch.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray as _, BooleanArray, RecordBatch, new_empty_array, new_null_array,
};
use arrow::compute::{concat_batches, interleave};
use arrow::datatypes::{DataType, SchemaRef};
use hashbrown::HashMap;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, RowSelection, RowSelector};

use crate::common::error::{Error, Result};
use crate::record::value::ValueType;
use crate::record::{Position, RecordKey};
use crate::store::embedded::schema::{self, ColumnInfo, SYSTEM_COLUMNS};
use crate::store::embedded::segment::SegmentReader;
use crate::store::embedded::segment::write::{Outline, RowSource};
use crate::store::embedded::spill;

/// Rows read at a time.
const BATCH_ROWS: usize = 8_192;

pub struct MergedRows {
    inputs: Vec<Input>,
    schema: SchemaRef,
    /// For each column of `schema`: its index in each input.
    columns: Vec<Vec<Option<usize>>>,
    /// The next key of each input, smallest first.
    next: BinaryHeap<Reverse<(RecordKey, usize)>>,
    window: Window,
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
        for (reader, keep) in readers {
            inputs.push(Input {
                keys: KeyCursor::new(&reader)?,
                reader,
                keep,
                spilled: Vec::new(),
            });
        }
        let (schema, columns) = union(&mut inputs, columns_max);
        let mut merged = Self {
            schema,
            columns,
            next: BinaryHeap::with_capacity(inputs.len()),
            window: Window::default(),
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

    /// The stretch of each input as one array of the column, then both woven together.
    fn weave(&self, column: usize) -> Result<ArrayRef> {
        let data_type = self.schema.field(column).data_type();
        let is_overflow = self.schema.field(column).name() == schema::OVERFLOW
            && column + 1 == self.schema.fields().len();
        let no_places = Vec::new();
        let places = self.columns.get(column).unwrap_or(&no_places);
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(self.inputs.len());
        for ((input, stretch), place) in self.inputs.iter().zip(&self.window.stretches).zip(places)
        {
            let array = if stretch.start == stretch.end {
                new_empty_array(data_type)
            } else if is_overflow {
                input.read_overflow(stretch)?
            } else if let Some(place) = place {
                input.read(*place, stretch)?
            } else {
                new_null_array(data_type, stretch.len())
            };
            arrays.push(array);
        }
        let arrays: Vec<_> = arrays.iter().map(AsRef::as_ref).collect();
        interleave(&arrays, &self.window.order)
            .map_err(|error| Error::internal("cannot merge a column").with_source(error))
    }
}

impl RowSource for MergedRows {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn column(&mut self, column: usize, rows: Range<usize>) -> Result<ArrayRef> {
        if rows != self.window.rows {
            self.fill_window(rows)?;
        }
        self.weave(column)
    }

    /// From what the inputs' footers say; a dictionary as most of their rows have it.
    fn outline(&self, column: usize, _rows: &Range<usize>) -> Outline {
        let mut outline = Outline::default();
        let (mut n_with, mut n_without) = (0, 0);
        let places = self.columns.get(column);
        for (input, place) in self.inputs.iter().zip(places.into_iter().flatten()) {
            let Some(place) = place else { continue };
            let n_values = n_values(&input.reader, *place);
            outline.n_values += usize::try_from(n_values).unwrap_or(usize::MAX);
            for row_group in input.reader.metadata().row_groups() {
                let Some(chunk) = row_group.columns().get(*place) else {
                    continue;
                };
                let size_bytes = chunk.uncompressed_size();
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
}

impl Input {
    /// Rows `rows` of a column.
    fn read(&self, column: usize, rows: &Range<usize>) -> Result<ArrayRef> {
        let batch = self.read_all(&[column], rows)?;
        batch
            .columns()
            .first()
            .cloned()
            .ok_or_else(|| Error::internal("a column was not read"))
    }

    fn read_all(&self, columns: &[usize], rows: &Range<usize>) -> Result<RecordBatch> {
        let reader = read_rows(&self.reader, columns, rows, rows.len())?;
        let mut batches = Vec::new();
        for batch in reader {
            batches.push(batch.map_err(|error| self.reader.error("cannot be read", error))?);
        }
        match batches.as_slice() {
            [batch] => Ok(batch.clone()),
            [first, ..] => concat_batches(&first.schema(), &batches)
                .map_err(|error| Error::internal("cannot join batches").with_source(error)),
            [] => Err(self
                .reader
                .error("has too few rows", "the reader gave none")),
        }
    }

    /// The overflow column with the columns that are spilled into it.
    fn read_overflow(&self, rows: &Range<usize>) -> Result<ArrayRef> {
        let overflow = self.reader.columns().overflow();
        let mut indices: Vec<usize> = self.spilled.iter().map(|info| info.index).collect();
        indices.extend(overflow);
        if indices.is_empty() {
            return Ok(new_null_array(&DataType::Utf8, rows.len()));
        }
        let batch = self.read_all(&indices, rows)?;
        // Columns come back in ascending order of index; the overflow column has the highest.
        let columns = batch.columns();
        let spilled: Vec<(&ColumnInfo, &ArrayRef)> = self.spilled.iter().zip(columns).collect();
        if spilled.is_empty() {
            return columns
                .first()
                .cloned()
                .ok_or_else(|| Error::internal("no overflow column"));
        }
        let old = overflow.and_then(|_| columns.last());
        let old = old.and_then(|array| array.as_string_opt::<i32>());
        Ok(Arc::new(spill::join(old, &spilled, rows.len())))
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

/// Values other than null of a column, as far as the statistics know.
fn n_values(reader: &SegmentReader, column: usize) -> u64 {
    let row_groups = reader.metadata().row_groups();
    let counts = row_groups.iter().map(|row_group| {
        let n_rows = u64::try_from(row_group.num_rows()).unwrap_or(0);
        let chunk = row_group.columns().get(column);
        let n_nulls = chunk.and_then(|chunk| chunk.statistics()?.null_count_opt());
        n_rows.saturating_sub(n_nulls.unwrap_or(0))
    });
    counts.sum()
}
