//! The version of each UTC day, as every process sees it: a mark in Redis, 16 random bytes under the day's own key. Whoever finds none makes one;
//! a raise takes the mark away. So no mark ever comes back, whatever Redis forgets, loses in a failover or throws away for want of memory (a
//! counter would start again and meet its old values), and a raise needs no memory, so that a full Redis takes it too.
//!
//! | key | taken away by | read by questions about |
//! |---|---|---|
//! | `PREFIX:day:20000` | a write to that day | at most [`DAYS_MAX`] days |
//! | `PREFIX:day:all` | a write to more days than can be named | the same |
//! | `PREFIX:day:any` | every write | many days, or a range without an end |
//!
//! [`DAYS_MAX`]: crate::cache::days::DAYS_MAX

use std::collections::BTreeSet;

use redis::{Cmd, RedisResult, Value};
use xxhash_rust::xxh3::Xxh3;

use crate::cache::redis::keeper::is_out_of_memory;
use crate::cache::redis::link::Link;
use crate::cache::{Days, Stamp};

/// More days in one raise, or waiting for one, are all days.
const RAISED_DAYS_MAX: usize = 64;
const MARK_BYTES: usize = 16;
/// A mark is forgotten after this time, which costs a question that would have been a hit.
const MARK_LIFE_MS: u64 = 24 * 3_600_000;

/// Days written and not told to Redis yet.
#[derive(Debug, Default)]
pub struct Raises {
    days: BTreeSet<i64>,
    is_all: bool,
}

impl Raises {
    pub fn add(&mut self, days: &[i64]) {
        self.days.extend(days);
        self.bound();
    }

    pub fn merge(&mut self, other: &Self) {
        self.days.extend(&other.days);
        self.is_all |= other.is_all;
        self.bound();
    }

    fn bound(&mut self) {
        if RAISED_DAYS_MAX < self.days.len() || self.is_all {
            self.is_all = true;
            self.days.clear();
        }
    }

    pub fn is_empty(&self) -> bool {
        self.days.is_empty() && !self.is_all
    }

    pub fn count(&self) -> usize {
        self.days.len() + usize::from(self.is_all)
    }
}

/// What a question found.
pub struct Found {
    pub stamp: Stamp,
    /// Bytes under the question's key, cut after the limit; `None`: something that is no text.
    pub value: Option<Vec<u8>>,
}

pub struct Marks {
    prefix: String,
}

impl Marks {
    pub fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
        }
    }

    fn key(&self, name: &str) -> String {
        format!("{}:day:{name}", self.prefix)
    }

    /// The marks that a question depends on.
    pub fn keys_of(&self, days: Days) -> Vec<String> {
        match days {
            Days::Any => vec![self.key("any")],
            Days::Named { first, last } => std::iter::once(self.key("all"))
                .chain((first..=last).map(|day| self.key(&day.to_string())))
                .collect(),
        }
    }

    /// Takes away the marks of the days.
    pub async fn forget(&self, link: &mut Link, raises: &Raises) -> RedisResult<()> {
        let mut keys = vec![self.key("any")];
        keys.extend(raises.is_all.then(|| self.key("all")));
        keys.extend(raises.days.iter().map(|day| self.key(&day.to_string())));
        redis::cmd("UNLINK").arg(keys).query_async(link).await
    }

    /// Does what questions do; a full memory is no failure.
    pub async fn probe(&self, mut link: Link) -> RedisResult<()> {
        let key = format!("{}:probe:{:016x}", self.prefix, rand::random::<u64>());
        let mut set = redis::cmd("SET");
        set.arg(&key).arg(1).arg("PX").arg(1_000);
        match set.query_async::<()>(&mut link).await {
            Err(error) if !is_out_of_memory(&error) => return Err(error),
            Ok(()) | Err(_) => {}
        }
        redis::cmd("UNLINK").arg(&key).query_async(&mut link).await
    }

    /// The marks and the value, in one round trip; if marks are missing, another one makes them.
    pub async fn look(
        mut link: Link,
        keys: Vec<String>,
        value_key: String,
        value_bytes_max: usize,
    ) -> RedisResult<Found> {
        let read_marks = Cmd::mget(&keys);
        let read_value = Cmd::getrange(
            &value_key,
            0,
            isize::try_from(value_bytes_max).unwrap_or(isize::MAX),
        );
        let (marks, value) = ask_both(&mut link, &read_marks, &read_value).await?;
        let mut marks: Vec<Value> = redis::from_redis_value(marks?)?;
        let value = match value {
            Ok(value) => Some(redis::from_redis_value(value)?),
            Err(error) if error.code() == Some("WRONGTYPE") => None,
            Err(error) => return Err(error),
        };
        let missing_marks = missing(&keys, &marks);
        if !missing_marks.is_empty() {
            marks = make(&mut link, &missing_marks, &read_marks).await?;
            let in_the_way = missing(&keys, &marks);
            if !in_the_way.is_empty() {
                // No text, or no memory. The next question finds the keys free.
                let mut unlink = redis::cmd("UNLINK");
                unlink.arg(in_the_way);
                unlink.query_async::<()>(&mut link).await?;
            }
        }
        Ok(Found {
            stamp: stamp(&keys, &marks),
            value,
        })
    }
}

