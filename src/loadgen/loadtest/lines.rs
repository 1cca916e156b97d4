//! The lines of a test: a shape's lines with the names of run, producer and sequence in front; and whether a record that
//! comes back is the line that went out.

use anyhow::Context as _;
use serde_json::Value as Json;

use crate::loadgen::fetch::check;
use crate::loadgen::loadtest::ledger::Plan;
use crate::loadgen::shape::{LineTimes, LineWriter, ShapeKind};

/// Makes any batch of a run, in any order.
#[derive(Clone, Debug)]
pub struct Lines {
    pub run: String,
    pub plan: Plan,
    writer: LineWriter,
}

impl Lines {
    pub fn new(run: String, plan: Plan, shape: ShapeKind, seed: u64, times: LineTimes) -> Self {
        Self {
            run,
            plan,
            writer: LineWriter::new(shape, seed, times),
        }
    }

    pub fn batch(&mut self, batch: u64, out: &mut Vec<u8>) {
        let first = batch * self.plan.batch_lines;
        for index in first..first + self.plan.batch_lines {
            self.line(index, out);
        }
    }

    fn line(&mut self, index: u64, out: &mut Vec<u8>) {
        let (producer, seq) = self.plan.name_of(index);
        let run = &self.run;
        let extra = format!(r#""loadtest":{{"run":"{run}","producer":{producer},"seq":{seq}}},"#);
        self.writer.write_with(index, extra.as_bytes(), out);
    }

    /// Which line a record is; `None` when it is none of this run.
    pub fn index_of(&self, record: &Json) -> Option<u64> {
        let producer = check::at(record, "loadtest.producer")?.as_u64()?;
        let seq = check::at(record, "loadtest.seq")?.as_u64()?;
        self.plan.index_of(producer, seq)
    }

    /// What differs between line `index` and the record that came back for it.
    pub fn difference(&mut self, index: u64, record: &Json) -> anyhow::Result<Option<String>> {
        let mut bytes = Vec::new();
        self.line(index, &mut bytes);
        let sent: Json = serde_json::from_slice(&bytes).context("parse our own line")?;
        let Some(fields) = sent.as_object() else {
            anyhow::bail!("our own line is no object");
        };
        for (name, value) in fields {
            let (name, is_same) = match name.as_str() {
                "timestamp" | "@timestamp" => {
                    let sent_ns = value
                        .as_str()
                        .and_then(|text| text.parse::<jiff::Timestamp>().ok());
                    let back_ns =
                        check::text(record, "timestamp").and_then(|text| text.parse().ok());
                    ("timestamp", sent_ns.is_some() && sent_ns == back_ns)
                }
                "service" => ("source", record.get("source") == Some(value)),
                other => (other, record.get(other) == Some(value)),
            };
            if !is_same {
                return Ok(Some(format!(
                    "line {index}: `{name}` went out as {value}, came back as {}",
                    record.get(name).unwrap_or(&Json::Null)
                )));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(shape: ShapeKind) -> Lines {
        let plan = Plan {
            n_batches: 2,
            batch_lines: 3,
            n_producers: 2,
        };
        let times = LineTimes::Spread {
            start_ns: 0,
            end_ns: 1_000_000_000,
            count: 6,
        };
        Lines::new("r1".to_owned(), plan, shape, 1, times)
    }

    /// The record as a server would give it back.
    fn stored(line: &str) -> Json {
        let mut record: Json = serde_json::from_str(line).unwrap();
        let fields = record.as_object_mut().unwrap();
        for (from, to) in [("service", "source"), ("@timestamp", "timestamp")] {
            if let Some(value) = fields.remove(from) {
                fields.insert(to.to_owned(), value);
            }
        }
        fields.insert("id".to_owned(), "x".into());
        record
    }

    #[test]
    fn what_went_out_is_recognised() {
        for shape in [ShapeKind::App, ShapeKind::Wide, ShapeKind::Repetitive] {
            let mut lines = lines(shape);
            let mut body = Vec::new();
            lines.batch(1, &mut body);
            for (at, line) in String::from_utf8(body).unwrap().lines().enumerate() {
                let record = stored(line);
                let index = lines.index_of(&record).unwrap();
                assert_eq!(index, 3 + at as u64);
                assert_eq!(lines.difference(index, &record).unwrap(), None);
            }
        }
    }

    #[test]
    fn a_changed_value_is_told() {
        let mut lines = lines(ShapeKind::App);
        let mut body = Vec::new();
        lines.batch(0, &mut body);
        let text = String::from_utf8(body).unwrap();
        let mut record = stored(text.lines().next().unwrap());
        record["message"] = "other".into();
        let told = lines.difference(0, &record).unwrap().unwrap();
        assert!(told.contains("`message`"), "{told}");
    }
}
