//! Data directories that go out of service while the server runs.
//!
//! A directory is looked at every few seconds, each on its own, so that one that hangs holds up no other; and calls that
//! fail say at once what they mean ([`super::watched`]). One that is out loses only its own replicas: they leave the
//! inventory, and the master has them copied elsewhere. What was fenced or deleted there stays refused: the other
//! directories take those fences over before anything else happens (S5).

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures::future::join_all;
use quarry_chunkserver_core::{
    disk_health::{Call, Verdict, judge},
    identity::DirIdentity,
};
use quarry_env::clock::timeout;
use quarry_types::{ChunkId, ErrorCode};
use uuid::Uuid;

use super::{
    DiskStatus, Store, StoreError,
    dir::{Dir, lock},
    index::Changes,
    open::{IDENTITY, IDENTITY_LIMIT},
    shared::{Shared, State},
    sync_points, work,
};

/// A directory that has not answered after this is out of service.
pub(super) const LOOK_DEADLINE: Duration = Duration::from_secs(10);
/// A directory that does not say within this how full it is, is shown as it was.
const STATUS_DEADLINE: Duration = Duration::from_secs(1);
/// Fences written to an index at once.
const BATCH: usize = 1024;

/// All directories that this server has ever had.
#[derive(Default)]
pub(super) struct Roster {
    /// Of one that was given up, the end of the chunk ids that it held: what is unknown from there on was never in it.
    pub(super) rows: BTreeMap<Uuid, Option<ChunkId>>,
    /// Those whose records this process has read.
    pub(super) read: BTreeSet<Uuid>,
}

impl Shared {
    /// Milliseconds since the process began.
    pub(super) fn now_ms(&self) -> i64 {
        i64::try_from(self.world.clock.now().0.as_millis()).unwrap_or(i64::MAX)
    }

    /// Whether a directory that this server once had is not here, or could not be read: it does not know what it held.
    pub(super) fn forgetful(&self) -> bool {
        let dirs = self.dirs();
        let state = lock(&self.state);
        let unread = |id: &Uuid| !state.roster.read.contains(id);
        dirs.iter().any(|dir| !dir.works() && dir.id.is_none_or(|id| unread(&id)))
            || state.roster.rows.iter().any(|(id, end)| unread(id) && end.is_none_or(|end| end > state.watermark))
    }

    /// Takes a directory out of service. May be called with a replica's lock held.
    pub(super) fn fail_dir(&self, dir: &Arc<Dir>, why: &str) {
        if !dir.fail(why) {
            return;
        }
        let lost: Vec<_> = {
            let mut state = lock(&self.state);
            let here = state.replicas.values().filter(|r| Arc::ptr_eq(&r.dir, dir));
            let lost: Vec<_> = here.map(|replica| replica.chunk).collect();
            for chunk in &lost {
                state.inventory.remove(*chunk);
                state.schedule.remove(*chunk);
            }
            lost
        };
        for chunk in &lost {
            lock(&self.files).evict(*chunk);
        }
        let fences = fences(&lock(&self.state), &lost);
        for batch in fences.chunks(BATCH) {
            let changes = || batch.iter().fold(Changes::default(), |changes, chunk| changes.tombstone(*chunk));
            if let Err(error) = self.write_all(changes, sync_points::TOMBSTONE) {
                tracing::warn!(%error, "no other directory takes the fences over");
                return;
            }
        }
    }

    /// Everything that is refused here, into one directory.
    pub(super) fn hand_fences_to(&self, dir: &Arc<Dir>, lost: &[ChunkId]) -> Result<(), StoreError> {
        let fences = fences(&lock(&self.state), lost);
        for batch in fences.chunks(BATCH) {
            let changes = batch.iter().fold(Changes::default(), |changes, chunk| changes.tombstone(*chunk));
            self.write_index(dir, changes, sync_points::TOMBSTONE)?;
        }
        Ok(())
    }

    /// Whether the directory is still the one that came into service. When it is not, it is out.
    pub(super) fn is_there(&self, dir: &Arc<Dir>) -> bool {
        let path = dir.path.join(IDENTITY);
        let gone = match self.world.disk.read_small(&path, IDENTITY_LIMIT) {
            Ok(bytes) if DirIdentity::decode(&bytes).is_ok_and(|identity| Some(identity.directory) == dir.id) => {
                return true;
            }
            Ok(_) => format!("{} is damaged, or of another directory that stands in its place", path.display()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                format!("{} is gone; was the disk unmounted, or the directory removed?", path.display())
            }
            Err(error) if judge(Call::Read, &error) == Verdict::Nothing => return true,
            Err(error) => StoreError::io(&path, "read", &error).to_string(),
        };
        self.fail_dir(dir, &gone);
        false
    }

    /// Looks whether a directory still works.
    fn look_at(&self, dir: &Arc<Dir>) {
        if dir.works() && self.is_there(dir) {
            // What its errors mean was noted with the calls.
            let _noted = self.probe(dir);
        }
        self.obey_verdict(dir);
    }

