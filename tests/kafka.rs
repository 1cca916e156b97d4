//! Kafka as the queue, end to end through the real binary. Needs a real Kafka: `scripts/dev-stack up --only kafka`, then `scripts/test`.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a broken expectation should stop the test"
)]

mod sandbox;
#[path = "sandbox/stack.rs"]
mod stack;

use std::collections::BTreeMap;
use std::io::BufReader;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rdkafka::Message as _;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use sandbox::{PATIENCE, Sandbox, Server, eventually, read_chunk, read_head, real_logs};
use serde_json::{Value, json};
use stack::{Stack, delete_topics, dev};

/// Topics of one test, deleted at its end.
struct Topic {
    name: String,
    brokers: String,
}

impl Topic {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self {
            name: format!("logyard-e2e-{}-{number}", std::process::id()),
            brokers: dev("LOGYARD_DEV_KAFKA"),
        }
    }

    fn url(&self) -> String {
        format!("kafka://{}/{}", self.brokers, self.name)
    }

    fn start(&self, sandbox: &Sandbox) -> Server {
        let url = self.url();
        let group = format!("{}-group", self.name);
        let environment = [
            ("LOGYARD__QUEUE__KAFKA_GROUP", group.as_str()),
            ("LOGYARD__QUEUE__KAFKA_PARTITIONS", "3"),
            ("LOGYARD__QUEUE__KAFKA_MESSAGE_TIMEOUT_MS", "2000"),
        ];
        let mut server = sandbox.start_with(&["--queue", &url], &environment);
        // With one broker it says what Kafka does not promise.
        server.expect_log("has one replica");
        server
    }

    /// Every message: (topic, key, payload).
    fn messages(&self, suffix: &str) -> Vec<(Option<String>, Value)> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.brokers)
            .set("group.id", format!("{}-other", self.name))
            .set("auto.offset.reset", "earliest")
            .set("enable.partition.eof", "true")
            .set("enable.auto.commit", "false")
            .create()
            .unwrap();
        let name = format!("{}{suffix}", self.name);
        let metadata = consumer
            .fetch_metadata(Some(&name), Duration::from_secs(10))
            .unwrap();
        let mut list = rdkafka::TopicPartitionList::new();
        let n_partitions = metadata.topics()[0].partitions().len();
        for partition in 0..n_partitions {
            let partition = i32::try_from(partition).unwrap();
            list.add_partition_offset(&name, partition, rdkafka::Offset::Beginning)
                .unwrap();
        }
        consumer.assign(&list).unwrap();
        let mut found = Vec::new();
        let mut n_ended = 0;
        let deadline = Instant::now() + PATIENCE;
        while n_ended < n_partitions {
            assert!(Instant::now() < deadline);
            match consumer.poll(Duration::from_millis(200)) {
                Some(Ok(message)) => {
                    let key = message
                        .key()
                        .map(|key| String::from_utf8(key.to_vec()).unwrap());
                    let payload = serde_json::from_slice(message.payload().unwrap()).unwrap();
                    found.push((key, payload));
                }
                Some(Err(rdkafka::error::KafkaError::PartitionEOF(_))) => n_ended += 1,
                Some(Err(e)) => panic!("{e}"),
                None => {}
            }
        }
        found
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        let _ = delete_topics(&self.brokers, &self.name);
    }
}

fn total(server: &Server, query: &str) -> u64 {
    let answer = server.get_json(&format!("/logs?limit=0&{query}"));
    answer["total"]["value"].as_u64().unwrap()
}

fn real_lines() -> Vec<String> {
    let mut lines = Vec::new();
    for (file, count) in [
        ("apache-access.log.zst", 4_000),
        ("nginx-plus.ndjson.zst", 500),
        ("windows-security.ndjson.zst", 1_500),
    ] {
        let bytes = real_logs(file).unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        lines.extend(text.lines().take(count).map(str::to_owned));
    }
    assert!(300 < lines.len());
    lines
}

