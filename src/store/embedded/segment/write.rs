//! Writes one segment file, column by column and slice by slice, so that only a few mebibytes of values are in memory beside the compressed pages.
//!
//! Choices (`benches/store_write` says what they cost together): zstd level 1; row groups of at most `row_group_rows_max`; pages of at most `page_rows_max` rows or
//! `page_bytes_max` bytes; dictionaries where values repeat; time and numbers delta-packed, with statistics for their pages; of all columns the
//! number of values in the footer. The file gets its final name only when it is whole and synced: the caller syncs the folder.

use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray as _, DictionaryArray, UInt32Array};
use arrow::buffer::{BooleanBuffer, NullBuffer, ScalarBuffer};
use arrow::compute::take;
use arrow::datatypes::{
    DataType, Field, Schema, SchemaRef, TimestampNanosecondType, UInt32Type, UInt64Type,
};
use arrow::error::ArrowError;
use logyard_tokens::{IndexBuilder, IndexOptions, NO_KEY};
use parquet::arrow::ArrowSchemaConverter;
use parquet::arrow::arrow_writer::{ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::{KeyValue, SortingColumn};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesPtr};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::{ColumnPath, SchemaDescriptor, Type};
use xxhash_rust::xxh3::xxh3_64;

use crate::common::error::{Error, Result};
use crate::record::{Position, RecordKey};
use crate::store::embedded::schema::{self, Columns, SYSTEM_COLUMNS};
use crate::store::embedded::segment::file::encode_checksums;
use crate::store::embedded::segment::index::{add_column, add_words};
use crate::store::embedded::segment::pages::PageLog;
use crate::store::embedded::segment::{self, SegmentMeta};

/// Stands for "none" among the numbers of [`Words`], which the token index takes as they are.
pub const NO_VALUE: u32 = NO_KEY;
const DICTIONARY_BYTES_MAX: usize = 1 << 20;
/// Exact rows of frequent tokens go where they would make the index larger than a fifth of its rows.
const ROWS_TO_INDEX_SIZE: usize = 5;
/// Below so many rows a dictionary page costs more than it saves: zstd finds the repeats itself.
const DICTIONARY_ROWS_MIN: usize = 256;
/// Below so many values delta packing saves little, and its encoder takes a mebibyte for each column of the row group at once.
const DELTA_VALUES_MIN: usize = 4_096;
/// A column chunk of at most so many bytes of values is not compressed: it would save less than the compressor's set-up costs.
const COMPRESSED_BYTES_MIN: usize = 512;

/// Bytes of a column's values that are gathered, encoded and indexed at a time: little enough to stay in the processor's cache from one to the next.
const SLICE_BYTES: usize = 2 << 20;
const SLICE_ROWS_MIN: usize = 1_024;

#[derive(Clone, Debug)]
pub struct SegmentOptions {
    /// Default: 262,144.
    pub row_group_rows_max: usize,
    /// Default: 8,192.
    pub page_rows_max: usize,
    /// Bytes of a page before compression. Default: 256 KiB.
    pub page_bytes_max: usize,
    /// Default: 1.
    pub zstd_level: i32,
    /// Of the token index.
    pub index: IndexOptions,
}

impl Default for SegmentOptions {
    fn default() -> Self {
        Self {
            row_group_rows_max: 262_144,
            page_rows_max: 8_192,
            page_bytes_max: 256 << 10,
            zstd_level: 1,
            index: IndexOptions::default(),
        }
    }
}

/// Sorted rows, given by row group, column and slice.
pub trait RowSource {
    fn schema(&self) -> &SchemaRef;

    /// What is asked for from now on lies in these rows, which follow those of the row group before.
    fn begin_row_group(&mut self, rows: Range<usize>) -> Result<()>;

    /// The values of a column for rows `rows` in sorted order, as one array of the schema's type. Columns are asked for in ascending order; of
    /// each all rows of the row group, slice after slice.
    fn column(&mut self, column: usize, rows: Range<usize>) -> Result<ArrayRef>;

    /// The values of a column for all rows of the row group, if they are known by number; then they are not asked for by slices.
    fn words(&mut self, _column: usize, _rows: Range<usize>) -> Result<Option<Words>> {
        Ok(None)
    }

    /// What the values of a column in `rows` are like, roughly.
    fn outline(&self, column: usize, rows: &Range<usize>) -> Outline;
}

