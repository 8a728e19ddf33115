//! What a test asked to go wrong.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
};

use quarry_env::SyncPoint;

/// A kind of call, for [`crate::SimDisk::fail_next`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskOp {
    /// Opening an existing file.
    Open,
    /// Creating a file or a directory.
    Create,
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// Cutting or growing.
    SetLen,
    /// Syncing a file.
    Sync,
    /// Syncing a directory.
    SyncDir,
    /// Renaming.
    Rename,
    /// Removing a file or a directory.
    Remove,
    /// Looking at names or at the room left.
    Look,
    /// Locking.
    Lock,
}

impl DiskOp {
    fn changes_something(self) -> bool {
        !matches!(self, DiskOp::Open | DiskOp::Read | DiskOp::Look | DiskOp::Lock)
    }
}

/// What a sync makes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Synced {
    /// Contents and length of a file.
    File,
    /// The names in a directory.
    Names,
}

struct Failure {
    under: PathBuf,
    op: Option<DiskOp>,
    error: Injected,
    times: Option<u32>,
}

/// An error as a test asks for it.
#[derive(Clone, Copy, Debug)]
pub enum Injected {
    /// Of a kind.
    Kind(io::ErrorKind),
    /// Of the operating system, by number.
    Os(i32),
}

impl Injected {
    fn error(self, op: DiskOp, path: &Path) -> io::Error {
        match self {
            Injected::Kind(kind) => io::Error::new(kind, format!("injected failure of {op:?} at {}", path.display())),
            Injected::Os(number) => io::Error::from_raw_os_error(number),
        }
    }
}

impl From<io::ErrorKind> for Injected {
    fn from(from: io::ErrorKind) -> Self {
        Injected::Kind(from)
    }
}

#[derive(Default)]
pub(super) struct Faults {
    skipped: BTreeSet<(SyncPoint, Synced)>,
    seen: BTreeMap<(SyncPoint, Synced), u64>,
    failures: Vec<Failure>,
    changes: u64,
    off_at: Option<u64>,
    off_at_point: Option<SyncPoint>,
    off: bool,
}

impl Faults {
    /// Called first by every operation.
    pub(super) fn before(&mut self, op: DiskOp, path: &Path) -> io::Result<()> {
        if op.changes_something() && !self.off {
            self.off = self.off_at.is_some_and(|at| self.changes >= at);
            self.changes += 1;
        }
        if self.off {
            return Err(no_power());
        }
        let hit = self.failures.iter_mut().position(|f| f.op.is_none_or(|o| o == op) && below(path, &f.under));
        let Some(at) = hit else { return Ok(()) };
        let Some(failure) = self.failures.get_mut(at) else { return Ok(()) };
        let error = failure.error.error(op, path);
        if let Some(times) = &mut failure.times {
            *times -= 1;
            if *times == 0 {
                self.failures.remove(at);
            }
        }
        Err(error)
    }

    /// Notes the point; false when the sync is to be left out.
    pub(super) fn sync(&mut self, point: SyncPoint, what: Synced) -> io::Result<bool> {
        *self.seen.entry((point, what)).or_default() += 1;
        if self.off_at_point == Some(point) {
            self.power_off_now();
            return Err(no_power());
        }
        Ok(!self.skipped.contains(&(point, what)))
    }

    pub(super) fn skip(&mut self, point: SyncPoint, what: Synced) {
        self.skipped.insert((point, what));
    }

    pub(super) fn honour(&mut self, point: SyncPoint) {
        self.skipped.retain(|(skipped, _)| *skipped != point);
    }

    pub(super) fn seen(&self) -> &BTreeMap<(SyncPoint, Synced), u64> {
        &self.seen
    }

    pub(super) fn fail(&mut self, under: &Path, op: Option<DiskOp>, error: Injected, times: Option<u32>) {
        self.failures.push(Failure { under: under.to_owned(), op, error, times });
    }

    pub(super) fn mend(&mut self) {
        self.failures.clear();
    }

    pub(super) fn power_off_after(&mut self, changes: u64) {
        self.off_at = Some(self.changes.saturating_add(changes));
    }

    pub(super) fn power_off_at(&mut self, point: Option<SyncPoint>) {
        self.off_at_point = point;
    }

    pub(super) fn power_off_now(&mut self) {
        self.off = true;
    }

    pub(super) fn power_stays_on(&mut self) {
        self.off_at = None;
        self.off_at_point = None;
    }

    pub(super) fn power_on(&mut self) {
        self.power_stays_on();
        self.off = false;
    }

    pub(super) fn is_off(&self) -> bool {
        self.off
    }

    pub(super) fn changes(&self) -> u64 {
        self.changes
    }
}

fn no_power() -> io::Error {
    io::Error::other("the simulated disk has no power")
}

/// Relative paths start at the root, as everywhere in the simulated disk.
fn below(path: &Path, under: &Path) -> bool {
    path.strip_prefix("/").unwrap_or(path).starts_with(under.strip_prefix("/").unwrap_or(under))
}
