//! A chunkserver.

use quarry_chunkserver_core::{
    capacity,
    scrub::{Pace, Schedule},
};
use quarry_types::{ChunkId, ServerId, limits};

use crate::units::Micros;

/// A disk of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Bytes.
    pub capacity: u64,
    /// Bytes of chunks on it.
    pub used: u64,
    /// It is gone.
    pub failed: bool,
}

impl Disk {
    /// An empty one.
    #[must_use]
    pub fn new(capacity: u64) -> Self {
        Disk { capacity, used: 0, failed: false }
    }

    /// Bytes that chunks may still take, by the chunkserver's own rule.
    #[must_use]
    pub fn available(&self) -> u64 {
        let free = self.capacity.saturating_sub(self.used);
        if self.failed { 0 } else { capacity::room(self.capacity, self.used, free) }
    }

    /// It takes new chunks: not too full, as the master sees it.
    fn is_open(&self) -> bool {
        let used = u128::from(self.capacity.saturating_sub(self.available())) * 100;
        !self.failed && used < u128::from(self.capacity) * u128::from(limits::DISK_NO_NEW_PERCENT)
    }
}

/// The room on a server, as the master works it out from what beats say of disks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Of the disks that work.
    pub capacity: u64,
    /// On the one that has the most.
    pub best: u64,
    /// On all.
    pub free: u64,
}

/// A chunkserver.
#[derive(Clone, Debug)]
pub struct Server {
    /// Its id.
    pub id: ServerId,
    /// Its number among the racks.
    pub rack: u16,
    /// What people call it.
    pub name: String,
    /// Its disks.
    pub disks: Vec<Disk>,
    /// The chunks that it holds, in no order.
    pub held: Vec<u32>,
    /// Faults that keep it down.
    pub down: u8,
    /// Faults that cut it off from the master.
    pub cut: u8,
    /// Those among them that cut it off from everybody.
    pub isolated: u8,
    /// So many times slower than usual.
    pub slow: u32,
    /// What it held is lost.
    pub lost: bool,
    /// When its beats began.
    pub beats_from: Micros,
    /// Its full report has come since it registered last.
    pub reported: bool,
    /// Counts its registrations, so that reports of earlier ones are known.
    pub registration: u32,
    /// When it fell silent, for whoever measures how soon that is noticed.
    pub silent_from: Option<Micros>,
}

impl Server {
    /// It runs.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.down == 0
    }

    /// Clients reach it.
    #[must_use]
    pub fn serves(&self) -> bool {
        self.down == 0 && self.isolated == 0
    }

    /// The master hears it.
    #[must_use]
    pub fn beats(&self) -> bool {
        self.down == 0 && self.cut == 0
    }

    /// Its last beat up to `now`, if it beats all the time.
    #[must_use]
    pub fn last_beat(&self, now: Micros) -> Micros {
        let interval = u64::try_from(limits::BEAT_INTERVAL.as_micros()).unwrap_or(1);
        now - now.saturating_sub(self.beats_from) % interval
    }

    /// The room on it.
    #[must_use]
    pub fn room(&self) -> Room {
        self.disks.iter().filter(|disk| !disk.failed).fold(Room::default(), |room, disk| {
            let open = if disk.is_open() { disk.available() } else { 0 };
            Room { capacity: room.capacity + disk.capacity, best: room.best.max(open), free: room.free + open }
        })
    }

    /// Bytes of chunks on the disks that work.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.disks.iter().filter(|disk| !disk.failed).map(|disk| disk.used).sum()
    }

    /// Disks that work.
    #[must_use]
    pub fn working_disks(&self) -> u64 {
        self.disks.iter().filter(|disk| !disk.failed).count() as u64
    }

    /// The disk that a new replica goes to: the one with the most room.
    #[must_use]
    pub fn disk_for(&self, bytes: u64) -> Option<u8> {
        let fits = self.disks.iter().enumerate().filter(|(_, disk)| disk.available() >= bytes);
        let (at, _) = fits.max_by_key(|(at, disk)| (disk.available(), std::cmp::Reverse(*at)))?;
        u8::try_from(at).ok()
    }

    /// How long a round of scrubbing takes here, by the chunkserver's own pace.
    #[must_use]
    pub fn scrub_round(&self, pace: &Pace) -> Micros {
        let mut schedule = Schedule::default();
        let bytes = self.used().max(1);
        schedule.found(ChunkId(0), bytes, None, 0, 0);
        u64::try_from(schedule.turn(bytes, pace, 0).as_micros()).unwrap_or(u64::MAX)
    }

    /// It does not hold a chunk any more.
    pub fn let_go(&mut self, chunk: u32) {
        if let Some(at) = self.held.iter().position(|held| *held == chunk) {
            self.held.swap_remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    pub(crate) fn server(disks: &[Disk]) -> Server {
        Server {
            id: ServerId::default(),
            rack: 0,
            name: "0".into(),
            disks: disks.to_vec(),
            held: Vec::new(),
            down: 0,
            cut: 0,
            isolated: 0,
            slow: 1,
            lost: false,
            beats_from: 250_000,
            reported: true,
            registration: 1,
            silent_from: None,
        }
    }

    #[test]
    fn room_is_on_disks_that_work_and_are_not_too_full() {
        let disk = |used, failed| Disk { capacity: 1 << 40, used, failed };
        let room =
            server(&[disk(0, false), disk(1 << 39, false), disk((1 << 40) / 100 * 96, false), disk(0, true)]).room();
        assert_eq!(room.capacity, 3 << 40);
        assert_eq!(room.best, disk(0, false).available());
        assert_eq!(room.free, disk(0, false).available() + disk(1 << 39, false).available());
        assert_eq!(server(&[disk(1, false), disk(0, true), disk(0, false)]).disk_for(1), Some(2));
        assert_eq!(server(&[disk(0, true)]).disk_for(1), None);
    }

    #[test]
    fn beats_come_each_second_from_where_they_began() {
        let server = server(&[]);
        assert_eq!(
            (server.last_beat(250_000), server.last_beat(1_249_999), server.last_beat(1_250_000)),
            (250_000, 250_000, 1_250_000)
        );
    }

    #[test]
    fn a_round_of_scrubbing_takes_the_chunkservers_own_share_of_the_period_or_what_its_rate_allows() {
        let pace = Pace { period: Duration::from_secs(1000), rate: 100 };
        let with = |used| server(&[Disk { capacity: 1 << 40, used, failed: false }]).scrub_round(&pace);
        assert_eq!(with(1000), 800_000_000, "80 % of the period");
        assert_eq!(with(90_000), 900_000_000, "at 100 B/s");
    }
}
