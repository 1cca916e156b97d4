//! Cut and garbled files: nothing wrong is ever served, everything else is.

use super::{block, dir, open, read_all, segments, try_open};
use crate::sim::SimDisk;
use crate::{Block, OpenError};

/// A few blocks in one segment, killed while it is open.
fn open_segment() -> (SimDisk, Vec<Block>) {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk);
    let mut blocks = Vec::new();
    for i in 1..6 {
        let block = block(log.next_seq(), i);
        log.append(&block.payload, &block.meta, block.n_entries)
            .unwrap();
        blocks.push(block);
    }
    disk.kill();
    assert_eq!(segments(&disk).len(), 1);
    (disk, blocks)
}

/// Several segments, the last one closed.
fn closed_log() -> (SimDisk, Vec<Block>) {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk);
    let mut blocks = Vec::new();
    for i in 1..14 {
        let block = block(log.next_seq(), i);
        log.append(&block.payload, &block.meta, block.n_entries)
            .unwrap();
        blocks.push(block);
    }
    log.close().unwrap();
    drop(log);
    assert!(2 < segments(&disk).len());
    (disk, blocks)
}

#[test]
fn a_tail_cut_at_any_byte_leaves_the_longest_whole_prefix() {
    let (disk, blocks) = open_segment();
    let path = segments(&disk).remove(0);
    let whole = disk.bytes(&path);
    let mut n_before = 0;
    for end in 0..whole.len() {
        let disk = SimDisk::new();
        disk.set_bytes(&path, &whole[..end]);
        let (mut log, report) = open(&disk);
        let found = read_all(&log);
        assert_eq!(found, blocks[..found.len()], "cut at {end}");
        assert!(
            n_before <= found.len() && report.damage.is_empty(),
            "cut at {end}"
        );
        n_before = found.len();
        // It goes on from there, also after another restart.
        let next = log.append(b"next", b"", 1).unwrap();
        assert_eq!(next, found.last().map_or(0, Block::end_seq));
        drop(log);
        let (log, report) = open(&disk);
        assert!(report.damage.is_empty(), "cut at {end}: {report:?}");
        assert_eq!(read_all(&log).len(), found.len() + 1);
    }
    assert_eq!(n_before, blocks.len());
}

#[test]
fn a_garbled_byte_of_the_open_segment_costs_its_block_alone_or_cuts_the_last_one() {
    let (disk, blocks) = open_segment();
    let path = segments(&disk).remove(0);
    let whole = disk.bytes(&path);
    for at in 0..whole.len() {
        let mut garbled = whole.clone();
        garbled[at] ^= 0x5a;
        let disk = SimDisk::new();
        disk.set_bytes(&path, &garbled);
        let (log, report) = open(&disk);
        let found = read_all(&log);
        let missing: Vec<_> = blocks
            .iter()
            .filter(|block| !found.contains(block))
            .collect();
        assert!(
            found.iter().all(|block| blocks.contains(block)),
            "byte {at}"
        );
        assert!(missing.len() <= 1, "byte {at}: {missing:?}");
        if let Some(missing) = missing.first() {
            let is_last = *missing == blocks.last().unwrap();
            assert_eq!(report.torn.is_some(), is_last, "byte {at}: {report:?}");
            let told = report.damage.iter().any(|damage| {
                (damage.first_seq, damage.next_seq) == (missing.first_seq, missing.end_seq())
            });
            assert_eq!(told, !is_last, "byte {at}: {report:?}");
        }
    }
}

#[test]
fn any_flipped_bit_of_a_closed_log_is_told_and_costs_at_most_its_block() {
    let (disk, blocks) = closed_log();
    for path in segments(&disk) {
        let whole = disk.bytes(&path);
        for bit in 0..whole.len() * 8 {
            let mut garbled = whole.clone();
            garbled[bit / 8] ^= 1 << (bit % 8);
            let copy = SimDisk::new();
            for other in segments(&disk) {
                copy.set_bytes(&other, &disk.bytes(&other));
            }
            copy.set_bytes(&path, &garbled);
            let (log, report) = open(&copy);
            let found = read_all(&log);
            let missing: Vec<_> = blocks
                .iter()
                .filter(|block| !found.contains(block))
                .collect();
            let place = format!("{} bit {bit}: {report:?}", path.display());
            assert!(found.iter().all(|block| blocks.contains(block)), "{place}");
            assert!(missing.len() <= 1, "{place}");
            assert!(report.torn.is_none() || missing.is_empty(), "{place}");
            assert_eq!(log.next_seq(), blocks.last().unwrap().end_seq(), "{place}");
            let is_told = 0 < log.reader().damage_count();
            assert!(missing.is_empty() || is_told, "{place}");
        }
    }
}

