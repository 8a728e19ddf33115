//! Clients at work while machines lose power, processes are killed, disks fail and links break, as a seed decides; and then
//! everything heals.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use quarry_env_sim::{SimDisk, SimMachine};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use turmoil::Sim;

use crate::{
    books::Books,
    checkers::s11,
    cluster::{MASTER_DATA, Machines, Outcome, builder},
    linear::load::play,
    mortal::write_until_killed,
    operator::operate,
    shape::{Shape, Trouble},
    together::append,
    truth::{self, Kept},
    worker::{Shared, connect, work},
};

const WORKERS: [&str; 2] = ["alice", "bob"];
/// Who plays with names, and who appends together.
const PLAYERS: [&str; 4] = ["paula", "peter", "petra", "piotr"];
const TOGETHER: [&str; 3] = ["tom", "tina", "tara"];
/// A writer that is killed again and again.
const MORTAL: &str = "mallory";
const OPERATOR: &str = "olivia";
/// How long a run may take, in simulated time.
const RUN: Duration = Duration::from_secs(3600);

/// What ends a fault.
pub enum Cure {
    /// The machine starts again, its link with others works again.
    Start(usize),
    /// Its disks are fast again.
    Hasten(usize),
    /// Not quite a cure: the leader is killed while others cannot know.
    KillLeader,
    Repair(usize, usize),
    Release(usize, usize),
    /// The link is fast again.
    Quicken(usize, usize),
}

pub struct Chaos<'a> {
    pub sim: Sim<'a>,
    pub rng: ChaCha8Rng,
    /// The masters first, then the chunkservers, the mortal writer, the workers.
    pub names: Vec<&'static str>,
    pub machines: Vec<SimMachine>,
    pub masters: usize,
    pub up: Vec<bool>,
    pub books: Arc<Books>,
    pub trouble: Trouble,
    pub cures: Vec<(Duration, Cure)>,
    /// When the next fault comes.
    pub next: Duration,
    /// When a chunkserver was killed last.
    pub last_kill: Option<Duration>,
    /// An image of the frail server's disk, for later.
    pub image: Option<SimDisk>,
    /// The frail server's disk has failed, or an image was put on it, once.
    pub spent: bool,
}

/// Runs a seed.
pub fn run(seed: u64, shape: Shape) {
    let Shape { plan, habits, trouble, operator } = shape.clone();
    tracing::info!(seed, masters = plan.masters, servers = ?plan.servers, durability = ?plan.durability, "a run begins");
    tracing::info!(settings = ?plan.settings, lease = ?plan.lease, session = ?plan.session, ?habits, ?trouble, "its shape");
    let clients: Vec<&'static str> = WORKERS
        .into_iter()
        .chain(PLAYERS.into_iter().take(habits.players))
        .chain(TOGETHER.into_iter().take(habits.together))
        .chain(operator.map(|_| OPERATOR))
        .collect();
    let others = [MORTAL].into_iter().chain(clients.iter().copied()).collect();
    let machines = Machines::create(seed, plan, others);
    let books = Arc::clone(&machines.books);
    let mut sim = builder(seed).simulation_duration(RUN).build();
    machines.start(&mut sim);
    let shared = Arc::new(Shared::new(Arc::clone(&books), machines.addresses()));
    let mortal = SimMachine::new(MORTAL, seed);
    {
        let (mortal, shared) = (mortal.clone(), Arc::clone(&shared));
        sim.host(MORTAL, move || write_until_killed(mortal.clone(), seed, habits, Arc::clone(&shared)));
    }
    for name in WORKERS {
        sim.client(name, work(name, seed, habits, Arc::clone(&shared)));
    }
    for (id, name) in PLAYERS.into_iter().take(habits.players).enumerate() {
        sim.client(name, player(name, id, seed, shape.clone(), Arc::clone(&shared)));
    }
    for name in TOGETHER.into_iter().take(habits.together) {
        sim.client(name, appender(name, seed, shape.clone(), Arc::clone(&shared)));
    }
    if let Some(may_empty) = operator {
        sim.client(OPERATOR, operate(OPERATOR, seed, may_empty, Arc::clone(&shared)));
    }
    let mut all: Vec<SimMachine> = machines.masters.iter().chain(&machines.servers).map(|one| one.1.clone()).collect();
    let mut names: Vec<_> = machines.masters.iter().chain(&machines.servers).map(|one| one.0).collect();
    names.push(MORTAL);
    all.push(mortal);
    let up = vec![true; names.len()];
    names.extend(clients);
    let rng = ChaCha8Rng::seed_from_u64(seed);
    let (cures, next, masters) = (Vec::new(), Duration::from_secs(1), machines.masters.len());
    let machines = all;
    let (last_kill, image, spent) = (None, None, false);
    let chaos = Chaos { sim, rng, names, machines, masters, up, books, trouble, cures, next, last_kill, image, spent };
    let idle = WORKERS.len() + habits.players + habits.together;
    chaos.through(seed, &shared, idle, habits.players > 0);
}

