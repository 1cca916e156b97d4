//! What the page promises without a browser: every file is served with its guards, and none of them can make markup of text.

use std::fs;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::response::Response;
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

use super::{FILES, routes, takes_gzip};

async fn get(path: &str, headers: &[(&str, &str)]) -> Response {
    let mut request = Request::get(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    routes()
        .oneshot(request.body(Body::empty()).unwrap())
        .await
        .unwrap()
}

#[test]
fn every_file_of_the_page_is_in_the_binary() {
    let mut on_disk: Vec<String> = fs::read_dir("ui")
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    on_disk.sort();
    let mut listed: Vec<String> = FILES
        .iter()
        .map(|(name, _, _)| (*name).to_owned())
        .collect();
    listed.sort();
    assert_eq!(on_disk, listed);
}

/// The content security policy forbids these too; here the mistake is found before a browser sees it.
#[test]
fn no_script_can_make_markup_or_code_of_text() {
    let forbidden = [
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "new Function",
        "DOMParser",
        "createContextualFragment",
        "srcdoc",
        "setHTML",
        "javascript:",
        "setAttribute(\"style\"",
        "style:",
    ];
    for (name, _, content) in FILES.iter().filter(|(name, _, _)| name.ends_with(".js")) {
        let text = std::str::from_utf8(content).unwrap();
        assert!(text.starts_with("// "), "ui/{name} does not say what it is");
        for word in forbidden {
            assert!(!text.contains(word), "ui/{name} holds `{word}`");
        }
    }
}

#[test]
fn the_page_names_only_its_own_files() {
    let page = std::str::from_utf8(FILES[0].2).unwrap();
    for inline in ["style=\"", "<style", "onclick=", "onload="] {
        assert!(!page.contains(inline), "index.html holds `{inline}`");
    }
    let is_known = |name: &str| FILES.iter().any(|(known, _, _)| *known == name);
    for reference in page.split("\"/ui/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(is_known(name), "index.html names /ui/{name}");
    }
    for (file, _, content) in FILES.iter().filter(|(name, _, _)| name.ends_with(".js")) {
        let text = std::str::from_utf8(content).unwrap();
        assert!(!text.contains("https://"), "ui/{file} reaches elsewhere");
        for import in text.split("from \"").skip(1) {
            let name = import.split('"').next().unwrap();
            let local = name
                .strip_prefix("./")
                .unwrap_or_else(|| panic!("ui/{file} imports {name}"));
            assert!(is_known(local), "ui/{file} imports {name}");
        }
    }
}

#[tokio::test]
async fn files_come_with_their_guards() {
    let paths = FILES.iter().map(|(name, _, _)| format!("/ui/{name}"));
    for path in paths.chain(["/ui".to_owned()]) {
        let response = get(&path, &[]).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        let policy = response.headers()["content-security-policy"]
            .to_str()
            .unwrap();
        for part in [
            "default-src 'none'",
            "script-src 'self'",
            "require-trusted-types-for 'script'",
            "frame-ancestors 'none'",
        ] {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{path}: {policy}");
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
        assert_eq!(response.headers()["cache-control"], "no-cache");
    }
}

#[tokio::test]
async fn a_file_the_browser_has_is_not_sent_again() {
    let first = get("/ui", &[]).await;
    let etag = first.headers()["etag"].to_str().unwrap().to_owned();
    let again = get("/ui", &[("if-none-match", &etag)]).await;
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    assert!(
        again
            .into_body()
            .collect()
            .await
            .unwrap()
            .to_bytes()
            .is_empty()
    );
    let changed = get("/ui", &[("if-none-match", "\"other\"")]).await;
    assert_eq!(changed.status(), StatusCode::OK);
}

#[tokio::test]
async fn compressed_files_are_what_they_were() {
    let plain = get("/ui/app.js", &[]).await;
    assert!(!plain.headers().contains_key("content-encoding"));
    let plain = plain.into_body().collect().await.unwrap().to_bytes();
    let gzip = get("/ui/app.js", &[("accept-encoding", "br, gzip")]).await;
    assert_eq!(gzip.headers()["content-encoding"], "gzip");
    let gzip = gzip.into_body().collect().await.unwrap().to_bytes();
    assert!(gzip.len() * 2 < plain.len());
    let mut decoded = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&gzip[..]), &mut decoded).unwrap();
    assert_eq!(decoded, plain);
}

#[tokio::test]
async fn the_root_leads_to_the_page_and_unknown_files_are_named() {
    let root = get("/", &[]).await;
    assert_eq!(root.headers()["location"], "/ui");
    let unknown = get("/ui/no-such.js", &[]).await;
    assert_eq!(unknown.status(), StatusCode::NOT_FOUND);
    let body = unknown.into_body().collect().await.unwrap().to_bytes();
    assert!(
        std::str::from_utf8(&body)
            .unwrap()
            .contains("/ui/no-such.js")
    );
}

#[test]
fn accepted_encodings_are_read_with_their_weights() {
    assert!(takes_gzip("gzip"));
    assert!(takes_gzip("br;q=1.0, GZIP;q=0.8"));
    assert!(!takes_gzip("gzip;q=0, br"));
    assert!(!takes_gzip("br, deflate"));
}
