//! Speaks HTTP with the cluster: hosts in turn, credentials, TLS, time-outs for every phase, bounded answers, retries with back-off, a circuit breaker for
//! each host. Knows nothing of logs.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
pub use reqwest::Method;
use reqwest::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue,
};
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::common::cancel::Cancel;
use crate::common::error::{Error, ErrorKind, Result};
use crate::store::elasticsearch::address::Address;
pub use crate::store::elasticsearch::answer::{Answer, error_text};
use crate::store::elasticsearch::answer::{is_from_working_host, overload};
use crate::store::elasticsearch::breaker::{Breaker, BreakerOptions};

/// Bodies below are sent as they are.
const COMPRESS_MIN_BYTES: usize = 1 << 10;
/// The first wait before a retry; doubles.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// How long to wait for a question about the cluster itself.
const ADMIN_MAX: Duration = Duration::from_secs(30);

#[derive(Clone)]
pub struct ClientOptions {
    pub address: Address,
    /// `Authorization: ApiKey …`; stronger than a user.
    pub api_key: Option<String>,
    /// PEM certificates; then only these are trusted.
    pub ca_file: Option<PathBuf>,
    pub connect_timeout: Duration,
    /// A request that gets no answer for this time is cut and tried again.
    pub first_byte_timeout: Duration,
    /// A request may take this long, with its retries, where the caller sets no limit.
    pub total_timeout: Duration,
    /// Compress bodies: less network, more processor.
    pub compress: bool,
    pub response_bytes_max: usize,
    /// How often one request is sent at most.
    pub tries_max: u32,
    pub breaker: BreakerOptions,
}

impl std::fmt::Debug for ClientOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientOptions")
            .field("address", &self.address)
            .field("has_api_key", &self.api_key.is_some())
            .field("ca_file", &self.ca_file)
            .field("connect_timeout", &self.connect_timeout)
            .field("first_byte_timeout", &self.first_byte_timeout)
            .field("total_timeout", &self.total_timeout)
            .field("compress", &self.compress)
            .field("response_bytes_max", &self.response_bytes_max)
            .field("tries_max", &self.tries_max)
            .field("breaker", &self.breaker)
            .finish()
    }
}

impl ClientOptions {
    pub fn new(address: Address) -> Self {
        Self {
            address,
            api_key: None,
            ca_file: None,
            connect_timeout: Duration::from_secs(5),
            first_byte_timeout: Duration::from_secs(30),
            total_timeout: Duration::from_secs(120),
            compress: false,
            response_bytes_max: 256 << 20,
            tries_max: 4,
            breaker: BreakerOptions::default(),
        }
    }
}

/// What serves the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    pub is_opensearch: bool,
    pub major: u32,
    pub version: String,
    /// The cluster's own random name: tells it from every other one.
    pub cluster_uuid: String,
}

impl Server {
    /// Whether `subobjects: false` and `logsdb` exist.
    pub fn has_flat_mappings(&self) -> bool {
        !self.is_opensearch
    }
}

/// What is sent.
pub struct Request<'a> {
    pub method: Method,
    /// With the leading slash and the query string, encoded.
    pub path: &'a str,
    pub body: Option<Bytes>,
    /// `application/x-ndjson` for bulks.
    pub is_ndjson: bool,
    pub deadline: Instant,
    pub first_byte_timeout: Duration,
    pub tries_max: u32,
}

struct Host {
    base: String,
    breaker: Breaker,
}

pub struct Client {
    http: reqwest::Client,
    hosts: Vec<Host>,
    next_host: AtomicUsize,
    options: ClientOptions,
    server: OnceCell<Server>,
}

/// How one try ended without an answer that helps.
struct Failure {
    error: Error,
    counts_against_host: bool,
}

impl Client {
    /// Reads the certificates; connects to nothing yet.
    pub fn new(options: ClientOptions) -> Result<Self> {
        let http = build(&options)?;
        let hosts = options.address.bases.iter().map(|base| Host {
            base: base.clone(),
            breaker: Breaker::new(options.breaker.clone()),
        });
        Ok(Self {
            hosts: hosts.collect(),
            http,
            next_host: AtomicUsize::new(0),
            options,
            server: OnceCell::new(),
        })
    }

    pub fn options(&self) -> &ClientOptions {
        &self.options
    }

