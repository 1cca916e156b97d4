//! Checks on the shape of the code itself. They run with every other test; CI adds nothing.
#![allow(
    clippy::unwrap_used,
    reason = "a broken check should stop the test run"
)]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Who may name whom. This table is the architecture; ARCHITECTURE.md explains it.
/// `main.rs`, `cli.rs` and `serve.rs` stand outside: they wire everything together.
const MAY_USE: &[(&str, &[&str])] = &[
    ("common", &[]),
    ("config", &["common"]),
    ("record", &["common"]),
    ("query", &["common", "record"]),
    ("wire", &["common", "record", "query"]),
    // The write path. `intake` names `store` for the replay of dead letters alone.
    ("intake", &["common", "record", "wire", "queue", "store"]),
    // `queue` names `wire` because Kafka's messages are JSON that others read and write.
    ("queue", &["common", "record", "wire"]),
    // `indexer` names `cache` to tell it which days were written.
    ("indexer", &["common", "record", "queue", "store", "cache"]),
    ("store", &["common", "record", "query", "wire"]),
    // The read path. `search` names `queue` for the live tail; `api` names `queue` and `store` for the status page.
    (
        "search",
        &["common", "record", "query", "queue", "store", "cache"],
    ),
    ("cache", &["common"]),
    (
        "api",
        &[
            "common", "record", "query", "wire", "search", "queue", "store", "cache",
        ],
    ),
    ("ui", &["common"]),
    // Around them.
    ("retention", &["common", "queue", "store"]),
    ("kibana", &["record"]),
    ("loadgen", &["common", "record", "wire"]),
    // It reads a store or a server, and writes over HTTP alone.
    (
        "migrate",
        &["common", "record", "query", "wire", "store", "loadgen"],
    ),
];

/// Lines a file may have before its tests begin.
const FILE_LINES_MAX: usize = 600;

#[test]
fn modules_name_only_what_the_table_allows() {
    let mut errors = Vec::new();
    for (module, allowed) in MAY_USE {
        for file in rust_files(&Path::new("src").join(module)) {
            for (line_index, line) in fs::read_to_string(&file).unwrap().lines().enumerate() {
                let mut error = |what: String| {
                    errors.push(format!("{}:{}: {what}", file.display(), line_index + 1));
                };
                let code = line.split("//").next().unwrap();
                if code.contains("crate::{") || code.contains("super::super::") {
                    error("write one `use crate::module::…` per module".to_owned());
                }
                for (at, prefix) in code.match_indices("crate::") {
                    let used: String = code[at + prefix.len()..]
                        .chars()
                        .take_while(|c| c.is_alphanumeric() || *c == '_')
                        .collect();
                    let is_module = MAY_USE.iter().any(|(name, _)| *name == used);
                    if is_module && used != *module && !allowed.contains(&used.as_str()) {
                        error(format!("`{module}` may not name `{used}`"));
                    }
                }
            }
        }
    }
    assert!(errors.is_empty(), "\n{}\n", errors.join("\n"));
}

#[test]
fn every_source_folder_is_in_the_table() {
    for entry in fs::read_dir("src").unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let is_listed = MAY_USE.iter().any(|(module, _)| *module == name);
        assert!(!path.is_dir() || is_listed, "src/{name} is not in MAY_USE");
    }
}

#[test]
fn files_are_short_and_say_what_they_are() {
    let mut errors = Vec::new();
    for file in rust_files(Path::new("src")) {
        let text = fs::read_to_string(&file).unwrap();
        let n_lines = text
            .lines()
            .take_while(|line| !line.starts_with("mod tests"))
            .count();
        if FILE_LINES_MAX < n_lines {
            errors.push(format!(
                "{}: {n_lines} lines, at most {FILE_LINES_MAX}",
                file.display()
            ));
        }
        if !text.starts_with("//!") {
            errors.push(format!("{}: no module doc at the top", file.display()));
        }
    }
    assert!(errors.is_empty(), "\n{}\n", errors.join("\n"));
}

#[test]
fn links_in_architecture_md_exist() {
    let text = fs::read_to_string("ARCHITECTURE.md").unwrap();
    for link in text
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
    {
        let target = link.split('#').next().unwrap();
        let is_here = !target.is_empty() && !target.starts_with("http");
        assert!(
            !is_here || Path::new(target).try_exists().unwrap(),
            "ARCHITECTURE.md: no {target}"
        );
    }
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}
