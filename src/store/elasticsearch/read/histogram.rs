//! Counts by time, and by a field's most frequent values inside each bucket.

use serde_json::{Map, Value as Json, json};

use crate::common::cancel::Cancel;
use crate::common::error::Result;
use crate::query::{Histogram, HistogramRequest, Selection};
use crate::store::answer::HistogramTally;
use crate::store::elasticsearch::Inner;
use crate::store::elasticsearch::names::{Kind, own};
use crate::store::elasticsearch::read::asker::{Asker, Fault, PointInTime};
use crate::store::elasticsearch::read::bounds::Query;
use crate::store::elasticsearch::read::groups::{self, Part, PartValue};
use crate::store::elasticsearch::read::plan::{Plan, Split, odd_at};
use crate::store::elasticsearch::read::scan::{count, each_matching};
use crate::store::elasticsearch::read::summary::{self, Attempt, Summary};

/// Values counted in each bucket of a first answer; where there are more, they are counted page by page.
const VALUES_MAX: usize = 100;

pub async fn histogram(
    inner: &Inner,
    request: HistogramRequest,
    cancel: Cancel,
) -> Result<Histogram> {
    summary::answer(inner, &request, &cancel).await
}

impl Summary for HistogramRequest {
    type Answer = Histogram;

    fn selection(&self) -> &Selection {
        &self.selection
    }

    fn addresses(&self) -> Option<Vec<String>> {
        Some(by_of(self))
    }

    fn of_nothing(&self, partial_reasons: Vec<String>) -> Histogram {
        HistogramTally::new(self).finish(partial_reasons)
    }

    async fn attempt(&self, attempt: &Attempt<'_>) -> Result<Histogram, Fault> {
        let mut tally = HistogramTally::new(self);
        count_all(attempt, self, &mut tally).await?;
        Ok(tally.finish(attempt.asker.partial_reasons()))
    }
}

fn by_of(request: &HistogramRequest) -> Vec<String> {
    request.by.iter().cloned().collect()
}

async fn count_all(
    attempt: &Attempt<'_>,
    request: &HistogramRequest,
    tally: &mut HistogramTally,
) -> Result<(), Fault> {
    let Attempt {
        asker,
        snapshot,
        plan,
        compiled,
    } = *attempt;
    let parts = parts_of(plan, request);
    let split = match &parts {
        Some(_) => plan.split(&odd_at(&by_of(request))),
        None => plan.split(&Query::All),
    };
    // One request is enough where the server can count everything and the buckets hold few values.
    let first = first(
        asker,
        snapshot,
        &split,
        parts.as_deref().unwrap_or_default(),
    )
    .await?;
    let n_fetched = first.n_fetched;
    if first.is_complete {
        first.add_to(tally);
    } else if split.sure != Query::Nothing {
        by_groups(asker, snapshot, &split, &parts.unwrap_or_default(), tally).await?;
    }
    each_matching(
        asker,
        snapshot,
        &split.fetched,
        n_fetched,
        compiled,
        |fetched| {
            tally.add(&fetched.record);
        },
    )
    .await
}

/// Time, and the field where there is one; `None` where the server cannot count by them.
fn parts_of(plan: &Plan, request: &HistogramRequest) -> Option<Vec<Part>> {
    let mut parts = vec![Part::time(request.interval_ns)?];
    if let Some(by) = &request.by {
        parts.push(Part::field(&plan.catalog, by)?);
    }
    Some(parts)
}

#[derive(Default)]
struct First {
    n_fetched: u64,
    cells: Vec<(i64, Option<String>, u64)>,
    /// Every cell is in `cells`.
    is_complete: bool,
}

