//! What a process uses, from `/proc`; and the yardstick: the CPU time that `zstd -1` needs for the same bytes.

use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::loadgen::loadtest::lines::Lines;

/// Linux counts a process's CPU time in hundredths of a second on every architecture we build for (`USER_HZ`).
const TICKS_PER_S: f64 = 100.0;

/// CPU-seconds (user + system) a process has used so far, threads that ended included.
pub fn cpu_s(pid: u32) -> anyhow::Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    parse_cpu_s(&text).with_context(|| format!("understand {path}"))
}

fn parse_cpu_s(stat: &str) -> Option<f64> {
    // The command's name stands in parentheses and may hold anything; fields count from behind it.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let (user, system): (f64, f64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((user + system) / TICKS_PER_S)
}

/// Resident memory in bytes: (now, highest so far).
pub fn memory_bytes(pid: u32) -> anyhow::Result<(u64, u64)> {
    let path = format!("/proc/{pid}/status");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = line
            .trim_start_matches(':')
            .trim()
            .strip_suffix(" kB")?
            .parse()
            .ok()?;
        Some(kib * 1024)
    };
    match (value("VmRSS"), value("VmHWM")) {
        (Some(now), Some(peak)) => Ok((now, peak)),
        _ => bail!("{path} tells no memory: has the process ended?"),
    }
}

/// CPU-seconds of this thread.
fn thread_cpu_s() -> anyhow::Result<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")
        .context("read /proc/thread-self/schedstat")?;
    let ns: u64 = text
        .split_ascii_whitespace()
        .next()
        .and_then(|field| field.parse().ok())
        .context("understand /proc/thread-self/schedstat")?;
    Ok(Duration::from_nanos(ns).as_secs_f64())
}

/// Bytes compressed for the yardstick; the figures are scaled to the whole run. Large, since the kernel counts a thread's
/// time in steps of a few milliseconds.
const SAMPLE_BYTES_MAX: usize = 96 << 20;
/// Compressed at once, as a batch or a page would be.
const CHUNK_BYTES: usize = 1 << 20;

/// What zstd level 1 needs for the first `n_batches` of a run, on one thread.
#[derive(Clone, Copy, Debug)]
pub struct ZstdYardstick {
    pub cpu_s: f64,
    pub size_bytes: u64,
    pub compressed_bytes: u64,
}

pub fn zstd_yardstick_blocking(lines: &mut Lines, n_batches: u64) -> anyhow::Result<ZstdYardstick> {
    let mut sample = Vec::new();
    let mut n_sampled = 0;
    while n_sampled < n_batches && sample.len() < SAMPLE_BYTES_MAX {
        lines.batch(n_sampled, &mut sample);
        n_sampled += 1;
    }
    let mut compressor = zstd::bulk::Compressor::new(1).context("start zstd")?;
    let mut compressed_bytes = 0_u64;
    let before_s = thread_cpu_s()?;
    for chunk in sample.chunks(CHUNK_BYTES) {
        compressed_bytes += compressor.compress(chunk).context("compress")?.len() as u64;
    }
    let share = n_batches as f64 / n_sampled.max(1) as f64;
    Ok(ZstdYardstick {
        cpu_s: (thread_cpu_s()? - before_s) * share,
        size_bytes: (sample.len() as f64 * share) as u64,
        compressed_bytes: (compressed_bytes as f64 * share) as u64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_a_hostile_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 9 0 0 0 250 150 0 0 20 0 5 0 9 9 9";
        assert_eq!(parse_cpu_s(stat), Some(4.0));
        assert_eq!(parse_cpu_s("nonsense"), None);
    }

    #[test]
    fn this_process_has_memory() {
        let (now, peak) = memory_bytes(std::process::id()).unwrap();
        assert!(1 << 20 < now && now <= peak + (64 << 20));
        assert!(0.0 <= cpu_s(std::process::id()).unwrap());
    }
}
