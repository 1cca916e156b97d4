//! Names on the Elasticsearch side: indices by day, fields by address and type, and the terms that stand for words, addresses and scalars.
//!
//! Writing and asking use the same functions, so that what one makes the other finds. A plain name is the address itself, escaped with `%XX` only where
//! Elasticsearch (or Logyard's own `logyard.*`) could take it for something else; a second, typed name is the plain one with `~type` behind it.

use std::borrow::Cow;

use jiff::Timestamp;
use xxhash_rust::xxh3::xxh3_128;

use crate::record::ValueRef;
use crate::record::value::float_text;

/// Logyard's own fields.
pub mod own {
    /// `date_nanos` for Kibana; missing where the time lies outside 1970 to 2262.
    pub const TIMESTAMP: &str = "timestamp";
    /// `date`, only in `logsdb` indices, which demand it.
    pub const AT_TIMESTAMP: &str = "@timestamp";
    /// `long`: the record's true time; sorts and bounds.
    pub const NS: &str = "logyard.ns";
    /// `date`: the same in whole milliseconds, rounded down; for histograms.
    pub const MS: &str = "logyard.ms";
    pub const PARTITION: &str = "logyard.partition";
    pub const SEQ: &str = "logyard.seq";
    /// Fraction digits of the time as sent. Not indexed.
    pub const DIGITS: &str = "logyard.digits";
    /// `keyword`: the names of the flags that are set.
    pub const FLAGS: &str = "logyard.flags";
    /// The flags as one number; missing when 0. Not indexed.
    pub const FLAG_BITS: &str = "logyard.flag_bits";
    /// `long`.
    pub const ARRIVAL_NS: &str = "logyard.arrival_ns";
    /// `keyword`: the text of `source` that retention rules see, where it is not simply a text.
    pub const SOURCE: &str = "logyard.source";
    /// `keyword`: [`super::address_term`] of each address for which `Exists` is true.
    pub const FIELDS: &str = "logyard.fields";
    /// `keyword`: addresses with a text that its keyword field does not hold ([`super::TEXT_UNITS_MAX`]).
    pub const LONG: &str = "logyard.long";
    /// `keyword`: addresses whose one value for groups is not simply the single value of the typed field: JSON (with all inner addresses), several keys
    /// with the address, numbers kept as text, long texts, overflow.
    pub const MULTI: &str = "logyard.multi";
    /// `keyword`: [`super::scalar_term`] of every number and boolean of the record.
    pub const SCALARS: &str = "logyard.scalars";
    /// `keyword`: [`super::overflow_term`] of values that got no field of their own.
    pub const OVERFLOW: &str = "logyard.overflow";
    /// Text: the [`super::any_token`]s of each text leaf, one array element a leaf. Not in `_source`.
    pub const ANY: &str = "logyard.any";
    /// Text: the [`super::word_token`]s of each text leaf. Not in `_source`.
    pub const WORDS: &str = "logyard.words";
    /// The fields as exact JSON text, where the flat fields alone do not give the record back. Not indexed.
    pub const RECORD: &str = "logyard.record";
    /// Prefix of all of them.
    pub const PREFIX: &str = "logyard.";
}

/// Texts of more UTF-16 units are not in their keyword field (`ignore_above`): a term may have 32,766 bytes.
pub const TEXT_UNITS_MAX: usize = 8_191;
/// Longer addresses get no field of their own.
const ADDRESS_BYTES_MAX: usize = 512;
/// Longer tokens, address terms and number texts are replaced by a hash: Elasticsearch cuts tokens at 255 UTF-16 units.
const TOKEN_BYTES_MAX: usize = 100;
const ADDRESS_TERM_BYTES_MAX: usize = 1_024;
/// Longer values are cut in an overflow term, which then only says "perhaps".
const OVERFLOW_VALUE_BYTES_MAX: usize = 8_000;

