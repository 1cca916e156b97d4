//! READ 1 on Elasticsearch: a question → queries → an answer that equals what `query::evaluate` says record by record.
//!
//! `query` writes a filter as two queries around the truth (`bounds`). What both agree on, the server counts, pages and aggregates; the records
//! between them are fetched, judged by `query::evaluate` and added up by `store::answer` (`scan`), at most [`ReadLimits::candidates_max`] of them:
//! slower, never wrong. So are records whose value at an address is not simply the one of a typed field (`own::MULTI`), in groups and aggregates.

mod asker;
mod bounds;
mod catalog;
mod clauses;
mod digits;
mod fields;
mod get;
mod groups;
mod histogram;
mod lucene;
mod plan;
mod query;
mod scan;
mod search;
mod stats;
mod summary;
mod tokens;

pub use fields::fields;
pub use get::get;
pub use histogram::histogram;
pub use search::search;
pub use stats::stats;

/// Limits of one question.
#[derive(Clone, Debug)]
pub struct ReadLimits {
    /// Records that are fetched to be judged or added up here, because the server cannot. A question that needs more is refused, and the message
    /// says how to narrow it. Default: 200,000.
    pub candidates_max: u64,
    /// Records fetched at once. Default: 1,000.
    pub portion_records: usize,
    /// Groups of a `stats` question before `limit` cuts them. Default: 200,000.
    pub groups_max: usize,
    /// Percentiles and distinct counts of at most so many records are computed here, exactly; of more by the server, approximately, and the
    /// answer says so. Default: 20,000.
    pub exact_records_max: u64,
}

impl Default for ReadLimits {
    fn default() -> Self {
        Self {
            candidates_max: 200_000,
            portion_records: 1_000,
            groups_max: 200_000,
            exact_records_max: 20_000,
        }
    }
}

#[cfg(test)]
mod tests;
