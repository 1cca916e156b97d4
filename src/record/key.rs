//! Field keys and addresses.
//!
//! The **key** of a leaf is its path with `.` between segments; inside a segment `.` is written `\.` and `\` is `\\`. So
//! `{"http":{"status":1}}` has the key `http.status` and `{"http.status":1}` the key `http\.status`.
//! The **address** is what people ask for: the key without escapes. Both of the above have the address `http.status`.

use std::borrow::Cow;

/// Appends `segment` to `key`, with the separator where one is due.
pub fn push_segment(key: &mut String, segment: &str, is_first: bool) {
    if !is_first {
        key.push('.');
    }
    if segment.bytes().any(|b| b == b'.' || b == b'\\') {
        for c in segment.chars() {
            if c == '.' || c == '\\' {
                key.push('\\');
            }
            key.push(c);
        }
    } else {
        key.push_str(segment);
    }
}

/// The address of a key: the same string where nothing is escaped, which is nearly always.
pub fn address(key: &str) -> Cow<'_, str> {
    if !key.contains('\\') {
        return Cow::Borrowed(key);
    }
    let mut address = String::with_capacity(key.len());
    let mut chars = key.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => address.extend(chars.next()),
            _ => address.push(c),
        }
    }
    Cow::Owned(address)
}

/// The path segments of a key, unescaped, outermost first.
pub fn segments(key: &str) -> Vec<Cow<'_, str>> {
    if !key.contains('\\') {
        return key.split('.').map(Cow::Borrowed).collect();
    }
    let mut segments = Vec::new();
    let mut segment = String::new();
    let mut chars = key.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => segment.extend(chars.next()),
            '.' => segments.push(Cow::Owned(std::mem::take(&mut segment))),
            _ => segment.push(c),
        }
    }
    segments.push(Cow::Owned(segment));
    segments
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key_of(path: &[&str]) -> String {
        let mut key = String::new();
        for (index, segment) in path.iter().enumerate() {
            push_segment(&mut key, segment, index == 0);
        }
        key
    }

    #[test]
    fn a_key_keeps_the_path_and_an_address_forgets_it() {
        for path in [
            &["a"][..],
            &["http", "status"],
            &["http.status"],
            &["a\\", ".b", ""],
            &[""],
            &["ü", "\\."],
        ] {
            let key = key_of(path);
            assert_eq!(segments(&key), path, "{key}");
            assert_eq!(address(&key), path.join("."), "{key}");
        }
        assert_ne!(key_of(&["http", "status"]), key_of(&["http.status"]));
    }
}
