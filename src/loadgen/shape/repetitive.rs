//! Shape `repetitive`: what health checks and schedulers write all day. A handful of templates, few values.

use crate::loadgen::rng::Rng;
use crate::loadgen::shape::text::{StampCache, push_padded, push_str, push_u64};

/// (level, source, message before the number, after it)
const TEMPLATES: [(&str, &str, &str, &str); 8] = [
    ("INFO", "kubelet", "probe of pod web succeeded in ", " ms"),
    ("INFO", "gateway", "GET /healthz answered 200 in ", " ms"),
    ("DEBUG", "scheduler", "nothing to do, sleeping ", " s"),
    (
        "INFO",
        "scheduler",
        "job cleanup finished, ",
        " rows removed",
    ),
    ("INFO", "sessions", "heartbeat, ", " sessions open"),
    ("DEBUG", "cache", "evicted ", " entries"),
    ("WARN", "database", "checkpoint took ", " ms"),
    ("ERROR", "mailer", "relay did not answer, try ", ""),
];

pub fn write(mut rng: Rng, time_ns: i64, stamps: &mut StampCache, out: &mut Vec<u8>) {
    let (level, source, before, after) = rng.pick_skewed(&TEMPLATES);
    push_str(out, r#"{"timestamp":""#);
    stamps.push_rfc3339(out, time_ns, 3);
    push_str(out, r#"","level":""#);
    push_str(out, level);
    push_str(out, r#"","source":""#);
    push_str(out, source);
    push_str(out, r#"","message":""#);
    push_str(out, before);
    push_u64(out, 1 + rng.skewed_below(20));
    push_str(out, after);
    push_str(out, r#"","host":"node-"#);
    push_padded(out, rng.below(4), 2);
    push_str(out, "\"}");
}
