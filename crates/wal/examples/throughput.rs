//! What the log costs: appends `GIB` GiB in blocks of `KIB` KiB, reads them back, opens the log again; prints time, CPU and rates.
//!
//! `cargo run --release -p logyard-wal --example throughput -- DIR [GIB [KIB]]`
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a measuring tool"
)]

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use logyard_wal::{BlockRef, Log, LogOptions, RealDisk};

const GROUP_BYTES: usize = 1 << 20;

fn main() {
    let mut args = std::env::args().skip(1);
    let dir = args.next().expect("name a directory");
    let dir = Path::new(&dir).join("throughput");
    let gib: u64 = args.next().map_or(1, |arg| arg.parse().unwrap());
    let kib: usize = args.next().map_or(64, |arg| arg.parse().unwrap());
    let payload: Vec<u8> = (0..kib << 10).map(|i| (i * 31 % 251) as u8).collect();
    let per_group = (GROUP_BYTES / payload.len()).max(1);
    let n_groups = (gib << 30) / (per_group * payload.len()) as u64;
    let block = BlockRef {
        payload: &payload,
        meta: b"",
        n_entries: 100,
    };
    let group = vec![block; per_group];
    let options = LogOptions {
        size_bytes_max: (gib + 1) << 30,
        ..LogOptions::default()
    };
    let open = || {
        let mut visit = |_: u64, _: u32, _: &[u8]| {};
        Log::open(Arc::new(RealDisk), &dir, options, Some(&mut visit)).unwrap()
    };
    let (mut log, _) = open();
    measure("append", gib, || {
        for _ in 0..n_groups {
            log.append_group(&group).unwrap();
        }
    });
    measure("read", gib, || {
        let reader = log.reader();
        let mut seq = 0;
        while seq < log.next_seq() {
            seq = reader.read(seq, 4 << 20).unwrap().next_seq;
        }
    });
    // Not closed: as after kill -9.
    drop(log);
    measure("open", gib, || drop(open()));
    std::fs::remove_dir_all(&dir).unwrap();
}

fn measure(what: &str, gib: u64, work: impl FnOnce()) {
    let (started, cpu_before) = (Instant::now(), cpu_seconds());
    work();
    let (elapsed, cpu) = (started.elapsed().as_secs_f64(), cpu_seconds() - cpu_before);
    let gb = (gib << 30) as f64 / 1e9;
    println!(
        "{what}: {elapsed:.3} s, {:.0} MB/s, {:.3} CPU-s per GB",
        gb * 1000.0 / elapsed,
        cpu / gb
    );
}

fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks: f64 = fields[11..13]
        .iter()
        .map(|f| f.parse::<f64>().unwrap())
        .sum();
    ticks / 100.0
}
