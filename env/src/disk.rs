//! Files. All calls block: make them through [`crate::Blocking`].

use std::{
    io,
    os::fd::BorrowedFd,
    path::{Path, PathBuf},
};

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// Existing, read only.
    Read,
    /// Existing, read and write.
    Write,
    /// Read and write, must not exist yet.
    CreateNew,
}

/// Room on the file system that holds a path, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskSpace {
    /// Size of the file system.
    pub total: u64,
    /// What an unprivileged process may still write.
    pub available: u64,
}

/// Why a sync is made. The name travels to the disk so that a simulated one can leave out the syncs of one
/// point: a test does so for each point and must see data lost, which proves that none is idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SyncPoint(pub &'static str);

/// A file system.
pub trait Disk: Send + Sync {
    /// Opens a file.
    ///
    /// # Errors
    /// As the operating system reports; `NotFound` and `AlreadyExists` are told apart.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>>;
    /// Creates a directory and its parents; fine if it exists.
    ///
    /// # Errors
    /// As the operating system reports.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// As the operating system reports. After an error nothing is known about what is durable.
    fn sync_dir(&self, path: &Path, point: SyncPoint) -> io::Result<()>;
    /// Renames within one file system, replacing `to`.
    ///
    /// # Errors
    /// As the operating system reports.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    ///
    /// # Errors
    /// As the operating system reports; `NotFound` when there is none.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory and all below it; fine if it does not exist.
    ///
    /// # Errors
    /// As the operating system reports.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    /// The paths in a directory, sorted.
    ///
    /// # Errors
    /// As the operating system reports.
    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>>;
    /// Whether something has this name.
    ///
    /// # Errors
    /// As the operating system reports.
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// Room on the file system that holds `path`.
    ///
    /// # Errors
    /// As the operating system reports.
    fn space(&self, path: &Path) -> io::Result<DiskSpace>;
    /// Takes an exclusive lock on `path` (created if missing), held until the result is dropped or the
    /// process ends.
    ///
    /// # Errors
    /// `WouldBlock` when another process holds it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>>;

    /// Lets only the owner read and write a file: it holds a secret. A file system without owners does nothing.
    ///
    /// # Errors
    /// As the operating system reports.
    fn make_private(&self, path: &Path) -> io::Result<()> {
        let _nobody_else_is_here = path;
        Ok(())
    }

    /// Names the device that holds `path`: two paths with the same are on one file system. A file system that is all there
    /// is answers 0.
    ///
    /// # Errors
    /// As the operating system reports.
    fn device(&self, path: &Path) -> io::Result<u64> {
        self.exists(path).map(|_| 0)
    }

    /// Reads a whole small file.
    ///
    /// # Errors
    /// As [`Disk::open`]; `InvalidData` when it is longer than `limit` bytes.
    fn read_small(&self, path: &Path, limit: usize) -> io::Result<Vec<u8>> {
        let file = self.open(path, OpenMode::Read)?;
        let length = file.len()?;
        let length = usize::try_from(length).ok().filter(|n| *n <= limit).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{} is longer than {limit} bytes", path.display()))
        })?;
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    /// Creates a directory and its parents, all by durable names; fine if it exists.
    ///
    /// # Errors
    /// As the operating system reports.
    fn create_dir_durably(&self, path: &Path, point: SyncPoint) -> io::Result<()> {
        // A relative path ends in an empty one.
        let here = |path| if path == Path::new("") { Path::new(".") } else { path };
        let mut missing = 0;
        for directory in path.ancestors().map(here) {
            if self.exists(directory)? {
                break;
            }
            missing += 1;
        }
        self.create_dir_all(path)?;
        for (number, holder) in path.ancestors().skip(1).map(here).enumerate() {
            let synced = self.sync_dir(holder, point);
            // An earlier attempt that was cut off may have made the others too. If not, they may be anybody's, and
            // not be ours to sync.
            if number < missing {
                synced?;
            }
        }
        Ok(())
    }

    /// Replaces a whole small file atomically and durably: a crash leaves the old or the new bytes.
    ///
    /// # Errors
    /// As the operating system reports; the old file is then still there.
    fn write_small(&self, path: &Path, bytes: &[u8], point: SyncPoint) -> io::Result<()> {
        let temporary = path.with_extension("tmp");
        match self.remove_file(&temporary) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let file = self.open(&temporary, OpenMode::CreateNew)?;
        file.write_all_at(bytes, 0)?;
        file.sync_data(point)?;
        self.rename(&temporary, path)?;
        self.sync_dir(path.parent().unwrap_or(Path::new(".")), point)
    }
}

/// An open file.
#[expect(clippy::len_without_is_empty, reason = "a file's length, not a collection's")]
pub trait DiskFile: Send + Sync {
    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof` when the file is shorter, otherwise as the operating system reports.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `bytes` at `offset`, growing the file.
    ///
    /// # Errors
    /// As the operating system reports (`StorageFull` when there is no room); part may have been written.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes contents and length durable. After an error the file's contents are unknown for good: never
    /// call it again as if nothing happened.
    ///
    /// # Errors
    /// As the operating system reports.
    fn sync_data(&self, point: SyncPoint) -> io::Result<()>;
    /// Cuts or grows the file.
    ///
    /// # Errors
    /// As the operating system reports.
    fn set_len(&self, length: u64) -> io::Result<()>;
    /// Length in bytes.
    ///
    /// # Errors
    /// As the operating system reports.
    fn len(&self) -> io::Result<u64>;

    /// Says that the bytes at `offset` need not stay in memory, so that the next read comes from the medium. Only a hint.
    fn forget_cached(&self, offset: u64, length: u64) {
        let _nothing_is_cached_here = (offset, length);
    }

    /// Says that the bytes at `offset` are to be durable soon, so that they are on their way to the medium before
    /// [`DiskFile::sync_data`] waits for them. Only a hint: it makes nothing durable, and what fails shows there.
    fn begin_sync(&self, offset: u64, length: u64) {
        let _nothing_is_begun_here = (offset, length);
    }

    /// Fills the beginning of `buffer` from `offset` with what is in memory, and says with how many bytes. It never waits for
    /// the medium, so that it may be called anywhere; what it does not give is had by [`DiskFile::read_exact_at`], which
    /// also tells what is wrong.
    fn read_cached_at(&self, buffer: &mut [u8], offset: u64) -> usize {
        let _nothing_is_cached_here = (buffer, offset);
        0
    }

    /// The file as the operating system knows it, to be passed to another process; `None` where it knows none.
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}
