//! Records through documents and back, without a server: nothing is lost and nothing is refused.

use std::sync::Arc;

use proptest::prelude::{Strategy, any, prop_oneof};
use serde_json::{Value as Json, json};

use crate::record::key::push_segment;
use crate::record::value::Flags;
use crate::record::{BatchBuilder, EntryRef, Position, QueuedBatch, Record, RecordKey, Value};
use crate::store::elasticsearch::document::{BatchKeys, Entry, Scratch, push_document};
use crate::store::elasticsearch::hit::record_from_hit;
use crate::store::elasticsearch::names::{TEXT_UNITS_MAX, own};
use crate::store::elasticsearch::plan::{IndexPlan, Preferred};

pub fn queued(records: &[Record]) -> QueuedBatch {
    let mut builder = BatchBuilder::new(7);
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
        first: records[0].key.position,
        batch: builder.finish(),
    }
}

fn plan(is_flat: bool, fields_max: usize) -> IndexPlan {
    let mut mapping = json!({"properties": {"level": {"type": "keyword"}, "source": {"type": "keyword"}, "message": {"type": "text"}}});
    if is_flat {
        mapping["subobjects"] = json!(false);
    }
    IndexPlan::new("logs-x".to_owned(), "w".to_owned(), &mapping, fields_max)
}

/// The hits that a search would give for these records, fields being added as they are wanted.
fn hits(plan: &mut IndexPlan, records: &[Record]) -> Vec<Json> {
    let queued = queued(records);
    let mut hits = Vec::new();
    let mut keys = BatchKeys::default();
    let mut scratch = Scratch::default();
    let mut leaves = Vec::new();
    for (entry, record) in queued.batch.entries().zip(records) {
        let EntryRef::Record(found) = entry else {
            panic!()
        };
        let of = Entry {
            record: found,
            key: record.key,
            arrival_ns: 7,
            has_at_timestamp: false,
        };
        let mut out = Vec::new();
        if !push_document(&mut out, plan, &mut keys, &mut scratch, &mut leaves, &of) {
            assert!(out.is_empty());
            let fields = plan.new_fields(&Preferred::new());
            plan.added(&fields);
            assert!(push_document(
                &mut out,
                plan,
                &mut keys,
                &mut scratch,
                &mut leaves,
                &of
            ));
        }
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let [action, document] = lines[..] else {
            panic!("{text}")
        };
        let action: Json = serde_json::from_str(action).unwrap();
        let mut source: Json = serde_json::from_str(document).unwrap();
        // A member that stands twice would be refused by the server and is swallowed by this parser.
        let n_members = source.as_object().unwrap().len();
        assert_eq!(n_members, count_members(document), "{document}");
        source
            .as_object_mut()
            .unwrap()
            .retain(|name, _| name != own::ANY && name != own::WORDS);
        hits.push(json!({"_id": action["create"]["_id"], "_source": source}));
    }
    hits
}

fn count_members(document: &str) -> usize {
    struct Count;
    impl<'de> serde::de::Visitor<'de> for Count {
        type Value = usize;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<usize, A::Error> {
            let mut count = 0;
            while map.next_entry::<String, serde::de::IgnoredAny>()?.is_some() {
                count += 1;
            }
            Ok(count)
        }
    }
    let mut reader = serde_json::Deserializer::from_str(document);
    serde::Deserializer::deserialize_map(&mut reader, Count).unwrap()
}

fn sorted(mut record: Record) -> Record {
    record.fields.sort_by(|a, b| a.0.cmp(&b.0));
    record
}

