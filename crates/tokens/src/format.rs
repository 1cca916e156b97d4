//! The bytes of an index. All numbers are little-endian; offsets count from the index's first byte.
//!
//! ```text
//! header        128 bytes: see `Header`; the last 8 are the XXH3-64 of those before
//! directory     (n_buckets + 1) × u32: where each bucket starts in the section of buckets, and where the last one ends
//! buckets       one after the other
//! row sets      one after the other
//! ```
//!
//! A token's 64-bit hash times `n_buckets` gives the bucket (high 64 bits of the product) and, from the low 64 bits, the
//! *remainder*: a number below `remainder_universe`. Both grow with the hash.
//!
//! **Bucket**: `u32` checksum (XXH3-64 of the rest, seeded with seed and bucket number, low half) · varint number of exact
//! tokens · varint number of groups · exact tokens · bits of the groups.
//! - *Exact token*: `u64` hash · varint number of entries · for each entry varint column + 1 (0: all columns together), varint
//!   number of rows, varint start and varint length in the section of row sets. Ascending by column. A 0 entry is there where there
//!   are several columns; if its length is 0, the rows of all columns are the union of the other entries.
//! - *Group*, ascending by remainder, bit by bit: Rice code (`remainder_k`) of the distance to the last remainder (from 0) ·
//!   subset (see `subset`) of the pages. A token without an exact entry has the pages of all groups with its remainder.
//!
//! **Row set**: `u32` checksum (as above, with the start of the set in place of the bucket number) · bits: subset of the pages that
//! hold any · for each of these the subset of its rows. Tokens with equal rows share one set.
//!
//! A flipped bit is found where it would matter: header, buckets and sets are checksummed with their place, and a wrong
//! directory entry leads to bytes whose checksum does not fit.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::error::IndexError;

pub const MAGIC: [u8; 6] = *b"lytokn";
pub const VERSION: u16 = 1;
pub const HEADER_SIZE: usize = 128;
/// Rows of a page and pages of an index: both numbers fit in 16 bits.
pub const PAGE_ROWS_MAX: u32 = 1 << 16;
pub const PAGES_MAX: u32 = 1 << 16;

#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    pub seed: u64,
    pub n_rows: u32,
    pub page_rows: u32,
    pub n_buckets: u32,
    pub remainder_universe: u32,
    pub remainder_k: u32,
    pub bucket_size_max: u32,
    pub row_set_size_max: u32,
    /// Tokens that have an entry of their own, by kind; for figures only.
    pub n_exact_tokens: u32,
    pub n_groups: u32,
    pub buckets_size: u64,
    pub row_sets_size: u64,
    pub directory_checksum: u64,
}

impl Header {
    pub fn n_pages(&self) -> u32 {
        self.n_rows.div_ceil(self.page_rows)
    }

    /// Rows of page `page`: only the last one may be shorter.
    pub fn rows_of_page(&self, page: u32) -> u32 {
        let first = u64::from(page) * u64::from(self.page_rows);
        u64::from(self.n_rows)
            .saturating_sub(first)
            .min(self.page_rows.into()) as u32
    }

    pub fn buckets_start(&self) -> u64 {
        HEADER_SIZE as u64 + 4 * (u64::from(self.n_buckets) + 1)
    }

    pub fn row_sets_start(&self) -> u64 {
        self.buckets_start() + self.buckets_size
    }

    pub fn size(&self) -> u64 {
        self.row_sets_start() + self.row_sets_size
    }

    pub fn write(&self) -> [u8; HEADER_SIZE] {
        let mut bytes = Vec::with_capacity(HEADER_SIZE);
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(self.seed.to_le_bytes());
        for number in [
            self.n_rows,
            self.page_rows,
            self.n_buckets,
            self.remainder_universe,
            self.remainder_k,
            self.bucket_size_max,
            self.row_set_size_max,
            self.n_exact_tokens,
            self.n_groups,
        ] {
            bytes.extend(number.to_le_bytes());
        }
        for number in [
            self.buckets_size,
            self.row_sets_size,
            self.directory_checksum,
        ] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.resize(HEADER_SIZE - 8, 0);
        bytes.extend(xxh3_64(&bytes).to_le_bytes());
        let mut header = [0; HEADER_SIZE];
        header.copy_from_slice(&bytes);
        header
    }

