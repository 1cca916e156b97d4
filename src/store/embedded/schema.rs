//! The shape of rows: Arrow schemas in which every column says whose field it is. Used in the head and in segments alike.
//!
//! System columns stand first and are never null (see [`SYSTEM_COLUMNS`]). Then comes one nullable column for each (field key, value type),
//! and last, where there is one, the overflow column. A column's field metadata `logyard.key` and `logyard.type` are the truth; its Arrow name is
//! the key where that is still free, else `key|typename`, for other tools that read the files.
//!
//! Types: `Str`, `Number` and `Json` are `Utf8`, `Int` is `Int64`, `Float` is `Float64`, `Bool` is `Boolean`, `Null` is `Boolean` (true where the
//! null stands, else null). The overflow column is `Utf8`: a JSON object `{"escaped key": value, …}` with the fields that got no column, null
//! where there are none. A record's field is in exactly one of its columns or in the overflow.
//!
//! `Utf8`, not `Utf8View`: a null or short value costs 4 bytes instead of 16 (wide sparse events would fill the head with views), and the
//! contiguous text can be searched in one pass. A reader may still ask Parquet for dictionaries (`ArrowReaderOptions::with_schema`).

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrowPrimitiveType, AsArray as _, PrimitiveArray, RecordBatch};
use arrow::datatypes::{
    DataType, Field, Schema, SchemaRef, TimeUnit, TimestampNanosecondType, UInt32Type, UInt64Type,
};

use crate::common::error::{Error, Result};
use crate::record::key;
use crate::record::value::ValueType;

pub const TIMESTAMP: usize = 0;
pub const SEQ: usize = 1;
pub const PARTITION: usize = 2;
pub const TIMESTAMP_DIGITS: usize = 3;
pub const FLAGS: usize = 4;
/// Names of the system columns, in order.
pub const SYSTEM_COLUMNS: [&str; 5] = [
    "timestamp",
    "_seq",
    "_partition",
    "_timestamp_digits",
    "_flags",
];
pub const OVERFLOW: &str = "_overflow";

const KEY_METADATA: &str = "logyard.key";
const TYPE_METADATA: &str = "logyard.type";
const TYPE_OVERFLOW: &str = "overflow";

/// What a field's column holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnInfo {
    /// Index in the record batch, and of the leaf in Parquet.
    pub index: usize,
    pub key: Arc<str>,
    pub address: Arc<str>,
    pub value_type: ValueType,
}

/// The field columns of a schema, found by address.
#[derive(Clone, Debug, Default)]
pub struct Columns {
    fields: Vec<ColumnInfo>,
    by_address: HashMap<Arc<str>, Vec<usize>, ahash::RandomState>,
    json: Vec<usize>,
    overflow: Option<usize>,
}

impl Columns {
    pub fn from_schema(schema: &Schema) -> Result<Self> {
        let mut columns = Self::default();
        for (index, name) in SYSTEM_COLUMNS.into_iter().enumerate() {
            let field = schema.fields().get(index);
            if field.is_none_or(|field| field.name() != name) {
                return Err(Error::corrupt(format!(
                    "column {index} should be `{name}`: this is not a file of Logyard's"
                )));
            }
        }
        for (index, field) in schema
            .fields()
            .iter()
            .enumerate()
            .skip(SYSTEM_COLUMNS.len())
        {
            columns.push(index, field)?;
        }
        Ok(columns)
    }

    fn push(&mut self, index: usize, field: &Field) -> Result<()> {
        let type_name = field.metadata().get(TYPE_METADATA).map(String::as_str);
        if type_name == Some(TYPE_OVERFLOW) {
            self.overflow = Some(index);
            return Ok(());
        }
        let value_type = type_name.and_then(ValueType::from_name);
        let (Some(key), Some(value_type)) = (field.metadata().get(KEY_METADATA), value_type) else {
            return Err(Error::corrupt(format!(
                "column `{}` lacks the metadata `{KEY_METADATA}` or `{TYPE_METADATA}`",
                field.name()
            )));
        };
        let address: Arc<str> = key::address(key).into();
        self.by_address
            .entry(Arc::clone(&address))
            .or_default()
            .push(index);
        if value_type == ValueType::Json {
            self.json.push(index);
        }
        self.fields.push(ColumnInfo {
            index,
            key: key.as_str().into(),
            address,
            value_type,
        });
        Ok(())
    }

    /// All field columns in order of their index; the overflow column is not among them.
    pub fn fields(&self) -> &[ColumnInfo] {
        &self.fields
    }

    /// The field column with this index in the batch.
    pub fn info(&self, index: usize) -> Option<&ColumnInfo> {
        self.fields.get(index.checked_sub(SYSTEM_COLUMNS.len())?)
    }

