//! The real binary in a folder of its own, on a free port, for end-to-end tests: `mod sandbox;` at the top of a test file.
//!
//! A server that logs a WARN or ERROR line which the test did not announce by [`Server::expect_log`] fails the test when it is dropped.
//! The HTTP client is plain and blocking, one connection for each request; nothing in here uses Logyard's own code.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "shared by several test files, each of which uses a part; a broken sandbox should stop the test"
)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long anything may take before the test gives up.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A folder that outlives the servers started in it.
pub struct Sandbox {
    folder: tempfile::TempDir,
}

impl Sandbox {
    pub fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// `logyard serve` on this sandbox's data folder.
    pub fn start(&self) -> Server {
        self.start_with(&[], &[])
    }

    pub fn start_with(&self, flags: &[&str], environment: &[(&str, &str)]) -> Server {
        let mut command = self.command(&["serve", "--listen", "127.0.0.1:0"]);
        command.args(flags).envs(environment.iter().copied());
        if !flags.contains(&"--in-memory") {
            command.arg("--data-dir").arg(self.data_dir());
        }
        Server::spawn(command)
    }

    /// Any subcommand, to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// The binary with a clean environment and this sandbox's folder as the working directory.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_logyard"));
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("LOGYARD__") {
                command.env_remove(name);
            }
        }
        command
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// A running `logyard serve`; ended with SIGKILL when dropped.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
    expected: Vec<String>,
    log_reader: Option<JoinHandle<()>>,
    is_over: bool,
}

impl Server {
    /// `command` must listen on a free port of 127.0.0.1.
    pub fn spawn(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let stderr = child.stderr.take().unwrap();
        let log_reader = std::thread::spawn({
            let log = log.clone();
            move || {
                for line in BufReader::new(stderr).lines() {
                    log.lock().unwrap().push(line.unwrap());
                }
            }
        });
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut first_line = String::new();
        stdout.read_line(&mut first_line).unwrap();
        let Some((_, address)) = first_line.trim().split_once("listens on http://") else {
            let status = child.wait().unwrap();
            log_reader.join().unwrap();
            panic!(
                "the server did not start: {status}\n{first_line}{}",
                log.lock().unwrap().join("\n")
            );
        };
        // Standard output is read to its end, so that the server never waits for it.
        std::thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
        Self {
            address: address.parse().unwrap(),
            child,
            log,
            expected: Vec::new(),
            log_reader: Some(log_reader),
            is_over: false,
        }
    }

    /// Announces a WARN or ERROR line that contains `text`.
    pub fn expect_log(&mut self, text: &str) {
        self.expected.push(text.to_owned());
    }

    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn get(&self, path: &str) -> Answer {
        self.request("GET", path, &[], b"")
    }

    pub fn post(&self, path: &str, body: impl AsRef<[u8]>) -> Answer {
        self.request("POST", path, &[], body.as_ref())
    }

    /// The answer's JSON; fails unless the status is 200.
    pub fn get_json(&self, path: &str) -> Value {
        let answer = self.get(path);
        assert_eq!(answer.status, 200, "GET {path}: {}", answer.text());
        answer.json()
    }

    /// Writes `body` and waits until it is searchable; fails unless all of it is accepted.
    pub fn ingest(&self, body: impl AsRef<[u8]>) -> Value {
        let answer = self.post("/logs?wait_for=indexed", body);
        assert_eq!(answer.status, 201, "{}", answer.text());
        answer.json()
    }

