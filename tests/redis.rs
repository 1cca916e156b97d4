//! Redis is only a cache: the same questions to a server with it and to one without are answered the same, whatever happens to Redis.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests: a failure should stop the test"
)]

mod sandbox;
#[path = "sandbox/redis_server.rs"]
mod redis_server;

use std::time::{Duration, Instant};

use redis_server::{Certificates, RedisServer, dev_redis};
use sandbox::{Sandbox, Server, eventually};
use serde_json::Value;

/// A call may take this long by default, and the tests share two cores.
const BUDGET: Duration = Duration::from_millis(50);
const SLACK: Duration = Duration::from_millis(500);

const QUESTIONS: &[&str] = &[
    "/logs?limit=5",
    "/logs?limit=7&order=asc",
    "/logs?q=level:error&limit=20",
    "/logs?q=timeout&start=2025-03-20T00:00:00Z&end=2025-03-21T00:00:00Z",
    "/logs?start=2025-03-20T00:00:00Z&end=2025-03-20T12:00:00Z&limit=3",
    "/logs?service=backend&limit=2",
    "/logs?q=nothing-like-this",
    "/logs?limit=0",
    "/logs/histogram?interval=1h&by=level&start=2025-03-20T00:00:00Z&end=2025-03-22T00:00:00Z",
    "/logs/histogram?interval=1d&start=2025-03-01T00:00:00Z&end=2025-04-01T00:00:00Z",
    "/logs/fields?top=3",
    "/logs/fields?q=level:info&top=2&start=2025-03-21T00:00:00Z&end=2025-03-22T00:00:00Z",
    "/logs/stats?by=level&agg=count,avg(duration_ms)",
    "/logs/stats?by=source,level&agg=count&sort=-count&limit=3",
    "/logs?q=status:>=500&fields=timestamp,message",
];

/// Lines about three days; the same for the same `round`.
fn lines(round: usize) -> String {
    let levels = ["INFO", "ERROR", "WARN"];
    let sources = ["backend", "frontend", "auth"];
    (0..60)
        .map(|i| {
            let day = 20 + i % 3;
            format!(
                "{{\"timestamp\":\"2025-03-{day}T{:02}:{:02}:00Z\",\"level\":\"{}\",\"service\":\"{}\",\"message\":\"timeout {i} of round {round}\",\"duration_ms\":{},\"status\":{}}}\n",
                i % 24,
                round % 60,
                levels[i % levels.len()],
                sources[i / 3 % sources.len()],
                i * 7 % 100,
                200 + i % 400
            )
        })
        .collect()
}

struct Pair {
    with: Server,
    without: Server,
    _folders: (Sandbox, Sandbox),
    rounds: usize,
}

impl Pair {
    fn start(redis: &str, settings: &[(&str, &str)]) -> Self {
        let folders = (Sandbox::new(), Sandbox::new());
        let mut with = folders.0.start_with(&["--cache", redis], settings);
        with.expect_log("the cache in Redis is not used");
        let without = folders.1.start_with(&["--cache", "off"], &[]);
        Self {
            with,
            without,
            _folders: folders,
            rounds: 0,
        }
    }

    fn is_used(&self) -> bool {
        let status = self.with.get_json("/status");
        !status["degraded"].to_string().contains("Redis")
            && self
                .with
                .get("/metrics")
                .text()
                .contains("logyard_cache_breaker_open 0")
    }

    fn wait_until_used(&self) {
        eventually("Redis is used", || self.is_used());
    }

    /// Writes the same to both.
    fn write(&mut self) {
        let body = lines(self.rounds);
        self.rounds += 1;
        self.with.ingest(&body);
        self.without.ingest(&body);
    }

    /// All questions, twice, to both; how many were hits, and the longest that one took.
    fn compare(&self) -> (usize, Duration) {
        let mut n_hits = 0;
        let mut longest = Duration::ZERO;
        for question in QUESTIONS.iter().chain(QUESTIONS) {
            let started = Instant::now();
            let answer = self.with.get(question);
            longest = longest.max(started.elapsed());
            let expected = self.without.get(question);
            assert_eq!(expected.header("x-cache"), Some("miss"));
            n_hits += usize::from(answer.header("x-cache") == Some("hit"));
            assert_eq!(answer.status, 200, "{question}: {}", answer.text());
            assert_eq!(plain(answer.json()), plain(expected.json()), "{question}");
        }
        (n_hits, longest)
    }
}

impl Pair {
    /// Redis is in use: sooner or later each question is a hit. On a busy machine a call may miss its budget now and then.
    fn assert_hits(&self) {
        eventually("every second question is a hit", || {
            QUESTIONS.len() <= self.compare().0
        });
    }
}

