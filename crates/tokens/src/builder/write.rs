//! From what was gathered to the index's bytes: chooses which tokens get exact rows, and lays everything out (see `format`).

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher as StdHasher};

use xxhash_rust::xxh3::xxh3_64;

use super::IndexOptions;
use super::gathered::{Entry, Gathered, SortScratch};
use crate::bits::{BitWriter, rice_k};
use crate::format::{HEADER_SIZE, Header, checksum, place, write_varint};
use crate::subset;

/// Groups of a bucket, on average: a look-up reads one bucket, of about 500 bytes.
const BUCKET_GROUPS: u32 = 256;
/// A token in fewer pages gets no exact rows: they are soon read.
const ROW_SET_PAGES_MIN: u32 = 4;
/// Bytes of the entry of an exact token, beside its row sets.
const EXACT_TOKEN_SIZE: usize = 10;
const EXACT_ENTRY_SIZE: usize = 8;
/// Candidates that may be too large for the room left before the choice ends.
const MISSES_MAX: u32 = 64;

pub struct Shape {
    pub seed: u64,
    pub n_rows: u32,
    pub page_rows: u32,
    pub options: IndexOptions,
    pub size_bytes_max: usize,
}

pub fn write(mut gathered: Gathered, shape: &Shape) -> Vec<u8> {
    let n_pages = shape.n_rows.div_ceil(shape.page_rows);
    let mut candidates = Candidates::new(shape);
    let mut n_tokens = 0_u32;
    let mut n_page_entries = 0_usize;
    let mut scratch = SortScratch::default();
    for partition in 0..gathered.n_partitions() {
        gathered.sort(partition, &mut scratch);
        let mut start = 0;
        for entries in gathered.tokens(partition) {
            n_tokens += 1;
            n_page_entries += entries.len();
            if candidates.pages_min as usize <= entries.len() {
                candidates.consider(&gathered, partition, start, entries);
            }
            start += entries.len();
        }
    }
    drop(scratch);
    let page_bits = (n_pages.max(2) - 1).ilog2() as usize + 1;
    let pages_size = n_page_entries * page_bits / 8
        + n_tokens as usize * (shape.options.fingerprint_bits as usize + 4) / 8;
    let by_rows = shape.n_rows as usize * shape.options.row_set_bits_per_row as usize / 8;
    let room = by_rows.min(shape.size_bytes_max.saturating_sub(pages_size));
    let chosen = RowSetWriter::new(shape).write(&gathered, candidates.list, room);
    let n_groups = n_tokens - chosen.tokens.len() as u32;
    let n_buckets = n_tokens.div_ceil(BUCKET_GROUPS).max(1);
    let groups_of_bucket = n_groups.div_ceil(n_buckets).max(1);
    let remainder_universe = groups_of_bucket << shape.options.fingerprint_bits.min(16);
    let mut writer = BucketWriter {
        seed: shape.seed,
        n_pages,
        n_buckets,
        remainder_universe,
        remainder_k: rice_k(remainder_universe.into(), groups_of_bucket.into()),
        ends: Vec::with_capacity(n_buckets as usize + 1),
        bytes: Vec::new(),
        size_max: 0,
        n_exact: 0,
        exact: Vec::new(),
        n_groups: 0,
        groups: BitWriter::default(),
        last_remainder: 0,
        content: Vec::new(),
        pages: Vec::new(),
    };
    for partition in 0..gathered.n_partitions() {
        for entries in gathered.tokens(partition) {
            let Some(first) = entries.first() else {
                continue;
            };
            match chosen.tokens.get(&first.hash) {
                Some(sets) => writer.add_exact(first.hash, sets),
                None => writer.add_group(&gathered, first.hash, entries),
            }
        }
    }
    writer.end_buckets();
    assemble(shape, writer, &chosen, n_groups)
}

fn assemble(shape: &Shape, writer: BucketWriter, chosen: &Chosen, n_groups: u32) -> Vec<u8> {
    let directory: Vec<u8> = [0_u32]
        .iter()
        .chain(&writer.ends)
        .flat_map(|end| end.to_le_bytes())
        .collect();
    let header = Header {
        seed: shape.seed,
        n_rows: shape.n_rows,
        page_rows: shape.page_rows,
        n_buckets: writer.n_buckets,
        remainder_universe: writer.remainder_universe,
        remainder_k: writer.remainder_k,
        bucket_size_max: writer.size_max as u32,
        row_set_size_max: chosen.size_max,
        n_exact_tokens: chosen.tokens.len() as u32,
        n_groups,
        buckets_size: writer.bytes.len() as u64,
        row_sets_size: chosen.bytes.len() as u64,
        directory_checksum: xxh3_64(&directory),
    };
    let mut bytes = Vec::with_capacity(header.size() as usize);
    bytes.extend(header.write());
    bytes.extend(directory);
    bytes.extend(writer.bytes);
    bytes.extend(&chosen.bytes);
    debug_assert!(HEADER_SIZE < bytes.len() && bytes.len() as u64 == header.size());
    bytes
}

