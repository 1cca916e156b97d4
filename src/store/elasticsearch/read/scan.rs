//! Records fetched in portions, in their order, from one snapshot: bounded memory whatever the size of the answer.

use serde_json::{Value as Json, json};

use crate::common::error::{Error, ErrorKind, Result};
use crate::query::{CompiledSelection, Order};
use crate::record::{Record, RecordKey};
use crate::store::elasticsearch::hit::record_from_hit;
use crate::store::elasticsearch::names::own;
use crate::store::elasticsearch::read::asker::{Asker, Fault, PointInTime};
use crate::store::elasticsearch::read::bounds::Query;
use crate::store::elasticsearch::read::plan::too_many;

/// Hits that are read at once on the thread that serves HTTP.
const READ_AT_ONCE_MAX: usize = 32;

/// A fetched record, and at which of its addresses the server could not add it up (`own::MULTI`).
pub struct Fetched {
    pub record: Record,
    pub multi: Vec<String>,
}

/// See the module's head.
pub struct Scan<'a> {
    asker: &'a Asker<'a>,
    snapshot: &'a PointInTime<'a>,
    query: Json,
    order: Order,
    after: Option<RecordKey>,
    portion: usize,
    is_over: bool,
}

impl<'a> Scan<'a> {
    pub fn new(
        asker: &'a Asker<'a>,
        snapshot: &'a PointInTime<'a>,
        query: &Query,
        order: Order,
        after: Option<RecordKey>,
    ) -> Self {
        Self {
            asker,
            snapshot,
            query: query.to_json(),
            order,
            after,
            portion: asker.limits().portion_records.max(1),
            is_over: *query == Query::Nothing,
        }
    }

    /// At most `max` records more; empty at the end.
    pub async fn next(&mut self, max: usize) -> Result<Vec<Fetched>, Fault> {
        while !self.is_over {
            let size = self.portion.min(max).max(1);
            let body = page_body(&self.query, self.order, self.after, size);
            let json = match self.asker.search(Some(self.snapshot), body).await {
                // Wide records: fewer at once.
                Err(Fault::Failed(error)) if error.kind == ErrorKind::TooLarge && 1 < size => {
                    self.portion = size / 2;
                    continue;
                }
                other => other?,
            };
            let fetched = read_hits(json).await?;
            self.is_over = fetched.len() < size;
            if let Some(last) = fetched.last() {
                self.after = Some(last.record.key);
            }
            return Ok(fetched);
        }
        Ok(Vec::new())
    }
}

/// The body of a search for one page.
pub fn page_body(query: &Json, order: Order, after: Option<RecordKey>, size: usize) -> Json {
    let direction = match order {
        Order::Ascending => "asc",
        Order::Descending => "desc",
    };
    let by = |field: &str| json!({field: {"order": direction, "unmapped_type": "long"}});
    let mut body = json!({
        "query": query,
        "size": size,
        "track_total_hits": false,
        "sort": [by(own::NS), by(own::PARTITION), by(own::SEQ)],
    });
    if let (Some(after), Some(members)) = (after, body.as_object_mut()) {
        let position = after.position;
        members.insert(
            "search_after".to_owned(),
            json!([after.timestamp_ns, position.partition, position.seq]),
        );
    }
    body
}

/// The records of an answer.
pub async fn read_hits(mut json: Json) -> Result<Vec<Fetched>> {
    let hits = match json.pointer_mut("/hits/hits").map(Json::take) {
        Some(Json::Array(hits)) => hits,
        _ => Vec::new(),
    };
    let read = |hits: Vec<Json>| hits.iter().map(fetched).collect::<Result<Vec<_>>>();
    if hits.len() <= READ_AT_ONCE_MAX {
        return read(hits);
    }
    let reading = tokio::task::spawn_blocking(move || read(hits));
    reading.await.map_err(|e| {
        Error::internal("an answer of Elasticsearch could not be read").with_source(e)
    })?
}

fn fetched(hit: &Json) -> Result<Fetched> {
    let multi = match hit.get("_source").and_then(|source| source.get(own::MULTI)) {
        Some(Json::Array(all)) => all
            .iter()
            .filter_map(Json::as_str)
            .map(str::to_owned)
            .collect(),
        Some(Json::String(one)) => vec![one.clone()],
        _ => Vec::new(),
    };
    Ok(Fetched {
        record: record_from_hit(hit)?,
        multi,
    })
}

/// How many records `query` finds.
pub async fn count(
    asker: &Asker<'_>,
    snapshot: &PointInTime<'_>,
    query: &Query,
) -> Result<u64, Fault> {
    if *query == Query::Nothing {
        return Ok(0);
    }
    let body = json!({"query": query.to_json(), "size": 0, "track_total_hits": true});
    let json = asker.search(Some(snapshot), body).await?;
    Ok(json
        .pointer("/hits/total/value")
        .and_then(Json::as_u64)
        .unwrap_or(0))
}

/// Calls `visit` for each record that `query` finds and the selection wants; `count` of them are candidates.
pub async fn each_matching(
    asker: &Asker<'_>,
    snapshot: &PointInTime<'_>,
    query: &Query,
    count: u64,
    selection: &CompiledSelection,
    mut visit: impl FnMut(&Fetched),
) -> Result<(), Fault> {
    let max = asker.limits().candidates_max;
    if max < count {
        return Err(too_many(count, max).into());
    }
    if count == 0 {
        return Ok(());
    }
    let mut scan = Scan::new(asker, snapshot, query, Order::Descending, None);
    loop {
        let portion = scan.next(usize::MAX).await?;
        if portion.is_empty() {
            return Ok(());
        }
        for (index, fetched) in portion.iter().enumerate() {
            if index % 64 == 0 {
                asker.cancel.check()?;
                tokio::task::yield_now().await;
            }
            if selection.matches(fetched.record.key.position, &fetched.record) {
                visit(fetched);
            }
        }
    }
}
