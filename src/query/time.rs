//! Times and durations as people ask for them: absolute in any form that records may have, relative to now, rounded, and widths of buckets.

use jiff::civil::Weekday;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan, Zoned};

use crate::common::error::{Error, Result};
use crate::record::timestamp::{self, NS_PER_SECOND, TimeError};

/// Widths that `interval=auto` chooses from, in seconds.
const NICE_SECONDS: [i64; 20] = [
    1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200,
    86_400, 604_800, 2_592_000,
];
/// About how many buckets `interval=auto` makes.
const AUTO_BUCKETS: i64 = 100;
/// At most so many buckets in one answer.
pub const BUCKETS_MAX: i64 = 10_000;

/// Nanoseconds since 1970 of `text`: RFC 3339 with or without zone (none: UTC), a date, Unix s/ms/µs/ns, `now`, `-15m`, `now-1h/h`.
pub fn parse_time(text: &str, now_ns: i64) -> Result<i64> {
    let trimmed = text.trim();
    if let Some(relative) = relative(trimmed, now_ns) {
        return relative;
    }
    // An unescaped plus sign in a URL arrives as a blank.
    let mended = match trimmed.rsplit_once(' ') {
        Some((head, zone)) if head.contains('T') && zone.len() == 5 && zone.contains(':') => {
            format!("{head}+{zone}")
        }
        _ => trimmed.to_owned(),
    };
    let minutes_only = format!("{mended}:00");
    let parsed = match timestamp::parse(&mended, now_ns) {
        Err(TimeError::Unreadable) => timestamp::parse(&minutes_only, now_ns),
        other => other,
    };
    match parsed {
        Ok(time) => Ok(time.ns),
        Err(TimeError::OutOfRange) => Err(Error::invalid(
            "invalid_time",
            format!("`{text}` lies outside 1677-09-22 to 2262-04-11"),
        )),
        Err(TimeError::Unreadable) => Err(Error::invalid(
            "invalid_time",
            format!(
                "`{text}` is not a time; write it like 2025-03-20T00:00:00Z, 1742428800, -15m or now-1d/d"
            ),
        )),
    }
}

/// `Some` if `text` is meant as a relative time: `now…`, or a sign and then a number with a unit.
fn relative(text: &str, now_ns: i64) -> Option<Result<i64>> {
    let rest = match text.strip_prefix("now") {
        Some(rest) => rest,
        None if text.starts_with(['-', '+'])
            && text.ends_with(|c: char| c.is_ascii_alphabetic()) =>
        {
            text
        }
        None => return None,
    };
    Some(relative_from(rest, text, now_ns))
}

fn relative_from(steps: &str, text: &str, now_ns: i64) -> Result<i64> {
    let bad = |what: &str| {
        Error::invalid(
            "invalid_time",
            format!(
                "`{text}`: {what}; write it like -15m, now-1h or now-1d/d (units s, m, h, d, w, M, y)"
            ),
        )
    };
    let too_far = || bad("too far away");
    let mut at = Timestamp::from_nanosecond(i128::from(now_ns))
        .map_err(|_| too_far())?
        .to_zoned(TimeZone::UTC);
    let mut rest = steps;
    while let Some(sign) = rest.chars().next() {
        rest = rest.get(1..).unwrap_or_default();
        let n_digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (digits, after) = rest.split_at(n_digits);
        let unit_len = after
            .chars()
            .take_while(|c| c.is_ascii_alphabetic())
            .map(char::len_utf8)
            .sum();
        let (unit, after) = after.split_at(unit_len);
        rest = after;
        at = match sign {
            '/' if digits.is_empty() => {
                floor(&at, unit).ok_or_else(|| bad("unknown unit after `/`"))?
            }
            '+' | '-' => {
                let count: i64 = digits
                    .parse()
                    .map_err(|_| bad("expected a number after the sign"))?;
                let signed = if sign == '-' { -count } else { count };
                shift(&at, signed, unit).ok_or_else(|| bad("unknown unit, or too far away"))?
            }
            _ => return Err(bad("expected `+`, `-` or `/`")),
        };
    }
    i64::try_from(at.timestamp().as_nanosecond()).map_err(|_| too_far())
}

fn shift(at: &Zoned, count: i64, unit: &str) -> Option<Zoned> {
    let span = match unit {
        "ms" => 0.seconds().try_milliseconds(count),
        "s" => 0.seconds().try_seconds(count),
        "m" => 0.seconds().try_minutes(count),
        "h" => 0.seconds().try_hours(count),
        "d" => 0.seconds().try_days(count),
        "w" => 0.seconds().try_weeks(count),
        "M" => 0.seconds().try_months(count),
        "y" => 0.seconds().try_years(count),
        _ => return None,
    };
    at.checked_add(span.ok()?).ok()
}

