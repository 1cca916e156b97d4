//! Both JSON readers against tables, against each other and against serde_json.

use super::*;
use crate::record::{Batch, EntryRef};
use crate::wire::native::encode::push_queued_record;

const ARRIVAL_NS: i64 = 1_795_399_200_000_000_000;
const DEFAULTS: RecordDefaults<'_> = RecordDefaults {
    arrival_ns: ARRIVAL_NS,
    source: None,
    level: None,
};

#[derive(Clone, Copy, PartialEq)]
enum Path {
    Fast,
    Slow,
    Either,
}

fn decode(text: &str, path: Path) -> Option<Batch> {
    let mut decoder = JsonDecoder::new(JsonOptions::default());
    let mut builder = BatchBuilder::new(ARRIVAL_NS);
    decoder.begin_batch();
    let flags = Flags::default();
    let given = Given { flags, exact: None };
    let is_taken = match path {
        Path::Fast => decoder.fast.object(
            text,
            &mut decoder.keys,
            &mut builder,
            &DEFAULTS,
            &decoder.options,
            given,
        ),
        Path::Slow => decoder
            .object_slowly(text, &mut builder, &DEFAULTS, given)
            .is_ok(),
        Path::Either => decoder.object(text, &mut builder, &DEFAULTS, flags).is_ok(),
    };
    let batch = builder.finish();
    assert_eq!(batch.len(), u32::from(is_taken));
    let checked = Batch::from_bytes(batch.as_bytes().clone()).unwrap();
    assert_eq!(checked.len(), batch.len());
    is_taken.then_some(batch)
}

fn shown(batch: &Batch) -> String {
    let mut out = Vec::new();
    for entry in batch.entries() {
        let EntryRef::Record(record) = entry else {
            panic!("{entry:?}")
        };
        let mut keys: Vec<_> = record.fields().map(|field| field.key).collect();
        keys.sort_unstable();
        keys.windows(2)
            .for_each(|pair| assert_ne!(pair[0], pair[1]));
        push_queued_record(&mut out, record);
    }
    String::from_utf8(out).unwrap()
}

/// Both readers agree, or the fast one leaves it to the slow one.
#[track_caller]
fn check(text: &str, expected: &str) {
    let slow = shown(&decode(text, Path::Slow).expect("slow reader refuses"));
    assert_eq!(slow, expected, "slow: {text}");
    if let Some(batch) = decode(text, Path::Fast) {
        assert_eq!(shown(&batch), expected, "fast: {text}");
    }
}

const TIME: &str = r#""timestamp":"1970-01-01T00:00:01Z""#;

