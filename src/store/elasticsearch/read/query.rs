//! A filter as Elasticsearch queries. Every match is written as [`Bounds`] around what `query::ast` says; the types of the addresses come from
//! the [`Catalog`]. Three levels of care: what the server refuses on one (a pattern too complex, too many clauses) is asked on the next, where
//! less is left to the server and more to `query::evaluate`.

use std::ops::Bound;

use serde_json::{Value as Json, json};

use crate::common::error::Result;
use crate::query::matcher::{Matcher, wildcard_regex};
use crate::query::number::{Number, is_number};
use crate::query::{Expr, Field, Match, Selection, Term, TimeRange, text};
use crate::record::value::{Flags, ValueRef, float_text};
use crate::record::{FLAGS, Position, TIMESTAMP};
use crate::store::elasticsearch::names::{self, Kind, own};
use crate::store::elasticsearch::read::bounds::{Bounds, Query};
use crate::store::elasticsearch::read::catalog::Catalog;
use crate::store::elasticsearch::read::clauses;
use crate::store::elasticsearch::read::digits;
use crate::store::elasticsearch::read::lucene::{self, Pattern};
use crate::store::elasticsearch::read::tokens;

/// How much is left to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Whole,
    /// No regular expressions.
    WithoutPatterns,
    /// Nothing but the range of time and positions.
    RangeAlone,
}

impl Level {
    pub fn next(self) -> Option<Self> {
        match self {
            Self::Whole => Some(Self::WithoutPatterns),
            Self::WithoutPatterns => Some(Self::RangeAlone),
            Self::RangeAlone => None,
        }
    }
}

/// Which records a selection is about.
pub fn selection(selection: &Selection, catalog: &Catalog, level: Level) -> Result<Bounds> {
    let translator = Translator { catalog, level };
    let filter = match level {
        Level::RangeAlone if selection.filter != Expr::All => Bounds::at_most(Query::All),
        _ => translator.expr(&selection.filter)?,
    };
    Ok(Bounds::and(vec![
        Bounds::exact(time_range(&selection.range)),
        Bounds::exact(positions(selection.positions)),
        filter,
    ]))
}

pub fn time_range(range: &TimeRange) -> Query {
    let mut bounds = serde_json::Map::new();
    if let Some(start_ns) = range.start_ns {
        bounds.insert("gte".to_owned(), start_ns.into());
    }
    if let Some(end_ns) = range.end_ns {
        bounds.insert("lt".to_owned(), end_ns.into());
    }
    if bounds.is_empty() {
        return Query::All;
    }
    Query::Clause(json!({"range": {own::NS: bounds}}))
}

fn positions(positions: Option<(Position, Position)>) -> Query {
    let Some((from, to)) = positions else {
        return Query::All;
    };
    Query::and([
        Query::Clause(clauses::term(own::PARTITION, from.partition)),
        Query::Clause(json!({"range": {own::SEQ: {"gte": from.seq, "lt": to.seq}}})),
    ])
}

struct Translator<'a> {
    catalog: &'a Catalog,
    level: Level,
}