/// The beginning of the unit that `at` lies in; weeks begin on Monday.
fn floor(at: &Zoned, unit: &str) -> Option<Zoned> {
    let day = at.start_of_day().ok()?;
    let seconds = |width: i64| {
        let second = at.timestamp().as_second();
        let start = Timestamp::from_second(second - second.rem_euclid(width)).ok()?;
        Some(start.to_zoned(TimeZone::UTC))
    };
    match unit {
        "s" => seconds(1),
        "m" => seconds(60),
        "h" => seconds(3_600),
        "d" => Some(day),
        "w" => {
            let since_monday = i64::from(day.weekday().since(Weekday::Monday));
            day.checked_sub(since_monday.days()).ok()
        }
        "M" => day.first_of_month().ok(),
        "y" => day.first_of_year().ok(),
        _ => None,
    }
}

/// The width of a bucket, in nanoseconds: a number and a unit (`ms`, `s`, `m`, `h`, `d`, `w`).
pub fn parse_interval(text: &str) -> Result<i64> {
    let bad = || {
        Error::invalid(
            "invalid_interval",
            format!(
                "`{text}` is not an interval; write `auto`, or a whole number and a unit: 30s, 1m, 6h, 1d, 1w"
            ),
        )
    };
    let text = text.trim();
    let n_digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, unit) = text.split_at(n_digits);
    let count: i64 = match digits {
        "" if !unit.is_empty() => 1,
        _ => digits.parse().map_err(|_| bad())?,
    };
    let unit_ns = match unit {
        "ms" => 1_000_000,
        "s" => NS_PER_SECOND,
        "m" | "min" => 60 * NS_PER_SECOND,
        "h" => 3_600 * NS_PER_SECOND,
        "d" => 86_400 * NS_PER_SECOND,
        "w" => 7 * 86_400 * NS_PER_SECOND,
        _ => return Err(bad()),
    };
    match count.checked_mul(unit_ns) {
        Some(width) if 0 < width => Ok(width),
        _ => Err(bad()),
    }
}

/// The nice width that cuts `span_ns` into about a hundred buckets.
pub fn auto_interval(span_ns: i64) -> i64 {
    let wanted = span_ns.max(0) / AUTO_BUCKETS / NS_PER_SECOND;
    let nice = NICE_SECONDS.into_iter().find(|seconds| wanted <= *seconds);
    // Beyond thirty days a bucket: whole years' worth of days.
    let seconds = nice.unwrap_or_else(|| (wanted / 31_536_000 + 1) * 31_536_000);
    seconds * NS_PER_SECOND
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2025-03-20T13:45:30.5Z, a Thursday.
    const NOW: i64 = 1_742_478_330_500_000_000;

    fn check(text: &str, expected: &str) {
        let ns = parse_time(text, NOW).unwrap();
        assert_eq!(timestamp::format(ns, 3), expected, "{text}");
    }

    #[test]
    fn times_are_read_in_every_documented_form() {
        for (text, expected) in [
            ("2025-03-20T00:00:00", "2025-03-20T00:00:00.000Z"),
            ("2025-03-20T00:00:00+02:00", "2025-03-19T22:00:00.000Z"),
            ("2025-03-20T00:00:00 02:00", "2025-03-19T22:00:00.000Z"),
            ("2025-03-20 10:30", "2025-03-20T10:30:00.000Z"),
            ("2025-03-20T10:30", "2025-03-20T10:30:00.000Z"),
            ("2025-03-20", "2025-03-20T00:00:00.000Z"),
            ("1742428800", "2025-03-20T00:00:00.000Z"),
            ("1742428800123", "2025-03-20T00:00:00.123Z"),
            ("now", "2025-03-20T13:45:30.500Z"),
            ("-15m", "2025-03-20T13:30:30.500Z"),
            ("now-1h/h", "2025-03-20T12:00:00.000Z"),
            ("now/d", "2025-03-20T00:00:00.000Z"),
            ("now/w", "2025-03-17T00:00:00.000Z"),
            ("now-1M/M", "2025-02-01T00:00:00.000Z"),
            ("now-1y/y+1d", "2024-01-02T00:00:00.000Z"),
            ("-500ms", "2025-03-20T13:45:30.000Z"),
            ("+1d", "2025-03-21T13:45:30.500Z"),
        ] {
            check(text, expected);
        }
    }

    #[test]
    fn what_is_no_time_is_refused_with_an_example() {
        for text in [
            "",
            "banana",
            "now-",
            "now-1",
            "now-1q",
            "now/",
            "now*2",
            "-99999999999y",
            "2025-13-01",
            "9999-01-01",
            "nowé",
            "-1é",
        ] {
            let error = parse_time(text, NOW).unwrap_err();
            assert_eq!(error.code, "invalid_time", "{text}: {error}");
        }
    }

    #[test]
    fn intervals_have_a_unit_and_auto_is_nice() {
        assert_eq!(parse_interval("1m").unwrap(), 60 * NS_PER_SECOND);
        assert_eq!(parse_interval("250ms").unwrap(), 250_000_000);
        for text in ["", "0s", "5", "1x", "-1m", "99999999999999d", "m1"] {
            parse_interval(text).unwrap_err();
        }
        for hours in [0_i64, 1, 24, 24 * 30, 24 * 365, 24 * 365 * 40] {
            let span = hours * 3_600 * NS_PER_SECOND;
            let n_buckets = span / auto_interval(span);
            assert!(n_buckets <= 120, "{hours} h: {n_buckets}");
        }
    }
}
