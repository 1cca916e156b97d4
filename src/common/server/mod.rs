//! The HTTP server: sockets in, requests to a router, answers out. It owns every limit on connections (how many, how slow, how old), and
//! the graceful stop. Knows no route and nothing of logs.
//!
//! One watchdog for each connection reads what the socket and the requests note in [`Activity`]; so one place decides about a
//! connection's end, for HTTP/1 and HTTP/2 alike. When the server is full, the connection that has waited longest without a request in
//! flight makes room: slow or idle clients never lock out good ones.

mod activity;
mod body;
pub mod edge;
mod compress;
mod leniency;
mod registry;
mod socket;

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service as _;

use crate::common::metrics::Metrics;
use crate::common::server::activity::{Activity, Verdict};
use crate::common::server::body::{GuardedBody, PacedBody};
use crate::common::server::registry::{Admission, Registry};
use crate::common::server::socket::WatchedSocket;

/// Limits of the server; the settings are `http.*`.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Connections open at once. Beyond it the one that waits longest makes room; if all are at work, the new one gets a 503.
    pub connections_max: usize,
    /// The same for one client address. Loopback is exempt: behind a local proxy all clients share it.
    pub connections_per_ip_max: usize,
    /// A request's head must be complete this long after its first byte, and the first byte this long after the connection.
    pub head_timeout: Duration,
    /// A connection without a request is closed after this time.
    pub keep_alive_idle: Duration,
    /// An older connection gets no further request.
    pub connection_age_max: Duration,
    /// A client that takes no byte of its answer for so long is cut off.
    pub write_stall: Duration,
    /// After `body_grace`, a request's body must come at this rate on average.
    pub body_bytes_per_s_min: u64,
    pub body_grace: Duration,
    /// Header lines of one request.
    pub headers_max: usize,
    /// Bytes of an HTTP/1 head (HTTP/2: `http2_header_bytes_max`). More is answered with 431.
    pub head_bytes_max: usize,
    pub http2_header_bytes_max: u32,
    pub http2_streams_max: u32,
    /// Requests in flight may take so long to finish after the stop.
    pub drain: Duration,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            connections_max: 4096,
            connections_per_ip_max: 256,
            head_timeout: Duration::from_secs(10),
            keep_alive_idle: Duration::from_secs(75),
            connection_age_max: Duration::from_secs(3600),
            write_stall: Duration::from_secs(30),
            body_bytes_per_s_min: 1024,
            body_grace: Duration::from_secs(10),
            headers_max: 100,
            head_bytes_max: 64 << 10,
            http2_header_bytes_max: 16 << 10,
            http2_streams_max: 128,
            drain: Duration::from_secs(25),
        }
    }
}

/// Answered before any request is read, when every connection is at work.
const FULL: &str = concat!(
    "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\nconnection: close\r\n",
    "content-length: 138\r\n\r\n",
    r#"{"error":{"code":"too_many_connections","message":"all connections are at work; try again soon","position":null,"parameter":null}}        "#
);

/// Serves `router` on `listener` until `stop`, then lets requests in flight finish within `options.drain`. Returns how many connections
/// had to be cut.
pub async fn run(
    listener: TcpListener,
    router: Router,
    options: ServerOptions,
    metrics: Arc<Metrics>,
    stop: impl Future<Output = ()>,
) -> usize {
    let server = Arc::new(Server {
        http: http_builder(&options),
        registry: Registry::new(options.connections_max, options.connections_per_ip_max),
        options,
        metrics,
        leaving: CancellationToken::new(),
        router,
    });
    let tasks = TaskTracker::new();
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => break,
        };
        match accepted {
            Ok((socket, peer)) => server.admit(socket, peer, &tasks),
            Err(e) => {
                // Out of file descriptors, or the client left already: neither is a reason to spin or to die.
                tracing::warn!(error = %e, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop(listener);
    server.leaving.cancel();
    tasks.close();
    if tokio::time::timeout(server.options.drain, tasks.wait())
        .await
        .is_ok()
    {
        return 0;
    }
    let n_cut = server.registry.cut_all();
    tracing::warn!(
        connections = n_cut,
        "requests did not finish in time and were cut"
    );
    tasks.wait().await;
    n_cut
}

struct Server {
    http: auto::Builder<TokioExecutor>,
    registry: Registry,
    options: ServerOptions,
    metrics: Arc<Metrics>,
    leaving: CancellationToken,
    router: Router,
}

fn http_builder(options: &ServerOptions) -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    // Hyper's own head timeout runs while a connection is idle, too: it is the outer bound, the watchdog keeps the sharper ones.
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(options.keep_alive_idle + options.head_timeout)
        .max_headers(options.headers_max)
        .max_buf_size(options.head_bytes_max);
    http.http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(options.http2_streams_max)
        .max_header_list_size(options.http2_header_bytes_max)
        .initial_stream_window_size(256 << 10)
        .initial_connection_window_size(1 << 20)
        .max_send_buf_size(256 << 10)
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(128)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20));
    http
}

