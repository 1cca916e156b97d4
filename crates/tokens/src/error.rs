//! Why an index could not be read.

use std::io;

/// Offsets count from the start of the index.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    #[error("read the token index at byte {offset}")]
    Read {
        offset: u64,
        #[source]
        source: io::Error,
    },
    /// The bytes are not what was written: rebuild the index from the rows, or restore the file.
    #[error("the token index is damaged at byte {offset}: {what}")]
    Corrupt { offset: u64, what: &'static str },
    #[error(
        "the token index has format version {found}; this program reads version {known}: use a newer program"
    )]
    Version { found: u16, known: u16 },
}

impl IndexError {
    pub(crate) fn corrupt(offset: u64, what: &'static str) -> Self {
        Self::Corrupt { offset, what }
    }
}