#[test]
#[ignore = "needs real servers: scripts/dev-stack up, then scripts/test"]
fn real_logs_are_found_once_though_the_server_is_killed_again_and_again() {
    let topic = Topic::new();
    let sandbox = Sandbox::new();
    let lines = real_lines();
    let chunks: Vec<_> = lines.chunks(lines.len() / 40).collect();
    let mut server = topic.start(&sandbox);
    for (number, chunk) in chunks.iter().enumerate() {
        let body = chunk.join("\n");
        let key = format!("chunk-{number}");
        let source = format!("/logs?source=s{}", number % 5);
        let headers = [("idempotency-key", key.as_str())];
        if number % 13 == 5 {
            // Cut off somewhere in the middle; what became of it is not known.
            let address = server.address;
            let (source, body, key) = (source.clone(), body.clone(), key.clone());
            let cut = std::thread::spawn(move || {
                let headers = [("idempotency-key", key.as_str())];
                sandbox::request(address, "POST", &source, &headers, body.as_bytes()).is_ok()
            });
            std::thread::sleep(Duration::from_millis(3 * number as u64));
            server.kill();
            cut.join().unwrap();
            server = topic.start(&sandbox);
        }
        // The retry of a request whose server died waits until its claim may be taken over.
        let deadline = Instant::now() + PATIENCE * 2;
        loop {
            let answer = server.request("POST", &source, &headers, body.as_bytes());
            if answer.status == 201 {
                let answer = answer.json();
                assert_eq!(answer["durability"], "kafka");
                let count = answer["accepted"].as_u64().unwrap()
                    + answer["dead_lettered"].as_u64().unwrap();
                assert_eq!(count, chunk.len() as u64, "{answer}");
                break;
            }
            assert_eq!(answer.status, 503, "{}", answer.text());
            assert!(answer.header("retry-after").is_some());
            assert!(Instant::now() < deadline, "{}", answer.text());
        }
    }
    let count = lines.len() as u64;
    eventually("everything is indexed", || total(&server, "") >= count);
    assert_eq!(total(&server, ""), count);
    // Any other consumer reads the topic as JSON, keyed by source.
    let messages = topic.messages("");
    assert_eq!(messages.len(), lines.len());
    for (key, message) in &messages {
        assert_eq!(message["source"].as_str(), key.as_deref());
    }
    server.stop();
    let server = topic.start(&sandbox);
    assert_eq!(total(&server, ""), count);
    server.stop();
}

#[test]
#[ignore = "needs real servers: scripts/dev-stack up, then scripts/test"]
fn records_come_back_as_they_were_sent_and_status_tells_of_kafka() {
    let topic = Topic::new();
    let sandbox = Sandbox::new();
    let server = topic.start(&sandbox);
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
    let status = server.get_json("/status");
    assert_eq!(status["queue"]["kind"], "kafka");
    assert_eq!(status["queue"]["durability"], "kafka");
    assert_eq!(status["ready"], true);
    eventually("no lag", || {
        server.get_json("/status")["indexer"]["lag_entries"] == 0
    });
    let metrics = server.get("/metrics").text();
    let lag = |partition: &str| {
        let line = format!("logyard_indexer_partition_lag_entries{{partition=\"{partition}\"}} 0");
        metrics.lines().any(|l| l == line)
    };
    assert!(lag("0") && lag("2") && lag("2147483648"), "{metrics}");
    assert_eq!(server.get("/readyz").status, 200);
    server.stop();
}

