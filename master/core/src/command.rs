//! What may change the replicated state, and its bytes in the log.
//!
//! A command carries all that was decided about it: apply asks no clock, draws no number and verifies no signature.
//! Tags are never used again for something else.

mod client;
mod group;
mod history;
mod verdict;

pub use client::{
    Abort, AddChunk, ChunkRef, ClientCommand, Complete, Create, CreateMode, Mkdir, Mutation, OpId, OpenAppend, Remove,
    Rename, SealedChunk, SetReplicas, Undelete,
};
pub use group::{
    BeginEpoch, CloseSession, CollectRemoved, ConfirmReplicas, CreateCluster, Durability, EmptyTrash, ExpireLease,
    ExpireSessions, FollowWanted, ForgetDoomed, Knob, NumberMaster, OpenSession, PutServer, PutSettings, Removal,
    ServerWish, SetServer, Settings, Tick, TrustServer,
};
pub use history::{BeginLineage, LineageCause, RaiseIds, ReleaseHold};
pub use verdict::{Announce, ServerVerdict, Verdict};

use crate::wire::DecodeError;

message! {
    /// One entry of the log.
    pub struct Command as CommandWire {
        /// The leader's wall clock in milliseconds since the Unix epoch, for display only (S10).
        wall_ms: u64 = (uint64, tag = "1"),
        /// What to do.
        kind: Kind = (message, required, tag = "2"),
    }
}
record!(Command as CommandWire);

impl Command {
    /// The bytes in the log.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        crate::wire::Record::encode(self)
    }

    /// Back from the log.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are damaged or written by a newer build.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        <Self as crate::wire::Record>::decode(bytes)
    }
}

choice! {
    /// What a command does.
    pub enum Kind as KindWire, KindOneof = "KindOneof", tags "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23" {
        /// Makes the cluster; the first command of every log.
        CreateCluster(CreateCluster) = (message, tag = "1"),
        /// A master process begins to lead.
        BeginEpoch(BeginEpoch) = (message, tag = "2"),
        /// Replicated time moves on.
        Tick(Tick) = (message, tag = "3"),
        /// Opens a session, or finds the one that the same nonce opened.
        OpenSession(OpenSession) = (message, tag = "4"),
        /// Ends a session.
        CloseSession(CloseSession) = (message, tag = "5"),
        /// Ends sessions that were silent for too long.
        ExpireSessions(ExpireSessions) = (message, tag = "6"),
        /// An operation of a client, at most once.
        Client(ClientCommand) = (message, tag = "7"),
        /// Seals an open chunk at what its members have.
        Seal(SealedChunk) = (message, tag = "8"),
        /// More servers hold a sealed chunk durably.
        ConfirmReplicas(ConfirmReplicas) = (message, tag = "9"),
        /// Ends a writer lease that was not renewed.
        ExpireLease(ExpireLease) = (message, tag = "10"),
        /// One bounded step of taking apart what was removed.
        CollectRemoved(CollectRemoved) = (message, tag = "11"),
        /// Doomed chunks that no server holds any more.
        ForgetDoomed(ForgetDoomed) = (message, tag = "12"),
        /// A chunkserver registered.
        PutServer(PutServer) = (message, tag = "13"),
        /// Changes the cluster's settings.
        PutSettings(PutSettings) = (message, tag = "14"),
        /// Everything on a server that came back with an old image has been verified.
        TrustServer(TrustServer) = (message, tag = "15"),
        /// An operator wants something else of a chunkserver: drain, maintenance, decommission, or none of it.
        SetServer(SetServer) = (message, tag = "16"),
        /// Takes things out of the trash for good.
        EmptyTrash(EmptyTrash) = (message, tag = "17"),
        /// One bounded step of telling chunks how many replicas their files want now.
        FollowWanted(FollowWanted) = (message, tag = "18"),
        /// A master that joins gets its number.
        NumberMaster(NumberMaster) = (message, tag = "19"),
        /// A restored backup or a forced recovery begins a new lineage; the first command of its log.
        BeginLineage(BeginLineage) = (message, tag = "20"),
        /// While the state is held: chunk ids that chunkservers report from beyond the counter are not given out again.
        RaiseIds(RaiseIds) = (message, tag = "21"),
        /// An operator lets deletions and aborts go that a new lineage began with holding back.
        ReleaseHold(ReleaseHold) = (message, tag = "22"),
        /// Tells those who watch what the leader believes of chunkservers now, where it is something else than before.
        Announce(Announce) = (message, tag = "23"),
    }
}
