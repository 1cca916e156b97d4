//! Answers of the store → the JSON of the native API, without `took_ms`. Pure functions.

use crate::api::interval;
use crate::common::error::Result;
use crate::query::{
    Aggregate, FieldsAnswer, GroupBy, Histogram, HistogramBucket, SearchAnswer, StatsAnswer,
    TimeRange, Total,
};
use crate::record::{DeadLetter, Record, Value, timestamp};
use crate::store::DeadLetterPage;
use crate::wire::json_text::{push_string, push_value};
use crate::wire::native::encode::push_record;

/// Stands for records without the field that splits a histogram, and for values beyond the most frequent ones.
pub const OTHER: &str = "(other)";

/// Which fields of records are written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fields(pub Option<Vec<String>>);

impl Fields {
    /// An address includes what is nested under it.
    pub fn wants(&self, address: &str) -> bool {
        let Some(wanted) = &self.0 else {
            return true;
        };
        wanted.iter().any(|wanted| {
            let rest = address.strip_prefix(wanted.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    }
}

pub fn search(answer: &SearchAnswer, fields: &Fields) -> Vec<u8> {
    let mut out = Vec::with_capacity(512 * answer.records.len() + 128);
    out.extend_from_slice(b"{\"logs\":");
    push_records(&mut out, answer.records.iter(), fields);
    if let Some(total) = answer.total {
        out.extend_from_slice(b",\"total\":");
        push_total(&mut out, total);
    }
    out.extend_from_slice(b",\"next_cursor\":");
    push_cursor(
        &mut out,
        answer
            .records
            .last()
            .filter(|_| answer.has_more)
            .map(|record| record.key.to_id()),
    );
    push_partial(&mut out, &answer.partial_reasons);
    out.push(b'}');
    out
}

/// `{"before", "log", "after"}`, all in order of time.
pub fn context(before: &SearchAnswer, record: &Record, after: &SearchAnswer) -> Vec<u8> {
    let all = Fields::default();
    let mut out = Vec::with_capacity(4096);
    out.extend_from_slice(b"{\"before\":");
    push_records(&mut out, before.records.iter().rev(), &all);
    out.extend_from_slice(b",\"log\":");
    push_record(&mut out, record, |_| true);
    out.extend_from_slice(b",\"after\":");
    push_records(&mut out, after.records.iter(), &all);
    let reasons = [before.partial_reasons.as_slice(), &after.partial_reasons].concat();
    push_partial(&mut out, &reasons);
    out.push(b'}');
    out
}

/// Empty buckets are filled in over `range`, or from the first to the last bucket where the range is open.
pub fn histogram(
    answer: &Histogram,
    range: &TimeRange,
    interval_ns: i64,
    is_split: bool,
) -> Result<Vec<u8>> {
    let first = answer.buckets.first().map(|bucket| bucket.start_ns);
    let last = answer
        .buckets
        .last()
        .map(|bucket| bucket.start_ns.saturating_add(1));
    let starts = match (range.start_ns.or(first), range.end_ns.or(last)) {
        (Some(start), Some(end)) => interval::bucket_starts(start, end, interval_ns)?,
        _ => Vec::new(),
    };
    let mut out = Vec::with_capacity(64 * starts.len() + 128);
    out.extend_from_slice(
        format!(
            "{{\"interval_ms\":{},\"buckets\":[",
            milliseconds(interval_ns)
        )
        .as_bytes(),
    );
    let mut filled = answer.buckets.iter().peekable();
    for (index, start_ns) in starts.into_iter().enumerate() {
        let bucket = filled.next_if(|bucket| bucket.start_ns <= start_ns);
        let empty = HistogramBucket {
            start_ns,
            count: 0,
            by: Vec::new(),
        };
        push_comma(&mut out, index);
        push_bucket(&mut out, bucket.unwrap_or(&empty), is_split);
    }
    out.extend_from_slice(format!("],\"total\":{}", answer.total).as_bytes());
    push_partial(&mut out, &answer.partial_reasons);
    out.push(b'}');
    Ok(out)
}

fn push_bucket(out: &mut Vec<u8>, bucket: &HistogramBucket, is_split: bool) {
    out.extend_from_slice(b"{\"start\":");
    push_time(out, bucket.start_ns);
    out.extend_from_slice(format!(",\"count\":{}", bucket.count).as_bytes());
    if is_split {
        out.extend_from_slice(b",\"by\":{");
        for (index, (value, count)) in bucket.by.iter().filter(|(_, count)| 0 < *count).enumerate()
        {
            push_comma(out, index);
            push_string(out, value.as_deref().unwrap_or(OTHER));
            out.extend_from_slice(format!(":{count}").as_bytes());
        }
        out.push(b'}');
    }
    out.push(b'}');
}

/// Whole milliseconds where possible: `0.5` for half of one.
fn milliseconds(interval_ns: i64) -> String {
    match interval_ns % 1_000_000 {
        0 => (interval_ns / 1_000_000).to_string(),
        _ => (interval_ns as f64 / 1e6).to_string(),
    }
}

pub fn fields(answer: &FieldsAnswer) -> Vec<u8> {
    let mut out = Vec::with_capacity(256 * answer.fields.len() + 128);
    out.extend_from_slice(b"{\"fields\":[");
    for (index, field) in answer.fields.iter().enumerate() {
        push_comma(&mut out, index);
        out.extend_from_slice(b"{\"name\":");
        push_string(&mut out, &field.name);
        out.extend_from_slice(b",\"types\":[");
        for (index, ty) in field.types.iter().enumerate() {
            push_comma(&mut out, index);
            push_string(&mut out, ty.name());
        }
        let counts = format!(
            "],\"count\":{},\"distinct\":{},\"distinct_is_exact\":{},\"top\":[",
            field.count, field.distinct, field.is_distinct_exact
        );
        out.extend_from_slice(counts.as_bytes());
        for (index, (value, count)) in field.top.iter().enumerate() {
            push_comma(&mut out, index);
            out.extend_from_slice(b"{\"value\":");
            push_value(&mut out, value.as_value_ref());
            out.extend_from_slice(format!(",\"count\":{count}}}").as_bytes());
        }
        out.extend_from_slice(b"]}");
    }
    out.extend_from_slice(format!("],\"total\":{}", answer.total).as_bytes());
    push_partial(&mut out, &answer.partial_reasons);
    out.push(b'}');
    out
}

/// `names` are those of `by` as they were asked for.
pub fn stats(
    answer: &StatsAnswer,
    names: &[String],
    by: &[GroupBy],
    aggregates: &[Aggregate],
) -> Vec<u8> {
    let mut out = Vec::with_capacity(128 * answer.groups.len() + 128);
    out.extend_from_slice(b"{\"groups\":[");
    for (index, group) in answer.groups.iter().enumerate() {
        push_comma(&mut out, index);
        out.extend_from_slice(b"{\"by\":{");
        for (index, ((name, by), value)) in names.iter().zip(by).zip(&group.by).enumerate() {
            push_comma(&mut out, index);
            push_string(&mut out, name);
            out.push(b':');
            match (by, value) {
                (GroupBy::Time(_), Value::Int(ns)) => push_time(&mut out, *ns),
                (GroupBy::Time(_) | GroupBy::Field(_), value) => {
                    push_value(&mut out, value.as_value_ref());
                }
            }
        }
        out.push(b'}');
        for (aggregate, value) in aggregates.iter().zip(&group.values) {
            out.push(b',');
            push_string(&mut out, &aggregate.label);
            out.push(b':');
            push_value(&mut out, value.as_value_ref());
        }
        out.push(b'}');
    }
    out.extend_from_slice(
        format!("],\"total_groups\":{},\"approximate\":[", answer.n_groups).as_bytes(),
    );
    for (index, label) in answer.approximate.iter().enumerate() {
        push_comma(&mut out, index);
        push_string(&mut out, label);
    }
    out.push(b']');
    push_partial(&mut out, &answer.partial_reasons);
    out.push(b'}');
    out
}

pub fn dead_letters(page: &DeadLetterPage) -> Vec<u8> {
    let mut out = Vec::with_capacity(512 * page.letters.len() + 128);
    out.extend_from_slice(b"{\"dead_letters\":[");
    for (index, letter) in page.letters.iter().enumerate() {
        push_comma(&mut out, index);
        push_dead_letter(&mut out, letter);
    }
    out.extend_from_slice(b"],\"total\":");
    let total = Total {
        value: page.total,
        is_exact: true,
    };
    push_total(&mut out, total);
    out.extend_from_slice(b",\"next_cursor\":");
    push_cursor(
        &mut out,
        page.letters
            .last()
            .filter(|_| page.has_more)
            .map(|letter| letter.position.to_text()),
    );
    out.push(b'}');
    out
}

fn push_dead_letter(out: &mut Vec<u8>, letter: &DeadLetter) {
    out.extend_from_slice(b"{\"id\":");
    push_string(out, &letter.position.to_text());
    out.extend_from_slice(b",\"timestamp\":");
    push_time(out, letter.arrival_ns);
    for (name, text) in [("code", &letter.code), ("reason", &letter.reason)] {
        out.extend_from_slice(format!(",\"{name}\":").as_bytes());
        push_string(out, text);
    }
    out.extend_from_slice(b",\"source\":");
    match &letter.source {
        Some(source) => push_string(out, source),
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b",\"raw\":");
    push_string(out, &String::from_utf8_lossy(&letter.raw));
    out.extend_from_slice(format!(",\"raw_bytes\":{}}}", letter.raw.len()).as_bytes());
}

fn push_records<'a>(out: &mut Vec<u8>, records: impl Iterator<Item = &'a Record>, fields: &Fields) {
    out.push(b'[');
    for (index, record) in records.enumerate() {
        push_comma(out, index);
        push_record(out, record, |address| fields.wants(address));
    }
    out.push(b']');
}

fn push_total(out: &mut Vec<u8>, total: Total) {
    let relation = if total.is_exact { "eq" } else { "gte" };
    out.extend_from_slice(
        format!("{{\"value\":{},\"relation\":\"{relation}\"}}", total.value).as_bytes(),
    );
}

fn push_cursor(out: &mut Vec<u8>, cursor: Option<String>) {
    match cursor {
        Some(cursor) => push_string(out, &cursor),
        None => out.extend_from_slice(b"null"),
    }
}

fn push_partial(out: &mut Vec<u8>, reasons: &[String]) {
    if reasons.is_empty() {
        out.extend_from_slice(b",\"partial\":false");
        return;
    }
    out.extend_from_slice(b",\"partial\":true,\"partial_reasons\":[");
    for (index, reason) in reasons.iter().enumerate() {
        push_comma(out, index);
        push_string(out, reason);
    }
    out.push(b']');
}

fn push_time(out: &mut Vec<u8>, ns: i64) {
    let digits = match ns.rem_euclid(1_000_000_000) {
        0 => 0,
        rest if rest % 1_000_000 == 0 => 3,
        rest if rest % 1000 == 0 => 6,
        _ => 9,
    };
    out.push(b'"');
    timestamp::format_into(out, ns, digits);
    out.push(b'"');
}

fn push_comma(out: &mut Vec<u8>, index: usize) {
    if 0 < index {
        out.push(b',');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::{AggregateKind, FieldSummary, Group};
    use crate::record::value::{Flags, ValueType};
    use crate::record::{Position, RecordKey};

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    fn record(seq: u64, fields: &[(&str, Value)]) -> Record {
        let position = Position { partition: 0, seq };
        Record {
            key: RecordKey {
                timestamp_ns: 1_500_000_000,
                position,
            },
            timestamp_digits: 1,
            flags: Flags::default(),
            fields: fields
                .iter()
                .map(|(key, value)| ((*key).into(), value.clone()))
                .collect(),
        }
    }

    #[test]
    fn a_page_has_records_total_cursor_and_no_time_taken() {
        let one = record(
            7,
            &[
                ("message", Value::Str("a\"b".to_owned())),
                ("http.status", Value::Int(500)),
                ("http.path", Value::Null),
            ],
        );
        let id = one.key.to_id();
        let mut answer = SearchAnswer {
            records: vec![one],
            total: Some(Total {
                value: 3,
                is_exact: true,
            }),
            has_more: true,
            partial_reasons: Vec::new(),
        };
        assert_eq!(
            text(search(
                &answer,
                &Fields(Some(vec!["http.status".to_owned()]))
            )),
            format!(
                r#"{{"logs":[{{"id":"{id}","timestamp":"1970-01-01T00:00:01.5Z","level":null,"source":null,"message":"a\"b","http":{{"status":500}}}}],"total":{{"value":3,"relation":"eq"}},"next_cursor":"{id}","partial":false}}"#
            )
        );
        answer = SearchAnswer {
            records: Vec::new(),
            total: None,
            has_more: false,
            partial_reasons: vec!["segment 3 is damaged".to_owned()],
        };
        assert_eq!(
            text(search(&answer, &Fields::default())),
            r#"{"logs":[],"next_cursor":null,"partial":true,"partial_reasons":["segment 3 is damaged"]}"#
        );
    }

    #[test]
    fn a_field_includes_what_is_nested_under_it() {
        let fields = Fields(Some(vec!["http".to_owned(), "a.b".to_owned()]));
        for (address, expected) in [
            ("http", true),
            ("http.status", true),
            ("https", false),
            ("a", false),
            ("a.b.c", true),
        ] {
            assert_eq!(fields.wants(address), expected, "{address}");
        }
        assert!(Fields::default().wants("anything"));
    }

    #[test]
    fn empty_buckets_are_filled_in() {
        let second = 1_000_000_000;
        let bucket = HistogramBucket {
            start_ns: 2 * second,
            count: 3,
            by: vec![(Some("x".to_owned()), 2), (None, 1)],
        };
        let answer = Histogram {
            buckets: vec![bucket],
            total: 3,
            partial_reasons: Vec::new(),
        };
        let range = TimeRange {
            start_ns: Some(second / 2),
            end_ns: Some(3 * second),
        };
        assert_eq!(
            text(histogram(&answer, &range, second, true).unwrap()),
            concat!(
                r#"{"interval_ms":1000,"buckets":[{"start":"1970-01-01T00:00:00Z","count":0,"by":{}},{"start":"1970-01-01T00:00:01Z","count":0,"by":{}},"#,
                r#"{"start":"1970-01-01T00:00:02Z","count":3,"by":{"x":2,"(other)":1}}],"total":3,"partial":false}"#
            )
        );
        let open = text(histogram(&answer, &TimeRange::default(), second, false).unwrap());
        assert_eq!(
            open,
            r#"{"interval_ms":1000,"buckets":[{"start":"1970-01-01T00:00:02Z","count":3}],"total":3,"partial":false}"#
        );
    }

    #[test]
    fn groups_and_fields_carry_values_with_their_types() {
        let aggregates = [Aggregate {
            label: "count".to_owned(),
            kind: AggregateKind::Count,
            field: String::new(),
        }];
        let group = Group {
            by: vec![Value::Null, Value::Int(60_000_000_000)],
            values: vec![Value::Int(2)],
        };
        let answer = StatsAnswer {
            groups: vec![group],
            n_groups: 5,
            approximate: Vec::new(),
            partial_reasons: Vec::new(),
        };
        let by = [
            GroupBy::Field("level".to_owned()),
            GroupBy::Time(60_000_000_000),
        ];
        let names = ["level".to_owned(), "time(1m)".to_owned()];
        assert_eq!(
            text(stats(&answer, &names, &by, &aggregates)),
            r#"{"groups":[{"by":{"level":null,"time(1m)":"1970-01-01T00:01:00Z"},"count":2}],"total_groups":5,"approximate":[],"partial":false}"#
        );
        let field = FieldSummary {
            name: "n".to_owned(),
            types: vec![ValueType::Int, ValueType::Str],
            count: 3,
            distinct: 2,
            is_distinct_exact: true,
            top: vec![
                (Value::Int(9_007_199_254_740_993), 2),
                (Value::Str("x".to_owned()), 1),
            ],
        };
        let answer = FieldsAnswer {
            fields: vec![field],
            total: 3,
            partial_reasons: Vec::new(),
        };
        assert_eq!(
            text(fields(&answer)),
            concat!(
                r#"{"fields":[{"name":"n","types":["integer","string"],"count":3,"distinct":2,"distinct_is_exact":true,"#,
                r#""top":[{"value":9007199254740993,"count":2},{"value":"x","count":1}]}],"total":3,"partial":false}"#
            )
        );
    }

    #[test]
    fn a_dead_letter_that_is_not_text_is_shown_as_far_as_it_is() {
        let letter = DeadLetter {
            position: Position {
                partition: 0,
                seq: 4,
            },
            arrival_ns: 0,
            code: "invalid_json".to_owned(),
            reason: "cut".to_owned(),
            source: None,
            raw: b"{\xff".to_vec(),
        };
        let page = DeadLetterPage {
            letters: vec![letter],
            total: 1,
            has_more: true,
        };
        assert_eq!(
            text(dead_letters(&page)),
            concat!(
                r#"{"dead_letters":[{"id":"0-4","timestamp":"1970-01-01T00:00:00Z","code":"invalid_json","reason":"cut","source":null,"#,
                "\"raw\":\"{\u{fffd}\",\"raw_bytes\":2}],\"total\":{\"value\":1,\"relation\":\"eq\"},\"next_cursor\":\"0-4\"}"
            )
        );
    }
}
