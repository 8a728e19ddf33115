//! What one server holds.

use std::collections::{BTreeMap, BTreeSet};

use quarry_chunkserver_core::inventory::{DigestKey, Ranges, ReplicaItem, Sums};
use quarry_types::{ChunkId, Receipt, ReplicaState};
use roaring::RoaringTreemap;

use super::{
    Replica,
    held::{Held, Slot},
};

/// Changed replicas remembered for comparison; when more change at once, everything is walked again.
const TOUCHED_MAX: usize = 100_000;

/// One numbered change of an inventory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Of this chunk.
    pub chunk: ChunkId,
    /// What is there now; `None`: nothing.
    pub replica: Option<Replica>,
}

pub(super) struct Inventory {
    /// What it reported stands under this in [`Held`].
    pub slot: Slot,
    key: DigestKey,
    /// The number it is held at; `None` until a full report of the present registration came.
    pub number: Option<u64>,
    /// An old image of the server started: nothing counts until verified.
    doubted: bool,
    pub quarantined: u64,
    /// The sums over what it reported, as the server computes them over its own.
    pub sums: Sums,
    /// Chunks of which it reported a replica.
    chunks: RoaringTreemap,
    /// From receipts that came before the report of the same change.
    noted: BTreeMap<ChunkId, Replica>,
    verified: BTreeSet<ChunkId>,
    touched: BTreeSet<ChunkId>,
    /// Where the walk over everything goes on; `None` when it is done.
    walk_from: Option<ChunkId>,
}

impl Inventory {
    pub fn new(key: DigestKey, slot: Slot) -> Self {
        Inventory {
            slot,
            key,
            number: None,
            doubted: false,
            quarantined: 0,
            sums: Sums::default(),
            chunks: RoaringTreemap::new(),
            noted: BTreeMap::new(),
            verified: BTreeSet::new(),
            touched: BTreeSet::new(),
            walk_from: None,
        }
    }

    fn weigh(&self, chunk: ChunkId, replica: Option<&Replica>) -> u64 {
        replica.map_or(0, |r| self.key.weigh(&ReplicaItem { chunk, state: r.state, length: r.length, crc: r.crc }))
    }

    /// These are all; [`Held`] has them already.
    pub fn replace(&mut self, number: u64, replicas: &BTreeMap<ChunkId, Replica>) {
        self.number = Some(number);
        self.quarantined = replicas.values().filter(|r| r.state == ReplicaState::Quarantined).count() as u64;
        self.sums = Sums::default();
        self.chunks.clear();
        for (chunk, replica) in replicas {
            let weight = self.weigh(*chunk, Some(replica));
            self.sums.change(*chunk, 0, weight);
            self.chunks.insert(chunk.0);
        }
        self.noted.clear();
        self.touched.clear();
        self.walk_from = Some(ChunkId(0));
    }

    /// Takes a change of what it had reported as `old`.
    pub fn change(&mut self, change: Change, old: Option<Replica>) {
        self.noted.remove(&change.chunk);
        match change.replica {
            Some(_) => self.chunks.insert(change.chunk.0),
            None => self.chunks.remove(change.chunk.0),
        };
        let bad = |replica: Option<Replica>| u64::from(replica.is_some_and(|r| r.state == ReplicaState::Quarantined));
        self.quarantined = self.quarantined + bad(change.replica) - bad(old);
        let (gone, come) = (self.weigh(change.chunk, old.as_ref()), self.weigh(change.chunk, change.replica.as_ref()));
        self.sums.change(change.chunk, gone, come);
        self.touch(change.chunk);
    }

    /// What has to change for these to be all replicas in `ranges`.
    pub fn differences(&self, ranges: Ranges, replicas: &BTreeMap<ChunkId, Replica>, held: &Held) -> Vec<Change> {
        let gone = self.all_chunks().filter(|chunk| ranges.hold(*chunk) && !replicas.contains_key(chunk));
        let come =
            replicas.iter().filter(|(chunk, replica)| held.reported(**chunk, self.slot).as_ref() != Some(*replica));
        let gone = gone.map(|chunk| Change { chunk, replica: None });
        gone.chain(come.map(|(chunk, replica)| Change { chunk: *chunk, replica: Some(*replica) })).collect()
    }

