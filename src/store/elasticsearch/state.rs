//! How far each partition of the queue is indexed, shared by all processes through one small index.
//!
//! A document for each partition: `next`, and for each UTC day the highest position written into that day (what a cached answer about the day depends
//! on). Its version is `next`, so a late writer never moves it back. One document holds the generation, which every deletion raises; one names the
//! queue that the records come from. Every process reads them all the time.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use parking_lot::Mutex;
use serde_json::{Map, Value as Json, json};
use tokio::sync::{OnceCell, watch};
use xxhash_rust::xxh3::Xxh3;

use crate::common::error::{Error, Result};
use crate::common::http::percent_encoded;
use crate::query::TimeRange;
use crate::record::Checkpoint;
use crate::store::elasticsearch::Inner;
use crate::store::elasticsearch::claim::{PARTITION, Place};
use crate::store::elasticsearch::client::Method;
use crate::store::elasticsearch::names::NS_PER_DAY;
use crate::store::elasticsearch::put::{
    CHECKPOINT_MOVED, Condition, Put, checkpoint_moved, put_all,
};

/// Days kept for each partition; older ones share a mark.
const DAYS_MAX: usize = 400;
/// Partitions read at once: more than any topic has.
const PARTITIONS_MAX: usize = 10_000;
/// How often a claim is tried anew because the checkpoint moved meanwhile.
const CLAIM_TRIES_MAX: usize = 10;
const OTHER: &str = "other";
const OLDER: &str = "older";

/// A UTC day, or the one place for times far away.
pub type Day = Option<i64>;

/// How far one partition is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub next: u64,
    pub days: BTreeMap<Day, u64>,
    /// The highest position in days that are not listed any more.
    pub older: Option<u64>,
}

impl Progress {
    fn merge(&mut self, other: &Self) {
        self.next = self.next.max(other.next);
        for (day, seq) in &other.days {
            let mark = self.days.entry(*day).or_insert(*seq);
            *mark = (*mark).max(*seq);
        }
        self.older = self.older.max(other.older);
        while DAYS_MAX < self.days.len() {
            // `None`, the far times, sorts first and stays.
            let Some(oldest) = self.days.keys().find(|day| day.is_some()).copied() else {
                break;
            };
            self.older = self.older.max(self.days.remove(&oldest));
        }
    }

    fn from_json(source: &Json) -> Option<Self> {
        let mut progress = Self {
            next: source.get("next")?.as_u64()?,
            ..Self::default()
        };
        for (day, seq) in source.get("days")?.as_object()? {
            let seq = seq.as_u64()?;
            match day.as_str() {
                OTHER => drop(progress.days.insert(None, seq)),
                OLDER => progress.older = Some(seq),
                number => drop(progress.days.insert(Some(number.parse().ok()?), seq)),
            }
        }
        Some(progress)
    }

    fn days_json(&self) -> Map<String, Json> {
        let mut days: Map<String, Json> = self
            .days
            .iter()
            .map(|(day, seq)| {
                let name = day.map_or_else(|| OTHER.to_owned(), |day| day.to_string());
                (name, Json::from(*seq))
            })
            .collect();
        if let Some(older) = self.older {
            days.insert(OLDER.to_owned(), older.into());
        }
        days
    }
}

#[derive(Default)]
struct Known {
    partitions: BTreeMap<u32, Progress>,
    generation: u64,
    /// Something was read: until then nothing may be cached.
    is_loaded: bool,
    last_error: Option<String>,
}

pub struct State {
    known: Mutex<Known>,
    searchable: watch::Sender<Checkpoint>,
    version_before_load: u64,
    /// The cluster, the indices in it, and the queue, as the hash begins: stores that share a cache must never share a version.
    origin: OnceLock<u64>,
    has_index: OnceCell<()>,
    is_own_queue: OnceCell<()>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            known: Mutex::default(),
            searchable: watch::Sender::new(Checkpoint::default()),
            version_before_load: rand::random(),
            origin: OnceLock::new(),
            has_index: OnceCell::new(),
            is_own_queue: OnceCell::new(),
        }
    }
}

impl State {
    pub fn searchable(&self) -> watch::Receiver<Checkpoint> {
        self.searchable.subscribe()
    }

    pub fn last_error(&self) -> Option<String> {
        self.known.lock().last_error.clone()
    }

