//! Settings → the options of each part. A test keeps the defaults of both alike, so that `config/embedded.toml` tells the truth.

use std::time::Duration;

use logyard_wal::{Durability, LogOptions};

use crate::api::ApiOptions;
use crate::cache::{RedisOptions, RedisTopology};
use crate::common::error::{Error, Result};
use crate::common::server::ServerOptions;
use crate::config::{
    CacheKind, Checked, DurabilityKind, KafkaAddress, QueueKind, RedisKind, RedisUrl, Settings,
    StoreKind, days_to_age,
};
use crate::indexer::IndexerOptions;
use crate::intake::IntakeOptions;
use crate::queue::kafka::{Consuming, KafkaSecurity};
use crate::queue::{
    EmbeddedQueueOptions, IdempotencyOptions, KafkaQueueOptions, MemoryQueueOptions,
};
use crate::record::aliases::Aliases;
use crate::retention::RetentionOptions;
use crate::search::SearchOptions;
use crate::store::RetentionRules;
use crate::store::elasticsearch::address::Address;
use crate::store::elasticsearch::client::ClientOptions;
use crate::store::elasticsearch::{ElasticsearchOptions, QueueIdentity};
use crate::store::embedded::EmbeddedStoreOptions;
use crate::store::memory::MemoryStoreOptions;

pub fn server(settings: &Settings) -> ServerOptions {
    let http = &settings.http;
    ServerOptions {
        connections_max: size(http.connections_max),
        connections_per_ip_max: size(http.connections_per_ip_max),
        head_timeout: ms(http.head_timeout_ms),
        keep_alive_idle: ms(http.keep_alive_idle_ms),
        connection_age_max: ms(http.connection_age_max_ms),
        write_stall: ms(http.write_stall_ms),
        body_bytes_per_s_min: http.body_bytes_per_s_min,
        body_grace: ms(http.body_grace_ms),
        headers_max: size(http.headers_max),
        head_bytes_max: size(http.head_bytes_max),
        http2_header_bytes_max: narrow(http.http2_header_bytes_max),
        http2_streams_max: narrow(http.http2_streams_max),
        drain: ms(http.drain_ms),
    }
}

pub fn aliases(settings: &Settings) -> Aliases {
    let intake = &settings.intake;
    Aliases {
        timestamp: intake.timestamp_names.clone(),
        level: intake.level_names.clone(),
        source: intake.source_names.clone(),
        message: intake.message_names.clone(),
    }
}

pub fn intake(settings: &Settings) -> IntakeOptions {
    let intake = &settings.intake;
    let mut options = IntakeOptions {
        body_bytes_max: size(intake.body_bytes_max),
        in_flight_bytes_max: size(intake.in_flight_bytes_max),
        admission_wait: ms(intake.admission_wait_ms),
        indexed_wait: ms(intake.indexed_wait_ms),
        replay_letters_max: size(intake.replay_letters_max),
        ..IntakeOptions::default()
    };
    options.compression.plain_bytes_max = size(intake.plain_bytes_max);
    options.decode.line_bytes_max = size(intake.line_bytes_max);
    options.decode.json.fields_max = narrow(intake.fields_max);
    options.decode.json.aliases = aliases(settings);
    options
}

fn idempotency(settings: &Settings) -> IdempotencyOptions {
    IdempotencyOptions {
        window: ms(settings.queue.idempotency_window_ms),
        keys_max: size(settings.queue.idempotency_keys_max),
        ..IdempotencyOptions::default()
    }
}