/// A token that is in enough pages for exact rows.
struct Candidate {
    hash: u64,
    /// Rows per bit of its sets, in 1/65,536.
    worth: u64,
    partition: usize,
    /// Of its entries in the partition.
    start: usize,
    count: usize,
}

struct Candidates {
    n_rows: u32,
    page_rows: u32,
    pages_min: u32,
    list: Vec<Candidate>,
    page_bits: Vec<u64>,
}

impl Candidates {
    fn new(shape: &Shape) -> Self {
        let n_pages = shape.n_rows.div_ceil(shape.page_rows);
        Self {
            n_rows: shape.n_rows,
            page_rows: shape.page_rows,
            pages_min: (n_pages / shape.options.row_set_page_share.max(1)).max(ROW_SET_PAGES_MIN),
            list: Vec::new(),
            page_bits: vec![0; n_pages.div_ceil(64) as usize],
        }
    }

    fn consider(&mut self, gathered: &Gathered, partition: usize, start: usize, entries: &[Entry]) {
        if self.count_pages(gathered, entries) < self.pages_min {
            return;
        }
        let mut n_rows = 0;
        let mut n_bits = 0;
        for entry in entries {
            let Some(n) = gathered.n_rows(entry) else {
                return;
            };
            n_rows += u64::from(n);
            n_bits += subset::estimate_bits(n, self.page_rows);
        }
        if let Some(first) = entries.first() {
            self.list.push(Candidate {
                hash: first.hash,
                // Rows in several columns count once, as far as one can tell from here.
                worth: (n_rows.min(self.n_rows.into()) << 16) / n_bits,
                partition,
                start,
                count: entries.len(),
            });
        }
    }

    #[expect(clippy::indexing_slicing, reason = "one bit for each page")]
    fn count_pages(&mut self, gathered: &Gathered, entries: &[Entry]) -> u32 {
        self.page_bits.fill(0);
        for entry in entries {
            let page = gathered.place(entry).1;
            self.page_bits[page as usize / 64] |= 1 << (page % 64);
        }
        self.page_bits.iter().map(|word| word.count_ones()).sum()
    }
}

/// One column of a token, or all (0). `size` 0: only the count is kept.
#[derive(Clone, Copy, Debug)]
struct RowSet {
    column_plus_one: u64,
    n_rows: u32,
    start: u64,
    size: u64,
}

/// Tokens with exact rows, by hash.
struct Chosen {
    tokens: HashMap<u64, Vec<RowSet>, BuildHasherDefault<KeyIsHash>>,
    bytes: Vec<u8>,
    size_max: u32,
}

struct RowSetWriter {
    seed: u64,
    n_rows: u32,
    page_rows: u32,
    /// All sets so far.
    bytes: Vec<u8>,
    /// Start and size by the hash of the content, so that equal sets are kept once; `added` are those of the token in work.
    by_content: HashMap<u64, (u64, u64), BuildHasherDefault<KeyIsHash>>,
    added: Vec<u64>,
    bits: BitWriter,
    rows: Vec<u16>,
    pages: Vec<u16>,
    page_ends: Vec<usize>,
    by_page: Vec<(u32, Entry)>,
    /// One bit for each row of a page; empty between unions.
    union: Vec<u64>,
}

impl RowSetWriter {
    fn new(shape: &Shape) -> Self {
        Self {
            seed: shape.seed,
            n_rows: shape.n_rows,
            page_rows: shape.page_rows,
            bytes: Vec::new(),
            by_content: HashMap::default(),
            added: Vec::new(),
            bits: BitWriter::default(),
            rows: Vec::new(),
            pages: Vec::new(),
            page_ends: Vec::new(),
            by_page: Vec::new(),
            union: vec![0; shape.page_rows.div_ceil(64) as usize],
        }
    }

