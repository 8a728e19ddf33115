//! Which chunk is where, as the chunkservers report it. Soft state of one leadership: it starts empty.
//!
//! A full report is gathered aside and takes effect as a whole; changes take effect only when they follow the number
//! that is held, so the picture of a server is always one that it had at some moment. Receipts come earlier than
//! reports and are noted beside the inventory until a report speaks of the same chunk.

mod held;
mod inventory;

use std::collections::{BTreeMap, BTreeSet};

use quarry_chunkserver_core::inventory::{DigestKey, Ranges, Sums};
use quarry_types::{ChunkId, ClusterKey, Crc32, Receipt, ReplicaState, ServerId};

use held::{Held, Slot};
pub use inventory::Change;
use inventory::Inventory;
use smallvec::SmallVec;

/// What a server holds of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replica {
    /// Its state.
    pub state: ReplicaState,
    /// Bytes in it.
    pub length: u64,
    /// Their CRC; of an open one meaningless.
    pub crc: Crc32,
}

impl Replica {
    /// Whether it can serve a chunk that is sealed at this length and CRC.
    #[must_use]
    pub fn serves(&self, length: u64, crc: Crc32) -> bool {
        matches!(self.state, ReplicaState::Sealed | ReplicaState::Fenced) && (self.length, self.crc) == (length, crc)
    }
}

/// Changes were sent that do not follow what is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FullWanted {
    /// The number that is held.
    pub number: u64,
}

/// The inventories of all servers and, turned around, the holders of every chunk.
pub struct Locations {
    key: ClusterKey,
    servers: BTreeMap<ServerId, Inventory>,
    /// The servers by their slots.
    slots: Vec<ServerId>,
    held: Held,
    changed: BTreeSet<ChunkId>,
    changed_too_much: bool,
}

/// What changed since it was last asked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Changed {
    /// These chunks.
    Chunks(Vec<ChunkId>),
    /// More than is remembered: everything is to be looked at.
    TooMuch,
}

/// Changed chunks remembered.
const CHANGED_MAX: usize = 1 << 20;

impl Locations {
    /// Nothing is known yet. The key is for the sums over inventories.
    #[must_use]
    pub fn new(key: ClusterKey) -> Self {
        Locations {
            key,
            servers: BTreeMap::new(),
            slots: Vec::new(),
            held: Held::default(),
            changed: BTreeSet::new(),
            changed_too_much: false,
        }
    }

    fn inventory(&mut self, server: ServerId) -> &mut Inventory {
        let (key, slots) = (&self.key, &mut self.slots);
        self.servers.entry(server).or_insert_with(|| {
            let slot = Slot(slots.len() as u32);
            slots.push(server);
            Inventory::new(DigestKey::new(key, server), slot)
        })
    }

    /// A server registered: what it reports from now on is expected to begin with a full report. What was known
    /// stays in use until then. With `doubted`, nothing it holds counts until it was verified: what was verified before was
    /// perhaps another image.
    pub fn registered(&mut self, server: ServerId, doubted: bool) {
        let inventory = self.inventory(server);
        inventory.number = None;
        inventory.doubt(doubted);
    }

    /// Up to `limit` chunks of which a replica came, went or became another since.
    pub fn take_changed(&mut self, limit: usize) -> Changed {
        if std::mem::take(&mut self.changed_too_much) {
            self.changed.clear();
            return Changed::TooMuch;
        }
        Changed::Chunks(std::iter::from_fn(|| self.changed.pop_first()).take(limit).collect())
    }

    /// Whether anything changed since.
    #[must_use]
    pub fn has_changed(&self) -> bool {
        self.changed_too_much || !self.changed.is_empty()
    }

    /// Something else about this chunk changed.
    pub fn look_again(&mut self, chunk: ChunkId) {
        self.note_change(chunk);
    }

    fn note_change(&mut self, chunk: ChunkId) {
        if self.changed.len() < CHANGED_MAX {
            self.changed.insert(chunk);
        } else {
            self.changed_too_much = true;
        }
    }

