//! The home of blocking work: a fixed number of named threads behind a bounded queue.
//!
//! Work that does not fit the queue, or waits in it for too long, is refused with `Busy`, so that overload shows at the edge
//! at once. A panic in a piece of work becomes an `internal_error` for its caller and the thread goes on.
//! Knows nothing of what the work is.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::common::cancel::Cancel;
use crate::common::error::{Error, ErrorKind, Result};

/// Limits of a [`BlockingPool`].
#[derive(Clone, Debug)]
pub struct BlockingPoolOptions {
    /// Threads are called `{name}-{index}`.
    pub name: &'static str,
    /// Pieces of work that run at the same time. Default: the number of cores.
    pub threads_count: usize,
    /// Pieces of work that may wait for a thread. Default: 128.
    pub queue_count_max: usize,
    /// How long a piece of work may wait for a thread. Default: 10 s.
    pub queue_wait_max: Duration,
    /// The code of the error when the pool is full.
    pub busy_code: &'static str,
}

impl Default for BlockingPoolOptions {
    fn default() -> Self {
        Self {
            name: "query",
            threads_count: std::thread::available_parallelism().map_or(2, usize::from),
            queue_count_max: 128,
            queue_wait_max: Duration::from_secs(10),
            busy_code: "too_many_queries",
        }
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// Cheap to clone; the threads end when the last clone is dropped and the work at hand is done.
#[derive(Clone)]
pub struct BlockingPool {
    jobs: crossbeam_channel::Sender<Job>,
    options: Arc<BlockingPoolOptions>,
}

const QUEUED: u8 = 0;
const RUNNING: u8 = 1;
const ABANDONED: u8 = 2;

/// Marks work as abandoned when its caller is gone before a thread took it.
struct Ticket(Arc<AtomicU8>);

impl Ticket {
    /// False if a thread has the work already.
    fn abandon(&self) -> bool {
        self.0
            .compare_exchange(QUEUED, ABANDONED, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.abandon();
    }
}

impl BlockingPool {
    pub fn start(options: BlockingPoolOptions) -> Result<Self> {
        let (jobs, queue) = crossbeam_channel::bounded::<Job>(options.queue_count_max.max(1));
        for index in 0..options.threads_count.max(1) {
            let queue = queue.clone();
            std::thread::Builder::new()
                .name(format!("{}-{index}", options.name))
                .spawn(move || {
                    while let Ok(job) = queue.recv() {
                        job();
                    }
                })
                .map_err(|error| Error::internal("start a query thread").with_source(error))?;
        }
        Ok(Self {
            jobs,
            options: Arc::new(options),
        })
    }

    pub fn threads_count(&self) -> usize {
        self.options.threads_count.max(1)
    }

    /// Runs `work` on one of the threads and waits for it. `cancel` ends the wait, not the work: hand it to the work as well.
    pub async fn run<T: Send + 'static>(
        &self,
        cancel: &Cancel,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (started_sender, started) = oneshot::channel();
        let (answer_sender, answer) = oneshot::channel();
        let ticket = Ticket(Arc::new(AtomicU8::new(QUEUED)));
        let state = Arc::clone(&ticket.0);
        let job: Job = Box::new(move || {
            let is_wanted = state
                .compare_exchange(QUEUED, RUNNING, Ordering::SeqCst, Ordering::SeqCst)
                .is_ok();
            if is_wanted {
                let _ = started_sender.send(());
                let _ = answer_sender.send(caught(work));
            }
        });
        if self.jobs.try_send(job).is_err() {
            return Err(self.busy());
        }
        let deadline = tokio::time::Instant::from_std(cancel.deadline());
        tokio::select! {
            biased;
            _ = started => {}
            () = tokio::time::sleep(self.options.queue_wait_max) => {
                if ticket.abandon() {
                    return Err(self.busy());
                }
            }
            () = cancel.cancelled() => cancel.check()?,
            () = tokio::time::sleep_until(deadline) => cancel.check()?,
        }
        answer
            .await
            .unwrap_or_else(|_| Err(Error::internal("a query thread ended early")))
    }

    /// The results of `work(0)` to `work(n - 1)`, made by this thread together with any that are idle. May be called from
    /// work on the pool itself: this thread does whatever no other takes, so nothing waits for a free thread.
    pub fn map<T: Send + 'static>(
        &self,
        n: usize,
        work: impl Fn(usize) -> Result<T> + Send + Sync + 'static,
    ) -> Result<Vec<T>> {
        if n <= 1 {
            return (0..n).map(work).collect();
        }
        let shared = Arc::new(Shared {
            work,
            n,
            next: AtomicUsize::new(0),
            done: Mutex::new(Done {
                results: (0..n).map(|_| None).collect(),
                n_unfinished: n,
            }),
            all_done: Condvar::new(),
        });
        for _ in 1..self.threads_count().min(n) {
            let shared = Arc::clone(&shared);
            if self.jobs.try_send(Box::new(move || shared.help())).is_err() {
                break;
            }
        }
        shared.help();
        let mut done = shared.done.lock();
        while 0 < done.n_unfinished {
            shared.all_done.wait(&mut done);
        }
        std::mem::take(&mut done.results)
            .into_iter()
            .map(|result| {
                result.unwrap_or_else(|| Err(Error::internal("a piece of a query was lost")))
            })
            .collect()
    }

    fn busy(&self) -> Error {
        Error::new(
            ErrorKind::Busy,
            self.options.busy_code,
            format!(
                "{} pieces of work run and up to {} wait, which is the limit; try again later",
                self.options.threads_count, self.options.queue_count_max
            ),
        )
    }
}

struct Shared<T, F> {
    work: F,
    n: usize,
    next: AtomicUsize,
    done: Mutex<Done<T>>,
    all_done: Condvar,
}

struct Done<T> {
    results: Vec<Option<Result<T>>>,
    n_unfinished: usize,
}

impl<T, F: Fn(usize) -> Result<T>> Shared<T, F> {
    /// Takes pieces until none is left.
    fn help(&self) {
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if self.n <= index {
                return;
            }
            let result = caught(|| (self.work)(index));
            let mut done = self.done.lock();
            if result.is_err() {
                // The others need not begin: the whole has failed.
                let begun = self.next.swap(self.n, Ordering::Relaxed).min(self.n);
                done.n_unfinished -= self.n - begun;
            }
            if let Some(slot) = done.results.get_mut(index) {
                *slot = Some(result);
            }
            done.n_unfinished -= 1;
            if done.n_unfinished == 0 {
                self.all_done.notify_all();
            }
        }
    }
}

