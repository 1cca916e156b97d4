//! The naive store: records in memory, every question answered by looking at every record with `query::evaluate`. It serves
//! `--in-memory`, and it is what the other stores' answers are compared with. Bounded: when full it refuses, and says so.
//!
//! Nothing survives the process, so what is searchable counts as durable here: the queue may forget it.

mod answer;
mod expire;

use std::sync::Arc;

use async_trait::async_trait;
use hashbrown::HashMap;
use parking_lot::RwLock;
use tokio::sync::{Semaphore, watch};

use crate::common::cancel::Cancel;
use crate::common::error::{Error, Result};
use crate::query::text;
use crate::query::{
    CompiledSelection, FieldsAnswer, FieldsRequest, Histogram, HistogramRequest, SearchAnswer,
    SearchRequest, Selection, StatsAnswer, StatsRequest, TimeRange,
};
use crate::record::{
    Checkpoint, DeadLetter, DeadLetterRef, EntryRef, Position, QueuedBatch, Record, RecordKey,
    RecordRef, Value,
};
use crate::store::{
    DeadLetterPage, DeadLetterRequest, RetentionReport, RetentionRules, Store, Usage, VerifyReport,
};

/// Records between two looks at the clock.
const RECORDS_PER_CHECK: usize = 512;
/// A part grows to so many records before the next one begins.
const PART_RECORDS: usize = 4096;
/// What a record and a field cost besides their texts.
const RECORD_OVERHEAD_BYTES: usize = 120;
const FIELD_OVERHEAD_BYTES: usize = 48;

#[derive(Clone, Debug)]
pub struct MemoryStoreOptions {
    /// Estimated bytes of all records and dead letters; writes are refused beyond. Default 1 GiB.
    pub size_bytes_max: usize,
    /// Questions answered at the same time; others wait. Default 2.
    pub concurrent_searches: usize,
}

impl Default for MemoryStoreOptions {
    fn default() -> Self {
        Self {
            size_bytes_max: 1 << 30,
            concurrent_searches: 2,
        }
    }
}

/// A record with what retention needs to know.
#[derive(Clone, Debug)]
struct Stored {
    record: Arc<Record>,
    arrival_ns: i64,
    size_bytes: usize,
}

/// Immutable, so that a question works on one state while others write.
type Part = Arc<Vec<Stored>>;

#[derive(Clone, Debug)]
struct StoredLetter {
    letter: DeadLetter,
    size_bytes: usize,
}

#[derive(Default)]
struct State {
    parts: Vec<Part>,
    /// Sorted by position.
    letters: Vec<StoredLetter>,
    size_bytes: usize,
    /// Times of the oldest and the newest record.
    span_ns: Option<(i64, i64)>,
    /// Field keys are shared between records.
    keys: HashMap<Box<str>, Arc<str>, ahash::RandomState>,
}

pub struct MemoryStore {
    options: MemoryStoreOptions,
    state: RwLock<State>,
    /// Orders the writers; the state's own lock is held for the change alone.
    writing: tokio::sync::Mutex<()>,
    searchable: watch::Sender<Checkpoint>,
    version: std::sync::atomic::AtomicU64,
    searches: Arc<Semaphore>,
}

impl MemoryStore {
    pub fn new(options: MemoryStoreOptions) -> Self {
        Self {
            searches: Arc::new(Semaphore::new(options.concurrent_searches.max(1))),
            options,
            state: RwLock::default(),
            writing: tokio::sync::Mutex::default(),
            searchable: watch::Sender::new(Checkpoint::default()),
            // An answer cached outside this process must not outlive it.
            version: std::sync::atomic::AtomicU64::new(rand::random()),
        }
    }

    fn bump(&self) {
        self.version
            .fetch_add(1, std::sync::atomic::Ordering::AcqRel);
    }

    /// Runs `work` on the state as it is now, on a thread that may block.
    async fn ask<T: Send + 'static>(
        &self,
        cancel: Cancel,
        work: impl FnOnce(Scan) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let permit = tokio::select! {
            permit = Arc::clone(&self.searches).acquire_owned() => permit,
            () = cancel.cancelled() => return cancel.check().and(Err(Error::internal("cancelled"))),
            () = tokio::time::sleep_until(cancel.deadline().into()) => {
                return cancel.check().and(Err(Error::internal("out of time")));
            }
        };
        let scan = Scan {
            parts: self.state.read().parts.clone(),
            cancel,
        };
        let joined = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work(scan)
        });
        joined
            .await
            .map_err(|e| Error::internal("a search in memory broke off").with_source(e))?
    }
}

/// One consistent state, and the right to look at it for a while.
struct Scan {
    parts: Vec<Part>,
    cancel: Cancel,
}

impl Scan {
    /// Calls `visit` for each record of the selection, in no particular order.
    fn each(
        &self,
        selection: &Selection,
        mut visit: impl FnMut(&Arc<Record>) -> Result<()>,
    ) -> Result<()> {
        let selection = CompiledSelection::new(selection)?;
        for part in &self.parts {
            for chunk in part.chunks(RECORDS_PER_CHECK) {
                self.cancel.check()?;
                for stored in chunk {
                    let record = &stored.record;
                    if selection.matches(record.key.position, record.as_ref()) {
                        visit(record)?;
                    }
                }
            }
        }
        Ok(())
    }
}

