//! The overflow column's JSON: fields that got no column of their own, `{"escaped key": value, …}`.
//!
//! Numbers are told apart by their text as they were on the way in. This module must not know columns or files.

use crate::common::error::{Error, Result};
use crate::record::value::{Value, ValueRef};
use crate::wire::json::number_value;

/// Appends one field to the JSON object in `json`, which is empty at first; close it with [`finish`].
pub fn push(json: &mut String, key: &str, value: ValueRef<'_>) {
    json.push(if json.is_empty() { '{' } else { ',' });
    push_string(json, key);
    json.push(':');
    match value {
        ValueRef::Null => json.push_str("null"),
        ValueRef::Bool(value) => json.push_str(if value { "true" } else { "false" }),
        ValueRef::Int(value) => json.push_str(itoa::Buffer::new().format(value)),
        ValueRef::Float(value) => json.push_str(&float_text(value)),
        ValueRef::Number(text) | ValueRef::Json(text) => json.push_str(text),
        ValueRef::Str(text) => push_string(json, text),
    }
}

/// Closes the object begun by [`push`].
pub fn finish(json: &mut String) {
    if !json.is_empty() {
        json.push('}');
    }
}

/// The fields of an overflow object, in order.
pub fn parse(json: &str) -> Result<Vec<(String, Value)>> {
    let object: Fields = serde_json::from_str(json)
        .map_err(|error| Error::corrupt("unreadable overflow column").with_source(error))?;
    Ok(object.0)
}

/// The text of a finite double as JSON: the shortest that reads back as the same.
fn float_text(value: f64) -> String {
    serde_json::Number::from_f64(value).map_or_else(|| "null".to_owned(), |n| n.to_string())
}

fn push_string(json: &mut String, text: &str) {
    match serde_json::to_string(text) {
        Ok(quoted) => json.push_str(&quoted),
        Err(_) => json.push_str("\"\""),
    }
}

struct Fields(Vec<(String, Value)>);

impl<'de> serde::Deserialize<'de> for Fields {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Fields;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object of overflow fields")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some((key, raw)) =
                    map.next_entry::<String, Box<serde_json::value::RawValue>>()?
                {
                    let value = value_of(raw.get()).map_err(serde::de::Error::custom)?;
                    fields.push((key, value));
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

fn value_of(raw: &str) -> Result<Value, serde_json::Error> {
    Ok(match raw.as_bytes().first() {
        Some(b'n') => Value::Null,
        Some(b't') => Value::Bool(true),
        Some(b'f') => Value::Bool(false),
        Some(b'"') => Value::Str(serde_json::from_str(raw)?),
        Some(b'[' | b'{') => Value::Json(raw.to_owned()),
        _ => number_value(raw).to_value(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_of_value_comes_back_as_it_was() {
        let fields = [
            ("a\\.b.c", ValueRef::Str("x\"\n\u{1}ü")),
            ("", ValueRef::Null),
            ("t", ValueRef::Bool(true)),
            ("f", ValueRef::Bool(false)),
            ("i", ValueRef::Int(i64::MIN)),
            ("z", ValueRef::Float(-0.0)),
            ("one", ValueRef::Float(1.0)),
            ("large", ValueRef::Float(1e300)),
            ("small", ValueRef::Float(5e-324)),
            ("tenth", ValueRef::Float(0.1)),
            ("big", ValueRef::Number("18446744073709551616")),
            (
                "long",
                ValueRef::Number("0.1000000000000000055511151231257827"),
            ),
            ("huge", ValueRef::Number("1e400")),
            ("json", ValueRef::Json("[1, {\"a\":2}]")),
            ("empty", ValueRef::Json("{}")),
        ];
        let mut json = String::new();
        for (key, value) in fields {
            push(&mut json, key, value);
        }
        finish(&mut json);
        let expected: Vec<_> = fields
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.to_value()))
            .collect();
        assert_eq!(parse(&json).unwrap(), expected);
        parse("[").unwrap_err();
    }
}
