//! Logs whose every part was chosen by an attacker: in each view of the page they stay text.

use serde_json::json;

use crate::driver::Browser;
use crate::sandbox::{Sandbox, Server};

/// Each would call `pwned()` somewhere, were it taken for markup, a script, a style, an address or a template.
const PAYLOADS: &[&str] = &[
    "<script>pwned()</script>",
    "</script><script>pwned()</script>",
    "<img src=x onerror=pwned()>",
    "<svg onload=pwned()>",
    "<svg><script>pwned()</script></svg>",
    "\"><img src=x onerror=pwned()>",
    "'><img src=x onerror=pwned()>",
    "\" onmouseover=\"pwned()\" autofocus onfocus=\"pwned()",
    "' onfocus='pwned()' autofocus='",
    "<iframe src=javascript:pwned()></iframe>",
    "<iframe srcdoc=\"<script>parent.pwned()</script>\"></iframe>",
    "<object data=javascript:pwned()>",
    "<embed src=javascript:pwned()>",
    "<a href=javascript:pwned()>x</a>",
    "javascript:pwned()",
    "data:text/html,<script>pwned()</script>",
    "<base href=//evil.example/>",
    "<link rel=stylesheet href=//evil.example/x.css>",
    "<meta http-equiv=refresh content='0;url=javascript:pwned()'>",
    "<style>@import '//evil.example/x.css';*{background:url(javascript:pwned())}</style>",
    "<details open ontoggle=pwned()>",
    "<video><source onerror=pwned()></video>",
    "<audio src=x onerror=pwned()>",
    "<input autofocus onfocus=pwned()>",
    "<body onload=pwned()>",
    "<marquee onstart=pwned()>",
    "<form action=javascript:pwned()><button>x</button></form>",
    "<math><mi xlink:href=\"javascript:pwned()\">x</mi></math>",
    "<template><script>pwned()</script></template>",
    "<noscript><p title=\"</noscript><img src=x onerror=pwned()>\">",
    "<textarea></textarea><img src=x onerror=pwned()>",
    "<!--><img src=x onerror=pwned()>-->",
    "<![CDATA[<img src=x onerror=pwned()>]]>",
    "&lt;img src=x onerror=pwned()&gt;",
    "&#60;script&#62;pwned()&#60;/script&#62;",
    "\\u003cscript\\u003epwned()\\u003c/script\\u003e",
    "{{constructor.constructor('pwned()')()}}",
    "${pwned()}",
    "#{pwned()}",
    "`${pwned()}`",
    "';pwned();//",
    "\";pwned();//",
    "*/pwned()/*",
    "__proto__",
    "constructor",
    "toString",
    "hasOwnProperty",
    "\u{2028}pwned()\u{2029}",
    "\u{202E}gnp.exe\u{202C}<img src=x onerror=pwned()>",
    "\u{0}<img src=x onerror=pwned()>",
    "expression(pwned())",
    "url(javascript:pwned())",
];

/// Every payload as message, source, level, value, name, nested name and in an array.
fn ingest(server: &Server) {
    let mut lines = Vec::new();
    for (n, payload) in PAYLOADS.iter().enumerate() {
        let second = format!("2025-03-20T00:{:02}:{:02}Z", n / 60, n % 60);
        let with = |extra: serde_json::Value| {
            let mut record =
                json!({"timestamp": second, "level": "INFO", "source": "web", "message": "plain"});
            record
                .as_object_mut()
                .unwrap()
                .extend(extra.as_object().unwrap().clone());
            record.to_string()
        };
        lines.push(with(json!({"message": payload})));
        lines.push(with(json!({"source": payload})));
        lines.push(with(json!({"level": payload})));
        lines.push(with(
            json!({"value": payload, "list": [payload, {"deep": payload}]}),
        ));
        lines.push(with(json!({ *payload: "named" })));
        lines.push(with(json!({"outer": { *payload: payload }})));
    }
    server.ingest(lines.join("\n"));
}

