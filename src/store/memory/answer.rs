//! The answers of the naive store, each from one look at every record. Exact, whatever it costs.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use crate::common::error::Result;
use crate::query::number::is_number;
use crate::query::{
    Aggregate, AggregateKind, FieldSummary, FieldsAnswer, FieldsRequest, Group, GroupBy, Histogram,
    HistogramBucket, HistogramRequest, Order, SearchAnswer, SearchRequest, StatsAnswer,
    StatsRequest, Total,
};
use crate::record::value::ValueType;
use crate::record::{Record, Value, ValueRef, key};
use crate::store::memory::Scan;

pub fn search(scan: &Scan, request: &SearchRequest) -> Result<SearchAnswer> {
    let mut total = 0;
    let mut found: Vec<Arc<Record>> = Vec::new();
    scan.each(&request.selection, |record| {
        total += 1;
        let is_after = request.after.is_none_or(|after| match request.order {
            Order::Descending => record.key < after,
            Order::Ascending => after < record.key,
        });
        if is_after {
            found.push(Arc::clone(record));
        }
        Ok(())
    })?;
    found.sort_unstable_by(|a, b| match request.order {
        Order::Descending => b.key.cmp(&a.key),
        Order::Ascending => a.key.cmp(&b.key),
    });
    let has_more = request.limit < found.len();
    found.truncate(request.limit);
    Ok(SearchAnswer {
        records: found
            .iter()
            .map(|record| with_fields(record, request.fields.as_deref()))
            .collect(),
        total: request.wants_total.then_some(Total {
            value: total,
            is_exact: true,
        }),
        has_more,
        partial_reasons: Vec::new(),
    })
}

fn with_fields(record: &Record, wanted: Option<&[String]>) -> Record {
    let Some(wanted) = wanted else {
        return record.clone();
    };
    let is_below = |below: &str, above: &str| {
        below
            .strip_prefix(above)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let is_wanted = |(name, value): &&(Arc<str>, Value)| {
        let address = key::address(name);
        let is_json = matches!(value, Value::Json(_));
        wanted
            .iter()
            .any(|asked| is_below(&address, asked) || (is_json && is_below(asked, &address)))
    };
    Record {
        key: record.key,
        timestamp_digits: record.timestamp_digits,
        flags: record.flags,
        fields: record.fields.iter().filter(is_wanted).cloned().collect(),
    }
}

/// The one value that a record has at an address, for groups and aggregates: see `GroupBy::Field`.
fn value_at<'a>(record: &'a Record, address: &str) -> Option<ValueRef<'a>> {
    record
        .fields
        .iter()
        .filter(|(name, value)| *value != Value::Null && key::address(name) == address)
        .min_by(|a, b| a.0.cmp(&b.0))
        .map(|(_, value)| value.as_value_ref())
}

fn bucket_of(timestamp_ns: i64, interval_ns: i64) -> i64 {
    timestamp_ns.saturating_sub(timestamp_ns.rem_euclid(interval_ns.max(1)))
}

pub fn histogram(scan: &Scan, request: &HistogramRequest) -> Result<Histogram> {
    let mut buckets: BTreeMap<i64, HashMap<Option<String>, u64>> = BTreeMap::new();
    let mut overall: HashMap<String, u64> = HashMap::new();
    let mut total = 0;
    scan.each(&request.selection, |record| {
        let value = request.by.as_deref().and_then(|by| value_at(record, by));
        let text = value.map(|value| value.text().into_owned());
        if let Some(text) = &text {
            *overall.entry_ref(text.as_str()).or_insert(0) += 1;
        }
        let start = bucket_of(record.key.timestamp_ns, request.interval_ns);
        *buckets.entry(start).or_default().entry(text).or_insert(0) += 1;
        total += 1;
        Ok(())
    })?;
    let mut values: Vec<(String, u64)> = overall.into_iter().collect();
    values.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    values.truncate(request.by_limit);
    let bucket = |(start_ns, cells): (i64, HashMap<Option<String>, u64>)| {
        let count = cells.values().sum();
        let mut by = Vec::new();
        if request.by.is_some() {
            for (value, _) in &values {
                let value = Some(value.clone());
                if let Some(count) = cells.get(&value) {
                    by.push((value, *count));
                }
            }
            let named: u64 = by.iter().map(|(_, count)| count).sum();
            if named < count {
                by.push((None, count - named));
            }
        }
        HistogramBucket {
            start_ns,
            count,
            by,
        }
    };
    Ok(Histogram {
        buckets: buckets.into_iter().map(bucket).collect(),
        total,
        partial_reasons: Vec::new(),
    })
}

#[derive(Default)]
struct Seen {
    types: BTreeSet<ValueType>,
    count: u64,
    /// By type and text, which say the same as type and value.
    values: HashMap<(ValueType, String), u64>,
}

