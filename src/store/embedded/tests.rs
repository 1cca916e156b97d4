//! The write side against a model: rows by key, whatever sequence of writes, flushes, crashes and reopenings made them.

use std::collections::BTreeMap;
use std::time::Duration;

use arrow::array::{AsArray as _, RecordBatch};
use arrow::datatypes::{UInt8Type, UInt32Type};

mod columns;
mod faults;
mod operations;

use super::*;
use crate::record::value::ValueRef;
use crate::record::{BatchBuilder, DeadLetterRef, EntryRef, Flags, Position, RecordKey, Value};
use crate::store::DeadLetterRequest;
use crate::store::embedded::columns::ColumnLimits;
use crate::store::embedded::merge::{MergeOptions, merge_all};
use crate::store::embedded::schema::{self, Columns};
use crate::store::embedded::segment::write::SegmentOptions;

const DAY_NS: i64 = 86_400_000_000_000;

type Fields = BTreeMap<String, Value>;
/// Key → digits, flags, fields.
pub type Model = BTreeMap<RecordKey, (u8, u32, Fields)>;

/// All rows of a batch, checked to be whole.
fn rows_of(batch: &RecordBatch, columns: &Columns, model: &mut Model) {
    let timestamps = schema::timestamps(batch).unwrap();
    let seqs = schema::seqs(batch).unwrap();
    let partitions = schema::partitions(batch).unwrap();
    let digits = batch
        .column(schema::TIMESTAMP_DIGITS)
        .as_primitive::<UInt8Type>();
    let flags = batch.column(schema::FLAGS).as_primitive::<UInt32Type>();
    for row in 0..batch.num_rows() {
        let key = RecordKey {
            timestamp_ns: timestamps[row],
            position: Position {
                partition: partitions[row],
                seq: seqs[row],
            },
        };
        let mut fields = Fields::new();
        for info in columns.fields() {
            let array = batch.column(info.index);
            if let Some(value) = spill::value_at(array, info.value_type, row) {
                let old = fields.insert(info.key.to_string(), value.to_value());
                assert_eq!(old, None, "two values for {}", info.key);
            }
        }
        if let Some(index) = columns.overflow() {
            let texts = batch.column(index).as_string::<i32>();
            if arrow::array::Array::is_valid(texts, row) {
                fields.extend(overflow::parse(texts.value(row)).unwrap());
            }
        }
        let entry = (digits.value(row), flags.value(row), fields);
        assert_eq!(model.insert(key, entry), None, "doubled: {key:?}");
    }
}

/// Everything a snapshot holds; checks the order and the catalog's figures of each segment on the way.
pub fn contents(snapshot: &Snapshot) -> Model {
    let mut model = Model::new();
    for chunk in &snapshot.head {
        let all: Vec<usize> = (0..chunk.schema.fields().len()).collect();
        let rows: Vec<u32> = (0..).take(chunk.n_rows()).collect();
        let batch = chunk.read(&all, &rows).unwrap();
        rows_of(&batch, &chunk.columns, &mut model);
    }
    for segment in snapshot.segments.iter() {
        let mut rows = Model::new();
        let reader = segment.open().unwrap();
        let all: Vec<usize> = (0..reader.schema().fields().len()).collect();
        let groups = (0..reader.metadata().num_row_groups()).collect();
        let mut last = None;
        for batch in reader.read(&all, groups, None, 100).unwrap() {
            let batch = batch.unwrap();
            let mut part = Model::new();
            rows_of(&batch, reader.columns(), &mut part);
            let first = part.keys().next().copied();
            assert!(last < first, "not in order");
            last = part.keys().next_back().copied();
            rows.extend(part);
        }
        assert!(reader.columns().fields().len() <= 1_000);
        let meta = &segment.meta;
        assert_eq!(rows.len() as u64, meta.n_rows);
        assert_eq!(rows.keys().next(), Some(&meta.min_key));
        assert_eq!(rows.keys().next_back(), Some(&meta.max_key));
        assert!(
            rows.keys()
                .all(|key| rows::day_of(key.timestamp_ns) == meta.day)
        );
        for (key, entry) in rows {
            assert_eq!(model.insert(key, entry), None, "doubled: {key:?}");
        }
    }
    model
}