    /// Replaces what is known of a server.
    pub fn full_report(&mut self, server: ServerId, number: u64, replicas: BTreeMap<ChunkId, Replica>) {
        let inventory = self.inventory(server);
        let (slot, before) = (inventory.slot, inventory.all_chunks().collect::<Vec<_>>());
        for chunk in before {
            if self.replica(server, chunk).as_ref() != replicas.get(&chunk) {
                self.note_change(chunk);
            }
            if !replicas.contains_key(&chunk) {
                self.held.remove(chunk, slot);
            }
        }
        for (chunk, replica) in &replicas {
            if self.replica(server, *chunk).is_none() {
                self.note_change(*chunk);
            }
            self.held.put(*chunk, slot, Some(*replica));
        }
        self.inventory(server).replace(number, &replicas);
    }

    /// The first `limit` chunks of `server` from `from` on.
    #[must_use]
    pub fn chunks_of(&self, server: ServerId, from: ChunkId, limit: usize) -> Vec<ChunkId> {
        self.servers.get(&server).map(|inventory| inventory.chunks_from(from, limit)).unwrap_or_default()
    }

    /// Applies changes that begin at `number`; the number held afterwards.
    ///
    /// # Errors
    /// [`FullWanted`] when another number is held, or none; nothing has changed then.
    pub fn changes(&mut self, server: ServerId, number: u64, changes: &[Change]) -> Result<u64, FullWanted> {
        self.follows(server, number)?;
        self.apply(server, changes);
        let now_held = number.saturating_add(changes.len() as u64);
        self.inventory(server).number = Some(now_held);
        Ok(now_held)
    }

    /// Replaces what is known of a server in some ranges, at the number that is held.
    ///
    /// # Errors
    /// [`FullWanted`] when another number is held, or none; nothing has changed then.
    pub fn ranges_report(
        &mut self,
        server: ServerId,
        number: u64,
        ranges: Ranges,
        replicas: &BTreeMap<ChunkId, Replica>,
    ) -> Result<(), FullWanted> {
        self.follows(server, number)?;
        let changes = self.servers.get(&server).map(|inventory| inventory.differences(ranges, replicas, &self.held));
        let changes = changes.unwrap_or_default();
        self.apply(server, &changes);
        Ok(())
    }

    fn follows(&self, server: ServerId, number: u64) -> Result<(), FullWanted> {
        match self.number(server) {
            Some(held) if held == number => Ok(()),
            held => Err(FullWanted { number: held.unwrap_or(0) }),
        }
    }

    fn apply(&mut self, server: ServerId, changes: &[Change]) {
        let slot = self.inventory(server).slot;
        for change in changes {
            let old = match change.replica {
                Some(_) => self.held.put(change.chunk, slot, change.replica),
                None => self.held.remove(change.chunk, slot),
            };
            self.inventory(server).change(*change, old);
            self.note_change(change.chunk);
        }
    }

    /// Takes a verified receipt as news of a server that has reported.
    pub fn receipt(&mut self, receipt: &Receipt) {
        let Some(inventory) = self.servers.get_mut(&receipt.server).filter(|i| i.number.is_some()) else { return };
        if inventory.note(receipt, &self.held) {
            if !inventory.has_reported(receipt.chunk) {
                self.held.put(receipt.chunk, inventory.slot, None);
            }
            self.note_change(receipt.chunk);
        }
    }

    /// A server proved by a check that a replica is good although its inventory is in doubt.
    pub fn verified(&mut self, server: ServerId, chunk: ChunkId) {
        if let Some(inventory) = self.servers.get_mut(&server) {
            inventory.verified(chunk);
            self.note_change(chunk);
        }
    }

    /// Whether replicas of this server count only once verified.
    #[must_use]
    pub fn doubts(&self, server: ServerId, chunk: ChunkId) -> bool {
        self.servers.get(&server).is_some_and(|inventory| inventory.doubts(chunk))
    }

    /// Everything that a doubted server reported has been compared.
    #[must_use]
    pub fn is_doubt_settled(&self, server: ServerId) -> bool {
        self.servers.get(&server).is_some_and(Inventory::is_doubt_settled)
    }

