//! Records → CSV (RFC 4180) that a spreadsheet may open: texts that it would take for a formula get an apostrophe in front.
//!
//! Columns are the standard names, addresses of fields, and [`REST`]: all other fields as one JSON object.

use crate::record::key::address;
use crate::record::{Record, TIMESTAMP, ValueRef, timestamp};
use crate::wire::json_text::{push_string, push_value};

/// The column that holds what has no column of its own.
pub const REST: &str = "fields";

/// Writes one table.
pub struct CsvWriter {
    columns: Vec<String>,
    cell: Vec<u8>,
}

impl CsvWriter {
    /// `fields` are addresses; none stands for the standard columns and [`REST`].
    pub fn new(fields: Option<&[String]>) -> Self {
        let columns = match fields {
            Some(fields) => fields.to_vec(),
            None => ["id", TIMESTAMP, "level", "source", "message", REST]
                .map(str::to_owned)
                .to_vec(),
        };
        Self {
            columns,
            cell: Vec::new(),
        }
    }

    pub fn push_header(&self, out: &mut Vec<u8>) {
        for (index, column) in self.columns.iter().enumerate() {
            separate(out, index);
            push_text(out, column.as_bytes());
        }
        out.extend_from_slice(b"\r\n");
    }

    pub fn push_record(&mut self, out: &mut Vec<u8>, record: &Record) {
        for (index, column) in self.columns.iter().enumerate() {
            separate(out, index);
            self.cell.clear();
            match column.as_str() {
                "id" => push_text(out, record.key.to_id().as_bytes()),
                TIMESTAMP => {
                    timestamp::format_into(out, record.key.timestamp_ns, record.timestamp_digits);
                }
                column => {
                    let value = record.fields.iter().find(|(key, _)| address(key) == column);
                    match value {
                        Some((_, value)) => push_cell(out, &mut self.cell, value.as_value_ref()),
                        None if column == REST => {
                            push_rest(out, &mut self.cell, record, &self.columns);
                        }
                        None => {}
                    }
                }
            }
        }
        out.extend_from_slice(b"\r\n");
    }
}

fn separate(out: &mut Vec<u8>, index: usize) {
    if 0 < index {
        out.push(b',');
    }
}

fn push_cell(out: &mut Vec<u8>, cell: &mut Vec<u8>, value: ValueRef<'_>) {
    match value {
        ValueRef::Null => {}
        ValueRef::Str(text) | ValueRef::Json(text) => push_text(out, text.as_bytes()),
        ValueRef::Bool(_) | ValueRef::Int(_) | ValueRef::Float(_) | ValueRef::Number(_) => {
            push_value(cell, value);
            out.extend_from_slice(cell);
        }
    }
}

fn push_rest(out: &mut Vec<u8>, cell: &mut Vec<u8>, record: &Record, columns: &[String]) {
    for (key, value) in &record.fields {
        let name = address(key);
        if columns.iter().any(|column| *column == name) {
            continue;
        }
        cell.push(if cell.is_empty() { b'{' } else { b',' });
        push_string(cell, &name);
        cell.push(b':');
        push_value(cell, value.as_value_ref());
    }
    if !cell.is_empty() {
        cell.push(b'}');
        push_text(out, cell);
    }
}

fn push_text(out: &mut Vec<u8>, text: &[u8]) {
    let is_formula = matches!(
        text.first(),
        Some(b'=' | b'+' | b'-' | b'@' | b'\t' | b'\r')
    );
    let needs_quotes = is_formula
        || text
            .iter()
            .any(|b| matches!(b, b'"' | b',' | b'\r' | b'\n'));
    if !needs_quotes {
        out.extend_from_slice(text);
        return;
    }
    out.push(b'"');
    if is_formula {
        out.push(b'\'');
    }
    for byte in text {
        if *byte == b'"' {
            out.push(b'"');
        }
        out.push(*byte);
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Flags, Position, RecordKey, Value};

    fn record(message: &str) -> Record {
        Record {
            key: RecordKey {
                timestamp_ns: 1,
                position: Position::default(),
            },
            timestamp_digits: 0,
            flags: Flags::default(),
            fields: vec![
                ("message".into(), Value::Str(message.into())),
                ("http.status".into(), Value::Int(-5)),
                ("none".into(), Value::Null),
            ],
        }
    }

    #[test]
    fn what_is_written_is_read_back_by_a_csv_reader() {
        let texts = [
            "plain",
            "a,b",
            "say \"hi\"",
            "two\nlines",
            "",
            "ü\u{0}",
            " =x",
        ];
        let mut out = Vec::new();
        let mut writer = CsvWriter::new(None);
        writer.push_header(&mut out);
        for text in texts {
            writer.push_record(&mut out, &record(text));
        }
        let mut reader = csv::Reader::from_reader(&out[..]);
        assert_eq!(
            reader.headers().unwrap().iter().collect::<Vec<_>>(),
            ["id", "timestamp", "level", "source", "message", "fields"]
        );
        for (row, text) in reader.records().map(Result::unwrap).zip(texts) {
            assert_eq!(&row[1], "1970-01-01T00:00:00Z");
            assert_eq!(&row[4], text);
            assert_eq!(&row[5], r#"{"http.status":-5,"none":null}"#);
        }
    }

    #[test]
    fn formulas_are_disarmed_and_numbers_are_not_touched() {
        let columns = [
            "message".to_owned(),
            "http.status".to_owned(),
            "gone".to_owned(),
        ];
        for text in ["=1+1", "+1", "-1", "@x", "\tx", "\rx"] {
            let mut out = Vec::new();
            CsvWriter::new(Some(&columns)).push_record(&mut out, &record(text));
            assert_eq!(
                String::from_utf8(out).unwrap(),
                format!("\"'{text}\",-5,\r\n")
            );
        }
    }
}
