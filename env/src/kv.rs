//! Ordered key-value stores for metadata. All calls block: make them through [`crate::Blocking`].

use std::{path::Path, sync::Arc};

use crate::disk::SyncPoint;

/// A named part of a store with keys of its own (a column family).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Space(pub &'static str);

/// A store failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum KvError {
    /// The store reported an error; it must be treated as closed.
    #[error("metadata store {path}: {message}; check the disk and the log above, then restart")]
    Failed {
        /// Where the store lives.
        path: String,
        /// What it said.
        message: String,
    },
    /// What is stored fails its checksums, cannot be read from the medium, or lacks what the store had synced.
    #[error("metadata store {path} is damaged: {message}")]
    Damaged {
        /// Where the store lives.
        path: String,
        /// What it said.
        message: String,
    },
    /// The disk is full. Nothing of the batch was written.
    #[error("metadata store {path}: no space left; free some room on that file system")]
    Full {
        /// Where the store lives.
        path: String,
    },
    /// This process has no metadata store.
    #[error("this process keeps no metadata store")]
    Absent,
}

/// Several changes that happen together or not at all.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// In order; the last change of a key wins.
    pub changes: Vec<Change>,
}

/// One change of a [`Batch`].
#[derive(Clone, Debug)]
pub enum Change {
    /// Sets a key.
    Put(Space, Vec<u8>, Vec<u8>),
    /// Removes a key, if it is there.
    Delete(Space, Vec<u8>),
    /// Removes every key in `from..to`.
    DeleteRange(Space, Vec<u8>, Vec<u8>),
}

impl Batch {
    /// Sets a key.
    pub fn put(&mut self, space: Space, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.changes.push(Change::Put(space, key.into(), value.into()));
    }

    /// Removes a key.
    pub fn delete(&mut self, space: Space, key: impl Into<Vec<u8>>) {
        self.changes.push(Change::Delete(space, key.into()));
    }

    /// Removes every key in `from..to`.
    pub fn delete_range(&mut self, space: Space, from: impl Into<Vec<u8>>, to: impl Into<Vec<u8>>) {
        self.changes.push(Change::DeleteRange(space, from.into(), to.into()));
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

/// A key with its value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// What a read finds that waits for no disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AtHand<T> {
    /// What there is.
    Found(T),
    /// It would have to wait, or to work for long.
    Unknown,
}

/// An ordered store.
pub trait Kv: Send + Sync {
    /// The value of `key`.
    ///
    /// # Errors
    /// [`KvError::Damaged`] of a value that the medium gave up: others may be good. [`KvError::Failed`].
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, KvError>;
    /// At most `limit` pairs with keys in `from..to` (no end when `to` is `None`), ascending.
    ///
    /// # Errors
    /// [`KvError::Failed`].
    fn scan(&self, space: Space, from: &[u8], to: Option<&[u8]>, limit: usize) -> Result<Vec<Pair>, KvError>;
    /// As [`Kv::get`], from memory only: it may be called where nothing may block.
    ///
    /// # Errors
    /// [`KvError::Failed`].
    fn get_at_hand(&self, space: Space, key: &[u8]) -> Result<AtHand<Option<Vec<u8>>>, KvError>;
    /// As [`Kv::scan`], from memory only: it may be called where nothing may block. Keep `limit` small.
    ///
    /// # Errors
    /// [`KvError::Failed`].
    fn scan_at_hand(
        &self,
        space: Space,
        from: &[u8],
        to: Option<&[u8]>,
        limit: usize,
    ) -> Result<AtHand<Vec<Pair>>, KvError>;
    /// The last pair of a space.
    ///
    /// # Errors
    /// [`KvError::Failed`].
    fn last(&self, space: Space) -> Result<Option<Pair>, KvError>;
    /// Applies a batch atomically. With a [`SyncPoint`] it, and every batch before it, is durable on return;
    /// without one it may be lost by a crash, but never without every batch after it being lost too.
    ///
    /// # Errors
    /// [`KvError::Full`] or [`KvError::Failed`]. After `Failed` it is unknown whether the batch is durable.
    fn write(&self, batch: Batch, sync: Option<SyncPoint>) -> Result<(), KvError>;
    /// Makes everything written so far durable in tables, so that it survives without the store's own log.
    ///
    /// # Errors
    /// [`KvError::Failed`].
    fn flush(&self, point: SyncPoint) -> Result<(), KvError>;
    /// Writes a consistent copy, as a directory that [`KvFactory::open`] opens, without stopping writers. Shares
    /// files with the store where it can. What is in the directory is durable on return; its name is the caller's to
    /// sync.
    ///
    /// # Errors
    /// [`KvError::Failed`]; also when `to` exists.
    fn checkpoint(&self, to: &Path) -> Result<(), KvError>;
    /// The store as it is now, to be read while it goes on changing. Cheap to take; what is replaced meanwhile stays on the
    /// disk until it is dropped, and so does the store: it is not closed before.
    ///
    /// # Errors
    /// [`KvError::Failed`].
    fn freeze(self: Arc<Self>) -> Result<Box<dyn Frozen>, KvError>;
}

/// A store as it was at one moment; see [`Kv::freeze`].
pub trait Frozen: Send + Sync {
    /// As [`Kv::scan`].
    ///
    /// # Errors
    /// [`KvError::Failed`].
    fn scan(&self, space: Space, from: &[u8], to: Option<&[u8]>, limit: usize) -> Result<Vec<Pair>, KvError>;
}

/// What opening a store after a crash may leave out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Recovery {
    /// Only an unfinished last batch. Damage before it refuses to open: what was synced may be behind it.
    #[default]
    Synced,
    /// Every batch from the first damaged one on that was not [`Kv::flush`]ed. For a store whose owner can repeat what
    /// is missing from elsewhere.
    Prefix,
}

/// How a store is tuned.
#[derive(Clone, Copy, Debug)]
pub struct KvOptions {
    /// Memory for cached blocks, in bytes.
    pub cache_bytes: usize,
    /// Memory for changes not yet in tables, in bytes.
    pub write_buffer_bytes: usize,
    /// Whether the store tidies up its files in the background. Off for one that is opened to be looked at.
    pub upkeep: bool,
    /// What may be missing after a crash.
    pub recovery: Recovery,
    /// Spaces whose values are kept apart from their keys: long ones, which tidying up never reads or moves. So a damaged one is in
    /// nobody's way, and the room of removed ones is free once their neighbours of the same time were written anew or removed.
    pub apart: &'static [Space],
}

impl Default for KvOptions {
    fn default() -> Self {
        KvOptions {
            cache_bytes: 32 << 20,
            write_buffer_bytes: 16 << 20,
            upkeep: true,
            recovery: Recovery::Synced,
            apart: &[],
        }
    }
}

/// Opens stores.
pub trait KvFactory: Send + Sync {
    /// Opens, or creates, the store in the directory `path` with exactly these spaces (others that exist
    /// already are kept). At most one opener at a time. The name of a new directory is the caller's to sync.
    ///
    /// # Errors
    /// [`KvError::Damaged`] when its middle is corrupt, [`KvError::Failed`] also when another process holds it.
    fn open(&self, path: &Path, spaces: &[Space], options: KvOptions) -> Result<Arc<dyn Kv>, KvError>;
}

/// For processes without a metadata store.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoKv;

impl KvFactory for NoKv {
    fn open(&self, _: &Path, _: &[Space], _: KvOptions) -> Result<Arc<dyn Kv>, KvError> {
        Err(KvError::Absent)
    }
}
