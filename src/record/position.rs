//! Where a record stands: its position in the queue, its place in the total order of all records, and its public id.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// A record's place in the queue. Embedded: partition 0, `seq` counts every entry ever appended. Kafka: partition and offset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    pub partition: u32,
    pub seq: u64,
}

/// The sort key of all answers: time, then position. Total, and the same for the record's whole life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordKey {
    /// Nanoseconds since 1970-01-01T00:00:00Z.
    pub timestamp_ns: i64,
    pub position: Position,
}

/// For each partition the next `seq` that is not covered yet. Absent means 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint(pub BTreeMap<u32, u64>);

impl Position {
    /// Partitions from this one up hold dead letters alone: with Kafka they have a topic of their own.
    pub const LETTER_PARTITIONS: u32 = 1 << 31;

    /// `partition-seq`, as the API shows positions.
    pub fn to_text(self) -> String {
        format!("{}-{}", self.partition, self.seq)
    }

    pub fn from_text(text: &str) -> Option<Self> {
        let (partition, seq) = text.split_once('-')?;
        Some(Self {
            partition: partition.parse().ok()?,
            seq: seq.parse().ok()?,
        })
    }
}

impl RecordKey {
    /// The public id and cursor: base64url of time (8 bytes big endian), partition (4), seq (8, leading zeros cut).
    pub fn to_id(self) -> String {
        let mut bytes = Vec::with_capacity(20);
        bytes.extend(self.timestamp_ns.to_be_bytes());
        bytes.extend(self.position.partition.to_be_bytes());
        let seq = self.position.seq.to_be_bytes();
        let n_zeros = seq.iter().take_while(|b| **b == 0).count();
        bytes.extend(seq.iter().skip(n_zeros));
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// `None` if `id` is not one that [`Self::to_id`] makes.
    pub fn from_id(id: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(id).ok()?;
        let (time, rest) = bytes.split_first_chunk::<8>()?;
        let (partition, seq_cut) = rest.split_first_chunk::<4>()?;
        if 8 < seq_cut.len() || seq_cut.first() == Some(&0) {
            return None;
        }
        let seq = seq_cut.iter().fold(0, |seq, b| seq << 8 | u64::from(*b));
        Some(Self {
            timestamp_ns: i64::from_be_bytes(*time),
            position: Position {
                partition: u32::from_be_bytes(*partition),
                seq,
            },
        })
    }
}

impl Checkpoint {
    /// Everything of one partition before `next_seq`.
    pub fn up_to(partition: u32, next_seq: u64) -> Self {
        Self(BTreeMap::from([(partition, next_seq)]))
    }

    pub fn next_seq(&self, partition: u32) -> u64 {
        self.0.get(&partition).copied().unwrap_or(0)
    }

    /// Raises the partition's mark to `next_seq`; marks never fall.
    pub fn advance(&mut self, partition: u32, next_seq: u64) {
        let mark = self.0.entry(partition).or_insert(0);
        *mark = next_seq.max(*mark);
    }

    /// Raises every mark to that of `other`.
    pub fn advance_all(&mut self, other: &Self) {
        for (partition, next_seq) in &other.0 {
            self.advance(*partition, *next_seq);
        }
    }

    /// True if the record at `position` is covered.
    pub fn covers(&self, position: Position) -> bool {
        position.seq < self.next_seq(position.partition)
    }

    /// True if everything that `other` covers is covered here.
    pub fn includes(&self, other: &Self) -> bool {
        other
            .0
            .iter()
            .all(|(partition, seq)| *seq <= self.next_seq(*partition))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_back_as_the_key_it_was_made_from() {
        for timestamp_ns in [i64::MIN, -1, 0, 1, i64::MAX] {
            for seq in [0, 1, 255, 256, u64::MAX] {
                let key = RecordKey {
                    timestamp_ns,
                    position: Position { partition: 7, seq },
                };
                assert_eq!(RecordKey::from_id(&key.to_id()), Some(key));
            }
        }
        for bad in ["", "x", "!!", "AAAA", "AAAAAAAAAAAAAAAAAAA"] {
            assert_eq!(RecordKey::from_id(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_checkpoint_never_falls() {
        let mut checkpoint = Checkpoint::default();
        checkpoint.advance(0, 5);
        checkpoint.advance(0, 3);
        assert!(checkpoint.covers(Position {
            partition: 0,
            seq: 4
        }));
        assert!(!checkpoint.covers(Position {
            partition: 0,
            seq: 5
        }));
        assert!(!checkpoint.covers(Position {
            partition: 1,
            seq: 0
        }));
    }
}
