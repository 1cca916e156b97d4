//! `logyard kibana-setup` against a Kibana that is fake, but strict: it checks paths, headers, the form, and that every object is whole.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests: a failure should stop the test"
)]

#[path = "sandbox/redis_server.rs"]
mod redis_server;
mod sandbox;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Output;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use sandbox::Sandbox;
use serde_json::{Value, json};

/// (space, type, id) → object.
type Objects = BTreeMap<(String, String, String), Value>;

#[derive(Default)]
struct Fake {
    /// The `Authorization` that is let in; `None`: anyone.
    login: Option<String>,
    version: String,
    /// Answers to `/api/status` before it is available.
    starting: Mutex<u32>,
    objects: Mutex<Objects>,
    calls: Mutex<Vec<String>>,
    /// What went against the rules.
    faults: Mutex<Vec<String>>,
}

struct Kibana {
    fake: Arc<Fake>,
    address: SocketAddr,
    _runtime: tokio::runtime::Runtime,
}

impl Kibana {
    fn start(fake: Fake) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let fake = Arc::new(fake);
        let router = Router::new().fallback(answer).with_state(fake.clone());
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self {
            fake,
            address,
            _runtime: runtime,
        }
    }

    fn setup(&self, flags: &[&str]) -> Output {
        let url = format!("http://{}/base", self.address);
        let mut arguments = vec!["kibana-setup", "--kibana", &url, "--wait", "10"];
        arguments.extend(flags);
        let output = Sandbox::new().run(&arguments);
        assert_eq!(*self.fake.faults.lock().unwrap(), Vec::<String>::new());
        output
    }

    fn succeeds(&self, flags: &[&str]) -> String {
        let output = self.setup(flags);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    fn fails(&self, flags: &[&str]) -> String {
        let output = self.setup(flags);
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    }
}

fn kibana() -> Fake {
    Fake {
        version: "8.19.9".to_owned(),
        ..Fake::default()
    }
}

fn json_answer(status: u16, body: &Value) -> Response {
    let status = StatusCode::from_u16(status).unwrap();
    (
        status,
        [("content-type", "application/json")],
        body.to_string(),
    )
        .into_response()
}

fn error(status: u16, message: &str) -> Response {
    json_answer(status, &json!({"statusCode": status, "message": message}))
}

async fn answer(
    State(fake): State<Arc<Fake>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let called = format!("{method} {uri}");
    fake.calls.lock().unwrap().push(called.clone());
    let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap());
    if method == Method::POST && header("kbn-xsrf").is_none() {
        return error(400, "Request must contain a kbn-xsrf header.");
    }
    if fake.login.as_deref() != header("authorization") {
        return error(401, "missing authentication credentials for REST request");
    }
    let Some(path) = uri.path().strip_prefix("/base") else {
        return error(404, "Not Found");
    };
    let (space, path) = match path.strip_prefix("/s/") {
        Some(rest) => {
            let (space, path) = rest.split_once('/').unwrap();
            (space.to_owned(), format!("/{path}"))
        }
        None => ("default".to_owned(), path.to_owned()),
    };
    let handled = handle(&fake, &method, &space, &path, uri.query(), &headers, &body);
    match handled {
        Ok(response) => response,
        Err(fault) => {
            fake.faults
                .lock()
                .unwrap()
                .push(format!("{called}: {fault}"));
            error(400, &fault)
        }
    }
}

