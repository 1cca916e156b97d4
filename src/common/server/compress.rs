//! Compression of answers: which encoding the client takes, and bodies that compress as they go. Knows no route.

use std::io::Write as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes};
use axum::http::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, VARY,
};
use axum::http::{HeaderMap, HeaderValue, Response};
use flate2::write::GzEncoder;
use hyper::body::{Body as HttpBody, Frame};

/// Whole bodies above this size are compressed off the threads that serve HTTP.
const INLINE_BYTES_MAX: u64 = 64 << 10;
/// A whole body above this size is compressed as a stream, so that it is not held twice.
const WHOLE_BYTES_MAX: u64 = 16 << 20;
/// Logs repeat themselves: level 1 gets most of what there is to get.
const LEVEL: u32 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Zstd,
    Gzip,
}

impl Encoding {
    fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        }
    }
}

/// The encoding that the client accepts and that costs us least; `None` for none.
pub fn accepted(headers: &HeaderMap) -> Option<Encoding> {
    let (mut zstd, mut gzip) = (false, false);
    for value in headers.get_all(ACCEPT_ENCODING) {
        for item in value.to_str().unwrap_or_default().split(',') {
            let mut parts = item.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default();
            let weight = parts.find_map(|part| part.strip_prefix("q="));
            let is_refused = weight.is_some_and(|q| q.parse().is_ok_and(|q: f32| q <= 0.0));
            match name {
                "zstd" => zstd = !is_refused,
                "gzip" => gzip = !is_refused,
                _ => {}
            }
        }
    }
    if zstd {
        Some(Encoding::Zstd)
    } else if gzip {
        Some(Encoding::Gzip)
    } else {
        None
    }
}

/// Whether `response` gains by being compressed: text of some size, not an event stream (its lines must arrive at once).
pub fn is_worth_it(response: &Response<Body>, size_bytes_min: u64) -> bool {
    let headers = response.headers();
    if headers.contains_key(CONTENT_ENCODING) {
        return false;
    }
    let content_type = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    let is_text = essence.starts_with("text/")
        || matches!(
            essence,
            "application/json" | "application/x-ndjson" | "application/openmetrics-text"
        );
    let size = response.body().size_hint().exact();
    is_text && essence != "text/event-stream" && size.is_none_or(|size| size_bytes_min <= size)
}

/// Replaces the body by its compressed form.
pub async fn compress(response: Response<Body>, encoding: Encoding) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    parts
        .headers
        .insert(CONTENT_ENCODING, HeaderValue::from_static(encoding.name()));
    parts
        .headers
        .append(VARY, HeaderValue::from_static("accept-encoding"));
    parts.headers.remove(CONTENT_LENGTH);
    // A strong validator names bytes, and these are others.
    if let Some(etag) = parts
        .headers
        .get(ETAG)
        .filter(|etag| !etag.as_bytes().starts_with(b"W/"))
    {
        let weak = HeaderValue::from_bytes(&[b"W/", etag.as_bytes()].concat());
        parts.headers.extend(weak.map(|weak| (ETAG, weak)));
    }
    let body = match body.size_hint().exact() {
        Some(size) if INLINE_BYTES_MAX < size && size <= WHOLE_BYTES_MAX => {
            compress_whole(body, encoding).await
        }
        _ => Body::new(CompressedBody::new(body, encoding)),
    };
    Response::from_parts(parts, body)
}

async fn compress_whole(body: Body, encoding: Encoding) -> Body {
    let limit = usize::try_from(WHOLE_BYTES_MAX).unwrap_or(usize::MAX);
    let collected = axum::body::to_bytes(body, limit).await;
    let compressed = tokio::task::spawn_blocking(move || {
        let mut encoder = Encoder::new(encoding);
        encoder.write(&collected.map_err(std::io::Error::other)?)?;
        encoder.finish()
    });
    // An error becomes a body that fails: the head may say 200 already, so the connection must not end as if all were well.
    let result = compressed
        .await
        .unwrap_or_else(|e| Err(std::io::Error::other(e)));
    match result {
        Ok(bytes) => Body::from(bytes),
        Err(e) => Body::from_stream(futures::stream::once(async { Err::<Bytes, _>(e) })),
    }
}

