//! The page in a real browser, on the real binary.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a broken expectation should stop the test"
)]

mod driver;
mod hostile;
#[path = "../sandbox/mod.rs"]
mod sandbox;

use driver::Browser;
use sandbox::{Sandbox, Server};
use serde_json::json;

/// 150 logs, one a minute from midnight; each tenth an error with a nested status and a number beyond a double's digits.
fn fill(server: &Server) {
    let lines: Vec<String> = (0..150)
        .map(|n| {
            let is_error = n % 10 == 0;
            json!({
                "timestamp": format!("2025-03-20T{:02}:{:02}:00.{n:06}Z", n / 60, n % 60),
                "level": if is_error { "ERROR" } else { "INFO" },
                "service": if n % 2 == 0 { "checkout" } else { "search" },
                "message": if n == 77 { "a lonely needle in the hay".to_owned() } else { format!("request {n} done") },
                "http": {"status": if is_error { 500 } else { 200 }},
                "big": 9_007_199_254_740_993_u64,
            })
            .to_string()
        })
        .collect();
    server.ingest(lines.join("\n"));
}

const ALL: &str = "/ui?start=all";

fn open(path: &str) -> (Sandbox, Server, Browser) {
    let sandbox = Sandbox::new();
    let server = sandbox.start();
    fill(&server);
    let browser = Browser::start();
    browser.go(&server.url(path));
    browser.settled();
    (sandbox, server, browser)
}

#[test]
fn a_search_finds_marks_and_is_undone_by_back() {
    let (_sandbox, _server, browser) = open(ALL);
    assert_eq!(browser.text("#count"), "150 logs");
    assert_eq!(
        browser.eval("document.querySelector('#logs .row .message').textContent"),
        "request 149 done"
    );
    browser.press("/");
    browser.type_into("#q", "needle\u{E007}");
    browser.until("document.getElementById('count').textContent === '1 log'");
    assert_eq!(browser.text("#logs mark"), "needle");
    assert!(browser.url().contains("q=needle"), "{}", browser.url());
    browser.run("history.back()");
    browser.until("document.getElementById('count').textContent === '150 logs'");
    assert_eq!(browser.eval("document.getElementById('q').value"), "");
    browser.assert_clean();
}

#[test]
fn older_logs_come_while_scrolling() {
    let (_sandbox, _server, browser) = open(ALL);
    browser.run("scrollTo(0, document.body.scrollHeight)");
    browser.until("document.querySelectorAll('#logs .row').length === 150");
    assert_eq!(
        browser.eval("[...document.querySelectorAll('#logs .message')].at(-1).textContent"),
        "request 0 done"
    );
    assert_eq!(browser.eval("document.getElementById('more').hidden"), true);
}

