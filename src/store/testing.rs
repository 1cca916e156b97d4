//! Random records and questions for the stores' tests: few names and few values, so that terms hit often and types collide.

use std::ops::Bound;
use std::sync::Arc;

use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom as _;

use crate::query::{Expr, Field, Match, Order, SearchRequest, Selection, Term, TimeRange};
use crate::record::{BatchBuilder, Flags, Position, QueuedBatch, Record, RecordKey, Value};

/// 2025-03-19T23:59:00Z: records lie on both sides of a midnight.
pub const BASE_NS: i64 = 1_742_428_740_000_000_000;
const SECOND_NS: i64 = 1_000_000_000;

const KEYS: [&str; 14] = [
    "level",
    "source",
    "message",
    "http.status",
    "http\\.status",
    "a",
    "a.b",
    "a.b.c",
    "tags",
    "user\\.name",
    "größe",
    "timestamp",
    "d",
    "e",
];
const ADDRESSES: [&str; 15] = [
    "level",
    "source",
    "message",
    "http.status",
    "http",
    "a",
    "a.b",
    "a.b.c",
    "tags",
    "user.name",
    "größe",
    "timestamp",
    "_flags",
    "d",
    "nothing",
];
const TEXTS: [&str; 22] = [
    "error",
    "Error: connection closed",
    "the connection was closed by peer",
    "INFO",
    "info",
    "WARN",
    "500",
    "5e2",
    "12.50",
    "true",
    "",
    "---",
    "java.lang.NullPointerException at a.b(C.java:12)",
    "naïve ÄRGER größe",
    "\u{212a}elvin k9",
    "10.0.0.7",
    "192.168.1.1",
    "::1",
    "/api/v1/users?id=7",
    "日本語 ログ",
    "x\u{0}y \"quoted\" \\ back",
    "Bob",
];
const JSONS: [&str; 9] = [
    "[]",
    "{}",
    "[1,2,3]",
    "[\"error\",\"Bob\",null]",
    "[{\"b\":1},{\"b\":{\"c\":\"connection closed\"}}]",
    "[[\"a\\u0062\",true],500]",
    "[{\"b.c\":5.5,\"x\":[]}]",
    "[\"true\",false,18446744073709551616]",
    "[null]",
];

/// `count` records with positions from `first_seq` on, in order of position.
pub fn records(rng: &mut SmallRng, first_seq: u64, count: usize) -> Vec<Record> {
    let span_s = *[1, 3, 120, 4_000].choose(rng).unwrap();
    (0..count)
        .map(|index| Record {
            key: RecordKey {
                timestamp_ns: BASE_NS
                    + rng.random_range(0..span_s) * SECOND_NS
                    + if rng.random_bool(0.2) {
                        rng.random_range(0..3)
                    } else {
                        0
                    },
                position: Position {
                    partition: 0,
                    seq: first_seq + index as u64,
                },
            },
            timestamp_digits: rng.random_range(0..10),
            flags: Flags(*[0, 0, 0, 1, 5].choose(rng).unwrap()),
            fields: fields(rng),
        })
        .collect()
}

fn fields(rng: &mut SmallRng) -> Vec<(Arc<str>, Value)> {
    let mut fields: Vec<(Arc<str>, Value)> = Vec::new();
    for key in KEYS {
        let share = if key == "message" { 0.9 } else { 0.4 };
        if rng.random_bool(share) {
            fields.push((key.into(), value(rng)));
        }
    }
    if rng.random_bool(0.1) {
        let long = "k".repeat(200);
        fields.push((long.as_str().into(), value(rng)));
    }
    if rng.random_bool(0.2) {
        let rare = format!("rare{}", rng.random_range(0..20));
        fields.push((rare.as_str().into(), value(rng)));
    }
    fields
}

fn value(rng: &mut SmallRng) -> Value {
    match rng.random_range(0..20) {
        0 => Value::Null,
        1 | 2 => Value::Bool(rng.random()),
        3..6 => Value::Int(*[0, 1, 12, 200, 404, 500, -7, i64::MAX].choose(rng).unwrap()),
        6..8 => Value::Float(*[0.5, 12.5, 500.5, -7.25, 1e300].choose(rng).unwrap()),
        8 => Value::Number(
            (*["18446744073709551616", "0.1000000000000000000001", "1e400"]
                .choose(rng)
                .unwrap())
            .to_owned(),
        ),
        9..11 => Value::Json((*JSONS.choose(rng).unwrap()).to_owned()),
        11 => Value::Str(format!("id{}", rng.random_range(0..40))),
        _ => Value::Str((*TEXTS.choose(rng).unwrap()).to_owned()),
    }
}

/// The records as one batch; they must have consecutive positions.
pub fn batch(records: &[Record]) -> QueuedBatch {
    let mut builder = BatchBuilder::new(BASE_NS);
    for record in records {
        builder.begin_record();
        for (key, value) in &record.fields {
            builder.field(key, value.as_value_ref());
        }
        builder.end_record(
            record.key.timestamp_ns,
            record.timestamp_digits,
            record.flags,
        );
    }
    QueuedBatch {
        first: records
            .first()
            .map_or(Position::default(), |r| r.key.position),
        batch: builder.finish(),
    }
}