/// A column whose values repeat: the distinct ones, and which of them each row has.
pub struct Words {
    /// For each row its value's place in `values`, or [`NO_VALUE`].
    pub numbers: ScalarBuffer<u32>,
    /// Never null.
    pub values: ArrayRef,
}

impl Words {
    /// The numbers as Arrow has them.
    fn keys(&self) -> UInt32Array {
        let numbers = &self.numbers;
        let nulls = numbers.contains(&NO_VALUE).then(|| {
            let is_valid = |row: usize| numbers.get(row).is_some_and(|n| *n != NO_VALUE);
            NullBuffer::new(BooleanBuffer::collect_bool(numbers.len(), is_valid))
        });
        UInt32Array::new(numbers.clone(), nulls)
    }

    /// For the writer of the column: texts go by number, others are spelled out.
    fn to_array(&self) -> Result<ArrayRef, ArrowError> {
        if self.values.data_type() == &DataType::Utf8 {
            let array = DictionaryArray::try_new(self.keys(), Arc::clone(&self.values))?;
            return Ok(Arc::new(array));
        }
        take(&self.values, &self.keys(), None)
    }
}

/// A rough idea of a column's values, to choose how they are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outline {
    /// Other than null.
    pub n_values: usize,
    /// Of the values, before any encoding.
    pub size_bytes: usize,
    /// Values repeat enough for a dictionary.
    pub has_repeats: bool,
}

impl Outline {
    /// Of `n_rows` of the `n_rows_all` that this is about, if they are like the others.
    pub fn of_part(self, n_rows: usize, n_rows_all: usize) -> Self {
        let share = n_rows as f64 / n_rows_all.max(1) as f64;
        let scaled = |count: usize| (count as f64 * share).ceil() as usize;
        Self {
            n_values: scaled(self.n_values),
            size_bytes: scaled(self.size_bytes),
            has_repeats: self.has_repeats,
        }
    }
}

/// What is written, beside the rows.
pub struct NewSegment<'a> {
    pub folder: &'a Path,
    pub id: u64,
    pub day: i32,
    /// Of the source, in order; all of one UTC day.
    pub rows: Range<usize>,
    pub max_arrival_ns: i64,
    /// Rows of a row group, where long rows need fewer than the option allows.
    pub row_group_rows: usize,
}

