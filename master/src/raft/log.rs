//! The log and the vote, in a store of their own.
//!
//! Openraft tells one caller at a time what to write, and waits. One `append` is one batch and one fsync; commands that
//! arrive meanwhile go into the next one, which is how concurrent proposals come to share an fsync.

use std::{
    fmt::Debug,
    io,
    ops::{Bound, RangeBounds},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use openraft::{
    LogState, OptionalSend, RaftLogReader,
    storage::{IOFlushed, RaftLogStorage},
};
use quarry_env::{Batch, Kv, KvError, KvOptions, Recovery, Space, SyncPoint, World, kv::Pair};
use quarry_types::planted;

use super::{
    GroupError, codec,
    open::InUse,
    recent::Recent,
    types::{Entry, LogId, Types, Vote},
};
use crate::{
    store::{Layout, State},
    sync_points,
};

const ENTRIES: Space = Space("entries");
const META: Space = Space("meta");
const VOTE: &[u8] = b"vote";
const PURGED: &[u8] = b"purged";
const COMMITTED: &[u8] = b"committed";
const NODE: &[u8] = b"node";

/// Entries read from the store at a time.
const READ_PAGE: usize = 64;
/// A reader that may stop early stops after this many bytes.
const READ_BYTES: usize = 1 << 20;

/// The store of log and vote. Clones are the same store.
#[derive(Clone)]
pub(crate) struct LogStore {
    world: World,
    kv: Arc<dyn Kv>,
    /// The last committed id, stored with the next append: it only spares applying again after a restart.
    committed: Arc<Mutex<Option<LogId>>>,
    appends: Arc<AtomicU64>,
    recent: Arc<Mutex<Recent>>,
    /// Entries are purged only when a durable snapshot of this state has them (S11); absent in tests of the log alone.
    state: Option<Arc<State>>,
    _in_use: InUse,
}

impl LogStore {
    /// Opens or creates the log in `layout`. Blocks.
    pub(crate) fn open(
        world: &World,
        layout: &Layout,
        state: Option<Arc<State>>,
        in_use: InUse,
    ) -> Result<Self, GroupError> {
        let options = KvOptions { recovery: Recovery::Synced, ..KvOptions::default() };
        let kv = world.kv.open(&layout.log(), &[ENTRIES, META], options)?;
        let committed = Arc::new(Mutex::new(None));
        let (appends, recent) = (Arc::default(), Arc::default());
        let store = LogStore { world: world.clone(), kv, committed, appends, recent, state, _in_use: in_use };
        let committed = store.id_at(COMMITTED).map_err(|e| GroupError::io(&layout.log(), e))?;
        *store.lock_committed() = committed;
        Ok(store)
    }

    /// Stores which member this is. Blocks.
    pub(crate) fn save_node(&self, id: u64) -> Result<(), GroupError> {
        let mut batch = Batch::default();
        batch.put(META, NODE, id.to_be_bytes());
        // Synced with the first vote: a member without one may be forgotten.
        Ok(self.kv.write(batch, None)?)
    }

    /// Which member this is. Blocks.
    pub(crate) fn node(&self) -> Result<Option<u64>, GroupError> {
        let bytes = self.kv.get(META, NODE)?;
        Ok(bytes.and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes))
    }

    /// Makes an empty log that of a new member, behind entries that are all in its state, with its first vote. Blocks.
    pub(crate) fn begin_behind(&self, id: u64, last: &LogId, vote: &Vote) -> Result<(), GroupError> {
        let mut batch = Batch::default();
        batch.put(META, NODE, id.to_be_bytes());
        batch.put(META, PURGED, codec::log_id_to_bytes(last));
        batch.put(META, VOTE, codec::vote_to_bytes(vote));
        Ok(self.kv.write(batch, Some(sync_points::RAFT_VOTE))?)
    }

    /// The vote that was stored last. Blocks.
    pub(crate) fn vote(&self) -> io::Result<Option<Vote>> {
        let bytes = self.kv.get(META, VOTE).map_err(broken)?;
        bytes.map(codec::vote_from_bytes).transpose()
    }

    /// Entries from `from` on, as many as are read at once; none behind the end. Blocks.
    pub(crate) fn page_from(&self, from: u64) -> io::Result<Vec<Entry>> {
        self.read(from, None, READ_BYTES)
    }

    /// The ends of the log. Blocks.
    pub(crate) fn ends(&self) -> io::Result<LogState<Types>> {
        let last_purged_log_id = self.id_at(PURGED)?;
        let last = self.kv.last(ENTRIES).map_err(broken)?;
        let last = last.map(|(_, bytes)| codec::entry_from_bytes(bytes)).transpose()?;
        let last_log_id = last.map(|entry| entry.log_id).or(last_purged_log_id);
        Ok(LogState { last_purged_log_id, last_log_id })
    }

    fn id_at(&self, key: &[u8]) -> io::Result<Option<LogId>> {
        let bytes = self.kv.get(META, key).map_err(broken)?;
        bytes.map(codec::log_id_from_bytes).transpose()
    }

    /// How often entries were appended, each time with a sync, since the store was opened.
    pub(crate) fn appends(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.appends)
    }

    fn lock_committed(&self) -> std::sync::MutexGuard<'_, Option<LogId>> {
        self.committed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_recent(&self) -> std::sync::MutexGuard<'_, Recent> {
        // No change of it can panic half-way.
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Entries with the bytes that they take were appended, or perhaps not.
    fn remember(&self, appended: Vec<(Entry, usize)>, written: bool) {
        let mut recent = self.lock_recent();
        if written {
            appended.into_iter().for_each(|(entry, bytes)| recent.push(entry, bytes));
        } else {
            recent.clear();
        }
    }

    /// Runs `work` where it may block.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&LogStore) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let store = self.clone();
        self.world.blocking.run(move || work(&store)).await.map_err(io::Error::other)?
    }

    async fn write(&self, mut batch: Batch, sync: Option<SyncPoint>) -> io::Result<()> {
        if let Some(committed) = &*self.lock_committed() {
            batch.put(META, COMMITTED, codec::log_id_to_bytes(committed));
        }
        self.blocking(move |store| store.kv.write(batch, sync).map_err(broken)).await
    }

    /// Entries of `from..to`, whole pages of them until `bytes_max` is passed. Blocks.
    fn read(&self, from: u64, to: Option<u64>, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let to = to.map(key);
        let (mut next, mut bytes, mut entries) = (from, 0, Vec::new());
        loop {
            let page = self.kv.scan(ENTRIES, &key(next), to.as_ref().map(<[u8; 8]>::as_slice), READ_PAGE);
            let page: Vec<Pair> = page.map_err(broken)?;
            let last_page = page.len() < READ_PAGE;
            for (_, value) in page {
                bytes += value.len();
                entries.push(codec::entry_from_bytes(value)?);
                if bytes > bytes_max {
                    return Ok(entries);
                }
            }
            let Some(last) = entries.last().filter(|_| !last_page) else { return Ok(entries) };
            next = last.log_id.index + 1;
        }
    }
}

