//! All replicas of a server, their numbered changes and their digest.
//!
//! The master holds a copy that a full report fills and numbered changes keep. The digest is a sum over the items,
//! so that it is kept up to date by a subtraction and an addition and does not depend on their order; each item is
//! mixed with a key first, so that differences do not cancel each other out. Two digests are compared only at equal
//! numbers. It is kept in parts, one for each of [`RANGES`] ranges of chunks, so that where two pictures differ only the ranges
//! that do are reported again.

use std::collections::{BTreeMap, VecDeque};

use quarry_types::{ChunkId, ClusterKey, Crc32, ReplicaState, ServerId, auth::Purpose};

/// Recent changes kept for a master that has only missed a few; one that missed more asks for a full report.
pub const CHANGES_KEPT: usize = 1 << 16;

/// One replica as the master sees it. Length and CRC are 0 while it is open: they change with every packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaItem {
    /// The chunk.
    pub chunk: ChunkId,
    /// Its state.
    pub state: ReplicaState,
    /// Bytes.
    pub length: u64,
    /// CRC of these bytes.
    pub crc: Crc32,
}

/// A change of the inventory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its number; each change has one more than the one before.
    pub number: u64,
    /// The chunk.
    pub chunk: ChunkId,
    /// The replica as it is now; `None` when it is gone.
    pub item: Option<ReplicaItem>,
}

/// Keys the digest of one server's inventory.
#[derive(Clone, Copy)]
pub struct DigestKey(u64);

impl DigestKey {
    /// Both sides know the cluster's key and the server, so neither has to send this one.
    #[must_use]
    pub fn new(key: &ClusterKey, server: ServerId) -> Self {
        let mut text = b"inventory digest ".to_vec();
        text.extend(server.to_bytes());
        let mac = key.sign(Purpose::Registration, &text);
        DigestKey(mac.iter().take(8).fold(0, |all, byte| all << 8 | u64::from(*byte)))
    }

    /// What one replica adds to the digest.
    #[must_use]
    pub fn weigh(self, item: &ReplicaItem) -> u64 {
        [item.chunk.0, item.state as u64, item.length, u64::from(item.crc.0)]
            .into_iter()
            .fold(mix(self.0), |all, word| mix(all ^ word))
    }
}

/// The finalizer of splitmix64: a bijection in which every input bit moves about half of the output bits.
fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// Parts of an inventory that have a sum of their own: as many as a word has bits, so that a set of them is a word.
pub const RANGES: usize = 64;

/// A set of ranges, a bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ranges(pub u64);

impl Ranges {
    /// All of them.
    pub const ALL: Ranges = Ranges(u64::MAX);

    /// Whether the chunk lies in one of them. Chunks are numbered one after the other, so its low bits spread it well.
    #[must_use]
    pub fn hold(self, chunk: ChunkId) -> bool {
        self.0 >> (chunk.0 % RANGES as u64) & 1 == 1
    }
}

/// The digest of an inventory, by range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sums([u64; RANGES]);

impl Default for Sums {
    fn default() -> Self {
        Sums([0; RANGES])
    }
}

impl Sums {
    /// A replica of `chunk` that weighed `gone` became one that weighs `come`; 0: none.
    pub fn change(&mut self, chunk: ChunkId, gone: u64, come: u64) {
        if let Some(sum) = self.0.get_mut((chunk.0 % RANGES as u64) as usize) {
            *sum = sum.wrapping_sub(gone).wrapping_add(come);
        }
    }

    /// The digest of everything.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.0.iter().fold(0, |all, sum| all.wrapping_add(*sum))
    }

    /// By range, in order.
    #[must_use]
    pub fn ranges(&self) -> &[u64] {
        &self.0
    }

    /// The ranges in which the other side has another sum; all of them when it does not say.
    #[must_use]
    pub fn differing(&self, other: &[u64]) -> Ranges {
        if other.len() != RANGES {
            return Ranges::ALL;
        }
        let differ = self.0.iter().zip(other).map(|(ours, theirs)| u64::from(ours != theirs));
        Ranges(differ.enumerate().fold(0, |all, (range, differs)| all | differs << range))
    }
}

/// The inventory.
pub struct Inventory {
    key: DigestKey,
    items: BTreeMap<ChunkId, ReplicaItem>,
    number: u64,
    changes: VecDeque<Change>,
    sums: Sums,
}

impl Inventory {
    /// Empty, at number 0.
    #[must_use]
    pub fn new(key: DigestKey) -> Self {
        Inventory { key, items: BTreeMap::new(), number: 0, changes: VecDeque::new(), sums: Sums::default() }
    }

    /// Sets a replica; nothing happens when it is the same already.
    pub fn put(&mut self, item: ReplicaItem) {
        let old = self.items.insert(item.chunk, item);
        if old == Some(item) {
            return;
        }
        let old = old.map_or(0, |old| self.key.weigh(&old));
        self.sums.change(item.chunk, old, self.key.weigh(&item));
        self.note(item.chunk, Some(item));
    }

