//! What every cache that remembers at all must do; run by each implementation.

use std::time::Duration;

use bytes::Bytes;

use crate::cache::{Cache, CacheKey, Days};

const LONG: Duration = Duration::from_secs(60);
const KEY: CacheKey = CacheKey {
    question: 1,
    version: 1,
};

/// Looks, and puts under the stamp that was found, as a question would.
async fn put(cache: &dyn Cache, key: CacheKey, days: Days, answer: &'static [u8], ttl: Duration) {
    let stamp = cache.get(key, days).await.stamp;
    assert!(stamp.0.is_some(), "a cache at work knows its stamp");
    cache.put(key, stamp, Bytes::from_static(answer), ttl).await;
}

async fn get(cache: &dyn Cache, key: CacheKey, days: Days) -> Option<Bytes> {
    cache.get(key, days).await.answer
}

/// `cache` is empty and has room for a few kilobytes.
pub async fn check(cache: &dyn Cache) {
    let any = Days::Any;
    assert_eq!(get(cache, KEY, any).await, None);

    put(cache, KEY, any, b"one", LONG).await;
    assert_eq!(get(cache, KEY, any).await.as_deref(), Some(&b"one"[..]));

    let newer = CacheKey { version: 2, ..KEY };
    let other = CacheKey { question: 2, ..KEY };
    assert_eq!(
        get(cache, newer, any).await,
        None,
        "another version is another answer"
    );
    assert_eq!(get(cache, other, any).await, None, "another question too");

    put(cache, KEY, any, b"replaced", LONG).await;
    assert_eq!(
        get(cache, KEY, any).await.as_deref(),
        Some(&b"replaced"[..])
    );

    put(cache, other, any, b"brief", Duration::from_millis(20)).await;
    tokio::time::sleep(Duration::from_millis(60)).await;
    assert_eq!(get(cache, other, any).await, None, "past its time to live");
    assert_eq!(
        get(cache, KEY, any).await.as_deref(),
        Some(&b"replaced"[..])
    );

    put(cache, newer, any, b"", LONG).await;
    assert_eq!(
        get(cache, newer, any).await.as_deref(),
        Some(&b""[..]),
        "an empty answer is an answer"
    );
    check_raises(cache).await;
}

/// A raise takes away what its days are about, and nothing else; one that heeds none may keep everything.
async fn check_raises(cache: &dyn Cache) {
    let key = |question| CacheKey {
        question,
        version: 7,
    };
    let days = |first, last| Days::Named { first, last };
    let questions = [
        (key(10), days(100, 100)),
        (key(11), days(101, 103)),
        (key(12), Days::Any),
    ];
    for (key, days) in questions {
        put(cache, key, days, b"before", LONG).await;
    }
    cache.raise(&[102, 300]).await;
    assert_eq!(
        get(cache, key(10), days(100, 100)).await.as_deref(),
        Some(&b"before"[..]),
        "its day was not written"
    );
    if !cache.heeds_raises() {
        return;
    }
    assert_eq!(get(cache, key(11), days(101, 103)).await, None);
    assert_eq!(get(cache, key(12), Days::Any).await, None);

    // An answer from before a raise stays unseen, however late it is put.
    let late = cache.get(key(13), days(102, 102)).await.stamp;
    cache.raise(&[102]).await;
    cache
        .put(key(13), late, Bytes::from_static(b"late"), LONG)
        .await;
    assert_eq!(get(cache, key(13), days(102, 102)).await, None);

    // More days than can be named raise everything.
    let many: Vec<i64> = (1_000..2_000).collect();
    cache.raise(&many).await;
    assert_eq!(get(cache, key(10), days(100, 100)).await, None);
    put(cache, key(10), days(100, 100), b"after", LONG).await;
    assert_eq!(
        get(cache, key(10), days(100, 100)).await.as_deref(),
        Some(&b"after"[..])
    );
}
