//! What operators ask and order: the cluster's state, the repair ledger, explanations, servers, balance.

use std::time::Duration;

use quarry_proto::v1;
use quarry_types::{ChunkId, ServerId, limits};
use tonic::transport::Channel;

use crate::{Client, ClientError};

/// The service of a master.
pub(crate) fn admin(channel: Channel) -> v1::admin_client::AdminClient<Channel> {
    v1::admin_client::AdminClient::new(channel).max_decoding_message_size(limits::GRPC_MESSAGE_BYTES)
}

impl Client {
    /// The state of the cluster, as the leader sees it.
    ///
    /// # Errors
    /// When no master answers.
    pub async fn status(&self) -> Result<v1::StatusReply, ClientError> {
        self.shared
            .ask("asking for the status", v1::StatusRequest {}, |channel, request| {
                Box::pin(async move { admin(channel).status(request).await })
            })
            .await
    }

    /// The repair ledger: chunks that are not as they should be, most endangered first, `limit` rows at most (0: what one
    /// message holds); with `finished` also work that ended of late.
    ///
    /// # Errors
    /// When no master answers.
    pub async fn repairs(&self, limit: u32, finished: bool) -> Result<v1::RepairsReply, ClientError> {
        self.shared
            .ask("asking for the repairs", v1::RepairsRequest { limit, finished }, |channel, request| {
                Box::pin(async move { admin(channel).repairs(request).await })
            })
            .await
    }

    /// The masters, as the one that answers sees them: also while nobody leads.
    ///
    /// # Errors
    /// When no master answers.
    pub async fn masters(&self) -> Result<v1::MastersReply, ClientError> {
        self.shared
            .ask("asking for the masters", v1::MastersRequest { brief: false }, |channel, request| {
                Box::pin(async move { admin(channel).masters(request).await })
            })
            .await
    }

    /// Takes the master that answers at `address` into the group as a learner, or gives a member its new address; the answer's
    /// subject is its number. Doing it again changes nothing.
    ///
    /// # Errors
    /// [`quarry_types::ErrorCode::Conflict`] for one that is not new, and when no master answers.
    pub async fn add_master(&self, address: &str) -> Result<v1::MastersReply, ClientError> {
        let request = v1::AddMasterRequest { address: address.into() };
        self.shared
            .ask(&format!("adding master {address}"), request, |channel, request| {
                Box::pin(async move { admin(channel).add_master(request).await })
            })
            .await
    }

    /// Lets learners vote, all at once. Doing it again changes nothing.
    ///
    /// # Errors
    /// [`quarry_types::ErrorCode::Busy`] for one that has not caught up, [`quarry_types::ErrorCode::NotFound`], and others.
    pub async fn promote_masters(&self, masters: &[u64]) -> Result<v1::MastersReply, ClientError> {
        let request = v1::PromoteMastersRequest { masters: masters.to_vec() };
        self.shared
            .ask("promoting masters", request, |channel, request| {
                Box::pin(async move { admin(channel).promote_masters(request).await })
            })
            .await
    }

    /// Takes a master out of the group for good. One that is not in it changes nothing.
    ///
    /// # Errors
    /// [`quarry_types::ErrorCode::Conflict`] for the leader, or when no majority would be left, and others.
    pub async fn remove_master(&self, master: u64) -> Result<v1::MastersReply, ClientError> {
        self.shared
            .ask(&format!("removing master m{master}"), v1::RemoveMasterRequest { master }, |channel, request| {
                Box::pin(async move { admin(channel).remove_master(request).await })
            })
            .await
    }

    /// Hands the leadership to a master; the answer's subject leads. To let any other lead, choose one of
    /// [`Client::masters`]: only a named one makes the call safe to repeat.
    ///
    /// # Errors
    /// [`quarry_types::ErrorCode::NotFound`] for one that is not in the group,
    /// [`quarry_types::ErrorCode::Conflict`] for one that cannot lead, [`quarry_types::ErrorCode::DeadlineExceeded`] when
    /// it did not take it, and others.
    pub async fn transfer_leader(&self, to: u64) -> Result<v1::MastersReply, ClientError> {
        let request = v1::TransferLeaderRequest { to };
        self.shared
            .ask("handing over the leadership", request, |channel, request| {
                Box::pin(async move { admin(channel).transfer_leader(request).await })
            })
            .await
    }

    /// Puts a feature level in force for good: `level`, or the highest that all masters know.
    ///
    /// # Errors
    /// [`quarry_types::ErrorCode::Conflict`] while a member does not know it or does not answer, and others.
    pub async fn upgrade_masters(&self, level: Option<u32>) -> Result<v1::MastersReply, ClientError> {
        let request = v1::UpgradeMastersRequest { level: level.unwrap_or_default() };
        self.shared
            .ask("raising the feature level", request, |channel, request| {
                Box::pin(async move { admin(channel).upgrade_masters(request).await })
            })
            .await
    }

