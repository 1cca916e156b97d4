//! The query language's parser: text → [`Expr`], with the byte offset of every fault.
//!
//! ```text
//! or     = and { "OR" and }
//! and    = unary { [ "AND" ] unary }                       a blank means AND
//! unary  = ( "NOT" | "-" | "!" ) unary | primary
//! primary = "(" or ")" | name ":" ( value | "(" or ")" ) | value
//! value  = quoted | "/" regex "/" | "*" | word
//!        | "=" ( quoted | word ) | ( ">" | ">=" | "<" | "<=" ) ( quoted | word )
//!        | ( "[" | "{" ) bound "TO" bound ( "]" | "}" )    the last three after a name only
//! ```
//!
//! Keywords are upper case; `and` is a word. One pass, no backtracking beyond one token, depth and sizes bounded.

mod scan;
mod value;

use crate::common::error::{Error, Result};
use crate::query::ast::{Expr, Field, Match, Term};
use crate::query::parser::scan::{Scanner, Word};
use crate::record::aliases::Aliases;

/// Bytes of a query.
pub const QUERY_BYTES_MAX: usize = 16 * 1024;
/// Terms of a query.
pub const TERMS_MAX: usize = 1_024;
/// Nested parentheses and negations.
pub const DEPTH_MAX: usize = 64;

/// What the meaning of a query depends on besides its text.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    pub aliases: &'a Aliases,
    /// For relative times in bounds of `timestamp`.
    pub now_ns: i64,
}

/// Reads a query; an empty one selects everything.
pub fn parse(text: &str, context: Context<'_>) -> Result<Expr> {
    if QUERY_BYTES_MAX < text.len() {
        return Err(fault(
            QUERY_BYTES_MAX,
            format!(
                "the query has {} bytes; at most {QUERY_BYTES_MAX} are read",
                text.len()
            ),
        ));
    }
    let mut parser = Parser {
        scanner: Scanner::new(text),
        context,
        depth: 0,
        n_terms: 0,
    };
    parser.scanner.skip_blanks();
    if parser.scanner.is_at_end() {
        return Ok(Expr::All);
    }
    let expr = parser.or(None)?;
    match parser.scanner.peek() {
        None => Ok(expr),
        Some(')') => {
            Err(parser.error("this `)` closes nothing; remove it, or quote the text it belongs to"))
        }
        Some(_) => Err(parser.error("expected a term here")),
    }
}

struct Parser<'a> {
    scanner: Scanner<'a>,
    context: Context<'a>,
    depth: usize,
    n_terms: usize,
}

/// What stands before a term.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keyword {
    And,
    Or,
    Not,
}

