//! What went wrong with Kafka, for the one who sent the logs and for the one who runs the brokers.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

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

const LOGIN_REFUSED: &str = "kafka_login_refused";
const TLS_FAILED: &str = "kafka_tls_failed";

/// True for what another attempt with the same settings does not mend.
pub(super) fn is_refusal(error: &Error) -> bool {
    matches!(error.code, LOGIN_REFUSED | TLS_FAILED)
}

/// What keeps us out, from the weakest reason to the strongest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Barrier {
    Network,
    Tls,
    Login,
}

/// A broker that is going away looks the same, so this is no reason to give up.
fn hint(told: &str) -> &'static str {
    if told.contains("SSL_HANDSHAKE") {
        "; is it a port without TLS? Then set `queue.kafka_tls = false`"
    } else if told.contains("Disconnected") && told.contains("APIVERSION_QUERY") {
        "; is it a port that wants TLS or a login? Then set `queue.kafka_tls`, `queue.kafka_user` and `queue.kafka_password`"
    } else {
        ""
    }
}

/// Whether Kafka answers, and why it promises less than it could. Changes are logged once, here.
#[derive(Default)]
pub(super) struct Health {
    /// What connections told since Kafka answered last. Kept until then: the library does not repeat itself.
    told: Mutex<Option<(Barrier, String)>>,
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

    /// What a connection says about itself.
    pub fn note(&self, error: &KafkaError, reason: &str) {
        let barrier = match error.rdkafka_error_code() {
            // Says nothing that the connections have not said.
            None | Some(RDKafkaErrorCode::AllBrokersDown) => return,
            Some(RDKafkaErrorCode::Authentication) => Barrier::Login,
            Some(RDKafkaErrorCode::SSL) => Barrier::Tls,
            // A broker that wants a certificate of ours says so after the handshake.
            Some(_) if reason.contains("SSL alert") => Barrier::Tls,
            Some(_) => Barrier::Network,
        };
        self.note_barrier(barrier, reason);
    }

    /// A connection that failed in a way that the library logs and does not report.
    pub fn note_failed(&self, message: &str) {
        let message = message.split_once("]: ").map_or(message, |(_, rest)| rest);
        self.note_barrier(Barrier::Network, message);
    }

    fn note_barrier(&self, barrier: Barrier, reason: &str) {
        let mut told = lock(&self.told);
        if told.as_ref().is_none_or(|(known, _)| *known <= barrier) {
            *told = Some((barrier, reason.to_owned()));
        }
    }

    /// A call failed: with what the connections say is the reason, and what to do about it.
    pub fn explain(&self, error: Error) -> Error {
        match &*lock(&self.told) {
            None => error,
            Some((Barrier::Network, told)) => Error {
                message: format!("{} ({told}){}", error.message, hint(told)),
                ..error
            },
            Some((Barrier::Login, told)) => Error::unavailable(
                LOGIN_REFUSED,
                format!(
                    "Kafka refuses the login ({told}); check `queue.kafka_user`, `queue.kafka_password` and `queue.kafka_sasl_mechanism`"
                ),
            ),
            Some((Barrier::Tls, told)) => Error::unavailable(
                TLS_FAILED,
                format!(
                    "no TLS connection to Kafka can be made ({told}); `queue.kafka_tls_ca_file` must name the PEM file of the authority that signed the brokers' certificates, and brokers that ask for a certificate need `queue.kafka_tls_certificate_file` and `queue.kafka_tls_key_file`"
                ),
            ),
        }
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
        *lock(&self.told) = None;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(told: &[(RDKafkaErrorCode, &str)], code: &str, parts: &[&str]) {
        let health = Health::default();
        for (code, reason) in told {
            health.note(&KafkaError::Global(*code), reason);
        }
        let error = health.explain(Error::unavailable("kafka_failed", "cannot reach Kafka"));
        assert_eq!(error.code, code);
        for part in parts {
            assert!(error.message.contains(part), "{error}");
        }
        health.clear_fault();
        let error = health.explain(Error::unavailable("kafka_failed", "cannot reach Kafka"));
        assert_eq!(error.message, "cannot reach Kafka");
    }

    #[test]
    fn the_strongest_reason_of_the_connections_is_told_with_what_to_do() {
        use RDKafkaErrorCode::{AllBrokersDown, Authentication, BrokerTransportFailure, SSL};
        check(&[], "kafka_failed", &["cannot reach Kafka"]);
        check(&[(AllBrokersDown, "1/1")], "kafka_failed", &[]);
        check(
            &[(BrokerTransportFailure, "a"), (BrokerTransportFailure, "b")],
            "kafka_failed",
            &["cannot reach Kafka (b)"],
        );
        check(
            &[(SSL, "unknown authority"), (BrokerTransportFailure, "gone")],
            "kafka_tls_failed",
            &["unknown authority", "queue.kafka_tls_ca_file"],
        );
        check(
            &[(
                BrokerTransportFailure,
                "bad certificate: SSL alert number 42",
            )],
            "kafka_tls_failed",
            &["bad certificate", "queue.kafka_tls_certificate_file"],
        );
        check(
            &[(SSL, "x"), (Authentication, "wrong password"), (SSL, "y")],
            "kafka_login_refused",
            &["wrong password", "queue.kafka_password"],
        );
    }
}
