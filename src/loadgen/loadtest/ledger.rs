//! The test's own record of what became of each batch, and the comparison with what the server gives back. No I/O.

use serde_json::{Value as Json, json};

use crate::loadgen::push::Outcome;

/// What became of a batch, as the client saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Unsent,
    /// Answered 201 and every line accepted as a record.
    Acked,
    /// Answered 201, but some line was dead-lettered or not counted: our lines are all good, so this is wrong.
    Mangled,
    Refused,
    Unknown,
}

/// Where a line stands: line `index` is line `seq` of `producer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    pub n_batches: u64,
    pub batch_lines: u64,
    pub n_producers: u64,
}

impl Plan {
    pub fn n_lines(self) -> u64 {
        self.n_batches * self.batch_lines
    }

    /// (producer, seq) of a line.
    pub fn name_of(self, index: u64) -> (u64, u64) {
        let (batch, within) = (index / self.batch_lines, index % self.batch_lines);
        let (round, producer) = (batch / self.n_producers, batch % self.n_producers);
        (producer, round * self.batch_lines + within)
    }

    /// The line of (producer, seq), if there is one.
    pub fn index_of(self, producer: u64, seq: u64) -> Option<u64> {
        let (round, within) = (seq / self.batch_lines, seq % self.batch_lines);
        let batch = round.checked_mul(self.n_producers)?.checked_add(producer)?;
        let is_known = producer < self.n_producers && batch < self.n_batches;
        is_known.then(|| batch * self.batch_lines + within)
    }
}

#[derive(Clone, Debug)]
pub struct Ledger {
    plan: Plan,
    fates: Vec<Fate>,
}

impl Ledger {
    pub fn new(plan: Plan) -> Self {
        Self {
            plan,
            fates: vec![Fate::Unsent; plan.n_batches as usize],
        }
    }

    pub fn note(&mut self, batch: u64, outcome: &Outcome) -> Fate {
        let fate = match outcome {
            Outcome::Acked { accepted, .. } if *accepted == self.plan.batch_lines => Fate::Acked,
            Outcome::Acked { .. } => Fate::Mangled,
            Outcome::Refused { .. } => Fate::Refused,
            Outcome::Unknown { .. } => Fate::Unknown,
        };
        if let Some(slot) = self.fates.get_mut(batch as usize) {
            *slot = fate;
        }
        fate
    }

    /// Lines whose batch met this fate.
    pub fn n_lines(&self, fate: Fate) -> u64 {
        self.fates.iter().filter(|known| **known == fate).count() as u64 * self.plan.batch_lines
    }

    /// Compares with how often each line was read back.
    pub fn verdict(&self, stored: &Stored) -> Verdict {
        let mut verdict = Verdict {
            foreign: stored.n_foreign,
            altered: stored.n_altered,
            ..Verdict::default()
        };
        let chunks = stored.copies.chunks(self.plan.batch_lines.max(1) as usize);
        for (fate, copies) in self.fates.iter().zip(chunks) {
            let n_here = copies.iter().filter(|n| 0 < **n).count() as u64;
            let n_lines = copies.len() as u64;
            verdict.stored += n_here;
            verdict.duplicates += copies
                .iter()
                .map(|n| u64::from(n.saturating_sub(1)))
                .sum::<u64>();
            match fate {
                Fate::Acked => verdict.lost += n_lines - n_here,
                Fate::Mangled => verdict.mangled += n_lines,
                Fate::Refused | Fate::Unsent => verdict.stored_though_refused += n_here,
                Fate::Unknown if n_here == 0 || n_here == n_lines => {
                    verdict.unknown_stored += n_here;
                }
                Fate::Unknown => verdict.torn_batches += 1,
            }
        }
        verdict
    }
}

/// What the server gave back.
#[derive(Clone, Debug)]
pub struct Stored {
    /// For each line, how often it was read.
    pub copies: Vec<u8>,
    /// Records of this run that were never part of it.
    pub n_foreign: u64,
    /// Records whose content is not what was sent.
    pub n_altered: u64,
    /// The first few differences, told.
    pub differences: Vec<String>,
}

impl Stored {
    pub fn new(plan: Plan) -> Self {
        Self {
            copies: vec![0; plan.n_lines() as usize],
            n_foreign: 0,
            n_altered: 0,
            differences: Vec::new(),
        }
    }

