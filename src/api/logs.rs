//! `GET /logs`: a page as JSON, all that match as NDJSON or CSV, or a page as a batch for another Logyard.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_DISPOSITION};
use axum::http::{HeaderMap, HeaderValue, Uri};
use axum::response::Response;

use crate::api::answer::{framed, timed_object, wants_fresh};
use crate::api::encode::Fields;
use crate::api::export::{self, Format};
use crate::api::{ApiState, encode, selection};
use crate::common::error::{Error, Result};
use crate::common::http::{NDJSON, Params, invalid_value};
use crate::query::{Order, SearchRequest};
use crate::record::{Aliases, LEVEL, MESSAGE, RecordKey, SOURCE};
use crate::search::Outcome;

pub const PARAMETERS: [&str; 6] = ["limit", "order", "cursor", "total", "fields", "format"];
/// Fields in one request.
const FIELDS_MAX: usize = 1000;
const LIMIT_DEFAULT: u64 = 100;

/// What of a request is neither selection nor format.
struct Paging {
    /// `None`: all.
    limit: Option<u64>,
    order: Order,
    after: Option<RecordKey>,
    fields: Fields,
}

pub async fn logs(
    State(state): State<Arc<ApiState>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response> {
    let started = Instant::now();
    let params = Params::parse(&uri, &[&selection::PARAMETERS[..], &PARAMETERS].concat())?;
    let is_batch = params.one("format")? == Some("batch");
    let format = match is_batch {
        true => None,
        false => format(&params, &headers)?,
    };
    let paging = paging(&params, &state.options.aliases)?;
    let wants_total = params.boolean("total")?.unwrap_or(true);
    let selection = selection::selection(&params, &state.options.aliases)?;
    let mut request = SearchRequest {
        selection,
        order: paging.order,
        limit: 0,
        after: paging.after,
        wants_total,
        fields: fields_read(&paging.fields),
    };
    let Some(format) = format else {
        request.limit = page_limit(&state, paging.limit)?;
        if is_batch {
            (request.wants_total, request.fields) = (false, None);
            let response = export::batch(&state, request).await?;
            return Ok(framed(response, Outcome::Bypass, started));
        }
        let (object, outcome) = state
            .searcher
            .search(request, wants_fresh(&headers), move |answer| {
                Ok(encode::search(answer, &paging.fields))
            })
            .await?;
        return Ok(timed_object(&object, outcome, started));
    };
    request.wants_total = false;
    let limit = paging.limit.unwrap_or(u64::MAX);
    let mut response = export::stream(state, request, limit, format, paging.fields).await?;
    response.headers_mut().insert(
        CONTENT_DISPOSITION,
        HeaderValue::from_static(format.disposition()),
    );
    Ok(framed(response, Outcome::Bypass, started))
}

/// `None` is a JSON page. The parameter counts more than the header.
fn format(params: &Params, headers: &HeaderMap) -> Result<Option<Format>> {
    match params.one("format")? {
        Some("json") => return Ok(None),
        Some("ndjson") => return Ok(Some(Format::Ndjson)),
        Some("csv") => return Ok(Some(Format::Csv)),
        Some(other) => return Err(invalid_value("format", other, "json, ndjson, csv or batch")),
        None => {}
    }
    let accept = headers
        .get(ACCEPT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    for item in accept.split(',') {
        match item.split(';').next().unwrap_or_default().trim() {
            NDJSON | "application/ndjson" | "application/jsonl" => return Ok(Some(Format::Ndjson)),
            "text/csv" => return Ok(Some(Format::Csv)),
            "application/json" | "*/*" => return Ok(None),
            _ => {}
        }
    }
    Ok(None)
}

fn paging(params: &Params, aliases: &Aliases) -> Result<Paging> {
    let limit = match params.one("limit")? {
        Some("all") => None,
        Some(text) => {
            let limit = text.parse().map_err(|_| {
                invalid_value("limit", text, "a whole number, or `all` for ndjson and csv")
            })?;
            Some(limit)
        }
        None => Some(LIMIT_DEFAULT),
    };
    let order = match params.one("order")? {
        None | Some("desc") => Order::Descending,
        Some("asc") => Order::Ascending,
        Some(other) => return Err(invalid_value("order", other, "desc or asc")),
    };
    let after = match params.one("cursor")? {
        Some(text) => {
            let key = RecordKey::from_id(text);
            Some(key.ok_or_else(|| {
                invalid_value("cursor", text, "a `next_cursor` of an earlier answer")
            })?)
        }
        None => None,
    };
    let fields: Vec<String> = params
        .list("fields")
        .iter()
        .map(|name| selection::standard_address(name, aliases))
        .collect();
    if FIELDS_MAX < fields.len() {
        let message = format!(
            "`fields` names {} fields; at most {FIELDS_MAX} are allowed",
            fields.len()
        );
        return Err(Error::invalid("too_many_values", message).with_parameter("fields"));
    }
    Ok(Paging {
        limit,
        order,
        after,
        fields: Fields((!fields.is_empty()).then_some(fields)),
    })
}

/// The standard fields are in every answer, whichever others are chosen.
fn fields_read(chosen: &Fields) -> Option<Vec<String>> {
    let mut fields = chosen.0.clone()?;
    for standard in [LEVEL, SOURCE, MESSAGE] {
        if !fields.iter().any(|field| field == standard) {
            fields.push(standard.to_owned());
        }
    }
    Some(fields)
}

fn page_limit(state: &ApiState, limit: Option<u64>) -> Result<usize> {
    let max = state.options.page_limit_max;
    let Some(limit) = limit else {
        let message = "`limit=all` needs `format=ndjson` or `format=csv`, which stream; a JSON page has a number of records";
        return Err(Error::invalid("invalid_parameter", message).with_parameter("limit"));
    };
    if max < limit {
        let message = format!(
            "`limit` is {limit}, at most {max} are allowed for a page; follow `next_cursor`, or use `format=ndjson`"
        );
        return Err(Error::invalid("invalid_parameter", message).with_parameter("limit"));
    }
    Ok(usize::try_from(limit).unwrap_or(usize::MAX))
}
