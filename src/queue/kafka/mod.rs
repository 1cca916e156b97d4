//! The queue in Apache Kafka: one JSON record in each message, key = source, so that any other consumer can read the topic.
//!
//! The data's path: [`encode`] → [`produce`] → Kafka → [`consume`] → [`decode`] → [`inbox`] → the indexer; [`tail`] beside it for live tails; [`keys`] for
//! idempotency keys; [`topics`] and [`watch`] look after the topics. What a message carries stands in [`message`].
//!
//! **Positions.** Partition and offset. Dead letters have a topic of their own (`<topic>.dead-letters`), whose partitions are numbered from 2^31 up.
//!
//! **What is promised.** A line is acknowledged when all in-sync replicas have it (`acks=all`, idempotent producer). Kafka does not sync to disk
//! before that: on one broker a power cut can lose acknowledged lines, and the queue says so (`Backlog::degraded`).
//!
//! Every call into the library that can wait is made on a thread of its own, never on those that serve HTTP. Must not know: what a record means.

mod client;
mod consume;
mod decode;
mod encode;
mod errors;
mod inbox;
mod keys;
mod ledger;
mod marks;
mod message;
mod produce;
mod tail;
mod topics;
mod watch;

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::{broadcast, watch as tokio_watch};

use crate::common::error::Result;
use crate::common::metrics::Metrics;
use crate::queue::idempotency::IdempotencyOptions;
use crate::queue::kafka::client::Context;
use crate::queue::kafka::encode::Encoder;
use crate::queue::kafka::errors::{Health, lock};
use crate::queue::kafka::inbox::Inbox;
use crate::queue::kafka::keys::Keys;
use crate::queue::kafka::marks::Marks;
use crate::queue::kafka::produce::Producer;
use crate::queue::kafka::tail::Tail;
use crate::queue::kafka::topics::TopicNames;
use crate::queue::kafka::watch::{Asker, Watch};
use crate::queue::{Appended, Backlog, Idempotency, Queue, nothing_appended, stopping};
use crate::record::{Batch, Checkpoint, EntryRef, Position, QueuedBatch};
use crate::wire::native::decode::DecodeOptions;

/// Who reads the partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consuming {
    /// The one process that has the store: all of them, from where the store is.
    Assigned,
    /// Any number of indexers before a store that they share.
    Group,
}

/// How Kafka is spoken to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KafkaSecurity {
    /// Empty: no login.
    pub user: String,
    pub password: String,
    /// `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`.
    pub mechanism: String,
    pub tls: bool,
    /// PEM files; empty: the system's authorities, no certificate of our own.
    pub ca_file: String,
    pub certificate_file: String,
    pub key_file: String,
}

#[derive(Clone, Debug)]
pub struct KafkaQueueOptions {
    /// `host:port`, separated by commas.
    pub brokers: String,
    pub topic: String,
    pub security: KafkaSecurity,
    /// For topics that are made. Default 6.
    pub partitions: u32,
    /// For topics that are made, at most the number of brokers. Default 3.
    pub replication: u32,
    /// For topics that are made, at most the replication. Default 2.
    pub min_insync_replicas: u32,
    /// For topics that are made. Default 7 days.
    pub retention: Duration,
    /// The largest message, for topics that are made; a topic that takes less sets the limit. Default 16 MiB.
    pub message_bytes_max: usize,
    /// The consumer group of the indexers. Default `logyard`.
    pub group: String,
    pub consuming: Consuming,
    /// How long messages wait for company. Default 5 ms.
    pub linger: Duration,
    /// A line that Kafka has not confirmed after this is answered with 503. Default 20 s: well past the 9 s in which Kafka notices that a broker is gone, and
    /// within the time that a stopping server gives to its requests.
    pub message_timeout: Duration,
    /// `none`, `gzip`, `snappy`, `lz4` or `zstd`. Default `lz4`.
    pub compression: String,
    /// Bytes that wait for Kafka's confirmation at most. Default 64 MiB.
    pub buffer_bytes_max: usize,
    /// An append that finds no room in the buffer for so long is refused. Default 5 s.
    pub append_wait_max: Duration,
    /// Bytes fetched ahead of the indexer, once as messages and once decoded. Default 16 MiB.
    pub fetch_bytes_max: usize,
    /// A subscriber that is this many batches behind loses the oldest and is told so. Default 1024.
    pub subscriber_batches_max: usize,
    /// How often ends and the state of Kafka are looked at. Default 1 s.
    pub refresh_interval: Duration,
    /// Kafka must answer so soon at the start. Default 30 s.
    pub start_wait: Duration,
    /// Brokers that do not tell a topic's settings are waited for so long. Default 5 s.
    pub describe_wait: Duration,
    pub idempotency: IdempotencyOptions,
    /// How messages of other producers are read.
    pub decode: DecodeOptions,
}

