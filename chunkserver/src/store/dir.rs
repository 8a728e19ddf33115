//! One data directory: where things are, how full it is, and whether it still works.
//!
//! ```text
//! <dir>/IDENTITY                     cluster, server, directory, format version
//! <dir>/LOCK                         held by the process that uses the directory
//! <dir>/index/                       metadata store: a record per replica, tombstones
//! <dir>/chunks/<2 hex>/<16 hex>.chunk  by the chunk's last byte, and its whole id
//! ```

use std::{
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use quarry_chunkserver_core::capacity;
use quarry_env::Disk;
use quarry_types::{ChunkId, ErrorCode};
use uuid::Uuid;

use super::{DirConfig, DiskStatus, StoreError, index::Index};

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

/// One data directory.
pub(super) struct Dir {
    pub(super) path: PathBuf,
    /// What the operator allows.
    capacity: Option<u64>,
    /// Absent when the directory could not be opened.
    index: Option<Index>,
    pub(super) id: Option<Uuid>,
    used: AtomicU64,
    failed: OnceLock<String>,
    _lock: Option<DirLock>,
}

impl Dir {
    pub(super) fn new(config: &DirConfig, id: Uuid, index: Index, lock: DirLock) -> Self {
        Dir {
            path: config.path.clone(),
            capacity: config.capacity,
            index: Some(index),
            id: Some(id),
            used: AtomicU64::new(0),
            failed: OnceLock::new(),
            _lock: Some(lock),
        }
    }

    /// A directory that is out of service from the start.
    pub(super) fn out_of_service(config: &DirConfig, id: Option<Uuid>, why: String) -> Self {
        tracing::error!(dir = %config.path.display(), why, "a data directory is out of service");
        Dir {
            path: config.path.clone(),
            capacity: config.capacity,
            index: None,
            id,
            used: AtomicU64::new(0),
            failed: OnceLock::from(why),
            _lock: None,
        }
    }

    /// Takes the directory out of service until the next start. True for the first to notice.
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

    /// The index of a directory in service.
    pub(super) fn index(&self) -> Result<&Index, StoreError> {
        match (&self.index, self.failed.get()) {
            (Some(index), None) => Ok(index),
            (_, why) => Err(StoreError::new(
                ErrorCode::DiskFailed,
                format!(
                    "data directory {} is out of service: {}; check that disk, then restart the chunkserver",
                    self.path.display(),
                    why.map_or("it could not be opened", String::as_str)
                ),
            )),
        }
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
        let used = self.used.load(Ordering::Relaxed);
        let (space, error) = match disk.space(&self.path) {
            Ok(space) if self.works() => (space, None),
            Ok(_) => (Default::default(), None),
            Err(e) => (Default::default(), Some(e.to_string())),
        };
        let capacity = self.capacity.unwrap_or(u64::MAX).min(space.total);
        DiskStatus {
            path: self.path.clone(),
            capacity_bytes: capacity,
            used_bytes: used,
            available_bytes: capacity::room(capacity, used, space.available),
            failed: self.failed.get().cloned().or(error),
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
        let dir = Dir::out_of_service(&DirConfig { path: "/d".into(), capacity: None }, None, "test".into());
        let path = dir.file(ChunkId(0x1234_abcd));
        assert_eq!(path, Path::new("/d/chunks/cd/000000001234abcd.chunk"));
        assert_eq!(chunk_of(&path), Some(ChunkId(0x1234_abcd)));
        for other in ["a.chunk", "000000001234ABCD.chunk", "000000001234abcd.tmp", "+00000001234abcd.chunk "] {
            assert_eq!(chunk_of(Path::new(other)), None, "{other}");
        }
    }
}
