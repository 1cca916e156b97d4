//! What a segment knows of a term's matches before any row is read: from the token index, the dictionaries of columns and the statistics of pages.
//!
//! Row groups are asked one by one, each has an index of its own. A damaged index costs time, not truth: its rows are read instead.

use std::ops::{Bound, Range};
use std::sync::Arc;

use logyard_tokens::Candidates;
use parquet::basic::Encoding;
use parquet::column::page::{Page, PageReader as _};
use parquet::file::metadata::{ColumnChunkMetaData, RowGroupMetaData};
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use parquet::file::serialized_reader::SerializedPageReader;
use roaring::RoaringBitmap;

use crate::common::error::Result;
use crate::query::Field;
use crate::query::number::Number;
use crate::record::value::ValueType;
use crate::store::embedded::read::bounds::{Bounds, Rows};
use crate::store::embedded::read::part::Part;
use crate::store::embedded::read::sought::{Sought, SoughtText};
use crate::store::embedded::read::term::{CompiledTerm, Source};
use crate::store::embedded::segment::SegmentReader;

/// Dictionaries larger than this (compressed) are not worth reading beforehand.
const DICTIONARY_BYTES_MAX: i64 = 16 << 10;
/// More columns than this are looked up together.
const COLUMNS_APART_MAX: usize = 64;

/// What is known of `term` in `part`, where its field can stand at `sources`.
pub fn bounds(term: &CompiledTerm, part: &Part, sources: &[Source]) -> Result<Bounds> {
    if sources.is_empty() {
        return Ok(Bounds::exact(Rows::None));
    }
    let Part::Segment(reader, _) = part else {
        return Ok(Bounds::unknown());
    };
    let mut sure = RoaringBitmap::new();
    let mut maybe = RoaringBitmap::new();
    let starts = reader.row_group_starts();
    for (index, start) in starts.iter().enumerate() {
        let Some(group) = Group::new(reader, index, *start) else {
            return Ok(Bounds::unknown());
        };
        let bounds = group.bounds(term, sources)?;
        group.append(&bounds.sure, &mut sure);
        group.append(&bounds.maybe, &mut maybe);
    }
    let all = u64::from(part.n_rows());
    let rows = |rows: RoaringBitmap| match rows.len() {
        0 => Rows::None,
        count if count == all => Rows::All,
        _ => Rows::Some(rows),
    };
    Ok(Bounds {
        sure: rows(sure),
        maybe: rows(maybe),
    })
}

/// One row group; its rows count from 0.
struct Group<'a> {
    reader: &'a SegmentReader,
    metadata: &'a RowGroupMetaData,
    index: usize,
    rows: Range<u32>,
}

impl<'a> Group<'a> {
    fn new(reader: &'a SegmentReader, index: usize, start: u64) -> Option<Self> {
        let metadata = reader.metadata().row_groups().get(index)?;
        let start = u32::try_from(start).ok()?;
        let n_rows = u32::try_from(metadata.num_rows()).ok()?;
        Some(Self {
            reader,
            metadata,
            index,
            rows: start..start.checked_add(n_rows)?,
        })
    }

    fn n_rows(&self) -> u32 {
        self.rows.end - self.rows.start
    }

    /// Appends rows of the group to rows of the segment.
    fn append(&self, rows: &Rows, into: &mut RoaringBitmap) {
        match rows {
            Rows::None => {}
            Rows::All => {
                into.insert_range(self.rows.clone());
            }
            Rows::Some(rows) if self.rows.start == 0 => *into |= rows,
            Rows::Some(rows) => {
                let mut iter = rows.iter();
                while let Some(run) = iter.next_range() {
                    into.insert_range(self.rows.start + run.start()..=self.rows.start + run.end());
                }
            }
        }
    }

