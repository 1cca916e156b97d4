//! Getting one portion of batches into the store, whatever it takes.
//!
//! A failure of the store makes the portion wait and try again, without end. A failure that names the data (or a panic) halves the portion until one
//! entry is left, which becomes a dead letter in the same place. Should the store not even take that, it is the store that is at fault: the entry
//! waits and is tried again as it is.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use futures::FutureExt;

use crate::cache;
use crate::common::error::{Error, ErrorKind, Result};
use crate::indexer::Shared;
use crate::record::key::segments;
use crate::record::{
    Batch, BatchBuilder, DeadLetterRef, EntryRef, Position, QueuedBatch, RecordRef, SOURCE,
    TIMESTAMP, ValueRef,
};

/// The code of dead letters that are made here.
const CODE: &str = "indexing_failed";

pub(super) struct Portion<'a> {
    shared: &'a Shared,
    /// The next part to write is last; parts never overlap and go upwards from there.
    parts: Vec<Vec<QueuedBatch>>,
    delay: Duration,
    is_paused: bool,
}

impl<'a> Portion<'a> {
    pub fn new(shared: &'a Shared, batches: Vec<QueuedBatch>) -> Self {
        Self {
            shared,
            parts: vec![batches],
            delay: shared.options.retry_min,
            is_paused: false,
        }
    }

    /// Returns when everything is in the store, as records or dead letters.
    pub async fn write(mut self) {
        while let Some(part) = self.parts.pop() {
            match self.try_write(part.clone()).await {
                Ok(()) => {
                    self.tell_cache(&part).await;
                    self.note_success();
                }
                Err(error) if blames_data(&error) => match halve(&part) {
                    Some((first, second)) => self.parts.extend([second, first]),
                    None => self.bury(part, error).await,
                },
                Err(error) => {
                    self.parts.push(part);
                    self.pause(&error).await;
                }
            }
        }
    }

    /// A panic becomes an error that blames the data.
    async fn try_write(&self, part: Vec<QueuedBatch>) -> Result<()> {
        let started = Instant::now();
        let write = AssertUnwindSafe(self.shared.store.write(part));
        let written = write.catch_unwind().await.unwrap_or_else(|_| {
            Err(Error::invalid(
                "panic",
                "the store panicked while it took this entry",
            ))
        });
        let elapsed = started.elapsed().as_secs_f64();
        self.shared.metrics.indexer.write_seconds.observe(elapsed);
        written
    }

    /// Answers about the days written, kept by any process, are not right any more.
    async fn tell_cache(&self, part: &[QueuedBatch]) {
        if !self.shared.cache.heeds_raises() {
            return;
        }
        let mut days = BTreeSet::new();
        for entry in part.iter().flat_map(|queued| queued.batch.entries()) {
            // Dead letters are in no cached answer.
            if let EntryRef::Record(record) = entry {
                days.insert(cache::day_of(record.timestamp_ns));
            }
        }
        if !days.is_empty() {
            let days: Vec<i64> = days.into_iter().collect();
            self.shared.cache.raise(&days).await;
        }
    }

    /// The part is one entry: puts a dead letter into its place.
    async fn bury(&mut self, part: Vec<QueuedBatch>, error: Error) {
        let letters = part.iter().map(|queued| as_dead_letter(queued, &error));
        let letters: Vec<QueuedBatch> = letters.collect();
        match self.try_write(letters.clone()).await {
            Ok(()) => {
                for letter in &letters {
                    // It is stored already; who else reads the queue learns of it when that works.
                    if let Err(error) = self.shared.queue.note_poison(letter).await {
                        tracing::warn!(%error, "other readers of the queue were not told of a dead letter");
                    }
                }
                let position = part.first().map(|queued| queued.first.to_text());
                tracing::error!(?position, %error, "the store cannot take this record; it is a dead letter now");
                self.shared
                    .change_status(|status| status.dead_lettered += 1);
                self.note_success();
            }
            Err(worse) => {
                self.parts.push(part);
                self.pause(&worse).await;
            }
        }
    }

    fn note_success(&mut self) {
        self.delay = self.shared.options.retry_min;
        if self.is_paused {
            self.is_paused = false;
            self.shared.change_status(|status| status.paused = None);
            tracing::info!("the store takes batches again");
        }
    }

    async fn pause(&mut self, error: &Error) {
        if !self.is_paused {
            self.is_paused = true;
            tracing::error!(%error, "the store does not take batches; trying again until it does");
        }
        let text = error.to_string();
        self.shared
            .change_status(|status| status.paused = Some(text));
        self.shared.metrics.indexer.retries.inc();
        tokio::time::sleep(self.delay).await;
        self.delay = (self.delay * 2).min(self.shared.options.retry_max);
    }
}

