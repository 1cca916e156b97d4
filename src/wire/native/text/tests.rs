//! Real lines of many programs.

use super::*;
use crate::record::timestamp::format;

/// 2026-11-23T02:00:00Z.
const ARRIVAL_NS: i64 = 1_795_399_200_000_000_000;

fn shown(line: &str) -> String {
    let found = read(line, ARRIVAL_NS);
    let time = found
        .time
        .map_or("-".into(), |time| format(time.ns, time.digits));
    let mut out = format!(
        "{time} {} {}",
        found.level.unwrap_or("-"),
        found.source.unwrap_or("-")
    );
    for (name, value) in &found.fields {
        let text = match value {
            FieldValue::Text(text) => text.to_string(),
            FieldValue::Number(text) => format!("#{text}"),
        };
        out.push_str(&format!(" {name}={text}"));
    }
    out
}

#[track_caller]
fn check(line: &str, expected: &str) {
    assert_eq!(shown(line), expected, "{line}");
}

#[test]
fn numbers_are_told_from_texts() {
    for (text, expected) in [
        ("0", true),
        ("-12.5", true),
        ("007", false),
        ("1.", false),
        ("1e5", false),
        ("", false),
    ] {
        assert_eq!(is_json_number(text), expected, "{text}");
    }
}

#[test]
fn access_logs_become_fields() {
    check(
        r#"203.0.113.9 - - [17/May/2015:10:05:03 +0000] "GET /a?b=1 HTTP/1.1" 200 2030 "http://example.org/" "Agent/5.0 (X; \"quoted\")""#,
        r#"2015-05-17T10:05:03Z - - client_ip=203.0.113.9 method=GET path=/a?b=1 protocol=HTTP/1.1 status=#200 bytes=#2030 referrer=http://example.org/ user_agent=Agent/5.0 (X; \"quoted\")"#,
    );
    check(
        r#"::1 - bob [10/Oct/2000:13:55:36 -0700] "POST /x HTTP/1.0" 404 - "-" "-""#,
        "2000-10-10T20:55:36Z - - client_ip=::1 user=bob method=POST path=/x protocol=HTTP/1.0 status=#404",
    );
    check(
        r#"example.org:80 203.0.113.9 - - [10/Oct/2000:13:55:36 +0000] "-" 408 0"#,
        "2000-10-10T13:55:36Z - - client_ip=203.0.113.9 status=#408 bytes=#0",
    );
    check(r#"no access [10/Oct/2000:13:55:36 +0000] log"#, "- - -");
}

#[test]
fn syslog_gives_level_host_and_program() {
    check(
        "<34>1 2003-10-11T22:14:15.003Z web1 su 77 ID47 [ex@1 iut=\"3\" q=\"a\\\"b\"][o x=\"\"] 'su root' failed",
        "2003-10-11T22:14:15.003Z crit su host=web1 pid=#77 msgid=ID47 ex@1.iut=3 ex@1.q=a\"b o.x=",
    );
    check("<165>1 - - - - - -", "- notice -");
    check(
        "<165>1 garbage h a 1 - - x",
        "- notice a syslog_time=garbage host=h pid=#1",
    );
    check(
        "<13>Nov 22 06:07:04 web1 cron[12]: (root) CMD",
        "2026-11-22T06:07:04Z notice cron host=web1 pid=#12",
    );
    check("<11>no time at all", "- err -");
    check("<999>no", "- - -");
    check(
        "Nov  2 06:07:04 web1 kernel: eth0 up",
        "2026-11-02T06:07:04Z - kernel host=web1",
    );
    check(
        "Nov  2 06:07:04 web1 sshd(pam_unix)[19939]: authentication failure",
        "2026-11-02T06:07:04Z - sshd(pam_unix) host=web1 pid=#19939",
    );
    check(
        "Nov  2 06:07:04 web1 syslogd 1.4.1: restart.",
        "2026-11-02T06:07:04Z - syslogd host=web1",
    );
    check(
        "2026-11-02T06:07:04.123456+00:00 web1 sshd[7]: Accepted",
        "2026-11-02T06:07:04.123456Z - sshd host=web1 pid=#7",
    );
}

#[test]
fn the_level_is_found_where_programs_put_it() {
    for (line, expected) in [
        (
            "2015-10-18 18:01:47,978 INFO [main] org.a.MRAppMaster: Created ERROR x",
            "INFO",
        ),
        (
            "2015-07-29 17:41:44,747 - WARN  [QuorumPeer[myid=1]/0:0:2181:Leader@774] - timed out",
            "WARN",
        ),
        (
            "2024-01-01 12:00:00,123 - my.module - ERROR - it failed",
            "ERROR",
        ),
        (
            "2024-01-01T12:00:00.123Z [thread-1] DEBUG c.e.App - x",
            "DEBUG",
        ),
        (
            "[2016-12-19 16:31:47,437] INFO [Controller 0]: starting (kafka.Controller)",
            "INFO",
        ),
        (
            "[Thu Jun 09 06:07:04 2005] [notice] Apache configured",
            "notice",
        ),
        (
            "[Thu Jun 09 06:07:04.123456 2005] [core:error] [pid 1:tid 2] [client 1.2.3.4:5] x",
            "error",
        ),
        ("2015/07/29 17:41:44 [crit] 123#0: *1 open() failed", "crit"),
        (
            "081109 203615 148 INFO dfs.DataNode$PacketResponder: x",
            "INFO",
        ),
        ("I0102 15:04:05.123456   12345 file.go:67] x", "INFO"),
        ("E0102 15:04:05.123456 1 file.go:67] x", "ERROR"),
        ("2024-01-01 12:00:00 error: x", "error"),
        (
            "2024-01-01 12:00:00 my-app started with info about errors",
            "-",
        ),
        ("2024-01-01 12:00:00 com.ERROR.x y", "-"),
        ("ERROR: disk full", "ERROR"),
        ("[warn] low", "warn"),
        ("info: Microsoft.Hosting.Lifetime[0]", "info"),
        ("an error occurred", "-"),
        ("Error while doing", "-"),
        ("", "-"),
    ] {
        let found = read(line, ARRIVAL_NS);
        assert_eq!(found.level.unwrap_or("-"), expected, "{line}");
    }
}

#[test]
fn logfmt_becomes_fields_and_prose_does_not() {
    check(
        r#"time=2024-01-01T00:00:00Z level=info msg="two \"words\"" took=12 ratio=0.5 id=007 empty="#,
        "- - - time=2024-01-01T00:00:00Z level=info msg=two \"words\" took=#12 ratio=#0.5 id=007 empty=",
    );
    for prose in [
        "a=b",
        "x = y z",
        "a=1 and more",
        "a=\"open b=1",
        "=1 =2",
        "http://x/?a=1&b=2",
    ] {
        assert!(read(prose, ARRIVAL_NS).fields.is_empty(), "{prose}");
    }
}

fn pieces(text: &str) -> Vec<String> {
    Lines::new(text.as_bytes(), &TextOptions::default(), ARRIVAL_NS)
        .map(|piece| String::from_utf8(piece.to_vec()).unwrap())
        .collect()
}

#[test]
fn stack_traces_belong_to_the_line_before_them() {
    let java =
        "java.io.IOException: gone\n\tat a.B.c(B.java:1)\n\t... 3 more\nCaused by: x\n\tat d\nnext";
    assert_eq!(pieces(java).len(), 2);
    let python = "ERROR failed\nTraceback (most recent call last):\n  File \"a.py\", line 1, in f\n    g()\nValueError: no\n\nDuring handling of the above exception, another exception occurred:\n\nTraceback (most recent call last):\n  File \"a.py\"\nKeyError: 1\nINFO next\n";
    let found = pieces(python);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].ends_with("KeyError: 1"));
    let timed = "2024-01-01 12:00:00 a\nsecond line\n\nthird line\n2024-01-01 12:00:01 b\n{\"json\":1}\nx\n2024-01-01 12:00:02 c\n2024-01-01 12:00:03 d";
    let found = pieces(timed);
    assert_eq!(
        found,
        [
            "2024-01-01 12:00:00 a\nsecond line\n\nthird line",
            "2024-01-01 12:00:01 b",
            "{\"json\":1}\nx",
            "2024-01-01 12:00:02 c",
            "2024-01-01 12:00:03 d"
        ]
    );
    assert_eq!(pieces("a\nb\nc\r\n\r\nd"), ["a", "b", "c", "d"]);
    assert_eq!(pieces("  first is indented\n"), ["  first is indented"]);
    assert_eq!(pieces("\n \n\r\n"), Vec::<String>::new());
}

