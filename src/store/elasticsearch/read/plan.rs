//! How one question is asked: the bounds of its filter, and which of its records the server can add up.

use std::collections::BTreeSet;

use serde_json::json;

use crate::common::error::{Error, ErrorKind, Result};
use crate::query::Selection;
use crate::store::elasticsearch::names::{address_term, own};
use crate::store::elasticsearch::read::asker::{Asker, Fault};
use crate::store::elasticsearch::read::bounds::{Bounds, Query};
use crate::store::elasticsearch::read::catalog::{Catalog, addresses_of};
use crate::store::elasticsearch::read::query::{self, Level};

/// A filter ready to be asked.
pub struct Plan {
    pub bounds: Bounds,
    pub catalog: Catalog,
}

/// Records that are added up in two ways.
pub struct Split {
    /// By the server.
    pub sure: Query,
    /// By fetching, judging and adding them up here.
    pub fetched: Query,
}

impl Plan {
    /// `addresses`: those whose types the question needs besides the filter's.
    pub async fn new(
        asker: &Asker<'_>,
        selection: &Selection,
        addresses: &[String],
        level: Level,
    ) -> Result<Self> {
        let mut wanted: BTreeSet<String> = addresses_of(&selection.filter);
        wanted.extend(addresses.iter().cloned());
        let wanted: Vec<String> = wanted.into_iter().collect();
        let catalog = asker.catalog(Some(&wanted)).await?;
        Self::with_catalog(selection, catalog, level)
    }

    pub fn with_catalog(selection: &Selection, catalog: Catalog, level: Level) -> Result<Self> {
        let bounds = query::selection(selection, &catalog, level)?;
        // Documents of others that the pattern of indices finds.
        let is_own = match selection.range.start_ns.or(selection.range.end_ns) {
            Some(_) => Query::All,
            None => Query::Clause(json!({"exists": {"field": own::NS}})),
        };
        Ok(Self {
            bounds: Bounds::and(vec![Bounds::exact(is_own), bounds]),
            catalog,
        })
    }

    /// Everything that may match, split: the server takes what surely matches and does not belong to `odd`.
    pub fn split(&self, odd: &Query) -> Split {
        let Bounds { lower, upper } = &self.bounds;
        let is_odd = Query::or([lower.clone().not(), odd.clone()]);
        let fetched = match self.bounds.is_exact() {
            true => Query::and([upper.clone(), odd.clone()]),
            false => Query::and([upper.clone(), is_odd]),
        };
        Split {
            sure: Query::and([lower.clone(), odd.clone().not()]),
            fetched,
        }
    }
}

/// Records in which one of these addresses has not simply the value of its typed field.
pub fn odd_at(addresses: &[String]) -> Query {
    if addresses.is_empty() {
        return Query::Nothing;
    }
    let terms: BTreeSet<String> = addresses
        .iter()
        .map(|a| address_term(a).into_owned())
        .collect();
    Query::Clause(json!({"terms": {own::MULTI: terms}}))
}

/// The next level after a refusal.
pub fn after(fault: Fault, level: Level) -> Result<Level> {
    match fault {
        Fault::Failed(error) => Err(error),
        // The mapping changes all the time: judge every record.
        Fault::Stale => Ok(Level::RangeAlone),
        Fault::Refused(reason) => {
            tracing::debug!(
                ?level,
                reason,
                "Elasticsearch refused a query; asking for more records and judging them here"
            );
            level.next().ok_or_else(|| {
                Error::unavailable(
                    "elasticsearch_refused",
                    format!("Elasticsearch refused the query: {reason}"),
                )
            })
        }
    }
}

/// More records than may be judged one by one.
pub fn too_many(count: u64, max: u64) -> Error {
    Error::new(
        ErrorKind::TooLarge,
        "too_many_candidates",
        format!(
            "Elasticsearch cannot decide this question alone, and {count} records would have to be looked at one by one, of at most {max}; narrow the time range, add a whole word or an exact value to the filter, or raise `store.elasticsearch_candidates_max`"
        ),
    )
}
