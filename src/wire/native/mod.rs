//! Logyard's own format: bodies of `POST /logs` → a batch, and records → JSON, NDJSON and CSV.

pub mod batch;
pub mod csv;
pub mod decode;
pub mod encode;
pub mod queued;
pub mod text;
