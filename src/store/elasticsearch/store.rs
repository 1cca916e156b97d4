//! The store on Elasticsearch at its boundary.

use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::common::cancel::Cancel;
use crate::common::error::{Error, Result};
use crate::query::{
    FieldsAnswer, FieldsRequest, Histogram, HistogramRequest, SearchAnswer, SearchRequest,
    StatsAnswer, StatsRequest, TimeRange,
};
use crate::record::{Checkpoint, DeadLetter, Position, QueuedBatch, Record, RecordKey};
use crate::store::elasticsearch::client::Client;
use crate::store::elasticsearch::options::ElasticsearchOptions;
use crate::store::elasticsearch::{Inner, claim, expire, letters, read, usage, write};
use crate::store::{
    DeadLetterPage, DeadLetterRequest, RetentionReport, RetentionRules, Store, Usage, VerifyReport,
};

/// How long the start waits for a server that does not answer.
const FIRST_LOOK_MAX: Duration = Duration::from_secs(10);

pub struct ElasticsearchStore {
    inner: Arc<Inner>,
    stop: CancellationToken,
}

impl ElasticsearchStore {
    /// Looks at the cluster. One that does not answer is no reason not to start: lines wait in the queue until it does; one that holds another queue's
    /// records, or is too old, is.
    pub async fn connect(options: ElasticsearchOptions) -> Result<Self> {
        let inner = Arc::new(Inner {
            client: Client::new(options.client.clone())?,
            options,
            mappings: super::mapping::Mappings::default(),
            state: super::state::State::default(),
            letters: letters::Letters::default(),
            work: tokio::sync::Mutex::default(),
        });
        match tokio::time::timeout(FIRST_LOOK_MAX, first_look(&inner)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) if is_final(&error) => return Err(error),
            Ok(Err(error)) => {
                tracing::error!(%error, "the store cannot be reached yet; lines are queued until it can");
            }
            Err(_) => {
                tracing::error!("the store does not answer yet; lines are queued until it does");
            }
        }
        let stop = CancellationToken::new();
        tokio::spawn(watch_state(
            Arc::downgrade(&inner),
            inner.options.poll_interval,
            stop.clone(),
        ));
        Ok(Self { inner, stop })
    }

    /// For the read side's own tests and tools.
    pub fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }
}

async fn first_look(inner: &Inner) -> Result<()> {
    let server = inner.client.server().await?;
    tracing::info!(
        version = server.version,
        opensearch = server.is_opensearch,
        "connected to the store"
    );
    inner.state.check_queue(inner).await?;
    // Before the queue is opened: it gives out positions behind the checkpoint that is claimed.
    inner.state.hold_claim(inner).await?;
    inner.state.poll(inner).await
}

/// Waiting does not help.
fn is_final(error: &Error) -> bool {
    matches!(
        error.code,
        "store_of_another_queue"
            | claim::USED_TWICE
            | "elasticsearch_too_old"
            | "elasticsearch_forbidden"
            | "corrupt_data"
    )
}

/// Reads what other processes have done, until the store is closed.
async fn watch_state(inner: Weak<Inner>, interval: Duration, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = stop.cancelled() => return,
        }
        let Some(inner) = inner.upgrade() else { return };
        if let Err(error) = inner.state.poll(&inner).await {
            tracing::debug!(%error, "could not read how far the store is");
        }
    }
}

impl Drop for ElasticsearchStore {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[async_trait]
impl Store for ElasticsearchStore {
    async fn write(&self, batches: Vec<QueuedBatch>) -> Result<()> {
        write::write(&self.inner, batches).await
    }

    fn searchable(&self) -> watch::Receiver<Checkpoint> {
        self.inner.state.searchable()
    }

    /// What Elasticsearch has acknowledged is in its own log on disk.
    fn durable(&self) -> watch::Receiver<Checkpoint> {
        self.inner.state.searchable()
    }

    fn positions_begin(&self, next: Position) -> Result<()> {
        match &self.inner.options.claim {
            Some(claim) => claim.positions_begin(next.seq),
            None => Ok(()),
        }
    }

    async fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn version(&self, range: &TimeRange) -> u64 {
        self.inner.state.version(range)
    }

    async fn search(&self, request: SearchRequest, cancel: Cancel) -> Result<SearchAnswer> {
        read::search(&self.inner, request, cancel).await
    }

    async fn histogram(&self, request: HistogramRequest, cancel: Cancel) -> Result<Histogram> {
        read::histogram(&self.inner, request, cancel).await
    }

    async fn fields(&self, request: FieldsRequest, cancel: Cancel) -> Result<FieldsAnswer> {
        read::fields(&self.inner, request, cancel).await
    }

    async fn stats(&self, request: StatsRequest, cancel: Cancel) -> Result<StatsAnswer> {
        read::stats(&self.inner, request, cancel).await
    }

    async fn get(&self, key: RecordKey, cancel: Cancel) -> Result<Option<Record>> {
        read::get(&self.inner, key, cancel).await
    }

    async fn dead_letters(&self, request: DeadLetterRequest) -> Result<DeadLetterPage> {
        letters::list(&self.inner, request).await
    }

    async fn dead_letters_by_position(&self, positions: Vec<Position>) -> Result<Vec<DeadLetter>> {
        letters::by_position(&self.inner, positions).await
    }

    async fn delete_dead_letters(&self, positions: Vec<Position>) -> Result<u64> {
        letters::delete(&self.inner, &positions).await
    }

    async fn expire(
        &self,
        rules: RetentionRules,
        now_ns: i64,
        dry_run: bool,
    ) -> Result<RetentionReport> {
        expire::expire(&self.inner, &rules, now_ns, dry_run).await
    }

    async fn usage(&self) -> Result<Usage> {
        usage::usage(&self.inner).await
    }

    async fn verify(&self) -> Result<VerifyReport> {
        usage::verify(&self.inner).await
    }

    async fn close(&self) -> Result<()> {
        self.stop.cancel();
        Ok(())
    }
}
