//! Rows of a part as [`Record`]s: the last step, for the rows of an answer alone.
//!
//! A projection by address takes a field if its address is asked for, lies below one asked for, or is an array of objects above one.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::Array as _;
use roaring::RoaringBitmap;

use crate::common::cancel::Cancel;
use crate::common::error::{Error, Result};
use crate::record::value::ValueType;
use crate::record::{Record, Value, ValueRef, key};
use crate::store::embedded::overflow;
use crate::store::embedded::read::part::{Part, SystemColumns};
use crate::store::embedded::schema::{ColumnInfo, SYSTEM_COLUMNS};
use crate::store::embedded::spill::value_at;

/// Keys shared between the records of one answer.
#[derive(Default)]
pub struct KeyPool(HashMap<String, Arc<str>, ahash::RandomState>);

impl KeyPool {
    fn share(&mut self, key: &str) -> Arc<str> {
        if let Some(shared) = self.0.get(key) {
            return Arc::clone(shared);
        }
        let shared: Arc<str> = key.into();
        self.0.insert(key.to_owned(), Arc::clone(&shared));
        shared
    }
}

/// Whether a field at `address` is wanted.
pub fn is_wanted(address: &str, is_json: bool, fields: Option<&[String]>) -> bool {
    let Some(fields) = fields else {
        return true;
    };
    let is_below = |below: &str, above: &str| {
        below
            .strip_prefix(above)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    fields
        .iter()
        .any(|field| is_below(address, field) || (is_json && is_below(field, address)))
}

/// The records at `rows`, with the row of each, in order of rows.
pub fn records(
    part: &Part,
    rows: &RoaringBitmap,
    fields: Option<&[String]>,
    keys: &mut KeyPool,
    cancel: &Cancel,
) -> Result<Vec<(u32, Record)>> {
    let columns = part.columns();
    let wanted: Vec<&ColumnInfo> = columns
        .fields()
        .iter()
        .filter(|info| is_wanted(&info.address, info.value_type == ValueType::Json, fields))
        .collect();
    let mut indices: Vec<usize> = (0..SYSTEM_COLUMNS.len()).collect();
    indices.extend(wanted.iter().map(|info| info.index));
    indices.extend(columns.overflow());
    let overflow_at = columns
        .overflow()
        .and_then(|index| Part::place(&indices, index));
    let mut records: Vec<(u32, Record)> = Vec::new();
    part.read(&indices, rows, cancel, &mut |chunk| {
        let system = SystemColumns::of(chunk.batch)?;
        let first = records.len();
        for (at, row) in chunk.rows.iter().enumerate() {
            let key = system
                .key(at)
                .ok_or_else(|| Error::internal("a row without a key"))?;
            let record = Record {
                key,
                timestamp_digits: system.digits(at),
                flags: system.flags(at),
                fields: Vec::new(),
            };
            records.push((*row, record));
        }
        let new = records.get_mut(first..).unwrap_or_default();
        let arrays = chunk.batch.columns().iter().skip(SYSTEM_COLUMNS.len());
        for (info, array) in wanted.iter().zip(arrays) {
            if array.null_count() == array.len() {
                continue;
            }
            let key = keys.share(&info.key);
            for (at, (_, record)) in new.iter_mut().enumerate() {
                if let Some(value) = value_at(array, info.value_type, at) {
                    record.fields.push((Arc::clone(&key), value.to_value()));
                }
            }
        }
        if let Some(texts) = overflow_at.and_then(|at| chunk.batch.columns().get(at)) {
            for (at, (_, record)) in new.iter_mut().enumerate() {
                if let Some(ValueRef::Json(text)) = value_at(texts, ValueType::Json, at) {
                    push_overflow(text, fields, keys, &mut record.fields)?;
                }
            }
        }
        Ok(())
    })?;
    Ok(records)
}

fn push_overflow(
    text: &str,
    fields: Option<&[String]>,
    keys: &mut KeyPool,
    into: &mut Vec<(Arc<str>, Value)>,
) -> Result<()> {
    for (field, value) in overflow::parse(text)? {
        if is_wanted(
            &key::address(&field),
            matches!(value, Value::Json(_)),
            fields,
        ) {
            into.push((keys.share(&field), value));
        }
    }
    Ok(())
}
