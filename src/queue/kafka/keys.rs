//! Idempotency keys across all processes that share a topic, surviving restarts.
//!
//! A request with a key writes a claim into `<topic>.idempotency`, reads the topic up to it, and goes on only if its claim won (see [`ledger`]). Its
//! messages carry the key's hash and their index, so whoever takes over a claim that was never finished looks for them first, from where the
//! topics ended when the claim was made, and stores only what is missing. A request whose outcome is unknown keeps its claim: the retry takes
//! over when that is too old for its messages to be on their way. Nobody is told to wait for another request when it is Kafka that is away.
//!
//! What can still double: a process that is stopped for longer than the claim's time *between* its check and handing the messages over, and goes on
//! afterwards; and a key that was pushed out of the window by newer ones.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Message, Offset, TopicPartitionList};
use tokio::sync::Notify;
use tokio::time::timeout_at;
use xxhash_rust::xxh3::xxh3_128;

use crate::common::error::{Error, Result};
use crate::queue::idempotency::{conflict, now_ms};
use crate::queue::kafka::KafkaQueueOptions;
use crate::queue::kafka::client::{self, Context};
use crate::queue::kafka::decode::header_of;
use crate::queue::kafka::errors::{self, key_not_settled, lock, unreachable_unsettled, unsettled};
use crate::queue::kafka::ledger::{Event, Known, Ledger, Rules};
use crate::queue::kafka::marks::Marks;
use crate::queue::kafka::message::{HEADER_KEY, KeyMark};
use crate::queue::kafka::produce::{Keyed, Producer};
use crate::queue::kafka::topics::TopicNames;
use crate::queue::kafka::watch::{edges, list_of, partition_of};
use crate::queue::{Appended, Idempotency};
use crate::record::{Batch, Checkpoint, Position};

const POLL: Duration = Duration::from_millis(50);
const RETRY: Duration = Duration::from_secs(1);
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// From the claim's confirmation to the check that it won; later it is given up.
const CLAIM_READ_MAX: Duration = Duration::from_secs(5);

pub(super) struct Keys {
    shared: Arc<Shared>,
    producer: Arc<Producer>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    options: KafkaQueueOptions,
    names: TopicNames,
    context: Context,
    marks: Arc<Marks>,
    state: Mutex<State>,
    news: Notify,
    is_stopping: AtomicBool,
}

struct State {
    ledger: Ledger,
    /// What was read of the topic; `None` until it was read to the end that it had at the start.
    next: Option<u64>,
}

/// What a look at a key leads to.
enum Look {
    Replay(Appended),
    Free,
    Ours { taken_over: Option<Checkpoint> },
    Wait,
}

/// From a claim to handing the messages over; later it is given up.
fn settle_time(options: &KafkaQueueOptions) -> Duration {
    options.message_timeout + CLAIM_READ_MAX
}

/// A claim must outlive all of its messages: settling it, room in the buffer, handing over, and the time of a message, once for its report and once
/// more for what lies in a socket when that time is over.
fn claim_time(options: &KafkaQueueOptions) -> Duration {
    let handing_over = options.append_wait_max + options.message_timeout;
    settle_time(options) + handing_over + options.message_timeout * 2 + CLAIM_READ_MAX
}

