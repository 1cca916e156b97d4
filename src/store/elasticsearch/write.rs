//! Batches → documents → bulk requests, several under way at once; then a refresh, then the checkpoint.
//!
//! A thread that may block makes the documents while others are being sent. Entries whose index or fields are missing are left out of a pass, the
//! index gets what it needs, and the next pass takes them. What Elasticsearch refuses for itself becomes a dead letter; whatever fails otherwise fails the
//! write, which is tried again as a whole: what is stored already answers 409 then.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use hashbrown::HashMap;
use tokio::sync::mpsc;

use crate::common::error::{Error, Result};
use crate::record::{
    Checkpoint, DeadLetterRef, EntryRef, Position, QueuedBatch, RecordKey, SOURCE, ValueRef,
};
use crate::store::elasticsearch::bulk::{self, Bulk, Item, Outcome};
use crate::store::elasticsearch::client::Method;
use crate::store::elasticsearch::document::{BatchKeys, Entry, Leaf, Scratch, push_document};
use crate::store::elasticsearch::names::{day_of, index_of_day};
use crate::store::elasticsearch::plan::IndexPlan;
use crate::store::elasticsearch::state::{Day, Progress};
use crate::store::elasticsearch::{Inner, letters};
use crate::wire::native::encode::push_queued_record;

/// Plans of indices kept between writes.
const PLANS_MAX: usize = 64;
/// Passes over entries that wait for an index or for fields.
const PASSES_MAX: usize = 12;
/// Indices in the path of one request.
const INDICES_MAX: usize = 50;
/// The code of dead letters that are made here.
const CODE: &str = "indexing_failed";

/// What the writer keeps between writes.
#[derive(Default)]
pub struct Work {
    plans: HashMap<Day, IndexPlan>,
    scratch: Scratch,
    spare: Vec<Vec<u8>>,
}

/// Which entries a pass is about.
#[derive(Clone)]
enum Todo {
    /// All that the checkpoint does not cover.
    New(Checkpoint),
    /// These, ascending: (batch, entry).
    These(Vec<(u32, u32)>),
}

/// What a pass could not do yet.
#[derive(Default)]
struct Left {
    entries: Vec<(u32, u32)>,
    days: BTreeSet<Day>,
}

/// One call of `write`.
struct Writing<'a> {
    inner: &'a std::sync::Arc<Inner>,
    batches: std::sync::Arc<Vec<QueuedBatch>>,
    deadline: Instant,
    marks: BTreeMap<u32, Progress>,
    has_letters: bool,
}

/// Returns when all entries of the batches can be found.
pub async fn write(inner: &std::sync::Arc<Inner>, batches: Vec<QueuedBatch>) -> Result<()> {
    let mut place = inner.work.lock().await;
    let partitions: BTreeSet<u32> = batches
        .iter()
        .map(|queued| queued.first.partition)
        .collect();
    if partitions.is_empty() {
        return Ok(());
    }
    let partitions: Vec<u32> = partitions.into_iter().collect();
    let covered = inner.state.progress_now(inner, &partitions).await?;
    let mut writing = Writing {
        inner,
        marks: marks(&batches, &covered),
        has_letters: false,
        batches: std::sync::Arc::new(batches),
        deadline: Instant::now() + inner.options.write_limit,
    };
    if writing.marks.is_empty() {
        return Ok(());
    }
    // Should this call be dropped in its middle, the next one starts with nothing.
    let work = place.take().unwrap_or_default();
    let (work, written) = writing.run(work, covered).await;
    *place = work;
    written
}

/// For each partition and day the highest position that is new.
fn marks(batches: &[QueuedBatch], covered: &Checkpoint) -> BTreeMap<u32, Progress> {
    let mut marks: BTreeMap<u32, Progress> = BTreeMap::new();
    for queued in batches {
        let partition = queued.first.partition;
        if queued.next_seq() <= covered.next_seq(partition) {
            continue;
        }
        let progress = marks.entry(partition).or_default();
        progress.next = progress.next.max(queued.next_seq());
        for (seq, entry) in (queued.first.seq..).zip(queued.batch.entries()) {
            if let EntryRef::Record(record) = entry
                && covered.next_seq(partition) <= seq
            {
                let mark = progress
                    .days
                    .entry(day_of(record.timestamp_ns))
                    .or_insert(seq);
                *mark = seq.max(*mark);
            }
        }
    }
    marks
}

