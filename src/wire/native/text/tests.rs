//! Real lines of many programs.

use super::*;

#[test]
fn numbers_are_told_from_texts() {
    for (text, expected) in [
        ("0", true),
        ("-12.5", true),
        ("007", false),
        ("1.", false),
        ("1e5", false),
        ("", false),
    ] {
        assert_eq!(is_json_number(text), expected, "{text}");
    }
}
