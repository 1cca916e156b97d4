//! What every store must do; run by each implementation. `check` runs all of it, each part on a store of its own.

mod answers;
mod paging;
mod upkeep;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::common::cancel::Cancel;
use crate::query::{CompiledExpr, Expr, Order, SearchAnswer, SearchRequest, Selection, TimeRange};
use crate::record::{BatchBuilder, Flags, Position, QueuedBatch, Record, RecordKey, ValueRef};
use crate::store::Store;

/// Noon of 2025-03-20, UTC.
pub const NOON_NS: i64 = 1_742_472_000 * SECOND_NS;
pub const SECOND_NS: i64 = 1_000_000_000;
pub const DAY_NS: i64 = 86_400 * SECOND_NS;

/// A record as a test writes it: time, and fields by key.
pub type Line<'a> = (i64, &'a [(&'a str, ValueRef<'a>)]);

/// Runs every check; `new` makes an empty store.
pub async fn check<F>(new: impl Fn() -> F)
where
    F: Future<Output = Arc<dyn Store>>,
{
    upkeep::the_same_batch_twice_leaves_one_copy(&*new().await).await;
    answers::records_come_back_as_they_were_written(&*new().await).await;
    answers::filters_select_what_evaluate_says(&*new().await).await;
    answers::time_and_positions_bound_a_search(&*new().await).await;
    answers::histograms_count_by_time_and_value(&*new().await).await;
    answers::fields_are_summed_up(&*new().await).await;
    answers::stats_group_and_aggregate(&*new().await).await;
    answers::integers_and_doubles_are_compared_exactly(&*new().await).await;
    paging::pages_are_the_whole_set_while_others_write(new().await).await;
    paging::totals_do_not_depend_on_the_page(&*new().await).await;
    upkeep::dead_letters_are_kept_found_and_deleted(&*new().await).await;
    upkeep::old_records_go_and_new_ones_stay(&*new().await).await;
    upkeep::retention_by_source_spares_the_others(&*new().await).await;
    upkeep::the_version_follows_every_change(&*new().await).await;
    upkeep::a_question_ends_when_its_time_is_over(&*new().await).await;
}

/// A batch with these records, in partition 0 from `first_seq` on.
pub fn batch(first_seq: u64, arrival_ns: i64, lines: &[Line<'_>]) -> QueuedBatch {
    let mut builder = BatchBuilder::new(arrival_ns);
    for (timestamp_ns, fields) in lines {
        builder.begin_record();
        for (key, value) in *fields {
            builder.field(key, *value);
        }
        builder.end_record(*timestamp_ns, 3, Flags::default());
    }
    QueuedBatch {
        first: at(first_seq),
        batch: builder.finish(),
    }
}

pub fn at(seq: u64) -> Position {
    Position { partition: 0, seq }
}

/// What the store should give back for `lines` written from `first_seq` on.
pub fn records(first_seq: u64, lines: &[Line<'_>]) -> Vec<Record> {
    let record = |(index, (timestamp_ns, fields)): (usize, &Line<'_>)| Record {
        key: RecordKey {
            timestamp_ns: *timestamp_ns,
            position: at(first_seq + index as u64),
        },
        timestamp_digits: 3,
        flags: Flags::default(),
        fields: fields
            .iter()
            .map(|(key, value)| ((*key).into(), value.to_value()))
            .collect(),
    };
    lines.iter().enumerate().map(record).collect()
}

/// Fields in order of their keys, so that records compare.
pub fn sorted(mut records: Vec<Record>) -> Vec<Record> {
    for record in &mut records {
        record.fields.sort_by(|a, b| a.0.cmp(&b.0));
    }
    records
}

pub fn cancel() -> Cancel {
    Cancel::after(Duration::from_secs(30))
}

pub fn everything() -> Selection {
    selection(Expr::All)
}

pub fn selection(filter: Expr) -> Selection {
    Selection {
        range: TimeRange::default(),
        filter,
        positions: None,
    }
}

pub fn request(selection: Selection, limit: usize) -> SearchRequest {
    SearchRequest {
        selection,
        order: Order::Ascending,
        limit,
        after: None,
        wants_total: true,
        fields: None,
    }
}

pub async fn search(store: &dyn Store, request: SearchRequest) -> SearchAnswer {
    let answer = store.search(request, cancel()).await.unwrap();
    assert!(answer.partial_reasons.is_empty(), "{answer:?}");
    answer
}

pub async fn count(store: &dyn Store, filter: Expr) -> u64 {
    let answer = search(store, request(selection(filter), 0)).await;
    assert!(answer.records.is_empty());
    let total = answer.total.unwrap();
    assert!(total.is_exact);
    total.value
}

/// The `seq`s of the records that match, by the definition of a match.
pub fn expected(all: &[Record], filter: &Expr) -> Vec<u64> {
    let compiled = CompiledExpr::new(filter).unwrap();
    let matching = all.iter().filter(|record| compiled.matches(*record));
    matching.map(|record| record.key.position.seq).collect()
}
