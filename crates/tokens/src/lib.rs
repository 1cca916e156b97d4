//! A token index for log segments: text in, candidate pages and exact row sets out.
//!
//! Synchronous, and it knows nothing of logs, Parquet, Arrow or Tokio. An index is one run of bytes whose positions count
//! from its own start, so it can lie inside any file. [`format`](mod@format) describes the bytes.
//!
//! What it holds for the rows of a segment, cut into *pages* of `page_rows` rows:
//! - for each **rare** token the pages that hold it, under a short fingerprint of its hash: absence is certain, presence is
//!   verified on the rows. A look-up costs two small reads whatever the segment's size;
//! - for each **frequent** token the exact rows, by column and over all columns.
//!
//! The pages of a rare token are those of any column: a token that is rare anywhere is rare in a column too.

mod bits;
mod builder;
mod error;
mod format;
mod hash;
mod page_table;
mod read_at;
mod reader;
mod subset;
mod tokenize;

pub use builder::{IndexBuilder, IndexOptions, NO_KEY, ValueTokens};
pub use error::IndexError;
pub use read_at::ReadAt;
pub use reader::{Candidates, IndexReader, IndexSizes};
pub use tokenize::{Scratch, Tokens, for_each_token, tokens};

#[cfg(test)]
mod tests;
