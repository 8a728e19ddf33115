//! What goes wrong by chance: for each kind one process over all its units, with exponentially distributed intervals.

use rand::Rng as _;

use super::{
    World,
    trouble::{Fate, Trouble},
};
use crate::{agenda::Event, chance::exponential, units::Micros};

/// A kind of fault; its number is that of its stream of chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A server goes and comes back.
    Crash = 0,
    /// A server is lost.
    ServerLoss,
    /// A disk is lost.
    DiskLoss,
    /// A replica rots.
    Corruption,
    /// A rack goes and comes back.
    RackOutage,
    /// Everything does.
    PowerOutage,
    /// A server is cut off.
    Partition,
    /// A server is slow.
    Slow,
    /// A server comes and goes.
    Flapping,
}

/// All kinds.
pub const KINDS: [Kind; 9] = [
    Kind::Crash,
    Kind::ServerLoss,
    Kind::DiskLoss,
    Kind::Corruption,
    Kind::RackOutage,
    Kind::PowerOutage,
    Kind::Partition,
    Kind::Slow,
    Kind::Flapping,
];

impl World {
    /// Mean time between two faults of a kind for one unit, and how many units there are.
    fn rate(&self, kind: Kind) -> Option<(Micros, u64)> {
        let faults = &self.faults;
        let servers = self.servers.len() as u64;
        let disks = self.servers.iter().map(|server| server.disks.len() as u64).sum();
        let (every, units) = match kind {
            Kind::Crash => (faults.crash?.every, servers),
            Kind::ServerLoss => (faults.server_loss?.every, servers),
            Kind::DiskLoss => (faults.disk_loss?.every, disks),
            Kind::Corruption => (faults.corruption?.every, disks),
            Kind::RackOutage => (faults.rack_outage?.every, self.racks.len() as u64),
            Kind::PowerOutage => (faults.power_outage?.every, 1),
            Kind::Partition => (faults.partition?.every, servers),
            Kind::Slow => (faults.slow?.every, servers),
            Kind::Flapping => (faults.flapping?.every, servers),
        };
        Some((every.0, units))
    }

    /// The next fault of a kind comes after a while.
    pub(super) fn plan_chance(&mut self, kind: Kind) {
        let Some((every, units)) = self.rate(kind) else { return };
        let Some(rng) = self.chance.get_mut(kind as usize) else { return };
        let after = exponential(rng, (every / units.max(1)).max(1));
        self.plan(after, Event::Chance(kind as u8));
    }

    fn draw(&mut self, kind: Kind, below: usize) -> usize {
        self.chance.get_mut(kind as usize).map_or(0, |rng| rng.random_range(0..below.max(1)))
    }

    fn draw_time(&mut self, kind: Kind, mean: Micros) -> Micros {
        self.chance.get_mut(kind as usize).map_or(mean, |rng| exponential(rng, mean))
    }

    /// A fault of a kind.
    pub(super) fn chance(&mut self, number: u8) {
        let Some(kind) = KINDS.get(number as usize).copied() else { return };
        self.plan_chance(kind);
        // Everything is drawn whether or not it can be used, so that what else happens does not move the draws.
        let count = if kind == Kind::RackOutage { self.racks.len() } else { self.servers.len() };
        let drawn = self.draw(kind, count);
        let unit = u16::try_from(drawn).unwrap_or(u16::MAX);
        let faults = self.faults.clone();
        match kind {
            Kind::Crash => {
                let lasts = self.draw_time(kind, faults.crash.map_or(0, |fault| fault.lasts.0));
                if self.server(unit).is_some_and(|server| server.is_up()) {
                    self.begin(Trouble::Down { servers: vec![unit] }, Some(lasts));
                }
            }
            Kind::ServerLoss => {
                let replaced = faults.server_loss.and_then(|fault| fault.replaced_after);
                self.begin(Trouble::Lost { server: unit }, replaced.map(|time| time.0));
            }
            Kind::DiskLoss => {
                let disks = self.server(unit).map_or(0, |server| server.disks.len());
                let disk = u8::try_from(self.draw(kind, disks)).unwrap_or(0);
                let replaced = faults.disk_loss.and_then(|fault| fault.replaced_after);
                self.begin(Trouble::DiskLost { server: unit, disk }, replaced.map(|time| time.0));
            }
            Kind::Corruption => self.rot_one(unit),
            Kind::RackOutage => {
                let lasts = self.draw_time(kind, faults.rack_outage.map_or(0, |fault| fault.lasts.0));
                let servers = self.of_rack(unit);
                self.begin(Trouble::Down { servers }, Some(lasts));
            }
            Kind::PowerOutage => self.power(faults.power_outage.map_or((0, 0.0), |fault| (fault.lasts.0, fault.lost))),
            Kind::Partition => {
                let lasts = self.draw_time(kind, faults.partition.map_or(0, |fault| fault.lasts.0));
                let from_all = faults.partition.is_some_and(|fault| fault.from_all);
                self.begin(Trouble::Cut { servers: vec![unit], from_all }, Some(lasts));
            }
            Kind::Slow => {
                let lasts = self.draw_time(kind, faults.slow.map_or(0, |fault| fault.lasts.0));
                let factor = faults.slow.map_or(1, |fault| fault.factor);
                self.begin(Trouble::Slow { servers: vec![unit], factor }, Some(lasts));
            }
            Kind::Flapping => {
                let Some(fault) = faults.flapping else { return };
                let until = self.now + self.draw_time(kind, fault.lasts.0);
                self.flap(unit, fault.up.0, fault.down.0, until);
            }
        }
    }

    /// One replica on a server rots.
    pub(super) fn rot_one(&mut self, number: u16) {
        let held = self.server(number).map_or(0, |server| server.held.len());
        let at = self.draw(Kind::Corruption, held);
        if let Some(chunk) = self.server(number).and_then(|server| server.held.get(at).copied()) {
            self.measures.faults += 1;
            self.rot(chunk, number);
        }
    }

    /// Everything goes; some servers lose what they held.
    fn power(&mut self, (mean, lost): (Micros, f64)) {
        let lasts = self.draw_time(Kind::PowerOutage, mean);
        let servers: Vec<u16> = (0..self.servers.len()).filter_map(|n| u16::try_from(n).ok()).collect();
        self.begin(Trouble::Down { servers: servers.clone() }, Some(lasts));
        for server in servers {
            let share: f64 = self.chance.get_mut(Kind::PowerOutage as usize).map_or(1.0, |rng| rng.random());
            if share < lost {
                self.begin_as(Fate::Quiet, Trouble::Lost { server }, None);
            }
        }
    }

    /// The servers of a rack.
    pub(super) fn of_rack(&self, rack: u16) -> Vec<u16> {
        let of = |(number, server): (usize, &crate::model::server::Server)| {
            (server.rack == rack).then(|| u16::try_from(number).ok()).flatten()
        };
        self.servers.iter().enumerate().filter_map(of).collect()
    }
}
