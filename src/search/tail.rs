//! The live tail: records in the order of their positions, without gap or double, first from the store, then as the queue has them.
//!
//! The seam is a position. Everything before it comes from the store, which is waited for; everything from it on comes from the queue's
//! subscription, which was taken out before the seam was read. A follower that lags behind the subscription goes back to the store and gets a new seam.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};

use crate::common::error::{Error, Result};
use crate::query::{CompiledSelection, Order, SearchRequest, Selection};
use crate::record::{Checkpoint, EntryRef, Position, QueuedBatch, Record, RecordKey, RecordRef};
use crate::search::Searcher;

/// Positions asked of the store at once.
const WINDOW_SEQS: u64 = 10_000;
/// Portions of records on their way to the client; a slower client makes the tail wait, then lag, then read from the store.
const PORTIONS_AHEAD: usize = 16;
/// A tail resumes at most so many positions back.
const RESUME_SEQS_MAX: u64 = 5_000_000;
/// Batches with more entries are filtered apart from the threads that serve HTTP.
const FILTERED_AT_ONCE_MAX: u32 = 64;
/// Records of a first backfill.
pub const BACKFILL_MAX: usize = 10_000;
/// The indexer gets so long to reach the seam.
const INDEXER_WAIT: Duration = Duration::from_secs(30);

#[derive(Clone, Debug)]
pub struct TailRequest {
    /// `positions` is not used.
    pub selection: Selection,
    /// The newest matching records to begin with; not used when resuming.
    pub backfill: usize,
    /// Go on there; partitions that it does not name begin now.
    pub resume: Option<Checkpoint>,
}

/// A record, and the id after which a tail that broke off goes on without gap or double.
#[derive(Clone, Debug, PartialEq)]
pub struct TailRecord {
    pub id: String,
    pub record: Record,
}

/// Portions of records, each sorted by position; ends after an error. Dropping it ends the tail.
pub type Tail = mpsc::Receiver<Result<Vec<TailRecord>>>;

/// Where a tail is, as the id of an event: the position seen last in each partition, joined by `.`; `3-` is a partition of which nothing was seen.
/// With one partition it is the record's position.
fn id_of(next: &Checkpoint) -> String {
    let mut id = String::new();
    for (partition, next_seq) in &next.0 {
        if !id.is_empty() {
            id.push('.');
        }
        match next_seq.checked_sub(1) {
            Some(seq) => id.push_str(
                &Position {
                    partition: *partition,
                    seq,
                }
                .to_text(),
            ),
            None => id.push_str(&format!("{partition}-")),
        }
    }
    id
}

/// The place after an id; `None` if it is not one.
pub fn place_after(id: &str) -> Option<Checkpoint> {
    let mut next = Checkpoint::default();
    for part in id.split('.') {
        let (partition, next_seq) = match part.strip_suffix('-') {
            Some(partition) => (partition.parse().ok()?, 0),
            None => {
                let Position { partition, seq } = Position::from_text(part)?;
                (partition, seq.saturating_add(1))
            }
        };
        next.advance(partition, next_seq);
    }
    Some(next)
}

impl Searcher {
    /// Begins a tail. Errors of the request come at once, later ones through the channel.
    pub async fn tail(self: &Arc<Self>, request: TailRequest) -> Result<Tail> {
        if BACKFILL_MAX < request.backfill {
            return Err(Error::invalid(
                "invalid_parameter",
                format!("`backfill` is {}; at most {BACKFILL_MAX}", request.backfill),
            )
            .with_parameter("backfill"));
        }
        let compiled = Arc::new(CompiledSelection::new(&request.selection)?);
        // First the subscription, then the seam: what arrives between the two is in both, and is taken from the store.
        let batches = self.queue.subscribe();
        let seam = self.seam();
        if let Some(resume) = &request.resume {
            let behind = |(partition, next): (&u32, &u64)| {
                let newest = seam.next_seq(*partition);
                newest.saturating_sub(*next)
            };
            let behind: u64 = resume.0.iter().map(behind).sum();
            if RESUME_SEQS_MAX < behind {
                return Err(Error::invalid(
                    "too_far_behind",
                    format!(
                        "`Last-Event-ID` {} is more than {RESUME_SEQS_MAX} records back; begin anew, and read the past with GET /logs",
                        id_of(resume)
                    ),
                ));
            }
        }
        let (sender, receiver) = mpsc::channel(PORTIONS_AHEAD);
        let follower = Follower {
            searcher: Arc::clone(self),
            selection: request.selection,
            compiled,
            next: Checkpoint::default(),
            told: Checkpoint::default(),
            sender,
        };
        tokio::spawn(follower.run(batches, seam, request.backfill, request.resume));
        Ok(receiver)
    }

