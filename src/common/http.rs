//! What every HTTP endpoint shares: the one table from error kind to status, the error body, query parameters that refuse what they
//! do not know, and the small answers. Knows nothing of logs, and nothing of connections (`common::server`).

use axum::body::Body;
use axum::extract::Query;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::common::error::{Error, ErrorKind, Result};

pub const JSON: &str = "application/json";
pub const NDJSON: &str = "application/x-ndjson";

/// Most bytes of one parameter's value that a message repeats.
const QUOTED_BYTES_MAX: usize = 80;

/// For a part of a URL's path, or the value of a query parameter; `*` stays, which means any text in names of indices.
pub fn percent_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~' | b'*') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// The one table: what the caller should do → HTTP status.
pub fn status(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::Invalid => StatusCode::BAD_REQUEST,
        ErrorKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorKind::UnsupportedMedia => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ErrorKind::Conflict => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorKind::Forbidden => StatusCode::FORBIDDEN,
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        ErrorKind::Busy => StatusCode::TOO_MANY_REQUESTS,
        ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::Timeout => StatusCode::GATEWAY_TIMEOUT,
        // The client is gone; the status is for the request log alone.
        ErrorKind::Cancelled => StatusCode::REQUEST_TIMEOUT,
        ErrorKind::Corrupt | ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: ErrorFields<'a>,
}

#[derive(Serialize)]
struct ErrorFields<'a> {
    code: &'a str,
    message: &'a str,
    position: Option<usize>,
    parameter: Option<&'a str>,
}

/// `{"error": {"code", "message", "position", "parameter"}}`.
pub fn error_body(error: &Error) -> Vec<u8> {
    let body = ErrorBody {
        error: ErrorFields {
            code: error.code,
            message: &error.message,
            position: error.position,
            parameter: error.parameter.as_deref(),
        },
    };
    serde_json::to_vec(&body).expect("texts and numbers always become JSON")
}

