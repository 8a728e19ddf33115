//! Every sync that a master makes, by name, and what would be lost without it.
//!
//! A test leaves out each of them in turn and must see a power loss break a promise (`raft/tests/must_sync.rs`): one
//! that breaks nothing is idle and does not belong here. There is none where losing a write is harmless: what was applied
//! is applied again from the log, purged entries are purged again, directories out of use are swept up at the next start.

use quarry_env::SyncPoint;

/// The data directory's own name, and those of its parents that were missing. Without it the cluster is gone as a whole.
pub(crate) const DATA_DIR: SyncPoint = SyncPoint("master: data directory");
/// The cluster key, and its name. Without it nobody can prove to belong to the cluster.
pub(crate) const KEY: SyncPoint = SyncPoint("master: cluster key");
/// `IDENTITY`, and its name. Without it a data directory that was made is refused as unfinished.
pub(crate) const IDENTITY: SyncPoint = SyncPoint("master: identity");
/// `GROUP`, and the names beside it: those of log and first state too. Without it a group that voted is refused or
/// empty (S11).
pub(crate) const GROUP_CREATED: SyncPoint = SyncPoint("master: group created");
/// The group's own name.
pub(crate) const GROUP_NAME: SyncPoint = SyncPoint("master: group's name");
/// Appended log entries. Without it acknowledged commands are lost (S1).
pub(crate) const RAFT_APPEND: SyncPoint = SyncPoint("master: log entries");
/// The vote. Without it a member votes twice in a term (S11).
pub(crate) const RAFT_VOTE: SyncPoint = SyncPoint("master: vote");
/// `CURRENT`, and its name. Without it an installed snapshot is undone (S11).
pub(crate) const STATE_CURRENT: SyncPoint = SyncPoint("master: current state");
/// `META` of a snapshot, and the names beside it. Without it the log is purged behind a snapshot that is none (S11).
pub(crate) const SNAPSHOT_TAKEN: SyncPoint = SyncPoint("master: snapshot taken");
/// A snapshot that another member sent, its files and their names. Without it the state that is switched to has holes, and
/// the log that would fill them is purged (S11).
pub(crate) const SNAPSHOT_RECEIVED: SyncPoint = SyncPoint("master: snapshot received");
/// The snapshot's own name: same.
pub(crate) const SNAPSHOT_NAME: SyncPoint = SyncPoint("master: snapshot's name");
