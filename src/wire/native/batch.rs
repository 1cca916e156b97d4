//! Records and dead letters exactly as they are kept, for moving them from one Logyard to another: the batch of `record::batch` as a body of
//! `POST /logs` and as an answer. Nothing is renamed, no name means another, and flags, digits and types stay.
//!
//! A body comes from anywhere, so everything that the JSON decoder guarantees about a batch is checked here: what is not so is refused whole.

use bytes::Bytes;
use hashbrown::HashSet;

use crate::common::error::{Error, ErrorKind, Result};
use crate::record::key::{push_segment, segments};
use crate::record::{
    Batch, BatchBuilder, DeadLetter, DeadLetterRef, EntryRef, Flags, Record, RecordRef, ValueRef,
};
use crate::wire::json;
use crate::wire::native::decode::{DecodeOptions, Decoded};

pub const MEDIA_TYPE: &str = "application/vnd.logyard.batch";

/// Fields that Logyard adds to those of the sender: `_extra`, `_original_bytes`.
const OWN_FIELDS_MAX: u32 = 16;
/// The same record is larger here than as JSON when it has many small numbers.
const RECORD_GROWTH: usize = 4;
/// Where the header has the place of the key table.
const KEYS_OFFSET_AT: usize = 16;

/// Bytes of one record, about: to end a page in time.
pub fn size_of(record: &Record) -> usize {
    let fields = record.fields.iter().map(|(_, value)| {
        10 + match value.as_value_ref() {
            ValueRef::Number(text) | ValueRef::Str(text) | ValueRef::Json(text) => text.len(),
            ValueRef::Null | ValueRef::Bool(_) | ValueRef::Int(_) | ValueRef::Float(_) => 0,
        }
    });
    32 + fields.sum::<usize>()
}

pub fn of_records<'a>(records: impl Iterator<Item = &'a Record>, arrival_ns: i64) -> Batch {
    let mut builder = BatchBuilder::new(arrival_ns);
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
    builder.finish()
}

/// `letters` arrived at the same time.
pub fn of_letters<'a>(letters: impl Iterator<Item = &'a DeadLetter>, arrival_ns: i64) -> Batch {
    let mut builder = BatchBuilder::new(arrival_ns);
    for letter in letters {
        builder.dead_letter(DeadLetterRef {
            code: &letter.code,
            reason: &letter.reason,
            source: letter.source.as_deref(),
            raw: &letter.raw,
        });
    }
    builder.finish()
}

/// Checks the whole body.
pub fn decode(body: &[u8], options: &DecodeOptions) -> Result<Decoded> {
    // Before the table is read: each key takes more memory than its bytes.
    let word = |at: usize| -> Option<u32> {
        let bytes = body.get(at..at.checked_add(4)?)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    };
    let keys_count = word(KEYS_OFFSET_AT).and_then(|at| word(usize::try_from(at).ok()?));
    if keys_count.is_some_and(|count| options.keys_max < count) {
        return Err(too_large(&format!(
            "the batch has more than {} different field names",
            options.keys_max
        )));
    }
    let batch = Batch::from_bytes(Bytes::copy_from_slice(body))
        .map_err(|e| wrong(&format!("the body is {e}")))?;
    check_keys(&batch)?;
    let (mut accepted, mut dead_lettered) = (0, 0);
    // Records share values: a small body could hold more than any memory does.
    let mut size_bytes = 0_usize;
    let mut seen = HashSet::new();
    for entry in batch.entries() {
        match entry {
            EntryRef::Record(record) => {
                check_record(&record, options, &mut seen)?;
                size_bytes = size_bytes.saturating_add(record.size_bytes());
                if options.batch_bytes_max < size_bytes {
                    return Err(too_large(&format!(
                        "the records of the batch are together larger than {} bytes: send fewer at once",
                        options.batch_bytes_max
                    )));
                }
                accepted += 1;
            }
            EntryRef::DeadLetter(letter) => {
                if options.record_bytes_max < letter.raw.len() {
                    return Err(too_large(&format!(
                        "a dead letter is larger than {} bytes",
                        options.record_bytes_max
                    )));
                }
                dead_lettered += 1;
            }
        }
    }
    Ok(Decoded {
        batch,
        accepted,
        dead_lettered,
        errors: Vec::new(),
    })
}

