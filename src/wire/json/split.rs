//! Finds where JSON values end without reading them: brackets are counted and strings are skipped. Validity is the readers' business.

use memchr::{memchr2, memchr2_iter};

/// Where the object or array that `bytes` begins with ends (the index behind its bracket); `None` if it does not end.
pub fn container_end(bytes: &[u8]) -> Option<usize> {
    let mut depth = 0_usize;
    let mut at = 0;
    loop {
        let skipped = bytes
            .get(at..)?
            .iter()
            .position(|b| matches!(b, b'{' | b'}' | b'[' | b']' | b'"'))?;
        at += skipped + 1;
        match bytes.get(at - 1)? {
            b'{' | b'[' => depth += 1,
            b'"' => at = string_end(bytes, at)?,
            _ => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at);
                }
            }
        }
    }
}

/// The index behind the closing quote of a string; `at` is behind its opening quote.
pub fn string_end(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let stop = memchr2(b'"', b'\\', bytes.get(at..)?)?;
        at += stop + 1;
        if bytes.get(at - 1) == Some(&b'"') {
            return Some(at);
        }
        at += 1;
    }
}

/// Opening brackets in `bytes`: an upper bound of its depth.
pub fn opening_brackets(bytes: &[u8]) -> usize {
    memchr2_iter(b'{', b'[', bytes).count()
}
