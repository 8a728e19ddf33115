//! Reads that may be a little old, from any member; and the read index, which proves how old a state is.
//!
//! What makes an answer good enough is decided in `quarry_master_core::staleness`; here is how a proof is come by. A leader
//! asks openraft for its read index, which needs a round of heartbeats that a majority answers; a follower asks the
//! leader the same. Both ask one question for all who wait. A proof is kept: until it is as old as a read allows, reads
//! ask nobody.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::FutureExt as _;
use openraft::{
    ReadPolicy,
    errors::{LinearizableReadError, RaftError},
};
use quarry_env::{BootInstant, World, clock::timeout};
use quarry_master_core::staleness::{Allowed, Proof, Step, renew, step};
use quarry_proto::{WireError, v1};
use quarry_types::{ErrorCode, NodeId, planted};
use tokio::sync::{Mutex as AsyncMutex, watch};

use super::{
    Group, LeaderState, ProposeError, View,
    group::unavailable,
    network::{Peer, Peers},
    open::Raft,
    rounds::{Begun, Rounds},
    watching,
};

/// How long a read waits to hear from a majority.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// A leader that does not confirm within this is asked anew, if it leads still.
const CONFIRM_DEADLINE: Duration = Duration::from_secs(1);
/// Between attempts of one read to have a proof, when an attempt failed at once.
const PAUSE: Duration = Duration::from_millis(50);
/// A read waits at most this long for a proof and for commands to be applied; less when its caller has less patience.
const WITHIN_TIMEOUT: Duration = Duration::from_secs(5);

/// A leader is in doubt when no majority has stood by it for so long. Proofs are asked for each second, and one that fails has
/// failed a second later.
const DOUBT_AFTER: Duration = Duration::from_secs(3);

/// A proof is renewed so often also while nobody reads: when no leader answers any more it is too late for the first one.
pub(super) const PROVE_EVERY: Duration = Duration::from_secs(1);

/// The index up to which the log must be applied to answer a read, and what was applied when that was found out.
#[derive(Clone, Copy, Debug)]
struct ReadIndex {
    index: u64,
    applied: Option<u64>,
}

type Indexed = Result<ReadIndex, ProposeError>;
type Proven = Result<Proof, ProposeError>;

/// The read index and proofs of one member.
pub(super) struct Bounded {
    /// For a leader only.
    indexes: Rounds<Indexed>,
    /// Of whoever leads.
    proofs: Rounds<Proven>,
    last: LastProof,
    /// Why there is no younger one.
    failed: LastFailure,
    /// Of those who wait for a command to be applied before they read.
    turn: AsyncMutex<()>,
    /// When this member began to ask.
    since: BootInstant,
    /// The last term in which a read index was found and had been applied, and 1 more; 0: none was.
    read_in: AtomicU64,
}

/// What the last attempt to have a proof said when it failed.
type LastFailure = Arc<Mutex<Option<String>>>;

/// The youngest proof.
type LastProof = Arc<Mutex<Option<Proof>>>;

fn remember(last: &LastProof, proof: Proof) {
    let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
    *last = Some(proof.younger(*last));
}

impl Bounded {
    pub fn new(world: &World, raft: &Raft, peers: Peers, leader: watch::Receiver<LeaderState>) -> Self {
        let last = LastProof::default();
        let (asked, clock, kept) = (raft.clone(), world.clock.clone(), Arc::clone(&last));
        let indexes = Rounds::new(move || {
            let (raft, clock, last) = (asked.clone(), clock.clone(), Arc::clone(&kept));
            async move {
                let at = clock.boot();
                let found = read_index(&raft).await?;
                remember(&last, Proof { at: at.0, index: found.index });
                Ok(found)
            }
            .boxed()
        });
        let asking =
            Asking { world: world.clone(), leader, peer: AsyncMutex::new(None), indexes: indexes.clone(), peers };
        let (asking, kept) = (Arc::new(asking), Arc::clone(&last));
        let failed = LastFailure::default();
        let noted = Arc::clone(&failed);
        let proofs = Rounds::new(move || {
            let (asking, last, failed) = (Arc::clone(&asking), Arc::clone(&kept), Arc::clone(&noted));
            async move {
                let proven = asking.prove().await;
                let why = proven.as_ref().err().map(ToString::to_string);
                *failed.lock().unwrap_or_else(PoisonError::into_inner) = why;
                proven.inspect(|proof| remember(&last, *proof))
            }
            .boxed()
        });
        Bounded {
            indexes,
            proofs,
            last,
            failed,
            turn: AsyncMutex::new(()),
            since: world.clock.boot(),
            read_in: AtomicU64::new(0),
        }
    }

