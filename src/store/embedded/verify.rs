//! A full check of the stored bytes: every segment of the catalog is there, every page, index and footer passes its checksum, rows are in order.
//!
//! Reads everything anew, so that damage on disk is found even where memory still holds good copies. Damaged segments are quarantined.

use crate::common::cancel::Cancel;
use crate::common::error::{ErrorKind, Result};
use crate::record::{Position, RecordKey};
use crate::store::VerifyReport;
use crate::store::embedded::disk::Disk;
use crate::store::embedded::rows::day_of;
use crate::store::embedded::schema;
use crate::store::embedded::segment::{Segment, SegmentMeta, SegmentReader};

const BATCH_ROWS: usize = 8_192;

impl Disk {
    pub fn verify(&self, cancel: &Cancel) -> Result<VerifyReport> {
        let snapshot = self.view.snapshot();
        let mut report = VerifyReport::default();
        for (_, reason) in self.view.quarantined() {
            report.faults.push(reason);
        }
        for segment in snapshot.segments.iter() {
            cancel.check()?;
            report.segments += 1;
            report.bytes += segment.meta.size_bytes;
            match self.check_segment(segment, cancel) {
                Ok(()) => report.records += segment.meta.n_rows,
                Err(error) if error.kind == ErrorKind::Corrupt => {
                    self.quarantine(segment.meta.id, &error.message);
                    report.faults.push(error.message);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(report)
    }

    fn check_segment(&self, segment: &Segment, cancel: &Cancel) -> Result<()> {
        let reader = SegmentReader::open(&segment.path, &segment.meta, &self.registry)?;
        check(&reader, &segment.meta, cancel)
    }
}

fn check(reader: &SegmentReader, meta: &SegmentMeta, cancel: &Cancel) -> Result<()> {
    let fault = |what: String| reader.error("fails its check", what);
    check_gaps(reader)?;
    for page in reader.file().checksums() {
        cancel.check()?;
        reader
            .file()
            .check_page(page)
            .map_err(|error| reader.error("cannot be read", error))?;
    }
    reader.check_indexes()?;
    let columns = [schema::TIMESTAMP, schema::SEQ, schema::PARTITION];
    let row_groups = (0..reader.metadata().num_row_groups()).collect();
    let mut last: Option<RecordKey> = None;
    let mut first = None;
    for batch in reader.read(&columns, row_groups, None, BATCH_ROWS)? {
        cancel.check()?;
        let batch = batch.map_err(|error| reader.error("cannot be read", error))?;
        let times = schema::timestamps(&batch)?.iter();
        let positions = schema::seqs(&batch)?
            .iter()
            .zip(schema::partitions(&batch)?);
        for (timestamp_ns, (seq, partition)) in times.zip(positions) {
            let key = RecordKey {
                timestamp_ns: *timestamp_ns,
                position: Position {
                    partition: *partition,
                    seq: *seq,
                },
            };
            if last.is_some_and(|last| key <= last) {
                return Err(fault(format!(
                    "{} does not come after the row before",
                    key.to_id()
                )));
            }
            first.get_or_insert(key);
            last = Some(key);
        }
    }
    if first != Some(meta.min_key) || last != Some(meta.max_key) {
        return Err(fault(
            "its first or last row is not what the catalog says".to_owned(),
        ));
    }
    if [meta.min_key, meta.max_key].map(|key| day_of(key.timestamp_ns)) != [meta.day; 2] {
        return Err(fault("it holds rows of another day".to_owned()));
    }
    Ok(())
}

/// Pages and indexes lie side by side: no byte of a row group escapes the checksums.
fn check_gaps(reader: &SegmentReader) -> Result<()> {
    let pages = reader.file().checksums().iter();
    let pages = pages.map(|page| (page.offset, u64::from(page.len)));
    let mut places: Vec<(u64, u64)> = pages.chain(reader.index_places()).collect();
    places.sort_unstable();
    // After "PAR1".
    let mut end = 4;
    for (offset, len) in places {
        if offset != end {
            let what = format!("there is a gap between byte {end} and byte {offset}");
            return Err(reader.error("fails its check", what));
        }
        end = offset + len;
    }
    Ok(())
}
