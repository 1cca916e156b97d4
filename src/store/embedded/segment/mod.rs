//! A segment: one Parquet file with the rows of one UTC day, sorted ascending by (timestamp, partition, seq), and its token index.
//!
//! Layout of the file:
//!
//! ```text
//! "PAR1" · (row group · its token index)… · page checksums · column and offset indexes · footer · footer length · "PAR1"
//! ```
//!
//! The footer's key-value metadata names what other readers skip: `logyard.format` (2), `logyard.columns` (keys and types of the fields; see
//! [`describe`](super::schema::describe)), `logyard.indexes` (offset and length of each row group's
//! token index, `offset:length,…`; see [`index`]), `logyard.value_counts` (for each row group, of each column the values other than null: `1,2;3,4`), `logyard.checksums.offset`, `logyard.checksums.len` (see [`file`]). Every page has an xxh3 checksum that each read verifies;
//! the footer's checksum is in the catalog.
//!
//! This module must not know the catalog, nor who asks.

pub mod file;
pub mod index;
pub mod pages;
pub mod registry;
pub mod write;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::datatypes::SchemaRef;
use parking_lot::Mutex;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
    ParquetRecordBatchReaderBuilder, RowSelection,
};
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, RowGroupMetaData};

use crate::common::error::{Error, ErrorKind, Result};
use crate::record::RecordKey;
use crate::store::embedded::schema::{self, Columns};
use crate::store::embedded::segment::file::SegmentFile;
use crate::store::embedded::segment::index::{Index, IndexBytes};
use crate::store::embedded::segment::registry::Registry;

pub const FORMAT: &str = "logyard.format";
pub const FORMAT_VERSION: &str = "2";
pub const COLUMNS: &str = "logyard.columns";
pub const INDEXES: &str = "logyard.indexes";
pub const VALUE_COUNTS: &str = "logyard.value_counts";
pub const CHECKSUMS_OFFSET: &str = "logyard.checksums.offset";
pub const CHECKSUMS_LEN: &str = "logyard.checksums.len";

/// What the catalog knows of a segment: enough to decide whether a question needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentMeta {
    /// Never used twice; part of the file's name.
    pub id: u64,
    /// UTC days since 1970-01-01, of all its rows.
    pub day: i32,
    pub n_rows: u64,
    pub min_key: RecordKey,
    pub max_key: RecordKey,
    /// Latest arrival of a row in it.
    pub max_arrival_ns: i64,
    /// Of the whole file.
    pub size_bytes: u64,
    /// Bytes from `footer_offset` to the end of the file, by xxh3-64.
    pub footer_offset: u64,
    pub footer_checksum: u64,
}

/// A segment in the list; opened when a question first needs it.
pub struct Segment {
    pub meta: SegmentMeta,
    pub path: PathBuf,
    registry: Arc<Registry>,
    opened: Mutex<Option<Arc<SegmentReader>>>,
    was_used: AtomicBool,
    is_doomed: AtomicBool,
}

/// An open segment: file, footer and page index in memory. Cheap to share, safe to read from many threads.
pub struct SegmentReader {
    id: u64,
    registry: Arc<Registry>,
    file: SegmentFile,
    metadata: ArrowReaderMetadata,
    columns: Columns,
    row_group_starts: Vec<u64>,
    /// For each row group, of each column.
    value_counts: Vec<Vec<Option<u64>>>,
    indexes: Vec<Index>,
}

impl Segment {
    pub fn new(folder: &Path, meta: SegmentMeta, registry: &Arc<Registry>) -> Self {
        Self {
            path: folder.join(file_name(meta.day, meta.id)),
            meta,
            registry: Arc::clone(registry),
            opened: Mutex::new(None),
            was_used: AtomicBool::new(false),
            is_doomed: AtomicBool::new(false),
        }
    }

    /// The open segment; opens it at the first call. If its bytes are damaged, that is reported to the store.
    pub fn open(self: &Arc<Self>) -> Result<Arc<SegmentReader>> {
        let mut opened = self.opened.lock();
        self.was_used.store(true, Ordering::Relaxed);
        if let Some(reader) = &*opened {
            return Ok(Arc::clone(reader));
        }
        let reader = SegmentReader::open(&self.path, &self.meta, &self.registry);
        let reader = reader.inspect_err(|error| {
            if error.kind == ErrorKind::Corrupt {
                self.registry.report(self.meta.id, &error.message);
            }
        })?;
        let reader = Arc::clone(opened.insert(Arc::new(reader)));
        drop(opened);
        self.registry.opened(self);
        Ok(reader)
    }

