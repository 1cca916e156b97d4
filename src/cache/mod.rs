//! READ 3, a boundary: answers by question, for a while.
//!
//! **Contract**: a cache may forget at any time and may fail at any time; neither changes an answer, only its latency. The key holds the
//! version of the data that the answer is about, so a hit is never stale by what this process knows. Where processes share a cache, each write
//! is told to it as well: `raise` names the days written, and what was put under a stamp of such a day before is not found any more, by any process.
//!
//! The stamp comes from `get`, before the question is asked, so that no answer that lacks a write is kept as if it had it.

#[cfg(test)]
pub mod contract;
pub mod days;
pub mod in_process;
pub mod off;
pub mod redis;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

pub use self::redis::{RedisCache, RedisOptions, RedisTopology};
pub use days::{Days, day_of};
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

/// What was written to the days of a question before it was asked; `None`: the cache cannot tell, and keeps no answer to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stamp(pub Option<u128>);

/// What `get` found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Looked {
    pub answer: Option<Bytes>,
    /// For the `put` of this question's answer.
    pub stamp: Stamp,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    pub entries: u64,
    pub size_bytes: u64,
    /// 0: not known.
    pub size_bytes_max: u64,
}

#[async_trait]
pub trait Cache: Send + Sync + 'static {
    /// `days`: the UTC days that the question touches.
    async fn get(&self, key: CacheKey, days: Days) -> Looked;

    /// `stamp`: from the `get` that came before the question was asked.
    async fn put(&self, key: CacheKey, stamp: Stamp, answer: Bytes, time_to_live: Duration);

    /// Something was written to these UTC days (see [`day_of`]) and can be found by every process from now on. A raise that fails is kept and
    /// made up for.
    async fn raise(&self, days: &[i64]);

    /// False if only this process uses the cache: the versions in the keys say everything, and nobody needs to find out the days written.
    fn heeds_raises(&self) -> bool;

    fn stats(&self) -> CacheStats;

    /// Why the cache is not used at the moment, if so.
    fn problem(&self) -> Option<String> {
        None
    }
}
