//! Where bodies become batches: small ones at once, large and compressed ones on a bounded number of blocking threads. Decoders are reused,
//! so their buffers and the field names they know are.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;
use xxhash_rust::xxh3::Xxh3;

use crate::common::error::{Error, Result};
use crate::intake::IntakeOptions;
use crate::intake::admission::overloaded;
use crate::intake::body::RawBody;
use crate::wire::compression::{CompressionOptions, Decompressor, Encoding, too_large};
use crate::wire::json::RecordDefaults;
use crate::wire::native::batch;
use crate::wire::native::decode::{Body, BodyDecoder, DecodeOptions, Decoded, Hint};

/// Decoders kept for later.
const IDLE_MAX: usize = 8;

pub(super) struct DecoderPool {
    shared: Arc<Shared>,
    turns: Arc<Semaphore>,
    wait: Duration,
    inline_bytes_max: usize,
}

struct Shared {
    idle: Mutex<Vec<BodyDecoder>>,
    decode: DecodeOptions,
    compression: CompressionOptions,
}

/// What goes with a body.
#[derive(Clone, Debug, Default)]
pub(super) struct Request {
    pub arrival_ns: i64,
    pub hint: Option<Hint>,
    pub source: Option<String>,
    pub level: Option<String>,
    /// The body is a batch of another Logyard.
    pub is_batch: bool,
    /// Hash body and parameters.
    pub wants_hash: bool,
}

/// A body that was read.
pub(super) struct Work {
    pub decoded: Decoded,
    pub plain_bytes: usize,
    pub body_hash: u128,
}

impl DecoderPool {
    pub fn new(options: &IntakeOptions) -> Self {
        Self {
            shared: Arc::new(Shared {
                idle: Mutex::new(Vec::new()),
                decode: options.decode.clone(),
                compression: options.compression.clone(),
            }),
            turns: Arc::new(Semaphore::new(options.decoders_max.max(1))),
            wait: options.admission_wait,
            inline_bytes_max: options.inline_bytes_max,
        }
    }

    /// The memory stays reserved until the returned body is dropped, even if the client goes away meanwhile.
    pub async fn decode(&self, mut body: RawBody, request: Request) -> Result<(Work, RawBody)> {
        let is_small = body.bytes.len() <= self.inline_bytes_max;
        if is_small && body.encoding == Encoding::Identity {
            let work = self.shared.work(&mut body, &request)?;
            return Ok((work, body));
        }
        let turn = timeout(self.wait, self.turns.clone().acquire_owned()).await;
        let Ok(Ok(turn)) = turn else {
            return Err(overloaded());
        };
        let shared = self.shared.clone();
        let task = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let work = shared.work(&mut body, &request)?;
            Ok((work, body))
        });
        task.await
            .unwrap_or_else(|e| Err(Error::internal("decoding a body failed").with_source(e)))
    }

    /// Reads one line as NDJSON or as text, for replays.
    pub fn decode_line(&self, raw: &[u8], is_text: bool, request: &Request) -> Result<Decoded> {
        let mut decoder = self.shared.take();
        let body = Body {
            bytes: raw,
            hint: if is_text { Hint::Text } else { Hint::Json },
            defaults: request.defaults(),
        };
        let decoded = if is_text {
            decoder.decode(&body)
        } else {
            decoder.decode_json_lines(&body)
        };
        self.shared.give_back(decoder);
        decoded
    }
}

impl Request {
    fn defaults(&self) -> RecordDefaults<'_> {
        RecordDefaults {
            arrival_ns: self.arrival_ns,
            source: self.source.as_deref(),
            level: self.level.as_deref(),
        }
    }
}

impl Shared {
    fn take(&self) -> BodyDecoder {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.pop()
            .unwrap_or_else(|| BodyDecoder::new(self.decode.clone()))
    }

    /// A decoder that panicked is never given back.
    fn give_back(&self, decoder: BodyDecoder) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX {
            idle.push(decoder);
        }
    }

    fn work(&self, body: &mut RawBody, request: &Request) -> Result<Work> {
        if body.encoding != Encoding::Identity {
            body.bytes = self.decompress(body)?;
            body.encoding = Encoding::Identity;
        }
        let plain = &body.bytes;
        if self.compression.plain_bytes_max < plain.len() {
            return Err(too_large(self.compression.plain_bytes_max));
        }
        let body_hash = if request.wants_hash {
            hash(plain, request)
        } else {
            0
        };
        let decoded = if request.is_batch {
            batch::decode(plain, &self.decode)?
        } else {
            let mut decoder = self.take();
            let decoded = decoder.decode(&Body {
                bytes: plain,
                hint: request.hint.unwrap_or(Hint::Unknown),
                defaults: request.defaults(),
            });
            self.give_back(decoder);
            decoded?
        };
        Ok(Work {
            decoded,
            plain_bytes: plain.len(),
            body_hash,
        })
    }

    fn decompress(&self, body: &mut RawBody) -> Result<Vec<u8>> {
        const STEP_BYTES: usize = 16 << 10;
        let mut decompressor = Decompressor::new(body.encoding, self.compression.clone())?;
        for piece in body.bytes.chunks(STEP_BYTES) {
            decompressor.push(piece)?;
            // The body as sent, plain, and the batch.
            let held = body.bytes.len() + decompressor.plain_len().saturating_mul(2);
            body.reservation.try_grow_to(held)?;
        }
        decompressor.finish()
    }
}

/// What makes a retry the same request: the plain body and the parameters that change its meaning.
fn hash(plain: &[u8], request: &Request) -> u128 {
    let mut hasher = Xxh3::new();
    for part in [&request.source, &request.level] {
        let text = part.as_deref().unwrap_or_default();
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    }
    hasher.update(&[u8::from(request.hint == Some(Hint::Text)) | u8::from(request.is_batch) << 1]);
    hasher.update(plain);
    hasher.digest128()
}
