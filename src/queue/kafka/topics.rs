//! The topics: made where they are missing, and looked at: do they promise what was asked for?

use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;

use crate::common::error::{Error, Result};
use crate::queue::kafka::KafkaQueueOptions;
use crate::queue::kafka::client::{self, Context};
use crate::queue::kafka::errors::{self, is_refusal};
use crate::queue::kafka::marks::Partitions;

const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// The first question waits so long: a refusal is there much sooner, and ends no question.
const PATIENCE_MIN: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_millis(500);
/// A broker that has only begun may not know its users yet.
const REFUSALS_MAX: u32 = 2;

/// The names of the topics of one queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TopicNames {
    pub records: String,
    pub letters: String,
    pub keys: String,
}

impl TopicNames {
    pub const LETTERS_SUFFIX: &str = ".dead-letters";
    pub const KEYS_SUFFIX: &str = ".idempotency";

    pub fn of(topic: &str) -> Self {
        Self {
            records: topic.to_owned(),
            letters: format!("{topic}{}", Self::LETTERS_SUFFIX),
            keys: format!("{topic}{}", Self::KEYS_SUFFIX),
        }
    }
}

/// How a topic is set up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Topic {
    pub partitions: u32,
    /// Of the partition that has the fewest.
    pub replication: u32,
}

/// What is to be had.
struct Wanted<'a> {
    name: &'a str,
    partitions: u32,
    retention: Duration,
    is_stamped_by_broker: bool,
}

/// Finds the topics, makes those that are missing, and says how large a message may be. Waits for Kafka as long as the options allow, but not for one
/// that refuses us.
pub(super) fn ensure_blocking(
    asker: &BaseConsumer<Context>,
    options: &KafkaQueueOptions,
    names: &TopicNames,
    context: &Context,
) -> Result<(Partitions, usize)> {
    let deadline = Instant::now() + options.start_wait;
    let mut patience = PATIENCE_MIN;
    let mut refusals = 0;
    let mut is_told = false;
    loop {
        let error = match try_ensure(asker, options, names, context, patience) {
            Ok(found) => {
                context.health.clear_fault();
                return Ok(found);
            }
            Err(error) => error,
        };
        client::listen_blocking(asker);
        let error = context.health.explain(error);
        refusals += u32::from(is_refusal(&error));
        if REFUSALS_MAX <= refusals || deadline <= Instant::now() {
            return Err(error);
        }
        if !is_told {
            tracing::warn!(%error, brokers = options.brokers, "waiting for Kafka");
            is_told = true;
        }
        patience = (patience * 2).min(ASK_TIMEOUT);
        std::thread::sleep(RETRY);
    }
}

fn try_ensure(
    asker: &BaseConsumer<Context>,
    options: &KafkaQueueOptions,
    names: &TopicNames,
    context: &Context,
    patience: Duration,
) -> Result<(Partitions, usize)> {
    let metadata = asker
        .fetch_metadata(None, patience)
        .map_err(|e| errors::client(&format!("reach Kafka at {}", options.brokers), e))?;
    let brokers = u32::try_from(metadata.brokers().len()).unwrap_or(1).max(1);
    let wanted = [
        Wanted {
            name: &names.records,
            partitions: options.partitions,
            retention: options.retention,
            is_stamped_by_broker: false,
        },
        Wanted {
            name: &names.letters,
            partitions: 1,
            retention: options.retention,
            is_stamped_by_broker: false,
        },
        Wanted {
            name: &names.keys,
            partitions: 1,
            retention: (options.idempotency.window * 4).max(Duration::from_secs(3600)),
            is_stamped_by_broker: true,
        },
    ];
    let mut found = Vec::new();
    for topic in &wanted {
        let topic = match look(asker, topic.name, ASK_TIMEOUT)? {
            Some(found) => found,
            None => {
                make(options, context, topic, brokers)?;
                await_topic(asker, topic.name)?
            }
        };
        found.push(topic);
    }
    let partitions = Partitions {
        records: found.first().map_or(0, |topic| topic.partitions),
        letters: found.get(1).map_or(0, |topic| topic.partitions),
    };
    let replication = found.iter().map(|topic| topic.replication).min();
    let limits = limits(options, names, context);
    context
        .health
        .set_degraded(weaknesses(replication.unwrap_or(0), &limits, options));
    let message_bytes_max = limits
        .message_bytes_max
        .unwrap_or(options.message_bytes_max)
        .min(options.message_bytes_max);
    Ok((partitions, message_bytes_max))
}

/// `None` if there is no such topic.
pub(super) fn look(
    asker: &BaseConsumer<Context>,
    name: &str,
    patience: Duration,
) -> Result<Option<Topic>> {
    let metadata = asker
        .fetch_metadata(Some(name), patience)
        .map_err(|e| errors::client(&format!("ask Kafka for the topic `{name}`"), e))?;
    let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == name) else {
        return Ok(None);
    };
    match topic.error().map(RDKafkaErrorCode::from) {
        None | Some(RDKafkaErrorCode::NoError) => {}
        Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
            return Ok(None);
        }
        Some(code) => {
            return Err(Error::unavailable(
                "kafka_failed",
                format!("Kafka does not give the topic `{name}`: {code}"),
            ));
        }
    }
    let partitions = topic.partitions();
    if partitions.is_empty() {
        return Ok(None);
    }
    let fewest = partitions
        .iter()
        .map(|partition| partition.replicas().len());
    Ok(Some(Topic {
        partitions: u32::try_from(partitions.len()).unwrap_or(u32::MAX),
        replication: u32::try_from(fewest.min().unwrap_or(0)).unwrap_or(u32::MAX),
    }))
}