#[test]
#[ignore = "needs real servers: scripts/dev-stack up, then scripts/test"]
fn dead_letters_have_a_topic_of_their_own_and_are_replayed() {
    let topic = Topic::new();
    let sandbox = Sandbox::new();
    let server = topic.start(&sandbox);
    let answer = server.post(
        "/logs?wait_for=indexed&source=app",
        "{\"n\":1}\n{\"n\":2} trailing\n{\"n\":3}",
    );
    let answer = answer.json();
    assert_eq!(answer["dead_lettered"], 1, "{answer}");
    assert_eq!(answer["indexed"], true);
    let letters = topic.messages(".dead-letters");
    assert_eq!(letters.len(), 1);
    assert!(letters[0].1["raw"].as_str().unwrap().contains("trailing"));
    let listed = server.get_json("/dead-letters");
    let letter = &listed["dead_letters"]
        .as_array()
        .or(listed["letters"].as_array())
        .unwrap()[0];
    let id = letter["id"].as_str().unwrap().to_owned();
    assert!(id.starts_with("2147483648-"), "{id}");
    let before = total(&server, "");
    let replay = json!({"ids": [id], "as": "text"}).to_string();
    let replayed = server.post("/dead-letters/replay", replay).json();
    assert_eq!(replayed["replayed"], 1, "{replayed}");
    eventually("the replayed line is found", || {
        total(&server, "") == before + 1
    });
    assert_eq!(server.get_json("/dead-letters")["total"]["value"], 0);
    server.stop();
}

#[test]
#[ignore = "needs real servers: scripts/dev-stack up, then scripts/test"]
fn messages_of_other_producers_are_logs_too() {
    let topic = Topic::new();
    let sandbox = Sandbox::new();
    let server = topic.start(&sandbox);
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &topic.brokers)
        .create()
        .unwrap();
    for n in 0..100 {
        let payload = match n % 3 {
            0 => json!({"@timestamp": "2025-03-20T00:00:00Z", "severity": "error", "msg": "from elsewhere", "n": n}).to_string(),
            1 => format!("a text line from elsewhere {n}"),
            _ => format!("{{\"broken\": {n}"),
        };
        let record = BaseRecord::<(), str>::to(&topic.name).payload(&payload);
        producer.send(record).unwrap();
    }
    producer.flush(Duration::from_secs(10)).unwrap();
    eventually("they are indexed", || total(&server, "q=elsewhere") == 67);
    assert_eq!(total(&server, "level=error"), 34);
    eventually("broken ones are dead letters", || {
        server.get_json("/dead-letters")["total"]["value"] == 33
    });
    server.stop();
}

/// Reads server-sent events into (id, message).
struct Events {
    reader: BufReader<std::net::TcpStream>,
    text: String,
}

impl Events {
    fn open(server: &Server, path: &str, last_id: Option<&str>) -> Self {
        let headers: Vec<(&str, &str)> = last_id.iter().map(|id| ("last-event-id", *id)).collect();
        let stream = server.open("GET", path, &headers, b"").unwrap();
        let mut reader = BufReader::new(stream);
        assert_eq!(read_head(&mut reader).unwrap().0, 200);
        Self {
            reader,
            text: String::new(),
        }
    }

    fn next(&mut self) -> (String, Value) {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let event = event.to_owned();
                self.text = rest.to_owned();
                let line = |name: &str| {
                    let found = event.lines().find_map(|line| line.strip_prefix(name));
                    found.map(|text| text.trim().to_owned())
                };
                if let (Some(id), Some(data)) = (line("id:"), line("data:")) {
                    return (id, serde_json::from_str(&data).unwrap());
                }
                continue;
            }
            let chunk = read_chunk(&mut self.reader)
                .unwrap()
                .expect("the tail ended");
            self.text.push_str(&String::from_utf8(chunk).unwrap());
        }
    }
}

#[test]
#[ignore = "needs real servers: scripts/dev-stack up, then scripts/test"]
fn a_live_tail_sees_each_line_once_over_all_partitions_and_resumes() {
    let topic = Topic::new();
    let sandbox = Sandbox::new();
    let server = topic.start(&sandbox);
    let line =
        |n: usize| json!({"source": format!("s{}", n % 7), "message": "m", "n": n}).to_string();
    server.ingest(line(0));
    let mut tail = Events::open(&server, "/logs/tail?backfill=10", None);
    assert_eq!(tail.next().1["n"], 0);
    let mut seen = BTreeMap::new();
    let mut last_id = String::new();
    for n in 1..200 {
        server.post("/logs", line(n));
        if n == 150 {
            while seen.len() < 100 {
                let (id, event) = tail.next();
                *seen.entry(event["n"].as_u64().unwrap()).or_insert(0) += 1;
                last_id = id;
            }
            drop(tail);
            tail = Events::open(&server, "/logs/tail", Some(&last_id));
        }
    }
    while seen.len() < 199 {
        let (_, event) = tail.next();
        *seen.entry(event["n"].as_u64().unwrap()).or_insert(0) += 1;
    }
    assert!(seen.values().all(|count| *count == 1), "{seen:?}");
    server.stop();
}

