//! The cache in Redis: one for any number of processes.
//!
//! Redis may be slow, down, full, restarted empty, or hold somebody else's bytes: any of it costs time, at most `budget` for each call and
//! nothing while the breaker is open, and never changes an answer. `keeper` owns the connection and the breaker, `marks` the versions of the days,
//! `entry` the bytes of an answer, `link` the ways of connecting.
//!
//! Limits: an answer larger than `value_bytes_max` is not kept; everything is kept under keys that begin with `prefix`, with a time to live.

mod entry;
mod keeper;
mod link;
mod marks;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::cache::redis::entry::Decoded;
use crate::cache::redis::keeper::Shared;
use crate::cache::redis::marks::Marks;
use crate::cache::{Cache, CacheKey, CacheStats, Days, Looked, Stamp};
use crate::common::metrics::Metrics;

pub use crate::cache::redis::link::RedisTopology;

#[derive(Clone)]
pub struct RedisOptions {
    pub topology: RedisTopology,
    pub is_tls: bool,
    pub addresses: Vec<(String, u16)>,
    pub user: Option<String>,
    pub password: Option<String>,
    pub database: i64,
    /// Login at the sentinels, if they want one.
    pub sentinel_user: Option<String>,
    pub sentinel_password: Option<String>,
    /// The authority that signed the servers' certificates, as PEM; `None`: those that the system trusts.
    pub ca_pem: Option<Vec<u8>>,
    /// All keys begin with it. Installations that share a Redis need one each.
    pub prefix: String,
    /// A call that takes longer is given up, and the question goes to the store.
    pub budget: Duration,
    pub connect_timeout: Duration,
    /// The longest wait between two attempts to connect.
    pub reconnect_max: Duration,
    /// Larger answers are not kept.
    pub value_bytes_max: usize,
}

impl Default for RedisOptions {
    fn default() -> Self {
        Self {
            topology: RedisTopology::Single,
            is_tls: false,
            addresses: vec![("127.0.0.1".to_owned(), 6379)],
            user: None,
            password: None,
            database: 0,
            sentinel_user: None,
            sentinel_password: None,
            ca_pem: None,
            prefix: "logyard".to_owned(),
            budget: Duration::from_millis(50),
            connect_timeout: Duration::from_secs(2),
            reconnect_max: Duration::from_secs(10),
            value_bytes_max: 1 << 20,
        }
    }
}

/// Without the secrets.
impl fmt::Debug for RedisOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisOptions")
            .field("topology", &self.topology)
            .field("is_tls", &self.is_tls)
            .field("addresses", &self.addresses)
            .field("user", &self.user)
            .field("has_password", &self.password.is_some())
            .field("database", &self.database)
            .field("sentinel_user", &self.sentinel_user)
            .field("has_sentinel_password", &self.sentinel_password.is_some())
            .field("has_ca", &self.ca_pem.is_some())
            .field("prefix", &self.prefix)
            .field("budget", &self.budget)
            .field("connect_timeout", &self.connect_timeout)
            .field("reconnect_max", &self.reconnect_max)
            .field("value_bytes_max", &self.value_bytes_max)
            .finish()
    }
}

pub struct RedisCache {
    shared: Arc<Shared>,
    /// Ends the keeper's task.
    _stop: DropGuard,
}

impl RedisCache {
    /// Starts connecting on the current runtime, and returns at once.
    pub fn start(options: RedisOptions, metrics: Arc<Metrics>) -> Self {
        let shared = Arc::new(Shared::new(options, metrics));
        let stop = CancellationToken::new();
        tokio::spawn(shared.clone().keep(stop.clone()));
        Self {
            shared,
            _stop: stop.drop_guard(),
        }
    }

    pub fn is_connected(&self) -> bool {
        self.shared.is_connected()
    }

    fn key_of(&self, key: CacheKey) -> String {
        format!(
            "{}:answer:{:032x}",
            self.shared.options.prefix, key.question
        )
    }
}

#[async_trait]
impl Cache for RedisCache {
    async fn get(&self, key: CacheKey, days: Days) -> Looked {
        let shared = &self.shared;
        let marks = shared.marks.keys_of(days);
        let size_max = shared.options.value_bytes_max + entry::OVERHEAD_BYTES;
        let value_key = self.key_of(key);
        let found = shared
            .call("get", |link| Marks::look(link, marks, value_key, size_max))
            .await;
        let Some(found) = found else {
            return Looked {
                answer: None,
                stamp: Stamp(None),
            };
        };
        let mut answer = None;
        let mut is_garbage = found.value.is_none();
        if let (Some(value), Some(stamp)) = (found.value, found.stamp.0)
            && !value.is_empty()
        {
            match entry::decode(key, stamp, value) {
                Decoded::Answer(bytes) => answer = Some(bytes),
                Decoded::Outdated => {}
                Decoded::Garbage => is_garbage = true,
            }
        }
        if is_garbage {
            shared.metrics.cache.remote.garbage_values.inc();
        }
        Looked {
            answer,
            stamp: found.stamp,
        }
    }

    async fn put(&self, key: CacheKey, stamp: Stamp, answer: Bytes, time_to_live: Duration) {
        let Some(stamp) = stamp.0 else { return };
        if self.shared.options.value_bytes_max < answer.len() {
            return;
        }
        let life_ms = u64::try_from(time_to_live.as_millis()).unwrap_or(u64::MAX);
        let mut set = redis::cmd("SET");
        set.arg(self.key_of(key))
            .arg(entry::encode(key, stamp, &answer))
            .arg("PX")
            .arg(life_ms.clamp(1, i64::MAX as u64));
        self.shared
            .call("put", |mut link| async move {
                set.query_async::<()>(&mut link).await
            })
            .await;
    }

    async fn raise(&self, days: &[i64]) {
        self.shared.raise(days).await;
    }

    fn heeds_raises(&self) -> bool {
        true
    }

    fn stats(&self) -> CacheStats {
        self.shared.stats()
    }

    fn problem(&self) -> Option<String> {
        self.shared.problem()
    }
}
