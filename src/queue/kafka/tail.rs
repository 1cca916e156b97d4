//! The live tail: a consumer of all record partitions that feeds the subscribers of this process, and runs only while there are any.
//!
//! It begins at the ends that were known when the first of them came, never at "the end", which Kafka would look up later: so who subscribes and
//! then reads `backlog().end` misses nothing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::Offset;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tokio::sync::broadcast;

use crate::common::error::Result;
use crate::queue::kafka::KafkaQueueOptions;
use crate::queue::kafka::client::{self, Context};
use crate::queue::kafka::decode::Decoder;
use crate::queue::kafka::errors::{self, lock};
use crate::queue::kafka::marks::{Marks, Partitions};
use crate::queue::kafka::topics::TopicNames;
use crate::queue::kafka::watch::{edges, list_of};
use crate::record::{Checkpoint, QueuedBatch};

const POLL: Duration = Duration::from_millis(100);
/// A browser that connects again finds the consumer still there.
const IDLE_MAX: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_secs(1);

pub(super) struct Tail {
    shared: Arc<Shared>,
}

struct Shared {
    options: KafkaQueueOptions,
    names: TopicNames,
    context: Context,
    marks: Arc<Marks>,
    sender: broadcast::Sender<QueuedBatch>,
    /// `Some`: the thread runs.
    thread: Mutex<Option<JoinHandle<()>>>,
    is_stopping: AtomicBool,
}

impl Tail {
    pub fn new(
        options: &KafkaQueueOptions,
        names: &TopicNames,
        context: &Context,
        marks: &Arc<Marks>,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                options: options.clone(),
                names: names.clone(),
                context: context.clone(),
                marks: Arc::clone(marks),
                sender: broadcast::Sender::new(options.subscriber_batches_max.max(1)),
                thread: Mutex::new(None),
                is_stopping: AtomicBool::new(false),
            }),
        }
    }

    pub fn subscribe(&self) -> broadcast::Receiver<QueuedBatch> {
        let shared = &self.shared;
        // Under the lock, so that the thread cannot end unnoticed.
        let mut thread = lock(&shared.thread);
        let receiver = shared.sender.subscribe();
        if thread.is_none() && !shared.is_stopping.load(Ordering::Acquire) {
            let begin = shared.marks.end();
            let spawned = std::thread::Builder::new()
                .name("kafka-tail".to_owned())
                .spawn({
                    let shared = Arc::clone(shared);
                    move || shared.run(begin)
                });
            match spawned {
                Ok(handle) => *thread = Some(handle),
                Err(error) => tracing::error!(%error, "the live tail cannot start its thread"),
            }
        }
        receiver
    }

    pub fn stop_blocking(&self) {
        self.shared.is_stopping.store(true, Ordering::Release);
        let thread = lock(&self.shared.thread).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the live tail's thread had panicked");
        }
    }
}

impl Shared {
    fn run(&self, begin: Checkpoint) {
        let mut next = begin;
        loop {
            match self.follow(&mut next) {
                Ok(()) => return,
                Err(error) => {
                    tracing::warn!(%error, "the live tail broke off; going on where it was");
                    std::thread::sleep(RETRY);
                }
            }
        }
    }

    /// Until nobody listens, or the end.
    fn follow(&self, next: &mut Checkpoint) -> Result<()> {
        let mut config = client::reader(&self.options);
        // Never from somewhere else in silence.
        config.set("auto.offset.reset", "error");
        let consumer = BaseConsumer::from_config_and_context(&config, self.context.clone())
            .map_err(|e| errors::client("make a Kafka consumer", e))?;
        let mut decoder = Decoder::new(self.options.decode.clone());
        let mut assigned = Partitions::default();
        let mut heard_at = Instant::now();
        let mut out = Vec::new();
        while !self.is_stopping.load(Ordering::Acquire) {
            let partitions = self.marks.partitions();
            if assigned.records != partitions.records {
                self.assign(&consumer, partitions, next)?;
                assigned = partitions;
            }
            if !self.poll(&consumer, &mut decoder, &mut out)? {
                self.find_place(&consumer, partitions, next)?;
                assigned = Partitions::default();
            }
            for queued in out.drain(..) {
                self.send(queued, next);
            }
            if 0 < self.sender.receiver_count() {
                heard_at = Instant::now();
            } else if IDLE_MAX < heard_at.elapsed() {
                let mut thread = lock(&self.thread);
                if self.sender.receiver_count() == 0 {
                    *thread = None;
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn assign(
        &self,
        consumer: &BaseConsumer<Context>,
        partitions: Partitions,
        next: &Checkpoint,
    ) -> Result<()> {
        let begin = (0..partitions.records).map(|partition| {
            let seq = i64::try_from(next.next_seq(partition)).unwrap_or(i64::MAX);
            (partition, Offset::Offset(seq))
        });
        let list = list_of(&self.names, begin)?;
        consumer
            .assign(&list)
            .map_err(|e| errors::client("follow the Kafka partitions", e))
    }

    /// Our place in a partition is not there any more: says why, and goes on at what there is.
    fn find_place(
        &self,
        consumer: &BaseConsumer<Context>,
        partitions: Partitions,
        next: &mut Checkpoint,
    ) -> Result<()> {
        let end = edges(consumer, &self.names, partitions, Offset::End)?;
        let oldest = edges(consumer, &self.names, partitions, Offset::Beginning)?;
        let topic = &self.names.records;
        for partition in 0..partitions.records {
            let place = next.next_seq(partition);
            let (end, oldest) = (end.next_seq(partition), oldest.next_seq(partition));
            if end < place {
                tracing::warn!(
                    topic,
                    partition,
                    place,
                    end,
                    "the Kafka topic was made anew under the same name; the live tail goes on at its beginning"
                );
            } else if place < oldest {
                tracing::warn!(
                    topic,
                    partition,
                    lost = oldest - place,
                    "Kafka has dropped messages before the live tail came to them; it goes on behind them"
                );
            } else {
                continue;
            }
            next.0.insert(partition, oldest);
        }
        Ok(())
    }

    /// False if a place that was asked for is not there.
    fn poll(
        &self,
        consumer: &BaseConsumer<Context>,
        decoder: &mut Decoder,
        out: &mut Vec<QueuedBatch>,
    ) -> Result<bool> {
        const RUN_MESSAGES: usize = 1_000;
        let mut wait = POLL;
        for _ in 0..RUN_MESSAGES {
            match consumer.poll(wait) {
                None => break,
                Some(Ok(message)) => decoder.push(&message, false, |queued| out.push(queued)),
                Some(Err(KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset))) => {
                    decoder.finish(|queued| out.push(queued));
                    return Ok(false);
                }
                Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => {
                    return Err(errors::client("follow Kafka", error));
                }
                Some(Err(error)) => {
                    tracing::debug!(%error, "Kafka tail");
                    break;
                }
            }
            wait = Duration::ZERO;
        }
        decoder.finish(|queued| out.push(queued));
        Ok(true)
    }

    /// The end moves first: who subscribes and then reads the end misses nothing.
    fn send(&self, queued: QueuedBatch, next: &mut Checkpoint) {
        let done = Checkpoint::up_to(queued.first.partition, queued.next_seq());
        self.marks.advance_end(&done);
        next.advance_all(&done);
        // Without subscribers there is nobody to tell.
        let _ = self.sender.send(queued);
    }
}
