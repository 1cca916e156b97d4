//! `search` and `get`: the records of a page and how many match.
//!
//! Parts are asked in the order of their best keys. Where the count is wanted, every part is asked in full, several at a time; where not, the first
//! parts are asked from their best end in growing windows, and the rest is left out as soon as it cannot give a better record.
//! At most `limit + 1` rows of each part are kept, and only those of the page are read with all columns.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use roaring::RoaringBitmap;

use crate::common::cancel::Cancel;
use crate::common::error::Result;
use crate::query::{Order, SearchAnswer, SearchRequest, Total};
use crate::record::{Record, RecordKey};
use crate::store::embedded::read::context::{Context, Question, survive};
use crate::store::embedded::read::filter::PartFilter;
use crate::store::embedded::read::materialize::{self, KeyPool};
use crate::store::embedded::read::part::Part;
use crate::store::embedded::snapshot::Snapshot;

/// Rows tested at first when the count is not wanted; the window grows from there.
const WINDOW_ROWS: u32 = 8_192;

/// What a part gave: its count where wanted, and its best rows.
struct PartHits {
    count: u64,
    keys: Vec<(RecordKey, u32)>,
}

/// The page wanted of each part.
#[derive(Clone, Copy)]
struct Page {
    order: Order,
    after: Option<RecordKey>,
    /// One more than the limit, to see whether more follow.
    n_rows: usize,
    wants_total: bool,
}

pub fn search(
    context: &Context,
    snapshot: &Snapshot,
    request: &SearchRequest,
    cancel: &Cancel,
) -> Result<SearchAnswer> {
    let page = Page {
        order: request.order,
        after: request.after,
        n_rows: request.limit.saturating_add(1),
        wants_total: request.wants_total,
    };
    let question = Arc::new(Question::new(&request.selection, cancel)?);
    let mut opened = context.parts(snapshot, &question);
    opened.parts.sort_by_key(|part| part.best_key(page.order));
    if page.order == Order::Descending {
        opened.parts.reverse();
    }
    let parts: Arc<[Part]> = opened.parts.into();
    let mut partial_reasons = opened.partial_reasons;
    let mut best = Best::new(page);
    let mut total = 0;
    let mut next = 0;
    // Counting needs every part; otherwise a few at a time, until the rest cannot matter.
    let step = if page.wants_total {
        parts.len().max(1)
    } else {
        context.pool.threads_count()
    };
    while next < parts.len() {
        let is_done = parts
            .get(next)
            .is_none_or(|part| !best.may_improve(part.best_key(page.order)));
        if is_done && !page.wants_total {
            break;
        }
        let range = next..parts.len().min(next + step);
        next = range.end;
        let (parts, question) = (Arc::clone(&parts), Arc::clone(&question));
        let first = range.start;
        let hits = context.map_parts(range.len(), move |index| {
            let Some(part) = parts.get(first + index) else {
                return Ok(None);
            };
            survive(|| part_hits(part, &question, page)).map(Some)
        })?;
        for (index, hit) in hits.into_iter().enumerate() {
            match hit {
                Some(Ok(hit)) => {
                    total += hit.count;
                    best.add(first + index, hit.keys);
                }
                Some(Err(reason)) => partial_reasons.push(reason),
                None => {}
            }
        }
    }
    let (rows, has_more) = best.page(request.limit);
    let records = materialized(
        &parts,
        &rows,
        request.fields.as_deref(),
        cancel,
        &mut partial_reasons,
    )?;
    Ok(SearchAnswer {
        records,
        total: page.wants_total.then_some(Total {
            value: total,
            is_exact: true,
        }),
        has_more,
        partial_reasons,
    })
}

