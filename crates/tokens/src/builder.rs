//! Gathers the tokens of a segment, column by column and page by page, and writes the index.
//!
//! **Memory**: 16 bytes for each distinct (page, column, token), doubled at most by growing; the rows of tokens that have several
//! in a page, at most `rows_memory_size_bytes_max` (past that, tokens lose their exact rows, not their pages); up to
//! 12 MB for the page in work; while finishing, the row sets of frequent tokens (about twice what is kept of them).

mod gathered;
mod write;

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use crate::format::{PAGE_ROWS_MAX, PAGES_MAX};
use crate::hash::Hasher;
use crate::page_table::{PagePostings, PageTable};
use crate::tokenize::{Scratch, each_token};

pub use gathered::Gathered;

#[derive(Clone, Debug)]
pub struct IndexOptions {
    /// Rows of a page: the unit in which rare tokens are found. 1 to 65,536, default 1,024. Raised where a segment would have
    /// more than 65,536 pages.
    pub page_rows: u32,
    /// A look-up of an absent or rare token finds one wrong token's pages (mostly one page) in 2^n look-ups per segment. Each bit
    /// costs one bit per rare token and page. 0 to 16, default 4.
    pub fingerprint_bits: u32,
    /// Bits per row that exact rows of frequent tokens may take, the tokens with the most rows first; the rest is found by page. Default 48.
    pub row_set_bits_per_row: u32,
    /// Tokens in fewer than one in `row_set_page_share` pages get no exact rows: few pages are quickly verified. Default 16.
    pub row_set_page_share: u32,
    /// Bytes of rows kept in memory while building. Default 64 MiB.
    pub rows_memory_size_bytes_max: usize,
    /// Keys the hash; `None` (default): random. A fixed seed gives equal bytes for equal input, but whoever knows it can make
    /// tokens collide.
    pub seed: Option<u64>,
}

impl Default for IndexOptions {
    fn default() -> Self {
        Self {
            page_rows: 1_024,
            fingerprint_bits: 4,
            row_set_bits_per_row: 48,
            row_set_page_share: 16,
            rows_memory_size_bytes_max: 64 << 20,
            seed: None,
        }
    }
}

/// Columns come one after the other, rows in ascending order within a column. Any other order is correct too, and slower.
#[derive(Debug)]
pub struct IndexBuilder {
    options: IndexOptions,
    seed: u64,
    hasher: Hasher,
    n_rows: u32,
    page_rows: u32,
    column: Option<u32>,
    /// Rows of the page in work: from `page_start`, below `page_end`.
    page_start: u32,
    page_end: u32,
    last_row: u32,
    table: PageTable,
    scratch: Scratch,
    gathered: Gathered,
}

impl IndexBuilder {
    /// For rows 0 to `n_rows` - 1.
    #[must_use]
    pub fn new(n_rows: u32, options: IndexOptions) -> Self {
        let seed = options
            .seed
            .unwrap_or_else(|| RandomState::new().hash_one(n_rows));
        let page_rows = options
            .page_rows
            .clamp(1, PAGE_ROWS_MAX)
            .max(n_rows.div_ceil(PAGES_MAX));
        Self {
            seed,
            hasher: Hasher::new(seed),
            n_rows,
            page_rows,
            column: None,
            page_start: 0,
            page_end: 0,
            last_row: 0,
            table: PageTable::default(),
            scratch: Scratch::default(),
            gathered: Gathered::new(page_rows, options.rows_memory_size_bytes_max),
            options,
        }
    }

    /// The tokens of one text. Rows at or past `n_rows` panic.
    pub fn add_text(&mut self, row: u32, column: u32, text: &str) {
        let row = self.enter(row, column);
        let (table, gathered, hasher) = (&mut self.table, &mut self.gathered, self.hasher);
        each_token(text, &mut self.scratch, |buffer, start, len| {
            let hash = hasher.hash_padded(buffer, start, len);
            add(table, gathered, hash, row);
        });
    }

    /// One whole value, looked up by the same text: case and all.
    pub fn add_value(&mut self, row: u32, column: u32, value: &str) {
        let row = self.enter(row, column);
        let hash = self.hasher.hash(value.as_bytes());
        add(&mut self.table, &mut self.gathered, hash, row);
    }

    /// A column with few distinct values: row `i` holds `values[keys[i]]`. Each value is tokenised once.
    pub fn add_dictionary_text(&mut self, column: u32, values: &[&str], keys: &[Option<u32>]) {
        let mut hashes = Vec::with_capacity(values.len());
        for value in values {
            let mut of_value = Vec::new();
            each_token(value, &mut self.scratch, |buffer, start, len| {
                of_value.push(self.hasher.hash_padded(buffer, start, len));
            });
            of_value.sort_unstable();
            of_value.dedup();
            hashes.push(of_value);
        }
        self.add_dictionary(column, &hashes, keys);
    }

    /// As `add_dictionary_text`, with each value whole as in `add_value`.
    pub fn add_dictionary_values(&mut self, column: u32, values: &[&str], keys: &[Option<u32>]) {
        let hashes: Vec<Vec<u64>> = values
            .iter()
            .map(|value| vec![self.hasher.hash(value.as_bytes())])
            .collect();
        self.add_dictionary(column, &hashes, keys);
    }

