//! Every sync of the store, by name, with the promise that breaks without it.
//!
//! A simulated disk can leave out the syncs of one point. `store/tests/must_sync.rs` does so for each name in [`ALL`]
//! (twice for those under which both a file and its directory are synced) and must see a promise broken by a power loss; with all of them in place it never may. A sync that no test misses is
//! idle and does not belong here. There is none where losing a write is harmless, for example when a file is unlinked
//! (the tombstone was synced before) or when an open replica has been recovered (a second recovery ends the same).

use quarry_env::SyncPoint;

/// The first `IDENTITY` of a new directory, and the names beside it. Without it the server comes back as another one.
pub const IDENTITY_NEW: SyncPoint = SyncPoint("chunkserver identity: new directory");
/// `IDENTITY` with the cluster in it. Without it a server that has data could join another cluster (S5).
pub const IDENTITY_CLUSTER: SyncPoint = SyncPoint("chunkserver identity: cluster");
/// The directory's own name and those of its parents. Without it everything is lost by losing their names.
pub const DIR_NAME: SyncPoint = SyncPoint("chunkserver directory: its name");
/// The names in `chunks`. Without it chunk files are lost by losing the names of their directories.
pub const DIR_LAYOUT: SyncPoint = SyncPoint("chunkserver directory: layout");
/// The names of `index` and `chunks`, before any roster names the directory. Without it: the same as without the next.
pub const DIR_CONTENTS: SyncPoint = SyncPoint("chunkserver directory: contents");
/// The directory's own id, before any roster names it. Without it the others wait for a directory that never was, and
/// fences of unknown chunks are answered with an error for ever (S1).
pub const DIR_ID: SyncPoint = SyncPoint("chunkserver index: directory");
/// The start counter and the roster of directories. Without it a start goes unseen, and an old image with it (S11).
pub const START: SyncPoint = SyncPoint("chunkserver index: start");
/// The leadership. Without it an older master is obeyed again after a power loss (S5).
pub const LEADERSHIP: SyncPoint = SyncPoint("chunkserver index: leadership");
/// The record of a new replica that comes in several packets. Without it a restarted member says "never seen, length 0" as if it had not restarted,
/// and a seal could fall below what other members acknowledged (S1).
pub const CREATE_RECORD: SyncPoint = SyncPoint("chunkserver index: create");
/// Data and block CRCs up to a flush (S1).
pub const FLUSH_DATA: SyncPoint = SyncPoint("chunkserver chunk: flush");
/// The file's name, at the first flush (S1).
pub const FLUSH_DIR: SyncPoint = SyncPoint("chunkserver chunk directory: flush");
/// The flushed mark, which proves the partial block at its end (S1).
pub const FLUSH_MARK: SyncPoint = SyncPoint("chunkserver index: flushed mark");
/// Data and block CRCs of a fenced replica, before its receipt (S1).
pub const FENCE_DATA: SyncPoint = SyncPoint("chunkserver chunk: fence");
/// The file's name, before the receipt (S1).
pub const FENCE_DIR: SyncPoint = SyncPoint("chunkserver chunk directory: fence");
/// The fenced length and CRC, before the receipt: without it the partial block at the end has no proof, and a chunk that came
/// whole no record at all (S1).
pub const FENCE_RECORD: SyncPoint = SyncPoint("chunkserver index: fence");
/// Data and block CRCs of a replica that its writer sealed without a sync, before it is called durable (S1).
pub const SETTLED_DATA: SyncPoint = SyncPoint("chunkserver chunk: buffered, made durable");
/// Its file's name (S1).
pub const SETTLED_DIR: SyncPoint = SyncPoint("chunkserver chunk directory: buffered, made durable");
/// The sealed length and CRC, before anything is cut (S2).
pub const COMMIT_RECORD: SyncPoint = SyncPoint("chunkserver index: committed seal");
/// The cut file, before the record says that it is cut (S2).
pub const CUT_DATA: SyncPoint = SyncPoint("chunkserver chunk: cut");
/// A tombstone of a chunk that was never here, before the fence is answered (S5).
pub const TOMBSTONE: SyncPoint = SyncPoint("chunkserver index: tombstone");
/// The tombstone of a deleted replica, before its file is unlinked (S6).
pub const DELETE_RECORD: SyncPoint = SyncPoint("chunkserver index: delete");
/// A quarantine. Without it a replica that failed a check would be served again after a power loss (S2).
pub const QUARANTINE: SyncPoint = SyncPoint("chunkserver index: quarantine");
/// Data and block CRCs of a replica that was cut back after a crash, before it is shown to anyone (S1).
pub const RECOVERY_DATA: SyncPoint = SyncPoint("chunkserver chunk: recovery");
/// Its file's name: a crash that was no power loss leaves names that are not durable yet (S1).
pub const RECOVERY_DIR: SyncPoint = SyncPoint("chunkserver chunk directory: recovery");

/// Data and block CRCs of a copy, before its file takes the chunk's name (S1, S3).
pub const COPY_DATA: SyncPoint = SyncPoint("chunkserver chunk: copy");
/// The chunk's name, before the record of the copy (S1).
pub const COPY_DIR: SyncPoint = SyncPoint("chunkserver chunk directory: copy");
/// The record of a copy, before its receipt: without it the copy is a file that nothing claims, and is removed (S1).
pub const COPY_RECORD: SyncPoint = SyncPoint("chunkserver index: copy");

/// A probe's byte. It keeps no promise, so that it is not among [`ALL`]: it is synced to reach the disk.
pub const PROBE: SyncPoint = SyncPoint("chunkserver probe");

/// Changes of an index whose loss would be harmless: the watermark, a finished cut, what a start made of the replicas it
/// found, a buffered seal and that it was made durable. Without it a power loss can keep a later one and lose an
/// earlier, and an index with such a hole takes its directory out of service: damage and disorder look the same (S1).
pub const IN_ORDER: SyncPoint = SyncPoint("chunkserver index: in order");

/// All of them.
pub const ALL: &[SyncPoint] = &[
    IDENTITY_NEW,
    IDENTITY_CLUSTER,
    DIR_NAME,
    DIR_LAYOUT,
    DIR_CONTENTS,
    DIR_ID,
    START,
    LEADERSHIP,
    CREATE_RECORD,
    FLUSH_DATA,
    FLUSH_DIR,
    FLUSH_MARK,
    FENCE_DATA,
    FENCE_DIR,
    FENCE_RECORD,
    SETTLED_DATA,
    SETTLED_DIR,
    COMMIT_RECORD,
    CUT_DATA,
    TOMBSTONE,
    DELETE_RECORD,
    QUARANTINE,
    RECOVERY_DATA,
    RECOVERY_DIR,
    COPY_DATA,
    COPY_DIR,
    COPY_RECORD,
    IN_ORDER,
];
