//! Groups and aggregates: counts, sums and ends by the server, exactly; percentiles and distinct counts exactly here where there are few records,
//! approximately by the server where there are many.

use serde_json::{Map, Value as Json, json};

use crate::common::cancel::Cancel;
use crate::common::error::Result;
use crate::query::{
    AggregateKind, CompiledSelection, GroupBy, Selection, StatsAnswer, StatsRequest,
};
use crate::record::Value;
use crate::store::answer::StatsTally;
use crate::store::answer::stats::{GroupKey, Partial};
use crate::store::elasticsearch::Inner;
use crate::store::elasticsearch::names::{Kind, address_term, own};
use crate::store::elasticsearch::read::asker::{Asker, Fault, PointInTime};
use crate::store::elasticsearch::read::bounds::Query;
use crate::store::elasticsearch::read::clauses;
use crate::store::elasticsearch::read::groups::{self, Found, Part, PartValue, fields_of};
use crate::store::elasticsearch::read::plan::{Plan, Split, odd_at, too_many};
use crate::store::elasticsearch::read::scan::each_matching;
use crate::store::elasticsearch::read::summary::{self, Attempt, Summary};

/// Integers up to here are exact in the server's doubles.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
/// Distinct values that the server counts nearly exactly.
const DISTINCT_PRECISION: u64 = 10_000;

pub async fn stats(inner: &Inner, request: StatsRequest, cancel: Cancel) -> Result<StatsAnswer> {
    summary::answer(inner, &request, &cancel).await
}

impl Summary for StatsRequest {
    type Answer = StatsAnswer;

    fn selection(&self) -> &Selection {
        &self.selection
    }

    fn addresses(&self) -> Option<Vec<String>> {
        Some(addresses_of(self))
    }

    fn of_nothing(&self, partial_reasons: Vec<String>) -> StatsAnswer {
        StatsTally::new(self).finish(Vec::new(), partial_reasons)
    }

    async fn attempt(&self, attempt: &Attempt<'_>) -> Result<StatsAnswer, Fault> {
        add_all(attempt, self).await
    }
}

/// How the server is asked.
struct Question<'a> {
    request: &'a StatsRequest,
    parts: Vec<Part>,
    /// For each aggregate the fields that hold what it is about.
    fields: Vec<Vec<(Kind, String)>>,
}

fn addresses_of(request: &StatsRequest) -> Vec<String> {
    let by = request.by.iter().filter_map(|by| match by {
        GroupBy::Field(address) => Some(address.clone()),
        GroupBy::Time(_) => None,
    });
    let fields = request
        .aggregates
        .iter()
        .filter(|aggregate| aggregate.kind != AggregateKind::Count)
        .map(|aggregate| aggregate.field.clone());
    let mut addresses: Vec<String> = by.chain(fields).collect();
    addresses.sort();
    addresses.dedup();
    addresses
}

async fn add_all(attempt: &Attempt<'_>, request: &StatsRequest) -> Result<StatsAnswer, Fault> {
    let Attempt {
        asker,
        snapshot,
        plan,
        compiled,
    } = *attempt;
    let limits = asker.limits();
    let everything = plan.split(&Query::All);
    let question = Question::new(plan, request);
    let split = match &question {
        Some(question) => plan.split(&Query::or([
            odd_at(&addresses_of(request)),
            question.numeric_texts(plan),
        ])),
        None => plan.split(&Query::All),
    };
    let (n_all, n_fetched) = counts(asker, snapshot, &everything.fetched, &split.fetched).await?;
    let kinds =
        |wanted: fn(&AggregateKind) -> bool| request.aggregates.iter().any(|a| wanted(&a.kind));
    let has_estimates =
        kinds(|kind| matches!(kind, AggregateKind::Percentile(_) | AggregateKind::Distinct));
    // An estimate is made by the server alone or not at all.
    let by_server = question.filter(|question| {
        !has_estimates
            || (limits.exact_records_max < n_all && n_fetched == 0 && question.can_estimate())
    });
    let whole = async |approximate: Vec<String>| -> Result<StatsAnswer, Fault> {
        let mut tally = StatsTally::new(request);
        add_fetched(asker, snapshot, &everything, n_all, compiled, &mut tally).await?;
        Ok(tally.finish(approximate, asker.partial_reasons()))
    };
    let Some(question) = by_server else {
        return whole(Vec::new()).await;
    };
    let mut tally = StatsTally::new(request);
    let mut is_rounded = false;
    if split.sure != Query::Nothing {
        let aggs = question.aggs();
        groups::all(
            asker,
            snapshot,
            &split.sure,
            &question.parts,
            &aggs,
            |found| {
                let (key, partials) = question.partials(found, &mut is_rounded);
                tally.add_partials(key, partials);
                Ok(())
            },
        )
        .await?;
    }
    if is_rounded && n_all <= limits.candidates_max {
        return whole(Vec::new()).await;
    }
    add_fetched(asker, snapshot, &split, n_fetched, compiled, &mut tally).await?;
    if limits.groups_max < tally.n_groups() {
        return Err(groups::too_many_groups(limits.groups_max).into());
    }
    let approximate = approximate_labels(request, is_rounded);
    Ok(tally.finish(approximate, asker.partial_reasons()))
}