    /// What the cluster is; asked once.
    pub async fn server(&self) -> Result<&Server> {
        self.server.get_or_try_init(|| self.detect()).await
    }

    /// A question within the time of `cancel`. Connection faults, time-outs, cancellation and an overloaded server (after retries) are errors;
    /// any other status comes back as it is.
    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        cancel: &Cancel,
    ) -> Result<Answer> {
        cancel.check()?;
        let request = Request {
            method,
            path,
            body: body.map(|body| Bytes::from(body.to_string())),
            is_ndjson: false,
            deadline: cancel.deadline(),
            first_byte_timeout: self.options.first_byte_timeout,
            tries_max: self.options.tries_max,
        };
        let answered = tokio::select! {
            answered = self.send(&request) => answered,
            () = cancel.cancelled() => Err(Error::new(ErrorKind::Cancelled, "cancelled", "the caller went away")),
        };
        match answered {
            // The limit was the caller's: say so in its words.
            Err(error) if error.kind == ErrorKind::Timeout => cancel.check().and(Err(error)),
            other => other,
        }
    }

    /// A request of Logyard's own upkeep, within the general limits.
    pub async fn admin(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer> {
        self.send(&Request {
            method,
            path,
            body: body.map(|body| Bytes::from(body.to_string())),
            is_ndjson: false,
            deadline: Instant::now() + ADMIN_MAX.min(self.options.total_timeout),
            first_byte_timeout: self.options.first_byte_timeout,
            tries_max: self.options.tries_max,
        })
        .await
    }

    /// A bulk request with its documents.
    pub async fn bulk(&self, path: &str, body: Bytes, deadline: Option<Instant>) -> Result<Answer> {
        self.send(&Request {
            method: Method::POST,
            path,
            body: Some(body),
            is_ndjson: true,
            deadline: deadline.unwrap_or_else(|| Instant::now() + self.options.total_timeout),
            first_byte_timeout: self.options.first_byte_timeout,
            tries_max: self.options.tries_max,
        })
        .await
    }

    /// Sends, on another host after a failure, until there is an answer, the tries are used up or the time is over.
    pub async fn send(&self, request: &Request<'_>) -> Result<Answer> {
        let body = match &request.body {
            Some(body) if self.options.compress && COMPRESS_MIN_BYTES <= body.len() => {
                Some((gzip(body)?, true))
            }
            Some(body) => Some((body.clone(), false)),
            None => None,
        };
        let mut delay = RETRY_MIN;
        let mut tried = 0;
        loop {
            let host = self.pick_host()?;
            tried += 1;
            let mut guard = Probe { host: Some(host) };
            let outcome = self.attempt(host, request, body.clone()).await;
            guard.host = None;
            let error = match outcome {
                Ok(answer) => match overload(&answer) {
                    None => {
                        host.breaker.succeeded();
                        return Ok(answer);
                    }
                    Some(error) => {
                        match is_from_working_host(&answer) {
                            true => host.breaker.succeeded(),
                            false => host.breaker.failed(&error.message, Instant::now()),
                        }
                        error
                    }
                },
                Err(failure) => {
                    match failure.counts_against_host {
                        true => host.breaker.failed(&failure.error.message, Instant::now()),
                        false => host.breaker.left(),
                    }
                    failure.error
                }
            };
            let left = request.deadline.saturating_duration_since(Instant::now());
            if request.tries_max <= tried || left <= delay || error.kind == ErrorKind::TooLarge {
                return Err(error);
            }
            tokio::time::sleep(delay.mul_f64(rand::random_range(0.5..1.0))).await;
            delay = (delay * 2).min(RETRY_MAX);
        }
    }

    /// The next host in turn whose breaker lets a request pass.
    fn pick_host(&self) -> Result<&Host> {
        let now = Instant::now();
        let first = self.next_host.fetch_add(1, Ordering::Relaxed);
        let mut refusal = None;
        for offset in 0..self.hosts.len() {
            let index = first.wrapping_add(offset) % self.hosts.len();
            let Some(host) = self.hosts.get(index) else {
                continue;
            };
            match host.breaker.pass(now) {
                Ok(()) => return Ok(host),
                Err(refused) => refusal = Some((host, refused)),
            }
        }
        let message = match refusal {
            Some((host, refused)) => format!(
                "Elasticsearch at {} does not work: {}; it is tried again in {} ms",
                host.base,
                refused.last_failure,
                refused.wait.as_millis()
            ),
            None => "no host of Elasticsearch is known".to_owned(),
        };
        Err(Error::unavailable("elasticsearch_unavailable", message))
    }

    /// One try on one host.
    async fn attempt(
        &self,
        host: &Host,
        request: &Request<'_>,
        body: Option<(Bytes, bool)>,
    ) -> Result<Answer, Failure> {
        let url = format!("{}{}", host.base, request.path);
        let mut sending = self.http.request(request.method.clone(), url);
        if let Some((body, is_compressed)) = body {
            let media = match request.is_ndjson {
                true => "application/x-ndjson",
                false => "application/json",
            };
            sending = sending.header(CONTENT_TYPE, media).body(body);
            if is_compressed {
                sending = sending.header(CONTENT_ENCODING, "gzip");
            }
        }
        let patience = Patience::of(request);
        let mut response = tokio::time::timeout(patience.wait, sending.send())
            .await
            .map_err(|_| patience.over(host, "did not answer"))?
            .map_err(|error| broken(host, &error))?;
        let status = response.status().as_u16();
        let mut read = BytesMut::new();
        loop {
            let patience = Patience::of(request);
            let chunk = tokio::time::timeout(patience.wait, response.chunk())
                .await
                .map_err(|_| patience.over(host, "stopped in the middle of its answer"))?
                .map_err(|error| broken(host, &error))?;
            let Some(chunk) = chunk else { break };
            if self.options.response_bytes_max < read.len() + chunk.len() {
                return Err(too_large(self.options.response_bytes_max));
            }
            read.extend_from_slice(&chunk);
        }
        Ok(Answer {
            status,
            body: read.freeze(),
        })
    }

    async fn detect(&self) -> Result<Server> {
        // Some builds have no `GET /`, some users may not ask for the nodes.
        let unknown = |what: &str| Error::unavailable("elasticsearch_unknown", what);
        let root = self.admin(Method::GET, "/", None).await?;
        let root = match root.is_success() {
            true => root.json()?,
            false => Value::Null,
        };
        let version = match version_of_root(&root) {
            Some(version) => Some(version),
            None => {
                let path = "/_nodes/_local?filter_path=nodes.*.version,nodes.*.build_flavor";
                let nodes = self.admin(Method::GET, path, None).await?;
                version_of_nodes(&nodes.expect("say its version")?)
            }
        };
        let version = version.ok_or_else(|| {
            unknown("the server does not say that it is Elasticsearch or OpenSearch")
        })?;
        version.check_age()?;
        let cluster_uuid = match uuid_of(&root) {
            Some(uuid) => Some(uuid),
            None => {
                let path = "/_cluster/state/version?filter_path=cluster_uuid";
                let state = self.admin(Method::GET, path, None).await?;
                uuid_of(&state.expect("say which cluster it is")?)
            }
        };
        let cluster_uuid = cluster_uuid
            .ok_or_else(|| unknown("the server does not say yet which cluster it belongs to"))?;
        Ok(Server {
            is_opensearch: version.is_opensearch,
            major: version.major,
            version: version.number,
            cluster_uuid,
        })
    }
}

