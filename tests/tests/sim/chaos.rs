//! Workers at work while machines lose power, processes are killed and links break, as a seed decides.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use quarry_env_sim::SimMachine;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use turmoil::Sim;

use super::{
    cluster::{Machines, builder, master_config},
    worker::{Shared, work, write_until_killed},
};

const SERVERS: [&str; 4] = ["chunk1", "chunk2", "chunk3", "chunk4"];
const WORKERS: [&str; 2] = ["alice", "bob"];
/// A writer that is killed again and again.
const MORTAL: &str = "mallory";
/// Short, so that what dead writers leave is collected within the run.
const LEASE: Duration = Duration::from_secs(10);
const SESSION: Duration = Duration::from_secs(60);
const READER_GRACE: Duration = Duration::from_secs(5);

/// What ends a fault.
enum Cure {
    /// The machine starts again, its link with others works again.
    Start(usize),
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
    cures: Vec<(Duration, Cure)>,
    next: Duration,
}

/// Runs a seed.
pub fn work_through_chaos(seed: u64) {
    let config = quarry_master::MasterConfig { lease: LEASE, session: SESSION, ..master_config() };
    let machines = Machines::create(seed, &SERVERS, config, READER_GRACE);
    let mut sim = builder(seed).simulation_duration(Duration::from_secs(3600)).build();
    machines.start(&mut sim);
    let shared = Arc::new(Shared::default());
    let mortal = SimMachine::new(MORTAL, seed);
    {
        let (mortal, shared) = (mortal.clone(), Arc::clone(&shared));
        sim.host(MORTAL, move || write_until_killed(mortal.clone(), seed, Arc::clone(&shared)));
    }
    for name in WORKERS {
        sim.client(name, work(name, seed, Arc::clone(&shared)));
    }
    let mut names = vec!["master"];
    names.extend(SERVERS);
    names.push(MORTAL);
    let mut all = vec![machines.master.clone()];
    all.extend(machines.servers.iter().map(|s| s.1.clone()));
    all.push(mortal);
    let up = vec![true; names.len()];
    names.extend(WORKERS);
    let rng = ChaCha8Rng::seed_from_u64(seed);
    let mut chaos = Chaos { sim, rng, names, machines: all, up, cures: Vec::new(), next: Duration::from_secs(1) };
    let mut healed = false;
    while !chaos.sim.step().unwrap_or_else(|e| panic!("seed {seed}: {e}")) {
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

    fn fault(&mut self) {
        let server = self.rng.random_range(1..=SERVERS.len());
        match self.rng.random_range(0..16) {
            0..=2 => self.cut_power(server),
            3 => self.kill(server),
            4..=5 => self.fail_disk(server, 300),
            6 => self.cut_power(0),
            7 => self.kill(0),
            8 => self.fail_disk(0, 60),
            9..=12 => self.cut_link(),
            13 => self.kill(SERVERS.len() + 1),
            14 => {
                let machine = self.rng.random_range(0..self.machines.len());
                let skew_ms = self.rng.random_range(-100_000_000..100_000_000);
                tracing::info!(machine = self.names[machine], skew_ms, "skewed");
                self.machines[machine].set_skew_ms(skew_ms);
            }
            // Rarely everything at once.
            _ if self.rng.random_bool(0.3) => (0..=SERVERS.len()).for_each(|machine| self.cut_power(machine)),
            _ => {}
        }
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
        let most = if machine == 0 { 4000 } else { 9000 };
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
                self.sim.bounce(self.names[machine]);
            }
            Cure::Start(_) => {}
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
        }
        self.kill(SERVERS.len() + 1);
        self.cures.clear();
        for a in 0..self.names.len() {
            for b in a + 1..self.names.len() {
                self.sim.release(self.names[a], self.names[b]);
                self.sim.repair(self.names[a], self.names[b]);
            }
        }
        for machine in 0..=SERVERS.len() {
            self.cure(&Cure::Start(machine));
        }
    }
}
