//! The progress file of a copy: JSON, replaced as a whole and synced before the next step, so that a crash leaves the state before or after one.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::migrate::source::Totals;

const VERSION: u32 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    Records,
    Letters,
    Done,
}

/// A portion that was on its way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct InFlight {
    pub key: String,
    /// Of its bytes.
    pub hash: String,
    pub sent_ms: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Progress {
    version: u32,
    from: String,
    to: String,
    /// Of this copy, in the keys of its portions.
    pub id: String,
    pub phase: Phase,
    /// The arrival that the target notes, the same for all portions, so that a portion sent twice has the same bytes.
    pub arrival_ns: i64,
    /// The last entry copied in this phase.
    pub cursor: Option<String>,
    pub records: u64,
    pub letters: u64,
    /// What the target had before.
    before_records: u64,
    before_letters: u64,
    pub in_flight: Option<InFlight>,
}

impl Progress {
    pub fn new(from: &str, to: &str, before: Totals) -> Self {
        Self {
            version: VERSION,
            from: from.to_owned(),
            to: to.to_owned(),
            id: format!("{:016x}", rand::random::<u64>()),
            phase: Phase::Records,
            arrival_ns: i64::try_from(now_ms())
                .unwrap_or(i64::MAX / 1_000_000)
                .saturating_mul(1_000_000),
            cursor: None,
            records: 0,
            letters: 0,
            before_records: before.records,
            before_letters: before.letters,
            in_flight: None,
        }
    }

    /// `None` if there is no file.
    pub fn load(path: &Path, from: &str, to: &str) -> anyhow::Result<Option<Self>> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e).with_context(|| format!("read {}", path.display())),
        };
        let progress: Self = serde_json::from_slice(&bytes)
            .with_context(|| format!("{} is not a progress file", path.display()))?;
        ensure!(
            progress.version == VERSION,
            "{} is of another version",
            path.display()
        );
        ensure!(
            progress.from == from && progress.to == to,
            "{} is of a copy from {} to {}; name another file with --progress",
            path.display(),
            progress.from,
            progress.to
        );
        Ok(Some(progress))
    }

    pub fn save(&self, path: &Path) -> anyhow::Result<()> {
        let save = || -> anyhow::Result<()> {
            let folder = path
                .parent()
                .filter(|folder| !folder.as_os_str().is_empty());
            let folder = folder.unwrap_or(Path::new("."));
            let mut file = tempfile_in(folder)?;
            file.1.write_all(&serde_json::to_vec_pretty(self)?)?;
            file.1.sync_all()?;
            std::fs::rename(&file.0, path)?;
            std::fs::File::open(folder)?.sync_all()?;
            Ok(())
        };
        save().with_context(|| format!("write {}", path.display()))
    }

    /// What the target has when everything copied so far is in it.
    pub fn expected(&self) -> Totals {
        Totals {
            records: self.before_records + self.records,
            letters: self.before_letters + self.letters,
        }
    }
}

fn tempfile_in(folder: &Path) -> anyhow::Result<(PathBuf, std::fs::File)> {
    let path = folder.join(format!(".logyard-migrate-{:016x}", rand::random::<u64>()));
    let file = std::fs::File::create_new(&path)?;
    Ok((path, file))
}

pub fn default_path(from: &str, to: &str) -> PathBuf {
    let hash = xxh3_64(format!("{from}\0{to}").as_bytes());
    PathBuf::from(format!("logyard-migrate-{hash:016x}.json"))
}

pub fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}