/// Each key once, and written as Logyard writes it.
fn check_keys(batch: &Batch) -> Result<()> {
    let mut seen = HashSet::new();
    for key in batch.keys() {
        if !seen.insert(&**key) {
            return Err(wrong("the batch names a field twice"));
        }
        if key.contains('\\') {
            let mut again = String::new();
            for (index, segment) in segments(key).iter().enumerate() {
                push_segment(&mut again, segment, index == 0);
            }
            if *again != **key {
                return Err(wrong(
                    "the name of a field has an escape that means nothing",
                ));
            }
        }
    }
    Ok(())
}

fn check_record(
    record: &RecordRef<'_>,
    options: &DecodeOptions,
    seen: &mut HashSet<u32>,
) -> Result<()> {
    let fields_max = options.json.fields_max.saturating_add(OWN_FIELDS_MAX);
    if fields_max < record.n_fields() {
        return Err(too_large(&format!(
            "a record has {} fields, more than {} (`intake.fields_max`)",
            record.n_fields(),
            options.json.fields_max
        )));
    }
    if 9 < record.timestamp_digits {
        return Err(wrong("a timestamp has more than nine fraction digits"));
    }
    if record.flags.names().fold(Flags::default(), |flags, name| {
        flags.with(Flags::from_name(name).unwrap_or_default())
    }) != record.flags
    {
        return Err(wrong("a record has a flag that this version does not know"));
    }
    seen.clear();
    let mut size_bytes = 0_usize;
    for field in record.fields() {
        if !seen.insert(field.key_index) {
            return Err(wrong("a record has a field twice"));
        }
        match field.value {
            ValueRef::Float(value) if !value.is_finite() => {
                return Err(wrong("a number is not finite"));
            }
            ValueRef::Number(text) => {
                check_json(text, |first| first == b'-' || first.is_ascii_digit())?;
            }
            ValueRef::Json(text) => {
                check_json(text, |first| matches!(first, b'{' | b'['))?;
            }
            ValueRef::Null
            | ValueRef::Bool(_)
            | ValueRef::Int(_)
            | ValueRef::Float(_)
            | ValueRef::Str(_) => {}
        }
        size_bytes += 10 + field.value.text().len();
    }
    if options.record_bytes_max.saturating_mul(RECORD_GROWTH) < size_bytes {
        return Err(too_large(&format!(
            "a record is larger than {} bytes",
            options.record_bytes_max
        )));
    }
    Ok(())
}

/// Answers repeat these texts as they are.
fn check_json(text: &str, is_first: impl Fn(u8) -> bool) -> Result<()> {
    let is_fine = text.bytes().next().is_some_and(is_first)
        && json::check(text).is_ok_and(|end| end == text.len());
    match is_fine {
        true => Ok(()),
        false => Err(wrong("a value that should be JSON is not")),
    }
}

fn wrong(what: &str) -> Error {
    Error::invalid("invalid_batch", format!("{what}; nothing was stored"))
}

