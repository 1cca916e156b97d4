//! The indexer's side: the thread `kafka-consume` fetches, decodes and fills the inbox. It begins with the first `read`, so a process without
//! an indexer never joins the group.
//!
//! Two ways. **Assigned**: the store lives in this process, so all partitions are ours, from the position that `read` names. **Group**: any number
//! of indexers share the partitions; one that is given to us begins after what the store and the group's commits know of, and what was
//! fetched of one that is taken away is dropped. Offsets are committed to show progress, and never rule over the store.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::watch;

use crate::common::error::{Error, Result};
use crate::queue::kafka::client::{self, Context};
use crate::queue::kafka::decode::Decoder;
use crate::queue::kafka::errors::{self, lock};
use crate::queue::kafka::inbox::Inbox;
use crate::queue::kafka::marks::{Marks, Partitions};
use crate::queue::kafka::topics::TopicNames;
use crate::queue::kafka::watch::{checkpoint_of, edges, list_of, partition_of};
use crate::queue::kafka::{Consuming, KafkaQueueOptions};
use crate::record::Checkpoint;

const POLL: Duration = Duration::from_millis(100);
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_secs(1);
/// A full inbox keeps the group waiting no longer than this: then fetching is paused and events are taken.
const FULL_MAX: Duration = Duration::from_secs(5);

/// What the thread and the callers share.
pub(super) struct Shared {
    pub options: KafkaQueueOptions,
    pub names: TopicNames,
    pub context: Context,
    pub marks: Arc<Marks>,
    pub inbox: Inbox,
    /// What the store has, whichever process wrote it.
    pub stored: watch::Receiver<Checkpoint>,
    pub released: Mutex<Checkpoint>,
    /// Nothing more is fetched for the group.
    pub is_closed: AtomicBool,
    pub is_stopping: AtomicBool,
}

pub(super) fn start(shared: &Arc<Shared>) -> Result<JoinHandle<()>> {
    let shared = Arc::clone(shared);
    std::thread::Builder::new()
        .name("kafka-consume".to_owned())
        .spawn(move || {
            while !shared.is_stopping.load(Ordering::Acquire) {
                if let Err(error) = consume(&shared) {
                    tracing::warn!(%error, "reading from Kafka broke off; beginning again where the store is");
                    shared.inbox.set_fault(error.code, error.message);
                    std::thread::sleep(RETRY);
                }
            }
        })
        .map_err(|e| Error::internal("cannot start the consumer's thread").with_source(e))
}

/// Until the end, or an error after which a new client is needed.
fn consume(shared: &Arc<Shared>) -> Result<()> {
    let consumer = BaseConsumer::from_config_and_context(
        &client::consumer(&shared.options),
        Member {
            shared: Arc::clone(shared),
            has_revoked: AtomicBool::new(false),
        },
    )
    .map_err(|e| errors::client("make a Kafka consumer", e))?;
    let mut task = Task {
        decoder: Decoder::new(shared.options.decode.clone()),
        consumer,
        shared: Arc::clone(shared),
        out: Vec::new(),
        generation: shared.inbox.generation(),
        next: Checkpoint::default(),
        assigned: Partitions::default(),
        full_since: None,
        is_paused: false,
        committed: Checkpoint::default(),
        commit_at: Instant::now(),
    };
    // What an earlier client fetched is fetched again.
    let known: Vec<u32> = shared.inbox.partitions().0.into_keys().collect();
    shared.inbox.remove(&known);
    match shared.options.consuming {
        Consuming::Assigned => task.assign(&shared.inbox.from())?,
        Consuming::Group => task
            .consumer
            .subscribe(&[&shared.names.records, &shared.names.letters])
            .map_err(|e| errors::client("join the Kafka group", e))?,
    }
    while !shared.is_stopping.load(Ordering::Acquire) {
        task.turn()?;
    }
    task.commit(CommitMode::Sync);
    Ok(())
}

