//! Batches into columns: one for each (key, type), found without hashing once a batch has shown the pair.
//!
//! The hottest loop of the write side. A batch numbers its values, so each batch gets a table: number → column and place of the value there. Only the
//! first row with a value reads it; of all others two numbers are kept. A second table (key index, type) → column spares most look-ups of keys.
//!
//! Limits: `columns_max` columns and keys of `key_bytes_max` bytes; what is beyond goes to the overflow column. This module must not know time or files.

use std::sync::Arc;

use arrow::array::{
    Array as _, ArrayBuilder as _, ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch,
    StringBuilder, TimestampNanosecondArray, UInt8Array, UInt32Array, UInt64Array,
};
use arrow::datatypes::SchemaRef;
use hashbrown::HashMap;

use crate::common::error::{Error, Result};
use crate::record::value::{ValueRef, ValueType};
use crate::record::{Batch, DeadLetter, EntryRef, Position, QueuedBatch, RecordRef};
use crate::store::embedded::overflow;
use crate::store::embedded::schema::{self, Columns};
use crate::store::embedded::snapshot::{HeadChunk, HeadColumn};

const N_TYPES: usize = ValueType::ALL.len();
const NO_COLUMN: u32 = u32::MAX;
const IN_OVERFLOW: u32 = u32::MAX - 1;
/// Memory of a row's system columns, about.
const ROW_BYTES: usize = 32;
/// Memory of a value beside its text.
const VALUE_BYTES: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColumnLimits {
    /// Field columns for each segment; the fields beyond go to the overflow column. The three standard fields always get one.
    pub columns_max: usize,
    /// Fields with longer keys go to the overflow column.
    pub key_bytes_max: usize,
    /// Rows of a chunk in memory.
    pub chunk_rows_max: usize,
    /// Bytes of a chunk in memory.
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

/// Text of a chunk's rows, had each row its own: that much a question about them may have to spell out.
pub const CHUNK_TEXT_BYTES_MAX: usize = 64 << 20;

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
    overflow: Column,
    overflow_row: String,
    /// Memory of the rows so far.
    size_bytes: usize,
    /// Of the rows so far, were no value shared.
    text_bytes: usize,
    max_arrival_ns: i64,
    last_shape: Option<Shape>,
}

/// A column being built.
struct Column {
    key: Arc<str>,
    value_type: ValueType,
    rows: Vec<u32>,
    numbers: Vec<u32>,
    values: Values,
    /// Values of the last chunk that had some, and the bytes of their texts: the next one is mostly like it.
    last_size: (usize, usize),
}

enum Values {
    Text(StringBuilder),
    Int(Vec<i64>),
    Float(Vec<f64>),
    Bool(Vec<bool>),
}

