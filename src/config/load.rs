//! Layers: defaults < file < environment < flags. Every value remembers where it came from, so that a wrong one can be found.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize as _;
use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use crate::common::error::{Error, Result};
use crate::common::http::{nearest, quoted};
use crate::config::settings::Settings;

const ENVIRONMENT_PREFIX: &str = "LOGYARD__";

/// Where a value was set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    File { path: PathBuf, line: usize },
    Environment { variable: String },
    Flag { flag: &'static str },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment { variable } => write!(f, "environment variable {variable}"),
            Self::Flag { flag } => write!(f, "flag {flag}"),
        }
    }
}

/// A setting given on the command line.
#[derive(Clone, Debug)]
pub struct Override {
    /// `section.key`.
    pub path: &'static str,
    pub flag: &'static str,
    pub value: Value,
}

/// Settings as merged, not checked yet, with where each one that is not a default came from.
#[derive(Debug)]
pub struct Layered {
    pub settings: Settings,
    pub origins: BTreeMap<String, Origin>,
}

/// Merges the layers. `environment` is every variable of the process.
pub fn load(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
    overrides: &[Override],
) -> Result<Layered> {
    let known = Table::try_from(Settings::default())
        .map_err(|e| Error::internal("cannot list the settings").with_source(e))?;
    let mut layers = Layers {
        merged: known.clone(),
        known,
        origins: BTreeMap::new(),
    };
    if let Some(path) = file {
        let text = std::fs::read_to_string(path).map_err(|e| {
            invalid(format!(
                "cannot read the settings file {}: {e}",
                path.display()
            ))
        })?;
        layers.add_file(path, &text)?;
    }
    for (variable, value) in environment {
        layers.add_variable(&variable, &value)?;
    }
    for given in overrides {
        let origin = Origin::Flag { flag: given.flag };
        layers.set(given.path, given.value.clone(), origin)?;
    }
    let settings = Settings::deserialize(layers.merged)
        .map_err(|e| invalid(format!("the settings do not fit: {}", e.message())))?;
    Ok(Layered {
        settings,
        origins: layers.origins,
    })
}

fn invalid(message: String) -> Error {
    Error::invalid("invalid_settings", message)
}

struct Layers {
    /// The defaults: which settings there are, and of which type.
    known: Table,
    merged: Table,
    origins: BTreeMap<String, Origin>,
}

impl Layers {
    fn add_file(&mut self, path: &Path, text: &str) -> Result<()> {
        let line_of = |offset: usize| {
            text.get(..offset)
                .map_or(1, |before| before.matches('\n').count() + 1)
        };
        let table = DeTable::parse(text).map_err(|e| {
            let line = e.span().map_or(1, |span| line_of(span.start));
            invalid(format!(
                "{}:{line}: not TOML: {}",
                path.display(),
                e.message()
            ))
        })?;
        let mut leaves = Vec::new();
        flatten(table.get_ref(), "", &mut leaves);
        let values: Table = toml::from_str(text)
            .map_err(|e| invalid(format!("{}: not TOML: {}", path.display(), e.message())))?;
        for (key, offset) in leaves {
            let origin = Origin::File {
                path: path.to_owned(),
                line: line_of(offset),
            };
            let value = look_up(&values, &key).cloned();
            self.set(&key, value.unwrap_or(Value::Boolean(false)), origin)?;
        }
        Ok(())
    }

    fn add_variable(&mut self, variable: &str, text: &str) -> Result<()> {
        let Some(name) = variable.strip_prefix(ENVIRONMENT_PREFIX) else {
            return Ok(());
        };
        let key = name.to_lowercase().replace("__", ".");
        let origin = Origin::Environment {
            variable: variable.to_owned(),
        };
        let value = match look_up(&self.known, &key) {
            Some(default) => value_of_text(text, default)
                .ok_or_else(|| wrong_type(&key, default, text, &origin))?,
            // `set` refuses it with advice.
            None => Value::String(text.to_owned()),
        };
        self.set(&key, value, origin)
    }

    fn set(&mut self, key: &str, value: Value, origin: Origin) -> Result<()> {
        let Some(default) = look_up(&self.known, key) else {
            return Err(self.unknown(key, &origin));
        };
        if default.is_table() || !default.same_type(&value) || is_negative(&value) {
            return Err(wrong_type(key, default, &value.to_string(), &origin));
        }
        let (section, name) = key.split_once('.').unwrap_or(("", key));
        let table = match section {
            "" => Some(&mut self.merged),
            section => self.merged.get_mut(section).and_then(Value::as_table_mut),
        };
        if let Some(table) = table {
            table.insert(name.to_owned(), value);
        }
        self.origins.insert(key.to_owned(), origin);
        Ok(())
    }

    fn unknown(&self, key: &str, origin: &Origin) -> Error {
        let mut known = Vec::new();
        for (name, value) in &self.known {
            match value.as_table() {
                Some(section) => known.extend(section.keys().map(|key| format!("{name}.{key}"))),
                None => known.push(name.clone()),
            }
        }
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        let advice = match nearest(key, &known) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "`logyard config print` lists every setting".to_owned(),
        };
        invalid(format!(
            "{origin}: unknown setting `{}`; {advice}",
            quoted(key)
        ))
    }
}

