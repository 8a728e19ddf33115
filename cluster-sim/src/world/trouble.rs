//! What is wrong, what an operator does, and how it ends.

use quarry_master_core::command::ServerWish;

use super::World;
use crate::{
    agenda::Event,
    leader::{UNBLOCK_MAX, at},
    scenario::{Act, EventSpec, Target},
    units::{Micros, show_time},
};

/// Something that is wrong, or that an operator does.
#[derive(Clone, Debug, PartialEq)]
pub enum Trouble {
    /// Servers are down.
    Down {
        /// Which.
        servers: Vec<u16>,
    },
    /// A server is lost with all it held.
    Lost {
        /// Which.
        server: u16,
    },
    /// A disk is lost with all it held.
    DiskLost {
        /// Whose.
        server: u16,
        /// Which.
        disk: u8,
    },
    /// Servers are cut off from the master.
    Cut {
        /// Which.
        servers: Vec<u16>,
        /// From everybody.
        from_all: bool,
    },
    /// Servers are slow.
    Slow {
        /// Which.
        servers: Vec<u16>,
        /// How many times slower.
        factor: u32,
    },
    /// A server comes and goes.
    Flap {
        /// Which.
        server: u16,
        /// It is there for this.
        up: Micros,
        /// It is away for this.
        down: Micros,
        /// It goes on until then.
        until: Micros,
        /// It is away.
        away: bool,
    },
    /// A server was stopped gracefully.
    Stopped {
        /// Which.
        server: u16,
    },
    /// All servers are restarted, one after the other.
    Rolling {
        /// The one whose turn it is.
        server: u16,
        /// Each is away for this.
        lasts: Micros,
        /// Between two.
        pause: Micros,
        /// It is away.
        away: bool,
    },
}

/// Whether a trouble is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It counts as a fault and stands in the timeline.
    Told,
    /// It is part of another.
    Quiet,
}

impl World {
    /// Something goes wrong, and is over after `lasts`; or never.
    pub(super) fn begin(&mut self, trouble: Trouble, lasts: Option<Micros>) {
        self.begin_as(Fate::Told, trouble, lasts);
    }

    pub(super) fn begin_as(&mut self, fate: Fate, trouble: Trouble, lasts: Option<Micros>) {
        if !self.can_begin(&trouble) {
            return;
        }
        if fate == Fate::Told {
            self.measures.faults += 1;
            let (what, when) = (self.described(&trouble), self.now);
            let for_how_long = lasts.map(|time| format!(" for {}", show_time(time))).unwrap_or_default();
            self.measures.timeline.add(when, || format!("{what}{for_how_long}"));
        }
        match &trouble {
            Trouble::Down { servers } => servers.iter().for_each(|n| self.change_server(*n, |server| server.down += 1)),
            Trouble::Lost { server } => {
                self.change_server(*server, |server| (server.down, server.lost) = (server.down + 1, true));
                self.wipe(*server);
            }
            Trouble::DiskLost { server, disk } => self.wipe_disk(*server, *disk),
            Trouble::Cut { servers, from_all } => {
                let isolated = u8::from(*from_all);
                let cut = |server: &mut crate::model::server::Server| {
                    (server.cut, server.isolated) = (server.cut + 1, server.isolated + isolated);
                };
                servers.iter().for_each(|number| self.change_server(*number, cut));
            }
            Trouble::Slow { servers, factor } => servers.iter().for_each(|number| self.slow_down(*number, *factor)),
            Trouble::Flap { server, .. } => self.change_server(*server, |server| server.down += 1),
            Trouble::Stopped { server } | Trouble::Rolling { server, .. } => self.stop(*server),
        }
        if let Some(lasts) = lasts {
            self.remember(trouble, lasts);
        }
    }

    fn can_begin(&self, trouble: &Trouble) -> bool {
        let has = |n: u16, of: fn(&crate::model::server::Server) -> bool| self.server(n).is_some_and(of);
        match trouble {
            Trouble::Down { servers } | Trouble::Cut { servers, .. } => {
                servers.iter().all(|n| has(*n, |server| server.down < 100 && server.cut < 100))
            }
            Trouble::Lost { server } => has(*server, |server| !server.lost),
            Trouble::DiskLost { server, disk } => {
                let disks = self.server(*server).map_or(&[][..], |server| server.disks.as_slice());
                disks.get(*disk as usize).is_some_and(|disk| !disk.failed) && has(*server, |server| !server.lost)
            }
            Trouble::Slow { servers, .. } => servers.iter().all(|n| has(*n, |server| server.slow <= 1)),
            Trouble::Flap { server, .. } | Trouble::Stopped { server } => has(*server, |server| server.is_up()),
            // One that is down already has its turn all the same.
            Trouble::Rolling { .. } => true,
        }
    }

    /// It changes, or is over, after a while.
    fn remember(&mut self, trouble: Trouble, after: Micros) {
        let free = self.troubles.iter().position(Option::is_none);
        let number = free.unwrap_or(self.troubles.len());
        match self.troubles.get_mut(number) {
            Some(place) => *place = Some(trouble),
            None => self.troubles.push(Some(trouble)),
        }
        self.plan(after, Event::Mends(u32::try_from(number).unwrap_or(u32::MAX)));
    }

