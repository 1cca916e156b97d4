//! The patient reader: one JSON object to a list of leaves, with exact numbers, the last of repeated keys, lenient strings, and a fault that
//! names its place. Recurses only into objects that become fields, so at most `depth_max` levels; everything deeper is walked with a stack
//! on the heap.

use hashbrown::HashMap;

use crate::record::value::{Flags, Value};
use crate::wire::json::{JsonFault, number};

pub(super) struct Leaf {
    pub path: Vec<Box<str>>,
    pub value: Value,
    /// The number as it was written.
    pub number: String,
    /// The same key came again later.
    pub is_replaced: bool,
}

pub(super) struct Parsed {
    pub leaves: Vec<Leaf>,
    pub flags: Flags,
}

/// Reads one object and nothing but white space behind it.
pub(super) fn object(text: &str, depth_max: usize) -> Result<Parsed, JsonFault> {
    let mut parser = Parser::new(text);
    let mut leaves = Vec::new();
    parser.skip_white();
    if parser.peek() != Some(b'{') {
        return Err(parser.fault("expected an object"));
    }
    parser.object(&mut Vec::new(), &mut leaves, depth_max)?;
    parser.skip_white();
    if parser.at < text.len() {
        return Err(parser.fault("unexpected text after the object"));
    }
    Ok(Parsed {
        leaves,
        flags: parser.flags,
    })
}

/// Walks over one value of any kind; returns where it ends.
pub(super) fn check(text: &str) -> Result<usize, JsonFault> {
    let mut parser = Parser::new(text);
    parser.skip_white();
    parser.copy_value(&mut String::new())?;
    Ok(parser.at)
}

pub(super) fn string(text: &str) -> Result<(String, usize), JsonFault> {
    let mut parser = Parser::new(text);
    let mut out = String::new();
    parser.string(&mut out)?;
    Ok((out, parser.at))
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    flags: Flags,
}

