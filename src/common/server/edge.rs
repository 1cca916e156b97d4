//! What happens to every request and answer, whatever its route: who may call (host names, foreign pages), panics, the JSON bodies of
//! 404 and 405, headers of safety, compression, metrics. Knows paths only as texts.

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{
    ALLOW, CONTENT_SECURITY_POLICY, HOST, ORIGIN, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use futures::FutureExt as _;

use crate::common::error::{Error, ErrorKind, Result};
use crate::common::http::{nearest, quoted};
use crate::common::metrics::Metrics;
use crate::common::server::compress;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

pub struct Edge {
    /// `Some`: only these host names and loopback ones are served, so that a foreign page cannot reach a local server by a name of its
    /// own (DNS rebinding). `None`: any.
    pub allowed_hosts: Option<Vec<String>>,
    /// Smaller answers are not compressed.
    pub compression_min_bytes: u64,
    /// Every path there is, for the advice in a 404.
    pub known_paths: Vec<&'static str>,
    pub metrics: Arc<Metrics>,
}

/// `router` with everything of this module around it.
pub fn wrap(router: Router, edge: Edge) -> Router {
    let edge = Arc::new(edge);
    let fallback = {
        let edge = edge.clone();
        move |uri: Uri| async move { not_found(uri.path(), &edge.known_paths) }
    };
    let inner = router
        .fallback(fallback)
        .layer(from_fn_with_state(edge.clone(), answer_or_panic));
    // Outside of the routes, because only there the allowed methods of a 405 are known.
    Router::new()
        .fallback_service(inner)
        .layer(from_fn_with_state(edge, handle))
}

async fn handle(State(edge): State<Arc<Edge>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = method_name(request.method());
    let is_head = request.method() == Method::HEAD;
    let encoding = compress::accepted(request.headers());
    let path = request.uri().path().to_owned();
    let mut response = match check_caller(&request, edge.allowed_hosts.as_deref()) {
        Ok(()) => next.run(request).await,
        Err(e) => e.into_response(),
    };
    let route = match response.extensions().get::<MatchedPath>() {
        Some(path) => Arc::from(path.as_str()),
        None => Arc::from("unmatched"),
    };
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        response = method_not_allowed(&response, &path, method);
    }
    if let Some(encoding) = encoding
        && !is_head
        && compress::is_worth_it(&response, edge.compression_min_bytes)
    {
        response = compress::compress(response, encoding).await;
    }
    add_safety_headers(response.headers_mut());
    edge.metrics.http.observe_request(
        &route,
        method,
        response.status().as_u16(),
        started.elapsed(),
    );
    response
}

/// The panic hook has logged where; here the client gets an answer and the process goes on. The answer carries its route outwards.
async fn answer_or_panic(State(edge): State<Arc<Edge>>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let mut response = match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        Err(_payload) => {
            edge.metrics.http.panics.inc();
            let message = "the request met a fault of the server, which is in its log; other requests are not affected";
            Error::new(ErrorKind::Internal, "internal_panic", message).into_response()
        }
    };
    if let Some(route) = route {
        response.extensions_mut().insert(route);
    }
    response
}

fn check_caller(request: &Request, allowed_hosts: Option<&[String]>) -> Result<()> {
    let host = host_of(request);
    if let (Some(allowed), Some(host)) = (allowed_hosts, host)
        && !is_host_allowed(host, allowed)
    {
        let message = format!(
            "the host name `{}` is not served here: use localhost or 127.0.0.1, or add it to `http.allowed_hosts`",
            quoted(host)
        );
        return Err(Error::new(
            ErrorKind::Forbidden,
            "host_not_allowed",
            message,
        ));
    }
    let is_read = matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::OPTIONS
    );
    if !is_read && is_foreign_page(request.headers(), host) {
        let message = "a page of another site may not write here; send the request from this server's own page or without a browser";
        return Err(Error::new(
            ErrorKind::Forbidden,
            "cross_site_request",
            message,
        ));
    }
    Ok(())
}

/// With its port, if it has one.
fn host_of(request: &Request) -> Option<&str> {
    let authority = request
        .uri()
        .authority()
        .map(axum::http::uri::Authority::as_str);
    authority.or_else(|| request.headers().get(HOST)?.to_str().ok())
}

fn is_host_allowed(host: &str, allowed: &[String]) -> bool {
    let name = without_port(host);
    let is_loopback_name =
        name.eq_ignore_ascii_case("localhost") || name.to_ascii_lowercase().ends_with(".localhost");
    is_loopback_name
        || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
        || allowed
            .iter()
            .any(|allowed| allowed.eq_ignore_ascii_case(name))
}

fn without_port(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _port)| name),
    }
}

/// Browsers say where a request comes from; other clients say nothing and cannot be misled by a page.
fn is_foreign_page(headers: &HeaderMap, host: Option<&str>) -> bool {
    if let Some(site) = headers.get(SEC_FETCH_SITE) {
        return !matches!(site.as_bytes(), b"same-origin" | b"none");
    }
    let Some(origin) = headers.get(ORIGIN) else {
        return false;
    };
    let origin_host = origin
        .to_str()
        .ok()
        .and_then(|origin| origin.split_once("://"))
        .map(|(_, host)| host);
    origin_host.is_none() || origin_host != host
}