#[test]
fn the_chart_counts_by_level_and_zooms() {
    let (_sandbox, _server, browser) = open(ALL);
    browser.until("document.querySelectorAll('#chart rect.lv-error').length > 0 && document.querySelectorAll('#chart rect.lv-info').length > 0");
    assert!(
        browser
            .eval("document.querySelector('#chart svg').getAttribute('aria-label')")
            .as_str()
            .unwrap()
            .starts_with("150 logs")
    );
    assert!(
        browser.text("#levels").contains("error"),
        "{}",
        browser.text("#levels")
    );
    let bounds = browser.eval("(({left, top, width, height}) => [left, top, width, height])(document.querySelector('#chart svg').getBoundingClientRect())");
    let bound = |at: usize| bounds[at].as_f64().unwrap();
    let y = bound(1) + bound(3) / 2.0;
    browser.drag(
        (bound(0) + bound(2) * 0.4, y),
        (bound(0) + bound(2) * 0.6, y),
    );
    browser.until("location.search.includes('start=2025-03-20T') && location.search.includes('end=2025-03-20T')");
    browser.settled();
    let left: u64 = browser
        .text("#count")
        .split(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert!(
        (10..80).contains(&left),
        "{left} logs in a fifth of the chart"
    );
    browser.assert_clean();
}

#[test]
fn levels_and_sources_filter() {
    let (_sandbox, _server, browser) = open(ALL);
    browser.until("document.querySelector('#levels .lv-error')");
    browser.click("#levels .lv-error");
    browser.until("document.getElementById('count').textContent === '15 logs'");
    assert_eq!(browser.count("#logs .row:not(.lv-error)"), 0);
    browser.click("#sources summary");
    browser.until("document.querySelectorAll('#sources .menu label').length > 0");
    browser.click("#sources .menu label");
    browser.until("location.search.includes('source=checkout')");
    browser.until("document.getElementById('count').textContent === '15 logs'");
}

#[test]
fn a_log_opens_to_its_fields_and_they_filter() {
    let (_sandbox, _server, browser) = open(ALL);
    browser.click("#logs .row .line");
    browser.until("document.querySelector('#logs .row.open table.record')");
    let fields = browser.text("#logs table.record");
    for expected in [
        "http.status",
        "200",
        "9007199254740993",
        "request 149 done",
        "2025-03-20T02:29:00.000149Z",
    ] {
        assert!(fields.contains(expected), "no {expected} in {fields}");
    }
    browser.click("#logs .detail [role=tab]:nth-child(2)");
    assert!(
        browser
            .text("#logs .json")
            .contains("\"big\": 9007199254740993"),
        "{}",
        browser.text("#logs .json")
    );
    browser.click("#logs .detail [role=tab]:nth-child(1)");
    browser.click("#logs [aria-label='Show as a column: http.status']");
    browser.until("document.querySelector('#head .column')?.textContent.includes('http.status')");
    browser.click("#logs [aria-label='Only logs without this value: http.status']");
    browser.until("document.getElementById('count').textContent === '15 logs'");
    assert_eq!(
        browser.eval("document.getElementById('q').value"),
        "-http.status:=200"
    );
    assert_eq!(browser.text("#logs .row .column"), "500");
    browser.assert_clean();
}

#[test]
fn what_surrounds_a_log_is_shown() {
    let (_sandbox, _server, browser) = open("/ui?start=all&q=needle");
    browser.click("#logs .row .line");
    browser.until("document.querySelector('#logs .detail')");
    browser.run("[...document.querySelectorAll('#logs .detail button')].find((b) => b.textContent === 'Show surrounding').click()");
    browser.until("document.querySelectorAll('#context .row').length === 21");
    assert_eq!(
        browser.eval("document.querySelector('#context .row.here .message').textContent"),
        "a lonely needle in the hay"
    );
    // Neighbours of the same source: every second minute.
    assert_eq!(browser.eval("document.querySelector('#context .row.here').previousElementSibling.querySelector('.message').textContent"), "request 75 done");
    browser.click("#scope");
    browser.until("document.querySelector('#context .row.here').previousElementSibling.querySelector('.message').textContent === 'request 76 done'");
    browser.assert_clean();
}

#[test]
fn new_logs_arrive_live() {
    let (_sandbox, server, browser) = open(ALL);
    browser.click("#live");
    browser.until("document.getElementById('count').textContent === 'Live: the newest 100'");
    let stamp = "2025-03-21T00:00:00Z";
    server.ingest(
        json!({"timestamp": stamp, "level": "WARN", "source": "live", "message": "first arrival"})
            .to_string(),
    );
    browser.until("document.querySelector('#logs .row .message')?.textContent === 'first arrival'");
    // While the reader looks further down, the list stands still and new logs are counted.
    browser.run("scrollTo(0, 600)");
    browser.until("scrollY > 200");
    server.ingest(
        json!({"timestamp": stamp, "level": "WARN", "source": "live", "message": "second arrival"})
            .to_string(),
    );
    browser.until("!document.getElementById('arrived').hidden");
    assert!(
        browser.text("#arrived").starts_with("1 new log"),
        "{}",
        browser.text("#arrived")
    );
    assert_eq!(
        browser.eval("document.querySelector('#logs .row .message')?.textContent"),
        "first arrival"
    );
    browser.click("#arrived");
    browser
        .until("document.querySelector('#logs .row .message')?.textContent === 'second arrival'");
    browser.assert_clean();
}

#[test]
fn a_broken_search_is_explained_at_its_place() {
    let (_sandbox, _server, browser) = open(ALL);
    browser.type_into("#q", "größe:1 AND (level:error\u{E007}");
    browser.until("!document.getElementById('problem').hidden");
    let told = browser.text("#problem");
    assert!(told.contains("größe:1 AND (level:error"), "{told}");
    let caret = browser.eval("document.querySelector('#problem pre').textContent.split('\\n')[1]");
    let caret = caret.as_str().unwrap();
    let answer = _server.get("/logs?q=gr%C3%B6%C3%9Fe%3A1%20AND%20%28level%3Aerror");
    let position = answer.json()["error"]["position"].as_u64().unwrap() as usize;
    let characters = "größe:1 AND (level:error".as_bytes()[..position].to_vec();
    assert_eq!(
        caret,
        format!(
            "{}^",
            " ".repeat(String::from_utf8(characters).unwrap().chars().count())
        )
    );
    assert_eq!(
        browser.eval("document.getElementById('q').getAttribute('aria-invalid')"),
        "true"
    );
    browser.type_into("#q", "needle\u{E007}");
    browser.until("document.getElementById('count').textContent === '1 log'");
    assert_eq!(
        browser.eval("document.getElementById('problem').hidden"),
        true
    );
}

#[test]
fn the_address_holds_the_whole_state() {
    let path = "/ui?q=request&start=2025-03-20T00%3A00%3A00Z&end=2025-03-20T01%3A00%3A00Z&level=error&source=checkout&column=http.status&zone=utc&wrap=1";
    let (_sandbox, server, browser) = open(path);
    assert_eq!(browser.text("#count"), "6 logs");
    assert_eq!(
        browser.eval("document.getElementById('q').value"),
        "request"
    );
    assert_eq!(browser.text("#zone"), "UTC");
    assert_eq!(
        browser.eval("document.querySelector('#levels .lv-error').getAttribute('aria-pressed')"),
        "true"
    );
    assert!(browser.text("#sources summary").starts_with("checkout"));
    assert_eq!(
        browser.eval("document.getElementById('wrap').checked"),
        true
    );
    assert_eq!(browser.text("#head .column button"), "http.status ✕");
    assert!(
        browser
            .text("#logs .row time")
            .ends_with("Mar 20 00:50:00.000"),
        "{}",
        browser.text("#logs .row time")
    );
    assert!(
        browser.text("#time").contains("00:00 – "),
        "{}",
        browser.text("#time")
    );
    // A link to one record opens it among its neighbours.
    let id = browser.eval("fetch('/logs?q=needle').then((answer) => answer.json()).then((answer) => answer.logs[0].id)");
    browser.go(&server.url(&format!("/ui?start=all&id={}", id.as_str().unwrap())));
    browser.until("document.querySelector('#context .row.here .message')?.textContent === 'a lonely needle in the hay'");
    browser.assert_clean();
}

#[test]
fn an_empty_store_says_how_to_begin_and_a_wrong_range_where_the_logs_are() {
    let sandbox = Sandbox::new();
    let server = sandbox.start();
    let browser = Browser::start();
    browser.go(&server.url("/ui"));
    browser.until("document.querySelector('#notice .nothing')");
    let command = browser.text("#notice .command code");
    assert!(
        command.starts_with(&format!("curl {}", server.url("/logs"))),
        "{command}"
    );
    let status = std::process::Command::new("sh")
        .args(["-c", &command])
        .output()
        .unwrap();
    assert!(status.status.success(), "{command}");
    browser.until("document.getElementById('refresh').click() ?? document.getElementById('count').textContent === '1 log'");
    fill(&server);
    browser.go(&server.url("/ui?start=2020-01-01T00:00:00Z&end=2020-01-02T00:00:00Z&q=needle"));
    browser.until("document.querySelector('#notice .nothing h2')?.textContent === 'Nothing in this time range'");
    browser.click("#notice .primary");
    browser.until("document.getElementById('count').textContent === '1 log'");
    browser.assert_clean();
}

#[test]
fn it_fits_a_phone_and_can_be_used_by_keyboard() {
    let (_sandbox, _server, browser) = open(ALL);
    browser.press("jj");
    browser.press("\u{E007}");
    browser.until("document.querySelectorAll('#logs .row')[1].classList.contains('open')");
    browser.press("\u{E00C}");
    browser.until("document.querySelector('#logs .row.open') === null");
    browser.press("?");
    browser.until("document.getElementById('help').open");
    browser.press("\u{E00C}");
    browser.until("!document.getElementById('help').open");
    let nameless = browser.eval("[...document.querySelectorAll('button, input, a, summary')].filter((e) => e.checkVisibility() && !(e.ariaLabel || e.textContent.trim() || e.labels?.length || e.title)).map((e) => e.outerHTML)");
    assert_eq!(nameless, json!([]), "controls without a name");
    browser.resize(400, 800);
    browser.go(&browser.url());
    browser.settled();
    browser.click("#logs .row .line");
    browser.until("document.querySelector('#logs .detail')");
    let width = browser.eval("[document.documentElement.scrollWidth, innerWidth]");
    assert!(
        width[0].as_u64() <= width[1].as_u64(),
        "wider than the window: {width}"
    );
}

#[test]
fn nothing_is_wrong_in_the_console() {
    let (_sandbox, _server, browser) = open(ALL);
    let wrong: Vec<_> = browser
        .console()
        .into_iter()
        .filter(|(level, _)| level == "SEVERE" || level == "WARNING")
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    browser.assert_clean();
}

/// The modules without the page around them: each pair is what is and what should be.
#[test]
fn the_modules_compute_what_they_say() {
    let (_sandbox, _server, browser) = open(ALL);
    let pairs = browser.run(
        r##"return Promise.all(["query", "json", "time", "histogram", "state"].map((name) => import(`/ui/${name}.js`))).then(([query, json, time, histogram, state]) => [
            [query.condition("http.status", "500", false), "http.status:=500"],
            [query.condition("user", "Bob \"B\" \\", true), "-user:=\"Bob \\\"B\\\" \\\\\""],
            [query.condition("my field", "OR", false), "\"my field\":=\"OR\""],
            [query.condition("n", "-5", false), "n:=\"-5\""],
            [query.narrow("", "a:=1"), "a:=1"],
            [query.narrow("x OR y", "a:=1"), "(x OR y) a:=1"],
            [query.narrow("x a:=1", "a:=1"), "x a:=1"],
            [query.narrow("x -a:=1 y", "a:=1"), "x a:=1 y"],
            [query.narrow("a:=1", "-a:=1"), "-a:=1"],
            [query.words("Error -debug level:warn \"connection closed\" n:>5 a*b NOT no AND"), ["error", "warn", "connection", "closed"]],
            [json.stringify(json.parse('{"a":12345678901234567890,"b":1.50,"c":1e400,"__proto__":[1,{}]}'), 0), '{"a":12345678901234567890,"b":1.50,"c":1e400,"__proto__":[1,{}]}'],
            [json.leaves(json.parse('{"a":{"b.c":1,"d":{}},"e":[{"f":2}]}')).map(([name]) => name), ["a.b.c", "a.d", "e"]],
            [json.at(json.parse('{"a":{"b.c":7}}'), "a.b.c"), 7],
            [time.formatInstant("1999-03-20T01:02:03.456789Z", true), "1999 Mar 20 01:02:03.456"],
            [time.describeRange("-15m", "", true), "Last 15 minutes"],
            [time.describeRange("all", "", true), "All time"],
            [time.fromInput("2025-03-20T01:02:03", true), "2025-03-20T01:02:03Z"],
            [histogram.stackOf({count: 10, by: {INFO: 3, err: 2, ERROR: 1, "(other)": 1}}), [["error", 3], ["info", 3], ["other", 4]]],
            [histogram.intervalName(300000), "5 minutes"],
            [histogram.intervalName(86400000), "day"],
            [state.toAddress({...state.read(), q: "a b", start: "-1h", levels: ["error"], columns: ["x.y"]}), "/ui?q=a+b&level=error&column=x.y"],
        ]);"##,
    );
    for pair in pairs.as_array().unwrap() {
        assert_eq!(pair[0], pair[1]);
    }
    assert_eq!(pairs.as_array().unwrap().len(), 21);
}
