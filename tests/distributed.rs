//! Kafka, Elasticsearch and Redis together, through processes of every role: the same logs are answered as by the embedded server, whatever happens to
//! a process or a server meanwhile. The real binary, checked through its public API alone.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a broken expectation should stop the test; what was measured is shown"
)]

mod sandbox;
#[path = "sandbox/installation.rs"]
mod installation;
#[path = "sandbox/ledger.rs"]
mod ledger;
#[path = "sandbox/stack.rs"]
mod stack;

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufReader;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use installation::Installation;
use ledger::{Fate, Ledger, Load};
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use sandbox::{Answer, PATIENCE, Sandbox, Server, eventually, read_chunk, read_head, real_logs};
use serde_json::{Value, json};
use stack::Stack;

fn total(server: &Server, query: &str) -> u64 {
    let answer = server.get_json(&format!("/logs?limit=0&{query}"));
    assert_eq!(answer["partial"], false, "{answer}");
    assert_eq!(answer["total"]["relation"], "eq", "{answer}");
    answer["total"]["value"].as_u64().unwrap()
}

fn encoded(text: &str) -> String {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    text.bytes()
        .map(|byte| match is_plain(&byte) {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02X}"),
        })
        .collect()
}

// ---- the same as the embedded server ----

/// Bodies with their source. Text lines get a time of their own, since the time of arrival differs from server to server.
fn real_bodies() -> Vec<(&'static str, Vec<u8>)> {
    let mut bodies = Vec::new();
    let files = [
        ("windows", "windows-security.ndjson.zst", 2_000),
        ("zeek", "zeek.ndjson.zst", 3_000),
        ("nginx", "nginx-plus.ndjson.zst", 300),
        ("apache", "apache-access.log.zst", 2_000),
        ("kafka", "kafka-broker.log.zst", 2_000),
    ];
    for (source, file, lines_max) in files {
        let Some(bytes) = real_logs(file) else {
            continue;
        };
        let is_json = file.contains("ndjson");
        let lines: Vec<Vec<u8>> = bytes
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .take(lines_max)
            .enumerate()
            .map(|(n, line)| match is_json {
                true => line.to_vec(),
                false => timed(n, &String::from_utf8_lossy(line)).into_bytes(),
            })
            .collect();
        // Several of each file, of the excerpts in `tests/data` too.
        let body_lines = lines.len().div_ceil(4).clamp(1, 250);
        for part in lines.chunks(body_lines) {
            bodies.push((source, part.join(&b'\n')));
        }
    }
    assert!(5 < bodies.len());
    bodies
}

fn timed(n: usize, line: &str) -> String {
    let level = ["ERROR", "WARN", "INFO"]
        .into_iter()
        .find(|level| line.contains(level));
    let timestamp = format!(
        "2016-12-19T{:02}:{:02}:{:02}.{:03}Z",
        n / 360 % 24,
        n / 6 % 60,
        n % 6 * 10,
        n % 1000
    );
    json!({"timestamp": timestamp, "level": level, "message": line}).to_string()
}

/// The questions of `tests/scenarios/real.ndjson` as paths, and some more.
fn questions() -> Vec<String> {
    let text = include_str!("scenarios/real.ndjson");
    let mut paths: BTreeSet<String> = text
        .lines()
        .filter_map(|line| path_of(&serde_json::from_str(line).unwrap()))
        .collect();
    let more = [
        "/logs/histogram?interval=10m&by=level&start=2016-12-19T00:00:00Z&end=2016-12-20T00:00:00Z",
        "/logs/histogram?interval=1h&by=_path&start=2018-03-24T00:00:00Z&end=2018-03-25T00:00:00Z",
        "/logs/histogram?interval=1d&start=2020-09-01T00:00:00Z&end=2020-10-01T00:00:00Z&source=windows",
        "/logs/fields?top=10&source=apache,kafka",
        "/logs/fields?top=3&fields=level,source,EventID",
        "/logs/stats?by=level,source&agg=count,distinct(message)&sort=-count&limit=100",
        "/logs/stats?by=time(6h),level&agg=count&source=kafka",
        "/logs?level=error&limit=500",
        "/logs?source=kafka&q=partition&order=asc&limit=300",
        "/logs?q=broken%20(&limit=5",
        "/logs?q=message%3Atime*out&fields=message",
    ];
    paths.extend(more.map(str::to_owned));
    paths.into_iter().collect()
}