    /// Ends the service of a directory whose calls failed in a way that asks for it.
    pub(super) fn obey_verdict(&self, dir: &Arc<Dir>) {
        let Some((verdict, why)) = dir.watch.take_verdict() else { return };
        if verdict == Verdict::Poisoned {
            lock(&self.poisoned).extend(dir.id);
        }
        self.fail_dir(dir, &why);
    }

    /// Compares the disks with one another.
    fn compare_disks(&self) {
        let dirs: Vec<_> = self.working().collect();
        let recent: Vec<_> = dirs.iter().map(|dir| lock(&dir.watch.health).recent()).collect();
        let now_ms = u64::try_from(self.now_ms()).unwrap_or(0);
        for (i, dir) in dirs.iter().enumerate() {
            let others: Vec<_> =
                recent.iter().enumerate().filter(|(other, _)| *other != i).map(|(_, recent)| *recent).collect();
            let mut health = lock(&dir.watch.health);
            let was = health.slow();
            health.compare(&others, now_ms);
            if health.slow() != was {
                let (slow, latency_us) = (health.slow(), health.latency_us());
                tracing::warn!(dir = %dir.path.display(), slow, latency_us, "a disk's speed changed against the others");
            }
        }
    }
}

/// What has to stay refused: the tombstones, and lost replicas that a writer may still be after.
fn fences(state: &State, lost: &[ChunkId]) -> Vec<ChunkId> {
    let lost = lost.iter().copied().filter(|chunk| *chunk >= state.watermark);
    let kept = state.tombstones.iter().filter(|(_, durable)| **durable).map(|(chunk, _)| *chunk);
    lost.chain(kept).collect()
}

impl Store {
    /// Looks after every data directory once: those in service must answer, those out of service are brought back where
    /// they can be. Takes at most some seconds, whatever a disk does.
    pub async fn look_after_disks(&self) {
        let slots = self.0.dirs().len();
        join_all((0..slots).map(|slot| self.look_after(slot))).await;
        // Says nothing when the process stops.
        let _compared = work(&self.0, |shared| {
            shared.compare_disks();
            Ok(())
        })
        .await;
    }

    /// The same of one of them.
    pub(super) async fn look_after(&self, slot: usize) {
        let Some(dir) = self.0.dirs().get(slot).map(Arc::clone) else { return };
        // A job of an earlier look may still hang in it; then there is nothing to learn.
        if !dir.busy.swap(true, Ordering::AcqRel) {
            let looked_at = Arc::clone(&dir);
            let job = work(&self.0, move |shared| {
                if looked_at.works() {
                    shared.look_at(&looked_at);
                } else {
                    shared.restore(slot);
                }
                looked_at.busy.store(false, Ordering::Release);
                Ok(())
            });
            if timeout(&*self.0.world.clock, LOOK_DEADLINE, job).await.is_ok() {
                return;
            }
        }
        if dir.works() {
            let why = format!("it has not answered for {} s", LOOK_DEADLINE.as_secs());
            let _stopping = work(&self.0, move |shared| {
                shared.fail_dir(&dir, &why);
                Ok(())
            })
            .await;
        }
    }

    /// Completes when a call to a disk failed in a way that ends a directory's service: then
    /// [`Store::look_after_disks`] is due. For one waiter.
    pub async fn disk_alarm(&self) {
        self.0.alarm.notified().await;
    }

    /// The data directories, as the file systems answer now; one that does not answer soon, as it answered last.
    ///
    /// # Errors
    /// Unavailable while the process stops.
    pub async fn disks(&self) -> Result<Vec<DiskStatus>, StoreError> {
        let asked = self.0.dirs().into_iter().map(|dir| self.ask(dir));
        join_all(asked).await.into_iter().collect()
    }

    async fn ask(&self, dir: Arc<Dir>) -> Result<DiskStatus, StoreError> {
        if !dir.works() || dir.asked.swap(true, Ordering::AcqRel) {
            return Ok(dir.last_status());
        }
        let asked = Arc::clone(&dir);
        let job = work(&self.0, move |shared| {
            let status = asked.status(&*shared.world.disk);
            asked.asked.store(false, Ordering::Release);
            Ok(status)
        });
        match timeout(&*self.0.world.clock, STATUS_DEADLINE, job).await {
            Ok(status) => status,
            Err(_late) => Ok(dir.last_status()),
        }
    }

    /// The data directories as they were when last asked; asks nothing and waits for nothing.
    #[must_use]
    pub fn disks_seen(&self) -> Vec<DiskStatus> {
        self.0.dirs().iter().map(|dir| dir.last_status()).collect()
    }

    /// Whether a directory is in service.
    ///
    /// # Errors
    /// DiskFailed with the reasons.
    pub fn has_disk(&self) -> Result<(), StoreError> {
        let dirs = self.0.dirs();
        if dirs.iter().any(|dir| dir.works()) {
            return Ok(());
        }
        let why: Vec<_> = dirs.iter().filter_map(|dir| dir.index().err()).map(|error| error.to_string()).collect();
        Err(StoreError::new(ErrorCode::DiskFailed, why.join("; ")))
    }
}
