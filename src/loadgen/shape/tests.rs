//! What the shapes promise: determinism, valid JSON, the stated sizes and shares.

use std::collections::HashSet;

use super::{LineTimes, LineWriter, ShapeKind};

const DAY_NS: i64 = 86_400_000_000_000;
const START_NS: i64 = 1_742_428_800_000_000_000;

fn lines(kind: ShapeKind, seed: u64, count: u64) -> Vec<u8> {
    let times = LineTimes::Spread {
        start_ns: START_NS,
        end_ns: START_NS + DAY_NS,
        count,
    };
    let mut writer = LineWriter::new(kind, seed, times);
    let mut out = Vec::new();
    for index in 0..count {
        writer.write(index, &mut out);
    }
    out
}

fn parsed(kind: ShapeKind, count: u64) -> Vec<serde_json::Value> {
    String::from_utf8(lines(kind, 1, count))
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn same_seed_same_bytes_other_seed_other_bytes() {
    for kind in [
        ShapeKind::App,
        ShapeKind::Access,
        ShapeKind::Wide,
        ShapeKind::Repetitive,
    ] {
        assert_eq!(lines(kind, 1, 500), lines(kind, 1, 500), "{kind:?}");
        assert_ne!(lines(kind, 1, 500), lines(kind, 2, 500), "{kind:?}");
    }
}

#[test]
fn sizes_are_as_described() {
    for (kind, low, high) in [
        (ShapeKind::App, 320, 400),
        (ShapeKind::Access, 150, 260),
        (ShapeKind::Wide, 1_500, 2_200),
        (ShapeKind::Repetitive, 120, 180),
    ] {
        let mean = lines(kind, 1, 2_000).len() / 2_000;
        assert!((low..=high).contains(&mean), "{kind:?}: {mean} bytes");
    }
}

#[test]
fn app_has_the_stated_shares() {
    let records = parsed(ShapeKind::App, 50_000);
    let share = |needle: &str| {
        let n = records
            .iter()
            .filter(|record| record["message"].as_str().unwrap().contains(needle))
            .count();
        n as f64 / records.len() as f64
    };
    assert!(
        (0.05..0.07).contains(&share("timeout")),
        "{}",
        share("timeout")
    );
    let closed = share("connection closed by peer");
    assert!((0.0005..0.0015).contains(&closed), "{closed}");
    let traces: HashSet<&str> = records
        .iter()
        .map(|record| record["trace_id"].as_str().unwrap())
        .collect();
    assert_eq!(traces.len(), records.len());
}

#[test]
fn times_stay_inside_the_span_and_rise() {
    let records = parsed(ShapeKind::App, 1_000);
    let first = records[0]["timestamp"].as_str().unwrap();
    let last = records[999]["timestamp"].as_str().unwrap();
    assert!(first.starts_with("2025-03-20T00:00:00.00"), "{first}");
    assert!(last.starts_with("2025-03-20T23:58:"), "{last}");
}

#[test]
fn wide_events_have_about_40_fields() {
    let counts: Vec<usize> = parsed(ShapeKind::Wide, 1_000)
        .iter()
        .map(|record| record.as_object().unwrap().len())
        .collect();
    let mean = counts.iter().sum::<usize>() / counts.len();
    assert!((36..=46).contains(&mean), "{mean}");
}

#[test]
fn repetitive_is_json_with_the_standard_fields() {
    for record in parsed(ShapeKind::Repetitive, 200) {
        for name in ["timestamp", "level", "source", "message"] {
            assert!(record[name].is_string(), "{record}");
        }
    }
}

#[test]
fn access_lines_have_the_combined_format() {
    let text = String::from_utf8(lines(ShapeKind::Access, 1, 200)).unwrap();
    let pattern = regex::Regex::new(
        r#"^[0-9.]+ - [-a-z]+ \[20/Mar/2025:\d\d:\d\d:\d\d \+0000\] "[A-Z]+ \S+ HTTP/1\.1" \d{3} \d+ "\S+" "[^"]+"$"#,
    )
    .unwrap();
    for line in text.lines() {
        assert!(pattern.is_match(line), "{line}");
    }
}

#[test]
fn extra_fields_come_first() {
    let mut writer = LineWriter::new(ShapeKind::App, 1, LineTimes::Now);
    let mut out = Vec::new();
    writer.write_with(0, br#""seq":7,"#, &mut out);
    let record: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(record["seq"], 7);
}
