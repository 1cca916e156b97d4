//! `stats`: groups and their aggregates, by hashing. Each part is aggregated by itself, several at a time, and added to the whole.
//!
//! Memory: groups and distinct texts of one question take at most [`StatsLimits::memory_bytes_max`]. Half of it spent, distinct counts become
//! sketches; all of it spent, the question is refused, and the message says how to narrow it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering as Atomic};

use hashbrown::HashMap;
use parking_lot::Mutex;

use crate::common::cancel::Cancel;
use crate::common::error::{Error, ErrorKind, Result};
use crate::query::{Aggregate, AggregateKind, Group, GroupBy, StatsAnswer, StatsRequest};
use crate::record::{Value, ValueRef};
use crate::store::answer::order::compare_groups;
use crate::store::embedded::read::context::{Context, Question, survive};
use crate::store::embedded::read::histogram::bucket_of;
use crate::store::embedded::read::kernels;
use crate::store::embedded::read::part::{Chunk, Part};
use crate::store::embedded::read::tally::Tally;
use crate::store::embedded::read::values::{FieldReader, FieldValues};
use crate::store::embedded::schema;
use crate::store::embedded::snapshot::Snapshot;

/// What a group costs beside its key and states.
const GROUP_BYTES: usize = 48;

/// Limits of one `stats` question.
#[derive(Clone, Debug)]
pub struct StatsLimits {
    /// Bytes of groups and distinct texts. Default: 64 MiB.
    pub memory_bytes_max: usize,
}

impl Default for StatsLimits {
    fn default() -> Self {
        Self {
            memory_bytes_max: 64 << 20,
        }
    }
}

/// Groups of one part, or of all. A group's key is its values one after the other: tag, then the text's length and bytes, or the time.
struct Groups {
    by_key: HashMap<Box<[u8]>, usize, ahash::RandomState>,
    tallies: Vec<Tally>,
    key_bytes: usize,
    /// What the question's memory holds for them.
    held_bytes: usize,
}

/// What the workers of one question share.
struct Work {
    question: Question,
    request: StatsRequest,
    memory: Memory,
    all: Mutex<Groups>,
}

struct Memory {
    used_bytes: AtomicUsize,
    bytes_max: usize,
}

const TAG_NULL: u8 = 0;
const TAG_TEXT: u8 = 1;
const TAG_TIME: u8 = 2;

pub fn stats(
    context: &Context,
    snapshot: &Snapshot,
    request: StatsRequest,
    cancel: &Cancel,
) -> Result<StatsAnswer> {
    let question = Question::new(&request.selection, cancel)?;
    let opened = context.parts(snapshot, &question);
    let mut partial_reasons = opened.partial_reasons;
    let parts: Arc<[Part]> = opened.parts.into();
    let mut all = Groups::new(&request.aggregates);
    if request.by.is_empty() {
        all.group(&[]);
    }
    let work = Arc::new(Work {
        question,
        memory: Memory {
            used_bytes: AtomicUsize::new(0),
            bytes_max: context.stats.memory_bytes_max,
        },
        all: Mutex::new(all),
        request,
    });
    let shared = Arc::clone(&work);
    let results = context.map_parts(parts.len(), move |index| {
        let Some(part) = parts.get(index) else {
            return Ok(Ok(()));
        };
        survive(|| {
            let groups = part_groups(part, &shared)?;
            let mut all = shared.all.lock();
            shared.memory.release(groups.held_bytes);
            all.merge(groups);
            let size_bytes = all.size_bytes();
            shared.memory.release(all.held_bytes);
            all.held_bytes = size_bytes;
            shared.memory.add(size_bytes)
        })
    })?;
    partial_reasons.extend(results.into_iter().filter_map(Result::err));
    let empty = Groups::new(&[]);
    let all = std::mem::replace(&mut *work.all.lock(), empty);
    all.finish(&work.request, partial_reasons, cancel)
}

