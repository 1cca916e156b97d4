//! The indexer into Elasticsearch beside the bulk limit of the same server: the same documents, made before, posted in the same sizes. Both in one run, in
//! turn; Logyard's processor time for each GB of lines; the disk of the index modes.
//!
//! `scripts/dev-stack up --only search && export $(scripts/dev-stack env)`, then
//! `cargo bench --bench elasticsearch_index -- [app|access|wide|repetitive|FILE.ndjson] [MB] [--sizes]`
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a broken bench should stop"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

mod machine;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use logyard::record::{EntryRef, Position, QueuedBatch, RecordKey};
use logyard::store::Store;
use logyard::store::elasticsearch::address::Address;
use logyard::store::elasticsearch::client::{ClientOptions, Method};
use logyard::store::elasticsearch::document::{BatchKeys, Entry, Scratch, push_document};
use logyard::store::elasticsearch::names::index_of;
use logyard::store::elasticsearch::{
    ElasticsearchOptions, ElasticsearchStore, Inner, QueueIdentity,
};
use machine::{Cpu, START_NS, bodies, decode};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A request's worth of lines.
const BODY_BYTES: usize = 1 << 20;
/// What the indexer hands over at once.
const PORTION_BYTES: usize = 8 << 20;
const ROUNDS: usize = 3;
const BULK: &str = "/_bulk?require_alias=true&filter_path=errors,items.*.status,items.*.error";

fn main() {
    let args: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    let mut plain = args.iter().filter(|a| !a.starts_with("--"));
    let input = plain.next().map_or("app", String::as_str);
    let megabytes: usize = plain.next().map_or(64, |a| a.parse().unwrap());
    let bodies = bodies(input, megabytes << 20, BODY_BYTES);
    let n_bytes: usize = bodies.iter().map(Vec::len).sum();
    let (batches, _) = decode(&bodies);
    let n_lines: u64 = batches
        .iter()
        .map(|queued| u64::from(queued.batch.len()))
        .sum();
    println!("{input}: {n_lines} lines, {:.1} MB", n_bytes as f64 / 1e6);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let gigabytes = n_bytes as f64 / 1e9;
    runtime.block_on(async {
        match args.iter().any(|a| a == "--sizes") {
            true => sizes(&batches, gigabytes).await,
            false => compare(&batches, n_lines, gigabytes).await,
        }
    });
}

async fn compare(batches: &[QueuedBatch], n_lines: u64, gigabytes: f64) {
    let start = Cpu::now();
    let made = documents(&options(), batches).await;
    println!(
        "making the documents alone: {:.2} CPU-s/GB of lines",
        start.elapsed().as_secs_f64() / gigabytes
    );
    clean(&made.inner).await;
    drop(made);
    // The server compiles itself while it works.
    index(&options(), batches).await;
    let mut ratios = Vec::new();
    for round in 1..=ROUNDS {
        let (limit, n_documents_bytes) = limit(batches).await;
        let indexed = index(&options(), batches).await;
        let ratio = limit.as_secs_f64() / indexed.wall.as_secs_f64();
        ratios.push(ratio);
        println!(
            "round {round}: bulk limit {:.0} lines/s ({:.1} MB of documents a second); indexer {:.0} lines/s, {ratio:.2} of it; {:.2} CPU-s/GB of lines; documents are {:.2} x the lines",
            n_lines as f64 / limit.as_secs_f64(),
            n_documents_bytes as f64 / 1e6 / limit.as_secs_f64(),
            n_lines as f64 / indexed.wall.as_secs_f64(),
            indexed.cpu.as_secs_f64() / gigabytes,
            n_documents_bytes as f64 / 1e9 / gigabytes,
        );
    }
    ratios.sort_by(f64::total_cmp);
    println!("indexer / bulk limit, median: {:.2}", ratios[ROUNDS / 2]);
}

struct Indexed {
    wall: Duration,
    cpu: Duration,
}

/// As the indexer does it: portion after portion, each searchable and noted before the next.
async fn index(options: &ElasticsearchOptions, batches: &[QueuedBatch]) -> Indexed {
    let store = ElasticsearchStore::connect(options.clone()).await.unwrap();
    let (cpu, wall) = (Cpu::now(), Instant::now());
    write(&store, batches).await;
    let indexed = Indexed {
        wall: wall.elapsed(),
        cpu: cpu.elapsed(),
    };
    clean(store.inner()).await;
    indexed
}

async fn write(store: &ElasticsearchStore, batches: &[QueuedBatch]) {
    let mut portion = Vec::new();
    let mut bytes = 0;
    for queued in batches {
        bytes += queued.batch.as_bytes().len();
        portion.push(queued.clone());
        if PORTION_BYTES <= bytes {
            store.write(std::mem::take(&mut portion)).await.unwrap();
            bytes = 0;
        }
    }
    store.write(portion).await.unwrap();
}

struct Made {
    inner: Arc<Inner>,
    bulks: Vec<Bytes>,
}

