//! Every setting with its default. `config/embedded.toml` describes each one; a test keeps the two alike. Names end in their unit.
//! These are plain values: `serve` maps them onto the parts' own options. Must not know who uses them.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    pub data_dir: String,
    pub in_memory: bool,
    pub roles: Vec<String>,
    pub threads: u64,
    pub http: Http,
    pub intake: Intake,
    pub queue: Queue,
    pub indexer: Indexer,
    pub store: Store,
    pub search: Search,
    pub cache: Cache,
    pub retention: Retention,
    pub log: Log,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    pub listen: String,
    pub insecure_no_auth: bool,
    pub allowed_hosts: Vec<String>,
    pub connections_max: u64,
    pub connections_per_ip_max: u64,
    pub head_timeout_ms: u64,
    pub keep_alive_idle_ms: u64,
    pub connection_age_max_ms: u64,
    pub write_stall_ms: u64,
    pub body_bytes_per_s_min: u64,
    pub body_grace_ms: u64,
    pub headers_max: u64,
    pub head_bytes_max: u64,
    pub http2_header_bytes_max: u64,
    pub http2_streams_max: u64,
    pub compression_min_bytes: u64,
    pub drain_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Intake {
    pub body_bytes_max: u64,
    pub plain_bytes_max: u64,
    pub in_flight_bytes_max: u64,
    pub admission_wait_ms: u64,
    pub indexed_wait_ms: u64,
    pub replay_letters_max: u64,
    pub line_bytes_max: u64,
    pub fields_max: u64,
    pub timestamp_names: Vec<String>,
    pub level_names: Vec<String>,
    pub source_names: Vec<String>,
    pub message_names: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Queue {
    pub kind: String,
    pub durability: String,
    pub sync_interval_ms: u64,
    pub size_bytes_max: u64,
    pub segment_size_bytes: u64,
    pub group_size_bytes_max: u64,
    pub waiting_appends_max: u64,
    pub append_wait_max_ms: u64,
    pub recent_size_bytes_max: u64,
    pub subscriber_batches_max: u64,
    pub disk_used_percent_max: u64,
    pub memory_size_bytes_max: u64,
    pub idempotency_window_ms: u64,
    pub idempotency_keys_max: u64,
    pub kafka_partitions: u64,
    pub kafka_replication: u64,
    pub kafka_min_insync_replicas: u64,
    pub kafka_retention_ms: u64,
    pub kafka_message_bytes_max: u64,
    pub kafka_group: String,
    pub kafka_linger_ms: u64,
    pub kafka_message_timeout_ms: u64,
    pub kafka_compression: String,
    pub kafka_buffer_bytes_max: u64,
    pub kafka_fetch_bytes_max: u64,
    pub kafka_refresh_interval_ms: u64,
    pub kafka_start_wait_ms: u64,
    pub kafka_user: String,
    pub kafka_password: String,
    pub kafka_sasl_mechanism: String,
    pub kafka_tls: bool,
    pub kafka_tls_ca_file: String,
    pub kafka_tls_certificate_file: String,
    pub kafka_tls_key_file: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Indexer {
    pub portion_size_bytes_max: u64,
    pub write_interval_ms: u64,
    pub retry_min_ms: u64,
    pub retry_max_ms: u64,
    pub drain_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    pub kind: String,
    pub head_rows_max: u64,
    pub head_bytes_max: u64,
    pub head_age_max_ms: u64,
    pub columns_max: u64,
    pub segment_bytes_max: u64,
    pub dead_letters_bytes_max: u64,
    pub write_wait_max_ms: u64,
    pub memory_size_bytes_max: u64,
    pub elasticsearch_user: String,
    pub elasticsearch_password: String,
    pub elasticsearch_api_key: String,
    pub elasticsearch_ca_file: String,
    pub elasticsearch_index_prefix: String,
    pub elasticsearch_state_prefix: String,
    pub elasticsearch_shards: u64,
    pub elasticsearch_replicas: u64,
    pub elasticsearch_refresh_interval_ms: u64,
    pub elasticsearch_codec: String,
    pub elasticsearch_logsdb: bool,
    pub elasticsearch_fields_max: u64,
    pub elasticsearch_bulk_bytes_max: u64,
    pub elasticsearch_bulks_in_flight_max: u64,
    pub elasticsearch_compress: bool,
    pub elasticsearch_connect_timeout_ms: u64,
    pub elasticsearch_answer_timeout_ms: u64,
    pub elasticsearch_write_limit_ms: u64,
    pub elasticsearch_poll_interval_ms: u64,
    pub elasticsearch_candidates_max: u64,
    pub elasticsearch_groups_max: u64,
    pub elasticsearch_exact_records_max: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Search {
    pub timeout_ms: u64,
    pub page_limit_max: u64,
    pub threads: u64,
    pub waiting_max: u64,
    pub wait_max_ms: u64,
    pub stats_memory_bytes_max: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cache {
    pub kind: String,
    pub size_bytes_max: u64,
    pub time_to_live_ms: u64,
    pub redis_user: String,
    pub redis_password: String,
    pub redis_sentinel_user: String,
    pub redis_sentinel_password: String,
    pub redis_ca_file: String,
    pub redis_prefix: String,
    pub redis_budget_ms: u64,
    pub redis_connect_timeout_ms: u64,
    pub redis_reconnect_max_ms: u64,
    pub redis_value_bytes_max: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    pub age_max_days: u64,
    pub size_bytes_max: u64,
    pub by_source: Vec<String>,
    pub interval_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    pub format: String,
    pub filter: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            data_dir: "logyard-data".to_owned(),
            in_memory: false,
            roles: vec!["all".to_owned()],
            threads: 0,
            http: Http::default(),
            intake: Intake::default(),
            queue: Queue::default(),
            indexer: Indexer::default(),
            store: Store::default(),
            search: Search::default(),
            cache: Cache::default(),
            retention: Retention::default(),
            log: Log::default(),
        }
    }
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8001".to_owned(),
            insecure_no_auth: false,
            allowed_hosts: Vec::new(),
            connections_max: 4096,
            connections_per_ip_max: 256,
            head_timeout_ms: 10_000,
            keep_alive_idle_ms: 75_000,
            connection_age_max_ms: 3_600_000,
            write_stall_ms: 30_000,
            body_bytes_per_s_min: 1024,
            body_grace_ms: 10_000,
            headers_max: 100,
            head_bytes_max: 64 << 10,
            http2_header_bytes_max: 16 << 10,
            http2_streams_max: 128,
            compression_min_bytes: 8 << 10,
            drain_ms: 25_000,
        }
    }
}

