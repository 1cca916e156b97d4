//! One message of a queue, written by somebody else: always one entry, whatever it holds, because it has one position.

use crate::record::BatchBuilder;
use crate::wire::json::{self, RecordDefaults};
use crate::wire::native::decode::{BodyDecoder, Job, bytes, looks_like_json, utf8};

impl BodyDecoder {
    /// To be called when a new batch begins, before its first [`Self::decode_one`].
    pub fn begin_batch(&mut self) {
        self.json.begin_batch();
    }

    /// Appends the message as `POST /logs` would read it as a line: an object is a record, what is not JSON is a text (all its lines one
    /// message), and what is JSON but no record is a dead letter. Gives the builder back.
    pub fn decode_one(
        &mut self,
        builder: BatchBuilder,
        raw: &[u8],
        defaults: RecordDefaults<'_>,
    ) -> BatchBuilder {
        let mut job = Job {
            json: &mut self.json,
            options: &self.options,
            builder,
            defaults,
            accepted: 0,
            dead_lettered: 0,
            errors: Vec::new(),
        };
        job.one(raw);
        job.builder
    }
}

impl Job<'_> {
    fn one(&mut self, raw: &[u8]) {
        let bytes = bytes::without_mark(raw);
        let content = bytes.trim_ascii();
        let bytes_max = self.options.record_bytes_max;
        let is_json = looks_like_json(content) || content.first() == Some(&b'"');
        if !is_json {
            let near = bytes
                .get(..self.options.line_bytes_max + 4)
                .unwrap_or(&bytes);
            let (text, flags) = utf8(near);
            return self.message(&text, flags, bytes.len());
        }
        if bytes_max < content.len() {
            let reason = format!(
                "the message has {} bytes, a record may have {bytes_max}; the first {bytes_max} are kept here",
                content.len()
            );
            return self.dead_letter(1, "line_too_long", reason, raw);
        }
        let (text, flags) = utf8(content);
        let fault = match content.first() {
            Some(b'{') => self
                .json
                .object(&text, &mut self.builder, &self.defaults, flags)
                .err(),
            Some(b'"') => match json::string(&text) {
                Ok((message, end)) if end == text.len() => {
                    return self.message(&message, flags, message.len());
                }
                // A text that begins with a quote.
                _ => return self.message(&text, flags, content.len()),
            },
            _ => return self.not_an_object(1, raw),
        };
        if let Some(fault) = fault {
            self.dead_letter(1, "invalid_json", fault.reason(), raw);
        }
    }
}
