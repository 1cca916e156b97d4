//! Servers that `scripts/dev-stack` started: those of the whole run, found by the environment, and a stack of a test's own, whose servers it may stop.
//! For test files that have `mod sandbox;`: `#[path = "sandbox/stack.rs"] mod stack;`.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "shared by several test files, each of which uses a part; the servers are found by the environment"
)]

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaResult;

/// What `scripts/dev-stack env` prints under this name.
pub fn dev(name: &str) -> String {
    let value = std::env::var(name).ok().filter(|value| !value.is_empty());
    value.unwrap_or_else(|| {
        panic!("needs real servers: scripts/dev-stack up, then scripts/test: {name} is not set; `scripts/dev-stack env` prints it")
    })
}

/// A stack of the test's own, down when dropped.
pub struct Stack {
    run: tempfile::TempDir,
    port: u16,
    heap: Option<&'static str>,
}

impl Stack {
    /// Kafka, Redis, and the engine that the whole run is about: `scripts/test --stack '--opensearch 3'` is about OpenSearch 3 here, too.
    pub fn whole() -> Self {
        let engine = dev("LOGYARD_DEV_SEARCH_OPTIONS");
        Self::up(&engine.split(',').collect::<Vec<_>>())
    }

    pub fn up(options: &[&str]) -> Self {
        let stack = Self {
            run: run_folder(),
            port: free_ports(),
            // The newer ones need what dev-stack gives them.
            heap: (!options.iter().any(|option| ["9", "3"].contains(option))).then_some("400m"),
        };
        let mut arguments = vec!["up"];
        arguments.extend(options);
        stack.script(&arguments);
        stack
    }

    pub fn script(&self, arguments: &[&str]) {
        let output = self.output(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "scripts/dev-stack {arguments:?}: {said}"
        );
    }

    fn output(&self, arguments: &[&str]) -> Output {
        Command::new("scripts/dev-stack")
            .args(arguments)
            .env("LOGYARD_DEV_RUN", self.run.path())
            .env("LOGYARD_DEV_PORT", self.port.to_string())
            .envs(self.heap.map(|heap| ("LOGYARD_DEV_HEAP", heap)))
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// As [`dev`], of this stack.
    pub fn env(&self, name: &str) -> Option<String> {
        let output = self.output(&["env"]);
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
            .map(str::to_owned)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        let output = self.output(&["down"]);
        if !std::thread::panicking() {
            assert!(output.status.success(), "{output:?}");
        }
    }
}

/// Beside the run folder of the run's own stack: `scripts/test` takes down what it finds there when it is broken off.
fn run_folder() -> tempfile::TempDir {
    let outer = PathBuf::from(std::env::var("LOGYARD_DEV_RUN").unwrap_or_default());
    match (outer.parent(), outer.file_name()) {
        (Some(parent), Some(name)) => tempfile::Builder::new()
            .prefix(&format!("{}-inner-", name.to_string_lossy()))
            .tempdir_in(parent)
            .unwrap(),
        _ => tempfile::tempdir().unwrap(),
    }
}

/// The first of ten ports in a row that nobody uses, below those that the system gives out; each call's are others, since servers take theirs late.
pub fn free_ports() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 900).unwrap();
    (0..900)
        .map(|_| 20_300 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 900 * 10)
        .find(|port| (0..10).all(|n| std::net::TcpListener::bind(("127.0.0.1", port + n)).is_ok()))
        .expect("ten free ports")
}

/// Deletes a topic and those that belong to it, as far as they are there: a test that failed early has not made them all. An error if Kafka does not answer.
pub fn delete_topics(brokers: &str, topic: &str) -> KafkaResult<()> {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .create()
        .unwrap();
    let names = ["", ".dead-letters", ".idempotency"].map(|suffix| format!("{topic}{suffix}"));
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let deleted = admin.delete_topics(&names, &AdminOptions::new());
    futures::executor::block_on(deleted).map(drop)
}