struct Task {
    consumer: BaseConsumer<Member>,
    decoder: Decoder,
    shared: Arc<Shared>,
    out: Vec<crate::record::QueuedBatch>,
    generation: u64,
    /// Assigned: what was decoded.
    next: Checkpoint,
    assigned: Partitions,
    full_since: Option<Instant>,
    is_paused: bool,
    committed: Checkpoint,
    commit_at: Instant,
}

impl Task {
    fn turn(&mut self) -> Result<()> {
        self.follow_changes()?;
        if COMMIT_INTERVAL <= self.commit_at.elapsed() {
            self.commit(CommitMode::Async);
        }
        let is_group = self.shared.options.consuming == Consuming::Group;
        if is_group && self.shared.is_closed.load(Ordering::Acquire) {
            self.flush();
            std::thread::sleep(POLL);
            return Ok(());
        }
        if !self.shared.inbox.wait_for_room(POLL) {
            return self.while_full(is_group);
        }
        self.full_since = None;
        if std::mem::take(&mut self.is_paused) {
            self.pause(false)?;
        }
        self.poll(POLL)
    }

    /// Takes a run of messages, waiting for the first.
    fn poll(&mut self, wait: Duration) -> Result<()> {
        /// Then room and changes are looked at again.
        const RUN_MESSAGES: usize = 1_000;
        let mut wait = wait;
        let mut is_idle = false;
        for _ in 0..RUN_MESSAGES {
            let polled = self.consumer.poll(wait);
            let context = self.consumer.context();
            if context.has_revoked.swap(false, Ordering::AcqRel) {
                // What was decoded of partitions given away is dropped by the inbox; what is ours still stays.
                let out = &mut self.out;
                self.decoder.finish(|queued| out.push(queued));
                self.shared.inbox.push(out, self.generation);
            }
            let message = match polled {
                None => {
                    is_idle = true;
                    break;
                }
                Some(Ok(message)) => message,
                // A position that is not there any more: the beginning anew says why.
                Some(Err(
                    error @ (KafkaError::MessageConsumptionFatal(_)
                    | KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset)),
                )) => return Err(errors::client("read from Kafka", error)),
                Some(Err(error)) => {
                    tracing::debug!(%error, "Kafka consumer");
                    break;
                }
            };
            let is_letters = message.topic() == self.shared.names.letters;
            let partition = partition_of(&self.shared.names, message.topic(), message.partition());
            if let (Some(partition), Ok(seq)) = (partition, u64::try_from(message.offset())) {
                self.next.advance(partition, seq + 1);
            }
            let out = &mut self.out;
            self.decoder
                .push(&message, is_letters, |queued| out.push(queued));
            wait = Duration::ZERO;
        }
        // What was read is there: a release of it is not cut down to an end that was looked up earlier.
        self.shared.marks.advance_end(&self.next);
        self.flush();
        if is_idle {
            self.pass_over();
        }
        Ok(())
    }

    /// The library is further than its last message: what lies between was not for us.
    fn pass_over(&self) {
        let Ok(position) = self.consumer.position() else {
            return;
        };
        let begun = self.shared.inbox.partitions();
        for (partition, passed) in checkpoint_of(&self.shared.names, &position).0 {
            let Some(begun) = begun.0.get(&partition) else {
                continue;
            };
            let read = self.next.next_seq(partition).max(*begun);
            if read < passed {
                self.shared.marks.pass_over(partition, read, passed);
            }
        }
    }

    fn flush(&mut self) {
        let out = &mut self.out;
        self.decoder.finish(|queued| out.push(queued));
        self.shared.inbox.push(out, self.generation);
    }

    /// A new beginning, or partitions that were added.
    fn follow_changes(&mut self) -> Result<()> {
        if self.shared.options.consuming == Consuming::Group {
            return Ok(());
        }
        let generation = self.shared.inbox.generation();
        if generation != self.generation {
            self.generation = generation;
            self.decoder.abandon();
            self.out.clear();
            return self.assign(&self.shared.inbox.from());
        }
        if self.assigned != self.shared.marks.partitions() {
            let next = self.next.clone();
            return self.assign(&next);
        }
        Ok(())
    }

    /// Assigned: every partition, from there.
    fn assign(&mut self, from: &Checkpoint) -> Result<()> {
        let partitions = self.shared.marks.partitions();
        let mut begin = Checkpoint::default();
        for partition in partitions.all() {
            begin.advance(partition, from.next_seq(partition));
        }
        let there = check_beginnings(&self.consumer, &self.shared, &begin)?;
        let offsets = there.0.iter().map(|(p, seq)| (*p, offset(*seq)));
        let list = list_of(&self.shared.names, offsets)?;
        self.consumer
            .assign(&list)
            .map_err(|e| errors::client("read the Kafka partitions", e))?;
        self.assigned = partitions;
        self.next = begin.clone();
        let known = self.shared.inbox.partitions();
        begin
            .0
            .retain(|partition, _| !known.0.contains_key(partition));
        self.shared.inbox.add(&begin);
        Ok(())
    }

    fn while_full(&mut self, is_group: bool) -> Result<()> {
        let since = *self.full_since.get_or_insert_with(Instant::now);
        if is_group && FULL_MAX < since.elapsed() {
            if !self.is_paused {
                self.pause(true)?;
                self.is_paused = true;
            }
            // Nothing but events while paused; a message that slips through is taken.
            return self.poll(POLL);
        }
        Ok(())
    }

    fn pause(&self, is_paused: bool) -> Result<()> {
        let assignment = self.consumer.assignment();
        let changed = assignment.and_then(|list| match is_paused {
            true => self.consumer.pause(&list),
            false => self.consumer.resume(&list),
        });
        changed.map_err(|e| errors::client("pause reading from Kafka", e))
    }

    fn commit(&mut self, mode: CommitMode) {
        self.commit_at = Instant::now();
        let mut released = lock(&self.shared.released).clone();
        let ours = self.shared.inbox.partitions();
        released
            .0
            .retain(|partition, _| ours.0.contains_key(partition));
        if released == self.committed || self.shared.context.health.fault().is_some() {
            return;
        }
        match commit(&self.consumer, &self.shared.names, &released, mode) {
            Ok(()) => self.committed = released,
            Err(error) => tracing::debug!(%error, "offsets cannot be committed yet"),
        }
    }
}

