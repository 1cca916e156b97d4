//! The less common shapes of a time, each read from the start of a line of bytes. Nothing here knows what follows the time.

use crate::record::timestamp::{
    Civil, NS_PER_SECOND, SECONDS_PER_DAY, Time, TimeError, civil_from_days, fraction_of,
};
use crate::record::value::Flags;

type Found = Option<(Result<Time, TimeError>, usize)>;

/// Any shape that has a date and a time of day.
pub(super) fn parse_prefix(bytes: &[u8], arrival_ns: i64) -> Found {
    let first = *bytes.first()?;
    if first.is_ascii_digit() {
        return iso(bytes)
            .or_else(|| compact_date(bytes))
            .or_else(|| day_month_year(bytes))
            .or_else(|| american(bytes))
            .or_else(|| hdfs(bytes));
    }
    if first.is_ascii_alphabetic() {
        return klog(bytes, arrival_ns)
            .or_else(|| month_first(bytes, arrival_ns))
            .or_else(|| weekday_first(bytes, arrival_ns));
    }
    None
}

/// `2015-07-29T17:41:44,747+02:00` and all that differ in `-`/`/`/`.`, `T`/blank/`_`/`-`, `.`/`,`, zone or none.
fn iso(bytes: &[u8]) -> Found {
    let mut c = Cursor::new(bytes);
    let year = c.fixed(4)?;
    let separator = c.one_of(b"-/.")?;
    let month = c.number(1, 2)?;
    c.byte(separator)?;
    let day = c.number(1, 2)?;
    c.one_of(b"Tt _-:")?;
    let (hour, minute, second) = c.time_of_day()?;
    let (fraction_ns, digits) = c.fraction()?;
    let offset_s = c.zone();
    let civil = Civil {
        year,
        month,
        day,
        hour,
        minute,
        second,
    };
    Some((civil.to_time(offset_s, fraction_ns, digits), c.at))
}

/// `2015-07-29`, `2015/07/29`: midnight.
pub(super) fn date_only(bytes: &[u8]) -> Found {
    let mut c = Cursor::new(bytes);
    let year = c.fixed(4)?;
    let separator = c.one_of(b"-/.")?;
    let month = c.fixed(2)?;
    c.byte(separator)?;
    let day = c.fixed(2)?;
    Some((midnight(year, month, day).to_time(0, 0, 0), c.at))
}

/// A text of 8, 14 or 17 digits that is a date in this or the last century: `20171223`, `20171223221529`, `20171223221529606`.
pub(super) fn compact_digits(bytes: &[u8]) -> Option<Result<Time, TimeError>> {
    if !matches!(bytes.len(), 8 | 14 | 17)
        || !(bytes.starts_with(b"19") || bytes.starts_with(b"20"))
        || !bytes.iter().all(u8::is_ascii_digit)
    {
        return None;
    }
    let mut c = Cursor::new(bytes);
    let mut civil = midnight(c.fixed(4)?, c.fixed(2)?, c.fixed(2)?);
    let (mut fraction_ns, mut digits) = (0, 0);
    if 14 <= bytes.len() {
        (civil.hour, civil.minute, civil.second) = (c.fixed(2)?, c.fixed(2)?, c.fixed(2)?);
    }
    if bytes.len() == 17 {
        (fraction_ns, digits) = (c.fixed(3)? * 1_000_000, 3);
    }
    civil
        .is_valid()
        .then(|| civil.to_time(0, fraction_ns, digits))
}

/// `20171223-22:15:29:606` (HealthApp: parts without leading zeros, milliseconds after a colon), `20171223T221529.606Z`.
fn compact_date(bytes: &[u8]) -> Found {
    let mut c = Cursor::new(bytes);
    let (year, month, day) = (c.fixed(4)?, c.fixed(2)?, c.fixed(2)?);
    let separator = c.one_of(b"-Tt _")?;
    if let Some(found) = basic_time(Cursor { bytes, at: c.at }, midnight(year, month, day)) {
        return Some(found);
    }
    let (hour, minute, second) = c.time_of_day()?;
    let civil = Civil {
        year,
        month,
        day,
        hour,
        minute,
        second,
    };
    let mark = c.at;
    if separator == b'-'
        && c.byte(b':').is_some()
        && let Some(ms) = c.number(1, 3)
    {
        return Some((civil.to_time(0, ms * 1_000_000, 3), c.at));
    }
    c.at = mark;
    let (fraction_ns, digits) = c.fraction()?;
    let offset_s = c.zone();
    Some((civil.to_time(offset_s, fraction_ns, digits), c.at))
}