    fn last(&self) -> Option<Proof> {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks a majority whether this member leads: a leader that does not know yet that another one was elected is found out
/// here, and only here.
async fn read_index(raft: &Raft) -> Indexed {
    match raft.get_read_linearizer(ReadPolicy::ReadIndex).await {
        Ok(found) => {
            Ok(ReadIndex { index: found.read_log_id().index(), applied: found.applied().map(|applied| applied.index) })
        }
        Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
            Err(ProposeError::NotLeader { leader: forward.leader_node.map(|node| node.addr) })
        }
        Err(error) => Err(unavailable(&error.to_string())),
    }
}

fn stopping() -> ProposeError {
    ProposeError::Unavailable("this master is stopping; ask another one".into())
}

/// How a proof is come by.
struct Asking {
    world: World,
    leader: watch::Receiver<LeaderState>,
    /// The leader asked last.
    peer: AsyncMutex<Option<Peer>>,
    peers: Peers,
    indexes: Rounds<Indexed>,
}

impl Asking {
    /// Asks whoever leads, once.
    async fn prove(&self) -> Proven {
        // Before anybody is asked, by a clock that goes on while this process stands still: see `staleness`.
        let at = self.world.clock.boot();
        let known = self.leader.borrow().clone();
        let index = match (known.me_since_term, known.id, known.leader) {
            (Some(_), ..) => self.indexes.answer(Begun::FromNow).await.ok_or_else(stopping)??.index,
            (None, Some(id), Some(address)) => {
                let mut changes = self.leader.clone();
                tokio::select! {
                    biased;
                    index = self.confirmed_by(id, &address) => index?,
                    // One that stands still does not answer, and soon another one leads.
                    _changed_or_stopped = changes.wait_for(|now| now.id != Some(id)) => {
                        return Err(ProposeError::NotLeader { leader: None });
                    }
                }
            }
            _ => return Err(ProposeError::NotLeader { leader: None }),
        };
        Ok(Proof { at: at.0, index })
    }

    async fn confirmed_by(&self, id: NodeId, address: &str) -> Result<u64, ProposeError> {
        let mut peer = self.peer.lock().await;
        let peer = match &mut *peer {
            Some(known) if known.is(id.0, address) => known,
            other => other.insert(self.peers.peer(id.0, address)),
        };
        peer.confirm(CONFIRM_DEADLINE).await.map_err(|error| match error.code {
            ErrorCode::NotLeader => ProposeError::NotLeader { leader: error.leader },
            _ => ProposeError::Unavailable(format!(
                "master {id} at {address} does not confirm that it leads: {}",
                error.message
            )),
        })
    }
}

impl Group {
    /// Has a young proof at hand soon, for reads that may come when nobody leads any more. One that is alone leads, or does
    /// not run.
    pub(super) fn prove(&self) {
        if self.leader().borrow().id.is_some() && !self.votes_alone() {
            self.bounded().proofs.begin();
        }
    }

