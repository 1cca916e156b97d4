//! The index against a naive map, on small segments with many pages.
use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use roaring::RoaringBitmap;

use crate::{Candidates, IndexBuilder, IndexError, IndexOptions, IndexReader, NO_KEY, tokens};

fn options(page_rows: u32) -> IndexOptions {
    IndexOptions {
        page_rows,
        row_set_page_share: 1_000,
        seed: Some(42),
        ..IndexOptions::default()
    }
}

/// What an index must answer: rows by (column, token).
#[derive(Default)]
struct Model {
    rows: BTreeMap<(u32, String), BTreeSet<u32>>,
}

impl Model {
    fn add_text(&mut self, row: u32, column: u32, text: &str) {
        for token in tokens(text) {
            self.add_value(row, column, &token);
        }
    }

    fn add_value(&mut self, row: u32, column: u32, value: &str) {
        self.rows
            .entry((column, value.to_owned()))
            .or_default()
            .insert(row);
    }

    fn rows(&self, column: Option<u32>, token: &str) -> RoaringBitmap {
        self.rows
            .iter()
            .filter(|((c, t), _)| column.is_none_or(|column| column == *c) && t == token)
            .flat_map(|(_, rows)| rows)
            .collect()
    }

    /// Checks every token, in its columns, in any, and in one where it may be absent; how many were exact.
    fn check(&self, bytes: &[u8]) -> usize {
        let reader = IndexReader::open(bytes, bytes.len() as u64).unwrap();
        reader.verify().unwrap();
        let mut n_exact = 0;
        for (column, token) in self.rows.keys() {
            for column in [None, Some(*column), Some(column + 1)] {
                let expected = self.rows(column, token);
                let count = reader.count(column, token).unwrap();
                match reader.lookup(column, token).unwrap() {
                    Candidates::Empty => {
                        assert!(expected.is_empty(), "{column:?} {token}");
                        assert_eq!(count, Some(0));
                    }
                    Candidates::Rows(rows) => {
                        assert_eq!(rows, expected, "{column:?} {token}");
                        assert_eq!(count, Some(rows.len()));
                        n_exact += 1;
                    }
                    Candidates::Pages(pages) => {
                        assert_eq!(count, None);
                        assert!(pages.iter().all(|page| page < reader.n_pages()));
                        for row in expected {
                            assert!(
                                pages.contains(row / reader.page_rows()),
                                "{column:?} {token} {row}"
                            );
                        }
                    }
                }
            }
        }
        n_exact
    }
}

#[derive(Clone, Debug)]
enum Column {
    Texts(Vec<Option<String>>),
    Values(Vec<u16>),
    Dictionary(Vec<String>, Vec<Option<u32>>),
}

fn column() -> impl Strategy<Value = Column> {
    let word = prop_oneof![
        "[a-cA-C]{1,2}",
        "[αβγÄß東]{1,3}",
        "[a-z0-9]{6,20}",
        "[ -~]{1,5}"
    ];
    let text = prop::collection::vec(word, 0..6).prop_map(|words| words.join(" "));
    prop_oneof![
        prop::collection::vec(prop::option::weighted(0.9, text.clone()), 0..120)
            .prop_map(Column::Texts),
        prop::collection::vec(0_u16..40, 0..120).prop_map(Column::Values),
        (
            prop::collection::vec(text, 1..5),
            prop::collection::vec(prop::option::of(0_u32..5), 0..120)
        )
            .prop_map(|(values, keys)| Column::Dictionary(values, keys)),
    ]
}

