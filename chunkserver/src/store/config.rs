//! What the store is opened with, and what it tells about itself.

use std::path::PathBuf;

use quarry_chunkserver_core::Durability;
use quarry_types::{ClusterId, ClusterKey, ServerId, limits::BLOCK_BYTES};

/// Replicas that may be open for writing at once; past them a new one is refused as busy.
pub const OPEN_REPLICAS_MAX: u64 = 4096;
/// Files of settled replicas that are kept open.
pub const OPEN_FILES_MAX: usize = 256;
/// Chunks of at most so many bytes are kept in the index, unless the settings say otherwise. A file for one takes three more
/// syncs and 8 KiB beside its bytes; in the index its bytes are written twice. Measured in bench/README.md.
pub const INDEX_BYTES: u64 = 16 << 10;
/// The most that the settings can say: a row has the CRC of one block.
pub const INDEX_BYTES_MAX: u64 = BLOCK_BYTES;
/// Packets of memory that reads used and the next ones will use again.
pub(super) const READ_MEMORY_KEPT: usize = 16;

/// What the store is opened with.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// At least one.
    pub dirs: Vec<DirConfig>,
    /// Keys the inventory's digest. The store signs nothing.
    pub key: ClusterKey,
    /// What an acknowledgement promises.
    pub durability: Durability,
    /// Chunks of at most so many bytes, one block at most, are kept in the index when they come whole.
    pub index_bytes: u64,
}

/// One data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirConfig {
    /// Where it is; made when missing.
    pub path: PathBuf,
    /// Bytes Quarry may use there; absent means the whole file system.
    pub capacity: Option<u64>,
}

/// Who this server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Absent until a master's leadership was first adopted.
    pub cluster: Option<ClusterId>,
    /// The server.
    pub server: ServerId,
    /// Counts its starts, from 1. One that does not go forwards is an old image (S11).
    pub start_counter: u64,
    /// Names this start; drawn anew at each.
    pub start_id: u64,
}

/// A data directory as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskStatus {
    /// Where it is.
    pub path: PathBuf,
    /// The smaller of what the operator allows and what the file system has.
    pub capacity_bytes: u64,
    /// What chunks take.
    pub used_bytes: u64,
    /// What chunk data may still take: without the reserve.
    pub available_bytes: u64,
    /// Why the directory is out of service, when it is.
    pub failed: Option<String>,
    /// Its calls take a multiple of what they used to and of what they take on the server's other disks.
    pub slow: bool,
    /// Mean time of the reads and writes of the last minute, in microseconds; 0 when there was none.
    pub latency_us: u64,
    /// Errors of its disk since the server started.
    pub errors: u64,
    /// Replicas in it, in any state.
    pub chunks: u64,
}

/// How many there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Replicas in any state.
    pub replicas: u64,
    /// Those being written.
    pub open: u64,
    /// Those that failed a check.
    pub quarantined: u64,
    /// Chunks that are refused though there is no replica.
    pub tombstones: u64,
}
