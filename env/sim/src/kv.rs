//! A metadata store as one log file on a disk, read into sorted maps.
//!
//! # Fault model
//!
//! The store has the promises of [`quarry_env::Kv`] and no more. Every batch is one record with a length and a
//! checksum, appended to `<path>/batches.log`; opening replays them up to the first record that does not check, and writes what
//! they add up to anew. After a power loss a random number of the newest batches since the last sync is therefore missing, and
//! never a batch without all after it. A store is a directory of ordinary files of its disk: it can be listed,
//! renamed, removed, filled up and corrupted like any other, and [`SimDisk::skip_sync`](crate::SimDisk::skip_sync)
//! reaches the sync points that callers name. The store's own housekeeping (creation, checkpoints, cutting a torn tail)
//! is synced under [`HOUSEKEEPING`]; skipping that one would test this file and nothing of Quarry. The name of the
//! store's directory is its caller's to sync, as it is with RocksDB.
//!
//! With [`Recovery::Synced`], whole records behind a damaged one refuse to open: what was synced may be among them
//! (S11). As with RocksDB, several unsynced batches that the disk kept in the wrong order look just the same.

mod log;

use std::{
    collections::BTreeMap,
    io,
    ops::Bound,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use quarry_env::{
    Batch, Disk, DiskFile, Kv, KvError, KvFactory, KvOptions, Recovery, Space, SyncPoint,
    kv::{AtHand, Change, Frozen, Pair},
};

use crate::SimDisk;

/// The sync point of the store's own housekeeping.
pub const HOUSEKEEPING: SyncPoint = SyncPoint("sim-kv-housekeeping");

/// The rows of one space.
pub type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

type Maps = BTreeMap<String, Rows>;

/// Opens stores on one disk.
pub struct SimKvFactory {
    disk: Arc<dyn Disk>,
}

struct SimKv {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    inner: Mutex<Inner>,
    _lock: Box<dyn Send + Sync>,
}

struct Inner {
    maps: Maps,
    file: Box<dyn DiskFile>,
    /// Where the next record goes.
    end: u64,
    /// What broke the store.
    broken: Option<String>,
}

impl SimKvFactory {
    /// Opens stores on `disk`. With a [mount](crate::SimDisk::mount) they die with it.
    #[must_use]
    pub fn new(disk: Arc<dyn Disk>) -> Self {
        SimKvFactory { disk }
    }
}

/// What the store at `path` has certainly kept of a space when the power goes away now. For tests that compare with the
/// truth; a store that is not there has no rows.
#[must_use]
pub fn durable_rows(disk: &SimDisk, path: &Path, space: Space) -> Rows {
    let bytes = disk.durable(&path.join(log::FILE)).unwrap_or_default();
    log::replay_all(&bytes).0.remove(space.0).unwrap_or_default()
}

/// The same of what was written, synced or not: what is there when only the process ends.
#[must_use]
pub fn written_rows(disk: &SimDisk, path: &Path, space: Space) -> Rows {
    let bytes = disk.contents(&path.join(log::FILE)).unwrap_or_default();
    log::replay_all(&bytes).0.remove(space.0).unwrap_or_default()
}

impl std::fmt::Debug for SimKvFactory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimKvFactory").finish_non_exhaustive()
    }
}

fn failed(path: &Path, error: impl std::fmt::Display) -> KvError {
    KvError::Failed { path: path.display().to_string(), message: error.to_string() }
}

fn io_failed(path: &Path, error: &io::Error) -> KvError {
    if error.kind() == io::ErrorKind::StorageFull {
        return KvError::Full { path: path.display().to_string() };
    }
    failed(path, error)
}

impl KvFactory for SimKvFactory {
    fn open(&self, path: &Path, spaces: &[Space], options: KvOptions) -> Result<Arc<dyn Kv>, KvError> {
        let on_io = |error: io::Error| io_failed(path, &error);
        self.disk.create_dir_all(path).map_err(on_io)?;
        let lock = self.disk.lock(&path.join("LOCK")).map_err(on_io)?;
        let (file, mut maps, end) =
            log::open(&*self.disk, path, options.recovery == Recovery::Prefix).map_err(on_io)?;
        for space in spaces {
            maps.entry(space.0.to_owned()).or_default();
        }
        let inner = Mutex::new(Inner { maps, file, end, broken: None });
        Ok(Arc::new(SimKv { disk: Arc::clone(&self.disk), path: path.to_owned(), inner, _lock: lock }))
    }
}

impl SimKv {
    fn inner(&self) -> Result<MutexGuard<'_, Inner>, KvError> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(why) = &inner.broken {
            return Err(failed(&self.path, why));
        }
        // A store whose machine went down must not go on answering from memory.
        inner.file.len().map_err(|e| failed(&self.path, e))?;
        Ok(inner)
    }

    fn sync(&self, inner: &mut Inner, point: SyncPoint) -> Result<(), KvError> {
        inner.file.sync_data(point).map_err(|e| {
            inner.broken = Some(format!("an earlier sync failed: {e}"));
            failed(&self.path, e)
        })
    }
}

