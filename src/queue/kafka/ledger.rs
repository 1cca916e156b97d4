//! What the topic of idempotency keys says, in its own order: the same in every process that reads it.
//!
//! A **claim** asks for a key. The first claim of a key that is free wins; a key is free if nobody claimed it within [`Rules::claim_ms`] without
//! finishing, or finished within [`Rules::window_ms`]. **Done** carries the answer. **Release** frees a key whose request stored nothing; if that request
//! had taken the key over, the next with the same body may do so at once, and still looks for what the first one stored. Times are the broker's, as it
//! wrote them into the topic.
//!
//! Values are JSON: `{"claim": …, "is": "claim"|"done"|"release", …}`; the message's key is the idempotency key.

use std::collections::VecDeque;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use crate::queue::Appended;
use crate::record::{Checkpoint, Position};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "lowercase")]
pub(super) enum Event {
    Claim {
        claim: String,
        body_hash: String,
        /// Where the topics ended before: messages of this claim lie at or after it.
        ends: Vec<(u32, u64)>,
    },
    Done {
        claim: String,
        answer: String,
        partition: u32,
        seq: u64,
        count: u32,
        covers: Vec<(u32, u64)>,
    },
    Release {
        claim: String,
    },
}

impl Event {
    pub fn done(claim: &str, answer: &[u8], appended: &Appended) -> Self {
        Self::Done {
            claim: claim.to_owned(),
            answer: STANDARD.encode(answer),
            partition: appended.first.partition,
            seq: appended.first.seq,
            count: appended.count,
            covers: appended.covers.0.clone().into_iter().collect(),
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub window_ms: i64,
    /// A claim that is not done after this may be taken over.
    pub claim_ms: i64,
    pub keys_max: usize,
    /// Memory of keys and answers.
    pub size_bytes_max: usize,
}

/// What a key costs beside its text and its answer.
const KEY_OVERHEAD_BYTES: usize = 300;

/// What became of a key.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Known {
    Claimed {
        claim: String,
        body_hash: String,
        at_ms: i64,
        /// Where messages of this claim, or of those that it took over, can lie; `None` if it took nothing over.
        taken_over: Option<Checkpoint>,
        ends: Checkpoint,
    },
    Done {
        body_hash: String,
        at_ms: i64,
        appended: Appended,
    },
}

pub(super) struct Ledger {
    rules: Rules,
    keys: HashMap<Arc<[u8]>, Known>,
    /// By age; keys that were replaced or released since are passed over.
    order: VecDeque<(i64, Arc<[u8]>)>,
    /// Newest time seen in the topic.
    now_ms: i64,
    size_bytes: usize,
}

fn size_of(key: &[u8], known: &Known) -> usize {
    let answer = match known {
        Known::Claimed { .. } => 0,
        Known::Done { appended, .. } => appended.replayed.as_ref().map_or(0, Bytes::len),
    };
    key.len() + answer + KEY_OVERHEAD_BYTES
}

impl Ledger {
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            keys: HashMap::new(),
            order: VecDeque::new(),
            now_ms: 0,
            size_bytes: 0,
        }
    }

    fn set(&mut self, key: &[u8], known: Known, at_ms: i64) {
        self.remove(key);
        let key: Arc<[u8]> = key.into();
        self.size_bytes += size_of(&key, &known);
        self.keys.insert(Arc::clone(&key), known);
        self.order.push_back((at_ms, key));
    }

    fn remove(&mut self, key: &[u8]) {
        if let Some(known) = self.keys.remove(key) {
            self.size_bytes -= size_of(key, &known);
        }
    }

    pub fn get(&self, key: &[u8]) -> Option<&Known> {
        self.keys.get(key)
    }

    /// True if a claim made now would win. A claim that was never finished is taken over by the same body alone: its messages may be there.
    pub fn is_free(&self, key: &[u8], body_hash: &str, now_ms: i64) -> bool {
        let (at_ms, keeps_ms) = match self.keys.get(key) {
            None => return true,
            Some(Known::Claimed {
                body_hash: other,
                at_ms,
                ..
            }) if other == body_hash => (at_ms, self.rules.claim_ms),
            Some(Known::Claimed { at_ms, .. } | Known::Done { at_ms, .. }) => {
                (at_ms, self.rules.window_ms)
            }
        };
        at_ms + keeps_ms <= now_ms
    }

    pub fn apply(&mut self, key: &[u8], event: Event, at_ms: i64) {
        // The broker's clock may be set back; time in the ledger does not run backwards.
        let at_ms = at_ms.max(self.now_ms);
        self.now_ms = at_ms;
        self.expire();
        match event {
            Event::Claim {
                claim,
                body_hash,
                ends,
            } => self.claim(
                key,
                claim,
                body_hash,
                Checkpoint(ends.into_iter().collect()),
                at_ms,
            ),
            Event::Release { claim } => self.release(key, &claim),
            Event::Done {
                claim,
                answer,
                partition,
                seq,
                count,
                covers,
            } => {
                let Ok(answer) = STANDARD.decode(answer) else {
                    return;
                };
                let appended = Appended {
                    first: Position { partition, seq },
                    count,
                    covers: Checkpoint(covers.into_iter().collect()),
                    replayed: Some(Bytes::from(answer)),
                };
                let body_hash = match self.keys.get(key) {
                    Some(Known::Claimed {
                        claim: owner,
                        body_hash,
                        ..
                    }) if *owner == claim => body_hash.clone(),
                    _ => return,
                };
                let done = Known::Done {
                    body_hash,
                    at_ms,
                    appended,
                };
                self.set(key, done, at_ms);
            }
        }
    }

    fn claim(
        &mut self,
        key: &[u8],
        claim: String,
        body_hash: String,
        ends: Checkpoint,
        at_ms: i64,
    ) {
        if !self.is_free(key, &body_hash, at_ms) {
            return;
        }
        let taken_over = match self.keys.get(key) {
            Some(Known::Claimed {
                body_hash: other,
                taken_over,
                ends,
                ..
            }) if *other == body_hash => Some(taken_over.clone().unwrap_or_else(|| ends.clone())),
            Some(Known::Claimed { .. } | Known::Done { .. }) | None => None,
        };
        let known = Known::Claimed {
            claim,
            body_hash,
            at_ms,
            taken_over,
            ends,
        };
        self.set(key, known, at_ms);
    }

    fn release(&mut self, key: &[u8], claim: &str) {
        match self.keys.get(key) {
            Some(Known::Claimed { claim: owner, .. }) if owner != claim => {}
            Some(
                known @ Known::Claimed {
                    at_ms,
                    taken_over: Some(_),
                    ..
                },
            ) => {
                let mut known = known.clone();
                let at_ms = at_ms.saturating_sub(self.rules.claim_ms);
                if let Known::Claimed { at_ms: since, .. } = &mut known {
                    *since = at_ms;
                }
                self.set(key, known, at_ms);
            }
            Some(Known::Claimed { .. }) => self.remove(key),
            Some(Known::Done { .. }) | None => {}
        }
    }

    /// Forgets keys past the window, and the oldest beyond the limit. An unfinished claim is kept as long: its messages may be there.
    fn expire(&mut self) {
        while let Some((at_ms, key)) = self.order.front() {
            let is_current = match self.keys.get(key) {
                Some(Known::Claimed { at_ms: known, .. } | Known::Done { at_ms: known, .. }) => {
                    known == at_ms
                }
                None => false,
            };
            let is_old = at_ms + self.rules.window_ms.max(self.rules.claim_ms) <= self.now_ms;
            let fits = self.keys.len() <= self.rules.keys_max
                && self.size_bytes <= self.rules.size_bytes_max;
            if is_current && !is_old && fits {
                return;
            }
            let key = Arc::clone(key);
            if is_current {
                self.remove(&key);
            }
            self.order.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules {
        window_ms: 1000,
        claim_ms: 100,
        keys_max: 3,
        size_bytes_max: 1 << 20,
    };

    fn claim(name: &str, hash: &str, end: u64) -> Event {
        Event::Claim {
            claim: name.to_owned(),
            body_hash: hash.to_owned(),
            ends: vec![(0, end)],
        }
    }

    fn done(name: &str, seq: u64) -> Event {
        let appended = Appended::in_a_row(Position { partition: 0, seq }, 2);
        Event::done(name, b"answer", &appended)
    }

    fn release(name: &str) -> Event {
        Event::Release {
            claim: name.to_owned(),
        }
    }

    /// Where messages of those may lie whom the owner of the key took over.
    fn taken_over<'a>(ledger: &'a Ledger, key: &[u8]) -> &'a Checkpoint {
        match ledger.get(key) {
            Some(Known::Claimed { taken_over, .. }) => taken_over.as_ref().unwrap(),
            _ => panic!("nobody owns the key"),
        }
    }

    fn owner(ledger: &Ledger, key: &[u8]) -> String {
        match ledger.get(key) {
            Some(Known::Claimed { claim, .. }) => claim.clone(),
            Some(Known::Done { appended, .. }) => format!("done {}", appended.first.seq),
            None => "free".to_owned(),
        }
    }

    #[test]
    fn the_first_claim_wins_until_it_is_done_released_or_too_old() {
        let mut ledger = Ledger::new(RULES);
        ledger.apply(b"k", claim("a", "h", 7), 0);
        ledger.apply(b"k", claim("b", "h", 8), 99);
        assert_eq!(owner(&ledger, b"k"), "a");
        // Another's `done` or `release` means nothing.
        ledger.apply(b"k", done("b", 1), 99);
        ledger.apply(b"k", release("b"), 99);
        assert_eq!(owner(&ledger, b"k"), "a");
        // Another body waits for the whole window.
        ledger.apply(b"k", claim("z", "other", 9), 100);
        assert_eq!(owner(&ledger, b"k"), "a");
        // Taken over, with the place where the first one's messages may lie.
        ledger.apply(b"k", claim("c", "h", 9), 100);
        ledger.apply(b"k", claim("d", "h", 10), 201);
        assert_eq!(owner(&ledger, b"k"), "d");
        assert_eq!(taken_over(&ledger, b"k").next_seq(0), 7);
        // Too late: it does not own the key any more.
        ledger.apply(b"k", done("c", 5), 202);
        assert_eq!(owner(&ledger, b"k"), "d");
        ledger.apply(b"k", done("d", 6), 203);
        assert_eq!(owner(&ledger, b"k"), "done 6");
        ledger.apply(b"k", claim("e", "h", 11), 1202);
        assert_eq!(owner(&ledger, b"k"), "done 6");
        ledger.apply(b"k", claim("e", "h", 11), 1203);
        assert_eq!(owner(&ledger, b"k"), "e");
        ledger.apply(b"k", release("e"), 1204);
        assert_eq!(owner(&ledger, b"k"), "free");
    }

    #[test]
    fn a_released_claim_that_had_taken_another_over_does_not_hide_what_that_one_stored() {
        let mut ledger = Ledger::new(RULES);
        ledger.apply(b"k", claim("a", "h", 7), 0);
        ledger.apply(b"k", claim("b", "h", 9), 100);
        ledger.apply(b"k", release("b"), 110);
        // At once, but for the same body alone.
        ledger.apply(b"k", claim("other", "other", 9), 111);
        ledger.apply(b"k", claim("c", "h", 9), 112);
        assert_eq!(owner(&ledger, b"k"), "c");
        assert_eq!(taken_over(&ledger, b"k").next_seq(0), 7);
    }

    #[test]
    fn the_oldest_keys_are_forgotten_by_age_and_count() {
        let mut ledger = Ledger::new(RULES);
        for (key, at_ms) in [(b"a", 0), (b"b", 1), (b"c", 2), (b"d", 3), (b"e", 4)] {
            ledger.apply(key, claim("x", "h", 0), at_ms);
            ledger.apply(key, done("x", 0), at_ms);
        }
        assert_eq!(owner(&ledger, b"a"), "free");
        assert_eq!(owner(&ledger, b"e"), "done 0");
        ledger.apply(b"f", claim("x", "h", 0), 1004);
        assert_eq!(owner(&ledger, b"e"), "free");
        assert!(ledger.order.len() < 3);
        let mut small = Ledger::new(Rules {
            size_bytes_max: 2 * (KEY_OVERHEAD_BYTES + 10),
            ..RULES
        });
        for (key, at_ms) in [(b"a", 0), (b"b", 1), (b"c", 2)] {
            small.apply(key, claim("x", "h", 0), at_ms);
            small.apply(key, done("x", 0), at_ms);
        }
        small.expire();
        let known = [b"a", b"b", b"c"].map(|key| owner(&small, key));
        assert_eq!(known, ["free", "done 0", "done 0"]);
    }

    #[test]
    fn events_are_read_back() {
        for event in [claim("a", "h", 1), done("a", 9)] {
            let json = serde_json::to_string(&event).unwrap();
            assert_eq!(serde_json::from_str::<Event>(&json).unwrap(), event);
        }
    }
}