struct Version {
    is_opensearch: bool,
    major: u32,
    number: String,
}

impl Version {
    fn parse(is_opensearch: bool, number: &str) -> Option<Self> {
        Some(Self {
            is_opensearch,
            major: number.split('.').next()?.parse().ok()?,
            number: number.to_owned(),
        })
    }

    fn check_age(&self) -> Result<()> {
        let (name, oldest) = match self.is_opensearch {
            true => ("OpenSearch", 2),
            false => ("Elasticsearch", 8),
        };
        if oldest <= self.major {
            return Ok(());
        }
        Err(Error::unavailable(
            "elasticsearch_too_old",
            format!(
                "the server is {name} {}; Logyard needs Elasticsearch 8 or OpenSearch 2, or newer",
                self.number
            ),
        ))
    }
}

/// How long to wait for the next sign of life.
struct Patience {
    wait: Duration,
    /// The host had its full time; else it was the caller's that ran out.
    is_hosts_fault: bool,
}

impl Patience {
    fn of(request: &Request<'_>) -> Self {
        let left = request.deadline.saturating_duration_since(Instant::now());
        Self {
            wait: request.first_byte_timeout.min(left),
            is_hosts_fault: request.first_byte_timeout < left,
        }
    }

    fn over(&self, host: &Host, phase: &str) -> Failure {
        let message = format!(
            "Elasticsearch at {} {phase} for {} ms",
            host.base,
            self.wait.as_millis()
        );
        Failure {
            error: Error::new(ErrorKind::Timeout, "elasticsearch_timeout", message),
            counts_against_host: self.is_hosts_fault,
        }
    }
}