    /// Takes the tokens with the most rows per bit first, as far as the room goes: of single columns those are the most frequent.
    fn write(mut self, gathered: &Gathered, mut candidates: Vec<Candidate>, room: usize) -> Chosen {
        candidates.sort_unstable_by_key(|candidate| (u64::MAX - candidate.worth, candidate.hash));
        let mut tokens = HashMap::default();
        let mut used = 0;
        let mut n_misses = 0;
        for candidate in &candidates {
            let end = candidate.start + candidate.count;
            let entries = gathered
                .partition(candidate.partition)
                .get(candidate.start..end);
            let size_before = self.bytes.len();
            self.added.clear();
            let sets = self.add_token(gathered, entries.unwrap_or_default());
            let cost =
                self.bytes.len() - size_before + EXACT_TOKEN_SIZE + EXACT_ENTRY_SIZE * sets.len();
            if !sets.is_empty() && used + cost <= room {
                used += cost;
                tokens.insert(candidate.hash, sets);
                continue;
            }
            self.bytes.truncate(size_before);
            for content in self.added.drain(..) {
                self.by_content.remove(&content);
            }
            n_misses += 1;
            if n_misses == MISSES_MAX {
                break;
            }
        }
        let sizes = self.by_content.values().map(|(_, size)| *size as u32);
        Chosen {
            size_max: sizes.max().unwrap_or_default(),
            tokens,
            bytes: self.bytes,
        }
    }

    /// Writes the sets of a token; none for a column that was added in two goes, which has no place in the format.
    fn add_token(&mut self, gathered: &Gathered, entries: &[Entry]) -> Vec<RowSet> {
        let column = |entry: &Entry| gathered.place(entry).0;
        let mut sets = Vec::new();
        for of_column in entries.chunk_by(|a, b| column(a) == column(b)) {
            let column_plus_one = of_column
                .first()
                .map_or(0, |entry| u64::from(column(entry)) + 1);
            sets.push(self.add_set(gathered, of_column, column_plus_one));
        }
        sets.sort_by_key(|set| set.column_plus_one);
        let is_split =
            |two: &[RowSet]| matches!(two, [a, b] if a.column_plus_one == b.column_plus_one);
        if sets.windows(2).any(is_split) {
            return Vec::new();
        }
        if 1 < sets.len() {
            let columns_size: u64 = sets.iter().map(|set| set.size).sum();
            let size_before = self.bytes.len();
            let mut all = self.add_set(gathered, entries, 0);
            // The union costs nothing where a column has the same rows; else it must be worth its bytes.
            if size_before < self.bytes.len() && 3 * columns_size < 4 * all.size {
                self.bytes.truncate(size_before);
                if let Some(content) = self.added.pop() {
                    self.by_content.remove(&content);
                }
                (all.start, all.size) = (0, 0);
            }
            sets.insert(0, all);
        }
        sets
    }

    /// The union of the entries' rows.
    fn add_set(&mut self, gathered: &Gathered, entries: &[Entry], column_plus_one: u64) -> RowSet {
        self.gather(gathered, entries);
        self.encode();
        let content = self.bits.bytes();
        let hash = xxh3_64(content);
        let n_rows = self.rows.len() as u32;
        let known = self.by_content.get(&hash).filter(|(start, size)| {
            let kept = self
                .bytes
                .get(*start as usize + 4..(*start + *size) as usize);
            kept == Some(content)
        });
        let (start, size) = known.copied().unwrap_or_else(|| {
            let start = self.bytes.len() as u64;
            self.bytes.extend(checksum(content, self.seed, start));
            self.bytes.extend_from_slice(content);
            let place = (start, content.len() as u64 + 4);
            if self.by_content.insert(hash, place).is_none() {
                self.added.push(hash);
            }
            place
        });
        RowSet {
            column_plus_one,
            n_rows,
            start,
            size,
        }
    }

    /// Fills `pages`, `page_ends` and `rows`.
    fn gather(&mut self, gathered: &Gathered, entries: &[Entry]) {
        self.by_page.clear();
        self.by_page.extend(
            entries
                .iter()
                .map(|entry| (gathered.place(entry).1, *entry)),
        );
        if !self.by_page.is_sorted_by_key(|(page, _)| *page) {
            self.by_page.sort_by_key(|(page, _)| *page);
        }
        self.pages.clear();
        self.page_ends.clear();
        self.rows.clear();
        for of_page in self.by_page.chunk_by(|a, b| a.0 == b.0) {
            let start = self.rows.len();
            for (_, entry) in of_page {
                gathered.rows(entry, &mut self.rows);
            }
            if 1 < of_page.len() {
                unite_from(&mut self.rows, start, &mut self.union);
            }
            self.pages
                .extend(of_page.first().map(|(page, _)| *page as u16));
            self.page_ends.push(self.rows.len());
        }
    }

