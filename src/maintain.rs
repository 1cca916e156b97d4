//! Work on a data folder that no server is using: `logyard clean`, `logyard verify` and the reading side of `logyard migrate`. Like `serve`, it
//! picks implementations.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::cache::NoCache;
use crate::common::data_dir::DataDir;
use crate::common::error::{Error, Result};
use crate::common::metrics::Metrics;
use crate::config::{Checked, StoreKind};
use crate::indexer::Indexer;
use crate::migrate::{self, MigrateArgs};
use crate::options;
use crate::retention;
use crate::serve;
use crate::store::{RetentionReport, Store, VerifyReport};

/// What a stopped server left in its queue is indexed within this time: it is bounded by the size of the queue.
const INDEXED_WITHIN: Duration = Duration::from_secs(3_600);

/// Opens the store, does `work` on it, closes it.
async fn with_store<T>(
    checked: &Checked,
    work: impl AsyncFnOnce(&dyn Store) -> Result<T>,
) -> Result<T> {
    if checked.store == StoreKind::Elasticsearch {
        // Nobody owns a cluster: this works beside running servers.
        return used(&*serve::open_store(checked, None).await?, work).await;
    }
    let Some(path) = checked
        .data_dir
        .as_deref()
        .filter(|_| checked.store == StoreKind::Embedded)
    else {
        let message = "only the embedded store has a folder to work on; use `--data-dir`, without `--in-memory`";
        return Err(Error::invalid("no_data_dir", message));
    };
    let folder = DataDir::open(path)?;
    let store = serve::open_store(checked, Some(folder.path())).await?;
    used(&*store, work).await
}

/// Does `work`, then closes.
async fn used<T>(store: &dyn Store, work: impl AsyncFnOnce(&dyn Store) -> Result<T>) -> Result<T> {
    let done = work(store).await;
    let closed = store.close().await;
    let done = done?;
    closed.map(|()| done)
}

/// Copies the folder's records, or those of a running server, to another server. What the folder's queue holds is indexed first, as the next start
/// of a server would.
pub async fn migrate(checked: Option<&Checked>, args: MigrateArgs) -> anyhow::Result<String> {
    let (Some(checked), Some(path)) = (checked, args.folder()) else {
        return migrate::migrate(args, None).await;
    };
    let folder = DataDir::open(&path)?;
    let metrics = Arc::new(Metrics::new());
    let store = serve::open_store(checked, Some(folder.path())).await?;
    let queue = serve::open_queue(checked, Some(folder.path()), &*store, metrics.clone())?;
    let indexer = Indexer::start(
        queue.clone(),
        store.clone(),
        Arc::new(NoCache),
        options::indexer(&checked.settings),
        metrics,
    );
    let indexed = indexer.stop(INDEXED_WITHIN).await;
    let end = queue.backlog().end;
    let is_whole = store.searchable().borrow().includes(&end);
    let copied = match (indexed, is_whole) {
        (Ok(()), true) => migrate::migrate(args, Some(&*store)).await,
        (Ok(()), false) => Err(anyhow::anyhow!(
            "what is queued in {} could not be indexed within {} s",
            path.display(),
            INDEXED_WITHIN.as_secs()
        )),
        (Err(e), _) => Err(e.into()),
    };
    let closed = queue.close().await.and(store.close().await);
    let copied = copied?;
    closed?;
    Ok(copied)
}

/// Applies the retention rules once; `dry_run` only says what would go.
pub async fn clean(checked: &Checked, dry_run: bool) -> Result<RetentionReport> {
    let rules = options::retention_rules(checked);
    if retention::is_idle(&rules) {
        let message = "the retention rules keep everything for ever; set `retention.age_max_days`, `retention.size_bytes_max` or `retention.by_source`";
        return Err(Error::invalid("no_retention_rules", message));
    }
    with_store(checked, async |store| {
        store
            .expire(rules.clone(), retention::now_ns(), dry_run)
            .await
    })
    .await
}

/// Reads everything that is stored and checks it.
pub async fn verify(checked: &Checked) -> Result<VerifyReport> {
    with_store(checked, async |store| store.verify().await).await
}

pub fn clean_text(report: &RetentionReport, dry_run: bool) -> String {
    let verb = if dry_run { "would drop" } else { "dropped" };
    let mut text = format!(
        "{verb} {} records, {} bytes: {} segments whole, {} rewritten",
        report.records, report.bytes, report.segments_dropped, report.segments_rewritten
    );
    for (what, records, bytes) in &report.details {
        text.push_str(&format!("\n  {what}: {records} records, {bytes} bytes"));
    }
    text
}

pub fn clean_json(report: &RetentionReport, dry_run: bool) -> String {
    let details: Vec<_> = report
        .details
        .iter()
        .map(|(what, records, bytes)| json!({"what": what, "records": records, "bytes": bytes}))
        .collect();
    let report = json!({
        "dry_run": dry_run,
        "records": report.records,
        "bytes": report.bytes,
        "segments_dropped": report.segments_dropped,
        "segments_rewritten": report.segments_rewritten,
        "details": details,
    });
    report.to_string()
}

pub fn verify_text(report: &VerifyReport) -> String {
    let mut text = format!(
        "read {} segments, {} bytes, {} records",
        report.segments, report.bytes, report.records
    );
    match report.faults.len() {
        0 => text.push_str(": no fault found"),
        n => text.push_str(&format!(": {n} faults")),
    }
    for fault in &report.faults {
        text.push_str(&format!("\n  {fault}"));
    }
    text
}

pub fn verify_json(report: &VerifyReport) -> String {
    let report = json!({
        "segments": report.segments,
        "bytes": report.bytes,
        "records": report.records,
        "faults": report.faults,
    });
    report.to_string()
}
