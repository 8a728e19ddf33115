//! Deleting (S6) and dropping surplus (S7): the tombstone first, then the file.
//!
//! Both happen only while the leader that ordered them is followed: a newer one counts as remaining what a report made
//! after its adoption shows, and nothing that was ordered before may remove that any more.

use std::{collections::BTreeSet, sync::Arc};

use quarry_chunkserver_core::record::ReplicaRecord;
use quarry_types::{ChunkId, Crc32, ErrorCode, Leadership, ReplicaState, planted};

use super::{
    StoreError,
    dir::lock,
    fence::room_for_tombstone,
    index::Changes,
    replica::{Inner, Replica},
    shared::Shared,
    sync_points,
};

impl Shared {
    pub(super) fn delete(&self, by: Leadership, chunk: ChunkId) -> Result<(), StoreError> {
        let _following = self.while_following(by)?;
        while let Some(replica) = self.find_or_bury(chunk)? {
            let mut inner = lock(&replica.inner);
            if inner.gone {
                continue;
            }
            return self.remove(&replica, &mut inner);
        }
        // A copy that is on its way ends here; one that is ordered later is not stopped by the tombstone.
        self.end_copy_of(chunk);
        self.persist_tombstone(chunk)
    }

    /// Removes the replica if it is exactly this, sealed or too short for its chunk; one in quarantine is named by no bytes.
    pub(super) fn drop_surplus(
        &self,
        by: Leadership,
        chunk: ChunkId,
        length: u64,
        crc: Crc32,
    ) -> Result<(), StoreError> {
        let _following = self.while_following(by)?;
        // It may have been dropped before, and told so to nobody.
        let Ok(replica) = self.find(chunk) else { return Ok(()) };
        let mut inner = lock(&replica.inner);
        if inner.gone {
            return Ok(());
        }
        let record = inner.record;
        let named = match record.state {
            ReplicaState::Sealed | ReplicaState::Fenced => (record.length, record.crc) == (length, crc),
            ReplicaState::Quarantined => (length, crc) == (0, Crc32::EMPTY),
            ReplicaState::Open => false,
        };
        if !named {
            return Err(StoreError::new(
                ErrorCode::Mismatch,
                format!(
                    "chunk {chunk}: a replica of {length} bytes with CRC {crc} was to be dropped, this one is {:?} with \
                     {} bytes, CRC {}; it stays",
                    record.state, record.length, record.crc
                ),
            ));
        }
        self.remove(&replica, &mut inner)
    }

    fn remove(&self, replica: &Replica, inner: &mut Inner) -> Result<(), StoreError> {
        inner.stopped = true;
        let buried = self.needs_tombstone(replica.chunk, 0)?;
        let changes = removal(Changes::default(), replica.chunk, &inner.record, buried);
        self.write_index(&replica.dir, changes, sync_points::DELETE_RECORD)?;
        self.removed(replica, inner, buried);
        Ok(())
    }

    /// [`Shared::delete`] of replicas that nobody is at, with one sync for each directory: those that it was done for. The others
    /// are as they were.
    pub(super) fn delete_many(&self, by: Leadership, chunks: &[ChunkId]) -> Result<BTreeSet<ChunkId>, StoreError> {
        let _following = self.while_following(by)?;
        let mut done = BTreeSet::new();
        for of_dir in self.by_dir(chunks.iter().map(|chunk| (*chunk, ()))) {
            let Some((first, ())) = of_dir.first() else { continue };
            let dir = Arc::clone(&first.dir);
            let (mut changes, mut held) = (Changes::default(), Vec::new());
            for (replica, ()) in &of_dir {
                let Ok(inner) = replica.inner.try_lock() else { continue };
                if inner.gone {
                    continue;
                }
                // Where there is no room for a tombstone it is said of that chunk by itself.
                let Ok(buried) = self.needs_tombstone(replica.chunk, held.len()) else { continue };
                changes = removal(changes, replica.chunk, &inner.record, buried);
                held.push((replica, inner, buried));
            }
            if held.is_empty() {
                continue;
            }
            if let Err(error) = self.write_index(&dir, changes, sync_points::DELETE_RECORD) {
                tracing::warn!(dir = %dir.path.display(), %error, "deletions are not written down");
                continue;
            }
            for (replica, mut inner, buried) in held {
                self.removed(replica, &mut inner, buried);
                done.insert(replica.chunk);
            }
        }
        Ok(done)
    }

    /// Whether a chunk that is removed leaves a tombstone, for which there must be room beside so many others: what is below
    /// the watermark is refused without one.
    fn needs_tombstone(&self, chunk: ChunkId, beside: usize) -> Result<bool, StoreError> {
        let state = lock(&self.state);
        if chunk < state.watermark {
            return Ok(false);
        }
        room_for_tombstone(&state, chunk, beside)?;
        Ok(true)
    }

    /// The index says that the replica is gone.
    fn removed(&self, replica: &Replica, inner: &mut Inner, buried: bool) {
        let chunk = replica.chunk;
        inner.stopped = true;
        inner.gone = true;
        self.closed(inner);
        {
            let mut state = lock(&self.state);
            state.replicas.remove(&chunk);
            state.inventory.remove(chunk);
            state.schedule.remove(chunk);
            if buried {
                state.tombstones.insert(chunk, true);
            }
        }
        self.end_copy_of(chunk);
        lock(&self.files).evict(chunk);
        if inner.record.in_index {
            replica.dir.release(inner.room);
            return;
        }
        // Whoever reads it now goes on reading. If the name comes back after a power loss, nothing claims it any
        // more and the next start removes it.
        let path = replica.dir.file(chunk);
        match self.world.disk.remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(file = %path.display(), %error, "a deleted chunk's file stays until the next start");
            }
            _ => replica.dir.release(inner.room),
        }
    }

    fn end_copy_of(&self, chunk: ChunkId) {
        let copy = lock(&self.state).copies.get(&chunk).cloned();
        if let Some(copy) = copy {
            self.end_copy(&copy);
        }
    }

    pub(super) fn set_watermark(&self, watermark: ChunkId) -> Result<(), StoreError> {
        if watermark <= lock(&self.state).watermark {
            return Ok(());
        }
        // The watermark and the removal of tombstones are lost together or not at all.
        self.write_all(|| Changes::default().watermark(watermark), sync_points::IN_ORDER)?;
        let mut state = lock(&self.state);
        state.watermark = state.watermark.max(watermark);
        let from = state.watermark;
        state.tombstones = state.tombstones.split_off(&from);
        Ok(())
    }
}

/// `changes` with those that remove a replica.
fn removal(changes: Changes, chunk: ChunkId, record: &ReplicaRecord, buried: bool) -> Changes {
    let changes = changes.no_replica(chunk, record);
    if buried && !planted!("forget-tombstone") { changes.tombstone(chunk) } else { changes }
}
