//! Whether an answer can be true: pure functions over its JSON. An `Err` says what is wrong with it.

use std::collections::HashSet;

use serde_json::Value as Json;

type Verdict = Result<(), String>;

/// What every record of an answer must satisfy.
#[derive(Clone, Debug, Default)]
pub struct Expect {
    /// [start, end) in nanoseconds.
    pub range: Option<(i64, i64)>,
    pub is_ascending: bool,
    pub source: Option<String>,
    pub level: Option<String>,
    /// A token some value must hold.
    pub word: Option<String>,
    /// Address and exact value, as text.
    pub field: Option<(String, String)>,
    pub limit: Option<usize>,
}

pub fn text<'a>(value: &'a Json, name: &str) -> Option<&'a str> {
    value.get(name)?.as_str()
}

pub fn number(value: &Json, name: &str) -> Option<u64> {
    value.get(name)?.as_u64()
}

pub fn array<'a>(value: &'a Json, name: &str) -> Result<&'a [Json], String> {
    value
        .get(name)
        .and_then(Json::as_array)
        .map(Vec::as_slice)
        .ok_or_else(|| format!("no array `{name}`"))
}

/// Nanoseconds since 1970 of a record's timestamp.
pub fn time_ns(record: &Json) -> Result<i64, String> {
    let stamp = text(record, "timestamp").ok_or("a record without `timestamp`")?;
    if !stamp.ends_with('Z') {
        return Err(format!("timestamp `{stamp}` is not in UTC"));
    }
    let parsed: jiff::Timestamp = stamp
        .parse()
        .map_err(|_| format!("timestamp `{stamp}` is not RFC 3339"))?;
    i64::try_from(parsed.as_nanosecond())
        .map_err(|_| format!("timestamp `{stamp}` is out of range"))
}

/// `{"logs": […], "total": …, "next_cursor": …}`
pub fn list(answer: &Json, expect: &Expect) -> Verdict {
    let logs = array(answer, "logs")?;
    if let Some(limit) = expect.limit
        && limit < logs.len()
    {
        return Err(format!("{} records, asked for at most {limit}", logs.len()));
    }
    let mut previous: Option<i64> = None;
    let mut ids = HashSet::new();
    for entry in logs {
        record(entry, expect)?;
        let id = text(entry, "id").ok_or("a record without `id`")?;
        if !ids.insert(id) {
            return Err(format!("record {id} twice in one answer"));
        }
        let time = time_ns(entry)?;
        if let Some(previous) = previous {
            let is_ordered = if expect.is_ascending {
                previous <= time
            } else {
                time <= previous
            };
            if !is_ordered {
                return Err(format!("out of order at record {id}"));
            }
        }
        previous = Some(time);
    }
    totals(answer, logs.len() as u64)
}

fn totals(answer: &Json, n_logs: u64) -> Verdict {
    let Some(total) = answer.get("total").filter(|total| !total.is_null()) else {
        return Ok(());
    };
    let value = number(total, "value").ok_or("`total` without `value`")?;
    if value < n_logs {
        return Err(format!("total {value} below the {n_logs} records given"));
    }
    let is_last_page = answer.get("next_cursor").is_none_or(Json::is_null);
    if is_last_page
        && value != 0
        && n_logs == 0
        && answer.get("partial") == Some(&Json::Bool(false))
    {
        // A question with limit=0 has no pages; the caller does not come here with one.
        return Err(format!("total {value}, yet no record and no next page"));
    }
    Ok(())
}

fn record(entry: &Json, expect: &Expect) -> Verdict {
    for name in ["id", "timestamp", "level", "source", "message"] {
        if entry.get(name).is_none() {
            return Err(format!("a record without `{name}`"));
        }
    }
    let id = text(entry, "id").unwrap_or_default();
    let time = time_ns(entry)?;
    if let Some((start, end)) = expect.range
        && !(start..end).contains(&time)
    {
        return Err(format!("record {id} lies outside the time range"));
    }
    if let Some(source) = &expect.source
        && text(entry, "source") != Some(source)
    {
        return Err(format!("record {id} is of another source than `{source}`"));
    }
    if let Some(level) = &expect.level
        && entry
            .get("level")
            .map(plain)
            .as_deref()
            .map(canonical_level)
            != Some(canonical_level(level))
    {
        return Err(format!("record {id} has another level than `{level}`"));
    }
    if let Some(word) = &expect.word
        && !holds_word(entry, &word.to_lowercase())
    {
        return Err(format!("record {id} does not hold the word `{word}`"));
    }
    if let Some((address, value)) = &expect.field
        && at(entry, address).map(plain).as_deref() != Some(value)
    {
        return Err(format!("record {id}: `{address}` is not `{value}`"));
    }
    Ok(())
}

/// The value at a dotted address, whether it was nested or sent under the dotted name.
pub fn at<'a>(value: &'a Json, address: &str) -> Option<&'a Json> {
    if let Some(found) = value.get(address) {
        return Some(found);
    }
    address.match_indices('.').find_map(|(dot, _)| {
        let (head, tail) = (address.get(..dot)?, address.get(dot + 1..)?);
        at(value.get(head)?, tail)
    })
}

