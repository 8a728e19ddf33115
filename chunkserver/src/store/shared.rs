//! What all operations of the store share: the replicas, the inventory, and the ways to change an index.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
    sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard},
};

use quarry_chunkserver_core::{
    Durability, disk_health,
    inventory::Inventory,
    record::{Quarantine, ReplicaRecord},
    scrub::Schedule,
};
use quarry_client::reused::Reused;
use quarry_env::{KvError, SyncPoint, World};
use quarry_types::{ChunkId, ClusterId, ErrorCode, Leadership, Receipt, ReplicaState, ServerId};
use tokio::sync::Notify;
use uuid::Uuid;

use super::{
    StoreError,
    cache::FileCache,
    copy::Receiving,
    dir::{Dir, lock},
    health::Roster,
    index::Changes,
    kept::KeptFiles,
    probe::Probes,
    replica::{Inner, Replica, item},
    sync_points,
};

pub(super) struct Shared {
    pub(super) world: World,
    pub(super) durability: Durability,
    /// Chunks of at most so many bytes that come whole are kept in the index.
    pub(super) index_bytes: u64,
    pub(super) server: ServerId,
    pub(super) start_counter: u64,
    pub(super) start_id: u64,
    /// Those of the settings, in the order of their paths. One that failed is replaced here when it comes back.
    pub(super) dirs: Mutex<Vec<Arc<Dir>>>,
    /// Directories under which this process saw a sync fail: what the kernel shows of them may not be on the disk.
    pub(super) poisoned: Mutex<BTreeSet<Uuid>>,
    /// Woken when a call to a disk failed in a way that ends a directory's service.
    pub(super) alarm: Arc<Notify>,
    pub(super) state: Mutex<State>,
    pub(super) files: Mutex<FileCache>,
    /// Held alone while a leadership is persisted, and shared while an order that holds only under the present one takes
    /// effect (S7). Taken before any replica's lock.
    pub(super) following: RwLock<()>,
    /// Files of replaced replicas.
    pub(super) kept: Mutex<KeptFiles>,
    pub(super) probes: Probes,
    /// What is read goes here.
    pub(super) memory: Arc<Reused>,
}

/// Changed only for moments: no I/O under this lock.
pub(super) struct State {
    pub(super) cluster: Option<ClusterId>,
    pub(super) leadership: Option<Leadership>,
    pub(super) replicas: BTreeMap<ChunkId, Arc<Replica>>,
    /// Copies on their way here. One that is not named here has ended.
    pub(super) copies: BTreeMap<ChunkId, Arc<Receiving>>,
    /// Whether each is durable already.
    pub(super) tombstones: BTreeMap<ChunkId, bool>,
    pub(super) watermark: ChunkId,
    pub(super) inventory: Inventory,
    /// Replicas that may have a writer.
    pub(super) open: u64,
    /// All directories that this server has ever had, as far as it knows, and what is known of those that are lost.
    pub(super) roster: Roster,
    /// When the sealed replicas were verified.
    pub(super) schedule: Schedule,
    /// Bytes that scrubbing has read.
    pub(super) scrubbed: u64,
}

impl Shared {
    pub(super) fn cluster(&self) -> Result<ClusterId, StoreError> {
        lock(&self.state).cluster.ok_or_else(|| {
            StoreError::new(ErrorCode::Unavailable, "this chunkserver has not met its master yet; try again")
        })
    }

    pub(super) fn find(&self, chunk: ChunkId) -> Result<Arc<Replica>, StoreError> {
        lock(&self.state).replicas.get(&chunk).cloned().ok_or_else(|| StoreError::no_replica(chunk))
    }

