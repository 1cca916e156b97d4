//! READ 2: a question → cache or store → answer. Owns what all questions share: the time limit, cancellation when the client leaves, the cache's
//! key, and that equal questions in flight are asked once. Knows no encoding of answers: the caller gives one as a function.

pub mod tail;

use std::fmt::{Debug, Write as _};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hashbrown::HashMap;
use parking_lot::Mutex;
use xxhash_rust::xxh3::Xxh3;

use crate::cache::{Cache, CacheKey, CacheStats, Days, Stamp};
use crate::common::cancel::Cancel;
use crate::common::error::{Error, ErrorKind, Result};
use crate::common::metrics::Metrics;
use crate::query::{
    FieldsAnswer, FieldsRequest, Histogram, HistogramRequest, SearchAnswer, SearchRequest,
    StatsAnswer, StatsRequest, TimeRange,
};
use crate::queue::Queue;
use crate::record::{Record, RecordKey};
use crate::store::Store;

#[derive(Clone, Debug)]
pub struct SearchOptions {
    /// A question may take so long.
    pub timeout: Duration,
    /// An answer stays in the cache so long; it is never stale, because its key holds the version of the data.
    pub time_to_live: Duration,
}

impl Default for SearchOptions {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30),
            time_to_live: Duration::from_secs(120),
        }
    }
}

/// How an answer came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// From the cache, or from an equal question that was in flight.
    Hit,
    Miss,
    /// The client did not want the cache, or the kind of question is never cached.
    Bypass,
}

impl Outcome {
    /// As `X-Cache` shows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Bypass => "bypass",
        }
    }
}

/// An answer as the caller encoded it, and where it came from.
pub type Answered = Result<(Bytes, Outcome)>;

/// Shared by all handlers.
pub struct Searcher {
    store: Arc<dyn Store>,
    queue: Arc<dyn Queue>,
    cache: Arc<dyn Cache>,
    metrics: Arc<Metrics>,
    options: SearchOptions,
    flights: Mutex<HashMap<(CacheKey, Stamp), Weak<Flight>>>,
}

/// One question being asked: the first to lock it asks, the others find its answer.
#[derive(Default)]
struct Flight {
    answer: tokio::sync::Mutex<Option<Bytes>>,
}

impl Searcher {
    pub fn new(
        store: Arc<dyn Store>,
        queue: Arc<dyn Queue>,
        cache: Arc<dyn Cache>,
        metrics: Arc<Metrics>,
        options: SearchOptions,
    ) -> Self {
        Self {
            store,
            queue,
            cache,
            metrics,
            options,
            flights: Mutex::new(HashMap::new()),
        }
    }

    /// `is_fresh`: the client wants no cached answer.
    pub async fn search(
        &self,
        request: SearchRequest,
        is_fresh: bool,
        encode: impl FnOnce(&SearchAnswer) -> Result<Vec<u8>> + Send + 'static,
    ) -> Answered {
        let days = days_of(&request.selection.range);
        let key = self.key("search", &request, &request.selection.range);
        self.answer("search", (key, days), is_fresh, async |cancel| {
            let answer = self.store.search(request, cancel).await?;
            let is_whole = answer.partial_reasons.is_empty();
            let n_items = answer.records.len();
            encoded(answer, is_whole, n_items, encode).await
        })
        .await
    }

    pub async fn histogram(
        &self,
        request: HistogramRequest,
        is_fresh: bool,
        encode: impl FnOnce(&Histogram) -> Result<Vec<u8>> + Send + 'static,
    ) -> Answered {
        let days = days_of(&request.selection.range);
        let key = self.key("histogram", &request, &request.selection.range);
        self.answer("histogram", (key, days), is_fresh, async |cancel| {
            let answer = self.store.histogram(request, cancel).await?;
            let is_whole = answer.partial_reasons.is_empty();
            let n_items = answer.buckets.len();
            encoded(answer, is_whole, n_items, encode).await
        })
        .await
    }

    pub async fn fields(
        &self,
        request: FieldsRequest,
        is_fresh: bool,
        encode: impl FnOnce(&FieldsAnswer) -> Result<Vec<u8>> + Send + 'static,
    ) -> Answered {
        let days = days_of(&request.selection.range);
        let key = self.key("fields", &request, &request.selection.range);
        self.answer("fields", (key, days), is_fresh, async |cancel| {
            let answer = self.store.fields(request, cancel).await?;
            let is_whole = answer.partial_reasons.is_empty();
            let n_items = answer.fields.len();
            encoded(answer, is_whole, n_items, encode).await
        })
        .await
    }

    /// `labels`: the names under which the answer gives the groups, which are not part of the question itself.
    pub async fn stats(
        &self,
        request: StatsRequest,
        labels: &[String],
        is_fresh: bool,
        encode: impl FnOnce(&StatsAnswer) -> Result<Vec<u8>> + Send + 'static,
    ) -> Answered {
        let days = days_of(&request.selection.range);
        let key = self.key("stats", &(&request, labels), &request.selection.range);
        self.answer("stats", (key, days), is_fresh, async |cancel| {
            let answer = self.store.stats(request, cancel).await?;
            let is_whole = answer.partial_reasons.is_empty();
            let n_items = answer.groups.len();
            encoded(answer, is_whole, n_items, encode).await
        })
        .await
    }

