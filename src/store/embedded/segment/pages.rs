//! Keeps a column chunk's finished pages in memory until its row group is written, and takes each page's checksum on the way.
//!
//! Parquet's writer hands over two blobs for each page, header then data, and takes them back in the order of the file (the dictionary page first).
//! So the checksums, in the order of taking, follow the file's bytes without a gap from the beginning of the row group on.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use parquet::arrow::arrow_writer::{PageKey, PageStore, PageStoreArgs, PageStoreFactory};
use parquet::errors::{ParquetError, Result};
use xxhash_rust::xxh3::Xxh3;

use crate::store::embedded::segment::file::PageChecksum;

/// The checksums of all pages written, in the order of the file.
#[derive(Clone, Default)]
pub struct PageLog(Arc<Mutex<Log>>);

#[derive(Default)]
struct Log {
    pages: Vec<PageChecksum>,
    /// Where the next page will lie.
    offset: u64,
}

struct ChecksummedPages {
    log: PageLog,
    blobs: Vec<Blob>,
    header: Option<Bytes>,
    resident_bytes: usize,
}

/// The header carries the checksum of its page.
enum Blob {
    Header { bytes: Bytes, page: (u32, u32) },
    Data(Bytes),
    Taken,
}

impl PageLog {
    /// A row group begins here.
    pub fn seek(&self, offset: u64) {
        self.0.lock().offset = offset;
    }

    pub fn take(&self) -> Vec<PageChecksum> {
        std::mem::take(&mut self.0.lock().pages)
    }

    fn push(&self, len: u32, checksum: u32) {
        let mut log = self.0.lock();
        let offset = log.offset;
        log.offset += u64::from(len);
        log.pages.push(PageChecksum {
            offset,
            len,
            checksum,
        });
    }
}

impl fmt::Debug for PageLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PageLog")
    }
}

impl PageStoreFactory for PageLog {
    fn create(&self, _args: &PageStoreArgs<'_>) -> Result<Box<dyn PageStore>> {
        Ok(Box::new(ChecksummedPages {
            log: self.clone(),
            blobs: Vec::new(),
            header: None,
            resident_bytes: 0,
        }))
    }
}

impl PageStore for ChecksummedPages {
    fn put(&mut self, value: Bytes) -> Result<PageKey> {
        self.resident_bytes += value.len();
        let key = PageKey::new(self.blobs.len() as u64);
        let Some(header) = self.header.take() else {
            self.blobs.push(Blob::Header {
                bytes: value.clone(),
                page: (0, 0),
            });
            self.header = Some(value);
            return Ok(key);
        };
        let mut hasher = Xxh3::new();
        hasher.update(&header);
        hasher.update(&value);
        let len = u32::try_from(header.len() + value.len())
            .map_err(|_| ParquetError::General("a page of 4 GiB".to_owned()))?;
        if let Some(Blob::Header { page, .. }) = self.blobs.last_mut() {
            *page = (len, hasher.digest() as u32);
        }
        self.blobs.push(Blob::Data(value));
        Ok(key)
    }

    fn take(&mut self, key: PageKey) -> Result<Bytes> {
        let place = usize::try_from(key.get())
            .ok()
            .and_then(|index| self.blobs.get_mut(index));
        let blob = place.map(|place| std::mem::replace(place, Blob::Taken));
        let bytes = match blob {
            Some(Blob::Header { bytes, page }) => {
                self.log.push(page.0, page.1);
                bytes
            }
            Some(Blob::Data(bytes)) => bytes,
            Some(Blob::Taken) | None => {
                return Err(ParquetError::General("a page was taken twice".to_owned()));
            }
        };
        self.resident_bytes -= bytes.len();
        Ok(bytes)
    }

    fn memory_size(&self) -> usize {
        self.resident_bytes
    }
}
