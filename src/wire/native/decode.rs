//! Bodies of `POST /logs` → one batch and what became of each line.
//!
//! **Which format.** `text/…` is text. JSON types, and bodies of other or no type that begin with `{`, `[{`, `["`, `[[` or `[]`, are JSON;
//! everything else is text. JSON is one object (on any number of lines), one array, or NDJSON; objects may also follow each other without
//! line breaks. In text that was not declared as such, a line that is a JSON object is read as one.
//!
//! **What is refused as a whole** (`invalid_json`): a body that is one broken object or array. Broken lines among others become dead letters
//! with their bytes. A JSON string is a message; any other value that is no object becomes a dead letter `not_an_object`.
//!
//! **Lengths.** A text longer than `line_bytes_max` is cut there, flagged `truncated`, and `_original_bytes` says how long it was. A JSON
//! record is kept whole up to `record_bytes_max`; a longer line becomes a dead letter `line_too_long` that keeps its first
//! `record_bytes_max` bytes, and a longer body of one object is refused with 413.
//!
//! **Bytes.** A byte order mark is skipped, UTF-16 is transcoded, what is not UTF-8 becomes U+FFFD and the record is flagged.

mod bytes;
mod lines;
mod one;

use std::borrow::Cow;

use crate::common::error::{Error, ErrorKind, Result};
use crate::record::value::Flags;
use crate::record::{Batch, BatchBuilder, DeadLetterRef};
use crate::wire::json::{self, JsonDecoder, JsonFault, JsonOptions, RecordDefaults, split};
use crate::wire::native::text::TextOptions;

/// How bodies are read.
#[derive(Clone, Debug)]
pub struct DecodeOptions {
    pub json: JsonOptions,
    pub text: TextOptions,
    /// Bytes of one text record before it is cut.
    pub line_bytes_max: usize,
    /// Bytes of one JSON record.
    pub record_bytes_max: usize,
    /// Errors listed in an answer; all are counted.
    pub errors_max: usize,
    /// Characters of a broken line that an answer repeats.
    pub excerpt_chars_max: usize,
    /// Bytes of the batch that a body may become: very many very short lines weigh more as records than as text.
    pub batch_bytes_max: usize,
    /// Different field names in one request. The next record after it is refused with 413.
    pub keys_max: u32,
}

impl Default for DecodeOptions {
    fn default() -> Self {
        Self {
            json: JsonOptions::default(),
            text: TextOptions::default(),
            line_bytes_max: 256 << 10,
            record_bytes_max: 2 << 20,
            errors_max: 100,
            excerpt_chars_max: 200,
            batch_bytes_max: 320 << 20,
            keys_max: 100_000,
        }
    }
}

/// What the sender says about the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// Nothing that can be relied on: look at the bytes.
    Unknown,
    Json,
    Text,
}

impl Hint {
    /// Reads a `Content-Type`. Forms are refused: their body is not what was meant to be sent.
    pub fn from_content_type(value: &str) -> Result<Self> {
        let essence = value.split(';').next().unwrap_or_default();
        let essence = essence.trim().to_ascii_lowercase();
        if essence.starts_with("multipart/") {
            return Err(Error::new(
                ErrorKind::UnsupportedMedia,
                "unsupported_media_type",
                "forms are not accepted; send the logs as the body itself (`curl --data-binary @file`), as JSON, NDJSON or text",
            ));
        }
        let is_json = essence.contains("json");
        Ok(match essence.split_once('/') {
            Some(_) if is_json => Self::Json,
            Some(("text", _)) => Self::Text,
            _ => Self::Unknown,
        })
    }
}

/// A body and what it comes with.
#[derive(Clone, Copy, Debug)]
pub struct Body<'a> {
    pub bytes: &'a [u8],
    pub hint: Hint,
    pub defaults: RecordDefaults<'a>,
}

/// A line that is not a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineError {
    /// From 1; in an array the number of the element.
    pub line: u64,
    pub code: &'static str,
    pub reason: String,
    pub excerpt: String,
}

#[derive(Clone, Debug)]
pub struct Decoded {
    /// Records and dead letters, in the order of the body.
    pub batch: Batch,
    pub accepted: u32,
    pub dead_lettered: u32,
    /// The first of them.
    pub errors: Vec<LineError>,
}

/// Decodes bodies one after the other and keeps its buffers. One for each thread that decodes.
pub struct BodyDecoder {
    json: JsonDecoder,
    options: DecodeOptions,
}

impl BodyDecoder {
    pub fn new(options: DecodeOptions) -> Self {
        Self {
            json: JsonDecoder::new(options.json.clone()),
            options,
        }
    }

