//! One record in the making: which field is the time, the level, the source and the message is known only when all fields were seen.
//!
//! Fields that mean nothing special go straight to the batch; of those that could be a standard field the best so far waits until the end.

use crate::record::aliases::StandardField;
use crate::record::timestamp::{self, Time, TimeError};
use crate::record::value::Flags;
use crate::record::{BatchBuilder, ValueRef};
use crate::wire::json::JsonOptions;
use crate::wire::json::keys::{KeyTree, NodeId, ROOT, Role};

/// What a record gets that does not say it itself.
#[derive(Clone, Copy, Debug)]
pub struct RecordDefaults<'a> {
    pub arrival_ns: i64,
    pub source: Option<&'a str>,
    pub level: Option<&'a str>,
}

/// What a record of the queue is, whatever its JSON says: its names mean what they say, and its time and flags are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exact {
    pub timestamp_ns: i64,
    pub timestamp_digits: u8,
    pub flags: Flags,
}

/// What is known of a record before it is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Given {
    pub flags: Flags,
    pub exact: Option<Exact>,
}

/// The value that stands for a standard field so far, under the key it came with.
#[derive(Clone, Copy)]
struct Best<'v> {
    rank: u16,
    node: NodeId,
    value: ValueRef<'v>,
}

pub(super) struct Assembler<'a, 'v> {
    pub keys: &'a mut KeyTree,
    builder: &'a mut BatchBuilder,
    defaults: &'a RecordDefaults<'a>,
    options: &'a JsonOptions,
    flags: Flags,
    exact: Option<Exact>,
    n_fields: u32,
    /// The record's time, and what it was read from unless the caller knew it.
    time: Option<Time>,
    time_from: Option<Best<'v>>,
    level: Option<Best<'v>>,
    source: Option<Best<'v>>,
    message: Option<Best<'v>>,
    /// One bit for each standard field that a value which is no scalar holds under the standard name itself.
    taken: u8,
}

impl<'a, 'v> Assembler<'a, 'v> {
    pub fn begin(
        keys: &'a mut KeyTree,
        builder: &'a mut BatchBuilder,
        defaults: &'a RecordDefaults<'a>,
        options: &'a JsonOptions,
        given: Given,
    ) -> Self {
        keys.begin_record();
        builder.begin_record();
        Self {
            keys,
            builder,
            defaults,
            options,
            flags: given.flags,
            exact: given.exact,
            n_fields: 0,
            time: None,
            time_from: None,
            level: None,
            source: None,
            message: None,
            taken: 0,
        }
    }

    /// The record's time, known before its fields: none of them is read as one then.
    pub fn set_time(&mut self, time: Time) {
        self.time = Some(time);
    }

    /// Marks the key; false if the record has it already.
    #[inline]
    pub fn is_new(&mut self, node: NodeId) -> bool {
        self.keys.mark(node)
    }

    pub fn flag(&mut self, flag: Flags) {
        self.flags = self.flags.with(flag);
    }

    /// A leaf whose value lives as long as the line. `number` is the text of a number.
    #[inline]
    pub fn leaf(&mut self, node: NodeId, value: ValueRef<'v>, number: &'v str) {
        match self.keys.role(node) {
            None => match value {
                ValueRef::Json(text) => self.json(node, text),
                _ => self.put(node, value),
            },
            Some(role) => self.candidate(node, role, value, number),
        }
    }

    /// A leaf that is JSON text, which may be gone after the call.
    pub fn json(&mut self, node: NodeId, text: &str) {
        if self.exact.is_some() {
            if !self.keys.is_flags(node) {
                self.put(node, ValueRef::Json(text));
            }
            return;
        }
        let Some(role) = self.keys.role(node).filter(|role| role.rank == 0) else {
            self.put(node, ValueRef::Json(text));
            return;
        };
        if role.standard == StandardField::Timestamp {
            let node = self.name_of_unreadable_timestamp();
            self.put(node, ValueRef::Json(text));
        } else {
            self.taken |= 1 << role.standard as u8;
            self.put(node, ValueRef::Json(text));
        }
    }

    #[inline]
    fn put(&mut self, node: NodeId, value: ValueRef<'_>) {
        let key_index = self.keys.key_index(node, self.builder);
        self.builder.field_at(key_index, value);
        self.n_fields += 1;
    }

