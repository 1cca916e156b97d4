//! Which records of the naive store are too old, or too many. Decides; the store does.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::record::{SOURCE, ValueRef, key, timestamp};
use crate::store::memory::{Part, Stored};
use crate::store::{RetentionReport, RetentionRules};

/// What a clean-up leaves.
pub struct Plan {
    pub parts: Vec<Part>,
    pub freed_bytes: usize,
    pub report: RetentionReport,
}

pub fn plan(parts: &[Part], size_bytes: usize, rules: &RetentionRules, now_ns: i64) -> Plan {
    let mut details: BTreeMap<(String, String), (u64, u64)> = BTreeMap::new();
    let mut freed_bytes = 0;
    let mut goes = |stored: &Stored, rule: String| {
        let day = timestamp::format(stored.record.key.timestamp_ns, 0);
        let day = day.get(..10).unwrap_or(&day).to_owned();
        let detail = details.entry((rule, day)).or_default();
        detail.0 += 1;
        detail.1 += stored.size_bytes as u64;
        freed_bytes += stored.size_bytes;
    };
    let mut kept: Vec<Stored> = Vec::new();
    for stored in parts.iter().flat_map(|part| part.iter()) {
        match expired_by(stored, rules, now_ns) {
            Some(rule) => goes(stored, rule),
            None => kept.push(stored.clone()),
        }
    }
    if let Some(max) = rules.size_bytes_max {
        let kept_bytes: usize = kept.iter().map(|stored| stored.size_bytes).sum();
        let others = size_bytes.saturating_sub(parts_bytes(parts));
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        let mut excess = (kept_bytes + others).saturating_sub(max);
        kept.sort_by_key(|stored| stored.record.key);
        let mut n_gone = 0;
        for stored in &kept {
            if excess == 0 {
                break;
            }
            excess = excess.saturating_sub(stored.size_bytes);
            n_gone += 1;
            goes(stored, "size".to_owned());
        }
        kept.drain(..n_gone);
    }
    let report = RetentionReport {
        records: details.values().map(|(records, _)| records).sum(),
        bytes: freed_bytes as u64,
        segments_dropped: 0,
        segments_rewritten: 0,
        details: details
            .into_iter()
            .map(|((rule, day), (records, bytes))| (format!("{rule}, {day}"), records, bytes))
            .collect(),
    };
    Plan {
        parts: kept
            .chunks(super::PART_RECORDS)
            .map(|chunk| Arc::new(chunk.to_vec()))
            .collect(),
        freed_bytes,
        report,
    }
}

fn parts_bytes(parts: &[Part]) -> usize {
    let stored = parts.iter().flat_map(|part| part.iter());
    stored.map(|stored| stored.size_bytes).sum()
}

/// The rule by which the record is too old.
fn expired_by(stored: &Stored, rules: &RetentionRules, now_ns: i64) -> Option<String> {
    let source = stored
        .record
        .fields
        .iter()
        .find(|(name, _)| key::address(name) == SOURCE)
        .map(|(_, value)| value.as_value_ref());
    let source = match source {
        None | Some(ValueRef::Null) => "".into(),
        Some(value) => value.text(),
    };
    let by_source = rules
        .by_source
        .iter()
        .find(|(pattern, _)| fits(pattern, &source));
    let (rule, age_max) = match by_source {
        Some((pattern, age_max)) => (format!("source `{pattern}`"), (*age_max)?),
        None => ("age".to_owned(), rules.age_max?),
    };
    let age_max_ns = i64::try_from(age_max.as_nanos()).unwrap_or(i64::MAX);
    let since_ns = stored.record.key.timestamp_ns.max(stored.arrival_ns);
    (since_ns < now_ns.saturating_sub(age_max_ns)).then_some(rule)
}

/// `*` is any run of characters.
fn fits(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(first) else {
        return false;
    };
    let Some((middle, last)) = rest.rsplit_once('*') else {
        return text.ends_with(rest);
    };
    for piece in middle.split('*') {
        let Some(at) = text.find(piece) else {
            return false;
        };
        text = text.get(at + piece.len()..).unwrap_or_default();
    }
    text.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_run_of_characters() {
        for (pattern, text, expected) in [
            ("web", "web", true),
            ("web", "web1", false),
            ("web*", "web1", true),
            ("*web", "my-web", true),
            ("*", "", true),
            ("a*b*c", "a1b2c", true),
            ("a*b*c", "ac", false),
            ("a*a", "a", false),
            ("**", "x", true),
            ("a**b", "ab", true),
        ] {
            assert_eq!(fits(pattern, text), expected, "{pattern} {text}");
        }
    }
}
