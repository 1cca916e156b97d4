//! One term of a filter over a part's columns: which columns can hold it, what the index says of it, and the test of rows.
//!
//! `query::evaluate` gives the meaning of a term on one value. Everything here must give the same, only sooner.

use std::borrow::Cow;

use arrow::array::{Array as _, AsArray as _};
use arrow::datatypes::UInt32Type;
use roaring::RoaringBitmap;

use crate::common::cancel::Cancel;
use crate::common::error::Result;
use crate::query::evaluate;
use crate::query::matcher::Matcher;
use crate::query::{Field, Match, Term};
use crate::record::value::ValueType;
use crate::record::{FLAGS, Flags, TIMESTAMP, Value, ValueRef, key};
use crate::store::embedded::overflow;
use crate::store::embedded::read::bounds::{Bounds, Rows};
use crate::store::embedded::read::kernels::{self, TextSearch};
use crate::store::embedded::read::known;
use crate::store::embedded::read::part::{Chunk, Part};
use crate::store::embedded::read::sought::Sought;
use crate::store::embedded::schema::{self, Columns};
use crate::store::embedded::spill::value_at;

/// Up to so many rows, all columns of a term are read in one go. Tests have few rows, and must go both ways.
const ROWS_AT_ONCE: u64 = if cfg!(test) { 8 } else { 16_384 };

pub struct CompiledTerm {
    /// As the truth is defined.
    truth: evaluate::CompiledTerm,
    pub wanted: Match,
    sought: Sought,
    search: Option<TextSearch>,
}

/// A place in a part where a term's field can stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    Column {
        index: usize,
        value_type: ValueType,
    },
    /// Inside the arrays of objects of a JSON column, at the address `rest` below it.
    Inside {
        index: usize,
        rest: String,
    },
    Overflow {
        index: usize,
    },
    Time,
    Flags,
}

impl CompiledTerm {
    pub fn new(term: &Term) -> Result<Self> {
        Ok(Self {
            truth: evaluate::CompiledTerm::new(term)?,
            wanted: term.matcher.clone(),
            sought: Sought::new(&term.matcher),
            search: TextSearch::new(&term.matcher),
        })
    }

    pub fn field(&self) -> &Field {
        &self.truth.field
    }

    pub fn sought(&self) -> &Sought {
        &self.sought
    }

    pub fn matcher(&self) -> &Matcher {
        &self.truth.matcher
    }

    /// A rough guess, to ask the cheap terms first.
    pub fn cost(&self) -> u32 {
        let value = match &self.wanted {
            Match::Exists => 1,
            Match::Exact(_) | Match::Range { .. } | Match::OneOf(_) => 2,
            Match::Words { .. } | Match::Contains(_) => 4,
            Match::Wildcard(_) | Match::Regex(_) | Match::Cidr(_) => 16,
        };
        match self.field() {
            Field::Any => value * 64,
            Field::Addresses(addresses) => value * u32::try_from(addresses.len()).unwrap_or(64),
        }
    }

    /// Where the field can stand in a part with these columns.
    pub fn sources(&self, columns: &Columns) -> Vec<Source> {
        let column = |index: usize, value_type| Source::Column { index, value_type };
        let mut sources = Vec::new();
        match self.field() {
            Field::Any => {
                let fields = columns.fields().iter();
                let can = fields.filter(|info| kernels::can_match(&self.wanted, info.value_type));
                sources.extend(can.map(|info| column(info.index, info.value_type)));
            }
            Field::Addresses(addresses) => {
                for address in addresses {
                    if address == TIMESTAMP {
                        sources.push(Source::Time);
                    }
                    if address == FLAGS {
                        sources.push(Source::Flags);
                    }
                    for index in columns.by_address(address) {
                        let value_type = columns.info(*index).map(|info| info.value_type);
                        let value_type =
                            value_type.filter(|ty| kernels::can_match(&self.wanted, *ty));
                        sources.extend(value_type.map(|value_type| column(*index, value_type)));
                    }
                    for (info, rest) in columns.json_above(address) {
                        sources.push(Source::Inside {
                            index: info.index,
                            rest: rest.to_owned(),
                        });
                    }
                }
            }
        }
        sources.extend(columns.overflow().map(|index| Source::Overflow { index }));
        sources
    }

    /// What is known before reading rows.
    pub fn bounds(&self, part: &Part, sources: &[Source]) -> Result<Bounds> {
        known::bounds(self, part, sources)
    }

