//! The store on Elasticsearch (8, 9) or OpenSearch (2, 3): daily indices that Kibana can read, exact answers on any server without plugins.
//!
//! Write side: `document` makes a document of each record, with the fields that `mapping` knows or adds; `write` sends them and `state` keeps how far
//! each partition of the queue is indexed. `letters`, `expire` and `usage` are upkeep. Read side: `read` turns questions into queries, `hit` turns documents
//! into records. Both sides share `names` and the `client`.

pub mod address;
pub mod breaker;
pub mod client;
pub mod hit;
pub mod names;
pub mod options;
pub mod read;

use crate::store::elasticsearch::client::Client;
use crate::store::elasticsearch::options::ElasticsearchOptions;

/// What both sides work with.
pub struct Inner {
    pub client: Client,
    pub options: ElasticsearchOptions,
}
