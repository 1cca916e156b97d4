//! Content encodings of request bodies: gzip (any number of members), zstd, deflate (zlib or raw), one at a time.
//!
//! A decoder is fed pieces as they arrive and never makes more than the plain-bytes limit, nor more than the ratio limit allows once it is past
//! [`CompressionOptions::ratio_free_bytes`]. It knows nothing of HTTP but the names of the encodings.

use std::io::Write as _;

use flate2::write::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use zstd::stream::raw::{Decoder as ZstdDecoder, InBuffer, Operation as _, OutBuffer};

use crate::common::error::{Error, ErrorKind, Result};

/// The names accepted, for `Accept-Encoding` in the answer to an unknown one.
pub const ACCEPTED: &str = "gzip, zstd, deflate, identity";

/// The largest block of zstd.
const ZSTD_CHUNK_BYTES: usize = 128 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Identity,
    Gzip,
    Zstd,
    Deflate,
}

#[derive(Clone, Debug)]
pub struct CompressionOptions {
    /// Bytes a body may have once it is decompressed. Larger ones are refused with 413.
    pub plain_bytes_max: usize,
    /// Plain bytes for each compressed byte, once `ratio_free_bytes` are out. More is taken for a bomb and refused with 413.
    pub ratio_max: usize,
    pub ratio_free_bytes: usize,
    /// log2 of the largest zstd window: 23 is 8 MiB, what `zstd -19` uses.
    pub zstd_window_log_max: u32,
}

impl Default for CompressionOptions {
    fn default() -> Self {
        Self {
            plain_bytes_max: 128 << 20,
            ratio_max: 1_000,
            ratio_free_bytes: 1 << 20,
            zstd_window_log_max: 23,
        }
    }
}

impl Encoding {
    /// Reads the value of a `Content-Encoding` header; absent or empty is identity.
    pub fn from_header(value: &str) -> Result<Self> {
        match value.trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Ok(Self::Identity),
            "gzip" | "x-gzip" => Ok(Self::Gzip),
            "zstd" => Ok(Self::Zstd),
            "deflate" => Ok(Self::Deflate),
            other => {
                let several = if other.contains(',') {
                    "; only one encoding at a time is accepted"
                } else {
                    ""
                };
                Err(Error::new(
                    ErrorKind::UnsupportedMedia,
                    "unsupported_encoding",
                    format!(
                        "content encoding `{}` is not understood; accepted: {ACCEPTED}{several}",
                        other.chars().take(60).collect::<String>()
                    ),
                ))
            }
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Deflate => "deflate",
        }
    }
}

/// Decompresses one body, piece by piece.
pub struct Decompressor {
    encoding: Encoding,
    state: State,
    compressed_bytes: usize,
    options: CompressionOptions,
}

enum State {
    Identity(Sink),
    Gzip(Box<MultiGzDecoder<Sink>>),
    Zstd(Box<Zstd>),
    /// Deflate bodies are zlib streams by the standard and raw ones by habit: the first two bytes tell.
    DeflateUnknown(Sink, Vec<u8>),
    Zlib(Box<ZlibDecoder<Sink>>),
    Raw(Box<DeflateDecoder<Sink>>),
}

struct Zstd {
    decoder: ZstdDecoder<'static>,
    sink: Sink,
    chunk: Vec<u8>,
    /// The last frame ended and no other has begun.
    is_between_frames: bool,
}

/// Takes the plain bytes; an error of kind `FileTooLarge` means the limit.
struct Sink {
    plain: Vec<u8>,
    bytes_max: usize,
}

