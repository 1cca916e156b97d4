//! Tables of times, and properties of reading and writing them.

use super::*;

/// 2026-11-23T02:00:00Z.
const ARRIVAL_NS: i64 = 1_795_399_200_000_000_000;

fn check(text: &str, expected: &str) {
    let shown = match parse(text, ARRIVAL_NS) {
        Ok(time) => {
            let guessed = if time.flags.is_empty() {
                ""
            } else {
                " guessed"
            };
            format!("{}{guessed}", format(time.ns, time.digits))
        }
        Err(error) => format!("{error:?}"),
    };
    assert_eq!(shown, expected, "{text}");
}

#[test]
fn arrival_is_what_the_table_thinks() {
    assert_eq!(format(ARRIVAL_NS, 0), "2026-11-23T02:00:00Z");
}

#[test]
fn rfc_3339_and_its_relatives_are_read() {
    for (text, expected) in [
        ("2025-03-20T00:00:00Z", "2025-03-20T00:00:00Z"),
        (
            "2025-03-20T00:00:00.123456789Z",
            "2025-03-20T00:00:00.123456789Z",
        ),
        (
            "2025-03-20T00:00:00.1234567899Z",
            "2025-03-20T00:00:00.123456789Z",
        ),
        ("2025-03-20T00:00:00.120Z", "2025-03-20T00:00:00.120Z"),
        ("2025-03-20t00:00:00z", "2025-03-20T00:00:00Z"),
        ("2025-03-20 00:00:00", "2025-03-20T00:00:00Z"),
        ("2025-03-20T02:30:00+02:30", "2025-03-20T00:00:00Z"),
        ("2025-03-20T02:30:00.5+0230", "2025-03-20T00:00:00.5Z"),
        ("2025-03-20T02:00:00+02", "2025-03-20T00:00:00Z"),
        ("2025-03-19 23:00:00 -0100", "2025-03-20T00:00:00Z"),
        ("2025-03-20 00:00:00 UTC", "2025-03-20T00:00:00Z"),
        (
            "2025-03-20T02:00:00+02:00[Europe/Berlin]",
            "2025-03-20T00:00:00Z",
        ),
        ("2025-03-20T00:00", "2025-03-20T00:00:00Z"),
        ("2025/03/20 00:00:00", "2025-03-20T00:00:00Z"),
        ("2025-03-20", "2025-03-20T00:00:00Z"),
        ("  2025-03-20T00:00:00Z ", "2025-03-20T00:00:00Z"),
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z"),
        ("2016-12-31T23:59:60.5+00:00", "2017-01-01T00:00:00.5Z"),
        ("2024-02-29T00:00:00Z", "2024-02-29T00:00:00Z"),
        ("1969-12-31T23:59:59.999Z", "1969-12-31T23:59:59.999Z"),
        ("20171223T221529Z", "2017-12-23T22:15:29Z"),
        ("20171223T221529.25+0100", "2017-12-23T21:15:29.25Z"),
        ("20171223221529", "2017-12-23T22:15:29Z"),
        ("20171223221529606", "2017-12-23T22:15:29.606Z"),
        ("20171223", "2017-12-23T00:00:00Z"),
    ] {
        check(text, expected);
    }
}

#[test]
fn the_shapes_of_well_known_programs_are_read() {
    for (text, expected) in [
        ("10/Oct/2000:13:55:36 -0700", "2000-10-10T20:55:36Z"),
        ("2015-07-29 17:41:44,747", "2015-07-29T17:41:44.747Z"),
        ("Thu Jun 09 06:07:04 2005", "2005-06-09T06:07:04Z"),
        (
            "Thu Jun  9 06:07:04.123456 2005",
            "2005-06-09T06:07:04.123456Z",
        ),
        ("Thu Jun  9 06:07:04 UTC 2005", "2005-06-09T06:07:04Z"),
        ("Thu Jun  9 06:07:04 CEST 2005", "2005-06-09T04:07:04Z"),
        ("Thu, 09 Jun 2005 06:07:04 GMT", "2005-06-09T06:07:04Z"),
        ("Thu, 9 Jun 2005 06:07:04 +0200", "2005-06-09T04:07:04Z"),
        ("081109 203615", "2008-11-09T20:36:15Z"),
        ("20171223-22:15:29:606", "2017-12-23T22:15:29.606Z"),
        ("20171224-0:5:9:6", "2017-12-24T00:05:09.006Z"),
        ("29-Jul-2015 17:41:44.123", "2015-07-29T17:41:44.123Z"),
        ("Jul 29, 2015 5:41:44 PM", "2015-07-29T17:41:44Z"),
        ("7/29/2015 12:41:44 AM", "2015-07-29T00:41:44Z"),
        ("Nov 22 06:07:04", "2026-11-22T06:07:04Z guessed"),
        ("Nov  2 06:07:04.250", "2026-11-02T06:07:04.250Z guessed"),
        ("Jan  3 06:07:04", "2026-01-03T06:07:04Z guessed"),
        // A clock that is a little ahead of ours, and one that cannot be.
        ("Nov 23 06:07:04", "2026-11-23T06:07:04Z guessed"),
        ("Nov 26 06:07:04", "2025-11-26T06:07:04Z guessed"),
        ("Feb 29 06:07:04", "2024-02-29T06:07:04Z guessed"),
        ("Jun 14 15:16:01", "2026-06-14T15:16:01Z guessed"),
        ("Feb 30 00:00:00", "Unreadable"),
        ("Jun 14 2005 15:16:01", "2005-06-14T15:16:01Z"),
        (
            "I1122 15:04:05.123456",
            "2026-11-22T15:04:05.123456Z guessed",
        ),
    ] {
        check(text, expected);
    }
}

