//! Sequences of operations against a queue in memory, with reopening and crashes among them.

use proptest::prelude::*;

use super::{block, open, read_all};
use crate::sim::SimDisk;
use crate::{AppendError, Block, BlockRef};

#[derive(Clone, Debug)]
enum Operation {
    /// A group of blocks, by their numbers.
    Append(Vec<u64>),
    /// A share of what there is, in percent.
    Release(u64),
    Read(u64),
    Close,
    Kill,
    Crash(u64),
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        6 => prop::collection::vec(0..1000_u64, 1..4).prop_map(Operation::Append),
        2 => (0..=100_u64).prop_map(Operation::Release),
        2 => (0..=100_u64).prop_map(Operation::Read),
        1 => Just(Operation::Close),
        1 => Just(Operation::Kill),
        1 => any::<u64>().prop_map(Operation::Crash),
    ]
}

/// What must be there: all blocks acknowledged and not released.
#[derive(Default)]
struct Model {
    blocks: Vec<Block>,
    next_seq: u64,
    released: u64,
}

impl Model {
    fn check(&self, found: &[Block]) {
        // Released blocks may linger, nothing else may differ.
        let kept: Vec<_> = found
            .iter()
            .filter(|block| self.released < block.end_seq())
            .collect();
        let expected: Vec<_> = self
            .blocks
            .iter()
            .filter(|block| self.released < block.end_seq())
            .collect();
        assert_eq!(kept, expected);
        for pair in found.windows(2) {
            assert_eq!(pair[0].end_seq(), pair[1].first_seq, "a gap");
        }
    }
}

fn run(operations: Vec<Operation>) {
    let disk = SimDisk::new();
    let mut model = Model::default();
    let (mut log, _) = open(&disk);
    for operation in operations {
        match operation {
            Operation::Append(numbers) => {
                let mut seq = model.next_seq;
                let mut group = Vec::new();
                for i in numbers {
                    group.push(block(seq, i));
                    seq = group.last().unwrap().end_seq();
                }
                let refs: Vec<_> = group.iter().map(block_ref).collect();
                match log.append_group(&refs) {
                    Ok(first_seq) => {
                        assert_eq!(first_seq, model.next_seq);
                        model.next_seq = seq;
                        model.blocks.extend(group);
                    }
                    Err(AppendError::Full {
                        size_bytes,
                        size_bytes_max,
                    }) => {
                        let need: usize = refs.iter().map(|b| b.payload.len() + 64).sum();
                        assert!(size_bytes_max < size_bytes + need as u64);
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            Operation::Release(percent) => {
                let seq = model.next_seq * percent / 100;
                log.release(seq).unwrap();
                model.released = model.released.max(seq);
            }
            Operation::Read(percent) => {
                let from = model.next_seq * percent / 100;
                if model.released <= from {
                    let outcome = log.reader().read(from, 1).unwrap();
                    let expected = model.blocks.iter().find(|block| from < block.end_seq());
                    assert_eq!(outcome.blocks.first(), expected);
                    assert!(outcome.new_damage.is_empty());
                }
            }
            Operation::Close => {
                log.close().unwrap();
                drop(log);
                log = open_clean(&disk);
            }
            Operation::Kill => {
                disk.kill();
                log = open_clean(&disk);
            }
            Operation::Crash(seed) => {
                disk.crash(seed);
                log = open_clean(&disk);
            }
        }
        assert_eq!(log.next_seq(), model.next_seq);
        model.check(&read_all(&log));
    }
}

fn open_clean(disk: &SimDisk) -> crate::Log {
    let (log, report) = open(disk);
    assert!(report.damage.is_empty(), "{report:?}");
    assert_eq!(report.size_bytes, log.reader().size_bytes());
    log
}

pub(super) fn block_ref(block: &Block) -> BlockRef<'_> {
    BlockRef {
        payload: &block.payload,
        meta: &block.meta,
        n_entries: block.n_entries,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_log_is_a_queue_whatever_happens(operations in prop::collection::vec(operation(), 1..40)) {
        run(operations);
    }
}

#[test]
fn metas_are_visited_upwards_on_opening() {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk);
    let mut expected = Vec::new();
    for i in 0..40 {
        let block = block(log.next_seq(), i);
        log.append(&block.payload, &block.meta, block.n_entries)
            .unwrap();
        if !block.meta.is_empty() {
            expected.push((block.first_seq, block.n_entries, block.meta));
        }
    }
    drop(log);
    let mut seen = Vec::new();
    let mut visit = |seq, n: u32, meta: &[u8]| seen.push((seq, n, meta.to_vec()));
    let disk = std::sync::Arc::new(disk);
    crate::Log::open(disk, super::dir(), super::small_options(), Some(&mut visit)).unwrap();
    assert_eq!(seen, expected);
}

#[test]
fn a_full_log_takes_blocks_again_once_everything_is_released() {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk);
    for _ in 0..5 {
        let error = loop {
            match log.append(&[7; 300], b"", 1) {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert!(matches!(error, AppendError::Full { .. }), "{error}");
        assert!(log.reader().size_bytes() <= super::small_options().size_bytes_max);
        log.release(log.next_seq()).unwrap();
    }
    let too_large = vec![0; 20 << 10];
    let error = log.append(&too_large, b"", 1).unwrap_err();
    assert!(matches!(error, AppendError::TooLarge { .. }), "{error}");
}

#[test]
fn numbers_never_fall_below_the_minimum_asked_for() {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk);
    log.append(b"a", b"", 3).unwrap();
    drop(log);
    let options = crate::LogOptions {
        next_seq_min: 100,
        ..super::small_options()
    };
    let shared = std::sync::Arc::new(disk.clone());
    let (mut log, _) = crate::Log::open(shared, super::dir(), options, None).unwrap();
    assert_eq!(log.append(b"b", b"", 1).unwrap(), 100);
    drop(log);
    let log = open_clean(&disk);
    let seqs: Vec<_> = read_all(&log).iter().map(|block| block.first_seq).collect();
    assert_eq!((seqs, log.next_seq()), (vec![0, 100], 101));
}
