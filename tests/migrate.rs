//! `logyard migrate` through the real binary: from a folder and from a running server, interrupted by SIGKILL and resumed.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests: a failure should stop the test"
)]

mod sandbox;

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use sandbox::{Sandbox, Server, eventually, real_logs};
use serde_json::Value;

/// Records whose names, types and shapes no detour over plain JSON would keep.
const ODD: &[&str] = &[
    r#"{"timestamp":"2025-03-20T00:00:00.123456789Z","level":"ERROR","severity":"kept beside","service":"backend","source":"s","message":"a"}"#,
    r#"{"timestamp":"2025-03-20T00:00:00.12Z","message":"b","http":{"status":500},"http.status":"literal","id":"mine","_id":"mine too"}"#,
    r#"{"time":"garbage","msg":"no time","big":123456789012345678901234567890,"f":0.1,"e":1e300,"list":[1,{"x":null}],"none":null,"empty":{}}"#,
    r#"{"timestamp":"2025-03-20T00:00:00Z","_flags":["truncated"],"message":{"nested":"object"},"a":{"b":{"c":true}}}"#,
    r#"{"timestamp":"1969-12-31T23:59:59.999999999Z","message":"before the epoch","ts":"the loser"}"#,
];

fn fill(server: &Server, count: usize) {
    server.ingest(ODD.join("\n"));
    if let Some(windows) = real_logs("windows-security.ndjson.zst") {
        let lines: Vec<&[u8]> = windows.split(|b| *b == b'\n').take(500).collect();
        server.ingest(lines.join(&b'\n'));
    }
    let mut left = count;
    while 0 < left {
        let n = left.min(5_000);
        let lines: String = (0..n)
            .map(|i| {
                let at = left - i;
                format!(
                    "{{\"timestamp\":\"2025-03-{:02}T00:00:{:02}.{:03}Z\",\"level\":\"INFO\",\"source\":\"s{}\",\"message\":\"line {at}\",\"n\":{at}}}\n",
                    1 + at % 28,
                    at / 1_000 % 60,
                    at % 1_000,
                    at % 7
                )
            })
            .collect();
        server.ingest(lines);
        left -= n;
    }
    for body in [
        &b"{\"good\":1}\n{\"broken\":"[..],
        b"{\"good\":2}\n{\"bytes\":\"\xFF\xFE\", oops}\n[1]\n",
        b"{}\n{\n{\n",
    ] {
        let answer = server.post("/logs?source=letters&wait_for=indexed", body);
        assert_eq!(answer.status, 201, "{}", answer.text());
    }
}

/// Everything, as the API shows it, without what belongs to the place: ids.
fn everything(server: &Server) -> (Vec<Value>, Vec<Value>) {
    let export = server.get("/logs?format=ndjson&limit=all&order=asc");
    assert_eq!(export.status, 200);
    let records = export.text().lines().map(without_id).collect();
    let letters = server.get_json("/dead-letters?limit=10000");
    let letters = letters["dead_letters"].as_array().unwrap();
    (
        records,
        letters
            .iter()
            .map(|letter| without_id(&letter.to_string()))
            .collect(),
    )
}

fn without_id(line: &str) -> Value {
    let mut value: Value = serde_json::from_str(line).unwrap();
    value.as_object_mut().unwrap().remove("id").unwrap();
    value
}

fn assert_same(source: &(Vec<Value>, Vec<Value>), target: &Server) {
    let copied = everything(target);
    assert_eq!(source.0.len(), copied.0.len(), "records");
    for (index, (a, b)) in source.0.iter().zip(&copied.0).enumerate() {
        assert_eq!(a, b, "record {index}");
    }
    assert_eq!(source.1, copied.1, "dead letters");
}

fn spawn(sandbox: &Sandbox, from: &str, to: &str, file: &Path) -> Child {
    let file = file.display().to_string();
    sandbox
        .command(&["migrate", "--from", from, "--to", to, "--progress", &file])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn finish(child: Child) -> Result<String, String> {
    let output = child.wait_with_output().unwrap();
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout).unwrap()),
        false => Err(String::from_utf8(output.stderr).unwrap()),
    }
}

fn progress(file: &Path) -> Option<Value> {
    serde_json::from_slice(&std::fs::read(file).ok()?).ok()
}

/// Runs until so many records are copied, and kills it while a portion is on its way.
fn kill_after(sandbox: &Sandbox, from: &str, to: &str, file: &Path, records: u64) -> Value {
    let mut child = spawn(sandbox, from, to, file);
    eventually("a part is copied", || {
        progress(file).is_some_and(|p| {
            records <= p["records"].as_u64().unwrap() && p["in_flight"].is_object()
        }) || child.try_wait().unwrap().is_some()
    });
    assert!(
        child.try_wait().unwrap().is_none(),
        "it was over too soon: {:?}",
        finish(child)
    );
    child.kill().unwrap();
    child.wait().unwrap();
    let left = progress(file).unwrap();
    assert_eq!(left["phase"], "records");
    left
}

