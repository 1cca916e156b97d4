//! A [`Match`] made ready for many values. This is what each match means, for every store; the prose stands in `ast`.

use std::cmp::Ordering;
use std::net::IpAddr;
use std::ops::Bound;

use regex::{Regex, RegexBuilder};

use crate::common::error::{Error, Result};
use crate::query::ast::Match;
use crate::query::number::Number;
use crate::query::text;
use crate::record::ValueRef;
use crate::record::leaves::any_leaf;

/// Bytes of a compiled pattern.
const REGEX_SIZE_MAX: usize = 1 << 20;
/// Bytes that a search may use for its lazy automaton, for each thread.
const REGEX_CACHE_MAX: usize = 1 << 20;
const REGEX_NEST_MAX: u32 = 64;

/// Compiled once, applied to many values; cheap to clone.
#[derive(Clone, Debug)]
pub struct Matcher {
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Words {
        tokens: Vec<String>,
        number: Option<Number>,
        boolean: Option<bool>,
    },
    Contains {
        lowercase: String,
    },
    Exact {
        text: String,
        number: Option<Number>,
    },
    /// Lowercase.
    OneOf(Vec<String>),
    Pattern(Regex),
    Numbers {
        low: Bound<Number>,
        high: Bound<Number>,
    },
    Texts {
        low: Bound<String>,
        high: Bound<String>,
    },
    Exists,
    Cidr(ipnet::IpNet),
}

impl Matcher {
    /// Fails on a regular expression that is wrong or too large; the message says what is wrong with it.
    pub fn new(wanted: &Match) -> Result<Self> {
        let kind = match wanted {
            Match::Words { text, tokens } if tokens.is_empty() => contains(text),
            Match::Words { text, tokens } => Kind::Words {
                tokens: tokens.clone(),
                number: Number::parse(text),
                boolean: boolean(text),
            },
            Match::Contains(text) => contains(text),
            Match::Exact(text) => Kind::Exact {
                text: text.clone(),
                number: Number::parse(text),
            },
            Match::OneOf(texts) => Kind::OneOf(texts.iter().map(|t| text::lowercase(t)).collect()),
            Match::Wildcard(pattern) => Kind::Pattern(compile(&wildcard_regex(pattern))?),
            Match::Regex(pattern) => Kind::Pattern(compile(pattern)?),
            Match::Range { low, high } => range(low, high),
            Match::Exists => Kind::Exists,
            Match::Cidr(network) => Kind::Cidr(network.trunc()),
        };
        Ok(Self { kind })
    }

    /// Whether a field with this value matches; `Json` by its leaves.
    pub fn matches(&self, value: ValueRef<'_>) -> bool {
        match value {
            ValueRef::Null => false,
            ValueRef::Bool(value) => self.matches_bool(value),
            ValueRef::Int(value) => self.matches_int(value),
            ValueRef::Float(value) => self.matches_float(value),
            ValueRef::Number(text) => self.matches_number(text),
            ValueRef::Str(text) => self.matches_str(text),
            ValueRef::Json(json) => self.matches_json(json),
        }
    }

    pub fn matches_str(&self, text: &str) -> bool {
        match &self.kind {
            Kind::Words { tokens, .. } => text::holds_phrase(text, tokens),
            Kind::Contains { lowercase } => contains_lowercase(text, lowercase),
            Kind::Exact { text: wanted, .. } => text == wanted,
            Kind::OneOf(texts) => texts.iter().any(|t| text::equals_lowercase(text, t)),
            Kind::Pattern(regex) => regex.is_match(text),
            Kind::Numbers { low, high } => in_range(low, high, |bound| bound.compare_text(text)),
            Kind::Texts { low, high } => in_range(low, high, |bound| Some(text.cmp(bound))),
            Kind::Exists => true,
            Kind::Cidr(network) => text
                .parse::<IpAddr>()
                .is_ok_and(|ip| network.contains(&ip.to_canonical())),
        }
    }

    pub fn matches_int(&self, value: i64) -> bool {
        self.matches_numeric(
            |number| Some(number.compare_int(value)),
            |test| test(itoa::Buffer::new().format(value)),
        )
    }

    pub fn matches_float(&self, value: f64) -> bool {
        self.matches_numeric(
            |number| Some(number.compare_float(value)),
            |test| test(&ValueRef::Float(value).text()),
        )
    }

    /// `text` is that of a [`ValueRef::Number`].
    pub fn matches_number(&self, text: &str) -> bool {
        self.matches_numeric(|number| number.compare_text(text), |test| test(text))
    }

    pub fn matches_bool(&self, value: bool) -> bool {
        let text = if value { "true" } else { "false" };
        match &self.kind {
            Kind::Words { boolean, .. } => *boolean == Some(value),
            Kind::Exact { text: wanted, .. } => text == wanted,
            Kind::OneOf(texts) => texts.iter().any(|t| t == text),
            Kind::Pattern(regex) => regex.is_match(text),
            Kind::Exists => true,
            Kind::Contains { .. } | Kind::Numbers { .. } | Kind::Texts { .. } | Kind::Cidr(_) => {
                false
            }
        }
    }

    /// Any scalar leaf of `json` matches.
    pub fn matches_json(&self, json: &str) -> bool {
        matches!(self.kind, Kind::Exists) || any_leaf(json, |_, leaf| self.matches_leaf(leaf))
    }