impl Keys {
    pub fn new(
        options: &KafkaQueueOptions,
        names: &TopicNames,
        context: &Context,
        producer: &Arc<Producer>,
        marks: &Arc<Marks>,
    ) -> Self {
        let ms = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX / 4);
        let rules = Rules {
            window_ms: ms(options.idempotency.window),
            claim_ms: ms(claim_time(options)),
            keys_max: options.idempotency.keys_max.max(1),
            size_bytes_max: options.idempotency.size_bytes_max,
        };
        Self {
            shared: Arc::new(Shared {
                options: options.clone(),
                names: names.clone(),
                context: context.clone(),
                marks: Arc::clone(marks),
                state: Mutex::new(State {
                    ledger: Ledger::new(rules),
                    next: None,
                }),
                news: Notify::new(),
                is_stopping: AtomicBool::new(false),
            }),
            producer: Arc::clone(producer),
            thread: Mutex::new(None),
        }
    }

    /// Appends once, whoever else has the same key.
    pub async fn append(&self, batch: Batch, idempotency: Idempotency) -> Result<Appended> {
        self.shared
            .options
            .idempotency
            .check_key(&idempotency.key)?;
        self.start()?;
        let deadline = tokio::time::Instant::now() + self.shared.options.idempotency.wait_max;
        let (claim, claimed_at, taken_over) = loop {
            match self.claim(&idempotency, deadline).await? {
                Claimed::Replay(appended) => return Ok(appended),
                Claimed::Won(claim, at, taken_over) => break (claim, at, taken_over),
                Claimed::Lost => {}
            }
        };
        let mut keyed = Keyed {
            key_hash: xxh3_128(idempotency.key.as_bytes()),
            stored: BTreeMap::new(),
        };
        if let Some(begin) = taken_over {
            let (shared, hash) = (Arc::clone(&self.shared), keyed.key_hash);
            let scan = tokio::task::spawn_blocking(move || shared.scan_blocking(&begin, hash));
            let found = scan.await.unwrap_or_else(|e| {
                Err(Error::internal("looking for an earlier attempt failed").with_source(e))
            });
            match found {
                Ok(stored) => keyed.stored = stored,
                Err(error) => {
                    self.release(&idempotency, &claim).await;
                    return Err(error);
                }
            }
        }
        if settle_time(&self.shared.options) < claimed_at.elapsed() {
            self.release(&idempotency, &claim).await;
            return Err(key_not_settled("Kafka took too long to claim the key"));
        }
        let outcome = self.producer.append(batch, Some(keyed)).await;
        match &outcome {
            Ok(appended) => {
                let done = Event::done(&claim, &idempotency.answer, appended);
                // Without it a retry takes the claim over, finds every message, and stores nothing.
                if let Err(error) = self.write(&idempotency, &done).await {
                    tracing::debug!(%error, "the end of a request with a key is not noted");
                }
            }
            Err(error) if is_nothing_stored(error) => self.release(&idempotency, &claim).await,
            // The claim stays: what is on its way must arrive or die before anyone tries again.
            Err(_) => {}
        }
        outcome
    }

    /// One round: look, claim if the key is free, look again.
    async fn claim(
        &self,
        idempotency: &Idempotency,
        deadline: tokio::time::Instant,
    ) -> Result<Claimed> {
        self.shared.wait_read(0, deadline).await?;
        let key = idempotency.key.as_bytes();
        let body_hash = format!("{:032x}", idempotency.body_hash);
        loop {
            let news = self.shared.news.notified();
            tokio::pin!(news);
            news.as_mut().enable();
            match self.shared.look(key, &body_hash, "")? {
                Look::Replay(appended) => return Ok(Claimed::Replay(appended)),
                Look::Free => break,
                Look::Ours { .. } | Look::Wait => {}
            }
            // Time makes a key free, too.
            let until = deadline.min(tokio::time::Instant::now() + RETRY);
            let _ = timeout_at(until, news).await;
            self.shared.check_reachable()?;
            if deadline <= tokio::time::Instant::now() {
                return Err(unsettled(claim_time(&self.shared.options)));
            }
        }
        let claim = format!("{:032x}", rand::random::<u128>());
        let claimed_at = Instant::now();
        let event = Event::Claim {
            claim: claim.clone(),
            body_hash: body_hash.clone(),
            ends: self.shared.marks.end().0.into_iter().collect(),
        };
        let written = self.write(idempotency, &event).await;
        let offset = written.map_err(|error| match is_nothing_stored(&error) {
            true => error,
            // None of the lines, whatever becomes of the claim.
            false => key_not_settled("Kafka did not confirm the claim of the key in time"),
        })?;
        let read_by = tokio::time::Instant::now() + CLAIM_READ_MAX;
        if let Err(error) = self.shared.wait_read(offset + 1, read_by).await {
            self.release(idempotency, &claim).await;
            return Err(error);
        }
        match self.shared.look(key, &body_hash, &claim)? {
            Look::Replay(appended) => Ok(Claimed::Replay(appended)),
            Look::Ours { taken_over } => Ok(Claimed::Won(claim, claimed_at, taken_over)),
            Look::Free | Look::Wait => Ok(Claimed::Lost),
        }
    }

    async fn write(&self, idempotency: &Idempotency, event: &Event) -> Result<u64> {
        let json = serde_json::to_vec(event)
            .map_err(|e| Error::internal("cannot write a claim as JSON").with_source(e))?;
        let key = idempotency.key.as_bytes();
        self.producer
            .send_plain(&self.shared.names.keys, key, &json)
            .await
    }

    async fn release(&self, idempotency: &Idempotency, claim: &str) {
        let release = Event::Release {
            claim: claim.to_owned(),
        };
        // If Kafka is gone the claim ends by its age.
        if let Err(error) = self.write(idempotency, &release).await {
            tracing::debug!(%error, "a key is not released");
        }
    }

    /// The thread begins with the first key.
    fn start(&self) -> Result<()> {
        let mut thread = lock(&self.thread);
        if thread.is_none() {
            let shared = Arc::clone(&self.shared);
            let spawned = std::thread::Builder::new()
                .name("kafka-keys".to_owned())
                .spawn(move || shared.run());
            *thread = Some(spawned.map_err(|e| {
                Error::internal("cannot start the thread of idempotency keys").with_source(e)
            })?);
        }
        Ok(())
    }

    pub fn stop_blocking(&self) {
        self.shared.is_stopping.store(true, Ordering::Release);
        if let Some(thread) = lock(&self.thread).take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of idempotency keys had panicked");
        }
    }
}

