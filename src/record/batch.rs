//! A batch of records as bytes: what the edge builds once, the queue keeps, and the indexer reads without parsing JSON again.
//!
//! Logs repeat themselves: a value that several records of the batch have under the same key is in it once, and records name their values by number. So
//! the queue writes less, and the store compares numbers instead of texts.
//!
//! Layout, little endian:
//!
//! ```text
//! header   magic "LYB2" · arrival_ns i64 · n_entries u32 · keys_offset u32 · entries_offset u32 · n_values u32
//! values   n_values × (key index varint · type u8 (`ValueType`) · payload)
//! entries  kind u8 (0 record, 1 dead letter) · body_len u32 · body
//! keys     n_keys u32 · n_keys × (len u32 · UTF-8)
//!
//! payload           Null: none · Bool: u8 · Int: i64 · Float: f64 bits · Number, Str, Json: len varint · UTF-8
//! record body       timestamp_ns i64 · timestamp_digits u8 · flags u32 · n_fields u32 · n_fields × value number varint
//! dead letter body  4 × (len varint · bytes): code, reason, source ("" is none), raw
//! ```
//!
//! Limits: a batch is at most 4 GiB; the edge's body limit keeps it far below.

mod builder;
mod reader;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;

use crate::record::batch::reader::Reader;
use crate::record::position::Position;
use crate::record::value::{Flags, ValueRef};

pub use builder::BatchBuilder;
pub use reader::BatchError;

const MAGIC: &[u8; 4] = b"LYB2";
/// What the magics of all versions begin with.
const MAGIC_START: &[u8] = b"LYB";
const HEADER_LEN: usize = 28;
const KIND_RECORD: u8 = 0;
const KIND_DEAD_LETTER: u8 = 1;

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
    /// Where each value begins, and where the last one ends.
    value_bounds: Arc<[u32]>,
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
    /// Numbers of its values.
    numbers: &'a [u8],
    batch: &'a Batch,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FieldRef<'a> {
    /// Index into [`Batch::keys`], the same for all records of the batch.
    pub key_index: u32,
    pub key: &'a str,
    pub value: ValueRef<'a>,
}

impl Batch {
    /// Whether `bytes` begin as a batch does whose format this version does not know.
    pub fn is_of_another_version(bytes: &[u8]) -> bool {
        bytes.starts_with(MAGIC_START) && !bytes.starts_with(MAGIC)
    }

    /// Checks the whole of `bytes` and shares them.
    pub fn from_bytes(bytes: Bytes) -> Result<Self, BatchError> {
        let mut header = Reader::new(&bytes);
        let magic = header.take(4)?;
        if magic != MAGIC {
            return Err(header.error(match Self::is_of_another_version(magic) {
                true => "written by another version of Logyard",
                false => "no batch magic",
            }));
        }
        let arrival_ns = i64::from_le_bytes(header.array()?);
        let n_entries = u32::from_le_bytes(header.array()?);
        let keys_offset = u32::from_le_bytes(header.array()?) as usize;
        let entries_offset = u32::from_le_bytes(header.array()?) as usize;
        let n_values = u32::from_le_bytes(header.array()?);
        if entries_offset < HEADER_LEN || keys_offset < entries_offset {
            return Err(header.error("parts out of order"));
        }
        if bytes.len() < keys_offset {
            return Err(header.error("key table outside the batch"));
        }
        let mut table = Reader::at(&bytes, keys_offset);
        let n_keys = u32::from_le_bytes(table.array()?);
        let mut keys: Vec<Box<str>> = Vec::new();
        for _ in 0..n_keys {
            let len = u32::from_le_bytes(table.array()?) as usize;
            keys.push(table.text(len)?.into());
        }
        let value_bounds = {
            let values = bytes.get(..entries_offset).unwrap_or_default();
            let mut values = Reader::at(values, HEADER_LEN);
            let mut bounds: Vec<u32> = vec![values.offset()];
            for _ in 0..n_values {
                values.field(&keys)?;
                bounds.push(values.offset());
            }
            if values.offset() as usize != entries_offset {
                return Err(values.error("values end before the entries begin"));
            }
            bounds
        };
        let batch = Self {
            keys: keys.into(),
            value_bounds: value_bounds.into(),
            keys_offset,
            arrival_ns,
            n_entries,
            bytes,
        };
        let mut reader = batch.entries_reader(entries_offset);
        for _ in 0..n_entries {
            if let EntryRef::Record(record) = reader.entry(&batch)? {
                let mut numbers = Reader::new(record.numbers);
                for _ in 0..record.n_fields {
                    if (n_values as usize) <= numbers.varint()? {
                        return Err(numbers.error("number of a value past the last"));
                    }
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

    /// How many values there are; records name them by their number. Mostly each is another, but a value that seldom comes again may stand there twice.
    pub fn n_values(&self) -> u32 {
        u32_of(self.value_bounds.len().saturating_sub(1))
    }

    /// The value of this number and the key under which records have it.
    pub fn value(&self, number: u32) -> Option<FieldRef<'_>> {
        let start = *self.value_bounds.get(number as usize)?;
        Reader::at(&self.bytes, start as usize)
            .field(&self.keys)
            .ok()
    }

    /// The entries in order; the entry with index i has the position `first.seq + i`.
    pub fn entries(&self) -> impl Iterator<Item = EntryRef<'_>> {
        let start = self.value_bounds.last().copied().unwrap_or(0);
        let mut reader = self.entries_reader(start as usize);
        (0..self.n_entries).map_while(move |_| reader.entry(self).ok())
    }

    fn entries_reader(&self, entries_offset: usize) -> Reader<'_> {
        let bytes = self.bytes.get(..self.keys_offset).unwrap_or_default();
        Reader::at(bytes, entries_offset)
    }
}

impl<'a> RecordRef<'a> {
    /// Bytes of the fields in the batch as if no other record shared them, their keys not counted.
    pub fn size_bytes(&self) -> usize {
        let bounds = &self.batch.value_bounds;
        let sizes = self.numbers().filter_map(|number| {
            let (start, end) = (number as usize, number as usize + 1);
            Some((bounds.get(end)? - bounds.get(start)?) as usize)
        });
        sizes.sum()
    }

    pub fn n_fields(&self) -> u32 {
        self.n_fields
    }

    /// The numbers of its values, see [`Batch::value`].
    #[inline]
    pub fn numbers(&self) -> impl Iterator<Item = u32> + use<'a> {
        let mut rest = self.numbers;
        (0..self.n_fields).map_while(move |_| next_number(&mut rest))
    }

    pub fn fields(&self) -> impl Iterator<Item = FieldRef<'a>> + use<'a> {
        let batch = self.batch;
        self.numbers().map_while(|number| batch.value(number))
    }

    /// The first field with this key.
    pub fn field(&self, key: &str) -> Option<ValueRef<'a>> {
        self.fields()
            .find(|field| field.key == key)
            .map(|field| field.value)
    }
}

#[inline]
fn next_number(rest: &mut &[u8]) -> Option<u32> {
    let (number, tail) = match *rest {
        [a @ 0..0x80, tail @ ..] => (u32::from(*a), tail),
        [a, b @ 0..0x80, tail @ ..] => (u32::from(*a & 0x7f) | u32::from(*b) << 7, tail),
        _ => {
            let mut reader = Reader::new(rest);
            let number = u32::try_from(reader.varint().ok()?).ok()?;
            (number, reader.rest())
        }
    };
    *rest = tail;
    Some(number)
}

fn u32_of(len: usize) -> u32 {
    u32::try_from(len).expect("a batch is smaller than 4 GiB: the edge's body limit keeps it so")
}
