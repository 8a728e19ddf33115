//! Deleting (S6): the tombstone first, then the file.

use quarry_types::ChunkId;

use super::{StoreError, dir::lock, fence::room_for_tombstone, index::Changes, shared::Shared, sync_points};

impl Shared {
    pub(super) fn delete(&self, chunk: ChunkId) -> Result<(), StoreError> {
        while let Some(replica) = self.find_or_bury(chunk)? {
            let mut inner = lock(&replica.inner);
            if inner.gone {
                continue;
            }
            inner.stopped = true;
            let mut changes = Changes::default().no_replica(chunk);
            let refused_anyway = {
                let state = lock(&self.state);
                let below = chunk < state.watermark;
                if !below {
                    room_for_tombstone(&state, chunk)?;
                }
                below
            };
            if !refused_anyway {
                changes = changes.tombstone(chunk);
            }
            self.write_index(&replica.dir, changes, sync_points::DELETE_RECORD)?;
            inner.gone = true;
            self.closed(&mut inner);
            {
                let mut state = lock(&self.state);
                state.replicas.remove(&chunk);
                state.inventory.remove(chunk);
                if !refused_anyway {
                    state.tombstones.insert(chunk, true);
                }
            }
            lock(&self.files).evict(chunk);
            // Whoever reads it now goes on reading. If the name comes back after a power loss, nothing claims it any
            // more and the next start removes it.
            let path = replica.dir.file(chunk);
            match self.world.disk.remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!(file = %path.display(), %error, "a deleted chunk's file stays until the next start");
                }
                _ => replica.dir.release(inner.room),
            }
            return Ok(());
        }
        self.persist_tombstone(chunk)
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
