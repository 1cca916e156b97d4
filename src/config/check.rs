//! From settings that have the right types to settings that make sense. Every refusal says which setting, where it was set, and how to mend it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::common::error::{Error, Result};
use crate::common::http::{nearest, quoted};
use crate::config::kafka::{self, KafkaAddress};
use crate::config::load::Layered;
use crate::config::redis_url::{self, RedisUrl};
use crate::config::settings::Settings;

/// A part that a process plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    Api,
    Indexer,
    Cleaner,
    Ui,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueKind {
    Embedded,
    Memory,
    Kafka,
}

/// When a line is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DurabilityKind {
    Fsync,
    Interval(Duration),
    Os,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    Embedded,
    Memory,
    Elasticsearch,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CacheKind {
    InProcess,
    Off,
    Redis(RedisUrl),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Human,
    Json,
    /// Human on a terminal, JSON elsewhere.
    Auto,
}

/// Settings that hold together, with the texts among them read.
#[derive(Clone, Debug)]
pub struct Checked {
    pub settings: Settings,
    pub listen: SocketAddr,
    pub roles: Vec<Role>,
    /// `None`: nothing touches the disk.
    pub data_dir: Option<PathBuf>,
    pub queue: QueueKind,
    /// With [`QueueKind::Kafka`].
    pub kafka: Option<KafkaAddress>,
    pub durability: DurabilityKind,
    pub store: StoreKind,
    pub cache: CacheKind,
    pub log_format: LogFormat,
    /// (pattern, age; `None` keeps for ever), first match wins.
    pub retention_by_source: Vec<(String, Option<Duration>)>,
}

impl Checked {
    pub fn has_role(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }
}

const ROLES: [(&str, Role); 4] = [
    ("api", Role::Api),
    ("indexer", Role::Indexer),
    ("cleaner", Role::Cleaner),
    ("ui", Role::Ui),
];

pub fn check(layered: &Layered) -> Result<Checked> {
    let checker = Checker { layered };
    let settings = layered.settings.clone();
    checker.limits()?;
    let listen = checker.listen()?;
    let in_memory = settings.in_memory;
    let (queue, kafka) = match in_memory {
        true => (QueueKind::Memory, None),
        false => checker.queue()?,
    };
    let store = match in_memory {
        true => StoreKind::Memory,
        false => checker.store()?,
    };
    if queue == QueueKind::Embedded && store == StoreKind::Memory {
        let message = "`store.kind = \"memory\"` forgets on restart what the embedded queue has already released; use `--in-memory`, or the embedded store";
        return Err(checker.wrong("store.kind", message));
    }
    if queue == QueueKind::Memory && store == StoreKind::Elasticsearch {
        let message = "the queue in memory counts from 0 after each start, so records would collide in Elasticsearch; use `--queue embedded`";
        return Err(checker.wrong("queue.kind", message));
    }
    let needs_disk = queue == QueueKind::Embedded || store == StoreKind::Embedded;
    let roles = checker.roles()?;
    checker.roles_fit(&roles, queue, store)?;
    Ok(Checked {
        listen,
        roles,
        data_dir: needs_disk.then(|| PathBuf::from(&settings.data_dir)),
        queue,
        kafka,
        durability: checker.durability()?,
        store,
        cache: checker.cache()?,
        log_format: checker.log_format()?,
        retention_by_source: checker.retention()?,
        settings,
    })
}

