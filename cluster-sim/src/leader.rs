//! What a leader of the master group keeps in memory, around the decisions of [`quarry_master_core`].
//!
//! The detector, the ledger, the budget, the brake, the plan of balancing, placement and every decision about a chunk are the
//! master's own code. What stands here is the bookkeeping between them, which in the master is part of its shell
//! (`master/src/repairing.rs`, `master/src/balancing.rs`): what is to be looked at, which servers beat, what was ordered.

pub mod balancing;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use balancing::Balancing;
use quarry_master_core::{
    command::{ServerWish, Settings},
    detector::{self, Detector, Health},
    placement::Candidate,
    repair::{Cluster, Policy, Queue, brake, brake::Loss, budget::Budget},
    settings,
};
use quarry_types::ServerId;

use crate::{
    model::server::{Room, Server},
    units::Micros,
};

/// Between two ticks, as in `master/src/driver/repair.rs`.
pub const TICK: Micros = 100_000;
/// Chunks looked at in one tick, as there.
pub const LOOKS: usize = 2048;
/// Chunks decided about in one tick, as there.
pub const DECISIONS: usize = 64;
/// Copies and drops under way at once, as there.
pub const ORDERS_MAX: usize = 4096;
/// Blocked chunks that are looked at again at once when the cluster changed, as in `master/src/repairing.rs`.
pub const UNBLOCK_MAX: usize = 10_000;
/// Two questions to the detector are at least so far apart, as in `master/src/driver/health.rs`.
pub const CONSULT_MIN: Micros = 50_000;
/// Where all that is left waits for a change of the cluster, it is looked at again after this. The master looks every few seconds
/// and sees the same.
pub const BLOCKED_AGAIN: Micros = 60_000_000;

/// Chunks that wait for room are looked at again after this at the latest: clients may let copies go faster meanwhile.
pub const BUSY_AGAIN: Micros = 5_000_000;

/// Virtual time for the master's code.
#[must_use]
pub fn at(now: Micros) -> Duration {
    Duration::from_micros(now)
}

/// Virtual time from the master's code.
#[must_use]
pub fn micros(at: Duration) -> Micros {
    u64::try_from(at.as_micros()).unwrap_or(u64::MAX)
}

/// A leader.
pub struct Leader {
    /// Who is alive.
    pub detector: Detector,
    /// The ledger.
    pub queue: Queue,
    /// What copies use.
    pub budget: Budget,
    /// What an operator set about repair.
    pub policy: Policy,
    /// All that an operator set.
    pub settings: Settings,
    /// The cluster as decisions see it; candidates are in server order.
    pub cluster: Cluster,
    /// Servers by rack.
    pub racks: BTreeMap<String, usize>,
    /// Servers that went and nobody announced it.
    pub losses: BTreeMap<ServerId, Loss>,
    /// An operator ended the brake.
    pub released: Option<Duration>,
    /// Servers whose chunks are all to be looked at.
    pub walks: BTreeSet<u16>,
    /// Chunks of one of them that are still to be looked at, the last first.
    pub walk: Vec<u32>,
    /// What servers held that were lost since.
    pub remembered: BTreeMap<u16, Vec<u32>>,
    /// Everything is looked at, from here on.
    pub survey: Option<u32>,
    /// Chunks that are to be looked at.
    pub changed: BTreeSet<u32>,
    /// Replicas that were ordered to be dropped.
    pub drops: BTreeSet<(u32, u16)>,
    /// Servers of which the detector does not simply hear each second.
    pub watched: BTreeSet<u16>,
    /// Servers whose budget is not full, or which copy.
    pub lanes: BTreeSet<u16>,
    /// Servers whose room changed since the last tick.
    pub touched: BTreeSet<u16>,
    /// Moments at which something that waits for its time may go on.
    pub waits: BTreeSet<Micros>,
    /// Evening out.
    pub balancing: Balancing,
    /// When the next tick is.
    pub tick_at: Option<Micros>,
    /// When the detector is asked next.
    pub consult_at: Option<Micros>,
    /// When maintenances run out.
    pub maintenance: BTreeMap<u16, Micros>,
    /// Copies and drops under way.
    pub orders: usize,
}

