//! What stands after `name:`: comparisons, ranges, networks, exact values, and the fields that read their values in a way of their own
//! (`level` by its synonyms, `timestamp` as times).

use std::ops::Bound;

use crate::common::error::{Error, Result};
use crate::query::ast::{Expr, Field, Match, Term};
use crate::query::matcher;
use crate::query::parser::scan::Word;
use crate::query::parser::{Parser, fault};
use crate::query::text;
use crate::query::time;
use crate::record::level::{self, Severity};
use crate::record::{LEVEL, TIMESTAMP};

/// Bytes of a regular expression.
const REGEX_BYTES_MAX: usize = 1_024;
/// Wildcards of a pattern.
const WILDCARDS_MAX: usize = 64;
const DAY_NS: i64 = 86_400_000_000_000;

type Bounds = (Bound<String>, Bound<String>);

impl Parser<'_> {
    /// A value of `field`, which may be a comparison, a range, a network or an exact value.
    pub(super) fn value_of(&mut self, at: usize, field: &Field) -> Result<Expr> {
        let scanner = &mut self.scanner;
        let matcher = if scanner.take_text(">=") {
            self.range(at, field, |bound| {
                (Bound::Included(bound), Bound::Unbounded)
            })?
        } else if scanner.take_text("<=") {
            self.range(at, field, |bound| {
                (Bound::Unbounded, Bound::Included(bound))
            })?
        } else if scanner.take('>') {
            self.range(at, field, |bound| {
                (Bound::Excluded(bound), Bound::Unbounded)
            })?
        } else if scanner.take('<') {
            self.range(at, field, |bound| {
                (Bound::Unbounded, Bound::Excluded(bound))
            })?
        } else if scanner.take('=') {
            let text = scanner.plain_word()?;
            if asks(field, TIMESTAMP) {
                self.moment(at, &text)?
            } else {
                Match::Exact(text)
            }
        } else if matches!(scanner.peek(), Some('[' | '{')) {
            let bounds = self.brackets(at)?;
            self.bounded(at, field, bounds)?
        } else {
            let word = scanner.value_start()?;
            return self.word_of(at, field, word);
        };
        Ok(term(field, matcher))
    }

    fn word_of(&self, at: usize, field: &Field, word: Word) -> Result<Expr> {
        if let Word::Text(text) = &word {
            if asks(field, LEVEL) {
                return Ok(term(field, Match::OneOf(level::synonyms(text))));
            }
            if asks(field, TIMESTAMP) {
                return self.moment(at, text).map(|matcher| term(field, matcher));
            }
            if text.contains('/')
                && let Ok(network) = text.parse::<ipnet::IpNet>()
            {
                return Ok(term(field, Match::Cidr(network.trunc())));
            }
        }
        if asks(field, TIMESTAMP) && word != Word::Star {
            let advice = "a time takes no wildcard and no regular expression; write a date, `>=time` or `[time TO time]`";
            return Err(fault(at, advice.to_owned()));
        }
        self.matched(at, field.clone(), word)
    }

    /// A whole day for a date, else the very instant.
    fn moment(&self, at: usize, text: &str) -> Result<Match> {
        let start_ns = self.time(at, text)?;
        let is_date = text.len() == 10 && text.bytes().filter(|b| *b == b'-').count() == 2;
        let high = match start_ns.checked_add(DAY_NS) {
            Some(end_ns) if is_date => Bound::Excluded(end_ns.to_string()),
            _ => Bound::Included(start_ns.to_string()),
        };
        Ok(Match::Range {
            low: Bound::Included(start_ns.to_string()),
            high,
        })
    }

    fn range(
        &mut self,
        at: usize,
        field: &Field,
        bounds: impl FnOnce(String) -> Bounds,
    ) -> Result<Match> {
        let bound = self.scanner.plain_word()?;
        self.bounded(at, field, bounds(bound))
    }

    /// `[low TO high}` and its kin.
    fn brackets(&mut self, at: usize) -> Result<Bounds> {
        let includes_low = self.scanner.take('[') || !self.scanner.take('{');
        let low = self.bracket_bound()?;
        if !self.scanner.take_text("TO") {
            return Err(fault(
                self.scanner.at(),
                "expected `TO` between the bounds, as in [10 TO 20]".to_owned(),
            ));
        }
        let high = self.bracket_bound()?;
        let includes_high = if self.scanner.take(']') {
            true
        } else if self.scanner.take('}') {
            false
        } else {
            return Err(fault(
                at,
                "this range is never closed; end it with `]` or `}`".to_owned(),
            ));
        };
        let bound = |text: Option<String>, is_included| match text {
            None => Bound::Unbounded,
            Some(text) if is_included => Bound::Included(text),
            Some(text) => Bound::Excluded(text),
        };
        Ok((bound(low, includes_low), bound(high, includes_high)))
    }

    /// `None` for `*`.
    fn bracket_bound(&mut self) -> Result<Option<String>> {
        self.scanner.skip_blanks();
        let is_quoted = self.scanner.peek() == Some('"');
        let text = if is_quoted {
            self.scanner.plain_word()?
        } else {
            self.scanner
                .plain_until(|c| c.is_whitespace() || matches!(c, ']' | '}' | '"'))?
        };
        self.scanner.skip_blanks();
        Ok((is_quoted || text != "*").then_some(text))
    }

    fn bounded(&self, at: usize, field: &Field, (low, high): Bounds) -> Result<Match> {
        if asks(field, TIMESTAMP) {
            let as_time = |bound: Bound<String>| match bound {
                Bound::Included(text) => self
                    .time(at, &text)
                    .map(|ns| Bound::Included(ns.to_string())),
                Bound::Excluded(text) => self
                    .time(at, &text)
                    .map(|ns| Bound::Excluded(ns.to_string())),
                Bound::Unbounded => Ok(Bound::Unbounded),
            };
            return Ok(Match::Range {
                low: as_time(low)?,
                high: as_time(high)?,
            });
        }
        if asks(field, LEVEL)
            && let Some(texts) = severities(&low, &high)
        {
            return Ok(Match::OneOf(texts));
        }
        Ok(Match::Range { low, high })
    }

    fn time(&self, at: usize, text: &str) -> Result<i64> {
        time::parse_time(text, self.context.now_ns).map_err(|error| fault(at, error.message))
    }
}

