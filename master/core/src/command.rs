//! What may change the replicated state, and its bytes in the log.
//!
//! A command carries all that was decided about it: apply asks no clock, draws no number and verifies no signature.
//! Tags are never used again for something else.

mod client;
mod group;
mod history;
mod upkeep;
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
use prost::Message as _;
pub use upkeep::{CompareStates, LogMark, MarkLogs, RaiseLevel};
pub use verdict::{Announce, ServerVerdict, Verdict};

use crate::{
    feature::{FIRST_LEVEL, Features},
    wire::DecodeError,
};

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
        self.encode_at(self.kind.level())
    }

    /// The bytes of a command that needs `level`. [`Command::encode`] knows which one its kind needs; this is for tests
    /// of levels that no kind needs yet.
    #[must_use]
    pub fn encode_at(&self, level: u32) -> Vec<u8> {
        let mut bytes = crate::wire::Record::encode(self);
        let level = if level > FIRST_LEVEL { level } else { 0 };
        // Protobuf messages behind one another are one message: this adds the field, and no byte for the first level.
        bytes.extend(Needs { level }.encode_to_vec());
        bytes
    }

    /// The feature level that a command needs, also of a command of a kind that this build does not know.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are damaged.
    pub fn level_of(bytes: &[u8]) -> Result<u32, DecodeError> {
        let needs: Needs = crate::wire::decode_versioned("Command", bytes)?;
        Ok(needs.level.max(FIRST_LEVEL))
    }

    /// Whether the bytes are of a [`Kind::CompareStates`], without decoding anything else.
    #[must_use]
    pub fn is_comparison(bytes: &[u8]) -> bool {
        let peeked: Result<Peeked, _> = crate::wire::decode_versioned("Command", bytes);
        peeked.is_ok_and(|peeked| peeked.kind.is_some_and(|kind| kind.comparison.is_some()))
    }

    /// Back from the log.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are damaged or written by a newer build.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        <Self as crate::wire::Record>::decode(bytes)
    }
}

/// What of a command every build can read. Its tag is one of [`CommandWire`]'s.
#[derive(Clone, PartialEq, prost::Message)]
struct Needs {
    /// The feature level; 0: the first.
    #[prost(uint32, tag = "3")]
    level: u32,
}

/// Enough of a command to recognise a comparison; what else there is is skipped unread.
#[derive(Clone, PartialEq, prost::Message)]
struct Peeked {
    #[prost(message, optional, tag = "2")]
    kind: Option<PeekedKind>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PeekedKind {
    #[prost(message, optional, tag = "30")]
    comparison: Option<upkeep::CompareStatesWire>,
}

impl Kind {
    /// The feature level from which on this may be applied. What a new level brings gets an arm of its own here.
    #[must_use]
    pub fn level(&self) -> u32 {
        match self {
            // Nobody is there yet who would not know: a new cluster begins with all that its maker knows.
            Kind::CreateCluster(_) => Features::THIS_BUILD.highest,
            _ => FIRST_LEVEL,
        }
    }
}

choice! {
    /// What a command does.
    pub enum Kind as KindWire, KindOneof = "KindOneof", tags "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 30, 31, 32" {
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
        /// Changes nothing: every replica hashes what it holds right after it.
        CompareStates(CompareStates) = (message, tag = "30"),
        /// Commands of a higher feature level may be applied from now on.
        RaiseLevel(RaiseLevel) = (message, tag = "31"),
        /// How far each master has acknowledged the log: what a later start of it is held against.
        MarkLogs(MarkLogs) = (message, tag = "32"),
    }
}
