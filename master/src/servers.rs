//! The chunkservers: what the replicated state says of them, who is alive, and what they said last.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use quarry_chunkserver_core::inventory::{Ranges, Sums};
use quarry_env::Instant;
use quarry_master_core::{
    command::{Durability, ServerWish},
    detector::{self, Detector, Health, HealthChange, Search},
    placement::{Candidate, vitals::Vitals},
    rows,
};
use quarry_proto::v1;
use quarry_types::{ServerId, limits};

/// Beats at one number of the inventory that is not the master's, before a full report is asked for: changes may be
/// under way.
const BEATS_BEHIND_MAX: u32 = 3;

/// Servers that refuse this master and are remembered. More are the same trouble.
const REFUSING_MAX: usize = 1024;
/// A server that refuses tries on every few seconds; one that was not heard for so long has found its master.
const REFUSAL_AGE: Duration = Duration::from_secs(60);

/// Over how long disk errors count against a server.
const ERRORS_WINDOW: Duration = Duration::from_secs(60);

/// A registered chunkserver.
#[derive(Clone, Debug)]
pub struct Server {
    /// Names its registration in beats and reports.
    pub registration: u64,
    /// Where its data port is.
    pub address: String,
    /// Its failure domain.
    pub rack: String,
    /// What its acknowledgements mean.
    pub durability: Durability,
    /// Its present start.
    pub start: Start,
    /// Its disks, as of the last beat.
    pub disks: Vec<v1::DiskInfo>,
    /// Writes under way.
    pub active_writes: u32,
    /// Reads under way.
    pub active_reads: u32,
    /// Use of its processors, in percent.
    pub cpu_percent: u32,
    /// How long clients waited for it lately, in microseconds.
    pub latency_us: u64,
    /// Bytes given to and taken from clients since it started.
    pub traffic_bytes: u64,
    /// Bytes that scrubbing has read since it started.
    pub scrubbed_bytes: u64,
    /// When the replica that was verified longest ago was, in wall-clock milliseconds; 0: none yet.
    pub oldest_verified_ms: u64,
    /// Disk errors: how many there were when, about a minute ago.
    errors_before: (Instant, u64),
    /// Chunks given to it since the last beat and not sealed yet: it may not count them itself.
    pub placed_since_beat: u32,
    beats_behind: u32,
    /// Its stream has ended, and nothing was heard of it since.
    gone: bool,
}

impl Server {
    fn errors(&self) -> u64 {
        self.disks.iter().fold(0, |sum, disk| sum.saturating_add(disk.errors))
    }

    /// How well it is.
    #[must_use]
    pub fn vitals(&self) -> Vitals {
        Vitals {
            slow_disks: self.disks.iter().filter(|d| d.slow && !d.failed).map(|d| d.path.clone()).collect(),
            errors: self.errors().saturating_sub(self.errors_before.1),
            cpu_percent: self.cpu_percent,
            latency_us: self.latency_us,
        }
    }
}

/// All of them.
#[derive(Default)]
pub struct Servers {
    servers: BTreeMap<ServerId, Server>,
    detector: Detector,
    /// What the replicated state says of every server that ever registered.
    rows: BTreeMap<ServerId, rows::Server>,
    /// Replicated time, as it was last seen.
    elapsed_ms: u64,
    /// Those that take no orders from this master: why, and when they said so last.
    refusing: BTreeMap<ServerId, (String, Instant)>,
}

/// One start of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// Which one, counted by the server on its disk.
    pub counter: u64,
    /// Its name, drawn by the server.
    pub id: u64,
}

/// What a server said when it registered.
#[derive(Clone, Debug)]
pub struct Registered {
    /// Names the registration from now on.
    pub registration: u64,
    /// Where its data port is.
    pub address: String,
    /// Its failure domain.
    pub rack: String,
    /// Which start of the server this is.
    pub start: Start,
    /// What its acknowledgements mean.
    pub durability: Durability,
    /// Its disks.
    pub disks: Vec<v1::DiskInfo>,
}

impl Servers {
    /// The replicated state knows this server: it gets its time before it is judged.
    pub fn expect(&mut self, server: ServerId, row: rows::Server, now: Instant) {
        self.detector.expect(server, now.0);
        self.remember(server, row);
    }

    /// What the replicated state says of a server now.
    pub fn remember(&mut self, server: ServerId, row: rows::Server) {
        self.rows.insert(server, row);
    }

    /// A server takes no orders from this master.
    pub fn refuses(&mut self, server: ServerId, why: String, now: Instant) {
        if self.refusing.len() < REFUSING_MAX || self.refusing.contains_key(&server) {
            self.refusing.insert(server, (why, now));
        }
    }

