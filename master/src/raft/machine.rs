//! Applying what the group committed.

use std::{io, sync::Arc};

use futures::StreamExt as _;
use openraft::{
    OptionalSend, RaftSnapshotBuilder,
    storage::{ApplyResponder, EntryResponder, RaftStateMachine},
};
use quarry_env::World;
use quarry_master_core::{
    apply::{Outcome, apply_entry},
    command::Command,
    tables::Overlay,
};

use super::{
    GroupError, codec,
    digests::Digests,
    open::InUse,
    types::{Answer, Entry, LogId, Payload, SnapshotMeta, StoredMembership, Types},
};
use crate::store::{Mark, Snapshot, State};

/// Entries applied by one batch. Bounds the memory of a batch, and how long readers of several rows wait.
const APPLY_BATCH: usize = 128;

/// The state machine that openraft drives.
pub(crate) struct Machine {
    world: World,
    state: Arc<State>,
    last: Option<LogId>,
    membership: StoredMembership,
    digests: Arc<Digests>,
    in_use: InUse,
}

type RaftSnapshot = openraft::alias::SnapshotOf<Types, Snapshot>;

impl Machine {
    /// Drives `state`. Blocks.
    pub(crate) fn new(
        world: &World,
        state: Arc<State>,
        digests: Arc<Digests>,
        in_use: InUse,
    ) -> Result<Self, GroupError> {
        let mark = state.mark()?;
        let applied = codec::applied(mark.as_ref());
        let (last, membership) = applied.map_err(|e| GroupError::io(state.layout.dir(), e))?;
        Ok(Machine { world: world.clone(), state, last, membership, digests, in_use })
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&State) -> Result<T, GroupError> + Send + 'static,
    ) -> io::Result<T> {
        blocking(&self.world, &self.state, work).await
    }

    /// A comparison is the last entry of its step, so that what is hashed is the state right after it.
    async fn apply_batch(&mut self, mut batch: Vec<EntryResponder<Types>>) -> io::Result<()> {
        while let Some(at) = batch.iter().position(|(entry, _)| is_comparison(entry)) {
            let rest = batch.split_off(at + 1);
            self.apply_step(std::mem::replace(&mut batch, rest)).await?;
            self.digest().await;
        }
        self.apply_step(batch).await
    }

    /// Begins to hash the state as it is now, unless another one is being hashed. A failure is no reason to stop.
    async fn digest(&self) {
        let Some(index) = self.last.map(|last| last.index).filter(|_| !self.digests.is_busy()) else { return };
        let state = Arc::clone(&self.state);
        match self.world.blocking.run(move || state.kv().freeze()).await {
            Ok(Ok(frozen)) => self.digests.begin(index, frozen, self.in_use.clone()),
            Ok(Err(error)) => tracing::warn!(index, %error, "the state cannot be compared"),
            Err(stopping) => tracing::debug!(index, %stopping, "the state is not compared"),
        }
    }

    async fn apply_step(&mut self, batch: Vec<EntryResponder<Types>>) -> io::Result<()> {
        let (entries, responders): (Vec<Entry>, Vec<Option<ApplyResponder<Types>>>) = batch.into_iter().unzip();
        let Some(last) = entries.last().map(|entry| entry.log_id) else { return Ok(()) };
        for entry in &entries {
            if let Payload::Membership(membership) = &entry.payload {
                self.membership = StoredMembership::new(Some(entry.log_id), membership.clone());
            }
        }
        let mark = codec::mark(&last, &self.membership);
        let answers = self.blocking(move |state| apply_entries(state, &mark, &entries)).await?;
        self.last = Some(last);
        // Answered only now that everybody sees the effects.
        for (responder, answer) in responders.into_iter().zip(answers) {
            if let Some(responder) = responder {
                responder.send(Answer(answer));
            }
        }
        Ok(())
    }
}

fn is_comparison(entry: &Entry) -> bool {
    matches!(&entry.payload, Payload::Normal(proposal) if Command::is_comparison(&proposal.0))
}

/// Runs `work` where it may block.
async fn blocking<T: Send + 'static>(
    world: &World,
    state: &Arc<State>,
    work: impl FnOnce(&State) -> Result<T, GroupError> + Send + 'static,
) -> io::Result<T> {
    let state = Arc::clone(state);
    let done = world.blocking.run(move || work(&state)).await.map_err(io::Error::other)?;
    Ok(done?)
}

/// Applies `entries`, all in one step.
pub(super) fn apply_entries(state: &State, mark: &Mark, entries: &[Entry]) -> Result<Vec<Option<Outcome>>, GroupError> {
    state.update(mark, |tables| {
        let mut overlay = Overlay::new(tables);
        let mut answers = Vec::with_capacity(entries.len());
        for entry in entries {
            let index = entry.log_id.index;
            answers.push(match &entry.payload {
                Payload::Normal(proposal) => Some(apply_entry(&mut overlay, index, &proposal.0, state.features)?),
                Payload::Blank | Payload::Membership(_) => None,
            });
        }
        Ok((overlay.into_changes(), answers))
    })
}

impl RaftStateMachine<Types> for Machine {
    /// A directory, by handle: sending it elsewhere is streaming its files.
    type SnapshotData = Snapshot;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.last, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, entries: Strm) -> Result<(), io::Error>
    where
        Strm: futures::Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        let mut batches = entries.ready_chunks(APPLY_BATCH);
        while let Some(batch) = batches.next().await {
            self.apply_batch(batch.into_iter().collect::<io::Result<_>>()?).await?;
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self::SnapshotBuilder {
        Builder { world: self.world.clone(), state: Arc::clone(&self.state), _in_use: self.in_use.clone() }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Snapshot) -> Result<(), io::Error> {
        if codec::snapshot_meta(snapshot.mark())? != *meta {
            let path = snapshot.path().display();
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{path} is not the snapshot {meta}")));
        }
        let mark = snapshot.mark().cloned();
        self.blocking(move |state| state.install(&snapshot)).await?;
        (self.last, self.membership) = codec::applied(mark.as_ref())?;
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<RaftSnapshot>, io::Error> {
        self.state.newest_snapshot().map(raft_snapshot).transpose()
    }
}

fn raft_snapshot(snapshot: Snapshot) -> io::Result<RaftSnapshot> {
    Ok(RaftSnapshot { meta: codec::snapshot_meta(snapshot.mark())?, snapshot })
}

/// Takes snapshots beside applying.
pub(crate) struct Builder {
    world: World,
    state: Arc<State>,
    _in_use: InUse,
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = Snapshot;

    async fn build_snapshot(&mut self) -> Result<RaftSnapshot, io::Error> {
        raft_snapshot(blocking(&self.world, &self.state, State::take_snapshot).await?)
    }
}
