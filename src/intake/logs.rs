//! `POST /logs`.

use std::sync::Arc;

use axum::extract::{Request as HttpRequest, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use serde::Serialize;

use crate::common::error::{Error, Result};
use crate::common::http::{JSON, Params, bytes_response, invalid_value};
use crate::intake::decoding::{Request, Work};
use crate::intake::{IntakeState, body, now_ns};
use crate::queue::{Appended, Idempotency};
use crate::record::Position;
use crate::wire::native::batch;
use crate::wire::native::decode::{Decoded, Hint, LineError};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const DURABILITY: HeaderName = HeaderName::from_static("x-durability");
const KEY_BYTES_MAX: usize = 255;
/// Keeps the keys of clients apart from those that Logyard makes itself.
const KEY_PREFIX: &str = "=";
/// Bytes of a default for `source` or `level`.
const DEFAULT_BYTES_MAX: usize = 1024;

/// What is asked besides the body.
struct Asked {
    request: Request,
    key: Option<String>,
    waits_for_index: bool,
}

pub(super) async fn post_logs(
    State(state): State<Arc<IntakeState>>,
    request: HttpRequest,
) -> Result<Response> {
    let (parts, body) = request.into_parts();
    let params = Params::parse(&parts.uri, &["source", "level", "wait_for"])?;
    let asked = asked(&params, &parts.headers)?;
    let raw = body::read(&state, &parts.headers, body).await?;
    let sent_bytes = raw.bytes.len();
    let outcome = store(&state, asked, raw).await;
    let figures = &state.metrics.intake;
    match &outcome {
        Ok(_) => figures.received_bytes.inc_by(sent_bytes as u64),
        Err(_) => figures.refused_bytes.inc_by(sent_bytes as u64),
    };
    outcome
}

fn asked(params: &Params, headers: &HeaderMap) -> Result<Asked> {
    let waits_for_index = match params.one("wait_for")? {
        None => false,
        Some("indexed") => true,
        Some(other) => return Err(invalid_value("wait_for", other, "`indexed`")),
    };
    let content_type = headers
        .get(CONTENT_TYPE)
        .map(|value| String::from_utf8_lossy(value.as_bytes()));
    let content_type = content_type.as_deref().unwrap_or_default();
    let hint = Hint::from_content_type(content_type)?;
    let key = idempotency_key(headers)?;
    let default = |name| -> Result<Option<String>> {
        let value = params.one(name)?;
        if value.is_some_and(|value| DEFAULT_BYTES_MAX < value.len()) {
            return Err(invalid_value(
                name,
                value.unwrap_or_default(),
                "at most 1024 bytes long",
            ));
        }
        Ok(value.map(str::to_owned))
    };
    Ok(Asked {
        request: Request {
            arrival_ns: now_ns(),
            hint: Some(hint),
            is_batch: content_type.trim() == batch::MEDIA_TYPE,
            source: default("source")?,
            level: default("level")?,
            wants_hash: key.is_some(),
        },
        key,
        waits_for_index,
    })
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else {
        return Ok(None);
    };
    let text = std::str::from_utf8(value.as_bytes()).unwrap_or_default();
    if text.is_empty() || KEY_BYTES_MAX < text.len() {
        return Err(Error::invalid(
            "invalid_idempotency_key",
            format!("`Idempotency-Key` must be 1 to {KEY_BYTES_MAX} bytes of text"),
        )
        .with_parameter("Idempotency-Key"));
    }
    Ok(Some(format!("{KEY_PREFIX}{text}")))
}

async fn store(state: &IntakeState, asked: Asked, raw: body::RawBody) -> Result<Response> {
    // Held until the queue has the batch.
    let (work, _raw) = state.decoders.decode(raw, asked.request).await?;
    let Work {
        decoded,
        plain_bytes,
        body_hash,
    } = work;
    let figures = &state.metrics.intake;
    let answer = stored_answer(&decoded)?;
    let count = decoded.batch.len();
    if count == 0 {
        return answer_with(state, &answer, None, false, None);
    }
    let idempotency = asked.key.map(|key| Idempotency {
        key,
        body_hash,
        answer: answer.clone(),
    });
    let appended = match state.queue.append(decoded.batch, idempotency).await {
        Ok(appended) => appended,
        Err(e) => {
            figures.refused_lines.inc_by(u64::from(count));
            return Err(e);
        }
    };
    let (answer, is_replayed) = match &appended.replayed {
        Some(first) => (first, true),
        None => (&answer, false),
    };
    if is_replayed {
        figures.replayed_requests.inc();
    } else {
        figures.accepted_lines.inc_by(u64::from(decoded.accepted));
        figures
            .dead_lettered_lines
            .inc_by(u64::from(decoded.dead_lettered));
        figures.accepted_bytes.inc_by(plain_bytes as u64);
    }
    let is_indexed = if asked.waits_for_index {
        Some(wait_until_indexed(state, &appended).await)
    } else {
        None
    };
    answer_with(state, answer, Some(appended.first), is_replayed, is_indexed)
}

/// False if it took longer than the limit: the records are durable, and will be searchable later.
async fn wait_until_indexed(state: &IntakeState, appended: &Appended) -> bool {
    let mut searchable = state.store.searchable();
    let covered = searchable.wait_for(|checkpoint| checkpoint.includes(&appended.covers));
    let waited = tokio::time::timeout(state.options.indexed_wait, covered).await;
    matches!(waited, Ok(Ok(_)))
}

/// The part of the answer that a replay gives back.
#[derive(Serialize)]
struct StoredAnswer<'a> {
    accepted: u32,
    dead_lettered: u32,
    errors: Vec<StoredError<'a>>,
}

