//! The naive store keeps the contract, and refuses when it is full.

use super::*;
use crate::record::{BatchBuilder, Flags, ValueRef};
use crate::store::contract;

#[tokio::test(flavor = "multi_thread")]
async fn keeps_the_contract() {
    contract::check(|| async { Arc::new(MemoryStore::new(MemoryStoreOptions::default())) as _ })
        .await;
}

#[tokio::test]
async fn refuses_when_it_is_full_and_has_room_after_a_clean_up() {
    let store = MemoryStore::new(MemoryStoreOptions {
        size_bytes_max: 10_000,
        ..MemoryStoreOptions::default()
    });
    let batch = |seq: u64| {
        let mut builder = BatchBuilder::new(0);
        builder.begin_record();
        builder.field("message", ValueRef::Str(&"x".repeat(2_000)));
        builder.end_record(0, 0, Flags::default());
        QueuedBatch {
            first: Position { partition: 0, seq },
            batch: builder.finish(),
        }
    };
    let mut seq = 0;
    let error = loop {
        match store.write(vec![batch(seq)]).await {
            Ok(()) => seq += 1,
            Err(error) => break error,
        }
    };
    assert!((3..=4).contains(&seq), "{seq}");
    assert_eq!(error.code, "store_full");
    assert_eq!(store.usage().await.unwrap().records, seq);
    let rules = RetentionRules {
        size_bytes_max: Some(5_000),
        ..RetentionRules::default()
    };
    let report = store.expire(rules, 0, false).await.unwrap();
    assert_eq!(report.records, seq - 2);
    store.write(vec![batch(seq)]).await.unwrap();
}
