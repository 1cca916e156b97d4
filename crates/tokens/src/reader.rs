//! Looks tokens up in the bytes of an index. Nothing read is trusted: damaged bytes give an error, never a panic or a wrong answer.

use roaring::RoaringBitmap;

use crate::bits::BitReader;
use crate::error::IndexError;
use crate::format::{HEADER_SIZE, Header, checksum, read_varint};
use crate::hash::Hasher;
use crate::read_at::ReadAt;
use crate::subset;

/// Where a token can be.
#[derive(Clone, Debug, PartialEq)]
pub enum Candidates {
    /// No row holds it.
    Empty,
    /// Exactly these rows hold it.
    Rows(RoaringBitmap),
    /// Only rows of these pages can hold it: verify on the rows.
    Pages(RoaringBitmap),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexSizes {
    /// Tokens whose rows are known.
    pub n_exact_tokens: u32,
    /// Tokens whose pages are known.
    pub n_paged_tokens: u32,
    /// Header, directory and buckets.
    pub pages_size_bytes: u64,
    pub row_sets_size_bytes: u64,
}

/// An open index. It keeps only the header: a look-up reads what it needs.
#[derive(Clone, Debug)]
pub struct IndexReader<R> {
    reader: R,
    header: Header,
    hasher: Hasher,
}

/// One entry of an exact token: a column, or all of them together.
#[derive(Clone, Copy, Debug)]
struct RowSet {
    column: Option<u32>,
    n_rows: u64,
    start: u64,
    size: u64,
}

enum Found {
    Exact(Vec<RowSet>),
    Pages(RoaringBitmap),
}

impl<R: ReadAt> IndexReader<R> {
    /// `len`: bytes of the index; `reader` counts offsets from its first byte.
    pub fn open(reader: R, len: u64) -> Result<Self, IndexError> {
        let mut bytes = [0; HEADER_SIZE];
        if len < HEADER_SIZE as u64 {
            return Err(IndexError::corrupt(len, "the index ends inside its header"));
        }
        reader
            .read_at(0, &mut bytes)
            .map_err(|source| IndexError::Read { offset: 0, source })?;
        let header = Header::read(&bytes, len)?;
        let hasher = Hasher::new(header.seed);
        Ok(Self {
            reader,
            header,
            hasher,
        })
    }

    pub fn n_rows(&self) -> u32 {
        self.header.n_rows
    }

    pub fn page_rows(&self) -> u32 {
        self.header.page_rows
    }

    pub fn n_pages(&self) -> u32 {
        self.header.n_pages()
    }

    /// How many tokens it holds in which way, and in how many bytes.
    pub fn sizes(&self) -> IndexSizes {
        IndexSizes {
            n_exact_tokens: self.header.n_exact_tokens,
            n_paged_tokens: self.header.n_groups,
            pages_size_bytes: self.header.row_sets_start(),
            row_sets_size_bytes: self.header.row_sets_size,
        }
    }

    /// Where `token` (as [`tokens`](crate::tokens) gives it, or a whole value as it was added) can be: in `column`, or in any.
    pub fn lookup(&self, column: Option<u32>, token: &str) -> Result<Candidates, IndexError> {
        let sets = match self.find(token)? {
            Found::Pages(pages) if pages.is_empty() => return Ok(Candidates::Empty),
            Found::Pages(pages) => return Ok(Candidates::Pages(pages)),
            Found::Exact(sets) => sets,
        };
        let chosen = choose(&sets, column);
        if chosen.is_empty() {
            return Ok(Candidates::Empty);
        }
        let mut rows = RowBits::new(self.header.n_rows);
        for set in chosen {
            self.read_rows(set, &mut rows)?;
        }
        Ok(Candidates::Rows(rows.into_bitmap()))
    }

    /// How many rows hold `token`, where that is known without reading them; `None`: look it up.
    pub fn count(&self, column: Option<u32>, token: &str) -> Result<Option<u64>, IndexError> {
        match self.find(token)? {
            Found::Pages(pages) => Ok(pages.is_empty().then_some(0)),
            Found::Exact(sets) => Ok(Some(count_rows(&sets, column))),
        }
    }

