//! The wiring: builds every part from the settings, in the order of the data's path, runs, and stops in reverse. The only place (with
//! `maintain`, for work without a server) that picks implementations.

use std::io::{IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use axum::Router;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::api::{self, ApiState, Identity};
use crate::cache::{Cache, InProcessCache, NoCache, RedisCache};
use crate::common::data_dir::{self, DataDir};
use crate::common::error::Result;
use crate::common::metrics::Metrics;
use crate::common::server;
use crate::common::server::edge::{self, Edge};
use crate::common::telemetry;
use crate::config::{CacheKind, Checked, LogFormat, QueueKind, Role, StoreKind};
use crate::indexer::Indexer;
use crate::intake::{self, IntakeState};
use crate::options;
use crate::queue::kafka::Consuming;
use crate::queue::{EmbeddedQueue, KafkaQueue, MemoryQueue, Queue};
use crate::record::Position;
use crate::retention::{self, RetentionOptions};
use crate::search::Searcher;
use crate::store::Store;
use crate::store::elasticsearch::claim::Claim;
use crate::store::elasticsearch::{ElasticsearchStore, QueueIdentity};
use crate::store::embedded::EmbeddedStore;
use crate::store::memory::MemoryStore;
use crate::ui;

/// Runs the server until a signal; `Ok` after a clean stop.
pub fn serve(checked: Checked) -> anyhow::Result<()> {
    let is_json = match checked.log_format {
        LogFormat::Human => false,
        LogFormat::Json => true,
        LogFormat::Auto => !std::io::stderr().is_terminal(),
    };
    telemetry::start(&checked.settings.log.filter, is_json)?;
    // Buffers of a request live for milliseconds: with huge pages the kernel clears 2 MiB for each, which cost a fifth of the ingest's time.
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!(%error, "huge pages stay on");
    }
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Ok(threads @ 1..) = usize::try_from(checked.settings.threads) {
        runtime.worker_threads(threads);
    }
    let runtime = runtime
        .thread_name("http")
        // Compression and encoding of large answers.
        .max_blocking_threads(16)
        .enable_all()
        .build()
        .context("start the threads")?;
    runtime.block_on(run(checked))
}

async fn run(checked: Checked) -> anyhow::Result<()> {
    let data_dir = checked
        .data_dir
        .as_deref()
        .map(DataDir::create)
        .transpose()?;
    let folder = data_dir.as_ref().map(DataDir::path);
    // Before anything is opened: an address in use is the most frequent mistake.
    let listener = TcpListener::bind(checked.listen)
        .await
        .with_context(|| format!("listen on {}", checked.listen))?;
    let address = listener.local_addr().context("ask for the own address")?;
    let metrics = Arc::new(Metrics::new());
    let store = open_store(&checked, folder).await?;
    let queue = open_queue(&checked, folder, &*store, metrics.clone())?;
    let cache = open_cache(&checked, &metrics)?;
    let leaving = CancellationToken::new();

    let indexer = start_indexer(&checked, &queue, &store, &cache, &metrics);
    let cleaner = start_cleaner(&checked, &store, &metrics, &leaving);
    let router = router(
        &checked,
        address,
        &Parts {
            queue: queue.clone(),
            store: store.clone(),
            cache,
            indexer: indexer.clone(),
            metrics: metrics.clone(),
            leaving: leaving.clone(),
        },
    );
    spawn_signal_watch(leaving.clone())?;
    announce(address);

    server::run(
        listener,
        router,
        options::server(&checked.settings),
        metrics,
        leaving.cancelled_owned(),
    )
    .await;
    queue.close().await.context("close the queue")?;
    let drain = Duration::from_millis(checked.settings.indexer.drain_ms);
    let indexed = match &indexer {
        Some(indexer) => indexer.stop(drain).await,
        None => Ok(()),
    };
    let cleaned = cleaner.await;
    store.close().await.context("close the store")?;
    indexed.context("store what was queued")?;
    cleaned.context("the cleaner panicked")?;
    tracing::info!("stopped");
    Ok(())
}

