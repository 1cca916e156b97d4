//! A batch of records as bytes: what the edge builds once, the queue keeps, and the indexer reads without parsing JSON again.
//!
//! Layout, little endian:
//!
//! ```text
//! header   magic "LYB1" · arrival_ns i64 · n_entries u32 · keys_offset u32
//! entries  kind u8 (0 record, 1 dead letter) · body_len u32 · body
//! keys     n_keys u32 · n_keys × (len u32 · UTF-8)
//!
//! record body       timestamp_ns i64 · timestamp_digits u8 · flags u32 · n_fields u32 · n_fields × field
//! field             key index varint · type u8 (`ValueType`) · payload
//! payload           Null: none · Bool: u8 · Int: i64 · Float: f64 bits · Number, Str, Json: len varint · UTF-8
//! dead letter body  4 × (len varint · bytes): code, reason, source ("" is none), raw
//! ```
//!
//! Limits: a batch is at most 4 GiB; the edge's body limit keeps it far below.

use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashMap;

use crate::record::position::Position;
use crate::record::value::{Flags, ValueRef, ValueType};

const MAGIC: &[u8; 4] = b"LYB1";
const HEADER_LEN: usize = 20;
const KIND_RECORD: u8 = 0;
const KIND_DEAD_LETTER: u8 = 1;

/// Builds a [`Batch`]. Call `begin_record`, `field` for each leaf, then `end_record` or `abandon_record`.
pub struct BatchBuilder {
    bytes: Vec<u8>,
    n_entries: u32,
    keys: Vec<Box<str>>,
    key_indices: HashMap<Box<str>, u32, ahash::RandomState>,
    arrival_ns: i64,
    record_start: usize,
    record_fields: u32,
}

/// A line that could not be made a record, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeadLetterRef<'a> {
    pub code: &'a str,
    pub reason: &'a str,
    pub source: Option<&'a str>,
    pub raw: &'a [u8],
}

/// Immutable and cheap to clone. Every instance has been checked: iterating cannot fail.
#[derive(Clone, Debug)]
pub struct Batch {
    bytes: Bytes,
    keys: Arc<[Box<str>]>,
    keys_offset: usize,
    arrival_ns: i64,
    n_entries: u32,
}

/// A batch with the position of its first entry; entry i is at `first.seq + i`.
#[derive(Clone, Debug)]
pub struct QueuedBatch {
    pub first: Position,
    pub batch: Batch,
}

impl QueuedBatch {
    /// The `seq` after the last entry.
    pub fn next_seq(&self) -> u64 {
        self.first.seq + u64::from(self.batch.len())
    }
}

#[derive(Clone, Copy, Debug)]
pub enum EntryRef<'a> {
    Record(RecordRef<'a>),
    DeadLetter(DeadLetterRef<'a>),
}

#[derive(Clone, Copy, Debug)]
pub struct RecordRef<'a> {
    pub timestamp_ns: i64,
    pub timestamp_digits: u8,
    pub flags: Flags,
    n_fields: u32,
    field_bytes: &'a [u8],
    keys: &'a [Box<str>],
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FieldRef<'a> {
    /// Index into [`Batch::keys`], the same for all records of the batch.
    pub key_index: u32,
    pub key: &'a str,
    pub value: ValueRef<'a>,
}

#[derive(Debug, thiserror::Error)]
#[error("not a batch of records: {what} at byte {offset}")]
pub struct BatchError {
    pub what: &'static str,
    pub offset: usize,
}

impl BatchBuilder {
    pub fn new(arrival_ns: i64) -> Self {
        Self::with_capacity(arrival_ns, 0)
    }

    /// Room for `size_bytes` from the start: growing step by step touches each page of memory twice.
    pub fn with_capacity(arrival_ns: i64, size_bytes: usize) -> Self {
        let mut bytes = Vec::with_capacity(HEADER_LEN + size_bytes);
        bytes.resize(HEADER_LEN, 0);
        Self {
            bytes,
            n_entries: 0,
            keys: Vec::new(),
            key_indices: HashMap::default(),
            arrival_ns,
            record_start: 0,
            record_fields: 0,
        }
    }

    pub fn len(&self) -> u32 {
        self.n_entries
    }

    pub fn is_empty(&self) -> bool {
        self.n_entries == 0
    }

    pub fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Room for so many bytes before the next growth.
    pub fn capacity_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// Different keys so far.
    pub fn keys_len(&self) -> u32 {
        u32_of(self.keys.len())
    }

    pub fn begin_record(&mut self) {
        self.record_start = self.bytes.len();
        self.record_fields = 0;
        self.bytes.push(KIND_RECORD);
        // Length, time, digits, flags and field count are written by `end_record`.
        self.bytes.extend([0; 4 + 8 + 1 + 4 + 4]);
    }

