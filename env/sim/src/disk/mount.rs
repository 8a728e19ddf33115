//! The disk as one life of a process sees it.

use std::{
    io,
    path::{Path, PathBuf},
    sync::MutexGuard,
};

use quarry_env::{Disk, DiskFile, DiskSpace, OpenMode, SyncPoint};

use super::{DiskOp, SimDisk, State, Synced, TRACE, tree::Ino};

/// The size of a disk without a limit.
const UNLIMITED: u64 = 1 << 40;

pub(super) struct Mount {
    disk: SimDisk,
    life: u64,
}

struct Handle {
    mount: Mount,
    path: PathBuf,
    ino: Ino,
    writable: bool,
}

struct LockGuard {
    mount: Mount,
    path: PathBuf,
}

impl Mount {
    pub(super) fn new(disk: SimDisk) -> Self {
        let life = disk.state().life;
        Mount { disk, life }
    }

    fn same(&self) -> Mount {
        Mount { disk: self.disk.clone(), life: self.life }
    }

    fn begin(&self, op: DiskOp, path: &Path) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.disk.state();
        if state.life != self.life {
            return Err(io::Error::other("opened before the simulated machine went down"));
        }
        let begun = state.faults.before(op, path);
        match &begun {
            Ok(()) if op == DiskOp::Look => {}
            Ok(()) => tracing::trace!(target: TRACE, path = %path.display(), "{op:?}"),
            Err(error) => tracing::trace!(target: TRACE, path = %path.display(), %error, "not {op:?}"),
        }
        begun.map(|()| state)
    }
}

fn crc(bytes: &[u8]) -> String {
    format!("{:08x}", crc32fast::hash(bytes))
}

impl State {
    fn room_for(&self, from: u64, to: u64) -> io::Result<()> {
        match self.capacity {
            Some(capacity) if to > from && self.tree.used() + (to - from) > capacity => {
                Err(io::Error::from(io::ErrorKind::StorageFull))
            }
            _ => Ok(()),
        }
    }
}

impl Disk for Mount {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let create = mode == OpenMode::CreateNew;
        let mut state = self.begin(if create { DiskOp::Create } else { DiskOp::Open }, path)?;
        let ino = if create { state.tree.create(path)? } else { state.tree.find(path)? };
        state.tree.file_mut(ino)?.opens += 1;
        Ok(Box::new(Handle { mount: self.same(), path: path.to_owned(), ino, writable: mode != OpenMode::Read }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.begin(DiskOp::Create, path)?.tree.create_dir_all(path)
    }

    fn sync_dir(&self, path: &Path, point: SyncPoint) -> io::Result<()> {
        let mut state = self.begin(DiskOp::SyncDir, path)?;
        let dir = state.tree.find(path)?;
        if !state.tree.is_dir(dir) {
            return Err(io::Error::from(io::ErrorKind::NotADirectory));
        }
        tracing::trace!(target: TRACE, point = point.0, "to sync");
        if state.faults.sync(point, Synced::Names)? {
            state.tree.sync_dir(dir);
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.begin(DiskOp::Rename, from)?;
        tracing::trace!(target: TRACE, to = %to.display(), "to rename");
        state.tree.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.begin(DiskOp::Remove, path)?.tree.remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.begin(DiskOp::Remove, path)?.tree.remove_dir_all(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.begin(DiskOp::Look, path)?.tree.list(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        match self.begin(DiskOp::Look, path)?.tree.find(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            other => other.map(|_| true),
        }
    }

    fn space(&self, path: &Path) -> io::Result<DiskSpace> {
        let state = self.begin(DiskOp::Look, path)?;
        state.tree.find(path)?;
        let total = state.capacity.unwrap_or(UNLIMITED);
        Ok(DiskSpace { total, available: total.saturating_sub(state.tree.used()) })
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let mut state = self.begin(DiskOp::Lock, path)?;
        match state.tree.create(path) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
        if !state.locks.insert(path.to_owned()) {
            return Err(io::Error::from(io::ErrorKind::WouldBlock));
        }
        Ok(Box::new(LockGuard { mount: self.same(), path: path.to_owned() }))
    }
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        let mut state = self.mount.disk.state();
        if state.life == self.mount.life {
            state.locks.remove(&self.path);
        }
    }
}

impl Handle {
    fn begin(&self, op: DiskOp) -> io::Result<MutexGuard<'_, State>> {
        let state = self.mount.begin(op, &self.path)?;
        if !self.writable && matches!(op, DiskOp::Write | DiskOp::SetLen) {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "opened for reading only"));
        }
        Ok(state)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut state = self.mount.disk.state();
        if state.life == self.mount.life
            && let Ok(file) = state.tree.file_mut(self.ino)
        {
            file.opens = file.opens.saturating_sub(1);
        }
    }
}

impl DiskFile for Handle {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.begin(DiskOp::Read)?.tree.file(self.ino)?.read(buffer, offset)?;
        tracing::trace!(target: TRACE, offset, bytes = buffer.len(), crc = %crc(buffer), "read");
        Ok(())
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.begin(DiskOp::Write)?;
        tracing::trace!(target: TRACE, offset, bytes = bytes.len(), crc = %crc(bytes), "to write");
        let file = state.tree.file(self.ino)?;
        state.room_for(file.len(), file.length_with(offset, bytes.len())?)?;
        state.tree.file_mut(self.ino)?.write(bytes, offset);
        Ok(())
    }

    fn sync_data(&self, point: SyncPoint) -> io::Result<()> {
        let mut state = match self.begin(DiskOp::Sync) {
            Err(error) => {
                let mut state = self.mount.disk.state();
                if state.life == self.mount.life
                    && !state.faults.is_off()
                    && let Ok(file) = state.tree.file_mut(self.ino)
                {
                    file.drop_pending();
                }
                return Err(error);
            }
            Ok(state) => state,
        };
        tracing::trace!(target: TRACE, point = point.0, "to sync");
        if state.faults.sync(point, Synced::File)? {
            state.tree.file_mut(self.ino)?.sync();
        }
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut state = self.begin(DiskOp::SetLen)?;
        tracing::trace!(target: TRACE, length, "to set");
        state.room_for(state.tree.file(self.ino)?.len(), length)?;
        state.tree.file_mut(self.ino)?.set_len(length)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.begin(DiskOp::Look)?.tree.file(self.ino)?.len())
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        self.mount().open(path, mode)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.mount().create_dir_all(path)
    }

    fn sync_dir(&self, path: &Path, point: SyncPoint) -> io::Result<()> {
        self.mount().sync_dir(path, point)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.mount().rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.mount().remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.mount().remove_dir_all(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.mount().list(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.mount().exists(path)
    }

    fn space(&self, path: &Path) -> io::Result<DiskSpace> {
        self.mount().space(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        self.mount().lock(path)
    }
}