/// Writes and syncs the file. `check` is called between columns and may stop the work; then no file is left.
pub fn write_segment(
    new: &NewSegment<'_>,
    source: &mut dyn RowSource,
    options: &SegmentOptions,
    check: &mut dyn FnMut() -> Result<()>,
) -> Result<SegmentMeta> {
    let path = new.folder.join(segment::file_name(new.day, new.id));
    let temporary = path.with_extension("tmp");
    let written = write_file(new, &temporary, source, options, check).and_then(|meta| {
        let renamed = std::fs::rename(&temporary, &path);
        renamed
            .map_err(|error| write_error(&path, error))
            .map(|()| meta)
    });
    if written.is_err() {
        // What is left would only wait for the next start to be removed.
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

fn write_file(
    new: &NewSegment<'_>,
    path: &Path,
    source: &mut dyn RowSource,
    options: &SegmentOptions,
    check: &mut dyn FnMut() -> Result<()>,
) -> Result<SegmentMeta> {
    let failed = |error| write_error(path, error);
    let parquet_failed = |error: ParquetError| write_error(path, error);
    let file = File::create(path).map_err(failed)?;
    let synced = file.try_clone().map_err(failed)?;
    let pages = PageLog::default();
    let properties = properties(source, &new.rows, options)?;
    let schema = Arc::clone(source.schema());
    let converter = ArrowSchemaConverter::new();
    let parquet_schema = converter.convert(&schema).map_err(parquet_failed)?;
    let root = parquet_schema.root_schema_ptr();
    let writer = SerializedFileWriter::new(file, root, Arc::new(properties));
    let mut writer = writer.map_err(parquet_failed)?;
    let mut work = Work {
        column_writers: ColumnWriters {
            schema: Arc::clone(&schema),
            parquet_schema,
            properties: Arc::clone(writer.properties()),
            pages: pages.clone(),
        },
        writer: &mut writer,
        source,
        columns: Columns::from_schema(&schema)?,
        index_options: &options.index,
        pages: &pages,
        keys: Keys::default(),
        indexes: Vec::new(),
        value_counts: Vec::new(),
        check,
    };
    let mut row = new.rows.start;
    let group_rows = new
        .row_group_rows
        .clamp(1, options.row_group_rows_max.max(1));
    while row < new.rows.end {
        let end = new.rows.end.min(row + group_rows);
        work.write_row_group(row..end)
            .map_err(|error| error.name(path))?;
        row = end;
    }
    work.append_blobs(schema::describe(&schema)?)
        .map_err(failed)?;
    let keys = work.keys;
    let footer_offset = writer.bytes_written() as u64;
    writer.close().map_err(parquet_failed)?;
    synced.sync_all().map_err(failed)?;
    let tail = read_from(path, footer_offset).map_err(failed)?;
    Ok(SegmentMeta {
        id: new.id,
        day: new.day,
        n_rows: new.rows.len() as u64,
        min_key: keys.first,
        max_key: keys.last,
        max_arrival_ns: new.max_arrival_ns,
        size_bytes: footer_offset + tail.len() as u64,
        footer_offset,
        footer_checksum: xxh3_64(&tail),
    })
}

/// The keys of the first and the last row, taken from the columns as they pass.
struct Keys {
    first: RecordKey,
    last: RecordKey,
}

impl Default for Keys {
    fn default() -> Self {
        let zero = RecordKey {
            timestamp_ns: 0,
            position: Position::default(),
        };
        Self {
            first: zero,
            last: zero,
        }
    }
}

impl Keys {
    fn note(&mut self, column: usize, array: &ArrayRef, is_first: bool) {
        let Some(last) = array.len().checked_sub(1) else {
            return;
        };
        let first = is_first.then_some((&mut self.first, 0));
        for (key, row) in first.into_iter().chain([(&mut self.last, last)]) {
            match column {
                schema::TIMESTAMP => {
                    let times = array.as_primitive_opt::<TimestampNanosecondType>();
                    key.timestamp_ns = times.map_or(0, |values| values.value(row));
                }
                schema::SEQ => {
                    let seqs = array.as_primitive_opt::<UInt64Type>();
                    key.position.seq = seqs.map_or(0, |values| values.value(row));
                }
                schema::PARTITION => {
                    let partitions = array.as_primitive_opt::<UInt32Type>();
                    key.position.partition = partitions.map_or(0, |values| values.value(row));
                }
                _ => {}
            }
        }
    }
}

/// An error of ours, or one that still needs the path.
enum GroupError {
    Ours(Error),
    Parquet(ParquetError),
    Io(std::io::Error),
}

impl GroupError {
    fn name(self, path: &Path) -> Error {
        match self {
            Self::Ours(error) => error,
            Self::Parquet(error) => write_error(path, error),
            Self::Io(error) => write_error(path, error),
        }
    }
}

impl From<Error> for GroupError {
    fn from(error: Error) -> Self {
        Self::Ours(error)
    }
}

impl From<ParquetError> for GroupError {
    fn from(error: ParquetError) -> Self {
        Self::Parquet(error)
    }
}

impl From<std::io::Error> for GroupError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

/// A file being written.
struct Work<'a> {
    writer: &'a mut SerializedFileWriter<File>,
    column_writers: ColumnWriters,
    source: &'a mut dyn RowSource,
    columns: Columns,
    index_options: &'a IndexOptions,
    pages: &'a PageLog,
    keys: Keys,
    /// (offset, length) of each row group's token index.
    indexes: Vec<(u64, u64)>,
    /// For each row group, of each column the values other than null.
    value_counts: Vec<Vec<u64>>,
    check: &'a mut dyn FnMut() -> Result<()>,
}

impl Work<'_> {
    fn write_row_group(&mut self, rows: Range<usize>) -> Result<(), GroupError> {
        let schema = Arc::clone(self.source.schema());
        let start = self.writer.bytes_written();
        self.pages.seek(start as u64);
        let n_rows = u32::try_from(rows.len())
            .map_err(|_| Error::internal("a row group of 4 billion rows"))?;
        let mut index = IndexBuilder::new(n_rows, self.index_options.clone());
        self.source.begin_row_group(rows.clone())?;
        let mut row_group = self.writer.next_row_group()?;
        let mut value_counts = Vec::with_capacity(schema.fields().len());
        for column in 0..schema.fields().len() {
            (self.check)()?;
            let number = u32::try_from(column)
                .map_err(|_| Error::internal("a schema of 4 billion columns"))?;
            let is_overflow = self.columns.overflow() == Some(column);
            let value_type = self.columns.info(column).map(|info| info.value_type);
            let mut column_writer = self.column_writers.create(column)?;
            let mut n_values = 0;
            if let Some(words) = self.source.words(column, rows.clone())? {
                let array = words.to_array().map_err(ParquetError::from)?;
                n_values += write_array(&mut column_writer, schema.field(column), &array)?;
                add_words(&mut index, number, value_type, &words);
            } else {
                let size_bytes = self.source.outline(column, &rows).size_bytes;
                for slice in slices(&rows, size_bytes, self.index_options.page_rows) {
                    let array = self.source.column(column, slice.clone())?;
                    let is_first = self.indexes.is_empty() && slice.start == rows.start;
                    self.keys.note(column, &array, is_first);
                    n_values += write_array(&mut column_writer, schema.field(column), &array)?;
                    if is_overflow || value_type.is_some() {
                        let first_row = u32::try_from(slice.start - rows.start).unwrap_or(u32::MAX);
                        add_column(&mut index, number, first_row, value_type, &array);
                    }
                }
            }
            value_counts.push(n_values);
            column_writer.close()?.append_to_row_group(&mut row_group)?;
        }
        row_group.close()?;
        let end = self.writer.bytes_written();
        let bytes = index.finish_within((end - start) / ROWS_TO_INDEX_SIZE);
        self.writer.write_all(&bytes)?;
        self.indexes.push((end as u64, bytes.len() as u64));
        self.value_counts.push(value_counts);
        Ok(())
    }

    /// Appends what lies between the row groups and the footer, and names it in the footer.
    fn append_blobs(&mut self, columns: String) -> std::io::Result<()> {
        let places = self.indexes.iter();
        let places: Vec<_> = places
            .map(|(offset, len)| format!("{offset}:{len}"))
            .collect();
        let checksums = encode_checksums(&self.pages.take());
        let offset = self.writer.bytes_written();
        for (key, value) in [
            (segment::FORMAT, segment::FORMAT_VERSION.to_owned()),
            (segment::COLUMNS, columns),
            (segment::INDEXES, places.join(",")),
            (
                segment::VALUE_COUNTS,
                segment::encode_value_counts(&self.value_counts),
            ),
            (segment::CHECKSUMS_OFFSET, offset.to_string()),
            (segment::CHECKSUMS_LEN, checksums.len().to_string()),
        ] {
            let pair = KeyValue::new(key.to_owned(), value);
            self.writer.append_key_value_metadata(pair);
        }
        self.writer.write_all(&checksums)?;
        self.writer.flush()
    }
}