    /// Interns `key` so that [`Self::field_at`] needs no hashing.
    pub fn key_index(&mut self, key: &str) -> u32 {
        if let Some(index) = self.key_indices.get(key) {
            return *index;
        }
        let index = u32_of(self.keys.len());
        self.keys.push(key.into());
        self.key_indices.insert(key.into(), index);
        index
    }

    /// A leaf of the record begun. The caller gives each key at most once for a record.
    pub fn field(&mut self, key: &str, value: ValueRef<'_>) {
        let key_index = self.key_index(key);
        self.field_at(key_index, value);
    }

    #[inline]
    pub fn field_at(&mut self, key_index: u32, value: ValueRef<'_>) {
        self.record_fields += 1;
        let ty = value.value_type() as u8;
        // Nearly every field: a short text with one of the first keys.
        if let (Ok(key @ 0..=0x7f), ValueRef::Str(text)) = (u8::try_from(key_index), value)
            && let Ok(len @ 0..=0x7f) = u8::try_from(text.len())
        {
            self.bytes.extend_from_slice(&[key, ty, len]);
            self.bytes.extend_from_slice(text.as_bytes());
            return;
        }
        push_varint(&mut self.bytes, u64::from(key_index));
        self.bytes.push(ty);
        match value {
            ValueRef::Null => {}
            ValueRef::Bool(value) => self.bytes.push(u8::from(value)),
            ValueRef::Int(value) => self.bytes.extend(value.to_le_bytes()),
            ValueRef::Float(value) => self.bytes.extend(value.to_bits().to_le_bytes()),
            ValueRef::Number(text) | ValueRef::Str(text) | ValueRef::Json(text) => {
                push_slice(&mut self.bytes, text.as_bytes());
            }
        }
    }

    pub fn end_record(&mut self, timestamp_ns: i64, timestamp_digits: u8, flags: Flags) {
        let start = self.record_start;
        let body_len = u32_of(self.bytes.len() - start - 5);
        let parts: [&[u8]; 5] = [
            &body_len.to_le_bytes(),
            &timestamp_ns.to_le_bytes(),
            &[timestamp_digits],
            &flags.0.to_le_bytes(),
            &self.record_fields.to_le_bytes(),
        ];
        let mut at = start + 1;
        for part in parts {
            if let Some(place) = self.bytes.get_mut(at..at + part.len()) {
                place.copy_from_slice(part);
            }
            at += part.len();
        }
        self.n_entries += 1;
    }

    /// Forgets the record begun.
    pub fn abandon_record(&mut self) {
        self.bytes.truncate(self.record_start);
    }

    pub fn dead_letter(&mut self, letter: DeadLetterRef<'_>) {
        self.bytes.push(KIND_DEAD_LETTER);
        let len_at = self.bytes.len();
        self.bytes.extend([0; 4]);
        push_slice(&mut self.bytes, letter.code.as_bytes());
        push_slice(&mut self.bytes, letter.reason.as_bytes());
        push_slice(&mut self.bytes, letter.source.unwrap_or("").as_bytes());
        push_slice(&mut self.bytes, letter.raw);
        let body_len = u32_of(self.bytes.len() - len_at - 4);
        if let Some(place) = self.bytes.get_mut(len_at..len_at + 4) {
            place.copy_from_slice(&body_len.to_le_bytes());
        }
        self.n_entries += 1;
    }

    pub fn finish(mut self) -> Batch {
        let keys_offset = self.bytes.len();
        self.bytes.extend(u32_of(self.keys.len()).to_le_bytes());
        for key in &self.keys {
            self.bytes.extend(u32_of(key.len()).to_le_bytes());
            self.bytes.extend(key.as_bytes());
        }
        let mut header = Vec::with_capacity(HEADER_LEN);
        header.extend(MAGIC);
        header.extend(self.arrival_ns.to_le_bytes());
        header.extend(self.n_entries.to_le_bytes());
        header.extend(u32_of(keys_offset).to_le_bytes());
        if let Some(place) = self.bytes.get_mut(..HEADER_LEN) {
            place.copy_from_slice(&header);
        }
        Batch {
            bytes: Bytes::from(self.bytes),
            keys: self.keys.into(),
            keys_offset,
            arrival_ns: self.arrival_ns,
            n_entries: self.n_entries,
        }
    }
}

