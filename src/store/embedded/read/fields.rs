//! `fields`: for each address its types, how many records have it, how many values differ, and the most frequent ones.
//!
//! Columns are read one after the other, so memory holds one column's batch and the counts. Limits: at most [`VALUES_MAX`] values of a field
//! and [`TEXT_BYTES_MAX`] bytes of values of all fields are counted apart; past that, `distinct` is an estimate that says so, and values met
//! late are missing from `top`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::Mutex;
use roaring::RoaringBitmap;

use crate::common::cancel::Cancel;
use crate::common::error::Result;
use crate::query::{FieldSummary, FieldsAnswer, FieldsRequest};
use crate::record::value::ValueType;
use crate::record::{Value, ValueRef, key};
use crate::store::embedded::overflow;
use crate::store::embedded::read::context::{Context, Question, survive};
use crate::store::embedded::read::part::Part;
use crate::store::embedded::read::sketch::Distinct;
use crate::store::embedded::schema::ColumnInfo;
use crate::store::embedded::snapshot::Snapshot;
use crate::store::embedded::spill::value_at;

const VALUES_MAX: usize = 65_536;
const TEXT_BYTES_MAX: usize = 64 << 20;
/// What a counted value costs beside its text.
const VALUE_BYTES: usize = 64;

type ValueCounts = HashMap<Box<str>, u64, ahash::RandomState>;

#[derive(Default)]
struct Summary {
    count: u64,
    types: BTreeSet<ValueType>,
    /// Counts by text, for each type.
    values: BTreeMap<ValueType, ValueCounts>,
    /// Of type and text; only once the values do not fit.
    distinct: Option<Distinct>,
}

#[derive(Default)]
struct Summaries {
    fields: BTreeMap<Arc<str>, Summary>,
    total: u64,
    text_bytes: usize,
}

pub fn fields(
    context: &Context,
    snapshot: &Snapshot,
    request: FieldsRequest,
    cancel: &Cancel,
) -> Result<FieldsAnswer> {
    let question = Arc::new(Question::new(&request.selection, cancel)?);
    let opened = context.parts(snapshot, &question);
    let mut partial_reasons = opened.partial_reasons;
    let parts: Arc<[Part]> = opened.parts.into();
    let top = request.top;
    let all = Arc::new(Mutex::new(Summaries::default()));
    let sum = Arc::clone(&all);
    let results = context.map_parts(parts.len(), move |index| {
        let Some(part) = parts.get(index) else {
            return Ok(Ok(()));
        };
        survive(|| {
            let summaries = part_summaries(part, &question, request.fields.as_deref())?;
            sum.lock().merge(summaries);
            Ok(())
        })
    })?;
    partial_reasons.extend(results.into_iter().filter_map(Result::err));
    let all = std::mem::take(&mut *all.lock());
    Ok(FieldsAnswer {
        total: all.total,
        fields: all
            .fields
            .into_iter()
            .map(|(name, summary)| summary.finish(&name, top))
            .collect(),
        partial_reasons,
    })
}

fn part_summaries(
    part: &Part,
    question: &Question,
    wanted: Option<&[String]>,
) -> Result<Summaries> {
    let rows = question.matching(part)?;
    let mut summaries = Summaries {
        total: rows.len(),
        ..Summaries::default()
    };
    let is_wanted =
        |address: &str| wanted.is_none_or(|wanted| wanted.iter().any(|field| field == address));
    // Records that have a field more than once, under several keys, are counted once.
    let mut held: BTreeMap<Arc<str>, RoaringBitmap> = BTreeMap::new();
    let columns = part.columns();
    let infos = columns
        .fields()
        .iter()
        .filter(|info| info.value_type != ValueType::Null && is_wanted(&info.address));
    for info in infos {
        let is_alone = columns.overflow().is_none() && columns.by_address(&info.address).len() == 1;
        add_column(part, info, &rows, question, &mut summaries, |row| {
            if !is_alone {
                held.entry(Arc::clone(&info.address))
                    .or_default()
                    .insert(row);
            }
            is_alone
        })?;
    }
    if let Some(index) = columns.overflow() {
        part.read(&[index], &rows, &question.cancel, &mut |chunk| {
            let Some(texts) = chunk.batch.columns().first() else {
                return Ok(());
            };
            for (at, row) in chunk.rows.iter().enumerate() {
                let Some(ValueRef::Json(text)) = value_at(texts, ValueType::Json, at) else {
                    continue;
                };
                for (field, value) in overflow::parse(text)? {
                    let address: Arc<str> = key::address(&field).into();
                    if value != Value::Null && is_wanted(&address) {
                        let value = value.as_value_ref();
                        summaries.add(&address, value.value_type(), &value.text(), 1);
                        held.entry(address).or_default().insert(*row);
                    }
                }
            }
            Ok(())
        })?;
    }
    for (address, rows) in held {
        summaries.fields.entry(address).or_default().count += rows.len();
    }
    Ok(summaries)
}

