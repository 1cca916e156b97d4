//! Appends: a batch's entries become messages, and the append returns when Kafka has confirmed each of them.
//!
//! A batch costs one shared count, not one future for each message: the delivery reports count it down on the thread `kafka-produce`, and the last
//! one wakes the append. Memory is bounded by a budget of bytes that wait for their report; who finds no room in time is refused before anything
//! was handed over. A batch that is larger than a piece of the budget is handed over piece by piece, apart from the threads that serve HTTP.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::common::error::{Error, Result};
use crate::queue::Appended;
use crate::queue::kafka::KafkaQueueOptions;
use crate::queue::kafka::client::{self, Context};
use crate::queue::kafka::encode::{Encoded, Encoder};
use crate::queue::kafka::errors::{
    buffer_full, lock, outcome_unknown, partly_stored, record_too_large, refused,
};
use crate::queue::kafka::marks::Marks;
use crate::queue::kafka::message::KeyMark;
use crate::queue::kafka::topics::TopicNames;
use crate::record::{Batch, Checkpoint, EntryRef, Position};

/// What one piece of a batch reserves of the budget.
const PIECE_BYTES: usize = 256 << 10;
/// Batches up to this size are handed over where they are.
const INLINE_BYTES_MAX: usize = 64 << 10;
/// Delivery reports come within the message's time; this much later something is broken.
const REPORT_SLACK: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(100);

pub(super) struct Producer {
    link: Arc<Link>,
    budget: Arc<Semaphore>,
    marks: Arc<Marks>,
    names: TopicNames,
    options: KafkaQueueOptions,
    message_bytes_max: usize,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// The producer in use. One that failed for good is replaced.
struct Link {
    current: RwLock<Arc<BaseProducer<Reports>>>,
    is_stopping: AtomicBool,
}

impl Link {
    fn current(&self) -> Arc<BaseProducer<Reports>> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&current)
    }
}

/// A batch with a key: what marks its messages, and which of them an earlier attempt has stored already.
#[derive(Clone, Debug, Default)]
pub(super) struct Keyed {
    pub key_hash: u128,
    pub stored: BTreeMap<u32, Position>,
}

impl Producer {
    pub fn open(
        options: &KafkaQueueOptions,
        names: &TopicNames,
        context: &Context,
        marks: &Arc<Marks>,
        message_bytes_max: usize,
    ) -> Result<Self> {
        let make = {
            let config = client::producer(options, message_bytes_max);
            let context = context.clone();
            move || {
                let reports = Reports(context.clone());
                BaseProducer::from_config_and_context(&config, reports)
            }
        };
        let producer =
            make().map_err(|e| crate::queue::kafka::errors::client("make a producer", e))?;
        let link = Arc::new(Link {
            current: RwLock::new(Arc::new(producer)),
            is_stopping: AtomicBool::new(false),
        });
        let thread = std::thread::Builder::new()
            .name("kafka-produce".to_owned())
            .spawn({
                let link = Arc::clone(&link);
                move || report(&link, make)
            })
            .map_err(|e| Error::internal("cannot start the producer's thread").with_source(e))?;
        Ok(Self {
            link,
            budget: Arc::new(Semaphore::new(permits(options.buffer_bytes_max) as usize)),
            marks: Arc::clone(marks),
            names: names.clone(),
            options: options.clone(),
            message_bytes_max,
            thread: Mutex::new(Some(thread)),
        })
    }

    pub async fn append(&self, batch: Batch, keyed: Option<Keyed>) -> Result<Appended> {
        self.check_sizes(&batch)?;
        let size_bytes = batch.as_bytes().len();
        let piece = self.reserve(size_bytes, self.options.append_wait_max);
        let piece = piece
            .await
            .ok_or_else(|| buffer_full(self.options.buffer_bytes_max))?;
        let (reply, answer) = oneshot::channel();
        let pending = Arc::new(Pending::new(batch.len(), reply, Arc::clone(&self.marks)));
        let job = Job {
            producer: self.link.current(),
            names: self.names.clone(),
            pending: Arc::clone(&pending),
            batch,
            keyed,
        };
        if size_bytes <= INLINE_BYTES_MAX {
            job.hand_over(piece, |_| None);
        } else {
            let handle = Handle::current();
            let budget = Arc::clone(&self.budget);
            let total = permits(self.options.buffer_bytes_max);
            // For all of it: nobody waits for longer, and a claim of a key that outlives this must be sure that nothing follows.
            let until = Instant::now() + self.options.message_timeout;
            tokio::task::spawn_blocking(move || {
                job.hand_over(piece, |size_bytes| {
                    let wait = until.saturating_duration_since(Instant::now());
                    handle.block_on(reserve(&budget, total, size_bytes, wait))
                });
            });
        }
        let limit = self.options.message_timeout * 2 + REPORT_SLACK;
        match tokio::time::timeout(limit, answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => Err(pending.gone()),
        }
    }

