//! The cleaner: applies the retention rules from time to time. Knows no store's way to delete.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio_util::sync::CancellationToken;

use crate::common::metrics::Metrics;
use crate::store::{RetentionRules, Store};

#[derive(Clone, Debug)]
pub struct RetentionOptions {
    pub interval: Duration,
    pub rules: RetentionRules,
}

impl Default for RetentionOptions {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(60),
            rules: RetentionRules::default(),
        }
    }
}

/// Cleans until `stop`. Without any rule there is nothing to do, and it returns at once.
pub async fn run(
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
    options: RetentionOptions,
    stop: CancellationToken,
) {
    if is_idle(&options.rules) {
        return;
    }
    loop {
        clean(&*store, &metrics, &options.rules).await;
        tokio::select! {
            () = tokio::time::sleep(options.interval) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// True if the rules keep everything for ever.
pub fn is_idle(rules: &RetentionRules) -> bool {
    rules.age_max.is_none()
        && rules.size_bytes_max.is_none()
        && rules.by_source.iter().all(|(_, age)| age.is_none())
}

async fn clean(store: &dyn Store, metrics: &Metrics, rules: &RetentionRules) {
    metrics.retention.runs.inc();
    match store.expire(rules.clone(), now_ns(), false).await {
        Ok(report) if report.records == 0 && report.bytes == 0 => {}
        Ok(report) => {
            metrics.retention.dropped_records.inc_by(report.records);
            metrics.retention.dropped_bytes.inc_by(report.bytes);
            tracing::info!(
                records = report.records,
                bytes = report.bytes,
                segments_dropped = report.segments_dropped,
                segments_rewritten = report.segments_rewritten,
                "dropped what the retention rules no longer keep"
            );
        }
        Err(e) => {
            metrics.retention.failures.inc();
            tracing::error!(error = ?e, "the retention rules could not be applied; the next round tries again");
        }
    }
}

/// Nanoseconds since 1970.
pub fn now_ns() -> i64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(now.as_nanos()).unwrap_or(i64::MAX)
}
