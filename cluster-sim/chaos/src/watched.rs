//! Metadata stores whose changes someone looks at, just before they are made and just after.

use std::{path::Path, sync::Arc};

use quarry_env::{
    Batch, Kv, KvError, KvFactory, KvOptions, Space, SyncPoint, World,
    kv::{AtHand, Frozen, Pair},
};

/// Sees every batch that is written. A store is told by the name of its directory.
pub trait Watcher: Send + Sync {
    /// It is about to be written.
    fn before(&self, store: &str, batch: &Batch);

    /// It was written, and what was to be synced is.
    fn after(&self, _store: &str, _batch: &Batch) {}
}

struct WatchedFactory {
    inner: Arc<dyn KvFactory>,
    watcher: Arc<dyn Watcher>,
}

struct Watched {
    inner: Arc<dyn Kv>,
    watcher: Arc<dyn Watcher>,
    name: String,
}

/// Lets `watcher` see what is written to the stores of a world.
pub fn watched(world: World, watcher: Arc<dyn Watcher>) -> World {
    World { kv: Arc::new(WatchedFactory { inner: Arc::clone(&world.kv), watcher }), ..world }
}

impl KvFactory for WatchedFactory {
    fn open(&self, path: &Path, spaces: &[Space], options: KvOptions) -> Result<Arc<dyn Kv>, KvError> {
        let inner = self.inner.open(path, spaces, options)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Arc::new(Watched { inner, watcher: Arc::clone(&self.watcher), name }))
    }
}

impl Kv for Watched {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        self.inner.get(space, key)
    }

    fn scan(&self, space: Space, from: &[u8], to: Option<&[u8]>, limit: usize) -> Result<Vec<Pair>, KvError> {
        self.inner.scan(space, from, to, limit)
    }

    fn get_at_hand(&self, space: Space, key: &[u8]) -> Result<AtHand<Option<Vec<u8>>>, KvError> {
        self.inner.get_at_hand(space, key)
    }

    fn scan_at_hand(
        &self,
        space: Space,
        from: &[u8],
        to: Option<&[u8]>,
        limit: usize,
    ) -> Result<AtHand<Vec<Pair>>, KvError> {
        self.inner.scan_at_hand(space, from, to, limit)
    }

    fn last(&self, space: Space) -> Result<Option<Pair>, KvError> {
        self.inner.last(space)
    }

    fn write(&self, batch: Batch, sync: Option<SyncPoint>) -> Result<(), KvError> {
        self.watcher.before(&self.name, &batch);
        let copy = batch.clone();
        self.inner.write(batch, sync)?;
        self.watcher.after(&self.name, &copy);
        Ok(())
    }

    fn flush(&self, point: SyncPoint) -> Result<(), KvError> {
        self.inner.flush(point)
    }

    fn checkpoint(&self, to: &Path) -> Result<(), KvError> {
        self.inner.checkpoint(to)
    }

    fn freeze(self: Arc<Self>) -> Result<Box<dyn Frozen>, KvError> {
        Arc::clone(&self.inner).freeze()
    }
}