/// The columns of a chunk: the next one mostly has the same.
struct Shape {
    columns: Vec<usize>,
    has_overflow: bool,
    schema: SchemaRef,
    described: Arc<Columns>,
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
            overflow: Column::new(schema::OVERFLOW, ValueType::Json),
            overflow_row: String::new(),
            size_bytes: 0,
            text_bytes: 0,
            max_arrival_ns: i64::MIN,
            last_shape: None,
        }
    }

    /// Adds the entries of `queued` from `first_seq` on. Full chunks go to `built`.
    pub fn add(&mut self, queued: &QueuedBatch, first_seq: u64, built: &mut Built) -> Result<()> {
        let batch = &queued.batch;
        let mut slots = Slots::new(batch);
        let mut places = vec![Place::UNKNOWN; batch.n_values() as usize];
        let n_skipped = first_seq.saturating_sub(queued.first.seq);
        let arrival_ns = batch.arrival_ns();
        for (index, entry) in batch.entries().enumerate() {
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
                    self.add_record(batch, &record, position, &mut slots, &mut places)?;
                    if self.is_full() {
                        built.chunks.extend(self.finish()?);
                        slots.clear();
                        places.fill(Place::UNKNOWN);
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
            || CHUNK_TEXT_BYTES_MAX <= self.text_bytes
    }

    fn add_record(
        &mut self,
        batch: &Batch,
        record: &RecordRef<'_>,
        position: Position,
        slots: &mut Slots,
        places: &mut [Place],
    ) -> Result<()> {
        let row = u32::try_from(self.timestamps.len())
            .map_err(|_| Error::internal("a chunk of 4 billion rows"))?;
        self.timestamps.push(record.timestamp_ns);
        self.seqs.push(position.seq);
        self.partitions.push(position.partition);
        self.digits.push(record.timestamp_digits);
        self.flags.push(record.flags.0);
        for number in record.numbers() {
            let Some(place) = places.get_mut(number as usize) else {
                continue;
            };
            if place.column == NO_COLUMN {
                *place = self.place_of(batch, number, slots);
            }
            let place = *place;
            match self.columns.get_mut(place.column as usize) {
                Some(column) => {
                    column.push(row, place.number);
                    self.text_bytes += place.text_bytes as usize;
                }
                None => {
                    if let Some(field) = batch.value(number) {
                        overflow::push(&mut self.overflow_row, field.key, field.value);
                    }
                }
            }
        }
        self.size_bytes += ROW_BYTES + record.n_fields() as usize * 2 * size_of::<u32>();
        if !self.overflow_row.is_empty() {
            overflow::finish(&mut self.overflow_row);
            self.size_bytes += self.overflow_row.len();
            self.text_bytes += self.overflow_row.len();
            let number = self.overflow.add(ValueRef::Json(&self.overflow_row));
            self.overflow.push(row, number);
            self.overflow_row.clear();
        }
        Ok(())
    }

    /// Puts a value of the batch into its column.
    fn place_of(&mut self, batch: &Batch, number: u32, slots: &mut Slots) -> Place {
        let Some(field) = batch.value(number) else {
            // Batches are checked: there is no such number.
            return Place::OVERFLOW;
        };
        let value_type = field.value.value_type();
        let mut index = slots.get(field.key_index, value_type);
        if index == NO_COLUMN {
            index = self.column_of(field.key, value_type);
            slots.set(field.key_index, value_type, index);
        }
        let Some(column) = self.columns.get_mut(index as usize) else {
            return Place::OVERFLOW;
        };
        let text_bytes = match field.value {
            ValueRef::Str(text) | ValueRef::Number(text) | ValueRef::Json(text) => text.len(),
            ValueRef::Null | ValueRef::Bool(_) | ValueRef::Int(_) | ValueRef::Float(_) => 0,
        };
        self.size_bytes += VALUE_BYTES + text_bytes;
        Place {
            column: index,
            number: column.add(field.value),
            text_bytes: u32::try_from(text_bytes).unwrap_or(u32::MAX),
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
        let shape = self.shape()?;
        let timestamps = TimestampNanosecondArray::from(take(&mut self.timestamps));
        let arrays: Vec<ArrayRef> = vec![
            Arc::new(timestamps.with_timezone("UTC")),
            Arc::new(UInt64Array::from(take(&mut self.seqs))),
            Arc::new(UInt32Array::from(take(&mut self.partitions))),
            Arc::new(UInt8Array::from(take(&mut self.digits))),
            Arc::new(UInt32Array::from(take(&mut self.flags))),
        ];
        let system = RecordBatch::try_new(schema::system_schema(), arrays).map_err(|error| {
            Error::internal("columns do not fit their schema").with_source(error)
        })?;
        let mut fields = Vec::with_capacity(shape.columns.len() + 1);
        for index in &shape.columns {
            if let Some(column) = self.columns.get_mut(*index) {
                fields.push(column.finish(n_rows));
            }
        }
        if shape.has_overflow {
            fields.push(self.overflow.finish(n_rows));
        }
        let (schema, described) = (Arc::clone(&shape.schema), Arc::clone(&shape.described));
        self.last_shape = Some(shape);
        let max_arrival_ns = std::mem::replace(&mut self.max_arrival_ns, i64::MIN);
        self.size_bytes = 0;
        let text_bytes = std::mem::take(&mut self.text_bytes);
        // A registry full of columns that are no longer used would push new fields to the overflow.
        if self.limits.columns_max / 2 <= self.columns.len() {
            self.columns.clear();
            self.by_key.clear();
            self.last_shape = None;
        }
        HeadChunk::new(
            schema,
            described,
            system,
            fields,
            max_arrival_ns,
            text_bytes,
        )
        .map(Some)
    }

    /// The columns that have values now.
    fn shape(&mut self) -> Result<Shape> {
        let indexed = self.columns.iter().enumerate();
        let present = indexed.filter(|(_, column)| !column.numbers.is_empty());
        let columns: Vec<usize> = present.map(|(index, _)| index).collect();
        let has_overflow = !self.overflow.numbers.is_empty();
        if let Some(last) = self.last_shape.take()
            && last.columns == columns
            && last.has_overflow == has_overflow
        {
            return Ok(last);
        }
        let fields = columns.iter().filter_map(|index| self.columns.get(*index));
        let fields = fields.map(|column| (&*column.key, column.value_type));
        let schema = schema::schema_of(fields, has_overflow);
        Ok(Shape {
            columns,
            has_overflow,
            described: Arc::new(Columns::from_schema(&schema)?),
            schema: Arc::new(schema),
        })
    }
}

/// Where a value of a batch is kept.
#[derive(Clone, Copy)]
struct Place {
    column: u32,
    number: u32,
    text_bytes: u32,
}

impl Place {
    const UNKNOWN: Self = Self {
        column: NO_COLUMN,
        number: 0,
        text_bytes: 0,
    };
    const OVERFLOW: Self = Self {
        column: IN_OVERFLOW,
        number: 0,
        text_bytes: 0,
    };
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
            rows: Vec::new(),
            numbers: Vec::new(),
            values: Values::new(value_type, (0, 0)),
            last_size: (0, 0),
        }
    }

    /// Keeps a value; returns its number.
    fn add(&mut self, value: ValueRef<'_>) -> u32 {
        if self.values.size() == (0, 0) {
            self.values = Values::new(self.value_type, self.last_size);
        }
        let number = match (&mut self.values, value) {
            (
                Values::Text(values),
                ValueRef::Str(text) | ValueRef::Number(text) | ValueRef::Json(text),
            ) => {
                values.append_value(text);
                values.len()
            }
            (Values::Int(values), ValueRef::Int(value)) => pushed(values, value),
            (Values::Float(values), ValueRef::Float(value)) => pushed(values, value),
            (Values::Bool(values), ValueRef::Bool(value)) => pushed(values, value),
            (Values::Bool(values), ValueRef::Null) => pushed(values, true),
            // A column is found by its value's type: no other pair exists.
            (_, _) => 0,
        };
        // Fewer than the bytes of a chunk.
        u32::try_from(number.saturating_sub(1)).unwrap_or(u32::MAX)
    }

    #[inline]
    fn push(&mut self, row: u32, number: u32) {
        // A second value for the same key: batches have none, and a column with two would fit no row.
        if self.rows.last() != Some(&row) {
            self.rows.push(row);
            self.numbers.push(number);
        }
    }

    fn finish(&mut self, n_rows: usize) -> HeadColumn {
        let rows = (self.rows.len() < n_rows).then(|| self.rows.as_slice().into());
        let numbers = self.numbers.as_slice().into();
        self.rows.clear();
        self.numbers.clear();
        self.last_size = self.values.size();
        let next = Values::new(self.value_type, (0, 0));
        HeadColumn {
            rows,
            numbers,
            values: std::mem::replace(&mut self.values, next).finish(),
        }
    }
}