async fn player(name: &'static str, id: usize, seed: u64, shape: Shape, shared: Arc<Shared>) -> Outcome {
    let (client, world) = connect(&SimMachine::new(name, seed), &shared.masters).await?;
    play(client, world, id, seed, shape.habits, &shared).await
}

async fn appender(name: &'static str, seed: u64, shape: Shape, shared: Arc<Shared>) -> Outcome {
    let (client, world) = connect(&SimMachine::new(name, seed), &shared.masters).await?;
    let own = seed ^ u64::from(crc32fast::hash(name.as_bytes()));
    append(client, world, own, shape.habits, &shared).await
}

impl Chaos<'_> {
    /// Lets it run to its end; panics when something is wrong.
    fn through(mut self, seed: u64, shared: &Shared, idle: usize, names_played: bool) {
        let mut healed = false;
        loop {
            let ended = self.sim.step();
            // First what caused it.
            if let Some(broken) = self.books.broken() {
                panic!("seed {seed}: {broken}");
            }
            if ended.unwrap_or_else(|e| panic!("seed {seed}: {e}")) {
                break;
            }
            if !healed && shared.idle.load(Ordering::Relaxed) == idle {
                healed = true;
                self.heal();
                shared.healed.store(true, Ordering::Relaxed);
            }
            if !healed {
                self.step();
            }
        }
        assert!(healed, "seed {seed}: the run ended before it was healed");
        assert!(!names_played || shared.names_checked.load(Ordering::Relaxed), "seed {seed}: nobody judged the names");
        if let Some(wrong) = self.books.at_rest().or_else(|| self.masters_differ()) {
            panic!("seed {seed}: {wrong}");
        }
        tracing::info!(counts = ?self.books.counts(), run = ?self.sim.elapsed(), "every rule held");
    }

    fn step(&mut self) {
        let now = self.sim.elapsed();
        for machine in 0..self.machines.len() {
            if self.up[machine] && self.machines[machine].disk().is_off() {
                self.cut_power(machine);
            }
        }
        let due = |cure: &(Duration, Cure)| cure.0 <= now;
        while let Some(at) = self.cures.iter().position(due) {
            let (_, cure) = self.cures.remove(at);
            self.cure(&cure);
        }
        if now >= self.next {
            self.next = now + Duration::from_millis(self.rng.random_range(50..4000));
            self.fault();
        }
    }

    pub fn later(&mut self, most_ms: u64, cure: Cure) {
        let at = self.sim.elapsed() + Duration::from_millis(self.rng.random_range(0..most_ms));
        self.cure_at(at, cure);
    }

    pub fn cure_at(&mut self, at: Duration, cure: Cure) {
        let machines = match cure {
            Cure::Start(machine) | Cure::Hasten(machine) => vec![machine],
            Cure::KillLeader => Vec::new(),
            Cure::Repair(a, b) | Cure::Release(a, b) | Cure::Quicken(a, b) => vec![a, b],
        };
        for machine in machines {
            self.books.disturb(self.names[machine], at);
        }
        self.cures.push((at, cure));
    }

    /// How many chunkservers there are. They follow the masters, and the mortal writer them.
    pub fn servers(&self) -> usize {
        self.books.servers.len()
    }

    /// The chunkservers' places among the machines.
    pub fn places(&self) -> std::ops::Range<usize> {
        self.masters..self.masters + self.servers()
    }

    pub fn mortal(&self) -> usize {
        self.masters + self.servers()
    }

    fn cure(&mut self, cure: &Cure) {
        match *cure {
            Cure::Start(machine) if !self.up[machine] => self.start(machine),
            Cure::Start(_) => {}
            Cure::Hasten(machine) => self.machines[machine].set_late_ms(0),
            Cure::KillLeader => {
                let leader = self.books.leader().min(self.masters - 1);
                self.kill(leader);
            }
            Cure::Repair(a, b) => self.sim.repair(self.names[a], self.names[b]),
            Cure::Release(a, b) => self.sim.release(self.names[a], self.names[b]),
            Cure::Quicken(a, b) => self.set_latency(a, b, QUICK),
        }
    }

    fn start(&mut self, machine: usize) {
        tracing::info!(machine = self.names[machine], "starts again");
        // Who starts it has put its disk in order.
        self.machines[machine].disk().mend();
        for other in (0..self.names.len()).filter(|other| *other != machine) {
            self.sim.repair(self.names[machine], self.names[other]);
        }
        self.up[machine] = true;
        if self.places().contains(&machine) {
            self.books.power(machine - self.masters, true, self.sim.elapsed());
        }
        self.sim.bounce(self.names[machine]);
    }

    pub fn set_latency(&self, a: usize, b: usize, most: Duration) {
        self.sim.set_link_max_message_latency(self.names[a], self.names[b], most);
    }

    /// Ends all faults, and the mortal writer.
    fn heal(&mut self) {
        tracing::info!("all is well again");
        self.books.moments.arm(None);
        for machine in 0..self.machines.len() {
            if self.up[machine] && self.machines[machine].disk().is_off() {
                self.cut_power(machine);
            }
            self.machines[machine].disk().power_stays_on();
            self.machines[machine].set_late_ms(0);
        }
        // A directory that failed comes back with a start.
        if let Some(frail) = self.trouble.frail.filter(|_| self.spent) {
            self.kill(self.masters + frail);
        }
        self.kill(self.mortal());
        self.cures.clear();
        for name in &self.names {
            self.books.disturb(name, self.sim.elapsed());
        }
        for a in 0..self.names.len() {
            for b in a + 1..self.names.len() {
                self.sim.release(self.names[a], self.names[b]);
                self.sim.repair(self.names[a], self.names[b]);
                if self.trouble.named {
                    self.set_latency(a, b, QUICK);
                }
            }
        }
        for machine in 0..self.mortal() {
            self.cure(&Cure::Start(machine));
        }
    }

    /// What masters at the same entry hold differently (S11).
    fn masters_differ(&self) -> Option<String> {
        let states: Vec<_> = self.machines[..self.masters].iter().map(|machine| State::of(machine.disk())).collect();
        let (first, rest) = states.split_first()?;
        let first = first.as_ref()?;
        rest.iter().flatten().filter(|other| other.mark == first.mark).find_map(|other| {
            let mut pairs = first.tables.iter().zip(&other.tables);
            pairs.find_map(|((name, one), (_, other))| s11::same(name, one, other))
        })
    }
}

/// The slowest message of a link in order.
const QUICK: Duration = Duration::from_millis(5);

/// The state of a master, as it stands in its store.
struct State {
    mark: quarry_env_sim::kv::Rows,
    tables: Vec<(&'static str, quarry_env_sim::kv::Rows)>,
}

impl State {
    fn of(disk: &SimDisk) -> Option<State> {
        let group = std::path::Path::new(MASTER_DATA).join("group");
        let current = disk.contents(&group.join("CURRENT")).ok()?;
        let store = group.join(format!("state-{}", String::from_utf8_lossy(&current).trim()));
        let rows = |space| truth::rows(disk, &store, space, Kept::Written);
        let tables = quarry_master_core::tables::Table::ALL.iter().map(|table| (table.name(), rows(table.name())));
        Some(State { mark: rows("applied"), tables: tables.collect() })
    }
}