/// `consuming`: whether this process shares the partitions with others.
pub fn kafka_queue(checked: &Checked, consuming: Consuming) -> KafkaQueueOptions {
    let settings = &checked.settings;
    let queue = &settings.queue;
    let address = checked.kafka.clone();
    let defaults = KafkaQueueOptions::default();
    let (brokers, topic, user, password) = match address {
        Some(KafkaAddress {
            brokers,
            topic,
            user,
            password,
        }) => (brokers, topic, user, password),
        None => (
            defaults.brokers.clone(),
            defaults.topic.clone(),
            queue.kafka_user.clone(),
            queue.kafka_password.clone(),
        ),
    };
    KafkaQueueOptions {
        brokers,
        topic,
        security: KafkaSecurity {
            user,
            password,
            mechanism: queue.kafka_sasl_mechanism.clone(),
            tls: queue.kafka_tls,
            ca_file: queue.kafka_tls_ca_file.clone(),
            certificate_file: queue.kafka_tls_certificate_file.clone(),
            key_file: queue.kafka_tls_key_file.clone(),
        },
        partitions: narrow(queue.kafka_partitions),
        replication: narrow(queue.kafka_replication),
        min_insync_replicas: narrow(queue.kafka_min_insync_replicas),
        retention: ms(queue.kafka_retention_ms),
        message_bytes_max: size(queue.kafka_message_bytes_max),
        group: queue.kafka_group.clone(),
        consuming,
        linger: ms(queue.kafka_linger_ms),
        message_timeout: ms(queue.kafka_message_timeout_ms),
        compression: queue.kafka_compression.clone(),
        buffer_bytes_max: size(queue.kafka_buffer_bytes_max),
        append_wait_max: ms(queue.append_wait_max_ms),
        fetch_bytes_max: size(queue.kafka_fetch_bytes_max),
        subscriber_batches_max: size(queue.subscriber_batches_max),
        refresh_interval: ms(queue.kafka_refresh_interval_ms),
        start_wait: ms(queue.kafka_start_wait_ms),
        idempotency: idempotency(settings),
        decode: intake(settings).decode,
        ..defaults
    }
}

/// `next_seq_min`: what the store covers already.
pub fn embedded_queue(checked: &Checked, next_seq_min: u64) -> EmbeddedQueueOptions {
    let settings = &checked.settings;
    let queue = &settings.queue;
    let durability = match checked.durability {
        DurabilityKind::Fsync => Durability::Fsync,
        DurabilityKind::Interval(interval) => Durability::Interval(interval),
        DurabilityKind::Os => Durability::Os,
    };
    EmbeddedQueueOptions {
        log: LogOptions {
            durability,
            segment_size_bytes: queue.segment_size_bytes,
            size_bytes_max: queue.size_bytes_max,
            next_seq_min,
        },
        group_size_bytes_max: size(queue.group_size_bytes_max),
        waiting_appends_max: size(queue.waiting_appends_max),
        append_wait_max: ms(queue.append_wait_max_ms),
        recent_size_bytes_max: size(queue.recent_size_bytes_max),
        subscriber_batches_max: size(queue.subscriber_batches_max),
        idempotency: idempotency(settings),
        disk_used_percent_max: queue.disk_used_percent_max as f64,
        ..EmbeddedQueueOptions::default()
    }
}

pub fn memory_queue(settings: &Settings) -> MemoryQueueOptions {
    MemoryQueueOptions {
        size_bytes_max: size(settings.queue.memory_size_bytes_max),
        subscriber_batches_max: size(settings.queue.subscriber_batches_max),
        idempotency: idempotency(settings),
    }
}

pub fn embedded_store(settings: &Settings) -> EmbeddedStoreOptions {
    let store = &settings.store;
    let mut options = EmbeddedStoreOptions {
        head_rows_max: size(store.head_rows_max),
        head_bytes_max: size(store.head_bytes_max),
        head_age_max: ms(store.head_age_max_ms),
        dead_letters_bytes_max: store.dead_letters_bytes_max,
        write_wait_max: ms(store.write_wait_max_ms),
        ..EmbeddedStoreOptions::default()
    };
    options.read.pool.queue_count_max = size(settings.search.waiting_max);
    options.read.pool.queue_wait_max = ms(settings.search.wait_max_ms);
    if 0 < settings.search.threads {
        options.read.pool.threads_count = size(settings.search.threads);
    }
    options.read.stats.memory_bytes_max = size(settings.search.stats_memory_bytes_max);
    options.columns.columns_max = size(store.columns_max);
    options.merge.size_bytes_max = store.segment_bytes_max;
    options
}

pub fn memory_store(settings: &Settings) -> MemoryStoreOptions {
    MemoryStoreOptions {
        size_bytes_max: size(settings.store.memory_size_bytes_max),
        ..MemoryStoreOptions::default()
    }
}

