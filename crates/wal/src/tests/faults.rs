//! Every operation on the disk fails once: what was acknowledged is never lost, and the log opens again.

use std::io;

use super::{block, open, read_all, try_open};
use crate::sim::SimDisk;
use crate::{AppendError, Block, Log};

const N_BLOCKS: u64 = 12;

/// Appends, releases and closes as far as the disk lets it; gives what was acknowledged and not released.
fn work(disk: &SimDisk) -> (Vec<Block>, u64) {
    let mut acknowledged = Vec::new();
    let mut released = 0;
    let Ok((mut log, _)) = try_open(disk) else {
        return (acknowledged, released);
    };
    let mut failed = false;
    for i in 1..=N_BLOCKS {
        let block = block(log.next_seq(), i);
        match log.append(&block.payload, &block.meta, block.n_entries) {
            Ok(seq) => {
                assert!(!failed, "an append succeeded after a failure");
                assert_eq!(seq, block.first_seq);
                acknowledged.push(block);
            }
            Err(AppendError::NoSpace { .. }) => {}
            Err(error) => {
                let is_poisoned = matches!(error, AppendError::Poisoned { .. });
                assert_eq!(failed, is_poisoned, "{error}");
                failed = true;
                assert!(log.poison().is_some());
            }
        }
        if i == 8 && log.release(log.next_seq() / 2).is_ok() {
            released = log.next_seq() / 2;
        }
    }
    // The failure shows nothing that was not acknowledged.
    let readable = read_all(&log);
    assert!(readable.iter().all(|block| acknowledged.contains(block)));
    let _ = log.close();
    (acknowledged, released)
}

fn check_recovery(disk: &SimDisk, acknowledged: &[Block], released: u64, place: &str) {
    let (mut log, report) = open(disk);
    assert!(report.damage.is_empty(), "{place}: {report:?}");
    let found = read_all(&log);
    for block in acknowledged.iter().filter(|b| released < b.end_seq()) {
        assert!(found.contains(block), "{place}: lost {block:?}");
    }
    for pair in found.windows(2) {
        assert_eq!(pair[0].end_seq(), pair[1].first_seq, "{place}");
    }
    let seq = log.append(b"goes on", b"", 1).unwrap();
    drop(log);
    let (log, report) = open(disk);
    assert!(report.damage.is_empty(), "{place}, second: {report:?}");
    assert_eq!(read_all(&log).last().unwrap().first_seq, seq, "{place}");
}

#[test]
fn failing_each_operation_once_loses_nothing_acknowledged() {
    for kind in [io::ErrorKind::Other, io::ErrorKind::StorageFull] {
        for seed in 0..8 {
            let mut n_points = 0;
            for n in 1.. {
                let disk = SimDisk::new();
                disk.fail_at(n, kind);
                let (acknowledged, released) = work(&disk);
                let is_past_the_end = disk.n_operations() < n;
                disk.crash(seed);
                let place = format!("{kind:?} at {n}, crash {seed}");
                check_recovery(&disk, &acknowledged, released, &place);
                if is_past_the_end {
                    assert_eq!(acknowledged.len() as u64, N_BLOCKS);
                    break;
                }
                n_points = n;
            }
            assert!(20 < n_points, "only {n_points} operations");
        }
    }
}

#[test]
fn crashing_at_each_operation_of_recovery_loses_nothing() {
    for seed in 0..8_u64 {
        for n in 1.. {
            let disk = SimDisk::new();
            let (mut log, _) = open(&disk);
            let mut acknowledged = Vec::new();
            for i in 1..=N_BLOCKS {
                let block = block(log.next_seq(), i);
                log.append(&block.payload, &block.meta, block.n_entries)
                    .unwrap();
                acknowledged.push(block);
            }
            // A torn group at the end.
            disk.fail_at(1, io::ErrorKind::Other);
            log.append(&[1; 90], b"", 1).unwrap_err();
            disk.crash(seed + 1);
            let before = disk.n_operations();
            disk.fail_at(n, io::ErrorKind::Other);
            let opened = try_open(&disk).is_ok();
            let n_done = disk.n_operations() - before;
            disk.crash(seed);
            check_recovery(
                &disk,
                &acknowledged,
                0,
                &format!("recovery at {n}, crash {seed}"),
            );
            if opened && n_done < n {
                break;
            }
        }
    }
}

#[test]
fn a_full_disk_is_refused_and_resumes_when_there_is_space() {
    let disk = SimDisk::new();
    disk.set_capacity(Some(3000));
    let (mut log, _) = open(&disk);
    let mut acknowledged = Vec::new();
    let error = append_until_refused(&mut log, &mut acknowledged);
    assert!(matches!(error, AppendError::NoSpace { .. }), "{error}");
    assert_eq!(read_all(&log), acknowledged);
    disk.set_capacity(Some(6000));
    append_until_refused(&mut log, &mut acknowledged);
    disk.crash(0);
    check_recovery_with_space(&disk, &acknowledged);
}

fn check_recovery_with_space(disk: &SimDisk, acknowledged: &[Block]) {
    disk.set_capacity(None);
    check_recovery(disk, acknowledged, 0, "full disk");
}

fn append_until_refused(log: &mut Log, acknowledged: &mut Vec<Block>) -> AppendError {
    loop {
        let block = block(log.next_seq(), 4);
        match log.append(&block.payload, &block.meta, block.n_entries) {
            Ok(_) => acknowledged.push(block),
            Err(error) => return error,
        }
    }
}

#[test]
fn a_write_that_met_a_full_disk_can_resume_in_a_new_segment() {
    for n in 1..4 {
        let disk = SimDisk::new();
        let (mut log, _) = open(&disk);
        let first = block(log.next_seq(), 3);
        log.append(&first.payload, &first.meta, first.n_entries)
            .unwrap();
        disk.fail_at(n, io::ErrorKind::StorageFull);
        let mut acknowledged = vec![first];
        for i in 4..7 {
            let block = block(log.next_seq(), i);
            if log
                .append(&block.payload, &block.meta, block.n_entries)
                .is_ok()
            {
                acknowledged.push(block);
            }
        }
        assert!(log.is_poisoned_by_full_disk());
        log.resume().unwrap();
        let more = block(log.next_seq(), 9);
        log.append(&more.payload, &more.meta, more.n_entries)
            .unwrap();
        acknowledged.push(more);
        assert_eq!(read_all(&log), acknowledged);
        disk.crash(n);
        check_recovery(&disk, &acknowledged, 0, "resumed");
    }
}

#[test]
fn another_failure_does_not_resume() {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk);
    log.append(b"a", b"", 1).unwrap();
    disk.fail_at(2, io::ErrorKind::Other);
    log.append(b"b", b"", 1).unwrap_err();
    assert!(!log.is_poisoned_by_full_disk());
    let error = log.resume().unwrap_err();
    assert!(matches!(error, AppendError::Poisoned { .. }), "{error}");
}