    /// Records themselves, never cached: for exports and contexts.
    pub async fn records(&self, request: SearchRequest) -> Result<SearchAnswer> {
        let cancel = Cancel::after(self.options.timeout);
        let _guard = cancel.guard();
        self.observed("records", self.store.search(request, cancel))
            .await
    }

    pub async fn get(&self, key: RecordKey) -> Result<Option<Record>> {
        let cancel = Cancel::after(self.options.timeout);
        let _guard = cancel.guard();
        self.observed("get", self.store.get(key, cancel)).await
    }

    pub fn cache_stats(&self) -> CacheStats {
        self.cache.stats()
    }

    /// Why the cache is not used at the moment, if so.
    pub fn cache_problem(&self) -> Option<String> {
        self.cache.problem()
    }

    /// The version is read before the store is asked: an answer may be newer than its key says, never older.
    fn key(&self, kind: &str, question: &impl Debug, range: &TimeRange) -> CacheKey {
        let mut hash = Hash(Xxh3::new());
        // Writing into a hash cannot fail. `Debug` prints every part of a question, strings quoted, so no two questions print the same.
        let _ = write!(hash, "{kind} {question:?}");
        CacheKey {
            question: hash.0.digest128(),
            version: self.store.version(range),
        }
    }

    async fn answer(
        &self,
        kind: &'static str,
        (key, days): (CacheKey, Days),
        is_fresh: bool,
        ask: impl AsyncFnOnce(Cancel) -> Result<Encoded>,
    ) -> Answered {
        if is_fresh {
            self.metrics.cache.bypasses.inc();
            let cancel = Cancel::after(self.options.timeout);
            let _guard = cancel.guard();
            let answer = self.observed(kind, ask(cancel)).await?;
            return Ok((answer.bytes, Outcome::Bypass));
        }
        let looked = self.cache.get(key, days).await;
        if let Some(answer) = looked.answer {
            self.metrics.cache.hits.inc();
            return Ok((answer, Outcome::Hit));
        }
        let cancel = Cancel::after(self.options.timeout);
        let _guard = cancel.guard();
        let flight = self.flight((key, looked.stamp));
        let waited = tokio::time::timeout_at(cancel.deadline().into(), flight.answer.lock()).await;
        let Ok(mut slot) = waited else {
            return Err(self.timed_out());
        };
        if let Some(answer) = slot.as_ref() {
            self.metrics.cache.coalesced.inc();
            return Ok((answer.clone(), Outcome::Hit));
        }
        self.metrics.cache.misses.inc();
        // If this client leaves, the slot stays empty and the next one that waits asks.
        let Encoded {
            bytes: answer,
            is_whole,
        } = self.observed(kind, ask(cancel.clone())).await?;
        *slot = Some(answer.clone());
        // What is missing may be there again in a moment, without any change of the version.
        if is_whole {
            self.cache
                .put(key, looked.stamp, answer.clone(), self.options.time_to_live)
                .await;
        }
        drop(slot);
        self.flights.lock().remove(&(key, looked.stamp));
        Ok((answer, Outcome::Miss))
    }

    fn flight(&self, key: (CacheKey, Stamp)) -> Arc<Flight> {
        let mut flights = self.flights.lock();
        if let Some(flight) = flights.get(&key).and_then(Weak::upgrade) {
            return flight;
        }
        // Those whose question failed or whose client left stay behind as dead entries.
        if 1_024 < flights.len() {
            flights.retain(|_, flight| 0 < flight.strong_count());
        }
        let flight = Arc::new(Flight::default());
        flights.insert(key, Arc::downgrade(&flight));
        flight
    }

    async fn observed<A>(
        &self,
        kind: &'static str,
        asked: impl Future<Output = Result<A>>,
    ) -> Result<A> {
        let started = Instant::now();
        let answer = asked.await;
        self.metrics.search.observe_query(kind, started.elapsed());
        answer
    }

    fn timed_out(&self) -> Error {
        Error::new(
            ErrorKind::Timeout,
            "query_timeout",
            format!(
                "an equal question was being asked for more than {} ms; narrow the time range or the filter, or raise `search.timeout_ms`",
                self.options.timeout.as_millis()
            ),
        )
    }
}

fn days_of(range: &TimeRange) -> Days {
    Days::of_range(range.start_ns, range.end_ns)
}

/// An answer's bytes, and whether nothing was missing in it.
struct Encoded {
    bytes: Bytes,
    is_whole: bool,
}

/// Answers with more items are encoded apart from the threads that serve HTTP.
const ENCODED_AT_ONCE_MAX: usize = 64;

async fn encoded<A: Send + 'static>(
    answer: A,
    is_whole: bool,
    n_items: usize,
    encode: impl FnOnce(&A) -> Result<Vec<u8>> + Send + 'static,
) -> Result<Encoded> {
    let bytes = if n_items <= ENCODED_AT_ONCE_MAX {
        encode(&answer)?
    } else {
        let encoding = tokio::task::spawn_blocking(move || encode(&answer));
        encoding
            .await
            .map_err(|e| Error::internal("an answer could not be encoded").with_source(e))??
    };
    Ok(Encoded {
        bytes: bytes.into(),
        is_whole,
    })
}

struct Hash(Xxh3);

impl std::fmt::Write for Hash {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.update(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests;
