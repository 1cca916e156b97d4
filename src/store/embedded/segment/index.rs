//! What of a row goes into the token index, and how it is looked up. Each row group has an index of its own, over its rows counted from 0: so building
//! one needs memory for a row group, whatever the segment's size. A column's number in the index is its index in the schema.
//!
//! - `Str` and the overflow column: the tokens of the text (of the overflow's strings, and the rest as in `Json`).
//! - `Json`: each scalar leaf by its own type.
//! - `Int`, `Float`, `Number`: one value, [`number_value`]: equal numbers have equal ones, whatever their type or spelling. It shares the space of tokens: a
//!   look-up of `500` in any column finds texts with that token and numbers equal to it.
//! - `Bool`: one value, `true` or `false`. `Null`: nothing.
//!
//! Timestamp, position and flags are not indexed. What the index finds beyond exact rows must be verified on the rows.

use std::io;

use arrow::array::{
    Array as _, ArrayRef, AsArray as _, BooleanArray, Float64Array, Int64Array, StringArray,
};
use arrow::datatypes::{Float64Type, Int64Type};
use hashbrown::HashMap;
use logyard_tokens::{IndexBuilder, IndexReader, ReadAt};

use crate::record::leaves::any_leaf;
use crate::record::value::{Value, ValueRef, ValueType};
use crate::store::embedded::overflow;
use crate::store::embedded::segment::file::SegmentFile;

/// A column is taken for a dictionary while it has at most one distinct value for so many rows.
const ROWS_PER_VALUE: usize = 4;
const DICTIONARY_VALUES_MAX: usize = 16_384;
/// Rows before the first look at how many values are distinct.
const TRIAL_ROWS: usize = 512;

/// An index inside a segment's file, as `crates/tokens` reads it.
#[derive(Clone)]
pub struct IndexBytes {
    pub file: SegmentFile,
    pub offset: u64,
}

pub type Index = IndexReader<IndexBytes>;

impl ReadAt for IndexBytes {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, self.offset + offset)
    }
}

/// Adds a column of a row group. `value_type` is that of the field, `None` for the overflow column.
pub fn add_column(
    index: &mut IndexBuilder,
    column: u32,
    value_type: Option<ValueType>,
    array: &ArrayRef,
) {
    if array.null_count() == array.len() {
        return;
    }
    match value_type {
        Some(ValueType::Null) => {}
        Some(ValueType::Bool) => add_bools(index, column, array.as_boolean()),
        Some(ValueType::Int) => add_ints(index, column, array.as_primitive::<Int64Type>()),
        Some(ValueType::Float) => add_floats(index, column, array.as_primitive::<Float64Type>()),
        Some(ValueType::Number) => {
            for (row, text) in (0..).zip(array.as_string::<i32>()) {
                if let Some(text) = text {
                    index.add_value(row, column, &number_value(text));
                }
            }
        }
        Some(ValueType::Str) => add_texts(index, column, array.as_string::<i32>()),
        Some(ValueType::Json) => {
            for (row, text) in (0..).zip(array.as_string::<i32>()) {
                add_json(index, row, column, text.unwrap_or_default());
            }
        }
        None => {
            for (row, text) in (0..).zip(array.as_string::<i32>()) {
                add_overflow(index, row, column, text.unwrap_or_default());
            }
        }
    }
}

/// The value under which a number is indexed: that of its nearest double.
pub fn number_value(text: &str) -> String {
    match text.parse::<f64>() {
        Ok(value) => float_value(value),
        Err(_) => text.to_owned(),
    }
}

fn float_value(value: f64) -> String {
    // Both zeros are equal.
    if value == 0.0 {
        "0".to_owned()
    } else {
        value.to_string()
    }
}

fn int_value(value: i64, buffer: &mut itoa::Buffer) -> std::borrow::Cow<'_, str> {
    // Up to here a double has the digits of the integer.
    const EXACT: u64 = 1 << 53;
    if value.unsigned_abs() <= EXACT {
        buffer.format(value).into()
    } else {
        float_value(value as f64).into()
    }
}

fn add_bools(index: &mut IndexBuilder, column: u32, array: &BooleanArray) {
    let keys: Vec<Option<u32>> = array.iter().map(|value| value.map(u32::from)).collect();
    index.add_dictionary_values(column, &["false", "true"], &keys);
}

fn add_ints(index: &mut IndexBuilder, column: u32, array: &Int64Array) {
    let mut buffer = itoa::Buffer::new();
    if let Some((values, keys)) = dictionary(array.iter()) {
        let values: Vec<String> = values
            .into_iter()
            .map(|value| int_value(value, &mut buffer).into_owned())
            .collect();
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        index.add_dictionary_values(column, &values, &keys);
        return;
    }
    for (row, value) in (0..).zip(array.iter()) {
        if let Some(value) = value {
            index.add_value(row, column, &int_value(value, &mut buffer));
        }
    }
}

fn add_floats(index: &mut IndexBuilder, column: u32, array: &Float64Array) {
    for (row, value) in (0..).zip(array.iter()) {
        if let Some(value) = value {
            index.add_value(row, column, &float_value(value));
        }
    }
}

fn add_texts(index: &mut IndexBuilder, column: u32, array: &StringArray) {
    if let Some((values, keys)) = dictionary(array.iter()) {
        index.add_dictionary_text(column, &values, &keys);
        return;
    }
    for (row, text) in (0..).zip(array.iter()) {
        if let Some(text) = text {
            index.add_text(row, column, text);
        }
    }
}

fn add_json(index: &mut IndexBuilder, row: u32, column: u32, json: &str) {
    any_leaf(json, |_, leaf| {
        add_leaf(index, row, column, leaf);
        false
    });
}

