//! What the rest of the master calls.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use openraft::{
    errors::{ClientWriteError, RaftError},
    impls::BasicNode,
};
use quarry_env::{Clock, World, clock::timeout};
use quarry_master_core::{apply::Outcome, command::Command, feature::Features};
use quarry_proto::{WireError, v1::MasterStatus};
use quarry_types::{ErrorCode, NodeId};
use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::{
    Belonging, GroupConfig, GroupError, LeaderState, Node, ProposeError, View,
    bounded::{Bounded, PROVE_EVERY},
    codec,
    digests::{Digests, Known},
    gate::Gate,
    incoming::Incoming,
    network::{Moved, Peers},
    open::{self, Opened, Raft, Stores},
    parties::Parties,
    room::Room,
    superseded::{self, Superseded},
    types::{Proposal, Types, Vote},
    watching::{self, Watching},
};
use crate::store::{Layout, Snapshot, State};

/// Proposals that may be in openraft's hands at a time; further ones wait.
pub(super) const PROPOSALS_MAX: usize = 2048;
/// The longest encoded command, in bytes. The wire's limits keep every request below it.
const COMMAND_BYTES_MAX: usize = 1 << 20;
/// How long creating a group may take.
const CREATE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long openraft's tasks may take to let go of the stores when the group stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a requested snapshot may take.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(600);

/// A member of the group of masters, running. Cheap to clone.
#[derive(Clone)]
pub struct Group {
    inner: Arc<Inner>,
}

/// What all handles share.
pub(super) struct Inner {
    world: World,
    config: GroupConfig,
    raft: Raft,
    state: Arc<State>,
    appends: Arc<AtomicU64>,
    digests: Arc<Digests>,
    stores: Stores,
    watching: Watching,
    permits: Semaphore,
    room: Room,
    parties: Parties,
    gate: Gate,
    moved: Moved,
    incoming: Incoming,
    stopped: CancellationToken,
    bounded: Bounded,
    superseded: Superseded,
}

impl From<Arc<Inner>> for Group {
    fn from(inner: Arc<Inner>) -> Self {
        Group { inner }
    }
}

impl Group {
    /// Creates a group of one in `dir`, which must be empty or missing, and commits `first` in it. An interrupted
    /// creation leaves a directory that [`Group::open`] refuses.
    ///
    /// # Errors
    /// [`GroupError::NotEmpty`]; otherwise when the disk fails or `first` is refused.
    pub async fn create(
        world: &World,
        dir: &Path,
        me: Node,
        belonging: Belonging,
        first: Command,
    ) -> Result<(), GroupError> {
        let layout = Layout::new(world, dir);
        let prepare = layout.clone();
        world.blocking.run(move || prepare.prepare()).await??;
        let group = Self::start(world, &layout, Some(me.id.0), belonging, GroupConfig::default()).await?;
        let begun = group.begin(me, first).await;
        group.shutdown().await;
        begun?;
        world.blocking.run(move || layout.mark_created()).await?
    }

    /// Makes the new member a group of one and commits `first`.
    async fn begin(&self, me: Node, first: Command) -> Result<(), GroupError> {
        let members = BTreeMap::from([(me.id.0, BasicNode::new(me.address))]);
        self.inner.raft.initialize(members).await.map_err(|e| GroupError::Raft(e.to_string()))?;
        self.lead_and_commit(first).await
    }

    /// Waits until this member, which is alone, leads, and commits `first`.
    pub(super) async fn lead_and_commit(&self, first: Command) -> Result<(), GroupError> {
        let mut leader = self.leader();
        let led = leader.wait_for(|state| state.me_since_term.is_some());
        // What it answers holds a lock that the watching task needs: it must not live on.
        let led = matches!(timeout(&*self.inner.world.clock, CREATE_TIMEOUT, led).await, Ok(Ok(_)));
        if !led {
            return Err(GroupError::Raft(format!("the new group elected nobody within {CREATE_TIMEOUT:?}")));
        }
        let outcome = self.propose(first).await.map_err(|e| GroupError::Raft(e.to_string()))?;
        outcome.map_err(|refusal| GroupError::Raft(format!("the first command was refused: {}", refusal.message)))?;
        Ok(())
    }

