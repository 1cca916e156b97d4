//! The log: appending groups of blocks, beginning new segments, releasing old ones.
//!
//! Must not know: how the bytes of a frame look, who waits for an append.

use std::any::Any;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::disk::{Disk, DiskFile, DiskUsage, is_no_space};
use crate::error::{AppendError, OpenError, ReleaseError};
use crate::frame::{
    FRAME_HEADER_LEN, FrameHeader, SEGMENT_HEADER_LEN, SegmentHeader, crc32c, frame_len,
};
use crate::read::{LogReader, Segment, Shared, State};
use crate::recover::{DAMAGED_SUFFIX, OpenReport, Visit, recover, seal_frame, segment_name};
use crate::scan::{SparseIndex, usize_of};
use crate::{BLOCK_SIZE_BYTES_MAX, Durability, LogOptions};

/// Released segments with damage are kept for inspection, at most this many.
const DAMAGED_SEGMENTS_KEPT_MAX: usize = 4;
/// A new segment takes at most this share of the space that is left, so that the log alone does not fill a small disk in one step.
const SEGMENT_SHARE_OF_FREE: u64 = 16;
const SEGMENT_SIZE_BYTES_MIN: u64 = if cfg!(test) { 256 } else { 1 << 20 };
const SEAL_LEN: u64 = FRAME_HEADER_LEN as u64;
static ZEROS: [u8; 8] = [0; 8];

/// One block to be appended, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct BlockRef<'a> {
    pub payload: &'a [u8],
    /// A few bytes about the block, which opening can visit without reading payloads.
    pub meta: &'a [u8],
    /// At least 1.
    pub n_entries: u32,
}

/// The owner's handle: appends and releases. Reading goes through [`Log::reader`].
pub struct Log {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    options: LogOptions,
    shared: Arc<Shared>,
    active: Option<Active>,
    next_seq: u64,
    next_index: u64,
    released_seq: u64,
    poison: Option<Poison>,
    is_closed: bool,
    _lock: Box<dyn Any + Send + Sync>,
}

/// The segment that is appended to; the last one of the shared list.
struct Active {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    epoch: u64,
    /// Space reserved, the seal included.
    capacity: u64,
    written_up_to: u64,
    synced_up_to: u64,
    /// The number after the last synced entry.
    synced_seq: u64,
    dirty_since: Option<Instant>,
}

struct Poison {
    reason: String,
    is_no_space: bool,
}

