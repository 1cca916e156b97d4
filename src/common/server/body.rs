//! Bodies with manners: a request's body that must keep a pace, and an answer's body that tells when it has been sent.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep};

use crate::common::server::activity::InFlight;

/// Fails with `TimedOut` if the client sends more slowly than allowed. Time in which nobody reads the body does not count.
pub struct PacedBody {
    body: Incoming,
    bytes_per_s_min: u64,
    grace: Duration,
    read_bytes: u64,
    /// Time spent waiting for the client before the present wait.
    waited: Duration,
    waiting_since: Option<Instant>,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl PacedBody {
    pub fn new(body: Incoming, bytes_per_s_min: u64, grace: Duration) -> Self {
        Self {
            body,
            bytes_per_s_min,
            grace,
            read_bytes: 0,
            waited: Duration::ZERO,
            waiting_since: None,
            alarm: None,
        }
    }

    /// How long the client may have been waited for, given what it has sent.
    fn allowance(&self) -> Duration {
        let earned_ms = self.read_bytes.saturating_mul(1000) / self.bytes_per_s_min.max(1);
        self.grace + Duration::from_millis(earned_ms)
    }

    fn poll_alarm(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let now = Instant::now();
        let since = *self.waiting_since.get_or_insert(now);
        let left = self.allowance().saturating_sub(self.waited);
        let alarm = self
            .alarm
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(since + left)));
        alarm.as_mut().poll(cx)
    }
}

impl HttpBody for PacedBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let Poll::Ready(polled) = Pin::new(&mut self.body).poll_frame(cx) else {
            ready!(self.poll_alarm(cx));
            let message = "the body came too slowly";
            return Poll::Ready(Some(Err(io::Error::new(io::ErrorKind::TimedOut, message))));
        };
        if let Some(since) = self.waiting_since.take() {
            self.waited += since.elapsed();
            self.alarm = None;
        }
        let frame = match polled {
            Some(Ok(frame)) => frame,
            Some(Err(e)) => return Poll::Ready(Some(Err(io::Error::other(e)))),
            None => return Poll::Ready(None),
        };
        self.read_bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Holds the connection's "in flight" until it is dropped.
pub struct GuardedBody {
    body: Body,
    _in_flight: InFlight,
}

impl GuardedBody {
    pub fn new(body: Body, in_flight: InFlight) -> Self {
        Self {
            body,
            _in_flight: in_flight,
        }
    }
}

impl HttpBody for GuardedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