enum Claimed {
    Replay(Appended),
    Won(String, Instant, Option<Checkpoint>),
    Lost,
}

fn is_nothing_stored(error: &Error) -> bool {
    !matches!(error.code, "outcome_unknown" | "partly_stored")
}

impl Shared {
    /// Waits until the topic was read up to `offset` (and to the end it had at the start).
    async fn wait_read(&self, offset: u64, deadline: tokio::time::Instant) -> Result<()> {
        loop {
            let news = self.news.notified();
            tokio::pin!(news);
            news.as_mut().enable();
            if lock(&self.state).next.is_some_and(|next| offset <= next) {
                return Ok(());
            }
            let until = deadline.min(tokio::time::Instant::now() + RETRY);
            let _ = timeout_at(until, news).await;
            self.check_reachable()?;
            if deadline <= tokio::time::Instant::now() {
                return Err(key_not_settled(
                    "the idempotency keys cannot be read from Kafka yet",
                ));
            }
        }
    }

    /// Waiting for a key makes sense only while Kafka answers.
    fn check_reachable(&self) -> Result<()> {
        match self.context.health.fault() {
            Some(fault) => Err(unreachable_unsettled(&fault)),
            None => Ok(()),
        }
    }

    fn look(&self, key: &[u8], body_hash: &str, claim: &str) -> Result<Look> {
        let state = lock(&self.state);
        let known = match state.ledger.get(key) {
            // The server's clock decides only whether to try; who wins is the topic's order.
            Some(_) if claim.is_empty() && state.ledger.is_free(key, body_hash, now_ms()) => None,
            known => known,
        };
        Ok(match known {
            None => Look::Free,
            Some(
                Known::Done {
                    body_hash: other, ..
                }
                | Known::Claimed {
                    body_hash: other, ..
                },
            ) if other != body_hash => return Err(conflict()),
            Some(Known::Done { appended, .. }) => Look::Replay(appended.clone()),
            Some(Known::Claimed {
                claim: owner,
                taken_over,
                ..
            }) if owner == claim => Look::Ours {
                taken_over: taken_over.clone(),
            },
            Some(Known::Claimed { .. }) => Look::Wait,
        })
    }

    fn run(&self) {
        let mut next = None;
        while !self.is_stopping.load(Ordering::Acquire) {
            if let Err(error) = self.follow(&mut next) {
                tracing::warn!(%error, "reading idempotency keys broke off; going on");
                std::thread::sleep(RETRY);
            }
        }
    }

    fn reader(&self) -> Result<BaseConsumer<Context>> {
        BaseConsumer::from_config_and_context(&client::reader(&self.options), self.context.clone())
            .map_err(|e| errors::client("make a Kafka consumer", e))
    }

