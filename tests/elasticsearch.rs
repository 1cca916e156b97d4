//! The embedded queue in front of a real Elasticsearch, through the real binary: start, crash, restart, upkeep, a foreign queue.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    reason = "a broken expectation should stop the test; the environment says where the servers are"
)]

mod sandbox;

use std::process::Command;

use sandbox::{Sandbox, Server, eventually, real_logs};
use serde_json::{Value, json};

/// Settings for a server of this test alone.
struct Cluster {
    url: String,
    environment: Vec<(String, String)>,
    prefix: String,
}

impl Cluster {
    fn new() -> Self {
        let url = std::env::var("LOGYARD_DEV_SEARCH").expect(
            "LOGYARD_DEV_SEARCH is not set; run: scripts/dev-stack up --only search && export $(scripts/dev-stack env)",
        );
        let store = match url.strip_prefix("https://") {
            Some(rest) => format!("elasticsearch+https://{rest}"),
            None => url.replacen("http://", "elasticsearch://", 1),
        };
        let prefix = format!("e{:08x}", rand::random::<u32>());
        let ca = std::env::var("LOGYARD_DEV_SEARCH_CA").unwrap_or_default();
        let environment = [
            ("KIND", store),
            ("ELASTICSEARCH_CA_FILE", ca),
            ("ELASTICSEARCH_INDEX_PREFIX", format!("{prefix}-logs-")),
            ("ELASTICSEARCH_STATE_PREFIX", format!("{prefix}-own-")),
            ("ELASTICSEARCH_REPLICAS", "0".to_owned()),
        ];
        let environment = environment
            .map(|(key, value)| (format!("LOGYARD__STORE__{key}"), value))
            .to_vec();
        Self {
            url,
            environment,
            prefix,
        }
    }

    fn start(&self, sandbox: &Sandbox) -> Server {
        let environment: Vec<(&str, &str)> = self
            .environment
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        sandbox.start_with(&[], &environment)
    }

    fn command(&self, sandbox: &Sandbox, arguments: &[&str]) -> Command {
        let mut command = sandbox.command(arguments);
        command.envs(self.environment.iter().map(|(key, value)| (key, value)));
        command
    }

    fn curl(&self, arguments: &[&str], path: &str) -> Value {
        let mut command = Command::new("curl");
        command.arg("-s");
        if let Ok(ca) = std::env::var("LOGYARD_DEV_SEARCH_CA") {
            command.args(["--cacert", &ca]);
        }
        let output = command
            .args(arguments)
            .arg(format!("{}{path}", self.url))
            .output()
            .unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let found = self.curl(&[], &format!("/{}-*", self.prefix));
        for (index, _) in found.as_object().into_iter().flatten() {
            self.curl(&["-XDELETE"], &format!("/{index}"));
        }
        self.curl(
            &["-XDELETE"],
            &format!("/_index_template/{}-own-{}-logs", self.prefix, self.prefix),
        );
    }
}

fn total(server: &Server, query: &str) -> u64 {
    let answer = server.get_json(&format!("/logs?limit=0&{query}"));
    answer["total"]["value"].as_u64().unwrap()
}

fn numbered(range: std::ops::Range<u64>) -> String {
    range
        .map(|n| {
            format!("{{\"timestamp\":\"2025-03-20T00:00:00Z\",\"source\":\"numbers\",\"n\":{n}}}\n")
        })
        .collect()
}

