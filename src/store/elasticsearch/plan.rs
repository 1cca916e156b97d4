//! What is known of one index while documents are made for it: which fields its mapping has, and for each address where values of each type go.

use hashbrown::{HashMap, HashSet};
use serde_json::{Map, Value as Json};

use crate::store::elasticsearch::names::{
    Kind, TEXT_UNITS_MAX, address_of, address_term, can_have_field, dotless_name, flat_name, own,
    typed_name, word_prefix,
};
use crate::wire::json_text::push_string;

/// Addresses kept ready; beyond it the table starts anew.
const ADDRESSES_MAX: usize = 50_000;
/// Where dots make objects, servers refuse names of more than 20 levels.
const LEVELS_MAX: usize = 18;

/// Where values of one type at one address go.
#[derive(Clone, Debug, PartialEq)]
pub enum Slot {
    /// `"name":`, ready to be written.
    Field(Box<[u8]>),
    /// Into the catch-all.
    Overflow,
    /// The mapping must get a field first.
    Missing,
    /// The same, and it stands in `wanted`.
    Wanted,
}

/// An address, ready to be written in all the forms that a document needs.
pub struct AddressPlan {
    pub address: Box<str>,
    /// The address as a JSON string.
    pub term: Box<[u8]>,
    /// What stands before each of its words, inside a JSON string.
    pub word_prefix: Box<[u8]>,
    pub slots: [Slot; Kind::ALL.len()],
    /// The document that last used each slot, and that last noted the address as present, as several, as long.
    pub seen: [u64; Kind::ALL.len()],
    pub present: u64,
    pub multi: u64,
    pub long: u64,
}

/// A field to be added.
#[derive(Clone, Debug, PartialEq)]
pub struct NewField {
    pub name: String,
    pub kind: Kind,
    pub id: u32,
}

pub struct IndexPlan {
    pub index: String,
    /// The alias that writes go through: it is gone, with its random name, when the index is.
    pub alias: String,
    /// Whether dots in names mean nothing here (`subobjects: false`).
    pub is_flat: bool,
    /// Field name → its type.
    known: HashMap<String, String>,
    objects: HashSet<String>,
    n_fields: usize,
    fields_max: usize,
    refused: HashSet<(Box<str>, Kind)>,
    pub addresses: Vec<AddressPlan>,
    ids: HashMap<Box<str>, u32, ahash::RandomState>,
    pub wanted: Vec<(u32, Kind)>,
    /// Counts documents, for the marks in the addresses.
    pub document: u64,
}

/// The type that has the plain name of an address elsewhere: daily indices then agree, which Kibana likes.
pub type Preferred = HashMap<String, Kind>;

impl IndexPlan {
    /// `mapping` is the `mappings` object of the index.
    pub fn new(index: String, alias: String, mapping: &Json, fields_max: usize) -> Self {
        let mut plan = Self {
            index,
            alias,
            is_flat: mapping.get("subobjects") == Some(&Json::Bool(false)),
            known: HashMap::new(),
            objects: HashSet::new(),
            n_fields: 0,
            fields_max,
            refused: HashSet::new(),
            addresses: Vec::new(),
            ids: HashMap::default(),
            wanted: Vec::new(),
            document: 0,
        };
        plan.set_mapping(mapping);
        plan
    }

    /// Takes over what the index has now.
    pub fn set_mapping(&mut self, mapping: &Json) {
        self.known.clear();
        self.objects.clear();
        self.n_fields = 0;
        if let Some(Json::Object(properties)) = mapping.get("properties") {
            self.note_properties("", properties);
        }
        self.resolve();
    }

    fn note_properties(&mut self, prefix: &str, properties: &Map<String, Json>) {
        for (name, field) in properties {
            let name = format!("{prefix}{name}");
            self.n_fields += 1;
            if let Some(Json::Object(sub_fields)) = field.get("fields") {
                self.n_fields += sub_fields.len();
            }
            match field.get("properties") {
                Some(Json::Object(inner)) => {
                    self.note_properties(&format!("{name}."), inner);
                    self.objects.insert(name);
                }
                _ => {
                    let ty = field.get("type").and_then(Json::as_str).unwrap_or("object");
                    self.known.insert(name, ty.to_owned());
                }
            }
        }
    }

    pub fn type_of(&self, name: &str) -> Option<&str> {
        self.known.get(name).map(String::as_str)
    }

    /// Whether documents must have `@timestamp`: `logsdb`.
    pub fn has_at_timestamp(&self) -> bool {
        self.known.contains_key(own::AT_TIMESTAMP)
    }

