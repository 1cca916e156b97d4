//! One bulk request: sent until each of its documents is stored, refused for itself, or in need of its index.

use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::Value as Json;

use crate::common::error::{Error, ErrorKind, Result};
use crate::store::elasticsearch::Inner;
use crate::store::elasticsearch::client::{Answer, error_text};

/// The first wait before documents are sent again that the server had no room for; doubles.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// Only what is needed of the answer.
const PATH: &str = "/_bulk?require_alias=true&filter_path=errors,items.*.status,items.*.error";

/// One document of a bulk: whose it is, and where it ends in the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// Which of the batches written, and which entry of that.
    pub batch: u32,
    pub entry: u32,
    pub end: usize,
}

#[derive(Default)]
pub struct Bulk {
    pub body: Vec<u8>,
    pub items: Vec<Item>,
}

impl Bulk {
    /// The documents with these indices.
    fn subset(&self, indices: &[usize]) -> Self {
        let mut subset = Self::default();
        for index in indices {
            let start = match index.checked_sub(1) {
                None => 0,
                Some(before) => self.items.get(before).map_or(0, |item| item.end),
            };
            if let Some(item) = self.items.get(*index) {
                subset
                    .body
                    .extend_from_slice(self.body.get(start..item.end).unwrap_or_default());
                subset.items.push(Item {
                    end: subset.body.len(),
                    ..*item
                });
            }
        }
        subset
    }

    fn halves(&self) -> (Self, Self) {
        let middle = self.items.len() / 2;
        let first: Vec<usize> = (0..middle).collect();
        let second: Vec<usize> = (middle..self.items.len()).collect();
        (self.subset(&first), self.subset(&second))
    }
}

/// What became of the documents that are not stored.
#[derive(Default)]
pub struct Outcome {
    /// Refused for what they are, with the reason.
    pub refused: Vec<(Item, String)>,
    /// The index that they were made for does not exist any more.
    pub homeless: Vec<Item>,
    /// The body, to be used again.
    pub spare: Vec<u8>,
}

/// What one item's answer means.
#[derive(Debug, PartialEq)]
enum Verdict {
    Stored,
    Again(String),
    Homeless,
    Refused(String),
    /// The store does not take anything now: the wrong rights, a closed or blocked index.
    Stop(String),
}

/// Sends until there is an outcome for each document; an error means that the rest could not be sent before the deadline.
pub async fn send(inner: &Inner, bulk: Bulk, deadline: Instant) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut waiting = vec![bulk];
    let mut delay = RETRY_MIN;
    while let Some(bulk) = waiting.pop() {
        let body = Bytes::from(bulk.body);
        let answer = inner
            .client
            .bulk(PATH, body.clone(), Some(deadline))
            .await?;
        // Nobody else holds the bytes now, so this copies nothing.
        let bulk = Bulk {
            body: body.into(),
            items: bulk.items,
        };
        if !answer.is_success() {
            match whole_refused(&answer, &bulk)? {
                Some(reason) => outcome
                    .refused
                    .extend(bulk.items.iter().map(|item| (*item, reason.clone()))),
                None => {
                    let (first, second) = bulk.halves();
                    waiting.extend([second, first]);
                }
            }
            continue;
        }
        let again = sort_out(&answer, &bulk, &mut outcome)?;
        if again.is_empty() {
            outcome.spare = bulk.body;
            continue;
        }
        let reason = again
            .first()
            .map(|(_, reason)| reason.clone())
            .unwrap_or_default();
        if deadline <= Instant::now() + delay {
            return Err(Error::new(
                ErrorKind::Busy,
                "elasticsearch_busy",
                format!(
                    "Elasticsearch has no room for {} documents: {reason}",
                    again.len()
                ),
            ));
        }
        tokio::time::sleep(delay.mul_f64(rand::random_range(0.5..1.0))).await;
        delay = (delay * 2).min(RETRY_MAX);
        let indices: Vec<usize> = again.into_iter().map(|(index, _)| index).collect();
        waiting.push(bulk.subset(&indices));
    }
    outcome.spare.clear();
    Ok(outcome)
}

/// The request as a whole was refused. A reason: its one document is at fault; `None`: try it in halves.
fn whole_refused(answer: &Answer, bulk: &Bulk) -> Result<Option<String>> {
    let reason = answer.reason();
    let blames_body = match answer.status {
        413 => true,
        // Only where it is Elasticsearch that says so, not something on the way to it.
        400 => serde_json::from_slice::<Json>(&answer.body)
            .is_ok_and(|json| json.pointer("/error/type").is_some()),
        _ => false,
    };
    if !blames_body {
        let message = format!("Elasticsearch does not take documents: {reason}");
        return Err(Error::unavailable("elasticsearch_refused", message));
    }
    Ok((bulk.items.len() <= 1).then_some(reason))
}

