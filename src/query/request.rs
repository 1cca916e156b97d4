//! What can be asked of a store, and the shape of its answers. No type here knows HTTP or JSON.

use crate::query::ast::Expr;
use crate::record::value::ValueType;
use crate::record::{Position, Record, RecordKey, Value};

/// `start_ns` inclusive, `end_ns` exclusive; `None` is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TimeRange {
    pub start_ns: Option<i64>,
    pub end_ns: Option<i64>,
}

impl TimeRange {
    pub fn contains(&self, timestamp_ns: i64) -> bool {
        self.start_ns.is_none_or(|start| start <= timestamp_ns)
            && self.end_ns.is_none_or(|end| timestamp_ns < end)
    }
}

/// Which records a question is about.
#[derive(Clone, Debug, PartialEq)]
pub struct Selection {
    pub range: TimeRange,
    pub filter: Expr,
    /// Only records whose position in partition p lies in [from, to): for the live tail's seam. Both bounds name the
    /// same partition. Usually `None`.
    pub positions: Option<(Position, Position)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Order {
    /// Newest first: by [`RecordKey`], descending.
    Descending,
    /// Oldest first.
    Ascending,
}

#[derive(Clone, Debug, PartialEq)]
pub struct SearchRequest {
    pub selection: Selection,
    pub order: Order,
    /// Records wanted; 0 for the total alone.
    pub limit: usize,
    /// Keyset cursor: only records strictly after this key in `order`.
    pub after: Option<RecordKey>,
    /// Whether to count all that match (the cursor does not change the count).
    pub wants_total: bool,
    /// Addresses of the fields wanted; `None` is all. An address includes what is nested under it.
    pub fields: Option<Vec<String>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Total {
    pub value: u64,
    /// False: there are at least `value`.
    pub is_exact: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct SearchAnswer {
    pub records: Vec<Record>,
    pub total: Option<Total>,
    /// More records follow the last one.
    pub has_more: bool,
    /// Why the answer may be incomplete (a quarantined segment, …); empty when it is complete.
    pub partial_reasons: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct HistogramRequest {
    pub selection: Selection,
    /// Width of a bucket; buckets begin at multiples of it since 1970.
    pub interval_ns: i64,
    /// Address of the field that splits each bucket, by its text (see [`GroupBy::Field`]).
    pub by: Option<String>,
    /// At most this many values of `by`, the most frequent ones; the rest is counted under `None`.
    pub by_limit: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub struct HistogramBucket {
    pub start_ns: i64,
    pub count: u64,
    /// (value as text, count), most frequent value overall first; `None` holds records without the field and the rest.
    pub by: Vec<(Option<String>, u64)>,
}

/// Only buckets that hold something, in order of time; the API fills in the empty ones.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    pub buckets: Vec<HistogramBucket>,
    pub total: u64,
    pub partial_reasons: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct FieldsRequest {
    pub selection: Selection,
    /// How many of the most frequent values for each field. Values are the same if type and value are; an array is one value.
    pub top: usize,
    /// Only these addresses; `None` is all.
    pub fields: Option<Vec<String>>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct FieldSummary {
    /// The address.
    pub name: String,
    /// Those of the values other than null; a field that is null everywhere is not listed.
    pub types: Vec<ValueType>,
    /// Records that have it with a value other than null.
    pub count: u64,
    pub distinct: u64,
    pub is_distinct_exact: bool,
    /// Most frequent first, ties by value's text.
    pub top: Vec<(Value, u64)>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct FieldsAnswer {
    /// Sorted by name.
    pub fields: Vec<FieldSummary>,
    pub total: u64,
    pub partial_reasons: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum GroupBy {
    /// The field at this address, by its text (`ValueRef::text`, so 500 and "500" are one group, and an array is one text); the
    /// group's value is `Str`. Records without it, or with null, form the group `Null`. Of several keys with this address that are
    /// not null the first in byte order counts. Addresses inside an array are not looked at.
    Field(String),
    /// Buckets of time, nanoseconds wide; the value is the bucket's start.
    Time(i64),
}

/// The field is found as for [`GroupBy::Field`]. `Sum` to `Percentile` are about its numbers, and texts that are numbers
/// (`query::number::is_number`); other values, and numbers beyond a double's range, are left out.
#[derive(Clone, Debug, PartialEq)]
pub enum AggregateKind {
    /// Records.
    Count,
    /// Records in which the field has a value other than null.
    CountField,
    /// `Int` where all are integers and the sum fits, else `Float`.
    Sum,
    /// `Float`.
    Avg,
    /// `Int` or `Float`, as the value is.
    Min,
    Max,
    /// Between 0 and 100; `Float`, between the two nearest ranks by linear interpolation. May be approximate.
    Percentile(f64),
    /// Texts that differ. May be approximate.
    Distinct,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Aggregate {
    /// As it was asked for and is answered: `avg(duration_ms)`.
    pub label: String,
    pub kind: AggregateKind,
    /// Address of the field; unused by `Count`.
    pub field: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct StatsRequest {
    pub selection: Selection,
    /// Empty: one group of everything, also where nothing matches.
    pub by: Vec<GroupBy>,
    pub aggregates: Vec<Aggregate>,
    /// (index into `by` then `aggregates`, descending), in order of weight. Null comes last in both directions; what is equal
    /// then is ordered by the values of `by`, ascending, null last.
    pub sort: Vec<(usize, bool)>,
    pub limit: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// One for each `StatsRequest::by`; times are `Int` nanoseconds.
    pub by: Vec<Value>,
    /// One for each aggregate; `Null` where there was nothing to aggregate, or where the result is beyond a double's range.
    pub values: Vec<Value>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct StatsAnswer {
    pub groups: Vec<Group>,
    /// Groups before `limit` cut them.
    pub n_groups: u64,
    /// Labels of the aggregates whose values are approximate.
    pub approximate: Vec<String>,
    pub partial_reasons: Vec<String>,
}