impl Translator<'_> {
    fn expr(&self, expr: &Expr) -> Result<Bounds> {
        let all = |parts: &[Expr]| {
            parts
                .iter()
                .map(|part| self.expr(part))
                .collect::<Result<Vec<_>>>()
        };
        Ok(match expr {
            Expr::All => Bounds::exact(Query::All),
            Expr::And(parts) => Bounds::and(all(parts)?),
            Expr::Or(parts) => Bounds::or(all(parts)?),
            Expr::Not(inner) => self.expr(inner)?.not(),
            Expr::Term(term) => self.term(term)?,
        })
    }

    fn term(&self, term: &Term) -> Result<Bounds> {
        let Field::Addresses(addresses) = &term.field else {
            return self.any_field(&term.matcher);
        };
        let mut any = Vec::new();
        for address in addresses {
            if address == TIMESTAMP {
                any.push(Bounds::exact(time(&term.matcher)));
            }
            if address == FLAGS {
                any.push(Bounds::exact(flags(&term.matcher)?));
            }
            any.push(self.at(address, &term.matcher)?);
        }
        Ok(Bounds::or(any))
    }

    /// A clause for every field that holds values of this kind at the address.
    fn on(&self, address: &str, kind: Kind, clause: impl Fn(&str) -> Bounds) -> Bounds {
        let targets = self.catalog.targets(address, kind);
        let each = targets.into_iter().map(|target| {
            let found = clause(&target.name);
            match target.indices {
                None => found,
                Some(indices) => Bounds::and(vec![
                    Bounds::clause(json!({"terms": {"_index": indices}})),
                    found,
                ]),
            }
        });
        Bounds::or(each.collect())
    }

    fn at(&self, address: &str, matcher: &Match) -> Result<Bounds> {
        // Leaves of an array under an empty key have the address `a.`, and no field.
        if address.ends_with('.') {
            return Ok(Bounds::at_most(Query::All));
        }
        let overflow = Bounds::at_most(Query::Clause(clauses::prefix(
            own::OVERFLOW,
            &names::overflow_prefix(address),
        )));
        let long = || {
            Bounds::at_most(Query::Clause(clauses::term(
                own::LONG,
                &*names::address_term(address),
            )))
        };
        let is = |kind: Kind, value: Json| {
            self.on(address, kind, |name| {
                Bounds::clause(clauses::term(name, value.clone()))
            })
        };
        let mut any = Vec::new();
        match matcher {
            Match::Words { text, tokens } if !tokens.is_empty() => {
                let words: Vec<String> = tokens
                    .iter()
                    .map(|t| names::word_token(address, t))
                    .collect();
                any.push(Bounds::clause(clauses::phrase(own::WORDS, &words)));
                let boolean = boolean(&text.to_ascii_lowercase());
                if let Some(number) = Number::parse(text) {
                    any.extend([self.equal(address, &number), overflow]);
                } else if let Some(value) = boolean {
                    any.extend([is(Kind::Bool, value.into()), overflow]);
                }
            }
            Match::Words { text, .. } | Match::Contains(text) => {
                let contains = |name: &str| self.contains(name, text);
                any.extend([self.on(address, Kind::Text, contains), long(), overflow]);
            }
            Match::Exact(text) => {
                if names::TEXT_UNITS_MAX < text.encode_utf16().count() {
                    any.push(long());
                } else {
                    any.push(is(Kind::Text, text.as_str().into()));
                }
                any.extend(Number::parse(text).map(|number| self.equal(address, &number)));
                any.extend(boolean(text).map(|value| is(Kind::Bool, value.into())));
                any.push(overflow);
            }
            Match::OneOf(texts) => any.extend([self.one_of(address, texts), long(), overflow]),
            Match::Wildcard(_) | Match::Regex(_) => {
                any.extend([self.pattern_at(address, matcher, &long)?, overflow]);
            }
            Match::Range { low, high } => match (low, high) {
                (Bound::Unbounded, Bound::Unbounded) => any.push(exists_at(address)),
                _ => any.extend([self.range(address, low, high, &long), overflow]),
            },
            Match::Exists => any.push(exists_at(address)),
            Match::Cidr(network) => {
                let inside = cidr(*network);
                any.extend([
                    self.on(address, Kind::Ip, |name| inside.clone_for(name)),
                    overflow,
                ]);
            }
        }
        Ok(Bounds::or(any))
    }

    /// Numbers that equal this one; texts do not.
    fn equal(&self, address: &str, number: &Number) -> Bounds {
        let mut any = Vec::new();
        if let Some(value) = clauses::equal_int(number) {
            any.push(self.on(address, Kind::Long, |name| {
                Bounds::clause(clauses::term(name, value))
            }));
        }
        any.push(self.on(address, Kind::Double, |name| {
            clauses::equal_double(name, number).map_or_else(Bounds::nothing, Bounds::clause)
        }));
        any.push(self.nearest(address, number));
        Bounds::or(any)
    }

    fn nearest(&self, address: &str, number: &Number) -> Bounds {
        self.on(address, Kind::Number, |name| {
            let near = Bound::Included(number.clone());
            Bounds::at_most(clauses::nearest_range(name, &near, &near).upper)
        })
    }

    fn one_of(&self, address: &str, texts: &[String]) -> Bounds {
        let mut any = vec![self.on(address, Kind::Text, |name| self.caseless(name, texts))];
        for text in texts {
            let text = text::lowercase(text);
            if let Some(value) = boolean(&text) {
                any.push(self.on(address, Kind::Bool, |name| {
                    Bounds::clause(clauses::term(name, value))
                }));
            }
            let Some(number) = Number::parse(&text) else {
                continue;
            };
            if let Some(value) = number.as_i64().filter(|value| value.to_string() == text) {
                any.push(self.on(address, Kind::Long, |name| {
                    Bounds::clause(clauses::term(name, value))
                }));
            }
            let value = number.as_f64();
            if value.is_finite() && float_text(value) == text {
                any.push(self.on(address, Kind::Double, |name| {
                    Bounds::clause(clauses::term(name, value))
                }));
            }
            any.push(self.nearest(address, &number));
        }
        Bounds::or(any)
    }

    /// Texts of a field that are one of these without case.
    fn caseless(&self, name: &str, texts: &[String]) -> Bounds {
        let lowered = || Bounds::at_most(Query::Clause(clauses::exists(name)));
        if self.level != Level::Whole {
            return lowered();
        }
        if let Some(pattern) = lucene::any_of(texts) {
            return Bounds::clause(clauses::regexp(name, &pattern));
        }
        let each = texts
            .iter()
            .map(|text| match lucene::any_of(std::slice::from_ref(text)) {
                Some(pattern) => Bounds::clause(clauses::regexp(name, &pattern)),
                None => lowered(),
            });
        Bounds::or(each.collect())
    }

    fn contains(&self, name: &str, wanted: &str) -> Bounds {
        let pattern = lucene::bounded(format!(".*{}.*", lucene::escaped(wanted)));
        match pattern {
            Some(pattern)
                if self.level == Level::Whole && !wanted.contains(char::is_alphanumeric) =>
            {
                Bounds::clause(clauses::regexp(name, &pattern))
            }
            _ => Bounds::at_most(Query::Clause(clauses::exists(name))),
        }
    }

    fn range(
        &self,
        address: &str,
        low: &Bound<String>,
        high: &Bound<String>,
        long: &dyn Fn() -> Bounds,
    ) -> Bounds {
        let (Some(low), Some(high)) = (numeric(low), numeric(high)) else {
            let texts = clauses::text_range;
            return Bounds::or(vec![
                self.on(address, Kind::Text, |name| {
                    Bounds::clause(texts(name, low, high))
                }),
                long(),
            ]);
        };
        let sure = |clause: Option<Json>| clause.map_or_else(Bounds::nothing, Bounds::clause);
        let near = |name: &str| clauses::nearest_range(name, &low, &high);
        Bounds::or(vec![
            self.on(address, Kind::Long, |name| {
                sure(clauses::int_range(name, &low, &high))
            }),
            self.on(address, Kind::Double, |name| {
                sure(clauses::double_range(name, &low, &high))
            }),
            self.on(address, Kind::Number, near),
            self.on(address, Kind::Numeric, near),
        ])
    }

    /// A wildcard or a regular expression.
    fn pattern_at(
        &self,
        address: &str,
        matcher: &Match,
        long: &dyn Fn() -> Bounds,
    ) -> Result<Bounds> {
        let (pattern, regex) = self.pattern_of(matcher);
        let mut any = Vec::new();
        match tokens::simple_wildcard(matcher).filter(|_| self.level == Level::Whole) {
            Some(run) => any.push(run.among(own::WORDS, &names::word_prefix(address))),
            None => any.extend([
                self.on(address, Kind::Text, |name| clauses::pattern(name, &pattern)),
                long(),
            ]),
        }
        if lucene::may_match_numbers(&regex) {
            let exists = |name: &str| Bounds::at_most(Query::Clause(clauses::exists(name)));
            let ranges = digits::ranges(matcher);
            any.push(self.on(address, Kind::Long, |name| match &ranges {
                None => exists(name),
                Some(ranges) => Bounds::exact(Query::or(ranges.iter().map(|range| {
                    Query::Clause(
                        json!({"range": {name: {"gte": range.start(), "lte": range.end()}}}),
                    )
                }))),
            }));
            any.push(self.on(address, Kind::Double, exists));
            any.push(self.on(address, Kind::Number, exists));
        }
        let compiled = Matcher::new(matcher)?;
        for value in [true, false] {
            if compiled.matches_bool(value) {
                any.push(self.on(address, Kind::Bool, |name| {
                    Bounds::clause(clauses::term(name, value))
                }));
            }
        }
        Ok(Bounds::or(any))
    }

    fn pattern_of(&self, matcher: &Match) -> (Pattern, String) {
        let regex = match matcher {
            Match::Wildcard(pattern) => wildcard_regex(pattern),
            Match::Regex(pattern) => pattern.clone(),
            _ => String::new(),
        };
        match self.level {
            Level::Whole => (lucene::pattern(&regex), regex),
            _ => (Pattern::default(), regex),
        }
    }

    /// A match in any field: by tokens and scalars, which the record lists; what depends on whole texts is only bounded.
    fn any_field(&self, matcher: &Match) -> Result<Bounds> {
        let anything = || Bounds::at_most(Query::Clause(clauses::exists(own::FIELDS)));
        let texts_with = |text: &str| match text::tokens(text) {
            tokens if tokens.is_empty() => anything(),
            tokens => Bounds::at_most(any_phrase(&tokens)),
        };
        Ok(match matcher {
            Match::Words { text, tokens } if !tokens.is_empty() => {
                let boolean = boolean(&text.to_ascii_lowercase());
                let mut any = vec![Bounds::exact(any_phrase(tokens))];
                any.extend(Number::parse(text).map(|number| equal_scalar(text, &number)));
                any.extend(boolean.map(|value| scalar(ValueRef::Bool(value))));
                Bounds::or(any)
            }
            Match::Words { .. } | Match::Contains(_) | Match::Cidr(_) => anything(),
            Match::Exact(text) => {
                let mut any = vec![texts_with(text)];
                any.extend(Number::parse(text).map(|number| equal_scalar(text, &number)));
                any.extend(boolean(text).map(|value| scalar(ValueRef::Bool(value))));
                Bounds::or(any)
            }
            Match::OneOf(texts) => {
                let mut any = Vec::new();
                for text in texts {
                    let text = text::lowercase(text);
                    any.push(texts_with(&text));
                    any.extend(boolean(&text).map(|value| scalar(ValueRef::Bool(value))));
                    if is_number(&text) {
                        any.push(Bounds::at_most(Query::Clause(clauses::exists(
                            own::SCALARS,
                        ))));
                    }
                }
                Bounds::or(any)
            }
            Match::Wildcard(_) | Match::Regex(_) => {
                let (_, regex) = self.pattern_of(matcher);
                if self.level != Level::Whole {
                    return Ok(anything());
                }
                let texts = match tokens::simple_wildcard(matcher) {
                    Some(run) => run.among(own::ANY, ""),
                    None => match tokens::required(matcher) {
                        Query::All => anything(),
                        tokens => Bounds::at_most(tokens),
                    },
                };
                let mut any = vec![texts];
                if lucene::may_match_numbers(&regex) {
                    any.push(scalar_pattern(&regex));
                }
                let compiled = Matcher::new(matcher)?;
                let booleans = [true, false]
                    .into_iter()
                    .filter(|value| compiled.matches_bool(*value));
                any.extend(booleans.map(|value| scalar(ValueRef::Bool(value))));
                Bounds::or(any)
            }
            Match::Range { low, high } => match (low, high) {
                (Bound::Unbounded, Bound::Unbounded) => {
                    Bounds::clause(clauses::exists(own::FIELDS))
                }
                _ => anything(),
            },
            Match::Exists => Bounds::clause(clauses::exists(own::FIELDS)),
        })
    }
}

