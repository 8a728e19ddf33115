//! The chunkservers that registered in this leadership: who is alive, and what they said last.

use std::{collections::BTreeMap, time::Duration};

use quarry_env::Instant;
use quarry_master_core::{
    command::Durability,
    detector::{Detector, Health, HealthChange},
    placement::Candidate,
};
use quarry_proto::v1;
use quarry_types::{ServerId, limits};

/// Beats at one number of the inventory that is not the master's, before a full report is asked for: changes may be
/// under way.
const BEATS_BEHIND_MAX: u32 = 3;

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
    /// Counts its starts.
    pub start_counter: u64,
    /// Its disks, as of the last beat.
    pub disks: Vec<v1::DiskInfo>,
    /// Writes under way.
    pub active_writes: u32,
    /// Reads under way.
    pub active_reads: u32,
    /// Chunks given to it since the last beat and not sealed yet: it may not count them itself.
    pub placed_since_beat: u32,
    beats_behind: u32,
}

/// All of them.
#[derive(Default)]
pub struct Servers {
    servers: BTreeMap<ServerId, Server>,
    detector: Detector,
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
    /// What its acknowledgements mean.
    pub durability: Durability,
    /// Its disks.
    pub disks: Vec<v1::DiskInfo>,
}

impl Servers {
    /// The replicated state knows this server: it gets its time before it is judged.
    pub fn expect(&mut self, server: ServerId, now: Instant) {
        self.detector.expect(server, now.0);
    }

    /// A server registered; an earlier registration of it is void.
    pub fn register(&mut self, server: ServerId, from: Registered, start_counter: u64, now: Instant) {
        self.detector.beat(server, now.0);
        let Registered { registration, address, rack, durability, disks } = from;
        let (active_writes, active_reads, placed_since_beat, beats_behind) = (0, 0, 0, 0);
        let fresh = Server {
            registration,
            address,
            rack,
            durability,
            start_counter,
            disks,
            active_writes,
            active_reads,
            placed_since_beat,
            beats_behind,
        };
        self.servers.insert(server, fresh);
    }

    /// Whether this registration is the server's present one.
    #[must_use]
    pub fn is_registered(&self, server: ServerId, registration: u64) -> bool {
        self.servers.get(&server).is_some_and(|s| s.registration == registration)
    }

    /// Takes a beat. `held` is what the master holds the server's inventory at: its number and its sum. Whether a
    /// full report is wanted; `None` when the registration is not known.
    pub fn beat(&mut self, server: ServerId, beat: &v1::Beat, held: Option<(u64, u64)>, now: Instant) -> Option<bool> {
        let known = self.servers.get_mut(&server).filter(|s| s.registration == beat.registration)?;
        self.detector.beat(server, now.0);
        known.disks.clone_from(&beat.disks);
        known.active_writes = beat.active_writes;
        known.active_reads = beat.active_reads;
        known.placed_since_beat = 0;
        let in_step = match held {
            Some((number, digest)) if number == beat.inventory_number => {
                known.beats_behind = 0;
                // Equal numbers and different sums: one of the two pictures is wrong.
                digest == beat.digest
            }
            _ => {
                known.beats_behind += 1;
                known.beats_behind < BEATS_BEHIND_MAX
            }
        };
        if !in_step {
            known.beats_behind = 0;
        }
        Some(!in_step)
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

    /// Servers whose health is another than at the last call.
    pub fn health_changes(&mut self, now: Instant) -> Vec<HealthChange> {
        self.detector.changes(now.0)
    }

    /// When health changes next if no beat comes.
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

    /// The registered servers as candidates for a new chunk.
    #[must_use]
    pub fn candidates(&self, now: Instant) -> Vec<Candidate> {
        let candidate = |(id, server): (&ServerId, &Server)| {
            let (capacity_bytes, available_bytes) = room(&server.disks);
            Candidate {
                server: *id,
                rack: server.rack.clone(),
                alive: self.health(*id, now) == Health::Alive,
                draining: false,
                capacity_bytes,
                // What was given away since the last beat may all be written.
                available_bytes: available_bytes
                    .saturating_sub(u64::from(server.placed_since_beat) * limits::CHUNK_BYTES),
                active_writes: server.active_writes + server.placed_since_beat,
                active_reads: server.active_reads,
                latency_us: 0,
                near: false,
            }
        };
        self.servers.iter().map(candidate).collect()
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

/// Capacity of the disks that work, and the room that the best of them still has for new chunks: a chunk lies on one disk.
fn room(disks: &[v1::DiskInfo]) -> (u64, u64) {
    let working = || disks.iter().filter(|d| !d.failed);
    let capacity = working().fold(0u64, |sum, d| sum.saturating_add(d.capacity_bytes));
    let open = working().filter(|d| {
        let used_share = u128::from(d.capacity_bytes.saturating_sub(d.available_bytes)) * 100;
        used_share < u128::from(d.capacity_bytes) * u128::from(limits::DISK_NO_NEW_PERCENT)
    });
    (capacity, open.map(|d| d.available_bytes).max().unwrap_or(0))
}

#[cfg(test)]
mod tests {
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

    fn registered(registration: u64) -> Registered {
        Registered {
            registration,
            address: "h:1".into(),
            rack: "r".into(),
            durability: Durability::Sealed,
            disks: vec![disk(100 << 30, 50 << 30, false)],
        }
    }

    #[test]
    fn failed_and_full_disks_offer_no_room() {
        assert_eq!(room(&[disk(1000, 400, false), disk(1000, 900, true), disk(1000, 500, false)]), (2000, 500));
        assert_eq!(room(&[disk(1000, 50, false)]), (1000, 0), "95 % full takes no new chunks");
        assert_eq!(room(&[]), (0, 0));
    }

    #[test]
    fn a_server_dies_without_beats_and_only_its_own_registration_revives_it() {
        let (mut servers, a) = (Servers::default(), ServerId::from_random(1));
        let at = |ms| Instant(Duration::from_millis(ms));
        servers.register(a, registered(7), 1, at(0));
        assert_eq!(servers.health(a, at(1000)), Health::Alive);
        assert_eq!(servers.health(a, at(2000)), Health::Suspect);
        let beat = |registration| v1::Beat { registration, ..Default::default() };
        assert_eq!(servers.beat(a, &beat(8), None, at(2000)), None);
        assert_eq!(servers.health(a, at(2000)), Health::Suspect);
        assert_eq!(servers.beat(a, &beat(7), Some((0, 0)), at(2000)), Some(false));
        assert_eq!(servers.health(a, at(2000)), Health::Alive);
        assert_eq!(servers.health(a, at(5000)), Health::Dead);
        servers.goodbye(a);
        assert_eq!(servers.health(ServerId::from_random(2), at(0)), Health::Dead);
    }

    #[test]
    fn a_full_report_is_asked_for_when_the_pictures_differ() {
        let (mut servers, a) = (Servers::default(), ServerId::from_random(1));
        servers.register(a, registered(7), 1, Instant(Duration::ZERO));
        let mut beat = |number, digest, held| {
            let beat = v1::Beat { registration: 7, inventory_number: number, digest, ..Default::default() };
            servers.beat(a, &beat, held, Instant(Duration::ZERO))
        };
        assert_eq!(beat(5, 9, Some((5, 9))), Some(false));
        assert_eq!(beat(5, 9, Some((5, 8))), Some(true), "same number, other sum");
        assert_eq!(beat(6, 9, Some((5, 8))), Some(false), "a change is under way");
        assert_eq!(beat(6, 9, Some((5, 8))), Some(false));
        assert_eq!(beat(6, 9, None), Some(true), "it never came");
    }
}
