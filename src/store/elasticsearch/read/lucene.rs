//! Regular expressions in Lucene's language, which knows neither assertions nor case and always means the whole text.
//!
//! Each pattern becomes two: `lower` finds only texts that match, `upper` all that match. They differ where a class holds so many characters
//! beyond ASCII that it is cut to what ASCII decides, and at assertions inside a pattern (`\b`), which `upper` leaves out. Either is `None`
//! where there is no such pattern within the limits: then `lower` is nothing and `upper` is every text.

use std::fmt::Write as _;
use std::sync::LazyLock;

use hashbrown::HashMap;
use regex_syntax::ParserBuilder;
use regex_syntax::hir::{Class, ClassUnicode, ClassUnicodeRange, Hir, HirKind, Look};

/// UTF-16 units of a pattern: Elasticsearch's own limit (`index.max_regex_length`) as it is without a setting.
const UNITS_MAX: usize = 1_000;
/// Ranges of a class that is written out whole: first so many, which takes all decimal digits, then few.
const RANGES_MAX: [usize; 2] = [80, 16];
const NEST_MAX: u32 = 64;

/// See the module's head.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pattern {
    pub lower: Option<String>,
    pub upper: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Side {
    is_upper: bool,
    ranges_max: usize,
}

/// The pattern of a regular expression as the `regex` crate means it, found anywhere in a text.
pub fn pattern(regex: &str) -> Pattern {
    let parsed = ParserBuilder::new()
        .nest_limit(NEST_MAX)
        .build()
        .parse(regex);
    let Ok(hir) = parsed else {
        return Pattern::default();
    };
    let side = |is_upper: bool| {
        RANGES_MAX.iter().find_map(|ranges_max| {
            whole(
                &hir,
                Side {
                    is_upper,
                    ranges_max: *ranges_max,
                },
            )
            .and_then(bounded)
        })
    };
    Pattern {
        lower: side(false),
        upper: side(true),
    }
}

/// The pattern for texts that are one of `texts` without case.
pub fn any_of(texts: &[String]) -> Option<String> {
    let each: Vec<String> = texts.iter().map(|text| caseless(text)).collect();
    bounded(each.join("|"))
}

/// False if no JSON text of a number can match.
pub fn may_match_numbers(regex: &str) -> bool {
    let parsed = ParserBuilder::new()
        .nest_limit(NEST_MAX)
        .build()
        .parse(regex);
    parsed.map_or(true, |hir| may_match_number(&hir))
}

fn may_match_number(hir: &Hir) -> bool {
    let is_used = |c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | 'e' | 'E');
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => true,
        HirKind::Literal(literal) => literal.0.iter().all(|byte| is_used(char::from(*byte))),
        HirKind::Class(class) => match class {
            Class::Unicode(class) => class.iter().any(|r| {
                "+-.0123456789eE"
                    .chars()
                    .any(|c| r.start() <= c && c <= r.end())
            }),
            Class::Bytes(class) => class
                .iter()
                .any(|r| (r.start()..=r.end()).any(|byte| is_used(char::from(byte)))),
        },
        HirKind::Repetition(repetition) => repetition.min == 0 || may_match_number(&repetition.sub),
        HirKind::Capture(capture) => may_match_number(&capture.sub),
        HirKind::Concat(parts) => parts.iter().all(may_match_number),
        HirKind::Alternation(parts) => parts.iter().any(may_match_number),
    }
}

/// `text` as an ordinary part of a pattern.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        push_char(&mut out, c);
    }
    out
}

/// A part that finds what has the same simple case folding as `text`, in texts that are lowercase.
pub fn folded_lowercase(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        let mut folded = ClassUnicode::new([ClassUnicodeRange::new(c, c)]);
        // Fails only without the tables of Unicode, which are compiled in.
        let _ = folded.try_case_fold_simple();
        let mut forms: Vec<String> = folded
            .iter()
            .flat_map(|range| range.start()..=range.end())
            .map(|member| escaped(&member.to_lowercase().to_string()))
            .collect();
        forms.sort();
        forms.dedup();
        match &forms[..] {
            [one] => out.push_str(one),
            _ => {
                let _ = write!(out, "({})", forms.join("|"));
            }
        }
    }
    out
}

/// A whole pattern, unless it is too long.
pub fn bounded(pattern: String) -> Option<String> {
    let units: usize = pattern.chars().map(char::len_utf16).sum();
    (units <= UNITS_MAX).then(|| match pattern.is_empty() {
        true => "()".to_owned(),
        false => pattern,
    })
}