    /// Whether the receipt said something new.
    pub fn note(&mut self, receipt: &Receipt, held: &Held) -> bool {
        let known = self.replica(receipt.chunk, held);
        if receipt.length == 0 || known.is_some_and(|r| r.state != ReplicaState::Open) || self.noted.len() > TOUCHED_MAX
        {
            return false;
        }
        let replica = Replica { state: ReplicaState::Fenced, length: receipt.length, crc: receipt.crc };
        self.noted.insert(receipt.chunk, replica);
        true
    }

    pub fn replica(&self, chunk: ChunkId, held: &Held) -> Option<Replica> {
        self.noted.get(&chunk).copied().or_else(|| held.reported(chunk, self.slot))
    }

    /// Whether it reported something of `chunk`.
    pub fn has_reported(&self, chunk: ChunkId) -> bool {
        self.chunks.contains(chunk.0)
    }

    fn reported_from(&self, from: ChunkId) -> impl Iterator<Item = ChunkId> + '_ {
        let mut chunks = self.chunks.iter();
        chunks.advance_to(from.0);
        chunks.map(ChunkId)
    }

    pub fn all_chunks(&self) -> impl Iterator<Item = ChunkId> + '_ {
        self.chunks.iter().map(ChunkId).chain(self.noted.keys().copied())
    }

    /// The first `limit` chunks from `from` on, those among them that only a receipt told of.
    pub fn chunks_from(&self, from: ChunkId, limit: usize) -> Vec<ChunkId> {
        let mut reported = self.reported_from(from).peekable();
        let mut noted = self.noted.range(from..).map(|(chunk, _)| *chunk).peekable();
        let next = || {
            let first = reported.peek().into_iter().chain(noted.peek()).min().copied()?;
            reported.next_if_eq(&first);
            noted.next_if_eq(&first);
            Some(first)
        };
        std::iter::from_fn(next).take(limit).collect()
    }

    pub fn count(&self) -> u64 {
        self.chunks.len()
    }

    pub fn doubts(&self, chunk: ChunkId) -> bool {
        self.doubted && !self.verified.contains(&chunk)
    }

    pub fn doubt(&mut self, doubted: bool) {
        self.doubted = doubted;
        self.verified.clear();
    }

    pub fn verified(&mut self, chunk: ChunkId) {
        if self.doubted {
            self.verified.insert(chunk);
        }
    }

    pub fn is_doubt_settled(&self) -> bool {
        self.doubted && self.number.is_some() && self.walk_from.is_none() && self.touched.is_empty()
    }

    pub fn trust(&mut self) {
        self.doubt(false);
    }

    pub fn touch(&mut self, chunk: ChunkId) {
        if self.touched.len() >= TOUCHED_MAX {
            self.walk_from = Some(ChunkId(0));
            self.touched.clear();
        }
        self.touched.insert(chunk);
    }

    pub fn walk_again(&mut self) {
        self.walk_from = Some(ChunkId(0));
    }

    pub fn due(&mut self, limit: usize, held: &Held) -> Vec<(ChunkId, Replica)> {
        let mut found = Vec::new();
        for _ in 0..limit {
            let Some(chunk) = self.touched.pop_first() else { break };
            found.extend(self.replica(chunk, held).map(|replica| (chunk, replica)));
        }
        let room = limit.saturating_sub(found.len());
        if let Some(from) = self.walk_from
            && room > 0
        {
            let chunks = self.reported_from(from).take(room);
            let before = found.len();
            found.extend(chunks.filter_map(|chunk| Some((chunk, held.reported(chunk, self.slot)?))));
            let walked_to = found.get(before..).and_then(|walked| walked.last()).map(|(chunk, _)| *chunk);
            self.walk_from = walked_to.and_then(|chunk| chunk.0.checked_add(1)).map(ChunkId);
        }
        found
    }
}