enum Encoder {
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
    Gzip(GzEncoder<Vec<u8>>),
}

impl Encoder {
    fn new(encoding: Encoding) -> Self {
        match encoding {
            Encoding::Zstd => {
                let level = i32::try_from(LEVEL).unwrap_or(1);
                let encoder = zstd::stream::write::Encoder::new(Vec::new(), level);
                Self::Zstd(encoder.expect("a small level is valid, and only memory is needed"))
            }
            Encoding::Gzip => {
                Self::Gzip(GzEncoder::new(Vec::new(), flate2::Compression::new(LEVEL)))
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Self::Zstd(encoder) => encoder.write_all(bytes),
            Self::Gzip(encoder) => encoder.write_all(bytes),
        }
    }

    /// What has come out so far.
    fn take(&mut self) -> Vec<u8> {
        match self {
            Self::Zstd(encoder) => std::mem::take(encoder.get_mut()),
            Self::Gzip(encoder) => std::mem::take(encoder.get_mut()),
        }
    }

    fn finish(self) -> std::io::Result<Vec<u8>> {
        match self {
            Self::Zstd(encoder) => encoder.finish(),
            Self::Gzip(encoder) => encoder.finish(),
        }
    }
}

struct CompressedBody {
    body: Body,
    /// `None` once finished.
    encoder: Option<Encoder>,
}

impl CompressedBody {
    fn new(body: Body, encoding: Encoding) -> Self {
        Self {
            body,
            encoder: Some(Encoder::new(encoding)),
        }
    }
}

impl HttpBody for CompressedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        loop {
            if self.encoder.is_none() {
                return Poll::Ready(None);
            }
            let frame = ready!(Pin::new(&mut self.body).poll_frame(cx)).transpose()?;
            let data = frame.map(Frame::into_data);
            let out = match (data, &mut self.encoder) {
                (Some(Ok(data)), Some(encoder)) => encoder.write(&data).map(|()| encoder.take()),
                // Trailers: none of our answers has any.
                (Some(Err(_)), _) => continue,
                _ => self.encoder.take().map_or(Ok(Vec::new()), Encoder::finish),
            };
            let out = out.map_err(axum::Error::new)?;
            if !out.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(Bytes::from(out)))));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    fn encoding_for(header: &str) -> Option<Encoding> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, header.parse().unwrap());
        accepted(&headers)
    }

    #[test]
    fn the_client_chooses_and_zstd_is_preferred() {
        assert_eq!(
            encoding_for("gzip, deflate, br, zstd"),
            Some(Encoding::Zstd)
        );
        assert_eq!(encoding_for("gzip;q=0.5, zstd;q=0"), Some(Encoding::Gzip));
        assert_eq!(encoding_for("br"), None);
        assert_eq!(accepted(&HeaderMap::new()), None);
    }

    #[tokio::test]
    async fn a_compressed_answer_is_the_same_text() {
        let text = "line of a log, again and again\n".repeat(5000);
        for encoding in [Encoding::Zstd, Encoding::Gzip] {
            for is_stream in [false, true] {
                let body = if is_stream {
                    let pieces: Vec<_> = text
                        .as_bytes()
                        .chunks(1000)
                        .map(|c| Ok::<_, axum::Error>(c.to_vec()))
                        .collect();
                    Body::from_stream(futures::stream::iter(pieces))
                } else {
                    Body::from(text.clone())
                };
                let response = compress(Response::new(body), encoding).await;
                assert_eq!(response.headers()[CONTENT_ENCODING], encoding.name());
                let bytes = axum::body::to_bytes(response.into_body(), 1 << 20)
                    .await
                    .unwrap();
                assert!(bytes.len() < text.len() / 10);
                let mut plain = String::new();
                match encoding {
                    Encoding::Zstd => zstd::Decoder::new(&bytes[..])
                        .unwrap()
                        .read_to_string(&mut plain),
                    Encoding::Gzip => {
                        flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut plain)
                    }
                }
                .unwrap();
                assert!(plain == text);
            }
        }
    }
}
