//! Logyard's own figures, as typed handles: one struct, made once in `serve`, handed to every part. Counters are raised where the
//! thing happens; gauges marked "at scrape" are set by `GET /metrics` from the parts themselves. Knows nothing of HTTP.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// The media type of [`Metrics::to_text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type FloatGauge = Gauge<f64, AtomicU64>;
type Label = [(&'static str, &'static str); 1];

/// Every figure of the process.
pub struct Metrics {
    registry: Registry,
    pub intake: IntakeMetrics,
    pub queue: QueueMetrics,
    pub indexer: IndexerMetrics,
    pub store: StoreMetrics,
    pub retention: RetentionMetrics,
    pub search: SearchMetrics,
    pub cache: CacheMetrics,
    pub http: HttpMetrics,
    pub process: ProcessMetrics,
}

/// What became of what was sent. Accepted and dead-lettered lines are durable, refused ones were never kept.
pub struct IntakeMetrics {
    pub accepted_lines: Counter,
    pub dead_lettered_lines: Counter,
    /// Lines of requests answered with an error, as far as they were counted before.
    pub refused_lines: Counter,
    /// Plain (decompressed) bytes of bodies that were accepted.
    pub accepted_bytes: Counter,
    /// Bytes as they came over the wire, of bodies that were accepted.
    pub received_bytes: Counter,
    /// Bytes of bodies that were refused, as far as they were read.
    pub refused_bytes: Counter,
    /// Requests answered from the idempotency window.
    pub replayed_requests: Counter,
}

pub struct QueueMetrics {
    /// From the call of `append` to its answer: the group commit's wait included.
    pub append_seconds: Histogram,
    pub sync_seconds: Histogram,
    pub appended_bytes: Counter,
    /// At scrape.
    pub size_bytes: Gauge,
    /// At scrape.
    pub size_bytes_max: Gauge,
}

pub struct IndexerMetrics {
    pub indexed_entries: Counter,
    pub write_seconds: Histogram,
    pub retries: Counter,
    /// At scrape: acknowledged entries that are not searchable yet.
    pub lag_entries: Gauge,
    /// At scrape: entries that the store would need the queue for after a crash.
    pub undurable_entries: Gauge,
    partition_lag_entries: Family<PartitionLabel, Gauge>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PartitionLabel {
    partition: u32,
}

/// At scrape, but for the histograms.
pub struct StoreMetrics {
    pub records: Gauge,
    pub dead_letters: Gauge,
    pub segments: Gauge,
    pub disk_bytes: Gauge,
    pub head_records: Gauge,
    pub head_bytes: Gauge,
    pub degraded_reasons: Gauge,
}

pub struct RetentionMetrics {
    pub dropped_records: Counter,
    pub dropped_bytes: Counter,
    pub runs: Counter,
    pub failures: Counter,
}

pub struct SearchMetrics {
    query_seconds: Family<Label, Histogram, fn() -> Histogram>,
    query_errors: Family<Label, Counter>,
    /// Questions that run or wait for their turn.
    pub in_flight: Gauge,
}

pub struct CacheMetrics {
    pub hits: Counter,
    pub misses: Counter,
    pub bypasses: Counter,
    /// Questions that waited for an equal one in flight.
    pub coalesced: Counter,
    /// At scrape.
    pub entries: Gauge,
    /// At scrape.
    pub size_bytes: Gauge,
    pub remote: RemoteCacheMetrics,
}

/// Of a cache that is another process.
pub struct RemoteCacheMetrics {
    call_seconds: Family<Label, Histogram, fn() -> Histogram>,
    call_errors: Family<Label, Counter>,
    /// Calls left out because the cache is not used at the moment.
    pub skipped_calls: Counter,
    /// Values under our keys that are not ours, or damaged.
    pub garbage_values: Counter,
    /// 1 while the cache is not used.
    pub breaker_open: Gauge,
    /// Days whose raise has not reached the cache yet.
    pub pending_raises: Gauge,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct HttpLabels {
    route: Arc<str>,
    method: &'static str,
    status: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RouteLabel {
    route: Arc<str>,
}

pub struct HttpMetrics {
    requests: Family<HttpLabels, Counter>,
    request_seconds: Family<RouteLabel, Histogram, fn() -> Histogram>,
    pub connections: Gauge,
    pub connections_accepted: Counter,
    refused_connections: Family<Label, Counter>,
    pub panics: Counter,
}

pub struct ProcessMetrics {
    /// At scrape.
    pub resident_bytes: Gauge,
    /// At scrape.
    pub cpu_seconds: FloatGauge,
    /// At scrape.
    pub uptime_seconds: FloatGauge,
}

impl Metrics {
    #[expect(
        clippy::new_without_default,
        reason = "made once, in `serve`: a default would hide a second registry"
    )]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("logyard");
        let r = &mut registry;
        Self {
            intake: IntakeMetrics::new(r),
            queue: QueueMetrics::new(r),
            indexer: IndexerMetrics::new(r),
            store: StoreMetrics::new(r),
            retention: RetentionMetrics::new(r),
            search: SearchMetrics::new(r),
            cache: CacheMetrics::new(r),
            http: HttpMetrics::new(r),
            process: ProcessMetrics::new(r),
            registry,
        }
    }