    /// One message that nobody waits for longer than its time.
    pub async fn send_letter_note(&self, letter: Encoded<'_>) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        let pending = Arc::new(Pending::new(1, reply, Arc::clone(&self.marks)));
        let piece = reserve(&self.budget, u32::MAX, 0, self.options.append_wait_max).await;
        let piece = piece.ok_or_else(|| buffer_full(self.options.buffer_bytes_max))?;
        let ticket = Arc::new(Ticket {
            pending: Arc::clone(&pending),
            is_first: true,
            _piece: Some(Arc::new(piece)),
        });
        send(&self.link.current(), &self.names, &letter, None, ticket);
        answer
            .await
            .unwrap_or_else(|_| Err(pending.gone()))
            .map(drop)
    }

    /// A message of the idempotency topic; gives its offset.
    pub async fn send_plain(&self, topic: &str, key: &[u8], payload: &[u8]) -> Result<u64> {
        let (reply, answer) = oneshot::channel();
        let pending = Arc::new(Pending::new(1, reply, Arc::default()));
        let piece = reserve(
            &self.budget,
            u32::MAX,
            payload.len(),
            self.options.append_wait_max,
        );
        let piece = piece
            .await
            .ok_or_else(|| buffer_full(self.options.buffer_bytes_max))?;
        let ticket = Arc::new(Ticket {
            pending: Arc::clone(&pending),
            is_first: true,
            _piece: Some(Arc::new(piece)),
        });
        let record = BaseRecord::with_opaque_to(topic, ticket)
            .key(key)
            .payload(payload);
        if let Err((error, record)) = self.link.current().send(record) {
            record.delivery_opaque.pending.failed(&error);
        }
        let appended = answer.await.unwrap_or_else(|_| Err(pending.gone()))?;
        Ok(appended.first.seq)
    }

    async fn reserve(&self, size_bytes: usize, wait: Duration) -> Option<OwnedSemaphorePermit> {
        let total = permits(self.options.buffer_bytes_max);
        reserve(&self.budget, total, size_bytes, wait).await
    }

    /// A topic that takes less than we let in refuses the batch before any of it is written.
    fn check_sizes(&self, batch: &Batch) -> Result<()> {
        let limit = self.message_bytes_max;
        if batch.as_bytes().len() < limit / 8 {
            return Ok(());
        }
        let mut encoder = Encoder::default();
        for entry in batch.entries() {
            let size_bytes = match entry {
                EntryRef::Record(record) => record.size_bytes(),
                EntryRef::DeadLetter(letter) => letter.raw.len(),
            };
            if limit / 8 <= size_bytes {
                let message_bytes = encoder.encode(entry, batch.arrival_ns()).size_bytes();
                if limit < message_bytes {
                    return Err(record_too_large(message_bytes, limit));
                }
            }
        }
        Ok(())
    }

    /// Ends the thread; what is on its way is reported as failed.
    pub fn stop_blocking(&self) {
        self.link.is_stopping.store(true, Ordering::Release);
        if let Some(thread) = lock(&self.thread).take()
            && thread.join().is_err()
        {
            tracing::error!("the producer's thread had panicked");
        }
    }
}

/// The budget counts KiB.
fn permits(size_bytes: usize) -> u32 {
    u32::try_from(size_bytes / 1024 + 1).unwrap_or(u32::MAX >> 3)
}

