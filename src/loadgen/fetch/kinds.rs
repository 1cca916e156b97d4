//! The kinds of questions: how each is made up from what the server holds, and what its answer must satisfy.

use serde_json::Value as Json;

use crate::common::http::percent_encoded;
use crate::loadgen::fetch::asker::{Asker, NoAnswer};
use crate::loadgen::fetch::check::{self, Expect};
use crate::loadgen::rng::Rng;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// The newest records of a time range.
    Newest,
    /// One source and one level.
    Filter,
    /// A word in any field.
    Word,
    /// One field's exact value.
    Field,
    /// Counts by time and level; must sum to the total of the list.
    Histogram,
    /// Fields with their top values.
    Fields,
    /// Counts by level and source; must sum to the total of the list.
    Stats,
    /// A record by its id, and what surrounds it.
    Context,
    /// Several pages by cursor, either way.
    Paging,
}

pub const ALL: [Kind; 9] = [
    Kind::Newest,
    Kind::Filter,
    Kind::Word,
    Kind::Field,
    Kind::Histogram,
    Kind::Fields,
    Kind::Stats,
    Kind::Context,
    Kind::Paging,
];

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Newest => "newest",
            Self::Filter => "filter",
            Self::Word => "word",
            Self::Field => "field",
            Self::Histogram => "histogram",
            Self::Fields => "fields",
            Self::Stats => "stats",
            Self::Context => "context",
            Self::Paging => "paging",
        }
    }
}

/// What the server holds, asked once at the start, to make up questions that have answers.
#[derive(Clone, Debug)]
pub struct Knowledge {
    pub sources: Vec<String>,
    pub levels: Vec<String>,
    pub words: Vec<String>,
    /// (address, exact text) of strings and integers.
    pub values: Vec<(String, String)>,
    pub start_ns: i64,
    pub end_ns: i64,
}

/// Records read to learn words and values.
const LEARN_RECORDS: usize = 200;

impl Knowledge {
    /// `None` when the store is empty or does not answer.
    pub async fn learn(asker: &mut Asker) -> Option<Self> {
        let path = format!("/logs?limit={LEARN_RECORDS}&total=false");
        let newest = asker.get("learn", &path).await.ok()?;
        let oldest = asker
            .get("learn", "/logs?limit=1&order=asc&total=false")
            .await
            .ok()?;
        let logs = check::array(&newest, "logs").ok()?;
        let end_ns = check::time_ns(logs.first()?).ok()?;
        let start_ns = check::time_ns(check::array(&oldest, "logs").ok()?.first()?).ok()?;
        let mut known = Self {
            sources: groups(asker, "source").await?,
            levels: groups(asker, "level").await?,
            words: Vec::new(),
            values: Vec::new(),
            start_ns,
            end_ns: end_ns + 1,
        };
        for log in logs {
            known.learn_from(log);
        }
        Some(known)
    }

    fn learn_from(&mut self, log: &Json) {
        let message = check::text(log, "message").unwrap_or_default();
        let words = message
            .split(|c: char| !c.is_alphanumeric())
            .filter(|word| 4 <= word.len() && word.chars().all(char::is_alphabetic));
        for word in words {
            if !self.words.iter().any(|known| known == word) {
                self.words.push(word.to_owned());
            }
        }
        if let Some(fields) = log.as_object() {
            for (name, value) in fields {
                let is_special = matches!(name.as_str(), "id" | "timestamp" | "message")
                    || name.starts_with('_');
                let is_plain = value.is_i64()
                    || value
                        .as_str()
                        .is_some_and(|text| (1..60).contains(&text.len()));
                if !is_special && is_plain && name.chars().all(|c| c.is_alphanumeric() || c == '_')
                {
                    self.values.push((name.clone(), check::plain(value)));
                }
            }
        }
    }

    /// A range of the whole, a half, a tenth or a hundredth, on a grid so that questions come back.
    fn range(&self, rng: &mut Rng) -> (i64, i64) {
        let span = (self.end_ns - self.start_ns).max(1);
        let share = rng.pick(&[1_i64, 2, 10, 100]);
        let width = (span / share).max(1);
        let start = self.start_ns + rng.below(share as u64) as i64 * width;
        (start, (start + width).min(self.end_ns).max(start + 1))
    }
}

