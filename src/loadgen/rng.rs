//! Random numbers that never change: line `n` of seed `s` is the same on every machine and in every release.
//!
//! SplitMix64 started from (seed, n). Each line has its own generator, so lines can be made in any order and by any
//! number of threads, and a run can go on where another stopped.

/// Odd constant of SplitMix64: 2^64 divided by the golden ratio.
const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

#[derive(Clone, Debug)]
pub struct Rng {
    state: u64,
}

impl Rng {
    /// The generator of line `index` under `seed`.
    pub fn of_line(seed: u64, index: u64) -> Self {
        Self {
            state: mix(seed.wrapping_add(GAMMA)) ^ mix(index.wrapping_mul(GAMMA).wrapping_add(1)),
        }
    }

    pub fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GAMMA);
        mix(self.state)
    }

    /// Uniform in [0, bound); 0 when `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.draw()) * u128::from(bound)) >> 64) as u64
    }

    /// Small numbers are frequent, large ones rare: the smallest of three draws.
    pub fn skewed_below(&mut self, bound: u64) -> u64 {
        let (a, b, c) = (self.below(bound), self.below(bound), self.below(bound));
        a.min(b).min(c)
    }

    /// True for `share` in 10,000.
    pub fn chance(&mut self, share: u64) -> bool {
        self.below(10_000) < share
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "`below` stays under the length; an empty list is a bug of ours"
    )]
    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len() as u64) as usize]
    }

    /// Like `pick`; the first items are the frequent ones.
    #[expect(
        clippy::indexing_slicing,
        reason = "`skewed_below` stays under the length; an empty list is a bug of ours"
    )]
    pub fn pick_skewed<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.skewed_below(items.len() as u64) as usize]
    }
}

fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::Rng;

    /// These numbers may never change: recorded measurements name a seed and a count.
    #[test]
    fn the_sequence_is_pinned() {
        let mut rng = Rng::of_line(1, 0);
        let first: Vec<u64> = (0..3).map(|_| rng.below(1_000_000)).collect();
        let mut again = Rng::of_line(1, 0);
        let second: Vec<u64> = (0..3).map(|_| again.below(1_000_000)).collect();
        assert_eq!(first, second);
        assert_ne!(Rng::of_line(1, 1).draw(), Rng::of_line(1, 0).draw());
        assert_ne!(Rng::of_line(2, 0).draw(), Rng::of_line(1, 0).draw());
    }

    #[test]
    fn draws_are_spread_evenly() {
        let mut counts = [0_u32; 10];
        for index in 0..100_000 {
            counts[Rng::of_line(7, index).below(10) as usize] += 1;
        }
        assert!(
            counts.iter().all(|count| (9_500..10_500).contains(count)),
            "{counts:?}"
        );
    }
}
