//! Asks the server for searches of one question: which indices, within which time, and what an answer that is not whole means.

use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use crate::common::cancel::Cancel;
use crate::common::error::{Error, ErrorKind, Result};
use crate::common::http::percent_encoded;
use crate::query::TimeRange;
use crate::store::elasticsearch::Inner;
use crate::store::elasticsearch::client::{Answer, Method};
use crate::store::elasticsearch::names::{day_of, index_of_day, pattern_of};
use crate::store::elasticsearch::read::ReadLimits;
use crate::store::elasticsearch::read::catalog::{Catalog, names_to_look_up};

/// Bytes of a request's first line that Elasticsearch surely takes (its limit is 4 KB).
const URL_BYTES_MAX: usize = 2_000;
/// Days that are asked by name; for more the pattern asks all.
const DAYS_MAX: i64 = 62;
/// What a mapping cannot be asked or a pattern is too complex for: asking with less left to the server helps.
const REFUSALS: [&str; 6] = [
    "query_shard_exception",
    "illegal_argument_exception",
    "too_complex_to_determinize_exception",
    "too_many_clauses",
    "too_many_nested_clauses",
    "x_content_parse_exception",
];

/// The index of a new day is seen by questions a moment before it can be asked, and so are all of them while the server starts: worth waiting for.
const STARTING_WAIT: Duration = Duration::from_secs(2);
const STARTING_PAUSE: Duration = Duration::from_millis(50);
const STARTING: &str = "no_shard_available_action_exception";

/// Why a search gave no answer.
pub enum Fault {
    /// The server does not take the query as it is.
    Refused(String),
    /// A field has changed since the mapping was read: the answer does not fit the query.
    Stale,
    Failed(Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// One question's way to the server.
pub struct Asker<'a> {
    pub inner: &'a Inner,
    pub cancel: &'a Cancel,
    /// In a URL's path.
    indices: String,
    /// Of the answers so far that were not whole, each once.
    partial_reasons: parking_lot::Mutex<Vec<String>>,
}

/// A snapshot of the indices on the server, let go of in the end.
pub struct PointInTime<'a> {
    id: String,
    inner: &'a Inner,
}

impl<'a> Asker<'a> {
    pub fn new(inner: &'a Inner, range: &TimeRange, cancel: &'a Cancel) -> Self {
        Self {
            inner,
            cancel,
            indices: indices_of(&inner.options.index_prefix, range),
            partial_reasons: parking_lot::Mutex::default(),
        }
    }

    pub fn limits(&self) -> &ReadLimits {
        &self.inner.options.read
    }

    pub fn partial_reasons(&self) -> Vec<String> {
        self.partial_reasons.lock().clone()
    }

    /// What the mappings say about these addresses now; about all fields if there is no list.
    pub async fn catalog(&self, addresses: Option<&[String]>) -> Result<Catalog> {
        let mut catalog = Catalog::default();
        let mut lists = vec![String::new()];
        match addresses {
            None => lists = vec!["*".to_owned()],
            Some(addresses) => {
                for name in addresses
                    .iter()
                    .flat_map(|address| names_to_look_up(address))
                {
                    let name = percent_encoded(&name);
                    match lists.last_mut() {
                        Some(list) if list.len() + name.len() < URL_BYTES_MAX => {
                            if !list.is_empty() {
                                list.push(',');
                            }
                            list.push_str(&name);
                        }
                        _ => lists.push(name),
                    }
                }
            }
        }
        for list in lists.iter().filter(|list| !list.is_empty()) {
            let path = format!(
                "/{}/_field_caps?fields={list}&ignore_unavailable=true&allow_no_indices=true",
                self.indices
            );
            let answer = self
                .inner
                .client
                .ask(Method::POST, &path, None, self.cancel)
                .await?;
            if !answer.is_success() && self.has_no_index().await? {
                continue;
            }
            catalog.add_caps(&answer.expect("say which fields there are")?);
        }
        Ok(catalog)
    }

    /// The answer to a search over the indices of the question, or over `snapshot`.
    pub async fn search(
        &self,
        snapshot: Option<&PointInTime<'_>>,
        mut body: Json,
    ) -> Result<Json, Fault> {
        let left = self
            .cancel
            .deadline()
            .saturating_duration_since(Instant::now());
        self.cancel.check()?;
        let mut path = "/_search".to_owned();
        if let Some(members) = body.as_object_mut() {
            members.insert(
                "timeout".to_owned(),
                format!("{}ms", left.as_millis().max(1)).into(),
            );
            match snapshot {
                Some(snapshot) => {
                    members.insert(
                        "pit".to_owned(),
                        json!({"id": snapshot.id, "keep_alive": "1m"}),
                    );
                }
                None => {
                    path = format!(
                        "/{}/_search?ignore_unavailable=true&allow_no_indices=true",
                        self.indices
                    );
                }
            }
        }
        let give_up = Instant::now() + STARTING_WAIT;
        loop {
            let answer = self
                .inner
                .client
                .ask(Method::POST, &path, Some(&body), self.cancel)
                .await?;
            let may_wait = Instant::now() < give_up;
            if let Some(json) = self.whole(&answer, may_wait)? {
                return Ok(json);
            }
            self.cancel.check()?;
            tokio::time::sleep(STARTING_PAUSE).await;
        }
    }