impl Batch {
    /// Checks the whole of `bytes` and shares them.
    pub fn from_bytes(bytes: Bytes) -> Result<Self, BatchError> {
        let mut header = Reader::new(&bytes);
        let magic = header.take(4)?;
        if magic != MAGIC {
            return Err(header.error("no batch magic"));
        }
        let arrival_ns = i64::from_le_bytes(header.array()?);
        let n_entries = u32::from_le_bytes(header.array()?);
        let keys_offset = u32::from_le_bytes(header.array()?) as usize;
        if keys_offset < HEADER_LEN || bytes.len() < keys_offset {
            return Err(header.error("key table outside the batch"));
        }
        let mut table = Reader {
            bytes: &bytes,
            at: keys_offset,
        };
        let n_keys = u32::from_le_bytes(table.array()?);
        let mut keys: Vec<Box<str>> = Vec::new();
        for _ in 0..n_keys {
            let len = u32::from_le_bytes(table.array()?) as usize;
            keys.push(table.text(len)?.into());
        }
        let batch = Self {
            keys: keys.into(),
            keys_offset,
            arrival_ns,
            n_entries,
            bytes,
        };
        let mut reader = batch.reader();
        for _ in 0..n_entries {
            if let EntryRef::Record(record) = read_entry(&mut reader, &batch.keys)? {
                let mut fields = Reader::new(record.field_bytes);
                for _ in 0..record.n_fields {
                    read_field(&mut fields, &batch.keys)?;
                }
            }
        }
        Ok(batch)
    }

    pub fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Entries: records and dead letters.
    pub fn len(&self) -> u32 {
        self.n_entries
    }

    pub fn is_empty(&self) -> bool {
        self.n_entries == 0
    }

    pub fn arrival_ns(&self) -> i64 {
        self.arrival_ns
    }

    /// The field keys of all records, by `key_index`.
    pub fn keys(&self) -> &[Box<str>] {
        &self.keys
    }

    /// The entries in order; the entry with index i has the position `first.seq + i`.
    pub fn entries(&self) -> impl Iterator<Item = EntryRef<'_>> {
        let mut reader = self.reader();
        (0..self.n_entries).map_while(move |_| read_entry(&mut reader, &self.keys).ok())
    }

    fn reader(&self) -> Reader<'_> {
        Reader {
            bytes: self.bytes.get(..self.keys_offset).unwrap_or_default(),
            at: HEADER_LEN,
        }
    }
}

impl<'a> RecordRef<'a> {
    /// Bytes of the fields in the batch, their keys not counted.
    pub fn size_bytes(&self) -> usize {
        self.field_bytes.len()
    }

    pub fn n_fields(&self) -> u32 {
        self.n_fields
    }

    pub fn fields(&self) -> impl Iterator<Item = FieldRef<'a>> + use<'a> {
        let mut reader = Reader::new(self.field_bytes);
        let keys = self.keys;
        (0..self.n_fields).map_while(move |_| read_field(&mut reader, keys).ok())
    }

    /// The first field with this key.
    pub fn field(&self, key: &str) -> Option<ValueRef<'a>> {
        self.fields()
            .find(|field| field.key == key)
            .map(|field| field.value)
    }
}

fn read_entry<'a>(
    reader: &mut Reader<'a>,
    keys: &'a [Box<str>],
) -> Result<EntryRef<'a>, BatchError> {
    let [kind] = reader.array()?;
    let body_len = u32::from_le_bytes(reader.array()?) as usize;
    let mut body = Reader::new(reader.take(body_len)?);
    match kind {
        KIND_RECORD => {
            let timestamp_ns = i64::from_le_bytes(body.array()?);
            let [timestamp_digits] = body.array()?;
            let flags = Flags(u32::from_le_bytes(body.array()?));
            let n_fields = u32::from_le_bytes(body.array()?);
            Ok(EntryRef::Record(RecordRef {
                timestamp_ns,
                timestamp_digits,
                flags,
                n_fields,
                field_bytes: body.rest(),
                keys,
            }))
        }
        KIND_DEAD_LETTER => {
            let code = body.sized_text()?;
            let reason = body.sized_text()?;
            let source = body.sized_text()?;
            let raw_len = body.varint()?;
            Ok(EntryRef::DeadLetter(DeadLetterRef {
                code,
                reason,
                source: (!source.is_empty()).then_some(source),
                raw: body.take(raw_len)?,
            }))
        }
        _ => Err(reader.error("unknown kind of entry")),
    }
}

