//! The cache on real Redis servers, and what becomes of it when they misbehave.

#[path = "../../../tests/sandbox/redis_server.rs"]
mod redis_server;

use std::time::Instant;

use self::redis_server::{Certificates, RedisServer, SlowProxy, dev_redis, start_cluster};
use super::*;
use crate::cache::contract;

const LONG: Duration = Duration::from_secs(60);
const BUDGET: Duration = Duration::from_millis(50);
/// The tests share two cores.
const SLACK: Duration = Duration::from_millis(400);
const KEY: CacheKey = CacheKey {
    question: 0xABC,
    version: 9,
};
const DAY: Days = Days::Named {
    first: 20_000,
    last: 20_000,
};

fn options(port: u16) -> RedisOptions {
    RedisOptions {
        addresses: vec![("127.0.0.1".to_owned(), port)],
        prefix: format!("test-{:016x}", rand::random::<u64>()),
        reconnect_max: Duration::from_millis(200),
        ..RedisOptions::default()
    }
}

fn start(options: &RedisOptions) -> RedisCache {
    RedisCache::start(options.clone(), Arc::new(Metrics::new()))
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "not so in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn started(options: &RedisOptions) -> RedisCache {
    let cache = start(options);
    until("connected", || cache.is_connected()).await;
    cache
}

async fn put(cache: &RedisCache, key: CacheKey, days: Days, answer: &'static [u8]) {
    let stamp = cache.get(key, days).await.stamp;
    cache
        .put(key, stamp, Bytes::from_static(answer), LONG)
        .await;
}

async fn get(cache: &RedisCache, key: CacheKey, days: Days) -> Option<Bytes> {
    cache.get(key, days).await.answer
}

/// Puts until a get finds it: right after a fault the first calls may fail.
async fn works_again(cache: &RedisCache) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        put(cache, KEY, DAY, b"again").await;
        if get(cache, KEY, DAY).await.as_deref() == Some(b"again") {
            return;
        }
        assert!(Instant::now() < deadline, "the cache does not work again");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Many calls while Redis gives no answer: each within the budget, and soon none waits any more.
async fn check_silence(cache: &RedisCache) {
    let started = Instant::now();
    for _ in 0..50 {
        let call = Instant::now();
        let looked = cache.get(KEY, DAY).await;
        cache
            .put(KEY, looked.stamp, Bytes::from_static(b"x"), LONG)
            .await;
        assert_eq!(looked.answer, None);
        let took = call.elapsed();
        assert!(took < BUDGET + SLACK, "a call took {took:?}");
    }
    let took = started.elapsed();
    assert!(took < 4 * BUDGET + 2 * SLACK, "50 calls took {took:?}");
    assert!(!cache.is_connected());
    assert!(cache.problem().unwrap().contains("50 ms"));
}

#[tokio::test]
#[ignore = "needs real servers: scripts/dev-stack up, then scripts/test"]
async fn one_server_keeps_the_contract() {
    let (host, port) = dev_redis();
    let options = RedisOptions {
        addresses: vec![(host, port)],
        ..options(port)
    };
    contract::check(&started(&options).await).await;
}

#[tokio::test]
#[ignore = "needs real servers: scripts/dev-stack up, then scripts/test"]
async fn a_database_of_its_own_and_figures() {
    let server = RedisServer::start(&[]);
    let mut options = options(server.port);
    options.database = 3;
    let cache = started(&options).await;
    put(&cache, KEY, DAY, b"x").await;
    assert_eq!(server.keys("*").len(), 0, "database 0 is empty");
    assert!(
        server.cli(&["-n", "3", "DBSIZE"]).contains('3'),
        "value and two marks"
    );
    for key in server.cli(&["-n", "3", "KEYS", "*"]).lines() {
        assert!(key.starts_with(&options.prefix), "{key}");
        let life_ms: i64 = server
            .cli(&["-n", "3", "PTTL", key])
            .trim()
            .parse()
            .unwrap();
        assert!(0 < life_ms, "{key} lives for ever");
    }
    until("the figures", || 0 < cache.stats().size_bytes).await;
}