impl State {
    fn key(&mut self, key: &str) -> Arc<str> {
        if let Some(shared) = self.keys.get(key) {
            return Arc::clone(shared);
        }
        let shared: Arc<str> = key.into();
        self.size_bytes += 2 * key.len() + FIELD_OVERHEAD_BYTES;
        self.keys.insert(key.into(), Arc::clone(&shared));
        shared
    }

    fn push_record(&mut self, position: Position, record: RecordRef<'_>, arrival_ns: i64) {
        let mut size_bytes = RECORD_OVERHEAD_BYTES;
        let fields = record
            .fields()
            .map(|field| {
                let value = field.value.to_value();
                size_bytes += FIELD_OVERHEAD_BYTES + text_bytes(&value);
                (self.key(field.key), value)
            })
            .collect();
        let stored = Stored {
            record: Arc::new(Record {
                key: RecordKey {
                    timestamp_ns: record.timestamp_ns,
                    position,
                },
                timestamp_digits: record.timestamp_digits,
                flags: record.flags,
                fields,
            }),
            arrival_ns,
            size_bytes,
        };
        self.size_bytes += size_bytes;
        self.span_ns = span_with(self.span_ns, record.timestamp_ns);
        match self.parts.last_mut() {
            Some(part) if part.len() < PART_RECORDS => Arc::make_mut(part).push(stored),
            _ => self.parts.push(Arc::new(vec![stored])),
        }
    }

    fn push_letter(&mut self, position: Position, letter: DeadLetterRef<'_>, arrival_ns: i64) {
        let letter = DeadLetter {
            position,
            arrival_ns,
            code: letter.code.to_owned(),
            reason: letter.reason.to_owned(),
            source: letter.source.map(str::to_owned),
            raw: letter.raw.to_vec(),
        };
        let size_bytes = RECORD_OVERHEAD_BYTES
            + letter.code.len()
            + letter.reason.len()
            + letter.source.as_ref().map_or(0, String::len)
            + letter.raw.len();
        self.size_bytes += size_bytes;
        let at = self
            .letters
            .partition_point(|stored| stored.letter.position < position);
        self.letters.insert(at, StoredLetter { letter, size_bytes });
    }
}

fn span_with(span_ns: Option<(i64, i64)>, ns: i64) -> Option<(i64, i64)> {
    let (oldest, newest) = span_ns.unwrap_or((ns, ns));
    Some((oldest.min(ns), newest.max(ns)))
}

fn text_bytes(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) => 0,
        Value::Number(text) | Value::Str(text) | Value::Json(text) => text.len(),
    }
}

/// More than the entries of `batch` cost once they are stored.
fn size_estimate(batch: &QueuedBatch) -> usize {
    let mut size_bytes = batch.batch.as_bytes().len();
    for entry in batch.batch.entries() {
        size_bytes += RECORD_OVERHEAD_BYTES;
        if let EntryRef::Record(record) = entry {
            size_bytes += FIELD_OVERHEAD_BYTES * record.n_fields() as usize;
        }
    }
    size_bytes
}

#[async_trait]
impl Store for MemoryStore {
    async fn write(&self, batches: Vec<QueuedBatch>) -> Result<()> {
        let _writing = self.writing.lock().await;
        let mut checkpoint = self.searchable.borrow().clone();
        let is_new =
            |batch: &&QueuedBatch| checkpoint.next_seq(batch.first.partition) < batch.next_seq();
        let new_bytes: usize = batches.iter().filter(is_new).map(size_estimate).sum();
        let held_bytes = self.state.read().size_bytes;
        if self.options.size_bytes_max < held_bytes.saturating_add(new_bytes) {
            return Err(Error::unavailable(
                "store_full",
                format!(
                    "the store in memory is full: it holds {held_bytes} of {} bytes; set a retention, raise its limit, or store on disk",
                    self.options.size_bytes_max
                ),
            ));
        }
        for batch in &batches {
            let mut state = self.state.write();
            let mut position = batch.first;
            for entry in batch.batch.entries() {
                if !checkpoint.covers(position) {
                    let arrival_ns = batch.batch.arrival_ns();
                    match entry {
                        EntryRef::Record(record) => state.push_record(position, record, arrival_ns),
                        EntryRef::DeadLetter(letter) => {
                            state.push_letter(position, letter, arrival_ns);
                        }
                    }
                }
                position.seq += 1;
            }
            checkpoint.advance(batch.first.partition, batch.next_seq());
        }
        self.bump();
        self.searchable.send_replace(checkpoint);
        Ok(())
    }

    fn searchable(&self) -> watch::Receiver<Checkpoint> {
        self.searchable.subscribe()
    }

    fn durable(&self) -> watch::Receiver<Checkpoint> {
        self.searchable.subscribe()
    }

