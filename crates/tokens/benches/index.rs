//! What the index costs and what it answers: `cargo bench -p logyard-tokens`.
//!
//! Prints, for request logs made here and for the Windows events beside the repository where they are: CPU-seconds per GB
//! of JSON, the same as a multiple of `zstd -1` over these bytes in the same run, bytes per row, false positives and times of look-ups.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a benchmark stops at the first surprise, and prints"
)]

use std::collections::HashMap;
use std::fmt::Write as _;
use std::hint::black_box;
use std::io::{BufRead, Read};
use std::time::{Duration, Instant};

use logyard_tokens::{
    Candidates, IndexBuilder, IndexOptions, IndexReader, Scratch, for_each_token,
};

fn main() {
    let n_rows = 262_144;
    run(
        "request logs",
        &requests(n_rows),
        &["timeout", "error", "closed", "checkout", "10"],
    );
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../../shared/data/windows-security.ndjson.zst"
    );
    match std::fs::File::open(path) {
        Ok(file) => run(
            "Windows events",
            &windows(file),
            &["powershell", "4688", "system", "error"],
        ),
        Err(error) => println!("no Windows events: {path}: {error}"),
    }
}

/// A column as a store holds it: the texts one after the other.
#[derive(Default)]
struct Cells {
    is_text: bool,
    bytes: String,
    /// Row and end of its text, where it has one.
    ends: Vec<(u32, usize)>,
}

impl Cells {
    fn new(is_text: bool) -> Self {
        Self {
            is_text,
            ..Self::default()
        }
    }

    fn push(&mut self, row: u32, text: &str) {
        self.bytes.push_str(text);
        self.ends.push((row, self.bytes.len()));
    }

    fn iter(&self) -> impl Iterator<Item = (u32, &str)> {
        let mut start = 0;
        self.ends.iter().map(move |(row, end)| {
            let text = &self.bytes[start..*end];
            start = *end;
            (*row, text)
        })
    }
}

#[derive(Default)]
struct Corpus {
    n_rows: u32,
    json: Vec<u8>,
    columns: Vec<Cells>,
    /// A value that stands in one row or few.
    rare: Vec<String>,
}

/// `-- PAGE_ROWS FINGERPRINT_BITS ROW_SET_BITS_PER_ROW`, each where it is not the default.
fn options() -> IndexOptions {
    let default = IndexOptions::default();
    let mut numbers = std::env::args().filter_map(|arg| arg.parse().ok());
    IndexOptions {
        page_rows: numbers.next().unwrap_or(default.page_rows),
        fingerprint_bits: numbers.next().unwrap_or(default.fingerprint_bits),
        row_set_bits_per_row: numbers.next().unwrap_or(default.row_set_bits_per_row),
        ..default
    }
}

fn build(corpus: &Corpus) -> Vec<u8> {
    let mut builder = IndexBuilder::new(corpus.n_rows, options());
    for (column, cells) in (0..).zip(&corpus.columns) {
        for (row, text) in cells.iter() {
            if cells.is_text {
                builder.add_text(row, column, text);
            } else {
                builder.add_value(row, column, text);
            }
        }
    }
    builder.finish()
}

fn run(name: &str, corpus: &Corpus, words: &[&str]) {
    let gb = corpus.json.len() as f64 / 1e9;
    let rows = f64::from(corpus.n_rows);
    let per_gb = |time: Duration| time.as_secs_f64() / gb;
    println!(
        "\n{name}: {} rows, {} columns, {:.1} MB of JSON ({:.0} bytes a row)",
        corpus.n_rows,
        corpus.columns.len(),
        gb * 1e3,
        gb * 1e9 / rows
    );
    let (zstd_time, zstd_size) =
        best_of(3, || zstd::bulk::compress(&corpus.json, 1).unwrap().len());
    println!(
        "  zstd -1             {:6.2} CPU-s/GB, {:.1} bytes a row",
        per_gb(zstd_time),
        zstd_size as f64 / rows
    );
    let (time, n_tokens) = best_of(3, || tokenise(corpus));
    println!(
        "  tokenising alone    {:6.2} CPU-s/GB, {:.1} tokens a row, {:.1} ns a token",
        per_gb(time),
        n_tokens as f64 / rows,
        time.as_secs_f64() * 1e9 / n_tokens as f64
    );
    let (time, bytes) = best_of(5, || build(corpus));
    println!(
        "  build               {:6.2} CPU-s/GB = {:.2} × zstd -1; {:.0} ns a row",
        per_gb(time),
        time.as_secs_f64() / zstd_time.as_secs_f64(),
        time.as_secs_f64() * 1e9 / rows
    );
    let reader = IndexReader::open(bytes.as_slice(), bytes.len() as u64).unwrap();
    let sizes = reader.sizes();
    println!(
        "  size                {:6.2} bytes a row, {:.2} MB = {:.1} % of zstd -1 ({:.2} MB pages of {} tokens, {:.2} MB rows of {} tokens)",
        bytes.len() as f64 / rows,
        bytes.len() as f64 / 1e6,
        bytes.len() as f64 * 100.0 / zstd_size as f64,
        sizes.pages_size_bytes as f64 / 1e6,
        sizes.n_paged_tokens,
        sizes.row_sets_size_bytes as f64 / 1e6,
        sizes.n_exact_tokens
    );
    lookups(corpus, &reader, words);
}

