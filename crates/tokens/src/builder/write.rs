//! From what was gathered to the index's bytes: chooses which tokens get exact rows, and lays everything out (see `format`).

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher as StdHasher};

use xxhash_rust::xxh3::xxh3_64;

use super::IndexOptions;
use super::gathered::{Entry, Gathered};
use crate::bits::{BitWriter, rice_k};
use crate::format::{HEADER_SIZE, Header, checksum, place, write_varint};
use crate::subset;

/// Groups of a bucket, on average: a look-up reads one bucket, of about 500 bytes.
const BUCKET_GROUPS: u32 = 256;
/// A token in fewer pages gets no exact rows.
const ROW_SET_PAGES_MIN: u32 = 8;
/// Bytes of the entry of an exact token, beside its row sets.
const EXACT_TOKEN_SIZE: usize = 10;
const EXACT_ENTRY_SIZE: usize = 8;

pub struct Shape {
    pub seed: u64,
    pub n_rows: u32,
    pub page_rows: u32,
    pub options: IndexOptions,
    pub size_bytes_max: usize,
}

pub fn write(mut gathered: Gathered, shape: &Shape) -> Vec<u8> {
    let n_pages = shape.n_rows.div_ceil(shape.page_rows);
    let mut candidates = CandidateWriter::new(shape);
    let mut n_tokens = 0_u32;
    let mut n_page_entries = 0_usize;
    for partition in 0..gathered.n_partitions() {
        gathered.sort(partition);
        for entries in gathered.tokens(partition) {
            n_tokens += 1;
            n_page_entries += entries.len();
            candidates.consider(&gathered, entries, n_pages);
        }
    }
    let page_bits = (n_pages.max(2) - 1).ilog2() as usize + 1;
    let pages_size = n_page_entries * page_bits / 8
        + n_tokens as usize * (shape.options.fingerprint_bits as usize + 4) / 8;
    let chosen = candidates.choose(shape, pages_size);
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

/// One column of a token, or all (0).
#[derive(Clone, Copy, Debug)]
struct Set {
    column_plus_one: u64,
    n_rows: u32,
    /// Index into the encoded sets; `None`: only the count is kept.
    encoded: Option<usize>,
}

struct Candidate {
    hash: u64,
    n_rows: u32,
    sets: Vec<Set>,
}

/// Where a chosen token's sets lie: column + 1, rows, start, size.
type PlacedSets = Vec<(u64, u32, u64, u64)>;

struct Chosen {
    tokens: HashMap<u64, PlacedSets, BuildHasherDefault<KeyIsHash>>,
    bytes: Vec<u8>,
    size_max: u32,
}

/// Encodes the rows of every token that is in enough pages.
struct CandidateWriter {
    n_rows: u32,
    page_rows: u32,
    pages_min: u32,
    candidates: Vec<Candidate>,
    /// Ends of the encoded sets in `encoded`.
    ends: Vec<usize>,
    encoded: Vec<u8>,
    /// By their content's hash, so that equal sets are kept once.
    by_content: HashMap<u64, usize, BuildHasherDefault<KeyIsHash>>,
    bits: BitWriter,
    rows: Vec<u16>,
    pages: Vec<u16>,
    page_ends: Vec<usize>,
    by_page: Vec<(u32, Entry)>,
    page_bits: Vec<u64>,
}

impl CandidateWriter {
    fn new(shape: &Shape) -> Self {
        let n_pages = shape.n_rows.div_ceil(shape.page_rows);
        Self {
            n_rows: shape.n_rows,
            page_rows: shape.page_rows,
            pages_min: (n_pages / shape.options.row_set_page_share.max(1)).max(ROW_SET_PAGES_MIN),
            candidates: Vec::new(),
            ends: Vec::new(),
            encoded: Vec::new(),
            by_content: HashMap::default(),
            bits: BitWriter::default(),
            rows: Vec::new(),
            pages: Vec::new(),
            page_ends: Vec::new(),
            by_page: Vec::new(),
            page_bits: vec![0; n_pages.div_ceil(64) as usize],
        }
    }

    fn consider(&mut self, gathered: &Gathered, entries: &[Entry], n_pages: u32) {
        if (entries.len() as u32) < self.pages_min.min(n_pages + 1)
            || self.count_pages(gathered, entries) < self.pages_min
            || !entries.iter().all(Gathered::knows_rows)
        {
            return;
        }
        let Some(first) = entries.first() else {
            return;
        };
        let mut sets = Vec::new();
        let same_column = |a: &Entry, b: &Entry| gathered.place(a).0 == gathered.place(b).0;
        let mut columns_size = 0;
        for of_column in entries.chunk_by(same_column) {
            let Some(entry) = of_column.first() else {
                continue;
            };
            let (n_rows, encoded) = self.encode(gathered, of_column);
            columns_size += self.size(encoded);
            sets.push(Set {
                column_plus_one: u64::from(gathered.place(entry).0) + 1,
                n_rows,
                encoded: Some(encoded),
            });
        }
        // A column that was added in two goes.
        sets.sort_by_key(|set| set.column_plus_one);
        let is_split = sets
            .windows(2)
            .any(|two| matches!(two, [a, b] if a.column_plus_one == b.column_plus_one));
        if is_split {
            return;
        }
        let mut n_rows = sets.iter().map(|set| set.n_rows).max().unwrap_or_default();
        if 1 < sets.len() {
            let n_encoded = self.ends.len();
            let (n, encoded) = self.encode(gathered, entries);
            n_rows = n;
            // The union costs nothing where a column has the same rows; else it must be worth its bytes.
            let is_new = n_encoded < self.ends.len();
            let is_kept = !is_new || 4 * self.size(encoded) < 3 * columns_size;
            if !is_kept {
                self.drop_last();
            }
            sets.insert(
                0,
                Set {
                    column_plus_one: 0,
                    n_rows,
                    encoded: is_kept.then_some(encoded),
                },
            );
        }
        self.candidates.push(Candidate {
            hash: first.hash,
            n_rows,
            sets,
        });
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

    /// Encodes the union of the entries' rows; the number of rows and the index of the set.
    #[expect(clippy::indexing_slicing, reason = "own ranges")]
    fn encode(&mut self, gathered: &Gathered, entries: &[Entry]) -> (u32, usize) {
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
                self.rows[start..].sort_unstable();
                dedup_from(&mut self.rows, start);
            }
            self.pages
                .extend(of_page.first().map(|(page, _)| *page as u16));
            self.page_ends.push(self.rows.len());
        }
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
        let content = self.bits.bytes();
        let hash = xxh3_64(content);
        let n_rows = self.rows.len() as u32;
        if let Some(index) = self.by_content.get(&hash) {
            let from = index.checked_sub(1).map_or(0, |before| self.ends[before]);
            if self.encoded[from..self.ends[*index]] == *content {
                return (n_rows, *index);
            }
        }
        self.by_content.insert(hash, self.ends.len());
        self.encoded.extend_from_slice(content);
        self.ends.push(self.encoded.len());
        (n_rows, self.ends.len() - 1)
    }

    fn range(&self, index: usize) -> std::ops::Range<usize> {
        let end = |index: usize| self.ends.get(index).copied().unwrap_or_default();
        index.checked_sub(1).map_or(0, end)..end(index)
    }

    fn size(&self, index: usize) -> usize {
        self.range(index).len()
    }

    fn drop_last(&mut self) {
        let index = self.ends.len() - 1;
        self.encoded.truncate(self.range(index).start);
        self.ends.pop();
        self.by_content.retain(|_, kept| *kept != index);
    }

    /// Takes the tokens with the most rows first, as far as the room goes.
    fn choose(mut self, shape: &Shape, pages_size: usize) -> Chosen {
        let by_rows = shape.n_rows as usize * shape.options.row_set_bits_per_row as usize / 8;
        let room = by_rows.min(shape.size_bytes_max.saturating_sub(pages_size));
        let mut candidates = std::mem::take(&mut self.candidates);
        candidates.sort_unstable_by_key(|candidate| (u32::MAX - candidate.n_rows, candidate.hash));
        let mut starts: Vec<Option<u64>> = vec![None; self.ends.len()];
        let mut chosen = Chosen {
            tokens: HashMap::default(),
            bytes: Vec::new(),
            size_max: 0,
        };
        let mut used = 0;
        for candidate in candidates {
            let new: HashSet<usize> = candidate
                .sets
                .iter()
                .filter_map(|set| set.encoded)
                .filter(|index| starts.get(*index).is_some_and(Option::is_none))
                .collect();
            let cost = EXACT_TOKEN_SIZE
                + EXACT_ENTRY_SIZE * candidate.sets.len()
                + new.iter().map(|index| self.size(*index) + 4).sum::<usize>();
            if room < used + cost {
                continue;
            }
            used += cost;
            let mut placed = Vec::with_capacity(candidate.sets.len());
            for set in &candidate.sets {
                let (start, size) = match set.encoded {
                    Some(index) => (
                        self.place(index, shape.seed, &mut starts, &mut chosen),
                        self.size(index) as u64 + 4,
                    ),
                    None => (0, 0),
                };
                placed.push((set.column_plus_one, set.n_rows, start, size));
            }
            chosen.tokens.insert(candidate.hash, placed);
        }
        chosen
    }

    #[expect(clippy::indexing_slicing, reason = "indexes of encoded sets")]
    fn place(
        &self,
        index: usize,
        seed: u64,
        starts: &mut [Option<u64>],
        chosen: &mut Chosen,
    ) -> u64 {
        *starts[index].get_or_insert_with(|| {
            let content = &self.encoded[self.range(index)];
            let start = chosen.bytes.len() as u64;
            chosen.bytes.extend(checksum(content, seed, start));
            chosen.bytes.extend_from_slice(content);
            chosen.size_max = chosen.size_max.max(content.len() as u32 + 4);
            start
        })
    }
}

fn dedup_from(rows: &mut Vec<u16>, start: usize) {
    let mut tail = rows.split_off(start);
    tail.dedup();
    rows.extend_from_slice(&tail);
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
    fn add_exact(&mut self, hash: u64, sets: &PlacedSets) {
        self.enter(hash);
        self.n_exact += 1;
        self.exact.extend(hash.to_le_bytes());
        write_varint(&mut self.exact, sets.len() as u64);
        for (column_plus_one, n_rows, start, size) in sets {
            for number in [*column_plus_one, u64::from(*n_rows), *start, *size] {
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