fn build(n_rows: u32, options: IndexOptions, columns: &[Column]) -> (Vec<u8>, Model) {
    let mut builder = IndexBuilder::new(n_rows, options);
    let mut model = Model::default();
    for (column, content) in (0..).map(|c| c * 2).zip(columns) {
        match content {
            Column::Texts(texts) => {
                for (row, text) in (0..).zip(texts) {
                    if let Some(text) = text {
                        builder.add_text(row, column, text);
                        model.add_text(row, column, text);
                    }
                }
            }
            Column::Values(values) => {
                for (row, value) in (0..).zip(values) {
                    builder.add_value(row, column, &value.to_string());
                    model.add_value(row, column, &value.to_string());
                }
            }
            Column::Dictionary(values, keys) => {
                // In stretches that need not end where a page does.
                let (first, rest) = keys.split_at(keys.len() / 3);
                for (first_row, keys) in [(0, first), (first.len() as u32, rest)] {
                    let n_values = values.len();
                    let keys = keys.iter().map(|key| key.unwrap_or(NO_KEY));
                    let keys: Vec<u32> = keys.collect();
                    builder.add_dictionary(column, first_row, &keys, n_values, |value, tokens| {
                        tokens.text(&values[value]);
                    });
                }
                for (row, key) in (0..).zip(keys) {
                    if let Some(value) = key.and_then(|key| values.get(key as usize)) {
                        model.add_text(row, column, value);
                    }
                }
            }
        }
    }
    (builder.finish(), model)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn answers_equal_the_model(columns in prop::collection::vec(column(), 0..5), page_rows in 1_u32..9) {
        let (bytes, model) = build(120, options(page_rows), &columns);
        model.check(&bytes);
    }

    #[test]
    fn no_room_for_rows_costs_no_answer(columns in prop::collection::vec(column(), 1..4), room in 0_usize..200) {
        let mut options = options(4);
        options.rows_memory_size_bytes_max = room;
        options.row_set_bits_per_row = room as u32 % 20;
        let (bytes, model) = build(120, options, &columns);
        model.check(&bytes);
    }
}

#[test]
fn frequent_tokens_have_exact_rows() {
    let texts: Vec<Option<String>> = (0..2_000)
        .map(|row| {
            Some(format!(
                "User u{row} {} logged in",
                if row % 16 == 3 { "ERROR" } else { "ok" }
            ))
        })
        .collect();
    let keys = (0..2_000).map(|row| Some(row % 3)).collect();
    let levels = vec![
        "info level".to_owned(),
        "error level".to_owned(),
        "debug".to_owned(),
    ];
    let columns = [Column::Texts(texts), Column::Dictionary(levels, keys)];
    let (bytes, model) = build(2_000, options(64), &columns);
    // user, error, ok, logged, in, info, level, debug; each in its column, any, and one without it.
    assert!(8 * 3 - 1 <= model.check(&bytes) + 8);
    let reader = IndexReader::open(&bytes, bytes.len() as u64).unwrap();
    let rows = |column, token| match reader.lookup(column, token).unwrap() {
        Candidates::Rows(rows) => rows.len(),
        other => panic!("{token}: {other:?}"),
    };
    assert_eq!(rows(Some(0), "error"), 125);
    assert_eq!(rows(Some(2), "error"), 667);
    assert_eq!(rows(None, "logged"), 2_000);
    assert_eq!(rows(None, "error"), model.rows(None, "error").len());
    assert_eq!(reader.lookup(Some(2), "logged").unwrap(), Candidates::Empty);
    assert!(
        matches!(reader.lookup(None, "u77").unwrap(), Candidates::Pages(pages) if pages.contains(1))
    );
}

#[test]
fn absent_tokens_are_mostly_known_to_be_absent() {
    let mut builder = IndexBuilder::new(50_000, options(512));
    for row in 0..50_000 {
        builder.add_value(row, 0, &format!("id{row}"));
    }
    let bytes = builder.finish();
    let reader = IndexReader::open(&bytes, bytes.len() as u64).unwrap();
    let n_pages: u64 = (0..10_000)
        .map(
            |n| match reader.lookup(None, &format!("absent{n}")).unwrap() {
                Candidates::Empty => 0,
                Candidates::Pages(pages) => pages.len(),
                Candidates::Rows(rows) => panic!("{rows:?}"),
            },
        )
        .sum();
    // One in eight look-ups, one page each.
    assert!((700..1_800).contains(&n_pages), "{n_pages}");
    assert!(bytes.len() < 50_000 * 2, "{}", bytes.len());
}