impl Leader {
    /// Of these servers, all of them alive at time 0.
    #[must_use]
    pub fn new(servers: &[Server], rack_names: &[String], settings: Settings) -> Self {
        let mut detector = Detector::new();
        detector.policy = detector::Policy::of(&settings);
        let (mut racks, mut candidates) = (BTreeMap::new(), Vec::with_capacity(servers.len()));
        for server in servers {
            let rack = rack_names.get(server.rack as usize).map_or("", String::as_str);
            *racks.entry(rack.to_owned()).or_default() += 1;
            detector.beat(server.id, Duration::ZERO);
            let Room { capacity, best, free } = server.room();
            let candidate = Candidate::idle(server.id, rack, capacity, free);
            candidates.push(Candidate { available_bytes: best, ..candidate });
        }
        detector.changes(Duration::ZERO);
        let cluster = Cluster { candidates, racks: racks.keys().cloned().collect(), ready: true, ..Cluster::default() };
        Leader {
            detector,
            queue: Queue::default(),
            budget: Budget::default(),
            policy: Policy::of(&settings),
            settings,
            cluster,
            racks,
            losses: BTreeMap::new(),
            released: None,
            walks: BTreeSet::new(),
            walk: Vec::new(),
            remembered: BTreeMap::new(),
            survey: None,
            changed: BTreeSet::new(),
            drops: BTreeSet::new(),
            watched: BTreeSet::new(),
            lanes: BTreeSet::new(),
            touched: BTreeSet::new(),
            waits: BTreeSet::new(),
            balancing: Balancing::default(),
            tick_at: None,
            consult_at: None,
            maintenance: BTreeMap::new(),
            orders: 0,
        }
    }

    /// A server as decisions see it.
    #[must_use]
    pub fn candidate(&self, server: u16) -> Option<&Candidate> {
        self.cluster.candidates.get(server as usize)
    }

    /// The same, to change it.
    pub fn candidate_mut(&mut self, server: u16) -> Option<&mut Candidate> {
        self.cluster.candidates.get_mut(server as usize)
    }

    /// What the leader believes of a server.
    #[must_use]
    pub fn health(&self, server: u16) -> Health {
        self.candidate(server).map_or(Health::Dead, |candidate| candidate.health)
    }

    /// What an operator wants of it.
    #[must_use]
    pub fn wish(&self, server: u16) -> ServerWish {
        self.candidate(server).map_or(ServerWish::Active, |candidate| candidate.wish)
    }

    /// The number of a server.
    #[must_use]
    pub fn number(&self, id: ServerId) -> Option<u16> {
        let found = self.cluster.candidates.binary_search_by_key(&id, |candidate| candidate.server).ok()?;
        u16::try_from(found).ok()
    }

    /// Nobody is surprised that the server is not there.
    #[must_use]
    pub fn is_expected_away(&self, server: u16) -> bool {
        match self.wish(server) {
            ServerWish::Maintenance | ServerWish::Decommissioned => true,
            ServerWish::Draining => {
                self.candidate(server).is_some_and(|candidate| self.detector.has_stopped(candidate.server))
            }
            ServerWish::Active => false,
        }
    }

    /// An operator, or a graceful stop, wants something else of a server.
    pub fn set_wish(&mut self, server: u16, wish: ServerWish) {
        if self.wish(server) == wish {
            return;
        }
        if let Some(candidate) = self.candidate_mut(server) {
            candidate.wish = wish;
        }
        if wish != ServerWish::Maintenance {
            self.maintenance.remove(&server);
        }
        self.walks.insert(server);
        self.queue.policy_changed(UNBLOCK_MAX);
    }

    /// How long a graceful stop is a maintenance.
    #[must_use]
    pub fn maintenance_time(&self) -> Micros {
        micros(self.settings.duration(&settings::MAINTENANCE))
    }

