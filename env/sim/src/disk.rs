//! A disk that forgets what was not synced.
//!
//! # Fault model, zone by zone
//!
//! **File contents** (`disk/file.rs`). Writes go to a page cache. `sync_data` makes contents and length durable. At a
//! power loss each 512-byte sector, on its own, falls back to any version it had since the last sync (the durable one
//! and the newest included): so unsynced writes are lost, kept, torn and reordered. Sectors are never torn inside:
//! disks promise that, and everything smaller that must be atomic carries a checksum anyway. The length falls back,
//! independently of the contents, to any length since the last sync; what was never written reads as zeros.
//!
//! **Names** (`disk/tree.rs`). Creating, renaming and removing change a directory in memory; `sync_dir` makes the
//! changes of one directory durable. At a power loss every other change is kept or lost on its own, except that a
//! change is lost when an earlier one of the same name was, and that a rename is one step. Syncing a file does not make
//! its name durable (some file systems do that; POSIX does not promise it), nor does syncing a directory make the
//! directory's own name durable. A file without a name after the loss is gone with its synced contents.
//!
//! **Failed syncs.** A `sync_data` that fails drops the unsynced changes from what later syncs make durable, while
//! reads go on showing them: Linux marks the pages clean. Only a caller that stops trusting the file survives this.
//!
//! **Room.** A byte capacity; a write that would pass it fails with `StorageFull` and changes nothing.
//!
//! **Rot.** [`SimDisk::corrupt`] flips a bit for good. Synced data is otherwise never lost: a cluster cannot be correct
//! on a disk that lies about syncs, so that [`SimDisk::skip_sync`] exists to prove that each sync is needed, not as a
//! fault to survive.
//!
//! **Time.** Calls take none. [`SimDisk::power_off_after`] cuts the power between any two changes.
//!
//! **Trace.** Every call but mere looks is a trace event with the target [`TRACE`]: what two runs of a seed are compared
//! by.
//!
//! Handles opened before a power loss or a kill fail afterwards, as do [mounts](SimDisk::mount).

mod faults;
mod file;
mod mount;
mod tree;

