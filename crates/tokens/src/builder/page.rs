//! The page in work: turns texts into entries of `Gathered`.
//!
//! Where texts repeat within a page they are gathered whole, and each distinct one is tokenised once; where they do not, every
//! text is tokenised as it comes. The first page of a column tells which it is, and a later one asks again.

use super::gathered::Gathered;
use crate::hash::Hasher;
use crate::page_table::{Added, PageTable, Postings};
use crate::tokenize::{Scratch, each_token};

/// Texts to see before deciding whether they repeat.
const SAMPLE_ROWS: u32 = 64;
/// Pages until a column whose texts did not repeat is asked again.
const PAGES_BETWEEN_SAMPLES: u32 = 32;
/// Bytes of distinct texts to hold at once.
const TEXTS_SIZE_MAX: usize = 1 << 20;

#[derive(Debug, Default)]
pub struct PageBuilder {
    scratch: Scratch,
    /// Tokens that were added one by one.
    tokens: PageTable,
    /// Whole texts, with their hash.
    texts: PageTable,
    /// The distinct texts, one after the other, and their ends by id.
    text_bytes: String,
    text_ends: Vec<usize>,
    n_texts: u32,
    /// Pages to go without gathering texts.
    pages_to_skip: u32,
    text_tokens: TextTokens,
}

impl PageBuilder {
    pub fn start_column(&mut self) {
        self.tokens.reset_size();
        self.texts.reset_size();
        self.text_tokens.reset_size();
        self.pages_to_skip = 0;
    }

    #[inline]
    pub fn add_text(&mut self, gathered: &mut Gathered, hasher: Hasher, row: u16, text: &str) {
        if self.pages_to_skip == 0 {
            self.add_whole(gathered, hasher, row, text);
        } else {
            self.add_tokens(gathered, hasher, row, text);
        }
    }

    #[inline]
    pub fn add_hash(&mut self, gathered: &mut Gathered, hash: u64, row: u16) {
        add(&mut self.tokens, gathered, hash, row);
    }

    fn add_tokens(&mut self, gathered: &mut Gathered, hasher: Hasher, row: u16, text: &str) {
        let tokens = &mut self.tokens;
        each_token(text, &mut self.scratch, |buffer, start, len| {
            add(
                tokens,
                gathered,
                hasher.hash_padded(buffer, start, len),
                row,
            );
        });
    }

    fn add_whole(&mut self, gathered: &mut Gathered, hasher: Hasher, row: u16, text: &str) {
        let hash = hasher.hash(text.as_bytes());
        let (bytes, ends) = (&self.text_bytes, &self.text_ends);
        let is_same = |id| stored(bytes, ends, id) == text;
        let added = self.texts.add_if(hash, row, is_same);
        self.n_texts += 1;
        match added {
            Added::Known => return,
            Added::New => {
                self.text_bytes.push_str(text);
                self.text_ends.push(self.text_bytes.len());
            }
            Added::Full => {
                self.drain_texts(gathered, hasher);
                self.add_tokens(gathered, hasher, row, text);
            }
        }
        let n_distinct = self.text_ends.len() as u32;
        if SAMPLE_ROWS <= self.n_texts && self.n_texts < 2 * n_distinct {
            self.drain_texts(gathered, hasher);
            self.pages_to_skip = PAGES_BETWEEN_SAMPLES;
        } else if TEXTS_SIZE_MAX < self.text_bytes.len() {
            self.drain_texts(gathered, hasher);
        }
    }

    /// The page is complete.
    pub fn end_page(&mut self, gathered: &mut Gathered, hasher: Hasher) {
        drain(&mut self.tokens, gathered);
        self.drain_texts(gathered, hasher);
        self.pages_to_skip = self.pages_to_skip.saturating_sub(1);
    }

    fn drain_texts(&mut self, gathered: &mut Gathered, hasher: Hasher) {
        self.n_texts = 0;
        if self.text_ends.is_empty() {
            return;
        }
        self.texts.postings.group();
        let mut tokens = self.text_tokens.begin(&self.texts.postings);
        for id in 0..self.text_ends.len() as u16 {
            let text = stored(&self.text_bytes, &self.text_ends, id);
            each_token(text, &mut self.scratch, |buffer, start, len| {
                tokens.add(gathered, hasher.hash_padded(buffer, start, len), id);
            });
        }
        tokens.end(gathered);
        self.texts.clear();
        self.text_bytes.clear();
        self.text_ends.clear();
    }
}

