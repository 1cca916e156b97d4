//! What was acknowledged is stored, once, whatever happens to the process: kill -9 under load, SIGTERM under load, a full disk.
//! The real binary, checked through its public API alone.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a broken expectation should stop the test; the seed is shown to repeat a failure"
)]

mod sandbox;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use sandbox::{Sandbox, Server, eventually};

const N_KILLS: u64 = 60;
const N_CLIENTS: usize = 4;

/// What a client knows about a batch that it sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Acknowledged,
    /// Answered with an error: must not be stored.
    Refused,
    /// No answer: may be stored, whole, once.
    Unknown,
}

struct Sent {
    n_lines: u64,
    fate: Fate,
}

/// What all clients sent, by batch number, and which batches are to be sent again with their key.
#[derive(Default)]
struct Ledger {
    sent: Mutex<BTreeMap<u64, Sent>>,
    to_repeat: Mutex<Vec<u64>>,
    next_batch: AtomicU64,
    statuses: Mutex<BTreeMap<u16, u64>>,
}

/// A small generator, so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn new() -> Self {
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
        let seed = now.as_nanos() as u64 | 1;
        eprintln!("seed {seed}");
        Self(seed)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

fn n_lines_of(batch: u64) -> u64 {
    batch * 7 % 40 + 1
}

/// Even batches carry an idempotency key and are repeated until they are answered.
fn has_key(batch: u64) -> bool {
    batch.is_multiple_of(2)
}

fn body_of(batch: u64) -> String {
    let line = |i| {
        format!(
            "{{\"uid\":\"{batch}-{i}\",\"source\":\"crash\",\"message\":\"line {i} of batch {batch}, some words to fill it\"}}\n"
        )
    };
    (0..n_lines_of(batch)).map(line).collect()
}

impl Ledger {
    /// Sends one batch; false when the server is gone.
    fn send(&self, address: SocketAddr) -> bool {
        let repeated = self.to_repeat.lock().unwrap().pop();
        let batch = repeated.unwrap_or_else(|| self.next_batch.fetch_add(1, Ordering::SeqCst));
        let key = format!("batch-{batch}");
        let headers: &[(&str, &str)] = match has_key(batch) {
            true => &[("idempotency-key", &key)],
            false => &[],
        };
        let answer = sandbox::request(address, "POST", "/logs", headers, body_of(batch).as_bytes());
        let fate = match &answer {
            Ok(answer) => {
                *self
                    .statuses
                    .lock()
                    .unwrap()
                    .entry(answer.status)
                    .or_default() += 1;
                match answer.status {
                    201 => Fate::Acknowledged,
                    // Of a repeated batch the first try may have been stored.
                    _ if repeated.is_some() => Fate::Unknown,
                    _ => Fate::Refused,
                }
            }
            Err(_) => Fate::Unknown,
        };
        if fate == Fate::Unknown && has_key(batch) {
            self.to_repeat.lock().unwrap().push(batch);
        }
        let n_lines = n_lines_of(batch);
        let sent = Sent { n_lines, fate };
        self.sent.lock().unwrap().insert(batch, sent);
        answer.is_ok()
    }

    fn n_lines(&self, fate: Fate) -> u64 {
        let sent = self.sent.lock().unwrap();
        let with_fate = sent.values().filter(|sent| sent.fate == fate);
        with_fate.map(|sent| sent.n_lines).sum()
    }

    /// Compares with everything that the server has.
    fn check(&self, server: &Server) {
        // Entries become searchable in their order, so this one comes after all others.
        server.ingest(r#"{"source":"marker","message":"marker"}"#);
        let answer = server.get("/logs?source=crash&format=ndjson&limit=all&fields=uid");
        assert_eq!(answer.status, 200, "{}", answer.text());
        let mut stored: HashMap<u64, BTreeMap<u64, u64>> = HashMap::new();
        for line in answer.text().lines() {
            let record: serde_json::Value = serde_json::from_str(line).unwrap();
            let (batch, i) = record["uid"].as_str().unwrap().split_once('-').unwrap();
            let lines = stored.entry(batch.parse().unwrap()).or_default();
            *lines.entry(i.parse().unwrap()).or_default() += 1;
        }
        let sent = self.sent.lock().unwrap();
        let mut faults = Vec::new();
        for (batch, lines) in &stored {
            let is_whole = sent.get(batch).is_some_and(|sent| {
                lines.len() as u64 == sent.n_lines && lines.keys().all(|i| *i < sent.n_lines)
            });
            let is_once = lines.values().all(|count| *count == 1);
            if !is_whole || !is_once {
                faults.push(format!("batch {batch} is stored as {lines:?}"));
            }
        }
        for (batch, sent) in &*sent {
            match (sent.fate, stored.contains_key(batch)) {
                (Fate::Acknowledged, false) => faults.push(format!("batch {batch} is lost")),
                (Fate::Refused, true) => faults.push(format!("batch {batch} was refused")),
                _ => {}
            }
        }
        assert!(
            faults.is_empty(),
            "{} faults, the first: {:?}",
            faults.len(),
            &faults[..faults.len().min(10)]
        );
    }
}

/// Clients that send as fast as they can until they are told to end, or the server is gone.
struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(ledger: &Arc<Ledger>, address: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let clients =
            (0..N_CLIENTS)
                .map(|_| {
                    let (ledger, stop) = (Arc::clone(ledger), Arc::clone(&stop));
                    std::thread::spawn(move || {
                        while !stop.load(Ordering::SeqCst) && ledger.send(address) {}
                    })
                })
                .collect();
        Self { stop, clients }
    }

