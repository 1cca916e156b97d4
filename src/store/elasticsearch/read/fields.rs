//! What fields there are: exactly by looking at every record where they are few; else names and counts exactly by the server, values by its most
//! frequent ones, and the records with arrays and the like one by one, as far as the limit allows.

use std::collections::BTreeSet;

use serde_json::{Map, Value as Json, json};

use crate::common::cancel::Cancel;
use crate::common::error::Result;
use crate::query::{FieldsAnswer, FieldsRequest, Order, Selection};
use crate::record::value::ValueType;
use crate::record::{Record, key};
use crate::store::answer::FieldsTally;
use crate::store::elasticsearch::Inner;
use crate::store::elasticsearch::names::{Kind, address_term, own};
use crate::store::elasticsearch::read::asker::{Asker, Fault, PointInTime};
use crate::store::elasticsearch::read::bounds::Query;
use crate::store::elasticsearch::read::catalog::Target;
use crate::store::elasticsearch::read::clauses;
use crate::store::elasticsearch::read::groups::text_of;
use crate::store::elasticsearch::read::plan::{Plan, odd_at};
use crate::store::elasticsearch::read::scan::{Fetched, Scan, each_matching};
use crate::store::elasticsearch::read::summary::{self, Attempt, Summary};

/// Fields asked for in one request.
const FIELDS_AT_ONCE: usize = 40;
/// Values of a field that are counted at least.
const VALUES_MIN: usize = 100;

pub async fn fields(inner: &Inner, request: FieldsRequest, cancel: Cancel) -> Result<FieldsAnswer> {
    summary::answer(inner, &request, &cancel).await
}

impl Summary for FieldsRequest {
    type Answer = FieldsAnswer;

    fn selection(&self) -> &Selection {
        &self.selection
    }

    fn addresses(&self) -> Option<Vec<String>> {
        self.fields.clone()
    }

    fn of_nothing(&self, partial_reasons: Vec<String>) -> FieldsAnswer {
        FieldsTally::new(self).finish(partial_reasons)
    }

    async fn attempt(&self, attempt: &Attempt<'_>) -> Result<FieldsAnswer, Fault> {
        count_all(attempt, self).await
    }
}

async fn count_all(attempt: &Attempt<'_>, request: &FieldsRequest) -> Result<FieldsAnswer, Fault> {
    let Attempt {
        asker,
        snapshot,
        plan,
        compiled,
    } = *attempt;
    let limits = asker.limits();
    let mut tally = FieldsTally::new(request);
    let doubtful = plan.bounds.doubtful();
    let sure = &plan.bounds.lower;
    let odd = match &request.fields {
        Some(fields) => odd_at(fields),
        None => Query::Clause(clauses::exists(own::MULTI)),
    };
    let odd = Query::and([sure.clone(), odd]);
    let body = json!({
        "query": plan.bounds.upper.to_json(), "size": 0, "track_total_hits": true,
        "aggs": {"doubtful": {"filter": doubtful.to_json()}, "odd": {"filter": odd.to_json()}},
    });
    let json = asker.search(Some(snapshot), body).await?;
    let count = |at: &str| json.pointer(at).and_then(Json::as_u64).unwrap_or(0);
    let n_all = count("/hits/total/value");
    let n_doubtful = count("/aggregations/doubtful/doc_count");
    let n_odd = count("/aggregations/odd/doc_count");
    if n_all <= limits.exact_records_max {
        let all = &plan.bounds.upper;
        each_matching(asker, snapshot, all, n_all, compiled, |fetched| {
            tally.add(&fetched.record);
        })
        .await?;
        return Ok(tally.finish(asker.partial_reasons()));
    }
    each_matching(
        asker,
        snapshot,
        &doubtful,
        n_doubtful,
        compiled,
        |fetched| tally.add(&fetched.record),
    )
    .await?;
    tally.add_total(n_all - n_doubtful);
    by_server(asker, snapshot, plan, request, &mut tally).await?;
    let n_read = by_record(asker, snapshot, &odd, request, &mut tally).await?;
    let mut partial_reasons = asker.partial_reasons();
    if n_read < n_odd {
        partial_reasons.push(format!(
            "{n_odd} records hold arrays, long texts or numbers too large for a column, and only the newest {n_read} of them were looked at for such values; narrow the time range or name the fields"
        ));
    }
    Ok(tally.finish(partial_reasons))
}

