//! Synthetic log lines. A line is a pure function of (shape, seed, number, time): same arguments, same bytes, always.
//! Writing a line allocates nothing once the buffer has grown.

mod access;
mod app;
mod repetitive;
pub mod text;
mod wide;

use crate::loadgen::rng::Rng;
use crate::loadgen::shape::text::StampCache;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ShapeKind {
    /// JSON request logs of a few services: many random values, about 340 bytes.
    #[default]
    App,
    /// Web server access lines in the combined format, about 200 bytes.
    Access,
    /// JSON like Windows events: about 40 fields that differ by kind of event, about 1,600 bytes.
    Wide,
    /// JSON of a handful of templates with few values, about 150 bytes.
    Repetitive,
}

impl ShapeKind {
    /// The `source` that lines which name none should get.
    pub fn default_source(self) -> Option<&'static str> {
        match self {
            Self::Access => Some("webserver"),
            Self::App | Self::Wide | Self::Repetitive => None,
        }
    }

    /// Whether lines are JSON objects, so that fields can be added to them.
    pub fn is_json(self) -> bool {
        match self {
            Self::App | Self::Wide | Self::Repetitive => true,
            Self::Access => false,
        }
    }

    pub fn media_type(self) -> &'static str {
        if self.is_json() {
            "application/x-ndjson"
        } else {
            "text/plain"
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::Access => "access",
            Self::Wide => "wide",
            Self::Repetitive => "repetitive",
        }
    }
}

/// Which instant line `index` carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineTimes {
    /// `count` lines spread evenly over [start, end), each off its place by up to 2 ms, as real streams are.
    Spread {
        start_ns: i64,
        end_ns: i64,
        count: u64,
    },
    /// The wall clock when the line is made.
    Now,
}

const JITTER_NS: i64 = 2_000_000;

impl LineTimes {
    pub fn at(self, seed: u64, index: u64) -> i64 {
        match self {
            Self::Now => i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX),
            Self::Spread {
                start_ns,
                end_ns,
                count,
            } => {
                let span = (i128::from(end_ns) - i128::from(start_ns)).max(1);
                let even = span * i128::from(index) / i128::from(count.max(1));
                let jitter = Rng::of_line(!seed, index).below(JITTER_NS as u64);
                let offset = (even + i128::from(jitter)).min(span - 1);
                (i128::from(start_ns) + offset) as i64
            }
        }
    }
}

/// Writes the lines of one shape and seed.
#[derive(Clone, Debug)]
pub struct LineWriter {
    kind: ShapeKind,
    seed: u64,
    times: LineTimes,
    stamps: StampCache,
}

impl LineWriter {
    pub fn new(kind: ShapeKind, seed: u64, times: LineTimes) -> Self {
        Self {
            kind,
            seed,
            times,
            stamps: StampCache::default(),
        }
    }

    /// Appends line `index` and a newline.
    pub fn write(&mut self, index: u64, out: &mut Vec<u8>) {
        let time_ns = self.times.at(self.seed, index);
        let rng = Rng::of_line(self.seed, index);
        match self.kind {
            ShapeKind::App => app::write(rng, time_ns, &mut self.stamps, out),
            ShapeKind::Access => access::write(rng, time_ns, &mut self.stamps, out),
            ShapeKind::Wide => wide::write(rng, index, time_ns, &mut self.stamps, out),
            ShapeKind::Repetitive => repetitive::write(rng, time_ns, &mut self.stamps, out),
        }
        out.push(b'\n');
    }

    /// Like [`Self::write`] for a JSON shape, with `extra` (`"name":value,…,`) as the object's first fields.
    pub fn write_with(&mut self, index: u64, extra: &[u8], out: &mut Vec<u8>) {
        debug_assert!(self.kind.is_json());
        let at = out.len();
        self.write(index, out);
        out.splice(at + 1..at + 1, extra.iter().copied());
    }
}

#[cfg(test)]
mod tests;
