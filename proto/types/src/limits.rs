//! Every named number of the protocol and the formats, with its unit. Source: the project's design; where a
//! number was measured, the comment says so.

use std::time::Duration;

/// Longest chunk, in bytes.
pub const CHUNK_BYTES: u64 = 64 << 20;
/// The unit of chunk data that carries a CRC-32, in bytes.
pub const BLOCK_BYTES: u64 = 64 << 10;
/// Longest payload of a packet, in bytes. 1 MiB beat 64 KiB in every measurement.
pub const PACKET_BYTES: u64 = 1 << 20;
/// Bytes a writer may have sent and not yet seen acknowledged.
pub const WINDOW_BYTES: u64 = 8 << 20;
/// Blocks in a full chunk.
pub const BLOCKS_PER_CHUNK: u64 = CHUNK_BYTES / BLOCK_BYTES;

/// Wanted replicas of a file that does not say.
pub const REPLICAS_DEFAULT: u32 = 3;
/// Durable replicas that a completion and a flush wait for (or all, for a file that wants fewer).
pub const REPLICAS_MIN: u32 = 2;
/// Most replicas a file may want.
pub const REPLICAS_MAX: u32 = 8;

/// Longest name of a file or directory, in bytes.
pub const NAME_BYTES: usize = 255;
/// Longest path, in bytes.
pub const PATH_BYTES: usize = 4096;
/// Deepest path, in names.
pub const PATH_DEPTH: usize = 256;
/// Longest file, in bytes: chunk offsets and lengths stay far from overflow.
pub const FILE_BYTES: u64 = 1 << 50;

/// Entries in one page of a listing.
pub const LIST_PAGE: usize = 1000;
/// Chunks in one answer of a locate.
pub const LOCATE_PAGE: usize = 256;
/// Copies that one chunkserver takes at the same time; further ones are refused.
pub const COPIES_PER_SERVER: usize = 8;
/// Replicas in one page of an inventory report.
pub const REPORT_PAGE: usize = 4096;
/// Chunks a completion may name; with [`CHUNK_BYTES`] chunks this is 16 TiB.
pub const CHUNKS_PER_FILE: usize = 1 << 18;
/// Longest gRPC message, in bytes: a completion that names [`CHUNKS_PER_FILE`] chunks fits.
pub const GRPC_MESSAGE_BYTES: usize = 16 << 20;

/// Sessions the master keeps; past them new ones are refused.
pub const SESSIONS_MAX: u64 = 100_000;
/// Results kept for one session above its acknowledged mark; past them calls are refused.
pub const SESSION_RESULTS_MAX: usize = 256;

/// Between two beats of a chunkserver.
pub const BEAT_INTERVAL: Duration = Duration::from_secs(1);
/// Without a beat for this long a chunkserver is suspect.
pub const SUSPECT_AFTER: Duration = Duration::from_millis(1500);
/// Without a beat for this long a chunkserver is dead.
pub const DEAD_AFTER: Duration = Duration::from_secs(3);
/// A writer lease that is not renewed ends after this.
pub const LEASE: Duration = Duration::from_secs(60);
/// A session without a call ends after this.
pub const SESSION: Duration = Duration::from_secs(600);
/// A client gives up when nothing moves for this long.
pub const CLIENT_DEADLINE: Duration = Duration::from_secs(30);
/// A connection must be made and its handshake done within this.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(3);
/// How long the master waits for members to answer a fence while others already have.
pub const FENCE_DEADLINE: Duration = Duration::from_secs(3);
/// Replaced and removed inodes keep their chunks for readers for this long.
pub const READER_GRACE: Duration = Duration::from_secs(3600);
/// Where only restarted members can answer for a buffered chunk, the others must have been dead this long.
pub const SEAL_WAIT: Duration = Duration::from_secs(300);
/// Replicated time moves at least this often while anything waits for it.
pub const TICK: Duration = Duration::from_secs(5);

/// One who watches hears from the master at least this often, also when nothing changes.
pub const WATCH_PROGRESS: Duration = Duration::from_secs(1);
/// One who watches and hears nothing for this long asks another master.
pub const WATCH_SILENCE: Duration = Duration::from_secs(4);

/// Share of a disk that stays free for fences, index and log, in percent.
pub const DISK_RESERVE_PERCENT: u64 = 2;
/// The reserve is at least this, in bytes.
pub const DISK_RESERVE_BYTES_MIN: u64 = 32 << 20;
/// A disk this full takes no new chunks, in percent.
pub const DISK_NO_NEW_PERCENT: u64 = 95;

/// gRPC port of a master.
pub const MASTER_PORT: u16 = 9400;
/// HTTP port of a master.
pub const MASTER_HTTP_PORT: u16 = 9401;
/// Data port of a chunkserver.
pub const DATA_PORT: u16 = 9410;
/// HTTP port of a chunkserver.
pub const CHUNKSERVER_HTTP_PORT: u16 = 9411;

const _: () = {
    assert!(CHUNK_BYTES.is_multiple_of(BLOCK_BYTES) && PACKET_BYTES.is_multiple_of(BLOCK_BYTES));
    assert!(WINDOW_BYTES >= 4 * PACKET_BYTES, "at least four packets in flight");
    assert!(REPLICAS_MIN <= REPLICAS_DEFAULT && REPLICAS_DEFAULT <= REPLICAS_MAX);
    assert!(BEAT_INTERVAL.as_millis() < SUSPECT_AFTER.as_millis());
    assert!(SUSPECT_AFTER.as_millis() < DEAD_AFTER.as_millis());
    assert!(WATCH_PROGRESS.as_millis() * 3 < WATCH_SILENCE.as_millis());
    assert!(DEAD_AFTER.as_millis() < LEASE.as_millis() && LEASE.as_millis() < SESSION.as_millis());
    assert!(CHUNKS_PER_FILE * 40 < GRPC_MESSAGE_BYTES);
};
