//! What the write side of the embedded store costs: CPU-seconds for each GB of JSON, from decoded batches to durable, indexed segments; beside it, in the
//! same run, the JSON decoder and zstd -1 on the same bytes.
//!
//! `cargo bench --bench store_write -- [app|access|wide|repetitive|FILE.ndjson] [MB] [--merge]`
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a broken bench should stop"
)]

use std::time::{Duration, Instant};

use logyard::loadgen::shape::{LineTimes, LineWriter, ShapeKind};
use logyard::record::{Position, QueuedBatch};
use logyard::store::embedded::merge::MergeOptions;
use logyard::store::embedded::{EmbeddedStore, EmbeddedStoreOptions};
use logyard::wire::json::RecordDefaults;
use logyard::wire::native::decode::{Body, BodyDecoder, DecodeOptions, Hint};

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
    let bodies = bodies(input, megabytes << 20);
    let n_bytes: usize = bodies.iter().map(Vec::len).sum();
    let gigabytes = n_bytes as f64 / 1e9;

    let start = Cpu::now();
    let mut n_compressed = 0;
    for body in &bodies {
        n_compressed += zstd::bulk::compress(body, 1).unwrap().len();
    }
    let zstd_cpu = start.elapsed();

    let start = Cpu::now();
    let (batches, n_lines) = decode(&bodies);
    let decode_cpu = start.elapsed();
    drop(bodies);
    let queued: usize = batches.iter().map(|b| b.batch.as_bytes().len()).sum();
    let rss_before = status_kb("VmRSS:");
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

fn decode(bodies: &[Vec<u8>]) -> (Vec<QueuedBatch>, u64) {
    let mut decoder = BodyDecoder::new(DecodeOptions::default());
    let mut batches = Vec::new();
    let mut seq = 0;
    for bytes in bodies {
        let defaults = RecordDefaults {
            arrival_ns: 1_742_428_800_000_000_000,
            source: None,
            level: None,
        };
        let body = Body {
            bytes,
            hint: Hint::Unknown,
            defaults,
        };
        let batch = decoder.decode(&body).unwrap().batch;
        let first = Position { partition: 0, seq };
        seq += u64::from(batch.len());
        batches.push(QueuedBatch { first, batch });
    }
    (batches, seq)
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
        status_kb("VmHWM:") / 1024,
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

fn bodies(input: &str, n_bytes: usize) -> Vec<Vec<u8>> {
    let kind = match input {
        "app" => Some(ShapeKind::App),
        "access" => Some(ShapeKind::Access),
        "wide" => Some(ShapeKind::Wide),
        "repetitive" => Some(ShapeKind::Repetitive),
        _ => None,
    };
    let mut bodies = Vec::new();
    let mut total = 0;
    let mut push = |body: &mut Vec<u8>, total: &mut usize| {
        *total += body.len();
        bodies.push(std::mem::take(body));
    };
    let mut body = Vec::new();
    if let Some(kind) = kind {
        let times = LineTimes::Spread {
            start_ns: 1_742_428_800_000_000_000,
            end_ns: 1_742_428_800_000_000_000 + 3_600_000_000_000,
            count: n_bytes as u64 / 330,
        };
        let mut writer = LineWriter::new(kind, 1, times);
        for index in 0.. {
            writer.write(index, &mut body);
            if BODY_BYTES <= body.len() {
                push(&mut body, &mut total);
                if n_bytes <= total {
                    break;
                }
            }
        }
    } else {
        let text = std::fs::read(input).unwrap();
        while total < n_bytes {
            for line in text.split_inclusive(|b| *b == b'\n') {
                body.extend_from_slice(line);
                if BODY_BYTES <= body.len() {
                    push(&mut body, &mut total);
                }
            }
        }
    }
    bodies
}

/// User and system time of the whole process.
struct Cpu(Duration);

impl Cpu {
    fn now() -> Self {
        Self(cpu_of("/proc/self/stat"))
    }

    fn elapsed(&self) -> Duration {
        cpu_of("/proc/self/stat") - self.0
    }
}

fn cpu_of(path: &str) -> Duration {
    let stat = std::fs::read_to_string(path).unwrap();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    // Clock ticks of 10 ms.
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
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

fn status_kb(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
