//! `5*`, `50?`: wildcards that integers match by their first digits, as ranges, because Elasticsearch knows no patterns of numbers.

use std::ops::RangeInclusive;

use crate::query::Match;

/// The integers whose text matches, as ranges; `None` if the pattern is not digits and then wildcards.
///
/// Letters and digits may not stand before the match, so it begins with the number's first digit, after its sign if it has one; a wildcard at
/// the end lets anything follow, and each `?` asks for one digit more.
pub fn ranges(matcher: &Match) -> Option<Vec<RangeInclusive<i64>>> {
    let Match::Wildcard(pattern) = matcher else {
        return None;
    };
    let digits = pattern.trim_end_matches(['*', '?']);
    let wildcards = pattern.get(digits.len()..)?;
    let is_simple = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    if !is_simple || wildcards.is_empty() {
        return None;
    }
    let n_more = u32::try_from(wildcards.bytes().filter(|b| *b == b'?').count()).ok()?;
    let mut found = Vec::new();
    // More digits than any integer has.
    let Ok(first) = digits.parse::<i128>() else {
        return Some(found);
    };
    if digits.starts_with('0') {
        // No other integer begins with a zero.
        if digits == "0" && n_more == 0 {
            found.push(0..=0);
        }
        return Some(found);
    }
    let mut power = 10_i128.checked_pow(n_more).unwrap_or(i128::MAX);
    loop {
        let low = first.saturating_mul(power);
        let high = low.saturating_add(power - 1);
        let clamped = |value: i128| i64::try_from(value.clamp(i64::MIN.into(), i64::MAX.into()));
        // The smallest integer has no positive counterpart.
        if -i128::from(i64::MIN) < low {
            return Some(found);
        }
        if low <= i64::MAX.into() {
            found.push(i64::try_from(low).ok()?..=clamped(high).ok()?);
        }
        found.push(clamped(-high).ok()?..=clamped(-low).ok()?);
        power = power.saturating_mul(10);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::Matcher;

    #[test]
    fn ranges_hold_what_the_pattern_matches() {
        let mut values: Vec<i64> = (-1_200..1_200).collect();
        for power in 3..19 {
            let power = 10_i64.pow(power);
            for first in [1, 5, 9] {
                let at = power.saturating_mul(first);
                values.extend([at - 1, at, at + 7, -at, 1 - at, -7 - at]);
            }
        }
        values.extend([i64::MIN, i64::MIN + 1, i64::MAX, i64::MAX - 1]);
        for pattern in [
            "5*",
            "50*",
            "5?",
            "5??",
            "5?*?",
            "0*",
            "0?",
            "00*",
            "9*",
            "922337203685477580*",
            "9223372036854775808*",
            "9223372036854775809*",
            "1???????????????????",
            "99999999999999999999*",
        ] {
            let wildcard = Match::Wildcard(pattern.to_owned());
            let matcher = Matcher::new(&wildcard).unwrap();
            let ranges = ranges(&wildcard).unwrap();
            for value in &values {
                let is_inside = ranges.iter().any(|range| range.contains(value));
                assert_eq!(is_inside, matcher.matches_int(*value), "{pattern} {value}");
            }
        }
        for pattern in ["5", "*5", "5*0", "5a*", "?5", "*"] {
            assert_eq!(
                ranges(&Match::Wildcard(pattern.to_owned())),
                None,
                "{pattern}"
            );
        }
    }
}
