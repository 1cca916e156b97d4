//! What every question shares: the pool it runs on, the parts of the snapshot it must look at, and what happens when one of them is damaged.

use std::ops::Range;

use roaring::RoaringBitmap;

use crate::common::blocking::BlockingPool;
use crate::common::cancel::Cancel;
use crate::common::error::{Error, ErrorKind, Result};
use crate::query::{Expr, Selection, TimeRange};
use crate::record::{Position, RecordKey};
use crate::store::embedded::read::filter::Filter;
use crate::store::embedded::read::part::{Part, SystemColumns, all_rows};
use crate::store::embedded::read::stats::StatsLimits;
use crate::store::embedded::schema;
use crate::store::embedded::snapshot::Snapshot;

/// What questions run with.
#[derive(Clone)]
pub struct Context {
    pub pool: BlockingPool,
    pub stats: StatsLimits,
}

/// Which records a question is about, made ready once.
pub struct Question {
    pub filter: Filter,
    pub range: TimeRange,
    pub positions: Option<(Position, Position)>,
    pub cancel: Cancel,
}

/// The parts that can hold something, and why there may be more.
pub struct Opened {
    pub parts: Vec<Part>,
    pub partial_reasons: Vec<String>,
}

impl Context {
    pub fn parts(&self, snapshot: &Snapshot, question: &Question) -> Opened {
        let mut partial_reasons = snapshot.partial_reasons.to_vec();
        let mut parts: Vec<Part> = Vec::new();
        for chunk in &snapshot.head {
            if question.may_hold(chunk.min_timestamp_ns, chunk.max_timestamp_ns) {
                parts.push(Part::Head(chunk.clone()));
            }
        }
        for segment in snapshot.segments.iter() {
            let meta = &segment.meta;
            if !question.may_hold(meta.min_key.timestamp_ns, meta.max_key.timestamp_ns) {
                continue;
            }
            match segment.open() {
                Ok(reader) => parts.push(Part::Segment(reader, meta.clone())),
                Err(error) => partial_reasons.push(reason(&error)),
            }
        }
        Opened {
            parts,
            partial_reasons,
        }
    }

    /// `work` for each part, several at a time.
    pub fn map_parts<T: Send + 'static>(
        &self,
        n_parts: usize,
        work: impl Fn(usize) -> Result<T> + Send + Sync + 'static,
    ) -> Result<Vec<T>> {
        self.pool.map(n_parts, work)
    }
}

impl Question {
    pub fn new(selection: &Selection, cancel: &Cancel) -> Result<Self> {
        Ok(Self {
            filter: Filter::compile(&selection.filter)?,
            range: selection.range,
            positions: selection.positions,
            cancel: cancel.clone(),
        })
    }

    /// All records of the instant of `key`.
    pub fn at(key: RecordKey, cancel: &Cancel) -> Result<Self> {
        Ok(Self {
            filter: Filter::compile(&Expr::All)?,
            range: TimeRange {
                start_ns: Some(key.timestamp_ns),
                end_ns: key.timestamp_ns.checked_add(1),
            },
            positions: None,
            cancel: cancel.clone(),
        })
    }

    fn may_hold(&self, min_ns: i64, max_ns: i64) -> bool {
        self.range.start_ns.is_none_or(|start| start <= max_ns)
            && self.range.end_ns.is_none_or(|end| min_ns < end)
    }

    fn holds(&self, timestamp_ns: i64) -> bool {
        self.may_hold(timestamp_ns, timestamp_ns)
    }

    /// The rows of a segment inside the time range.
    pub fn time_rows(&self, part: &Part) -> Result<Range<u32>> {
        part.rows_of_time(self.range.start_ns, self.range.end_ns, &self.cancel)
    }

    /// The rows of a part inside the range of time and positions.
    pub fn rows_of(&self, part: &Part) -> Result<RoaringBitmap> {
        if part.is_sorted() {
            return self.of_positions(part, all_rows(self.time_rows(part)?));
        }
        let all = all_rows(0..part.n_rows());
        let (min, max) = part.bounds();
        if self.holds(min.timestamp_ns) && self.holds(max.timestamp_ns) && self.positions.is_none()
        {
            return Ok(all);
        }
        let mut rows = RoaringBitmap::new();
        let columns = [schema::TIMESTAMP, schema::SEQ, schema::PARTITION];
        part.read(&columns, &all, &self.cancel, &mut |chunk| {
            let system = SystemColumns::of(chunk.batch)?;
            for (at, row) in chunk.rows.iter().enumerate() {
                let key = system.key(at);
                if key.is_some_and(|key| self.holds(key.timestamp_ns) && self.is_at(key.position)) {
                    rows.insert(*row);
                }
            }
            Ok(())
        })?;
        Ok(rows)
    }

    fn is_at(&self, position: Position) -> bool {
        self.positions.is_none_or(|(from, to)| {
            position.partition == from.partition
                && from.seq <= position.seq
                && position.seq < to.seq
        })
    }

    /// Those of `rows` whose positions are asked for.
    pub fn of_positions(&self, part: &Part, rows: RoaringBitmap) -> Result<RoaringBitmap> {
        if self.positions.is_none() {
            return Ok(rows);
        }
        let keys = part.keys(&rows, &self.cancel)?;
        Ok(keys
            .iter()
            .filter(|(key, _)| self.is_at(key.position))
            .map(|(_, row)| *row)
            .collect())
    }

    /// The rows of a part that match in every way.
    pub fn matching(&self, part: &Part) -> Result<RoaringBitmap> {
        let filter = self.filter.bind(part, &self.cancel)?;
        if part.is_sorted() {
            self.of_positions(part, filter.matching(self.time_rows(part)?)?)
        } else {
            filter.matching_among(&self.rows_of(part)?)
        }
    }
}

/// A damaged part makes an answer partial, with the reason; everything else ends the question.
pub fn survive<T>(work: impl FnOnce() -> Result<T>) -> Result<Result<T, String>> {
    match work() {
        Ok(value) => Ok(Ok(value)),
        Err(error) if error.kind == ErrorKind::Corrupt => {
            tracing::error!(%error, "a part of the store cannot be read");
            Ok(Err(reason(&error)))
        }
        Err(error) => Err(error),
    }
}

fn reason(error: &Error) -> String {
    error.message.clone()
}
