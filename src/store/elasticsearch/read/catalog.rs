//! Under which names, and in which indices, the values of an address are: Elasticsearch's `_field_caps`, asked anew for each question, because
//! another process may have added a field a moment ago.

use std::collections::BTreeSet;

use hashbrown::HashMap;
use serde_json::Value as Json;

use crate::query::number::is_number;
use crate::query::{Expr, Field, Match, Term};
use crate::store::elasticsearch::names::{self, Kind};

/// Where values of one kind are.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    pub name: String,
    /// Only in these indices does the name hold values of this kind.
    pub indices: Option<Vec<String>>,
}

/// A type, and the indices where a name has it, if not in all.
type Typed = (String, Option<Vec<String>>);

/// What the mappings of the indices asked say about some addresses.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// By field name: each type in the mapping, with the indices that have it where there are several.
    types: HashMap<String, Vec<Typed>>,
}

impl Catalog {
    pub fn add(&mut self, name: &str, es_type: &str, indices: Option<Vec<String>>) {
        self.types
            .entry(name.to_owned())
            .or_default()
            .push((es_type.to_owned(), indices));
    }

    /// Adds an answer of `_field_caps`.
    pub fn add_caps(&mut self, caps: &Json) {
        let fields = caps.get("fields").and_then(Json::as_object);
        for (name, types) in fields.into_iter().flatten() {
            for (es_type, caps) in types.as_object().into_iter().flatten() {
                let indices = caps.get("indices").map(|indices| match indices {
                    Json::Array(all) => all
                        .iter()
                        .filter_map(Json::as_str)
                        .map(str::to_owned)
                        .collect(),
                    Json::String(one) => vec![one.clone()],
                    _ => Vec::new(),
                });
                self.add(name, es_type, indices);
            }
        }
    }

    /// The fields that hold exact values of this kind at this address.
    pub fn targets(&self, address: &str, kind: Kind) -> Vec<Target> {
        let mut targets = Vec::new();
        for name in names::names_of(address, kind) {
            for (es_type, indices) in self.types.get(&name).into_iter().flatten() {
                let is_typed = name != names::flat_name(address) || !kind.takes_plain_name();
                if !is_typed && Kind::of_plain_type(es_type) != Some(kind) {
                    continue;
                }
                let name = match es_type.as_str() {
                    "text" => format!("{name}.keyword"),
                    _ => name.clone(),
                };
                targets.push(Target {
                    name,
                    indices: indices.clone(),
                });
            }
        }
        targets
    }

    /// The addresses that have a field, with the kinds of their values.
    pub fn addresses(&self) -> std::collections::BTreeMap<String, BTreeSet<Kind>> {
        let mut found: std::collections::BTreeMap<String, BTreeSet<Kind>> = Default::default();
        for (name, types) in &self.types {
            let Some((address, kind)) = names::address_of(name) else {
                continue;
            };
            for (es_type, _) in types {
                if let Some(kind) = kind.or_else(|| Kind::of_plain_type(es_type)) {
                    found
                        .entry(address.clone().into_owned())
                        .or_default()
                        .insert(kind);
                }
            }
        }
        found
    }
}

/// The addresses whose types decide how a filter is asked.
pub fn addresses_of(expr: &Expr) -> BTreeSet<String> {
    let mut addresses = BTreeSet::new();
    let mut left = vec![expr];
    while let Some(expr) = left.pop() {
        match expr {
            Expr::All => {}
            Expr::And(parts) | Expr::Or(parts) => left.extend(parts),
            Expr::Not(inner) => left.push(inner),
            Expr::Term(term) => {
                if let Term {
                    field: Field::Addresses(asked),
                    matcher,
                } = term
                    && needs_types(matcher)
                {
                    addresses.extend(asked.iter().cloned());
                }
            }
        }
    }
    addresses
}

fn needs_types(matcher: &Match) -> bool {
    match matcher {
        Match::Words { text, tokens } => {
            let is_boolean = ["true", "false"]
                .iter()
                .any(|b| text.eq_ignore_ascii_case(b));
            tokens.is_empty() || is_boolean || is_number(text)
        }
        Match::Exists => false,
        _ => true,
    }
}

/// The names to look up for an address: the plain one, and every typed one.
pub fn names_to_look_up(address: &str) -> Vec<String> {
    let mut found = vec![
        names::flat_name(address),
        format!("{}~*", names::flat_name(address)),
    ];
    let dotless = names::dotless_name(address, Kind::Text);
    if let Some(plain) = dotless.strip_suffix(Kind::Text.suffix()) {
        let pattern = format!("{plain}~*");
        if !found.contains(&pattern) {
            found.push(pattern);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_plain_name_counts_with_its_type_alone() {
        let mut catalog = Catalog::default();
        catalog.add_caps(&json!({"fields": {
            "x": {"keyword": {"indices": ["b"]}, "long": {"indices": ["a"]}},
            "x~text": {"keyword": {}},
            "message": {"text": {}},
        }}));
        let target = |name: &str, indices: Option<&[&str]>| Target {
            name: name.to_owned(),
            indices: indices.map(|all| all.iter().map(|i| (*i).to_owned()).collect()),
        };
        assert_eq!(
            catalog.targets("x", Kind::Text),
            [target("x", Some(&["b"])), target("x~text", None)]
        );
        assert_eq!(
            catalog.targets("x", Kind::Long),
            [target("x", Some(&["a"]))]
        );
        assert_eq!(catalog.targets("x", Kind::Bool), []);
        assert_eq!(
            catalog.targets("message", Kind::Text),
            [target("message.keyword", None)]
        );
        assert_eq!(names_to_look_up("a.b"), ["a.b", "a.b~*", "a%2Eb~*"]);
    }
}