#[test]
fn damage_is_counted_once_and_its_segment_is_kept_when_released() {
    let (disk, blocks) = closed_log();
    let path = segments(&disk).remove(0);
    let mut bytes = disk.bytes(&path);
    bytes[64 + 48] ^= 1;
    disk.set_bytes(&path, &bytes);
    let (mut log, report) = open(&disk);
    assert!(
        report.damage.is_empty(),
        "bodies are looked at when they are read"
    );
    let reader = log.reader();
    let first = reader.read(0, 1).unwrap();
    assert_eq!(first.new_damage.len(), 1, "{first:?}");
    assert!(
        first.new_damage[0]
            .to_string()
            .contains(path.to_str().unwrap())
    );
    assert_eq!(first.blocks[0], blocks[1]);
    assert!(reader.read(0, 1).unwrap().new_damage.is_empty());
    assert_eq!(reader.damage_count(), 1);
    log.append(b"x", b"", 1).unwrap();
    log.release(log.next_seq()).unwrap();
    let kept = disk.file_names();
    let n_damaged = kept
        .iter()
        .filter(|path| path.extension().is_some_and(|e| e == "damaged"));
    assert_eq!(n_damaged.count(), 1, "{kept:?}");
    assert_eq!(segments(&disk).len(), 1);
}

#[test]
fn a_missing_segment_is_told() {
    let (disk, blocks) = closed_log();
    let paths = segments(&disk);
    let copy = SimDisk::new();
    for path in paths.iter().filter(|path| **path != paths[1]) {
        copy.set_bytes(path, &disk.bytes(path));
    }
    let (log, report) = open(&copy);
    assert_eq!(report.damage.len(), 1, "{report:?}");
    assert!(read_all(&log).len() < blocks.len());
    let damage = &report.damage[0];
    let lost = blocks
        .iter()
        .filter(|block| damage.first_seq <= block.first_seq && block.end_seq() <= damage.next_seq);
    assert_eq!(lost.count() + read_all(&log).len(), blocks.len());
}

#[test]
fn another_format_version_is_refused_with_a_sentence() {
    let (disk, _) = closed_log();
    let path = segments(&disk).remove(0);
    let mut bytes = disk.bytes(&path);
    bytes[8] = 9;
    let crc = crate::frame::crc32c(&[&bytes[..12]]);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    disk.set_bytes(&path, &bytes);
    let error = try_open(&disk).err().unwrap();
    assert!(matches!(error, OpenError::Version { found: 9, .. }));
    assert!(error.to_string().contains("version 9"), "{error}");
}

#[test]
fn two_owners_at_once_are_impossible() {
    let disk = SimDisk::new();
    let (log, _) = open(&disk);
    let error = try_open(&disk).err().unwrap();
    assert!(matches!(&error, OpenError::Locked { dir: at } if at == dir()));
    drop(log);
    open(&disk);
}

#[test]
fn bytes_that_a_file_held_before_are_never_taken_for_blocks() {
    // Two logs with the same numbers; the file of one is overwritten by the beginning of the other.
    let (disk, blocks) = open_segment();
    let path = segments(&disk).remove(0);
    let (other, _) = open_segment();
    let mut bytes = disk.bytes(&path);
    let stale = other.bytes(&path);
    let second = usize::try_from(crate::frame::frame_len(
        (blocks[0].payload.len() + blocks[0].meta.len()) as u64,
    ))
    .unwrap()
        + crate::frame::SEGMENT_HEADER_LEN;
    bytes[second..].copy_from_slice(&stale[second..]);
    disk.set_bytes(&path, &bytes);
    let (log, report) = open(&disk);
    assert_eq!(read_all(&log), blocks[..1]);
    assert!(
        report.torn.is_some() && report.damage.is_empty(),
        "{report:?}"
    );
}

mod random {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_garbage_is_ever_served(
            faults in prop::collection::vec((any::<u16>(), any::<u16>(), any::<[u8; 4]>()), 1..12),
            cut in any::<Option<u16>>(),
        ) {
            let (disk, blocks) = closed_log();
            let paths = segments(&disk);
            for (file, at, garbage) in faults {
                let path = &paths[usize::from(file) % paths.len()];
                let mut bytes = disk.bytes(path);
                let at = usize::from(at) % (bytes.len() - garbage.len());
                bytes[at..at + garbage.len()].copy_from_slice(&garbage);
                disk.set_bytes(path, &bytes);
            }
            if let Some(cut) = cut {
                let path = paths.last().unwrap();
                let bytes = disk.bytes(path);
                disk.set_bytes(path, &bytes[..usize::from(cut) % bytes.len()]);
            }
            let (mut log, _) = open(&disk);
            let found = read_all(&log);
            prop_assert!(found.iter().all(|block| blocks.contains(block)));
            let seq = log.append(b"goes on", b"", 1).unwrap();
            prop_assert!(found.iter().all(|block| block.end_seq() <= seq));
            drop(log);
            let (log, _) = open(&disk);
            let again = read_all(&log);
            prop_assert_eq!(&again[..again.len() - 1], &found[..]);
        }
    }
}
