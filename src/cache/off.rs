//! No cache: every question goes to the store.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::cache::{Cache, CacheKey, CacheStats};

pub struct NoCache;

#[async_trait]
impl Cache for NoCache {
    async fn get(&self, _key: CacheKey) -> Option<Bytes> {
        None
    }

    async fn put(&self, _key: CacheKey, _answer: Bytes, _time_to_live: Duration) {}

    fn stats(&self) -> CacheStats {
        CacheStats::default()
    }
}