impl Default for KafkaQueueOptions {
    fn default() -> Self {
        Self {
            brokers: String::new(),
            topic: "logs".to_owned(),
            security: KafkaSecurity {
                mechanism: "PLAIN".to_owned(),
                ..KafkaSecurity::default()
            },
            partitions: 6,
            replication: 3,
            min_insync_replicas: 2,
            retention: Duration::from_secs(7 * 86_400),
            message_bytes_max: 16 << 20,
            group: "logyard".to_owned(),
            consuming: Consuming::Assigned,
            linger: Duration::from_millis(5),
            message_timeout: Duration::from_secs(20),
            compression: "lz4".to_owned(),
            buffer_bytes_max: 64 << 20,
            append_wait_max: Duration::from_secs(5),
            fetch_bytes_max: 16 << 20,
            subscriber_batches_max: 1024,
            refresh_interval: Duration::from_secs(1),
            start_wait: Duration::from_secs(30),
            describe_wait: Duration::from_secs(5),
            idempotency: IdempotencyOptions::default(),
            decode: DecodeOptions::default(),
        }
    }
}

pub struct KafkaQueue {
    options: KafkaQueueOptions,
    marks: Arc<Marks>,
    health: Arc<Health>,
    producer: Arc<Producer>,
    consumer: Arc<consume::Shared>,
    /// `Some` since the first `read`.
    consumer_thread: Mutex<Option<JoinHandle<()>>>,
    tail: Tail,
    keys: Keys,
    watch: Mutex<Option<Watch>>,
    is_closed: AtomicBool,
    /// Where the partitions ended when the queue was closed.
    closed_end: OnceLock<Checkpoint>,
    metrics: Arc<Metrics>,
}

impl KafkaQueue {
    /// Finds or makes the topics. `stored`: what the store has, whichever process wrote it. Blocks until Kafka answers.
    pub fn open_blocking(
        options: KafkaQueueOptions,
        stored: tokio_watch::Receiver<Checkpoint>,
        metrics: Arc<Metrics>,
    ) -> Result<Self> {
        client::check_files(&options.security)?;
        let health = Arc::new(Health::default());
        let context = Context {
            health: Arc::clone(&health),
        };
        let names = TopicNames::of(&options.topic);
        let marks = Arc::new(Marks::default());
        let asker = Asker::open(&options, &names, &context, &marks)?;
        let (partitions, message_bytes_max) =
            topics::ensure_blocking(&asker.consumer, &options, &names, &context)?;
        marks.set_partitions(partitions);
        asker.refresh_blocking()?;
        let producer = Arc::new(Producer::open(
            &options,
            &names,
            &context,
            &marks,
            message_bytes_max,
        )?);
        tracing::info!(
            brokers = options.brokers,
            topic = options.topic,
            partitions = partitions.records,
            "Kafka queue opened"
        );
        Ok(Self {
            consumer: Arc::new(consume::Shared {
                options: options.clone(),
                names: names.clone(),
                context: context.clone(),
                marks: Arc::clone(&marks),
                inbox: Inbox::new(options.fetch_bytes_max),
                stored,
                released: Mutex::default(),
                is_closed: AtomicBool::new(false),
                is_stopping: AtomicBool::new(false),
            }),
            consumer_thread: Mutex::new(None),
            tail: Tail::new(&options, &names, &context, &marks),
            keys: Keys::new(&options, &names, &context, &producer, &marks),
            watch: Mutex::new(Some(Watch::start(asker, options.refresh_interval)?)),
            is_closed: AtomicBool::new(false),
            closed_end: OnceLock::new(),
            options,
            marks,
            health,
            producer,
            metrics,
        })
    }

    fn check_open(&self) -> Result<()> {
        match self.is_closed.load(Ordering::Acquire) {
            true => Err(stopping()),
            false => self.health.check(),
        }
    }

