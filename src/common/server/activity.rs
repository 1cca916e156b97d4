//! What a connection is doing, noted by its socket and its requests, and judged by the watchdog. Only times and counts; no I/O.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::common::server::ServerOptions;

/// Times are milliseconds since `opened`, plus one; 0 is "not so".
pub struct Activity {
    opened: Instant,
    cut: CancellationToken,
    is_http2: AtomicBool,
    in_flight: AtomicU32,
    n_requests: AtomicU32,
    /// Since when there is no request in flight.
    idle_since: AtomicU64,
    /// Since when a request's head has been coming in.
    head_since: AtomicU64,
    /// Since when the client takes no byte.
    write_blocked_since: AtomicU64,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    Fine,
    /// Let what is in flight finish, then close.
    NoMoreRequests,
    /// Close now; why.
    Cut(&'static str),
}

/// Ends when the answer has been sent or given up.
pub struct InFlight(Arc<Activity>);

/// How often the watchdog looks: often enough that no limit is overrun by more than a quarter or a second.
pub fn tick(options: &ServerOptions) -> Duration {
    let shortest = options
        .head_timeout
        .min(options.write_stall)
        .min(options.keep_alive_idle);
    (shortest / 4).clamp(Duration::from_millis(20), Duration::from_secs(1))
}

impl Activity {
    pub fn new() -> Self {
        Self {
            opened: Instant::now(),
            cut: CancellationToken::new(),
            is_http2: AtomicBool::new(false),
            in_flight: AtomicU32::new(0),
            n_requests: AtomicU32::new(0),
            idle_since: AtomicU64::new(1),
            // The first byte is due from the start.
            head_since: AtomicU64::new(1),
            write_blocked_since: AtomicU64::new(0),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1
    }

    pub fn begin_request(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Relaxed);
        self.n_requests.fetch_add(1, Relaxed);
        self.head_since.store(0, Relaxed);
        InFlight(self.clone())
    }

    pub fn note_read(&self) {
        let is_between_requests = self.in_flight.load(Relaxed) == 0;
        if is_between_requests && !self.is_http2.load(Relaxed) && self.head_since.load(Relaxed) == 0
        {
            self.head_since.store(self.now(), Relaxed);
        }
    }

    /// From here on bytes between requests are frames of the protocol, not the beginning of a head.
    pub fn note_http2(&self) {
        self.is_http2.store(true, Relaxed);
        self.head_since.store(0, Relaxed);
    }

    pub fn is_http2(&self) -> bool {
        self.is_http2.load(Relaxed)
    }

    /// How many there have been, and whether one is in flight.
    pub fn requests(&self) -> (u32, bool) {
        (
            self.n_requests.load(Relaxed),
            0 < self.in_flight.load(Relaxed),
        )
    }

    pub fn note_write(&self, is_blocked: bool) {
        if !is_blocked {
            self.write_blocked_since.store(0, Relaxed);
        } else if self.write_blocked_since.load(Relaxed) == 0 {
            self.write_blocked_since.store(self.now(), Relaxed);
        }
    }

    /// Milliseconds since when it waits for a request; `None` while one is in flight, or an answer is not out yet.
    pub fn waiting_for_ms(&self) -> Option<u64> {
        if 0 < self.in_flight.load(Relaxed) || 0 < self.write_blocked_since.load(Relaxed) {
            return None;
        }
        Some(self.now().saturating_sub(self.idle_since.load(Relaxed)))
    }

    /// Asks the connection's task to close it at once.
    pub fn cut_now(&self) {
        self.cut.cancel();
    }

    #[cfg(test)]
    pub fn is_cut(&self) -> bool {
        self.cut.is_cancelled()
    }

    pub async fn cut(&self) {
        self.cut.cancelled().await;
    }

    pub fn judge(&self, options: &ServerOptions) -> Verdict {
        let now = self.now();
        let is_over = |since: &AtomicU64, limit: Duration| {
            let since = since.load(Relaxed);
            since != 0 && limit.as_millis() < u128::from(now.saturating_sub(since))
        };
        if is_over(&self.write_blocked_since, options.write_stall) {
            return Verdict::Cut("write_stalled");
        }
        let is_idle = self.in_flight.load(Relaxed) == 0;
        if is_idle && is_over(&self.head_since, options.head_timeout) {
            return Verdict::Cut("head_timeout");
        }
        if is_idle && is_over(&self.idle_since, options.keep_alive_idle) {
            return Verdict::NoMoreRequests;
        }
        let age = self.opened.elapsed();
        // An HTTP/2 client that never opens its window could hold its streams for ever.
        if self.is_http2.load(Relaxed) && options.connection_age_max * 2 < age {
            return Verdict::Cut("too_old");
        }
        if options.connection_age_max < age {
            return Verdict::NoMoreRequests;
        }
        Verdict::Fine
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let activity = &self.0;
        if activity.in_flight.fetch_sub(1, Relaxed) == 1 {
            activity.idle_since.store(activity.now(), Relaxed);
        }
    }
}
