//! The store on this machine's disk: Parquet segments with a token index, a head in memory, a catalog.
//!
//! `schema`, `segment` and `snapshot` are the shapes that both sides share. Write side: rows go to the head; a flush turns the head into segments.
//! Read side: everything takes a `Snapshot`.

pub mod schema;
pub mod segment;
pub mod snapshot;
