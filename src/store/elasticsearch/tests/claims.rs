//! Copies of one data folder, used with the same indices: no line of either is lost silently.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::record::{Position, QueuedBatch, ValueRef};
use crate::store::Store;
use crate::store::contract::{NOON_NS, batch};
use crate::store::elasticsearch::ElasticsearchStore;
use crate::store::elasticsearch::claim::{Claim, USED_TWICE};
use crate::store::elasticsearch::tests::fake::Fake;

fn lines(first: u64, texts: &[&str]) -> Vec<QueuedBatch> {
    let fields: Vec<[(&str, ValueRef<'_>); 1]> = texts
        .iter()
        .map(|text| [("message", ValueRef::Str(text))])
        .collect();
    let lines: Vec<_> = fields.iter().map(|fields| (NOON_NS, &fields[..])).collect();
    vec![batch(first, NOON_NS, &lines)]
}

/// As `serve` opens a store and then a queue whose next position is `next`, or the store's checkpoint.
async fn open(fake: &Fake, folder: &Path, next: u64) -> Result<ElasticsearchStore, String> {
    let mut options = fake.options();
    options.client.first_byte_timeout = Duration::from_secs(10);
    options.claim = Some(Arc::new(Claim::open(folder).unwrap()));
    let store = ElasticsearchStore::connect(options)
        .await
        .map_err(|error| error.code.to_owned())?;
    let seq = next.max(store.durable().borrow().next_seq(0));
    let next = Position { partition: 0, seq };
    store.positions_begin(next).unwrap();
    Ok(store)
}

fn copy(from: &Path) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(from.join("CLAIM"), folder.path().join("CLAIM")).unwrap();
    folder
}

async fn refusal(store: &ElasticsearchStore, batches: Vec<QueuedBatch>) -> &'static str {
    store.write(batches).await.unwrap_err().code
}

