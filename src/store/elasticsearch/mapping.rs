//! The indices on the server: template, creation, and fields added before the first document needs them.
//!
//! The mapping is never dynamic. Two indexers may add fields at the same time: the later one is refused, reads what is there now and goes on with that.
//! Writes go through an alias with a random name that is made with the index, so nothing is ever written into an index that was dropped and made
//! again (with other fields) in between.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use serde_json::{Map, Value as Json, json};

use crate::common::error::{Error, Result};
use crate::store::elasticsearch::Inner;
use crate::store::elasticsearch::client::{Answer, Method, Server};
use crate::store::elasticsearch::names::{TEXT_UNITS_MAX, own};
use crate::store::elasticsearch::options::ElasticsearchOptions;
use crate::store::elasticsearch::plan::{IndexPlan, NewField, Preferred, definition};

/// Rounds of "refused, look again" before one field at a time is tried.
const ROUNDS_MAX: u32 = 4;
const PREFERRED_MAX: usize = 20_000;

/// What is remembered of the indices between writes.
#[derive(Default)]
pub struct Mappings {
    preferred: Mutex<Preferred>,
    has_template: tokio::sync::OnceCell<()>,
}

/// Logyard's own fields with their definitions; `level`, `source` and `message` among them, so that the usual questions know their types.
fn own_fields() -> BTreeMap<&'static str, Json> {
    let keyword = || json!({"type": "keyword", "ignore_above": TEXT_UNITS_MAX});
    // Only ever searched.
    let unsorted_keyword =
        || json!({"type": "keyword", "doc_values": false, "ignore_above": TEXT_UNITS_MAX});
    let text = || json!({"type": "text", "analyzer": "whitespace", "norms": false});
    let long = || json!({"type": "long"});
    BTreeMap::from([
        (own::TIMESTAMP, json!({"type": "date_nanos"})),
        (own::NS, long()),
        (own::MS, json!({"type": "date"})),
        (own::PARTITION, long()),
        (own::SEQ, long()),
        (own::ARRIVAL_NS, long()),
        (own::SOURCE, keyword()),
        (own::FLAGS, keyword()),
        (own::FIELDS, keyword()),
        (own::LONG, keyword()),
        (own::MULTI, keyword()),
        (own::SCALARS, unsorted_keyword()),
        (own::OVERFLOW, unsorted_keyword()),
        (own::ANY, text()),
        (own::WORDS, text()),
        ("level", keyword()),
        ("source", keyword()),
        (
            "message",
            json!({"type": "text", "norms": false, "fields": {"keyword": {"type": "keyword", "ignore_above": TEXT_UNITS_MAX}}}),
        ),
    ])
}

fn mapping_body(fields: impl IntoIterator<Item = (String, Json)>, is_flat: bool) -> Json {
    let properties: Map<String, Json> = fields.into_iter().collect();
    let mut body = json!({"properties": properties});
    if is_flat {
        // To be repeated with every change: without it dots would make objects.
        set(&mut body, "subobjects", Json::Bool(false));
    }
    body
}

fn set(object: &mut Json, key: &str, value: Json) {
    if let Json::Object(members) = object {
        members.insert(key.to_owned(), value);
    }
}

/// Settings and mapping of the daily indices.
pub fn template(options: &ElasticsearchOptions, server: &Server) -> Json {
    let is_logsdb = options.logsdb && server.has_flat_mappings();
    let mut fields: BTreeMap<String, Json> = own_fields()
        .into_iter()
        .map(|(name, field)| (name.to_owned(), field))
        .collect();
    let mut settings = json!({
        "index.number_of_shards": options.shards,
        "index.number_of_replicas": options.replicas,
        "index.refresh_interval": options.refresh_interval,
        "index.mapping.total_fields.limit": options.fields_max,
        "index.mapping.ignore_malformed": true,
        "index.max_regex_length": 10_000,
    });
    if is_logsdb {
        fields.insert(own::AT_TIMESTAMP.to_owned(), json!({"type": "date"}));
        set(&mut settings, "index.mode", json!("logsdb"));
        // The documents stay as they were sent; rebuilding them from columns would change them.
        set(&mut settings, "index.mapping.source.mode", json!("stored"));
        set(
            &mut settings,
            "index.sort.field",
            json!(["source", own::AT_TIMESTAMP]),
        );
        set(&mut settings, "index.sort.order", json!(["asc", "desc"]));
    }
    if !is_logsdb || options.codec != "default" {
        set(&mut settings, "index.codec", json!(options.codec));
    }
    let mut mappings = mapping_body(fields, server.has_flat_mappings());
    set(&mut mappings, "dynamic", Json::Bool(false));
    set(
        &mut mappings,
        "_source",
        json!({"excludes": [own::ANY, own::WORDS]}),
    );
    let prefix = &options.index_prefix;
    json!({
        "index_patterns": [format!("{prefix}2*.*.*"), format!("{prefix}other")],
        "priority": 500,
        "template": {"settings": settings, "mappings": mappings},
        "_meta": {"description": "Logyard's records by day; the server puts it here again at each start"},
    })
}

