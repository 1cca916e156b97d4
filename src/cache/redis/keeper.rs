//! Whether Redis is used: one task owns connecting, and is the circuit breaker's other half. A question never waits for a connection and never
//! tries out a broken one: it finds a link that works, or none.
//!
//! ```text
//!            probe answered within the budget,
//!            and raises made up for
//!   open ─────────────────────────────────────▶ closed
//!    ▲  └─ else again, after a wait that doubles   │
//!    └─────────────────────────────────────────────┘
//!      a connection lost, or failures outweigh successes
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use redis::{ErrorKind, RedisError, RedisResult, ServerErrorKind, Value};
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::cache::CacheStats;
use crate::cache::redis::RedisOptions;
use crate::cache::redis::link::Link;
use crate::cache::redis::marks::{Marks, Raises};
use crate::common::metrics::Metrics;

/// One failure weighs as much as so many successes, so that a cluster of which a part fails is found out as well.
const FAILURE_WEIGHT: u32 = 5;
/// Three failures in a row open the breaker.
const SCORE_MAX: u32 = 3 * FAILURE_WEIGHT;
/// A link that held this long is forgiven its past: the wait starts small again.
const HEALTHY: Duration = Duration::from_secs(30);
const RECONNECT_MIN: Duration = Duration::from_millis(100);
/// Raises that failed are tried again this often.
const RAISE_INTERVAL: Duration = Duration::from_secs(1);
/// Every so many of these the figures are asked for.
const TICKS_BETWEEN_STATS: u32 = 10;

pub struct Shared {
    pub options: RedisOptions,
    pub metrics: Arc<Metrics>,
    pub marks: Marks,
    link: RwLock<Option<Link>>,
    health: Mutex<Health>,
    broken: Notify,
    raises: Mutex<Raises>,
    stats: Mutex<CacheStats>,
}

#[derive(Default)]
struct Health {
    score: u32,
    /// Why there is no link.
    problem: Option<String>,
}

impl Shared {
    pub fn new(options: RedisOptions, metrics: Arc<Metrics>) -> Self {
        // Until the first connection.
        metrics.cache.remote.breaker_open.set(1);
        Self {
            marks: Marks::new(&options.prefix),
            options,
            metrics,
            link: RwLock::new(None),
            health: Mutex::default(),
            broken: Notify::new(),
            raises: Mutex::default(),
            stats: Mutex::default(),
        }
    }

    pub fn stats(&self) -> CacheStats {
        *self.stats.lock()
    }

    pub fn problem(&self) -> Option<String> {
        self.health.lock().problem.clone()
    }

    pub fn is_connected(&self) -> bool {
        self.link.read().is_some()
    }

    /// One call within the budget. `None`: there is no link, or the call failed, which has been taken note of.
    pub async fn call<T, F>(&self, kind: &'static str, work: impl FnOnce(Link) -> F) -> Option<T>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let link = self.link.read().clone();
        let Some(link) = link else {
            self.metrics.cache.remote.skipped_calls.inc();
            return None;
        };
        let is_cluster = link.is_cluster();
        let started = Instant::now();
        let done = timeout(self.options.budget, work(link)).await;
        let remote = &self.metrics.cache.remote;
        remote.observe_call(kind, started.elapsed());
        match done {
            Ok(Ok(value)) => {
                let mut health = self.health.lock();
                health.score = health.score.saturating_sub(1);
                Some(value)
            }
            Ok(Err(error)) => {
                self.note_error(&error, is_cluster);
                None
            }
            Err(_) => {
                remote.count_error("timeout");
                self.note_failure(FAILURE_WEIGHT, &self.too_slow());
                None
            }
        }
    }

    fn too_slow(&self) -> String {
        let budget_ms = self.options.budget.as_millis();
        format!("Redis took longer than {budget_ms} ms (`cache.redis_budget_ms`)")
    }

    fn note_error(&self, error: &RedisError, is_cluster: bool) {
        let remote = &self.metrics.cache.remote;
        // Its memory is full and it may throw nothing away: what is there can be read all the same.
        if is_out_of_memory(error) {
            remote.count_error("out_of_memory");
            return;
        }
        let (reason, weight) = match error.kind() {
            // A master that has become a replica.
            ErrorKind::Server(ServerErrorKind::ReadOnly) => ("server", SCORE_MAX),
            ErrorKind::Server(_) | ErrorKind::Extension => ("server", FAILURE_WEIGHT),
            // A cluster's client replaces connections of single nodes by itself.
            _ if is_cluster => ("connection", FAILURE_WEIGHT),
            _ => ("connection", SCORE_MAX),
        };
        remote.count_error(reason);
        self.note_failure(weight, &error.to_string());
    }

    fn note_failure(&self, weight: u32, problem: &str) {
        let mut health = self.health.lock();
        health.score = health.score.saturating_add(weight);
        if health.score < SCORE_MAX {
            return;
        }
        drop(health);
        if self.link.write().take().is_some() {
            self.open(problem);
            self.broken.notify_one();
        }
    }

