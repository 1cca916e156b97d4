//! What a process uses, from `/proc`, and lines to measure with: shared by the benchmarks.
#![allow(
    dead_code,
    reason = "shared by several benchmarks, each of which uses a part"
)]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use logyard::loadgen::shape::{LineTimes, LineWriter, ShapeKind};
use logyard::record::{Position, QueuedBatch};
use logyard::wire::json::RecordDefaults;
use logyard::wire::native::decode::{Body, BodyDecoder, DecodeOptions, Hint};

/// 2025-03-20
pub const START_NS: i64 = 1_742_428_800_000_000_000;

/// CPU-seconds, user and system, of a process or thread: `/proc/self/stat`, `/proc/PID/stat`. A process that ended and was not waited for still has them.
pub fn cpu_of(path: &str) -> Duration {
    ticks_of(path, 11)
}

/// Those of all processes that this one has waited for.
fn cpu_of_children() -> Duration {
    ticks_of("/proc/self/stat", 13)
}

/// The sum of two fields in a row, counted behind the command's name.
fn ticks_of(path: &str, first_field: usize) -> Duration {
    let stat = std::fs::read_to_string(path).unwrap();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    let ticks = |field: usize| fields[field].parse::<u64>().unwrap();
    // Clock ticks of 10 ms.
    Duration::from_millis((ticks(first_field) + ticks(first_field + 1)) * 10)
}

/// User and system time of this process.
pub struct Cpu(Duration);

impl Cpu {
    pub fn now() -> Self {
        Self(cpu_of("/proc/self/stat"))
    }

    pub fn elapsed(&self) -> Duration {
        cpu_of("/proc/self/stat") - self.0
    }
}

/// A line of `/proc/PID/status` in KiB, such as `VmHWM:` (most memory so far) or `VmRSS:`.
pub fn status_kb(pid: &str, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// About `n_bytes` of whole lines in bodies of about `body_bytes`: `input` is a shape of the generator, or a file (`.zst` is unpacked) that is
/// repeated until there is enough.
pub fn bodies(input: &str, n_bytes: usize, body_bytes: usize) -> Vec<Vec<u8>> {
    let kind = match input {
        "app" => Some(ShapeKind::App),
        "access" => Some(ShapeKind::Access),
        "wide" => Some(ShapeKind::Wide),
        "repetitive" => Some(ShapeKind::Repetitive),
        _ => None,
    };
    match kind {
        Some(kind) => generated(kind, n_bytes, body_bytes),
        None => repeated(&read(input), n_bytes, body_bytes),
    }
}

fn generated(kind: ShapeKind, n_bytes: usize, body_bytes: usize) -> Vec<Vec<u8>> {
    let times = LineTimes::Spread {
        start_ns: START_NS,
        end_ns: START_NS + 3_600_000_000_000,
        count: n_bytes as u64 / 330,
    };
    let mut writer = LineWriter::new(kind, 1, times);
    let (mut bodies, mut body, mut total) = (Vec::new(), Vec::new(), 0);
    for index in 0.. {
        writer.write(index, &mut body);
        if body_bytes <= body.len() {
            total += body.len();
            bodies.push(std::mem::take(&mut body));
            if n_bytes <= total {
                break;
            }
        }
    }
    bodies
}

fn repeated(text: &[u8], n_bytes: usize, body_bytes: usize) -> Vec<Vec<u8>> {
    assert!(!text.is_empty());
    let (mut bodies, mut body, mut total) = (Vec::new(), Vec::new(), 0);
    while total < n_bytes {
        for line in text.split_inclusive(|b| *b == b'\n') {
            body.extend_from_slice(line);
            if body_bytes <= body.len() {
                total += body.len();
                bodies.push(std::mem::take(&mut body));
            }
        }
    }
    bodies
}

fn read(path: &str) -> Vec<u8> {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("read {path}: {error}"));
    match Path::new(path).extension() {
        Some(extension) if extension == "zst" => {
            let mut plain = Vec::new();
            zstd::stream::copy_decode(&bytes[..], &mut plain).unwrap();
            plain
        }
        _ => bytes,
    }
}

/// CPU time of the command `zstd -1 -T1` on these bytes in one file, and the size of what it writes: the yardstick that makes machines comparable.
pub fn zstd_cpu(bodies: &[Vec<u8>]) -> (Duration, u64) {
    const RUNS: u32 = 3;
    let folder = tempfile::tempdir_in(".").unwrap();
    let (input, output) = (folder.path().join("input"), folder.path().join("output"));
    std::fs::write(&input, bodies.concat()).unwrap();
    let mut used = Duration::ZERO;
    for _ in 0..RUNS {
        let before = cpu_of_children();
        let status = Command::new("zstd")
            .args(["-1", "-T1", "-q", "-f", "-o"])
            .args([&output, &input])
            .status()
            .expect("zstd; scripts/setup installs it");
        assert!(status.success(), "zstd: {status}");
        used += cpu_of_children() - before;
    }
    (used / RUNS, std::fs::metadata(&output).unwrap().len())
}

/// The bodies as the queue would hand them over, and how many entries they have.
pub fn decode(bodies: &[Vec<u8>]) -> (Vec<QueuedBatch>, u64) {
    let mut decoder = BodyDecoder::new(DecodeOptions::default());
    let mut batches = Vec::new();
    let mut seq = 0;
    for bytes in bodies {
        let defaults = RecordDefaults {
            arrival_ns: START_NS,
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
