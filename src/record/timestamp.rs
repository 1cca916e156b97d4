//! Times as people and programs write them ⇄ nanoseconds since 1970 in UTC. Pure functions; knows no wire format and no clock.
//!
//! Read: RFC 3339 and its relatives (blank for `T`, `,` for `.`, no zone means UTC, compact forms), Unix seconds to nanoseconds by magnitude,
//! common log format, syslog without a year (the newest that is not in the future), `ctime`, RFC 2822, klog, log4j, HDFS, HealthApp.
//! The number of fraction digits is kept (0 to 9, more are cut). Second 60 is the first of the next minute. What can be read but does not fit
//! 64 bits of nanoseconds (1677-09-21 to 2262-04-11) is [`TimeError::OutOfRange`], never wrapped.

mod shapes;

use crate::record::value::Flags;

pub const NS_PER_SECOND: i64 = 1_000_000_000;
const SECONDS_PER_DAY: i64 = 86_400;

/// A time that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time {
    pub ns: i64,
    /// Fraction digits as they were written, 0 to 9.
    pub digits: u8,
    /// `TIMESTAMP_YEAR_GUESSED` or nothing.
    pub flags: Flags,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeError {
    /// Not a time in any known form.
    Unreadable,
    /// A time, but not one that 64 bits of nanoseconds can hold.
    OutOfRange,
}

/// Reads a text that is a time and nothing else. `arrival_ns` serves forms without a year.
pub fn parse(text: &str, arrival_ns: i64) -> Result<Time, TimeError> {
    if let Some(time) = parse_rfc3339_exact(text.as_bytes()) {
        return time;
    }
    let text = text.trim();
    let bytes = text.as_bytes();
    if let Some(time) = shapes::compact_digits(bytes) {
        return time;
    }
    if bytes
        .iter()
        .all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'+' | b'e' | b'E'))
        && let Some(time) = parse_unix(text)
    {
        return time;
    }
    let (time, len) = shapes::parse_prefix(bytes, arrival_ns)
        .or_else(|| shapes::date_only(bytes))
        .ok_or(TimeError::Unreadable)?;
    let rest = bytes.get(len..).unwrap_or_default();
    // Java prints the zone's name after its offset: `+02:00[Europe/Berlin]`.
    let is_zone_name = rest.first() == Some(&b'[') && rest.last() == Some(&b']');
    if rest.is_empty() || is_zone_name {
        time
    } else {
        Err(TimeError::Unreadable)
    }
}

/// Reads the time that `line` begins with; the second value is how many bytes it takes.
pub fn parse_prefix(line: &[u8], arrival_ns: i64) -> Option<(Time, usize)> {
    let (time, len) = shapes::parse_prefix(line, arrival_ns)?;
    Some((time.ok()?, len))
}

/// Reads the text of a JSON number as Unix time: seconds, milliseconds, microseconds or nanoseconds by its magnitude. `None` if it is no number.
pub fn parse_unix(number: &str) -> Option<Result<Time, TimeError>> {
    let (negative, digits) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number),
    };
    if digits.contains(['e', 'E']) {
        return unix_of_exponent(number);
    }
    let (whole_text, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let is_number = !whole_text.is_empty()
        && whole_text.bytes().all(|b| b.is_ascii_digit())
        && fraction.bytes().all(|b| b.is_ascii_digit());
    if !is_number {
        return None;
    }
    let Ok(whole) = whole_text.parse::<u128>() else {
        return Some(Err(TimeError::OutOfRange));
    };
    let unit_digits = match whole {
        0..100_000_000_000 => 0_u32,
        100_000_000_000..100_000_000_000_000 => 3,
        100_000_000_000_000..100_000_000_000_000_000 => 6,
        _ => 9,
    };
    let mut ns = i128::try_from(whole).unwrap_or(i128::MAX);
    let mut n_digits = unit_digits;
    for digit in fraction.bytes().take((9 - unit_digits) as usize) {
        ns = ns
            .saturating_mul(10)
            .saturating_add(i128::from(digit - b'0'));
        n_digits += 1;
    }
    ns = ns.saturating_mul(10_i128.pow(9 - n_digits));
    if negative {
        ns = -ns;
    }
    let time = i64::try_from(ns).map_or(Err(TimeError::OutOfRange), |ns| {
        Ok(Time {
            ns,
            digits: u8::try_from(n_digits).unwrap_or(9),
            flags: Flags::default(),
        })
    });
    Some(time)
}

/// `1.7e9`: some serializers write large numbers so. A double holds them to the microsecond.
fn unix_of_exponent(number: &str) -> Option<Result<Time, TimeError>> {
    let value: f64 = number.parse().ok()?;
    if !value.is_finite() || 1e21 < value.abs() {
        return Some(Err(TimeError::OutOfRange));
    }
    parse_unix(&format!("{value}"))
}

