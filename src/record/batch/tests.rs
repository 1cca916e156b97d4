//! The format: what is put in comes out, and bytes that were tampered with are refused.
use proptest::prelude::*;

use super::*;
use crate::record::Value;

fn example() -> Batch {
    let mut builder = BatchBuilder::new(42);
    builder.begin_record();
    builder.field("message", ValueRef::Str("hello"));
    builder.field("http.status", ValueRef::Int(500));
    builder.field("ratio", ValueRef::Float(0.5));
    builder.field("big", ValueRef::Number("18446744073709551616"));
    builder.field("tags", ValueRef::Json("[1,2]"));
    builder.field("ok", ValueRef::Bool(true));
    builder.field("none", ValueRef::Null);
    builder.end_record(-5, 3, Flags::TRUNCATED);
    builder.begin_record();
    builder.field("lost", ValueRef::Null);
    builder.abandon_record();
    builder.dead_letter(DeadLetterRef {
        code: "invalid_json",
        reason: "why",
        source: None,
        raw: b"{\xff",
    });
    builder.finish()
}

#[test]
fn what_is_built_is_read_back_from_its_bytes() {
    let built = example();
    for batch in [
        built.clone(),
        Batch::from_bytes(built.as_bytes().clone()).unwrap(),
    ] {
        assert_eq!((batch.len(), batch.arrival_ns()), (2, 42));
        let entries: Vec<_> = batch.entries().collect();
        let [EntryRef::Record(record), EntryRef::DeadLetter(letter)] = entries[..] else {
            panic!("{entries:?}")
        };
        assert_eq!((record.timestamp_ns, record.timestamp_digits), (-5, 3));
        assert_eq!(record.flags, Flags::TRUNCATED);
        assert_eq!(record.field("http.status"), Some(ValueRef::Int(500)));
        assert_eq!(record.fields().count(), 7);
        assert_eq!(letter.raw, b"{\xff");
    }
}

#[test]
fn every_cut_and_every_garbled_byte_is_an_error_or_a_batch_never_a_panic() {
    let bytes = example().as_bytes().to_vec();
    for end in 0..bytes.len() {
        Batch::from_bytes(Bytes::copy_from_slice(&bytes[..end])).unwrap_err();
    }
    for at in 0..bytes.len() {
        let mut garbled = bytes.clone();
        garbled[at] ^= 0x55;
        if let Ok(batch) = Batch::from_bytes(Bytes::from(garbled)) {
            batch.entries().count();
        }
    }
}

#[test]
fn a_value_that_comes_again_is_written_once() {
    let mut builder = BatchBuilder::new(0);
    for n in 0..1_000_i64 {
        builder.begin_record();
        builder.field("host", ValueRef::Str(["a", "b", "c"][n as usize % 3]));
        // The same bytes under another key and of another type are another value.
        builder.field("user", ValueRef::Str("a"));
        builder.field("tags", ValueRef::Json("a"));
        builder.end_record(n, 9, Flags::default());
    }
    let batch = builder.finish();
    assert_eq!(batch.n_values(), 5);
    let EntryRef::Record(last) = batch.entries().last().unwrap() else {
        panic!()
    };
    let size_bytes = last.size_bytes();
    assert_eq!(last.numbers().collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(size_bytes, 3 * "0sla".len());
}

#[test]
fn values_that_never_come_again_are_not_looked_for() {
    let mut builder = BatchBuilder::new(0);
    for n in 0..10_000_i64 {
        builder.begin_record();
        builder.field("id", ValueRef::Int(n / 2 * 2 + n % 2));
        builder.end_record(n, 9, Flags::default());
    }
    builder.begin_record();
    builder.field("id", ValueRef::Int(0));
    builder.end_record(0, 9, Flags::default());
    assert_eq!(builder.finish().n_values(), 10_001);
}

#[test]
fn a_batch_of_another_version_says_so() {
    let mut bytes = example().as_bytes().to_vec();
    bytes[3] = b'1';
    let error = Batch::from_bytes(Bytes::from(bytes)).unwrap_err();
    assert!(error.to_string().contains("another version"), "{error}");
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        (0_i64..5).prop_map(Value::Int),
        (0_i64..5).prop_map(|n| Value::Float(n as f64 / 2.0)),
        "[ab]{0,2}".prop_map(Value::Str),
        "[ab]{126,130}".prop_map(Value::Str),
        "[ab]{0,2}".prop_map(Value::Number),
        "[ab]{0,2}".prop_map(Value::Json),
    ]
}

proptest! {
    #[test]
    fn records_come_back_as_they_were_whatever_repeats(
        records in prop::collection::vec(
            (prop::collection::btree_map(0_usize..200, value(), 0..6), any::<bool>()),
            0..200,
        ),
    ) {
        let keys: Vec<String> = (0..200).map(|n| format!("key{n}")).collect();
        let mut builder = BatchBuilder::new(0);
        // Some of the keys with numbers of two bytes.
        for key in keys.iter().rev() {
            builder.key_index(key);
        }
        let mut expected = Vec::new();
        for (fields, is_kept) in &records {
            builder.begin_record();
            for (key, value) in fields {
                builder.field(&keys[*key], value.as_value_ref());
            }
            if *is_kept {
                builder.end_record(1, 0, Flags::default());
                expected.push(fields.iter().map(|(key, value)| (keys[*key].clone(), value.clone())).collect::<Vec<_>>());
            } else {
                builder.abandon_record();
            }
        }
        let built = builder.finish();
        let read = Batch::from_bytes(built.as_bytes().clone()).unwrap();
        for batch in [built, read] {
            let found: Vec<Vec<(String, Value)>> = batch
                .entries()
                .map(|entry| match entry {
                    EntryRef::Record(record) => record
                        .fields()
                        .map(|field| (field.key.to_owned(), field.value.to_value()))
                        .collect(),
                    EntryRef::DeadLetter(_) => Vec::new(),
                })
                .collect();
            prop_assert_eq!(&found, &expected);
        }
    }
}