    /// Whether it was used since the last call.
    pub fn was_used(&self) -> bool {
        self.was_used.swap(false, Ordering::Relaxed)
    }

    /// Lets go of file and footer; readers in use keep theirs.
    pub fn shut(&self) {
        self.opened.lock().take();
    }

    /// Deletes the file when the last snapshot that holds this segment is gone.
    pub fn doom(&self) {
        self.is_doomed.store(true, Ordering::Release);
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        if self.is_doomed.load(Ordering::Acquire)
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot delete a segment that is no longer used; the next start does");
        }
    }
}

impl SegmentReader {
    pub fn open(path: &Path, meta: &SegmentMeta, registry: &Arc<Registry>) -> Result<Self> {
        let in_file = |what: &str| format!("segment {}: {what}", path.display());
        let mut file = SegmentFile::open(path).map_err(|error| {
            let what = in_file(&format!("cannot be opened: {error}"));
            match error.kind() {
                std::io::ErrorKind::NotFound => Error::corrupt(what),
                // Too many open files, a failing disk: the bytes may well be good.
                _ => Error::unavailable("store_read_failed", what),
            }
            .with_source(error)
        })?;
        let result = Self::load(&mut file, meta, registry, &in_file);
        result.map_err(|error| match file.take_failure() {
            Some(failure) => Error::unavailable("store_read_failed", in_file(&failure)),
            None => error,
        })
    }