async fn groups(asker: &mut Asker, by: &str) -> Option<Vec<String>> {
    let path = format!("/logs/stats?by={by}&agg=count&sort=-count&limit=20");
    let answer = asker.get("learn", &path).await.ok()?;
    let groups = check::array(&answer, "groups").ok()?;
    Some(
        groups
            .iter()
            .filter_map(|group| check::text(group.get("by")?, by))
            // Records without the field form a group too; a filter cannot name it.
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect(),
    )
}

fn pick<'a, T>(rng: &mut Rng, items: &'a [T]) -> Option<&'a T> {
    items.get(rng.below(items.len() as u64) as usize)
}

fn rfc3339(ns: i64) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(ns))
        .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
        .to_string()
}

fn range_parameters((start, end): (i64, i64)) -> String {
    format!(
        "start={}&end={}",
        percent_encoded(&rfc3339(start)),
        percent_encoded(&rfc3339(end))
    )
}

/// Asks one question of the kind. What is wrong is noted in the asker; `NoAnswer` means there was nothing to check.
pub async fn ask(
    kind: Kind,
    asker: &mut Asker,
    rng: &mut Rng,
    known: &Knowledge,
) -> Result<(), NoAnswer> {
    match kind {
        Kind::Newest | Kind::Filter | Kind::Word | Kind::Field => {
            ask_list(kind, asker, rng, known).await
        }
        Kind::Histogram | Kind::Stats => ask_counts(kind, asker, rng, known).await,
        Kind::Fields => {
            let range = range_parameters(known.range(rng));
            let path = format!("/logs/fields?{range}&top=10");
            let answer = asker.get(kind.name(), &path).await?;
            let verdict = if asker.is_unchecked {
                Ok(())
            } else {
                check::fields(&answer)
            };
            asker.check(&path, verdict);
            Ok(())
        }
        Kind::Context => ask_context(asker, rng, known).await,
        Kind::Paging => ask_pages(asker, rng, known).await,
    }
}

async fn ask_list(
    kind: Kind,
    asker: &mut Asker,
    rng: &mut Rng,
    known: &Knowledge,
) -> Result<(), NoAnswer> {
    let range = known.range(rng);
    let limit = rng.pick(&[10_usize, 50, 100]);
    let mut expect = Expect {
        range: Some(range),
        is_ascending: rng.chance(2_000),
        limit: Some(limit),
        ..Expect::default()
    };
    let order = if expect.is_ascending { "asc" } else { "desc" };
    let mut path = format!(
        "/logs?{}&limit={limit}&order={order}",
        range_parameters(range)
    );
    match kind {
        Kind::Filter => {
            if let Some(source) = pick(rng, &known.sources) {
                path.push_str(&format!("&source={}", percent_encoded(source)));
                expect.source = Some(source.clone());
            }
            if let Some(level) = pick(rng, &known.levels) {
                path.push_str(&format!("&level={}", percent_encoded(level)));
                expect.level = Some(level.clone());
            }
        }
        Kind::Word => {
            if let Some(word) = pick(rng, &known.words) {
                path.push_str(&format!("&q={}", percent_encoded(word)));
                expect.word = Some(word.clone());
            }
        }
        Kind::Field => {
            if let Some((address, value)) = pick(rng, &known.values) {
                let quoted = value.replace('\\', "\\\\").replace('"', "\\\"");
                path.push_str(&format!(
                    "&q={}",
                    percent_encoded(&format!("{address}:=\"{quoted}\""))
                ));
                expect.field = Some((address.clone(), value.clone()));
            }
        }
        _ => {}
    }
    let answer = asker.get(kind.name(), &path).await?;
    let verdict = if asker.is_unchecked {
        Ok(())
    } else {
        check::list(&answer, &expect)
    };
    asker.check(&path, verdict);
    Ok(())
}

async fn total(asker: &mut Asker, parameters: &str) -> Result<Option<u64>, NoAnswer> {
    let path = format!("/logs?{parameters}&limit=0");
    let answer = asker.get_parsed("total", &path).await?;
    Ok(answer
        .get("total")
        .and_then(|total| check::number(total, "value")))
}