/// Without what differs from run to run.
fn plain(mut answer: Value) -> Value {
    assert!(answer.as_object_mut().unwrap().remove("took_ms").is_some());
    answer
}

fn url(server: &RedisServer) -> String {
    format!("redis://127.0.0.1:{}", server.port)
}

#[test]
#[ignore = "needs real servers: scripts/dev-stack up, then scripts/test"]
fn answers_are_the_same_with_and_without_redis_whatever_happens_to_it() {
    let mut redis = RedisServer::start(&[]);
    let settings = [("LOGYARD__CACHE__REDIS_RECONNECT_MAX_MS", "300")];
    let mut pair = Pair::start(&url(&redis), &settings);
    pair.wait_until_used();
    let check = |pair: &mut Pair, what: &str| {
        pair.write();
        let (n_hits, longest) = pair.compare();
        assert!(longest < 2 * BUDGET + SLACK, "{what}: {longest:?}");
        n_hits
    };
    for _ in 0..3 {
        check(&mut pair, "healthy");
        pair.assert_hits();
    }

    redis.signal("STOP");
    assert_eq!(check(&mut pair, "stopped"), 0);
    assert_eq!(check(&mut pair, "still stopped"), 0);
    assert!(!pair.is_used());
    redis.signal("CONT");
    pair.wait_until_used();
    check(&mut pair, "going on");
    pair.assert_hits();

    redis.cli(&["CLIENT", "PAUSE", "800", "ALL"]);
    check(&mut pair, "paused");
    pair.wait_until_used();
    check(&mut pair, "after a pause");
    pair.assert_hits();

    redis.kill();
    assert_eq!(check(&mut pair, "killed"), 0);
    redis.start_again();
    pair.wait_until_used();
    check(&mut pair, "started again");
    pair.assert_hits();

    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    assert_eq!(check(&mut pair, "full"), 0);
    redis.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    check(&mut pair, "with memory");
    pair.assert_hits();

    for (i, key) in redis.keys("logyard:*").iter().enumerate() {
        match i % 3 {
            0 => redis.set_raw(key, b"garbage \x00\xFF"),
            1 => drop((redis.cli(&["DEL", key]), redis.cli(&["SADD", key, "x"]))),
            _ => drop(redis.cli(&["APPEND", key, "x"])),
        }
    }
    let (_, longest) = pair.compare();
    assert!(longest < 2 * BUDGET + SLACK, "garbage: {longest:?}");
    redis.cli(&["FLUSHALL"]);
    check(&mut pair, "emptied");
    pair.assert_hits();
    let Pair { with, without, .. } = pair;
    with.stop();
    without.stop();
}

#[test]
#[ignore = "needs real servers: scripts/dev-stack up, then scripts/test"]
fn a_server_without_its_redis_starts_and_says_so() {
    let mut redis = RedisServer::start(&[]);
    redis.kill();
    let settings = [("LOGYARD__CACHE__REDIS_RECONNECT_MAX_MS", "300")];
    let mut pair = Pair::start(&url(&redis), &settings);
    pair.write();
    assert_eq!(pair.compare().0, 0);
    assert_eq!(pair.with.get("/readyz").status, 200, "ready all the same");
    let mut degraded = String::new();
    eventually("the status says so", || {
        degraded = pair.with.get_json("/status")["degraded"].to_string();
        degraded.contains("the cache in Redis is not used")
    });
    redis.start_again();
    pair.wait_until_used();
    pair.assert_hits();
    assert_eq!(pair.with.get_json("/status")["cache"]["kind"], "redis");
}

#[test]
#[ignore = "needs real servers: scripts/dev-stack up, then scripts/test"]
fn the_redis_of_the_stack_and_one_with_tls_and_password() {
    let (host, port) = dev_redis();
    let prefix = format!("test-{}", std::process::id());
    let settings = [("LOGYARD__CACHE__REDIS_PREFIX", prefix.as_str())];
    let mut pair = Pair::start(&format!("redis://{host}:{port}/5"), &settings);
    pair.wait_until_used();
    pair.write();
    pair.assert_hits();

    let certificates = Certificates::make();
    let redis = certificates.start_server("secret word");
    let ca = certificates.path("ca.crt");
    let settings = [
        ("LOGYARD__CACHE__REDIS_CA_FILE", ca.as_str()),
        ("LOGYARD__CACHE__REDIS_PASSWORD", "secret word"),
    ];
    let mut pair = Pair::start(&format!("rediss://127.0.0.1:{}", redis.port), &settings);
    pair.wait_until_used();
    pair.write();
    pair.assert_hits();
}