fn handle(
    fake: &Fake,
    method: &Method,
    space: &str,
    path: &str,
    query: Option<&str>,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Response, String> {
    const VIEWS: &str = "/api/data_views/data_view";
    let key = |id: &str| (space.to_owned(), "index-pattern".to_owned(), id.to_owned());
    let mut objects = fake.objects.lock().unwrap();
    match (method.as_str(), path) {
        ("GET", "/api/status") => {
            let mut starting = fake.starting.lock().unwrap();
            if 0 < *starting {
                *starting -= 1;
                let text = "Kibana server is not ready yet";
                return Ok((StatusCode::SERVICE_UNAVAILABLE, text).into_response());
            }
            Ok(json_answer(
                200,
                &json!({
                    "name": "kibana",
                    "version": {"number": fake.version},
                    "status": {"overall": {"level": "available", "summary": "All services and plugins are available"}},
                }),
            ))
        }
        ("GET", "/api/spaces/space/team") => Ok(json_answer(200, &json!({"id": "team"}))),
        ("GET", path) if path.starts_with("/api/spaces/space/") => Ok(error(404, "Not Found")),
        ("GET", path) if path.starts_with(VIEWS) => {
            let id = path.rsplit('/').next().unwrap();
            match objects.get(&key(id)) {
                Some(view) => Ok(json_answer(200, &json!({"data_view": view}))),
                None => Ok(error(404, "Saved object [index-pattern/…] not found")),
            }
        }
        ("POST", VIEWS) => {
            let view = view_of(headers, body)?;
            let id = view["id"].as_str().ok_or("no id")?.to_owned();
            let is_doubled = objects
                .iter()
                .any(|((s, _, _), known)| s == space && known["name"] == view["name"]);
            if is_doubled {
                return Ok(error(400, "Duplicate data view: Logyard"));
            }
            objects.insert(key(&id), view);
            Ok(json_answer(200, &json!({"data_view": {"id": id}})))
        }
        ("POST", path) if path.starts_with(VIEWS) => {
            let id = path.rsplit('/').next().unwrap();
            let changes = view_of(headers, body)?;
            if changes.get("id").is_some() {
                return Err("an update does not take `id`".to_owned());
            }
            let known = objects.get_mut(&key(id)).ok_or("an update of nothing")?;
            for (name, value) in changes.as_object().unwrap() {
                known[name] = value.clone();
            }
            Ok(json_answer(200, &json!({"data_view": known})))
        }
        ("POST", "/api/saved_objects/_import") => {
            if query != Some("overwrite=true") {
                return Err(format!("query {query:?}"));
            }
            import(&mut objects, space, headers, body)
        }
        _ => Err("no such call".to_owned()),
    }
}

fn view_of(headers: &HeaderMap, body: &[u8]) -> Result<Value, String> {
    if headers["content-type"] != "application/json" {
        return Err("not JSON".to_owned());
    }
    let mut body: Value = serde_json::from_slice(body).map_err(|e| e.to_string())?;
    let view = body["data_view"].take();
    for name in ["title", "name", "timeFieldName"] {
        view[name].as_str().ok_or_else(|| format!("no {name}"))?;
    }
    Ok(view)
}

fn import(
    objects: &mut Objects,
    space: &str,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Response, String> {
    let lines = file_of(headers, body)?;
    let new: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).map_err(|e| format!("{e}: {line}")))
        .collect::<Result<_, _>>()?;
    let key = |kind: &Value, id: &Value| {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (space.to_owned(), text(kind), text(id))
    };
    let mut errors = Vec::new();
    for object in &new {
        check_object(object)?;
        let missing: Vec<&Value> = object["references"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|reference| {
                let is_new = new.iter().any(|other| {
                    other["type"] == reference["type"] && other["id"] == reference["id"]
                });
                !is_new && !objects.contains_key(&key(&reference["type"], &reference["id"]))
            })
            .collect();
        if !missing.is_empty() {
            let why = json!({"type": "missing_references", "references": missing});
            errors.push(json!({"type": object["type"], "id": object["id"], "error": why}));
        }
    }
    if !errors.is_empty() {
        let answer = json!({"success": false, "successCount": 0, "errors": errors});
        return Ok(json_answer(200, &answer));
    }
    let count = new.len();
    for object in new {
        objects.insert(key(&object["type"], &object["id"]), object);
    }
    Ok(json_answer(
        200,
        &json!({"success": true, "successCount": count, "warnings": []}),
    ))
}

/// The one file of a form, with a name that Kibana takes.
fn file_of(headers: &HeaderMap, body: &[u8]) -> Result<String, String> {
    let media_type = headers["content-type"].to_str().unwrap();
    let boundary = media_type
        .strip_prefix("multipart/form-data; boundary=")
        .ok_or_else(|| media_type.to_owned())?;
    let text = std::str::from_utf8(body).map_err(|e| e.to_string())?;
    let inner = text
        .strip_prefix(&format!("--{boundary}\r\n"))
        .and_then(|text| text.strip_suffix(&format!("\r\n--{boundary}--\r\n")))
        .ok_or("the form does not begin and end with its boundary")?;
    let (head, file) = inner.split_once("\r\n\r\n").ok_or("no part")?;
    let disposition = head.lines().next().unwrap_or_default();
    if !disposition.starts_with("Content-Disposition: form-data; name=\"file\"; filename=\"")
        || !disposition.ends_with(".ndjson\"")
    {
        return Err(format!("the part is no file of NDJSON: {disposition}"));
    }
    if file.contains(boundary) {
        return Err("the boundary is in the file".to_owned());
    }
    Ok(file.to_owned())
}

