//! Options → librdkafka's configuration, and what its clients report.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::common::error::{Error, Result};
use crate::queue::kafka::errors::Health;
use crate::queue::kafka::{Consuming, KafkaQueueOptions, KafkaSecurity};

/// What every client of ours reports to.
#[derive(Clone)]
pub(super) struct Context {
    pub health: Arc<Health>,
}

impl ClientContext for Context {
    /// librdkafka repeats itself for every broker and attempt: the state that people act on is logged by [`Health`].
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if facility == "FAIL" {
            self.health.note_failed(message);
        }
        tracing::debug!(target: "librdkafka", ?level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // A connection that was idle for long is closed, too: the watch finds out.
        if matches!(error, KafkaError::Global(RDKafkaErrorCode::AllBrokersDown)) {
            self.health.suspect();
        }
        self.health.note(&error, reason);
        tracing::debug!(target: "librdkafka", %error, reason);
    }
}

impl ConsumerContext for Context {}

/// Takes what the library has to tell to the context: log lines and errors. For consumers that get no messages.
pub(super) fn listen_blocking(consumer: &BaseConsumer<Context>) {
    // With no time at all a call ends at the first log line.
    const LISTEN: Duration = Duration::from_millis(10);
    while consumer.poll(LISTEN).is_some() {}
}

fn base(options: &KafkaQueueOptions) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &options.brokers)
        .set("client.id", "logyard")
        // A broker that comes back is used soon; the default backs off to 10 s.
        .set("reconnect.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", "1000")
        .set("socket.keepalive.enable", "true")
        .set("allow.auto.create.topics", "false");
    let security = &options.security;
    let has_sasl = !security.user.is_empty();
    let protocol = match (has_sasl, security.tls) {
        (false, false) => "plaintext",
        (false, true) => "ssl",
        (true, false) => "sasl_plaintext",
        (true, true) => "sasl_ssl",
    };
    config.set("security.protocol", protocol);
    if has_sasl {
        config
            .set("sasl.mechanism", &security.mechanism)
            .set("sasl.username", &security.user)
            .set("sasl.password", &security.password);
    }
    for (_, name, file) in tls_files(security) {
        config.set(name, file);
    }
    config
}

/// Those that are given: (our setting, the library's, file).
fn tls_files(security: &KafkaSecurity) -> Vec<(&'static str, &'static str, &str)> {
    let mut files = vec![
        (
            "queue.kafka_tls_ca_file",
            "ssl.ca.location",
            &*security.ca_file,
        ),
        (
            "queue.kafka_tls_certificate_file",
            "ssl.certificate.location",
            &security.certificate_file,
        ),
        (
            "queue.kafka_tls_key_file",
            "ssl.key.location",
            &security.key_file,
        ),
    ];
    files.retain(|(_, _, file)| security.tls && !file.is_empty());
    files
}

/// The library would not name our settings.
pub(super) fn check_files(security: &KafkaSecurity) -> Result<()> {
    for (setting, _, file) in tls_files(security) {
        let bytes = std::fs::read(file).map_err(|e| {
            let what = format!("cannot read `{setting}` ({file}): {e}");
            Error::invalid("invalid_settings", what).with_source(e)
        })?;
        if memchr::memmem::find(&bytes, b"-----BEGIN ").is_none() {
            return Err(Error::invalid(
                "invalid_settings",
                format!("`{setting}` ({file}) is no PEM file: it has no `-----BEGIN …-----`"),
            ));
        }
    }
    Ok(())
}

pub(super) fn producer(options: &KafkaQueueOptions, message_bytes_max: usize) -> ClientConfig {
    let mut config = base(options);
    // Appends are held back by a budget of our own, which counts more than librdkafka does: its queue never fills.
    let buffer_kbytes = (options.buffer_bytes_max / 512).max(1 << 16);
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", options.linger.as_millis().to_string())
        .set(
            "message.timeout.ms",
            options.message_timeout.as_millis().to_string(),
        )
        // A request that is not answered is tried on another connection while there is time.
        .set(
            "socket.timeout.ms",
            (options.message_timeout.as_millis() / 2)
                .max(1000)
                .to_string(),
        )
        .set("compression.type", &options.compression)
        .set("queue.buffering.max.kbytes", buffer_kbytes.to_string())
        .set("queue.buffering.max.messages", "0")
        .set("message.max.bytes", message_bytes_max.to_string())
        // As Java's producers place keys, so that one source stays on one partition whoever writes it.
        .set("partitioner", "murmur2_random");
    config
}

fn fetching(options: &KafkaQueueOptions) -> ClientConfig {
    let mut config = base(options);
    config
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "earliest")
        .set("isolation.level", "read_committed")
        .set("fetch.wait.max.ms", "250")
        .set(
            "queued.max.messages.kbytes",
            (options.fetch_bytes_max / 1024).max(1024).to_string(),
        )
        .set("fetch.message.max.bytes", (4 << 20).to_string())
        .set(
            "fetch.max.bytes",
            options.fetch_bytes_max.max(1 << 20).to_string(),
        )
        .set(
            "message.max.bytes",
            options
                .fetch_bytes_max
                .clamp(1 << 20, 1_000_000_000)
                .to_string(),
        );
    config
}

/// The indexer's consumer.
pub(super) fn consumer(options: &KafkaQueueOptions) -> ClientConfig {
    let mut config = fetching(options);
    config
        .set("group.id", &options.group)
        // Never from somewhere else in silence.
        .set("auto.offset.reset", "error");
    if options.consuming == Consuming::Group {
        config
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", "10000")
            .set("heartbeat.interval.ms", "3000");
    }
    config
}

/// A consumer of the live tail or of the idempotency topic: no group.
pub(super) fn reader(options: &KafkaQueueOptions) -> ClientConfig {
    let mut config = fetching(options);
    // The library wants a name to be able to assign partitions; nothing is ever committed under it.
    config.set("group.id", format!("{}-reader", options.group));
    config
}

/// Asks about topics, ends and commits; never fetches.
pub(super) fn asker(options: &KafkaQueueOptions) -> ClientConfig {
    let mut config = base(options);
    config
        .set("group.id", &options.group)
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .set("queued.max.messages.kbytes", "1024");
    config
}

pub(super) fn admin(options: &KafkaQueueOptions) -> ClientConfig {
    base(options)
}