fn messages(fake: &Fake) -> Vec<String> {
    let mut messages: Vec<String> = fake
        .records()
        .iter()
        .map(|record| record["message"].as_str().unwrap().to_owned())
        .collect();
    messages.sort();
    messages
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_killed_and_started_again_goes_on() {
    let fake = Fake::start().await;
    let folder = tempfile::tempdir().unwrap();
    let store = open(&fake, folder.path(), 0).await.unwrap();
    store.write(lines(0, &["a", "b"])).await.unwrap();
    store.write(lines(2, &["c"])).await.unwrap();
    drop(store);
    for round in 0..3 {
        let store = open(&fake, folder.path(), 3 + round).await.unwrap();
        // The last one is sent again, as after a crash.
        store.write(lines(2 + round, &["c", "d"])).await.unwrap();
    }
    assert_eq!(messages(&fake).len(), 6);
    // A checkpoint that was dropped is written anew.
    let store = open(&fake, folder.path(), 6).await.unwrap();
    fake.held.lock().indices.remove("logyard-state");
    fake.held.lock().writes.clear();
    store.write(lines(6, &["e"])).await.unwrap();
    assert_eq!(messages(&fake).len(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_whose_answer_was_lost_is_the_folders_own() {
    let fake = Fake::start().await;
    let folder = tempfile::tempdir().unwrap();
    drop(open(&fake, folder.path(), 0).await.unwrap());
    // Announced by a process that was killed: either outcome is taken over.
    let killed = Arc::new(Claim::open(folder.path()).unwrap());
    killed.announce().await.unwrap();
    drop(open(&fake, folder.path(), 0).await.unwrap());
    let killed = Arc::new(Claim::open(folder.path()).unwrap());
    killed.announce().await.unwrap();
    let id = "partition/logs-/fake/0";
    fake.held
        .lock()
        .indices
        .get_mut("logyard-state")
        .unwrap()
        .get_mut(id)
        .unwrap()["run"] = killed.run().into();
    let store = open(&fake, folder.path(), 0).await.unwrap();
    store.write(lines(0, &["a"])).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_copies_one_after_the_other_the_first_is_refused_later() {
    let fake = Fake::start().await;
    let original = tempfile::tempdir().unwrap();
    let store = open(&fake, original.path(), 0).await.unwrap();
    store.write(lines(0, &["a", "b"])).await.unwrap();
    drop(store);
    let copied = copy(original.path());
    let store = open(&fake, copied.path(), 2).await.unwrap();
    store.write(lines(2, &["of the copy"])).await.unwrap();
    drop(store);
    let refused = open(&fake, original.path(), 5).await.err();
    assert_eq!(refused.as_deref(), Some(USED_TWICE));
    let again = open(&fake, copied.path(), 3).await.unwrap();
    again.write(lines(3, &["more of it"])).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_copies_at_once_the_first_stops_writing() {
    let fake = Fake::start().await;
    let original = tempfile::tempdir().unwrap();
    let first = open(&fake, original.path(), 0).await.unwrap();
    first.write(lines(0, &["a", "b"])).await.unwrap();
    let copied = copy(original.path());
    let second = open(&fake, copied.path(), 2).await.unwrap();
    assert_eq!(
        refusal(&first, lines(2, &["of the first"])).await,
        USED_TWICE
    );
    second.write(lines(2, &["of the second"])).await.unwrap();
    assert_eq!(
        refusal(&first, lines(2, &["of the first"])).await,
        USED_TWICE
    );
    assert_eq!(messages(&fake), ["a", "b", "of the second"]);
    assert_eq!(second.searchable().borrow().next_seq(0), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_under_way_cannot_move_the_checkpoint_of_the_copy_that_took_over() {
    let fake = Fake::start().await;
    let original = tempfile::tempdir().unwrap();
    let first = Arc::new(open(&fake, original.path(), 0).await.unwrap());
    first.write(lines(0, &["a"])).await.unwrap();
    let copied = copy(original.path());
    fake.held.lock().delay = Duration::from_secs(1);
    let writing = tokio::spawn({
        let first = Arc::clone(&first);
        async move { first.write(lines(1, &["under way", "and more"])).await }
    });
    while fake.held.lock().in_work.0 == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let second = open(&fake, copied.path(), 1).await.unwrap();
    let error = writing.await.unwrap().unwrap_err();
    assert_eq!(error.code, "checkpoint_moved");
    fake.held.lock().delay = Duration::ZERO;
    assert_eq!(
        refusal(&first, lines(1, &["under way", "and more"])).await,
        USED_TWICE
    );
    assert_eq!(second.searchable().borrow().next_seq(0), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_could_not_reach_the_cluster_does_not_drop_what_it_queued_meanwhile() {
    let fake = Fake::start().await;
    let original = tempfile::tempdir().unwrap();
    let first = open(&fake, original.path(), 0).await.unwrap();
    first.write(lines(0, &["a"])).await.unwrap();
    let copied = copy(original.path());
    fake.held.lock().is_down = true;
    let second = open(&fake, copied.path(), 1).await.unwrap();
    fake.held.lock().is_down = false;
    let mut written = first.write(lines(1, &["b", "c"])).await;
    while written.is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
        written = first.write(lines(1, &["b", "c"])).await;
    }
    let mut code = refusal(&second, lines(1, &["of the second"])).await;
    while code == "elasticsearch_unavailable" {
        tokio::time::sleep(Duration::from_millis(50)).await;
        code = refusal(&second, lines(1, &["of the second"])).await;
    }
    assert_eq!(code, USED_TWICE);
    drop(second);
    // Nor does a restart that could.
    let refused = open(&fake, copied.path(), 4).await.err();
    assert_eq!(refused.as_deref(), Some(USED_TWICE));
    first.write(lines(3, &["d"])).await.unwrap();
    assert_eq!(messages(&fake), ["a", "b", "c", "d"]);
}
