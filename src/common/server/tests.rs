//! The server over real sockets on port 0: slow, greedy and leaving clients.

use super::*;

use axum::body::Bytes;
use axum::routing::{get, post};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use tokio::io::AsyncReadExt as _;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    done: JoinHandle<usize>,
}

async fn start(options: ServerOptions) -> Running {
    let slow = get(async || {
        tokio::time::sleep(Duration::from_millis(300)).await;
        "slow answer"
    });
    let endless = get(async || {
        let block = Bytes::from(vec![b'x'; 64 << 10]);
        Body::from_stream(futures::stream::repeat_with(move || {
            Ok::<_, std::io::Error>(block.clone())
        }))
    });
    let router = Router::new()
        .route("/fast", get(async || "fast answer"))
        .route("/slow", slow)
        .route(
            "/query",
            get(async |uri: axum::http::Uri| uri.query().unwrap_or_default().to_owned()),
        )
        .route("/endless", endless)
        .route(
            "/echo",
            post(
                async |body: Body| match axum::body::to_bytes(body, 1 << 20).await {
                    Ok(bytes) => format!("{} bytes", bytes.len()),
                    Err(e) => format!("failed: {e:?}"),
                },
            ),
        );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let metrics = Arc::new(Metrics::new());
    let done = tokio::spawn(run(listener, router, options, metrics, async {
        let _ = stopped.await;
    }));
    Running {
        address,
        stop,
        done,
    }
}

fn short() -> ServerOptions {
    ServerOptions {
        head_timeout: Duration::from_millis(200),
        keep_alive_idle: Duration::from_millis(400),
        write_stall: Duration::from_millis(300),
        body_grace: Duration::from_millis(200),
        ..ServerOptions::default()
    }
}

async fn exchange(address: SocketAddr, request: &str) -> String {
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

fn get_request(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
}

/// How long the server keeps a connection on which `bytes` were sent.
async fn time_until_closed(address: SocketAddr, bytes: &[u8]) -> Duration {
    let started = Instant::now();
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(bytes).await.unwrap();
    let mut sink = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(5), socket.read_to_end(&mut sink)).await;
    assert!(closed.is_ok(), "the connection stayed open");
    started.elapsed()
}

#[tokio::test]
async fn clients_that_send_nothing_or_half_a_head_are_closed() {
    let server = start(short()).await;
    for bytes in [
        &b""[..],
        b"P",
        b"PRI * HT",
        b"GET /fast HTTP/1.1\r\nhost: lo",
    ] {
        let took = time_until_closed(server.address, bytes).await;
        assert!(
            Duration::from_millis(150) < took && took < Duration::from_secs(2),
            "{bytes:?}: {took:?}"
        );
    }
    assert!(
        exchange(server.address, &get_request("/fast"))
            .await
            .ends_with("fast answer")
    );
}

#[tokio::test]
async fn an_idle_kept_alive_connection_outlives_the_head_timeout_and_then_ends() {
    let server = start(short()).await;
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    let request = b"GET /fast HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let mut answer = [0; 1024];
    for _ in 0..2 {
        socket.write_all(request).await.unwrap();
        let n = socket.read(&mut answer).await.unwrap();
        assert!(String::from_utf8_lossy(&answer[..n]).contains("200 OK"));
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    let closed = tokio::time::timeout(Duration::from_secs(3), socket.read(&mut answer)).await;
    assert_eq!(closed.unwrap().unwrap(), 0);
}

#[tokio::test]
async fn a_body_that_comes_too_slowly_fails_and_a_steady_one_does_not() {
    let server = start(short()).await;
    let head = "POST /echo HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 4000\r\n\r\n";
    let answer = exchange(server.address, head).await;
    assert!(answer.contains("came too slowly"), "{answer}");
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    socket.write_all(head.as_bytes()).await.unwrap();
    for _ in 0..8 {
        socket.write_all(&[b'x'; 500]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("4000 bytes"), "{answer}");
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answer_is_cut_off() {
    let server = start(short()).await;
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    socket
        .write_all(get_request("/endless").as_bytes())
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(1000)).await;
    let read_all = async {
        let mut buffer = vec![0; 1 << 20];
        while socket.read(&mut buffer).await.is_ok_and(|n| 0 < n) {}
    };
    tokio::time::timeout(Duration::from_secs(5), read_all)
        .await
        .expect("the answer never ended");
}

#[tokio::test]
async fn idle_clients_do_not_lock_out_good_ones_and_busy_ones_get_a_503() {
    let options = ServerOptions {
        connections_max: 3,
        ..ServerOptions::default()
    };
    let server = start(options).await;
    let mut idle = Vec::new();
    for _ in 0..20 {
        idle.push(TcpStream::connect(server.address).await.unwrap());
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(
        exchange(server.address, &get_request("/fast"))
            .await
            .ends_with("fast answer")
    );
    let refused = Arc::new(AtomicUsize::new(0));
    let slow = (0..9).map(|_| {
        let refused = refused.clone();
        async move {
            let answer = exchange(server.address, &get_request("/slow")).await;
            if answer.starts_with("HTTP/1.1 503") {
                let body = answer.split("\r\n\r\n").nth(1).unwrap();
                assert_eq!(body.len(), 138);
                let body: serde_json::Value = serde_json::from_str(body).unwrap();
                assert_eq!(body["error"]["code"], "too_many_connections");
                refused.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    futures::future::join_all(slow).await;
    assert!(0 < refused.load(Ordering::Relaxed));
    assert!(
        exchange(server.address, &get_request("/fast"))
            .await
            .ends_with("fast answer")
    );
}

#[tokio::test]
async fn urls_as_people_type_them_are_served_and_refusals_are_explained() {
    let server = start(ServerOptions::default()).await;
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    for _ in 0..3 {
        let request = b"GET /query?q=status:>=500+\"a\" HTTP/1.1\r\nhost: localhost\r\n\r\n";
        socket.write_all(request).await.unwrap();
        let mut answer = [0; 1024];
        let n = socket.read(&mut answer).await.unwrap();
        assert!(String::from_utf8_lossy(&answer[..n]).ends_with("q=status:%3E=500+%22a%22"));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for (request, code) in [
        ("nonsense\r\n\r\n".to_owned(), "malformed_request"),
        (
            format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(100_000)),
            "headers_too_large",
        ),
        (
            format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(200)),
            "headers_too_large",
        ),
    ] {
        let answer = exchange(server.address, &request).await;
        let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
        let body: serde_json::Value =
            serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {answer}"));
        assert_eq!(body["error"]["code"], code);
    }
}

#[tokio::test]
async fn requests_in_flight_finish_after_the_stop() {
    let server = start(ServerOptions::default()).await;
    let _idle = TcpStream::connect(server.address).await.unwrap();
    let slow = tokio::spawn(async move { exchange(server.address, &get_request("/slow")).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.stop.send(()).unwrap();
    assert!(slow.await.unwrap().ends_with("slow answer"));
    assert_eq!(server.done.await.unwrap(), 0);
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn what_does_not_finish_in_time_is_cut_and_counted() {
    let options = ServerOptions {
        drain: Duration::from_millis(100),
        ..ServerOptions::default()
    };
    let server = start(options).await;
    let slow = tokio::spawn(async move { exchange(server.address, &get_request("/slow")).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.stop.send(()).unwrap();
    assert_eq!(server.done.await.unwrap(), 1);
    assert!(!slow.await.unwrap().ends_with("slow answer"));
}