fn not_found(path: &str, known: &[&'static str]) -> Error {
    let trimmed = path.trim_end_matches('/');
    let advice = match known
        .iter()
        .find(|known| **known == trimmed)
        .copied()
        .or_else(|| nearest(path, known))
    {
        Some(near) => format!("did you mean `{near}`?"),
        None => "`/openapi.json` lists every path".to_owned(),
    };
    let message = format!("there is nothing at `{}`; {advice}", quoted(path));
    Error::new(ErrorKind::NotFound, "path_not_found", message)
}

/// The same head with a JSON body that names the allowed methods.
fn method_not_allowed(response: &Response, path: &str, method: &str) -> Response {
    let allow = response.headers().get(ALLOW).cloned();
    let methods = allow
        .as_ref()
        .and_then(|allow| allow.to_str().ok())
        .unwrap_or("none")
        .replace(',', ", ");
    let message = format!(
        "`{}` does not take {method}; it takes {methods}",
        quoted(path)
    );
    let mut response =
        Error::new(ErrorKind::MethodNotAllowed, "method_not_allowed", message).into_response();
    response
        .headers_mut()
        .extend(allow.map(|allow| (ALLOW, allow)));
    response
}

/// What a handler has set stays.
fn add_safety_headers(headers: &mut HeaderMap<HeaderValue>) {
    let defaults = [
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (
            CONTENT_SECURITY_POLICY,
            "default-src 'none'; frame-ancestors 'none'",
        ),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
    ];
    for (name, value) in defaults {
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
}

fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::PATCH => "PATCH",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::http::StatusCode;
    use axum::routing::{get, post};
    use tower::ServiceExt as _;

    async fn send(request: axum::http::request::Builder) -> (StatusCode, HeaderMap, String) {
        let routes = Router::new()
            .route(
                "/logs",
                get(async || "x".repeat(100_000)).post(async || "written"),
            )
            .route(
                "/panic",
                post(async || -> &'static str { panic!("on purpose") }),
            );
        let edge = Edge {
            allowed_hosts: Some(vec!["logs.example".to_owned()]),
            compression_min_bytes: 1000,
            known_paths: vec!["/logs", "/panic"],
            metrics: Arc::new(Metrics::new()),
        };
        let response = wrap(routes, edge)
            .oneshot(request.body(Body::empty()).unwrap())
            .await
            .unwrap();
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        (
            parts.status,
            parts.headers,
            String::from_utf8_lossy(&bytes).into_owned(),
        )
    }

    fn request(method: &str, path: &str) -> axum::http::request::Builder {
        Request::builder().method(method).uri(path)
    }

    #[tokio::test]
    async fn a_wrong_path_or_method_gets_advice_as_json() {
        let (status, headers, body) = send(request("GET", "/log")).await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert_eq!(headers["content-type"], "application/json");
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert!(
            body.contains("there is nothing at `/log`; did you mean `/logs`?"),
            "{body}"
        );
        assert!(
            send(request("GET", "/logs/"))
                .await
                .2
                .contains("did you mean `/logs`?")
        );
        assert!(
            send(request("GET", "/zzzzzz"))
                .await
                .2
                .contains("/openapi.json")
        );
        let (status, headers, body) = send(request("DELETE", "/logs")).await;
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(headers["allow"], "GET,HEAD,POST");
        assert!(
            body.contains("`/logs` does not take DELETE; it takes GET, HEAD, POST"),
            "{body}"
        );
    }

    #[tokio::test]
    async fn a_panic_is_an_answer() {
        let (status, _, body) = send(request("POST", "/panic")).await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(body.contains("internal_panic"), "{body}");
    }

    #[tokio::test]
    async fn foreign_names_and_pages_are_refused() {
        for host in [
            "localhost:8001",
            "127.0.0.1",
            "[::1]:8001",
            "a.localhost",
            "logs.example:80",
            "LOGS.EXAMPLE",
        ] {
            assert_eq!(
                send(request("GET", "/logs").header(HOST, host)).await.0,
                StatusCode::OK,
                "{host}"
            );
        }
        for host in [
            "evil.example",
            "127.0.0.1.evil.example:8001",
            "10.0.0.1",
            "",
        ] {
            assert_eq!(
                send(request("GET", "/logs").header(HOST, host)).await.0,
                StatusCode::FORBIDDEN,
                "{host}"
            );
        }
        let write = || request("POST", "/logs").header(HOST, "localhost:8001");
        assert_eq!(send(write()).await.0, StatusCode::OK);
        assert_eq!(
            send(write().header(SEC_FETCH_SITE, "same-origin")).await.0,
            StatusCode::OK
        );
        assert_eq!(
            send(write().header(SEC_FETCH_SITE, "cross-site")).await.0,
            StatusCode::FORBIDDEN
        );
        assert_eq!(
            send(write().header(ORIGIN, "http://localhost:8001"))
                .await
                .0,
            StatusCode::OK
        );
        for origin in ["http://localhost:9999", "https://evil.example", "null"] {
            assert_eq!(
                send(write().header(ORIGIN, origin)).await.0,
                StatusCode::FORBIDDEN,
                "{origin}"
            );
        }
    }

    #[tokio::test]
    async fn larger_answers_are_compressed_for_those_who_can_read_it() {
        let (_, headers, body) =
            send(request("GET", "/logs").header("accept-encoding", "gzip")).await;
        assert_eq!(headers["content-encoding"], "gzip");
        assert!(body.len() < 10_000);
        let (_, headers, body) = send(request("GET", "/logs")).await;
        assert!(!headers.contains_key("content-encoding"));
        assert_eq!(body.len(), 100_000);
        let (_, headers, _) =
            send(request("HEAD", "/logs").header("accept-encoding", "gzip")).await;
        assert_eq!(headers["content-length"], "100000");
    }
}
