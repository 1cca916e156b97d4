//! The same log on the real file system: the golden files, the lock, weaker durability, speed of opening.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::{Durability, Log, LogOptions, OpenError, RealDisk};

fn open(dir: &Path, options: LogOptions) -> Result<Log, OpenError> {
    Log::open(Arc::new(RealDisk), dir, options, None).map(|(log, _)| log)
}

#[test]
fn blocks_survive_reopening_and_segments_take_no_more_than_their_blocks() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("a/b/log");
    let mut log = open(&dir, LogOptions::default()).unwrap();
    for i in 0..100_u32 {
        let seq = log.append(&i.to_le_bytes(), b"meta", 2).unwrap();
        assert_eq!(seq, u64::from(i) * 2);
    }
    let locked = open(&dir, LogOptions::default()).err().unwrap();
    assert!(matches!(locked, OpenError::Locked { .. }), "{locked}");
    log.close().unwrap();
    drop(log);
    let log = open(&dir, LogOptions::default()).unwrap();
    let outcome = log.reader().read(7, usize::MAX).unwrap();
    assert_eq!(outcome.blocks.len(), 97);
    assert_eq!(outcome.blocks[0].payload, 3_u32.to_le_bytes());
    let size: u64 = std::fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert_eq!(size, log.reader().size_bytes());
}

#[test]
fn weaker_durability_says_when_a_sync_is_due() {
    let temp = tempfile::tempdir().unwrap();
    let options = LogOptions {
        durability: Durability::Interval(Duration::from_millis(500)),
        ..LogOptions::default()
    };
    let mut log = open(temp.path(), options).unwrap();
    assert_eq!(log.sync_due_in(), None);
    log.append(b"a", b"", 1).unwrap();
    assert!(log.sync_due_in().unwrap() <= Duration::from_millis(500));
    assert_eq!(log.reader().end_seq(), 1);
    log.sync().unwrap();
    assert_eq!(log.sync_due_in(), None);
}

#[test]
fn a_thousand_parts_in_one_group_are_one_write_or_several() {
    let temp = tempfile::tempdir().unwrap();
    let mut log = open(temp.path(), LogOptions::default()).unwrap();
    let payloads: Vec<Vec<u8>> = (0..2000_u32)
        .map(|i| vec![i as u8; i as usize % 50])
        .collect();
    let group: Vec<_> = payloads
        .iter()
        .map(|payload| crate::BlockRef {
            payload,
            meta: b"m",
            n_entries: 1,
        })
        .collect();
    log.append_group(&group).unwrap();
    drop(log);
    let log = open(temp.path(), LogOptions::default()).unwrap();
    let found = log.reader().read(0, usize::MAX).unwrap();
    let found: Vec<_> = found
        .blocks
        .into_iter()
        .map(|block| block.payload)
        .collect();
    assert_eq!(found, payloads);
}

/// Written once by version 1 of the format. Every later program must read it.
#[test]
fn the_golden_files_of_version_1_open() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1");
    let temp = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(&fixtures).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), temp.path().join(entry.file_name())).unwrap();
    }
    let (log, report) =
        Log::open(Arc::new(RealDisk), temp.path(), LogOptions::default(), None).unwrap();
    assert!(
        report.damage.is_empty() && report.torn.is_none(),
        "{report:?}"
    );
    let found = log.reader().read(0, usize::MAX).unwrap().blocks;
    assert_eq!(found.len(), 20);
    for (i, block) in (0..).zip(&found) {
        assert_eq!(*block, golden_block(i));
    }
    assert_eq!(report.next_seq, found.last().unwrap().end_seq());
}

fn golden_block(i: u64) -> crate::Block {
    let first_seq = (0..i).map(|i| i % 4 + 1).sum();
    crate::Block {
        first_seq,
        n_entries: u32::try_from(i % 4 + 1).unwrap(),
        payload: format!("golden block {i} ").repeat(i as usize).into_bytes(),
        meta: if i.is_multiple_of(2) {
            Vec::new()
        } else {
            i.to_le_bytes().to_vec()
        },
    }
}

/// `cargo test -p logyard-wal -- --ignored write_golden` in an empty folder of a new version.
#[test]
#[ignore = "writes the golden files of the current version"]
fn write_golden_files() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(format!("v{}", crate::frame::VERSION));
    assert!(!dir.exists(), "golden files are never rewritten");
    let options = LogOptions {
        segment_size_bytes: 2048,
        ..LogOptions::default()
    };
    let mut log = open(&dir, options).unwrap();
    for i in 0..20 {
        let block = golden_block(i);
        let seq = log
            .append(&block.payload, &block.meta, block.n_entries)
            .unwrap();
        assert_eq!(seq, block.first_seq);
    }
    log.close().unwrap();
}
