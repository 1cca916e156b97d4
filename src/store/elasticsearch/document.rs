//! A record → the document that Elasticsearch gets, written straight into the body of a bulk request.
//!
//! Nothing is refused and nothing is lost: each value goes into the field of its type; where the fields alone would not give the record back (literal
//! dotted keys, nulls, arrays, numbers kept as text, values without a field) `logyard.record` holds it as exact text. Words are cut here, by the same
//! definition as everywhere, so that any server finds them with its plain `whitespace` analyzer.

use std::borrow::Cow;
use std::net::IpAddr;
use std::ops::Range;

use crate::query::number::is_number;
use crate::record::leaves::any_leaf;
use crate::record::{RecordKey, RecordRef, SOURCE, ValueRef, key, timestamp};
use crate::store::elasticsearch::names::{Kind, TEXT_UNITS_MAX, overflow_term, own, scalar_term};
use crate::store::elasticsearch::plan::{IndexPlan, Slot};
use crate::store::elasticsearch::words::{push_tokens, separate};
use crate::wire::json_text::{push_string, push_value};

/// The text of `source` for retention is cut here.
const SOURCE_BYTES_MAX: usize = 8_000;
/// The longest text of an IP address.
const IP_BYTES_MAX: usize = 45;

/// A record with what its document says besides its fields.
#[derive(Clone, Copy)]
pub struct Entry<'a> {
    pub record: RecordRef<'a>,
    pub key: RecordKey,
    pub arrival_ns: i64,
    /// The index demands `@timestamp`.
    pub has_at_timestamp: bool,
}

/// For each key of a batch its address in the plan, once it is known, and whether key and address are the same text.
#[derive(Default)]
pub struct BatchKeys(Vec<Option<(u32, bool)>>);

impl BatchKeys {
    fn id(&mut self, key_index: u32, key: &str, plan: &mut IndexPlan) -> (u32, bool) {
        let index = key_index as usize;
        if let Some(Some(known)) = self.0.get(index) {
            return *known;
        }
        let address = key::address(key);
        let is_same = matches!(address, Cow::Borrowed(_));
        let found = (plan.address_id(&address), is_same);
        if self.0.len() <= index {
            self.0.resize(index + 1, None);
        }
        if let Some(place) = self.0.get_mut(index) {
            *place = Some(found);
        }
        found
    }
}

enum LeafValue<'a> {
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(&'a str),
    /// A text inside `Scratch::texts`.
    Inner(Range<usize>),
    Ip(IpAddr),
}

pub struct Leaf<'a> {
    id: u32,
    kind: Kind,
    value: LeafValue<'a>,
}

/// Buffers that are used again for each document. The lists hold JSON array elements, without brackets.
#[derive(Default)]
pub struct Scratch {
    texts: String,
    path: String,
    levels: Vec<u32>,
    exact: Vec<u8>,
    fields: Vec<u8>,
    multi: Vec<u8>,
    long: Vec<u8>,
    scalars: Vec<u8>,
    overflow: Vec<u8>,
    any: Vec<u8>,
    words: Vec<u8>,
}

impl Scratch {
    fn clear(&mut self) {
        self.texts.clear();
        for list in [
            &mut self.exact,
            &mut self.fields,
            &mut self.multi,
            &mut self.long,
            &mut self.scalars,
            &mut self.overflow,
            &mut self.any,
            &mut self.words,
        ] {
            list.clear();
        }
    }
}

/// Appends the action and the document of one record. `false`: nothing was appended, because the mapping must get the fields first that now stand in
/// `plan.wanted`. `leaves` is scratch, too.
pub fn push_document<'a>(
    out: &mut Vec<u8>,
    plan: &mut IndexPlan,
    keys: &mut BatchKeys,
    scratch: &mut Scratch,
    leaves: &mut Vec<Leaf<'a>>,
    entry: &Entry<'a>,
) -> bool {
    scratch.clear();
    leaves.clear();
    plan.document += 1;
    let mut making = Making {
        document: plan.document,
        plan,
        scratch,
        leaves,
        is_complete: true,
        needs_exact: false,
        has_groups: false,
    };
    let mut source = None;
    for field in entry.record.fields() {
        let (id, is_same) = keys.id(field.key_index, field.key, making.plan);
        making.needs_exact |= !is_same;
        if field.key == SOURCE {
            source = Some(field.value);
        }
        making.field(id, field.value);
    }
    if !making.is_complete {
        return false;
    }
    push_action(out, &making.plan.alias, &entry.key.to_id());
    making.push_head(out, entry, source);
    making.push_leaves(out);
    making.push_lists(out);
    if making.needs_exact {
        push_exact(out, &mut making.scratch.exact, &entry.record);
    }
    out.extend_from_slice(b"}\n");
    true
}

