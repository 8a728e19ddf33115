//! Bringing a data directory back into service while the server runs: the same one once it works again, or a new one in its
//! place.
//!
//! The checks are those of a start. A directory under which a sync failed is not taken back by the process that saw it:
//! what the kernel still shows may never have reached the disk (S1).

use std::sync::{Arc, PoisonError};

use quarry_chunkserver_core::identity::DirIdentity;
use quarry_types::{ChunkId, ErrorCode, ReplicaState};

use super::{
    DirConfig, StoreError,
    dir::{Dir, is_mount, lock},
    index::{Changes, Meta},
    open::{Found, Start, Trouble, bring_up, look},
    shared::Shared,
    sync_points,
};

impl Trouble {
    fn into_error(self) -> StoreError {
        match self {
            Trouble::Refused(error) => error,
            Trouble::Broken(why) => StoreError::new(ErrorCode::DiskFailed, why),
        }
    }
}

impl Shared {
    /// Tries to bring the directory at a place of the settings back.
    pub(super) fn restore(&self, slot: usize) {
        let Some(old) = self.dirs().get(slot).map(Arc::clone) else { return };
        match self.try_restore(slot, &old) {
            Ok(()) => tracing::info!(dir = %old.path.display(), "a data directory is in service again"),
            Err(error) => old.stays_out(&error.to_string()),
        }
    }

    fn try_restore(&self, slot: usize, old: &Arc<Dir>) -> Result<(), StoreError> {
        let disk = &*self.world.disk;
        let refused = |what: &str| {
            let message = format!("data directory {}: {what}", old.path.display());
            StoreError::new(ErrorCode::Mismatch, message)
        };
        match disk.exists(&old.path) {
            Ok(true) => {}
            Ok(false) => return Err(refused("it is not there")),
            Err(error) => return Err(StoreError::io(&old.path, "look at", &error)),
        }
        if old.mounted && !is_mount(disk, &old.path) {
            return Err(refused("nothing is mounted there, as there was before"));
        }
        old.close();
        let config = DirConfig { path: old.path.clone(), capacity: old.capacity };
        old.watch.begin();
        let found = look(disk, &config, Arc::clone(&old.watch)).map_err(Trouble::into_error)?;
        self.check_identity(slot, &found).map_err(|what| refused(&what))?;
        let (dir, meta, is_new) = bring_up(&self.world, found).map_err(Trouble::into_error)?;
        self.check_meta(old, &dir, &meta).map_err(|what| refused(&what))?;
        let dir = Arc::new(dir);
        let lost = self.lost_with(old);
        self.enlist(old, &dir, &meta, is_new, &lost)?;
        self.hand_fences_to(&dir, if dir.id == old.id { &[] } else { &lost })?;
        self.load_records(&dir)?;
        self.retire(old, &lost);
        self.recover_dir(&dir)?;
        let replicas: Vec<_> =
            lock(&self.state).replicas.values().filter(|r| Arc::ptr_eq(&r.dir, &dir)).cloned().collect();
        if let Some(place) = lock(&self.dirs).get_mut(slot) {
            *place = Arc::clone(&dir);
        }
        for replica in replicas {
            let record = lock(&replica.inner).record;
            self.note(&replica, &record);
        }
        Ok(())
    }

    /// Whose it is, as far as its identity says.
    fn check_identity(&self, slot: usize, found: &Found<'_>) -> Result<(), String> {
        // A new one is nobody's yet.
        let Some(identity) = found.identity else { return Ok(()) };
        let cluster = lock(&self.state).cluster;
        if identity.server != self.server {
            return Err(format!("it belongs to chunkserver {}", identity.server));
        }
        if let (Some(theirs), Some(ours)) = (identity.cluster, cluster)
            && theirs != ours
        {
            return Err(format!("it belongs to cluster {theirs}"));
        }
        let used = |(other, dir): (usize, &Arc<Dir>)| other != slot && dir.id == Some(identity.directory);
        if self.dirs().iter().enumerate().any(used) {
            return Err("it is a copy of another of this server's directories".into());
        }
        if lock(&self.poisoned).contains(&identity.directory) {
            return Err(
                "a sync failed there, so that what it shows may not be on the disk; replace the disk, or restart the \
                        chunkserver once the disk is known to be good"
                    .into(),
            );
        }
        Ok(())
    }