/// The record with this key, if the snapshot holds it.
pub fn get(
    context: &Context,
    snapshot: &Snapshot,
    key: RecordKey,
    cancel: &Cancel,
) -> Result<Option<Record>> {
    let question = Question::at(key, cancel)?;
    let opened = context.parts(snapshot, &question);
    for part in &opened.parts {
        let (min, max) = part.bounds();
        if key < min || max < key {
            continue;
        }
        let row = match part {
            Part::Head(_) => {
                let rows = question.rows_of(part)?;
                let keys = part.keys(&rows, cancel)?;
                keys.iter()
                    .find(|(other, _)| *other == key)
                    .map(|(_, row)| *row)
            }
            Part::Segment(..) => {
                let row = part.lower_bound(key, cancel)?;
                let one = RoaringBitmap::from_iter((row < part.n_rows()).then_some(row));
                let keys = part.keys(&one, cancel)?;
                keys.first()
                    .filter(|(other, _)| *other == key)
                    .map(|(_, row)| *row)
            }
        };
        if let Some(row) = row {
            let one = RoaringBitmap::from_iter([row]);
            let mut records =
                materialize::records(part, &one, None, &mut KeyPool::default(), cancel)?;
            return Ok(records.pop().map(|(_, record)| record));
        }
    }
    Ok(None)
}

fn part_hits(part: &Part, question: &Question, page: Page) -> Result<PartHits> {
    let filter = question.filter.bind(part, &question.cancel)?;
    if part.is_sorted() {
        segment_hits(part, &filter, question, page)
    } else {
        head_hits(part, &filter, question, page)
    }
}

fn head_hits(
    part: &Part,
    filter: &PartFilter<'_>,
    question: &Question,
    page: Page,
) -> Result<PartHits> {
    let matched = filter.matching_among(&question.rows_of(part)?)?;
    let count = matched.len();
    let mut keys = part.keys(&matched, &question.cancel)?;
    keys.retain(|(key, _)| page.is_after(*key));
    let compare = |a: &(RecordKey, u32), b: &(RecordKey, u32)| page.compare(a.0, b.0);
    if page.n_rows < keys.len() {
        keys.select_nth_unstable_by(page.n_rows, compare);
        keys.truncate(page.n_rows);
    }
    keys.sort_unstable_by(compare);
    Ok(PartHits { count, keys })
}

fn segment_hits(
    part: &Part,
    filter: &PartFilter<'_>,
    question: &Question,
    page: Page,
) -> Result<PartHits> {
    let cancel = &question.cancel;
    let all = question.time_rows(part)?;
    let paged = page.rows_after(part, all.clone(), cancel)?;
    let mut hits = PartHits {
        count: 0,
        keys: Vec::new(),
    };
    let rows = if page.wants_total {
        let matched = question.of_positions(part, filter.matching(all)?)?;
        hits.count = matched.len();
        let end = paged.end.saturating_sub(1);
        if paged.is_empty() {
            return Ok(hits);
        }
        best_rows(&matched, paged.start..=end, page)
    } else {
        windowed_rows(part, filter, question, paged, page)?
    };
    hits.keys = part.keys(&rows, cancel)?;
    if page.order == Order::Descending {
        hits.keys.reverse();
    }
    Ok(hits)
}

/// The first (last) rows of `matched` in the range.
fn best_rows(
    matched: &RoaringBitmap,
    range: std::ops::RangeInclusive<u32>,
    page: Page,
) -> RoaringBitmap {
    let iter = matched.range(range);
    match page.order {
        Order::Ascending => iter.take(page.n_rows).collect(),
        Order::Descending => iter.rev().take(page.n_rows).collect(),
    }
}