/// The `221529.606Z` of ISO 8601's basic form.
fn basic_time(mut c: Cursor<'_>, mut civil: Civil) -> Found {
    (civil.hour, civil.minute, civil.second) = (c.fixed(2)?, c.fixed(2)?, c.fixed(2)?);
    let (fraction_ns, digits) = c.fraction()?;
    let offset_s = c.zone();
    c.ends_a_word()?;
    Some((civil.to_time(offset_s, fraction_ns, digits), c.at))
}

/// `10/Oct/2000:13:55:36 -0700`, `29-Jul-2015 17:41:44.123`, `29 Jul 2015 17:41:44 GMT`.
fn day_month_year(bytes: &[u8]) -> Found {
    let mut c = Cursor::new(bytes);
    let day = c.number(1, 2)?;
    let separator = c.one_of(b"/- ")?;
    let month = c.month()?;
    c.byte(separator)?;
    let year = c.fixed(4)?;
    c.one_of(b": T")?;
    let (hour, minute, second) = c.time_of_day()?;
    let (fraction_ns, digits) = c.fraction()?;
    let offset_s = c.zone();
    let civil = Civil {
        year,
        month,
        day,
        hour,
        minute,
        second,
    };
    Some((civil.to_time(offset_s, fraction_ns, digits), c.at))
}

/// `7/29/2015 5:41:44 PM`. Only with AM or PM: without, nobody can tell the month from the day.
fn american(bytes: &[u8]) -> Found {
    let mut c = Cursor::new(bytes);
    let month = c.number(1, 2)?;
    c.byte(b'/')?;
    let day = c.number(1, 2)?;
    c.byte(b'/')?;
    let year = c.fixed(4)?;
    c.skip(b',');
    c.byte(b' ')?;
    let (hour, minute, second) = c.time_of_day()?;
    let (fraction_ns, digits) = c.fraction()?;
    let hour = c.half_day(hour)??;
    let civil = Civil {
        year,
        month,
        day,
        hour,
        minute,
        second,
    };
    Some((civil.to_time(0, fraction_ns, digits), c.at))
}

/// `081109 203615`: two digits each from the year on.
fn hdfs(bytes: &[u8]) -> Found {
    let mut c = Cursor::new(bytes);
    let (year, month, day) = (c.fixed(2)?, c.fixed(2)?, c.fixed(2)?);
    c.byte(b' ')?;
    let (hour, minute, second) = (c.fixed(2)?, c.fixed(2)?, c.fixed(2)?);
    c.ends_a_word()?;
    let civil = Civil {
        year: if year < 70 { 2000 + year } else { 1900 + year },
        month,
        day,
        hour,
        minute,
        second,
    };
    civil.is_valid().then(|| (civil.to_time(0, 0, 0), c.at))
}

/// `I0102 15:04:05.123456`: severity, month and day; no year.
fn klog(bytes: &[u8], arrival_ns: i64) -> Found {
    let mut c = Cursor::new(bytes);
    c.one_of(b"IWEF")?;
    let (month, day) = (c.fixed(2)?, c.fixed(2)?);
    c.byte(b' ')?;
    let (hour, minute, second) = c.time_of_day()?;
    let (fraction_ns, digits) = c.fraction()?;
    let civil = Civil {
        year: 0,
        month,
        day,
        hour,
        minute,
        second,
    };
    Some((
        with_latest_year(civil, fraction_ns, digits, arrival_ns),
        c.at,
    ))
}

