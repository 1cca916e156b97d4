//! Reads a request's body into memory, as it was sent, within the limits of size and memory. Decompression comes later, off these threads.

use std::error::Error as _;
use std::io;

use axum::body::{Body, Bytes};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http_body_util::BodyExt as _;

use crate::common::error::{Error, ErrorKind, Result};
use crate::intake::admission::Reservation;
use crate::intake::{IntakeOptions, IntakeState};
use crate::wire::compression::Encoding;

/// Plain bytes guessed for each compressed one when memory is reserved: logs shrink about so much.
const RATIO_GUESSED: usize = 8;
/// Memory is reserved in steps of this where the length was not announced.
const STEP_BYTES: usize = 1 << 20;

/// A body as it was sent.
pub(super) struct RawBody {
    pub bytes: Vec<u8>,
    pub encoding: Encoding,
    pub reservation: Reservation,
}

/// What the headers say about the body.
pub(super) fn encoding(headers: &HeaderMap) -> Result<Encoding> {
    let values: Vec<_> = headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .map(|value| String::from_utf8_lossy(value.as_bytes()))
        .collect();
    Encoding::from_header(&values.join(", "))
}

/// Refuses what is announced as too large before a byte of it is read.
pub(super) fn announced_len(headers: &HeaderMap, options: &IntakeOptions) -> Result<Option<usize>> {
    let value = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok());
    let Some(len) = value.and_then(|value| value.parse::<u64>().ok()) else {
        return Ok(None);
    };
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    if options.body_bytes_max < len {
        return Err(too_large(options));
    }
    Ok(Some(len))
}

fn too_large(options: &IntakeOptions) -> Error {
    Error::new(
        ErrorKind::TooLarge,
        "body_too_large",
        format!(
            "the body is larger than {} bytes (`intake.body_bytes_max`); nothing was stored, split it into several requests",
            options.body_bytes_max
        ),
    )
}

/// How much memory a body needs: itself, plain, and the batch made of it.
fn needed(raw_bytes: usize, encoding: Encoding) -> usize {
    match encoding {
        Encoding::Identity => raw_bytes.saturating_mul(2),
        Encoding::Gzip | Encoding::Zstd | Encoding::Deflate => {
            raw_bytes.saturating_mul(1 + 2 * RATIO_GUESSED)
        }
    }
}

pub(super) async fn read(state: &IntakeState, headers: &HeaderMap, body: Body) -> Result<RawBody> {
    let encoding = encoding(headers)?;
    let announced = announced_len(headers, &state.options)?;
    let reserved = needed(announced.unwrap_or(0), encoding);
    let mut reservation = state.memory.reserve(reserved).await?;
    let mut bytes = Vec::with_capacity(announced.unwrap_or(0));
    let outcome = read_frames(state, body, encoding, &mut bytes, &mut reservation).await;
    if let Err(error) = outcome {
        state
            .metrics
            .intake
            .refused_bytes
            .inc_by(bytes.len() as u64);
        return Err(error);
    }
    Ok(RawBody {
        bytes,
        encoding,
        reservation,
    })
}

async fn read_frames(
    state: &IntakeState,
    mut body: Body,
    encoding: Encoding,
    bytes: &mut Vec<u8>,
    reservation: &mut Reservation,
) -> Result<()> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(broken_off)?;
        let Ok(data): std::result::Result<Bytes, _> = frame.into_data() else {
            continue;
        };
        let len = bytes.len() + data.len();
        if state.options.body_bytes_max < len {
            return Err(too_large(&state.options));
        }
        let rounded = len.next_multiple_of(STEP_BYTES);
        if bytes.len() < rounded - STEP_BYTES || bytes.is_empty() {
            reservation.grow_to(needed(len, encoding)).await?;
        }
        bytes.extend_from_slice(&data);
    }
    reservation.grow_to(needed(bytes.len(), encoding)).await
}

/// The client was too slow, or is gone.
fn broken_off(e: axum::Error) -> Error {
    let mut cause = e.source();
    let mut is_late = false;
    while let Some(e) = cause {
        let io = e.downcast_ref::<io::Error>();
        is_late |= io.is_some_and(|e| e.kind() == io::ErrorKind::TimedOut);
        cause = e.source();
    }
    let (code, message) = if is_late {
        (
            "body_too_slow",
            "the body came too slowly; nothing was stored, send it again over a faster line or in smaller parts",
        )
    } else {
        (
            "body_cut_short",
            "the body ended before its announced end; nothing was stored, send it again",
        )
    };
    Error::new(ErrorKind::Cancelled, code, message).with_source(e)
}
