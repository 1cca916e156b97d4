//! Level words in lines. Only what stands where a level stands: in capitals among the first words, or in small letters inside brackets or
//! before a colon. "error" in the middle of a sentence is no level.

/// Words known as levels, in capitals.
const WORDS: [&str; 24] = [
    "TRACE",
    "DEBUG",
    "INFO",
    "NOTICE",
    "WARN",
    "WARNING",
    "ERROR",
    "ERR",
    "SEVERE",
    "CRITICAL",
    "CRIT",
    "FATAL",
    "ALERT",
    "EMERG",
    "EMERGENCY",
    "PANIC",
    "FINE",
    "FINER",
    "FINEST",
    "CONFIG",
    "VERBOSE",
    "INFORMATION",
    "INFORMATIONAL",
    "DBG",
];

/// How many bytes and words of a line are looked at.
const LOOK_BYTES: usize = 200;
const LOOK_WORDS: usize = 12;

fn is_word(word: &str) -> bool {
    WORDS.contains(&word)
}

fn is_word_in_any_case(word: &str) -> bool {
    WORDS.iter().any(|known| known.eq_ignore_ascii_case(word))
}

/// The level that stands in `rest`, what follows the time of a line.
pub(super) fn after_time(rest: &str) -> Option<&str> {
    let end = rest.floor_char_boundary(LOOK_BYTES);
    let head = rest.get(..end).unwrap_or(rest);
    let mut n_words = 0;
    let mut at = 0;
    while n_words < LOOK_WORDS {
        let tail = head.get(at..)?;
        let skipped = tail.find(|c: char| c.is_ascii_alphabetic())?;
        let start = at + skipped;
        let word_tail = head.get(start..)?;
        let len = word_tail
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(word_tail.len());
        let word = word_tail.get(..len)?;
        let before = head.as_bytes().get(start.wrapping_sub(1)).copied();
        let after = head.as_bytes().get(start + len).copied();
        let stands_alone = before.is_none_or(|b| {
            !matches!(b, b'.' | b'/' | b'$' | b'-' | b'_') && !b.is_ascii_alphanumeric()
        }) && after
            .is_none_or(|b| !matches!(b, b'.' | b'/' | b'$' | b'-' | b'='));
        if stands_alone && is_word(word) {
            return Some(word);
        }
        // `[error]`, `[core:error]`, `[php:warn]`, `<info>`.
        let is_enclosed = matches!(before, Some(b'[' | b'(' | b'<' | b':'))
            && matches!(after, Some(b']' | b')' | b'>'));
        let is_labelled = n_words == 0 && after == Some(b':');
        if (is_enclosed || is_labelled) && is_word_in_any_case(word) {
            return Some(word);
        }
        n_words += 1;
        at = start + len;
    }
    None
}

/// The level that a line without a time begins with: `ERROR …`, `[warn] …`, `info: …`.
pub(super) fn at_start(line: &str) -> Option<&str> {
    let inside = line.trim_start_matches(['[', '<', '(', ' ', '*']);
    let len = inside
        .find(|c: char| !c.is_ascii_alphabetic())
        .unwrap_or(inside.len());
    let word = inside.get(..len)?;
    let is_marked = inside.len() < line.len()
        || matches!(inside.as_bytes().get(len), Some(b':' | b']' | b'>' | b')'));
    let ends_well = inside
        .as_bytes()
        .get(len)
        .is_none_or(|b| matches!(b, b':' | b']' | b'>' | b')' | b' ' | b'\t' | b'|'));
    let is_level = is_word(word) || (is_marked && is_word_in_any_case(word));
    (ends_well && is_level).then_some(word)
}