    /// Keeps the present leader while the guard is held, if it is `by`: nothing that an older leader ordered happens
    /// after a newer one was adopted, so that a report made then shows all that it did (S7).
    pub(super) fn while_following(&self, by: Leadership) -> Result<RwLockReadGuard<'_, ()>, StoreError> {
        let guard = self.following.read().unwrap_or_else(PoisonError::into_inner);
        let followed = lock(&self.state).leadership;
        if followed == Some(by) {
            return Ok(guard);
        }
        let followed = followed.map_or("no master yet".to_owned(), |l| format!("epoch {}", l.epoch));
        Err(StoreError::new(
            ErrorCode::StaleLeader,
            format!("the order is of epoch {}, this chunkserver follows {followed}: nothing was done", by.epoch),
        ))
    }

    /// All directories of the settings.
    pub(super) fn dirs(&self) -> Vec<Arc<Dir>> {
        lock(&self.dirs).clone()
    }

    /// The directories in service.
    pub(super) fn working(&self) -> impl Iterator<Item = Arc<Dir>> {
        self.dirs().into_iter().filter(|dir| dir.works())
    }

    /// Changes one index. When it fails nothing is known about what it holds, so that the directory goes out of service
    /// with all its chunks, and only with those.
    pub(super) fn write_index(&self, dir: &Arc<Dir>, changes: Changes, sync: SyncPoint) -> Result<(), StoreError> {
        dir.index()?.write(changes, sync).map_err(|error| {
            if matches!(error, KvError::Failed { .. } | KvError::Damaged { .. } | KvError::Absent) {
                self.fail_dir(dir, &error.to_string());
            }
            error.into()
        })
    }

    /// Changes the indexes of all directories in service; one success is enough.
    pub(super) fn write_all(&self, changes: impl Fn() -> Changes, sync: SyncPoint) -> Result<(), StoreError> {
        let mut result = Err(StoreError::new(
            ErrorCode::DiskFailed,
            "no data directory of this chunkserver is in service; check its disks, then restart it",
        ));
        for dir in self.working() {
            match self.write_index(&dir, changes(), sync) {
                Ok(()) => result = Ok(()),
                Err(error) if result.is_err() => result = Err(error),
                Err(_) => {}
            }
        }
        result
    }

    /// Shows a replica's present state in the inventory.
    pub(super) fn note(&self, replica: &Replica, record: &ReplicaRecord) {
        let mut state = lock(&self.state);
        if !replica.dir.works() {
            return;
        }
        state.inventory.put(item(replica.chunk, record));
        let (chunk, sealed) = (replica.chunk, record.state == ReplicaState::Sealed && record.length > 0);
        match (sealed, state.schedule.contains(chunk)) {
            // Whoever seals it has just compared it with its checksums.
            (true, false) => {
                let (now, wall) = (self.now_ms(), self.world.clock.wall_ms());
                state.schedule.verified(chunk, record.length, now, wall);
            }
            (false, true) => state.schedule.remove(chunk),
            _ => {}
        }
    }

    /// The replica stopped being open.
    pub(super) fn closed(&self, inner: &mut Inner) {
        if inner.live.take().is_some() {
            let mut state = lock(&self.state);
            state.open = state.open.saturating_sub(1);
        }
    }

    pub(super) fn receipt(&self, replica: &Replica, inner: &Inner) -> Result<Receipt, StoreError> {
        if replica.is_quarantined() {
            return Err(self.in_quarantine(replica, &inner.record));
        }
        let cluster = self.cluster()?;
        inner.record.receipt(cluster, self.server, replica.chunk).ok_or_else(|| {
            StoreError::new(ErrorCode::Internal, format!("chunk {}: it is open and has no receipt", replica.chunk))
        })
    }

    pub(super) fn in_quarantine(&self, replica: &Replica, record: &ReplicaRecord) -> StoreError {
        let why = record.quarantine.map_or("it failed a check", Quarantine::reason);
        StoreError::new(
            ErrorCode::Corrupt,
            format!("chunk {}: the replica on this server is in quarantine: {why}; use another one", replica.chunk),
        )
    }

    /// Takes a replica out of use for good: it is kept for people to look at, counted, never served (S2). Returns what
    /// to tell the caller.
    pub(super) fn quarantine(&self, replica: &Replica, inner: &mut Inner, why: Quarantine, detail: &str) -> StoreError {
        replica.set_quarantined();
        inner.record = inner.record.quarantined(why);
        inner.stopped = true;
        self.closed(inner);
        lock(&self.files).evict(replica.chunk);
        let place = replica.place(&inner.record);
        tracing::error!(chunk = %replica.chunk, place = %place.display(), why = why.reason(), detail, "a replica is quarantined");
        self.note(replica, &inner.record);
        let changes = Changes::default().replica(replica.chunk, &inner.record);
        if let Err(error) = self.write_index(&replica.dir, changes, sync_points::QUARANTINE) {
            tracing::error!(chunk = %replica.chunk, %error, "the quarantine could not be recorded");
        }
        self.in_quarantine(replica, &inner.record)
    }

    /// An error of a read of a settled replica. A file that is gone, short or unreadable condemns the replica; anything
    /// else (no more file handles, say) says nothing about it.
    pub(super) fn read_failed(&self, replica: &Replica, inner: &mut Inner, error: &io::Error) -> StoreError {
        let path = replica.place(&inner.record);
        // With the whole directory gone, nothing is known about this file.
        let lost = disk_health::file_is_lost(error)
            && replica.dir.works()
            && (error.kind() != io::ErrorKind::NotFound || self.is_there(&replica.dir));
        if lost && !inner.gone && inner.record.state != ReplicaState::Quarantined {
            return self.quarantine(replica, inner, Quarantine::Missing, &error.to_string());
        }
        StoreError::io(&path, "read", error)
    }

    /// A sync failed: what the disk has is unknown, and a later sync that succeeds would prove nothing (the kernel drops
    /// what it could not write). The replica is out for good.
    pub(super) fn sync_failed(
        &self,
        replica: &Replica,
        inner: &mut Inner,
        path: &Path,
        error: &io::Error,
    ) -> StoreError {
        let quarantined = self.quarantine(replica, inner, Quarantine::SyncFailed, &error.to_string());
        let cause = StoreError::io(path, "sync", error);
        StoreError::new(ErrorCode::DiskFailed, format!("{quarantined} ({cause})"))
    }
}
