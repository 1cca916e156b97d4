//! WRITE 1: HTTP bodies → batches → the queue. Thin: what a body means is `wire`'s business, what durable means is the queue's.
//!
//! A request passes these gates in order, each with its own refusal, and nothing is stored before the last: known parameters (400), encoding
//! and type (415), announced size (413), memory ([`admission`], 503 after a wait), the body as it comes (413, 400, 408), its content (400,
//! 413), the queue (422, 503). Bodies are decoded on a bounded pool unless they are small.

mod admission;
mod body;
mod decoding;
mod logs;
mod replay;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::routing::post;

use crate::common::metrics::Metrics;
use crate::queue::Queue;
use crate::store::Store;
use crate::wire::compression::CompressionOptions;
use crate::wire::native::decode::DecodeOptions;

/// Limits of the write path.
#[derive(Clone, Debug)]
pub struct IntakeOptions {
    /// Bytes of a body as it is sent. Larger ones are refused with 413.
    pub body_bytes_max: usize,
    /// Limits of decompression; the plain limit holds for bodies that are not compressed too.
    pub compression: CompressionOptions,
    pub decode: DecodeOptions,
    /// Bytes of all bodies being worked on, their batches included.
    pub in_flight_bytes_max: usize,
    /// How long a request waits for memory or for a decoder before it is refused with 503.
    pub admission_wait: Duration,
    /// Larger bodies, and all compressed ones, are decoded on the pool.
    pub inline_bytes_max: usize,
    /// Threads of that pool.
    pub decoders_max: usize,
    /// How long `wait_for=indexed` waits at most.
    pub indexed_wait: Duration,
    /// Dead letters that one replay takes on at most.
    pub replay_letters_max: usize,
}

impl Default for IntakeOptions {
    fn default() -> Self {
        Self {
            body_bytes_max: 64 << 20,
            compression: CompressionOptions::default(),
            decode: DecodeOptions::default(),
            in_flight_bytes_max: 256 << 20,
            admission_wait: Duration::from_secs(5),
            inline_bytes_max: 64 << 10,
            decoders_max: 2,
            indexed_wait: Duration::from_secs(10),
            replay_letters_max: 10_000,
        }
    }
}

/// What the handlers share.
pub struct IntakeState {
    queue: Arc<dyn Queue>,
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
    options: IntakeOptions,
    memory: admission::Memory,
    decoders: decoding::DecoderPool,
}

impl IntakeState {
    pub fn new(
        queue: Arc<dyn Queue>,
        store: Arc<dyn Store>,
        metrics: Arc<Metrics>,
        options: IntakeOptions,
    ) -> Self {
        Self {
            queue,
            store,
            metrics,
            memory: admission::Memory::new(options.in_flight_bytes_max, options.admission_wait),
            decoders: decoding::DecoderPool::new(&options),
            options,
        }
    }
}

/// `POST /logs` and `POST /dead-letters/replay`.
pub fn routes(state: IntakeState) -> Router {
    Router::new()
        .route("/logs", post(logs::post_logs))
        .route("/dead-letters/replay", post(replay::post_replay))
        .with_state(Arc::new(state))
}

/// Nanoseconds since 1970, by the server's clock.
fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
    })
}
