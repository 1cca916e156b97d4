//! A ledger of what clients sent and what they were told, and the comparison with what is stored: what was acknowledged is there, whole and once.
//! For test files that have `mod sandbox;`: `#[path = "sandbox/ledger.rs"] mod ledger;`.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "shared by several test files, each of which uses a part; the seed is shown to repeat a failure"
)]

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::sandbox::{self, Answer, PATIENCE, Server, eventually};

const N_CLIENTS: usize = 4;

/// What a client knows about a batch that it sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Acknowledged,
    /// Answered with an error: must not be stored.
    Refused,
    /// No answer, or one that says so: may be stored, once.
    Unknown,
}

struct Sent {
    n_lines: u64,
    fate: Fate,
}

/// What all clients sent, by batch number, and which batches are to be sent again with their key.
#[derive(Default)]
pub struct Ledger {
    /// A queue that takes a batch line by line may keep the first lines of one whose fate is unknown.
    may_be_partial: bool,
    sent: Mutex<BTreeMap<u64, Sent>>,
    pub to_repeat: Mutex<Vec<u64>>,
    next_batch: AtomicU64,
    pub statuses: Mutex<BTreeMap<u16, u64>>,
    pub codes: Mutex<BTreeMap<String, u64>>,
}

/// A small generator, so that a failure can be repeated.
pub struct Random(u64);