/// The one place that chooses a store. Blocks while it opens.
pub async fn open_store(checked: &Checked, folder: Option<&Path>) -> Result<Arc<dyn Store>> {
    match (checked.store, folder) {
        (StoreKind::Embedded, Some(folder)) => {
            let options = options::embedded_store(&checked.settings);
            Ok(Arc::new(EmbeddedStore::open(
                &folder.join("store"),
                options,
            )?))
        }
        (StoreKind::Elasticsearch, _) => {
            let queue = queue_identity(checked, folder)?;
            let mut options = options::elasticsearch_store(&checked.settings, queue)?;
            if let (QueueKind::Embedded, Some(folder)) = (checked.queue, folder) {
                options.claim = Some(Arc::new(Claim::open(folder)?));
            }
            Ok(Arc::new(ElasticsearchStore::connect(options).await?))
        }
        (StoreKind::Memory, _) | (StoreKind::Embedded, None) => Ok(Arc::new(MemoryStore::new(
            options::memory_store(&checked.settings),
        ))),
    }
}

/// Whose records go into a shared store: an embedded queue has a name of its own in its folder. Without a folder it is upkeep alone.
fn queue_identity(checked: &Checked, folder: Option<&Path>) -> Result<QueueIdentity> {
    match (checked.queue, folder) {
        (QueueKind::Embedded, Some(folder)) => Ok(QueueIdentity(format!(
            "embedded/{}",
            data_dir::own_id(folder)?
        ))),
        (QueueKind::Kafka, _) => Ok(QueueIdentity(match &checked.kafka {
            Some(kafka) => format!("kafka/{}", kafka.topic),
            None => String::new(),
        })),
        (QueueKind::Embedded | QueueKind::Memory, _) => Ok(QueueIdentity(String::new())),
    }
}

/// The one place that chooses a queue. Blocks while it opens.
pub fn open_queue(
    checked: &Checked,
    folder: Option<&Path>,
    store: &dyn Store,
    metrics: Arc<Metrics>,
) -> Result<Arc<dyn Queue>> {
    match (checked.queue, folder) {
        (QueueKind::Embedded, Some(folder)) => {
            let next_seq_min = store.durable().borrow().next_seq(0);
            let options = options::embedded_queue(checked, next_seq_min);
            let disk = Arc::new(logyard_wal::RealDisk);
            let folder = folder.join("queue");
            let queue = EmbeddedQueue::open_blocking(disk, &folder, options, metrics)?;
            let next = queue.backlog().end.next_seq(0);
            store.positions_begin(Position {
                partition: 0,
                seq: next,
            })?;
            Ok(Arc::new(queue))
        }
        (QueueKind::Memory, _) | (QueueKind::Embedded, None) => Ok(Arc::new(MemoryQueue::new(
            options::memory_queue(&checked.settings),
        ))),
        (QueueKind::Kafka, _) => {
            let options = options::kafka_queue(checked, consuming(checked.store));
            let stored = store.durable();
            Ok(Arc::new(KafkaQueue::open_blocking(
                options, stored, metrics,
            )?))
        }
    }
}

/// A store inside this process takes all partitions; processes that share a store share them.
fn consuming(store: StoreKind) -> Consuming {
    match store {
        StoreKind::Embedded | StoreKind::Memory => Consuming::Assigned,
        StoreKind::Elasticsearch => Consuming::Group,
    }
}

/// The one place that chooses a cache.
fn open_cache(checked: &Checked, metrics: &Arc<Metrics>) -> Result<Arc<dyn Cache>> {
    Ok(match &checked.cache {
        CacheKind::InProcess => {
            Arc::new(InProcessCache::new(checked.settings.cache.size_bytes_max))
        }
        CacheKind::Off => Arc::new(NoCache),
        CacheKind::Redis(url) => Arc::new(RedisCache::start(
            options::redis(&checked.settings, url)?,
            metrics.clone(),
        )),
    })
}

/// What the handlers work with.
struct Parts {
    queue: Arc<dyn Queue>,
    store: Arc<dyn Store>,
    cache: Arc<dyn Cache>,
    /// Only with its role.
    indexer: Option<Arc<Indexer>>,
    metrics: Arc<Metrics>,
    leaving: CancellationToken,
}

