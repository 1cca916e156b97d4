//! One error for each operation of the log; each `Display` is a sentence with the file and what can be done.

use std::io;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "another process uses the log in {dir}; stop it, or give this one a directory of its own"
    )]
    Locked { dir: PathBuf },
    #[error(
        "{file} has log format version {found}, this program reads version {supported}; start the version of the program that wrote it, \
         let it index what is queued, and stop it before changing versions"
    )]
    Version {
        file: PathBuf,
        found: u32,
        supported: u32,
    },
    #[error("cannot {what} {path}: {source}")]
    Io {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    #[error("the log is full: {size_bytes} of at most {size_bytes_max} bytes are in use")]
    Full {
        size_bytes: u64,
        size_bytes_max: u64,
    },
    /// Nothing was written; the log goes on as soon as there is space.
    #[error("no space for a new segment {file}: {source}")]
    NoSpace { file: PathBuf, source: io::Error },
    #[error("a block of {size_bytes} bytes is larger than the limit of {size_bytes_max}")]
    TooLarge {
        size_bytes: u64,
        size_bytes_max: u64,
    },
    /// This append failed on the disk; whether its blocks are there shows at the next start. Later ones get [`Self::Poisoned`].
    #[error("cannot {what} {file} at byte {offset}: {source}")]
    Failed {
        what: &'static str,
        file: PathBuf,
        offset: u64,
        source: io::Error,
    },
    #[error("the log accepts nothing since an earlier failure: {reason}")]
    Poisoned { reason: String },
}

#[derive(Debug, thiserror::Error)]
#[error("cannot read {file} at byte {offset}: {source}")]
pub struct ReadError {
    pub file: PathBuf,
    pub offset: u64,
    pub source: io::Error,
}

/// The segment stays, and goes with the next release.
#[derive(Debug, thiserror::Error)]
#[error("cannot remove the released segment {file}: {source}")]
pub struct ReleaseError {
    pub file: PathBuf,
    pub source: io::Error,
}
