//! What a chunkserver says about a replica.

use crate::{ChunkId, ClusterId, Crc32, ServerId};

/// State of a replica on its chunkserver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ReplicaState {
    /// Being written.
    Open,
    /// Refuses writes for good; its length is fixed on this server, but the master has not said what the chunk's is.
    Fenced,
    /// Agrees with the length and CRC that the master committed.
    Sealed,
    /// Failed a check: kept, never served.
    Quarantined,
}

/// A member's statement about its replica, signed when it travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The cluster.
    pub cluster: ClusterId,
    /// Who states it.
    pub server: ServerId,
    /// About which chunk.
    pub chunk: ChunkId,
    /// Bytes held.
    pub length: u64,
    /// CRC of these bytes.
    pub crc: Crc32,
    /// Whether they survive a power loss.
    pub durable: bool,
    /// Whether the server restarted while the replica was open, so that acknowledged bytes which were never flushed may
    /// be missing. Such a receipt yields to one without the mark.
    pub restarted: bool,
}
