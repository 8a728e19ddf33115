//! What the leader knows about chunks that are not as they should be: soft state of one leadership.
//!
//! Whatever changes is noted here, by whoever learns of it; the driver looks at it in bounded steps. Nothing walks all chunks,
//! except the survey that a leadership begins with.

mod drops;

use std::{collections::BTreeMap, time::Duration};

use quarry_env::Instant;
use quarry_master_core::{
    command::ServerWish,
    detector::{Health, HealthChange},
    query::ChunkRecord,
    repair::{
        ChunkFacts, Cluster, Holder, Policy, Quality, Queue, assess,
        brake::{Loss, brake},
        budget::Budget,
        decide::Question,
        queue::Needless,
    },
    rows::ChunkState,
};
use quarry_types::{ChunkId, ReplicaState, ServerId, planted};

use drops::Drops;

use crate::{
    balancing::Balancing,
    locations::{Locations, Replica},
    servers::Servers,
    shared::Soft,
};

/// How far the look at everything has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survey {
    /// It goes on behind this chunk.
    Behind(ChunkId),
    /// Everything was looked at once; since then changes tell.
    Done,
    /// The same, and all is looked at again for the sake of chunks that the ledger had no room for. It goes on behind this one.
    Again(ChunkId),
}

/// Work on chunks that are not as they should be.
pub struct Repairing {
    /// The ledger.
    pub queue: Queue,
    /// What copies use.
    pub budget: Budget,
    /// What an operator set.
    pub policy: Policy,
    /// Servers had time to report.
    pub ready: bool,
    /// How far the look at everything has come.
    pub survey: Survey,
    /// Counts the looks at what changed.
    pub looked: u64,
    /// Servers whose chunks are all to be looked at, and from where on.
    pub walks: BTreeMap<ServerId, ChunkId>,
    /// A look is under way: what it takes a look at is neither among the changes nor in the ledger.
    pub looking: bool,
    drops: Drops,
    /// Balancing: what moves, and what is read much.
    pub balancing: Balancing,
    losses: BTreeMap<ServerId, Loss>,
    /// An operator ended the brake: losses up to then do not hold repair.
    released: Option<Instant>,
    wishes: BTreeMap<ServerId, ServerWish>,
}

impl Survey {
    /// Nothing was looked at yet.
    pub const BEGIN: Survey = Survey::Behind(ChunkId(0));

    /// Everything was looked at once.
    #[must_use]
    pub fn is_over(self) -> bool {
        !matches!(self, Survey::Behind(_))
    }

    /// It goes on behind this chunk, if at all.
    #[must_use]
    pub fn after(self) -> Option<ChunkId> {
        match self {
            Survey::Behind(after) | Survey::Again(after) => Some(after),
            Survey::Done => None,
        }
    }

    /// As it is when it has come to this chunk, or to the end.
    #[must_use]
    pub fn at(self, last: Option<ChunkId>) -> Survey {
        match (self, last) {
            (Survey::Behind(_), Some(last)) => Survey::Behind(last),
            (Survey::Again(_), Some(last)) => Survey::Again(last),
            (Survey::Done, _) | (_, None) => Survey::Done,
        }
    }
}

impl Default for Repairing {
    fn default() -> Self {
        Repairing {
            queue: Queue::default(),
            budget: Budget::default(),
            policy: Policy::default(),
            ready: false,
            survey: Survey::BEGIN,
            looked: 0,
            walks: BTreeMap::new(),
            looking: false,
            drops: Drops::default(),
            balancing: Balancing::default(),
            losses: BTreeMap::new(),
            released: None,
            wishes: BTreeMap::new(),
        }
    }
}

impl Repairing {
    /// Who has what is known, and every chunk was looked at.
    #[must_use]
    pub fn knows_all(&self) -> bool {
        self.ready && self.survey.is_over()
    }

    /// All chunks of a server are to be looked at.
    pub fn walk(&mut self, server: ServerId) {
        self.walks.insert(server, ChunkId(0));
    }