/// (setting, its value, its limit)
pub(super) type Limit = (&'static str, u64, u64);

/// Below these nothing could connect.
fn smallest_of_http(s: &Settings) -> Vec<Limit> {
    vec![
        ("http.connections_max", s.http.connections_max, 1),
        (
            "http.connections_per_ip_max",
            s.http.connections_per_ip_max,
            1,
        ),
        ("http.head_timeout_ms", s.http.head_timeout_ms, 10),
        ("http.keep_alive_idle_ms", s.http.keep_alive_idle_ms, 10),
        (
            "http.connection_age_max_ms",
            s.http.connection_age_max_ms,
            1000,
        ),
        ("http.write_stall_ms", s.http.write_stall_ms, 10),
        ("http.body_bytes_per_s_min", s.http.body_bytes_per_s_min, 1),
        ("http.headers_max", s.http.headers_max, 10),
        ("http.head_bytes_max", s.http.head_bytes_max, 8192),
        (
            "http.http2_header_bytes_max",
            s.http.http2_header_bytes_max,
            4096,
        ),
        ("http.http2_streams_max", s.http.http2_streams_max, 1),
    ]
}

/// Below these nothing could be written, kept or found.
fn smallest_of_parts(s: &Settings) -> Vec<Limit> {
    vec![
        ("intake.body_bytes_max", s.intake.body_bytes_max, 1024),
        ("intake.plain_bytes_max", s.intake.plain_bytes_max, 1024),
        ("intake.line_bytes_max", s.intake.line_bytes_max, 256),
        ("intake.fields_max", s.intake.fields_max, 1),
        ("search.timeout_ms", s.search.timeout_ms, 1),
        ("queue.size_bytes_max", s.queue.size_bytes_max, 1 << 20),
        (
            "queue.segment_size_bytes",
            s.queue.segment_size_bytes,
            1 << 16,
        ),
        (
            "queue.group_size_bytes_max",
            s.queue.group_size_bytes_max,
            1,
        ),
        ("queue.waiting_appends_max", s.queue.waiting_appends_max, 1),
        (
            "queue.subscriber_batches_max",
            s.queue.subscriber_batches_max,
            1,
        ),
        ("queue.sync_interval_ms", s.queue.sync_interval_ms, 1),
        (
            "queue.memory_size_bytes_max",
            s.queue.memory_size_bytes_max,
            1 << 20,
        ),
        ("store.head_rows_max", s.store.head_rows_max, 1000),
        ("store.head_bytes_max", s.store.head_bytes_max, 1 << 20),
        ("store.head_age_max_ms", s.store.head_age_max_ms, 100),
        ("store.columns_max", s.store.columns_max, 10),
        ("search.page_limit_max", s.search.page_limit_max, 1),
        ("search.waiting_max", s.search.waiting_max, 1),
        (
            "search.stats_memory_bytes_max",
            s.search.stats_memory_bytes_max,
            1 << 20,
        ),
        ("cache.redis_budget_ms", s.cache.redis_budget_ms, 1),
        (
            "cache.redis_connect_timeout_ms",
            s.cache.redis_connect_timeout_ms,
            10,
        ),
        (
            "cache.redis_reconnect_max_ms",
            s.cache.redis_reconnect_max_ms,
            100,
        ),
        ("retention.interval_ms", s.retention.interval_ms, 1000),
    ]
}

/// Below these no record would reach Elasticsearch.
fn smallest_of_elasticsearch(s: &Settings) -> Vec<Limit> {
    vec![
        (
            "store.elasticsearch_shards",
            s.store.elasticsearch_shards,
            1,
        ),
        (
            "store.elasticsearch_fields_max",
            s.store.elasticsearch_fields_max,
            50,
        ),
        (
            "store.elasticsearch_groups_max",
            s.store.elasticsearch_groups_max,
            1,
        ),
        (
            "store.elasticsearch_bulk_bytes_max",
            s.store.elasticsearch_bulk_bytes_max,
            1 << 16,
        ),
        (
            "store.elasticsearch_bulks_in_flight_max",
            s.store.elasticsearch_bulks_in_flight_max,
            1,
        ),
        (
            "store.elasticsearch_connect_timeout_ms",
            s.store.elasticsearch_connect_timeout_ms,
            10,
        ),
        (
            "store.elasticsearch_answer_timeout_ms",
            s.store.elasticsearch_answer_timeout_ms,
            100,
        ),
        (
            "store.elasticsearch_write_limit_ms",
            s.store.elasticsearch_write_limit_ms,
            100,
        ),
        (
            "store.elasticsearch_poll_interval_ms",
            s.store.elasticsearch_poll_interval_ms,
            10,
        ),
    ]
}

/// Above these the layers below overflow: some count with 32 bits, a batch is addressed with 32 bits.
fn largest(s: &Settings) -> Vec<Limit> {
    vec![
        (
            "http.http2_header_bytes_max",
            s.http.http2_header_bytes_max,
            1 << 24,
        ),
        ("http.http2_streams_max", s.http.http2_streams_max, 1 << 16),
        ("http.connections_max", s.http.connections_max, 1 << 20),
        ("intake.line_bytes_max", s.intake.line_bytes_max, 2 << 20),
        ("intake.plain_bytes_max", s.intake.plain_bytes_max, 1 << 30),
        ("intake.fields_max", s.intake.fields_max, 1 << 20),
        (
            "queue.disk_used_percent_max",
            s.queue.disk_used_percent_max,
            100,
        ),
        (
            "queue.waiting_appends_max",
            s.queue.waiting_appends_max,
            1 << 20,
        ),
        ("store.columns_max", s.store.columns_max, 10_000),
        (
            "store.elasticsearch_bulk_bytes_max",
            s.store.elasticsearch_bulk_bytes_max,
            64 << 20,
        ),
        (
            "store.elasticsearch_fields_max",
            s.store.elasticsearch_fields_max,
            100_000,
        ),
        ("search.page_limit_max", s.search.page_limit_max, 1 << 20),
        ("search.threads", s.search.threads, 1024),
        ("search.waiting_max", s.search.waiting_max, 1 << 20),
        ("cache.redis_budget_ms", s.cache.redis_budget_ms, 10_000),
        (
            "cache.redis_value_bytes_max",
            s.cache.redis_value_bytes_max,
            256 << 20,
        ),
        ("threads", s.threads, 1024),
    ]
}

struct Checker<'a> {
    layered: &'a Layered,
}