/// What the batches should become.
fn expected<'a>(batches: impl IntoIterator<Item = &'a QueuedBatch>) -> Model {
    let mut model = Model::new();
    for queued in batches {
        for (index, entry) in queued.batch.entries().enumerate() {
            let EntryRef::Record(record) = entry else {
                continue;
            };
            let position = Position {
                partition: queued.first.partition,
                seq: queued.first.seq + index as u64,
            };
            let key = RecordKey {
                timestamp_ns: record.timestamp_ns,
                position,
            };
            let fields = record
                .fields()
                .map(|field| (field.key.to_owned(), field.value.to_value()))
                .collect();
            model.insert(key, (record.timestamp_digits, record.flags.0, fields));
        }
    }
    model
}

fn small() -> EmbeddedStoreOptions {
    EmbeddedStoreOptions {
        head_rows_max: 50,
        columns: ColumnLimits {
            columns_max: 12,
            key_bytes_max: 20,
            chunk_rows_max: 16,
            chunk_bytes_max: 4_096,
        },
        segment: SegmentOptions {
            row_group_rows_max: 40,
            page_rows_max: 8,
            ..SegmentOptions::default()
        },
        merge: MergeOptions {
            segments_min: 3,
            segments_max: 5,
            rows_max: 200,
            ..MergeOptions::default()
        },
        write_wait_max: Duration::from_secs(5),
        ..EmbeddedStoreOptions::default()
    }
}

/// Batches of varied records: many keys, all types, many days, some dead letters.
struct Source {
    random: u64,
    seqs: [u64; 2],
}

impl Source {
    fn new(seed: u64) -> Self {
        Self {
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            seqs: [0, 7],
        }
    }

    fn below(&mut self, n: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % n
    }

    fn batch(&mut self, n_entries: u64) -> QueuedBatch {
        let partition = self.below(2) as usize;
        let mut builder = BatchBuilder::new(self.below(1_000) as i64);
        for _ in 0..n_entries {
            if self.below(10) == 0 {
                builder.dead_letter(DeadLetterRef {
                    code: "invalid_json",
                    reason: "expected a value",
                    source: Some("app"),
                    raw: b"{broken",
                });
                continue;
            }
            builder.begin_record();
            let n_fields = self.below(8);
            let mut used = std::collections::BTreeSet::new();
            for _ in 0..n_fields {
                let n = self.below(25);
                if used.insert(if n == 5 { 4 } else { n }) {
                    self.field(&mut builder, n);
                }
            }
            let timestamp_ns = self.below(5) as i64 * DAY_NS + self.below(50) as i64 - DAY_NS;
            builder.end_record(
                timestamp_ns,
                self.below(10) as u8,
                Flags(self.below(3) as u32),
            );
        }
        let seq = self.seqs[partition];
        self.seqs[partition] += n_entries;
        QueuedBatch {
            first: Position {
                partition: partition as u32,
                seq,
            },
            batch: builder.finish(),
        }
    }

    fn field(&mut self, builder: &mut BatchBuilder, n: u64) {
        let key = match n {
            0 => "message".to_owned(),
            1 => "level".to_owned(),
            2 => "timestamp".to_owned(),
            4 | 5 => "source".to_owned(),
            3 => "a key that is longer than the limit".to_owned(),
            _ => format!("k{n}.x\\.y"),
        };
        let text = format!("text {}", self.below(20));
        let value = match self.below(7) {
            0 => ValueRef::Null,
            1 => ValueRef::Bool(self.below(2) == 0),
            2 => ValueRef::Int(self.below(1_000) as i64 - 500),
            3 => ValueRef::Float(self.below(100) as f64 / 8.0),
            4 => ValueRef::Number("18446744073709551616.5"),
            5 => ValueRef::Json("[1,{\"a\":\"b\"}]"),
            _ => ValueRef::Str(&text),
        };
        builder.field(&key, value);
    }
}

fn run<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

