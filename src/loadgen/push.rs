//! One `POST /logs` from the client's side: what became of a batch, with or without retries.

use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::{Method, StatusCode};

use crate::loadgen::client::{HttpClient, Reply};

/// What the server said about a batch, or that it said nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answered 201: every line is durable, as a record or as a dead letter.
    Acked {
        accepted: u64,
        dead_lettered: u64,
        replayed: bool,
    },
    /// Answered with another status: nothing was stored.
    Refused { status: u16, reason: String },
    /// No answer, or one that cannot be read: the lines may or may not be stored.
    Unknown { reason: String },
}

/// Longest wait between two tries.
const BACKOFF_MAX: Duration = Duration::from_secs(5);
const BACKOFF_MIN: Duration = Duration::from_millis(50);

/// Where a batch goes, and as what.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    pub client: &'a HttpClient,
    /// With its query.
    pub path: &'a str,
    pub media_type: &'a str,
}

impl<'a> Target<'a> {
    /// `/logs` as lines of JSON.
    pub fn ndjson(client: &'a HttpClient) -> Self {
        Self {
            client,
            path: "/logs",
            media_type: "application/x-ndjson",
        }
    }
}

/// Sends once.
pub async fn push(target: Target<'_>, key: &str, body: Bytes) -> Outcome {
    match send(target, key, body).await {
        Ok(reply) => outcome_of(&reply),
        Err(error) => Outcome::Unknown {
            reason: format!("{error:#}"),
        },
    }
}

/// Sends again, with the same key, as long as the outcome may mend itself and `patience` lasts. Also answers how often
/// it sent again.
pub async fn push_with_retry(
    target: Target<'_>,
    key: &str,
    body: Bytes,
    patience: Duration,
) -> (Outcome, u64) {
    let deadline = Instant::now() + patience;
    let mut backoff = BACKOFF_MIN;
    let mut n_retries = 0;
    loop {
        let (outcome, wait) = match send(target, key, body.clone()).await {
            Ok(reply) if is_worth_retrying(reply.status) => {
                (outcome_of(&reply), reply.retry_after().unwrap_or(backoff))
            }
            Ok(reply) => return (outcome_of(&reply), n_retries),
            Err(error) => {
                let reason = format!("{error:#}");
                (Outcome::Unknown { reason }, backoff)
            }
        };
        if deadline < Instant::now() + wait {
            return (outcome, n_retries);
        }
        tokio::time::sleep(wait).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
        n_retries += 1;
    }
}

async fn send(target: Target<'_>, key: &str, body: Bytes) -> anyhow::Result<Reply> {
    let headers = [
        ("content-type", target.media_type),
        ("idempotency-key", key),
    ];
    target
        .client
        .send(Method::POST, target.path, &headers, body)
        .await
}

fn is_worth_retrying(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 502 | 503 | 504)
}

fn outcome_of(reply: &Reply) -> Outcome {
    if reply.status != StatusCode::CREATED {
        return Outcome::Refused {
            status: reply.status.as_u16(),
            reason: reply.excerpt(),
        };
    }
    let number = |answer: &serde_json::Value, name: &str| {
        answer.get(name).and_then(serde_json::Value::as_u64)
    };
    match reply.json() {
        Ok(answer) => match number(&answer, "accepted") {
            Some(accepted) => Outcome::Acked {
                accepted,
                dead_lettered: number(&answer, "dead_lettered").unwrap_or(0),
                replayed: answer.get("replayed").and_then(serde_json::Value::as_bool) == Some(true),
            },
            None => Outcome::Unknown {
                reason: format!("201 without `accepted`: {}", reply.excerpt()),
            },
        },
        Err(error) => Outcome::Unknown {
            reason: format!("{error:#}"),
        },
    }
}