/// The type of a field on the Elasticsearch side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `keyword` (and `text` with `.keyword` for `message`).
    Text,
    Long,
    Double,
    Bool,
    /// Numbers kept as their text: the nearest double, so equal doubles are not decided. Never has the plain name; not read back.
    Number,
    /// Texts that are numbers: the nearest double, as above. Never has the plain name; not read back.
    Numeric,
    /// Texts that are IP addresses. Never has the plain name; not read back.
    Ip,
}

impl Kind {
    pub const ALL: [Self; 7] = [
        Self::Text,
        Self::Long,
        Self::Double,
        Self::Bool,
        Self::Number,
        Self::Numeric,
        Self::Ip,
    ];

    /// What stands behind the plain name in a typed one.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Text => "~text",
            Self::Long => "~long",
            Self::Double => "~double",
            Self::Bool => "~bool",
            Self::Number => "~number",
            Self::Numeric => "~numeric",
            Self::Ip => "~ip",
        }
    }

    /// The type in the mapping.
    pub fn es_type(self) -> &'static str {
        match self {
            Self::Text => "keyword",
            Self::Long => "long",
            Self::Double | Self::Number | Self::Numeric => "double",
            Self::Bool => "boolean",
            Self::Ip => "ip",
        }
    }

    /// Whether the first value of this type takes the address's plain name.
    pub fn takes_plain_name(self) -> bool {
        matches!(self, Self::Text | Self::Long | Self::Double | Self::Bool)
    }

    /// What a plain name with this type in the mapping holds.
    pub fn of_plain_type(es_type: &str) -> Option<Self> {
        match es_type {
            "keyword" | "text" => Some(Self::Text),
            "long" => Some(Self::Long),
            "double" => Some(Self::Double),
            "boolean" => Some(Self::Bool),
            _ => None,
        }
    }
}

/// The plain field name of an address.
pub fn flat_name(address: &str) -> String {
    escaped(address, false)
}

/// The second name for values of this type.
pub fn typed_name(address: &str, kind: Kind) -> String {
    let mut name = escaped(address, false);
    name.push_str(kind.suffix());
    name
}

/// The typed name without dots, used where the server makes objects of dotted names (OpenSearch) and one stands in the way.
pub fn dotless_name(address: &str, kind: Kind) -> String {
    let mut name = escaped(address, true);
    name.push_str(kind.suffix());
    name
}

/// All names under which values of this type at this address can be; each is in use only if the mapping has it (for the plain name: with this type).
pub fn names_of(address: &str, kind: Kind) -> Vec<String> {
    let mut names = Vec::with_capacity(3);
    if kind.takes_plain_name() {
        names.push(flat_name(address));
    }
    names.push(typed_name(address, kind));
    let dotless = dotless_name(address, kind);
    if names.last() != Some(&dotless) {
        names.push(dotless);
    }
    names
}

/// False: values at this address are only in the overflow.
pub fn can_have_field(address: &str) -> bool {
    address.len() <= ADDRESS_BYTES_MAX
}

/// The address and, for a typed name, the type; `None` for Logyard's own fields and foreign ones.
pub fn address_of(name: &str) -> Option<(Cow<'_, str>, Option<Kind>)> {
    if name == own::TIMESTAMP || name == own::AT_TIMESTAMP || name.starts_with(own::PREFIX) {
        return None;
    }
    let (plain, kind) = match name.rfind('~') {
        None => (name, None),
        Some(at) => {
            let (plain, suffix) = name.split_at_checked(at)?;
            let kind = Kind::ALL.into_iter().find(|kind| kind.suffix() == suffix)?;
            (plain, Some(kind))
        }
    };
    Some((unescaped(plain)?, kind))
}

