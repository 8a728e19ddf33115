//! What every part of a running master uses.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use quarry_env::{Instant, World};
use quarry_master_core::{
    apply::Reply,
    command::{Command, Kind, ServerWish, SetServer},
    query,
    rows::Totals,
    running::RunningClock,
    tables::ReadTables,
};
use quarry_types::{ChunkId, ClusterId, ClusterKey, ErrorCode, Leadership, NodeId, ServerId};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{
    agreement::Agreement,
    dispatch::Dispatch,
    error::{Fault, fault, job_lost, query_fault},
    locations::Locations,
    orphans::Orphans,
    raft::{Group, View},
    reading::StaleReads,
    renewals::Renewals,
    repairing::{Repairing, Survey},
    servers::Servers,
    service::FULL_REPORTS,
    together::Together,
    verifying::Verifying,
};

/// One running master.
pub struct Shared {
    /// Its surroundings.
    pub world: World,
    /// The cluster.
    pub cluster: ClusterId,
    /// This master.
    pub node: NodeId,
    /// The cluster's key.
    pub key: ClusterKey,
    /// The replicated state.
    pub group: Group,
    /// A writer lease that is not renewed ends after this.
    pub lease: Duration,
    /// A session without a call ends after this.
    pub session: Duration,
    /// The present leadership; `None` while another master leads, or none.
    pub present: Mutex<Option<Arc<Leading>>>,
    /// Copies that ended.
    pub copies: CopyCounts,
    /// Reads that were allowed to be old.
    pub stale_reads: StaleReads,
    /// Look-ups for requests.
    pub lookups: Together,
    /// What silence is measured by. A leader looks at it all the time, see `driver::watch_health`.
    pub running: Mutex<RunningClock>,
    /// Held by whoever reads, changes and puts the settings as a whole: nobody else's change may fall between.
    pub changing_settings: tokio::sync::Mutex<()>,
    /// Held by whoever lets a master in or raises the feature level, which all members must know.
    pub changing_members: tokio::sync::Mutex<()>,
    /// Places of those who watch.
    pub watchers: Arc<Semaphore>,
}

/// Copies for repair, drains and balancing that ended since the process started.
#[derive(Debug, Default)]
pub struct CopyCounts {
    /// The target has the chunk.
    pub done: AtomicU64,
    /// It did not work, and is tried again.
    pub failed: AtomicU64,
    /// It was not needed any more.
    pub cancelled: AtomicU64,
    /// Bytes of those that are done.
    pub bytes: AtomicU64,
}

/// One leadership of this master, with everything that is learnt anew in each.
pub struct Leading {
    /// What fences older ones.
    pub leadership: Leadership,
    /// When it began.
    pub since: Instant,
    /// Commands to chunkservers.
    pub dispatch: Arc<Dispatch>,
    /// No open chunk has an id below this.
    pub open_watermark: AtomicU64,
    /// Deletions are held back (S6). A hold never begins while somebody leads, it can only end.
    held: AtomicBool,
    /// Cancelled when the leadership is over. Those who wait are woken in the order in which they came, which tokio's
    /// `watch` leaves to chance.
    pub ended: CancellationToken,
    /// Turns of full reports.
    pub reports: Semaphore,
    soft: Mutex<Soft>,
}

/// What a leader knows without having it in the log.
pub struct Soft {
    /// The registered chunkservers.
    pub servers: Servers,
    /// Which chunk is where.
    pub locations: Locations,
    /// Signs of life of sessions and leases.
    pub renewals: Renewals,
    /// Replicas of chunks that the namespace does not know.
    pub orphans: Orphans,
    /// Replicas that readers complained about.
    pub verifying: Verifying,
    /// Chunks that are not as they should be.
    pub repairing: Repairing,
    /// Whether the masters hold the same.
    pub agreement: Agreement,
    /// How much there is in the replicated state, as it was seen last.
    pub totals: Option<Totals>,
}

