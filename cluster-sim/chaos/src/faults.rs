//! The faults. What they may do together is the budget in `shape.rs`.
//!
//! A process cannot be stopped and continued here: its timers go on. What comes closest is a machine whose links all fall silent
//! for a while. Within a connection nothing is duplicated or reordered, since that is TCP; across connections it is, by links
//! that are slow or held, and by answers that are lost so that requests come twice.

use std::time::Duration;

use quarry_chunkserver_core::layout::DATA_OFFSET;
use quarry_env_sim::{DiskOp, Injected};
use rand::Rng;

use crate::{
    books::Life,
    chaos::{Chaos, Cure},
    cluster::DATA,
    moments::Moment,
    truth,
};

/// Between two kills of chunkservers that keep only what was written: what was open then is sealed by now.
const GENTLE: Duration = Duration::from_secs(30);

impl Chaos<'_> {
    pub fn fault(&mut self) {
        let server = self.rng.random_range(self.places());
        let master = if self.masters > 1 { self.rng.random_range(0..self.masters) } else { 0 };
        let all = match (self.trouble.named, self.trouble.repair) {
            (true, _) => 40,
            (false, true) => 25,
            (false, false) => 16,
        };
        match self.rng.random_range(0..all) {
            0..=2 => self.cut_power(server),
            3 => self.kill(server),
            4..=5 => self.fail_disk(server, 300),
            6 => self.cut_power(master),
            7 => self.kill(master),
            8 => self.fail_disk(master, 60),
            9..=12 => self.cut_link(),
            13 => self.kill(self.mortal()),
            14 => self.skew(),
            16..=18 if self.trouble.repair => (0..4).for_each(|_| self.rot()),
            19..=20 if self.trouble.repair => self.change_leaders(),
            21..=24 if self.trouble.repair => self.slow_down(server),
            16..=24 => {}
            25..=29 => self.lose_leader(),
            30 => self.slow_link(),
            31 => self.cut_leader_off(),
            32..=33 => self.silence_all(server, master),
            34..=35 => self.fail_at_point(server, master),
            36..=39 => self.frail(),
            // Rarely everything at once.
            _ if self.rng.random_bool(0.3) => (0..self.mortal()).for_each(|machine| self.cut_power(machine)),
            _ => {}
        }
    }

    fn skew(&mut self) {
        let machine = self.rng.random_range(0..self.machines.len());
        let skew_ms = self.rng.random_range(-100_000_000..100_000_000);
        tracing::info!(machine = self.names[machine], skew_ms, "skewed");
        self.machines[machine].set_skew_ms(skew_ms);
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
        let records = self.books.records();
        let good = self.books.good(&records, chunk, seal);
        if good.len() < 3 {
            return;
        }
        let server = good[self.rng.random_range(0..good.len())];
        // A simulated index has one checksum for all that a batch wrote: no single row of it rots.
        let has_file = records[server].get(&chunk).is_some_and(|record| !record.in_index);
        if self.trouble.frail == Some(server) || !has_file {
            return;
        }
        let at = DATA_OFFSET + self.rng.random_range(0..seal.length);
        tracing::info!(machine = self.books.servers[server].name, %chunk, at, "rots");
        self.books.servers[server].disk.corrupt(&truth::chunk_file(chunk), at).expect("it has a file");
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
        let leader = self.books.leader().min(self.masters - 1);
        for server in self.places() {
            if self.rng.random_bool(0.5) {
                self.sim.hold(self.names[leader], self.names[server]);
                self.later(4000, Cure::Release(leader, server));
            }
        }
        tracing::info!("the leader will be killed and what it sent comes late");
        self.later(1500, Cure::KillLeader);
    }

    /// The leader is lost at a moment of the next command.
    fn lose_leader(&mut self) {
        let moment = Moment::ALL[self.rng.random_range(0..Moment::ALL.len())];
        tracing::info!(?moment, "the leader will be lost");
        self.books.moments.arm(Some(moment));
    }

    /// The leader and the other masters do not reach one another any more, or in one direction only; everybody else reaches it.
    fn cut_leader_off(&mut self) {
        let leader = self.books.leader().min(self.masters - 1);
        let how = self.rng.random_range(0..3);
        let most_ms = self.rng.random_range(500..9000);
        tracing::info!(machine = self.names[leader], how, "is cut off from the other masters");
        let at = self.sim.elapsed() + Duration::from_millis(most_ms);
        for other in (0..self.masters).filter(|other| *other != leader) {
            match how {
                0 => self.sim.partition(self.names[leader], self.names[other]),
                1 => self.sim.partition_oneway(self.names[leader], self.names[other]),
                _ => self.sim.partition_oneway(self.names[other], self.names[leader]),
            }
            self.cure_at(at, Cure::Repair(leader, other));
        }
    }

    /// Messages between two machines take their time, each its own.
    fn slow_link(&mut self) {
        let (a, b) = self.two_machines();
        let most = Duration::from_millis(self.rng.random_range(20..1500));
        tracing::info!(one = self.names[a], other = self.names[b], ?most, "their link is slow");
        self.set_latency(a, b, most);
        self.later(9000, Cure::Quicken(a, b));
    }

    /// A machine hears nobody for a while and is not heard, and then everything comes at once.
    fn silence_all(&mut self, server: usize, master: usize) {
        let machine = if self.rng.random_bool(0.5) { server } else { master };
        tracing::info!(machine = self.names[machine], "hears nobody for a while");
        let at = self.sim.elapsed() + Duration::from_millis(self.rng.random_range(200..8000));
        for other in (0..self.names.len()).filter(|other| *other != machine) {
            self.sim.hold(self.names[machine], self.names[other]);
            self.cure_at(at, Cure::Release(machine, other));
        }
    }

    /// The power goes at a sync that has a name.
    fn fail_at_point(&mut self, server: usize, master: usize) {
        let machine = if self.rng.random_bool(0.7) { server } else { master };
        if self.trouble.gentle && machine == server {
            return;
        }
        let points = self.machines[machine].disk().sync_points();
        if points.is_empty() {
            return;
        }
        let (point, _) = points[self.rng.random_range(0..points.len())];
        tracing::info!(machine = self.names[machine], point = point.0, "will lose power there");
        self.machines[machine].disk().power_off_at(point);
    }

    /// What only the frail server suffers.
    fn frail(&mut self) {
        let Some(frail) = self.trouble.frail.filter(|_| !self.spent) else { return };
        let place = self.masters + frail;
        let disk = self.machines[place].disk().clone();
        if self.image.is_none() && self.rng.random_bool(0.5) {
            tracing::info!(machine = self.names[place], "an image of its disk is taken");
            self.image = Some(disk.image());
            return;
        }
        if !self.others_have_all(frail) {
            return;
        }
        self.spent = true;
        if let Some(image) = self.image.take() {
            self.kill(place);
            tracing::info!(machine = self.names[place], "its disk is an old image of itself");
            self.books.image_comes(frail, self.sim.elapsed());
            disk.put_image(&image);
            return;
        }
        let op = [DiskOp::Sync, DiskOp::SyncDir, DiskOp::Write, DiskOp::Read][self.rng.random_range(0..4)];
        let lasting = self.rng.random_bool(0.3);
        tracing::info!(machine = self.names[place], ?op, lasting, "its disk fails");
        let error = Injected::Os(EIO);
        match lasting {
            true => disk.break_under(DATA.as_ref(), error),
            false => disk.fail_next_under(DATA.as_ref(), op, error),
        }
    }

    /// Whether every sealed chunk has a good replica on another server than this, and none is being written.
    fn others_have_all(&self, server: usize) -> bool {
        let records = self.books.records();
        self.books.chunks().into_iter().all(|(chunk, known)| match known.life {
            Life::Sealed(seal) if seal.length > 0 => {
                self.books.good(&records, chunk, seal).iter().any(|holder| *holder != server)
            }
            _ => true,
        })
    }

    fn fail_disk(&mut self, machine: usize, most: u64) {
        if self.trouble.gentle && self.places().contains(&machine) {
            return;
        }
        let changes = self.rng.random_range(0..most);
        tracing::info!(machine = self.names[machine], changes, "will lose power");
        self.machines[machine].disk().power_off_after(changes);
    }

    pub fn cut_power(&mut self, machine: usize) {
        if self.trouble.gentle && self.places().contains(&machine) {
            return self.kill(machine);
        }
        if self.up[machine] {
            self.silence(machine);
            tracing::info!(machine = self.names[machine], "loses power");
            self.machines[machine].power_loss();
            self.stop(machine);
        }
    }

    pub fn kill(&mut self, machine: usize) {
        let now = self.sim.elapsed();
        if self.trouble.gentle && self.places().contains(&machine) {
            let others_up = self.places().all(|place| self.up[place]);
            if !others_up || self.last_kill.is_some_and(|last| now.saturating_sub(last) < GENTLE) {
                return;
            }
            self.last_kill = Some(now);
        }
        if self.up[machine] {
            tracing::info!(machine = self.names[machine], "is killed");
            self.machines[machine].kill();
            self.stop(machine);
        }
    }

    fn stop(&mut self, machine: usize) {
        self.up[machine] = false;
        self.sim.crash(self.names[machine]);
        let is_server = self.places().contains(&machine);
        if is_server {
            self.books.power(machine - self.masters, false, self.sim.elapsed());
        }
        let most = match machine {
            _ if machine < self.masters => 4000,
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

    fn two_machines(&mut self) -> (usize, usize) {
        let a = self.rng.random_range(0..self.names.len());
        (a, (a + self.rng.random_range(1..self.names.len())) % self.names.len())
    }

    fn cut_link(&mut self) {
        let (a, b) = self.two_machines();
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
}

/// The operating system's number of an input or output error.
const EIO: i32 = 5;
