//! The idempotency window: which keys were seen lately, and what was answered. Bounded by time, count and bytes; the oldest go first.
//!
//! What a queue keeps for a key, little endian: version u8 (1) · at_ms i64 · body_hash u128 · key_len u16 · key · answer ·
//! xxh3-64 of all before. Its own checksum, because the log does not check blocks when it is opened.
//!
//! Must not know: how a queue keeps its batches. Times are given by the caller, in milliseconds since 1970.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hashbrown::HashMap;
use tokio::sync::watch;
use xxhash_rust::xxh3::xxh3_64;

use crate::common::error::{Error, ErrorKind, Result};
use crate::queue::{Appended, Idempotency};
use crate::record::Position;

const RECORD_VERSION: u8 = 1;
/// What an entry costs beside its key and its answer.
const ENTRY_OVERHEAD_BYTES: usize = 200;

#[derive(Clone, Debug)]
pub struct IdempotencyOptions {
    /// A key is known for this long. Default 15 min.
    pub window: Duration,
    /// Keys known at most; the oldest are forgotten first. Default 100,000.
    pub keys_max: usize,
    /// Memory of keys and answers at most. Default 32 MiB.
    pub size_bytes_max: usize,
    /// Length of a key at most. Default 256 bytes.
    pub key_bytes_max: usize,
    /// A second request with the key of one that is not answered yet waits at most this long. Default 30 s.
    pub wait_max: Duration,
}

impl Default for IdempotencyOptions {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(15 * 60),
            keys_max: 100_000,
            size_bytes_max: 32 << 20,
            key_bytes_max: 256,
            wait_max: Duration::from_secs(30),
        }
    }
}

impl IdempotencyOptions {
    pub fn check_key(&self, key: &str) -> Result<()> {
        if key.is_empty() || self.key_bytes_max < key.len() {
            return Err(Error::invalid(
                "invalid_idempotency_key",
                format!(
                    "the idempotency key has {} bytes; send 1 to {}",
                    key.len(),
                    self.key_bytes_max
                ),
            ));
        }
        Ok(())
    }
}

/// The key was used with another body.
pub(super) fn conflict() -> Error {
    Error::new(
        ErrorKind::Conflict,
        "idempotency_conflict",
        "this idempotency key was used with another body; give each request its own key",
    )
}

/// A request with the key is under way, and was for as long as a caller may wait.
pub(super) fn in_progress() -> Error {
    Error::unavailable(
        "idempotency_in_progress",
        "a request with the same idempotency key is still under way; try again",
    )
}

pub struct Window {
    options: IdempotencyOptions,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    entries: HashMap<Arc<str>, Entry>,
    /// Answered keys by age: (ordinal, key). An entry whose ordinal differs was replaced.
    order: VecDeque<(u64, Arc<str>)>,
    next_ordinal: u64,
    size_bytes: usize,
}

enum Entry {
    /// Somebody appends this now; the receiver wakes when that is over.
    InFlight {
        body_hash: u128,
        over: watch::Receiver<()>,
    },
    Done(Done),
}

/// A key that was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    pub body_hash: u128,
    pub answer: Bytes,
    pub first: Position,
    pub count: u32,
    pub at_ms: i64,
    ordinal: u64,
    /// Kept somewhere else than with its block.
    in_ledger: bool,
}

/// The right to append for a key. Dropped without [`Claim::complete`], the key is free again.
pub struct Claim {
    window: Arc<Window>,
    idempotency: Idempotency,
    key: Arc<str>,
    _over: watch::Sender<()>,
    is_complete: bool,
}

/// What a key leads to.
pub enum Claimed {
    Replayed(Appended),
    New(Claim),
}

enum Step {
    Claimed(Claimed),
    Wait(watch::Receiver<()>),
}

impl Window {
    pub fn new(options: IdempotencyOptions) -> Arc<Self> {
        Arc::new(Self {
            options,
            state: Mutex::default(),
        })
    }

