//! The queue on this machine's disk: a log of blocks with group commit, one batch in each block.
//!
//! Layout of the directory: `segment-*.wal` as `logyard_wal` writes them, payload = the batch, meta = the record of its idempotency key, if it has
//! one (see [`super::idempotency`]); `ledger/` likewise, for keys whose batch was released (see [`ledger`]).
//!
//! One thread owns the log (`queue-writer`): it writes whatever waits as one group and answers after the sync. Must not know: what is in a batch.

mod ledger;
mod writer;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use crossbeam_channel::Sender;
use logyard_wal::{
    BLOCK_SIZE_BYTES_MAX, Disk, Durability, Log, LogOptions, LogReader, OpenReport, ReadError,
};
use tokio::sync::{Semaphore, broadcast, oneshot, watch};

use crate::common::error::{Error, ErrorKind, Result};
use crate::common::metrics::Metrics;
use crate::queue::embedded::ledger::Ledger;
use crate::queue::embedded::writer::{AppendCommand, Command, Writer};
use crate::queue::idempotency::{Claim, Claimed, IdempotencyOptions, Window};
use crate::queue::recent::Recent;
use crate::queue::{Appended, Backlog, Idempotency, Queue, nothing_appended, stopping};
use crate::record::{Batch, Checkpoint, Position, QueuedBatch};

#[derive(Clone, Debug)]
pub struct EmbeddedQueueOptions {
    /// Durability, segment size, size limit, and the lowest position to give out: what the store already covers, so that a queue directory that
    /// was lost never gives out positions again.
    pub log: LogOptions,
    /// Batches that wait are written and synced together up to this size. Default 1 MiB.
    pub group_size_bytes_max: usize,
    /// Appends that wait for the writer at once. Default 1024.
    pub waiting_appends_max: usize,
    /// An append that cannot even begin to wait is refused after this. Default 5 s.
    pub append_wait_max: Duration,
    /// Memory for batches that the indexer has not read yet; what does not fit is read from the disk. Default 32 MiB.
    pub recent_size_bytes_max: usize,
    /// A subscriber that is this many batches behind loses the oldest and is told so. Default 1024.
    pub subscriber_batches_max: usize,
    pub idempotency: IdempotencyOptions,
    /// Appends are refused while the disk is this full, as `df` counts. Default 90 %.
    pub disk_used_percent_max: f64,
    /// How often the fullness of the disk is looked at. Default 1 s.
    pub disk_check_interval: Duration,
}

impl Default for EmbeddedQueueOptions {
    fn default() -> Self {
        Self {
            log: LogOptions::default(),
            group_size_bytes_max: 1 << 20,
            waiting_appends_max: 1024,
            append_wait_max: Duration::from_secs(5),
            recent_size_bytes_max: 32 << 20,
            subscriber_batches_max: 1024,
            idempotency: IdempotencyOptions::default(),
            disk_used_percent_max: 90.0,
            disk_check_interval: Duration::from_secs(1),
        }
    }
}

pub struct EmbeddedQueue {
    options: EmbeddedQueueOptions,
    shared: Arc<Shared>,
    /// Taken when the queue is dropped.
    commands: Option<Sender<Command>>,
    /// One for each append that may wait, so that the channel always has room.
    slots: Arc<Semaphore>,
    writer: Option<JoinHandle<()>>,
}

/// What the writer and the callers share.
struct Shared {
    reader: LogReader,
    recent: Mutex<Recent>,
    /// After the last entry that may be read.
    end: watch::Sender<u64>,
    released: AtomicU64,
    subscribers: broadcast::Sender<QueuedBatch>,
    window: Arc<Window>,
    /// Why appends are refused: (code, message).
    fault: Mutex<Option<(&'static str, String)>>,
    metrics: Arc<Metrics>,
}

impl Shared {
    /// Each change leaves the ring whole, so a panic of another holder changes nothing.
    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fault(&self) -> MutexGuard<'_, Option<(&'static str, String)>> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_fault(&self) -> Result<()> {
        match &*self.fault() {
            None => Ok(()),
            Some((code, message)) => Err(Error::unavailable(code, message.clone())),
        }
    }
}