/// With what to do about it.
fn broken(error: KvError) -> io::Error {
    io::Error::other(GroupError::from(error))
}

/// Big-endian, so that keys sort as their numbers do.
fn key(index: u64) -> [u8; 8] {
    index.to_be_bytes()
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Result<Vec<Entry>, io::Error>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let from = match range.start_bound() {
            Bound::Included(from) => *from,
            Bound::Excluded(before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(last) => last.checked_add(1),
            Bound::Excluded(to) => Some(*to),
            Bound::Unbounded => None,
        };
        if let Some(recent) = to.and_then(|to| self.lock_recent().get(from, to, usize::MAX)) {
            return Ok(recent);
        }
        self.blocking(move |store| store.read(from, to, usize::MAX)).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        self.blocking(LogStore::vote).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        if let Some(recent) = self.lock_recent().get(start, end, READ_BYTES) {
            return Ok(recent);
        }
        self.blocking(move |store| store.read(start, Some(end), READ_BYTES)).await
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        self.blocking(LogStore::ends).await
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let mut batch = Batch::default();
        batch.put(META, VOTE, codec::vote_to_bytes(vote));
        self.write(batch, Some(sync_points::RAFT_VOTE).filter(|_| !planted!("skip-fsync-of-vote"))).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        *self.lock_committed() = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(*self.lock_committed())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let (mut batch, mut appended) = (Batch::default(), Vec::new());
        for entry in entries {
            let bytes = codec::entry_to_bytes(&entry);
            let (index, stored) = (entry.log_id.index, bytes.len());
            appended.push((entry, stored));
            batch.put(ENTRIES, key(index), bytes);
        }
        let sync = Some(sync_points::RAFT_APPEND).filter(|_| !planted!("skip-fsync-of-log"));
        let written = self.write(batch, sync).await;
        self.appends.fetch_add(1, Ordering::Relaxed);
        self.remember(appended, written.is_ok());
        let failed = written.as_ref().err().map(|e| io::Error::new(e.kind(), e.to_string()));
        callback.io_completed(written);
        failed.map_or(Ok(()), Err)
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        let from = last_log_id.map_or(0, |id| id.index + 1);
        self.lock_recent().truncate(from);
        let mut batch = Batch::default();
        // Not synced: what replaces these entries is, and never without this.
        batch.delete_range(ENTRIES, key(from), key(u64::MAX));
        self.write(batch, None).await
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        if let Some(state) = &self.state {
            let durable = state.durable_index();
            if durable.is_none_or(|durable| durable < log_id.index) {
                let message = format!("log entry {log_id} is not in a durable snapshot (newest: {durable:?})");
                return Err(io::Error::other(message));
            }
        }
        self.lock_recent().purge(log_id.index + 1);
        let mut batch = Batch::default();
        batch.delete_range(ENTRIES, key(0), key(log_id.index + 1));
        batch.put(META, PURGED, codec::log_id_to_bytes(&log_id));
        // Not synced: entries that come back are purged again.
        self.write(batch, None).await
    }
}