pub fn fields(scan: &Scan, request: &FieldsRequest) -> Result<FieldsAnswer> {
    let mut seen: BTreeMap<String, Seen> = BTreeMap::new();
    let mut total = 0;
    scan.each(&request.selection, |record| {
        total += 1;
        let mut counted: Vec<String> = Vec::new();
        for (name, value) in &record.fields {
            let address = key::address(name).into_owned();
            let is_wanted = request
                .fields
                .as_ref()
                .is_none_or(|fields| fields.contains(&address));
            if *value == Value::Null || !is_wanted {
                continue;
            }
            let value = value.as_value_ref();
            let field = seen.entry(address.clone()).or_default();
            field.types.insert(value.value_type());
            let of_value = (value.value_type(), value.text().into_owned());
            *field.values.entry(of_value).or_insert(0) += 1;
            if !counted.contains(&address) {
                field.count += 1;
                counted.push(address);
            }
        }
        Ok(())
    })?;
    let summary = |(name, field): (String, Seen)| {
        let distinct = field.values.len() as u64;
        let mut top: Vec<((ValueType, String), u64)> = field.values.into_iter().collect();
        top.sort_by(|a, b| {
            let by_text = (&a.0.1, a.0.0).cmp(&(&b.0.1, b.0.0));
            b.1.cmp(&a.1).then(by_text)
        });
        top.truncate(request.top);
        FieldSummary {
            name,
            types: field.types.into_iter().collect(),
            count: field.count,
            distinct,
            is_distinct_exact: true,
            top: top
                .into_iter()
                .map(|((ty, text), count)| (value_of(ty, text), count))
                .collect(),
        }
    };
    Ok(FieldsAnswer {
        fields: seen.into_iter().map(summary).collect(),
        total,
        partial_reasons: Vec::new(),
    })
}

/// `text` is what `ValueRef::text` made of a value of this type.
fn value_of(ty: ValueType, text: String) -> Value {
    match ty {
        ValueType::Null => Value::Null,
        ValueType::Bool => Value::Bool(text == "true"),
        ValueType::Int => text.parse().map_or(Value::Null, Value::Int),
        ValueType::Float => text.parse().map_or(Value::Null, Value::Float),
        ValueType::Number => Value::Number(text),
        ValueType::Str => Value::Str(text),
        ValueType::Json => Value::Json(text),
    }
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum GroupKey {
    Text(Option<String>),
    Time(i64),
}

pub fn stats(scan: &Scan, request: &StatsRequest) -> Result<StatsAnswer> {
    let mut groups: HashMap<Vec<GroupKey>, Vec<Tally>> = HashMap::new();
    let new = || request.aggregates.iter().map(Tally::new).collect();
    if request.by.is_empty() {
        groups.insert(Vec::new(), new());
    }
    scan.each(&request.selection, |record| {
        let of_group = |by: &GroupBy| match by {
            GroupBy::Field(address) => {
                GroupKey::Text(value_at(record, address).map(|value| value.text().into_owned()))
            }
            GroupBy::Time(interval_ns) => {
                GroupKey::Time(bucket_of(record.key.timestamp_ns, *interval_ns))
            }
        };
        let group = request.by.iter().map(of_group).collect();
        for tally in groups.entry(group).or_insert_with(new) {
            tally.add(record);
        }
        Ok(())
    })?;
    let mut groups: Vec<Group> = groups
        .into_iter()
        .map(|(by, tallies)| Group {
            by: by.into_iter().map(group_value).collect(),
            values: tallies.into_iter().map(Tally::finish).collect(),
        })
        .collect();
    groups.sort_by(|a, b| compare_groups(a, b, &request.sort));
    let n_groups = groups.len() as u64;
    groups.truncate(request.limit);
    Ok(StatsAnswer {
        groups,
        n_groups,
        approximate: Vec::new(),
        partial_reasons: Vec::new(),
    })
}

fn group_value(key: GroupKey) -> Value {
    match key {
        GroupKey::Text(None) => Value::Null,
        GroupKey::Text(Some(text)) => Value::Str(text),
        GroupKey::Time(start_ns) => Value::Int(start_ns),
    }
}

fn compare_groups(a: &Group, b: &Group, sort: &[(usize, bool)]) -> Ordering {
    let value = |group: &Group, index: usize| {
        let in_values = index.checked_sub(group.by.len());
        let value = match in_values {
            None => group.by.get(index),
            Some(index) => group.values.get(index),
        };
        value.cloned().unwrap_or(Value::Null)
    };
    for (index, is_descending) in sort {
        let by_value = compare_values(&value(a, *index), &value(b, *index), *is_descending);
        if by_value != Ordering::Equal {
            return by_value;
        }
    }
    let mut pairs = a.by.iter().zip(&b.by);
    pairs
        .find_map(|(a, b)| Some(compare_values(a, b, false)).filter(|order| order.is_ne()))
        .unwrap_or(Ordering::Equal)
}

/// Null comes last in both directions.
fn compare_values(a: &Value, b: &Value, is_descending: bool) -> Ordering {
    let order = match (a, b) {
        (Value::Null, Value::Null) => return Ordering::Equal,
        (Value::Null, _) => return Ordering::Greater,
        (_, Value::Null) => return Ordering::Less,
        (Value::Str(a), Value::Str(b)) => a.cmp(b),
        (a, b) => compare_numbers(a, b),
    };
    if is_descending {
        order.reverse()
    } else {
        order
    }
}

fn compare_numbers(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => a.cmp(b),
        _ => as_f64(a).total_cmp(&as_f64(b)),
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "aggregates are doubles where they are not integers"
)]
fn as_f64(value: &Value) -> f64 {
    match value {
        Value::Int(value) => *value as f64,
        Value::Float(value) => *value,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Str(_) | Value::Json(_) => 0.0,
    }
}