fn add_leaf(index: &mut IndexBuilder, row: u32, column: u32, leaf: ValueRef<'_>) {
    match leaf {
        ValueRef::Str(text) => index.add_text(row, column, text),
        ValueRef::Int(value) => {
            index.add_value(row, column, &int_value(value, &mut itoa::Buffer::new()));
        }
        ValueRef::Float(value) => index.add_value(row, column, &float_value(value)),
        ValueRef::Number(text) => index.add_value(row, column, &number_value(text)),
        ValueRef::Bool(value) => index.add_value(row, column, if value { "true" } else { "false" }),
        // Leaves are never arrays or objects with something inside.
        ValueRef::Null | ValueRef::Json(_) => {}
    }
}

fn add_overflow(index: &mut IndexBuilder, row: u32, column: u32, json: &str) {
    if json.is_empty() {
        return;
    }
    for (_, value) in overflow::parse(json).unwrap_or_default() {
        match value {
            Value::Json(json) => add_json(index, row, column, &json),
            other => add_leaf(index, row, column, other.as_value_ref()),
        }
    }
}

type Dictionary<T> = (Vec<T>, Vec<Option<u32>>);

/// Distinct values and the key of each row, if values repeat enough.
fn dictionary<T: std::hash::Hash + Eq + Copy>(
    rows: impl ExactSizeIterator<Item = Option<T>>,
) -> Option<Dictionary<T>> {
    let mut values: Vec<T> = Vec::new();
    let mut keys: Vec<Option<u32>> = Vec::with_capacity(rows.len());
    let mut known: HashMap<T, u32, ahash::RandomState> = HashMap::default();
    let mut last: Option<(T, u32)> = None;
    let mut n_values = 0;
    for value in rows {
        let Some(value) = value else {
            keys.push(None);
            continue;
        };
        n_values += 1;
        let key = match last {
            Some((same, key)) if same == value => key,
            _ => *known.entry(value).or_insert_with(|| {
                values.push(value);
                // Bounded by `DICTIONARY_VALUES_MAX`.
                values.len() as u32 - 1
            }),
        };
        last = Some((value, key));
        keys.push(Some(key));
        let is_too_many = TRIAL_ROWS.max(n_values) < values.len() * ROWS_PER_VALUE
            || DICTIONARY_VALUES_MAX < values.len();
        if is_too_many {
            return None;
        }
    }
    Some((values, keys))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use logyard_tokens::{Candidates, IndexOptions};

    use super::*;

    fn rows(index: &IndexReader<Vec<u8>>, column: Option<u32>, token: &str) -> Vec<u32> {
        match index.lookup(column, token).unwrap() {
            Candidates::Empty => Vec::new(),
            Candidates::Pages(pages) => pages.iter().map(|page| page * 4).collect(),
            Candidates::Rows(rows) => rows.iter().collect(),
        }
    }

    #[test]
    fn equal_numbers_have_equal_values_whatever_their_type() {
        let mut buffer = itoa::Buffer::new();
        for (int, texts) in [
            (500, &["500", "5e2", "500.0"][..]),
            (0, &["0", "-0", "-0.0", "0e9"]),
            (-7, &["-7"]),
            (i64::MAX, &["9223372036854775807", "9223372036854775808"]),
        ] {
            for text in texts {
                assert_eq!(int_value(int, &mut buffer), number_value(text), "{text}");
                assert_eq!(float_value(int as f64), number_value(text), "{text}");
            }
        }
    }

    #[test]
    fn every_type_of_value_is_found() {
        let n = 64;
        let options = IndexOptions {
            page_rows: 4,
            // Absent tokens are found by chance once in eight, with another seed on each run.
            fingerprint_bits: 16,
            seed: Some(7),
            ..IndexOptions::default()
        };
        let mut builder = IndexBuilder::new(n, options);
        let texts: ArrayRef = Arc::new(StringArray::from_iter(
            (0..n).map(|i| (i % 2 == 0).then(|| format!("Half-{i}"))),
        ));
        add_column(&mut builder, 5, Some(ValueType::Str), &texts);
        let ints: ArrayRef = Arc::new(Int64Array::from_iter_values(
            (0..n).map(|i| i64::from(i) % 3),
        ));
        add_column(&mut builder, 6, Some(ValueType::Int), &ints);
        let json = r#"{"a":["Caf\u00e9", 7.0, true]}"#;
        let jsons: ArrayRef = Arc::new(StringArray::from(vec![Some(json); n as usize]));
        add_column(&mut builder, 7, Some(ValueType::Json), &jsons);
        let over: ArrayRef = Arc::new(StringArray::from(vec![
            Some(r#"{"k":"deep sea","l":[12]}"#);
            n as usize
        ]));
        add_column(&mut builder, 8, None, &over);
        let bytes = builder.finish();
        let len = bytes.len() as u64;
        let index = IndexReader::open(bytes, len).unwrap();
        for token in ["half", "café", "7", "true", "sea", "12", "2", "62"] {
            assert_ne!(rows(&index, None, token), [0; 0], "{token}");
        }
        for token in ["absent", "caf", "u00e9", "k"] {
            assert_eq!(rows(&index, None, token), [0; 0], "{token}");
        }
        assert_eq!(rows(&index, None, "62"), [60]);
    }

    #[test]
    fn a_dictionary_is_given_up_when_values_do_not_repeat() {
        assert!(dictionary((0..5_000).map(Some)).is_none());
        let (values, keys) = dictionary((0..5_000).map(|i| (i % 2 == 0).then_some(i % 6))).unwrap();
        assert_eq!(values, [0, 2, 4]);
        assert_eq!(keys[..4], [Some(0), None, Some(1), None]);
    }
}
