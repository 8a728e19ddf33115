//! Which replica is read again next, and how fast (scrubbing).
//!
//! Every sealed replica is read whole once per period, the one that was verified longest ago first. Reading goes on at the
//! pace that the bytes and the period give, all the time: so it stays spread out also where everything came at once.
//!
//! Times are milliseconds since the process began, which do not jump; those before it are negative. The wall clock only
//! tells, at a start, how long ago a verification was; a stamp in its future says nothing, and the replica counts as never
//! verified.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use quarry_types::ChunkId;

/// A round takes this share of the period, in percent, so that pauses do not make it late.
const ROUND_PERCENT: u64 = 80;
/// While clients are served, scrubbing takes one part in so many of the rate it may have.
pub const CLIENTS_FIRST: u64 = 8;

/// How fast replicas are read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Each replica is read once within this.
    pub period: Duration,
    /// The most, in bytes per second.
    pub rate: u64,
}

impl Pace {
    /// Bytes per second while a replica is read.
    #[must_use]
    pub fn reading(&self, clients_are_served: bool) -> u64 {
        let rate = if clients_are_served { self.rate / CLIENTS_FIRST } else { self.rate };
        rate.max(1)
    }
}

/// When a replica was verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Row {
    bytes: u64,
    /// What it is ordered by: `i64::MIN` for never.
    at: i64,
    /// For display, in wall-clock milliseconds; 0 for never.
    stamp: u64,
}

/// The sealed replicas of a server by when they were verified.
#[derive(Debug, Default)]
pub struct Schedule {
    rows: BTreeMap<ChunkId, Row>,
    order: BTreeSet<(i64, ChunkId)>,
    bytes: u64,
    /// Stamps that are not in the index yet.
    unsaved: BTreeMap<ChunkId, u64>,
}

impl Schedule {
    fn put(&mut self, chunk: ChunkId, row: Row) {
        self.remove(chunk);
        self.bytes += row.bytes;
        self.order.insert((row.at, chunk));
        self.rows.insert(chunk, row);
    }

    /// Adds a replica as a start finds it. `stamp` is what the index has, in wall-clock milliseconds.
    pub fn found(&mut self, chunk: ChunkId, bytes: u64, stamp: Option<u64>, now: i64, wall: u64) {
        let age = stamp.and_then(|stamp| wall.checked_sub(stamp)).and_then(|age| i64::try_from(age).ok());
        let row = match age {
            Some(age) => Row { bytes, at: now.saturating_sub(age), stamp: stamp.unwrap_or(0) },
            None => Row { bytes, at: i64::MIN, stamp: 0 },
        };
        self.put(chunk, row);
    }

    /// The replica was read whole, or was just written, and is good.
    pub fn verified(&mut self, chunk: ChunkId, bytes: u64, now: i64, wall: u64) {
        self.put(chunk, Row { bytes, at: now, stamp: wall });
        self.unsaved.insert(chunk, wall);
    }

    /// The replica could not be read, though nothing is known to be wrong with it: the others come first.
    pub fn put_off(&mut self, chunk: ChunkId, now: i64) {
        if let Some(row) = self.rows.get(&chunk).copied() {
            self.put(chunk, Row { at: now, ..row });
        }
    }

    /// The replica is no longer there, or no longer sealed.
    pub fn remove(&mut self, chunk: ChunkId) {
        if let Some(row) = self.rows.remove(&chunk) {
            self.bytes -= row.bytes;
            self.order.remove(&(row.at, chunk));
        }
        self.unsaved.remove(&chunk);
    }

    /// Whether the replica is in the schedule.
    #[must_use]
    pub fn contains(&self, chunk: ChunkId) -> bool {
        self.rows.contains_key(&chunk)
    }

    /// The replica to be read next.
    #[must_use]
    pub fn oldest(&self) -> Option<ChunkId> {
        self.order.first().map(|(_, chunk)| *chunk)
    }

    /// When a replica was last verified, in wall-clock milliseconds; 0 for never, `None` for one that is not sealed here.
    #[must_use]
    pub fn last_verified(&self, chunk: ChunkId) -> Option<u64> {
        self.rows.get(&chunk).map(|row| row.stamp)
    }

    /// The stamp of the one that was verified longest ago, in wall-clock milliseconds; 0 when one never was, or none is
    /// here.
    #[must_use]
    pub fn oldest_stamp(&self) -> u64 {
        self.oldest().and_then(|chunk| self.last_verified(chunk)).unwrap_or(0)
    }

    /// The time from the beginning of one replica's reading to that of the next, when the first has `bytes`.
    #[must_use]
    pub fn turn(&self, bytes: u64, pace: &Pace, now: i64) -> Duration {
        let round = pace.period.as_secs_f64() * ROUND_PERCENT as f64 / 100.0;
        let needed = self.bytes as f64 / round.max(f64::MIN_POSITIVE);
        let period = i64::try_from(pace.period.as_millis()).unwrap_or(i64::MAX);
        let late = self.order.first().is_some_and(|(at, _)| now.saturating_sub(*at) >= period && *at != i64::MIN);
        let rate = if late { pace.rate as f64 } else { needed.min(pace.rate as f64) };
        Duration::try_from_secs_f64(bytes as f64 / rate.max(f64::MIN_POSITIVE)).unwrap_or(pace.period).min(pace.period)
    }

