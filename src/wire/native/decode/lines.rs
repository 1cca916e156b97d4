//! Bodies made of lines: NDJSON and text.

use crate::common::error::Result;
use crate::record::ValueRef;
use crate::record::value::Flags;
use crate::wire::json::{self, split};
use crate::wire::native::decode::{Job, utf8};
use crate::wire::native::text::{self, Lines};

impl Job<'_> {
    /// Each line that is not blank is a value; broken ones become dead letters.
    pub(super) fn json_lines(&mut self, bytes: &[u8]) -> Result<()> {
        let mut rest = bytes;
        let mut number = 0;
        while !rest.is_empty() {
            let len = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
            let line = rest.get(..len).unwrap_or_default().trim_ascii();
            rest = rest.get(len + 1..).unwrap_or_default();
            number += 1;
            if !line.is_empty() {
                self.json_line(line, number)?;
            }
        }
        Ok(())
    }

    fn json_line(&mut self, raw: &[u8], line: u64) -> Result<()> {
        self.check_room()?;
        let bytes_max = self.options.record_bytes_max;
        if bytes_max < raw.len() {
            let reason = format!(
                "the line has {} bytes, a record may have {bytes_max}; the first {bytes_max} are kept here",
                raw.len()
            );
            self.dead_letter(line, "line_too_long", reason, raw);
            return Ok(());
        }
        let (text, flags) = utf8(raw);
        match raw.first() {
            Some(b'{') => {
                if self.object(&text, flags)?.is_err() {
                    self.broken_object(&text, flags, line, raw)?;
                }
            }
            Some(b'[') => match json::check(&text) {
                // Checked before, so that a fault behind good elements leaves no half of the line.
                Ok(end) if end == text.len() => {
                    if let Err(fault) = self.array(text.as_bytes(), Some(line))? {
                        self.dead_letter(line, "invalid_json", fault.reason(), raw);
                    }
                }
                outcome => self.invalid_line(outcome, line, raw),
            },
            Some(b'"') => match json::string(&text) {
                Ok((message, end)) if end == text.len() => {
                    self.message(&message, flags, message.len());
                }
                outcome => self.invalid_line(outcome.map(|(_, end)| end), line, raw),
            },
            _ => match json::check(&text) {
                Ok(end) if end == text.len() => self.not_an_object(line, raw),
                outcome => self.invalid_line(outcome, line, raw),
            },
        }
        Ok(())
    }

    /// Several objects on one line are several records; what is broken among them is a dead letter.
    fn broken_object(&mut self, text: &str, flags: Flags, line: u64, raw: &[u8]) -> Result<()> {
        let mut rest = text;
        loop {
            let end = split::container_end(rest.as_bytes()).unwrap_or(rest.len());
            let (object, behind) = rest.split_at_checked(end).unwrap_or((rest, ""));
            if let Err(fault) = self.object(object, flags)? {
                let at = text.len() - rest.len();
                let reason = json::JsonFault {
                    offset: at + fault.offset,
                    ..fault
                }
                .reason();
                let raw = if at == 0 { raw } else { rest.as_bytes() };
                self.dead_letter(line, "invalid_json", reason, raw);
                return Ok(());
            }
            rest = behind.trim_ascii_start();
            if rest.is_empty() {
                return Ok(());
            }
            if !rest.starts_with('{') {
                let at = text.len() - rest.len();
                let what = "unexpected text after the object";
                let reason = json::JsonFault { what, offset: at }.reason();
                self.dead_letter(line, "invalid_json", reason, rest.as_bytes());
                return Ok(());
            }
        }
    }

    fn invalid_line(&mut self, outcome: Result<usize, json::JsonFault>, line: u64, raw: &[u8]) {
        let fault = match outcome {
            Ok(end) => json::JsonFault {
                what: "unexpected text after the value",
                offset: end,
            },
            Err(fault) => fault,
        };
        self.dead_letter(line, "invalid_json", fault.reason(), raw);
    }

    /// Each line, or each group of lines that belong together, is a record.
    pub(super) fn text(&mut self, bytes: &[u8], may_hold_json: bool) -> Result<()> {
        let arrival_ns = self.defaults.arrival_ns;
        for piece in Lines::new(bytes, &self.options.text, arrival_ns) {
            self.check_room()?;
            if may_hold_json
                && piece.first() == Some(&b'{')
                && piece.len() <= self.options.record_bytes_max
            {
                let (text, flags) = utf8(piece);
                if self.object(&text, flags)?.is_ok() {
                    continue;
                }
            }
            // Of a line far too long only what will be kept is looked at, and a character more.
            let near = piece
                .get(..self.options.line_bytes_max + 4)
                .unwrap_or(piece);
            let (text, flags) = utf8(near);
            self.message(&text, flags, piece.len());
        }
        Ok(())
    }

    /// A record of this text, which is all or the beginning of `original_bytes`.
    pub(super) fn message(&mut self, text: &str, flags: Flags, original_bytes: usize) {
        let bytes_max = self.options.line_bytes_max;
        let end = text.floor_char_boundary(bytes_max);
        let kept = text.get(..end).unwrap_or(text);
        let is_cut = bytes_max < original_bytes;
        let found = text::read(kept, self.defaults.arrival_ns);
        let original = i64::try_from(original_bytes).unwrap_or(i64::MAX);
        let cut = is_cut.then_some(("_original_bytes", ValueRef::Int(original)));
        let fields = std::iter::once(("message", ValueRef::Str(kept)))
            .chain(found.level.map(|level| ("level", ValueRef::Str(level))))
            .chain(found.source.map(|source| ("source", ValueRef::Str(source))))
            .chain(cut)
            .chain(
                found
                    .fields
                    .iter()
                    .map(|(name, value)| (&**name, value.as_value_ref())),
            );
        let flags = if is_cut {
            flags.with(Flags::TRUNCATED)
        } else {
            flags
        };
        self.json
            .fields(fields, found.time, &mut self.builder, &self.defaults, flags);
        self.accepted += 1;
    }
}
