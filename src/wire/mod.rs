//! Bytes ⇄ records, one folder for each protocol. Pure functions: no I/O, no clock, no sockets.

pub mod compression;