    fn load(
        file: &mut SegmentFile,
        meta: &SegmentMeta,
        registry: &Arc<Registry>,
        in_file: &dyn Fn(&str) -> String,
    ) -> Result<Self> {
        file.check_footer(meta.size_bytes, meta.footer_offset, meta.footer_checksum)
            .map_err(|fault| Error::corrupt(in_file(&fault)))?;
        let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Required);
        let unreadable = |error| Error::corrupt(in_file("unreadable footer")).with_source(error);
        let bare = ArrowReaderMetadata::load(&*file, options.clone()).map_err(unreadable)?;
        let schema = value(bare.metadata(), COLUMNS)
            .and_then(|description| schema::restore(bare.schema(), description))
            .ok_or_else(|| {
                Error::corrupt(in_file(&format!("`{COLUMNS}` does not fit its columns")))
            })?;
        let options = options.with_schema(Arc::new(schema));
        let metadata = ArrowReaderMetadata::try_new(Arc::clone(bare.metadata()), options)
            .map_err(unreadable)?;
        let (offset, len) = blob(metadata.metadata(), CHECKSUMS_OFFSET, CHECKSUMS_LEN)
            .ok_or_else(|| Error::corrupt(in_file("no page checksums")))?;
        file.load_checksums(offset, len)
            .map_err(|fault| Error::corrupt(in_file(&fault)))?;
        let columns = Columns::from_schema(metadata.schema())?;
        let mut row_group_starts = Vec::with_capacity(metadata.metadata().num_row_groups());
        let mut n_rows = 0;
        for row_group in metadata.metadata().row_groups() {
            row_group_starts.push(n_rows);
            n_rows += u64::try_from(row_group.num_rows()).unwrap_or(0);
        }
        if n_rows != meta.n_rows {
            return Err(Error::corrupt(in_file(&format!(
                "has {n_rows} rows, the catalog says {}",
                meta.n_rows
            ))));
        }
        let value_counts = match value(metadata.metadata(), VALUE_COUNTS) {
            Some(counts) => decode_value_counts(counts, metadata.metadata()).ok_or_else(|| {
                let what = format!("`{VALUE_COUNTS}` does not fit its columns");
                Error::corrupt(in_file(&what))
            })?,
            None => value_counts_by_statistics(metadata.metadata()),
        };
        let indexes = open_indexes(file, metadata.metadata())
            .map_err(|fault| Error::corrupt(in_file(&fault)))?;
        Ok(Self {
            id: meta.id,
            registry: Arc::clone(registry),
            file: file.clone(),
            metadata,
            columns,
            row_group_starts,
            value_counts,
            indexes,
        })
    }

    /// Values other than null of a column in a row group, if that is known.
    pub fn n_values(&self, row_group: usize, column: usize) -> Option<u64> {
        *self.value_counts.get(row_group)?.get(column)?
    }

    pub fn columns(&self) -> &Columns {
        &self.columns
    }

    pub fn schema(&self) -> &SchemaRef {
        self.metadata.schema()
    }

    /// Parquet's own metadata, page index included.
    pub fn metadata(&self) -> &Arc<ParquetMetaData> {
        self.metadata.metadata()
    }

    /// The first row of each row group.
    pub fn row_group_starts(&self) -> &[u64] {
        &self.row_group_starts
    }

    pub fn file(&self) -> &SegmentFile {
        &self.file
    }

    /// The token index of each row group, over its rows counted from 0; see [`index`] for what is in them.
    pub fn indexes(&self) -> &[Index] {
        &self.indexes
    }

    /// (offset, length) of the token index of each row group.
    pub fn index_places(&self) -> Vec<(u64, u64)> {
        index_places(self.metadata.metadata()).unwrap_or_default()
    }

    /// Reads columns (by index, given back in ascending order) of some row groups; `selection` counts the rows of those row groups alone.
    pub fn read(
        &self,
        columns: &[usize],
        row_groups: Vec<usize>,
        selection: Option<RowSelection>,
        batch_rows: usize,
    ) -> Result<ParquetRecordBatchReader> {
        let mask = ProjectionMask::leaves(self.metadata.parquet_schema(), columns.iter().copied());
        let mut builder = self
            .builder()
            .with_projection(mask)
            .with_row_groups(row_groups)
            .with_batch_size(batch_rows);
        if let Some(selection) = selection {
            builder = builder.with_row_selection(selection);
        }
        builder
            .build()
            .map_err(|error| self.error("cannot be read", error))
    }

    /// For readers that want more than [`Self::read`].
    pub fn builder(&self) -> ParquetRecordBatchReaderBuilder<SegmentFile> {
        ParquetRecordBatchReaderBuilder::new_with_metadata(self.file.clone(), self.metadata.clone())
    }

    /// Reads the token indexes whole and checks their checksums.
    pub fn check_indexes(&self) -> Result<()> {
        for index in &self.indexes {
            index
                .verify()
                .map_err(|error| self.error("token index fails its check", error))?;
        }
        Ok(())
    }

    /// An error that names the file. Unless the disk failed to read, the bytes are damaged: that is reported to the store, which stops serving
    /// the segment.
    pub fn error(
        &self,
        what: &str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Error {
        let source = source.into();
        let path = self.file.path().display();
        let message = format!("segment {path}: {what}: {source}");
        if self.file.take_failure().is_some() {
            return Error::unavailable("store_read_failed", message).with_source(source);
        }
        self.registry.report(self.id, &message);
        Error::corrupt(message).with_source(source)
    }
}

/// `2025-03-20-0000000000000001.parquet`
pub fn file_name(day: i32, id: u64) -> String {
    format!("{}-{id:016x}.parquet", day_name(day))
}

/// `2025-03-20`
pub fn day_name(day: i32) -> String {
    let epoch = jiff::civil::date(1970, 1, 1);
    let date = epoch.saturating_add(jiff::Span::new().days(day));
    date.to_string()
}

/// Opens the index of each row group; the fault is a phrase for an error message.
fn open_indexes(file: &SegmentFile, metadata: &ParquetMetaData) -> Result<Vec<Index>, String> {
    let places = index_places(metadata).ok_or_else(|| format!("unreadable `{INDEXES}`"))?;
    let mut indexes = Vec::with_capacity(places.len());
    for (offset, len) in places {
        let bytes = IndexBytes {
            file: file.clone(),
            offset,
        };
        let index = Index::open(bytes, len);
        indexes.push(index.map_err(|error| format!("token index at byte {offset}: {error}"))?);
    }
    let n_rows = indexes.iter().map(|index| i64::from(index.n_rows()));
    if !n_rows.eq(metadata.row_groups().iter().map(|group| group.num_rows())) {
        return Err("the token indexes do not fit the row groups".to_owned());
    }
    Ok(indexes)
}

