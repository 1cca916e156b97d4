//! What a filter means for one record: the truth that every store's answers must equal. The prose stands in `ast`.

use std::ops::Bound;

use crate::common::error::Result;
use crate::query::ast::{Expr, Field, Match, Term};
use crate::query::matcher::Matcher;
use crate::query::number::Number;
use crate::query::request::{Selection, TimeRange};
use crate::record::key;
use crate::record::{FLAGS, Flags, Position, Record, RecordRef, TIMESTAMP, ValueRef};

/// A record as a filter sees it.
pub trait Fields {
    fn timestamp_ns(&self) -> i64;

    fn flags(&self) -> Flags;

    /// Calls `visit` with key and value of each field until it returns true; returns whether it did.
    fn any_field(&self, visit: &mut dyn FnMut(&str, ValueRef<'_>) -> bool) -> bool;
}

impl Fields for RecordRef<'_> {
    fn timestamp_ns(&self) -> i64 {
        self.timestamp_ns
    }

    fn flags(&self) -> Flags {
        self.flags
    }

    fn any_field(&self, visit: &mut dyn FnMut(&str, ValueRef<'_>) -> bool) -> bool {
        self.fields().any(|field| visit(field.key, field.value))
    }
}

impl Fields for Record {
    fn timestamp_ns(&self) -> i64 {
        self.key.timestamp_ns
    }

    fn flags(&self) -> Flags {
        self.flags
    }

    fn any_field(&self, visit: &mut dyn FnMut(&str, ValueRef<'_>) -> bool) -> bool {
        self.fields
            .iter()
            .any(|(key, value)| visit(key, value.as_value_ref()))
    }
}

/// A filter made ready for many records.
#[derive(Clone, Debug)]
pub enum CompiledExpr {
    All,
    And(Vec<Self>),
    Or(Vec<Self>),
    Not(Box<Self>),
    Term(Box<CompiledTerm>),
}

#[derive(Clone, Debug)]
pub struct CompiledTerm {
    pub field: Field,
    pub matcher: Matcher,
    /// How the term asks for the record's time, where it is among the addresses.
    time: Option<TimeMatch>,
}

#[derive(Clone, Debug)]
enum TimeMatch {
    Range {
        low: Bound<Number>,
        high: Bound<Number>,
    },
    Exists,
    Never,
}

impl CompiledExpr {
    /// Fails only on a regular expression that is wrong or too large.
    pub fn new(expr: &Expr) -> Result<Self> {
        let all = |exprs: &[Expr]| exprs.iter().map(Self::new).collect::<Result<_>>();
        Ok(match expr {
            Expr::All => Self::All,
            Expr::And(exprs) => Self::And(all(exprs)?),
            Expr::Or(exprs) => Self::Or(all(exprs)?),
            Expr::Not(expr) => Self::Not(Box::new(Self::new(expr)?)),
            Expr::Term(term) => Self::Term(Box::new(CompiledTerm::new(term)?)),
        })
    }

    pub fn matches(&self, record: &impl Fields) -> bool {
        match self {
            Self::All => true,
            Self::And(exprs) => exprs.iter().all(|expr| expr.matches(record)),
            Self::Or(exprs) => exprs.iter().any(|expr| expr.matches(record)),
            Self::Not(expr) => !expr.matches(record),
            Self::Term(term) => term.matches(record),
        }
    }
}

impl CompiledTerm {
    pub fn new(term: &Term) -> Result<Self> {
        let asks_time = match &term.field {
            Field::Any => false,
            Field::Addresses(addresses) => addresses.iter().any(|a| a == TIMESTAMP),
        };
        Ok(Self {
            field: term.field.clone(),
            matcher: Matcher::new(&term.matcher)?,
            time: asks_time.then(|| TimeMatch::new(&term.matcher)),
        })
    }

    pub fn matches(&self, record: &impl Fields) -> bool {
        match &self.field {
            Field::Any => record.any_field(&mut |_, value| self.matcher.matches(value)),
            Field::Addresses(addresses) => {
                self.matches_time(record.timestamp_ns())
                    || (addresses.iter().any(|a| a == FLAGS) && self.matches_flags(record.flags()))
                    || record.any_field(&mut |key, value| {
                        let found = key::address(key);
                        addresses
                            .iter()
                            .any(|asked| self.matches_at(asked, &found, value))
                    })
            }
        }
    }

    /// Whether the record's time matches; false where the term does not ask for it.
    pub fn matches_time(&self, timestamp_ns: i64) -> bool {
        match &self.time {
            None | Some(TimeMatch::Never) => false,
            Some(TimeMatch::Exists) => true,
            Some(TimeMatch::Range { low, high }) => {
                let above = match low {
                    Bound::Included(bound) => bound.compare_int(timestamp_ns).is_ge(),
                    Bound::Excluded(bound) => bound.compare_int(timestamp_ns).is_gt(),
                    Bound::Unbounded => true,
                };
                let below = match high {
                    Bound::Included(bound) => bound.compare_int(timestamp_ns).is_le(),
                    Bound::Excluded(bound) => bound.compare_int(timestamp_ns).is_lt(),
                    Bound::Unbounded => true,
                };
                above && below
            }
        }
    }

    fn matches_flags(&self, flags: Flags) -> bool {
        flags.names().any(|name| self.matcher.matches_str(name))
    }

    /// `value` is that of a field with the address `found`.
    fn matches_at(&self, asked: &str, found: &str, value: ValueRef<'_>) -> bool {
        if asked == found {
            return self.matcher.matches(value);
        }
        let ValueRef::Json(json) = value else {
            return false;
        };
        match asked
            .strip_prefix(found)
            .and_then(|rest| rest.strip_prefix('.'))
        {
            Some(inside) => self.matcher.matches_inside_json(json, inside),
            None => false,
        }
    }
}

impl TimeMatch {
    fn new(wanted: &Match) -> Self {
        let number = |bound: &Bound<String>| match bound {
            Bound::Included(text) => Number::parse(text).map(Bound::Included),
            Bound::Excluded(text) => Number::parse(text).map(Bound::Excluded),
            Bound::Unbounded => Some(Bound::Unbounded),
        };
        match wanted {
            Match::Exists => Self::Exists,
            Match::Range { low, high } => match (number(low), number(high)) {
                (Some(low), Some(high)) => Self::Range { low, high },
                _ => Self::Never,
            },
            Match::Words { .. }
            | Match::Contains(_)
            | Match::Exact(_)
            | Match::OneOf(_)
            | Match::Wildcard(_)
            | Match::Regex(_)
            | Match::Cidr(_) => Self::Never,
        }
    }
}

/// A selection made ready for many records.
#[derive(Clone, Debug)]
pub struct CompiledSelection {
    range: TimeRange,
    positions: Option<(Position, Position)>,
    filter: CompiledExpr,
}

impl CompiledSelection {
    pub fn new(selection: &Selection) -> Result<Self> {
        Ok(Self {
            range: selection.range,
            positions: selection.positions,
            filter: CompiledExpr::new(&selection.filter)?,
        })
    }

    pub fn matches(&self, position: Position, record: &impl Fields) -> bool {
        self.range.contains(record.timestamp_ns())
            && self.positions.is_none_or(|(from, to)| {
                position.partition == from.partition
                    && from.seq <= position.seq
                    && position.seq < to.seq
            })
            && self.filter.matches(record)
    }
}

#[cfg(test)]
mod tests;