fn router(checked: &Checked, address: SocketAddr, parts: &Parts) -> Router {
    let Parts {
        queue,
        store,
        cache,
        indexer,
        metrics,
        leaving,
    } = parts;
    let settings = &checked.settings;
    let searcher = Arc::new(Searcher::new(
        store.clone(),
        queue.clone(),
        cache.clone(),
        metrics.clone(),
        options::search(settings),
    ));
    let api_state = ApiState {
        queue: queue.clone(),
        store: store.clone(),
        searcher,
        metrics: metrics.clone(),
        leaving: leaving.clone(),
        degraded: {
            let indexer = indexer.clone();
            Box::new(move || {
                let paused = indexer.as_ref().and_then(|indexer| indexer.status().paused);
                paused
                    .map(|why| format!("the indexer waits: {why}"))
                    .into_iter()
                    .collect()
            })
        },
        identity: identity(checked),
        options: options::api(settings),
    };
    let api_state = Arc::new(api_state);
    let (mut routes, known_paths) = if checked.has_role(Role::Api) {
        let intake_state = IntakeState::new(
            queue.clone(),
            store.clone(),
            metrics.clone(),
            options::intake(settings),
        );
        let paths = api::ROUTES.iter().map(|route| route.path);
        let paths = paths.chain(["/dead-letters/replay", "/ui"]).collect();
        let routes = api::router(api_state).merge(intake::routes(intake_state));
        (routes, paths)
    } else {
        (api::health_router(api_state), api::HEALTH_PATHS.to_vec())
    };
    if checked.has_role(Role::Ui) {
        routes = routes.merge(ui::routes());
    }
    let edge = Edge {
        allowed_hosts: address
            .ip()
            .is_loopback()
            .then(|| settings.http.allowed_hosts.clone()),
        compression_min_bytes: settings.http.compression_min_bytes,
        known_paths,
        metrics: metrics.clone(),
    };
    edge::wrap(routes, edge)
}

fn identity(checked: &Checked) -> Identity {
    let names = [
        (Role::Api, "api"),
        (Role::Indexer, "indexer"),
        (Role::Cleaner, "cleaner"),
        (Role::Ui, "ui"),
    ];
    Identity {
        version: env!("CARGO_PKG_VERSION"),
        started: Instant::now(),
        started_ns: retention::now_ns(),
        roles: names
            .into_iter()
            .filter(|(role, _)| checked.has_role(*role))
            .map(|(_, name)| name)
            .collect(),
        queue_kind: match checked.queue {
            QueueKind::Embedded => "embedded",
            QueueKind::Memory => "memory",
            QueueKind::Kafka => "kafka",
        },
        store_kind: match checked.store {
            StoreKind::Embedded => "embedded",
            StoreKind::Memory => "memory",
            StoreKind::Elasticsearch => "elasticsearch",
        },
        cache_kind: match &checked.cache {
            CacheKind::InProcess => "in-process",
            CacheKind::Off => "off",
            CacheKind::Redis(_) => "redis",
        },
        data_dir: checked
            .data_dir
            .as_ref()
            .map(|path| path.display().to_string()),
        memory_budget: options::memory_budget(checked),
    }
}

/// Carries what is queued into the store, where that is this process's role.
fn start_indexer(
    checked: &Checked,
    queue: &Arc<dyn Queue>,
    store: &Arc<dyn Store>,
    cache: &Arc<dyn Cache>,
    metrics: &Arc<Metrics>,
) -> Option<Arc<Indexer>> {
    checked.has_role(Role::Indexer).then(|| {
        Arc::new(Indexer::start(
            queue.clone(),
            store.clone(),
            cache.clone(),
            options::indexer(&checked.settings),
            metrics.clone(),
        ))
    })
}

/// Drops what is too old, beside the requests; a panic of it is seen when it is stopped.
fn start_cleaner(
    checked: &Checked,
    store: &Arc<dyn Store>,
    metrics: &Arc<Metrics>,
    stop: &CancellationToken,
) -> JoinHandle<()> {
    let options = match checked.has_role(Role::Cleaner) {
        true => options::retention(checked),
        false => RetentionOptions::default(),
    };
    tokio::spawn(retention::run(
        store.clone(),
        metrics.clone(),
        options,
        stop.clone(),
    ))
}

/// The first signal asks for the stop, the second ends the process at once: what was acknowledged is durable all the same.
fn spawn_signal_watch(leaving: CancellationToken) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    tokio::spawn(async move {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        tracing::info!(signal = name, "stopping");
        leaving.cancel();
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::warn!("second signal: ending at once");
        std::process::exit(130);
    });
    Ok(())
}

/// Tells people and scripts where the server is. The first line is for scripts, too: it stays as it is.
fn announce(address: SocketAddr) {
    let mut out = std::io::stdout().lock();
    // A closed standard output is no reason not to serve.
    let _ = writeln!(
        out,
        "Logyard {} listens on http://{address}\n\n  page    http://{address}/ui\n  write   curl -d 'hello from curl' http://{address}/logs\n  \
         search  curl 'http://{address}/logs?q=hello'\n",
        env!("CARGO_PKG_VERSION")
    );
    let _ = out.flush();
    tracing::info!(%address, version = env!("CARGO_PKG_VERSION"), "ready");
}
