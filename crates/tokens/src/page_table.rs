//! The distinct tokens of one page of one column, and the rows that hold each: small enough to stay in the processor's cache.

/// Ids fit in 16 bits, and 0 marks a free slot.
const KEYS_MAX: usize = 0xffff;
/// Bounds the memory of a page with very long texts; what comes after is a second part of the same page.
const OCCURRENCES_MAX: usize = 1 << 20;
const SLOTS_MIN: usize = 1 << 9;

#[derive(Clone, Copy, Debug)]
struct Key {
    hash: u64,
    /// The last row that holds it, plus one.
    row_end: u32,
    n_rows: u32,
}

/// Rows by key; a key is a token's hash, or whatever else rows are gathered by. Ids count keys in the order of their first row.
#[derive(Debug, Default)]
pub struct Postings {
    keys: Vec<Key>,
    /// Id << 16 | row, in the order of the rows.
    occurrences: Vec<u32>,
    ends: Vec<u32>,
    rows: Vec<u16>,
}

impl Postings {
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub fn n_keys(&self) -> usize {
        self.keys.len()
    }

    /// It must be grouped, read and cleared before more is added.
    pub fn is_full(&self) -> bool {
        KEYS_MAX <= self.keys.len() || OCCURRENCES_MAX <= self.occurrences.len()
    }

    /// A new id; `is_full` was asked before.
    #[inline]
    pub fn start(&mut self, hash: u64, row: u16) -> u16 {
        let id = self.keys.len() as u16;
        self.keys.push(Key {
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
        let key = &mut self.keys[usize::from(id)];
        if key.row_end != u32::from(row) + 1 {
            key.row_end = u32::from(row) + 1;
            key.n_rows += 1;
            self.occurrences.push(u32::from(id) << 16 | u32::from(row));
        }
    }

    #[expect(clippy::indexing_slicing, reason = "ids come from `start`")]
    #[inline]
    pub fn hash(&self, id: u16) -> u64 {
        self.keys[usize::from(id)].hash
    }

    /// Makes `keys` and `rows` answer for what was added since `clear`.
    #[expect(clippy::indexing_slicing, reason = "the ends are sums of the counts")]
    pub fn group(&mut self) {
        self.ends.clear();
        self.rows.clear();
        if self.occurrences.len() == self.keys.len() {
            // Every key has one row, in the order of the ids: the usual page of identifiers and numbers.
            self.rows
                .extend(self.occurrences.iter().map(|occurrence| *occurrence as u16));
            self.ends.extend(1..=self.keys.len() as u32);
            return;
        }
        let mut sum = 0;
        for key in &self.keys {
            self.ends.push(sum);
            sum += key.n_rows;
        }
        self.rows.resize(sum as usize, 0);
        for occurrence in &self.occurrences {
            let end = &mut self.ends[(occurrence >> 16) as usize];
            self.rows[*end as usize] = *occurrence as u16;
            *end += 1;
        }
    }

    /// Hashes and ascending rows, in the order of the ids.
    #[expect(clippy::indexing_slicing, reason = "the ends are sums of the counts")]
    pub fn keys(&self) -> impl Iterator<Item = (u64, &[u16])> {
        self.keys.iter().zip(&self.ends).map(|(key, end)| {
            let start = end - key.n_rows;
            (key.hash, &self.rows[start as usize..*end as usize])
        })
    }

    #[expect(clippy::indexing_slicing, reason = "ids come from `start`")]
    pub fn rows(&self, id: u16) -> &[u16] {
        let end = self.ends[usize::from(id)];
        let start = end - self.keys[usize::from(id)].n_rows;
        &self.rows[start as usize..end as usize]
    }

    pub fn clear(&mut self) {
        self.keys.clear();
        self.occurrences.clear();
    }
}

/// What `PageTable::add` did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    New,
    Known,
    /// Nothing: the table must be cleared first.
    Full,
}

/// Finds the id of a key by its hash.
#[derive(Debug)]
pub struct PageTable {
    /// Upper half: 16 bits of the hash; lower half: id + 1, 0 in a free slot. A power of two of them.
    slots: Vec<u32>,
    pub postings: Postings,
}

impl Default for PageTable {
    fn default() -> Self {
        Self {
            slots: vec![0; SLOTS_MIN],
            postings: Postings::default(),
        }
    }
}

impl PageTable {
    #[inline]
    pub fn add(&mut self, hash: u64, row: u16) -> Added {
        self.add_if(hash, row, |_| true)
    }

    /// `is_same(id)`: whether the key of that hash is the one meant.
    #[expect(clippy::indexing_slicing, reason = "masked by the number of slots")]
    #[inline]
    pub fn add_if(&mut self, hash: u64, row: u16, is_same: impl Fn(u16) -> bool) -> Added {
        let mask = self.slots.len() - 1;
        let tag = tag(hash);
        let mut at = hash as usize & mask;
        loop {
            let slot = self.slots[at];
            if slot == 0 {
                return self.insert(at, hash, row);
            }
            if slot & 0xffff_0000 == tag {
                let id = (slot as u16) - 1;
                if self.postings.hash(id) == hash && is_same(id) {
                    self.postings.add(id, row);
                    return Added::Known;
                }
            }
            at = (at + 1) & mask;
        }
    }

    #[expect(clippy::indexing_slicing, reason = "masked by the number of slots")]
    #[inline]
    fn insert(&mut self, at: usize, hash: u64, row: u16) -> Added {
        if self.postings.is_full() {
            return Added::Full;
        }
        let id = self.postings.start(hash, row);
        self.slots[at] = tag(hash) | (u32::from(id) + 1);
        if self.slots.len() < 2 * self.postings.n_keys() {
            self.grow();
        }
        Added::New
    }

    #[expect(clippy::indexing_slicing, reason = "masked by the number of slots")]
    #[cold]
    fn grow(&mut self) {
        let n_slots = self.slots.len() * 2;
        self.slots.clear();
        self.slots.resize(n_slots, 0);
        for (id, key) in (1..).zip(&self.postings.keys) {
            let mut at = key.hash as usize & (n_slots - 1);
            while self.slots[at] != 0 {
                at = (at + 1) & (n_slots - 1);
            }
            self.slots[at] = tag(key.hash) | id;
        }
    }

    pub fn clear(&mut self) {
        self.postings.clear();
        self.slots.fill(0);
    }

    /// A new column begins: forget how large the last one's pages were.
    pub fn reset_size(&mut self) {
        self.slots.clear();
        self.slots.resize(SLOTS_MIN, 0);
    }
}

#[inline]
fn tag(hash: u64) -> u32 {
    (hash >> 32) as u32 & 0xffff_0000
}