    /// The types that have plain names here.
    pub fn plain_kinds(&self) -> impl Iterator<Item = (String, Kind)> + '_ {
        self.known.iter().filter_map(|(name, ty)| {
            let (address, typed) = address_of(name)?;
            let kind = Kind::of_plain_type(ty)?;
            typed.is_none().then(|| (address.into_owned(), kind))
        })
    }

    /// The number under which the address stands in `addresses`.
    pub fn address_id(&mut self, address: &str) -> u32 {
        if let Some(id) = self.ids.get(address) {
            return *id;
        }
        let slots = Kind::ALL.map(|kind| self.slot(address, kind));
        let id = u32::try_from(self.addresses.len()).unwrap_or(u32::MAX);
        self.addresses.push(AddressPlan {
            address: address.into(),
            term: quoted(&address_term(address)),
            word_prefix: {
                let quoted = quoted(&word_prefix(address));
                let inside = quoted.get(1..quoted.len() - 1).unwrap_or_default();
                inside.into()
            },
            slots,
            seen: [0; Kind::ALL.len()],
            present: 0,
            multi: 0,
            long: 0,
        });
        self.ids.insert(address.into(), id);
        id
    }

    /// To be called between batches: a sender that invents names must not fill the memory.
    pub fn trim(&mut self) {
        if ADDRESSES_MAX < self.addresses.len() {
            self.addresses.clear();
            self.ids.clear();
            self.wanted.clear();
        }
    }

    fn slot(&self, address: &str, kind: Kind) -> Slot {
        if !can_have_field(address) {
            return Slot::Overflow;
        }
        if kind.takes_plain_name() {
            let plain = flat_name(address);
            if self.type_of(&plain).and_then(Kind::of_plain_type) == Some(kind) {
                return Slot::Field(member(&plain));
            }
        }
        for name in [typed_name(address, kind), dotless_name(address, kind)] {
            if self.known.contains_key(&name) {
                return Slot::Field(member(&name));
            }
        }
        let is_refused = || self.refused.contains(&(Box::<str>::from(address), kind));
        if self.fields_max <= self.n_fields || is_refused() {
            Slot::Overflow
        } else {
            Slot::Missing
        }
    }

    /// Finds all slots anew.
    fn resolve(&mut self) {
        let mut addresses = std::mem::take(&mut self.addresses);
        for plan in &mut addresses {
            plan.slots = Kind::ALL.map(|kind| self.slot(&plan.address, kind));
        }
        self.addresses = addresses;
    }

    /// The fields to add for what is wanted, as many as there is room for.
    pub fn new_fields(&self, preferred: &Preferred) -> Vec<NewField> {
        let mut staged: HashSet<String> = HashSet::new();
        let mut fields = Vec::new();
        let mut done = HashSet::new();
        for (id, kind) in &self.wanted {
            let Some(plan) = self.addresses.get(*id as usize) else {
                continue;
            };
            let slot = plan.slots.get(*kind as usize);
            let is_missing = matches!(slot, Some(Slot::Missing | Slot::Wanted));
            if !done.insert((*id, *kind))
                || !is_missing
                || self.fields_max <= self.n_fields + staged.len()
            {
                continue;
            }
            let name = self.free_name(&plan.address, *kind, preferred, &staged);
            if staged.insert(name.clone()) {
                fields.push(NewField {
                    name,
                    kind: *kind,
                    id: *id,
                });
            }
        }
        fields
    }

    fn free_name(
        &self,
        address: &str,
        kind: Kind,
        preferred: &Preferred,
        staged: &HashSet<String>,
    ) -> String {
        let is_free = |name: &str| {
            !self.known.contains_key(name)
                && !staged.contains(name)
                && (self.is_flat || !self.is_blocked(name, staged))
        };
        let prefers = preferred
            .get(address)
            .is_none_or(|preferred| *preferred == kind);
        let plain = flat_name(address);
        if kind.takes_plain_name() && prefers && is_free(&plain) {
            return plain;
        }
        let typed = typed_name(address, kind);
        if is_free(&typed) {
            return typed;
        }
        dotless_name(address, kind)
    }

    /// Where dots make objects: a field stands where the name needs an object, or the other way round.
    fn is_blocked(&self, name: &str, staged: &HashSet<String>) -> bool {
        let has_field = |name: &str| self.known.contains_key(name) || staged.contains(name);
        let under = format!("{name}.");
        LEVELS_MAX < name.matches('.').count()
            || self.objects.contains(name)
            || staged.iter().any(|other| other.starts_with(&under))
            || name
                .match_indices('.')
                .any(|(at, _)| name.get(..at).is_some_and(has_field))
    }

    /// The fields are in the mapping now.
    pub fn added(&mut self, fields: &[NewField]) {
        for field in fields {
            for (at, _) in field.name.match_indices('.') {
                let object = field.name.get(..at).unwrap_or_default();
                if !self.is_flat && self.objects.insert(object.to_owned()) {
                    self.n_fields += 1;
                }
            }
            self.n_fields += 1;
            self.known
                .insert(field.name.clone(), field.kind.es_type().to_owned());
        }
        self.wanted.clear();
        self.resolve();
    }

    /// The server says that there is no room for more.
    pub fn is_full(&mut self) {
        self.fields_max = self.n_fields;
        self.resolve();
    }

    /// The server does not take this one field, whatever the reason.
    pub fn refused(&mut self, field: &NewField) {
        if let Some(plan) = self.addresses.get(field.id as usize) {
            self.refused.insert((plan.address.clone(), field.kind));
        }
        self.resolve();
    }
}