/// Values in typed fields, wherever they are all that a record has at the address.
async fn by_server(
    asker: &Asker<'_>,
    snapshot: &PointInTime<'_>,
    plan: &Plan,
    request: &FieldsRequest,
    tally: &mut FieldsTally,
) -> Result<(), Fault> {
    let addresses: BTreeSet<String> = match &request.fields {
        Some(fields) => fields.iter().cloned().collect(),
        None => plan.catalog.addresses().into_keys().collect(),
    };
    let mut targets: Vec<(String, Kind, Target)> = Vec::new();
    for address in addresses {
        for kind in [Kind::Text, Kind::Long, Kind::Double, Kind::Bool] {
            for target in plan.catalog.targets(&address, kind) {
                targets.push((address.clone(), kind, target));
            }
        }
    }
    let size = VALUES_MIN.max(request.top.saturating_mul(2));
    // A name that is of another type in some indices must be asked apart from itself.
    let (split, plain): (Vec<_>, Vec<_>) = targets
        .into_iter()
        .partition(|(_, _, t)| t.indices.is_some());
    let chunks = plain.chunks(FIELDS_AT_ONCE).chain(split.chunks(1));
    for chunk in chunks {
        let mut aggs = Map::new();
        for (at, (address, _, target)) in chunk.iter().enumerate() {
            let terms = json!({"terms": {"field": target.name, "size": size}});
            let distinct = json!({"cardinality": {"field": target.name}});
            let is_odd = Query::Clause(clauses::term(own::MULTI, &*address_term(address)));
            aggs.insert(
                format!("{at}"),
                json!({"filter": is_odd.not().to_json(), "aggs": {"values": terms, "distinct": distinct}}),
            );
        }
        let mut query = vec![plan.bounds.lower.clone()];
        if let [
            (
                _,
                _,
                Target {
                    indices: Some(indices),
                    ..
                },
            ),
        ] = chunk
        {
            query.push(Query::Clause(json!({"terms": {"_index": indices}})));
        }
        let body = json!({
            "query": Query::and(query).to_json(), "size": 0, "track_total_hits": false, "aggs": aggs,
        });
        let json = asker.search(Some(snapshot), body).await?;
        for (at, (address, kind, _)) in chunk.iter().enumerate() {
            if let Some(found) = json.pointer(&format!("/aggregations/{at}")) {
                add_values(tally, address, *kind, found);
            }
        }
    }
    Ok(())
}

fn add_values(tally: &mut FieldsTally, address: &str, kind: Kind, found: &Json) {
    let count = |of: &Json, name: &str| of.get(name).and_then(Json::as_u64).unwrap_or(0);
    let Some(values) = found.get("values") else {
        return;
    };
    let value_type = match kind {
        Kind::Long => ValueType::Int,
        Kind::Double => ValueType::Float,
        Kind::Bool => ValueType::Bool,
        Kind::Text | Kind::Number | Kind::Numeric | Kind::Ip => ValueType::Str,
    };
    let n_others = count(values, "sum_other_doc_count");
    let mut n_records = n_others;
    for value in values
        .get("buckets")
        .and_then(Json::as_array)
        .into_iter()
        .flatten()
    {
        let n = count(value, "doc_count");
        n_records += n;
        if let Some(text) = text_of(kind, value.get("key").unwrap_or(&Json::Null)) {
            tally.add_value(address, value_type, text, n);
        }
    }
    tally.add_field(address, n_records);
    if n_others != 0 || count(values, "doc_count_error_upper_bound") != 0 {
        let distinct = found.pointer("/distinct/value").and_then(Json::as_u64);
        tally.estimate_distinct(address, distinct.unwrap_or(0));
    }
}

/// The values that the server could not count, record by record; returns how many were looked at.
async fn by_record(
    asker: &Asker<'_>,
    snapshot: &PointInTime<'_>,
    odd: &Query,
    request: &FieldsRequest,
    tally: &mut FieldsTally,
) -> Result<u64, Fault> {
    let mut left = asker.limits().candidates_max;
    let mut n_read = 0;
    let mut scan = Scan::new(asker, snapshot, odd, Order::Descending, None);
    // The server has counted the records themselves.
    let mut of_odd = FieldsTally::new(request);
    while 0 < left {
        let portion = scan
            .next(usize::try_from(left).unwrap_or(usize::MAX))
            .await?;
        if portion.is_empty() {
            break;
        }
        left = left.saturating_sub(portion.len() as u64);
        n_read += portion.len() as u64;
        for Fetched { record, multi } in portion {
            let is_odd = |name: &str| {
                let term = address_term(&key::address(name)).into_owned();
                multi.contains(&term)
            };
            let fields = record
                .fields
                .iter()
                .filter(|(name, _)| is_odd(name))
                .cloned()
                .collect();
            of_odd.add(&Record { fields, ..record });
        }
    }
    tally.merge_values(of_odd);
    Ok(n_read)
}