fn exists_at(address: &str) -> Bounds {
    Bounds::clause(clauses::term(own::FIELDS, &*names::address_term(address)))
}

fn any_phrase(tokens: &[String]) -> Query {
    let tokens: Vec<String> = tokens
        .iter()
        .map(|t| names::any_token(t).into_owned())
        .collect();
    Query::Clause(clauses::phrase(own::ANY, &tokens))
}

fn scalar(value: ValueRef<'_>) -> Bounds {
    let term = names::scalar_term(value);
    term.map_or_else(Bounds::nothing, |term| {
        Bounds::clause(clauses::term(own::SCALARS, term))
    })
}

/// Numbers anywhere in the record that equal this one, which was written as `text`.
fn equal_scalar(text: &str, number: &Number) -> Bounds {
    let mut any = Vec::new();
    any.extend(clauses::equal_int(number).map(|value| scalar(ValueRef::Int(value))));
    let value = number.as_f64();
    if value == 0.0 {
        any.extend([scalar(ValueRef::Float(0.0)), scalar(ValueRef::Float(-0.0))]);
    } else if value.is_finite() {
        any.push(scalar(ValueRef::Float(value)));
    }
    any.push(scalar(ValueRef::Number(text)));
    any.push(Bounds::at_most(Query::Clause(clauses::prefix(
        own::SCALARS,
        "n:",
    ))));
    Bounds::or(any)
}