    /// Any scalar leaf of `json` at the address `inside` it, or below that, matches.
    pub fn matches_inside_json(&self, json: &str, inside: &str) -> bool {
        any_leaf(json, |address, leaf| {
            let is_below = address
                .strip_prefix(inside)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
            is_below && self.matches_leaf(leaf)
        })
    }

    fn matches_leaf(&self, leaf: ValueRef<'_>) -> bool {
        match leaf {
            // An empty array or object: there, but without a scalar.
            ValueRef::Json(_) => matches!(self.kind, Kind::Exists),
            scalar => self.matches(scalar),
        }
    }

    fn matches_numeric(
        &self,
        compare: impl Fn(&Number) -> Option<Ordering>,
        with_text: impl Fn(&dyn Fn(&str) -> bool) -> bool,
    ) -> bool {
        let equals = |number: &Option<Number>| {
            number
                .as_ref()
                .is_some_and(|number| compare(number) == Some(Ordering::Equal))
        };
        match &self.kind {
            Kind::Words { number, .. } => equals(number),
            Kind::Exact { text, number } => equals(number) || with_text(&|t| t == text),
            Kind::OneOf(texts) => {
                with_text(&|t| texts.iter().any(|wanted| text::equals_lowercase(t, wanted)))
            }
            Kind::Pattern(regex) => with_text(&|t| regex.is_match(t)),
            Kind::Numbers { low, high } => in_range(low, high, compare),
            Kind::Exists => true,
            Kind::Contains { .. } | Kind::Texts { .. } | Kind::Cidr(_) => false,
        }
    }
}

/// Compiles a pattern within the limits.
pub fn compile(pattern: &str) -> Result<Regex> {
    RegexBuilder::new(pattern)
        .size_limit(REGEX_SIZE_MAX)
        .dfa_size_limit(REGEX_CACHE_MAX)
        .nest_limit(REGEX_NEST_MAX)
        .build()
        .map_err(|error| {
            let what = match &error {
                regex::Error::CompiledTooBig(_) => {
                    "it becomes too large; use smaller repetitions".to_owned()
                }
                other => last_line(&other.to_string()),
            };
            Error::invalid("invalid_query", format!("regular expression: {what}"))
        })
}

/// `regex` prints the pattern with a marker and then the reason in the last line.
fn last_line(message: &str) -> String {
    let line = message.lines().last().unwrap_or(message);
    line.trim_start_matches("error: ").to_owned()
}

/// The regular expression that a wildcard pattern means.
pub fn wildcard_regex(pattern: &str) -> String {
    const EDGE: &str = "[^\\p{Alphabetic}\\p{N}]";
    let mut body = String::new();
    let mut first = None;
    let mut last = None;
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        let literal = match c {
            '*' => {
                body.push_str("\\S*");
                None
            }
            '?' => {
                body.push_str("\\S");
                None
            }
            '\\' => Some(chars.next().unwrap_or('\\')),
            other => Some(other),
        };
        if let Some(literal) = literal {
            body.push_str(&regex::escape(literal.encode_utf8(&mut [0; 4])));
        }
        first.get_or_insert(literal);
        last = Some(literal);
    }
    let needs_edge = |end: Option<Option<char>>| end.flatten().is_some_and(char::is_alphanumeric);
    let before = if needs_edge(first) {
        format!("(?:^|{EDGE})")
    } else {
        String::new()
    };
    let after = if needs_edge(last) {
        format!("(?:$|{EDGE})")
    } else {
        String::new()
    };
    format!("(?i){before}{body}{after}")
}

fn contains(text: &str) -> Kind {
    Kind::Contains {
        lowercase: text::lowercase(text),
    }
}

fn contains_lowercase(text: &str, wanted: &str) -> bool {
    let is_caseless = !wanted.chars().any(char::is_alphanumeric);
    if is_caseless {
        memchr::memmem::find(text.as_bytes(), wanted.as_bytes()).is_some()
    } else {
        text::lowercase(text).contains(wanted)
    }
}

fn boolean(text: &str) -> Option<bool> {
    if text.eq_ignore_ascii_case("true") {
        Some(true)
    } else if text.eq_ignore_ascii_case("false") {
        Some(false)
    } else {
        None
    }
}

fn range(low: &Bound<String>, high: &Bound<String>) -> Kind {
    if matches!((low, high), (Bound::Unbounded, Bound::Unbounded)) {
        return Kind::Exists;
    }
    let number = |bound: &Bound<String>| match bound {
        Bound::Included(text) => Number::parse(text).map(Bound::Included),
        Bound::Excluded(text) => Number::parse(text).map(Bound::Excluded),
        Bound::Unbounded => Some(Bound::Unbounded),
    };
    match (number(low), number(high)) {
        (Some(low), Some(high)) => Kind::Numbers { low, high },
        _ => Kind::Texts {
            low: low.clone(),
            high: high.clone(),
        },
    }
}

/// `compare` says how the value stands to a bound; `None`: not comparable.
fn in_range<B>(low: &Bound<B>, high: &Bound<B>, compare: impl Fn(&B) -> Option<Ordering>) -> bool {
    let above = match low {
        Bound::Included(bound) => compare(bound).is_some_and(Ordering::is_ge),
        Bound::Excluded(bound) => compare(bound).is_some_and(Ordering::is_gt),
        Bound::Unbounded => true,
    };
    let below = match high {
        Bound::Included(bound) => compare(bound).is_some_and(Ordering::is_le),
        Bound::Excluded(bound) => compare(bound).is_some_and(Ordering::is_lt),
        Bound::Unbounded => true,
    };
    above && below
}

#[cfg(test)]
mod tests;