    /// Takes note of what the detector found.
    pub fn health_changed(&mut self, server: u16, change: &detector::HealthChange, now: Duration) {
        let (was, is, expected) = (change.from, change.to, self.is_expected_away(server));
        if let Some(candidate) = self.candidate_mut(server) {
            candidate.health = is;
        }
        if was == Health::Dead || is == Health::Dead {
            self.walks.insert(server);
        }
        match is {
            Health::Alive | Health::Suspect => {
                self.losses.remove(&change.server);
                if was != Health::Alive {
                    self.queue.unblock(UNBLOCK_MAX);
                }
            }
            Health::Partitioned | Health::Dead if !expected => {
                let rack = self.candidate(server).map(|candidate| candidate.rack.clone()).unwrap_or_default();
                self.losses.entry(change.server).or_insert(Loss { server: change.server, rack, at: now });
                self.waits.insert(micros(now.saturating_add(self.policy.brake_hold)));
            }
            Health::Partitioned | Health::Dead => {}
        }
    }

    /// Works out whether the brake holds.
    pub fn look_at_brake(&mut self, now: Duration) {
        let held = |loss: &&Loss| self.released.is_none_or(|released| loss.at > released);
        let losses: Vec<Loss> = self.losses.values().filter(held).cloned().collect();
        let holds = if losses.is_empty() { None } else { brake(&losses, &self.racks, &self.policy, now) };
        if self.cluster.brake.is_some() && holds.is_none() {
            self.queue.unblock(UNBLOCK_MAX);
        }
        self.cluster.brake = holds;
    }

    /// Takes note of what the copies of these servers use now.
    pub fn refresh_copy_room(&mut self, servers: &[u16], now: Duration) {
        for number in servers {
            let Some(candidate) = self.cluster.candidates.get_mut(*number as usize) else { continue };
            let room = self.budget.room(candidate.server, &self.policy, now);
            (candidate.copies_in, candidate.copies_out) = (room.copies_in, room.copies_out);
            (candidate.budget_in, candidate.budget_out) = (room.bytes_in, room.bytes_out);
        }
        self.cluster.budget = self.budget.cluster(&self.policy, now);
    }

    /// Takes note of what copies have used, for servers whose budget is not full.
    pub fn refresh_lanes(&mut self, now: Duration) {
        let (budget, policy, cluster) = (&self.budget, &self.policy, &mut self.cluster);
        self.lanes.retain(|server| {
            let Some(candidate) = cluster.candidates.get_mut(*server as usize) else { return false };
            let room = budget.room(candidate.server, policy, now);
            (candidate.copies_in, candidate.copies_out) = (room.copies_in, room.copies_out);
            (candidate.budget_in, candidate.budget_out) = (room.bytes_in, room.bytes_out);
            let full = (policy.rate as f64 * budget.share()) as i64;
            room.copies_in + room.copies_out > 0 || room.bytes_in < full || room.bytes_out < full
        });
        cluster.budget = budget.cluster(policy, now);
    }

    /// How long until some budget that is used up is there again: the cluster's, or else the first one of a server.
    #[must_use]
    pub fn budget_again(&self) -> Micros {
        let until = |bytes: i64, rate: u64| {
            let rate = (rate as f64 * self.budget.share()).max(1.0);
            if bytes > 0 { None } else { Some(((1.0 - bytes as f64) / rate * 1e6) as Micros) }
        };
        let cluster = until(self.cluster.budget, self.policy.rate_cluster);
        let of_server = |server: &u16| {
            let candidate = self.candidate(*server)?;
            [candidate.budget_in, candidate.budget_out]
                .into_iter()
                .filter_map(|bytes| until(bytes, self.policy.rate))
                .min()
        };
        cluster.or_else(|| self.lanes.iter().filter_map(of_server).min()).unwrap_or(BUSY_AGAIN).min(BUSY_AGAIN)
    }

    /// Takes note of the room on servers where it changed.
    pub fn refresh_room(&mut self, servers: &[Server]) {
        for number in std::mem::take(&mut self.touched) {
            if let (Some(server), Some(candidate)) =
                (servers.get(number as usize), self.cluster.candidates.get_mut(number as usize))
            {
                let room = server.room();
                candidate.capacity_bytes = room.capacity;
                (candidate.available_bytes, candidate.free_bytes) = (room.best, room.free);
            }
        }
    }
}
