//! The catalog: which segments make up the store, up to where the queue is in them, and the dead letters. One redb file.
//!
//! A flush commits segments, checkpoint and dead letters in one transaction: after a crash they are all there, or none is.
//!
//! Tables, numbers little endian in values:
//! - `meta`: name → u64. `format` (1), `next_segment_id`.
//! - `segments`: id → day i32 · n_rows u64 · min key · max key · max_arrival_ns i64 · size_bytes u64 · footer_offset u64 · footer_checksum u64;
//!   a key is timestamp_ns i64 · partition u32 · seq u64.
//! - `quarantine`: segment id → why it is not served.
//! - `checkpoint`: partition → next seq.
//! - `dead_letters`: (partition, seq) → arrival_ns i64 · 4 × (len u32 · bytes): code, reason, source, raw. An empty source is none.
//!
//! This module must not know rows, files or threads.

use std::path::{Path, PathBuf};

use parking_lot::RwLock;
use redb::{
    Database, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _,
    TableDefinition,
};

use crate::common::error::{Error, Result};
use crate::record::{Checkpoint, DeadLetter, Position, RecordKey};
use crate::store::embedded::segment::SegmentMeta;

const FORMAT: u64 = 1;
/// The catalog is small and hot in the page cache anyway.
const CACHE_BYTES: usize = 4 << 20;

const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const SEGMENTS: TableDefinition<u64, &[u8]> = TableDefinition::new("segments");
const QUARANTINE: TableDefinition<u64, &str> = TableDefinition::new("quarantine");
const CHECKPOINT: TableDefinition<u32, u64> = TableDefinition::new("checkpoint");
const DEAD_LETTERS: TableDefinition<(u32, u64), &[u8]> = TableDefinition::new("dead_letters");

pub struct Catalog {
    path: PathBuf,
    /// `None` once closed. Opened anew after a failed commit: redb refuses everything after an I/O error.
    database: RwLock<Option<Database>>,
    letters_bytes_max: u64,
}

/// What the catalog holds, apart from the dead letters.
#[derive(Debug, Default)]
pub struct CatalogState {
    pub segments: Vec<SegmentMeta>,
    pub quarantine: Vec<(u64, String)>,
    pub checkpoint: Checkpoint,
    pub next_segment_id: u64,
}

/// One transaction. What is left empty does not change.
#[derive(Default)]
pub struct Change<'a> {
    pub add: &'a [SegmentMeta],
    pub remove: &'a [u64],
    pub checkpoint: Option<&'a Checkpoint>,
    pub letters: &'a [&'a [DeadLetter]],
    pub quarantine: Option<(u64, &'a str)>,
}

impl Catalog {
    /// Opens or creates the catalog; a second process gets an error.
    pub fn open(path: &Path, letters_bytes_max: u64) -> Result<(Self, CatalogState)> {
        let catalog = Self {
            path: path.to_owned(),
            database: RwLock::new(Some(open_database(path)?)),
            letters_bytes_max,
        };
        catalog.with("prepared", init)??;
        let state = catalog.with("read", load)??;
        Ok((catalog, state))
    }

    /// Lets go of the file; every later call fails.
    pub fn close(&self) {
        self.database.write().take();
    }

    fn with<R>(
        &self,
        what: &str,
        work: impl FnOnce(&Database) -> Result<R, redb::Error>,
    ) -> Result<R> {
        let database = self.database.read();
        let database = database.as_ref().ok_or_else(|| {
            Error::unavailable(
                "store_closed",
                "the store is closed: the process is stopping",
            )
        })?;
        work(database).map_err(|error| {
            Error::unavailable(
                "catalog_failed",
                format!(
                    "the catalog {} cannot be {what}: {error}",
                    self.path.display()
                ),
            )
            .with_source(error)
        })
    }

    /// Makes the change durable, as a whole or not at all. Returns how many dead letters went because they exceed their space.
    ///
    /// After an error it is unknown whether the change was made. The same change may be committed again: that has no further effect.
    pub fn commit(&self, change: &Change<'_>) -> Result<u64> {
        let result = self.with("written", |database| {
            commit(database, change, self.letters_bytes_max)
        });
        if result.is_err() {
            self.reopen();
        }
        result
    }

    fn reopen(&self) {
        let mut database = self.database.write();
        if database.take().is_some() {
            match open_database(&self.path) {
                Ok(opened) => *database = Some(opened),
                Err(error) => tracing::error!(%error, "cannot open the catalog again"),
            }
        }
    }

