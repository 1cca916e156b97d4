//! A segment's file for reading: positioned reads that never share a cursor, each page checked against its checksum.
//!
//! Page checksums, little endian: n_pages u32 · n_pages × (offset u64 · len u32 · xxh3-64 of header and data, its low half, u32), in order of offset,
//! · xxh3-64 of all before, u64. A read that begins where a page begins and holds all of it is verified; readers use the
//! offset index, so reads of data are exactly pages.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};
use xxhash_rust::xxh3::xxh3_64;

/// Cheap to clone.
#[derive(Clone)]
pub struct SegmentFile {
    file: Arc<File>,
    path: Arc<PathBuf>,
    size_bytes: u64,
    checksums: Arc<[PageChecksum]>,
    /// The last error of the disk itself.
    failure: Arc<Mutex<Option<String>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageChecksum {
    pub offset: u64,
    pub len: u32,
    pub checksum: u32,
}

impl SegmentFile {
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let size_bytes = file.metadata()?.len();
        Ok(Self {
            file: Arc::new(file),
            path: Arc::new(path.to_owned()),
            size_bytes,
            checksums: Arc::new([]),
            failure: Arc::default(),
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Fills `buffer` from `offset`; unverified.
    pub fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file
            .read_exact_at(buffer, offset)
            .inspect_err(|error| self.note(error))
    }

    /// A file that ends too early is damaged; any other error is the disk's, and says nothing of the bytes.
    fn note(&self, error: &io::Error) {
        if error.kind() != io::ErrorKind::UnexpectedEof {
            *self.failure.lock() = Some(error.to_string());
        }
    }

    /// The last error of the disk itself, once.
    pub fn take_failure(&self) -> Option<String> {
        self.failure.lock().take()
    }

    /// Checks size and footer against what the catalog says; the fault is a phrase for an error message.
    pub fn check_footer(&self, size_bytes: u64, offset: u64, checksum: u64) -> Result<(), String> {
        if self.size_bytes != size_bytes || size_bytes < offset {
            return Err(format!(
                "is {} bytes long, the catalog says {size_bytes}",
                self.size_bytes
            ));
        }
        let footer = self.read_vec(offset, size_bytes - offset)?;
        if xxh3_64(&footer) != checksum {
            return Err(format!("footer at byte {offset} fails its checksum"));
        }
        Ok(())
    }

    pub fn load_checksums(&mut self, offset: u64, len: u64) -> Result<(), String> {
        let bytes = self.read_vec(offset, len)?;
        let checksums = decode_checksums(&bytes)
            .ok_or_else(|| format!("table of page checksums at byte {offset} is damaged"))?;
        self.checksums = checksums.into();
        Ok(())
    }

    /// Places and checksums of all pages, in order of offset.
    pub fn checksums(&self) -> &[PageChecksum] {
        &self.checksums
    }

    fn read_vec(&self, offset: u64, len: u64) -> Result<Vec<u8>, String> {
        let is_inside = offset
            .checked_add(len)
            .is_some_and(|end| end <= self.size_bytes);
        let len = usize::try_from(len).ok().filter(|_| is_inside);
        let len = len.ok_or_else(|| format!("ends before byte {offset} + {len:?}"))?;
        let mut bytes = vec![0; len];
        self.read_exact_at(&mut bytes, offset)
            .map_err(|error| format!("cannot be read at byte {offset}: {error}"))?;
        Ok(bytes)
    }

    /// Reads and verifies one page.
    pub fn check_page(&self, page: &PageChecksum) -> Result<(), ParquetError> {
        self.get_bytes(page.offset, page.len as usize).map(|_| ())
    }

    /// Verifies the pages that lie in `bytes`, read from `start`, if a page begins there.
    fn verify(&self, start: u64, bytes: &[u8]) -> Result<(), ParquetError> {
        let Ok(first) = self
            .checksums
            .binary_search_by_key(&start, |page| page.offset)
        else {
            return Ok(());
        };
        let mut rest = bytes;
        for page in self.checksums.iter().skip(first) {
            let Some((page_bytes, after)) = rest.split_at_checked(page.len as usize) else {
                break;
            };
            if checksum_of(page_bytes) != page.checksum {
                return Err(ParquetError::General(format!(
                    "page at byte {} fails its checksum",
                    page.offset
                )));
            }
            rest = after;
        }
        Ok(())
    }
}

impl Length for SegmentFile {
    fn len(&self) -> u64 {
        self.size_bytes
    }
}

impl ChunkReader for SegmentFile {
    type T = FileCursor;

    fn get_read(&self, start: u64) -> Result<FileCursor, ParquetError> {
        Ok(FileCursor {
            file: Arc::clone(&self.file),
            at: start,
        })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let bytes = self
            .read_vec(start, length as u64)
            .map_err(ParquetError::General)?;
        self.verify(start, &bytes)?;
        Ok(bytes.into())
    }
}

/// Reads on from a place, without sharing the file's cursor. Unverified.
pub struct FileCursor {
    file: Arc<File>,
    at: u64,
}

impl Read for FileCursor {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n_read = self.file.read_at(buffer, self.at)?;
        self.at += n_read as u64;
        Ok(n_read)
    }
}

pub fn checksum_of(bytes: &[u8]) -> u32 {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the low half is the checksum"
    )]
    let low = xxh3_64(bytes) as u32;
    low
}

pub fn encode_checksums(pages: &[PageChecksum]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(4 + pages.len() * 16 + 8);
    bytes.extend((pages.len() as u64).to_le_bytes().iter().take(4));
    for page in pages {
        bytes.extend(page.offset.to_le_bytes());
        bytes.extend(page.len.to_le_bytes());
        bytes.extend(page.checksum.to_le_bytes());
    }
    bytes.extend(xxh3_64(&bytes).to_le_bytes());
    bytes
}

fn decode_checksums(bytes: &[u8]) -> Option<Vec<PageChecksum>> {
    let (body, checksum) = bytes.split_last_chunk::<8>()?;
    if u64::from_le_bytes(*checksum) != xxh3_64(body) {
        return None;
    }
    let (n_pages, mut rest) = body.split_first_chunk::<4>()?;
    let mut pages = Vec::new();
    for _ in 0..u32::from_le_bytes(*n_pages) {
        let (offset, after) = rest.split_first_chunk::<8>()?;
        let (len, after) = after.split_first_chunk::<4>()?;
        let (checksum, after) = after.split_first_chunk::<4>()?;
        pages.push(PageChecksum {
            offset: u64::from_le_bytes(*offset),
            len: u32::from_le_bytes(*len),
            checksum: u32::from_le_bytes(*checksum),
        });
        rest = after;
    }
    rest.is_empty().then_some(pages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_checksums_survives_and_every_flipped_byte_is_noticed() {
        let pages: Vec<_> = (0..5)
            .map(|i| PageChecksum {
                offset: 4 + i * 100,
                len: 100,
                checksum: 7,
            })
            .collect();
        let bytes = encode_checksums(&pages);
        assert_eq!(decode_checksums(&bytes).unwrap(), pages);
        for at in 0..bytes.len() {
            let mut garbled = bytes.clone();
            garbled[at] ^= 1;
            assert_eq!(decode_checksums(&garbled), None, "{at}");
        }
    }
}
