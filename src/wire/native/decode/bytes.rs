//! What stands before the text: byte order marks and UTF-16.

use std::borrow::Cow;

/// The body without its byte order mark, as UTF-8 if it was UTF-16 (with a mark, or unmistakable without).
pub(super) fn without_mark(body: &[u8]) -> Cow<'_, [u8]> {
    match body {
        [0xef, 0xbb, 0xbf, rest @ ..] => Cow::Borrowed(rest),
        [0xff, 0xfe, rest @ ..] => Cow::Owned(from_utf16(rest, u16::from_le_bytes)),
        [0xfe, 0xff, rest @ ..] => Cow::Owned(from_utf16(rest, u16::from_be_bytes)),
        // Two ASCII characters, the first of a kind that no binary begins with.
        [
            b'{' | b'[' | b'"' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z',
            0,
            0x09..=0x7e,
            0,
            ..,
        ] => Cow::Owned(from_utf16(body, u16::from_le_bytes)),
        [
            0,
            b'{' | b'[' | b'"' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z',
            0,
            0x09..=0x7e,
            ..,
        ] => Cow::Owned(from_utf16(body, u16::from_be_bytes)),
        _ => Cow::Borrowed(body),
    }
}

/// Half pairs become U+FFFD, an odd byte at the end too.
fn from_utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Vec<u8> {
    let (pairs, odd) = bytes.as_chunks::<2>();
    let units = pairs.iter().map(|pair| unit(*pair));
    let mut text: String = char::decode_utf16(units)
        .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect();
    if !odd.is_empty() {
        text.push(char::REPLACEMENT_CHARACTER);
    }
    text.into_bytes()
}
