//! What is known of the topics' ends and of the indexers' progress: from time to time from the brokers, at once from our own appends.
//!
//! A partition may end with what no reader is given: markers of transactions, and messages of transactions that were broken off. The consumer finds
//! out and tells of such a *gap*; the end is then where the gap begins, or the last record would never be reached.

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::queue::kafka::errors::lock;
use crate::record::{Checkpoint, Position};

/// Partitions of the two topics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Partitions {
    pub records: u32,
    pub letters: u32,
}

impl Partitions {
    /// Their numbers as positions count them.
    pub fn all(self) -> impl Iterator<Item = u32> {
        let letters = (0..self.letters).map(|n| n | Position::LETTER_PARTITIONS);
        (0..self.records).chain(letters)
    }
}

#[derive(Default)]
pub(super) struct Marks {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    end: Checkpoint,
    released: Checkpoint,
    partitions: Partitions,
    gaps: BTreeMap<u32, Gap>,
}

/// Offsets that hold nothing to read.
#[derive(Clone, Copy)]
struct Gap {
    begin: u64,
    end: u64,
}

impl Marks {
    pub fn end(&self) -> Checkpoint {
        let state = lock(&self.state);
        let mut end = state.end.clone();
        for (partition, gap) in &state.gaps {
            if let Some(end) = end.0.get_mut(partition)
                && gap.begin < *end
                && *end <= gap.end
            {
                *end = gap.begin;
            }
        }
        end
    }

    /// The offsets from `begin` up to `end` hold nothing to read.
    pub fn pass_over(&self, partition: u32, begin: u64, end: u64) {
        let mut state = lock(&self.state);
        state.end.advance(partition, end);
        state.gaps.insert(partition, Gap { begin, end });
    }

    /// The end moves before anyone is told of what lies before it.
    pub fn advance_end(&self, end: &Checkpoint) {
        lock(&self.state).end.advance_all(end);
    }

    pub fn released(&self) -> Checkpoint {
        lock(&self.state).released.clone()
    }

    /// What lies past the end cannot be released.
    pub fn release(&self, up_to: &Checkpoint) -> Checkpoint {
        let mut state = lock(&self.state);
        let State {
            end,
            released,
            gaps,
            ..
        } = &mut *state;
        for (partition, next_seq) in &up_to.0 {
            let mut reached = (*next_seq).min(end.next_seq(*partition));
            // Whoever looks at the group's commits is to see that nothing is left.
            if let Some(gap) = gaps.get(partition)
                && gap.begin <= reached
            {
                reached = reached.max(gap.end);
            }
            released.advance(*partition, reached);
        }
        released.clone()
    }

    pub fn partitions(&self) -> Partitions {
        lock(&self.state).partitions
    }

    pub fn set_partitions(&self, partitions: Partitions) {
        lock(&self.state).partitions = partitions;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_at_the_end_is_no_part_of_what_is_to_be_read() {
        let marks = Marks::default();
        marks.advance_end(&Checkpoint::up_to(3, 10));
        assert_eq!(marks.end().next_seq(3), 10);
        marks.pass_over(3, 7, 10);
        assert_eq!(marks.end().next_seq(3), 7);
        // Others see that all is done; before the gap nothing changes.
        assert_eq!(marks.release(&Checkpoint::up_to(3, 6)).next_seq(3), 6);
        assert_eq!(marks.release(&Checkpoint::up_to(3, 7)).next_seq(3), 10);
        // It has grown before the end was looked up again.
        marks.pass_over(3, 7, 12);
        assert_eq!(marks.end().next_seq(3), 7);
        // A record behind it.
        marks.advance_end(&Checkpoint::up_to(3, 13));
        assert_eq!(marks.end().next_seq(3), 13);
        assert_eq!(marks.release(&Checkpoint::up_to(3, 13)).next_seq(3), 13);
    }
}