#[tokio::test]
#[ignore = "needs real servers: scripts/dev-stack up, then scripts/test"]
async fn processes_share_answers_and_raises() {
    let server = RedisServer::start(&[]);
    let options = options(server.port);
    let (a, b) = (started(&options).await, started(&options).await);
    put(&a, KEY, DAY, b"shared").await;
    assert_eq!(get(&b, KEY, DAY).await.as_deref(), Some(&b"shared"[..]));
    b.raise(&[19_999]).await;
    assert_eq!(get(&a, KEY, DAY).await.as_deref(), Some(&b"shared"[..]));
    b.raise(&[20_000]).await;
    assert_eq!(get(&a, KEY, DAY).await, None);
    assert_eq!(get(&b, KEY, DAY).await, None);
}

#[tokio::test]
#[ignore = "needs real servers: scripts/dev-stack up, then scripts/test"]
async fn a_stopped_server_costs_little_and_is_used_again() {
    let server = RedisServer::start(&[]);
    let cache = started(&options(server.port)).await;
    put(&cache, KEY, DAY, b"x").await;
    server.signal("STOP");
    check_silence(&cache).await;
    server.signal("CONT");
    works_again(&cache).await;
    assert_eq!(cache.problem(), None);
}

#[tokio::test]
#[ignore = "needs real servers: scripts/dev-stack up, then scripts/test"]
async fn a_paused_server_costs_little_and_is_used_again() {
    let server = RedisServer::start(&[]);
    let cache = started(&options(server.port)).await;
    server.cli(&["CLIENT", "PAUSE", "1500", "ALL"]);
    check_silence(&cache).await;
    works_again(&cache).await;
}

#[tokio::test]
#[ignore = "needs real servers: scripts/dev-stack up, then scripts/test"]
async fn a_killed_server_is_found_again_empty() {
    let mut server = RedisServer::start(&[]);
    let cache = started(&options(server.port)).await;
    put(&cache, KEY, DAY, b"x").await;
    server.kill();
    for _ in 0..20 {
        let call = Instant::now();
        assert_eq!(get(&cache, KEY, DAY).await, None);
        cache.raise(&[20_000, 20_001]).await;
        assert!(call.elapsed() < BUDGET + SLACK);
    }
    until("noticed", || cache.problem().is_some()).await;
    server.start_again();
    works_again(&cache).await;
}

#[tokio::test]
#[ignore = "needs real servers: scripts/dev-stack up, then scripts/test"]
async fn without_a_server_at_the_start_it_connects_later() {
    let mut server = RedisServer::start(&[]);
    server.kill();
    let cache = start(&options(server.port));
    assert_eq!(get(&cache, KEY, DAY).await, None);
    until("noticed", || cache.problem().is_some()).await;
    server.start_again();
    works_again(&cache).await;
}

#[tokio::test]
#[ignore = "needs real servers: scripts/dev-stack up, then scripts/test"]
async fn a_raise_that_fails_is_made_up_for_before_anything_is_read() {
    let server = RedisServer::start(&[]);
    let proxy = SlowProxy::to(server.port);
    let direct = options(server.port);
    let through = RedisOptions {
        addresses: vec![("127.0.0.1".to_owned(), proxy.port)],
        ..direct.clone()
    };
    let (reader, writer) = (started(&direct).await, started(&through).await);
    put(&reader, KEY, DAY, b"before").await;
    proxy.hold();
    let call = Instant::now();
    writer.raise(&[20_000]).await;
    assert!(call.elapsed() < BUDGET + SLACK);
    // The key's version is what bounds this.
    assert_eq!(
        get(&reader, KEY, DAY).await.as_deref(),
        Some(&b"before"[..])
    );
    for _ in 0..5 {
        writer.raise(&[20_005]).await;
    }
    assert!(!writer.is_connected());
    let pending = || writer.shared.metrics.cache.remote.pending_raises.get();
    assert_eq!(pending(), 2);
    proxy.set_delay(Duration::ZERO);
    until("connected again", || writer.is_connected()).await;
    assert_eq!(get(&reader, KEY, DAY).await, None);
    assert_eq!(pending(), 0);
}