/// The number that aggregates see, as `Int` or `Float`.
fn number(value: ValueRef<'_>) -> Option<Value> {
    match value {
        ValueRef::Int(value) => Some(Value::Int(value)),
        ValueRef::Float(value) => Some(Value::Float(value)),
        ValueRef::Number(text) | ValueRef::Str(text) if is_number(text) => {
            if let Ok(value) = text.parse() {
                return Some(Value::Int(value));
            }
            let value: f64 = text.parse().ok()?;
            value.is_finite().then_some(Value::Float(value))
        }
        ValueRef::Null
        | ValueRef::Bool(_)
        | ValueRef::Number(_)
        | ValueRef::Str(_)
        | ValueRef::Json(_) => None,
    }
}

/// One aggregate of one group while it is being counted.
struct Tally {
    aggregate: Aggregate,
    count: u64,
    numbers: Vec<Value>,
    texts: HashSet<String>,
}

impl Tally {
    fn new(aggregate: &Aggregate) -> Self {
        Self {
            aggregate: aggregate.clone(),
            count: 0,
            numbers: Vec::new(),
            texts: HashSet::new(),
        }
    }

    fn add(&mut self, record: &Record) {
        let value = value_at(record, &self.aggregate.field);
        match (&self.aggregate.kind, value) {
            (AggregateKind::Count, _) | (AggregateKind::CountField, Some(_)) => self.count += 1,
            (_, None) => {}
            (AggregateKind::Distinct, Some(value)) => {
                self.texts.insert(value.text().into_owned());
            }
            (_, Some(value)) => self.numbers.extend(number(value)),
        }
    }

    fn finish(mut self) -> Value {
        #[expect(
            clippy::cast_precision_loss,
            reason = "a count fits a double well enough for a mean"
        )]
        let n_numbers = self.numbers.len() as f64;
        let count = |count: u64| Value::Int(i64::try_from(count).unwrap_or(i64::MAX));
        match self.aggregate.kind {
            AggregateKind::Count | AggregateKind::CountField => return count(self.count),
            AggregateKind::Distinct => return count(self.texts.len() as u64),
            _ if self.numbers.is_empty() => return Value::Null,
            _ => {}
        }
        let sum = || self.numbers.iter().map(as_f64).sum::<f64>();
        let finite = |value: f64| match value.is_finite() {
            true => Value::Float(value),
            false => Value::Null,
        };
        match self.aggregate.kind {
            AggregateKind::Avg => finite(sum() / n_numbers),
            AggregateKind::Sum => match exact_sum(&self.numbers) {
                Some(sum) => Value::Int(sum),
                None => finite(sum()),
            },
            AggregateKind::Percentile(percent) => finite(percentile(&self.numbers, percent)),
            AggregateKind::Max => {
                self.numbers.sort_by(compare_numbers);
                self.numbers.pop().unwrap_or(Value::Null)
            }
            AggregateKind::Min
            | AggregateKind::Count
            | AggregateKind::CountField
            | AggregateKind::Distinct => {
                self.numbers.sort_by(|a, b| compare_numbers(b, a));
                self.numbers.pop().unwrap_or(Value::Null)
            }
        }
    }
}

fn exact_sum(numbers: &[Value]) -> Option<i64> {
    let mut sum = 0_i128;
    for number in numbers {
        match number {
            Value::Int(value) => sum += i128::from(*value),
            _ => return None,
        }
    }
    i64::try_from(sum).ok()
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rank lies between 0 and the number of values"
)]
fn percentile(numbers: &[Value], percent: f64) -> f64 {
    let mut values: Vec<f64> = numbers.iter().map(as_f64).collect();
    values.sort_by(f64::total_cmp);
    let rank = percent / 100.0 * (values.len() - 1) as f64;
    let below = values.get(rank.floor() as usize).copied().unwrap_or(0.0);
    let above = values.get(rank.ceil() as usize).copied().unwrap_or(0.0);
    below + (above - below) * rank.fract()
}
