//! Records of one batch, one after another → the JSON that a queue keeps of each: what [`push_queued_record`] writes, in less time.
//!
//! Records with the same keys in the same order have the same text but for their values. Such a *shape* is worked out once, by writing a record whose
//! values are marks, and kept for the records that follow.

use crate::record::value::Flags;
use crate::record::{LEVEL, MESSAGE, RecordRef, SOURCE, ValueRef, timestamp};
use crate::wire::json_text::push_value;
use crate::wire::native::encode::{push_object, push_queued_record};

/// Records with more fields are written without a shape.
const FIELDS_MAX: usize = 64;
/// Shapes that are kept; records of others are written without.
const SHAPES_MAX: usize = 32;
/// A shape costs as much as two records, so there is one for so many at most.
const RECORDS_PER_SHAPE: u32 = 8;
/// Stands around a field's number in a shape's text: JSON never holds this byte.
const MARK: u8 = 0;
/// How an object begins whose time is 1970.
const EPOCH_HEAD: &[u8] = b"{\"timestamp\":\"1970-01-01T00:00:00Z\"";

/// For the records of one batch: shapes are known by the batch's key table.
#[derive(Default)]
pub struct QueuedWriter {
    shapes: Vec<Shape>,
    shapes_max: usize,
}

/// What was written.
pub struct Queued<'a> {
    /// As [`push_queued_record`] says it.
    pub is_exact: bool,
    /// The record's source, if that is a text.
    pub source: Option<&'a str>,
}

impl QueuedWriter {
    pub fn for_records(count: u32) -> Self {
        let shapes_max = usize::try_from(count / RECORDS_PER_SHAPE).unwrap_or(SHAPES_MAX);
        Self {
            shapes: Vec::new(),
            shapes_max: shapes_max.min(SHAPES_MAX),
        }
    }

    /// Appends the record as one JSON object.
    pub fn push<'a>(&mut self, out: &mut Vec<u8>, record: RecordRef<'a>) -> Queued<'a> {
        if self.shapes_max == 0 || !record.flags.is_empty() {
            return push_alone(out, record);
        }
        let mut keys = [0; FIELDS_MAX];
        let mut values = [ValueRef::Null; FIELDS_MAX];
        let mut n_fields = 0;
        for ((field, key), value) in record.fields().zip(&mut keys).zip(&mut values) {
            *key = field.key_index;
            *value = field.value;
            n_fields += 1;
        }
        let keys = keys.get(..n_fields).unwrap_or_default();
        let known = self.shapes.iter().position(|shape| *shape.keys == *keys);
        let place = match known {
            Some(place) => place,
            None if u32::try_from(n_fields) != Ok(record.n_fields()) => {
                return push_alone(out, record);
            }
            None if self.shapes_max <= self.shapes.len() => return push_alone(out, record),
            None => {
                self.shapes.push(Shape::of(record, keys));
                self.shapes.len() - 1
            }
        };
        match self.shapes.get(place) {
            Some(shape) => shape.push(out, record, &values),
            None => push_alone(out, record),
        }
    }
}

fn push_alone<'a>(out: &mut Vec<u8>, record: RecordRef<'a>) -> Queued<'a> {
    Queued {
        is_exact: push_queued_record(out, record),
        source: text_of(record.field(SOURCE)),
    }
}

fn text_of(value: Option<ValueRef<'_>>) -> Option<&str> {
    match value {
        Some(ValueRef::Str(text)) => Some(text),
        _ => None,
    }
}

struct Shape {
    keys: Box<[u32]>,
    is_exact: bool,
    /// What stands between the time and the values, and after them.
    text: Vec<u8>,
    slots: Vec<Slot>,
    /// The field that is the source.
    source: Option<usize>,
}

/// A value's place.
struct Slot {
    /// Where the text before it ends.
    end: usize,
    field: usize,
    /// A field that is always written: as null where it is missing, so that null does not give it back.
    is_standard: bool,
}

impl Shape {
    fn of(record: RecordRef<'_>, keys: &[u32]) -> Self {
        let marks: Vec<String> = (0..keys.len()).map(|n| format!("\0{n}\0")).collect();
        // Texts of numbers go as they are.
        let fields = record.fields().zip(&marks);
        let fields = fields.map(|(field, mark)| (field.key, ValueRef::Number(mark)));
        let mut marked = Vec::new();
        let is_exact = push_object(&mut marked, None, 0, 0, Flags::default(), fields.collect());
        let marked = marked.strip_prefix(EPOCH_HEAD).unwrap_or_default();
        let names: Vec<&str> = record.fields().map(|field| field.key).collect();
        let (mut text, mut slots) = (Vec::new(), Vec::new());
        for (index, part) in marked.split(|byte| *byte == MARK).enumerate() {
            if index % 2 == 0 {
                text.extend_from_slice(part);
                continue;
            }
            let number = std::str::from_utf8(part).ok().and_then(|n| n.parse().ok());
            let field: usize = number.unwrap_or(FIELDS_MAX);
            let name = names.get(field).copied().unwrap_or_default();
            slots.push(Slot {
                end: text.len(),
                field,
                is_standard: [LEVEL, SOURCE, MESSAGE].contains(&name),
            });
        }
        Self {
            keys: keys.into(),
            is_exact,
            text,
            slots,
            source: names.iter().position(|name| *name == SOURCE),
        }
    }

