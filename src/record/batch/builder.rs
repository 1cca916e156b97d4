//! Building a batch: each value is written once, and looked up when it comes again.

use bytes::Bytes;
use hashbrown::{HashMap, HashTable};

use crate::record::batch::{
    Batch, DeadLetterRef, HEADER_LEN, KIND_DEAD_LETTER, KIND_RECORD, MAGIC, u32_of,
};
use crate::record::value::{Flags, ValueRef};

/// Values of a key before it is decided whether looking for the same value again is worth it.
const HABIT_VALUES: u32 = 64;
/// A finished batch may hold one byte of unused memory for so many in use.
const USED_TO_SPARE: usize = 8;

/// Builds a [`Batch`]. Call `begin_record`, `field` for each leaf, then `end_record` or `abandon_record`.
pub struct BatchBuilder {
    /// Room for the header, and the values.
    bytes: Vec<u8>,
    /// Where each value begins.
    value_starts: Vec<u32>,
    known: KnownValues,
    entries: Vec<u8>,
    n_entries: u32,
    keys: Vec<Box<str>>,
    key_indices: HashMap<Box<str>, u32, ahash::RandomState>,
    arrival_ns: i64,
    /// Where the record begun has its entry, and how many values there were before it.
    record_start: usize,
    record_values: usize,
    record_fields: u32,
}

/// Finds the number of a value that is in the batch already. Entries outlive a record that is abandoned: they are compared before they are believed.
struct KnownValues {
    /// Upper half of the hash, number.
    table: HashTable<(u32, u32)>,
    hasher: ahash::RandomState,
    /// By key index.
    habits: Vec<Habit>,
}

/// How the values of a key have been so far.
#[derive(Clone, Copy)]
struct Habit {
    n_values: u32,
    n_new: u32,
    /// The number of the last one.
    last: u32,
}

impl BatchBuilder {
    pub fn new(arrival_ns: i64) -> Self {
        Self::with_capacity(arrival_ns, 0)
    }