impl Soft {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(key: ClusterKey) -> Self {
        Soft {
            servers: Servers::default(),
            locations: Locations::new(key),
            orphans: Orphans::default(),
            renewals: Renewals::default(),
            verifying: Verifying::default(),
            repairing: Repairing::default(),
            agreement: Agreement::default(),
            totals: None,
        }
    }

    /// The first full report of a registration is here. Drops of the registration before that never arrived left a replica too
    /// many: nothing about it changes any more, so it is looked at now.
    pub fn reported_in_full(&mut self, server: ServerId) {
        for chunk in self.repairing.reported_in_full(server) {
            self.locations.look_again(chunk);
        }
    }

    /// A chunk that these servers wrote is sealed: what they reported of it is to be compared with the record now. It may be
    /// short of replicas already: a member that died before it reported, or before the commit, is in no later report.
    pub fn sealed(&mut self, chunk: ChunkId, servers: &[ServerId]) {
        self.servers.sealed(servers);
        self.locations.look_again(chunk);
        for server in servers {
            self.locations.compare_again(*server, chunk);
        }
    }
}

impl Leading {
    /// A leadership that has just begun.
    #[must_use]
    pub fn new(leadership: Leadership, since: Instant, dispatch: Arc<Dispatch>, key: ClusterKey) -> Self {
        let soft = Soft::new(key);
        let (open_watermark, ended) = (AtomicU64::new(0), CancellationToken::new());
        let reports = Semaphore::new(FULL_REPORTS);
        let held = AtomicBool::new(true);
        Leading { leadership, since, dispatch, open_watermark, held, ended, reports, soft: Mutex::new(soft) }
    }