    /// Why servers take no orders from this master, as far as they said so of late.
    pub fn refusals(&self, now: Instant) -> impl Iterator<Item = &str> {
        let recent = move |at: Instant| now.since(at) < REFUSAL_AGE;
        self.refusing.values().filter(move |(_, at)| recent(*at)).map(|(why, _)| why.as_str())
    }

    /// Replicated time moved on.
    pub fn tick(&mut self, elapsed_ms: u64) {
        self.elapsed_ms = self.elapsed_ms.max(elapsed_ms);
    }

    /// What the replicated state says of each server.
    pub fn rows(&self) -> impl Iterator<Item = (ServerId, &rows::Server)> {
        self.rows.iter().map(|(server, row)| (*server, row))
    }

    /// What an operator wants of a server now.
    #[must_use]
    pub fn wish(&self, server: ServerId) -> ServerWish {
        self.rows.get(&server).map_or(ServerWish::Active, |row| row.wish_at(self.elapsed_ms))
    }

    /// For how long a server is in maintenance, in milliseconds.
    #[must_use]
    pub fn maintenance_left_ms(&self, server: ServerId) -> u64 {
        let row = self.rows.get(&server).filter(|_| self.wish(server) == ServerWish::Maintenance);
        row.map_or(0, |row| row.maintenance_until_ms.saturating_sub(self.elapsed_ms))
    }

    /// Nobody is surprised that the server is not there. A graceful stop does not end a drain for a maintenance: it goes on
    /// from other replicas.
    #[must_use]
    pub fn is_expected_away(&self, server: ServerId) -> bool {
        match self.wish(server) {
            ServerWish::Maintenance | ServerWish::Decommissioned => true,
            ServerWish::Draining => self.detector.has_stopped(server),
            ServerWish::Active => false,
        }
    }

    /// A server's failure domain.
    #[must_use]
    pub fn rack(&self, server: ServerId) -> &str {
        self.rows.get(&server).map_or("", |row| row.rack.as_str())
    }

    /// Where a server's data port is, or was last.
    #[must_use]
    pub fn address(&self, server: ServerId) -> &str {
        self.rows.get(&server).map_or("", |row| row.address.as_str())
    }

    /// Servers by rack, without decommissioned ones.
    #[must_use]
    pub fn racks(&self) -> BTreeMap<String, usize> {
        let mut racks = BTreeMap::new();
        for row in self.rows.values().filter(|row| row.wish != ServerWish::Decommissioned) {
            *racks.entry(row.rack.clone()).or_default() += 1;
        }
        racks
    }

