//! `histogram`: counts by bucket of time, and by the values of one field.
//!
//! Without a field, a segment's rows need not be read: they are sorted by time, so a bucket is a range of rows, whose ends are found in a page
//! each. With a field, its column and the time are read for the rows that match. Which value of a record counts, see `values`.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashMap;
use roaring::RoaringBitmap;

use crate::common::cancel::Cancel;
use crate::common::error::Result;
use crate::query::{Histogram, HistogramBucket, HistogramRequest};
use crate::record::{Position, RecordKey};
use crate::store::embedded::read::context::{Context, Question, survive};
use crate::store::embedded::read::kernels;
use crate::store::embedded::read::part::Part;
use crate::store::embedded::read::values::FieldReader;
use crate::store::embedded::schema;
use crate::store::embedded::snapshot::Snapshot;

/// Finding the end of a bucket costs about a page; past so many buckets in a part reading all times is cheaper.
const BUCKETS_BY_BOUND_MAX: u64 = 64;
/// Values counted apart in each bucket, over all buckets of a part; later ones are counted under `None`, and the answer says so.
const CELLS_MAX: usize = 500_000;

type Cells = HashMap<Box<str>, BTreeMap<i64, u64>, ahash::RandomState>;

/// Counts of one part, or of all.
#[derive(Default)]
struct Counts {
    buckets: BTreeMap<i64, u64>,
    by: Cells,
    n_cells: usize,
    is_full: bool,
}

pub fn histogram(
    context: &Context,
    snapshot: &Snapshot,
    request: HistogramRequest,
    cancel: &Cancel,
) -> Result<Histogram> {
    let question = Arc::new(Question::new(&request.selection, cancel)?);
    let opened = context.parts(snapshot, &question);
    let mut partial_reasons = opened.partial_reasons;
    let parts: Arc<[Part]> = opened.parts.into();
    let request = Arc::new(request);
    let asked = Arc::clone(&request);
    let results = context.map_parts(parts.len(), move |index| {
        let Some(part) = parts.get(index) else {
            return Ok(Ok(Counts::default()));
        };
        survive(|| part_counts(part, &question, &asked))
    })?;
    let mut counts = Counts::default();
    for result in results {
        match result {
            Ok(part) => counts.add(part),
            Err(reason) => partial_reasons.push(reason),
        }
    }
    if counts.is_full {
        let by = request.by.as_deref().unwrap_or_default();
        partial_reasons.push(format!(
            "`{by}` has too many values to count each; those met late are counted as others"
        ));
    }
    let total = counts.buckets.values().sum();
    Ok(Histogram {
        buckets: counts.into_buckets(request.by.is_some(), request.by_limit),
        total,
        partial_reasons,
    })
}

/// The start of the bucket that holds the time.
pub fn bucket_of(timestamp_ns: i64, interval_ns: i64) -> i64 {
    timestamp_ns.saturating_sub(timestamp_ns.rem_euclid(interval_ns.max(1)))
}

fn part_counts(part: &Part, question: &Question, request: &HistogramRequest) -> Result<Counts> {
    let rows = question.matching(part)?;
    let cancel = &question.cancel;
    if rows.is_empty() {
        return Ok(Counts::default());
    }
    if let Some(by) = &request.by {
        return counts_by(part, &rows, request.interval_ns, by, cancel);
    }
    let (min, max) = part.bounds();
    let interval_ns = request.interval_ns.max(1);
    let first = bucket_of(min.timestamp_ns, interval_ns);
    let last = bucket_of(max.timestamp_ns, interval_ns);
    let n_buckets = last.abs_diff(first) / interval_ns.unsigned_abs() + 1;
    if first == last {
        let mut counts = Counts::default();
        counts.buckets.insert(first, rows.len());
        Ok(counts)
    } else if part.is_sorted() && n_buckets <= BUCKETS_BY_BOUND_MAX && n_buckets < rows.len() {
        counts_by_bounds(part, &rows, first..=last, interval_ns, cancel)
    } else {
        let mut counts = Counts::default();
        part.read(&[schema::TIMESTAMP], &rows, cancel, &mut |chunk| {
            let array = chunk.batch.columns().first();
            let times = array.map_or(Ok(&[][..]), kernels::times)?;
            for run in
                times.chunk_by(|a, b| bucket_of(*a, interval_ns) == bucket_of(*b, interval_ns))
            {
                if let Some(time) = run.first() {
                    let bucket = bucket_of(*time, interval_ns);
                    *counts.buckets.entry(bucket).or_insert(0) += run.len() as u64;
                }
            }
            Ok(())
        })?;
        Ok(counts)
    }
}

