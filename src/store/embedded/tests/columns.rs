//! Heads large enough that columns take different ways to the disk: numbered values, values row by row, and numbering given up in the middle.

use super::*;

/// Text of a row where each has its own.
fn unique(row: u64) -> String {
    format!("request {row} took {}", row.wrapping_mul(0x9e37_79b9))
}

/// A column of each kind: how far values repeat within a batch, from batch to batch, and over the head.
fn batch(first_seq: u64, n_rows: u64) -> QueuedBatch {
    let mut builder = BatchBuilder::new(0);
    for row in first_seq..first_seq + n_rows {
        builder.begin_record();
        let text = unique(row);
        builder.field("unique", ValueRef::Str(&text));
        builder.field("same", ValueRef::Str("always the same"));
        let of_batch = unique(first_seq);
        builder.field("of batch", ValueRef::Str(&of_batch));
        // Repeats until the second half of the head.
        let late = unique(if row < 3_000 { row % 7 } else { row });
        builder.field("late", ValueRef::Str(&late));
        builder.field("status", ValueRef::Int((row % 5) as i64 * 100));
        builder.field("id", ValueRef::Int(row as i64 * 7_919));
        builder.field("share", ValueRef::Float((row % 3) as f64 / 4.0));
        if row % 11 == 0 {
            builder.field("rare", ValueRef::Str(if row % 2 == 0 { "" } else { "odd" }));
        }
        if row % 2 == 0 {
            builder.field("mixed", ValueRef::Int(row as i64 % 4));
        } else {
            builder.field("mixed", ValueRef::Bool(row % 3 == 0));
        }
        if row == 4_321 {
            builder.field("once", ValueRef::Null);
        }
        let timestamp_ns = (row % 3) as i64 * DAY_NS + (row * 31 % 1_000) as i64;
        builder.end_record(timestamp_ns, 9, Flags::default());
    }
    QueuedBatch {
        first: Position {
            partition: 0,
            seq: first_seq,
        },
        batch: builder.finish(),
    }
}

#[test]
fn columns_of_every_habit_reach_the_disk_whole() {
    let folder = tempfile::tempdir().unwrap();
    run(async {
        let options = EmbeddedStoreOptions::default();
        let store = EmbeddedStore::open(folder.path(), options).unwrap();
        let batches: Vec<_> = (0..12).map(|n| batch(n * 500, 500)).collect();
        let model = expected(&batches);
        for batch in &batches {
            store.write(vec![batch.clone()]).await.unwrap();
        }
        assert_eq!(contents(&store.snapshot()), model);
        store.flush().await.unwrap();
        assert_eq!(store.snapshot().segments.len(), 3);
        assert_eq!(contents(&store.snapshot()), model);
    });
}

#[test]
fn chunks_and_heads_hold_a_bounded_amount_of_text() {
    let folder = tempfile::tempdir().unwrap();
    run(async {
        let options = EmbeddedStoreOptions::default();
        let store = EmbeddedStore::open(folder.path(), options).unwrap();
        let text = "x".repeat(1 << 20);
        let batch = |seq| {
            let mut builder = BatchBuilder::new(0);
            for _ in 0..40 {
                builder.begin_record();
                builder.field("message", ValueRef::Str(&text));
                builder.end_record(0, 9, Flags::default());
            }
            let first = Position { partition: 0, seq };
            let batch = builder.finish();
            QueuedBatch { first, batch }
        };
        for n in 0..3 {
            store.write(vec![batch(n * 40)]).await.unwrap();
        }
        let snapshot = store.snapshot();
        let head = &snapshot.head;
        assert_eq!(head.iter().map(|chunk| chunk.n_rows()).sum::<usize>(), 120);
        for chunk in head {
            assert!(chunk.text_bytes <= 65 << 20, "{}", chunk.text_bytes);
        }
        // 160 MiB of text, four of memory.
        let mut durable = store.durable();
        store.write(vec![batch(120)]).await.unwrap();
        let is_flushed = durable.wait_for(|stored| stored.next_seq(0) == 160);
        tokio::time::timeout(Duration::from_secs(60), is_flushed)
            .await
            .unwrap()
            .unwrap();
        assert!(store.snapshot().head.is_empty());
    });
}