    /// A server's health changed. `expected`: it said goodbye, or an operator knows that it is away.
    pub fn health_changed(&mut self, change: &HealthChange, rack: &str, expected: bool, now: Instant) {
        let (was, is) = (change.from, change.to);
        if was == Health::Dead || is == Health::Dead {
            self.walk(change.server);
        }
        match is {
            // One that flaps is back as a suspect, and one that was a suspect only was no loss.
            Health::Alive | Health::Suspect => {
                self.losses.remove(&change.server);
                if was != Health::Alive {
                    self.queue.unblock(UNBLOCK_MAX);
                }
            }
            Health::Partitioned | Health::Dead if !expected => {
                let loss = Loss { server: change.server, rack: rack.into(), at: now.0 };
                self.losses.entry(change.server).or_insert(loss);
            }
            Health::Partitioned | Health::Dead => {}
        }
    }

    /// What is wanted of servers, as it is now: chunks of those that changed are looked at.
    pub fn wishes(&mut self, servers: &Servers, locations: &Locations) {
        let mut changed = false;
        for (server, _) in servers.rows() {
            let wish = servers.wish(server);
            let before = self.wishes.insert(server, wish).unwrap_or(ServerWish::Active);
            if before == wish {
                continue;
            }
            self.walk(server);
            if before == ServerWish::Maintenance && locations.number(server).is_none() {
                // Which chunks it held that was away all the time is known by the records only.
                self.survey = Survey::BEGIN;
            }
            changed = true;
        }
        if changed {
            // Also what waits for a server to come back that nobody expects any more.
            self.queue.policy_changed(UNBLOCK_MAX);
        }
    }

    /// A server says how far it has come with a copy. One that was cancelled may go on for a moment elsewhere: that says nothing
    /// about the present one.
    pub fn copied_so_far(&mut self, server: ServerId, chunk: ChunkId, bytes: u64, now: Instant) {
        if self.queue.is_copying(chunk, server) {
            self.queue.progress(chunk, bytes, now.0);
        }
    }

    /// What an operator set is this now.
    pub fn work_by(&mut self, policy: Policy) {
        if self.policy != policy {
            self.policy = policy;
            self.queue.policy_changed(UNBLOCK_MAX);
        }
    }

    /// Why repair of chunks with two or more replicas holds, when it does.
    #[must_use]
    pub fn brake(&self, servers: &Servers, now: Instant) -> Option<String> {
        let held = |loss: &&Loss| self.released.is_none_or(|released| loss.at > released.0);
        let losses: Vec<Loss> = self.losses.values().filter(held).cloned().collect();
        if losses.is_empty() {
            return None;
        }
        brake(&losses, &servers.racks(), &self.policy, now.0)
    }

    /// Losses up to now hold repair no longer.
    pub fn release_brake(&mut self, now: Instant) {
        self.released = Some(now);
        self.queue.unblock(UNBLOCK_MAX);
    }

    /// Everything that changed was looked at, and whatever is not as it should be stands in the ledger.
    #[must_use]
    pub fn is_settled(&self, locations: &Locations) -> bool {
        self.knows_all() && self.has_looked(locations) && self.queue.is_whole()
    }

    /// Everything that was told to this leader so far was looked at.
    #[must_use]
    pub fn has_looked(&self, locations: &Locations) -> bool {
        !self.looking && self.walks.is_empty() && !locations.has_changed()
    }

    /// A drop was sent.
    pub fn drop_sent(&mut self, chunk: ChunkId, server: ServerId) {
        self.drops.sent(chunk, server);
    }

    /// A drop was carried out. `there`: by the picture of the server the replica is there still.
    pub fn drop_done(&mut self, chunk: ChunkId, server: ServerId, there: bool) {
        self.drops.answered(chunk, server, there);
    }

    /// A drop was refused for good: the replica is there.
    pub fn drop_refused(&mut self, chunk: ChunkId, server: ServerId) {
        self.drops.refused(chunk, server);
    }

    /// The picture of a server is new.
    pub fn reported(&mut self, server: ServerId, locations: &Locations) {
        self.drops.reported(server, |chunk| locations.replica(server, chunk).is_some());
    }