impl First {
    fn read(&mut self, bucket: &Json, fields: &[(Kind, String)]) {
        let start_ns = groups::bucket_ns(bucket.get("key").and_then(Json::as_i64).unwrap_or(0));
        let number = |of: &Json, name: &str| of.get(name).and_then(Json::as_u64).unwrap_or(0);
        let mut without = number(bucket, "doc_count");
        for (at, (kind, _)) in fields.iter().enumerate() {
            let Some(values) = bucket.get(format!("{at}")) else {
                continue;
            };
            let uncounted = number(values, "sum_other_doc_count")
                + number(values, "doc_count_error_upper_bound");
            self.is_complete &= uncounted == 0;
            let values = values.get("buckets").and_then(Json::as_array);
            for value in values.into_iter().flatten() {
                let n = number(value, "doc_count");
                without = without.saturating_sub(n);
                let key = value.get("key").unwrap_or(&Json::Null);
                self.cells.push((start_ns, groups::text_of(*kind, key), n));
            }
        }
        if without != 0 {
            self.cells.push((start_ns, None, without));
        }
    }

    fn add_to(self, tally: &mut HistogramTally) {
        for (start_ns, value, count) in self.cells {
            tally.add_count(start_ns, value, count);
        }
    }
}

/// Counts in one request, if the buckets hold few values.
async fn first(
    asker: &Asker<'_>,
    snapshot: &PointInTime<'_>,
    split: &Split,
    parts: &[Part],
) -> Result<First, Fault> {
    let (time, fields) = match parts {
        [Part::Time(interval_ms)] => (Some(*interval_ms), &[][..]),
        [Part::Time(interval_ms), Part::Field(fields)] => (Some(*interval_ms), fields.as_slice()),
        _ => (None, &[][..]),
    };
    let mut aggs = Map::new();
    if split.fetched != Query::Nothing {
        let fetched = json!({"filter": split.fetched.to_json()});
        aggs.insert("fetched".to_owned(), fetched);
    }
    if let Some(interval_ms) = time {
        aggs.insert("sure".to_owned(), cells_agg(split, interval_ms, fields));
    }
    let query = Query::or([split.sure.clone(), split.fetched.clone()]);
    let body =
        json!({"query": query.to_json(), "size": 0, "track_total_hits": false, "aggs": aggs});
    let json = match asker.search(Some(snapshot), body).await {
        // Too many buckets at once: they are counted page by page.
        Err(Fault::Refused(reason)) if reason.contains("too_many_buckets") => {
            return Ok(First {
                n_fetched: count(asker, snapshot, &split.fetched).await?,
                ..First::default()
            });
        }
        other => other?,
    };
    let n_fetched = json
        .pointer("/aggregations/fetched/doc_count")
        .and_then(Json::as_u64);
    let mut first = First {
        n_fetched: n_fetched.unwrap_or(0),
        cells: Vec::new(),
        is_complete: time.is_some(),
    };
    let buckets = json
        .pointer("/aggregations/sure/times/buckets")
        .and_then(Json::as_array);
    for bucket in buckets.into_iter().flatten() {
        first.read(bucket, fields);
    }
    Ok(first)
}

/// Counts by time, and by the most frequent values of each field inside.
fn cells_agg(split: &Split, interval_ms: i64, fields: &[(Kind, String)]) -> Json {
    let mut by = Map::new();
    for (at, (_, name)) in fields.iter().enumerate() {
        let values = json!({"terms": {"field": name, "size": VALUES_MAX}});
        by.insert(format!("{at}"), values);
    }
    let mut times = json!({"date_histogram": {
        "field": own::MS, "fixed_interval": format!("{interval_ms}ms"), "min_doc_count": 1,
    }});
    if let (false, Some(members)) = (by.is_empty(), times.as_object_mut()) {
        members.insert("aggs".to_owned(), Json::Object(by));
    }
    json!({"filter": split.sure.to_json(), "aggs": {"times": times}})
}

/// Every bucket and value, page after page.
async fn by_groups(
    asker: &Asker<'_>,
    snapshot: &PointInTime<'_>,
    split: &Split,
    parts: &[Part],
    tally: &mut HistogramTally,
) -> Result<(), Fault> {
    groups::all(asker, snapshot, &split.sure, parts, &Map::new(), |found| {
        let (mut start_ns, mut value) = (0, None);
        for part in found.key {
            match part {
                PartValue::Time(ns) => start_ns = ns,
                PartValue::Text(text) => value = text,
            }
        }
        tally.add_count(start_ns, value, found.count);
        Ok(())
    })
    .await
}
