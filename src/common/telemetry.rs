//! Logyard's own log: standard error, for people or as JSON, one line for each event, free of control characters.

use std::io;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::common::error::{Error, Result};

/// Starts the log for the whole process. `filter` is `info`, or by module: `info,logyard::store=debug`.
pub fn start(filter: &str, is_json: bool) -> Result<()> {
    let filter = EnvFilter::try_new(filter).map_err(|e| {
        Error::invalid("invalid_settings", format!("`log.filter`: `{filter}` is no filter: {e}; write `info` or `info,logyard::store=debug`"))
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(Escaping);
    let started = match is_json {
        true => builder.json().flatten_event(true).try_init(),
        false => builder.try_init(),
    };
    started.map_err(|e| Error::internal(format!("the log cannot be started: {e}")))?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

fn log_panic(info: &std::panic::PanicHookInfo<'_>) {
    let payload = info.payload();
    let message = payload.downcast_ref::<&str>().copied();
    let message = message
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    let thread = std::thread::current();
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    tracing::error!(message_of_panic = ?message, place, thread = thread.name().unwrap_or("unnamed"), "panic");
}

/// Makes writers to standard error that take one whole event each.
struct Escaping;

impl<'a> MakeWriter<'a> for Escaping {
    type Writer = EscapingWriter;

    fn make_writer(&'a self) -> EscapingWriter {
        EscapingWriter
    }
}

struct EscapingWriter;

impl io::Write for EscapingWriter {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        io::stderr()
            .lock()
            .write_all(escape(&String::from_utf8_lossy(event)).as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Texts of clients reach the log; a terminal must not obey them, and none may begin a line of its own.
fn escape(event: &str) -> String {
    let (line, end) = match event.strip_suffix('\n') {
        Some(line) => (line, "\n"),
        None => (event, ""),
    };
    let mut escaped = String::with_capacity(event.len());
    for c in line.chars() {
        let is_harmful = c.is_control()
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}');
        match is_harmful && c != '\t' {
            true => escaped.extend(c.escape_unicode()),
            false => escaped.push(c),
        }
    }
    escaped.push_str(end);
    escaped
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn control_characters_and_line_breaks_are_shown_not_obeyed() {
        assert_eq!(escape("plain ü\ttext\n"), "plain ü\ttext\n");
        assert_eq!(
            escape("a\x1b[31mred\r\nINFO forged\n"),
            "a\\u{1b}[31mred\\u{d}\\u{a}INFO forged\n"
        );
        assert_eq!(escape("\u{202e}x"), "\\u{202e}x");
    }
}