    fn bounds(&self, term: &CompiledTerm, sources: &[Source]) -> Result<Bounds> {
        if let (Field::Any, Sought::Texts(texts)) = (term.field(), term.sought()) {
            let is_plain = texts.iter().all(SoughtText::is_plain_word);
            if is_plain || COLUMNS_APART_MAX < sources.len() {
                return Ok(self.anywhere(texts));
            }
        }
        let mut bounds = Bounds::exact(Rows::None);
        for source in sources {
            if bounds.sure == Rows::All {
                break;
            }
            bounds = bounds.or(&self.source_bounds(term, source)?);
        }
        Ok(bounds)
    }

    /// The rows of any column that hold one of the texts.
    fn anywhere(&self, texts: &[SoughtText]) -> Bounds {
        let mut all = Bounds::exact(Rows::None);
        for text in texts {
            let mut bounds = self.tokens(None, text);
            if !text.is_plain_word() {
                for value in text.number.iter().map(String::as_str).chain(boolean(text)) {
                    bounds = bounds.or(&self.lookup(None, value));
                }
                bounds.sure = Rows::None;
            }
            all = all.or(&bounds);
        }
        all
    }

    fn source_bounds(&self, term: &CompiledTerm, source: &Source) -> Result<Bounds> {
        let n_values = self.reader.n_values(self.index, source.index());
        if n_values == Some(0) {
            return Ok(Bounds::exact(Rows::None));
        }
        let has_all = n_values == Some(u64::from(self.n_rows()));
        let column = u32::try_from(source.index()).ok();
        Ok(match (source, term.sought()) {
            (Source::Column { value_type, .. }, Sought::Texts(texts)) => {
                self.texts(term, *value_type, source.index(), texts, has_all)?
            }
            (Source::Column { .. }, Sought::Exists) if has_all => Bounds::exact(Rows::All),
            (
                Source::Column {
                    value_type: ValueType::Int | ValueType::Float,
                    ..
                }
                | Source::Time,
                Sought::Numbers { low, high },
            ) => self.numbers(source.index(), low, high),
            (
                Source::Column {
                    value_type: ValueType::Str,
                    ..
                },
                _,
            ) => self.by_dictionary(term, source.index(), has_all)?,
            (Source::Overflow { .. }, Sought::Texts(texts)) => {
                let bounds = self.json(column, texts);
                match term.field() {
                    Field::Any => bounds,
                    Field::Addresses(_) => Bounds::at_most(bounds.maybe),
                }
            }
            (Source::Inside { .. }, Sought::Texts(texts)) => {
                Bounds::at_most(self.json(column, texts).maybe)
            }
            (Source::Time, Sought::Exists) => Bounds::exact(Rows::All),
            (Source::Time, _) => Bounds::exact(Rows::None),
            _ => Bounds::unknown(),
        })
    }

    fn texts(
        &self,
        term: &CompiledTerm,
        value_type: ValueType,
        index: usize,
        texts: &[SoughtText],
        has_all: bool,
    ) -> Result<Bounds> {
        let column = u32::try_from(index).ok();
        let mut all = Bounds::exact(Rows::None);
        match value_type {
            ValueType::Str => {
                let mut is_exact = true;
                for text in texts {
                    let bounds = self.tokens(column, text);
                    is_exact &= text.is_one_word && bounds.sure == bounds.maybe;
                    all = all.or(&bounds);
                }
                if is_exact || all.maybe == Rows::None {
                    return Ok(all);
                }
                if let Some(values) = self.dictionary(index) {
                    let tokens = |value: &String| texts.iter().any(|text| text.holds_tokens(value));
                    let matches = |value: &String| term.matcher().matches_str(value);
                    if all.sure == all.maybe && values.iter().all(|v| tokens(v) == matches(v)) {
                        return Ok(all);
                    }
                    all.maybe = all
                        .maybe
                        .and(&dictionary_bounds(&values, term, has_all).maybe);
                }
                all.sure = Rows::None;
            }
            ValueType::Json => return Ok(self.json(column, texts)),
            ValueType::Int | ValueType::Float | ValueType::Number => {
                for text in texts {
                    if let Some(value) = &text.number {
                        let mut bounds = self.lookup(column, value);
                        if value_type == ValueType::Number || !text.is_number_exact {
                            bounds.sure = Rows::None;
                        }
                        all = all.or(&bounds);
                    }
                }
            }
            ValueType::Bool => {
                for value in texts.iter().filter_map(boolean) {
                    all = all.or(&self.lookup(column, value));
                }
            }
            ValueType::Null => {}
        }
        Ok(all)
    }

