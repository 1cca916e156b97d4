//! What durable ingest costs through the real binary: `logyard serve` in a process of its own takes bodies over HTTP, every answer after `fdatasync`.
//! Printed for each input: CPU-seconds of the server for each GB until everything is searchable, and until everything is in segments on disk (after a
//! SIGTERM), the same as a multiple of the command `zstd -1 -T1` on the same bytes in the same run; MB/s; bytes on disk; most memory.
//!
//! `cargo bench --bench ingest -- [--mb 1000] [--body-kb 1024] [--connections 2] [app|wide|access|repetitive|FILE.ndjson[.zst]]…`
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a broken bench should stop"
)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

mod machine;

use machine::{bodies, cpu_of, status_kb, zstd_cpu};

struct Options {
    megabytes: usize,
    body_bytes: usize,
    connections: usize,
    inputs: Vec<String>,
}

fn main() {
    let options = options();
    println!(
        "| input | MB | CPU-s/GB searchable | × zstd | CPU-s/GB stored | × zstd | MB/s | disk, bytes per input byte | most memory, MB |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for input in &options.inputs {
        measure(input, &options);
    }
}

fn options() -> Options {
    let mut options = Options {
        megabytes: 1_000,
        body_bytes: 1 << 20,
        connections: 2,
        inputs: Vec::new(),
    };
    let mut args = std::env::args().skip(1).filter(|a| a != "--bench");
    while let Some(arg) = args.next() {
        let mut number = || args.next().unwrap().parse::<usize>().unwrap();
        match arg.as_str() {
            "--mb" => options.megabytes = number(),
            "--body-kb" => options.body_bytes = number() << 10,
            "--connections" => options.connections = number(),
            _ => options.inputs.push(arg),
        }
    }
    if options.inputs.is_empty() {
        options.inputs = vec![
            "app".to_owned(),
            "tests/data/windows-security.ndjson.zst".to_owned(),
        ];
    }
    options
}

fn measure(input: &str, options: &Options) {
    let bodies = bodies(input, options.megabytes << 20, options.body_bytes);
    let n_bytes: usize = bodies.iter().map(Vec::len).sum();
    let n_lines: usize = bodies
        .iter()
        .map(|body| body.split(|b| *b == b'\n').count() - 1)
        .sum();
    let gigabytes = n_bytes as f64 / 1e9;
    let (zstd, _) = zstd_cpu(&bodies);
    let folder = tempfile::tempdir_in(".").unwrap();
    let mut server = Server::start(folder.path());
    let stat = format!("/proc/{}/stat", server.child.id());
    let idle = cpu_of(&stat);
    let started = Instant::now();
    server.post_all(&bodies, options.connections);
    server.wait_indexed(n_lines);
    let wall = started.elapsed();
    let searchable = cpu_of(&stat) - idle;
    let memory_kb = status_kb(&server.child.id().to_string(), "VmHWM:");
    server.terminate();
    let stored = cpu_of(&stat) - idle;
    server.child.wait().unwrap();
    let disk = size_of(&folder.path().join("store"));
    let ratio = |cpu: Duration| cpu.as_secs_f64() / zstd.as_secs_f64();
    println!(
        "| {} | {:.0} | {:.1} | {:.1} | {:.1} | {:.1} | {:.0} | {:.3} | {} |",
        Path::new(input).file_name().unwrap().display(),
        n_bytes as f64 / 1e6,
        searchable.as_secs_f64() / gigabytes,
        ratio(searchable),
        stored.as_secs_f64() / gigabytes,
        ratio(stored),
        n_bytes as f64 / 1e6 / wall.as_secs_f64(),
        disk as f64 / n_bytes as f64,
        memory_kb / 1024,
    );
}

struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(folder: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_logyard"))
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut first = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut first)
            .unwrap();
        let address = first.trim().rsplit("http://").next().unwrap().to_owned();
        Self { child, address }
    }

    fn post_all(&self, bodies: &[Vec<u8>], connections: usize) {
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..connections {
                scope.spawn(|| {
                    let mut stream = TcpStream::connect(&self.address).unwrap();
                    while let Some(body) = bodies.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let head = format!(
                            "POST /logs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\nContent-Length: {}\r\n\r\n",
                            body.len()
                        );
                        stream.write_all(head.as_bytes()).unwrap();
                        stream.write_all(body).unwrap();
                        let (status, answer) = read_answer(&mut stream);
                        assert_eq!(status, 201, "{answer}");
                    }
                });
            }
        });
    }

    fn wait_indexed(&self, n_lines: usize) {
        loop {
            let mut stream = TcpStream::connect(&self.address).unwrap();
            stream
                .write_all(b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n")
                .unwrap();
            let (_, answer) = read_answer(&mut stream);
            let status: serde_json::Value = serde_json::from_str(&answer).unwrap();
            if status["indexer"]["lag_entries"] == 0 {
                let records = status["store"]["records"].as_u64().unwrap();
                assert_eq!(records, n_lines as u64, "stored, sent");
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends the process and leaves it unwaited for, so that its figures can still be read.
    fn terminate(&self) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let stat = format!("/proc/{}/stat", self.child.id());
        while !std::fs::read_to_string(&stat).unwrap().contains(") Z ") {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// (status, body); answers of `/logs` and `/status` carry a length.
fn read_answer(stream: &mut TcpStream) -> (u16, String) {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let status = line.split(' ').nth(1).unwrap().parse().unwrap();
    let mut length = 0;
    loop {
        line.clear();
        reader.read_line(&mut line).unwrap();
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    (status, String::from_utf8(body).unwrap())
}

fn size_of(folder: &Path) -> u64 {
    let mut total = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        total += match entry.file_type().unwrap().is_dir() {
            true => size_of(&entry.path()),
            false => entry.metadata().unwrap().len(),
        };
    }
    total
}
