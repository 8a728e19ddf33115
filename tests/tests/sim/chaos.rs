//! Workers at work while machines lose power, processes are killed and links break, as a seed decides.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use quarry_chunkserver_core::layout::DATA_OFFSET;
use quarry_client::ErrorCode;
use quarry_env_sim::SimMachine;
use quarry_master::MasterConfig;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use turmoil::Sim;

use super::{
    books::{Books, Life},
    cluster::{Machines, Plan, builder},
    operator::{SETTLE_DEADLINE, operate},
    truth,
    worker::{Habits, Shared, work, write_until_killed},
};

const SERVERS: [&str; 4] = ["chunk1", "chunk2", "chunk3", "chunk4"];
/// Two racks of two and one of one.
const ON_RACKS: [(&str, &str); 5] =
    [("chunk1", "r1"), ("chunk2", "r1"), ("chunk3", "r2"), ("chunk4", "r2"), ("chunk5", "r3")];
/// So small that the servers are not evenly full, and yet much more than is written.
const CAPACITY: u64 = 256 << 20;
const WORKERS: [&str; 2] = ["alice", "bob"];
/// A writer that is killed again and again.
const MORTAL: &str = "mallory";
const OPERATOR: &str = "olivia";
/// Short, so that what dead writers leave is collected within the run.
const LEASE: Duration = Duration::from_secs(10);
const SESSION: Duration = Duration::from_secs(60);

/// Where replicas rot the only one that can be reached may be bad and is refused; and who waits for a late disk may learn of its
/// end before the server is gone. A server that has not looked at its disks yet counts as one without room.
const ALSO_PASSING: [ErrorCode; 3] = [ErrorCode::Corrupt, ErrorCode::DiskFailed, ErrorCode::NoSpace];

/// What may happen in a run.
#[derive(Clone, Copy)]
struct Trouble {
    habits: Habits,
    /// Also what repair has to do with: long absences, replicas that rot, disks that take their time, leaders that follow one
    /// another while commands are on their way, an operator.
    repair: bool,
}

/// What ends a fault.
enum Cure {
    /// The machine starts again, its link with others works again.
    Start(usize),
    /// Its disks are fast again.
    Hasten(usize),
    /// Not quite a cure: the master is killed while others cannot know.
    KillMaster,
    Repair(usize, usize),
    Release(usize, usize),
}

struct Chaos<'a> {
    sim: Sim<'a>,
    rng: ChaCha8Rng,
    /// The master first, then the chunkservers, the mortal writer, the workers.
    names: Vec<&'static str>,
    machines: Vec<SimMachine>,
    up: Vec<bool>,
    books: Arc<Books>,
    trouble: Trouble,
    cures: Vec<(Duration, Cure)>,
    next: Duration,
}

/// Runs a seed: what was acknowledged is there in the end.
pub fn work_through_chaos(seed: u64) {
    let mut plan = Plan::new(&SERVERS);
    plan.settings.push(("reader-grace", "5s".into()));
    let habits = Habits {
        deeds: 20,
        pause_ms: 500,
        set_replicas: false,
        also_passing: &[],
        heal_deadline: Duration::from_secs(300),
    };
    run(seed, plan, Trouble { habits, repair: false });
}

/// Runs a seed with all that repair does: nothing is dropped that is needed, and in the end everything is as it should be.
pub fn repair_through_chaos(seed: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut plan = Plan { servers: ON_RACKS.into(), capacity: Some(CAPACITY), ..Plan::new(&[]) };
    let delay = ["0s", "1s", "4s"][rng.random_range(0..3)];
    // From copies that take seconds to copies that take none.
    let rate = ["100kB/s", "400kB/s", "50MB/s"][rng.random_range(0..3)];
    let keep = ["0s", "4s"][rng.random_range(0..2)];
    let more = [
        ("reader-grace", "5s"),
        ("repair-delay", delay),
        ("repair-rate", rate),
        ("quarantine-keep", keep),
        ("brake-hold", "15s"),
        ("partitioned-limit", "10s"),
        ("balance-band", "1%"),
    ];
    plan.settings.extend(more.map(|(name, value)| (name, value.to_owned())));
    let habits = Habits {
        deeds: 25,
        pause_ms: 4000,
        set_replicas: true,
        also_passing: &ALSO_PASSING,
        heal_deadline: SETTLE_DEADLINE,
    };
    run(seed, plan, Trouble { habits, repair: true });
}

