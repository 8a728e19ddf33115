//! The replicas of each chunk, as their servers reported them: a dozen bytes each, since a leader's memory is mostly this.

use std::collections::BTreeMap;

use quarry_types::{ChunkId, Crc32, ReplicaState, limits::CHUNK_BYTES};
use smallvec::SmallVec;

use super::Replica;

/// A server by its number: an id would take four times the room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot(pub u32);

/// What one server holds of a chunk.
#[derive(Clone, Copy, Debug)]
struct One {
    slot: Slot,
    /// The length above, [`STATE_BITS`] of state below.
    word: u32,
    crc: Crc32,
}

const STATE_BITS: u32 = 3;
/// What has more replicas than most chunks takes room of its own.
const INLINE: usize = 3;

// No report names a longer one (`service/report.rs`).
const _: () = assert!(CHUNK_BYTES << STATE_BITS <= u32::MAX as u64);

/// Nothing was reported: a receipt told of it.
const UNREPORTED: u32 = 0;

impl One {
    fn new(slot: Slot, replica: Option<Replica>) -> One {
        let Some(Replica { state, length, crc }) = replica else {
            return One { slot, word: UNREPORTED, crc: Crc32::EMPTY };
        };
        let state = match state {
            ReplicaState::Open => 1,
            ReplicaState::Fenced => 2,
            ReplicaState::Sealed => 3,
            ReplicaState::Quarantined => 4,
        };
        One { slot, word: (length.min(CHUNK_BYTES) as u32) << STATE_BITS | state, crc }
    }

    fn replica(&self) -> Option<Replica> {
        let state = match self.word & ((1 << STATE_BITS) - 1) {
            1 => ReplicaState::Open,
            2 => ReplicaState::Fenced,
            3 => ReplicaState::Sealed,
            4 => ReplicaState::Quarantined,
            _ => return None,
        };
        Some(Replica { state, length: u64::from(self.word >> STATE_BITS), crc: self.crc })
    }
}

/// Who holds what, by chunk.
#[derive(Default)]
pub(super) struct Held(BTreeMap<ChunkId, SmallVec<[One; INLINE]>>);

impl Held {
    /// The servers that are known to hold something of `chunk`.
    pub fn slots(&self, chunk: ChunkId) -> impl Iterator<Item = Slot> + '_ {
        self.0.get(&chunk).into_iter().flatten().map(|one| one.slot)
    }

    /// What `slot` reported of `chunk`.
    pub fn reported(&self, chunk: ChunkId, slot: Slot) -> Option<Replica> {
        self.0.get(&chunk)?.iter().find(|one| one.slot == slot)?.replica()
    }

    /// Notes what `slot` reported of `chunk`, or with `None` that it holds something and has not reported it; what it had
    /// reported before.
    pub fn put(&mut self, chunk: ChunkId, slot: Slot, replica: Option<Replica>) -> Option<Replica> {
        let all = self.0.entry(chunk).or_default();
        let new = One::new(slot, replica);
        if let Some(old) = all.iter_mut().find(|one| one.slot == slot) {
            return std::mem::replace(old, new).replica();
        }
        all.push(new);
        None
    }

    /// `slot` holds nothing of `chunk`; what it had reported before.
    pub fn remove(&mut self, chunk: ChunkId, slot: Slot) -> Option<Replica> {
        let all = self.0.get_mut(&chunk)?;
        let at = all.iter().position(|one| one.slot == slot)?;
        let old = all.swap_remove(at).replica();
        if all.is_empty() {
            self.0.remove(&chunk);
        }
        old
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_is_what_was_put_and_takes_a_dozen_bytes() {
        const STATES: [ReplicaState; 4] =
            [ReplicaState::Open, ReplicaState::Fenced, ReplicaState::Sealed, ReplicaState::Quarantined];
        let mut held = Held::default();
        for (slot, (state, length)) in (0..).zip(STATES.into_iter().zip([0, 1, CHUNK_BYTES - 1, CHUNK_BYTES])) {
            let replica = Replica { state, length, crc: Crc32(u32::MAX - slot) };
            assert_eq!(held.put(ChunkId(7), Slot(slot), Some(replica)), None);
            assert_eq!(held.reported(ChunkId(7), Slot(slot)), Some(replica));
        }
        assert_eq!(held.slots(ChunkId(7)).count(), 4);
        assert_eq!(held.put(ChunkId(7), Slot(1), None).map(|replica| replica.length), Some(1));
        assert_eq!((held.reported(ChunkId(7), Slot(1)), held.slots(ChunkId(7)).count()), (None, 4));
        assert_eq!(held.remove(ChunkId(7), Slot(3)).map(|replica| replica.length), Some(CHUNK_BYTES));
        assert_eq!(held.remove(ChunkId(7), Slot(3)), None);
        for slot in 0..3 {
            held.remove(ChunkId(7), Slot(slot));
        }
        assert!(held.0.is_empty(), "no chunk without a holder stays");
        assert_eq!(size_of::<One>(), 12);
        assert_eq!(size_of::<SmallVec<[One; INLINE]>>(), 48);
    }
}