/// Tests windows from the best end until enough rows are found.
fn windowed_rows(
    part: &Part,
    filter: &PartFilter<'_>,
    question: &Question,
    rows: Range<u32>,
    page: Page,
) -> Result<RoaringBitmap> {
    let mut found = RoaringBitmap::new();
    let mut open = rows;
    let mut window = WINDOW_ROWS;
    if filter.is_exact(open.clone()) && question.positions.is_none() {
        window = u32::MAX;
    }
    while !open.is_empty() && (found.len() as usize) < page.n_rows {
        let now = match page.order {
            Order::Descending => open.end.saturating_sub(window).max(open.start)..open.end,
            Order::Ascending => open.start..open.start.saturating_add(window).min(open.end),
        };
        match page.order {
            Order::Descending => open.end = now.start,
            Order::Ascending => open.start = now.end,
        }
        found |= question.of_positions(part, filter.matching(now)?)?;
        window = window.saturating_mul(4);
    }
    Ok(best_rows(&found, 0..=u32::MAX, page))
}

impl Page {
    fn compare(&self, a: RecordKey, b: RecordKey) -> std::cmp::Ordering {
        match self.order {
            Order::Ascending => a.cmp(&b),
            Order::Descending => b.cmp(&a),
        }
    }

    fn is_after(&self, key: RecordKey) -> bool {
        self.after
            .is_none_or(|after| self.compare(after, key).is_lt())
    }

    /// The rows of a segment that stand after the cursor.
    fn rows_after(&self, part: &Part, rows: Range<u32>, cancel: &Cancel) -> Result<Range<u32>> {
        let Some(after) = self.after else {
            return Ok(rows);
        };
        let at = part.lower_bound(after, cancel)?;
        Ok(match self.order {
            Order::Descending => rows.start..rows.end.min(at).max(rows.start),
            Order::Ascending => {
                let one = RoaringBitmap::from_iter((at < part.n_rows()).then_some(at));
                let is_there = part
                    .keys(&one, cancel)?
                    .iter()
                    .any(|(key, _)| *key == after);
                let start = rows.start.max(at + u32::from(is_there));
                start..rows.end.max(start)
            }
        })
    }
}

/// The best rows of all parts so far, in order.
struct Best {
    page: Page,
    rows: Vec<(RecordKey, usize, u32)>,
}

impl Best {
    fn new(page: Page) -> Self {
        Self {
            page,
            rows: Vec::new(),
        }
    }

    /// False if no row with this key or a worse one can be on the page.
    fn may_improve(&self, best_key: RecordKey) -> bool {
        if self.rows.len() < self.page.n_rows {
            return true;
        }
        self.rows
            .last()
            .is_some_and(|(worst, ..)| self.page.compare(best_key, *worst).is_lt())
    }

    fn add(&mut self, part: usize, keys: Vec<(RecordKey, u32)>) {
        if keys.is_empty() {
            return;
        }
        let more = keys.into_iter().map(|(key, row)| (key, part, row));
        self.rows.extend(more);
        self.rows.sort_by(|a, b| self.page.compare(a.0, b.0));
        self.rows.truncate(self.page.n_rows);
    }

    fn page(mut self, limit: usize) -> (Vec<(RecordKey, usize, u32)>, bool) {
        let has_more = limit < self.rows.len();
        self.rows.truncate(limit);
        (self.rows, has_more)
    }
}

fn materialized(
    parts: &[Part],
    rows: &[(RecordKey, usize, u32)],
    fields: Option<&[String]>,
    cancel: &Cancel,
    partial_reasons: &mut Vec<String>,
) -> Result<Vec<Record>> {
    let mut by_part: BTreeMap<usize, RoaringBitmap> = BTreeMap::new();
    for (_, part, row) in rows {
        by_part.entry(*part).or_default().insert(*row);
    }
    let mut keys = KeyPool::default();
    let mut found: BTreeMap<RecordKey, Record> = BTreeMap::new();
    for (index, rows) in by_part {
        if let Some(part) = parts.get(index) {
            match survive(|| materialize::records(part, &rows, fields, &mut keys, cancel))? {
                Ok(records) => {
                    found.extend(records.into_iter().map(|(_, record)| (record.key, record)));
                }
                Err(reason) => partial_reasons.push(reason),
            }
        }
    }
    Ok(rows
        .iter()
        .filter_map(|(key, ..)| found.remove(key))
        .collect())
}