impl Values {
    /// With room for a little more than (values, bytes of text): growing step by step copies each text twice and more.
    fn new(value_type: ValueType, (len, text_bytes): (usize, usize)) -> Self {
        let len = len + len / 8;
        match value_type {
            ValueType::Null | ValueType::Bool => Self::Bool(Vec::with_capacity(len)),
            ValueType::Int => Self::Int(Vec::with_capacity(len)),
            ValueType::Float => Self::Float(Vec::with_capacity(len)),
            ValueType::Number | ValueType::Str | ValueType::Json => Self::Text(
                StringBuilder::with_capacity(len, text_bytes + text_bytes / 8),
            ),
        }
    }

    /// Values, and the bytes of their texts.
    fn size(&self) -> (usize, usize) {
        match self {
            Self::Text(values) => (values.len(), values.values_slice().len()),
            Self::Int(values) => (values.len(), 0),
            Self::Float(values) => (values.len(), 0),
            Self::Bool(values) => (values.len(), 0),
        }
    }

    fn finish(self) -> ArrayRef {
        match self {
            Self::Text(mut values) => {
                let mut values = values.finish();
                // Grown by doubling: up to half would be unused.
                values.shrink_to_fit();
                Arc::new(values)
            }
            Self::Int(values) => Arc::new(Int64Array::from(values)),
            Self::Float(values) => Arc::new(Float64Array::from(values)),
            Self::Bool(values) => Arc::new(BooleanArray::from(values)),
        }
    }
}

/// The number of values with this one.
fn pushed<T>(values: &mut Vec<T>, value: T) -> usize {
    values.push(value);
    values.len()
}

fn take<T>(values: &mut Vec<T>) -> Vec<T> {
    let capacity = values.len();
    std::mem::replace(values, Vec::with_capacity(capacity))
}