    pub fn decode(&mut self, body: &Body<'_>) -> Result<Decoded> {
        let bytes = bytes::without_mark(body.bytes);
        let first = bytes.iter().position(|b| !b.is_ascii_whitespace());
        let Some(first) = first else {
            return Err(Error::invalid(
                "empty_body",
                "the body is empty; send a JSON object, an array, NDJSON or lines of text",
            ));
        };
        let content = bytes.get(first..).unwrap_or_default();
        let mut job = self.job(body);
        let is_json = match body.hint {
            Hint::Json => content.starts_with(b"{") || content.starts_with(b"["),
            Hint::Text | Hint::Unknown => looks_like_json(content),
        };
        match (body.hint, is_json) {
            (Hint::Text, _) | (Hint::Unknown, false) => {
                job.text(&bytes, body.hint == Hint::Unknown)?;
            }
            (Hint::Json, false) => {
                let what = "expected `{` or `[` (lines of text go as text/plain)";
                let offset = first;
                return Err(whole(&JsonFault { what, offset }, &bytes));
            }
            (Hint::Json | Hint::Unknown, true) if content.starts_with(b"[") => {
                job.array_or_lines(&bytes, first)?;
            }
            (Hint::Json | Hint::Unknown, true) => job.objects(&bytes, first)?,
        }
        Ok(job.finish())
    }

    /// Reads NDJSON for certain: whatever is broken becomes a dead letter.
    pub fn decode_json_lines(&mut self, body: &Body<'_>) -> Result<Decoded> {
        let bytes = bytes::without_mark(body.bytes);
        let mut job = self.job(body);
        job.json_lines(&bytes)?;
        Ok(job.finish())
    }

    fn job<'a>(&'a mut self, body: &Body<'a>) -> Job<'a> {
        self.json.begin_batch();
        Job {
            json: &mut self.json,
            options: &self.options,
            builder: BatchBuilder::with_capacity(body.defaults.arrival_ns, body.bytes.len()),
            defaults: body.defaults,
            accepted: 0,
            dead_lettered: 0,
            errors: Vec::new(),
        }
    }
}

/// True for what can only be meant as JSON. `[2016-12-19 …` and `[error] …` are text.
fn looks_like_json(content: &[u8]) -> bool {
    match content.split_first() {
        Some((b'{', _)) => true,
        Some((b'[', inside)) => {
            let next = inside.iter().find(|b| !b.is_ascii_whitespace());
            matches!(next, None | Some(b'{' | b'"' | b'[' | b']'))
        }
        _ => false,
    }
}

/// The refusal of a body that is broken as a whole; `fault` counts from the start of `bytes`.
fn whole(fault: &JsonFault, bytes: &[u8]) -> Error {
    let before = bytes.get(..fault.offset).unwrap_or(bytes);
    let line = 1 + before.iter().filter(|b| **b == b'\n').count();
    let column = 1 + before.rsplit(|b| *b == b'\n').next().map_or(0, <[u8]>::len);
    let place = if line == 1 {
        format!("column {column}")
    } else {
        format!("line {line} column {column}")
    };
    Error::invalid(
        "invalid_json",
        format!(
            "the body is not valid JSON: {} at {place}; nothing was stored",
            fault.what
        ),
    )
    .with_position(fault.offset)
}

/// The decoding of one body.
struct Job<'a> {
    json: &'a mut JsonDecoder,
    options: &'a DecodeOptions,
    builder: BatchBuilder,
    defaults: RecordDefaults<'a>,
    accepted: u32,
    dead_lettered: u32,
    errors: Vec<LineError>,
}

