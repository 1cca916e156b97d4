//! Answers made record by record, each as the question's prose defines it. The store in memory answers so about everything; the store on
//! Elasticsearch about the records that its server cannot judge or add up, and adds to them what the server did. The order of groups (`order`) is the
//! same for every store. Knows no store.

pub mod fields;
pub mod histogram;
pub mod order;
pub mod stats;

pub use fields::FieldsTally;
pub use histogram::HistogramTally;
pub use stats::StatsTally;

use std::sync::Arc;

use crate::record::value::ValueType;
use crate::record::{Record, Value, ValueRef, key};

/// The record with only the fields `wanted`: addresses, each with what is nested under it.
pub fn with_fields(record: &Record, wanted: Option<&[String]>) -> Record {
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

/// The start of the bucket that holds this time.
pub fn bucket_of(timestamp_ns: i64, interval_ns: i64) -> i64 {
    timestamp_ns.saturating_sub(timestamp_ns.rem_euclid(interval_ns.max(1)))
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