fn expect_plain(members: &str) -> String {
    format!(r#"{{{TIME},"level":null,"source":null,"message":null{members}}}"#)
}

#[test]
fn values_keep_their_type_and_their_text() {
    for (sent, kept) in [
        (r#""a":1"#, r#","a":1"#),
        (
            r#""a":-9223372036854775808"#,
            r#","a":-9223372036854775808"#,
        ),
        (
            r#""a":18446744073709551616"#,
            r#","a":18446744073709551616"#,
        ),
        (
            r#""a":18446744073709551615"#,
            r#","a":18446744073709551615"#,
        ),
        (
            r#""a":0.1000000000000000055"#,
            r#","a":0.1000000000000000055"#,
        ),
        (r#""a":-0"#, r#","a":-0"#),
        (r#""a":1e400"#, r#","a":1e400"#),
        (r#""a":12.50"#, r#","a":12.5"#),
        (r#""a":NaN,"b":-Infinity"#, r#","a":"NaN","b":"-Infinity""#),
        (
            r#""a":null,"b":true,"c":false"#,
            r#","a":null,"b":true,"c":false"#,
        ),
        (
            r#""a":[1, "x y" , {"b" : [ ] }]"#,
            r#","a":[1,"x y",{"b":[]}]"#,
        ),
        (r#""a":{},"b":{ "c" : { } }"#, r#","a":{},"b":{"c":{}}"#),
        (
            r#""a":"\u00e9\ud83d\ude00\n\/""#,
            "\",\"a\":\"é😀\\n/\"".trim_start_matches('"'),
        ),
        (
            r#""":1,"__proto__":2,"a.b":3"#,
            r#","":1,"__proto__":2,"a.b":3"#,
        ),
        (r#""a":{"b":1},"a.b":2"#, r#","a":{"b":1},"a.b":2"#),
        ("\"a\":\"x\ty\u{0}\"", r#","a":"x\ty\u0000""#),
        ("\"a\":[\"x\ty\"]", r#","a":["x\ty"]"#),
    ] {
        check(&format!(r#"{{"time":1,{sent}}}"#), &expect_plain(kept));
    }
}

#[test]
fn of_a_repeated_key_the_last_counts() {
    check(
        r#"{"ts":1,"a":1,"b":2,"a":"x"}"#,
        &expect_plain(r#","a":"x","b":2"#),
    );
    check(
        r#"{"ts":1,"a":{"b":1,"c":2},"a":{"c":3}}"#,
        &expect_plain(r#","a":{"c":3}"#),
    );
    check(
        r#"{"ts":1,"a":1,"a":{"b":2,"b":3}}"#,
        &expect_plain(r#","a":{"b":3}"#),
    );
    check(r#"{"ts":5,"ts":1}"#, &expect_plain(""));
}

#[test]
fn a_lone_surrogate_is_replaced_and_flagged() {
    check(
        r#"{"ts":1,"a":"\ud800x","b":["\udc00"]}"#,
        &expect_plain(",\"a\":\"\u{fffd}x\",\"b\":[\"\u{fffd}\"],\"_flags\":[\"invalid_utf8\"]"),
    );
}

#[test]
fn standard_fields_are_found_by_their_aliases() {
    for (text, expected) in [
        (
            r#"{"@timestamp":"2025-03-20T00:00:00.5+01:00","severity":"warn","service":"web","msg":"hi","x":1}"#,
            r#"{"timestamp":"2025-03-19T23:00:00.5Z","level":"warn","source":"web","message":"hi","x":1}"#,
        ),
        (
            r#"{"ts":1521911070.996300,"log":{"level":"info","x":1},"service":{"name":"web"},"Message":"hi"}"#,
            r#"{"timestamp":"2018-03-24T17:04:30.996300Z","level":"info","source":"web","message":"hi","log":{"x":1}}"#,
        ),
        (
            r#"{"msg":"second","message":"first","log":"third","time":2,"timestamp":1,"level":30}"#,
            r#"{"timestamp":"1970-01-01T00:00:01Z","level":30,"source":null,"message":"first","log":"third","msg":"second","time":2}"#,
        ),
        (
            r#"{"time":1,"message":null,"msg":"hi","Level":"a","level":"b"}"#,
            r#"{"timestamp":"1970-01-01T00:00:01Z","level":"b","source":null,"message":"hi","Level":"a"}"#,
        ),
        (
            r#"{"time":1,"message":["a"],"msg":"hi","level":{"a":1},"lvl":"x"}"#,
            r#"{"timestamp":"1970-01-01T00:00:01Z","level":"x","source":null,"message":["a"],"level.a":1,"msg":"hi"}"#,
        ),
    ] {
        check(text, expected);
    }
}

#[test]
fn a_time_that_cannot_be_read_stays_and_the_next_one_is_taken() {
    for (text, expected) in [
        (
            r#"{"timestamp":"garbage","time":"2025-03-20 00:00:00"}"#,
            r#"{"timestamp":"2025-03-20T00:00:00Z","level":null,"source":null,"message":null,"_timestamp":"garbage"}"#,
        ),
        (
            r#"{"timestamp":[1],"_timestamp":2,"time":1}"#,
            r#"{"timestamp":"1970-01-01T00:00:01Z","level":null,"source":null,"message":null,"__timestamp":[1],"_timestamp":2}"#,
        ),
        (
            r#"{"ts":"9999-12-31T00:00:00Z","date":true}"#,
            r#"{"timestamp":"2026-11-23T02:00:00.000000000Z","level":null,"source":null,"message":null,"date":true,"ts":"9999-12-31T00:00:00Z","_flags":["arrival_time","timestamp_out_of_range"]}"#,
        ),
        (
            "{}",
            r#"{"timestamp":"2026-11-23T02:00:00.000000000Z","level":null,"source":null,"message":null,"_flags":["arrival_time"]}"#,
        ),
        (
            r#"{"time":"2027-01-01T00:00:00Z"}"#,
            r#"{"timestamp":"2027-01-01T00:00:00Z","level":null,"source":null,"message":null,"_flags":["timestamp_in_future"]}"#,
        ),
    ] {
        check(text, expected);
    }
}

#[test]
fn defaults_fill_what_a_record_does_not_say() {
    let defaults = RecordDefaults {
        arrival_ns: ARRIVAL_NS,
        source: Some("given"),
        level: Some("INFO"),
    };
    let mut decoder = JsonDecoder::new(JsonOptions::default());
    let mut builder = BatchBuilder::new(ARRIVAL_NS);
    for text in [r#"{"ts":1}"#, r#"{"ts":1,"app":"own","lvl":null}"#] {
        decoder
            .object(text, &mut builder, &defaults, Flags::default())
            .unwrap();
    }
    let text = shown(&builder.finish());
    assert_eq!(
        text,
        format!(
            r#"{{{TIME},"level":"INFO","source":"given","message":null}}{{{TIME},"level":"INFO","source":"own","message":null,"lvl":null}}"#
        )
    );
}

#[test]
fn faults_name_their_place() {
    for (text, reason) in [
        ("", "unexpected end of the text at column 1"),
        ("{", "unexpected end of the text at column 2"),
        (r#"{"a" 1}"#, "expected `:` at column 6"),
        (
            r#"{"a":1,}"#,
            "expected a field name in double quotes at column 8",
        ),
        (r#"{"a":1]"#, "expected `,` or `}` at column 7"),
        (r#"{"a":[1}"#, "expected `,` or `]` at column 8"),
        (r#"{"a":tru}"#, "expected a value at column 6"),
        (r#"{"a":01}"#, "a number may not begin with 0 at column 6"),
        (r#"{"a":1.}"#, "expected a digit at column 8"),
        (
            r#"{"a":"x"#,
            "a string has no closing quote; it begins at column 6",
        ),
        (r#"{"a":"\x"}"#, "unknown escape in a string at column 8"),
        (
            r#"{"a":"\u12"}"#,
            "expected four hexadecimal digits after `\\u` at column 9",
        ),
        (
            r#"{"a":1} x"#,
            "unexpected text after the object at column 9",
        ),
        (
            r#"{a:1}"#,
            "expected a field name in double quotes at column 2",
        ),
        ("[1]", "expected an object at column 1"),
    ] {
        let fault = slow::object(text, 32).err().unwrap();
        assert_eq!(fault.reason(), reason, "{text}");
        assert!(decode(text, Path::Either).is_none(), "{text}");
    }
}

#[test]
fn any_depth_is_kept_or_refused_and_never_aborts() {
    for depth in [31, 32, 33, 200, 1_000, 5_000, 200_000] {
        let text = format!(
            r#"{{"ts":1,{}1{}"#,
            r#""a":{"#.repeat(depth - 1) + "\"a\":",
            "}".repeat(depth)
        );
        let batch = decode(&text, Path::Either).unwrap();
        let EntryRef::Record(record) = batch.entries().next().unwrap() else {
            panic!()
        };
        assert_eq!(
            record.flags.contains(Flags::DEEP_JSON),
            32 < depth,
            "{depth}"
        );
        if let Some(fast) = decode(&text, Path::Fast) {
            assert_eq!(fast.as_bytes(), batch.as_bytes());
        }
        let arrays = format!(
            r#"{{"ts":1,"a":{}{}}}"#,
            "[".repeat(depth),
            "]".repeat(depth)
        );
        assert!(decode(&arrays, Path::Either).is_some());
        assert!(decode(&"[".repeat(depth), Path::Either).is_none());
        assert!(decode(&r#"{"a":"#.repeat(depth), Path::Either).is_none());
        assert!(decode(&format!(r#"{{"a":{}"#, "[".repeat(depth)), Path::Either).is_none());
    }
}

#[test]
fn many_fields_are_kept_and_flagged() {
    let members: Vec<_> = (0..10_000).map(|i| format!("\"k{i}\":{i}")).collect();
    let batch = decode(&format!("{{{}}}", members.join(",")), Path::Fast).unwrap();
    let EntryRef::Record(record) = batch.entries().next().unwrap() else {
        panic!()
    };
    assert_eq!(record.n_fields(), 10_000);
    assert!(record.flags.contains(Flags::FIELDS_OVERFLOW));
}

#[test]
fn many_batches_and_shapes_do_not_confuse_the_keys() {
    let mut decoder = JsonDecoder::new(JsonOptions::default());
    for round in 0..50 {
        let mut builder = BatchBuilder::new(ARRIVAL_NS);
        decoder.begin_batch();
        for i in 0..1_000 {
            let text = format!(
                r#"{{"ts":1,"k{}":{i},"o":{{"p{}":1}},"k":2}}"#,
                i * round,
                i % 7
            );
            decoder
                .object(&text, &mut builder, &DEFAULTS, Flags::default())
                .unwrap();
        }
        for (i, entry) in builder.finish().entries().enumerate() {
            let EntryRef::Record(record) = entry else {
                panic!()
            };
            let i = i64::try_from(i).unwrap();
            assert_eq!(
                record.field(&format!("k{}", i * round)),
                Some(ValueRef::Int(i))
            );
            assert_eq!(
                record.field(&format!("o.p{}", i % 7)),
                Some(ValueRef::Int(1))
            );
            assert_eq!(record.n_fields(), 3);
        }
    }
}

mod properties {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Map, Value};

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            (-1000..1000_i32).prop_map(|i| Value::from(f64::from(i) / 8.0)),
            any::<f64>()
                .prop_filter("finite", |f| f.is_finite())
                .prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            "[ -~]{0,80}".prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 40, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                proptest::collection::vec((keys(), inner), 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    fn keys() -> impl Strategy<Value = String> {
        prop_oneof!["k[a-c]{0,2}", "k[.\\\\a\"é]{0,4}", Just(String::new())]
    }

    fn objects() -> impl Strategy<Value = Map<String, Value>> {
        proptest::collection::vec((keys(), values()), 0..8)
            .prop_map(|members| members.into_iter().collect())
    }

    fn fields_of(batch: &Batch) -> Value {
        let mut value: Value = serde_json::from_str(&shown(batch)).unwrap();
        let object = value.as_object_mut().unwrap();
        for name in ["timestamp", "level", "source", "message", "_flags"] {
            object.remove(name);
        }
        value
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn both_readers_keep_what_serde_json_reads(object in objects(), is_pretty in any::<bool>()) {
            let text = if is_pretty {
                serde_json::to_string_pretty(&object).unwrap()
            } else {
                serde_json::to_string(&object).unwrap()
            };
            let slow = decode(&text, Path::Slow).unwrap();
            prop_assert_eq!(fields_of(&slow), Value::Object(object));
            let fast = decode(&text, Path::Fast);
            let Some(fast) = fast else {
                return Err(TestCaseError::fail(text));
            };
            prop_assert_eq!(fast.as_bytes(), slow.as_bytes());
        }

        #[test]
        fn on_any_bytes_the_readers_agree_with_serde_json(object in objects(), at in any::<prop::sample::Index>(), byte in 0x20_u8..0x7f, cut in any::<bool>()) {
            let mut bytes = serde_json::to_vec(&object).unwrap();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if cut { bytes.truncate(at); }
            let Ok(text) = std::str::from_utf8(&bytes) else { return Ok(()) };
            let known = serde_json::from_str::<Map<String, Value>>(text);
            let slow = decode(text, Path::Slow);
            let fast = decode(text, Path::Fast);
            // Only `NaN`, numbers past a double and lone surrogates are read by the slow reader alone.
            if known.is_ok() {
                prop_assert!(slow.is_some(), "{}", text);
            }
            if let Some(fast) = fast {
                prop_assert!(known.is_ok(), "{}", text);
                let slow = slow.unwrap();
                prop_assert_eq!(fast.as_bytes(), slow.as_bytes());
            }
        }
    }
}
