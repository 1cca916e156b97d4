//! Batches into Arrow: one builder for each (key, type), found without hashing once a batch has shown the pair.
//!
//! The hottest loop of the write side. A batch's `key_index` is stable, so each batch gets a small table (key index, type) → column; only its first
//! use of a pair looks into the hash map. A column that appears late, or pauses, is padded with nulls when it next gets a value. The caller says how many
//! rows are to come, and columns remember how long their texts were, so buffers hardly grow by doubling.
//!
//! Limits: `columns_max` columns and keys of `key_bytes_max` bytes; what is beyond goes to the overflow column. This module must not know time or files.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBuilder, Float64Builder, Int64Builder, RecordBatch, StringBuilder,
    TimestampNanosecondArray, UInt8Array, UInt32Array, UInt64Array,
};
use hashbrown::HashMap;

use crate::common::error::{Error, Result};
use crate::record::value::{ValueRef, ValueType};
use crate::record::{Batch, DeadLetter, EntryRef, Position, QueuedBatch, RecordRef};
use crate::store::embedded::overflow;
use crate::store::embedded::schema::{self, Columns};
use crate::store::embedded::snapshot::HeadChunk;

const N_TYPES: usize = ValueType::ALL.len();
const NO_COLUMN: u32 = u32::MAX;
const IN_OVERFLOW: u32 = u32::MAX - 1;
/// Room for texts beyond what the last chunk had.
const NEW_COLUMN_BYTES: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColumnLimits {
    /// Field columns for each segment; the fields beyond go to the overflow column. The three standard fields always get one.
    pub columns_max: usize,
    /// Fields with longer keys go to the overflow column.
    pub key_bytes_max: usize,
    /// Rows of a chunk in memory.
    pub chunk_rows_max: usize,
    /// Text bytes of a chunk in memory: far below the 2 GiB that a column of text can hold.
    pub chunk_bytes_max: usize,
}

impl Default for ColumnLimits {
    fn default() -> Self {
        Self {
            columns_max: 1_000,
            key_bytes_max: 128,
            chunk_rows_max: 16_384,
            chunk_bytes_max: 8 << 20,
        }
    }
}

/// Builds chunks. Reused for the life of the store.
pub struct ChunkBuilder {
    limits: ColumnLimits,
    columns: Vec<Column>,
    /// Key → its column for each type.
    by_key: HashMap<Box<str>, [u32; N_TYPES], ahash::RandomState>,
    timestamps: Vec<i64>,
    seqs: Vec<u64>,
    partitions: Vec<u32>,
    digits: Vec<u8>,
    flags: Vec<u32>,
    overflow: Overflow,
    size_bytes: usize,
    max_arrival_ns: i64,
    /// Rows that the caller is about to add.
    rows_expected: usize,
}

struct Column {
    key: Arc<str>,
    value_type: ValueType,
    n_values: usize,
    /// Rows covered by values and nulls.
    len: usize,
    /// Rows and bytes of text of the last chunk that had the column.
    last: (usize, usize),
    values: Values,
}

enum Values {
    Text(StringBuilder),
    Int(Int64Builder),
    Float(Float64Builder),
    Bool(BooleanBuilder),
}

#[derive(Default)]
struct Overflow {
    values: StringBuilder,
    row: String,
    n_values: usize,
    len: usize,
}

/// What a batch gave besides rows.
#[derive(Default)]
pub struct Built {
    pub chunks: Vec<HeadChunk>,
    pub letters: Vec<DeadLetter>,
}

impl ChunkBuilder {
    pub fn new(limits: ColumnLimits) -> Self {
        Self {
            limits,
            columns: Vec::new(),
            by_key: HashMap::default(),
            timestamps: Vec::new(),
            seqs: Vec::new(),
            partitions: Vec::new(),
            digits: Vec::new(),
            flags: Vec::new(),
            overflow: Overflow::default(),
            size_bytes: 0,
            max_arrival_ns: i64::MIN,
            rows_expected: 0,
        }
    }

