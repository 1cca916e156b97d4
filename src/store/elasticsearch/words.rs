//! Cuts texts into words, by the definition in `query::ast`, for a `whitespace` analyzer: lowercase tokens with blanks between them, one JSON string
//! for each text.

use std::borrow::Cow;

use crate::store::elasticsearch::names::any_token;
use crate::store::elasticsearch::plan::IndexPlan;

/// Longer tokens are looked at once more: they may have to become a hash.
const TOKEN_LOOK_BYTES: usize = 32;

/// A comma, where one is due between the elements of a list.
pub fn separate(list: &mut Vec<u8>) {
    if !list.is_empty() {
        list.push(b',');
    }
}

/// Appends the words of a text as one element.
pub fn push_words(any: &mut Vec<u8>, text: &str) {
    let before = any.len();
    separate(any);
    any.push(b'"');
    let start = any.len();
    if text.is_ascii() {
        push_ascii_tokens(any, text.as_bytes());
    } else {
        push_unicode_tokens(any, text);
    }
    if any.len() == start {
        any.truncate(before);
    } else {
        any.push(b'"');
    }
}

/// The same, and for each address one element to `words`.
pub fn push_tokens(
    any: &mut Vec<u8>,
    words: &mut Vec<u8>,
    text: &str,
    ids: &[u32],
    plan: &IndexPlan,
) {
    let before = any.len();
    push_words(any, text);
    let start = before + usize::from(before != 0) + 1;
    let Some(tokens) = any.get(start..any.len().saturating_sub(1)) else {
        return;
    };
    for id in ids {
        let Some(prefix) = plan
            .addresses
            .get(*id as usize)
            .map(|plan| &plan.word_prefix)
        else {
            continue;
        };
        separate(words);
        words.push(b'"');
        // Tokens are short, so looking for the next blank byte by byte is the fastest.
        for token in tokens.split_inclusive(|byte| *byte == b' ') {
            words.reserve(prefix.len() + token.len());
            words.extend_from_slice(prefix);
            words.extend_from_slice(token);
        }
        words.push(b'"');
    }
}

/// Whether each byte is a letter or digit of ASCII.
#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const IS_TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        table[byte as usize] = byte.is_ascii_alphanumeric();
        byte += 1;
    }
    table
};

fn is_token(byte: u8) -> bool {
    IS_TOKEN.get(usize::from(byte)).copied().unwrap_or(false)
}

fn push_ascii_tokens(out: &mut Vec<u8>, text: &[u8]) {
    // A token is followed by at least one other byte, but for the last.
    out.reserve(text.len() + 1);
    let start = out.len();
    let mut rest = text;
    loop {
        let skipped = rest.iter().take_while(|byte| !is_token(**byte)).count();
        rest = rest.get(skipped..).unwrap_or_default();
        let len = rest.iter().take_while(|byte| is_token(**byte)).count();
        if len == 0 {
            return;
        }
        if out.len() != start {
            out.push(b' ');
        }
        let (token, after) = rest.split_at(len);
        let at = out.len();
        out.extend_from_slice(token);
        if let Some(token) = out.get_mut(at..) {
            token.make_ascii_lowercase();
        }
        end_token(out, at);
        rest = after;
    }
}

fn push_unicode_tokens(out: &mut Vec<u8>, text: &str) {
    let start = out.len();
    let mut token_at = None;
    for c in text.chars() {
        if c.is_alphanumeric() {
            if token_at.is_none() {
                if out.len() != start {
                    out.push(b' ');
                }
                token_at = Some(out.len());
            }
            for lower in c.to_lowercase() {
                out.extend_from_slice(lower.encode_utf8(&mut [0; 4]).as_bytes());
            }
        } else if let Some(at) = token_at.take() {
            end_token(out, at);
        }
    }
    if let Some(at) = token_at {
        end_token(out, at);
    }
}

fn end_token(out: &mut Vec<u8>, at: usize) {
    if out.len() - at <= TOKEN_LOOK_BYTES {
        return;
    }
    let token = out
        .get(at..)
        .and_then(|token| std::str::from_utf8(token).ok());
    if let Some(Cow::Owned(hash)) = token.map(any_token) {
        out.truncate(at);
        out.extend_from_slice(hash.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::text;

    #[test]
    fn words_are_those_of_the_query_language() {
        proptest::proptest!(|(text in ".{0,40}|[a-c.İß -]{0,200}", before in proptest::bool::ANY)| {
            let mut list = if before { b"\"x\"".to_vec() } else { Vec::new() };
            push_words(&mut list, &text);
            let json = format!("[{}]", String::from_utf8(list).unwrap());
            let elements: Vec<String> = serde_json::from_str(&json).unwrap();
            let tokens = text::tokens(&text);
            let tokens: Vec<Cow<'_, str>> = tokens.iter().map(|token| any_token(token)).collect();
            let own = &elements[usize::from(before)..];
            if tokens.is_empty() {
                proptest::prop_assert!(own.is_empty());
            } else {
                proptest::prop_assert_eq!(&own[0], &tokens.join(" "));
            }
        });
    }

    #[test]
    fn each_address_gets_its_own_words() {
        let mut plan = IndexPlan::new("i".to_owned(), "w".to_owned(), &serde_json::Value::Null, 10);
        let ids = [plan.address_id("a"), plan.address_id("a\"b c")];
        let (mut any, mut words) = (Vec::new(), Vec::new());
        push_tokens(&mut any, &mut words, "---", &ids, &plan);
        assert!(any.is_empty() && words.is_empty());
        push_tokens(&mut any, &mut words, "One two", &ids, &plan);
        push_tokens(&mut any, &mut words, "3", &ids[..1], &plan);
        assert_eq!(any, b"\"one two\",\"3\"");
        let words: Vec<String> =
            serde_json::from_str(&format!("[{}]", String::from_utf8(words).unwrap())).unwrap();
        assert_eq!(words[0], "a:one a:two");
        assert_eq!(words[1].split(' ').count(), 2);
        assert_eq!(words[2], "a:3");
    }
}
