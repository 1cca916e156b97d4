//! The UTC days that a question touches. Must not know what a day's version is.

/// A range of more days is treated like one without an end.
pub const DAYS_MAX: i64 = 32;

const DAY_NS: i64 = 86_400_000_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Days {
    /// From the first to the last, both included; at most [`DAYS_MAX`].
    Named { first: i64, last: i64 },
    /// Many, or without a bound.
    Any,
}

impl Days {
    /// `end_ns` is exclusive.
    pub fn of_range(start_ns: Option<i64>, end_ns: Option<i64>) -> Self {
        let (Some(start_ns), Some(end_ns)) = (start_ns, end_ns) else {
            return Self::Any;
        };
        let first = day_of(start_ns);
        let last = day_of(end_ns.saturating_sub(1)).max(first);
        match last - first < DAYS_MAX {
            true => Self::Named { first, last },
            false => Self::Any,
        }
    }
}

/// The UTC day of a time, counted from 1970-01-01.
pub fn day_of(time_ns: i64) -> i64 {
    time_ns.div_euclid(DAY_NS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_names_its_days_unless_it_is_long_or_open() {
        let named = |first, last| Days::Named { first, last };
        assert_eq!(Days::of_range(Some(0), Some(DAY_NS)), named(0, 0));
        assert_eq!(Days::of_range(Some(-1), Some(DAY_NS + 1)), named(-1, 1));
        assert_eq!(Days::of_range(Some(5), Some(5)), named(0, 0));
        assert_eq!(Days::of_range(Some(DAY_NS), Some(0)), named(1, 1));
        assert_eq!(Days::of_range(Some(0), Some(32 * DAY_NS)), named(0, 31));
        assert_eq!(Days::of_range(Some(0), Some(32 * DAY_NS + 1)), Days::Any);
        assert_eq!(Days::of_range(None, Some(0)), Days::Any);
        assert_eq!(Days::of_range(Some(0), None), Days::Any);
        assert_eq!(Days::of_range(Some(i64::MIN), Some(i64::MAX)), Days::Any);
    }
}
