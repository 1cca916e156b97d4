//! What is known of the topics' ends and of the indexers' progress: from time to time from the brokers, at once from our own appends.

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
}

impl Marks {
    pub fn end(&self) -> Checkpoint {
        lock(&self.state).end.clone()
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
        let State { end, released, .. } = &mut *state;
        for (partition, next_seq) in &up_to.0 {
            released.advance(*partition, (*next_seq).min(end.next_seq(*partition)));
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
