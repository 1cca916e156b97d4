//! The store's folder and everything that commits to it: segments are written and synced, then named in the catalog, then shown.
//!
//! Folder: `catalog.redb`, `segments/DAY-ID.parquet`, `segments/*.tmp` while being written. A segment that the catalog does not name is an orphan of a
//! crash: its rows are in the queue or in the segments it was merged from, so the start removes it.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::common::error::{Error, Result};
use crate::record::{Checkpoint, DeadLetter};
use crate::store::embedded::catalog::{Catalog, Change};
use crate::store::embedded::expire::SourceCounts;
use crate::store::embedded::merge::Turn;
use crate::store::embedded::options::EmbeddedStoreOptions;
use crate::store::embedded::rows::SortedRows;
use crate::store::embedded::segment::registry::Registry;
use crate::store::embedded::segment::write::{NewSegment, write_segment};
use crate::store::embedded::segment::{SegmentMeta, file_name};
use crate::store::embedded::snapshot::HeadChunk;
use crate::store::embedded::versions::Versions;
use crate::store::embedded::view::View;

const CATALOG_FILE: &str = "catalog.redb";
const SEGMENTS_FOLDER: &str = "segments";

/// Lets a test stop the work at a named point, as a crash or a full disk would.
pub type FaultHook = Arc<dyn Fn(&'static str) -> Result<()> + Send + Sync>;

pub struct Disk {
    pub options: EmbeddedStoreOptions,
    pub catalog: Catalog,
    pub view: View,
    pub registry: Arc<Registry>,
    pub versions: Versions,
    pub searchable: watch::Sender<Checkpoint>,
    pub durable: watch::Sender<Checkpoint>,
    /// Why nothing can be written now.
    pub fault: Mutex<Option<String>>,
    pub faults: Option<FaultHook>,
    pub turn: Turn,
    /// Rows of each source, for segments that retention has looked into.
    pub source_counts: Mutex<HashMap<u64, SourceCounts>>,
    segments_folder: PathBuf,
    next_segment_id: AtomicU64,
}

/// A head on its way to disk.
pub struct FlushJob {
    pub chunks: Vec<Arc<HeadChunk>>,
    pub letters: Vec<Arc<[DeadLetter]>>,
    /// What is durable when the job is done.
    pub checkpoint: Checkpoint,
}

impl Disk {
    pub fn open(
        folder: &Path,
        options: EmbeddedStoreOptions,
        faults: Option<FaultHook>,
    ) -> Result<Self> {
        let segments_folder = folder.join(SEGMENTS_FOLDER);
        std::fs::create_dir_all(&segments_folder).map_err(|error| folder_error(folder, error))?;
        let path = folder.join(CATALOG_FILE);
        let (catalog, mut state) = Catalog::open(&path, options.dead_letters_bytes_max)?;
        sync_folder(folder)?;
        let known: Vec<String> = state
            .segments
            .iter()
            .map(|meta| file_name(meta.day, meta.id))
            .collect();
        let present = remove_orphans(&segments_folder, &known)?;
        for (meta, name) in state.segments.iter().zip(&known) {
            if !present.contains(name) && !state.quarantine.iter().any(|(id, _)| *id == meta.id) {
                let reason = format!(
                    "segment {name} is missing from {}",
                    segments_folder.display()
                );
                tracing::error!(
                    segment = name,
                    "a segment's file is missing; its records are not served"
                );
                state.quarantine.push((meta.id, reason));
            }
        }
        let versions = Versions::default();
        versions.bump(state.segments.iter().map(|meta| meta.day));
        let registry = Arc::new(Registry::new(options.segments_open_max));
        let quarantine = &state.quarantine;
        Ok(Self {
            view: View::new(&segments_folder, &registry, state.segments, quarantine),
            registry,
            options,
            catalog,
            versions,
            searchable: watch::Sender::new(state.checkpoint.clone()),
            durable: watch::Sender::new(state.checkpoint),
            fault: Mutex::new(None),
            faults,
            turn: Turn::default(),
            source_counts: Mutex::default(),
            segments_folder,
            next_segment_id: AtomicU64::new(state.next_segment_id),
        })
    }

    pub fn segments_folder(&self) -> &Path {
        &self.segments_folder
    }

    /// A number for a segment, never given twice; numbers of segments that were never committed may come again after a restart, when their
    /// files are gone.
    pub fn next_segment_id(&self) -> u64 {
        self.next_segment_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Stops here if a test wants so.
    pub fn point(&self, name: &'static str) -> Result<()> {
        self.faults.as_ref().map_or(Ok(()), |hook| hook(name))
    }

    /// Names written segments in the catalog, together with the checkpoint, and shows them. To be tried again with the same segments after an
    /// error: whether they were committed is unknown then, so their files must stay.
    pub fn commit_flush(&self, job: &FlushJob, metas: &[SegmentMeta]) -> Result<()> {
        sync_folder(&self.segments_folder)?;
        self.point("flush_before_commit")?;
        let letters: Vec<&[DeadLetter]> = job.letters.iter().map(AsRef::as_ref).collect();
        let n_dropped = self.catalog.commit(&Change {
            add: metas,
            checkpoint: Some(&job.checkpoint),
            letters: &letters,
            ..Change::default()
        })?;
        if 0 < n_dropped {
            tracing::warn!(
                dropped = n_dropped,
                size_bytes_max = self.options.dead_letters_bytes_max,
                "the oldest dead letters were dropped, their space is full"
            );
        }
        self.point("flush_after_commit")?;
        self.view.end_flush(metas);
        self.durable.send_modify(|durable| {
            for (partition, next_seq) in &job.checkpoint.0 {
                durable.advance(*partition, *next_seq);
            }
        });
        let n_rows: u64 = metas.iter().map(|meta| meta.n_rows).sum();
        let size_bytes: u64 = metas.iter().map(|meta| meta.size_bytes).sum();
        tracing::debug!(
            segments = metas.len(),
            rows = n_rows,
            size_bytes,
            "head flushed"
        );
        Ok(())
    }

    /// Writes a head to segments, one for each day. After an error there is none.
    pub fn write_head(&self, job: &FlushJob) -> Result<Vec<SegmentMeta>> {
        let rows = SortedRows::new(job.chunks.clone(), self.options.columns.columns_max)?;
        let max_arrival_ns = job.chunks.iter().map(|chunk| chunk.max_arrival_ns).max();
        let mut metas = Vec::new();
        for (day, range) in rows.days() {
            let new = NewSegment {
                folder: &self.segments_folder,
                id: self.next_segment_id(),
                day,
                max_arrival_ns: max_arrival_ns.unwrap_or(i64::MIN),
                row_group_rows: range.len(),
                rows: range,
            };
            let written = self.point("flush_before_segment").and_then(|()| {
                let mut part = rows.part(&new.rows)?;
                write_segment(&new, &mut part, &self.options.segment, &mut || Ok(()))
            });
            match written {
                Ok(meta) => metas.push(meta),
                Err(error) => {
                    self.remove_files(&metas);
                    return Err(error);
                }
            }
        }
        Ok(metas)
    }

    /// Of segments that were never committed. What cannot be removed now is removed at the next start.
    pub fn remove_files(&self, metas: &[SegmentMeta]) {
        for meta in metas {
            let path = self.segments_folder.join(file_name(meta.day, meta.id));
            if let Err(error) = std::fs::remove_file(&path) {
                tracing::warn!(path = %path.display(), %error, "cannot remove an unfinished segment; the next start does");
            }
        }
    }

    /// Stops serving the segments that were found damaged while being read. Returns whether there were any.
    pub fn quarantine_damaged(&self) -> bool {
        let damage = self.registry.take_damage();
        for (id, what) in &damage {
            self.quarantine(*id, what);
        }
        !damage.is_empty()
    }

    /// Stops serving a segment whose bytes are damaged; the rest goes on.
    pub fn quarantine(&self, id: u64, reason: &str) {
        let days: Vec<i32> = self
            .view
            .snapshot()
            .segments
            .iter()
            .filter(|segment| segment.meta.id == id)
            .map(|segment| segment.meta.day)
            .collect();
        if !self.view.quarantine(id, reason) {
            return;
        }
        self.versions.bump(days);
        tracing::error!(
            segment = id,
            reason,
            "a damaged segment is no longer served"
        );
        let change = Change {
            quarantine: Some((id, reason)),
            ..Change::default()
        };
        if let Err(error) = self.catalog.commit(&change) {
            tracing::error!(segment = id, %error, "cannot note a damaged segment in the catalog");
        }
    }
}

/// Makes new and removed names in a folder durable.
pub fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder)
        .and_then(|file| file.sync_all())
        .map_err(|error| folder_error(folder, error))
}

/// Deletes what is not in `known`; returns the names that are there.
fn remove_orphans(folder: &Path, known: &[String]) -> Result<HashSet<String>> {
    let known: HashSet<&str> = known.iter().map(String::as_str).collect();
    let mut present = HashSet::new();
    for entry in std::fs::read_dir(folder).map_err(|error| folder_error(folder, error))? {
        let entry = entry.map_err(|error| folder_error(folder, error))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_ours = name.ends_with(".tmp") || name.ends_with(".parquet");
        if known.contains(name.as_str()) {
            present.insert(name);
        } else if is_ours {
            std::fs::remove_file(entry.path()).map_err(|error| folder_error(folder, error))?;
            tracing::info!(file = name, "removed a segment that was never committed");
        }
    }
    Ok(present)
}

fn folder_error(folder: &Path, error: std::io::Error) -> Error {
    Error::unavailable(
        "store_folder_failed",
        format!(
            "the store's folder {} cannot be used: {error}",
            folder.display()
        ),
    )
    .with_source(error)
}