    fn candidate(&mut self, node: NodeId, role: Role, value: ValueRef<'v>, number: &'v str) {
        if self.exact.is_some() {
            return match (role.rank, role.standard, value) {
                (0, StandardField::Timestamp, _) | (0, _, ValueRef::Null) => {}
                (_, _, ValueRef::Json(text)) => self.json(node, text),
                _ => self.put(node, value),
            };
        }
        match value {
            // A null says nothing that a missing standard field would not say.
            ValueRef::Null if role.rank == 0 => return,
            ValueRef::Null => return self.put(node, value),
            ValueRef::Json(text) => return self.json(node, text),
            _ => {}
        }
        let candidate = Best {
            rank: role.rank,
            node,
            value,
        };
        let slot = match role.standard {
            StandardField::Timestamp => return self.time_candidate(candidate, number),
            StandardField::Level => &mut self.level,
            StandardField::Source => &mut self.source,
            StandardField::Message => &mut self.message,
        };
        let loser = match slot {
            Some(best) if best.rank <= candidate.rank => Some(candidate),
            _ => slot.replace(candidate),
        };
        if let Some(loser) = loser {
            self.put(loser.node, loser.value);
        }
    }

    fn time_candidate(&mut self, candidate: Best<'v>, number: &'v str) {
        let is_known = self.time.is_some() && self.time_from.is_none();
        let is_beaten = self
            .time_from
            .is_some_and(|best| best.rank <= candidate.rank);
        if is_known || is_beaten {
            return self.put_time_text(candidate);
        }
        match read_time(candidate.value, number, self.defaults.arrival_ns) {
            Ok(time) => {
                self.time = Some(time);
                if let Some(loser) = self.time_from.replace(candidate) {
                    self.put_time_text(loser);
                }
            }
            Err(error) => {
                if error == TimeError::OutOfRange {
                    self.flag(Flags::TIMESTAMP_OUT_OF_RANGE);
                }
                self.put_time_text(candidate);
            }
        }
    }

    /// A value that could be the record's time and is not.
    fn put_time_text(&mut self, candidate: Best<'_>) {
        let node = if candidate.rank == 0 {
            self.name_of_unreadable_timestamp()
        } else {
            candidate.node
        };
        self.put(node, candidate.value);
    }

    pub fn finish(mut self) {
        if let Some(exact) = self.exact {
            return self.builder.end_record(
                exact.timestamp_ns,
                exact.timestamp_digits,
                exact.flags,
            );
        }
        let (time_ns, digits) = self.timestamp();
        self.standard(StandardField::Level, self.level, self.defaults.level);
        self.standard(StandardField::Source, self.source, self.defaults.source);
        self.standard(StandardField::Message, self.message, None);
        if self.options.fields_max < self.n_fields {
            self.flag(Flags::FIELDS_OVERFLOW);
        }
        self.builder.end_record(time_ns, digits, self.flags);
    }

    fn timestamp(&mut self) -> (i64, u8) {
        let arrival_ns = self.defaults.arrival_ns;
        let Some(time) = self.time else {
            self.flag(Flags::ARRIVAL_TIME);
            return (arrival_ns, 9);
        };
        self.flags = self
            .flags
            .without(Flags::TIMESTAMP_OUT_OF_RANGE)
            .with(time.flags);
        if arrival_ns.saturating_add(self.options.future_skew_ns) < time.ns {
            self.flag(Flags::TIMESTAMP_IN_FUTURE);
        }
        (time.ns, time.digits)
    }

    /// `timestamp` asks for the record's time, so a value of that name that is none goes by the first free of `_timestamp`, `__timestamp`, …
    fn name_of_unreadable_timestamp(&mut self) -> NodeId {
        let mut name = String::from("_timestamp");
        loop {
            let node = self.keys.child(ROOT, &name);
            if self.keys.mark(node) {
                return node;
            }
            name.insert(0, '_');
        }
    }

    fn standard(&mut self, standard: StandardField, best: Option<Best<'v>>, default: Option<&str>) {
        let name = standard.name();
        match (best, default) {
            // The name itself is taken: an alias keeps its own.
            (Some(best), _) if self.taken & 1 << standard as u8 != 0 => {
                self.put(best.node, best.value);
            }
            (Some(best), _) => {
                let node = self.keys.child(ROOT, name);
                self.put(node, best.value);
            }
            (None, Some(text)) if self.taken & 1 << standard as u8 == 0 => {
                let node = self.keys.child(ROOT, name);
                self.put(node, ValueRef::Str(text));
            }
            (None, _) => {}
        }
    }
}

fn read_time(value: ValueRef<'_>, number: &str, arrival_ns: i64) -> Result<Time, TimeError> {
    let unix = |text: &str| timestamp::parse_unix(text).unwrap_or(Err(TimeError::Unreadable));
    match value {
        ValueRef::Str(text) => timestamp::parse(text, arrival_ns),
        ValueRef::Int(integer) if number.is_empty() => unix(&integer.to_string()),
        ValueRef::Float(float) if number.is_empty() => unix(&float.to_string()),
        ValueRef::Int(_) | ValueRef::Float(_) | ValueRef::Number(_) => unix(number),
        ValueRef::Null | ValueRef::Bool(_) | ValueRef::Json(_) => Err(TimeError::Unreadable),
    }
}
