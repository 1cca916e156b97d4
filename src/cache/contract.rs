//! What every cache that remembers at all must do; run by each implementation.

use std::time::Duration;

use bytes::Bytes;

use crate::cache::{Cache, CacheKey};

/// `cache` is empty and has room for a few kilobytes.
pub async fn check(cache: &dyn Cache) {
    let long = Duration::from_secs(60);
    let key = CacheKey {
        question: 1,
        version: 1,
    };
    assert_eq!(cache.get(key).await, None);

    cache.put(key, Bytes::from_static(b"one"), long).await;
    assert_eq!(cache.get(key).await.as_deref(), Some(&b"one"[..]));

    let newer = CacheKey { version: 2, ..key };
    let other = CacheKey { question: 2, ..key };
    assert_eq!(
        cache.get(newer).await,
        None,
        "another version is another answer"
    );
    assert_eq!(cache.get(other).await, None, "another question too");

    cache.put(key, Bytes::from_static(b"replaced"), long).await;
    assert_eq!(cache.get(key).await.as_deref(), Some(&b"replaced"[..]));

    cache
        .put(
            other,
            Bytes::from_static(b"brief"),
            Duration::from_millis(20),
        )
        .await;
    tokio::time::sleep(Duration::from_millis(60)).await;
    assert_eq!(cache.get(other).await, None, "past its time to live");
    assert_eq!(cache.get(key).await.as_deref(), Some(&b"replaced"[..]));

    cache.put(newer, Bytes::new(), long).await;
    assert_eq!(
        cache.get(newer).await.as_deref(),
        Some(&b""[..]),
        "an empty answer is an answer"
    );
}
