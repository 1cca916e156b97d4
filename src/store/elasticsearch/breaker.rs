//! Circuit breaker of one host: closed (requests pass), open (refused at once), half-open (one request tries whether the host is back).

use std::time::{Duration, Instant};

use parking_lot::Mutex;

#[derive(Clone, Debug)]
pub struct BreakerOptions {
    /// Failures in a row that open it.
    pub failures_max: u32,
    /// How long it stays open at first; doubles while the host does not come back.
    pub pause_min: Duration,
    pub pause_max: Duration,
}

impl Default for BreakerOptions {
    fn default() -> Self {
        Self {
            failures_max: 5,
            pause_min: Duration::from_millis(500),
            pause_max: Duration::from_secs(5),
        }
    }
}

#[derive(Debug, Default)]
struct State {
    failures: u32,
    pause: Duration,
    /// Open until then; past it, half-open.
    open_until: Option<Instant>,
    /// A request is trying the half-open host, since then.
    probing_since: Option<Instant>,
    last_failure: String,
}

#[derive(Debug)]
pub struct Breaker {
    options: BreakerOptions,
    state: Mutex<State>,
}

/// Why a request may not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub last_failure: String,
    pub wait: Duration,
}

impl Breaker {
    pub fn new(options: BreakerOptions) -> Self {
        Self {
            options,
            state: Mutex::default(),
        }
    }

    /// Whether a request may go to the host now. Who passes tells the outcome with `succeeded` or `failed`, or that there was none with `left`.
    pub fn pass(&self, now: Instant) -> Result<(), Refusal> {
        let mut state = self.state.lock();
        let Some(open_until) = state.open_until else {
            return Ok(());
        };
        // A probe whose caller went away without a word does not keep the host shut.
        let is_probed = state
            .probing_since
            .is_some_and(|since| now.duration_since(since) < self.options.pause_max);
        if open_until <= now && !is_probed {
            state.probing_since = Some(now);
            return Ok(());
        }
        let wait = open_until.saturating_duration_since(now);
        Err(Refusal {
            last_failure: state.last_failure.clone(),
            wait: wait.max(Duration::from_millis(1)),
        })
    }

    pub fn succeeded(&self) {
        let mut state = self.state.lock();
        if state.failures != 0 || state.open_until.is_some() {
            *state = State::default();
        }
    }

    pub fn failed(&self, what: &str, now: Instant) {
        let mut state = self.state.lock();
        state.failures = state.failures.saturating_add(1);
        what.clone_into(&mut state.last_failure);
        let was_probe = state.probing_since.take().is_some();
        if state.open_until.is_none() && state.failures < self.options.failures_max {
            return;
        }
        // Requests that were under way when it opened do not make the pause longer.
        if was_probe || state.open_until.is_none() {
            state.pause = match was_probe {
                true => (state.pause * 2).min(self.options.pause_max),
                false => self.options.pause_min,
            };
            state.open_until = Some(now + state.pause);
        }
    }

    /// The caller went away before there was an outcome.
    pub fn left(&self) {
        self.state.lock().probing_since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_tries_once_and_closes_again() {
        let breaker = Breaker::new(BreakerOptions {
            failures_max: 3,
            pause_min: Duration::from_secs(1),
            pause_max: Duration::from_secs(3),
        });
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        for _ in 0..3 {
            assert!(breaker.pass(start).is_ok());
            breaker.failed("refused", start);
        }
        let refusal = breaker.pass(after(10)).unwrap_err();
        assert_eq!(refusal.last_failure, "refused");
        assert_eq!(refusal.wait, Duration::from_millis(990));
        // Half-open: one passes, the next does not.
        assert!(breaker.pass(after(1_000)).is_ok());
        assert!(breaker.pass(after(1_001)).is_err());
        breaker.failed("refused", after(1_010));
        assert!(breaker.pass(after(3_000)).is_err(), "the pause doubled");
        assert!(breaker.pass(after(3_010)).is_ok());
        breaker.left();
        assert!(
            breaker.pass(after(3_011)).is_ok(),
            "a caller that left does not count"
        );
        breaker.succeeded();
        assert!(breaker.pass(after(3_012)).is_ok());
        assert!(breaker.pass(after(3_012)).is_ok());
    }

    #[test]
    fn a_success_in_between_starts_the_count_anew() {
        let breaker = Breaker::new(BreakerOptions {
            failures_max: 2,
            ..BreakerOptions::default()
        });
        let now = Instant::now();
        for _ in 0..5 {
            breaker.failed("x", now);
            breaker.succeeded();
        }
        assert!(breaker.pass(now).is_ok());
    }
}
