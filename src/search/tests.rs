//! The searcher over a store that only counts questions, and the tail's seam.

use std::sync::atomic::{AtomicU64, Ordering as AtomicOrdering};

use super::*;
use crate::cache::{InProcessCache, NoCache};
use crate::query::{Expr, Order, Selection};
use crate::queue::MemoryQueue;
use crate::store::fake::FakeStore;

fn searcher(cache: Arc<dyn Cache>) -> Arc<Searcher> {
    Arc::new(Searcher::new(
        FakeStore::new(),
        Arc::new(MemoryQueue::new(Default::default())),
        cache,
        Arc::new(Metrics::new()),
        SearchOptions::default(),
    ))
}

fn key(question: u128) -> (CacheKey, Days) {
    let key = CacheKey {
        question,
        version: 1,
    };
    (key, Days::Any)
}

/// Asks with a function that counts its calls and takes a while.
async fn ask(searcher: &Searcher, question: u128, is_fresh: bool, asked: &AtomicU64) -> Outcome {
    let answered = searcher
        .answer("search", key(question), is_fresh, async |_| {
            asked.fetch_add(1, AtomicOrdering::Relaxed);
            tokio::time::sleep(Duration::from_millis(30)).await;
            Ok(Encoded {
                bytes: Bytes::from_static(b"answer"),
                is_whole: true,
            })
        })
        .await;
    let (answer, outcome) = answered.unwrap();
    assert_eq!(&answer[..], b"answer");
    outcome
}

#[tokio::test]
async fn a_second_equal_question_is_a_hit_and_a_fresh_one_is_not() {
    let searcher = searcher(Arc::new(InProcessCache::new(1 << 20)));
    let asked = AtomicU64::new(0);
    assert_eq!(ask(&searcher, 1, false, &asked).await, Outcome::Miss);
    assert_eq!(ask(&searcher, 1, false, &asked).await, Outcome::Hit);
    assert_eq!(ask(&searcher, 2, false, &asked).await, Outcome::Miss);
    assert_eq!(ask(&searcher, 1, true, &asked).await, Outcome::Bypass);
    assert_eq!(asked.load(AtomicOrdering::Relaxed), 3);
}

#[tokio::test]
async fn equal_questions_in_flight_are_asked_once_even_without_a_cache() {
    let searcher = searcher(Arc::new(NoCache));
    let asked = AtomicU64::new(0);
    let asks = (0..20).map(|_| ask(&searcher, 1, false, &asked));
    let outcomes = futures::future::join_all(asks).await;
    assert_eq!(asked.load(AtomicOrdering::Relaxed), 1);
    assert_eq!(outcomes.iter().filter(|o| **o == Outcome::Hit).count(), 19);
    assert_eq!(searcher.flights.lock().len(), 0);
}

#[tokio::test]
async fn when_the_first_client_leaves_the_next_one_asks() {
    let searcher = searcher(Arc::new(NoCache));
    let asked = Arc::new(AtomicU64::new(0));
    let first = {
        let (searcher, asked) = (Arc::clone(&searcher), Arc::clone(&asked));
        tokio::spawn(async move { ask(&searcher, 1, false, &asked).await })
    };
    tokio::time::sleep(Duration::from_millis(5)).await;
    let second = {
        let (searcher, asked) = (Arc::clone(&searcher), Arc::clone(&asked));
        tokio::spawn(async move { ask(&searcher, 1, false, &asked).await })
    };
    tokio::time::sleep(Duration::from_millis(5)).await;
    first.abort();
    assert_eq!(second.await.unwrap(), Outcome::Miss);
    assert_eq!(asked.load(AtomicOrdering::Relaxed), 2);
}

#[tokio::test]
async fn an_error_is_no_answer_to_others() {
    let searcher = searcher(Arc::new(InProcessCache::new(1 << 20)));
    let failed = searcher
        .answer("search", key(1), false, async |_| {
            Err(Error::internal("broken"))
        })
        .await;
    failed.unwrap_err();
    let asked = AtomicU64::new(0);
    assert_eq!(ask(&searcher, 1, false, &asked).await, Outcome::Miss);
}

#[tokio::test]
async fn a_partial_answer_is_not_kept() {
    let searcher = searcher(Arc::new(InProcessCache::new(1 << 20)));
    let partial = searcher
        .answer("search", key(1), false, async |_| {
            Ok(Encoded {
                bytes: Bytes::from_static(b"half"),
                is_whole: false,
            })
        })
        .await;
    assert_eq!(&partial.unwrap().0[..], b"half");
    let asked = AtomicU64::new(0);
    assert_eq!(ask(&searcher, 1, false, &asked).await, Outcome::Miss);
}

#[test]
fn questions_that_differ_have_different_keys() {
    let searcher = searcher(Arc::new(NoCache));
    let request = SearchRequest {
        selection: Selection {
            range: TimeRange::default(),
            filter: Expr::All,
            positions: None,
        },
        order: Order::Descending,
        limit: 10,
        after: None,
        wants_total: true,
        fields: Some(vec!["a".to_owned(), "b".to_owned()]),
    };
    let key_of = |kind: &str, request: &SearchRequest| {
        searcher
            .key(kind, request, &request.selection.range)
            .question
    };
    let mut other = request.clone();
    other.fields = Some(vec!["a\", \"b".to_owned()]);
    assert_eq!(
        key_of("search", &request),
        key_of("search", &request.clone())
    );
    assert_ne!(key_of("search", &request), key_of("search", &other));
    assert_ne!(key_of("search", &request), key_of("fields", &request));
}