impl Writing<'_> {
    /// Gives the work back, unless a thread took it along.
    async fn run(&mut self, mut work: Work, covered: Checkpoint) -> (Option<Work>, Result<()>) {
        if PLANS_MAX < work.plans.len() {
            work.plans.clear();
        }
        for plan in work.plans.values_mut() {
            plan.trim();
        }
        let mut todo = Todo::New(covered);
        for _ in 0..PASSES_MAX {
            let (returned, left) = match self.pass(work, todo).await {
                Ok(done) => done,
                Err((returned, error)) => return (returned, Err(error)),
            };
            work = returned;
            if left.entries.is_empty() {
                let finished = self.finish().await;
                return (Some(work), finished);
            }
            if let Err(error) = self.provide(&mut work, &left).await {
                // The next try looks at the indices anew.
                work.plans.clear();
                return (Some(work), Err(error));
            }
            todo = Todo::These(left.entries);
        }
        let error = Error::unavailable(
            "elasticsearch_unsettled",
            "the indices change as fast as they are made ready: does something else drop or map them?",
        );
        // What the plans say is wrong, so it is forgotten.
        (None, Err(error))
    }

    /// Makes and sends the documents of `todo`.
    async fn pass(
        &mut self,
        work: Work,
        todo: Todo,
    ) -> Result<(Work, Left), (Option<Work>, Error)> {
        let (sender, mut receiver) = mpsc::channel::<Bulk>(1);
        let making = tokio::task::spawn_blocking({
            let batches = std::sync::Arc::clone(&self.batches);
            let inner = std::sync::Arc::clone(self.inner);
            move || make(&inner, work, &batches, &todo, &sender)
        });
        let mut sending = FuturesUnordered::new();
        let mut outcomes = Vec::new();
        let mut failed = None;
        let mut is_open = true;
        let in_flight_max = self.inner.options.bulks_in_flight_max.max(1);
        while is_open || !sending.is_empty() {
            tokio::select! {
                made = receiver.recv(), if is_open && sending.len() < in_flight_max => match made {
                    Some(bulk) => sending.push(bulk::send(self.inner, bulk, self.deadline)),
                    None => is_open = false,
                },
                Some(sent) = sending.next() => match sent {
                    Ok(outcome) => outcomes.push(outcome),
                    Err(error) => {
                        // The thread stops when it finds nobody to give its documents to.
                        receiver.close();
                        is_open = false;
                        failed.get_or_insert(error);
                    }
                },
            }
        }
        drop(receiver);
        let (mut work, mut left, has_letters) = making.await.map_err(|e| {
            (
                None,
                Error::internal("making documents broke off").with_source(e),
            )
        })?;
        if let Some(error) = failed {
            return Err((Some(work), error));
        }
        self.has_letters |= has_letters;
        match self.settle(&mut work, outcomes, &mut left).await {
            Ok(()) => Ok((work, left)),
            Err(error) => Err((Some(work), error)),
        }
    }

    /// Buries what was refused, and notes what is to be made again.
    async fn settle(
        &mut self,
        work: &mut Work,
        outcomes: Vec<Outcome>,
        left: &mut Left,
    ) -> Result<()> {
        let mut refused = Vec::new();
        for mut outcome in outcomes {
            if work.spare.len() <= self.inner.options.bulks_in_flight_max + 1 {
                work.spare.push(std::mem::take(&mut outcome.spare));
            }
            refused.append(&mut outcome.refused);
            for item in outcome.homeless {
                match self.entry(item) {
                    Some((_, EntryRef::Record(record))) => {
                        let day = day_of(record.timestamp_ns);
                        work.plans.remove(&day);
                        left.days.insert(day);
                    }
                    _ => letters::create_index(self.inner).await?,
                }
                left.entries.push((item.batch, item.entry));
            }
        }
        left.entries.sort_unstable();
        self.bury(&refused).await
    }

    fn entry(&self, item: Item) -> Option<(&QueuedBatch, EntryRef<'_>)> {
        let queued = self.batches.get(item.batch as usize)?;
        let entry = queued.batch.entries().nth(item.entry as usize)?;
        Some((queued, entry))
    }

    /// Entries that Elasticsearch refused become dead letters, whole.
    async fn bury(&mut self, refused: &[(Item, String)]) -> Result<()> {
        if refused.is_empty() {
            return Ok(());
        }
        self.inner.letters.prepare(self.inner).await?;
        let mut bulk = Bulk::default();
        for (item, reason) in refused {
            let Some((queued, EntryRef::Record(record))) = self.entry(*item) else {
                return Err(Error::unavailable(
                    "elasticsearch_refused",
                    format!("Elasticsearch refused a dead letter: {reason}"),
                ));
            };
            let position = Position {
                seq: queued.first.seq + u64::from(item.entry),
                ..queued.first
            };
            let mut raw = Vec::new();
            push_queued_record(&mut raw, record);
            let source = match record.field(SOURCE) {
                Some(ValueRef::Str(source)) => Some(source),
                _ => None,
            };
            let letter = DeadLetterRef {
                code: CODE,
                reason,
                source,
                raw: &raw,
            };
            tracing::error!(
                position = position.to_text(),
                reason,
                "Elasticsearch refused a record; it is a dead letter now"
            );
            letters::push_letter(
                &mut bulk.body,
                self.inner,
                position,
                letter,
                queued.batch.arrival_ns(),
            );
            bulk.items.push(Item {
                end: bulk.body.len(),
                ..*item
            });
        }
        self.has_letters = true;
        let outcome = bulk::send(self.inner, bulk, self.deadline).await?;
        match outcome.refused.first() {
            None if outcome.homeless.is_empty() => Ok(()),
            reason => Err(Error::unavailable(
                "elasticsearch_refused",
                format!("Elasticsearch refused a dead letter: {reason:?}"),
            )),
        }
    }

    /// Opens indices and adds fields.
    async fn provide(&self, work: &mut Work, left: &Left) -> Result<()> {
        for day in &left.days {
            if !work.plans.contains_key(day) {
                let index = index_of_day(&self.inner.options.index_prefix, *day);
                let plan = self.inner.mappings.open(self.inner, &index).await?;
                work.plans.insert(*day, plan);
            }
        }
        let mut gone = Vec::new();
        for (day, plan) in &mut work.plans {
            if plan.wanted.is_empty() {
                continue;
            }
            match self.inner.mappings.add_wanted(self.inner, plan).await {
                Err(error) if error.code == "elasticsearch_index_gone" => gone.push(*day),
                added => added?,
            }
        }
        for day in gone {
            work.plans.remove(&day);
        }
        Ok(())
    }

    /// Makes all of it searchable and says so.
    async fn finish(&self) -> Result<()> {
        let prefix = &self.inner.options.index_prefix;
        let days: BTreeSet<Day> = self
            .marks
            .values()
            .flat_map(|progress| progress.days.keys().copied())
            .collect();
        let mut indices: Vec<String> = days
            .into_iter()
            .map(|day| index_of_day(prefix, day))
            .collect();
        if self.has_letters {
            indices.push(self.inner.options.letters_index());
        }
        refresh(self.inner, &indices).await?;
        if self.has_letters
            && let Err(error) = letters::trim(self.inner).await
        {
            tracing::warn!(%error, "could not look after the size of the dead letters");
        }
        self.inner.state.commit(self.inner, &self.marks).await
    }
}