#[test]
#[ignore = "needs real servers: scripts/dev-stack up, then scripts/test"]
fn a_live_tail_whose_topic_is_made_anew_says_so() {
    let topic = Topic::new();
    let sandbox = Sandbox::new();
    let mut server = topic.start(&sandbox);
    for expected in [
        "Kafka does not answer",
        "broke off",
        "reading the queue failed",
        "the live tail goes on at its beginning",
    ] {
        server.expect_log(expected);
    }
    let mut tail = Events::open(&server, "/logs/tail", None);
    server.ingest(numbered(0));
    for _ in 0..20 {
        tail.next();
    }
    let _ = delete_topics(&topic.brokers, &topic.name);
    let gone = || server.get("/readyz").status == 503;
    eventually("the topic is gone", gone);
    let other = Sandbox::new();
    let made_anew = topic.start(&other);
    made_anew.ingest("one line, so that there is a partition with an end");
    eventually("it says so", || {
        let is_told = |line: &String| line.contains("the live tail goes on at its beginning");
        server.log().iter().any(is_told)
    });
    made_anew.stop();
    server.kill();
}

fn numbered(batch: usize) -> String {
    let line = |n: usize| {
        json!({"source": format!("s{}", n % 9), "message": "m", "n": batch * 20 + n}).to_string()
            + "\n"
    };
    (0..20).map(line).collect()
}

fn check_all_once(server: &Server, batches: &[usize]) {
    let count = batches.len() as u64 * 20;
    eventually("all is indexed", || count <= total(server, ""));
    let answer = server.get("/logs?format=ndjson&limit=all&fields=n").text();
    let mut seen = BTreeMap::new();
    for line in answer.lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        *seen.entry(record["n"].as_u64().unwrap()).or_insert(0) += 1;
    }
    for batch in batches {
        for n in batch * 20..(batch + 1) * 20 {
            assert_eq!(seen.get(&(n as u64)), Some(&1), "{n}");
        }
    }
}