    /// Tells once that Redis is not used.
    fn open(&self, problem: &str) {
        self.metrics.cache.remote.breaker_open.set(1);
        let text = format!("the cache in Redis is not used: {problem}");
        let before = self.health.lock().problem.replace(text);
        if before.is_none() {
            tracing::warn!(
                problem,
                "the cache in Redis is not used until it works again; answers are right without it"
            );
        }
    }

    /// Takes days on; they are told to Redis now or later.
    pub async fn raise(&self, days: &[i64]) {
        self.raises.lock().add(days);
        self.call("raise", |link| self.send_raises(link)).await;
        self.show_pending();
    }

    async fn send_raises(&self, mut link: Link) -> RedisResult<()> {
        // Whatever happens to this call, nothing is forgotten.
        let mut taken = Taken {
            raises: std::mem::take(&mut *self.raises.lock()),
            home: &self.raises,
        };
        if !taken.raises.is_empty() {
            self.marks.forget(&mut link, &taken.raises).await?;
            taken.raises = Raises::default();
        }
        Ok(())
    }

    fn show_pending(&self) {
        let count = self.raises.lock().count();
        let gauge = &self.metrics.cache.remote.pending_raises;
        gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// The task.
    pub async fn keep(self: Arc<Self>, stop: CancellationToken) {
        let work = async {
            let mut delay = RECONNECT_MIN;
            loop {
                match self.connect().await {
                    Ok(()) => {
                        let since = Instant::now();
                        self.watch().await;
                        if HEALTHY < since.elapsed() {
                            delay = RECONNECT_MIN;
                        }
                    }
                    Err(problem) => self.open(&problem),
                }
                // Several processes should not come back at the same moment.
                let jitter = rand::random_range(0.75..1.25);
                tokio::time::sleep(delay.mul_f64(jitter)).await;
                delay = (delay * 2).min(self.options.reconnect_max);
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = work => {}
        }
    }

    async fn connect(&self) -> Result<(), String> {
        let limit = self.options.connect_timeout;
        let link = timeout(limit, Link::connect(&self.options))
            .await
            .map_err(|_| format!("no connection after {} ms", limit.as_millis()))?
            .map_err(|error| error.to_string())?;
        timeout(self.options.budget, self.marks.probe(link.clone()))
            .await
            .map_err(|_| self.too_slow())?
            .map_err(|error| error.to_string())?;
        loop {
            // Before anything is read: what other processes keep is outdated by what this one could not say.
            timeout(self.options.budget, self.send_raises(link.clone()))
                .await
                .map_err(|_| self.too_slow())?
                .map_err(|error| error.to_string())?;
            let raises = self.raises.lock();
            if raises.is_empty() {
                *self.health.lock() = Health::default();
                *self.link.write() = Some(link);
                break;
            }
        }
        self.show_pending();
        self.metrics.cache.remote.breaker_open.set(0);
        tracing::info!("the cache in Redis is used");
        Ok(())
    }

    /// Until the link is broken.
    async fn watch(&self) {
        let mut ticks = 0;
        loop {
            if ticks % TICKS_BETWEEN_STATS == 0 {
                self.refresh_stats().await;
            }
            ticks += 1;
            tokio::select! {
                () = self.broken.notified() => return,
                () = tokio::time::sleep(RAISE_INTERVAL) => {}
            }
            if !self.raises.lock().is_empty() {
                self.raise(&[]).await;
            }
        }
    }

    /// Figures for people: a failure is no reason to give up the link.
    async fn refresh_stats(&self) {
        let link = self.link.read().clone();
        let Some(mut link) = link else { return };
        let ask = async {
            let entries: u64 = redis::cmd("DBSIZE").query_async(&mut link).await?;
            let mut command = redis::cmd("INFO");
            let info: Value = command.arg("memory").query_async(&mut link).await?;
            RedisResult::Ok((entries, info))
        };
        if let Ok(Ok((entries, info))) = timeout(Duration::from_secs(1), ask).await {
            let mut stats = CacheStats {
                entries,
                ..CacheStats::default()
            };
            sum_memory(&info, &mut stats);
            *self.stats.lock() = stats;
        }
    }
}

/// Raises being sent: they go back when this is dropped before they have arrived.
struct Taken<'a> {
    raises: Raises,
    home: &'a Mutex<Raises>,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.home.lock().merge(&self.raises);
    }
}

pub fn is_out_of_memory(error: &RedisError) -> bool {
    error.code() == Some("OOM")
}

/// Adds what each server of the answer says.
fn sum_memory(info: &Value, stats: &mut CacheStats) {
    let mut add_text = |text: &str| {
        for line in text.lines() {
            match line.trim_end().split_once(':') {
                Some(("used_memory", bytes)) => stats.size_bytes += bytes.parse().unwrap_or(0),
                Some(("maxmemory", bytes)) => stats.size_bytes_max += bytes.parse().unwrap_or(0),
                _ => {}
            }
        }
    };
    match info {
        Value::BulkString(bytes) => add_text(&String::from_utf8_lossy(bytes)),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => add_text(text),
        Value::Map(pairs) => pairs.iter().for_each(|(_, value)| sum_memory(value, stats)),
        Value::Array(values) => values.iter().for_each(|value| sum_memory(value, stats)),
        _ => {}
    }
}
