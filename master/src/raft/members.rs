//! Growing and shrinking the group, and handing over the leadership.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use openraft::{
    ChangeMembers,
    errors::{ClientWriteError, RaftError},
    impls::BasicNode,
};
use quarry_env::clock::timeout;
use quarry_types::NodeId;

use super::{
    Group, Node, ProposeError,
    group::{PROPOSALS_MAX, unavailable},
    types::Types,
    watching,
};

/// A change of the members goes through two agreements.
const CHANGE_DEADLINE: Duration = Duration::from_secs(30);
/// Commands under way end within this before the leadership is handed over; those that come meanwhile wait.
const DRAIN_DEADLINE: Duration = Duration::from_secs(5);
/// How long the next leader may take from being asked to leading.
const TRANSFER_DEADLINE: Duration = Duration::from_secs(5);
/// How long it takes at most until somebody leads after that, if it does not.
const RETURN_DEADLINE: Duration = Duration::from_secs(10);

impl Group {
    /// Makes `node` a learner: it is sent everything and counts in no majority. For a member this changes its address; the
    /// caller has made sure that it answers there.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn add(&self, node: Node) -> Result<(), ProposeError> {
        let stored = watching::address(self.raft(), node.id);
        if stored.as_deref() == Some(node.address.as_str()) {
            return Ok(());
        }
        let nodes = BTreeMap::from([(node.id.0, BasicNode::new(node.address.clone()))]);
        // SetNodes replaces what AddNodes would leave as it is.
        let change = if stored.is_some() { ChangeMembers::SetNodes(nodes) } else { ChangeMembers::AddNodes(nodes) };
        self.change(change).await?;
        self.moved().to(node.id.0, &node.address);
        Ok(())
    }

    /// Lets the group know where this member is reached now. For the leader only.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn correct_address(&self) -> Result<(), ProposeError> {
        let (Some(address), Some(id)) = (self.advertised(), self.leader().borrow().id) else { return Ok(()) };
        self.add(Node { id, address }).await
    }

    /// Makes learners voters, all at once. The caller looks first whether they have caught up.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn promote(&self, ids: &[NodeId]) -> Result<(), ProposeError> {
        self.change(ChangeMembers::AddVoterIds(ids.iter().map(|id| id.0).collect())).await
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

    /// Hands the leadership to `to`: commands under way end first, and those that come meanwhile wait for the outcome. Whether
    /// `to` leads then. If it does not, this master has stood for election again; see [`Group::leader`] for who leads.
    ///
    /// # Errors
    /// When the group has stopped.
    pub async fn transfer(&self, to: NodeId) -> Result<bool, ProposeError> {
        let all = u32::try_from(PROPOSALS_MAX).unwrap_or(u32::MAX);
        let drained = timeout(self.clock(), DRAIN_DEADLINE, self.permits().acquire_many(all)).await;
        let Ok(Ok(_held)) = drained else { return Ok(false) };
        let (before, me) = {
            let now = self.leader().borrow().clone();
            (now.me_since_term, now.id)
        };
        self.raft().trigger().transfer_leader(to.0).await.map_err(|error| unavailable(&error.to_string()))?;
        let mut leader = self.leader();
        let other = leader.wait_for(|state| state.id == Some(to));
        if matches!(timeout(self.clock(), TRANSFER_DEADLINE, other).await, Ok(Ok(_))) {
            return Ok(true);
        }
        // Whoever hands over sends no heartbeats and takes no commands any more: only an election ends that.
        self.raft().trigger().elect(false).await.map_err(|error| unavailable(&error.to_string()))?;
        let mut leader = self.leader();
        let again = leader.wait_for(|state| state.me_since_term > before || state.id.is_some_and(|id| Some(id) != me));
        let led = timeout(self.clock(), RETURN_DEADLINE, again).await;
        Ok(matches!(led, Ok(Ok(state)) if state.id == Some(to)))
    }

    async fn change(&self, change: ChangeMembers<u64, BasicNode>) -> Result<(), ProposeError> {
        let changing = self.raft().change_membership(change, true);
        self.changed(async { changing.await.map(|_| ()) }).await
    }

    async fn changed(
        &self,
        changing: impl Future<Output = Result<(), RaftError<Types, ClientWriteError<Types>>>>,
    ) -> Result<(), ProposeError> {
        match timeout(self.clock(), CHANGE_DEADLINE, changing).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward)))) => {
                Err(ProposeError::NotLeader { leader: forward.leader_node.map(|node| node.addr) })
            }
            Ok(Err(error)) => Err(unavailable(&error.to_string())),
            Err(elapsed) => Err(unavailable(&elapsed.to_string())),
        }
    }
}
