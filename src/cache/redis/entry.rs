//! What lies under a key in Redis. Whatever else is found there is a miss: Redis is shared, and its bytes are not trusted.
//!
//! ```text
//! 0   4   "LYC" and the format's version, 1
//! 4   16  the question      ┐ CacheKey: a value copied to another key does not fit there
//! 20  8   the store version ┘
//! 28  16  the stamp: hash of the days' marks when the question was asked
//! 44  8   xxh3-64 of bytes 0 to 44 and of the answer
//! 52      the answer
//! ```
//! Integers are little-endian.

use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

use crate::cache::CacheKey;

const MAGIC: &[u8; 4] = b"LYC\x01";
const HEAD_BYTES: usize = 44;
/// Before the answer.
pub const OVERHEAD_BYTES: usize = HEAD_BYTES + 8;

pub fn encode(key: CacheKey, stamp: u128, answer: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(OVERHEAD_BYTES + answer.len());
    value.extend(head(key, stamp));
    value.extend(checksum(&head(key, stamp), answer).to_le_bytes());
    value.extend(answer);
    value
}

/// What a value turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub enum Decoded {
    Answer(Bytes),
    /// An answer to this question from before the last write, or of another version.
    Outdated,
    Garbage,
}

pub fn decode(key: CacheKey, stamp: u128, value: Vec<u8>) -> Decoded {
    let parts = value
        .split_at_checked(HEAD_BYTES)
        .and_then(|(head, rest)| Some((head, rest.split_at_checked(8)?)));
    let Some((found_head, (found_checksum, answer))) = parts else {
        return Decoded::Garbage;
    };
    if found_checksum != checksum(found_head, answer).to_le_bytes() {
        return Decoded::Garbage;
    }
    let expected = head(key, stamp);
    // The version of the format and the question.
    if found_head.get(..20) != expected.get(..20) {
        return Decoded::Garbage;
    }
    if found_head != expected {
        return Decoded::Outdated;
    }
    Decoded::Answer(Bytes::from(value).slice(OVERHEAD_BYTES..))
}

fn head(key: CacheKey, stamp: u128) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    let parts = MAGIC
        .iter()
        .copied()
        .chain(key.question.to_le_bytes())
        .chain(key.version.to_le_bytes())
        .chain(stamp.to_le_bytes());
    for (to, from) in head.iter_mut().zip(parts) {
        *to = from;
    }
    head
}

fn checksum(head: &[u8], answer: &[u8]) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(head);
    hash.update(answer);
    hash.digest()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: CacheKey = CacheKey {
        question: 0x0123_4567_89ab_cdef,
        version: 77,
    };

    #[test]
    fn what_was_encoded_comes_back_for_the_same_key_and_stamp_alone() {
        let value = encode(KEY, 5, b"answer");
        assert_eq!(
            decode(KEY, 5, value.clone()),
            Decoded::Answer(Bytes::from_static(b"answer"))
        );
        assert_eq!(decode(KEY, 6, value.clone()), Decoded::Outdated);
        let newer = CacheKey { version: 78, ..KEY };
        assert_eq!(decode(newer, 5, value.clone()), Decoded::Outdated);
        let other = CacheKey { question: 1, ..KEY };
        assert_eq!(decode(other, 5, value), Decoded::Garbage);
        assert_eq!(
            decode(KEY, 5, encode(KEY, 5, b"")),
            Decoded::Answer(Bytes::new())
        );
    }

    #[test]
    fn any_cut_or_changed_byte_is_garbage() {
        let value = encode(KEY, 5, b"answer");
        for end in 0..value.len() {
            assert_eq!(decode(KEY, 5, value[..end].to_vec()), Decoded::Garbage);
        }
        for at in 0..value.len() {
            let mut changed = value.clone();
            changed[at] ^= 0x10;
            assert_eq!(decode(KEY, 5, changed), Decoded::Garbage, "byte {at}");
        }
    }
}