impl Sink {
    fn take(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        if self.bytes_max - self.plain.len() < bytes.len() {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        self.plain.extend_from_slice(bytes);
        Ok(())
    }
}

impl std::io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.take(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Decompressor {
    pub fn new(encoding: Encoding, options: CompressionOptions) -> Result<Self> {
        let sink = Sink {
            plain: Vec::new(),
            bytes_max: options.plain_bytes_max,
        };
        let state = match encoding {
            Encoding::Identity => State::Identity(sink),
            Encoding::Gzip => State::Gzip(Box::new(MultiGzDecoder::new(sink))),
            Encoding::Deflate => State::DeflateUnknown(sink, Vec::new()),
            Encoding::Zstd => {
                let decoder = zstd_decoder(options.zstd_window_log_max)
                    .map_err(|e| Error::internal("zstd decoder").with_source(e))?;
                State::Zstd(Box::new(Zstd {
                    decoder,
                    sink,
                    chunk: vec![0; ZSTD_CHUNK_BYTES],
                    is_between_frames: true,
                }))
            }
        };
        Ok(Self {
            encoding,
            state,
            compressed_bytes: 0,
            options,
        })
    }

    /// Plain bytes so far.
    pub fn plain_len(&self) -> usize {
        self.sink().plain.len()
    }

    pub fn push(&mut self, piece: &[u8]) -> Result<()> {
        // Bounded steps, so that the ratio is looked at before a bomb has gone off.
        for step in piece.chunks(4096) {
            self.compressed_bytes += step.len();
            let ratio_limit = self
                .compressed_bytes
                .saturating_mul(self.options.ratio_max)
                .max(self.options.ratio_free_bytes);
            if self.encoding != Encoding::Identity {
                self.sink_mut().bytes_max = ratio_limit.min(self.options.plain_bytes_max);
            }
            if let Err(e) = self.step(step) {
                return Err(self.error(e));
            }
        }
        Ok(())
    }

    /// The plain body, once everything was pushed.
    pub fn finish(mut self) -> Result<Vec<u8>> {
        if self.compressed_bytes == 0 {
            return Ok(Vec::new());
        }
        let outcome = match &mut self.state {
            State::Identity(_) => Ok(()),
            State::Gzip(decoder) => decoder.try_finish(),
            State::Zlib(decoder) => decoder.try_finish(),
            State::Raw(decoder) => decoder.try_finish(),
            State::Zstd(zstd) if zstd.is_between_frames => Ok(()),
            State::Zstd(_) | State::DeflateUnknown(..) => {
                Err(std::io::ErrorKind::UnexpectedEof.into())
            }
        };
        if let Err(e) = outcome {
            return Err(self.error(e));
        }
        Ok(std::mem::take(&mut self.sink_mut().plain))
    }

    fn step(&mut self, step: &[u8]) -> std::io::Result<()> {
        match &mut self.state {
            State::Identity(sink) => sink.take(step),
            State::Gzip(decoder) => decoder.write_all(step),
            State::Zlib(decoder) => decoder.write_all(step),
            State::Raw(decoder) => decoder.write_all(step),
            State::Zstd(zstd) => zstd.step(step),
            State::DeflateUnknown(sink, head) => {
                head.extend_from_slice(step);
                let [first, second, ..] = head[..] else {
                    return Ok(());
                };
                let sink = Sink {
                    plain: Vec::new(),
                    bytes_max: sink.bytes_max,
                };
                let head = std::mem::take(head);
                // zlib's header: method 8, and the two bytes together a multiple of 31.
                let is_zlib =
                    first & 0x0f == 8 && (u16::from(first) << 8 | u16::from(second)) % 31 == 0;
                self.state = if is_zlib {
                    State::Zlib(Box::new(ZlibDecoder::new(sink)))
                } else {
                    State::Raw(Box::new(DeflateDecoder::new(sink)))
                };
                self.step(&head)
            }
        }
    }

    fn sink(&self) -> &Sink {
        match &self.state {
            State::Identity(sink) | State::DeflateUnknown(sink, _) => sink,
            State::Gzip(decoder) => decoder.get_ref(),
            State::Zlib(decoder) => decoder.get_ref(),
            State::Raw(decoder) => decoder.get_ref(),
            State::Zstd(zstd) => &zstd.sink,
        }
    }

    fn sink_mut(&mut self) -> &mut Sink {
        match &mut self.state {
            State::Identity(sink) | State::DeflateUnknown(sink, _) => sink,
            State::Gzip(decoder) => decoder.get_mut(),
            State::Zlib(decoder) => decoder.get_mut(),
            State::Raw(decoder) => decoder.get_mut(),
            State::Zstd(zstd) => &mut zstd.sink,
        }
    }

    fn error(&self, e: std::io::Error) -> Error {
        if e.kind() == std::io::ErrorKind::FileTooLarge {
            let sink = self.sink();
            return if sink.bytes_max < self.options.plain_bytes_max {
                Error::new(
                    ErrorKind::TooLarge,
                    "suspicious_compression",
                    format!(
                        "the body grows to more than {} times its compressed size; no log does; send it uncompressed or in smaller parts",
                        self.options.ratio_max
                    ),
                )
            } else {
                too_large(self.options.plain_bytes_max)
            };
        }
        let name = self.encoding.name();
        Error::invalid(
            "invalid_compression",
            format!("the body is not valid {name} (broken, cut short or a wrong checksum); send it again, or mend `Content-Encoding`"),
        )
        .with_position(self.compressed_bytes)
        .with_source(e)
    }
}

impl Zstd {
    fn step(&mut self, step: &[u8]) -> std::io::Result<()> {
        let mut input = InBuffer::around(step);
        loop {
            let is_done = input.pos() == step.len();
            if is_done && self.is_between_frames {
                return Ok(());
            }
            let mut output = OutBuffer::around(&mut self.chunk[..]);
            let hint = self.decoder.run(&mut input, &mut output)?;
            let n_made = output.pos();
            self.is_between_frames = hint == 0;
            self.sink
                .take(self.chunk.get(..n_made).unwrap_or_default())?;
            // A chunk that is not full says that nothing is left inside the decoder.
            if input.pos() == step.len() && n_made < self.chunk.len() {
                return Ok(());
            }
        }
    }
}

fn zstd_decoder(window_log_max: u32) -> std::io::Result<ZstdDecoder<'static>> {
    let mut decoder = ZstdDecoder::new()?;
    decoder.set_parameter(zstd::stream::raw::DParameter::WindowLogMax(window_log_max))?;
    Ok(decoder)
}

/// The refusal of a body that is too large once it is plain.
pub fn too_large(plain_bytes_max: usize) -> Error {
    Error::new(
        ErrorKind::TooLarge,
        "body_too_large",
        format!(
            "the body is larger than {plain_bytes_max} bytes (`intake.plain_bytes_max`); split it into several requests"
        ),
    )
}

#[cfg(test)]
mod tests;
