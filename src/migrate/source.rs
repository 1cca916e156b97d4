//! Where a copy reads: a store that was opened, or a server over HTTP. Both give the same portions.

use anyhow::{Context as _, bail};
use bytes::Bytes;
use hyper::StatusCode;
use xxhash_rust::xxh3::xxh3_128;

use crate::common::cancel::Cancel;
use crate::loadgen::client::HttpClient;
use crate::query::{Expr, Order, SearchRequest, Selection, TimeRange};
use crate::record::{Batch, DeadLetter, Record, RecordKey};
use crate::store::{DeadLetterRequest, Store};
use crate::wire::native::batch;

/// Records asked for at once.
const PAGE_RECORDS: usize = 2_000;
/// A portion ends after about so many bytes.
const PORTION_BYTES: usize = 4 << 20;
const PAGE_LETTERS: usize = 1_000;
const QUESTION_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(300);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub records: u64,
    pub letters: u64,
}

/// Some entries as a body of `POST /logs`.
#[derive(Clone, Debug)]
pub struct Portion {
    pub body: Bytes,
    pub count: u64,
    /// The cursor of the last entry.
    pub last: String,
    /// False for the last portion of the records.
    pub has_more: bool,
}

impl Portion {
    pub fn hash(&self) -> String {
        format!("{:032x}", xxh3_128(&self.body))
    }

    fn empty() -> Self {
        Self {
            body: Bytes::new(),
            count: 0,
            last: String::new(),
            has_more: false,
        }
    }
}

pub enum Source<'a> {
    Folder(&'a dyn Store),
    Server(Box<HttpClient>),
}

impl Source<'_> {
    pub async fn totals(&self) -> anyhow::Result<Totals> {
        match self {
            Self::Server(client) => count(client).await,
            Self::Folder(store) => {
                let answer = store
                    .search(request(None, 0), Cancel::after(QUESTION_TIMEOUT))
                    .await?;
                let letters = store.dead_letters(letters_request(None, 0)).await?;
                let total = answer.total.context("the store counts nothing")?;
                Ok(Totals {
                    records: total.value,
                    letters: letters.total,
                })
            }
        }
    }

    /// The oldest records after `cursor`.
    pub async fn records(&self, cursor: Option<&str>, arrival_ns: i64) -> anyhow::Result<Portion> {
        match self {
            Self::Folder(store) => records_of(*store, cursor, arrival_ns).await,
            Self::Server(client) => records_from(client, cursor, arrival_ns).await,
        }
    }

    /// Oldest first, each portion of letters that arrived together. All at once: the source keeps a bounded number of bytes of them.
    pub async fn letters(&self) -> anyhow::Result<Vec<Portion>> {
        let mut portions = match self {
            Self::Folder(store) => letters_of(*store).await?,
            Self::Server(client) => letters_from(client).await?,
        };
        portions.reverse();
        Ok(portions)
    }
}

/// What a server has.
pub async fn count(client: &HttpClient) -> anyhow::Result<Totals> {
    let total = async |path: &str| {
        let reply = client.get(path, &[("cache-control", "no-cache")]).await?;
        if reply.status != StatusCode::OK {
            bail!("{path}: {}: {}", reply.status, reply.excerpt());
        }
        let answer = reply.json()?;
        if answer.get("partial").and_then(serde_json::Value::as_bool) == Some(true) {
            bail!("{path}: the answer is partial; see `degraded` in /status");
        }
        let total = answer.pointer("/total/value");
        let total = total.and_then(serde_json::Value::as_u64);
        total.with_context(|| format!("{path}: no total in the answer"))
    };
    Ok(Totals {
        records: total("/logs?limit=0").await?,
        letters: total("/dead-letters?limit=0").await?,
    })
}

fn request(after: Option<RecordKey>, limit: usize) -> SearchRequest {
    SearchRequest {
        selection: Selection {
            range: TimeRange::default(),
            filter: Expr::All,
            positions: None,
        },
        order: Order::Ascending,
        limit,
        after,
        wants_total: limit == 0,
        fields: None,
    }
}

fn letters_request(before: Option<crate::record::Position>, limit: usize) -> DeadLetterRequest {
    DeadLetterRequest {
        q: String::new(),
        limit,
        before,
    }
}