/// All brokers learn of a new topic a moment after it was made.
fn await_topic(asker: &BaseConsumer<Context>, name: &str) -> Result<Topic> {
    let deadline = Instant::now() + ASK_TIMEOUT;
    while Instant::now() < deadline {
        if let Ok(Some(topic)) = look(asker, name, ASK_TIMEOUT) {
            return Ok(topic);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Err(Error::unavailable(
        "kafka_topic_missing",
        format!("the topic `{name}` was made and is not there yet"),
    ))
}

fn make(
    options: &KafkaQueueOptions,
    context: &Context,
    topic: &Wanted<'_>,
    brokers: u32,
) -> Result<()> {
    let replication = options.replication.min(brokers);
    let min_insync = options.min_insync_replicas.min(replication).to_string();
    let retention_ms = topic.retention.as_millis().to_string();
    let message_bytes = options.message_bytes_max.to_string();
    let mut new = NewTopic::new(
        topic.name,
        i32::try_from(topic.partitions).unwrap_or(i32::MAX),
        TopicReplication::Fixed(i32::try_from(replication).unwrap_or(1)),
    )
    .set("min.insync.replicas", &min_insync)
    .set("retention.ms", &retention_ms)
    .set("max.message.bytes", &message_bytes);
    if topic.is_stamped_by_broker {
        new = new.set("message.timestamp.type", "LogAppendTime");
    }
    let admin = AdminClient::from_config_and_context(&client::admin(options), context.clone())
        .map_err(|e| errors::client("make a Kafka client", e))?;
    let asked = AdminOptions::new()
        .request_timeout(Some(ASK_TIMEOUT))
        .operation_timeout(Some(ASK_TIMEOUT));
    let made = futures::executor::block_on(admin.create_topics([&new], &asked))
        .map_err(|e| errors::client(&format!("make the topic `{}`", topic.name), e))?;
    for outcome in made {
        match outcome {
            // Another process was faster.
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((name, code)) => {
                return Err(Error::unavailable(
                    "kafka_failed",
                    format!("Kafka does not make the topic `{name}`: {code}"),
                ));
            }
        }
    }
    tracing::info!(
        topic = topic.name,
        partitions = topic.partitions,
        replication,
        min_insync,
        "Kafka topic made"
    );
    Ok(())
}

/// What the record topic's own settings say; `None` where the brokers do not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Limits {
    min_insync: Option<u32>,
    message_bytes_max: Option<usize>,
    may_elect_unclean: bool,
}

fn limits(options: &KafkaQueueOptions, names: &TopicNames, context: &Context) -> Limits {
    let admin = AdminClient::from_config_and_context(&client::admin(options), context.clone());
    let Ok(admin) = admin else {
        return Limits::default();
    };
    let asked = AdminOptions::new().request_timeout(Some(options.describe_wait));
    let resource = ResourceSpecifier::Topic(&names.records);
    let described = futures::executor::block_on(admin.describe_configs([&resource], &asked));
    let Some(Ok(config)) = described.ok().and_then(|mut all| all.pop()) else {
        return Limits::default();
    };
    let text = |name: &str| config.get(name).and_then(|entry| entry.value.clone());
    Limits {
        min_insync: text("min.insync.replicas").and_then(|text| text.parse().ok()),
        message_bytes_max: text("max.message.bytes").and_then(|text| text.parse().ok()),
        may_elect_unclean: text("unclean.leader.election.enable").as_deref() == Some("true"),
    }
}

/// One sentence for each way in which an acknowledged line could be lost more easily than three replicas allow.
fn weaknesses(replication: u32, limits: &Limits, options: &KafkaQueueOptions) -> Vec<String> {
    let mut reasons = Vec::new();
    let topic = &options.topic;
    if replication < 2 {
        reasons.push(format!(
            "the Kafka topic `{topic}` has one replica: Kafka does not sync to disk before it confirms, so a power cut of its broker can lose confirmed lines"
        ));
    } else if replication < options.replication {
        reasons.push(format!(
            "the Kafka topic `{topic}` has {replication} replicas, not the {} asked for",
            options.replication
        ));
    }
    match limits.min_insync {
        Some(count) if 2 <= count => {}
        Some(_) if replication < 2 => {}
        Some(count) => reasons.push(format!(
            "the Kafka topic `{topic}` confirms a line with {count} replica in sync (`min.insync.replicas`); set it to 2"
        )),
        None => reasons.push(format!(
            "Kafka does not tell `min.insync.replicas` of the topic `{topic}`: how many replicas hold a confirmed line is not known"
        )),
    }
    if limits.may_elect_unclean {
        reasons.push(format!(
            "the Kafka topic `{topic}` may elect a leader that lacks confirmed lines (`unclean.leader.election.enable`)"
        ));
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(replication: u32, min_insync: Option<u32>, unclean: bool, expected: &[&str]) {
        let limits = Limits {
            min_insync,
            message_bytes_max: None,
            may_elect_unclean: unclean,
        };
        let found = weaknesses(replication, &limits, &KafkaQueueOptions::default());
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (reason, part) in found.iter().zip(expected) {
            assert!(reason.contains(part), "{reason}: {part}");
        }
    }

    #[test]
    fn weaker_durability_than_promised_is_named() {
        check(3, Some(2), false, &[]);
        check(1, Some(1), false, &["one replica"]);
        check(2, Some(2), false, &["2 replicas, not the 3"]);
        check(3, Some(1), true, &["min.insync.replicas", "unclean"]);
        check(3, None, false, &["does not tell"]);
    }
}
