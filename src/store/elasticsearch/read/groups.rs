//! Groups counted by the server: composite aggregations, page after page, so that every group is there with its exact count.

use serde_json::{Map, Value as Json, json};

use crate::common::error::{Error, ErrorKind, Result};
use crate::record::value::float_text;
use crate::store::elasticsearch::names::{Kind, own};
use crate::store::elasticsearch::read::asker::{Asker, Fault, PointInTime};
use crate::store::elasticsearch::read::bounds::Query;
use crate::store::elasticsearch::read::catalog::{Catalog, Target};

const NS_PER_MS: i64 = 1_000_000;
/// Groups of one page.
const PAGE_GROUPS: usize = 2_000;
/// Kinds whose single value is the value that groups see.
const GROUPED: [Kind; 4] = [Kind::Text, Kind::Long, Kind::Double, Kind::Bool];

/// One part of a group's key.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    Time(i64),
    /// The fields that hold the values of an address; a record has one of them, or none.
    Field(Vec<(Kind, String)>),
}

/// What a part of a group's key is.
#[derive(Clone, Debug, PartialEq)]
pub enum PartValue {
    Time(i64),
    Text(Option<String>),
}

/// One group of the server's.
pub struct Found {
    pub key: Vec<PartValue>,
    pub count: u64,
    /// The aggregations inside it, by name.
    pub bucket: Json,
}

impl Part {
    /// `None`: not a whole number of milliseconds, which is the server's unit.
    pub fn time(interval_ns: i64) -> Option<Self> {
        (0 < interval_ns && interval_ns % NS_PER_MS == 0)
            .then_some(Self::Time(interval_ns / NS_PER_MS))
    }

    /// `None`: in some indices a name holds values of another kind, so that the server cannot group by it.
    pub fn field(catalog: &Catalog, address: &str) -> Option<Self> {
        fields_of(catalog, address, &GROUPED).map(Self::Field)
    }
}

/// The fields of these kinds at an address, if each is of its kind wherever it is.
pub fn fields_of(catalog: &Catalog, address: &str, kinds: &[Kind]) -> Option<Vec<(Kind, String)>> {
    let mut found = Vec::new();
    for kind in kinds {
        for Target { name, indices } in catalog.targets(address, *kind) {
            if indices.is_some() {
                return None;
            }
            found.push((*kind, name));
        }
    }
    Some(found)
}

/// The start of a bucket, from the server's milliseconds.
pub fn bucket_ns(ms: i64) -> i64 {
    ms.saturating_mul(NS_PER_MS)
}

/// The text of a value as groups show it.
pub fn text_of(kind: Kind, key: &Json) -> Option<String> {
    match (kind, key) {
        (_, Json::Null) => None,
        (Kind::Bool, Json::Number(number)) => Some((number.as_i64() == Some(1)).to_string()),
        (Kind::Double, Json::Number(number)) => number.as_f64().map(float_text),
        (_, Json::String(text)) => Some(text.clone()),
        (_, other) => Some(other.to_string()),
    }
}

/// All groups of the records that `query` finds.
pub async fn all(
    asker: &Asker<'_>,
    snapshot: &PointInTime<'_>,
    query: &Query,
    parts: &[Part],
    aggs: &Map<String, Json>,
    mut visit: impl FnMut(Found) -> Result<()>,
) -> Result<(), Fault> {
    let mut sources = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        match part {
            Part::Time(interval_ms) => {
                sources.push(json!({format!("{index}"): {"date_histogram": {
                    "field": own::MS, "fixed_interval": format!("{interval_ms}ms"),
                }}}));
            }
            Part::Field(fields) => {
                for (at, (_, name)) in fields.iter().enumerate() {
                    let source = json!({"terms": {"field": name, "missing_bucket": true}});
                    sources.push(json!({format!("{index}.{at}"): source}));
                }
            }
        }
    }
    if sources.is_empty() {
        // Grouped by fields that are nowhere: one group.
        let mut body = json!({"query": query.to_json(), "size": 0, "track_total_hits": true});
        insert_aggs(&mut body, aggs);
        let answer = asker.search(Some(snapshot), body).await?;
        let count = answer
            .pointer("/hits/total/value")
            .and_then(Json::as_u64)
            .unwrap_or(0);
        if count != 0 {
            visit(Found {
                key: parts.iter().map(|_| PartValue::Text(None)).collect(),
                count,
                bucket: answer.get("aggregations").cloned().unwrap_or_default(),
            })?;
        }
        return Ok(());
    }
    let size = PAGE_GROUPS.min(asker.limits().groups_max.max(1));
    let mut n_groups = 0;
    let mut after: Option<Json> = None;
    loop {
        let mut composite = json!({"size": size, "sources": sources});
        if let (Some(after), Some(members)) = (after.take(), composite.as_object_mut()) {
            members.insert("after".to_owned(), after);
        }
        let mut groups = json!({"composite": composite});
        insert_aggs(&mut groups, aggs);
        let body = json!({
            "query": query.to_json(), "size": 0, "track_total_hits": false, "aggs": {"groups": groups},
        });
        let mut answer = asker.search(Some(snapshot), body).await?;
        let Some(Json::Object(mut found)) =
            answer.pointer_mut("/aggregations/groups").map(Json::take)
        else {
            return Ok(());
        };
        after = found.remove("after_key");
        let Some(Json::Array(buckets)) = found.remove("buckets") else {
            return Ok(());
        };
        n_groups += buckets.len();
        if asker.limits().groups_max < n_groups {
            return Err(too_many_groups(asker.limits().groups_max).into());
        }
        let is_last = buckets.len() < size;
        for bucket in buckets {
            visit(found_in(parts, bucket))?;
        }
        if is_last || after.is_none() {
            return Ok(());
        }
    }
}

fn insert_aggs(body: &mut Json, aggs: &Map<String, Json>) {
    if let (false, Some(members)) = (aggs.is_empty(), body.as_object_mut()) {
        members.insert("aggs".to_owned(), Json::Object(aggs.clone()));
    }
}

fn found_in(parts: &[Part], bucket: Json) -> Found {
    let of_key = |name: &str| {
        bucket
            .get("key")
            .and_then(|key| key.get(name))
            .unwrap_or(&Json::Null)
    };
    let key = parts.iter().enumerate().map(|(index, part)| match part {
        Part::Time(_) => {
            PartValue::Time(bucket_ns(of_key(&format!("{index}")).as_i64().unwrap_or(0)))
        }
        Part::Field(fields) => {
            let mut texts = fields
                .iter()
                .enumerate()
                .filter_map(|(at, (kind, _))| text_of(*kind, of_key(&format!("{index}.{at}"))));
            PartValue::Text(texts.next())
        }
    });
    Found {
        key: key.collect(),
        count: bucket.get("doc_count").and_then(Json::as_u64).unwrap_or(0),
        bucket,
    }
}

pub fn too_many_groups(max: usize) -> Error {
    Error::new(
        ErrorKind::TooLarge,
        "too_many_groups",
        format!(
            "there are more than {max} groups; group by fewer fields, narrow the time range or the filter, or raise `store.elasticsearch_groups_max`"
        ),
    )
}
