//! Aggregates of many groups, one column of states for each aggregate. What they mean is written at `query::AggregateKind`.
//!
//! Percentiles are exact while a group has at most [`EXACT_NUMBERS_MAX`] numbers, by a DDSketch (Masson, Rim, Lee 2019) after that, whose answer is
//! within half a percent of the number at that rank; distinct counts are exact while a group
//! has at most [`EXACT_TEXTS_MAX`] texts and the question has memory, by a sketch after that. Both then say that they are approximate.

use std::cmp::Ordering;

use sketches_ddsketch::{Config, DDSketch};

use crate::query::number::is_number;
use crate::query::{Aggregate, AggregateKind};
use crate::record::{Value, ValueRef};
use crate::store::answer::order::compare_int_float;
use crate::store::embedded::read::sketch::{self, Distinct};

const EXACT_NUMBERS_MAX: usize = 4_096;
/// The relative error of an approximate percentile.
const SKETCH_ERROR: f64 = 0.005;
/// Bounds a sketch to as much memory as the exact numbers before it; the range it keeps apart spans 17 powers of ten.
const SKETCH_BINS_MAX: u32 = 4_096;
/// Numbers nearer to zero than this count as zero.
const SKETCH_NUMBER_MIN: f64 = 1e-9;
const EXACT_TEXTS_MAX: usize = 1 << 20;

/// The states of one aggregate, by group.
pub enum Tally {
    Count(Vec<u64>),
    CountField(Vec<u64>),
    Sum(Vec<Sum>),
    Avg(Vec<Sum>),
    Min(Vec<Option<Number>>),
    Max(Vec<Option<Number>>),
    Percentile(f64, Vec<Numbers>),
    Distinct(Vec<Distinct>),
}

#[derive(Clone, Copy)]
pub enum Number {
    Int(i64),
    Float(f64),
}

#[derive(Clone, Default)]
pub struct Sum {
    ints: i128,
    /// Of all numbers, integers too.
    floats: f64,
    n_ints: u64,
    n_floats: u64,
}

#[derive(Clone, Default)]
pub struct Numbers {
    buffer: Vec<f64>,
    sketch: Option<DDSketch>,
}

impl Number {
    /// The number that an aggregate sees in a value.
    pub fn of(value: ValueRef<'_>) -> Option<Self> {
        match value {
            ValueRef::Int(value) => Some(Self::Int(value)),
            ValueRef::Float(value) => Some(Self::Float(value)),
            ValueRef::Number(text) | ValueRef::Str(text) if is_number(text) => {
                if let Ok(value) = text.parse() {
                    return Some(Self::Int(value));
                }
                let value: f64 = text.parse().ok()?;
                value.is_finite().then_some(Self::Float(value))
            }
            ValueRef::Null
            | ValueRef::Bool(_)
            | ValueRef::Number(_)
            | ValueRef::Str(_)
            | ValueRef::Json(_) => None,
        }
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "aggregates are doubles where they are not integers"
    )]
    fn as_f64(self) -> f64 {
        match self {
            Self::Int(value) => value as f64,
            Self::Float(value) => value,
        }
    }

    fn compare(self, other: Self) -> Ordering {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => a.cmp(&b),
            (Self::Float(a), Self::Float(b)) => a.total_cmp(&b),
            (Self::Int(a), Self::Float(b)) => compare_int_float(a, b),
            (Self::Float(a), Self::Int(b)) => compare_int_float(b, a).reverse(),
        }
    }

    fn value(self) -> Value {
        match self {
            Self::Int(value) => Value::Int(value),
            Self::Float(value) => Value::Float(value),
        }
    }
}

impl Sum {
    fn add(&mut self, number: Number) {
        self.floats += number.as_f64();
        match number {
            Number::Int(value) => {
                self.ints += i128::from(value);
                self.n_ints += 1;
            }
            Number::Float(_) => self.n_floats += 1,
        }
    }

    fn merge(&mut self, other: &Self) {
        self.ints += other.ints;
        self.floats += other.floats;
        self.n_ints += other.n_ints;
        self.n_floats += other.n_floats;
    }

    fn sum(&self) -> Value {
        match i64::try_from(self.ints) {
            _ if self.n_ints + self.n_floats == 0 => Value::Null,
            Ok(sum) if self.n_floats == 0 => Value::Int(sum),
            _ => finite(self.floats),
        }
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "a count fits a double well enough for a mean"
    )]
    fn avg(&self) -> Value {
        match self.n_ints + self.n_floats {
            0 => Value::Null,
            n => finite(self.floats / n as f64),
        }
    }
}