impl Parser<'_> {
    /// `field` is that of the enclosing `name:( … )`.
    fn or(&mut self, field: Option<&Field>) -> Result<Expr> {
        let mut parts = vec![self.and(field)?];
        while self.take_keyword(Keyword::Or) {
            self.expect_operand("OR")?;
            parts.push(self.and(field)?);
        }
        Ok(one_or(parts, Expr::Or))
    }

    fn and(&mut self, field: Option<&Field>) -> Result<Expr> {
        let mut parts = vec![self.unary(field)?];
        loop {
            if self.take_keyword(Keyword::And) {
                self.expect_operand("AND")?;
            } else if self.scanner.peek().is_none_or(|c| c == ')')
                || self.peek_keyword() == Some(Keyword::Or)
            {
                break;
            }
            parts.push(self.unary(field)?);
        }
        Ok(one_or(parts, Expr::And))
    }

    fn unary(&mut self, field: Option<&Field>) -> Result<Expr> {
        let at = self.scanner.at();
        let is_negated = if self.take_keyword(Keyword::Not) {
            true
        } else {
            let next = self.scanner.peek_second();
            let binds = next.is_some_and(|c| !c.is_whitespace() && c != ')');
            binds && (self.scanner.take('-') || self.scanner.take('!'))
        };
        if !is_negated {
            return self.primary(field);
        }
        self.scanner.skip_blanks();
        self.expect_operand("NOT")?;
        self.enter(at)?;
        let inner = self.unary(field)?;
        self.depth -= 1;
        Ok(Expr::Not(Box::new(inner)))
    }

    fn primary(&mut self, field: Option<&Field>) -> Result<Expr> {
        let at = self.scanner.at();
        if let Some(keyword) = self.peek_keyword() {
            let name = match keyword {
                Keyword::And => "AND",
                Keyword::Or => "OR",
                Keyword::Not => "NOT",
            };
            return Err(self.error(&format!(
                "expected a term before `{name}`; to find the word itself, quote it: \"{name}\""
            )));
        }
        if self.scanner.take('(') {
            return self.group(at, field);
        }
        if let Some((name, has_wildcard)) = self.field_name(field)? {
            let field = match (name.as_str(), has_wildcard) {
                ("*", true) => Field::Any,
                (_, false) => Field::Addresses(self.context.aliases.addresses(&name)),
                _ => {
                    let advice = "the name of a field takes no wildcard; write `*:` for any field, or `\\*` for a star";
                    return Err(fault(at, advice.to_owned()));
                }
            };
            if self.scanner.take('(') {
                return self.group(at, Some(&field));
            }
            return self.term(at, |parser| parser.named_value(&name, &field));
        }
        match field {
            None => self.term(at, Self::bare_value),
            Some(field) => self.term(at, |parser| parser.grouped_value(field)),
        }
    }

    /// After the opening parenthesis.
    fn group(&mut self, at: usize, field: Option<&Field>) -> Result<Expr> {
        self.enter(at)?;
        self.scanner.skip_blanks();
        if self.scanner.peek() == Some(')') {
            return Err(fault(
                at,
                "empty parentheses; put a term inside, or quote the text they belong to".to_owned(),
            ));
        }
        let inner = self.or(field)?;
        if !self.scanner.take(')') {
            return Err(fault(at, "this `(` is never closed; add a `)`".to_owned()));
        }
        self.scanner.skip_blanks();
        self.depth -= 1;
        Ok(inner)
    }

    fn term(&mut self, at: usize, read: impl FnOnce(&mut Self) -> Result<Expr>) -> Result<Expr> {
        self.n_terms += 1;
        if TERMS_MAX < self.n_terms {
            return Err(fault(
                at,
                format!("more than {TERMS_MAX} terms; split the query"),
            ));
        }
        let expr = read(self)?;
        self.scanner.skip_blanks();
        Ok(expr)
    }

    /// A name and its colon, or nothing.
    fn field_name(&mut self, enclosing: Option<&Field>) -> Result<Option<(String, bool)>> {
        let at = self.scanner.at();
        let Some((name, has_wildcard)) = self.scanner.name_and_colon()? else {
            return Ok(None);
        };
        if enclosing.is_some() {
            return Err(fault(
                at,
                format!(
                    "`{name}:` stands inside the parentheses of another field; close them first"
                ),
            ));
        }
        if name.is_empty() {
            return Err(fault(
                at,
                "expected a field's name before `:`; to find a colon, quote it".to_owned(),
            ));
        }
        Ok(Some((name, has_wildcard)))
    }

    /// A value without a name: any field.
    fn bare_value(&mut self) -> Result<Expr> {
        let at = self.scanner.at();
        match self.scanner.value_start()? {
            Word::Text(text) if text.is_empty() => Err(fault(
                at,
                "nothing stands between these quotes; write the text to find".to_owned(),
            )),
            word => self.matched(at, Field::Any, word),
        }
    }

    /// A value inside `name:( … )`.
    fn grouped_value(&mut self, field: &Field) -> Result<Expr> {
        let at = self.scanner.at();
        self.value_of(at, field)
    }

    fn named_value(&mut self, name: &str, field: &Field) -> Result<Expr> {
        let at = self.scanner.at();
        if self
            .scanner
            .peek()
            .is_none_or(|c| c.is_whitespace() || c == ')')
        {
            return Err(fault(
                at,
                format!(
                    "expected a value after `{name}:`; `{name}:*` finds records that have the field"
                ),
            ));
        }
        if name == "_exists_" {
            let asked = self.scanner.plain_word()?;
            return Ok(Expr::Term(Term {
                field: Field::Addresses(self.context.aliases.addresses(&asked)),
                matcher: Match::Exists,
            }));
        }
        self.value_of(at, field)
    }

    fn matched(&self, at: usize, field: Field, word: Word) -> Result<Expr> {
        let matcher = match word {
            Word::Star if field == Field::Any => return Ok(Expr::All),
            Word::Star => Match::Exists,
            Word::Text(text) if text.is_empty() => Match::Exact(text),
            Word::Regex(pattern) => value::regex(pattern, at)?,
            Word::Wildcard(pattern) => value::wildcard(pattern, at)?,
            Word::Text(text) => value::words(text),
        };
        Ok(Expr::Term(Term { field, matcher }))
    }

    fn enter(&mut self, at: usize) -> Result<()> {
        self.depth += 1;
        if DEPTH_MAX < self.depth {
            return Err(fault(
                at,
                format!("nested deeper than {DEPTH_MAX}; use fewer parentheses and negations"),
            ));
        }
        Ok(())
    }

    fn expect_operand(&self, operator: &str) -> Result<()> {
        match self.scanner.peek() {
            None | Some(')') => Err(self.error(&format!("expected a term after `{operator}`; to find the word itself, quote it: \"{operator}\""))),
            Some(_) => Ok(()),
        }
    }

    fn peek_keyword(&self) -> Option<Keyword> {
        match self.scanner.peek_bare_word() {
            "AND" | "&&" => Some(Keyword::And),
            "OR" | "||" => Some(Keyword::Or),
            "NOT" => Some(Keyword::Not),
            _ => None,
        }
    }

    fn take_keyword(&mut self, keyword: Keyword) -> bool {
        if self.peek_keyword() != Some(keyword) {
            return false;
        }
        self.scanner.skip_bare_word();
        self.scanner.skip_blanks();
        true
    }

    fn error(&self, message: &str) -> Error {
        fault(self.scanner.at(), message.to_owned())
    }
}

fn one_or(mut parts: Vec<Expr>, many: impl FnOnce(Vec<Expr>) -> Expr) -> Expr {
    match parts.pop() {
        Some(only) if parts.is_empty() => only,
        Some(last) => {
            parts.push(last);
            many(parts)
        }
        None => Expr::All,
    }
}

/// An error at a byte of the query.
pub(super) fn fault(at: usize, message: String) -> Error {
    Error::invalid("invalid_query", message)
        .with_parameter("q")
        .with_position(at)
}

#[cfg(test)]
mod tests;
