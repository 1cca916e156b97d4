//! The texts of JSON numbers → values that keep them.

use crate::record::ValueRef;

/// The value of a number's text, which must be valid JSON.
pub(super) fn value_of(text: &str) -> ValueRef<'_> {
    if text.bytes().any(|b| matches!(b, b'.' | b'e' | b'E')) {
        return match text.parse() {
            Ok(float) => float_value(text, float),
            Err(_) => ValueRef::Number(text),
        };
    }
    match text.parse() {
        Ok(0) if text.starts_with('-') => ValueRef::Number(text),
        Ok(integer) => ValueRef::Int(integer),
        Err(_) => ValueRef::Number(text),
    }
}

/// A decimal is kept as a double only where the double, printed, is the same number.
pub(super) fn float_value(text: &str, float: f64) -> ValueRef<'_> {
    if !float.is_finite() {
        return ValueRef::Number(text);
    }
    // Up to 15 digits survive a double, away from its smallest and largest values.
    let is_short = text.len() <= 16 && text.bytes().all(|b| b != b'e' && b != b'E');
    let is_kept = is_short || {
        let mut buffer = zmij::Buffer::new();
        let printed = buffer.format_finite(float);
        printed == text || is_same_number(text, printed)
    };
    if is_kept {
        ValueRef::Float(float)
    } else {
        ValueRef::Number(text)
    }
}

/// Whether two decimal texts are the same number, `-0.0` and `0.0` told apart.
fn is_same_number(a: &str, b: &str) -> bool {
    a.starts_with('-') == b.starts_with('-')
        && match (Decimal::of(a), Decimal::of(b)) {
            (Some(a), Some(b)) => a == b,
            _ => false,
        }
}

/// 0.digits × 10^exponent, without leading and trailing zeros.
#[derive(PartialEq, Eq)]
struct Decimal {
    digits: [u8; 32],
    exponent: i64,
}

impl Decimal {
    /// `None` for more than 32 significant digits: no double prints so many.
    fn of(text: &str) -> Option<Self> {
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let mut exponent: i64 = exponent
            .strip_prefix('+')
            .unwrap_or(exponent)
            .parse()
            .ok()?;
        let mut digits = [0; 32];
        let mut n_digits = 0;
        let mut n_zeros = 0;
        let mut is_fraction = false;
        for b in mantissa.bytes() {
            match b {
                b'.' => is_fraction = true,
                b'0' if n_digits == 0 => exponent -= i64::from(is_fraction),
                b'0'..=b'9' => {
                    exponent += i64::from(!is_fraction);
                    if b == b'0' {
                        n_zeros += 1;
                        continue;
                    }
                    n_digits += n_zeros;
                    n_zeros = 0;
                    *digits.get_mut(n_digits)? = b;
                    n_digits += 1;
                }
                _ => {}
            }
        }
        if n_digits == 0 {
            exponent = 0;
        }
        Some(Self { digits, exponent })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_keeps_its_value() {
        for (text, expected) in [
            ("0", ValueRef::Int(0)),
            ("-0", ValueRef::Number("-0")),
            ("9223372036854775807", ValueRef::Int(i64::MAX)),
            ("-9223372036854775808", ValueRef::Int(i64::MIN)),
            (
                "9223372036854775808",
                ValueRef::Number("9223372036854775808"),
            ),
            ("0.1", ValueRef::Float(0.1)),
            ("1.50", ValueRef::Float(1.5)),
            ("-0.0", ValueRef::Float(-0.0)),
            ("1e3", ValueRef::Float(1000.0)),
            ("1E+3", ValueRef::Float(1000.0)),
            ("123456789012345.0", ValueRef::Float(123_456_789_012_345.0)),
            (
                "0.0011191368103027344",
                ValueRef::Float(0.001_119_136_810_302_734_4),
            ),
            (
                "0.1000000000000000055511151231257827",
                ValueRef::Number("0.1000000000000000055511151231257827"),
            ),
            ("1e400", ValueRef::Number("1e400")),
            ("1e-400", ValueRef::Number("1e-400")),
            ("0e-400", ValueRef::Float(0.0)),
            ("1.2345678e-320", ValueRef::Number("1.2345678e-320")),
            ("100000000000000000000.0", ValueRef::Float(1e20)),
            ("9007199254740993.0", ValueRef::Number("9007199254740993.0")),
            (
                "1e99999999999999999999",
                ValueRef::Number("1e99999999999999999999"),
            ),
        ] {
            assert_eq!(value_of(text), expected, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_float_printed_is_the_number_sent(float in proptest::num::f64::NORMAL | proptest::num::f64::SUBNORMAL | proptest::num::f64::ZERO) {
            let text = serde_json::to_string(&float).unwrap();
            proptest::prop_assert_eq!(value_of(&text), ValueRef::Float(float));
        }
    }
}
