//! What the cluster answered, and what its errors say.

use bytes::Bytes;
use serde_json::Value;

use crate::common::error::{Error, ErrorKind, Result};

/// An answer with any status.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Bytes,
}

impl Answer {
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).map_err(|e| {
            Error::unavailable(
                "elasticsearch_broken_answer",
                format!(
                    "Elasticsearch answered {} with something that is not JSON",
                    self.status
                ),
            )
            .with_source(e)
        })
    }

    /// Type and reason of the error in words.
    pub fn reason(&self) -> String {
        let json: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        error_text(json.get("error").unwrap_or(&Value::Null)).unwrap_or_else(|| {
            let text = String::from_utf8_lossy(
                self.body
                    .get(..self.body.len().min(200))
                    .unwrap_or_default(),
            )
            .into_owned();
            format!("status {} {text}", self.status)
        })
    }

    /// The JSON of a success; anything else becomes an error that says what was being done.
    pub fn expect(&self, doing: &str) -> Result<Value> {
        if self.is_success() {
            return self.json();
        }
        let message = format!("Elasticsearch refused to {doing}: {}", self.reason());
        Err(match self.status {
            401 => Error::unavailable(
                "elasticsearch_forbidden",
                format!(
                    "{message}; set `store.elasticsearch_user` and `store.elasticsearch_password`, or `store.elasticsearch_api_key`"
                ),
            ),
            403 => Error::unavailable(
                "elasticsearch_forbidden",
                format!("{message}; give the user or key of Logyard the right to do so"),
            ),
            _ => Error::unavailable("elasticsearch_refused", message),
        })
    }
}

/// `type: reason` of an error object, with the deepest cause.
pub fn error_text(error: &Value) -> Option<String> {
    if let Value::String(text) = error {
        return Some(text.clone());
    }
    let part = |of: &Value| {
        let kind = of.get("type")?.as_str()?;
        let reason = of.get("reason").and_then(Value::as_str).unwrap_or_default();
        Some(format!("{kind}: {reason}"))
    };
    let mut text = part(error)?;
    let mut cause = error;
    while let Some(deeper) = cause.get("caused_by") {
        cause = deeper;
    }
    if !std::ptr::eq(cause, error)
        && let Some(cause) = part(cause)
    {
        text = format!("{text} ({cause})");
    }
    Some(text)
}

/// The server works, but not on this now.
pub fn overload(answer: &Answer) -> Option<Error> {
    match answer.status {
        429 => Some(Error::new(
            ErrorKind::Busy,
            "elasticsearch_busy",
            format!("Elasticsearch has too much to do: {}", answer.reason()),
        )),
        // OpenSearch says so of a question that has too many buckets, which no retry mends.
        503 if answer.reason().contains("too_many_buckets") => None,
        502..=504 => Some(Error::unavailable(
            "elasticsearch_unavailable",
            format!("Elasticsearch cannot work now: {}", answer.reason()),
        )),
        _ => None,
    }
}

/// Errors about an index whose shards are elsewhere, starting or lost: the host that says so works.
const OF_SHARDS: [&str; 3] = [
    "no_shard_available_action_exception",
    "unavailable_shards_exception",
    "search_phase_execution_exception",
];

/// Whether this refusal tells that the host works, so that its circuit breaker must not count it: one index without its shards would else keep every
/// question about the others from a cluster that answers. What something on the way answers, and a node without a master, does count.
pub fn is_from_working_host(answer: &Answer) -> bool {
    if answer.status == 429 {
        return true;
    }
    let json: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let kind = json.pointer("/error/type").and_then(Value::as_str);
    kind.is_some_and(|kind| OF_SHARDS.contains(&kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_host_that_works_says_that_shards_are_missing() {
        let check = |status: u16, body: &'static str, expected: bool| {
            let body = Bytes::from_static(body.as_bytes());
            assert_eq!(
                is_from_working_host(&Answer { status, body }),
                expected,
                "{status}"
            );
        };
        let shards = r#"{"error":{"root_cause":[],"type":"search_phase_execution_exception","reason":"all shards failed"},"status":503}"#;
        check(503, shards, true);
        check(
            503,
            r#"{"error":{"type":"no_shard_available_action_exception","reason":null}}"#,
            true,
        );
        check(429, "", true);
        check(
            503,
            r#"{"error":{"type":"master_not_discovered_exception","reason":null}}"#,
            false,
        );
        check(
            503,
            r#"{"error":{"type":"cluster_block_exception","reason":"state not recovered"}}"#,
            false,
        );
        check(502, "<html>Bad Gateway</html>", false);
        check(503, r#"{"error":"no backend"}"#, false);
    }

    #[test]
    fn who_is_not_let_in_is_told_what_to_set() {
        for (status, advice) in [
            (401, "`store.elasticsearch_api_key`"),
            (403, "give the user or key of Logyard the right"),
        ] {
            let body = r#"{"error":{"type":"security_exception","reason":"no"}}"#;
            let body = Bytes::from_static(body.as_bytes());
            let error = Answer { status, body }.expect("say its version");
            let error = error.unwrap_err();
            assert_eq!(error.code, "elasticsearch_forbidden");
            for part in ["say its version", "security_exception: no", advice] {
                assert!(error.message.contains(part), "{error}");
            }
        }
    }
}
