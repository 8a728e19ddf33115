//! Files of replicas in quarantine that a verified copy has replaced: kept for people to look at, never served (S2).
//!
//! ```text
//! <dir>/quarantine/<16 hex>.<n>   the chunk's whole id; the n-th file of it
//! ```
//! Their age is counted on this process's clock, from when it first saw them: no wall clock can make one go early, and a
//! restart only keeps them longer (S10). A power loss may take them; nothing counts on them.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use quarry_env::{Instant, OpenMode};

use super::{
    StoreError,
    dir::{Dir, lock},
    replica::Replica,
    shared::Shared,
};

/// Files kept in all directories together; past them the one kept longest goes.
pub(super) const KEPT_MAX: usize = 256;

/// A file that is kept.
pub(super) struct Kept {
    dir: Arc<Dir>,
    since: Instant,
    bytes: u64,
}

/// All of them, by path.
pub(super) type KeptFiles = BTreeMap<PathBuf, Kept>;

fn directory(dir: &Dir) -> PathBuf {
    dir.path.join("quarantine")
}

impl Shared {
    /// Moves the file of a replica in quarantine aside; fine when there is none.
    pub(super) fn keep(&self, replica: &Replica) -> Result<(), StoreError> {
        let (disk, from) = (&*self.world.disk, replica.dir.file(replica.chunk));
        let bytes = length(disk, &from).map_err(|e| StoreError::io(&from, "move to quarantine/", &e))?;
        match bytes {
            Some(bytes) => self.keep_as(replica, bytes, |to| disk.rename(&from, to)),
            None => Ok(()),
        }
    }

    /// The same with the row of one in the index, as the file that it stood for.
    pub(super) fn keep_bytes(&self, replica: &Replica, file: &[u8]) -> Result<(), StoreError> {
        let disk = &*self.world.disk;
        self.keep_as(replica, file.len() as u64, |to| {
            // One that is there already is somebody else's.
            let written = disk.open(to, OpenMode::CreateNew)?.write_all_at(file, 0);
            if written.is_err() {
                // A part of it would be in the way of the next one.
                drop(disk.remove_file(to));
            }
            written
        })
    }

    fn keep_as(
        &self,
        replica: &Replica,
        bytes: u64,
        put: impl FnOnce(&Path) -> io::Result<()>,
    ) -> Result<(), StoreError> {
        let (disk, dir) = (&*self.world.disk, &replica.dir);
        let place = directory(dir);
        let failed = |e: io::Error| StoreError::io(&place, "keep a file in", &e);
        disk.create_dir_all(&place).map_err(failed)?;
        let mut kept = lock(&self.kept);
        let name = |n: u64| place.join(format!("{:016x}.{n}", replica.chunk.0));
        // There are at most as many names as files are kept.
        let Some(to) = (1..).map(name).find(|path| !kept.contains_key(path)) else { return Ok(()) };
        put(&to).map_err(failed)?;
        tracing::info!(chunk = %replica.chunk, file = %to.display(), "the file in quarantine is kept beside the new copy");
        dir.count(bytes);
        kept.insert(to, Kept { dir: Arc::clone(dir), since: self.world.clock.now(), bytes });
        while kept.len() > KEPT_MAX
            && let Some(oldest) = kept.iter().min_by_key(|(_, kept)| kept.since).map(|(path, _)| path.clone())
        {
            self.remove_file(&mut kept, &oldest);
        }
        Ok(())
    }

    /// Counts the files that an earlier process kept.
    pub(super) fn find_kept(&self, dir: &Arc<Dir>) -> Result<(), StoreError> {
        let (disk, place) = (&*self.world.disk, directory(dir));
        let failed = |e: io::Error| StoreError::io(&place, "list", &e);
        if !disk.exists(&place).map_err(failed)? {
            return Ok(());
        }
        let mut kept = lock(&self.kept);
        for path in disk.list(&place).map_err(failed)? {
            let Some(bytes) = length(disk, &path).map_err(failed)? else { continue };
            dir.count(bytes);
            kept.insert(path, Kept { dir: Arc::clone(dir), since: self.world.clock.now(), bytes });
        }
        Ok(())
    }

    /// Removes what has been kept for longer than `keep`; how many files.
    pub(super) fn remove_kept(&self, keep: Duration) -> usize {
        let now = self.world.clock.now();
        let mut kept = lock(&self.kept);
        let old: Vec<_> =
            kept.iter().filter(|(_, kept)| now.since(kept.since) > keep).map(|(path, _)| path.clone()).collect();
        old.iter().filter(|path| self.remove_file(&mut kept, path)).count()
    }

    /// A file that cannot be removed is not tried again before the next start.
    fn remove_file(&self, kept: &mut KeptFiles, path: &Path) -> bool {
        let Some(file) = kept.remove(path) else { return false };
        match self.world.disk.remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(file = %path.display(), %error, "a file in quarantine stays until the next start");
                false
            }
            _ => {
                file.dir.release(file.bytes);
                true
            }
        }
    }
}

fn length(disk: &dyn quarry_env::Disk, path: &Path) -> io::Result<Option<u64>> {
    match disk.open(path, OpenMode::Read) {
        Ok(file) => file.len().map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
