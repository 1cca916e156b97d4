//! WRITE 3: from the queue into the store.
//!
//! One task reads what is queued from the store's searchable checkpoint on, hands it over in bounded portions, and releases from the queue what the
//! store has made durable. Nothing is ever dropped: a store that fails makes the task wait and try again; an entry that the store cannot take is
//! found by halving its batch and stored as a dead letter in its place (see [`portion`]).
//!
//! A panic of the task itself ends the process with code 70: a server that takes logs but never shows them would be half dead. What was acknowledged
//! is in the queue and is indexed after the restart. Must not know: which queue, which store, which cache.

mod portion;

#[cfg(test)]
mod tests;

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::cache::Cache;
use crate::common::error::{Error, Result};
use crate::common::metrics::Metrics;
use crate::indexer::portion::Portion;
use crate::queue::Queue;
use crate::record::{Checkpoint, QueuedBatch};
use crate::store::Store;

/// The process's exit code after a panic of the indexer (`EX_SOFTWARE`).
const EXIT_CODE_PANIC: i32 = 70;

#[derive(Clone, Debug)]
pub struct IndexerOptions {
    /// Bytes handed to the store at once; one batch more if it alone is larger. Default 8 MiB.
    pub portion_size_bytes_max: usize,
    /// Portions follow each other at least this long after one another, unless much is waiting: many small batches become one write. A
    /// batch after a pause is written at once. Default 50 ms.
    pub write_interval: Duration,
    /// The first wait after a failure; it doubles each time. Default 100 ms.
    pub retry_min: Duration,
    /// The longest wait after a failure. Default 10 s.
    pub retry_max: Duration,
}

impl Default for IndexerOptions {
    fn default() -> Self {
        Self {
            portion_size_bytes_max: 8 << 20,
            write_interval: Duration::from_millis(50),
            retry_min: Duration::from_millis(100),
            retry_max: Duration::from_secs(10),
        }
    }
}

/// How the indexer does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IndexerStatus {
    /// Why it waits instead of writing, if it does.
    pub paused: Option<String>,
    /// Entries that the store could not take and that are dead letters now, since the start.
    pub dead_lettered: u64,
}

/// The handle of the task.
pub struct Indexer {
    shared: Arc<Shared>,
    stop: CancellationToken,
    /// When draining must end; set before `stop`.
    drain_until: watch::Sender<Option<Instant>>,
    task: Mutex<Option<JoinHandle<Result<()>>>>,
}

struct Shared {
    queue: Arc<dyn Queue>,
    store: Arc<dyn Store>,
    cache: Arc<dyn Cache>,
    options: IndexerOptions,
    metrics: Arc<Metrics>,
    status: Mutex<IndexerStatus>,
}