fn too_large(what: &str) -> Error {
    Error::new(
        ErrorKind::TooLarge,
        "batch_too_large",
        format!("{what}; nothing was stored"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Position, RecordKey, Value};

    fn record(fields: &[(&str, Value)]) -> Record {
        Record {
            key: RecordKey {
                timestamp_ns: 1_742_428_800_123_456_789,
                position: Position::default(),
            },
            timestamp_digits: 6,
            flags: Flags::TRUNCATED,
            fields: fields
                .iter()
                .map(|(key, value)| ((*key).into(), value.clone()))
                .collect(),
        }
    }

    fn check(records: &[Record]) -> Result<Decoded> {
        let batch = of_records(records.iter(), 5);
        decode(batch.as_bytes(), &DecodeOptions::default())
    }

    #[test]
    fn records_come_back_as_they_were() {
        let fields = [
            ("level", Value::Str("ERROR".to_owned())),
            ("service", Value::Str("not the source".to_owned())),
            ("a.b", Value::Int(-3)),
            ("a\\.b", Value::Float(0.5)),
            (
                "big",
                Value::Number("123456789012345678901234567890".to_owned()),
            ),
            ("list", Value::Json("[1,{\"x\":null}]".to_owned())),
            ("nothing", Value::Null),
            ("is", Value::Bool(true)),
        ];
        let decoded = check(&[record(&fields), record(&[])]).unwrap();
        assert_eq!((decoded.accepted, decoded.dead_lettered), (2, 0));
        assert_eq!(decoded.batch.arrival_ns(), 5);
        let entries: Vec<EntryRef<'_>> = decoded.batch.entries().collect();
        let EntryRef::Record(first) = entries[0] else {
            panic!()
        };
        assert_eq!(first.timestamp_ns, 1_742_428_800_123_456_789);
        assert_eq!((first.timestamp_digits, first.flags), (6, Flags::TRUNCATED));
        let read: Vec<(String, Value)> = first
            .fields()
            .map(|field| (field.key.to_owned(), field.value.to_value()))
            .collect();
        let expected: Vec<(String, Value)> = fields
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.clone()))
            .collect();
        assert_eq!(read, expected);
    }

    #[test]
    fn dead_letters_come_back_as_they_were() {
        let letter = DeadLetter {
            position: Position::default(),
            arrival_ns: 77,
            code: "invalid_json".to_owned(),
            reason: "cut".to_owned(),
            source: Some("nginx".to_owned()),
            raw: vec![0xFF, b'{', 0],
        };
        let batch = of_letters([&letter].into_iter(), 77);
        let decoded = decode(batch.as_bytes(), &DecodeOptions::default()).unwrap();
        assert_eq!((decoded.accepted, decoded.dead_lettered), (0, 1));
        let Some(EntryRef::DeadLetter(read)) = decoded.batch.entries().next() else {
            panic!()
        };
        assert_eq!((read.raw, read.source), (&letter.raw[..], Some("nginx")));
        assert_eq!(decoded.batch.arrival_ns(), 77);
    }

    #[test]
    fn what_the_json_decoder_never_makes_is_refused() {
        let text = |value: &str| Value::Json(value.to_owned());
        let number = |value: &str| Value::Number(value.to_owned());
        for (fields, what) in [
            (vec![("a", Value::Float(f64::NAN))], "not finite"),
            (vec![("a", text("{\"x\":"))], "should be JSON"),
            (vec![("a", text("\"text\""))], "should be JSON"),
            (vec![("a", text("[1] , \"b\":2"))], "should be JSON"),
            (vec![("a", number("1,\"b\":2"))], "should be JSON"),
            (vec![("a", number("0x10"))], "should be JSON"),
            (vec![("a", number(""))], "should be JSON"),
            (vec![("a\\b", Value::Null)], "escape"),
            (vec![("a", Value::Null), ("a", Value::Null)], "field twice"),
        ] {
            let error = check(&[record(&fields)]).unwrap_err();
            assert!(error.message.contains(what), "{fields:?}: {error}");
        }
        let names: Vec<String> = (0..2_000).map(|i| format!("f{i}")).collect();
        let many: Vec<(&str, Value)> = names.iter().map(|name| (&**name, Value::Null)).collect();
        let error = check(&[record(&many)]).unwrap_err();
        assert_eq!(error.kind, ErrorKind::TooLarge);
        let mut digits = record(&[]);
        digits.timestamp_digits = 10;
        check(&[digits]).unwrap_err();
        let mut flags = record(&[]);
        flags.flags = Flags(1 << 30);
        check(&[flags]).unwrap_err();
    }

    #[test]
    fn records_that_share_values_count_as_if_each_had_its_own() {
        let fields = [("message", Value::Str("x".repeat(10_000)))];
        let records = vec![record(&fields); 100];
        let batch = of_records(records.iter(), 5);
        assert!(batch.as_bytes().len() < 20_000);
        let mut options = DecodeOptions {
            batch_bytes_max: 2_000_000,
            ..DecodeOptions::default()
        };
        decode(batch.as_bytes(), &options).unwrap();
        options.batch_bytes_max = 1_000_000;
        let error = decode(batch.as_bytes(), &options).unwrap_err();
        assert_eq!(error.kind, ErrorKind::TooLarge);
        assert!(error.message.contains("larger than 1000000"), "{error}");
    }

    #[test]
    fn any_damage_is_refused_or_still_a_batch_that_can_be_read() {
        let fields = [("a.b", Value::Int(1)), ("c", Value::Str("x".to_owned()))];
        let batch = of_records([record(&fields)].iter(), 5);
        let bytes = batch.as_bytes().to_vec();
        let options = DecodeOptions::default();
        for end in 0..bytes.len() {
            decode(&bytes[..end], &options).unwrap_err();
        }
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                if let Ok(decoded) = decode(&damaged, &options) {
                    assert_eq!(
                        decoded.batch.entries().count(),
                        decoded.batch.len() as usize
                    );
                }
            }
        }
        let mut keys = bytes.clone();
        let at = u32::from_le_bytes(bytes[16..20].try_into().unwrap()) as usize;
        keys[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(
            decode(&keys, &options).unwrap_err().kind,
            ErrorKind::TooLarge
        );
    }
}