    /// Each change leaves the state whole, so a panic of another holder changes nothing.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds the first answer, or gives the right to append. Waits for a request with the same key that is under way.
    pub async fn claim(self: &Arc<Self>, idempotency: Idempotency) -> Result<Claimed> {
        self.options.check_key(&idempotency.key)?;
        let wait = async {
            let mut idempotency = Some(idempotency);
            loop {
                match self.try_claim(&mut idempotency, now_ms())? {
                    Step::Claimed(claimed) => return Ok(claimed),
                    // An error means that the claim is gone, which is what is waited for.
                    Step::Wait(mut over) => drop(over.changed().await),
                }
            }
        };
        match tokio::time::timeout(self.options.wait_max, wait).await {
            Ok(claimed) => claimed,
            Err(_) => Err(in_progress()),
        }
    }

    fn try_claim(self: &Arc<Self>, wanted: &mut Option<Idempotency>, now_ms: i64) -> Result<Step> {
        let Some(idempotency) = wanted.as_ref() else {
            return Err(Error::internal("an idempotency key was claimed twice"));
        };
        let mut state = self.lock();
        state.expire(&self.options, now_ms);
        let known_hash = match state.entries.get(idempotency.key.as_str()) {
            None => None,
            Some(Entry::InFlight { body_hash, .. }) => Some(*body_hash),
            Some(Entry::Done(done)) => Some(done.body_hash),
        };
        if known_hash.is_some_and(|hash| hash != idempotency.body_hash) {
            return Err(conflict());
        }
        match state.entries.get(idempotency.key.as_str()) {
            Some(Entry::InFlight { over, .. }) => return Ok(Step::Wait(over.clone())),
            Some(Entry::Done(done)) => {
                return Ok(Step::Claimed(Claimed::Replayed(Appended {
                    replayed: Some(done.answer.clone()),
                    ..Appended::in_a_row(done.first, done.count)
                })));
            }
            None => {}
        }
        let (over_sender, over) = watch::channel(());
        let key: Arc<str> = idempotency.key.as_str().into();
        let body_hash = idempotency.body_hash;
        let entry = Entry::InFlight { body_hash, over };
        state.entries.insert(Arc::clone(&key), entry);
        drop(state);
        let Some(idempotency) = wanted.take() else {
            return Err(Error::internal("an idempotency key was claimed twice"));
        };
        Ok(Step::Claimed(Claimed::New(Claim {
            window: Arc::clone(self),
            idempotency,
            key,
            _over: over_sender,
            is_complete: false,
        })))
    }

    /// Puts back what [`Claim::record`] or [`Self::take_for_ledger`] gave, after a restart, oldest first. What is too old or not understood is left out.
    pub fn restore(&self, record: &[u8], first: Position, count: u32, in_ledger: bool) {
        let Some((key, mut done)) = decode(record, first, count) else {
            return;
        };
        done.in_ledger = in_ledger;
        let mut state = self.lock();
        state.insert(&key.into(), done);
        state.expire(&self.options, now_ms());
    }

    /// Records of the keys whose batch begins below `seq` and that are in no ledger yet: (record, first, count), oldest first, and the
    /// ordinal of the newest.
    pub fn not_in_ledger(&self, seq: u64) -> (Vec<(Vec<u8>, Position, u32)>, u64) {
        let mut state = self.lock();
        state.expire(&self.options, now_ms());
        let mut records = Vec::new();
        let mut newest = 0;
        for (ordinal, key) in &state.order {
            if let Some(Entry::Done(done)) = state.entries.get(key)
                && done.ordinal == *ordinal
                && !done.in_ledger
                && done.first.seq < seq
            {
                let record = encode(key, done.body_hash, &done.answer, done.at_ms);
                records.push((record, done.first, done.count));
                newest = *ordinal;
            }
        }
        (records, newest)
    }

    /// Notes that the keys whose batch begins below `seq` are kept in the ledger.
    pub fn note_in_ledger(&self, seq: u64) {
        for entry in self.lock().entries.values_mut() {
            if let Entry::Done(done) = entry
                && done.first.seq < seq
            {
                done.in_ledger = true;
            }
        }
    }

