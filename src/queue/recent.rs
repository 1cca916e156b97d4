//! The newest batches in memory, bounded in bytes, so that the indexer reads them without the disk and without checking them again.

use std::collections::VecDeque;

use crate::record::QueuedBatch;

pub struct Recent {
    batches: VecDeque<QueuedBatch>,
    size_bytes: usize,
    size_bytes_max: usize,
    /// After the last entry ever pushed.
    end_seq: u64,
}

impl Recent {
    pub fn new(size_bytes_max: usize, end_seq: u64) -> Self {
        Self {
            batches: VecDeque::new(),
            size_bytes: 0,
            size_bytes_max,
            end_seq,
        }
    }

    pub fn push(&mut self, queued: QueuedBatch) {
        self.end_seq = queued.next_seq();
        self.size_bytes += size_bytes_of(&queued);
        self.batches.push_back(queued);
        while self.size_bytes_max < self.size_bytes {
            self.drop_oldest();
        }
    }

    /// Batches from the one that holds `seq` on, up to `max_bytes` but at least one; `None` if that one is not here any more.
    pub fn read(&self, seq: u64, max_bytes: usize) -> Option<Vec<QueuedBatch>> {
        if self.end_seq <= seq {
            return Some(Vec::new());
        }
        let oldest = self.batches.front()?;
        if seq < oldest.first.seq {
            return None;
        }
        let n_before = self
            .batches
            .partition_point(|queued| queued.next_seq() <= seq);
        let mut size_bytes = 0;
        let mut found = Vec::new();
        for queued in self.batches.range(n_before..) {
            size_bytes += size_bytes_of(queued);
            if max_bytes < size_bytes && !found.is_empty() {
                break;
            }
            found.push(queued.clone());
        }
        Some(found)
    }

    /// Entries below `seq` are not needed any more.
    pub fn release(&mut self, seq: u64) {
        while self
            .batches
            .front()
            .is_some_and(|queued| queued.next_seq() <= seq)
        {
            self.drop_oldest();
        }
    }

    pub fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    fn drop_oldest(&mut self) {
        if let Some(queued) = self.batches.pop_front() {
            self.size_bytes -= size_bytes_of(&queued);
        }
    }
}

pub fn size_bytes_of(queued: &QueuedBatch) -> usize {
    queued.batch.as_bytes().len()
}
