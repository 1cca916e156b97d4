//! Lines that begin with their time: log4j, logback, Python, nginx errors, HDFS, Hadoop, ZooKeeper, HealthApp, syslog files; with the time
//! in brackets: Apache errors, Kafka; klog; and the labelled lines of the large clusters (Thunderbird, BlueGene).

use crate::record::timestamp::{self, Time};
use crate::wire::native::text::{Found, level, syslog};

/// The time is the first thing on the line.
pub(super) fn time_first(line: &str, arrival_ns: i64) -> Option<Found<'_>> {
    let (time, len) = timestamp::parse_prefix(line.as_bytes(), arrival_ns)?;
    let rest = line.get(len..)?;
    // A month's name in front is how syslog writes; programs of other kinds write the level next.
    let is_syslog = line.starts_with(|c: char| c.is_ascii_uppercase());
    let level = level::after_time(rest);
    if (is_syslog || level.is_none())
        && let Some(found) = syslog_like(rest, time, is_syslog)
    {
        return Some(Found { level, ..found });
    }
    let mut found = Found {
        time: Some(time),
        level,
        ..Found::default()
    };
    // HealthApp: `time|component|pid|message`.
    if let Some(columns) = rest.strip_prefix('|') {
        let mut columns = columns.splitn(3, '|');
        if let (Some(component), Some(pid), Some(_)) =
            (columns.next(), columns.next(), columns.next())
        {
            found.source = Some(component);
            found.number_or_text("pid", pid);
        }
    }
    Some(found)
}

/// With an ISO time only `host app[pid]:` is taken for syslog, because anything may follow such a time.
fn syslog_like(rest: &str, time: Time, is_syslog: bool) -> Option<Found<'_>> {
    let found = syslog::after_time(rest, time)?;
    let has_pid = found.fields.iter().any(|(name, _)| name == "pid");
    (is_syslog || has_pid).then_some(found)
}

/// `[Thu Jun 09 06:07:04 2005] [error] …`, `[2016-12-19 16:31:47,437] INFO …`, `[ERROR] …`.
pub(super) fn bracketed(line: &str, arrival_ns: i64) -> Option<Found<'_>> {
    let inside = line.strip_prefix('[')?;
    let (time, len) = timestamp::parse_prefix(inside.as_bytes(), arrival_ns)?;
    let rest = inside.get(len..)?;
    Some(Found {
        time: Some(time),
        level: level::after_time(rest),
        ..Found::default()
    })
}

/// `I0102 15:04:05.123456   12345 file.go:67] message`.
pub(super) fn klog(line: &str, arrival_ns: i64) -> Option<Found<'_>> {
    let level = match line.as_bytes().first()? {
        b'I' => "INFO",
        b'W' => "WARNING",
        b'E' => "ERROR",
        b'F' => "FATAL",
        _ => return None,
    };
    if !line.as_bytes().get(1..5)?.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let (time, len) = timestamp::parse_prefix(line.as_bytes(), arrival_ns)?;
    let mut found = Found {
        time: Some(time),
        level: Some(level),
        ..Found::default()
    };
    let (head, _) = line.get(len..)?.split_once("] ").unwrap_or_default();
    let mut words = head.split_ascii_whitespace();
    if let (Some(thread), Some(place)) = (words.next(), words.next()) {
        found.number_or_text("thread", thread);
        found.text("caller", place);
    }
    Some(found)
}

/// `- 1131566461 2005.11.09 dn228 Nov 9 12:01:01 dn228/dn228 crond[2915]: …`: an alert label, Unix time, date, node, then a syslog line.
pub(super) fn labelled(line: &str, arrival_ns: i64) -> Option<Found<'_>> {
    let mut words = line.splitn(5, ' ');
    let (_label, unix, date, node, rest) = (
        words.next()?,
        words.next()?,
        words.next()?,
        words.next()?,
        words.next()?,
    );
    let is_date = date.len() == 10 && date.split('.').count() == 3;
    if !is_date || unix.len() != 10 {
        return None;
    }
    let time = timestamp::parse_unix(unix)?.ok()?;
    let syslog = timestamp::parse_prefix(rest.as_bytes(), arrival_ns)
        .and_then(|(_, len)| syslog::host_and_tag(rest.get(len..)?));
    let mut found = syslog.unwrap_or_default();
    found.time = Some(time);
    found.level = level::after_time(rest);
    if found.fields.is_empty() {
        found.text("host", node);
    }
    Some(found)
}
