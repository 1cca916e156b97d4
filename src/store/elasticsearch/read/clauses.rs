//! The single clauses that Elasticsearch is asked, each a few words of JSON.

use std::ops::Bound;

use serde_json::{Value as Json, json};

use crate::query::number::Number;
use crate::store::elasticsearch::read::bounds::{Bounds, Query};
use crate::store::elasticsearch::read::lucene::Pattern;

pub fn term(field: &str, value: impl Into<Json>) -> Json {
    json!({"term": {field: {"value": value.into()}}})
}

pub fn exists(field: &str) -> Json {
    json!({"exists": {"field": field}})
}

pub fn prefix(field: &str, text: &str) -> Json {
    json!({"prefix": {field: {"value": text}}})
}

pub fn regexp(field: &str, pattern: &str) -> Json {
    json!({"regexp": {field: {"value": pattern, "flags": "NONE"}}})
}

/// `tokens` one after the other; they hold no blanks.
pub fn phrase(field: &str, tokens: &[String]) -> Json {
    match tokens {
        [one] => term(field, one.as_str()),
        many => json!({"match_phrase": {field: {"query": many.join(" ")}}}),
    }
}

/// A pattern of the texts of a field.
pub fn pattern(field: &str, pattern: &Pattern) -> Bounds {
    let lower = pattern.lower.as_ref();
    let upper = pattern.upper.as_ref();
    Bounds {
        lower: lower.map_or(Query::Nothing, |p| Query::Clause(regexp(field, p))),
        upper: Query::Clause(upper.map_or_else(|| exists(field), |p| regexp(field, p))),
    }
}

/// `json!` of a range with whichever bounds there are.
fn range(field: &str, low: Bound<Json>, high: Bound<Json>) -> Json {
    let mut bounds = serde_json::Map::new();
    match low {
        Bound::Included(low) => bounds.insert("gte".to_owned(), low),
        Bound::Excluded(low) => bounds.insert("gt".to_owned(), low),
        Bound::Unbounded => None,
    };
    match high {
        Bound::Included(high) => bounds.insert("lte".to_owned(), high),
        Bound::Excluded(high) => bounds.insert("lt".to_owned(), high),
        Bound::Unbounded => None,
    };
    json!({"range": {field: bounds}})
}

pub fn text_range(field: &str, low: &Bound<String>, high: &Bound<String>) -> Json {
    let json = |bound: &Bound<String>| bound.as_ref().map(|text| Json::from(text.as_str()));
    range(field, json(low), json(high))
}

/// Integers of a field between these numbers; `None` where no integer is.
pub fn int_range(field: &str, low: &Bound<Number>, high: &Bound<Number>) -> Option<Json> {
    let low = match low {
        Bound::Unbounded => Bound::Unbounded,
        Bound::Included(number) => Bound::Included(first_int(|v| number.compare_int(v).is_ge())?),
        Bound::Excluded(number) => Bound::Included(first_int(|v| number.compare_int(v).is_gt())?),
    };
    // The first integer that is too large.
    let high = match high {
        Bound::Unbounded => None,
        Bound::Included(number) => first_int(|v| number.compare_int(v).is_gt()),
        Bound::Excluded(number) => first_int(|v| number.compare_int(v).is_ge()),
    };
    let high = high.map_or(Bound::Unbounded, Bound::Excluded);
    Some(range(field, low.map(Json::from), high.map(Json::from)))
}

/// The integer that equals the number.
pub fn equal_int(number: &Number) -> Option<i64> {
    let first = first_int(|value| number.compare_int(value).is_ge())?;
    number.compare_int(first).is_eq().then_some(first)
}

