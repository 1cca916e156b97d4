//! Cursors: all records once, in order, whatever is written meanwhile.

use std::sync::Arc;

use crate::query::{Expr, Order, SearchRequest};
use crate::record::{RecordKey, ValueRef};
use crate::store::Store;
use crate::store::contract::{Line, NOON_NS, SECOND_NS, batch, count, everything, request, search};

const RECORDS: u64 = 300;

pub async fn pages_are_the_whole_set_while_others_write(store: Arc<dyn Store>) {
    let fields: &[(&str, ValueRef<'_>)] = &[("message", ValueRef::Str("x"))];
    // Three records share each time, and positions do not follow time.
    let line = |index: u64| -> Line<'_> {
        let second = i64::try_from(index * 7 % 100).unwrap();
        (NOON_NS + second * SECOND_NS, fields)
    };
    let lines: Vec<Line<'_>> = (0..RECORDS).map(line).collect();
    store.write(vec![batch(0, NOON_NS, &lines)]).await.unwrap();
    let writer = tokio::spawn({
        let store = Arc::clone(&store);
        async move {
            for round in 0..40 {
                let second = i64::try_from(round * 37 % 140).unwrap() - 20;
                let line: Line<'_> = (NOON_NS + second * SECOND_NS, &[]);
                store
                    .write(vec![batch(RECORDS + round, NOON_NS, &[line])])
                    .await
                    .unwrap();
                tokio::task::yield_now().await;
            }
        }
    });
    for order in [Order::Ascending, Order::Descending] {
        for limit in [1, 7, 1_000] {
            let seen = all_pages(&*store, order, limit).await;
            let is_sorted = seen.windows(2).all(|pair| match order {
                Order::Ascending => pair[0] < pair[1],
                Order::Descending => pair[1] < pair[0],
            });
            assert!(is_sorted, "{order:?}, {limit} a page");
            let mut first: Vec<u64> = seen.iter().map(|key| key.position.seq).collect();
            first.retain(|seq| *seq < RECORDS);
            first.sort_unstable();
            assert_eq!(
                first,
                (0..RECORDS).collect::<Vec<_>>(),
                "{order:?}, {limit} a page"
            );
        }
    }
    writer.await.unwrap();
    assert_eq!(count(&*store, Expr::All).await, RECORDS + 40);
}

async fn all_pages(store: &dyn Store, order: Order, limit: usize) -> Vec<RecordKey> {
    let mut seen = Vec::new();
    loop {
        let page = search(
            store,
            SearchRequest {
                order,
                after: seen.last().copied(),
                wants_total: false,
                ..request(everything(), limit)
            },
        )
        .await;
        assert!(page.records.len() <= limit);
        assert_eq!(page.total, None);
        seen.extend(page.records.iter().map(|record| record.key));
        if !page.has_more {
            return seen;
        }
        assert!(!page.records.is_empty());
    }
}

pub async fn totals_do_not_depend_on_the_page(store: &dyn Store) {
    let lines: Vec<Line<'_>> = (0..10).map(|second| (NOON_NS + second, &[][..])).collect();
    store.write(vec![batch(0, NOON_NS, &lines)]).await.unwrap();
    for (limit, has_more) in [(0, true), (9, true), (10, false), (11, false)] {
        let answer = search(store, request(everything(), limit)).await;
        assert_eq!(answer.total.unwrap().value, 10, "{limit}");
        assert_eq!(answer.records.len(), limit.min(10), "{limit}");
        // What follows an empty page is no question that anyone asks.
        assert!(limit == 0 || answer.has_more == has_more, "{limit}");
    }
    let mut last = request(everything(), 5);
    last.after = Some(search(store, request(everything(), 10)).await.records[7].key);
    let answer = search(store, last).await;
    assert_eq!((answer.records.len(), answer.has_more), (2, false));
    assert_eq!(answer.total.unwrap().value, 10);
}