    /// A full report of a new registration: what it shows is what drops of the one before have left. Their chunks.
    pub fn reported_in_full(&mut self, server: ServerId) -> Vec<ChunkId> {
        self.drops.reported_in_full(server)
    }
}

/// Blocked chunks that are looked at again at once when the cluster changed; the rest follows by their own time.
const UNBLOCK_MAX: usize = 10_000;

/// What a replica is worth, given the record of its chunk.
fn quality(soft: &Soft, server: ServerId, chunk: ChunkId, replica: &Replica, record: &ChunkRecord) -> Quality {
    if replica.state == ReplicaState::Quarantined {
        return Quality::Quarantined;
    }
    // Where the receipt came before the report of the change, the record knows better.
    let sealed_since = replica.state == ReplicaState::Open && record.holders.contains(&server);
    if !replica.serves(record.length, record.crc) && !sealed_since {
        return Quality::Unfit;
    }
    if soft.locations.doubts(server, chunk) { Quality::Doubted } else { Quality::Good }
}

/// A chunk as the leader knows it.
#[must_use]
pub fn facts(soft: &Soft, chunk: ChunkId, record: &ChunkRecord, now: Instant) -> ChunkFacts {
    let repairing = &soft.repairing;
    let moving = repairing.balancing.get(chunk);
    let holder = |server: ServerId, quality: Quality, reported: bool| Holder {
        server,
        rack: soft.servers.rack(server).into(),
        health: soft.servers.health(server, now),
        wish: soft.servers.wish(server),
        quality,
        reported,
        leaving: moving.is_some_and(|moving| moving.from == server),
        dropping: repairing.drops.contains(chunk, server),
    };
    let mut holders: BTreeMap<ServerId, Holder> = soft
        .locations
        .holders(chunk)
        .map(|(server, replica)| {
            let reported = soft.locations.number(server).is_some() && !soft.servers.is_gone(server);
            (server, holder(server, quality(soft, server, chunk, &replica, record), reported))
        })
        .collect();
    // One in maintenance, or cut off, may be away since before this leadership: the record says what it held.
    for server in &record.holders {
        let kept = soft.servers.wish(*server) == ServerWish::Maintenance
            || soft.servers.health(*server, now) == Health::Partitioned;
        if kept && soft.locations.number(*server).is_none() {
            holders.entry(*server).or_insert_with(|| holder(*server, Quality::Good, false));
        }
    }
    if planted!("count-old-report") {
        for server in &record.holders {
            holders.entry(*server).or_insert_with(|| holder(*server, Quality::Good, true));
        }
    }
    let holders = holders.into_values().collect();
    let (length, crc, wanted) = (record.length, record.crc, record.wanted);
    let extra = u32::from(repairing.balancing.hot.is_hot(chunk) && soft.servers.can_hold(wanted.saturating_add(1)));
    ChunkFacts { chunk, length, crc, wanted, extra, toward: moving.map(|moving| moving.to), holders }
}

/// The cluster as the leader knows it.
#[must_use]
pub fn cluster(soft: &Soft, now: Instant) -> Cluster {
    let repairing = &soft.repairing;
    let mut candidates = soft.servers.candidates(now);
    for candidate in &mut candidates {
        let room = repairing.budget.room(candidate.server, &repairing.policy, now.0);
        (candidate.copies_in, candidate.copies_out) = (room.copies_in, room.copies_out);
        (candidate.budget_in, candidate.budget_out) = (room.bytes_in, room.bytes_out);
    }
    Cluster {
        candidates,
        racks: soft.servers.racks().into_keys().collect(),
        brake: repairing.brake(&soft.servers, now),
        ready: repairing.ready,
        budget: repairing.budget.cluster(&repairing.policy, now.0),
        held: false,
    }
}

