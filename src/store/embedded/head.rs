//! The head: rows that are searchable but not yet in a segment. They are in the queue still, so a crash costs nothing but the replay.
//!
//! Many small writes would make many small chunks: whenever the last chunk is at least half as long as the one before, the two become one. So a head
//! has at most log2(rows) small chunks, and each row is copied at most log2(rows of a chunk) times. This module must not know files or threads.

use std::sync::Arc;
use std::time::Instant;

use arrow::compute::concat_batches;

use crate::common::error::{Error, Result};
use crate::record::DeadLetter;
use crate::store::embedded::columns::CHUNK_TEXT_BYTES_MAX;
use crate::store::embedded::rows::Union;
use crate::store::embedded::schema::{self, Columns, SYSTEM_COLUMNS};
use crate::store::embedded::snapshot::{HeadChunk, HeadColumn};

#[derive(Default)]
pub struct Head {
    pub chunks: Vec<Arc<HeadChunk>>,
    pub letters: Vec<Arc<[DeadLetter]>>,
    pub n_rows: usize,
    pub size_bytes: usize,
    /// Of the rows' texts, had each row its own.
    pub text_bytes: usize,
    /// When the first entry came.
    pub since: Option<Instant>,
}

/// When two chunks become one.
#[derive(Clone, Copy)]
pub struct ChunkLimits {
    pub rows_max: usize,
    pub bytes_max: usize,
    pub columns_max: usize,
}

impl Head {
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty() && self.letters.is_empty()
    }

    pub fn push(&mut self, chunk: HeadChunk, limits: &ChunkLimits) {
        self.since.get_or_insert_with(Instant::now);
        self.chunks.push(Arc::new(chunk));
        while let [.., before, last] = self.chunks.as_slice() {
            let is_worth_it = before.n_rows() <= 2 * last.n_rows()
                && before.n_rows() + last.n_rows() <= limits.rows_max
                && before.size_bytes + last.size_bytes <= limits.bytes_max
                && before.text_bytes + last.text_bytes <= CHUNK_TEXT_BYTES_MAX;
            if !is_worth_it {
                break;
            }
            let pair = [Arc::clone(before), Arc::clone(last)];
            // Two chunks that cannot be one stay two: that is slower, not wrong.
            let Ok(Some(merged)) = merge(&pair, limits.columns_max) else {
                break;
            };
            self.chunks.truncate(self.chunks.len() - 2);
            self.chunks.push(Arc::new(merged));
        }
        self.n_rows = self.chunks.iter().map(|chunk| chunk.n_rows()).sum();
        self.size_bytes = self.chunks.iter().map(|chunk| chunk.size_bytes).sum();
        self.text_bytes = self.chunks.iter().map(|chunk| chunk.text_bytes).sum();
    }

    pub fn push_letters(&mut self, letters: Vec<DeadLetter>) {
        if !letters.is_empty() {
            self.since.get_or_insert_with(Instant::now);
            self.letters.push(letters.into());
        }
        // Many writes with one letter each must not become many lists.
        if let [.., before, last] = self.letters.as_slice()
            && before.len() <= 2 * last.len()
        {
            let joined: Arc<[DeadLetter]> = before.iter().chain(last.iter()).cloned().collect();
            self.letters.truncate(self.letters.len() - 2);
            self.letters.push(joined);
        }
    }

    pub fn letters_bytes(&self) -> usize {
        let letters = self.letters.iter().flat_map(|letters| letters.iter());
        letters.map(|letter| letter.raw.len() + 200).sum()
    }
}

/// Two or more chunks as one; `None` if together they have too many columns.
fn merge(chunks: &[Arc<HeadChunk>], columns_max: usize) -> Result<Option<HeadChunk>> {
    let union = Union::of(chunks);
    if columns_max < union.n_fields {
        return Ok(None);
    }
    let systems = chunks.iter().map(|chunk| &chunk.system);
    let system = concat_batches(&schema::system_schema(), systems).map_err(merge_failed)?;
    let fields = union.columns.iter().skip(SYSTEM_COLUMNS.len());
    let fields = fields.map(|places| {
        let parts = chunks.iter().zip(places);
        let parts =
            parts.map(|(chunk, place)| (place.and_then(|at| chunk.field(at)), chunk.n_rows()));
        HeadColumn::join(&parts.collect::<Vec<_>>())
    });
    let fields: Vec<HeadColumn> = fields.collect::<Result<_, _>>().map_err(merge_failed)?;
    let columns = Arc::new(Columns::from_schema(&union.schema)?);
    let max_arrival_ns = chunks.iter().map(|chunk| chunk.max_arrival_ns).max();
    let max_arrival_ns = max_arrival_ns.unwrap_or(i64::MIN);
    let text_bytes = chunks.iter().map(|chunk| chunk.text_bytes).sum();
    HeadChunk::new(
        union.schema,
        columns,
        system,
        fields,
        max_arrival_ns,
        text_bytes,
    )
    .map(Some)
}

fn merge_failed(error: arrow::error::ArrowError) -> Error {
    Error::internal("cannot put two chunks of the head together").with_source(error)
}
