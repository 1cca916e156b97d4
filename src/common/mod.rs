//! What every layer may use: errors, cancellation, metrics, HTTP error bodies. Knows nothing of logs.

pub mod cancel;
pub mod error;
pub mod http;
pub mod metrics;
pub mod server;
