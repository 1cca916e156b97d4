//! What a question sees: one immutable, consistent view of all rows. Taking one clones a few `Arc`s.
//!
//! Each row is in exactly one head chunk or one segment of a snapshot. Segments of a snapshot stay readable for as long as it lives, even after
//! they were merged or dropped.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, RecordBatch, UInt32Array, new_null_array};
use arrow::buffer::NullBuffer;
use arrow::compute::{concat, take};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;

use crate::common::error::{Error, Result};
use crate::record::DeadLetter;
use crate::store::embedded::schema::{self, Columns, SYSTEM_COLUMNS};
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
    /// Of all columns.
    pub schema: SchemaRef,
    pub columns: Arc<Columns>,
    pub system: RecordBatch,
    /// The columns after those of the system, in order.
    pub fields: Vec<HeadColumn>,
    pub min_timestamp_ns: i64,
    pub max_timestamp_ns: i64,
    /// Latest arrival of a row in it.
    pub max_arrival_ns: i64,
    /// Memory that the rows hold.
    pub size_bytes: usize,
    /// Of the rows' texts, had each row its own.
    pub text_bytes: usize,
}

/// A field's column: numbers of values where rows have one. What repeats within a batch is there once.
#[derive(Clone)]
pub struct HeadColumn {
    /// The rows that have a value, ascending; `None`: all.
    pub rows: Option<Arc<[u32]>>,
    /// For each of them the place of its value in `values`.
    pub numbers: Arc<[u32]>,
    /// Never null.
    pub values: ArrayRef,
}

impl HeadChunk {
    /// `system` has the system columns, `fields` the others of `schema`.
    pub fn new(
        schema: SchemaRef,
        columns: Arc<Columns>,
        system: RecordBatch,
        fields: Vec<HeadColumn>,
        max_arrival_ns: i64,
        text_bytes: usize,
    ) -> Result<Self> {
        let (mut min, mut max) = (i64::MAX, i64::MIN);
        for timestamp_ns in schema::timestamps(&system)? {
            min = min.min(*timestamp_ns);
            max = max.max(*timestamp_ns);
        }
        let fields_size: usize = fields.iter().map(HeadColumn::size_bytes).sum();
        Ok(Self {
            size_bytes: system.get_array_memory_size() + fields_size,
            schema,
            columns,
            fields,
            min_timestamp_ns: min,
            max_timestamp_ns: max,
            max_arrival_ns,
            text_bytes,
            system,
        })
    }

    pub fn n_rows(&self) -> usize {
        self.system.num_rows()
    }

    /// The field column with this index in the schema.
    pub fn field(&self, index: usize) -> Option<&HeadColumn> {
        self.fields.get(index.checked_sub(SYSTEM_COLUMNS.len())?)
    }

    /// Some columns (ascending indices) of some rows (ascending).
    pub fn read(&self, columns: &[usize], rows: &[u32]) -> Result<RecordBatch> {
        self.try_read(columns, rows)
            .map_err(|error| Error::internal("cannot take rows of the head").with_source(error))
    }

    fn try_read(&self, columns: &[usize], rows: &[u32]) -> Result<RecordBatch, ArrowError> {
        let schema = Arc::new(self.schema.project(columns)?);
        let whole = match (rows.first(), rows.last()) {
            (Some(first), Some(last)) if (last - first) as usize + 1 == rows.len() => {
                Some(*first as usize)
            }
            _ => None,
        };
        let indices = UInt32Array::from(rows.to_vec());
        let arrays = columns.iter().zip(schema.fields()).map(|(index, field)| {
            let system = self.system.columns().get(*index);
            match (system, whole, self.field(*index)) {
                (Some(array), Some(start), _) => Ok(array.slice(start, rows.len())),
                (Some(array), None, _) => take(array, &indices, None),
                (None, _, Some(column)) => column.take(rows),
                (None, _, None) => Ok(new_null_array(field.data_type(), rows.len())),
            }
        });
        let arrays: Vec<ArrayRef> = arrays.collect::<Result<_, _>>()?;
        RecordBatch::try_new(schema, arrays)
    }
}

