//! Opening a log: take the lock, look at every segment, cut a torn tail, note damage.
//!
//! Must not know: how blocks are appended.

use std::any::Any;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, DiskFile};
use crate::error::OpenError;
use crate::frame::{FrameHeader, ReadHeader, SEGMENT_HEADER_LEN, SegmentHeader, VERSION, crc32c};
use crate::read::{Segment, State};
use crate::scan::{Damage, Scan, ScanTask};

const NAME_PREFIX: &str = "segment-";
const NAME_SUFFIX: &str = ".wal";
pub(crate) const DAMAGED_SUFFIX: &str = ".damaged";

/// The end of the newest segment that was being written when the program or the machine stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    pub file: PathBuf,
    pub offset: u64,
    /// The rest of the file, preallocated zeros included.
    pub size_bytes: u64,
}

impl std::fmt::Display for TornTail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} ends at byte {} in a block that was never acknowledged, which was cut off",
            self.file.display(),
            self.offset
        )
    }
}

/// What opening found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenReport {
    pub n_segments: u64,
    pub size_bytes: u64,
    pub oldest_seq: u64,
    pub next_seq: u64,
    pub torn: Option<TornTail>,
    pub damage: Vec<Damage>,
}

/// Called for every block that has a meta, upwards: first number, number of entries, meta. Opening looks at headers only, except in the newest
/// segment, so the meta of a block that is damaged can come garbled: a meta needs a checksum of its own.
pub type Visit<'a> = &'a mut dyn FnMut(u64, u32, &[u8]);

pub(crate) struct Recovered {
    pub lock: Box<dyn Any + Send + Sync>,
    pub state: State,
    pub next_index: u64,
    pub report: OpenReport,
}

pub(crate) fn segment_name(index: u64) -> String {
    format!("{NAME_PREFIX}{index:012}{NAME_SUFFIX}")
}

fn index_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(NAME_PREFIX)?.strip_suffix(NAME_SUFFIX)?;
    digits.parse().ok()
}

/// A segment file before its frames are looked at.
struct Found {
    index: u64,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    header: Option<SegmentHeader>,
}

pub(crate) fn recover(
    disk: &dyn Disk,
    dir: &Path,
    next_seq_min: u64,
    visit: Option<Visit<'_>>,
) -> Result<Recovered, OpenError> {
    let fail = |what, path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::Io { what, path, source }
    };
    disk.create_dir_all(dir)
        .map_err(fail("create the directory", dir))?;
    let lock = disk.lock_dir(dir).map_err(|source| match source.kind() {
        io::ErrorKind::WouldBlock => OpenError::Locked {
            dir: dir.to_owned(),
        },
        _ => OpenError::Io {
            what: "lock the directory",
            path: dir.to_owned(),
            source,
        },
    })?;
    let found = find_segments(disk, dir)?;
    let next_index = found.last().map_or(0, |last| last.index + 1);
    let mut recovered = Recovered {
        lock,
        state: State::default(),
        next_index,
        report: OpenReport::default(),
    };
    scan_all(disk, &found, &mut recovered, visit)?;
    let report = &mut recovered.report;
    report.next_seq = report.next_seq.max(next_seq_min);
    let state = &mut recovered.state;
    state.end_seq = report.next_seq;
    state.damage_count = report.damage.len() as u64;
    report.n_segments = state.segments.len() as u64;
    report.size_bytes = state.size_bytes();
    report.oldest_seq = state
        .segments
        .front()
        .map_or(report.next_seq, |segment| segment.base_seq);
    Ok(recovered)
}

fn find_segments(disk: &dyn Disk, dir: &Path) -> Result<Vec<Found>, OpenError> {
    let names = disk.list(dir).map_err(|source| OpenError::Io {
        what: "list the directory",
        path: dir.to_owned(),
        source,
    })?;
    let mut indices: Vec<u64> = names.iter().filter_map(|name| index_of(name)).collect();
    indices.sort_unstable();
    let mut found = Vec::new();
    for index in indices {
        let path = dir.join(segment_name(index));
        let file = disk.open(&path).map_err(|source| OpenError::Io {
            what: "open",
            path: path.clone(),
            source,
        })?;
        let mut bytes = [0; SEGMENT_HEADER_LEN];
        file.read_at(&mut bytes, 0)
            .map_err(|source| OpenError::Io {
                what: "read the header of",
                path: path.clone(),
                source,
            })?;
        let header = match SegmentHeader::decode(&bytes) {
            ReadHeader::Valid(header) => Some(header),
            ReadHeader::Broken => None,
            ReadHeader::Version(found) => {
                return Err(OpenError::Version {
                    file: path,
                    found,
                    supported: VERSION,
                });
            }
        };
        found.push(Found {
            index,
            path,
            file,
            header,
        });
    }
    Ok(found)
}