fn encode(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// No element of the lists is one that only markup in a log could have made.
fn assert_only_text(browser: &Browser) {
    browser.assert_clean();
    let strange = browser.eval(
        "[...document.querySelectorAll('#logs *, #fields *, #context *, #sources *, #problem *, #head *, #chart *')]
            .map((e) => e.localName)
            .filter((n) => !['div','span','time','mark','button','table','tbody','tr','td','th','pre','details','summary','label','input','p','svg','g','rect','line','text','path','h2','strong'].includes(n))",
    );
    assert_eq!(
        strange,
        json!([]),
        "elements made by a log at {}",
        browser.url()
    );
}

#[test]
fn logs_stay_text_in_every_view() {
    let sandbox = Sandbox::new();
    let server = sandbox.start();
    ingest(&server);
    let browser = Browser::start();
    browser.go(&server.url("/ui?start=all"));
    browser.settled();
    assert_eq!(
        browser.text("#count"),
        format!("{} logs", PAYLOADS.len() * 6)
    );
    // All rows, all opened, as fields and as JSON.
    browser.run("scrollTo(0, document.body.scrollHeight)");
    browser.until(&format!("(scrollTo(0, document.body.scrollHeight), document.querySelectorAll('#logs .row').length === {})", PAYLOADS.len() * 6));
    browser.run("document.querySelectorAll('#logs .line').forEach((line) => line.click())");
    assert_only_text(&browser);
    browser.run(
        "document.querySelectorAll('#logs [role=tab]:nth-child(2)').forEach((tab) => tab.click())",
    );
    assert_only_text(&browser);
    let shown = browser.eval("document.getElementById('logs').textContent");
    let shown = shown.as_str().unwrap();
    for payload in PAYLOADS.iter().filter(|payload| payload.starts_with('<')) {
        assert!(shown.contains(payload), "not shown as it is: {payload}");
    }
    // The fields with their values, the menu of sources, a tip of the chart.
    browser.run("document.querySelectorAll('#fields summary').forEach((field) => field.click())");
    browser.run("document.querySelector('#sources summary').click()");
    browser.until("document.querySelectorAll('#sources .menu label').length > 20");
    browser.run("document.querySelector('#chart svg').dispatchEvent(new PointerEvent('pointermove', {clientX: 600, clientY: 150}))");
    assert_only_text(&browser);
    // Surrounding logs of every source.
    browser.run("document.querySelector('#sources details').open = false; [...document.querySelectorAll('#logs .detail button')].find((b) => b.textContent === 'Show surrounding').click()");
    browser.until("document.querySelectorAll('#context .row').length > 1");
    browser.run("document.getElementById('scope').click()");
    browser.until("document.querySelectorAll('#context .row').length > 10");
    browser.run("document.querySelectorAll('#context .line').forEach((line) => line.click())");
    assert_only_text(&browser);
    // Live.
    browser.go(&server.url("/ui?live=1"));
    browser.until("document.querySelectorAll('#logs .row').length === 100");
    ingest(&server);
    browser.until("!document.getElementById('arrived').hidden || document.querySelectorAll('#logs .row').length > 100");
    assert_only_text(&browser);
}

/// The address is chosen by whoever sends the link.
#[test]
fn addresses_stay_text() {
    let sandbox = Sandbox::new();
    let server = sandbox.start();
    ingest(&server);
    let browser = Browser::start();
    for payload in PAYLOADS {
        let text = encode(payload);
        browser.go(&server.url(&format!(
            "/ui?start=all&q=web&column={text}&source={text}&source=web&level={text}"
        )));
        browser.settled();
        assert_only_text(&browser);
        browser.go(&server.url(&format!(
            "/ui?q={text}&start={text}&end={text}&id={text}&zone={text}"
        )));
        browser.settled();
        assert_only_text(&browser);
    }
}

/// Narrowing by a value gives back the logs that have it, whatever it holds: the page's quoting is the language's.
#[test]
fn filters_by_hostile_values_find_them() {
    let sandbox = Sandbox::new();
    let server = sandbox.start();
    ingest(&server);
    let browser = Browser::start();
    browser.go(&server.url("/ui?start=all"));
    browser.settled();
    for payload in PAYLOADS {
        let q = browser.run(&format!(
            "return import('/ui/query.js').then(({{ condition }}) => condition('value', {}, false));",
            json!(payload)
        ));
        let answer = server.get_json(&format!("/logs?q={}", encode(q.as_str().unwrap())));
        assert_eq!(answer["total"]["value"], 1, "{q} for {payload}");
        let name = browser.run(&format!(
            "return import('/ui/query.js').then(({{ condition }}) => condition({}, 'named', false));",
            json!(payload)
        ));
        let answer = server.get_json(&format!("/logs?q={}", encode(name.as_str().unwrap())));
        assert_eq!(answer["total"]["value"], 1, "{name} for the name {payload}");
    }
}
