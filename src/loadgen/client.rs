//! A small HTTP client over hyper: kept connections, whole or streamed answers, a limit on each wait.
//! Knows nothing of logs. Plain `http` only: load is made beside the server or through a proxy that ends TLS.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

/// The largest answer that is read whole.
const ANSWER_BYTES_MAX: usize = 256 << 20;
/// Idle connections kept for each address.
const IDLE_CONNECTIONS_MAX: usize = 256;

/// Cheap to clone; clones share their connections.
#[derive(Clone, Debug)]
pub struct HttpClient {
    client: Client<HttpConnector, Full<Bytes>>,
    /// `http://host:port/prefix` without a slash at its end.
    base: String,
    timeout: Duration,
}

/// An answer read whole.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    pub fn json(&self) -> anyhow::Result<serde_json::Value> {
        serde_json::from_slice(&self.body)
            .with_context(|| format!("the answer is not JSON: {}", self.excerpt()))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// `Retry-After` in seconds.
    pub fn retry_after(&self) -> Option<Duration> {
        let seconds = self.header("retry-after")?.parse().ok()?;
        Some(Duration::from_secs(seconds))
    }

    /// The beginning of the body, fit for a terminal.
    pub fn excerpt(&self) -> String {
        String::from_utf8_lossy(&self.body)
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .take(300)
            .collect()
    }
}

impl HttpClient {
    pub fn new(url: &str, timeout: Duration) -> anyhow::Result<Self> {
        let uri: Uri = url
            .parse()
            .with_context(|| format!("`{url}` is not a URL; write http://127.0.0.1:8001"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => bail!("`{url}`: only http:// is spoken; point it at the plain port"),
            _ => bail!("`{url}` is not a URL; write http://127.0.0.1:8001"),
        }
        ensure!(uri.host().is_some(), "`{url}` names no host");
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(timeout));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(20))
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .build(connector);
        Ok(Self {
            client,
            base: url.trim_end_matches('/').to_owned(),
            timeout,
        })
    }

    pub fn base(&self) -> &str {
        &self.base
    }

    pub async fn get(&self, path: &str, headers: &[(&str, &str)]) -> anyhow::Result<Reply> {
        self.send(Method::GET, path, headers, Bytes::new()).await
    }

    /// `path` begins with a slash and may carry a query. The whole exchange must end within the timeout.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> anyhow::Result<Reply> {
        let exchange = async {
            let response = self.request(method, path, headers, body).await?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX)
                .collect()
                .await
                .map_err(|error| anyhow::anyhow!("read the answer of {path}: {error}"))?
                .to_bytes();
            Ok(Reply {
                status: parts.status,
                headers: parts.headers,
                body,
            })
        };
        match tokio::time::timeout(self.timeout, exchange).await {
            Ok(reply) => reply,
            Err(_) => bail!("no answer within {} ms: {path}", self.timeout.as_millis()),
        }
    }

    /// The answer's head; the timeout covers only that, the body may stream without end.
    pub async fn stream(
        &self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> anyhow::Result<Response<Incoming>> {
        let head = self.request(Method::GET, path, headers, Bytes::new());
        match tokio::time::timeout(self.timeout, head).await {
            Ok(response) => response,
            Err(_) => bail!("no answer within {} ms: {path}", self.timeout.as_millis()),
        }
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> anyhow::Result<Response<Incoming>> {
        let uri = format!("{}{path}", self.base);
        let mut request = Request::builder()
            .method(method)
            .uri(&uri)
            .body(Full::new(body))
            .with_context(|| format!("`{uri}` is not a valid address"))?;
        for (name, value) in headers {
            request.headers_mut().insert(
                HeaderName::from_bytes(name.as_bytes())?,
                HeaderValue::from_str(value)?,
            );
        }
        self.client
            .request(request)
            .await
            .with_context(|| format!("ask {uri}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_cannot_be_spoken_to_are_refused_with_a_way_out() {
        let timeout = Duration::from_secs(1);
        for (url, hint) in [
            ("https://logs.example", "only http://"),
            ("localhost:8001", "http://127.0.0.1:8001"),
            ("", "http://127.0.0.1:8001"),
        ] {
            let error = HttpClient::new(url, timeout).unwrap_err().to_string();
            assert!(error.contains(hint), "{url}: {error}");
        }
    }
}