/// Numbers anywhere in the record whose JSON text matches.
fn scalar_pattern(regex: &str) -> Bounds {
    let pattern = lucene::pattern(regex);
    let after_type = |pattern: Option<String>| {
        pattern.and_then(|pattern| lucene::bounded(format!("[ifn]:({pattern})")))
    };
    let typed = Pattern {
        lower: after_type(pattern.lower),
        upper: after_type(pattern.upper),
    };
    // A hash may match by chance.
    let hashed = Query::Clause(clauses::prefix(own::SCALARS, "n:#"));
    let found = clauses::pattern(own::SCALARS, &typed);
    Bounds {
        lower: Query::and([found.lower, hashed.clone().not()]),
        upper: Query::or([found.upper, hashed]),
    }
}

/// How a term asks for the record's time.
fn time(matcher: &Match) -> Query {
    match matcher {
        Match::Exists => Query::All,
        Match::Range { low, high } => match (numeric(low), numeric(high)) {
            (Some(Bound::Unbounded), Some(Bound::Unbounded)) => Query::All,
            (Some(low), Some(high)) => {
                clauses::int_range(own::NS, &low, &high).map_or(Query::Nothing, Query::Clause)
            }
            _ => Query::Nothing,
        },
        _ => Query::Nothing,
    }
}