/// True if the error could be about what was written rather than about the store.
fn blames_data(error: &Error) -> bool {
    match error.kind {
        ErrorKind::Invalid
        | ErrorKind::TooLarge
        | ErrorKind::UnsupportedMedia
        | ErrorKind::Conflict
        | ErrorKind::Corrupt => true,
        ErrorKind::NotFound
        | ErrorKind::Forbidden
        | ErrorKind::MethodNotAllowed
        | ErrorKind::Busy
        | ErrorKind::Unavailable
        | ErrorKind::Timeout
        | ErrorKind::Cancelled
        | ErrorKind::Internal => false,
    }
}

/// Two parts in order, or `None` if there is one entry only.
fn halve(part: &[QueuedBatch]) -> Option<(Vec<QueuedBatch>, Vec<QueuedBatch>)> {
    match part {
        [] => None,
        [queued] => {
            let count = queued.batch.len();
            if count <= 1 {
                return None;
            }
            let middle = count / 2;
            Some((
                vec![subset(queued, 0..middle)],
                vec![subset(queued, middle..count)],
            ))
        }
        several => {
            let (first, second) = several.split_at(several.len() / 2);
            Some((first.to_vec(), second.to_vec()))
        }
    }
}

/// Some of the entries, at the positions they had.
fn subset(queued: &QueuedBatch, range: Range<u32>) -> QueuedBatch {
    let mut builder = BatchBuilder::new(queued.batch.arrival_ns());
    let (start, len) = (range.start as usize, range.len());
    for entry in queued.batch.entries().skip(start).take(len) {
        match entry {
            EntryRef::Record(record) => {
                builder.begin_record();
                for field in record.fields() {
                    builder.field(field.key, field.value);
                }
                builder.end_record(record.timestamp_ns, record.timestamp_digits, record.flags);
            }
            EntryRef::DeadLetter(letter) => builder.dead_letter(letter),
        }
    }
    QueuedBatch {
        first: Position {
            seq: queued.first.seq + u64::from(range.start),
            ..queued.first
        },
        batch: builder.finish(),
    }
}

/// Every entry as a dead letter that says why, in its place.
fn as_dead_letter(queued: &QueuedBatch, error: &Error) -> QueuedBatch {
    let reason = error.to_string();
    let mut builder = BatchBuilder::new(queued.batch.arrival_ns());
    for entry in queued.batch.entries() {
        match entry {
            EntryRef::DeadLetter(letter) => builder.dead_letter(letter),
            EntryRef::Record(record) => {
                let source = match record.field(SOURCE) {
                    Some(ValueRef::Str(source)) => Some(source),
                    _ => None,
                };
                builder.dead_letter(DeadLetterRef {
                    code: CODE,
                    reason: &reason,
                    source,
                    raw: to_json(&record).as_bytes(),
                });
            }
        }
    }
    let batch: Batch = builder.finish();
    QueuedBatch {
        first: queued.first,
        batch,
    }
}

/// A JSON object while it is put together from leaves.
enum Node {
    Leaf(String),
    Object(Vec<(String, Node)>),
}

impl Node {
    fn insert(&mut self, path: &[String], leaf: String) {
        let Some((name, rest)) = path.split_first() else {
            *self = Self::Leaf(leaf);
            return;
        };
        // A name that carries a value and members (`{"a": 1, "a.b": 2}` never does) keeps the members.
        if let Self::Leaf(_) = self {
            *self = Self::Object(Vec::new());
        }
        let Self::Object(members) = self else { return };
        let known = members.iter().position(|(known, _)| known == name);
        let at = known.unwrap_or_else(|| {
            members.push((name.clone(), Self::Object(Vec::new())));
            members.len() - 1
        });
        if let Some((_, member)) = members.get_mut(at) {
            member.insert(rest, leaf);
        }
    }

    fn print(&self, out: &mut String) {
        match self {
            Self::Leaf(json) => out.push_str(json),
            Self::Object(members) => {
                out.push('{');
                for (i, (name, member)) in members.iter().enumerate() {
                    if i != 0 {
                        out.push(',');
                    }
                    out.push_str(&quoted(name));
                    out.push(':');
                    member.print(out);
                }
                out.push('}');
            }
        }
    }
}

/// The record as it could be sent again.
fn to_json(record: &RecordRef<'_>) -> String {
    let mut root = Node::Object(Vec::new());
    if let Ok(time) = jiff::Timestamp::from_nanosecond(i128::from(record.timestamp_ns)) {
        root.insert(&[TIMESTAMP.to_owned()], quoted(&time.to_string()));
    }
    for field in record.fields() {
        let mut leaf = String::new();
        match field.value {
            ValueRef::Null => leaf.push_str("null"),
            ValueRef::Bool(value) => leaf.push_str(if value { "true" } else { "false" }),
            ValueRef::Int(value) => drop(write!(leaf, "{value}")),
            ValueRef::Float(value) => drop(write!(leaf, "{value:?}")),
            ValueRef::Number(text) | ValueRef::Json(text) => leaf.push_str(text),
            ValueRef::Str(text) => leaf = quoted(text),
        }
        let path: Vec<String> = segments(field.key).into_iter().map(Into::into).collect();
        root.insert(&path, leaf);
    }
    let mut json = String::new();
    root.print(&mut json);
    json
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