/// The smallest integer for which `is_past` is true; it stays true from there on.
fn first_int(is_past: impl Fn(i64) -> bool) -> Option<i64> {
    if !is_past(i64::MAX) {
        return None;
    }
    let (mut low, mut high) = (i64::MIN, i64::MAX);
    while low < high {
        // Rounded down, so that it is below `high`.
        let middle = low.wrapping_add_unsigned(low.abs_diff(high) / 2);
        if is_past(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    Some(low)
}

/// Doubles of a field between these numbers. Elasticsearch tells `-0.0` from `0.0`; numbers here do not.
pub fn double_range(field: &str, low: &Bound<Number>, high: &Bound<Number>) -> Option<Json> {
    let low = match low {
        Bound::Unbounded => Bound::Unbounded,
        Bound::Included(number) => match number.as_f64() {
            0.0 => Bound::Included(-0.0),
            value if value == f64::INFINITY => return None,
            value => Bound::Included(clamped(value)),
        },
        Bound::Excluded(number) => match number.as_f64() {
            0.0 => Bound::Excluded(0.0),
            value if value == f64::INFINITY => return None,
            value if value == f64::NEG_INFINITY => Bound::Unbounded,
            value => Bound::Excluded(value),
        },
    };
    let high = match high {
        Bound::Unbounded => Bound::Unbounded,
        Bound::Included(number) => match number.as_f64() {
            0.0 => Bound::Included(0.0),
            value if value == f64::NEG_INFINITY => return None,
            value => Bound::Included(clamped(value)),
        },
        Bound::Excluded(number) => match number.as_f64() {
            0.0 => Bound::Excluded(-0.0),
            value if value == f64::NEG_INFINITY => return None,
            value if value == f64::INFINITY => Bound::Unbounded,
            value => Bound::Excluded(value),
        },
    };
    Some(range(field, low.map(Json::from), high.map(Json::from)))
}

/// Nearest doubles between these numbers: sure where the double lies inside, perhaps where it is a bound itself.
pub fn nearest_range(field: &str, low: &Bound<Number>, high: &Bound<Number>) -> Bounds {
    let value = |bound: &Bound<Number>| match bound {
        Bound::Included(number) | Bound::Excluded(number) => Some(clamped(number.as_f64())),
        Bound::Unbounded => None,
    };
    let (low, high) = (value(low), value(high));
    let inside = |zero_low: f64, zero_high: f64, bound: fn(f64) -> Bound<f64>| {
        let low = low.map(|v| if v == 0.0 { zero_low } else { v });
        let high = high.map(|v| if v == 0.0 { zero_high } else { v });
        range(
            field,
            low.map_or(Bound::Unbounded, bound).map(Json::from),
            high.map_or(Bound::Unbounded, bound).map(Json::from),
        )
    };
    Bounds {
        lower: Query::Clause(inside(0.0, -0.0, Bound::Excluded)),
        upper: Query::Clause(inside(-0.0, 0.0, Bound::Included)),
    }
}

/// Doubles of a field that equal the number; `None` where none does.
pub fn equal_double(field: &str, number: &Number) -> Option<Json> {
    let value = number.as_f64();
    if value == 0.0 {
        return Some(json!({"terms": {field: [0.0, -0.0]}}));
    }
    value.is_finite().then(|| term(field, value))
}

fn clamped(value: f64) -> f64 {
    value.clamp(f64::MIN, f64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Number {
        Number::parse(text).unwrap()
    }

    #[test]
    fn integers_are_bounded_exactly() {
        let included = |text: &str| Bound::Included(number(text));
        let excluded = |text: &str| Bound::Excluded(number(text));
        for (low, high, expected) in [
            (
                included("1"),
                excluded("500.5"),
                Some(json!({"gte": 1, "lt": 501})),
            ),
            (
                excluded("1"),
                included("500"),
                Some(json!({"gte": 2, "lt": 501})),
            ),
            (excluded("9223372036854775807"), Bound::Unbounded, None),
            (
                included("9223372036854775807"),
                Bound::Unbounded,
                Some(json!({"gte": i64::MAX})),
            ),
            (
                included("-1e30"),
                included("1e30"),
                Some(json!({"gte": i64::MIN})),
            ),
            (
                included("9007199254740992.5"),
                Bound::Unbounded,
                Some(json!({"gte": 9_007_199_254_740_993_i64})),
            ),
        ] {
            let found = int_range("f", &low, &high);
            assert_eq!(found, expected.map(|e| json!({"range": {"f": e}})));
        }
        assert_eq!(equal_int(&number("5e2")), Some(500));
        assert_eq!(
            equal_int(&number("9007199254740993.0")),
            Some(9_007_199_254_740_993)
        );
        assert_eq!(equal_int(&number("0.5")), None);
        assert_eq!(equal_int(&number("-9223372036854775808")), Some(i64::MIN));
        assert_eq!(equal_int(&number("1e19")), None);
    }

    #[test]
    fn both_zeros_are_one() {
        let zero = number("0");
        assert_eq!(
            double_range("f", &Bound::Included(zero.clone()), &Bound::Unbounded)
                .unwrap()
                .to_string(),
            r#"{"range":{"f":{"gte":-0.0}}}"#
        );
        assert_eq!(
            double_range("f", &Bound::Unbounded, &Bound::Excluded(zero.clone()))
                .unwrap()
                .to_string(),
            r#"{"range":{"f":{"lt":-0.0}}}"#
        );
        let near = nearest_range("f", &Bound::Excluded(zero), &Bound::Unbounded);
        assert_eq!(
            near.lower.to_json().to_string(),
            r#"{"range":{"f":{"gt":0.0}}}"#
        );
        assert_eq!(
            near.upper.to_json().to_string(),
            r#"{"range":{"f":{"gte":-0.0}}}"#
        );
    }
}
