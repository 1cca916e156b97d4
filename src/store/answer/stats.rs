//! Groups and their aggregates.

use hashbrown::{HashMap, HashSet};

use crate::query::number::is_number;
use crate::query::{Aggregate, AggregateKind, Group, GroupBy, StatsAnswer, StatsRequest};
use crate::record::{Record, Value, ValueRef};
use crate::store::answer::order::{compare_groups, compare_numbers};
use crate::store::answer::{bucket_of, value_at};

/// One part of what tells a group from others.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum GroupKey {
    Text(Option<String>),
    Time(i64),
}

/// An aggregate of some records of a group, made elsewhere.
#[derive(Clone, Debug, PartialEq)]
pub enum Partial {
    /// For `Count` and `CountField`.
    Count(u64),
    /// For `Sum`, `Avg`, `Min` and `Max`; `min` and `max` are `Int` or `Float`.
    Numbers {
        count: u64,
        sum: f64,
        /// Where all are integers.
        exact_sum: Option<i128>,
        min: Value,
        max: Value,
    },
    /// The result itself, to which nothing more is added: for `Percentile` and `Distinct`.
    Whole(Value),
}

/// Groups while records and partial aggregates are being added to them.
pub struct StatsTally<'a> {
    request: &'a StatsRequest,
    groups: HashMap<Vec<GroupKey>, Vec<Tally>>,
}

impl<'a> StatsTally<'a> {
    pub fn new(request: &'a StatsRequest) -> Self {
        let mut tally = Self {
            request,
            groups: HashMap::new(),
        };
        if request.by.is_empty() {
            tally.group(Vec::new());
        }
        tally
    }

    pub fn n_groups(&self) -> usize {
        self.groups.len()
    }

    fn group(&mut self, key: Vec<GroupKey>) -> &mut Vec<Tally> {
        let aggregates = &self.request.aggregates;
        self.groups
            .entry(key)
            .or_insert_with(|| aggregates.iter().map(Tally::new).collect())
    }

    pub fn add(&mut self, record: &Record) {
        let of_group = |by: &GroupBy| match by {
            GroupBy::Field(address) => {
                GroupKey::Text(value_at(record, address).map(|value| value.text().into_owned()))
            }
            GroupBy::Time(interval_ns) => {
                GroupKey::Time(bucket_of(record.key.timestamp_ns, *interval_ns))
            }
        };
        let key = self.request.by.iter().map(of_group).collect();
        for tally in self.group(key) {
            tally.add(record);
        }
    }

    /// Partial aggregates of one group, each with the index of the aggregate that it is part of.
    pub fn add_partials(&mut self, key: Vec<GroupKey>, partials: Vec<(usize, Partial)>) {
        let group = self.group(key);
        for (index, partial) in partials {
            if let Some(tally) = group.get_mut(index) {
                tally.add_partial(partial);
            }
        }
    }

    pub fn finish(self, approximate: Vec<String>, partial_reasons: Vec<String>) -> StatsAnswer {
        let request = self.request;
        let mut groups: Vec<Group> = self
            .groups
            .into_iter()
            .map(|(by, tallies)| Group {
                by: by.into_iter().map(group_value).collect(),
                values: tallies.into_iter().map(Tally::finish).collect(),
            })
            .collect();
        groups.sort_by(|a, b| compare_groups(a, b, &request.sort));
        let n_groups = groups.len() as u64;
        groups.truncate(request.limit);
        StatsAnswer {
            groups,
            n_groups,
            approximate,
            partial_reasons,
        }
    }
}

fn group_value(key: GroupKey) -> Value {
    match key {
        GroupKey::Text(None) => Value::Null,
        GroupKey::Text(Some(text)) => Value::Str(text),
        GroupKey::Time(start_ns) => Value::Int(start_ns),
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
pub fn number(value: ValueRef<'_>) -> Option<Value> {
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
    sum: f64,
    /// `None` once a number was no integer.
    exact_sum: Option<i128>,
    /// The smallest and the largest number.
    ends: Option<(Value, Value)>,
    /// For `Percentile` alone.
    numbers: Vec<f64>,
    texts: HashSet<String>,
    whole: Option<Value>,
}

impl Tally {
    fn new(aggregate: &Aggregate) -> Self {
        Self {
            aggregate: aggregate.clone(),
            count: 0,
            sum: 0.0,
            exact_sum: Some(0),
            ends: None,
            numbers: Vec::new(),
            texts: HashSet::new(),
            whole: None,
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
            (AggregateKind::Percentile(_), Some(value)) => {
                self.numbers.extend(number(value).as_ref().map(as_f64));
            }
            (_, Some(value)) => {
                if let Some(value) = number(value) {
                    let exact = match &value {
                        Value::Int(value) => Some(i128::from(*value)),
                        _ => None,
                    };
                    self.add_numbers(1, as_f64(&value), exact, value.clone(), value);
                }
            }
        }
    }

    fn add_numbers(
        &mut self,
        count: u64,
        sum: f64,
        exact_sum: Option<i128>,
        min: Value,
        max: Value,
    ) {
        self.count += count;
        self.sum += sum;
        self.exact_sum = self.exact_sum.zip(exact_sum).map(|(a, b)| a + b);
        self.ends = Some(match self.ends.take() {
            None => (min, max),
            Some((low, high)) => (
                if compare_numbers(&min, &low).is_lt() {
                    min
                } else {
                    low
                },
                if compare_numbers(&high, &max).is_lt() {
                    max
                } else {
                    high
                },
            ),
        });
    }

    fn add_partial(&mut self, partial: Partial) {
        match partial {
            Partial::Count(count) => self.count += count,
            Partial::Numbers {
                count,
                sum,
                exact_sum,
                min,
                max,
            } => {
                if count != 0 {
                    self.add_numbers(count, sum, exact_sum, min, max);
                }
            }
            Partial::Whole(value) => self.whole = Some(value),
        }
    }

    fn finish(self) -> Value {
        if let Some(whole) = self.whole {
            return whole;
        }
        let count = |count: u64| Value::Int(i64::try_from(count).unwrap_or(i64::MAX));
        let finite = |value: f64| match value.is_finite() {
            true => Value::Float(value),
            false => Value::Null,
        };
        match self.aggregate.kind {
            AggregateKind::Count | AggregateKind::CountField => count(self.count),
            AggregateKind::Distinct => count(self.texts.len() as u64),
            AggregateKind::Percentile(_) if self.numbers.is_empty() => Value::Null,
            AggregateKind::Percentile(percent) => finite(percentile(self.numbers, percent)),
            _ if self.count == 0 => Value::Null,
            #[expect(
                clippy::cast_precision_loss,
                reason = "a count fits a double well enough for a mean"
            )]
            AggregateKind::Avg => finite(self.sum / self.count as f64),
            AggregateKind::Sum => {
                let exact = self.exact_sum.and_then(|sum| i64::try_from(sum).ok());
                exact.map_or_else(|| finite(self.sum), Value::Int)
            }
            AggregateKind::Min => self.ends.map_or(Value::Null, |(min, _)| min),
            AggregateKind::Max => self.ends.map_or(Value::Null, |(_, max)| max),
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rank lies between 0 and the number of values"
)]
fn percentile(mut values: Vec<f64>, percent: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = percent / 100.0 * values.len().saturating_sub(1) as f64;
    let below = values.get(rank.floor() as usize).copied().unwrap_or(0.0);
    let above = values.get(rank.ceil() as usize).copied().unwrap_or(0.0);
    below + (above - below) * rank.fract()
}