impl Inner {
    fn map<'a>(&'a self, path: &Path, space: Space) -> Result<&'a BTreeMap<Vec<u8>, Vec<u8>>, KvError> {
        self.maps.get(space.0).ok_or_else(|| failed(path, format!("space {} was not opened", space.0)))
    }
}

fn apply(maps: &mut Maps, changes: &[Change]) {
    for change in changes {
        match change {
            Change::Put(space, key, value) => {
                maps.entry(space.0.to_owned()).or_default().insert(key.clone(), value.clone());
            }
            Change::Delete(space, key) => {
                maps.entry(space.0.to_owned()).or_default().remove(key);
            }
            Change::DeleteRange(space, from, to) => {
                delete_range(maps.entry(space.0.to_owned()).or_default(), from, to);
            }
        }
    }
}

fn delete_range(map: &mut BTreeMap<Vec<u8>, Vec<u8>>, from: &[u8], to: &[u8]) {
    if from < to {
        let mut middle = map.split_off(from);
        let mut rest = middle.split_off(to);
        map.append(&mut rest);
    }
}

impl Kv for SimKv {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        Ok(self.inner()?.map(&self.path, space)?.get(key).cloned())
    }

    fn scan(&self, space: Space, from: &[u8], to: Option<&[u8]>, limit: usize) -> Result<Vec<Pair>, KvError> {
        scan(&self.inner()?.maps, &self.path, space, from, to, limit)
    }

    fn get_at_hand(&self, space: Space, key: &[u8]) -> Result<AtHand<Option<Vec<u8>>>, KvError> {
        self.get(space, key).map(AtHand::Found)
    }

    fn scan_at_hand(
        &self,
        space: Space,
        from: &[u8],
        to: Option<&[u8]>,
        limit: usize,
    ) -> Result<AtHand<Vec<Pair>>, KvError> {
        self.scan(space, from, to, limit).map(AtHand::Found)
    }

    fn last(&self, space: Space) -> Result<Option<Pair>, KvError> {
        let inner = self.inner()?;
        Ok(inner.map(&self.path, space)?.last_key_value().map(|(key, value)| (key.clone(), value.clone())))
    }

    fn write(&self, batch: Batch, sync: Option<SyncPoint>) -> Result<(), KvError> {
        let mut inner = self.inner()?;
        for change in &batch.changes {
            let (Change::Put(space, ..) | Change::Delete(space, ..) | Change::DeleteRange(space, ..)) = change;
            inner.map(&self.path, *space)?;
        }
        let record = log::record(&batch.changes);
        let end = inner.end;
        inner.file.write_all_at(&record, end).map_err(|e| {
            // A full disk takes nothing of a write; after anything else nobody knows.
            if e.kind() != io::ErrorKind::StorageFull {
                inner.broken = Some(format!("an earlier write failed: {e}"));
            }
            io_failed(&self.path, &e)
        })?;
        inner.end += record.len() as u64;
        apply(&mut inner.maps, &batch.changes);
        match sync {
            Some(point) => self.sync(&mut inner, point),
            None => Ok(()),
        }
    }

    fn flush(&self, point: SyncPoint) -> Result<(), KvError> {
        let mut inner = self.inner()?;
        self.sync(&mut inner, point)
    }

    fn checkpoint(&self, to: &Path) -> Result<(), KvError> {
        let inner = self.inner()?;
        if self.disk.exists(to).map_err(|e| failed(to, e))? {
            return Err(failed(to, "exists already"));
        }
        log::create(&*self.disk, to, &inner.maps).map_err(|e| io_failed(to, &e))
    }

    fn freeze(self: Arc<Self>) -> Result<Box<dyn Frozen>, KvError> {
        let maps = self.inner()?.maps.clone();
        Ok(Box::new(Copied { path: self.path.clone(), maps }))
    }
}

/// A copy of all rows.
struct Copied {
    path: PathBuf,
    maps: Maps,
}

impl Frozen for Copied {
    fn scan(&self, space: Space, from: &[u8], to: Option<&[u8]>, limit: usize) -> Result<Vec<Pair>, KvError> {
        scan(&self.maps, &self.path, space, from, to, limit)
    }
}

fn scan(
    maps: &Maps,
    path: &Path,
    space: Space,
    from: &[u8],
    to: Option<&[u8]>,
    limit: usize,
) -> Result<Vec<Pair>, KvError> {
    if to.is_some_and(|to| to <= from) {
        return Ok(Vec::new());
    }
    let range = (Bound::Included(from), to.map_or(Bound::Unbounded, Bound::Excluded));
    let rows = maps.get(space.0).ok_or_else(|| failed(path, format!("space {} was not opened", space.0)))?;
    Ok(rows.range::<[u8], _>(range).take(limit).map(|(key, value)| (key.clone(), value.clone())).collect())
}

#[cfg(test)]
mod tests;
