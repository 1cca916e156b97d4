//! JSON objects → records. Shared by every protocol that carries JSON; knows no protocol and no line of text.
//!
//! Two readers, one meaning: [`fast`] walks simd-json's tape next to the untouched line, so numbers and arrays keep their text; whatever it
//! does not take (broken JSON, long numbers out of range, repeated keys, lone surrogates, raw control characters, deep nesting) goes to
//! [`slow`], which is strict about structure and lenient about text, never recurses past the flattening depth and names the place of a fault.
//!
//! What becomes of what:
//! - Objects are flattened to [`JsonOptions::depth_max`] levels; below, and for arrays and empty objects, the compact JSON text is the value.
//! - Of a repeated key the last one counts. `NaN` and `Infinity` become texts. Control characters inside strings are taken as they are.
//! - Standard fields are found by their aliases among scalar values; the names the list prefers win, the others keep their own names.
//! - A `timestamp` that cannot be read stays as `_timestamp`; under another name it stays where it is.

mod assemble;
mod fast;
mod keys;
mod number;
mod slow;
pub mod split;

use assemble::Given;
pub use assemble::{Exact, RecordDefaults};

use crate::record::aliases::Aliases;
use crate::record::timestamp::Time;
use crate::record::value::Flags;
use crate::record::{BatchBuilder, ValueRef};

/// How JSON becomes records.
#[derive(Clone, Debug)]
pub struct JsonOptions {
    pub aliases: Aliases,
    /// Levels of objects that become fields; deeper ones are kept as their text and flagged.
    pub depth_max: usize,
    /// Fields of one record after which it is flagged `fields_overflow`.
    pub fields_max: u32,
    /// How far in the future a timestamp may lie before it is flagged, in nanoseconds.
    pub future_skew_ns: i64,
}

impl Default for JsonOptions {
    fn default() -> Self {
        Self {
            aliases: Aliases::default(),
            depth_max: 32,
            fields_max: 1_000,
            future_skew_ns: 600 * 1_000_000_000,
        }
    }
}

/// Why a text is no JSON, and where: the offset counts bytes from the text's start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonFault {
    pub what: &'static str,
    pub offset: usize,
}

impl JsonFault {
    /// `expected `:` at column 14`.
    pub fn reason(&self) -> String {
        format!("{} at column {}", self.what, self.offset + 1)
    }
}

/// Turns JSON objects into records of a batch. Keeps its buffers and the keys it knows from call to call.
pub struct JsonDecoder {
    options: JsonOptions,
    fast: fast::FastReader,
    keys: keys::KeyTree,
}

impl JsonDecoder {
    pub fn new(options: JsonOptions) -> Self {
        Self {
            fast: fast::FastReader::default(),
            keys: keys::KeyTree::new(&options.aliases),
            options,
        }
    }

    pub fn options(&self) -> &JsonOptions {
        &self.options
    }

    /// To be called when a new batch begins: key indices of the last one mean nothing any more.
    pub fn begin_batch(&mut self) {
        self.keys.begin_batch();
    }

    /// Appends the record that `text`, one JSON object, is. Nothing is appended on a fault. `flags` are set on the record besides those it
    /// earns itself.
    pub fn object(
        &mut self,
        text: &str,
        builder: &mut BatchBuilder,
        defaults: &RecordDefaults<'_>,
        flags: Flags,
    ) -> Result<(), JsonFault> {
        self.read(text, builder, defaults, Given { flags, exact: None })
    }

    /// Appends the record that a queue keeps as `text`, which `wire::native::encode::push_queued_record` wrote and called exact: no alias is
    /// looked for, and `_flags` is no field.
    pub fn queued_object(
        &mut self,
        text: &str,
        builder: &mut BatchBuilder,
        exact: Exact,
    ) -> Result<(), JsonFault> {
        let defaults = RecordDefaults {
            arrival_ns: exact.timestamp_ns,
            source: None,
            level: None,
        };
        let given = Given {
            flags: Flags::default(),
            exact: Some(exact),
        };
        self.read(text, builder, &defaults, given)
    }

    fn read(
        &mut self,
        text: &str,
        builder: &mut BatchBuilder,
        defaults: &RecordDefaults<'_>,
        given: Given,
    ) -> Result<(), JsonFault> {
        let taken = self.fast.object(
            text,
            &mut self.keys,
            builder,
            defaults,
            &self.options,
            given,
        );
        if taken {
            return Ok(());
        }
        self.object_slowly(text, builder, defaults, given)
    }

    fn object_slowly(
        &mut self,
        text: &str,
        builder: &mut BatchBuilder,
        defaults: &RecordDefaults<'_>,
        given: Given,
    ) -> Result<(), JsonFault> {
        let parsed = slow::object(text, self.options.depth_max)?;
        let mut record = assemble::Assembler::begin(
            &mut self.keys,
            builder,
            defaults,
            &self.options,
            Given {
                flags: given.flags.with(parsed.flags),
                ..given
            },
        );
        let mut nodes = Vec::with_capacity(parsed.leaves.len());
        for leaf in parsed.leaves.iter().filter(|leaf| !leaf.is_replaced) {
            let mut node = keys::ROOT;
            for segment in &leaf.path {
                node = record.keys.child(node, segment);
            }
            record.is_new(node);
            nodes.push((node, leaf));
        }
        for (node, leaf) in nodes {
            record.leaf(node, leaf.value.as_value_ref(), &leaf.number);
        }
        record.finish();
        Ok(())
    }

    /// Appends a record that is not JSON: fields by name, standard names and aliases included; of a repeated name the first counts.
    /// `time` is the record's time if the caller found it; else the fields may hold it.
    pub fn fields<'v>(
        &mut self,
        fields: impl Iterator<Item = (&'v str, ValueRef<'v>)>,
        time: Option<Time>,
        builder: &mut BatchBuilder,
        defaults: &RecordDefaults<'_>,
        flags: Flags,
    ) {
        let given = Given { flags, exact: None };
        let mut record =
            assemble::Assembler::begin(&mut self.keys, builder, defaults, &self.options, given);
        if let Some(time) = time {
            record.set_time(time);
        }
        for (name, value) in fields {
            let node = record.keys.child(keys::ROOT, name);
            if record.is_new(node) {
                record.leaf(node, value, "");
            }
        }
        record.finish();
    }
}

/// The value of the text of a JSON number.
pub fn number_value(text: &str) -> ValueRef<'_> {
    number::value_of(text)
}

/// Checks one JSON value, leniently as [`JsonDecoder::object`] reads; returns where it ends.
pub fn check(text: &str) -> Result<usize, JsonFault> {
    slow::check(text)
}

/// The text of the JSON string that `text` begins with, and where the string ends.
pub fn string(text: &str) -> Result<(String, usize), JsonFault> {
    slow::string(text)
}

#[cfg(test)]
mod tests;