/// (offset, length) of the index of each row group.
fn index_places(metadata: &ParquetMetaData) -> Option<Vec<(u64, u64)>> {
    value(metadata, INDEXES)?
        .split(',')
        .map(|place| {
            let (offset, len) = place.split_once(':')?;
            Some((offset.parse().ok()?, len.parse().ok()?))
        })
        .collect()
}

pub fn encode_value_counts(row_groups: &[Vec<u64>]) -> String {
    let mut text = String::new();
    for counts in row_groups {
        if !text.is_empty() {
            text.push(';');
        }
        let counts: Vec<String> = counts.iter().map(u64::to_string).collect();
        text.push_str(&counts.join(","));
    }
    text
}

/// `None` unless there is one for each column of each row group, and none has more than rows.
fn decode_value_counts(text: &str, metadata: &ParquetMetaData) -> Option<Vec<Vec<Option<u64>>>> {
    let counts_of = |text: &str, row_group: &RowGroupMetaData| -> Option<Vec<Option<u64>>> {
        let n_rows = u64::try_from(row_group.num_rows()).ok()?;
        let counts = text.split(',').map(|count| count.parse().ok());
        let counts: Vec<Option<u64>> = counts.collect();
        let fits = counts.len() == row_group.num_columns();
        let is_count = |count: &Option<u64>| count.is_some_and(|count| count <= n_rows);
        (fits && counts.iter().all(is_count)).then_some(counts)
    };
    let texts: Vec<&str> = text.split(';').collect();
    if texts.len() != metadata.num_row_groups() {
        return None;
    }
    let groups = texts.into_iter().zip(metadata.row_groups());
    groups.map(|(text, group)| counts_of(text, group)).collect()
}

/// Of segments without [`VALUE_COUNTS`], which have statistics for every column.
fn value_counts_by_statistics(metadata: &ParquetMetaData) -> Vec<Vec<Option<u64>>> {
    let counts_of = |row_group: &RowGroupMetaData| {
        let n_rows = u64::try_from(row_group.num_rows()).unwrap_or(0);
        let columns = row_group.columns().iter();
        let counts = columns.map(|chunk| {
            let n_nulls = chunk.statistics()?.null_count_opt()?;
            n_rows.checked_sub(n_nulls)
        });
        counts.collect()
    };
    metadata.row_groups().iter().map(counts_of).collect()
}

fn blob(metadata: &ParquetMetaData, offset_key: &str, len_key: &str) -> Option<(u64, u64)> {
    let number = |key: &str| -> Option<u64> { value(metadata, key)?.parse().ok() };
    Some((number(offset_key)?, number(len_key)?))
}

/// A value of the footer's key-value metadata.
fn value<'a>(metadata: &'a ParquetMetaData, key: &str) -> Option<&'a str> {
    let pairs = metadata.file_metadata().key_value_metadata()?;
    let pair = pairs.iter().find(|pair| pair.key == key)?;
    pair.value.as_deref()
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
    use parquet::arrow::ArrowWriter;

    use super::*;

    #[test]
    fn counts_of_values_come_from_the_footer_or_from_statistics() {
        let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None, Some("a")]));
        let none: ArrayRef = Arc::new(Int64Array::from(vec![None, None, None]));
        let batch = RecordBatch::try_from_iter([("s", texts), ("i", none)]).unwrap();
        let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
        for _ in 0..2 {
            writer.write(&batch).unwrap();
            writer.flush().unwrap();
        }
        let metadata = writer.finish().unwrap();
        let counts = [vec![2, 0], vec![2, 0]];
        let known = vec![vec![Some(2), Some(0)]; 2];
        assert_eq!(value_counts_by_statistics(&metadata), known);
        let text = encode_value_counts(&counts);
        assert_eq!(text, "2,0;2,0");
        assert_eq!(decode_value_counts(&text, &metadata), Some(known));
        for wrong in ["", "2,0", "2,0;2", "2,0;2,4", "2,0;2,x", "2,0;2,0;2,0"] {
            assert_eq!(decode_value_counts(wrong, &metadata), None, "{wrong}");
        }
    }
}
