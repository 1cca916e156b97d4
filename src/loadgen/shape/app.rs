//! Shape `app`: JSON request logs. Random identifiers make them hard to compress, as such logs are.
//!
//! Known shares, so that questions have known answers: the word `timeout` stands in 6 % of the messages, the phrase
//! `connection closed by peer` in 0.1 %, users are 100,000, hosts 64. Now and then a service has ten bad minutes.

use crate::loadgen::rng::Rng;
use crate::loadgen::shape::text::{StampCache, push_hex, push_ip, push_padded, push_str, push_u64};

pub const SERVICES: [&str; 12] = [
    "gateway",
    "checkout",
    "catalog",
    "payments",
    "search",
    "accounts",
    "inventory",
    "shipping",
    "mailer",
    "pricing",
    "sessions",
    "reports",
];
const REGIONS: [&str; 4] = ["eu-west-1", "us-east-1", "us-west-2", "ap-south-1"];
const METHODS: [&str; 8] = ["GET", "GET", "GET", "GET", "POST", "POST", "PUT", "DELETE"];
const RESOURCES: [&str; 10] = [
    "orders",
    "carts",
    "items",
    "users",
    "invoices",
    "sessions",
    "prices",
    "reviews",
    "shipments",
    "stock",
];

/// A piece of a message.
#[derive(Clone, Copy)]
enum Part {
    T(&'static str),
    /// A number of up to seven digits.
    Id,
    /// Eight hexadecimal digits.
    Hex,
    Ip,
    Service,
    /// A small number.
    Few,
    /// A number of milliseconds.
    Ms,
}
use Part::{Few, Hex, Id, Ip, Ms, Service, T};

const QUIET: [&[Part]; 12] = [
    &[
        T("order "),
        Id,
        T(" accepted, reserved "),
        Few,
        T(" items from shard "),
        Few,
    ],
    &[
        T("cache miss for key "),
        Hex,
        T(", loaded from "),
        Service,
        T(" in "),
        Ms,
        T(" ms"),
    ],
    &[T("session "), Hex, T(" refreshed for user "), Id],
    &[
        T("payment "),
        Hex,
        T(" authorised after "),
        Few,
        T(" checks"),
    ],
    &[T("request finished, "), Id, T(" bytes sent to "), Ip],
    &[
        T("index of "),
        Id,
        T(" documents rebuilt in "),
        Ms,
        T(" ms"),
    ],
    &[
        T("message "),
        Hex,
        T(" published to topic "),
        Service,
        T(" partition "),
        Few,
    ],
    &[T("user "), Id, T(" signed in from "), Ip],
    &[T("stock of item "), Id, T(" is now "), Few],
    &[T("mail "), Hex, T(" handed to relay "), Ip, T(" as "), Id],
    &[
        T("batch "),
        Id,
        T(" of "),
        Few,
        T(" records committed at offset "),
        Id,
    ],
    &[
        T("price of item "),
        Id,
        T(" recalculated from "),
        Few,
        T(" rules"),
    ],
];
const WARNINGS: [&[Part]; 5] = [
    &[
        T("retrying call to "),
        Service,
        T(", attempt "),
        Few,
        T(" of 5"),
    ],
    &[
        T("slow query took "),
        Ms,
        T(" ms: select from orders where id = "),
        Id,
    ],
    &[
        T("queue of "),
        Service,
        T(" is at "),
        Few,
        T(" percent, shedding load"),
    ],
    &[T("deprecated field seen in request "), Hex, T(" from "), Ip],
    &[
        T("rate limit near for client "),
        Ip,
        T(": "),
        Id,
        T(" requests"),
    ],
];
const FAILURES: [&[Part]; 5] = [
    &[
        T("payment "),
        Hex,
        T(" declined: upstream answered 502 after "),
        Ms,
        T(" ms"),
    ],
    &[
        T("could not reserve item "),
        Id,
        T(": deadlock detected, transaction "),
        Hex,
        T(" rolled back"),
    ],
    &[
        T("unhandled exception java.lang.IllegalStateException: cart "),
        Id,
        T(" is closed"),
    ],
    &[
        T("connection refused by "),
        Ip,
        T(":5432, pool of "),
        Service,
        T(" is empty"),
    ],
    &[
        T("certificate of "),
        Service,
        T(" rejected: expired "),
        Few,
        T(" days ago"),
    ],
];
const TIMEOUT: &[Part] = &[
    T("timeout while waiting for "),
    Service,
    T(" after "),
    Ms,
    T(" ms, request "),
    Hex,
];
const CLOSED: &[Part] = &[
    T("connection closed by peer "),
    Ip,
    T(" while reading "),
    Id,
    T(" bytes"),
];

/// Ten minutes in every three hours and ten minutes are bad ones for one service.
const INCIDENT_SLOT_NS: i64 = 600_000_000_000;
const INCIDENT_EVERY_SLOTS: i64 = 19;

pub fn write(mut rng: Rng, time_ns: i64, stamps: &mut StampCache, out: &mut Vec<u8>) {
    let rng = &mut rng;
    let service = rng.pick_skewed(&SERVICES);
    let is_incident = time_ns
        .div_euclid(INCIDENT_SLOT_NS)
        .rem_euclid(INCIDENT_EVERY_SLOTS)
        == 7
        && (service == "payments" || service == "checkout");
    let roll = rng.below(10_000);
    let (level, message) = match roll {
        0..10 => ("ERROR", CLOSED),
        _ if is_incident && roll < 4_000 => ("ERROR", rng.pick(&FAILURES)),
        10..410 => ("WARN", TIMEOUT),
        410..610 => ("ERROR", TIMEOUT),
        610..850 => ("ERROR", rng.pick(&FAILURES)),
        850..1_500 => ("WARN", rng.pick(&WARNINGS)),
        1_500..3_000 => ("DEBUG", rng.pick(&QUIET)),
        _ => ("INFO", rng.pick(&QUIET)),
    };
    let region = rng.pick_skewed(&REGIONS);

    push_str(out, r#"{"timestamp":""#);
    stamps.push_rfc3339(out, time_ns, 6);
    push_str(out, r#"","level":""#);
    push_str(out, level);
    push_str(out, r#"","service":""#);
    push_str(out, service);
    push_str(out, r#"","host":"node-"#);
    push_padded(out, rng.below(64), 2);
    push_str(out, r#"","region":""#);
    push_str(out, region);
    push_str(out, r#"","message":""#);
    push_message(rng, message, out);
    push_str(out, r#"","trace_id":""#);
    push_hex(out, rng.draw(), 16);
    push_hex(out, rng.draw(), 16);
    push_str(out, r#"","span_id":""#);
    push_hex(out, rng.draw(), 16);
    push_str(out, r#"","user_id":"u"#);
    push_padded(out, rng.below(100_000), 6);
    push_request(rng, level, out);
}

/// Duration, the nested `http` object and the closing brace.
fn push_request(rng: &mut Rng, level: &str, out: &mut Vec<u8>) {
    let duration_us = match level {
        "ERROR" | "WARN" => 200_000 + rng.skewed_below(4_800_000),
        _ => 300 + rng.skewed_below(400_000),
    };
    push_str(out, r#"","duration_ms":"#);
    push_u64(out, duration_us / 1000);
    out.push(b'.');
    push_padded(out, duration_us % 1000, 3);
    let method = rng.pick(&METHODS);
    let status = match level {
        "ERROR" => rng.pick(&[500_u64, 500, 502, 503, 504]),
        "WARN" => rng.pick(&[200_u64, 400, 404, 408, 429]),
        _ if method == "POST" => 201,
        _ if method == "DELETE" => 204,
        _ => rng.pick(&[200_u64, 200, 200, 200, 200, 200, 304, 404]),
    };
    push_str(out, r#","http":{"method":""#);
    push_str(out, method);
    push_str(out, r#"","path":"/api/v"#);
    push_u64(out, 1 + rng.below(2));
    out.push(b'/');
    push_str(out, rng.pick_skewed(&RESOURCES));
    out.push(b'/');
    push_u64(out, rng.below(1_000_000));
    push_str(out, r#"","status":"#);
    push_u64(out, status);
    push_str(out, "}}");
}

fn push_message(rng: &mut Rng, parts: &[Part], out: &mut Vec<u8>) {
    for part in parts {
        match part {
            T(text) => push_str(out, text),
            Id => push_u64(out, rng.below(10_000_000)),
            Hex => push_hex(out, rng.draw(), 8),
            Ip => push_ip(out, rng.draw()),
            Service => push_str(out, rng.pick(&SERVICES)),
            Few => push_u64(out, 1 + rng.below(99)),
            Ms => push_u64(out, 1 + rng.skewed_below(9_000)),
        }
    }
}
