//! Retention: drops segments, and rows of some sources, by age; the oldest segments by size.
//!
//! Age counts for a whole segment: from the later of its newest record's time and its latest arrival. A segment holds one day, so a record lives
//! at most a day longer than the rule says. Where only some sources of a segment have expired, the segment is rewritten without them.
//! What is only in the head is never touched.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::BooleanArray;
use hashbrown::HashMap;

use crate::common::error::Result;
use crate::record::SOURCE;
use crate::record::value::{ValueRef, ValueType};
use crate::store::embedded::catalog::Change;
use crate::store::embedded::disk::Disk;
use crate::store::embedded::segment::{Segment, SegmentMeta, SegmentReader, day_name};
use crate::store::embedded::spill::value_at;
use crate::store::{RetentionReport, RetentionRules};

const BATCH_ROWS: usize = 8_192;
/// Sources of a segment that are remembered; a segment with more is read again each time.
const SOURCES_MAX: usize = 1_000;

/// Rows of each source of a segment; records without a source count as "".
pub type SourceCounts = Arc<BTreeMap<String, u64>>;

/// What a clean-up does with one segment.
struct Plan {
    segment: Arc<Segment>,
    /// (what the rule says, rows that go).
    expired: BTreeMap<String, u64>,
    /// All rows go.
    is_whole: bool,
}

impl Disk {
    pub fn expire(
        &self,
        rules: &RetentionRules,
        now_ns: i64,
        dry_run: bool,
    ) -> Result<RetentionReport> {
        if dry_run {
            return self.expire_with_turn(rules, now_ns, true);
        }
        self.turn
            .urgent(|| self.expire_with_turn(rules, now_ns, false))
    }

    fn expire_with_turn(
        &self,
        rules: &RetentionRules,
        now_ns: i64,
        dry_run: bool,
    ) -> Result<RetentionReport> {
        let mut report = RetentionReport::default();
        let mut details: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        let snapshot = self.view.snapshot();
        let mut kept: Vec<SegmentMeta> = Vec::new();
        for segment in snapshot.segments.iter() {
            let Some(plan) = self.plan_by_age(segment, rules, now_ns)? else {
                kept.push(segment.meta.clone());
                continue;
            };
            let rest = self.carry_out(&plan, rules, now_ns, dry_run, &mut report)?;
            let rest_bytes = rest.as_ref().map_or(0, |rest| rest.size_bytes);
            // A tiny segment may even grow: other pages, other dictionaries.
            let size_bytes = segment.meta.size_bytes.saturating_sub(rest_bytes);
            let n_rows: u64 = plan.expired.values().sum();
            report.records += n_rows;
            report.bytes += size_bytes;
            for (what, n) in &plan.expired {
                let detail = format!("{what}, {}", day_name(segment.meta.day));
                let entry = details.entry(detail).or_default();
                entry.0 += n;
                entry.1 += share(size_bytes, *n, n_rows);
            }
            kept.extend(rest);
        }
        for (meta, _) in self.view.quarantined() {
            // Its sources cannot be read: it goes when every source would have gone.
            let is_expired = longest(rules).is_some_and(|age| is_older(&meta, age, now_ns));
            if is_expired {
                let detail = format!("damaged segment, {}", day_name(meta.day));
                self.drop_segment(&meta, detail, dry_run, &mut report, &mut details)?;
            }
        }
        self.expire_by_size(rules, kept, dry_run, &mut report, &mut details)?;
        let lines = details.into_iter();
        report.details = lines
            .map(|(what, (records, bytes))| (what, records, bytes))
            .collect();
        Ok(report)
    }

    /// What expires of a segment by age; `None`: nothing.
    fn plan_by_age(
        &self,
        segment: &Arc<Segment>,
        rules: &RetentionRules,
        now_ns: i64,
    ) -> Result<Option<Plan>> {
        let meta = &segment.meta;
        let can_expire = |age: Option<Duration>| age.is_some_and(|age| is_older(meta, age, now_ns));
        let ages = rules.by_source.iter().map(|(_, age)| *age);
        if !ages.chain([rules.age_max]).any(can_expire) {
            return Ok(None);
        }
        let mut expired: BTreeMap<String, u64> = BTreeMap::new();
        if rules.by_source.is_empty() {
            expired.insert(rule_text(None, rules.age_max), meta.n_rows);
        } else {
            let counts = match self.source_counts(segment) {
                Ok(counts) => counts,
                Err(error) => {
                    // One unreadable segment must not keep the others alive.
                    tracing::warn!(path = %segment.path.display(), %error, "cannot read the sources of a segment; it is kept");
                    return Ok(None);
                }
            };
            for (source, n) in counts.iter() {
                let (pattern, age) = rule_of(rules, source);
                if can_expire(age) {
                    *expired.entry(rule_text(pattern, age)).or_insert(0) += n;
                }
            }
        }
        let n_expired: u64 = expired.values().sum();
        Ok((0 < n_expired).then(|| Plan {
            segment: Arc::clone(segment),
            is_whole: n_expired == meta.n_rows,
            expired,
        }))
    }