    /// Makes the files of a new member `id` in `dir`, which must be empty or missing. It is in no group before
    /// [`Group::add`] names it there, and by itself elects nobody (S11).
    ///
    /// # Errors
    /// [`GroupError::NotEmpty`]; otherwise when the disk fails.
    pub async fn create_empty(world: &World, dir: &Path, id: NodeId, belonging: Belonging) -> Result<(), GroupError> {
        let layout = Layout::new(world, dir);
        let prepare = layout.clone();
        world.blocking.run(move || prepare.prepare()).await??;
        Self::start(world, &layout, Some(id.0), belonging, GroupConfig::default()).await?.shutdown().await;
        world.blocking.run(move || layout.mark_created()).await?
    }

    /// Starts the member whose files are in `dir`.
    ///
    /// # Errors
    /// When there is none, it is of a newer format, or its files are damaged.
    pub async fn open(
        world: &World,
        dir: &Path,
        belonging: Belonging,
        config: GroupConfig,
    ) -> Result<Group, GroupError> {
        let layout = Layout::new(world, dir);
        let check = layout.clone();
        world.blocking.run(move || check.check_created()).await??;
        Self::start(world, &layout, None, belonging, config).await
    }

    pub(super) async fn start(
        world: &World,
        layout: &Layout,
        new: Option<u64>,
        belonging: Belonging,
        config: GroupConfig,
    ) -> Result<Self, GroupError> {
        let Opened { raft, state, appends, digests, stores, parties, gate, moved, known, last } =
            open::open(world, layout, new, belonging, &config).await?;
        let incoming = Incoming::new(world, layout);
        let stopped = CancellationToken::new();
        let (advertise, clock) = (config.advertise.clone(), Arc::clone(&world.clock));
        let watching = watching::watch(&raft, advertise, clock, config.election, stopped.clone());
        let room = Room::new(world, layout.dir(), config.reserve_bytes);
        let permits = Semaphore::new(PROPOSALS_MAX);
        let world = world.clone();
        let peers = Peers {
            world: world.clone(),
            parties: parties.clone(),
            gate: gate.clone(),
            advertise: config.advertise.clone(),
            moved: moved.clone(),
        };
        let bounded = Bounded::new(&world, &raft, peers, watching.leader());
        let inner = Inner {
            world,
            config,
            raft,
            state,
            appends,
            digests,
            stores,
            watching,
            permits,
            room,
            parties,
            gate,
            moved,
            incoming,
            stopped,
            bounded,
            superseded: Superseded::new(),
        };
        let group = Group { inner: Arc::new(inner) };
        if group.gate().is_shut() {
            tokio::spawn(group.stopped().run_until_cancelled_owned(group.clone().open_gate(known, last)));
        }
        let (inner, clock) = (Arc::downgrade(&group.inner), &group.inner.world.clock);
        let proving = keep_proving(inner.clone(), Arc::clone(clock));
        tokio::spawn(group.stopped().run_until_cancelled_owned(proving));
        let asking = superseded::keep_asking(inner, Arc::clone(clock));
        tokio::spawn(group.stopped().run_until_cancelled_owned(asking));
        Ok(group)
    }