enum Scalar<'a> {
    Null,
    Bool(bool),
    Number(&'a str),
    /// `NaN` and its kin, which JSON does not know but programs write.
    NotFinite(&'a str),
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            text,
            at: 0,
            flags: Flags::default(),
        }
    }

    fn fault(&self, what: &'static str) -> JsonFault {
        let what = if self.at < self.text.len() {
            what
        } else {
            "unexpected end of the text"
        };
        JsonFault {
            what,
            offset: self.at,
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn skip_white(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8, what: &'static str) -> Result<(), JsonFault> {
        if self.peek() == Some(byte) {
            self.at += 1;
            Ok(())
        } else {
            Err(self.fault(what))
        }
    }

    /// The object at the cursor. Leaves of a key that comes again are marked as replaced.
    fn object(
        &mut self,
        path: &mut Vec<Box<str>>,
        leaves: &mut Vec<Leaf>,
        depth_left: usize,
    ) -> Result<(), JsonFault> {
        let mut seen: HashMap<Box<str>, std::ops::Range<usize>> = HashMap::new();
        self.expect(b'{', "expected an object")?;
        self.skip_white();
        let mut is_first = true;
        loop {
            if self.peek() == Some(b'}') && is_first {
                self.at += 1;
                return Ok(());
            }
            if self.peek() != Some(b'"') {
                return Err(self.fault("expected a field name in double quotes"));
            }
            let mut key = String::new();
            self.string(&mut key)?;
            let key: Box<str> = key.into();
            self.skip_white();
            self.expect(b':', "expected `:`")?;
            self.skip_white();
            let first_leaf = leaves.len();
            path.push(key.clone());
            self.value(path, leaves, depth_left - 1)?;
            path.pop();
            if let Some(replaced) = seen.insert(key, first_leaf..leaves.len()) {
                for leaf in leaves.get_mut(replaced).unwrap_or_default() {
                    leaf.is_replaced = true;
                }
            }
            self.skip_white();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err(self.fault("expected `,` or `}`")),
            }
            self.skip_white();
            is_first = false;
        }
    }

    fn value(
        &mut self,
        path: &mut Vec<Box<str>>,
        leaves: &mut Vec<Leaf>,
        depth_left: usize,
    ) -> Result<(), JsonFault> {
        let mut number = String::new();
        let value = match self.peek() {
            Some(b'{') if 0 < depth_left && !self.is_empty_object() => {
                return self.object(path, leaves, depth_left);
            }
            Some(opening @ (b'{' | b'[')) => {
                if opening == b'{' && !self.is_empty_object() {
                    self.flags = self.flags.with(Flags::DEEP_JSON);
                }
                let mut json = String::new();
                self.copy_value(&mut json)?;
                Value::Json(json)
            }
            Some(b'"') => {
                let mut text = String::new();
                self.string(&mut text)?;
                Value::Str(text)
            }
            _ => match self.scalar()? {
                Scalar::Null => Value::Null,
                Scalar::Bool(value) => Value::Bool(value),
                Scalar::Number(text) => {
                    text.clone_into(&mut number);
                    number::value_of(text).to_value()
                }
                Scalar::NotFinite(text) => Value::Str(text.to_owned()),
            },
        };
        leaves.push(Leaf {
            path: path.clone(),
            value,
            number,
            is_replaced: false,
        });
        Ok(())
    }

    fn is_empty_object(&self) -> bool {
        let inside = self.rest().get(1..).unwrap_or_default();
        inside
            .trim_start_matches([' ', '\t', '\n', '\r'])
            .starts_with('}')
    }

    /// Appends the value at the cursor as compact and valid JSON.
    fn copy_value(&mut self, out: &mut String) -> Result<(), JsonFault> {
        // The closing bracket of each open container.
        let mut open: Vec<u8> = Vec::new();
        loop {
            // A value is due here.
            match self.peek() {
                Some(opening @ (b'{' | b'[')) => {
                    let closing = if opening == b'{' { b'}' } else { b']' };
                    self.at += 1;
                    out.push(char::from(opening));
                    self.skip_white();
                    if self.peek() == Some(closing) {
                        self.at += 1;
                        out.push(char::from(closing));
                    } else {
                        open.push(closing);
                        if closing == b'}' {
                            self.copy_key(out)?;
                        }
                        continue;
                    }
                }
                Some(b'"') => self.copy_string(out)?,
                _ => match self.scalar()? {
                    Scalar::Null => out.push_str("null"),
                    Scalar::Bool(value) => out.push_str(if value { "true" } else { "false" }),
                    Scalar::Number(text) => out.push_str(text),
                    Scalar::NotFinite(text) => {
                        out.push('"');
                        out.push_str(text);
                        out.push('"');
                    }
                },
            }
            if !self.copy_ends(&mut open, out)? {
                return Ok(());
            }
        }
    }

    /// After a value: closes what ends here. True if another value is due.
    fn copy_ends(&mut self, open: &mut Vec<u8>, out: &mut String) -> Result<bool, JsonFault> {
        while let Some(closing) = open.last().copied() {
            self.skip_white();
            match self.peek() {
                Some(b',') => {
                    self.at += 1;
                    out.push(',');
                    self.skip_white();
                    if closing == b'}' {
                        self.copy_key(out)?;
                    }
                    return Ok(true);
                }
                Some(b) if b == closing => {
                    self.at += 1;
                    out.push(char::from(closing));
                    open.pop();
                }
                _ if closing == b'}' => return Err(self.fault("expected `,` or `}`")),
                _ => return Err(self.fault("expected `,` or `]`")),
            }
        }
        Ok(false)
    }

    fn copy_key(&mut self, out: &mut String) -> Result<(), JsonFault> {
        if self.peek() != Some(b'"') {
            return Err(self.fault("expected a field name in double quotes"));
        }
        self.copy_string(out)?;
        self.skip_white();
        self.expect(b':', "expected `:`")?;
        out.push(':');
        self.skip_white();
        Ok(())
    }

    /// Copies a string as it is written where that is valid JSON, and written anew where not.
    fn copy_string(&mut self, out: &mut String) -> Result<(), JsonFault> {
        let start = self.at;
        let flags_before = self.flags;
        self.flags = Flags::default();
        let mut text = String::new();
        self.string(&mut text)?;
        let raw = self.text.get(start..self.at).unwrap_or_default();
        let is_valid = self.flags.is_empty() && raw.bytes().all(|b| 0x20 <= b);
        self.flags = self.flags.with(flags_before);
        if is_valid {
            out.push_str(raw);
        } else {
            let mut quoted = Vec::with_capacity(raw.len());
            crate::wire::json_text::push_string(&mut quoted, &text);
            out.push_str(&String::from_utf8(quoted).unwrap_or_default());
        }
        Ok(())
    }

    fn scalar(&mut self) -> Result<Scalar<'a>, JsonFault> {
        for (name, scalar) in [
            ("null", Scalar::Null),
            ("true", Scalar::Bool(true)),
            ("false", Scalar::Bool(false)),
            ("NaN", Scalar::NotFinite("NaN")),
            ("Infinity", Scalar::NotFinite("Infinity")),
            ("-Infinity", Scalar::NotFinite("-Infinity")),
        ] {
            if self.rest().starts_with(name) {
                self.at += name.len();
                if self.peek().is_some_and(|b| b.is_ascii_alphanumeric()) {
                    return Err(self.fault("expected a value"));
                }
                return Ok(scalar);
            }
        }
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        let starts_with_zero = self.peek() == Some(b'0');
        let n_whole = self.digits();
        if n_whole == 0 {
            return Err(self.fault("expected a value"));
        }
        if starts_with_zero && 1 < n_whole {
            return Err(JsonFault {
                what: "a number may not begin with 0",
                offset: start,
            });
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            if self.digits() == 0 {
                return Err(self.fault("expected a digit"));
            }
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            if self.digits() == 0 {
                return Err(self.fault("expected a digit"));
            }
        }
        Ok(Scalar::Number(
            self.text.get(start..self.at).unwrap_or_default(),
        ))
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while self.peek().is_some_and(|b| b.is_ascii_digit()) {
            self.at += 1;
        }
        self.at - start
    }

    /// Appends the unescaped text of the string at the cursor.
    fn string(&mut self, out: &mut String) -> Result<(), JsonFault> {
        let start = self.at;
        let open_ended = JsonFault {
            what: "a string has no closing quote; it begins",
            offset: start,
        };
        self.expect(b'"', "expected a string")?;
        loop {
            let rest = self.rest();
            let Some(stop) = memchr::memchr2(b'"', b'\\', rest.as_bytes()) else {
                return Err(open_ended);
            };
            out.push_str(rest.get(..stop).unwrap_or_default());
            self.at += stop + 1;
            if rest.as_bytes().get(stop) == Some(&b'"') {
                return Ok(());
            }
            let Some(escape) = self.peek() else {
                return Err(open_ended);
            };
            self.at += 1;
            out.push(match escape {
                b'"' => '"',
                b'\\' => '\\',
                b'/' => '/',
                b'b' => '\u{8}',
                b'f' => '\u{c}',
                b'n' => '\n',
                b'r' => '\r',
                b't' => '\t',
                b'u' => self.unicode_escape()?,
                _ => {
                    self.at -= 1;
                    return Err(self.fault("unknown escape in a string"));
                }
            });
        }
    }

    /// Behind `\u`. A surrogate without its partner becomes U+FFFD and is flagged.
    fn unicode_escape(&mut self) -> Result<char, JsonFault> {
        let unit = self.four_hex()?;
        if let Some(c) = char::from_u32(unit) {
            return Ok(c);
        }
        let mark = self.at;
        if unit < 0xdc00 && self.rest().starts_with("\\u") {
            self.at += 2;
            let low = self.four_hex()?;
            let code = 0x1_0000 + ((unit - 0xd800) << 10) + low.wrapping_sub(0xdc00);
            if (0xdc00..0xe000).contains(&low)
                && let Some(c) = char::from_u32(code)
            {
                return Ok(c);
            }
            self.at = mark;
        }
        self.flags = self.flags.with(Flags::INVALID_UTF8);
        Ok(char::REPLACEMENT_CHARACTER)
    }

    fn four_hex(&mut self) -> Result<u32, JsonFault> {
        let digits = self
            .rest()
            .get(..4)
            .filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        let Some(unit) = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()) else {
            return Err(self.fault("expected four hexadecimal digits after `\\u`"));
        };
        self.at += 4;
        Ok(unit)
    }
}
