//! Replicas that are sealed before they are durable, which only buffered durability allows, and their sync.
//!
//! A writer that does not wait for the disk should not have to share it with syncs of what it wrote a moment ago either. The
//! kernel writes back by itself what is older than half a minute, so a sync after that finds little left to do. Until then a
//! restart proves such a replica from its checksums, all of it, and one of which a power loss took something goes into
//! quarantine: it is repaired from another one.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use quarry_env::Instant;
use quarry_types::{ChunkId, ReplicaState};

use super::{
    Store, StoreError,
    dir::{Dir, lock},
    replica::Replica,
    shared::Shared,
    work,
};

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
/// Bytes that wait in one directory; past them a seal is synced before it is answered. A restart reads them all (S9).
const UNSYNCED_BYTES: u64 = 8 << 30;
/// The same for replicas.
const UNSYNCED_MAX: usize = 1 << 14;

/// Sealed replicas of one directory that are not durable yet, in the order in which they were sealed.
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

    pub(super) fn has_room(&self) -> bool {
        self.has_room_beside(0, 0)
    }

    /// The same when so many, of so many bytes, are about to be added.
    pub(super) fn has_room_beside(&self, more: usize, bytes: u64) -> bool {
        self.bytes.saturating_add(bytes) < UNSYNCED_BYTES && self.waiting.len().saturating_add(more) < UNSYNCED_MAX
    }

    fn is_due(&self, now: Instant) -> bool {
        self.waiting.front().is_some_and(|first| now.since(first.since) >= SYNC_AFTER)
    }

    /// Takes out the first, if its time has come.
    fn take_due(&mut self, now: Instant) -> Option<ChunkId> {
        let first = if self.is_due(now) { self.waiting.pop_front() } else { None }?;
        self.bytes -= first.bytes;
        Some(first.chunk)
    }
}

impl Shared {
    /// A replica of so many bytes is sealed and not durable.
    pub(super) fn sync_later(&self, replica: &Replica, bytes: u64) {
        let now = self.world.clock.now();
        lock(&replica.dir.unsynced).push(now, replica.chunk, bytes);
    }

    /// Makes a sealed replica durable, if it is still here. One that could not be synced, and is not condemned for it, waits again.
    fn sync_sealed(&self, chunk: ChunkId) -> Result<(), StoreError> {
        let Ok(replica) = self.find(chunk) else { return Ok(()) };
        let mut inner = lock(&replica.inner);
        if inner.gone || inner.record.state != ReplicaState::Sealed {
            return Ok(());
        }
        let synced = self.stop(&replica, &mut inner, true);
        if synced.is_err() && inner.record.state == ReplicaState::Sealed {
            self.sync_later(&replica, inner.record.length);
        }
        synced
    }
}

/// The syncs that are due in one directory. While there is one of these for a directory, there is no other.
pub struct DueSyncs {
    shared: Arc<Shared>,
    dir: Arc<Dir>,
}

impl DueSyncs {
    /// Carries them out, one after the other.
    ///
    /// # Errors
    /// DiskFailed: the replica is in quarantine, or waits again. The others wait for the next time.
    pub async fn run(self) -> Result<(), StoreError> {
        loop {
            let now = self.shared.world.clock.now();
            let Some(chunk) = lock(&self.dir.unsynced).take_due(now) else { return Ok(()) };
            work(&self.shared, move |shared| shared.sync_sealed(chunk)).await?;
        }
    }
}

impl Drop for DueSyncs {
    fn drop(&mut self) {
        self.dir.syncing.store(false, Ordering::Release);
    }
}

impl Store {
    /// What was sealed without a sync and is to be made durable now, by directory: one that hangs holds up no other.
    #[must_use]
    pub fn due_syncs(&self) -> Vec<DueSyncs> {
        let now = self.0.world.clock.now();
        let due = self.0.working().filter(|dir| lock(&dir.unsynced).is_due(now));
        let free = due.filter(|dir| !dir.syncing.swap(true, Ordering::AcqRel));
        free.map(|dir| DueSyncs { shared: Arc::clone(&self.0), dir }).collect()
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
        assert!(unsynced.has_room());
        unsynced.push(at(30), ChunkId(3), UNSYNCED_BYTES);
        assert!(!unsynced.has_room(), "too many bytes");
        assert!(!Unsynced::default().has_room_beside(1, UNSYNCED_BYTES), "with those to come");
        assert!(!Unsynced::default().has_room_beside(UNSYNCED_MAX, 0));
        assert_eq!(unsynced.take_due(at(60)), Some(ChunkId(2)));
        assert_eq!(unsynced.take_due(at(60)), Some(ChunkId(3)));
        for n in 0..UNSYNCED_MAX as u64 {
            assert!(unsynced.has_room());
            unsynced.push(at(60), ChunkId(10 + n), 1);
        }
        assert!(!unsynced.has_room(), "too many replicas");
        while unsynced.take_due(at(90)).is_some() {}
        assert_eq!((unsynced.bytes, unsynced.has_room()), (0, true));
    }
}