    pub fn note(&mut self, index: Option<u64>) {
        match index.and_then(|index| self.copies.get_mut(index as usize)) {
            Some(copies) => *copies = copies.saturating_add(1),
            None => self.n_foreign += 1,
        }
    }

    pub fn n_records(&self) -> u64 {
        self.copies.iter().map(|n| u64::from(*n)).sum::<u64>() + self.n_foreign
    }
}

/// Counts of lines (of batches for `torn_batches`). All but `stored` and `unknown_stored` must be 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub stored: u64,
    pub lost: u64,
    pub duplicates: u64,
    pub mangled: u64,
    pub stored_though_refused: u64,
    pub torn_batches: u64,
    pub unknown_stored: u64,
    pub foreign: u64,
    pub altered: u64,
}

impl Verdict {
    /// Promises that were not kept, told.
    pub fn broken(&self) -> Vec<String> {
        [
            (self.lost, "acknowledged lines are not stored"),
            (self.duplicates, "lines are stored more than once"),
            (
                self.mangled,
                "good lines were answered 201 but not all accepted",
            ),
            (
                self.stored_though_refused,
                "lines are stored though they were refused",
            ),
            (self.torn_batches, "unanswered batches are stored in part"),
            (self.foreign, "records of this run were never sent"),
            (self.altered, "records differ from what was sent"),
        ]
        .into_iter()
        .filter(|(count, _)| *count != 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect()
    }

    pub fn json(&self) -> Json {
        json!({
            "stored": self.stored, "lost": self.lost, "duplicates": self.duplicates, "mangled": self.mangled,
            "stored_though_refused": self.stored_though_refused, "torn_batches": self.torn_batches,
            "unknown_stored": self.unknown_stored, "foreign": self.foreign, "altered": self.altered,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: Plan = Plan {
        n_batches: 7,
        batch_lines: 5,
        n_producers: 3,
    };

    #[test]
    fn names_and_indices_are_one_to_one() {
        for index in 0..PLAN.n_lines() {
            let (producer, seq) = PLAN.name_of(index);
            assert_eq!(PLAN.index_of(producer, seq), Some(index));
        }
        assert_eq!(PLAN.index_of(3, 0), None);
        assert_eq!(PLAN.index_of(2, 10), None);
        assert_eq!(PLAN.index_of(0, u64::MAX), None);
    }

    fn acked(accepted: u64) -> Outcome {
        Outcome::Acked {
            accepted,
            dead_lettered: 0,
            replayed: false,
        }
    }

    fn refused() -> Outcome {
        Outcome::Refused {
            status: 429,
            reason: String::new(),
        }
    }

    fn unknown() -> Outcome {
        Outcome::Unknown {
            reason: String::new(),
        }
    }

    #[test]
    fn a_kept_promise_has_no_complaint() {
        let mut ledger = Ledger::new(PLAN);
        ledger.note(0, &acked(5));
        ledger.note(1, &refused());
        ledger.note(2, &unknown());
        ledger.note(3, &unknown());
        let mut stored = Stored::new(PLAN);
        for index in (0..5).chain(10..15) {
            stored.note(Some(index));
        }
        let verdict = ledger.verdict(&stored);
        assert!(verdict.broken().is_empty(), "{verdict:?}");
        assert_eq!((verdict.stored, verdict.unknown_stored), (10, 5));
        assert_eq!(ledger.n_lines(Fate::Unknown), 10);
    }

    #[test]
    fn each_broken_promise_is_seen() {
        let mut ledger = Ledger::new(PLAN);
        ledger.note(0, &acked(5));
        ledger.note(1, &refused());
        ledger.note(2, &unknown());
        ledger.note(3, &acked(4));
        let mut stored = Stored::new(PLAN);
        for index in [0, 1, 2, 3, 3, 3, 5, 10] {
            stored.note(Some(index));
        }
        stored.note(None);
        stored.n_altered = 1;
        let verdict = ledger.verdict(&stored);
        let expected = Verdict {
            stored: 6,
            lost: 1,
            duplicates: 2,
            mangled: 5,
            stored_though_refused: 1,
            torn_batches: 1,
            unknown_stored: 0,
            foreign: 1,
            altered: 1,
        };
        assert_eq!(verdict, expected);
        assert_eq!(verdict.broken().len(), 7);
    }
}
