//! The thread `kafka-watch`: asks from time to time how the topics are, where they end and what the group has committed, and notes whether Kafka
//! answers at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use crate::common::error::{Error, Result};
use crate::queue::kafka::KafkaQueueOptions;
use crate::queue::kafka::client::{self, Context};
use crate::queue::kafka::errors;
use crate::queue::kafka::marks::{Marks, Partitions};
use crate::queue::kafka::topics::{TopicNames, look};
use crate::record::{Checkpoint, Position};

const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// While something says that no broker is there.
const SUSPICIOUS_TIMEOUT: Duration = Duration::from_millis(1500);
/// Progress of others is shown, not acted on: asked less often than the ends.
const COMMITTED_INTERVAL: Duration = Duration::from_secs(5);

pub(super) struct Watch {
    is_stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

pub(super) struct Asker {
    pub consumer: BaseConsumer<Context>,
    pub names: TopicNames,
    pub context: Context,
    pub marks: Arc<Marks>,
}

impl Asker {
    pub fn open(
        options: &KafkaQueueOptions,
        names: &TopicNames,
        context: &Context,
        marks: &Arc<Marks>,
    ) -> Result<Self> {
        let consumer =
            BaseConsumer::from_config_and_context(&client::asker(options), context.clone())
                .map_err(|e| errors::client("make a Kafka client", e))?;
        Ok(Self {
            consumer,
            names: names.clone(),
            context: context.clone(),
            marks: Arc::clone(marks),
        })
    }

    /// Partitions, and ends where they are to be had: a partition without a leader is no reason to refuse what goes to the others.
    pub fn refresh_blocking(&self) -> Result<()> {
        let partitions = self.partitions_blocking()?;
        self.marks.set_partitions(partitions);
        match edges(&self.consumer, &self.names, partitions, Offset::End) {
            Ok(ends) => self.marks.advance_end(&ends),
            Err(error) => tracing::debug!(%error, "the partitions' ends are not known"),
        }
        Ok(())
    }

    fn partitions_blocking(&self) -> Result<Partitions> {
        let patience = match self.context.health.take_suspicion() {
            true => SUSPICIOUS_TIMEOUT,
            false => ASK_TIMEOUT,
        };
        let records = look(&self.consumer, &self.names.records, patience)?;
        let letters = look(&self.consumer, &self.names.letters, patience)?;
        let (Some(records), Some(letters)) = (records, letters) else {
            return Err(Error::unavailable(
                "kafka_topic_missing",
                format!("the Kafka topic `{}` is gone", self.names.records),
            ));
        };
        Ok(Partitions {
            records: records.partitions,
            letters: letters.partitions,
        })
    }

    fn refresh_committed_blocking(&self) -> Result<()> {
        let list = list_of(
            &self.names,
            self.marks.partitions().all().map(|p| (p, Offset::Invalid)),
        )?;
        let committed = self
            .consumer
            .committed_offsets(list, ASK_TIMEOUT)
            .map_err(|e| errors::client("ask Kafka for committed offsets", e))?;
        self.marks.release(&checkpoint_of(&self.names, &committed));
        Ok(())
    }
}

/// Where partitions end (`Offset::End`) or begin (`Offset::Beginning`), all asked at once.
pub(super) fn edges<C: rdkafka::consumer::ConsumerContext>(
    consumer: &impl Consumer<C>,
    names: &TopicNames,
    partitions: Partitions,
    edge: Offset,
) -> Result<Checkpoint> {
    let list = list_of(names, partitions.all().map(|p| (p, edge)))?;
    let found = consumer
        .offsets_for_times(list, ASK_TIMEOUT)
        .map_err(|e| errors::client("ask Kafka where its partitions end", e))?;
    for element in found.elements() {
        element
            .error()
            .map_err(|e| errors::client("ask Kafka where a partition ends", e))?;
    }
    Ok(checkpoint_of(names, &found))
}

/// Our partition numbers → Kafka's topics and partitions.
pub(super) fn list_of(
    names: &TopicNames,
    partitions: impl Iterator<Item = (u32, Offset)>,
) -> Result<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for (partition, offset) in partitions {
        let topic = match partition < Position::LETTER_PARTITIONS {
            true => &names.records,
            false => &names.letters,
        };
        let number = i32::try_from(partition & !Position::LETTER_PARTITIONS).unwrap_or(i32::MAX);
        list.add_partition_offset(topic, number, offset)
            .map_err(|e| errors::client("name a Kafka partition", e))?;
    }
    Ok(list)
}

/// Kafka's topics and partitions → our partition numbers, where there is an offset.
pub(super) fn checkpoint_of(names: &TopicNames, list: &TopicPartitionList) -> Checkpoint {
    let mut checkpoint = Checkpoint::default();
    for element in list.elements() {
        let Offset::Offset(offset) = element.offset() else {
            continue;
        };
        let (Some(partition), Ok(offset)) = (
            partition_of(names, element.topic(), element.partition()),
            u64::try_from(offset),
        ) else {
            continue;
        };
        checkpoint.advance(partition, offset);
    }
    checkpoint
}

pub(super) fn partition_of(names: &TopicNames, topic: &str, partition: i32) -> Option<u32> {
    let partition = u32::try_from(partition).ok()?;
    if topic == names.records {
        Some(partition)
    } else if topic == names.letters {
        Some(partition | Position::LETTER_PARTITIONS)
    } else {
        None
    }
}

impl Watch {
    pub fn start(asker: Asker, interval: Duration) -> Result<Self> {
        let is_stopping = Arc::new(AtomicBool::new(false));
        let thread = std::thread::Builder::new()
            .name("kafka-watch".to_owned())
            .spawn({
                let is_stopping = Arc::clone(&is_stopping);
                move || run(&asker, interval, &is_stopping)
            })
            .map_err(|e| Error::internal("cannot start a thread for Kafka").with_source(e))?;
        Ok(Self {
            is_stopping,
            thread: Some(thread),
        })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.is_stopping.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            if thread.join().is_err() {
                tracing::error!("the thread that watches Kafka had panicked");
            }
        }
    }
}

fn run(asker: &Asker, interval: Duration, is_stopping: &AtomicBool) {
    let mut committed_at = Instant::now();
    while !is_stopping.load(Ordering::Acquire) {
        std::thread::park_timeout(interval);
        client::listen_blocking(&asker.consumer);
        match asker.refresh_blocking() {
            Ok(()) => asker.context.health.clear_fault(),
            Err(error) => {
                let error = asker.context.health.explain(error);
                asker.context.health.set_fault(error.message);
                continue;
            }
        }
        if COMMITTED_INTERVAL <= committed_at.elapsed() {
            committed_at = Instant::now();
            if let Err(error) = asker.refresh_committed_blocking() {
                tracing::debug!(%error, "committed offsets are not known");
            }
        }
    }
}
