//! Numbers as their text says, compared by value: exactly between integers and decimal texts, as doubles where one side is a double.

use std::cmp::Ordering;

/// A number asked for, prepared for comparison with many values.
#[derive(Clone, Debug)]
pub struct Number {
    decimal: Decimal,
    int: Option<i64>,
    float: f64,
}

/// `0.d1d2d3… × 10^exponent`, exactly; zero has no digits.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Decimal {
    is_negative: bool,
    /// Without leading and trailing zeros.
    digits: Vec<u8>,
    exponent: i64,
}

/// True for `-1`, `007`, `1.50`, `1e9`; not for `+1`, `.5`, `1.`, `inf`, ` 1`.
pub fn is_number(text: &str) -> bool {
    let digits = |bytes: &[u8]| bytes.iter().take_while(|b| b.is_ascii_digit()).count();
    let mut rest = text.strip_prefix('-').unwrap_or(text).as_bytes();
    let n_whole = digits(rest);
    if n_whole == 0 {
        return false;
    }
    rest = rest.get(n_whole..).unwrap_or_default();
    if let Some(fraction) = rest.strip_prefix(b".") {
        let n_fraction = digits(fraction);
        if n_fraction == 0 {
            return false;
        }
        rest = fraction.get(n_fraction..).unwrap_or_default();
    }
    if let Some(exponent) = rest.strip_prefix(b"e").or_else(|| rest.strip_prefix(b"E")) {
        let exponent = exponent
            .strip_prefix(b"+")
            .or_else(|| exponent.strip_prefix(b"-"))
            .unwrap_or(exponent);
        let n_exponent = digits(exponent);
        if n_exponent == 0 {
            return false;
        }
        rest = exponent.get(n_exponent..).unwrap_or_default();
    }
    rest.is_empty()
}

impl Number {
    /// `None` if `text` is not one of [`is_number`].
    pub fn parse(text: &str) -> Option<Self> {
        Some(Self {
            decimal: Decimal::parse(text)?,
            int: text.parse().ok(),
            float: text.parse().ok()?,
        })
    }

    /// The number as an integer, where its text is one that fits.
    pub fn as_i64(&self) -> Option<i64> {
        self.int
    }

    pub fn as_f64(&self) -> f64 {
        self.float
    }

    /// How `value` stands to this number.
    pub fn compare_int(&self, value: i64) -> Ordering {
        if let Some(int) = self.int {
            return value.cmp(&int);
        }
        // Rounding to doubles keeps the order, so only equal doubles need the exact comparison.
        #[expect(
            clippy::cast_precision_loss,
            reason = "the rounded order is checked below"
        )]
        let rounded = (value as f64).total_cmp(&self.float);
        match rounded {
            Ordering::Equal => self.compare_decimal(&value.to_string()),
            Ordering::Less | Ordering::Greater => rounded,
        }
    }

    pub fn compare_float(&self, value: f64) -> Ordering {
        // `-0.0` equals `0.0`.
        value
            .partial_cmp(&self.float)
            .unwrap_or_else(|| value.total_cmp(&self.float))
    }

    /// `None` if `text` is no number.
    pub fn compare_text(&self, text: &str) -> Option<Ordering> {
        if !is_number(text) {
            return None;
        }
        if let (Some(int), Ok(value)) = (self.int, text.parse::<i64>()) {
            return Some(value.cmp(&int));
        }
        let rounded = self.compare_float(text.parse().ok()?);
        match rounded {
            Ordering::Equal => Some(self.compare_decimal(text)),
            Ordering::Less | Ordering::Greater => Some(rounded),
        }
    }

    fn compare_decimal(&self, text: &str) -> Ordering {
        Decimal::parse(text).map_or(Ordering::Equal, |value| value.compare(&self.decimal))
    }
}

impl Decimal {
    fn parse(text: &str) -> Option<Self> {
        if !is_number(text) {
            return None;
        }
        let (is_negative, rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, saturating_exponent(exponent)),
            None => (rest, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let mut digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).collect();
        let n_leading = digits.iter().take_while(|d| **d == b'0').count();
        digits.drain(..n_leading);
        while digits.last() == Some(&b'0') {
            digits.pop();
        }
        if digits.is_empty() {
            return Some(Self {
                is_negative: false,
                digits,
                exponent: 0,
            });
        }
        let place = i64::try_from(whole.len()).ok()? - i64::try_from(n_leading).ok()?;
        Some(Self {
            is_negative,
            digits,
            exponent: exponent.saturating_add(place),
        })
    }

    fn compare(&self, other: &Self) -> Ordering {
        let sign = |d: &Self| match (d.digits.is_empty(), d.is_negative) {
            (true, _) => 0,
            (false, true) => -1,
            (false, false) => 1,
        };
        let by_sign = sign(self).cmp(&sign(other));
        if by_sign != Ordering::Equal || self.digits.is_empty() {
            return by_sign;
        }
        let by_size = self
            .exponent
            .cmp(&other.exponent)
            .then_with(|| self.digits.cmp(&other.digits));
        if self.is_negative {
            by_size.reverse()
        } else {
            by_size
        }
    }
}

fn saturating_exponent(text: &str) -> i64 {
    let limit = i64::MAX / 4;
    match text.parse::<i64>() {
        Ok(exponent) => exponent.clamp(-limit, limit),
        Err(_) if text.starts_with('-') => -limit,
        Err(_) => limit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_compare_by_value_whatever_their_text() {
        for (a, b, expected) in [
            ("500", "500", Ordering::Equal),
            ("500", "5e2", Ordering::Equal),
            ("500.00", "500", Ordering::Equal),
            ("007", "7", Ordering::Equal),
            ("-0", "0", Ordering::Equal),
            ("-0.0", "0", Ordering::Equal),
            ("9223372036854775807", "9223372036854775808", Ordering::Less),
            (
                "9223372036854775807",
                "9223372036854775807.5",
                Ordering::Less,
            ),
            (
                "-9223372036854775808",
                "-9223372036854775809",
                Ordering::Greater,
            ),
            ("1.00000000000000000001", "1", Ordering::Greater),
            ("-1.00000000000000000001", "-1", Ordering::Less),
            ("1e400", "1e401", Ordering::Less),
            ("1e99999999999999999999", "1e400", Ordering::Greater),
            ("1e-99999999999999999999", "0", Ordering::Greater),
            ("0.1", "0.10000000000000000555", Ordering::Less),
            ("-5", "3", Ordering::Less),
        ] {
            let number = Number::parse(b).unwrap();
            assert_eq!(number.compare_text(a), Some(expected), "{a} {b}");
            if let Ok(int) = a.parse() {
                assert_eq!(number.compare_int(int), expected, "{a} {b}");
            }
        }
        assert_eq!(
            Number::parse("0.10").unwrap().compare_float(0.1),
            Ordering::Equal
        );
    }

    #[test]
    fn what_is_no_number_is_not_taken_for_one() {
        for text in [
            "", "-", "+1", ".5", "1.", "1e", "1e+", "inf", "NaN", " 1", "1 ", "0x10", "1_000",
            "1.2.3", "--1", "١",
        ] {
            assert!(!is_number(text), "{text}");
            assert!(Number::parse(text).is_none(), "{text}");
        }
    }
}