    /// A doubted server counts again.
    pub fn trust(&mut self, server: ServerId) {
        if let Some(inventory) = self.servers.get_mut(&server) {
            inventory.trust();
        }
    }

    /// Every server that is known to hold something of `chunk`, and what; in the order of their ids.
    pub fn holders(&self, chunk: ChunkId) -> impl Iterator<Item = (ServerId, Replica)> + '_ {
        let slots = self.held.slots(chunk);
        let mut servers: SmallVec<[ServerId; 4]> =
            slots.filter_map(|Slot(slot)| self.slots.get(slot as usize)).copied().collect();
        servers.sort_unstable();
        servers.into_iter().filter_map(move |server| Some((server, self.replica(server, chunk)?)))
    }

    /// What `server` holds of `chunk`.
    #[must_use]
    pub fn replica(&self, server: ServerId, chunk: ChunkId) -> Option<Replica> {
        self.servers.get(&server)?.replica(chunk, &self.held)
    }

    /// The number `server`'s inventory is held at; `None` until its full report is here.
    #[must_use]
    pub fn number(&self, server: ServerId) -> Option<u64> {
        self.servers.get(&server)?.number
    }

    /// The number that `server`'s inventory is held at, and the sums over it, to compare with a beat at the same number.
    #[must_use]
    pub fn sums(&self, server: ServerId) -> Option<(u64, Sums)> {
        let inventory = self.servers.get(&server)?;
        Some((inventory.number?, inventory.sums))
    }

    /// Quarantined replicas on `server`.
    #[must_use]
    pub fn quarantined(&self, server: ServerId) -> u64 {
        self.servers.get(&server).map_or(0, |inventory| inventory.quarantined)
    }

    /// Replicas on `server`.
    #[must_use]
    pub fn count(&self, server: ServerId) -> u64 {
        self.servers.get(&server).map_or(0, Inventory::count)
    }

    /// Up to `limit` replicas of `server` that are to be compared with the records: first what changed, then a walk
    /// over all that begins with every full report.
    pub fn due(&mut self, server: ServerId, limit: usize) -> Vec<(ChunkId, Replica)> {
        let (servers, held) = (&mut self.servers, &self.held);
        servers.get_mut(&server).map(|inventory| inventory.due(limit, held)).unwrap_or_default()
    }

    /// Compare this replica again later: it could not be settled now.
    pub fn compare_again(&mut self, server: ServerId, chunk: ChunkId) {
        if let Some(inventory) = self.servers.get_mut(&server) {
            inventory.touch(chunk);
        }
    }

    /// Compare everything that a server holds once more.
    pub fn compare_all_again(&mut self, server: ServerId) {
        if let Some(inventory) = self.servers.get_mut(&server) {
            inventory.walk_again();
        }
    }

    /// The servers that reported or registered.
    pub fn servers(&self) -> impl Iterator<Item = ServerId> + '_ {
        self.servers.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use quarry_chunkserver_core::inventory::{self, ReplicaItem};
    use quarry_types::ClusterId;

    use super::*;

    fn sealed(length: u64) -> Replica {
        Replica { state: ReplicaState::Sealed, length, crc: Crc32(7) }
    }

    fn server(n: u128) -> ServerId {
        ServerId::from_random(n)
    }

    fn holders(locations: &Locations, chunk: u64) -> Vec<ServerId> {
        locations.holders(ChunkId(chunk)).map(|(s, _)| s).collect()
    }

    #[test]
    fn a_full_report_replaces_everything_of_its_server_only() {
        let (mut locations, a, b) = (Locations::new(ClusterKey::new([7; 32])), server(1), server(2));
        locations.full_report(a, 3, [(ChunkId(1), sealed(5)), (ChunkId(2), sealed(6))].into());
        locations.full_report(b, 9, [(ChunkId(1), sealed(5))].into());
        locations.full_report(a, 4, [(ChunkId(3), sealed(1))].into());
        assert_eq!(holders(&locations, 1), [b]);
        assert_eq!(holders(&locations, 2), []);
        assert_eq!(holders(&locations, 3), [a]);
        assert_eq!((locations.number(a), locations.count(a)), (Some(4), 1));
    }

    #[test]
    fn changes_apply_only_at_the_number_that_is_held() {
        let (mut locations, a) = (Locations::new(ClusterKey::new([7; 32])), server(1));
        let change = Change { chunk: ChunkId(1), replica: Some(sealed(5)) };
        assert_eq!(locations.changes(a, 0, &[change]), Err(FullWanted { number: 0 }));
        locations.full_report(a, 10, BTreeMap::new());
        assert_eq!(locations.changes(a, 9, &[change]), Err(FullWanted { number: 10 }));
        assert_eq!(holders(&locations, 1), []);
        assert_eq!(locations.changes(a, 10, &[change, Change { chunk: ChunkId(2), replica: Some(sealed(1)) }]), Ok(12));
        assert_eq!(locations.changes(a, 12, &[Change { chunk: ChunkId(1), replica: None }]), Ok(13));
        assert_eq!((holders(&locations, 1), holders(&locations, 2)), (vec![], vec![a]));
        locations.registered(a, false);
        assert_eq!(locations.changes(a, 13, &[change]), Err(FullWanted { number: 0 }));
        assert_eq!(holders(&locations, 2), [a], "what was known stays until the new report");
    }

    #[test]
    fn a_receipt_is_news_until_a_report_speaks_of_the_chunk() {
        let (mut locations, a) = (Locations::new(ClusterKey::new([7; 32])), server(1));
        let receipt = Receipt {
            cluster: ClusterId::default(),
            server: a,
            chunk: ChunkId(1),
            length: 4,
            crc: Crc32(4),
            durable: true,
            restarted: false,
        };
        locations.receipt(&receipt);
        assert_eq!(holders(&locations, 1), [], "nothing is known of a server before its full report");
        locations.full_report(a, 1, BTreeMap::new());
        let sums = locations.sums(a);
        locations.receipt(&receipt);
        assert_eq!(locations.sums(a), sums, "a note is not part of the inventory");
        assert!(locations.replica(a, ChunkId(1)).unwrap().serves(4, Crc32(4)));
        locations.changes(a, 1, &[Change { chunk: ChunkId(1), replica: None }]).unwrap();
        assert_eq!(locations.replica(a, ChunkId(1)), None);
    }

    #[test]
    fn s7_the_chunks_of_a_server_are_also_those_that_only_a_receipt_told_of() {
        let (mut locations, a) = (Locations::new(ClusterKey::new([7; 32])), server(1));
        locations.full_report(a, 1, [(ChunkId(2), sealed(5)), (ChunkId(4), sealed(5))].into());
        for chunk in [1, 3, 5] {
            let (cluster, length, crc) = (ClusterId::default(), 4, Crc32(4));
            let chunk = ChunkId(chunk);
            locations.receipt(&Receipt { cluster, server: a, chunk, length, crc, durable: true, restarted: false });
        }
        // One that was open by the report, and of which a receipt came since.
        let open = Replica { state: ReplicaState::Open, ..sealed(1) };
        locations.changes(a, 1, &[Change { chunk: ChunkId(6), replica: Some(open) }]).unwrap();
        let (cluster, length, crc) = (ClusterId::default(), 4, Crc32(4));
        let chunk = ChunkId(6);
        locations.receipt(&Receipt { cluster, server: a, chunk, length, crc, durable: true, restarted: false });
        let of = |from, limit| locations.chunks_of(a, ChunkId(from), limit).iter().map(|c| c.0).collect::<Vec<_>>();
        assert_eq!(of(0, 10), [1, 2, 3, 4, 5, 6]);
        assert_eq!((of(0, 3), of(4, 2), of(7, 2)), (vec![1, 2, 3], vec![4, 5], vec![]));
    }

    #[test]
    fn everything_is_compared_once_and_changes_again() {
        let (mut locations, a) = (Locations::new(ClusterKey::new([7; 32])), server(1));
        locations.full_report(a, 1, (1..=5).map(|n| (ChunkId(n), sealed(n))).collect());
        let mut seen = Vec::new();
        for _ in 0..4 {
            seen.extend(locations.due(a, 2).into_iter().map(|(c, _)| c.0));
        }
        assert_eq!(seen, [1, 2, 3, 4, 5]);
        locations.changes(a, 1, &[Change { chunk: ChunkId(2), replica: Some(sealed(9)) }]).unwrap();
        assert_eq!(locations.due(a, 10), [(ChunkId(2), sealed(9))]);
        assert_eq!(locations.due(a, 10), []);
    }

    #[test]
    fn an_old_image_counts_only_what_was_verified() {
        let (mut locations, a) = (Locations::new(ClusterKey::new([7; 32])), server(1));
        locations.registered(a, true);
        locations.full_report(a, 1, [(ChunkId(1), sealed(1)), (ChunkId(2), sealed(1))].into());
        locations.verified(a, ChunkId(1));
        assert!(!locations.doubts(a, ChunkId(1)));
        assert!(locations.doubts(a, ChunkId(2)));
        // It may have come back with yet another image.
        locations.registered(a, true);
        assert!(locations.doubts(a, ChunkId(1)), "what was verified on an image says nothing of the next one");
    }

    #[test]
    fn s7_a_report_of_ranges_counts_only_at_the_number_that_is_held() {
        let (mut locations, a) = (Locations::new(ClusterKey::new([7; 32])), server(1));
        let report = [(ChunkId(1), sealed(5))].into();
        assert_eq!(locations.ranges_report(a, 0, Ranges::ALL, &report), Err(FullWanted { number: 0 }));
        locations.full_report(a, 3, [(ChunkId(2), sealed(6)), (ChunkId(65), sealed(7))].into());
        assert_eq!(locations.ranges_report(a, 4, Ranges::ALL, &report), Err(FullWanted { number: 3 }));
        assert_eq!(locations.ranges_report(a, 3, Ranges(1 << 1), &report), Ok(()));
        assert_eq!((locations.number(a), locations.count(a)), (Some(3), 2));
        assert_eq!([1, 2, 65].map(|chunk| holders(&locations, chunk).len()), [1, 1, 0]);
        locations.registered(a, false);
        assert_eq!(locations.ranges_report(a, 3, Ranges::ALL, &report), Err(FullWanted { number: 0 }), "not in full");
    }

    proptest! {
        /// Whatever the master's picture has come to, a report of the ranges that differ makes it the server's again.
        #[test]
        fn s7_a_report_of_the_ranges_that_differ_makes_the_pictures_equal(
            theirs in proptest::collection::btree_map(0u64..300, 1u64..4, 0..80),
            ours in proptest::collection::btree_map(0u64..300, 1u64..4, 0..80),
        ) {
            let (key, a) = (ClusterKey::new([7; 32]), server(1));
            let mut there = inventory::Inventory::new(DigestKey::new(&key, a));
            for (chunk, length) in &theirs {
                let Replica { state, length, crc } = sealed(*length);
                there.put(ReplicaItem { chunk: ChunkId(*chunk), state, length, crc });
            }
            let replicas = |of: &BTreeMap<u64, u64>| of.iter().map(|(c, l)| (ChunkId(*c), sealed(*l))).collect();
            let (mut locations, mut right) = (Locations::new(key.clone()), Locations::new(key));
            locations.full_report(a, there.number(), replicas(&ours));
            right.full_report(a, there.number(), replicas(&theirs));
            let differing = locations.sums(a).unwrap().1.differing(there.sums().ranges());
            let report: BTreeMap<_, _> =
                replicas(&theirs).into_iter().filter(|(chunk, _): &(ChunkId, Replica)| differing.hold(*chunk)).collect();
            locations.ranges_report(a, there.number(), differing, &report).unwrap();
            prop_assert_eq!(locations.sums(a), Some((there.number(), there.sums())));
            for chunk in (0..300).map(ChunkId) {
                prop_assert_eq!(locations.replica(a, chunk), right.replica(a, chunk));
                prop_assert_eq!(locations.holders(chunk).count(), right.holders(chunk).count());
            }
        }
    }
}