    /// Changes with everything that was written into a day of the range and with every deletion.
    pub fn version(&self, range: &TimeRange) -> u64 {
        let known = self.known.lock();
        let Some(origin) = self.origin.get().filter(|_| known.is_loaded) else {
            return self.version_before_load;
        };
        let first = range.start_ns.map(|ns| ns.div_euclid(NS_PER_DAY));
        let last = range
            .end_ns
            .map(|ns| ns.saturating_sub(1).div_euclid(NS_PER_DAY));
        let is_in = |day: &Day| {
            day.is_none_or(|day| {
                first.is_none_or(|first| first <= day) && last.is_none_or(|last| day <= last)
            })
        };
        let mut hash = Xxh3::with_seed(*origin);
        hash.update(&known.generation.to_le_bytes());
        for (partition, progress) in &known.partitions {
            hash.update(&partition.to_le_bytes());
            hash.update(&progress.older.map_or(0, |seq| seq + 1).to_le_bytes());
            for (day, seq) in progress.days.iter().filter(|(day, _)| is_in(day)) {
                hash.update(&day.unwrap_or(i64::MIN).to_le_bytes());
                hash.update(&seq.to_le_bytes());
            }
        }
        hash.digest()
    }

    fn apply(&self, partitions: &BTreeMap<u32, Progress>, generation: u64) {
        let mut known = self.known.lock();
        known.is_loaded = true;
        known.last_error = None;
        known.generation = known.generation.max(generation);
        for (partition, progress) in partitions {
            known
                .partitions
                .entry(*partition)
                .or_default()
                .merge(progress);
        }
        let known = &known.partitions;
        self.searchable.send_if_modified(|checkpoint| {
            let before = checkpoint.clone();
            for (partition, progress) in known {
                checkpoint.advance(*partition, progress.next);
            }
            before != *checkpoint
        });
    }

    /// Reads what all processes have done. A missing index is an empty store.
    pub async fn poll(&self, inner: &Inner) -> Result<()> {
        let read = match self.find_origin(inner).await {
            Ok(()) => self.read(inner).await,
            Err(error) => Err(error),
        };
        match &read {
            Ok((partitions, generation)) => self.apply(partitions, *generation),
            Err(error) => self.known.lock().last_error = Some(error.to_string()),
        }
        read.map(drop)
    }

    async fn find_origin(&self, inner: &Inner) -> Result<()> {
        if self.origin.get().is_some() {
            return Ok(());
        }
        let server = inner.client.server().await?;
        let options = &inner.options;
        self.set_origin([
            &server.cluster_uuid,
            &options.index_prefix,
            &options.queue.0,
        ]);
        Ok(())
    }

