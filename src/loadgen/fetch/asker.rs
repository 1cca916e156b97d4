//! Asks one question over HTTP, times it, and keeps what came back under its kind.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::{Value as Json, json};

use crate::loadgen::client::HttpClient;
use crate::loadgen::report::Latency;

/// Wrong answers and failures that are told in full.
const TOLD_MAX: usize = 20;

/// What is known of one kind of question.
#[derive(Clone, Debug)]
pub struct KindTally {
    pub latency: Latency,
    pub cache_hits: u64,
    pub size_bytes: u64,
}

#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub kinds: BTreeMap<&'static str, KindTally>,
    /// Answers that cannot be true.
    pub n_wrong: u64,
    /// Answered 429 or 503: the server said it was too busy.
    pub n_busy: u64,
    /// No answer at all.
    pub n_failed: u64,
    pub told: Vec<String>,
}

impl Tally {
    pub fn merge(&mut self, other: Self) -> anyhow::Result<()> {
        for (kind, theirs) in other.kinds {
            match self.kinds.get_mut(kind) {
                Some(ours) => {
                    ours.latency.merge(&theirs.latency)?;
                    ours.cache_hits += theirs.cache_hits;
                    ours.size_bytes += theirs.size_bytes;
                }
                None => {
                    self.kinds.insert(kind, theirs);
                }
            }
        }
        self.n_wrong += other.n_wrong;
        self.n_busy += other.n_busy;
        self.n_failed += other.n_failed;
        self.told.extend(other.told);
        self.told.truncate(TOLD_MAX);
        Ok(())
    }

    pub fn n_answers(&self) -> u64 {
        self.kinds.values().map(|kind| kind.latency.count()).sum()
    }

    pub fn json(&self) -> Json {
        let kinds: serde_json::Map<String, Json> = self
            .kinds
            .iter()
            .map(|(name, kind)| {
                let mut entry = kind.latency.json();
                if let Some(entry) = entry.as_object_mut() {
                    entry.insert("cache_hits".to_owned(), json!(kind.cache_hits));
                    entry.insert("size_bytes".to_owned(), json!(kind.size_bytes));
                }
                ((*name).to_owned(), entry)
            })
            .collect();
        json!({
            "answers": self.n_answers(), "wrong": self.n_wrong, "busy": self.n_busy, "failed": self.n_failed,
            "kinds": kinds, "told": self.told,
        })
    }

    fn tell(&mut self, text: String) {
        if self.told.len() < TOLD_MAX {
            self.told.push(text);
        }
    }
}

/// Why there is no answer to check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoAnswer;

#[derive(Clone, Debug)]
pub struct Asker {
    pub client: HttpClient,
    pub tally: Tally,
    /// Send `Cache-Control: no-cache`.
    pub is_cache_bypassed: bool,
    /// Answers are read but not looked into.
    pub is_unchecked: bool,
}

impl Asker {
    /// Asks and counts. Whatever is not a readable 200 is counted here and answered with `NoAnswer`; when answers are not
    /// looked into, the body is null.
    pub async fn get(&mut self, kind: &'static str, path: &str) -> Result<Json, NoAnswer> {
        self.ask(kind, path, !self.is_unchecked).await
    }

    /// Like [`Self::get`], but always reads the body: for answers that the next question is made from.
    pub async fn get_parsed(&mut self, kind: &'static str, path: &str) -> Result<Json, NoAnswer> {
        self.ask(kind, path, true).await
    }

    async fn ask(
        &mut self,
        kind: &'static str,
        path: &str,
        is_parsed: bool,
    ) -> Result<Json, NoAnswer> {
        let headers: &[(&str, &str)] = if self.is_cache_bypassed {
            &[("cache-control", "no-cache")]
        } else {
            &[]
        };
        let sent = Instant::now();
        let reply = match self.client.get(path, headers).await {
            Ok(reply) => reply,
            Err(error) => {
                self.tally.n_failed += 1;
                self.tally.tell(format!("failed: {path}: {error:#}"));
                return Err(NoAnswer);
            }
        };
        let latency = sent.elapsed();
        if matches!(reply.status.as_u16(), 429 | 503) {
            self.tally.n_busy += 1;
            return Err(NoAnswer);
        }
        self.count(
            kind,
            latency,
            reply.header("x-cache") == Some("hit"),
            reply.body.len() as u64,
        );
        if reply.status.as_u16() != 200 {
            self.wrong(
                path,
                &format!("status {}: {}", reply.status.as_u16(), reply.excerpt()),
            );
            return Err(NoAnswer);
        }
        if !is_parsed {
            return Ok(Json::Null);
        }
        if !matches!(reply.header("x-cache"), Some("hit" | "miss" | "bypass")) {
            self.wrong(path, "no `X-Cache: hit|miss|bypass`");
        }
        match reply.json() {
            Ok(answer) => Ok(answer),
            Err(error) => {
                self.wrong(path, &format!("{error:#}"));
                Err(NoAnswer)
            }
        }
    }

    fn count(
        &mut self,
        kind: &'static str,
        latency: std::time::Duration,
        is_hit: bool,
        size_bytes: u64,
    ) {
        if !self.tally.kinds.contains_key(kind)
            && let Ok(latency) = Latency::new()
        {
            let fresh = KindTally {
                latency,
                cache_hits: 0,
                size_bytes: 0,
            };
            self.tally.kinds.insert(kind, fresh);
        }
        if let Some(tally) = self.tally.kinds.get_mut(kind) {
            tally.latency.record(latency);
            tally.cache_hits += u64::from(is_hit);
            tally.size_bytes += size_bytes;
        }
    }

    /// Notes an answer that cannot be true.
    pub fn wrong(&mut self, path: &str, what: &str) {
        self.tally.n_wrong += 1;
        self.tally.tell(format!("wrong: {path}: {what}"));
    }

    pub fn check(&mut self, path: &str, verdict: Result<(), String>) {
        if !self.is_unchecked
            && let Err(what) = verdict
        {
            self.wrong(path, &what);
        }
    }
}
