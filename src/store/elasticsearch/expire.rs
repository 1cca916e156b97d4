//! The cleaner on Elasticsearch: whole indices go where all their records are too old, single records where rules for sources or late arrivals leave
//! others behind, and the oldest indices where the size is too large.
//!
//! An index of a day is looked at once the whole day is past an age; the index of far times record by record. Before an index goes it is closed to writers and
//! counted again, so that nothing that arrives in this moment goes with it.

use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::common::error::{Error, Result};
use crate::store::elasticsearch::Inner;
use crate::store::elasticsearch::client::Method;
use crate::store::elasticsearch::indices::{DayIndex, list};
use crate::store::elasticsearch::lease::Lease;
use crate::store::elasticsearch::names::{NS_PER_DAY, own};
use crate::store::elasticsearch::write::refresh;
use crate::store::{RetentionReport, RetentionRules};
use crate::wire::json_text::push_string;

/// Records deleted at once.
const DELETE_MAX: usize = 5_000;

/// Applies the rules; without effect if another cleaner is at work.
pub async fn expire(
    inner: &Inner,
    rules: &RetentionRules,
    now_ns: i64,
    dry_run: bool,
) -> Result<RetentionReport> {
    if dry_run {
        let mut cleaning = Cleaning::new(inner, None);
        cleaning.run(rules, now_ns).await?;
        return Ok(cleaning.report);
    }
    inner.state.prepare(inner).await?;
    let Some(lease) = Lease::take(inner).await? else {
        tracing::debug!("another cleaner is at work");
        return Ok(RetentionReport::default());
    };
    let mut cleaning = Cleaning::new(inner, Some(lease));
    let cleaned = cleaning.run(rules, now_ns).await;
    // Even where it broke off: what is gone must not be answered from a cache.
    let raised = match cleaning.has_changed {
        true => inner.state.raise_generation(inner).await,
        false => Ok(()),
    };
    if let Some(lease) = cleaning.lease.take() {
        lease.release().await?;
    }
    cleaned.and(raised)?;
    Ok(cleaning.report)
}

struct Cleaning<'a> {
    inner: &'a Inner,
    /// `None`: only say what would go.
    lease: Option<Lease<'a>>,
    report: RetentionReport,
    has_changed: bool,
}

impl<'a> Cleaning<'a> {
    fn new(inner: &'a Inner, lease: Option<Lease<'a>>) -> Self {
        Self {
            inner,
            lease,
            report: RetentionReport::default(),
            has_changed: false,
        }
    }

    async fn run(&mut self, rules: &RetentionRules, now_ns: i64) -> Result<()> {
        if let Some(blocked) = self
            .lease
            .as_mut()
            .and_then(|lease| lease.left_blocked.take())
        {
            unblock(self.inner, &blocked).await?;
        }
        let mut left = Vec::new();
        for index in list(self.inner).await? {
            if let Some(lease) = &mut self.lease {
                lease.renew(None).await?;
            }
            if let Some(rest) = self.by_age(index, rules, now_ns).await? {
                left.push(rest);
            }
        }
        match rules.size_bytes_max {
            Some(max) => self.by_size(left, max).await,
            None => Ok(()),
        }
    }

    /// What is left of the index.
    async fn by_age(
        &mut self,
        index: DayIndex,
        rules: &RetentionRules,
        now_ns: i64,
    ) -> Result<Option<DayIndex>> {
        let day_end_ns = index.day.map(|day| (day + 1).saturating_mul(NS_PER_DAY));
        let Some(expired) = expired_query(rules, now_ns, day_end_ns) else {
            return Ok(Some(index));
        };
        let total = count(self.inner, &index.name, &json!({"match_all": {}})).await?;
        let n_expired = count(self.inner, &index.name, &expired).await?;
        if n_expired == 0 {
            return Ok(Some(index));
        }
        if n_expired == total && self.drop_if_expired(&index, &expired).await? {
            self.note("age", &index, total, index.bytes, true);
            return Ok(None);
        }
        let bytes = share(index.bytes, n_expired, total);
        let deleted = match self.lease {
            Some(_) => self.delete(&index.name, &expired).await?,
            None => n_expired,
        };
        self.note("age", &index, deleted, bytes, false);
        Ok(Some(DayIndex {
            bytes: index.bytes - bytes.min(index.bytes),
            ..index
        }))
    }