async fn documents(options: &ElasticsearchOptions, batches: &[QueuedBatch]) -> Made {
    let store = ElasticsearchStore::connect(options.clone()).await.unwrap();
    let inner = store.inner().clone();
    let name = index_of(&options.index_prefix, START_NS);
    let mut plan = inner.mappings.open(&inner, &name).await.unwrap();
    let mut scratch = Scratch::default();
    let mut bulks = Vec::new();
    let mut body = Vec::new();
    for queued in batches {
        let mut keys = BatchKeys::default();
        let mut leaves = Vec::new();
        for (seq, entry) in (queued.first.seq..).zip(queued.batch.entries()) {
            let EntryRef::Record(record) = entry else {
                continue;
            };
            let of = Entry {
                record,
                key: RecordKey {
                    timestamp_ns: record.timestamp_ns,
                    position: Position { partition: 0, seq },
                },
                arrival_ns: START_NS,
                has_at_timestamp: plan.has_at_timestamp(),
            };
            if !push_document(
                &mut body,
                &mut plan,
                &mut keys,
                &mut scratch,
                &mut leaves,
                &of,
            ) {
                inner.mappings.add_wanted(&inner, &mut plan).await.unwrap();
                assert!(push_document(
                    &mut body,
                    &mut plan,
                    &mut keys,
                    &mut scratch,
                    &mut leaves,
                    &of
                ));
            }
            if options.bulk_bytes_max <= body.len() {
                bulks.push(Bytes::from(std::mem::take(&mut body)));
            }
        }
    }
    bulks.push(Bytes::from(body));
    Made { inner, bulks }
}

/// The same bytes, as many requests at once, and one refresh at the end.
async fn limit(batches: &[QueuedBatch]) -> (Duration, usize) {
    let options = options();
    let made = documents(&options, batches).await;
    let n_bytes = made.bulks.iter().map(Bytes::len).sum();
    let inner = &made.inner;
    let started = Instant::now();
    futures::stream::iter(made.bulks)
        .map(|body| async move {
            let answer = inner.client.bulk(BULK, body, None).await.unwrap();
            assert!(answer.is_success(), "{}", answer.reason());
            Ok::<(), ()>(())
        })
        .buffer_unordered(options.bulks_in_flight_max)
        .try_collect::<()>()
        .await
        .unwrap();
    let path = format!("/{}/_refresh", options.pattern());
    inner.client.admin(Method::POST, &path, None).await.unwrap();
    let elapsed = started.elapsed();
    clean(inner).await;
    (elapsed, n_bytes)
}

async fn sizes(batches: &[QueuedBatch], gigabytes: f64) {
    for (name, codec, logsdb) in [
        ("standard", "default", false),
        ("best_compression", "best_compression", false),
        ("logsdb", "default", true),
    ] {
        let mut options = options();
        options.codec = codec.to_owned();
        options.logsdb = logsdb;
        let store = ElasticsearchStore::connect(options.clone()).await.unwrap();
        write(&store, batches).await;
        // Until the server has noted that no copy lags behind, a merge keeps all that was sent, for recovery.
        upkeep(&store, "_flush?").await;
        tokio::time::sleep(Duration::from_secs(70)).await;
        upkeep(&store, "_forcemerge?max_num_segments=1&flush=true&").await;
        upkeep(&store, "_refresh?").await;
        // The segments that were merged go in a moment.
        tokio::time::sleep(Duration::from_secs(3)).await;
        let bytes = store.usage().await.unwrap().disk_bytes;
        println!(
            "{name}: {:.1} MB on disk, {:.2} x the lines",
            bytes as f64 / 1e6,
            bytes as f64 / 1e9 / gigabytes
        );
        clean(store.inner()).await;
    }
}

/// `verb` ends so that a parameter may follow. There is no index of far times.
async fn upkeep(store: &ElasticsearchStore, verb: &str) {
    let inner = store.inner();
    let pattern = inner.options.pattern();
    let path = format!("/{pattern}/{verb}ignore_unavailable=true");
    let answer = inner.client.admin(Method::POST, &path, None).await.unwrap();
    let json = answer.expect(verb).unwrap();
    assert_ne!(json["_shards"]["successful"], 0, "{json}");
}

fn options() -> ElasticsearchOptions {
    let url = std::env::var("LOGYARD_DEV_SEARCH").expect(
        "run scripts/dev-stack up --only search and export what scripts/dev-stack env prints",
    );
    let url = match url.strip_prefix("https://") {
        Some(rest) => format!("elasticsearch+https://{rest}"),
        None => url.replacen("http://", "elasticsearch://", 1),
    };
    let mut client = ClientOptions::new(Address::parse(&url).unwrap());
    client.ca_file = std::env::var_os("LOGYARD_DEV_SEARCH_CA").map(Into::into);
    let name = format!("b{:x}", rand::random::<u32>());
    let mut options = ElasticsearchOptions::new(client, QueueIdentity(name.clone()));
    options.index_prefix = format!("{name}-logs-");
    options.state_prefix = format!("{name}-own-");
    options.replicas = 0;
    options
}

async fn clean(inner: &Inner) {
    for prefix in [&inner.options.index_prefix, &inner.options.state_prefix] {
        let found = inner
            .client
            .admin(Method::GET, &format!("/{prefix}*"), None)
            .await
            .unwrap();
        for (index, _) in found.json().unwrap().as_object().into_iter().flatten() {
            inner
                .client
                .admin(Method::DELETE, &format!("/{index}"), None)
                .await
                .unwrap();
        }
    }
    let name = logyard::store::elasticsearch::mapping::template_name(&inner.options);
    inner
        .client
        .admin(Method::DELETE, &format!("/_index_template/{name}"), None)
        .await
        .unwrap();
}