fn caught<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_default();
        tracing::error!(panic = text, "work on the pool panicked");
        Err(Error::internal(
            "the query met a fault in the server, which is in its log",
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(
        threads_count: usize,
        queue_count_max: usize,
        queue_wait_max: Duration,
    ) -> BlockingPool {
        BlockingPool::start(BlockingPoolOptions {
            threads_count,
            queue_count_max,
            queue_wait_max,
            ..BlockingPoolOptions::default()
        })
        .unwrap()
    }

    fn cancel() -> Cancel {
        Cancel::after(Duration::from_secs(20))
    }

    #[tokio::test]
    async fn a_panic_is_an_error_and_the_thread_goes_on() {
        let pool = pool(1, 4, Duration::from_secs(5));
        let error = pool
            .run(&cancel(), || -> Result<()> { panic!("planted") })
            .await
            .unwrap_err();
        assert_eq!(error.code, "internal_error");
        assert_eq!(pool.run(&cancel(), || Ok(7)).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn a_full_queue_and_a_long_wait_are_busy() {
        let pool = pool(1, 1, Duration::from_millis(50));
        let (release, gate) = crossbeam_channel::bounded::<()>(1);
        let running = tokio::spawn({
            let pool = pool.clone();
            async move {
                let work = move || {
                    let _ = gate.recv();
                    Ok(())
                };
                pool.run(&cancel(), work).await
            }
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        let waiting = tokio::spawn({
            let pool = pool.clone();
            async move { pool.run(&cancel(), || Ok(())).await }
        });
        tokio::time::sleep(Duration::from_millis(10)).await;
        let error = pool.run(&cancel(), || Ok(())).await.unwrap_err();
        assert_eq!(
            (error.code, error.retry_after_s),
            ("too_many_queries", Some(1))
        );
        let error = waiting.await.unwrap().unwrap_err();
        assert_eq!(error.kind, ErrorKind::Busy);
        release.send(()).unwrap();
        running.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_cancelled_caller_does_not_wait() {
        let pool = pool(1, 2, Duration::from_secs(5));
        let (release, gate) = crossbeam_channel::bounded::<()>(1);
        let blocked = tokio::spawn({
            let pool = pool.clone();
            async move {
                let work = move || {
                    let _ = gate.recv();
                    Ok(())
                };
                pool.run(&cancel(), work).await
            }
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        let short = Cancel::after(Duration::from_millis(30));
        let error = pool.run(&short, || Ok(())).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Timeout);
        release.send(()).unwrap();
        blocked.await.unwrap().unwrap();
    }

    #[test]
    fn map_keeps_order_and_stops_at_a_failure() {
        let pool = pool(3, 8, Duration::from_secs(5));
        let squares = pool.map(50, |index| Ok(index * index)).unwrap();
        assert_eq!(squares, (0..50).map(|i| i * i).collect::<Vec<_>>());
        let result = pool.map(50, |index| match index {
            3 => Err(Error::internal("planted")),
            _ => Ok(index),
        });
        assert!(result.is_err());
        let result = pool.map(9, |index| -> Result<usize> { panic!("planted {index}") });
        assert_eq!(result.unwrap_err().code, "internal_error");
        assert_eq!(pool.map(0, Ok).unwrap(), Vec::<usize>::new());
    }
}