#[tokio::test]
#[ignore = "needs real servers: scripts/dev-stack up, then scripts/test"]
async fn a_slow_server_is_used_within_the_budget_and_left_beyond_it() {
    let server = RedisServer::start(&[]);
    let proxy = SlowProxy::to(server.port);
    proxy.set_delay(Duration::from_millis(5));
    let cache = started(&options(proxy.port)).await;
    works_again(&cache).await;
    proxy.set_delay(Duration::from_millis(120));
    check_silence(&cache).await;
    proxy.set_delay(Duration::ZERO);
    works_again(&cache).await;
}

#[tokio::test]
#[ignore = "needs real servers: scripts/dev-stack up, then scripts/test"]
async fn a_full_server_is_read_and_told_of_writes() {
    let server = RedisServer::start(&["--maxmemory-policy", "noeviction"]);
    let cache = started(&options(server.port)).await;
    put(&cache, KEY, DAY, b"kept").await;
    server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    assert!(server.cli(&["SET", "other", "x"]).contains("OOM"));
    let other = CacheKey { question: 2, ..KEY };
    put(&cache, other, DAY, b"no room").await;
    assert_eq!(get(&cache, other, DAY).await, None);
    assert_eq!(get(&cache, KEY, DAY).await.as_deref(), Some(&b"kept"[..]));
    for _ in 0..10 {
        put(&cache, other, DAY, b"no room").await;
    }
    assert!(cache.is_connected(), "a full memory is no reason to leave");
    cache.raise(&[20_000]).await;
    let looked = cache.get(KEY, DAY).await;
    assert_eq!((looked.answer, looked.stamp), (None, Stamp(None)));
    server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    works_again(&cache).await;

    // One that makes room by itself forgets marks as well: nothing old comes back.
    put(&cache, KEY, DAY, b"old").await;
    for key in server.keys("*:day:*") {
        server.cli(&["DEL", &key]);
    }
    assert_eq!(get(&cache, KEY, DAY).await, None);
}

#[tokio::test]
#[ignore = "needs real servers: scripts/dev-stack up, then scripts/test"]
async fn what_others_wrote_under_our_keys_is_a_miss() {
    let server = RedisServer::start(&[]);
    let cache = started(&options(server.port)).await;
    put(&cache, KEY, DAY, b"ours").await;
    let value_key = cache.key_of(KEY);
    let garbage = || cache.shared.metrics.cache.remote.garbage_values.get();

    let huge = vec![b'x'; 3 << 20];
    let mut count = 0;
    for bytes in [&b"hello"[..], b"LYC\x01", &[0xFF; 60], &huge] {
        server.set_raw(&value_key, bytes);
        assert_eq!(get(&cache, KEY, DAY).await, None);
        count += 1;
        assert_eq!(garbage(), count);
        works_again(&cache).await;
        count = garbage();
    }
    // A value of another question.
    let other = CacheKey { question: 5, ..KEY };
    put(&cache, other, DAY, b"another").await;
    server.cli(&["COPY", &cache.key_of(other), &value_key, "REPLACE"]);
    assert_eq!(get(&cache, KEY, DAY).await, None);

    server.cli(&["DEL", &value_key]);
    server.cli(&["LPUSH", &value_key, "a", "b"]);
    assert_eq!(get(&cache, KEY, DAY).await, None);
    works_again(&cache).await;

    for key in server.keys("*:day:*") {
        server.cli(&["DEL", &key]);
        server.cli(&["HSET", &key, "a", "b"]);
    }
    assert_eq!(get(&cache, KEY, DAY).await, None);
    works_again(&cache).await;
    for key in server.keys("*:day:*") {
        server.cli(&["SET", &key, "too short"]);
    }
    assert_eq!(get(&cache, KEY, DAY).await, None);
    works_again(&cache).await;
    cache.raise(&[20_000]).await;
    assert_eq!(get(&cache, KEY, DAY).await, None);
    assert!(cache.is_connected());
}