    /// Room for `size_bytes` of values from the start: growing step by step touches each page of memory twice.
    pub fn with_capacity(arrival_ns: i64, size_bytes: usize) -> Self {
        let mut bytes = Vec::with_capacity(HEADER_LEN + size_bytes);
        bytes.resize(HEADER_LEN, 0);
        Self {
            bytes,
            value_starts: Vec::new(),
            known: KnownValues {
                table: HashTable::new(),
                hasher: ahash::RandomState::new(),
                habits: Vec::new(),
            },
            entries: Vec::new(),
            n_entries: 0,
            keys: Vec::new(),
            key_indices: HashMap::default(),
            arrival_ns,
            record_start: 0,
            record_values: 0,
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
        self.bytes.len() + self.entries.len()
    }

    /// Room for so many bytes of values before the next growth.
    pub fn capacity_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// Different keys so far.
    pub fn keys_len(&self) -> u32 {
        u32_of(self.keys.len())
    }

    pub fn begin_record(&mut self) {
        self.record_start = self.entries.len();
        self.record_values = self.value_starts.len();
        self.record_fields = 0;
        self.entries.push(KIND_RECORD);
        // Length, time, digits, flags and field count are written by `end_record`.
        self.entries.extend([0; 4 + 8 + 1 + 4 + 4]);
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
        let start = self.bytes.len();
        push_value(&mut self.bytes, key_index, value);
        let number = self
            .known
            .find(key_index, &self.bytes, start, &self.value_starts);
        let number = match number {
            Some(number) => {
                self.bytes.truncate(start);
                number
            }
            None => {
                self.value_starts.push(u32_of(start));
                u32_of(self.value_starts.len() - 1)
            }
        };
        push_varint(&mut self.entries, u64::from(number));
    }

    pub fn end_record(&mut self, timestamp_ns: i64, timestamp_digits: u8, flags: Flags) {
        let start = self.record_start;
        let body_len = u32_of(self.entries.len() - start - 5);
        let parts: [&[u8]; 5] = [
            &body_len.to_le_bytes(),
            &timestamp_ns.to_le_bytes(),
            &[timestamp_digits],
            &flags.0.to_le_bytes(),
            &self.record_fields.to_le_bytes(),
        ];
        let mut at = start + 1;
        for part in parts {
            put(&mut self.entries, at, part);
            at += part.len();
        }
        self.n_entries += 1;
    }

    /// Forgets the record begun.
    pub fn abandon_record(&mut self) {
        self.entries.truncate(self.record_start);
        if let Some(start) = self.value_starts.get(self.record_values) {
            self.bytes.truncate(*start as usize);
        }
        self.value_starts.truncate(self.record_values);
    }

    pub fn dead_letter(&mut self, letter: DeadLetterRef<'_>) {
        self.entries.push(KIND_DEAD_LETTER);
        let len_at = self.entries.len();
        self.entries.extend([0; 4]);
        push_slice(&mut self.entries, letter.code.as_bytes());
        push_slice(&mut self.entries, letter.reason.as_bytes());
        push_slice(&mut self.entries, letter.source.unwrap_or("").as_bytes());
        push_slice(&mut self.entries, letter.raw);
        let body_len = u32_of(self.entries.len() - len_at - 4);
        put(&mut self.entries, len_at, &body_len.to_le_bytes());
        self.n_entries += 1;
    }

    pub fn finish(mut self) -> Batch {
        let entries_offset = u32_of(self.bytes.len());
        let n_values = u32_of(self.value_starts.len());
        let mut value_bounds = self.value_starts;
        value_bounds.push(entries_offset);
        let keys_size: usize = self.keys.iter().map(|key| 4 + key.len()).sum();
        self.bytes.reserve(self.entries.len() + 4 + keys_size);
        self.bytes.append(&mut self.entries);
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
        header.extend(entries_offset.to_le_bytes());
        header.extend(n_values.to_le_bytes());
        put(&mut self.bytes, 0, &header);
        // Batches wait in the queue's memory.
        if self.bytes.len() / USED_TO_SPARE < self.bytes.capacity() - self.bytes.len() {
            self.bytes.shrink_to_fit();
        }
        Batch {
            bytes: Bytes::from(self.bytes),
            keys: self.keys.into(),
            value_bounds: value_bounds.into(),
            keys_offset,
            arrival_ns: self.arrival_ns,
            n_entries: self.n_entries,
        }
    }
}

impl KnownValues {
    /// The number of the value written from `start` on, if it has one; else remembers it under the next number.
    #[inline]
    fn find(&mut self, key_index: u32, bytes: &[u8], start: usize, starts: &[u32]) -> Option<u32> {
        let index = key_index as usize;
        if self.habits.len() <= index {
            self.habits.resize(index + 1, Habit::NONE);
        }
        let habit = self.habits.get_mut(index)?;
        if habit.is_unique() {
            return None;
        }
        habit.n_values += 1;
        let value = bytes.get(start..)?;
        let is_it = |number: u32| {
            let known = starts.get(number as usize).and_then(|known| {
                let end = starts.get(number as usize + 1);
                bytes.get(*known as usize..end.map_or(start, |end| *end as usize))
            });
            known == Some(value)
        };
        if is_it(habit.last) {
            return Some(habit.last);
        }
        let hash = (self.hasher.hash_one(value) >> 32) as u32;
        let found = self
            .table
            .find(spread(hash), |(other, number)| {
                *other == hash && is_it(*number)
            })
            .map(|(_, number)| *number);
        habit.last = found.unwrap_or(u32_of(starts.len()));
        if found.is_none() {
            habit.n_new += 1;
            let entry = (hash, habit.last);
            self.table
                .insert_unique(spread(hash), entry, |(hash, _)| spread(*hash));
        }
        found
    }
}

impl Habit {
    const NONE: Self = Self {
        n_values: 0,
        n_new: 0,
        last: u32::MAX,
    };

    /// Three of four values were new: looking the others up costs more than it saves.
    fn is_unique(self) -> bool {
        HABIT_VALUES <= self.n_values && self.n_values * 3 < self.n_new * 4
    }
}

/// The table takes its places from the lower bits and its marks from the upper ones.
fn spread(hash: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(hash)
}

#[inline]
fn push_value(bytes: &mut Vec<u8>, key_index: u32, value: ValueRef<'_>) {
    let ty = value.value_type() as u8;
    // Nearly every field: a short text with one of the first keys.
    if let (Ok(key @ 0..=0x7f), ValueRef::Str(text)) = (u8::try_from(key_index), value)
        && let Ok(len @ 0..=0x7f) = u8::try_from(text.len())
    {
        bytes.extend_from_slice(&[key, ty, len]);
        bytes.extend_from_slice(text.as_bytes());
        return;
    }
    push_varint(bytes, u64::from(key_index));
    bytes.push(ty);
    match value {
        ValueRef::Null => {}
        ValueRef::Bool(value) => bytes.push(u8::from(value)),
        ValueRef::Int(value) => bytes.extend(value.to_le_bytes()),
        ValueRef::Float(value) => bytes.extend(value.to_bits().to_le_bytes()),
        ValueRef::Number(text) | ValueRef::Str(text) | ValueRef::Json(text) => {
            push_slice(bytes, text.as_bytes());
        }
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

fn put(bytes: &mut [u8], at: usize, part: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + part.len()) {
        place.copy_from_slice(part);
    }
}