    fn note(&mut self, rule: &str, index: &DayIndex, records: u64, bytes: u64, is_whole: bool) {
        self.report.records += records;
        self.report.bytes += bytes;
        match is_whole {
            true => self.report.segments_dropped += 1,
            false => self.report.segments_rewritten += 1,
        }
        let what = format!("{rule}, {}", index.name);
        self.report.details.push((what, records, bytes));
    }

    /// Closes the index to writers, counts once more, and drops it if still all of it is too old.
    async fn drop_if_expired(&mut self, index: &DayIndex, expired: &Json) -> Result<bool> {
        let Some(lease) = &mut self.lease else {
            return Ok(true);
        };
        lease.renew(Some(&index.name)).await?;
        let path = format!("/{}/_block/write", index.name);
        let answer = self.inner.client.admin(Method::PUT, &path, None).await?;
        answer.expect(&format!("close index {} to writers", index.name))?;
        refresh(self.inner, std::slice::from_ref(&index.name)).await?;
        let fresh = json!({"bool": {"must_not": [expired]}});
        let n_fresh = count(self.inner, &index.name, &fresh).await?;
        if n_fresh == 0 {
            self.drop_index(&index.name).await?;
        } else {
            unblock(self.inner, &index.name).await?;
        }
        if let Some(lease) = &mut self.lease {
            lease.renew(None).await?;
        }
        Ok(n_fresh == 0)
    }

    async fn drop_index(&mut self, name: &str) -> Result<()> {
        let answer = self
            .inner
            .client
            .admin(Method::DELETE, &format!("/{name}"), None)
            .await?;
        if answer.status != 404 {
            answer.expect(&format!("drop index {name}"))?;
        }
        self.has_changed = true;
        Ok(())
    }

    /// Deletes what matches, a portion at a time: not every server has delete-by-query.
    async fn delete(&mut self, index: &str, expired: &Json) -> Result<u64> {
        let mut deleted = 0;
        loop {
            let body = json!({
                "size": DELETE_MAX,
                "query": expired,
                "_source": false,
                "sort": ["_doc"],
                "track_total_hits": false,
            });
            let path = format!("/{index}/_search");
            let found = self
                .inner
                .client
                .admin(Method::POST, &path, Some(&body))
                .await?;
            let found = found.expect("find what is too old")?;
            let hits = found.pointer("/hits/hits").and_then(Json::as_array);
            let ids: Vec<&str> = hits
                .into_iter()
                .flatten()
                .filter_map(|hit| hit.get("_id")?.as_str())
                .collect();
            if ids.is_empty() {
                return Ok(deleted);
            }
            let n_gone = self.delete_ids(index, &ids).await?;
            deleted += n_gone;
            refresh(self.inner, &[index.to_owned()]).await?;
            if let Some(lease) = &mut self.lease {
                lease.renew(None).await?;
            }
        }
    }

    async fn delete_ids(&mut self, index: &str, ids: &[&str]) -> Result<u64> {
        let mut body = Vec::new();
        for id in ids {
            body.extend_from_slice(b"{\"delete\":{\"_id\":");
            push_string(&mut body, id);
            body.extend_from_slice(b"}}\n");
        }
        self.has_changed = true;
        let path = format!("/{index}/_bulk?filter_path=items.*.status,items.*.error");
        let answer = self.inner.client.bulk(&path, body.into(), None).await?;
        let answer = answer.expect("delete what is too old")?;
        let mut deleted = 0;
        for item in answer
            .get("items")
            .and_then(Json::as_array)
            .into_iter()
            .flatten()
        {
            match item.pointer("/delete/status").and_then(Json::as_u64) {
                Some(200) => deleted += 1,
                Some(404) => {}
                // Too busy: what is left is found again in a moment.
                Some(429 | 503) => tokio::time::sleep(Duration::from_millis(10)).await,
                _ => {
                    return Err(Error::unavailable(
                        "elasticsearch_refused",
                        format!("Elasticsearch could not delete a record: {item}"),
                    ));
                }
            }
        }
        Ok(deleted)
    }

