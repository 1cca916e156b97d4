//! What can be set about the store on Elasticsearch.

use std::sync::Arc;
use std::time::Duration;

use crate::store::elasticsearch::claim::Claim;
use crate::store::elasticsearch::client::ClientOptions;
use crate::store::elasticsearch::names::pattern_of;
use crate::store::elasticsearch::read::ReadLimits;

/// Whose positions the records carry. Ids and checkpoints are made of positions, so one index prefix belongs to one queue. Empty: upkeep alone, which
/// writes no records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueIdentity(pub String);

#[derive(Clone, Debug)]
pub struct ElasticsearchOptions {
    pub client: ClientOptions,
    pub queue: QueueIdentity,
    /// Of the folder that the queue lies in, where it lies in one: then this process alone writes its records.
    pub claim: Option<Arc<Claim>>,
    /// Daily indices are `<prefix>YYYY.MM.DD`. Default `logs-`.
    pub index_prefix: String,
    /// The indices of checkpoints and dead letters are `<prefix>state` and `<prefix>dead-letters`. Default `logyard-`.
    pub state_prefix: String,
    pub shards: u64,
    pub replicas: u64,
    /// `index.refresh_interval`; writing refreshes by itself, so `-1` is enough.
    pub refresh_interval: String,
    /// `index.codec`: `default` or `best_compression`.
    pub codec: String,
    /// `logsdb` index mode, where the server has it.
    pub logsdb: bool,
    /// `index.mapping.total_fields.limit`; what lies beyond goes into one catch-all field.
    pub fields_max: usize,
    /// One request holds at most about so many bytes of documents.
    pub bulk_bytes_max: usize,
    pub bulks_in_flight_max: usize,
    /// How long one `write` tries before it says that the store cannot take it now (and is called again with the same).
    pub write_limit: Duration,
    /// How often checkpoints of other processes are read.
    pub poll_interval: Duration,
    /// Bytes of dead letters kept; the oldest go first.
    pub dead_letters_bytes_max: u64,
    /// A cleaner that says nothing for this time may be replaced by another.
    pub cleaner_lease: Duration,
    pub read: ReadLimits,
}

impl ElasticsearchOptions {
    pub fn new(client: ClientOptions, queue: QueueIdentity) -> Self {
        Self {
            client,
            queue,
            claim: None,
            index_prefix: "logs-".to_owned(),
            state_prefix: "logyard-".to_owned(),
            shards: 1,
            replicas: 1,
            refresh_interval: "-1".to_owned(),
            codec: "default".to_owned(),
            logsdb: false,
            fields_max: 5_000,
            bulk_bytes_max: 8 << 20,
            bulks_in_flight_max: 2,
            write_limit: Duration::from_secs(120),
            poll_interval: Duration::from_millis(500),
            dead_letters_bytes_max: 64 << 20,
            cleaner_lease: Duration::from_secs(120),
            read: ReadLimits::default(),
        }
    }

    pub fn state_index(&self) -> String {
        format!("{}state", self.state_prefix)
    }

    pub fn letters_index(&self) -> String {
        format!("{}dead-letters", self.state_prefix)
    }

    /// All indices with records, for the path of a request.
    pub fn pattern(&self) -> String {
        pattern_of(&self.index_prefix)
    }
}
