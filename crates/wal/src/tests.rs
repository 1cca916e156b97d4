//! The promises of the log, checked against a model on a disk that forgets and fails.

mod damage;
mod faults;
mod model;
mod real;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::sim::SimDisk;
use crate::{Block, Durability, Log, LogOptions, OpenError, OpenReport};

fn dir() -> &'static Path {
    Path::new("/log")
}

fn small_options() -> LogOptions {
    LogOptions {
        durability: Durability::Fsync,
        segment_size_bytes: 1024,
        size_bytes_max: 16 << 10,
        next_seq_min: 0,
    }
}

fn open(disk: &SimDisk) -> (Log, OpenReport) {
    try_open(disk).unwrap()
}

fn try_open(disk: &SimDisk) -> Result<(Log, OpenReport), OpenError> {
    Log::open(Arc::new(disk.clone()), dir(), small_options(), None)
}

/// Everything that can be read, a few bytes at a time.
fn read_all(log: &Log) -> Vec<Block> {
    let reader = log.reader();
    let mut blocks = Vec::new();
    let mut seq = 0;
    loop {
        let outcome = reader.read(seq, 100).unwrap();
        if outcome.blocks.is_empty() {
            return blocks;
        }
        assert!(seq < outcome.next_seq);
        seq = outcome.next_seq;
        blocks.extend(outcome.blocks);
    }
}

fn payload(i: u64) -> Vec<u8> {
    let len = usize::try_from(i * 37 % 150).unwrap();
    (0..len).map(|j| (j as u8) ^ (i as u8)).collect()
}

fn block(first_seq: u64, i: u64) -> Block {
    Block {
        first_seq,
        n_entries: u32::try_from(i % 3 + 1).unwrap(),
        payload: payload(i),
        meta: vec![i as u8; usize::try_from(i % 5).unwrap()],
    }
}

fn segments(disk: &SimDisk) -> Vec<PathBuf> {
    let names = disk.file_names();
    names
        .into_iter()
        .filter(|path| path.extension().is_some_and(|e| e == "wal"))
        .collect()
}
