//! What openraft is told about us.

use std::fmt;

use bytes::Bytes;
use openraft::impls::leader_id_std;
use openraft_rt::deterministic_rng::DeterministicRng;
use quarry_env::World;
use quarry_master_core::apply::Outcome;

use super::runtime::Ordered;

/// openraft on tokio's clock and scheduler, with random numbers that follow from a seed: under a simulated clock a run
/// repeats exactly.
pub(crate) type Runtime = DeterministicRng<Ordered>;

openraft::declare_raft_types!(
    /// Our types for openraft.
    pub(crate) Types:
        D = Proposal,
        R = Answer,
        NodeId = u64,
        Node = openraft::impls::BasicNode,
        // One leader a term, as in the Raft paper.
        LeaderId = leader_id_std::LeaderId<u64, u64>,
        AsyncRuntime = Runtime,
);

pub(crate) type LogId = openraft::alias::LogIdOf<Types>;
pub(crate) type LeaderId = openraft::alias::LeaderIdOf<Types>;
pub(crate) type CommittedLeaderId = openraft::alias::CommittedLeaderIdOf<Types>;
pub(crate) type Vote = openraft::alias::VoteOf<Types>;
pub(crate) type Entry = openraft::alias::EntryOf<Types>;
pub(crate) type StoredMembership = openraft::alias::StoredMembershipOf<Types>;
pub(crate) type SnapshotMeta = openraft::alias::SnapshotMetaOf<Types>;
pub(crate) type Membership = openraft::Membership<u64, openraft::impls::BasicNode>;
pub(crate) type Payload = openraft::EntryPayload<Proposal, u64, openraft::impls::BasicNode>;

/// An encoded command.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Proposal(pub(crate) Bytes);

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Names of files stay out of openraft's log lines.
        write!(f, "command of {} bytes", self.0.len())
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What applying an entry answered; `None` for entries of Raft's own. It never leaves the process.
#[derive(Debug)]
pub(crate) struct Answer(pub(crate) Option<Outcome>);

/// Runs `work`, which may start tasks of openraft, with random numbers that follow from the world's.
pub(crate) async fn seeded<F: Future>(world: &World, work: F) -> F::Output {
    Runtime::scope(world.random.next_u64(), work).await
}