pub fn push_action(out: &mut Vec<u8>, index: &str, id: &str) {
    out.extend_from_slice(b"{\"create\":{\"_index\":");
    push_string(out, index);
    out.extend_from_slice(b",\"_id\":\"");
    out.extend_from_slice(id.as_bytes());
    out.extend_from_slice(b"\"}}\n");
}

/// One document while it is made.
struct Making<'p, 'a> {
    plan: &'p mut IndexPlan,
    scratch: &'p mut Scratch,
    leaves: &'p mut Vec<Leaf<'a>>,
    document: u64,
    is_complete: bool,
    needs_exact: bool,
    /// A field has more than one value.
    has_groups: bool,
}

impl<'a> Making<'_, 'a> {
    fn field(&mut self, id: u32, value: ValueRef<'a>) {
        match value {
            ValueRef::Null => {
                self.needs_exact = true;
                return;
            }
            ValueRef::Json(json) => {
                self.needs_exact = true;
                self.multi(id);
                self.json(id, json);
            }
            ValueRef::Str(text) => {
                push_tokens(
                    &mut self.scratch.any,
                    &mut self.scratch.words,
                    text,
                    &[id],
                    self.plan,
                );
                self.text(id, text, LeafValue::Text(text));
            }
            scalar => {
                self.note_scalar(scalar);
                self.scalar(id, scalar);
            }
        }
        if !self.present(id) {
            // Another key with the same address.
            self.multi(id);
        }
    }

    /// False if the address was there already.
    fn present(&mut self, id: u32) -> bool {
        let Some(plan) = self.plan.addresses.get_mut(id as usize) else {
            return true;
        };
        if plan.present == self.document {
            return false;
        }
        plan.present = self.document;
        push_element(&mut self.scratch.fields, &plan.term);
        true
    }

    fn multi(&mut self, id: u32) {
        if let Some(plan) = self.plan.addresses.get_mut(id as usize)
            && plan.multi != self.document
        {
            plan.multi = self.document;
            push_element(&mut self.scratch.multi, &plan.term);
        }
    }

    fn note_scalar(&mut self, value: ValueRef<'_>) {
        let list = &mut self.scratch.scalars;
        match value {
            ValueRef::Int(int) => {
                separate(list);
                list.extend_from_slice(b"\"i:");
                list.extend_from_slice(itoa::Buffer::new().format(int).as_bytes());
                list.push(b'"');
            }
            ValueRef::Bool(flag) => {
                separate(list);
                list.extend_from_slice(match flag {
                    true => &b"\"b:true\""[..],
                    false => b"\"b:false\"",
                });
            }
            other => {
                if let Some(term) = scalar_term(other) {
                    separate(list);
                    push_string(list, &term);
                }
            }
        }
    }

    fn scalar(&mut self, id: u32, value: ValueRef<'_>) {
        match value {
            ValueRef::Bool(flag) => self.leaf(id, Kind::Bool, value, LeafValue::Bool(flag)),
            ValueRef::Int(int) => self.leaf(id, Kind::Long, value, LeafValue::Int(int)),
            ValueRef::Float(float) => self.leaf(id, Kind::Double, value, LeafValue::Float(float)),
            ValueRef::Number(text) => {
                self.needs_exact = true;
                self.multi(id);
                self.leaf(id, Kind::Number, value, LeafValue::Float(nearest(text)));
            }
            ValueRef::Null | ValueRef::Str(_) | ValueRef::Json(_) => {}
        }
    }

    fn text(&mut self, id: u32, text: &str, value: LeafValue<'a>) {
        let is_long = TEXT_UNITS_MAX < text.len() && TEXT_UNITS_MAX < text.encode_utf16().count();
        if is_long {
            self.multi(id);
            if let Some(plan) = self.plan.addresses.get_mut(id as usize)
                && plan.long != self.document
            {
                plan.long = self.document;
                push_element(&mut self.scratch.long, &plan.term);
            }
        }
        if may_be_number(text) && is_number(text) {
            let number = LeafValue::Float(nearest(text));
            self.leaf(id, Kind::Numeric, ValueRef::Str(text), number);
        }
        if let Some(ip) = ip_of(text) {
            self.leaf(id, Kind::Ip, ValueRef::Str(text), LeafValue::Ip(ip));
        }
        self.leaf(id, Kind::Text, ValueRef::Str(text), value);
    }

    fn leaf(&mut self, id: u32, kind: Kind, whole: ValueRef<'_>, value: LeafValue<'a>) {
        let Some(plan) = self.plan.addresses.get_mut(id as usize) else {
            return;
        };
        let at = kind as usize;
        let (Some(slot), Some(seen)) = (plan.slots.get_mut(at), plan.seen.get_mut(at)) else {
            return;
        };
        match slot {
            Slot::Field(_) => {
                self.has_groups |= *seen == self.document;
                *seen = self.document;
                self.leaves.push(Leaf { id, kind, value });
            }
            Slot::Overflow => {
                separate(&mut self.scratch.overflow);
                push_string(
                    &mut self.scratch.overflow,
                    &overflow_term(&plan.address, whole),
                );
                self.needs_exact = true;
                self.multi(id);
            }
            Slot::Missing => {
                *slot = Slot::Wanted;
                self.plan.wanted.push((id, kind));
                self.is_complete = false;
            }
            Slot::Wanted => self.is_complete = false,
        }
    }

    /// The leaves of an array count at its address and at every longer one down to their own.
    fn json(&mut self, base: u32, json: &str) {
        let mut levels = std::mem::take(&mut self.scratch.levels);
        any_leaf(json, |inner, value| {
            if matches!(value, ValueRef::Null) {
                return false;
            }
            levels.clear();
            levels.push(base);
            self.push_levels(&mut levels, base, inner);
            for id in levels.iter().skip(1) {
                self.present(*id);
                self.multi(*id);
            }
            match value {
                ValueRef::Null | ValueRef::Json(_) => {}
                ValueRef::Str(text) => {
                    let start = self.scratch.texts.len();
                    self.scratch.texts.push_str(text);
                    let range = start..self.scratch.texts.len();
                    push_tokens(
                        &mut self.scratch.any,
                        &mut self.scratch.words,
                        text,
                        &levels,
                        self.plan,
                    );
                    for id in &levels {
                        self.text(*id, text, LeafValue::Inner(range.clone()));
                    }
                }
                scalar => {
                    self.note_scalar(scalar);
                    for id in &levels {
                        self.scalar(*id, scalar);
                    }
                }
            }
            false
        });
        self.scratch.levels = levels;
    }

    /// `a` and `b.c` → the addresses `a.b` and `a.b.c`.
    fn push_levels(&mut self, levels: &mut Vec<u32>, base: u32, inner: &str) {
        if inner.is_empty() {
            return;
        }
        let mut path = std::mem::take(&mut self.scratch.path);
        path.clear();
        if let Some(plan) = self.plan.addresses.get(base as usize) {
            path.push_str(&plan.address);
        }
        path.push('.');
        let outside = path.len();
        path.push_str(inner);
        for (at, _) in inner.match_indices('.') {
            if let Some(level) = path.get(..outside + at) {
                levels.push(self.plan.address_id(level));
            }
        }
        levels.push(self.plan.address_id(&path));
        self.scratch.path = path;
    }

    fn push_head(&self, out: &mut Vec<u8>, entry: &Entry<'_>, source: Option<ValueRef<'_>>) {
        let ns = entry.key.timestamp_ns;
        let mut integer = itoa::Buffer::new();
        let mut number = |out: &mut Vec<u8>, name: &str, value: i64| {
            out.extend_from_slice(b",\"");
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b"\":");
            out.extend_from_slice(integer.format(value).as_bytes());
        };
        out.extend_from_slice(b"{\"logyard.digits\":");
        push_value(out, ValueRef::Int(i64::from(entry.record.timestamp_digits)));
        number(out, own::NS, ns);
        number(out, own::MS, ns.div_euclid(1_000_000));
        if entry.has_at_timestamp {
            number(out, own::AT_TIMESTAMP, ns.div_euclid(1_000_000));
        }
        if 0 <= ns {
            out.extend_from_slice(b",\"timestamp\":\"");
            timestamp::format_into(out, ns, 9);
            out.push(b'"');
        }
        number(out, own::PARTITION, i64::from(entry.key.position.partition));
        let seq = i64::try_from(entry.key.position.seq).unwrap_or(i64::MAX);
        number(out, own::SEQ, seq);
        number(out, own::ARRIVAL_NS, entry.arrival_ns);
        let flags = entry.record.flags;
        if !flags.is_empty() {
            number(out, own::FLAG_BITS, i64::from(flags.0));
            let mut names = Vec::new();
            for name in flags.names() {
                separate(&mut names);
                push_string(&mut names, name);
            }
            push_list(out, own::FLAGS, &names);
        }
        match source {
            None | Some(ValueRef::Null) => {}
            Some(ValueRef::Str(text)) if text.len() <= TEXT_UNITS_MAX => {}
            Some(value) => {
                let text = value.text();
                let mut end = text.len().min(SOURCE_BYTES_MAX);
                while !text.is_char_boundary(end) {
                    end -= 1;
                }
                out.extend_from_slice(b",\"logyard.source\":");
                push_string(out, text.get(..end).unwrap_or_default());
            }
        }
    }

    fn push_leaves(&mut self, out: &mut Vec<u8>) {
        if self.has_groups {
            // Stable: values of a field stay in their order.
            self.leaves.sort_by_key(|leaf| (leaf.id, leaf.kind));
        }
        let mut open = None;
        for (index, leaf) in self.leaves.iter().enumerate() {
            let of = (leaf.id, leaf.kind);
            let is_first = open != Some(of);
            if is_first {
                let slot = self
                    .plan
                    .addresses
                    .get(leaf.id as usize)
                    .and_then(|plan| plan.slots.get(leaf.kind as usize));
                let Some(Slot::Field(member)) = slot else {
                    continue;
                };
                out.push(b',');
                out.extend_from_slice(member);
                open = Some(of);
            } else {
                out.push(b',');
            }
            let next = self.leaves.get(index + 1);
            let is_last = next.is_none_or(|next| (next.id, next.kind) != of);
            if is_first && !is_last {
                out.push(b'[');
            }
            push_leaf(out, &leaf.value, &self.scratch.texts);
            if is_last && !is_first {
                out.push(b']');
            }
        }
    }

    fn push_lists(&self, out: &mut Vec<u8>) {
        let scratch = &self.scratch;
        for (name, list) in [
            (own::FIELDS, &scratch.fields),
            (own::MULTI, &scratch.multi),
            (own::LONG, &scratch.long),
            (own::SCALARS, &scratch.scalars),
            (own::OVERFLOW, &scratch.overflow),
            (own::ANY, &scratch.any),
            (own::WORDS, &scratch.words),
        ] {
            if !list.is_empty() {
                push_list(out, name, list);
            }
        }
    }
}

