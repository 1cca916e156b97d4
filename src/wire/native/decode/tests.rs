//! Bodies of every shape, and what becomes of them.

use super::*;
use crate::record::EntryRef;
use crate::wire::native::encode::push_queued_record;

const ARRIVAL_NS: i64 = 1_795_399_200_000_000_000;

fn decode(body: &[u8], hint: Hint) -> Result<Decoded> {
    BodyDecoder::new(DecodeOptions::default()).decode(&Body {
        bytes: body,
        hint,
        defaults: RecordDefaults {
            arrival_ns: ARRIVAL_NS,
            source: None,
            level: None,
        },
    })
}

/// `accepted/dead: message or fields…`, records without their standard head.
fn shown(decoded: &Decoded) -> String {
    let mut out = format!("{}/{}", decoded.accepted, decoded.dead_lettered);
    for entry in decoded.batch.entries() {
        out.push(' ');
        match entry {
            EntryRef::Record(record) => {
                let mut json = Vec::new();
                push_queued_record(&mut json, record);
                let json = String::from_utf8(json).unwrap();
                let value: serde_json::Value = serde_json::from_str(&json).unwrap();
                let mut object = value.as_object().unwrap().clone();
                object.remove("timestamp");
                object.retain(|_, value| !value.is_null());
                if object.get("_flags") == Some(&serde_json::json!(["arrival_time"])) {
                    object.remove("_flags");
                }
                out.push_str(&serde_json::to_string(&object).unwrap());
            }
            EntryRef::DeadLetter(letter) => {
                out.push_str(&format!("!{}", String::from_utf8_lossy(letter.raw)));
            }
        }
    }
    let n_entries = decoded.accepted + decoded.dead_lettered;
    assert_eq!(decoded.batch.len(), n_entries);
    out
}

#[track_caller]
fn check(body: impl AsRef<[u8]>, expected: &str) {
    check_as(Hint::Unknown, body, expected);
}

#[track_caller]
fn check_as(hint: Hint, body: impl AsRef<[u8]>, expected: &str) {
    let body = body.as_ref();
    let got = match decode(body, hint) {
        Ok(decoded) => shown(&decoded),
        Err(error) => format!("{}: {}", error.code, error.message),
    };
    assert_eq!(got, expected, "{}", String::from_utf8_lossy(body));
}

