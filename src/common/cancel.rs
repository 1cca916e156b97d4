//! How long a question may run: a deadline and the caller's presence, checked between pieces of work.

use std::time::{Duration, Instant};

use tokio_util::sync::{CancellationToken, DropGuard};

use crate::common::error::{Error, ErrorKind, Result};

/// Handed to everything that answers a question. Cheap to clone; `check` costs about 30 ns.
#[derive(Clone, Debug)]
pub struct Cancel {
    token: CancellationToken,
    deadline: Instant,
    limit: Duration,
}

impl Cancel {
    /// Work may run for `limit` from now.
    pub fn after(limit: Duration) -> Self {
        Self {
            token: CancellationToken::new(),
            deadline: Instant::now() + limit,
            limit,
        }
    }

    /// Cancels when the returned guard is dropped: hold it in the future that serves the client.
    pub fn guard(&self) -> DropGuard {
        self.token.clone().drop_guard()
    }

    pub fn cancel(&self) {
        self.token.cancel();
    }

    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    pub async fn cancelled(&self) {
        self.token.cancelled().await;
    }

    /// To be called at least every 10 ms of work.
    pub fn check(&self) -> Result<()> {
        if self.token.is_cancelled() {
            return Err(Error::new(
                ErrorKind::Cancelled,
                "cancelled",
                "the caller went away",
            ));
        }
        if self.deadline <= Instant::now() {
            return Err(Error::new(
                ErrorKind::Timeout,
                "query_timeout",
                format!(
                    "the query took longer than {} ms; narrow the time range or the filter, or raise `search.timeout_ms`",
                    self.limit.as_millis()
                ),
            ));
        }
        Ok(())
    }
}