impl Server {
    fn admit(self: &Arc<Self>, mut socket: TcpStream, peer: SocketAddr, tasks: &TaskTracker) {
        self.metrics.http.connections_accepted.inc();
        // Answers are written whole: waiting for more bytes to fill a packet only adds latency.
        let _ = socket.set_nodelay(true);
        match self.registry.admit(peer.ip()) {
            Admission::Admitted(seat) => {
                let server = self.clone();
                tasks.spawn(async move {
                    server.metrics.http.connections.inc();
                    let activity = seat.activity().clone();
                    server.serve(socket, peer, &activity).await;
                    server.metrics.http.connections.dec();
                    drop(seat);
                });
            }
            Admission::Full => {
                self.metrics
                    .http
                    .count_refused_connection("too_many_connections");
                tasks.spawn(async move {
                    let refuse = socket.write_all(FULL.as_bytes());
                    let _ = tokio::time::timeout(Duration::from_secs(1), refuse).await;
                });
            }
        }
    }

    async fn serve(
        self: &Arc<Self>,
        socket: TcpStream,
        peer: SocketAddr,
        activity: &Arc<Activity>,
    ) {
        let service = service_fn({
            let server = self.clone();
            let activity = activity.clone();
            move |request| server.clone().answer(request, peer, activity.clone())
        });
        let io = TokioIo::new(WatchedSocket::new(socket, activity.clone()));
        let mut connection = pin!(self.http.serve_connection(io, service));
        let mut tick = tokio::time::interval(activity::tick(&self.options));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut is_leaving = false;
        loop {
            tokio::select! {
                // A connection's errors are the client's affair: resets, bad requests, going away.
                _ = connection.as_mut() => return,
                () = activity.cut() => return,
                () = self.leaving.cancelled(), if !is_leaving => {
                    is_leaving = true;
                    connection.as_mut().graceful_shutdown();
                }
                _ = tick.tick() => match activity.judge(&self.options) {
                    // After the stop, a head that began to come in gets a moment, not the whole head timeout.
                    _ if is_leaving && activity.waiting_for_ms().is_some_and(|ms| 1000 < ms) => return,
                    Verdict::Fine => {}
                    Verdict::NoMoreRequests if is_leaving => {}
                    Verdict::NoMoreRequests => {
                        is_leaving = true;
                        connection.as_mut().graceful_shutdown();
                    }
                    Verdict::Cut(reason) => {
                        self.metrics.http.count_refused_connection(reason);
                        return;
                    }
                },
            }
        }
    }

    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        peer: SocketAddr,
        activity: Arc<Activity>,
    ) -> Result<Response<GuardedBody>, Infallible> {
        let in_flight = activity.begin_request();
        let (bytes_per_s_min, grace) = (self.options.body_bytes_per_s_min, self.options.body_grace);
        let mut request =
            request.map(|body| Body::new(PacedBody::new(body, bytes_per_s_min, grace)));
        request.extensions_mut().insert(ConnectInfo(peer));
        let response = self.router.clone().call(request).await?;
        Ok(response.map(|body| GuardedBody::new(body, in_flight)))
    }
}

#[cfg(test)]
mod tests;
