//! Records → the JSON of answers, nested as they were sent.
//!
//! `id`, `timestamp`, `level`, `source` and `message` come first and are always there; then the other fields in the order of their names;
//! `_flags` last, if any is set. What collides is renamed, never dropped: a field of the sender's called `id`, `timestamp` or `_flags` gets
//! underscores in front until its name is free, and of `a` and `a.b` together the second is written as one dotted name.

use std::borrow::Cow;
use std::cmp::Ordering;

use crate::record::key::segments;
use crate::record::value::Flags;
use crate::record::{
    FLAGS, LEVEL, MESSAGE, Record, RecordRef, SOURCE, TIMESTAMP, ValueRef, timestamp,
};
use crate::wire::json_text::{push_string, push_value};

const ID: &str = "id";
/// Fields that stand before all others.
const STANDARD: [&str; 3] = [LEVEL, SOURCE, MESSAGE];

/// Appends the record as one JSON object. `is_wanted` chooses fields by address; the standard ones are always written.
pub fn push_record(out: &mut Vec<u8>, record: &Record, is_wanted: impl Fn(&str) -> bool) {
    let fields = record
        .fields
        .iter()
        .map(|(key, value)| (&**key, value.as_value_ref()))
        .filter(|(key, _)| STANDARD.contains(key) || is_wanted(&crate::record::key::address(key)));
    let id = record.key.to_id();
    push_object(
        out,
        Some(&id),
        record.key.timestamp_ns,
        record.timestamp_digits,
        record.flags,
        fields.collect(),
    );
}

/// Appends the record with all its fields and a line break.
pub fn push_record_line(out: &mut Vec<u8>, record: &Record) {
    push_record(out, record, |_| true);
    out.push(b'\n');
}

/// A record of a batch, which has no id yet: as other readers of the queue see it. True if `JsonDecoder::queued_object` reads the same
/// fields from it; false where a name had to be changed or a value has no JSON.
pub fn push_queued_record(out: &mut Vec<u8>, record: RecordRef<'_>) -> bool {
    let fields = record.fields().map(|field| (field.key, field.value));
    push_object(
        out,
        None,
        record.timestamp_ns,
        record.timestamp_digits,
        record.flags,
        fields.collect(),
    )
}

pub(super) type FieldList<'a> = Vec<(&'a str, ValueRef<'a>)>;

pub(super) fn push_object(
    out: &mut Vec<u8>,
    id: Option<&str>,
    timestamp_ns: i64,
    digits: u8,
    flags: Flags,
    mut fields: FieldList<'_>,
) -> bool {
    let mut is_exact = true;
    out.push(b'{');
    if let Some(id) = id {
        out.extend_from_slice(b"\"id\":\"");
        out.extend_from_slice(id.as_bytes());
        out.extend_from_slice(b"\",");
    }
    out.extend_from_slice(b"\"timestamp\":\"");
    timestamp::format_into(out, timestamp_ns, digits);
    out.push(b'"');
    for name in STANDARD {
        let value = fields.iter().find(|(key, _)| *key == name);
        let is_object = || fields.iter().any(|(key, _)| is_under(key, name));
        match value {
            None if is_object() => continue,
            None => push_member(out, name, ValueRef::Null),
            Some((_, value)) => {
                is_exact &= *value != ValueRef::Null;
                push_member(out, name, *value);
            }
        }
    }
    is_exact &= fields.iter().all(|(_, value)| match value {
        ValueRef::Float(float) => float.is_finite(),
        _ => true,
    });
    if fields.iter().any(|(key, _)| key.contains(['.', '\\'])) {
        // By segments, as if `.` came before every other byte: what belongs together stands together.
        fields.sort_unstable_by(|(a, _), (b, _)| in_key_order(a, b));
        is_exact &= match is_plain(&fields) {
            true => push_plain_nested(out, &fields),
            false => push_nested(out, &fields),
        };
    } else {
        fields.sort_unstable_by_key(|(key, _)| *key);
        for (key, value) in &fields {
            if !STANDARD.contains(key) {
                let name = free_name(key, &fields);
                is_exact &= matches!(name, Cow::Borrowed(_));
                push_member(out, &name, *value);
            }
        }
    }
    if !flags.is_empty() {
        out.extend_from_slice(b",\"_flags\":[");
        for (index, name) in flags.names().enumerate() {
            if 0 < index {
                out.push(b',');
            }
            push_string(out, name);
        }
        out.push(b']');
    }
    out.push(b'}');
    is_exact
}