/// `Jun  9 06:07:04` (the year is guessed), `Jun 9 2005 06:07:04`, `Jun 9, 2005 6:07:04 PM`, `Jun 9 06:07:04 2005`.
fn month_first(bytes: &[u8], arrival_ns: i64) -> Found {
    let mut c = Cursor::new(bytes);
    let month = c.month()?;
    c.byte(b' ')?;
    c.skip(b' ');
    let day = c.number(1, 2)?;
    let has_comma = c.skip(b',');
    c.byte(b' ')?;
    let mark = c.at;
    let mut year = c.fixed(4).filter(|_| c.byte(b' ').is_some());
    if year.is_none() {
        c.at = mark;
        if has_comma {
            return None;
        }
    }
    let (hour, minute, second) = c.time_of_day()?;
    let (fraction_ns, digits) = c.fraction()?;
    let hour = c.half_day(hour)?.unwrap_or(hour);
    let mut offset_s = c.zone();
    if year.is_none() {
        year = c.year_after();
        if year.is_some() && offset_s == 0 {
            offset_s = c.zone();
        }
    }
    let civil = Civil {
        year: year.unwrap_or(0),
        month,
        day,
        hour,
        minute,
        second,
    };
    let time = match year {
        Some(_) => civil.to_time(offset_s, fraction_ns, digits),
        None => with_latest_year(
            civil,
            fraction_ns - offset_s * NS_PER_SECOND,
            digits,
            arrival_ns,
        ),
    };
    Some((time, c.at))
}

