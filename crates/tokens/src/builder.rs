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

/// In place of a value's number: the row has none.
pub const NO_KEY: u32 = u32::MAX;

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

    /// A stretch of a column with few distinct values: row `first_row + i` holds the value `keys[i]`, or none if that is [`NO_KEY`]. `tokens` is called
    /// once for each of the `n_values` values, to say what is to be found in it. Rows at or past `n_rows` panic.
    pub fn add_dictionary(
        &mut self,
        column: u32,
        first_row: u32,
        keys: &[u32],
        n_values: usize,
        mut tokens: impl FnMut(usize, &mut ValueTokens),
    ) {
        let mut found = ValueTokens {
            hasher: self.hasher,
            scratch: Scratch::default(),
            hashes: Vec::with_capacity(n_values),
            ends: Vec::with_capacity(n_values),
        };
        for value in 0..n_values {
            tokens(value, &mut found);
            found.ends.push(found.hashes.len());
        }
        self.add_values(column, first_row, keys, &found);
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

    fn add_values(&mut self, column: u32, first_row: u32, keys: &[u32], values: &ValueTokens) {
        let end = first_row as usize + keys.len();
        assert!(
            end <= self.n_rows as usize,
            "rows up to {end} in an index of {} rows",
            self.n_rows
        );
        self.page.end_page(&mut self.gathered, self.hasher);
        self.column = None;
        self.page_end = 0;
        let mut tokens = TextTokens::default();
        let mut postings = Postings::default();
        // By value: the part of a page it was last seen in, and its id there.
        let mut seen = vec![(0_u32, 0_u16); values.ends.len()];
        let mut part = 0;
        let mut row = first_row;
        let mut keys = keys;
        while !keys.is_empty() {
            let page = row / self.page_rows;
            let row_in_page = row % self.page_rows;
            let n_here = keys.len().min((self.page_rows - row_in_page) as usize);
            let (of_page, rest) = keys.split_at(n_here);
            part += 1;
            self.gathered.enter(column, page);
            for (row, key) in (row_in_page..).zip(of_page) {
                // A page has at most 65,536 rows.
                let row = row as u16;
                // `NO_KEY` is past the last.
                let Some((seen_in, id)) = seen.get_mut(*key as usize) else {
                    continue;
                };
                if *seen_in == part {
                    postings.add(*id, row);
                    continue;
                }
                if postings.is_full() {
                    drain_values(&mut postings, values, &mut tokens, &mut self.gathered);
                    part += 1;
                }
                *seen_in = part;
                *id = postings.start((*key).into(), row);
            }
            drain_values(&mut postings, values, &mut tokens, &mut self.gathered);
            row += n_here as u32;
            keys = rest;
        }
    }
}

/// Gathers what is to be found in the values of a dictionary.
#[derive(Debug)]
pub struct ValueTokens {
    hasher: Hasher,
    scratch: Scratch,
    hashes: Vec<u64>,
    /// By value, the end of its hashes.
    ends: Vec<usize>,
}

impl ValueTokens {
    /// The tokens of a text, as in [`IndexBuilder::add_text`].
    pub fn text(&mut self, text: &str) {
        let (hasher, hashes) = (self.hasher, &mut self.hashes);
        each_token(text, &mut self.scratch, |buffer, start, len| {
            hashes.push(hasher.hash_padded(buffer, start, len));
        });
    }

    /// One whole value, as in [`IndexBuilder::add_value`].
    pub fn value(&mut self, value: &str) {
        self.hashes.push(self.hasher.hash(value.as_bytes()));
    }

    fn hashes_of(&self, value: usize) -> &[u64] {
        let start = value.checked_sub(1).and_then(|last| self.ends.get(last));
        let end = self.ends.get(value).copied().unwrap_or(0);
        let start = start.copied().unwrap_or(0);
        self.hashes.get(start..end).unwrap_or_default()
    }
}

/// `postings`: rows by value, whose number stands in place of a hash.
fn drain_values(
    postings: &mut Postings,
    values: &ValueTokens,
    tokens: &mut TextTokens,
    gathered: &mut Gathered,
) {
    if postings.is_empty() {
        return;
    }
    postings.group();
    let mut open = tokens.begin(postings);
    for (id, (value, _)) in (0..).zip(postings.keys()) {
        for hash in values.hashes_of(value as usize) {
            open.add(gathered, *hash, id);
        }
    }
    open.end(gathered);
    postings.clear();
}
