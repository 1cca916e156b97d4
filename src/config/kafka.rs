//! `kafka://user:password@host:9092,host2:9092/topic`: where the queue is, when it is Kafka.

use crate::config::check::Limit;
use crate::config::settings::Queue;

/// Names end in these for the topics beside the one of the logs.
const SUFFIXES: [&str; 2] = [".dead-letters", ".idempotency"];
const TOPIC_BYTES_MAX: usize = 220;
const DEFAULT_PORT: u16 = 9092;

/// Where Kafka is, and who asks.
#[derive(Clone, PartialEq, Eq)]
pub struct KafkaAddress {
    /// `host:port`, separated by commas.
    pub brokers: String,
    pub topic: String,
    pub user: String,
    pub password: String,
}

impl std::fmt::Debug for KafkaAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // A password has no place in a log.
        write!(f, "kafka://{}/{}", self.brokers, self.topic)
    }
}

/// The address in `queue.kind`, with the login from there or from its own settings; the error is (setting, what is wrong with it).
pub fn parse(queue: &Queue) -> Result<KafkaAddress, (&'static str, String)> {
    let wrong = |what: String| Err(("queue.kind", what));
    let rest = queue.kind.strip_prefix("kafka://").unwrap_or_default();
    let (login, place) = match rest.rsplit_once('@') {
        Some((login, place)) => (Some(login), place),
        None => (None, rest),
    };
    let Some((hosts, topic)) = place.split_once('/') else {
        return wrong("name the topic behind the brokers: kafka://host:9092/logs".to_owned());
    };
    let mut brokers = Vec::new();
    for host in hosts.split(',') {
        let (name, port) = host.rsplit_once(':').unwrap_or((host, ""));
        let port = match port {
            "" if !host.ends_with(':') => Some(DEFAULT_PORT),
            port => port.parse().ok(),
        };
        match port {
            Some(port) if !name.is_empty() => brokers.push(format!("{name}:{port}")),
            _ => {
                return wrong(format!(
                    "`{host}` is no broker such as host:9092; several are separated by commas"
                ));
            }
        }
    }
    check_topic(topic).map_err(|what| ("queue.kind", what))?;
    let (user, password) = match login {
        None => (queue.kafka_user.clone(), queue.kafka_password.clone()),
        Some(login) => {
            let (user, password) = login.split_once(':').unwrap_or((login, ""));
            let (Some(user), Some(password)) = (percent_decoded(user), percent_decoded(password))
            else {
                return wrong("the login is not percent-encoded UTF-8".to_owned());
            };
            (user, password)
        }
    };
    check_security(queue, &user, cfg!(feature = "kafka-tls"))?;
    Ok(KafkaAddress {
        brokers: brokers.join(","),
        topic: topic.to_owned(),
        user,
        password,
    })
}

/// Below these nothing could be sent or read.
pub(super) fn smallest(queue: &Queue) -> Vec<Limit> {
    vec![
        ("queue.kafka_partitions", queue.kafka_partitions, 1),
        ("queue.kafka_replication", queue.kafka_replication, 1),
        (
            "queue.kafka_min_insync_replicas",
            queue.kafka_min_insync_replicas,
            1,
        ),
        ("queue.kafka_retention_ms", queue.kafka_retention_ms, 60_000),
        (
            "queue.kafka_message_bytes_max",
            queue.kafka_message_bytes_max,
            1 << 16,
        ),
        (
            "queue.kafka_message_timeout_ms",
            queue.kafka_message_timeout_ms,
            100,
        ),
        (
            "queue.kafka_buffer_bytes_max",
            queue.kafka_buffer_bytes_max,
            1 << 20,
        ),
        (
            "queue.kafka_fetch_bytes_max",
            queue.kafka_fetch_bytes_max,
            1 << 20,
        ),
        (
            "queue.kafka_refresh_interval_ms",
            queue.kafka_refresh_interval_ms,
            50,
        ),
    ]
}

/// Above these Kafka or its client would refuse.
pub(super) fn largest(queue: &Queue) -> Vec<Limit> {
    vec![
        ("queue.kafka_partitions", queue.kafka_partitions, 10_000),
        ("queue.kafka_replication", queue.kafka_replication, 100),
        ("queue.kafka_linger_ms", queue.kafka_linger_ms, 60_000),
        (
            "queue.kafka_message_timeout_ms",
            queue.kafka_message_timeout_ms,
            600_000,
        ),
        (
            "queue.kafka_message_bytes_max",
            queue.kafka_message_bytes_max,
            1 << 28,
        ),
        (
            "queue.kafka_buffer_bytes_max",
            queue.kafka_buffer_bytes_max,
            1 << 30,
        ),
        (
            "queue.kafka_fetch_bytes_max",
            queue.kafka_fetch_bytes_max,
            1 << 29,
        ),
    ]
}

/// A name that Kafka takes, and that leaves room for the topics beside it.
fn check_topic(topic: &str) -> Result<(), String> {
    let is_name = !topic.is_empty()
        && topic.len() <= TOPIC_BYTES_MAX
        && !matches!(topic, "." | "..")
        && topic
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    let is_ours = SUFFIXES.iter().any(|suffix| topic.ends_with(suffix));
    if is_name && !is_ours {
        return Ok(());
    }
    Err(format!(
        "`{topic}` cannot be the topic: use 1 to {TOPIC_BYTES_MAX} letters, digits, `.`, `_` and `-`, not ending in `{}` or `{}`",
        SUFFIXES[0], SUFFIXES[1]
    ))
}

