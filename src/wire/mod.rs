//! Bytes ⇄ records, one folder for each protocol. Pure functions: no I/O, no clock, no sockets.

pub mod compression;
pub mod json;
pub mod json_text;
pub mod native;