impl Soft {
    /// Takes a fresh look at a chunk. A copy that is needless now is returned.
    pub fn look_at(
        &mut self,
        chunk: ChunkId,
        record: Option<&ChunkRecord>,
        racks: usize,
        now: Instant,
    ) -> Option<Needless> {
        let Some(record) = record.filter(|record| record.state == ChunkState::Sealed) else {
            self.repairing.balancing.ended(chunk, false, now);
            return self.repairing.queue.forget(chunk, now.0);
        };
        let facts = facts(self, chunk, record, now);
        let need = assess(&facts, racks);
        let arrived =
            |holder: &Holder| holder.quality == Quality::Good && self.repairing.queue.is_copying(chunk, holder.server);
        if !need.wants_copy() && facts.holders.iter().any(arrived) {
            // The copy has arrived, and its receipt is on the way: what came of it is entered then.
            return None;
        }
        if need.is_met() {
            // What was to move has moved, or need not any more. Until the replica that left is gone its server counts it: were the
            // move over when the drop is ordered, slow drops would make balancing send more and more away from there.
            let leaving = facts.holders.iter().find(|holder| holder.leaving);
            if !leaving.is_some_and(|holder| holder.dropping) {
                self.repairing.balancing.ended(chunk, leaving.is_none(), now);
            }
        }
        self.repairing.queue.assess(chunk, need, record.length, now.0)
    }

    /// What is to be decided about a chunk.
    #[must_use]
    pub fn question(&self, chunk: ChunkId, record: &ChunkRecord, chance: u64, now: Instant) -> Question {
        let entry = self.repairing.queue.get(chunk);
        Question {
            facts: facts(self, chunk, record, now),
            since: entry.map_or(now.0, |entry| entry.since),
            failed: entry.map(|entry| entry.failed.clone()).unwrap_or_default(),
            now: now.0,
            chance,
        }
    }
}

/// A server had its time to report: all did, or so much time went by since the leadership began.
pub const READY_AFTER: Duration = quarry_types::limits::DEAD_AFTER.saturating_mul(2);

#[cfg(test)]
pub(crate) mod tests {
    use quarry_master_core::repair::{Need, queue::Work};
    use quarry_types::{ClusterKey, Crc32, InodeId};

    use super::*;
    use crate::servers::tests::registered;

    /// A sealed chunk of ten bytes with CRC 7.
    pub(crate) fn sealed(wanted: u32) -> ChunkRecord {
        ChunkRecord {
            inode: InodeId(1),
            offset: 0,
            state: ChunkState::Sealed,
            length: 10,
            crc: Crc32(7),
            limit: 10,
            wanted,
            members: Vec::new(),
            holders: Vec::new(),
        }
    }

    #[test]
    fn only_the_target_of_a_copy_says_how_far_it_is() {
        let (chunk, now) = (ChunkId(1), Instant(Duration::from_secs(1)));
        let [source, cancelled, target] = [1, 2, 3].map(ServerId::from_random);
        let mut repairing = Repairing::default();
        let need = Need { wanted: 3, good: 2, missing: 1, ..Need::default() };
        assert_eq!(repairing.queue.assess(chunk, need, 100, now.0), None);
        repairing.queue.copying(chunk, source, target, now.0);
        let done = |repairing: &Repairing| match repairing.queue.get(chunk).unwrap().work {
            Work::Copying { done, .. } => done,
            _ => panic!(),
        };
        repairing.copied_so_far(cancelled, chunk, 90, now);
        assert_eq!(done(&repairing), 0);
        repairing.copied_so_far(target, chunk, 40, now);
        assert_eq!(done(&repairing), 40);
    }

    #[test]
    fn s7_a_replica_counts_for_a_drop_only_while_the_stream_of_its_server_goes_on() {
        let (chunk, server, now) = (ChunkId(7), ServerId::from_random(1), Instant(Duration::from_secs(1)));
        let mut soft = Soft::new(ClusterKey::new([7; 32]));
        soft.servers.register(server, registered(1), now);
        let replica = Replica { state: ReplicaState::Sealed, length: 10, crc: Crc32(7) };
        soft.locations.full_report(server, 1, [(chunk, replica)].into());
        let record = sealed(1);
        let safe = |soft: &Soft| facts(soft, chunk, &record, now).holders.iter().any(Holder::is_safe);
        assert!(safe(&soft));
        soft.servers.stream_ended(server, 1);
        assert!(!safe(&soft), "it is alive still, and what it held may be another image when it comes back");
    }
}
