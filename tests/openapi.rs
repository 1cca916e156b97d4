//! `/openapi.json` against the server itself: every documented path, method and parameter is there, and no other parameter is taken.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a broken expectation should stop the test"
)]

mod sandbox;

use std::collections::BTreeSet;

use sandbox::{Sandbox, Server};
use serde_json::Value;

#[test]
fn the_document_and_the_server_agree() {
    let sandbox = Sandbox::new();
    let server = sandbox.start_with(&["--in-memory"], &[]);
    let document = server.get_json("/openapi.json");
    let mut n_operations = 0;
    for (path, operations) in document["paths"].as_object().unwrap() {
        let real = path.replace("{id}", "AAAA");
        for (method, operation) in operations.as_object().unwrap() {
            n_operations += 1;
            let documented = query_parameters(&document, operation);
            assert_eq!(
                taken(&server, &method.to_uppercase(), &real),
                documented,
                "{method} {path}"
            );
        }
        let absent = ["get", "post", "put", "delete", "patch"]
            .into_iter()
            .filter(|method| operations.get(*method).is_none());
        for method in absent {
            let answer = server.request(&method.to_uppercase(), &real, &[], b"");
            assert_eq!(
                answer.status, 405,
                "{method} {path} is there, but not documented"
            );
        }
    }
    assert!(10 < n_operations);
    for path in logyard::api::ROUTES.iter().map(|route| route.path) {
        assert!(
            document["paths"].get(path).is_some(),
            "{path} is not documented"
        );
    }
}

/// The names that a refusal of a strange parameter lists.
fn taken(server: &Server, method: &str, path: &str) -> BTreeSet<String> {
    let answer = server.request(method, &format!("{path}?qqqqqqqqzz=1"), &[], b"{}");
    assert_eq!(answer.status, 400, "{method} {path}: {}", answer.text());
    assert_eq!(answer.error_code(), "unknown_parameter", "{method} {path}");
    let message = answer.json()["error"]["message"]
        .as_str()
        .unwrap()
        .to_owned();
    match message.split_once("known are ") {
        Some((_, names)) => names.split(", ").map(str::to_owned).collect(),
        None => {
            assert!(message.ends_with("takes none"), "{message}");
            BTreeSet::new()
        }
    }
}

fn query_parameters(document: &Value, operation: &Value) -> BTreeSet<String> {
    let parameters = operation["parameters"]
        .as_array()
        .unwrap()
        .iter()
        .map(|parameter| match parameter["$ref"].as_str() {
            Some(reference) => document.pointer(reference.trim_start_matches('#')).unwrap(),
            None => parameter,
        });
    parameters
        .filter(|parameter| parameter["in"] == "query")
        .map(|parameter| parameter["name"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn every_reference_leads_somewhere() {
    let document: Value = serde_json::from_str(logyard::api::openapi::DOCUMENT).unwrap();
    let text = document.to_string();
    let references: Vec<&str> = text
        .split("\"$ref\":\"#")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .collect();
    assert!(20 < references.len());
    for reference in references {
        assert!(document.pointer(reference).is_some(), "{reference}");
    }
}