/// Returns how many values other than null were written.
fn write_array(
    writer: &mut ArrowColumnWriter,
    field: &Field,
    array: &ArrayRef,
) -> Result<u64, ParquetError> {
    for leaf in compute_leaves(field, array)? {
        writer.write(&leaf)?;
    }
    Ok((array.len() - array.null_count()) as u64)
}

/// `rows` in slices of about [`SLICE_BYTES`], given the bytes of all. Slices longer than a page of the index end where one does, which saves the index
/// work.
fn slices(
    rows: &Range<usize>,
    size_bytes: usize,
    page_rows: u32,
) -> impl Iterator<Item = Range<usize>> + use<> {
    let bytes_per_row = (size_bytes / rows.len().max(1)).max(1);
    let n_rows = (SLICE_BYTES / bytes_per_row).max(SLICE_ROWS_MIN);
    let n_rows = match n_rows / page_rows.max(1) as usize {
        0 => n_rows,
        n_pages => n_pages * page_rows as usize,
    };
    let end = rows.end;
    rows.clone()
        .step_by(n_rows)
        .map(move |start| start..end.min(start + n_rows))
}

/// Makes the writers of columns one by one: those of a whole row group, made at once, would each hold a compressor and a decompressor until their turn.
struct ColumnWriters {
    schema: SchemaRef,
    parquet_schema: SchemaDescriptor,
    properties: WriterPropertiesPtr,
    pages: PageLog,
}