    fn set_origin(&self, parts: [&str; 3]) {
        let mut hash = Xxh3::new();
        for part in parts {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
        self.origin.get_or_init(|| hash.digest());
    }

    async fn read(&self, inner: &Inner) -> Result<(BTreeMap<u32, Progress>, u64)> {
        let body = json!({
            "size": PARTITIONS_MAX,
            "query": {"bool": {"filter": [{"term": {"index_prefix": inner.options.index_prefix}}, {"terms": {"kind": ["partition", "generation"]}}]}},
        });
        let path = format!("/{}/_search", inner.options.state_index());
        let answer = inner.client.admin(Method::POST, &path, Some(&body)).await?;
        let mut partitions = BTreeMap::new();
        let mut generation = 0;
        if answer.status == 404 {
            return Ok((partitions, generation));
        }
        let answer = answer.expect("show how far it is indexed")?;
        let hits = answer.pointer("/hits/hits").and_then(Json::as_array);
        for source in hits
            .into_iter()
            .flatten()
            .filter_map(|hit| hit.get("_source"))
        {
            self.note(inner, source, &mut partitions, &mut generation)?;
        }
        Ok((partitions, generation))
    }

    fn note(
        &self,
        inner: &Inner,
        source: &Json,
        partitions: &mut BTreeMap<u32, Progress>,
        generation: &mut u64,
    ) -> Result<()> {
        if let Some(found) = source.get("generation").and_then(Json::as_u64) {
            *generation = found.max(*generation);
            return Ok(());
        }
        if source.get("queue").and_then(Json::as_str) != Some(&inner.options.queue.0) {
            return Ok(());
        }
        let partition = source.get("partition").and_then(Json::as_u64);
        let read = partition
            .and_then(|partition| u32::try_from(partition).ok())
            .zip(Progress::from_json(source));
        let Some((partition, progress)) = read else {
            return Err(broken(inner));
        };
        partitions.insert(partition, progress);
        Ok(())
    }

    /// What is indexed of these partitions, at this moment and not at the last look.
    pub async fn progress_now(&self, inner: &Inner, partitions: &[u32]) -> Result<Checkpoint> {
        self.prepare(inner).await?;
        self.is_own_queue
            .get_or_try_init(|| claim_queue(inner))
            .await?;
        self.hold_claim(inner).await?;
        let mut ids: Vec<String> = partitions
            .iter()
            .map(|partition| partition_id(inner, *partition))
            .collect();
        ids.push(generation_id(inner));
        let claimed = partition_id(inner, PARTITION);
        let path = format!("/{}/_mget", inner.options.state_index());
        let answer = inner
            .client
            .admin(Method::POST, &path, Some(&json!({"ids": ids})))
            .await?
            .expect("show how far it is indexed")?;
        let mut found = BTreeMap::new();
        let mut generation = 0;
        let documents = answer.get("docs").and_then(Json::as_array);
        for document in documents.into_iter().flatten() {
            if document.get("error").is_some() {
                return Err(Error::unavailable(
                    "elasticsearch_refused",
                    format!("Elasticsearch cannot show how far it is indexed: {document}"),
                ));
            }
            if let Some(claim) = &inner.options.claim
                && document.get("_id").and_then(Json::as_str) == Some(&claimed)
            {
                claim.see(document)?;
            }
            if let Some(source) = document.get("_source") {
                self.note(inner, source, &mut found, &mut generation)?;
            }
        }
        self.apply(&found, generation);
        Ok(self.searchable.borrow().clone())
    }

    /// Everything up to here can be searched: `marks` holds for each partition what this writer knows.
    pub async fn commit(&self, inner: &Inner, marks: &BTreeMap<u32, Progress>) -> Result<()> {
        let merged: BTreeMap<u32, Progress> = {
            let known = self.known.lock();
            marks
                .iter()
                .map(|(partition, progress)| {
                    let mut merged = known.partitions.get(partition).cloned().unwrap_or_default();
                    merged.merge(progress);
                    (*partition, merged)
                })
                .collect()
        };
        let documents: Vec<Put> = merged
            .iter()
            .map(|(partition, progress)| put_of(inner, *partition, progress))
            .collect();
        put_all(inner, &documents).await?;
        self.apply(&merged, 0);
        Ok(())
    }

    /// Something was deleted: no answer from before is valid any more.
    pub async fn raise_generation(&self, inner: &Inner) -> Result<()> {
        self.prepare(inner).await?;
        let now = jiff::Timestamp::now().as_nanosecond();
        let generation = {
            let known = self.known.lock();
            u64::try_from(now).unwrap_or(0).max(known.generation + 1)
        };
        let document = json!({
            "kind": "generation",
            "index_prefix": inner.options.index_prefix,
            "generation": generation,
        });
        // Versions are signed.
        let version = generation & (u64::MAX >> 1);
        let put = Put {
            id: generation_id(inner),
            condition: Condition::NotNewer(version),
            document,
        };
        put_all(inner, &[put]).await?;
        self.apply(&BTreeMap::new(), generation);
        Ok(())
    }

    /// Takes the checkpoint of this folder's queue for this process alone, if it has not done so; see `claim`.
    pub async fn hold_claim(&self, inner: &Inner) -> Result<()> {
        let Some(claim) = &inner.options.claim else {
            return Ok(());
        };
        let mut is_held = claim.is_held().await;
        if *is_held {
            return Ok(());
        }
        self.prepare(inner).await?;
        self.is_own_queue
            .get_or_try_init(|| claim_queue(inner))
            .await?;
        claim.announce().await?;
        let path = format!(
            "/{}/_doc/{}",
            inner.options.state_index(),
            percent_encoded(&partition_id(inner, PARTITION))
        );
        for _ in 0..CLAIM_TRIES_MAX {
            let answer = inner.client.admin(Method::GET, &path, None).await?;
            let found = match answer.status {
                404 => None,
                _ => Some(answer.expect("show how far it is indexed")?),
            };
            let source = found.as_ref().and_then(|found| found.get("_source"));
            let progress = match source {
                Some(source) => Progress::from_json(source).ok_or_else(|| broken(inner))?,
                None => Progress::default(),
            };
            let run = source.and_then(|source| source.get("run")?.as_str());
            claim.check_found(run, progress.next)?;
            let put = Put {
                condition: Condition::Unchanged(found.as_ref().and_then(Place::of)),
                ..put_of(inner, PARTITION, &progress)
            };
            match put_all(inner, &[put]).await {
                Ok(()) => {
                    claim.succeeded().await?;
                    *is_held = true;
                    self.apply(&BTreeMap::from([(PARTITION, progress)]), 0);
                    return Ok(());
                }
                // Somebody was faster, or an earlier try had succeeded: look again.
                Err(error) if error.code == CHECKPOINT_MOVED => {}
                Err(error) => return Err(error),
            }
        }
        Err(checkpoint_moved())
    }

    /// Makes the index.
    pub async fn prepare(&self, inner: &Inner) -> Result<()> {
        self.has_index
            .get_or_try_init(|| create_index(inner))
            .await
            .map(drop)
    }

    /// Fails if the indices belong to another queue. Claims nothing.
    pub async fn check_queue(&self, inner: &Inner) -> Result<()> {
        match owner(inner).await? {
            Some(owner) if owner != inner.options.queue.0 && !inner.options.queue.0.is_empty() => {
                Err(foreign(inner, &owner))
            }
            _ => Ok(()),
        }
    }
}

fn partition_id(inner: &Inner, partition: u32) -> String {
    let options = &inner.options;
    format!(
        "partition/{}/{}/{partition}",
        options.index_prefix, options.queue.0
    )
}

fn generation_id(inner: &Inner) -> String {
    format!("generation/{}", inner.options.index_prefix)
}

fn queue_id(inner: &Inner) -> String {
    format!("queue/{}", inner.options.index_prefix)
}

async fn create_index(inner: &Inner) -> Result<()> {
    let body = json!({
        "settings": {
            "index.number_of_shards": 1,
            "index.number_of_replicas": inner.options.replicas,
        },
        "mappings": {
            "dynamic": false,
            "properties": {
                "kind": {"type": "keyword"},
                "queue": {"type": "keyword"},
                "index_prefix": {"type": "keyword"},
                "partition": {"type": "long"},
                "next": {"type": "long"},
            },
        },
    });
    let index = inner.options.state_index();
    let answer = inner
        .client
        .admin(Method::PUT, &format!("/{index}"), Some(&body))
        .await?;
    if answer.status == 400 && answer.reason().contains("resource_already_exists") {
        return Ok(());
    }
    answer.expect(&format!("make index {index}")).map(drop)
}

async fn owner(inner: &Inner) -> Result<Option<String>> {
    let path = format!(
        "/{}/_doc/{}",
        inner.options.state_index(),
        percent_encoded(&queue_id(inner))
    );
    let answer = inner.client.admin(Method::GET, &path, None).await?;
    if answer.status == 404 {
        return Ok(None);
    }
    let found = answer.expect("say whose records it holds")?;
    let owner = found.pointer("/_source/queue").and_then(Json::as_str);
    Ok(owner.map(str::to_owned))
}

async fn claim_queue(inner: &Inner) -> Result<()> {
    if inner.options.queue.0.is_empty() {
        return Err(Error::internal("upkeep does not write records"));
    }
    let path = format!(
        "/{}/_create/{}",
        inner.options.state_index(),
        percent_encoded(&queue_id(inner))
    );
    let body = json!({
        "kind": "queue",
        "index_prefix": inner.options.index_prefix,
        "queue": inner.options.queue.0,
    });
    let answer = inner.client.admin(Method::PUT, &path, Some(&body)).await?;
    if answer.status != 409 {
        return answer.expect("note whose records it holds").map(drop);
    }
    match owner(inner).await? {
        Some(owner) if owner != inner.options.queue.0 => Err(foreign(inner, &owner)),
        _ => Ok(()),
    }
}

fn foreign(inner: &Inner, owner: &str) -> Error {
    let options = &inner.options;
    Error::unavailable(
        "store_of_another_queue",
        format!(
            "the indices {}* hold the records of another queue ({owner}, this one is {}); positions of two queues would collide: set another `store.elasticsearch_index_prefix` for one of them, or, if the other queue is gone for good, delete document `{}` and its checkpoints from index {}",
            options.index_prefix,
            options.queue.0,
            queue_id(inner),
            options.state_index()
        ),
    )
}

fn broken(inner: &Inner) -> Error {
    Error::corrupt(format!(
        "index {} holds a checkpoint that cannot be read",
        inner.options.state_index()
    ))
}

/// How far a partition is, as a document.
fn put_of(inner: &Inner, partition: u32, progress: &Progress) -> Put {
    let mut document = json!({
        "kind": "partition",
        "queue": inner.options.queue.0,
        "index_prefix": inner.options.index_prefix,
        "partition": partition,
        "next": progress.next,
        "days": progress.days_json(),
    });
    let claim = inner.options.claim.as_ref();
    let claim = claim.filter(|_| partition == PARTITION);
    if let (Some(claim), Some(members)) = (claim, document.as_object_mut()) {
        members.insert("run".to_owned(), claim.run().into());
    }
    Put {
        id: partition_id(inner, partition),
        condition: match claim {
            Some(claim) => Condition::Unchanged(claim.place()),
            None => Condition::NotNewer(progress.next),
        },
        document,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Partition, next position, highest position of each day.
    type Mark<'a> = (u32, u64, &'a [(Day, u64)]);

    fn state(marks: &[Mark<'_>]) -> State {
        let state = State::default();
        state.set_origin(["cluster", "logs-", "queue"]);
        state.apply(&BTreeMap::new(), 1);
        for (partition, next, days) in marks {
            let progress = Progress {
                next: *next,
                days: days.iter().copied().collect(),
                older: None,
            };
            state.apply(&BTreeMap::from([(*partition, progress)]), 0);
        }
        state
    }

    #[test]
    fn a_version_follows_its_own_days() {
        let day = |day: i64| TimeRange {
            start_ns: Some(day * NS_PER_DAY),
            end_ns: Some((day + 1) * NS_PER_DAY),
        };
        let one = state(&[(0, 5, &[(Some(20_000), 4)])]);
        let two = state(&[(0, 9, &[(Some(20_000), 4), (Some(20_001), 8)])]);
        assert_eq!(one.version(&day(20_000)), two.version(&day(20_000)));
        assert_ne!(one.version(&day(20_001)), two.version(&day(20_001)));
        assert_ne!(
            one.version(&TimeRange::default()),
            two.version(&TimeRange::default())
        );
        let far = state(&[(0, 9, &[(Some(20_000), 4), (None, 8)])]);
        assert_ne!(one.version(&day(20_000)), far.version(&day(20_000)));
        let before = one.version(&day(3));
        one.apply(&BTreeMap::new(), 2);
        assert_ne!(one.version(&day(3)), before, "a deletion changes all");
        one.apply(&BTreeMap::new(), 1);
        assert_ne!(one.version(&day(3)), before, "and never goes back");
        assert_ne!(
            State::default().version(&day(3)),
            State::default().version(&day(3))
        );
    }

    #[test]
    fn stores_that_share_a_cache_share_no_version() {
        let of = |parts| {
            let state = State::default();
            state.set_origin(parts);
            state.apply(&BTreeMap::new(), 1);
            state.version(&TimeRange::default())
        };
        let one = of(["cluster", "logs-", "queue"]);
        assert_eq!(of(["cluster", "logs-", "queue"]), one);
        for other in [
            ["another", "logs-", "queue"],
            ["cluster", "logs-b-", "queue"],
            ["cluster", "logs-", "other"],
            ["clusterlogs-", "", "queue"],
        ] {
            assert_ne!(of(other), one, "{other:?}");
        }
        let unknown = State::default();
        unknown.apply(&BTreeMap::new(), 1);
        assert_ne!(
            unknown.version(&TimeRange::default()),
            State::default().version(&TimeRange::default()),
            "of a cluster that has not said its name nothing may be shared"
        );
    }

    #[test]
    fn marks_never_fall_and_their_number_is_bounded() {
        let state = state(&[(0, 5, &[(Some(20_000), 4)]), (0, 3, &[(Some(20_000), 2)])]);
        assert_eq!(state.searchable().borrow().next_seq(0), 5);
        let mut progress = Progress::default();
        for day in 0..500 {
            progress.merge(&Progress {
                next: day,
                days: BTreeMap::from([(Some(20_000 + day as i64), day), (None, day)]),
                older: None,
            });
        }
        assert_eq!(progress.days.len(), DAYS_MAX);
        assert_eq!(progress.older, Some(100));
        let json = json!({"next": progress.next, "days": progress.days_json()});
        assert_eq!(Progress::from_json(&json), Some(progress));
    }
}