#[inline]
fn add(tokens: &mut PageTable, gathered: &mut Gathered, hash: u64, row: u16) {
    if tokens.add(hash, row) == Added::Full {
        drain(tokens, gathered);
        tokens.add(hash, row);
    }
}

fn drain(tokens: &mut PageTable, gathered: &mut Gathered) {
    if tokens.postings.is_empty() {
        return;
    }
    tokens.postings.group();
    for (hash, rows) in tokens.postings.keys() {
        let rows = gathered.keep(rows);
        gathered.push(hash, rows);
    }
    tokens.clear();
}

#[expect(clippy::indexing_slicing, reason = "ids and ends were made together")]
fn stored<'a>(bytes: &'a str, ends: &[usize], id: u16) -> &'a str {
    let id = usize::from(id);
    let start = if id == 0 { 0 } else { ends[id - 1] };
    &bytes[start..ends[id]]
}

/// Tokens of distinct texts: each gets the rows of all the texts that hold it.
#[derive(Debug, Default)]
pub struct TextTokens {
    /// Their rows are ids of texts.
    table: PageTable,
    /// Where the rows of each text are kept, once they are.
    kept: Vec<Option<u32>>,
    /// One bit for each row of the page, for texts that share a token; empty between unions.
    union: Vec<u64>,
    union_rows: Vec<u16>,
    /// Tokens often stand in the very texts that the one before them did.
    last_ids: Vec<u16>,
    last_rows: u32,
}

impl TextTokens {
    pub fn reset_size(&mut self) {
        self.table.reset_size();
    }

    /// `texts` are grouped: rows by the id of a text.
    pub fn begin<'a>(&'a mut self, texts: &'a Postings) -> OpenTextTokens<'a> {
        self.kept.clear();
        self.kept.resize(texts.n_keys(), None);
        self.last_ids.clear();
        OpenTextTokens { all: self, texts }
    }

    fn drain(&mut self, texts: &Postings, gathered: &mut Gathered) {
        self.table.postings.group();
        for (hash, ids) in self.table.postings.keys() {
            let rows = match ids {
                [id] => match self.kept.get_mut(usize::from(*id)) {
                    Some(kept) => *kept.get_or_insert_with(|| gathered.keep(texts.rows(*id))),
                    None => continue,
                },
                ids if ids == self.last_ids => self.last_rows,
                ids => {
                    unite(texts, ids, &mut self.union, &mut self.union_rows);
                    self.last_ids.clear();
                    self.last_ids.extend_from_slice(ids);
                    self.last_rows = gathered.keep(&self.union_rows);
                    self.last_rows
                }
            };
            gathered.push(hash, rows);
        }
        self.table.clear();
    }
}

/// Writes the rows of all these texts to `rows`, ascending.
#[expect(clippy::indexing_slicing, reason = "made as long as a page can be")]
fn unite(texts: &Postings, ids: &[u16], union: &mut Vec<u64>, rows: &mut Vec<u16>) {
    union.resize(1 << 10, 0);
    let mut n_words = 0;
    for id in ids {
        for row in texts.rows(*id) {
            let word = usize::from(row / 64);
            union[word] |= 1 << (row % 64);
            n_words = n_words.max(word + 1);
        }
    }
    rows.clear();
    for (word_index, word) in union[..n_words].iter_mut().enumerate() {
        while *word != 0 {
            rows.push(64 * word_index as u16 + word.trailing_zeros() as u16);
            *word &= *word - 1;
        }
    }
}

pub struct OpenTextTokens<'a> {
    all: &'a mut TextTokens,
    texts: &'a Postings,
}

impl OpenTextTokens<'_> {
    #[inline]
    pub fn add(&mut self, gathered: &mut Gathered, hash: u64, id: u16) {
        if self.all.table.add(hash, id) == Added::Full {
            self.all.drain(self.texts, gathered);
            self.all.table.add(hash, id);
        }
    }

    pub fn end(self, gathered: &mut Gathered) {
        self.all.drain(self.texts, gathered);
    }
}
