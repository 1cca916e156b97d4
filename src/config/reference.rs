//! The commented reference, `config/embedded.toml`, and the same with the values in force (`logyard config print`).

use std::fmt::Write as _;

use toml::{Table, Value};

use crate::common::error::{Error, Result};
use crate::config::load::Layered;

/// Every setting with its comment and default.
pub const REFERENCE: &str = include_str!("../../config/embedded.toml");

/// The reference with the values in force; a value that is not the default tells where it was set.
pub fn print(layered: &Layered) -> Result<String> {
    let values = Table::try_from(&layered.settings)
        .map_err(|e| Error::internal("cannot list the settings").with_source(e))?;
    let mut text = String::with_capacity(REFERENCE.len());
    let mut section = "";
    for line in REFERENCE.lines() {
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            section = name;
        }
        match setting_of(line, section, &values) {
            Some((key, path, value)) => {
                let origin = layered.origins.get(&path);
                let origin = origin
                    .map(|origin| format!("  # {origin}"))
                    .unwrap_or_default();
                let value = without_secrets(key, value);
                let _ = writeln!(text, "{key} = {value}{origin}");
            }
            None => {
                let _ = writeln!(text, "{line}");
            }
        }
    }
    Ok(text)
}

/// Passwords and keys are not for terminals and tickets.
fn without_secrets(key: &str, value: &Value) -> Value {
    let Value::String(text) = value else {
        return value.clone();
    };
    let is_secret = key.ends_with("password") || key.ends_with("api_key");
    if is_secret && !text.is_empty() {
        return "(set, not shown)".into();
    }
    // `scheme://user:password@host`
    let hidden = text.split_once("://").and_then(|(scheme, rest)| {
        let (login, host) = rest.rsplit_once('@')?;
        let (user, _) = login.split_once(':')?;
        Some(format!("{scheme}://{user}:(not shown)@{host}"))
    });
    hidden.unwrap_or_else(|| text.clone()).into()
}

/// (key, dotted path, value in force) if `line` sets something.
fn setting_of<'a>(
    line: &'a str,
    section: &str,
    values: &'a Table,
) -> Option<(&'a str, String, &'a Value)> {
    let (key, _) = line
        .split_once(" = ")
        .filter(|(key, _)| !key.starts_with('#'))?;
    match section {
        "" => Some((key, key.to_owned(), values.get(key)?)),
        section => Some((
            key,
            format!("{section}.{key}"),
            values.get(section)?.get(key)?,
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load::load;
    use crate::config::settings::Settings;

    #[test]
    fn the_reference_names_every_setting_with_its_default() {
        let reference: Table = toml::from_str(REFERENCE).unwrap();
        let defaults = Table::try_from(Settings::default()).unwrap();
        for (name, value) in &defaults {
            match value.as_table() {
                Some(section) => {
                    let described = reference
                        .get(name)
                        .and_then(Value::as_table)
                        .unwrap_or_else(|| panic!("no section [{name}]"));
                    for (key, value) in section {
                        assert_eq!(described.get(key), Some(value), "{name}.{key}");
                    }
                    assert_eq!(
                        described.len(),
                        section.len(),
                        "[{name}] describes what does not exist"
                    );
                }
                None => assert_eq!(reference.get(name), Some(value), "{name}"),
            }
        }
        assert_eq!(reference.len(), defaults.len());
    }

    #[test]
    fn every_setting_of_the_reference_has_a_comment_above_it() {
        let mut previous = "";
        for line in REFERENCE.lines() {
            let is_setting = line.contains(" = ") && !line.starts_with('#');
            assert!(
                !is_setting || previous.starts_with('#'),
                "no comment above: {line}"
            );
            previous = line;
        }
    }

    #[test]
    fn what_is_printed_is_what_is_in_force_and_can_be_used_as_a_file() {
        let environment = [("LOGYARD__HTTP__HEADERS_MAX".to_owned(), "77".to_owned())];
        let layered = load(None, environment, &[]).unwrap();
        let printed = print(&layered).unwrap();
        assert!(
            printed
                .contains("headers_max = 77  # environment variable LOGYARD__HTTP__HEADERS_MAX\n"),
            "{printed}"
        );
        let read: Settings = toml::from_str(&printed).unwrap();
        assert_eq!(read, layered.settings);
    }

    #[test]
    fn passwords_are_not_printed() {
        let shown = |key: &str, value: &str| without_secrets(key, &value.into());
        assert_eq!(
            shown("kind", "elasticsearch://elastic:pa@ss@host:9200").as_str(),
            Some("elasticsearch://elastic:(not shown)@host:9200")
        );
        assert_eq!(shown("kind", "embedded").as_str(), Some("embedded"));
        assert_eq!(shown("elasticsearch_password", "").as_str(), Some(""));
        assert_eq!(
            shown("elasticsearch_api_key", "abc").as_str(),
            Some("(set, not shown)")
        );
    }
}