    /// No leader has proven for so long that a majority follows it that probably none does, or not for this member: why the last
    /// attempt failed, in parentheses, or nothing.
    #[must_use]
    pub fn in_doubt(&self) -> Option<String> {
        let (bounded, now) = (self.bounded(), self.clock().boot());
        let silence = bounded.last().map_or_else(|| now.since(bounded.since), |proof| proof.age(now.0));
        if silence <= DOUBT_AFTER || self.votes_alone() {
            return None;
        }
        let failed = bounded.failed.lock().unwrap_or_else(PoisonError::into_inner);
        Some(failed.as_ref().map_or_else(String::new, |why| format!(" ({why})")))
    }

    fn votes_alone(&self) -> bool {
        self.voters().iter().eq([&self.parties().me()])
    }

    /// Who leads; nobody when that is in doubt.
    #[must_use]
    pub fn followed(&self) -> Option<NodeId> {
        self.leader().borrow().id.filter(|_| self.in_doubt().is_none())
    }

    /// The state, with everything that was acknowledged before this call (linearizable, by read index). Calls that wait
    /// at the same time share one question to the majority.
    ///
    /// # Errors
    /// When this master does not lead, or cannot prove that it does.
    pub async fn read(&self) -> Result<View, ProposeError> {
        if planted!("stale-read") {
            return Ok(self.view());
        }
        let led = self.leader().borrow().me_since_term;
        if self.reads_alone(led) {
            return Ok(self.view());
        }
        let ready = async {
            let found = self.bounded().indexes.answer(Begun::FromNow).await.ok_or_else(stopping)??;
            if found.applied < Some(found.index) {
                // One after the other: openraft wakes those who wait in an order that chance decides, and what follows from a
                // read would then differ between two runs of one seed.
                let _turn = self.bounded().turn.lock().await;
                self.applied_up_to(found.index).await?;
            }
            if let Some(term) = led.filter(|_| self.leader().borrow().me_since_term == led) {
                self.bounded().read_in.store(term.saturating_add(1), Ordering::Release);
            }
            Ok(self.view())
        };
        timeout(self.clock(), READ_TIMEOUT, ready).await.unwrap_or_else(|late| Err(unavailable(&late.to_string())))
    }

    /// Whether this member, which leads in the term `led`, may answer without asking anybody, itself included. Without its own
    /// vote nobody else can have been elected: while it votes alone, and, should it know that it no longer does a moment late, also
    /// while it votes together with others, which comes before they may do without it. What an earlier term acknowledged was
    /// applied when its first read was answered, and what this one acknowledges is applied before.
    fn reads_alone(&self, led: Option<u64>) -> bool {
        let read_in = self.bounded().read_in.load(Ordering::Acquire);
        led.is_some_and(|term| read_in == term.saturating_add(1)) && self.votes_alone() && !self.has_stopped()
    }

    /// Waits until this member has applied the log up to `index`. Cancel-safe.
    async fn applied_up_to(&self, index: u64) -> Result<(), ProposeError> {
        let waiting = self.raft().wait(None);
        waiting
            .applied_index_at_least(Some(index), "what a read needs")
            .await
            .map(|_| ())
            .map_err(|error| unavailable(&error.to_string()))
    }

    /// Waits for as long as `patience`, and for some seconds at most, until the state here is one that a read may be
    /// answered from; with the proof of it. Asks nobody while the last proof is young enough. What is read must be checked
    /// once more with [`Group::is_within`], since the process may stand still before it is.
    ///
    /// # Errors
    /// [`ErrorCode::TooStale`] says why the state may be older, and who leads, when that is known.
    pub async fn within(&self, allowed: Allowed, came: BootInstant, patience: Duration) -> Result<Proof, WireError> {
        let mut why = None;
        let waiting = self.wait_within(allowed, came, &mut why);
        match timeout(self.clock(), patience.min(WITHIN_TIMEOUT), waiting).await {
            Ok(proof) => Ok(proof),
            Err(_) => Err(self.too_stale(allowed, why)),
        }
    }

