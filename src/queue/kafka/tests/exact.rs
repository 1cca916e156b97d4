//! What comes out is what went in, whatever the record; and what others write is read as `POST /logs` reads it.

use proptest::prelude::*;
use rdkafka::Timestamp;
use rdkafka::message::{Header, OwnedHeaders, OwnedMessage};

use crate::queue::kafka::decode::Decoder;
use crate::queue::kafka::encode::Encoder;
use crate::queue::kafka::message::HEADER_ENTRY;
use crate::record::{
    Batch, BatchBuilder, DeadLetterRef, EntryRef, Flags, Position, QueuedBatch, Value, ValueRef,
};
use crate::wire::json::RecordDefaults;
use crate::wire::native::decode::{Body, BodyDecoder, DecodeOptions, Hint};

/// Through messages and back; also how many needed the binary entry beside their JSON.
fn through(batch: &Batch) -> (Vec<QueuedBatch>, usize) {
    let mut encoder = Encoder::for_batch(batch);
    let mut decoder = Decoder::new(DecodeOptions::default());
    let mut found = Vec::new();
    let mut n_binary = 0;
    for (offset, entry) in (7..).zip(batch.entries()) {
        let encoded = encoder.encode(entry, batch.arrival_ns());
        assert!(serde_json::from_slice::<serde_json::Value>(encoded.payload).is_ok());
        let headers = encoded.headers(None);
        n_binary += usize::from(has(&headers, HEADER_ENTRY));
        let is_letter = encoded.is_letter;
        let message = message(encoded.payload, Some(headers), offset);
        decoder.push(&message, is_letter, |queued| found.push(queued));
    }
    decoder.finish(|queued| found.push(queued));
    (found, n_binary)
}

fn has(headers: &OwnedHeaders, name: &str) -> bool {
    use rdkafka::message::Headers as _;
    headers.iter().any(|header| header.key == name)
}

fn message(payload: &[u8], headers: Option<OwnedHeaders>, offset: i64) -> OwnedMessage {
    OwnedMessage::new(
        Some(payload.to_vec()),
        None,
        "logs".to_owned(),
        Timestamp::CreateTime(1_742_430_600_123),
        3,
        offset,
        headers,
    )
}

/// Every entry as text, fields sorted.
fn entries(batch: &Batch) -> Vec<String> {
    let show = |entry: EntryRef<'_>| match entry {
        EntryRef::DeadLetter(letter) => format!("{letter:?} at {}", batch.arrival_ns()),
        EntryRef::Record(record) => {
            let mut fields: Vec<_> = record
                .fields()
                .map(|field| format!("{:?}={:?}", field.key, field.value))
                .collect();
            fields.sort();
            format!(
                "{} {} {:?} at {} {}",
                record.timestamp_ns,
                record.timestamp_digits,
                record.flags,
                batch.arrival_ns(),
                fields.join(" ")
            )
        }
    };
    batch.entries().map(show).collect()
}

#[track_caller]
fn check_same(batch: &Batch) -> usize {
    let (found, n_binary) = through(batch);
    let back: Vec<String> = found
        .iter()
        .flat_map(|queued| entries(&queued.batch))
        .collect();
    assert_eq!(back, entries(batch));
    let first = found.first().map(|queued| queued.first);
    let expected = Position {
        partition: 3,
        seq: 7,
    };
    assert!(batch.is_empty() || first.map(|p| p.seq) == Some(expected.seq));
    n_binary
}

fn posted(lines: &str) -> Batch {
    let mut decoder = BodyDecoder::new(DecodeOptions::default());
    let body = Body {
        bytes: lines.as_bytes(),
        hint: Hint::Unknown,
        defaults: RecordDefaults {
            arrival_ns: 1_795_399_200_000_000_000,
            source: Some("src"),
            level: None,
        },
    };
    decoder.decode(&body).unwrap().batch
}

#[test]
fn posted_lines_come_out_as_they_went_in() {
    let plain = [
        r#"{"message":"hello","level":"INFO","n":1,"f":1.5,"deep":{"a":{"b":[1,{"c":null}]}},"t":true,"none":null}"#,
        r#"{"@timestamp":"2025-03-20T00:00:00.1234Z","log.level":"warn","service":{"name":"x"},"host":{"name":"h"}}"#,
        r#"{"a.b":1,"x\\y":2,"":3,"ünï":"\u0001","big":18446744073709551616,"small":1e-400,"neg":-0}"#,
        r#"{"level":[1],"Level":"x","severity":"y","timestamp":"no time","time":"neither","_timestamp":5}"#,
        "a line of text, ERROR perhaps",
        r#"{"Message":"m","TIMESTAMP":1742430600}"#,
        r#"{"level":{"name":"deep"},"message":{"text":"t"}}"#,
    ];
    for line in plain {
        assert_eq!(check_same(&posted(line)), 0, "{line}");
    }
    // Names that the JSON needs for itself.
    let strange = [
        r#"{"id":7,"message":"m"}"#,
        r#"{"_flags":["mine"],"message":"m"}"#,
        r#"{"a":1,"a.b":2}"#,
        r#"{"message":{"text":"t"},"msg":"alias"}"#,
    ];
    for line in strange {
        check_same(&posted(line));
    }
    assert_eq!(check_same(&posted(strange[0])), 1);
    check_same(&posted(&plain.join("\n")));
    check_same(&posted("{\"ok\":1}\n{broken\n[1,2\n{\"ok\":2}"));
}

