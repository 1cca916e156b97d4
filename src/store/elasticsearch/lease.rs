//! One cleaner at a time: a document that names who cleans and until when. Each change needs the document as it was last seen (`if_seq_no`), so of two
//! cleaners that take over an expired lease one is told that it was too late.

use serde_json::{Value as Json, json};

use crate::common::error::{Error, Result};
use crate::common::http::percent_encoded;
use crate::store::elasticsearch::Inner;
use crate::store::elasticsearch::client::{Answer, Method};

pub struct Lease<'a> {
    inner: &'a Inner,
    owner: u64,
    seq_no: u64,
    primary_term: u64,
    /// An index that a cleaner which vanished has left closed to writers.
    pub left_blocked: Option<String>,
}

fn path(inner: &Inner, verb: &str) -> String {
    let id = percent_encoded(&format!("lock/{}", inner.options.index_prefix));
    format!("/{}/{verb}/{id}", inner.options.state_index())
}

fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

fn place(answer: &Json) -> Option<(u64, u64)> {
    let seq_no = answer.get("_seq_no")?.as_u64()?;
    let primary_term = answer.get("_primary_term")?.as_u64()?;
    Some((seq_no, primary_term))
}

impl<'a> Lease<'a> {
    /// `None`: another cleaner is at work.
    pub async fn take(inner: &'a Inner) -> Result<Option<Self>> {
        let owner: u64 = rand::random::<u64>() >> 1;
        let mut lease = Self {
            inner,
            owner,
            seq_no: 0,
            primary_term: 0,
            left_blocked: None,
        };
        let body = lease.body(None);
        let created = inner
            .client
            .admin(Method::PUT, &path(inner, "_create"), Some(&body))
            .await?;
        if created.status != 409 {
            lease.keep(&created)?;
            return Ok(Some(lease));
        }
        let found = inner
            .client
            .admin(Method::GET, &path(inner, "_doc"), None)
            .await?;
        if found.status == 404 {
            return Ok(None);
        }
        let found = found.expect("say which cleaner is at work")?;
        let until = found
            .pointer("/_source/until_ms")
            .and_then(Json::as_i64)
            .unwrap_or(0);
        let Some((seq_no, primary_term)) = place(&found).filter(|_| until <= now_ms()) else {
            return Ok(None);
        };
        (lease.seq_no, lease.primary_term) = (seq_no, primary_term);
        let blocked = found.pointer("/_source/blocked").and_then(Json::as_str);
        lease.left_blocked = blocked.map(str::to_owned);
        match lease.renew(blocked).await {
            Ok(()) => Ok(Some(lease)),
            Err(error) if error.code == "lease_lost" => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn body(&self, blocked: Option<&str>) -> Json {
        let lease_ms =
            i64::try_from(self.inner.options.cleaner_lease.as_millis()).unwrap_or(i64::MAX);
        json!({
            "kind": "lock",
            "index_prefix": self.inner.options.index_prefix,
            "owner": self.owner,
            "until_ms": now_ms().saturating_add(lease_ms),
            "blocked": blocked,
        })
    }

    /// Keeps the lease for its whole time again, and notes which index is closed to writers now. Fails if another has taken it.
    pub async fn renew(&mut self, blocked: Option<&str>) -> Result<()> {
        let fenced = format!(
            "{}?if_seq_no={}&if_primary_term={}",
            path(self.inner, "_doc"),
            self.seq_no,
            self.primary_term
        );
        let body = self.body(blocked);
        let answer = self
            .inner
            .client
            .admin(Method::PUT, &fenced, Some(&body))
            .await?;
        self.keep(&answer)
    }

    fn keep(&mut self, answer: &Answer) -> Result<()> {
        if answer.status == 409 {
            return Err(Error::unavailable(
                "lease_lost",
                "another cleaner has taken over; this one stops",
            ));
        }
        let answer = answer.expect("note which cleaner is at work")?;
        let place = place(&answer);
        (self.seq_no, self.primary_term) = place.ok_or_else(|| {
            Error::unavailable(
                "elasticsearch_broken_answer",
                "Elasticsearch does not say where it put the cleaner's note",
            )
        })?;
        Ok(())
    }

    /// Lets the next cleaner begin at once.
    pub async fn release(self) -> Result<()> {
        let fenced = format!(
            "{}?if_seq_no={}&if_primary_term={}",
            path(self.inner, "_doc"),
            self.seq_no,
            self.primary_term
        );
        let answer = self
            .inner
            .client
            .admin(Method::DELETE, &fenced, None)
            .await?;
        match answer.status {
            404 | 409 => Ok(()),
            _ => answer.expect("end the clean-up").map(drop),
        }
    }
}