    /// The index's bytes.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.finish_within(usize::MAX)
    }

    /// As `finish`, and exact rows of frequent tokens are left out (their pages stay) where the index would be larger than
    /// `size_bytes_max`. Pages are never left out, so the index can still be larger than that.
    #[must_use]
    pub fn finish_within(mut self, size_bytes_max: usize) -> Vec<u8> {
        self.table.drain(&mut self.gathered);
        write::write(
            self.gathered,
            &write::Shape {
                seed: self.seed,
                n_rows: self.n_rows,
                page_rows: self.page_rows,
                options: self.options,
                size_bytes_max,
            },
        )
    }

    /// The row's place in its page, which is now the page in work.
    #[inline]
    fn enter(&mut self, row: u32, column: u32) -> u16 {
        let is_here = self.column == Some(column)
            && self.page_start <= row
            && row < self.page_end
            && self.last_row <= row;
        if !is_here {
            self.enter_page(row, column);
        }
        self.last_row = row;
        (row - self.page_start) as u16
    }

    #[cold]
    fn enter_page(&mut self, row: u32, column: u32) {
        assert!(
            row < self.n_rows,
            "row {row} of an index of {} rows",
            self.n_rows
        );
        self.table.drain(&mut self.gathered);
        if self.column != Some(column) {
            self.column = Some(column);
            self.table.reset_size();
        }
        let page = row / self.page_rows;
        self.page_start = page * self.page_rows;
        self.page_end = self
            .page_start
            .saturating_add(self.page_rows)
            .min(self.n_rows);
        self.gathered.enter(column, page);
    }

    fn add_dictionary(&mut self, column: u32, hashes: &[Vec<u64>], keys: &[Option<u32>]) {
        assert!(
            keys.len() <= self.n_rows as usize,
            "{} keys in an index of {} rows",
            keys.len(),
            self.n_rows
        );
        self.table.drain(&mut self.gathered);
        self.column = None;
        self.page_end = 0;
        let classes = Classes::new(hashes);
        let mut postings = PagePostings::default();
        // By class: the part of a page it was last seen in, and its id there.
        let mut seen = vec![(0_u32, 0_u16); classes.tokens.len()];
        let mut part = 0;
        for (page, keys) in (0..).zip(keys.chunks(self.page_rows as usize)) {
            part += 1;
            self.gathered.enter(column, page);
            for (row, key) in keys.iter().enumerate() {
                let of_value = key.and_then(|key| classes.of_value.get(key as usize));
                for class in of_value.into_iter().flatten() {
                    let Some((seen_in, id)) = seen.get_mut(*class as usize) else {
                        continue;
                    };
                    if *seen_in == part {
                        postings.add(*id, row as u16);
                        continue;
                    }
                    if postings.is_full() {
                        classes.drain(&mut postings, &mut self.gathered);
                        part += 1;
                    }
                    *seen_in = part;
                    *id = postings.start(u64::from(*class), row as u16);
                }
            }
            if !postings.is_empty() {
                classes.drain(&mut postings, &mut self.gathered);
            }
        }
    }
}

#[inline]
fn add(table: &mut PageTable, gathered: &mut Gathered, hash: u64, row: u16) {
    if !table.add(hash, row) {
        table.drain(gathered);
        let is_added = table.add(hash, row);
        debug_assert!(is_added, "an empty table takes a token");
    }
}

/// Tokens of a dictionary that stand in exactly the same values: they share their rows.
struct Classes {
    /// Hashes by class.
    tokens: Vec<Vec<u64>>,
    of_value: Vec<Vec<u32>>,
}

impl Classes {
    fn new(hashes: &[Vec<u64>]) -> Self {
        let mut values_of: HashMap<u64, Vec<u32>> = HashMap::new();
        for (value, hashes) in (0..).zip(hashes) {
            for hash in hashes {
                values_of.entry(*hash).or_default().push(value);
            }
        }
        let mut class_of: HashMap<Vec<u32>, u32> = HashMap::new();
        let mut tokens: Vec<Vec<u64>> = Vec::new();
        let mut of_value = vec![Vec::new(); hashes.len()];
        let mut sorted: Vec<(u64, Vec<u32>)> = values_of.into_iter().collect();
        sorted.sort_unstable();
        for (hash, values) in sorted {
            let new = tokens.len() as u32;
            let class = *class_of.entry(values.clone()).or_insert(new);
            if class == new {
                tokens.push(Vec::new());
                for value in values {
                    if let Some(of_value) = of_value.get_mut(value as usize) {
                        of_value.push(class);
                    }
                }
            }
            if let Some(tokens) = tokens.get_mut(class as usize) {
                tokens.push(hash);
            }
        }
        Self { tokens, of_value }
    }

    fn drain(&self, postings: &mut PagePostings, gathered: &mut Gathered) {
        postings.drain(gathered, |gathered, class, rows| {
            for hash in self.tokens.get(class as usize).into_iter().flatten() {
                gathered.push(*hash, rows);
            }
        });
    }
}