    fn push<'a>(
        &self,
        out: &mut Vec<u8>,
        record: RecordRef<'a>,
        values: &[ValueRef<'a>],
    ) -> Queued<'a> {
        out.extend_from_slice(b"{\"timestamp\":\"");
        timestamp::format_into(out, record.timestamp_ns, record.timestamp_digits);
        out.push(b'"');
        let mut is_exact = self.is_exact;
        let mut begin = 0;
        for slot in &self.slots {
            out.extend_from_slice(self.text.get(begin..slot.end).unwrap_or_default());
            begin = slot.end;
            let value = values.get(slot.field).copied().unwrap_or(ValueRef::Null);
            is_exact &= match value {
                ValueRef::Null => !slot.is_standard,
                ValueRef::Float(float) => float.is_finite(),
                _ => true,
            };
            push_value(out, value);
        }
        out.extend_from_slice(self.text.get(begin..).unwrap_or_default());
        Queued {
            is_exact,
            source: text_of(self.source.and_then(|source| values.get(source).copied())),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::{Batch, BatchBuilder, EntryRef};

    type Fields = Vec<(String, u8, String)>;

    fn batch(records: &[Fields], repeat: usize) -> Batch {
        let mut builder = BatchBuilder::new(7);
        for n in 0..repeat {
            for fields in records {
                builder.begin_record();
                for (key, kind, text) in fields {
                    let value = match kind % 8 {
                        0 => ValueRef::Null,
                        1 => ValueRef::Bool(n % 2 == 0),
                        2 => ValueRef::Int(n as i64 - 3),
                        3 => ValueRef::Float(n as f64 / 7.0),
                        4 => ValueRef::Number("18446744073709551616"),
                        5 => ValueRef::Json("[1,{\"a\":null}]"),
                        // Another type in every other record of the shape.
                        6 if n % 2 == 0 => ValueRef::Null,
                        _ => ValueRef::Str(text),
                    };
                    builder.field(key, value);
                }
                let flags = Flags(u32::from(n % 5 == 4));
                builder.end_record(n as i64 * 1_234_567_890, (n % 10) as u8, flags);
            }
        }
        builder.finish()
    }

    /// Each record as without shapes; how many shapes there were.
    #[track_caller]
    fn check(batch: &Batch) -> usize {
        let mut writer = QueuedWriter::for_records(batch.len());
        for entry in batch.entries() {
            let EntryRef::Record(record) = entry else {
                panic!("no record")
            };
            let (mut expected, mut found) = (Vec::new(), Vec::new());
            let is_exact = push_queued_record(&mut expected, record);
            let queued = writer.push(&mut found, record);
            let show = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            assert_eq!(show(&found), show(&expected));
            assert_eq!(queued.is_exact, is_exact, "{}", show(&found));
            assert_eq!(queued.source, text_of(record.field(SOURCE)));
        }
        writer.shapes.len()
    }

    fn fields(keys: &[&str]) -> Fields {
        let all = keys.iter().enumerate();
        all.map(|(n, key)| ((*key).to_owned(), n as u8, format!("\"{n}\u{0}")))
            .collect()
    }

    #[test]
    fn records_of_a_shape_are_written_as_each_alone() {
        let records = [
            fields(&[
                "level",
                "source",
                "message",
                "http.status",
                "http.path",
                "z",
            ]),
            fields(&["z", "a", "a.b", "id", "_flags", "timestamp", "source"]),
            fields(&["x\0y", "k\\.l", "source.name", "message", "level", "e"]),
            fields(&[]),
        ];
        assert_eq!(check(&batch(&records, 20)), 4);
        // Too few records for shapes, and too many shapes for the records.
        assert_eq!(check(&batch(&records, 1)), 0);
        assert_eq!(check(&batch(&records, 5)), 2);
        let names: Vec<String> = (0..=FIELDS_MAX).map(|n| format!("f{n}")).collect();
        let wide: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(check(&batch(&[fields(&wide)], 20)), 0);
        assert_eq!(check(&batch(&[fields(&wide[1..])], 20)), 1);
    }

    proptest! {
        #[test]
        fn any_records_are_written_as_each_alone(
            records in prop::collection::vec(
                prop::collection::btree_map(
                    "level|source|message|id|_?timestamp|_flags|[ab](\\.[ab]){0,3}|[a.\\\\]{0,3}|.{0,3}",
                    (any::<u8>(), ".{0,4}"),
                    0..7,
                ),
                1..4,
            ),
        ) {
            let records: Vec<Fields> = records
                .into_iter()
                .map(|fields| fields.into_iter().map(|(key, (kind, text))| (key, kind, text)).collect())
                .collect();
            check(&batch(&records, 16));
        }
    }
}