/// `Thu Jun 09 06:07:04 2005`, `Thu, 09 Jun 2005 06:07:04 +0200`.
fn weekday_first(bytes: &[u8], arrival_ns: i64) -> Found {
    const DAYS: [&[u8; 3]; 7] = [b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun"];
    let name = bytes.first_chunk::<3>()?;
    DAYS.iter().find(|day| *day == &name)?;
    let mut c = Cursor { bytes, at: 3 };
    c.skip(b',');
    c.byte(b' ')?;
    let rest = bytes.get(c.at..)?;
    let (time, len) = month_first(rest, arrival_ns).or_else(|| day_month_year(rest))?;
    Some((time, c.at + len))
}

fn midnight(year: i64, month: i64, day: i64) -> Civil {
    Civil {
        year,
        month,
        day,
        hour: 0,
        minute: 0,
        second: 0,
    }
}

/// A clock may go so far ahead of ours before a time without a year is taken for one of last year.
const AHEAD_NS_MAX: i64 = 2 * SECONDS_PER_DAY * NS_PER_SECOND;

/// Takes the newest year in which the time is not in the future: logs tell what has happened.
fn with_latest_year(
    civil: Civil,
    fraction_ns: i64,
    digits: u8,
    arrival_ns: i64,
) -> Result<Time, TimeError> {
    let arrival_days = arrival_ns.div_euclid(NS_PER_SECOND * SECONDS_PER_DAY);
    let (arrival_year, _, _) = civil_from_days(arrival_days);
    let latest_ns = arrival_ns.saturating_add(AHEAD_NS_MAX);
    // The 29th of February may be up to eight years ago.
    let mut time = (arrival_year - 8..=arrival_year + 1)
        .rev()
        .filter_map(|year| {
            (Civil { year, ..civil })
                .to_time(0, fraction_ns, digits)
                .ok()
        })
        .find(|time| time.ns <= latest_ns)
        .ok_or(TimeError::Unreadable)?;
    time.flags = Flags::TIMESTAMP_YEAR_GUESSED;
    Ok(time)
}

/// Reads small pieces; `None` leaves the cursor where it was or the whole attempt is given up.
#[derive(Clone, Copy)]
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    fn byte(&mut self, wanted: u8) -> Option<()> {
        (self.peek()? == wanted).then(|| self.at += 1)
    }

    fn skip(&mut self, byte: u8) -> bool {
        self.byte(byte).is_some()
    }

    fn one_of(&mut self, wanted: &[u8]) -> Option<u8> {
        let byte = self.peek()?;
        wanted.contains(&byte).then(|| {
            self.at += 1;
            byte
        })
    }

    /// Between `min` and `max` digits, as many as there are.
    fn number(&mut self, min: usize, max: usize) -> Option<i64> {
        let digits = self
            .rest()
            .iter()
            .take(max)
            .take_while(|b| b.is_ascii_digit());
        let mut value = 0;
        let mut count = 0;
        for digit in digits {
            value = value * 10 + i64::from(digit - b'0');
            count += 1;
        }
        (min <= count).then(|| {
            self.at += count;
            value
        })
    }

    fn fixed(&mut self, count: usize) -> Option<i64> {
        self.number(count, count)
    }

    fn month(&mut self) -> Option<i64> {
        const MONTHS: [&[u8; 3]; 12] = [
            b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov",
            b"dec",
        ];
        let name = self.rest().first_chunk::<3>()?.to_ascii_lowercase();
        let index = MONTHS.iter().position(|month| month[..] == name[..])?;
        self.at += 3;
        i64::try_from(index + 1).ok()
    }

    /// `17:41:44` or `17:41`; parts may lack their leading zero.
    fn time_of_day(&mut self) -> Option<(i64, i64, i64)> {
        let hour = self.number(1, 2)?;
        self.byte(b':')?;
        let minute = self.number(1, 2)?;
        let mark = self.at;
        let second = self.byte(b':').and_then(|()| self.number(1, 2));
        if second.is_none() {
            self.at = mark;
        }
        Some((hour, minute, second.unwrap_or(0)))
    }

    /// `.747` or `,747` if it is there. `None` only for a separator and digits that cannot be a fraction.
    fn fraction(&mut self) -> Option<(i64, u8)> {
        if !matches!(self.peek(), Some(b'.' | b',')) {
            return Some((0, 0));
        }
        let digits = self.bytes.get(self.at + 1..).unwrap_or_default();
        let len = digits.iter().take_while(|b| b.is_ascii_digit()).count();
        let Some(found) = digits.get(..len).and_then(fraction_of) else {
            // A full stop or comma of the sentence.
            return Some((0, 0));
        };
        self.at += 1 + len;
        Some(found)
    }

    /// `AM` or `PM` if it is there, applied to the hour; the outer `None` is an hour that has no half.
    #[expect(clippy::option_option, reason = "absent and wrong are two outcomes")]
    fn half_day(&mut self, hour: i64) -> Option<Option<i64>> {
        let mut ahead = *self;
        ahead.skip(b' ');
        let half = match ahead.rest().first_chunk::<2>() {
            Some([b'A' | b'a', b'M' | b'm']) => 0,
            Some([b'P' | b'p', b'M' | b'm']) => 12,
            _ => return Some(None),
        };
        ahead.at += 2;
        if ahead.ends_a_word().is_none() {
            return Some(None);
        }
        *self = ahead;
        (1..=12).contains(&hour).then_some(Some(hour % 12 + half))
    }

    /// Seconds east of UTC; 0 and nothing taken where there is no zone.
    fn zone(&mut self) -> i64 {
        let mut ahead = *self;
        ahead.skip(b' ');
        let had_blank = ahead.at != self.at;
        if let Some(offset_s) = ahead.zone_name() {
            *self = ahead;
            return offset_s;
        }
        let Some(sign) = ahead.one_of(b"+-") else {
            return 0;
        };
        let Some(hours) = ahead.fixed(2) else {
            return 0;
        };
        let colon = ahead.skip(b':');
        let minutes = ahead.fixed(2);
        // `12:00:00 -12 …` is a time and a number; `12:00:00+02` is a time with a zone.
        if (minutes.is_none() && (had_blank || colon))
            || ahead.ends_a_word().is_none()
            || 23 < hours
        {
            return 0;
        }
        *self = ahead;
        let offset_s = hours * 3600 + minutes.unwrap_or(0) * 60;
        if sign == b'-' { -offset_s } else { offset_s }
    }

    fn zone_name(&mut self) -> Option<i64> {
        const NAMES: [(&[u8], i64); 14] = [
            (b"Z", 0),
            (b"z", 0),
            (b"UTC", 0),
            (b"GMT", 0),
            (b"EST", -5),
            (b"EDT", -4),
            (b"CST", -6),
            (b"CDT", -5),
            (b"MST", -7),
            (b"MDT", -6),
            (b"PST", -8),
            (b"PDT", -7),
            (b"CET", 1),
            (b"CEST", 2),
        ];
        let len = self
            .rest()
            .iter()
            .take_while(|b| b.is_ascii_alphabetic())
            .count();
        let name = self.rest().get(..len)?;
        let (_, hours) = NAMES.iter().find(|(known, _)| *known == name)?;
        self.at += len;
        self.ends_a_word()?;
        Some(hours * 3600)
    }

    /// The ` 2005` after a time of day.
    fn year_after(&mut self) -> Option<i64> {
        let mut ahead = *self;
        ahead.byte(b' ')?;
        let year = ahead.fixed(4).filter(|year| (1900..2300).contains(year))?;
        ahead.ends_a_word()?;
        *self = ahead;
        Some(year)
    }

    /// True at the end and before anything but a letter or digit.
    fn ends_a_word(&self) -> Option<()> {
        let goes_on = self.peek().is_some_and(|b| b.is_ascii_alphanumeric());
        (!goes_on).then_some(())
    }
}
