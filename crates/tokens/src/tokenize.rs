//! The one tokenizer: maximal runs of `char::is_alphanumeric`, lowercased by `char::to_lowercase`.
//!
//! ASCII text goes eight bytes at a time through plain 64-bit arithmetic: its lower-case copy and one bit per byte that says
//! whether it belongs to a token. Other text goes char by char.

use std::borrow::Cow;

use crate::hash::PADDING_BYTES;

const BLOCK: usize = 64;

/// The tokens of `text`, in order.
#[must_use]
pub fn tokens(text: &str) -> Tokens<'_> {
    Tokens { rest: text }
}

#[derive(Clone, Debug)]
pub struct Tokens<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Cow<'a, str>;

    fn next(&mut self) -> Option<Self::Item> {
        let start = self.rest.find(char::is_alphanumeric)?;
        let (_, from) = self.rest.split_at(start);
        let end = from
            .find(|c: char| !c.is_alphanumeric())
            .unwrap_or(from.len());
        let (token, rest) = from.split_at(end);
        self.rest = rest;
        let is_lower = token
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        Some(if is_lower {
            Cow::Borrowed(token)
        } else {
            Cow::Owned(token.chars().flat_map(char::to_lowercase).collect())
        })
    }
}

/// The lower-case copy of one text; reuse it, so that nothing is allocated per text.
#[derive(Default, Debug)]
pub struct Scratch {
    lower: Vec<u8>,
}

impl Scratch {
    /// Keeps the memory of the largest text seen; this gives it back.
    pub fn shrink_to(&mut self, size_bytes: usize) {
        self.lower.truncate(size_bytes);
        self.lower.shrink_to(size_bytes);
    }
}

/// Calls `f` with each token of `text`, in order: the same as [`tokens`], without allocating.
#[expect(
    clippy::indexing_slicing,
    reason = "`each_token` yields ranges of its own buffer"
)]
pub fn for_each_token(text: &str, scratch: &mut Scratch, mut f: impl FnMut(&[u8])) {
    each_token(text, scratch, |buffer, start, len| {
        f(&buffer[start..start + len]);
    });
}

/// Calls `f(buffer, start, len)`; `PADDING_BYTES` more bytes follow each token in the buffer.
#[inline]
pub fn each_token(text: &str, scratch: &mut Scratch, f: impl FnMut(&[u8], usize, usize)) {
    if text.is_ascii() {
        each_token_ascii(text.as_bytes(), &mut scratch.lower, f);
    } else {
        each_token_unicode(text, &mut scratch.lower, f);
    }
}

#[expect(
    clippy::indexing_slicing,
    reason = "the buffer is made at least as long as the blocks and the padding"
)]
#[inline]
fn each_token_ascii(text: &[u8], lower: &mut Vec<u8>, mut f: impl FnMut(&[u8], usize, usize)) {
    let size = text.len().next_multiple_of(BLOCK) + BLOCK + PADDING_BYTES;
    if lower.len() < size {
        lower.resize(size, 0);
    }
    // Length of the run that reaches the end of the last block.
    let mut open = 0;
    let mut base = 0;
    while base < text.len() {
        let mut mask = match text[base..].first_chunk::<BLOCK>() {
            Some(block) => lower_block(block, &mut lower[base..base + BLOCK]),
            None => {
                let mut block = [0; BLOCK];
                let rest = &text[base..];
                block[..rest.len()].copy_from_slice(rest);
                lower_block(&block, &mut lower[base..base + BLOCK])
            }
        };
        if 0 < open {
            let len = mask.trailing_ones() as usize;
            if len == BLOCK {
                open += BLOCK;
                base += BLOCK;
                continue;
            }
            f(lower, base - open, open + len);
            open = 0;
            mask &= u64::MAX << len;
        }
        while mask != 0 {
            let start = mask.trailing_zeros() as usize;
            let len = (mask >> start).trailing_ones() as usize;
            if start + len == BLOCK {
                open = len;
                break;
            }
            f(lower, base + start, len);
            mask &= u64::MAX << (start + len);
        }
        base += BLOCK;
    }
    if 0 < open {
        f(lower, base - open, open);
    }
}