    /// How many stamps are not in the index yet.
    #[must_use]
    pub fn unsaved(&self) -> usize {
        self.unsaved.len()
    }

    /// Takes the stamps that are to be written into the index.
    pub fn take_unsaved(&mut self) -> BTreeMap<ChunkId, u64> {
        std::mem::take(&mut self.unsaved)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: i64 = 86_400_000;
    const PACE: Pace = Pace { period: Duration::from_secs(14 * 86_400), rate: 32 << 20 };

    #[test]
    fn the_one_verified_longest_ago_comes_first_and_the_never_verified_before_it() {
        let mut schedule = Schedule::default();
        schedule.found(ChunkId(1), 10, Some(5_000), 0, 9_000);
        schedule.found(ChunkId(2), 10, Some(1_000), 0, 9_000);
        schedule.found(ChunkId(3), 10, None, 0, 9_000);
        assert_eq!((schedule.oldest(), schedule.oldest_stamp()), (Some(ChunkId(3)), 0));
        schedule.verified(ChunkId(3), 10, 50, 9_050);
        assert_eq!((schedule.oldest(), schedule.oldest_stamp()), (Some(ChunkId(2)), 1_000));
        schedule.put_off(ChunkId(2), 60);
        assert_eq!(schedule.oldest(), Some(ChunkId(1)));
        assert_eq!(schedule.last_verified(ChunkId(2)), Some(1_000), "it was not verified");
        schedule.remove(ChunkId(1));
        schedule.remove(ChunkId(1));
        assert_eq!((schedule.oldest(), schedule.last_verified(ChunkId(1))), (Some(ChunkId(3)), None));
    }

    #[test]
    fn s10_a_stamp_in_the_future_counts_as_never() {
        let mut schedule = Schedule::default();
        schedule.found(ChunkId(1), 10, Some(9_001), 0, 9_000);
        schedule.found(ChunkId(2), 10, Some(1), 0, 9_000);
        assert_eq!(schedule.oldest(), Some(ChunkId(1)));
        assert_eq!(schedule.last_verified(ChunkId(1)), Some(0));
        // The wall clock goes back while it runs: the order does not.
        schedule.verified(ChunkId(1), 10, 100, 5);
        schedule.verified(ChunkId(2), 10, 200, 3);
        assert_eq!(schedule.oldest(), Some(ChunkId(1)));
    }

    #[test]
    fn stamps_are_handed_over_once() {
        let mut schedule = Schedule::default();
        schedule.verified(ChunkId(1), 10, 1, 7);
        schedule.verified(ChunkId(2), 10, 1, 7);
        schedule.remove(ChunkId(2));
        assert_eq!(schedule.take_unsaved(), BTreeMap::from([(ChunkId(1), 7)]));
        assert_eq!(schedule.unsaved(), 0);
    }

    #[test]
    fn clients_come_first_and_scrubbing_goes_on() {
        assert!(PACE.reading(true) < PACE.reading(false) && PACE.reading(true) > 0);
        assert_eq!(Pace { rate: 1, ..PACE }.reading(true), 1);
    }

    #[test]
    fn what_is_late_is_read_as_fast_as_allowed() {
        let mut schedule = Schedule::default();
        schedule.found(ChunkId(1), 64 << 20, Some(0), 0, 1);
        assert!(schedule.turn(64 << 20, &PACE, 0) > Duration::from_secs(86_400));
        assert_eq!(schedule.turn(64 << 20, &PACE, 15 * DAY), Duration::from_secs(2));
    }

    proptest! {
        #[test]
        fn a_round_fits_into_the_period_wherever_the_rate_allows(
            sizes in proptest::collection::vec(1u64..64 << 20, 1..200),
            period_s in 3600u64..30 * 86_400,
        ) {
            let pace = Pace { period: Duration::from_secs(period_s), rate: 32 << 20 };
            let mut schedule = Schedule::default();
            for (chunk, bytes) in (0..).zip(&sizes) {
                schedule.verified(ChunkId(chunk), *bytes, 0, 0);
            }
            // Reading begins one turn after the other; everything came at the same moment.
            let mut now = Duration::ZERO;
            for _ in &sizes {
                let chunk = schedule.oldest().unwrap();
                let bytes = sizes[chunk.0 as usize];
                let ms = now.as_millis() as i64;
                let turn = schedule.turn(bytes, &pace, ms);
                prop_assert!(turn.as_secs_f64() * pace.rate as f64 >= bytes as f64 * 0.999, "over the rate");
                schedule.verified(chunk, bytes, ms.max(1), 1);
                now += turn;
            }
            let total: u64 = sizes.iter().sum();
            let least = total as f64 / pace.rate as f64;
            prop_assert!(now.as_secs_f64() <= (period_s as f64 * 0.81).max(least * 1.01));
            prop_assert!(schedule.take_unsaved().len() == sizes.len());
        }
    }
}