#[test]
fn joining_has_limits_and_can_be_off() {
    let trace = format!("start\n{}", "\tat x\n".repeat(1_200));
    let sizes: Vec<_> = pieces(&trace)
        .iter()
        .map(|piece| piece.lines().count())
        .collect();
    assert_eq!(sizes, [500, 500, 201]);
    let wide = format!(
        "start\n{}",
        format!("\t{}\n", "x".repeat(1 << 10)).repeat(400)
    );
    let found = pieces(&wide);
    assert!(
        found.iter().all(|piece| piece.len() <= 256 << 10),
        "{}",
        found.len()
    );
    assert_eq!(
        found
            .iter()
            .map(|piece| piece.lines().count())
            .sum::<usize>(),
        401
    );
    let off = TextOptions {
        joins_lines: false,
        ..TextOptions::default()
    };
    assert_eq!(Lines::new(b"a\n b\n c", &off, ARRIVAL_NS).count(), 3);
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic_and_no_byte_of_it_is_lost(text in "[ -~\n\r\té{}<>\\[\\]\"=:|0-9]{0,120}") {
        read(&text, ARRIVAL_NS);
        let bytes = text.as_bytes();
        let kept: Vec<u8> = Lines::new(bytes, &TextOptions::default(), ARRIVAL_NS).flatten().copied().filter(|b| !b.is_ascii_whitespace()).collect();
        let sent: Vec<u8> = bytes.iter().copied().filter(|b| !b.is_ascii_whitespace()).collect();
        proptest::prop_assert_eq!(kept, sent);
    }
}