/// Characters whose lowercase form is one other character, by that character.
static UPPERCASE: LazyLock<HashMap<char, Vec<char>>> = LazyLock::new(|| {
    let mut by_lowercase: HashMap<char, Vec<char>> = HashMap::new();
    for c in '\0'..=char::MAX {
        let mut lower = c.to_lowercase();
        if let (Some(one), None) = (lower.next(), lower.next())
            && one != c
        {
            by_lowercase.entry(one).or_default().push(c);
        }
    }
    by_lowercase
});

/// The one character whose lowercase form is two, and these.
const DOTTED_I: (char, &str) = ('\u{130}', "i\u{307}");

/// Texts whose characters' lowercase forms are those of `text`.
fn caseless(text: &str) -> String {
    let lower: String = text.chars().flat_map(char::to_lowercase).collect();
    let mut out = String::new();
    let mut rest = lower.as_str();
    while let Some(c) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix(DOTTED_I.1) {
            let _ = write!(out, "([iI]\u{307}|{})", DOTTED_I.0);
            rest = after;
            continue;
        }
        match UPPERCASE.get(&c) {
            None => push_char(&mut out, c),
            Some(others) => {
                out.push('[');
                push_class_char(&mut out, c);
                for other in others {
                    push_class_char(&mut out, *other);
                }
                out.push(']');
            }
        }
        rest = rest.get(c.len_utf8()..).unwrap_or_default();
    }
    if out.is_empty() { "()".to_owned() } else { out }
}

/// `hir` found anywhere, as a pattern for the whole text.
fn whole(hir: &Hir, side: Side) -> Option<String> {
    match hir.kind() {
        HirKind::Capture(capture) => whole(&capture.sub, side),
        HirKind::Alternation(parts) => alternatives(parts, side, whole),
        HirKind::Concat(parts) => {
            let (first, rest) = parts.split_first()?;
            let (last, middle) = rest.split_last()?;
            let mut out = front(first, side)?;
            for part in middle {
                out.push_str(&inside(part, side)?);
            }
            out.push_str(&back(last, side)?);
            Some(out)
        }
        HirKind::Empty | HirKind::Look(Look::Start | Look::End) => Some(".*".to_owned()),
        _ => Some(format!(".*{}.*", inside(hir, side)?)),
    }
}

/// `hir` and whatever stands before it.
fn front(hir: &Hir, side: Side) -> Option<String> {
    match hir.kind() {
        HirKind::Capture(capture) => front(&capture.sub, side),
        HirKind::Look(Look::Start) => Some(String::new()),
        HirKind::Alternation(parts) => alternatives(parts, side, front),
        HirKind::Concat(parts) => {
            let (first, rest) = parts.split_first()?;
            let mut out = front(first, side)?;
            for part in rest {
                out.push_str(&inside(part, side)?);
            }
            Some(out)
        }
        _ => Some(format!(".*{}", inside(hir, side)?)),
    }
}

/// `hir` and whatever stands after it.
fn back(hir: &Hir, side: Side) -> Option<String> {
    match hir.kind() {
        HirKind::Capture(capture) => back(&capture.sub, side),
        HirKind::Look(Look::End) => Some(String::new()),
        HirKind::Alternation(parts) => alternatives(parts, side, back),
        HirKind::Concat(parts) => {
            let (last, rest) = parts.split_last()?;
            let mut out = String::new();
            for part in rest {
                out.push_str(&inside(part, side)?);
            }
            out.push_str(&back(last, side)?);
            Some(out)
        }
        _ => Some(format!("{}.*", inside(hir, side)?)),
    }
}

fn inside(hir: &Hir, side: Side) -> Option<String> {
    match hir.kind() {
        HirKind::Empty => Some("()".to_owned()),
        HirKind::Literal(literal) => Some(escaped(std::str::from_utf8(&literal.0).ok()?)),
        HirKind::Class(Class::Unicode(class)) => class_of(class, side),
        HirKind::Class(Class::Bytes(class)) => class_of(&class.to_unicode_class()?, side),
        HirKind::Look(_) => side.is_upper.then(|| "()".to_owned()),
        HirKind::Repetition(repetition) => {
            let sub = match inside(&repetition.sub, side) {
                Some(sub) => sub,
                None if repetition.min == 0 => return Some("()".to_owned()),
                None => return None,
            };
            let times = match (repetition.min, repetition.max) {
                (0, None) => "*".to_owned(),
                (1, None) => "+".to_owned(),
                (0, Some(1)) => "?".to_owned(),
                (min, None) => format!("{{{min},}}"),
                (min, Some(max)) => format!("{{{min},{max}}}"),
            };
            Some(format!("({sub}){times}"))
        }
        HirKind::Capture(capture) => inside(&capture.sub, side),
        HirKind::Concat(parts) => parts.iter().map(|part| inside(part, side)).collect(),
        HirKind::Alternation(parts) => alternatives(parts, side, inside),
    }
}