    fn end(self) {
        self.stop.store(true, Ordering::SeqCst);
        for client in self.clients {
            client.join().unwrap();
        }
    }
}

fn start(sandbox: &Sandbox) -> Server {
    let mut server = sandbox.start();
    server.expect_log("the queue was not closed properly");
    server
}

#[test]
fn nothing_acknowledged_is_lost_or_doubled_by_kill_9() {
    let sandbox = Sandbox::new();
    let ledger = Arc::new(Ledger::default());
    let mut random = Random::new();
    for cycle in 0..N_KILLS {
        if cycle % 5 == 4 {
            kill_while_starting(&sandbox, Duration::from_millis(random.below(300)));
        }
        let server = start(&sandbox);
        if cycle % 20 == 10 {
            ledger.check(&server);
        }
        let load = Load::start(&ledger, server.address);
        std::thread::sleep(Duration::from_millis(20 + random.below(700)));
        server.kill();
        load.end();
    }
    // Whatever has a key and no answer is sent until it is answered.
    let server = start(&sandbox);
    while !ledger.to_repeat.lock().unwrap().is_empty() {
        assert!(ledger.send(server.address));
    }
    ledger.check(&server);
    let [acknowledged, unknown, refused] =
        [Fate::Acknowledged, Fate::Unknown, Fate::Refused].map(|fate| ledger.n_lines(fate));
    eprintln!(
        "{N_KILLS} kills: {acknowledged} lines acknowledged, {unknown} without an answer, {refused} refused"
    );
    assert!(1000 < acknowledged && refused == 0);
    // The same once more after a clean stop.
    server.stop();
    let server = sandbox.start();
    ledger.check(&server);
    server.stop();
}

fn kill_while_starting(sandbox: &Sandbox, after: Duration) {
    let mut command = sandbox.command(&["serve", "--listen", "127.0.0.1:0"]);
    command.arg("--data-dir").arg(sandbox.data_dir());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    std::thread::sleep(after);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn sigterm_under_load_loses_nothing_and_exits_with_0() {
    let sandbox = Sandbox::new();
    let ledger = Arc::new(Ledger::default());
    let mut random = Random::new();
    for _ in 0..6 {
        let server = sandbox.start();
        let load = Load::start(&ledger, server.address);
        std::thread::sleep(Duration::from_millis(100 + random.below(500)));
        server.stop();
        load.end();
    }
    let server = sandbox.start();
    while !ledger.to_repeat.lock().unwrap().is_empty() {
        assert!(ledger.send(server.address));
    }
    ledger.check(&server);
    assert!(100 < ledger.n_lines(Fate::Acknowledged));
    server.stop();
}

/// A small file system in memory; gone when dropped.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(folder: &Path, size: &str) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        let output = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(folder)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "this test needs the right to mount a tmpfs: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Self(folder.to_owned())
    }

    /// Leaves `free_percent` of the space free.
    fn fill(&self, free_percent: u64) {
        let stat = rustix::fs::statvfs(&self.0).unwrap();
        let keep = stat.f_blocks * free_percent / 100;
        let take = stat.f_bavail.saturating_sub(keep) * stat.f_frsize;
        let zeros = vec![0; 1 << 16];
        let mut file = std::fs::File::create(self.ballast()).unwrap();
        let mut taken = 0;
        while taken < take {
            // At 0 % somebody else may be faster: then the disk is full, which is what was asked for.
            match std::io::Write::write(&mut file, &zeros) {
                Ok(n) => taken += n as u64,
                Err(_) => return,
            }
        }
    }

    fn free(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_refuses_answers_and_resumes() {
    let sandbox = Sandbox::new();
    let disk = Tmpfs::mount(&sandbox.data_dir(), "128m");
    let ledger = Arc::new(Ledger::default());
    let mut server = sandbox.start();
    for expected in ["the disk is full", "No space left on device"] {
        server.expect_log(expected);
    }
    let load = Load::start(&ledger, server.address);
    std::thread::sleep(Duration::from_millis(300));
    // 8 % free: refused early. 0 %: whatever is written meets the end of the disk.
    for free_percent in [8, 0, 8, 0] {
        disk.fill(free_percent);
        eventually("refused", || is_refused(&server));
        for _ in 0..10 {
            let answer = server.get("/logs?source=crash&limit=10");
            assert_eq!(answer.status, 200, "{}", answer.text());
            std::thread::sleep(Duration::from_millis(100));
        }
        let status = server.get_json("/status").to_string();
        assert!(status.contains("disk is full"), "{status}");
        disk.free();
        let freed = Instant::now();
        eventually("accepted again", || {
            server.post("/logs", "hello").status == 201
        });
        assert!(freed.elapsed() < Duration::from_secs(10));
    }
    load.end();
    while !ledger.to_repeat.lock().unwrap().is_empty() {
        assert!(ledger.send(server.address));
    }
    ledger.check(&server);
    let statuses = ledger.statuses.lock().unwrap().clone();
    assert!(
        statuses.keys().all(|status| [201, 503].contains(status)),
        "{statuses:?}"
    );
    server.stop();
    let server = sandbox.start();
    ledger.check(&server);
    server.stop();
}

fn is_refused(server: &Server) -> bool {
    let answer = server.post("/logs", "hello");
    if answer.status == 201 {
        return false;
    }
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(answer.header("retry-after").is_some());
    answer.error_code() == "disk_full"
}
