//! Entries of a batch → messages. The buffers are reused from one to the next.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rdkafka::message::{Header as KafkaHeader, OwnedHeaders};

use crate::queue::kafka::message::{HEADER, HEADER_ENTRY, HEADER_KEY, Header, KeyMark, Kind};
use crate::record::{Batch, BatchBuilder, DeadLetterRef, EntryRef, Flags, RecordRef, timestamp};
use crate::wire::json_text::push_string;
use crate::wire::native::queued::{Queued, QueuedWriter};

/// One message, as long as the encoder is not used for the next.
pub(super) struct Encoded<'a> {
    pub is_letter: bool,
    pub key: Option<&'a str>,
    pub payload: &'a [u8],
    header: Header,
    entry: Option<&'a [u8]>,
}

#[derive(Default)]
pub(super) struct Encoder {
    payload: Vec<u8>,
    entry: Vec<u8>,
    writer: QueuedWriter,
}

impl Encoder {
    /// For the entries of one batch.
    pub fn for_batch(batch: &Batch) -> Self {
        Self {
            writer: QueuedWriter::for_records(batch.len()),
            ..Self::default()
        }
    }

    pub fn encode<'a>(&'a mut self, entry: EntryRef<'a>, arrival_ns: i64) -> Encoded<'a> {
        self.payload.clear();
        match entry {
            EntryRef::Record(record) => self.record(record, arrival_ns),
            EntryRef::DeadLetter(letter) => self.letter(letter, arrival_ns, Kind::Letter),
        }
    }

    /// Tells of a record that the store could not take.
    pub fn encode_poison<'a>(
        &'a mut self,
        letter: DeadLetterRef<'a>,
        arrival_ns: i64,
    ) -> Encoded<'a> {
        self.payload.clear();
        self.letter(letter, arrival_ns, Kind::Poison)
    }

    fn record<'a>(&'a mut self, record: RecordRef<'a>, arrival_ns: i64) -> Encoded<'a> {
        let Queued { is_exact, source } = self.writer.push(&mut self.payload, record);
        if !is_exact {
            self.entry = batch_of(record, arrival_ns);
        }
        Encoded {
            is_letter: false,
            key: source,
            payload: &self.payload,
            header: Header {
                kind: Kind::Record,
                arrival_ns,
                timestamp_ns: record.timestamp_ns,
                timestamp_digits: record.timestamp_digits,
                flags: record.flags,
            },
            entry: (!is_exact).then_some(&self.entry),
        }
    }

    fn letter<'a>(
        &'a mut self,
        letter: DeadLetterRef<'a>,
        arrival_ns: i64,
        kind: Kind,
    ) -> Encoded<'a> {
        push_letter(&mut self.payload, letter, arrival_ns);
        Encoded {
            is_letter: true,
            key: letter.source,
            payload: &self.payload,
            header: Header {
                kind,
                arrival_ns,
                timestamp_ns: arrival_ns,
                timestamp_digits: 9,
                flags: Flags::default(),
            },
            entry: None,
        }
    }
}

impl Encoded<'_> {
    pub fn headers(&self, mark: Option<KeyMark>) -> OwnedHeaders {
        let header = self.header.to_bytes();
        let mut headers = OwnedHeaders::new_with_capacity(1).insert(KafkaHeader {
            key: HEADER,
            value: Some(&header[..]),
        });
        if let Some(entry) = self.entry {
            headers = headers.insert(KafkaHeader {
                key: HEADER_ENTRY,
                value: Some(entry),
            });
        }
        if let Some(mark) = mark {
            headers = headers.insert(KafkaHeader {
                key: HEADER_KEY,
                value: Some(&mark.to_bytes()[..]),
            });
        }
        headers
    }

    /// What the message weighs, roughly: librdkafka keeps its headers and a structure of its own beside it.
    pub fn size_bytes(&self) -> usize {
        const OVERHEAD_BYTES: usize = 200;
        let entry = self.entry.map_or(0, <[u8]>::len);
        self.payload.len() + self.key.map_or(0, str::len) + entry + OVERHEAD_BYTES
    }
}

/// The record as a batch of one.
fn batch_of(record: RecordRef<'_>, arrival_ns: i64) -> Vec<u8> {
    let mut builder = BatchBuilder::new(arrival_ns);
    push_record(&mut builder, record);
    builder.finish().as_bytes().to_vec()
}

pub(super) fn push_record(builder: &mut BatchBuilder, record: RecordRef<'_>) {
    builder.begin_record();
    for field in record.fields() {
        builder.field(field.key, field.value);
    }
    builder.end_record(record.timestamp_ns, record.timestamp_digits, record.flags);
}

/// `{"timestamp": …, "code": …, "reason": …, "source": … or null, "raw": …}`; `raw_base64` where the bytes are no text.
fn push_letter(out: &mut Vec<u8>, letter: DeadLetterRef<'_>, arrival_ns: i64) {
    out.extend_from_slice(b"{\"timestamp\":\"");
    timestamp::format_into(out, arrival_ns, 9);
    out.extend_from_slice(b"\",\"code\":");
    push_string(out, letter.code);
    out.extend_from_slice(b",\"reason\":");
    push_string(out, letter.reason);
    out.extend_from_slice(b",\"source\":");
    match letter.source {
        Some(source) => push_string(out, source),
        None => out.extend_from_slice(b"null"),
    }
    match std::str::from_utf8(letter.raw) {
        Ok(text) => {
            out.extend_from_slice(b",\"raw\":");
            push_string(out, text);
        }
        Err(_) => {
            out.extend_from_slice(b",\"raw_base64\":");
            push_string(out, &STANDARD.encode(letter.raw));
        }
    }
    out.push(b'}');
}
