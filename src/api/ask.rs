//! From a handler to the searcher and back: every question goes through here.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::api::ApiState;
use crate::api::answer::Outcome;
use crate::common::cancel::Cancel;
use crate::common::error::Result;
use crate::query::{
    FieldsAnswer, FieldsRequest, Histogram, HistogramRequest, SearchAnswer, SearchRequest,
    StatsAnswer, StatsRequest,
};
use crate::record::{Record, RecordKey};

type Answered = Result<(Bytes, Outcome)>;

pub async fn search(
    state: &Arc<ApiState>,
    request: SearchRequest,
    _is_fresh: bool,
    encode: impl FnOnce(&SearchAnswer) -> Result<Vec<u8>>,
) -> Answered {
    let cancel = cancel(state);
    let _guard = cancel.guard();
    let answer = state.store.search(request, cancel).await?;
    Ok((encode(&answer)?.into(), Outcome::Bypass))
}

pub async fn histogram(
    state: &Arc<ApiState>,
    request: HistogramRequest,
    _is_fresh: bool,
    encode: impl FnOnce(&Histogram) -> Result<Vec<u8>>,
) -> Answered {
    let cancel = cancel(state);
    let _guard = cancel.guard();
    let answer = state.store.histogram(request, cancel).await?;
    Ok((encode(&answer)?.into(), Outcome::Bypass))
}

pub async fn fields(
    state: &Arc<ApiState>,
    request: FieldsRequest,
    _is_fresh: bool,
    encode: impl FnOnce(&FieldsAnswer) -> Result<Vec<u8>>,
) -> Answered {
    let cancel = cancel(state);
    let _guard = cancel.guard();
    let answer = state.store.fields(request, cancel).await?;
    Ok((encode(&answer)?.into(), Outcome::Bypass))
}

pub async fn stats(
    state: &Arc<ApiState>,
    request: StatsRequest,
    _is_fresh: bool,
    encode: impl FnOnce(&StatsAnswer) -> Result<Vec<u8>>,
) -> Answered {
    let cancel = cancel(state);
    let _guard = cancel.guard();
    let answer = state.store.stats(request, cancel).await?;
    Ok((encode(&answer)?.into(), Outcome::Bypass))
}

pub async fn search_records(state: &Arc<ApiState>, request: SearchRequest) -> Result<SearchAnswer> {
    let cancel = cancel(state);
    let _guard = cancel.guard();
    state.store.search(request, cancel).await
}

pub async fn record(state: &Arc<ApiState>, key: RecordKey) -> Result<Option<Record>> {
    let cancel = cancel(state);
    let _guard = cancel.guard();
    state.store.get(key, cancel).await
}

fn cancel(state: &ApiState) -> Cancel {
    Cancel::after(Duration::from_millis(state.options.timeout_ms))
}
