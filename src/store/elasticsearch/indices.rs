//! The daily indices that are Logyard's own: those that have its write alias. Nothing else under the prefix is ever counted or dropped.

use jiff::civil::Date;
use serde_json::Value as Json;

use crate::common::error::{Error, Result};
use crate::common::http::percent_encoded;
use crate::store::elasticsearch::Inner;
use crate::store::elasticsearch::client::Method;
use crate::store::elasticsearch::state::Day;

/// An index of one day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DayIndex {
    pub name: String,
    pub day: Day,
    /// Documents that a search finds.
    pub records: u64,
    /// On disk, without replicas.
    pub bytes: u64,
    /// On disk, with them.
    pub bytes_all: u64,
}

/// `2025.03.20`, or `other`; `None` if it is neither.
fn day_of_name(name: &str) -> Option<Day> {
    if name == "other" {
        return Some(None);
    }
    let (year, rest) = name.split_once('.')?;
    let (month, day) = rest.split_once('.')?;
    let has_lengths = year.len() == 4 && month.len() == 2 && day.len() == 2;
    let date = Date::new(year.parse().ok()?, month.parse().ok()?, day.parse().ok()?).ok()?;
    let epoch = Date::new(1970, 1, 1).ok()?;
    let days = date.since(epoch).ok()?.get_days();
    has_lengths.then_some(Some(i64::from(days)))
}

/// Oldest first; the far times come before all.
pub async fn list(inner: &Inner) -> Result<Vec<DayIndex>> {
    let prefix = &inner.options.index_prefix;
    let alias = format!("{}write-", inner.options.state_prefix);
    let path = format!(
        "/_alias/{}",
        percent_encoded(&format!("{alias}{prefix}")) + "*"
    );
    let answer = inner.client.admin(Method::GET, &path, None).await?;
    if answer.status == 404 {
        return Ok(Vec::new());
    }
    let found = answer.expect("list its indices")?;
    let mut indices = Vec::new();
    for (name, about) in found.as_object().into_iter().flatten() {
        let own = format!("{alias}{name}-");
        let aliases = about.get("aliases").and_then(Json::as_object);
        let is_own =
            aliases.is_some_and(|aliases| aliases.keys().any(|alias| alias.starts_with(&own)));
        let day = name.strip_prefix(prefix.as_str()).and_then(day_of_name);
        if let Some(day) = day.filter(|_| is_own) {
            indices.push(DayIndex {
                name: name.clone(),
                day,
                records: 0,
                bytes: 0,
                bytes_all: 0,
            });
        }
    }
    if !indices.is_empty() {
        measure(inner, &mut indices).await?;
    }
    indices.sort_by_key(|index| index.day);
    Ok(indices)
}

async fn measure(inner: &Inner, indices: &mut [DayIndex]) -> Result<()> {
    let path = format!(
        "/_cat/indices/{}*?format=json&bytes=b&h=index,docs.count,store.size,pri.store.size",
        percent_encoded(&inner.options.index_prefix)
    );
    let answer = inner
        .client
        .admin(Method::GET, &path, None)
        .await?
        .expect("measure its indices")?;
    let rows = answer.as_array().ok_or_else(|| {
        Error::unavailable(
            "elasticsearch_broken_answer",
            "Elasticsearch does not list its indices",
        )
    })?;
    for row in rows {
        let text = |name: &str| row.get(name).and_then(Json::as_str);
        let number = |name: &str| text(name).and_then(|text| text.parse().ok()).unwrap_or(0);
        if let Some(index) = indices
            .iter_mut()
            .find(|index| Some(index.name.as_str()) == text("index"))
        {
            index.records = number("docs.count");
            index.bytes = number("pri.store.size");
            index.bytes_all = number("store.size");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::elasticsearch::names::index_of_day;

    #[test]
    fn a_name_gives_its_day_back() {
        for day in [None, Some(10_957), Some(20_167), Some(47_481)] {
            assert_eq!(day_of_name(&index_of_day("", day)), Some(day));
        }
        for foreign in [
            "",
            "nginx-default",
            "2025.3.20",
            "2025.13.01",
            "2025.03.20-old",
            "2025.03",
        ] {
            assert_eq!(day_of_name(foreign), None, "{foreign}");
        }
    }
}
