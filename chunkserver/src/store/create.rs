//! The beginning of a replica.
//!
//! The record is durable before the file exists. So a file without a record is one whose record was deleted, and a
//! member that restarts knows of every chunk it ever took part in (S1).

use std::sync::Arc;

use quarry_chunkserver_core::{
    layout::{DATA_OFFSET, Header},
    record::ReplicaRecord,
};
use quarry_types::{
    ChunkId, ChunkSums, ErrorCode,
    limits::{CHUNK_BYTES, PACKET_BYTES},
};

use super::{
    StoreError,
    config::OPEN_REPLICAS_MAX,
    dir::{Dir, lock},
    file::ChunkFile,
    index::Changes,
    replica::{Inner, Live, Replica},
    shared::Shared,
    sync_points,
};

impl Shared {
    pub(super) fn create(&self, chunk: ChunkId, limit: u64) -> Result<Arc<Replica>, StoreError> {
        if limit == 0 || limit > CHUNK_BYTES {
            return Err(StoreError::new(
                ErrorCode::InvalidArgument,
                format!("chunk {chunk}: a limit of {limit} bytes is not in 1..={CHUNK_BYTES}"),
            ));
        }
        let cluster = self.cluster()?;
        let dir = self.roomiest(chunk)?;
        // A chunk that breaks off after a few bytes costs the cluster more than another server does.
        let useful = DATA_OFFSET + limit.min(PACKET_BYTES);
        dir.take(&*self.world.disk, useful)?;
        dir.release(useful - DATA_OFFSET);
        let replica = Arc::new(Replica::new(chunk, dir, ReplicaRecord::open(), DATA_OFFSET));
        // Held from before anyone can find the replica: a fence waits until it exists or has failed.
        let mut inner = lock(&replica.inner);
        if let Err(error) = self.admit(&replica) {
            replica.dir.release(DATA_OFFSET);
            return Err(error);
        }
        match self.begin(&replica, &mut inner, limit, Header { cluster, server: self.server, chunk }) {
            Ok(()) => self.note(&replica, &inner.record),
            Err(error) => {
                tracing::warn!(%chunk, %error, "a replica could not begin");
                return Err(error);
            }
        }
        drop(inner);
        Ok(replica)
    }

    /// The directory in service with the most room; a slow one only where no other has room for a chunk.
    pub(super) fn roomiest(&self, chunk: ChunkId) -> Result<Arc<Dir>, StoreError> {
        let disk = &*self.world.disk;
        let worth = |dir: &Arc<Dir>| {
            let status = dir.status(disk);
            (!status.slow && status.available_bytes >= CHUNK_BYTES, status.available_bytes)
        };
        self.working().max_by_key(worth).ok_or_else(|| {
            StoreError::new(ErrorCode::DiskFailed, format!("chunk {chunk}: no data directory is in service"))
        })
    }

    /// Makes the replica known, unless the chunk is refused here.
    fn admit(&self, replica: &Arc<Replica>) -> Result<(), StoreError> {
        let chunk = replica.chunk;
        let mut state = lock(&self.state);
        if chunk < state.watermark {
            return Err(StoreError::fenced(chunk, "the master has closed all chunks up to it"));
        }
        if state.tombstones.contains_key(&chunk) {
            return Err(StoreError::fenced(chunk, "it was fenced or deleted before it came here"));
        }
        if state.replicas.contains_key(&chunk) {
            return Err(StoreError::fenced(chunk, "this server has a replica of it already"));
        }
        if state.open >= OPEN_REPLICAS_MAX {
            return Err(StoreError::new(
                ErrorCode::Busy,
                format!("chunk {chunk}: {OPEN_REPLICAS_MAX} chunks are being written here; try again later"),
            ));
        }
        state.replicas.insert(chunk, Arc::clone(replica));
        state.open += 1;
        Ok(())
    }

    fn begin(&self, replica: &Replica, inner: &mut Inner, limit: u64, header: Header) -> Result<(), StoreError> {
        let chunk = replica.chunk;
        let changes = Changes::default().replica(chunk, &inner.record);
        if let Err(error) = self.write_index(&replica.dir, changes, sync_points::CREATE_RECORD) {
            // Not a byte was taken, so forgetting it is safe even if the record did get through.
            inner.gone = true;
            replica.dir.release(inner.room);
            let mut state = lock(&self.state);
            state.replicas.remove(&chunk);
            state.open = state.open.saturating_sub(1);
            return Err(error);
        }
        let path = replica.dir.file(chunk);
        match ChunkFile::create(&*self.world.disk, &path, &header) {
            Ok(file) => {
                inner.live =
                    Some(Live { file, sums: ChunkSums::default(), limit, named: false, begun: 0, broken: None });
                Ok(())
            }
            Err(error) => {
                // The record stays, as a fenced replica of no bytes. Losing that is harmless: a restart makes the same of it.
                inner.record = inner.record.fenced(&ChunkSums::default(), true, false);
                inner.settle_room(&replica.dir);
                {
                    let mut state = lock(&self.state);
                    state.open = state.open.saturating_sub(1);
                }
                self.note(replica, &inner.record);
                let changes = Changes::default().replica(chunk, &inner.record);
                if let Err(error) = self.write_index(&replica.dir, changes, sync_points::IN_ORDER) {
                    tracing::warn!(%chunk, %error, "an empty replica could not be recorded as fenced");
                }
                Err(StoreError::io(&path, "create", &error))
            }
        }
    }
}
