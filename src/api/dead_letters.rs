//! `GET /dead-letters` and `DELETE /dead-letters/{id}`. The replay stands in `intake`: it writes.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;

use crate::api::answer::{framed, timed_object};
use crate::api::{ApiState, encode, export};
use crate::common::error::{Error, ErrorKind, Result};
use crate::common::http::{Params, invalid_value, json_response, quoted};
use crate::record::Position;
use crate::search::Outcome;
use crate::store::{DeadLetterPage, DeadLetterRequest};
use crate::wire::native::batch;

pub const PARAMETERS: [&str; 4] = ["q", "limit", "cursor", "format"];

pub async fn list(State(state): State<Arc<ApiState>>, uri: Uri) -> Result<Response> {
    let started = Instant::now();
    let params = Params::parse(&uri, &PARAMETERS)?;
    let limit = params
        .number("limit", 0, state.options.page_limit_max)?
        .unwrap_or(100);
    let before = match params.one("cursor")? {
        Some(text) => {
            let position = Position::from_text(text);
            Some(position.ok_or_else(|| {
                invalid_value("cursor", text, "a `next_cursor` of an earlier answer")
            })?)
        }
        None => None,
    };
    let request = DeadLetterRequest {
        q: params.one("q")?.unwrap_or_default().to_owned(),
        limit: usize::try_from(limit).unwrap_or(usize::MAX),
        before,
    };
    let is_batch = match params.one("format")? {
        None | Some("json") => false,
        Some("batch") => true,
        Some(other) => return Err(invalid_value("format", other, "json or batch")),
    };
    let page = state.store.dead_letters(request).await?;
    if is_batch {
        return Ok(framed(batch_of(&page), Outcome::Bypass, started));
    }
    Ok(timed_object(
        &encode::dead_letters(&page),
        Outcome::Bypass,
        started,
    ))
}

/// The newest letters that arrived together, exactly as they are kept, for another Logyard.
fn batch_of(page: &DeadLetterPage) -> Response {
    let arrival_ns = page.letters.first().map_or(0, |letter| letter.arrival_ns);
    let together = page
        .letters
        .iter()
        .take_while(|letter| letter.arrival_ns == arrival_ns);
    let count = together.count();
    let letters = page.letters.get(..count).unwrap_or_default();
    let has_more = page.has_more || count < page.letters.len();
    let cursor = letters.last().filter(|_| has_more);
    // Oldest first, as they were appended.
    let bytes = batch::of_letters(letters.iter().rev(), arrival_ns);
    export::batch_response(
        bytes.as_bytes(),
        cursor.map(|letter| letter.position.to_text()),
    )
}

pub async fn delete(
    State(state): State<Arc<ApiState>>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Response> {
    Params::parse(&uri, &[])?;
    let position = Position::from_text(&id);
    let deleted = match position {
        Some(position) => state.store.delete_dead_letters(vec![position]).await?,
        None => 0,
    };
    if deleted == 0 {
        let message = format!(
            "there is no dead letter `{}`; `GET /dead-letters` lists them",
            quoted(&id)
        );
        return Err(Error::new(
            ErrorKind::NotFound,
            "dead_letter_not_found",
            message,
        ));
    }
    json_response(StatusCode::OK, &serde_json::json!({"deleted": deleted}))
}