/// Room for a piece of a batch of which `size_bytes` are left; `None` if there is none in time.
async fn reserve(
    budget: &Arc<Semaphore>,
    total: u32,
    size_bytes: usize,
    wait: Duration,
) -> Option<OwnedSemaphorePermit> {
    let wanted = permits(size_bytes.min(PIECE_BYTES)).min(total);
    let room = Arc::clone(budget).acquire_many_owned(wanted);
    tokio::time::timeout(wait, room).await.ok()?.ok()
}

/// The thread that takes delivery reports.
fn report(link: &Link, make: impl Fn() -> Result<BaseProducer<Reports>, KafkaError>) {
    while !link.is_stopping.load(Ordering::Acquire) {
        let producer = link.current();
        producer.poll(POLL);
        let Some((code, why)) = producer.client().fatal_error() else {
            continue;
        };
        tracing::warn!(%code, why, "the Kafka producer failed for good; a new one takes over");
        match make() {
            Ok(new) => {
                *link.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
            }
            Err(error) => {
                tracing::error!(%error, "a new Kafka producer cannot be made; trying again");
                std::thread::sleep(Duration::from_secs(1));
            }
        }
    }
}

/// Handing over one batch.
struct Job {
    producer: Arc<BaseProducer<Reports>>,
    names: TopicNames,
    pending: Arc<Pending>,
    batch: Batch,
    keyed: Option<Keyed>,
}

impl Job {
    /// `reserve` gives room for more when `piece` is used up: for so many bytes that are left, or `None` when there is none in time.
    fn hand_over(
        self,
        piece: OwnedSemaphorePermit,
        reserve: impl Fn(usize) -> Option<OwnedSemaphorePermit>,
    ) {
        let mut encoder = Encoder::for_batch(&self.batch);
        let mut left_bytes = self.batch.as_bytes().len();
        let mut room_bytes = left_bytes.min(PIECE_BYTES);
        let mut piece = Some(Arc::new(piece));
        let mut rest: Option<Arc<Ticket>> = None;
        for (index, entry) in (0_u32..).zip(self.batch.entries()) {
            if let Some(position) = self.keyed.as_ref().and_then(|k| k.stored.get(&index)) {
                self.pending.delivered(*position, index == 0);
                continue;
            }
            let message = encoder.encode(entry, self.batch.arrival_ns());
            if room_bytes == 0 && INLINE_BYTES_MAX < self.batch.as_bytes().len() {
                // Given back when the last of its messages is reported, not held while waiting for the next.
                drop(piece.take());
                rest = None;
                let Some(more) = reserve(left_bytes.max(message.payload.len())) else {
                    let unsent = self.batch.len() - index;
                    return self.pending.abandon(unsent, "its buffer is full");
                };
                room_bytes = left_bytes.clamp(1, PIECE_BYTES);
                piece = Some(Arc::new(more));
            }
            let size_bytes = message.size_bytes();
            room_bytes = room_bytes.saturating_sub(size_bytes);
            left_bytes = left_bytes.saturating_sub(size_bytes);
            let ticket = |is_first| {
                Arc::new(Ticket {
                    pending: Arc::clone(&self.pending),
                    is_first,
                    _piece: piece.clone(),
                })
            };
            let ticket = match index {
                0 => ticket(true),
                _ => Arc::clone(rest.get_or_insert_with(|| ticket(false))),
            };
            let mark = self.keyed.as_ref().map(|keyed| KeyMark {
                key_hash: keyed.key_hash,
                index,
            });
            send(&self.producer, &self.names, &message, mark, ticket);
        }
    }
}

fn send(
    producer: &BaseProducer<Reports>,
    names: &TopicNames,
    message: &Encoded<'_>,
    mark: Option<KeyMark>,
    ticket: Arc<Ticket>,
) {
    let topic = match message.is_letter {
        false => &names.records,
        true => &names.letters,
    };
    let mut record = BaseRecord::<str, [u8], _>::with_opaque_to(topic, ticket)
        .payload(message.payload)
        .headers(message.headers(mark));
    record.key = message.key;
    if let Err((error, record)) = producer.send(record) {
        record.delivery_opaque.pending.failed(&error);
    }
}

/// What goes with each message: whose it is, and the room it takes.
pub(super) struct Ticket {
    pending: Arc<Pending>,
    /// The batch's first entry.
    is_first: bool,
    _piece: Option<Arc<OwnedSemaphorePermit>>,
}

