//! The store on this machine's disk: Parquet segments with a token index, a head in memory, a catalog.
//!
//! `schema`, `segment` and `snapshot` are the shapes that both sides share. Write side: `writer` turns batches into chunks of the head
//! (`columns`, `head`), and full heads into segments (`rows`, `segment::write`), named in the catalog in the same transaction as the
//! checkpoint (`disk`, `catalog`). Read side: everything takes a [`Snapshot`].

pub mod catalog;
pub mod columns;
pub mod disk;
pub mod expire;
pub mod head;
pub mod letters;
pub mod merge;
pub mod options;
pub mod overflow;
pub mod read;
pub mod rows;
pub mod schema;
pub mod segment;
pub mod snapshot;
pub mod spill;
pub mod store;
pub mod usage;
pub mod verify;
pub mod versions;
pub mod view;
pub mod writer;

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::Sender;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, oneshot, watch};

pub use options::EmbeddedStoreOptions;

use crate::common::error::{Error, Result};
use crate::query::TimeRange;
use crate::record::{Checkpoint, QueuedBatch};
use crate::store::embedded::disk::{Disk, FaultHook};
use crate::store::embedded::snapshot::Snapshot;
use crate::store::embedded::writer::Command;

pub struct EmbeddedStore {
    disk: Arc<Disk>,
    commands: Mutex<Option<Sender<Command>>>,
    /// As many permits as the channel has places: sending never blocks an async thread.
    places: Arc<Semaphore>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    read: store::Threads,
}

impl EmbeddedStore {
    /// Opens or creates the store in `folder`. Blocks: it reads the catalog and starts threads.
    pub fn open(folder: &Path, options: EmbeddedStoreOptions) -> Result<Self> {
        Self::open_with(folder, options, None)
    }

    /// `faults` lets a test stop the work at named points.
    pub fn open_with(
        folder: &Path,
        options: EmbeddedStoreOptions,
        faults: Option<FaultHook>,
    ) -> Result<Self> {
        let n_places = options.writes_waiting_max.max(1);
        let read = store::Threads::start(options.read.clone())?;
        let disk = Arc::new(Disk::open(folder, options, faults)?);
        let (sender, receiver) = crossbeam_channel::bounded(n_places);
        let (wake, woken) = crossbeam_channel::bounded(1);
        let mut threads = writer::start(Arc::clone(&disk), receiver, wake)?;
        threads.push(merge::start(Arc::clone(&disk), woken)?);
        Ok(Self {
            disk,
            commands: Mutex::new(Some(sender)),
            places: Arc::new(Semaphore::new(n_places)),
            threads: Mutex::new(threads),
            read,
        })
    }

    /// The folder and what commits to it, for maintenance that is not a question.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// What a question sees now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.disk.view.snapshot()
    }

    /// Hands a command to the writer thread and waits for its answer.
    async fn command(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<()>>) -> Command,
    ) -> Result<()> {
        let _place = self.places.acquire().await.map_err(|_| closed())?;
        let (reply, answer) = oneshot::channel();
        let sender = self.commands.lock().clone().ok_or_else(closed)?;
        sender.send(command(reply)).map_err(|_| closed())?;
        answer
            .await
            .unwrap_or_else(|_| Err(Error::internal("the store's writer thread has ended")))
    }

    pub async fn write(&self, batches: Vec<QueuedBatch>) -> Result<()> {
        self.command(|reply| Command::Write(batches, reply)).await
    }

    pub async fn flush(&self) -> Result<()> {
        self.command(Command::Flush).await
    }

    pub fn searchable(&self) -> watch::Receiver<Checkpoint> {
        self.disk.searchable.subscribe()
    }

    pub fn durable(&self) -> watch::Receiver<Checkpoint> {
        self.disk.durable.subscribe()
    }

    pub fn version(&self, range: &TimeRange) -> u64 {
        self.disk.versions.version(range)
    }

    pub async fn close(&self) -> Result<()> {
        if self.commands.lock().is_none() {
            return Ok(());
        }
        self.disk.turn.close();
        let result = self.command(Command::Close).await;
        self.commands.lock().take();
        let threads = std::mem::take(&mut *self.threads.lock());
        // They have answered: what is left is leaving their loops.
        for thread in threads {
            let _ = thread.join();
        }
        self.disk.catalog.close();
        result
    }
}

impl Drop for EmbeddedStore {
    /// Without `close` nothing is flushed, as after a crash: the queue has it.
    fn drop(&mut self) {
        self.disk.turn.close();
        self.commands.lock().take();
        for thread in std::mem::take(&mut *self.threads.lock()) {
            let _ = thread.join();
        }
    }
}

fn closed() -> Error {
    Error::unavailable(
        "store_closed",
        "the store is closed: the process is stopping",
    )
}

#[cfg(test)]
mod tests;
