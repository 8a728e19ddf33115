//! The beginning of a replica.
//!
//! It is only in memory until its first bytes come. Of several packets, the record is durable before the file exists; a
//! chunk that comes whole, with its seal, has one record, written behind its file or together with its bytes. Either way no byte is acknowledged
//! before there is a record: a file without one is of a chunk of which this member acknowledged nothing, or that was
//! deleted, and a member that restarts knows of every chunk of which it did acknowledge a byte (S1).

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
        self.cluster()?;
        let dir = self.roomiest(chunk)?;
        // A chunk that breaks off after a few bytes costs the cluster more than another server does.
        let useful = DATA_OFFSET + limit.min(PACKET_BYTES);
        dir.take(&*self.world.disk, useful)?;
        dir.release(useful - DATA_OFFSET);
        let replica = Arc::new(Replica::new(chunk, dir, ReplicaRecord::open(), DATA_OFFSET));
        // Held from before anyone can find the replica: a fence waits until it can be written.
        let mut inner = lock(&replica.inner);
        if let Err(error) = self.admit(&replica) {
            replica.dir.release(DATA_OFFSET);
            return Err(error);
        }
        inner.live = Some(Live::new(limit));
        self.note(&replica, &inner.record);
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

    /// Gives a replica its record, and then its file, for bytes that come in more than one packet.
    pub(super) fn begin(&self, replica: &Replica, inner: &mut Inner) -> Result<(), StoreError> {
        let chunk = replica.chunk;
        let header = self.header(chunk)?;
        let changes = Changes::default().replica(chunk, &inner.record);
        if let Err(error) = self.write_index(&replica.dir, changes, sync_points::CREATE_RECORD) {
            // Not a byte was taken, so forgetting it is safe even if the record did get through.
            self.forget(replica, inner, &error);
            return Err(error);
        }
        let path = replica.dir.file(chunk);
        match ChunkFile::create(&*self.world.disk, &path, &header) {
            Ok(file) => {
                if let Some(live) = &mut inner.live {
                    live.file = Some(file);
                }
                Ok(())
            }
            Err(error) => {
                // The record stays, as a fenced replica of no bytes. Losing that is harmless: a restart makes the same of it.
                inner.record = inner.record.fenced(&ChunkSums::default(), true, false);
                inner.stopped = true;
                self.closed(inner);
                inner.settle_room(&replica.dir);
                self.note(replica, &inner.record);
                let changes = Changes::default().replica(chunk, &inner.record);
                if let Err(error) = self.write_index(&replica.dir, changes, sync_points::IN_ORDER) {
                    tracing::warn!(%chunk, %error, "an empty replica could not be recorded as fenced");
                }
                let error = StoreError::io(&path, "create", &error);
                tracing::warn!(%chunk, %error, "a replica could not begin");
                Err(error)
            }
        }
    }

    /// Gives a replica its file, with all that it will ever hold. The record follows with the seal.
    pub(super) fn begin_whole(
        &self,
        replica: &Replica,
        inner: &mut Inner,
        sums: ChunkSums,
        data: &[u8],
    ) -> Result<(), StoreError> {
        let (chunk, bytes) = (replica.chunk, sums.length());
        let header = self.header(chunk)?;
        replica.dir.take(&*self.world.disk, bytes)?;
        inner.room += bytes;
        let path = replica.dir.file(chunk);
        match ChunkFile::create_whole(&*self.world.disk, &path, &header, &sums, data) {
            Ok(file) => {
                if let Some(live) = &mut inner.live {
                    (live.file, live.sums, live.whole) = (Some(file), sums, true);
                }
                Ok(())
            }
            Err(error) => {
                let error = StoreError::io(&path, "create", &error);
                // What there is of it has no record, so the next start would remove it.
                drop(self.world.disk.remove_file(&path));
                self.forget(replica, inner, &error);
                Err(error)
            }
        }
    }

    pub(super) fn header(&self, chunk: ChunkId) -> Result<Header, StoreError> {
        Ok(Header { cluster: self.cluster()?, server: self.server, chunk })
    }

    /// Makes as if a replica that has no record had never been here.
    pub(super) fn forget(&self, replica: &Replica, inner: &mut Inner, why: &StoreError) {
        let chunk = replica.chunk;
        tracing::warn!(%chunk, error = %why, "a replica could not begin");
        inner.gone = true;
        self.closed(inner);
        replica.dir.release(inner.room);
        inner.room = 0;
        let mut state = lock(&self.state);
        state.replicas.remove(&chunk);
        state.inventory.remove(chunk);
    }
}
