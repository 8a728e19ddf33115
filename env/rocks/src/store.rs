//! A store.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use quarry_env::{
    Batch, Kv, KvError, KvOptions, Space, SyncPoint,
    kv::{Change, Frozen, Pair},
};
use rocksdb::{
    ColumnFamily, ColumnFamilyDescriptor, DB, Direction, FlushOptions, IteratorMode, ReadOptions, Snapshot, WriteBatch,
    WriteOptions,
    checkpoint::Checkpoint,
    perf::{PerfContext, PerfMetric},
};

use crate::{
    error::{failed, kv_error},
    frozen::Held,
    gaps::Gaps,
    options,
};

/// A key and its value as the library hands them out.
type RawPair = (Box<[u8]>, Box<[u8]>);

/// RocksDB always has this column family; we store nothing in it.
const UNUSED: &str = "default";

/// An open store. RocksDB holds a lock file in the directory until this is dropped.
pub(crate) struct Store {
    path: PathBuf,
    db: DB,
    gaps: Gaps,
}

impl Store {
    /// Opens or creates the store in `path` with the column families `spaces` and those that are there already.
    pub(crate) fn open(path: &Path, spaces: &[Space], tune: KvOptions) -> Result<Self, KvError> {
        let options = options::options(tune);
        // Fails when there is no store yet; opening tells other reasons.
        let mut names = DB::list_cf(&options, path).unwrap_or_default();
        names.push(UNUSED.into());
        names.extend(spaces.iter().map(|space| space.0.to_owned()));
        names.sort_unstable();
        names.dedup();
        let families = names.into_iter().map(|name| ColumnFamilyDescriptor::new(name, options.clone()));
        let db = DB::open_cf_descriptors(&options, path, families).map_err(|e| kv_error(path, &e))?;
        Ok(Store { path: path.to_owned(), db, gaps: Gaps::default() })
    }

    fn family(&self, space: Space) -> Result<&ColumnFamily, KvError> {
        let missing = || failed(&self.path, format!("opened without the space {:?}", space.0));
        self.db.cf_handle(space.0).ok_or_else(missing)
    }

    fn error(&self, error: &rocksdb::Error) -> KvError {
        kv_error(&self.path, error)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What the store holds now, while the result lives.
    pub(crate) fn snapshot(&self) -> Snapshot<'_> {
        self.db.snapshot()
    }

    /// The pairs of a range, read with these options, which may name a snapshot of this store.
    pub(crate) fn pairs(
        &self,
        mut read: ReadOptions,
        space: Space,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> Result<impl Iterator<Item = Result<Pair, KvError>>, KvError> {
        if let Some(to) = to {
            // A range that ends before it begins is empty.
            read.set_iterate_upper_bound(to.max(from));
        }
        let start = IteratorMode::From(from, Direction::Forward);
        let pairs = self.db.iterator_cf_opt(self.family(space)?, read, start);
        Ok(pairs.map(|pair| self.pair(pair)))
    }

    fn pair(&self, pair: Result<RawPair, rocksdb::Error>) -> Result<Pair, KvError> {
        let (key, value) = pair.map_err(|e| self.error(&e))?;
        Ok((key.into_vec(), value.into_vec()))
    }
}

impl Kv for Store {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        self.db.get_cf(self.family(space)?, key).map_err(|e| self.error(&e))
    }

    fn scan(&self, space: Space, from: &[u8], to: Option<&[u8]>, limit: usize) -> Result<Vec<Pair>, KvError> {
        let begin = self.gaps.begin(space, from);
        let Some(start) = begin.key.as_deref().filter(|start| to.is_none_or(|to| *start < to)) else {
            return Ok(Vec::new());
        };
        // What this thread has walked over so far, which RocksDB counts unless it is told not to.
        let walked = || PerfContext::default().metric(PerfMetric::InternalDeleteSkippedCount);
        let before = walked();
        let mut pairs = self.pairs(ReadOptions::default(), space, start, to)?.take(limit).peekable();
        match pairs.peek() {
            Some(Ok((key, _))) => self.gaps.walked(space, from, &begin, walked() - before, Some(key)),
            None if limit > 0 => self.gaps.walked(space, from, &begin, walked() - before, to),
            Some(Err(_)) | None => {}
        }
        pairs.collect()
    }

    fn last(&self, space: Space) -> Result<Option<Pair>, KvError> {
        let mut pairs = self.db.iterator_cf(self.family(space)?, IteratorMode::End);
        pairs.next().map(|pair| self.pair(pair)).transpose()
    }

    fn write(&self, batch: Batch, sync: Option<SyncPoint>) -> Result<(), KvError> {
        if batch.is_empty() {
            // RocksDB skips the sync of a batch that writes nothing.
            return match sync {
                Some(_) => self.db.flush_wal(true).map_err(|e| self.error(&e)),
                None => Ok(()),
            };
        }
        let mut changes = WriteBatch::default();
        for change in &batch.changes {
            match change {
                Change::Put(space, key, value) => changes.put_cf(self.family(*space)?, key, value),
                Change::Delete(space, key) => changes.delete_cf(self.family(*space)?, key),
                Change::DeleteRange(space, from, to) if from < to => {
                    changes.delete_range_cf(self.family(*space)?, from, to);
                }
                // RocksDB calls an empty range an error; here it has no keys.
                Change::DeleteRange(..) => {}
            }
        }
        let mut options = WriteOptions::default();
        options.set_sync(sync.is_some());
        let written = self.gaps.writing(&batch.changes, || self.db.write_opt(changes, &options));
        written.map_err(|e| self.error(&e))
    }

    fn flush(&self, _: SyncPoint) -> Result<(), KvError> {
        let names = DB::list_cf(&rocksdb::Options::default(), &self.path).map_err(|e| self.error(&e))?;
        let families: Vec<&ColumnFamily> = names.iter().filter_map(|name| self.db.cf_handle(name)).collect();
        let mut options = FlushOptions::default();
        options.set_wait(true);
        // Tables and the manifest are synced by RocksDB before a flush returns.
        self.db.flush_cfs_opt(&families.iter().collect::<Vec<_>>(), &options).map_err(|e| self.error(&e))
    }

    fn checkpoint(&self, to: &Path) -> Result<(), KvError> {
        let checkpoint = Checkpoint::new(&self.db).map_err(|e| self.error(&e))?;
        checkpoint.create_checkpoint(to).map_err(|e| self.error(&e))
    }

    fn freeze(self: Arc<Self>) -> Result<Box<dyn Frozen>, KvError> {
        Ok(Box::new(Held::new(self)?))
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // A clean close need not replay the log. A failure leaves exactly what a crash would, which opening repairs.
        let _replayed_instead = self.db.flush_wal(true);
    }
}