/// So that a handler is `async fn … -> Result<Response>`. Faults of ours are logged here, once; the client sees the message alone.
impl IntoResponse for Error {
    fn into_response(self) -> Response {
        match self.kind {
            ErrorKind::Internal | ErrorKind::Corrupt => {
                tracing::error!(code = self.code, error = ?self, "request failed");
            }
            ErrorKind::Invalid
            | ErrorKind::TooLarge
            | ErrorKind::UnsupportedMedia
            | ErrorKind::Conflict
            | ErrorKind::Forbidden
            | ErrorKind::NotFound
            | ErrorKind::MethodNotAllowed
            | ErrorKind::Busy
            | ErrorKind::Unavailable
            | ErrorKind::Timeout
            | ErrorKind::Cancelled => {}
        }
        let mut response = bytes_response(status(self.kind), JSON, error_body(&self));
        if let Some(seconds) = self.retry_after_s {
            response
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// An answer with this body and `Content-Type`.
pub fn bytes_response(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Body>,
) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// An answer whose body is `value` as JSON.
pub fn json_response(status: StatusCode, value: &impl Serialize) -> Result<Response> {
    let body = serde_json::to_vec(value)
        .map_err(|e| Error::internal("cannot write the answer as JSON").with_source(e))?;
    Ok(bytes_response(status, JSON, body))
}

/// The parameters of a query string, decoded, in their order, all of them known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params(Vec<(String, String)>);

impl Params {
    /// Refuses names that are not in `known`, and says which one is nearest.
    pub fn parse(uri: &Uri, known: &[&str]) -> Result<Self> {
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri).map_err(|e| {
            Error::invalid(
                "invalid_query_string",
                format!("the query string cannot be read: {e}"),
            )
        })?;
        for (name, _) in &pairs {
            if !known.contains(&name.as_str()) {
                return Err(unknown_parameter(name, known));
            }
        }
        Ok(Self(pairs))
    }

    /// The parameters as they were given.
    pub fn pairs(&self) -> &[(String, String)] {
        &self.0
    }

    /// The value of a parameter that may be given once. An empty value counts as absent.
    pub fn one(&self, name: &str) -> Result<Option<&str>> {
        let mut values = self
            .0
            .iter()
            .filter(|(n, _)| n == name)
            .map(|(_, value)| value.as_str());
        let first = values.next();
        if values.next().is_some() {
            return Err(Error::invalid(
                "repeated_parameter",
                format!("`{name}` is given more than once; give it once"),
            )
            .with_parameter(name));
        }
        Ok(first.filter(|value| !value.is_empty()))
    }

    /// The values of a parameter that may be repeated or hold several values separated by commas. Empty values are left out.
    pub fn list(&self, name: &str) -> Vec<String> {
        let values = self.0.iter().filter(|(n, _)| n == name);
        let parts = values.flat_map(|(_, value)| value.split(','));
        parts
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(str::to_owned)
            .collect()
    }

    /// `true` or `false` (or `1`, `0`, and nothing at all for true: `?total`).
    pub fn boolean(&self, name: &str) -> Result<Option<bool>> {
        let is_given = self.0.iter().any(|(n, _)| n == name);
        match self.one(name)? {
            None if is_given => Ok(Some(true)),
            None => Ok(None),
            Some("true" | "1") => Ok(Some(true)),
            Some("false" | "0") => Ok(Some(false)),
            Some(other) => Err(invalid_value(name, other, "`true` or `false`")),
        }
    }

    /// A whole number between `min` and `max`.
    pub fn number(&self, name: &str, min: u64, max: u64) -> Result<Option<u64>> {
        let Some(text) = self.one(name)? else {
            return Ok(None);
        };
        match text.parse() {
            Ok(number) if min <= number && number <= max => Ok(Some(number)),
            _ => Err(invalid_value(
                name,
                text,
                &format!("a whole number from {min} to {max}"),
            )),
        }
    }
}

/// A parameter's value that is not what it must be.
pub fn invalid_value(name: &str, value: &str, expected: &str) -> Error {
    Error::invalid(
        "invalid_parameter",
        format!("`{name}` must be {expected}, not `{}`", quoted(value)),
    )
    .with_parameter(name)
}

fn unknown_parameter(name: &str, known: &[&str]) -> Error {
    let message = match nearest(name, known) {
        Some(near) => format!(
            "unknown parameter `{}`; did you mean `{near}`?",
            quoted(name)
        ),
        None if known.is_empty() => {
            format!(
                "unknown parameter `{}`; this endpoint takes none",
                quoted(name)
            )
        }
        None => format!(
            "unknown parameter `{}`; known are {}",
            quoted(name),
            known.join(", ")
        ),
    };
    Error::invalid("unknown_parameter", message).with_parameter(quoted(name))
}

/// The known name that `name` is most likely a slip of.
pub fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let name = name.to_lowercase();
    // A name far longer than any known one is no slip, and comparing costs the product of the lengths.
    if 64 < name.chars().count() {
        return None;
    }
    let similarity = |known: &str| strsim::jaro_winkler(&name, known);
    let scored = known.iter().map(|known| (similarity(known), *known));
    let best = scored.max_by(|(a, _), (b, _)| a.total_cmp(b));
    best.filter(|(score, _)| 0.75 < *score)
        .map(|(_, known)| known)
}

/// `text`, cut to what a message can bear.
pub fn quoted(text: &str) -> String {
    if text.len() <= QUOTED_BYTES_MAX {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(QUOTED_BYTES_MAX);
    format!("{}…", text.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(query: &str) -> Result<Params> {
        let uri: Uri = format!("/logs?{query}").parse().unwrap();
        Params::parse(&uri, &["limit", "level", "start", "total", "q"])
    }

    fn message(query: &str) -> String {
        params(query).unwrap_err().message
    }

    #[test]
    fn an_unknown_parameter_is_refused_with_the_nearest_known_name() {
        assert_eq!(
            message("limt=1"),
            "unknown parameter `limt`; did you mean `limit`?"
        );
        assert_eq!(
            message("Level=x"),
            "unknown parameter `Level`; did you mean `level`?"
        );
        assert_eq!(
            message("zzz=1"),
            "unknown parameter `zzz`; known are limit, level, start, total, q"
        );
        assert!(message(&format!("{}=1", "é".repeat(5000))).len() < 250);
        let error = params("limt=1").unwrap_err();
        assert_eq!(error.parameter.as_deref(), Some("limt"));
        assert_eq!(status(error.kind), StatusCode::BAD_REQUEST);
    }

    #[test]
    fn values_are_decoded_repeated_and_separated_by_commas() {
        let given = params("level=a,b&level=c%20d&q=x%3Ay+z&level=").unwrap();
        assert_eq!(given.list("level"), ["a", "b", "c d"]);
        assert_eq!(given.one("q").unwrap(), Some("x:y z"));
        assert_eq!(given.one("start").unwrap(), None);
        assert_eq!(
            params("q=a&q=b").unwrap().one("q").unwrap_err().code,
            "repeated_parameter"
        );
    }

    #[test]
    fn numbers_and_booleans_say_what_they_must_be() {
        assert_eq!(
            params("limit=7").unwrap().number("limit", 0, 10).unwrap(),
            Some(7)
        );
        for bad in ["11", "-1", "x", "1.5", "99999999999999999999999"] {
            let given = params(&format!("limit={bad}")).unwrap();
            let error = given.number("limit", 0, 10).unwrap_err();
            assert_eq!(
                error.message,
                format!("`limit` must be a whole number from 0 to 10, not `{bad}`")
            );
        }
        assert_eq!(
            params("total").unwrap().boolean("total").unwrap(),
            Some(true)
        );
        assert_eq!(
            params("total=false").unwrap().boolean("total").unwrap(),
            Some(false)
        );
        assert!(params("total=maybe").unwrap().boolean("total").is_err());
    }

    #[test]
    fn an_error_is_the_documented_body_with_the_fitting_status() {
        let error = Error::invalid("invalid_query", "a quote is open")
            .with_parameter("q")
            .with_position(12);
        assert_eq!(
            String::from_utf8(error_body(&error)).unwrap(),
            r#"{"error":{"code":"invalid_query","message":"a quote is open","position":12,"parameter":"q"}}"#
        );
        let response = Error::unavailable("queue_full", "full")
            .with_retry_after(3)
            .into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[RETRY_AFTER], "3");
        assert_eq!(response.headers()[CONTENT_TYPE], JSON);
    }

    #[test]
    fn what_means_something_in_a_url_is_encoded() {
        assert_eq!(
            percent_encoded("level:error AND ü+"),
            "level%3Aerror%20AND%20%C3%BC%2B"
        );
        assert_eq!(percent_encoded("a b,%C3~*"), "a%20b%2C%25C3~*");
    }
}