#[test]
#[ignore = "needs real servers: scripts/dev-stack up, then scripts/test"]
fn one_process_stores_in_elasticsearch() {
    let cluster = Cluster::new();
    let sandbox = Sandbox::new();
    let server = cluster.start(&sandbox);
    let windows = real_logs("windows-security.ndjson.zst").unwrap();
    let lines: Vec<&[u8]> = windows.split_inclusive(|b| *b == b'\n').take(500).collect();
    let answer = server.post("/logs?wait_for=indexed", lines.concat());
    assert_eq!(answer.status, 201, "{}", answer.text());
    assert_eq!(answer.json()["accepted"], lines.len());
    assert_eq!(total(&server, ""), lines.len() as u64);
    let status = server.get_json("/status");
    assert_eq!(status["store"]["kind"], "elasticsearch", "{status}");
    let answer = server.post(
        "/logs?wait_for=indexed",
        "{\"message\":\"whole\"}\n{broken\n",
    );
    assert_eq!(answer.json()["dead_lettered"], 1);
    eventually("the dead letter is listed", || {
        server.get_json("/dead-letters")["total"]["value"] == 1
    });

    // Killed while lines are on their way: all of them are there once.
    for part in 0..20 {
        server.ingest(numbered(part * 100..(part + 1) * 100));
    }
    server.kill();
    let server = cluster.start(&sandbox);
    eventually("all lines are indexed", || {
        total(&server, "source=numbers") == 2_000
    });
    let stats = server.get_json("/logs/stats?source=numbers&agg=count,distinct(n),sum(n)");
    let group = &stats["groups"][0];
    assert_eq!(group["count"], 2_000);
    assert_eq!(group["sum(n)"], 1_999_000, "{stats}");
    server.stop();

    let verified = cluster
        .command(&sandbox, &["verify", "--output", "json"])
        .output()
        .unwrap();
    assert!(verified.status.success(), "{verified:?}");
    let report: Value = serde_json::from_slice(&verified.stdout).unwrap();
    assert_eq!(report["records"], lines.len() + 1 + 2_000, "{report}");
    let cleaned = cluster
        .command(
            &sandbox,
            &[
                "clean",
                "--dry-run",
                "--size-bytes-max",
                "1",
                "--output",
                "json",
            ],
        )
        .output()
        .unwrap();
    assert!(cleaned.status.success(), "{cleaned:?}");
    let report: Value = serde_json::from_slice(&cleaned.stdout).unwrap();
    assert!(2_000 <= report["records"].as_u64().unwrap(), "{report}");

    // The queue of another folder counts from 0, too: it is not let in.
    let other = Sandbox::new();
    let mut refused = cluster.command(&other, &["serve", "--listen", "127.0.0.1:0"]);
    let refused = refused
        .arg("--data-dir")
        .arg(other.data_dir())
        .output()
        .unwrap();
    assert!(!refused.status.success());
    let message = String::from_utf8(refused.stderr).unwrap();
    assert!(message.contains("elasticsearch_index_prefix"), "{message}");
}

/// A query of Kibana's language as Kibana asks it, as far as the saved search goes: alternatives of `field: (text or …)` and `(field >= n and …)`.
fn asked_by_kibana(query: &str) -> Value {
    let mut either = Vec::new();
    let mut rest = query;
    while let Some((head, after)) = rest.split_once('(') {
        let (inner, after) = after.split_once(')').unwrap();
        either.push(match head.trim_start_matches(" or ").strip_suffix(": ") {
            Some(field) => json!({"terms": {field: inner.split(" or ").collect::<Vec<_>>()}}),
            None => {
                json!({"bool": {"filter": inner.split(" and ").map(bound).collect::<Vec<_>>()}})
            }
        });
        rest = after;
    }
    assert_eq!(rest, "");
    json!({"bool": {"should": either, "minimum_should_match": 1}})
}

fn bound(text: &str) -> Value {
    let parts: Vec<&str> = text.split(' ').collect();
    let [field, sign, number] = parts[..] else {
        panic!("{text}");
    };
    let sign = match sign {
        ">=" => "gte",
        "<=" => "lte",
        other => panic!("{other}"),
    };
    json!({"range": {field: {sign: number.parse::<i64>().unwrap()}}})
}

