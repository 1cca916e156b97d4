//! Idempotency keys that outlive their batches: before a segment of the queue goes, the keys in it that the window still holds are copied here.
//!
//! A log of blocks; one block holds some keys. Payload: for each key first_seq u64 · count u32 · record_len u32 · record (as in
//! [`crate::queue::idempotency`]), little endian. Blocks go when the window has forgotten all their keys. Limit: 256 MiB.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use logyard_wal::{AppendError, Disk, Log, LogOptions};

use crate::common::error::Result;
use crate::queue::embedded::{open_error, position, read_error};
use crate::queue::idempotency::Window;

const SEGMENT_SIZE_BYTES: u64 = 1 << 20;
const SIZE_BYTES_MAX: u64 = 256 << 20;
/// Keys are written in blocks of about this size.
const BLOCK_SIZE_BYTES: usize = 256 << 10;
const READ_BYTES: usize = 1 << 20;

pub(super) struct Ledger {
    log: Log,
    /// (number after the block, ordinal after its newest key), upwards.
    blocks: VecDeque<(u64, u64)>,
}

impl Ledger {
    /// Puts the keys kept into the window.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, window: &Window) -> Result<Self> {
        let options = LogOptions {
            segment_size_bytes: SEGMENT_SIZE_BYTES,
            size_bytes_max: SIZE_BYTES_MAX,
            ..LogOptions::default()
        };
        let (log, report) = Log::open(disk, dir, options, None).map_err(open_error)?;
        for damage in &report.damage {
            tracing::error!(%damage, "the ledger of idempotency keys is damaged; a retry of an old request may be stored twice");
        }
        let mut ledger = Self {
            log,
            blocks: VecDeque::new(),
        };
        let reader = ledger.log.reader();
        let mut seq = report.oldest_seq;
        loop {
            let outcome = reader.read(seq, READ_BYTES).map_err(read_error)?;
            seq = outcome.next_seq;
            for damage in &outcome.new_damage {
                tracing::error!(%damage, "the ledger of idempotency keys is damaged; a retry of an old request may be stored twice");
            }
            if outcome.blocks.is_empty() {
                return Ok(ledger);
            }
            for block in &outcome.blocks {
                restore(&block.payload, window);
                let newest = window.next_ordinal();
                ledger.blocks.push_back((block.end_seq(), newest));
            }
        }
    }

    /// Copies the keys of batches that begin below `end_seq`.
    pub fn keep(&mut self, window: &Window, end_seq: u64) {
        if self.log.is_poisoned_by_full_disk()
            && let Err(error) = self.log.resume()
        {
            tracing::warn!(%error, "the ledger of idempotency keys cannot go on yet");
        }
        let (records, newest) = window.not_in_ledger(end_seq);
        let mut payload = Vec::new();
        let mut count = 0;
        let mut records = records.iter().peekable();
        while let Some((record, first, n_entries)) = records.next() {
            payload.extend(first.seq.to_le_bytes());
            payload.extend(n_entries.to_le_bytes());
            payload.extend(u32::try_from(record.len()).unwrap_or(0).to_le_bytes());
            payload.extend(record);
            count += 1;
            if BLOCK_SIZE_BYTES <= payload.len() || records.peek().is_none() {
                match self.log.append(&payload, b"", count) {
                    Ok(seq) => self.blocks.push_back((seq + u64::from(count), newest + 1)),
                    // Releasing goes on: on a full disk it is what makes space.
                    Err(error) => {
                        tracing::warn!(%error, keys = count, "idempotency keys are not kept: after a restart, their retries are stored twice");
                    }
                }
                payload.clear();
                count = 0;
            }
        }
        window.note_in_ledger(end_seq);
    }

    /// Lets go of blocks whose keys the window has forgotten.
    pub fn forget(&mut self, window: &Window) {
        if self.blocks.is_empty() {
            return;
        }
        let oldest = window.oldest_ordinal();
        let mut end_seq = None;
        while let Some((seq, newest)) = self.blocks.front()
            && *newest <= oldest
        {
            end_seq = Some(*seq);
            self.blocks.pop_front();
        }
        if let Some(end_seq) = end_seq
            && let Err(error) = self.log.release(end_seq)
        {
            tracing::warn!(%error, "an old part of the ledger of idempotency keys stays");
        }
    }

    pub fn close(&mut self) -> Result<(), AppendError> {
        self.log.close()
    }
}

fn restore(payload: &[u8], window: &Window) {
    let mut rest = payload;
    while let Some((record, first_seq, count, after)) = split(rest) {
        window.restore(record, position(first_seq), count, true);
        rest = after;
    }
}

fn split(bytes: &[u8]) -> Option<(&[u8], u64, u32, &[u8])> {
    let (first_seq, rest) = bytes.split_first_chunk()?;
    let (count, rest) = rest.split_first_chunk()?;
    let (len, rest) = rest.split_first_chunk()?;
    let len = usize::try_from(u32::from_le_bytes(*len)).ok()?;
    let (record, rest) = rest.split_at_checked(len)?;
    Some((
        record,
        u64::from_le_bytes(*first_seq),
        u32::from_le_bytes(*count),
        rest,
    ))
}
