//! The thread that owns the log: it groups what waits, writes and syncs once, and answers everybody.
//!
//! Must not know: who calls, what is in a batch.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use logyard_wal::{AppendError, BlockRef, Log};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::common::error::{Error, ErrorKind, Result};
use crate::queue::embedded::ledger::Ledger;
use crate::queue::embedded::{EmbeddedQueueOptions, Shared, position};
use crate::queue::idempotency::{Claim, now_ms};
use crate::queue::{Appended, queue_full, stopping};
use crate::record::{Batch, QueuedBatch};

/// Appends begin again when the disk is this much below the limit, so that the state does not flicker.
const RESUME_BELOW_PERCENT: f64 = 0.5;

pub(super) struct AppendCommand {
    pub batch: Batch,
    pub claim: Option<Claim>,
    pub reply: oneshot::Sender<Result<Appended>>,
    pub _slot: OwnedSemaphorePermit,
}

pub(super) enum Command {
    Append(Box<AppendCommand>),
    Release(u64, oneshot::Sender<Result<()>>),
    Close(oneshot::Sender<Result<()>>),
}

pub(super) struct Writer {
    log: Log,
    ledger: Ledger,
    shared: Arc<Shared>,
    options: EmbeddedQueueOptions,
    is_closed: bool,
    disk_checked_at: Option<Instant>,
    bytes_since_check: usize,
    is_disk_full: bool,
    /// Taken from the channel but not handled yet.
    held: Option<Command>,
}

impl Writer {
    pub fn new(
        log: Log,
        ledger: Ledger,
        shared: Arc<Shared>,
        options: EmbeddedQueueOptions,
    ) -> Self {
        Self {
            log,
            ledger,
            shared,
            options,
            is_closed: false,
            disk_checked_at: None,
            bytes_since_check: 0,
            is_disk_full: false,
            held: None,
        }
    }