fn inner(object: &Value, pointer: &str) -> Result<Value, String> {
    let text = object
        .pointer(pointer)
        .and_then(Value::as_str)
        .ok_or_else(|| format!("no text at {pointer}"))?;
    serde_json::from_str(text).map_err(|e| format!("{pointer}: {e}"))
}

/// What an exported object always has, and that its parts fit together.
fn check_object(object: &Value) -> Result<(), String> {
    for name in ["type", "id", "coreMigrationVersion", "typeMigrationVersion"] {
        object[name].as_str().ok_or_else(|| format!("no {name}"))?;
    }
    object["attributes"]["title"].as_str().ok_or("no title")?;
    let references = object["references"].as_array().ok_or("no references")?;
    let mut names: Vec<String> = references
        .iter()
        .map(|reference| {
            reference["id"].as_str().unwrap();
            reference["type"].as_str().unwrap();
            reference["name"].as_str().unwrap().to_owned()
        })
        .collect();
    let mut used = Vec::new();
    match object["type"].as_str().unwrap() {
        "index-pattern" => {
            for name in [
                "fields",
                "fieldAttrs",
                "fieldFormatMap",
                "runtimeFieldMap",
                "sourceFilters",
            ] {
                inner(object, &format!("/attributes/{name}"))?;
            }
        }
        "search" => {
            let source = inner(object, "/attributes/kibanaSavedObjectMeta/searchSourceJSON")?;
            used.push(
                source["indexRefName"]
                    .as_str()
                    .ok_or("no index")?
                    .to_owned(),
            );
            source["query"]["query"].as_str().ok_or("no query")?;
            if object["attributes"]["columns"]
                .as_array()
                .is_none_or(Vec::is_empty)
            {
                return Err("no columns".to_owned());
            }
        }
        "dashboard" => {
            inner(object, "/attributes/kibanaSavedObjectMeta/searchSourceJSON")?;
            inner(object, "/attributes/optionsJSON")?;
            let panels = inner(object, "/attributes/panelsJSON")?;
            for panel in panels.as_array().ok_or("panels are no list")? {
                used.extend(check_panel(panel)?);
            }
        }
        other => return Err(format!("an object of type {other}")),
    }
    names.sort();
    used.sort();
    match names == used {
        true => Ok(()),
        false => Err(format!("references {names:?}, used {used:?}")),
    }
}

/// The names of the references that the panel uses.
fn check_panel(panel: &Value) -> Result<Vec<String>, String> {
    let index = panel["panelIndex"].as_str().ok_or("no panelIndex")?;
    let place = &panel["gridData"];
    if place["i"] != panel["panelIndex"] {
        return Err("gridData.i is not the panel's index".to_owned());
    }
    let number = |name: &str| place[name].as_u64().ok_or_else(|| format!("no {name}"));
    if 48 < number("x")? + number("w")? || number("h")? == 0 {
        return Err(format!("the panel {index} does not fit"));
    }
    number("y")?;
    if panel["type"] == "search" {
        let name = panel["panelRefName"].as_str().ok_or("no panelRefName")?;
        return Ok(vec![format!("{index}:{name}")]);
    }
    let attributes = &panel["embeddableConfig"]["attributes"];
    let layers = attributes["state"]["datasourceStates"]["formBased"]["layers"]
        .as_object()
        .ok_or("no layers")?;
    let shown = attributes["state"]["visualization"]["layers"]
        .as_array()
        .ok_or("nothing is shown")?;
    let mut used = Vec::new();
    for (id, layer) in layers {
        let mut order: Vec<&str> = layer["columnOrder"]
            .as_array()
            .unwrap()
            .iter()
            .map(|column| column.as_str().unwrap())
            .collect();
        order.sort_unstable();
        let columns = layer["columns"].as_object().unwrap();
        if !columns.keys().map(String::as_str).eq(order) {
            return Err(format!("layer {id}: columns and their order differ"));
        }
        let layer = shown
            .iter()
            .find(|layer| layer["layerId"] == *id)
            .ok_or("a layer is not shown")?;
        let accessors = layer["accessors"].as_array().unwrap().iter();
        for column in accessors
            .chain([&layer["xAccessor"]])
            .chain(layer.get("splitAccessor"))
        {
            if !columns.contains_key(column.as_str().unwrap()) {
                return Err(format!("layer {id}: no column {column}"));
            }
        }
        for column in columns.values() {
            for name in ["label", "dataType", "operationType", "sourceField"] {
                column[name]
                    .as_str()
                    .ok_or_else(|| format!("layer {id}: no {name}"))?;
            }
        }
        let name = format!("indexpattern-datasource-layer-{id}");
        let own = attributes["references"].as_array().unwrap();
        if !own
            .iter()
            .any(|reference| reference["name"] == name.as_str())
        {
            return Err(format!("layer {id}: no reference of its own"));
        }
        used.push(format!("{index}:{name}"));
    }
    Ok(used)
}

