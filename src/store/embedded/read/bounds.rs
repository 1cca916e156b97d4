//! What is known of a filter's matches before any row is read: rows that match for certain, and rows that may.
//!
//! Boolean algebra over both keeps them true: `NOT` turns what may match into what certainly does not. Must not know where the sets come from.

use std::ops::Range;

use roaring::RoaringBitmap;

/// A set of rows among 0 .. n, which is often all or none of them.
#[derive(Clone, Debug, PartialEq)]
pub enum Rows {
    None,
    All,
    Some(RoaringBitmap),
}

/// `sure` is a subset of the rows that match, which is a subset of `maybe`.
#[derive(Clone, Debug, PartialEq)]
pub struct Bounds {
    pub sure: Rows,
    pub maybe: Rows,
}

impl Rows {
    #[must_use]
    pub fn and(self, other: &Self) -> Self {
        match (self, other) {
            (Self::None, _) | (_, Self::None) => Self::None,
            (Self::All, rows) => rows.clone(),
            (rows, Self::All) => rows,
            (Self::Some(rows), Self::Some(other)) => Self::of(rows & other),
        }
    }

    #[must_use]
    pub fn or(self, other: &Self) -> Self {
        match (self, other) {
            (Self::All, _) | (_, Self::All) => Self::All,
            (Self::None, rows) => rows.clone(),
            (rows, Self::None) => rows,
            (Self::Some(rows), Self::Some(other)) => Self::Some(rows | other),
        }
    }

    /// All of 0 .. `n_rows` that are not in it.
    #[must_use]
    pub fn not(self, n_rows: u32) -> Self {
        match self {
            Self::None => Self::All,
            Self::All => Self::None,
            Self::Some(rows) => {
                let mut all = RoaringBitmap::new();
                all.insert_range(0..n_rows);
                Self::of(all - rows)
            }
        }
    }

    pub fn of(rows: RoaringBitmap) -> Self {
        if rows.is_empty() {
            Self::None
        } else {
            Self::Some(rows)
        }
    }

    /// Those of `rows` that are in it.
    pub fn within(&self, rows: &RoaringBitmap) -> RoaringBitmap {
        match self {
            Self::None => RoaringBitmap::new(),
            Self::All => rows.clone(),
            Self::Some(own) => own & rows,
        }
    }

    /// Those of the range that are in it.
    pub fn in_range(&self, range: Range<u32>) -> RoaringBitmap {
        let mut rows = RoaringBitmap::new();
        rows.insert_range(range);
        match self {
            Self::None => RoaringBitmap::new(),
            Self::All => rows,
            Self::Some(own) => rows & own,
        }
    }
}

impl Bounds {
    pub fn exact(rows: Rows) -> Self {
        Self {
            sure: rows.clone(),
            maybe: rows,
        }
    }

    pub fn unknown() -> Self {
        Self {
            sure: Rows::None,
            maybe: Rows::All,
        }
    }

    pub fn at_most(rows: Rows) -> Self {
        Self {
            sure: Rows::None,
            maybe: rows,
        }
    }

    #[must_use]
    pub fn and(self, other: &Self) -> Self {
        Self {
            sure: self.sure.and(&other.sure),
            maybe: self.maybe.and(&other.maybe),
        }
    }

    #[must_use]
    pub fn or(self, other: &Self) -> Self {
        Self {
            sure: self.sure.or(&other.sure),
            maybe: self.maybe.or(&other.maybe),
        }
    }

    #[must_use]
    pub fn not(self, n_rows: u32) -> Self {
        Self {
            sure: self.maybe.not(n_rows),
            maybe: self.sure.not(n_rows),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const N: u32 = 6;

    /// Every pair of sets of 0..3 rows, as `Rows`.
    fn all_bounds() -> Vec<(Bounds, u32, u32)> {
        let rows = |bits: u32| match bits {
            0 => Rows::None,
            0x3f => Rows::All,
            _ => Rows::Some((0..N).filter(|row| bits >> row & 1 == 1).collect()),
        };
        let mut all = Vec::new();
        for sure in [0, 1, 0b10_0001, 0x3f] {
            for maybe in [0, 1, 0b10_0011, 0x3f] {
                if sure & maybe == sure {
                    let bounds = Bounds {
                        sure: rows(sure),
                        maybe: rows(maybe),
                    };
                    all.push((bounds, sure, maybe));
                }
            }
        }
        all
    }

    fn bits(rows: &Rows) -> u32 {
        rows.in_range(0..N).iter().map(|row| 1 << row).sum()
    }

    #[test]
    fn the_algebra_is_that_of_sets() {
        for (a, a_sure, a_maybe) in all_bounds() {
            let not = a.clone().not(N);
            assert_eq!(bits(&not.sure), !a_maybe & 0x3f);
            assert_eq!(bits(&not.maybe), !a_sure & 0x3f);
            for (b, b_sure, b_maybe) in all_bounds() {
                let and = a.clone().and(&b);
                assert_eq!(bits(&and.sure), a_sure & b_sure);
                assert_eq!(bits(&and.maybe), a_maybe & b_maybe);
                let or = a.clone().or(&b);
                assert_eq!(bits(&or.sure), a_sure | b_sure);
                assert_eq!(bits(&or.maybe), a_maybe | b_maybe);
            }
        }
    }
}