/// `queue`: whose records they are; empty for upkeep alone.
pub fn elasticsearch_store(
    settings: &Settings,
    queue: QueueIdentity,
) -> Result<ElasticsearchOptions> {
    let store = &settings.store;
    let text = |text: &String| (!text.is_empty()).then(|| text.clone());
    let mut address = Address::parse(&store.kind)?;
    if let Some(user) = text(&store.elasticsearch_user) {
        address.user = Some(user);
        address.password = None;
    }
    if let Some(password) = text(&store.elasticsearch_password) {
        address.password = Some(password);
    }
    let mut client = ClientOptions::new(address);
    client.api_key = text(&store.elasticsearch_api_key);
    client.ca_file = text(&store.elasticsearch_ca_file).map(Into::into);
    client.connect_timeout = ms(store.elasticsearch_connect_timeout_ms);
    client.first_byte_timeout = ms(store.elasticsearch_answer_timeout_ms);
    client.compress = store.elasticsearch_compress;
    let mut options = ElasticsearchOptions::new(client, queue);
    options
        .index_prefix
        .clone_from(&store.elasticsearch_index_prefix);
    options
        .state_prefix
        .clone_from(&store.elasticsearch_state_prefix);
    options.shards = store.elasticsearch_shards;
    options.replicas = store.elasticsearch_replicas;
    if 0 < store.elasticsearch_refresh_interval_ms {
        options.refresh_interval = format!("{}ms", store.elasticsearch_refresh_interval_ms);
    }
    options.codec.clone_from(&store.elasticsearch_codec);
    options.logsdb = store.elasticsearch_logsdb;
    options.fields_max = size(store.elasticsearch_fields_max);
    options.bulk_bytes_max = size(store.elasticsearch_bulk_bytes_max);
    options.bulks_in_flight_max = size(store.elasticsearch_bulks_in_flight_max);
    options.write_limit = ms(store.elasticsearch_write_limit_ms);
    options.poll_interval = ms(store.elasticsearch_poll_interval_ms);
    options.dead_letters_bytes_max = store.dead_letters_bytes_max;
    options.read.candidates_max = store.elasticsearch_candidates_max;
    options.read.groups_max = size(store.elasticsearch_groups_max);
    options.read.exact_records_max = store.elasticsearch_exact_records_max;
    Ok(options)
}

pub fn indexer(settings: &Settings) -> IndexerOptions {
    let indexer = &settings.indexer;
    IndexerOptions {
        portion_size_bytes_max: size(indexer.portion_size_bytes_max),
        write_interval: ms(indexer.write_interval_ms),
        retry_min: ms(indexer.retry_min_ms),
        retry_max: ms(indexer.retry_max_ms),
    }
}

pub fn search(settings: &Settings) -> SearchOptions {
    SearchOptions {
        timeout: ms(settings.search.timeout_ms),
        time_to_live: ms(settings.cache.time_to_live_ms),
    }
}

/// Reads the file of the authority, if there is one.
pub fn redis(settings: &Settings, url: &RedisUrl) -> Result<RedisOptions> {
    let cache = &settings.cache;
    let given = |text: &String| (!text.is_empty()).then(|| text.clone());
    let read = |path: String| {
        std::fs::read(&path).map_err(|e| {
            let message = format!("`cache.redis_ca_file`: cannot read {path}: {e}");
            Error::invalid("invalid_settings", message)
        })
    };
    Ok(RedisOptions {
        topology: match &url.kind {
            RedisKind::Single => RedisTopology::Single,
            RedisKind::Cluster => RedisTopology::Cluster,
            RedisKind::Sentinel { master } => RedisTopology::Sentinel {
                master: master.clone(),
            },
        },
        is_tls: url.is_tls,
        addresses: url.addresses.clone(),
        user: url.user.clone(),
        password: url.password.clone(),
        database: url.database,
        sentinel_user: given(&cache.redis_sentinel_user),
        sentinel_password: given(&cache.redis_sentinel_password),
        ca_pem: given(&cache.redis_ca_file).map(read).transpose()?,
        prefix: cache.redis_prefix.clone(),
        budget: ms(cache.redis_budget_ms),
        connect_timeout: ms(cache.redis_connect_timeout_ms),
        reconnect_max: ms(cache.redis_reconnect_max_ms),
        value_bytes_max: size(cache.redis_value_bytes_max),
    })
}