    async fn wait_within(&self, allowed: Allowed, came: BootInstant, why: &mut Option<ProposeError>) -> Proof {
        let bounded = self.bounded();
        loop {
            let (now, applied) = (self.clock().boot().0, watching::applied(self.raft()).unwrap_or_default());
            let proof = bounded.last();
            let failed = match (step(now, came.0, proof, applied, allowed), proof) {
                (Step::Serve(age), Some(proof)) => {
                    if renew(age, allowed.within) {
                        bounded.proofs.begin();
                    }
                    return proof;
                }
                (Step::Apply(index), Some(proof)) => {
                    // It may become too old meanwhile.
                    let left = allowed.within.saturating_sub(proof.age(now));
                    match timeout(self.clock(), left.max(PAUSE), self.applied_up_to(index)).await {
                        Ok(Err(error)) => Some(error),
                        Ok(Ok(())) | Err(_) => None,
                    }
                }
                (Step::Serve(_) | Step::Apply(_) | Step::Prove, _) => {
                    // One that came before may have begun to ask long before this read: it would do, if it is answered.
                    let begun = if allowed.seen > applied { Begun::FromNow } else { Begun::Before };
                    bounded.proofs.answer(begun).await.unwrap_or_else(|| Err(stopping())).err()
                }
            };
            if let Some(error) = failed {
                *why = Some(error);
                self.clock().sleep(PAUSE).await;
            }
        }
    }

    /// Whether a state that has applied the log up to `applied` may be shown now; and how old it may be then.
    #[must_use]
    pub fn is_within(&self, allowed: Allowed, came: BootInstant, proof: Proof, applied: u64) -> Option<Duration> {
        match step(self.clock().boot().0, came.0, Some(proof), applied, allowed) {
            Step::Serve(age) => Some(age),
            Step::Apply(_) | Step::Prove => None,
        }
    }

    /// The refusal of a read, after its patience is over.
    pub(crate) fn too_stale(&self, allowed: Allowed, why: Option<ProposeError>) -> WireError {
        let applied = watching::applied(self.raft()).unwrap_or_default();
        let bounded = self.bounded();
        let (now, leader) = (self.clock().boot().0, self.leader().borrow().clone());
        let known = match bounded.last() {
            None => "no leader has confirmed anything since it started".to_owned(),
            Some(proof) if applied < proof.index => {
                format!("it has applied the log up to {applied}, and {} was the last index confirmed", proof.index)
            }
            Some(proof) => format!("a leader confirmed its state {} ms ago", proof.age(now).as_millis()),
        };
        let why = match (why, &leader.leader) {
            (Some(ProposeError::NotLeader { .. }) | None, None) => "; no leader is known now".to_owned(),
            (Some(ProposeError::NotLeader { .. }) | None, Some(_)) => String::new(),
            (Some(error), _) => format!("; {error}"),
        };
        let message = format!(
            "this master cannot prove that what it has is at most {} ms old: {known}{why}; allow more, ask the leader, or \
             wait until a majority of the masters is in touch",
            allowed.within.as_millis()
        );
        WireError { leader: leader.leader, ..WireError::new(ErrorCode::TooStale, message) }
    }

    /// Answers another member that asks how far the log is committed. A majority has answered this member since it was asked:
    /// it led then.
    pub(super) async fn confirm(&self, signed: &v1::Signed) -> Result<v1::Signed, WireError> {
        let (_, asked) = self.parties().open::<v1::ConfirmRequest>(signed)?;
        if watching::address(self.raft(), NodeId(asked.from)).is_none() {
            let why = format!("master m{} is in this group no more; stop it", asked.from);
            return Err(WireError::new(ErrorCode::Conflict, why));
        }
        let found = timeout(self.clock(), READ_TIMEOUT, self.bounded().indexes.answer(Begun::FromNow)).await;
        let found = found.map_err(|late| unavailable(&late.to_string()))?.ok_or_else(stopping)??;
        Ok(self.parties().sign(&v1::ConfirmReply { parties: Some(self.parties().answer(&asked)), index: found.index }))
    }
}