/// A batch on its way.
struct Pending {
    state: Mutex<PendingState>,
    count: u32,
    marks: Arc<Marks>,
}

struct PendingState {
    remaining: u32,
    first: Option<Position>,
    covers: Checkpoint,
    /// Kafka said no, for certain.
    refused: u32,
    unknown: u32,
    why: String,
    reply: Option<oneshot::Sender<Result<Appended>>>,
}

impl Pending {
    fn new(count: u32, reply: oneshot::Sender<Result<Appended>>, marks: Arc<Marks>) -> Self {
        Self {
            state: Mutex::new(PendingState {
                remaining: count,
                first: None,
                covers: Checkpoint::default(),
                refused: 0,
                unknown: 0,
                why: String::new(),
                reply: Some(reply),
            }),
            count,
            marks,
        }
    }

    fn delivered(&self, position: Position, is_first: bool) {
        let mut state = lock(&self.state);
        state.covers.advance(position.partition, position.seq + 1);
        if is_first {
            state.first = Some(position);
        }
        self.settle(&mut state, 1);
    }

    fn failed(&self, error: &KafkaError) {
        let mut state = lock(&self.state);
        match is_certain(error) {
            true => state.refused += 1,
            false => state.unknown += 1,
        }
        if state.why.is_empty() {
            state.why = error
                .rdkafka_error_code()
                .map_or_else(|| error.to_string(), |code| code.to_string());
        }
        self.settle(&mut state, 1);
    }

    /// So many entries were never handed over.
    fn abandon(&self, count: u32, why: &str) {
        let mut state = lock(&self.state);
        state.refused += count;
        why.clone_into(&mut state.why);
        self.settle(&mut state, count);
    }

    fn settle(&self, state: &mut PendingState, count: u32) {
        state.remaining = state.remaining.saturating_sub(count);
        if state.remaining != 0 {
            return;
        }
        self.marks.advance_end(&state.covers);
        let outcome = self.outcome(state);
        if let Some(reply) = state.reply.take() {
            // Whoever waited may have left; the lines are stored all the same.
            let _ = reply.send(outcome);
        }
    }

    fn outcome(&self, state: &PendingState) -> Result<Appended> {
        let failed = state.refused + state.unknown;
        if 0 < state.unknown {
            return Err(outcome_unknown(state.unknown, self.count, &state.why));
        }
        if 0 < failed {
            let stored = self.count - failed;
            return Err(match stored {
                0 => refused(self.count, &state.why),
                stored => partly_stored(stored, self.count, &state.why),
            });
        }
        Ok(Appended {
            first: state.first.unwrap_or_default(),
            count: self.count,
            covers: state.covers.clone(),
            replayed: None,
        })
    }

    /// No report came at all.
    fn gone(&self) -> Error {
        let remaining = lock(&self.state).remaining;
        outcome_unknown(remaining, self.count, "no delivery report")
    }
}

/// True if the message was not written, and never will be.
fn is_certain(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::QueueFull
                | RDKafkaErrorCode::MessageSizeTooLarge
                | RDKafkaErrorCode::InvalidMessageSize
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownPartition
                | RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::ClusterAuthorizationFailed
                | RDKafkaErrorCode::PolicyViolation
                | RDKafkaErrorCode::InvalidRecord
        )
    )
}

/// Where delivery reports arrive.
pub(super) struct Reports(Context);

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.0.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.error(error, reason);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Arc<Ticket>;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Self::DeliveryOpaque) {
        let message = match result {
            Ok(message) => message,
            Err((error, _)) => return ticket.pending.failed(error),
        };
        let (Ok(partition), Ok(seq)) = (
            u32::try_from(message.partition()),
            u64::try_from(message.offset()),
        ) else {
            return ticket.pending.failed(&KafkaError::Canceled);
        };
        let bit = match message.topic().ends_with(TopicNames::LETTERS_SUFFIX) {
            true => Position::LETTER_PARTITIONS,
            false => 0,
        };
        let position = Position {
            partition: partition | bit,
            seq,
        };
        ticket.pending.delivered(position, ticket.is_first);
    }
}
