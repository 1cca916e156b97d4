//! The cache inside the process: bounded by bytes, forgets by age and by use (S3-FIFO, by `quick_cache`). The versions in its keys are all it needs:
//! every write that this process can see changes them.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache as QuickCache;

use crate::cache::{Cache, CacheKey, CacheStats, Days, Looked, Stamp};

/// What an entry costs besides its bytes.
const ENTRY_OVERHEAD_BYTES: u64 = 128;
/// The same for all days.
const STAMP: Stamp = Stamp(Some(0));
/// For the sizing of the table: answers are usually larger.
const ENTRY_BYTES_ESTIMATE: u64 = 4_096;

#[derive(Clone)]
struct Entry {
    answer: Bytes,
    expires: Instant,
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<CacheKey, Entry> for ByBytes {
    fn weight(&self, _key: &CacheKey, entry: &Entry) -> u64 {
        entry.answer.len() as u64 + ENTRY_OVERHEAD_BYTES
    }
}

/// Shared by all threads; a hit costs about 20 ns and no allocation.
pub struct InProcessCache {
    entries: QuickCache<CacheKey, Entry, ByBytes>,
    size_bytes_max: u64,
}

impl InProcessCache {
    /// Answers larger than an eighth of `size_bytes_max` are not kept.
    pub fn new(size_bytes_max: u64) -> Self {
        let n_estimated =
            usize::try_from(size_bytes_max / ENTRY_BYTES_ESTIMATE).unwrap_or(usize::MAX);
        Self {
            entries: QuickCache::with_weighter(n_estimated.max(16), size_bytes_max, ByBytes),
            size_bytes_max,
        }
    }
}

#[async_trait]
impl Cache for InProcessCache {
    async fn get(&self, key: CacheKey, _days: Days) -> Looked {
        let mut looked = Looked {
            answer: None,
            stamp: STAMP,
        };
        if let Some(entry) = self.entries.get(&key) {
            if entry.expires <= Instant::now() {
                self.entries.remove(&key);
            } else {
                looked.answer = Some(entry.answer);
            }
        }
        looked
    }

    async fn put(&self, key: CacheKey, _stamp: Stamp, answer: Bytes, time_to_live: Duration) {
        if self.size_bytes_max / 8 < answer.len() as u64 {
            return;
        }
        let expires = Instant::now() + time_to_live;
        self.entries.insert(key, Entry { answer, expires });
    }

    async fn raise(&self, _days: &[i64]) {}

    fn heeds_raises(&self) -> bool {
        false
    }

    fn stats(&self) -> CacheStats {
        CacheStats {
            entries: self.entries.len() as u64,
            size_bytes: self.entries.weight(),
            size_bytes_max: self.size_bytes_max,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::contract;

    #[tokio::test]
    async fn keeps_the_contract() {
        contract::check(&InProcessCache::new(1 << 20)).await;
    }

    #[tokio::test]
    async fn stays_within_its_bytes() {
        let cache = InProcessCache::new(64 * 1024);
        for question in 0..1_000 {
            let key = CacheKey {
                question,
                version: 1,
            };
            cache
                .put(
                    key,
                    STAMP,
                    Bytes::from(vec![0; 1_000]),
                    Duration::from_secs(60),
                )
                .await;
            assert!(cache.stats().size_bytes <= 64 * 1024);
        }
        assert!(10 < cache.stats().entries);
        let key = CacheKey {
            question: 5_000,
            version: 1,
        };
        cache
            .put(
                key,
                STAMP,
                Bytes::from(vec![0; 10_000]),
                Duration::from_secs(60),
            )
            .await;
        let looked = cache.get(key, Days::Any).await;
        assert_eq!(looked.answer, None, "larger than an eighth");
    }
}
