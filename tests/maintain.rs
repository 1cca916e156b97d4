//! `logyard clean` and `logyard verify` on the folder of a stopped server, through the real binary.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a broken expectation should stop the test"
)]

mod sandbox;

use std::path::{Path, PathBuf};
use std::process::Output;

use sandbox::Sandbox;
use serde_json::{Value, json};

fn run(sandbox: &Sandbox, arguments: &[&str]) -> Output {
    let data_dir = sandbox.data_dir();
    let mut command = sandbox.command(arguments);
    command.arg("--data-dir").arg(data_dir);
    command.output().unwrap()
}

fn stdout_json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A stopped server's folder with 100 records of 2001 and one of now.
fn filled() -> Sandbox {
    let sandbox = Sandbox::new();
    let server = sandbox.start();
    let old: String = (0..100)
        .map(|n| {
            format!(
                "{{\"timestamp\":\"2001-01-01T00:00:{:02}Z\",\"n\":{n}}}\n",
                n % 60
            )
        })
        .collect();
    server.ingest(old);
    server.ingest("{\"message\":\"new\"}");
    server.stop();
    sandbox
}

#[test]
fn cleaning_says_what_would_go_and_then_lets_it_go() {
    let sandbox = filled();
    let no_rules = run(&sandbox, &["clean"]);
    assert_eq!(no_rules.status.code(), Some(1));
    assert!(
        stderr(&no_rules).contains("retention.age_max_days"),
        "{no_rules:?}"
    );
    // Age counts from the later of a record's time and its arrival: nothing arrived long ago.
    let kept = run(
        &sandbox,
        &["clean", "--age-max-days", "30", "--output", "json"],
    );
    assert!(kept.status.success(), "{kept:?}");
    assert_eq!(stdout_json(&kept)["records"], 0);
    let planned = run(
        &sandbox,
        &[
            "clean",
            "--dry-run",
            "--size-bytes-max",
            "1",
            "--output",
            "json",
        ],
    );
    assert!(planned.status.success(), "{planned:?}");
    let planned = stdout_json(&planned);
    assert_eq!(planned["dry_run"], true);
    assert!(0 < planned["records"].as_u64().unwrap(), "{planned}");
    let server = sandbox.start();
    assert_eq!(server.get_json("/logs?limit=0")["total"]["value"], 101);
    let in_use = run(&sandbox, &["clean", "--size-bytes-max", "1"]);
    assert_eq!(in_use.status.code(), Some(1));
    assert!(
        stderr(&in_use).contains("is in use by the process"),
        "{in_use:?}"
    );
    server.stop();
    let cleaned = run(
        &sandbox,
        &["clean", "--size-bytes-max", "1", "--output", "json"],
    );
    assert_eq!(stdout_json(&cleaned)["records"], planned["records"]);
    let server = sandbox.start();
    let left = 101 - planned["records"].as_u64().unwrap();
    assert_eq!(server.get_json("/logs?limit=0")["total"]["value"], left);
}

#[test]
fn verifying_finds_nothing_in_a_sound_folder_and_names_what_is_damaged() {
    let sandbox = filled();
    let sound = run(&sandbox, &["verify", "--output", "json"]);
    assert!(sound.status.success(), "{sound:?}");
    let report = stdout_json(&sound);
    assert_eq!(
        (&report["records"], &report["faults"]),
        (&json!(101), &json!([]))
    );
    let segment = segments(&sandbox.data_dir().join("store"))
        .into_iter()
        .next()
        .expect("a segment");
    let mut bytes = std::fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(&segment, bytes).unwrap();
    let damaged = run(&sandbox, &["verify"]);
    assert_eq!(damaged.status.code(), Some(1), "{damaged:?}");
    let text = String::from_utf8_lossy(&damaged.stdout).into_owned();
    assert!(
        text.contains(segment.file_name().unwrap().to_str().unwrap()),
        "{text}"
    );
}

#[test]
fn a_folder_that_is_not_there_is_not_made() {
    let sandbox = Sandbox::new();
    for command in ["verify", "clean"] {
        let output = run(&sandbox, &[command]);
        assert_eq!(output.status.code(), Some(1));
    }
    assert!(!sandbox.data_dir().exists());
}

fn segments(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(segments(&path));
        } else if path
            .extension()
            .is_some_and(|extension| extension == "parquet")
        {
            found.push(path);
        }
    }
    found
}