    async fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn version(&self, _range: &TimeRange) -> u64 {
        self.version.load(std::sync::atomic::Ordering::Acquire)
    }

    async fn search(&self, request: SearchRequest, cancel: Cancel) -> Result<SearchAnswer> {
        self.ask(cancel, move |scan| answer::search(&scan, &request))
            .await
    }

    async fn histogram(&self, request: HistogramRequest, cancel: Cancel) -> Result<Histogram> {
        self.ask(cancel, move |scan| answer::histogram(&scan, &request))
            .await
    }

    async fn fields(&self, request: FieldsRequest, cancel: Cancel) -> Result<FieldsAnswer> {
        self.ask(cancel, move |scan| answer::fields(&scan, &request))
            .await
    }

    async fn stats(&self, request: StatsRequest, cancel: Cancel) -> Result<StatsAnswer> {
        self.ask(cancel, move |scan| answer::stats(&scan, &request))
            .await
    }

    async fn get(&self, key: RecordKey, cancel: Cancel) -> Result<Option<Record>> {
        self.ask(cancel, move |scan| {
            for part in &scan.parts {
                scan.cancel.check()?;
                if let Some(stored) = part.iter().find(|stored| stored.record.key == key) {
                    return Ok(Some(stored.record.as_ref().clone()));
                }
            }
            Ok(None)
        })
        .await
    }

    async fn dead_letters(&self, request: DeadLetterRequest) -> Result<DeadLetterPage> {
        let wanted = text::tokens(&request.q);
        let state = self.state.read();
        let matching = state.letters.iter().rev().filter(|stored| {
            let letter = &stored.letter;
            let raw = String::from_utf8_lossy(&letter.raw);
            let source = letter.source.as_deref().unwrap_or_default();
            wanted.iter().all(|token| {
                [&letter.code, &letter.reason, source, &raw]
                    .iter()
                    .any(|part| text::holds_phrase(part, std::slice::from_ref(token)))
            })
        });
        let mut page = DeadLetterPage::default();
        for stored in matching {
            page.total += 1;
            let is_here = request
                .before
                .is_none_or(|before| stored.letter.position < before);
            if is_here && page.letters.len() < request.limit {
                page.letters.push(stored.letter.clone());
            } else if is_here {
                page.has_more = true;
            }
        }
        Ok(page)
    }

    async fn dead_letters_by_position(&self, positions: Vec<Position>) -> Result<Vec<DeadLetter>> {
        let state = self.state.read();
        let find = |position: &Position| {
            let index = state
                .letters
                .binary_search_by_key(position, |stored| stored.letter.position);
            state.letters.get(index.ok()?)
        };
        let found = positions.iter().filter_map(find);
        Ok(found.map(|stored| stored.letter.clone()).collect())
    }

    async fn delete_dead_letters(&self, positions: Vec<Position>) -> Result<u64> {
        let mut state = self.state.write();
        let mut deleted = 0;
        let mut freed = 0;
        state.letters.retain(|stored| {
            let goes = positions.contains(&stored.letter.position);
            if goes {
                deleted += 1;
                freed += stored.size_bytes;
            }
            !goes
        });
        state.size_bytes = state.size_bytes.saturating_sub(freed);
        Ok(deleted)
    }

    async fn expire(
        &self,
        rules: RetentionRules,
        now_ns: i64,
        dry_run: bool,
    ) -> Result<RetentionReport> {
        let _writing = self.writing.lock().await;
        let (parts, size_bytes) = {
            let state = self.state.read();
            (state.parts.clone(), state.size_bytes)
        };
        let planning =
            tokio::task::spawn_blocking(move || expire::plan(&parts, size_bytes, &rules, now_ns));
        let plan = planning
            .await
            .map_err(|e| Error::internal("a clean-up in memory broke off").with_source(e))?;
        if !dry_run && plan.report.records != 0 {
            let mut state = self.state.write();
            let left = plan.parts.iter().flat_map(|part| part.iter());
            state.span_ns = left.fold(None, |span_ns, stored| {
                span_with(span_ns, stored.record.key.timestamp_ns)
            });
            state.parts = plan.parts;
            state.size_bytes = state.size_bytes.saturating_sub(plan.freed_bytes);
            drop(state);
            self.bump();
        }
        Ok(plan.report)
    }

    async fn usage(&self) -> Result<Usage> {
        let state = self.state.read();
        let records = state.parts.iter().map(|part| part.len() as u64).sum();
        Ok(Usage {
            records,
            dead_letters: state.letters.len() as u64,
            segments: 0,
            disk_bytes: 0,
            head_records: records,
            head_bytes: state.size_bytes as u64,
            oldest_ns: state.span_ns.map(|(oldest, _)| oldest),
            newest_ns: state.span_ns.map(|(_, newest)| newest),
            degraded: Vec::new(),
        })
    }

    async fn verify(&self) -> Result<VerifyReport> {
        let state = self.state.read();
        Ok(VerifyReport {
            records: state.parts.iter().map(|part| part.len() as u64).sum(),
            ..VerifyReport::default()
        })
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