fn broken(host: &Host, error: &reqwest::Error) -> Failure {
    let message = format!(
        "no answer from Elasticsearch at {}: {}",
        host.base,
        chain(error)
    );
    Failure {
        error: Error::unavailable("elasticsearch_unavailable", message),
        counts_against_host: true,
    }
}

fn too_large(bytes_max: usize) -> Failure {
    let message = format!(
        "the answer of Elasticsearch is larger than {bytes_max} bytes; ask for fewer records at once"
    );
    Failure {
        error: Error::new(ErrorKind::TooLarge, "answer_too_large", message),
        counts_against_host: false,
    }
}

/// Tells the breaker when a request is dropped in its middle.
struct Probe<'a> {
    host: Option<&'a Host>,
}

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        if let Some(host) = self.host {
            host.breaker.left();
        }
    }
}

fn version_of_root(root: &Value) -> Option<Version> {
    let version = root.get("version")?;
    let is_opensearch = version.get("distribution").and_then(Value::as_str) == Some("opensearch");
    Version::parse(is_opensearch, version.get("number")?.as_str()?)
}

fn version_of_nodes(nodes: &Value) -> Option<Version> {
    let node = nodes.get("nodes")?.as_object()?.values().next()?;
    Version::parse(
        node.get("build_flavor").is_none(),
        node.get("version")?.as_str()?,
    )
}

/// A node that has not joined its cluster yet says `_na_`.
fn uuid_of(answer: &Value) -> Option<String> {
    let uuid = answer.get("cluster_uuid")?.as_str()?;
    (!uuid.is_empty() && uuid != "_na_").then(|| uuid.to_owned())
}

/// An error with its causes; the first names the URL, which holds no credentials.
fn chain(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(error);
    while let Some(error) = cause {
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&error.to_string());
        cause = error.source();
    }
    if text.is_empty() {
        error.to_string()
    } else {
        text
    }
}

fn build(options: &ClientOptions) -> Result<reqwest::Client> {
    // Whoever was first has installed the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let wrong = |what: String| Error::invalid("invalid_setting", what);
    let mut headers = HeaderMap::new();
    if let Some(mut value) = authorization(options)? {
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    if !options.compress {
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    }
    let mut builder = reqwest::Client::builder()
        .default_headers(headers)
        .connect_timeout(options.connect_timeout)
        .tcp_nodelay(true)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none());
    if let Some(path) = &options.ca_file {
        let pem = std::fs::read(path).map_err(|e| {
            wrong(format!(
                "cannot read the certificates in {}: {e}",
                path.display()
            ))
        })?;
        let certificates = reqwest::Certificate::from_pem_bundle(&pem)
            .map_err(|e| wrong(format!("{} holds no PEM certificates: {e}", path.display())))?;
        builder = builder.tls_certs_only(certificates);
    }
    builder.build().map_err(|e| {
        wrong(format!(
            "cannot set up the client of Elasticsearch: {}",
            chain(&e)
        ))
    })
}

fn authorization(options: &ClientOptions) -> Result<Option<HeaderValue>> {
    use base64::Engine as _;
    let text = match (&options.api_key, &options.address.user) {
        (Some(key), _) => format!("ApiKey {key}"),
        (None, Some(user)) => {
            let password = options.address.password.as_deref().unwrap_or_default();
            let login =
                base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
            format!("Basic {login}")
        }
        (None, None) => return Ok(None),
    };
    HeaderValue::from_str(&text).map(Some).map_err(|_| {
        Error::invalid(
            "invalid_setting",
            "the API key has characters that no header can carry",
        )
    })
}

fn gzip(body: &[u8]) -> Result<Bytes> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(
        Vec::with_capacity(body.len() / 4),
        flate2::Compression::fast(),
    );
    encoder
        .write_all(body)
        .and_then(|()| encoder.finish())
        .map(Bytes::from)
        .map_err(|e| Error::internal("cannot compress a request").with_source(e))
}