async fn records_of(
    store: &dyn Store,
    cursor: Option<&str>,
    arrival_ns: i64,
) -> anyhow::Result<Portion> {
    let after = cursor
        .map(|cursor| RecordKey::from_id(cursor).context("the cursor in the progress file"))
        .transpose()?;
    let answer = store
        .search(
            request(after, PAGE_RECORDS),
            Cancel::after(QUESTION_TIMEOUT),
        )
        .await?;
    if let Some(reason) = answer.partial_reasons.first() {
        bail!("not all records can be read: {reason}; `logyard verify` says more");
    }
    let mut size_bytes = 0;
    let fitting = answer.records.iter().take_while(|record| {
        let is_room = size_bytes < PORTION_BYTES;
        size_bytes += batch::size_of(record);
        is_room
    });
    let count = fitting.count();
    let page: &[Record] = answer.records.get(..count).unwrap_or_default();
    let Some(last) = page.last() else {
        return Ok(Portion::empty());
    };
    Ok(Portion {
        body: batch::of_records(page.iter(), arrival_ns)
            .as_bytes()
            .clone(),
        count: page.len() as u64,
        last: last.key.to_id(),
        has_more: answer.has_more || count < answer.records.len(),
    })
}

async fn letters_of(store: &dyn Store) -> anyhow::Result<Vec<Portion>> {
    let mut portions = Vec::new();
    let mut before = None;
    loop {
        let page = store
            .dead_letters(letters_request(before, PAGE_LETTERS))
            .await?;
        for together in page.letters.chunk_by(|a, b| a.arrival_ns == b.arrival_ns) {
            portions.extend(portion_of_letters(together));
        }
        before = page.letters.last().map(|letter| letter.position);
        if !page.has_more || before.is_none() {
            return Ok(portions);
        }
    }
}

/// `letters`: newest first.
fn portion_of_letters(letters: &[DeadLetter]) -> Option<Portion> {
    let newest = letters.first()?;
    let batch = batch::of_letters(letters.iter().rev(), newest.arrival_ns);
    Some(Portion {
        body: batch.as_bytes().clone(),
        count: letters.len() as u64,
        last: newest.position.to_text(),
        has_more: true,
    })
}

/// A page of a server: its bytes and where the next one begins.
async fn page(client: &HttpClient, path: &str) -> anyhow::Result<(Batch, Option<String>)> {
    let reply = client.get(path, &[]).await?;
    if reply.status != StatusCode::OK {
        bail!("{path}: {}: {}", reply.status, reply.excerpt());
    }
    if reply.header("content-type") != Some(batch::MEDIA_TYPE) {
        bail!("{path}: the answer is no batch; the server may be older than this program");
    }
    let next = reply.header("x-next-cursor").map(str::to_owned);
    let batch = Batch::from_bytes(reply.body.clone()).with_context(|| path.to_owned())?;
    Ok((batch, next))
}

async fn records_from(
    client: &HttpClient,
    cursor: Option<&str>,
    arrival_ns: i64,
) -> anyhow::Result<Portion> {
    let after = cursor.map(|cursor| format!("&cursor={cursor}"));
    let path = format!(
        "/logs?format=batch&order=asc&limit={PAGE_RECORDS}{}",
        after.unwrap_or_default()
    );
    let (batch, next) = page(client, &path).await?;
    let count = u64::from(batch.len());
    let body = with_arrival(batch.as_bytes(), arrival_ns);
    Ok(Portion {
        body,
        count,
        has_more: next.is_some(),
        // After the last page nothing is asked for any more.
        last: next.unwrap_or_default(),
    })
}

/// The same batch with another arrival (see `record::batch`: 8 bytes behind the magic).
fn with_arrival(bytes: &Bytes, arrival_ns: i64) -> Bytes {
    let mut bytes = bytes.to_vec();
    if let Some(place) = bytes.get_mut(4..12) {
        place.copy_from_slice(&arrival_ns.to_le_bytes());
    }
    Bytes::from(bytes)
}

async fn letters_from(client: &HttpClient) -> anyhow::Result<Vec<Portion>> {
    let mut portions: Vec<Portion> = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        // The list names the newest letter of the page, by which a copy that was interrupted finds its place.
        let after = cursor.as_deref().map(|cursor| format!("&cursor={cursor}"));
        let after = after.unwrap_or_default();
        let newest = client
            .get(&format!("/dead-letters?limit=1{after}"), &[])
            .await?
            .json()?;
        let newest = newest.pointer("/dead_letters/0/id");
        let Some(newest) = newest.and_then(serde_json::Value::as_str) else {
            return Ok(portions);
        };
        let path = format!("/dead-letters?format=batch&limit={PAGE_LETTERS}{after}");
        let (batch, next) = page(client, &path).await?;
        portions.push(Portion {
            body: batch.as_bytes().clone(),
            count: u64::from(batch.len()),
            last: newest.to_owned(),
            has_more: true,
        });
        match next {
            Some(next) => cursor = Some(next),
            None => return Ok(portions),
        }
    }
}