fn path_of(question: &Value) -> Option<String> {
    let q = encoded(question["q"].as_str().unwrap_or_default());
    let joined = |name: &str| {
        let items = question[name].as_array().unwrap().iter();
        let items: Vec<_> = items.map(|item| item.as_str().unwrap()).collect();
        encoded(&items.join(","))
    };
    Some(match question["ask"].as_str().unwrap() {
        "search" => format!("/logs?q={q}&limit=200"),
        // Days instead of hours: the logs span years.
        "histogram" => match question["by"].as_str() {
            Some(by) => format!("/logs/histogram?q={q}&interval=1d&top=5&by={}", encoded(by)),
            None => format!("/logs/histogram?q={q}&interval=1d"),
        },
        "fields" => format!("/logs/fields?q={q}&top={}", question["top"]),
        "stats" => {
            let by = match question["by"].as_array().unwrap().is_empty() {
                true => String::new(),
                false => format!("&by={}", joined("by")),
            };
            let (agg, sort) = (joined("agg"), joined("sort"));
            format!("/logs/stats?q={q}{by}&agg={agg}&sort={sort}&limit=20")
        }
        _ => return None,
    })
}

/// Without what depends on the position or the moment. Of a cut-off page, records of its last instant depend on positions.
fn plain(answer: &Answer) -> (u16, Value) {
    let mut json = answer.json();
    let object = json.as_object_mut().unwrap();
    object.remove("took_ms");
    let is_cut = object
        .remove("next_cursor")
        .is_some_and(|next| !next.is_null());
    if let Some(Value::Array(records)) = object.get_mut("logs") {
        let times: Vec<Value> = records.iter().map(|r| r["timestamp"].clone()).collect();
        let last = times.last().cloned().filter(|_| is_cut);
        records.retain(|record| last.as_ref() != Some(&record["timestamp"]));
        sort_by_content(records);
        object.insert("times".to_owned(), Value::Array(times));
    }
    (answer.status, json)
}

fn sort_by_content(records: &mut [Value]) {
    for record in &mut *records {
        record.as_object_mut().unwrap().remove("id");
    }
    // A map of `serde_json` is sorted by name.
    records.sort_by_cached_key(Value::to_string);
}

/// The first place where two answers differ.
fn difference(path: &str, a: &Value, b: &Value) -> Option<String> {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let names: BTreeSet<_> = a.keys().chain(b.keys()).collect();
            names.into_iter().find_map(|name| {
                let of = |map: &serde_json::Map<String, Value>| map.get(name).cloned();
                match (of(a), of(b)) {
                    (Some(a), Some(b)) => difference(&format!("{path}/{name}"), &a, &b),
                    (a, b) => Some(format!("{path}/{name}: {a:?} instead of {b:?}")),
                }
            })
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            let pairs = a.iter().zip(b).enumerate();
            pairs
                .into_iter()
                .find_map(|(n, (a, b))| difference(&format!("{path}/{n}"), a, b))
        }
        (Value::Number(a), Value::Number(b)) if a.is_f64() || b.is_f64() => {
            let (x, y) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            let is_same = (x - y).abs() <= 1e-9 * x.abs().max(y.abs());
            (!is_same).then(|| format!("{path}: {a} instead of {b}"))
        }
        _ => (a != b).then(|| format!("{path}: {a} instead of {b}")),
    }
}

