//! Runs of bits, least significant first: fixed width, Elias gamma and Rice codes.

#[derive(Default, Debug)]
pub struct BitWriter {
    bytes: Vec<u8>,
    pending: u64,
    n_pending: u32,
}

impl BitWriter {
    /// `value` has no bit above `width`; `width` ≤ 56.
    #[inline]
    pub fn write(&mut self, value: u64, width: u32) {
        debug_assert!(width <= 56 && value >> width == 0);
        self.pending |= value << self.n_pending;
        self.n_pending += width;
        if 64 <= self.n_pending {
            self.bytes.extend_from_slice(&self.pending.to_le_bytes());
            self.n_pending -= 64;
            self.pending = value >> (width - self.n_pending);
        }
    }

    /// `value` ≥ 1 and below 2^28.
    #[inline]
    pub fn write_gamma(&mut self, value: u32) {
        let log = value.ilog2();
        self.write(1 << log, log + 1);
        self.write(u64::from(value) & !(1 << log), log);
    }

    #[inline]
    pub fn write_rice(&mut self, value: u64, k: u32) {
        let mut quotient = value >> k;
        while 24 <= quotient {
            self.write(0, 24);
            quotient -= 24;
        }
        let low = value & ((1 << k) - 1);
        self.write(
            1 << quotient | low << (quotient + 1),
            quotient as u32 + 1 + k,
        );
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
        self.pending = 0;
        self.n_pending = 0;
    }

    /// All bytes, the last one padded with zero bits. What is written next begins a new byte.
    pub fn bytes(&mut self) -> &[u8] {
        let n_bytes = self.n_pending.div_ceil(8) as usize;
        self.bytes
            .extend(self.pending.to_le_bytes().into_iter().take(n_bytes));
        self.pending = 0;
        self.n_pending = 0;
        &self.bytes
    }
}

/// Reading past the end yields zeros; `is_past_end` tells.
#[derive(Clone, Debug)]
pub struct BitReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> BitReader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub fn is_past_end(&self) -> bool {
        self.bytes.len() * 8 < self.at
    }

    /// At least 57 bits from here on, in the low end.
    #[inline]
    fn peek(&self) -> u64 {
        let start = self.at / 8;
        let word = match self.bytes.get(start..).and_then(<[u8]>::first_chunk::<8>) {
            Some(chunk) => u64::from_le_bytes(*chunk),
            None => self.peek_last(start),
        };
        word >> (self.at % 8)
    }

    #[cold]
    fn peek_last(&self, start: usize) -> u64 {
        let rest = self.bytes.get(start..).unwrap_or_default();
        rest.iter()
            .rev()
            .fold(0, |word, byte| word << 8 | u64::from(*byte))
    }

    /// `width` ≤ 56.
    #[inline]
    pub fn read(&mut self, width: u32) -> u64 {
        let value = self.peek() & ((1 << width) - 1);
        self.at += width as usize;
        value
    }

    /// `None` for what no writer made.
    #[inline]
    pub fn read_gamma(&mut self) -> Option<u32> {
        let word = self.peek();
        let log = word.trailing_zeros();
        if 28 <= log {
            return None;
        }
        self.at += 2 * log as usize + 1;
        let low = (word >> (log + 1)) as u32 & ((1 << log) - 1);
        Some(1 << log | low)
    }

    /// `None` where the value is over `max`.
    #[inline]
    pub fn read_rice(&mut self, k: u32, max: u64) -> Option<u64> {
        let mut quotient = 0;
        loop {
            let word = self.peek();
            let zeros = word.trailing_zeros();
            if zeros < 32 && zeros + k < 56 {
                self.at += (zeros + 1 + k) as usize;
                let low = word >> (zeros + 1) & ((1 << k) - 1);
                let value = (quotient + u64::from(zeros)) << k | low;
                return (value <= max).then_some(value);
            }
            let step = zeros.min(24);
            if step < 24 {
                // The remainder does not fit in one look: take the quotient first.
                self.at += step as usize + 1;
                let low = self.read(k);
                let value = (quotient + u64::from(step)) << k | low;
                return (value <= max).then_some(value);
            }
            self.at += 24;
            quotient += 24;
            if max >> k < quotient || self.is_past_end() {
                return None;
            }
        }
    }
}

/// The Rice parameter for `n` ≥ 1 gaps that sum up to about `universe`.
#[inline]
pub fn rice_k(universe: u64, n: u64) -> u32 {
    (universe * 31 / (32 * n)).max(1).ilog2()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(items in prop::collection::vec((0_u8..3, 0_u64..1 << 20, 0_u32..21), 0..100)) {
            let mut writer = BitWriter::default();
            for (kind, value, width) in &items {
                match kind {
                    0 => writer.write(value & ((1 << width) - 1), *width),
                    1 => writer.write_gamma(*value as u32 + 1),
                    _ => writer.write_rice(*value, (*width).max(8)),
                }
            }
            let bytes = writer.bytes().to_vec();
            let mut reader = BitReader::new(&bytes);
            for (kind, value, width) in &items {
                match kind {
                    0 => prop_assert_eq!(reader.read(*width), value & ((1 << width) - 1)),
                    1 => prop_assert_eq!(reader.read_gamma(), Some(*value as u32 + 1)),
                    _ => prop_assert_eq!(reader.read_rice((*width).max(8), 1 << 20), Some(*value)),
                }
            }
            prop_assert!(!reader.is_past_end());
        }

        #[test]
        fn any_bytes_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..40), k in 0_u32..30) {
            let mut reader = BitReader::new(&bytes);
            while !reader.is_past_end() {
                reader.read(9);
                let _ = reader.read_gamma();
                let _ = reader.read_rice(k, 1 << 30);
            }
        }
    }
}