fn counts_by_bounds(
    part: &Part,
    rows: &RoaringBitmap,
    buckets: std::ops::RangeInclusive<i64>,
    interval_ns: i64,
    cancel: &Cancel,
) -> Result<Counts> {
    let mut counts = Counts::default();
    let mut start = 0;
    let mut bucket = *buckets.start();
    while start < part.n_rows() {
        let next = bucket.saturating_add(interval_ns);
        let end = if bucket == *buckets.end() {
            part.n_rows()
        } else {
            let key = RecordKey {
                timestamp_ns: next,
                position: Position::default(),
            };
            part.lower_bound(key, cancel)?
        };
        if start < end {
            let count = rows.range_cardinality(start..end);
            if 0 < count {
                counts.buckets.insert(bucket, count);
            }
        }
        start = end;
        bucket = next;
    }
    Ok(counts)
}

fn counts_by(
    part: &Part,
    rows: &RoaringBitmap,
    interval_ns: i64,
    by: &str,
    cancel: &Cancel,
) -> Result<Counts> {
    let mut counts = Counts::default();
    let reader = FieldReader::new(part.columns(), by);
    let mut columns: Vec<usize> = reader.indices().collect();
    columns.push(schema::TIMESTAMP);
    columns.sort_unstable();
    columns.dedup();
    let mut window = Window::default();
    part.read(&columns, rows, cancel, &mut |chunk| {
        let array = chunk.batch.columns().first();
        let times = array.map_or(Ok(&[][..]), kernels::times)?;
        let values = reader.values(chunk.batch, &columns)?;
        for (at, time) in times.iter().enumerate() {
            if !window.holds(*time) {
                counts.add_window(&mut window);
                window.start = bucket_of(*time, interval_ns);
                window.interval_ns = interval_ns.max(1);
            }
            window.count += 1;
            if let Some(value) = values.get(at) {
                window.add(&value.text());
            }
        }
        Ok(())
    })?;
    counts.add_window(&mut window);
    Ok(counts)
}

/// The bucket at hand: rows near each other mostly share one, so its counts are kept by themselves.
#[derive(Default)]
struct Window {
    start: i64,
    interval_ns: i64,
    count: u64,
    values: HashMap<Box<str>, u64, ahash::RandomState>,
}

impl Window {
    fn holds(&self, time: i64) -> bool {
        0 < self.interval_ns
            && self.start <= time
            && time.wrapping_sub(self.start) < self.interval_ns
    }

    fn add(&mut self, text: &str) {
        match self.values.get_mut(text) {
            Some(count) => *count += 1,
            None => {
                self.values.insert(text.into(), 1);
            }
        }
    }
}

impl Counts {
    fn add_window(&mut self, window: &mut Window) {
        if window.count == 0 {
            return;
        }
        *self.buckets.entry(window.start).or_insert(0) += window.count;
        for (value, count) in window.values.drain() {
            self.add_cell(value, window.start, count);
        }
        window.count = 0;
    }

    fn add_cell(&mut self, value: Box<str>, bucket: i64, count: u64) {
        if CELLS_MAX <= self.n_cells && !self.by.contains_key(&value) {
            self.is_full = true;
            return;
        }
        let cell = self.by.entry(value).or_default().entry(bucket);
        if matches!(cell, std::collections::btree_map::Entry::Vacant(_)) {
            self.n_cells += 1;
        }
        *cell.or_insert(0) += count;
    }

    fn add(&mut self, other: Self) {
        for (bucket, count) in other.buckets {
            *self.buckets.entry(bucket).or_insert(0) += count;
        }
        self.is_full |= other.is_full;
        for (value, cells) in other.by {
            for (bucket, count) in cells {
                self.add_cell(value.clone(), bucket, count);
            }
        }
    }

    fn into_buckets(self, has_by: bool, by_limit: usize) -> Vec<HistogramBucket> {
        let mut values: Vec<(Box<str>, u64, BTreeMap<i64, u64>)> = self
            .by
            .into_iter()
            .map(|(value, cells)| (value, cells.values().sum(), cells))
            .collect();
        values.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        values.truncate(by_limit);
        let bucket = |(start_ns, count): (i64, u64)| {
            let mut by: Vec<(Option<String>, u64)> = Vec::new();
            if has_by {
                for (value, _, cells) in &values {
                    if let Some(count) = cells.get(&start_ns) {
                        by.push((Some(value.to_string()), *count));
                    }
                }
                let named: u64 = by.iter().map(|(_, count)| count).sum();
                if named < count {
                    by.push((None, count - named));
                }
            }
            HistogramBucket {
                start_ns,
                count,
                by,
            }
        };
        self.buckets.into_iter().map(bucket).collect()
    }
}
