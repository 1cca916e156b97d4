//! The bytes of a segment file. Version 1, little endian, every frame at a multiple of 8.
//!
//! ```text
//! file      segment header · frames · zeros up to the preallocated end
//!
//! segment   0  magic "LYWALSEG"
//! header    8  version u32                12  CRC32C of bytes 0..12 (these 16 bytes are the same in every version)
//! 64 bytes 16  epoch u64                  24  index u64: segments are numbered upwards
//!          32  base_seq u64: of the first entry      40  previous_end_seq u64: where the segment before ended
//!          48  zeros                      60  CRC32C of bytes 16..60
//!
//! frame     0  magic "LYB1"                4  CRC32C of bytes 8..48
//! header    8  epoch u64: of the segment  16  first_seq u64
//! 48 bytes 24  synced_up_to u64: bytes of this file that were durable when the frame was written
//!          32  n_entries u32              36  meta_len u32
//!          40  payload_len u32            44  CRC32C of payload and meta
//! frame     header · payload · meta · zeros to a multiple of 8
//! ```
//!
//! A *seal* is a frame without entries and bytes: the segment ends here, everything before it is durable. The epoch is random for each segment, so
//! bytes that a file held before cannot pass for its blocks. `synced_up_to` tells a torn tail from damage: a hole before a place that is known to
//! have been synced is damage, any other is a tail that was never acknowledged.
//!
//! Limits: payload and meta below 1 GiB each.

use crc_fast::{CrcAlgorithm, Digest};

pub const VERSION: u32 = 1;
pub const SEGMENT_HEADER_LEN: usize = 64;
pub const FRAME_HEADER_LEN: usize = 48;
pub(crate) const ALIGN: u64 = 8;
const SEGMENT_MAGIC: &[u8; 8] = b"LYWALSEG";
pub(crate) const FRAME_MAGIC: &[u8; 4] = b"LYB1";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub epoch: u64,
    pub index: u64,
    pub base_seq: u64,
    pub previous_end_seq: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadHeader {
    Valid(SegmentHeader),
    /// Written by another version of the program.
    Version(u32),
    Broken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub epoch: u64,
    pub first_seq: u64,
    pub synced_up_to: u64,
    pub n_entries: u32,
    pub meta_len: u32,
    pub payload_len: u32,
    pub body_crc: u32,
}

impl SegmentHeader {
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_LEN] {
        let mut fields = Vec::with_capacity(SEGMENT_HEADER_LEN);
        fields.extend(SEGMENT_MAGIC);
        fields.extend(VERSION.to_le_bytes());
        fields.extend(crc32c(&[&fields]).to_le_bytes());
        for field in [
            self.epoch,
            self.index,
            self.base_seq,
            self.previous_end_seq,
            0,
        ] {
            fields.extend(field.to_le_bytes());
        }
        fields.extend([0; 4]);
        let crc = crc32c(&[fields.get(16..).unwrap_or_default()]);
        fields.extend(crc.to_le_bytes());
        let mut bytes = [0; SEGMENT_HEADER_LEN];
        bytes.copy_from_slice(&fields);
        bytes
    }

    pub fn decode(bytes: &[u8]) -> ReadHeader {
        let Some(bytes) = bytes.first_chunk::<SEGMENT_HEADER_LEN>() else {
            return ReadHeader::Broken;
        };
        let prefix_is_whole = bytes.starts_with(SEGMENT_MAGIC)
            && u32_at(bytes, 12) == crc32c(&[bytes.get(..12).unwrap_or_default()]);
        if !prefix_is_whole {
            return ReadHeader::Broken;
        }
        let version = u32_at(bytes, 8);
        if version != VERSION {
            return ReadHeader::Version(version);
        }
        if u32_at(bytes, 60) != crc32c(&[bytes.get(16..60).unwrap_or_default()]) {
            return ReadHeader::Broken;
        }
        ReadHeader::Valid(Self {
            epoch: u64_at(bytes, 16),
            index: u64_at(bytes, 24),
            base_seq: u64_at(bytes, 32),
            previous_end_seq: u64_at(bytes, 40),
        })
    }
}

impl FrameHeader {
    pub fn encode_to(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend(FRAME_MAGIC);
        out.extend([0; 4]);
        out.extend(self.epoch.to_le_bytes());
        out.extend(self.first_seq.to_le_bytes());
        out.extend(self.synced_up_to.to_le_bytes());
        out.extend(self.n_entries.to_le_bytes());
        out.extend(self.meta_len.to_le_bytes());
        out.extend(self.payload_len.to_le_bytes());
        out.extend(self.body_crc.to_le_bytes());
        let crc = crc32c(&[out.get(start + 8..).unwrap_or_default()]);
        if let Some(place) = out.get_mut(start + 4..start + 8) {
            place.copy_from_slice(&crc.to_le_bytes());
        }
    }

    /// `None` if these are not the first bytes of a frame. `epoch`: that of the segment, if it is known.
    pub fn decode(bytes: &[u8], epoch: Option<u64>) -> Option<Self> {
        let bytes = bytes.first_chunk::<FRAME_HEADER_LEN>()?;
        let is_whole = bytes.starts_with(FRAME_MAGIC)
            && u32_at(bytes, 4) == crc32c(&[bytes.get(8..).unwrap_or_default()]);
        let header = Self {
            epoch: u64_at(bytes, 8),
            first_seq: u64_at(bytes, 16),
            synced_up_to: u64_at(bytes, 24),
            n_entries: u32_at(bytes, 32),
            meta_len: u32_at(bytes, 36),
            payload_len: u32_at(bytes, 40),
            body_crc: u32_at(bytes, 44),
        };
        (is_whole && epoch.is_none_or(|epoch| epoch == header.epoch)).then_some(header)
    }

    pub fn is_seal(&self) -> bool {
        self.n_entries == 0
    }

    pub fn body_len(&self) -> u64 {
        u64::from(self.payload_len) + u64::from(self.meta_len)
    }

    /// Bytes of the whole frame, padding included.
    pub fn frame_len(&self) -> u64 {
        frame_len(self.body_len())
    }

    pub fn end_seq(&self) -> u64 {
        self.first_seq.saturating_add(u64::from(self.n_entries))
    }
}

pub(crate) fn frame_len(body_len: u64) -> u64 {
    (FRAME_HEADER_LEN as u64 + body_len).next_multiple_of(ALIGN)
}

pub(crate) fn crc32c(parts: &[&[u8]]) -> u32 {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    for part in parts {
        digest.update(part);
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a CRC32 has 32 bits; the library returns all widths as u64"
    )]
    let crc = digest.finalize() as u32;
    crc
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let field = bytes.get(at..).and_then(<[u8]>::first_chunk);
    field.map_or(0, |field| u32::from_le_bytes(*field))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let field = bytes.get(at..).and_then(<[u8]>::first_chunk);
    field.map_or(0, |field| u64::from_le_bytes(*field))
}