/// Follows the cursor to the end.
fn all_pages(server: &Server, query: &str) -> Vec<Value> {
    let mut all = Vec::new();
    let mut ids = BTreeSet::new();
    let mut cursor = String::new();
    loop {
        let answer = server.get_json(&format!("/logs?limit=700&{query}{cursor}"));
        for record in answer["logs"].as_array().unwrap() {
            assert!(ids.insert(record["id"].as_str().unwrap().to_owned()));
            all.push(record.clone());
        }
        match answer["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    let times = all.iter().map(|record| record["timestamp"].to_string());
    // Of one length but for the fraction, so that texts sort as times do when it is cut.
    let seconds: Vec<String> = times.map(|time| time[..20].to_owned()).collect();
    assert!(seconds.is_sorted_by(|a, b| a >= b), "newest first");
    all
}

/// The neighbours of one line: the same source is in one partition, so that not even equal times may differ in order.
fn context(server: &Server, query: &str, n: usize) -> Value {
    let found = server.get_json(&format!("/logs?{query}&order=asc&limit={}", n + 1));
    let id = found["logs"][n]["id"].as_str().unwrap().to_owned();
    let mut context = server.get_json(&format!("/logs/{id}/context?before=7&after=7"));
    let record = server.get_json(&format!("/logs/{id}"));
    assert_eq!(context["log"], record);
    context.as_object_mut().unwrap().remove("took_ms");
    for name in ["before", "after"] {
        for record in context[name].as_array_mut().unwrap() {
            record.as_object_mut().unwrap().remove("id");
        }
    }
    context["log"].as_object_mut().unwrap().remove("id");
    context
}

fn compare(api: &Server, embedded: &Server) {
    let mut found = Vec::new();
    for question in questions() {
        let (answer, expected) = (api.get(&question), embedded.get(&question));
        let ((status, a), (expected_status, b)) = (plain(&answer), plain(&expected));
        if status != expected_status {
            found.push(format!(
                "{question}: {status} instead of {expected_status}: {}",
                &answer.text()[..answer.text().len().min(500)]
            ));
        } else if let Some(what) = difference("", &a, &b) {
            found.push(format!("{question}: {what}"));
        }
    }
    for query in ["", "q=NOT%20EventID:*", "q=200"] {
        let [mut a, mut b] = [api, embedded].map(|server| all_pages(server, query));
        assert_eq!(a.len(), b.len(), "{query}");
        sort_by_content(&mut a);
        sort_by_content(&mut b);
        let what = difference("", &Value::Array(a), &Value::Array(b));
        found.extend(what.map(|what| format!("pages of `{query}`: {what}")));
    }
    for (query, n) in [
        ("source=kafka", 3),
        ("source=windows", 100),
        ("source=apache", 100),
    ] {
        let [a, b] = [api, embedded].map(|server| context(server, query, n));
        let what = difference("", &a, &b);
        found.extend(what.map(|what| format!("context of {query}: {what}")));
    }
    assert!(
        found.is_empty(),
        "{} differ:\n{}",
        found.len(),
        found.join("\n")
    );
}

fn letters(server: &Server, query: &str) -> Vec<Value> {
    let answer = server.get_json(&format!("/dead-letters?{query}"));
    let mut letters = answer["dead_letters"].as_array().unwrap().clone();
    assert_eq!(answer["total"]["value"], letters.len());
    for letter in &mut letters {
        letter.as_object_mut().unwrap().remove("timestamp");
    }
    letters
}

fn dead_letters_are_the_same(apis: [&Server; 2], embedded: &Server) {
    let body = "{\"n\":1,\"message\":\"whole\"}\n{\"n\":2} trailing one\n{\"n\":3} trailing two\n";
    for server in [apis[0], embedded] {
        let answer = server.post("/logs?source=broken", body).json();
        assert_eq!(
            (&answer["accepted"], &answer["dead_lettered"]),
            (&json!(3), &json!(2)),
            "{answer}"
        );
    }
    for server in [apis[0], apis[1], embedded] {
        // They go through topics of their own: either may be indexed first.
        eventually("the records and the letters are there", || {
            total(server, "source=broken") == 3 && letters(server, "").len() == 2
        });
    }
    for query in ["", "q=two", "q=nothing-like-it"] {
        let [mut a, mut b] = [apis[1], embedded].map(|server| letters(server, query));
        sort_by_content(&mut a);
        sort_by_content(&mut b);
        assert_eq!(a, b, "{query}");
    }
    let before = total(apis[0], "");
    for server in [apis[1], embedded] {
        let replay = json!({"q": "two", "as": "text"}).to_string();
        let answer = server.post("/dead-letters/replay", replay).json();
        assert_eq!(answer["replayed"], 1, "{answer}");
    }
    for server in [apis[0], embedded] {
        eventually("the replayed line is found", || {
            total(server, "q=%22trailing+two%22") == 1 && letters(server, "").len() == 1
        });
        let found = server.get_json("/logs?q=%22trailing+two%22")["logs"][0].clone();
        assert_eq!(found["source"], "broken", "{found}");
    }
    assert_eq!(total(apis[0], ""), before + 1);
}

/// Reads server-sent events until `count` records came.
fn tail(server: &Server, path: &str) -> impl FnMut(usize) -> Vec<Value> + use<> {
    let stream = server.open("GET", path, &[], b"").unwrap();
    let mut reader = BufReader::new(stream);
    assert_eq!(read_head(&mut reader).unwrap().0, 200);
    let mut text = String::new();
    move |count| {
        loop {
            let data = text
                .split_inclusive("\n\n")
                .filter(|event| event.ends_with("\n\n"));
            let data = data.filter_map(|event| {
                let line = event.lines().find_map(|line| line.strip_prefix("data:"));
                line.map(|line| serde_json::from_str::<Value>(line.trim()).unwrap())
            });
            let records: Vec<Value> = data.filter(|data| data.get("message").is_some()).collect();
            if count <= records.len() {
                return records;
            }
            let chunk = read_chunk(&mut reader).unwrap().expect("the tail ended");
            text.push_str(&String::from_utf8(chunk).unwrap());
        }
    }
}

fn a_tail_sees_what_the_other_took(here: &Server, there: &Server) {
    let mut read = tail(here, "/logs/tail?q=message:tailed&backfill=0");
    // The tail begins where the queue ends once it is there: what it shows first proves that it is.
    let mut sent = 0;
    for n in 0..40 {
        let line =
            json!({"source": format!("t{}", n % 7), "message": format!("tailed {n}"), "n": n});
        assert_eq!(there.post("/logs", line.to_string()).status, 201);
        sent += 1;
    }
    let seen: Vec<u64> = read(sent)
        .iter()
        .map(|record| record["n"].as_u64().unwrap())
        .collect();
    let expected: BTreeSet<u64> = (0..40).collect();
    assert_eq!(seen.iter().copied().collect::<BTreeSet<_>>(), expected);
    assert_eq!(seen.len(), 40, "once each");
}

fn answers_are_shared_and_never_stale(apis: [&Server; 2]) {
    let line = |n: u64| {
        json!({"timestamp": "2014-07-01T12:00:00Z", "source": "cached", "message": "cached line", "n": n})
            .to_string()
    };
    apis[0].ingest(line(0));
    let path = "/logs?source=cached&start=2014-07-01T00:00:00Z&end=2014-07-02T00:00:00Z";
    let cache = |answer: &Answer| answer.header("x-cache").unwrap().to_owned();
    for n in 1..6 {
        // The other process sees it within the poll.
        eventually("api 2 knows the line", || {
            apis[1].get_json(path)["total"]["value"] == n
        });
        // Each asks what only the other has asked before. On a busy machine a call of Redis may miss its budget now and then.
        for (asks, follows) in [(0, 1), (1, 0)] {
            let mut round = 0;
            eventually("the other's answer is a hit", || {
                round += 1;
                let path = format!("{path}&q=n:%3E%3D0+-x:{n}{asks}{round}");
                let first = apis[asks].get(&path);
                let second = apis[follows].get(&path);
                assert_eq!(plain(&first), plain(&second));
                assert_eq!(first.json()["total"]["value"], n);
                cache(&first) == "miss" && cache(&second) == "hit"
            });
        }
        let hit = apis[0].get(path);
        assert_eq!(hit.json()["total"]["value"], n);
        apis[0].ingest(line(n));
        assert_eq!(
            apis[0].get_json(path)["total"]["value"],
            n + 1,
            "read your own write"
        );
        let bypass = apis[1].request("GET", path, &[("cache-control", "no-cache")], b"");
        assert_eq!(cache(&bypass), "bypass");
    }
}

#[test]
#[ignore = "needs real servers: scripts/dev-stack up, then scripts/test"]
fn two_apis_and_two_indexers_answer_as_the_embedded_server() {
    let installation = Installation::new();
    let indexers = [(); 2].map(|()| installation.start("indexer"));
    let cleaner = installation.start("cleaner");
    let apis = [(); 2].map(|()| installation.start("api"));
    let sandbox = Sandbox::new();
    let embedded = sandbox.start();
    let mut sent = 0;
    for (n, (source, body)) in real_bodies().iter().enumerate() {
        let path = format!("/logs?source={source}");
        let key = format!("body-{n}");
        let headers: &[(&str, &str)] = match n % 3 {
            0 => &[("idempotency-key", &key)],
            _ => &[],
        };
        let answer = apis[n % 2].request("POST", &path, headers, body);
        assert_eq!(answer.status, 201, "{}", answer.text());
        let answer = answer.json();
        assert_eq!(answer["dead_lettered"], 0, "{answer}");
        sent += answer["accepted"].as_u64().unwrap();
        if n % 3 == 0 {
            // The retry goes to the other process.
            let again = apis[(n + 1) % 2].request("POST", &path, headers, body);
            assert_eq!(again.status, 201, "{}", again.text());
            let again = again.json();
            assert_eq!(again["replayed"], true, "{again}");
            assert_eq!(again["accepted"], answer["accepted"]);
        }
        let copy = embedded.request("POST", &path, &[], body);
        assert_eq!(copy.json()["accepted"], answer["accepted"]);
    }
    for server in [&apis[0], &apis[1], &embedded] {
        eventually("everything is indexed", || sent <= total(server, ""));
        assert_eq!(total(server, ""), sent);
    }
    compare(&apis[0], &embedded);
    // The second api answers from what the first one asked.
    compare(&apis[1], &embedded);
    let [first, second] = [&apis[0], &apis[1]];
    dead_letters_are_the_same([first, second], &embedded);
    a_tail_sees_what_the_other_took(first, second);
    answers_are_shared_and_never_stale([first, second]);
    for server in indexers.iter().chain([&cleaner]) {
        assert_eq!(server.get("/readyz").status, 200);
        assert_eq!(server.get("/logs").status, 404, "not its role");
    }
    // Both have worked.
    for indexer in &indexers {
        let metrics = indexer.get("/metrics").text();
        let indexed = metrics
            .lines()
            .find_map(|line| line.strip_prefix("logyard_indexer_entries_total "))
            .unwrap();
        assert!(0 < indexed.parse::<u64>().unwrap(), "{metrics}");
    }
    for server in indexers.into_iter().chain(apis).chain([cleaner, embedded]) {
        server.stop();
    }
}

// ---- faults ----

/// What processes may say while a server is away.
const EXPECTED: &[&str] = &[
    "Kafka does not answer",
    "reading from Kafka broke off",
    "reading idempotency keys broke off",
    "the store does not take batches",
    "the queue cannot forget what is indexed yet",
];

/// Stacks of a test's own need memory: one at a time.
static ONE_STACK: Mutex<()> = Mutex::new(());

const N_FIXED: u64 = 300;

/// Asks the apis again and again: a closed set of lines must be answered right, or the question refused with a reason; no line is ever seen twice.
struct Watch {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Seen {
    right: u64,
    partial: u64,
    unconnected: u64,
    refused: BTreeMap<String, u64>,
    wrong: Vec<String>,
    longest: Duration,
}

impl Watch {
    fn start(ledger: &Arc<Ledger>, targets: &Arc<Mutex<Vec<SocketAddr>>>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Mutex::new(Seen::default()));
        let threads = (0..2)
            .map(|n: usize| {
                let (stop, seen) = (Arc::clone(&stop), Arc::clone(&seen));
                let (ledger, targets) = (Arc::clone(ledger), Arc::clone(targets));
                std::thread::spawn(move || {
                    let mut round = 0;
                    while !stop.load(Ordering::SeqCst) {
                        round += 1;
                        let address = targets.lock().unwrap()[n];
                        ask(address, round, &ledger, &seen);
                        std::thread::sleep(Duration::from_millis(100));
                    }
                })
            })
            .collect();
        Self {
            stop,
            seen,
            threads,
        }
    }

    /// What was seen since the last time; nothing of it may be wrong.
    fn take(&self, what: &str) -> Seen {
        let seen = std::mem::take(&mut *self.seen.lock().unwrap());
        eprintln!("{what}: {seen:?}");
        assert!(seen.wrong.is_empty(), "{what}: {:?}", seen.wrong);
        seen
    }

    /// On a busy machine an answer takes its time.
    fn wait_for_answers(&self) {
        let n_answers = || {
            let seen = self.seen.lock().unwrap();
            seen.right + seen.partial + seen.refused.values().sum::<u64>()
        };
        let enough = n_answers() + 6;
        eventually("questions are answered", || enough <= n_answers());
    }

    fn end(self) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads {
            thread.join().unwrap();
        }
    }
}

fn ask(address: SocketAddr, round: usize, ledger: &Ledger, seen: &Mutex<Seen>) {
    let path = match round % 4 {
        0 => "/logs?source=fixed&limit=3",
        1 => {
            "/logs/histogram?source=fixed&interval=1h&start=2025-03-20T00:00:00Z&end=2025-03-21T00:00:00Z"
        }
        2 => "/logs/stats?source=fixed&agg=count,distinct(n),sum(n)",
        _ => "/logs/stats?source=crash-3&agg=count,distinct(uid)",
    };
    let headers: &[(&str, &str)] = match round % 3 {
        0 => &[("cache-control", "no-cache")],
        _ => &[],
    };
    let started = Instant::now();
    let answer = sandbox::request(address, "GET", path, headers, b"");
    let at_most = ledger.n_lines_at_most();
    let mut seen = seen.lock().unwrap();
    seen.longest = seen.longest.max(started.elapsed());
    let Ok(answer) = answer else {
        seen.unconnected += 1;
        return;
    };
    if answer.status == 503 {
        assert!(!answer.json()["error"]["message"].to_string().is_empty());
        *seen.refused.entry(answer.error_code()).or_default() += 1;
        return;
    }
    let json = answer.json();
    if json["partial"] == true {
        seen.partial += 1;
        return;
    }
    let group = &json["groups"][0];
    let is_right = answer.status == 200
        && match round % 4 {
            0 => json["total"] == json!({"value": N_FIXED, "relation": "eq"}),
            1 => json["total"] == N_FIXED,
            2 => {
                let sum = N_FIXED * (N_FIXED - 1) / 2;
                let figures = [
                    ("count", N_FIXED),
                    ("distinct(n)", N_FIXED),
                    ("sum(n)", sum),
                ];
                figures.iter().all(|(name, value)| group[*name] == *value)
            }
            // None has been indexed yet, or each is there once, and none that nobody sent.
            _ => {
                let count = group["count"].as_u64().unwrap_or_default();
                let distinct = group["distinct(uid)"].as_u64().unwrap_or_default();
                count <= at_most && (count == distinct || json["approximate"] != json!([]))
            }
        };
    match is_right {
        true => seen.right += 1,
        false => seen
            .wrong
            .push(format!("{path}: {} {}", answer.status, answer.text())),
    }
}

fn fixed_lines() -> String {
    let line = |n: u64| {
        json!({"timestamp": format!("2025-03-20T{:02}:00:00Z", n % 24), "source": "fixed", "message": "fixed", "n": n})
            .to_string()
            + "\n"
    };
    (0..N_FIXED).map(line).collect()
}

/// Processes of an installation under load, watched.
struct Trial {
    apis: Vec<Server>,
    indexers: Vec<Server>,
    targets: Arc<Mutex<Vec<SocketAddr>>>,
    ledger: Arc<Ledger>,
    load: Option<Load>,
    watch: Option<Watch>,
    /// The last to go.
    installation: Installation,
}

impl Trial {
    fn start(installation: Installation) -> Self {
        let start = |roles: &str| start_expecting(&installation, roles);
        let indexers = vec![start("indexer"), start("indexer")];
        let apis = vec![start("api"), start("api")];
        let targets = apis.iter().map(|api| api.address).collect();
        let ledger = Arc::new(Ledger::of_partitions());
        eventually("the fixed lines are indexed", || {
            let headers = [("idempotency-key", "fixed")];
            let path = "/logs?wait_for=indexed";
            let answer = apis[0].request("POST", path, &headers, fixed_lines().as_bytes());
            apis.iter()
                .all(|api| answer.status == 201 && total(api, "source=fixed") == N_FIXED)
        });
        let targets = Arc::new(Mutex::new(targets));
        Self {
            load: Some(Load::steady(&ledger, &targets, Duration::from_millis(300))),
            watch: Some(Watch::start(&ledger, &targets)),
            installation,
            apis,
            indexers,
            targets,
            ledger,
        }
    }

    fn watch(&self) -> &Watch {
        self.watch.as_ref().unwrap()
    }

    /// Without a hand: ready, and a line is taken and found through each api.
    fn wait_until_it_goes_on(&self, what: &str) -> Duration {
        let started = Instant::now();
        for (api, server) in self.apis.iter().enumerate() {
            eventually(&format!("{what}: lines are taken and found"), || {
                let line = json!({"source": format!("goes-on-{api}"), "message": what});
                let answer = server.post("/logs?wait_for=indexed", line.to_string());
                answer.status == 201
                    && answer.json()["indexed"] == true
                    && server.get("/readyz").status == 200
                    && server.get("/logs?source=fixed&limit=0").status == 200
            });
        }
        for indexer in &self.indexers {
            eventually(&format!("{what}: the indexer is ready"), || {
                indexer.get("/readyz").status == 200
            });
        }
        let took = started.elapsed();
        self.watch().take(what);
        // Now everything is right again, and nothing is refused.
        std::thread::sleep(Duration::from_millis(1_500));
        self.watch().wait_for_answers();
        let seen = self.watch().take("after it");
        assert!(
            0 < seen.right && seen.refused.is_empty(),
            "{what}: {seen:?}"
        );
        eprintln!("{what}: goes on after {took:?}");
        took
    }

    /// Ends the load and compares the ledger with what is stored.
    fn end(mut self) {
        self.load.take().unwrap().end();
        self.watch.take().unwrap().end();
        self.ledger.repeat_all(self.apis[0].address);
        for api in &self.apis {
            self.ledger.check(api);
        }
        let [acknowledged, unknown, refused] = [Fate::Acknowledged, Fate::Unknown, Fate::Refused]
            .map(|fate| self.ledger.n_lines(fate));
        eprintln!(
            "{acknowledged} lines acknowledged, {unknown} without an answer, {refused} refused; {:?} {:?}",
            self.ledger.statuses, self.ledger.codes
        );
        assert!(1_000 < acknowledged);
        let statuses = self.ledger.statuses.lock().unwrap().clone();
        assert!(
            statuses.keys().all(|status| [201, 503].contains(status)),
            "{statuses:?}"
        );
        for server in self.apis.into_iter().chain(self.indexers) {
            server.stop();
        }
    }
}

fn start_expecting(installation: &Installation, roles: &str) -> Server {
    let mut server = installation.start(roles);
    for text in EXPECTED {
        server.expect_log(text);
    }
    server
}

#[test]
#[ignore = "needs real servers: scripts/dev-stack up, then scripts/test"]
fn every_process_and_server_is_killed_in_the_middle_and_nothing_is_lost_or_doubled() {
    let _one = ONE_STACK.lock().unwrap_or_else(|e| e.into_inner());
    let stack = Stack::whole();
    let installation = Installation::on_stack(&stack);
    installation.set("QUEUE__KAFKA_MESSAGE_TIMEOUT_MS", "2000");
    installation.set("INDEXER__RETRY_MAX_MS", "2000");
    let mut trial = Trial::start(installation);
    let pause = || std::thread::sleep(Duration::from_secs(2));
    pause();
    trial.watch().take("before");

    trial.indexers.remove(0).kill();
    pause();
    let indexer = start_expecting(&trial.installation, "indexer");
    trial.indexers.push(indexer);
    trial.wait_until_it_goes_on("an indexer was killed");

    trial.apis.remove(1).kill();
    pause();
    let api = start_expecting(&trial.installation, "api");
    trial.targets.lock().unwrap()[1] = api.address;
    trial.apis.push(api);
    trial.wait_until_it_goes_on("an api was killed");

    for server in ["redis", "search", "kafka-1"] {
        stack.script(&["stop", server, "-9"]);
        pause();
        pause();
        trial.watch().wait_for_answers();
        let seen = trial.watch().take(&format!("{server} is away"));
        assert_eq!(seen.unconnected, 0);
        match server {
            // Without Redis nothing is refused, and with Kafka away questions go on.
            "redis" | "kafka-1" => assert!(0 < seen.right && seen.refused.is_empty()),
            _ => assert!(!seen.refused.is_empty()),
        }
        stack.script(&["start", server]);
        trial.wait_until_it_goes_on(&format!("{server} was killed"));
    }
    trial.end();
}

#[test]
#[ignore = "needs real servers: scripts/dev-stack up, then scripts/test"]
fn one_of_three_brokers_is_killed_in_the_middle_and_everything_goes_on() {
    let _one = ONE_STACK.lock().unwrap_or_else(|e| e.into_inner());
    let stack = Stack::up(&["--only", "kafka", "--brokers", "3"]);
    let trial = Trial::start(Installation::on_stack(&stack));
    let degraded = trial.apis[0].get_json("/status")["degraded"].to_string();
    assert!(!degraded.contains("Kafka"), "{degraded}");
    let pause = || std::thread::sleep(Duration::from_secs(3));
    pause();
    trial.watch().take("before");
    let acknowledged = || trial.ledger.n_lines(Fate::Acknowledged);
    stack.script(&["stop", "kafka-2", "-9"]);
    let before = acknowledged() + 200;
    // Every replica in sync must have a line, so lines wait until Kafka has noticed that one of them is gone: nine seconds.
    let killed = Instant::now();
    eventually("lines are taken", || before < acknowledged());
    eprintln!("lines are taken again after {:?}", killed.elapsed());
    let seen = trial.watch().take("a broker is away");
    assert!(0 < seen.right && seen.refused.is_empty() && seen.unconnected == 0);
    trial.wait_until_it_goes_on("one of three brokers was killed");
    stack.script(&["start", "kafka-2"]);
    trial.wait_until_it_goes_on("the broker is back");
    trial.end();
}

// ---- the cleaner ----

const DAY_MS: i64 = 86_400_000;

/// As another producer would have written them at that time.
fn produce(installation: &Installation, days_ago: i64, count: usize) -> String {
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    let then_ms = i64::try_from(now.as_millis()).unwrap() - days_ago * DAY_MS;
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &installation.brokers)
        .create()
        .unwrap();
    for n in 0..count {
        let payload =
            json!({"ts": then_ms, "source": format!("s{n}"), "message": "old", "age": days_ago});
        let payload = payload.to_string();
        let record = BaseRecord::<(), str>::to(&installation.name)
            .payload(&payload)
            .timestamp(then_ms);
        producer.send(record).unwrap();
    }
    producer.flush(PATIENCE).unwrap();
    let date = jiff::Timestamp::from_millisecond(then_ms).unwrap();
    date.strftime("%Y.%m.%d").to_string()
}

