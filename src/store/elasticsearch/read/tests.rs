//! The translation as a table: query text → what Elasticsearch is asked, and whether that is exact.

mod answers;
mod real;

use serde_json::json;

use crate::query::parser::{Context, parse};
use crate::query::{Selection, TimeRange};
use crate::record::{Aliases, Position};
use crate::store::elasticsearch::read::bounds::{Bounds, Query};
use crate::store::elasticsearch::read::catalog::Catalog;
use crate::store::elasticsearch::read::query::{Level, selection};

fn catalog() -> Catalog {
    let mut catalog = Catalog::default();
    catalog.add_caps(&json!({"fields": {
        "level": {"keyword": {}},
        "message": {"text": {}},
        "user": {"keyword": {}},
        "ms": {"long": {}},
        "ms~text": {"keyword": {}},
        "ms~numeric": {"double": {}},
        "ok": {"boolean": {}},
        "share": {"double": {}},
        "ip": {"keyword": {}},
        "ip~ip": {"ip": {}},
        "big~number": {"double": {}},
        "mixed": {"keyword": {"indices": ["logs-a"]}, "long": {"indices": ["logs-b"]}},
    }}));
    catalog
}

/// Everything that a query selects.
fn filter_of(q: &str) -> Selection {
    let aliases = Aliases::default();
    let context = Context {
        aliases: &aliases,
        now_ns: 0,
    };
    Selection {
        range: TimeRange::default(),
        filter: parse(q, context).unwrap(),
        positions: None,
    }
}

fn asked(q: &str, level: Level) -> Bounds {
    selection(&filter_of(q), &catalog(), level).unwrap()
}

/// `clause` of each query in a few characters.
fn shown(query: &Query) -> String {
    let joined = |parts: &[Query], by: &str| {
        let parts: Vec<String> = parts.iter().map(shown).collect();
        format!("({})", parts.join(by))
    };
    match query {
        Query::All => "all".to_owned(),
        Query::Nothing => "nothing".to_owned(),
        Query::And(parts) => joined(parts, " & "),
        Query::Or(parts) => joined(parts, " | "),
        Query::Not(inner) => format!("!{}", shown(inner)),
        Query::Clause(clause) => {
            let (kind, of) = clause.as_object().unwrap().iter().next().unwrap();
            let (field, what) = of.as_object().unwrap().iter().next().unwrap();
            let what = what
                .get("value")
                .or_else(|| what.get("query"))
                .unwrap_or(what);
            format!("{kind} {field} {what}")
        }
    }
}

/// What both queries ask, with what only the upper one asks in `perhaps`.
#[track_caller]
fn check(q: &str, sure: &str, perhaps: &str) {
    let Bounds { lower, upper } = asked(q, Level::Whole);
    assert_eq!(shown(&lower), sure, "surely {q}");
    let more = match (&lower, &upper) {
        _ if lower == upper => String::new(),
        (Query::Nothing, upper) => shown(upper),
        (lower, Query::Or(all)) => {
            let known = match lower {
                Query::Or(known) => known.as_slice(),
                one => std::slice::from_ref(one),
            };
            let more = all.iter().filter(|part| !known.contains(part));
            more.map(shown).collect::<Vec<_>>().join(" | ")
        }
        (_, upper) => shown(upper),
    };
    assert_eq!(more, perhaps, "perhaps {q}");
}

fn exact(q: &str, expected: &str) {
    check(q, expected, "");
}

#[test]
fn words_are_tokens_anywhere_or_under_an_address() {
    exact("", "all");
    exact("Error", "term logyard.any \"error\"");
    exact(
        "\"connection closed\"",
        "match_phrase logyard.any \"connection closed\"",
    );
    exact(
        "true",
        "(term logyard.any \"true\" | term logyard.scalars \"b:true\")",
    );
    check(
        "5e2",
        "(term logyard.any \"5e2\" | term logyard.scalars \"i:500\" | term logyard.scalars \"f:500.0\" | term logyard.scalars \"n:5e2\")",
        "prefix logyard.scalars \"n:\"",
    );
    exact("user:bob", "term logyard.words \"user:bob\"");
    exact(
        "user:\"a b\"",
        "match_phrase logyard.words \"user:a user:b\"",
    );
    exact(
        "service:web",
        "(term logyard.words \"source:web\" | term logyard.words \"service:web\")",
    );
    check(
        "ms:500",
        "(term logyard.words \"ms:500\" | term ms 500)",
        "prefix logyard.overflow \"ms=\"",
    );
    check(
        "ok:true",
        "(term logyard.words \"ok:true\" | term ok true)",
        "prefix logyard.overflow \"ok=\"",
    );
    exact("a -b", "(term logyard.any \"a\" & !term logyard.any \"b\")");
    check("\"---\"", "nothing", "exists field \"logyard.fields\"");
    check(
        "user:\"---\"",
        r#"regexp user ".*\\-\\-\\-.*""#,
        "term logyard.long \"user\" | prefix logyard.overflow \"user=\"",
    );
}

