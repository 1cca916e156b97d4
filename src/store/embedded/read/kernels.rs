//! Fast ways to the same answers: text found over a whole column's buffer, and what a type of value can never match.

use std::ops::Bound;

use arrow::array::{Array as _, ArrayRef, AsArray as _, StringArray};
use arrow::datatypes::TimestampNanosecondType;

use crate::common::cancel::Cancel;
use crate::common::error::{Error, Result};
use crate::query::Match;
use crate::record::value::ValueType;

/// U+212A KELVIN SIGN: the one character outside ASCII whose lower case is an ASCII letter alone.
const KELVIN: &[u8] = "\u{212a}".as_bytes();

/// False only if no value of this type can match.
pub fn can_match(matcher: &Match, value_type: ValueType) -> bool {
    let is_number = |text: &str| text.bytes().any(|b| b.is_ascii_digit());
    let is_bool =
        |text: &str| text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false");
    match value_type {
        ValueType::Null => false,
        ValueType::Str | ValueType::Json => true,
        ValueType::Bool => match matcher {
            Match::Words { text, .. } | Match::Exact(text) => is_bool(text),
            Match::Contains(_) | Match::Cidr(_) => false,
            // Without bounds it asks whether the field is there.
            Match::Range { low, high } => {
                matches!((low, high), (Bound::Unbounded, Bound::Unbounded))
            }
            Match::OneOf(_) | Match::Wildcard(_) | Match::Regex(_) | Match::Exists => true,
        },
        ValueType::Int | ValueType::Float | ValueType::Number => match matcher {
            Match::Words { text, .. } | Match::Exact(text) => is_number(text),
            Match::Contains(_) | Match::Cidr(_) => false,
            Match::OneOf(_)
            | Match::Wildcard(_)
            | Match::Regex(_)
            | Match::Range { .. }
            | Match::Exists => true,
        },
    }
}

/// Finds candidates for a term over the text of many rows at once.
pub struct TextSearch {
    finder: Finder,
    /// The text sought holds a `k`, which a Kelvin sign also is.
    holds_k: bool,
}

enum Finder {
    Exact(Box<memchr::memmem::Finder<'static>>),
    /// ASCII, without case.
    AnyCase(regex::bytes::Regex),
}

impl TextSearch {
    pub fn new(matcher: &Match) -> Option<Self> {
        let sought = match matcher {
            Match::Words { tokens, .. } => tokens.iter().max_by_key(|token| token.len())?,
            Match::Contains(text) => text,
            _ => return None,
        };
        if sought.is_empty() || !sought.is_ascii() {
            return None;
        }
        let finder = if sought.bytes().any(|b| b.is_ascii_alphabetic()) {
            let regex = regex::bytes::RegexBuilder::new(&regex::escape(sought))
                .case_insensitive(true)
                .unicode(false)
                .build();
            Finder::AnyCase(regex.ok()?)
        } else {
            let finder = memchr::memmem::Finder::new(sought.as_bytes());
            Finder::Exact(Box::new(finder.into_owned()))
        };
        Some(Self {
            finder,
            holds_k: sought.bytes().any(|b| b.eq_ignore_ascii_case(&b'k')),
        })
    }

    fn find(&self, text: &[u8], at: usize) -> Option<usize> {
        match &self.finder {
            Finder::Exact(finder) => finder.find(text.get(at..)?).map(|found| at + found),
            Finder::AnyCase(regex) => regex.find_at(text, at).map(|found| found.start()),
        }
    }

    /// Appends the places whose text `matches`; false if this search cannot tell.
    pub fn run(
        &self,
        texts: &StringArray,
        matches: impl Fn(&str) -> bool,
        cancel: &Cancel,
        places: &mut Vec<u32>,
    ) -> Result<bool> {
        let ends = texts.offsets().get(1..).unwrap_or_default();
        let offset = |value: i32| usize::try_from(value).unwrap_or(0);
        let start = texts.offsets().first().map_or(0, |first| offset(*first));
        let end = ends.last().map_or(start, |last| offset(*last));
        let Some(text) = texts.values().get(..end) else {
            return Ok(false);
        };
        let is_unsafe = self.holds_k
            && memchr::memmem::find(text.get(start..).unwrap_or_default(), KELVIN).is_some();
        if is_unsafe {
            return Ok(false);
        }
        let mut at = start;
        let mut row = 0;
        let mut n_found = 0_usize;
        while let Some(found) = self.find(text, at) {
            n_found += 1;
            if n_found.is_multiple_of(64) {
                cancel.check()?;
            }
            row += row_of(ends.get(row..).unwrap_or_default(), found);
            let Some(row_end) = ends.get(row) else {
                break;
            };
            if texts.is_valid(row) && matches(texts.value(row)) {
                places.push(u32::try_from(row).unwrap_or(u32::MAX));
            }
            at = offset(*row_end);
            row += 1;
        }
        Ok(true)
    }
}

/// How many of the ends lie at or before `found`: near ones first.
fn row_of(ends: &[i32], found: usize) -> usize {
    let is_before = |end: &i32| usize::try_from(*end).is_ok_and(|end| end <= found);
    let mut step = 1;
    while ends.get(step).is_some_and(is_before) {
        step *= 2;
    }
    let from = step / 2;
    let to = ends.len().min(step + 1);
    from + ends
        .get(from..to)
        .unwrap_or_default()
        .partition_point(is_before)
}

pub fn times(array: &ArrayRef) -> Result<&[i64]> {
    array
        .as_primitive_opt::<TimestampNanosecondType>()
        .map(|times| &**times.values())
        .ok_or_else(|| Error::corrupt("the column of the time is not of its type"))
}
