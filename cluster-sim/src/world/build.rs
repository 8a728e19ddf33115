//! A world from a scenario, or from the state of a real cluster.

use std::time::Duration;

use quarry_chunkserver_core::scrub::Pace;
use quarry_master_core::command::ServerWish;
use quarry_types::ServerId;
use uuid::Uuid;

use super::{
    World,
    faults::KINDS,
    trouble::{Fate, Trouble},
};
use crate::{
    agenda::{Agenda, Event},
    chance::{Stream, mixed, stream},
    leader::Leader,
    measure::Measures,
    model::{
        chunks::Chunks,
        layout,
        network::Network,
        server::{Disk, Server},
    },
    scenario::{EventSpec, Faults, Model, Scenario, Target, Workload},
    units::{Micros, SECOND},
};

/// What a world is made from.
pub(crate) struct Parts {
    pub chunks: Chunks,
    pub servers: Vec<Server>,
    pub racks: Vec<String>,
    pub settings: quarry_master_core::command::Settings,
    pub model: Model,
    pub workload: Workload,
    pub faults: Faults,
    pub events: Vec<EventSpec>,
    pub until: Micros,
    pub seed: u64,
    pub chunk_bytes: u32,
    pub replicas: u8,
}

/// A server as it is at first. Its beats began within the second before.
pub(crate) fn server(id: ServerId, rack: u16, name: String, disks: Vec<Disk>, seed: u64, number: u64) -> Server {
    Server {
        id,
        rack,
        name,
        disks,
        held: Vec::new(),
        down: 0,
        cut: 0,
        isolated: 0,
        slow: 1,
        lost: false,
        beats_from: mixed(seed, number, SECOND),
        reported: true,
        registration: 1,
        silent_from: None,
    }
}

/// The id of a server that has none: ids are in the order of numbers.
fn made_up_id(number: u32) -> ServerId {
    /// Version and variant of a random UUID.
    const RANDOM: u128 = 0x4000_8000_0000_0000_0000;
    ServerId(Uuid::from_u128(u128::from(number + 1) << 96 | RANDOM))
}

impl World {
    /// The cluster of a scenario, at its beginning.
    #[must_use]
    pub fn new(scenario: &Scenario, seed: u64) -> Self {
        let (cluster, data) = (&scenario.cluster, &scenario.data);
        let disks = vec![Disk::new(cluster.disk.0); cluster.disks as usize];
        let one = |number: u32| {
            let rack = u16::try_from(number % cluster.racks.max(1)).unwrap_or(u16::MAX);
            server(made_up_id(number), rack, number.to_string(), disks.clone(), seed, number.into())
        };
        let mut servers: Vec<Server> = (0..cluster.servers).map(one).collect();
        let mut rng = stream(seed, Stream::Layout, 0);
        let mut chunks = layout::fill(data, &mut servers, cluster.racks as usize, &mut rng);
        for together in &scenario.together {
            layout::share(together, &mut chunks, &mut servers, &mut rng);
        }
        World::from_parts(Parts {
            chunks,
            servers,
            racks: (0..cluster.racks).map(|rack| format!("r{rack}")).collect(),
            settings: scenario.settings().clone(),
            model: scenario.model.clone(),
            workload: scenario.workload.clone(),
            faults: scenario.faults.clone(),
            events: scenario.events().cloned().collect(),
            until: scenario.lasts(),
            seed,
            chunk_bytes: u32::try_from(data.chunk.0).unwrap_or(u32::MAX),
            replicas: u8::try_from(data.replicas).unwrap_or(u8::MAX),
        })
    }

