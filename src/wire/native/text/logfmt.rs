//! logfmt: `time=… level=info msg="two words" took=12`. Names that mean standard fields are found by their aliases later.

use std::borrow::Cow;

use crate::wire::native::text::{FieldValue, Found, scalar};

/// Pairs a line may hold; more stay in the message alone.
const PAIRS_MAX: usize = 200;

/// At least two pairs, and nothing but pairs.
pub(super) fn read(line: &str) -> Option<Found<'_>> {
    let mut found = Found::default();
    let mut rest = line;
    while !rest.is_empty() && found.fields.len() < PAIRS_MAX {
        let (pair, behind) = pair(rest)?;
        found.fields.push(pair);
        rest = behind.trim_start();
    }
    (2 <= found.fields.len()).then_some(found)
}

type Pair<'a> = (Cow<'a, str>, FieldValue<'a>);

fn pair(text: &str) -> Option<(Pair<'_>, &str)> {
    let is_name =
        |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'@' | b'/' | b':');
    let len = text.bytes().take_while(|b| is_name(b)).count();
    let (name, rest) = text.split_at_checked(len)?;
    let rest = rest.strip_prefix('=')?;
    if name.is_empty() {
        return None;
    }
    let (value, rest) = match rest.strip_prefix('"') {
        Some(inside) => {
            let (value, rest) = quoted(inside)?;
            (FieldValue::Text(value), rest)
        }
        None => {
            let len = rest.find([' ', '\t']).unwrap_or(rest.len());
            let (value, rest) = rest.split_at_checked(len)?;
            (scalar(value), rest)
        }
    };
    let ends_well = rest.is_empty() || rest.starts_with([' ', '\t']);
    ends_well.then_some(((Cow::Borrowed(name), value), rest))
}

/// The text up to the closing quote, unescaped.
fn quoted(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let stop = memchr::memchr2(b'"', b'\\', text.as_bytes())?;
    let (plain, tail) = text.split_at_checked(stop)?;
    if let Some(rest) = tail.strip_prefix('"') {
        return Some((Cow::Borrowed(plain), rest));
    }
    let mut value = plain.to_owned();
    let mut chars = tail.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((Cow::Owned(value), tail.get(at + 1..)?)),
            '\\' => value.push(match chars.next()?.1 {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                other => other,
            }),
            _ => value.push(c),
        }
    }
    None
}