impl EmbeddedQueue {
    /// Opens the queue in `dir`, or begins one. Blocks until the newest segment is checked: about a second for each GiB queued.
    pub fn open_blocking(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: EmbeddedQueueOptions,
        metrics: Arc<Metrics>,
    ) -> Result<Self> {
        let window = Window::new(options.idempotency.clone());
        let mut kept: Vec<(u64, u32, Vec<u8>)> = Vec::new();
        let mut visit = |first_seq: u64, count: u32, meta: &[u8]| {
            kept.push((first_seq, count, meta.to_vec()));
            // Twice the window's size, so that dropping what it would forget anyway costs little.
            let keys_max = options.idempotency.keys_max.max(1);
            if keys_max * 2 <= kept.len() {
                kept.drain(..keys_max);
            }
        };
        let next_seq_min = options.log.next_seq_min;
        let (log, report) =
            Log::open(Arc::clone(&disk), dir, options.log, Some(&mut visit)).map_err(open_error)?;
        tell(dir, &report);
        // Before anything is appended, which the other version could not read in its turn.
        read_blocking(&log.reader(), next_seq_min, 1)?;
        let ledger = Ledger::open(disk, &dir.join("ledger"), &window)?;
        for (first_seq, count, meta) in kept {
            window.restore(&meta, position(first_seq), count, false);
        }
        let shared = Arc::new(Shared {
            reader: log.reader(),
            recent: Mutex::new(Recent::new(options.recent_size_bytes_max, report.next_seq)),
            end: watch::Sender::new(report.next_seq),
            released: AtomicU64::new(report.oldest_seq),
            subscribers: broadcast::Sender::new(options.subscriber_batches_max.max(1)),
            window,
            fault: Mutex::new(None),
            metrics,
        });
        let slots = options.waiting_appends_max.max(1);
        // Releases and the close find room beside the appends.
        let (commands, receiver) = crossbeam_channel::bounded(slots + 64);
        let writer = Writer::new(log, ledger, Arc::clone(&shared), options.clone());
        let thread = std::thread::Builder::new()
            .name("queue-writer".to_owned())
            .spawn(move || writer.run(&receiver))
            .map_err(|source| {
                Error::internal("cannot start the queue's thread").with_source(source)
            })?;
        Ok(Self {
            options,
            shared,
            commands: Some(commands),
            slots: Arc::new(Semaphore::new(slots)),
            writer: Some(thread),
        })
    }

    fn send(&self, command: Command) -> Result<()> {
        let commands = self.commands.as_ref().ok_or_else(stopping)?;
        commands.try_send(command).map_err(|error| match error {
            crossbeam_channel::TrySendError::Full(_) => Error::unavailable(
                "queue_busy",
                "the queue's writer is behind; send the same again",
            ),
            crossbeam_channel::TrySendError::Disconnected(_) => {
                Error::internal("the queue's thread has ended; restart the server")
            }
        })
    }

    async fn append_new(&self, batch: Batch, claim: Option<Claim>) -> Result<Appended> {
        let wait = Arc::clone(&self.slots).acquire_owned();
        let Ok(Ok(slot)) = tokio::time::timeout(self.options.append_wait_max, wait).await else {
            return Err(Error::unavailable(
                "queue_busy",
                format!(
                    "{} requests wait for the queue's writer already; send the same again",
                    self.options.waiting_appends_max
                ),
            ));
        };
        let (reply, answer) = oneshot::channel();
        self.send(Command::Append(Box::new(AppendCommand {
            batch,
            claim,
            reply,
            _slot: slot,
        })))?;
        answer.await.map_err(|_| {
            Error::internal("the queue's thread ended before it answered; restart the server")
        })?
    }

    fn check_size(&self, batch: &Batch) -> Result<()> {
        let limit = (BLOCK_SIZE_BYTES_MAX as u64).min(self.options.log.size_bytes_max / 2);
        let size_bytes = batch.as_bytes().len() as u64;
        if size_bytes <= limit {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::TooLarge,
            "batch_too_large",
            format!(
                "a batch of {size_bytes} bytes is larger than the limit of {limit}; send less at once, or raise `queue.size_bytes_max`"
            ),
        ))
    }

    /// From the disk: batches, and where to read on.
    async fn read_disk(&self, seq: u64, max_bytes: usize) -> Result<(Vec<QueuedBatch>, u64)> {
        let reader = self.shared.reader.clone();
        let read = tokio::task::spawn_blocking(move || read_blocking(&reader, seq, max_bytes));
        read.await
            .map_err(|error| Error::internal("reading the queue failed").with_source(error))?
    }
}

#[async_trait]
impl Queue for EmbeddedQueue {
    async fn append(&self, batch: Batch, idempotency: Option<Idempotency>) -> Result<Appended> {
        if batch.is_empty() {
            return Ok(nothing_appended(position(*self.shared.end.borrow())));
        }
        let started = Instant::now();
        let claim = match idempotency {
            None => None,
            Some(idempotency) => match self.shared.window.claim(idempotency).await? {
                Claimed::Replayed(appended) => return Ok(appended),
                Claimed::New(claim) => Some(claim),
            },
        };
        self.shared.check_fault()?;
        self.check_size(&batch)?;
        let appended = self.append_new(batch, claim).await?;
        let elapsed = started.elapsed().as_secs_f64();
        self.shared.metrics.queue.append_seconds.observe(elapsed);
        Ok(appended)
    }

