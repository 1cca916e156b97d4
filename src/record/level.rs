//! The words and numbers that programs write for a record's level, in groups that mean the same.
//!
//! Only questions use this: a record keeps the text that was sent.

/// How grave a record is, mildest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    Trace,
    Debug,
    Info,
    Notice,
    Warning,
    Error,
    Critical,
}

impl Severity {
    pub const ALL: [Self; 7] = [
        Self::Trace,
        Self::Debug,
        Self::Info,
        Self::Notice,
        Self::Warning,
        Self::Error,
        Self::Critical,
    ];

    /// All texts that mean this severity, in lower case; digits are syslog's numbers (RFC 5424).
    pub fn texts(self) -> &'static [&'static str] {
        match self {
            Self::Trace => &["trace", "trc", "verbose", "finest", "finer", "t"],
            Self::Debug => &["debug", "dbg", "fine", "d", "7"],
            Self::Info => &["info", "information", "informational", "inf", "i", "6"],
            Self::Notice => &["notice", "note", "n", "5"],
            Self::Warning => &["warn", "warning", "wrn", "w", "4"],
            Self::Error => &["error", "err", "eror", "severe", "e", "3"],
            Self::Critical => &[
                "critical",
                "crit",
                "fatal",
                "alert",
                "emergency",
                "emerg",
                "panic",
                "f",
                "c",
                "2",
                "1",
                "0",
            ],
        }
    }

    /// What `text` means, in any case; `None` for a level that is not a usual one.
    pub fn from_text(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|severity| {
            severity
                .texts()
                .iter()
                .any(|known| known.eq_ignore_ascii_case(text))
        })
    }
}

/// All texts that mean the same level as `text`, itself included, in lower case; only itself if it is not a usual one.
pub fn synonyms(text: &str) -> Vec<String> {
    match Severity::from_text(text) {
        Some(severity) => severity.texts().iter().map(|t| (*t).to_owned()).collect(),
        None => vec![text.to_lowercase()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn synonyms_mean_each_other_and_nothing_else() {
        for (a, b) in [
            ("warn", "WARNING"),
            ("Err", "error"),
            ("fatal", "CRIT"),
            ("critical", "emerg"),
            ("info", "Informational"),
            ("3", "err"),
            ("0", "alert"),
        ] {
            assert_eq!(synonyms(a), synonyms(b), "{a} {b}");
        }
        for (a, b) in [("warn", "error"), ("info", "notice"), ("debug", "trace")] {
            assert_ne!(synonyms(a), synonyms(b), "{a} {b}");
        }
        assert_eq!(synonyms("Audit"), ["audit"]);
    }

    #[test]
    fn no_text_stands_in_two_groups() {
        for severity in Severity::ALL {
            for text in severity.texts() {
                assert_eq!(Severity::from_text(text), Some(severity), "{text}");
            }
        }
    }
}