#[test]
fn every_shape_of_json_is_read() {
    check(r#"{"a":1}"#, r#"1/0 {"a":1}"#);
    check("\n {\"a\":1} \r\n\n", r#"1/0 {"a":1}"#);
    check(
        "{\n  \"a\": 1,\n  \"b\": {\n    \"c\": 2\n  }\n}\n",
        r#"1/0 {"a":1,"b":{"c":2}}"#,
    );
    check("{\n\"a\": 1\n}\n{\n\"a\": 2\n}", r#"2/0 {"a":1} {"a":2}"#);
    check(
        "{\"a\":1}\n{\"a\":2}\r\n\n{\"a\":3}",
        r#"3/0 {"a":1} {"a":2} {"a":3}"#,
    );
    check(
        r#"{"a":1}{"a":2} {"a":3}"#,
        r#"3/0 {"a":1} {"a":2} {"a":3}"#,
    );
    check(r#"[{"a":1}, {"a":2}]"#, r#"2/0 {"a":1} {"a":2}"#);
    check(
        "[\n{\"a\":\"]\"},\n\n\"hi\"\n]\n",
        r#"2/0 {"a":"]"} {"message":"hi"}"#,
    );
    check("[]", "0/0");
    check("[{\"a\":1}]\n[{\"a\":2}]", r#"2/0 {"a":1} {"a":2}"#);
    check(r#"[1,{"a":1}]"#, r#"1/0 {"message":"[1,{\"a\":1}]"}"#);
    check_as(
        Hint::Json,
        r#"[{"a":1},1,null,[2]]"#,
        r#"1/3 {"a":1} !1 !null ![2]"#,
    );
    check_as(Hint::Json, "[1, 2]", "0/2 !1 !2");
    for hint in [Hint::Json, Hint::Unknown] {
        check_as(
            hint,
            "{\"a\":1}\n\"hi\"\n7\nnull\n",
            r#"2/2 {"a":1} {"message":"hi"} !7 !null"#,
        );
    }
}

#[test]
fn broken_lines_are_dead_letters_and_the_others_are_kept() {
    check(
        "{\"a\":1}\nnot json\n{\"a\":3}\n{\"a\":\n",
        "2/2 {\"a\":1} !not json {\"a\":3} !{\"a\":",
    );
    check("{\"a\" 1}\n{\"a\":2}\n", "1/1 !{\"a\" 1} {\"a\":2}");
    check("{broken\n{also broken\n", "0/2 !{broken !{also broken");
    check("{\"a\":1}\n[{\"b\":1},{]\n", "1/1 {\"a\":1} ![{\"b\":1},{]");
    check(
        "{\"a\":1}\n{\"b\":2}{\"c\"}\n",
        "2/1 {\"a\":1} {\"b\":2} !{\"c\"}",
    );
    check(
        "{\"a\":1}\n{\"b\":2} tail\n",
        "2/1 {\"a\":1} {\"b\":2} !tail",
    );
    let decoded = decode(b"{\"a\":1}\n\n{\"a\" 1}\r\n7", Hint::Unknown).unwrap();
    assert_eq!(
        decoded.errors,
        [
            LineError {
                line: 3,
                code: "invalid_json",
                reason: "expected `:` at column 6".into(),
                excerpt: "{\"a\" 1}".into(),
            },
            LineError {
                line: 4,
                code: "not_an_object",
                reason: "expected an object, found a number".into(),
                excerpt: "7".into(),
            }
        ]
    );
}

#[test]
fn errors_are_all_counted_and_the_first_are_listed() {
    let body = format!(
        "{{\"a\":1}}\n{}",
        format!("{}\n", "é".repeat(300)).repeat(250)
    );
    let decoded = decode(body.as_bytes(), Hint::Unknown).unwrap();
    assert_eq!((decoded.accepted, decoded.dead_lettered), (1, 250));
    assert_eq!(decoded.errors.len(), 100);
    assert_eq!(decoded.errors[0].excerpt, "é".repeat(200));
}

#[test]
fn a_body_that_is_broken_as_a_whole_is_refused() {
    for (body, expected) in [
        ("", "empty_body: the body is empty"),
        (" \r\n\n", "empty_body: the body is empty"),
        (
            "{\"a\":",
            "invalid_json: the body is not valid JSON: unexpected end of the text at column 6",
        ),
        (
            "{broken}",
            "invalid_json: the body is not valid JSON: expected a field name in double quotes at column 2",
        ),
        (
            "{\n \"a\": 1,\n \"b\" 2\n}\n",
            "invalid_json: the body is not valid JSON: expected `:` at line 3 column 6",
        ),
        (
            "{\n \"a\": [\n{}\n,\n}\n",
            "invalid_json: the body is not valid JSON: expected a value at line 5 column 1",
        ),
        (
            "[{\"a\":1},{\"a\" 2}]",
            "invalid_json: the body is not valid JSON: expected `:` at column 15",
        ),
        (
            "[{\"a\":1}",
            "invalid_json: the body is not valid JSON: unexpected end of the text at column 9",
        ),
        (
            "[{\"a\":1},]",
            "invalid_json: the body is not valid JSON: expected a value at column 10",
        ),
        (
            "[{\"a\":1} {\"a\":1}]",
            "invalid_json: the body is not valid JSON: expected `,` or `]` at column 10",
        ),
    ] {
        let error = decode(body.as_bytes(), Hint::Unknown).unwrap_err();
        let got = format!("{}: {}", error.code, error.message);
        assert!(got.starts_with(expected), "{body}: {got}");
    }
    let error = decode(b"hello", Hint::Json).unwrap_err();
    assert!(error.message.contains("text/plain"), "{error}");
}

#[test]
fn text_is_one_record_for_each_line() {
    check(
        "hello\nworld\r\n\n  \nERROR: no\n",
        r#"3/0 {"message":"hello"} {"message":"world"} {"level":"ERROR","message":"ERROR: no"}"#,
    );
    check_as(Hint::Text, "{\"a\":1}\n", r#"1/0 {"message":"{\"a\":1}"}"#);
    check(
        "starting\n{\"a\":1}\n{broken\n",
        r#"3/0 {"message":"starting"} {"a":1} {"message":"{broken"}"#,
    );
    check(
        "[error] no\n",
        r#"1/0 {"level":"error","message":"[error] no"}"#,
    );
    check("7\n", r#"1/0 {"message":"7"}"#);
}

#[test]
fn marks_other_encodings_and_broken_utf8_are_kept_readable() {
    check(b"\xef\xbb\xbf{\"a\":1}", r#"1/0 {"a":1}"#);
    for bom in [true, false] {
        let text: Vec<u16> = bom
            .then_some(0xfeff)
            .into_iter()
            .chain("{\"a\":\"é😀\"}".encode_utf16())
            .collect();
        let little: Vec<u8> = text.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        let big: Vec<u8> = text.iter().flat_map(|unit| unit.to_be_bytes()).collect();
        check(little, r#"1/0 {"a":"é😀"}"#);
        check(big, r#"1/0 {"a":"é😀"}"#);
    }
    check(
        b"{\"a\":\"\xff\"}\n{\"a\":\"x\"}",
        "2/0 {\"_flags\":[\"arrival_time\",\"invalid_utf8\"],\"a\":\"\u{fffd}\"} {\"a\":\"x\"}",
    );
    check(
        b"a\xc0\xafb\n",
        "1/0 {\"_flags\":[\"arrival_time\",\"invalid_utf8\"],\"message\":\"a\u{fffd}\u{fffd}b\"}",
    );
    check(b"{\"a\":1}\n{\xff}\n", "1/1 {\"a\":1} !{\u{fffd}}");
    check("a\0b\n", r#"1/0 {"message":"a\u0000b"}"#);
}

#[test]
fn long_lines_are_cut_kept_or_set_aside_and_the_next_line_is_whole() {
    let long = "é".repeat(200_000);
    let decoded = decode(format!("{long}\nnext\n").as_bytes(), Hint::Text).unwrap();
    let records: Vec<_> = decoded.batch.entries().collect();
    let [EntryRef::Record(cut), EntryRef::Record(next)] = records[..] else {
        panic!("{}", records.len())
    };
    assert!(cut.flags.contains(Flags::TRUNCATED));
    assert_eq!(
        cut.field("_original_bytes"),
        Some(crate::record::ValueRef::Int(400_000))
    );
    let Some(crate::record::ValueRef::Str(kept)) = cut.field("message") else {
        panic!()
    };
    assert_eq!(kept.len(), 256 << 10);
    assert_eq!(
        next.field("message"),
        Some(crate::record::ValueRef::Str("next"))
    );

    let wide = format!("{{\"a\":\"{}\"}}", "x".repeat(1 << 20));
    let decoded = decode(format!("{wide}\n{{\"a\":1}}\n").as_bytes(), Hint::Unknown).unwrap();
    assert_eq!((decoded.accepted, decoded.dead_lettered), (2, 0));

    let huge = format!("{{\"a\":\"{}\"}}", "x".repeat(3 << 20));
    let decoded = decode(
        format!("{{\"a\":1}}\n{huge}\n{{\"a\":1}}\n").as_bytes(),
        Hint::Unknown,
    )
    .unwrap();
    assert_eq!((decoded.accepted, decoded.dead_lettered), (2, 1));
    assert_eq!(decoded.errors[0].code, "line_too_long");
    assert_eq!(
        decode(huge.as_bytes(), Hint::Unknown).unwrap_err().code,
        "record_too_large"
    );
}

#[test]
fn names_without_end_are_refused_before_they_fill_the_memory() {
    let lines: String = (0..200_000).map(|i| format!("{{\"k{i}\":1}}\n")).collect();
    let error = decode(lines.as_bytes(), Hint::Unknown).unwrap_err();
    assert_eq!(
        (error.kind, error.code),
        (ErrorKind::TooLarge, "too_many_field_names")
    );
}

#[test]
fn what_would_grow_beyond_all_bounds_is_refused() {
    let options = DecodeOptions {
        batch_bytes_max: 1 << 20,
        ..DecodeOptions::default()
    };
    for body in [
        "a\n".repeat(100_000),
        "{}\n".repeat(100_000),
        "{}\n1\n".repeat(50_000),
        format!("[{}{{}}]", "1,".repeat(50_000)),
        format!("[{}{{}}]", "{},".repeat(50_000)),
    ] {
        let error = BodyDecoder::new(options.clone())
            .decode(&Body {
                bytes: body.as_bytes(),
                hint: if body.starts_with('[') {
                    Hint::Json
                } else {
                    Hint::Unknown
                },
                defaults: RecordDefaults {
                    arrival_ns: ARRIVAL_NS,
                    source: None,
                    level: None,
                },
            })
            .unwrap_err();
        assert_eq!(error.kind, ErrorKind::TooLarge, "{error}");
    }
}

#[test]
fn what_does_not_end_is_refused_however_long_it_is() {
    for (body, what) in [
        (
            format!("{{\"a\":\"{}", "x".repeat(5 << 20)),
            "an object does not end",
        ),
        (
            format!("[{{\"a\":\"{}", "x".repeat(5 << 20)),
            "a string has no closing quote",
        ),
        (format!("[{{\"a\":1}}{}", ",".repeat(5 << 20)), "expected"),
        ("{\"a\":".repeat(1 << 20), "an object does not end"),
    ] {
        let error = decode(body.as_bytes(), Hint::Unknown).unwrap_err();
        assert_eq!(error.code, "invalid_json");
        assert!(error.message.contains(what), "{what}: {error}");
    }
    let broken = [b"{\"a\":\"".to_vec(), vec![0xff; 5 << 20]].concat();
    assert_eq!(
        decode(&broken, Hint::Unknown).unwrap_err().code,
        "invalid_json"
    );
    let decoded = decode(&vec![0xff; 5 << 20], Hint::Unknown).unwrap();
    let Some(EntryRef::Record(record)) = decoded.batch.entries().next() else {
        panic!()
    };
    assert_eq!(
        record.field("_original_bytes"),
        Some(crate::record::ValueRef::Int(5 << 20))
    );
    assert!(decoded.batch.as_bytes().len() < 1 << 20);
}

#[test]
fn content_types_are_hints() {
    for (value, expected) in [
        ("application/json", Hint::Json),
        ("Application/X-NDJSON; charset=utf-8", Hint::Json),
        ("application/vnd.api+json", Hint::Json),
        ("text/plain", Hint::Text),
        ("application/octet-stream", Hint::Unknown),
        ("application/x-www-form-urlencoded", Hint::Unknown),
        ("", Hint::Unknown),
        ("garbage", Hint::Unknown),
    ] {
        assert_eq!(Hint::from_content_type(value).unwrap(), expected, "{value}");
    }
    let error = Hint::from_content_type("multipart/form-data; boundary=x").unwrap_err();
    assert_eq!(error.kind, ErrorKind::UnsupportedMedia);
}

proptest::proptest! {
    #[test]
    fn no_body_makes_it_panic(body in proptest::collection::vec(proptest::sample::select(&b"{}[]\",:\\ \n\r\tatu0-.e\xff\xef\xbb\xbf\x00<>=|"[..]), 0..200), hint in proptest::sample::select(&[Hint::Json, Hint::Text, Hint::Unknown][..])) {
        if let Ok(decoded) = decode(&body, hint) {
            shown(&decoded);
            Batch::from_bytes(decoded.batch.as_bytes().clone()).unwrap();
        }
    }
}
