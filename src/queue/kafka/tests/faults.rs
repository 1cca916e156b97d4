//! Brokers that are away, slow or unwilling: what was acknowledged is there, what was not is said so in time, and all goes on by itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::config::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use serde_json::json;

use crate::common::error::{Error, ErrorKind};
use crate::queue::contract::{batch, from, read_entries};
use crate::queue::kafka::tests::{Cluster, fresh_topic, make_topics, open, options};
use crate::queue::kafka::{KafkaQueue, KafkaQueueOptions};
use crate::queue::{Appended, Idempotency, Queue};

async fn mock(n_brokers: i32) -> (Cluster, Arc<KafkaQueue>) {
    mock_with(n_brokers, |options| options).await
}

async fn mock_with(
    n_brokers: i32,
    change: impl Fn(KafkaQueueOptions) -> KafkaQueueOptions,
) -> (Cluster, Arc<KafkaQueue>) {
    let cluster = MockCluster::new(n_brokers).unwrap();
    let topic = fresh_topic();
    make_topics(&cluster, &topic, 1);
    let options = change(options(&cluster.bootstrap_servers(), &topic));
    let queue = open(options).await;
    (cluster, queue)
}

async fn append(queue: &KafkaQueue, name: &str) -> Result<Appended, Error> {
    queue.append(batch(name, 3, 10), None).await
}