/// In a cluster the keys lie on several nodes, which are asked at the same time.
async fn ask_both(
    link: &mut Link,
    first: &Cmd,
    second: &Cmd,
) -> RedisResult<(RedisResult<Value>, RedisResult<Value>)> {
    if link.is_cluster() {
        let mut other = link.clone();
        return Ok(futures::join!(
            first.query_async(link),
            second.query_async(&mut other)
        ));
    }
    let mut pipeline = redis::pipe();
    pipeline
        .add_command(first.clone())
        .add_command(second.clone())
        .ignore_errors();
    pipeline.query_async(link).await
}

fn is_mark(value: &Value) -> bool {
    matches!(value, Value::BulkString(bytes) if bytes.len() == MARK_BYTES)
}

/// Keys without a mark.
fn missing<'a>(keys: &'a [String], marks: &[Value]) -> Vec<&'a String> {
    let pairs = keys.iter().zip(marks);
    let missing = pairs.filter(|(_, mark)| !is_mark(mark));
    missing.map(|(key, _)| key).collect()
}

/// Makes the missing marks and reads all again. Another process may do the same: the first mark stays. A full memory leaves them missing, which is
/// no failure.
async fn make(link: &mut Link, missing: &[&String], read: &Cmd) -> RedisResult<Vec<Value>> {
    let sets = missing.iter().map(|key| {
        let mark: [u8; MARK_BYTES] = rand::random();
        let mut set = redis::cmd("SET");
        set.arg(*key).arg(&mark).arg("PX").arg(MARK_LIFE_MS);
        set.arg("NX");
        set
    });
    if link.is_cluster() {
        let sets = sets.map(|set| {
            let mut link = link.clone();
            async move { set.query_async::<Value>(&mut link).await }
        });
        unless_full(futures::future::join_all(sets).await)?;
        return read.query_async(link).await;
    }
    let mut pipeline = redis::pipe();
    for set in sets {
        pipeline.add_command(set);
    }
    pipeline.add_command(read.clone()).ignore_errors();
    let mut answers: Vec<RedisResult<Value>> = pipeline.query_async(link).await?;
    let read = answers.pop();
    unless_full(answers)?;
    match read {
        Some(marks) => Ok(redis::from_redis_value(marks?)?),
        None => Ok(Vec::new()),
    }
}

fn unless_full(answers: Vec<RedisResult<Value>>) -> RedisResult<()> {
    let failed = answers.into_iter().filter_map(Result::err);
    let mut failed = failed.filter(|error| !is_out_of_memory(error));
    failed.next().map_or(Ok(()), Err)
}

fn stamp(keys: &[String], marks: &[Value]) -> Stamp {
    let mut hash = Xxh3::new();
    for (key, mark) in keys.iter().zip(marks) {
        match mark {
            Value::BulkString(bytes) if is_mark(mark) => {
                hash.update(key.as_bytes());
                hash.update(bytes);
            }
            _ => return Stamp(None),
        }
    }
    Stamp((keys.len() == marks.len()).then(|| hash.digest128()))
}