    /// Keys with an ordinal below this are forgotten.
    pub fn oldest_ordinal(&self) -> u64 {
        let mut state = self.lock();
        state.expire(&self.options, now_ms());
        let oldest = state.order.front();
        oldest.map_or(state.next_ordinal, |(ordinal, _)| *ordinal)
    }

    /// The ordinal that the next key gets.
    pub fn next_ordinal(&self) -> u64 {
        self.lock().next_ordinal
    }
}

impl State {
    fn insert(&mut self, key: &Arc<str>, mut done: Done) {
        done.ordinal = self.next_ordinal;
        self.next_ordinal += 1;
        self.size_bytes += size_of(key, &done);
        self.order.push_back((done.ordinal, Arc::clone(key)));
        if let Some(Entry::Done(old)) = self.entries.insert(Arc::clone(key), Entry::Done(done)) {
            self.size_bytes -= size_of(key, &old);
        }
    }

    fn expire(&mut self, options: &IdempotencyOptions, now_ms: i64) {
        let window_ms = i64::try_from(options.window.as_millis()).unwrap_or(i64::MAX);
        let oldest_ms = now_ms.saturating_sub(window_ms);
        while let Some((ordinal, key)) = self.order.front() {
            let known = match self.entries.get(key) {
                Some(Entry::Done(done)) if done.ordinal == *ordinal => Some(done),
                _ => None,
            };
            if let Some(done) = known {
                let fits = oldest_ms <= done.at_ms
                    && self.order.len() <= options.keys_max
                    && self.size_bytes <= options.size_bytes_max;
                if fits {
                    return;
                }
                self.size_bytes -= size_of(key, done);
                self.entries.remove(key);
            }
            self.order.pop_front();
        }
    }
}

impl Claim {
    /// What must be kept with the batch so that the key is known after a restart.
    pub fn record(&self, at_ms: i64) -> Vec<u8> {
        let Idempotency {
            body_hash, answer, ..
        } = &self.idempotency;
        encode(&self.key, *body_hash, answer, at_ms)
    }

    /// The batch is durable.
    pub fn complete(mut self, first: Position, count: u32, at_ms: i64) {
        let done = Done {
            body_hash: self.idempotency.body_hash,
            answer: self.idempotency.answer.clone(),
            first,
            count,
            at_ms,
            ordinal: 0,
            in_ledger: false,
        };
        let mut state = self.window.lock();
        state.insert(&self.key, done);
        state.expire(&self.window.options, at_ms);
        drop(state);
        self.is_complete = true;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.is_complete {
            self.window.lock().entries.remove(&self.key);
        }
    }
}

fn size_of(key: &str, done: &Done) -> usize {
    key.len() + done.answer.len() + ENTRY_OVERHEAD_BYTES
}

fn encode(key: &str, body_hash: u128, answer: &[u8], at_ms: i64) -> Vec<u8> {
    let key_len = u16::try_from(key.len()).unwrap_or(0);
    let mut record = Vec::with_capacity(35 + key.len() + answer.len());
    record.push(RECORD_VERSION);
    record.extend(at_ms.to_le_bytes());
    record.extend(body_hash.to_le_bytes());
    record.extend(key_len.to_le_bytes());
    record.extend(key.as_bytes());
    record.extend(answer);
    let checksum = xxh3_64(&record);
    record.extend(checksum.to_le_bytes());
    record
}

fn decode(record: &[u8], first: Position, count: u32) -> Option<(&str, Done)> {
    let (record, checksum) = record.split_last_chunk()?;
    if u64::from_le_bytes(*checksum) != xxh3_64(record) {
        return None;
    }
    let (version, rest) = record.split_first()?;
    let (at_ms, rest) = rest.split_first_chunk()?;
    let (body_hash, rest) = rest.split_first_chunk()?;
    let (key_len, rest) = rest.split_first_chunk()?;
    let (key, answer) = rest.split_at_checked(usize::from(u16::from_le_bytes(*key_len)))?;
    let done = Done {
        body_hash: u128::from_le_bytes(*body_hash),
        answer: Bytes::copy_from_slice(answer),
        first,
        count,
        at_ms: i64::from_le_bytes(*at_ms),
        ordinal: 0,
        in_ledger: false,
    };
    (*version == RECORD_VERSION).then_some((std::str::from_utf8(key).ok()?, done))
}