    /// Commits and applies `command`, and returns what it answered. Concurrent proposals share one fsync.
    ///
    /// # Errors
    /// See [`ProposeError`]: only `NotLeader` and `Full` say that nothing was done.
    pub async fn propose(&self, command: Command) -> Result<Outcome, ProposeError> {
        let inner = &self.inner;
        inner.room.check(&command.kind).await.map_err(|error| self.perhaps_elsewhere(error))?;
        let bytes = command.encode();
        if bytes.len() > COMMAND_BYTES_MAX {
            let message = format!("a command of {} bytes is over the limit of {COMMAND_BYTES_MAX}", bytes.len());
            return Err(ProposeError::Unavailable(message));
        }
        let work = async {
            let _permit = inner.permits.acquire().await;
            inner.raft.client_write(Proposal(bytes.into())).await
        };
        let limit = inner.config.propose_timeout;
        let written = timeout(&*inner.world.clock, limit, work).await;
        match written {
            Ok(Ok(response)) => response.data.0.ok_or_else(|| unavailable("the group applied something else")),
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward)))) => {
                Err(ProposeError::NotLeader { leader: forward.leader_node.map(|node| node.addr) })
            }
            Ok(Err(error)) => Err(unavailable(&error.to_string())),
            Err(elapsed) => Err(unavailable(&elapsed.to_string())),
        }
    }

    /// The state as applied here; it may lag behind the leader's.
    #[must_use]
    pub fn view(&self) -> View {
        View::new(Arc::clone(&self.inner.state))
    }

    /// Wakes those who wait for events (see [`quarry_master_core::query::events`]) when there may be more of them here.
    #[must_use]
    pub fn events(&self) -> Arc<Notify> {
        Arc::clone(&self.inner.state.events)
    }

    /// Who leads. The receiver is closed when the group has stopped.
    #[must_use]
    pub fn leader(&self) -> watch::Receiver<LeaderState> {
        self.inner.watching.leader()
    }

    /// The members, by id.
    #[must_use]
    pub fn status(&self) -> Vec<MasterStatus> {
        let config = &self.inner.config;
        watching::status(&self.inner.raft, config.advertise.as_deref(), config.election, self.followed())
    }

    /// Takes a snapshot now and purges the log behind it, keeping the configured tail. Returns the index of the last
    /// command in it.
    ///
    /// # Errors
    /// When the disk fails or the group stops.
    pub async fn snapshot(&self) -> Result<u64, GroupError> {
        let raft = &self.inner.raft;
        let failed = |error: &dyn std::error::Error| GroupError::Raft(format!("taking a snapshot: {error}"));
        let applied = watching::applied(raft);
        raft.trigger().snapshot().await.map_err(|e| failed(&e))?;
        let taken = raft
            .wait(Some(SNAPSHOT_TIMEOUT))
            .metrics(|m| m.snapshot.map(|id| id.index) >= applied, "a snapshot of what is applied")
            .await
            .map_err(|e| failed(&e))?;
        Ok(taken.snapshot.map_or(0, |id| id.index))
    }

    /// A snapshot of what is applied here now. Its files stay as they are while the result lives.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) async fn checkpoint(&self) -> Result<Snapshot, GroupError> {
        let state = Arc::clone(&self.inner.state);
        self.inner.world.blocking.run(move || state.take_snapshot()).await?
    }

    /// Completes when the group has failed for good (its disk, usually), with the reason: the process should stop.
    /// Never completes after a [`Group::shutdown`].
    pub async fn failed(&self) -> String {
        tokio::select! {
            biased;
            why = self.inner.watching.failed() => why,
            why = self.inner.gate.refused() => why,
            why = self.inner.superseded.known() => why,
            why = self.inner.state.failure() => format!("the state of this master cannot be read: {why}"),
        }
    }

    /// Stops this member. Clones answer `Unavailable` from then on. The files are closed when the last clone and the
    /// last [`View`] are dropped: they can be opened again then.
    pub async fn shutdown(&self) {
        let inner = &self.inner;
        inner.stopped.cancel();
        inner.digests.stop();
        if let Err(error) = inner.raft.shutdown().await {
            tracing::warn!(%error, "the Raft task did not stop in order");
        }
        // openraft does not wait for those of its tasks that apply, replicate and take snapshots.
        if timeout(&*inner.world.clock, STOP_TIMEOUT, inner.stores.released()).await.is_err() {
            tracing::warn!("tasks of the Raft group still use its files after {STOP_TIMEOUT:?}");
        }
    }
}

/// Keeps a proof young. It holds no group between two rounds: a member that was stopped is to let its files go at once.
async fn keep_proving(group: Weak<Inner>, clock: Arc<dyn Clock>) {
    loop {
        clock.sleep(PROVE_EVERY).await;
        let Some(inner) = group.upgrade() else { return };
        Group { inner }.prove();
    }
}

/// For the other files of this module.
impl Group {
    /// In a group of several a full disk is no answer yet: the leadership goes to a master that has room, so callers try on.
    fn perhaps_elsewhere(&self, error: ProposeError) -> ProposeError {
        match error {
            ProposeError::Full(why) if self.voters().len() > 1 => {
                ProposeError::Unavailable(format!("{why}; a master with room takes over, if there is one"))
            }
            other => other,
        }
    }

    pub(super) fn raft(&self) -> &Raft {
        &self.inner.raft
    }