    /// `None` if it is worth asking again, where that is allowed.
    fn whole(&self, answer: &Answer, may_wait: bool) -> Result<Option<Json>, Fault> {
        // 503 comes here only where it is about the question itself.
        if matches!(answer.status, 400 | 503) {
            return Err(Fault::Refused(answer.reason()));
        }
        let json = answer.expect("answer a search")?;
        if json.get("timed_out") == Some(&Json::Bool(true)) {
            self.cancel.check()?;
            return Err(Fault::Failed(Error::new(
                ErrorKind::Timeout,
                "query_timeout",
                "Elasticsearch ran out of time; narrow the time range or the filter, or raise `search.timeout_ms`",
            )));
        }
        let failures = json.pointer("/_shards/failures").and_then(Json::as_array);
        if may_wait && failures.is_some_and(|failures| is_starting(failures)) {
            return Ok(None);
        }
        for failure in failures.into_iter().flatten() {
            let text = |at: &str| {
                failure
                    .pointer(at)
                    .and_then(Json::as_str)
                    .unwrap_or_default()
            };
            let reason = format!("{}: {}", text("/reason/type"), text("/reason/reason"));
            if REFUSALS.contains(&text("/reason/type")) {
                return Err(Fault::Refused(reason));
            }
            self.add_partial_reason(format!(
                "a part of index {} did not answer: {reason}",
                text("/index")
            ));
        }
        let count = |at: &str| json.pointer(at).and_then(Json::as_u64).unwrap_or(0);
        if count("/_shards/failed") != 0 && self.partial_reasons.lock().is_empty() {
            self.add_partial_reason(format!(
                "{} parts of the indices did not answer",
                count("/_shards/failed")
            ));
        }
        Ok(Some(json))
    }

    fn add_partial_reason(&self, reason: String) {
        let mut reasons = self.partial_reasons.lock();
        if !reasons.contains(&reason) {
            reasons.push(reason);
        }
    }

    async fn has_no_index(&self) -> Result<bool> {
        let path = format!(
            "/{}/_search?ignore_unavailable=true&allow_no_indices=true",
            self.indices
        );
        let body = json!({"size": 0, "track_total_hits": false});
        let answer = self
            .inner
            .client
            .ask(Method::POST, &path, Some(&body), self.cancel)
            .await?
            .expect("say whether there is an index")?;
        Ok(answer.pointer("/_shards/total").and_then(Json::as_u64) == Some(0))
    }

    /// A snapshot for several searches; `None` where there is no index yet.
    pub async fn snapshot(&self) -> Result<Option<PointInTime<'a>>> {
        let inner: &'a Inner = self.inner;
        let server = inner.client.server().await?;
        let what = match server.is_opensearch {
            true => "_search/point_in_time",
            false => "_pit",
        };
        let path = format!(
            "/{}/{what}?keep_alive=1m&ignore_unavailable=true&allow_no_indices=true",
            self.indices
        );
        let answer = inner
            .client
            .ask(Method::POST, &path, None, self.cancel)
            .await?;
        // Without any index some servers refuse, each in its way: only a look tells that from other refusals.
        if !answer.is_success() && self.has_no_index().await? {
            return Ok(None);
        }
        let json = answer.expect("open a point in time")?;
        let id = json
            .get("id")
            .or_else(|| json.get("pit_id"))
            .and_then(Json::as_str);
        let id = id.ok_or_else(|| Error::internal("a point in time without an id"))?;
        Ok(Some(PointInTime {
            id: id.to_owned(),
            inner,
        }))
    }
}

impl PointInTime<'_> {
    /// Lets go of it. Left alone it ends by itself after a minute.
    pub async fn close(self) {
        let Ok(server) = self.inner.client.server().await else {
            return;
        };
        let (path, body) = match server.is_opensearch {
            true => ("/_search/point_in_time", json!({"pit_id": [self.id]})),
            false => ("/_pit", json!({"id": self.id})),
        };
        if let Err(error) = self
            .inner
            .client
            .admin(Method::DELETE, path, Some(&body))
            .await
        {
            tracing::debug!(%error, "a point in time stays open until it ends by itself");
        }
    }
}

/// The indices of a time range: by name where they are few, which spares the server a look at all others.
fn indices_of(prefix: &str, range: &TimeRange) -> String {
    let pattern = || percent_encoded(&pattern_of(prefix));
    let (Some(start_ns), Some(end_ns)) = (range.start_ns, range.end_ns) else {
        return pattern();
    };
    let last_ns = end_ns.saturating_sub(1).max(start_ns);
    let (Some(first), Some(last)) = (day_of(start_ns), day_of(last_ns)) else {
        return pattern();
    };
    if DAYS_MAX < last - first {
        return pattern();
    }
    let names: Vec<String> = (first..=last)
        .map(|day| percent_encoded(&index_of_day(prefix, Some(day))))
        .collect();
    let list = names.join(",");
    if list.len() < URL_BYTES_MAX {
        list
    } else {
        pattern()
    }
}

/// True if nothing is wrong but that parts of indices are not there yet.
fn is_starting(failures: &[Json]) -> bool {
    let kind =
        |failure: &Json| failure.pointer("/reason/type").and_then(Json::as_str) == Some(STARTING);
    !failures.is_empty() && failures.iter().all(kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_days_are_asked_by_name() {
        let day = 86_400_000_000_000;
        let noon = 1_742_472_000_000_000_000;
        let of = |start_ns, end_ns| indices_of("logs-", &TimeRange { start_ns, end_ns });
        assert_eq!(of(Some(noon), Some(noon + 1)), "logs-2025.03.20");
        assert_eq!(of(Some(noon), Some(noon + day / 2)), "logs-2025.03.20");
        assert_eq!(
            of(Some(noon), Some(noon + day / 2 + 1)),
            "logs-2025.03.20,logs-2025.03.21"
        );
        assert_eq!(of(Some(noon), Some(noon - 5)), "logs-2025.03.20");
        let all = "logs-2*.*.*%2Clogs-other";
        assert_eq!(of(Some(noon), None), all);
        assert_eq!(of(Some(-5), Some(noon)), all);
        assert_eq!(of(Some(noon), Some(noon + 100 * day)), all);
    }
}