    /// Removes a replica, if it is there.
    pub fn remove(&mut self, chunk: ChunkId) {
        if let Some(old) = self.items.remove(&chunk) {
            self.sums.change(chunk, self.key.weigh(&old), 0);
            self.note(chunk, None);
        }
    }

    fn note(&mut self, chunk: ChunkId, item: Option<ReplicaItem>) {
        self.number += 1;
        if self.changes.len() == CHANGES_KEPT {
            self.changes.pop_front();
        }
        self.changes.push_back(Change { number: self.number, chunk, item });
    }

    /// The number of the last change.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The digest at [`Inventory::number`].
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.sums.digest()
    }

    /// The sums that the digest is made of.
    #[must_use]
    pub fn sums(&self) -> Sums {
        self.sums
    }

    /// All replicas, by chunk.
    pub fn items(&self) -> impl Iterator<Item = ReplicaItem> + '_ {
        self.items.values().copied()
    }

    /// How many replicas are in `state`.
    #[must_use]
    pub fn count(&self, state: ReplicaState) -> u64 {
        self.items.values().filter(|i| i.state == state).count() as u64
    }

    /// How many replicas there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.items.len() as u64
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The changes after `number`; `None` when they are no longer kept, or `number` is not of this inventory.
    #[must_use]
    pub fn changes_since(&self, number: u64) -> Option<Vec<Change>> {
        let missed = usize::try_from(self.number.checked_sub(number)?).ok()?;
        let skip = self.changes.len().checked_sub(missed)?;
        Some(self.changes.iter().skip(skip).copied().collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> DigestKey {
        DigestKey::new(&ClusterKey::new([5; 32]), ServerId::from_random(1))
    }

    fn item(chunk: u64, length: u64) -> ReplicaItem {
        ReplicaItem { chunk: ChunkId(chunk), state: ReplicaState::Sealed, length, crc: Crc32(7) }
    }

    #[test]
    fn changes_are_numbered_and_bounded() {
        let mut inventory = Inventory::new(key());
        inventory.put(item(1, 1));
        inventory.put(item(1, 1));
        inventory.put(item(2, 1));
        inventory.remove(ChunkId(1));
        inventory.remove(ChunkId(1));
        assert_eq!(inventory.number(), 3, "what changes nothing has no number");
        let changes = inventory.changes_since(1).unwrap();
        assert_eq!(
            changes.iter().map(|c| (c.number, c.chunk.0, c.item.is_some())).collect::<Vec<_>>(),
            [(2, 2, true), (3, 1, false)]
        );
        assert_eq!(inventory.changes_since(3), Some(vec![]));
        assert_eq!(inventory.changes_since(4), None);
        for i in 0..CHANGES_KEPT as u64 {
            inventory.put(item(i + 10, 1));
        }
        assert_eq!(inventory.changes_since(2), None);
        assert_eq!(inventory.changes_since(3).map(|c| c.len()), Some(CHANGES_KEPT));
    }

    #[test]
    fn sums_that_are_missing_differ_everywhere() {
        let mut sums = Sums::default();
        sums.change(ChunkId(70), 0, 5);
        assert_eq!(sums.differing(Sums::default().ranges()), Ranges(1 << 6));
        assert_eq!((sums.differing(&[]), sums.differing(sums.ranges())), (Ranges::ALL, Ranges(0)));
    }

    proptest! {
        #[test]
        fn s7_the_digest_depends_on_the_contents_alone(ops in proptest::collection::vec((0u64..20, 0u64..4), 0..60)) {
            let mut walked = Inventory::new(key());
            for (chunk, length) in ops {
                if length == 0 { walked.remove(ChunkId(chunk)) } else { walked.put(item(chunk, length)) }
            }
            let mut fresh = Inventory::new(key());
            let mut items: Vec<_> = walked.items().collect();
            items.reverse();
            for i in items {
                fresh.put(i);
            }
            prop_assert_eq!((walked.digest(), walked.sums()), (fresh.digest(), fresh.sums()));
            fresh.put(item(99, 1));
            prop_assert_ne!(walked.digest(), fresh.digest());
        }

        #[test]
        fn s7_the_ranges_that_differ_hold_every_difference(
            ours in proptest::collection::btree_map(0u64..300, 1u64..4, 0..60),
            theirs in proptest::collection::btree_map(0u64..300, 1u64..4, 0..60),
        ) {
            let inventory = |of: &BTreeMap<u64, u64>| {
                let mut inventory = Inventory::new(key());
                of.iter().for_each(|(chunk, length)| inventory.put(item(*chunk, *length)));
                inventory
            };
            let differing = inventory(&ours).sums().differing(inventory(&theirs).sums().ranges());
            for range in 0..RANGES as u64 {
                let of = |all: &BTreeMap<u64, u64>| all.clone().into_iter().filter(|(c, _)| c % 64 == range).collect::<Vec<_>>();
                prop_assert_eq!(differing.hold(ChunkId(range)), of(&ours) != of(&theirs));
            }
        }
    }
}
