//! One data directory: where things are, how full it is, and whether it still works.
//!
//! ```text
//! <dir>/IDENTITY                     cluster, server, directory, format version
//! <dir>/LOCK                         held by the process that uses the directory
//! <dir>/index/                       metadata store: a record per replica, tombstones, the bytes of small chunks
//! <dir>/chunks/<2 hex>/<16 hex>.chunk  by the chunk's last byte, and its whole id
//! ```

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use quarry_chunkserver_core::capacity;
use quarry_env::{Disk, DiskSpace};
use quarry_types::{ChunkId, ErrorCode};
use uuid::Uuid;

use super::{DirConfig, DiskStatus, StoreError, index::Index, synced_later::Unsynced, watched::Watch};

/// Longest text about one chunk file's name: 16 hex digits.
const NAME_DIGITS: usize = 16;
const SUFFIX: &str = ".chunk";

/// Takes a lock whose holder cannot leave a broken state behind: all changes under our locks are single assignments,
/// or end with one.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Held while a process uses the directory.
pub(super) type DirLock = Box<dyn Send + Sync>;

/// One data directory. Out of service is for good: one that comes back is another `Dir`.
pub(super) struct Dir {
    pub(super) path: PathBuf,
    /// What the operator allows.
    pub(super) capacity: Option<u64>,
    /// Absent when the directory could not be opened, or is closed.
    index: Mutex<Option<Arc<Index>>>,
    pub(super) id: Option<Uuid>,
    /// It was on a file system of its own when it came into service.
    pub(super) mounted: bool,
    pub(super) watch: Arc<Watch>,
    /// Replicas in memory.
    pub(super) chunks: AtomicU64,
    /// A look at it is under way.
    pub(super) busy: AtomicBool,
    /// Sealed replicas here that are not durable yet.
    pub(super) unsynced: Mutex<Unsynced>,
    /// They are being synced.
    pub(super) syncing: AtomicBool,
    /// It is being asked how full it is.
    pub(super) asked: AtomicBool,
    used: AtomicU64,
    space: Mutex<DiskSpace>,
    failed: OnceLock<String>,
    /// Why it cannot come back yet.
    stays_out: Mutex<Option<String>>,
    lock: Mutex<Option<DirLock>>,
}

impl Dir {
    fn empty(config: &DirConfig, watch: Arc<Watch>) -> Self {
        Dir {
            path: config.path.clone(),
            capacity: config.capacity,
            index: Mutex::default(),
            id: None,
            mounted: false,
            watch,
            chunks: AtomicU64::default(),
            busy: AtomicBool::default(),
            unsynced: Mutex::default(),
            syncing: AtomicBool::default(),
            asked: AtomicBool::default(),
            used: AtomicU64::default(),
            space: Mutex::default(),
            failed: OnceLock::new(),
            stays_out: Mutex::default(),
            lock: Mutex::default(),
        }
    }

    pub(super) fn new(
        config: &DirConfig,
        watch: Arc<Watch>,
        id: Uuid,
        index: Index,
        lock: DirLock,
        mounted: bool,
    ) -> Self {
        Dir {
            index: Mutex::new(Some(Arc::new(index))),
            id: Some(id),
            mounted,
            lock: Mutex::new(Some(lock)),
            ..Self::empty(config, watch)
        }
    }

    /// A directory that is out of service from the start.
    pub(super) fn out_of_service(config: &DirConfig, watch: Arc<Watch>, id: Option<Uuid>, why: String) -> Self {
        tracing::error!(dir = %config.path.display(), why, "a data directory is out of service");
        Dir { id, failed: OnceLock::from(why), ..Self::empty(config, watch) }
    }

    /// Takes the directory out of service. True for the first to notice.
    pub(super) fn fail(&self, why: &str) -> bool {
        let first = self.failed.set(why.to_owned()).is_ok();
        if first {
            tracing::error!(dir = %self.path.display(), why, "a data directory is out of service");
        }
        first
    }

    pub(super) fn works(&self) -> bool {
        self.failed.get().is_none()
    }

    /// Says why a directory out of service cannot come back, once.
    pub(super) fn stays_out(&self, why: &str) {
        let mut said = lock(&self.stays_out);
        if said.as_deref() != Some(why) {
            tracing::warn!(dir = %self.path.display(), why, "a data directory stays out of service");
            *said = Some(why.to_owned());
        }
    }

    /// Lets go of the index and the lock of a directory out of service, so that they can be had again. Whoever works with
    /// the index still has it for that long.
    pub(super) fn close(&self) {
        let index = lock(&self.index).take();
        drop(index);
        let held = lock(&self.lock).take();
        drop(held);
    }

    fn why_failed(&self) -> Option<String> {
        let why = self.failed.get()?;
        Some(match lock(&self.stays_out).as_ref() {
            Some(now) if now != why => format!("{why}; now: {now}"),
            _ => why.clone(),
        })
    }

    /// The index of a directory in service.
    pub(super) fn index(&self) -> Result<Arc<Index>, StoreError> {
        match (self.why_failed(), lock(&self.index).as_ref()) {
            (None, Some(index)) => Ok(Arc::clone(index)),
            (why, _) => Err(StoreError::new(
                ErrorCode::DiskFailed,
                format!(
                    "data directory {} is out of service: {}; repair or replace that disk",
                    self.path.display(),
                    why.unwrap_or_else(|| "it could not be opened".into())
                ),
            )),
        }
    }

