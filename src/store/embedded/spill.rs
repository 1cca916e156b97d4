//! More columns than a segment may have: the rarest fields move to the overflow column. This module must not know files.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray as _, StringArray, StringBuilder};
use arrow::datatypes::{Float64Type, Int64Type};
use hashbrown::{HashMap, HashSet};

use crate::common::error::{Error, Result};
use crate::record::value::{ValueRef, ValueType};
use crate::record::{LEVEL, MESSAGE, SOURCE};
use crate::store::embedded::overflow;
use crate::store::embedded::schema::{self, ColumnInfo, Columns};
use crate::store::embedded::snapshot::{HeadChunk, HeadColumn};

type FieldKey = (Arc<str>, ValueType);

/// Chooses the fields that get a column: the standard ones, then those with the most values, ties by key.
pub fn keep(
    counts: HashMap<FieldKey, u64, ahash::RandomState>,
    columns_max: usize,
) -> HashSet<FieldKey, ahash::RandomState> {
    let mut fields: Vec<_> = counts.into_iter().collect();
    fields.sort_unstable_by(|((key_a, type_a), n_a), ((key_b, type_b), n_b)| {
        let is_plain = |key: &str| ![LEVEL, SOURCE, MESSAGE].contains(&key);
        (is_plain(key_a), n_b, key_a, type_a).cmp(&(is_plain(key_b), n_a, key_b, type_b))
    });
    let kept = fields.into_iter().take(columns_max);
    kept.map(|(field, _)| field).collect()
}

/// The same rows with at most `columns_max` field columns over all chunks.
pub fn within(chunks: Vec<Arc<HeadChunk>>, columns_max: usize) -> Result<Vec<Arc<HeadChunk>>> {
    let mut counts: HashMap<FieldKey, u64, ahash::RandomState> = HashMap::default();
    for chunk in &chunks {
        for info in chunk.columns.fields() {
            let n_values = chunk.field(info.index).map_or(0, HeadColumn::n_values);
            let field = (Arc::clone(&info.key), info.value_type);
            *counts.entry(field).or_insert(0) += n_values as u64;
        }
    }
    if counts.len() <= columns_max {
        return Ok(chunks);
    }
    let kept = keep(counts, columns_max);
    chunks
        .into_iter()
        .map(|chunk| spill_chunk(&chunk, &kept).map(|spilled| spilled.map_or(chunk, Arc::new)))
        .collect()
}

fn spill_chunk(
    chunk: &HeadChunk,
    kept: &HashSet<FieldKey, ahash::RandomState>,
) -> Result<Option<HeadChunk>> {
    let rows: Vec<u32> = (0..).take(chunk.n_rows()).collect();
    let whole = |column: &HeadColumn| {
        let array = column.take(&rows);
        array.map_err(|error| Error::internal("cannot spill columns").with_source(error))
    };
    let mut fields = Vec::new();
    let mut columns: Vec<HeadColumn> = Vec::new();
    let mut spilled: Vec<(&ColumnInfo, ArrayRef)> = Vec::new();
    for info in chunk.columns.fields() {
        let Some(column) = chunk.field(info.index) else {
            continue;
        };
        if kept.contains(&(Arc::clone(&info.key), info.value_type)) {
            fields.push((&*info.key, info.value_type));
            columns.push(column.clone());
        } else {
            spilled.push((info, whole(column)?));
        }
    }
    if spilled.is_empty() {
        return Ok(None);
    }
    let old = chunk.columns.overflow();
    let old = old.and_then(|index| chunk.field(index));
    let old = old.map(whole).transpose()?;
    let old = old.as_ref().and_then(|array| array.as_string_opt::<i32>());
    let spilled: Vec<_> = spilled.iter().map(|(info, array)| (*info, array)).collect();
    let joined = join(old, &spilled, chunk.n_rows());
    let present: Arc<[u32]> = rows
        .into_iter()
        .filter(|row| joined.is_valid(*row as usize))
        .collect();
    columns.push(HeadColumn {
        numbers: (0..).take(present.len()).collect(),
        rows: Some(present),
        values: Arc::new(StringArray::from_iter_values(joined.iter().flatten())),
    });
    let schema = Arc::new(schema::schema_of(fields, true));
    let described = Arc::new(Columns::from_schema(&schema)?);
    let system = chunk.system.clone();
    let (max_arrival_ns, text_bytes) = (chunk.max_arrival_ns, chunk.text_bytes);
    HeadChunk::new(
        schema,
        described,
        system,
        columns,
        max_arrival_ns,
        text_bytes,
    )
    .map(Some)
}

/// The overflow objects of `old` with the values of `spilled` added.
pub fn join(
    old: Option<&StringArray>,
    spilled: &[(&ColumnInfo, &ArrayRef)],
    n_rows: usize,
) -> StringArray {
    let mut builder = StringBuilder::with_capacity(n_rows, n_rows * 16);
    let mut json = String::new();
    for row in 0..n_rows {
        json.clear();
        if let Some(old) = old.filter(|old| old.is_valid(row)) {
            // Reopened: the closing brace comes again below.
            let object = old.value(row);
            json.push_str(object.strip_suffix('}').unwrap_or(object));
        }
        for (info, array) in spilled {
            if let Some(value) = value_at(array, info.value_type, row) {
                overflow::push(&mut json, &info.key, value);
            }
        }
        if json.is_empty() {
            builder.append_null();
        } else {
            overflow::finish(&mut json);
            builder.append_value(&json);
        }
    }
    builder.finish()
}

/// The value of a field's column in a row; `None` where the record has no such field.
pub fn value_at(array: &ArrayRef, value_type: ValueType, row: usize) -> Option<ValueRef<'_>> {
    if array.len() <= row || array.is_null(row) {
        return None;
    }
    let text = || array.as_string_opt::<i32>().map(|texts| texts.value(row));
    match value_type {
        ValueType::Null => Some(ValueRef::Null),
        ValueType::Bool => Some(ValueRef::Bool(array.as_boolean_opt()?.value(row))),
        ValueType::Int => Some(ValueRef::Int(
            array.as_primitive_opt::<Int64Type>()?.value(row),
        )),
        ValueType::Float => Some(ValueRef::Float(
            array.as_primitive_opt::<Float64Type>()?.value(row),
        )),
        ValueType::Number => text().map(ValueRef::Number),
        ValueType::Str => text().map(ValueRef::Str),
        ValueType::Json => text().map(ValueRef::Json),
    }
}