fn push_leaf(out: &mut Vec<u8>, value: &LeafValue<'_>, texts: &str) {
    match value {
        LeafValue::Bool(value) => push_value(out, ValueRef::Bool(*value)),
        LeafValue::Int(value) => push_value(out, ValueRef::Int(*value)),
        LeafValue::Float(value) => push_value(out, ValueRef::Float(*value)),
        LeafValue::Text(text) => push_string(out, text),
        LeafValue::Inner(range) => push_string(out, texts.get(range.clone()).unwrap_or_default()),
        LeafValue::Ip(ip) => push_string(out, &ip.to_string()),
    }
}

fn push_list(out: &mut Vec<u8>, name: &str, elements: &[u8]) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":[");
    out.extend_from_slice(elements);
    out.push(b']');
}

fn push_element(list: &mut Vec<u8>, element: &[u8]) {
    separate(list);
    list.extend_from_slice(element);
}

/// `logyard.record`: the fields under their keys; numbers kept as text are `{"n": text}`, JSON is `{"j": text}`.
fn push_exact(out: &mut Vec<u8>, exact: &mut Vec<u8>, record: &RecordRef<'_>) {
    exact.push(b'{');
    for field in record.fields() {
        if exact.len() != 1 {
            exact.push(b',');
        }
        push_string(exact, field.key);
        exact.push(b':');
        let (open, text) = match field.value {
            ValueRef::Number(text) => (&b"{\"n\":"[..], text),
            ValueRef::Json(text) => (&b"{\"j\":"[..], text),
            scalar => {
                push_value(exact, scalar);
                continue;
            }
        };
        exact.extend_from_slice(open);
        push_string(exact, text);
        exact.push(b'}');
    }
    exact.push(b'}');
    out.extend_from_slice(b",\"logyard.record\":");
    // Made of texts, so it is one.
    push_string(out, std::str::from_utf8(exact).unwrap_or_default());
}

fn nearest(text: &str) -> f64 {
    let value: f64 = text.parse().unwrap_or_default();
    value.clamp(f64::MIN, f64::MAX)
}

fn may_be_number(text: &str) -> bool {
    matches!(text.as_bytes(), [b'0'..=b'9' | b'-', ..])
}

fn ip_of(text: &str) -> Option<IpAddr> {
    let looks_like = text.len() <= IP_BYTES_MAX
        && matches!(
            text.as_bytes(),
            [b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F' | b':', ..]
        )
        && text.bytes().any(|b| b == b'.' || b == b':');
    if !looks_like {
        return None;
    }
    let ip: IpAddr = text.parse().ok()?;
    Some(ip.to_canonical())
}