/// Posts with a key until it is accepted; the statuses on the way.
fn post_until_accepted(server: &Server, batch: usize) -> Vec<u16> {
    let deadline = Instant::now() + PATIENCE * 3;
    let key = format!("batch-{batch}");
    let mut statuses = Vec::new();
    loop {
        let headers = [("idempotency-key", key.as_str())];
        let started = Instant::now();
        let answer = server.request("POST", "/logs", &headers, numbered(batch).as_bytes());
        assert!(started.elapsed() < Duration::from_secs(50), "not in time");
        statuses.push(answer.status);
        match answer.status {
            201 => return statuses,
            503 => assert!(answer.header("retry-after").is_some()),
            status => panic!("{status}: {}", answer.text()),
        }
        assert!(Instant::now() < deadline, "{}", answer.text());
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
#[ignore = "needs real servers: scripts/dev-stack up, then scripts/test"]
fn one_of_three_brokers_is_killed_and_nothing_is_lost_or_doubled() {
    let stack = Stack::up(&["--only", "kafka", "--brokers", "3"]);
    let sandbox = Sandbox::new();
    let url = format!("kafka://{}/logs", stack.env("LOGYARD_DEV_KAFKA").unwrap());
    let environment = [("LOGYARD__QUEUE__KAFKA_PARTITIONS", "3")];
    let server = sandbox.start_with(&["--queue", &url], &environment);
    let status = server.get_json("/status");
    assert_eq!(status["degraded"], json!([]), "three replicas promise all");
    let mut batches = Vec::new();
    for batch in 0..150 {
        match batch {
            50 => stack.script(&["stop", "kafka-2", "-9"]),
            100 => stack.script(&["start", "kafka-2"]),
            _ => {}
        }
        // Slow while Kafka has not noticed, and never refused.
        let statuses = post_until_accepted(&server, batch);
        assert_eq!(statuses, [201], "batch {batch}");
        batches.push(batch);
    }
    check_all_once(&server, &batches);
    server.stop();
}

#[test]
#[ignore = "needs real servers: scripts/dev-stack up, then scripts/test"]
fn the_only_broker_is_killed_and_started_again() {
    let stack = Stack::up(&["--only", "kafka"]);
    let sandbox = Sandbox::new();
    let url = format!("kafka://{}/logs", stack.env("LOGYARD_DEV_KAFKA").unwrap());
    let environment = [("LOGYARD__QUEUE__KAFKA_MESSAGE_TIMEOUT_MS", "2000")];
    let mut server = sandbox.start_with(&["--queue", &url], &environment);
    server.expect_log("has one replica");
    server.expect_log("Kafka does not answer");
    // Whatever reads from Kafka at that moment begins anew.
    server.expect_log("broke off");
    let mut batches: Vec<usize> = (0..20).collect();
    for batch in &batches {
        post_until_accepted(&server, *batch);
    }
    stack.script(&["stop", "kafka-1", "-9"]);
    eventually("refused, and not ready", || {
        let answer = server.post("/logs", "lost?");
        assert_eq!(answer.status, 503, "{}", answer.text());
        answer.error_code() == "kafka_unreachable" && server.get("/readyz").status == 503
    });
    assert_eq!(total(&server, ""), 400, "answers go on");
    let started = Instant::now();
    assert_eq!(server.post("/logs", "lost?").status, 503);
    assert!(started.elapsed() < Duration::from_secs(1));
    stack.script(&["start", "kafka-1"]);
    for batch in 20..40 {
        post_until_accepted(&server, batch);
        batches.push(batch);
    }
    eventually("ready again", || server.get("/readyz").status == 200);
    check_all_once(&server, &batches);
    server.stop();
}

// ---- who may come in ----

/// Kafka with a plain listener and three that ask who is there.
fn secure_stack() -> Stack {
    if !cfg!(feature = "kafka-tls") {
        panic!("needs a build with TLS: cargo test --features kafka-tls, as scripts/test does");
    }
    Stack::up(&["--only", "kafka", "--secure"])
}

/// What stands in the environment for TLS, with this authority of the stack's folder.
fn tls(stack: &Stack, authority: &str) -> Vec<(&'static str, String)> {
    let folder = stack.env("LOGYARD_DEV_KAFKA_TLS_FOLDER").unwrap();
    vec![
        ("LOGYARD__QUEUE__KAFKA_TLS", "true".to_owned()),
        (
            "LOGYARD__QUEUE__KAFKA_TLS_CA_FILE",
            format!("{folder}/{authority}"),
        ),
    ]
}

fn mechanism(name: &str) -> (&'static str, String) {
    ("LOGYARD__QUEUE__KAFKA_SASL_MECHANISM", name.to_owned())
}

/// Sends some lines through Kafka and finds each once.
#[track_caller]
fn check_way_through(url: &str, environment: &[(&'static str, String)]) {
    let sandbox = Sandbox::new();
    let environment: Vec<_> = environment.iter().map(|(k, v)| (*k, v.as_str())).collect();
    let mut server = sandbox.start_with(&["--queue", url], &environment);
    server.expect_log("has one replica");
    post_until_accepted(&server, 0);
    check_all_once(&server, &[0]);
    server.stop();
}

/// The server ends at once, and says what is wrong.
#[track_caller]
fn check_refused(url: &str, environment: &[(&'static str, String)], parts: &[&str]) {
    let sandbox = Sandbox::new();
    let started = Instant::now();
    let output = sandbox
        .command(&["serve", "--queue", url])
        .envs(environment.iter().map(|(name, value)| (*name, value)))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{said}");
    assert!(started.elapsed() < Duration::from_secs(10), "{said}");
    for part in parts {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains("wrong-secret"), "{said}");
}

#[test]
#[ignore = "needs real servers: scripts/dev-stack up, then scripts/test"]
fn lines_go_through_kafka_with_every_login_and_encrypted() {
    let stack = secure_stack();
    let address = |name: &str| stack.env(name).unwrap();
    let login = "logyard:logyard-dev@";
    let sasl_tls = address("LOGYARD_DEV_KAFKA_SASL_TLS");
    for name in ["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"] {
        let mut environment = tls(&stack, "ca.crt");
        environment.push(mechanism(name));
        let topic = name.to_lowercase();
        check_way_through(&format!("kafka://{login}{sasl_tls}/{topic}"), &environment);
    }
    let sasl = address("LOGYARD_DEV_KAFKA_SASL");
    check_way_through(&format!("kafka://{login}{sasl}/sasl-plain"), &[]);
    let mut environment = tls(&stack, "ca.crt");
    let folder = address("LOGYARD_DEV_KAFKA_TLS_FOLDER");
    for (name, file) in [
        ("LOGYARD__QUEUE__KAFKA_TLS_CERTIFICATE_FILE", "client.crt"),
        ("LOGYARD__QUEUE__KAFKA_TLS_KEY_FILE", "client.key"),
    ] {
        environment.push((name, format!("{folder}/{file}")));
    }
    let tls_only = address("LOGYARD_DEV_KAFKA_TLS");
    check_way_through(&format!("kafka://{tls_only}/tls"), &environment);
}

#[test]
#[ignore = "needs real servers: scripts/dev-stack up, then scripts/test"]
fn who_is_not_let_in_is_told_why_and_what_to_do_at_once() {
    let stack = secure_stack();
    let address = |name: &str| stack.env(name).unwrap();
    let sasl_tls = address("LOGYARD_DEV_KAFKA_SASL_TLS");
    let sasl = address("LOGYARD_DEV_KAFKA_SASL");
    let tls_only = address("LOGYARD_DEV_KAFKA_TLS");
    let wrong = format!("kafka://logyard:wrong-secret@{sasl_tls}/logs");
    let login = ["refuses the login", &sasl_tls, "queue.kafka_password"];
    for name in ["SCRAM-SHA-512", "PLAIN"] {
        let mut environment = tls(&stack, "ca.crt");
        environment.push(mechanism(name));
        check_refused(&wrong, &environment, &login);
    }
    let wrong = format!("kafka://logyard:wrong-secret@{sasl}/logs");
    check_refused(&wrong, &[], &["refuses the login", &sasl]);
    let right = format!("kafka://logyard:logyard-dev@{sasl_tls}/logs");
    let authority = ["certificate verify failed", "queue.kafka_tls_ca_file"];
    check_refused(&right, &tls(&stack, "stranger.crt"), &authority);
    let missing = ["cannot read `queue.kafka_tls_ca_file`", "missing.crt"];
    check_refused(&right, &tls(&stack, "missing.crt"), &missing);
    let no_pem = ["`queue.kafka_tls_ca_file`", "is no PEM file"];
    check_refused(&right, &tls(&stack, "../server.properties"), &no_pem);
    let certificate = ["queue.kafka_tls_certificate_file", &tls_only];
    let url = format!("kafka://{tls_only}/logs");
    check_refused(&url, &tls(&stack, "ca.crt"), &certificate);
    // These look like a broker that is going away, so they are waited for.
    let wait = ("LOGYARD__QUEUE__KAFKA_START_WAIT_MS", "3000".to_owned());
    check_refused(
        &url,
        std::slice::from_ref(&wait),
        &["is it a port that wants TLS"],
    );
    let mut environment = tls(&stack, "ca.crt");
    environment.push(wait);
    let url = format!("kafka://{}/logs", address("LOGYARD_DEV_KAFKA"));
    check_refused(&url, &environment, &["is it a port without TLS"]);
}