/// A value as text: strings without quotes, all else as JSON.
pub fn plain(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Words of one meaning have one name.
pub fn canonical_level(level: &str) -> String {
    let lower = level.trim().to_lowercase();
    match lower.as_str() {
        "warn" | "warning" | "4" => "warn",
        "err" | "error" | "3" => "error",
        "crit" | "critical" | "fatal" | "2" => "fatal",
        "alert" | "1" => "alert",
        "emerg" | "emergency" | "panic" | "0" => "emergency",
        "notice" | "5" => "notice",
        "info" | "information" | "informational" | "6" => "info",
        "debug" | "dbg" | "7" => "debug",
        other => other,
    }
    .to_owned()
}

/// Whether some value holds the token; `word` in lower case.
fn holds_word(value: &Json, word: &str) -> bool {
    match value {
        Json::Object(fields) => fields.values().any(|value| holds_word(value, word)),
        Json::Array(items) => items.iter().any(|value| holds_word(value, word)),
        Json::Null => false,
        other => plain(other)
            .to_lowercase()
            .split(|c: char| !c.is_alphanumeric())
            .any(|token| token == word),
    }
}

/// `{"interval_ms": …, "buckets": [{"start", "count", "by"}], "total": …}`. Answers the total.
pub fn histogram(answer: &Json) -> Result<u64, String> {
    let interval_ms = answer
        .get("interval_ms")
        .and_then(Json::as_f64)
        .ok_or("no `interval_ms`")?;
    let interval_ns = (interval_ms * 1e6).round() as i128;
    let total = number(answer, "total").ok_or("no `total`")?;
    let mut sum = 0;
    let mut expected_start: Option<i128> = None;
    for bucket in array(answer, "buckets")? {
        let count = number(bucket, "count").ok_or("a bucket without `count`")?;
        let start: jiff::Timestamp = text(bucket, "start")
            .and_then(|start| start.parse().ok())
            .ok_or("a bucket without `start`")?;
        let start_ns = start.as_nanosecond();
        if expected_start.is_some_and(|expected| expected != start_ns) {
            return Err(format!("buckets are not contiguous at {start}"));
        }
        expected_start = Some(start_ns + interval_ns);
        if let Some(by) = bucket.get("by").and_then(Json::as_object) {
            let parts: u64 = by.values().filter_map(Json::as_u64).sum();
            if count < parts {
                return Err(format!(
                    "parts of the bucket {start} sum to {parts}, its count is {count}"
                ));
            }
        }
        sum += count;
    }
    if sum != total {
        return Err(format!("buckets sum to {sum}, the total is {total}"));
    }
    Ok(total)
}

/// `{"fields": [{"name", "types", "count", "distinct", "top"}]}`
pub fn fields(answer: &Json) -> Verdict {
    let mut previous = "";
    for field in array(answer, "fields")? {
        let name = text(field, "name").ok_or("a field without `name`")?;
        if !previous.is_empty() && name <= previous {
            return Err(format!(
                "field `{name}` after `{previous}`: not sorted by name"
            ));
        }
        previous = name;
        let count =
            number(field, "count").ok_or_else(|| format!("field `{name}` without `count`"))?;
        let mut above = u64::MAX;
        for value in array(field, "top")? {
            let n = number(value, "count")
                .ok_or_else(|| format!("a value of `{name}` without `count`"))?;
            if above < n {
                return Err(format!("values of `{name}` are not sorted by count"));
            }
            above = n;
            if count < n && !is_array_field(field) {
                return Err(format!(
                    "a value of `{name}` is counted {n} times, the field {count} times"
                ));
            }
        }
    }
    Ok(())
}

/// A record counts once for a field, but may hold one element of an array several times.
fn is_array_field(field: &Json) -> bool {
    field
        .get("types")
        .and_then(Json::as_array)
        .is_some_and(|types| types.iter().any(|t| t == "array"))
}

/// `{"groups": [{"by": {…}, "count": …}]}`. Answers the sum of the counts.
pub fn stats(answer: &Json) -> Result<u64, String> {
    let mut sum = 0;
    let mut above = u64::MAX;
    let mut seen = HashSet::new();
    for group in array(answer, "groups")? {
        let by = group.get("by").ok_or("a group without `by`")?;
        if !seen.insert(by.to_string()) {
            return Err(format!("group {by} twice"));
        }
        let count = number(group, "count").ok_or("a group without `count`")?;
        if above < count {
            return Err("groups are not sorted by -count".to_owned());
        }
        above = count;
        sum += count;
    }
    Ok(sum)
}

/// `{"before": […], "log": {…}, "after": […]}` around the record `id`.
pub fn context(answer: &Json, id: &str) -> Verdict {
    let log = answer.get("log").ok_or("no `log`")?;
    if text(log, "id") != Some(id) {
        return Err(format!("`log` is not the record {id}"));
    }
    let (time, source) = (time_ns(log)?, log.get("source"));
    let mut ids = HashSet::from([id]);
    for (side, is_before) in [("before", true), ("after", false)] {
        for neighbour in array(answer, side)? {
            let its_id = text(neighbour, "id").ok_or("a record without `id`")?;
            if !ids.insert(its_id) {
                return Err(format!("record {its_id} twice in the context"));
            }
            if neighbour.get("source") != source {
                return Err(format!("record {its_id} of another source in the context"));
            }
            let its_time = time_ns(neighbour)?;
            if (is_before && time < its_time) || (!is_before && its_time < time) {
                return Err(format!("record {its_id} is on the wrong side (`{side}`)"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn log(id: &str, second: u32, level: &str, message: &str) -> Json {
        json!({"id": id, "timestamp": format!("2025-03-20T00:00:{second:02}Z"), "level": level,
            "source": "web", "message": message, "http": {"status": 500}})
    }

    fn answer(logs: &[Json], total: u64) -> Json {
        json!({"logs": logs, "total": {"value": total, "relation": "eq"}, "next_cursor": null, "partial": false})
    }

    #[test]
    fn a_true_list_passes() {
        let logs = [
            log("b", 2, "ERROR", "Connection closed"),
            log("a", 1, "err", "closed again"),
        ];
        let expect = Expect {
            level: Some("error".to_owned()),
            word: Some("closed".to_owned()),
            source: Some("web".to_owned()),
            field: Some(("http.status".to_owned(), "500".to_owned())),
            limit: Some(2),
            ..Expect::default()
        };
        assert_eq!(list(&answer(&logs, 2), &expect), Ok(()));
    }

    #[test]
    fn each_lie_is_found() {
        let (a, b) = (log("a", 1, "INFO", "x"), log("b", 2, "INFO", "y"));
        let start = time_ns(&a).unwrap();
        let check = |logs: &[Json], total: u64, expect: Expect, needle: &str| {
            let error = list(&answer(logs, total), &expect).unwrap_err();
            assert!(error.contains(needle), "{error} / {needle}");
        };
        let none = Expect::default;
        check(&[a.clone(), b.clone()], 2, none(), "out of order");
        check(&[b.clone(), b.clone()], 2, none(), "twice");
        check(&[b.clone(), a.clone()], 1, none(), "below the 2 records");
        check(&[], 4, none(), "no record and no next page");
        check(&[json!({"id": "c"})], 1, none(), "without `timestamp`");
        check(
            std::slice::from_ref(&b),
            1,
            Expect {
                range: Some((start, start + 1)),
                ..none()
            },
            "outside",
        );
        check(
            std::slice::from_ref(&b),
            1,
            Expect {
                level: Some("warn".to_owned()),
                ..none()
            },
            "another level",
        );
        check(
            std::slice::from_ref(&b),
            1,
            Expect {
                word: Some("yy".to_owned()),
                ..none()
            },
            "does not hold",
        );
        check(
            std::slice::from_ref(&b),
            1,
            Expect {
                source: Some("db".to_owned()),
                ..none()
            },
            "another source",
        );
        check(
            &[a, b],
            2,
            Expect {
                limit: Some(1),
                ..none()
            },
            "at most 1",
        );
    }

    #[test]
    fn histograms_stats_and_fields_must_add_up() {
        let bucket = |minute: u32, count: u64| json!({"start": format!("2025-03-20T00:{minute:02}:00Z"), "count": count, "by": {"INFO": count}});
        let good =
            json!({"interval_ms": 60_000, "total": 3, "buckets": [bucket(0, 1), bucket(1, 2)]});
        assert_eq!(histogram(&good), Ok(3));
        let gap =
            json!({"interval_ms": 60_000, "total": 3, "buckets": [bucket(0, 1), bucket(2, 2)]});
        assert!(histogram(&gap).unwrap_err().contains("contiguous"));
        let short =
            json!({"interval_ms": 60_000, "total": 4, "buckets": [bucket(0, 1), bucket(1, 2)]});
        assert!(histogram(&short).unwrap_err().contains("sum to 3"));
        let groups = json!({"groups": [{"by": {"level": "A"}, "count": 2}, {"by": {"level": null}, "count": 1}]});
        assert_eq!(stats(&groups), Ok(3));
        let over = json!({"fields": [{"name": "a", "types": ["string"], "count": 1, "top": [{"value": "x", "count": 2}]}]});
        assert!(fields(&over).is_err());
    }

    #[test]
    fn addresses_reach_nested_and_dotted_names() {
        let value = json!({"a": {"b.c": 1}, "d.e": {"f": 2}});
        assert_eq!(at(&value, "a.b.c"), Some(&json!(1)));
        assert_eq!(at(&value, "d.e.f"), Some(&json!(2)));
        assert_eq!(at(&value, "a.x"), None);
    }
}
