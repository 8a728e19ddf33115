//! A member that has started takes part only when another member has said what it knows of its log (S11).
//!
//! A data directory that was copied back, or a log whose end is gone, looks in order by itself. Whoever votes or acknowledges
//! on it can undo what was acknowledged. So until the gate opens this member neither votes, nor stands for election, nor
//! takes entries or snapshots; it only answers who it is, and what it knows of others that start. It opens when
//! - it is alone in its group, or
//! - at least one of the others answered, all that answer within a moment were heard, and none knows of an entry that was
//!   committed, that this member had acknowledged, and that its log lacks.
//!
//! A new member that is in no group yet knows nobody to ask. It waits for a leader that sends it something and asks that one: a
//! copy of its empty files that takes the place of what it became later must not vote either.
//!
//! What others know of it is in the replicated state, recorded from time to time ([`MarkLogs`]), and exact on the leader.
//! It also does not vote in a term that one of them has seen: it may have done so before, and forgotten.
//!
//! Not noticed: what is missing was acknowledged after the last record, and the leader has changed since; those that
//! would know do not answer; the old image knows of no other member.
//!
//! [`MarkLogs`]: quarry_master_core::command::MarkLogs

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::future::join_all;
use quarry_master_core::query;
use quarry_proto::{WireError, v1};
use quarry_types::{ErrorCode, NodeId};
use tokio::sync::watch;

use super::{Group, Node, error::REPLACE, joining, watching};

/// Whoever answers at all does so within this.
const ASK_DEADLINE: Duration = Duration::from_secs(2);
/// Between two rounds of asking.
const ASK_EVERY: Duration = Duration::from_millis(250);
/// While nobody answers it is said so often, in rounds.
const SAID_EVERY: u32 = 40;
/// Senders that are remembered for being asked.
const HEARD_MAX: usize = 16;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Opening {
    Shut,
    Open,
    /// It stays shut, for this reason.
    Refused(String),
}

/// Whether this member takes part. Clones are the same gate.
#[derive(Clone)]
pub(super) struct Gate {
    opening: watch::Sender<Opening>,
    /// It gives no vote in this term and those before.
    floor: Arc<AtomicU64>,
    /// Members that have sent something, and are asked as well.
    heard: Arc<Mutex<BTreeMap<u64, String>>>,
}

impl Gate {
    /// Of a member that has started.
    pub fn new(shut: bool) -> Self {
        let opening = if shut { Opening::Shut } else { Opening::Open };
        Gate { opening: watch::Sender::new(opening), floor: Arc::default(), heard: Arc::default() }
    }

    /// Refuses while it is shut.
    pub fn check(&self) -> Result<(), WireError> {
        if *self.opening.borrow() == Opening::Open {
            return Ok(());
        }
        let why = "this master has just started, and takes part when another one has said what it knows of its log";
        Err(WireError::new(ErrorCode::Unavailable, why))
    }

    /// Refuses a vote, of this member or for itself, in a term in which it may have voted before it started.
    pub fn check_vote(&self, term: u64) -> Result<(), WireError> {
        self.check()?;
        if term > self.floor.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(WireError::new(ErrorCode::Unavailable, format!("this master has started during term {term} or later")))
    }

    /// A leader that this member may not know of is there to be asked.
    pub fn heard(&self, from: u64, address: &str) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if !address.is_empty() && (heard.len() < HEARD_MAX || heard.contains_key(&from)) {
            heard.insert(from, address.to_owned());
        }
    }

    fn open(&self, floor: u64) {
        self.floor.fetch_max(floor, Ordering::AcqRel);
        self.opening.send_replace(Opening::Open);
    }

    /// Completes when it stays shut for good, with the reason.
    pub async fn refused(&self) -> String {
        let mut opening = self.opening.subscribe();
        let refused = opening.wait_for(|opening| matches!(opening, Opening::Refused(_))).await;
        match refused.as_deref() {
            Ok(Opening::Refused(why)) => why.clone(),
            // The group is gone, and whoever waits for it.
            _ => String::new(),
        }
    }

    /// Whether it is not known yet.
    pub fn is_shut(&self) -> bool {
        *self.opening.borrow() == Opening::Shut
    }
}

/// What is to become of a member whose log ends at `last`, by what others know of it.
fn judge(me: u64, last: u64, others: &[(Node, v1::StartedReply)]) -> Option<Opening> {
    let most = others.iter().max_by_key(|(_, reply)| reply.acknowledged)?;
    if most.1.acknowledged <= last {
        return Some(Opening::Open);
    }
    Some(Opening::Refused(format!(
        "the log of master m{me} ends at entry {last}, and master {} at {} knows that it had acknowledged entry {}, which is \
         committed: these files are an old image, or have lost their end, and must not vote. {REPLACE}",
        most.0.id, most.0.address, most.1.acknowledged
    )))
}

