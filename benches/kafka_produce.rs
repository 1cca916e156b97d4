//! `Queue::append` on a real Kafka beside librdkafka's own producer (a plain loop: same settings, same payloads), turn by turn in one run: once with
//! payloads that are ready, once with what the queue does, too, inside the measurement: each record as JSON, and a header of 23 bytes.
//!
//! `scripts/dev-stack up --only kafka`, `export $(scripts/dev-stack env)`, `cargo bench --bench kafka_produce [-- MESSAGES]`. CPU is this process's own,
//! user and system; GB are 10⁹ bytes of JSON.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a bench prints, and stops at the first fault; it finds the broker by the environment"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use logyard::common::metrics::Metrics;
use logyard::queue::{KafkaQueue, KafkaQueueOptions, Queue};
use logyard::record::{Batch, Checkpoint, EntryRef, SOURCE, ValueRef};
use logyard::wire::json::RecordDefaults;
use logyard::wire::native::decode::{Body, BodyDecoder, DecodeOptions, Hint};
use logyard::wire::native::encode::push_queued_record;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

mod machine;
#[path = "../tests/sandbox/stack.rs"]
mod stack;

use machine::Cpu;
use stack::delete_topics;

#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BATCH_LINES: usize = 1000;
/// Batches on their way at once, as clients that post at the same time.
const IN_FLIGHT: usize = 16;
const ROUNDS: usize = 5;

/// (key, payload) of each message.
type Messages = Vec<(Option<String>, Vec<u8>)>;

struct Figure {
    bytes_per_s: f64,
    cpu_s_per_gb: f64,
}

fn main() {
    let brokers = std::env::var("LOGYARD_DEV_KAFKA").expect(
        "no LOGYARD_DEV_KAFKA: scripts/dev-stack up --only kafka; export $(scripts/dev-stack env)",
    );
    let given = std::env::args().nth(1).and_then(|text| text.parse().ok());
    let n_messages: usize = given.unwrap_or(300_000);
    let topic = format!("logyard-bench-{}", std::process::id());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let options = KafkaQueueOptions {
        brokers: brokers.clone(),
        topic: topic.clone(),
        ..KafkaQueueOptions::default()
    };
    let batches = batches(n_messages);
    let messages = messages(&batches);
    let size_bytes: usize = messages.iter().map(|(_, payload)| payload.len()).sum();
    println!(
        "{} messages of {} bytes, batches of {BATCH_LINES}, {IN_FLIGHT} at once; {} rounds, best of each",
        messages.len(),
        size_bytes / messages.len(),
        ROUNDS
    );
    let metrics = Arc::new(Metrics::new());
    let stored = tokio::sync::watch::Sender::<Checkpoint>::default().subscribe();
    let queue = Arc::new(KafkaQueue::open_blocking(options, stored, metrics).unwrap());
    let plain = plain_producer(&brokers);
    let (mut ours, mut theirs, mut encoding) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        theirs.push(measured(size_bytes, || {
            produce_plain(&plain, &topic, &messages);
        }));
        encoding.push(measured(size_bytes, || {
            produce_encoding(&plain, &topic, &batches);
        }));
        ours.push(measured(size_bytes, || {
            runtime.block_on(append_all(&queue, &batches));
        }));
    }
    drop(queue);
    let (ours, theirs, encoding) = (best(&ours), best(&theirs), best(&encoding));
    println!("{:<38} {:>8} {:>9}", "", "MB/s", "CPU-s/GB");
    for (name, figure) in [
        ("librdkafka, plain loop", &theirs),
        ("librdkafka, plain loop that encodes", &encoding),
        ("Queue::append", &ours),
    ] {
        println!(
            "{name:<38} {:>8.1} {:>9.2}",
            figure.bytes_per_s / 1e6,
            figure.cpu_s_per_gb
        );
    }
    for (name, figure) in [("plain loop", &theirs), ("loop that encodes", &encoding)] {
        println!(
            "Queue::append / {name}: {:.2} of its throughput, {:.2} of its CPU",
            ours.bytes_per_s / figure.bytes_per_s,
            ours.cpu_s_per_gb / figure.cpu_s_per_gb
        );
    }
    delete_topics(&brokers, &topic).unwrap();
}

