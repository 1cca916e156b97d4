//! `generate`, `fetch` and `loadtest` as a person runs them: on the real server, and on servers that lie.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a broken expectation should stop the test"
)]

mod sandbox;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};

use sandbox::{Sandbox, Server};
use serde_json::{Value, json};

/// Runs a tool with `--output json`: (exit code, its JSON).
fn run(sandbox: &Sandbox, arguments: &[&str]) -> (i32, Value) {
    let output = sandbox.run(&[arguments, &["--output", "json"]].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    let answer =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}\n{told}"));
    (output.status.code().unwrap(), answer)
}

fn started() -> (Sandbox, Server, String) {
    let sandbox = Sandbox::new();
    let server = sandbox.start();
    let url = server.url("");
    (sandbox, server, url)
}

#[test]
fn what_generate_says_is_stored() {
    let (sandbox, server, url) = started();
    for (shape, count) in [
        ("app", 3_000),
        ("access", 1_000),
        ("wide", 1_000),
        ("repetitive", 1_000),
    ] {
        let count_text = count.to_string();
        let (code, answer) = run(
            &sandbox,
            &[
                "generate",
                "--count",
                &count_text,
                "--shape",
                shape,
                "--to",
                &url,
            ],
        );
        assert_eq!(
            (code, &answer["accepted"]),
            (0, &json!(count)),
            "{shape}: {answer}"
        );
    }
    server.ingest(r#"{"message": "last"}"#);
    let total = server.get_json("/logs?limit=0")["total"]["value"].clone();
    assert_eq!(total, 6_001);
    let known = server.get_json("/logs?q=timeout&source=gateway&limit=1");
    assert!(0 < known["total"]["value"].as_u64().unwrap(), "{known}");
}

#[test]
fn stdout_gets_the_same_bytes_each_time() {
    let sandbox = Sandbox::new();
    let bytes = |seed: &str| {
        sandbox
            .run(&["generate", "--count", "5000", "--seed", seed, "--stdout"])
            .stdout
    };
    let first = bytes("1");
    assert_eq!(first.iter().filter(|byte| **byte == b'\n').count(), 5_000);
    assert!(first == bytes("1"), "the same seed gave other bytes");
    assert!(first != bytes("2"), "another seed gave the same bytes");
}

#[test]
fn a_true_server_has_no_wrong_answers() {
    let (sandbox, server, url) = started();
    run(&sandbox, &["generate", "--count", "5000", "--to", &url]);
    server.ingest(r#"{"message": "last"}"#);
    let (code, answer) = run(&sandbox, &["fetch", "--count", "250", "--from", &url]);
    assert_eq!(
        (code, &answer["wrong"], &answer["failed"]),
        (0, &json!(0), &json!(0)),
        "{answer:#}"
    );
    assert!(250 <= answer["answers"].as_u64().unwrap());
    for kind in [
        "newest",
        "filter",
        "word",
        "field",
        "histogram",
        "fields",
        "stats",
        "context",
        "paging",
    ] {
        assert!(
            answer["kinds"][kind]["count"]
                .as_u64()
                .is_some_and(|count| 0 < count),
            "{kind}: {answer:#}"
        );
    }
}

#[test]
fn a_true_server_keeps_its_promises_under_load() {
    let (sandbox, server, url) = started();
    let pid = server.pid().to_string();
    let load = [
        "loadtest",
        "--to",
        &url,
        "--rate",
        "2k/s",
        "--batch-lines",
        "100",
        "--duration",
        "3s",
        "--queries",
        "1",
        "--pid",
        &pid,
    ];
    let (code, answer) = run(&sandbox, &load);
    assert_eq!((code, &answer["broken"]), (0, &json!([])), "{answer:#}");
    assert_eq!(answer["verdict"]["lost"], 0);
    assert_eq!(
        answer["lines"]["acked"], answer["verdict"]["stored"],
        "{answer:#}"
    );
    assert!(0.0 < answer["server"]["cpu_s"].as_f64().unwrap());
    assert!(0 < answer["ack_to_searchable"]["count"].as_u64().unwrap());
}

#[test]
fn nobody_there_is_no_success() {
    let sandbox = Sandbox::new();
    let (code, answer) = run(
        &sandbox,
        &[
            "generate",
            "--count",
            "10",
            "--to",
            "http://127.0.0.1:1",
            "--retry-for",
            "0s",
        ],
    );
    assert_eq!((code, &answer["unknown"]), (1, &json!(10)));
    for tool in [["fetch", "--from"], ["loadtest", "--to"]] {
        let output = sandbox.run(&[&tool[..], &["http://127.0.0.1:1"]].concat());
        assert_eq!(output.status.code(), Some(1), "{tool:?}");
    }
}

#[test]
fn health_is_the_exit_code() {
    let (sandbox, server, url) = started();
    let code = |url: &str| sandbox.run(&["health", "--url", url]).status.code();
    assert_eq!(code(&url), Some(0));
    server.stop();
    assert_eq!(code(&url), Some(1));
    let starting = canned(&[("/readyz", 503, r#"{"error":{"code":"not_ready"}}"#)]);
    assert_eq!(code(&format!("http://{starting}")), Some(1));
}

/// A server of canned answers: (part of the request line, status, body); the first that fits is given.
fn canned(answers: &'static [(&'static str, u16, &'static str)]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || -> std::io::Result<()> {
                let mut reader = BufReader::new(stream.try_clone()?);
                let (mut head, mut length) = (String::new(), 0);
                reader.read_line(&mut head)?;
                loop {
                    let mut line = String::new();
                    reader.read_line(&mut line)?;
                    if line.trim().is_empty() {
                        break;
                    }
                    if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                        length = value.trim().parse().unwrap();
                    }
                }
                let mut body = vec![0; length];
                reader.read_exact(&mut body)?;
                let request = head.rsplit_once(' ').unwrap().0;
                let (_, status, answer) = answers
                    .iter()
                    .find(|(path, _, _)| request.contains(path))
                    .unwrap_or_else(|| panic!("no answer for {request}"));
                let n_lines = body.iter().filter(|byte| **byte == b'\n').count().max(1);
                let answer = answer.replace("N_LINES", &n_lines.to_string());
                write!(
                    stream,
                    "HTTP/1.1 {status} x\r\nx-cache: miss\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{answer}",
                    answer.len()
                )
            });
        }
    });
    address
}