    /// Leaves of JSON: text, numbers and booleans under one column.
    fn json(&self, column: Option<u32>, texts: &[SoughtText]) -> Bounds {
        let mut all = Bounds::exact(Rows::None);
        for text in texts {
            let mut bounds = self.tokens(column, text);
            if !text.is_plain_word() {
                for value in text.number.iter().map(String::as_str).chain(boolean(text)) {
                    bounds = bounds.or(&self.lookup(column, value));
                }
                bounds.sure = Rows::None;
            }
            all = all.or(&bounds);
        }
        all
    }

    /// Rows that hold all tokens of `text`.
    fn tokens(&self, column: Option<u32>, text: &SoughtText) -> Bounds {
        let mut all: Option<Bounds> = None;
        for token in &text.tokens {
            let bounds = self.lookup(column, token);
            all = Some(match all {
                None => bounds,
                Some(all) => all.and(&bounds),
            });
        }
        all.unwrap_or_else(Bounds::unknown)
    }

    fn lookup(&self, column: Option<u32>, token: &str) -> Bounds {
        let Some(index) = self.reader.indexes().get(self.index) else {
            return Bounds::unknown();
        };
        match index.lookup(column, token) {
            Ok(Candidates::Empty) => Bounds::exact(Rows::None),
            Ok(Candidates::Rows(rows)) => Bounds::exact(Rows::of(rows)),
            Ok(Candidates::Pages(pages)) => {
                let mut rows = RoaringBitmap::new();
                for page in pages {
                    let start = page.saturating_mul(index.page_rows());
                    let end = start.saturating_add(index.page_rows()).min(self.n_rows());
                    rows.insert_range(start..end);
                }
                Bounds::at_most(Rows::of(rows))
            }
            Err(error) => {
                let path = self.reader.file().path().display();
                tracing::warn!(segment = %path, %error, "a token index cannot be read, its rows are read instead");
                Bounds::unknown()
            }
        }
    }

    /// Pages whose least and greatest numbers decide.
    fn numbers(&self, column: usize, low: &Bound<Number>, high: &Bound<Number>) -> Bounds {
        let metadata = self.reader.metadata();
        let index = metadata
            .column_index()
            .and_then(|all| all.get(self.index)?.get(column));
        let pages = metadata
            .offset_index()
            .and_then(|all| all.get(self.index)?.get(column));
        let (Some(index), Some(pages)) = (index, pages) else {
            return Bounds::unknown();
        };
        let locations = pages.page_locations();
        let mut sure = RoaringBitmap::new();
        let mut maybe = RoaringBitmap::new();
        for (page, location) in locations.iter().enumerate() {
            let start = u32::try_from(location.first_row_index).unwrap_or(0);
            let next = locations.get(page + 1).map(|next| next.first_row_index);
            let end = next.map_or(self.n_rows(), |next| u32::try_from(next).unwrap_or(0));
            let (touches, is_inside) = match index {
                ColumnIndexMetaData::INT64(values) => {
                    let ends = values.min_value(page).zip(values.max_value(page));
                    ends.map(|(min, max)| {
                        span(low, high, |n| n.compare_int(*min), |n| n.compare_int(*max))
                    })
                }
                ColumnIndexMetaData::DOUBLE(values) => {
                    let ends = values.min_value(page).zip(values.max_value(page));
                    ends.map(|(min, max)| {
                        span(
                            low,
                            high,
                            |n| n.compare_float(*min),
                            |n| n.compare_float(*max),
                        )
                    })
                }
                _ => None,
            }
            .unwrap_or((!index.is_null_page(page), false));
            if touches {
                maybe.insert_range(start..end);
            }
            if is_inside && index.null_count(page) == Some(0) {
                sure.insert_range(start..end);
            }
        }
        Bounds {
            sure: Rows::of(sure),
            maybe: Rows::of(maybe),
        }
    }