/// What a build with or without TLS could never do.
fn check_security(queue: &Queue, user: &str, has_tls: bool) -> Result<(), (&'static str, String)> {
    let mechanism = queue.kafka_sasl_mechanism.as_str();
    if !["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"].contains(&mechanism) {
        return Err((
            "queue.kafka_sasl_mechanism",
            "must be PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512".to_owned(),
        ));
    }
    let build = "; build Logyard with `--features kafka-tls` (needs OpenSSL's headers: libssl-dev and pkg-config)";
    if queue.kafka_tls && !has_tls {
        return Err((
            "queue.kafka_tls",
            format!("this build cannot speak TLS to Kafka{build}"),
        ));
    }
    if !user.is_empty() && mechanism != "PLAIN" && !has_tls {
        return Err((
            "queue.kafka_sasl_mechanism",
            format!("this build cannot log in with {mechanism}{build}"),
        ));
    }
    let files = [
        ("queue.kafka_tls_ca_file", &queue.kafka_tls_ca_file),
        (
            "queue.kafka_tls_certificate_file",
            &queue.kafka_tls_certificate_file,
        ),
        ("queue.kafka_tls_key_file", &queue.kafka_tls_key_file),
    ];
    for (key, file) in files {
        if !file.is_empty() && !queue.kafka_tls {
            return Err((
                key,
                "means nothing without `queue.kafka_tls = true`".to_owned(),
            ));
        }
    }
    Ok(())
}

/// `%40` is `@`.
fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, after) = rest.split_first_chunk::<2>()?;
        let digits = std::str::from_utf8(digits).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(kind: &str) -> Queue {
        Queue {
            kind: kind.to_owned(),
            ..Queue::default()
        }
    }

    #[track_caller]
    fn check(kind: &str, expected: (&str, &str, &str, &str)) {
        let found = parse(&queue(kind)).unwrap();
        let KafkaAddress {
            brokers,
            topic,
            user,
            password,
        } = &found;
        assert_eq!((&**brokers, &**topic, &**user, &**password), expected);
        assert!(!format!("{found:?}").contains("secret"));
    }

    #[track_caller]
    fn refused(queue: &Queue, key: &str, part: &str) {
        let (at, what) = parse(queue).unwrap_err();
        assert_eq!(at, key);
        assert!(what.contains(part), "{what}");
    }

    #[test]
    fn addresses_are_read() {
        check("kafka://a:1/logs", ("a:1", "logs", "", ""));
        check("kafka://a,b:2/x.y-z_1", ("a:9092,b:2", "x.y-z_1", "", ""));
        check(
            "kafka://me:secret%40%2f@a:1/logs",
            ("a:1", "logs", "me", "secret@/"),
        );
        let settings = Queue {
            kafka_user: "u".to_owned(),
            kafka_password: "p".to_owned(),
            ..queue("kafka://a/logs")
        };
        assert_eq!(parse(&settings).unwrap().user, "u");
    }

    #[test]
    fn what_cannot_be_an_address_is_refused_with_the_reason() {
        for (kind, part) in [
            ("kafka://a:1", "name the topic"),
            ("kafka://a:1/", "cannot be the topic"),
            ("kafka://a:1/a b", "cannot be the topic"),
            ("kafka://a:1/logs.dead-letters", "not ending in"),
            ("kafka:///logs", "is no broker"),
            ("kafka://a:x/logs", "is no broker"),
            ("kafka://a:1,,/logs", "is no broker"),
            ("kafka://%zz:p@a/logs", "percent-encoded"),
        ] {
            refused(&queue(kind), "queue.kind", part);
        }
        let with = |change: fn(&mut Queue)| {
            let mut queue = queue("kafka://u:p@a/logs");
            change(&mut queue);
            queue
        };
        refused(
            &with(|q| q.kafka_sasl_mechanism = "MAGIC".to_owned()),
            "queue.kafka_sasl_mechanism",
            "must be PLAIN",
        );
        refused(
            &with(|q| q.kafka_tls_ca_file = "x".to_owned()),
            "queue.kafka_tls_ca_file",
            "means nothing",
        );
    }

    #[test]
    fn what_the_build_lacks_is_said() {
        let cases: [(fn(&mut Queue), _); 2] = [
            (|q| q.kafka_tls = true, "queue.kafka_tls"),
            (
                |q| q.kafka_sasl_mechanism = "SCRAM-SHA-512".to_owned(),
                "queue.kafka_sasl_mechanism",
            ),
        ];
        for (change, key) in cases {
            let mut settings = queue("kafka://a/logs");
            change(&mut settings);
            let (at, what) = check_security(&settings, "u", false).unwrap_err();
            assert_eq!(at, key);
            assert!(what.contains("--features kafka-tls"), "{what}");
            assert_eq!(check_security(&settings, "u", true), Ok(()));
            let found = parse(&Queue {
                kafka_user: "u".to_owned(),
                ..settings
            });
            assert_eq!(found.is_ok(), cfg!(feature = "kafka-tls"));
        }
    }
}
