//! Snapshots: checkpoints of the state, as directories.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, MutexGuard, PoisonError},
};

use quarry_env::{OpenMode, Space, World};
use quarry_master_core::{keys, tables::Table};
use quarry_proto::v1;

use super::{
    Layout, Mark, State,
    state::{Open, check_level, open_checkpoint, open_kv, read_mark},
};
use crate::{raft::GroupError, sync_points};

/// `META` is at most this long, in bytes: it holds a mark, which holds the members.
const META_MAX: usize = 1 << 20;
/// Rows read in one go while a snapshot is verified.
const VERIFY_STEP: usize = 1024;

/// A snapshot: a directory that stays as it is while this handle or a clone lives, so that its files can be streamed.
/// No value passes through memory.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    mark: Option<Mark>,
}

impl Snapshot {
    /// The directory, with `META` and the checkpoint in `kv/`.
    pub(crate) fn path(&self) -> &Path {
        &self.0.path
    }

    /// How far its state is applied; `None` for an empty one.
    pub(crate) fn mark(&self) -> Option<&Mark> {
        self.0.mark.as_ref()
    }

    /// Its files, `META` last, as when it was taken: where that is, everything is. Blocks.
    pub(crate) fn files(&self, world: &World) -> io::Result<Vec<v1::SnapshotFile>> {
        let mut files = Vec::new();
        for found in world.disk.list(&self.path().join("kv"))? {
            let name = found.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
            let length = world.disk.open(&found, OpenMode::Read)?.len()?;
            files.push(v1::SnapshotFile { name: format!("kv/{name}"), length });
        }
        let length = world.disk.open(&self.path().join("META"), OpenMode::Read)?.len()?;
        files.push(v1::SnapshotFile { name: "META".into(), length });
        Ok(files)
    }

    /// Reads every row, which checks every block that holds one: damage on its sender's disk came along as it was. Blocks.
    pub(crate) fn verify(&self, world: &World) -> Result<(), GroupError> {
        let path = self.path().join("kv");
        let kv = open_checkpoint(world, &path)?;
        if read_mark(&*kv, &path)?.as_ref() != self.mark() {
            return Err(GroupError::corrupt(&path, "the snapshot does not hold what its META says"));
        }
        for table in Table::ALL {
            let mut from = Vec::new();
            loop {
                let rows = kv.scan(Space(table.name()), &from, None, VERIFY_STEP)?;
                match rows.last() {
                    Some((last, _)) if rows.len() == VERIFY_STEP => from = keys::behind(last),
                    _ => break,
                }
            }
        }
        Ok(())
    }

    fn index(&self) -> Option<u64> {
        self.mark().map(|mark| mark.index)
    }

    /// The snapshot in the directory `path`; `None` when it was never finished.
    pub(crate) fn load(world: &World, path: &Path) -> Result<Option<Self>, GroupError> {
        let meta = path.join("META");
        let bytes = match world.disk.read_small(&meta, META_MAX) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(GroupError::io(&meta, error)),
        };
        let mark = (bytes != Mark::NONE).then(|| Mark::from_bytes(&bytes, &meta)).transpose()?;
        Ok(Some(Snapshot(Arc::new(Inner { path: path.to_owned(), mark }))))
    }

    /// The newest snapshot in `layout`, alone; removes unfinished and older ones.
    pub(crate) fn load_all(world: &World, layout: &Layout) -> Result<Vec<Self>, GroupError> {
        let mut found: Vec<Snapshot> = Vec::new();
        for name in layout.names("snapshot")? {
            let path = layout.snapshot(&name);
            match Self::load(world, &path)? {
                Some(snapshot) => found.push(snapshot),
                None => layout.remove(&path)?,
            }
        }
        found.sort_by_key(Snapshot::index);
        let newest = found.pop();
        for older in &found {
            layout.remove(older.path())?;
        }
        Ok(newest.into_iter().collect())
    }
}

impl State {
    fn lock_snapshots(&self) -> MutexGuard<'_, Vec<Snapshot>> {
        self.snapshots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest snapshot.
    pub(crate) fn newest_snapshot(&self) -> Option<Snapshot> {
        self.lock_snapshots().last().cloned()
    }

    /// The index up to which the newest snapshot, which is durable, makes log entries dispensable.
    pub(crate) fn durable_index(&self) -> Option<u64> {
        self.newest_snapshot()?.index()
    }

    /// Takes a snapshot without stopping anyone, and lets older ones go that nobody reads.
    pub(crate) fn take_snapshot(&self) -> Result<Snapshot, GroupError> {
        let mut snapshots = self.lock_snapshots();
        let snapshot = self.checkpoint()?;
        snapshots.push(snapshot.clone());
        self.drop_unused(&mut snapshots)?;
        Ok(snapshot)
    }

    fn checkpoint(&self) -> Result<Snapshot, GroupError> {
        let index = self.mark()?.map_or(0, |mark| mark.index);
        let path = self.layout.snapshot(&self.layout.new_name(index));
        let disk = &self.world.disk;
        disk.create_dir_all(&path).map_err(|e| GroupError::io(&path, e))?;
        let kv = path.join("kv");
        self.kv().checkpoint(&kv)?;
        // Commands were applied meanwhile: only the checkpoint itself knows how far it goes.
        let mark = read_mark(&*open_checkpoint(&self.world, &kv)?, &kv)?;
        let meta = path.join("META");
        let bytes = mark.as_ref().map_or_else(|| Mark::NONE.to_vec(), Mark::to_bytes);
        disk.write_small(&meta, &bytes, sync_points::SNAPSHOT_TAKEN).map_err(|e| GroupError::io(&meta, e))?;
        let parent = self.layout.dir();
        disk.sync_dir(parent, sync_points::SNAPSHOT_NAME).map_err(|e| GroupError::io(parent, e))?;
        Ok(Snapshot(Arc::new(Inner { path, mark })))
    }

    /// Removes all but the newest snapshot, except those that somebody still reads.
    fn drop_unused(&self, snapshots: &mut Vec<Snapshot>) -> Result<(), GroupError> {
        let newest = snapshots.pop();
        let mut kept = Vec::new();
        for snapshot in snapshots.drain(..) {
            if Arc::strong_count(&snapshot.0) > 1 {
                kept.push(snapshot);
            } else {
                self.layout.remove(snapshot.path())?;
            }
        }
        kept.extend(newest);
        *snapshots = kept;
        Ok(())
    }

    /// Replaces the state by that of `snapshot`: builds it beside the old one, then switches in one atomic step. A crash
    /// anywhere leaves the old or the new state.
    pub(crate) fn install(&self, snapshot: &Snapshot) -> Result<(), GroupError> {
        let mut snapshots = self.lock_snapshots();
        let name = self.layout.new_name(snapshot.index().unwrap_or_default());
        let path = self.layout.state(&name);
        {
            let from = snapshot.path().join("kv");
            let source = open_checkpoint(&self.world, &from)?;
            if read_mark(&*source, &from)?.as_ref() != snapshot.mark() {
                return Err(GroupError::corrupt(&from, "the snapshot does not hold what its META says"));
            }
            check_level(&*source, self.features, &from)?;
            source.checkpoint(&path)?;
        }
        let kv = open_kv(&self.world, &path)?;
        self.replace(Open { name, kv }, |name| self.layout.switch_to(name))?;
        // One of our own stays the newest; for one from elsewhere we need one that is ours.
        if snapshots.last().is_none_or(|newest| newest.path() != snapshot.path()) {
            let own = self.checkpoint()?;
            snapshots.push(own);
            self.drop_unused(&mut snapshots)?;
        }
        Ok(())
    }
}
