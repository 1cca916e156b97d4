//! `GET /logs/tail`: records as they arrive, as server-sent events.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::Response;
use bytes::Bytes;

use crate::api::{ApiState, selection, sse};
use crate::common::error::{Error, Result};
use crate::common::http::{Params, bytes_response, error_body, invalid_value};
use crate::search::tail::{BACKFILL_MAX, Tail, TailRecord, TailRequest, place_after};
use crate::wire::native::encode::push_record;

pub const PARAMETERS: [&str; 1] = ["backfill"];
/// A comment line this often shows that the connection lives.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(15);

pub async fn tail(
    State(state): State<Arc<ApiState>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response> {
    let params = Params::parse(&uri, &[&selection::PARAMETERS[..], &PARAMETERS].concat())?;
    let backfill = params
        .number("backfill", 0, BACKFILL_MAX as u64)?
        .unwrap_or(0);
    let resume = match headers.get("last-event-id") {
        Some(id) => {
            let text = id.to_str().unwrap_or_default();
            Some(place_after(text).ok_or_else(|| {
                invalid_value("Last-Event-ID", text, "the `id` of an event of this stream")
            })?)
        }
        None => None,
    };
    let tail = state
        .searcher
        .tail(TailRequest {
            selection: selection::selection(&params, &state.options.aliases)?,
            backfill: usize::try_from(backfill).unwrap_or(usize::MAX),
            resume,
        })
        .await?;
    let body = futures::stream::unfold(Some(tail), move |tail| {
        let leaving = state.leaving.clone();
        async move {
            let mut tail = tail?;
            tokio::select! {
                portion = next(&mut tail) => {
                    let (bytes, is_last) = portion?;
                    Some((Ok::<_, Error>(bytes), (!is_last).then_some(tail)))
                }
                // The browser connects again, with the last id, to whoever serves next.
                () = leaving.cancelled() => None,
            }
        }
    });
    let mut response = bytes_response(StatusCode::OK, "text/event-stream", Body::from_stream(body));
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Proxies that buffer would make it no tail.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

/// The next bytes for the client, and whether they are the last.
async fn next(tail: &mut Tail) -> Option<(Bytes, bool)> {
    let mut out = Vec::new();
    match tokio::time::timeout(HEARTBEAT_INTERVAL, tail.recv()).await {
        Err(_) => out.extend_from_slice(sse::HEARTBEAT),
        Ok(None) => return None,
        Ok(Some(Ok(records))) => {
            let mut json = Vec::new();
            for TailRecord { id, record } in &records {
                json.clear();
                push_record(&mut json, record, |_| true);
                sse::push_event(&mut out, id, &json);
            }
        }
        Ok(Some(Err(error))) => {
            sse::push_named_event(&mut out, "error", &error_body(&error));
            return Some((out.into(), true));
        }
    }
    Some((out.into(), false))
}