/// Which aggregates of the server's are not exact.
fn approximate_labels(request: &StatsRequest, is_rounded: bool) -> Vec<String> {
    let approximate = request
        .aggregates
        .iter()
        .filter(|aggregate| match aggregate.kind {
            AggregateKind::Percentile(_) | AggregateKind::Distinct => true,
            AggregateKind::Sum | AggregateKind::Min | AggregateKind::Max => is_rounded,
            AggregateKind::Count | AggregateKind::CountField | AggregateKind::Avg => false,
        });
    approximate
        .map(|aggregate| aggregate.label.clone())
        .collect()
}

async fn counts(
    asker: &Asker<'_>,
    snapshot: &PointInTime<'_>,
    all: &Query,
    fetched: &Query,
) -> Result<(u64, u64), Fault> {
    let body = json!({
        "query": all.to_json(), "size": 0, "track_total_hits": true,
        "aggs": {"fetched": {"filter": fetched.to_json()}},
    });
    let json = asker.search(Some(snapshot), body).await?;
    let count = |at: &str| json.pointer(at).and_then(Json::as_u64).unwrap_or(0);
    Ok((
        count("/hits/total/value"),
        count("/aggregations/fetched/doc_count"),
    ))
}

async fn add_fetched(
    asker: &Asker<'_>,
    snapshot: &PointInTime<'_>,
    split: &Split,
    count: u64,
    compiled: &CompiledSelection,
    tally: &mut StatsTally<'_>,
) -> Result<(), Fault> {
    if asker.limits().candidates_max < count {
        return Err(too_many(count, asker.limits().candidates_max).into());
    }
    each_matching(
        asker,
        snapshot,
        &split.fetched,
        count,
        compiled,
        |fetched| {
            tally.add(&fetched.record);
        },
    )
    .await
}

impl<'a> Question<'a> {
    /// `None` where the server cannot group or aggregate so.
    fn new(plan: &Plan, request: &'a StatsRequest) -> Option<Self> {
        let parts = request.by.iter().map(|by| match by {
            GroupBy::Field(address) => Part::field(&plan.catalog, address),
            GroupBy::Time(interval_ns) => Part::time(*interval_ns),
        });
        let fields = request.aggregates.iter().map(|aggregate| {
            let kinds: &[Kind] = match aggregate.kind {
                AggregateKind::Count | AggregateKind::CountField => &[],
                AggregateKind::Sum
                | AggregateKind::Avg
                | AggregateKind::Min
                | AggregateKind::Max
                | AggregateKind::Percentile(_) => &[Kind::Long, Kind::Double],
                AggregateKind::Distinct => &[Kind::Text, Kind::Long, Kind::Double, Kind::Bool],
            };
            fields_of(&plan.catalog, &aggregate.field, kinds)
        });
        Some(Self {
            request,
            parts: parts.collect::<Option<_>>()?,
            fields: fields.collect::<Option<_>>()?,
        })
    }

    /// Records with texts that are numbers where numbers are aggregated: the server does not see them as such.
    fn numeric_texts(&self, plan: &Plan) -> Query {
        let mut any = Vec::new();
        for aggregate in &self.request.aggregates {
            let is_of_numbers = !matches!(
                aggregate.kind,
                AggregateKind::Count | AggregateKind::CountField | AggregateKind::Distinct
            );
            if is_of_numbers {
                let targets = plan.catalog.targets(&aggregate.field, Kind::Numeric);
                any.extend(
                    targets
                        .iter()
                        .map(|target| Query::Clause(clauses::exists(&target.name))),
                );
            }
        }
        Query::or(any)
    }

