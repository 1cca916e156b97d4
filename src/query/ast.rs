//! The filter's tree, and in prose what each part means.
//!
//! **Tokens.** A token is a maximal run of Unicode letters and digits (`char::is_alphanumeric`), compared without case
//! (lowercased with `char::to_lowercase`).
//!
//! **Text form.** `Str` is its text. `Json` matches by element: every scalar leaf inside it, at any depth, is a value of its own,
//! strings unescaped (`record::leaves` finds them; an index must take its tokens from there). `Exists` is true for any `Json`.
//! Numbers and booleans are one value, not text: see `Words`. `Null` matches nothing but its own negation.
//!
//! **Numbers** compare exactly between integers and number texts, and as doubles where the value is a `Float`. A text is a number if
//! `query::number::is_number` says so.
//!
//! A field has several values when several columns share its address (types, or nested and dotted spelling), or when it is an
//! array. A term matches a record if *any* value of *any* of its addresses matches. An array of objects answers for the
//! addresses inside it too: `{"a":[{"b":1}]}` matches `a.b:1`. A leaf inside `Json` has the field's address and the keys on the way,
//! joined by dots (arrays add nothing); a term asks the leaves at its address and below it. Outside `Json` it asks its address alone.

use std::ops::Bound;

/// A filter.
#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    /// Everything.
    All,
    And(Vec<Expr>),
    Or(Vec<Expr>),
    Not(Box<Expr>),
    Term(Term),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Term {
    pub field: Field,
    pub matcher: Match,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Field {
    /// Any field of the record (not the timestamp, not `_flags`).
    Any,
    /// Any of these addresses: one, or the standard name and the alias asked for (`service` asks `source` and `service`).
    /// `timestamp` asks the record's time too: `Range` compares nanoseconds since 1970 (bounds are such integers: the parser turns times
    /// into them), `Exists` is true, no other match ever is. `_flags` asks the names of its flags too.
    Addresses(Vec<String>),
}

/// What a value must be.
#[derive(Clone, Debug, PartialEq)]
pub enum Match {
    /// Text: holds these tokens consecutively, whatever stands between them (at least one token). Numbers: `text` is a JSON-like
    /// number and equal to the value. Booleans: `text` is `true` or `false` without case.
    /// A term without any token (`"---"`) is a `Contains` instead.
    Words { text: String, tokens: Vec<String> },
    /// `text` stands somewhere in the raw text, without case (for terms that hold no token). Never matches numbers or booleans.
    Contains(String),
    /// `:=`. The value's text is exactly this, case included; for numbers and booleans: their JSON text, or an equal number.
    Exact(String),
    /// One of these texts without case; numbers by their JSON text. For `level` and its synonyms.
    OneOf(Vec<String>),
    /// `*` is any run of characters that are not white space, `?` one such character. The pattern may match anywhere in the raw text
    /// (numbers and booleans: in their JSON text), without case, but where it does not begin (end) with `*`, a letter or digit may
    /// not stand directly before (after) the match if the pattern's first (last) character is a letter or digit. `\` makes the next
    /// character an ordinary one. Without case means Unicode's simple case folding here, as in the `regex` crate.
    Wildcard(String),
    /// `/…/`: found anywhere in the raw text (numbers and booleans: in their JSON text), case counts unless `(?i)`.
    Regex(String),
    /// Numbers and the time compare as numbers. Texts: if every bound given is a number, texts that are numbers compare as numbers and others
    /// do not match; if not, texts compare by bytes, and numbers do not match. Without any bound it is `Exists`. Never matches booleans.
    Range {
        low: Bound<String>,
        high: Bound<String>,
    },
    /// The field is there and is not null.
    Exists,
    /// Texts that are an IP address inside this network; an IPv4 address may be written as IPv6 (`::ffff:10.0.0.1`).
    Cidr(ipnet::IpNet),
}

impl Expr {
    /// `self AND other`, without needless nesting.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::All, one) | (one, Self::All) => one,
            (Self::And(mut all), Self::And(more)) => {
                all.extend(more);
                Self::And(all)
            }
            (Self::And(mut all), one) => {
                all.push(one);
                Self::And(all)
            }
            (one, other) => Self::And(vec![one, other]),
        }
    }
}