    /// Has the masters compare what they hold. It is done when [`Client::masters`] says that so many comparisons are finished,
    /// by the same leader.
    ///
    /// # Errors
    /// When no master leads.
    pub async fn compare_masters(&self) -> Result<u64, ClientError> {
        self.shared
            .ask("having the masters compare their states", v1::CompareMastersRequest {}, |channel, request| {
                Box::pin(async move { admin(channel).compare_masters(request).await })
            })
            .await
            .map(|reply| reply.comparisons)
    }

    /// Ends the brake of repair: what it holds is repaired from now on. What held it; empty when nothing did.
    ///
    /// # Errors
    /// When no master answers.
    pub async fn release_brake(&self) -> Result<String, ClientError> {
        self.shared
            .ask("releasing the brake", v1::ReleaseBrakeRequest {}, |channel, request| {
                Box::pin(async move { admin(channel).release_brake(request).await })
            })
            .await
            .map(|reply| reply.released)
    }

    /// What would be done about a chunk now, with every filter and term of every candidate.
    ///
    /// # Errors
    /// [`quarry_types::ErrorCode::NotFound`] and others.
    pub async fn explain_chunk(&self, chunk: ChunkId) -> Result<v1::ExplainReply, ClientError> {
        let request = v1::ExplainChunkRequest { chunk: chunk.0 };
        self.shared
            .ask(&format!("explaining chunk {chunk}"), request, |channel, request| {
                Box::pin(async move { admin(channel).explain_chunk(request).await })
            })
            .await
    }

    /// What the leader thinks of a chunkserver, and whether it would give it a new chunk.
    ///
    /// # Errors
    /// [`quarry_types::ErrorCode::NotFound`] and others.
    pub async fn explain_server(&self, server: ServerId) -> Result<v1::ExplainReply, ClientError> {
        let request = v1::ExplainServerRequest { server: server.to_bytes().into() };
        self.shared
            .ask(&format!("explaining chunkserver {server}"), request, |channel, request| {
                Box::pin(async move { admin(channel).explain_server(request).await })
            })
            .await
    }

    /// Where a chunk of the file at `path`, or of a new file in the directory at `path`, would go now.
    ///
    /// # Errors
    /// [`quarry_types::ErrorCode::NotFound`] and others.
    pub async fn explain_placement(&self, path: &str) -> Result<v1::ExplainReply, ClientError> {
        let request = v1::ExplainPlacementRequest { path: path.into() };
        self.shared
            .ask(&format!("explaining where {path} would go"), request, |channel, request| {
                Box::pin(async move { admin(channel).explain_placement(request).await })
            })
            .await
    }

    /// Changes what is wanted of a chunkserver; `lasting` is for a maintenance. How far it is. The same again is fine.
    ///
    /// # Errors
    /// [`quarry_types::ErrorCode::NotFound`] and others.
    pub async fn set_server(
        &self,
        server: ServerId,
        wish: v1::ServerWish,
        lasting: Duration,
    ) -> Result<v1::ServerProgressReply, ClientError> {
        let for_ms = u64::try_from(lasting.as_millis()).unwrap_or(u64::MAX);
        let request = v1::SetServerRequest { server: server.to_bytes().into(), wish: wish.into(), for_ms };
        self.shared
            .ask(&format!("changing what is wanted of chunkserver {server}"), request, |channel, request| {
                Box::pin(async move { admin(channel).set_server(request).await })
            })
            .await
            .map(|reply| reply.progress.unwrap_or_default())
    }

    /// How far a drain, a maintenance or a decommission of a chunkserver has come.
    ///
    /// # Errors
    /// [`quarry_types::ErrorCode::NotFound`] and others.
    pub async fn server_progress(&self, server: ServerId) -> Result<v1::ServerProgressReply, ClientError> {
        let request = v1::ServerProgressRequest { server: server.to_bytes().into() };
        self.shared
            .ask(&format!("asking how far chunkserver {server} is"), request, |channel, request| {
                Box::pin(async move { admin(channel).server_progress(request).await })
            })
            .await
    }

    /// Evens out how full the chunkservers are, or stops that, or (`dry_run`) only says how far it is and what would be moved.
    /// The same again is fine.
    ///
    /// # Errors
    /// When no master answers, and others.
    pub async fn rebalance(&self, dry_run: bool, stop: bool) -> Result<v1::RebalanceReply, ClientError> {
        self.shared
            .ask("evening out the chunkservers", v1::RebalanceRequest { dry_run, stop }, |channel, request| {
                Box::pin(async move { admin(channel).rebalance(request).await })
            })
            .await
    }
}
