//! No cache: every question goes to the store.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::cache::{Cache, CacheKey, CacheStats, Days, Looked, Stamp};

pub struct NoCache;

#[async_trait]
impl Cache for NoCache {
    async fn get(&self, _key: CacheKey, _days: Days) -> Looked {
        Looked {
            answer: None,
            stamp: Stamp(None),
        }
    }

    async fn put(&self, _key: CacheKey, _stamp: Stamp, _answer: Bytes, _time_to_live: Duration) {}

    async fn raise(&self, _days: &[i64]) {}

    fn heeds_raises(&self) -> bool {
        false
    }

    fn stats(&self) -> CacheStats {
        CacheStats::default()
    }
}
