//! The queue on librdkafka's mock cluster, which needs no server; what only real brokers show stands in [`real`], ignored by default.

mod exact;
mod faults;
mod real;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use tokio::sync::watch;

use crate::common::metrics::Metrics;
use crate::queue::contract::{Keeps, Limits, check_all};
use crate::queue::kafka::{KafkaQueue, KafkaQueueOptions};
use crate::queue::{IdempotencyOptions, Queue};
use crate::record::Checkpoint;

type Cluster = MockCluster<'static, DefaultProducerContext>;

/// Names of topics of this test run.
fn fresh_topic() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!(
        "logyard-test-{}-{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

fn options(brokers: &str, topic: &str) -> KafkaQueueOptions {
    KafkaQueueOptions {
        brokers: brokers.to_owned(),
        topic: topic.to_owned(),
        partitions: 1,
        replication: 1,
        min_insync_replicas: 1,
        message_timeout: Duration::from_secs(5),
        refresh_interval: Duration::from_millis(200),
        start_wait: Duration::from_secs(10),
        // The mock cluster never does.
        describe_wait: Duration::from_millis(50),
        idempotency: IdempotencyOptions {
            wait_max: Duration::from_secs(20),
            ..IdempotencyOptions::default()
        },
        ..KafkaQueueOptions::default()
    }
}

async fn open(options: KafkaQueueOptions) -> Arc<KafkaQueue> {
    open_with(options, watch::Sender::default().subscribe()).await
}

async fn open_with(
    options: KafkaQueueOptions,
    stored: watch::Receiver<Checkpoint>,
) -> Arc<KafkaQueue> {
    let metrics = Arc::new(Metrics::new());
    let opened =
        tokio::task::spawn_blocking(move || KafkaQueue::open_blocking(options, stored, metrics));
    Arc::new(opened.await.unwrap().unwrap())
}

/// The mock cluster does not make topics when asked to.
fn make_topics(cluster: &Cluster, topic: &str, partitions: i32) {
    for (name, partitions) in [
        (topic.to_owned(), partitions),
        (format!("{topic}.dead-letters"), 1),
        (format!("{topic}.idempotency"), 1),
    ] {
        cluster.create_topic(&name, partitions, 1).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_holds_on_kafka() {
    let cluster = MockCluster::new(1).unwrap();
    let brokers = cluster.bootstrap_servers();
    check_all(Keeps::Entries, |limits: Limits| {
        let topic = fresh_topic();
        make_topics(&cluster, &topic, 1);
        let options = KafkaQueueOptions {
            subscriber_batches_max: limits.subscriber_batches_max,
            ..options(&brokers, &topic)
        };
        async move {
            let queue: Arc<dyn Queue> = open(options).await;
            queue
        }
    })
    .await;
}
