//! The one value that a record has at an address, for groups and aggregates.
//!
//! A record can have several fields at one address (`{"a":{"b":1},"a.b":2}`): the one whose key is least, bytewise, among those that are not null
//! counts. Arrays are one value, their JSON text; what lies inside them is at no address of its own here.

use arrow::array::{Array as _, ArrayRef, RecordBatch};

use crate::common::error::Result;
use crate::record::value::ValueType;
use crate::record::{Value, ValueRef, key};
use crate::store::embedded::overflow;
use crate::store::embedded::read::part::Part;
use crate::store::embedded::schema::{ColumnInfo, Columns};
use crate::store::embedded::spill::value_at;

/// Where a part holds the values of an address.
pub struct FieldReader {
    address: String,
    /// Ordered by key.
    columns: Vec<ColumnInfo>,
    overflow: Option<usize>,
}

/// The values of one batch.
pub enum FieldValues<'a> {
    None,
    Column(&'a ArrayRef, ValueType),
    Mixed(Vec<Option<Value>>),
}

impl FieldReader {
    pub fn new(columns: &Columns, address: &str) -> Self {
        let indices = columns.by_address(address).iter();
        let mut found: Vec<ColumnInfo> = indices
            .filter_map(|index| columns.info(*index).cloned())
            .filter(|info| info.value_type != ValueType::Null)
            .collect();
        found.sort_by(|a, b| a.key.cmp(&b.key));
        Self {
            address: address.to_owned(),
            columns: found,
            overflow: columns.overflow(),
        }
    }

    /// The columns it needs.
    pub fn indices(&self) -> impl Iterator<Item = usize> {
        let indices = self.columns.iter().map(|info| info.index);
        indices.chain(self.overflow)
    }

    /// The values in a batch of `columns`.
    pub fn values<'a>(&self, batch: &'a RecordBatch, columns: &[usize]) -> Result<FieldValues<'a>> {
        let array = |index: usize| {
            let place = Part::place(columns, index);
            place.and_then(|place| batch.columns().get(place))
        };
        let overflow = self.overflow.and_then(array);
        let overflow = overflow.filter(|texts| texts.null_count() < texts.len());
        let mut arrays = self.columns.iter().filter_map(|info| {
            let array = array(info.index)?;
            (array.null_count() < array.len()).then_some((info, array))
        });
        let first = arrays.next();
        let Some((info, array)) = first else {
            return match overflow {
                None => Ok(FieldValues::None),
                Some(texts) => self.mixed(&[], Some(texts), batch.num_rows()),
            };
        };
        let mut all = vec![(info, array)];
        all.extend(arrays);
        if all.len() == 1 && overflow.is_none() {
            return Ok(FieldValues::Column(array, info.value_type));
        }
        self.mixed(&all, overflow, batch.num_rows())
    }

    fn mixed<'a>(
        &self,
        arrays: &[(&ColumnInfo, &ArrayRef)],
        overflow: Option<&ArrayRef>,
        n_rows: usize,
    ) -> Result<FieldValues<'a>> {
        let mut values = Vec::with_capacity(n_rows);
        for at in 0..n_rows {
            let mut best = arrays.iter().find_map(|(info, array)| {
                let value = value_at(array, info.value_type, at)?;
                Some((info.key.to_string(), value.to_value()))
            });
            let text = overflow.and_then(|texts| value_at(texts, ValueType::Json, at));
            if let Some(ValueRef::Json(text)) = text {
                for (field, value) in overflow::parse(text)? {
                    let is_better = best.as_ref().is_none_or(|(key, _)| field < *key);
                    if is_better && value != Value::Null && key::address(&field) == self.address {
                        best = Some((field, value));
                    }
                }
            }
            values.push(best.map(|(_, value)| value));
        }
        Ok(FieldValues::Mixed(values))
    }
}

impl FieldValues<'_> {
    pub fn get(&self, at: usize) -> Option<ValueRef<'_>> {
        match self {
            Self::None => None,
            Self::Column(array, value_type) => value_at(array, *value_type, at),
            Self::Mixed(values) => values.get(at)?.as_ref().map(Value::as_value_ref),
        }
    }
}