impl Log {
    /// Opens the log in `dir`, or begins one. `visit` sees the meta of every block kept.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: LogOptions,
        visit: Option<Visit<'_>>,
    ) -> Result<(Self, OpenReport), OpenError> {
        let recovered = recover(&*disk, dir, options.next_seq_min, visit)?;
        let log = Self {
            disk,
            dir: dir.to_owned(),
            options,
            next_seq: recovered.report.next_seq,
            next_index: recovered.next_index,
            released_seq: recovered.report.oldest_seq,
            shared: Shared::new(recovered.state),
            active: None,
            poison: None,
            is_closed: false,
            _lock: recovered.lock,
        };
        Ok((log, recovered.report))
    }

    pub fn reader(&self) -> LogReader {
        LogReader {
            shared: Arc::clone(&self.shared),
        }
    }

    /// The number that the next entry gets.
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    pub fn usage(&self) -> io::Result<DiskUsage> {
        self.disk.usage(&self.dir)
    }

    /// Why nothing is accepted any more, if so.
    pub fn poison(&self) -> Option<&str> {
        self.poison.as_ref().map(|poison| poison.reason.as_str())
    }

    /// True if it was a full disk that poisoned the log, so that [`Self::resume`] can help.
    pub fn is_poisoned_by_full_disk(&self) -> bool {
        self.poison.as_ref().is_some_and(|p| p.is_no_space)
    }

    /// Appends one block; see [`Self::append_group`].
    pub fn append(
        &mut self,
        payload: &[u8],
        meta: &[u8],
        n_entries: u32,
    ) -> Result<u64, AppendError> {
        self.append_group(&[BlockRef {
            payload,
            meta,
            n_entries,
        }])
    }

    /// Appends all blocks with one write and, with [`Durability::Fsync`], one sync; gives the number of the first entry of the first block.
    /// On an error none of them is acknowledged. A group should stay near 1 MiB: larger ones wait longer for the disk without being cheaper.
    pub fn append_group(&mut self, blocks: &[BlockRef<'_>]) -> Result<u64, AppendError> {
        self.check_usable()?;
        let first_seq = self.next_seq;
        if blocks.is_empty() {
            return Ok(first_seq);
        }
        let size_bytes = self.check_sizes(blocks)?;
        self.make_room(size_bytes)?;
        let sync = self.options.durability == Durability::Fsync;
        let Some(active) = &mut self.active else {
            return Err(AppendError::Poisoned {
                reason: "no segment is open".to_owned(),
            });
        };
        let start = active.written_up_to;
        let mut index_notes = Vec::with_capacity(blocks.len());
        let end_seq = active.write(blocks, first_seq, &mut index_notes);
        let end_seq = match end_seq.and_then(|seq| active.sync_if(sync, seq).map(|()| seq)) {
            Ok(end_seq) => end_seq,
            Err((what, source)) => {
                let file = active.path.clone();
                return Err(self.fail(what, file, start, source));
            }
        };
        let end_offset = active.written_up_to;
        self.next_seq = end_seq;
        let mut state = self.shared.lock();
        state.end_seq = end_seq;
        if let Some(segment) = state.segments.back_mut() {
            segment.end_seq = end_seq;
            segment.end_offset = end_offset;
            for (seq, offset) in index_notes {
                segment.index.note(seq, offset);
            }
        }
        Ok(first_seq)
    }

    /// With [`Durability::Interval`]: how long from now a sync is due; `None` if nothing waits for one.
    pub fn sync_due_in(&self) -> Option<Duration> {
        let Durability::Interval(interval) = self.options.durability else {
            return None;
        };
        let since = self.active.as_ref()?.dirty_since?;
        Some(interval.saturating_sub(since.elapsed()))
    }

    /// Makes everything appended durable.
    pub fn sync(&mut self) -> Result<(), AppendError> {
        self.check_usable()?;
        let next_seq = self.next_seq;
        let Some(active) = &mut self.active else {
            return Ok(());
        };
        if let Err((what, source)) = active.sync_if(active.dirty_since.is_some(), next_seq) {
            let (file, offset) = (active.path.clone(), active.synced_up_to);
            return Err(self.fail(what, file, offset, source));
        }
        Ok(())
    }

    /// Where [`Self::release`] of `seq` would really cut: the end of the last segment that goes, if one does.
    pub fn releasable(&self, seq: u64) -> Option<u64> {
        let state = self.shared.lock();
        let n_kept = 1;
        let n = state.segments.len().saturating_sub(n_kept);
        let going = state.segments.iter().take(n);
        going
            .take_while(|segment| segment.end_seq <= seq)
            .last()
            .map(|segment| segment.end_seq)
    }

    /// Entries below `seq` may be forgotten. Whole segments go, the newest stays.
    pub fn release(&mut self, seq: u64) -> Result<(), ReleaseError> {
        self.released_seq = self.released_seq.max(seq);
        loop {
            let oldest = {
                let state = self.shared.lock();
                let oldest = state.segments.front();
                oldest
                    .filter(|segment| 1 < state.segments.len() && segment.end_seq <= seq)
                    .map(|segment| (segment.path.clone(), !segment.damaged_at.is_empty()))
            };
            let Some((path, is_damaged)) = oldest else {
                return Ok(());
            };
            // Synced one by one, so that after a crash the segments left have no hole between them.
            let done = self
                .remove(&path, is_damaged)
                .and_then(|()| self.disk.sync_dir(&self.dir));
            done.map_err(|source| ReleaseError { file: path, source })?;
            self.shared.lock().segments.pop_front();
        }
    }

    /// After a full disk: gives up what was not synced (none of it was acknowledged under [`Durability::Fsync`]) and goes on in a new segment.
    pub fn resume(&mut self) -> Result<(), AppendError> {
        if !self.is_poisoned_by_full_disk() {
            return self.check_usable();
        }
        if let Some(active) = &self.active {
            let (end, seq, path) = (active.synced_up_to, active.synced_seq, active.path.clone());
            let cut = active.file.set_size(end);
            if let Err(source) = cut.and_then(|()| active.file.sync_data()) {
                return Err(AppendError::Failed {
                    what: "cut",
                    file: path,
                    offset: end,
                    source,
                });
            }
            // Numbers that were given out are not given out again: with a weaker durability somebody may have read their blocks.
            let mut state = self.shared.lock();
            if let Some(segment) = state.segments.back_mut() {
                segment.end_seq = seq;
                segment.end_offset = end;
            }
        }
        self.active = None;
        self.poison = None;
        Ok(())
    }

    /// Syncs, marks the end, gives unused space back. Later appends are refused; reading goes on.
    pub fn close(&mut self) -> Result<(), AppendError> {
        if self.is_closed {
            return Ok(());
        }
        if self.poison.is_none() {
            self.seal_active()?;
        }
        self.is_closed = true;
        Ok(())
    }

    fn check_usable(&self) -> Result<(), AppendError> {
        match &self.poison {
            Some(poison) => Err(AppendError::Poisoned {
                reason: poison.reason.clone(),
            }),
            None if self.is_closed => Err(AppendError::Poisoned {
                reason: "the log is closed".to_owned(),
            }),
            None => Ok(()),
        }
    }

    fn check_sizes(&self, blocks: &[BlockRef<'_>]) -> Result<u64, AppendError> {
        let limit = (BLOCK_SIZE_BYTES_MAX as u64).min(self.options.size_bytes_max);
        let mut size_bytes = 0;
        for block in blocks {
            let body_len = block.payload.len() as u64 + block.meta.len() as u64;
            if limit < body_len {
                return Err(AppendError::TooLarge {
                    size_bytes: body_len,
                    size_bytes_max: limit,
                });
            }
            size_bytes += frame_len(body_len);
        }
        Ok(size_bytes)
    }

    /// Sees to it that the active segment can take `size_bytes` more, and that the log may.
    fn make_room(&mut self, size_bytes: u64) -> Result<(), AppendError> {
        if self.is_full_with(size_bytes) {
            // What is released in the newest segment can go only if that segment is ended.
            if self.active.is_some() && self.next_seq <= self.released_seq {
                self.begin_segment(size_bytes)?;
                // A file that cannot be removed now is removed by the next release.
                let _ = self.release(self.released_seq);
            }
            if self.is_full_with(size_bytes) {
                return Err(AppendError::Full {
                    size_bytes: self.shared.lock().size_bytes(),
                    size_bytes_max: self.options.size_bytes_max,
                });
            }
        }
        let fits = self
            .active
            .as_ref()
            .is_some_and(|active| active.written_up_to + size_bytes + SEAL_LEN <= active.capacity);
        if fits {
            Ok(())
        } else {
            self.begin_segment(size_bytes)
        }
    }

    fn is_full_with(&self, size_bytes: u64) -> bool {
        self.options.size_bytes_max < self.shared.lock().size_bytes() + size_bytes
    }

    fn begin_segment(&mut self, size_bytes: u64) -> Result<(), AppendError> {
        self.seal_active()?;
        let index = self.next_index;
        self.next_index += 1;
        let path = self.dir.join(segment_name(index));
        match self.create_segment(&path, index, size_bytes) {
            Ok(active) => {
                let mut state = self.shared.lock();
                state.segments.push_back(Segment {
                    path,
                    file: Arc::clone(&active.file),
                    epoch: active.epoch,
                    base_seq: self.next_seq,
                    end_seq: self.next_seq,
                    end_offset: active.written_up_to,
                    index: SparseIndex::default(),
                    damaged_at: Vec::new(),
                });
                drop(state);
                self.active = Some(active);
                Ok(())
            }
            Err(source) => {
                // An empty segment that stays behind is harmless: opening knows it by its missing blocks.
                let _ = self.disk.unlink(&path);
                if is_no_space(&source) {
                    return Err(AppendError::NoSpace { file: path, source });
                }
                Err(self.fail("create", path, 0, source))
            }
        }
    }

    fn create_segment(&self, path: &Path, index: u64, size_bytes: u64) -> io::Result<Active> {
        let needed = SEGMENT_HEADER_LEN as u64 + size_bytes + SEAL_LEN;
        let size_max = self.options.size_bytes_max / 4;
        let free_share = self.disk.usage(&self.dir)?.available_bytes / SEGMENT_SHARE_OF_FREE;
        let mut capacity = self
            .options
            .segment_size_bytes
            .min(size_max)
            .min(free_share)
            .max(SEGMENT_SIZE_BYTES_MIN)
            .max(needed);
        let file = self.disk.create(path)?;
        loop {
            match file.allocate(capacity) {
                Err(error) if is_no_space(&error) && needed < capacity => {
                    capacity = needed.max(capacity / 4);
                }
                result => break result?,
            }
        }
        let epoch = random_epoch();
        let previous_end_seq = {
            let state: &State = &self.shared.lock();
            let last = state.segments.back();
            last.map_or(self.next_seq, |segment| segment.end_seq)
        };
        let header = SegmentHeader {
            epoch,
            index,
            base_seq: self.next_seq,
            previous_end_seq,
        };
        file.write_all_at(&[&header.encode()], 0)?;
        // The first sync of blocks covers the header too.
        self.disk.sync_dir(&self.dir)?;
        Ok(Active {
            path: path.to_owned(),
            file,
            epoch,
            capacity,
            written_up_to: SEGMENT_HEADER_LEN as u64,
            synced_up_to: SEGMENT_HEADER_LEN as u64,
            synced_seq: self.next_seq,
            dirty_since: None,
        })
    }

    /// Everything before the seal is durable before the seal is written.
    fn seal_active(&mut self) -> Result<(), AppendError> {
        self.sync()?;
        let next_seq = self.next_seq;
        let Some(active) = &mut self.active else {
            return Ok(());
        };
        match active.seal(next_seq) {
            Ok(end_offset) => {
                let mut state = self.shared.lock();
                if let Some(segment) = state.segments.back_mut() {
                    segment.end_offset = end_offset;
                }
                drop(state);
                self.active = None;
                Ok(())
            }
            Err(source) => {
                let (file, offset) = (active.path.clone(), active.written_up_to);
                Err(self.fail("seal", file, offset, source))
            }
        }
    }

    fn fail(
        &mut self,
        what: &'static str,
        file: PathBuf,
        offset: u64,
        source: io::Error,
    ) -> AppendError {
        let is_no_space = is_no_space(&source);
        let error = AppendError::Failed {
            what,
            file,
            offset,
            source,
        };
        self.poison = Some(Poison {
            reason: error.to_string(),
            is_no_space,
        });
        error
    }

    fn remove(&self, path: &Path, is_damaged: bool) -> io::Result<()> {
        if is_damaged {
            let names = self.disk.list(&self.dir)?;
            let n_kept = names
                .iter()
                .filter(|name| name.ends_with(DAMAGED_SUFFIX))
                .count();
            if n_kept < DAMAGED_SEGMENTS_KEPT_MAX {
                let mut name = path.to_owned().into_os_string();
                name.push(DAMAGED_SUFFIX);
                return self.disk.rename(path, Path::new(&name));
            }
        }
        self.disk.unlink(path)
    }
}

impl Active {
    /// Writes the group after what is there; gives the number after its last entry.
    fn write(
        &mut self,
        blocks: &[BlockRef<'_>],
        first_seq: u64,
        index_notes: &mut Vec<(u64, u64)>,
    ) -> Result<u64, (&'static str, io::Error)> {
        let mut headers = Vec::with_capacity(blocks.len() * FRAME_HEADER_LEN);
        let mut seq = first_seq;
        let mut end = self.written_up_to;
        for block in blocks {
            let header = FrameHeader {
                epoch: self.epoch,
                first_seq: seq,
                synced_up_to: self.synced_up_to,
                n_entries: block.n_entries.max(1),
                meta_len: len_u32(block.meta),
                payload_len: len_u32(block.payload),
                body_crc: crc32c(&[block.payload, block.meta]),
            };
            header.encode_to(&mut headers);
            index_notes.push((seq, end));
            seq = header.end_seq();
            end += header.frame_len();
        }
        let mut parts: Vec<&[u8]> = Vec::with_capacity(blocks.len() * 4);
        for (block, header) in blocks.iter().zip(headers.chunks(FRAME_HEADER_LEN)) {
            let body_len = (block.payload.len() + block.meta.len()) as u64;
            let padding = frame_len(body_len) - FRAME_HEADER_LEN as u64 - body_len;
            let padding = ZEROS.get(..usize_of(padding)).unwrap_or_default();
            let all = [header, block.payload, block.meta, padding];
            parts.extend(all.into_iter().filter(|part| !part.is_empty()));
        }
        self.file
            .write_all_at(&parts, self.written_up_to)
            .map_err(|source| ("write", source))?;
        self.written_up_to = end;
        self.dirty_since.get_or_insert_with(Instant::now);
        Ok(seq)
    }

    fn sync_if(&mut self, is_due: bool, end_seq: u64) -> Result<(), (&'static str, io::Error)> {
        if is_due {
            self.file.sync_data().map_err(|source| ("sync", source))?;
            self.synced_up_to = self.written_up_to;
            self.synced_seq = end_seq;
            self.dirty_since = None;
        }
        Ok(())
    }

    /// Gives the size of the file.
    fn seal(&mut self, end_seq: u64) -> io::Result<u64> {
        let frame = seal_frame(self.epoch, end_seq, self.written_up_to);
        let end = self.written_up_to + frame.len() as u64;
        self.file.write_all_at(&[&frame], self.written_up_to)?;
        self.file.set_size(end)?;
        self.file.sync_data()?;
        Ok(end)
    }
}

/// The length fits: `check_sizes` ran before.
fn len_u32(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

/// Random enough that no bytes a disk held before carry it; never zero.
fn random_epoch() -> u64 {
    let mut hasher = std::hash::RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    hasher.write_u128(now.map_or(0, |now| now.as_nanos()));
    hasher.finish() | 1
}
