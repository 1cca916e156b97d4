//! Dead letters in an index of their own: lines that never became records, and records that Elasticsearch itself refused.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value as Json, json};
use tokio::sync::OnceCell;

use crate::common::error::{Error, Result};
use crate::query::text;
use crate::record::{DeadLetter, DeadLetterRef, Position};
use crate::store::elasticsearch::Inner;
use crate::store::elasticsearch::client::Method;
use crate::store::elasticsearch::document::push_action;
use crate::store::elasticsearch::names::any_token;
use crate::store::elasticsearch::words::push_words;
use crate::store::{DeadLetterPage, DeadLetterRequest};
use crate::wire::json_text::push_string;

/// Letters read at once: each may be large.
const PAGE_MAX: usize = 50;
/// Letters deleted at once.
const DELETE_MAX: usize = 1_000;

#[derive(Default)]
pub struct Letters {
    has_index: OnceCell<()>,
}

pub fn alias(inner: &Inner) -> String {
    format!("{}write-dead-letters", inner.options.state_prefix)
}

impl Letters {
    /// Makes the index, once for each process.
    pub async fn prepare(&self, inner: &Inner) -> Result<()> {
        self.has_index
            .get_or_try_init(|| create_index(inner))
            .await
            .map(drop)
    }
}

/// Makes the index if it does not exist.
pub async fn create_index(inner: &Inner) -> Result<()> {
    let options = &inner.options;
    let body = json!({
        "aliases": {alias(inner): {}},
        "settings": {
            "index.number_of_shards": 1,
            "index.number_of_replicas": options.replicas,
        },
        "mappings": {
            "dynamic": false,
            "_source": {"excludes": ["words"]},
            "properties": {
                "index_prefix": {"type": "keyword"},
                "partition": {"type": "long"},
                "seq": {"type": "long"},
                "arrival_ns": {"type": "long"},
                "code": {"type": "keyword", "ignore_above": 1000},
                "source": {"type": "keyword", "ignore_above": 1000},
                "reason": {"type": "keyword", "ignore_above": 1000},
                "bytes": {"type": "long"},
                "words": {"type": "text", "analyzer": "whitespace", "norms": false},
            },
        },
    });
    let index = options.letters_index();
    let answer = inner
        .client
        .admin(Method::PUT, &format!("/{index}"), Some(&body))
        .await?;
    if answer.status == 400 && answer.reason().contains("resource_already_exists") {
        return Ok(());
    }
    answer.expect(&format!("make index {index}")).map(drop)
}

fn id_of(inner: &Inner, position: Position) -> String {
    format!("{}/{}", inner.options.index_prefix, position.to_text())
}

/// Appends action and document of one letter.
pub fn push_letter(
    out: &mut Vec<u8>,
    inner: &Inner,
    position: Position,
    letter: DeadLetterRef<'_>,
    arrival_ns: i64,
) {
    push_action(out, &alias(inner), &id_of(inner, position));
    let start = out.len();
    out.extend_from_slice(b"{\"index_prefix\":");
    push_string(out, &inner.options.index_prefix);
    out.extend_from_slice(
        format!(
            ",\"partition\":{},\"seq\":{},\"arrival_ns\":{arrival_ns},\"code\":",
            position.partition, position.seq
        )
        .as_bytes(),
    );
    push_string(out, letter.code);
    out.extend_from_slice(b",\"reason\":");
    push_string(out, letter.reason);
    if let Some(source) = letter.source {
        out.extend_from_slice(b",\"source\":");
        push_string(out, source);
    }
    out.extend_from_slice(b",\"raw\":\"");
    out.extend_from_slice(STANDARD.encode(letter.raw).as_bytes());
    out.extend_from_slice(b"\",\"words\":[");
    let mut words = Vec::new();
    let raw = String::from_utf8_lossy(letter.raw);
    for part in [
        letter.code,
        letter.reason,
        letter.source.unwrap_or_default(),
        &raw,
    ] {
        push_words(&mut words, part);
    }
    out.extend_from_slice(&words);
    let size = out.len() - start;
    out.extend_from_slice(format!("],\"bytes\":{size}}}\n").as_bytes());
}

