//! The whole pipeline through the real binary: logs in, answers out, over restarts.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a broken expectation should stop the test"
)]

mod sandbox;

use std::collections::BTreeSet;
use std::io::BufReader;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sandbox::{Sandbox, Server, eventually, read_chunk, read_head, real_logs};
use serde_json::{Value, json};

fn total(server: &Server, query: &str) -> u64 {
    let answer = server.get_json(&format!("/logs?limit=0&{query}"));
    assert_eq!(answer["total"]["relation"], "eq");
    answer["total"]["value"].as_u64().unwrap()
}

fn ids(answer: &Value) -> Vec<String> {
    answer["logs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|log| log["id"].as_str().unwrap().to_owned())
        .collect()
}

/// `count` records a second apart, of two sources and three levels.
fn numbered(count: usize) -> String {
    (0..count)
        .map(|n| {
            let line = json!({
                "timestamp": format!("2025-03-20T{:02}:{:02}:{:02}Z", n / 3600 % 24, n / 60 % 60, n % 60),
                "level": (["INFO", "WARN", "ERROR"][n % 3]),
                "source": (["backend", "frontend"][n % 2]),
                "message": format!("request number {n}"),
                "n": n,
                "duration_ms": n as f64 / 2.0,
                "http": {"status": ([200, 404, 500][n % 3])},
            });
            format!("{line}\n")
        })
        .collect()
}

/// Lines of real logs; none where there is neither the file nor an excerpt of it.
fn lines_of(file: &str, count: usize) -> Vec<String> {
    let bytes = real_logs(file).unwrap_or_default();
    String::from_utf8_lossy(&bytes)
        .lines()
        .take(count)
        .map(str::to_owned)
        .collect()
}

#[test]
fn real_logs_are_all_found_again_after_a_restart() {
    let sandbox = Sandbox::new();
    let server = sandbox.start();
    let files = [
        ("apache-access.log.zst", 10_000, "googlebot"),
        ("zeek.ndjson.zst", 20_000, "dns"),
        ("nginx-plus.ndjson.zst", 500, "nginx"),
        ("windows-security.ndjson.zst", 1_500, "kerberos"),
    ];
    for (file, count, word) in files {
        let lines = lines_of(file, count);
        assert!(100 < lines.len() || file.starts_with("zeek"), "{file}");
        let before = total(&server, "");
        let word_before = total(&server, &format!("q={word}"));
        for chunk in lines.chunks(1000) {
            let answer = server.post(
                &format!("/logs?wait_for=indexed&source={file}"),
                chunk.join("\n"),
            );
            assert_eq!(answer.status, 201, "{file}: {}", answer.text());
            let answer = answer.json();
            assert_eq!(
                (
                    answer["accepted"].as_u64(),
                    answer["dead_lettered"].as_u64()
                ),
                (Some(chunk.len() as u64), Some(0)),
                "{file}: {answer}"
            );
        }
        assert_eq!(total(&server, "") - before, lines.len() as u64, "{file}");
        let with_word = lines.iter().filter(|line| has_word(line, word)).count() as u64;
        let found = total(&server, &format!("q={word}")) - word_before;
        // A key is no value: JSON lines may hold the word as a key only.
        if file.ends_with(".log.zst") {
            assert_eq!(found, with_word, "{file}: {word}");
        } else {
            assert!(found <= with_word, "{file}: {word}: {found} of {with_word}");
        }
    }
    let counts = files.map(|(_, _, word)| (word, total(&server, &format!("q={word}"))));
    let all = total(&server, "");
    let newest = server.get_json("/logs?limit=50");
    server.stop();
    let server = sandbox.start();
    assert_eq!(total(&server, ""), all);
    for (word, count) in counts {
        assert_eq!(total(&server, &format!("q={word}")), count, "{word}");
    }
    assert_eq!(server.get_json("/logs?limit=50")["logs"], newest["logs"]);
    server.stop();
}

fn has_word(line: &str, word: &str) -> bool {
    line.to_lowercase()
        .split(|c: char| !c.is_alphanumeric())
        .any(|token| token == word)
}

#[test]
fn pages_neither_skip_nor_repeat_even_among_equal_times_and_while_logs_come_in() {
    let sandbox = Sandbox::new();
    let server = sandbox.start();
    let body: String = (0..1000)
        .map(|n| {
            format!(
                "{{\"timestamp\":\"2025-03-20T00:00:0{}Z\",\"n\":{n}}}\n",
                n % 3
            )
        })
        .collect();
    server.ingest(body);
    for order in ["asc", "desc"] {
        let mut seen = Vec::new();
        let mut cursor = String::new();
        loop {
            let answer = server.get_json(&format!(
                "/logs?limit=97&order={order}&end=2025-03-21{cursor}"
            ));
            assert_eq!(answer["total"]["value"], 1000);
            seen.extend(ids(&answer));
            // Newer than the range: they must not move the pages.
            server.ingest(r#"{"timestamp":"2025-03-22T00:00:00Z"}"#);
            match answer["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(seen.len(), 1000);
        assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), 1000);
    }
}

#[test]
fn an_answer_is_cached_until_it_could_change() {
    let sandbox = Sandbox::new();
    let server = sandbox.start();
    server.ingest(numbered(100));
    let ask = |headers: &[(&str, &str)]| {
        let answer = server.request("GET", "/logs?q=number&limit=3", headers, b"");
        let mut body = answer.json();
        assert!(body["took_ms"].is_number());
        body["took_ms"] = Value::Null;
        (answer.header("x-cache").unwrap().to_owned(), body)
    };
    let (outcome, first) = ask(&[]);
    assert_eq!(outcome, "miss");
    let (outcome, second) = ask(&[]);
    assert_eq!((outcome.as_str(), &second), ("hit", &first));
    let (outcome, third) = ask(&[("cache-control", "no-cache")]);
    assert_eq!((outcome.as_str(), &third), ("bypass", &first));
    server.ingest(r#"{"timestamp":"2025-03-20T12:00:00Z","message":"another number"}"#);
    let (outcome, fourth) = ask(&[]);
    assert_eq!(outcome, "miss");
    assert_eq!(fourth["total"]["value"], 101);
    for path in ["/logs/histogram", "/logs/fields", "/logs/stats"] {
        assert_eq!(server.get(path).header("x-cache"), Some("miss"), "{path}");
        assert_eq!(server.get(path).header("x-cache"), Some("hit"), "{path}");
        assert!(server.get_json(path)["took_ms"].is_number(), "{path}");
    }
}

#[test]
fn selections_of_every_kind_agree() {
    let sandbox = Sandbox::new();
    let server = sandbox.start_with(&["--in-memory"], &[]);
    server.ingest(numbered(3600));
    for (query, expected) in [
        ("", 3600),
        ("level=error", 1200),
        ("level=err,warning", 2400),
        ("level=error&level=warn", 2400),
        ("service=backend", 1800),
        ("source=backend&level=ERROR", 600),
        ("source=backend,frontend", 3600),
        ("start=2025-03-20T00:30:00Z", 1800),
        ("start=2025-03-20T00:30:00&end=2025-03-20T00:31:00", 60),
        ("start=1742430600&end=1742430660000", 60),
        ("q=http.status:%3E=500", 1200),
        ("q=level:error%20AND%20NOT%20source:backend", 600),
        ("q=%22request%20number%207%22", 1),
        ("q=n:[10%20TO%2020}", 10),
        ("q=service:frontend", 1800),
        ("q=nothing", 0),
    ] {
        assert_eq!(total(&server, query), expected, "{query}");
    }
}

#[test]
fn records_come_back_as_they_were_sent() {
    let sandbox = Sandbox::new();
    let server = sandbox.start();
    let sent = json!({
        "timestamp": "2025-03-20T01:02:03.123456789Z", "level": "Warning", "source": "backend", "message": "ünï \"quoted\"\n",
        "http": {"status": 500, "path": "/a"}, "a.b": 1, "big": 9_007_199_254_740_993_i64, "list": [1, {"x": null}], "nothing": null,
        "decimal": 0.1, "empty": {},
    });
    server.ingest(sent.to_string());
    let mut got = server.get_json("/logs")["logs"][0].clone();
    let id = got["id"].as_str().unwrap().to_owned();
    assert_eq!(server.get_json(&format!("/logs/{id}")), got);
    got.as_object_mut().unwrap().remove("id");
    assert_eq!(got, sent);
    assert!(server.get("/logs").text().contains("9007199254740993"));
    let chosen = server.get_json("/logs?fields=http.status")["logs"][0].clone();
    assert_eq!(chosen["http"], json!({"status": 500}));
    assert!(chosen.get("big").is_none());
    // The standard fields are always there, and true.
    for name in ["timestamp", "level", "source", "message"] {
        assert_eq!(chosen[name], sent[name], "{name}");
    }
    assert_eq!(server.get(&format!("/logs/{}x", &id[..8])).status, 404);
}

#[test]
fn exports_hold_what_the_pages_hold() {
    let sandbox = Sandbox::new();
    let server = sandbox.start();
    server.ingest(numbered(5000));
    server.ingest(r#"{"timestamp":"2025-03-21T00:00:00Z","message":"=cmd()","source":"evil"}"#);
    let ndjson = server.get("/logs?format=ndjson&limit=all&order=asc");
    assert_eq!(ndjson.header("content-type"), Some("application/x-ndjson"));
    let lines: Vec<Value> = ndjson
        .text()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 5001);
    for (index, line) in lines.iter().take(5000).enumerate() {
        assert_eq!(line["n"], index, "{line}");
    }
    let page = server.get_json("/logs?limit=10&order=asc");
    assert_eq!(page["logs"].as_array().unwrap(), &lines[..10]);
    let by_header = server.request(
        "GET",
        "/logs?limit=3",
        &[("accept", "application/x-ndjson")],
        b"",
    );
    assert_eq!(by_header.text().lines().count(), 3);
    let csv = server.get("/logs?format=csv&limit=2&fields=source,message");
    assert_eq!(
        csv.text(),
        "source,message\r\nevil,\"'=cmd()\"\r\nfrontend,request number 4999\r\n"
    );
}

#[test]
fn histograms_have_every_bucket_and_stats_and_fields_add_up() {
    let sandbox = Sandbox::new();
    let server = sandbox.start();
    server.ingest(numbered(3600));
    server.ingest(r#"{"timestamp":"2025-03-20T03:30:00Z","message":"late"}"#);
    let histogram = server
        .get_json("/logs/histogram?interval=1h&by=level&start=2025-03-20&end=2025-03-20T06:00:00Z");
    assert_eq!(histogram["interval_ms"], 3_600_000);
    assert_eq!(histogram["total"], 3601);
    let buckets = histogram["buckets"].as_array().unwrap();
    let counts: Vec<u64> = buckets
        .iter()
        .map(|bucket| bucket["count"].as_u64().unwrap())
        .collect();
    assert_eq!(counts, [3600, 0, 0, 1, 0, 0]);
    assert_eq!(buckets[0]["start"], "2025-03-20T00:00:00Z");
    assert_eq!(
        buckets[0]["by"],
        json!({"ERROR": 1200, "INFO": 1200, "WARN": 1200})
    );
    let automatic = server.get_json("/logs/histogram");
    let sum: u64 = automatic["buckets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|bucket| bucket["count"].as_u64().unwrap())
        .sum();
    assert_eq!(sum, 3601);

    let stats = server.get_json(
        "/logs/stats?by=level&agg=count,avg(n),max(n),distinct(source)&sort=level&q=request",
    );
    let groups = stats["groups"].as_array().unwrap();
    assert_eq!(groups.len(), 3);
    assert_eq!(groups[0]["by"], json!({"level": "ERROR"}));
    assert_eq!(groups[0]["count"], 1200);
    assert_eq!(groups[0]["max(n)"], 3599);
    assert_eq!(groups[0]["avg(n)"].as_f64().unwrap(), 1800.5);
    assert_eq!(groups[0]["distinct(source)"], 2);
    let by_time = server.get_json("/logs/stats?by=time(1h)");
    assert_eq!(
        by_time["groups"][0]["by"],
        json!({"time(1h)": "2025-03-20T00:00:00Z"})
    );

    let fields = server.get_json("/logs/fields?top=2");
    let status = fields["fields"]
        .as_array()
        .unwrap()
        .iter()
        .find(|field| field["name"] == "http.status")
        .unwrap()
        .clone();
    assert_eq!(status["types"], json!(["integer"]));
    assert_eq!(
        (status["count"].as_u64(), status["distinct"].as_u64()),
        (Some(3600), Some(3))
    );
    assert_eq!(
        status["top"],
        json!([{"value": 200, "count": 1200}, {"value": 404, "count": 1200}])
    );
}

#[test]
fn the_context_of_a_record_is_what_its_source_said_around_it() {
    let sandbox = Sandbox::new();
    let server = sandbox.start();
    server.ingest(numbered(100));
    let record = server.get_json("/logs?q=n:50")["logs"][0].clone();
    let id = record["id"].as_str().unwrap();
    let numbers = |list: &Value| {
        list.as_array()
            .unwrap()
            .iter()
            .map(|log| log["n"].as_u64().unwrap())
            .collect::<Vec<_>>()
    };
    let context = server.get_json(&format!("/logs/{id}/context?before=3&after=2"));
    assert_eq!(context["log"], record);
    assert_eq!(
        (numbers(&context["before"]), numbers(&context["after"])),
        (vec![44, 46, 48], vec![52, 54])
    );
    let context = server.get_json(&format!("/logs/{id}/context?before=1&after=1&scope=all"));
    assert_eq!(
        (numbers(&context["before"]), numbers(&context["after"])),
        (vec![49], vec![51])
    );
}

#[test]
fn what_cannot_be_a_record_is_kept_listed_replayed_and_deleted() {
    let sandbox = Sandbox::new();
    let server = sandbox.start();
    let answer = server.post(
        "/logs?wait_for=indexed&source=app",
        "{\"message\":\"good\"}\n{\"message\":\"bad\n{\"message\":\"good again\"}\n",
    );
    assert_eq!(answer.status, 201, "{}", answer.text());
    let answer = answer.json();
    assert_eq!(
        (
            answer["accepted"].as_u64(),
            answer["dead_lettered"].as_u64()
        ),
        (Some(2), Some(1)),
        "{answer}"
    );
    assert_eq!(answer["errors"][0]["line"], 2);
    assert_eq!(answer["durability"], "fsync");
    let list = server.get_json("/dead-letters");
    assert_eq!(list["total"]["value"], 1);
    let letter = &list["dead_letters"][0];
    assert_eq!(
        (letter["raw"].as_str(), letter["source"].as_str()),
        (Some("{\"message\":\"bad"), Some("app"))
    );
    assert_eq!(server.get_json("/dead-letters?q=bad")["total"]["value"], 1);
    assert_eq!(
        server.get_json("/dead-letters?q=absent")["total"]["value"],
        0
    );
    server.stop();
    let server = sandbox.start();
    let id = server.get_json("/dead-letters")["dead_letters"][0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let delete = || server.request("DELETE", &format!("/dead-letters/{id}"), &[], b"");
    assert_eq!(delete().status, 200);
    assert_eq!(delete().error_code(), "dead_letter_not_found");
    assert_eq!(server.get_json("/dead-letters")["total"]["value"], 0);
    assert_eq!(total(&server, ""), 2);
}

/// Reads events until `count` records have come; returns (id, record).
fn read_events(reader: &mut BufReader<std::net::TcpStream>, count: usize) -> Vec<(String, Value)> {
    let mut text = String::new();
    loop {
        let events: Vec<(String, Value)> = text
            .split("\n\n")
            .filter_map(|event| {
                let id = event.lines().find_map(|line| line.strip_prefix("id: "))?;
                let data = event.lines().find_map(|line| line.strip_prefix("data: "))?;
                Some((id.to_owned(), serde_json::from_str(data).ok()?))
            })
            .collect();
        if count <= events.len() {
            return events;
        }
        let chunk = read_chunk(reader).unwrap().expect("the tail ended");
        text.push_str(&String::from_utf8(chunk).unwrap());
    }
}

#[test]
fn the_tail_shows_new_records_and_resumes_without_gap_or_double() {
    let sandbox = Sandbox::new();
    let server = sandbox.start();
    server.ingest(numbered(10));
    let follow = |path: &str, headers: &[(&str, &str)]| {
        let mut reader = BufReader::new(server.open("GET", path, headers, b"").unwrap());
        let (status, headers) = read_head(&mut reader).unwrap();
        assert_eq!(status, 200);
        assert!(
            headers.contains(&("content-type".to_owned(), "text/event-stream".to_owned())),
            "{headers:?}"
        );
        reader
    };
    let numbers = |events: &[(String, Value)]| {
        events
            .iter()
            .map(|(_, record)| record["n"].as_u64().unwrap())
            .collect::<Vec<_>>()
    };
    let mut tail = follow("/logs/tail?q=n:*&backfill=3", &[]);
    assert_eq!(numbers(&read_events(&mut tail, 3)), [7, 8, 9]);
    server.ingest("{\"n\":10}\n{\"other\":1}\n{\"n\":11}\n");
    let events = read_events(&mut tail, 2);
    assert_eq!(numbers(&events), [10, 11]);
    drop(tail);
    server.ingest("{\"n\":12}");
    let mut tail = follow("/logs/tail?q=n:*", &[("last-event-id", &events[0].0)]);
    assert_eq!(numbers(&read_events(&mut tail, 2)), [11, 12]);
    server.ingest("{\"n\":13}");
    assert_eq!(numbers(&read_events(&mut tail, 1)), [13]);
}

/// (path, status, error code, parameter at fault)
const MISTAKES: [(&str, u16, &str, Option<&str>); 17] = [
    ("/logs?limt=1", 400, "unknown_parameter", Some("limt")),
    ("/logs?limit=x", 400, "invalid_parameter", Some("limit")),
    (
        "/logs?limit=1000000",
        400,
        "invalid_parameter",
        Some("limit"),
    ),
    ("/logs?limit=all", 400, "invalid_parameter", Some("limit")),
    ("/logs?order=up", 400, "invalid_parameter", Some("order")),
    ("/logs?cursor=!", 400, "invalid_parameter", Some("cursor")),
    ("/logs?format=xml", 400, "invalid_parameter", Some("format")),
    ("/logs?q=(a", 400, "invalid_query", Some("q")),
    (
        "/logs?start=yesterdayish",
        400,
        "invalid_time",
        Some("start"),
    ),
    (
        "/logs?start=2025-03-21&end=2025-03-20",
        400,
        "invalid_range",
        Some("end"),
    ),
    (
        "/logs/histogram?interval=1y",
        400,
        "invalid_interval",
        Some("interval"),
    ),
    (
        "/logs/histogram?interval=1ms&start=2025-01-01&end=2025-02-01",
        400,
        "too_many_buckets",
        Some("interval"),
    ),
    (
        "/logs/stats?agg=middle(x)",
        400,
        "invalid_parameter",
        Some("agg"),
    ),
    ("/logs/unknown-id", 404, "record_not_found", None),
    (
        "/dead-letters?cursor=x",
        400,
        "invalid_parameter",
        Some("cursor"),
    ),
    ("/status?x=1", 400, "unknown_parameter", Some("x")),
    ("/log", 404, "path_not_found", None),
];

#[test]
fn mistakes_are_refused_with_a_code_a_place_and_advice() {
    let sandbox = Sandbox::new();
    let server = sandbox.start_with(&["--in-memory"], &[]);
    for (path, status, code, parameter) in MISTAKES {
        let answer = server.get(path);
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        let error = &answer.json()["error"];
        assert_eq!(error["code"], code, "{path}: {error}");
        assert_eq!(error["parameter"].as_str(), parameter, "{path}: {error}");
        assert!(
            error["message"]
                .as_str()
                .is_some_and(|message| 10 < message.len()),
            "{path}: {error}"
        );
    }
    let error = server.get("/logs?q=level:error%20AND%20(").json();
    assert!(error["error"]["position"].is_number(), "{error}");
    let refused = server.request("PUT", "/logs", &[], b"");
    assert_eq!(
        (refused.status, refused.error_code().as_str()),
        (405, "method_not_allowed")
    );
    assert!(
        refused
            .header("allow")
            .is_some_and(|allow| allow.contains("GET") && allow.contains("POST"))
    );
    let foreign = server.request("POST", "/logs", &[("origin", "https://evil.example")], b"x");
    assert_eq!(
        (foreign.status, foreign.error_code().as_str()),
        (403, "cross_site_request")
    );
}

#[test]
fn the_server_tells_how_it_is() {
    let sandbox = Sandbox::new();
    let server = sandbox.start();
    server.ingest(numbered(10));
    let status = server.get_json("/status");
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["queue"]["durability"], "fsync");
    assert_eq!(status["store"]["records"], 10);
    assert_eq!(status["indexer"]["lag_entries"], 0);
    assert_eq!(status["degraded"], json!([]));
    assert_eq!(server.get("/healthz").status, 200);
    assert_eq!(server.get("/readyz").status, 200);
    let metrics = server.get("/metrics").text();
    for line in [
        "logyard_intake_lines_total{outcome=\"accepted\"} 10",
        "logyard_store_records 10",
        "logyard_indexer_lag_entries 0",
    ] {
        assert!(
            metrics.lines().any(|l| l == line),
            "{line} is not in\n{metrics}"
        );
    }
    assert!(
        metrics.contains(
            "logyard_http_requests_total{route=\"/logs\",method=\"POST\",status=\"201\"} 1"
        ),
        "{metrics}"
    );
    assert_eq!(
        server.get_json("/openapi.json")["info"]["version"],
        env!("CARGO_PKG_VERSION")
    );
    let head = server.request("HEAD", "/logs", &[], b"");
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert!(
        head.header("content-length")
            .is_some_and(|length| length != "0")
    );
}

#[test]
fn an_in_memory_server_answers_and_leaves_nothing_behind() {
    let sandbox = Sandbox::new();
    let server = sandbox.start_with(&["--in-memory"], &[]);
    assert_eq!(server.ingest(numbered(100))["durability"], "memory");
    assert_eq!(total(&server, "level=error"), 33);
    assert!(server.get_json("/status")["data_dir"].is_null());
    server.stop();
    assert_eq!(std::fs::read_dir(sandbox.path()).unwrap().count(), 0);
}

#[test]
fn sigterm_under_load_loses_nothing_that_was_acknowledged() {
    let sandbox = Sandbox::new();
    let mut server = sandbox.start();
    let is_over = AtomicBool::new(false);
    let mut acknowledged = 0;
    let mut unknown = 0;
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let (server, is_over) = (&server, &is_over);
                scope.spawn(move || {
                    let (mut acknowledged, mut unknown) = (0, 0);
                    for round in 0.. {
                        if is_over.load(Ordering::Relaxed) {
                            break;
                        }
                        let body: String = (0..20)
                            .map(|n| format!("{{\"id_of_line\":\"{writer}-{round}-{n}\"}}\n"))
                            .collect();
                        match server.try_request("POST", "/logs", &[], body.as_bytes()) {
                            Ok(answer) if answer.status == 201 => acknowledged += 20,
                            Ok(answer) => assert_eq!(answer.status, 503, "{}", answer.text()),
                            // Refused, or cut before the answer: the lines may be stored or not.
                            Err(_) => {
                                unknown += 20;
                                break;
                            }
                        }
                    }
                    (acknowledged, unknown)
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(1500));
        server.signal("TERM");
        std::thread::sleep(Duration::from_millis(500));
        is_over.store(true, Ordering::Relaxed);
        for writer in writers {
            let (a, u) = writer.join().unwrap();
            acknowledged += a;
            unknown += u;
        }
    });
    let status = server.wait();
    assert!(status.success(), "{status}");
    drop(server);
    assert!(0 < acknowledged);
    let server = sandbox.start();
    eventually("everything is searchable", || {
        server.get_json("/status")["indexer"]["lag_entries"] == 0
    });
    let stored = total(&server, "");
    assert!(
        acknowledged <= stored && stored <= acknowledged + unknown,
        "{acknowledged} acknowledged, {unknown} unknown, {stored} stored"
    );
    let distinct = server.get_json("/logs/stats?agg=distinct(id_of_line)")["groups"][0]["distinct(id_of_line)"].as_u64().unwrap();
    assert!(
        stored.abs_diff(distinct) * 50 <= stored,
        "{distinct} different lines of {stored}"
    );
}