    /// Calls `visit` with each dead letter, newest position first, until it says false.
    pub fn letters(
        &self,
        before: Option<Position>,
        mut visit: impl FnMut(DeadLetter) -> bool,
    ) -> Result<()> {
        let end = before.map_or((u32::MAX, u64::MAX), |p| (p.partition, p.seq));
        self.with("read", |database| {
            let table = database.begin_read()?.open_table(DEAD_LETTERS)?;
            for entry in table.range((0, 0)..end)?.rev() {
                let (key, bytes) = entry?;
                let letter = decode_letter(key.value(), bytes.value());
                if letter.is_some_and(|letter| !visit(letter)) {
                    break;
                }
            }
            Ok(())
        })
    }

    pub fn letter(&self, position: Position) -> Result<Option<DeadLetter>> {
        let key = (position.partition, position.seq);
        self.with("read", |database| {
            let table = database.begin_read()?.open_table(DEAD_LETTERS)?;
            let bytes = table.get(key)?;
            Ok(bytes.and_then(|bytes| decode_letter(key, bytes.value())))
        })
    }

    pub fn n_letters(&self) -> Result<u64> {
        self.with("read", |database| {
            Ok(database.begin_read()?.open_table(DEAD_LETTERS)?.len()?)
        })
    }

    /// How many of them existed.
    pub fn delete_letters(&self, positions: &[Position]) -> Result<u64> {
        self.with("written", |database| {
            let transaction = database.begin_write()?;
            let mut n_deleted = 0;
            {
                let mut table = transaction.open_table(DEAD_LETTERS)?;
                for position in positions {
                    let old = table.remove((position.partition, position.seq))?;
                    n_deleted += u64::from(old.is_some());
                }
            }
            transaction.commit()?;
            Ok(n_deleted)
        })
    }
}

/// Creates the tables; refuses a format that this version does not know.
fn init(database: &Database) -> Result<Result<()>, redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut meta = transaction.open_table(META)?;
        let format = meta.get("format")?.map(|value| value.value());
        match format {
            Some(FORMAT) => {}
            Some(other) => {
                return Ok(Err(Error::unavailable(
                    "store_format",
                    format!(
                        "the store has format {other}, this version of Logyard reads format {FORMAT}: start the version that wrote it"
                    ),
                )));
            }
            None => {
                meta.insert("format", FORMAT)?;
                meta.insert("next_segment_id", 1)?;
            }
        }
        transaction.open_table(SEGMENTS)?;
        transaction.open_table(QUARANTINE)?;
        transaction.open_table(CHECKPOINT)?;
        transaction.open_table(DEAD_LETTERS)?;
    }
    transaction.commit()?;
    Ok(Ok(()))
}

fn load(database: &Database) -> Result<Result<CatalogState>, redb::Error> {
    let transaction = database.begin_read()?;
    let mut state = CatalogState::default();
    for entry in transaction.open_table(SEGMENTS)?.iter()? {
        let (id, bytes) = entry?;
        match decode_segment(id.value(), bytes.value()) {
            Some(meta) => state.segments.push(meta),
            None => {
                return Ok(Err(Error::corrupt(format!(
                    "the catalog's entry of segment {} is unreadable",
                    id.value()
                ))));
            }
        }
    }
    for entry in transaction.open_table(QUARANTINE)?.iter()? {
        let (id, reason) = entry?;
        state
            .quarantine
            .push((id.value(), reason.value().to_owned()));
    }
    for entry in transaction.open_table(CHECKPOINT)?.iter()? {
        let (partition, next_seq) = entry?;
        state
            .checkpoint
            .advance(partition.value(), next_seq.value());
    }
    let meta = transaction.open_table(META)?;
    state.next_segment_id = meta
        .get("next_segment_id")?
        .map_or(1, |value| value.value());
    Ok(Ok(state))
}

