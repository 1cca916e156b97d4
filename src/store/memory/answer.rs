//! Every answer by looking at every record: slow, and plainly what the question means.

use std::sync::Arc;

use crate::common::error::Result;
use crate::query::{
    FieldsAnswer, FieldsRequest, Histogram, HistogramRequest, Order, SearchAnswer, SearchRequest,
    StatsAnswer, StatsRequest, Total,
};
use crate::record::Record;
use crate::store::answer::{FieldsTally, HistogramTally, StatsTally, with_fields};
use crate::store::memory::Scan;

pub fn search(scan: &Scan, request: &SearchRequest) -> Result<SearchAnswer> {
    let mut total = 0;
    let mut found: Vec<Arc<Record>> = Vec::new();
    scan.each(&request.selection, |record| {
        total += 1;
        let is_after = request.after.is_none_or(|after| match request.order {
            Order::Descending => record.key < after,
            Order::Ascending => after < record.key,
        });
        if is_after {
            found.push(Arc::clone(record));
        }
        Ok(())
    })?;
    found.sort_unstable_by(|a, b| match request.order {
        Order::Descending => b.key.cmp(&a.key),
        Order::Ascending => a.key.cmp(&b.key),
    });
    let has_more = request.limit < found.len();
    found.truncate(request.limit);
    Ok(SearchAnswer {
        records: found
            .iter()
            .map(|record| with_fields(record, request.fields.as_deref()))
            .collect(),
        total: request.wants_total.then_some(Total {
            value: total,
            is_exact: true,
        }),
        has_more,
        partial_reasons: Vec::new(),
    })
}

pub fn histogram(scan: &Scan, request: &HistogramRequest) -> Result<Histogram> {
    let mut tally = HistogramTally::new(request);
    scan.each(&request.selection, |record| {
        tally.add(record);
        Ok(())
    })?;
    Ok(tally.finish(Vec::new()))
}

pub fn fields(scan: &Scan, request: &FieldsRequest) -> Result<FieldsAnswer> {
    let mut tally = FieldsTally::new(request);
    scan.each(&request.selection, |record| {
        tally.add(record);
        Ok(())
    })?;
    Ok(tally.finish(Vec::new()))
}

pub fn stats(scan: &Scan, request: &StatsRequest) -> Result<StatsAnswer> {
    let mut tally = StatsTally::new(request);
    scan.each(&request.selection, |record| {
        tally.add(record);
        Ok(())
    })?;
    Ok(tally.finish(Vec::new(), Vec::new()))
}