    /// Where the queue ends now; what holds dead letters alone is no part of a tail.
    fn seam(&self) -> Checkpoint {
        let mut seam = self.queue.backlog().end;
        seam.0
            .retain(|partition, _| *partition < Position::LETTER_PARTITIONS);
        seam
    }
}

struct Follower {
    searcher: Arc<Searcher>,
    selection: Selection,
    compiled: Arc<CompiledSelection>,
    /// What was sent or skipped, for each partition.
    next: Checkpoint,
    /// Where the client is: everything before it was sent, or does not match.
    told: Checkpoint,
    sender: mpsc::Sender<Result<Vec<TailRecord>>>,
}

/// The client left, or was told of an error.
struct Gone;

impl Follower {
    async fn run(
        mut self,
        mut batches: broadcast::Receiver<QueuedBatch>,
        seam: Checkpoint,
        backfill: usize,
        resume: Option<Checkpoint>,
    ) {
        let begun = match resume {
            Some(resume) => {
                // Partitions other than the one resumed begin now.
                self.next = seam.clone();
                for (partition, next_seq) in &resume.0 {
                    if let Some(next) = self.next.0.get_mut(partition) {
                        // An id from another life of the queue may lie beyond its end.
                        *next = (*next).min(*next_seq);
                    }
                }
                self.told = self.next.clone();
                self.catch_up(&seam).await
            }
            None => self.begin(seam, backfill).await,
        };
        if begun.is_err() {
            return;
        }
        loop {
            let received = tokio::select! {
                received = batches.recv() => received,
                () = self.sender.closed() => return,
            };
            let went_on = match received {
                Ok(batch) => self.live(&batch).await,
                Err(RecvError::Lagged(_)) => {
                    batches = batches.resubscribe();
                    let seam = self.searcher.seam();
                    self.catch_up(&seam).await
                }
                Err(RecvError::Closed) => return,
            };
            if went_on.is_err() {
                return;
            }
        }
    }

    /// The newest `backfill` records before the seam.
    async fn begin(&mut self, seam: Checkpoint, backfill: usize) -> Result<(), Gone> {
        self.next = seam.clone();
        self.told = seam.clone();
        if backfill == 0 {
            return Ok(());
        }
        self.wait_indexed(&seam).await?;
        let mut found: Vec<Record> = Vec::new();
        let mut after = None;
        // Under load a whole page may be newer than the seam: go on until enough lies before it.
        loop {
            let request = SearchRequest {
                selection: self.selection.clone(),
                order: Order::Descending,
                limit: backfill,
                after,
                wants_total: false,
                fields: None,
            };
            let answer = self.searcher.records(request).await;
            let page = self.or_tell(answer).await?;
            after = page.records.last().map(|record| record.key);
            let before_seam = |record: &Record| seam.covers(record.key.position);
            found.extend(page.records.into_iter().filter(before_seam));
            if backfill <= found.len() || !page.has_more || after.is_none() {
                break;
            }
        }
        found.truncate(backfill);
        // Who breaks off among these goes on among them.
        for record in &found {
            let Position { partition, seq } = record.key.position;
            if let Some(told) = self.told.0.get_mut(&partition) {
                *told = seq.min(*told);
            }
        }
        self.send(found, &seam).await
    }

