//! READ 1 on this machine's disk: everything that answers a question over a [`Snapshot`](crate::store::embedded::snapshot::Snapshot).
//!
//! `part` reads columns of chosen rows, `term` and `filter` say which rows match, `bounds` what is known of that beforehand; `search`, `histogram`,
//! `fields` and `stats` answer. Every function blocks: `query::BlockingPool` threads alone call them. Must not know the write side.

pub mod bounds;
pub mod context;
pub mod fields;
pub mod filter;
pub mod histogram;
pub mod kernels;
pub mod known;
pub mod materialize;
pub mod part;
pub mod search;
pub mod sketch;
pub mod sought;
pub mod stats;
pub mod tally;
pub mod term;
pub mod values;

#[cfg(test)]
mod tests;