#[test]
fn values_are_asked_of_the_fields_that_hold_them() {
    check(
        "user:=Bob",
        "term user \"Bob\"",
        "prefix logyard.overflow \"user=\"",
    );
    let long = "x".repeat(9_000);
    check(
        &format!("user:={long}"),
        "nothing",
        "(term logyard.long \"user\" | prefix logyard.overflow \"user=\")",
    );
    check(
        "*:=\"Bob x\"",
        "nothing",
        "match_phrase logyard.any \"bob x\"",
    );
    exact("user:*", "term logyard.fields \"user\"");
    check(
        "mixed:=5",
        r#"((terms _index ["logs-a"] & term mixed "5") | (terms _index ["logs-b"] & term mixed 5))"#,
        "prefix logyard.overflow \"mixed=\"",
    );
    check(
        "level:info",
        r#"regexp level "[iI][nN][fF][oO]|[iI][nN][fF][oO][rR][mM][aA][tT][iI][oO][nN]|[iI][nN][fF][oO][rR][mM][aA][tT][iI][oO][nN][aA][lL]|[iI][nN][fF]|[iI]|6""#,
        "term logyard.long \"level\" | prefix logyard.overflow \"level=\"",
    );
    check(
        "ip:10.0.0.0/8",
        "term ip~ip \"10.0.0.0/8\"",
        "prefix logyard.overflow \"ip=\"",
    );
    check(
        "ip:2001:db8::/32",
        "(term ip~ip \"2001:db8::/32\" & !term ip~ip \"0.0.0.0/0\")",
        "prefix logyard.overflow \"ip=\"",
    );
    check(
        "NOT user:=Bob",
        "!(term user \"Bob\" | prefix logyard.overflow \"user=\")",
        "!term user \"Bob\"",
    );
    check("\"a.\":b", "nothing", "all");
}

#[test]
fn ranges_are_sure_but_for_numbers_that_are_texts() {
    check(
        "ms:>=5.5",
        r#"(range ms {"gte":6} | range ms~numeric {"gt":5.5})"#,
        r#"range ms~numeric {"gte":5.5} | prefix logyard.overflow "ms=""#,
    );
    check(
        "ms:[a TO b}",
        r#"range ms~text {"gte":"a","lt":"b"}"#,
        "term logyard.long \"ms\" | prefix logyard.overflow \"ms=\"",
    );
    check(
        "share:<0",
        r#"range share {"lt":-0.0}"#,
        "prefix logyard.overflow \"share=\"",
    );
    check(
        "big:>1e400",
        r#"range big~number {"gt":1.7976931348623157e+308}"#,
        r#"range big~number {"gte":1.7976931348623157e+308} | prefix logyard.overflow "big=""#,
    );
    check(
        "timestamp:>=2020-01-01",
        r#"range logyard.ns {"gte":1577836800000000000}"#,
        "prefix logyard.overflow \"timestamp=\"",
    );
    check(
        "_flags:=truncated",
        r#"terms logyard.flags ["truncated"]"#,
        "prefix logyard.overflow \"_flags=\"",
    );
}

#[test]
fn patterns_are_asked_of_tokens_or_of_whole_texts() {
    check(
        "err*",
        "regexp logyard.any \"err[^#:]*\"",
        "prefix logyard.any \"#\"",
    );
    check(
        "user:*rr*",
        r#"regexp logyard.words "user\\:[^#:]*rr[^#:]*""#,
        "prefix logyard.words \"user:#\" | prefix logyard.overflow \"user=\"",
    );
    let numbers = asked("ms:92233720368547758?", Level::Whole);
    for bound in [numbers.lower, numbers.upper] {
        let shown = shown(&bound);
        let range = r#"range ms {"gte":922337203685477580,"lte":922337203685477589}"#;
        assert!(
            shown.contains(range) && !shown.contains("exists field \"ms\""),
            "{shown}"
        );
    }
    check(
        "ok:tru*",
        r#"(regexp logyard.words "ok\\:tru[^#:]*" | term ok true)"#,
        "prefix logyard.words \"ok:#\" | prefix logyard.overflow \"ok=\"",
    );
    check(
        r"user:/^a-[0-9]+$/",
        r#"regexp user "a\\-([0-9])+""#,
        "term logyard.long \"user\" | prefix logyard.overflow \"user=\"",
    );
    check(
        "/closed$/",
        "nothing",
        "(regexp logyard.any \"[^#:]*clo(s|ſ)ed[^#:]*\" | prefix logyard.any \"#\")",
    );
    let plain = asked("user:/x/ level:warn err*", Level::WithoutPatterns);
    assert!(!shown(&plain.upper).contains("regexp"));
    assert_eq!(
        asked("user:x", Level::RangeAlone),
        Bounds::at_most(Query::All)
    );
}

#[test]
fn time_and_positions_are_bounds_of_their_own() {
    let at = |seq| Position { partition: 3, seq };
    let whole = Selection {
        range: TimeRange {
            start_ns: Some(-5),
            end_ns: Some(7),
        },
        filter: crate::query::Expr::All,
        positions: Some((at(2), at(9))),
    };
    let bounds = selection(&whole, &catalog(), Level::RangeAlone).unwrap();
    assert!(bounds.is_exact());
    assert_eq!(
        bounds.upper.to_json(),
        json!({"bool": {"filter": [
            {"range": {"logyard.ns": {"gte": -5, "lt": 7}}},
            {"term": {"logyard.partition": {"value": 3}}},
            {"range": {"logyard.seq": {"gte": 2, "lt": 9}}},
        ]}})
    );
}
