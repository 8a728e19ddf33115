//! **S2, one truth per chunk.**
//!
//! *Observes* every change of a chunk's row in the masters' replicated state, and every record that a chunkserver writes into
//! its index, just before the change. *From* the metadata stores, past the processes. A chunk goes from open to sealed to doomed
//! to forgotten and never back; its length and CRC are decided once; a server calls a replica sealed only when the masters have
//! committed just that, so that nothing was cut before.
//!
//! *Cannot see* a disagreement that lives only in memory: between receipts, or in what a leader believes.

use quarry_chunkserver_core::record::ReplicaRecord;
use quarry_types::ReplicaState;

use crate::books::Life;

/// What is wrong with a chunk's row going from one life to another.
pub fn row(before: Option<Life>, after: Life) -> Option<String> {
    let allowed = match (before, after) {
        (None, after) => after == Life::Open,
        (Some(Life::Open), after) => after != Life::Forgotten,
        (Some(Life::Sealed(one)), Life::Sealed(other)) => one == other,
        (Some(Life::Sealed(_) | Life::Doomed), Life::Doomed) | (Some(Life::Doomed), Life::Forgotten) => true,
        (Some(Life::Forgotten), Life::Forgotten) => true,
        (Some(_), _) => false,
    };
    (!allowed).then(|| format!("S2, S6: it was {before:?} and becomes {after:?}"))
}

/// What is wrong with the record that a chunkserver writes of a chunk in this life.
pub fn record(life: Option<Life>, record: &ReplicaRecord) -> Option<String> {
    if record.state != ReplicaState::Sealed {
        return None;
    }
    match life {
        Some(Life::Sealed(seal)) if (seal.length, seal.crc) == (record.length, record.crc) => None,
        // What was sealed is still told of it.
        Some(Life::Doomed | Life::Forgotten) => None,
        _ => Some(format!(
            "S2: a replica is sealed as {} bytes, crc {}, of a chunk that is {life:?}",
            record.length, record.crc
        )),
    }
}

/// What is wrong with a seal at this length while these members answer, and ended before with so many durable bytes, without a
/// restart: an ack needs every member, so the least of those that answer is enough, and more than that not all of them have.
pub fn seal_among(length: u64, answering: &[(&str, u64)]) -> Option<String> {
    let (name, has) = answering.iter().find(|(_, has)| *has < length)?;
    Some(format!("S2: it is sealed at {length} bytes, and {name}, which answers, ended at {has}"))
}

#[cfg(test)]
mod tests {
    use quarry_types::{ChunkSums, Crc32};

    use super::*;
    use crate::truth::Seal;

    #[test]
    fn a_chunk_has_one_truth() {
        let seal = |length| Life::Sealed(Seal { length, crc: Crc32(1) });
        assert_eq!(row(None, Life::Open), None);
        assert_eq!(row(Some(Life::Open), seal(5)), None);
        assert!(row(Some(seal(5)), seal(6)).is_some());
        assert!(row(Some(seal(5)), Life::Forgotten).is_some(), "never without being doomed");
        assert!(row(Some(Life::Doomed), seal(5)).is_some());
        assert!(seal_among(9, &[("a", 9), ("b", 5)]).is_some() && seal_among(5, &[("a", 9), ("b", 5)]).is_none());
        let replica = ReplicaRecord::copied(&ChunkSums::default());
        assert!(record(Some(Life::Open), &replica).is_some(), "nobody cuts before the commit");
        assert!(record(Some(seal(5)), &replica).is_some());
        assert_eq!(record(Some(Life::Sealed(Seal { length: 0, crc: Crc32::EMPTY })), &replica), None);
    }
}
