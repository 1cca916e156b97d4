//! The process itself, through the real binary: start, stop, refusals, errors of the HTTP surface.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a broken expectation should stop the test"
)]

mod sandbox;

use sandbox::Sandbox;

#[test]
fn it_starts_says_where_and_stops_cleanly_on_sigterm() {
    let sandbox = Sandbox::new();
    let server = sandbox.start_with(&["--in-memory"], &[]);
    assert_eq!(server.get("/nothing").status, 404);
    server.stop();
    assert!(
        !sandbox.data_dir().exists(),
        "an in-memory server made a data folder"
    );
}

#[test]
fn a_second_process_on_the_same_data_is_refused() {
    let sandbox = Sandbox::new();
    let server = sandbox.start();
    let data_dir = sandbox.data_dir();
    let second = sandbox.run(&[
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--data-dir",
        data_dir.to_str().unwrap(),
    ]);
    assert_eq!(second.status.code(), Some(1));
    let message = String::from_utf8(second.stderr).unwrap();
    assert!(
        message.contains(&format!("is in use by the process {}", server.pid())),
        "{message}"
    );
    server.stop();
    sandbox.start().stop();
}

#[test]
fn what_is_unsafe_or_unknown_is_refused_before_anything_starts() {
    let sandbox = Sandbox::new();
    for (arguments, reason) in [
        (
            &["serve", "--listen", "0.0.0.0:0"][..],
            "--insecure-no-auth",
        ),
        (
            &["serve", "--queue", "kafka://broker:9092"],
            "name the topic",
        ),
        (
            &["serve", "--store", "elasticsearch"],
            "elasticsearch://host:9200",
        ),
        (
            &["serve", "--cache", "redis://cache:port"],
            "`port` is not a port",
        ),
        (&["serve", "--rolls", "all"], "'--roles'"),
        (
            &["serve", "--config", "absent.toml"],
            "cannot read the settings file absent.toml",
        ),
        (&["migrate"], "--from <DIR|URL>"),
        (&["snapshot"], "unrecognized subcommand"),
    ] {
        let output = sandbox.run(arguments);
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
        assert!(message.contains(reason), "{arguments:?}: {message}");
        assert!(!sandbox.path().join("logyard-data").exists());
    }
}

#[test]
fn the_printed_settings_are_a_valid_file_and_mistakes_have_a_line() {
    let sandbox = Sandbox::new();
    let printed = sandbox.run(&["config", "print"]);
    assert!(printed.status.success());
    let path = sandbox.path().join("logyard.toml");
    std::fs::write(&path, &printed.stdout).unwrap();
    let checked = sandbox.run(&["config", "check", "--config", "logyard.toml"]);
    assert!(checked.status.success(), "{checked:?}");
    std::fs::write(&path, "[http]\nlisen = \"127.0.0.1:1\"\n").unwrap();
    let refused = sandbox.run(&["config", "check", "--config", "logyard.toml"]);
    let message = String::from_utf8(refused.stderr).unwrap();
    assert!(
        message
            .contains("logyard.toml:2: unknown setting `http.lisen`; did you mean `http.listen`?"),
        "{message}"
    );
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let sandbox = Sandbox::new();
    let mut server = sandbox.start_with(&["--in-memory"], &[]);
    server.expect_log("second signal");
    // A request that has begun and never ends holds the stop back.
    let _half = server
        .open("POST", "/logs", &[("content-length", "10")], b"x")
        .unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    server.signal("TERM");
    std::thread::sleep(std::time::Duration::from_millis(300));
    server.signal("TERM");
    let status = server.wait();
    assert!(status.code() == Some(130) || status.success(), "{status}");
}