fn escaped(address: &str, without_dots: bool) -> String {
    if address.is_empty() {
        return "%".to_owned();
    }
    if ADDRESS_BYTES_MAX < address.len() {
        return format!("%{:032x}", xxh3_128(address.as_bytes()));
    }
    let first_goes = address.starts_with('_')
        || address == own::TIMESTAMP
        || address == own::AT_TIMESTAMP
        || address == "logyard"
        || address.starts_with(own::PREFIX);
    let dots_go = without_dots
        || address.starts_with('.')
        || address.ends_with('.')
        || address.contains("..")
        // `message` has a sub-field, so nothing else may stand under it.
        || address.starts_with("message.");
    let mut name = String::with_capacity(address.len());
    for (index, c) in address.char_indices() {
        let goes = match c {
            '%' | '~' | '*' => true,
            '.' => dots_go,
            _ => (index == 0 && first_goes) || c.is_whitespace() || c.is_control(),
        };
        if goes {
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                name.push_str(&format!("%{byte:02X}"));
            }
        } else {
            name.push(c);
        }
    }
    name
}

fn unescaped(name: &str) -> Option<Cow<'_, str>> {
    if !name.contains('%') {
        return Some(Cow::Borrowed(name));
    }
    if name == "%" {
        return Some(Cow::Borrowed(""));
    }
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((before, after)) = rest.split_once('%') {
        bytes.extend_from_slice(before.as_bytes());
        let (digits, tail) = after.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = tail;
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

/// A token (of `query::text::tokens`) as it stands in [`own::ANY`]: itself, or a hash where it is long. A hash begins with `#`, which is in no token.
pub fn any_token(token: &str) -> Cow<'_, str> {
    hashed_beyond(token, TOKEN_BYTES_MAX)
}

/// A token under its address as it stands in [`own::WORDS`].
pub fn word_token(address: &str, token: &str) -> String {
    let mut term = word_prefix(address);
    term.push_str(&any_token(token));
    term
}

/// What stands before each token of [`own::WORDS`]: the address, hashed if it is long or holds blanks, and a colon, which is in no token.
pub fn word_prefix(address: &str) -> String {
    let mut prefix = if address.contains(char::is_whitespace) || address.contains(char::is_control)
    {
        hash(address)
    } else {
        hashed_beyond(address, TOKEN_BYTES_MAX).into_owned()
    };
    prefix.push(':');
    prefix
}

/// An address as it stands in [`own::FIELDS`], [`own::LONG`] and [`own::MULTI`].
pub fn address_term(address: &str) -> Cow<'_, str> {
    hashed_beyond(address, ADDRESS_TERM_BYTES_MAX)
}

/// A number or boolean as it stands in [`own::SCALARS`]: `i:500`, `f:12.5`, `n:` and the number's text (hashed if long), `b:true`.
pub fn scalar_term(value: ValueRef<'_>) -> Option<String> {
    match value {
        ValueRef::Bool(value) => Some(format!("b:{value}")),
        ValueRef::Int(value) => Some(format!("i:{value}")),
        ValueRef::Float(value) => Some(format!("f:{}", float_text(value))),
        ValueRef::Number(text) => {
            Some(format!("n:{}", hashed_beyond(text, ADDRESS_TERM_BYTES_MAX)))
        }
        ValueRef::Null | ValueRef::Str(_) | ValueRef::Json(_) => None,
    }
}

/// What an overflow term of this address begins with.
pub fn overflow_prefix(address: &str) -> String {
    format!("{}=", address_term(address))
}

/// A value without a field of its own as it stands in [`own::OVERFLOW`]; cut if it is long.
pub fn overflow_term(address: &str, value: ValueRef<'_>) -> String {
    let text = value.text();
    let mut end = text.len().min(OVERFLOW_VALUE_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!(
        "{}{}",
        overflow_prefix(address),
        text.get(..end).unwrap_or_default()
    )
}

fn hashed_beyond(text: &str, bytes_max: usize) -> Cow<'_, str> {
    if text.len() <= bytes_max && !text.starts_with('#') {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(hash(text))
    }
}

fn hash(text: &str) -> String {
    format!("#{:032x}", xxh3_128(text.as_bytes()))
}

pub const NS_PER_DAY: i64 = 86_400 * 1_000_000_000;
/// 2000-01-01 and 2100-01-01 in days since 1970: a clock gone astray must not make an index for each day of a century.
const FIRST_DAY: i64 = 10_957;
const END_DAY: i64 = 47_482;