fn run(seed: u64, plan: Plan, trouble: Trouble) {
    let machines =
        Machines::create(seed, Plan { master: MasterConfig { lease: LEASE, session: SESSION, ..plan.master }, ..plan });
    let books = Arc::clone(&machines.books);
    let mut sim = builder(seed).simulation_duration(Duration::from_secs(3600)).build();
    machines.start(&mut sim);
    let shared = Arc::new(Shared::default());
    let mortal = SimMachine::new(MORTAL, seed);
    {
        let (mortal, shared) = (mortal.clone(), Arc::clone(&shared));
        sim.host(MORTAL, move || write_until_killed(mortal.clone(), seed, trouble.habits, Arc::clone(&shared)));
    }
    for name in WORKERS {
        sim.client(name, work(name, seed, trouble.habits, Arc::clone(&shared)));
    }
    let mut names = vec!["master"];
    names.extend(machines.servers.iter().map(|server| server.0));
    names.push(MORTAL);
    let mut all = vec![machines.master.clone()];
    all.extend(machines.servers.iter().map(|s| s.1.clone()));
    all.push(mortal);
    let up = vec![true; names.len()];
    names.extend(WORKERS);
    if trouble.repair {
        sim.client(OPERATOR, operate(OPERATOR, seed, Arc::clone(&shared), Arc::clone(&books)));
        names.push(OPERATOR);
    }
    let rng = ChaCha8Rng::seed_from_u64(seed);
    let (cures, next) = (Vec::new(), Duration::from_secs(1));
    let mut chaos = Chaos { sim, rng, names, machines: all, up, books, trouble, cures, next };
    let mut healed = false;
    loop {
        let ended = chaos.sim.step();
        // First what caused it.
        if let Some(broken) = chaos.books.broken() {
            panic!("seed {seed}: {broken}");
        }
        if ended.unwrap_or_else(|e| panic!("seed {seed}: {e}")) {
            break;
        }
        if !healed && shared.idle.load(Ordering::Relaxed) == WORKERS.len() {
            healed = true;
            chaos.heal();
            shared.healed.store(true, Ordering::Relaxed);
        }
        if !healed {
            chaos.step();
        }
    }
}

