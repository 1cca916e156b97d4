//! The store's figures.

use crate::common::error::Result;
use crate::store::Usage;
use crate::store::embedded::disk::Disk;

impl Disk {
    pub fn usage(&self) -> Result<Usage> {
        let snapshot = self.view.snapshot();
        let segments = snapshot.segments.iter().map(|segment| &segment.meta);
        let head = &snapshot.head;
        let head_records: usize = head.iter().map(|chunk| chunk.n_rows()).sum();
        let stored: u64 = segments.clone().map(|meta| meta.n_rows).sum();
        let quarantined = self.view.quarantined();
        let oldest = segments
            .clone()
            .map(|meta| meta.min_key.timestamp_ns)
            .chain(head.iter().map(|chunk| chunk.min_timestamp_ns));
        let newest = segments
            .clone()
            .map(|meta| meta.max_key.timestamp_ns)
            .chain(head.iter().map(|chunk| chunk.max_timestamp_ns));
        let mut degraded: Vec<String> = quarantined.iter().map(|(_, why)| why.clone()).collect();
        degraded.extend(self.fault.lock().clone());
        let quarantined_bytes: u64 = quarantined.iter().map(|(meta, _)| meta.size_bytes).sum();
        Ok(Usage {
            records: stored + head_records as u64,
            dead_letters: self.n_dead_letters()?,
            segments: snapshot.segments.len() as u64,
            disk_bytes: segments.map(|meta| meta.size_bytes).sum::<u64>() + quarantined_bytes,
            head_records: head_records as u64,
            head_bytes: head.iter().map(|chunk| chunk.size_bytes as u64).sum(),
            oldest_ns: oldest.min(),
            newest_ns: newest.max(),
            degraded,
        })
    }
}
