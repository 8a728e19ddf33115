//! The next step for one chunk, or why there is none.

mod target;

use std::{collections::BTreeSet, fmt, time::Duration};

use quarry_types::{
    ServerId,
    limits::{BLOCK_BYTES, CHUNK_BYTES},
    planted,
};
use serde::{Deserialize, Serialize};

use super::{
    Policy,
    facts::{ChunkFacts, Cluster, Holder, Quality},
    need::{Need, assess, counted, is_bad},
};
use crate::{
    command::ServerWish,
    detector::Health,
    placement::{
        Candidate, Filter, Weights,
        filter::{FOR_COPY, Tally},
        score,
    },
};

pub use target::{Explanation, explained};

/// What a chunk file takes besides its data, in bytes: the header and the block CRCs.
const FILE_OVERHEAD: u64 = 2 * BLOCK_BYTES;

const _: () = assert!(CHUNK_BYTES / BLOCK_BYTES * 4 < BLOCK_BYTES, "block CRCs fit the overhead");

/// Everything about one chunk that a decision rests on. With the [`Cluster`] and the [`Policy`] it is all there is: the same
/// question gets the same answer, here, in `quarry explain`, and in the simulator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// The chunk and its holders.
    pub facts: ChunkFacts,
    /// Since when it is not as it should be.
    pub since: Duration,
    /// Servers that failed a copy of it lately: others are tried first.
    pub failed: Vec<ServerId>,
    /// The leader's time.
    pub now: Duration,
    /// A uniform random number.
    pub chance: u64,
}

/// The next step for a chunk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Decision {
    /// It is as it should be.
    Nothing,
    /// Copy it.
    Copy {
        /// To here.
        target: ServerId,
        /// From here, best first.
        sources: Vec<ServerId>,
        /// One replica is left: at twice the rate.
        urgent: bool,
    },
    /// Remove a replica: a surplus one (S7), or one that is of no use.
    Drop {
        /// Whose.
        server: ServerId,
        /// It is of no use.
        bad: bool,
    },
    /// Nothing can or should be done now.
    Wait(Reason),
}

/// Why nothing is done now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// The leader does not know yet who has what.
    NotReady,
    /// Too many servers went at once.
    Brake(String),
    /// It misses one replica only, and its server may come back.
    Delay {
        /// Until then.
        until: Duration,
    },
    /// A new lineage began, and no operator has let deletions go yet (S6).
    Held,
    /// No good replica can be reached.
    NoReplica,
    /// Those that have it have their limit of copies.
    SourcesBusy,
    /// The cluster's budget is used up.
    ClusterBudget,
    /// Those that could take it have their limit of copies.
    TargetsBusy(Tally),
    /// Nobody can take it.
    NoTarget(Tally),
    /// It is whole, but nobody on another rack can take it.
    NoRack(Tally),
    /// A replica too many, but not enough others are known for certain to be there (S7).
    Unsafe,
    /// All replicas but one are on servers that are away in maintenance.
    Away,
    /// A replica that failed a check is kept for a while.
    Keep {
        /// Until then.
        until: Duration,
    },
    /// The last attempt failed.
    Failed {
        /// How.
        error: String,
        /// The next one.
        until: Duration,
    },
}

impl Reason {
    /// Only a change of the cluster helps, not time.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        matches!(
            self,
            Reason::Brake(_)
                | Reason::Away
                | Reason::Held
                | Reason::NoReplica
                | Reason::NoTarget(_)
                | Reason::NoRack(_)
                | Reason::Unsafe
        )
    }

    /// Others are done first: a copy that ends, or a little time, helps.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        matches!(self, Reason::SourcesBusy | Reason::ClusterBudget | Reason::TargetsBusy(_))
    }

    /// It could be done, and is not for a reason that concerns the whole cluster.
    #[must_use]
    pub fn is_held(&self) -> bool {
        matches!(self, Reason::Brake(_) | Reason::Away | Reason::Held)
    }

    /// When to look again, at the latest, if nothing else happens.
    #[must_use]
    pub fn again(&self, now: Duration) -> Duration {
        match self {
            Reason::Delay { until } | Reason::Keep { until } | Reason::Failed { until, .. } => *until,
            busy if busy.is_busy() => now.saturating_add(BUSY_AGAIN),
            _ => now.saturating_add(LOOK_AGAIN),
        }
    }

    /// What an operator could do.
    #[must_use]
    pub fn remedy(&self) -> String {
        let remedy = match self {
            Reason::NotReady | Reason::Unsafe => "wait: chunkservers report to the new leader",
            Reason::Brake(_) => "bring the chunkservers back, or let repair go with `quarry repairs --release-brake`",
            Reason::Held => "look at `quarry metadata verify`, then let go with `quarry metadata release`",
            Reason::Delay { .. } => "wait, or lower `repair-delay` (`quarry settings`)",
            Reason::NoReplica => "bring back a chunkserver that held it; without one the chunk is lost",
            Reason::SourcesBusy => "wait, or raise `repair-out` and `repair-rate` (`quarry settings`)",
            Reason::ClusterBudget => "wait, or raise `repair-rate-cluster` (`quarry settings`)",
            Reason::TargetsBusy(tally) => tally.decisive(FOR_COPY).map_or("add a chunkserver", Filter::remedy),
            Reason::NoTarget(tally) => return tally.remedy("add a chunkserver"),
            Reason::NoRack(tally) => return tally.remedy("add a chunkserver on another rack than those it uses"),
            Reason::Away => {
                "wait until they are back, or end the maintenance: it is copied then (`quarry maintenance SERVER --end`)"
            }
            Reason::Keep { .. } => "nothing: the chunk is whole; `quarantine-keep` says how long the bad replica stays",
            Reason::Failed { .. } => "see the error; it is tried again",
        };
        remedy.into()
    }
}

