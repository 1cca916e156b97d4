//! What was fetched and decoded and waits for the indexer, bounded in bytes. A batch stays until a later `read` begins after it, so a `read`
//! that was broken off loses nothing.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::common::error::{Error, Result};
use crate::queue::kafka::errors::lock;
use crate::queue::recent::size_bytes_of;
use crate::record::{Checkpoint, QueuedBatch};

/// What a batch weighs beside its bytes.
const BATCH_OVERHEAD_BYTES: usize = 256;

pub(super) struct Inbox {
    state: Mutex<State>,
    room: Condvar,
    news: Notify,
    size_bytes_max: usize,
}

#[derive(Default)]
struct State {
    batches: VecDeque<QueuedBatch>,
    size_bytes: usize,
    /// The partitions that are read, each with the seq below which nothing can be given any more.
    floor: Checkpoint,
    /// Where the last `read` began: the indexer has everything before it.
    from: Checkpoint,
    /// Raised when everything is to be fetched anew from `from`.
    generation: u64,
    fault: Option<(&'static str, String)>,
}

impl Inbox {
    pub fn new(size_bytes_max: usize) -> Self {
        Self {
            state: Mutex::default(),
            room: Condvar::new(),
            news: Notify::new(),
            size_bytes_max,
        }
    }

    /// Batches at or after `from`, at least one if there is any. `may_rewind`: `from` rules where reading begins; else the group does.
    pub fn take(
        &self,
        from: &Checkpoint,
        max_bytes: usize,
        may_rewind: bool,
    ) -> Result<Vec<QueuedBatch>> {
        let mut state = lock(&self.state);
        state.drop_covered(from);
        let is_behind = |(partition, floor): (&u32, &u64)| from.next_seq(*partition) < *floor;
        if may_rewind && state.floor.0.iter().any(is_behind) {
            state.restart();
        }
        self.room.notify_all();
        if let Some((code, message)) = &state.fault {
            return Err(Error::unavailable(code, message.clone()));
        }
        let mut size_bytes = 0;
        let mut found = Vec::new();
        for queued in &state.batches {
            size_bytes += size_bytes_of(queued);
            if max_bytes < size_bytes && !found.is_empty() {
                break;
            }
            found.push(queued.clone());
        }
        Ok(found)
    }

    /// Ends when something may have come since the last [`Self::take`].
    pub fn news(&self) -> tokio::sync::futures::Notified<'_> {
        self.news.notified()
    }

    pub fn push(&self, batches: &mut Vec<QueuedBatch>, generation: u64) {
        if batches.is_empty() {
            return;
        }
        let mut state = lock(&self.state);
        for queued in batches.drain(..) {
            // Fetched before the partition went to somebody else, or before a new beginning.
            let is_wanted = state.floor.0.contains_key(&queued.first.partition);
            if is_wanted && state.generation == generation {
                state.size_bytes += size_bytes_of(&queued) + BATCH_OVERHEAD_BYTES;
                state.batches.push_back(queued);
            }
        }
        drop(state);
        self.news.notify_waiters();
    }

    /// True if there is room, which is waited for.
    pub fn wait_for_room(&self, wait: Duration) -> bool {
        let state = lock(&self.state);
        let is_full = |state: &mut State| self.size_bytes_max <= state.size_bytes;
        let waited = self.room.wait_timeout_while(state, wait, is_full);
        let (_state, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        !timeout.timed_out()
    }

    pub fn generation(&self) -> u64 {
        lock(&self.state).generation
    }

    /// Where the indexer is.
    pub fn from(&self) -> Checkpoint {
        lock(&self.state).from.clone()
    }

    /// These partitions are read from there on.
    pub fn add(&self, begin: &Checkpoint) {
        let mut state = lock(&self.state);
        for (partition, next_seq) in &begin.0 {
            state.floor.0.insert(*partition, *next_seq);
        }
        state.fault = None;
    }

    /// These partitions are somebody else's now.
    pub fn remove(&self, partitions: &[u32]) {
        let mut state = lock(&self.state);
        let State {
            batches,
            size_bytes,
            floor,
            ..
        } = &mut *state;
        for partition in partitions {
            floor.0.remove(partition);
        }
        batches.retain(|queued| floor.0.contains_key(&queued.first.partition));
        *size_bytes = batches
            .iter()
            .map(|queued| size_bytes_of(queued) + BATCH_OVERHEAD_BYTES)
            .sum();
        self.room.notify_all();
    }

    pub fn partitions(&self) -> Checkpoint {
        lock(&self.state).floor.clone()
    }

    /// `read` answers with this until a beginning succeeds.
    pub fn set_fault(&self, code: &'static str, message: String) {
        lock(&self.state).fault = Some((code, message));
        self.news.notify_waiters();
    }
}

impl State {
    fn drop_covered(&mut self, from: &Checkpoint) {
        let State {
            batches,
            size_bytes,
            floor,
            ..
        } = self;
        batches.retain(|queued| {
            let partition = queued.first.partition;
            let is_covered = queued.next_seq() <= from.next_seq(partition);
            if is_covered {
                *size_bytes -= size_bytes_of(queued) + BATCH_OVERHEAD_BYTES;
                if let Some(floor) = floor.0.get_mut(&partition) {
                    *floor = queued.next_seq().max(*floor);
                }
            }
            !is_covered
        });
        self.from = from.clone();
    }

    fn restart(&mut self) {
        self.batches.clear();
        self.size_bytes = 0;
        self.floor = Checkpoint::default();
        self.generation += 1;
    }
}
