//! What fields there are, with their types and values.

use std::collections::{BTreeMap, BTreeSet};

use hashbrown::HashMap;

use crate::query::{FieldSummary, FieldsAnswer, FieldsRequest};
use crate::record::value::ValueType;
use crate::record::{Record, Value, key};
use crate::store::answer::value_of;

#[derive(Default)]
struct Seen {
    types: BTreeSet<ValueType>,
    count: u64,
    /// By type and text, which say the same as type and value.
    values: HashMap<(ValueType, String), u64>,
    /// How many values differ at least, where `values` holds only some of them.
    distinct_estimate: Option<u64>,
}

/// A summary while records and counts are being added to it.
pub struct FieldsTally {
    top: usize,
    fields: Option<Vec<String>>,
    seen: BTreeMap<String, Seen>,
    total: u64,
}

impl FieldsTally {
    pub fn new(request: &FieldsRequest) -> Self {
        Self {
            top: request.top,
            fields: request.fields.clone(),
            seen: BTreeMap::new(),
            total: 0,
        }
    }

    pub fn add(&mut self, record: &Record) {
        self.total += 1;
        let mut counted: Vec<String> = Vec::new();
        for (name, value) in &record.fields {
            let address = key::address(name).into_owned();
            let is_wanted = self
                .fields
                .as_ref()
                .is_none_or(|fields| fields.contains(&address));
            if *value == Value::Null || !is_wanted {
                continue;
            }
            let value = value.as_value_ref();
            let field = self.seen.entry(address.clone()).or_default();
            field.types.insert(value.value_type());
            let of_value = (value.value_type(), value.text().into_owned());
            *field.values.entry(of_value).or_insert(0) += 1;
            if !counted.contains(&address) {
                field.count += 1;
                counted.push(address);
            }
        }
    }

    /// `count` more records, whose fields are added apart.
    pub fn add_total(&mut self, count: u64) {
        self.total += count;
    }

    /// `count` more records that have a value at this address.
    pub fn add_field(&mut self, address: &str, count: u64) {
        if count != 0 {
            self.seen.entry(address.to_owned()).or_default().count += count;
        }
    }

    /// `count` times this value at this address, whose records are added apart.
    pub fn add_value(&mut self, address: &str, ty: ValueType, text: String, count: u64) {
        let field = self.seen.entry(address.to_owned()).or_default();
        field.types.insert(ty);
        *field.values.entry((ty, text)).or_insert(0) += count;
    }

    /// The values added at this address are only the most frequent of about so many.
    pub fn estimate_distinct(&mut self, address: &str, distinct: u64) {
        let field = self.seen.entry(address.to_owned()).or_default();
        *field.distinct_estimate.get_or_insert(0) += distinct;
    }

    /// What `other` saw, but not its records, which are in the total already.
    pub fn merge_values(&mut self, other: Self) {
        for (address, seen) in other.seen {
            let own = self.seen.entry(address).or_default();
            own.types.extend(seen.types);
            own.count += seen.count;
            for (value, count) in seen.values {
                *own.values.entry(value).or_insert(0) += count;
            }
        }
    }

    pub fn finish(self, partial_reasons: Vec<String>) -> FieldsAnswer {
        let top = self.top;
        let summary = |(name, field): (String, Seen)| {
            let known = field.values.len() as u64;
            let mut values: Vec<((ValueType, String), u64)> = field.values.into_iter().collect();
            values.sort_by(|a, b| {
                let by_text = (&a.0.1, a.0.0).cmp(&(&b.0.1, b.0.0));
                b.1.cmp(&a.1).then(by_text)
            });
            values.truncate(top);
            FieldSummary {
                name,
                types: field.types.into_iter().collect(),
                count: field.count,
                distinct: field
                    .distinct_estimate
                    .map_or(known, |estimate| estimate.max(known)),
                is_distinct_exact: field.distinct_estimate.is_none(),
                top: values
                    .into_iter()
                    .map(|((ty, text), count)| (value_of(ty, text), count))
                    .collect(),
            }
        };
        FieldsAnswer {
            fields: self.seen.into_iter().map(summary).collect(),
            total: self.total,
            partial_reasons,
        }
    }
}
