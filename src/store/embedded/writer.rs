//! The writer thread `store-writer` owns the head; the thread `store-flush` writes full heads to disk. At most one flush is behind: when the next
//! head is full too, writes wait, and are refused if that takes too long or the disk fails. Nothing is lost then, the queue has it.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, select};
use tokio::sync::oneshot;

use crate::common::error::{Error, Result};
use crate::record::{Checkpoint, QueuedBatch};
use crate::store::embedded::columns::{Built, ChunkBuilder};
use crate::store::embedded::disk::{Disk, FlushJob};
use crate::store::embedded::head::{ChunkLimits, Head};
use crate::store::embedded::rows::day_of;
use crate::store::embedded::schema;

/// A head is full when its texts, had each row its own, are so many times as large as it may be in memory: a flush spells some of them out.
const TEXT_TO_MEMORY: usize = 4;
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(15);
/// How often waiting threads look whether they should stop.
const POLL: Duration = Duration::from_millis(50);
const DAY_NS: i64 = 86_400_000_000_000;

pub enum Command {
    Write(Vec<QueuedBatch>, oneshot::Sender<Result<()>>),
    Flush(oneshot::Sender<Result<()>>),
    /// Flushes and ends both threads.
    Close(oneshot::Sender<Result<()>>),
}

pub struct Writer {
    disk: Arc<Disk>,
    commands: Receiver<Command>,
    jobs: Option<Sender<FlushJob>>,
    done: Receiver<Result<()>>,
    head: Head,
    builder: ChunkBuilder,
    searchable: Checkpoint,
    is_flushing: bool,
    is_flush_wanted: bool,
    /// Those who wait for a checkpoint to be durable.
    waiting: Vec<(Checkpoint, oneshot::Sender<Result<()>>)>,
    stop_retries: Sender<()>,
}

/// Starts both threads. They end after `Command::Close`, or when all senders are gone. `merge_wake` hears of new segments.
pub fn start(
    disk: Arc<Disk>,
    commands: Receiver<Command>,
    merge_wake: Sender<()>,
) -> Result<Vec<JoinHandle<()>>> {
    let (job_sender, job_receiver) = bounded(1);
    let (done_sender, done_receiver) = bounded(1);
    let (stop_sender, stop_receiver) = bounded(1);
    let flush_disk = Arc::clone(&disk);
    let searchable = disk.durable.borrow().clone();
    let builder = ChunkBuilder::new(disk.options.columns);
    let writer = Writer {
        disk,
        commands,
        jobs: Some(job_sender),
        done: done_receiver,
        head: Head::default(),
        builder,
        searchable,
        is_flushing: false,
        is_flush_wanted: false,
        waiting: Vec::new(),
        stop_retries: stop_sender,
    };
    let flush = spawn("store-flush", move || {
        for job in job_receiver {
            let result = flush_until_done(&flush_disk, &job, &stop_receiver);
            // A full channel means that the merge thread is about to look anyway.
            let _ = merge_wake.try_send(());
            if done_sender.send(result).is_err() {
                break;
            }
        }
    })?;
    let write = spawn("store-writer", move || writer.run())?;
    Ok(vec![write, flush])
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map_err(|error| Error::internal("cannot start a thread").with_source(error))
}

/// Tries again, with growing pauses, until the flush is done or the store closes.
fn flush_until_done(disk: &Disk, job: &FlushJob, stop: &Receiver<()>) -> Result<()> {
    let mut pause = RETRY_FIRST;
    let mut written = None;
    loop {
        let result = match written.take() {
            Some(metas) => Ok(metas),
            None => disk.write_head(job),
        };
        let result = result.and_then(|metas| {
            let committed = disk.commit_flush(job, &metas);
            written = Some(metas);
            committed
        });
        let error = match result {
            Ok(()) => {
                if disk.fault.lock().take().is_some() {
                    tracing::info!("the store can write again");
                }
                return Ok(());
            }
            Err(error) => error,
        };
        tracing::error!(%error, retry_ms = pause.as_millis(), "the store cannot write; its records stay in memory and in the queue");
        *disk.fault.lock() = Some(error.message.clone());
        match stop.recv_timeout(pause) {
            Err(RecvTimeoutError::Timeout) => pause = RETRY_MAX.min(pause * 2),
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return Err(error),
        }
    }
}