    /// Drops or rewrites; returns what stays of the segment.
    fn carry_out(
        &self,
        plan: &Plan,
        rules: &RetentionRules,
        now_ns: i64,
        dry_run: bool,
        report: &mut RetentionReport,
    ) -> Result<Option<SegmentMeta>> {
        let meta = &plan.segment.meta;
        if plan.is_whole {
            report.segments_dropped += 1;
            if !dry_run {
                self.remove(std::slice::from_ref(meta))?;
            }
            return Ok(None);
        }
        report.segments_rewritten += 1;
        if dry_run {
            let n_expired: u64 = plan.expired.values().sum();
            let mut rest = meta.clone();
            rest.n_rows -= n_expired;
            rest.size_bytes = share(meta.size_bytes, rest.n_rows, meta.n_rows);
            return Ok(Some(rest));
        }
        let reader = plan.segment.open()?;
        let keep = rows_where(&reader, |source| {
            let (_, age) = rule_of(rules, source);
            !age.is_some_and(|age| is_older(meta, age, now_ns))
        })?;
        let inputs = [(Arc::clone(&plan.segment), Some(keep))];
        let rest = self.rewrite(&inputs, &mut || self.turn.check_open())?;
        self.versions.bump([meta.day]);
        Ok(rest)
    }

    fn expire_by_size(
        &self,
        rules: &RetentionRules,
        mut kept: Vec<SegmentMeta>,
        dry_run: bool,
        report: &mut RetentionReport,
        details: &mut BTreeMap<String, (u64, u64)>,
    ) -> Result<()> {
        let Some(size_bytes_max) = rules.size_bytes_max else {
            return Ok(());
        };
        kept.sort_by_key(|meta| (newest_ns(meta), meta.id));
        let mut size_bytes: u64 = kept.iter().map(|meta| meta.size_bytes).sum();
        for meta in kept {
            if size_bytes <= size_bytes_max {
                break;
            }
            size_bytes -= meta.size_bytes;
            let detail = format!(
                "store larger than {size_bytes_max} bytes, {}",
                day_name(meta.day)
            );
            self.drop_segment(&meta, detail, dry_run, report, details)?;
        }
        Ok(())
    }

    fn drop_segment(
        &self,
        meta: &SegmentMeta,
        detail: String,
        dry_run: bool,
        report: &mut RetentionReport,
        details: &mut BTreeMap<String, (u64, u64)>,
    ) -> Result<()> {
        if !dry_run {
            self.remove(std::slice::from_ref(meta))?;
        }
        report.segments_dropped += 1;
        report.records += meta.n_rows;
        report.bytes += meta.size_bytes;
        let entry = details.entry(detail).or_default();
        entry.0 += meta.n_rows;
        entry.1 += meta.size_bytes;
        Ok(())
    }

    fn remove(&self, metas: &[SegmentMeta]) -> Result<()> {
        let ids: Vec<u64> = metas.iter().map(|meta| meta.id).collect();
        self.catalog.commit(&Change {
            remove: &ids,
            ..Change::default()
        })?;
        self.view.replace(&ids, &[]);
        self.versions.bump(metas.iter().map(|meta| meta.day));
        self.source_counts.lock().retain(|id, _| !ids.contains(id));
        Ok(())
    }

    fn source_counts(&self, segment: &Arc<Segment>) -> Result<SourceCounts> {
        if let Some(counts) = self.source_counts.lock().get(&segment.meta.id) {
            return Ok(Arc::clone(counts));
        }
        let reader = segment.open()?;
        let mut counts: HashMap<String, u64, ahash::RandomState> = HashMap::default();
        each_source(&reader, |source| match counts.get_mut(source) {
            Some(count) => *count += 1,
            None => {
                counts.insert(source.to_owned(), 1);
            }
        })?;
        let counts: SourceCounts = Arc::new(counts.into_iter().collect());
        if counts.len() <= SOURCES_MAX {
            let mut known = self.source_counts.lock();
            // Merged and rewritten segments leave their counts behind.
            let snapshot = self.view.snapshot();
            if snapshot.segments.len() + 64 < known.len() {
                known.retain(|id, _| snapshot.segments.iter().any(|s| s.meta.id == *id));
            }
            known.insert(segment.meta.id, Arc::clone(&counts));
        }
        Ok(counts)
    }
}