    fn follow(&self, next: &mut Option<u64>) -> Result<()> {
        let consumer = self.reader()?;
        let topic = &self.names.keys;
        let (oldest, end) = consumer
            .fetch_watermarks(topic, 0, ASK_TIMEOUT)
            .map_err(|e| errors::client("read the idempotency keys", e))?;
        let end = u64::try_from(end).unwrap_or(0);
        let begin = match *next {
            Some(next) => Offset::Offset(i64::try_from(next).unwrap_or(i64::MAX)),
            None => self.begin(&consumer, oldest),
        };
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, 0, begin)
            .and_then(|()| consumer.assign(&list))
            .map_err(|e| errors::client("read the idempotency keys", e))?;
        let mut at = match begin {
            Offset::Offset(offset) => u64::try_from(offset).unwrap_or(0),
            _ => end,
        };
        self.note_read(at, end);
        while !self.is_stopping.load(Ordering::Acquire) {
            match consumer.poll(POLL) {
                None => {}
                Some(Ok(message)) => {
                    let time_ms = message.timestamp().to_millis().unwrap_or(0);
                    let event = serde_json::from_slice(message.payload().unwrap_or_default());
                    if let (Some(key), Ok(event)) = (message.key(), event) {
                        lock(&self.state).ledger.apply(key, event, time_ms);
                    }
                    at = u64::try_from(message.offset()).unwrap_or(0) + 1;
                    *next = Some(at);
                    self.note_read(at, end);
                }
                Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => {
                    return Err(errors::client("read the idempotency keys", error));
                }
                Some(Err(error)) => tracing::debug!(%error, "idempotency keys"),
            }
        }
        Ok(())
    }

    fn note_read(&self, at: u64, end: u64) {
        let mut state = lock(&self.state);
        if end <= at || state.next.is_some() {
            state.next = Some(at);
            drop(state);
            self.news.notify_waiters();
        }
    }

    /// Where the window begins.
    fn begin(&self, consumer: &BaseConsumer<Context>, oldest: i64) -> Offset {
        let window = self.options.idempotency.window + claim_time(&self.options);
        let window_ms = i64::try_from(window.as_millis()).unwrap_or(i64::MAX);
        let mut list = TopicPartitionList::new();
        let since = Offset::Offset(now_ms().saturating_sub(window_ms).max(0));
        let found = list
            .add_partition_offset(&self.names.keys, 0, since)
            .and_then(|()| consumer.offsets_for_times(list, ASK_TIMEOUT));
        let found = found.ok().and_then(|list| {
            let element = list.elements().into_iter().next();
            element.map(|element| element.offset())
        });
        match found {
            Some(offset @ Offset::Offset(0..)) => offset,
            // Nothing that young, or not known: from the oldest, which costs time and forgets nothing.
            _ => Offset::Offset(oldest.max(0)),
        }
    }

    /// Messages of this key at or after `begin`: index → position.
    fn scan_blocking(&self, begin: &Checkpoint, key_hash: u128) -> Result<BTreeMap<u32, Position>> {
        let consumer = self.reader()?;
        let partitions = self.marks.partitions();
        let end = edges(&consumer, &self.names, partitions, Offset::End)?;
        let mut left: Checkpoint = end.clone();
        left.0
            .retain(|partition, seq| begin.next_seq(*partition) < *seq);
        let offsets = left.0.keys().map(|partition| {
            let seq = i64::try_from(begin.next_seq(*partition)).unwrap_or(i64::MAX);
            (*partition, Offset::Offset(seq))
        });
        let list = list_of(&self.names, offsets)?;
        consumer
            .assign(&list)
            .map_err(|e| errors::client("look for an earlier attempt", e))?;
        let mut found = BTreeMap::new();
        let limit = Instant::now() + self.options.idempotency.wait_max;
        while !left.0.is_empty() {
            if limit < Instant::now() {
                self.check_reachable()?;
                return Err(key_not_settled(
                    "the lines of an earlier request with this idempotency key are not found or ruled out yet",
                ));
            }
            let Some(Ok(message)) = consumer.poll(POLL) else {
                continue;
            };
            let partition = partition_of(&self.names, message.topic(), message.partition());
            let (Some(partition), Ok(seq)) = (partition, u64::try_from(message.offset())) else {
                continue;
            };
            let mark = header_of(&message, HEADER_KEY).and_then(KeyMark::from_bytes);
            if let Some(mark) = mark.filter(|mark| mark.key_hash == key_hash) {
                found.insert(mark.index, Position { partition, seq });
            }
            if end.next_seq(partition) <= seq + 1 {
                left.0.remove(&partition);
            }
        }
        Ok(found)
    }
}
