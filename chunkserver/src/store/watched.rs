//! The disk as the store uses it: how long its calls take and how they fail is noted for the data directory that they
//! concern.

use std::{
    io,
    os::fd::BorrowedFd,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use quarry_chunkserver_core::disk_health::{Call, DiskHealth, Verdict};
use quarry_env::{Clock, Disk, DiskFile, DiskSpace, OpenMode, SyncPoint};
use tokio::sync::Notify;

use super::dir::lock;

/// What is known about the disk behind one data directory of the settings, whatever is mounted there.
#[derive(Default)]
pub(super) struct Watch {
    pub(super) health: Mutex<DiskHealth>,
    /// What ends the directory's service.
    verdict: Mutex<Option<(Verdict, String)>>,
    /// Raised when another directory, or the same again, comes into service: what was opened before says nothing about it.
    generation: AtomicU64,
}

impl Watch {
    /// The verdict that a failed call brought, once.
    pub(super) fn take_verdict(&self) -> Option<(Verdict, String)> {
        lock(&self.verdict).take()
    }

    /// A directory comes into service.
    pub(super) fn begin(&self) {
        self.generation.fetch_add(1, Ordering::Relaxed);
        lock(&self.health).begin();
        *lock(&self.verdict) = None;
    }
}

/// A disk whose calls are noted.
pub(super) struct WatchedDisk {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) watches: Vec<(PathBuf, Arc<Watch>)>,
    /// Woken by a verdict.
    pub(super) alarm: Arc<Notify>,
}

/// What a call is noted with.
#[derive(Clone)]
struct Noter {
    watch: Option<(Arc<Watch>, u64)>,
    clock: Arc<dyn Clock>,
    alarm: Arc<Notify>,
}

struct WatchedFile {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    noter: Noter,
}

impl Noter {
    fn note<T>(&self, call: Call, doing: &str, path: &Path, made: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let Some((watch, generation)) = &self.watch else { return made() };
        let began = self.clock.now();
        let result = made();
        let now = self.clock.now();
        if watch.generation.load(Ordering::Relaxed) != *generation {
            return result;
        }
        let now_ms = u64::try_from(now.0.as_millis()).unwrap_or(u64::MAX);
        match &result {
            Ok(_) => {
                let us = u64::try_from(now.since(began).as_micros()).unwrap_or(u64::MAX);
                lock(&watch.health).took(call, us, now_ms);
            }
            Err(error) => {
                let verdict = lock(&watch.health).failed(call, error, now_ms);
                if matches!(verdict, Verdict::Out | Verdict::Poisoned) {
                    let why = format!("{doing} {}: {error}", path.display());
                    let mut current = lock(&watch.verdict);
                    if current.as_ref().is_none_or(|(known, _)| *known != Verdict::Poisoned) {
                        *current = Some((verdict, why));
                    }
                    self.alarm.notify_one();
                }
            }
        }
        result
    }
}

impl WatchedDisk {
    fn noter(&self, path: &Path) -> Noter {
        let below = self.watches.iter().filter(|(dir, _)| path.starts_with(dir));
        let watch = below.max_by_key(|(dir, _)| dir.as_os_str().len()).map(|(_, watch)| watch);
        let watch = watch.map(|watch| (Arc::clone(watch), watch.generation.load(Ordering::Relaxed)));
        Noter { watch, clock: Arc::clone(&self.clock), alarm: Arc::clone(&self.alarm) }
    }
}

impl Disk for WatchedDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let noter = self.noter(path);
        let call = if mode == OpenMode::CreateNew { Call::Write } else { Call::Read };
        let file = noter.note(call, "open", path, || self.disk.open(path, mode))?;
        Ok(Box::new(WatchedFile { file, path: path.to_owned(), noter }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.noter(path).note(Call::Write, "create", path, || self.disk.create_dir_all(path))
    }

    fn sync_dir(&self, path: &Path, point: SyncPoint) -> io::Result<()> {
        self.noter(path).note(Call::Sync, "sync", path, || self.disk.sync_dir(path, point))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.noter(from).note(Call::Write, "rename", from, || self.disk.rename(from, to))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.noter(path).note(Call::Write, "remove", path, || self.disk.remove_file(path))
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.noter(path).note(Call::Write, "remove", path, || self.disk.remove_dir_all(path))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.noter(path).note(Call::Read, "list", path, || self.disk.list(path))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.disk.exists(path)
    }

    fn space(&self, path: &Path) -> io::Result<DiskSpace> {
        self.disk.space(path)
    }

    fn device(&self, path: &Path) -> io::Result<u64> {
        self.disk.device(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        self.disk.lock(path)
    }

    fn make_private(&self, path: &Path) -> io::Result<()> {
        self.disk.make_private(path)
    }
}

impl DiskFile for WatchedFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.noter.note(Call::Read, "read", &self.path, || self.file.read_exact_at(buffer, offset))
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.noter.note(Call::Write, "write", &self.path, || self.file.write_all_at(bytes, offset))
    }

    fn sync_data(&self, point: SyncPoint) -> io::Result<()> {
        self.noter.note(Call::Sync, "sync", &self.path, || self.file.sync_data(point))
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.noter.note(Call::Write, "cut", &self.path, || self.file.set_len(length))
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn forget_cached(&self, offset: u64, length: u64) {
        self.file.forget_cached(offset, length);
    }

    fn begin_sync(&self, offset: u64, length: u64) {
        self.file.begin_sync(offset, length);
    }

    fn read_cached_at(&self, buffer: &mut [u8], offset: u64) -> usize {
        // Not noted: it says nothing about the disk.
        self.file.read_cached_at(buffer, offset)
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.file.descriptor()
    }
}
