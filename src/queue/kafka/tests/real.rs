//! What only real brokers show: groups that share partitions, keys across processes. They find the brokers by `LOGYARD_DEV_KAFKA`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use tokio::sync::watch;

use crate::common::error::ErrorKind;
use crate::queue::Queue;
use crate::queue::contract::{Keeps, Limits, batch, check_all, entries_of, key};
use crate::queue::kafka::tests::{fresh_topic, open, open_with, options};
use crate::queue::kafka::{Consuming, KafkaQueue, KafkaQueueOptions};
use crate::record::{BatchBuilder, Checkpoint, Flags, Position, ValueRef};

#[expect(
    clippy::disallowed_methods,
    reason = "tests find the servers by the environment that scripts/dev-stack prints"
)]
fn brokers() -> String {
    match std::env::var("LOGYARD_DEV_KAFKA") {
        Ok(brokers) if !brokers.is_empty() => brokers,
        _ => panic!(
            "needs real servers: scripts/dev-stack up, then scripts/test (LOGYARD_DEV_KAFKA is not set)"
        ),
    }
}

/// A topic's name; its topics are deleted at the end.
struct Topic(String);

impl Topic {
    fn new() -> Self {
        Self(fresh_topic())
    }

    fn options(&self) -> KafkaQueueOptions {
        KafkaQueueOptions {
            group: format!("{}-group", self.0),
            describe_wait: Duration::from_secs(5),
            ..options(&brokers(), &self.0)
        }
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
            .set("bootstrap.servers", brokers())
            .create()
            .unwrap();
        let names =
            ["", ".dead-letters", ".idempotency"].map(|suffix| format!("{}{suffix}", self.0));
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let _ = futures::executor::block_on(admin.delete_topics(&names, &AdminOptions::new()));
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs real servers: scripts/dev-stack up, then scripts/test"]
async fn the_contract_holds_on_a_real_broker() {
    let topics = std::sync::Mutex::new(Vec::new());
    check_all(Keeps::Entries, |limits: Limits| {
        let topic = Topic::new();
        let options = KafkaQueueOptions {
            subscriber_batches_max: limits.subscriber_batches_max,
            ..topic.options()
        };
        topics.lock().unwrap().push(topic);
        async move {
            let queue: Arc<dyn Queue> = open(options).await;
            queue
        }
    })
    .await;
}

/// Records of many sources, so that all partitions get some.
async fn append_spread(queue: &KafkaQueue, from: u32, count: u32) {
    let mut builder = BatchBuilder::new(i64::from(from));
    for n in from..from + count {
        let (source, message) = (format!("s{}", n % 31), n.to_string());
        builder.begin_record();
        builder.field("source", ValueRef::Str(&source));
        builder.field("message", ValueRef::Str(&message));
        builder.end_record(i64::from(n), 3, Flags::default());
    }
    queue.append(builder.finish(), None).await.unwrap();
}

/// What indexers share: which entries are stored, by position, and up to where. As Elasticsearch, it takes an entry twice and keeps one.
#[derive(Default)]
struct SharedStore {
    entries: std::sync::Mutex<BTreeMap<Position, String>>,
    checkpoint: watch::Sender<Checkpoint>,
}

/// Reads and stores until told to stop; the partitions that it got anything from.
async fn index(
    queue: Arc<KafkaQueue>,
    store: Arc<SharedStore>,
    stop: watch::Receiver<bool>,
) -> Vec<u32> {
    let mut from = Checkpoint::default();
    let mut partitions = Vec::new();
    while !*stop.borrow() {
        let wait = Duration::from_millis(100);
        let batches = queue.read(&from, 20_000, wait).await.unwrap();
        for queued in batches {
            let partition = queued.first.partition;
            if !partitions.contains(&partition) {
                partitions.push(partition);
            }
            let mut entries = store.entries.lock().unwrap();
            for (position, text) in entries_of(&queued) {
                let known = entries.insert(position, text.clone());
                assert!(known.is_none_or(|known| known == text));
            }
            drop(entries);
            from.advance(partition, queued.next_seq());
            store
                .checkpoint
                .send_modify(|checkpoint| checkpoint.advance(partition, queued.next_seq()));
        }
        queue.release(&from).await.unwrap();
    }
    partitions
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs real servers: scripts/dev-stack up, then scripts/test"]
async fn indexers_share_the_partitions_and_nothing_is_lost_when_they_come_and_go() {
    let topic = Topic::new();
    let store = Arc::new(SharedStore::default());
    let group = KafkaQueueOptions {
        partitions: 6,
        consuming: Consuming::Group,
        ..topic.options()
    };
    let producer = open(group.clone()).await;
    let mut running = Vec::new();
    let mut left_partitions = Vec::new();
    let total = 12_000;
    for round in 0..6 {
        // One more, or one less.
        match round {
            0 | 1 | 2 | 4 => {
                let queue = open_with(group.clone(), store.checkpoint.subscribe()).await;
                let (stop, stopped) = watch::channel(false);
                let task = tokio::spawn(index(queue, Arc::clone(&store), stopped));
                running.push((stop, task));
            }
            _ => {
                let (stop, task) = running.remove(0);
                stop.send_replace(true);
                left_partitions.push(task.await.unwrap());
            }
        }
        for part in 0..20 {
            append_spread(&producer, round * 2000 + part * 100, 100).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    while store.entries.lock().unwrap().len() < total {
        assert!(
            Instant::now() < deadline,
            "{} of {total}",
            store.entries.lock().unwrap().len()
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let mut texts: Vec<u32> = store
        .entries
        .lock()
        .unwrap()
        .values()
        .map(|text| text.parse().unwrap())
        .collect();
    texts.sort_unstable();
    assert!(texts.into_iter().eq(0..12_000));
    // The partitions were shared: the first had all, later ones had some.
    assert_eq!(left_partitions[0].len(), 6);
    for (stop, task) in running {
        stop.send_replace(true);
        let partitions = task.await.unwrap().len();
        assert!(0 < partitions && partitions < 6, "{partitions}");
    }
    // Progress is committed, for others to see.
    let deadline = Instant::now() + Duration::from_secs(30);
    let end = producer.backlog().end;
    while !producer.backlog().released.includes(&end) {
        assert!(Instant::now() < deadline, "{:?}", producer.backlog());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Messages of a transaction, which leaves a marker behind them in every partition that it wrote to.
fn transact(topic: &Topic, texts: &[&str], is_committed: bool) {
    let wait = Duration::from_secs(20);
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", brokers())
        .set("transactional.id", &topic.0)
        .create()
        .unwrap();
    producer.init_transactions(wait).unwrap();
    producer.begin_transaction().unwrap();
    for text in texts {
        let record = BaseRecord::<(), str>::to(&topic.0).payload(text);
        producer.send(record).unwrap();
    }
    producer.flush(wait).unwrap();
    match is_committed {
        true => producer.commit_transaction(wait).unwrap(),
        false => producer.abort_transaction(wait).unwrap(),
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs real servers: scripts/dev-stack up, then scripts/test"]
async fn markers_of_transactions_at_the_end_are_no_lag() {
    for consuming in [Consuming::Assigned, Consuming::Group] {
        let topic = Topic::new();
        let options = KafkaQueueOptions {
            consuming,
            ..topic.options()
        };
        let queue = open(options.clone()).await;
        queue.append(batch("before", 2, 1), None).await.unwrap();
        // Offsets 2 and 3 and a marker; then one message that is never read, and a marker.
        transact(&topic, &["a", "b"], true);
        transact(&topic, &["never"], false);
        let mut from = Checkpoint::default();
        let deadline = Instant::now() + Duration::from_secs(60);
        while !(queue.backlog().released.next_seq(0) == 7 && from.includes(&queue.backlog().end)) {
            assert!(Instant::now() < deadline, "{from:?} {:?}", queue.backlog());
            let wait = Duration::from_millis(200);
            for queued in queue.read(&from, 1000, wait).await.unwrap() {
                from.advance(0, queued.next_seq());
            }
            queue.release(&from).await.unwrap();
        }
        assert_eq!(from.next_seq(0), 4, "what was read");
        let started = Instant::now();
        let nothing = queue.read(&from, 1000, Duration::from_millis(50)).await;
        assert!(nothing.unwrap().is_empty());
        assert!(started.elapsed() < Duration::from_secs(1), "nothing is due");
        // What comes after them is read.
        queue.append(batch("after", 1, 1), None).await.unwrap();
        assert_eq!(queue.backlog().end.next_seq(0), 8);
        let next = loop {
            let wait = Duration::from_secs(5);
            let found = queue.read(&from, 1000, wait).await.unwrap();
            if let Some(first) = found.first() {
                break first.first.seq;
            }
        };
        assert_eq!(next, 7);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs real servers: scripts/dev-stack up, then scripts/test"]
async fn a_key_is_known_to_every_process_and_after_a_restart() {
    let topic = Topic::new();
    let first = open(topic.options()).await;
    let second = open(topic.options()).await;
    // At once, from both.
    let tasks: Vec<_> = [&first, &second, &first, &second]
        .into_iter()
        .map(|queue| {
            let queue = Arc::clone(queue);
            tokio::spawn(async move { queue.append(batch("a", 5, 10), key("k", 1)).await })
        })
        .collect();
    let mut n_new = 0;
    for task in tasks {
        let appended = task.await.unwrap().unwrap();
        n_new += u32::from(appended.replayed.is_none());
        assert_eq!(appended.covers.next_seq(0), 5);
    }
    assert_eq!(n_new, 1);
    let other = second.append(batch("b", 1, 1), key("k", 2)).await;
    assert_eq!(other.unwrap_err().kind, ErrorKind::Conflict);
    drop((first, second));
    let third = open(topic.options()).await;
    let again = third.append(batch("a", 5, 10), key("k", 1)).await.unwrap();
    assert_eq!(again.replayed.unwrap(), "answer to k");
    assert_eq!(third.backlog().end.next_seq(0), 5);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs real servers: scripts/dev-stack up, then scripts/test"]
async fn a_request_that_broke_off_is_completed_by_its_retry() {
    use crate::queue::kafka::ledger::Event;
    use crate::queue::kafka::produce::Keyed;
    use xxhash_rust::xxh3::xxh3_128;

    let topic = Topic::new();
    let options = KafkaQueueOptions {
        message_timeout: Duration::from_secs(2),
        append_wait_max: Duration::from_millis(100),
        ..topic.options()
    };
    let queue = open(options.clone()).await;
    queue.append(batch("before", 3, 1), None).await.unwrap();
    // As a process leaves it that dies between two of its messages: a claim, and a part of the batch.
    let claim = Event::Claim {
        claim: "dead".to_owned(),
        body_hash: format!("{:032x}", 1),
        ends: queue.backlog().end.0.into_iter().collect(),
    };
    let json = serde_json::to_vec(&claim).unwrap();
    let keys = format!("{}.idempotency", topic.0);
    queue.producer.send_plain(&keys, b"k", &json).await.unwrap();
    let keyed = Keyed {
        key_hash: xxh3_128(b"k"),
        stored: [(1, Position::default()), (3, Position::default())].into(),
    };
    // Messages 0, 2 and 4 of five.
    queue
        .producer
        .append(batch("a", 5, 10), Some(keyed))
        .await
        .unwrap();
    queue.append(batch("after", 2, 1), None).await.unwrap();
    let started = Instant::now();
    let appended = queue.append(batch("a", 5, 10), key("k", 1)).await.unwrap();
    assert!(
        Duration::from_secs(1) < started.elapsed(),
        "taken over at once"
    );
    assert_eq!((appended.count, appended.replayed), (5, None));
    assert_eq!(appended.covers.next_seq(0), 10);
    let entries = crate::queue::contract::read_entries(&*queue, 0).await;
    let mut texts: Vec<_> = entries
        .iter()
        .map(|(_, text)| text.split(" x").next().unwrap().to_owned())
        .collect();
    texts.sort();
    let expected = [
        "a 0", "a 1", "a 2", "a 3", "a 4", "after 0", "after 1", "before 0", "before 1", "before 2",
    ];
    assert_eq!(texts, expected);
}
