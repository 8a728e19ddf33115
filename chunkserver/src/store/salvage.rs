//! Reading what can be read of a replica in quarantine, for a copy that finds no whole one.
//!
//! Nothing here is verified but whose file it is: the reader has the block CRCs and the seal, and takes only what they
//! vouch for (S3). It is never served as the replica (S2).

use std::sync::Arc;

use bytes::Bytes;
use quarry_chunkserver_core::layout::blocks;
use quarry_types::{
    ChunkId, Crc32, ErrorCode, ReplicaState,
    limits::{BLOCK_BYTES, PACKET_BYTES},
};

use super::{StoreError, dir::lock, file::ChunkFile, shared::Shared, work};

/// The file of a replica in quarantine.
#[derive(Clone)]
pub(super) struct Wreck {
    file: ChunkFile,
    slots: Arc<[Crc32]>,
    /// As far as file and chunk go.
    length: u64,
}

/// Consecutive blocks: where they begin, their bytes, their slots.
pub type Run = (u64, Bytes, Vec<Crc32>);

impl Shared {
    /// The file of a replica in quarantine, for a chunk of `length` bytes.
    pub(super) fn open_wreck(&self, chunk: ChunkId, length: u64) -> Result<Wreck, StoreError> {
        let replica = self.find(chunk)?;
        let inner = lock(&replica.inner);
        if inner.gone || inner.record.state != ReplicaState::Quarantined {
            let message = format!("chunk {chunk}: the replica on this server is not in quarantine; read it as it is");
            return Err(StoreError::new(ErrorCode::Mismatch, message));
        }
        replica.dir.index()?;
        let open = || {
            let file = self.open_body(&replica, inner.record.in_index)?;
            Ok((file.head()?, file.data_bytes()?, file))
        };
        let unreadable = |why: &dyn std::fmt::Display| {
            StoreError::new(ErrorCode::Corrupt, format!("chunk {chunk}: nothing can be salvaged on this server: {why}"))
        };
        let (head, bytes, file) = open().map_err(|e: std::io::Error| unreadable(&e))?;
        let header = head.header.map_err(|e| unreadable(&e))?;
        if (header.cluster, header.chunk) != (self.cluster()?, chunk) {
            return Err(unreadable(&format!("its header names chunk {} of cluster {}", header.chunk, header.cluster)));
        }
        Ok(Wreck { file, slots: head.slots.into(), length: length.min(bytes) })
    }
}

impl Wreck {
    /// The blocks from `offset` that can be read, at most a packet of them. A whole run in the best case.
    pub(super) fn read(&self, offset: u64, max: u64) -> Vec<Run> {
        let start = offset - offset % BLOCK_BYTES;
        let bytes = max.clamp(BLOCK_BYTES, PACKET_BYTES).min(self.length.saturating_sub(start));
        if bytes == 0 {
            return Vec::new();
        }
        match self.run(start, bytes) {
            Some(run) => vec![run],
            None => (0..blocks(bytes))
                .filter_map(|block| {
                    let at = block * BLOCK_BYTES;
                    self.run(start + at, (bytes - at).min(BLOCK_BYTES))
                })
                .collect(),
        }
    }

    fn run(&self, offset: u64, bytes: u64) -> Option<Run> {
        let mut data = vec![0; bytes as usize];
        self.file.read(offset, &mut data).ok()?;
        let first = (offset / BLOCK_BYTES) as usize;
        let slots = self.slots.get(first..first + blocks(bytes) as usize)?;
        Some((offset, data.into(), slots.to_vec()))
    }
}

/// Reads a replica in quarantine.
pub struct Salvager {
    shared: Arc<Shared>,
    wreck: Wreck,
}

impl Salvager {
    pub(super) fn new(shared: Arc<Shared>, wreck: Wreck) -> Self {
        Salvager { shared, wreck }
    }

    /// How far the file goes.
    #[must_use]
    pub fn readable(&self) -> u64 {
        self.wreck.length
    }

    /// What can be read of the blocks from `offset`, a packet of them at most, with their slots. Nothing is verified.
    ///
    /// # Errors
    /// Unavailable while the process stops.
    pub async fn read(&self, offset: u64, max_bytes: u64) -> Result<Vec<Run>, StoreError> {
        let wreck = self.wreck.clone();
        work(&self.shared, move |_| Ok(wreck.read(offset, max_bytes))).await
    }
}