impl HeadColumn {
    pub fn n_values(&self) -> usize {
        self.numbers.len()
    }

    fn size_bytes(&self) -> usize {
        let rows = self.rows.as_ref().map_or(0, |rows| rows.len());
        (rows + self.numbers.len()) * size_of::<u32>() + self.values.get_array_memory_size()
    }

    /// Rows in `range` that have a value, with its number.
    pub fn in_rows(&self, range: Range<u32>) -> impl Iterator<Item = (u32, u32)> {
        let (start, end) = match &self.rows {
            Some(rows) => (
                rows.partition_point(|row| *row < range.start),
                rows.partition_point(|row| *row < range.end),
            ),
            None => (range.start as usize, range.end as usize),
        };
        let end = end.min(self.numbers.len());
        let start = start.min(end);
        let numbers = self.numbers.get(start..end).unwrap_or_default();
        let rows = self.rows.as_ref().and_then(|rows| rows.get(start..end));
        let dense = range.start..;
        numbers.iter().enumerate().map(move |(at, number)| {
            let row = match rows {
                Some(rows) => rows.get(at).copied(),
                None => u32::try_from(at)
                    .ok()
                    .and_then(|at| dense.start.checked_add(at)),
            };
            (row.unwrap_or(u32::MAX), *number)
        })
    }

    /// How many rows in `range` have a value.
    pub fn n_in_rows(&self, range: &Range<u32>) -> usize {
        match &self.rows {
            Some(rows) => {
                let start = rows.partition_point(|row| *row < range.start);
                let end = rows.partition_point(|row| *row < range.end);
                end.saturating_sub(start)
            }
            None => range.len().min(self.numbers.len()),
        }
    }

    /// The values of some rows (ascending), null where a row has none.
    pub fn take(&self, rows: &[u32]) -> Result<ArrayRef, ArrowError> {
        if self.values.is_empty() {
            return Ok(new_null_array(self.values.data_type(), rows.len()));
        }
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else {
            return Ok(self.values.slice(0, 0));
        };
        let mut present = self.in_rows(*first..last.saturating_add(1)).peekable();
        let mut is_valid = Vec::with_capacity(rows.len());
        let mut numbers = Vec::with_capacity(rows.len());
        for row in rows {
            while present.next_if(|(other, _)| other < row).is_some() {}
            let number = present.next_if(|(other, _)| other == row);
            is_valid.push(number.is_some());
            numbers.push(number.map_or(0, |(_, number)| number));
        }
        let nulls = NullBuffer::from(is_valid);
        let nulls = (0 < nulls.null_count()).then_some(nulls);
        take(&self.values, &UInt32Array::new(numbers.into(), nulls), None)
    }

    /// Several chunks' columns as one; each is given with its number of rows, `None` where the chunk has no such column.
    pub fn join(parts: &[(Option<&Self>, usize)]) -> Result<Self, ArrowError> {
        let n_rows: usize = parts.iter().map(|(_, n_rows)| n_rows).sum();
        let columns = || parts.iter().filter_map(|(column, _)| *column);
        let n_values = columns().map(Self::n_values).sum();
        let mut rows = Vec::with_capacity(n_values);
        let mut numbers = Vec::with_capacity(n_values);
        let (mut first_row, mut first_number) = (0, 0);
        for (column, n_rows) in parts {
            if let Some(column) = column {
                let present = column.in_rows(0..u32::MAX);
                for (row, number) in present {
                    rows.push(first_row + row);
                    numbers.push(first_number + number);
                }
                first_number += u32_of(column.values.len())?;
            }
            first_row += u32_of(*n_rows)?;
        }
        let values: Vec<_> = columns().map(|column| &*column.values).collect();
        Ok(Self {
            rows: (n_values < n_rows).then(|| rows.into()),
            numbers: numbers.into(),
            values: concat(&values)?,
        })
    }
}

fn u32_of(count: usize) -> Result<u32, ArrowError> {
    u32::try_from(count)
        .map_err(|_| ArrowError::ComputeError("a head of 4 billion values".to_owned()))
}
