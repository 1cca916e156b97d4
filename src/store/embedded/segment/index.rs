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

use std::borrow::Cow;
use std::hash::Hash;
use std::io;

use arrow::array::{Array as _, ArrayRef, AsArray as _};
use arrow::datatypes::{Float64Type, Int64Type};
use hashbrown::HashMap;
use logyard_tokens::{IndexBuilder, IndexReader, NO_KEY, ReadAt, ValueTokens};

use crate::record::leaves::any_leaf;
use crate::record::value::{Value, ValueRef, ValueType};
use crate::store::embedded::overflow;
use crate::store::embedded::segment::file::SegmentFile;
use crate::store::embedded::segment::write::Words;

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

/// Adds a stretch of a column: the rows of `array` from `first_row` of the row group on. `value_type` is that of the field, `None` for the overflow
/// column.
pub fn add_column(
    index: &mut IndexBuilder,
    column: u32,
    first_row: u32,
    value_type: Option<ValueType>,
    array: &ArrayRef,
) {
    let stretch = Stretch {
        index,
        column,
        first_row,
        numbers: None,
    };
    stretch.add_array(value_type, array);
}

/// Adds a column of the row group whose distinct values are known.
pub fn add_words(
    index: &mut IndexBuilder,
    column: u32,
    value_type: Option<ValueType>,
    words: &Words,
) {
    let stretch = Stretch {
        index,
        column,
        first_row: 0,
        numbers: Some(&words.numbers),
    };
    stretch.add_array(value_type, &words.values);
}

/// The value under which a number is indexed: that of its nearest double.
pub fn number_value(text: &str) -> String {
    match text.parse::<f64>() {
        Ok(value) => float_value(value),
        Err(_) => text.to_owned(),
    }
}

/// As `f64::to_string` has it, which is four times slower: the shortest digits that name the double, and never an exponent.
fn float_value(value: f64) -> String {
    // Two spellings of up to so many digits never name the same double, so that there is just one shortest.
    const DIGITS_UNIQUE_MAX: usize = 15;
    // Both zeros are equal.
    if value == 0.0 {
        return "0".to_owned();
    }
    let mut buffer = zmij::Buffer::new();
    let text = buffer.format(value);
    let is_plain = text.len() <= DIGITS_UNIQUE_MAX && value.is_finite() && !text.contains('e');
    if is_plain {
        text.strip_suffix(".0").unwrap_or(text).to_owned()
    } else {
        value.to_string()
    }
}

fn bool_value(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}

fn int_value(value: i64, buffer: &mut itoa::Buffer) -> Cow<'_, str> {
    // Up to here a double has the digits of the integer.
    const EXACT: u64 = 1 << 53;
    if value.unsigned_abs() <= EXACT {
        buffer.format(value).into()
    } else {
        float_value(value as f64).into()
    }
}

/// Where tokens go: to a row, or to a value of a dictionary.
trait Tokens {
    fn text(&mut self, text: &str);
    fn value(&mut self, value: &str);
}

impl Tokens for ValueTokens {
    fn text(&mut self, text: &str) {
        self.text(text);
    }

    fn value(&mut self, value: &str) {
        self.value(value);
    }
}

struct RowTokens<'a> {
    index: &'a mut IndexBuilder,
    row: u32,
    column: u32,
}

impl Tokens for RowTokens<'_> {
    fn text(&mut self, text: &str) {
        self.index.add_text(self.row, self.column, text);
    }

    fn value(&mut self, value: &str) {
        self.index.add_value(self.row, self.column, value);
    }
}

/// Rows of a column on their way into the index.
struct Stretch<'a> {
    index: &'a mut IndexBuilder,
    column: u32,
    first_row: u32,
    /// Where the values are already numbered: for each row the number of its value, or [`NO_KEY`].
    numbers: Option<&'a [u32]>,
}