fn commit(
    consumer: &BaseConsumer<Member>,
    names: &TopicNames,
    released: &Checkpoint,
    mode: CommitMode,
) -> Result<()> {
    if released.0.is_empty() {
        return Ok(());
    }
    let offsets = released.0.iter().map(|(p, seq)| (*p, offset(*seq)));
    let list = list_of(names, offsets)?;
    consumer
        .commit(&list, mode)
        .map_err(|e| errors::client("commit offsets", e))
}

fn offset(seq: u64) -> Offset {
    Offset::Offset(i64::try_from(seq).unwrap_or(i64::MAX))
}

/// Where the first message is, for each partition. One that ends before the position to begin at is not the one that the store knows; one
/// that begins after it has lost messages.
fn check_beginnings(
    consumer: &BaseConsumer<Member>,
    shared: &Shared,
    begin: &Checkpoint,
) -> Result<Checkpoint> {
    let mut there = begin.clone();
    let partitions = shared.marks.partitions();
    let end = edges(consumer, &shared.names, partitions, Offset::End)?;
    let oldest = edges(consumer, &shared.names, partitions, Offset::Beginning)?;
    shared.marks.advance_end(&end);
    for (partition, seq) in &begin.0 {
        let (end, oldest) = (end.next_seq(*partition), oldest.next_seq(*partition));
        if end < *seq {
            let message = format!(
                "partition {partition} of the Kafka topic `{}` ends at {end}, but the store has indexed up to {seq}: the topic was made anew under the same name; use another topic (or an empty store)",
                shared.options.topic
            );
            return Err(Error::unavailable("kafka_topic_replaced", message));
        }
        if *seq < oldest && 0 < *seq {
            tracing::error!(
                partition,
                lost = oldest - seq,
                "Kafka has dropped messages that were not indexed yet: the topic's retention is shorter than the indexer's lag"
            );
        }
        there.advance(*partition, oldest);
    }
    Ok(there)
}