    /// Whether the values that an estimate is about are in one field.
    fn can_estimate(&self) -> bool {
        self.request
            .aggregates
            .iter()
            .zip(&self.fields)
            .all(|(aggregate, fields)| match aggregate.kind {
                AggregateKind::Percentile(_) | AggregateKind::Distinct => fields.len() <= 1,
                _ => true,
            })
    }

    fn aggs(&self) -> Map<String, Json> {
        let mut aggs = Map::new();
        for (index, aggregate) in self.request.aggregates.iter().enumerate() {
            if aggregate.kind == AggregateKind::CountField {
                let has_it = clauses::term(own::FIELDS, &*address_term(&aggregate.field));
                aggs.insert(format!("{index}"), json!({"filter": has_it}));
            }
            let fields = self
                .fields
                .get(index)
                .map(Vec::as_slice)
                .unwrap_or_default();
            for (at, (_, name)) in fields.iter().enumerate() {
                let agg = match aggregate.kind {
                    AggregateKind::Percentile(percent) => json!({"percentiles": {
                        "field": name, "percents": [percent], "keyed": false, "tdigest": {"compression": 200},
                    }}),
                    AggregateKind::Distinct => json!({"cardinality": {
                        "field": name, "precision_threshold": DISTINCT_PRECISION,
                    }}),
                    _ => json!({"stats": {"field": name}}),
                };
                aggs.insert(format!("{index}.{at}"), agg);
            }
        }
        aggs
    }

    fn partials(
        &self,
        found: Found,
        is_rounded: &mut bool,
    ) -> (Vec<GroupKey>, Vec<(usize, Partial)>) {
        let key = found.key.into_iter().map(|part| match part {
            PartValue::Time(ns) => GroupKey::Time(ns),
            PartValue::Text(text) => GroupKey::Text(text),
        });
        let mut partials = Vec::new();
        for (index, aggregate) in self.request.aggregates.iter().enumerate() {
            match aggregate.kind {
                AggregateKind::Count => partials.push((index, Partial::Count(found.count))),
                AggregateKind::CountField => {
                    let count = found
                        .bucket
                        .pointer(&format!("/{index}/doc_count"))
                        .and_then(Json::as_u64);
                    partials.push((index, Partial::Count(count.unwrap_or(0))));
                }
                _ => {}
            }
            let fields = self
                .fields
                .get(index)
                .map(Vec::as_slice)
                .unwrap_or_default();
            for (at, (kind, _)) in fields.iter().enumerate() {
                let Some(agg) = found.bucket.get(format!("{index}.{at}")) else {
                    continue;
                };
                let partial = match aggregate.kind {
                    AggregateKind::Percentile(_) => Partial::Whole(percentile(agg)),
                    AggregateKind::Distinct => {
                        let distinct = agg.get("value").and_then(Json::as_i64).unwrap_or(0);
                        Partial::Whole(Value::Int(distinct))
                    }
                    _ => numbers(agg, *kind, &aggregate.kind, is_rounded),
                };
                partials.push((index, partial));
            }
        }
        (key.collect(), partials)
    }
}

fn percentile(agg: &Json) -> Value {
    let value = agg.pointer("/values/0/value").and_then(Json::as_f64);
    value
        .filter(|value| value.is_finite())
        .map_or(Value::Null, Value::Float)
}

/// What a `stats` aggregation says; sets `is_rounded` where doubles may not be the integers that they stand for.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "checked against what a double holds"
)]
fn numbers(agg: &Json, kind: Kind, wanted: &AggregateKind, is_rounded: &mut bool) -> Partial {
    let number = |name: &str| agg.get(name).and_then(Json::as_f64);
    let count = agg.get("count").and_then(Json::as_u64).unwrap_or(0);
    let (Some(min), Some(max)) = (number("min"), number("max")) else {
        return Partial::Count(0);
    };
    let sum = number("sum").unwrap_or(f64::INFINITY);
    let largest = min.abs().max(max.abs());
    if kind == Kind::Double {
        return Partial::Numbers {
            count,
            sum,
            exact_sum: None,
            min: Value::Float(min),
            max: Value::Float(max),
        };
    }
    *is_rounded |= match wanted {
        AggregateKind::Sum => EXACT_MAX <= largest * count as f64,
        AggregateKind::Min | AggregateKind::Max => EXACT_MAX <= largest,
        _ => false,
    };
    Partial::Numbers {
        count,
        sum,
        exact_sum: Some(sum as i128),
        min: Value::Int(min as i64),
        max: Value::Int(max as i64),
    }
}
