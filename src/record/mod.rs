//! The one internal shape of a log record, from the first socket to the last answer.
//!
//! A record is a timestamp, flags and a list of fields. `level`, `source` and `message` are fields like any other, under
//! those names. Objects are flattened to one field for each leaf; a field's *key* keeps where the nesting was (see
//! [`key`]), so answers nest as the record was sent. No type in here knows a wire format.

pub mod aliases;
pub mod batch;
pub mod key;
pub mod leaves;
pub mod level;
pub mod position;
pub mod timestamp;
pub mod value;

pub use aliases::{Aliases, StandardField};
pub use batch::{Batch, BatchBuilder, DeadLetterRef, EntryRef, QueuedBatch, RecordRef};
pub use position::{Checkpoint, Position, RecordKey};
pub use value::{Flags, Value, ValueRef};

use std::sync::Arc;

/// Names of the standard fields, as keys and as addresses.
pub const LEVEL: &str = "level";
pub const SOURCE: &str = "source";
pub const MESSAGE: &str = "message";
/// Not a field: the name under which `RecordKey::timestamp_ns` is asked for and answered.
pub const TIMESTAMP: &str = "timestamp";
/// Not a field: the name under which `flags` are asked for and answered (present only when a flag is set).
pub const FLAGS: &str = "_flags";

/// A record as answers carry it: owned, keys shared between the records of one answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    pub key: RecordKey,
    /// Fraction digits of the timestamp as it was sent, 0 to 9.
    pub timestamp_digits: u8,
    pub flags: Flags,
    /// (field key, value), in no particular order, each key at most once.
    pub fields: Vec<(Arc<str>, Value)>,
}

/// A line that could not be made a record, as it is kept and listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    pub position: Position,
    pub arrival_ns: i64,
    /// Why: `invalid_json`, …
    pub code: String,
    pub reason: String,
    /// Default source of the request it came in, for the replay.
    pub source: Option<String>,
    /// The bytes as they came.
    pub raw: Vec<u8>,
}
