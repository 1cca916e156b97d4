//! Reading blocks back, while the owner of the log appends and releases.
//!
//! Must not know: how blocks are written.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::disk::DiskFile;
use crate::error::ReadError;
use crate::frame::{FRAME_HEADER_LEN, FrameHeader, SEGMENT_HEADER_LEN};
use crate::scan::{Cursor, Damage, SparseIndex, Step, usize_of};

/// A block as it was appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    pub first_seq: u64,
    pub n_entries: u32,
    pub payload: Vec<u8>,
    pub meta: Vec<u8>,
}

impl Block {
    /// The number after that of the last entry.
    pub fn end_seq(&self) -> u64 {
        self.first_seq + u64::from(self.n_entries)
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct ReadOutcome {
    /// Whole blocks, upwards; the first can begin before the number asked for.
    pub blocks: Vec<Block>,
    /// Damage that nobody had seen before.
    pub new_damage: Vec<Damage>,
    /// Where to read on: after the last block, or after damage that ends what there is.
    pub next_seq: u64,
}

/// Any number of these read at once; cheap to clone.
#[derive(Clone)]
pub struct LogReader {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared(Mutex<State>);

#[derive(Default)]
pub(crate) struct State {
    /// Upwards; the last one is the one that is appended to, if any is.
    pub segments: VecDeque<Segment>,
    /// After the last entry that may be read.
    pub end_seq: u64,
    pub damage_count: u64,
}

pub(crate) struct Segment {
    pub path: PathBuf,
    pub file: Arc<dyn DiskFile>,
    pub epoch: u64,
    pub base_seq: u64,
    /// Readable up to here.
    pub end_seq: u64,
    pub end_offset: u64,
    pub index: SparseIndex,
    /// Places of damage known by now.
    pub damaged_at: Vec<u64>,
}

/// What reading one segment needs, without the lock.
struct View {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    epoch: u64,
    end_seq: u64,
    end_offset: u64,
    start_seq: u64,
    start_offset: u64,
}

impl Shared {
    pub fn new(state: State) -> Arc<Self> {
        Arc::new(Self(Mutex::new(state)))
    }

    /// The state is consistent whenever the lock is free, so a panic of another holder changes nothing.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    pub fn size_bytes(&self) -> u64 {
        self.segments
            .iter()
            .map(|segment| segment.end_offset)
            .sum::<u64>()
    }
}

impl LogReader {
    /// Blocks from the one that holds `from_seq`, or the next one there is, until `max_bytes` of payload are reached; at least one if there is any.
    pub fn read(&self, from_seq: u64, max_bytes: usize) -> Result<ReadOutcome, ReadError> {
        let mut outcome = ReadOutcome {
            next_seq: from_seq,
            ..ReadOutcome::default()
        };
        let mut size_bytes = 0;
        while size_bytes < max_bytes || outcome.blocks.is_empty() {
            let Some(view) = self.view(outcome.next_seq) else {
                break;
            };
            view.read(&mut outcome, &mut size_bytes, max_bytes)?;
        }
        self.note_damage(&mut outcome.new_damage);
        Ok(outcome)
    }

    /// Numbers below this are gone.
    pub fn oldest_seq(&self) -> u64 {
        let state = self.shared.lock();
        state
            .segments
            .front()
            .map_or(state.end_seq, |segment| segment.base_seq)
    }

    /// After the last entry that may be read.
    pub fn end_seq(&self) -> u64 {
        self.shared.lock().end_seq
    }

    /// Bytes of all blocks that are kept, with their headers.
    pub fn size_bytes(&self) -> u64 {
        self.shared.lock().size_bytes()
    }

    /// Damaged ranges met since the log was opened, those found while opening included.
    pub fn damage_count(&self) -> u64 {
        self.shared.lock().damage_count
    }

    fn view(&self, seq: u64) -> Option<View> {
        let state = self.shared.lock();
        let segment = state
            .segments
            .iter()
            .find(|segment| seq < segment.end_seq)?;
        let (start_seq, start_offset) = segment
            .index
            .before(seq)
            .unwrap_or((segment.base_seq, SEGMENT_HEADER_LEN as u64));
        Some(View {
            path: segment.path.clone(),
            file: Arc::clone(&segment.file),
            epoch: segment.epoch,
            end_seq: segment.end_seq,
            end_offset: segment.end_offset,
            start_seq,
            start_offset,
        })
    }

    /// Keeps only what is new, and remembers it.
    fn note_damage(&self, damage: &mut Vec<Damage>) {
        if damage.is_empty() {
            return;
        }
        let mut state = self.shared.lock();
        let mut n_new = 0;
        damage.retain(|found| {
            let segment = state
                .segments
                .iter_mut()
                .find(|segment| segment.path == found.file);
            let is_new = segment.is_some_and(|segment| {
                let is_new = !segment.damaged_at.contains(&found.offset);
                if is_new {
                    segment.damaged_at.push(found.offset);
                }
                is_new
            });
            n_new += u64::from(is_new);
            is_new
        });
        state.damage_count += n_new;
    }
}

impl View {
    fn read(
        &self,
        outcome: &mut ReadOutcome,
        size_bytes: &mut usize,
        max_bytes: usize,
    ) -> Result<(), ReadError> {
        let mut cursor = Cursor::new(&*self.file, self.end_offset);
        let mut offset = self.start_offset;
        let mut seq = self.start_seq;
        while offset < self.end_offset {
            let step = cursor
                .step(offset, Some(self.epoch), 0)
                .map_err(|source| self.error(offset, source))?;
            match step {
                Step::End => break,
                Step::Bad(at, size) => {
                    offset = at + size;
                    let next = cursor.step(offset, Some(self.epoch), 0);
                    let next = next.map_err(|source| self.error(offset, source))?;
                    let next_seq = match next {
                        Step::Frame(_, header) => header.first_seq,
                        Step::Bad(..) | Step::End => self.end_seq,
                    };
                    let damage = self.damage(at, size, seq.min(next_seq), next_seq);
                    outcome.new_damage.push(damage);
                }
                Step::Frame(at, header) => {
                    offset = at + header.frame_len();
                    seq = header.end_seq();
                    if header.is_seal() {
                        break;
                    }
                    if seq <= outcome.next_seq {
                        continue;
                    }
                    if max_bytes <= *size_bytes && !outcome.blocks.is_empty() {
                        return Ok(());
                    }
                    self.read_block(&mut cursor, at, &header, outcome, size_bytes)?;
                    outcome.next_seq = seq;
                }
            }
        }
        outcome.next_seq = outcome.next_seq.max(self.end_seq);
        Ok(())
    }

    fn read_block(
        &self,
        cursor: &mut Cursor<'_>,
        at: u64,
        header: &FrameHeader,
        outcome: &mut ReadOutcome,
        size_bytes: &mut usize,
    ) -> Result<(), ReadError> {
        let body = cursor
            .body(at, header)
            .map_err(|source| self.error(at + FRAME_HEADER_LEN as u64, source))?;
        match body {
            Some(mut payload) => {
                let meta = payload.split_off(usize_of(u64::from(header.payload_len)));
                *size_bytes += payload.len();
                outcome.blocks.push(Block {
                    first_seq: header.first_seq,
                    n_entries: header.n_entries,
                    payload,
                    meta,
                });
            }
            None => outcome.new_damage.push(self.damage(
                at,
                header.frame_len(),
                header.first_seq,
                header.end_seq(),
            )),
        }
        Ok(())
    }

    fn damage(&self, offset: u64, size_bytes: u64, first_seq: u64, next_seq: u64) -> Damage {
        Damage {
            file: self.path.clone(),
            offset,
            size_bytes,
            first_seq,
            next_seq,
        }
    }

    fn error(&self, offset: u64, source: std::io::Error) -> ReadError {
        ReadError {
            file: self.path.clone(),
            offset,
            source,
        }
    }
}