pub fn template_name(options: &ElasticsearchOptions) -> String {
    let name = format!("{}{}", options.state_prefix, options.index_prefix);
    name.trim_end_matches(['-', '.', '_']).to_owned()
}

impl Mappings {
    /// The template, once for each process.
    async fn put_template(&self, inner: &Inner) -> Result<()> {
        let put = async || {
            let server = inner.client.server().await?;
            let path = format!("/_index_template/{}", template_name(&inner.options));
            let body = template(&inner.options, server);
            let answer = inner.client.admin(Method::PUT, &path, Some(&body)).await?;
            answer.expect("take the index template").map(drop)
        };
        self.has_template.get_or_try_init(put).await.map(drop)
    }

    /// What is known of the index; makes it if it does not exist.
    pub async fn open(&self, inner: &Inner, index: &str) -> Result<IndexPlan> {
        self.put_template(inner).await?;
        for _ in 0..ROUNDS_MAX {
            if let Some(found) = self.load(inner, index).await? {
                let alias = match alias_of(inner, index, &found) {
                    Some(alias) => alias,
                    None => add_alias(inner, index).await?,
                };
                let plan = self.plan(inner, index, alias, &found).await?;
                return Ok(plan);
            }
            create(inner, index).await?;
        }
        Err(Error::unavailable(
            "elasticsearch_refused",
            format!("index {index} vanishes as soon as it is made"),
        ))
    }

    async fn load(&self, inner: &Inner, index: &str) -> Result<Option<Json>> {
        let answer = inner
            .client
            .admin(Method::GET, &format!("/{index}"), None)
            .await?;
        if answer.status == 404 {
            return Ok(None);
        }
        let mut found = answer.expect(&format!("show index {index}"))?;
        Ok(Some(
            found.get_mut(index).map(Json::take).unwrap_or_default(),
        ))
    }

    async fn plan(
        &self,
        inner: &Inner,
        index: &str,
        alias: String,
        found: &Json,
    ) -> Result<IndexPlan> {
        let null = Json::Null;
        let limit = found
            .pointer("/settings/index/mapping/total_fields/limit")
            .and_then(Json::as_str)
            .and_then(|limit| limit.parse().ok())
            .unwrap_or(1_000);
        let durability = found.pointer("/settings/index/translog/durability");
        if durability.and_then(Json::as_str) == Some("async") {
            tracing::warn!(
                index,
                "a template sets `index.translog.durability` to async: Elasticsearch acknowledges records before they are on disk"
            );
        }
        let mapping = found.get("mappings").unwrap_or(&null);
        let mut plan = IndexPlan::new(index.to_owned(), alias, mapping, limit);
        self.complete_own_fields(inner, &mut plan, mapping).await?;
        self.learn(&plan);
        Ok(plan)
    }

    /// An index that a foreign template shaped gets Logyard's fields, or is refused.
    async fn complete_own_fields(
        &self,
        inner: &Inner,
        plan: &mut IndexPlan,
        mapping: &Json,
    ) -> Result<()> {
        let index = plan.index.clone();
        let mut missing = Vec::new();
        for (name, field) in own_fields() {
            let wanted = field.get("type").and_then(Json::as_str);
            match plan.type_of(name) {
                found if found == wanted => {}
                None => missing.push((name.to_owned(), field)),
                Some(found) => {
                    return Err(Error::unavailable(
                        "elasticsearch_foreign_index",
                        format!(
                            "index {index} has a field `{name}` of type {found}, so something else than Logyard made it; set another `store.elasticsearch_index_prefix` or remove the template that shaped it"
                        ),
                    ));
                }
            }
        }
        let is_static = matches!(mapping.get("dynamic"), Some(Json::String(text)) if text == "false")
            || mapping.get("dynamic") == Some(&Json::Bool(false));
        if missing.is_empty() && is_static {
            return Ok(());
        }
        let mut body = mapping_body(
            missing,
            mapping.get("subobjects") == Some(&Json::Bool(false)),
        );
        set(&mut body, "dynamic", Json::Bool(false));
        let path = format!("/{index}/_mapping");
        let answer = inner.client.admin(Method::PUT, &path, Some(&body)).await?;
        answer.expect(&format!("give index {index} the fields that Logyard needs"))?;
        if let Some(found) = self.load(inner, &index).await? {
            plan.set_mapping(found.get("mappings").unwrap_or(&Json::Null));
        }
        Ok(())
    }