#[test]
fn what_is_written_is_there_before_and_after_a_flush_and_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    run(async {
        let mut source = Source::new(1);
        let batches: Vec<_> = (0..6).map(|_| source.batch(30)).collect();
        let store = EmbeddedStore::open(folder.path(), EmbeddedStoreOptions::default()).unwrap();
        let model = expected(&batches);
        store.write(batches.clone()).await.unwrap();
        assert_eq!(contents(&store.snapshot()), model);
        assert!(store.snapshot().segments.is_empty());
        // Again, and a part of it: nothing is doubled.
        store.write(batches[2..].to_vec()).await.unwrap();
        assert_eq!(contents(&store.snapshot()), model);
        let n_letters = store.disk.n_dead_letters().unwrap();
        assert_ne!(n_letters, 0);
        store.flush().await.unwrap();
        assert_eq!(contents(&store.snapshot()), model);
        assert!(store.snapshot().head.is_empty());
        assert_eq!(store.disk.n_dead_letters().unwrap(), n_letters);
        let durable = store.durable().borrow().clone();
        assert_eq!(durable, *store.searchable().borrow());
        store.close().await.unwrap();
        store.close().await.unwrap();
        store.write(Vec::new()).await.unwrap_err();
        let store = EmbeddedStore::open(folder.path(), EmbeddedStoreOptions::default()).unwrap();
        assert_eq!(*store.durable().borrow(), durable);
        assert_eq!(contents(&store.snapshot()), model);
        store.write(batches).await.unwrap();
        assert_eq!(contents(&store.snapshot()), model);
    });
}

#[test]
fn a_batch_that_is_partly_covered_is_trimmed() {
    let folder = tempfile::tempdir().unwrap();
    run(async {
        let store = EmbeddedStore::open(folder.path(), small()).unwrap();
        let mut builder = BatchBuilder::new(0);
        for i in 0..10 {
            builder.begin_record();
            builder.field("n", ValueRef::Int(i));
            builder.end_record(i, 9, Flags::default());
        }
        let batch = builder.finish();
        let at = |seq| QueuedBatch {
            first: Position { partition: 0, seq },
            batch: batch.clone(),
        };
        store.write(vec![at(0)]).await.unwrap();
        store.write(vec![at(4)]).await.unwrap();
        let model = contents(&store.snapshot());
        let seqs: Vec<_> = model.keys().map(|key| key.position.seq).collect();
        assert_eq!(seqs.len(), 14);
        assert_eq!(store.searchable().borrow().next_seq(0), 14);
    });
}

#[test]
fn many_tiny_writes_make_few_chunks() {
    let folder = tempfile::tempdir().unwrap();
    run(async {
        let options = EmbeddedStoreOptions::default();
        let store = EmbeddedStore::open(folder.path(), options).unwrap();
        let mut source = Source::new(2);
        let batches: Vec<_> = (0..300).map(|_| source.batch(1)).collect();
        for batch in &batches {
            store.write(vec![batch.clone()]).await.unwrap();
        }
        assert!(
            store.snapshot().head.len() <= 12,
            "{}",
            store.snapshot().head.len()
        );
        assert_eq!(contents(&store.snapshot()), expected(&batches));
    });
}

#[test]
fn dead_letters_are_listed_found_and_deleted_in_head_and_catalog() {
    let folder = tempfile::tempdir().unwrap();
    run(async {
        let store = EmbeddedStore::open(folder.path(), small()).unwrap();
        let letters = |seq, reasons: &[&str]| {
            let mut builder = BatchBuilder::new(5);
            for reason in reasons {
                builder.dead_letter(DeadLetterRef {
                    code: "c",
                    reason,
                    source: None,
                    raw: b"\xffraw",
                });
            }
            QueuedBatch {
                first: Position { partition: 0, seq },
                batch: builder.finish(),
            }
        };
        store
            .write(vec![letters(0, &["Alpha beta", "gamma"])])
            .await
            .unwrap();
        store.flush().await.unwrap();
        store
            .write(vec![letters(2, &["beta", "delta"])])
            .await
            .unwrap();
        let list = |q: &str, limit, before: Option<u64>| {
            let page = store.disk.dead_letters(&DeadLetterRequest {
                q: q.to_owned(),
                limit,
                before: before.map(|seq| Position { partition: 0, seq }),
            });
            let page = page.unwrap();
            let seqs: Vec<_> = page.letters.iter().map(|l| l.position.seq).collect();
            (seqs, page.total, page.has_more)
        };
        assert_eq!(list("", 10, None), (vec![3, 2, 1, 0], 4, false));
        assert_eq!(list("", 2, Some(3)), (vec![2, 1], 4, true));
        assert_eq!(list("BETA", 10, None), (vec![2, 0], 2, false));
        assert_eq!(list("beta alpha", 10, None), (vec![0], 1, false));
        assert_eq!(list("raw", 1, None), (vec![3], 4, true));
        let wanted = [3, 9, 0].map(|seq| Position { partition: 0, seq });
        let found = store.disk.dead_letters_by_position(&wanted).unwrap();
        assert_eq!(
            found.iter().map(|l| l.position.seq).collect::<Vec<_>>(),
            [3, 0]
        );
    });
}