impl Group {
    /// Opens the gate when others have answered; ends then, or when the group is gone.
    pub(super) async fn open_gate(self, mut known: BTreeMap<u64, String>, last: u64) {
        let me = self.parties().me();
        let mut rounds = 0_u32;
        while self.gate().is_shut() {
            known.extend(self.gate().heard.lock().unwrap_or_else(PoisonError::into_inner).clone());
            let others: Vec<Node> = known
                .iter()
                .filter(|(id, _)| **id != me)
                .map(|(id, address)| Node { id: NodeId(*id), address: address.clone() })
                .collect();
            if self.is_superseded(others.clone()).await {
                return;
            }
            let answers = join_all(others.into_iter().map(|other| self.ask_known(other, last))).await;
            let answers: Vec<(Node, v1::StartedReply)> = answers.into_iter().flatten().collect();
            match judge(me, last, &answers) {
                Some(Opening::Open) => {
                    let floor = answers.iter().map(|(_, reply)| reply.term).max().unwrap_or_default();
                    tracing::info!(
                        answered = answers.len(),
                        floor,
                        last,
                        "other masters know nothing against this one's log"
                    );
                    self.gate().open(floor);
                }
                Some(refused) => {
                    tracing::error!(last, "this master's log lacks what it had acknowledged");
                    self.gate().opening.send_replace(refused);
                }
                None => {
                    match () {
                        () if !rounds.is_multiple_of(SAID_EVERY) => {}
                        () if known.is_empty() => {
                            tracing::info!("in no group yet: `quarry masters add` takes this master in")
                        }
                        () => tracing::warn!("no other master answers: this one takes part when one does"),
                    }
                    rounds = rounds.wrapping_add(1);
                    self.clock().sleep(ASK_EVERY).await;
                }
            }
            if self.has_stopped() {
                return;
            }
        }
    }

    /// What another member knows of this one's log. Cancel-safe.
    async fn ask_known(&self, other: Node, last_log: u64) -> Option<(Node, v1::StartedReply)> {
        let (world, parties) = (self.world(), self.parties());
        let asked = parties.request(world, other.id.0);
        let signed = parties.sign(&v1::StartedRequest { parties: Some(asked.clone()), last_log });
        let answer =
            joining::call(world, &other.address, ASK_DEADLINE, |mut c| async move { c.started(signed).await }).await;
        let reply = answer.and_then(|answer| parties.open_answer::<v1::StartedReply>(&answer, &asked));
        reply
            .inspect_err(|error| tracing::debug!(master = %other.id, error = %error.message, "does not answer yet"))
            .ok()
            .map(|reply| (other, reply))
    }

    /// Answers a member that has just started.
    pub(super) async fn started(&self, signed: &v1::Signed) -> Result<v1::Signed, WireError> {
        let parties = self.parties();
        let (request, asked) = parties.open::<v1::StartedRequest>(signed)?;
        let node = NodeId(asked.from);
        let view = self.view();
        let marks = self.world().blocking.run(move || view.at_once(query::log_marks)).await;
        let failed = |why: String| WireError::new(ErrorCode::Unavailable, format!("this master's state: {why}"));
        let marks = marks.map_err(|e| failed(e.to_string()))?.map_err(|e| failed(e.to_string()))?;
        let marked = marks.iter().find(|mark| mark.node == node).map_or(0, |mark| mark.index);
        let live = watching::acknowledged(self.raft()).into_iter().find(|(of, _)| *of == node.0);
        let acknowledged = marked.max(live.map_or(0, |(_, index)| index));
        tracing::debug!(master = %node, last = request.last_log, acknowledged, "another master has started");
        let term = self.vote().leader_id.term;
        Ok(parties.sign(&v1::StartedReply { parties: Some(parties.answer(&asked)), acknowledged, term }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(acknowledged: &[u64]) -> Vec<(Node, v1::StartedReply)> {
        let node = |id| Node { id: NodeId(id), address: format!("h{id}:1") };
        let reply = |acknowledged| v1::StartedReply { acknowledged, ..Default::default() };
        acknowledged.iter().zip(2..).map(|(acknowledged, id)| (node(id), reply(*acknowledged))).collect()
    }

    #[test]
    fn s11_a_log_that_is_shorter_than_anyone_knows_is_refused() {
        assert_eq!(judge(1, 7, &[]), None, "silence says nothing");
        assert_eq!(judge(1, 7, &answers(&[7, 0])), Some(Opening::Open));
        let Some(Opening::Refused(why)) = judge(1, 7, &answers(&[0, 8])) else { panic!("it lacks an entry") };
        assert!(
            why.contains("m3 at h3:1") && why.contains("entry 8") && why.contains("quarry masters remove"),
            "{why}"
        );
    }

    #[test]
    fn s11_a_gate_lets_no_vote_through_that_may_be_a_second_one() {
        let gate = Gate::new(true);
        assert!(gate.check().is_err() && gate.check_vote(9).is_err());
        gate.open(3);
        assert!(gate.check().is_ok() && gate.check_vote(4).is_ok());
        assert!(gate.check_vote(3).is_err(), "it may have voted in that term before");
    }
}
