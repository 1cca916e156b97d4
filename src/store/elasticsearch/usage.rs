//! What the indices hold, and whether it can be read back.

use serde_json::{Value as Json, json};

use crate::common::error::Result;
use crate::record::RecordKey;
use crate::store::elasticsearch::client::Method;
use crate::store::elasticsearch::hit::record_from_hit;
use crate::store::elasticsearch::indices::list;
use crate::store::elasticsearch::names::{index_of, own};
use crate::store::elasticsearch::{Inner, letters};
use crate::store::{Usage, VerifyReport};

/// Records read at once by a check.
const PAGE_MAX: usize = 1_000;
/// Faults named; more are only counted.
const FAULTS_MAX: usize = 100;

pub async fn usage(inner: &Inner) -> Result<Usage> {
    let indices = list(inner).await?;
    let mut usage = Usage {
        records: count(inner).await?,
        dead_letters: letters::count_all(inner).await?,
        segments: indices.len() as u64,
        disk_bytes: indices.iter().map(|index| index.bytes_all).sum(),
        oldest_ns: edge(inner, "asc").await?,
        newest_ns: edge(inner, "desc").await?,
        ..Usage::default()
    };
    usage.degraded.extend(inner.state.last_error());
    usage.degraded.extend(health(inner).await?);
    Ok(usage)
}

fn search_path(inner: &Inner, verb: &str) -> String {
    let pattern = inner.options.pattern();
    format!("/{pattern}/{verb}?ignore_unavailable=true&allow_no_indices=true")
}

async fn count(inner: &Inner) -> Result<u64> {
    let body = json!({"query": {"exists": {"field": own::NS}}});
    let answer = inner
        .client
        .admin(Method::POST, &search_path(inner, "_count"), Some(&body))
        .await?;
    let answer = answer.expect("count records")?;
    Ok(answer.get("count").and_then(Json::as_u64).unwrap_or(0))
}

/// The time of the first record in this order.
async fn edge(inner: &Inner, order: &str) -> Result<Option<i64>> {
    let body = json!({
        "size": 1,
        "_source": false,
        "track_total_hits": false,
        "query": {"exists": {"field": own::NS}},
        "sort": [{own::NS: {"order": order, "unmapped_type": "long"}}],
    });
    let answer = inner
        .client
        .admin(Method::POST, &search_path(inner, "_search"), Some(&body))
        .await?;
    let answer = answer.expect("find the oldest and the newest record")?;
    Ok(answer.pointer("/hits/hits/0/sort/0").and_then(Json::as_i64))
}

/// What is wrong with the cluster, as far as the records are concerned.
async fn health(inner: &Inner) -> Result<Option<String>> {
    let answer = inner
        .client
        .admin(Method::GET, "/_cluster/health", None)
        .await?;
    if !answer.is_success() {
        return Ok(Some(format!(
            "Elasticsearch does not say how it is: {}",
            answer.reason()
        )));
    }
    let health = answer.json()?;
    let number = |name: &str| health.get(name).and_then(Json::as_u64).unwrap_or(0);
    Ok(match health.get("status").and_then(Json::as_str) {
        Some("red") => Some(format!(
            "Elasticsearch is red: {} shards are not assigned, so answers are incomplete or refused",
            number("unassigned_shards")
        )),
        Some("yellow") => Some(format!(
            "Elasticsearch is yellow: {} replicas are not assigned, so one failed disk can lose records; with a single node set `store.elasticsearch_replicas = 0`",
            number("unassigned_shards")
        )),
        _ => None,
    })
}

/// Reads every document back. Checksums are Elasticsearch's own business: it checks them as it reads.
pub async fn verify(inner: &Inner) -> Result<VerifyReport> {
    let mut report = VerifyReport::default();
    let mut n_faults = 0_u64;
    for index in list(inner).await? {
        report.segments += 1;
        report.bytes += index.bytes;
        let mut after: Option<Json> = None;
        loop {
            let mut body = json!({
                "size": PAGE_MAX,
                "track_total_hits": false,
                "sort": [{own::NS: "asc"}, {own::PARTITION: "asc"}, {own::SEQ: "asc"}],
            });
            if let (Some(after), Json::Object(members)) = (after.take(), &mut body) {
                members.insert("search_after".to_owned(), after);
            }
            let path = format!("/{}/_search", index.name);
            let answer = inner.client.admin(Method::POST, &path, Some(&body)).await?;
            let mut answer = answer.expect("read its records back")?;
            let Some(Json::Array(hits)) = answer.pointer_mut("/hits/hits").map(Json::take) else {
                break;
            };
            for hit in &hits {
                match fault(inner, &index.name, hit) {
                    None => report.records += 1,
                    Some(fault) => {
                        n_faults += 1;
                        if report.faults.len() < FAULTS_MAX {
                            report.faults.push(fault);
                        }
                    }
                }
            }
            after = hits.last().and_then(|hit| hit.get("sort")).cloned();
            if hits.len() < PAGE_MAX || after.is_none() {
                break;
            }
        }
    }
    if FAULTS_MAX as u64 <= n_faults {
        report
            .faults
            .push(format!("{n_faults} documents in all cannot be read back"));
    }
    if let Some(health) = health(inner)
        .await?
        .filter(|health| health.contains(" red:"))
    {
        report.faults.push(health);
    }
    Ok(report)
}

fn fault(inner: &Inner, index: &str, hit: &Json) -> Option<String> {
    let record = match record_from_hit(hit) {
        Ok(record) => record,
        Err(error) => return Some(error.message),
    };
    let RecordKey { timestamp_ns, .. } = record.key;
    let source = hit.get("_source");
    let stored = source
        .and_then(|source| source.get(own::NS))
        .and_then(Json::as_i64);
    if stored != Some(timestamp_ns) {
        return Some(format!(
            "document {} of index {index}: its time is not that of its id",
            record.key.to_id()
        ));
    }
    let home = index_of(&inner.options.index_prefix, timestamp_ns);
    (home != index).then(|| {
        format!(
            "document {} stands in index {index} instead of {home}",
            record.key.to_id()
        )
    })
}