/// The total is asked before and after; where both agree, what was asked between them must agree too, whatever is
/// being written meanwhile.
async fn ask_counts(
    kind: Kind,
    asker: &mut Asker,
    rng: &mut Rng,
    known: &Knowledge,
) -> Result<(), NoAnswer> {
    let mut parameters = range_parameters(known.range(rng));
    if rng.chance(3_000)
        && let Some(word) = pick(rng, &known.words)
    {
        parameters.push_str(&format!("&q={}", percent_encoded(word)));
    }
    let path = match kind {
        Kind::Histogram => format!("/logs/histogram?{parameters}&interval=auto&by=level"),
        _ => format!("/logs/stats?{parameters}&by=level,source&agg=count&sort=-count&limit=1000"),
    };
    if asker.is_unchecked {
        return asker.get(kind.name(), &path).await.map(|_| ());
    }
    let before = total(asker, &parameters).await?;
    let answer = asker.get(kind.name(), &path).await?;
    let after = total(asker, &parameters).await?;
    let sum = match kind {
        Kind::Histogram => check::histogram(&answer),
        _ => check::stats(&answer),
    };
    let is_cut = kind == Kind::Stats
        && check::array(&answer, "groups").is_ok_and(|groups| 1000 <= groups.len());
    let verdict = sum.and_then(|sum| match (before, after) {
        (Some(before), Some(after)) if before == after && sum != after && !is_cut => {
            Err(format!("counts sum to {sum}, the list's total is {after}"))
        }
        _ => Ok(()),
    });
    asker.check(&path, verdict);
    Ok(())
}

async fn ask_context(asker: &mut Asker, rng: &mut Rng, known: &Knowledge) -> Result<(), NoAnswer> {
    let path = format!(
        "/logs?{}&limit=20&total=false",
        range_parameters(known.range(rng))
    );
    let answer = asker.get_parsed("newest", &path).await?;
    let Some(record) = answer
        .get("logs")
        .and_then(Json::as_array)
        .and_then(|logs| pick(rng, logs))
    else {
        return Ok(());
    };
    let id = check::text(record, "id").unwrap_or_default();
    let path = format!("/logs/{}", percent_encoded(id));
    let one = asker.get_parsed("one", &path).await?;
    let one = one.get("log").unwrap_or(&one);
    if one != record {
        asker.wrong(
            &path,
            "the record by its id differs from the one in the list",
        );
    }
    let path = format!("/logs/{}/context?before=10&after=10", percent_encoded(id));
    let answer = asker.get_parsed(Kind::Context.name(), &path).await?;
    asker.check(&path, check::context(&answer, id));
    Ok(())
}

/// Pages followed at most.
const PAGES_MAX: usize = 20;

async fn ask_pages(asker: &mut Asker, rng: &mut Rng, known: &Knowledge) -> Result<(), NoAnswer> {
    let parameters = range_parameters(known.range(rng));
    let is_ascending = rng.chance(5_000);
    let limit = rng.pick(&[7_usize, 50, 100]);
    let order = if is_ascending { "asc" } else { "desc" };
    let before = total(asker, &parameters).await?;
    let base = format!("/logs?{parameters}&limit={limit}&order={order}");
    let mut path = base.clone();
    let mut all: Vec<Json> = Vec::new();
    let mut is_whole = false;
    for _ in 0..PAGES_MAX {
        let answer = asker.get_parsed(Kind::Paging.name(), &path).await?;
        let logs = check::array(&answer, "logs").unwrap_or_default();
        if limit < logs.len() {
            asker.wrong(&path, "more records than the limit");
        }
        all.extend_from_slice(logs);
        match check::text(&answer, "next_cursor") {
            Some(cursor) => path = format!("{base}&cursor={}", percent_encoded(cursor)),
            None => {
                is_whole = true;
                break;
            }
        }
    }
    let after = total(asker, &parameters).await?;
    let (n_all, expect) = (
        all.len() as u64,
        Expect {
            is_ascending,
            ..Expect::default()
        },
    );
    let joined = serde_json::json!({"logs": all, "partial": true});
    asker.check(
        &base,
        check::list(&joined, &expect).map_err(|what| format!("over all pages: {what}")),
    );
    if is_whole
        && before == after
        && after.is_some_and(|total| total != n_all)
        && !asker.is_unchecked
    {
        asker.wrong(
            &base,
            &format!(
                "pages hold {n_all} records, the total is {}",
                after.unwrap_or(0)
            ),
        );
    }
    Ok(())
}