impl Checker<'_> {
    fn settings(&self) -> &Settings {
        &self.layered.settings
    }

    fn wrong(&self, key: &str, what: &str) -> Error {
        let place = match self.layered.origins.get(key) {
            Some(origin) => format!("{origin}: "),
            None => String::new(),
        };
        Error::invalid("invalid_settings", format!("{place}`{key}`: {what}"))
    }

    /// Values that would stop the process from working at all.
    fn limits(&self) -> Result<()> {
        let s = self.settings();
        for (key, value, min) in smallest_of_http(s)
            .into_iter()
            .chain(smallest_of_parts(s))
            .chain(kafka::smallest(&s.queue))
            .chain(smallest_of_elasticsearch(s))
        {
            if value < min {
                return Err(self.wrong(key, &format!("must be at least {min}, not {value}")));
            }
        }
        for (key, value, max) in largest(s).into_iter().chain(kafka::largest(&s.queue)) {
            if max < value {
                return Err(self.wrong(key, &format!("must be at most {max}, not {value}")));
            }
        }
        Ok(())
    }

    fn listen(&self) -> Result<SocketAddr> {
        let http = &self.settings().http;
        let text = http.listen.replace("localhost:", "127.0.0.1:");
        let address: SocketAddr = text.parse().map_err(|_| {
            let what = format!(
                "`{}` is not an address with a port, such as 127.0.0.1:8001 or [::1]:8001",
                quoted(&http.listen)
            );
            self.wrong("http.listen", &what)
        })?;
        if !address.ip().is_loopback() && !http.insecure_no_auth {
            let what = format!(
                "{address} can be reached from other machines, and there are no users and keys yet: anyone who reaches it could read and delete every log; \
                 listen on 127.0.0.1 and put a proxy with a login in front, or, in a network you trust, add --insecure-no-auth"
            );
            return Err(self.wrong("http.listen", &what));
        }
        Ok(address)
    }

    fn roles(&self) -> Result<Vec<Role>> {
        let mut roles = Vec::new();
        for name in &self.settings().roles {
            if name == "all" {
                return Ok(ROLES.map(|(_, role)| role).to_vec());
            }
            match ROLES.iter().find(|(known, _)| known == name) {
                Some((_, role)) => roles.push(*role),
                None => {
                    return Err(self.unknown_choice(
                        "roles",
                        name,
                        &["all", "api", "indexer", "cleaner", "ui"],
                    ));
                }
            }
        }
        if roles.is_empty() {
            return Err(self.wrong(
                "roles",
                "name at least one: all, or some of api, indexer, cleaner, ui",
            ));
        }
        Ok(roles)
    }

    fn unknown_choice(&self, key: &str, given: &str, known: &[&str]) -> Error {
        let advice = nearest(given, known).map(|near| format!("; did you mean `{near}`?"));
        let known = known.join(", ");
        let what = format!(
            "`{}` is none of {known}{}",
            quoted(given),
            advice.unwrap_or_default()
        );
        self.wrong(key, &what)
    }

    fn queue(&self) -> Result<(QueueKind, Option<KafkaAddress>)> {
        let queue = &self.settings().queue;
        match queue.kind.as_str() {
            "embedded" => Ok((QueueKind::Embedded, None)),
            "memory" => Ok((QueueKind::Memory, None)),
            kind if kind.starts_with("kafka://") => {
                let compressions = ["none", "gzip", "snappy", "lz4", "zstd"];
                if !compressions.contains(&queue.kafka_compression.as_str()) {
                    let key = "queue.kafka_compression";
                    return Err(self.unknown_choice(key, &queue.kafka_compression, &compressions));
                }
                let address = kafka::parse(queue).map_err(|(key, what)| self.wrong(key, &what))?;
                Ok((QueueKind::Kafka, Some(address)))
            }
            kind => Err(self.unknown_choice(
                "queue.kind",
                kind,
                &["embedded", "memory", "kafka://host:9092/topic"],
            )),
        }
    }

    /// A queue or store that lives inside a process lives there with everything that needs it.
    fn roles_fit(&self, roles: &[Role], queue: QueueKind, store: StoreKind) -> Result<()> {
        let is_whole = roles.contains(&Role::Api) && roles.contains(&Role::Indexer);
        if is_whole {
            return Ok(());
        }
        let what = match (queue, store) {
            (QueueKind::Kafka, StoreKind::Elasticsearch) => return Ok(()),
            (QueueKind::Embedded | QueueKind::Memory, _) => {
                "a queue inside this process needs both roles `api` and `indexer` here: nobody else could fill or read it; leave out only `cleaner` and `ui`, or use `--queue kafka://…` and a store that several processes share"
            }
            (QueueKind::Kafka, StoreKind::Embedded | StoreKind::Memory) => {
                "a store inside this process needs both roles `api` and `indexer` here: nobody else could fill or ask it; leave out only `cleaner` and `ui`, or use a store that several processes share"
            }
        };
        Err(self.wrong("roles", what))
    }

    fn durability(&self) -> Result<DurabilityKind> {
        let queue = &self.settings().queue;
        match queue.durability.as_str() {
            "fsync" => Ok(DurabilityKind::Fsync),
            "interval" => Ok(DurabilityKind::Interval(Duration::from_millis(
                queue.sync_interval_ms,
            ))),
            "os" => Ok(DurabilityKind::Os),
            other => {
                Err(self.unknown_choice("queue.durability", other, &["fsync", "interval", "os"]))
            }
        }
    }

    fn store(&self) -> Result<StoreKind> {
        match self.settings().store.kind.as_str() {
            "embedded" => Ok(StoreKind::Embedded),
            "memory" => Ok(StoreKind::Memory),
            kind if kind.starts_with("elasticsearch") || kind.starts_with("opensearch") => {
                self.elasticsearch()
            }
            kind => Err(self.unknown_choice(
                "store.kind",
                kind,
                &["embedded", "memory", "elasticsearch://host:9200"],
            )),
        }
    }

    fn elasticsearch(&self) -> Result<StoreKind> {
        let store = &self.settings().store;
        if !store.kind.contains("://") {
            let what =
                "write elasticsearch://host:9200, or elasticsearch+https://host:9200 with TLS";
            return Err(self.wrong("store.kind", what));
        }
        for (key, prefix) in [
            (
                "store.elasticsearch_index_prefix",
                &store.elasticsearch_index_prefix,
            ),
            (
                "store.elasticsearch_state_prefix",
                &store.elasticsearch_state_prefix,
            ),
        ] {
            let is_name = prefix.starts_with(|c: char| c.is_ascii_lowercase())
                && prefix
                    .bytes()
                    .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.'));
            if !is_name {
                let what = "an index name begins with a lowercase letter and holds lowercase letters, digits, `-`, `_` and `.`";
                return Err(self.wrong(key, what));
            }
        }
        if store
            .elasticsearch_state_prefix
            .starts_with(&store.elasticsearch_index_prefix)
        {
            let what = "it begins as `store.elasticsearch_index_prefix` does, so checkpoints would be taken for records";
            return Err(self.wrong("store.elasticsearch_state_prefix", what));
        }
        match store.elasticsearch_codec.as_str() {
            "default" | "best_compression" => Ok(StoreKind::Elasticsearch),
            other => Err(self.unknown_choice(
                "store.elasticsearch_codec",
                other,
                &["default", "best_compression"],
            )),
        }
    }

    fn cache(&self) -> Result<CacheKind> {
        match self.settings().cache.kind.as_str() {
            "in-process" => Ok(CacheKind::InProcess),
            "off" => Ok(CacheKind::Off),
            kind if redis_url::is_redis(kind) => self.redis(kind),
            kind => Err(self.unknown_choice("cache.kind", kind, &["in-process", "off"])),
        }
    }

    fn redis(&self, kind: &str) -> Result<CacheKind> {
        let mut url = redis_url::parse(kind).map_err(|what| self.wrong("cache.kind", &what))?;
        let cache = &self.settings().cache;
        // The settings are the place for secrets: an environment variable is not seen in a list of processes.
        let given = |text: &String| (!text.is_empty()).then(|| text.clone());
        url.user = given(&cache.redis_user).or(url.user);
        url.password = given(&cache.redis_password).or(url.password);
        if url.user.is_some() && url.password.is_none() {
            let what = "a user needs a password, in the address or as `cache.redis_password`";
            return Err(self.wrong("cache.kind", what));
        }
        if cache.redis_prefix.is_empty() {
            let what = "must not be empty: the keys of others would not be told from Logyard's";
            return Err(self.wrong("cache.redis_prefix", what));
        }
        if !cache.redis_ca_file.is_empty() && !url.is_tls {
            let what = "is for TLS; write the address with rediss://";
            return Err(self.wrong("cache.redis_ca_file", what));
        }
        Ok(CacheKind::Redis(url))
    }

    fn log_format(&self) -> Result<LogFormat> {
        match self.settings().log.format.as_str() {
            "auto" => Ok(LogFormat::Auto),
            "human" => Ok(LogFormat::Human),
            "json" => Ok(LogFormat::Json),
            other => Err(self.unknown_choice("log.format", other, &["auto", "human", "json"])),
        }
    }

    fn retention(&self) -> Result<Vec<(String, Option<Duration>)>> {
        let mut rules = Vec::new();
        for rule in &self.settings().retention.by_source {
            let parsed = rule.rsplit_once('=').and_then(|(pattern, days)| {
                let days: u64 = days.trim().parse().ok()?;
                let pattern = pattern.trim();
                (!pattern.is_empty()).then(|| (pattern.to_owned(), days_to_age(days)))
            });
            let Some(parsed) = parsed else {
                let what = format!(
                    "`{}` is not a rule such as `debug-*=3` (source pattern, `=`, days; 0 days keep for ever)",
                    quoted(rule)
                );
                return Err(self.wrong("retention.by_source", &what));
            };
            rules.push(parsed);
        }
        Ok(rules)
    }
}