fn term(field: &Field, matcher: Match) -> Expr {
    Expr::Term(Term {
        field: field.clone(),
        matcher,
    })
}

fn asks(field: &Field, standard: &str) -> bool {
    match field {
        Field::Any => false,
        Field::Addresses(addresses) => addresses.first().is_some_and(|address| address == standard),
    }
}

/// `level:>=warn`: all texts of the severities in the range; `None` if a bound is not the name of one.
fn severities(low: &Bound<String>, high: &Bound<String>) -> Option<Vec<String>> {
    let named = |bound: &Bound<String>| {
        Some(match bound {
            Bound::Unbounded => Bound::Unbounded,
            Bound::Included(text) => Bound::Included(severity(text)?),
            Bound::Excluded(text) => Bound::Excluded(severity(text)?),
        })
    };
    let (low, high) = (named(low)?, named(high)?);
    let is_inside = |severity: &Severity| {
        let above = match low {
            Bound::Unbounded => true,
            Bound::Included(low) => low <= *severity,
            Bound::Excluded(low) => low < *severity,
        };
        let below = match high {
            Bound::Unbounded => true,
            Bound::Included(high) => *severity <= high,
            Bound::Excluded(high) => *severity < high,
        };
        above && below
    };
    let texts = Severity::ALL
        .into_iter()
        .filter(is_inside)
        .flat_map(|severity| severity.texts().iter().map(|text| (*text).to_owned()))
        .collect();
    Some(texts)
}

/// Numbers compare as numbers: only names are severities here.
fn severity(text: &str) -> Option<Severity> {
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Severity::from_text(text)
}

pub(super) fn words(text: String) -> Match {
    let tokens = text::tokens(&text);
    if tokens.is_empty() {
        Match::Contains(text)
    } else {
        Match::Words { text, tokens }
    }
}

pub(super) fn regex(pattern: String, at: usize) -> Result<Match> {
    if REGEX_BYTES_MAX < pattern.len() {
        return Err(fault(
            at,
            format!(
                "a regular expression of {} bytes; at most {REGEX_BYTES_MAX}",
                pattern.len()
            ),
        ));
    }
    matcher::compile(&pattern).map_err(|error| placed(error, at))?;
    Ok(Match::Regex(pattern))
}

pub(super) fn wildcard(pattern: String, at: usize) -> Result<Match> {
    let n_wildcards = pattern.bytes().filter(|b| matches!(b, b'*' | b'?')).count();
    if WILDCARDS_MAX < n_wildcards {
        return Err(fault(
            at,
            format!("{n_wildcards} wildcards in one word; at most {WILDCARDS_MAX}"),
        ));
    }
    let matcher = Match::Wildcard(pattern);
    matcher::Matcher::new(&matcher).map_err(|error| placed(error, at))?;
    Ok(matcher)
}

fn placed(error: Error, at: usize) -> Error {
    error.with_parameter("q").with_position(at)
}