    /// OpenMetrics text, which Prometheus reads.
    pub fn to_text(&self) -> String {
        let mut text = String::with_capacity(16 << 10);
        encode(&mut text, &self.registry).expect("writing to a string cannot fail");
        text
    }
}

impl IntakeMetrics {
    fn new(r: &mut Registry) -> Self {
        let lines = Family::<Label, Counter>::default();
        let bytes = Family::<Label, Counter>::default();
        r.register(
            "intake_lines",
            "Lines sent, by what became of them",
            lines.clone(),
        );
        r.register(
            "intake_bytes",
            "Bytes of bodies sent, by what became of them",
            bytes.clone(),
        );
        Self {
            accepted_lines: lines.get_or_create_owned(&[("outcome", "accepted")]),
            dead_lettered_lines: lines.get_or_create_owned(&[("outcome", "dead_lettered")]),
            refused_lines: lines.get_or_create_owned(&[("outcome", "refused")]),
            accepted_bytes: bytes.get_or_create_owned(&[("outcome", "accepted")]),
            received_bytes: bytes.get_or_create_owned(&[("outcome", "received")]),
            refused_bytes: bytes.get_or_create_owned(&[("outcome", "refused")]),
            replayed_requests: counter(
                r,
                "intake_replayed_requests",
                "Requests answered from the idempotency window",
            ),
        }
    }
}

impl QueueMetrics {
    fn new(r: &mut Registry) -> Self {
        Self {
            append_seconds: seconds(r, "queue_append", "From append to its durable answer"),
            sync_seconds: seconds(r, "queue_sync", "One group's write and sync"),
            appended_bytes: counter(r, "queue_appended_bytes", "Bytes appended"),
            size_bytes: gauge(r, "queue_size_bytes", "Bytes that the queue holds"),
            size_bytes_max: gauge(r, "queue_size_bytes_max", "Bytes that the queue may hold"),
        }
    }
}

impl IndexerMetrics {
    /// At scrape: entries of one partition of the queue that are not searchable yet.
    pub fn set_partition_lag(&self, partition: u32, entries: i64) {
        let label = PartitionLabel { partition };
        self.partition_lag_entries
            .get_or_create(&label)
            .set(entries);
    }

    fn new(r: &mut Registry) -> Self {
        let partition_lag_entries = Family::<PartitionLabel, Gauge>::default();
        r.register(
            "indexer_partition_lag_entries",
            "Entries not searchable yet, by the queue's partition; from 2^31 up: dead letters",
            partition_lag_entries.clone(),
        );
        Self {
            partition_lag_entries,
            indexed_entries: counter(r, "indexer_entries", "Entries handed to the store"),
            write_seconds: seconds(r, "indexer_write", "One write into the store"),
            retries: counter(r, "indexer_retries", "Writes that were tried again"),
            lag_entries: gauge(
                r,
                "indexer_lag_entries",
                "Acknowledged entries not searchable yet",
            ),
            undurable_entries: gauge(
                r,
                "indexer_undurable_entries",
                "Entries that a crash would replay from the queue",
            ),
        }
    }
}

