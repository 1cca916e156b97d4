//! `POST /dead-letters/replay`: dead letters are read again, and those that are records now move to the logs.
//!
//! A letter becomes a record in two steps, append and delete. The append carries an idempotency key made of the letter's position, so a
//! replay that was broken off between the two does not double the record when it is repeated within the window.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request as HttpRequest, State};
use axum::http::StatusCode;
use axum::response::Response;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use hashbrown::HashSet;
use http_body_util::{BodyExt as _, Limited};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use crate::common::error::{Error, ErrorKind, Result};
use crate::common::http::{Params, json_response};
use crate::intake::IntakeState;
use crate::intake::decoding::Request;
use crate::queue::Idempotency;
use crate::record::{DeadLetter, Position};
use crate::store::DeadLetterRequest;

const BODY_BYTES_MAX: usize = 1 << 20;
const PAGE_LETTERS: usize = 500;
/// Letters appended at the same time: they share the queue's syncs.
const CONCURRENT: usize = 32;

/// Either `ids` or `q`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    ids: Option<Vec<String>>,
    q: Option<String>,
    /// `json` (default): as a line of NDJSON. `text`: as a line of text, which always succeeds.
    r#as: Option<String>,
}

#[derive(Serialize)]
struct Answer {
    replayed: usize,
    failed: usize,
    not_found: usize,
    /// More letters match than one replay takes on: ask again.
    has_more: bool,
    results: Vec<LetterResult>,
}

#[derive(Serialize)]
struct LetterResult {
    id: String,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Where the record stands now.
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<String>,
}

pub(super) async fn post_replay(
    State(state): State<Arc<IntakeState>>,
    request: HttpRequest,
) -> Result<Response> {
    Params::parse(request.uri(), &[])?;
    let asked = read_asked(request.into_body()).await?;
    let is_text = match asked.r#as.as_deref() {
        None | Some("json") => false,
        Some("text") => true,
        Some(_) => return Err(invalid("`as` must be `json` or `text`").with_parameter("as")),
    };
    let found = find(&state, asked).await?;
    let outcomes: Vec<(Position, LetterResult)> = stream::iter(found.letters)
        .map(|letter| replay(&state, letter, is_text))
        .buffered(CONCURRENT)
        .try_collect()
        .await?;
    let done = outcomes
        .iter()
        .filter(|(_, result)| result.outcome == "replayed")
        .map(|(position, _)| *position);
    state.store.delete_dead_letters(done.collect()).await?;
    let mut results: Vec<_> = outcomes.into_iter().map(|(_, result)| result).collect();
    results.extend(found.missing);
    let count = |outcome| results.iter().filter(|r| r.outcome == outcome).count();
    let answer = Answer {
        replayed: count("replayed"),
        failed: count("failed"),
        not_found: count("not_found"),
        has_more: found.has_more,
        results,
    };
    json_response(StatusCode::OK, &answer)
}

async fn read_asked(body: Body) -> Result<Asked> {
    let body = Limited::new(body, BODY_BYTES_MAX).collect().await.map_err(|e| {
        Error::new(
            ErrorKind::TooLarge,
            "body_too_large",
            format!("the list of dead letters cannot be read or is larger than {BODY_BYTES_MAX} bytes"),
        )
        .with_source(e)
    })?;
    serde_json::from_slice(&body.to_bytes()).map_err(|e| {
        invalid(&format!(
            "expected {{\"ids\": […]}} or {{\"q\": \"…\"}}: {e}"
        ))
    })
}

fn invalid(message: &str) -> Error {
    Error::invalid("invalid_replay", message)
}

struct FoundLetters {
    letters: Vec<DeadLetter>,
    missing: Vec<LetterResult>,
    has_more: bool,
}

async fn find(state: &IntakeState, asked: Asked) -> Result<FoundLetters> {
    match (asked.ids, asked.q) {
        (Some(ids), None) => find_by_id(state, ids).await,
        (None, Some(q)) => find_by_query(state, q).await,
        _ => Err(invalid("give either `ids` or `q` (an empty `q` means all)")),
    }
}

async fn find_by_id(state: &IntakeState, ids: Vec<String>) -> Result<FoundLetters> {
    let letters_max = state.options.replay_letters_max;
    if letters_max < ids.len() {
        let message = format!("at most {letters_max} ids at once, not {}", ids.len());
        return Err(invalid(&message).with_parameter("ids"));
    }
    let mut seen = HashSet::new();
    let mut positions = Vec::new();
    let mut missing = Vec::new();
    for id in ids {
        match Position::from_text(&id) {
            Some(position) if seen.insert(position) => positions.push(position),
            Some(_) => {}
            None => missing.push(not_found(id)),
        }
    }
    let letters = state
        .store
        .dead_letters_by_position(positions.clone())
        .await?;
    let found: HashSet<_> = letters.iter().map(|letter| letter.position).collect();
    let gone = positions
        .into_iter()
        .filter(|position| !found.contains(position));
    missing.extend(gone.map(|position| not_found(position.to_text())));
    Ok(FoundLetters {
        letters,
        missing,
        has_more: false,
    })
}

fn not_found(id: String) -> LetterResult {
    LetterResult {
        id,
        outcome: "not_found",
        code: None,
        reason: None,
        position: None,
    }
}

async fn find_by_query(state: &IntakeState, q: String) -> Result<FoundLetters> {
    let mut letters: Vec<DeadLetter> = Vec::new();
    let mut has_more = true;
    while has_more && letters.len() < state.options.replay_letters_max {
        let page = state
            .store
            .dead_letters(DeadLetterRequest {
                q: q.clone(),
                limit: PAGE_LETTERS.min(state.options.replay_letters_max - letters.len()),
                before: letters.last().map(|letter| letter.position),
            })
            .await?;
        has_more = page.has_more && !page.letters.is_empty();
        letters.extend(page.letters);
    }
    Ok(FoundLetters {
        letters,
        missing: Vec::new(),
        has_more,
    })
}

async fn replay(
    state: &IntakeState,
    letter: DeadLetter,
    is_text: bool,
) -> Result<(Position, LetterResult)> {
    let position = letter.position;
    let id = position.to_text();
    let request = Request {
        arrival_ns: letter.arrival_ns,
        source: letter.source.clone(),
        ..Request::default()
    };
    let decoded = state.decoders.decode_line(&letter.raw, is_text, &request);
    let fault = match &decoded {
        Ok(decoded) => decoded
            .errors
            .first()
            .map(|error| (error.code.to_owned(), error.reason.clone())),
        Err(error) => Some((error.code.to_owned(), error.message.clone())),
    };
    let decoded = match (decoded, fault) {
        (Ok(decoded), None) => decoded,
        (_, fault) => {
            let (code, reason) = fault.unzip();
            let result = LetterResult {
                id,
                outcome: "failed",
                code,
                reason,
                position: None,
            };
            return Ok((position, result));
        }
    };
    let idempotency = Idempotency {
        key: format!("replay-{id}"),
        body_hash: xxh3_128(&letter.raw) ^ u128::from(is_text),
        answer: bytes::Bytes::new(),
    };
    let appended = state.queue.append(decoded.batch, Some(idempotency)).await?;
    let result = LetterResult {
        id,
        outcome: "replayed",
        code: None,
        reason: None,
        position: Some(appended.first.to_text()),
    };
    Ok((position, result))
}