    /// What is added next has about so many rows, up to [`Self::finish`]: columns are made that long at once instead of growing step by step.
    pub fn expect(&mut self, n_rows: usize) {
        self.rows_expected = n_rows.clamp(1, self.limits.chunk_rows_max);
    }

    /// Adds the entries of `queued` from `first_seq` on. Full chunks go to `built`.
    pub fn add(&mut self, queued: &QueuedBatch, first_seq: u64, built: &mut Built) -> Result<()> {
        let mut slots = Slots::new(&queued.batch);
        let n_skipped = first_seq.saturating_sub(queued.first.seq);
        let arrival_ns = queued.batch.arrival_ns();
        for (index, entry) in queued.batch.entries().enumerate() {
            let position = Position {
                partition: queued.first.partition,
                seq: queued.first.seq + index as u64,
            };
            if (index as u64) < n_skipped {
                continue;
            }
            match entry {
                EntryRef::Record(record) => {
                    self.max_arrival_ns = self.max_arrival_ns.max(arrival_ns);
                    self.add_record(&record, position, &mut slots);
                    if self.is_full() {
                        built.chunks.extend(self.finish()?);
                        slots.clear();
                    }
                }
                EntryRef::DeadLetter(letter) => built.letters.push(DeadLetter {
                    position,
                    arrival_ns,
                    code: letter.code.to_owned(),
                    reason: letter.reason.to_owned(),
                    source: letter.source.map(str::to_owned),
                    raw: letter.raw.to_vec(),
                }),
            }
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.limits.chunk_rows_max <= self.timestamps.len()
            || self.limits.chunk_bytes_max <= self.size_bytes
    }

    fn add_record(&mut self, record: &RecordRef<'_>, position: Position, slots: &mut Slots) {
        let row = self.timestamps.len();
        self.timestamps.push(record.timestamp_ns);
        self.seqs.push(position.seq);
        self.partitions.push(position.partition);
        self.digits.push(record.timestamp_digits);
        self.flags.push(record.flags.0);
        for field in record.fields() {
            let value_type = field.value.value_type();
            let slot = slots.get(field.key_index, value_type);
            let index = if slot == NO_COLUMN {
                let index = self.column_of(field.key, value_type);
                slots.set(field.key_index, value_type, index);
                index
            } else {
                slot
            };
            match self.columns.get_mut(index as usize) {
                Some(column) => {
                    if column.len == 0 {
                        column.make_room(self.rows_expected);
                    }
                    self.size_bytes += column.push(row, field.value);
                }
                None => overflow::push(&mut self.overflow.row, field.key, field.value),
            }
        }
        if !self.overflow.row.is_empty() {
            self.size_bytes += self.overflow.row.len();
            self.overflow.end_row(row);
        }
    }

    /// The column for a key and type: known, new, or `IN_OVERFLOW`.
    #[cold]
    fn column_of(&mut self, key: &str, value_type: ValueType) -> u32 {
        if let Some(index) = self
            .by_key
            .get(key)
            .and_then(|by_type| by_type.get(value_type as usize))
            .filter(|index| **index != NO_COLUMN)
        {
            return *index;
        }
        let is_standard = matches!(key, "level" | "source" | "message");
        let is_full = self.limits.columns_max.saturating_sub(3) <= self.columns.len();
        if self.limits.key_bytes_max < key.len() || (is_full && !is_standard) {
            return IN_OVERFLOW;
        }
        let Ok(index) = u32::try_from(self.columns.len()) else {
            return IN_OVERFLOW;
        };
        let by_type = self
            .by_key
            .entry(key.into())
            .or_insert([NO_COLUMN; N_TYPES]);
        if let Some(place) = by_type.get_mut(value_type as usize) {
            *place = index;
        }
        self.columns.push(Column::new(key, value_type));
        index
    }

    /// The rows gathered, as a chunk; `None` if there are none.
    pub fn finish(&mut self) -> Result<Option<HeadChunk>> {
        let n_rows = self.timestamps.len();
        if n_rows == 0 {
            return Ok(None);
        }
        let mut arrays: Vec<ArrayRef> = vec![
            Arc::new(
                TimestampNanosecondArray::from(take(&mut self.timestamps)).with_timezone("UTC"),
            ),
            Arc::new(UInt64Array::from(take(&mut self.seqs))),
            Arc::new(UInt32Array::from(take(&mut self.partitions))),
            Arc::new(UInt8Array::from(take(&mut self.digits))),
            Arc::new(UInt32Array::from(take(&mut self.flags))),
        ];
        let mut fields: Vec<(Arc<str>, ValueType)> = Vec::new();
        for column in &mut self.columns {
            if 0 < column.n_values {
                fields.push((Arc::clone(&column.key), column.value_type));
                arrays.push(column.finish(n_rows));
            }
        }
        let has_overflow = 0 < self.overflow.n_values;
        if has_overflow {
            arrays.push(self.overflow.finish(n_rows));
        }
        let fields = fields.iter().map(|(key, ty)| (&**key, *ty));
        let schema = Arc::new(schema::schema_of(fields, has_overflow));
        let max_arrival_ns = std::mem::replace(&mut self.max_arrival_ns, i64::MIN);
        self.size_bytes = 0;
        // A registry full of columns that are no longer used would push new fields to the overflow.
        if self.limits.columns_max / 2 <= self.columns.len() {
            self.columns.clear();
            self.by_key.clear();
        }
        let batch = RecordBatch::try_new(schema, arrays).map_err(|error| {
            Error::internal("columns do not fit their schema").with_source(error)
        })?;
        HeadChunk::new(batch, max_arrival_ns).map(Some)
    }
}

/// The table of one batch: (key index, type) → column.
struct Slots {
    columns: Vec<u32>,
}

impl Slots {
    fn new(batch: &Batch) -> Self {
        Self {
            columns: vec![NO_COLUMN; batch.keys().len() * N_TYPES],
        }
    }