fn scan_all(
    disk: &dyn Disk,
    found: &[Found],
    recovered: &mut Recovered,
    mut visit: Option<Visit<'_>>,
) -> Result<(), OpenError> {
    let mut seq = 0;
    for (i, segment) in found.iter().enumerate() {
        let next = found.get(i + 1);
        let task = ScanTask {
            file: &*segment.file,
            path: &segment.path,
            header: segment.header,
            expected_seq: seq,
            limit_seq: next
                .and_then(|next| next.header)
                .map(|header| header.previous_end_seq),
            is_last: next.is_none(),
            with_meta: visit.is_some(),
        };
        let mut scan = task
            .run()
            .map_err(|source| io_error("read", segment, source))?;
        let is_empty = scan.base_seq == scan.end_seq && !scan.is_sealed;
        if segment.header.is_none() {
            if is_empty && scan.damage.is_empty() {
                set_aside(disk, segment, &scan)?;
                recovered.report.torn = scan.torn;
                continue;
            }
            scan.damage.insert(0, header_damage(segment, scan.base_seq));
        }
        if next.is_none() && !scan.is_sealed {
            seal(segment, &mut scan)?;
        }
        if let Some(visit) = &mut visit {
            for found in &scan.metas {
                visit(found.first_seq, found.n_entries, &found.meta);
            }
        }
        seq = seq.max(scan.end_seq);
        recovered.report.next_seq = seq;
        recovered.report.torn = scan.torn.take();
        recovered.state.segments.push_back(Segment {
            path: segment.path.clone(),
            file: Arc::clone(&segment.file),
            epoch: scan.epoch,
            base_seq: scan.base_seq,
            end_seq: scan.end_seq,
            end_offset: scan.end_offset,
            index: std::mem::take(&mut scan.index),
            damaged_at: scan.damage.iter().map(|damage| damage.offset).collect(),
        });
        recovered.report.damage.append(&mut scan.damage);
    }
    Ok(())
}

/// A file without a header and without a single frame: its creation was cut short, or nothing in it can be read.
fn set_aside(disk: &dyn Disk, segment: &Found, scan: &Scan) -> Result<(), OpenError> {
    let dir = segment.path.parent().unwrap_or(Path::new("."));
    let done = if scan.torn.is_some() {
        let mut name = segment.path.clone().into_os_string();
        name.push(DAMAGED_SUFFIX);
        disk.rename(&segment.path, Path::new(&name))
    } else {
        disk.unlink(&segment.path)
    };
    done.and_then(|()| disk.sync_dir(dir))
        .map_err(|source| io_error("set aside", segment, source))
}

fn header_damage(segment: &Found, seq: u64) -> Damage {
    Damage {
        file: segment.path.clone(),
        offset: 0,
        size_bytes: SEGMENT_HEADER_LEN as u64,
        first_seq: seq,
        next_seq: seq,
    }
}

/// Cuts what lies after the last block and marks the segment as complete, so that later damage to it is known as such.
fn seal(segment: &Found, scan: &mut Scan) -> Result<(), OpenError> {
    let write = || {
        segment.file.set_size(scan.end_offset)?;
        segment.file.sync_data()?;
        let frame = seal_frame(scan.epoch, scan.end_seq, scan.end_offset);
        segment.file.write_all_at(&[&frame], scan.end_offset)?;
        segment.file.sync_data()?;
        Ok(frame.len() as u64)
    };
    let len = write().map_err(|source| io_error("seal", segment, source))?;
    scan.end_offset += len;
    scan.is_sealed = true;
    Ok(())
}

pub(crate) fn seal_frame(epoch: u64, end_seq: u64, end_offset: u64) -> Vec<u8> {
    let mut frame = Vec::new();
    FrameHeader {
        epoch,
        first_seq: end_seq,
        synced_up_to: end_offset,
        n_entries: 0,
        meta_len: 0,
        payload_len: 0,
        body_crc: crc32c(&[]),
    }
    .encode_to(&mut frame);
    frame
}

fn io_error(what: &'static str, segment: &Found, source: io::Error) -> OpenError {
    OpenError::Io {
        what,
        path: segment.path.clone(),
        source,
    }
}