impl Numbers {
    fn size_bytes(&self) -> usize {
        // How many bins a sketch has it does not tell.
        let sketch = self
            .sketch
            .as_ref()
            .map_or(0, |_| SKETCH_BINS_MAX as usize * 8);
        self.buffer.capacity() * size_of::<f64>() + sketch
    }

    fn add(&mut self, number: f64) {
        if let Some(sketch) = &mut self.sketch {
            sketch.add(number);
            return;
        }
        self.buffer.push(number);
        if EXACT_NUMBERS_MAX < self.buffer.len() {
            self.condense();
        }
    }

    /// Turns to the sketch, which is returned.
    fn condense(&mut self) -> &mut DDSketch {
        let sketch = self.sketch.get_or_insert_with(|| {
            let config = Config::new(SKETCH_ERROR, SKETCH_BINS_MAX, SKETCH_NUMBER_MIN);
            DDSketch::new(config)
        });
        for number in std::mem::take(&mut self.buffer) {
            sketch.add(number);
        }
        sketch
    }

    fn merge(&mut self, mut other: Self) {
        if other.sketch.is_none() && self.sketch.is_none() {
            self.buffer.append(&mut other.buffer);
            if EXACT_NUMBERS_MAX < self.buffer.len() {
                self.condense();
            }
            return;
        }
        let theirs = other.condense();
        let merged = self.condense().merge(theirs);
        debug_assert!(merged.is_ok(), "all sketches have one configuration");
    }

    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank lies between 0 and the number of values"
    )]
    fn percentile(mut self, percent: f64) -> Value {
        if let Some(sketch) = &self.sketch {
            let at_rank = sketch.quantile(percent / 100.0).ok().flatten();
            return at_rank.map_or(Value::Null, finite);
        }
        if self.buffer.is_empty() {
            return Value::Null;
        }
        self.buffer.sort_unstable_by(f64::total_cmp);
        let rank = percent / 100.0 * (self.buffer.len() - 1) as f64;
        let at = |rank: f64| self.buffer.get(rank as usize).copied().unwrap_or(0.0);
        let (below, above) = (at(rank.floor()), at(rank.ceil()));
        finite(below + (above - below) * rank.fract())
    }
}

fn finite(value: f64) -> Value {
    if value.is_finite() {
        Value::Float(value)
    } else {
        Value::Null
    }
}

impl Tally {
    pub fn new(aggregate: &Aggregate) -> Self {
        match aggregate.kind {
            AggregateKind::Count => Self::Count(Vec::new()),
            AggregateKind::CountField => Self::CountField(Vec::new()),
            AggregateKind::Sum => Self::Sum(Vec::new()),
            AggregateKind::Avg => Self::Avg(Vec::new()),
            AggregateKind::Min => Self::Min(Vec::new()),
            AggregateKind::Max => Self::Max(Vec::new()),
            AggregateKind::Percentile(percent) => Self::Percentile(percent, Vec::new()),
            AggregateKind::Distinct => Self::Distinct(Vec::new()),
        }
    }

    /// Makes room for so many groups.
    pub fn grow(&mut self, n_groups: usize) {
        match self {
            Self::Count(states) | Self::CountField(states) => states.resize(n_groups, 0),
            Self::Sum(states) | Self::Avg(states) => states.resize(n_groups, Sum::default()),
            Self::Min(states) | Self::Max(states) => states.resize(n_groups, None),
            Self::Percentile(_, states) => states.resize(n_groups, Numbers::default()),
            Self::Distinct(states) => states.resize(n_groups, Distinct::default()),
        }
    }

    /// What a new group costs, and nothing else.
    pub fn group_bytes(&self) -> usize {
        match self {
            Self::Count(_) | Self::CountField(_) => 8,
            Self::Sum(_) | Self::Avg(_) => size_of::<Sum>(),
            Self::Min(_) | Self::Max(_) => size_of::<Option<Number>>(),
            Self::Percentile(..) => size_of::<Numbers>(),
            Self::Distinct(_) => size_of::<Distinct>(),
        }
    }

    /// What all groups cost.
    pub fn size_bytes(&self) -> usize {
        match self {
            Self::Count(states) | Self::CountField(states) => states.len() * self.group_bytes(),
            Self::Sum(states) | Self::Avg(states) => states.len() * self.group_bytes(),
            Self::Min(states) | Self::Max(states) => states.len() * self.group_bytes(),
            Self::Percentile(_, states) => {
                let inner = states.iter().map(Numbers::size_bytes);
                states.len() * self.group_bytes() + inner.sum::<usize>()
            }
            Self::Distinct(states) => {
                let inner = states.iter().map(Distinct::size_bytes);
                states.len() * self.group_bytes() + inner.sum::<usize>()
            }
        }
    }