    /// The word for a server's state: what is wanted of it counts as long as it is there, or may be away.
    #[must_use]
    pub fn state(&self, server: ServerId, now: Instant) -> &'static str {
        match (self.wish(server), self.health(server, now)) {
            (ServerWish::Decommissioned, _) => ServerWish::Decommissioned.word(),
            (ServerWish::Maintenance, _) => ServerWish::Maintenance.word(),
            (ServerWish::Draining, Health::Alive) => ServerWish::Draining.word(),
            (_, health) => health.word(),
        }
    }

    /// A server registered; an earlier registration of it is void.
    pub fn register(&mut self, server: ServerId, from: Registered, now: Instant) {
        self.detector.beat(server, now.0);
        self.refusing.remove(&server);
        let Registered { registration, address, rack, start, durability, disks } = from;
        let (active_writes, active_reads, placed_since_beat, beats_behind) = (0, 0, 0, 0);
        let errors = disks.iter().fold(0u64, |sum, disk| sum.saturating_add(disk.errors));
        let fresh = Server {
            cpu_percent: 0,
            latency_us: 0,
            traffic_bytes: 0,
            scrubbed_bytes: 0,
            oldest_verified_ms: 0,
            errors_before: (now, errors),
            registration,
            address,
            rack,
            durability,
            start,
            disks,
            active_writes,
            active_reads,
            placed_since_beat,
            beats_behind,
            gone: false,
        };
        self.servers.insert(server, fresh);
    }

    /// Whether this registration is the server's present one.
    #[must_use]
    pub fn is_registered(&self, server: ServerId, registration: u64) -> bool {
        self.servers.get(&server).is_some_and(|s| s.registration == registration)
    }

    /// Takes a beat. `held` is what the master holds the server's inventory at: its number and its sums. Which ranges are
    /// to be reported anew, if any; `None` when the registration is not known.
    pub fn beat(
        &mut self,
        server: ServerId,
        beat: &v1::Beat,
        held: Option<(u64, Sums)>,
        now: Instant,
    ) -> Option<Ranges> {
        let known = self.servers.get_mut(&server).filter(|s| s.registration == beat.registration)?;
        self.detector.beat(server, now.0);
        known.gone = false;
        known.disks.clone_from(&beat.disks);
        known.active_writes = beat.active_writes;
        known.active_reads = beat.active_reads;
        known.cpu_percent = beat.cpu_percent;
        known.latency_us = beat.latency_us;
        known.traffic_bytes = beat.read_bytes.saturating_add(beat.written_bytes);
        known.scrubbed_bytes = beat.scrubbed_bytes;
        known.oldest_verified_ms = beat.oldest_verified_ms;
        if now.since(known.errors_before.0) >= ERRORS_WINDOW {
            known.errors_before = (now, known.errors());
        }
        known.placed_since_beat = 0;
        let wanted = match held {
            Some((number, sums)) if number == beat.inventory_number => {
                known.beats_behind = 0;
                // Equal numbers and different sums: one of the two pictures is wrong.
                if sums.digest() == beat.digest { Ranges(0) } else { sums.differing(&beat.ranges) }
            }
            _ => {
                known.beats_behind += 1;
                if known.beats_behind < BEATS_BEHIND_MAX { Ranges(0) } else { Ranges::ALL }
            }
        };
        if wanted != Ranges(0) {
            known.beats_behind = 0;
        }
        Some(wanted)
    }

    /// The stream of a registration has ended.
    pub fn stream_ended(&mut self, server: ServerId, registration: u64) {
        if let Some(known) = self.servers.get_mut(&server).filter(|s| s.registration == registration) {
            known.gone = true;
        }
    }

    /// Its stream has ended and it has not come back: what it held may be another image when it does, long before its silence is
    /// noticed (S7).
    #[must_use]
    pub fn is_gone(&self, server: ServerId) -> bool {
        self.servers.get(&server).is_some_and(|known| known.gone)
    }

    /// A server stops on purpose.
    pub fn goodbye(&mut self, server: ServerId) {
        self.detector.goodbye(server);
    }

    /// What to believe of a server.
    #[must_use]
    pub fn health(&self, server: ServerId, now: Instant) -> Health {
        if self.servers.contains_key(&server) {
            return self.detector.state(server, now.0);
        }
        // Known from the past but not registered with this leader: never better than suspect.
        self.detector.state(server, now.0).max(Health::Suspect)
    }

    /// How long nothing was heard of a server.
    #[must_use]
    pub fn silent(&self, server: ServerId, now: Instant) -> Option<Duration> {
        self.detector.silent(server, now.0)
    }

    /// How long a server that beats is still suspect for its past, see [`Detector::damped`].
    #[must_use]
    pub fn damped(&self, server: ServerId, now: Instant) -> Option<Duration> {
        self.detector.damped(server, now.0).filter(|_| self.health(server, now) == Health::Suspect)
    }

    /// How long ago a peer reached a server that is silent here.
    #[must_use]
    pub fn reached_ago(&self, server: ServerId, now: Instant) -> Option<Duration> {
        self.detector.reached_ago(server, now.0)
    }

    /// Whether a server's health is another than when changes were last asked for.
    #[must_use]
    pub fn has_health_changes(&self, now: Instant) -> bool {
        self.detector.has_changes(now.0)
    }

    /// Servers whose health is another than at the last call.
    pub fn health_changes(&mut self, now: Instant) -> Vec<HealthChange> {
        self.detector.changes(now.0)
    }

    /// Servers that peers are to look for now, see [`Detector::searches`].
    pub fn searches(&mut self, now: Instant, chance: u64) -> Vec<Search> {
        self.detector.searches(now.0, chance)
    }

    /// A peer reached a server just now.
    pub fn reached(&mut self, server: ServerId, now: Instant) {
        self.detector.reached(server, now.0);
    }

    /// What an operator set about detection.
    pub fn judge_by(&mut self, policy: detector::Policy) {
        self.detector.policy = policy;
    }

    /// When health changes next if no beat comes, or a server is to be looked for.
    #[must_use]
    pub fn next_deadline(&self, now: Instant) -> Option<Instant> {
        self.detector.next_deadline(now.0).map(Instant)
    }

    /// A registered server.
    #[must_use]
    pub fn get(&self, server: ServerId) -> Option<&Server> {
        self.servers.get(&server)
    }

    /// What the weakest of the servers means by an acknowledgement.
    #[must_use]
    pub fn durability(&self) -> Durability {
        self.servers.values().map(|s| s.durability).max().unwrap_or(Durability::Sealed)
    }

    /// The registered servers as candidates for a new chunk, in server order.
    #[must_use]
    pub fn candidates(&self, now: Instant) -> Vec<Candidate> {
        self.servers.iter().map(|(id, server)| self.candidate(*id, server, now)).collect()
    }

    fn candidate(&self, id: ServerId, server: &Server, now: Instant) -> Candidate {
        let room = room(&server.disks);
        // What was given away since the last beat may all be written.
        let given = u64::from(server.placed_since_beat) * limits::CHUNK_BYTES;
        Candidate {
            health: self.health(id, now),
            wish: self.wish(id),
            sick: server.vitals().sickness(),
            disks_known: disks_known(&server.disks),
            available_bytes: room.best.saturating_sub(given),
            active_writes: server.active_writes + server.placed_since_beat,
            active_reads: server.active_reads,
            cpu_percent: server.cpu_percent,
            latency_us: server.latency_us,
            ..Candidate::idle(id, &server.rack, room.capacity, room.free.saturating_sub(given))
        }
    }

    /// Whether so many replicas of a chunk are allowed, and enough servers take part to hold them.
    #[must_use]
    pub fn can_hold(&self, replicas: u32) -> bool {
        let active = |id: &&ServerId| self.wish(**id) == ServerWish::Active;
        replicas <= limits::REPLICAS_MAX
            && self.servers.keys().filter(active).take(replicas as usize).count() == replicas as usize
    }

    /// The registered servers.
    pub fn registered(&self) -> impl Iterator<Item = (ServerId, &Server)> {
        self.servers.iter().map(|(id, server)| (*id, server))
    }

    /// How long clients wait for the slowest of the servers that are alive, in microseconds.
    #[must_use]
    pub fn latency_us(&self, now: Instant) -> u64 {
        let alive = self.servers.iter().filter(|(id, _)| self.health(**id, now) == Health::Alive);
        alive.map(|(_, server)| server.latency_us).max().unwrap_or(0)
    }

    /// The servers that the state knows and that did not report to this leader yet, but may.
    #[must_use]
    pub fn awaited(&self, reported: &dyn Fn(ServerId) -> bool) -> BTreeSet<ServerId> {
        let gone = |row: &rows::Server| row.wish == ServerWish::Decommissioned;
        self.rows.iter().filter(|(id, row)| !gone(row) && !reported(**id)).map(|(id, _)| *id).collect()
    }

    /// A chunk that these servers wrote is sealed.
    pub fn sealed(&mut self, holders: &[ServerId]) {
        for holder in holders {
            if let Some(server) = self.servers.get_mut(holder) {
                server.placed_since_beat = server.placed_since_beat.saturating_sub(1);
            }
        }
    }

    /// These servers take part in a new chunk.
    pub fn placed(&mut self, members: &[ServerId]) {
        for member in members {
            if let Some(server) = self.servers.get_mut(member) {
                server.placed_since_beat += 1;
            }
        }
    }
}

