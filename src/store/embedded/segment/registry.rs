//! What all segments of a store share: how many may be open, and which were found damaged while being read.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::store::embedded::segment::Segment;

pub struct Registry {
    open_max: usize,
    /// Open segments, in the order of a clock's hand.
    open: Mutex<VecDeque<Weak<Segment>>>,
    has_damage: AtomicBool,
    /// (segment id, what is wrong).
    damage: Mutex<Vec<(u64, String)>>,
}

impl Registry {
    /// At most `open_max` segments keep their file and footer in memory, besides those that questions read at the moment.
    pub fn new(open_max: usize) -> Self {
        Self {
            open_max: open_max.max(1),
            open: Mutex::default(),
            has_damage: AtomicBool::new(false),
            damage: Mutex::default(),
        }
    }

    /// A segment was opened: the one not used for longest goes, if there are too many.
    pub fn opened(&self, segment: &Arc<Segment>) {
        let mut open = self.open.lock();
        open.push_back(Arc::downgrade(segment));
        // Each gets a second chance once, so the loop ends.
        for _ in 0..open.len() * 2 {
            if open.len() <= self.open_max {
                break;
            }
            let Some(oldest) = open.pop_front() else {
                break;
            };
            if let Some(other) = oldest.upgrade() {
                if other.was_used() {
                    open.push_back(oldest);
                } else {
                    other.shut();
                }
            }
        }
    }

    /// Reading a segment found that its bytes are not what was written.
    pub fn report(&self, id: u64, what: &str) {
        self.damage.lock().push((id, what.to_owned()));
        self.has_damage.store(true, Ordering::Release);
    }

    /// What was reported since the last call.
    pub fn take_damage(&self) -> Vec<(u64, String)> {
        if !self.has_damage.swap(false, Ordering::AcqRel) {
            return Vec::new();
        }
        std::mem::take(&mut self.damage.lock())
    }
}
