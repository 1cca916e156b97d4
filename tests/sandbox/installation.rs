//! Names of one test's own on Kafka, Elasticsearch and Redis, and processes that use them. What was made is deleted at the end.
//! For test files that have `mod sandbox; mod stack;`: `#[path = "sandbox/installation.rs"] mod installation;`.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "shared by several test files, each of which uses a part; the servers are found by the environment"
)]

use std::process::{Command, Output};
use std::sync::Mutex;

use serde_json::Value;

use crate::sandbox::{Sandbox, Server};
use crate::stack::{Stack, delete_topics, dev};

pub struct Installation {
    pub name: String,
    pub brokers: String,
    search: String,
    search_ca: String,
    redis: String,
    settings: Mutex<Vec<(String, String)>>,
    sandbox: Sandbox,
}

impl Installation {
    /// On the servers of the whole run.
    pub fn new() -> Self {
        Self::on(dev)
    }

    /// On the servers that `stack` has, and for the others on those of the whole run.
    pub fn on_stack(stack: &Stack) -> Self {
        Self::on(|name| stack.env(name).unwrap_or_else(|| dev(name)))
    }

    fn on(env: impl Fn(&str) -> String) -> Self {
        let name = format!("d{:08x}", rand::random::<u32>());
        let search = env("LOGYARD_DEV_SEARCH");
        let is_plain = search.starts_with("http://");
        let installation = Self {
            brokers: env("LOGYARD_DEV_KAFKA"),
            search_ca: match is_plain {
                true => String::new(),
                false => env("LOGYARD_DEV_SEARCH_CA"),
            },
            search,
            redis: env("LOGYARD_DEV_REDIS"),
            settings: Mutex::default(),
            sandbox: Sandbox::new(),
            name,
        };
        let name = &installation.name;
        let kind = match installation.search.strip_prefix("https://") {
            Some(rest) => format!("elasticsearch+https://{rest}"),
            None => installation
                .search
                .replacen("http://", "elasticsearch://", 1),
        };
        for (key, value) in [
            (
                "QUEUE__KIND",
                format!("kafka://{}/{name}", installation.brokers),
            ),
            ("QUEUE__KAFKA_GROUP", name.clone()),
            ("QUEUE__KAFKA_PARTITIONS", "4".to_owned()),
            ("STORE__KIND", kind),
            (
                "STORE__ELASTICSEARCH_CA_FILE",
                installation.search_ca.clone(),
            ),
            ("STORE__ELASTICSEARCH_INDEX_PREFIX", format!("{name}-logs-")),
            ("STORE__ELASTICSEARCH_STATE_PREFIX", format!("{name}-own-")),
            ("STORE__ELASTICSEARCH_REPLICAS", "0".to_owned()),
            ("CACHE__KIND", format!("redis://{}", installation.redis)),
            ("CACHE__REDIS_PREFIX", name.clone()),
            ("CACHE__REDIS_RECONNECT_MAX_MS", "500".to_owned()),
        ] {
            installation.set(key, &value);
        }
        installation
    }

    /// A setting, as `SECTION__KEY`, for processes started later.
    pub fn set(&self, key: &str, value: &str) {
        let mut settings = self.settings.lock().unwrap();
        settings.push((format!("LOGYARD__{key}"), value.to_owned()));
    }

    /// A process with these roles.
    pub fn start(&self, roles: &str) -> Server {
        let mut command = self.command(&["serve", "--listen", "127.0.0.1:0", "--roles", roles]);
        command.env("LOGYARD__LOG__FORMAT", "json");
        let mut server = Server::spawn(command);
        // With one broker it says what Kafka does not promise.
        server.expect_log("has one replica");
        // Two tests on two cores: a call of Redis may miss its budget.
        server.expect_log("the cache in Redis is not used");
        server
    }

    /// Any subcommand, to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.sandbox.command(arguments);
        command.envs(self.settings.lock().unwrap().iter().cloned());
        command
    }

    /// Asks Elasticsearch itself.
    pub fn curl(&self, arguments: &[&str], path: &str) -> Value {
        let mut command = Command::new("curl");
        command.arg("-s");
        if !self.search_ca.is_empty() {
            command.args(["--cacert", &self.search_ca]);
        }
        let url = format!("{}{path}", self.search);
        let output = command.args(arguments).arg(url).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    }

    /// Daily indices, sorted.
    pub fn indices(&self) -> Vec<String> {
        let prefix = format!("{}-logs-", self.name);
        let found = self.curl(&[], &format!("/{prefix}*"));
        let names = found.as_object().unwrap().keys();
        let mut names: Vec<String> = names
            .map(|name| name.strip_prefix(&prefix).unwrap().to_owned())
            .collect();
        names.sort();
        names
    }

    fn redis_cli(&self, arguments: &[&str]) -> String {
        let (host, port) = self.redis.split_once(':').unwrap();
        let mut command = Command::new("redis-cli");
        command.args(["-h", host, "-p", port]).args(arguments);
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        let name = self.name.as_str();
        let _ = delete_topics(&self.brokers, name);
        let found = self.curl(&[], &format!("/{name}-*"));
        for (index, _) in found.as_object().into_iter().flatten() {
            self.curl(&["-XDELETE"], &format!("/{index}"));
        }
        let template = format!("/_index_template/{name}-own-{name}-logs");
        self.curl(&["-XDELETE"], &template);
        let pattern = format!("{name}:*");
        for key in self.redis_cli(&["--scan", "--pattern", &pattern]).lines() {
            self.redis_cli(&["DEL", key]);
        }
    }
}
