//! What the write side of the embedded store costs: CPU-seconds for each GB of JSON, from decoded batches to durable, indexed segments; beside it, in the
//! same run, the JSON decoder and zstd -1 on the same bytes.
//!
//! `cargo bench --bench store_write -- [app|access|wide|repetitive|FILE.ndjson[.zst]] [MB] [--merge]`
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a broken bench should stop"
)]

use std::time::{Duration, Instant};

mod machine;

use logyard::record::QueuedBatch;
use logyard::store::embedded::merge::MergeOptions;
use logyard::store::embedded::{EmbeddedStore, EmbeddedStoreOptions};
use machine::{Cpu, bodies, cpu_of, decode, status_kb, zstd_cpu};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A request's worth of lines.
const BODY_BYTES: usize = 1 << 20;

fn main() {
    let args: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    let merges = args.iter().any(|a| a == "--merge");
    let mut plain = args.iter().filter(|a| !a.starts_with("--"));
    let input = plain.next().map_or("app", String::as_str);
    let megabytes: usize = plain.next().map_or(256, |a| a.parse().unwrap());
    let bodies = bodies(input, megabytes << 20, BODY_BYTES);
    let n_bytes: usize = bodies.iter().map(Vec::len).sum();
    let gigabytes = n_bytes as f64 / 1e9;

    let (zstd_cpu, n_compressed) = zstd_cpu(&bodies);

    let start = Cpu::now();
    let (batches, n_lines) = decode(&bodies);
    let decode_cpu = start.elapsed();
    drop(bodies);
    let queued: usize = batches.iter().map(|b| b.batch.as_bytes().len()).sum();
    let rss_before = status_kb("self", "VmRSS:");
    println!(
        "{input}: {n_lines} lines, {:.0} MB; zstd -1: {:.2} CPU-s/GB, {:.1} MB; decode: {:.2} CPU-s/GB, batches {:.0} MB",
        n_bytes as f64 / 1e6,
        zstd_cpu.as_secs_f64() / gigabytes,
        n_compressed as f64 / 1e6,
        decode_cpu.as_secs_f64() / gigabytes,
        queued as f64 / 1e6,
    );

    measure_store(batches, merges, gigabytes, zstd_cpu, rss_before);
}

fn measure_store(
    batches: Vec<QueuedBatch>,
    merges: bool,
    gigabytes: f64,
    zstd_cpu: Duration,
    rss_before: u64,
) {
    let folder = tempfile::tempdir_in(".").unwrap();
    let mut options = EmbeddedStoreOptions::default();
    if !merges {
        options.merge = MergeOptions {
            segments_min: usize::MAX,
            segments_busy_min: usize::MAX,
            ..MergeOptions::default()
        };
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let store = EmbeddedStore::open(folder.path(), options).unwrap();
    let (start, wall) = (Cpu::now(), Instant::now());
    let mut builder_cpu = Duration::ZERO;
    runtime.block_on(async {
        for batch in batches {
            store.write(vec![batch]).await.unwrap();
        }
        builder_cpu += thread_cpu("store-writer");
        store.flush().await.unwrap();
    });
    if merges {
        logyard::store::embedded::merge::merge_all(store.disk());
    }
    let cpu = start.elapsed();
    let wall = wall.elapsed();
    let disk: u64 = store
        .snapshot()
        .segments
        .iter()
        .map(|s| s.meta.size_bytes)
        .sum();
    let index: u64 = index_bytes(&store);
    println!(
        "store: {:.2} CPU-s/GB ({:.2} in builders), {:.1} x zstd -1, wall {:.2} s/GB; disk {:.1} MB, index {:.0} % of it; {} segments; RSS peak {} MB, {} MB of it before",
        cpu.as_secs_f64() / gigabytes,
        builder_cpu.as_secs_f64() / gigabytes,
        cpu.as_secs_f64() / zstd_cpu.as_secs_f64(),
        wall.as_secs_f64() / gigabytes,
        disk as f64 / 1e6,
        100.0 * index as f64 / disk as f64,
        store.snapshot().segments.len(),
        status_kb("self", "VmHWM:") / 1024,
        rss_before / 1024,
    );
    runtime.block_on(store.close()).unwrap();
}

fn index_bytes(store: &EmbeddedStore) -> u64 {
    let snapshot = store.snapshot();
    let readers = snapshot
        .segments
        .iter()
        .map(|segment| segment.open().unwrap());
    readers
        .flat_map(|reader| reader.index_places())
        .map(|(_, len)| len)
        .sum()
}

fn thread_cpu(name: &str) -> Duration {
    let mut cpu = Duration::ZERO;
    for entry in std::fs::read_dir("/proc/self/task").unwrap() {
        let path = entry.unwrap().path();
        let comm = std::fs::read_to_string(path.join("comm")).unwrap_or_default();
        if comm.trim() == name {
            cpu += cpu_of(path.join("stat").to_str().unwrap());
        }
    }
    cpu
}
