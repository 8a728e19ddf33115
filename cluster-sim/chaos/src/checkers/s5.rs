//! **S5, fencing.**
//!
//! *Observes* every record, tombstone and leadership that a chunkserver writes into its index. *From* the index, just before the
//! change, compared with what is durable there: a replica that ended is never open again and never longer; a chunk with a
//! tombstone is not begun; tombstones go only below a watermark under which no committed chunk is open; and whoever followed an
//! epoch follows no older one.
//!
//! *Cannot see* an acknowledgement itself, only the bytes behind it: that an ack followed a fence shows in S1, when those bytes
//! are cut.

use quarry_chunkserver_core::record::ReplicaRecord;
use quarry_types::{ChunkId, ReplicaState};

/// What is wrong with a record that takes the place of another.
pub fn record(before: Option<&ReplicaRecord>, tombstone: bool, after: &ReplicaRecord) -> Option<String> {
    let open = after.state == ReplicaState::Open;
    if open && tombstone {
        return Some("S5: a chunk that was fenced before it came is begun".into());
    }
    let before = before?;
    let ended = before.state != ReplicaState::Open;
    if ended && open {
        return Some(format!("S5: a replica that was {:?} is open again", before.state));
    }
    if before.state == ReplicaState::Fenced && after.state == ReplicaState::Fenced && after.length > before.length {
        return Some(format!("S5: a fenced replica grows from {} to {} bytes", before.length, after.length));
    }
    None
}

/// What is wrong with following another leader. Epochs; the cluster has one lineage.
pub fn leadership(before: Option<u64>, after: u64) -> Option<String> {
    let before = before.filter(|before| *before > after)?;
    Some(format!("S5: a server that followed epoch {before} follows the older epoch {after}"))
}

/// What is wrong with removing a replica. `buried`: the same step leaves a tombstone of its chunk; without one a late write of
/// that chunk would be taken, unless it is below the watermark, which refuses in its place.
pub fn removal(chunk: ChunkId, buried: bool, watermark: ChunkId) -> Option<String> {
    (!buried && chunk >= watermark).then(|| "S5: a replica is removed and leaves no tombstone".into())
}

/// What is wrong with dropping the tombstones below a watermark. `open`: the first open chunk, or the next one to come.
pub fn watermark(to: ChunkId, open: ChunkId) -> Option<String> {
    (to > open).then(|| format!("S5: tombstones below {to} are dropped, and chunk {open} may be open"))
}

#[cfg(test)]
mod tests {
    use quarry_types::ChunkSums;

    use super::*;

    #[test]
    fn what_ended_stays_ended() {
        let (open, sums) = (ReplicaRecord::open(), ChunkSums::default());
        let fenced = open.fenced(&sums, true, false);
        let grown = ReplicaRecord { length: 1, ..fenced };
        assert_eq!(record(Some(&open), false, &fenced), None);
        assert!(record(Some(&fenced), false, &open).is_some());
        assert!(record(Some(&fenced), false, &grown).is_some());
        assert!(record(None, true, &open).is_some());
        assert_eq!(record(None, false, &open), None);
        assert!(leadership(Some(3), 2).is_some() && leadership(Some(3), 3).is_none() && leadership(None, 1).is_none());
        assert!(removal(ChunkId(8), false, ChunkId(7)).is_some() && removal(ChunkId(8), true, ChunkId(7)).is_none());
        assert_eq!(removal(ChunkId(6), false, ChunkId(7)), None);
        assert!(watermark(ChunkId(8), ChunkId(7)).is_some() && watermark(ChunkId(7), ChunkId(7)).is_none());
    }
}