    /// What went wrong is over, or changes.
    pub(super) fn mends(&mut self, number: u32) {
        let Some(trouble) = self.troubles.get_mut(number as usize).and_then(Option::take) else { return };
        match trouble {
            Trouble::Down { servers } => {
                servers
                    .iter()
                    .for_each(|n| self.change_server(*n, |server| server.down = server.down.saturating_sub(1)));
            }
            Trouble::Lost { server } => {
                // An empty one under the same name.
                self.change_server(server, |server| {
                    (server.down, server.lost) = (server.down.saturating_sub(1), false);
                });
                self.plan_balance();
            }
            Trouble::DiskLost { server, disk } => {
                // One that was replaced with its server holds something again.
                let gone = self.server_mut(server).and_then(|server| server.disks.get_mut(disk as usize));
                if let Some(disk) = gone.filter(|disk| disk.failed) {
                    (disk.failed, disk.used) = (false, 0);
                }
                self.leader.touched.insert(server);
                self.leader.queue.unblock(UNBLOCK_MAX);
                self.plan_balance();
                self.wake();
            }
            Trouble::Cut { servers, from_all } => {
                let isolated = u8::from(from_all);
                let heal = |server: &mut crate::model::server::Server| {
                    server.cut = server.cut.saturating_sub(1);
                    server.isolated = server.isolated.saturating_sub(isolated);
                };
                servers.iter().for_each(|number| self.change_server(*number, heal));
            }
            Trouble::Slow { servers, .. } => servers.iter().for_each(|number| self.slow_down(*number, 1)),
            Trouble::Flap { server, up, down, until, away } => self.flap_on(server, up, down, until, away),
            Trouble::Stopped { server } => {
                self.change_server(server, |server| server.down = server.down.saturating_sub(1));
            }
            Trouble::Rolling { server, lasts, pause, away } => self.roll_on(server, lasts, pause, away),
        }
    }

    /// A server comes and goes from now on.
    pub(super) fn flap(&mut self, server: u16, up: Micros, down: Micros, until: Micros) {
        self.begin(Trouble::Flap { server, up, down, until, away: true }, Some(down));
    }

    fn flap_on(&mut self, server: u16, up: Micros, down: Micros, until: Micros, away: bool) {
        let ends = !away && self.now >= until;
        if ends {
            return;
        }
        let change = |server: &mut crate::model::server::Server| {
            server.down = if away { server.down.saturating_sub(1) } else { server.down + 1 };
        };
        self.change_server(server, change);
        self.remember(Trouble::Flap { server, up, down, until, away: !away }, if away { up } else { down });
    }

    fn roll_on(&mut self, server: u16, lasts: Micros, pause: Micros, away: bool) {
        if away {
            self.change_server(server, |server| server.down = server.down.saturating_sub(1));
            let next = server.saturating_add(1);
            if (next as usize) < self.servers.len() {
                self.remember(Trouble::Rolling { server: next, lasts, pause, away: false }, pause);
            } else {
                self.measures.timeline.add(self.now, || "every server was restarted".into());
            }
        } else {
            self.begin_as(Fate::Quiet, Trouble::Rolling { server, lasts, pause, away: true }, Some(lasts));
        }
    }

    /// A server says goodbye and stops: a maintenance by itself.
    fn stop(&mut self, number: u16) {
        let (until, now) = (self.leader.maintenance_time(), self.now);
        if let Some(id) = self.server(number).map(|server| server.id) {
            self.leader.detector.goodbye(id);
        }
        if self.leader.wish(number) == ServerWish::Active && until > 0 {
            self.leader.set_wish(number, ServerWish::Maintenance);
            self.leader.maintenance.insert(number, now + until);
            self.plan(until, Event::MaintenanceEnds { server: number });
        }
        self.change_server(number, |server| server.down += 1);
        // The beat that `change_server` told of came before the goodbye.
        if let Some(id) = self.server(number).map(|server| server.id) {
            self.leader.detector.goodbye(id);
        }
        self.consult_by(now + crate::leader::CONSULT_MIN);
    }

    fn slow_down(&mut self, number: u16, factor: u32) {
        let factor = factor.max(1);
        if let Some(server) = self.server_mut(number) {
            server.slow = factor;
        }
        if factor > 1 {
            self.slow.insert(number)
        } else {
            self.slow.remove(&number)
        };
        let vitals = self.vitals(number, 0).sickness();
        if let Some(candidate) = self.leader.candidate_mut(number) {
            (candidate.sick, candidate.latency_us) = (vitals, 0);
        }
        let when = self.now;
        self.with_network(|network, speeds| ((), network.resettle(number, when, speeds)));
        self.leader.queue.unblock(UNBLOCK_MAX);
        self.wake();
    }