fn commit(
    database: &Database,
    change: &Change<'_>,
    letters_bytes_max: u64,
) -> Result<u64, redb::Error> {
    let transaction = database.begin_write()?;
    let mut n_dropped = 0;
    {
        let mut segments = transaction.open_table(SEGMENTS)?;
        let mut meta = transaction.open_table(META)?;
        let mut quarantine = transaction.open_table(QUARANTINE)?;
        for segment in change.add {
            segments.insert(segment.id, encode_segment(segment).as_slice())?;
            let next = meta
                .get("next_segment_id")?
                .map_or(1, |value| value.value());
            meta.insert("next_segment_id", next.max(segment.id + 1))?;
        }
        for id in change.remove {
            segments.remove(id)?;
            quarantine.remove(id)?;
        }
        if let Some((id, reason)) = change.quarantine {
            quarantine.insert(id, reason)?;
        }
        if let Some(checkpoint) = change.checkpoint {
            let mut table = transaction.open_table(CHECKPOINT)?;
            for (partition, next_seq) in &checkpoint.0 {
                table.insert(partition, next_seq)?;
            }
        }
        if change.letters.iter().any(|letters| !letters.is_empty()) {
            let mut table = transaction.open_table(DEAD_LETTERS)?;
            for letter in change.letters.iter().flat_map(|letters| letters.iter()) {
                let key = (letter.position.partition, letter.position.seq);
                table.insert(key, encode_letter(letter).as_slice())?;
            }
            n_dropped = trim_letters(&mut table, letters_bytes_max)?;
        }
    }
    transaction.commit()?;
    Ok(n_dropped)
}

/// Drops the letters that arrived first until the rest fits.
fn trim_letters(
    table: &mut redb::Table<'_, (u32, u64), &'static [u8]>,
    bytes_max: u64,
) -> Result<u64, redb::Error> {
    if table.stats()?.stored_bytes() <= bytes_max {
        return Ok(0);
    }
    let mut letters = Vec::new();
    let mut n_bytes = 0;
    for entry in table.iter()? {
        let (key, bytes) = entry?;
        let arrival_ns = bytes
            .value()
            .first_chunk::<8>()
            .map_or(0, |b| i64::from_le_bytes(*b));
        n_bytes += bytes.value().len() as u64;
        letters.push((arrival_ns, key.value(), bytes.value().len() as u64));
    }
    letters.sort_unstable();
    let mut n_dropped = 0;
    for (_, key, size_bytes) in letters {
        if n_bytes <= bytes_max {
            break;
        }
        table.remove(key)?;
        n_bytes -= size_bytes;
        n_dropped += 1;
    }
    Ok(n_dropped)
}

fn open_database(path: &Path) -> Result<Database> {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    // A file altered behind our back is refused here; without the check redb may panic later.
    builder.set_check_integrity_on_open(true);
    builder.create(path).map_err(|error| {
        Error::unavailable(
            "store_open_failed",
            format!("cannot open the catalog {}: {error}", path.display()),
        )
        .with_source(error)
    })
}

fn encode_segment(meta: &SegmentMeta) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(92);
    bytes.extend(meta.day.to_le_bytes());
    bytes.extend(meta.n_rows.to_le_bytes());
    for key in [meta.min_key, meta.max_key] {
        bytes.extend(key.timestamp_ns.to_le_bytes());
        bytes.extend(key.position.partition.to_le_bytes());
        bytes.extend(key.position.seq.to_le_bytes());
    }
    bytes.extend(meta.max_arrival_ns.to_le_bytes());
    bytes.extend(meta.size_bytes.to_le_bytes());
    bytes.extend(meta.footer_offset.to_le_bytes());
    bytes.extend(meta.footer_checksum.to_le_bytes());
    bytes
}

fn decode_segment(id: u64, bytes: &[u8]) -> Option<SegmentMeta> {
    let mut bytes = Decoder(bytes);
    let meta = SegmentMeta {
        id,
        day: i32::from_le_bytes(bytes.array()?),
        n_rows: bytes.u64()?,
        min_key: bytes.key()?,
        max_key: bytes.key()?,
        max_arrival_ns: i64::from_le_bytes(bytes.array()?),
        size_bytes: bytes.u64()?,
        footer_offset: bytes.u64()?,
        footer_checksum: bytes.u64()?,
    };
    bytes.0.is_empty().then_some(meta)
}

fn encode_letter(letter: &DeadLetter) -> Vec<u8> {
    let source = letter.source.as_deref().unwrap_or("");
    let parts: [&[u8]; 4] = [
        letter.code.as_bytes(),
        letter.reason.as_bytes(),
        source.as_bytes(),
        &letter.raw,
    ];
    let mut bytes = Vec::with_capacity(24 + parts.iter().map(|part| part.len()).sum::<usize>());
    bytes.extend(letter.arrival_ns.to_le_bytes());
    for part in parts {
        // A batch is smaller than 4 GiB, so is a part of a letter.
        bytes.extend((part.len() as u64).to_le_bytes().iter().take(4));
        bytes.extend(part);
    }
    bytes
}