/// A chunk that waits for others is looked at again after this. Shorter than what a budget saves up, so that no rate is lost.
const BUSY_AGAIN: Duration = Duration::from_millis(500);
/// A chunk that waits for a change of the cluster is looked at again after this, should the change have gone unnoticed.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::NotReady => f.write_str("the leader is new: chunkservers have not reported yet"),
            Reason::Brake(why) => write!(f, "held: {why}"),
            Reason::Delay { .. } => {
                f.write_str("delayed: one replica is missing or failed a check, and what is missing may come back")
            }
            Reason::Held => {
                f.write_str("nothing is deleted before an operator lets go: the metadata is from an earlier point")
            }
            Reason::NoReplica => f.write_str("no good replica on any chunkserver that can be reached"),
            Reason::SourcesBusy => f.write_str("the chunkservers that have it are at their limit of copies"),
            Reason::ClusterBudget => f.write_str("the cluster is at its limit of bytes copied per second"),
            Reason::TargetsBusy(tally) => write!(f, "{tally} can take it now"),
            Reason::NoTarget(tally) => {
                write!(f, "{tally} can take it")?;
                match &tally.obstacle {
                    Some(obstacle) => write!(f, ": what stands in the way {obstacle}"),
                    None => Ok(()),
                }
            }
            Reason::NoRack(tally) => {
                write!(f, "whole, but on fewer racks than the cluster has: {tally} could take it on another rack")?;
                match &tally.obstacle {
                    Some(obstacle) => write!(f, ": what stands in the way there {obstacle}"),
                    None => Ok(()),
                }
            }
            Reason::Unsafe => f.write_str("a replica too many is kept until enough others are known for certain (S7)"),
            Reason::Away => f.write_str("one replica can be reached: the others are on chunkservers in maintenance"),
            Reason::Keep { .. } => f.write_str("a replica that failed a check is kept for a while"),
            Reason::Failed { error, .. } => write!(f, "the last attempt failed: {error}"),
        }
    }
}

/// What a chunk needs, and the next step.
#[must_use]
pub fn decide(question: &Question, cluster: &Cluster, policy: &Policy) -> (Need, Decision) {
    let facts = &question.facts;
    let need = assess(facts, cluster.racks.len());
    let decision = if need.wants_copy() {
        copy(question, &need, cluster, policy).unwrap_or_else(Decision::Wait)
    } else if need.surplus > 0 || need.bad > 0 {
        trim(question, &need, cluster, policy)
    } else if need.is_thin() {
        Decision::Wait(Reason::Away)
    } else {
        Decision::Nothing
    };
    (need, decision)
}

fn copy(question: &Question, need: &Need, cluster: &Cluster, policy: &Policy) -> Result<Decision, Reason> {
    if !cluster.ready {
        return Err(Reason::NotReady);
    }
    if let Some(why) = &cluster.brake
        && need.good >= 2
    {
        return Err(Reason::Brake(why.clone()));
    }
    let until = question.since.saturating_add(policy.delay);
    let under_min = need.good < policy.min_replicas.min(need.wanted);
    if need.missing == 1 && !under_min && question.now < until && may_come_back(&question.facts) {
        return Err(Reason::Delay { until });
    }
    let sources = sources(&question.facts, cluster, policy);
    if sources == Err(Reason::NoReplica) {
        return Err(Reason::NoReplica);
    }
    let target = target::search(question, need, cluster, policy).found;
    // What lasts comes before what passes by itself: a move that nobody may take is not begun, however busy its sources are.
    if let Err(lasting) = &target
        && lasting.is_blocked()
    {
        return Err(lasting.clone());
    }
    let (sources, target) = (sources?, target?);
    if cluster.budget <= 0 {
        return Err(Reason::ClusterBudget);
    }
    Ok(Decision::Copy { target, sources, urgent: need.missing > 0 && need.good <= 1 })
}