    #[expect(clippy::indexing_slicing, reason = "own ranges")]
    fn encode(&mut self) {
        self.bits.clear();
        subset::write(
            &mut self.bits,
            self.n_rows.div_ceil(self.page_rows),
            &self.pages,
        );
        let mut start = 0;
        for (page, end) in self.pages.iter().zip(&self.page_ends) {
            let first = u32::from(*page) * self.page_rows;
            let universe = (self.n_rows - first).min(self.page_rows);
            subset::write(&mut self.bits, universe, &self.rows[start..*end]);
            start = *end;
        }
    }
}

/// Sorts the rows from `start` on, each once.
#[expect(
    clippy::indexing_slicing,
    reason = "rows of a page, and a bit for each"
)]
fn unite_from(rows: &mut Vec<u16>, start: usize, union: &mut [u64]) {
    for row in &rows[start..] {
        union[usize::from(row / 64)] |= 1 << (row % 64);
    }
    rows.truncate(start);
    for (base, word) in (0..).step_by(64).zip(union) {
        while *word != 0 {
            rows.push((base + word.trailing_zeros()) as u16);
            *word &= *word - 1;
        }
    }
}

/// Takes tokens in the order of their hash, which is the order of buckets and remainders too.
struct BucketWriter {
    seed: u64,
    n_pages: u32,
    n_buckets: u32,
    remainder_universe: u32,
    remainder_k: u32,
    /// Of the buckets that are done.
    ends: Vec<u32>,
    bytes: Vec<u8>,
    size_max: usize,
    n_exact: u64,
    exact: Vec<u8>,
    n_groups: u64,
    groups: BitWriter,
    last_remainder: u32,
    content: Vec<u8>,
    pages: Vec<u16>,
}

impl BucketWriter {
    fn add_exact(&mut self, hash: u64, sets: &[RowSet]) {
        self.enter(hash);
        self.n_exact += 1;
        self.exact.extend(hash.to_le_bytes());
        write_varint(&mut self.exact, sets.len() as u64);
        for set in sets {
            for number in [set.column_plus_one, set.n_rows.into(), set.start, set.size] {
                write_varint(&mut self.exact, number);
            }
        }
    }

    fn add_group(&mut self, gathered: &Gathered, hash: u64, entries: &[Entry]) {
        let remainder = self.enter(hash);
        self.n_groups += 1;
        let distance = remainder - self.last_remainder;
        self.groups.write_rice(distance.into(), self.remainder_k);
        self.last_remainder = remainder;
        self.pages.clear();
        self.pages
            .extend(entries.iter().map(|entry| gathered.place(entry).1 as u16));
        if !self.pages.is_sorted() {
            self.pages.sort_unstable();
        }
        self.pages.dedup();
        subset::write(&mut self.groups, self.n_pages, &self.pages);
    }

    fn enter(&mut self, hash: u64) -> u32 {
        let (bucket, remainder) = place(hash, self.n_buckets, self.remainder_universe);
        while self.ends.len() < bucket as usize {
            self.end_bucket();
        }
        remainder
    }

    fn end_buckets(&mut self) {
        while self.ends.len() < self.n_buckets as usize {
            self.end_bucket();
        }
    }

    fn end_bucket(&mut self) {
        self.content.clear();
        write_varint(&mut self.content, self.n_exact);
        write_varint(&mut self.content, self.n_groups);
        self.content.extend_from_slice(&self.exact);
        self.content.extend_from_slice(self.groups.bytes());
        let start = self.bytes.len();
        self.bytes
            .extend(checksum(&self.content, self.seed, self.ends.len() as u64));
        self.bytes.extend_from_slice(&self.content);
        self.size_max = self.size_max.max(self.bytes.len() - start);
        self.ends.push(self.bytes.len() as u32);
        self.n_exact = 0;
        self.exact.clear();
        self.n_groups = 0;
        self.groups.clear();
        self.last_remainder = 0;
    }
}

/// For keys that are hashes already.
#[derive(Default)]
struct KeyIsHash(u64);

impl StdHasher for KeyIsHash {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("keys are u64");
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}