    /// Reads everything once and checks every checksum.
    pub fn verify(&self) -> Result<(), IndexError> {
        let directory = self.read(
            HEADER_SIZE as u64,
            4 * (u64::from(self.header.n_buckets) + 1),
        )?;
        if xxhash_rust::xxh3::xxh3_64(&directory) != self.header.directory_checksum {
            return Err(IndexError::corrupt(
                HEADER_SIZE as u64,
                "the directory's checksum does not fit",
            ));
        }
        for bucket in 0..self.header.n_buckets {
            let (_, content) = self.read_bucket(bucket)?;
            self.each_exact(bucket, &content, |_, sets| {
                for set in sets.iter().filter(|set| 0 < set.size) {
                    self.read_rows(set, &mut RowBits::new(self.header.n_rows))?;
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    fn find(&self, token: &str) -> Result<Found, IndexError> {
        let hash = self.hasher.hash(token.as_bytes());
        let (bucket, remainder) = self.header.place(hash);
        let (start, content) = self.read_bucket(bucket)?;
        let mut exact = None;
        let (n_groups, groups) = self.each_exact(bucket, &content, |found, sets| {
            if found == hash {
                exact = Some(sets);
            }
            Ok(())
        })?;
        if let Some(sets) = exact {
            return Ok(Found::Exact(sets));
        }
        let mut pages = RoaringBitmap::new();
        let mut bits = BitReader::new(groups);
        let mut at = 0_u64;
        for _ in 0..n_groups {
            let bad = || IndexError::corrupt(start, "a group of pages cannot be read");
            let universe = self.header.remainder_universe.into();
            at += bits
                .read_rice(self.header.remainder_k, universe)
                .ok_or_else(bad)?;
            if u64::from(remainder) < at {
                break;
            }
            let is_it = at == u64::from(remainder);
            subset::read(&mut bits, self.header.n_pages(), |first, count| {
                if is_it {
                    pages.insert_range(first..first + count);
                }
            })
            .ok_or_else(bad)?;
        }
        Ok(Found::Pages(pages))
    }

    /// Calls `f` with the hash and entries of each exact token of a bucket; the number and the bits of its groups.
    fn each_exact<'a>(
        &self,
        bucket: u32,
        content: &'a [u8],
        mut f: impl FnMut(u64, Vec<RowSet>) -> Result<(), IndexError>,
    ) -> Result<(u64, &'a [u8]), IndexError> {
        let bad = || IndexError::corrupt(self.header.buckets_start(), "a bucket cannot be read");
        let mut rest = content;
        let next = |rest: &mut &'a [u8]| read_varint(rest).ok_or_else(bad);
        let n_exact = next(&mut rest)?;
        let n_groups = next(&mut rest)?;
        for _ in 0..n_exact {
            let (hash, tail) = rest.split_first_chunk::<8>().ok_or_else(bad)?;
            rest = tail;
            let mut sets = Vec::new();
            for _ in 0..next(&mut rest)? {
                let column = next(&mut rest)?.checked_sub(1);
                let set = RowSet {
                    column: column.map(|column| column as u32),
                    n_rows: next(&mut rest)?,
                    start: next(&mut rest)?,
                    size: next(&mut rest)?,
                };
                let is_inside = set
                    .start
                    .checked_add(set.size)
                    .is_some_and(|end| end <= self.header.row_sets_size)
                    && set.size <= self.header.row_set_size_max.into();
                if !is_inside {
                    return Err(IndexError::corrupt(
                        self.header.buckets_start() + u64::from(bucket),
                        "a row set lies outside of its section",
                    ));
                }
                sets.push(set);
            }
            let has_total = sets.first().is_some_and(|set| set.column.is_none());
            if sets.is_empty() || (1 < sets.len() && !has_total) {
                return Err(bad());
            }
            f(u64::from_le_bytes(*hash), sets)?;
        }
        Ok((n_groups, rest))
    }

    /// A bucket's offset and its checked content.
    fn read_bucket(&self, bucket: u32) -> Result<(u64, Vec<u8>), IndexError> {
        let entry = HEADER_SIZE as u64 + 4 * u64::from(bucket);
        let mut ends = [0; 8];
        self.read_into(entry, &mut ends)?;
        let ends = u64::from_le_bytes(ends);
        let (start, end) = (ends & 0xffff_ffff, ends >> 32);
        let size_max = u64::from(self.header.bucket_size_max);
        if end < start || self.header.buckets_size < end || size_max < end - start {
            return Err(IndexError::corrupt(
                entry,
                "an entry of the directory points outside of its section",
            ));
        }
        let offset = self.header.buckets_start() + start;
        let content = self.read_checked(offset, end - start, bucket.into())?;
        Ok((offset, content))
    }

    fn read_rows(&self, set: &RowSet, rows: &mut RowBits) -> Result<(), IndexError> {
        let offset = self.header.row_sets_start() + set.start;
        let content = self.read_checked(offset, set.size, set.start)?;
        let bad = || IndexError::corrupt(offset, "a row set cannot be read");
        let mut bits = BitReader::new(&content);
        let mut pages = Vec::new();
        subset::read(&mut bits, self.header.n_pages(), |first, count| {
            pages.extend(first..first + count);
        })
        .ok_or_else(bad)?;
        for page in pages {
            let base = page * self.header.page_rows;
            subset::read(&mut bits, self.header.rows_of_page(page), |first, count| {
                rows.insert(base + first, count);
            })
            .ok_or_else(bad)?;
        }
        Ok(())
    }

    fn read_checked(&self, offset: u64, size: u64, place: u64) -> Result<Vec<u8>, IndexError> {
        let mut bytes = self.read(offset, size)?;
        let is_good = bytes
            .split_first_chunk::<4>()
            .is_some_and(|(sum, rest)| *sum == checksum(rest, self.header.seed, place));
        if !is_good {
            return Err(IndexError::corrupt(offset, "a checksum does not fit"));
        }
        bytes.drain(..4);
        Ok(bytes)
    }

    fn read(&self, offset: u64, size: u64) -> Result<Vec<u8>, IndexError> {
        let mut bytes = vec![0; size as usize];
        self.read_into(offset, &mut bytes)?;
        Ok(bytes)
    }

    fn read_into(&self, offset: u64, bytes: &mut [u8]) -> Result<(), IndexError> {
        self.reader
            .read_at(offset, bytes)
            .map_err(|source| IndexError::Read { offset, source })
    }
}

/// The entries whose union is the answer.
fn choose(sets: &[RowSet], column: Option<u32>) -> &[RowSet] {
    match sets.iter().position(|set| set.column == column) {
        Some(at) => match sets.get(at..=at).unwrap_or_default() {
            // All columns together, of which only the number is kept.
            [RowSet { size: 0, .. }] => sets.get(at + 1..).unwrap_or_default(),
            one => one,
        },
        None if column.is_some() => &[],
        None => sets,
    }
}

fn count_rows(sets: &[RowSet], column: Option<u32>) -> u64 {
    let entry = sets.iter().find(|set| set.column == column);
    match (entry, column, sets) {
        (Some(entry), ..) => entry.n_rows,
        // The only column is all columns together.
        (None, None, [only]) => only.n_rows,
        _ => 0,
    }
}

/// Rows as plain bits while they are gathered: setting a bit is cheaper than inserting in a compressed set.
struct RowBits {
    bytes: Vec<u8>,
}

impl RowBits {
    fn new(n_rows: u32) -> Self {
        Self {
            bytes: vec![0; n_rows.div_ceil(8) as usize],
        }
    }

    #[inline]
    fn insert(&mut self, first: u32, count: u32) {
        if count == 1 {
            if let Some(byte) = self.bytes.get_mut(first as usize / 8) {
                *byte |= 1 << (first % 8);
            }
            return;
        }
        let end = first + count;
        let mut at = first;
        while at < end {
            let shift = at % 8;
            if shift == 0 && 8 <= end - at {
                let (from, to) = (at as usize / 8, end as usize / 8);
                if let Some(bytes) = self.bytes.get_mut(from..to) {
                    bytes.fill(0xff);
                }
                at = end - end % 8;
                continue;
            }
            let len = (8 - shift).min(end - at);
            if let Some(byte) = self.bytes.get_mut(at as usize / 8) {
                *byte |= 0xff >> (8 - len) << shift;
            }
            at += len;
        }
    }

    fn into_bitmap(self) -> RoaringBitmap {
        RoaringBitmap::from_lsb0_bytes(0, &self.bytes)
    }
}
