//! The hash of a token. It is stored: it may never change within a format version.
//!
//! Blocks of 16 bytes, the last one padded with zeros, go through a folded 64 × 64 → 128 bit multiplication, keyed by the
//! index's seed so that nobody who does not know the seed can make two tokens collide. The length is part of the hash.

/// Zero bytes that must follow a token in a padded buffer.
pub const PADDING_BYTES: usize = 16;

const K0: u64 = 0x9e37_79b9_7f4a_7c15;
const K1: u64 = 0xd1b5_4a32_d192_ed03;
const K2: u64 = 0xa24b_aed4_963e_e407;

/// For `n` remaining bytes of a 16-byte block: which bits of its low and high half count.
#[expect(
    clippy::indexing_slicing,
    reason = "n is at most 16, checked while compiling"
)]
const MASKS: [(u64, u64); 17] = {
    let mut masks = [(0, 0); 17];
    let mut n = 1;
    while n <= 16 {
        masks[n] = if n <= 8 {
            (u64::MAX >> (64 - 8 * n), 0)
        } else {
            (u64::MAX, u64::MAX >> (128 - 8 * n))
        };
        n += 1;
    }
    masks
};

#[derive(Clone, Copy, Debug)]
pub struct Hasher {
    key0: u64,
    key1: u64,
}

impl Hasher {
    pub fn new(seed: u64) -> Self {
        let key0 = fold(seed ^ K0, K1);
        Self {
            key0,
            key1: fold(key0 ^ seed, K2) ^ K0,
        }
    }

    pub fn hash(self, token: &[u8]) -> u64 {
        let mut state = self.start(token.len());
        let mut chunks = token.chunks_exact(16);
        for chunk in &mut chunks {
            let mut block = [0; 16];
            block.copy_from_slice(chunk);
            let (low, high) = halves(&block);
            state = self.step(state, low, high);
        }
        let rest = chunks.remainder();
        if !rest.is_empty() || token.is_empty() {
            let mut block = [0; 16];
            for (to, from) in block.iter_mut().zip(rest) {
                *to = *from;
            }
            let (low, high) = halves(&block);
            state = self.step(state, low, high);
        }
        finish(state)
    }

    /// The same hash for `buffer[start..start + len]`, where `PADDING_BYTES` more bytes (of any value) follow. `len` is not 0.
    #[expect(
        clippy::indexing_slicing,
        reason = "the caller's contract; a breach panics, it never reads elsewhere"
    )]
    #[inline]
    pub fn hash_padded(self, buffer: &[u8], start: usize, len: usize) -> u64 {
        let mut state = self.start(len);
        let mut at = start;
        let mut left = len;
        loop {
            let mut block = [0; 16];
            block.copy_from_slice(&buffer[at..at + 16]);
            let (low, high) = halves(&block);
            if left <= 16 {
                let (mask_low, mask_high) = MASKS[left];
                return finish(self.step(state, low & mask_low, high & mask_high));
            }
            state = self.step(state, low, high);
            at += 16;
            left -= 16;
        }
    }

    #[inline]
    fn start(self, len: usize) -> u64 {
        (len as u64).wrapping_mul(K2)
    }

    #[inline]
    fn step(self, state: u64, low: u64, high: u64) -> u64 {
        fold(low ^ state ^ self.key0, high ^ self.key1).wrapping_add(state.rotate_left(23))
    }
}

#[inline]
fn finish(state: u64) -> u64 {
    fold(state ^ K1, K0)
}

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

#[inline]
fn halves(block: &[u8; 16]) -> (u64, u64) {
    let all = u128::from_le_bytes(*block);
    (all as u64, (all >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padded_and_plain_agree() {
        let hasher = Hasher::new(7);
        let text: Vec<u8> = (0..200_u8).collect();
        let mut padded = text.clone();
        padded.extend([0xff; PADDING_BYTES]);
        for start in [0, 3] {
            for len in 1..150 {
                let plain = hasher.hash(&text[start..start + len]);
                assert_eq!(plain, hasher.hash_padded(&padded, start, len), "{len}");
            }
        }
    }

    #[test]
    fn the_hash_is_fixed() {
        let hash = |seed, text: &str| Hasher::new(seed).hash(text.as_bytes());
        assert_eq!(hash(0, ""), FIXED[0]);
        assert_eq!(hash(1, "error"), FIXED[1]);
        assert_eq!(hash(1, "5770385fc22a43e0bf4c06f5698ffbd9"), FIXED[2]);
    }

    const FIXED: [u64; 3] = [
        9_565_882_964_120_541_448,
        8_435_878_806_925_092_188,
        17278978378430454339,
    ];

    #[test]
    fn bits_are_even() {
        let hasher = Hasher::new(1);
        let mut counts = [0_u32; 64];
        for n in 0..10_000 {
            let hash = hasher.hash(n.to_string().as_bytes());
            for (bit, count) in counts.iter_mut().enumerate() {
                *count += u32::from(hash >> bit & 1 == 1);
            }
        }
        assert!(
            counts.iter().all(|count| (4_700..5_300).contains(count)),
            "{counts:?}"
        );
    }
}
