//! Which lines belong together. A line goes on with the record before it if it begins with white space, as stack traces do, or if the lines
//! of this text begin with a time and this one does not. Bounded in lines and bytes: what is beyond begins a new record, nothing is lost.

use crate::wire::native::text::{TextOptions, begins_with_time};

/// Lines looked at to learn whether they begin with a time.
const SAMPLE_LINES: usize = 50;

/// Cuts a text into records. Each piece is one line or several joined ones, without its last line break; blank lines between pieces are
/// left out.
pub struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
    options: TextOptions,
    arrival_ns: i64,
    expects_time: bool,
}

impl<'a> Lines<'a> {
    pub fn new(bytes: &'a [u8], options: &TextOptions, arrival_ns: i64) -> Self {
        Self {
            bytes,
            at: 0,
            options: options.clone(),
            arrival_ns,
            expects_time: options.joins_lines && lines_begin_with_time(bytes, arrival_ns),
        }
    }

    /// The line at `at` without its line break, and where the next one begins.
    fn line(&self, at: usize) -> Option<(&'a [u8], usize)> {
        let rest = self.bytes.get(at..).filter(|rest| !rest.is_empty())?;
        let len = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
        let line = rest.get(..len)?;
        Some((without_returns(line), at + len + 1))
    }

    fn goes_on(&self, line: &[u8], is_in_traceback: bool) -> bool {
        const CONTINUATIONS: [&[u8]; 7] = [
            b"at ",
            b"Caused by:",
            b"Suppressed:",
            b"... ",
            b"Traceback (most recent call last):",
            b"During handling of the above exception",
            b"The above exception was the direct cause",
        ];
        if matches!(line.first(), Some(b' ' | b'\t')) || is_in_traceback {
            return true;
        }
        if CONTINUATIONS.iter().any(|start| line.starts_with(start)) {
            return true;
        }
        let is_json = line.starts_with(b"{\"") && line.ends_with(b"}");
        self.expects_time && !is_json && !begins_with_time(line, self.arrival_ns)
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (mut line, mut next) = self.line(self.at)?;
        while line.trim_ascii().is_empty() {
            self.at = next;
            (line, next) = self.line(self.at)?;
        }
        let start = self.at;
        let mut end = start + line.len();
        self.at = next;
        let mut n_lines = 1;
        // The body of a Python traceback is indented; the exception's own line behind it is not.
        let mut is_in_traceback = is_traceback(line);
        let mut ahead = next;
        while self.options.joins_lines && n_lines < self.options.joined_lines_max {
            let Some((line, next)) = self.line(ahead) else {
                break;
            };
            if line.trim_ascii().is_empty() {
                ahead = next;
                continue;
            }
            let is_too_long = self.options.joined_bytes_max < ahead + line.len() - start;
            if is_too_long || !self.goes_on(line, is_in_traceback) {
                break;
            }
            is_in_traceback =
                is_traceback(line) || (is_in_traceback && line.first() == Some(&b' '));
            end = ahead + line.len();
            n_lines += 1;
            ahead = next;
            self.at = next;
        }
        self.bytes.get(start..end)
    }
}

fn is_traceback(line: &[u8]) -> bool {
    line.starts_with(b"Traceback (most recent call last):")
}

fn without_returns(mut line: &[u8]) -> &[u8] {
    while let Some(shorter) = line.strip_suffix(b"\r") {
        line = shorter;
    }
    line
}

/// The first line begins with a time, and so do most of the next ones that are not indented.
fn lines_begin_with_time(bytes: &[u8], arrival_ns: i64) -> bool {
    let mut n_lines = 0;
    let mut n_times = 0;
    for line in bytes.split(|b| *b == b'\n').map(without_returns) {
        if matches!(line.first(), None | Some(b' ' | b'\t')) {
            continue;
        }
        let has_time = begins_with_time(line, arrival_ns);
        if n_lines == 0 && !has_time {
            return false;
        }
        n_lines += 1;
        n_times += usize::from(has_time);
        if n_lines == SAMPLE_LINES {
            break;
        }
    }
    n_lines <= n_times * 2 && 0 < n_times
}
