//! Of all copies of one data folder only one writes. A folder that was copied (a backup that was started, the image of a machine) has the original's
//! name and numbers its lines from the same position on; what the second one queues would be taken for what the first one has stored already.
//!
//! The checkpoint in the cluster names the run of the process that writes it, and the folder notes (`CLAIM`) the runs that it may find there: the one
//! that it was last, and those whose claim it does not know the end of, because the process was killed or the cluster did not answer. A process
//! claims the checkpoint by putting its own run into it, in one step with looking at it (`if_seq_no`), before the queue gives out a position; every
//! later change of the checkpoint needs it as it was last seen. So a copy that comes second finds a run that it does not know, and the first one, if it
//! is running still, finds its own run replaced: each of them refuses, and keeps its lines queued.
//!
//! Where the cluster does not answer at the start, positions are given out before the claim. The folder notes the first of them until the claim
//! succeeds: a checkpoint beyond it has been moved by somebody else.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde_json::{Value as Json, json};

use crate::common::data_dir::write_durably;
use crate::common::error::{Error, Result};

const FILE: &str = "CLAIM";
/// The code of the refusal, which no waiting mends.
pub const USED_TWICE: &str = "data_folder_used_twice";
/// The embedded queue has this partition alone.
pub const PARTITION: u32 = 0;

/// Where the cluster has a document: what a change needs to name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub seq_no: u64,
    pub primary_term: u64,
}

impl Place {
    pub fn of(document: &Json) -> Option<Self> {
        Some(Self {
            seq_no: document.get("_seq_no")?.as_u64()?,
            primary_term: document.get("_primary_term")?.as_u64()?,
        })
    }
}

/// What the folder notes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Note {
    runs: BTreeSet<String>,
    /// The first position that was given out without a claim.
    unclaimed_from: Option<u64>,
}

impl Note {
    fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(FILE);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(e) => return Err(unreadable(&path, &e.to_string())),
        };
        let read = serde_json::from_str(&text)
            .map_err(|e| e.to_string())
            .and_then(|json| Self::from_json(&json).ok_or_else(|| "a part is missing".to_owned()));
        read.map_err(|why| unreadable(&path, &why))
    }

    fn from_json(json: &Json) -> Option<Self> {
        let runs = json.get("runs")?.as_array()?.iter();
        let unclaimed_from = match json.get("unclaimed_from")? {
            Json::Null => None,
            number => Some(number.as_u64()?),
        };
        Some(Self {
            runs: runs
                .map(|run| run.as_str().map(str::to_owned))
                .collect::<Option<_>>()?,
            unclaimed_from,
        })
    }

    fn write(&self, folder: &Path) -> Result<()> {
        let json = json!({"runs": self.runs, "unclaimed_from": self.unclaimed_from});
        write_durably(folder, FILE, &format!("{json}\n"))
    }
}

fn unreadable(path: &Path, why: &str) -> Error {
    let message = format!(
        "{} does not say which runs of this data folder have written to the cluster: {why}; restore it from a backup",
        path.display()
    );
    Error::invalid("data_dir_unusable", message)
}

/// The claim of one process on the checkpoint of its folder's queue.
#[derive(Debug)]
pub struct Claim {
    folder: PathBuf,
    run: String,
    note: Mutex<Note>,
    /// Also keeps two from claiming at once.
    is_held: tokio::sync::Mutex<bool>,
    /// Where the checkpoint was when it was last seen; `None` where there is none.
    place: Mutex<Option<Place>>,
}

impl Claim {
    /// Reads what the folder notes; blocks.
    pub fn open(folder: &Path) -> Result<Self> {
        Ok(Self {
            note: Mutex::new(Note::read(folder)?),
            folder: folder.to_owned(),
            run: format!("{:032x}", rand::random::<u128>()),
            is_held: tokio::sync::Mutex::new(false),
            place: Mutex::new(None),
        })
    }

    pub fn run(&self) -> &str {
        &self.run
    }