/// 0 keeps for ever.
pub fn days_to_age(days: u64) -> Option<Duration> {
    (0 < days).then(|| Duration::from_secs(days.saturating_mul(86_400)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load::load;

    fn checked(environment: &[(&str, &str)]) -> Result<Checked> {
        let environment = environment
            .iter()
            .map(|(name, value)| (format!("LOGYARD__{name}"), (*value).to_owned()));
        check(&load(None, environment, &[]).unwrap())
    }

    fn message(name: &str, value: &str) -> String {
        checked(&[(name, value)]).unwrap_err().message
    }

    #[test]
    fn the_defaults_hold_together() {
        let checked = checked(&[]).unwrap();
        assert_eq!(checked.listen.to_string(), "127.0.0.1:8001");
        assert_eq!(checked.roles.len(), 4);
        assert_eq!(checked.data_dir, Some(PathBuf::from("logyard-data")));
    }

    #[test]
    fn in_memory_touches_no_disk() {
        let checked = checked(&[("IN_MEMORY", "true")]).unwrap();
        assert_eq!(
            (checked.queue, checked.store, checked.data_dir),
            (QueueKind::Memory, StoreKind::Memory, None)
        );
    }

    #[test]
    fn what_cannot_work_is_refused_with_the_reason() {
        assert!(message("HTTP__LISTEN", "0.0.0.0:8001").contains("--insecure-no-auth"));
        assert!(
            checked(&[
                ("HTTP__LISTEN", "0.0.0.0:8001"),
                ("HTTP__INSECURE_NO_AUTH", "true")
            ])
            .is_ok()
        );
        assert!(checked(&[("HTTP__LISTEN", "localhost:1")]).is_ok());
        assert!(message("HTTP__LISTEN", "8001").contains("not an address with a port"));
        assert!(message("QUEUE__KIND", "kafka://broker").contains("name the topic"));
        assert!(message("QUEUE__KIND", "embeded").contains("did you mean `embedded`?"));
        assert!(message("STORE__KIND", "elasticsearch").contains("elasticsearch://host:9200"));
        assert!(
            checked(&[("STORE__KIND", "elasticsearch://x")])
                .is_ok_and(|checked| checked.store == StoreKind::Elasticsearch)
        );
        let refused = |key: &str, value: &str| {
            checked(&[("STORE__KIND", "elasticsearch://x"), (key, value)])
                .unwrap_err()
                .message
        };
        assert!(refused("QUEUE__KIND", "memory").contains("would collide"));
        assert!(refused("STORE__ELASTICSEARCH_INDEX_PREFIX", "Logs").contains("lowercase"));
        assert!(
            refused("STORE__ELASTICSEARCH_STATE_PREFIX", "logs-own-").contains("taken for records")
        );
        assert!(refused("STORE__ELASTICSEARCH_CODEC", "zstd").contains("is none of"));
        assert!(message("CACHE__KIND", "redis://x:y").contains("`y` is not a port"));
        assert!(message("CACHE__KIND", "redis://u@x").contains("needs a password"));
        assert!(message("ROLES", "api,indxer").contains("did you mean `indexer`?"));
        assert!(message("ROLES", "ui").contains("needs both roles"));
        let with_kafka = |roles: &str| {
            checked(&[("QUEUE__KIND", "kafka://a:1/logs"), ("ROLES", roles)])
                .map(|checked| (checked.queue, checked.kafka.map(|kafka| kafka.brokers)))
                .map_err(|e| e.message)
        };
        let kafka = (QueueKind::Kafka, Some("a:1".to_owned()));
        assert_eq!(with_kafka("api,indexer,cleaner"), Ok(kafka));
        for roles in ["api", "indexer", "cleaner", "ui", "api,cleaner,ui"] {
            let message = with_kafka(roles).unwrap_err();
            assert!(message.contains("a store inside this process"), "{message}");
        }
        // Both shared: any role alone.
        for roles in ["api", "indexer", "cleaner", "ui", "api,cleaner,ui"] {
            let settings = [
                ("QUEUE__KIND", "kafka://a:1/logs"),
                ("STORE__KIND", "elasticsearch://x"),
                ("ROLES", roles),
            ];
            assert!(checked(&settings).is_ok(), "{roles}");
        }
        assert!(message("STORE__KIND", "memory").contains("--in-memory"));
        assert!(message("HTTP__HEADERS_MAX", "0").contains("at least 10, not 0"));
        assert!(message("RETENTION__BY_SOURCE", "x").contains("debug-*=3"));
    }

    #[test]
    fn a_secret_may_stand_beside_the_address_of_redis() {
        let environment = [
            ("CACHE__KIND", "redis://u:old@x/2"),
            ("CACHE__REDIS_PASSWORD", "new"),
        ];
        let CacheKind::Redis(url) = checked(&environment).unwrap().cache else {
            panic!()
        };
        assert_eq!(url.password.as_deref(), Some("new"));
        assert_eq!((url.user.as_deref(), url.database), (Some("u"), 2));
    }

    #[test]
    fn retention_rules_are_read_in_order() {
        let rules = checked(&[("RETENTION__BY_SOURCE", "audit=0, debug-* = 3")])
            .unwrap()
            .retention_by_source;
        let three_days = Duration::from_secs(3 * 86_400);
        assert_eq!(
            rules,
            [
                ("audit".to_owned(), None),
                ("debug-*".to_owned(), Some(three_days))
            ]
        );
    }
}