    async fn read(
        &self,
        from: &Checkpoint,
        max_bytes: usize,
        wait: Duration,
    ) -> Result<Vec<QueuedBatch>> {
        let mut seq = from.next_seq(0);
        let deadline = tokio::time::Instant::now() + wait;
        let mut end = self.shared.end.subscribe();
        loop {
            let news = tokio::time::timeout_at(deadline, end.wait_for(|end| seq < *end));
            if !matches!(news.await, Ok(Ok(_))) {
                return Ok(Vec::new());
            }
            let recent = {
                // Who reads from here has the rest; a second reader finds it on the disk.
                let mut recent = self.shared.recent();
                recent.release(seq);
                recent.read(seq, max_bytes)
            };
            let batches = match recent {
                Some(batches) => batches,
                None => {
                    let (batches, next_seq) = self.read_disk(seq, max_bytes).await?;
                    // Everything up to there is lost to damage: wait for what comes after.
                    seq = next_seq.max(seq);
                    batches
                }
            };
            if !batches.is_empty() {
                return Ok(batches);
            }
        }
    }

    async fn release(&self, up_to: &Checkpoint) -> Result<()> {
        let seq = up_to.next_seq(0).min(*self.shared.end.borrow());
        if seq <= self.shared.released.load(Ordering::Acquire) {
            return Ok(());
        }
        let (reply, answer) = oneshot::channel();
        self.send(Command::Release(seq, reply))?;
        answer
            .await
            .map_err(|_| Error::internal("the queue's thread has ended; restart the server"))?
    }

    fn subscribe(&self) -> broadcast::Receiver<QueuedBatch> {
        self.shared.subscribers.subscribe()
    }

    fn backlog(&self) -> Backlog {
        let fault = self.shared.fault().as_ref().map(|(_, text)| text.clone());
        let mut backlog = Backlog {
            size_bytes: self.shared.reader.size_bytes(),
            size_bytes_max: self.options.log.size_bytes_max,
            durability: match self.options.log.durability {
                Durability::Fsync => "fsync",
                Durability::Interval(_) => "interval",
                Durability::Os => "os",
            },
            fault,
            ..Backlog::default()
        };
        backlog.end.advance(0, *self.shared.end.borrow());
        let released = self.shared.released.load(Ordering::Acquire);
        backlog.released.advance(0, released);
        backlog
    }

    async fn close(&self) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Close(reply))?;
        answer
            .await
            .map_err(|_| Error::internal("the queue's thread has ended; restart the server"))?
    }
}

impl Drop for EmbeddedQueue {
    /// The directory is free for another queue when this returns.
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.writer.take()
            && thread.join().is_err()
        {
            tracing::error!("the queue's thread had panicked");
        }
    }
}

fn read_blocking(
    reader: &LogReader,
    from_seq: u64,
    max_bytes: usize,
) -> Result<(Vec<QueuedBatch>, u64)> {
    let outcome = reader.read(from_seq, max_bytes).map_err(read_error)?;
    for damage in &outcome.new_damage {
        tracing::error!(%damage, "the queue is damaged");
    }
    let mut batches = Vec::with_capacity(outcome.blocks.len());
    for block in outcome.blocks {
        let (first_seq, count) = (block.first_seq, block.n_entries);
        if Batch::is_of_another_version(&block.payload) {
            if batches.is_empty() {
                return Err(other_version(first_seq));
            }
            return Ok((batches, first_seq));
        }
        match Batch::from_bytes(Bytes::from(block.payload)) {
            Ok(batch) if batch.len() == count => batches.push(QueuedBatch {
                first: position(first_seq),
                batch,
            }),
            Ok(batch) => tracing::error!(
                first_seq,
                count,
                found = batch.len(),
                "a batch in the queue has another number of entries than its block; left out"
            ),
            Err(error) => {
                tracing::error!(first_seq, count, %error, "a batch in the queue cannot be read; left out");
            }
        }
    }
    Ok((batches, outcome.next_seq))
}

fn tell(dir: &Path, report: &OpenReport) {
    tracing::info!(
        dir = %dir.display(),
        segments = report.n_segments,
        size_bytes = report.size_bytes,
        oldest_seq = report.oldest_seq,
        next_seq = report.next_seq,
        "queue opened"
    );
    if let Some(torn) = &report.torn {
        tracing::warn!(%torn, "the queue was not closed properly");
    }
    for damage in &report.damage {
        tracing::error!(%damage, "the queue is damaged");
    }
}

fn position(seq: u64) -> Position {
    Position { partition: 0, seq }
}

fn open_error(error: logyard_wal::OpenError) -> Error {
    Error::internal(format!("cannot open the queue: {error}")).with_source(error)
}

/// Whole, and readable for the version that wrote it: never to be passed over.
fn other_version(first_seq: u64) -> Error {
    Error::unavailable(
        "queue_of_another_version",
        format!(
            "what the queue holds from position 0-{first_seq} on was written by another version of Logyard and is not in the store yet: start that version once more and stop it with SIGTERM, which stores it; nothing is lost"
        ),
    )
}

fn read_error(error: ReadError) -> Error {
    Error::internal(format!("cannot read the queue: {error}")).with_source(error)
}
