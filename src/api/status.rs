//! How the process is: `/status`, `/metrics`, `/healthz`, `/readyz`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde::Serialize;

use crate::api::ApiState;
use crate::common::error::{Error, Result};
use crate::common::http::{Params, bytes_response, json_response};
use crate::common::metrics;
use crate::queue::Backlog;
use crate::record::{Checkpoint, timestamp};
use crate::store::Usage;

/// What `serve` knows about the process and its parts.
#[derive(Clone, Debug)]
pub struct Identity {
    pub version: &'static str,
    pub started: Instant,
    pub started_ns: i64,
    pub roles: Vec<&'static str>,
    pub queue_kind: &'static str,
    pub store_kind: &'static str,
    pub cache_kind: &'static str,
    pub data_dir: Option<String>,
    /// (part, bytes that it may take).
    pub memory_budget: Vec<(&'static str, u64)>,
}

#[derive(Serialize)]
struct Status {
    version: &'static str,
    ready: bool,
    started_at: String,
    uptime_s: u64,
    roles: Vec<&'static str>,
    data_dir: Option<String>,
    queue: QueueStatus,
    indexer: IndexerStatus,
    store: StoreStatus,
    cache: CacheStatus,
    memory: MemoryStatus,
    /// Reasons why something works in a reduced way; empty when all is well.
    degraded: Vec<String>,
}

#[derive(Serialize)]
struct QueueStatus {
    kind: &'static str,
    durability: &'static str,
    size_bytes: u64,
    size_bytes_max: u64,
    end: BTreeMap<u32, u64>,
    released: BTreeMap<u32, u64>,
    fault: Option<String>,
}

#[derive(Serialize)]
struct IndexerStatus {
    lag_entries: u64,
    undurable_entries: u64,
}

#[derive(Serialize)]
struct StoreStatus {
    kind: &'static str,
    records: u64,
    dead_letters: u64,
    segments: u64,
    disk_bytes: u64,
    head_records: u64,
    head_bytes: u64,
    oldest: Option<String>,
    newest: Option<String>,
}

#[derive(Serialize)]
struct CacheStatus {
    kind: &'static str,
    entries: u64,
    size_bytes: u64,
    size_bytes_max: u64,
    hits: u64,
    misses: u64,
}

#[derive(Serialize)]
struct MemoryStatus {
    resident_bytes: u64,
    /// The sum of the parts' limits.
    budget_bytes: u64,
    parts: BTreeMap<&'static str, u64>,
}

pub async fn status(State(state): State<Arc<ApiState>>, uri: Uri) -> Result<Response> {
    Params::parse(&uri, &[])?;
    let usage = state.store.usage().await?;
    let backlog = state.queue.backlog();
    let cache = state.searcher.cache_stats();
    let mut degraded = usage.degraded.clone();
    degraded.extend((state.degraded)());
    degraded.extend(state.searcher.cache_problem());
    degraded.extend(backlog.degraded.iter().cloned());
    degraded.extend(
        backlog
            .fault
            .iter()
            .map(|fault| format!("the queue refuses everything: {fault}")),
    );
    let time = |ns: i64| timestamp::format(ns, 9);
    let identity = &state.identity;
    let status = Status {
        version: identity.version,
        ready: not_ready(&state, &backlog).is_none(),
        started_at: timestamp::format(identity.started_ns, 3),
        uptime_s: identity.started.elapsed().as_secs(),
        roles: identity.roles.clone(),
        data_dir: identity.data_dir.clone(),
        indexer: IndexerStatus {
            lag_entries: distance(&backlog.end, &indexed(&state, &backlog)),
            undurable_entries: distance(&backlog.end, &state.store.durable().borrow()),
        },
        queue: QueueStatus {
            kind: identity.queue_kind,
            durability: backlog.durability,
            size_bytes: backlog.size_bytes,
            size_bytes_max: backlog.size_bytes_max,
            end: backlog.end.0,
            released: backlog.released.0,
            fault: backlog.fault,
        },
        store: StoreStatus {
            kind: identity.store_kind,
            records: usage.records,
            dead_letters: usage.dead_letters,
            segments: usage.segments,
            disk_bytes: usage.disk_bytes,
            head_records: usage.head_records,
            head_bytes: usage.head_bytes,
            oldest: usage.oldest_ns.map(time),
            newest: usage.newest_ns.map(time),
        },
        cache: CacheStatus {
            kind: identity.cache_kind,
            entries: cache.entries,
            size_bytes: cache.size_bytes,
            size_bytes_max: cache.size_bytes_max,
            hits: state.metrics.cache.hits.get(),
            misses: state.metrics.cache.misses.get(),
        },
        memory: MemoryStatus {
            resident_bytes: resident_bytes().unwrap_or(0),
            budget_bytes: identity.memory_budget.iter().map(|(_, bytes)| bytes).sum(),
            parts: identity.memory_budget.iter().copied().collect(),
        },
        degraded,
    };
    json_response(StatusCode::OK, &status)
}

pub async fn metrics(State(state): State<Arc<ApiState>>, uri: Uri) -> Result<Response> {
    Params::parse(&uri, &[])?;
    let usage = state.store.usage().await?;
    set_gauges(&state, &usage, &state.queue.backlog());
    Ok(bytes_response(
        StatusCode::OK,
        metrics::CONTENT_TYPE,
        state.metrics.to_text(),
    ))
}

fn set_gauges(state: &ApiState, usage: &Usage, backlog: &Backlog) {
    let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let m = &state.metrics;
    m.queue.size_bytes.set(gauge(backlog.size_bytes));
    m.queue.size_bytes_max.set(gauge(backlog.size_bytes_max));
    let indexed = indexed(state, backlog);
    let lag = distance(&backlog.end, &indexed);
    m.indexer.lag_entries.set(gauge(lag));
    m.indexer.undurable_entries.set(gauge(distance(
        &backlog.end,
        &state.store.durable().borrow(),
    )));
    for (partition, end) in &backlog.end.0 {
        let lag = end.saturating_sub(indexed.next_seq(*partition));
        m.indexer.set_partition_lag(*partition, gauge(lag));
    }
    m.store.records.set(gauge(usage.records));
    m.store.dead_letters.set(gauge(usage.dead_letters));
    m.store.segments.set(gauge(usage.segments));
    m.store.disk_bytes.set(gauge(usage.disk_bytes));
    m.store.head_records.set(gauge(usage.head_records));
    m.store.head_bytes.set(gauge(usage.head_bytes));
    m.store
        .degraded_reasons
        .set(gauge(usage.degraded.len() as u64));
    let cache = state.searcher.cache_stats();
    m.cache.entries.set(gauge(cache.entries));
    m.cache.size_bytes.set(gauge(cache.size_bytes));
    m.process
        .resident_bytes
        .set(gauge(resident_bytes().unwrap_or(0)));
    m.process.cpu_seconds.set(cpu_seconds().unwrap_or(0.0));
    m.process
        .uptime_seconds
        .set(state.identity.started.elapsed().as_secs_f64());
}

/// The process answers: it lives.
pub async fn healthz(uri: Uri) -> Result<Response> {
    Params::parse(&uri, &[])?;
    json_response(StatusCode::OK, &serde_json::json!({"status": "ok"}))
}

/// Whether new requests should be sent here.
pub async fn readyz(State(state): State<Arc<ApiState>>, uri: Uri) -> Result<Response> {
    Params::parse(&uri, &[])?;
    match not_ready(&state, &state.queue.backlog()) {
        None => json_response(StatusCode::OK, &serde_json::json!({"status": "ready"})),
        Some(reason) => Err(Error::unavailable("not_ready", reason)),
    }
}

fn not_ready(state: &ApiState, backlog: &Backlog) -> Option<String> {
    if state.leaving.is_cancelled() {
        return Some("the server is stopping".to_owned());
    }
    let fault = backlog.fault.as_ref()?;
    Some(format!("the queue refuses everything: {fault}"))
}

/// Entries between two marks.
/// What is searchable, and what an indexer has passed over because it holds no record.
fn indexed(state: &ApiState, backlog: &Backlog) -> Checkpoint {
    let mut indexed = state.store.searchable().borrow().clone();
    indexed.advance_all(&backlog.released);
    indexed
}

fn distance(end: &Checkpoint, mark: &Checkpoint) -> u64 {
    end.0
        .iter()
        .map(|(partition, seq)| seq.saturating_sub(mark.next_seq(*partition)))
        .sum()
}

/// Linux only; elsewhere unknown.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kibibytes * 1024)
}

/// User and system time. Linux counts it in hundredths of a second.
fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field, the name, may hold blanks: count from its closing bracket.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut times = fields.split(' ').skip(11);
    let user: f64 = times.next()?.parse().ok()?;
    let system: f64 = times.next()?.parse().ok()?;
    Some((user + system) / 100.0)
}
