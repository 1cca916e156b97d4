//! What is written is found: shapes, types, filters, and the summaries.

use std::ops::Bound;

use crate::query::text::tokens;
use crate::query::{
    Aggregate, AggregateKind, Expr, Field, FieldsRequest, GroupBy, HistogramRequest, Match, Order,
    StatsRequest, Term, TimeRange,
};
use crate::record::value::ValueType;
use crate::record::{RecordKey, Value, ValueRef};
use crate::store::Store;
use crate::store::contract::{
    Line, NOON_NS, SECOND_NS, at, batch, cancel, everything, expected, records, request, search,
    selection, sorted,
};

use ValueRef::{Bool, Float, Int, Json, Null, Number, Str};

/// Every type, one name with all of them, nesting, arrays, odd names and odd texts.
const LINES: &[Line<'static>] = &[
    (
        NOON_NS,
        &[
            ("level", Str("ERROR")),
            ("source", Str("web")),
            ("message", Str("connection closed")),
        ],
    ),
    (NOON_NS, &[("v", Null), ("level", Str("info"))]),
    (NOON_NS + 1, &[("v", Bool(true))]),
    (NOON_NS + 2, &[("v", Int(500))]),
    (NOON_NS + 3, &[("v", Int(i64::MIN))]),
    (NOON_NS + 4, &[("v", Float(0.1))]),
    (NOON_NS + 5, &[("v", Number("18446744073709551616"))]),
    (NOON_NS + 6, &[("v", Str("500"))]),
    (NOON_NS + 7, &[("v", Str(""))]),
    (
        NOON_NS + 8,
        &[("v", Json(r#"[1,"two words",{"deep":[true,null]}]"#))],
    ),
    (NOON_NS + 9, &[("v", Json("[]"))]),
    (NOON_NS + 10, &[("v", Json("{}"))]),
    (NOON_NS + 11, &[("http.status", Int(404))]),
    (NOON_NS + 12, &[("http\\.status", Int(404))]),
    (
        NOON_NS + 13,
        &[("http.status", Int(200)), ("http\\.status", Str("404"))],
    ),
    (
        NOON_NS + 14,
        &[("größe.日本", Str("ÄRGER naïve \u{212a}elvin"))],
    ),
    (
        NOON_NS + 15,
        &[
            ("", Str("no name")),
            ("a\\\\b", Str("a \"quoted\" \\ back\u{0}slash")),
        ],
    ),
    (NOON_NS + 16, &[("ip", Str("10.1.2.3"))]),
    (
        NOON_NS + 17,
        &[("ip", Str("::1")), ("tags", Json(r#"["x","10.9.9.9"]"#))],
    ),
    (0, &[("message", Str("the epoch"))]),
    (-SECOND_NS, &[("message", Str("before the epoch"))]),
    (NOON_NS + 18, &[]),
];

fn term(addresses: &[&str], matcher: Match) -> Expr {
    let field = match addresses {
        [] => Field::Any,
        _ => Field::Addresses(addresses.iter().map(|a| (*a).to_owned()).collect()),
    };
    Expr::Term(Term { field, matcher })
}

fn words(addresses: &[&str], text: &str) -> Expr {
    let matcher = match tokens(text) {
        tokens if tokens.is_empty() => Match::Contains(text.to_owned()),
        tokens => Match::Words {
            text: text.to_owned(),
            tokens,
        },
    };
    term(addresses, matcher)
}

fn range(low: Bound<&str>, high: Bound<&str>) -> Match {
    Match::Range {
        low: low.map(str::to_owned),
        high: high.map(str::to_owned),
    }
}

#[expect(clippy::too_many_lines, reason = "a table of filters")]
fn filters() -> Vec<Expr> {
    let text = str::to_owned;
    let mut filters = vec![Expr::All, Expr::And(vec![]), Expr::Or(vec![])];
    for asked in [
        "500",
        "ERROR",
        "connection closed",
        "closed connection",
        "two words",
        "1",
        "true",
        "ärger",
        "kelvin",
        "404",
        "no name",
        "\\",
        "10.1.2.3",
        "0.10",
        "18446744073709551616.0",
        "nothing",
    ] {
        for addresses in [&[][..], &["v"], &["http.status"], &["level", "message"]] {
            filters.push(words(addresses, asked));
        }
    }
    for addresses in [
        &[][..],
        &["v"],
        &["v.deep"],
        &["http.status"],
        &["http"],
        &["größe.日本"],
        &[""],
        &["timestamp"],
    ] {
        filters.push(term(addresses, Match::Exists));
    }
    for matcher in [
        Match::Exact(text("500")),
        Match::Exact(text("")),
        Match::Exact(text("error")),
        Match::OneOf(vec![text("ERROR"), text("Info"), text("500")]),
        Match::Wildcard(text("con*tion")),
        Match::Wildcard(text("*los*")),
        Match::Wildcard(text("5?0")),
        Match::Regex(text("^[A-Z]+$")),
        Match::Regex(text("0{2}$")),
        range(Bound::Included("1"), Bound::Excluded("500.5")),
        range(Bound::Excluded("9223372036854775807"), Bound::Unbounded),
        range(Bound::Included("a"), Bound::Included("d")),
        range(Bound::Unbounded, Bound::Unbounded),
        Match::Cidr("10.0.0.0/8".parse().unwrap()),
        Match::Cidr("::/64".parse().unwrap()),
    ] {
        filters.push(term(&[], matcher.clone()));
        filters.push(term(&["v"], matcher.clone()));
        filters.push(Expr::Not(Box::new(term(&["level", "v"], matcher))));
    }
    let (low, high) = (NOON_NS.to_string(), (NOON_NS + 5).to_string());
    let in_time = term(
        &["timestamp"],
        range(Bound::Excluded(&low), Bound::Included(&high)),
    );
    filters.push(in_time.clone());
    filters.push(Expr::And(vec![
        Expr::Not(Box::new(in_time)),
        words(&["http.status"], "404"),
    ]));
    filters.push(Expr::Or(vec![
        words(&["ip"], "10.1.2.3"),
        term(&["tags"], Match::Exact(text("x"))),
    ]));
    filters
}

pub async fn records_come_back_as_they_were_written(store: &dyn Store) {
    let edges: &[Line<'_>] = &[
        (i64::MIN, &[("m", Str("first"))]),
        (i64::MAX, &[("m", Str("last"))]),
    ];
    store.write(vec![batch(0, NOON_NS, LINES)]).await.unwrap();
    store
        .write(vec![batch(LINES.len() as u64, NOON_NS, edges)])
        .await
        .unwrap();
    let mut all = [records(0, LINES), records(LINES.len() as u64, edges)].concat();
    all.sort_by_key(|record| record.key);
    for is_flushed in [false, true] {
        if is_flushed {
            store.flush().await.unwrap();
        }
        let answer = search(store, request(everything(), 1_000)).await;
        assert_eq!(sorted(answer.records), sorted(all.clone()));
        assert!(!answer.has_more);
        for record in &all {
            let found = store.get(record.key, cancel()).await.unwrap();
            assert_eq!(sorted(vec![found.unwrap()]), sorted(vec![record.clone()]));
        }
    }
    let nowhere = RecordKey {
        timestamp_ns: NOON_NS,
        position: at(999),
    };
    assert_eq!(store.get(nowhere, cancel()).await.unwrap(), None);

    let mut some = request(everything(), 1_000);
    some.fields = Some(vec!["http".to_owned(), "v.deep".to_owned()]);
    let answer = search(store, some).await;
    assert_eq!(answer.records.len(), all.len());
    for record in answer.records {
        for (key, value) in &record.fields {
            let is_wanted =
                key.starts_with("http") || (&**key == "v" && matches!(value, Value::Json(_)));
            assert!(is_wanted, "{record:?}");
        }
    }
}

pub async fn filters_select_what_evaluate_says(store: &dyn Store) {
    // Two batches, so that names carry several types within and across them.
    let (first, second) = LINES.split_at(9);
    store
        .write(vec![batch(0, NOON_NS, first), batch(9, NOON_NS, second)])
        .await
        .unwrap();
    let mut all = records(0, LINES);
    all.sort_by_key(|record| record.key);
    for is_flushed in [false, true] {
        if is_flushed {
            store.flush().await.unwrap();
        }
        for filter in filters() {
            let answer = search(store, request(selection(filter.clone()), 1_000)).await;
            let found: Vec<u64> = answer.records.iter().map(|r| r.key.position.seq).collect();
            assert_eq!(
                found,
                expected(&all, &filter),
                "{filter:?}, flushed: {is_flushed}"
            );
            assert_eq!(
                answer.total.unwrap().value,
                found.len() as u64,
                "{filter:?}"
            );
        }
    }
}

pub async fn time_and_positions_bound_a_search(store: &dyn Store) {
    store.write(vec![batch(0, NOON_NS, LINES)]).await.unwrap();
    let count = async |range: TimeRange, positions| {
        let mut bounded = everything();
        bounded.range = range;
        bounded.positions = positions;
        search(store, request(bounded, 1_000)).await.records.len()
    };
    let range = |start_ns, end_ns| TimeRange { start_ns, end_ns };
    assert_eq!(count(range(Some(NOON_NS), None), None).await, 20);
    assert_eq!(
        count(range(Some(NOON_NS + 1), Some(NOON_NS + 3)), None).await,
        2
    );
    assert_eq!(count(range(None, Some(NOON_NS)), None).await, 2);
    assert_eq!(count(range(None, Some(0)), None).await, 1);
    assert_eq!(count(range(Some(5), Some(5)), None).await, 0);
    assert_eq!(count(range(Some(6), Some(5)), None).await, 0);
    assert_eq!(count(range(None, None), Some((at(2), at(5)))).await, 3);
    assert_eq!(
        count(range(Some(NOON_NS + 2), None), Some((at(2), at(5)))).await,
        2
    );
    assert_eq!(count(range(None, None), Some((at(5), at(5)))).await, 0);
}

pub async fn histograms_count_by_time_and_value(store: &dyn Store) {
    let minute = 60 * SECOND_NS;
    let level = |text| [("level", Str(text))];
    let (error, info, debug) = (level("ERROR"), level("INFO"), level("DEBUG"));
    let lines: &[Line<'_>] = &[
        (NOON_NS, &error),
        (NOON_NS + 1, &info),
        (NOON_NS + minute - 1, &info),
        (NOON_NS + minute, &[("level", Int(3))]),
        (NOON_NS + minute, &[]),
        (NOON_NS + 5 * minute, &debug),
        (-1, &info),
    ];
    store.write(vec![batch(0, NOON_NS, lines)]).await.unwrap();
    let mut asked = HistogramRequest {
        selection: everything(),
        interval_ns: minute,
        by: None,
        by_limit: 10,
    };
    let histogram = store.histogram(asked.clone(), cancel()).await.unwrap();
    let counts: Vec<(i64, u64)> = histogram
        .buckets
        .iter()
        .map(|b| (b.start_ns, b.count))
        .collect();
    let expected = [
        (-minute, 1),
        (NOON_NS, 3),
        (NOON_NS + minute, 2),
        (NOON_NS + 5 * minute, 1),
    ];
    assert_eq!(counts, expected);
    assert_eq!(histogram.total, 7);
    assert!(histogram.buckets.iter().all(|bucket| bucket.by.is_empty()));

    asked.by = Some("level".to_owned());
    asked.by_limit = 3;
    let histogram = store.histogram(asked, cancel()).await.unwrap();
    let by = |index: usize| -> Vec<(Option<&str>, u64)> {
        histogram.buckets[index]
            .by
            .iter()
            .map(|(value, count)| (value.as_deref(), *count))
            .collect()
    };
    // Overall: INFO 3, then by text `3`, DEBUG, ERROR with one each; three are told apart.
    assert_eq!(by(0), [(Some("INFO"), 1)]);
    assert_eq!(by(1), [(Some("INFO"), 2), (None, 1)]);
    assert_eq!(by(2), [(Some("3"), 1), (None, 1)]);
    assert_eq!(by(3), [(Some("DEBUG"), 1)]);
}

pub async fn fields_are_summed_up(store: &dyn Store) {
    let lines: &[Line<'_>] = &[
        (NOON_NS, &[("status", Int(500)), ("a.b", Str("x"))]),
        (NOON_NS + 1, &[("status", Int(500)), ("a\\.b", Str("y"))]),
        (NOON_NS + 2, &[("status", Str("500")), ("empty", Null)]),
        (
            NOON_NS + 3,
            &[("status", Int(200)), ("tags", Json("[1,2]"))],
        ),
    ];
    store.write(vec![batch(0, NOON_NS, lines)]).await.unwrap();
    let mut asked = FieldsRequest {
        selection: everything(),
        top: 2,
        fields: None,
    };
    let answer = store.fields(asked.clone(), cancel()).await.unwrap();
    assert_eq!(answer.total, 4);
    let names: Vec<&str> = answer.fields.iter().map(|field| &*field.name).collect();
    assert_eq!(names, ["a.b", "status", "tags"]);
    let status = &answer.fields[1];
    assert_eq!(status.types, [ValueType::Int, ValueType::Str]);
    assert_eq!((status.count, status.distinct), (4, 3));
    assert_eq!(status.top, [(Value::Int(500), 2), (Value::Int(200), 1)]);
    assert_eq!((answer.fields[0].count, answer.fields[0].distinct), (2, 2));
    assert_eq!(answer.fields[2].top, [(Value::Json("[1,2]".to_owned()), 1)]);

    asked.fields = Some(vec!["tags".to_owned()]);
    let answer = store.fields(asked, cancel()).await.unwrap();
    assert_eq!(answer.fields.len(), 1);
}

#[expect(clippy::too_many_lines, reason = "a table of groups and their values")]
pub async fn stats_group_and_aggregate(store: &dyn Store) {
    let hour = 3_600 * SECOND_NS;
    let lines: &[Line<'_>] = &[
        (
            NOON_NS,
            &[("level", Str("ERROR")), ("ms", Int(10)), ("user", Str("a"))],
        ),
        (
            NOON_NS + 1,
            &[("level", Str("ERROR")), ("ms", Int(30)), ("user", Str("b"))],
        ),
        (
            NOON_NS + 2,
            &[
                ("level", Str("INFO")),
                ("ms", Float(1.5)),
                ("user", Str("a")),
            ],
        ),
        (
            NOON_NS + hour,
            &[("level", Str("INFO")), ("ms", Str("2")), ("user", Str("a"))],
        ),
        (NOON_NS + hour, &[("ms", Str("fast"))]),
    ];
    store.write(vec![batch(0, NOON_NS, lines)]).await.unwrap();
    let aggregate = |kind, field: &str| Aggregate {
        label: format!("{kind:?}({field})"),
        kind,
        field: field.to_owned(),
    };
    let mut asked = StatsRequest {
        selection: everything(),
        by: vec![GroupBy::Field("level".to_owned())],
        aggregates: vec![
            aggregate(AggregateKind::Count, ""),
            aggregate(AggregateKind::CountField, "ms"),
            aggregate(AggregateKind::Sum, "ms"),
            aggregate(AggregateKind::Avg, "ms"),
            aggregate(AggregateKind::Min, "ms"),
            aggregate(AggregateKind::Max, "ms"),
            aggregate(AggregateKind::Distinct, "user"),
        ],
        sort: vec![(1, true), (0, false)],
        limit: 10,
    };
    let answer = store.stats(asked.clone(), cancel()).await.unwrap();
    assert_eq!(answer.n_groups, 3);
    let text = |text: &str| Value::Str(text.to_owned());
    let rows: Vec<(Value, Vec<Value>)> = answer
        .groups
        .into_iter()
        .map(|mut group| (group.by.remove(0), group.values))
        .collect();
    let (int, float) = (Value::Int, Value::Float);
    assert_eq!(
        rows,
        [
            (
                text("ERROR"),
                vec![
                    int(2),
                    int(2),
                    int(40),
                    float(20.0),
                    int(10),
                    int(30),
                    int(2)
                ]
            ),
            (
                text("INFO"),
                vec![
                    int(2),
                    int(2),
                    float(3.5),
                    float(1.75),
                    float(1.5),
                    int(2),
                    int(1)
                ]
            ),
            (
                Value::Null,
                vec![
                    int(1),
                    int(1),
                    Value::Null,
                    Value::Null,
                    Value::Null,
                    Value::Null,
                    int(0)
                ]
            ),
        ]
    );

    asked.by = vec![GroupBy::Time(hour)];
    asked.aggregates = vec![aggregate(AggregateKind::Percentile(50.0), "ms")];
    asked.sort = vec![(0, false)];
    let answer = store.stats(asked.clone(), cancel()).await.unwrap();
    let by: Vec<&Value> = answer.groups.iter().map(|group| &group.by[0]).collect();
    assert_eq!(by, [&int(NOON_NS), &int(NOON_NS + hour)]);
    assert_eq!(answer.groups[1].values, [float(2.0)]);

    asked.by = Vec::new();
    asked.aggregates = vec![aggregate(AggregateKind::Count, "")];
    asked.selection = selection(words(&[], "nothing"));
    let answer = store.stats(asked.clone(), cancel()).await.unwrap();
    assert_eq!(
        (answer.n_groups, &answer.groups[0].values),
        (1, &vec![int(0)])
    );

    asked.by = vec![GroupBy::Field("user".to_owned())];
    asked.selection = everything();
    asked.sort = vec![(0, true)];
    asked.limit = 2;
    let answer = store.stats(asked, cancel()).await.unwrap();
    let by: Vec<&Value> = answer.groups.iter().map(|group| &group.by[0]).collect();
    assert_eq!(by, [&text("b"), &text("a")]);
    assert_eq!(answer.n_groups, 3);
    let descending = search(
        store,
        crate::query::SearchRequest {
            order: Order::Descending,
            ..request(everything(), 1)
        },
    )
    .await;
    assert_eq!(
        descending.records[0].key.position,
        at(4),
        "equal times go by position"
    );
}

/// Beyond 2^53 a double has not every integer: what is compared is the numbers, not what they are rounded to.
pub async fn integers_and_doubles_are_compared_exactly(store: &dyn Store) {
    let (double, above) = (9_007_199_254_740_992.0, 9_007_199_254_740_993);
    let lines: &[Line<'_>] = &[
        (NOON_NS, &[("name", Str("a")), ("n", Float(double))]),
        (NOON_NS, &[("name", Str("b")), ("n", Int(above))]),
        (NOON_NS, &[("name", Str("c")), ("n", Int(above - 2))]),
    ];
    store.write(vec![batch(0, NOON_NS, lines)]).await.unwrap();
    let aggregate = |kind| Aggregate {
        label: format!("{kind:?}(n)"),
        kind,
        field: "n".to_owned(),
    };
    let mut asked = StatsRequest {
        selection: everything(),
        by: Vec::new(),
        aggregates: vec![aggregate(AggregateKind::Min), aggregate(AggregateKind::Max)],
        sort: Vec::new(),
        limit: 10,
    };
    let answer = store.stats(asked.clone(), cancel()).await.unwrap();
    assert_eq!(
        answer.groups[0].values,
        [Value::Int(above - 2), Value::Int(above)]
    );
    asked.by = vec![GroupBy::Field("name".to_owned())];
    asked.sort = vec![(2, true)];
    let answer = store.stats(asked, cancel()).await.unwrap();
    let by = answer.groups.iter().map(|group| group.by[0].clone());
    let names = ["b", "a", "c"].map(|name| Value::Str(name.to_owned()));
    assert_eq!(by.collect::<Vec<_>>(), names);
}