#[test]
fn a_server_that_forgets_is_found_out() {
    let address = canned(&[
        (
            "POST /logs",
            201,
            r#"{"accepted": N_LINES, "dead_lettered": 0}"#,
        ),
        ("GET /status", 200, "{}"),
        ("GET /logs/stats", 200, r#"{"groups": []}"#),
        ("format=ndjson", 200, ""),
        (
            "GET /logs",
            200,
            r#"{"logs": [], "total": {"value": 0, "relation": "eq"}, "next_cursor": null}"#,
        ),
    ]);
    let url = format!("http://{address}");
    let sandbox = Sandbox::new();
    let (code, answer) = run(
        &sandbox,
        &[
            "loadtest",
            "--to",
            &url,
            "--rate",
            "1k/s",
            "--batch-lines",
            "50",
            "--duration",
            "1s",
            "--settle",
            "1s",
            "--marker-every",
            "0s",
        ],
    );
    assert_eq!(code, 1, "{answer:#}");
    assert_eq!(
        answer["verdict"]["lost"], answer["lines"]["acked"],
        "{answer:#}"
    );
    assert!(
        answer["broken"].to_string().contains("are not stored"),
        "{answer:#}"
    );
}

#[test]
fn a_server_that_accepts_less_than_all_is_no_success() {
    let address = canned(&[("POST /logs", 201, r#"{"accepted": 7, "dead_lettered": 3}"#)]);
    let sandbox = Sandbox::new();
    let (code, answer) = run(
        &sandbox,
        &[
            "generate",
            "--count",
            "10",
            "--to",
            &format!("http://{address}"),
        ],
    );
    assert_eq!(code, 1);
    assert_eq!(
        (&answer["accepted"], &answer["dead_lettered"]),
        (&json!(7), &json!(3))
    );
}

#[test]
fn answers_that_cannot_be_true_are_found_out() {
    const RECORD: &str = r#"{"logs": [
        {"id": "a", "timestamp": "2025-03-20T00:00:00Z", "level": "INFO", "source": "web", "message": "older"},
        {"id": "b", "timestamp": "2025-03-20T00:00:01Z", "level": "INFO", "source": "web", "message": "newer"}],
        "total": {"value": 2, "relation": "eq"}, "next_cursor": null, "partial": false}"#;
    let address = canned(&[
        (
            "GET /logs/stats",
            200,
            r#"{"groups": [{"by": {"source": "web"}, "count": 2}]}"#,
        ),
        ("GET /logs", 200, RECORD),
    ]);
    let sandbox = Sandbox::new();
    let (code, answer) = run(
        &sandbox,
        &[
            "fetch",
            "--from",
            &format!("http://{address}"),
            "--kinds",
            "newest",
            "--count",
            "5",
        ],
    );
    assert_eq!(code, 1);
    assert_eq!(answer["wrong"], 5, "{answer:#}");
}
