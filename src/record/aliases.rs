//! The other names under which the standard fields arrive and are asked for. Data, not rules: the lists are a setting.

use crate::record::{LEVEL, MESSAGE, SOURCE, TIMESTAMP};

/// A field that every record has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StandardField {
    Timestamp,
    Level,
    Source,
    Message,
}

/// For each standard field the addresses that mean it too, the one to prefer first. Case is ignored (ASCII).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aliases {
    pub timestamp: Vec<String>,
    pub level: Vec<String>,
    pub source: Vec<String>,
    pub message: Vec<String>,
}

impl StandardField {
    pub const ALL: [Self; 4] = [Self::Timestamp, Self::Level, Self::Source, Self::Message];

    /// The key and address of the field.
    pub fn name(self) -> &'static str {
        match self {
            Self::Timestamp => TIMESTAMP,
            Self::Level => LEVEL,
            Self::Source => SOURCE,
            Self::Message => MESSAGE,
        }
    }
}

impl Default for Aliases {
    fn default() -> Self {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Self {
            timestamp: list(&["@timestamp", "time", "ts", "date", "_time"]),
            level: list(&["severity", "severity_text", "log.level", "loglevel", "lvl"]),
            source: list(&[
                "service",
                "service.name",
                "service_name",
                "app",
                "application",
                "logger",
                "host.name",
            ]),
            message: list(&["msg", "log", "body", "text", "_msg", "event.original"]),
        }
    }
}

impl Aliases {
    /// The names that mean `standard` besides its own.
    pub fn of(&self, standard: StandardField) -> &[String] {
        match standard {
            StandardField::Timestamp => &self.timestamp,
            StandardField::Level => &self.level,
            StandardField::Source => &self.source,
            StandardField::Message => &self.message,
        }
    }

    /// Which standard field `address` means, and with which rank: 0 is the standard name itself (in any case), 1 the first alias, …
    /// Of several in one record the lowest rank wins; the others keep their own names.
    pub fn standard(&self, address: &str) -> Option<(StandardField, usize)> {
        for standard in StandardField::ALL {
            if address.eq_ignore_ascii_case(standard.name()) {
                return Some((standard, 0));
            }
        }
        for standard in StandardField::ALL {
            for (index, alias) in self.of(standard).iter().enumerate() {
                if address.eq_ignore_ascii_case(alias) {
                    return Some((standard, index + 1));
                }
            }
        }
        None
    }

    /// The addresses that a question about `asked` must look at: the standard name first, then `asked` itself if it is another,
    /// because a record that has both keeps the second under its own name.
    pub fn addresses(&self, asked: &str) -> Vec<String> {
        match self.standard(asked) {
            Some((standard, _)) if standard.name() != asked => {
                vec![standard.name().to_owned(), asked.to_owned()]
            }
            _ => vec![asked.to_owned()],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_means_its_standard_field_in_any_case() {
        let aliases = Aliases::default();
        for (address, expected) in [
            ("timestamp", Some((StandardField::Timestamp, 0))),
            ("Timestamp", Some((StandardField::Timestamp, 0))),
            ("@timestamp", Some((StandardField::Timestamp, 1))),
            ("_TIME", Some((StandardField::Timestamp, 5))),
            ("log.level", Some((StandardField::Level, 3))),
            ("Service", Some((StandardField::Source, 1))),
            ("host.name", Some((StandardField::Source, 7))),
            ("log", Some((StandardField::Message, 2))),
            ("logs", None),
            ("", None),
        ] {
            assert_eq!(aliases.standard(address), expected, "{address}");
        }
    }

    #[test]
    fn a_question_about_an_alias_asks_both_names() {
        let aliases = Aliases::default();
        assert_eq!(aliases.addresses("service"), ["source", "service"]);
        assert_eq!(aliases.addresses("LEVEL"), ["level", "LEVEL"]);
        assert_eq!(aliases.addresses("level"), ["level"]);
        assert_eq!(aliases.addresses("user"), ["user"]);
    }
}