/// Makes what was written into these indices searchable. Ones that are gone have nothing to show.
pub async fn refresh(inner: &Inner, indices: &[String]) -> Result<()> {
    for chunk in indices.chunks(INDICES_MAX) {
        let path = format!(
            "/{}/_refresh?ignore_unavailable=true&allow_no_indices=true",
            chunk.join(",")
        );
        let answer = inner.client.admin(Method::POST, &path, None).await?;
        let answer = answer.expect("refresh the indices")?;
        let failed = answer
            .pointer("/_shards/failed")
            .and_then(serde_json::Value::as_u64);
        if failed != Some(0) {
            return Err(Error::unavailable(
                "elasticsearch_unavailable",
                format!(
                    "Elasticsearch could not refresh {}: {answer}",
                    chunk.join(", ")
                ),
            ));
        }
    }
    Ok(())
}

/// Runs on a thread that may block. Gives bulks away until the receiver is closed.
fn make(
    inner: &Inner,
    mut work: Work,
    batches: &[QueuedBatch],
    todo: &Todo,
    sender: &mpsc::Sender<Bulk>,
) -> (Work, Left, bool) {
    let first = Bulk {
        body: work.spare.pop().unwrap_or_default(),
        items: Vec::new(),
    };
    let mut maker = Maker {
        inner,
        work,
        bulk: first,
        left: Left::default(),
        has_letters: false,
        sender,
    };
    let mut listed = match todo {
        Todo::New(_) => [].iter(),
        Todo::These(entries) => entries.iter(),
    }
    .peekable();
    for (batch, queued) in (0..).zip(batches) {
        let mut making = BatchMaking::default();
        for (entry, found) in (0..).zip(queued.batch.entries()) {
            let position = Position {
                seq: queued.first.seq + u64::from(entry),
                ..queued.first
            };
            let is_due = match todo {
                Todo::New(covered) => !covered.covers(position),
                Todo::These(_) => listed.next_if(|next| **next == (batch, entry)).is_some(),
            };
            if !is_due {
                continue;
            }
            let arrival_ns = queued.batch.arrival_ns();
            if !maker.push(&mut making, found, position, arrival_ns) {
                maker.left.entries.push((batch, entry));
            } else if !maker.pushed(batch, entry) {
                return maker.end();
            }
        }
    }
    if !maker.bulk.items.is_empty() {
        // If nobody takes it, the write has failed already.
        let _ = maker.sender.blocking_send(std::mem::take(&mut maker.bulk));
    }
    maker.end()
}