    /// Indices of the columns that hold the fields at exactly this address: one for each key and type.
    pub fn by_address(&self, address: &str) -> &[usize] {
        self.by_address.get(address).map_or(&[], Vec::as_slice)
    }

    /// JSON columns that may hold this address inside an array of objects: (column, the rest of the address below it).
    pub fn json_above<'a>(
        &'a self,
        address: &'a str,
    ) -> impl Iterator<Item = (&'a ColumnInfo, &'a str)> {
        self.json.iter().filter_map(move |index| {
            let info = self.info(*index)?;
            let rest = address.strip_prefix(&*info.address)?.strip_prefix('.')?;
            Some((info, rest))
        })
    }

    /// Columns whose address lies below `address`: `http.status` for `http`.
    pub fn nested_under<'a>(&'a self, address: &'a str) -> impl Iterator<Item = &'a ColumnInfo> {
        self.fields.iter().filter(move |info| {
            info.address
                .strip_prefix(address)
                .is_some_and(|rest| rest.starts_with('.'))
        })
    }

    /// Index of the overflow column.
    pub fn overflow(&self) -> Option<usize> {
        self.overflow
    }
}

/// The Arrow type of a field's column.
pub fn data_type(value_type: ValueType) -> DataType {
    match value_type {
        ValueType::Null | ValueType::Bool => DataType::Boolean,
        ValueType::Int => DataType::Int64,
        ValueType::Float => DataType::Float64,
        ValueType::Number | ValueType::Str | ValueType::Json => DataType::Utf8,
    }
}

/// Builds a schema: system columns, then `fields` in order, then the overflow column if wanted.
pub fn schema_of<'a>(
    fields: impl IntoIterator<Item = (&'a str, ValueType)>,
    has_overflow: bool,
) -> Schema {
    let mut names: std::collections::HashSet<String> = SYSTEM_COLUMNS
        .iter()
        .map(|name| (*name).to_owned())
        .collect();
    names.insert(OVERFLOW.to_owned());
    let mut arrow_fields = system_fields();
    for (key, value_type) in fields {
        let mut name = key.to_owned();
        while names.contains(&name) {
            name.push('|');
            name.push_str(value_type.name());
        }
        names.insert(name.clone());
        let metadata = HashMap::from([
            (KEY_METADATA.to_owned(), key.to_owned()),
            (TYPE_METADATA.to_owned(), value_type.name().to_owned()),
        ]);
        arrow_fields.push(Field::new(name, data_type(value_type), true).with_metadata(metadata));
    }
    if has_overflow {
        let metadata = HashMap::from([(TYPE_METADATA.to_owned(), TYPE_OVERFLOW.to_owned())]);
        arrow_fields.push(Field::new(OVERFLOW, DataType::Utf8, true).with_metadata(metadata));
    }
    Schema::new(arrow_fields)
}

/// What a file says of its columns beside Parquet's own schema, as the value of a footer key: `{"types":"…","keys":{"7":"a|string"}}`. One letter for each
/// field column in order (see [`letter`]), `-` for the overflow column; `keys` has the keys that differ from their column's name. Arrow's own way, the
/// serialized schema with the metadata of each field, takes about 270 bytes a column, more than the rows of many a small segment.
pub fn describe(schema: &Schema) -> Result<String> {
    let columns = Columns::from_schema(schema)?;
    let mut types: String = columns
        .fields()
        .iter()
        .map(|info| letter(info.value_type))
        .collect();
    if columns.overflow().is_some() {
        types.push(OVERFLOW_LETTER);
    }
    let renamed = columns.fields().iter().filter(|info| {
        let field = schema.fields().get(info.index);
        field.is_none_or(|field| *field.name() != *info.key)
    });
    let keys: serde_json::Map<String, serde_json::Value> = renamed
        .map(|info| (info.index.to_string(), (*info.key).into()))
        .collect();
    Ok(serde_json::json!({ "types": types, "keys": keys }).to_string())
}

