//! Values on the command line: counts (`2M`), rates (`500/s`), durations (`30s`), instants (`-1h`, RFC 3339).
//! Pure functions from text; an error says what would have been understood.

use std::time::Duration;

use jiff::Timestamp;

/// How a tool reports at its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum OutputFormat {
    /// A table for people.
    #[default]
    Text,
    /// One JSON object on stdout.
    Json,
}

/// `1000`, `1_000`, `10k`, `2.5M`, `1G`.
pub fn count(text: &str) -> Result<u64, String> {
    let bad = || format!("`{text}` is not a count; write 1000, 10k or 2M");
    let plain = text.replace(['_', ','], "");
    let (digits, factor) = match plain.char_indices().next_back() {
        Some((at, 'k' | 'K')) => (plain.get(..at), 1e3),
        Some((at, 'm' | 'M')) => (plain.get(..at), 1e6),
        Some((at, 'g' | 'G')) => (plain.get(..at), 1e9),
        _ => (Some(plain.as_str()), 1.0),
    };
    let digits = digits.ok_or_else(bad)?;
    if factor == 1.0 {
        return digits.parse().map_err(|_| bad());
    }
    let value: f64 = digits.parse().map_err(|_| bad())?;
    let scaled = value * factor;
    if !(0.0..=1e18).contains(&scaled) {
        return Err(bad());
    }
    Ok(scaled.round() as u64)
}

/// Events a second: `500`, `500/s`, `20k/s`, `90/m`.
pub fn rate(text: &str) -> Result<f64, String> {
    let (number, seconds) = match text.split_once('/') {
        None | Some((_, "s")) => (text.trim_end_matches("/s"), 1.0),
        Some((number, "m")) => (number, 60.0),
        Some((number, "h")) => (number, 3600.0),
        Some(_) => {
            return Err(format!(
                "`{text}` is not a rate; write 500/s, 20k/s or 90/m"
            ));
        }
    };
    let number =
        count(number).map_err(|_| format!("`{text}` is not a rate; write 500/s or 20k/s"))?;
    if number == 0 {
        return Err("a rate must be above 0".to_owned());
    }
    Ok(number as f64 / seconds)
}

/// `250ms`, `30s`, `5m`, `1h`, `2d`; a bare number is seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("`{text}` is not a duration; write 250ms, 30s, 5m, 1h or 2d");
    let unit_at = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let number: f64 = number.parse().map_err(|_| bad())?;
    let seconds = match unit {
        "ms" => number / 1e3,
        "" | "s" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        "d" => number * 86_400.0,
        _ => return Err(bad()),
    };
    Duration::try_from_secs_f64(seconds).map_err(|_| bad())
}

/// Nanoseconds since 1970: RFC 3339 (without zone: UTC), a date, Unix seconds, `now`, or relative as in `-15m`.
pub fn instant(text: &str) -> Result<i64, String> {
    let bad =
        || format!("`{text}` is not a time; write 2025-03-20T00:00:00Z, 2025-03-20, -15m or now");
    let now = Timestamp::now().as_nanosecond();
    let ns: i128 = if text == "now" {
        now
    } else if let Some(back) = text.strip_prefix('-') {
        now - i128::try_from(duration(back)?.as_nanos()).map_err(|_| bad())?
    } else if let Ok(seconds) = text.parse::<i64>() {
        i128::from(seconds) * 1_000_000_000
    } else {
        [
            text.to_owned(),
            format!("{text}Z"),
            format!("{text}T00:00:00Z"),
        ]
        .iter()
        .find_map(|candidate| candidate.parse::<Timestamp>().ok())
        .ok_or_else(bad)?
        .as_nanosecond()
    };
    i64::try_from(ns).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_rates_and_durations() {
        assert_eq!(count("1_000"), Ok(1000));
        assert_eq!(count("2.5M"), Ok(2_500_000));
        assert_eq!(count("18446744073709551615"), Ok(u64::MAX));
        assert!(count("many").is_err());
        assert!(count("").is_err());
        assert_eq!(rate("20k/s"), Ok(20_000.0));
        assert_eq!(rate("500"), Ok(500.0));
        assert_eq!(rate("90/m"), Ok(1.5));
        assert!(rate("0/s").is_err());
        assert!(rate("5/fortnight").is_err());
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("2d"), Ok(Duration::from_secs(172_800)));
        assert_eq!(duration("7"), Ok(Duration::from_secs(7)));
        assert!(duration("s").is_err());
    }

    #[test]
    fn instants() {
        let day = 1_742_428_800_000_000_000;
        assert_eq!(instant("2025-03-20T00:00:00Z"), Ok(day));
        assert_eq!(instant("2025-03-20T00:00:00"), Ok(day));
        assert_eq!(instant("2025-03-20"), Ok(day));
        assert_eq!(instant("1742428800"), Ok(day));
        let (now, hour_ago) = (instant("now").unwrap(), instant("-1h").unwrap());
        assert!((now - hour_ago - 3_600_000_000_000).abs() < 1_000_000_000);
        assert!(instant("yesterday").is_err());
    }
}