impl Job<'_> {
    fn finish(self) -> Decoded {
        Decoded {
            batch: self.builder.finish(),
            accepted: self.accepted,
            dead_lettered: self.dead_lettered,
            errors: self.errors,
        }
    }

    /// To be asked before each entry.
    fn check_room(&self) -> Result<()> {
        if self.options.batch_bytes_max < self.builder.size_bytes() {
            return Err(Error::new(
                ErrorKind::TooLarge,
                "too_many_lines",
                format!(
                    "the body has so many lines that they take more than {} bytes as records; nothing was stored, split it into several requests",
                    self.options.batch_bytes_max
                ),
            ));
        }
        Ok(())
    }

    fn object(&mut self, text: &str, flags: Flags) -> Result<Result<(), JsonFault>> {
        self.check_room()?;
        if self.options.keys_max < self.builder.keys_len() {
            return Err(Error::new(
                ErrorKind::TooLarge,
                "too_many_field_names",
                format!(
                    "the body has more than {} different field names; send fewer records at once, and values as values, not as names",
                    self.options.keys_max
                ),
            ));
        }
        let outcome = self
            .json
            .object(text, &mut self.builder, &self.defaults, flags);
        if outcome.is_ok() {
            self.accepted += 1;
        }
        Ok(outcome)
    }

    fn dead_letter(&mut self, line: u64, code: &'static str, reason: String, raw: &[u8]) {
        let kept = raw.get(..self.options.record_bytes_max).unwrap_or(raw);
        self.builder.dead_letter(DeadLetterRef {
            code,
            reason: &reason,
            source: self.defaults.source,
            raw: kept,
        });
        self.dead_lettered += 1;
        if self.errors.len() < self.options.errors_max {
            // A character has at most four bytes; no need to look at more of a long line.
            let start = raw.get(..self.options.excerpt_chars_max * 4).unwrap_or(raw);
            let excerpt = String::from_utf8_lossy(start)
                .chars()
                .take(self.options.excerpt_chars_max)
                .collect();
            self.errors.push(LineError {
                line,
                code,
                reason,
                excerpt,
            });
        }
    }

    /// Back to the beginning: another way to read the body is tried.
    fn start_again(&mut self) {
        let capacity = self.builder.capacity_bytes();
        self.builder = BatchBuilder::with_capacity(self.defaults.arrival_ns, capacity);
        self.json.begin_batch();
        self.accepted = 0;
        self.dead_lettered = 0;
        self.errors.clear();
    }

    /// A body that begins with `{`.
    fn objects(&mut self, bytes: &[u8], first: usize) -> Result<()> {
        let content = bytes.get(first..).unwrap_or_default();
        let line_end = memchr::memchr(b'\n', content).unwrap_or(content.len());
        let (first_line, rest) = content.split_at_checked(line_end).unwrap_or((content, b""));
        let has_more = rest.iter().any(|b| !b.is_ascii_whitespace());
        if has_more {
            let first_line = first_line.trim_ascii_end();
            let is_record = if first_line.len() <= self.options.record_bytes_max {
                let (text, flags) = utf8(first_line);
                self.object(&text, flags)?.is_ok()
            } else {
                split::container_end(first_line) == Some(first_line.len())
            };
            self.start_again();
            if is_record {
                return self.json_lines(bytes);
            }
        }
        let Err(fault) = self.objects_in_a_row(content)? else {
            return Ok(());
        };
        self.start_again();
        let fault = JsonFault {
            offset: fault.offset + first,
            ..fault
        };
        // Broken lines among others, or one broken object over many lines? The latter has few lines that begin with a brace.
        let (mut n_lines, mut n_braces) = (0_usize, 0_usize);
        for line in bytes.split(|b| *b == b'\n').map(<[u8]>::trim_ascii) {
            n_lines += usize::from(!line.is_empty());
            n_braces += usize::from(line.first() == Some(&b'{'));
        }
        if n_lines < 2 || n_braces * 2 < n_lines {
            return Err(whole(&fault, bytes));
        }
        self.json_lines(bytes)
    }

    /// Objects one after the other, with nothing but white space between them. The inner error is the fault of the first that is broken.
    fn objects_in_a_row(&mut self, content: &[u8]) -> Result<Result<(), JsonFault>> {
        let mut at = 0;
        loop {
            let rest = content.get(at..).unwrap_or_default();
            at += rest.len() - rest.trim_ascii_start().len();
            let rest = content.get(at..).unwrap_or_default();
            if rest.is_empty() {
                return Ok(Ok(()));
            }
            let end = split::container_end(rest);
            let object = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
            if self.options.record_bytes_max < object.len() {
                if end.is_some() {
                    return Err(self.record_too_large());
                }
                let what = "an object does not end; it begins";
                return Ok(Err(JsonFault { what, offset: at }));
            }
            let (text, flags) = utf8(object);
            if let Err(fault) = self.object(&text, flags)? {
                return Ok(Err(JsonFault {
                    offset: at + fault.offset,
                    ..fault
                }));
            }
            at += object.len();
        }
    }

    fn record_too_large(&self) -> Error {
        Error::new(
            ErrorKind::TooLarge,
            "record_too_large",
            format!(
                "a record is larger than {} bytes; nothing was stored",
                self.options.record_bytes_max
            ),
        )
    }

    /// A body that begins with `[`: one array, or lines of which the first is an array.
    fn array_or_lines(&mut self, bytes: &[u8], first: usize) -> Result<()> {
        let content = bytes.get(first..).unwrap_or_default();
        let end = split::container_end(content);
        let behind = end.and_then(|end| content.get(end..)).unwrap_or_default();
        if behind.iter().any(|b| !b.is_ascii_whitespace()) {
            return self.json_lines(bytes);
        }
        let Some(array) = end.and_then(|end| content.get(..end)) else {
            // Not closed: the patient reader finds the place, if it is near.
            let near = content
                .get(..self.options.record_bytes_max)
                .unwrap_or(content);
            let (text, _) = utf8(near);
            let is_whole = near.len() == content.len();
            let fault = json::check(&text)
                .err()
                .filter(|fault| is_whole || fault.offset < text.len())
                .unwrap_or(JsonFault {
                    what: "the array does not end; it begins",
                    offset: 0,
                });
            return Err(whole(
                &JsonFault {
                    offset: fault.offset + first,
                    ..fault
                },
                bytes,
            ));
        };
        match self.array(array, None)? {
            Ok(()) => Ok(()),
            Err(fault) => Err(whole(
                &JsonFault {
                    offset: fault.offset + first,
                    ..fault
                },
                bytes,
            )),
        }
    }

    /// The elements of an array; `line` is where it stands in NDJSON, else each element counts as a line.
    fn array(&mut self, array: &[u8], line: Option<u64>) -> Result<Result<(), JsonFault>> {
        let fault = |what, offset| Ok(Err(JsonFault { what, offset }));
        let mut at = 1;
        let mut element = 0_u64;
        loop {
            at += white_len(array, at);
            let is_end = array.get(at) == Some(&b']');
            if is_end && element == 0 {
                return Ok(Ok(()));
            }
            let rest = array.get(at..).unwrap_or_default();
            let len = match rest.first() {
                Some(b'{' | b'[') => split::container_end(rest),
                Some(b'"') => split::string_end(rest, 1),
                _ => rest
                    .iter()
                    .position(|b| matches!(b, b',' | b']') || b.is_ascii_whitespace()),
            };
            let value = len.and_then(|len| rest.get(..len));
            let Some(value) = value.filter(|value| !value.is_empty()) else {
                return fault("expected a value", at);
            };
            element += 1;
            if let Err(inner) = self.element(value, line.unwrap_or(element))? {
                return fault(inner.what, at + inner.offset);
            }
            at += value.len();
            at += white_len(array, at);
            match array.get(at) {
                Some(b',') => at += 1,
                Some(b']') if at + 1 == array.len() => return Ok(Ok(())),
                _ => return fault("expected `,` or `]`", at),
            }
        }
    }

    fn element(&mut self, value: &[u8], line: u64) -> Result<Result<(), JsonFault>> {
        self.check_room()?;
        if self.options.record_bytes_max < value.len() {
            return Err(self.record_too_large());
        }
        let (text, flags) = utf8(value);
        match value.first() {
            Some(b'{') => self.object(&text, flags),
            Some(b'"') => match json::string(&text) {
                Ok((message, _)) => {
                    self.message(&message, flags, message.len());
                    Ok(Ok(()))
                }
                Err(fault) => Ok(Err(fault)),
            },
            _ => match json::check(&text) {
                Ok(end) if end == text.len() => {
                    self.not_an_object(line, value);
                    Ok(Ok(()))
                }
                Ok(end) => Ok(Err(JsonFault {
                    what: "expected `,` or `]`",
                    offset: end,
                })),
                Err(fault) => Ok(Err(fault)),
            },
        }
    }

    fn not_an_object(&mut self, line: u64, raw: &[u8]) {
        let what = match raw.first() {
            Some(b'[') => "an array",
            Some(b't' | b'f') => "a boolean",
            Some(b'n') => "null",
            _ => "a number",
        };
        self.dead_letter(
            line,
            "not_an_object",
            format!("expected an object, found {what}"),
            raw,
        );
    }
}

/// The text of the bytes; what is not UTF-8 becomes U+FFFD.
fn utf8(bytes: &[u8]) -> (Cow<'_, str>, Flags) {
    match simdutf8::basic::from_utf8(bytes) {
        Ok(text) => (Cow::Borrowed(text), Flags::default()),
        Err(_) => (String::from_utf8_lossy(bytes), Flags::INVALID_UTF8),
    }
}

fn white_len(bytes: &[u8], at: usize) -> usize {
    let rest = bytes.get(at..).unwrap_or_default();
    rest.len() - rest.trim_ascii_start().len()
}

#[cfg(test)]
mod tests;