#[derive(Serialize)]
struct StoredError<'a> {
    line: u64,
    code: &'a str,
    reason: &'a str,
    excerpt: &'a str,
}

impl<'a> StoredError<'a> {
    fn of(error: &'a LineError) -> Self {
        Self {
            line: error.line,
            code: error.code,
            reason: &error.reason,
            excerpt: &error.excerpt,
        }
    }
}

fn stored_answer(decoded: &Decoded) -> Result<Bytes> {
    let answer = StoredAnswer {
        accepted: decoded.accepted,
        dead_lettered: decoded.dead_lettered,
        errors: decoded.errors.iter().map(StoredError::of).collect(),
    };
    let json = serde_json::to_vec(&answer)
        .map_err(|e| Error::internal("cannot write the answer as JSON").with_source(e))?;
    Ok(Bytes::from(json))
}

#[derive(Serialize)]
struct AnswerTail<'a> {
    durability: &'a str,
    position: Option<String>,
    replayed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    indexed: Option<bool>,
}

fn answer_with(
    state: &IntakeState,
    stored: &[u8],
    position: Option<Position>,
    replayed: bool,
    indexed: Option<bool>,
) -> Result<Response> {
    let durability = state.queue.backlog().durability;
    let tail = serde_json::to_vec(&AnswerTail {
        durability,
        position: position.map(Position::to_text),
        replayed,
        indexed,
    })
    .map_err(|e| Error::internal("cannot write the answer as JSON").with_source(e))?;
    // Two objects, one behind the other, become one: `{a}` and `{b}` → `{a,b}`.
    let head = stored.strip_suffix(b"}").unwrap_or(stored);
    let mut body = Vec::with_capacity(head.len() + tail.len());
    body.extend_from_slice(head);
    body.push(b',');
    body.extend_from_slice(tail.strip_prefix(b"{").unwrap_or(&tail));
    let mut response = bytes_response(StatusCode::CREATED, JSON, body);
    let headers = response.headers_mut();
    headers.insert(DURABILITY, HeaderValue::from_static(durability));
    Ok(response)
}
