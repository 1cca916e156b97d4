//! Lines of text: which lines belong together ([`join`]), and what a line says about itself ([`read`]): its time, its level, its source, its
//! fields. The line stays whole as the record's message; nothing is cut out of it.
//!
//! One file for each family of formats. A family answers only when it is sure; what no family knows is a message without a time of its own.

mod access;
mod join;
mod level;
mod logfmt;
mod prefixed;
mod syslog;

use std::borrow::Cow;

use crate::record::ValueRef;
use crate::record::timestamp::Time;
use crate::wire::json::number_value;

pub use join::Lines;

#[derive(Clone, Debug)]
pub struct TextOptions {
    /// Whether stack traces and other continuation lines belong to the line before them.
    pub joins_lines: bool,
    /// Lines of one record.
    pub joined_lines_max: usize,
    /// Bytes of one record made of several lines.
    pub joined_bytes_max: usize,
}

impl Default for TextOptions {
    fn default() -> Self {
        Self {
            joins_lines: true,
            joined_lines_max: 500,
            joined_bytes_max: 256 << 10,
        }
    }
}

/// What a line says about itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found<'a> {
    pub time: Option<Time>,
    pub level: Option<&'a str>,
    pub source: Option<&'a str>,
    pub fields: Vec<(Cow<'a, str>, FieldValue<'a>)>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum FieldValue<'a> {
    Text(Cow<'a, str>),
    /// The text of a JSON number.
    Number(&'a str),
}

impl FieldValue<'_> {
    pub fn as_value_ref(&self) -> ValueRef<'_> {
        match self {
            Self::Text(text) => ValueRef::Str(text),
            Self::Number(text) => number_value(text),
        }
    }
}

impl<'a> Found<'a> {
    fn text(&mut self, name: &'static str, value: &'a str) {
        self.fields
            .push((Cow::Borrowed(name), FieldValue::Text(Cow::Borrowed(value))));
    }

    /// A number where the text is one, else the text.
    fn number_or_text(&mut self, name: &'static str, value: &'a str) {
        self.fields.push((Cow::Borrowed(name), scalar(value)));
    }
}

fn scalar(value: &str) -> FieldValue<'_> {
    if is_json_number(value) {
        FieldValue::Number(value)
    } else {
        FieldValue::Text(Cow::Borrowed(value))
    }
}

/// `-12`, `3.5`; not `007`, `1.`, `1e5` (a hash, more often than not).
fn is_json_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = match digits.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (digits, None),
    };
    let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    all_digits(whole)
        && (whole.len() == 1 || !whole.starts_with('0'))
        && fraction.is_none_or(all_digits)
}

/// Reads the first line of `text`.
pub fn read(text: &str, arrival_ns: i64) -> Found<'_> {
    let line_end = memchr::memchr(b'\n', text.as_bytes()).unwrap_or(text.len());
    let line = text.get(..line_end).unwrap_or(text).trim_end();
    let found = match line.as_bytes().first() {
        Some(b'<') => syslog::with_priority(line, arrival_ns),
        Some(b'[') => prefixed::bracketed(line, arrival_ns),
        Some(b'-') => prefixed::labelled(line, arrival_ns),
        _ => prefixed::klog(line, arrival_ns)
            .or_else(|| prefixed::time_first(line, arrival_ns))
            .or_else(|| access::read(line, arrival_ns))
            .or_else(|| logfmt::read(line)),
    };
    found.unwrap_or_else(|| Found {
        level: level::at_start(line),
        ..Found::default()
    })
}

/// Whether the line begins with a time, for the joining of lines.
fn begins_with_time(line: &[u8], arrival_ns: i64) -> bool {
    let line = match line {
        [b'<', rest @ ..] => {
            let end = rest.iter().take(4).position(|b| *b == b'>');
            let rest = end.and_then(|end| rest.get(end + 1..)).unwrap_or(rest);
            rest.strip_prefix(b"1 ").unwrap_or(rest)
        }
        [b'[', rest @ ..] => rest,
        _ => line,
    };
    crate::record::timestamp::parse_prefix(line, arrival_ns).is_some()
}

#[cfg(test)]
mod tests;
