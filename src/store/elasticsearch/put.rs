//! Documents of the index of checkpoints, written where a condition holds.

use serde_json::{Value as Json, json};

use crate::common::error::{Error, Result};
use crate::store::elasticsearch::Inner;
use crate::store::elasticsearch::claim::Place;

/// The code of the error of [`Condition::Unchanged`].
pub const CHECKPOINT_MOVED: &str = "checkpoint_moved";

/// When a document is written.
pub enum Condition {
    /// The one there has no higher version; if it has, all is well too.
    NotNewer(u64),
    /// It is where it was seen, or is not there still.
    Unchanged(Option<Place>),
}

pub struct Put {
    pub id: String,
    pub condition: Condition,
    pub document: Json,
}

pub fn checkpoint_moved() -> Error {
    Error::unavailable(
        CHECKPOINT_MOVED,
        "the checkpoint was changed by another process; looking at it again",
    )
}

/// All of them, and searchable.
pub async fn put_all(inner: &Inner, puts: &[Put]) -> Result<()> {
    let mut body = Vec::new();
    for put in puts {
        let action = match put.condition {
            Condition::NotNewer(version) => json!({"index": {
                "_id": put.id, "version": version, "version_type": "external_gte",
            }}),
            Condition::Unchanged(Some(place)) => json!({"index": {
                "_id": put.id, "if_seq_no": place.seq_no, "if_primary_term": place.primary_term,
            }}),
            Condition::Unchanged(None) => json!({"create": {"_id": put.id}}),
        };
        body.extend_from_slice(format!("{action}\n{}\n", put.document).as_bytes());
    }
    let path = format!("/{}/_bulk?refresh=true", inner.options.state_index());
    let answer = inner.client.bulk(&path, body.into(), None).await?;
    let answer = answer.expect("note how far it is indexed")?;
    let items = answer.get("items").and_then(Json::as_array);
    for (item, put) in items.into_iter().flatten().zip(puts) {
        let status = item
            .get("index")
            .or_else(|| item.get("create"))
            .and_then(|item| item.get("status")?.as_u64());
        match (status, &put.condition) {
            (Some(200 | 201), _) => {}
            // Another process is further already.
            (Some(409), Condition::NotNewer(_)) => {}
            (Some(409), Condition::Unchanged(_)) => return Err(checkpoint_moved()),
            _ => {
                return Err(Error::unavailable(
                    "elasticsearch_refused",
                    format!("Elasticsearch refused to note how far it is indexed: {item}"),
                ));
            }
        }
    }
    Ok(())
}
