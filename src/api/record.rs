//! One record and what happened around it: `/logs/{id}`, `/logs/{id}/context`.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;

use crate::api::answer::{framed, timed_object};
use crate::api::{ApiState, encode, selection};
use crate::common::error::{Error, ErrorKind, Result};
use crate::common::http::{JSON, Params, bytes_response, invalid_value, quoted};
use crate::query::{Expr, Order, SearchAnswer, SearchRequest, Selection, TimeRange};
use crate::record::{Record, RecordKey, SOURCE, Value};
use crate::search::Outcome;
use crate::wire::json_text::push_value;
use crate::wire::native::encode::push_record;

pub const CONTEXT_PARAMETERS: [&str; 3] = ["before", "after", "scope"];
const NEIGHBOURS_MAX: u64 = 1000;

pub async fn record(
    State(state): State<Arc<ApiState>>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Response> {
    let started = Instant::now();
    Params::parse(&uri, &[])?;
    let record = find(&state, &id).await?;
    let mut body = Vec::with_capacity(1024);
    push_record(&mut body, &record, |_| true);
    Ok(framed(
        bytes_response(StatusCode::OK, JSON, body),
        Outcome::Bypass,
        started,
    ))
}

pub async fn context(
    State(state): State<Arc<ApiState>>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Response> {
    let started = Instant::now();
    let params = Params::parse(&uri, &CONTEXT_PARAMETERS)?;
    let n_before = params.number("before", 0, NEIGHBOURS_MAX)?.unwrap_or(10);
    let n_after = params.number("after", 0, NEIGHBOURS_MAX)?.unwrap_or(10);
    let is_same_source = match params.one("scope")? {
        None | Some("source") => true,
        Some("all") => false,
        Some(other) => return Err(invalid_value("scope", other, "source or all")),
    };
    let record = find(&state, &id).await?;
    let filter = if is_same_source {
        selection::same_source(source_of(&record).as_deref())
    } else {
        Expr::All
    };
    let before = neighbours(&state, &record, filter.clone(), Order::Descending, n_before).await?;
    let after = neighbours(&state, &record, filter, Order::Ascending, n_after).await?;
    Ok(timed_object(
        &encode::context(&before, &record, &after),
        Outcome::Bypass,
        started,
    ))
}

async fn find(state: &Arc<ApiState>, id: &str) -> Result<Record> {
    let found = match RecordKey::from_id(id) {
        Some(key) => state.searcher.get(key).await?,
        None => None,
    };
    found.ok_or_else(|| {
        let message = format!(
            "there is no record `{}`: it was dropped by its age, or never was",
            quoted(id)
        );
        Error::new(ErrorKind::NotFound, "record_not_found", message)
    })
}

/// The text of the record's source, as a question names it; `None` if it has none.
fn source_of(record: &Record) -> Option<String> {
    let (_, value) = record.fields.iter().find(|(key, _)| &**key == SOURCE)?;
    match value {
        Value::Null => None,
        Value::Str(text) => Some(text.clone()),
        Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Number(_) | Value::Json(_) => {
            let mut json = Vec::new();
            push_value(&mut json, value.as_value_ref());
            String::from_utf8(json).ok()
        }
    }
}

async fn neighbours(
    state: &Arc<ApiState>,
    record: &Record,
    filter: Expr,
    order: Order,
    count: u64,
) -> Result<SearchAnswer> {
    let selection = Selection {
        range: TimeRange::default(),
        filter,
        positions: None,
    };
    let request = SearchRequest {
        selection,
        order,
        limit: usize::try_from(count).unwrap_or(usize::MAX),
        after: Some(record.key),
        wants_total: false,
        fields: None,
    };
    state.searcher.records(request).await
}