/// The form that nearly all programs write, `2025-03-20T00:00:00.123456Z`, and the same without zone or with a blank; `None` sends everything
/// else the long way.
fn parse_rfc3339_exact(b: &[u8]) -> Option<Result<Time, TimeError>> {
    let (head, rest) = b.split_first_chunk::<19>()?;
    let [
        y0,
        y1,
        y2,
        y3,
        b'-',
        mo0,
        mo1,
        b'-',
        d0,
        d1,
        b'T' | b' ',
        h0,
        h1,
        b':',
        mi0,
        mi1,
        b':',
        s0,
        s1,
    ] = *head
    else {
        return None;
    };
    let two = |tens: u8, ones: u8| {
        let (tens, ones) = (tens.wrapping_sub(b'0'), ones.wrapping_sub(b'0'));
        (tens < 10 && ones < 10).then(|| i64::from(tens) * 10 + i64::from(ones))
    };
    let civil = Civil {
        year: two(y0, y1)? * 100 + two(y2, y3)?,
        month: two(mo0, mo1)?,
        day: two(d0, d1)?,
        hour: two(h0, h1)?,
        minute: two(mi0, mi1)?,
        second: two(s0, s1)?,
    };
    let (fraction_ns, digits, rest) = match rest {
        [b'.', fraction @ ..] => {
            let len = fraction.iter().take_while(|b| b.is_ascii_digit()).count();
            let (fraction, rest) = fraction.split_at_checked(len)?;
            let (ns, digits) = fraction_of(fraction)?;
            (ns, digits, rest)
        }
        _ => (0, 0, rest),
    };
    if !matches!(rest, [b'Z'] | []) {
        return None;
    }
    Some(civil.to_time(0, fraction_ns, digits))
}

/// Nanoseconds and digit count of a fraction's digits; `None` if there are none.
fn fraction_of(digits: &[u8]) -> Option<(i64, u8)> {
    if digits.is_empty() {
        return None;
    }
    let mut ns = 0;
    let mut n_digits = 0_u8;
    for digit in digits.iter().take(9) {
        ns = ns * 10 + i64::from(digit - b'0');
        n_digits += 1;
    }
    Some((ns * power_of_ten(9 - n_digits), n_digits))
}

const POWERS_OF_TEN: [i64; 10] = [
    1,
    10,
    100,
    1_000,
    10_000,
    100_000,
    1_000_000,
    10_000_000,
    100_000_000,
    1_000_000_000,
];

fn power_of_ten(exponent: u8) -> i64 {
    POWERS_OF_TEN
        .get(usize::from(exponent))
        .copied()
        .unwrap_or(1)
}

/// A date and a time of day as written.
#[derive(Clone, Copy, Debug)]
struct Civil {
    year: i64,
    month: i64,
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
}

impl Civil {
    fn is_valid(&self) -> bool {
        (1..=12).contains(&self.month)
            && 1 <= self.day
            && self.day <= days_in_month(self.year, self.month)
            && (0..24).contains(&self.hour)
            && (0..60).contains(&self.minute)
            && (0..=60).contains(&self.second)
    }

    fn to_time(self, offset_s: i64, fraction_ns: i64, digits: u8) -> Result<Time, TimeError> {
        if !self.is_valid() {
            return Err(TimeError::Unreadable);
        }
        let seconds = days_from_civil(self.year, self.month, self.day) * SECONDS_PER_DAY
            + self.hour * 3600
            + self.minute * 60
            + self.second
            - offset_s;
        let ns = i128::from(seconds) * i128::from(NS_PER_SECOND) + i128::from(fraction_ns);
        let ns = i64::try_from(ns).map_err(|_| TimeError::OutOfRange)?;
        Ok(Time {
            ns,
            digits,
            flags: Flags::default(),
        })
    }
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar; years begin in March so that the leap day is the last.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Appends `2025-03-20T00:00:00.123Z` with `digits` fraction digits (at most 9; more precise parts are cut).
pub fn format_into(out: &mut Vec<u8>, ns: i64, digits: u8) {
    let seconds = ns.div_euclid(NS_PER_SECOND);
    let fraction = ns.rem_euclid(NS_PER_SECOND);
    let (year, month, day) = civil_from_days(seconds.div_euclid(SECONDS_PER_DAY));
    let second_of_day = seconds.rem_euclid(SECONDS_PER_DAY);
    let two = |value: i64| [digit_of(value / 10), digit_of(value % 10)];
    out.extend(two(year / 100));
    out.extend(two(year % 100));
    out.push(b'-');
    out.extend(two(month));
    out.push(b'-');
    out.extend(two(day));
    out.push(b'T');
    out.extend(two(second_of_day / 3600));
    out.push(b':');
    out.extend(two(second_of_day / 60 % 60));
    out.push(b':');
    out.extend(two(second_of_day % 60));
    if 0 < digits {
        out.push(b'.');
        for index in 0..digits.min(9) {
            out.push(digit_of(fraction / power_of_ten(8 - index) % 10));
        }
    }
    out.push(b'Z');
}

/// [`format_into`] as a string.
pub fn format(ns: i64, digits: u8) -> String {
    let mut out = Vec::with_capacity(30);
    format_into(&mut out, ns, digits);
    String::from_utf8(out).unwrap_or_default()
}

fn digit_of(value: i64) -> u8 {
    b'0' + u8::try_from(value).unwrap_or(0) % 10
}

#[cfg(test)]
mod tests;