pub(crate) fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| i64::try_from(now.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(key: &str, body_hash: u128) -> Idempotency {
        Idempotency {
            key: key.to_owned(),
            body_hash,
            answer: Bytes::from(format!("answer to {key}")),
        }
    }

    fn at(seq: u64) -> Position {
        Position { partition: 0, seq }
    }

    async fn finish(window: &Arc<Window>, key: &str, seq: u64, at_ms: i64) {
        let Ok(Claimed::New(claim)) = window.claim(wanted(key, 1)).await else {
            panic!("{key} is known")
        };
        claim.complete(at(seq), 1, at_ms);
    }

    async fn is_known(window: &Arc<Window>, key: &str) -> bool {
        matches!(
            window.claim(wanted(key, 1)).await.unwrap(),
            Claimed::Replayed(_)
        )
    }

    #[tokio::test]
    async fn a_key_is_free_again_when_its_request_failed() {
        let window = Window::new(IdempotencyOptions::default());
        let Ok(Claimed::New(claim)) = window.claim(wanted("a", 1)).await else {
            panic!()
        };
        let second = tokio::spawn({
            let window = Arc::clone(&window);
            async move { matches!(window.claim(wanted("a", 1)).await, Ok(Claimed::New(_))) }
        });
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        drop(claim);
        assert!(second.await.unwrap());
    }

    #[tokio::test]
    async fn the_oldest_keys_are_forgotten_by_age_count_and_size() {
        let window = Window::new(IdempotencyOptions::default());
        finish(&window, "old", 0, now_ms() - 16 * 60 * 1000).await;
        finish(&window, "new", 1, now_ms() - 14 * 60 * 1000).await;
        assert!(!is_known(&window, "old").await && is_known(&window, "new").await);

        for options in [
            IdempotencyOptions {
                keys_max: 2,
                ..IdempotencyOptions::default()
            },
            IdempotencyOptions {
                size_bytes_max: 2 * (ENTRY_OVERHEAD_BYTES + 20),
                ..IdempotencyOptions::default()
            },
        ] {
            let window = Window::new(options);
            for (seq, key) in [(0, "a"), (1, "b"), (2, "c")] {
                finish(&window, key, seq, now_ms()).await;
            }
            let known = [
                is_known(&window, "a").await,
                is_known(&window, "b").await,
                is_known(&window, "c").await,
            ];
            assert_eq!(known, [false, true, true]);
        }
    }

    #[tokio::test]
    async fn records_restore_the_window() {
        let window = Window::new(IdempotencyOptions::default());
        finish(&window, "ä key", 7, now_ms()).await;
        let (records, _) = window.not_in_ledger(8);
        let restored = Window::new(IdempotencyOptions::default());
        for (record, first, count) in &records {
            restored.restore(record, *first, *count, true);
            for end in 0..record.len() {
                restored.restore(&record[..end], *first, *count, true);
                let mut garbled = record.clone();
                garbled[end] ^= 1;
                restored.restore(&garbled, *first, *count, true);
            }
            assert_eq!(restored.next_ordinal(), 1, "something broken was taken");
        }
        let Claimed::Replayed(appended) = restored.claim(wanted("ä key", 1)).await.unwrap() else {
            panic!()
        };
        assert_eq!((appended.first, appended.count), (at(7), 1));
        assert_eq!(appended.replayed.unwrap(), "answer to ä key");
        let conflict = restored.claim(wanted("ä key", 2)).await.err().unwrap();
        assert_eq!(conflict.kind, ErrorKind::Conflict);
        assert!(restored.not_in_ledger(8).0.is_empty());
    }

    #[tokio::test]
    async fn keys_without_a_sensible_length_are_refused() {
        let window = Window::new(IdempotencyOptions::default());
        for key in [String::new(), "x".repeat(257)] {
            let error = window.claim(wanted(&key, 1)).await.err().unwrap();
            assert_eq!(error.code, "invalid_idempotency_key");
        }
    }
}