    pub(crate) fn world(&self) -> &World {
        &self.inner.world
    }

    pub(super) fn clock(&self) -> &dyn Clock {
        &*self.inner.world.clock
    }

    pub(super) fn advertised(&self) -> Option<String> {
        self.inner.config.advertise.clone()
    }

    /// The feature levels that this member knows.
    pub(crate) fn features(&self) -> Features {
        self.inner.config.features
    }

    /// What this member held right after entry `index`, where states were compared.
    pub(crate) fn digest(&self, index: u64) -> Known {
        self.inner.digests.at(index)
    }

    /// Whether the disk of this member has too little room for changes: another one should lead.
    pub(crate) async fn is_short_of_room(&self) -> bool {
        self.inner.room.is_short().await
    }

    /// The same as it was when somebody looked last, which a leader does all the time.
    pub(crate) fn was_short_of_room(&self) -> bool {
        self.inner.room.was_short()
    }

    /// How often commands were appended to the log here, each time with a sync, since the process started. Of commands that came
    /// at the same time, several are appended at once.
    pub(crate) fn log_appends(&self) -> u64 {
        self.inner.appends.load(Ordering::Relaxed)
    }

    /// Where this member's files are.
    pub(crate) fn dir(&self) -> &Path {
        self.inner.state.layout.dir()
    }

    /// Where members are reached whose address changed.
    pub(super) fn moved(&self) -> &Moved {
        &self.inner.moved
    }

    pub(super) fn gate(&self) -> &Gate {
        &self.inner.gate
    }

    pub(super) fn superseded(&self) -> &Superseded {
        &self.inner.superseded
    }

    pub(super) fn stopped(&self) -> CancellationToken {
        self.inner.stopped.clone()
    }

    pub(super) fn has_stopped(&self) -> bool {
        self.inner.stopped.is_cancelled()
    }

    /// How far each member, by id, has acknowledged what is committed; nothing unless this one leads.
    pub(crate) fn acknowledged(&self) -> Vec<(u64, u64)> {
        watching::acknowledged(&self.inner.raft)
    }

    pub(super) fn permits(&self) -> &Semaphore {
        &self.inner.permits
    }

    pub(super) fn parties(&self) -> &Parties {
        &self.inner.parties
    }

    pub(super) fn bounded(&self) -> &Bounded {
        &self.inner.bounded
    }

    pub(super) fn incoming(&self) -> &Incoming {
        &self.inner.incoming
    }

    /// The highest vote that this member knows.
    pub(super) fn vote(&self) -> Vote {
        watching::vote(&self.inner.raft)
    }

    pub(super) fn voters(&self) -> BTreeSet<u64> {
        watching::voters(&self.inner.raft)
    }

    /// Installs a snapshot that the leader with `vote` sent; the vote of this member then.
    pub(super) async fn install(&self, vote: Vote, snapshot: Snapshot) -> Result<Vote, WireError> {
        let failed = |why: String| WireError::new(ErrorCode::Unavailable, format!("installing a snapshot: {why}"));
        let meta = codec::snapshot_meta(snapshot.mark()).map_err(|e| failed(e.to_string()))?;
        let sent = openraft::alias::SnapshotOf::<Types, Snapshot> { meta, snapshot: snapshot.clone() };
        let installed = self.inner.raft.install_full_snapshot(vote, sent).await.map_err(|e| failed(e.to_string()))?;
        self.inner.incoming.installed(snapshot).await?;
        Ok(installed.vote)
    }
}

#[cfg(test)]
impl Group {
    pub(crate) fn state(&self) -> &Arc<State> {
        &self.inner.state
    }

    /// Waits until the log is purged up to `index`.
    pub(crate) async fn purged(&self, index: u64) {
        let purged = self.inner.raft.wait(Some(Duration::from_secs(30)));
        let enough = purged.metrics(|m| m.purged.is_some_and(|id| id.index >= index), "the log is purged").await;
        assert!(enough.is_ok(), "{enough:?}");
    }
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Group").field("dir", &self.inner.state.layout.dir()).finish_non_exhaustive()
    }
}

pub(super) fn unavailable(why: &str) -> ProposeError {
    ProposeError::Unavailable(format!("master group: {why}; whether the change took effect is unknown, try again"))
}