    /// Everything from `next` to the seam, from the store.
    async fn catch_up(&mut self, seam: &Checkpoint) -> Result<(), Gone> {
        self.wait_indexed(seam).await?;
        for (&partition, &end) in &seam.0 {
            let mut from = self.next.next_seq(partition);
            while from < end {
                let to = end.min(from.saturating_add(WINDOW_SEQS));
                let mut selection = self.selection.clone();
                let at = |seq| Position { partition, seq };
                selection.positions = Some((at(from), at(to)));
                let request = SearchRequest {
                    selection,
                    order: Order::Ascending,
                    limit: usize::try_from(to - from).unwrap_or(usize::MAX),
                    after: None,
                    wants_total: false,
                    fields: None,
                };
                let answer = self.searcher.records(request).await;
                let records = self.or_tell(answer).await?.records;
                self.send(records, &Checkpoint::up_to(partition, to))
                    .await?;
                from = to;
            }
            self.next.advance(partition, end);
        }
        Ok(())
    }

    async fn live(&mut self, queued: &QueuedBatch) -> Result<(), Gone> {
        let partition = queued.first.partition;
        let next = self.next.next_seq(partition);
        let records = if queued.batch.len() <= FILTERED_AT_ONCE_MAX {
            matching(queued, next, &self.compiled)
        } else {
            let (queued, compiled) = (queued.clone(), Arc::clone(&self.compiled));
            let filtering =
                tokio::task::spawn_blocking(move || matching(&queued, next, &compiled)).await;
            let broken = |e| Error::internal("a tail's filter broke off").with_source(e);
            self.or_tell(filtering.map_err(broken)).await?
        };
        self.next.advance(partition, queued.next_seq());
        self.send(records, &Checkpoint::up_to(partition, queued.next_seq()))
            .await
    }

    async fn wait_indexed(&self, seam: &Checkpoint) -> Result<(), Gone> {
        let mut searchable = self.searcher.store.searchable();
        let reached = tokio::select! {
            reached = tokio::time::timeout(INDEXER_WAIT, searchable.wait_for(|at| at.includes(seam))) => matches!(reached, Ok(Ok(_))),
            () = self.sender.closed() => return Err(Gone),
        };
        if reached {
            return Ok(());
        }
        let error = Error::unavailable(
            "indexer_behind",
            "the indexer is too far behind for a tail; connect again with the last id",
        );
        self.or_tell(Err(error)).await
    }

    /// `done`: with these everything before it is told.
    async fn send(&mut self, mut records: Vec<Record>, done: &Checkpoint) -> Result<(), Gone> {
        records.sort_unstable_by_key(|record| record.key.position);
        let mut portion = Vec::with_capacity(records.len());
        for record in records {
            let Position { partition, seq } = record.key.position;
            self.told.advance(partition, seq + 1);
            let id = id_of(&self.told);
            portion.push(TailRecord { id, record });
        }
        self.told.advance_all(done);
        if portion.is_empty() {
            return Ok(());
        }
        self.sender.send(Ok(portion)).await.map_err(|_| Gone)
    }

    async fn or_tell<A>(&self, answer: Result<A>) -> Result<A, Gone> {
        match answer {
            Ok(answer) => Ok(answer),
            Err(error) => {
                let _ = self.sender.send(Err(error)).await;
                Err(Gone)
            }
        }
    }
}

/// The records from position `next` on that match.
fn matching(queued: &QueuedBatch, next: u64, compiled: &CompiledSelection) -> Vec<Record> {
    let partition = queued.first.partition;
    let mut records = Vec::new();
    for (seq, entry) in (queued.first.seq..).zip(queued.batch.entries()) {
        let position = Position { partition, seq };
        if let EntryRef::Record(record) = entry
            && next <= seq
            && compiled.matches(position, &record)
        {
            records.push(owned(&record, position));
        }
    }
    records
}

fn owned(record: &RecordRef<'_>, position: Position) -> Record {
    Record {
        key: RecordKey {
            timestamp_ns: record.timestamp_ns,
            position,
        },
        timestamp_digits: record.timestamp_digits,
        flags: record.flags,
        fields: record
            .fields()
            .map(|field| (Arc::from(field.key), field.value.to_value()))
            .collect(),
    }
}

#[cfg(test)]
mod tests;
