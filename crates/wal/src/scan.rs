//! Walking over the frames of one segment: what is there, what is torn, what is damaged.
//!
//! Must not know: which segments there are, who reads.

use std::io;
use std::path::{Path, PathBuf};

use crate::disk::DiskFile;
use crate::frame::{
    ALIGN, FRAME_HEADER_LEN, FRAME_MAGIC, FrameHeader, SEGMENT_HEADER_LEN, SegmentHeader, crc32c,
};
use crate::recover::TornTail;

/// Bytes read at once; a block below this size costs no read of its own.
const CHUNK_SIZE_BYTES: usize = if cfg!(test) { 256 } else { 64 << 10 };
/// Distance of the entries of the sparse index of a segment.
const INDEX_INTERVAL_BYTES: u64 = if cfg!(test) { 128 } else { 64 << 10 };

/// A range of a file that was durable once and is not what was written: it is left out, never served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    pub file: PathBuf,
    pub offset: u64,
    pub size_bytes: u64,
    /// The entries that are lost: `first_seq` up to and without `next_seq`. Equal if none is (a header or a seal was hit).
    pub first_seq: u64,
    pub next_seq: u64,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} bytes of {} at byte {} are damaged: entries {} to {} are lost, all others are readable",
            self.size_bytes,
            self.file.display(),
            self.offset,
            self.first_seq,
            self.next_seq
        )
    }
}

/// Every so often the place of a block, upwards.
#[derive(Clone, Debug, Default)]
pub(crate) struct SparseIndex(Vec<(u64, u64)>);

impl SparseIndex {
    pub fn note(&mut self, first_seq: u64, offset: u64) {
        let is_due = self
            .0
            .last()
            .is_none_or(|(_, last)| last + INDEX_INTERVAL_BYTES <= offset);
        if is_due {
            self.0.push((first_seq, offset));
        }
    }

    /// The last noted block at or before `seq`: its number and place.
    pub fn before(&self, seq: u64) -> Option<(u64, u64)> {
        let n_before = self.0.partition_point(|(first_seq, _)| *first_seq <= seq);
        let last = n_before.checked_sub(1)?;
        self.0.get(last).copied()
    }

    fn truncate_at(&mut self, offset: u64) {
        self.0.retain(|(_, at)| *at < offset);
    }
}

/// Reads a file in chunks, from wherever it is asked.
pub(crate) struct Cursor<'a> {
    file: &'a dyn DiskFile,
    /// Reads end here.
    end: u64,
    chunk: Vec<u8>,
    chunk_at: u64,
}

/// What stands at a place of a segment.
pub(crate) enum Step {
    /// A frame header; the body is as long as it says, its checksum is not looked at yet.
    Frame(u64, FrameHeader),
    /// No frame for `size_bytes`, then one, or the end.
    Bad(u64, u64),
    /// Nothing but zeros up to the end.
    End,
}

impl<'a> Cursor<'a> {
    pub fn new(file: &'a dyn DiskFile, end: u64) -> Self {
        Self {
            file,
            end,
            chunk: Vec::new(),
            chunk_at: 0,
        }
    }

    /// The bytes from `offset`, `len` of them unless the file ends before.
    fn peek(&mut self, offset: u64, len: usize) -> io::Result<&[u8]> {
        let len = len.min(usize_of(self.end.saturating_sub(offset)));
        let chunk_end = self.chunk_at + self.chunk.len() as u64;
        let is_inside = self.chunk_at <= offset && offset + len as u64 <= chunk_end;
        if !is_inside {
            let size = usize_of(self.end.saturating_sub(offset)).min(CHUNK_SIZE_BYTES.max(len));
            self.chunk.resize(size, 0);
            let n_read = self.file.read_at(&mut self.chunk, offset)?;
            self.chunk.truncate(n_read);
            self.chunk_at = offset;
        }
        let start = usize_of(offset - self.chunk_at);
        let stop = self.chunk.len().min(start + len);
        Ok(self.chunk.get(start..stop).unwrap_or_default())
    }

    /// A copy of `len` bytes: the one copy that reading costs.
    pub fn copy(&mut self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        if len <= CHUNK_SIZE_BYTES {
            return Ok(self.peek(offset, len)?.to_vec());
        }
        let mut bytes = vec![0; len.min(usize_of(self.end.saturating_sub(offset)))];
        let n_read = self.file.read_at(&mut bytes, offset)?;
        bytes.truncate(n_read);
        Ok(bytes)
    }