    fn by_dictionary(&self, term: &CompiledTerm, index: usize, has_all: bool) -> Result<Bounds> {
        let values = self.dictionary(index);
        Ok(values.map_or_else(Bounds::unknown, |values| {
            dictionary_bounds(&values, term, has_all)
        }))
    }

    /// All values of a text column, if they stand in one small dictionary.
    fn dictionary(&self, column: usize) -> Option<Vec<String>> {
        let chunk = self.metadata.columns().get(column)?;
        let size = chunk.data_page_offset() - chunk.dictionary_page_offset()?;
        let is_whole = !chunk
            .encodings()
            .any(|encoding| encoding == Encoding::DELTA_LENGTH_BYTE_ARRAY);
        if DICTIONARY_BYTES_MAX < size || !is_whole {
            return None;
        }
        self.read_dictionary(column, chunk)
    }

    fn read_dictionary(&self, column: usize, chunk: &ColumnChunkMetaData) -> Option<Vec<String>> {
        let offset_index = self.reader.metadata().offset_index()?;
        let locations = offset_index.get(self.index)?.get(column)?.page_locations();
        let file = Arc::new(self.reader.file().clone());
        let n_rows = usize::try_from(self.n_rows()).ok()?;
        let mut pages =
            SerializedPageReader::new(file, chunk, n_rows, Some(locations.clone())).ok()?;
        let Ok(Some(Page::DictionaryPage {
            buf, num_values, ..
        })) = pages.get_next_page()
        else {
            return None;
        };
        let mut values = Vec::with_capacity(usize::try_from(num_values).ok()?.min(buf.len()));
        let mut rest: &[u8] = &buf;
        for _ in 0..num_values {
            let (len, after) = rest.split_first_chunk::<4>()?;
            let len = usize::try_from(u32::from_le_bytes(*len)).ok()?;
            let (value, after) = after.split_at_checked(len)?;
            values.push(std::str::from_utf8(value).ok()?.to_owned());
            rest = after;
        }
        Some(values)
    }
}

/// What a column's distinct values say of all its rows.
fn dictionary_bounds(values: &[String], term: &CompiledTerm, has_all: bool) -> Bounds {
    let n_matching = values
        .iter()
        .filter(|value| term.matcher().matches_str(value))
        .count();
    if n_matching == 0 {
        Bounds::exact(Rows::None)
    } else if n_matching == values.len() && has_all {
        Bounds::exact(Rows::All)
    } else {
        Bounds::unknown()
    }
}

fn boolean(text: &SoughtText) -> Option<&'static str> {
    text.boolean
        .map(|value| if value { "true" } else { "false" })
}

/// Whether values between a least and a greatest one can lie in the range, and whether all do.
fn span(
    low: &Bound<Number>,
    high: &Bound<Number>,
    compare_min: impl Fn(&Number) -> std::cmp::Ordering,
    compare_max: impl Fn(&Number) -> std::cmp::Ordering,
) -> (bool, bool) {
    let above = |compare: &dyn Fn(&Number) -> std::cmp::Ordering| match low {
        Bound::Included(low) => compare(low).is_ge(),
        Bound::Excluded(low) => compare(low).is_gt(),
        Bound::Unbounded => true,
    };
    let below = |compare: &dyn Fn(&Number) -> std::cmp::Ordering| match high {
        Bound::Included(high) => compare(high).is_le(),
        Bound::Excluded(high) => compare(high).is_lt(),
        Bound::Unbounded => true,
    };
    let touches = above(&compare_max) && below(&compare_min);
    let is_inside = above(&compare_min) && below(&compare_max);
    (touches, is_inside)
}
