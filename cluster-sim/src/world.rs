//! The world: everything that is, and how it goes on from event to event.
//!
//! | module | holds |
//! |---|---|
//! | [`build`] | a world from a scenario, or from the state of a real cluster |
//! | [`beats`] | who is heard by the leader, and what the detector makes of it |
//! | [`looks`] | the leader's tick: chunks looked at, and decided about |
//! | [`orders`] | copies and drops, and what becomes of them |
//! | [`balance`] | evening out |
//! | [`replicas`] | replicas come and go, rot and are lost |
//! | [`faults`], [`trouble`] | what goes wrong, by chance or as planned, and how it ends |
//! | [`clients`] | what clients write and delete, and how long they wait |

pub mod balance;
pub mod beats;
pub mod build;
pub mod clients;
pub mod faults;
pub mod looks;
pub mod orders;
pub mod replicas;
pub mod trouble;

use std::collections::BTreeMap;

use quarry_chunkserver_core::scrub::Pace;
use rand_chacha::ChaCha8Rng;

use crate::{
    agenda::{Agenda, Event},
    leader::Leader,
    measure::Measures,
    model::{chunks::Chunks, network::Network, server::Server},
    scenario::{EventSpec, Faults, Model, Workload},
    units::Micros,
};

/// A simulated cluster.
pub struct World {
    /// Virtual time.
    pub now: Micros,
    /// When it ends.
    pub until: Micros,
    agenda: Agenda,
    /// The chunks.
    pub chunks: Chunks,
    /// The chunkservers.
    pub servers: Vec<Server>,
    /// Names of the racks.
    pub racks: Vec<String>,
    network: Network,
    /// The leader.
    pub leader: Leader,
    copies: BTreeMap<(u32, u16), orders::Copying>,
    /// What was measured.
    pub measures: Measures,
    model: Model,
    scrub: Pace,
    workload: Workload,
    faults: Faults,
    events: Vec<EventSpec>,
    troubles: Vec<Option<trouble::Trouble>>,
    /// Chunks on disks that are gone, and whose servers do not know it yet.
    unnoticed: BTreeMap<(u16, u8), Vec<u32>>,
    decisions: ChaCha8Rng,
    chance: Vec<ChaCha8Rng>,
    clients: ChaCha8Rng,
    /// Servers that are slower than usual.
    slow: std::collections::BTreeSet<u16>,
    /// When the rate of copies was last worked out.
    measured_at: Micros,
    chunk_bytes: u32,
    replicas: u8,
}

impl World {
    fn plan(&mut self, after: Micros, event: Event) {
        self.agenda.plan(self.now.saturating_add(after), event);
    }

    fn server(&self, number: u16) -> Option<&Server> {
        self.servers.get(number as usize)
    }

    fn server_mut(&mut self, number: u16) -> Option<&mut Server> {
        self.servers.get_mut(number as usize)
    }

    /// What people call a server.
    fn called(&self, number: u16) -> &str {
        self.server(number).map_or("?", |server| server.name.as_str())
    }

    /// Lets time go on until the end.
    pub fn run(&mut self) {
        while self.step() {}
        self.now = self.until;
        self.measures.finish(self.until);
    }

    /// The next event; whether there was one.
    pub fn step(&mut self) -> bool {
        let Some((at, event)) = self.agenda.next(self.until) else { return false };
        self.now = at;
        self.measures.events += 1;
        match event {
            Event::Tick => self.tick(),
            Event::Consult => self.consult(),
            Event::Balance => self.balance(),
            Event::Copied { flow, turn } => self.copied(flow, turn),
            Event::Abandoned { flow, turn } => self.abandoned(flow, turn),
            Event::Dropped { chunk, server } => self.dropped(chunk, server),
            Event::Reached { server } => self.reached(server),
            Event::Reported { server, registration } => self.reported(server, registration),
            Event::DiskNoticed { server, disk } => self.disk_noticed(server, disk),
            Event::Scrubbed { chunk, server } => self.scrubbed(chunk, server),
            Event::Chance(kind) => self.chance(kind),
            Event::Planned(number) => self.planned(number),
            Event::Mends(number) => self.mends(number),
            Event::MaintenanceEnds { server } => self.maintenance_ends(server),
            Event::Write => self.write(),
        }
        true
    }
}
