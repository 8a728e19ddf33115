//! The numbers that bound the tables and the work of one command. Those that two processes share are in
//! [`quarry_types::limits`].

use quarry_types::NodeId;

/// The number of the master that a cluster is made with.
pub const FIRST_MASTER: NodeId = NodeId(1);
/// Masters whose logs are marked: more than a group ever has.
pub const MASTERS_MAX: usize = 64;
/// Length of the random number that opens a session, in bytes.
pub const NONCE_BYTES: usize = 16;
/// Replicated time moves by at most this in one command, in milliseconds: a leader whose clock jumped cannot end
/// every wait at once.
pub const TICK_MS_MAX: u64 = 60_000;
/// Sessions that one command ends.
pub const EXPIRE_SESSIONS_MAX: usize = 256;
/// Rows and entries that one step of collecting goes through.
pub const COLLECT_MAX: u32 = 1000;
/// Rows that one step of following a changed number of replicas goes through.
pub const FOLLOW_MAX: u32 = 1000;
/// What one command takes out of the trash.
pub const EMPTY_TRASH_MAX: usize = 1000;
/// Chunks that one command forgets.
pub const FORGET_MAX: usize = 4096;
/// Chunks that an atomic put may have open at once.
pub const OPEN_CHUNKS_PER_FILE: usize = 16;
/// Servers kept as holders of a chunk; they are hints where to look, so further ones are not kept.
pub const HOLDERS_MAX: usize = 16;
/// Chunkservers in a cluster.
pub const SERVERS_MAX: usize = 10_000;
/// Longest address or rack name of a chunkserver, in bytes.
pub const SERVER_NAME_BYTES: usize = 255;
/// Writer leases at once.
pub const LEASES_MAX: u64 = 100_000;
/// Directories between an inode and the root that a walk up goes through. Names deeper than
/// [`quarry_types::limits::PATH_DEPTH`] come about when a deep directory is moved.
pub const ANCESTORS_MAX: usize = 4096;
/// A new lineage goes on with ids so much higher than those of the one before: more than all chunkservers of the largest
/// cluster can hold, many times over.
pub const LINEAGE_ID_STEP: u64 = 1 << 40;
/// A lineage's number is higher than that of the one before by at most this, so that ids do not run out.
pub const LINEAGE_STEPS_MAX: u64 = 1024;
/// Chunk ids that a chunkserver reports are avoided up to here. What lies beyond is damage, and would use the ids up.
pub const RAISED_ID_MAX: u64 = 1 << 62;
/// Longest maintenance of a chunkserver, in milliseconds: 30 days.
pub const MAINTENANCE_MS_MAX: u64 = 30 * 24 * 3_600_000;
/// Bytes of events that are kept for those who watch, keys included.
pub const EVENTS_BYTES_MAX: u64 = 256 << 20;
/// Events after which the bounds of their table are looked at again.
pub const EVENTS_UNCHECKED: u64 = 64;
/// Verdicts on chunkservers that one command announces.
pub const ANNOUNCE_MAX: usize = 256;