    fn clear(&mut self) {
        self.columns.fill(NO_COLUMN);
    }

    fn get(&self, key_index: u32, value_type: ValueType) -> u32 {
        let at = key_index as usize * N_TYPES + value_type as usize;
        self.columns.get(at).copied().unwrap_or(NO_COLUMN)
    }

    fn set(&mut self, key_index: u32, value_type: ValueType, column: u32) {
        let at = key_index as usize * N_TYPES + value_type as usize;
        if let Some(place) = self.columns.get_mut(at) {
            *place = column;
        }
    }
}

impl Column {
    fn new(key: &str, value_type: ValueType) -> Self {
        Self {
            key: key.into(),
            value_type,
            n_values: 0,
            len: 0,
            last: (0, 0),
            values: Values::new(value_type, 0, 0),
        }
    }

    /// To be called before the first value of a chunk of about `n_rows` rows.
    fn make_room(&mut self, n_rows: usize) {
        let (last_rows, last_bytes) = self.last;
        // Few rows with long texts say nothing of a chunk of many rows: never more than the last chunk had.
        let n_bytes = last_bytes * n_rows.min(last_rows) / last_rows.max(1);
        self.values = Values::new(self.value_type, n_rows, n_bytes + NEW_COLUMN_BYTES);
    }

    /// Returns the bytes that the value takes.
    fn push(&mut self, row: usize, value: ValueRef<'_>) -> usize {
        if row < self.len {
            // A second value for the same key: batches have none, and a column with two would fit no row.
            return 0;
        }
        if self.len < row {
            self.values.pad(row - self.len);
        }
        self.len = row + 1;
        self.n_values += 1;
        match (&mut self.values, value) {
            (
                Values::Text(values),
                ValueRef::Str(text) | ValueRef::Number(text) | ValueRef::Json(text),
            ) => {
                values.append_value(text);
                return text.len() + 4;
            }
            (Values::Int(values), ValueRef::Int(value)) => values.append_value(value),
            (Values::Float(values), ValueRef::Float(value)) => values.append_value(value),
            (Values::Bool(values), ValueRef::Bool(value)) => values.append_value(value),
            (Values::Bool(values), ValueRef::Null) => values.append_value(true),
            // A column is found by its value's type: no other pair exists.
            (values, _) => values.pad(1),
        }
        8
    }

