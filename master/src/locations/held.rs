//! The replicas of each chunk, as their servers reported them: a dozen bytes each, since a leader's memory is mostly this.

use std::{collections::BTreeMap, ops::Range};

use quarry_types::{ChunkId, Crc32, ReplicaState, limits::CHUNK_BYTES};

use super::Replica;

/// A server by its number: an id would take four times the room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot(pub u32);

/// Chunks with neighbouring ids, whose replicas are kept side by side: ids are given out in order, so that hardly any is missing.
const PAGE_CHUNKS: u64 = 64;
const PAGE_BITS: u32 = PAGE_CHUNKS.trailing_zeros();

/// What one server holds of a chunk.
#[derive(Clone, Copy, Debug)]
struct One {
    /// The server above, [`PAGE_BITS`] of the chunk's place in its page below.
    place: u32,
    /// The length above, [`STATE_BITS`] of state below.
    word: u32,
    crc: Crc32,
}

const STATE_BITS: u32 = 3;

// No report names a longer one (`service/report.rs`).
const _: () = assert!(CHUNK_BYTES << STATE_BITS <= u32::MAX as u64);

/// Nothing was reported: a receipt told of it.
const UNREPORTED: u32 = 0;

impl One {
    fn new(low: u32, slot: Slot, replica: Option<Replica>) -> One {
        // Slots are counted up from 0, one for each server that ever registered with this leader.
        let place = slot.0 << PAGE_BITS | low;
        let Some(Replica { state, length, crc }) = replica else {
            return One { place, word: UNREPORTED, crc: Crc32::EMPTY };
        };
        let state = match state {
            ReplicaState::Open => 1,
            ReplicaState::Fenced => 2,
            ReplicaState::Sealed => 3,
            ReplicaState::Quarantined => 4,
        };
        One { place, word: (length.min(CHUNK_BYTES) as u32) << STATE_BITS | state, crc }
    }

    fn slot(&self) -> Slot {
        Slot(self.place >> PAGE_BITS)
    }

    fn low(&self) -> u32 {
        self.place & (PAGE_CHUNKS as u32 - 1)
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

/// The replicas of neighbouring chunks, by chunk.
#[derive(Default)]
struct Page(Vec<One>);

impl Page {
    fn range(&self, low: u32) -> Range<usize> {
        self.0.partition_point(|one| one.low() < low)..self.0.partition_point(|one| one.low() <= low)
    }

    fn find(&self, low: u32, slot: Slot) -> Option<usize> {
        self.range(low).find(|at| self.0.get(*at).is_some_and(|one| one.slot() == slot))
    }

    fn insert(&mut self, one: One) {
        let at = self.range(one.low()).end;
        if self.0.len() == self.0.capacity() {
            // Doubling would leave half of it empty.
            self.0.reserve_exact((self.0.len() / 8).max(4));
        }
        self.0.insert(at, one);
    }

    fn remove(&mut self, at: usize) -> One {
        let one = self.0.remove(at);
        if self.0.capacity() > 2 * self.0.len() + 8 {
            self.0.shrink_to_fit();
        }
        one
    }
}

/// Who holds what, by chunk.
#[derive(Default)]
pub(super) struct Held(BTreeMap<u64, Page>);

/// The page of a chunk, and its place there.
fn page(chunk: ChunkId) -> (u64, u32) {
    (chunk.0 / PAGE_CHUNKS, (chunk.0 % PAGE_CHUNKS) as u32)
}

impl Held {
    fn of(&self, chunk: ChunkId) -> &[One] {
        let (number, low) = page(chunk);
        let page = self.0.get(&number);
        page.and_then(|page| page.0.get(page.range(low))).unwrap_or_default()
    }

    /// The servers that are known to hold something of `chunk`.
    pub fn slots(&self, chunk: ChunkId) -> impl Iterator<Item = Slot> + '_ {
        self.of(chunk).iter().map(One::slot)
    }

    /// What `slot` reported of `chunk`.
    pub fn reported(&self, chunk: ChunkId, slot: Slot) -> Option<Replica> {
        self.of(chunk).iter().find(|one| one.slot() == slot)?.replica()
    }

    /// Notes what `slot` reported of `chunk`, or with `None` that it holds something and has not reported it; what it had
    /// reported before.
    pub fn put(&mut self, chunk: ChunkId, slot: Slot, replica: Option<Replica>) -> Option<Replica> {
        let (number, low) = page(chunk);
        let page = self.0.entry(number).or_default();
        let new = One::new(low, slot, replica);
        if let Some(old) = page.find(low, slot).and_then(|at| page.0.get_mut(at)) {
            return std::mem::replace(old, new).replica();
        }
        page.insert(new);
        None
    }

    /// `slot` holds nothing of `chunk`; what it had reported before.
    pub fn remove(&mut self, chunk: ChunkId, slot: Slot) -> Option<Replica> {
        let (number, low) = page(chunk);
        let page = self.0.get_mut(&number)?;
        let old = page.remove(page.find(low, slot)?).replica();
        if page.0.is_empty() {
            self.0.remove(&number);
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
    }

    #[test]
    fn neighbouring_chunks_keep_their_own_replicas_and_little_room_beside() {
        let replica = |n: u64| Replica { state: ReplicaState::Sealed, length: n, crc: Crc32(n as u32) };
        let mut held = Held::default();
        let chunks = 60..3 * PAGE_CHUNKS + 5;
        // As reports come: server after server, each in order.
        for slot in 0..3 {
            for n in chunks.clone() {
                assert_eq!(held.put(ChunkId(n), Slot(slot), Some(replica(n + u64::from(slot)))), None);
            }
        }
        for n in chunks.clone() {
            let slots: Vec<Slot> = held.slots(ChunkId(n)).collect();
            assert_eq!(slots, [Slot(0), Slot(1), Slot(2)]);
            assert_eq!(held.reported(ChunkId(n), Slot(2)), Some(replica(n + 2)));
        }
        assert_eq!((held.slots(ChunkId(59)).count(), held.reported(ChunkId(60), Slot(3))), (0, None));
        let (used, room) =
            held.0.values().fold((0, 0), |(used, room), page| (used + page.0.len(), room + page.0.capacity()));
        assert!(room <= used + used / 8 + 4 * held.0.len(), "{room} for {used}");
        for n in chunks.clone().filter(|n| n % 3 > 0) {
            assert_eq!(held.remove(ChunkId(n), Slot(1)), Some(replica(n + 1)));
            assert_eq!(held.remove(ChunkId(n), Slot(1)), None);
        }
        for n in chunks {
            let slots: Vec<u32> = held.slots(ChunkId(n)).map(|slot| slot.0).collect();
            assert_eq!(slots, if n % 3 > 0 { vec![0, 2] } else { vec![0, 1, 2] }, "{n}");
        }
    }
}
