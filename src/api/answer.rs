//! The frame of every answer to a question: `X-Cache`, `took_ms`, and small JSON helpers. Knows no question.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;

use crate::common::http::{JSON, bytes_response};
use crate::search::Outcome;

pub const X_CACHE: HeaderName = HeaderName::from_static("x-cache");
const X_TOOK_MS: HeaderName = HeaderName::from_static("x-took-ms");

/// `Cache-Control: no-cache` (or `no-store`) asks for a fresh answer.
pub fn wants_fresh(headers: &HeaderMap) -> bool {
    let values = headers.get_all(CACHE_CONTROL).into_iter();
    let mut directives = values.flat_map(|value| value.to_str().unwrap_or_default().split(','));
    directives.any(|directive| {
        let directive = directive.trim();
        directive.eq_ignore_ascii_case("no-cache") || directive.eq_ignore_ascii_case("no-store")
    })
}

/// A JSON object with `took_ms` as its last member. The object comes from the cache as it is: only its closing brace is moved.
pub fn timed_object(object: &[u8], outcome: Outcome, started: Instant) -> Response {
    let open = object.strip_suffix(b"}").unwrap_or(object);
    let mut took = String::with_capacity(32);
    let separator = if open == b"{" { "" } else { "," };
    let _ = write!(
        took,
        "{separator}\"took_ms\":{}}}",
        took_ms(started.elapsed())
    );
    let body = [open, took.as_bytes()].concat();
    framed(bytes_response(StatusCode::OK, JSON, body), outcome, started)
}

/// Any other answer: the time goes into a header.
pub fn framed(mut response: Response, outcome: Outcome, started: Instant) -> Response {
    let headers = response.headers_mut();
    headers.insert(X_CACHE, HeaderValue::from_static(outcome.name()));
    if let Ok(took) = HeaderValue::from_str(&took_ms(started.elapsed())) {
        headers.insert(X_TOOK_MS, took);
    }
    // The server's own cache knows when an answer is no longer true; a browser's does not, and logs need not lie on its disk.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Milliseconds to the microsecond.
fn took_ms(took: Duration) -> String {
    let micros = took.as_micros();
    format!("{}.{:03}", micros / 1000, micros % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_time_taken_is_the_last_member() {
        for (object, expected) in [(&b"{}"[..], 1), (b"{\"logs\":[]}", 2)] {
            let response = timed_object(object, Outcome::Hit, Instant::now());
            assert_eq!(response.headers()[X_CACHE], "hit");
            let body = axum::body::to_bytes(response.into_body(), 1000)
                .await
                .unwrap();
            let json: serde_json::Map<String, serde_json::Value> =
                serde_json::from_slice(&body).unwrap();
            assert_eq!(json.len(), expected);
            assert!(json["took_ms"].as_f64().unwrap() < 1000.0);
        }
    }

    #[test]
    fn a_fresh_answer_can_be_asked_for() {
        let mut headers = HeaderMap::new();
        assert!(!wants_fresh(&headers));
        headers.insert(
            CACHE_CONTROL,
            HeaderValue::from_static("max-age=0, No-Cache"),
        );
        assert!(wants_fresh(&headers));
    }
}
