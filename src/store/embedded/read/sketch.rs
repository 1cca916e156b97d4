//! How many different texts there are: exactly while they fit, by a HyperLogLog sketch (standard error 0.8 %) after that.
//!
//! Texts are kept as 128-bit hashes: that two of them share one is far less likely than a fault of the machine.

use hashbrown::HashSet;
use xxhash_rust::xxh3::xxh3_128;

/// Registers are 2^14 bytes.
const REGISTER_BITS: u32 = 14;

/// Bytes that one exact text costs in the set.
pub const EXACT_BYTES: usize = 24;

#[derive(Clone, Default)]
pub struct Distinct {
    exact: HashSet<u128, ahash::RandomState>,
    /// Empty while exact.
    registers: Vec<u8>,
}

impl Distinct {
    /// True if it is new, as far as known.
    pub fn add(&mut self, text: &str, exact_max: usize) -> bool {
        self.add_hash(xxh3_128(text.as_bytes()), exact_max)
    }

    fn add_hash(&mut self, hash: u128, exact_max: usize) -> bool {
        if !self.registers.is_empty() {
            self.register(hash);
            return false;
        }
        let is_new = self.exact.insert(hash);
        if exact_max < self.exact.len() {
            self.registers = vec![0; 1 << REGISTER_BITS];
            for hash in std::mem::take(&mut self.exact) {
                self.register(hash);
            }
        }
        is_new
    }

    fn register(&mut self, hash: u128) {
        let high = hash.unbounded_shr(128 - REGISTER_BITS);
        let index = usize::try_from(high).unwrap_or(0);
        let zeros = (hash.unbounded_shl(REGISTER_BITS))
            .leading_zeros()
            .min(127 - REGISTER_BITS);
        let rank = u8::try_from(zeros + 1).unwrap_or(u8::MAX);
        if let Some(register) = self.registers.get_mut(index) {
            *register = rank.max(*register);
        }
    }

    pub fn merge(&mut self, other: Self, exact_max: usize) {
        if other.registers.is_empty() {
            for hash in other.exact {
                self.add_hash(hash, exact_max);
            }
            return;
        }
        let own = std::mem::replace(self, other);
        if own.registers.is_empty() {
            for hash in own.exact {
                self.register(hash);
            }
        } else {
            for (register, other) in self.registers.iter_mut().zip(own.registers) {
                *register = other.max(*register);
            }
        }
    }

    pub fn size_bytes(&self) -> usize {
        self.exact.len() * EXACT_BYTES + self.registers.len()
    }

    pub fn is_exact(&self) -> bool {
        self.registers.is_empty()
    }

    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an estimate, far below 2^53"
    )]
    pub fn count(&self) -> u64 {
        if self.is_exact() {
            return self.exact.len() as u64;
        }
        let m = self.registers.len() as f64;
        let sum: f64 = self.registers.iter().map(|r| (-f64::from(*r)).exp2()).sum();
        let alpha = 0.7213 / (1.0 + 1.079 / m);
        let estimate = alpha * m * m / sum;
        let n_empty = self.registers.iter().filter(|r| **r == 0).count() as f64;
        let is_small = estimate <= 2.5 * m && 0.0 < n_empty;
        let estimate = if is_small {
            m * (m / n_empty).ln()
        } else {
            estimate
        };
        estimate.round() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_exact_and_then_within_three_percent() {
        for (n, exact_max) in [(0, 10), (10, 10), (11, 10), (3_000, 100), (200_000, 1_000)] {
            let mut halves = [Distinct::default(), Distinct::default()];
            for i in 0..n {
                for half in &mut halves {
                    half.add(&format!("user-{i}"), exact_max);
                }
                let mine = i % 2;
                halves[mine].add(&format!("user-{i}"), exact_max);
            }
            let [mut one, other] = halves;
            one.merge(other, exact_max);
            assert_eq!(one.is_exact(), n <= exact_max);
            let error = one.count().abs_diff(n as u64);
            let allowed = if one.is_exact() {
                0
            } else {
                1 + n as u64 * 3 / 100
            };
            assert!(error <= allowed, "{n}: {}", one.count());
        }
    }
}