    pub(crate) fn from_parts(parts: Parts) -> Self {
        let seed = parts.seed;
        let leader = Leader::new(&parts.servers, &parts.racks, parts.settings);
        let count = |len: usize| u32::try_from(len).unwrap_or(u32::MAX);
        let mut world = World {
            now: 0,
            until: parts.until,
            agenda: Agenda::default(),
            network: Network::new(count(parts.servers.len()), count(parts.racks.len())),
            chunks: parts.chunks,
            servers: parts.servers,
            racks: parts.racks,
            leader,
            copies: std::collections::BTreeMap::new(),
            measures: Measures::new(parts.until),
            scrub: Pace { period: Duration::from_micros(parts.model.scrub_period.0), rate: parts.model.scrub_rate.0 },
            model: parts.model,
            workload: parts.workload,
            faults: parts.faults,
            events: parts.events,
            troubles: Vec::new(),
            unnoticed: std::collections::BTreeMap::new(),
            decisions: stream(seed, Stream::Decisions, 0),
            chance: KINDS.iter().map(|kind| stream(seed, Stream::Faults, *kind as u64)).collect(),
            clients: stream(seed, Stream::Clients, 0),
            slow: std::collections::BTreeSet::new(),
            measured_at: 0,
            chunk_bytes: parts.chunk_bytes,
            replicas: parts.replicas,
        };
        world.measures.slowdown.set(1.0, 0);
        for kind in KINDS {
            world.plan_chance(kind);
        }
        let planned: Vec<Micros> = world.events.iter().map(|event| event.at.0).collect();
        for (number, when) in (0u32..).zip(planned) {
            world.plan(when, Event::Planned(number));
        }
        world.plan_write();
        world.plan_balance();
        world
    }
}

impl World {
    /// What happens, in a world that was made without events.
    pub(crate) fn set_events(&mut self, events: Vec<EventSpec>) {
        self.events = events;
        let planned: Vec<Micros> = self.events.iter().map(|event| event.at.0).collect();
        for (number, when) in (0u32..).zip(planned) {
            self.plan(when, Event::Planned(number));
        }
    }

    /// Something in this world is called that.
    pub(crate) fn has(&self, target: &Target) -> bool {
        match target {
            Target::Server(name) => self.find_server(name).is_some(),
            Target::Rack(name) => self.racks.iter().any(|rack| rack == name),
            Target::Disk(name, disk) => {
                let disks = self.find_server(name).and_then(|number| self.servers.get(number as usize));
                disks.is_some_and(|server| disk.parse::<usize>().is_ok_and(|disk| disk < server.disks.len()))
            }
            Target::Cluster => true,
        }
    }

    /// A server is in the state in which a real one was.
    pub(crate) fn begin_as_it_was(&mut self, number: u16, wish: ServerWish, dead: bool, slow: bool) {
        /// How slow a disk is that is called slow, at least: see `chunkserver/core::disk_health`.
        const SLOW_FACTOR: u32 = 3;
        self.leader.set_wish(number, wish);
        if wish == ServerWish::Maintenance {
            let until = self.leader.maintenance_time();
            self.leader.maintenance.insert(number, until);
            self.plan(until, Event::MaintenanceEnds { server: number });
        }
        if dead {
            self.begin_as(Fate::Quiet, Trouble::Down { servers: vec![number] }, None);
        }
        if slow {
            self.begin_as(Fate::Quiet, Trouble::Slow { servers: vec![number], factor: SLOW_FACTOR }, None);
        }
    }

    /// All chunks are to be looked at once, as a new leader does: some may have too few replicas, or bad ones. Comes before any
    /// server goes.
    pub(crate) fn survey(&mut self) {
        for chunk in 0..self.chunks.rows() {
            let (wanted, readable) = (self.chunks.wanted(chunk), self.readable(chunk));
            if !self.exists(chunk) {
                // Lost before: it is not there to be looked at.
                self.measures.truth.lose(self.chunks.length(chunk), self.now);
            } else if readable != wanted {
                self.measures.truth.change(wanted, wanted, readable);
            }
        }
        self.measures.truth.settle(self.now);
        self.leader.survey = Some(0).filter(|_| self.chunks.rows() > 0);
        self.wake();
    }
}