fn json_text() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        "[a-z ]{0,6}|1\\.5|10\\.0\\.0\\.1".prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<bool>().prop_map(Json::from),
        proptest::strategy::Just(Json::Null),
        (-1e6_f64..1e6).prop_map(Json::from),
    ];
    let nested = leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Json::from),
            proptest::collection::hash_map("[ab.]{0,3}", inner, 0..3)
                .prop_map(|map| Json::Object(map.into_iter().collect())),
        ]
    });
    proptest::collection::vec(nested, 0..3).prop_map(|elements| Json::from(elements).to_string())
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        proptest::strategy::Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        prop_oneof![
            -1e6_f64..1e6,
            any::<f64>().prop_filter("finite", |f| f.is_finite())
        ]
        .prop_map(Value::Float),
        prop_oneof![
            "-?[1-9][0-9]{18,400}",
            "-?[0-9]{1,3}\\.[0-9]{1,30}(e-?[0-9]{1,4})?"
        ]
        .prop_map(Value::Number),
        prop_oneof![
            ".{0,20}",
            "[a-c .]{0,300}",
            "[0-9.:]{1,12}",
            "(ab ){0,40000}"
        ]
        .prop_map(Value::Str),
        json_text().prop_map(Value::Json),
    ]
}

fn key() -> impl Strategy<Value = String> {
    let segment = prop_oneof![
        "[ab]",
        "[a-c._~%* é\"\\\\]{0,3}",
        "level|source|message|timestamp|logyard|keyword|_id"
    ];
    let path = proptest::collection::vec(segment, 1..4).prop_map(|path: Vec<String>| {
        let mut key = String::new();
        for (index, segment) in path.iter().enumerate() {
            push_segment(&mut key, segment, index == 0);
        }
        key
    });
    prop_oneof![9 => path, 1 => proptest::strategy::Just("long".repeat(200))]
}

fn fields() -> impl Strategy<Value = Vec<(Arc<str>, Value)>> {
    proptest::collection::btree_map(key(), value(), 0..8).prop_map(|fields| {
        fields
            .into_iter()
            .map(|(key, value)| (key.into(), value))
            .collect()
    })
}

fn record() -> impl Strategy<Value = Record> {
    let time = prop_oneof![
        any::<i64>(),
        proptest::strategy::Just(i64::MIN),
        proptest::strategy::Just(i64::MAX),
        1_742_428_740_000_000_000_i64..1_742_600_000_000_000_000,
    ];
    (time, 0_u8..10, 0_u32..256, fields()).prop_map(|(timestamp_ns, digits, flags, fields)| {
        Record {
            key: RecordKey {
                timestamp_ns,
                position: Position::default(),
            },
            timestamp_digits: digits,
            flags: Flags(flags),
            fields,
        }
    })
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(400))]
    #[test]
    fn every_record_comes_back(
        mut records in proptest::collection::vec(record(), 1..6),
        is_flat in any::<bool>(),
        fields_max in prop_oneof![proptest::strategy::Just(5_000), 3_usize..12],
    ) {
        for (seq, record) in (3..).zip(&mut records) {
            record.key.position = Position { partition: 1, seq };
        }
        let mut plan = plan(is_flat, fields_max);
        for (hit, record) in hits(&mut plan, &records).iter().zip(records) {
            proptest::prop_assert_eq!(sorted(record_from_hit(hit).unwrap()), sorted(record), "{}", hit);
        }
    }
}

fn one(fields: &[(&str, Value)]) -> Record {
    Record {
        key: RecordKey {
            timestamp_ns: 1_742_472_000_123_456_789,
            position: Position {
                partition: 2,
                seq: 9,
            },
        },
        timestamp_digits: 3,
        flags: Flags(5),
        fields: fields
            .iter()
            .map(|(key, value)| ((*key).into(), value.clone()))
            .collect(),
    }
}

fn text(text: &str) -> Value {
    Value::Str(text.to_owned())
}