impl Writer {
    fn run(mut self) {
        let mut is_open = true;
        while is_open {
            let timeout = self.time_to_tick();
            select! {
                recv(self.commands) -> command => match command {
                    Ok(Command::Write(batches, reply)) => self.write(&batches, reply),
                    Ok(Command::Flush(reply)) => self.flush_wanted(reply),
                    Ok(Command::Close(reply)) => {
                        self.close(reply);
                        is_open = false;
                    }
                    Err(_) => is_open = false,
                },
                recv(self.done) -> result => self.flush_done(result.unwrap_or_else(|_| Err(thread_died()))),
                default(timeout) => self.tick(),
            }
        }
        // Ends the flush thread.
        self.jobs = None;
    }

    /// Until [`Self::tick`] has something to do.
    fn time_to_tick(&self) -> Duration {
        if !self.waiting.is_empty() {
            return POLL;
        }
        let age_max = self.disk.options.head_age_max;
        match self.head.since {
            Some(since) if !self.is_flushing => age_max.saturating_sub(since.elapsed()),
            _ => Duration::from_secs(3600),
        }
    }

    /// Flushes an old head, and tells those who wait for a flush that the disk fails.
    fn tick(&mut self) {
        let age_max = self.disk.options.head_age_max;
        if self
            .head
            .since
            .is_some_and(|since| age_max <= since.elapsed())
        {
            self.begin_flush();
        }
        let fault = self.disk.fault.lock().clone();
        if let Some(fault) = fault {
            self.refuse_waiting(&fault);
        }
    }

    fn refuse_waiting(&mut self, fault: &str) {
        for (_, reply) in self.waiting.drain(..) {
            let _ = reply.send(Err(Error::unavailable("store_write_failed", fault)));
        }
    }

    fn is_full(&self) -> bool {
        let options = &self.disk.options;
        options.head_rows_max <= self.head.n_rows
            || options.head_bytes_max <= self.head.size_bytes + self.head.letters_bytes()
            || options.head_bytes_max.saturating_mul(TEXT_TO_MEMORY) <= self.head.text_bytes
    }

    fn write(&mut self, batches: &[QueuedBatch], reply: oneshot::Sender<Result<()>>) {
        let result = self.wait_for_room().and_then(|()| self.add(batches));
        // The caller may have gone; what it wrote stays.
        let _ = reply.send(result);
        if self.is_full() {
            self.begin_flush();
        }
    }

    /// Waits while the head is full and the one before is still being flushed.
    fn wait_for_room(&mut self) -> Result<()> {
        let give_up_at = Instant::now() + self.disk.options.write_wait_max;
        while self.is_full() {
            self.begin_flush();
            if !self.is_full() {
                break;
            }
            if let Some(fault) = self.disk.fault.lock().clone() {
                return Err(Error::unavailable("store_write_failed", fault));
            }
            if give_up_at <= Instant::now() {
                return Err(Error::unavailable(
                    "store_behind",
                    "the store writes to disk more slowly than records come; they wait in the queue",
                ));
            }
            if let Ok(result) = self.done.recv_timeout(POLL) {
                self.flush_done(result);
            }
        }
        Ok(())
    }

    /// Makes the entries searchable: all of them, or none if something fails.
    fn add(&mut self, batches: &[QueuedBatch]) -> Result<()> {
        let mut searchable = self.searchable.clone();
        let mut built = Built::default();
        let result = self.build(batches, &mut searchable, &mut built);
        if let Err(error) = result {
            self.builder = ChunkBuilder::new(self.disk.options.columns);
            return Err(error);
        }
        let days = days_of(&built);
        let limits = ChunkLimits {
            rows_max: self.disk.options.columns.chunk_rows_max,
            bytes_max: self.disk.options.columns.chunk_bytes_max,
            columns_max: self.disk.options.columns.columns_max,
        };
        for chunk in built.chunks {
            self.head.push(chunk, &limits);
        }
        self.head.push_letters(built.letters);
        self.searchable = searchable;
        self.disk.view.set_head(&self.head);
        self.disk.versions.bump(days);
        self.disk.searchable.send_replace(self.searchable.clone());
        Ok(())
    }