    /// Whether its index is of this server's present life, or at least of its history.
    fn check_meta(&self, old: &Dir, dir: &Dir, meta: &Meta) -> Result<(), String> {
        let state = lock(&self.state);
        let read = dir.id.is_some_and(|id| state.roster.read.contains(&id));
        if dir.id == old.id && read && meta.start_counter < self.start_counter {
            return Err(
                "it is an older copy of what was there when this process started; restart the chunkserver to use \
                        it all the same"
                    .into(),
            );
        }
        match (meta.leadership, state.leadership) {
            (Some(theirs), Some(ours)) if theirs.accepts(&ours).is_err() => {
                Err("it follows a newer master, or one of another history; restart the chunkserver to use it".into())
            }
            (Some(_), None) => Err("it follows a master, and this chunkserver has not met one yet; restart it".into()),
            _ => Ok(()),
        }
    }

    /// The replicas that only a directory out of service has.
    fn lost_with(&self, old: &Arc<Dir>) -> Vec<ChunkId> {
        let state = lock(&self.state);
        state.replicas.values().filter(|r| Arc::ptr_eq(&r.dir, old)).map(|r| r.chunk).collect()
    }

    /// Makes it one of this server's directories: first in the rosters of the others, so that none of them ever misses a
    /// directory that has chunks; its identity comes last.
    fn enlist(&self, old: &Dir, dir: &Arc<Dir>, meta: &Meta, is_new: bool, lost: &[ChunkId]) -> Result<(), StoreError> {
        // The leadership does not change meanwhile.
        let _alone = self.following.write().unwrap_or_else(PoisonError::into_inner);
        let (start, cluster) = {
            let mut state = lock(&self.state);
            if let Some(old) = old.id.filter(|old| Some(*old) != dir.id && state.roster.read.contains(old)) {
                let end = lost.last().map_or(ChunkId(0), |last| ChunkId(last.0.saturating_add(1)));
                state.roster.rows.insert(old, Some(end));
            }
            state.roster.rows.extend(dir.id.map(|id| (id, None)));
            state.watermark = state.watermark.max(meta.watermark);
            let start = Start {
                counter: self.start_counter.max(meta.start_counter),
                leadership: state.leadership,
                watermark: state.watermark,
                roster: state.roster.rows.clone(),
            };
            (start, state.cluster)
        };
        if self.working().next().is_some() {
            let changes = || Changes::default().start(self.start_counter, &start.roster);
            self.write_all(changes, sync_points::START)?;
        }
        let identity = DirIdentity { cluster, server: self.server, directory: dir.id.unwrap_or_default() };
        start.persist(&self.world, dir, meta, identity, is_new)
    }

    /// Ends what is left of the replicas that the directory had. Those that are not here again stay known as lost where a
    /// fence may still ask for them: "never seen" would not be true (S1).
    fn retire(&self, old: &Arc<Dir>, lost: &[ChunkId]) {
        for chunk in lost {
            let replica = lock(&self.state).replicas.get(chunk).cloned();
            let Some(replica) = replica.filter(|replica| Arc::ptr_eq(&replica.dir, old)) else { continue };
            let mut inner = lock(&replica.inner);
            inner.stopped = true;
            let was_open = inner.record.state == ReplicaState::Open;
            self.closed(&mut inner);
            let mut state = lock(&self.state);
            if *chunk < state.watermark && !was_open {
                inner.gone = true;
                state.replicas.remove(chunk);
            }
        }
    }
}
