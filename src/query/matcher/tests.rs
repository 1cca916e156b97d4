//! Each match against each type of value.

use super::*;
use crate::query::text::tokens;

fn words(text: &str) -> Match {
    Match::Words {
        text: text.to_owned(),
        tokens: tokens(text),
    }
}

fn range(low: Bound<&str>, high: Bound<&str>) -> Match {
    Match::Range {
        low: low.map(str::to_owned),
        high: high.map(str::to_owned),
    }
}

#[track_caller]
fn check(wanted: &Match, matching: &[ValueRef<'_>], others: &[ValueRef<'_>]) {
    let matcher = Matcher::new(wanted).unwrap();
    for value in matching {
        assert!(matcher.matches(*value), "{wanted:?} should match {value:?}");
    }
    for value in others {
        assert!(
            !matcher.matches(*value),
            "{wanted:?} should not match {value:?}"
        );
    }
    assert!(!matcher.matches(ValueRef::Null), "{wanted:?} matches null");
}

use ValueRef::{Bool, Float, Int, Json, Number as Num, Str};

#[test]
fn words_match_texts_by_token_and_numbers_by_value() {
    check(
        &words("500"),
        &[
            Int(500),
            Float(500.0),
            Num("500.000"),
            Str("status=500"),
            Json("[1,500]"),
            Json(r#"{"a":["x 500"]}"#),
        ],
        &[
            Int(50),
            Str("5000"),
            Bool(true),
            Json("[]"),
            Json(r#"{"500":1}"#),
        ],
    );
    check(
        &words("True"),
        &[Bool(true), Str("TRUE")],
        &[Bool(false), Int(1)],
    );
    check(&words("-5"), &[Int(-5), Str("a 5")], &[Int(5)]);
    check(
        &words("a\nb"),
        &[Str("A B"), Json(r#"["a\nb"]"#)],
        &[Json(r#"["a","b"]"#)],
    );
    check(&words("n b"), &[], &[Json(r#"["a\nb"]"#)]);
}

#[test]
fn exact_is_the_whole_text_with_case() {
    let exact = |text: &str| Match::Exact(text.to_owned());
    check(
        &exact("Bob"),
        &[Str("Bob"), Json(r#"["Bob"]"#)],
        &[Str("bob"), Str("Bob ")],
    );
    check(&exact(""), &[Str("")], &[Str(" "), Json("[]"), Int(0)]);
    check(
        &exact("1.0"),
        &[Int(1), Float(1.0), Str("1.0")],
        &[Str("1"), Bool(true)],
    );
    check(&exact("true"), &[Bool(true), Str("true")], &[Str("True")]);
}

#[test]
fn one_of_ignores_case() {
    check(
        &Match::OneOf(vec!["Err".to_owned(), "3".to_owned()]),
        &[Str("ERR"), Str("err"), Int(3), Str("3"), Num("3")],
        &[Str("error"), Float(3.0), Int(33), Str("err ")],
    );
}

#[test]
fn wildcards_stay_inside_a_word_and_mind_its_edges() {
    let wildcard = |text: &str| Match::Wildcard(text.to_owned());
    check(
        &wildcard("time*out"),
        &[
            Str("a TIMEOUT!"),
            Str("time-x-out"),
            Str("my_timeout_"),
            Json(r#"["timeout"]"#),
        ],
        &[
            Str("time out"),
            Str("xtimeout"),
            Str("timeouts"),
            Str("étimeout"),
        ],
    );
    check(
        &wildcard("*out"),
        &[Str("xtimeout"), Str("out")],
        &[Str("outs")],
    );
    check(
        &wildcard("5?0"),
        &[Int(500), Num("5.0"), Str("510 x")],
        &[Int(5000), Int(50), Str("5 0")],
    );
    check(&wildcard("t*e"), &[Bool(true)], &[Bool(false)]);
    check(
        &wildcard(r"a\*b\?"),
        &[Str("a*b?")],
        &[Str("axb?"), Str("a*bx")],
    );
    check(&wildcard("a.b*"), &[Str("a.bc")], &[Str("axbc")]);
    check(&wildcard("/api/*"), &[Str("x/api/v1")], &[Str("/ap")]);
}

#[test]
fn regular_expressions_see_the_raw_text() {
    let regex = |text: &str| Match::Regex(text.to_owned());
    check(
        &regex("^/api/v[12]/"),
        &[Str("/api/v1/x")],
        &[Str("x/api/v1/"), Str("/API/v1/")],
    );
    check(&regex("^5..$"), &[Int(503), Str("5xx")], &[Int(50)]);
    for bad in ["(", "a{1000}{1000}{1000}", &"(".repeat(300), "[z-a]"] {
        let error = Matcher::new(&regex(bad)).unwrap_err();
        assert_eq!(error.code, "invalid_query", "{bad}");
        assert!(!error.message.contains('\n'), "{}", error.message);
    }
}

#[test]
fn ranges_compare_numbers_or_texts() {
    use Bound::{Excluded, Included, Unbounded};
    check(
        &range(Included("10"), Excluded("100")),
        &[
            Int(10),
            Float(99.9),
            Str("50"),
            Num("10.00000000000000000000001"),
            Json("[1,11]"),
        ],
        &[Int(100), Int(9), Str("abc"), Str("100"), Bool(true)],
    );
    check(
        &range(Excluded("0.5"), Unbounded),
        &[Int(1), Float(0.6)],
        &[Int(0), Float(0.5)],
    );
    check(
        &range(Included("b"), Included("d")),
        &[Str("b"), Str("c2"), Str("d")],
        &[Str("a"), Str("d2"), Int(5), Str("B")],
    );
    check(
        &range(Included("1"), Included("b")),
        &[Str("5"), Str("a")],
        &[Int(5)],
    );
    check(
        &range(Unbounded, Unbounded),
        &[Bool(true), Str(""), Json("[]")],
        &[],
    );
    check(&range(Included("5"), Included("1")), &[], &[Int(3), Int(5)]);
}

#[test]
fn networks_hold_addresses() {
    let net = |text: &str| Match::Cidr(text.parse().unwrap());
    check(
        &net("10.1.2.3/8"),
        &[
            Str("10.255.0.1"),
            Str("::ffff:10.0.0.1"),
            Json(r#"["10.0.0.1"]"#),
        ],
        &[
            Str("11.0.0.1"),
            Str("10.0.0.1:80"),
            Str("10.0.0.1 "),
            Int(10),
            Str("::1"),
        ],
    );
    check(
        &net("2001:db8::/32"),
        &[Str("2001:db8::1")],
        &[Str("2001:db9::1"), Str("10.0.0.1")],
    );
}

#[test]
fn terms_without_a_token_are_searched_in_the_raw_text() {
    check(
        &words("---"),
        &[Str("a --- b"), Json(r#"["---"]"#)],
        &[Str("--"), Int(-1), Bool(true)],
    );
    check(
        &Match::Contains("É!".to_owned()),
        &[Str("xé!")],
        &[Str("e!")],
    );
}
