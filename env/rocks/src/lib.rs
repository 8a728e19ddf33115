//! Metadata stores in RocksDB.
//!
//! [`Rocks`] implements `quarry_env::KvFactory`. A [`quarry_env::Space`] is a column family. This crate must not
//! know what is stored.
//!
//! | file | holds |
//! |---|---|
//! | `options` | how a store is tuned, and which damage it accepts after a crash |
//! | `store` | the store |
//! | `frozen` | the store as it was at one moment |
//! | `gaps` | where scans need not walk over what was removed |
//! | `error` | RocksDB's errors as ours |

mod error;
mod frozen;
mod gaps;
mod options;
mod store;

use std::{path::Path, sync::Arc};

use quarry_env::{Kv, KvError, KvFactory, KvOptions, Space};

/// Opens RocksDB stores.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rocks;

impl KvFactory for Rocks {
    fn open(&self, path: &Path, spaces: &[Space], options: KvOptions) -> Result<Arc<dyn Kv>, KvError> {
        Ok(Arc::new(store::Store::open(path, spaces, options)?))
    }
}

#[cfg(test)]
mod tests;