/// Counts the values of one column. `counts_now` says of each row whether it is to be counted at once.
fn add_column(
    part: &Part,
    info: &ColumnInfo,
    rows: &RoaringBitmap,
    question: &Question,
    summaries: &mut Summaries,
    mut counts_now: impl FnMut(u32) -> bool,
) -> Result<()> {
    let mut count = 0;
    let mut values: ValueCounts = HashMap::default();
    let mut bytes = 0;
    part.read(&[info.index], rows, &question.cancel, &mut |chunk| {
        let Some(array) = chunk.batch.columns().first() else {
            return Ok(());
        };
        for (at, row) in chunk.rows.iter().enumerate() {
            let Some(value) = value_at(array, info.value_type, at) else {
                continue;
            };
            count += u64::from(counts_now(*row));
            let text = value.text();
            match values.get_mut(&*text) {
                Some(count) => *count += 1,
                None => {
                    bytes += text.len() + VALUE_BYTES;
                    values.insert((&*text).into(), 1);
                }
            }
        }
        if VALUES_MAX < values.len() || TEXT_BYTES_MAX / 8 < bytes {
            bytes = 0;
            for (text, count) in values.drain() {
                summaries.add(&info.address, info.value_type, &text, count);
            }
        }
        Ok(())
    })?;
    for (text, count) in values {
        summaries.add(&info.address, info.value_type, &text, count);
    }
    if 0 < count {
        summaries
            .fields
            .entry(Arc::clone(&info.address))
            .or_default()
            .count += count;
    }
    Ok(())
}

impl Summaries {
    fn add(&mut self, address: &Arc<str>, value_type: ValueType, text: &str, count: u64) {
        let summary = match self.fields.get_mut(address) {
            Some(summary) => summary,
            None => self.fields.entry(Arc::clone(address)).or_default(),
        };
        summary.types.insert(value_type);
        if let Some(distinct) = &mut summary.distinct {
            distinct.add(&typed(value_type, text), 0);
        }
        let n_values: usize = summary.values.values().map(HashMap::len).sum();
        let values = summary.values.entry(value_type).or_default();
        if let Some(known) = values.get_mut(text) {
            *known += count;
            return;
        }
        let bytes = text.len() + VALUE_BYTES;
        if n_values < VALUES_MAX && self.text_bytes + bytes <= TEXT_BYTES_MAX {
            self.text_bytes += bytes;
            values.insert(text.into(), count);
            return;
        }
        if summary.distinct.is_none() {
            let mut distinct = Distinct::default();
            for (value_type, values) in &summary.values {
                for text in values.keys() {
                    distinct.add(&typed(*value_type, text), 0);
                }
            }
            distinct.add(&typed(value_type, text), 0);
            summary.distinct = Some(distinct);
        }
    }

    fn merge(&mut self, other: Self) {
        self.total += other.total;
        for (address, theirs) in other.fields {
            for (value_type, values) in theirs.values {
                for (text, count) in values {
                    self.add(&address, value_type, &text, count);
                }
            }
            let own = self.fields.entry(address).or_default();
            own.count += theirs.count;
            own.types.extend(theirs.types);
            if let Some(theirs) = theirs.distinct {
                let mut distinct = own.distinct.take().unwrap_or_default();
                for (value_type, values) in &own.values {
                    for text in values.keys() {
                        distinct.add(&typed(*value_type, text), 0);
                    }
                }
                distinct.merge(theirs, 0);
                own.distinct = Some(distinct);
            }
        }
    }
}

impl Summary {
    fn finish(self, name: &str, top: usize) -> FieldSummary {
        let n_values: usize = self.values.values().map(HashMap::len).sum();
        let (distinct, is_distinct_exact) = match &self.distinct {
            Some(distinct) => (distinct.count().max(n_values as u64), false),
            None => (n_values as u64, true),
        };
        let mut values: Vec<(ValueType, Box<str>, u64)> = Vec::new();
        for (value_type, counts) in self.values {
            values.extend(
                counts
                    .into_iter()
                    .map(|(text, count)| (value_type, text, count)),
            );
        }
        let compare = |a: &(ValueType, Box<str>, u64), b: &(ValueType, Box<str>, u64)| {
            b.2.cmp(&a.2).then_with(|| (&a.1, a.0).cmp(&(&b.1, b.0)))
        };
        if 0 < top && top < values.len() {
            values.select_nth_unstable_by(top, compare);
        }
        values.truncate(top);
        values.sort_by(compare);
        FieldSummary {
            name: name.to_owned(),
            types: self.types.into_iter().collect(),
            count: self.count,
            distinct,
            is_distinct_exact,
            top: values
                .into_iter()
                .map(|(value_type, text, count)| (value_of(value_type, text), count))
                .collect(),
        }
    }
}

fn typed(value_type: ValueType, text: &str) -> String {
    format!("{}{text}", value_type as u8)
}

/// The value whose text, as `ValueRef::text` makes it, is `text`.
fn value_of(value_type: ValueType, text: Box<str>) -> Value {
    match value_type {
        ValueType::Null => Value::Null,
        ValueType::Bool => Value::Bool(&*text == "true"),
        ValueType::Int => text.parse().map_or(Value::Null, Value::Int),
        ValueType::Float => text.parse().map_or(Value::Null, Value::Float),
        ValueType::Number => Value::Number(text.into()),
        ValueType::Str => Value::Str(text.into()),
        ValueType::Json => Value::Json(text.into()),
    }
}
