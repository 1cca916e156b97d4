//! The parameters that all questions share, as a `Selection`: `service`/`source`, `level`, `start`, `end`, `q`.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::common::error::{Error, Result};
use crate::common::http::Params;
use crate::query::parser::{self, Context};
use crate::query::{Expr, Field, Match, Selection, Term, TimeRange, time};
use crate::record::aliases::Aliases;
use crate::record::{LEVEL, SOURCE, level};

/// The parameters read here.
pub const PARAMETERS: [&str; 6] = ["service", "source", "level", "start", "end", "q"];

/// Values of `source` or `level` in one request.
const VALUES_MAX: usize = 256;
const SECOND_NS: i64 = 1_000_000_000;

/// Reads the shared parameters as of now.
pub fn selection(params: &Params, aliases: &Aliases) -> Result<Selection> {
    let now_ns = now_ns();
    let range = range(params, now_ns)?;
    let mut filter = match params.one("q")? {
        Some(q) => parser::parse(q, Context { aliases, now_ns })?,
        None => Expr::All,
    };
    let mut sources = values(params, "source")?;
    sources.extend(values(params, "service")?);
    if !sources.is_empty() {
        let exact = sources
            .into_iter()
            .map(|source| term(vec![SOURCE.to_owned()], Match::Exact(source)));
        filter = any_of(exact.collect()).and(filter);
    }
    let levels = values(params, "level")?;
    if !levels.is_empty() {
        let texts = levels.iter().flat_map(|text| level::synonyms(text));
        filter = term(vec![LEVEL.to_owned()], Match::OneOf(texts.collect())).and(filter);
    }
    Ok(Selection {
        range,
        filter,
        positions: None,
    })
}

/// Nanoseconds since 1970.
pub fn now_ns() -> i64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(now.as_nanos()).unwrap_or(i64::MAX)
}

fn range(params: &Params, now: i64) -> Result<TimeRange> {
    // Whole seconds, outwards: questions of one second about "the last 15 minutes" are one question to the cache.
    let floor = now - now.rem_euclid(SECOND_NS);
    let read = |name: &str, now: i64| {
        let text = params.one(name)?;
        let read = text.map(|text| time::parse_time(text, now).map_err(|e| e.with_parameter(name)));
        read.transpose()
    };
    let range = TimeRange {
        start_ns: read("start", floor)?,
        end_ns: read("end", floor + SECOND_NS)?,
    };
    if let (Some(start), Some(end)) = (range.start_ns, range.end_ns)
        && end < start
    {
        let message = "`end` lies before `start`; swap them";
        return Err(Error::invalid("invalid_range", message).with_parameter("end"));
    }
    Ok(range)
}

fn values(params: &Params, name: &str) -> Result<Vec<String>> {
    let values = params.list(name);
    if VALUES_MAX < values.len() {
        let message = format!(
            "`{name}` has {} values; at most {VALUES_MAX} are allowed",
            values.len()
        );
        return Err(Error::invalid("too_many_values", message).with_parameter(name));
    }
    Ok(values)
}

fn term(addresses: Vec<String>, matcher: Match) -> Expr {
    Expr::Term(Term {
        field: Field::Addresses(addresses),
        matcher,
    })
}

fn any_of(mut terms: Vec<Expr>) -> Expr {
    match terms.len() {
        1 => terms.remove(0),
        _ => Expr::Or(terms),
    }
}

/// The record's own source and no other; records without one belong together, too.
pub fn same_source(source: Option<&str>) -> Expr {
    let addresses = vec![SOURCE.to_owned()];
    match source {
        Some(source) => term(addresses, Match::Exact(source.to_owned())),
        None => Expr::Not(Box::new(term(addresses, Match::Exists))),
    }
}

/// The address that a name asked for means: `service` is `source`.
pub fn standard_address(asked: &str, aliases: &Aliases) -> String {
    match aliases.standard(asked) {
        Some((standard, _)) => standard.name().to_owned(),
        None => asked.to_owned(),
    }
}