impl Shared {
    fn change_status(&self, change: impl FnOnce(&mut IndexerStatus)) {
        change(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Indexer {
    /// Starts the task on the current runtime. `cache` is told which days were written, if it heeds that.
    pub fn start(
        queue: Arc<dyn Queue>,
        store: Arc<dyn Store>,
        cache: Arc<dyn Cache>,
        options: IndexerOptions,
        metrics: Arc<Metrics>,
    ) -> Self {
        let shared = Arc::new(Shared {
            queue,
            store,
            cache,
            options,
            metrics,
            status: Mutex::default(),
        });
        let stop = CancellationToken::new();
        let drain_until = watch::Sender::new(None);
        let task = Task {
            shared: Arc::clone(&shared),
            stop: stop.clone(),
            drain_until: drain_until.subscribe(),
            is_read_failing: false,
        };
        let task = tokio::spawn(async move {
            match AssertUnwindSafe(task.run()).catch_unwind().await {
                Ok(done) => done,
                Err(_) => {
                    tracing::error!(
                        "the indexer panicked; ending the process, a restart goes on where it was"
                    );
                    std::process::exit(EXIT_CODE_PANIC)
                }
            }
        });
        Self {
            shared,
            stop,
            drain_until,
            task: Mutex::new(Some(task)),
        }
    }

    pub fn status(&self) -> IndexerStatus {
        let status = self.shared.status.lock();
        status.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Writes what is queued and makes it durable, for at most `limit`; what is left then is indexed after the next start. To be called when
    /// nothing is appended any more. Idempotent.
    pub async fn stop(&self, limit: Duration) -> Result<()> {
        self.drain_until.send_replace(Some(Instant::now() + limit));
        self.stop.cancel();
        let task = self
            .task
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        match task {
            None => Ok(()),
            Some(task) => task
                .await
                .map_err(|error| Error::internal("the indexer was cancelled").with_source(error))?,
        }
    }
}

struct Task {
    shared: Arc<Shared>,
    stop: CancellationToken,
    drain_until: watch::Receiver<Option<Instant>>,
    is_read_failing: bool,
}

/// While nothing comes in, durability of the store is looked at this often.
const IDLE_POLL: Duration = Duration::from_millis(500);

impl Task {
    async fn run(mut self) -> Result<()> {
        let mut from = self.shared.store.searchable().borrow().clone();
        let mut released = Checkpoint::default();
        let mut next_write = Instant::now();
        while !self.stop.is_cancelled() {
            self.release(&mut released).await;
            let stop = self.stop.clone();
            let batches = tokio::select! {
                () = stop.cancelled() => break,
                batches = self.read_next(&from, next_write) => batches,
            };
            if batches.is_empty() {
                continue;
            }
            let size_bytes: usize = batches.iter().map(|b| b.batch.as_bytes().len()).sum();
            let is_behind = self.shared.options.portion_size_bytes_max / 2 <= size_bytes;
            let started = Instant::now();
            self.write(batches, &mut from).await;
            next_write = match is_behind {
                true => started,
                false => started + self.shared.options.write_interval,
            };
        }
        self.drain(from, &mut released).await
    }

    async fn read_next(&mut self, from: &Checkpoint, not_before: Instant) -> Vec<QueuedBatch> {
        tokio::time::sleep_until(not_before).await;
        self.read(from, IDLE_POLL).await
    }

    /// Reads, and waits a while after a failure.
    async fn read(&mut self, from: &Checkpoint, wait: Duration) -> Vec<QueuedBatch> {
        let options = &self.shared.options;
        let read = self
            .shared
            .queue
            .read(from, options.portion_size_bytes_max, wait);
        match read.await {
            Ok(batches) => {
                if std::mem::take(&mut self.is_read_failing) {
                    self.shared.change_status(|status| status.paused = None);
                    tracing::info!("the queue can be read again");
                }
                batches
            }
            Err(error) => {
                if !std::mem::replace(&mut self.is_read_failing, true) {
                    tracing::error!(%error, "reading the queue failed; trying again until it works");
                }
                let text = error.to_string();
                self.shared
                    .change_status(|status| status.paused = Some(text));
                self.shared.metrics.indexer.retries.inc();
                tokio::time::sleep(options.retry_max.min(Duration::from_secs(1))).await;
                Vec::new()
            }
        }
    }

    /// Until all of it is in the store, or the time to drain is over.
    async fn write(&mut self, batches: Vec<QueuedBatch>, from: &mut Checkpoint) {
        let mut up_to = from.clone();
        let mut count = 0;
        for queued in &batches {
            let before = up_to.next_seq(queued.first.partition).max(queued.first.seq);
            up_to.advance(queued.first.partition, queued.next_seq());
            count += queued.next_seq().saturating_sub(before);
        }
        let portion = Portion::new(&self.shared, batches);
        let stop = self.stop.clone();
        let drain_until = self.drain_until.clone();
        let is_over = async move {
            stop.cancelled().await;
            let until = *drain_until.borrow();
            if let Some(until) = until {
                tokio::time::sleep_until(until).await;
            }
        };
        tokio::select! {
            () = is_over => {}
            () = portion.write() => {
                *from = up_to;
                self.shared.metrics.indexer.indexed_entries.inc_by(count);
            }
        }
    }

    /// Lets the queue forget what the store would not need it for.
    async fn release(&self, released: &mut Checkpoint) {
        let durable = self.shared.store.durable().borrow().clone();
        if durable == *released {
            return;
        }
        match self.shared.queue.release(&durable).await {
            Ok(()) => *released = durable,
            Err(error) => tracing::warn!(%error, "the queue cannot forget what is indexed yet"),
        }
    }

    async fn drain(&mut self, mut from: Checkpoint, released: &mut Checkpoint) -> Result<()> {
        let until = self.drain_until.borrow().unwrap_or_else(Instant::now);
        while Instant::now() < until {
            let batches = self.read(&from, Duration::ZERO).await;
            if batches.is_empty() {
                break;
            }
            self.write(batches, &mut from).await;
        }
        let backlog = self.shared.queue.backlog();
        let end = backlog.end;
        if backlog.is_shared {
            tracing::info!(
                "what is still queued is left to the other indexers, and to the next start"
            );
        } else if !from.includes(&end) {
            tracing::warn!(
                indexed = ?from.0,
                queued = ?end.0,
                "not everything was indexed in time; the rest is, after the next start"
            );
        }
        let flushed = self.shared.store.flush().await;
        self.release(released).await;
        flushed
    }
}
