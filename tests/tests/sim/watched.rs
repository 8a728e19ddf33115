//! Metadata stores whose changes someone looks at, just before they are made.

use std::{path::Path, sync::Arc};

use quarry_env::{
    Batch, Kv, KvError, KvFactory, KvOptions, Space, SyncPoint, World,
    kv::{Frozen, Pair},
};

/// Sees every batch before it is written.
pub trait Watcher: Send + Sync {
    fn before(&self, batch: &Batch);
}

struct Watched<T> {
    inner: T,
    watcher: Arc<dyn Watcher>,
    /// Only stores in directories whose name begins so.
    named: &'static str,
}

/// Lets `watcher` see what is written to stores of a certain name.
pub fn watched(world: World, named: &'static str, watcher: Arc<dyn Watcher>) -> World {
    World { kv: Arc::new(Watched { inner: Arc::clone(&world.kv), watcher, named }), ..world }
}

impl KvFactory for Watched<Arc<dyn KvFactory>> {
    fn open(&self, path: &Path, spaces: &[Space], options: KvOptions) -> Result<Arc<dyn Kv>, KvError> {
        let inner = self.inner.open(path, spaces, options)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if !name.starts_with(self.named) {
            return Ok(inner);
        }
        Ok(Arc::new(Watched { inner, watcher: Arc::clone(&self.watcher), named: self.named }))
    }
}

impl Kv for Watched<Arc<dyn Kv>> {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        self.inner.get(space, key)
    }

    fn scan(&self, space: Space, from: &[u8], to: Option<&[u8]>, limit: usize) -> Result<Vec<Pair>, KvError> {
        self.inner.scan(space, from, to, limit)
    }

    fn last(&self, space: Space) -> Result<Option<Pair>, KvError> {
        self.inner.last(space)
    }

    fn write(&self, batch: Batch, sync: Option<SyncPoint>) -> Result<(), KvError> {
        self.watcher.before(&batch);
        self.inner.write(batch, sync)
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