pub fn api(settings: &Settings) -> ApiOptions {
    ApiOptions {
        aliases: aliases(settings),
        page_limit_max: settings.search.page_limit_max,
    }
}

/// The largest uses of memory: (part, bytes that it may take).
pub fn memory_budget(checked: &Checked) -> Vec<(&'static str, u64)> {
    let settings = &checked.settings;
    let queue = match checked.queue {
        QueueKind::Embedded => settings.queue.recent_size_bytes_max,
        QueueKind::Memory => settings.queue.memory_size_bytes_max,
        // The producer's buffer; fetched messages of the indexer, raw and decoded, and of a live tail.
        QueueKind::Kafka => {
            settings.queue.kafka_buffer_bytes_max + 3 * settings.queue.kafka_fetch_bytes_max
        }
    };
    let store = match checked.store {
        StoreKind::Embedded => 2 * settings.store.head_bytes_max,
        StoreKind::Memory => settings.store.memory_size_bytes_max,
        // Being made, waiting, under way.
        StoreKind::Elasticsearch => {
            settings.store.elasticsearch_bulk_bytes_max
                * (2 + settings.store.elasticsearch_bulks_in_flight_max)
        }
    };
    let cache = match &checked.cache {
        CacheKind::InProcess => settings.cache.size_bytes_max,
        CacheKind::Off | CacheKind::Redis(_) => 0,
    };
    vec![
        ("intake", settings.intake.in_flight_bytes_max),
        ("queue", queue),
        ("store", store),
        ("search", settings.search.stats_memory_bytes_max),
        ("cache", cache),
    ]
}

pub fn retention_rules(checked: &Checked) -> RetentionRules {
    let retention = &checked.settings.retention;
    RetentionRules {
        by_source: checked.retention_by_source.clone(),
        age_max: days_to_age(retention.age_max_days),
        size_bytes_max: (0 < retention.size_bytes_max).then_some(retention.size_bytes_max),
    }
}

pub fn retention(checked: &Checked) -> RetentionOptions {
    RetentionOptions {
        interval: ms(checked.settings.retention.interval_ms),
        rules: retention_rules(checked),
    }
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn narrow(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{check, load, redis_url};
    use std::fmt::Debug;

    #[test]
    fn the_settings_defaults_are_the_parts_defaults() {
        fn same(mapped: &impl Debug, own: &impl Debug) {
            assert_eq!(format!("{mapped:#?}"), format!("{own:#?}"));
        }
        let settings = Settings::default();
        let checked = check(&load(None, [], &[]).unwrap()).unwrap();
        same(&server(&settings), &ServerOptions::default());
        same(&intake(&settings), &IntakeOptions::default());
        same(
            &embedded_queue(&checked, 0),
            &EmbeddedQueueOptions::default(),
        );
        same(&memory_queue(&settings), &MemoryQueueOptions::default());
        same(
            &kafka_queue(&checked, Consuming::Assigned),
            &KafkaQueueOptions::default(),
        );
        same(&memory_store(&settings), &MemoryStoreOptions::default());
        same(&embedded_store(&settings), &EmbeddedStoreOptions::default());
        let queue = QueueIdentity("q".to_owned());
        let mut with_elasticsearch = settings.clone();
        "elasticsearch://x".clone_into(&mut with_elasticsearch.store.kind);
        same(
            &elasticsearch_store(&with_elasticsearch, queue.clone()).unwrap(),
            &ElasticsearchOptions::new(
                ClientOptions::new(Address::parse("elasticsearch://x").unwrap()),
                queue,
            ),
        );
        same(&indexer(&settings), &IndexerOptions::default());
        same(&search(&settings), &SearchOptions::default());
        let url = redis_url::parse("redis://127.0.0.1").unwrap();
        same(&redis(&settings, &url).unwrap(), &RedisOptions::default());
        same(&api(&settings), &ApiOptions::default());
        same(&retention(&checked), &RetentionOptions::default());
    }
}
