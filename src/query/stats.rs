//! What `GET /logs/stats` is asked: `by=level,time(1h)`, `agg=count,p99(duration_ms)`, `sort=-count`.

use crate::common::error::{Error, Result};
use crate::query::request::{Aggregate, AggregateKind, GroupBy};
use crate::query::time;
use crate::record::aliases::Aliases;

/// At most so many groupings, and so many aggregates.
const PARTS_MAX: usize = 20;

/// A parsed question, with the names under which the answer gives each part.
#[derive(Clone, Debug, PartialEq)]
pub struct StatsQuestion {
    /// As asked for; one for each of `by`.
    pub by_labels: Vec<String>,
    pub by: Vec<GroupBy>,
    pub aggregates: Vec<Aggregate>,
    /// (index into `by` then `aggregates`, descending).
    pub sort: Vec<(usize, bool)>,
}

/// Each list holds the parts already split at commas; empty lists mean nothing by, and `count`.
pub fn parse(
    by: &[String],
    agg: &[String],
    sort: &[String],
    aliases: &Aliases,
) -> Result<StatsQuestion> {
    let aggs: Vec<&str> = match agg {
        [] => vec!["count"],
        some => some.iter().map(String::as_str).collect(),
    };
    for (name, len) in [("by", by.len()), ("agg", aggs.len())] {
        if PARTS_MAX < len {
            return Err(Error::invalid(
                "too_many_parts",
                format!("{len} parts; at most {PARTS_MAX}"),
            )
            .with_parameter(name));
        }
    }
    let groupings = by
        .iter()
        .map(|part| group_by(part.trim(), aliases))
        .collect::<Result<Vec<_>>>()?;
    let aggregates = aggs
        .iter()
        .map(|part| aggregate(part.trim(), aliases))
        .collect::<Result<Vec<_>>>()?;
    let by_labels: Vec<String> = by.iter().map(|part| part.trim().to_owned()).collect();
    let sort = sorting(sort, &by_labels, &groupings, &aggregates)?;
    Ok(StatsQuestion {
        by_labels,
        by: groupings,
        aggregates,
        sort,
    })
}

fn group_by(part: &str, aliases: &Aliases) -> Result<GroupBy> {
    let bad = |error: Error| error.with_parameter("by");
    match call(part) {
        Some(("time", interval)) => time::parse_interval(interval)
            .map(GroupBy::Time)
            .map_err(bad),
        _ if part.is_empty() => Err(bad(Error::invalid(
            "invalid_parameter",
            "an empty name; write by=level,source or by=time(1h)",
        ))),
        _ => Ok(GroupBy::Field(standard_address(part, aliases))),
    }
}

fn aggregate(part: &str, aliases: &Aliases) -> Result<Aggregate> {
    let bad = || {
        Error::invalid(
            "invalid_parameter",
            format!(
                "`{part}` is not an aggregate; write count, count(field), sum(field), avg(field), min(field), max(field), p99(field) or distinct(field)"
            ),
        )
        .with_parameter("agg")
    };
    if part == "count" || part == "count()" || part == "count(*)" {
        return Ok(Aggregate {
            label: part.to_owned(),
            kind: AggregateKind::Count,
            field: String::new(),
        });
    }
    let (name, field) = call(part).ok_or_else(bad)?;
    if field.is_empty() {
        return Err(bad());
    }
    let kind = match name {
        "count" => AggregateKind::CountField,
        "sum" => AggregateKind::Sum,
        "avg" | "mean" => AggregateKind::Avg,
        "min" => AggregateKind::Min,
        "max" => AggregateKind::Max,
        "median" => AggregateKind::Percentile(50.0),
        "distinct" | "count_distinct" => AggregateKind::Distinct,
        _ => match name.strip_prefix('p').and_then(|p| p.parse::<f64>().ok()) {
            Some(p) if (0.0..=100.0).contains(&p) => AggregateKind::Percentile(p),
            _ => return Err(bad()),
        },
    };
    Ok(Aggregate {
        label: part.to_owned(),
        kind,
        field: standard_address(field, aliases),
    })
}