/// Whether the server has looked at its disks: what it has not looked at has no capacity and has not failed.
fn disks_known(disks: &[v1::DiskInfo]) -> bool {
    disks.iter().any(|d| !d.failed && d.capacity_bytes > 0) || (!disks.is_empty() && disks.iter().all(|d| d.failed))
}

/// The room on a server's disks, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Room {
    /// Of the disks that work.
    capacity: u64,
    /// On the one of them that has the most for new chunks: a chunk lies on one disk.
    best: u64,
    /// On all of them.
    free: u64,
}

fn room(disks: &[v1::DiskInfo]) -> Room {
    let working = || disks.iter().filter(|d| !d.failed);
    let open = || {
        working().filter(|d| {
            let used_share = u128::from(d.capacity_bytes.saturating_sub(d.available_bytes)) * 100;
            used_share < u128::from(d.capacity_bytes) * u128::from(limits::DISK_NO_NEW_PERCENT)
        })
    };
    Room {
        capacity: working().fold(0, |sum, d| sum.saturating_add(d.capacity_bytes)),
        best: open().map(|d| d.available_bytes).max().unwrap_or(0),
        free: open().fold(0, |sum, d| sum.saturating_add(d.available_bytes)),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use quarry_types::ChunkId;

    use super::*;

    fn disk(capacity: u64, available: u64, failed: bool) -> v1::DiskInfo {
        v1::DiskInfo {
            capacity_bytes: capacity,
            available_bytes: available,
            used_bytes: capacity - available,
            failed,
            ..Default::default()
        }
    }

    /// A registration of a server with a disk of 100 GiB, half of it free.
    pub(crate) fn registered(registration: u64) -> Registered {
        Registered {
            registration,
            address: "h:1".into(),
            rack: "r".into(),
            start: Start { counter: 1, id: 1 },
            durability: Durability::Sealed,
            disks: vec![disk(100 << 30, 50 << 30, false)],
        }
    }

    #[test]
    fn failed_and_full_disks_offer_no_room() {
        let of = |disks: &[v1::DiskInfo]| {
            let Room { capacity, best, free } = room(disks);
            (capacity, best, free)
        };
        assert_eq!(of(&[disk(1000, 400, false), disk(1000, 900, true), disk(1000, 500, false)]), (2000, 500, 900));
        assert_eq!(of(&[disk(1000, 50, false)]), (1000, 0, 0), "95 % full takes no new chunks");
        assert_eq!(of(&[]), (0, 0, 0));
    }

    #[test]
    fn disks_are_known_when_one_was_looked_at_or_all_have_failed() {
        assert!(!disks_known(&[]), "the registration did not wait for a slow disk");
        assert!(!disks_known(&[disk(0, 0, false), disk(0, 0, true)]));
        assert!(disks_known(&[disk(0, 0, false), disk(1000, 0, false)]));
        assert!(disks_known(&[disk(0, 0, true)]));
    }

    #[test]
    fn a_server_dies_without_beats_and_only_its_own_registration_revives_it() {
        let (mut servers, a) = (Servers::default(), ServerId::from_random(1));
        let at = |ms| Instant(Duration::from_millis(ms));
        servers.register(a, registered(7), at(0));
        assert_eq!(servers.health(a, at(1000)), Health::Alive);
        assert_eq!(servers.health(a, at(2000)), Health::Suspect);
        let beat = |registration| v1::Beat { registration, ..Default::default() };
        assert_eq!(servers.beat(a, &beat(8), None, at(2000)), None);
        assert_eq!(servers.health(a, at(2000)), Health::Suspect);
        assert_eq!(servers.beat(a, &beat(7), Some((0, Sums::default())), at(2000)), Some(Ranges(0)));
        assert_eq!(servers.health(a, at(2000)), Health::Alive);
        assert_eq!(servers.health(a, at(5000)), Health::Dead);
        servers.goodbye(a);
        assert_eq!(servers.health(ServerId::from_random(2), at(0)), Health::Dead);
    }

    #[test]
    fn s7_a_server_whose_stream_ended_is_gone_until_it_is_heard_again() {
        let (mut servers, a) = (Servers::default(), ServerId::from_random(1));
        let at = |ms| Instant(Duration::from_millis(ms));
        servers.register(a, registered(7), at(0));
        servers.stream_ended(a, 6);
        assert!(!servers.is_gone(a), "an earlier registration of it");
        servers.stream_ended(a, 7);
        assert_eq!((servers.is_gone(a), servers.health(a, at(1))), (true, Health::Alive), "before its silence shows");
        let beat = v1::Beat { registration: 7, ..Default::default() };
        servers.beat(a, &beat, Some((0, Sums::default())), at(2));
        assert!(!servers.is_gone(a), "it goes on");
        servers.stream_ended(a, 7);
        servers.register(a, registered(8), at(3));
        assert!(!servers.is_gone(a), "it came back");
    }

    #[test]
    fn what_differs_is_asked_for_again_and_all_when_changes_never_came() {
        let (mut servers, a) = (Servers::default(), ServerId::from_random(1));
        servers.register(a, registered(7), Instant(Duration::ZERO));
        let sums = |weight| {
            let mut sums = Sums::default();
            sums.change(ChunkId(3), 0, weight);
            sums
        };
        let mut beat = |number, weight, held: Option<(u64, u64)>| {
            let (digest, ranges) = (sums(weight).digest(), sums(weight).ranges().to_vec());
            let beat = v1::Beat { registration: 7, inventory_number: number, digest, ranges, ..Default::default() };
            let held = held.map(|(number, weight)| (number, sums(weight)));
            servers.beat(a, &beat, held, Instant(Duration::ZERO))
        };
        assert_eq!(beat(5, 9, Some((5, 9))), Some(Ranges(0)));
        assert_eq!(beat(5, 9, Some((5, 8))), Some(Ranges(1 << 3)), "same number, other sum");
        assert_eq!(beat(6, 9, Some((5, 8))), Some(Ranges(0)), "a change is under way");
        assert_eq!(beat(6, 9, Some((5, 8))), Some(Ranges(0)));
        assert_eq!(beat(6, 9, None), Some(Ranges::ALL), "it never came");
    }
}
