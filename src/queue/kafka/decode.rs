//! Messages → batches of consecutive positions. A message with our header is read without aliases and comes out as it went in; one of
//! somebody else is read as `POST /logs` reads a line. What cannot be a record is a dead letter at its position: no message is left out.
//!
//! A batch ends where the partition or the arrival changes, at a gap, and at [`BATCH_BYTES_MAX`].

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use rdkafka::Message;
use rdkafka::message::Headers;
use serde::Deserialize;

use crate::queue::kafka::encode::push_record;
use crate::queue::kafka::message::{HEADER, HEADER_ENTRY, Header, Kind};
use crate::record::{Batch, BatchBuilder, DeadLetterRef, EntryRef, Position, QueuedBatch};
use crate::wire::json::{Exact, JsonDecoder, JsonOptions, RecordDefaults};
use crate::wire::native::decode::{BodyDecoder, DecodeOptions};

/// Larger ones are cut here.
const BATCH_BYTES_MAX: usize = 1 << 20;

pub(super) struct Decoder {
    exact: JsonDecoder,
    foreign: BodyDecoder,
    open: Option<Open>,
}

/// The batch in the making.
struct Open {
    first: Position,
    arrival_ns: i64,
    builder: BatchBuilder,
}

impl Open {
    fn next_seq(&self) -> u64 {
        self.first.seq + u64::from(self.builder.len())
    }
}

/// A dead letter as `encode` writes it.
#[derive(Deserialize)]
struct Letter {
    code: String,
    reason: String,
    source: Option<String>,
    raw: Option<String>,
    raw_base64: Option<String>,
}

impl Decoder {
    pub fn new(options: DecodeOptions) -> Self {
        let exact = JsonOptions {
            aliases: crate::record::Aliases {
                timestamp: Vec::new(),
                level: Vec::new(),
                source: Vec::new(),
                message: Vec::new(),
            },
            ..options.json.clone()
        };
        Self {
            exact: JsonDecoder::new(exact),
            foreign: BodyDecoder::new(options),
            open: None,
        }
    }

    /// Takes a message in; gives the batches that it ends. `is_letters`: it comes from the topic of dead letters.
    pub fn push<M: Message>(
        &mut self,
        message: &M,
        is_letters: bool,
        mut emit: impl FnMut(QueuedBatch),
    ) {
        let Some(position) = position_of(message, is_letters) else {
            return;
        };
        let header = header_of(message, HEADER).and_then(Header::from_bytes);
        if header.is_some_and(|header| header.kind == Kind::Poison) {
            // Its letter stands in the record's place: nothing to store here, but the position is done.
            self.finish(&mut emit);
            emit(nothing_before(Position {
                seq: position.seq + 1,
                ..position
            }));
            return;
        }
        let arrival_ns = match header {
            Some(header) => header.arrival_ns,
            None => arrival_of(message),
        };
        let goes_on = self.open.as_ref().is_some_and(|open| {
            open.first.partition == position.partition
                && open.next_seq() == position.seq
                && open.arrival_ns == arrival_ns
                && open.builder.size_bytes() < BATCH_BYTES_MAX
        });
        if !goes_on {
            self.finish(&mut emit);
            self.exact.begin_batch();
            self.foreign.begin_batch();
        }
        let Open { first, builder, .. } = self.open.take().unwrap_or_else(|| Open {
            first: position,
            arrival_ns,
            builder: BatchBuilder::new(arrival_ns),
        });
        let builder = self.entry(builder, message, header, is_letters, arrival_ns);
        self.open = Some(Open {
            first,
            arrival_ns,
            builder,
        });
    }

    /// Gives the batch in the making.
    pub fn finish(&mut self, mut emit: impl FnMut(QueuedBatch)) {
        if let Some(Open { first, builder, .. }) = self.open.take() {
            emit(QueuedBatch {
                first,
                batch: builder.finish(),
            });
        }
    }

    /// Forgets the batch in the making.
    pub fn abandon(&mut self) {
        self.open = None;
    }

