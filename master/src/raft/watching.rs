//! Watching openraft: who leads, whether it failed, how far everybody is.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use openraft::{
    ServerState,
    async_runtime::{Instant as _, WatchReceiver as _},
    errors::Fatal,
    metrics::{RaftMetrics, RaftServerMetrics},
};
use quarry_env::Clock;
use quarry_proto::v1::{self, MasterStatus};
use quarry_types::{NodeId, planted};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    LeaderState,
    open::Raft,
    types::{Types, Vote},
};

/// A leader that no majority has answered for so many election timeouts leads no more: the others have another one by
/// then, and openraft does not say so to one that they cannot tell.
const UNHEARD_ELECTIONS: u32 = 2;
/// It is looked at so often in that time.
const UNHEARD_LOOKS: u32 = 6;

/// What [`watch`] found out, kept up to date.
pub(crate) struct Watching {
    leader: watch::Receiver<LeaderState>,
    failed: watch::Receiver<Option<String>>,
}

impl Watching {
    pub(crate) fn leader(&self) -> watch::Receiver<LeaderState> {
        self.leader.clone()
    }

    pub(crate) async fn failed(&self) -> String {
        let mut failed = self.failed.clone();
        let why = match failed.wait_for(Option::is_some).await {
            Ok(why) => why.clone(),
            Err(_) => None,
        };
        match why {
            Some(why) => why,
            // It was stopped in order.
            None => std::future::pending().await,
        }
    }
}

/// Starts to watch `raft`, whose members wait for `election` without a leader, and which `stopped` ends in order. The task ends
/// with it.
pub(crate) fn watch(
    raft: &Raft,
    advertise: Option<String>,
    clock: Arc<dyn Clock>,
    election: Duration,
    stopped: CancellationToken,
) -> Watching {
    let mut metrics = raft.server_metrics();
    let all = raft.metrics();
    let unheard_max = election * UNHEARD_ELECTIONS;
    let now = leader_state(&metrics.borrow_watched(), advertise.as_deref());
    let (leader_tx, leader) = watch::channel(now);
    let (failed_tx, failed) = watch::channel(None);
    tokio::spawn(async move {
        loop {
            let elected = metrics.borrow_watched().state == ServerState::Leader;
            tokio::select! {
                biased;
                changed = metrics.changed() => if changed.is_err() { break },
                // Silence changes nothing that could be waited for.
                () = clock.sleep(unheard_max / UNHEARD_LOOKS), if elected => {}
            }
            // The two are not changed at once: a leader that was deposed must not pass for one that nobody answers.
            let state = leader_state(&metrics.borrow_watched(), advertise.as_deref());
            let unheard = is_unheard(&all.borrow_watched(), unheard_max) && !planted!("stale-read");
            let alone = state.me_since_term.is_some() && unheard;
            let now = if alone { LeaderState::default() } else { state };
            leader_tx.send_if_modified(|last| std::mem::replace(last, now.clone()) != now);
        }
        // openraft's task has ended. Nobody leads from here any more.
        leader_tx.send_replace(LeaderState::default());
        let why = match &all.borrow_watched().running_state {
            Err(Fatal::Stopped) => return,
            Err(fatal) => fatal.to_string(),
            // A panic leaves no state behind.
            Ok(()) if stopped.is_cancelled() => return,
            Ok(()) => "its task has ended without a reason, by a panic that is in the log before this".to_owned(),
        };
        tracing::error!(error = why, "the Raft group failed on this master");
        failed_tx.send_replace(Some(format!("the Raft group failed on this master: {why}")));
    });
    Watching { leader, failed }
}

/// Whether this member was elected, and has been answered by no majority for so long. One that never was is not meant: its
/// leadership begins with a command, which needs a majority.
fn is_unheard(metrics: &RaftMetrics<Types>, max: Duration) -> bool {
    let others = metrics.membership_config.voter_ids().any(|id| id != metrics.id);
    others && metrics.state == ServerState::Leader && metrics.last_quorum_acked.is_some_and(|at| at.elapsed() > max)
}