/// A record with a value of every type.
fn of_every_type() -> Record {
    one(&[
        ("level", text("ERROR")),
        ("http.status", Value::Int(500)),
        ("big", Value::Number("18446744073709551616".to_owned())),
        ("nothing", Value::Null),
        (
            "tags",
            Value::Json(r#"["a",{"b.c":[1,"10.0.0.7"]},{"d":[]},{"e":null}]"#.to_owned()),
        ),
        ("a.b", text("12")),
        ("a\\.b", Value::Bool(true)),
    ])
}

#[test]
fn a_document_says_what_the_questions_need() {
    let record = of_every_type();
    let mut plan = plan(true, 5_000);
    let hits = hits(&mut plan, &[record]);
    let source = &hits[0]["_source"];
    let list = |name: &str| -> Vec<&str> {
        source[name]
            .as_array()
            .unwrap()
            .iter()
            .map(|element| element.as_str().unwrap())
            .collect()
    };
    assert_eq!(source["timestamp"], "2025-03-20T12:00:00.123456789Z");
    assert_eq!(source[own::NS], 1_742_472_000_123_456_789_i64);
    assert_eq!(source[own::MS], 1_742_472_000_123_i64);
    assert_eq!(
        (&source[own::PARTITION], &source[own::SEQ]),
        (&json!(2), &json!(9))
    );
    assert_eq!(list(own::FLAGS), ["arrival_time", "timestamp_year_guessed"]);
    let mut fields = list(own::FIELDS);
    fields.sort_unstable();
    assert_eq!(
        fields,
        [
            "a.b",
            "big",
            "http.status",
            "level",
            "tags",
            "tags.b",
            "tags.b.c",
            "tags.d"
        ]
    );
    let mut multi = list(own::MULTI);
    multi.sort_unstable();
    assert_eq!(
        multi,
        ["a.b", "big", "tags", "tags.b", "tags.b.c", "tags.d"]
    );
    assert_eq!(
        list(own::SCALARS),
        ["i:500", "n:18446744073709551616", "i:1", "b:true"]
    );
    assert_eq!(source["http.status"], 500);
    assert_eq!(source["tags"], json!(["a", "10.0.0.7"]));
    assert_eq!(source["tags~long"], 1);
    assert_eq!(
        source["tags.b~long"],
        Json::Null,
        "its first value takes the plain name"
    );
    assert_eq!(source["tags.b"], 1);
    assert_eq!(source["tags.b.c~text"], "10.0.0.7");
    assert_eq!(source["tags.b.c~ip"], "10.0.0.7");
    assert_eq!(source["a.b"], "12");
    assert_eq!(source["a.b~numeric"], 12.0);
    assert_eq!(source["a.b~bool"], true);
    assert_eq!(source["big~number"], 18_446_744_073_709_551_616.0);
    assert!(source[own::RECORD].is_string());
}

#[test]
fn what_the_fields_give_back_is_kept_only_once() {
    let record = one(&[
        ("level", text("ERROR")),
        ("ms", Value::Float(12.0)),
        ("a.b", Value::Int(-1)),
        ("ok", Value::Bool(false)),
    ]);
    let hits = hits(&mut plan(true, 5_000), &[record]);
    assert_eq!(hits[0]["_source"][own::RECORD], Json::Null);
    assert_eq!(hits[0]["_source"][own::MULTI], Json::Null);
    assert_eq!(hits[0]["_source"]["ms"].to_string(), "12.0");
}

#[test]
fn long_texts_and_overflow_are_marked() {
    let long = "wort ".repeat(20_000);
    let record = one(&[("message", text(&long)), ("a", text("b")), ("c", text("d"))]);
    assert!(TEXT_UNITS_MAX < long.len());
    let mut plan = plan(true, 6);
    let hits = hits(&mut plan, &[record]);
    let source = &hits[0]["_source"];
    assert_eq!(source[own::LONG], json!(["message"]));
    assert_eq!(source[own::OVERFLOW], Json::Null, "three more fit");
    let more = one(&[
        ("e", text("f")),
        ("g", Value::Int(1)),
        ("message", text("m")),
    ]);
    let hits = self::hits(&mut plan, &[more]);
    let source = &hits[0]["_source"];
    assert_eq!(source["e"], "f");
    assert_eq!(source[own::OVERFLOW], json!(["g=1"]));
    assert_eq!(source[own::SCALARS], json!(["i:1"]));
    assert_eq!(source[own::MULTI], json!(["g"]));
}

#[test]
fn the_source_that_retention_sees_is_kept_where_it_is_no_text() {
    for (value, expected) in [
        (text("web"), Json::Null),
        (Value::Null, Json::Null),
        (Value::Int(5), json!("5")),
        (Value::Json("[\"a\"]".to_owned()), json!("[\"a\"]")),
    ] {
        let hits = hits(&mut plan(true, 100), &[one(&[("source", value.clone())])]);
        assert_eq!(hits[0]["_source"][own::SOURCE], expected, "{value:?}");
    }
}
