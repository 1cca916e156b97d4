//! What a message carries beside its JSON, so that the record that comes out is the one that went in.
//!
//! Header `logyard`, little endian: version u8 (1) · kind u8 ([`Kind`]) · arrival_ns i64 · timestamp_ns i64 · timestamp_digits u8 · flags u32.
//! A message without it is one of somebody else. Newer versions may append; what is not understood is read as somebody else's.
//!
//! Header `logyard-entry`: the entry as a batch of one (see `record::batch`), only where the JSON does not give it back exactly: a field whose
//! name the JSON needs for itself (`id`, `timestamp`, `_flags`), a value and an object of one name.
//!
//! Header `logyard-key`: xxh3-128 of the idempotency key u128 · index in the batch u32, only for batches with a key.

use crate::record::Flags;

pub(super) const HEADER: &str = "logyard";
pub(super) const HEADER_ENTRY: &str = "logyard-entry";
pub(super) const HEADER_KEY: &str = "logyard-key";
pub(super) const HEADER_LEN: usize = 23;
const VERSION: u8 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Record = 0,
    /// A line that could not be a record.
    Letter = 1,
    /// A record that the store could not take: its letter stands in its place, this message tells others of it.
    Poison = 2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub kind: Kind,
    pub arrival_ns: i64,
    pub timestamp_ns: i64,
    pub timestamp_digits: u8,
    pub flags: Flags,
}

impl Header {
    pub fn to_bytes(self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        let parts: [&[u8]; 5] = [
            &[VERSION, self.kind as u8],
            &self.arrival_ns.to_le_bytes(),
            &self.timestamp_ns.to_le_bytes(),
            &[self.timestamp_digits],
            &self.flags.0.to_le_bytes(),
        ];
        let mut at = 0;
        for part in parts {
            if let Some(place) = bytes.get_mut(at..at + part.len()) {
                place.copy_from_slice(part);
            }
            at += part.len();
        }
        bytes
    }

    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let ([version, kind], rest) = bytes.split_first_chunk()?;
        let (arrival_ns, rest) = rest.split_first_chunk()?;
        let (timestamp_ns, rest) = rest.split_first_chunk()?;
        let ([timestamp_digits], rest) = rest.split_first_chunk()?;
        let (flags, _) = rest.split_first_chunk()?;
        let kind = match kind {
            0 => Kind::Record,
            1 => Kind::Letter,
            2 => Kind::Poison,
            _ => return None,
        };
        (*version == VERSION).then_some(Self {
            kind,
            arrival_ns: i64::from_le_bytes(*arrival_ns),
            timestamp_ns: i64::from_le_bytes(*timestamp_ns),
            timestamp_digits: *timestamp_digits,
            flags: Flags(u32::from_le_bytes(*flags)),
        })
    }
}

/// Which keyed batch a message belongs to, and where in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeyMark {
    pub key_hash: u128,
    pub index: u32,
}

impl KeyMark {
    pub fn to_bytes(self) -> [u8; 20] {
        let mut bytes = [0; 20];
        let (hash, index) = bytes.split_at_mut(16);
        hash.copy_from_slice(&self.key_hash.to_le_bytes());
        index.copy_from_slice(&self.index.to_le_bytes());
        bytes
    }

    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (hash, rest) = bytes.split_first_chunk()?;
        let (index, _) = rest.split_first_chunk()?;
        Some(Self {
            key_hash: u128::from_le_bytes(*hash),
            index: u32::from_le_bytes(*index),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_back_and_strange_ones_are_not_taken() {
        let header = Header {
            kind: Kind::Poison,
            arrival_ns: -5,
            timestamp_ns: i64::MAX,
            timestamp_digits: 7,
            flags: Flags(0x8000_0001),
        };
        let bytes = header.to_bytes();
        assert_eq!(Header::from_bytes(&bytes), Some(header));
        for end in 0..bytes.len() {
            assert_eq!(Header::from_bytes(&bytes[..end]), None);
        }
        for (at, value) in [(0, 2), (1, 9)] {
            let mut strange = bytes;
            strange[at] = value;
            assert_eq!(Header::from_bytes(&strange), None);
        }
        let mark = KeyMark {
            key_hash: u128::MAX - 3,
            index: 77,
        };
        assert_eq!(KeyMark::from_bytes(&mark.to_bytes()), Some(mark));
        assert_eq!(KeyMark::from_bytes(b"short"), None);
    }
}
