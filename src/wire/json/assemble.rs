//! One record in the making: which field is the time, the level, the source and the message is known only when all fields were seen.
//!
//! Fields that mean nothing special go straight to the batch; candidates for a standard field wait until the end.

use crate::record::aliases::StandardField;
use crate::record::timestamp::{self, Time, TimeError};
use crate::record::value::Flags;
use crate::record::{BatchBuilder, LEVEL, SOURCE, ValueRef};
use crate::wire::json::JsonOptions;
use crate::wire::json::keys::{KeyTree, NodeId, ROOT, Role};

/// What a record gets that does not say it itself.
#[derive(Clone, Copy, Debug)]
pub struct RecordDefaults<'a> {
    pub arrival_ns: i64,
    pub source: Option<&'a str>,
    pub level: Option<&'a str>,
}

/// Candidates held without an allocation.
const SLOTS: usize = 8;

#[derive(Clone, Copy)]
struct Candidate<'v> {
    node: NodeId,
    role: Role,
    value: ValueRef<'v>,
    /// The number as it was written, for times; empty for texts.
    number: &'v str,
}

pub(super) struct Assembler<'a, 'v> {
    pub keys: &'a mut KeyTree,
    builder: &'a mut BatchBuilder,
    defaults: &'a RecordDefaults<'a>,
    options: &'a JsonOptions,
    flags: Flags,
    /// The record's time where the caller knows it.
    pub time: Option<Time>,
    n_fields: u32,
    slots: [Option<Candidate<'v>>; SLOTS],
    n_slots: usize,
    more: Vec<Candidate<'v>>,
    /// One bit for each standard field that a value which is no scalar holds under the standard name itself.
    taken: u8,
}

impl<'a, 'v> Assembler<'a, 'v> {
    pub fn begin(
        keys: &'a mut KeyTree,
        builder: &'a mut BatchBuilder,
        defaults: &'a RecordDefaults<'a>,
        options: &'a JsonOptions,
        flags: Flags,
    ) -> Self {
        keys.begin_record();
        builder.begin_record();
        Self {
            keys,
            builder,
            defaults,
            options,
            flags,
            time: None,
            n_fields: 0,
            slots: [None; SLOTS],
            n_slots: 0,
            more: Vec::new(),
            taken: 0,
        }
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
            None => self.put(node, value),
            Some(role) => self.candidate(Candidate {
                node,
                role,
                value,
                number,
            }),
        }
    }

    /// A leaf that is JSON text, which may be gone after the call.
    pub fn json(&mut self, node: NodeId, text: &str) {
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

    fn candidate(&mut self, candidate: Candidate<'v>) {
        // A null says nothing that a missing standard field would not say.
        if candidate.value == ValueRef::Null && candidate.role.rank == 0 {
            return;
        }
        if let ValueRef::Json(text) = candidate.value {
            self.json(candidate.node, text);
            return;
        }
        if candidate.value == ValueRef::Null {
            self.put(candidate.node, ValueRef::Null);
            return;
        }
        match self.slots.get_mut(self.n_slots) {
            Some(slot) => {
                *slot = Some(candidate);
                self.n_slots += 1;
            }
            None => self.more.push(candidate),
        }
    }

    /// Removes the candidate for `standard` that the lists prefer.
    fn take_best(&mut self, standard: StandardField) -> Option<Candidate<'v>> {
        let rank_of = |candidate: &Candidate<'_>| {
            (candidate.role.standard == standard).then_some(candidate.role.rank)
        };
        let in_slots = self
            .slots
            .iter()
            .enumerate()
            .filter_map(|(index, slot)| Some((rank_of(slot.as_ref()?)?, index)))
            .min();
        let in_more = self
            .more
            .iter()
            .enumerate()
            .filter_map(|(index, candidate)| Some((rank_of(candidate)?, index)))
            .min();
        match (in_slots, in_more) {
            (Some((rank, index)), more) if more.is_none_or(|(other, _)| rank <= other) => {
                self.slots.get_mut(index).and_then(Option::take)
            }
            (_, Some((_, index))) => Some(self.more.remove(index)),
            (Some(_) | None, None) => None,
        }
    }

    /// Ends the record and says whether its time was found in it.
    pub fn finish(mut self) {
        let (time_ns, digits) = self.timestamp();
        self.standard(StandardField::Level, LEVEL, self.defaults.level);
        self.standard(StandardField::Source, SOURCE, self.defaults.source);
        self.standard(StandardField::Message, crate::record::MESSAGE, None);
        for index in 0..self.n_slots {
            if let Some(loser) = self.slots.get_mut(index).and_then(Option::take) {
                self.put(loser.node, loser.value);
            }
        }
        for loser in std::mem::take(&mut self.more) {
            self.put(loser.node, loser.value);
        }
        if self.options.fields_max < self.n_fields {
            self.flag(Flags::FIELDS_OVERFLOW);
        }
        self.builder.end_record(time_ns, digits, self.flags);
    }

    fn timestamp(&mut self) -> (i64, u8) {
        let arrival_ns = self.defaults.arrival_ns;
        if let Some(time) = self.time {
            self.accept(time);
            return (time.ns, time.digits);
        }
        let mut is_out_of_range = false;
        while let Some(candidate) = self.take_best(StandardField::Timestamp) {
            let time = match candidate.value {
                ValueRef::Str(text) => timestamp::parse(text, arrival_ns),
                ValueRef::Int(integer) if candidate.number.is_empty() => {
                    timestamp::parse_unix(&integer.to_string())
                        .unwrap_or(Err(TimeError::Unreadable))
                }
                ValueRef::Float(float) if candidate.number.is_empty() => {
                    timestamp::parse_unix(&float.to_string()).unwrap_or(Err(TimeError::Unreadable))
                }
                ValueRef::Int(_) | ValueRef::Float(_) | ValueRef::Number(_) => {
                    timestamp::parse_unix(candidate.number).unwrap_or(Err(TimeError::Unreadable))
                }
                ValueRef::Null | ValueRef::Bool(_) | ValueRef::Json(_) => {
                    Err(TimeError::Unreadable)
                }
            };
            match time {
                Ok(time) => {
                    self.accept(time);
                    return (time.ns, time.digits);
                }
                Err(error) => {
                    is_out_of_range |= error == TimeError::OutOfRange;
                    let node = if candidate.role.rank == 0 {
                        self.name_of_unreadable_timestamp()
                    } else {
                        candidate.node
                    };
                    self.put(node, candidate.value);
                }
            }
        }
        if is_out_of_range {
            self.flag(Flags::TIMESTAMP_OUT_OF_RANGE);
        }
        self.flag(Flags::ARRIVAL_TIME);
        (arrival_ns, 9)
    }

    fn accept(&mut self, time: Time) {
        self.flag(time.flags);
        let latest_ns = self
            .defaults
            .arrival_ns
            .saturating_add(self.options.future_skew_ns);
        if latest_ns < time.ns {
            self.flag(Flags::TIMESTAMP_IN_FUTURE);
        }
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

    fn standard(&mut self, standard: StandardField, key: &'static str, default: Option<&str>) {
        if self.taken & 1 << standard as u8 != 0 {
            return;
        }
        let value = match self.take_best(standard) {
            Some(candidate) => candidate.value,
            None => match default {
                Some(text) => ValueRef::Str(text),
                None => return,
            },
        };
        let node = self.keys.child(ROOT, key);
        self.put(node, value);
    }
}
