//! What a term seeks, in the words of the token index: see `segment::index` for what is indexed under which token or value.

use std::ops::Bound;

use crate::query::number::{Number, is_number};
use crate::query::{Match, text};
use crate::store::embedded::segment::index::number_value;

/// Up to here an integer, and no other, has the indexed value of its double.
const EXACT_INT_MAX: u64 = 1 << 53;

pub enum Sought {
    /// Any of these texts.
    Texts(Vec<SoughtText>),
    Numbers {
        low: Bound<Number>,
        high: Bound<Number>,
    },
    Exists,
    /// Nothing that the index or statistics know.
    Other,
}

/// A text, the number and the boolean it also is.
pub struct SoughtText {
    /// All of them must be there; none: the index cannot tell.
    pub tokens: Vec<String>,
    /// The value under which equal numbers are indexed.
    pub number: Option<String>,
    /// No other number has that value.
    pub is_number_exact: bool,
    pub boolean: Option<bool>,
    /// A string matches exactly if it holds the one token.
    pub is_one_word: bool,
}

impl Sought {
    pub fn new(wanted: &Match) -> Self {
        match wanted {
            Match::Words { tokens, .. } if tokens.is_empty() => Self::Other,
            Match::Words { text, tokens } => {
                let mut sought = SoughtText::new(text, tokens.clone());
                sought.is_one_word = tokens.len() == 1;
                let lower = text::lowercase(text);
                sought.boolean = boolean(&lower);
                Self::Texts(vec![sought])
            }
            Match::Exact(text) => Self::Texts(vec![SoughtText::new(text, text::tokens(text))]),
            Match::OneOf(texts) => {
                let text = |text: &String| {
                    let lower = text::lowercase(text);
                    let mut sought = SoughtText::new(&lower, text::tokens(&lower));
                    // Numbers are compared by their text here: equal numbers are not enough.
                    sought.is_number_exact = false;
                    sought
                };
                Self::Texts(texts.iter().map(text).collect())
            }
            Match::Range { low, high } => numbers(low, high),
            Match::Exists => Self::Exists,
            Match::Contains(_) | Match::Wildcard(_) | Match::Regex(_) | Match::Cidr(_) => {
                Self::Other
            }
        }
    }
}

impl SoughtText {
    fn new(text: &str, tokens: Vec<String>) -> Self {
        let number = Number::parse(text);
        Self {
            tokens,
            is_number_exact: number
                .as_ref()
                .and_then(Number::as_i64)
                .is_some_and(|int| int.unsigned_abs() < EXACT_INT_MAX),
            number: number.is_some().then(|| number_value(text)),
            boolean: boolean(text),
            is_one_word: false,
        }
    }

    /// True if what is indexed under the one token can only be text that holds it.
    pub fn is_plain_word(&self) -> bool {
        let may_be_value = |token: &String| {
            is_number(token) || ["true", "false", "inf", "nan"].contains(&token.as_str())
        };
        self.is_one_word
            && self.number.is_none()
            && self.boolean.is_none()
            && !self.tokens.iter().any(may_be_value)
    }

    /// Whether `text` would be found by the tokens alone.
    pub fn holds_tokens(&self, text: &str) -> bool {
        let held = text::tokens(text);
        self.tokens.iter().all(|token| held.contains(token))
    }
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

fn numbers(low: &Bound<String>, high: &Bound<String>) -> Sought {
    let number = |bound: &Bound<String>| match bound {
        Bound::Included(text) => Number::parse(text).map(Bound::Included),
        Bound::Excluded(text) => Number::parse(text).map(Bound::Excluded),
        Bound::Unbounded => Some(Bound::Unbounded),
    };
    match (number(low), number(high)) {
        (Some(Bound::Unbounded), Some(Bound::Unbounded)) => Sought::Exists,
        (Some(low), Some(high)) => Sought::Numbers { low, high },
        _ => Sought::Other,
    }
}
