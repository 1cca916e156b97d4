//! Pages of records, and how many there are.

use serde_json::{Value as Json, json};

use crate::common::cancel::Cancel;
use crate::common::error::Result;
use crate::query::{CompiledSelection, Order, SearchAnswer, SearchRequest, Total};
use crate::record::{Record, RecordKey};
use crate::store::answer::with_fields;
use crate::store::elasticsearch::Inner;
use crate::store::elasticsearch::read::asker::{Asker, Fault, PointInTime};
use crate::store::elasticsearch::read::bounds::Query;
use crate::store::elasticsearch::read::plan::{Plan, after, too_many};
use crate::store::elasticsearch::read::query::Level;
use crate::store::elasticsearch::read::scan::{Scan, each_matching, page_body, read_hits};

/// How often a question is asked anew because a field changed meanwhile.
const STALE_MAX: usize = 3;

pub async fn search(inner: &Inner, request: SearchRequest, cancel: Cancel) -> Result<SearchAnswer> {
    cancel.check()?;
    let compiled = CompiledSelection::new(&request.selection)?;
    let mut level = Level::Whole;
    let mut n_stale = 0;
    loop {
        let asker = Asker::new(inner, &request.selection.range, &cancel);
        match at_level(&asker, &request, &compiled, level).await {
            Ok(answer) => return Ok(answer),
            Err(Fault::Stale) if n_stale < STALE_MAX => n_stale += 1,
            Err(fault) => level = after(fault, level)?,
        }
    }
}

/// What the first answer tells.
struct First {
    /// Records that may match.
    total: u64,
    doubtful: u64,
    records: Vec<Record>,
}

async fn at_level(
    asker: &Asker<'_>,
    request: &SearchRequest,
    compiled: &CompiledSelection,
    level: Level,
) -> Result<SearchAnswer, Fault> {
    let plan = Plan::new(asker, &request.selection, &[], level).await?;
    if plan.bounds.upper == Query::Nothing {
        return Ok(answer_of(
            asker,
            request,
            Vec::new(),
            request.wants_total.then_some(0),
            true,
        ));
    }
    let wanted = match request.limit {
        0 => 0,
        limit => limit.saturating_add(1),
    };
    if wanted <= asker.limits().portion_records {
        let first = first(asker, None, &plan, request, wanted).await?;
        let is_as_asked = |record: &Record| compiled.matches(record.key.position, record);
        if first.doubtful == 0 {
            // A field that got a second type since the mapping was read.
            if !first.records.iter().all(is_as_asked) {
                return Err(Fault::Stale);
            }
            let total = request.wants_total.then_some(first.total);
            return Ok(answer_of(asker, request, first.records, total, true));
        }
    }
    let Some(snapshot) = asker.snapshot().await? else {
        return Ok(answer_of(
            asker,
            request,
            Vec::new(),
            request.wants_total.then_some(0),
            true,
        ));
    };
    let answer = in_portions(asker, &snapshot, &plan, request, compiled, wanted).await;
    snapshot.close().await;
    answer
}

/// One request for everything: the page, the count, and how many records are in doubt.
async fn first(
    asker: &Asker<'_>,
    snapshot: Option<&PointInTime<'_>>,
    plan: &Plan,
    request: &SearchRequest,
    size: usize,
) -> Result<First, Fault> {
    let mut body = page_body(
        &plan.bounds.upper.to_json(),
        request.order,
        request.after,
        size,
    );
    let doubtful = plan.bounds.doubtful();
    if let Some(members) = body.as_object_mut() {
        members.insert("track_total_hits".to_owned(), request.wants_total.into());
        if doubtful != Query::Nothing {
            members.insert(
                "aggs".to_owned(),
                json!({"doubtful": {"filter": doubtful.to_json()}}),
            );
        }
        if size == 0 {
            members.remove("search_after");
            members.remove("sort");
        }
    }
    let json = asker.search(snapshot, body).await?;
    let count = |at: &str| json.pointer(at).and_then(Json::as_u64).unwrap_or(0);
    let (total, doubtful) = (
        count("/hits/total/value"),
        count("/aggregations/doubtful/doc_count"),
    );
    let fetched = read_hits(json).await?;
    Ok(First {
        total,
        doubtful,
        records: fetched.into_iter().map(|fetched| fetched.record).collect(),
    })
}

/// The page from a snapshot, each record judged here.
async fn in_portions(
    asker: &Asker<'_>,
    snapshot: &PointInTime<'_>,
    plan: &Plan,
    request: &SearchRequest,
    compiled: &CompiledSelection,
    wanted: usize,
) -> Result<SearchAnswer, Fault> {
    let max = asker.limits().candidates_max;
    let mut total = None;
    let mut is_exact = true;
    if request.wants_total {
        let first = first(asker, Some(snapshot), plan, request, 0).await?;
        let mut sure = first.total.saturating_sub(first.doubtful);
        if first.doubtful <= max {
            let doubtful = plan.bounds.doubtful();
            each_matching(asker, snapshot, &doubtful, first.doubtful, compiled, |_| {
                sure += 1;
            })
            .await?;
        } else if wanted == 0 {
            return Err(too_many(first.doubtful, max).into());
        } else {
            is_exact = false;
        }
        total = Some(sure);
    }
    let mut found: Vec<Record> = Vec::new();
    let mut n_refused: u64 = 0;
    let mut scan = Scan::new(
        asker,
        snapshot,
        &plan.bounds.upper,
        request.order,
        request.after,
    );
    // In the common case nearly all match; where few do, whole portions are looked at.
    let mut ask = wanted;
    while found.len() < wanted {
        let portion = scan.next(ask).await?;
        if portion.is_empty() {
            break;
        }
        let n_before = found.len();
        let n_fetched = portion.len();
        for fetched in portion {
            if compiled.matches(fetched.record.key.position, &fetched.record) {
                found.push(fetched.record);
            }
        }
        n_refused += (n_fetched - (found.len() - n_before)) as u64;
        if max < n_refused && found.len() < wanted {
            return Err(too_many(n_refused, max).into());
        }
        ask = match n_refused {
            0 => wanted - found.len().min(wanted),
            _ => usize::MAX,
        };
    }
    Ok(answer_of(asker, request, found, total, is_exact))
}

/// `records` holds one more than the page where more follow.
fn answer_of(
    asker: &Asker<'_>,
    request: &SearchRequest,
    mut records: Vec<Record>,
    total: Option<u64>,
    is_exact: bool,
) -> SearchAnswer {
    let has_more = match request.limit {
        0 => total.is_some_and(|total| total != 0),
        limit => limit < records.len(),
    };
    records.truncate(request.limit);
    let is_sorted = records.is_sorted_by(|a, b| is_before(a.key, b.key, request.order));
    debug_assert!(is_sorted, "the server's order is the order of keys");
    let partial_reasons = asker.partial_reasons();
    SearchAnswer {
        records: records
            .into_iter()
            .map(|record| match request.fields.as_deref() {
                None => record,
                fields => with_fields(&record, fields),
            })
            .collect(),
        total: total.map(|value| Total {
            value,
            // Of what did not answer nobody knows the count.
            is_exact: is_exact && partial_reasons.is_empty(),
        }),
        has_more,
        partial_reasons,
    }
}

fn is_before(a: RecordKey, b: RecordKey, order: Order) -> bool {
    match order {
        Order::Ascending => a < b,
        Order::Descending => b < a,
    }
}