    /// Where its index is.
    pub(super) fn index_path(&self) -> PathBuf {
        index_of(&self.path)
    }

    pub(super) fn chunks(&self) -> PathBuf {
        chunks(&self.path)
    }

    /// The directory of a chunk's file.
    pub(super) fn shelf(&self, chunk: ChunkId) -> PathBuf {
        self.chunks().join(shelf_name(chunk.0 as u8))
    }

    /// A chunk's file.
    pub(super) fn file(&self, chunk: ChunkId) -> PathBuf {
        self.shelf(chunk).join(format!("{:016x}{SUFFIX}", chunk.0))
    }

    /// How full it is, as the file system says it now.
    pub(super) fn status(&self, disk: &dyn Disk) -> DiskStatus {
        let (space, error) = match disk.space(&self.path) {
            Ok(space) => (space, None),
            Err(e) => (DiskSpace::default(), Some(StoreError::io(&self.path, "ask for the room in", &e).to_string())),
        };
        *lock(&self.space) = space;
        let status = self.last_status();
        DiskStatus { failed: status.failed.or(error), ..status }
    }

    /// The same as the file system said it last.
    pub(super) fn last_status(&self) -> DiskStatus {
        let used = self.used.load(Ordering::Relaxed);
        let space = if self.works() { *lock(&self.space) } else { DiskSpace::default() };
        let capacity = self.capacity.unwrap_or(u64::MAX).min(space.total);
        let health = lock(&self.watch.health);
        DiskStatus {
            path: self.path.clone(),
            capacity_bytes: capacity,
            used_bytes: used,
            available_bytes: capacity::room(capacity, used, space.available),
            failed: self.why_failed(),
            slow: health.slow(),
            latency_us: health.latency_us(),
            errors: health.errors(),
            chunks: self.chunks.load(Ordering::Relaxed),
        }
    }

    /// Takes `bytes` of room.
    pub(super) fn take(&self, disk: &dyn Disk, bytes: u64) -> Result<(), StoreError> {
        let status = self.status(disk);
        if let Some(why) = &status.failed {
            return Err(StoreError::new(
                ErrorCode::DiskFailed,
                format!("data directory {}: {why}; check that disk", self.path.display()),
            ));
        }
        let fits = |used: u64| {
            // Others may have taken room since the status was made.
            let since = used.saturating_sub(status.used_bytes);
            (status.available_bytes.saturating_sub(since) >= bytes).then_some(used + bytes)
        };
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).map(drop).map_err(|_| {
            StoreError::new(
                ErrorCode::NoSpace,
                format!(
                    "data directory {}: {bytes} bytes do not fit: {} of {} bytes used, {} left beside the reserve; raise \
                     its capacity, free some room there, or add a directory",
                    self.path.display(),
                    status.used_bytes,
                    status.capacity_bytes,
                    status.available_bytes
                ),
            )
        })
    }

    /// Counts room that is taken already.
    pub(super) fn count(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Gives room back.
    pub(super) fn release(&self, bytes: u64) {
        // An update that always has a value cannot fail.
        let _old =
            self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| Some(used.saturating_sub(bytes)));
    }
}

/// Whether a directory is the root of a file system.
pub(super) fn is_mount(disk: &dyn Disk, path: &Path) -> bool {
    matches!((disk.device(path), disk.device(&path.join(".."))), (Ok(own), Ok(parent)) if own != parent)
}

/// Where the index of the data directory `dir` is.
pub(super) fn index_of(dir: &Path) -> PathBuf {
    dir.join("index")
}

/// Where the chunk files of the data directory `dir` are.
pub(super) fn chunks(dir: &Path) -> PathBuf {
    dir.join("chunks")
}

/// The name of one of the 256 directories of chunk files.
pub(super) fn shelf_name(byte: u8) -> String {
    format!("{byte:02x}")
}

/// The chunk that a file's name says; `None` for what we did not put there.
pub(super) fn chunk_of(path: &Path) -> Option<ChunkId> {
    let digits = path.file_name()?.to_str()?.strip_suffix(SUFFIX)?;
    if digits.len() != NAME_DIGITS || digits.bytes().any(|b| b.is_ascii_uppercase()) {
        return None;
    }
    u64::from_str_radix(digits, 16).ok().map(ChunkId)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_files_name_reads_back_and_nothing_else_does() {
        let config = DirConfig { path: "/d".into(), capacity: None };
        let dir = Dir::out_of_service(&config, Arc::default(), None, "test".into());
        let path = dir.file(ChunkId(0x1234_abcd));
        assert_eq!(path, Path::new("/d/chunks/cd/000000001234abcd.chunk"));
        assert_eq!(chunk_of(&path), Some(ChunkId(0x1234_abcd)));
        for other in ["a.chunk", "000000001234ABCD.chunk", "000000001234abcd.tmp", "+00000001234abcd.chunk "] {
            assert_eq!(chunk_of(Path::new(other)), None, "{other}");
        }
    }
}
