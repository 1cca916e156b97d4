//! Counts by time, and by the values of a field inside each bucket of time.

use std::collections::BTreeMap;

use hashbrown::HashMap;

use crate::query::{Histogram, HistogramBucket, HistogramRequest};
use crate::record::Record;
use crate::store::answer::{bucket_of, value_at};

/// A histogram while records and counts are being added to it.
pub struct HistogramTally {
    interval_ns: i64,
    by: Option<String>,
    by_limit: usize,
    buckets: BTreeMap<i64, HashMap<Option<String>, u64>>,
    overall: HashMap<String, u64>,
    total: u64,
}

impl HistogramTally {
    pub fn new(request: &HistogramRequest) -> Self {
        Self {
            interval_ns: request.interval_ns,
            by: request.by.clone(),
            by_limit: request.by_limit,
            buckets: BTreeMap::new(),
            overall: HashMap::new(),
            total: 0,
        }
    }

    pub fn add(&mut self, record: &Record) {
        let value = self.by.as_deref().and_then(|by| value_at(record, by));
        let text = value.map(|value| value.text().into_owned());
        let start_ns = bucket_of(record.key.timestamp_ns, self.interval_ns);
        self.add_count(start_ns, text, 1);
    }

    /// `count` records of one bucket with this value.
    pub fn add_count(&mut self, start_ns: i64, value: Option<String>, count: u64) {
        if let Some(text) = &value {
            *self.overall.entry_ref(text.as_str()).or_insert(0) += count;
        }
        let bucket = self.buckets.entry(start_ns).or_default();
        *bucket.entry(value).or_insert(0) += count;
        self.total += count;
    }

    pub fn finish(self, partial_reasons: Vec<String>) -> Histogram {
        let mut values: Vec<(String, u64)> = self.overall.into_iter().collect();
        values.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        values.truncate(self.by_limit);
        let has_by = self.by.is_some();
        let bucket = |(start_ns, cells): (i64, HashMap<Option<String>, u64>)| {
            let count = cells.values().sum();
            let mut by = Vec::new();
            if has_by {
                for (value, _) in &values {
                    let value = Some(value.clone());
                    if let Some(count) = cells.get(&value) {
                        by.push((value, *count));
                    }
                }
                let named: u64 = by.iter().map(|(_, count)| count).sum();
                if named < count {
                    by.push((None, count - named));
                }
            }
            HistogramBucket {
                start_ns,
                count,
                by,
            }
        };
        Histogram {
            buckets: self.buckets.into_iter().map(bucket).collect(),
            total: self.total,
            partial_reasons,
        }
    }
}
