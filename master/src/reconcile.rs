//! What is to be done about a replica, given the chunk's record. Pure.

use quarry_master_core::{
    query::ChunkRecord,
    rows::{ChunkState, Hold},
};
use quarry_types::{ChunkId, ReplicaState, ServerId};

use crate::locations::Replica;

/// A command for the server that holds the replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// All is as it should be, or nothing can be done here.
    Nothing,
    /// Tell it where the chunk was sealed; its receipt is recorded.
    CommitSeal,
    /// Let it read the replica and compare: it differs from the record, or nothing on the server counts yet.
    Verify,
    /// An orphan: the chunk is known no more.
    Delete,
    /// A chunk from beyond what was ever given out: this master lacks history, and must not touch it.
    Alarm,
    /// The same in a state that goes on from an earlier point on purpose: its id must not be given out again.
    Raise,
}

/// What is left of an action while deletions are held back (S6): nothing is deleted, and nothing is cut that comes from
/// an earlier lineage.
#[must_use]
pub fn while_held(action: Action, hold: &Hold, chunk: ChunkId, replica: &Replica, length: u64) -> Action {
    match action {
        Action::Delete => Action::Nothing,
        Action::CommitSeal if hold.is_inherited(chunk) && replica.length > length => Action::Nothing,
        Action::Alarm => Action::Raise,
        other => other,
    }
}

/// Compares one replica with the record of its chunk. Every id below `next_chunk` was given out, and its record was
/// there before its grant was signed; so an id below without a record is of a chunk that was deleted (S6).
#[must_use]
pub fn compare(
    chunk: ChunkId,
    server: ServerId,
    replica: &Replica,
    doubted: bool,
    record: Option<&ChunkRecord>,
    next_chunk: u64,
) -> Action {
    let Some(record) = record else {
        return if chunk.0 < next_chunk { Action::Delete } else { Action::Alarm };
    };
    // Doomed ones are deleted by command; open ones wait for their seal.
    if record.state != ChunkState::Sealed {
        return Action::Nothing;
    }
    match replica.state {
        ReplicaState::Quarantined => Action::Nothing,
        // Too short for good: it cannot become a replica of the chunk.
        ReplicaState::Fenced if replica.length < record.length => Action::Nothing,
        ReplicaState::Open | ReplicaState::Fenced => Action::CommitSeal,
        ReplicaState::Sealed if !replica.serves(record.length, record.crc) || doubted => Action::Verify,
        ReplicaState::Sealed if !record.holders.contains(&server) => Action::CommitSeal,
        ReplicaState::Sealed => Action::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use quarry_types::{Crc32, InodeId};

    use super::*;

    fn record(state: ChunkState, holders: Vec<ServerId>) -> ChunkRecord {
        ChunkRecord {
            inode: InodeId(2),
            offset: 0,
            state,
            length: 100,
            crc: Crc32(9),
            limit: 1000,
            wanted: 3,
            members: Vec::new(),
            holders,
        }
    }

    fn replica(state: ReplicaState, length: u64) -> Replica {
        Replica { state, length, crc: Crc32(9) }
    }

    fn decide(replica: Replica, doubted: bool, record: Option<ChunkRecord>) -> Action {
        compare(ChunkId(5), ServerId::from_random(1), &replica, doubted, record.as_ref(), 10)
    }

    #[test]
    fn s6_only_an_id_that_was_given_out_and_has_no_record_is_an_orphan() {
        let (server, sealed) = (ServerId::from_random(1), replica(ReplicaState::Sealed, 100));
        assert_eq!(compare(ChunkId(9), server, &sealed, false, None, 10), Action::Delete);
        assert_eq!(compare(ChunkId(10), server, &sealed, false, None, 10), Action::Alarm);
        for state in [ChunkState::Open, ChunkState::Doomed] {
            assert_eq!(decide(sealed, false, Some(record(state, vec![]))), Action::Nothing);
        }
    }

    #[test]
    fn s6_while_held_nothing_is_deleted_nor_cut_and_ids_from_beyond_are_raised() {
        let hold =
            Hold { cause: quarry_master_core::command::LineageCause::Restored, since_ms: 0, first_chunk: ChunkId(8) };
        let longer = replica(ReplicaState::Fenced, 101);
        let left = |action, chunk| while_held(action, &hold, ChunkId(chunk), &longer, 100);
        assert_eq!(left(Action::Delete, 9), Action::Nothing);
        assert_eq!(left(Action::Alarm, 10), Action::Raise);
        assert_eq!(left(Action::CommitSeal, 7), Action::Nothing);
        assert_eq!(left(Action::CommitSeal, 8), Action::CommitSeal, "a chunk of this lineage is as ever");
        let equal = replica(ReplicaState::Fenced, 100);
        assert_eq!(while_held(Action::CommitSeal, &hold, ChunkId(7), &equal, 100), Action::CommitSeal);
        assert_eq!(left(Action::Verify, 7), Action::Verify);
    }

    #[test]
    fn s2_a_replica_that_differs_is_verified_and_a_longer_one_is_cut() {
        let known = || Some(record(ChunkState::Sealed, vec![ServerId::from_random(1)]));
        assert_eq!(decide(replica(ReplicaState::Sealed, 100), false, known()), Action::Nothing);
        assert_eq!(decide(replica(ReplicaState::Sealed, 99), false, known()), Action::Verify);
        assert_eq!(decide(replica(ReplicaState::Fenced, 101), false, known()), Action::CommitSeal);
        assert_eq!(decide(replica(ReplicaState::Fenced, 100), false, known()), Action::CommitSeal);
        assert_eq!(decide(replica(ReplicaState::Fenced, 99), false, known()), Action::Nothing);
        assert_eq!(decide(replica(ReplicaState::Quarantined, 100), false, known()), Action::Nothing);
        let unknown = Some(record(ChunkState::Sealed, vec![]));
        assert_eq!(decide(replica(ReplicaState::Sealed, 100), false, unknown), Action::CommitSeal);
    }

    #[test]
    fn s11_on_an_old_image_everything_is_verified() {
        let known = Some(record(ChunkState::Sealed, vec![ServerId::from_random(1)]));
        assert_eq!(decide(replica(ReplicaState::Sealed, 100), true, known), Action::Verify);
    }
}