#[test]
fn an_interrupted_copy_of_a_folder_goes_on_and_has_everything_once() {
    let (old, new) = (Sandbox::new(), Sandbox::new());
    let server = old.start();
    fill(&server, 60_000);
    let source = everything(&server);
    // What is acknowledged is in the queue still, not in a segment.
    server.kill();
    let target = new.start();
    target.ingest("{\"message\":\"was there before\"}");
    let from = old.data_dir().display().to_string();
    let to = target.url("");
    let file: PathBuf = new.path().join("progress.json");

    let mut left = kill_after(&new, &from, &to, &file, 2_000);
    // As if it had been long ago: the target's count must tell what became of the portion on its way.
    left["in_flight"]["sent_ms"] = Value::from(1);
    std::fs::write(&file, left.to_string()).unwrap();
    let first = left["records"].as_u64().unwrap();
    let left = kill_after(&new, &from, &to, &file, first + 6_000);
    // Soon after: the key tells.
    assert!(first < left["records"].as_u64().unwrap());
    let said = finish(spawn(&new, &from, &to, &file)).unwrap();
    assert!(said.contains("both sides have the same counts"), "{said}");
    assert_eq!(progress(&file).unwrap()["phase"], "done");

    let total = target.get_json("/logs?limit=0")["total"]["value"]
        .as_u64()
        .unwrap();
    assert_eq!(total, source.0.len() as u64 + 1);
    let copied = everything(&target);
    let is_old = |record: &&Value| record["message"] != "was there before";
    let copied: Vec<&Value> = copied.0.iter().filter(is_old).collect();
    assert_eq!(copied.len(), source.0.len());
    for (a, b) in source.0.iter().zip(copied) {
        assert_eq!(a, b);
    }

    let again = finish(spawn(&new, &from, &to, &file)).unwrap_err();
    assert!(again.contains("is complete"), "{again}");
    target.stop();
}

#[test]
fn a_running_server_is_copied_over_http_exactly() {
    let (old, new) = (Sandbox::new(), Sandbox::new());
    let (server, target) = (old.start(), new.start());
    fill(&server, 6_000);
    let source = everything(&server);
    assert!(2 < source.1.len());
    let file = new.path().join("progress.json");
    let said = finish(spawn(&new, &server.url(""), &target.url(""), &file)).unwrap();
    assert!(
        said.contains(&format!(
            "copied {} records and {} dead letters",
            source.0.len(),
            source.1.len()
        )),
        "{said}"
    );
    assert_same(&source, &target);

    // The folder of a running server is refused, and a target that is not there is named.
    let from = old.data_dir().display().to_string();
    let error = finish(spawn(&new, &from, &target.url(""), &new.path().join("b"))).unwrap_err();
    assert!(error.contains("another"), "{error}");
    let error = finish(spawn(
        &new,
        &server.url(""),
        "http://127.0.0.1:1",
        &new.path().join("c"),
    ))
    .unwrap_err();
    assert!(error.contains("count the target"), "{error}");
    let error = finish(spawn(
        &new,
        "no-such-folder",
        &target.url(""),
        &new.path().join("d"),
    ))
    .unwrap_err();
    assert!(error.contains("no-such-folder"), "{error}");
}

#[test]
fn batches_of_strangers_are_refused() {
    let sandbox = Sandbox::new();
    let server = sandbox.start_with(&["--in-memory"], &[]);
    let headers = [("content-type", "application/vnd.logyard.batch")];
    for body in [&b""[..], b"{}", b"LYB1", &[0xFF; 64]] {
        let answer = server.request("POST", "/logs", &headers, body);
        assert_eq!(answer.status, 400, "{}", answer.text());
        assert_eq!(answer.error_code(), "invalid_batch");
    }
    server.ingest(ODD.join("\n"));
    let page = server.get("/logs?format=batch&limit=2&order=asc");
    assert_eq!(page.status, 200);
    assert_eq!(page.header("content-type"), Some(headers[0].1));
    let cursor = page.header("x-next-cursor").unwrap();
    let rest = server.get(&format!(
        "/logs?format=batch&limit=100&order=asc&cursor={cursor}"
    ));
    assert_eq!(rest.header("x-next-cursor"), None);
    let answer = server.request("POST", "/logs?wait_for=indexed", &headers, &rest.body);
    assert_eq!(answer.status, 201, "{}", answer.text());
    assert_eq!(answer.json()["accepted"], ODD.len() as u64 - 2);
    assert_eq!(
        server.get_json("/logs?limit=0")["total"]["value"],
        2 * ODD.len() as u64 - 2
    );
    assert_eq!(server.get("/logs?format=batch&limit=all").status, 400);
}
