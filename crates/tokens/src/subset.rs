//! A non-empty ascending subset of `0..universe`, in few bits: the pages of a token, the rows of a page.
//!
//! Layout: the count `n` as Elias gamma; then, by `n` alone: nothing (all), one number of fixed width (`n` = 1), a plain
//! bitmap (between a third and two thirds), or Rice-coded gaps of the members (fewer) or of the missing ones (more).

use crate::bits::{BitReader, BitWriter, rice_k};

enum Form {
    All,
    One { width: u32 },
    Bitmap,
    Gaps { k: u32 },
    Missing { count: u32, k: u32 },
}

#[inline]
fn form(n: u32, universe: u32) -> Form {
    if n == universe {
        Form::All
    } else if n == 1 {
        Form::One {
            width: width(universe),
        }
    } else if n <= universe / 3 {
        Form::Gaps {
            k: rice_k(universe.into(), n.into()),
        }
    } else if universe - n <= universe / 3 {
        let count = universe - n;
        Form::Missing {
            count,
            k: rice_k(universe.into(), count.into()),
        }
    } else {
        Form::Bitmap
    }
}

/// About how many bits a subset of `n` takes, never 0.
pub fn estimate_bits(n: u32, universe: u32) -> u64 {
    let fewer = n.min(universe.saturating_sub(n));
    let log = |of: u32| u64::from(of.max(1).ilog2());
    let members = u64::from(fewer) * (log(universe / fewer.max(1)) + 2);
    2 * log(n) + 1 + members.min(universe.into())
}

/// Bits that any number below `universe` ≥ 1 fits in.
fn width(universe: u32) -> u32 {
    u32::BITS - (universe - 1).leading_zeros()
}

/// `members` are ascending, not empty, all below `universe`; `universe` ≤ 65,536.
pub fn write(bits: &mut BitWriter, universe: u32, members: &[u16]) {
    let n = members.len() as u32;
    bits.write_gamma(n);
    match form(n, universe) {
        Form::All => {}
        Form::One { width } => {
            let only = members.first().copied().unwrap_or_default();
            bits.write(only.into(), width);
        }
        Form::Gaps { k } => {
            let mut next = 0;
            for member in members {
                let member = u64::from(*member);
                bits.write_rice(member - next, k);
                next = member + 1;
            }
        }
        Form::Missing { k, .. } => {
            let mut next = 0;
            let mut gap = 0;
            for member in members
                .iter()
                .map(|m| u64::from(*m))
                .chain([universe.into()])
            {
                for _missing in next..member {
                    bits.write_rice(gap, k);
                    gap = 0;
                }
                gap += 1;
                next = member + 1;
            }
        }
        Form::Bitmap => {
            let mut members = members.iter().map(|m| u32::from(*m)).peekable();
            let mut start = 0;
            while start < universe {
                let len = (universe - start).min(32);
                let mut word = 0_u64;
                while let Some(member) = members.next_if(|m| *m < start + len) {
                    word |= 1 << (member - start);
                }
                bits.write(word, len);
                start += len;
            }
        }
    }
}

/// Calls `f` with ascending `(first, count)` runs. `None`: no writer made these bits.
#[inline]
pub fn read(bits: &mut BitReader<'_>, universe: u32, mut f: impl FnMut(u32, u32)) -> Option<u32> {
    let n = bits.read_gamma().filter(|n| *n <= universe)?;
    match form(n, universe) {
        Form::All => f(0, universe),
        Form::One { width } => {
            let member = bits.read(width) as u32;
            if universe <= member {
                return None;
            }
            f(member, 1);
        }
        Form::Gaps { k } => {
            let mut next = 0;
            for _ in 0..n {
                let member = next + bits.read_rice(k, universe.into())? as u32;
                if universe <= member {
                    return None;
                }
                f(member, 1);
                next = member + 1;
            }
        }
        Form::Missing { count, k } => {
            let mut next = 0;
            for _ in 0..count {
                let gap = bits.read_rice(k, universe.into())? as u32;
                if universe <= next + gap {
                    return None;
                }
                if 0 < gap {
                    f(next, gap);
                }
                next += gap + 1;
            }
            if next < universe {
                f(next, universe - next);
            }
        }
        Form::Bitmap => {
            let mut start = 0;
            while start < universe {
                let len = (universe - start).min(32);
                let mut word = bits.read(len);
                while word != 0 {
                    f(start + word.trailing_zeros(), 1);
                    word &= word - 1;
                }
                start += len;
            }
        }
    }
    (!bits.is_past_end()).then_some(n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn subsets_come_back(universe in 1_u32..3_000, density in 0.0..1.0_f64, seeds in prop::collection::vec(0.0..1.0_f64, 3_000)) {
            let mut members: BTreeSet<u16> = (0..universe)
                .filter(|i| seeds[*i as usize] < density)
                .map(|i| i as u16)
                .collect();
            members.insert((universe - 1) as u16);
            let members: Vec<u16> = members.into_iter().collect();
            let mut writer = BitWriter::default();
            write(&mut writer, universe, &members);
            writer.write(5, 3);
            let bytes = writer.bytes().to_vec();
            let mut reader = BitReader::new(&bytes);
            let mut back = Vec::new();
            let n = read(&mut reader, universe, |first, count| back.extend((first..first + count).map(|m| m as u16)));
            prop_assert_eq!(n, Some(members.len() as u32));
            prop_assert_eq!(reader.read(3), 5);
            prop_assert_eq!(back, members);
        }

        #[test]
        fn any_bytes_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..80), universe in 1_u32..2_000) {
            let _ = read(&mut BitReader::new(&bytes), universe, |first, count| assert!(first + count <= universe));
        }
    }
}