    /// Those of `rows` that match.
    pub fn test_rows(
        &self,
        part: &Part,
        sources: &[Source],
        mut rows: RoaringBitmap,
        cancel: &Cancel,
    ) -> Result<RoaringBitmap> {
        let mut found = RoaringBitmap::new();
        let mut rest = sources;
        while !rest.is_empty() && !rows.is_empty() {
            let n_at_once = if rows.len() <= ROWS_AT_ONCE {
                rest.len()
            } else {
                1
            };
            let (now, later) = rest.split_at(n_at_once);
            rest = later;
            // Many rows in question are mostly those of one column: the others are not read for them.
            let own = match now {
                [_] if 1 < sources.len() => self.bounds(part, now)?.maybe,
                _ => Rows::All,
            };
            let tested = match own {
                Rows::None => continue,
                Rows::All => Cow::Borrowed(&rows),
                Rows::Some(own) => Cow::Owned(own & &rows),
            };
            let mut columns: Vec<usize> = now.iter().map(Source::index).collect();
            columns.sort_unstable();
            columns.dedup();
            let mut matched = RoaringBitmap::new();
            part.read(&columns, &tested, cancel, &mut |chunk| {
                self.test_chunk(&columns, now, &chunk, cancel, &mut matched)
            })?;
            rows -= &matched;
            found |= matched;
        }
        Ok(found)
    }

    fn test_chunk(
        &self,
        columns: &[usize],
        sources: &[Source],
        chunk: &Chunk<'_>,
        cancel: &Cancel,
        matched: &mut RoaringBitmap,
    ) -> Result<()> {
        let mut places: Vec<u32> = Vec::new();
        for source in sources {
            let array = Part::place(columns, source.index())
                .and_then(|place| chunk.batch.columns().get(place));
            let Some(array) = array else {
                continue;
            };
            if array.null_count() == array.len() && !array.is_empty() {
                continue;
            }
            cancel.check()?;
            places.clear();
            self.test_array(source, array, cancel, &mut places)?;
            matched.extend(
                places
                    .iter()
                    .filter_map(|place| chunk.rows.get(*place as usize)),
            );
        }
        Ok(())
    }

    /// Appends the places in `array` whose value matches.
    fn test_array(
        &self,
        source: &Source,
        array: &arrow::array::ArrayRef,
        cancel: &Cancel,
        places: &mut Vec<u32>,
    ) -> Result<()> {
        if let Source::Column { value_type, .. } = source
            && let (Some(search), ValueType::Str, Some(texts)) =
                (&self.search, value_type, array.as_string_opt::<i32>())
        {
            let matches = |text: &str| self.matcher().matches_str(text);
            if search.run(texts, matches, cancel, places)? {
                return Ok(());
            }
        }
        let times = match source {
            Source::Time => Some(kernels::times(array)?),
            _ => None,
        };
        let flags = array.as_primitive_opt::<UInt32Type>();
        for at in 0..array.len() {
            if at.is_multiple_of(64) {
                cancel.check()?;
            }
            let is_match = match source {
                Source::Column { value_type, .. } => value_at(array, *value_type, at)
                    .is_some_and(|value| self.matcher().matches(value)),
                Source::Inside { rest, .. } => match value_at(array, ValueType::Json, at) {
                    Some(ValueRef::Json(json)) => self.matcher().matches_inside_json(json, rest),
                    _ => false,
                },
                Source::Overflow { .. } => match value_at(array, ValueType::Json, at) {
                    Some(ValueRef::Json(json)) => self.test_overflow(json)?,
                    _ => false,
                },
                Source::Time => times
                    .and_then(|times| times.get(at))
                    .is_some_and(|time| self.truth.matches_time(*time)),
                Source::Flags => {
                    flags.is_some_and(|flags| self.matches_flags(Flags(flags.value(at))))
                }
            };
            if is_match {
                places.push(u32::try_from(at).unwrap_or(u32::MAX));
            }
        }
        Ok(())
    }

    fn matches_flags(&self, flags: Flags) -> bool {
        flags.names().any(|name| self.matcher().matches_str(name))
    }

    fn test_overflow(&self, json: &str) -> Result<bool> {
        let fields = overflow::parse(json)?;
        Ok(fields.iter().any(|(field, value)| {
            let value_ref = value.as_value_ref();
            match self.field() {
                Field::Any => self.matcher().matches(value_ref),
                Field::Addresses(addresses) => {
                    let held = key::address(field);
                    addresses.iter().any(|address| {
                        if *address == *held {
                            return self.matcher().matches(value_ref);
                        }
                        let rest = address
                            .strip_prefix(&*held)
                            .and_then(|rest| rest.strip_prefix('.'));
                        match (rest, value) {
                            (Some(rest), Value::Json(json)) => {
                                self.matcher().matches_inside_json(json, rest)
                            }
                            _ => false,
                        }
                    })
                }
            }
        }))
    }
}

impl Source {
    pub fn index(&self) -> usize {
        match self {
            Self::Column { index, .. } | Self::Inside { index, .. } | Self::Overflow { index } => {
                *index
            }
            Self::Time => schema::TIMESTAMP,
            Self::Flags => schema::FLAGS,
        }
    }
}