fn letter_of(hit: &Json) -> Result<DeadLetter> {
    let source = hit.get("_source").unwrap_or(&Json::Null);
    let text = |name: &str| source.get(name).and_then(Json::as_str).map(str::to_owned);
    let read = || {
        Some(DeadLetter {
            position: Position {
                partition: u32::try_from(source.get("partition")?.as_u64()?).ok()?,
                seq: source.get("seq")?.as_u64()?,
            },
            arrival_ns: source.get("arrival_ns")?.as_i64()?,
            code: text("code")?,
            reason: text("reason")?,
            source: text("source"),
            raw: STANDARD.decode(source.get("raw")?.as_str()?).ok()?,
        })
    };
    read().ok_or_else(|| {
        let id = hit.get("_id").cloned().unwrap_or_default();
        Error::corrupt(format!(
            "dead letter {id} cannot be read; something else than Logyard wrote it"
        ))
    })
}

/// What all of a question's letters have.
fn filter(inner: &Inner, q: &str) -> Vec<Json> {
    let mut filter = vec![json!({"term": {"index_prefix": inner.options.index_prefix}})];
    for token in text::tokens(q) {
        filter.push(json!({"term": {"words": any_token(&token)}}));
    }
    filter
}

pub async fn list(inner: &Inner, request: DeadLetterRequest) -> Result<DeadLetterPage> {
    let filter = filter(inner, &request.q);
    let mut page = DeadLetterPage::default();
    let mut before = request.before;
    while page.letters.len() <= request.limit {
        let size = (request.limit + 1 - page.letters.len()).min(PAGE_MAX);
        let hits = older(inner, &filter, before, size).await?;
        let is_last = hits.len() < size;
        for hit in &hits {
            page.letters.push(letter_of(hit)?);
        }
        before = page.letters.last().map(|letter| letter.position);
        if is_last {
            break;
        }
    }
    page.has_more = request.limit < page.letters.len();
    // A list that is whole is its own count: letters that arrive between two requests must not make a total that the list belies.
    let listed = page.letters.len() as u64;
    page.total = match request.before.is_none() && !page.has_more {
        true => listed,
        false => count(inner, &filter).await?.max(listed),
    };
    page.letters.truncate(request.limit);
    Ok(page)
}

async fn older(
    inner: &Inner,
    filter: &[Json],
    before: Option<Position>,
    size: usize,
) -> Result<Vec<Json>> {
    let mut filter = filter.to_vec();
    if let Some(before) = before {
        filter.push(json!({"bool": {"should": [
            {"range": {"partition": {"lt": before.partition}}},
            {"bool": {"filter": [{"term": {"partition": before.partition}}, {"range": {"seq": {"lt": before.seq}}}]}},
        ]}}));
    }
    let body = json!({
        "size": size,
        "query": {"bool": {"filter": filter}},
        "sort": [{"partition": "desc"}, {"seq": "desc"}],
        "track_total_hits": false,
    });
    search(inner, &body).await
}

/// Hits; none if the index does not exist.
async fn search(inner: &Inner, body: &Json) -> Result<Vec<Json>> {
    let path = format!("/{}/_search", inner.options.letters_index());
    let answer = inner.client.admin(Method::POST, &path, Some(body)).await?;
    if answer.status == 404 {
        return Ok(Vec::new());
    }
    let mut found = answer.expect("list dead letters")?;
    match found.pointer_mut("/hits/hits").map(Json::take) {
        Some(Json::Array(hits)) => Ok(hits),
        _ => Ok(Vec::new()),
    }
}

async fn count(inner: &Inner, filter: &[Json]) -> Result<u64> {
    let path = format!("/{}/_count", inner.options.letters_index());
    let body = json!({"query": {"bool": {"filter": filter}}});
    let answer = inner.client.admin(Method::POST, &path, Some(&body)).await?;
    if answer.status == 404 {
        return Ok(0);
    }
    let found = answer.expect("count dead letters")?;
    Ok(found.get("count").and_then(Json::as_u64).unwrap_or(0))
}

pub async fn count_all(inner: &Inner) -> Result<u64> {
    count(inner, &filter(inner, "")).await
}