/// Notes what is refused or homeless; returns what is to be sent again.
fn sort_out(answer: &Answer, bulk: &Bulk, outcome: &mut Outcome) -> Result<Vec<(usize, String)>> {
    let json = answer.json()?;
    let items = json.get("items").and_then(Json::as_array);
    let items = items.filter(|items| items.len() == bulk.items.len());
    let Some(items) = items else {
        return Err(Error::unavailable(
            "elasticsearch_broken_answer",
            format!(
                "Elasticsearch does not say what became of each of {} documents",
                bulk.items.len()
            ),
        ));
    };
    let mut again = Vec::new();
    for (index, (answer, item)) in items.iter().zip(&bulk.items).enumerate() {
        match verdict(answer) {
            Verdict::Stored => {}
            Verdict::Again(reason) => again.push((index, reason)),
            Verdict::Homeless => outcome.homeless.push(*item),
            Verdict::Refused(reason) => outcome.refused.push((*item, reason)),
            Verdict::Stop(reason) => {
                let message = format!("Elasticsearch does not take documents: {reason}");
                return Err(Error::unavailable("elasticsearch_refused", message));
            }
        }
    }
    Ok(again)
}

fn verdict(answer: &Json) -> Verdict {
    let answer = answer.get("create").unwrap_or(&Json::Null);
    let error = answer.get("error").unwrap_or(&Json::Null);
    let kind = error.get("type").and_then(Json::as_str).unwrap_or_default();
    let reason = || error_text(error).unwrap_or_else(|| answer.to_string());
    let blames_store = matches!(
        kind,
        "index_closed_exception" | "cluster_block_exception" | "security_exception"
    );
    match answer.get("status").and_then(Json::as_u64) {
        // 409: it is there already.
        Some(200 | 201 | 409) => Verdict::Stored,
        Some(404) if kind == "index_not_found_exception" => Verdict::Homeless,
        Some(401 | 403) => Verdict::Stop(reason()),
        Some(400..=499) if blames_store => Verdict::Stop(reason()),
        Some(status @ 400..=499) if status != 429 && status != 408 => Verdict::Refused(reason()),
        _ => Verdict::Again(reason()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_item_has_its_verdict() {
        let of = |status: u64, kind: &str| {
            verdict(
                &json!({"create": {"status": status, "error": {"type": kind, "reason": "why"}}}),
            )
        };
        assert_eq!(
            verdict(&json!({"create": {"status": 201}})),
            Verdict::Stored
        );
        assert_eq!(
            of(409, "version_conflict_engine_exception"),
            Verdict::Stored
        );
        assert_eq!(of(404, "index_not_found_exception"), Verdict::Homeless);
        assert_eq!(
            of(400, "document_parsing_exception"),
            Verdict::Refused("document_parsing_exception: why".to_owned())
        );
        for (status, kind) in [
            (429, "es_rejected_execution_exception"),
            (503, "unavailable_shards_exception"),
        ] {
            assert!(matches!(of(status, kind), Verdict::Again(_)));
        }
        assert!(matches!(verdict(&json!({})), Verdict::Again(_)));
        for (status, kind) in [
            (403, "x"),
            (400, "index_closed_exception"),
            (403, "cluster_block_exception"),
        ] {
            assert!(matches!(of(status, kind), Verdict::Stop(_)), "{kind}");
        }
    }

    #[test]
    fn a_subset_keeps_its_documents_whole() {
        let mut bulk = Bulk::default();
        for (entry, text) in ["a\nb\n", "cc\n", "d\n"].into_iter().enumerate() {
            bulk.body.extend_from_slice(text.as_bytes());
            bulk.items.push(Item {
                batch: 0,
                entry: u32::try_from(entry).unwrap(),
                end: bulk.body.len(),
            });
        }
        let subset = bulk.subset(&[0, 2]);
        assert_eq!(subset.body, b"a\nb\nd\n");
        assert_eq!(subset.items[1].entry, 2);
        assert_eq!(subset.items[1].end, 6);
        let (first, second) = bulk.halves();
        assert_eq!(
            (first.body, second.body),
            (b"a\nb\n".to_vec(), b"cc\nd\n".to_vec())
        );
    }
}