/// Any of `parts`. Without one of them the pattern finds less, which `lower` may.
fn alternatives(
    parts: &[Hir],
    side: Side,
    each: impl Fn(&Hir, Side) -> Option<String>,
) -> Option<String> {
    let mut found = Vec::with_capacity(parts.len());
    for part in parts {
        match each(part, side) {
            Some(text) if text.is_empty() => found.push("()".to_owned()),
            Some(text) => found.push(text),
            None if !side.is_upper => {}
            None => return None,
        }
    }
    match &found[..] {
        [] => None,
        [one] => Some(one.clone()),
        many => Some(format!("({})", many.join("|"))),
    }
}

fn class_of(class: &ClassUnicode, side: Side) -> Option<String> {
    let mut class = class.clone();
    let mut complement = class.clone();
    complement.negate();
    if side.ranges_max < class.ranges().len().min(complement.ranges().len()) {
        let beyond_ascii = ClassUnicode::new([ClassUnicodeRange::new('\u{80}', char::MAX)]);
        match side.is_upper {
            false => class.difference(&beyond_ascii),
            true => class.union(&beyond_ascii),
        }
        complement = class.clone();
        complement.negate();
    }
    if class.ranges().is_empty() {
        return None;
    }
    if complement.ranges().is_empty() {
        return Some(".".to_owned());
    }
    let is_negated = class
        .ranges()
        .last()
        .is_some_and(|last| last.end() == char::MAX);
    let mut out = String::from(if is_negated { "[^" } else { "[" });
    let ranges = if is_negated { &complement } else { &class };
    for range in ranges.iter() {
        push_class_char(&mut out, range.start());
        if range.start() != range.end() {
            out.push('-');
            push_class_char(&mut out, range.end());
        }
    }
    out.push(']');
    Some(out)
}

/// Letters and digits must not be escaped: some of them mean a class then.
fn push_char(out: &mut String, c: char) {
    if c.is_ascii_punctuation() {
        out.push('\\');
    }
    out.push(c);
}

fn push_class_char(out: &mut String, c: char) {
    push_char(out, c);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(regex: &str, lower: Option<&str>, upper: Option<&str>) {
        let found = pattern(regex);
        assert_eq!(found.lower.as_deref(), lower, "lower of {regex}");
        assert_eq!(found.upper.as_deref(), upper, "upper of {regex}");
    }

    fn exact(regex: &str, expected: &str) {
        check(regex, Some(expected), Some(expected));
    }

    #[test]
    fn what_lucene_can_say_is_exact() {
        exact("closed", ".*closed.*");
        exact("^E", "E.*");
        exact("d$", ".*d");
        exact("^$", "()");
        exact("", ".*");
        exact("^", ".*");
        exact("clos(ed|ing)", ".*clos(ed.*|ing.*)");
        exact(r"^/api/v[12]", r"\/api\/v[1-2].*");
        exact(r#"["\\]"#, r#".*[\"\\].*"#);
        exact("a.c", ".*a[^\n]c.*");
        exact("(?s)a.c", ".*a.c.*");
        exact("^(a|bc$)", "(a.*|bc)");
        exact("(^a|bc)d", "(a|.*bc)d.*");
        exact("x{2,3}y+z?", ".*(x){2,3}(y)+(z)?.*");
        exact("(?i)e", ".*[Ee].*");
        exact("[^a]", ".*[^a].*");
    }

    #[test]
    fn what_lucene_cannot_say_is_bounded() {
        check(r"\bfoo\b", None, Some(".*()foo().*"));
        check(r"a\b|b", Some(".*b.*"), Some("(.*a().*|.*b.*)"));
        check(
            r"^\w$",
            Some("[0-9A-Z\\_a-z]"),
            Some("[^\0-\\/\\:-\\@\\[-\\^\\`\\{-\u{7f}]"),
        );
        check(&"(abc|d)".repeat(200), None, None);
    }

    #[test]
    fn case_is_what_lowercase_says() {
        let any =
            |texts: &[&str]| any_of(&texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>());
        assert_eq!(any(&["ok", "-"]).as_deref(), Some("[oO][kK\u{212a}]|\\-"));
        assert_eq!(any(&[""]).as_deref(), Some("()"));
        assert_eq!(any(&["i\u{307}"]).as_deref(), Some("([iI]\u{307}|\u{130})"));
        for (regex, expected) in [
            ("^\\d+$", true),
            ("err", false),
            ("(?i)e1", true),
            ("5|x", true),
            ("x*", true),
            ("5x", false),
            ("[^a]", true),
        ] {
            assert_eq!(may_match_numbers(regex), expected, "{regex}");
        }
        assert_eq!(folded_lowercase("Ks"), "k(s|\u{17f})");
    }
}