/// Calls `visit` with the source of each row, "" where there is none.
fn each_source(reader: &SegmentReader, mut visit: impl FnMut(&str)) -> Result<()> {
    let infos: Vec<_> = reader
        .columns()
        .by_address(SOURCE)
        .iter()
        .filter_map(|index| reader.columns().info(*index))
        .filter(|info| info.value_type != ValueType::Null)
        .collect();
    let indices: Vec<usize> = infos.iter().map(|info| info.index).collect();
    let row_groups = (0..reader.metadata().num_row_groups()).collect();
    let batches = reader.read(&indices, row_groups, None, BATCH_ROWS)?;
    for batch in batches {
        let batch = batch.map_err(|error| reader.error("cannot be read", error))?;
        for row in 0..batch.num_rows() {
            let mut values = infos.iter().zip(batch.columns());
            let value = values.find_map(|(info, array)| value_at(array, info.value_type, row));
            match value {
                Some(ValueRef::Str(text) | ValueRef::Number(text) | ValueRef::Json(text)) => {
                    visit(text);
                }
                Some(ValueRef::Int(value)) => visit(itoa::Buffer::new().format(value)),
                Some(ValueRef::Float(value)) => visit(&value.to_string()),
                Some(ValueRef::Bool(value)) => visit(if value { "true" } else { "false" }),
                Some(ValueRef::Null) | None => visit(""),
            }
        }
    }
    Ok(())
}

fn rows_where(
    reader: &SegmentReader,
    mut is_kept: impl FnMut(&str) -> bool,
) -> Result<BooleanArray> {
    let mut keep = Vec::new();
    each_source(reader, |source| keep.push(is_kept(source)))?;
    Ok(BooleanArray::from(keep))
}

/// The rule for a source: its pattern (`None`: the default) and age.
fn rule_of<'a>(rules: &'a RetentionRules, source: &str) -> (Option<&'a str>, Option<Duration>) {
    let mut by_source = rules.by_source.iter();
    match by_source.find(|(pattern, _)| matches_pattern(pattern, source)) {
        Some((pattern, age)) => (Some(pattern), *age),
        None => (None, rules.age_max),
    }
}

/// `*` is any run of characters, everything else itself.
fn matches_pattern(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or("");
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = rest.get(at + part.len()..).unwrap_or(""),
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// The longest age of any rule; `None` if a rule keeps for ever.
fn longest(rules: &RetentionRules) -> Option<Duration> {
    let ages = rules
        .by_source
        .iter()
        .map(|(_, age)| *age)
        .chain([rules.age_max]);
    ages.collect::<Option<Vec<_>>>()?.into_iter().max()
}

fn newest_ns(meta: &SegmentMeta) -> i64 {
    meta.max_key.timestamp_ns.max(meta.max_arrival_ns)
}

fn is_older(meta: &SegmentMeta, age: Duration, now_ns: i64) -> bool {
    let age_ns = i64::try_from(age.as_nanos()).unwrap_or(i64::MAX);
    newest_ns(meta) < now_ns.saturating_sub(age_ns)
}

fn rule_text(pattern: Option<&str>, age: Option<Duration>) -> String {
    let seconds = age.map_or(0, |age| age.as_secs());
    let age = match seconds {
        days if days % 86_400 == 0 => format!("{} d", days / 86_400),
        hours if hours % 3_600 == 0 => format!("{} h", hours / 3_600),
        seconds => format!("{seconds} s"),
    };
    match pattern {
        Some(pattern) => format!("source {pattern} older than {age}"),
        None => format!("older than {age}"),
    }
}

/// `whole × n / of`.
fn share(whole: u64, n: u64, of: u64) -> u64 {
    let share = u128::from(whole) * u128::from(n) / u128::from(of.max(1));
    u64::try_from(share).unwrap_or(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_run_of_characters() {
        for (pattern, text, is_match) in [
            ("app", "app", true),
            ("app", "apple", false),
            ("app*", "apple", true),
            ("*", "", true),
            ("", "", true),
            ("", "x", false),
            ("*-prod", "web-prod", true),
            ("*-prod", "web-prod-2", false),
            ("a*b*c", "a1b2c", true),
            ("a*b*c", "acb", false),
            ("a*a", "a", false),
            ("ab*ba", "aba", false),
        ] {
            assert_eq!(matches_pattern(pattern, text), is_match, "{pattern} {text}");
        }
    }
}
