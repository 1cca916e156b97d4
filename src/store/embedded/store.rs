//! The embedded store at its boundary: questions go to the query pool, upkeep to threads of its own, writes to the writer.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::common::blocking::{BlockingPool, BlockingPoolOptions};
use crate::common::cancel::Cancel;
use crate::common::error::Result;
use crate::query::{
    FieldsAnswer, FieldsRequest, Histogram, HistogramRequest, SearchAnswer, SearchRequest,
    StatsAnswer, StatsRequest, TimeRange,
};
use crate::record::{Checkpoint, DeadLetter, Position, QueuedBatch, Record, RecordKey};
use crate::store::embedded::EmbeddedStore;
use crate::store::embedded::disk::Disk;
use crate::store::embedded::read::context::Context;
use crate::store::embedded::read::stats::StatsLimits;
use crate::store::embedded::read::{fields, histogram, search, stats};
use crate::store::embedded::snapshot::Snapshot;
use crate::store::{
    DeadLetterPage, DeadLetterRequest, RetentionReport, RetentionRules, Store, Usage, VerifyReport,
};

/// How long a look into dead letters or figures may take.
const LOOK_MAX: Duration = Duration::from_secs(30);
/// How long a clean-up or a check of all bytes may take.
const UPKEEP_MAX: Duration = Duration::from_secs(24 * 3_600);

/// Limits of the read side.
#[derive(Clone, Debug, Default)]
pub struct ReadOptions {
    pub pool: BlockingPoolOptions,
    pub stats: StatsLimits,
}

/// Where questions and upkeep run.
pub struct Threads {
    pub questions: Context,
    upkeep: BlockingPool,
}

impl Threads {
    pub fn start(options: ReadOptions) -> Result<Self> {
        let upkeep = BlockingPoolOptions {
            name: "store-upkeep",
            threads_count: 1,
            queue_count_max: 4,
            queue_wait_max: Duration::from_secs(60),
            busy_code: "store_busy",
        };
        Ok(Self {
            questions: Context {
                pool: BlockingPool::start(options.pool)?,
                stats: options.stats,
            },
            upkeep: BlockingPool::start(upkeep)?,
        })
    }
}

impl EmbeddedStore {
    async fn ask<T: Send + 'static>(
        &self,
        cancel: Cancel,
        work: impl FnOnce(&Context, &Snapshot, &Cancel) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let context = self.read.questions.clone();
        let snapshot = self.snapshot();
        let own = cancel.clone();
        let disk = Arc::clone(&self.disk);
        let work = move || {
            let answer = work(&context, &snapshot, &own);
            // What this question found damaged, the next one need not open again.
            disk.quarantine_damaged();
            answer
        };
        self.read.questions.pool.run(&cancel, work).await
    }

    async fn look<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Disk) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let disk = Arc::clone(&self.disk);
        let pool = &self.read.questions.pool;
        pool.run(&Cancel::after(LOOK_MAX), move || work(&disk))
            .await
    }

    /// The work hears of it when the caller goes away.
    async fn keep_up<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Disk, &Cancel) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let disk = Arc::clone(&self.disk);
        let cancel = Cancel::after(UPKEEP_MAX);
        let _guard = cancel.guard();
        let own = cancel.clone();
        let work = move || work(&disk, &own);
        self.read.upkeep.run(&cancel, work).await
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn write(&self, batches: Vec<QueuedBatch>) -> Result<()> {
        Self::write(self, batches).await
    }

    fn searchable(&self) -> watch::Receiver<Checkpoint> {
        Self::searchable(self)
    }

    fn durable(&self) -> watch::Receiver<Checkpoint> {
        Self::durable(self)
    }

    async fn flush(&self) -> Result<()> {
        Self::flush(self).await
    }

    fn version(&self, range: &TimeRange) -> u64 {
        Self::version(self, range)
    }

    async fn search(&self, request: SearchRequest, cancel: Cancel) -> Result<SearchAnswer> {
        self.ask(cancel, move |context, snapshot, cancel| {
            search::search(context, snapshot, &request, cancel)
        })
        .await
    }

    async fn histogram(&self, request: HistogramRequest, cancel: Cancel) -> Result<Histogram> {
        self.ask(cancel, move |context, snapshot, cancel| {
            histogram::histogram(context, snapshot, request, cancel)
        })
        .await
    }

    async fn fields(&self, request: FieldsRequest, cancel: Cancel) -> Result<FieldsAnswer> {
        self.ask(cancel, move |context, snapshot, cancel| {
            fields::fields(context, snapshot, request, cancel)
        })
        .await
    }

    async fn stats(&self, request: StatsRequest, cancel: Cancel) -> Result<StatsAnswer> {
        self.ask(cancel, move |context, snapshot, cancel| {
            stats::stats(context, snapshot, request, cancel)
        })
        .await
    }

    async fn get(&self, key: RecordKey, cancel: Cancel) -> Result<Option<Record>> {
        self.ask(cancel, move |context, snapshot, cancel| {
            search::get(context, snapshot, key, cancel)
        })
        .await
    }

    async fn dead_letters(&self, request: DeadLetterRequest) -> Result<DeadLetterPage> {
        self.look(move |disk| disk.dead_letters(&request)).await
    }

    async fn dead_letters_by_position(&self, positions: Vec<Position>) -> Result<Vec<DeadLetter>> {
        self.look(move |disk| disk.dead_letters_by_position(&positions))
            .await
    }

    async fn delete_dead_letters(&self, positions: Vec<Position>) -> Result<u64> {
        let is_wanted = |letter: &DeadLetter| positions.contains(&letter.position);
        let snapshot = self.snapshot();
        let mut head = snapshot
            .head_letters
            .iter()
            .flat_map(|letters| letters.iter());
        if head.any(is_wanted) {
            // Only what the catalog holds can be deleted for good.
            Self::flush(self).await?;
        }
        self.look(move |disk| disk.catalog.delete_letters(&positions))
            .await
    }

    async fn expire(
        &self,
        rules: RetentionRules,
        now_ns: i64,
        dry_run: bool,
    ) -> Result<RetentionReport> {
        self.keep_up(move |disk, _| disk.expire(&rules, now_ns, dry_run))
            .await
    }

    async fn usage(&self) -> Result<Usage> {
        self.look(Disk::usage).await
    }

    async fn verify(&self) -> Result<VerifyReport> {
        self.keep_up(Disk::verify).await
    }

    async fn close(&self) -> Result<()> {
        Self::close(self).await
    }
}
