//! Values of fields, and the flags of a record.

use std::borrow::Cow;

/// A leaf value, borrowed from a batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ValueRef<'a> {
    Null,
    Bool(bool),
    /// Any integer that fits.
    Int(i64),
    /// A decimal that a double holds exactly enough: printing it gives back the number that was sent. Never NaN or infinite.
    Float(f64),
    /// The text of any other JSON number: too large, or with too many digits.
    Number(&'a str),
    Str(&'a str),
    /// JSON text of an array, of an empty object, or of an object nested too deep to be flattened.
    Json(&'a str),
}

/// A leaf value that owns its text. The variants are those of [`ValueRef`].
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Number(String),
    Str(String),
    Json(String),
}

/// The types of values, in the order that the types of one field are listed. The number is stored: never change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ValueType {
    Null = 0,
    Bool = 1,
    Int = 2,
    Float = 3,
    Number = 4,
    Str = 5,
    Json = 6,
}

impl ValueType {
    pub const ALL: [Self; 7] = [
        Self::Null,
        Self::Bool,
        Self::Int,
        Self::Float,
        Self::Number,
        Self::Str,
        Self::Json,
    ];

    /// The name that `GET /logs/fields` and column metadata use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool => "boolean",
            Self::Int => "integer",
            Self::Float => "float",
            Self::Number => "number",
            Self::Str => "string",
            Self::Json => "json",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|ty| ty.name() == name)
    }
}

impl<'a> ValueRef<'a> {
    pub fn value_type(self) -> ValueType {
        match self {
            Self::Null => ValueType::Null,
            Self::Bool(_) => ValueType::Bool,
            Self::Int(_) => ValueType::Int,
            Self::Float(_) => ValueType::Float,
            Self::Number(_) => ValueType::Number,
            Self::Str(_) => ValueType::Str,
            Self::Json(_) => ValueType::Json,
        }
    }

    pub fn to_value(self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(value) => Value::Bool(value),
            Self::Int(value) => Value::Int(value),
            Self::Float(value) => Value::Float(value),
            Self::Number(text) => Value::Number(text.to_owned()),
            Self::Str(text) => Value::Str(text.to_owned()),
            Self::Json(text) => Value::Json(text.to_owned()),
        }
    }

    /// The value as text: strings as they are, everything else as its JSON text. Groups, histograms and exact terms use it;
    /// answers print floats with it, so that the same number always looks the same.
    pub fn text(self) -> Cow<'a, str> {
        match self {
            Self::Null => Cow::Borrowed("null"),
            Self::Bool(true) => Cow::Borrowed("true"),
            Self::Bool(false) => Cow::Borrowed("false"),
            Self::Int(value) => Cow::Owned(value.to_string()),
            Self::Float(value) => Cow::Owned(float_text(value)),
            Self::Number(text) | Self::Str(text) | Self::Json(text) => Cow::Borrowed(text),
        }
    }
}

/// The JSON text of a float: the shortest that is read back as the same double, with a fraction or an exponent.
pub fn float_text(value: f64) -> String {
    format!("{value:?}")
}

impl Value {
    pub fn as_value_ref(&self) -> ValueRef<'_> {
        match self {
            Self::Null => ValueRef::Null,
            Self::Bool(value) => ValueRef::Bool(*value),
            Self::Int(value) => ValueRef::Int(*value),
            Self::Float(value) => ValueRef::Float(*value),
            Self::Number(text) => ValueRef::Number(text),
            Self::Str(text) => ValueRef::Str(text),
            Self::Json(text) => ValueRef::Json(text),
        }
    }
}

/// What had to be done to a record to keep it; shown as `_flags`, a list of names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(pub u32);

impl Flags {
    /// No readable timestamp was sent: it is the time of arrival.
    pub const ARRIVAL_TIME: Self = Self(1);
    /// The timestamp sent lies outside 1677-09-22 to 2262-04-11: it is the time of arrival, the text sent stays in its field.
    pub const TIMESTAMP_OUT_OF_RANGE: Self = Self(1 << 1);
    /// The syslog time has no year, which was taken from the time of arrival.
    pub const TIMESTAMP_YEAR_GUESSED: Self = Self(1 << 2);
    /// Bytes that are not UTF-8 became U+FFFD.
    pub const INVALID_UTF8: Self = Self(1 << 3);
    /// The line was longer than the limit and was cut; `_original_bytes` holds its length.
    pub const TRUNCATED: Self = Self(1 << 4);
    /// Objects nested past the limit are kept as text.
    pub const DEEP_JSON: Self = Self(1 << 5);
    /// More fields than the limit: the rest is searchable, not in columns of its own.
    pub const FIELDS_OVERFLOW: Self = Self(1 << 6);
    /// The timestamp lies more than the allowed skew in the future.
    pub const TIMESTAMP_IN_FUTURE: Self = Self(1 << 7);

    const NAMES: [(Self, &'static str); 8] = [
        (Self::ARRIVAL_TIME, "arrival_time"),
        (Self::TIMESTAMP_OUT_OF_RANGE, "timestamp_out_of_range"),
        (Self::TIMESTAMP_YEAR_GUESSED, "timestamp_year_guessed"),
        (Self::INVALID_UTF8, "invalid_utf8"),
        (Self::TRUNCATED, "truncated"),
        (Self::DEEP_JSON, "deep_json"),
        (Self::FIELDS_OVERFLOW, "fields_overflow"),
        (Self::TIMESTAMP_IN_FUTURE, "timestamp_in_future"),
    ];

    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The names of the flags that are set.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES
            .into_iter()
            .filter(move |(flag, _)| self.contains(*flag))
            .map(|(_, name)| name)
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMES
            .into_iter()
            .find(|(_, n)| *n == name)
            .map(|(flag, _)| flag)
    }
}
