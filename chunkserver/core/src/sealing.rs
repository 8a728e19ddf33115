//! What a replica does when the master's committed seal reaches it.

use quarry_types::{Crc32, ReplicaState};

use crate::record::ReplicaRecord;

/// The next step on the way to a sealed replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealStep {
    /// It still takes writes: fence it, then ask again.
    Fence,
    /// It agrees; record it as sealed.
    Record,
    /// It is longer. If its CRC at the committed length agrees it is cut, otherwise it differs (S2).
    Cut,
    /// It is sealed like this already.
    Done,
    /// It holds fewer bytes. Nothing is wrong with them, but it is not a replica of this chunk and never served as one.
    TooShort,
    /// It differs and goes into quarantine (S2).
    Differs,
    /// It was sealed otherwise. One of two committed seals is wrong; nothing may be changed or dropped on such a word.
    Conflict,
    /// It is in quarantine.
    Quarantined,
}

/// Decides what a replica with `record` does about the committed `length` and `crc`.
#[must_use]
pub fn step(record: &ReplicaRecord, length: u64, crc: Crc32) -> SealStep {
    match record.state {
        ReplicaState::Open => SealStep::Fence,
        ReplicaState::Quarantined => SealStep::Quarantined,
        ReplicaState::Sealed if record.length == length && record.crc == crc => SealStep::Done,
        ReplicaState::Sealed => SealStep::Conflict,
        ReplicaState::Fenced if record.length > length => SealStep::Cut,
        ReplicaState::Fenced if record.length < length => SealStep::TooShort,
        ReplicaState::Fenced if record.crc == crc => SealStep::Record,
        ReplicaState::Fenced => SealStep::Differs,
    }
}

#[cfg(test)]
mod tests {
    use quarry_types::ChunkSums;

    use super::*;
    use crate::record::Quarantine;

    fn fenced(bytes: &[u8]) -> ReplicaRecord {
        let mut sums = ChunkSums::default();
        sums.push(Crc32::of(bytes), bytes.len() as u64).unwrap();
        ReplicaRecord::open().fenced(&sums, true, false)
    }

    #[test]
    fn s2_a_fenced_replica_is_sealed_cut_or_condemned() {
        let replica = fenced(b"abcd");
        assert_eq!(step(&replica, 4, Crc32::of(b"abcd")), SealStep::Record);
        assert_eq!(step(&replica, 4, Crc32::of(b"abcx")), SealStep::Differs);
        assert_eq!(step(&replica, 3, Crc32::of(b"abc")), SealStep::Cut);
        assert_eq!(step(&replica, 5, Crc32::of(b"abcde")), SealStep::TooShort);
        assert_eq!(step(&ReplicaRecord::open(), 4, Crc32::EMPTY), SealStep::Fence);
    }

    #[test]
    fn s2_a_sealed_replica_never_changes() {
        let sealed = fenced(b"abcd").sealed(4, Crc32::of(b"abcd"), Crc32::of(b"abcd"));
        assert!(!sealed.cut_pending);
        assert_eq!(step(&sealed, 4, Crc32::of(b"abcd")), SealStep::Done);
        assert_eq!(step(&sealed, 3, Crc32::of(b"abc")), SealStep::Conflict);
        assert_eq!(step(&sealed, 4, Crc32(1)), SealStep::Conflict);
        let bad = sealed.quarantined(Quarantine::Differs);
        assert_eq!(step(&bad, 4, Crc32::of(b"abcd")), SealStep::Quarantined);
        assert!(fenced(b"abcd").sealed(2, Crc32::of(b"ab"), Crc32::of(b"ab")).cut_pending);
    }
}
