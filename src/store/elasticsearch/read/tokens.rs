//! Wildcards and regular expressions asked of the tokens of texts: what needs no more than one token is exact, other patterns must at least have
//! their runs of letters and digits in tokens.

use regex_syntax::ParserBuilder;
use regex_syntax::hir::{Hir, HirKind};

use crate::query::Match;
use crate::store::elasticsearch::names::own;
use crate::store::elasticsearch::read::bounds::{Bounds, Query};
use crate::store::elasticsearch::read::clauses;
use crate::store::elasticsearch::read::lucene;

/// Any characters of a token: neither the mark of a hash nor the end of an address.
const ANY_CHARS: &str = "[^#:]*";
/// Begins the tokens that are hashes.
const HASH: &str = "#";

/// `err*`, `*err` or `*err*`: one run of letters and digits, free at one end or both.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    text: String,
    begins_free: bool,
    ends_free: bool,
}

/// The pattern as one run, if it is as simple as that. It matches a text exactly if a token of it does: letters and digits that stand together
/// are inside one token, and a token begins and ends where the pattern's edges must be.
pub fn simple_wildcard(matcher: &Match) -> Option<Run> {
    let Match::Wildcard(pattern) = matcher else {
        return None;
    };
    let after = pattern.trim_start_matches('*');
    let text = after.trim_end_matches('*');
    let is_run = !text.is_empty() && text.chars().all(char::is_alphanumeric);
    is_run.then(|| Run {
        text: text.to_owned(),
        begins_free: after.len() < pattern.len(),
        ends_free: text.len() < after.len(),
    })
}

impl Run {
    /// Asked of the tokens with this prefix in a field.
    pub fn among(&self, field: &str, prefix: &str) -> Bounds {
        let before = if self.begins_free { ANY_CHARS } else { "" };
        let after = match self.text.chars().last() {
            _ if !self.ends_free => "",
            // The lowercase of the dotted capital I is an `i` and a dot above, which stands nowhere else in a token.
            Some('i' | 'I') => "([^#:\u{307}][^#:]*)?",
            _ => ANY_CHARS,
        };
        let run = lucene::folded_lowercase(&self.text);
        let prefix_pattern = lucene::escaped(prefix);
        let hashed = Query::Clause(clauses::prefix(field, &format!("{prefix}{HASH}")));
        match lucene::bounded(format!("{prefix_pattern}{before}{run}{after}")) {
            Some(pattern) => {
                let found = Query::Clause(clauses::regexp(field, &pattern));
                Bounds {
                    upper: Query::or([found.clone(), hashed]),
                    lower: found,
                }
            }
            None => Bounds::at_most(Query::or([
                Query::Clause(clauses::prefix(field, prefix)),
                hashed,
            ])),
        }
    }
}

/// What the tokens of any text that matches must hold; `All` where nothing is known.
pub fn required(matcher: &Match) -> Query {
    match matcher {
        Match::Wildcard(pattern) => {
            let mut literals = String::new();
            let mut chars = pattern.chars();
            while let Some(c) = chars.next() {
                match c {
                    '*' | '?' => literals.push(' '),
                    '\\' => literals.extend(chars.next()),
                    other => literals.push(other),
                }
            }
            runs(&literals)
        }
        Match::Regex(pattern) => {
            let parsed = ParserBuilder::new().build().parse(pattern);
            parsed.map_or(Query::All, |hir| required_by(&hir))
        }
        _ => Query::All,
    }
}

fn required_by(hir: &Hir) -> Query {
    match hir.kind() {
        HirKind::Literal(literal) => std::str::from_utf8(&literal.0).map_or(Query::All, runs),
        HirKind::Capture(capture) => required_by(&capture.sub),
        HirKind::Repetition(repetition) if 0 < repetition.min => required_by(&repetition.sub),
        HirKind::Concat(parts) => Query::and(parts.iter().map(required_by)),
        HirKind::Alternation(parts) => Query::or(parts.iter().map(required_by)),
        HirKind::Empty | HirKind::Look(_) | HirKind::Class(_) | HirKind::Repetition(_) => {
            Query::All
        }
    }
}

/// Every run of letters and digits in `text` stands in a token.
fn runs(text: &str) -> Query {
    let runs = text
        .split(|c: char| !c.is_alphanumeric())
        .filter(|run| !run.is_empty());
    Query::and(runs.map(|run| {
        let run = Run {
            text: run.to_owned(),
            begins_free: true,
            ends_free: true,
        };
        run.among(own::ANY, "").upper
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_run_is_asked_of_tokens_exactly() {
        let run = |pattern: &str| simple_wildcard(&Match::Wildcard(pattern.to_owned()));
        for pattern in ["*", "e?r", "a-b*", "*a*b*", "\\**", ""] {
            assert_eq!(run(pattern), None, "{pattern}");
        }
        for (pattern, expected) in [
            ("Err*", "a\\.b\\:err[^#:]*"),
            ("*err", "a\\.b\\:[^#:]*err"),
            ("*rk*", "a\\.b\\:[^#:]*rk[^#:]*"),
            ("hi*", "a\\.b\\:hi([^#:\u{307}][^#:]*)?"),
        ] {
            let found = run(pattern).unwrap().among(own::WORDS, "a.b:");
            assert_eq!(
                found.lower,
                Query::Clause(clauses::regexp(own::WORDS, expected))
            );
            assert_ne!(found.upper, found.lower);
        }
    }

    #[test]
    fn the_runs_of_a_pattern_must_be_there() {
        let token = |run: &str| {
            Query::or([
                Query::Clause(clauses::regexp(own::ANY, &format!("[^#:]*{run}[^#:]*"))),
                Query::Clause(clauses::prefix(own::ANY, "#")),
            ])
        };
        let regex = |pattern: &str| required(&Match::Regex(pattern.to_owned()));
        assert_eq!(
            regex("^node-\\d+ (up|down)$"),
            Query::and([token("node"), Query::or([token("up"), token("down")])])
        );
        assert_eq!(regex("(up|\\d)"), Query::All);
        assert_eq!(regex("x*"), Query::All);
        assert_eq!(
            required(&Match::Wildcard("ab*:c?d".to_owned())),
            Query::and([token("ab"), token("c"), token("d")])
        );
    }
}