/// (dotted key, byte offset) of everything that is not a section.
fn flatten(table: &DeTable<'_>, prefix: &str, leaves: &mut Vec<(String, usize)>) {
    for (key, value) in table {
        let path = match prefix {
            "" => key.get_ref().to_string(),
            prefix => format!("{prefix}.{}", key.get_ref()),
        };
        match value.get_ref() {
            DeValue::Table(section) if !section.is_empty() => flatten(section, &path, leaves),
            DeValue::Table(_) if prefix.is_empty() => {}
            _ => leaves.push((path, key.span().start)),
        }
    }
}

fn look_up<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    let mut parts = key.split('.');
    let mut value = table.get(parts.next()?)?;
    for part in parts {
        value = value.as_table()?.get(part)?;
    }
    Some(value)
}

/// Lists may be written as TOML or separated by commas; texts need no quotes.
fn value_of_text(text: &str, default: &Value) -> Option<Value> {
    match default {
        Value::String(_) => Some(Value::String(text.to_owned())),
        Value::Integer(_) => Some(Value::Integer(text.trim().parse().ok()?)),
        Value::Boolean(_) => Some(Value::Boolean(text.trim().parse().ok()?)),
        Value::Array(_) => {
            let parts = text
                .split(',')
                .map(str::trim)
                .filter(|part| !part.is_empty());
            Some(Value::Array(
                parts.map(|part| Value::String(part.to_owned())).collect(),
            ))
        }
        Value::Float(_) | Value::Datetime(_) | Value::Table(_) => None,
    }
}

fn is_negative(value: &Value) -> bool {
    value.as_integer().is_some_and(|number| number < 0)
}

fn wrong_type(key: &str, default: &Value, given: &str, origin: &Origin) -> Error {
    let expected = match default {
        Value::Integer(_) => "a whole number, 0 or more",
        Value::Boolean(_) => "true or false",
        Value::String(_) => "a text in quotes",
        Value::Array(_) => "a list of texts",
        Value::Table(_) => "a section, not a value",
        Value::Float(_) | Value::Datetime(_) => "of another type",
    };
    invalid(format!(
        "{origin}: `{key}` must be {expected}, not `{}`",
        quoted(given)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load_text(
        text: &str,
        environment: &[(&str, &str)],
        overrides: &[Override],
    ) -> Result<Layered> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logyard.toml");
        std::fs::write(&path, text).unwrap();
        let environment = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        load(Some(&path), environment, overrides).map_err(|mut e| {
            e.message = e.message.replace(&folder.path().display().to_string(), "");
            e
        })
    }

    fn message(text: &str, environment: &[(&str, &str)]) -> String {
        load_text(text, environment, &[]).unwrap_err().message
    }

    #[test]
    fn a_later_layer_wins_and_every_value_knows_its_origin() {
        let file = "data_dir = \"/a\"\n[http]\nlisten = \"127.0.0.1:1\"\nheaders_max = 7\n";
        let environment = [
            ("LOGYARD__HTTP__LISTEN", "127.0.0.1:2"),
            ("PATH", "x"),
            ("LOGYARD__ROLES", "api, ui"),
        ];
        let flag = Override {
            path: "http.listen",
            flag: "--listen",
            value: Value::String("127.0.0.1:3".to_owned()),
        };
        let layered = load_text(file, &environment, &[]).unwrap();
        assert_eq!(layered.settings.http.listen, "127.0.0.1:2");
        assert_eq!(layered.settings.roles, ["api", "ui"]);
        let layered = load_text(file, &environment, &[flag]).unwrap();
        assert_eq!(layered.settings.http.listen, "127.0.0.1:3");
        assert_eq!(layered.settings.data_dir, "/a");
        assert_eq!(layered.settings.http.headers_max, 7);
        assert_eq!(
            layered.settings.http.drain_ms,
            Settings::default().http.drain_ms
        );
        assert_eq!(layered.origins["http.listen"].to_string(), "flag --listen");
        assert_eq!(
            layered.origins["http.headers_max"]
                .to_string()
                .rsplit('/')
                .next(),
            Some("logyard.toml:4")
        );
        assert!(!layered.origins.contains_key("http.drain_ms"));
    }

    #[test]
    fn a_mistake_is_named_with_its_place_and_a_remedy() {
        assert_eq!(
            message("\n[http]\nlissten = \"x\"\n", &[]),
            "/logyard.toml:3: unknown setting `http.lissten`; did you mean `http.listen`?"
        );
        assert_eq!(
            message("[htp]\nlisten = \"x\"\n", &[]),
            "/logyard.toml:2: unknown setting `htp.listen`; did you mean `http.listen`?"
        );
        assert_eq!(
            message("[http]\nheaders_max = \"many\"\n", &[]),
            "/logyard.toml:2: `http.headers_max` must be a whole number, 0 or more, not `\"many\"`"
        );
        assert!(message("[http]\nheaders_max = -1\n", &[]).contains("0 or more, not `-1`"));
        assert_eq!(
            message("http = 3\n", &[]),
            "/logyard.toml:1: `http` must be a section, not a value, not `3`"
        );
        assert!(message("a = = 3\n", &[]).starts_with("/logyard.toml:1: not TOML: "));
        assert_eq!(
            message("", &[("LOGYARD__HTTP__HEADERS_MAX", "x")]),
            "environment variable LOGYARD__HTTP__HEADERS_MAX: `http.headers_max` must be a whole number, 0 or more, not `x`"
        );
        assert!(
            message("", &[("LOGYARD__HTTP__LISTN", "x")]).contains("did you mean `http.listen`?")
        );
    }
}
