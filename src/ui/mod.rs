//! Serves the page: the files of `ui/`, as they are, compressed once. Knows nothing of logs: the page asks the native API
//! for them like any other client.
//!
//! The files are part of the binary and change only with it. Browsers keep them and ask each time whether they still hold
//! (`ETag`), so that a new release shows at once.

use std::io::Write as _;
use std::sync::LazyLock;

use axum::Router;
use axum::extract::Path;
use axum::http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
    HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH, REFERRER_POLICY, VARY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use crate::common::error::{Error, ErrorKind};

/// Nothing from elsewhere, nothing inline, no text that becomes markup: what a log holds cannot run.
const CONTENT_SECURITY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
     img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'";

/// (name under `/ui/`, media type, content). `index.html` is `/ui` itself.
const FILES: &[(&str, &str, &[u8])] = &[
    ("index.html", HTML, include_bytes!("../../ui/index.html")),
    (
        "style.css",
        "text/css; charset=utf-8",
        include_bytes!("../../ui/style.css"),
    ),
    (
        "logo.svg",
        "image/svg+xml",
        include_bytes!("../../ui/logo.svg"),
    ),
    ("api.js", SCRIPT, include_bytes!("../../ui/api.js")),
    ("app.js", SCRIPT, include_bytes!("../../ui/app.js")),
    ("dialogs.js", SCRIPT, include_bytes!("../../ui/dialogs.js")),
    ("dom.js", SCRIPT, include_bytes!("../../ui/dom.js")),
    ("fields.js", SCRIPT, include_bytes!("../../ui/fields.js")),
    (
        "histogram.js",
        SCRIPT,
        include_bytes!("../../ui/histogram.js"),
    ),
    ("json.js", SCRIPT, include_bytes!("../../ui/json.js")),
    ("levels.js", SCRIPT, include_bytes!("../../ui/levels.js")),
    ("logs.js", SCRIPT, include_bytes!("../../ui/logs.js")),
    ("query.js", SCRIPT, include_bytes!("../../ui/query.js")),
    ("state.js", SCRIPT, include_bytes!("../../ui/state.js")),
    ("tail.js", SCRIPT, include_bytes!("../../ui/tail.js")),
    ("time.js", SCRIPT, include_bytes!("../../ui/time.js")),
];
const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// A file ready to be sent.
struct Asset {
    name: &'static str,
    media_type: &'static str,
    plain: Bytes,
    gzip: Bytes,
    etag: HeaderValue,
}

/// The modules load as one flight at the start, so compressing them all at the first request costs a few milliseconds once.
static ASSETS: LazyLock<Vec<Asset>> = LazyLock::new(|| {
    FILES
        .iter()
        .map(|(name, media_type, content)| Asset {
            name,
            media_type,
            plain: Bytes::from_static(content),
            gzip: gzip(content),
            etag: etag(content),
        })
        .collect()
});

/// `/ui` and what it needs; `/` leads there.
pub fn routes() -> Router {
    Router::new()
        .route("/", get(|| async { Redirect::temporary("/ui") }))
        .route(
            "/ui",
            get(|headers: HeaderMap| async move { send("index.html", &headers) }),
        )
        .route("/ui/", get(|| async { Redirect::temporary("/ui") }))
        .route(
            "/ui/{name}",
            get(
                |Path(name): Path<String>, uri: Uri, headers: HeaderMap| async move {
                    if ASSETS.iter().any(|asset| asset.name == name) {
                        send(&name, &headers)
                    } else {
                        not_found(&uri)
                    }
                },
            ),
        )
}

fn not_found(uri: &Uri) -> Response {
    let message = format!("the page has no file {}; it begins at /ui", uri.path());
    Error::new(ErrorKind::NotFound, "not_found", message).into_response()
}

fn send(name: &str, headers: &HeaderMap) -> Response {
    let Some(asset) = ASSETS.iter().find(|asset| asset.name == name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let is_gzip = headers
        .get(ACCEPT_ENCODING)
        .and_then(|value| value.to_str().ok())
        .is_some_and(takes_gzip);
    let is_known = headers
        .get(IF_NONE_MATCH)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|known| known.contains(asset.etag.to_str().unwrap_or("\0")));
    let mut response = match (is_known, is_gzip) {
        (true, _) => StatusCode::NOT_MODIFIED.into_response(),
        (false, true) => asset.gzip.clone().into_response(),
        (false, false) => asset.plain.clone().into_response(),
    };
    let out = response.headers_mut();
    if is_gzip && !is_known {
        out.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    out.insert(CONTENT_TYPE, HeaderValue::from_static(asset.media_type));
    out.insert(ETAG, asset.etag.clone());
    for (name, value) in FIXED_HEADERS {
        out.insert(name, HeaderValue::from_static(value));
    }
    response
}

const FIXED_HEADERS: [(HeaderName, &str); 6] = [
    (CACHE_CONTROL, "no-cache"),
    (VARY, "accept-encoding"),
    (CONTENT_SECURITY_POLICY, CONTENT_SECURITY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
];

/// `gzip` is named and not refused with `q=0`.
fn takes_gzip(accepted: &str) -> bool {
    accepted.split(',').any(|part| {
        let (name, weight) = part.split_once(';').unwrap_or((part, ""));
        let is_refused = weight
            .trim()
            .replace(' ', "")
            .trim_start_matches("q=")
            .parse()
            == Ok(0.0_f32);
        name.trim().eq_ignore_ascii_case("gzip") && !is_refused
    })
}

fn gzip(content: &[u8]) -> Bytes {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder
        .write_all(content)
        .and_then(|()| encoder.finish())
        .map(Bytes::from)
        .expect("a vector takes every byte")
}

fn etag(content: &[u8]) -> HeaderValue {
    let text = format!("\"{:016x}\"", xxh3_64(content));
    HeaderValue::from_str(&text).expect("hexadecimal digits in quotes are a header value")
}

#[cfg(test)]
mod tests;