#[test]
fn odd_shapes() {
    let huge = "x".repeat(200_000);
    let wide: String = (0..150_000).map(|n| format!("w{n} ")).collect();
    let mut builder = IndexBuilder::new(3, options(2));
    let mut model = Model::default();
    for (row, column, text) in [
        (0, 7, huge.as_str()),
        (2, 7, wide.as_str()),
        (1, 7, "İ back"),
        (0, u32::MAX - 1, ""),
        (2, 0, "東京 \0"),
    ] {
        builder.add_text(row, column, text);
        model.add_text(row, column, text);
    }
    builder.add_value(1, 3, "");
    model.add_value(1, 3, "");
    let bytes = builder.finish();
    let reader = IndexReader::open(&bytes, bytes.len() as u64).unwrap();
    for ((column, token), rows) in model.rows {
        let Candidates::Pages(pages) = reader.lookup(Some(column), &token).unwrap() else {
            panic!("{token}");
        };
        assert!(rows.iter().all(|row| pages.contains(row / 2)));
    }
    for n_rows in [0, 1] {
        let bytes = IndexBuilder::new(n_rows, IndexOptions::default()).finish();
        let reader = IndexReader::open(&bytes, bytes.len() as u64).unwrap();
        assert_eq!(reader.lookup(None, "a").unwrap(), Candidates::Empty);
    }
}

/// A small index with every part in it.
fn sample() -> (Vec<u8>, Model) {
    let texts = (0..200)
        .map(|row| {
            Some(format!(
                "request {row} {} took {}ms",
                ["ok", "FAILED", "retried"][row % 3],
                row * 7 % 50
            ))
        })
        .collect();
    let keys = (0..200)
        .map(|row| (row % 5 != 0).then_some(row % 2))
        .collect();
    let values = vec!["GET /a ok".to_owned(), "POST /b".to_owned()];
    build(
        200,
        options(16),
        &[Column::Texts(texts), Column::Dictionary(values, keys)],
    )
}

#[test]
fn version_1_opens() {
    let golden = include_bytes!("../tests/fixtures/version_1.tokens");
    assert!(15 < sample().1.check(golden));
}

/// `cargo test -p logyard-tokens -- --ignored` after a change of the format, with a new file name; the old file stays.
#[test]
#[ignore = "writes the fixture"]
fn write_fixture() {
    std::fs::write("tests/fixtures/version_1.tokens", sample().0).unwrap();
}

#[test]
fn damaged_bytes_give_an_error_or_the_same_answer() {
    let (bytes, model) = sample();
    let ask = |bytes: &[u8]| -> Result<Vec<Candidates>, IndexError> {
        let reader = IndexReader::open(bytes, bytes.len() as u64)?;
        let columns = [None, Some(0), Some(2)];
        columns
            .iter()
            .flat_map(|column| {
                model
                    .rows
                    .keys()
                    .map(|(_, token)| reader.lookup(*column, token))
            })
            .collect()
    };
    let good = ask(&bytes).unwrap();
    let mut n_errors = 0;
    for at in 0..bytes.len() {
        for flip in [1, 0x10, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[at] ^= flip;
            let is_found = IndexReader::open(&damaged, damaged.len() as u64)
                .and_then(|reader| reader.verify())
                .is_err();
            assert!(is_found, "byte {at} flipped by {flip} is not noticed");
            match ask(&damaged) {
                Ok(answers) => assert_eq!(answers, good, "byte {at} flipped by {flip}"),
                Err(error) => {
                    assert!(error.to_string().contains("byte"), "{error}");
                    n_errors += 1;
                }
            }
        }
        assert!(ask(&bytes[..at]).is_err(), "cut at {at}");
    }
    assert!(bytes.len() * 3 < n_errors, "{n_errors}");
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(ask(&longer).is_err());
}

#[test]
fn a_newer_version_says_so() {
    let (mut bytes, _) = sample();
    bytes[6] = 2;
    let checksum = xxhash_rust::xxh3::xxh3_64(&bytes[..120]);
    bytes[120..128].copy_from_slice(&checksum.to_le_bytes());
    let error = IndexReader::open(bytes.as_slice(), bytes.len() as u64).unwrap_err();
    assert!(
        matches!(error, IndexError::Version { found: 2, known: 1 }),
        "{error}"
    );
}
