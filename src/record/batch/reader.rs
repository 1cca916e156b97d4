//! Reading a batch's bytes, every step checked.

use crate::record::batch::{
    Batch, DeadLetterRef, EntryRef, FieldRef, KIND_DEAD_LETTER, KIND_RECORD, RecordRef, u32_of,
};
use crate::record::value::{Flags, ValueRef, ValueType};

#[derive(Debug, thiserror::Error)]
#[error("not a batch of records: {what} at byte {offset}")]
pub struct BatchError {
    pub what: &'static str,
    pub offset: usize,
}

pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub fn at(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at }
    }

    pub fn offset(&self) -> u32 {
        u32_of(self.at)
    }

    pub fn error(&self, what: &'static str) -> BatchError {
        BatchError {
            what,
            offset: self.at,
        }
    }

    pub fn entry(&mut self, batch: &'a Batch) -> Result<EntryRef<'a>, BatchError> {
        let [kind] = self.array()?;
        let body_len = u32::from_le_bytes(self.array()?) as usize;
        let mut body = Reader::new(self.take(body_len)?);
        match kind {
            KIND_RECORD => {
                let timestamp_ns = i64::from_le_bytes(body.array()?);
                let [timestamp_digits] = body.array()?;
                let flags = Flags(u32::from_le_bytes(body.array()?));
                let n_fields = u32::from_le_bytes(body.array()?);
                Ok(EntryRef::Record(RecordRef {
                    timestamp_ns,
                    timestamp_digits,
                    flags,
                    n_fields,
                    numbers: body.rest(),
                    batch,
                }))
            }
            KIND_DEAD_LETTER => {
                let code = body.sized_text()?;
                let reason = body.sized_text()?;
                let source = body.sized_text()?;
                let raw_len = body.varint()?;
                Ok(EntryRef::DeadLetter(DeadLetterRef {
                    code,
                    reason,
                    source: (!source.is_empty()).then_some(source),
                    raw: body.take(raw_len)?,
                }))
            }
            _ => Err(self.error("unknown kind of entry")),
        }
    }

    /// A value and its key.
    pub fn field(&mut self, keys: &'a [Box<str>]) -> Result<FieldRef<'a>, BatchError> {
        let key_index = self.varint()?;
        let Some(key) = keys.get(key_index) else {
            return Err(self.error("key index past the key table"));
        };
        let [ty] = self.array()?;
        let Some(ty) = ValueType::ALL.get(usize::from(ty)) else {
            return Err(self.error("unknown type of value"));
        };
        let value = match ty {
            ValueType::Null => ValueRef::Null,
            ValueType::Bool => ValueRef::Bool(self.array()? != [0]),
            ValueType::Int => ValueRef::Int(i64::from_le_bytes(self.array()?)),
            ValueType::Float => ValueRef::Float(f64::from_bits(u64::from_le_bytes(self.array()?))),
            ValueType::Number => ValueRef::Number(self.sized_text()?),
            ValueType::Str => ValueRef::Str(self.sized_text()?),
            ValueType::Json => ValueRef::Json(self.sized_text()?),
        };
        Ok(FieldRef {
            key_index: u32_of(key_index),
            key,
            value,
        })
    }

    pub fn take(&mut self, len: usize) -> Result<&'a [u8], BatchError> {
        let end = self.at.checked_add(len);
        let Some(taken) = end.and_then(|end| self.bytes.get(self.at..end)) else {
            return Err(self.error("cut short"));
        };
        self.at += len;
        Ok(taken)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], BatchError> {
        match self.take(N)?.first_chunk() {
            Some(array) => Ok(*array),
            None => Err(self.error("cut short")),
        }
    }

    pub fn varint(&mut self) -> Result<usize, BatchError> {
        let mut value = 0_u64;
        for shift in (0..63).step_by(7) {
            let [byte] = self.array()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return usize::try_from(value).map_err(|_| self.error("number too large"));
            }
        }
        Err(self.error("number too long"))
    }

    pub fn text(&mut self, len: usize) -> Result<&'a str, BatchError> {
        let bytes = self.take(len)?;
        simdutf8::basic::from_utf8(bytes).map_err(|_| self.error("not UTF-8"))
    }

    fn sized_text(&mut self) -> Result<&'a str, BatchError> {
        let len = self.varint()?;
        self.text(len)
    }

    pub fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }
}