/// What is kept for the records of one batch.
#[derive(Default)]
struct BatchMaking<'a> {
    keys: HashMap<Day, BatchKeys>,
    leaves: Vec<Leaf<'a>>,
}

struct Maker<'m> {
    inner: &'m Inner,
    work: Work,
    bulk: Bulk,
    left: Left,
    has_letters: bool,
    sender: &'m mpsc::Sender<Bulk>,
}

impl Maker<'_> {
    /// Appends the entry's document; `false` if its index or fields are missing yet.
    fn push<'a>(
        &mut self,
        making: &mut BatchMaking<'a>,
        entry: EntryRef<'a>,
        position: Position,
        arrival_ns: i64,
    ) -> bool {
        let record = match entry {
            EntryRef::Record(record) => record,
            EntryRef::DeadLetter(letter) => {
                self.has_letters = true;
                letters::push_letter(
                    &mut self.bulk.body,
                    self.inner,
                    position,
                    letter,
                    arrival_ns,
                );
                return true;
            }
        };
        let day = day_of(record.timestamp_ns);
        let Some(plan) = self.work.plans.get_mut(&day) else {
            self.left.days.insert(day);
            return false;
        };
        let of = Entry {
            record,
            key: RecordKey {
                timestamp_ns: record.timestamp_ns,
                position,
            },
            arrival_ns,
            has_at_timestamp: plan.has_at_timestamp(),
        };
        push_document(
            &mut self.bulk.body,
            plan,
            making.keys.entry(day).or_default(),
            &mut self.work.scratch,
            &mut making.leaves,
            &of,
        )
    }

    /// Notes where the document ends, and gives the bulk away when it is large enough; `false` if nobody takes it.
    fn pushed(&mut self, batch: u32, entry: u32) -> bool {
        self.bulk.items.push(Item {
            batch,
            entry,
            end: self.bulk.body.len(),
        });
        if self.bulk.body.len() < self.inner.options.bulk_bytes_max {
            return true;
        }
        let next = Bulk {
            body: self.work.spare.pop().unwrap_or_default(),
            items: Vec::with_capacity(self.bulk.items.len()),
        };
        let full = std::mem::replace(&mut self.bulk, next);
        self.sender.blocking_send(full).is_ok()
    }

    fn end(self) -> (Work, Left, bool) {
        (self.work, self.left, self.has_letters)
    }
}