/// The schema with the metadata that [`describe`] told of; `None` if the two do not fit.
pub fn restore(parquet: &Schema, description: &str) -> Option<Schema> {
    let description: serde_json::Value = serde_json::from_str(description).ok()?;
    let types = description.get("types")?.as_str()?;
    let keys = description.get("keys")?.as_object()?;
    let n_fields = parquet.fields().len().checked_sub(SYSTEM_COLUMNS.len())?;
    if types.chars().count() != n_fields {
        return None;
    }
    let mut fields: Vec<Field> = system_fields();
    let described = parquet.fields().iter().skip(fields.len());
    for (field, letter) in described.zip(types.chars()) {
        let mut metadata = HashMap::new();
        let data_type = if letter == OVERFLOW_LETTER {
            metadata.insert(TYPE_METADATA.to_owned(), TYPE_OVERFLOW.to_owned());
            DataType::Utf8
        } else {
            let value_type = ValueType::ALL
                .into_iter()
                .find(|ty| self::letter(*ty) == letter)?;
            let key = match keys.get(&fields.len().to_string()) {
                Some(key) => key.as_str()?,
                None => field.name(),
            };
            metadata.insert(KEY_METADATA.to_owned(), key.to_owned());
            metadata.insert(TYPE_METADATA.to_owned(), value_type.name().to_owned());
            data_type(value_type)
        };
        fields.push(Field::new(field.name(), data_type, true).with_metadata(metadata));
    }
    Some(Schema::new(fields))
}

const OVERFLOW_LETTER: char = '-';

fn letter(value_type: ValueType) -> char {
    match value_type {
        ValueType::Null => 'z',
        ValueType::Bool => 'b',
        ValueType::Int => 'i',
        ValueType::Float => 'f',
        ValueType::Number => 'n',
        ValueType::Str => 's',
        ValueType::Json => 'j',
    }
}

/// The values of the column `timestamp`.
pub fn timestamps(batch: &RecordBatch) -> Result<&[i64]> {
    Ok(system_column::<TimestampNanosecondType>(batch, TIMESTAMP)?.values())
}

/// The values of the column `_seq`.
pub fn seqs(batch: &RecordBatch) -> Result<&[u64]> {
    Ok(system_column::<UInt64Type>(batch, SEQ)?.values())
}

/// The values of the column `_partition`.
pub fn partitions(batch: &RecordBatch) -> Result<&[u32]> {
    Ok(system_column::<UInt32Type>(batch, PARTITION)?.values())
}

fn system_column<T: ArrowPrimitiveType>(
    batch: &RecordBatch,
    index: usize,
) -> Result<&PrimitiveArray<T>> {
    batch
        .columns()
        .get(index)
        .and_then(|column| column.as_primitive_opt::<T>())
        .ok_or_else(|| Error::corrupt(format!("column {index} is not the system column expected")))
}

/// Of the system columns alone.
pub fn system_schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| Arc::new(Schema::new(system_fields())));
    Arc::clone(&SCHEMA)
}

fn system_fields() -> Vec<Field> {
    let types = [
        DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())),
        DataType::UInt64,
        DataType::UInt32,
        DataType::UInt8,
        DataType::UInt32,
    ];
    let named = SYSTEM_COLUMNS.into_iter().zip(types);
    named
        .map(|(name, data_type)| Field::new(name, data_type, false))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_found_by_address_whatever_their_names() {
        let fields = [
            ("http.status", ValueType::Int),
            ("http\\.status", ValueType::Str),
            ("http.status", ValueType::Str),
            ("timestamp", ValueType::Str),
            ("items", ValueType::Json),
            ("_overflow", ValueType::Null),
        ];
        let schema = schema_of(fields, true);
        let columns = Columns::from_schema(&schema).unwrap();
        assert_eq!(columns.by_address("http.status"), [5, 6, 7]);
        assert_eq!(columns.by_address("timestamp"), [8]);
        assert!(columns.by_address("nothing").is_empty());
        assert_eq!(columns.overflow(), Some(11));
        assert_eq!(schema.field(7).name(), "http.status|string");
        assert_eq!(schema.field(8).name(), "timestamp|string");
        let below: Vec<_> = columns.json_above("items.price.net").collect();
        assert_eq!(below[0].1, "price.net");
        assert_eq!(columns.json_above("itemsx").count(), 0);
        assert_eq!(columns.nested_under("http").count(), 3);
        let kept: Vec<_> = columns
            .fields()
            .iter()
            .map(|f| (&*f.key, f.value_type))
            .collect();
        assert_eq!(kept, fields);
        let mut names: Vec<_> = schema.fields().iter().map(|f| f.name()).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 12);
        // What a file says of its columns gives the schema back.
        let fields = schema.fields().iter().map(|field| field.as_ref().clone());
        let fields = fields.map(|field| field.with_metadata(HashMap::new()));
        let bare = Schema::new(fields.collect::<Vec<_>>());
        let description = describe(&schema).unwrap();
        assert!(description.len() < 160, "{description}");
        assert_eq!(restore(&bare, &description).unwrap(), schema);
        assert_eq!(restore(&bare, "{}"), None);
        assert_eq!(restore(&Schema::new(system_fields()), &description), None);
    }
}
