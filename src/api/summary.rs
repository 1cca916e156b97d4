//! Questions about many records at once: `/logs/histogram`, `/logs/fields`, `/logs/stats`.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::Response;

use crate::api::answer::{timed_object, wants_fresh};
use crate::api::{ApiState, encode, interval, selection};
use crate::common::error::Result;
use crate::common::http::Params;
use crate::query::stats::StatsQuestion;
use crate::query::{self, FieldsRequest, HistogramRequest, StatsRequest, TimeRange, time};

pub const HISTOGRAM_PARAMETERS: [&str; 3] = ["interval", "by", "top"];
pub const FIELDS_PARAMETERS: [&str; 2] = ["top", "fields"];
/// Groups of one answer.
const GROUPS_MAX: u64 = 10_000;
pub const STATS_PARAMETERS: [&str; 4] = ["by", "agg", "sort", "limit"];

pub async fn histogram(
    State(state): State<Arc<ApiState>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response> {
    let started = Instant::now();
    let params = Params::parse(
        &uri,
        &[&selection::PARAMETERS[..], &HISTOGRAM_PARAMETERS].concat(),
    )?;
    let selection = selection::selection(&params, &state.options.aliases)?;
    let range = selection.range;
    let interval_ns = match params.one("interval")? {
        None | Some("auto") => auto_interval(&state, &range).await?,
        Some(text) => time::parse_interval(text).map_err(|e| e.with_parameter("interval"))?,
    };
    if let (Some(start), Some(end)) = (range.start_ns, range.end_ns) {
        interval::bucket_starts(start, end, interval_ns)?;
    }
    let by = params
        .one("by")?
        .map(|by| selection::standard_address(by, &state.options.aliases));
    let top = params.number("top", 1, 1000)?.unwrap_or(20);
    let request = HistogramRequest {
        selection,
        interval_ns,
        by,
        by_limit: usize::try_from(top).unwrap_or(usize::MAX),
    };
    let is_split = request.by.is_some();
    let encode = move |answer: &_| encode::histogram(answer, &range, interval_ns, is_split);
    let (object, outcome) = state
        .searcher
        .histogram(request, wants_fresh(&headers), encode)
        .await?;
    Ok(timed_object(&object, outcome, started))
}

/// Open ends are those of what is stored.
async fn auto_interval(state: &ApiState, range: &TimeRange) -> Result<i64> {
    let (start, end) = match (range.start_ns, range.end_ns) {
        (Some(start), Some(end)) => (start, end),
        (start, end) => {
            let usage = state.store.usage().await?;
            let start = start.or(usage.oldest_ns).unwrap_or(0);
            (start, end.or(usage.newest_ns).unwrap_or(start))
        }
    };
    Ok(time::auto_interval(end.saturating_sub(start)))
}

pub async fn fields(
    State(state): State<Arc<ApiState>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response> {
    let started = Instant::now();
    let params = Params::parse(
        &uri,
        &[&selection::PARAMETERS[..], &FIELDS_PARAMETERS].concat(),
    )?;
    let top = params.number("top", 0, 1000)?.unwrap_or(10);
    let names = params
        .list("fields")
        .iter()
        .map(|name| selection::standard_address(name, &state.options.aliases))
        .collect::<Vec<_>>();
    let request = FieldsRequest {
        selection: selection::selection(&params, &state.options.aliases)?,
        top: usize::try_from(top).unwrap_or(usize::MAX),
        fields: (!names.is_empty()).then_some(names),
    };
    let (object, outcome) = state
        .searcher
        .fields(request, wants_fresh(&headers), |answer| {
            Ok(encode::fields(answer))
        })
        .await?;
    Ok(timed_object(&object, outcome, started))
}

pub async fn stats(
    State(state): State<Arc<ApiState>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response> {
    let started = Instant::now();
    let params = Params::parse(
        &uri,
        &[&selection::PARAMETERS[..], &STATS_PARAMETERS].concat(),
    )?;
    let selection = selection::selection(&params, &state.options.aliases)?;
    let question = query::stats::parse(
        &params.list("by"),
        &params.list("agg"),
        &params.list("sort"),
        &state.options.aliases,
    )?;
    let limit = params.number("limit", 1, GROUPS_MAX)?.unwrap_or(100);
    let StatsQuestion {
        by_labels,
        by,
        aggregates,
        sort,
    } = question;
    let request = StatsRequest {
        selection,
        by: by.clone(),
        aggregates: aggregates.clone(),
        sort,
        limit: usize::try_from(limit).unwrap_or(usize::MAX),
    };
    let labels = by_labels.clone();
    let encode = move |answer: &_| Ok(encode::stats(answer, &labels, &by, &aggregates));
    let (object, outcome) = state
        .searcher
        .stats(request, &by_labels, wants_fresh(&headers), encode)
        .await?;
    Ok(timed_object(&object, outcome, started))
}
