//! Real Redis servers for tests, each in a folder of its own on a free loopback port, ended when dropped. Also a proxy that is as slow as a test
//! wants it, and certificates. Uses none of Logyard's own code, so that unit tests and end-to-end tests share it.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "shared by several test files, each of which uses a part; a broken sandbox should stop the test"
)]

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

/// `host:port` of the Redis that `scripts/dev-stack` started.
pub fn dev_redis() -> (String, u16) {
    let address = std::env::var("LOGYARD_DEV_REDIS").unwrap_or_else(|_| {
        panic!("LOGYARD_DEV_REDIS is not set: run `scripts/dev-stack up --only redis`, then `export $(scripts/dev-stack env)`, or simply `scripts/test`")
    });
    let (host, port) = address.split_once(':').unwrap();
    (host.to_owned(), port.parse().unwrap())
}

/// A port that nobody uses, each time another one. Below those that the system gives out (32,768 and up): a server that is down for a while would
/// otherwise lose its port to the next one that listens on port 0. Above those of `stack.rs`.
pub fn free_port() -> u16 {
    const FIRST: u16 = 30_000;
    const COUNT: u32 = 2_700;
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id().wrapping_mul(37);
    (0..COUNT)
        .map(|_| {
            let step = start.wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed)) % COUNT;
            FIRST + u16::try_from(step).unwrap()
        })
        .find(|&port| TcpListener::bind(("127.0.0.1", port)).is_ok())
        .expect("a free port")
}

/// A running `redis-server` (or sentinel).
pub struct RedisServer {
    child: Child,
    pub port: u16,
    arguments: Vec<String>,
    cli_arguments: Vec<String>,
    folder: tempfile::TempDir,
}

impl RedisServer {
    pub fn start(extra: &[&str]) -> Self {
        Self::start_with(extra, &[])
    }

    /// `cli`: what `redis-cli` needs to get in.
    pub fn start_with(extra: &[&str], cli: &[&str]) -> Self {
        let port = free_port();
        let mut arguments = vec!["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
        arguments.extend(extra);
        let mut arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
        if !extra.contains(&"--tls-port") {
            arguments.extend(["--port".to_owned(), port.to_string()]);
        }
        for argument in &mut arguments {
            *argument = argument.replace("PORT", &port.to_string());
        }
        Self::spawn(port, arguments, cli)
    }

    pub fn start_sentinel(configuration: &str, cli: &[&str]) -> Self {
        let port = free_port();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sentinel.conf");
        std::fs::write(
            &file,
            format!(
                "port {port}\nbind 127.0.0.1\n{}\n",
                configuration.replace("PORT", &port.to_string())
            ),
        )
        .unwrap();
        let arguments = vec![file.display().to_string(), "--sentinel".to_owned()];
        let child = launch(folder.path(), &arguments);
        let server = Self {
            child,
            port,
            arguments,
            cli_arguments: cli.iter().map(|&text| text.to_owned()).collect(),
            folder,
        };
        server.wait_until_ready();
        server
    }

    fn spawn(port: u16, arguments: Vec<String>, cli: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = Self {
            child: launch(folder.path(), &arguments),
            port,
            arguments,
            cli_arguments: cli.iter().map(|&text| text.to_owned()).collect(),
            folder,
        };
        server.wait_until_ready();
        server
    }

    fn wait_until_ready(&self) {
        let deadline = Instant::now() + PATIENCE;
        while self.cli(&["PING"]).trim() != "PONG" {
            assert!(Instant::now() < deadline, "redis-server is not ready");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What `redis-cli` prints.
    pub fn cli(&self, arguments: &[&str]) -> String {
        let output = Command::new("redis-cli")
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string()])
            .args(&self.cli_arguments)
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Writes bytes that no command line could hold.
    pub fn set_raw(&self, key: &str, value: &[u8]) {
        let mut child = Command::new("redis-cli")
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string()])
            .args(&self.cli_arguments)
            .args(["-x", "SET", key])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(value).unwrap();
        assert!(child.wait().unwrap().success());
    }