#[test]
fn unix_time_is_read_by_its_magnitude() {
    for (text, expected) in [
        ("0", "1970-01-01T00:00:00Z"),
        ("-1", "1969-12-31T23:59:59Z"),
        ("-1.5", "1969-12-31T23:59:58.5Z"),
        ("1521911070", "2018-03-24T17:04:30Z"),
        ("1521911070.996300", "2018-03-24T17:04:30.996300Z"),
        ("1521911070996", "2018-03-24T17:04:30.996Z"),
        ("1521911070996.3", "2018-03-24T17:04:30.9963Z"),
        ("1521911070996300", "2018-03-24T17:04:30.996300Z"),
        ("1521911070996300123", "2018-03-24T17:04:30.996300123Z"),
        ("1.521911070E9", "2018-03-24T17:04:30Z"),
        ("99999999999999999999", "OutOfRange"),
        ("1e300", "OutOfRange"),
    ] {
        check(text, expected);
    }
}

#[test]
fn times_outside_64_bits_and_nonsense_are_told_apart() {
    for (text, expected) in [
        (
            "2262-04-11T23:47:16.854775807Z",
            "2262-04-11T23:47:16.854775807Z",
        ),
        ("2262-04-11T23:47:16.854775808Z", "OutOfRange"),
        (
            "1677-09-21T00:12:43.145224192Z",
            "1677-09-21T00:12:43.145224192Z",
        ),
        ("1677-09-21T00:12:43.145224191Z", "OutOfRange"),
        ("9999-12-31T23:59:59Z", "OutOfRange"),
        ("0001-01-01T00:00:00Z", "OutOfRange"),
        ("", "Unreadable"),
        ("-", "Unreadable"),
        (".", "Unreadable"),
        ("e", "Unreadable"),
        ("yesterday", "Unreadable"),
        ("2025-13-01T00:00:00Z", "Unreadable"),
        ("2025-02-29T00:00:00Z", "Unreadable"),
        ("2025-03-20T24:00:00Z", "Unreadable"),
        ("2025-03-20T00:60:00Z", "Unreadable"),
        ("2025-03-20T00:00:61Z", "Unreadable"),
        ("2025-03-20T00:00:00Zx", "Unreadable"),
        ("2025-03-20T00:00:00.Z", "Unreadable"),
        ("10/11/2000 13:55:36", "Unreadable"),
        ("NaN", "Unreadable"),
    ] {
        check(text, expected);
    }
}

#[test]
fn a_prefix_takes_the_time_and_leaves_the_rest() {
    for (line, expected) in [
        ("2015-07-29 17:41:44,747 - INFO x", " - INFO x"),
        ("2015-07-29 17:41:44 -12 degrees", " -12 degrees"),
        ("2015-07-29T17:41:44Z: x", ": x"),
        ("Jun 14 15:16:01 combo sshd", " combo sshd"),
        ("Jun 14 15:16:01 2005 combo", " combo"),
        ("I0102 15:04:05.123456    1 x.go:1] m", "    1 x.go:1] m"),
        ("081109 203615 148 INFO", " 148 INFO"),
        ("20171223-22:15:29:606|Step", "|Step"),
        ("2015-07-29 17:41:44. Then", ". Then"),
    ] {
        let (_, len) = parse_prefix(line.as_bytes(), ARRIVAL_NS).unwrap();
        assert_eq!(&line[len..], expected, "{line}");
    }
    for line in ["hello", "2015", "Jun", "Monday 12", "12345 x", "I0102"] {
        assert_eq!(parse_prefix(line.as_bytes(), ARRIVAL_NS), None, "{line}");
    }
}

#[test]
fn every_day_is_read_as_it_is_written() {
    for day in (-106_751..106_751_i64).step_by(37) {
        let ns = day * 86_400 * NS_PER_SECOND + 12_345_678_901;
        assert_eq!(parse(&format(ns, 9), 0).map(|time| time.ns), Ok(ns));
    }
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(text in ".{0,40}", arrival_ns in proptest::num::i64::ANY) {
        parse(&text, arrival_ns).ok();
        parse_prefix(text.as_bytes(), arrival_ns);
    }

    #[test]
    fn what_it_writes_it_reads(ns in proptest::num::i64::ANY, digits in 0_u8..=9) {
        let unit = 10_i64.pow(9 - u32::from(digits));
        let ns = ns / unit * unit;
        proptest::prop_assert_eq!(parse(&format(ns, digits), 0), Ok(Time { ns, digits, flags: Flags::default() }));
    }

    #[test]
    fn mangled_times_do_not_make_it_panic(at in 0_usize..30, byte in 0_u8..128, arrival_ns in proptest::num::i64::ANY) {
        for text in ["2025-03-20T02:30:00.5+02:30 UTC", "Thu Jun  9 06:07:04 CEST 2005", "10/Oct/2000:13:55:36 -0700", "7/29/2015 12:41:44.5 AM"] {
            let mut bytes = text.as_bytes().to_vec();
            if let Some(place) = bytes.get_mut(at) { *place = byte; }
            if let Ok(text) = std::str::from_utf8(&bytes) { parse(text, arrival_ns).ok(); }
            parse_prefix(&bytes, arrival_ns);
        }
    }
}
