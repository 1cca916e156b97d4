//! All records that match, as a stream of NDJSON or CSV: page after page from the store, so that memory stays small and the client sets the pace.
//! Or one page as a batch, exactly as the records are kept, for another Logyard.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::api::encode::Fields;
use crate::api::{ApiState, selection};
use crate::common::error::{Error, ErrorKind, Result};
use crate::common::http::{NDJSON, bytes_response};
use crate::query::{SearchAnswer, SearchRequest};
use crate::wire::native::batch;
use crate::wire::native::csv::CsvWriter;
use crate::wire::native::encode::push_record;

/// Records asked for at once.
const PAGE_RECORDS: u64 = 2000;
/// Pages ready before the client takes them.
const PAGES_AHEAD: usize = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Ndjson,
    Csv,
}

impl Format {
    fn content_type(self) -> &'static str {
        match self {
            Self::Ndjson => NDJSON,
            Self::Csv => "text/csv; charset=utf-8",
        }
    }

    /// What a browser calls the file.
    pub fn disposition(self) -> &'static str {
        match self {
            Self::Ndjson => "attachment; filename=\"logs.ndjson\"",
            Self::Csv => "attachment; filename=\"logs.csv\"",
        }
    }
}

/// The first page is asked before the head goes out, so that a refusal is a status and not a broken body.
pub async fn stream(
    state: Arc<ApiState>,
    mut request: SearchRequest,
    limit: u64,
    format: Format,
    fields: Fields,
) -> Result<Response> {
    let mut left = limit;
    request.limit = page_size(left);
    let first = state.searcher.records(request.clone()).await?;
    let mut writer = Writer::new(format, fields);
    let (pages, receiver) = mpsc::channel::<Result<Bytes>>(PAGES_AHEAD);
    tokio::spawn(async move {
        let mut page = Ok(first);
        loop {
            let answer = match page {
                Ok(answer) => answer,
                Err(e) => {
                    // The head said 200: only a body that breaks off can tell the client.
                    tracing::warn!(error = %e, "an export broke off");
                    let _ = pages.send(Err(e)).await;
                    return;
                }
            };
            left = left.saturating_sub(answer.records.len() as u64);
            let last_key = answer.records.last().map(|record| record.key);
            let is_over = left == 0 || !answer.has_more || last_key.is_none();
            let encoded;
            (writer, encoded) = match encode_page(writer, answer).await {
                Ok(done) => done,
                Err(e) => {
                    let _ = pages.send(Err(e)).await;
                    return;
                }
            };
            if pages.send(Ok(encoded)).await.is_err() || is_over {
                return;
            }
            request.after = last_key;
            request.limit = page_size(left);
            page = state.searcher.records(request.clone()).await;
        }
    });
    let body = futures::stream::unfold(receiver, |mut receiver| async move {
        Some((receiver.recv().await?, receiver))
    });
    Ok(bytes_response(
        StatusCode::OK,
        format.content_type(),
        Body::from_stream(body),
    ))
}

/// A page of a batch ends after about so many bytes.
const BATCH_BYTES: usize = 4 << 20;
/// Where the next page begins; absent after the last.
pub const NEXT_CURSOR: HeaderName = HeaderName::from_static("x-next-cursor");

/// Records as they are kept. What cannot be read is an error: a copy must be whole.
pub async fn batch(state: &ApiState, request: SearchRequest) -> Result<Response> {
    let answer = state.searcher.records(request).await?;
    if let Some(reason) = answer.partial_reasons.first() {
        let message = format!("not all records can be read: {reason}");
        return Err(Error::new(ErrorKind::Corrupt, "partial_answer", message));
    }
    let mut size_bytes = 0;
    let fitting = answer.records.iter().take_while(|record| {
        let is_room = size_bytes < BATCH_BYTES;
        size_bytes += batch::size_of(record);
        is_room
    });
    let count = fitting.count();
    let page = answer.records.get(..count).unwrap_or_default();
    let has_more = answer.has_more || count < answer.records.len();
    let cursor = page
        .last()
        .filter(|_| has_more)
        .map(|last| last.key.to_id());
    let bytes = batch::of_records(page.iter(), selection::now_ns());
    Ok(batch_response(bytes.as_bytes(), cursor))
}

pub fn batch_response(bytes: &Bytes, cursor: Option<String>) -> Response {
    let mut response = bytes_response(StatusCode::OK, batch::MEDIA_TYPE, bytes.clone());
    let cursor = cursor.and_then(|cursor| HeaderValue::from_str(&cursor).ok());
    if let Some(cursor) = cursor {
        response.headers_mut().insert(NEXT_CURSOR, cursor);
    }
    response
}

fn page_size(left: u64) -> usize {
    usize::try_from(left.min(PAGE_RECORDS)).unwrap_or(usize::MAX)
}

async fn encode_page(mut writer: Writer, answer: SearchAnswer) -> Result<(Writer, Bytes)> {
    let encoding = tokio::task::spawn_blocking(move || {
        let out = writer.page(&answer);
        (writer, Bytes::from(out))
    });
    encoding
        .await
        .map_err(|e| Error::internal("a page could not be encoded").with_source(e))
}

enum Writer {
    Ndjson(Fields),
    /// With whether the header is out.
    Csv(CsvWriter, bool),
}

impl Writer {
    fn new(format: Format, fields: Fields) -> Self {
        match format {
            Format::Ndjson => Self::Ndjson(fields),
            Format::Csv => Self::Csv(CsvWriter::new(fields.0.as_deref()), false),
        }
    }

    fn page(&mut self, answer: &SearchAnswer) -> Vec<u8> {
        let mut out = Vec::with_capacity(512 * answer.records.len() + 128);
        match self {
            Self::Ndjson(fields) => {
                for record in &answer.records {
                    push_record(&mut out, record, |address| fields.wants(address));
                    out.push(b'\n');
                }
            }
            Self::Csv(csv, has_header) => {
                if !*has_header {
                    csv.push_header(&mut out);
                    *has_header = true;
                }
                for record in &answer.records {
                    csv.push_record(&mut out, record);
                }
            }
        }
        out
    }
}
