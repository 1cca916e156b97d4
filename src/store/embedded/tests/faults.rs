//! Crashes at every point, damaged bytes at every page: what was acknowledged stays, and nothing wrong is ever served.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::common::cancel::Cancel;

/// Stops the work at the nth point it passes, for good: as if the process had died there.
fn crash_at(n: usize) -> (FaultHook, Arc<AtomicUsize>) {
    let passed = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&passed);
    let hook: FaultHook = Arc::new(move |_| {
        if n <= counter.fetch_add(1, Ordering::SeqCst) {
            return Err(Error::unavailable("crash", "the test stops here"));
        }
        Ok(())
    });
    (hook, passed)
}

#[test]
fn a_crash_at_any_point_of_a_flush_or_merge_loses_and_doubles_nothing() {
    let mut source = Source::new(3);
    let batches: Vec<_> = (0..12).map(|_| source.batch(20)).collect();
    let model = expected(&batches);
    let mut n = 0;
    loop {
        let folder = tempfile::tempdir().unwrap();
        let (hook, passed) = crash_at(n);
        run(async {
            let store = EmbeddedStore::open_with(folder.path(), small(), Some(hook)).unwrap();
            for batch in &batches {
                // After the crash the store refuses; the queue keeps what it has.
                if store.write(vec![batch.clone()]).await.is_err() {
                    break;
                }
            }
            // Fails if the point comes now.
            let _ = store.flush().await;
            merge_all(&store.disk);
        });
        run(async {
            let store = EmbeddedStore::open(folder.path(), small()).unwrap();
            let durable = store.durable().borrow().clone();
            let mut kept = model.clone();
            kept.retain(|key, _| durable.covers(key.position));
            assert_eq!(contents(&store.snapshot()), kept, "point {n}");
            store.write(batches.clone()).await.unwrap();
            assert_eq!(contents(&store.snapshot()), model, "point {n}");
            store.close().await.unwrap();
            let files = std::fs::read_dir(folder.path().join("segments"))
                .unwrap()
                .count();
            assert_eq!(
                files,
                store.snapshot().segments.len(),
                "orphans at point {n}"
            );
        });
        if passed.load(Ordering::SeqCst) <= n {
            break;
        }
        // Every point of the first flushes, then samples: merges pass one for each column.
        n += if n < 12 { 1 } else { 7 };
    }
    assert!(30 < n, "too few points: {n}");
}

#[test]
fn a_write_that_fails_is_tried_again_and_then_nothing_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let n_failures = Arc::new(AtomicUsize::new(2));
    let left = Arc::clone(&n_failures);
    let hook: FaultHook = Arc::new(move |_| {
        let is_failing = left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
            .is_ok();
        if is_failing {
            return Err(Error::unavailable("full", "no space left on device"));
        }
        Ok(())
    });
    run(async {
        let store = EmbeddedStore::open_with(folder.path(), small(), Some(hook)).unwrap();
        let mut source = Source::new(9);
        let batches: Vec<_> = (0..3).map(|_| source.batch(10)).collect();
        store.write(batches.clone()).await.unwrap();
        // Who waits is told; the store goes on trying.
        store.flush().await.unwrap_err();
        assert_ne!(store.disk.usage().unwrap().degraded.len(), 0);
        while store.flush().await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(n_failures.load(Ordering::SeqCst), 0);
        assert_eq!(contents(&store.snapshot()), expected(&batches));
        assert!(store.disk.usage().unwrap().degraded.is_empty());
        assert!(store.snapshot().head.is_empty());
    });
}

/// Reads all columns of all segments; `Err` where a checksum stopped it.
fn try_contents(snapshot: &Snapshot) -> Result<usize> {
    let mut n_rows = 0;
    for segment in snapshot.segments.iter() {
        let reader = segment.open()?;
        let all: Vec<usize> = (0..reader.schema().fields().len()).collect();
        let groups = (0..reader.metadata().num_row_groups()).collect();
        for batch in reader.read(&all, groups, None, 100)? {
            n_rows += batch
                .map_err(|error| reader.error("cannot be read", error))?
                .num_rows();
        }
    }
    Ok(n_rows)
}

#[test]
fn a_flipped_byte_is_never_served_and_takes_one_segment_out_alone() {
    let folder = tempfile::tempdir().unwrap();
    run(async {
        let store = EmbeddedStore::open(folder.path(), small()).unwrap();
        let mut source = Source::new(5);
        let batches: Vec<_> = (0..6).map(|_| source.batch(40)).collect();
        store.write(batches.clone()).await.unwrap();
        store.flush().await.unwrap();
        store.close().await.unwrap();
        let model = expected(&batches);
        let victim = Arc::clone(&store.snapshot().segments[0]);
        let n_lost = victim.meta.n_rows as usize;
        let good = std::fs::read(&victim.path).unwrap();
        let catalog = std::fs::read(folder.path().join("catalog.redb")).unwrap();
        let step = 97;
        for at in (0..good.len()).step_by(step) {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            std::fs::write(&victim.path, &bad).unwrap();
            let store = EmbeddedStore::open(folder.path(), small()).unwrap();
            let read = try_contents(&store.snapshot());
            if let Err(error) = &read {
                assert_eq!(
                    error.kind,
                    crate::common::error::ErrorKind::Corrupt,
                    "byte {at}: {error}"
                );
                assert!(store.disk.quarantine_damaged(), "byte {at}");
            }
            // What reading does not notice lies in the magic or in a token index: the full check sees it.
            let report = store
                .disk
                .verify(&Cancel::after(Duration::from_secs(60)))
                .unwrap();
            let is_magic = at < 4;
            assert_eq!(
                report.faults.len(),
                usize::from(!is_magic),
                "byte {at}: {report:?}"
            );
            if !is_magic {
                assert_eq!(
                    try_contents(&store.snapshot()).unwrap(),
                    model.len() - n_lost
                );
                assert_eq!(store.snapshot().partial_reasons.len(), 1);
                assert_eq!(store.disk.usage().unwrap().degraded.len(), 1);
            }
            drop(store);
            std::fs::write(folder.path().join("catalog.redb"), &catalog).unwrap();
        }
        // A quarantine outlives a restart; a file that is gone is one too.
        std::fs::remove_file(&victim.path).unwrap();
        let store = EmbeddedStore::open(folder.path(), small()).unwrap();
        assert_eq!(store.snapshot().partial_reasons.len(), 1);
        assert_eq!(contents(&store.snapshot()).len(), model.len() - n_lost);
    });
}
