//! Tokens inside a text: whether it holds a phrase. The definition of a token stands in `ast`.

/// The tokens of `text`, lowercased.
pub fn tokens(text: &str) -> Vec<String> {
    Tokens { rest: text }.map(lowercase).collect()
}

/// `text` lowercased character by character.
pub fn lowercase(text: &str) -> String {
    text.chars().flat_map(char::to_lowercase).collect()
}

/// True if `a` and `b` are the same but for case; `b` is lowercase already.
pub fn equals_lowercase(a: &str, b: &str) -> bool {
    if a.is_ascii() {
        a.eq_ignore_ascii_case(b)
    } else {
        a.chars().flat_map(char::to_lowercase).eq(b.chars())
    }
}

/// True if `text` holds all of `phrase` (lowercase tokens, at least one) one after the other.
pub fn holds_phrase(text: &str, phrase: &[String]) -> bool {
    let Some((first, more)) = phrase.split_first() else {
        return false;
    };
    if text.is_ascii() {
        return holds_ascii(text.as_bytes(), first.as_bytes(), more);
    }
    let mut at = Tokens { rest: text };
    while let Some(token) = at.next() {
        if equals_lowercase(token, first) {
            let mut after = Tokens { rest: at.rest };
            let follows = |want: &String| after.next().is_some_and(|t| equals_lowercase(t, want));
            if more.iter().all(follows) {
                return true;
            }
        }
    }
    false
}

/// The tokens as they stand in the text.
struct Tokens<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Tokens<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let start = self.rest.find(char::is_alphanumeric)?;
        let from = self.rest.get(start..)?;
        let end = from
            .find(|c: char| !c.is_alphanumeric())
            .unwrap_or(from.len());
        let (token, rest) = from.split_at_checked(end)?;
        self.rest = rest;
        Some(token)
    }
}

fn holds_ascii(text: &[u8], first: &[u8], more: &[String]) -> bool {
    let Some(lower) = first.first().copied() else {
        return false;
    };
    let is_inside = |index: Option<usize>| {
        index
            .and_then(|index| text.get(index))
            .is_some_and(u8::is_ascii_alphanumeric)
    };
    for start in memchr::memchr2_iter(lower, lower.to_ascii_uppercase(), text) {
        let end = start + first.len();
        let fits = text
            .get(start..end)
            .is_some_and(|found| found.eq_ignore_ascii_case(first));
        if fits
            && !is_inside(start.checked_sub(1))
            && !is_inside(Some(end))
            && follows_ascii(text.get(end..).unwrap_or_default(), more)
        {
            return true;
        }
    }
    false
}

fn follows_ascii(mut text: &[u8], tokens: &[String]) -> bool {
    for token in tokens {
        let skipped = text
            .iter()
            .take_while(|b| !b.is_ascii_alphanumeric())
            .count();
        let from = text.get(skipped..).unwrap_or_default();
        let len = from
            .iter()
            .take_while(|b| b.is_ascii_alphanumeric())
            .count();
        let (found, rest) = from.split_at(len);
        if !found.eq_ignore_ascii_case(token.as_bytes()) {
            return false;
        }
        text = rest;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phrase_is_consecutive_tokens_whatever_stands_between() {
        for (text, phrase, expected) in [
            ("connection closed", "Connection CLOSED", true),
            ("the connection: closed!", "connection closed", true),
            ("connection was closed", "connection closed", false),
            ("connection closed2", "connection closed", false),
            ("myconnection closed", "connection closed", false),
            ("java.lang.Exception", "lang exception", true),
            ("a_b", "b", true),
            ("errors", "error", false),
            ("error", "error", true),
            ("x error", "error", true),
            ("aab aac", "aac", true),
            ("", "a", false),
            ("a", "a b", false),
            ("Größe: ÄRGER", "größe ärger", true),
            ("ÄRGER", "rger", false),
            ("naïve error", "error", true),
            ("\u{212a}elvin", "kelvin", true),
            ("日本語 ログ", "ログ", true),
            ("x=5", "5", true),
        ] {
            assert_eq!(
                holds_phrase(text, &tokens(phrase)),
                expected,
                "{text:?} {phrase:?}"
            );
        }
    }

    #[test]
    fn ascii_and_other_texts_are_searched_alike() {
        proptest::proptest!(|(text in "[abA. ]{0,12}", phrase in "[ab]{1,2}( [ab]{1,2}){0,2}")| {
            let phrase = tokens(&phrase);
            let long = format!("{text} é");
            proptest::prop_assert_eq!(holds_phrase(&text, &phrase), holds_phrase(&long, &phrase));
            let all = tokens(&text);
            let naive = all.windows(phrase.len()).any(|w| w == phrase);
            proptest::prop_assert_eq!(holds_phrase(&text, &phrase), naive);
        });
    }
}
