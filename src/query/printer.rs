//! A filter as text: the normal form of a query. It reads back as a filter that prints the same, and two filters that print the same mean the same.

use std::fmt::Write as _;
use std::ops::Bound;

use crate::query::ast::{Expr, Field, Match, Term};
use crate::record::level;
use crate::record::timestamp;
use crate::record::{LEVEL, TIMESTAMP};

/// Everything in quotes and parentheses; not meant to be pretty.
pub fn to_text(expr: &Expr) -> String {
    let mut out = String::new();
    print(expr, &mut out);
    out
}

fn print(expr: &Expr, out: &mut String) {
    match expr {
        Expr::All => out.push('*'),
        Expr::And(parts) => joined(parts, " AND ", out),
        Expr::Or(parts) => joined(parts, " OR ", out),
        Expr::Not(inner) => {
            out.push_str("NOT ");
            print(inner, out);
        }
        Expr::Term(term) => print_term(term, out),
    }
}

fn joined(parts: &[Expr], separator: &str, out: &mut String) {
    out.push('(');
    for (index, part) in parts.iter().enumerate() {
        if index != 0 {
            out.push_str(separator);
        }
        print(part, out);
    }
    out.push(')');
}

fn print_term(term: &Term, out: &mut String) {
    let name = match &term.field {
        Field::Any => None,
        // An alias asks its standard name too: the last one is what was asked.
        Field::Addresses(addresses) => addresses.last().map(String::as_str),
    };
    let is_time =
        matches!(&term.field, Field::Addresses(all) if all.first().is_some_and(|a| a == TIMESTAMP));
    if let Match::OneOf(texts) = &term.matcher {
        return print_one_of(name.unwrap_or(LEVEL), texts, out);
    }
    let is_bare = match &term.matcher {
        Match::Words { .. } | Match::Contains(_) | Match::Regex(_) => true,
        // Bare, these would name a field or exclude.
        Match::Wildcard(pattern) => !has_plain_colon(pattern) && !pattern.starts_with(['-', '!']),
        _ => false,
    };
    match name {
        Some(name) => {
            quote(name, out);
            out.push(':');
        }
        None if is_bare => {}
        None => out.push_str("*:"),
    }
    match &term.matcher {
        Match::Words { text, .. } | Match::Contains(text) => quote(text, out),
        Match::Exact(text) => {
            out.push('=');
            quote(text, out);
        }
        Match::OneOf(_) => {}
        Match::Wildcard(pattern) => out.push_str(pattern),
        Match::Regex(pattern) => {
            out.push('/');
            escape_slashes(pattern, out);
            out.push('/');
        }
        Match::Range { low, high } => print_range(low, high, is_time, out),
        Match::Exists => out.push('*'),
        Match::Cidr(network) => {
            let _ = write!(out, "{network}");
        }
    }
}

/// One term for each group of synonyms: that is how a level is asked.
fn print_one_of(name: &str, texts: &[String], out: &mut String) {
    let mut groups: Vec<&str> = Vec::new();
    for text in texts {
        let synonyms = level::synonyms(text);
        if !groups
            .iter()
            .any(|group| synonyms.iter().any(|s| s == group))
        {
            groups.push(text);
        }
    }
    if groups.is_empty() {
        // None of no texts: nothing is graver than the gravest.
        out.push_str("NOT *");
        return;
    }
    // What it reads back as, an OR of the groups, must print the same.
    let is_many = 1 < groups.len();
    if is_many {
        out.push('(');
    }
    for (index, group) in groups.into_iter().enumerate() {
        if index != 0 {
            out.push_str(" OR ");
        }
        quote(name, out);
        out.push(':');
        quote(group, out);
    }
    if is_many {
        out.push(')');
    }
}

fn print_range(low: &Bound<String>, high: &Bound<String>, is_time: bool, out: &mut String) {
    let bound = |text: &String, out: &mut String| {
        let time = text.parse().ok().filter(|_| is_time);
        match time {
            Some(ns) => quote(&timestamp::format(ns, 9), out),
            None => quote(text, out),
        }
    };
    out.push(if matches!(low, Bound::Excluded(_)) {
        '{'
    } else {
        '['
    });
    match low {
        Bound::Included(text) | Bound::Excluded(text) => bound(text, out),
        Bound::Unbounded => out.push('*'),
    }
    out.push_str(" TO ");
    match high {
        Bound::Included(text) | Bound::Excluded(text) => bound(text, out),
        Bound::Unbounded => out.push('*'),
    }
    out.push(if matches!(high, Bound::Excluded(_)) {
        '}'
    } else {
        ']'
    });
}

fn quote(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
}

/// A colon without a backslash before it.
fn has_plain_colon(pattern: &str) -> bool {
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            ':' => return true,
            '\\' => drop(chars.next()),
            _ => {}
        }
    }
    false
}

/// A slash that is not escaped would end the expression.
fn escape_slashes(pattern: &str, out: &mut String) {
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                out.push(c);
                out.extend(chars.next());
            }
            '/' => out.push_str("\\/"),
            _ => out.push(c),
        }
    }
}