#[test]
#[ignore = "needs real servers: scripts/dev-stack up, then scripts/test"]
fn the_errors_of_kibana_are_those_of_logyard() {
    let cluster = Cluster::new();
    let sandbox = Sandbox::new();
    let server = cluster.start(&sandbox);
    let levels = [
        json!("ERROR"),
        json!("error"),
        json!("Fatal"),
        json!("3"),
        json!("warn"),
        json!("info"),
        json!("7"),
        json!(0),
        json!(1),
        json!(2),
        json!(3),
        json!(4),
        json!(6),
        json!(-1),
        json!(30),
        json!(50),
    ];
    let lines: String = levels
        .iter()
        .enumerate()
        .map(|(n, level)| format!("{}\n", json!({"n": n, "level": level, "message": "m"})))
        .collect();
    server.ingest(lines);
    let numbers = |found: &[Value]| {
        let mut numbers: Vec<u64> = found.iter().map(|n| n.as_u64().unwrap()).collect();
        numbers.sort_unstable();
        numbers
    };
    let own = server.get_json("/logs?level=error,critical&limit=100")["logs"].clone();
    let own: Vec<Value> = own
        .as_array()
        .unwrap()
        .iter()
        .map(|log| log["n"].clone())
        .collect();
    assert_eq!(numbers(&own), [0, 1, 2, 3, 7, 8, 9, 10]);

    let printed = sandbox.run(&["kibana-setup", "--print"]);
    let printed = String::from_utf8(printed.stdout).unwrap();
    let search = printed
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .find(|object| object["id"] == "logyard-errors")
        .unwrap();
    let source = &search["attributes"]["kibanaSavedObjectMeta"]["searchSourceJSON"];
    let source: Value = serde_json::from_str(source.as_str().unwrap()).unwrap();
    let query = asked_by_kibana(source["query"]["query"].as_str().unwrap());
    let body = json!({"query": query, "size": 100}).to_string();
    let found = cluster.curl(
        &["-XPOST", "-Hcontent-type: application/json", "-d", &body],
        &format!("/{}-logs-*/_search", cluster.prefix),
    );
    let found = found["hits"]["hits"].as_array().unwrap();
    let found: Vec<Value> = found
        .iter()
        .map(|hit| hit["_source"]["n"].clone())
        .collect();
    assert_eq!(numbers(&found), numbers(&own));
    server.stop();
}

fn copy_folder(from: &Sandbox, to: &Sandbox) {
    let status = Command::new("cp")
        .arg("-r")
        .args([from.data_dir(), to.data_dir()])
        .status()
        .unwrap();
    assert!(status.success());
}

/// What a server says that must not start.
fn refusal(cluster: &Cluster, sandbox: &Sandbox) -> String {
    let mut command = cluster.command(sandbox, &["serve", "--listen", "127.0.0.1:0"]);
    command.arg("--data-dir").arg(sandbox.data_dir());
    let output = command.output().unwrap();
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

fn one(text: &str) -> String {
    json!({"timestamp": "2025-03-20T00:00:00Z", "source": "copies", "message": text}).to_string()
}

#[test]
#[ignore = "needs real servers: scripts/dev-stack up, then scripts/test"]
fn of_two_copies_of_a_data_folder_one_writes_and_the_other_says_so() {
    let cluster = Cluster::new();
    let [original, second, third] = [(); 3].map(|()| Sandbox::new());
    let server = cluster.start(&original);
    server.ingest(one("of the original"));
    server.kill();
    // Killed and started again it goes on, and so does a folder that was moved.
    let server = cluster.start(&original);
    server.ingest(one("of the original, again"));
    server.stop();

    copy_folder(&original, &second);
    let server = cluster.start(&second);
    server.ingest(one("of the second"));
    let said = refusal(&cluster, &original);
    assert!(
        said.contains("another copy") && said.contains("elasticsearch_index_prefix"),
        "{said}"
    );

    // Copied while it is in use: the one that was started last writes.
    copy_folder(&second, &third);
    let mut replaced = server;
    replaced.expect_log("the store does not take batches");
    let server = cluster.start(&third);
    server.ingest(one("of the third"));
    assert_eq!(
        replaced
            .post("/logs", one("kept in the second's queue"))
            .status,
        201
    );
    eventually("the one that was replaced says so", || {
        let degraded = replaced.get_json("/status")["degraded"].to_string();
        degraded.contains("another copy")
    });
    replaced.kill();
    assert!(refusal(&cluster, &second).contains("another copy"));
    server.kill();
    let server = cluster.start(&third);
    server.ingest(one("of the third, again"));
    assert_eq!(total(&server, "source=copies"), 5);
    server.stop();

    // What the second has queued is stored under a prefix of its own.
    let own = Cluster::new();
    let server = own.start(&second);
    eventually("the line is there", || {
        total(&server, "q=%22second%27s+queue%22") == 1
    });
    server.stop();
}