impl StoreMetrics {
    fn new(r: &mut Registry) -> Self {
        Self {
            records: gauge(r, "store_records", "Records stored"),
            dead_letters: gauge(r, "store_dead_letters", "Dead letters kept"),
            segments: gauge(r, "store_segments", "Segments on disk"),
            disk_bytes: gauge(r, "store_disk_bytes", "Bytes on disk, indexes included"),
            head_records: gauge(r, "store_head_records", "Records searchable in memory only"),
            head_bytes: gauge(
                r,
                "store_head_bytes",
                "Memory of the records searchable in memory only",
            ),
            degraded_reasons: gauge(
                r,
                "store_degraded_reasons",
                "Reasons why the store works in a reduced way",
            ),
        }
    }
}

impl RetentionMetrics {
    fn new(r: &mut Registry) -> Self {
        Self {
            dropped_records: counter(
                r,
                "retention_dropped_records",
                "Records dropped by age or size",
            ),
            dropped_bytes: counter(r, "retention_dropped_bytes", "Bytes dropped by age or size"),
            runs: counter(r, "retention_runs", "Runs of the cleaner"),
            failures: counter(r, "retention_failures", "Runs of the cleaner that failed"),
        }
    }
}

impl SearchMetrics {
    fn new(r: &mut Registry) -> Self {
        let query_seconds = Family::new_with_constructor(latency as fn() -> Histogram);
        let query_errors = Family::default();
        r.register_with_unit(
            "query",
            "A question's time, by its kind",
            Unit::Seconds,
            query_seconds.clone(),
        );
        r.register(
            "query_errors",
            "Questions that failed, by code",
            query_errors.clone(),
        );
        Self {
            query_seconds,
            query_errors,
            in_flight: gauge(
                r,
                "queries_in_flight",
                "Questions that run or wait for their turn",
            ),
        }
    }

    /// `kind` is one of a few fixed names: `search`, `histogram`, …
    pub fn observe_query(&self, kind: &'static str, took: Duration) {
        self.query_seconds
            .get_or_create(&[("kind", kind)])
            .observe(took.as_secs_f64());
    }

    /// `code` is the error's code.
    pub fn count_error(&self, code: &'static str) {
        self.query_errors.get_or_create(&[("code", code)]).inc();
    }
}

impl CacheMetrics {
    fn new(r: &mut Registry) -> Self {
        let requests = Family::<Label, Counter>::default();
        r.register(
            "cache_requests",
            "Look-ups in the cache, by outcome",
            requests.clone(),
        );
        Self {
            hits: requests.get_or_create_owned(&[("outcome", "hit")]),
            misses: requests.get_or_create_owned(&[("outcome", "miss")]),
            bypasses: requests.get_or_create_owned(&[("outcome", "bypass")]),
            coalesced: counter(
                r,
                "cache_coalesced_requests",
                "Questions that waited for an equal one in flight",
            ),
            entries: gauge(r, "cache_entries", "Answers in the cache"),
            size_bytes: gauge(r, "cache_size_bytes", "Bytes in the cache"),
            remote: RemoteCacheMetrics::new(r),
        }
    }
}

impl RemoteCacheMetrics {
    fn new(r: &mut Registry) -> Self {
        let call_seconds = Family::new_with_constructor(latency as fn() -> Histogram);
        let call_errors = Family::default();
        r.register_with_unit(
            "cache_call",
            "A call of the cache outside the process, by kind",
            Unit::Seconds,
            call_seconds.clone(),
        );
        r.register(
            "cache_call_errors",
            "Calls of the cache outside the process that failed, by reason",
            call_errors.clone(),
        );
        Self {
            call_seconds,
            call_errors,
            skipped_calls: counter(
                r,
                "cache_skipped_calls",
                "Calls left out while the cache outside the process is not used",
            ),
            garbage_values: counter(
                r,
                "cache_garbage_values",
                "Values in the cache that are not Logyard's, or damaged",
            ),
            breaker_open: gauge(
                r,
                "cache_breaker_open",
                "1 while the cache outside the process is not used",
            ),
            pending_raises: gauge(
                r,
                "cache_pending_raises",
                "Days written whose old answers the cache still has to be told of",
            ),
        }
    }

    /// `kind` is one of a few fixed names.
    pub fn observe_call(&self, kind: &'static str, took: Duration) {
        self.call_seconds
            .get_or_create(&[("kind", kind)])
            .observe(took.as_secs_f64());
    }

