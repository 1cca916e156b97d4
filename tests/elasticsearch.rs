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
use serde_json::Value;

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