impl Chaos<'_> {
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

    fn later(&mut self, most_ms: u64, cure: Cure) {
        let at = self.sim.elapsed() + Duration::from_millis(self.rng.random_range(0..most_ms));
        self.cures.push((at, cure));
    }

    /// How many chunkservers there are. They follow the master, and the mortal writer them.
    fn servers(&self) -> usize {
        self.books.servers.len()
    }

    fn fault(&mut self) {
        let server = self.rng.random_range(1..=self.servers());
        match self.rng.random_range(0..if self.trouble.repair { 25 } else { 16 }) {
            0..=2 => self.cut_power(server),
            3 => self.kill(server),
            4..=5 => self.fail_disk(server, 300),
            6 => self.cut_power(0),
            7 => self.kill(0),
            8 => self.fail_disk(0, 60),
            9..=12 => self.cut_link(),
            13 => self.kill(self.servers() + 1),
            14 => {
                let machine = self.rng.random_range(0..self.machines.len());
                let skew_ms = self.rng.random_range(-100_000_000..100_000_000);
                tracing::info!(machine = self.names[machine], skew_ms, "skewed");
                self.machines[machine].set_skew_ms(skew_ms);
            }
            16..=18 => (0..4).for_each(|_| self.rot()),
            19..=20 => self.change_leaders(),
            21..=24 => self.slow_down(server),
            // Rarely everything at once.
            _ if self.rng.random_bool(0.3) => (0..=self.servers()).for_each(|machine| self.cut_power(machine)),
            _ => {}
        }
    }

    /// A bit of a replica flips, unless that could be the end of its chunk: two others are good, and none of it rotted before.
    fn rot(&mut self) {
        let sealed = self.books.chunks().into_iter().filter_map(|(chunk, known)| match known.life {
            Life::Sealed(seal) if seal.length > 0 => Some((chunk, seal)),
            _ => None,
        });
        let sealed: Vec<_> = sealed.filter(|(chunk, _)| !self.books.has_rotted(*chunk)).collect();
        if sealed.is_empty() {
            return;
        }
        let (chunk, seal) = sealed[self.rng.random_range(0..sealed.len())];
        let good = self.books.good(&self.books.records(), chunk, seal);
        if good.len() < 3 {
            return;
        }
        let server = good[self.rng.random_range(0..good.len())];
        let at = DATA_OFFSET + self.rng.random_range(0..seal.length);
        tracing::info!(machine = self.books.servers[server].name, %chunk, at, "rots");
        self.books.servers[server].disk.corrupt(&truth::chunk_file(chunk), at).expect("a good replica has a file");
        self.books.rotted(server, chunk);
    }

    /// What a chunkserver's disks are to do is done late, and in another order.
    fn slow_down(&mut self, server: usize) {
        let late_ms = self.rng.random_range(20..4000);
        tracing::info!(machine = self.names[server], late_ms, "its disks take their time");
        self.machines[server].set_late_ms(late_ms);
        self.later(9000, Cure::Hasten(server));
    }

    /// Another leader begins while what the one before has sent is still on its way.
    fn change_leaders(&mut self) {
        for server in 1..=self.servers() {
            if self.rng.random_bool(0.5) {
                self.sim.hold(self.names[0], self.names[server]);
                self.later(4000, Cure::Release(0, server));
            }
        }
        tracing::info!("the master will be killed and what it sent comes late");
        self.later(1500, Cure::KillMaster);
    }

    fn fail_disk(&mut self, machine: usize, most: u64) {
        let changes = self.rng.random_range(0..most);
        tracing::info!(machine = self.names[machine], changes, "will lose power");
        self.machines[machine].disk().power_off_after(changes);
    }

    fn cut_power(&mut self, machine: usize) {
        if self.up[machine] {
            self.silence(machine);
            tracing::info!(machine = self.names[machine], "loses power");
            self.machines[machine].power_loss();
            self.stop(machine);
        }
    }

    fn kill(&mut self, machine: usize) {
        if self.up[machine] {
            tracing::info!(machine = self.names[machine], "is killed");
            self.machines[machine].kill();
            self.stop(machine);
        }
    }

    fn stop(&mut self, machine: usize) {
        self.up[machine] = false;
        self.sim.crash(self.names[machine]);
        let is_server = (1..=self.servers()).contains(&machine);
        if is_server {
            self.books.power(machine - 1, false, self.sim.elapsed());
        }
        let most = match machine {
            0 => 4000,
            // Now and then long enough for all that it had to be copied.
            _ if is_server && self.trouble.repair && self.rng.random_bool(0.4) => 45_000,
            _ => 9000,
        };
        self.later(most, Cure::Start(machine));
    }

    /// Half of the machines that lose power close no connection: their peers are left waiting.
    fn silence(&mut self, machine: usize) {
        if self.rng.random_bool(0.5) {
            for other in (0..self.names.len()).filter(|other| *other != machine) {
                self.sim.partition(self.names[machine], self.names[other]);
            }
        }
    }

    fn cut_link(&mut self) {
        let a = self.rng.random_range(0..self.names.len());
        let b = (a + self.rng.random_range(1..self.names.len())) % self.names.len();
        let (one, other) = (self.names[a], self.names[b]);
        match self.rng.random_range(0..3) {
            0 => self.sim.partition(one, other),
            1 => self.sim.partition_oneway(one, other),
            _ => {
                tracing::info!(one, other, "hear nothing of one another for a while");
                self.sim.hold(one, other);
                return self.later(9000, Cure::Release(a, b));
            }
        }
        tracing::info!(one, other, "are cut off from one another");
        self.later(9000, Cure::Repair(a, b));
    }

    fn cure(&mut self, cure: &Cure) {
        match *cure {
            Cure::Start(machine) if !self.up[machine] => {
                tracing::info!(machine = self.names[machine], "starts again");
                for other in (0..self.names.len()).filter(|other| *other != machine) {
                    self.sim.repair(self.names[machine], self.names[other]);
                }
                self.up[machine] = true;
                if (1..=self.servers()).contains(&machine) {
                    self.books.power(machine - 1, true, self.sim.elapsed());
                }
                self.sim.bounce(self.names[machine]);
            }
            Cure::Start(_) => {}
            Cure::Hasten(machine) => self.machines[machine].set_late_ms(0),
            Cure::KillMaster => self.kill(0),
            Cure::Repair(a, b) => self.sim.repair(self.names[a], self.names[b]),
            Cure::Release(a, b) => self.sim.release(self.names[a], self.names[b]),
        }
    }

    /// Ends all faults, and the mortal writer.
    fn heal(&mut self) {
        tracing::info!("all is well again");
        for machine in 0..self.machines.len() {
            if self.up[machine] && self.machines[machine].disk().is_off() {
                self.cut_power(machine);
            }
            self.machines[machine].disk().power_off_after(u64::MAX);
            self.machines[machine].set_late_ms(0);
        }
        self.kill(self.servers() + 1);
        self.cures.clear();
        for a in 0..self.names.len() {
            for b in a + 1..self.names.len() {
                self.sim.release(self.names[a], self.names[b]);
                self.sim.repair(self.names[a], self.names[b]);
            }
        }
        for machine in 0..=self.servers() {
            self.cure(&Cure::Start(machine));
        }
    }
}