/// The UTC day of a time, counted from 1970; `None` for times that share one index because they lie far away.
pub fn day_of(timestamp_ns: i64) -> Option<i64> {
    let day = timestamp_ns.div_euclid(NS_PER_DAY);
    (FIRST_DAY..END_DAY).contains(&day).then_some(day)
}

/// The index of a day: `<prefix>YYYY.MM.DD`, or `<prefix>other`.
pub fn index_of_day(prefix: &str, day: Option<i64>) -> String {
    let time = day.and_then(|day| Timestamp::from_second(day * 86_400).ok());
    match time {
        Some(time) => {
            let text = time.to_string();
            let date = text.get(..10).unwrap_or_default().replace('-', ".");
            format!("{prefix}{date}")
        }
        None => format!("{prefix}other"),
    }
}

/// All indices with records, for the path of a request. Not `<prefix>*`: the prefix of another queue may begin with this one.
pub fn pattern_of(prefix: &str) -> String {
    format!("{prefix}2*.*.*,{prefix}other")
}

/// The index that a record with this time is in.
pub fn index_of(prefix: &str, timestamp_ns: i64) -> String {
    index_of_day(prefix, day_of(timestamp_ns))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_gives_its_address_back() {
        proptest::proptest!(|(address in "[a-c._%~* @\\-üm\u{0}]{0,12}|timestamp|message\\.keyword|logyard(\\.x)?|_id|@timestamp")| {
            for kind in Kind::ALL {
                for name in names_of(&address, kind) {
                    let (back, found) = address_of(&name).unwrap();
                    proptest::prop_assert_eq!(&back, &address, "{}", &name);
                    proptest::prop_assert!(found.is_none_or(|found| found == kind));
                    let parts: Vec<&str> = name.split('.').collect();
                    proptest::prop_assert!(parts.iter().all(|part| !part.trim().is_empty()));
                }
                proptest::prop_assert!(!dotless_name(&address, kind).contains('.'));
            }
            proptest::prop_assert!(!flat_name(&address).starts_with('_'));
        });
    }

    #[test]
    fn ordinary_addresses_are_their_own_names() {
        for address in ["level", "http.status", "größe", "a:b", "messages.x"] {
            assert_eq!(flat_name(address), address);
        }
        assert_eq!(flat_name("timestamp"), "%74imestamp");
        assert_eq!(flat_name("logyard.ns"), "%6Cogyard.ns");
        assert_eq!(flat_name("message.keyword"), "message%2Ekeyword");
        assert_eq!(address_of("logyard.ns"), None);
        assert_eq!(address_of("a~b"), None);
    }

    #[test]
    fn long_tokens_and_addresses_become_hashes_of_one_length() {
        let long = "x".repeat(300);
        assert_eq!(any_token(&long).len(), 33);
        assert_ne!(any_token(&long), any_token(&"x".repeat(301)));
        assert_eq!(word_token("message", "closed"), "message:closed");
        assert!(!word_token("a b", "c").contains(' '));
        assert!(word_token(&long, &long).len() < 100);
        let far = overflow_term(&"ü".repeat(5_000), ValueRef::Str(&"ß".repeat(50_000)));
        assert!(far.len() < 32_766, "{}", far.len());
    }

    #[test]
    fn indices_go_by_day_and_far_times_share_one() {
        assert_eq!(
            index_of("logs-", 1_742_472_000_000_000_000),
            "logs-2025.03.20"
        );
        assert_eq!(index_of("logs-", 946_684_799_999_999_999), "logs-other");
        assert_eq!(
            index_of("logs-", 946_684_800_000_000_000),
            "logs-2000.01.01"
        );
        assert_eq!(
            index_of("logs-", 4_102_444_799_999_999_999),
            "logs-2099.12.31"
        );
        assert_eq!(index_of("logs-", 4_102_444_800_000_000_000), "logs-other");
        assert_eq!(index_of("logs-", i64::MIN), "logs-other");
    }
}