#[tokio::test]
#[ignore = "needs real servers: scripts/dev-stack up, then scripts/test"]
async fn large_answers_are_not_kept() {
    let server = RedisServer::start(&[]);
    let mut options = options(server.port);
    options.value_bytes_max = 1_000;
    let cache = started(&options).await;
    let stamp = cache.get(KEY, DAY).await.stamp;
    cache
        .put(KEY, stamp, Bytes::from(vec![1; 1_001]), LONG)
        .await;
    assert_eq!(get(&cache, KEY, DAY).await, None);
    cache
        .put(KEY, stamp, Bytes::from(vec![1; 1_000]), LONG)
        .await;
    assert_eq!(get(&cache, KEY, DAY).await.map(|a| a.len()), Some(1_000));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs real servers: scripts/dev-stack up, then scripts/test"]
async fn a_cluster_keeps_the_contract_and_lives_without_a_node() {
    let mut servers = start_cluster();
    let options = RedisOptions {
        topology: RedisTopology::Cluster,
        ..options(servers[0].port)
    };
    let cache = started(&options).await;
    contract::check(&cache).await;
    let keys = |n: u128| CacheKey {
        question: n << 60,
        version: 1,
    };
    for n in 0..60 {
        put(&cache, keys(n), Days::Any, b"spread").await;
    }
    let counts = servers
        .iter()
        .map(|server| server.keys("*:answer:*").len())
        .collect::<Vec<_>>();
    assert!(counts.iter().all(|count| 5 < *count), "{counts:?}");
    until("the figures", || 60 < cache.stats().entries).await;

    // Hung and then dead: answers that lie elsewhere or nowhere, never a wait beyond the budget.
    servers[2].signal("STOP");
    for n in 0..60 {
        let call = Instant::now();
        let found = get(&cache, keys(n), Days::Any).await;
        assert!(matches!(found.as_deref(), None | Some(b"spread")));
        assert!(call.elapsed() < BUDGET + SLACK);
    }
    servers[2].kill();
    for n in 0..60 {
        let call = Instant::now();
        cache.get(keys(n), Days::Any).await;
        assert!(call.elapsed() < BUDGET + SLACK);
    }
    servers[2].start_again();
    works_again(&cache).await;
}

/// What the sentinel is to do with the master on this port.
fn watching(master: u16) -> String {
    format!(
        "sentinel monitor yard 127.0.0.1 {master} 1\nsentinel auth-pass yard \"data pass\"\n\
         sentinel down-after-milliseconds yard 500\nsentinel failover-timeout yard 3000"
    )
}

/// The cache through a sentinel, before and after the master is killed.
async fn check_fail_over(
    mut master: RedisServer,
    replica: &RedisServer,
    sentinel: &RedisServer,
    ca_pem: Option<Vec<u8>>,
) {
    until("replicating", || {
        replica
            .cli(&["INFO", "replication"])
            .contains("master_link_status:up")
    })
    .await;
    let options = RedisOptions {
        topology: RedisTopology::Sentinel {
            master: "yard".to_owned(),
        },
        is_tls: ca_pem.is_some(),
        ca_pem,
        password: Some("data pass".to_owned()),
        sentinel_password: Some("sentinel pass".to_owned()),
        ..options(sentinel.port)
    };
    until("the sentinel knows the replica", || {
        sentinel
            .cli(&["SENTINEL", "REPLICAS", "yard"])
            .contains(&replica.port.to_string())
    })
    .await;
    let cache = started(&options).await;
    contract::check(&cache).await;
    assert!(!master.keys(&format!("{}*", options.prefix)).is_empty());

    master.kill();
    works_again(&cache).await;
    let role = replica.cli(&["ROLE"]);
    assert!(role.starts_with("master"), "{role}");
    assert!(!replica.keys(&format!("{}*", options.prefix)).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs real servers: scripts/dev-stack up, then scripts/test"]
async fn sentinels_lead_to_the_master_and_to_the_next_one() {
    let login = ["--no-auth-warning", "-a", "data pass"];
    let flags = ["--requirepass", "data pass", "--masterauth", "data pass"];
    let master = RedisServer::start_with(&flags, &login);
    let of_master = format!("127.0.0.1 {}", master.port);
    let as_replica = [&flags[..], &["--replicaof", &of_master]].concat();
    let replica = RedisServer::start_with(&as_replica, &login);
    let sentinel = RedisServer::start_sentinel(
        &format!("requirepass \"sentinel pass\"\n{}", watching(master.port)),
        &["--no-auth-warning", "-a", "sentinel pass"],
    );
    check_fail_over(master, &replica, &sentinel, None).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs real servers: scripts/dev-stack up, then scripts/test"]
async fn sentinels_and_what_they_watch_may_speak_tls_alone() {
    let certificates = Certificates::make();
    let login = ["--masterauth", "data pass"];
    let master = certificates.start_replicating("data pass", &login);
    let of_master = format!("127.0.0.1 {}", master.port);
    let as_replica = [&login[..], &["--replicaof", &of_master]].concat();
    let replica = certificates.start_replicating("data pass", &as_replica);
    let sentinel = certificates.start_sentinel("sentinel pass", &watching(master.port));
    let ca_pem = Some(certificates.ca_pem());
    check_fail_over(master, &replica, &sentinel, ca_pem).await;
}

#[tokio::test]
#[ignore = "needs real servers: scripts/dev-stack up, then scripts/test"]
async fn tls_and_a_password_are_needed_where_the_server_wants_them() {
    let certificates = Certificates::make();
    let server = certificates.start_server("p@ss word");
    let good = RedisOptions {
        is_tls: true,
        password: Some("p@ss word".to_owned()),
        ca_pem: Some(certificates.ca_pem()),
        ..options(server.port)
    };
    contract::check(&started(&good).await).await;

    let user = [
        "ACL", "SETUSER", "yard", "on", ">secret", "~test-*", "+@all",
    ];
    assert_eq!(server.cli(&user).trim(), "OK");
    let as_user = RedisOptions {
        user: Some("yard".to_owned()),
        password: Some("secret".to_owned()),
        ..good.clone()
    };
    contract::check(&started(&as_user).await).await;

    let servers = certificates.start_cluster("cluster pass");
    let cluster = RedisOptions {
        topology: RedisTopology::Cluster,
        password: Some("cluster pass".to_owned()),
        ..RedisOptions {
            addresses: vec![("127.0.0.1".to_owned(), servers[1].port)],
            ..good.clone()
        }
    };
    contract::check(&started(&cluster).await).await;

    let wrong_password = RedisOptions {
        password: Some("wrong".to_owned()),
        ..good.clone()
    };
    let other_authority = RedisOptions {
        ca_pem: Some(Certificates::make().ca_pem()),
        ..good.clone()
    };
    let no_tls = RedisOptions {
        is_tls: false,
        ca_pem: None,
        ..good.clone()
    };
    for (options, what) in [
        (wrong_password, "authentication"),
        (other_authority, "certificate"),
        (no_tls, ""),
    ] {
        let cache = start(&options);
        until("refused", || cache.problem().is_some()).await;
        let problem = cache.problem().unwrap();
        assert!(
            problem.to_lowercase().contains(&what.to_lowercase()),
            "{problem}"
        );
        assert!(!problem.contains("p@ss"), "{problem}");
        assert!(!cache.is_connected());
        assert_eq!(get(&cache, KEY, DAY).await, None);
    }
}
