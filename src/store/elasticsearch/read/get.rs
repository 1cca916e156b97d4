//! One record by its key: its day's index holds it under its id.

use serde_json::json;

use crate::common::cancel::Cancel;
use crate::common::error::Result;
use crate::common::http::percent_encoded;
use crate::record::{Record, RecordKey};
use crate::store::elasticsearch::Inner;
use crate::store::elasticsearch::client::Method;
use crate::store::elasticsearch::hit::record_from_hit;
use crate::store::elasticsearch::names::index_of;

pub async fn get(inner: &Inner, key: RecordKey, cancel: Cancel) -> Result<Option<Record>> {
    let id = key.to_id();
    let index = index_of(&inner.options.index_prefix, key.timestamp_ns);
    let path = format!("/{}/_doc/{}", percent_encoded(&index), percent_encoded(&id));
    let answer = inner.client.ask(Method::GET, &path, None, &cancel).await?;
    if answer.status != 404 {
        let hit = answer.expect("give a record")?;
        if hit.get("found").and_then(serde_json::Value::as_bool) == Some(true) {
            return record_from_hit(&hit).map(Some);
        }
    }
    // An index restored or copied under another name still holds it.
    let pattern = percent_encoded(&inner.options.pattern());
    let path = format!("/{pattern}/_search?ignore_unavailable=true&allow_no_indices=true");
    let body = json!({"size": 1, "query": {"ids": {"values": [id]}}});
    let answer = inner
        .client
        .ask(Method::POST, &path, Some(&body), &cancel)
        .await?;
    let found = answer.expect("find a record")?;
    found
        .pointer("/hits/hits/0")
        .map(record_from_hit)
        .transpose()
}