    /// The body of a frame (payload, then meta), or `None` if it is not what was written.
    pub fn body(&mut self, offset: u64, header: &FrameHeader) -> io::Result<Option<Vec<u8>>> {
        let body = self.copy(
            offset + FRAME_HEADER_LEN as u64,
            usize_of(header.body_len()),
        )?;
        let is_whole =
            body.len() as u64 == header.body_len() && crc32c(&[&body]) == header.body_crc;
        Ok(is_whole.then_some(body))
    }

    pub fn meta(&mut self, offset: u64, header: &FrameHeader) -> io::Result<Vec<u8>> {
        let at = offset + FRAME_HEADER_LEN as u64 + u64::from(header.payload_len);
        self.copy(at, header.meta_len as usize)
    }

    /// What stands at `offset`. A frame that overlaps the end of the file or goes back in the sequence is none.
    pub fn step(&mut self, offset: u64, epoch: Option<u64>, expected_seq: u64) -> io::Result<Step> {
        if let Some(header) = self.header_at(offset, epoch, expected_seq)? {
            return Ok(Step::Frame(offset, header));
        }
        let mut at = offset;
        let mut is_zero = true;
        while at < self.end {
            let window = self.peek(at, CHUNK_SIZE_BYTES)?;
            if window.is_empty() {
                break;
            }
            let size = window.len();
            if is_all_zero(window) {
                at += size as u64;
                continue;
            }
            is_zero = false;
            let candidates: Vec<u64> = window
                .chunks(usize_of(ALIGN))
                .zip((at..).step_by(usize_of(ALIGN)))
                .filter(|(bytes, place)| bytes.starts_with(FRAME_MAGIC) && *place != offset)
                .map(|(_, place)| place)
                .collect();
            for place in candidates {
                if self.header_at(place, epoch, expected_seq)?.is_some() {
                    return Ok(Step::Bad(offset, place - offset));
                }
            }
            at += size as u64;
        }
        Ok(if is_zero {
            Step::End
        } else {
            Step::Bad(offset, self.end.saturating_sub(offset))
        })
    }

    fn header_at(
        &mut self,
        offset: u64,
        epoch: Option<u64>,
        expected_seq: u64,
    ) -> io::Result<Option<FrameHeader>> {
        let end = self.end;
        let header = FrameHeader::decode(self.peek(offset, FRAME_HEADER_LEN)?, epoch);
        Ok(header.filter(|header| {
            let frame_end = offset + FRAME_HEADER_LEN as u64 + header.body_len();
            frame_end <= end && expected_seq <= header.first_seq
        }))
    }
}

/// What a segment holds.
#[derive(Default)]
pub(crate) struct Scan {
    pub epoch: u64,
    pub base_seq: u64,
    pub end_seq: u64,
    /// After the last frame, the seal included.
    pub end_offset: u64,
    pub is_sealed: bool,
    pub index: SparseIndex,
    /// Meta of the blocks that have one.
    pub metas: Vec<FoundMeta>,
    pub damage: Vec<Damage>,
    pub torn: Option<TornTail>,
}

pub(crate) struct FoundMeta {
    offset: u64,
    pub first_seq: u64,
    pub n_entries: u32,
    pub meta: Vec<u8>,
}

/// How to look at a segment.
pub(crate) struct ScanTask<'a> {
    pub file: &'a dyn DiskFile,
    pub path: &'a Path,
    /// `None`: broken; epoch and first number are taken from the first frame.
    pub header: Option<SegmentHeader>,
    pub expected_seq: u64,
    /// Where the next segment says that this one ended; `None` for the last segment.
    pub limit_seq: Option<u64>,
    pub is_last: bool,
    /// Collect the meta of blocks.
    pub with_meta: bool,
}

/// A stretch without readable blocks.
struct Bad {
    offset: u64,
    size_bytes: u64,
    first_seq: u64,
    next_seq: u64,
}