    fn learn(&self, plan: &IndexPlan) {
        let mut preferred = self.preferred.lock();
        if PREFERRED_MAX < preferred.len() {
            preferred.clear();
        }
        for (address, kind) in plan.plain_kinds() {
            preferred.entry(address).or_insert(kind);
        }
    }

    /// Adds the fields that the plan wants, as far as the index takes them; afterwards no slot that was wanted is missing.
    pub async fn add_wanted(&self, inner: &Inner, plan: &mut IndexPlan) -> Result<()> {
        for round in 0.. {
            let fields = plan.new_fields(&self.preferred.lock());
            if fields.is_empty() {
                plan.added(&[]);
                break;
            }
            if ROUNDS_MAX <= round {
                self.add_one_by_one(inner, plan, &fields).await?;
                plan.added(&[]);
                break;
            }
            let answer = put_fields(inner, plan, &fields).await?;
            if answer.is_success() {
                plan.added(&fields);
                continue;
            }
            self.look_again(inner, plan, &answer).await?;
        }
        self.learn(plan);
        Ok(())
    }

    /// After a refusal: what does the index have now?
    async fn look_again(&self, inner: &Inner, plan: &mut IndexPlan, answer: &Answer) -> Result<()> {
        if answer.status != 400 && answer.status != 404 {
            answer.expect("add fields")?;
        }
        let Some(found) = self.load(inner, &plan.index).await? else {
            return Err(Error::unavailable(
                "elasticsearch_index_gone",
                format!("index {} was dropped while fields were added", plan.index),
            ));
        };
        plan.set_mapping(found.get("mappings").unwrap_or(&Json::Null));
        if answer.reason().contains("Limit of total fields") {
            plan.is_full();
        }
        Ok(())
    }

    async fn add_one_by_one(
        &self,
        inner: &Inner,
        plan: &mut IndexPlan,
        fields: &[NewField],
    ) -> Result<()> {
        for field in fields {
            let one = std::slice::from_ref(field);
            let answer = put_fields(inner, plan, one).await?;
            if answer.is_success() {
                let wanted = std::mem::take(&mut plan.wanted);
                plan.added(one);
                plan.wanted = wanted;
            } else if answer.status == 400 {
                tracing::warn!(
                    index = plan.index,
                    field = field.name,
                    reason = answer.reason(),
                    "Elasticsearch does not take a field; its values are kept in `logyard.overflow`"
                );
                plan.refused(field);
            } else {
                answer.expect("add a field")?;
            }
        }
        Ok(())
    }
}

async fn put_fields(inner: &Inner, plan: &IndexPlan, fields: &[NewField]) -> Result<Answer> {
    let definitions = fields
        .iter()
        .map(|field| (field.name.clone(), definition(field.kind)));
    let body = mapping_body(definitions, plan.is_flat);
    let path = format!("/{}/_mapping", plan.index);
    inner.client.admin(Method::PUT, &path, Some(&body)).await
}

fn alias_prefix(inner: &Inner, index: &str) -> String {
    format!("{}write-{index}-", inner.options.state_prefix)
}

fn new_alias(inner: &Inner, index: &str) -> String {
    format!(
        "{}{:016x}",
        alias_prefix(inner, index),
        rand::random::<u64>()
    )
}

fn alias_of(inner: &Inner, index: &str, found: &Json) -> Option<String> {
    let prefix = alias_prefix(inner, index);
    let aliases = found.get("aliases")?.as_object()?;
    aliases
        .keys()
        .find(|name| name.starts_with(&prefix))
        .cloned()
}

async fn add_alias(inner: &Inner, index: &str) -> Result<String> {
    let alias = new_alias(inner, index);
    let path = format!("/{index}/_alias/{alias}");
    let answer = inner.client.admin(Method::PUT, &path, None).await?;
    answer.expect(&format!("give index {index} an alias"))?;
    Ok(alias)
}

async fn create(inner: &Inner, index: &str) -> Result<()> {
    let alias = new_alias(inner, index);
    let body = json!({"aliases": {alias: {}}});
    let answer = inner
        .client
        .admin(Method::PUT, &format!("/{index}"), Some(&body))
        .await?;
    let is_there = answer.status == 400 && answer.reason().contains("resource_already_exists");
    if is_there {
        return Ok(());
    }
    answer.expect(&format!("make index {index}")).map(drop)
}