    fn start_consumer(&self) -> Result<()> {
        let mut thread = lock(&self.consumer_thread);
        if thread.is_none() {
            *thread = Some(consume::start(&self.consumer)?);
        }
        Ok(())
    }
}

#[async_trait]
impl Queue for KafkaQueue {
    async fn append(&self, batch: Batch, idempotency: Option<Idempotency>) -> Result<Appended> {
        if batch.is_empty() {
            let seq = self.marks.end().next_seq(0);
            return Ok(nothing_appended(Position { partition: 0, seq }));
        }
        self.check_open()?;
        let started = Instant::now();
        let size_bytes = batch.as_bytes().len() as u64;
        let appended = match idempotency {
            None => self.producer.append(batch, None).await?,
            Some(idempotency) => self.keys.append(batch, idempotency).await?,
        };
        if appended.replayed.is_none() {
            let elapsed = started.elapsed().as_secs_f64();
            self.metrics.queue.append_seconds.observe(elapsed);
            self.metrics.queue.appended_bytes.inc_by(size_bytes);
        }
        Ok(appended)
    }

    async fn read(
        &self,
        from: &Checkpoint,
        max_bytes: usize,
        wait: Duration,
    ) -> Result<Vec<QueuedBatch>> {
        let inbox = &self.consumer.inbox;
        let may_rewind = self.options.consuming == Consuming::Assigned;
        let deadline = tokio::time::Instant::now() + wait;
        // What is known to lie there is waited for, however short the caller's patience: fetching it may have only begun.
        let due_deadline = tokio::time::Instant::now() + wait.max(FETCH_PATIENCE);
        loop {
            // Others may go on writing: a queue that is closed is read up to where it was.
            if let Some(end) = self.closed_end.get()
                && from.includes(end)
            {
                return Ok(Vec::new());
            }
            let news = inbox.news();
            tokio::pin!(news);
            news.as_mut().enable();
            let batches = inbox.take(from, max_bytes, may_rewind)?;
            if !batches.is_empty() {
                return Ok(batches);
            }
            self.start_consumer()?;
            let is_due = may_rewind && !from.includes(&self.marks.end());
            let until = if is_due { due_deadline } else { deadline };
            if tokio::time::timeout_at(until, news).await.is_err() {
                return Ok(Vec::new());
            }
        }
    }

    async fn release(&self, up_to: &Checkpoint) -> Result<()> {
        let released = self.marks.release(up_to);
        *lock(&self.consumer.released) = released;
        Ok(())
    }

    async fn note_poison(&self, letter: &QueuedBatch) -> Result<()> {
        for entry in letter.batch.entries() {
            if let EntryRef::DeadLetter(letter_ref) = entry {
                let mut encoder = Encoder::default();
                let message = encoder.encode_poison(letter_ref, letter.batch.arrival_ns());
                self.producer.send_letter_note(message).await?;
            }
        }
        Ok(())
    }

    fn subscribe(&self) -> broadcast::Receiver<QueuedBatch> {
        self.tail.subscribe()
    }

    fn backlog(&self) -> Backlog {
        Backlog {
            end: self.marks.end(),
            released: self.marks.released(),
            size_bytes: 0,
            size_bytes_max: 0,
            durability: "kafka",
            fault: self.health.fault(),
            degraded: self.health.degraded(),
            is_shared: self.options.consuming == Consuming::Group,
        }
    }

    async fn close(&self) -> Result<()> {
        self.is_closed.store(true, Ordering::Release);
        // A second close changes nothing.
        let _ = self.closed_end.set(self.marks.end());
        self.consumer.is_closed.store(true, Ordering::Release);
        Ok(())
    }
}

/// How long a `read` waits for messages that are known to be there.
const FETCH_PATIENCE: Duration = Duration::from_secs(2);

impl Drop for KafkaQueue {
    /// Leaves the group, so that the others take over at once.
    fn drop(&mut self) {
        self.consumer.is_stopping.store(true, Ordering::Release);
        drop(lock(&self.watch).take());
        if let Some(thread) = lock(&self.consumer_thread).take()
            && thread.join().is_err()
        {
            tracing::error!("the consumer's thread had panicked");
        }
        self.tail.stop_blocking();
        self.keys.stop_blocking();
        self.producer.stop_blocking();
    }
}
