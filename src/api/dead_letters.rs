//! `GET /dead-letters` and `DELETE /dead-letters/{id}`. The replay stands in `intake`: it writes.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;

use crate::api::answer::timed_object;
use crate::api::{ApiState, encode};
use crate::common::error::{Error, ErrorKind, Result};
use crate::common::http::{Params, invalid_value, json_response, quoted};
use crate::record::Position;
use crate::search::Outcome;
use crate::store::DeadLetterRequest;

pub const PARAMETERS: [&str; 3] = ["q", "limit", "cursor"];

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
    let page = state.store.dead_letters(request).await?;
    Ok(timed_object(
        &encode::dead_letters(&page),
        Outcome::Bypass,
        started,
    ))
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