    fn described(&self, trouble: &Trouble) -> String {
        let named = |servers: &[u16]| match servers {
            [one] => format!("server {}", self.called(*one)),
            many => {
                let racks: std::collections::BTreeSet<u16> =
                    many.iter().filter_map(|n| self.server(*n)).map(|server| server.rack).collect();
                match racks.first().filter(|_| racks.len() == 1) {
                    Some(rack) => format!("{} servers of rack {}", many.len(), self.rack_name(*rack)),
                    None => format!("{} servers", many.len()),
                }
            }
        };
        match trouble {
            Trouble::Down { servers } => format!("{} down", named(servers)),
            Trouble::Lost { server } => format!("server {} is lost with all it held", self.called(*server)),
            Trouble::DiskLost { server, disk } => format!("disk {disk} of server {} is lost", self.called(*server)),
            Trouble::Cut { servers, from_all: false } => format!("{} cut off from the master", named(servers)),
            Trouble::Cut { servers, from_all: true } => format!("{} cut off from everybody", named(servers)),
            Trouble::Slow { servers, factor } => format!("{} {factor} times slower", named(servers)),
            Trouble::Flap { server, .. } => format!("server {} begins to flap", self.called(*server)),
            Trouble::Stopped { server } => format!("server {} is restarted", self.called(*server)),
            Trouble::Rolling { .. } => "every server is restarted, one after the other".into(),
        }
    }

    pub(super) fn rack_name(&self, rack: u16) -> &str {
        self.racks.get(rack as usize).map_or("?", String::as_str)
    }

    /// The servers that a target names.
    fn servers_of(&self, target: &Target) -> Vec<u16> {
        match target {
            Target::Server(name) | Target::Disk(name, _) => self.find_server(name).into_iter().collect(),
            Target::Rack(name) => {
                let rack = self.racks.iter().position(|rack| rack == name).and_then(|n| u16::try_from(n).ok());
                rack.map(|rack| self.of_rack(rack)).unwrap_or_default()
            }
            Target::Cluster => (0..self.servers.len()).filter_map(|n| u16::try_from(n).ok()).collect(),
        }
    }

    /// A server by what people call it.
    #[must_use]
    pub fn find_server(&self, name: &str) -> Option<u16> {
        let by = |server: &crate::model::server::Server| server.name == name || server.id.to_string() == name;
        u16::try_from(self.servers.iter().position(by)?).ok()
    }

    /// An event of the scenario.
    pub(super) fn planned(&mut self, number: u32) {
        let Some(event) = self.events.get(number as usize).cloned() else { return };
        let servers = self.servers_of(event.target());
        let lasts = event.lasts.map(|time| time.0);
        match event.act {
            Act::Crash | Act::RackOutage | Act::PowerOutage => self.begin(Trouble::Down { servers }, lasts),
            Act::Lose => servers.into_iter().for_each(|server| self.begin(Trouble::Lost { server }, lasts)),
            Act::LoseDisk => self.lose_disk(&event, lasts),
            Act::Corrupt => servers.into_iter().for_each(|server| self.rot_one(server)),
            Act::Partition => self.begin(Trouble::Cut { servers, from_all: false }, lasts),
            Act::Isolate => self.begin(Trouble::Cut { servers, from_all: true }, lasts),
            Act::Slow => self.begin(Trouble::Slow { servers, factor: event.factor.unwrap_or(1) }, lasts),
            Act::Flap => {
                let (up, down) = (event.up.map_or(1, |time| time.0), event.down.map_or(1, |time| time.0));
                let until = self.now + lasts.unwrap_or(0);
                servers.into_iter().for_each(|server| self.flap(server, up, down, until));
            }
            Act::Drain => self.wish_of(&servers, ServerWish::Draining, &event),
            Act::Undrain => self.wish_of(&servers, ServerWish::Active, &event),
            Act::Restart => servers.into_iter().for_each(|server| self.begin(Trouble::Stopped { server }, lasts)),
            Act::RollingRestart => {
                let (lasts, pause) = (lasts.unwrap_or(0), event.pause.map_or(0, |time| time.0));
                self.begin(Trouble::Rolling { server: 0, lasts, pause, away: true }, Some(lasts));
            }
            Act::ReleaseBrake => {
                self.leader.released = Some(at(self.now));
                self.leader.queue.unblock(UNBLOCK_MAX);
                self.measures.timeline.add(self.now, || "an operator releases the brake".into());
                self.wake();
            }
        }
    }

    fn lose_disk(&mut self, event: &EventSpec, lasts: Option<Micros>) {
        let Target::Disk(name, disk) = event.target() else { return };
        if let (Some(server), Ok(disk)) = (self.find_server(name), disk.parse::<u8>()) {
            self.begin(Trouble::DiskLost { server, disk }, lasts);
        }
    }

    fn wish_of(&mut self, servers: &[u16], wish: ServerWish, event: &EventSpec) {
        for server in servers {
            self.leader.set_wish(*server, wish);
        }
        let (what, target) = (wish.word(), event.target());
        self.measures.timeline.add(self.now, || format!("{target} is {what}: an operator says so"));
        self.plan_balance();
        self.wake();
    }
}
