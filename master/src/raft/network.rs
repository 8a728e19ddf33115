//! Between members.
//!
//! A group of one has no peers, so nothing here is called in it. For a member that is configured all the same, every
//! call says that it cannot be reached: openraft then counts no vote and no acknowledgement of it, and tries again. The
//! transport comes with adding members to a group.

use openraft::{
    RaftNetworkFactory, RaftNetworkV2,
    errors::{RPCError, ReplicationClosed, StreamingError, Unreachable},
    network::RPCOption,
    raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse},
};

use super::types::{Types, Vote};
use crate::store::Snapshot;

/// Makes connections to peers.
pub(crate) struct Peers;

/// A peer without a transport.
pub(crate) struct Peer {
    target: u64,
    address: String,
}

impl Peer {
    fn unreachable(&self) -> Unreachable<Types> {
        let (target, address) = (self.target, &self.address);
        Unreachable::from_string(format!("master m{target} at {address} has no transport to this one"))
    }
}

impl RaftNetworkFactory<Types> for Peers {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &openraft::impls::BasicNode) -> Peer {
        Peer { target, address: node.addr.clone() }
    }
}

impl RaftNetworkV2<Types> for Peer {
    type SnapshotData = Snapshot;

    async fn append_entries(
        &mut self,
        _: AppendEntriesRequest<Types>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        Err(self.unreachable().into())
    }

    async fn vote(&mut self, _: VoteRequest<Types>, _: RPCOption) -> Result<VoteResponse<Types>, RPCError<Types>> {
        Err(self.unreachable().into())
    }

    /// Openraft's default grants every pre-vote, which would let a cut-off member raise its term for ever.
    async fn pre_vote(&mut self, _: VoteRequest<Types>, _: RPCOption) -> Result<VoteResponse<Types>, RPCError<Types>> {
        Err(self.unreachable().into())
    }

    async fn full_snapshot(
        &mut self,
        _: Vote,
        _: openraft::alias::SnapshotOf<Types, Snapshot>,
        _: impl Future<Output = ReplicationClosed> + Send + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        Err(self.unreachable().into())
    }
}