/// Without `sort`: by time if grouped by time, else by the first count, descending, else as grouped.
fn sorting(
    sort: &[String],
    labels: &[String],
    by: &[GroupBy],
    aggregates: &[Aggregate],
) -> Result<Vec<(usize, bool)>> {
    if sort.is_empty() {
        let by_time = by
            .iter()
            .position(|group| matches!(group, GroupBy::Time(_)));
        let by_count = aggregates
            .iter()
            .position(|a| a.kind == AggregateKind::Count);
        return Ok(match (by_time, by_count) {
            (Some(time), _) => vec![(time, false)],
            (None, Some(count)) => vec![(by.len() + count, true)],
            (None, None) => Vec::new(),
        });
    }
    let names: Vec<&str> = labels
        .iter()
        .map(String::as_str)
        .chain(aggregates.iter().map(|a| a.label.as_str()))
        .collect();
    sort.iter()
        .map(|part| {
            let part = part.trim();
            let (name, descending) = match part.strip_prefix('-') {
                Some(name) => (name, true),
                None => (part.strip_prefix('+').unwrap_or(part), false),
            };
            let is_meant = |known: &str| {
                known == name || call(known).is_some_and(|(f, _)| f == "time" && name == "time")
            };
            match names.iter().position(|known| is_meant(known)) {
                Some(index) => Ok((index, descending)),
                None => Err(Error::invalid(
                    "invalid_parameter",
                    format!(
                        "`{name}` is not part of this question; sort by one of: {}",
                        names.join(", ")
                    ),
                )
                .with_parameter("sort")),
            }
        })
        .collect()
}

/// `name(argument)` in its two parts.
fn call(part: &str) -> Option<(&str, &str)> {
    let (name, rest) = part.split_once('(')?;
    Some((name, rest.strip_suffix(')')?.trim()))
}

fn standard_address(asked: &str, aliases: &Aliases) -> String {
    match aliases.standard(asked) {
        Some((standard, _)) => standard.name().to_owned(),
        None => asked.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(by: &[&str], agg: &[&str], sort: &[&str]) -> Result<StatsQuestion> {
        let list = |parts: &[&str]| parts.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>();
        parse(&list(by), &list(agg), &list(sort), &Aliases::default())
    }

    #[test]
    fn a_question_is_read_with_its_labels_as_asked() {
        let question = ask(
            &["service", "time(1h)"],
            &["count", "p99.9(duration_ms)"],
            &["-count", "time"],
        )
        .unwrap();
        assert_eq!(question.by_labels, ["service", "time(1h)"]);
        assert_eq!(
            question.by,
            [
                GroupBy::Field("source".to_owned()),
                GroupBy::Time(3_600_000_000_000)
            ]
        );
        assert_eq!(question.aggregates[1].kind, AggregateKind::Percentile(99.9));
        assert_eq!(question.sort, [(2, true), (1, false)]);
    }

    #[test]
    fn without_sort_the_largest_group_or_the_first_time_comes_first() {
        assert_eq!(ask(&["level"], &[], &[]).unwrap().sort, [(1, true)]);
        assert_eq!(
            ask(&["level", "time(1m)"], &[], &[]).unwrap().sort,
            [(1, false)]
        );
        assert_eq!(ask(&["level"], &["avg(x)"], &[]).unwrap().sort, []);
    }

    #[test]
    fn what_cannot_be_asked_names_the_parameter() {
        for (by, agg, sort, parameter) in [
            (&["time(5)"][..], &[][..], &[][..], "by"),
            (&[""], &[], &[], "by"),
            (&[], &["p101(x)"], &[], "agg"),
            (&[], &["avg"], &[], "agg"),
            (&[], &["avg()"], &[], "agg"),
            (&[], &["frob(x)"], &[], "agg"),
            (&["level"], &[], &["-source"], "sort"),
        ] {
            let error = ask(by, agg, sort).unwrap_err();
            assert_eq!(error.parameter.as_deref(), Some(parameter), "{error}");
        }
    }
}