fn leader_state(metrics: &RaftServerMetrics<Types>, advertise: Option<&str>) -> LeaderState {
    let leads = metrics.state == ServerState::Leader && metrics.current_leader == Some(metrics.id);
    let stored = metrics.current_leader.and_then(|id| Some(metrics.membership_config.get_node(&id)?.addr.clone()));
    LeaderState {
        me_since_term: (leads && metrics.vote.committed).then_some(metrics.vote.leader_id.term),
        id: metrics.current_leader.map(NodeId),
        leader: if leads { advertise.map(str::to_owned).or(stored) } else { stored },
    }
}

/// The highest vote that this member knows.
pub(crate) fn vote(raft: &Raft) -> Vote {
    raft.metrics().borrow_watched().vote
}

/// The members that vote, by the newest membership known here.
pub(crate) fn voters(raft: &Raft) -> BTreeSet<u64> {
    raft.metrics().borrow_watched().membership_config.voter_ids().collect()
}

/// The index of the last entry applied here.
pub(crate) fn applied(raft: &Raft) -> Option<u64> {
    raft.metrics().borrow_watched().last_applied.map(|id| id.index)
}

/// How far each member has acknowledged what is committed, as its leader knows; nothing on others. What was applied is
/// committed, so no later log of that member may end before.
pub(crate) fn acknowledged(raft: &Raft) -> Vec<(u64, u64)> {
    let all = raft.metrics();
    let metrics = all.borrow_watched();
    let committed = metrics.last_applied.map_or(0, |id| id.index);
    let known = metrics.replication.iter().flatten();
    known.map(|(id, matched)| (*id, matched.map_or(0, |id| id.index).min(committed))).collect()
}

/// A member's address, by the newest membership known here.
pub(crate) fn address(raft: &Raft, id: NodeId) -> Option<String> {
    raft.metrics().borrow_watched().membership_config.get_node(&id.0).map(|node| node.addr.clone())
}

/// What this member says of itself.
pub(crate) fn own(raft: &Raft) -> v1::Introduction {
    let all = raft.metrics();
    let metrics = all.borrow_watched();
    v1::Introduction {
        member: metrics.membership_config.get_node(&metrics.id).is_some(),
        term: metrics.current_term,
        last_log: metrics.last_log_index.unwrap_or_default(),
        applied: metrics.last_applied.map(|id| id.index).unwrap_or_default(),
        ..v1::Introduction::default()
    }
}

/// The members, by id, where `leader` leads. Of the others this master knows only what their acknowledgements say, and only
/// while it leads itself.
pub(crate) fn status(
    raft: &Raft,
    advertise: Option<&str>,
    silent_max: Duration,
    leader: Option<NodeId>,
) -> Vec<MasterStatus> {
    let all = raft.metrics();
    let metrics = all.borrow_watched();
    let voters: Vec<u64> = metrics.membership_config.voter_ids().collect();
    let member = |(id, node): (&u64, &openraft::impls::BasicNode)| {
        let me = *id == metrics.id;
        let matched = metrics.replication.as_ref().and_then(|known| *known.get(id)?).map(|id| id.index);
        let heard = metrics.heartbeat.as_ref().and_then(|known| (*known.get(id)?).map(|at| at.elapsed()));
        let role = match () {
            () if leader == Some(NodeId(*id)) => "leader",
            () if voters.contains(id) => "follower",
            () => "learner",
        };
        MasterStatus {
            id: *id,
            address: advertise.filter(|_| me).map_or_else(|| node.addr.clone(), str::to_owned),
            role: role.into(),
            term: metrics.current_term,
            last_log: if me { metrics.last_log_index } else { matched }.unwrap_or_default(),
            applied: if me { metrics.last_applied.map(|id| id.index) } else { None }.unwrap_or_default(),
            reachable: me || heard.is_some_and(|ago| ago < silent_max) || leader == Some(NodeId(*id)),
            ..MasterStatus::default()
        }
    };
    metrics.membership_config.nodes().map(member).collect()
}
