//! A browser under control: Debian's Chromium through chromedriver's WebDriver protocol, over the sandbox's plain HTTP client.
//! Every page is watched for scripts that should not run and for breaches of its content security policy.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::sandbox::request;

const INSTALL: &str = "install it: apt-get install chromium chromium-driver";
/// How long a page may take to come to what a test expects.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs in every page before its own scripts. `alert` and the payloads' own call both count as an execution.
const WATCH: &str = "
    window.breaches = [];
    window.executions = 0;
    window.pwned = () => { window.executions += 1; };
    window.alert = window.confirm = window.prompt = window.pwned;
    document.addEventListener('securitypolicyviolation', (event) => {
        window.breaches.push(event.violatedDirective + ' ' + event.blockedURI + ' ' + event.sample);
    });";

pub struct Browser {
    driver: Child,
    address: SocketAddr,
    session: String,
    _profile: tempfile::TempDir,
}

impl Browser {
    pub fn start() -> Self {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("chromedriver: {error}; {INSTALL}"));
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port: u16 = lines
            .by_ref()
            .find_map(|line| {
                let line = line.unwrap();
                let rest = line.split_once("successfully on port ")?.1.to_owned();
                rest.trim_end_matches('.').parse().ok()
            })
            .expect("chromedriver tells no port");
        std::thread::spawn(move || lines.for_each(drop));
        let profile = tempfile::tempdir().unwrap();
        let mut browser = Self {
            driver,
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            session: String::new(),
            _profile: profile,
        };
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--force-device-scale-factor=1",
            "--lang=en-US",
        ];
        let mut arguments: Vec<String> = arguments.iter().map(|&text| text.to_owned()).collect();
        arguments.push(format!(
            "--user-data-dir={}",
            browser._profile.path().display()
        ));
        let options = json!({"args": arguments});
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}}});
        let answer = browser.ask("POST", "/session", &wanted);
        browser.session = answer["sessionId"]
            .as_str()
            .unwrap_or_else(|| panic!("{answer}; {INSTALL}"))
            .to_owned();
        browser.resize(1280, 800);
        browser.devtools(
            "Page.addScriptToEvaluateOnNewDocument",
            &json!({"source": WATCH}),
        );
        browser
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = if method == "GET" {
            Vec::new()
        } else {
            body.to_string().into_bytes()
        };
        let headers = [("content-type", "application/json")];
        let answer = request(self.address, method, path, &headers, &body)
            .unwrap_or_else(|error| panic!("chromedriver: {method} {path}: {error}"));
        assert_eq!(
            answer.status,
            200,
            "chromedriver: {method} {path}: {}",
            answer.text()
        );
        answer.json()["value"].take()
    }

    fn command(&self, method: &str, path: &str, body: &Value) -> Value {
        self.ask(method, &format!("/session/{}{path}", self.session), body)
    }

    pub fn devtools(&self, command: &str, parameters: &Value) -> Value {
        self.command(
            "POST",
            "/goog/cdp/execute",
            &json!({"cmd": command, "params": parameters}),
        )
    }

    pub fn resize(&self, width: u32, height: u32) {
        let size =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.devtools("Emulation.setDeviceMetricsOverride", &size);
    }

    pub fn go(&self, url: &str) {
        self.command("POST", "/url", &json!({"url": url}));
    }

    /// Runs a function's body in the page.
    pub fn run(&self, script: &str) -> Value {
        self.command(
            "POST",
            "/execute/sync",
            &json!({"script": script, "args": []}),
        )
    }

    /// The value of an expression.
    pub fn eval(&self, expression: &str) -> Value {
        self.run(&format!("return {expression};"))
    }

    pub fn text(&self, selector: &str) -> String {
        let value = self.eval(&format!(
            "document.querySelector({})?.innerText ?? '(none)'",
            json!(selector)
        ));
        value.as_str().unwrap().to_owned()
    }

    pub fn count(&self, selector: &str) -> u64 {
        self.eval(&format!(
            "document.querySelectorAll({}).length",
            json!(selector)
        ))
        .as_u64()
        .unwrap()
    }

    pub fn url(&self) -> String {
        self.eval("location.href").as_str().unwrap().to_owned()
    }

    /// Waits until an expression is true, and fails with what the page then shows.
    pub fn until(&self, expression: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.eval(&format!("Boolean({expression})")) != true {
            assert!(
                Instant::now() < deadline,
                "never so: {expression}\nat {}\nthe page shows:\n{}\nthe console: {:?}",
                self.url(),
                self.text("body"),
                self.console()
            );
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    /// Waits until the page has asked and shows the answer.
    pub fn settled(&self) {
        self.until("document.readyState === 'complete' && document.getElementById('time').textContent !== '' && !document.body.classList.contains('asking')");
    }

    fn element(&self, selector: &str) -> String {
        let found = self.command(
            "POST",
            "/element",
            &json!({"using": "css selector", "value": selector}),
        );
        found
            .as_object()
            .unwrap()
            .values()
            .next()
            .unwrap()
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// A click where a person would click: fails when something covers the element.
    pub fn click(&self, selector: &str) {
        let element = self.element(selector);
        self.command("POST", &format!("/element/{element}/click"), &json!({}));
    }

    pub fn type_into(&self, selector: &str, text: &str) {
        let element = self.element(selector);
        self.command("POST", &format!("/element/{element}/clear"), &json!({}));
        self.command(
            "POST",
            &format!("/element/{element}/value"),
            &json!({"text": text}),
        );
    }

    /// Presses keys wherever the focus is.
    pub fn press(&self, keys: &str) {
        let strokes: Vec<Value> = keys
            .chars()
            .flat_map(|key| {
                [
                    json!({"type": "keyDown", "value": key}),
                    json!({"type": "keyUp", "value": key}),
                ]
            })
            .collect();
        self.command(
            "POST",
            "/actions",
            &json!({"actions": [{"type": "key", "id": "keys", "actions": strokes}]}),
        );
    }

    /// Drags the mouse from one point of the window to another.
    pub fn drag(&self, from: (f64, f64), to: (f64, f64)) {
        let at = |(x, y): (f64, f64), ms: u32| json!({"type": "pointerMove", "duration": ms, "x": x as i64, "y": y as i64});
        let steps = json!([at(from, 0), {"type": "pointerDown", "button": 0}, at(to, 80), {"type": "pointerUp", "button": 0}]);
        let mouse = json!({"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": steps});
        self.command("POST", "/actions", &json!({"actions": [mouse]}));
    }

    /// What the console holds since the last look: (level, text).
    pub fn console(&self) -> Vec<(String, String)> {
        let log = self.command("POST", "/se/log", &json!({"type": "browser"}));
        log.as_array()
            .unwrap()
            .iter()
            .map(|entry| {
                (
                    entry["level"].as_str().unwrap().to_owned(),
                    entry["message"].as_str().unwrap().to_owned(),
                )
            })
            .collect()
    }

    /// Nothing ran that came out of a log, and the page kept its own policy.
    pub fn assert_clean(&self) {
        assert_eq!(
            self.eval("window.executions"),
            0,
            "a log ran as a script at {}",
            self.url()
        );
        assert_eq!(
            self.eval("window.breaches"),
            json!([]),
            "the content security policy was breached at {}",
            self.url()
        );
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            // Ends Chromium; when that fails, ending chromedriver does.
            let _ = request(
                self.address,
                "DELETE",
                &format!("/session/{}", self.session),
                &[],
                b"",
            );
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