    /// `reason` is one of a few fixed names.
    pub fn count_error(&self, reason: &'static str) {
        self.call_errors.get_or_create(&[("reason", reason)]).inc();
    }
}

impl HttpMetrics {
    fn new(r: &mut Registry) -> Self {
        let requests = Family::default();
        let request_seconds = Family::new_with_constructor(latency as fn() -> Histogram);
        let refused_connections = Family::default();
        r.register("http_requests", "Requests answered", requests.clone());
        r.register_with_unit(
            "http_request",
            "Until the answer's head, by route",
            Unit::Seconds,
            request_seconds.clone(),
        );
        r.register(
            "http_refused_connections",
            "Connections closed at once, by reason",
            refused_connections.clone(),
        );
        Self {
            requests,
            request_seconds,
            refused_connections,
            connections: gauge(r, "http_connections", "Open connections"),
            connections_accepted: counter(r, "http_accepted_connections", "Connections accepted"),
            panics: counter(r, "http_panics", "Requests that ended in a panic"),
        }
    }

    /// `route` is the route's pattern, never the path itself.
    pub fn observe_request(
        &self,
        route: &Arc<str>,
        method: &'static str,
        status: u16,
        took: Duration,
    ) {
        let labels = HttpLabels {
            route: route.clone(),
            method,
            status,
        };
        self.requests.get_or_create(&labels).inc();
        let label = RouteLabel {
            route: route.clone(),
        };
        self.request_seconds
            .get_or_create(&label)
            .observe(took.as_secs_f64());
    }

    /// `reason` is one of a few fixed names.
    pub fn count_refused_connection(&self, reason: &'static str) {
        self.refused_connections
            .get_or_create(&[("reason", reason)])
            .inc();
    }
}

impl ProcessMetrics {
    fn new(r: &mut Registry) -> Self {
        let cpu_seconds = FloatGauge::default();
        let uptime_seconds = FloatGauge::default();
        r.register(
            "process_cpu_seconds",
            "User and system time used",
            cpu_seconds.clone(),
        );
        r.register(
            "process_uptime_seconds",
            "Since the start",
            uptime_seconds.clone(),
        );
        Self {
            resident_bytes: gauge(r, "process_resident_bytes", "Resident memory"),
            cpu_seconds,
            uptime_seconds,
        }
    }
}

fn counter(r: &mut Registry, name: &str, help: &str) -> Counter {
    let counter = Counter::default();
    r.register(name, help, counter.clone());
    counter
}

fn gauge(r: &mut Registry, name: &str, help: &str) -> Gauge {
    let gauge = Gauge::default();
    r.register(name, help, gauge.clone());
    gauge
}

fn seconds(r: &mut Registry, name: &str, help: &str) -> Histogram {
    let histogram = latency();
    r.register_with_unit(name, help, Unit::Seconds, histogram.clone());
    histogram
}

/// 100 µs to 26 s, by factors of two.
fn latency() -> Histogram {
    Histogram::new(exponential_buckets(0.0001, 2.0, 19))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_is_in_the_text_under_its_name_and_unit() {
        let metrics = Metrics::new();
        metrics.intake.accepted_lines.inc_by(3);
        metrics.queue.size_bytes.set(7);
        metrics
            .search
            .observe_query("search", Duration::from_millis(3));
        metrics.search.count_error("invalid_query");
        metrics.indexer.set_partition_lag(3, 12);
        metrics
            .http
            .observe_request(&"/logs".into(), "GET", 200, Duration::from_millis(1));
        metrics
            .http
            .count_refused_connection("too_many_connections");
        let text = metrics.to_text();
        for line in [
            "logyard_intake_lines_total{outcome=\"accepted\"} 3",
            "logyard_intake_lines_total{outcome=\"refused\"} 0",
            "logyard_queue_size_bytes 7",
            "logyard_indexer_partition_lag_entries{partition=\"3\"} 12",
            "logyard_query_seconds_count{kind=\"search\"} 1",
            "logyard_query_errors_total{code=\"invalid_query\"} 1",
            "logyard_http_requests_total{route=\"/logs\",method=\"GET\",status=\"200\"} 1",
            "logyard_http_request_seconds_count{route=\"/logs\"} 1",
            "logyard_http_refused_connections_total{reason=\"too_many_connections\"} 1",
            "# EOF",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }
}