    /// Checked: what it says is consistent with itself and fits in `len` bytes.
    pub fn read(bytes: &[u8; HEADER_SIZE], len: u64) -> Result<Self, IndexError> {
        let (content, checksum) = bytes.split_at(HEADER_SIZE - 8);
        let mut fields = Fields { bytes: content };
        let bad = |what| IndexError::corrupt(0, what);
        if fields.take::<6>() != MAGIC {
            return Err(bad("not a token index"));
        }
        let version = u16::from_le_bytes(fields.take());
        // The version comes before the checksum, so that a newer format may change everything behind it.
        if version != VERSION && checksum == xxh3_64(content).to_le_bytes() {
            return Err(IndexError::Version {
                found: version,
                known: VERSION,
            });
        }
        if checksum != xxh3_64(content).to_le_bytes() {
            return Err(bad("the header's checksum does not fit"));
        }
        let header = Self {
            seed: fields.u64(),
            n_rows: fields.u32(),
            page_rows: fields.u32(),
            n_buckets: fields.u32(),
            remainder_universe: fields.u32(),
            remainder_k: fields.u32(),
            bucket_size_max: fields.u32(),
            row_set_size_max: fields.u32(),
            n_exact_tokens: fields.u32(),
            n_groups: fields.u32(),
            buckets_size: fields.u64(),
            row_sets_size: fields.u64(),
            directory_checksum: fields.u64(),
        };
        let is_sane = (1..=PAGE_ROWS_MAX).contains(&header.page_rows)
            && header.n_pages() <= PAGES_MAX
            && 0 < header.n_buckets
            && 0 < header.remainder_universe
            && header.remainder_k < 32
            && header.buckets_size <= u64::from(u32::MAX)
            && header.row_sets_size < 1 << 48;
        if !is_sane {
            return Err(bad("the header contradicts itself"));
        }
        if header.size() != len {
            return Err(IndexError::corrupt(
                len.min(header.size()),
                "the index is not as long as its header says",
            ));
        }
        Ok(header)
    }

    /// The bucket and the remainder of a token.
    pub fn place(&self, hash: u64) -> (u32, u32) {
        place(hash, self.n_buckets, self.remainder_universe)
    }
}

pub fn place(hash: u64, n_buckets: u32, remainder_universe: u32) -> (u32, u32) {
    let product = u128::from(hash) * u128::from(n_buckets);
    let low = product as u64;
    let remainder = (u128::from(low) * u128::from(remainder_universe)) >> 64;
    ((product >> 64) as u32, remainder as u32)
}

/// The checksum of a bucket or row set: also says that it is the one at this place of this index.
pub fn checksum(content: &[u8], seed: u64, place: u64) -> [u8; 4] {
    (xxh3_64_with_seed(content, seed ^ place.wrapping_mul(0x9e37_79b9_7f4a_7c15)) as u32)
        .to_le_bytes()
}

struct Fields<'a> {
    bytes: &'a [u8],
}

impl Fields<'_> {
    /// Zeros past the end.
    fn take<const N: usize>(&mut self) -> [u8; N] {
        match self.bytes.split_first_chunk::<N>() {
            Some((chunk, rest)) => {
                self.bytes = rest;
                *chunk
            }
            None => [0; N],
        }
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }
}

/// Seven bits a byte, low ones first; the top bit says that more follow.
pub fn write_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while 0x80 <= value {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// Takes a varint off the front of `bytes`.
pub fn read_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..63).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            return Some(value);
        }
    }
    None
}