fn push_member(out: &mut Vec<u8>, name: &str, value: ValueRef<'_>) {
    push_name(out, name);
    push_value(out, value);
}

/// The comma, where one is due, and `"name":`.
fn push_name(out: &mut Vec<u8>, name: &str) {
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    push_string(out, name);
    out.push(b':');
}

/// `key` is nested in an object that the top field `name` is.
fn is_under(key: &str, name: &str) -> bool {
    key.strip_prefix(name)
        .is_some_and(|rest| rest.starts_with('.'))
}

/// The name under which a top field is written: its own unless the answer needs that for itself.
fn free_name<'a>(name: &'a str, fields: &FieldList<'_>) -> Cow<'a, str> {
    if ![ID, TIMESTAMP, FLAGS].contains(&name) {
        return Cow::Borrowed(name);
    }
    let mut free = format!("_{name}");
    while free == FLAGS
        || fields
            .iter()
            .any(|(key, _)| *key == free || is_under(key, &free))
    {
        free.insert(0, '_');
    }
    Cow::Owned(free)
}

struct Path<'a> {
    key: &'a str,
    segments: Vec<Cow<'a, str>>,
    value: ValueRef<'a>,
}

/// Writes the fields with the objects that their keys stand for. Sorted by segments, so what belongs together stands together and a value
/// comes before the object of the same name. False if a name had to be changed.
fn push_nested(out: &mut Vec<u8>, fields: &FieldList<'_>) -> bool {
    let mut is_exact = true;
    let mut paths: Vec<Path<'_>> = fields
        .iter()
        .map(|(key, value)| Path {
            key,
            segments: segments(key),
            value: *value,
        })
        .collect();
    paths.sort_unstable_by(|a, b| in_order(&a.segments, &b.segments));
    let mut open: Vec<&str> = Vec::new();
    // The path of the last value that stands where an object of the same name would.
    let mut blocked: &[Cow<'_, str>] = &[];
    for path in &paths {
        let is_blocked = !blocked.is_empty() && path.segments.starts_with(blocked);
        is_exact &= !is_blocked;
        if !is_blocked {
            blocked = &path.segments;
        }
        // Where a value blocks the way, the rest of the path is one dotted name beside it.
        let n_objects = if is_blocked {
            blocked.len() - 1
        } else {
            path.segments.len() - 1
        };
        let objects = path.segments.get(..n_objects).unwrap_or_default();
        let name = path.segments.get(n_objects..).unwrap_or_default().join(".");
        let common = open
            .iter()
            .zip(objects)
            .take_while(|(a, b)| ***a == ***b)
            .count();
        for _ in common..open.len() {
            out.push(b'}');
        }
        open.truncate(common);
        if objects.is_empty() && STANDARD.contains(&path.key) {
            continue;
        }
        for (index, segment) in objects.iter().enumerate().skip(common) {
            if index == 0 {
                let name = free_name(segment, fields);
                is_exact &= matches!(name, Cow::Borrowed(_));
                push_name(out, &name);
            } else {
                push_name(out, segment);
            }
            out.push(b'{');
            open.push(segment);
        }
        if is_blocked {
            let name = free_dotted_name(objects, name, &paths);
            push_member(out, &name, path.value);
        } else if objects.is_empty() {
            let free = free_name(&name, fields);
            is_exact &= matches!(free, Cow::Borrowed(_));
            push_member(out, &free, path.value);
        } else {
            push_member(out, &name, path.value);
        }
    }
    for _ in open {
        out.push(b'}');
    }
    is_exact
}

fn in_key_order(a: &str, b: &str) -> Ordering {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let common = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    match (a.get(common), b.get(common)) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Less,
        (Some(_), None) => Ordering::Greater,
        (Some(b'.'), Some(_)) => Ordering::Less,
        (Some(_), Some(b'.')) => Ordering::Greater,
        (Some(a), Some(b)) => a.cmp(b),
    }
}

