//! Writes the pieces of JSON text: strings, numbers and values. Everything that answers in JSON by hand uses these.

use crate::record::ValueRef;

/// Appends `text` as a JSON string.
pub fn push_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    loop {
        let (plain, more) = rest.split_at(plain_len(rest));
        out.extend_from_slice(plain);
        let Some((byte, more)) = more.split_first() else {
            break;
        };
        let escape = escape_of(*byte);
        out.push(b'\\');
        out.push(escape);
        if escape == b'u' {
            out.extend_from_slice(b"00");
            out.push(hex_digit(byte >> 4));
            out.push(hex_digit(byte & 15));
        }
        rest = more;
    }
    out.push(b'"');
}

/// How many bytes come before the first one to be escaped; eight are looked at together.
fn plain_len(bytes: &[u8]) -> usize {
    let (words, tail) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let found = to_be_escaped(u64::from_le_bytes(*word));
        if found != 0 {
            return index * 8 + found.trailing_zeros() as usize / 8;
        }
    }
    let plain = tail.iter().take_while(|byte| escape_of(**byte) == 0);
    words.len() * 8 + plain.count()
}

/// The highest bit of the lowest byte that is below 0x20, `"` or `\`; bits of higher bytes mean nothing once there is one.
fn to_be_escaped(word: u64) -> u64 {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const HIGHEST: u64 = ONES << 7;
    let below = |limit: u64, word: u64| word.wrapping_sub(ONES * limit) & !word;
    let is = |byte: u8| below(1, word ^ (ONES * u64::from(byte)));
    (below(0x20, word) | is(b'"') | is(b'\\')) & HIGHEST
}

/// The letter of a byte's escape, 0 for none.
fn escape_of(byte: u8) -> u8 {
    ESCAPES.get(usize::from(byte)).copied().unwrap_or(0)
}

/// Appends a value; texts of numbers and of JSON go as they are.
pub fn push_value(out: &mut Vec<u8>, value: ValueRef<'_>) {
    match value {
        ValueRef::Null => out.extend_from_slice(b"null"),
        ValueRef::Bool(true) => out.extend_from_slice(b"true"),
        ValueRef::Bool(false) => out.extend_from_slice(b"false"),
        ValueRef::Int(integer) => {
            out.extend_from_slice(itoa::Buffer::new().format(integer).as_bytes());
        }
        ValueRef::Float(float) if float.is_finite() => {
            out.extend_from_slice(zmij::Buffer::new().format_finite(float).as_bytes());
        }
        ValueRef::Float(_) => out.extend_from_slice(b"null"),
        ValueRef::Number(text) | ValueRef::Json(text) => out.extend_from_slice(text.as_bytes()),
        ValueRef::Str(text) => push_string(out, text),
    }
}

/// For each byte the letter of its escape, 0 for none.
#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const ESCAPES: [u8; 256] = {
    let mut escapes = [0; 256];
    let mut control = 0;
    while control < 0x20 {
        escapes[control] = b'u';
        control += 1;
    }
    escapes[0x08] = b'b';
    escapes[b'\t' as usize] = b't';
    escapes[b'\n' as usize] = b'n';
    escapes[0x0c] = b'f';
    escapes[b'\r' as usize] = b'r';
    escapes[b'"' as usize] = b'"';
    escapes[b'\\' as usize] = b'\\';
    escapes
};

fn hex_digit(nibble: u8) -> u8 {
    if nibble < 10 {
        b'0' + nibble
    } else {
        b'a' + nibble - 10
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str) {
        let mut out = Vec::new();
        push_string(&mut out, text);
        let expected = serde_json::to_string(text).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn every_character_is_escaped_or_not_wherever_it_stands() {
        let characters = (0..0x100)
            .filter_map(char::from_u32)
            .chain(['\u{7ff}', '€', '😀']);
        for character in characters {
            for before in 0..17 {
                let begin = "x".repeat(before);
                check(&format!("{begin}{character}"));
                check(&format!(
                    "{begin}{character}rest that is longer than a word"
                ));
                check(&format!("{begin}{character}{character}\u{1f} \"\\"));
            }
        }
    }
}