/// Whether what is missing may come back to stay: not where everyone who had it, as far as is known, is to be emptied anyway.
fn may_come_back(facts: &ChunkFacts) -> bool {
    let lost = |h: &&Holder| h.quality == Quality::Good && h.health == Health::Dead && !h.dropping;
    let mut lost = facts.holders.iter().filter(lost).peekable();
    let to_stay = |h: &Holder| !matches!(h.wish, ServerWish::Draining | ServerWish::Decommissioned);
    lost.peek().is_none() || lost.any(to_stay)
}

/// Those to copy from, best first: with free copies and budget. Without a good replica, those that failed a check: their
/// good blocks may add up.
fn sources(facts: &ChunkFacts, cluster: &Cluster, policy: &Policy) -> Result<Vec<ServerId>, Reason> {
    let mut from: Vec<&Holder> = facts.holders.iter().filter(|h| h.serves()).collect();
    if from.is_empty() {
        let salvage = |h: &&Holder| h.quality == Quality::Quarantined && h.health == Health::Alive && !h.dropping;
        from = facts.holders.iter().filter(salvage).collect();
    }
    if from.is_empty() {
        return Err(Reason::NoReplica);
    }
    let free = |c: &&Candidate| c.copies_out < policy.copies_out && c.budget_out > 0;
    // A source's room says nothing about how well it gives.
    let weights = Weights { capacity: 0, ..policy.weights };
    let mut able: Vec<&Candidate> = from.iter().filter_map(|h| cluster.candidate(h.server)).filter(free).collect();
    able.sort_by(|a, b| score(b, &weights).total.total_cmp(&score(a, &weights).total).then(a.server.cmp(&b.server)));
    if able.is_empty() { Err(Reason::SourcesBusy) } else { Ok(able.into_iter().map(|c| c.server).collect()) }
}

fn trim(question: &Question, need: &Need, cluster: &Cluster, policy: &Policy) -> Decision {
    if !cluster.ready {
        return Decision::Wait(Reason::NotReady);
    }
    if cluster.held {
        return Decision::Wait(Reason::Held);
    }
    let facts = &question.facts;
    if need.surplus > 0 {
        return surplus(facts, cluster)
            .map_or(Decision::Wait(Reason::Unsafe), |server| Decision::Drop { server, bad: false });
    }
    let safe = facts.holders.iter().filter(|h| h.is_safe()).count();
    if safe < facts.wanted as usize {
        return Decision::Wait(Reason::Unsafe);
    }
    let kept = |h: &Holder| if h.quality == Quality::Quarantined { policy.quarantine_keep } else { policy.delay };
    let Some(bad) = facts.holders.iter().filter(|h| is_bad(h)).min_by_key(|h| (!removes(h), kept(h))) else {
        return Decision::Nothing;
    };
    let until = question.since.saturating_add(kept(bad));
    if question.now < until {
        return Decision::Wait(Reason::Keep { until });
    }
    if !removes(bad) {
        return Decision::Wait(Reason::Keep { until: question.now.saturating_add(LOOK_AGAIN) });
    }
    Decision::Drop { server: bad.server, bad: true }
}

/// A server that removes what it is told to, and has reported since it registered last: what was dropped before a full report is
/// what the report shows.
fn removes(holder: &Holder) -> bool {
    holder.health == Health::Alive && holder.reported
}

fn racks<'a>(of: impl Iterator<Item = &'a Holder>) -> usize {
    of.map(|h| h.rack.as_str()).collect::<BTreeSet<_>>().len()
}

/// The replica to drop of those that are too many. Without it the wanted number of replicas must remain that are known for
/// certain, on as many racks as now, as far as the wanted number can use them (S7).
fn surplus(facts: &ChunkFacts, cluster: &Cluster) -> Option<ServerId> {
    let wanted = facts.wanted as usize - usize::from(planted!("trim-below-wanted"));
    let racks_now = if planted!("forget-racks") { 0 } else { racks(counted(facts)).min(wanted) };
    let may_go = |victim: &&Holder| {
        let rest = || facts.holders.iter().filter(|h| h.server != victim.server && h.is_safe());
        removes(victim) && rest().count() >= wanted && racks(rest()) >= racks_now
    };
    // First who is to leave anyway, then who shares a rack, then who has the least room.
    let order = |holder: &&Holder| {
        let sharing = counted(facts).filter(|h| h.rack == holder.rack).count();
        let fill = cluster.candidate(holder.server).map_or(0, |c| {
            let all = c.capacity_bytes.max(1);
            1_000_000 - u64::try_from(u128::from(c.free_bytes.min(all)) * 1_000_000 / u128::from(all)).unwrap_or(0)
        });
        (holder.leaves(), sharing, fill, holder.server)
    };
    counted(facts).filter(may_go).max_by_key(order).map(|h| h.server)
}

#[cfg(test)]
mod tests;