pub async fn by_position(inner: &Inner, positions: Vec<Position>) -> Result<Vec<DeadLetter>> {
    let mut letters = Vec::new();
    for chunk in positions.chunks(PAGE_MAX) {
        let ids: Vec<String> = chunk
            .iter()
            .map(|position| id_of(inner, *position))
            .collect();
        let path = format!("/{}/_mget", inner.options.letters_index());
        let answer = inner
            .client
            .admin(Method::POST, &path, Some(&json!({"ids": ids})))
            .await?;
        if answer.status == 404 {
            return Ok(letters);
        }
        let found = answer.expect("show dead letters")?;
        let documents = found.get("docs").and_then(Json::as_array);
        for document in documents.into_iter().flatten() {
            if document.get("found") == Some(&Json::Bool(true)) {
                letters.push(letter_of(document)?);
            }
        }
    }
    Ok(letters)
}

pub async fn delete(inner: &Inner, positions: &[Position]) -> Result<u64> {
    let mut deleted = 0;
    for chunk in positions.chunks(DELETE_MAX) {
        let ids = chunk.iter().map(|position| id_of(inner, *position));
        deleted += delete_ids(inner, ids).await?;
    }
    Ok(deleted)
}

async fn delete_ids(inner: &Inner, ids: impl Iterator<Item = String>) -> Result<u64> {
    let mut body = Vec::new();
    for id in ids {
        body.extend_from_slice(b"{\"delete\":{\"_id\":");
        push_string(&mut body, &id);
        body.extend_from_slice(b"}}\n");
    }
    if body.is_empty() {
        return Ok(0);
    }
    let path = format!("/{}/_bulk?refresh=true&require_alias=true", alias(inner));
    let answer = inner.client.bulk(&path, body.into(), None).await?;
    if answer.status == 404 {
        return Ok(0);
    }
    let answer = answer.expect("delete dead letters")?;
    let items = answer.get("items").and_then(Json::as_array);
    let mut deleted = 0;
    for item in items.into_iter().flatten() {
        match item.pointer("/delete/status").and_then(Json::as_u64) {
            Some(200) => deleted += 1,
            Some(404) => {}
            _ => {
                return Err(Error::unavailable(
                    "elasticsearch_refused",
                    format!("Elasticsearch could not delete a dead letter: {item}"),
                ));
            }
        }
    }
    Ok(deleted)
}

/// Deletes the oldest letters until the rest is small enough.
pub async fn trim(inner: &Inner) -> Result<()> {
    let of_prefix = filter(inner, "");
    let body = json!({
        "size": 0,
        "query": {"bool": {"filter": of_prefix}},
        "aggs": {"bytes": {"sum": {"field": "bytes"}}},
    });
    let path = format!("/{}/_search", inner.options.letters_index());
    let answer = inner.client.admin(Method::POST, &path, Some(&body)).await?;
    let found = answer.expect("add up the dead letters")?;
    let held = found
        .pointer("/aggregations/bytes/value")
        .and_then(Json::as_f64)
        .unwrap_or(0.0);
    #[expect(
        clippy::cast_precision_loss,
        reason = "a limit need not be exact to the byte"
    )]
    let mut excess = held - inner.options.dead_letters_bytes_max as f64;
    while 0.0 < excess {
        let body = json!({
            "size": DELETE_MAX,
            "query": {"bool": {"filter": of_prefix}},
            "sort": [{"arrival_ns": "asc"}, {"partition": "asc"}, {"seq": "asc"}],
            "_source": ["bytes"],
            "track_total_hits": false,
        });
        let hits = search(inner, &body).await?;
        let mut ids = Vec::new();
        for hit in &hits {
            if excess <= 0.0 {
                break;
            }
            excess -= hit
                .pointer("/_source/bytes")
                .and_then(Json::as_f64)
                .unwrap_or(0.0);
            ids.extend(hit.get("_id").and_then(Json::as_str).map(str::to_owned));
        }
        let n_deleted = delete_ids(inner, ids.into_iter()).await?;
        if n_deleted == 0 {
            break;
        }
        tracing::warn!(
            n_deleted,
            "the oldest dead letters are gone: there is room for `store.dead_letters_bytes_max`"
        );
    }
    Ok(())
}
