//! The characters of a query: quotes, escapes, bare words, and where each of them ends. Knows nothing of what they mean.

use crate::common::error::Result;
use crate::query::parser::fault;

/// A value before it becomes a match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// `*` alone.
    Star,
    /// Between slashes, `\/` already a slash.
    Regex(String),
    /// A bare word with `*` or `?`; other characters that are special in a pattern are still escaped.
    Wildcard(String),
    /// Quoted or bare, escapes resolved.
    Text(String),
}

/// A word whose colons separate no field from its value: a URL, an IP address, a time of day, a hardware address.
fn is_text_with_colon(word: &str) -> bool {
    let Some(colon) = word.find(':') else {
        return false;
    };
    let scheme = word.get(..colon).unwrap_or_default();
    let is_url = !scheme.is_empty()
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric())
        && word.find("://") == Some(colon);
    let is_pair = |part: &str| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
    let is_number = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    let parts = || word.split([':', '.', ',']);
    let is_time = word
        .split(':')
        .all(|part| is_number(part) && part.len() == 2)
        || (word
            .split(':')
            .take(3)
            .all(|part| part.get(..2).is_some_and(is_number))
            && word.split(':').count() == 3
            && parts().all(is_number));
    let is_hardware = word.split(':').count() == 6 && word.split(':').all(is_pair);
    is_url
        || is_time
        || is_hardware
        || word.parse::<std::net::Ipv6Addr>().is_ok()
        || word.parse::<std::net::SocketAddr>().is_ok()
}

/// A position in the text.
pub struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

/// A bare word ends before these, and before white space.
fn ends_word(c: char) -> bool {
    c.is_whitespace() || matches!(c, '(' | ')' | '"')
}

impl<'a> Scanner<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    pub fn at(&self) -> usize {
        self.at
    }

    pub fn is_at_end(&self) -> bool {
        self.at == self.text.len()
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    pub fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    pub fn peek_second(&self) -> Option<char> {
        self.rest().chars().nth(1)
    }

    pub fn take(&mut self, wanted: char) -> bool {
        let is_there = self.peek() == Some(wanted);
        if is_there {
            self.at += wanted.len_utf8();
        }
        is_there
    }

    pub fn take_text(&mut self, wanted: &str) -> bool {
        let is_there = self.rest().starts_with(wanted);
        if is_there {
            self.at += wanted.len();
        }
        is_there
    }

    pub fn skip_blanks(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    /// The characters up to the end of the bare word that begins here; for keywords.
    pub fn peek_bare_word(&self) -> &'a str {
        let rest = self.rest();
        let len = rest.find(ends_word).unwrap_or(rest.len());
        rest.get(..len).unwrap_or_default()
    }

    pub fn skip_bare_word(&mut self) {
        self.at += self.peek_bare_word().len();
    }

    /// A bare or quoted name directly followed by a colon, and whether a wildcard stands in it; otherwise nothing is taken.
    pub fn name_and_colon(&mut self) -> Result<Option<(String, bool)>> {
        let start = self.at;
        let mut has_wildcard = false;
        if is_text_with_colon(self.peek_bare_word()) {
            return Ok(None);
        }
        let name = if self.peek() == Some('"') {
            self.quoted()?
        } else if self.peek() == Some('/') {
            return Ok(None);
        } else {
            self.bare(|c| ends_word(c) || c == ':', &mut has_wildcard)?
        };
        if self.take(':') {
            return Ok(Some((name, has_wildcard)));
        }
        self.at = start;
        Ok(None)
    }

    /// A value of any kind but ranges, comparisons and `=`.
    pub fn value_start(&mut self) -> Result<Word> {
        match self.peek() {
            Some('"') => self.quoted().map(Word::Text),
            Some('/') => match self.regex() {
                Some(pattern) => Ok(Word::Regex(pattern)),
                None => self.bare_word(),
            },
            _ => self.bare_word(),
        }
    }

    /// A quoted or bare text in which `*` and `?` are ordinary.
    pub fn plain_word(&mut self) -> Result<String> {
        if self.peek() == Some('"') {
            return self.quoted();
        }
        self.plain_until(ends_word)
    }

    /// The same, ending at further characters too.
    pub fn plain_until(&mut self, ends: impl Fn(char) -> bool) -> Result<String> {
        let at = self.at;
        let text = self.bare(ends, &mut false)?;
        if text.is_empty() {
            return Err(fault(at, "expected a value here".to_owned()));
        }
        Ok(text)
    }

    fn bare_word(&mut self) -> Result<Word> {
        let at = self.at;
        let mut has_wildcard = false;
        let text = self.bare(ends_word, &mut has_wildcard)?;
        let raw = self.text.get(at..self.at).unwrap_or_default();
        match raw {
            "" => Err(fault(at, "expected a term here".to_owned())),
            "*" => Ok(Word::Star),
            _ if has_wildcard => Ok(Word::Wildcard(raw.to_owned())),
            _ => Ok(Word::Text(text)),
        }
    }

    /// Characters up to one that `ends`, escapes resolved.
    fn bare(&mut self, ends: impl Fn(char) -> bool, has_wildcard: &mut bool) -> Result<String> {
        let mut text = String::new();
        while let Some(c) = self.peek() {
            if ends(c) {
                break;
            }
            let at = self.at;
            self.at += c.len_utf8();
            match c {
                '\\' => match self.peek() {
                    Some(escaped) => {
                        self.at += escaped.len_utf8();
                        text.push(escaped);
                    }
                    None => {
                        return Err(fault(
                            at,
                            "a backslash at the end; write `\\\\` to find one".to_owned(),
                        ));
                    }
                },
                '*' | '?' => {
                    *has_wildcard = true;
                    text.push(c);
                }
                _ => text.push(c),
            }
        }
        Ok(text)
    }

    /// Between double quotes `\"` and `\\` are escapes; any other backslash stands for itself, as in `"C:\temp"`.
    fn quoted(&mut self) -> Result<String> {
        let start = self.at;
        self.at += 1;
        let mut text = String::new();
        while let Some(c) = self.peek() {
            self.at += c.len_utf8();
            match c {
                '"' => return Ok(text),
                '\\' => match self.peek() {
                    Some(escaped @ ('"' | '\\')) => {
                        self.at += 1;
                        text.push(escaped);
                    }
                    _ => text.push(c),
                },
                _ => text.push(c),
            }
        }
        Err(fault(
            start,
            "this quote is never closed; add a `\"`, or write `\\\"` to find one".to_owned(),
        ))
    }

    /// `/…/`, if a slash that is not escaped stands before a blank, `)` or the end; else it is a path, and nothing is taken.
    fn regex(&mut self) -> Option<String> {
        let mut pattern = String::new();
        let mut chars = self.rest().char_indices().skip(1).peekable();
        while let Some((offset, c)) = chars.next() {
            match c {
                '/' => {
                    let after = chars.peek().map(|(_, c)| *c);
                    if pattern.is_empty() || after.is_some_and(|c| !ends_word(c)) {
                        return None;
                    }
                    self.at += offset + 1;
                    return Some(pattern);
                }
                '\\' => {
                    let (_, escaped) = chars.next()?;
                    if escaped != '/' {
                        pattern.push('\\');
                    }
                    pattern.push(escaped);
                }
                _ => pattern.push(c),
            }
        }
        None
    }
}
