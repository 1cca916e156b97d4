//! syslog: RFC 5424, and RFC 3164 as it is found in the wild, with or without the priority in front.
//!
//! The level is the severity's keyword, the source the application's name, or the host where there is no name.

use std::borrow::Cow;

use crate::record::timestamp::{self, Time};
use crate::wire::native::text::{FieldValue, Found};

const SEVERITIES: [&str; 8] = [
    "emerg", "alert", "crit", "err", "warning", "notice", "info", "debug",
];

/// A line that begins with `<PRI>`.
pub(super) fn with_priority(line: &str, arrival_ns: i64) -> Option<Found<'_>> {
    let (priority, rest) = line.strip_prefix('<')?.split_once('>')?;
    let number: usize = priority.parse().ok().filter(|n| *n < 192)?;
    if 3 < priority.len() {
        return None;
    }
    let level = SEVERITIES.get(number % 8).copied();
    let found = rfc_5424(rest, arrival_ns).or_else(|| {
        let (time, len) = timestamp::parse_prefix(rest.as_bytes(), arrival_ns)?;
        let mut found = host_and_tag(rest.get(len..)?).unwrap_or_default();
        found.time = Some(time);
        Some(found)
    });
    let mut found = found.unwrap_or_default();
    found.level = level;
    Some(found)
}

/// `1 2003-10-11T22:14:15.003Z host app procid msgid [data] message`.
fn rfc_5424(rest: &str, arrival_ns: i64) -> Option<Found<'_>> {
    let mut words = rest.strip_prefix("1 ")?.splitn(6, ' ');
    let (time, host, app) = (words.next()?, words.next()?, words.next()?);
    let (process, id, data) = (words.next()?, words.next()?, words.next().unwrap_or(""));
    let mut found = Found::default();
    if time != "-" {
        found.time = timestamp::parse(time, arrival_ns).ok();
        if found.time.is_none() {
            found.text("syslog_time", time);
        }
    }
    found.source = [app, host].into_iter().find(|name| *name != "-");
    for (name, value) in [("host", host), ("pid", process), ("msgid", id)] {
        if value != "-" {
            found.number_or_text(name, value);
        }
    }
    structured_data(data, &mut found);
    Some(found)
}

/// `[id a="1" b="\"x\""][other c="2"]`: each parameter is a field `id.name`.
fn structured_data<'a>(mut data: &'a str, found: &mut Found<'a>) {
    while let Some(inside) = data.strip_prefix('[') {
        let len = inside.find([' ', ']']).unwrap_or(inside.len());
        let Some((id, mut rest)) = inside.split_at_checked(len) else {
            return;
        };
        while let Some(parameter) = rest.strip_prefix(' ') {
            let Some((name, value_text)) = parameter.split_once("=\"") else {
                return;
            };
            let Some((value, behind)) = parameter_value(value_text) else {
                return;
            };
            let name = Cow::Owned(format!("{id}.{name}"));
            found.fields.push((name, FieldValue::Text(value)));
            rest = behind;
        }
        match rest.strip_prefix(']') {
            Some(behind) => data = behind,
            None => return,
        }
    }
}

fn parameter_value(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let mut value = String::new();
    let mut is_plain = true;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => {
                let rest = text.get(at + 1..)?;
                let plain = text.get(..at)?;
                let value = if is_plain {
                    Cow::Borrowed(plain)
                } else {
                    Cow::Owned(value)
                };
                return Some((value, rest));
            }
            '\\' => {
                is_plain = false;
                let next = chars.next()?.1;
                if !matches!(next, '"' | '\\' | ']') {
                    value.push('\\');
                }
                value.push(next);
            }
            _ => value.push(c),
        }
    }
    None
}

/// What follows the time of RFC 3164: ` host app[pid]: message`, ` host app: message`.
pub(super) fn host_and_tag(rest: &str) -> Option<Found<'_>> {
    let rest = rest.strip_prefix(' ')?;
    let (host, rest) = rest.split_once(' ')?;
    if host.is_empty() || host.ends_with(':') || host.starts_with(['[', '-', '|']) {
        return None;
    }
    let mut found = Found::default();
    found.text("host", host);
    let rest = rest.trim_start();
    // Some programs put dashes or their version into the tag: `-- root[1]:`, `syslogd 1.4.1:`.
    let colon = rest.find(':').filter(|colon| *colon <= 64)?;
    let tag = rest.get(..colon)?.trim_start_matches(['-', ' ']);
    let len = tag.find(['[', ' ']).unwrap_or(tag.len());
    let app = tag.get(..len)?;
    if let Some(pid) = tag
        .get(len..)?
        .strip_prefix('[')
        .and_then(|pid| pid.strip_suffix(']'))
    {
        found.number_or_text("pid", pid);
    }
    found.source = Some(if app.is_empty() { host } else { app });
    Some(found)
}

/// A line that begins with a time as syslog writes it.
pub(super) fn after_time(rest: &str, time: Time) -> Option<Found<'_>> {
    let mut found = host_and_tag(rest)?;
    found.time = Some(time);
    Some(found)
}