fn batches(n_messages: usize) -> Vec<Batch> {
    let mut decoder = BodyDecoder::new(DecodeOptions::default());
    let levels = ["INFO", "INFO", "INFO", "WARN", "ERROR"];
    (0..n_messages / BATCH_LINES)
        .map(|batch| {
            let lines: String = (0..BATCH_LINES)
                .map(|i| {
                    let n = batch * BATCH_LINES + i;
                    let hash = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                    format!(
                        "{{\"timestamp\":\"2025-03-20T{:02}:{:02}:{:02}.{:03}Z\",\"level\":\"{}\",\"source\":\"service-{}\",\"message\":\"request {n} for user {} finished\",\"trace_id\":\"{hash:016x}{n:016x}\",\"duration_ms\":{}.5,\"http\":{{\"status\":{},\"method\":\"GET\",\"path\":\"/api/v1/items/{}\"}}}}\n",
                        n / 3_600_000 % 24, n / 60_000 % 60, n / 1000 % 60, n % 1000,
                        levels[hash % 5], hash % 24, hash % 100_000, n % 900, 200 + hash % 3 * 100, hash % 5000,
                    )
                })
                .collect();
            let body = Body {
                bytes: lines.as_bytes(),
                hint: Hint::Json,
                defaults: RecordDefaults {
                    arrival_ns: 1_795_399_200_000_000_000,
                    source: None,
                    level: None,
                },
            };
            decoder.decode(&body).unwrap().batch
        })
        .collect()
}

/// What the queue makes of the batches.
fn messages(batches: &[Batch]) -> Messages {
    let mut messages = Vec::new();
    for entry in batches.iter().flat_map(Batch::entries) {
        let EntryRef::Record(record) = entry else {
            panic!("a made-up line is no record");
        };
        let mut payload = Vec::new();
        push_queued_record(&mut payload, record);
        let key = match record.field(SOURCE) {
            Some(ValueRef::Str(source)) => Some(source.to_owned()),
            _ => None,
        };
        messages.push((key, payload));
    }
    messages
}

/// The settings of the queue's producer.
fn plain_producer(brokers: &str) -> BaseProducer {
    let defaults = KafkaQueueOptions::default();
    ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", defaults.linger.as_millis().to_string())
        .set(
            "message.timeout.ms",
            defaults.message_timeout.as_millis().to_string(),
        )
        .set("compression.type", &defaults.compression)
        .set(
            "queue.buffering.max.kbytes",
            (defaults.buffer_bytes_max / 1024).to_string(),
        )
        .set("queue.buffering.max.messages", "0")
        .set("partitioner", "murmur2_random")
        .create()
        .unwrap()
}

fn produce_plain(producer: &BaseProducer, topic: &str, messages: &Messages) {
    for (key, payload) in messages {
        let mut record = BaseRecord::<str, [u8]>::to(topic).payload(payload);
        record.key = key.as_deref();
        send(producer, record);
    }
    producer.flush(Duration::from_secs(60)).unwrap();
}

fn produce_encoding(producer: &BaseProducer, topic: &str, batches: &[Batch]) {
    let mut payload = Vec::new();
    let mut header = [0_u8; 23];
    for entry in batches.iter().flat_map(Batch::entries) {
        let EntryRef::Record(source) = entry else {
            panic!("a made-up line is no record");
        };
        payload.clear();
        push_queued_record(&mut payload, source);
        header[10..18].copy_from_slice(&source.timestamp_ns.to_le_bytes());
        let headers = OwnedHeaders::new_with_capacity(1).insert(Header {
            key: "logyard",
            value: Some(&header[..]),
        });
        let mut record = BaseRecord::<str, [u8]>::to(topic)
            .payload(&payload)
            .headers(headers);
        record.key = match source.field(SOURCE) {
            Some(ValueRef::Str(source)) => Some(source),
            _ => None,
        };
        send(producer, record);
    }
    producer.flush(Duration::from_secs(60)).unwrap();
}

fn send(producer: &BaseProducer, mut record: BaseRecord<'_, str, [u8]>) {
    while let Err((error, again)) = producer.send(record) {
        assert!(matches!(
            error,
            KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)
        ));
        producer.poll(Duration::from_millis(10));
        record = again;
    }
    producer.poll(Duration::ZERO);
}

async fn append_all(queue: &Arc<KafkaQueue>, batches: &[Batch]) {
    let mut tasks = tokio::task::JoinSet::new();
    for batch in batches {
        if IN_FLIGHT <= tasks.len() {
            tasks.join_next().await.unwrap().unwrap();
        }
        let (queue, batch) = (Arc::clone(queue), batch.clone());
        tasks.spawn(async move {
            queue.append(batch, None).await.unwrap();
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

fn measured(size_bytes: usize, work: impl FnOnce()) -> Figure {
    let (started, cpu) = (Instant::now(), Cpu::now());
    work();
    Figure {
        bytes_per_s: size_bytes as f64 / started.elapsed().as_secs_f64(),
        cpu_s_per_gb: cpu.elapsed().as_secs_f64() / (size_bytes as f64 / 1e9),
    }
}

fn best(figures: &[Figure]) -> Figure {
    let by = |value: fn(&Figure) -> f64| figures.iter().map(value);
    Figure {
        bytes_per_s: by(|f| f.bytes_per_s).fold(0.0, f64::max),
        cpu_s_per_gb: by(|f| f.cpu_s_per_gb).fold(f64::INFINITY, f64::min),
    }
}