    /// Locked while it is being claimed; true once it is.
    pub async fn is_held(&self) -> tokio::sync::MutexGuard<'_, bool> {
        self.is_held.lock().await
    }

    /// The queue gives out positions from here on, claimed or not. Blocks.
    pub fn positions_begin(&self, next: u64) -> Result<()> {
        if self.is_held.try_lock().is_ok_and(|held| *held) {
            return Ok(());
        }
        let mut note = self.note.lock();
        let first = note.unclaimed_from.unwrap_or(next).min(next);
        note.unclaimed_from = Some(first);
        note.write(&self.folder)
    }

    /// Before the first look at the cluster: should this process be killed after its claim, its folder knows the run.
    pub async fn announce(self: &std::sync::Arc<Self>) -> Result<()> {
        self.change(|note, run| {
            note.runs.insert(run.to_owned());
        })
        .await
    }

    /// The cluster has this run now.
    pub async fn succeeded(self: &std::sync::Arc<Self>) -> Result<()> {
        self.change(|note, run| {
            *note = Note {
                runs: BTreeSet::from([run.to_owned()]),
                unclaimed_from: None,
            };
        })
        .await
    }

    async fn change(
        self: &std::sync::Arc<Self>,
        change: impl FnOnce(&mut Note, &str) + Send + 'static,
    ) -> Result<()> {
        let claim = std::sync::Arc::clone(self);
        let writing = tokio::task::spawn_blocking(move || {
            let mut note = claim.note.lock();
            let mut changed = note.clone();
            change(&mut changed, &claim.run);
            changed.write(&claim.folder)?;
            *note = changed;
            Ok(())
        });
        writing
            .await
            .map_err(|e| Error::internal("noting the claim broke off").with_source(e))?
    }

    /// Whether this folder may take the checkpoint over, as it was found.
    pub fn check_found(&self, run: Option<&str>, next: u64) -> Result<()> {
        let note = self.note.lock();
        // A checkpoint without a run was written by a version that named none.
        if run.is_some_and(|run| !note.runs.contains(run)) {
            return Err(self.refusal("another copy of it has written there since"));
        }
        if note.unclaimed_from.is_some_and(|first| first < next) {
            return Err(self.refusal(
                "while the cluster could not be reached, lines were queued here under positions that are stored there already, by another copy, or by this one before a power cut took the end of its queue",
            ));
        }
        Ok(())
    }

    /// Notes the checkpoint as it is before a write; refuses if the run in it is another's.
    pub fn see(&self, document: &Json) -> Result<()> {
        let run = document.pointer("/_source/run").and_then(Json::as_str);
        let is_there = document.get("found") == Some(&Json::Bool(true));
        if is_there && run != Some(self.run()) {
            return Err(self.refusal("another copy of it writes there now"));
        }
        *self.place.lock() = match is_there {
            true => Place::of(document),
            false => None,
        };
        Ok(())
    }

    pub fn place(&self) -> Option<Place> {
        *self.place.lock()
    }

    fn refusal(&self, what: &str) -> Error {
        let message = format!(
            "the data folder {} and a copy of it are used with the same indices: {what}; its lines stay in its queue. Use one of the two alone. To store what is queued here, start it with another `store.elasticsearch_index_prefix`",
            self.folder.display()
        );
        Error::unavailable(USED_TWICE, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_back_and_a_broken_one_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Note::read(folder.path()).unwrap(), Note::default());
        let note = Note {
            runs: BTreeSet::from(["a".to_owned(), "b".to_owned()]),
            unclaimed_from: Some(7),
        };
        note.write(folder.path()).unwrap();
        assert_eq!(Note::read(folder.path()).unwrap(), note);
        for broken in ["", "{}", "{\"runs\":[1],\"unclaimed_from\":null}"] {
            std::fs::write(folder.path().join(FILE), broken).unwrap();
            let error = Claim::open(folder.path()).unwrap_err();
            assert_eq!(error.code, "data_dir_unusable", "{broken}");
        }
    }

    #[tokio::test]
    async fn only_known_runs_and_unmoved_checkpoints_are_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        let open = || std::sync::Arc::new(Claim::open(folder.path()).unwrap());
        let first = open();
        first.check_found(None, 100).unwrap();
        assert!(first.check_found(Some("stranger"), 0).is_err());
        first.announce().await.unwrap();
        // Killed here, nobody knows whether the claim succeeded.
        let second = open();
        second.check_found(Some(first.run()), 100).unwrap();
        second.positions_begin(100).unwrap();
        second.check_found(Some(first.run()), 100).unwrap();
        assert!(second.check_found(Some(first.run()), 101).is_err());
        // A restart without a claim in between forgets nothing.
        let third = open();
        third.positions_begin(120).unwrap();
        assert!(third.check_found(Some(first.run()), 101).is_err());
        third.announce().await.unwrap();
        third.succeeded().await.unwrap();
        let fourth = open();
        fourth.check_found(Some(third.run()), 1_000).unwrap();
        let error = fourth.check_found(Some(first.run()), 0).unwrap_err();
        assert_eq!(error.code, USED_TWICE);
    }
}