/// How the mapping defines a field of this type.
pub fn definition(kind: Kind) -> Json {
    match kind {
        Kind::Text => serde_json::json!({"type": "keyword", "ignore_above": TEXT_UNITS_MAX}),
        other => serde_json::json!({"type": other.es_type()}),
    }
}

fn quoted(text: &str) -> Box<[u8]> {
    let mut out = Vec::with_capacity(text.len() + 2);
    push_string(&mut out, text);
    out.into()
}

fn member(name: &str) -> Box<[u8]> {
    let mut out = quoted(name).into_vec();
    out.push(b':');
    out.into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn plan(mapping: &Json) -> IndexPlan {
        IndexPlan::new("logs-x".to_owned(), "w".to_owned(), mapping, 20)
    }

    fn want(plan: &mut IndexPlan, wanted: &[(&str, Kind)]) -> Vec<String> {
        for (address, kind) in wanted {
            let id = plan.address_id(address);
            plan.wanted.push((id, *kind));
        }
        let fields = plan.new_fields(&Preferred::new());
        plan.added(&fields);
        fields.into_iter().map(|field| field.name).collect()
    }

    #[test]
    fn the_first_type_takes_the_plain_name() {
        let mut plan = plan(&json!({"subobjects": false, "properties": {}}));
        let names = want(
            &mut plan,
            &[
                ("a", Kind::Long),
                ("a", Kind::Text),
                ("a.b", Kind::Text),
                ("ip", Kind::Ip),
                ("a", Kind::Long),
            ],
        );
        assert_eq!(names, ["a", "a~text", "a.b", "ip~ip"]);
        let id = plan.address_id("a") as usize;
        assert_eq!(
            plan.addresses[id].slots[Kind::Text as usize],
            Slot::Field((*b"\"a~text\":").into())
        );
        assert_eq!(plan.addresses[id].slots[Kind::Bool as usize], Slot::Missing);
        assert!(want(&mut plan, &[("a", Kind::Text)]).is_empty());
    }

    #[test]
    fn another_day_prefers_the_same_type() {
        let plan = {
            let mut plan = plan(&json!({"subobjects": false}));
            let id = plan.address_id("a");
            plan.wanted = vec![(id, Kind::Text), (id, Kind::Long)];
            plan
        };
        let preferred = Preferred::from_iter([("a".to_owned(), Kind::Long)]);
        let names: Vec<String> = plan
            .new_fields(&preferred)
            .into_iter()
            .map(|field| field.name)
            .collect();
        assert_eq!(names, ["a~text", "a"]);
    }

    #[test]
    fn where_dots_make_objects_names_get_out_of_the_way() {
        let deep = ["x"; 20].join(".");
        let deep_name = format!("{}~long", deep.replace('.', "%2E"));
        let mut plan = plan(&json!({"properties": {"o": {"properties": {"x": {"type": "long"}}}}}));
        let names = want(
            &mut plan,
            &[
                ("a", Kind::Text),
                ("a.b", Kind::Long),
                ("o", Kind::Bool),
                ("o.x", Kind::Long),
                ("n.m", Kind::Long),
                ("n", Kind::Long),
                ("n.m.l", Kind::Text),
                (&deep, Kind::Long),
            ],
        );
        assert_eq!(
            names,
            [
                "a",
                "a%2Eb~long",
                "o~bool",
                "n.m",
                "n~long",
                "n%2Em%2El~text",
                &deep_name,
            ]
        );
    }

    #[test]
    fn past_the_limit_values_go_into_the_overflow() {
        let mut plan = plan(&json!({"subobjects": false}));
        plan.fields_max = 2;
        let names = want(
            &mut plan,
            &[("a", Kind::Text), ("b", Kind::Text), ("c", Kind::Text)],
        );
        assert_eq!(names, ["a", "b"]);
        let id = plan.address_id("c") as usize;
        assert_eq!(plan.addresses[id].slots[0], Slot::Overflow);
        let long = plan.address_id(&"x".repeat(600)) as usize;
        assert_eq!(plan.addresses[long].slots[0], Slot::Overflow);
    }
}
