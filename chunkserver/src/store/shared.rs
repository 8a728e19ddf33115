//! What all operations of the store share: the replicas, the inventory, and the ways to change an index.

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::{Arc, Mutex},
};

use quarry_chunkserver_core::{
    Durability,
    inventory::Inventory,
    record::{Quarantine, ReplicaRecord},
};
use quarry_env::{KvError, SyncPoint, World};
use quarry_types::{ChunkId, ClusterId, ErrorCode, Leadership, Receipt, ReplicaState, ServerId};

use super::{
    StoreError,
    cache::FileCache,
    dir::{Dir, lock},
    index::Changes,
    replica::{Inner, Replica, item},
    sync_points,
};

/// Linux's number for "the device could not do it": a bad sector or a dying disk.
const EIO: i32 = 5;

pub(super) struct Shared {
    pub(super) world: World,
    pub(super) durability: Durability,
    pub(super) server: ServerId,
    pub(super) start_counter: u64,
    pub(super) dirs: Vec<Arc<Dir>>,
    /// A directory that this server once had is not here, or could not be read: it does not know what it held.
    pub(super) forgetful: bool,
    pub(super) state: Mutex<State>,
    pub(super) files: Mutex<FileCache>,
    /// Held while a leadership is persisted: they are adopted one after another.
    pub(super) adopting: Mutex<()>,
}

/// Changed only for moments: no I/O under this lock.
pub(super) struct State {
    pub(super) cluster: Option<ClusterId>,
    pub(super) leadership: Option<Leadership>,
    pub(super) replicas: BTreeMap<ChunkId, Arc<Replica>>,
    /// Whether each is durable already.
    pub(super) tombstones: BTreeMap<ChunkId, bool>,
    pub(super) watermark: ChunkId,
    pub(super) inventory: Inventory,
    /// Replicas that may have a writer.
    pub(super) open: u64,
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

    /// The directories in service.
    pub(super) fn working(&self) -> impl Iterator<Item = &Arc<Dir>> {
        self.dirs.iter().filter(|dir| dir.works())
    }

    /// Changes one index. When it fails nothing is known about what it holds, so that the directory goes out of service
    /// with all its chunks, and only with those.
    pub(super) fn write_index(&self, dir: &Arc<Dir>, changes: Changes, sync: SyncPoint) -> Result<(), StoreError> {
        dir.index()?.write(changes, sync).map_err(|error| {
            if matches!(error, KvError::Failed { .. } | KvError::Absent) {
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
            match self.write_index(dir, changes(), sync) {
                Ok(()) => result = Ok(()),
                Err(error) if result.is_err() => result = Err(error),
                Err(_) => {}
            }
        }
        result
    }

    pub(super) fn fail_dir(&self, dir: &Arc<Dir>, why: &str) {
        if !dir.fail(why) {
            return;
        }
        let mut state = lock(&self.state);
        let lost: Vec<_> =
            state.replicas.values().filter(|r| Arc::ptr_eq(&r.dir, dir)).map(|replica| replica.chunk).collect();
        for chunk in lost {
            state.inventory.remove(chunk);
        }
    }

    /// Shows a replica's present state in the inventory.
    pub(super) fn note(&self, replica: &Replica, record: &ReplicaRecord) {
        let mut state = lock(&self.state);
        if replica.dir.works() {
            state.inventory.put(item(replica.chunk, record));
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
        let file = replica.dir.file(replica.chunk);
        tracing::error!(chunk = %replica.chunk, file = %file.display(), why = why.reason(), detail, "a replica is quarantined");
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
        let path = replica.dir.file(replica.chunk);
        let lost = matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof)
            || error.raw_os_error() == Some(EIO);
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