use std::{
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use faults::Faults;
pub use faults::{DiskOp, Injected, Synced};
use quarry_env::{Disk, SyncPoint};
use tree::Tree;

/// The target of this module's trace events.
pub const TRACE: &str = "quarry_sim::disk";

/// A simulated disk. Cheap to clone; clones are the same disk. As a [`Disk`] it is the mount of the present.
#[derive(Clone, Default)]
pub struct SimDisk(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Raised by every kill and power loss; what was opened under another one is dead.
    life: u64,
    tree: Tree,
    faults: Faults,
    locks: std::collections::BTreeSet<std::path::PathBuf>,
    capacity: Option<u64>,
}

impl SimDisk {
    /// An empty disk without limits.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disk as a process that starts now sees it: dead after the next kill or power loss.
    #[must_use]
    pub fn mount(&self) -> Arc<dyn Disk> {
        Arc::new(mount::Mount::new(self.clone()))
    }

    /// Ends every process that uses the disk, as `kill -9` does: handles and locks die, all that was written stays.
    pub fn kill(&self) {
        let mut state = self.state();
        state.life += 1;
        state.locks.clear();
        state.tree.forget_handles();
        state.faults.power_on();
    }

    /// Cuts the power and switches it on again. What was not synced is lost, kept or torn as `seed` decides.
    pub fn power_loss(&self, seed: u64) {
        self.kill();
        let mut rng = crate::random::derived(seed, "power loss", 0);
        self.state().tree.settle(&mut rng);
    }

    /// Switches the power off after `changes` more changes (writes, syncs, creations, removals…): from then on every
    /// call fails until [`SimDisk::power_loss`] or [`SimDisk::kill`] brings the disk back.
    pub fn power_off_after(&self, changes: u64) {
        self.state().faults.power_off_after(changes);
    }

    /// Switches the power off at once, as [`SimDisk::power_off_after`] does after some changes.
    pub fn power_off_now(&self) {
        self.state().faults.power_off_now();
    }

    /// Switches the power off at the next sync made for `point`: just before it, so that what it was to make durable is not.
    pub fn power_off_at(&self, point: SyncPoint) {
        self.state().faults.power_off_at(Some(point));
    }

    /// Takes [`SimDisk::power_off_after`] and [`SimDisk::power_off_at`] back, where they have not struck.
    pub fn power_stays_on(&self) {
        self.state().faults.power_stays_on();
    }

    /// Everything on the disk, as it would be after a power loss now, for [`SimDisk::put_image`].
    #[must_use]
    pub fn image(&self) -> SimDisk {
        let image = SimDisk::new();
        image.state().tree = self.state().tree.durable_copy();
        image
    }

    /// Ends every process that uses the disk and puts an image in the place of what is on it.
    pub fn put_image(&self, image: &SimDisk) {
        self.kill();
        let tree = image.state().tree.durable_copy();
        self.state().tree = tree;
    }

    /// Whether [`SimDisk::power_off_after`] or the like has struck.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.state().faults.is_off()
    }

    /// How many changes were made or tried so far: the range to draw [`SimDisk::power_off_after`] from.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.state().faults.changes()
    }

    /// From now on syncs made for `point` report success and do nothing.
    pub fn skip_sync(&self, point: SyncPoint) {
        self.skip_sync_of(point, Synced::File);
        self.skip_sync_of(point, Synced::Names);
    }

    /// The same for its syncs of files or of directories alone.
    pub fn skip_sync_of(&self, point: SyncPoint, what: Synced) {
        self.state().faults.skip(point, what);
    }

    /// Undoes [`SimDisk::skip_sync`].
    pub fn honour_sync(&self, point: SyncPoint) {
        self.state().faults.honour(point);
    }

    /// Every sync point seen so far, sorted, with how often.
    #[must_use]
    pub fn sync_points(&self) -> Vec<(SyncPoint, u64)> {
        let mut points = std::collections::BTreeMap::new();
        for ((point, _), times) in self.state().faults.seen() {
            *points.entry(*point).or_default() += times;
        }
        points.into_iter().collect()
    }

    /// The same, told apart by what was synced.
    #[must_use]
    pub fn syncs(&self) -> Vec<(SyncPoint, Synced)> {
        self.state().faults.seen().keys().copied().collect()
    }

    /// Lets the next `op` on anything fail.
    pub fn fail_next(&self, op: DiskOp, error: impl Into<Injected>) {
        self.fail_next_under(Path::new("/"), op, error);
    }

    /// Lets the next `op` at or below `path` fail.
    pub fn fail_next_under(&self, path: &Path, op: DiskOp, error: impl Into<Injected>) {
        self.state().faults.fail(path, Some(op), error.into(), Some(1));
    }

    /// Lets every call at or below `path` fail until [`SimDisk::mend`]: the disk behind it is broken.
    pub fn break_under(&self, path: &Path, error: impl Into<Injected>) {
        self.state().faults.fail(path, None, error.into(), None);
    }

    /// Takes back all failures asked for and not yet delivered.
    pub fn mend(&self) {
        self.state().faults.mend();
    }

    /// Limits the disk to `bytes` of file contents; `None` lifts the limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity = bytes;
    }

    /// Flips the lowest bit of the byte at `offset` of a file, in the cache and on the medium.
    ///
    /// # Errors
    /// `NotFound`, or `UnexpectedEof` when the file is shorter.
    pub fn corrupt(&self, path: &Path, offset: u64) -> io::Result<()> {
        let mut state = self.state();
        let ino = state.tree.find(path)?;
        state.tree.file_mut(ino)?.corrupt(offset)
    }

    /// What is in a file now. For tests that compare with the truth: no fault strikes and nothing is traced.
    ///
    /// # Errors
    /// `NotFound`, or `IsADirectory`.
    pub fn contents(&self, path: &Path) -> io::Result<Vec<u8>> {
        let state = self.state();
        Ok(state.tree.file(state.tree.find(path)?)?.current().to_vec())
    }

    /// What the last sync has left of a file, under a name that is durable itself: what is there after the power went
    /// away, unless something later happens to be. No fault strikes and nothing is traced.
    ///
    /// # Errors
    /// `NotFound`, or `IsADirectory`.
    pub fn durable(&self, path: &Path) -> io::Result<Vec<u8>> {
        let state = self.state();
        Ok(state.tree.file(state.tree.find_durable(path)?)?.durable().to_vec())
    }

    /// All files, sorted, with their lengths.
    #[must_use]
    pub fn files(&self) -> Vec<(std::path::PathBuf, u64)> {
        self.state().tree.files()
    }
}

impl std::fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimDisk").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
