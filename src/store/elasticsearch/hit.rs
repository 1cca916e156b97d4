//! A document of Elasticsearch → the record that it was made from.

use serde_json::{Map, Value as Json};

use crate::common::error::{Error, Result};
use crate::record::value::Flags;
use crate::record::{Record, RecordKey, Value};
use crate::store::elasticsearch::names::{Kind, address_of, own};

/// Reads a hit with `_id` and `_source`.
pub fn record_from_hit(hit: &Json) -> Result<Record> {
    let id = hit.get("_id").and_then(Json::as_str).unwrap_or_default();
    let broken = |what: &str| {
        let index = hit.get("_index").and_then(Json::as_str).unwrap_or_default();
        Error::corrupt(format!(
            "document {id} of index {index}: {what}; something else than Logyard wrote it"
        ))
    };
    let key = RecordKey::from_id(id).ok_or_else(|| broken("its id is not a record's"))?;
    let source = hit
        .get("_source")
        .and_then(Json::as_object)
        .ok_or_else(|| broken("it has no _source"))?;
    let number = |name: &str| source.get(name).and_then(Json::as_u64);
    let fields = match source.get(own::RECORD) {
        Some(Json::String(text)) => {
            fields_of_text(text).ok_or_else(|| broken("`logyard.record` cannot be read"))?
        }
        Some(_) => return Err(broken("`logyard.record` is not a text")),
        None => fields_of_source(source)
            .ok_or_else(|| broken("a field has no value of a known type"))?,
    };
    Ok(Record {
        key,
        timestamp_digits: number(own::DIGITS)
            .and_then(|digits| u8::try_from(digits).ok())
            .unwrap_or(9),
        flags: Flags(
            number(own::FLAG_BITS)
                .and_then(|bits| u32::try_from(bits).ok())
                .unwrap_or(0),
        ),
        fields,
    })
}

type Fields = Vec<(std::sync::Arc<str>, Value)>;

/// The exact text: keys as in the record; numbers kept as text are `{"n": text}`, JSON is `{"j": text}`.
fn fields_of_text(text: &str) -> Option<Fields> {
    let Json::Object(members) = serde_json::from_str(text).ok()? else {
        return None;
    };
    members
        .into_iter()
        .map(|(key, value)| {
            let value = match value {
                Json::Object(wrapped) => {
                    let (kind, text) = wrapped.into_iter().next()?;
                    let Json::String(text) = text else {
                        return None;
                    };
                    match kind.as_str() {
                        "n" => Value::Number(text),
                        "j" => Value::Json(text),
                        _ => return None,
                    }
                }
                Json::Null => Value::Null,
                scalar => scalar_value(scalar)?,
            };
            Some((key.into(), value))
        })
        .collect()
}

fn fields_of_source(source: &Map<String, Json>) -> Option<Fields> {
    let mut fields = Vec::with_capacity(source.len());
    for (name, value) in source {
        let Some((address, kind)) = address_of(name) else {
            continue;
        };
        if matches!(kind, Some(Kind::Number | Kind::Numeric | Kind::Ip)) {
            continue;
        }
        fields.push((address.into(), scalar_value(value.clone())?));
    }
    Some(fields)
}

fn scalar_value(value: Json) -> Option<Value> {
    Some(match value {
        Json::Bool(value) => Value::Bool(value),
        Json::Number(number) => match number.as_i64() {
            Some(integer) => Value::Int(integer),
            None => Value::Float(number.as_f64()?),
        },
        Json::String(text) => Value::Str(text),
        Json::Null | Json::Array(_) | Json::Object(_) => return None,
    })
}