pub fn address(rng: &mut SmallRng) -> String {
    (*ADDRESSES.choose(rng).unwrap()).to_owned()
}

pub fn expr(rng: &mut SmallRng, depth: u32) -> Expr {
    let children = |rng: &mut SmallRng| {
        let n = rng.random_range(0..4);
        (0..n).map(|_| expr(rng, depth - 1)).collect()
    };
    match rng.random_range(0..10) {
        0 => Expr::All,
        1 | 2 if 0 < depth => Expr::And(children(rng)),
        3 | 4 if 0 < depth => Expr::Or(children(rng)),
        5 | 6 if 0 < depth => Expr::Not(Box::new(expr(rng, depth - 1))),
        _ => Expr::Term(term(rng)),
    }
}

fn term(rng: &mut SmallRng) -> Term {
    let field = match rng.random_range(0..5) {
        0 | 1 => Field::Any,
        2 => Field::Addresses(vec![address(rng), address(rng)]),
        _ => Field::Addresses(vec![address(rng)]),
    };
    Term {
        field,
        matcher: matcher(rng),
    }
}

fn matcher(rng: &mut SmallRng) -> Match {
    let text = match rng.random_range(0..6) {
        0 => (*["500", "5e2", "12.5", "-7", "true", "FALSE", "0", "1"]
            .choose(rng)
            .unwrap())
        .to_owned(),
        1 => format!("id{}", rng.random_range(0..40)),
        _ => (*TEXTS.choose(rng).unwrap()).to_owned(),
    };
    match rng.random_range(0..12) {
        0..4 => {
            let text = match rng.random_range(0..3) {
                0 => text,
                1 => text.split_whitespace().next().unwrap_or("x").to_uppercase(),
                _ => (*[
                    "closed by",
                    "connection closed",
                    "k9",
                    "error",
                    "größe",
                    "b",
                    "7",
                ]
                .choose(rng)
                .unwrap())
                .to_owned(),
            };
            let tokens = crate::query::text::tokens(&text);
            if tokens.is_empty() {
                return Match::Contains(text);
            }
            Match::Words { text, tokens }
        }
        4 => Match::Exact(text),
        5 => Match::OneOf(vec![text, "info".to_owned(), "error".to_owned()]),
        6 => Match::Wildcard(
            (*["err*", "*onnec*", "c?osed", "id1*", "50?", "*"]
                .choose(rng)
                .unwrap())
            .to_owned(),
        ),
        7 => Match::Regex(
            (*["^E", "clos(ed|ing)", "^\\d+$", "(?i)ärger", "[\"\\\\]"]
                .choose(rng)
                .unwrap())
            .to_owned(),
        ),
        8 | 9 => range(rng),
        10 => Match::Exists,
        _ => Match::Cidr(
            (*["10.0.0.0/8", "0.0.0.0/0", "::/64"].choose(rng).unwrap())
                .parse()
                .unwrap(),
        ),
    }
}

fn range(rng: &mut SmallRng) -> Match {
    let time = (BASE_NS + 60 * SECOND_NS).to_string();
    let bound = |rng: &mut SmallRng| {
        let texts = [
            "0",
            "1",
            "12.5",
            "404",
            "500",
            "-7",
            "18446744073709551616",
            "b",
            "Z",
        ];
        let text = if rng.random_bool(0.2) {
            time.clone()
        } else {
            (*texts.choose(rng).unwrap()).to_owned()
        };
        match rng.random_range(0..3) {
            0 => Bound::Included(text),
            1 => Bound::Excluded(text),
            _ => Bound::Unbounded,
        }
    };
    Match::Range {
        low: bound(rng),
        high: bound(rng),
    }
}

pub fn selection(rng: &mut SmallRng, n_records: u64) -> Selection {
    let time = |rng: &mut SmallRng| {
        rng.random_bool(0.3)
            .then(|| BASE_NS + rng.random_range(-2..200) * SECOND_NS / 2)
    };
    let positions = rng.random_bool(0.15).then(|| {
        let at = |seq| Position { partition: 0, seq };
        let from = rng.random_range(0..n_records.max(1));
        (at(from), at(rng.random_range(from..=n_records.max(1))))
    });
    Selection {
        range: TimeRange {
            start_ns: time(rng),
            end_ns: time(rng),
        },
        filter: expr(rng, 3),
        positions,
    }
}

pub fn search_request(rng: &mut SmallRng, records: &[Record]) -> SearchRequest {
    let after = rng.random_bool(0.3).then(|| {
        let position = Position::default();
        let nowhere = RecordKey {
            timestamp_ns: BASE_NS,
            position,
        };
        let key = records.choose(rng).map_or(nowhere, |record| record.key);
        RecordKey {
            timestamp_ns: key.timestamp_ns + rng.random_range(-1..2),
            ..key
        }
    });
    SearchRequest {
        selection: selection(rng, records.len() as u64),
        order: *[Order::Ascending, Order::Descending].choose(rng).unwrap(),
        limit: *[0, 1, 3, 10, 1_000].choose(rng).unwrap(),
        after,
        wants_total: rng.random(),
        fields: rng
            .random_bool(0.2)
            .then(|| vec![address(rng), address(rng)]),
    }
}