#[test]
fn everything_is_set_up_and_a_second_run_changes_nothing() {
    let kibana = Kibana::start(kibana());
    let said = kibana.succeeds(&[]);
    assert!(said.contains("Kibana 8.19.9 is set up"), "{said}");
    assert!(
        said.contains("data view  logs* (logyard-logs, new)"),
        "{said}"
    );
    assert!(
        said.contains("/base/app/dashboards#/view/logyard-overview"),
        "{said}"
    );
    let first = kibana.fake.objects.lock().unwrap().clone();
    let ids: Vec<(&str, &str)> = first
        .keys()
        .map(|(_, kind, id)| (kind.as_str(), id.as_str()))
        .collect();
    assert_eq!(
        ids,
        [
            ("dashboard", "logyard-overview"),
            ("index-pattern", "logyard-logs"),
            ("search", "logyard-by-service"),
            ("search", "logyard-errors"),
        ]
    );
    let view = &first[&(
        "default".to_owned(),
        "index-pattern".to_owned(),
        "logyard-logs".to_owned(),
    )];
    assert_eq!(
        (&view["title"], &view["timeFieldName"]),
        (&json!("logs*"), &json!("timestamp"))
    );

    // What a person adds to the data view stays.
    let key = (
        "default".to_owned(),
        "index-pattern".to_owned(),
        "logyard-logs".to_owned(),
    );
    kibana.fake.objects.lock().unwrap().get_mut(&key).unwrap()["runtimeFieldMap"] =
        json!({"mine": 1});
    let said = kibana.succeeds(&[]);
    assert!(said.contains("brought up to date"), "{said}");
    let mut second = kibana.fake.objects.lock().unwrap().clone();
    assert_eq!(
        second
            .get_mut(&key)
            .unwrap()
            .as_object_mut()
            .unwrap()
            .remove("runtimeFieldMap"),
        Some(json!({"mine": 1}))
    );
    assert_eq!(first, second);
    assert_eq!(
        kibana.fake.calls.lock().unwrap()[..4],
        [
            "GET /base/api/status",
            "GET /base/api/data_views/data_view/logyard-logs",
            "POST /base/api/data_views/data_view",
            "POST /base/api/saved_objects/_import?overwrite=true",
        ]
    );
}

#[test]
fn a_kibana_that_starts_is_waited_for() {
    let kibana = Kibana::start(Fake {
        starting: Mutex::new(2),
        ..kibana()
    });
    kibana.succeeds(&["--index-prefix", "team.logs-"]);
    let objects = kibana.fake.objects.lock().unwrap();
    assert!(
        objects
            .values()
            .any(|object| object["title"] == "team.logs*")
    );
}

#[test]
fn a_space_is_set_up_alone_and_one_that_is_not_there_is_refused() {
    let kibana = Kibana::start(kibana());
    let error = kibana.fails(&["--space", "teem"]);
    assert!(error.contains("no space `teem` (404)"), "{error}");
    assert!(kibana.fake.objects.lock().unwrap().is_empty());
    let said = kibana.succeeds(&["--space", "team"]);
    assert!(said.contains("/base/s/team/app/dashboards"), "{said}");
    let objects = kibana.fake.objects.lock().unwrap();
    assert!(objects.keys().all(|(space, _, _)| space == "team"));
    assert_eq!(objects.len(), 4);
}