    /// Adds a record with its value of the field; returns the bytes that this took. Where memory is tight, distinct texts become sketches early.
    pub fn add(&mut self, group: usize, value: Option<ValueRef<'_>>, is_tight: bool) -> usize {
        match self {
            Self::Count(states) => bump(states, group),
            Self::CountField(states) => {
                if value.is_some() {
                    bump(states, group);
                }
            }
            Self::Sum(states) | Self::Avg(states) => {
                if let (Some(state), Some(number)) =
                    (states.get_mut(group), value.and_then(Number::of))
                {
                    state.add(number);
                }
            }
            Self::Min(states) => keep(states, group, value, Ordering::Less),
            Self::Max(states) => keep(states, group, value, Ordering::Greater),
            Self::Percentile(_, states) => {
                if let (Some(state), Some(number)) =
                    (states.get_mut(group), value.and_then(Number::of))
                {
                    state.add(number.as_f64());
                    // The buffer is emptied into the sketch before it grows past its limit.
                    return if state.sketch.is_none() { 8 } else { 0 };
                }
            }
            Self::Distinct(states) => {
                if let (Some(state), Some(value)) = (states.get_mut(group), value) {
                    let exact_max = if is_tight { 64 } else { EXACT_TEXTS_MAX };
                    if state.add(&value.text(), exact_max) {
                        return sketch::EXACT_BYTES;
                    }
                }
            }
        }
        0
    }

    /// Adds the states of `other` to those of the groups that `places` names, in order.
    pub fn merge(&mut self, other: Self, places: &[usize]) {
        match (self, other) {
            (Self::Count(own), Self::Count(theirs))
            | (Self::CountField(own), Self::CountField(theirs)) => {
                each(own, theirs, places, |own, theirs| *own += theirs);
            }
            (Self::Sum(own), Self::Sum(theirs)) | (Self::Avg(own), Self::Avg(theirs)) => {
                each(own, theirs, places, |own, theirs| own.merge(&theirs));
            }
            (Self::Min(own), Self::Min(theirs)) => {
                each(own, theirs, places, |own, theirs| {
                    better(own, theirs, Ordering::Less);
                });
            }
            (Self::Max(own), Self::Max(theirs)) => {
                each(own, theirs, places, |own, theirs| {
                    better(own, theirs, Ordering::Greater);
                });
            }
            (Self::Percentile(_, own), Self::Percentile(_, theirs)) => {
                each(own, theirs, places, Numbers::merge);
            }
            (Self::Distinct(own), Self::Distinct(theirs)) => {
                each(own, theirs, places, |own, theirs| {
                    own.merge(theirs, EXACT_TEXTS_MAX);
                });
            }
            // Both come from the same list of aggregates.
            _ => {}
        }
    }

    /// The values by group, and whether one of them is approximate.
    pub fn finish(self) -> (Vec<Value>, bool) {
        let int = |count: u64| Value::Int(i64::try_from(count).unwrap_or(i64::MAX));
        let number = |state: Option<Number>| state.map_or(Value::Null, Number::value);
        match self {
            Self::Count(states) | Self::CountField(states) => {
                (states.into_iter().map(int).collect(), false)
            }
            Self::Sum(states) => (states.iter().map(Sum::sum).collect(), false),
            Self::Avg(states) => (states.iter().map(Sum::avg).collect(), false),
            Self::Min(states) | Self::Max(states) => {
                (states.into_iter().map(number).collect(), false)
            }
            Self::Percentile(percent, states) => {
                let is_approximate = states.iter().any(|state| state.sketch.is_some());
                let values = states.into_iter().map(|state| state.percentile(percent));
                (values.collect(), is_approximate)
            }
            Self::Distinct(states) => {
                let is_approximate = !states.iter().all(Distinct::is_exact);
                let values = states.iter().map(|state| int(state.count()));
                (values.collect(), is_approximate)
            }
        }
    }
}

fn bump(states: &mut [u64], group: usize) {
    if let Some(state) = states.get_mut(group) {
        *state += 1;
    }
}

fn keep(
    states: &mut [Option<Number>],
    group: usize,
    value: Option<ValueRef<'_>>,
    wanted: Ordering,
) {
    if let Some(state) = states.get_mut(group) {
        better(state, value.and_then(Number::of), wanted);
    }
}

fn better(own: &mut Option<Number>, other: Option<Number>, wanted: Ordering) {
    let Some(new) = other else {
        return;
    };
    if own.is_none_or(|old| new.compare(old) == wanted) {
        *own = Some(new);
    }
}

fn each<T>(own: &mut [T], theirs: Vec<T>, places: &[usize], merge: impl Fn(&mut T, T)) {
    for (state, place) in theirs.into_iter().zip(places) {
        if let Some(own) = own.get_mut(*place) {
            merge(own, state);
        }
    }
}