#[test]
fn dead_letters_come_out_as_they_went_in() {
    let mut builder = BatchBuilder::new(42);
    for (source, raw) in [
        (Some("s"), &b"{broken \"\n"[..]),
        (None, b"\xff\x00\xfe"),
        (None, b""),
    ] {
        builder.dead_letter(DeadLetterRef {
            code: "invalid_json",
            reason: "why \"not\"",
            source,
            raw,
        });
    }
    check_same(&builder.finish());
}

#[test]
fn messages_of_others_are_read_as_lines() {
    let messages: [(&[u8], &str); 8] = [
        (
            br#"{"@timestamp":"2025-03-20T00:00:00Z","severity":"ERROR","msg":"m"}"#,
            "\"level\"=Str(\"ERROR\") \"message\"=Str(\"m\")",
        ),
        (b"plain text", "\"message\"=Str(\"plain text\")"),
        (b"two\nlines", "\"message\"=Str(\"two\\nlines\")"),
        (br#""a string""#, "\"message\"=Str(\"a string\")"),
        (br#"{"broken":"#, "code: \"invalid_json\""),
        (b"[1,2]", "\"message\"=Str(\"[1,2]\")"),
        (br#"[{"a":1}]"#, "code: \"not_an_object\""),
        (b"", "code: \"empty_message\""),
    ];
    let mut decoder = Decoder::new(DecodeOptions::default());
    let mut found = Vec::new();
    for (offset, (payload, _)) in (0..).zip(&messages) {
        decoder.push(&message(payload, None, offset), false, |queued| {
            found.push(queued);
        });
    }
    // A header that is not ours changes nothing; one that lies neither.
    let strange = OwnedHeaders::new().insert(Header {
        key: "logyard",
        value: Some("?"),
    });
    decoder.push(&message(b"strange", Some(strange), 8), false, |q| {
        found.push(q);
    });
    decoder.finish(|queued| found.push(queued));
    let all: Vec<_> = found.iter().flat_map(|q| entries(&q.batch)).collect();
    assert_eq!(all.len(), messages.len() + 1, "{all:#?}");
    for (entry, (_, expected)) in all.iter().zip(&messages) {
        assert!(entry.contains(expected), "{entry}: {expected}");
        assert!(entry.contains("at 1742430600123000000"), "{entry}");
    }
    // Positions are consecutive, so they are one batch.
    assert_eq!(found.len(), 1);
}

#[test]
fn a_gap_another_partition_and_another_arrival_end_a_batch() {
    let mut decoder = Decoder::new(DecodeOptions::default());
    let mut found = Vec::new();
    for offset in [1, 2, 5, 6, 7] {
        decoder.push(&message(b"x", None, offset), false, |q| found.push(q));
    }
    decoder.push(&message(b"letter", None, 8), true, |q| found.push(q));
    decoder.finish(|queued| found.push(queued));
    let shape: Vec<_> = found
        .iter()
        .map(|q| (q.first.partition, q.first.seq, q.batch.len()))
        .collect();
    let letters = 3 | Position::LETTER_PARTITIONS;
    assert_eq!(shape, [(3, 1, 2), (3, 5, 3), (letters, 8, 1)]);
}

#[test]
fn a_note_of_a_poison_record_only_moves_the_position() {
    let letter = DeadLetterRef {
        code: "indexing_failed",
        reason: "r",
        source: None,
        raw: b"{}",
    };
    let mut encoder = Encoder::default();
    let encoded = encoder.encode_poison(letter, 5);
    let message = message(encoded.payload, Some(encoded.headers(None)), 4);
    let mut decoder = Decoder::new(DecodeOptions::default());
    let mut found = Vec::new();
    decoder.push(&message, true, |queued| found.push(queued));
    decoder.finish(|queued| found.push(queued));
    let shape: Vec<_> = found
        .iter()
        .map(|q| (q.next_seq(), q.batch.len()))
        .collect();
    assert_eq!(shape, [(5, 0)]);
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        prop::num::f64::NORMAL.prop_map(Value::Float),
        "\\PC{0,12}".prop_map(Value::Str),
        any::<String>().prop_map(Value::Str),
        Just(Value::Json("[1,{\"a\":null}]".to_owned())),
        Just(Value::Json("{}".to_owned())),
        Just(Value::Number("18446744073709551616".to_owned())),
    ]
}

fn field_key() -> impl Strategy<Value = String> {
    let segment = prop_oneof![
        4 => prop::sample::select(vec!["a", "b", "c", "level", "source", "message", "id", "timestamp", "_flags", "Level", "time", ""]).prop_map(str::to_owned),
        1 => "[a-z.\\\\_]{0,4}",
    ];
    prop::collection::vec(segment, 1..4).prop_map(|segments| {
        let mut key = String::new();
        for (index, segment) in segments.iter().enumerate() {
            crate::record::key::push_segment(&mut key, segment, index == 0);
        }
        key
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_record_comes_out_as_it_went_in(
        fields in prop::collection::btree_map(field_key(), value(), 0..8),
        timestamp_ns in any::<i64>(),
        digits in 0_u8..=9,
        flags in 0_u32..256,
    ) {
        let mut builder = BatchBuilder::new(-9);
        for _ in 0..2 {
            builder.begin_record();
            for (key, value) in &fields {
                let value: ValueRef<'_> = value.as_value_ref();
                builder.field(key, value);
            }
            builder.end_record(timestamp_ns, digits, Flags(flags));
        }
        check_same(&builder.finish());
    }
}
