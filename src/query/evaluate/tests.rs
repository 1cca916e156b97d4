//! Filters on whole records: addresses, arrays, negation, time and flags.

use std::ops::Bound;

use super::*;
use crate::query::text::tokens;
use crate::record::{BatchBuilder, EntryRef};

fn words(address: &str, text: &str) -> Expr {
    let field = match address {
        "" => Field::Any,
        _ => Field::Addresses(address.split('|').map(str::to_owned).collect()),
    };
    Expr::Term(Term {
        field,
        matcher: Match::Words {
            text: text.to_owned(),
            tokens: tokens(text),
        },
    })
}

fn term(address: &str, matcher: Match) -> Expr {
    Expr::Term(Term {
        field: Field::Addresses(vec![address.to_owned()]),
        matcher,
    })
}

/// Evaluates on a record at 1,000 ns with the flag `truncated`.
fn matches(expr: &Expr, fields: &[(&str, ValueRef<'_>)]) -> bool {
    let mut builder = BatchBuilder::new(0);
    builder.begin_record();
    for (key, value) in fields {
        builder.field(key, *value);
    }
    builder.end_record(1_000, 0, Flags::TRUNCATED);
    let batch = builder.finish();
    let Some(EntryRef::Record(record)) = batch.entries().next() else {
        panic!("no record");
    };
    let compiled = CompiledExpr::new(expr).unwrap();
    let owned = Record {
        key: crate::record::RecordKey {
            timestamp_ns: 1_000,
            position: Position::default(),
        },
        timestamp_digits: 0,
        flags: Flags::TRUNCATED,
        fields: fields
            .iter()
            .map(|(key, value)| ((*key).into(), value.to_value()))
            .collect(),
    };
    assert_eq!(compiled.matches(&record), compiled.matches(&owned));
    compiled.matches(&record)
}

use ValueRef::{Int, Json, Null, Str};

#[test]
fn nested_and_dotted_names_are_one_address() {
    let asked = words("http.status", "500");
    assert!(matches(&asked, &[("http.status", Int(500))]));
    assert!(matches(&asked, &[("http\\.status", Int(500))]));
    assert!(matches(
        &asked,
        &[("http.status", Int(1)), ("http\\.status", Int(500))]
    ));
    assert!(!matches(&asked, &[("http.status2", Int(500))]));
    assert!(!matches(
        &words("http", "500"),
        &[("http.status", Int(500))]
    ));
    assert!(matches(
        &words("source|service", "x"),
        &[("service", Str("x"))]
    ));
}

#[test]
fn arrays_answer_for_their_elements_and_the_addresses_inside() {
    let field = [("a", Json(r#"[{"b":1},{"b":{"c":[2,"x y"]}},{"b.d":3},7]"#))];
    for (address, text, expected) in [
        ("a", "7", true),
        ("a", "1", true),
        ("a", "x y", true),
        ("a.b", "1", true),
        ("a.b.c", "2", true),
        ("a.b", "2", true),
        ("a.b.d", "3", true),
        ("a.b.c", "1", false),
        ("a.bb", "1", false),
        ("a.c", "2", false),
        ("b", "1", false),
        ("", "3", true),
    ] {
        assert_eq!(
            matches(&words(address, text), &field),
            expected,
            "{address}:{text}"
        );
    }
    assert!(matches(&term("a.b", Match::Exists), &field));
    assert!(!matches(&term("a.x", Match::Exists), &field));
    assert!(matches(&term("a", Match::Exists), &[("a", Json("[]"))]));
    assert!(matches(
        &term("a.b", Match::Exists),
        &[("a", Json(r#"[{"b":[]}]"#))]
    ));
    assert!(!matches(
        &term("a.b", Match::Exists),
        &[("a", Json(r#"[{"b":null}]"#))]
    ));
}

#[test]
fn null_matches_only_a_negation() {
    let fields = [("a", Null)];
    assert!(!matches(&term("a", Match::Exists), &fields));
    assert!(!matches(&words("a", "null"), &fields));
    assert!(matches(&Expr::Not(Box::new(words("a", "null"))), &fields));
}

#[test]
fn the_time_is_asked_by_range_in_nanoseconds() {
    let range = |low: Bound<&str>, high: Bound<&str>| {
        term(
            "timestamp",
            Match::Range {
                low: low.map(str::to_owned),
                high: high.map(str::to_owned),
            },
        )
    };
    assert!(matches(
        &range(Bound::Included("1000"), Bound::Unbounded),
        &[]
    ));
    assert!(!matches(
        &range(Bound::Excluded("1000"), Bound::Unbounded),
        &[]
    ));
    assert!(!matches(
        &range(Bound::Unbounded, Bound::Excluded("1000")),
        &[]
    ));
    assert!(!matches(
        &range(Bound::Included("x"), Bound::Unbounded),
        &[]
    ));
    assert!(matches(&term("timestamp", Match::Exists), &[]));
    assert!(!matches(&words("timestamp", "1000"), &[]));
    assert!(!matches(&words("", "1000"), &[]));
    assert!(matches(
        &words("timestamp", "nonsense"),
        &[("timestamp", Str("nonsense"))]
    ));
}

#[test]
fn flags_are_asked_by_name() {
    assert!(matches(&words("_flags", "truncated"), &[]));
    assert!(!matches(&words("_flags", "deep_json"), &[]));
    assert!(!matches(&words("", "truncated"), &[]));
}

#[test]
fn operators_combine() {
    let (a, b) = (words("", "a"), words("", "b"));
    let fields = [("m", Str("a")), ("n", Str("c"))];
    assert!(!matches(&a.clone().and(b.clone()), &fields));
    assert!(matches(&Expr::Or(vec![b.clone(), a.clone()]), &fields));
    assert!(matches(&a.and(Expr::Not(Box::new(b))), &fields));
    assert!(matches(&Expr::And(vec![]), &fields));
    assert!(!matches(&Expr::Or(vec![]), &fields));
}

#[test]
fn a_selection_adds_time_and_positions() {
    let position = |seq| Position { partition: 1, seq };
    let record = Record {
        key: crate::record::RecordKey {
            timestamp_ns: 5,
            position: position(7),
        },
        timestamp_digits: 0,
        flags: Flags::default(),
        fields: vec![],
    };
    let check = |start_ns, end_ns, positions| {
        let selection = Selection {
            range: TimeRange { start_ns, end_ns },
            filter: Expr::All,
            positions,
        };
        CompiledSelection::new(&selection)
            .unwrap()
            .matches(record.key.position, &record)
    };
    assert!(check(Some(5), Some(6), None));
    assert!(!check(Some(6), None, None));
    assert!(!check(None, Some(5), None));
    assert!(check(None, None, Some((position(7), position(8)))));
    assert!(!check(None, None, Some((position(6), position(7)))));
    let other = Position {
        partition: 0,
        seq: 0,
    };
    let other_end = Position {
        partition: 0,
        seq: 99,
    };
    assert!(!check(None, None, Some((other, other_end))));
}
