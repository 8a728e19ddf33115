//! A store.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use quarry_env::{
    Batch, Kv, KvError, KvOptions, Space, SyncPoint,
    kv::{AtHand, Change, Frozen, Pair},
};
use rocksdb::{
    ColumnFamily, ColumnFamilyDescriptor, DB, Direction, ErrorKind, FlushOptions, IteratorMode, ReadOptions, ReadTier,
    Snapshot, WriteBatch, WriteOptions,
    checkpoint::Checkpoint,
    perf::{PerfContext, PerfMetric},
};

use crate::{
    error::{failed, kv_error, read_error},
    frozen::Held,
    gaps::Gaps,
    options,
};

/// A key and its value as the library hands them out.
type RawPair = (Box<[u8]>, Box<[u8]>);

/// RocksDB always has this column family; we store nothing in it.
const UNUSED: &str = "default";

/// Removed keys that a read from memory walks over; past them it is left to where it may take its time.
const WALKED_AT_HAND: u64 = 64;

/// Reads of memtables and cached blocks only.
fn at_hand() -> ReadOptions {
    let mut read = ReadOptions::default();
    read.set_read_tier(ReadTier::BlockCache);
    read.set_max_skippable_internal_keys(WALKED_AT_HAND);
    // The last one to look at replaced tables removes their files, which is no work for here.
    read.set_background_purge_on_iterator_cleanup(true);
    read
}

/// What RocksDB gives up for is not known.
fn or_unknown<T>(read: Result<T, rocksdb::Error>) -> Result<AtHand<T>, rocksdb::Error> {
    match read {
        Ok(found) => Ok(AtHand::Found(found)),
        Err(error) if error.kind() == ErrorKind::Incomplete => Ok(AtHand::Unknown),
        Err(error) => Err(error),
    }
}

/// An open store. RocksDB holds a lock file in the directory until this is dropped.
pub(crate) struct Store {
    path: PathBuf,
    db: DB,
    gaps: Gaps,
    apart: &'static [Space],
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
        let families = names.into_iter().map(|name| {
            let apart = tune.apart.iter().any(|space| space.0 == name);
            let options = if apart { options::apart(options.clone()) } else { options.clone() };
            ColumnFamilyDescriptor::new(name, options)
        });
        let db = DB::open_cf_descriptors(&options, path, families).map_err(|e| kv_error(path, &e))?;
        Ok(Store { path: path.to_owned(), db, gaps: Gaps::default(), apart: tune.apart })
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
        read: ReadOptions,
        space: Space,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> Result<impl Iterator<Item = Result<Pair, KvError>>, KvError> {
        Ok(self.raw_pairs(read, space, from, to)?.map(|pair| self.pair(pair)))
    }

    fn raw_pairs(
        &self,
        mut read: ReadOptions,
        space: Space,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> Result<impl Iterator<Item = Result<RawPair, rocksdb::Error>>, KvError> {
        if let Some(to) = to {
            // A range that ends before it begins is empty.
            read.set_iterate_upper_bound(to.max(from));
        }
        let start = IteratorMode::From(from, Direction::Forward);
        Ok(self.db.iterator_cf_opt(self.family(space)?, read, start))
    }

    fn pair(&self, pair: Result<RawPair, rocksdb::Error>) -> Result<Pair, KvError> {
        pair.map(plain).map_err(|e| self.error(&e))
    }
}

fn plain((key, value): RawPair) -> Pair {
    (key.into_vec(), value.into_vec())
}

impl Kv for Store {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        self.db.get_cf(self.family(space)?, key).map_err(|e| match self.apart.contains(&space) {
            true => read_error(&self.path, &e),
            false => self.error(&e),
        })
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

    fn get_at_hand(&self, space: Space, key: &[u8]) -> Result<AtHand<Option<Vec<u8>>>, KvError> {
        or_unknown(self.db.get_cf_opt(self.family(space)?, key, &at_hand())).map_err(|e| self.error(&e))
    }

    fn scan_at_hand(
        &self,
        space: Space,
        from: &[u8],
        to: Option<&[u8]>,
        limit: usize,
    ) -> Result<AtHand<Vec<Pair>>, KvError> {
        let pairs = self.raw_pairs(at_hand(), space, from, to)?.take(limit).collect::<Result<Vec<_>, _>>();
        match or_unknown(pairs).map_err(|e| self.error(&e))? {
            AtHand::Found(pairs) => Ok(AtHand::Found(pairs.into_iter().map(plain).collect())),
            AtHand::Unknown => Ok(AtHand::Unknown),
        }
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
