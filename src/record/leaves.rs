//! The scalar leaves inside the JSON text of a [`ValueRef::Json`] value, with the address of each. Linear, without recursion,
//! so the depth of the text does not matter. Knows no other use of JSON than this.

use std::borrow::Cow;

use crate::record::value::ValueRef;

/// Calls `visit` for each leaf of `json` in order until it returns true; returns whether it did.
///
/// The first argument is the leaf's address inside `json`: the object keys on the way joined by dots (keys that hold dots as they
/// are); arrays add nothing, so it is empty for `[1, 2]`. Strings come unescaped. Integers that fit come as `Int`, other numbers as
/// `Number` with their text. Empty arrays and objects come as `Json` leaves. Text that is no JSON ends the visit early.
pub fn any_leaf(json: &str, mut visit: impl FnMut(&str, ValueRef<'_>) -> bool) -> bool {
    let mut scanner = Scanner {
        rest: json,
        address: String::new(),
        open: Vec::new(),
    };
    scanner.run(&mut visit).unwrap_or(false)
}

struct Scanner<'a> {
    rest: &'a str,
    address: String,
    /// The open arrays and objects: (is an object, length of `address` outside it).
    open: Vec<(bool, usize)>,
}

impl<'a> Scanner<'a> {
    /// `None`: the text ended or is no JSON.
    fn run(&mut self, visit: &mut impl FnMut(&str, ValueRef<'_>) -> bool) -> Option<bool> {
        loop {
            self.rest = self.rest.trim_start();
            let next = self.rest.chars().next()?;
            match next {
                '{' | '[' => {
                    self.skip(1)?;
                    let close = if next == '{' { '}' } else { ']' };
                    self.rest = self.rest.trim_start();
                    if self.rest.starts_with(close) {
                        self.skip(1)?;
                        let empty = if next == '{' { "{}" } else { "[]" };
                        if visit(&self.address, ValueRef::Json(empty)) {
                            return Some(true);
                        }
                        self.end_of_value();
                        continue;
                    }
                    self.open.push((next == '{', self.address.len()));
                    if next == '{' {
                        self.key()?;
                    }
                }
                '}' | ']' => {
                    self.skip(1)?;
                    let (_, outside) = self.open.pop()?;
                    self.address.truncate(outside);
                    self.end_of_value();
                }
                ',' => {
                    self.skip(1)?;
                    if let Some((true, _)) = self.open.last() {
                        self.key()?;
                    }
                }
                _ => {
                    if self.scalar(next, visit)? {
                        return Some(true);
                    }
                    self.end_of_value();
                }
            }
        }
    }

    /// After a value the address is that of the container around it.
    fn end_of_value(&mut self) {
        let around = self.open.last().map_or(0, |(_, outside)| *outside);
        self.address.truncate(around);
    }

    fn key(&mut self) -> Option<()> {
        self.rest = self.rest.trim_start();
        let key = self.string()?;
        self.rest = self.rest.trim_start();
        self.rest = self.rest.strip_prefix(':')?;
        if !self.address.is_empty() {
            self.address.push('.');
        }
        self.address.push_str(&key);
        Some(())
    }

    fn scalar(
        &mut self,
        next: char,
        visit: &mut impl FnMut(&str, ValueRef<'_>) -> bool,
    ) -> Option<bool> {
        if next == '"' {
            let text = self.string()?;
            return Some(visit(&self.address, ValueRef::Str(&text)));
        }
        let end = self
            .rest
            .find(|c: char| matches!(c, ',' | '}' | ']') || c.is_ascii_whitespace())
            .unwrap_or(self.rest.len());
        let (text, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest;
        let value = match text {
            "null" => ValueRef::Null,
            "true" => ValueRef::Bool(true),
            "false" => ValueRef::Bool(false),
            _ => match text.parse() {
                Ok(integer) => ValueRef::Int(integer),
                Err(_) => ValueRef::Number(text),
            },
        };
        Some(visit(&self.address, value))
    }

    /// The string that `rest` begins with, unescaped.
    fn string(&mut self) -> Option<Cow<'a, str>> {
        let inside = self.rest.strip_prefix('"')?;
        let stop = memchr::memchr2(b'"', b'\\', inside.as_bytes())?;
        let (plain, tail) = inside.split_at_checked(stop)?;
        if let Some(rest) = tail.strip_prefix('"') {
            self.rest = rest;
            return Some(Cow::Borrowed(plain));
        }
        let mut text = plain.to_owned();
        let mut tail = tail;
        loop {
            let stop = memchr::memchr2(b'"', b'\\', tail.as_bytes())?;
            let (plain, after) = tail.split_at_checked(stop)?;
            text.push_str(plain);
            if let Some(rest) = after.strip_prefix('"') {
                self.rest = rest;
                return Some(Cow::Owned(text));
            }
            let (c, rest) = unescape(after)?;
            text.push(c);
            tail = rest;
        }
    }

    fn skip(&mut self, n_bytes: usize) -> Option<()> {
        self.rest = self.rest.get(n_bytes..)?;
        Some(())
    }
}

/// The character that the escape at the start of `text` stands for, and what follows. A lone surrogate becomes U+FFFD.
fn unescape(text: &str) -> Option<(char, &str)> {
    let mut chars = text.strip_prefix('\\')?.chars();
    let c = match chars.next()? {
        'n' => '\n',
        't' => '\t',
        'r' => '\r',
        'b' => '\u{8}',
        'f' => '\u{c}',
        'u' => return Some(unescape_unicode(chars.as_str())),
        other => other,
    };
    Some((c, chars.as_str()))
}

/// `text` follows `\u`.
fn unescape_unicode(text: &str) -> (char, &str) {
    let Some((unit, rest)) = hex_unit(text) else {
        return (char::REPLACEMENT_CHARACTER, text);
    };
    if let Some(c) = char::from_u32(unit) {
        return (c, rest);
    }
    let low = rest.strip_prefix("\\u").and_then(hex_unit);
    match low {
        Some((low, after)) if unit < 0xdc00 && (0xdc00..0xe000).contains(&low) => {
            let code = 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
            (
                char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER),
                after,
            )
        }
        _ => (char::REPLACEMENT_CHARACTER, rest),
    }
}

fn hex_unit(text: &str) -> Option<(u32, &str)> {
    let (digits, rest) = text.split_at_checked(4)?;
    if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    Some((u32::from_str_radix(digits, 16).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(json: &str) -> Vec<String> {
        let mut found = Vec::new();
        any_leaf(json, |address, value| {
            found.push(format!("{address}={value:?}"));
            false
        });
        found
    }

    #[test]
    fn leaves_come_with_their_addresses() {
        for (json, expected) in [
            ("[]", vec!["=Json(\"[]\")"]),
            ("[1, \"a\" ,null]", vec!["=Int(1)", "=Str(\"a\")", "=Null"]),
            (
                r#"{"a":[{"b":1},{"c.d":{"e":true}}],"f":-1.50e3}"#,
                vec!["a.b=Int(1)", "a.c.d.e=Bool(true)", "f=Number(\"-1.50e3\")"],
            ),
            (
                r#" [ { "a" : {} , "b" : [ [ ] , [ 2 ] ] } , 3 ] "#,
                vec!["a=Json(\"{}\")", "b=Json(\"[]\")", "b=Int(2)", "=Int(3)"],
            ),
            (
                r#"["a\n\"\\\/\u00e9\ud83d\ude00\ud800x"]"#,
                vec!["=Str(\"a\\n\\\"\\\\/é😀\u{fffd}x\")"],
            ),
            (
                "[18446744073709551616]",
                vec!["=Number(\"18446744073709551616\")"],
            ),
            (r#"[1,"cut"#, vec!["=Int(1)"]),
            ("", vec![]),
        ] {
            assert_eq!(leaves(json), expected, "{json}");
        }
    }

    #[test]
    fn depth_does_not_matter() {
        let json = format!("{}1{}", "[{\"a\":".repeat(100_000), "}]".repeat(100_000));
        assert_eq!(leaves(&json).len(), 1);
    }

    #[test]
    fn any_text_ends_the_visit() {
        proptest::proptest!(|(text in "[\\[\\]{}\":,\\\\a1u ]{0,40}")| {
            any_leaf(&text, |_, _| false);
        });
    }
}