    pub fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        self.try_request(method, path, headers, body)
            .unwrap_or_else(|e| panic!("{method} {path}: {e}\n{}", self.log().join("\n")))
    }

    /// Fails only when the connection does.
    pub fn try_request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> std::io::Result<Answer> {
        request(self.address, method, path, headers, body)
    }

    /// A connection on which the request's head and body have been sent.
    pub fn open(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> std::io::Result<TcpStream> {
        open(self.address, method, path, headers, body)
    }

    /// Resident memory.
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        line.split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<u64>()
            .unwrap()
            * 1024
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([format!("-{name}"), self.pid().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// SIGTERM, then waits; fails unless the exit code is 0.
    pub fn stop(mut self) {
        self.signal("TERM");
        let status = self.wait();
        assert!(status.success(), "{status}\n{}", self.log().join("\n"));
    }

    /// SIGKILL, then waits.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.wait();
    }

    /// Waits for the end.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                self.is_over = true;
                self.log_reader
                    .take()
                    .into_iter()
                    .for_each(|reader| reader.join().unwrap());
                return status;
            }
            assert!(Instant::now() < deadline, "the server does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !self.is_over {
            let _ = self.child.kill();
            let _ = self.child.wait();
            self.log_reader
                .take()
                .into_iter()
                .for_each(|reader| reader.join().unwrap());
        }
        let log = self.log();
        if std::thread::panicking() {
            eprintln!("the server's log:\n{}", log.join("\n"));
            return;
        }
        for line in log {
            let is_alarming = line.contains(r#""level":"WARN""#)
                || line.contains(r#""level":"ERROR""#)
                || line.contains("panicked at");
            let is_expected = self.expected.iter().any(|text| line.contains(text));
            assert!(
                !is_alarming || is_expected,
                "an unexpected line in the server's log: {line}"
            );
        }
    }
}

#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    /// `error.code` of an error's body.
    pub fn error_code(&self) -> String {
        self.json()["error"]["code"]
            .as_str()
            .unwrap_or_else(|| panic!("no error: {}", self.text()))
            .to_owned()
    }
}

pub fn open(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> std::io::Result<TcpStream> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
    if !headers.iter().any(|(name, _)| {
        name.eq_ignore_ascii_case("transfer-encoding")
            || name.eq_ignore_ascii_case("content-length")
    }) {
        head.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(head.as_bytes())?;
    // A server that has refused the request already may have closed its side: the answer is there all the same.
    let _ = stream.write_all(body);
    Ok(stream)
}

pub fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> std::io::Result<Answer> {
    let stream = open(address, method, path, headers, body)?;
    read_answer(&mut BufReader::new(stream), method == "HEAD")
}

fn bad(what: &str) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, what.to_owned())
}

/// Reads the status line and the headers.
pub fn read_head(
    reader: &mut BufReader<TcpStream>,
) -> std::io::Result<(u16, Vec<(String, String)>)> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Err(bad("the connection ended without an answer"));
    }
    let status = line
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .ok_or_else(|| bad(&line))?;
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            return Ok((status, headers));
        };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
}

pub fn read_answer(reader: &mut BufReader<TcpStream>, is_head: bool) -> std::io::Result<Answer> {
    let (mut status, mut headers) = read_head(reader)?;
    while status == 100 {
        (status, headers) = read_head(reader)?;
    }
    let find = |name: &str| {
        headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    };
    let mut body = Vec::new();
    if is_head {
        // No body, whatever the headers say.
    } else if find("transfer-encoding") == Some("chunked") {
        while let Some(chunk) = read_chunk(reader)? {
            body.extend(chunk);
        }
    } else if let Some(length) = find("content-length") {
        body.resize(length.parse().map_err(|_| bad("content-length"))?, 0);
        reader.read_exact(&mut body)?;
    } else {
        reader.read_to_end(&mut body)?;
    }
    Ok(Answer {
        status,
        headers,
        body,
    })
}

/// One chunk of a chunked body; `None` after the last.
pub fn read_chunk(reader: &mut BufReader<TcpStream>) -> std::io::Result<Option<Vec<u8>>> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let length = usize::from_str_radix(line.trim(), 16)
        .map_err(|_| bad("a chunk without a length: the answer was cut"))?;
    let mut chunk = vec![0; length];
    reader.read_exact(&mut chunk)?;
    let mut end = String::new();
    reader.read_line(&mut end)?;
    Ok((0 < length).then_some(chunk))
}

/// Asks `is_so` again and again until it is so.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not so in time: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A file of real logs in `../shared/data` or `../../shared/data`, decompressed; where both are absent the excerpt in `tests/data`, or `None` if there
/// is none.
pub fn real_logs(name: &str) -> Option<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut shared = root.join("../shared/data");
    if !shared.exists() {
        shared = root.join("../../shared/data");
    }
    let excerpt = root.join("tests/data").join(name);
    let path = match shared.exists() {
        true => shared.join(name),
        false if excerpt.exists() => excerpt,
        false => return None,
    };
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    if !name.ends_with(".zst") {
        return Some(bytes);
    }
    let mut plain = Vec::new();
    zstd::Decoder::new(&bytes[..])
        .unwrap()
        .read_to_end(&mut plain)
        .unwrap();
    Some(plain)
}