fn decode_letter((partition, seq): (u32, u64), bytes: &[u8]) -> Option<DeadLetter> {
    let mut bytes = Decoder(bytes);
    let arrival_ns = i64::from_le_bytes(bytes.array()?);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = text(bytes.sized()?);
    let reason = text(bytes.sized()?);
    let source = text(bytes.sized()?);
    Some(DeadLetter {
        position: Position { partition, seq },
        arrival_ns,
        code,
        reason,
        source: (!source.is_empty()).then_some(source),
        raw: bytes.sized()?.to_vec(),
    })
}

struct Decoder<'a>(&'a [u8]);

impl<'a> Decoder<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*array)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn sized(&mut self) -> Option<&'a [u8]> {
        let len = u32::from_le_bytes(self.array()?) as usize;
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }

    fn key(&mut self) -> Option<RecordKey> {
        Some(RecordKey {
            timestamp_ns: i64::from_le_bytes(self.array()?),
            position: Position {
                partition: u32::from_le_bytes(self.array()?),
                seq: self.u64()?,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(seq: u64, raw_len: usize) -> DeadLetter {
        DeadLetter {
            position: Position { partition: 0, seq },
            arrival_ns: seq.cast_signed(),
            code: "invalid_json".to_owned(),
            reason: format!("reason {seq}"),
            source: seq.is_multiple_of(2).then(|| "app".to_owned()),
            raw: vec![b'x'; raw_len],
        }
    }

    fn segment(id: u64) -> SegmentMeta {
        let key = |timestamp_ns, seq| RecordKey {
            timestamp_ns,
            position: Position { partition: 3, seq },
        };
        SegmentMeta {
            id,
            day: -4,
            n_rows: 5,
            min_key: key(-9, 1),
            max_key: key(-8, 2),
            max_arrival_ns: 6,
            size_bytes: 7,
            footer_offset: 8,
            footer_checksum: u64::MAX,
        }
    }

    #[test]
    fn what_was_committed_is_there_after_reopening() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("catalog.redb");
        let (catalog, state) = Catalog::open(&path, 1 << 20).unwrap();
        assert_eq!((state.segments.len(), state.next_segment_id), (0, 1));
        Catalog::open(&path, 1 << 20)
            .err()
            .expect("a second opener must fail");
        let mut checkpoint = Checkpoint::default();
        checkpoint.advance(0, 10);
        let letters = [letter(1, 3), letter(2, 3)];
        catalog
            .commit(&Change {
                add: &[segment(4), segment(5)],
                checkpoint: Some(&checkpoint),
                letters: &[&letters],
                ..Change::default()
            })
            .unwrap();
        catalog
            .commit(&Change {
                remove: &[4],
                quarantine: Some((5, "why")),
                ..Change::default()
            })
            .unwrap();
        drop(catalog);
        let (catalog, state) = Catalog::open(&path, 1 << 20).unwrap();
        assert_eq!(state.segments, [segment(5)]);
        assert_eq!(state.quarantine, [(5, "why".to_owned())]);
        assert_eq!((state.checkpoint, state.next_segment_id), (checkpoint, 6));
        let mut seen = Vec::new();
        catalog
            .letters(None, |l| {
                seen.push(l);
                true
            })
            .unwrap();
        assert_eq!(seen, [letter(2, 3), letter(1, 3)]);
        assert_eq!(
            catalog.letter(letters[0].position).unwrap(),
            Some(letter(1, 3))
        );
        let gone = [
            letters[0].position,
            Position {
                partition: 9,
                seq: 9,
            },
        ];
        assert_eq!(catalog.delete_letters(&gone).unwrap(), 1);
        assert_eq!(catalog.n_letters().unwrap(), 1);
    }

    #[test]
    fn the_oldest_letters_go_when_their_space_is_full() {
        let folder = tempfile::tempdir().unwrap();
        let (catalog, _) = Catalog::open(&folder.path().join("c"), 10_000).unwrap();
        let letters: Vec<_> = (0..20).map(|seq| letter(seq, 1_000)).collect();
        let change = Change {
            letters: &[&letters],
            ..Change::default()
        };
        let n_dropped = catalog.commit(&change).unwrap();
        let mut kept = Vec::new();
        catalog
            .letters(None, |l| {
                kept.push(l.position.seq);
                true
            })
            .unwrap();
        assert_eq!(n_dropped + kept.len() as u64, 20);
        assert!((7..=9).contains(&kept.len()), "{kept:?}");
        assert_eq!(kept[0], 19);
    }
}