    fn finish(&mut self, n_rows: usize) -> ArrayRef {
        if self.len < n_rows {
            self.values.pad(n_rows - self.len);
        }
        let n_bytes = match &self.values {
            Values::Text(values) => values.values_slice().len(),
            Values::Int(_) | Values::Float(_) | Values::Bool(_) => 0,
        };
        self.len = 0;
        self.n_values = 0;
        self.last = (n_rows, n_bytes);
        let next = Values::new(self.value_type, 0, 0);
        std::mem::replace(&mut self.values, next).finish()
    }
}

impl Values {
    fn new(value_type: ValueType, n_rows: usize, n_bytes: usize) -> Self {
        match value_type {
            ValueType::Null | ValueType::Bool => Self::Bool(BooleanBuilder::with_capacity(n_rows)),
            ValueType::Int => Self::Int(Int64Builder::with_capacity(n_rows)),
            ValueType::Float => Self::Float(Float64Builder::with_capacity(n_rows)),
            ValueType::Number | ValueType::Str | ValueType::Json => {
                Self::Text(StringBuilder::with_capacity(n_rows, n_bytes))
            }
        }
    }

    fn pad(&mut self, n_nulls: usize) {
        match self {
            Self::Text(values) => values.append_nulls(n_nulls),
            Self::Int(values) => values.append_nulls(n_nulls),
            Self::Float(values) => values.append_nulls(n_nulls),
            Self::Bool(values) => values.append_nulls(n_nulls),
        }
    }

    fn finish(self) -> ArrayRef {
        match self {
            Self::Text(mut values) => Arc::new(values.finish()),
            Self::Int(mut values) => Arc::new(values.finish()),
            Self::Float(mut values) => Arc::new(values.finish()),
            Self::Bool(mut values) => Arc::new(values.finish()),
        }
    }
}

impl Overflow {
    fn end_row(&mut self, row: usize) {
        if self.len < row {
            self.values.append_nulls(row - self.len);
        }
        overflow::finish(&mut self.row);
        self.values.append_value(&self.row);
        self.row.clear();
        self.len = row + 1;
        self.n_values += 1;
    }

    fn finish(&mut self, n_rows: usize) -> ArrayRef {
        if self.len < n_rows {
            self.values.append_nulls(n_rows - self.len);
        }
        self.len = 0;
        self.n_values = 0;
        Arc::new(self.values.finish())
    }
}

impl HeadChunk {
    /// A chunk of rows that have the columns of `schema`.
    pub fn new(batch: RecordBatch, max_arrival_ns: i64) -> Result<Self> {
        let columns = Arc::new(Columns::from_schema(batch.schema_ref())?);
        let timestamps = schema::timestamps(&batch)?;
        let (mut min, mut max) = (i64::MAX, i64::MIN);
        for timestamp_ns in timestamps {
            min = min.min(*timestamp_ns);
            max = max.max(*timestamp_ns);
        }
        Ok(Self {
            size_bytes: batch.get_array_memory_size(),
            columns,
            min_timestamp_ns: min,
            max_timestamp_ns: max,
            max_arrival_ns,
            batch,
        })
    }
}

fn take<T>(values: &mut Vec<T>) -> Vec<T> {
    let capacity = values.len();
    std::mem::replace(values, Vec::with_capacity(capacity))
}
