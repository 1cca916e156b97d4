//! The files for containers are read as the engines would read them, as far as that can be done without one: they parse, what they refer to is
//! there, and Logyard takes the flags and settings that they give it.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests: a failure should stop the test"
)]

mod sandbox;

use std::collections::{BTreeMap, BTreeSet};

use sandbox::Sandbox;
use saphyr::{LoadableYamlNode as _, Yaml};
use serde_json::{Map, Value};

/// A document as JSON; `merge keys` and other YAML of its own are not used.
fn to_json(yaml: &Yaml<'_>) -> Value {
    if let Some(text) = yaml.as_str() {
        return Value::from(text);
    }
    if let Some(number) = yaml.as_integer() {
        return Value::from(number);
    }
    if let Some(is) = yaml.as_bool() {
        return Value::from(is);
    }
    if let Some(values) = yaml.as_sequence() {
        return values.iter().map(to_json).collect();
    }
    if let Some(members) = yaml.as_mapping() {
        let pairs = members.iter().map(|(key, value)| {
            let key = key.as_str().expect("keys are texts");
            (key.to_owned(), to_json(value))
        });
        return Value::Object(pairs.collect::<Map<_, _>>());
    }
    assert!(yaml.is_null(), "{yaml:?}");
    Value::Null
}

fn documents(path: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    let documents = Yaml::load_from_str(&text).unwrap_or_else(|e| panic!("{path}: {e}"));
    documents.iter().map(to_json).collect()
}

fn texts(list: &Value) -> Vec<String> {
    let list = list.as_array().unwrap_or_else(|| panic!("no list: {list}"));
    list.iter()
        .map(|text| text.as_str().unwrap().to_owned())
        .collect()
}

/// What the image sets.
fn image_environment() -> BTreeMap<String, String> {
    let text = std::fs::read_to_string("Dockerfile").unwrap();
    let words = text.split(|c: char| c.is_whitespace());
    let pairs = words
        .filter_map(|word| word.split_once('='))
        .filter(|(name, _)| name.starts_with("LOGYARD__"));
    pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// Logyard itself checks the settings and the command line.
fn check_logyard(what: &str, command: &[String], environment: &BTreeMap<String, String>) {
    let sandbox = Sandbox::new();
    let mut all = image_environment();
    assert!(all.contains_key("LOGYARD__HTTP__LISTEN"));
    all.extend(environment.clone());
    if command[0] == "serve" {
        let mut roles = command.iter().skip_while(|argument| *argument != "--roles");
        let roles = roles.nth(1).unwrap_or_else(|| panic!("{what}: no roles"));
        all.insert("LOGYARD__ROLES".to_owned(), roles.clone());
        let mut command = sandbox.command(&["config", "check"]);
        let output = command.envs(&all).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{what}: {error}");
    }
    // Clap refuses what it does not know before it looks at `--help`.
    let mut arguments: Vec<&str> = command.iter().map(String::as_str).collect();
    arguments.push("--help");
    let output = sandbox.run(&arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: {error}");
}

#[test]
fn the_compose_file_holds_together() {
    let documents = documents("compose.yaml");
    let [compose] = &documents[..] else {
        panic!("one document")
    };
    let services = compose["services"].as_object().unwrap();
    let names: BTreeSet<&str> = services.keys().map(String::as_str).collect();
    let expected = [
        "api",
        "cleaner",
        "elasticsearch",
        "indexer",
        "kafka",
        "kibana",
        "kibana-setup",
        "redis",
    ];
    assert_eq!(names, expected.into());
    let mut used_volumes = BTreeSet::new();
    let mut ports = BTreeSet::new();
    for (name, service) in services {
        assert!(service["image"].is_string(), "{name} has no image");
        let is_logyard = service["image"] == "logyard";
        let has_check = service["healthcheck"]["test"].is_array();
        assert!(is_logyard || has_check, "{name} has no health check");
        for (other, needs) in service["depends_on"].as_object().into_iter().flatten() {
            assert!(
                services[other]["healthcheck"]["test"].is_array(),
                "{name} waits for {other}"
            );
            assert_eq!(
                needs["condition"], "service_healthy",
                "{name} needs {other}"
            );
        }
        for volume in service.get("volumes").map(texts).unwrap_or_default() {
            used_volumes.insert(volume.split(':').next().unwrap().to_owned());
        }
        for port in service.get("ports").map(texts).unwrap_or_default() {
            let parts: Vec<&str> = port.split(':').collect();
            assert_eq!(
                (parts[0], parts.len()),
                ("127.0.0.1", 3),
                "{name} publishes {port}"
            );
            assert!(ports.insert(parts[1].to_owned()), "{port} twice");
        }
        if !is_logyard {
            continue;
        }
        check_compose_service(name, service, services);
    }
    let volumes: BTreeSet<String> = compose["volumes"]
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect();
    assert_eq!(used_volumes, volumes);
    for (name, count) in [("api", 2), ("indexer", 2)] {
        assert_eq!(services[name]["deploy"]["replicas"], count);
    }
    assert_eq!(
        texts(&services["api"]["ports"]),
        ["127.0.0.1:8001-8002:8001"]
    );
}

/// A service that is Logyard: what it is pointed at is there, and it takes its command and settings.
fn check_compose_service(name: &str, service: &Value, services: &Map<String, Value>) {
    let environment = service.get("environment").and_then(Value::as_object);
    let environment = texts_of(environment.into_iter().flatten());
    for (_, address) in environment
        .values()
        .filter_map(|value| value.split_once("://"))
    {
        let host = address.split([':', '/']).next().unwrap();
        assert!(services.contains_key(host), "{name}: no service {host}");
    }
    let command = texts(&service["command"]);
    if command[0] == "kibana-setup" {
        assert!(command.contains(&"http://kibana:5601".to_owned()));
    }
    check_logyard(name, &command, &environment);
}

fn texts_of<'a>(
    members: impl Iterator<Item = (&'a String, &'a Value)>,
) -> BTreeMap<String, String> {
    members
        .map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()))
        .collect()
}

