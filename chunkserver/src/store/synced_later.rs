//! Replicas that are sealed before they are durable, which only buffered durability allows, and their sync.
//!
//! A writer that does not wait for the disk should not have to share it with syncs of what it wrote a moment ago either. The
//! kernel writes back by itself what is older than half a minute, so a sync after that finds little left to do. Until then a
//! restart proves such a replica from its checksums, all of it, and one of which a power loss took something goes into
//! quarantine: it is repaired from another one.

use std::{collections::VecDeque, time::Duration};

use quarry_env::Instant;
use quarry_types::{ChunkId, ReplicaState};

use super::{StoreError, dir::lock, shared::Shared};

/// When the committed seal makes a replica durable that its writer sealed without a sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SyncWhen {
    /// Before the seal is answered.
    Now,
    /// When its time has come.
    Later,
}

/// A replica is synced so long after it was sealed: the default of Linux's `vm.dirty_expire_centisecs`.
pub(super) const SYNC_AFTER: Duration = Duration::from_secs(30);
/// Past so many bytes that wait, the first are synced at once: a restart reads them all (S9).
const UNSYNCED_BYTES: u64 = 16 << 30;
/// The same for replicas.
const UNSYNCED_MAX: usize = 1 << 16;

/// Sealed replicas that are not durable yet, in the order in which they were sealed.
#[derive(Default)]
pub(super) struct Unsynced {
    waiting: VecDeque<Waiting>,
    bytes: u64,
}

struct Waiting {
    since: Instant,
    chunk: ChunkId,
    bytes: u64,
}

impl Unsynced {
    fn push(&mut self, since: Instant, chunk: ChunkId, bytes: u64) {
        self.waiting.push_back(Waiting { since, chunk, bytes });
        self.bytes += bytes;
    }

    /// Takes out the first, if its time has come or too much waits.
    fn take_due(&mut self, now: Instant) -> Option<ChunkId> {
        let first = self.waiting.front()?;
        let too_much = self.bytes > UNSYNCED_BYTES || self.waiting.len() > UNSYNCED_MAX;
        if !too_much && now.since(first.since) < SYNC_AFTER {
            return None;
        }
        self.bytes -= first.bytes;
        self.waiting.pop_front().map(|first| first.chunk)
    }
}

impl Shared {
    /// `chunk`, of so many bytes, is sealed and not durable.
    pub(super) fn sync_later(&self, chunk: ChunkId, bytes: u64) {
        let now = self.world.clock.now();
        lock(&self.state).unsynced.push(now, chunk, bytes);
    }

    /// The replica whose sync is due.
    pub(super) fn next_to_sync(&self) -> Option<ChunkId> {
        let now = self.world.clock.now();
        lock(&self.state).unsynced.take_due(now)
    }

    /// Makes a sealed replica durable, if it is still here.
    pub(super) fn sync_sealed(&self, chunk: ChunkId) -> Result<(), StoreError> {
        let Ok(replica) = self.find(chunk) else { return Ok(()) };
        let mut inner = lock(&replica.inner);
        if inner.gone || inner.record.state != ReplicaState::Sealed {
            return Ok(());
        }
        self.stop(&replica, &mut inner, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s9_what_is_not_synced_waits_its_time_and_is_bounded() {
        let at = |seconds| Instant(Duration::from_secs(seconds));
        let mut unsynced = Unsynced::default();
        assert_eq!(unsynced.take_due(at(100)), None);
        unsynced.push(at(0), ChunkId(1), 5);
        unsynced.push(at(10), ChunkId(2), 5);
        assert_eq!(unsynced.take_due(at(29)), None);
        assert_eq!(unsynced.take_due(at(30)), Some(ChunkId(1)));
        assert_eq!(unsynced.take_due(at(30)), None);
        unsynced.push(at(30), ChunkId(3), UNSYNCED_BYTES);
        assert_eq!(unsynced.take_due(at(30)), Some(ChunkId(2)), "too many bytes");
        assert_eq!(unsynced.take_due(at(30)), None);
        for n in 0..UNSYNCED_MAX as u64 {
            unsynced.push(at(30), ChunkId(10 + n), 0);
        }
        assert_eq!(unsynced.take_due(at(30)), Some(ChunkId(3)), "too many replicas");
        assert_eq!(unsynced.take_due(at(30)), None);
    }
}