fn lookups(corpus: &Corpus, reader: &IndexReader<&[u8]>, words: &[&str]) {
    let n = 20_000_u32;
    let absent: Vec<String> = (0..n).map(|n| format!("{n:x}absent")).collect();
    let (time, n_pages) = best_of(1, || {
        absent
            .iter()
            .map(|token| match reader.lookup(None, token).unwrap() {
                Candidates::Empty => 0,
                Candidates::Pages(pages) => pages.len(),
                Candidates::Rows(rows) => panic!("{rows:?}"),
            })
            .sum::<u64>()
    });
    let per_lookup = n_pages as f64 / f64::from(n);
    println!(
        "  absent token        {:6.2} µs, {:.3} wrong pages a look-up of {} = {:.4} % of the pages",
        time.as_secs_f64() * 1e6 / f64::from(n),
        per_lookup,
        reader.n_pages(),
        per_lookup * 100.0 / f64::from(reader.n_pages())
    );
    let (time, n_pages) = best_of(1, || {
        corpus
            .rare
            .iter()
            .map(|token| match reader.lookup(None, token).unwrap() {
                Candidates::Pages(pages) => pages.len(),
                other => panic!("{token}: {other:?}"),
            })
            .sum::<u64>()
    });
    println!(
        "  rare token          {:6.2} µs, {:.3} pages",
        time.as_secs_f64() * 1e6 / corpus.rare.len() as f64,
        n_pages as f64 / corpus.rare.len() as f64
    );
    for word in words {
        let (time, found) = best_wall(|| reader.lookup(None, word).unwrap());
        let what = match found {
            Candidates::Empty => "absent".to_owned(),
            Candidates::Rows(rows) => {
                let (count, _) = best_wall(|| reader.count(None, word).unwrap());
                format!(
                    "{} rows; count alone {:.2} µs",
                    rows.len(),
                    count.as_secs_f64() * 1e6
                )
            }
            Candidates::Pages(pages) => format!("{} pages", pages.len()),
        };
        println!("  {word:19} {:6.2} µs, {what}", time.as_secs_f64() * 1e6);
    }
}

fn tokenise(corpus: &Corpus) -> usize {
    let mut scratch = Scratch::default();
    let mut n = 0;
    for cells in corpus.columns.iter().filter(|cells| cells.is_text) {
        for (_, text) in cells.iter() {
            for_each_token(text, &mut scratch, |token| {
                black_box(token);
                n += 1;
            });
        }
    }
    n
}

/// CPU time of this thread, so that what else runs on the machine counts little; wall time where the system does not tell.
fn cpu_time(start: Instant) -> Duration {
    std::fs::read_to_string("/proc/thread-self/schedstat")
        .ok()
        .and_then(|line| line.split(' ').next()?.parse().ok())
        .map_or_else(|| start.elapsed(), Duration::from_nanos)
}

/// For what is too short for the clock of CPU time.
fn best_wall<T>(mut f: impl FnMut() -> T) -> (Duration, T) {
    let mut best = Duration::MAX;
    for _ in 0..200 {
        let start = Instant::now();
        black_box(f());
        best = best.min(start.elapsed());
    }
    (best, f())
}

fn best_of<T>(n: u32, mut f: impl FnMut() -> T) -> (Duration, T) {
    let mut best = Duration::MAX;
    let mut last = None;
    let origin = Instant::now();
    for _ in 0..n {
        let start = cpu_time(origin);
        let value = black_box(f());
        best = best.min(cpu_time(origin) - start);
        last = Some(value);
    }
    (best, last.unwrap())
}

struct Rng(u64);

impl Rng {
    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, n: u64) -> u64 {
        self.draw() % n
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len() as u64) as usize]
    }
}

const NAMES: [&str; 13] = [
    "level",
    "service",
    "host",
    "method",
    "path",
    "trace_id",
    "span_id",
    "user",
    "client_ip",
    "message",
    "status",
    "duration_ms",
    "bytes",
];
const N_TEXTS: usize = 10;
const LEVELS: [&str; 10] = [
    "info", "info", "info", "info", "info", "info", "debug", "debug", "warn", "error",
];
const SERVICES: [&str; 12] = [
    "gateway",
    "checkout",
    "catalog",
    "payments",
    "search",
    "accounts",
    "inventory",
    "shipping",
    "mailer",
    "pricing",
    "sessions",
    "reports",
];
const RESOURCES: [&str; 6] = ["orders", "carts", "items", "users", "invoices", "reviews"];