impl ColumnWriters {
    /// The library makes all writers of a schema at once: it gets one of this column alone. Its pages go into any row group with that column.
    fn create(&self, column: usize) -> Result<ArrowColumnWriter, ParquetError> {
        let parquet_type = self.parquet_schema.column(column).self_type_ptr();
        let root = Type::group_type_builder(self.parquet_schema.name())
            .with_fields(vec![parquet_type])
            .build()?;
        let alone = SerializedFileWriter::new(
            std::io::sink(),
            Arc::new(root),
            Arc::clone(&self.properties),
        )?;
        let field = Arc::new(self.schema.field(column).clone());
        let schema = Arc::new(Schema::new(vec![field]));
        let factory = ArrowRowGroupWriterFactory::new(&alone, schema)
            .with_page_store_factory(Arc::new(self.pages.clone()));
        let writer = factory.create_column_writers(0)?.pop();
        writer.ok_or_else(|| ParquetError::General("a column without a writer".to_owned()))
    }
}

fn properties(
    source: &dyn RowSource,
    rows: &Range<usize>,
    options: &SegmentOptions,
) -> Result<WriterProperties> {
    let level = ZstdLevel::try_new(options.zstd_level)
        .map_err(|error| Error::internal("zstd level out of range").with_source(error))?;
    let sorted = (0..SYSTEM_COLUMNS.len())
        .filter(|index| [schema::TIMESTAMP, schema::PARTITION, schema::SEQ].contains(index));
    let mut builder = WriterProperties::builder()
        .set_created_by(format!("logyard {}", env!("CARGO_PKG_VERSION")))
        .set_compression(Compression::ZSTD(level))
        .set_data_page_row_count_limit(options.page_rows_max)
        .set_data_page_size_limit(options.page_bytes_max)
        .set_dictionary_page_size_limit(DICTIONARY_BYTES_MAX)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_max_row_group_row_count(None)
        .set_sorting_columns(Some(sorting_columns(sorted)));
    for (index, field) in source.schema().fields().iter().enumerate() {
        let path = ColumnPath::new(vec![field.name().clone()]);
        let outline = source.outline(index, rows);
        let has_dictionary = match index {
            schema::TIMESTAMP | schema::SEQ => false,
            schema::PARTITION | schema::TIMESTAMP_DIGITS | schema::FLAGS => true,
            _ => DICTIONARY_ROWS_MIN <= rows.len() && outline.has_repeats,
        };
        builder = builder.set_column_dictionary_enabled(path.clone(), has_dictionary);
        // With a dictionary this is what a chunk falls back to whose dictionary grows too large.
        let is_plain = has_dictionary || outline.n_values < DELTA_VALUES_MIN;
        let encoding = match field.data_type() {
            DataType::Boolean | DataType::Float64 => Encoding::PLAIN,
            _ if is_plain => Encoding::PLAIN,
            DataType::Utf8 => Encoding::DELTA_LENGTH_BYTE_ARRAY,
            _ => Encoding::DELTA_BINARY_PACKED,
        };
        builder = builder.set_column_encoding(path.clone(), encoding);
        if outline.size_bytes < COMPRESSED_BYTES_MIN {
            builder = builder.set_column_compression(path.clone(), Compression::UNCOMPRESSED);
        }
        // Nobody asks for the least and the greatest text, which cost two comparisons of each with the last ones.
        let statistics = match field.data_type() {
            DataType::Utf8 => EnabledStatistics::None,
            DataType::Boolean => EnabledStatistics::Chunk,
            _ => EnabledStatistics::Page,
        };
        builder = builder.set_column_statistics_enabled(path, statistics);
    }
    Ok(builder.build())
}

fn sorting_columns(indices: impl Iterator<Item = usize>) -> Vec<SortingColumn> {
    // Sorted by time, then partition, then seq: not the order of the columns.
    let mut sorted: Vec<_> = indices
        .filter_map(|index| i32::try_from(index).ok())
        .collect();
    sorted.sort_by_key(|index| (*index != 0, std::cmp::Reverse(*index)));
    sorted
        .into_iter()
        .map(|column_idx| SortingColumn {
            column_idx,
            descending: false,
            nulls_first: false,
        })
        .collect()
}

fn read_from(path: &Path, offset: u64) -> std::io::Result<Vec<u8>> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn write_error(path: &Path, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    let source = source.into();
    Error::unavailable(
        "store_write_failed",
        format!("cannot write segment {}: {source}", path.display()),
    )
    .with_source(source)
}
