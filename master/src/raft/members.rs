//! Growing and shrinking the group.

use std::{collections::BTreeSet, time::Duration};

use openraft::{
    ChangeMembers,
    errors::{ClientWriteError, RaftError},
    impls::BasicNode,
};
use quarry_env::clock::timeout;
use quarry_types::NodeId;

use super::{Group, Node, ProposeError, group::unavailable, types::Types};

/// A change of the members goes through two agreements.
const CHANGE_DEADLINE: Duration = Duration::from_secs(30);
/// How long the next leader may take from being asked to leading.
const TRANSFER_DEADLINE: Duration = Duration::from_secs(5);

impl Group {
    /// Makes `node` a learner: it is sent everything and counts in no majority. The same again changes its address.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn add_learner(&self, node: Node) -> Result<(), ProposeError> {
        let member = BasicNode::new(node.address);
        let changing = self.raft().add_learner(node.id.0, member, false);
        self.changed(async { changing.await.map(|_| ()) }).await
    }

    /// Makes a learner a voter. The caller looks first whether it has caught up.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn promote(&self, id: NodeId) -> Result<(), ProposeError> {
        self.change(ChangeMembers::AddVoterIds(BTreeSet::from([id.0]))).await
    }

    /// Takes a member out of the group, whether it votes or not.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn remove(&self, id: NodeId) -> Result<(), ProposeError> {
        if self.voters().contains(&id.0) {
            self.change(ChangeMembers::RemoveVoters(BTreeSet::from([id.0]))).await?;
        }
        self.change(ChangeMembers::RemoveNodes(BTreeSet::from([id.0]))).await
    }

    /// Hands the leadership to `to`. `false`: it does not lead after all this time, and this master may lead still.
    ///
    /// # Errors
    /// When the group has stopped.
    pub async fn transfer(&self, to: NodeId) -> Result<bool, ProposeError> {
        self.raft().trigger().transfer_leader(to.0).await.map_err(|error| unavailable(&error.to_string()))?;
        let mut leader = self.leader();
        let other = leader.wait_for(|state| state.id == Some(to));
        Ok(matches!(timeout(&*self.clock(), TRANSFER_DEADLINE, other).await, Ok(Ok(_))))
    }

    async fn change(&self, change: ChangeMembers<u64, BasicNode>) -> Result<(), ProposeError> {
        let changing = self.raft().change_membership(change, true);
        self.changed(async { changing.await.map(|_| ()) }).await
    }

    async fn changed(
        &self,
        changing: impl Future<Output = Result<(), RaftError<Types, ClientWriteError<Types>>>>,
    ) -> Result<(), ProposeError> {
        match timeout(&*self.clock(), CHANGE_DEADLINE, changing).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward)))) => {
                Err(ProposeError::NotLeader { leader: forward.leader_node.map(|node| node.addr) })
            }
            Ok(Err(error)) => Err(unavailable(&error.to_string())),
            Err(elapsed) => Err(unavailable(&elapsed.to_string())),
        }
    }
}