fn request_values(rng: &mut Rng) -> [String; 13] {
    let id = rng.below(10_000_000);
    let service = rng.pick(&SERVICES);
    let ip = rng.draw();
    let ip = format!("10.{}.{}.{}", ip % 4, ip >> 8 & 0xff, ip >> 16 & 0xff);
    let message = match rng.below(1_000) {
        0 => format!("connection closed by peer {ip} while sending {id} bytes"),
        1..60 => format!(
            "timeout after {} ms calling {service}, attempt {}",
            rng.below(5_000),
            rng.below(5)
        ),
        60..300 => format!(
            "order {id} accepted, reserved {} items from shard {}",
            rng.below(20),
            rng.below(32)
        ),
        300..500 => format!(
            "cache miss for key {:08x}, loaded from {service} in {} ms",
            rng.draw() as u32,
            rng.below(5_000)
        ),
        500..700 => format!("user {id} signed in from {ip}"),
        _ => format!(
            "payment {:08x} authorised after {} checks",
            rng.draw() as u32,
            rng.below(9)
        ),
    };
    [
        rng.pick(&LEVELS).to_owned(),
        service.to_owned(),
        format!("web-{:02}.eu-west-1.example.net", rng.below(64)),
        rng.pick(&["GET", "GET", "GET", "POST", "PUT", "DELETE"])
            .to_owned(),
        format!("/api/v1/{}/{}", rng.pick(&RESOURCES), rng.below(1_000_000)),
        format!("{:016x}{:016x}", rng.draw(), rng.draw()),
        format!("{:016x}", rng.draw()),
        format!("u{}", rng.below(100_000)),
        ip,
        message,
        rng.pick(&["200", "200", "200", "201", "204", "301", "404", "500"])
            .to_owned(),
        format!("{:.3}", rng.below(5_000_000) as f64 / 1e3),
        rng.below(100_000).to_string(),
    ]
}

/// Random-heavy request logs: trace and span ids, 100,000 users, addresses, and messages of which 6 % hold `timeout`.
fn requests(n_rows: u32) -> Corpus {
    let mut rng = Rng(7);
    let mut corpus = Corpus {
        n_rows,
        columns: (0..NAMES.len())
            .map(|column| Cells::new(column < N_TEXTS))
            .collect(),
        ..Corpus::default()
    };
    for row in 0..n_rows {
        let values = request_values(&mut rng);
        let mut line = format!(
            "{{\"timestamp\":\"2026-03-01T{:02}:{:02}:{:02}.{:06}Z\"",
            row / 11_000,
            row / 183 % 60,
            row / 3 % 60,
            rng.below(1_000_000)
        );
        for (column, (name, value)) in NAMES.iter().zip(&values).enumerate() {
            let quote = if column < N_TEXTS { "\"" } else { "" };
            write!(line, ",\"{name}\":{quote}{value}{quote}").unwrap();
        }
        line.push_str("}\n");
        corpus.json.extend(line.as_bytes());
        if row % 50 == 0 {
            corpus.rare.push(values[5].clone());
        }
        for (column, value) in corpus.columns.iter_mut().zip(&values) {
            column.push(row, value);
        }
    }
    corpus
}

fn windows(file: std::fs::File) -> Corpus {
    let mut json = Vec::new();
    zstd::stream::read::Decoder::new(file)
        .unwrap()
        .read_to_end(&mut json)
        .unwrap();
    let mut columns: HashMap<(String, bool), Cells> = HashMap::new();
    let mut counts: HashMap<String, u32> = HashMap::new();
    let mut n_rows = 0;
    for line in json.lines() {
        let event: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(&line.unwrap()).unwrap();
        for (key, value) in event {
            let (is_text, text) = match value {
                serde_json::Value::String(text) => (true, text),
                serde_json::Value::Null => continue,
                other => (false, other.to_string()),
            };
            if key.to_ascii_lowercase().ends_with("guid") {
                for token in logyard_tokens::tokens(&text) {
                    *counts.entry(token.into_owned()).or_default() += 1;
                }
            }
            let column = columns
                .entry((key, is_text))
                .or_insert_with(|| Cells::new(is_text));
            column.push(n_rows, &text);
        }
        n_rows += 1;
    }
    Corpus {
        n_rows,
        json,
        columns: columns.into_values().collect(),
        rare: counts
            .into_iter()
            .filter(|(token, n)| *n < 3 && token.len() == 8)
            .map(|(token, _)| token)
            .collect(),
    }
}
