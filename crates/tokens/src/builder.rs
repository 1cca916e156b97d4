//! Gathers the tokens of a segment, column by column and page by page, and writes the index.
//!
//! **Memory**: 16 bytes for each distinct (page, column, token), doubled at most by growing; the rows of tokens that have several
//! in a page, at most `rows_memory_size_bytes_max` (past that, tokens lose their exact rows, not their pages); up to
//! 12 MB for the page in work; while finishing, the row sets of frequent tokens twice.

mod gathered;
mod page;
mod write;

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use crate::format::{PAGE_ROWS_MAX, PAGES_MAX};
use crate::hash::Hasher;
use crate::page_table::Postings;
use crate::tokenize::{Scratch, each_token};
use gathered::Gathered;
use page::{PageBuilder, TextTokens};

#[derive(Clone, Debug)]
pub struct IndexOptions {
    /// Rows of a page: the unit in which rare tokens are found; as many as the file must decompress together anyway. 1 to 65,536,
    /// default 4,096. Raised where a segment would have more than 65,536 pages.
    pub page_rows: u32,
    /// A look-up of an absent or rare token finds one wrong token's pages (mostly one page) in 2^n look-ups per segment. Each bit
    /// costs one bit per rare token and page. 0 to 16, default 3.
    pub fingerprint_bits: u32,
    /// Bits per row that exact rows of frequent tokens may take, those with the most rows per bit first; the rest is found by page. Default 48.
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
            page_rows: 4_096,
            fingerprint_bits: 3,
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
    page: PageBuilder,
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
            page: PageBuilder::default(),
            gathered: Gathered::new(page_rows, options.rows_memory_size_bytes_max),
            options,
        }
    }

    /// The tokens of one text. Rows at or past `n_rows` panic.
    pub fn add_text(&mut self, row: u32, column: u32, text: &str) {
        let row = self.enter(row, column);
        self.page
            .add_text(&mut self.gathered, self.hasher, row, text);
    }

    /// One whole value, looked up by the same text: case and all.
    pub fn add_value(&mut self, row: u32, column: u32, value: &str) {
        let row = self.enter(row, column);
        let hash = self.hasher.hash(value.as_bytes());
        self.page.add_hash(&mut self.gathered, hash, row);
    }

    /// A column with few distinct values: row `i` holds `values[keys[i]]`. Each value is tokenised once.
    pub fn add_dictionary_text(&mut self, column: u32, values: &[&str], keys: &[Option<u32>]) {
        let mut scratch = Scratch::default();
        let mut hashes = Vec::with_capacity(values.len());
        for value in values {
            let mut of_value = Vec::new();
            each_token(value, &mut scratch, |buffer, start, len| {
                of_value.push(self.hasher.hash_padded(buffer, start, len));
            });
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
        self.page.end_page(&mut self.gathered, self.hasher);
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
        self.page.end_page(&mut self.gathered, self.hasher);
        if self.column != Some(column) {
            self.column = Some(column);
            self.page.start_column();
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
        self.page.end_page(&mut self.gathered, self.hasher);
        self.column = None;
        self.page_end = 0;
        let mut tokens = TextTokens::default();
        let mut postings = Postings::default();
        // By value: the part of a page it was last seen in, and its id there.
        let mut seen = vec![(0_u32, 0_u16); hashes.len()];
        let mut part = 0;
        for (page, keys) in (0..).zip(keys.chunks(self.page_rows as usize)) {
            part += 1;
            self.gathered.enter(column, page);
            for (row, key) in keys.iter().enumerate() {
                let Some((value, (seen_in, id))) =
                    key.and_then(|key| Some((key, seen.get_mut(key as usize)?)))
                else {
                    continue;
                };
                if *seen_in == part {
                    postings.add(*id, row as u16);
                    continue;
                }
                if postings.is_full() {
                    drain_values(&mut postings, hashes, &mut tokens, &mut self.gathered);
                    part += 1;
                }
                *seen_in = part;
                *id = postings.start(value.into(), row as u16);
            }
            drain_values(&mut postings, hashes, &mut tokens, &mut self.gathered);
        }
    }
}

/// `postings`: rows by value, whose number stands in place of a hash.
fn drain_values(
    postings: &mut Postings,
    hashes: &[Vec<u64>],
    tokens: &mut TextTokens,
    gathered: &mut Gathered,
) {
    if postings.is_empty() {
        return;
    }
    postings.group();
    let mut open = tokens.begin(postings);
    for (id, (value, _)) in (0..).zip(postings.keys()) {
        for hash in hashes.get(value as usize).into_iter().flatten() {
            open.add(gathered, *hash, id);
        }
    }
    open.end(gathered);
    postings.clear();
}
