//! What ill-meaning or broken clients send, through the real binary. For each case: the documented answer, no panic, no jump in memory, the
//! next good request is served, and at the end everything accepted is found again and everything set aside is a dead letter.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    reason = "a broken expectation should stop the test, and its tables may be long"
)]

mod sandbox;

use std::io::Write as _;

use sandbox::{Sandbox, Server};

/// Memory that one case may leave behind.
const RESIDENT_BYTES_MAX: u64 = 700 << 20;

struct Case {
    name: &'static str,
    headers: Vec<(&'static str, &'static str)>,
    body: Vec<u8>,
    expected: Expected,
}

enum Expected {
    /// Accepted, dead letters.
    Stored(u64, u64),
    /// Status, code.
    Refused(u16, &'static str),
}
use Expected::{Refused, Stored};

fn case(name: &'static str, body: impl Into<Vec<u8>>, expected: Expected) -> Case {
    Case {
        name,
        headers: Vec::new(),
        body: body.into(),
        expected,
    }
}

impl Case {
    fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn zstd(plain: &[u8], window_log: u32) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(window_log).unwrap();
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn nested(open: &str, close: &str, depth: usize) -> String {
    format!("{{\"a\":{}1{}}}", open.repeat(depth), close.repeat(depth))
}

fn lines_and_bytes() -> Vec<Case> {
    let megabyte = "x".repeat(1 << 20);
    vec![
        case(
            "a line of 1 MiB between two short ones",
            format!("a\n{megabyte}\nb\n"),
            Stored(3, 0),
        ),
        case(
            "a JSON line of 1 MiB",
            format!("{{\"m\":\"{megabyte}\"}}\n{{\"m\":1}}\n"),
            Stored(2, 0),
        ),
        case(
            "a JSON line of 3 MiB",
            format!(
                "{{\"m\":1}}\n{{\"m\":\"{}\"}}\n{{\"m\":1}}\n",
                megabyte.repeat(3)
            ),
            Stored(2, 1),
        ),
        case(
            "one object of 3 MiB",
            format!("{{\"m\":\"{}\"}}", megabyte.repeat(3)),
            Refused(413, "record_too_large"),
        ),
        case("no line break in 16 MiB", megabyte.repeat(16), Stored(1, 0)),
        case(
            "65 MiB",
            megabyte.repeat(65),
            Refused(413, "body_too_large"),
        ),
        case(
            "invalid UTF-8",
            b"{\"m\":\"\xff\xc0\xaf\xed\xa0\x80\"}\n\xfe\n".to_vec(),
            Stored(1, 1),
        ),
        case(
            "invalid UTF-8 in text",
            b"caf\xe9 \xff\n".to_vec(),
            Stored(1, 0),
        ),
        case(
            "NUL and control characters",
            b"a\x00b\x01\x1b[31m\n{\"m\":\"\x00\t\"}\n".to_vec(),
            Stored(2, 0),
        ),
        case(
            "byte order mark",
            b"\xef\xbb\xbf{\"m\":1}".to_vec(),
            Stored(1, 0),
        ),
        case(
            "UTF-16",
            "\u{feff}{\"m\":\"é\"}"
                .encode_utf16()
                .flat_map(u16::to_le_bytes)
                .collect::<Vec<u8>>(),
            Stored(1, 0),
        ),
        case("only white space", " \r\n\t\n", Refused(400, "empty_body")),
        case(
            "lone surrogates",
            r#"{"m":"\ud800","n":["\udfff"]}"#,
            Stored(1, 0),
        ),
        case(
            "random bytes",
            (0..100_000_u32)
                .map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes()[0])
                .filter(|b| *b != b'\n')
                .collect::<Vec<u8>>(),
            Stored(1, 0),
        ),
        case(
            "a million empty objects",
            "{}\n".repeat(1_000_000),
            Stored(1_000_000, 0),
        ),
        case(
            "a million broken lines",
            format!("{{}}\n{}", "x\n".repeat(1_000_000)),
            Stored(1, 1_000_000),
        ),
    ]
}

fn shapes() -> Vec<Case> {
    let fields = |n: usize| {
        let members: Vec<_> = (0..n).map(|i| format!("\"f{i}\":{i}")).collect();
        format!("{{{}}}", members.join(","))
    };
    let explosion: String = (0..150_000).map(|i| format!("{{\"x{i}\":1}}\n")).collect();
    vec![
        case("arrays 10 deep", nested("[", "]", 10), Stored(1, 0)),
        case("arrays 1,000 deep", nested("[", "]", 1_000), Stored(1, 0)),
        case(
            "arrays 200,000 deep",
            nested("[", "]", 200_000),
            Stored(1, 0),
        ),
        case("objects 10 deep", nested("{\"a\":", "}", 10), Stored(1, 0)),
        case(
            "objects 1,000 deep",
            nested("{\"a\":", "}", 1_000),
            Stored(1, 0),
        ),
        case(
            "objects 100,000 deep",
            nested("{\"a\":", "}", 100_000),
            Stored(1, 0),
        ),
        case(
            "200,000 open brackets",
            "[".repeat(200_000),
            Refused(400, "invalid_json"),
        ),
        case(
            "200,000 open objects",
            "{\"a\":".repeat(200_000),
            Refused(400, "invalid_json"),
        ),
        case(
            "200,000 open brackets on an NDJSON line",
            format!("{{\"m\":1}}\n{}\n", "[".repeat(200_000)),
            Stored(1, 1),
        ),
        case("10,000 fields", fields(10_000), Stored(1, 0)),
        case(
            "150,000 different names",
            explosion,
            Refused(413, "too_many_field_names"),
        ),
        case(
            "a name of 100 kB",
            format!("{{\"{}\":1}}", "n".repeat(100_000)),
            Stored(1, 0),
        ),
        case(
            "one key, every type",
            "{\"k\":\"s\"}\n{\"k\":{\"a\":1}}\n{\"k\":[1]}\n{\"k\":null}\n{\"k\":1.5}\n{\"k\":true}\n{\"k\":{\"a\":{}}}\n",
            Stored(7, 0),
        ),
        case(
            "repeated keys",
            r#"{"a":1,"a":{"b":2},"a":3}"#,
            Stored(1, 0),
        ),
        case(
            "odd names",
            r#"{"":1,"__proto__":2,"constructor":3,"a.b":4,"a":{"b":5},"..":6,"_flags":7,"id":8,"_id":9}"#,
            Stored(1, 0),
        ),
        case(
            "odd numbers",
            r#"{"a":1e400,"b":18446744073709551616,"c":-0,"d":NaN,"e":1e-400,"f":-Infinity,"g":0.1e1}"#,
            Stored(1, 0),
        ),
        case(
            "odd times",
            "{\"time\":\"9999-12-31T23:59:59Z\"}\n{\"time\":\"0000-01-01\"}\n{\"time\":\"2016-12-31T23:59:60Z\"}\n{\"time\":-1}\n{\"time\":1e300}\n{\"time\":{}}\n{\"timestamp\":\"x\"}\n",
            Stored(7, 0),
        ),
        case(
            "values that are no objects",
            "{\"m\":1}\n7\nnull\n[]\n\"text\"\ntrue\n",
            Stored(2, 3),
        ),
        case(
            "one broken object",
            r#"{"a":1,}"#,
            Refused(400, "invalid_json"),
        ),
        case(
            "scripts and formulas",
            "{\"<img src=x onerror=alert(1)>\":\"</script><script>alert(1)</script>\",\"m\":\"=cmd|' /C calc'!A0\"}",
            Stored(1, 0),
        ),
        case(
            "a path as the source",
            "{\"source\":\"../../etc/passwd\\u0000\",\"m\":1}",
            Stored(1, 0),
        ),
    ]
}

fn encodings() -> Vec<Case> {
    let zeros = vec![b'0'; 200 << 20];
    let plain = b"{\"m\":1}\n".repeat(1000);
    let cut = |mut bytes: Vec<u8>| {
        bytes.truncate(bytes.len() - 5);
        bytes
    };
    let mut bad_crc = gzip(&plain);
    let crc_at = bad_crc.len() - 8;
    bad_crc[crc_at] ^= 0xff;
    let gz = ("content-encoding", "gzip");
    let zst = ("content-encoding", "zstd");
    vec![
        case(
            "gzip of two members",
            [gzip(&plain), gzip(&plain)].concat(),
            Stored(2_000, 0),
        )
        .with(gz.0, gz.1),
        case("zstd", zstd(&plain, 20), Stored(1_000, 0)).with(zst.0, zst.1),
        case("gzip bomb", gzip(&zeros), Refused(413, "")).with(gz.0, gz.1),
        case(
            "zstd bomb",
            zstd(&zeros, 20),
            Refused(413, "suspicious_compression"),
        )
        .with(zst.0, zst.1),
        case(
            "zstd with a window of 128 MiB",
            zstd(&plain, 27),
            Refused(400, "invalid_compression"),
        )
        .with(zst.0, zst.1),
        case(
            "wrong checksum",
            bad_crc,
            Refused(400, "invalid_compression"),
        )
        .with(gz.0, gz.1),
        case(
            "gzip cut short",
            cut(gzip(&plain)),
            Refused(400, "invalid_compression"),
        )
        .with(gz.0, gz.1),
        case(
            "zstd cut short",
            cut(zstd(&plain, 20)),
            Refused(400, "invalid_compression"),
        )
        .with(zst.0, zst.1),
        case(
            "plain body called gzip",
            plain.clone(),
            Refused(400, "invalid_compression"),
        )
        .with(gz.0, gz.1),
        case(
            "gzip in gzip",
            gzip(&gzip(&plain)),
            Refused(415, "unsupported_encoding"),
        )
        .with("content-encoding", "gzip, gzip"),
        case(
            "an unknown encoding",
            plain.clone(),
            Refused(415, "unsupported_encoding"),
        )
        .with("content-encoding", "snappy"),
        case(
            "a form",
            b"--x\r\n".to_vec(),
            Refused(415, "unsupported_media_type"),
        )
        .with("content-type", "multipart/form-data; boundary=x"),
        case(
            "a body announced as 1 TB",
            b"x".to_vec(),
            Refused(413, "body_too_large"),
        )
        .with("content-length", "1099511627776"),
        case(
            "an empty idempotency key",
            b"x".to_vec(),
            Refused(400, "invalid_idempotency_key"),
        )
        .with("idempotency-key", ""),
    ]
}

/// Sends the case, then a good request; returns what both stored.
fn run(server: &Server, case: &Case) -> (u64, u64) {
    let answer = server.request("POST", "/logs", &case.headers, &case.body);
    let text = answer.text();
    let shown = &text[..text.floor_char_boundary(500)];
    let stored = match case.expected {
        Stored(accepted, dead_lettered) => {
            assert_eq!(answer.status, 201, "{}: {shown}", case.name);
            let answer = answer.json();
            let got = (
                answer["accepted"].as_u64().unwrap(),
                answer["dead_lettered"].as_u64().unwrap(),
            );
            assert_eq!(got, (accepted, dead_lettered), "{}: {shown}", case.name);
            got
        }
        Refused(status, code) => {
            assert_eq!(answer.status, status, "{}: {shown}", case.name);
            assert!(answer.error_code().contains(code), "{}: {shown}", case.name);
            (0, 0)
        }
    };
    let good = server.post("/logs", "{\"message\":\"good\"}");
    assert_eq!(good.status, 201, "after {}: {}", case.name, good.text());
    let resident = server.resident_bytes();
    assert!(
        resident < RESIDENT_BYTES_MAX,
        "{}: {resident} bytes",
        case.name
    );
    (stored.0 + 1, stored.1)
}

#[test]
fn hostile_bodies_get_the_documented_answer_and_harm_nobody() {
    let sandbox = Sandbox::new();
    let server = sandbox.start_with(&["--in-memory"], &[]);
    let mut accepted = 0;
    let mut dead_lettered = 0;
    for case in [lines_and_bytes(), shapes(), encodings()].iter().flatten() {
        let stored = run(&server, case);
        accepted += stored.0;
        dead_lettered += stored.1;
    }
    server.ingest("the last one");
    let found = server.get_json("/logs?limit=0");
    assert_eq!(found["total"]["value"], accepted + 1);
    let letters = server.get_json("/dead-letters?limit=1");
    assert_eq!(letters["total"]["value"], dead_lettered);
    server.stop();
}
