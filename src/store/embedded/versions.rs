//! The version of each day: a counter that rises with every write to it, mixed with a number that no other process shares.
//!
//! An answer's cache key holds the version of the days it is about, read *before* the answer was computed. A counter rises *after* its write became
//! visible, so no answer that lacks the write is ever stored under the later version.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use xxhash_rust::xxh3::Xxh3;

use crate::query::TimeRange;
use crate::store::embedded::rows::day_of;

pub struct Versions {
    nonce: u64,
    days: Mutex<BTreeMap<i32, u64>>,
}

impl Default for Versions {
    fn default() -> Self {
        Self {
            nonce: rand::random(),
            days: Mutex::default(),
        }
    }
}

impl Versions {
    pub fn bump(&self, days: impl IntoIterator<Item = i32>) {
        let mut counters = self.days.lock();
        for day in days {
            *counters.entry(day).or_insert(0) += 1;
        }
    }

    pub fn version(&self, range: &TimeRange) -> u64 {
        let first = range.start_ns.map_or(i32::MIN, day_of);
        // `end_ns` is exclusive.
        let last = range
            .end_ns
            .map_or(i32::MAX, |end_ns| day_of(end_ns.saturating_sub(1)));
        let mut hasher = Xxh3::new();
        hasher.update(&self.nonce.to_le_bytes());
        if first <= last {
            for (day, counter) in self.days.lock().range(first..=last) {
                hasher.update(&day.to_le_bytes());
                hasher.update(&counter.to_le_bytes());
            }
        }
        hasher.digest()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_changes_the_version_of_its_day_alone() {
        const DAY_NS: i64 = 86_400_000_000_000;
        let day = |first: i64, end: i64| TimeRange {
            start_ns: Some(first * DAY_NS),
            end_ns: Some(end * DAY_NS),
        };
        let versions = Versions::default();
        let all = versions.version(&TimeRange::default());
        let (second, third) = (versions.version(&day(2, 3)), versions.version(&day(3, 4)));
        versions.bump([3]);
        assert_ne!(versions.version(&TimeRange::default()), all);
        assert_eq!(versions.version(&day(2, 3)), second);
        assert_ne!(versions.version(&day(3, 4)), third);
        assert_ne!(
            Versions::default().version(&day(9, 10)),
            versions.version(&day(9, 10))
        );
        // An empty range is asked about too.
        versions.version(&day(5, 2));
    }
}
