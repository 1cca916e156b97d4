//! What went wrong with Kafka, for the one who sent the logs and for the one who runs the brokers.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::error::KafkaError;

use crate::common::error::{Error, ErrorKind, Result};

/// Nothing of the batch was handed to Kafka.
pub(super) fn unreachable(fault: &str) -> Error {
    Error::unavailable(
        "kafka_unreachable",
        format!("{fault}; nothing was stored, send the same again"),
    )
}

/// Kafka went away before it was known what became of an earlier request with the key.
pub(super) fn unreachable_unsettled(fault: &str) -> Error {
    Error::unavailable(
        "kafka_unreachable",
        format!(
            "{fault}; whether an earlier request with this idempotency key stored its lines is not known until Kafka answers, send the same again with the same key"
        ),
    )
}

/// Somebody has the key, or had it and may have lines on their way.
pub(super) fn unsettled(claim_time: Duration) -> Error {
    Error::unavailable(
        "idempotency_in_progress",
        format!(
            "an earlier request with this idempotency key is under way still, or broke off less than {} s ago, so that its lines may arrive yet; send the same again with the same key",
            claim_time.as_secs()
        ),
    )
}

/// Kafka answers, and not in time.
pub(super) fn key_not_settled(what: &str) -> Error {
    Error::unavailable(
        "idempotency_not_ready",
        format!("{what}; nothing was added, send the same again with the same key"),
    )
}

pub(super) fn buffer_full(size_bytes_max: usize) -> Error {
    Error::unavailable(
        "queue_full",
        format!(
            "{size_bytes_max} bytes wait for Kafka's confirmation already; nothing was stored, send the same again, or raise `queue.kafka_buffer_bytes_max`"
        ),
    )
}

/// Kafka said no to all of it.
pub(super) fn refused(count: u32, why: &str) -> Error {
    Error::unavailable(
        "kafka_refused",
        format!("Kafka took none of the {count} lines: {why}; send the same again"),
    )
}

/// Kafka took some and said no to the others.
pub(super) fn partly_stored(stored: u32, count: u32, why: &str) -> Error {
    Error::unavailable(
        "partly_stored",
        format!(
            "Kafka took {stored} of the {count} lines and not the others: {why}; sending the same again stores the {stored} twice, unless it was sent with an `Idempotency-Key`"
        ),
    )
}

/// Kafka did not answer for some in time.
pub(super) fn outcome_unknown(unknown: u32, count: u32, why: &str) -> Error {
    Error::unavailable(
        "outcome_unknown",
        format!(
            "Kafka did not confirm {unknown} of the {count} lines in time ({why}); they may be stored all the same: sending the same again may store them twice, unless it was sent with an `Idempotency-Key`"
        ),
    )
}

pub(super) fn record_too_large(size_bytes: usize, size_bytes_max: usize) -> Error {
    Error::new(
        ErrorKind::TooLarge,
        "record_too_large",
        format!(
            "a record of {size_bytes} bytes is larger than the {size_bytes_max} that the Kafka topic takes; nothing was stored, raise the topic's `max.message.bytes`"
        ),
    )
}

/// A fault of a client call, with what was tried.
pub(super) fn client(what: &str, error: KafkaError) -> Error {
    Error::unavailable("kafka_failed", format!("cannot {what}: {error}")).with_source(error)
}

/// Whether Kafka answers, and why it promises less than it could. Changes are logged once, here.
#[derive(Default)]
pub(super) struct Health {
    fault: Mutex<Option<String>>,
    degraded: Mutex<Vec<String>>,
    is_suspected: AtomicBool,
}

impl Health {
    /// Something says that no broker is there: to be looked at soon, with little patience.
    pub fn suspect(&self) {
        self.is_suspected.store(true, Ordering::Release);
    }

    /// True once for each suspicion.
    pub fn take_suspicion(&self) -> bool {
        self.is_suspected.swap(false, Ordering::AcqRel)
    }

    pub fn fault(&self) -> Option<String> {
        lock(&self.fault).clone()
    }

    pub fn check(&self) -> Result<()> {
        match &*lock(&self.fault) {
            None => Ok(()),
            Some(fault) => Err(unreachable(fault)),
        }
    }

    pub fn set_fault(&self, why: String) {
        let mut fault = lock(&self.fault);
        if fault.is_none() {
            tracing::error!(%why, "Kafka does not answer; lines are refused until it does");
        }
        *fault = Some(why);
    }

    pub fn clear_fault(&self) {
        if lock(&self.fault).take().is_some() {
            tracing::info!("Kafka answers again");
        }
    }

    pub fn degraded(&self) -> Vec<String> {
        lock(&self.degraded).clone()
    }

    pub fn set_degraded(&self, reasons: Vec<String>) {
        let mut degraded = lock(&self.degraded);
        for reason in reasons.iter().filter(|reason| !degraded.contains(reason)) {
            tracing::warn!("{reason}");
        }
        *degraded = reasons;
    }
}

/// Each change leaves the value whole, so a panic of another holder changes nothing.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