    /// Until every sender is gone.
    pub fn run(mut self, commands: &Receiver<Command>) {
        loop {
            self.check_disk_if_due();
            let command = match self.held.take() {
                Some(command) => Ok(command),
                None => commands.recv_timeout(self.idle_for()),
            };
            match command {
                Ok(Command::Append(first)) => self.append(*first, commands),
                // Nobody may be waiting any more for these answers.
                Ok(Command::Release(seq, reply)) => drop(reply.send(self.release(seq))),
                Ok(Command::Close(reply)) => drop(reply.send(self.close())),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.sync_if_due();
        }
        if let Err(error) = self.close() {
            tracing::error!(%error, "closing the queue failed");
        }
        if let Err(error) = self.ledger.close() {
            tracing::error!(%error, "closing the ledger of idempotency keys failed");
        }
    }

    fn idle_for(&self) -> Duration {
        let interval = self.options.disk_check_interval;
        let check_in = self
            .disk_checked_at
            .map_or(interval, |at| interval.saturating_sub(at.elapsed()));
        let sync_in = self.log.sync_due_in().unwrap_or(interval);
        check_in.min(sync_in)
    }

    /// Takes what waits, up to the size of a group; never waits for more.
    fn append(&mut self, first: AppendCommand, commands: &Receiver<Command>) {
        let mut size_bytes = first.batch.as_bytes().len();
        let mut group = vec![first];
        while size_bytes < self.options.group_size_bytes_max {
            match commands.try_recv() {
                Ok(Command::Append(next)) => {
                    let size_with = size_bytes + next.batch.as_bytes().len();
                    if self.options.group_size_bytes_max < size_with {
                        self.held = Some(Command::Append(next));
                        break;
                    }
                    size_bytes = size_with;
                    group.push(*next);
                }
                Ok(other) => {
                    self.held = Some(other);
                    break;
                }
                Err(_) => break,
            }
        }
        self.bytes_since_check += size_bytes;
        let at_ms = now_ms();
        match self.write(&group, at_ms) {
            Ok(first_seq) => self.acknowledge(group, first_seq, at_ms),
            Err(error) => {
                for command in group {
                    let answer = Error::new(error.kind, error.code, error.message.clone());
                    // The claim goes with the command: the key is free again.
                    let _ = command.reply.send(Err(answer));
                }
            }
        }
    }

    fn write(&mut self, group: &[AppendCommand], at_ms: i64) -> Result<u64> {
        if self.is_closed {
            return Err(stopping());
        }
        self.shared.check_fault()?;
        let metas: Vec<Vec<u8>> = group
            .iter()
            .map(|command| command.claim.as_ref().map(|claim| claim.record(at_ms)))
            .map(Option::unwrap_or_default)
            .collect();
        let blocks: Vec<BlockRef<'_>> = group
            .iter()
            .zip(&metas)
            .map(|(command, meta)| BlockRef {
                payload: command.batch.as_bytes(),
                meta,
                n_entries: command.batch.len(),
            })
            .collect();
        let started = Instant::now();
        let written = self.log.append_group(&blocks);
        let elapsed = started.elapsed().as_secs_f64();
        self.shared.metrics.queue.sync_seconds.observe(elapsed);
        written.map_err(|error| self.note_failure(&error))
    }

    fn acknowledge(&self, group: Vec<AppendCommand>, first_seq: u64, at_ms: i64) {
        let mut seq = first_seq;
        let mut replies = Vec::with_capacity(group.len());
        let mut published = Vec::with_capacity(group.len());
        let mut size_bytes = 0;
        let mut recent = self.shared.recent();
        for command in group {
            let count = command.batch.len();
            let first = position(seq);
            seq += u64::from(count);
            size_bytes += command.batch.as_bytes().len() as u64;
            let queued = QueuedBatch {
                first,
                batch: command.batch,
            };
            recent.push(queued.clone());
            published.push(queued);
            if let Some(claim) = command.claim {
                claim.complete(first, count, at_ms);
            }
            replies.push((command.reply, Appended::in_a_row(first, count)));
        }
        drop(recent);
        self.shared.end.send_replace(seq);
        // After the end has moved: who subscribes and then reads the end misses nothing.
        for queued in published {
            // Without subscribers there is nobody to tell.
            let _ = self.shared.subscribers.send(queued);
        }
        self.shared.metrics.queue.appended_bytes.inc_by(size_bytes);
        for (reply, appended) in replies {
            // A caller that went away has its batch stored all the same.
            let _ = reply.send(Ok(appended));
        }
    }

    /// Keys of batches that are about to go are copied to the ledger before.
    fn release(&mut self, seq: u64) -> Result<()> {
        if let Some(end_seq) = self.log.releasable(seq) {
            self.ledger.keep(&self.shared.window, end_seq);
        }
        self.log.release(seq).map_err(|error| {
            Error::internal(format!("releasing the queue failed: {error}")).with_source(error)
        })?;
        self.shared.recent().release(seq);
        self.shared.released.fetch_max(seq, Ordering::AcqRel);
        Ok(())
    }

    /// The ledger stays open: what is released after this moves its keys there.
    fn close(&mut self) -> Result<()> {
        if self.is_closed {
            return Ok(());
        }
        self.is_closed = true;
        self.log.close().map_err(|error| {
            Error::internal(format!("closing the queue failed: {error}")).with_source(error)
        })
    }

    fn sync_if_due(&mut self) {
        if self.log.sync_due_in() == Some(Duration::ZERO)
            && let Err(error) = self.log.sync()
        {
            self.note_failure(&error);
        }
    }

    /// What the caller hears; the log entry is written when the state changes.
    fn note_failure(&mut self, error: &AppendError) -> Error {
        match error {
            AppendError::Full {
                size_bytes,
                size_bytes_max,
            } => queue_full(*size_bytes, *size_bytes_max),
            AppendError::TooLarge { .. } => Error::new(
                ErrorKind::TooLarge,
                "batch_too_large",
                format!("{error}; send less at once"),
            ),
            AppendError::NoSpace { .. } => {
                self.set_disk_full(&error.to_string());
                disk_full(&error.to_string())
            }
            AppendError::Failed { .. } if self.log.is_poisoned_by_full_disk() => {
                self.set_disk_full(&error.to_string());
                disk_full(&error.to_string())
            }
            AppendError::Failed { .. } | AppendError::Poisoned { .. } => {
                let message = format!(
                    "the queue's disk failed, so nothing is accepted until the server is restarted; check the disk first: {error}"
                );
                let mut fault = self.shared.fault();
                if fault.is_none() && !self.is_closed {
                    tracing::error!(%error, "the queue refuses everything until the restart");
                    *fault = Some(("queue_failed", message.clone()));
                }
                Error::unavailable("queue_failed", message)
            }
        }
    }

    fn set_disk_full(&mut self, why: &str) {
        if !self.is_disk_full {
            tracing::error!(
                why,
                "the disk is full; the queue refuses until there is space"
            );
        }
        self.is_disk_full = true;
        *self.shared.fault() = Some(("disk_full", disk_full(why).message));
    }

    fn check_disk_if_due(&mut self) {
        let is_due = self
            .disk_checked_at
            .is_none_or(|at| self.options.disk_check_interval <= at.elapsed());
        let segment_share = self.options.log.segment_size_bytes / 4;
        if !is_due && (self.bytes_since_check as u64) < segment_share {
            return;
        }
        self.disk_checked_at = Some(Instant::now());
        self.bytes_since_check = 0;
        self.ledger.forget(&self.shared.window);
        let limit = self.options.disk_used_percent_max;
        let used = match self.log.usage() {
            Ok(usage) => usage.used_percent(),
            Err(error) => {
                tracing::warn!(%error, "the free space of the disk cannot be read");
                return;
            }
        };
        if limit <= used {
            self.set_disk_full(&format!(
                "{used:.1} % of the disk are used, {limit} % at most may be"
            ));
        } else if self.is_disk_full && used < limit - RESUME_BELOW_PERCENT {
            self.resume(used);
        }
    }

    fn resume(&mut self, used: f64) {
        if self.log.is_poisoned_by_full_disk()
            && let Err(error) = self.log.resume()
        {
            tracing::warn!(%error, "the queue cannot go on yet");
            return;
        }
        self.is_disk_full = false;
        *self.shared.fault() = None;
        tracing::info!(
            used_percent = used,
            "there is space on the disk; the queue accepts again"
        );
    }
}

fn disk_full(why: &str) -> Error {
    Error::unavailable(
        "disk_full",
        format!(
            "the disk is full, nothing was stored; free space or lower the retention, then send the same again: {why}"
        ),
    )
    .with_retry_after(5)
}