fn part_groups(part: &Part, work: &Work) -> Result<Groups> {
    let request = &work.request;
    let rows = work.question.matching(part)?;
    let mut groups = Groups::new(&request.aggregates);
    let is_count_alone = request.by.is_empty()
        && request
            .aggregates
            .iter()
            .all(|a| a.kind == AggregateKind::Count);
    if is_count_alone {
        let group = groups.group(&[]);
        for tally in &mut groups.tallies {
            if let Tally::Count(counts) = tally
                && let Some(count) = counts.get_mut(group)
            {
                *count = rows.len();
            }
        }
        return Ok(groups);
    }
    let columns = part.columns();
    let by: Vec<Option<FieldReader>> = request
        .by
        .iter()
        .map(|by| match by {
            GroupBy::Field(address) => Some(FieldReader::new(columns, address)),
            GroupBy::Time(_) => None,
        })
        .collect();
    let fields: Vec<Option<FieldReader>> = request
        .aggregates
        .iter()
        .map(|aggregate| {
            let is_needed = aggregate.kind != AggregateKind::Count;
            is_needed.then(|| FieldReader::new(columns, &aggregate.field))
        })
        .collect();
    let readers = by.iter().chain(&fields).flatten();
    let mut indices: Vec<usize> = readers.flat_map(FieldReader::indices).collect();
    indices.push(schema::TIMESTAMP);
    indices.sort_unstable();
    indices.dedup();
    let mut ids: Vec<usize> = Vec::new();
    part.read(&indices, &rows, &work.question.cancel, &mut |chunk| {
        groups.assign(&chunk, &indices, &request.by, &by, work, &mut ids)?;
        for (tally, field) in groups.tallies.iter_mut().zip(&fields) {
            let values = match field {
                Some(field) => field.values(chunk.batch, &indices)?,
                None => FieldValues::None,
            };
            groups.held_bytes += add_values(tally, &ids, &values, work)?;
        }
        Ok(())
    })?;
    Ok(groups)
}

/// The bytes that this took of the question's memory.
fn add_values(
    tally: &mut Tally,
    ids: &[usize],
    values: &FieldValues<'_>,
    work: &Work,
) -> Result<usize> {
    let mut all_bytes = 0;
    for (rows, ids) in ids.chunks(1_024).enumerate() {
        work.question.cancel.check()?;
        let is_tight = work.memory.is_tight();
        let mut bytes = 0;
        for (at, id) in ids.iter().enumerate() {
            bytes += tally.add(*id, values.get(rows * 1_024 + at), is_tight);
        }
        work.memory.add(bytes)?;
        all_bytes += bytes;
    }
    Ok(all_bytes)
}

impl Memory {
    fn release(&self, bytes: usize) {
        self.used_bytes.fetch_sub(bytes, Atomic::Relaxed);
    }

    fn is_tight(&self) -> bool {
        self.bytes_max / 2 < self.used_bytes.load(Atomic::Relaxed)
    }

    fn add(&self, bytes: usize) -> Result<()> {
        let used = self.used_bytes.fetch_add(bytes, Atomic::Relaxed) + bytes;
        if self.bytes_max < used {
            return Err(Error::new(
                ErrorKind::TooLarge,
                "too_many_groups",
                format!(
                    "the groups take more than {} MiB; group by fewer fields, narrow the time range or the filter, or raise `search.stats_memory_bytes_max`",
                    self.bytes_max >> 20
                ),
            ));
        }
        Ok(())
    }
}

impl Groups {
    fn new(aggregates: &[Aggregate]) -> Self {
        Self {
            by_key: HashMap::default(),
            tallies: aggregates.iter().map(Tally::new).collect(),
            key_bytes: 0,
            held_bytes: 0,
        }
    }

    fn size_bytes(&self) -> usize {
        let states: usize = self.tallies.iter().map(Tally::size_bytes).sum();
        self.by_key.len() * GROUP_BYTES + self.key_bytes + states
    }

    fn group(&mut self, key: &[u8]) -> usize {
        if let Some(id) = self.by_key.get(key) {
            return *id;
        }
        let id = self.by_key.len();
        self.by_key.insert(key.into(), id);
        self.key_bytes += key.len();
        for tally in &mut self.tallies {
            tally.grow(id + 1);
        }
        id
    }