/// The real logs lie beside the repository where it is developed; the shapes above stand in for them elsewhere.
mod real {
    use super::*;
    use std::path::Path;

    const LOGHUB: &str = "../shared/data/loghub";

    fn lines(system: &str) -> Option<Vec<String>> {
        let folder = Path::new(LOGHUB);
        if !folder.exists() {
            return None;
        }
        let bytes = std::fs::read(folder.join(format!("{system}_2k.log"))).unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Some(
            text.lines()
                .map(|line| line.trim_end().to_owned())
                .collect(),
        )
    }

    /// The column of the structured file.
    fn column(system: &str, name: &str) -> Vec<String> {
        let path = Path::new(LOGHUB).join(format!("{system}_2k.log_structured.csv"));
        let mut reader = csv::Reader::from_path(path).unwrap();
        let index = reader
            .headers()
            .unwrap()
            .iter()
            .position(|h| h == name)
            .unwrap();
        reader
            .records()
            .map(|row| row.unwrap()[index].to_owned())
            .collect()
    }

    #[test]
    fn time_is_found_in_every_line_of_every_system() {
        for system in [
            "Apache",
            "HDFS",
            "Hadoop",
            "HealthApp",
            "Linux",
            "OpenSSH",
            "Thunderbird",
            "Zookeeper",
        ] {
            let Some(lines) = lines(system) else { return };
            assert!(1_999 <= lines.len(), "{system}");
            for line in &lines {
                assert!(read(line, ARRIVAL_NS).time.is_some(), "{system}: {line}");
            }
            let text = lines.join("\n");
            assert_eq!(pieces(&text).len(), lines.len(), "{system}");
        }
    }

    #[test]
    fn the_level_is_the_true_one() {
        for system in ["Apache", "HDFS", "Hadoop", "Zookeeper"] {
            let Some(lines) = lines(system) else { return };
            for (line, level) in lines.iter().zip(column(system, "Level")) {
                assert_eq!(
                    read(line, ARRIVAL_NS).level,
                    Some(level.as_str()),
                    "{system}: {line}"
                );
            }
        }
        for system in ["OpenSSH", "Linux", "HealthApp"] {
            let Some(lines) = lines(system) else { return };
            for line in &lines {
                let level = read(line, ARRIVAL_NS).level;
                // logrotate writes a level of its own.
                let expected = line.contains("logrotate: ALERT").then_some("ALERT");
                assert_eq!(level, expected, "{system}: {line}");
            }
        }
    }

    #[test]
    fn the_program_is_the_true_one() {
        for system in ["Linux", "Thunderbird", "HealthApp"] {
            let Some(lines) = lines(system) else { return };
            let mut wrong = Vec::new();
            for (line, component) in lines.iter().zip(column(system, "Component")) {
                let source = read(line, ARRIVAL_NS).source.unwrap_or_default().to_owned();
                if source != component && !component.starts_with(&source) {
                    wrong.push((source, component));
                }
            }
            assert!(
                wrong.len() <= 20,
                "{system}: {} {:?}",
                wrong.len(),
                &wrong[..wrong.len().min(20)]
            );
        }
    }

    #[test]
    fn stack_traces_of_a_broker_are_joined() {
        let path = Path::new("../shared/data/kafka-broker.log.zst");
        let Ok(file) = std::fs::File::open(path) else {
            return;
        };
        let mut text = String::new();
        std::io::Read::read_to_string(&mut zstd::Decoder::new(file).unwrap(), &mut text).unwrap();
        let n_starts = text.lines().filter(|line| line.starts_with("[20")).count();
        let found = pieces(&text);
        assert_eq!(found.len(), n_starts);
        assert!(n_starts < text.lines().count());
        let sent: usize = text.lines().map(str::len).sum();
        let kept: usize = found
            .iter()
            .flat_map(|piece| piece.lines())
            .map(str::len)
            .sum();
        assert_eq!(kept, sent);
        for piece in &found {
            let read = read(piece, ARRIVAL_NS);
            assert!(read.time.is_some() && read.level.is_some(), "{piece}");
        }
    }
}