/// Appends until it works again; the names of what was acknowledged.
async fn append_until_accepted(queue: &KafkaQueue, prefix: &str) -> String {
    let deadline = Instant::now() + Duration::from_secs(30);
    for attempt in 0.. {
        let name = format!("{prefix}{attempt}");
        match append(queue, &name).await {
            Ok(_) => return name,
            Err(error) => {
                assert_eq!(error.kind, ErrorKind::Unavailable, "{error:?}");
                assert!(error.retry_after_s.is_some());
            }
        }
        assert!(Instant::now() < deadline, "it does not go on");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    unreachable!()
}

/// Each acknowledged batch is there once, whole.
async fn check_stored(queue: &KafkaQueue, acknowledged: &[String]) {
    let entries = read_entries(queue, 0).await;
    for name in acknowledged {
        let found = entries
            .iter()
            .filter(|(_, text)| text.starts_with(&format!("{name} ")));
        assert_eq!(found.count(), 3, "{name}: {entries:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_only_broker_goes_away_and_comes_back() {
    let (cluster, queue) = mock(1).await;
    let mut acknowledged = vec!["before".to_owned()];
    append(&queue, "before").await.unwrap();
    cluster.broker_down(1).unwrap();
    let started = Instant::now();
    let mut codes = Vec::new();
    while started.elapsed() < Duration::from_secs(8) {
        let asked = Instant::now();
        match append(&queue, "during").await {
            Ok(_) => panic!("acknowledged without a broker"),
            Err(error) => {
                assert_eq!(error.kind, ErrorKind::Unavailable);
                codes.push(error.code);
            }
        }
        // The message's time and its delivery report.
        assert!(asked.elapsed() < Duration::from_secs(8));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Once it is known, nothing is handed over any more: the refusal is certain, and quick.
    assert_eq!(codes.last(), Some(&"kafka_unreachable"), "{codes:?}");
    assert!(queue.backlog().fault.is_some());
    cluster.broker_up(1).unwrap();
    acknowledged.push(append_until_accepted(&queue, "after").await);
    assert_eq!(queue.backlog().fault, None);
    check_stored(&queue, &acknowledged).await;
}

/// A claim of another process, which never finishes.
fn claim_of_another(cluster: &Cluster, queue: &KafkaQueue, key: &str, body_hash: u128) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", cluster.bootstrap_servers())
        .create()
        .unwrap();
    let topic = format!("{}.idempotency", queue.options.topic);
    let claim = json!({"is": "claim", "claim": "another", "body_hash": format!("{body_hash:032x}"), "ends": []});
    let claim = claim.to_string();
    let record = BaseRecord::to(&topic).key(key).payload(&claim);
    producer.send(record).unwrap();
    producer.flush(Duration::from_secs(10)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_key_is_told_of_the_other_request_or_of_kafka_that_is_away() {
    let (cluster, queue) = mock_with(1, |options| {
        let mut changed = options;
        changed.idempotency.wait_max = Duration::from_secs(6);
        changed
    })
    .await;
    let keyed = || {
        let queue = Arc::clone(&queue);
        async move {
            let idempotency = Idempotency {
                key: "theirs".to_owned(),
                body_hash: 7,
                answer: Bytes::new(),
            };
            let outcome = queue.append(batch("k", 1, 10), Some(idempotency)).await;
            outcome.unwrap_err()
        }
    };
    claim_of_another(&cluster, &queue, "theirs", 7);
    let started = Instant::now();
    let error = keyed().await;
    assert!(Duration::from_secs(6) <= started.elapsed());
    assert_eq!(error.code, "idempotency_in_progress", "{error}");
    let started = Instant::now();
    let waiting = tokio::spawn(keyed());
    tokio::time::sleep(Duration::from_millis(300)).await;
    cluster.broker_down(1).unwrap();
    let error = waiting.await.unwrap();
    assert_eq!(error.code, "kafka_unreachable", "{error}");
    assert!(error.message.contains("an earlier request"), "{error}");
    assert!(started.elapsed() < Duration::from_millis(5900));
    cluster.broker_up(1).unwrap();
    let acknowledged = append_until_accepted(&queue, "after").await;
    check_stored(&queue, &[acknowledged]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_few_replicas_are_waited_for() {
    let (cluster, queue) = mock(1).await;
    append(&queue, "before").await.unwrap();
    let errors = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS; 3];
    cluster.request_errors(RDKafkaApiKey::Produce, &errors);
    append(&queue, "during").await.unwrap();
    let acknowledged = ["before", "during"].map(str::to_owned);
    check_stored(&queue, &acknowledged).await;
    assert_eq!(read_entries(&*queue, 0).await.len(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_never_come_end_in_an_honest_refusal() {
    let (cluster, queue) = mock_with(1, |options| KafkaQueueOptions {
        message_timeout: Duration::from_secs(2),
        ..options
    })
    .await;
    let errors = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS; 1000];
    cluster.request_errors(RDKafkaApiKey::Produce, &errors);
    let started = Instant::now();
    let error = append(&queue, "never").await.unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(6));
    assert_eq!(
        (error.kind, error.code),
        (ErrorKind::Unavailable, "outcome_unknown")
    );
    assert!(error.message.contains("3 of the 3 lines"), "{error}");
    cluster.clear_request_errors(RDKafkaApiKey::Produce);
    let acknowledged = append_until_accepted(&queue, "after").await;
    check_stored(&queue, &[acknowledged]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_kafka_refuses_is_no_success() {
    let (cluster, queue) = mock(1).await;
    let errors = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED];
    cluster.request_errors(RDKafkaApiKey::Produce, &errors);
    let error = append(&queue, "refused").await.unwrap_err();
    assert_eq!(error.code, "kafka_refused", "{error}");
    let acknowledged = append_until_accepted(&queue, "after").await;
    check_stored(&queue, &[acknowledged]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_broker_is_waited_for() {
    let (cluster, queue) = mock_with(1, |options| KafkaQueueOptions {
        message_timeout: Duration::from_secs(15),
        ..options
    })
    .await;
    append(&queue, "before").await.unwrap();
    let round_trip = Duration::from_secs(2);
    cluster.broker_round_trip_time(1, round_trip).unwrap();
    let started = Instant::now();
    let appends = (0..20).map(|i| {
        let queue = Arc::clone(&queue);
        tokio::spawn(async move { append(&queue, &format!("slow{i}")).await })
    });
    let mut acknowledged = vec!["before".to_owned()];
    for (i, task) in appends.collect::<Vec<_>>().into_iter().enumerate() {
        task.await.unwrap().unwrap();
        acknowledged.push(format!("slow{i}"));
    }
    let elapsed = started.elapsed();
    assert!(
        round_trip <= elapsed && elapsed < round_trip * 5,
        "{elapsed:?}"
    );
    cluster.broker_round_trip_time(1, Duration::ZERO).unwrap();
    check_stored(&queue, &acknowledged).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_buffer_is_refused_in_time_with_nothing_stored() {
    let (cluster, queue) = mock_with(1, |options| KafkaQueueOptions {
        buffer_bytes_max: 64 << 10,
        append_wait_max: Duration::from_millis(200),
        message_timeout: Duration::from_secs(60),
        ..options
    })
    .await;
    // Leaders and the producer's id are known before each round trip takes seconds.
    queue.append(batch("before", 1, 1000), None).await.unwrap();
    let round_trip = Duration::from_secs(3);
    cluster.broker_round_trip_time(1, round_trip).unwrap();
    let first = tokio::spawn({
        let queue = Arc::clone(&queue);
        async move { queue.append(batch("first", 60, 1000), None).await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    let started = Instant::now();
    let error = queue
        .append(batch("second", 60, 1000), None)
        .await
        .unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(1));
    assert_eq!(
        (error.kind, error.code),
        (ErrorKind::Unavailable, "queue_full")
    );
    first.await.unwrap().unwrap();
    cluster.broker_round_trip_time(1, Duration::ZERO).unwrap();
    // Far larger than the buffer: handed over piece by piece.
    let large = queue.append(batch("large", 2000, 1000), None).await;
    assert_eq!(large.unwrap().count, 2000);
    let entries = read_entries(&*queue, 0).await;
    assert_eq!(entries.len(), 2061);
    assert!(entries.iter().all(|(_, text)| !text.starts_with("second")));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_three_brokers_goes_away_and_nothing_acknowledged_with_it() {
    let (cluster, queue) = mock(3).await;
    let mut acknowledged = Vec::new();
    for i in 0..30 {
        match i {
            10 => {
                cluster.broker_down(1).unwrap();
                // The mock cluster elects no leader by itself.
                let topic = &queue.options.topic;
                cluster.partition_leader(topic, 0, Some(2)).unwrap();
            }
            20 => cluster.broker_up(1).unwrap(),
            _ => {}
        }
        // The partition's leader may be the one that is away.
        acknowledged.push(append_until_accepted(&queue, &format!("b{i}-")).await);
    }
    check_stored(&queue, &acknowledged).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_made_anew_is_not_read_in_silence() {
    let (_cluster, queue) = mock(1).await;
    append(&queue, "a").await.unwrap();
    let wait = Duration::from_secs(5);
    let deadline = Instant::now() + wait;
    let error = loop {
        match queue.read(&from(1000), 1000, wait).await {
            Err(error) => break error,
            Ok(batches) => assert!(batches.is_empty()),
        }
        assert!(Instant::now() < deadline);
    };
    assert_eq!(error.code, "kafka_topic_replaced");
    assert!(error.message.contains("ends at 3"), "{error}");
}
