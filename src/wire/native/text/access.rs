//! Access logs of web servers: common and combined format, with or without a virtual host in front. They carry no level and get none.

use crate::record::timestamp;
use crate::wire::native::text::Found;

/// `host ident user [time] "request" status bytes`, then perhaps `"referrer" "user agent"`.
pub(super) fn read(line: &str, arrival_ns: i64) -> Option<Found<'_>> {
    let bytes = line.as_bytes();
    let bracket = memchr::memchr(b'[', bytes.get(..bytes.len().min(512))?)?;
    let (head, rest) = line.split_at_checked(bracket)?;
    let rest = rest.get(1..)?;
    let (time, len) = timestamp::parse_prefix(rest.as_bytes(), arrival_ns)?;
    let rest = rest.get(len..)?.strip_prefix("] \"")?;
    let mut words = head.split_ascii_whitespace().rev();
    let (user, _ident, client) = (words.next()?, words.next()?, words.next()?);
    let (request, rest) = quoted(rest)?;
    let mut rest_words = rest.trim_start().splitn(3, ' ');
    let status = rest_words.next()?;
    if status != "-" && (status.len() != 3 || !status.bytes().all(|b| b.is_ascii_digit())) {
        return None;
    }
    let mut found = Found {
        time: Some(time),
        ..Found::default()
    };
    found.text("client_ip", client);
    if user != "-" {
        found.text("user", user);
    }
    let mut parts = request.splitn(3, ' ');
    if let (Some(method), Some(path)) = (parts.next(), parts.next()) {
        found.text("method", method);
        found.text("path", path);
        if let Some(protocol) = parts.next() {
            found.text("protocol", protocol);
        }
    }
    found.number_or_text("status", status);
    if let Some(size) = rest_words.next().filter(|size| *size != "-") {
        found.number_or_text("bytes", size);
    }
    if let Some((referrer, rest)) = rest_words
        .next()
        .and_then(|rest| quoted(rest.trim_start().strip_prefix('"')?))
    {
        if referrer != "-" {
            found.text("referrer", referrer);
        }
        if let Some((agent, _)) = rest.trim_start().strip_prefix('"').and_then(quoted)
            && agent != "-"
        {
            found.text("user_agent", agent);
        }
    }
    Some(found)
}

/// What stands before the closing quote, and what behind it; `\"` does not close. A quote that never closes takes the rest.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let bytes = text.as_bytes();
    let mut at = 0;
    loop {
        let Some(stop) = memchr::memchr2(b'"', b'\\', bytes.get(at..)?) else {
            return Some((text, ""));
        };
        at += stop;
        if bytes.get(at) == Some(&b'"') {
            return Some((text.get(..at)?, text.get(at + 1..)?));
        }
        at += 2;
    }
}
