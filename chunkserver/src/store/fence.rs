//! The end of writing: fences, and the tombstones of chunks that are not here (S5).

use std::sync::Arc;

use quarry_env::OpenMode;
use quarry_types::{ChunkId, Crc32, ErrorCode, Receipt, ReplicaState, planted};

use super::{
    StoreError,
    dir::lock,
    file::ChunkFile,
    index::Changes,
    replica::{Inner, Replica},
    shared::{Shared, State},
    sync_points,
    write::Wanted,
};

/// Tombstones kept; past them a fence of an unknown chunk and a delete are refused. The master's watermark removes them.
pub(super) const TOMBSTONES_MAX: usize = 1 << 20;

/// Whether one more tombstone may be kept, beside so many that are about to be (S9).
pub(super) fn room_for_tombstone(state: &State, chunk: ChunkId, beside: usize) -> Result<(), StoreError> {
    if state.tombstones.len().saturating_add(beside) < TOMBSTONES_MAX {
        return Ok(());
    }
    Err(StoreError::new(
        ErrorCode::Busy,
        format!("chunk {chunk}: {TOMBSTONES_MAX} tombstones are kept until the master's watermark moves; try later"),
    ))
}

impl Shared {
    pub(super) fn fence(&self, chunk: ChunkId) -> Result<Receipt, StoreError> {
        while let Some(replica) = self.find_or_bury(chunk)? {
            let mut inner = lock(&replica.inner);
            if inner.gone {
                // It went while we waited; the next round finds what it left.
                continue;
            }
            inner.stopped = true;
            replica.dir.index()?;
            self.stop(&replica, &mut inner, true)?;
            return self.receipt(&replica, &inner);
        }
        self.persist_tombstone(chunk)?;
        if self.forgetful() {
            // "Never seen, length 0" would cut the chunk to nothing (S1), and here it may not be true.
            return Err(StoreError::new(
                ErrorCode::DiskFailed,
                format!(
                    "chunk {chunk}: not here now, but a data directory of this server is missing or failed and may have \
                     held it; bring that directory back"
                ),
            ));
        }
        Ok(Receipt {
            cluster: self.cluster()?,
            server: self.server,
            chunk,
            length: 0,
            crc: Crc32::EMPTY,
            durable: true,
            restarted: false,
        })
    }

    /// The replica; without one the chunk is refused from this moment on.
    pub(super) fn find_or_bury(&self, chunk: ChunkId) -> Result<Option<Arc<Replica>>, StoreError> {
        let mut state = lock(&self.state);
        if let Some(replica) = state.replicas.get(&chunk) {
            return Ok(Some(Arc::clone(replica)));
        }
        if chunk >= state.watermark && !state.tombstones.contains_key(&chunk) {
            room_for_tombstone(&state, chunk, 0)?;
            state.tombstones.insert(chunk, false);
        }
        Ok(None)
    }

    /// Makes the tombstone that [`Shared::find_or_bury`] left durable, in every directory: while one of them works the
    /// chunk is refused.
    pub(super) fn persist_tombstone(&self, chunk: ChunkId) -> Result<(), StoreError> {
        if lock(&self.state).tombstones.get(&chunk) != Some(&false) {
            return Ok(());
        }
        self.write_all(|| Changes::default().tombstone(chunk), sync_points::TOMBSTONE)?;
        if let Some(durable) = lock(&self.state).tombstones.get_mut(&chunk) {
            *durable = true;
        }
        Ok(())
    }

    /// Ends an open replica where it stands. With `durable` everything is on the disk on return, also of one that ended
    /// before without.
    pub(super) fn stop(&self, replica: &Replica, inner: &mut Inner, durable: bool) -> Result<(), StoreError> {
        match inner.record.state {
            ReplicaState::Open => self.stop_open(replica, inner, durable),
            ReplicaState::Fenced | ReplicaState::Sealed if durable && !inner.record.durable => {
                self.sync_settled(replica, inner)?;
                let record = inner.record.made_durable();
                let changes = Changes::default().replica(replica.chunk, &record);
                // Losing it is harmless: a start proves it all again.
                self.write_index(&replica.dir, changes, sync_points::IN_ORDER)?;
                inner.record = record;
                Ok(())
            }
            ReplicaState::Fenced | ReplicaState::Sealed => Ok(()),
            ReplicaState::Quarantined => Err(self.in_quarantine(replica, &inner.record)),
        }
    }

    fn stop_open(&self, replica: &Replica, inner: &mut Inner, durable: bool) -> Result<(), StoreError> {
        inner.stopped = true;
        let Some(live) = &inner.live else {
            return Err(StoreError::new(
                ErrorCode::Internal,
                format!("chunk {}: open without a writer", replica.chunk),
            ));
        };
        let sums = live.sums.clone();
        // An empty replica needs no file, so there is nothing to make durable but its record.
        let empty = sums.length() == 0;
        if !empty {
            if let Some(file) = live.file.as_ref().filter(|_| !live.whole) {
                file.settle(&sums).map_err(|e| StoreError::io(&replica.dir.file(replica.chunk), "write", &e))?;
            }
            if durable {
                self.sync_live(replica, inner, Wanted::Fence)?;
            }
        }
        let mut record = inner.record.fenced(&sums, durable || empty, false);
        if planted!("seal-before-commit") {
            record = record.sealed(record.length, record.crc, record.tail_crc);
        }
        let changes = Changes::default().replica(replica.chunk, &record);
        // With buffered durability a power loss may take it, and a restart then proves what is left; but not if it is the only
        // record that there is.
        let only = inner.live.as_ref().is_some_and(|live| live.whole);
        let point = if durable || only { sync_points::FENCE_RECORD } else { sync_points::IN_ORDER };
        self.write_index(&replica.dir, changes, point)?;
        inner.record = record;
        self.closed(inner);
        inner.settle_room(&replica.dir);
        self.note(replica, &inner.record);
        Ok(())
    }

    /// Makes a settled replica's file and name durable.
    pub(super) fn sync_settled(&self, replica: &Replica, inner: &mut Inner) -> Result<(), StoreError> {
        let path = replica.dir.file(replica.chunk);
        let shelf = replica.dir.shelf(replica.chunk);
        let file = match ChunkFile::open(&*self.world.disk, &path, OpenMode::Write) {
            Ok(file) => file,
            Err(error) => return Err(self.read_failed(replica, inner, &error)),
        };
        if let Err(error) = file.sync(sync_points::SETTLED_DATA) {
            return Err(self.sync_failed(replica, inner, &path, &error));
        }
        match self.world.disk.sync_dir(&shelf, sync_points::SETTLED_DIR) {
            Ok(()) => Ok(()),
            Err(error) => Err(self.sync_failed(replica, inner, &shelf, &error)),
        }
    }
}