/// Writes the lower-case block; bit `i` of the answer: byte `i` is a letter or a digit. All bytes are below 128.
#[inline]
fn lower_block(block: &[u8; BLOCK], lower: &mut [u8]) -> u64 {
    const HIGH: u64 = repeat(0x80);
    let mut mask = 0;
    for (index, (from, to)) in block
        .as_chunks::<8>()
        .0
        .iter()
        .zip(lower.as_chunks_mut::<8>().0)
        .enumerate()
    {
        let word = u64::from_le_bytes(*from);
        let is_upper = (word + not_below(b'A')) & !(word + not_below(b'Z' + 1)) & HIGH;
        let word = word | is_upper >> 2;
        *to = word.to_le_bytes();
        let is_letter = (word + not_below(b'a')) & !(word + not_below(b'z' + 1));
        let is_digit = (word + not_below(b'0')) & !(word + not_below(b'9' + 1));
        let marks = (is_letter | is_digit) & HIGH;
        // Gathers the eight marks in the top byte.
        let gathered = (marks >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56;
        mask |= gathered << (8 * index);
    }
    mask
}

const fn repeat(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
}

/// What to add to bytes below 128 so that the top bit says "not below `limit`".
const fn not_below(limit: u8) -> u64 {
    repeat(0x80 - limit)
}

fn each_token_unicode(text: &str, lower: &mut Vec<u8>, mut f: impl FnMut(&[u8], usize, usize)) {
    lower.clear();
    // One token at a time, and room for the padding behind it.
    let mut emit = |lower: &mut Vec<u8>| {
        let len = lower.len();
        if 0 < len {
            lower.resize(len + PADDING_BYTES, 0);
            f(lower, 0, len);
            lower.clear();
        }
    };
    for c in text.chars() {
        if c.is_ascii() {
            if c.is_ascii_alphanumeric() {
                lower.push(c.to_ascii_lowercase() as u8);
            } else {
                emit(lower);
            }
        } else if c.is_alphanumeric() {
            for part in c.to_lowercase() {
                lower.extend_from_slice(part.encode_utf8(&mut [0; 4]).as_bytes());
            }
        } else {
            emit(lower);
        }
    }
    emit(lower);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition, char by char.
    fn naive(text: &str) -> Vec<String> {
        text.split(|c: char| !c.is_alphanumeric())
            .filter(|run| !run.is_empty())
            .map(|run| run.chars().flat_map(char::to_lowercase).collect())
            .collect()
    }

    fn check(text: &str) {
        let expected = naive(text);
        let lazy: Vec<String> = tokens(text).map(Cow::into_owned).collect();
        assert_eq!(lazy, expected);
        let mut scratch = Scratch::default();
        for _ in 0..2 {
            let mut hot = Vec::new();
            for_each_token(text, &mut scratch, |token| {
                hot.push(String::from_utf8(token.to_vec()).unwrap());
            });
            assert_eq!(hot, expected);
        }
    }

    proptest! {
        #[test]
        fn any_text(text in ".{0,200}") {
            check(&text);
        }

        #[test]
        fn ascii(text in "[ -~\t\n]{0,300}") {
            check(&text);
        }

        #[test]
        fn long_runs(lens in prop::collection::vec((0_usize..140, 0_usize..3), 0..6)) {
            let text: String = lens.iter().map(|(run, gap)| "aB3".repeat(*run) + &"-".repeat(*gap)).collect();
            check(&text);
        }
    }

    #[test]
    fn every_ascii_byte_and_some_that_grow() {
        let all: String = (0..128_u8).map(char::from).collect();
        check(&all);
        check("İstanbul ẞtraße ΌΣΟΣ K 东京 ١٢٣ naïve\u{301} \0a\0");
        check(&"x".repeat(70_000));
        check(&"é".repeat(70_000));
    }

    #[test]
    fn lower_case_is_borrowed() {
        let cows: Vec<Cow<'_, str>> = tokens("abc Def 12").collect();
        assert!(matches!(
            cows.as_slice(),
            [Cow::Borrowed("abc"), Cow::Owned(_), Cow::Borrowed("12")]
        ));
    }
}
