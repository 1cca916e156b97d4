//! The order of groups and of the values in them: one for every store.

use std::cmp::Ordering;

use crate::query::Group;
use crate::record::Value;

/// By the columns of `sort` (their index among the group's parts and then its aggregates, and whether the largest comes first), then by the parts.
pub fn compare_groups(a: &Group, b: &Group, sort: &[(usize, bool)]) -> Ordering {
    let value = |group: &'_ Group, index: usize| match index.checked_sub(group.by.len()) {
        None => group.by.get(index).cloned(),
        Some(index) => group.values.get(index).cloned(),
    };
    for (index, is_descending) in sort {
        let [a, b] = [a, b].map(|group| value(group, *index).unwrap_or(Value::Null));
        let order = compare_values(&a, &b, *is_descending);
        if order.is_ne() {
            return order;
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
    match is_descending {
        true => order.reverse(),
        false => order,
    }
}

/// Numbers by what they are worth, exactly: an integer is not rounded to a double first. `-0.0` comes before `0.0`, which equals the integer. A value
/// that is no number counts as zero; no aggregate is one.
pub fn compare_numbers(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => a.total_cmp(b),
        (Value::Float(a), b) => compare_int_float(int(b), *a).reverse(),
        (a, Value::Float(b)) => compare_int_float(int(a), *b),
        (a, b) => int(a).cmp(&int(b)),
    }
}

fn int(value: &Value) -> i64 {
    match value {
        Value::Int(value) => *value,
        Value::Null
        | Value::Bool(_)
        | Value::Float(_)
        | Value::Number(_)
        | Value::Str(_)
        | Value::Json(_) => 0,
    }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "rounding keeps the order, and a double that equals a rounded integer is an integer of at most 64 bits"
)]
pub fn compare_int_float(int: i64, float: f64) -> Ordering {
    let rounded = (int as f64).total_cmp(&float);
    rounded.then_with(|| i128::from(int).cmp(&(float as i128)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::query::number::Number;

    /// By the digits that both are written with: another way than the one that is tested.
    fn by_digits(int: i64, float: f64) -> Ordering {
        let text = format!("{float:.1}");
        let number = Number::parse(&text).unwrap();
        number.compare_int(int)
    }

    /// Integers that doubles cannot tell apart, and the ends.
    fn ints() -> impl Strategy<Value = i64> {
        let near = |center: i64| (-3_i64..=3).prop_map(move |by| center.saturating_add(by));
        prop_oneof![
            any::<i64>(),
            -3_i64..=3,
            near(1 << 53),
            near(-(1 << 53)),
            near(1 << 60),
            near(i64::MAX),
            near(i64::MIN),
        ]
    }

    #[expect(clippy::cast_precision_loss, reason = "doubles near integers")]
    fn floats() -> impl Strategy<Value = f64> {
        prop_oneof![
            proptest::num::f64::NORMAL,
            ints().prop_map(|int| int as f64),
            ints().prop_map(|int| (int as f64).next_up()),
            ints().prop_map(|int| int as f64 + 0.5),
            Just(-0.0),
        ]
    }

    fn numbers() -> impl Strategy<Value = Value> {
        prop_oneof![ints().prop_map(Value::Int), floats().prop_map(Value::Float)]
    }

    proptest! {
        #[test]
        fn an_integer_and_a_double_compare_as_their_digits(int in ints(), float in floats()) {
            prop_assume!(float.fract() == 0.0 && (float != 0.0 || float.is_sign_positive()));
            prop_assert_eq!(compare_int_float(int, float), by_digits(int, float));
        }

        #[test]
        fn a_fraction_lies_between_its_neighbours(int in -(1_i64 << 40)..1 << 40, part in 0.01..0.99) {
            #[expect(clippy::cast_precision_loss, reason = "a hundredth is far above the steps of doubles here")]
            let float = int as f64 + part;
            prop_assert_eq!(compare_int_float(int, float), Ordering::Less);
            prop_assert_eq!(compare_int_float(int + 1, float), Ordering::Greater);
        }

        #[test]
        fn the_order_is_one(a in numbers(), b in numbers(), c in numbers()) {
            prop_assert_eq!(compare_numbers(&a, &b), compare_numbers(&b, &a).reverse());
            let mut sorted = [&a, &b, &c];
            sorted.sort_by(|a, b| compare_numbers(a, b));
            prop_assert!(compare_numbers(sorted[0], sorted[2]).is_le());
        }
    }

    #[test]
    fn what_doubles_cannot_tell_apart_is_told_apart() {
        let big = (1_i64 << 53) + 1;
        let float = 9_007_199_254_740_992.0;
        assert_eq!(compare_int_float(big, float), Ordering::Greater);
        assert_eq!(compare_int_float(i64::MAX, 2_f64.powi(63)), Ordering::Less);
        assert_eq!(
            compare_int_float(i64::MIN, -2_f64.powi(63)),
            Ordering::Equal
        );
        assert_eq!(compare_int_float(0, -0.0), Ordering::Greater);
        assert_eq!(compare_int_float(0, f64::INFINITY), Ordering::Less);
    }

    #[test]
    fn null_is_last_both_ways_and_ties_fall_to_the_parts() {
        let group = |by: &str, value: Value| Group {
            by: vec![Value::Str(by.to_owned())],
            values: vec![value],
        };
        let sorted = |is_descending| {
            let mut groups = vec![
                group("d", Value::Null),
                group("c", Value::Int(1)),
                group("b", Value::Float(1.0)),
                group("a", Value::Int(2)),
            ];
            groups.sort_by(|a, b| compare_groups(a, b, &[(1, is_descending)]));
            let names = groups.into_iter().map(|group| group.by[0].clone());
            names.collect::<Vec<_>>()
        };
        let named = |names: [&str; 4]| names.map(|name| Value::Str(name.to_owned())).to_vec();
        assert_eq!(sorted(false), named(["b", "c", "a", "d"]));
        assert_eq!(sorted(true), named(["a", "b", "c", "d"]));
    }
}
