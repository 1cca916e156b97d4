//! The distinct tokens of one page of one column, and the rows that hold each: small enough to stay in the processor's cache.

use crate::builder::Gathered;

/// Ids fit in 16 bits, and 0 marks a free slot.
const TOKENS_MAX: usize = 0xffff;
/// Bounds the memory of a page with very long texts; what comes after is a second part of the same page.
const OCCURRENCES_MAX: usize = 1 << 20;
const SLOTS_MIN: usize = 1 << 10;

#[derive(Clone, Copy, Debug)]
struct Token {
    hash: u64,
    /// Last row of the page that holds it, plus one.
    row_end: u32,
    n_rows: u32,
}

/// Rows of a page by token. Tokens have ids in the order of their first row.
#[derive(Debug, Default)]
pub struct PagePostings {
    tokens: Vec<Token>,
    /// Id << 16 | row, in the order of the rows.
    occurrences: Vec<u32>,
    ends: Vec<u32>,
    rows: Vec<u16>,
}

impl PagePostings {
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// The next part must begin before more is added.
    pub fn is_full(&self) -> bool {
        TOKENS_MAX <= self.tokens.len() || OCCURRENCES_MAX <= self.occurrences.len()
    }

    /// A new id; `is_full` was asked before.
    #[inline]
    pub fn start(&mut self, hash: u64, row: u16) -> u16 {
        let id = self.tokens.len() as u16;
        self.tokens.push(Token {
            hash,
            row_end: u32::from(row) + 1,
            n_rows: 1,
        });
        self.occurrences.push(u32::from(id) << 16 | u32::from(row));
        id
    }

    #[expect(clippy::indexing_slicing, reason = "ids come from `start`")]
    #[inline]
    pub fn add(&mut self, id: u16, row: u16) {
        let token = &mut self.tokens[usize::from(id)];
        if token.row_end != u32::from(row) + 1 {
            token.row_end = u32::from(row) + 1;
            token.n_rows += 1;
            self.occurrences.push(u32::from(id) << 16 | u32::from(row));
        }
    }

    /// Hands each token's hash (or what stands for it) with the place of its rows to `emit`, and starts anew.
    #[expect(clippy::indexing_slicing, reason = "the ends are sums of the counts")]
    pub fn drain(
        &mut self,
        gathered: &mut Gathered,
        mut emit: impl FnMut(&mut Gathered, u64, u32),
    ) {
        if self.occurrences.len() == self.tokens.len() {
            // Every token has one row: the usual page of ids and numbers.
            for (token, occurrence) in self.tokens.iter().zip(&self.occurrences) {
                let rows = gathered.one_row(*occurrence as u16);
                emit(gathered, token.hash, rows);
            }
        } else {
            self.ends.clear();
            let mut sum = 0;
            for token in &self.tokens {
                self.ends.push(sum);
                sum += token.n_rows;
            }
            self.rows.clear();
            self.rows.resize(sum as usize, 0);
            for occurrence in &self.occurrences {
                let end = &mut self.ends[(occurrence >> 16) as usize];
                self.rows[*end as usize] = *occurrence as u16;
                *end += 1;
            }
            for (token, end) in self.tokens.iter().zip(&self.ends) {
                let rows = &self.rows[(end - token.n_rows) as usize..*end as usize];
                let rows = match rows {
                    [row] => gathered.one_row(*row),
                    _ => gathered.keep_rows(rows),
                };
                emit(gathered, token.hash, rows);
            }
        }
        self.tokens.clear();
        self.occurrences.clear();
    }
}

/// Finds the id of a token by its hash.
#[derive(Debug)]
pub struct PageTable {
    /// Upper half: 16 bits of the hash; lower half: id + 1, 0 in a free slot. A power of two of them.
    slots: Vec<u32>,
    pub postings: PagePostings,
}

impl Default for PageTable {
    fn default() -> Self {
        Self {
            slots: vec![0; SLOTS_MIN],
            postings: PagePostings::default(),
        }
    }
}

impl PageTable {
    /// `false`: the table is full; drain it and add again.
    #[expect(clippy::indexing_slicing, reason = "masked by the number of slots")]
    #[inline]
    #[must_use]
    pub fn add(&mut self, hash: u64, row: u16) -> bool {
        let mask = self.slots.len() - 1;
        let tag = (hash >> 32) as u32 & 0xffff_0000;
        let mut at = hash as usize & mask;
        loop {
            let slot = self.slots[at];
            if slot == 0 {
                return self.insert(at, hash, row);
            }
            if slot & 0xffff_0000 == tag {
                let id = (slot as u16) - 1;
                if self.postings.tokens[usize::from(id)].hash == hash {
                    self.postings.add(id, row);
                    return true;
                }
            }
            at = (at + 1) & mask;
        }
    }

    #[expect(clippy::indexing_slicing, reason = "masked by the number of slots")]
    #[inline]
    fn insert(&mut self, at: usize, hash: u64, row: u16) -> bool {
        if self.postings.is_full() {
            return false;
        }
        let id = self.postings.start(hash, row);
        self.slots[at] = (hash >> 32) as u32 & 0xffff_0000 | (u32::from(id) + 1);
        if self.slots.len() < 2 * self.postings.tokens.len() {
            self.grow();
        }
        true
    }

    #[expect(clippy::indexing_slicing, reason = "masked by the number of slots")]
    #[cold]
    fn grow(&mut self) {
        let n_slots = self.slots.len() * 2;
        self.slots.clear();
        self.slots.resize(n_slots, 0);
        for (id, token) in (1..).zip(&self.postings.tokens) {
            let mut at = token.hash as usize & (n_slots - 1);
            while self.slots[at] != 0 {
                at = (at + 1) & (n_slots - 1);
            }
            self.slots[at] = (token.hash >> 32) as u32 & 0xffff_0000 | id;
        }
    }

    pub fn drain(&mut self, gathered: &mut Gathered) {
        self.postings
            .drain(gathered, |gathered, hash, rows| gathered.push(hash, rows));
        self.slots.fill(0);
    }

    /// A new column begins: forget how large the last one's pages were.
    pub fn reset_size(&mut self) {
        self.slots.clear();
        self.slots.resize(SLOTS_MIN, 0);
    }
}
