//! The language by example, faults with their places, and two properties: no text makes the parser panic, and what it reads prints and reads back.

use proptest::prelude::*;

use super::*;
use crate::query::printer::to_text;

/// 2025-03-20T12:00:00Z.
const NOW: i64 = 1_742_472_000_000_000_000;

fn read(text: &str) -> Result<Expr> {
    let aliases = Aliases::default();
    parse(
        text,
        Context {
            aliases: &aliases,
            now_ns: NOW,
        },
    )
}

fn check(text: &str, normal_form: &str) {
    match read(text) {
        Ok(expr) => assert_eq!(to_text(&expr), normal_form, "{text}"),
        Err(error) => panic!("{text}: {error} at {:?}", error.position),
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of examples")]
fn the_language_by_example() {
    for (text, normal_form) in [
        ("", "*"),
        ("  ", "*"),
        ("*", "*"),
        ("error", r#""error""#),
        (r#""connection closed""#, r#""connection closed""#),
        ("a b", r#"("a" AND "b")"#),
        ("a AND b OR c", r#"(("a" AND "b") OR "c")"#),
        ("a OR b c", r#"("a" OR ("b" AND "c"))"#),
        ("NOT a -b !c", r#"(NOT "a" AND NOT "b" AND NOT "c")"#),
        ("a - b", r#"("a" AND "-" AND "b")"#),
        ("(a OR b) c", r#"(("a" OR "b") AND "c")"#),
        ("and or not", r#"("and" AND "or" AND "not")"#),
        ("ANDROID", r#""ANDROID""#),
        ("http.status:500", r#""http.status":"500""#),
        ("http.status:>=500", r#""http.status":["500" TO *]"#),
        (
            "a:>5 b:<6 c:<=7",
            r#"("a":{"5" TO *] AND "b":[* TO "6"} AND "c":[* TO "7"])"#,
        ),
        (
            "duration_ms:[10 TO 100}",
            r#""duration_ms":["10" TO "100"}"#,
        ),
        (r#"d:{* TO "b c"]"#, r#""d":[* TO "b c"]"#),
        ("message:time*out", r#""message":time*out"#),
        ("ho?t", "ho?t"),
        (r"ho\?t", r#""ho?t""#),
        ("*part*", "*part*"),
        (r"path:/^\/api\/v[12]/", r#""path":/^\/api\/v[12]/"#),
        ("path:/api/v1", r#""path":"/api/v1""#),
        ("/a b/ c", r#"(/a b/ AND "c")"#),
        ("user:=Bob", r#""user":="Bob""#),
        (r#"user:="Bob B""#, r#""user":="Bob B""#),
        ("trace_id:*", r#""trace_id":*"#),
        ("_exists_:trace_id", r#""trace_id":*"#),
        ("client_ip:10.0.0.0/8", r#""client_ip":10.0.0.0/8"#),
        ("ip:2001:db8::/32", r#""ip":2001:db8::/32"#),
        ("path:a/b", r#""path":"a/b""#),
        ("url:http://x/y", r#""url":"http://x/y""#),
        ("service:backend", r#""service":"backend""#),
        (r#""my field":1"#, r#""my field":"1""#),
        (r"my\ field:1", r#""my field":"1""#),
        (
            "status:(500 OR 503)",
            r#"("status":"500" OR "status":"503")"#,
        ),
        (
            "status:(>=500 -503)",
            r#"("status":["500" TO *] AND NOT "status":"503")"#,
        ),
        (r#"path:"C:\temp""#, r#""path":"C:\\temp""#),
        (r#"m:"say \"hi\"""#, r#""m":"say \"hi\"""#),
        ("---", r#"NOT NOT "-""#),
        ("ü:ß", r#""ü":"ß""#),
        ("*:*", "*"),
        ("*:*:a *:-b* *:c", r#"(*:*:a AND *:-b* AND "c")"#),
        ("*:>5", r#"*:{"5" TO *]"#),
        ("*:10.0.0.0/8", "*:10.0.0.0/8"),
        ("*:(a OR =b)", r#"("a" OR *:="b")"#),
        (r#"user:"""#, r#""user":="""#),
        ("// x", r#"("//" AND "x")"#),
        ("https://a.b/c", r#""https://a.b/c""#),
        ("10:30:45.123", r#""10:30:45.123""#),
        ("10:30", r#""10:30""#),
        ("fe80::1 [::1]:80", r#"("fe80::1" AND "[::1]:80")"#),
        ("00:1b:44:11:3a:b7", r#""00:1b:44:11:3a:b7""#),
        ("a:b:c", r#""a":"b:c""#),
    ] {
        check(text, normal_form);
    }
}

#[test]
fn levels_mean_their_synonyms_and_times_are_times() {
    check("level:ERR", r#""level":"error""#);
    check("level:>e", r#""level":"critical""#);
    check("level:>c", "NOT *");
    check(
        "level:>=warn",
        r#"("level":"warn" OR "level":"error" OR "level":"critical")"#,
    );
    check(
        "level:(error OR audit)",
        r#"("level":"error" OR "level":"audit")"#,
    );
    check(
        "timestamp:>=2025-03-20",
        r#""timestamp":["2025-03-20T00:00:00.000000000Z" TO *]"#,
    );
    check(
        "timestamp:>-1h",
        r#""timestamp":{"2025-03-20T11:00:00.000000000Z" TO *]"#,
    );
    check(
        "timestamp:2025-03-20",
        r#""timestamp":["2025-03-20T00:00:00.000000000Z" TO "2025-03-21T00:00:00.000000000Z"}"#,
    );
}

#[test]
fn a_fault_says_where_it_is() {
    for (text, position, part) in [
        ("a (b", 2, "never closed"),
        ("a b)", 3, "closes nothing"),
        ("a ()", 2, "empty parentheses"),
        ("a AND", 5, "after `AND`"),
        ("OR a", 0, "before `OR`"),
        ("a AND OR b", 6, "before `OR`"),
        ("NOT", 3, "after `NOT`"),
        ("a:", 2, "expected a value after `a:`"),
        (":x", 0, "a field's name"),
        ("say \"hi", 4, "never closed"),
        ("a:[1 2]", 5, "`TO`"),
        ("a:[1 TO 2", 2, "never closed"),
        ("a:/(/", 2, "regular expression"),
        ("a:(b:c)", 3, "another field"),
        ("timestamp:>banana", 10, "not a time"),
        ("a \\", 2, "backslash"),
        ("a:=", 3, "expected a value"),
        ("http.*:5", 0, "takes no wildcard"),
        ("timestamp:2025-*", 10, "no wildcard"),
        ("a \"\"", 2, "nothing stands"),
    ] {
        let error = read(text).unwrap_err();
        assert_eq!(error.position, Some(position), "{text}: {error}");
        assert!(error.message.contains(part), "{text}: {error}");
        assert_eq!(error.parameter.as_deref(), Some("q"), "{text}");
    }
}

#[test]
fn limits_are_refused_in_linear_time() {
    let many = |part: &str, count: usize| part.repeat(count);
    for text in [
        many("a", QUERY_BYTES_MAX + 1),
        many("a ", TERMS_MAX + 1),
        format!("{}a{}", many("(", DEPTH_MAX + 1), many(")", DEPTH_MAX + 1)),
        many("-", 1_000) + "a",
        format!("/{}/", many("a", 1_025)),
        "/(a{1000}){1000}/".to_owned(),
        many("*a", 100),
    ] {
        let error = read(&text).unwrap_err();
        assert_eq!(error.code, "invalid_query", "{error}");
    }
    read(&format!(
        "{}a{}",
        many("(", DEPTH_MAX),
        many(")", DEPTH_MAX)
    ))
    .unwrap();
    read(&many("a ", TERMS_MAX)).unwrap();
}

proptest! {
    #[test]
    fn no_text_makes_it_panic_and_what_is_read_reads_back(text in "[ab \\\\:\"/*?()\\[\\]{}<>=!.TOANDR0-9é-]{0,40}|\\PC{0,40}|level:[a-z>=]{1,8}|timestamp:[0-9nowdhm/+-]{1,9}") {
        if let Ok(expr) = read(&text) {
            let normal = to_text(&expr);
            let again = read(&normal);
            prop_assert!(again.is_ok(), "{text} -> {normal}: {again:?}");
            if let Ok(again) = again {
                prop_assert_eq!(to_text(&again), normal);
            }
        }
    }
}