    /// Whether deletions are held back; so they are until the leader has looked.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.held.load(Ordering::Acquire)
    }

    /// What the replicated state says of the hold. When it has ended, everything is compared once more: what was passed over
    /// takes place now.
    pub fn set_held(&self, held: bool) {
        if self.held.swap(held, Ordering::AcqRel) == held || held {
            return;
        }
        let mut soft = self.soft();
        let soft = &mut *soft;
        let servers: Vec<ServerId> = soft.locations.servers().collect();
        servers.into_iter().for_each(|server| soft.locations.compare_all_again(server));
        soft.repairing.survey = Survey::BEGIN;
    }

    /// The soft state. Hold it for a few map operations, never over an await.
    pub fn soft(&self) -> MutexGuard<'_, Soft> {
        // A panic under the lock leaves soft state that the next report corrects.
        self.soft.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// The present leadership, if there is one.
    pub fn present(&self) -> Option<Arc<Leading>> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends the present leadership and begins another, or none.
    pub fn lead(&self, leading: Option<Arc<Leading>>) {
        let before = std::mem::replace(&mut *self.present.lock().unwrap_or_else(PoisonError::into_inner), leading);
        if let Some(before) = before {
            before.ended.cancel();
        }
    }

    /// The present leadership.
    pub fn leading(&self) -> Result<Arc<Leading>, Fault> {
        if let Some(leading) = self.present() {
            return Ok(leading);
        }
        let state = self.group.leader().borrow().clone();
        if state.me_since_term.is_some() {
            return Err(fault(
                ErrorCode::Unavailable,
                "this master has just been elected and begins to lead; try again",
            ));
        }
        let whom = state.leader.as_deref().map_or("no leader is known".into(), |l| format!("the leader is {l}"));
        // Without figures, so that whoever says a thing once says this once.
        let doubt = self.group.in_doubt().map_or_else(String::new, |why| {
            format!(
                ", but no leader proves to this master that a majority of the masters stands by it{why}: see `quarry masters` \
                 and start those that do not run"
            )
        });
        // Clients are told of it also when in doubt: they may know no other way to one that leads again.
        let message = format!("this master does not lead the group: {whom}{doubt}");
        Err(Fault { leader: state.leader, ..fault(ErrorCode::NotLeader, message) })
    }

    /// Commits one command and gives what applying it answered.
    pub async fn propose(&self, kind: Kind) -> Result<Reply, Fault> {
        let command = Command { wall_ms: self.world.clock.wall_ms(), kind };
        self.group.propose(command).await?.map_err(|refusal| fault(refusal.code, refusal.message))
    }

    /// Reads the state, with everything that was acknowledged before.
    pub async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn ReadTables) -> Result<T, query::Fault> + Clone + Send + 'static,
    ) -> Result<T, Fault> {
        let view = self.group.read().await?;
        self.look(view, read).await
    }

    /// Reads a few rows of the state as applied here, as [`Shared::peek`] does, for a request that waits.
    pub async fn glance<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn ReadTables) -> Result<T, query::Fault> + Clone + Send + 'static,
    ) -> Result<T, Fault> {
        self.look(self.group.view(), read).await
    }

    /// On this thread, if the rows are in memory: handing it to another one and back costs more than the read.
    async fn look<T: Send + 'static>(
        &self,
        view: View,
        read: impl FnOnce(&dyn ReadTables) -> Result<T, query::Fault> + Clone + Send + 'static,
    ) -> Result<T, Fault> {
        if let Some(found) = view.at_hand(read.clone()) {
            return found.map_err(query_fault);
        }
        let looked = self.lookups.run(&*self.world.blocking, move || view.at_once(read));
        looked.await.map_err(job_lost)?.map_err(query_fault)
    }

    /// Reads the state as applied here, which on a leader lags behind by at most what is being applied.
    pub async fn peek<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn ReadTables) -> Result<T, query::Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        // Much of what a leader does by itself looks at many rows: it is not in the way of requests.
        let view = self.group.view();
        self.world.blocking.run(move || view.at_once(read)).await.map_err(job_lost)?.map_err(query_fault)
    }

    /// Changes what is wanted of a chunkserver, and lets the leader know at once.
    pub async fn set_server(
        &self,
        leading: &Leading,
        server: ServerId,
        wish: ServerWish,
        for_ms: u64,
        automatic: bool,
    ) -> Result<(), Fault> {
        self.propose(Kind::SetServer(SetServer { server, wish, for_ms, automatic })).await?;
        self.refresh(leading, server).await
    }

    /// Lets the leader know what the replicated state says of a server now.
    pub async fn refresh(&self, leading: &Leading, server: ServerId) -> Result<(), Fault> {
        let row = self.peek(move |tables| Ok(query::server(tables, server)?)).await?;
        if let Some(row) = row {
            leading.soft().servers.remember(server, row);
        }
        Ok(())
    }

    /// The present moment, on a clock that stands still while this process does (S10).
    pub fn now(&self) -> Instant {
        let now = self.world.clock.now();
        Instant(self.running.lock().unwrap_or_else(PoisonError::into_inner).look(now.0))
    }
}

/// An answer of apply that does not fit its command: a bug, and said so.
pub fn unexpected(reply: &Reply) -> Fault {
    fault(ErrorCode::Internal, format!("an unexpected answer of the replicated state: {reply:?}"))
}

#[cfg(test)]
mod tests {
    use quarry_types::{Crc32, ReplicaState};

    use super::*;
    use crate::locations::{Changed, Replica};

    #[test]
    fn s7_a_drop_that_did_not_arrive_is_decided_again_when_its_server_is_back() {
        let (server, chunk) = (ServerId::from_random(1), ChunkId(7));
        let mut soft = Soft::new(ClusterKey::new([7; 32]));
        let there = [(chunk, Replica { state: ReplicaState::Sealed, length: 1, crc: Crc32(7) })];
        soft.locations.full_report(server, 1, there.into());
        soft.locations.take_changed(10);
        soft.repairing.drop_sent(chunk, server);
        soft.locations.registered(server, false);
        soft.locations.full_report(server, 1, there.into());
        soft.reported_in_full(server);
        assert_eq!(
            soft.locations.take_changed(10),
            Changed::Chunks(vec![chunk]),
            "nothing but the drop would tell of it"
        );
    }
}