fn read_field<'a>(
    reader: &mut Reader<'a>,
    keys: &'a [Box<str>],
) -> Result<FieldRef<'a>, BatchError> {
    let key_index = reader.varint()?;
    let Some(key) = keys.get(key_index) else {
        return Err(reader.error("key index past the key table"));
    };
    let [ty] = reader.array()?;
    let Some(ty) = ValueType::ALL.get(usize::from(ty)) else {
        return Err(reader.error("unknown type of value"));
    };
    let value = match ty {
        ValueType::Null => ValueRef::Null,
        ValueType::Bool => ValueRef::Bool(reader.array()? != [0]),
        ValueType::Int => ValueRef::Int(i64::from_le_bytes(reader.array()?)),
        ValueType::Float => ValueRef::Float(f64::from_bits(u64::from_le_bytes(reader.array()?))),
        ValueType::Number => ValueRef::Number(reader.sized_text()?),
        ValueType::Str => ValueRef::Str(reader.sized_text()?),
        ValueType::Json => ValueRef::Json(reader.sized_text()?),
    };
    Ok(FieldRef {
        key_index: u32_of(key_index),
        key,
        value,
    })
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn error(&self, what: &'static str) -> BatchError {
        BatchError {
            what,
            offset: self.at,
        }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], BatchError> {
        let end = self.at.checked_add(len);
        let Some(taken) = end.and_then(|end| self.bytes.get(self.at..end)) else {
            return Err(self.error("cut short"));
        };
        self.at += len;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], BatchError> {
        match self.take(N)?.first_chunk() {
            Some(array) => Ok(*array),
            None => Err(self.error("cut short")),
        }
    }

    fn varint(&mut self) -> Result<usize, BatchError> {
        let mut value = 0_u64;
        for shift in (0..63).step_by(7) {
            let [byte] = self.array()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return usize::try_from(value).map_err(|_| self.error("number too large"));
            }
        }
        Err(self.error("number too long"))
    }

    fn text(&mut self, len: usize) -> Result<&'a str, BatchError> {
        let bytes = self.take(len)?;
        simdutf8::basic::from_utf8(bytes).map_err(|_| self.error("not UTF-8"))
    }

    fn sized_text(&mut self) -> Result<&'a str, BatchError> {
        let len = self.varint()?;
        self.text(len)
    }

    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }
}

#[inline]
fn push_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while 0x80 <= value {
        bytes.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    bytes.push(value.to_le_bytes()[0]);
}

#[inline]
fn push_slice(bytes: &mut Vec<u8>, slice: &[u8]) {
    push_varint(bytes, slice.len() as u64);
    bytes.extend_from_slice(slice);
}

fn u32_of(len: usize) -> u32 {
    u32::try_from(len).expect("a batch is smaller than 4 GiB: the edge's body limit keeps it so")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Batch {
        let mut builder = BatchBuilder::new(42);
        builder.begin_record();
        builder.field("message", ValueRef::Str("hello"));
        builder.field("http.status", ValueRef::Int(500));
        builder.field("ratio", ValueRef::Float(0.5));
        builder.field("big", ValueRef::Number("18446744073709551616"));
        builder.field("tags", ValueRef::Json("[1,2]"));
        builder.field("ok", ValueRef::Bool(true));
        builder.field("none", ValueRef::Null);
        builder.end_record(-5, 3, Flags::TRUNCATED);
        builder.begin_record();
        builder.field("lost", ValueRef::Null);
        builder.abandon_record();
        builder.dead_letter(DeadLetterRef {
            code: "invalid_json",
            reason: "why",
            source: None,
            raw: b"{\xff",
        });
        builder.finish()
    }

    #[test]
    fn what_is_built_is_read_back_from_its_bytes() {
        let built = example();
        for batch in [
            built.clone(),
            Batch::from_bytes(built.as_bytes().clone()).unwrap(),
        ] {
            assert_eq!((batch.len(), batch.arrival_ns()), (2, 42));
            let entries: Vec<_> = batch.entries().collect();
            let [EntryRef::Record(record), EntryRef::DeadLetter(letter)] = entries[..] else {
                panic!("{entries:?}")
            };
            assert_eq!((record.timestamp_ns, record.timestamp_digits), (-5, 3));
            assert_eq!(record.flags, Flags::TRUNCATED);
            assert_eq!(record.field("http.status"), Some(ValueRef::Int(500)));
            assert_eq!(record.fields().count(), 7);
            assert_eq!(letter.raw, b"{\xff");
        }
    }

    #[test]
    fn every_cut_and_every_garbled_byte_is_an_error_or_a_batch_never_a_panic() {
        let bytes = example().as_bytes().to_vec();
        for end in 0..bytes.len() {
            Batch::from_bytes(Bytes::copy_from_slice(&bytes[..end])).unwrap_err();
        }
        for at in 0..bytes.len() {
            let mut garbled = bytes.clone();
            garbled[at] ^= 0x55;
            if let Ok(batch) = Batch::from_bytes(Bytes::from(garbled)) {
                batch.entries().count();
            }
        }
    }
}
