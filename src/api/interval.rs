//! Which time buckets a range holds. Pure functions.

use crate::common::error::{Error, Result};

/// Buckets of one histogram.
pub const BUCKETS_MAX: i64 = 10_000;
/// The start of the bucket that holds `ns`; the first representable one where that start is before all time.
pub fn floor(ns: i64, interval_ns: i64) -> i64 {
    ns.checked_sub(ns.rem_euclid(interval_ns))
        .unwrap_or_else(|| ns + (interval_ns - ns.rem_euclid(interval_ns)))
}

/// The starts of all buckets that touch `[start_ns, end_ns)`.
pub fn bucket_starts(start_ns: i64, end_ns: i64, interval_ns: i64) -> Result<Vec<i64>> {
    if end_ns <= start_ns {
        return Ok(Vec::new());
    }
    let first = floor(start_ns, interval_ns);
    let count = (i128::from(end_ns) - i128::from(first) + i128::from(interval_ns) - 1)
        / i128::from(interval_ns);
    if i128::from(BUCKETS_MAX) < count {
        let message = format!(
            "{count} buckets are asked for, at most {BUCKETS_MAX} are allowed; choose a wider `interval` or a shorter range"
        );
        return Err(Error::invalid("too_many_buckets", message).with_parameter("interval"));
    }
    let starts = (0..).map_while(|index: i64| {
        interval_ns
            .checked_mul(index)
            .and_then(|offset| first.checked_add(offset))
    });
    Ok(starts.take_while(|start| *start < end_ns).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000_000_000;

    #[test]
    fn buckets_begin_at_multiples_and_cover_the_range() {
        assert_eq!(bucket_starts(5, 25, 10).unwrap(), [0, 10, 20]);
        assert_eq!(bucket_starts(-5, 10, 10).unwrap(), [-10, 0]);
        assert_eq!(bucket_starts(0, 10, 10).unwrap(), [0]);
        assert!(bucket_starts(3, 3, 10).unwrap().is_empty());
        let error = bucket_starts(0, i64::MAX, 1).unwrap_err();
        assert_eq!(error.code, "too_many_buckets");
        assert!(bucket_starts(i64::MIN, i64::MIN + 5, S).is_ok());
    }
}