impl Default for Intake {
    fn default() -> Self {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        Self {
            body_bytes_max: 64 << 20,
            plain_bytes_max: 128 << 20,
            in_flight_bytes_max: 256 << 20,
            admission_wait_ms: 5000,
            indexed_wait_ms: 10_000,
            replay_letters_max: 10_000,
            line_bytes_max: 256 << 10,
            fields_max: 1000,
            timestamp_names: names(&["@timestamp", "time", "ts", "date", "_time"]),
            level_names: names(&["severity", "severity_text", "log.level", "loglevel", "lvl"]),
            source_names: names(&[
                "service",
                "service.name",
                "service_name",
                "app",
                "application",
                "logger",
                "host.name",
            ]),
            message_names: names(&["msg", "log", "body", "text", "_msg", "event.original"]),
        }
    }
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            kind: "embedded".to_owned(),
            durability: "fsync".to_owned(),
            sync_interval_ms: 1000,
            size_bytes_max: 4 << 30,
            segment_size_bytes: 64 << 20,
            group_size_bytes_max: 1 << 20,
            waiting_appends_max: 1024,
            append_wait_max_ms: 5000,
            recent_size_bytes_max: 32 << 20,
            subscriber_batches_max: 1024,
            disk_used_percent_max: 90,
            memory_size_bytes_max: 64 << 20,
            idempotency_window_ms: 900_000,
            idempotency_keys_max: 100_000,
            kafka_partitions: 6,
            kafka_replication: 3,
            kafka_min_insync_replicas: 2,
            kafka_retention_ms: 604_800_000,
            kafka_message_bytes_max: 16 << 20,
            kafka_group: "logyard".to_owned(),
            kafka_linger_ms: 5,
            kafka_message_timeout_ms: 20_000,
            kafka_compression: "lz4".to_owned(),
            kafka_buffer_bytes_max: 64 << 20,
            kafka_fetch_bytes_max: 16 << 20,
            kafka_refresh_interval_ms: 1000,
            kafka_start_wait_ms: 30_000,
            kafka_user: String::new(),
            kafka_password: String::new(),
            kafka_sasl_mechanism: "PLAIN".to_owned(),
            kafka_tls: false,
            kafka_tls_ca_file: String::new(),
            kafka_tls_certificate_file: String::new(),
            kafka_tls_key_file: String::new(),
        }
    }
}