/// How a term asks for the record's flags: by the names that match.
fn flags(matcher: &Match) -> Result<Query> {
    let compiled = Matcher::new(matcher)?;
    let names: Vec<&str> = Flags(u32::MAX)
        .names()
        .filter(|name| compiled.matches_str(name))
        .collect();
    if names.is_empty() {
        return Ok(Query::Nothing);
    }
    Ok(Query::Clause(json!({"terms": {own::FLAGS: names}})))
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

/// The bound as a number; `None` if it is none.
fn numeric(bound: &Bound<String>) -> Option<Bound<Number>> {
    match bound {
        Bound::Included(text) => Number::parse(text).map(Bound::Included),
        Bound::Excluded(text) => Number::parse(text).map(Bound::Excluded),
        Bound::Unbounded => Some(Bound::Unbounded),
    }
}

/// An address inside a network, as Elasticsearch holds addresses: IPv4 is part of IPv6 there.
enum Network {
    Nothing,
    V4(String),
    V6(String),
}

fn cidr(network: ipnet::IpNet) -> Network {
    let network = network.trunc();
    match network {
        ipnet::IpNet::V4(_) => Network::V4(network.to_string()),
        // No address is held as one of these.
        ipnet::IpNet::V6(v6) if v6.addr().to_ipv4_mapped().is_some() && 96 <= v6.prefix_len() => {
            Network::Nothing
        }
        ipnet::IpNet::V6(_) => Network::V6(network.to_string()),
    }
}

impl Network {
    fn clone_for(&self, field: &str) -> Bounds {
        match self {
            Self::Nothing => Bounds::nothing(),
            Self::V4(network) => Bounds::clause(clauses::term(field, network.as_str())),
            Self::V6(network) => Bounds::and(vec![
                Bounds::clause(clauses::term(field, network.as_str())),
                Bounds::clause(clauses::term(field, "0.0.0.0/0")).not(),
            ]),
        }
    }
}
