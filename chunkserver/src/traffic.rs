//! What clients and other chunkservers were served, and how fast lately.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use quarry_env::Instant;

/// Lately means the present span and the one before it.
const SPAN: Duration = Duration::from_secs(5);
/// Clients are being served for this long after the last byte.
const ACTIVE: Duration = Duration::from_millis(250);

/// Bytes and times since the server started. Relaxed: each figure is looked at on its own.
#[derive(Default)]
pub(crate) struct Traffic {
    pub(crate) reads: Served,
    pub(crate) writes: Served,
    pub(crate) copied_in: AtomicU64,
    pub(crate) copied_out: AtomicU64,
    /// Files of sealed replicas given out to clients on this machine.
    pub(crate) given_out: AtomicU64,
    /// Bytes that those clients say they read of them.
    pub(crate) local_reads: AtomicU64,
    pub(crate) beats: AtomicU64,
    /// Use of the machine's processors, in percent.
    pub(crate) cpu_percent: AtomicU32,
    lately: Mutex<Lately>,
}

/// One direction.
#[derive(Default)]
pub(crate) struct Served {
    bytes: AtomicU64,
    us: AtomicU64,
}

#[derive(Default)]
struct Lately {
    span: u128,
    /// Pieces and their microseconds: of the span before, and of this one.
    before: (u64, u64),
    now: (u64, u64),
    last: Option<Instant>,
}

impl Served {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn seconds(&self) -> f64 {
        Duration::from_micros(self.us.load(Ordering::Relaxed)).as_secs_f64()
    }
}

impl Lately {
    fn move_to(&mut self, now: Instant) {
        let span = now.0.as_millis() / SPAN.as_millis();
        match span.saturating_sub(self.span) {
            0 => return,
            1 => self.before = self.now,
            _ => self.before = (0, 0),
        }
        self.now = (0, 0);
        self.span = span;
    }
}

impl Traffic {
    fn lately(&self) -> std::sync::MutexGuard<'_, Lately> {
        self.lately.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A piece was read for a client, or written for one, from `began` to `now`.
    pub(crate) fn served(&self, which: &Served, bytes: u64, began: Instant, now: Instant) {
        let us = u64::try_from(now.since(began).as_micros()).unwrap_or(u64::MAX);
        which.bytes.fetch_add(bytes, Ordering::Relaxed);
        which.us.fetch_add(us, Ordering::Relaxed);
        let mut lately = self.lately();
        lately.move_to(now);
        lately.now = (lately.now.0 + 1, lately.now.1.saturating_add(us));
        lately.last = Some(now);
    }

    /// A piece was written for a client together with what ends its chunk. How long the piece alone took is not known.
    pub(crate) fn wrote_last(&self, bytes: u64, now: Instant) {
        self.writes.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.lately().last = Some(now);
    }

    /// A client on this machine says that it read so many bytes of files that were given out. How long it took is not known
    /// here, and nobody waited for this server.
    pub(crate) fn read_locally(&self, bytes: u64, now: Instant) {
        self.local_reads.fetch_add(bytes, Ordering::Relaxed);
        self.lately().last = Some(now);
    }

    /// Bytes that this machine's disks were asked for by clients: a disk is as busy whoever reads.
    pub(crate) fn read_bytes(&self) -> u64 {
        self.reads.bytes().saturating_add(self.local_reads.load(Ordering::Relaxed))
    }

    /// Mean time in which a piece was served lately, in microseconds; 0 when there was none.
    pub(crate) fn latency_us(&self, now: Instant) -> u64 {
        let mut lately = self.lately();
        lately.move_to(now);
        let (pieces, us) = (lately.now.0 + lately.before.0, lately.now.1.saturating_add(lately.before.1));
        us.checked_div(pieces).unwrap_or(0)
    }

    /// Whether clients are being served.
    pub(crate) fn active(&self, now: Instant) -> bool {
        self.lately().last.is_some_and(|last| now.since(last) < ACTIVE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant(Duration::from_millis(ms))
    }

    #[test]
    fn the_mean_time_is_that_of_lately() {
        let traffic = Traffic::default();
        assert_eq!((traffic.latency_us(at(0)), traffic.active(at(0))), (0, false));
        traffic.served(&traffic.reads, 100, at(1000), at(1010));
        traffic.served(&traffic.writes, 10, at(1000), at(1030));
        assert_eq!((traffic.reads.bytes(), traffic.latency_us(at(1030))), (100, 20_000));
        assert!(traffic.active(at(1200)) && !traffic.active(at(1300)));
        assert_eq!(traffic.latency_us(at(6000)), 20_000, "still of the span before");
        assert_eq!(traffic.latency_us(at(11_000)), 0);
        assert!((traffic.writes.seconds() - 0.03).abs() < 1e-9);
    }

    #[test]
    fn what_clients_read_by_themselves_counts_as_load_and_not_as_served() {
        let traffic = Traffic::default();
        traffic.served(&traffic.reads, 100, at(0), at(10));
        traffic.read_locally(1000, at(5000));
        assert_eq!((traffic.reads.bytes(), traffic.read_bytes()), (100, 1100));
        assert!(traffic.active(at(5100)));
        assert_eq!(traffic.latency_us(at(5100)), 10_000, "nobody waited");
    }
}
