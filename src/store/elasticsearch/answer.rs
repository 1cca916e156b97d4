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
            401 | 403 => Error::unavailable("elasticsearch_forbidden", message),
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