    /// Appends exactly one entry.
    fn entry<M: Message>(
        &mut self,
        mut builder: BatchBuilder,
        message: &M,
        header: Option<Header>,
        is_letters: bool,
        arrival_ns: i64,
    ) -> BatchBuilder {
        let payload = message.payload().unwrap_or_default();
        if is_letters {
            push_letter(&mut builder, payload);
            return builder;
        }
        if let Some(header) = header
            && header.kind == Kind::Record
            && self.exactly(&mut builder, message, header, payload)
        {
            return builder;
        }
        if payload.is_empty() {
            builder.dead_letter(DeadLetterRef {
                code: "empty_message",
                reason: "a Kafka message without a value",
                source: None,
                raw: message.key().unwrap_or_default(),
            });
            return builder;
        }
        let defaults = RecordDefaults {
            arrival_ns,
            source: None,
            level: None,
        };
        self.foreign.decode_one(builder, payload, defaults)
    }

    /// False if the message is not what its header says.
    fn exactly<M: Message>(
        &mut self,
        builder: &mut BatchBuilder,
        message: &M,
        header: Header,
        payload: &[u8],
    ) -> bool {
        if let Some(bytes) = header_of(message, HEADER_ENTRY) {
            let batch = Batch::from_bytes(Bytes::copy_from_slice(bytes));
            let Ok(batch) = batch else { return false };
            let Some(EntryRef::Record(record)) = batch.entries().next() else {
                return false;
            };
            push_record(builder, record);
            return true;
        }
        let exact = Exact {
            timestamp_ns: header.timestamp_ns,
            timestamp_digits: header.timestamp_digits.min(9),
            flags: header.flags,
        };
        match std::str::from_utf8(payload) {
            Ok(text) => self.exact.queued_object(text, builder, exact).is_ok(),
            Err(_) => false,
        }
    }
}

/// Nothing to store lies before this position.
fn nothing_before(position: Position) -> QueuedBatch {
    QueuedBatch {
        first: position,
        batch: BatchBuilder::new(0).finish(),
    }
}

fn push_letter(builder: &mut BatchBuilder, payload: &[u8]) {
    let letter = serde_json::from_slice::<Letter>(payload).ok();
    let parts = letter.and_then(|letter| {
        let raw = match (&letter.raw, &letter.raw_base64) {
            (Some(text), None) => text.clone().into_bytes(),
            (None, Some(text)) => STANDARD.decode(text).ok()?,
            _ => return None,
        };
        Some((letter, raw))
    });
    match parts {
        Some((letter, raw)) => builder.dead_letter(DeadLetterRef {
            code: &letter.code,
            reason: &letter.reason,
            source: letter.source.as_deref(),
            raw: &raw,
        }),
        None => builder.dead_letter(DeadLetterRef {
            code: "foreign_dead_letter",
            reason: "a message in the topic of dead letters that Logyard did not write",
            source: None,
            raw: payload,
        }),
    }
}

/// `None` for what has no position, which Kafka never hands out.
fn position_of<M: Message>(message: &M, is_letters: bool) -> Option<Position> {
    let partition = u32::try_from(message.partition()).ok()?;
    let bit = if is_letters {
        Position::LETTER_PARTITIONS
    } else {
        0
    };
    Some(Position {
        partition: partition | bit,
        seq: u64::try_from(message.offset()).ok()?,
    })
}

/// By the producer's or the broker's clock, as the topic is set up.
fn arrival_of<M: Message>(message: &M) -> i64 {
    let ms = message.timestamp().to_millis().unwrap_or(0);
    ms.saturating_mul(1_000_000)
}

pub(super) fn header_of<'m, M: Message>(message: &'m M, name: &str) -> Option<&'m [u8]> {
    let headers = message.headers()?;
    (0..headers.count())
        .filter_map(|index| headers.try_get(index))
        .find(|header| header.key == name)
        .and_then(|header| header.value)
}
