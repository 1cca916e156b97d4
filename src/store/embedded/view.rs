//! What exists now: head, chunks being flushed, segments. Changes are published as a new [`Snapshot`]; readers never wait for more than a pointer.
//!
//! **Invariant**: each row is in exactly one of head, flushing chunks and segments at every publication, so no question misses or doubles it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use crate::record::{DeadLetter, RecordKey};
use crate::store::embedded::head::Head;
use crate::store::embedded::segment::registry::Registry;
use crate::store::embedded::segment::{Segment, SegmentMeta};
use crate::store::embedded::snapshot::{HeadChunk, Snapshot};

pub struct View {
    folder: PathBuf,
    registry: Arc<Registry>,
    parts: Mutex<Parts>,
    snapshot: RwLock<Arc<Snapshot>>,
}

#[derive(Default)]
struct Parts {
    head: Vec<Arc<HeadChunk>>,
    flushing: Vec<Arc<HeadChunk>>,
    head_letters: Vec<Arc<[DeadLetter]>>,
    flushing_letters: Vec<Arc<[DeadLetter]>>,
    segments: BTreeMap<(i32, RecordKey, u64), Arc<Segment>>,
    /// Segments that are not served, and why.
    quarantine: BTreeMap<u64, (SegmentMeta, String)>,
    /// `segments` and `quarantine` as snapshots share them.
    segment_list: Arc<[Arc<Segment>]>,
    partial_reasons: Arc<[String]>,
}

impl View {
    /// `quarantine` names those of `segments` that are not served.
    pub fn new(
        folder: &Path,
        registry: &Arc<Registry>,
        segments: Vec<SegmentMeta>,
        quarantine: &[(u64, String)],
    ) -> Self {
        let mut parts = Parts::default();
        for meta in segments {
            let fault = quarantine.iter().find(|(id, _)| *id == meta.id);
            match fault {
                Some((id, reason)) => {
                    parts.quarantine.insert(*id, (meta, reason.clone()));
                }
                None => parts.insert(folder, registry, meta),
            }
        }
        parts.relist();
        let view = Self {
            folder: folder.to_owned(),
            registry: Arc::clone(registry),
            parts: Mutex::default(),
            snapshot: RwLock::default(),
        };
        view.change(|old| *old = parts);
        view
    }

    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.read())
    }

    fn change<R>(&self, change: impl FnOnce(&mut Parts) -> R) -> R {
        let mut parts = self.parts.lock();
        let result = change(&mut parts);
        let snapshot = Arc::new(parts.snapshot());
        // Published under the lock, so that publications keep the order of changes.
        let old = std::mem::replace(&mut *self.snapshot.write(), snapshot);
        drop(parts);
        // The last holder of a snapshot may delete files.
        drop(old);
        result
    }

    pub fn set_head(&self, head: &Head) {
        self.change(|parts| {
            parts.head.clone_from(&head.chunks);
            parts.head_letters.clone_from(&head.letters);
        });
    }

    /// The head is being flushed; a new one begins, empty.
    pub fn begin_flush(&self) {
        self.change(|parts| {
            parts.flushing = std::mem::take(&mut parts.head);
            parts.flushing_letters = std::mem::take(&mut parts.head_letters);
        });
    }

    /// The chunks that were being flushed are these segments now.
    pub fn end_flush(&self, segments: &[SegmentMeta]) {
        self.change(|parts| {
            parts.flushing.clear();
            parts.flushing_letters.clear();
            for meta in segments {
                parts.insert(&self.folder, &self.registry, meta.clone());
            }
            parts.relist();
        });
    }

    /// Puts segments in the place of others, whose files go when nobody reads them any more.
    pub fn replace(&self, remove: &[u64], add: &[SegmentMeta]) {
        let removed = self.change(|parts| {
            let mut removed = Vec::new();
            parts.segments.retain(|(_, _, id), segment| {
                let is_kept = !remove.contains(id);
                if !is_kept {
                    removed.push(Arc::clone(segment));
                }
                is_kept
            });
            for id in remove {
                if let Some((meta, _)) = parts.quarantine.remove(id) {
                    removed.push(Arc::new(Segment::new(&self.folder, meta, &self.registry)));
                }
            }
            for meta in add {
                parts.insert(&self.folder, &self.registry, meta.clone());
            }
            parts.relist();
            removed
        });
        for segment in removed {
            segment.doom();
        }
    }

    /// Stops serving a segment. False if it is not served anyway.
    pub fn quarantine(&self, id: u64, reason: &str) -> bool {
        self.change(|parts| {
            let key = parts.segments.keys().find(|(_, _, other)| *other == id);
            let Some(segment) = key.copied().and_then(|key| parts.segments.remove(&key)) else {
                return false;
            };
            let entry = (segment.meta.clone(), reason.to_owned());
            parts.quarantine.insert(id, entry);
            parts.relist();
            true
        })
    }

    /// Segments not served, with the reason.
    pub fn quarantined(&self) -> Vec<(SegmentMeta, String)> {
        self.parts.lock().quarantine.values().cloned().collect()
    }
}

impl Parts {
    fn insert(&mut self, folder: &Path, registry: &Arc<Registry>, meta: SegmentMeta) {
        let key = (meta.day, meta.min_key, meta.id);
        let segment = Arc::new(Segment::new(folder, meta, registry));
        self.segments.insert(key, segment);
    }

    fn relist(&mut self) {
        self.segment_list = self.segments.values().cloned().collect();
        let reasons = self.quarantine.values();
        self.partial_reasons = reasons.map(|(_, reason)| reason.clone()).collect();
    }

    fn snapshot(&self) -> Snapshot {
        let joined = self.flushing.iter().chain(&self.head);
        let letters = self.flushing_letters.iter().chain(&self.head_letters);
        Snapshot {
            head: joined.cloned().collect(),
            segments: Arc::clone(&self.segment_list),
            head_letters: letters.cloned().collect(),
            partial_reasons: Arc::clone(&self.partial_reasons),
        }
    }
}
