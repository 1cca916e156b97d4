//! Shape `access`: web server lines in Apache's combined format.

use crate::loadgen::rng::Rng;
use crate::loadgen::shape::text::{StampCache, push_ip, push_str, push_u64};

const PATHS: [&str; 16] = [
    "/",
    "/favicon.ico",
    "/static/app.css",
    "/static/app.js",
    "/images/logo.png",
    "/blog/",
    "/search?q=",
    "/products/",
    "/cart",
    "/checkout",
    "/api/v1/items/",
    "/about",
    "/feed.xml",
    "/robots.txt",
    "/login",
    "/downloads/",
];
const REFERRERS: [&str; 6] = [
    "-",
    "-",
    "https://www.example.com/",
    "https://search.example.net/?q=logs",
    "https://news.example.org/item",
    "https://www.example.com/blog/",
];
const AGENTS: [&str; 7] = [
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 Safari/605.1.15",
    "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
    "curl/8.11.0",
    "Mozilla/5.0 (compatible; ExampleBot/2.1; +http://www.example.com/bot.html)",
    "Go-http-client/2.0",
];
const USERS: [&str; 8] = ["-", "-", "-", "-", "-", "alice", "bob", "carol"];

pub fn write(mut rng: Rng, time_ns: i64, stamps: &mut StampCache, out: &mut Vec<u8>) {
    let rng = &mut rng;
    // A few thousand clients, some of them busy.
    let client = Rng::of_line(11, rng.skewed_below(5_000)).draw();
    push_ip(out, client);
    push_str(out, " - ");
    push_str(out, rng.pick(&USERS));
    push_str(out, " [");
    stamps.push_clf(out, time_ns);
    push_str(out, "] \"");
    push_str(
        out,
        rng.pick(&["GET", "GET", "GET", "GET", "GET", "POST", "HEAD"]),
    );
    out.push(b' ');
    let path = rng.pick_skewed(&PATHS);
    push_str(out, path);
    if path.ends_with(['=', '/']) && 1 < path.len() {
        push_u64(out, rng.skewed_below(20_000));
    }
    push_str(out, " HTTP/1.1\" ");
    let status = match rng.below(100) {
        0..2 => rng.pick(&[500_u64, 502, 503]),
        2..8 => rng.pick(&[400_u64, 401, 403, 404, 404]),
        8..18 => rng.pick(&[301_u64, 302, 304]),
        _ => 200,
    };
    push_u64(out, status);
    out.push(b' ');
    push_u64(
        out,
        if status == 304 {
            0
        } else {
            150 + rng.skewed_below(400_000)
        },
    );
    push_str(out, " \"");
    push_str(out, rng.pick(&REFERRERS));
    push_str(out, "\" \"");
    push_str(out, rng.pick_skewed(&AGENTS));
    out.push(b'"');
}