/// True if the sorted keys hold no escape, and no value stands where an object of the same name would.
fn is_plain(fields: &FieldList<'_>) -> bool {
    let mut previous = None;
    fields.iter().all(|(key, _)| {
        let is_blocked = previous.is_some_and(|previous| is_under(key, previous));
        previous = Some(*key);
        !is_blocked && !key.contains('\\')
    })
}

/// [`push_nested`] for what nearly all records are: sorted keys that are [`is_plain`], whose segments are read where they stand.
fn push_plain_nested(out: &mut Vec<u8>, fields: &FieldList<'_>) -> bool {
    let mut is_exact = true;
    let mut open: Vec<&str> = Vec::new();
    for (key, value) in fields {
        let (objects, name) = match key.rsplit_once('.') {
            Some((objects, name)) => (Some(objects), name),
            None => (None, *key),
        };
        let objects = || objects.into_iter().flat_map(|path| path.split('.'));
        let common = open.iter().zip(objects()).take_while(|(a, b)| **a == *b);
        let common = common.count();
        for _ in common..open.len() {
            out.push(b'}');
        }
        open.truncate(common);
        if !key.contains('.') && STANDARD.contains(key) {
            continue;
        }
        for segment in objects().skip(common) {
            if open.is_empty() {
                let free = free_name(segment, fields);
                is_exact &= matches!(free, Cow::Borrowed(_));
                push_name(out, &free);
            } else {
                push_name(out, segment);
            }
            out.push(b'{');
            open.push(segment);
        }
        if open.is_empty() {
            let free = free_name(name, fields);
            is_exact &= matches!(free, Cow::Borrowed(_));
            push_member(out, &free, *value);
        } else {
            push_member(out, name, *value);
        }
    }
    for _ in open {
        out.push(b'}');
    }
    is_exact
}

fn in_order(a: &[Cow<'_, str>], b: &[Cow<'_, str>]) -> Ordering {
    a.iter().map(|s| &**s).cmp(b.iter().map(|s| &**s))
}