    pub fn keys(&self, pattern: &str) -> Vec<String> {
        let keys = self.cli(&["KEYS", pattern]);
        keys.lines()
            .filter(|key| !key.is_empty())
            .map(str::to_owned)
            .collect()
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([format!("-{name}"), self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// After `kill`: an empty server on the same port.
    pub fn start_again(&mut self) {
        self.child = launch(self.folder.path(), &self.arguments);
        self.wait_until_ready();
    }
}

fn launch(folder: &Path, arguments: &[String]) -> Child {
    Command::new("redis-server")
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|e| panic!("redis-server: {e}; scripts/setup installs it"))
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // A stopped process takes SIGKILL as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Three masters that share the slots.
pub fn start_cluster() -> Vec<RedisServer> {
    start_cluster_with(&[], &[])
}

fn start_cluster_with(extra: &[&str], cli: &[&str]) -> Vec<RedisServer> {
    let servers: Vec<(RedisServer, u16)> = (0..3)
        .map(|_| {
            let bus = free_port();
            let bus_text = bus.to_string();
            let flags = [
                "--cluster-enabled",
                "yes",
                "--cluster-node-timeout",
                "2000",
                "--cluster-require-full-coverage",
                "no",
                "--cluster-port",
                &bus_text,
            ];
            let server = RedisServer::start_with(&[&flags[..], extra].concat(), cli);
            (server, bus)
        })
        .collect();
    for ((server, _), (first, last)) in
        servers
            .iter()
            .zip([("0", "5460"), ("5461", "10922"), ("10923", "16383")])
    {
        let answer = server.cli(&["CLUSTER", "ADDSLOTSRANGE", first, last]);
        assert_eq!(answer.trim(), "OK");
    }
    for (server, bus) in &servers[1..] {
        let answer = servers[0].0.cli(&[
            "CLUSTER",
            "MEET",
            "127.0.0.1",
            &server.port.to_string(),
            &bus.to_string(),
        ]);
        assert_eq!(answer.trim(), "OK");
    }
    let is_ready = |server: &RedisServer| {
        let info = server.cli(&["CLUSTER", "INFO"]);
        info.contains("cluster_state:ok") && info.contains("cluster_slots_assigned:16384")
    };
    let deadline = Instant::now() + PATIENCE;
    while !servers.iter().all(|(server, _)| is_ready(server)) {
        assert!(Instant::now() < deadline, "the cluster is not ready");
        std::thread::sleep(Duration::from_millis(50));
    }
    servers.into_iter().map(|(server, _)| server).collect()
}

/// A certificate for 127.0.0.1 and the authority that signed it, made by `openssl`.
pub struct Certificates {
    folder: tempfile::TempDir,
}

impl Certificates {
    pub fn make() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let run = |command: &str| {
            let output = Command::new("sh")
                .args(["-c", command])
                .current_dir(folder.path())
                .output()
                .unwrap();
            assert!(
                output.status.success(),
                "{command}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        };
        run(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -keyout ca.key -out ca.crt -subj /CN=test-authority",
        );
        run(
            "openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout server.key -out server.csr -subj /CN=127.0.0.1",
        );
        run(
            "printf 'subjectAltName=IP:127.0.0.1,DNS:localhost\\nbasicConstraints=CA:FALSE\\n' > extensions; openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -out server.crt -extfile extensions",
        );
        Self { folder }
    }

    pub fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Of the server's certificate, its key and the authority.
    fn paths(&self) -> [String; 3] {
        ["server.crt", "server.key", "ca.crt"].map(|name| self.path(name))
    }

    pub fn ca_pem(&self) -> Vec<u8> {
        std::fs::read(self.folder.path().join("ca.crt")).unwrap()
    }

    /// A server that speaks TLS alone and wants a password.
    pub fn start_server(&self, password: &str) -> RedisServer {
        self.with_flags(password, RedisServer::start_with)
    }

    /// The same with more flags; replicas and their masters speak TLS with each other, too.
    pub fn start_replicating(&self, password: &str, extra: &[&str]) -> RedisServer {
        self.with_flags(password, |flags, cli| {
            let all = [flags, &["--tls-replication", "yes"], extra].concat();
            RedisServer::start_with(&all, cli)
        })
    }

    /// A sentinel that speaks TLS alone, with whom it watches too.
    pub fn start_sentinel(&self, password: &str, configuration: &str) -> RedisServer {
        let [certificate, key, ca] = self.paths();
        let configuration = format!(
            "port 0\ntls-port PORT\ntls-cert-file {certificate}\ntls-key-file {key}\ntls-ca-cert-file {ca}\n\
             tls-auth-clients no\ntls-replication yes\nrequirepass \"{password}\"\n{configuration}"
        );
        RedisServer::start_sentinel(&configuration, &tls_cli(&ca, password))
    }

    /// The same as a cluster of three.
    pub fn start_cluster(&self, password: &str) -> Vec<RedisServer> {
        self.with_flags(password, |flags, cli| {
            start_cluster_with(&[flags, &["--tls-cluster", "yes"]].concat(), cli)
        })
    }

    fn with_flags<T>(&self, password: &str, start: impl FnOnce(&[&str], &[&str]) -> T) -> T {
        let [certificate, key, ca] = self.paths();
        let flags = [
            "--port",
            "0",
            "--tls-port",
            "PORT",
            "--tls-cert-file",
            &certificate,
            "--tls-key-file",
            &key,
            "--tls-ca-cert-file",
            &ca,
            "--tls-auth-clients",
            "no",
            "--requirepass",
            password,
        ];
        start(&flags, &tls_cli(&ca, password))
    }
}

/// What `redis-cli` needs to get into a server that speaks TLS and wants a password.
fn tls_cli<'a>(ca: &'a str, password: &'a str) -> [&'a str; 6] {
    ["--tls", "--cacert", ca, "--no-auth-warning", "-a", password]
}

/// Hands bytes on in both directions, each piece after a delay; or nothing at all.
pub struct SlowProxy {
    pub port: u16,
    delay_ms: Arc<AtomicU64>,
}

/// A delay that means: hold everything back.
const HOLD: u64 = u64::MAX;

impl SlowProxy {
    pub fn to(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let delay_ms = Arc::new(AtomicU64::new(0));
        let delay = delay_ms.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { return };
                let Ok(server) = TcpStream::connect(("127.0.0.1", target)) else {
                    continue;
                };
                let _ = (client.set_nodelay(true), server.set_nodelay(true));
                for (from, to, is_answer) in [
                    (
                        client.try_clone().unwrap(),
                        server.try_clone().unwrap(),
                        false,
                    ),
                    (server, client, true),
                ] {
                    let delay = delay.clone();
                    std::thread::spawn(move || hand_on(from, to, is_answer, &delay));
                }
            }
        });
        Self { port, delay_ms }
    }

    /// Every answer comes this much later.
    pub fn set_delay(&self, delay: Duration) {
        let ms = u64::try_from(delay.as_millis()).unwrap();
        self.delay_ms.store(ms, Ordering::SeqCst);
    }

    /// Nothing passes until `set_delay`, in either direction.
    pub fn hold(&self) {
        self.delay_ms.store(HOLD, Ordering::SeqCst);
    }
}

fn hand_on(mut from: TcpStream, mut to: TcpStream, is_answer: bool, delay_ms: &AtomicU64) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let Ok(count @ 1..) = from.read(&mut buffer) else {
            let _ = to.shutdown(std::net::Shutdown::Both);
            return;
        };
        while delay_ms.load(Ordering::SeqCst) == HOLD {
            std::thread::sleep(Duration::from_millis(5));
        }
        if is_answer {
            std::thread::sleep(Duration::from_millis(delay_ms.load(Ordering::SeqCst)));
        }
        if to.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}
