//! What was found so far: one entry for each (page, column, token), and the rows of those with several.

/// `Entry::rows`: one row, held here. Else where the rows begin in `Gathered::rows`.
const ONE_ROW: u32 = 1 << 31;
/// `Entry::rows`: no room was left for them.
const UNKNOWN: u32 = ONE_ROW - 1;
const PARTITION_BITS: u32 = 8;

#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub hash: u64,
    /// Index into `Gathered::places`.
    place: u32,
    rows: u32,
}

#[derive(Debug)]
pub struct Gathered {
    page_rows: u32,
    n_rows_kept_max: usize,
    /// By the upper bits of the hash, so that each can be sorted within the cache.
    partitions: Vec<Vec<Entry>>,
    /// Column and page.
    places: Vec<(u32, u32)>,
    /// For each set: count - 1, then the rows or, where that is shorter, a bitmap.
    rows: Vec<u16>,
}

impl Gathered {
    pub fn new(page_rows: u32, rows_size_max: usize) -> Self {
        Self {
            page_rows,
            n_rows_kept_max: (rows_size_max / 2).min(UNKNOWN as usize),
            partitions: vec![Vec::new(); 1 << PARTITION_BITS],
            places: Vec::new(),
            rows: Vec::new(),
        }
    }

    pub fn n_partitions(&self) -> usize {
        self.partitions.len()
    }

    /// What follows is about this page of this column.
    pub fn enter(&mut self, column: u32, page: u32) {
        self.places.push((column, page));
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "the shift leaves as many bits as there are partitions"
    )]
    #[inline]
    pub fn push(&mut self, hash: u64, rows: u32) {
        let place = self.places.len() as u32 - 1;
        self.partitions[(hash >> (64 - PARTITION_BITS)) as usize].push(Entry { hash, place, rows });
    }

    /// Where these rows of the page (not empty) are found again.
    #[inline]
    pub fn keep(&mut self, rows: &[u16]) -> u32 {
        match rows {
            [row] => ONE_ROW | u32::from(*row),
            rows => self.keep_several(rows),
        }
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "rows of a page lie below `page_rows`"
    )]
    fn keep_several(&mut self, rows: &[u16]) -> u32 {
        let start = self.rows.len();
        let n_words = self.page_rows.div_ceil(16) as usize;
        if self.n_rows_kept_max <= start + 1 + rows.len().min(n_words) {
            return UNKNOWN;
        }
        self.rows.push((rows.len() - 1) as u16);
        if rows.len() < n_words {
            self.rows.extend_from_slice(rows);
        } else {
            self.rows.resize(start + 1 + n_words, 0);
            let words = &mut self.rows[start + 1..];
            for row in rows {
                words[usize::from(row / 16)] |= 1 << (row % 16);
            }
        }
        start as u32
    }

    /// Sorts a partition by hash; entries of a token stay in the order of column and page.
    pub fn sort(&mut self, partition: usize, scratch: &mut SortScratch) {
        if let Some(entries) = self.partitions.get_mut(partition) {
            sort_by_hash(entries, scratch);
        }
    }

    pub fn partition(&self, partition: usize) -> &[Entry] {
        self.partitions.get(partition).map_or(&[], Vec::as_slice)
    }

    /// The entries of each token of a sorted partition.
    pub fn tokens(&self, partition: usize) -> impl Iterator<Item = &[Entry]> {
        let entries = self
            .partitions
            .get(partition)
            .map_or(&[][..], Vec::as_slice);
        entries.chunk_by(|a, b| a.hash == b.hash)
    }

    #[expect(clippy::indexing_slicing, reason = "made by `push`")]
    #[inline]
    pub fn place(&self, entry: &Entry) -> (u32, u32) {
        self.places[entry.place as usize]
    }

    /// How many rows an entry has; `None`: they were not kept.
    #[expect(clippy::indexing_slicing, reason = "made by `keep_several`")]
    #[inline]
    pub fn n_rows(&self, entry: &Entry) -> Option<u32> {
        match entry.rows {
            UNKNOWN => None,
            ONE_ROW.. => Some(1),
            start => Some(u32::from(self.rows[start as usize]) + 1),
        }
    }

    /// Adds the rows of an entry to `into`.
    #[expect(clippy::indexing_slicing, reason = "made by `keep_several`")]
    pub fn rows(&self, entry: &Entry, into: &mut Vec<u16>) {
        if ONE_ROW <= entry.rows {
            into.push(entry.rows as u16);
            return;
        }
        let start = entry.rows as usize + 1;
        let n = usize::from(self.rows[start - 1]) + 1;
        let n_words = self.page_rows.div_ceil(16) as usize;
        if n < n_words {
            into.extend_from_slice(&self.rows[start..start + n]);
        } else {
            for (base, word) in (0..).step_by(16).zip(&self.rows[start..start + n_words]) {
                let mut word = *word;
                while word != 0 {
                    into.push(base + word.trailing_zeros() as u16);
                    word &= word - 1;
                }
            }
        }
    }
}

#[derive(Default, Debug)]
pub struct SortScratch {
    entries: Vec<Entry>,
    counts: Vec<u32>,
}

/// Stable. Two passes over the 16 bits below the partition's own, then what little is left.
#[expect(
    clippy::indexing_slicing,
    reason = "counts of one byte, positions that are their sums"
)]
fn sort_by_hash(entries: &mut Vec<Entry>, scratch: &mut SortScratch) {
    if 256 < entries.len() {
        for shift in [64 - PARTITION_BITS - 16, 64 - PARTITION_BITS - 8] {
            let digit = |entry: &Entry| (entry.hash >> shift) as usize & 0xff;
            scratch.counts.clear();
            scratch.counts.resize(256, 0);
            for entry in &*entries {
                scratch.counts[digit(entry)] += 1;
            }
            let mut sum = 0;
            for count in &mut scratch.counts {
                sum += std::mem::replace(count, sum);
            }
            scratch.entries.clear();
            scratch.entries.resize(
                entries.len(),
                Entry {
                    hash: 0,
                    place: 0,
                    rows: 0,
                },
            );
            for entry in &*entries {
                let at = &mut scratch.counts[digit(entry)];
                scratch.entries[*at as usize] = *entry;
                *at += 1;
            }
            std::mem::swap(entries, &mut scratch.entries);
        }
        // Equal in the sorted bits and not in all: few and close together, unless someone made them so.
        for same in
            entries.chunk_by_mut(|a, b| (a.hash ^ b.hash) >> (64 - PARTITION_BITS - 16) == 0)
        {
            if !same.is_sorted_by_key(|entry| entry.hash) {
                same.sort_by_key(|entry| entry.hash);
            }
        }
    } else {
        entries.sort_by_key(|entry| entry.hash);
    }
}
