//! The store on Elasticsearch (8, 9) or OpenSearch (2, 3): daily indices that Kibana can read, exact answers on any server without plugins.
//!
//! Write side: `document` makes a document of each record, with the fields that `mapping` knows or adds; `write` sends them and `state` keeps how far
//! each partition of the queue is indexed; `claim` lets one of several copies of a data folder write. `letters`, `expire` and `usage` are upkeep. Read side: `read` turns questions into queries, `hit` turns documents
//! into records. Both sides share `names` and the `client`.

pub mod address;
pub mod answer;
pub mod breaker;
pub mod bulk;
pub mod claim;
pub mod client;
pub mod document;
pub mod expire;
pub mod hit;
pub mod indices;
pub mod lease;
pub mod letters;
pub mod mapping;
pub mod names;
pub mod options;
pub mod plan;
pub mod put;
pub mod read;
pub mod state;
pub mod store;
pub mod usage;
pub mod words;
pub mod write;

pub use options::{ElasticsearchOptions, QueueIdentity};
pub use store::ElasticsearchStore;

use crate::store::elasticsearch::client::Client;
use crate::store::elasticsearch::letters::Letters;
use crate::store::elasticsearch::mapping::Mappings;
use crate::store::elasticsearch::state::State;
use crate::store::elasticsearch::write::Work;

/// What both sides work with.
pub struct Inner {
    pub client: Client,
    pub options: ElasticsearchOptions,
    pub mappings: Mappings,
    pub state: State,
    pub letters: Letters,
    /// One write at a time; what it keeps for the next one.
    pub work: tokio::sync::Mutex<Option<Work>>,
}

#[cfg(test)]
mod tests;
