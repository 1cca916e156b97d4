//! A durable log of blocks: bytes in, bytes out, nothing forgotten before it is released.
//!
//! A *block* is one payload with a few bytes of `meta`; it takes `n_entries` consecutive sequence numbers. Blocks lie in *segment* files of one
//! directory (layout: [`frame`]). What the log promises:
//!
//! - [`Log::append_group`] returns when all its blocks are written and, with [`Durability::Fsync`], on the disk: one `fdatasync` for the group.
//! - After a crash the log holds every block that was acknowledged, possibly blocks that were not, each whole, in order, without a gap.
//! - A torn tail (never acknowledged) is cut and reported. Damage to what was durable is something else: the range is isolated, reported with
//!   file and offset, and everything around it stays readable. Neither is ever served as data.
//! - After a failed write or sync the log is poisoned: nothing more is accepted, nothing is tried again on that file.
//! - The size is bounded; whole segments go when they are released; two processes cannot use one directory.
//!
//! Must not know: logs, JSON, Tokio. Everything is synchronous; one owner appends, any number of [`LogReader`]s read.

pub mod disk;
pub mod error;
pub mod frame;
mod log;
mod read;
mod recover;
mod scan;
#[cfg(any(test, feature = "sim"))]
pub mod sim;

#[cfg(test)]
mod tests;

pub use disk::{Disk, DiskFile, DiskUsage, RealDisk};
pub use error::{AppendError, OpenError, ReadError, ReleaseError};
pub use log::{BlockRef, Log};
pub use read::{Block, LogReader, ReadOutcome};
pub use recover::{OpenReport, TornTail, Visit};
pub use scan::Damage;

use std::time::Duration;

/// When an append is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// After `fdatasync`: survives a power cut.
    Fsync,
    /// After the write; synced at the latest this much later: a crash of the machine can lose that much, a crash of the process nothing.
    Interval(Duration),
    /// After the write; the operating system syncs when it likes.
    Os,
}

/// Limits of a log.
#[derive(Clone, Copy, Debug)]
pub struct LogOptions {
    pub durability: Durability,
    /// A new file is begun when the next group does not fit. Preallocated. Default 64 MiB, at most a quarter of `size_bytes_max`.
    pub segment_size_bytes: u64,
    /// Appends are refused beyond this. Default 4 GiB. The preallocated rest of the newest segment is not counted.
    pub size_bytes_max: u64,
    /// No block gets a sequence number below this, whatever the directory holds. Default 0.
    pub next_seq_min: u64,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            durability: Durability::Fsync,
            segment_size_bytes: 64 << 20,
            size_bytes_max: 4 << 30,
            next_seq_min: 0,
        }
    }
}

/// The largest payload and the largest meta of one block, bytes.
pub const BLOCK_SIZE_BYTES_MAX: usize = 1 << 30;