#[test]
#[ignore = "needs real servers: scripts/dev-stack up, then scripts/test"]
fn the_cleaner_drops_whole_days_by_age() {
    let installation = Installation::new();
    let api = installation.start("api");
    let indexer = installation.start("indexer");
    // Written and arrived long ago, not quite so long ago, and today.
    let ages = [(40, 50), (30, 70), (5, 20), (0, 10)];
    let days = ages.map(|(age, count)| produce(&installation, age, count));
    eventually("all are indexed", || total(&api, "") == 150);
    // A line of old time that arrived just now is no old line.
    let late = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(35 * 24);
    api.ingest(json!({"ts": late.to_string(), "source": "late", "message": "late"}).to_string());
    let late_day = late.strftime("%Y.%m.%d").to_string();
    let mut expected = Vec::from(days.clone());
    expected.push(late_day.clone());
    expected.sort();
    assert_eq!(installation.indices(), expected);

    let clean = |flags: &[&str]| {
        let arguments = [
            &["clean", "--age-max-days", "10", "--output", "json"],
            flags,
        ]
        .concat();
        let output = installation.run(&arguments);
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let report = clean(&["--dry-run"]);
    assert_eq!(report["records"], 120, "{report}");
    assert_eq!(installation.indices(), expected, "a dry run drops nothing");
    assert_eq!(total(&api, ""), 151);

    // Two cleaners, one of which works at a time.
    installation.set("RETENTION__AGE_MAX_DAYS", "10");
    installation.set("RETENTION__INTERVAL_MS", "1000");
    let cleaners = [(); 2].map(|()| installation.start("cleaner"));
    let mut left = vec![days[2].clone(), days[3].clone(), late_day];
    left.sort();
    eventually("the old days are gone", || installation.indices() == left);
    eventually("the api knows it", || total(&api, "") == 31);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(installation.indices(), left, "nothing else goes");
    assert_eq!(total(&api, "source=late"), 1);
    let dropped = cleaners.iter().map(|cleaner| {
        let metrics = cleaner.get("/metrics").text();
        let line = metrics
            .lines()
            .find_map(|line| line.strip_prefix("logyard_retention_dropped_records_total "));
        line.unwrap().parse::<u64>().unwrap()
    });
    assert_eq!(dropped.sum::<u64>(), 120, "each index once");
    assert_eq!(clean(&[])["records"], 0);
    // What is dropped does not come back when indexing goes on.
    api.ingest(json!({"source": "s1", "message": "new"}).to_string());
    assert_eq!(total(&api, ""), 32);
    assert_eq!(total(&api, "q=age:40"), 0);
    for server in cleaners.into_iter().chain([api, indexer]) {
        server.stop();
    }
}