    /// The group of each row of a chunk.
    fn assign(
        &mut self,
        chunk: &Chunk<'_>,
        columns: &[usize],
        by: &[GroupBy],
        readers: &[Option<FieldReader>],
        work: &Work,
        ids: &mut Vec<usize>,
    ) -> Result<()> {
        let times = chunk.batch.columns().first();
        let times = times.map_or(Ok(&[][..]), kernels::times)?;
        let mut values = Vec::with_capacity(readers.len());
        for reader in readers.iter().flatten() {
            values.push(reader.values(chunk.batch, columns)?);
        }
        ids.clear();
        let mut key: Vec<u8> = Vec::new();
        let mut last: (Vec<u8>, usize) = (Vec::new(), self.group_if_any());
        let group_bytes: usize = self.tallies.iter().map(Tally::group_bytes).sum();
        for (at, time) in times.iter().enumerate() {
            key.clear();
            let mut fields = values.iter();
            for by in by {
                match by {
                    GroupBy::Time(interval_ns) => {
                        key.push(TAG_TIME);
                        key.extend(bucket_of(*time, *interval_ns).to_le_bytes());
                    }
                    GroupBy::Field(_) => push_text(&mut key, fields.next().and_then(|v| v.get(at))),
                }
            }
            if last.0 != key || last.1 == usize::MAX {
                let n_groups = self.by_key.len();
                last.1 = self.group(&key);
                last.0.clone_from(&key);
                if n_groups < self.by_key.len() {
                    let bytes = GROUP_BYTES + key.len() + group_bytes;
                    work.memory.add(bytes)?;
                    self.held_bytes += bytes;
                }
            }
            ids.push(last.1);
        }
        Ok(())
    }

    fn group_if_any(&self) -> usize {
        self.by_key.get(&[][..]).copied().unwrap_or(usize::MAX)
    }

    fn merge(&mut self, other: Self) {
        let mut keys: Vec<(Box<[u8]>, usize)> = other.by_key.into_iter().collect();
        keys.sort_unstable_by_key(|(_, id)| *id);
        let places: Vec<usize> = keys.iter().map(|(key, _)| self.group(key)).collect();
        for (own, theirs) in self.tallies.iter_mut().zip(other.tallies) {
            own.merge(theirs, &places);
        }
    }

    fn finish(
        self,
        request: &StatsRequest,
        partial_reasons: Vec<String>,
        cancel: &Cancel,
    ) -> Result<StatsAnswer> {
        let mut keys: Vec<(Box<[u8]>, usize)> = self.by_key.into_iter().collect();
        keys.sort_unstable_by_key(|(_, id)| *id);
        let mut groups: Vec<Group> = keys
            .into_iter()
            .map(|(key, _)| Group {
                by: decoded(&key),
                values: Vec::with_capacity(request.aggregates.len()),
            })
            .collect();
        let mut approximate = Vec::new();
        for (tally, aggregate) in self.tallies.into_iter().zip(&request.aggregates) {
            cancel.check()?;
            let (values, is_approximate) = tally.finish();
            for (group, value) in groups.iter_mut().zip(values) {
                group.values.push(value);
            }
            if is_approximate {
                approximate.push(aggregate.label.clone());
            }
        }
        let compare = |a: &Group, b: &Group| compare_groups(a, b, &request.sort);
        let n_groups = groups.len() as u64;
        if 0 < request.limit && request.limit < groups.len() {
            groups.select_nth_unstable_by(request.limit, compare);
        }
        groups.truncate(request.limit);
        groups.sort_by(compare);
        Ok(StatsAnswer {
            groups,
            n_groups,
            approximate,
            partial_reasons,
        })
    }
}

fn push_text(key: &mut Vec<u8>, value: Option<ValueRef<'_>>) {
    let Some(value) = value else {
        key.push(TAG_NULL);
        return;
    };
    let text = value.text();
    key.push(TAG_TEXT);
    key.extend((text.len() as u64).to_le_bytes());
    key.extend(text.as_bytes());
}

fn decoded(mut key: &[u8]) -> Vec<Value> {
    let mut values = Vec::new();
    while let Some((tag, rest)) = key.split_first() {
        key = rest;
        if *tag == TAG_NULL {
            values.push(Value::Null);
            continue;
        }
        let Some((number, rest)) = key.split_first_chunk::<8>() else {
            break;
        };
        key = rest;
        if *tag == TAG_TIME {
            values.push(Value::Int(i64::from_le_bytes(*number)));
            continue;
        }
        let len = usize::try_from(u64::from_le_bytes(*number)).unwrap_or(usize::MAX);
        let Some((text, rest)) = key.split_at_checked(len) else {
            break;
        };
        values.push(Value::Str(String::from_utf8_lossy(text).into_owned()));
        key = rest;
    }
    values
}
