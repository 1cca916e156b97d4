//! What every layer may use: errors, cancellation, metrics, the HTTP server, the data folder, the process's own log. Knows nothing of logs.

pub mod blocking;
pub mod cancel;
pub mod data_dir;
pub mod error;
pub mod http;
pub mod metrics;
pub mod server;
pub mod telemetry;