impl Stretch<'_> {
    fn add_array(mut self, value_type: Option<ValueType>, array: &ArrayRef) {
        if array.null_count() == array.len() {
            return;
        }
        match value_type {
            Some(ValueType::Null) => {}
            Some(ValueType::Bool) => self.add(array.as_boolean().iter(), |value, tokens| {
                tokens.value(bool_value(value));
            }),
            Some(ValueType::Int) => {
                let mut buffer = itoa::Buffer::new();
                let values = array.as_primitive::<Int64Type>().iter();
                self.add(values, |value, tokens| {
                    tokens.value(&int_value(value, &mut buffer));
                });
            }
            Some(ValueType::Float) => {
                let values = array.as_primitive::<Float64Type>().iter();
                let values = values.map(|value| value.map(f64::to_bits));
                self.add(values, |bits, tokens| {
                    tokens.value(&float_value(f64::from_bits(bits)));
                });
            }
            Some(ValueType::Number) => self.add(array.as_string::<i32>().iter(), |text, tokens| {
                tokens.value(&number_value(text));
            }),
            Some(ValueType::Str) => {
                self.add(array.as_string::<i32>().iter(), |text, tokens| {
                    tokens.text(text);
                });
            }
            Some(ValueType::Json) => self.add(array.as_string::<i32>().iter(), |text, tokens| {
                add_json(tokens, text);
            }),
            None => self.add(array.as_string::<i32>().iter(), |text, tokens| {
                add_overflow(tokens, text);
            }),
        }
    }

    /// `add` says what is to be found in a value: once for each distinct one where they repeat, else for each row.
    fn add<T: Hash + Eq + Copy>(
        &mut self,
        rows: impl ExactSizeIterator<Item = Option<T>> + Clone,
        mut add: impl FnMut(T, &mut dyn Tokens),
    ) {
        let numbered = match self.numbers {
            Some(numbers) => Some((rows.clone().flatten().collect(), Cow::Borrowed(numbers))),
            None => dictionary(rows.clone()).map(|(values, keys)| (values, Cow::Owned(keys))),
        };
        if let Some((values, keys)) = numbered {
            let values: Vec<T> = values;
            let (column, n_values) = (self.column, values.len());
            let of_value = |value: usize, tokens: &mut ValueTokens| {
                if let Some(value) = values.get(value) {
                    add(*value, tokens);
                }
            };
            self.index
                .add_dictionary(column, self.first_row, &keys, n_values, of_value);
            return;
        }
        for (row, value) in (self.first_row..).zip(rows) {
            if let Some(value) = value {
                let mut tokens = RowTokens {
                    index: self.index,
                    row,
                    column: self.column,
                };
                add(value, &mut tokens);
            }
        }
    }
}

fn add_json(tokens: &mut dyn Tokens, json: &str) {
    any_leaf(json, |_, leaf| {
        add_leaf(tokens, leaf);
        false
    });
}

fn add_leaf(tokens: &mut dyn Tokens, leaf: ValueRef<'_>) {
    match leaf {
        ValueRef::Str(text) => tokens.text(text),
        ValueRef::Int(value) => tokens.value(&int_value(value, &mut itoa::Buffer::new())),
        ValueRef::Float(value) => tokens.value(&float_value(value)),
        ValueRef::Number(text) => tokens.value(&number_value(text)),
        ValueRef::Bool(value) => tokens.value(bool_value(value)),
        // Leaves are never arrays or objects with something inside.
        ValueRef::Null | ValueRef::Json(_) => {}
    }
}

fn add_overflow(tokens: &mut dyn Tokens, json: &str) {
    if json.is_empty() {
        return;
    }
    for (_, value) in overflow::parse(json).unwrap_or_default() {
        match value {
            Value::Json(json) => add_json(tokens, &json),
            other => add_leaf(tokens, other.as_value_ref()),
        }
    }
}

type Dictionary<T> = (Vec<T>, Vec<u32>);

/// Whether `n_distinct` of `n_values` values are so many that numbering them is not worth it.
pub fn is_too_many(n_distinct: usize, n_values: usize) -> bool {
    TRIAL_ROWS.max(n_values) < n_distinct * ROWS_PER_VALUE || DICTIONARY_VALUES_MAX < n_distinct
}

/// Distinct values and the key of each row, or [`NO_KEY`], if values repeat enough.
fn dictionary<T: Hash + Eq + Copy>(
    rows: impl ExactSizeIterator<Item = Option<T>>,
) -> Option<Dictionary<T>> {
    let mut values: Vec<T> = Vec::new();
    let mut keys: Vec<u32> = Vec::with_capacity(rows.len());
    let mut known: HashMap<T, u32, ahash::RandomState> = HashMap::default();
    let mut last: Option<(T, u32)> = None;
    let mut n_values = 0;
    for value in rows {
        let Some(value) = value else {
            keys.push(NO_KEY);
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
        keys.push(key);
        if is_too_many(values.len(), n_values) {
            return None;
        }
    }
    Some((values, keys))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray};
    use logyard_tokens::{Candidates, IndexOptions};

    use proptest::prelude::*;

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

    proptest! {
        #[test]
        fn doubles_are_spelled_as_the_format_has_them(bits: u64, integer: i64, shift in 0_i32..300) {
            let value = f64::from_bits(bits);
            let scaled = integer as f64 * 10_f64.powi(shift - 150);
            for value in [value, scaled, integer as f64, integer as f64 / 1_000.0] {
                let expected = if value == 0.0 { "0".to_owned() } else { value.to_string() };
                prop_assert_eq!(float_value(value), expected);
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
        add_column(&mut builder, 5, 0, Some(ValueType::Str), &texts);
        let ints: ArrayRef = Arc::new(Int64Array::from_iter_values(
            (0..n).map(|i| i64::from(i) % 3),
        ));
        add_column(&mut builder, 6, 0, Some(ValueType::Int), &ints);
        let json = r#"{"a":["Caf\u00e9", 7.0, true]}"#;
        let jsons: ArrayRef = Arc::new(StringArray::from(vec![Some(json); n as usize]));
        add_column(&mut builder, 7, 0, Some(ValueType::Json), &jsons);
        let over: ArrayRef = Arc::new(StringArray::from(vec![
            Some(r#"{"k":"deep sea","l":[12]}"#);
            n as usize
        ]));
        add_column(&mut builder, 8, 0, None, &over);
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
        assert_eq!(keys[..4], [0, NO_KEY, 1, NO_KEY]);
    }
}
