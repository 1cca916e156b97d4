//! Logyard: the whole log stack in one binary. The modules stand in the order of the data's path.

pub mod common;
pub mod config;

pub mod record;
pub mod query;
pub mod wire;

// Write path.
pub mod intake;
pub mod queue;
pub mod indexer;
pub mod store;

// Read path.
pub mod search;
pub mod cache;
pub mod api;
pub mod ui;

// Around them.
pub mod retention;
pub mod kibana;
pub mod loadgen;
pub mod migrate;

pub mod cli;
pub mod options;
pub mod serve;
pub mod maintain;