impl Default for Indexer {
    fn default() -> Self {
        Self {
            portion_size_bytes_max: 8 << 20,
            write_interval_ms: 50,
            retry_min_ms: 100,
            retry_max_ms: 10_000,
            drain_ms: 30_000,
        }
    }
}

impl Default for Store {
    fn default() -> Self {
        Self {
            kind: "embedded".to_owned(),
            head_rows_max: 131_072,
            head_bytes_max: 32 << 20,
            head_age_max_ms: 300_000,
            columns_max: 1000,
            segment_bytes_max: 1 << 30,
            dead_letters_bytes_max: 64 << 20,
            write_wait_max_ms: 30_000,
            memory_size_bytes_max: 1 << 30,
            elasticsearch_user: String::new(),
            elasticsearch_password: String::new(),
            elasticsearch_api_key: String::new(),
            elasticsearch_ca_file: String::new(),
            elasticsearch_index_prefix: "logs-".to_owned(),
            elasticsearch_state_prefix: "logyard-".to_owned(),
            elasticsearch_shards: 1,
            elasticsearch_replicas: 1,
            elasticsearch_refresh_interval_ms: 0,
            elasticsearch_codec: "default".to_owned(),
            elasticsearch_logsdb: false,
            elasticsearch_fields_max: 5_000,
            elasticsearch_bulk_bytes_max: 8 << 20,
            elasticsearch_bulks_in_flight_max: 2,
            elasticsearch_compress: false,
            elasticsearch_connect_timeout_ms: 5_000,
            elasticsearch_answer_timeout_ms: 30_000,
            elasticsearch_write_limit_ms: 120_000,
            elasticsearch_poll_interval_ms: 500,
            elasticsearch_candidates_max: 200_000,
            elasticsearch_groups_max: 200_000,
            elasticsearch_exact_records_max: 20_000,
        }
    }
}

impl Default for Search {
    fn default() -> Self {
        Self {
            timeout_ms: 30_000,
            page_limit_max: 10_000,
            threads: 0,
            waiting_max: 128,
            wait_max_ms: 10_000,
            stats_memory_bytes_max: 64 << 20,
        }
    }
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            kind: "in-process".to_owned(),
            size_bytes_max: 32 << 20,
            time_to_live_ms: 120_000,
            redis_user: String::new(),
            redis_password: String::new(),
            redis_sentinel_user: String::new(),
            redis_sentinel_password: String::new(),
            redis_ca_file: String::new(),
            redis_prefix: "logyard".to_owned(),
            redis_budget_ms: 50,
            redis_connect_timeout_ms: 2000,
            redis_reconnect_max_ms: 10_000,
            redis_value_bytes_max: 1 << 20,
        }
    }
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            age_max_days: 0,
            size_bytes_max: 0,
            by_source: Vec::new(),
            interval_ms: 60_000,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            format: "auto".to_owned(),
            filter: "info".to_owned(),
        }
    }
}