#[test]
fn the_kubernetes_manifest_holds_together() {
    let documents = documents("deploy/kubernetes.yaml");
    let mut named = BTreeMap::new();
    for document in &documents {
        let kind = document["kind"].as_str().unwrap();
        let name = document["metadata"]["name"].as_str().unwrap();
        assert!(document["apiVersion"].is_string());
        assert!(
            named.insert((kind, name), document).is_none(),
            "{kind} {name} twice"
        );
        let namespace = &document["metadata"]["namespace"];
        assert!(
            kind == "Namespace" || *namespace == "logyard",
            "{kind} {name}"
        );
    }
    let members = |kind, part: &str| {
        let object = named[&(kind, "logyard")][part].as_object();
        object.unwrap().iter()
    };
    let environment = texts_of(members("ConfigMap", "data").chain(members("Secret", "stringData")));
    let pods = documents
        .iter()
        .filter(|document| document["spec"]["template"].is_object());
    let mut labels = Vec::new();
    for document in pods {
        let name = document["metadata"]["name"].as_str().unwrap();
        let template = &document["spec"]["template"];
        labels.push(template["metadata"]["labels"].clone());
        check_pod(name, document, &environment);
    }
    // Services and budgets choose pods that are there.
    let is_chosen = |selector: &Value| {
        let wanted = selector.as_object().unwrap();
        labels
            .iter()
            .any(|labels| wanted.iter().all(|(name, value)| labels[name] == *value))
    };
    assert!(is_chosen(
        &named[&("Service", "logyard")]["spec"]["selector"]
    ));
    for budget in ["api", "indexer"] {
        let selector = &named[&("PodDisruptionBudget", budget)]["spec"]["selector"]["matchLabels"];
        assert!(is_chosen(selector), "{budget}");
    }
}

fn check_pod(name: &str, document: &Value, environment: &BTreeMap<String, String>) {
    let template = &document["spec"]["template"];
    if document["kind"] == "Deployment" {
        let selector = &document["spec"]["selector"]["matchLabels"];
        assert_eq!(*selector, template["metadata"]["labels"], "{name}");
    }
    let security = &template["spec"]["securityContext"];
    assert_eq!(security["runAsNonRoot"], true, "{name}");
    let container = &template["spec"]["containers"][0];
    let security = &container["securityContext"];
    assert_eq!(security["readOnlyRootFilesystem"], true, "{name}");
    let limits = &container["resources"]["limits"];
    assert!(limits["memory"].is_string(), "{name}");
    let command = texts(&container["args"]);
    if command[0] == "serve" {
        assert_eq!(container["ports"][0]["containerPort"], 8001, "{name}");
        for probe in ["livenessProbe", "readinessProbe"] {
            assert_eq!(container[probe]["httpGet"]["port"], "http", "{name}");
        }
        let sources: Vec<&Value> = container["envFrom"].as_array().unwrap().iter().collect();
        assert_eq!(sources[0]["configMapRef"]["name"], "logyard");
        assert_eq!(sources[1]["secretRef"]["name"], "logyard");
    }
    check_logyard(name, &command, environment);
}

#[test]
fn the_image_is_small_not_root_and_has_a_health_check_without_a_shell() {
    let text = std::fs::read_to_string("Dockerfile").unwrap();
    let stages: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("FROM "))
        .collect();
    assert_eq!(stages.len(), 2);
    assert!(stages[1].contains("distroless"), "{}", stages[1]);
    let (_, last) = text.rsplit_once("FROM ").unwrap();
    assert!(last.contains("\nUSER 65532:65532\n"));
    assert!(!last.contains("\nRUN "), "the last stage has no shell");
    let health = last
        .lines()
        .find(|line| line.starts_with("HEALTHCHECK"))
        .unwrap();
    let (_, command) = health.split_once("CMD ").unwrap();
    let command: Vec<String> = serde_json::from_str(command).unwrap();
    assert_eq!(command[0], "/usr/local/bin/logyard");
    check_logyard("the health check", &command[1..], &BTreeMap::new());
    // Kafka is reached with TLS from the image: OpenSSL of one Debian, where it is built and where it runs.
    assert!(text.contains("--features kafka-tls"));
    assert!(stages[0].contains("-bookworm ") && stages[1].contains("/cc-debian12:"));
    // The toolchain of the image builds what the crates ask for.
    let manifest = std::fs::read_to_string("Cargo.toml").unwrap();
    let version = manifest
        .split("rust-version = \"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    assert!(
        stages[0].contains(&format!("rust:{version}-")),
        "{}",
        stages[0]
    );
    let ignored = std::fs::read_to_string(".dockerignore").unwrap();
    for needed in ["Cargo.lock", "src", "crates", "ui", "config"] {
        assert!(
            !ignored.lines().any(|line| line == needed),
            "{needed} is needed"
        );
        assert!(std::path::Path::new(needed).exists());
    }
}