    fn build(
        &mut self,
        batches: &[QueuedBatch],
        searchable: &mut Checkpoint,
        built: &mut Built,
    ) -> Result<()> {
        for queued in batches {
            let partition = queued.first.partition;
            let next_seq = searchable.next_seq(partition);
            if next_seq < queued.next_seq() {
                self.builder.add(queued, next_seq, built)?;
                searchable.advance(partition, queued.next_seq());
            }
        }
        built.chunks.extend(self.builder.finish()?);
        Ok(())
    }

    /// Hands the head to the flush thread, unless that is busy or there is nothing new.
    fn begin_flush(&mut self) {
        let is_clean = self.head.is_empty() && *self.disk.durable.borrow() == self.searchable;
        if self.is_flushing || is_clean {
            return;
        }
        let Some(jobs) = &self.jobs else { return };
        let head = std::mem::take(&mut self.head);
        let job = FlushJob {
            chunks: head.chunks,
            letters: head.letters,
            checkpoint: self.searchable.clone(),
        };
        self.disk.view.begin_flush();
        self.is_flush_wanted = false;
        self.is_flushing = jobs.send(job).is_ok();
    }

    fn flush_wanted(&mut self, reply: oneshot::Sender<Result<()>>) {
        self.waiting.push((self.searchable.clone(), reply));
        self.is_flush_wanted = true;
        self.begin_flush();
        self.answer_waiting();
    }

    fn flush_done(&mut self, result: Result<()>) {
        self.is_flushing = false;
        if let Err(error) = result {
            // The flush thread gives up only when the store closes.
            self.refuse_waiting(&error.message);
            return;
        }
        self.answer_waiting();
        if self.is_flush_wanted || self.is_full() {
            self.begin_flush();
        }
    }

    fn answer_waiting(&mut self) {
        let durable = self.disk.durable.borrow().clone();
        for (checkpoint, reply) in std::mem::take(&mut self.waiting) {
            if durable.includes(&checkpoint) {
                let _ = reply.send(Ok(()));
            } else {
                self.waiting.push((checkpoint, reply));
            }
        }
    }

    /// Flushes what there is. With a disk that fails the rest stays in the queue, and the error says so.
    fn close(&mut self, reply: oneshot::Sender<Result<()>>) {
        let target = self.searchable.clone();
        self.begin_flush();
        while self.is_flushing {
            if self.disk.fault.lock().is_some() {
                // One more try is under way or due; it is the last.
                let _ = self.stop_retries.try_send(());
            }
            match self.done.recv_timeout(POLL) {
                Ok(result) => {
                    let has_failed = result.is_err();
                    self.flush_done(result);
                    if has_failed {
                        break;
                    }
                    self.begin_flush();
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let is_durable = self.disk.durable.borrow().includes(&target);
        let result = if is_durable {
            Ok(())
        } else {
            let fault = self.disk.fault.lock().clone().unwrap_or_default();
            Err(Error::unavailable(
                "store_write_failed",
                format!(
                    "the store closes without its newest records, which stay in the queue: {fault}"
                ),
            ))
        };
        let _ = reply.send(result);
    }
}

/// The days that the rows fall on.
fn days_of(built: &Built) -> std::collections::BTreeSet<i32> {
    let mut days = std::collections::BTreeSet::new();
    for chunk in &built.chunks {
        let (first, last) = (
            day_of(chunk.min_timestamp_ns),
            day_of(chunk.max_timestamp_ns),
        );
        if last - first <= 1 {
            days.extend([first, last]);
            continue;
        }
        let timestamps = schema::timestamps(&chunk.system);
        let mut seen = i64::MIN;
        for timestamp_ns in timestamps.unwrap_or_default() {
            // Neighbours mostly share the day.
            let day = timestamp_ns.div_euclid(DAY_NS);
            if day != seen {
                seen = day;
                days.insert(day_of(*timestamp_ns));
            }
        }
    }
    days
}

fn thread_died() -> Error {
    Error::internal("the store's flush thread has ended")
}