/// A member of the group (or, assigned, a client that only uses its name for commits).
pub(super) struct Member {
    shared: Arc<Shared>,
    has_revoked: AtomicBool,
}

impl ClientContext for Member {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.shared.context.log(level, facility, message);
    }

    /// A consumer that lost its brokers is no reason to refuse appends; the watch looks for itself.
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", %error, reason);
    }
}

impl ConsumerContext for Member {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        code: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        let is_cooperative = matches!(
            consumer.rebalance_protocol(),
            RebalanceProtocol::Cooperative
        );
        let done = match code {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                self.begin(consumer, list);
                match is_cooperative {
                    true => consumer.incremental_assign(list),
                    false => consumer.assign(list),
                }
            }
            _ => {
                self.end(consumer, list);
                match is_cooperative {
                    true => consumer.incremental_unassign(list),
                    false => consumer.unassign(),
                }
            }
        };
        if let Err(error) = done {
            tracing::error!(%error, "Kafka does not let this indexer take its partitions; the group will share them out again");
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        if let Err(error) = result {
            tracing::debug!(%error, "offsets were not committed");
        }
    }
}

impl Member {
    /// Partitions given to us: from after what the store, the group's commits and this process know of.
    fn begin(&self, consumer: &BaseConsumer<Self>, list: &mut TopicPartitionList) {
        let shared = &self.shared;
        let committed = match consumer.committed_offsets(list.clone(), ASK_TIMEOUT) {
            Ok(list) => checkpoint_of(&shared.names, &list),
            Err(error) => {
                tracing::debug!(%error, "committed offsets are not known; the store's are");
                Checkpoint::default()
            }
        };
        let stored = shared.stored.borrow().clone();
        let written = shared.inbox.from();
        let mut begin = Checkpoint::default();
        for element in list.elements() {
            let topic = element.topic();
            if let Some(partition) = partition_of(&shared.names, topic, element.partition()) {
                for known in [&committed, &stored, &written] {
                    begin.advance(partition, known.next_seq(partition));
                }
            }
        }
        let there = match check_beginnings(consumer, shared, &begin) {
            Ok(there) => there,
            Err(error) if error.code == "kafka_topic_replaced" => {
                tracing::error!(%error, "the partitions given to this indexer are not read");
                shared.inbox.set_fault(error.code, error.message);
                *list = TopicPartitionList::new();
                return;
            }
            // A position that is not there is found out by fetching.
            Err(error) => {
                tracing::debug!(%error, "the partitions' edges are not known");
                begin.clone()
            }
        };
        for (partition, seq) in &there.0 {
            let set = list_of(&shared.names, std::iter::once((*partition, offset(*seq))));
            let Ok(one) = set else { continue };
            for element in one.elements() {
                let at = (element.topic(), element.partition());
                if let Err(error) = list.set_partition_offset(at.0, at.1, element.offset()) {
                    tracing::error!(%error, partition, "a partition cannot be begun where it should be");
                }
            }
        }
        tracing::info!(partitions = ?begin.0, "indexing these partitions");
        shared.inbox.add(&begin);
    }

    /// Partitions taken away: what was fetched of them is the next one's.
    fn end(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) {
        let shared = &self.shared;
        let gone: Vec<u32> = list
            .elements()
            .iter()
            .filter_map(|e| partition_of(&shared.names, e.topic(), e.partition()))
            .collect();
        self.has_revoked.store(true, Ordering::Release);
        shared.inbox.remove(&gone);
        let mut released = lock(&shared.released).clone();
        released.0.retain(|partition, _| gone.contains(partition));
        if !consumer.assignment_lost()
            && shared.context.health.fault().is_none()
            && let Err(error) = commit(consumer, &shared.names, &released, CommitMode::Sync)
        {
            tracing::debug!(%error, "offsets of partitions given away are not committed");
        }
        tracing::info!(partitions = ?gone, "partitions given away");
    }
}