/// A dotted name that no field beside it bears already.
fn free_dotted_name(objects: &[Cow<'_, str>], mut name: String, paths: &[Path<'_>]) -> String {
    let is_used = |name: &str| {
        paths.iter().any(|path| {
            path.segments.starts_with(objects)
                && path.segments.get(objects.len()).is_some_and(|s| *s == name)
        })
    };
    while is_used(&name) {
        name.insert(0, '_');
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Position, RecordKey, Value};

    fn encode(fields: &[(&str, Value)]) -> String {
        let record = Record {
            key: RecordKey {
                timestamp_ns: 0,
                position: Position::default(),
            },
            timestamp_digits: 3,
            flags: Flags::default(),
            fields: fields
                .iter()
                .map(|(key, value)| ((*key).into(), value.clone()))
                .collect(),
        };
        let mut out = Vec::new();
        push_record(&mut out, &record, |_| true);
        let text = String::from_utf8(out).unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap();
        let head = format!(
            r#"{{"id":"{}","timestamp":"1970-01-01T00:00:00.000Z","#,
            record.key.to_id()
        );
        text.strip_prefix(&head).unwrap().to_owned()
    }

    #[track_caller]
    fn check(keys: &[&str], expected: &str) {
        let fields: Vec<_> = keys
            .iter()
            .enumerate()
            .map(|(i, key)| (*key, Value::Int(i64::try_from(i).unwrap())))
            .collect();
        assert_eq!(encode(&fields), expected, "{keys:?}");
    }

    #[test]
    fn records_are_nested_as_they_were_sent() {
        let nulls = r#""level":null,"source":null,"message":null"#;
        check(&[], &format!("{nulls}}}"));
        check(&["b", "a"], &format!(r#"{nulls},"a":1,"b":0}}"#));
        check(
            &["http.status", "z", "http.url", "a-b.c", "a.c", r"a\.c"],
            &format!(
                r#"{nulls},"a":{{"c":4}},"a-b":{{"c":3}},"a.c":5,"http":{{"status":0,"url":2}},"z":1}}"#
            ),
        );
        check(
            &["a.b.c", "a.b.d", "a.e", "f"],
            &format!(r#"{nulls},"a":{{"b":{{"c":0,"d":1}},"e":2}},"f":3}}"#),
        );
        check(
            &["message", "level"],
            r#""level":1,"source":null,"message":0}"#,
        );
        check(
            &["log.level", "level", "", ".x"],
            r#""level":1,"source":null,"message":null,"":2,".x":3,"log":{"level":0}}"#,
        );
    }

    #[test]
    fn what_collides_is_renamed_and_nothing_is_lost() {
        let nulls = r#""level":null,"source":null,"message":null"#;
        check(
            &["id", "timestamp", "_flags", "_id"],
            &format!(r#"{nulls},"__flags":2,"_id":3,"__id":0,"_timestamp":1}}"#),
        );
        check(
            &["id.a", "id.b"],
            &format!(r#"{nulls},"_id":{{"a":0,"b":1}}}}"#),
        );
        check(
            &["a", "a.b", "a.b.c", "a.d"],
            &format!(r#"{nulls},"a":0,"a.b":1,"a.b.c":2,"a.d":3}}"#),
        );
        check(
            &["a", "a.b", r"a\.b"],
            &format!(r#"{nulls},"a":0,"_a.b":1,"a.b":2}}"#),
        );
        check(
            &["message", "message.a"],
            r#""level":null,"source":null,"message":0,"message.a":1}"#,
        );
        check(
            &["message.a", "x"],
            r#""level":null,"source":null,"message":{"a":0},"x":1}"#,
        );
        check(
            &["x.a", "x.a.b", "x.c.d"],
            &format!(r#"{nulls},"x":{{"a":0,"a.b":1,"c":{{"d":2}}}}}}"#),
        );
    }

    proptest::proptest! {
        #[test]
        fn plain_keys_are_nested_as_by_the_patient_way(
            keys in proptest::collection::btree_set("[ab._-]{1,5}", 0..8),
        ) {
            let mut fields: FieldList<'_> = keys.iter().map(|key| (key.as_str(), ValueRef::Int(1))).collect();
            fields.sort_unstable_by(|(a, _), (b, _)| in_key_order(a, b));
            if is_plain(&fields) {
                let (mut plain, mut patient) = (b"{".to_vec(), b"{".to_vec());
                let is_exact = push_plain_nested(&mut plain, &fields);
                proptest::prop_assert_eq!(is_exact, push_nested(&mut patient, &fields));
                proptest::prop_assert_eq!(plain, patient);
            }
        }
    }

    #[test]
    fn values_of_all_types_are_json() {
        let text = encode(&[
            ("a", Value::Str("\"\\\n\u{1}\u{7f}é".into())),
            ("b", Value::Number("18446744073709551616".into())),
            ("c", Value::Json("[1,{}]".into())),
            ("d", Value::Float(1e300)),
            ("e", Value::Bool(true)),
        ]);
        assert!(
            text.ends_with("\"a\":\"\\\"\\\\\\n\\u0001\u{7f}é\",\"b\":18446744073709551616,\"c\":[1,{}],\"d\":1e+300,\"e\":true}"),
            "{text}"
        );
    }
}