impl Random {
    pub fn new() -> Self {
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
        let seed = now.as_nanos() as u64 | 1;
        eprintln!("seed {seed}");
        Self(seed)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
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

/// Several sources, so that a queue with partitions uses them all.
fn body_of(batch: u64) -> String {
    let source = batch % 9;
    let line = |i| {
        format!(
            "{{\"uid\":\"{batch}-{i}\",\"source\":\"crash-{source}\",\"message\":\"line {i} of batch {batch}, some words to fill it\"}}\n"
        )
    };
    (0..n_lines_of(batch)).map(line).collect()
}

impl Ledger {
    pub fn of_partitions() -> Self {
        Self {
            may_be_partial: true,
            ..Self::default()
        }
    }

    /// Sends one batch; `None` when the server is gone.
    pub fn send(&self, address: SocketAddr) -> Option<u16> {
        let repeated = self.to_repeat.lock().unwrap().pop();
        let batch = repeated.unwrap_or_else(|| self.next_batch.fetch_add(1, Ordering::SeqCst));
        let key = format!("batch-{batch}");
        let headers: &[(&str, &str)] = match has_key(batch) {
            true => &[("idempotency-key", &key)],
            false => &[],
        };
        // Noted before it is sent: whoever looks meanwhile finds no line that nobody sent.
        self.note(batch, Fate::Unknown);
        let answer = sandbox::request(address, "POST", "/logs", headers, body_of(batch).as_bytes());
        let answer = answer.ok();
        let fate = self.fate_of(answer.as_ref(), repeated.is_some());
        if fate == Fate::Unknown && has_key(batch) {
            self.to_repeat.lock().unwrap().push(batch);
        }
        self.note(batch, fate);
        answer.map(|answer| answer.status)
    }

    fn note(&self, batch: u64, fate: Fate) {
        let n_lines = n_lines_of(batch);
        let sent = Sent { n_lines, fate };
        self.sent.lock().unwrap().insert(batch, sent);
    }

    fn fate_of(&self, answer: Option<&Answer>, is_repeated: bool) -> Fate {
        let Some(answer) = answer else {
            return Fate::Unknown;
        };
        let mut statuses = self.statuses.lock().unwrap();
        *statuses.entry(answer.status).or_default() += 1;
        if answer.status == 201 {
            return Fate::Acknowledged;
        }
        let code = answer.error_code();
        let is_unknown = ["outcome_unknown", "partly_stored"].contains(&code.as_str());
        *self.codes.lock().unwrap().entry(code).or_default() += 1;
        // Of a repeated batch the first try may have been stored.
        match is_repeated || is_unknown {
            true => Fate::Unknown,
            false => Fate::Refused,
        }
    }

    pub fn n_lines(&self, fate: Fate) -> u64 {
        let sent = self.sent.lock().unwrap();
        let with_fate = sent.values().filter(|sent| sent.fate == fate);
        with_fate.map(|sent| sent.n_lines).sum()
    }

    /// Lines of all batches that may be stored.
    pub fn n_lines_at_most(&self) -> u64 {
        self.n_lines(Fate::Acknowledged) + self.n_lines(Fate::Unknown)
    }

    /// Sends whatever has a key and no answer until it is answered.
    pub fn repeat_all(&self, address: SocketAddr) {
        let deadline = Instant::now() + PATIENCE * 2;
        while !self.to_repeat.lock().unwrap().is_empty() {
            let status = self.send(address).expect("the server is gone");
            assert!(Instant::now() < deadline, "{:?}", self.codes);
            if status != 201 {
                std::thread::sleep(Duration::from_millis(200));
            }
        }
    }

    /// Compares with everything that the server has.
    pub fn check(&self, server: &Server) {
        // Entries of a partition become searchable in their order, so these come after all others.
        let markers: String = (0..60)
            .map(|n| format!("{{\"source\":\"marker-{n}\",\"message\":\"marker\"}}\n"))
            .collect();
        eventually("the markers are indexed", || {
            let answer = server.post("/logs?wait_for=indexed", &markers);
            answer.status == 201 && answer.json()["indexed"] != false
        });
        let faults = self.faults(&self.stored(server));
        assert!(
            faults.is_empty(),
            "{} faults, the first: {:?}",
            faults.len(),
            &faults[..faults.len().min(10)]
        );
    }

    /// How often each line of each batch is there.
    fn stored(&self, server: &Server) -> HashMap<u64, BTreeMap<u64, u64>> {
        let answer = server.get("/logs?q=uid:*&format=ndjson&limit=all&fields=uid");
        assert_eq!(answer.status, 200, "{}", answer.text());
        let mut stored: HashMap<u64, BTreeMap<u64, u64>> = HashMap::new();
        for line in answer.text().lines() {
            let record: serde_json::Value = serde_json::from_str(line).unwrap();
            let (batch, i) = record["uid"].as_str().unwrap().split_once('-').unwrap();
            let lines = stored.entry(batch.parse().unwrap()).or_default();
            *lines.entry(i.parse().unwrap()).or_default() += 1;
        }
        stored
    }

    fn faults(&self, stored: &HashMap<u64, BTreeMap<u64, u64>>) -> Vec<String> {
        let sent = self.sent.lock().unwrap();
        let mut faults = Vec::new();
        for (batch, lines) in stored {
            let is_right = sent.get(batch).is_some_and(|sent| {
                let is_whole = lines.len() as u64 == sent.n_lines;
                (is_whole || self.may_be_partial && sent.fate == Fate::Unknown)
                    && lines.keys().all(|i| *i < sent.n_lines)
            });
            let is_once = lines.values().all(|count| *count == 1);
            if !is_right || !is_once {
                let fate = sent.get(batch).map(|sent| sent.fate);
                faults.push(format!("batch {batch} ({fate:?}) is stored as {lines:?}"));
            }
        }
        for (batch, sent) in &*sent {
            match (sent.fate, stored.contains_key(batch)) {
                (Fate::Acknowledged, false) => faults.push(format!("batch {batch} is lost")),
                (Fate::Refused, true) => faults.push(format!("batch {batch} was refused")),
                _ => {}
            }
        }
        faults
    }
}

/// Clients that send until they are told to end, or, without a pause, until the server is gone.
pub struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    /// As fast as the server takes it.
    pub fn start(ledger: &Arc<Ledger>, address: SocketAddr) -> Self {
        Self::spawn(|_, stop| {
            let ledger = Arc::clone(ledger);
            move || while !stop.load(Ordering::SeqCst) && ledger.send(address).is_some() {}
        })
    }

    /// To all of `targets`, which may change meanwhile, with a pause after each batch.
    pub fn steady(
        ledger: &Arc<Ledger>,
        targets: &Arc<Mutex<Vec<SocketAddr>>>,
        pause: Duration,
    ) -> Self {
        Self::spawn(|client, stop| {
            let (ledger, targets) = (Arc::clone(ledger), Arc::clone(targets));
            move || {
                while !stop.load(Ordering::SeqCst) {
                    let address = {
                        let targets = targets.lock().unwrap();
                        targets[client % targets.len()]
                    };
                    ledger.send(address);
                    std::thread::sleep(pause);
                }
            }
        })
    }

    fn spawn<F: FnOnce() + Send + 'static>(client: impl Fn(usize, Arc<AtomicBool>) -> F) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let clients = (0..N_CLIENTS)
            .map(|n| std::thread::spawn(client(n, Arc::clone(&stop))))
            .collect();
        Self { stop, clients }
    }

    pub fn end(self) {
        self.stop.store(true, Ordering::SeqCst);
        for client in self.clients {
            client.join().unwrap();
        }
    }
}
