//! CPU-seconds that a gigabyte of bodies costs to become batches, beside zstd level 1 on the same bytes in the same run.
//!
//! `cargo bench --bench decode [-- NAME]`. The real logs lie beside the repository where it is developed; elsewhere only the made-up
//! lines are measured.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a bench prints, and stops at the first fault"
)]

use std::hint::black_box;
use std::io::Read as _;
use std::path::Path;

use logyard::wire::json::RecordDefaults;
use logyard::wire::native::decode::{Body, BodyDecoder, DecodeOptions, Hint};

#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;

const DATA: &str = "../shared/data";
const BODY_BYTES: usize = 4 << 20;
/// Bytes decoded for one figure.
const MEASURED_BYTES: usize = 300 << 20;

fn main() {
    let only = std::env::args()
        .nth(1)
        .filter(|name| !name.starts_with("--"));
    let is_wanted = |name: &str| only.as_ref().is_none_or(|only| only == name);
    println!(
        "{:<12} {:>9} {:>9} {:>6} {:>9}",
        "input", "CPU-s/GB", "zstd -1", "ratio", "records"
    );
    if is_wanted("app") {
        measure("app", &app_lines(200_000));
    }
    for (name, file) in [
        ("windows", "windows-security.ndjson.zst"),
        ("zeek", "zeek.ndjson.zst"),
        ("nested", "nginx-plus.ndjson.zst"),
        ("access", "apache-access.log.zst"),
        ("broker", "kafka-broker.log.zst"),
    ] {
        let path = Path::new(DATA).join(file);
        if is_wanted(name) && path.exists() {
            let mut lines = Vec::new();
            let file = std::fs::File::open(path).unwrap();
            zstd::Decoder::new(file)
                .unwrap()
                .read_to_end(&mut lines)
                .unwrap();
            measure(name, &lines);
        }
    }
}

fn measure(name: &str, lines: &[u8]) {
    let bodies = bodies(lines);
    let rounds = (MEASURED_BYTES / lines.len()).max(1);
    let gigabytes = (rounds * lines.len()) as f64 / 1e9;
    let mut decoder = BodyDecoder::new(DecodeOptions::default());
    let mut n_records = 0;
    let decode_s = cpu_seconds(|| {
        for body in std::iter::repeat_n(&bodies, rounds).flatten() {
            let decoded = decoder.decode(&Body {
                bytes: body,
                hint: Hint::Unknown,
                defaults: RecordDefaults {
                    arrival_ns: 1_795_399_200_000_000_000,
                    source: None,
                    level: None,
                },
            });
            let decoded = decoded.unwrap();
            assert_eq!(decoded.dead_lettered, 0);
            n_records += decoded.accepted;
            black_box(decoded.batch);
        }
    });
    let zstd_s = cpu_seconds(|| {
        for body in std::iter::repeat_n(&bodies, rounds).flatten() {
            black_box(zstd::bulk::compress(body, 1).unwrap());
        }
    });
    println!(
        "{name:<12} {:>9.2} {:>9.2} {:>6.2} {n_records:>9}",
        decode_s / gigabytes,
        zstd_s / gigabytes,
        decode_s / zstd_s
    );
}

/// Cut at line ends.
fn bodies(lines: &[u8]) -> Vec<&[u8]> {
    let mut bodies = Vec::new();
    let mut rest = lines;
    while !rest.is_empty() {
        let from = rest.len().min(BODY_BYTES) - 1;
        let line_end = rest[from..].iter().position(|b| *b == b'\n');
        let end = line_end.map_or(rest.len(), |at| from + at + 1);
        let (body, behind) = rest.split_at(end);
        bodies.push(body);
        rest = behind;
    }
    bodies
}

/// User and system time of this process, in the kernel's hundredths of a second.
fn cpu_seconds(work: impl FnOnce()) -> f64 {
    let now = || {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap()
            .split_whitespace()
            .collect();
        let ticks = |index: usize| fields[index].parse::<f64>().unwrap();
        (ticks(11) + ticks(12)) / 100.0
    };
    let start = now();
    work();
    now() - start
}

fn app_lines(n_lines: u64) -> Vec<u8> {
    let mut out = String::new();
    let mut random: u64 = 88_172_645_463_325_252;
    for i in 0..n_lines {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let r = random;
        let level = ["INFO", "WARN", "ERROR", "DEBUG"][(r % 4) as usize];
        out.push_str(&format!(
            "{{\"timestamp\":\"2025-03-20T{:02}:{:02}:{:02}.{:06}Z\",\"level\":\"{level}\",\"source\":\"service-{}\",\"message\":\"request {} finished for user {} in {} ms\",\"trace_id\":\"{:016x}{:016x}\",\"user_id\":\"user-{}\",\"duration_ms\":{}.{},\"http\":{{\"method\":\"GET\",\"path\":\"/api/v1/items/{}\",\"status\":{}}},\"host\":\"host-{}\"}}\n",
            i / 3600 % 24, i / 60 % 60, i % 60, r % 1_000_000, r % 16, r % 100_000, r % 9_999, r % 500, r, r.rotate_left(13), r % 100_000, r % 1_000, r % 10, r % 5_000, [200, 404, 500][(r % 3) as usize], r % 20
        ));
    }
    out.into_bytes()
}
