//! Dead letters: those in the catalog and those still in the head, as one list, newest position first.

use std::collections::BTreeMap;

use crate::common::error::Result;
use crate::record::{DeadLetter, Position};
use crate::store::embedded::disk::Disk;
use crate::store::{DeadLetterPage, DeadLetterRequest};

impl Disk {
    pub fn dead_letters(&self, request: &DeadLetterRequest) -> Result<DeadLetterPage> {
        let wanted = tokens(&request.q);
        let mut page = DeadLetterPage::default();
        let mut take = |letter: &DeadLetter, is_after_cursor: bool| {
            if !matches(letter, &wanted) {
                return;
            }
            page.total += 1;
            if !is_after_cursor {
                return;
            }
            if page.letters.len() < request.limit {
                page.letters.push(letter.clone());
            } else {
                page.has_more = true;
            }
        };
        let is_after = |position| request.before.is_none_or(|before| position < before);
        // The head first: a flush may move letters from there to the catalog in between, never back.
        let mut head = self.head_letters();
        self.catalog.letters(None, |letter| {
            while let Some(newer) = head.last_entry().filter(|e| letter.position < *e.key()) {
                let newer = newer.remove();
                take(&newer, is_after(newer.position));
            }
            head.remove(&letter.position);
            take(&letter, is_after(letter.position));
            true
        })?;
        while let Some((position, letter)) = head.pop_last() {
            take(&letter, is_after(position));
        }
        Ok(page)
    }

    pub fn dead_letters_by_position(&self, positions: &[Position]) -> Result<Vec<DeadLetter>> {
        let head = self.head_letters();
        let mut letters = Vec::new();
        for position in positions {
            match head.get(position) {
                Some(letter) => letters.push(letter.clone()),
                None => letters.extend(self.catalog.letter(*position)?),
            }
        }
        Ok(letters)
    }

    fn head_letters(&self) -> BTreeMap<Position, DeadLetter> {
        let snapshot = self.view.snapshot();
        let letters = snapshot
            .head_letters
            .iter()
            .flat_map(|letters| letters.iter());
        letters
            .map(|letter| (letter.position, letter.clone()))
            .collect()
    }

    /// Dead letters, those in the head included.
    pub fn n_dead_letters(&self) -> Result<u64> {
        let n_head: usize = self
            .view
            .snapshot()
            .head_letters
            .iter()
            .map(|l| l.len())
            .sum();
        Ok(self.catalog.n_letters()? + n_head as u64)
    }
}

/// Maximal runs of letters and digits, without case.
fn tokens(text: &str) -> Vec<String> {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|token| !token.is_empty())
        .map(|token| token.chars().flat_map(char::to_lowercase).collect())
        .collect()
}

fn matches(letter: &DeadLetter, wanted: &[String]) -> bool {
    if wanted.is_empty() {
        return true;
    }
    let raw = String::from_utf8_lossy(&letter.raw);
    let source = letter.source.as_deref().unwrap_or("");
    let mut held: Vec<String> = Vec::new();
    for text in [&letter.reason, &letter.code, source, &raw] {
        held.extend(tokens(text));
    }
    wanted.iter().all(|token| held.contains(token))
}