    /// The oldest indices go until the rest is small enough. The newest stays whatever its size: the logs of today are worth more than a limit.
    async fn by_size(&mut self, mut indices: Vec<DayIndex>, max: u64) -> Result<()> {
        let mut held: u64 = indices.iter().map(|index| index.bytes).sum();
        indices.pop();
        for index in indices {
            if held <= max {
                break;
            }
            let records = count(self.inner, &index.name, &json!({"match_all": {}})).await?;
            if let Some(lease) = &mut self.lease {
                lease.renew(None).await?;
                self.drop_index(&index.name).await?;
            }
            held = held.saturating_sub(index.bytes);
            self.note("size", &index, records, index.bytes, true);
        }
        Ok(())
    }
}

fn share(bytes: u64, part: u64, total: u64) -> u64 {
    let share = u128::from(bytes) * u128::from(part) / u128::from(total.max(1));
    u64::try_from(share).unwrap_or(bytes)
}

async fn count(inner: &Inner, index: &str, query: &Json) -> Result<u64> {
    let body = json!({"query": query});
    let answer = inner
        .client
        .admin(Method::POST, &format!("/{index}/_count"), Some(&body))
        .await?;
    let answer = answer.expect("count records")?;
    answer.get("count").and_then(Json::as_u64).ok_or_else(|| {
        Error::unavailable(
            "elasticsearch_broken_answer",
            "Elasticsearch does not say how many records there are",
        )
    })
}

async fn unblock(inner: &Inner, index: &str) -> Result<()> {
    let path = format!("/{index}/_settings");
    let body = json!({"index.blocks.write": null});
    let answer = inner.client.admin(Method::PUT, &path, Some(&body)).await?;
    match answer.status {
        404 => Ok(()),
        _ => answer
            .expect(&format!("open index {index} to writers"))
            .map(drop),
    }
}

/// What is too old in an index whose times end before `day_end_ns` (`None`: far times). `None`: nothing can be.
fn expired_query(rules: &RetentionRules, now_ns: i64, day_end_ns: Option<i64>) -> Option<Json> {
    let mut any = Vec::new();
    let mut earlier: Vec<Json> = Vec::new();
    let mut rule = |age: Option<Duration>, pattern: Option<&str>, earlier: &[Json]| {
        let Some(age) = age else { return };
        let age_ns = i64::try_from(age.as_nanos()).unwrap_or(i64::MAX);
        let cutoff = now_ns.saturating_sub(age_ns);
        if day_end_ns.is_some_and(|end| cutoff < end) {
            return;
        }
        // Both: age counts from the later of time and arrival.
        let mut filter = vec![
            json!({"range": {own::NS: {"lt": cutoff}}}),
            json!({"range": {own::ARRIVAL_NS: {"lt": cutoff}}}),
        ];
        filter.extend(pattern.map(source_query));
        any.push(json!({"bool": {"filter": filter, "must_not": earlier}}));
    };
    for (pattern, age) in &rules.by_source {
        rule(*age, Some(pattern), &earlier);
        earlier.push(source_query(pattern));
    }
    rule(rules.age_max, None, &earlier);
    (!any.is_empty()).then(|| json!({"bool": {"should": any, "minimum_should_match": 1}}))
}

/// Records whose source fits; one without a source has the empty text.
fn source_query(pattern: &str) -> Json {
    let escaped = pattern.replace('\\', "\\\\").replace('?', "\\?");
    let mut any = vec![
        json!({"bool": {
            "filter": [{"wildcard": {"source": {"value": escaped}}}],
            "must_not": [{"exists": {"field": own::SOURCE}}],
        }}),
        json!({"wildcard": {own::SOURCE: {"value": escaped}}}),
    ];
    if pattern.bytes().all(|byte| byte == b'*') {
        any.push(json!({"bool": {"must_not": [{"exists": {"field": "source"}}, {"exists": {"field": own::SOURCE}}]}}));
    }
    json!({"bool": {"should": any, "minimum_should_match": 1}})
}
