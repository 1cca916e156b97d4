//! READ 3, a boundary: answers by question, for a while.
//!
//! **Contract**: a cache may forget at any time and may fail at any time; neither changes an answer, only its latency. The key holds the
//! version of the data that the answer is about, so a hit is never stale.

#[cfg(test)]
pub mod contract;
pub mod in_process;
pub mod off;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

pub use in_process::InProcessCache;
pub use off::NoCache;

/// What an answer is found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CacheKey {
    /// xxh3-128 of the normalised question and of the answer's format.
    pub question: u128,
    /// `Store::version` of the time range asked about.
    pub version: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    pub entries: u64,
    pub size_bytes: u64,
    pub size_bytes_max: u64,
}

#[async_trait]
pub trait Cache: Send + Sync + 'static {
    async fn get(&self, key: CacheKey) -> Option<Bytes>;

    async fn put(&self, key: CacheKey, answer: Bytes, time_to_live: Duration);

    fn stats(&self) -> CacheStats;
}