impl ScanTask<'_> {
    /// Headers of all frames; of the last segment the bodies too, because only there a write can have been cut.
    pub fn run(&self) -> io::Result<Scan> {
        let file_size = self.file.size_bytes()?;
        let mut cursor = Cursor::new(self.file, file_size);
        let mut epoch = self.header.map(|header| header.epoch);
        let mut scan = Scan {
            base_seq: self
                .header
                .map_or(self.expected_seq, |header| header.base_seq),
            ..Scan::default()
        };
        let mut bad: Vec<Bad> = Vec::new();
        let mut synced_up_to = 0;
        let mut offset = SEGMENT_HEADER_LEN as u64;
        let mut seq = scan.base_seq;
        while offset < file_size {
            match cursor.step(offset, epoch, seq)? {
                Step::End => break,
                Step::Bad(at, size_bytes) => {
                    bad.push(Bad {
                        offset: at,
                        size_bytes,
                        first_seq: seq,
                        next_seq: seq,
                    });
                    offset = at + size_bytes;
                }
                Step::Frame(at, header) => {
                    if self.limit_seq.is_some_and(|limit| limit < header.end_seq()) {
                        break;
                    }
                    if epoch.is_none() {
                        epoch = Some(header.epoch);
                        if bad.is_empty() {
                            scan.base_seq = header.first_seq;
                        }
                    }
                    if let Some(bad) = bad
                        .last_mut()
                        .filter(|bad| bad.offset + bad.size_bytes == at)
                    {
                        bad.next_seq = header.first_seq;
                    }
                    synced_up_to = synced_up_to.max(header.synced_up_to);
                    offset = at + header.frame_len();
                    if header.is_seal() {
                        scan.is_sealed = true;
                        seq = header.first_seq;
                        break;
                    }
                    if self.is_last && cursor.body(at, &header)?.is_none() {
                        bad.push(Bad {
                            offset: at,
                            size_bytes: header.frame_len(),
                            first_seq: header.first_seq,
                            next_seq: header.end_seq(),
                        });
                    } else {
                        self.note_block(&mut scan, &mut cursor, at, &header)?;
                    }
                    seq = header.end_seq();
                }
            }
        }
        scan.epoch = epoch.unwrap_or(0);
        scan.end_seq = seq;
        scan.end_offset = offset.min(file_size.max(SEGMENT_HEADER_LEN as u64));
        self.judge(&mut scan, bad, synced_up_to);
        Ok(scan)
    }

    fn note_block(
        &self,
        scan: &mut Scan,
        cursor: &mut Cursor<'_>,
        at: u64,
        header: &FrameHeader,
    ) -> io::Result<()> {
        scan.index.note(header.first_seq, at);
        if self.with_meta && header.meta_len != 0 {
            scan.metas.push(FoundMeta {
                offset: at,
                first_seq: header.first_seq,
                n_entries: header.n_entries,
                meta: cursor.meta(at, header)?,
            });
        }
        Ok(())
    }

    /// Splits the bad stretches into damage and a torn tail.
    fn judge(&self, scan: &mut Scan, bad: Vec<Bad>, synced_up_to: u64) {
        let limit_seq = self.limit_seq.filter(|_| !self.is_last);
        let mut bad = bad.into_iter();
        for mut stretch in bad.by_ref() {
            let was_durable = match limit_seq {
                // Later segments exist, so everything up to where they begin was durable.
                Some(limit) => stretch.first_seq < limit || stretch.offset < synced_up_to,
                None => !self.is_last || stretch.offset < synced_up_to,
            };
            if !was_durable {
                scan.cut(self.path, &stretch);
                break;
            }
            if stretch.next_seq == stretch.first_seq && scan.end_seq == stretch.first_seq {
                // Nothing readable follows: the next segment tells how much is lost.
                stretch.next_seq = limit_seq.unwrap_or(stretch.first_seq);
            }
            scan.damage.push(stretch.into_damage(self.path));
        }
        let Some(limit) = limit_seq.filter(|limit| scan.end_seq < *limit) else {
            return;
        };
        let is_told = scan
            .damage
            .last()
            .is_some_and(|damage| damage.next_seq == limit);
        if !is_told {
            // The file ends too early.
            scan.damage.push(Damage {
                file: self.path.to_owned(),
                offset: scan.end_offset,
                size_bytes: 0,
                first_seq: scan.end_seq,
                next_seq: limit,
            });
        }
        scan.end_seq = limit;
    }
}

impl Scan {
    /// Forgets everything from the stretch on.
    fn cut(&mut self, path: &Path, stretch: &Bad) {
        let cut = stretch.offset;
        self.torn = Some(TornTail {
            file: path.to_owned(),
            offset: cut,
            size_bytes: self.end_offset.saturating_sub(cut),
        });
        self.end_offset = cut;
        self.end_seq = stretch.first_seq;
        self.is_sealed = false;
        self.index.truncate_at(cut);
        self.metas.retain(|meta| meta.offset < cut);
    }
}

impl Bad {
    fn into_damage(self, path: &Path) -> Damage {
        Damage {
            file: path.to_owned(),
            offset: self.offset,
            size_bytes: self.size_bytes,
            first_seq: self.first_seq,
            next_seq: self.next_seq,
        }
    }
}

fn is_all_zero(bytes: &[u8]) -> bool {
    // Comparing with zeros is a memcmp, fast even in a build without optimization.
    const ZEROS: [u8; 4096] = [0; 4096];
    bytes
        .chunks(ZEROS.len())
        .all(|chunk| ZEROS.get(..chunk.len()) == Some(chunk))
}

pub(crate) fn usize_of(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}