#[test]
fn logins_are_sent_and_their_lack_is_explained() {
    let basic = Kibana::start(Fake {
        login: Some("Basic ZWxhc3RpYzpzZWNyZXQ=".to_owned()),
        ..kibana()
    });
    let error = basic.fails(&[]);
    assert!(
        error.contains("(401)") && error.contains("--api-key"),
        "{error}"
    );
    basic.succeeds(&["--user", "elastic", "--password", "secret"]);
    let key = Kibana::start(Fake {
        login: Some("ApiKey abc==".to_owned()),
        ..kibana()
    });
    key.succeeds(&["--api-key", "abc=="]);
    let error = key.fails(&["--user", "elastic", "--password", "wrong"]);
    assert!(error.contains("(401)"), "{error}");
}

#[test]
fn what_cannot_work_is_explained() {
    let old = Kibana::start(Fake {
        version: "8.8.1".to_owned(),
        ..Fake::default()
    });
    let error = old.fails(&[]);
    assert!(
        error.contains("this is Kibana 8.8.1; the objects need 8.9"),
        "{error}"
    );

    let taken = Kibana::start(kibana());
    taken.fake.objects.lock().unwrap().insert(
        (
            "default".to_owned(),
            "index-pattern".to_owned(),
            "other".to_owned(),
        ),
        json!({"name": "Logyard: logs*"}),
    );
    let error = taken.fails(&[]);
    assert!(error.contains("Duplicate data view"), "{error}");

    let sandbox = Sandbox::new();
    let error = |arguments: &[&str]| {
        let output = sandbox.run(arguments);
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let text = error(&[
        "kibana-setup",
        "--kibana",
        "http://127.0.0.1:1",
        "--wait",
        "1",
    ]);
    assert!(
        text.contains("is not available after 1 s: no answer"),
        "{text}"
    );
    let url = format!("http://{}", taken.address);
    let text = error(&["kibana-setup", "--kibana", &url, "--wait", "1"]);
    assert!(text.contains("base path is missing"), "{text}");
    let text = error(&["kibana-setup", "--kibana", "kibana:5601"]);
    assert!(text.contains("not the address of a Kibana"), "{text}");
    let text = error(&["kibana-setup", "--index-prefix", "Logs*"]);
    assert!(text.contains("small letters"), "{text}");
}

#[test]
fn tls_is_checked_against_the_authority_given() {
    let certificates = redis_server::Certificates::make();
    let port = redis_server::free_port();
    // It answers every path with a page of its own, which is no Kibana: enough to see how far the call gets.
    let mut server = std::process::Command::new("openssl")
        .args(["s_server", "-quiet", "-www", "-accept", &port.to_string()])
        .args(["-cert", &certificates.path("server.crt")])
        .args(["-key", &certificates.path("server.key")])
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    sandbox::eventually("openssl listens", || {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    let url = format!("https://127.0.0.1:{port}");
    let error = |flags: &[&str]| {
        let arguments = [&["kibana-setup", "--kibana", &url, "--wait", "0"], flags].concat();
        let output = Sandbox::new().run(&arguments);
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let trusted = error(&["--ca", &certificates.path("ca.crt")]);
    let other = redis_server::Certificates::make();
    let untrusted = [error(&[]), error(&["--ca", &other.path("ca.crt")])];
    server.kill().unwrap();
    server.wait().unwrap();
    assert!(trusted.contains("is not available"), "{trusted}");
    assert!(!trusted.contains("certificate"), "{trusted}");
    for text in untrusted {
        assert!(text.contains("--ca names the authority"), "{text}");
    }
}

#[test]
fn the_printed_objects_are_whole_and_can_be_imported_by_hand() {
    let output = Sandbox::new().run(&["kibana-setup", "--print", "--index-prefix", "app-"]);
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let mut headers = HeaderMap::new();
    headers.insert(
        "content-type",
        "multipart/form-data; boundary=xyz".parse().unwrap(),
    );
    let body = format!(
        "--xyz\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.ndjson\"\r\n\r\n{text}\r\n--xyz--\r\n"
    );
    let mut objects = Objects::new();
    let answer = import(&mut objects, "default", &headers, body.as_bytes()).unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(objects.len(), 4, "nothing refers to what is not there");
    let titles: Vec<&str> = objects
        .values()
        .map(|object| object["attributes"]["title"].as_str().unwrap())
        .collect();
    assert!(titles.contains(&"app*"), "{titles:?}");
}
